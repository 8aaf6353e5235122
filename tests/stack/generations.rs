//! Compose 1.29 and Compose 2 read the same from docker-compose.yml, without a word of warning. No engine is asked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::compose::{COMPOSE, ENVIRONMENT, SECRETS, SERVICES, Service, strings};
use crate::needs;
use crate::project::{root, yaml};
use crate::servers::{COMPOSE_V1, COMPOSE_V2, Test};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([COMPOSE_V1, COMPOSE_V2], both_generations_of_compose_read_the_same),
        needs!([COMPOSE_V1, COMPOSE_V2], what_a_generation_lacks_is_refused),
    ]
}

/// A Compose of a known generation.
struct Compose {
    program: PathBuf,
    version: &'static str,
}

impl Compose {
    /// Both, which must be what they are said to be: a file's name does not say it.
    fn both([first, second]: [PathBuf; 2]) -> [Self; 2] {
        [(first, "1.29."), (second, "2.")].map(|(program, version)| {
            let said = Command::new(&program).args(["version", "--short"]).output().unwrap().stdout;
            let said = String::from_utf8(said).unwrap();
            assert!(said.trim_start_matches('v').starts_with(version), "{program:?} is Compose {said}");
            Self { program, version }
        })
    }

    /// Runs `config` in a folder, with no setting of whoever runs the tests and no engine.
    fn config(&self, arguments: &[&str], folder: &Path) -> Output {
        // Docker finds its plugins under HOME.
        let kept = ["PATH", "HOME", "DOCKER_CONFIG"].map(|name| (name, std::env::var_os(name).unwrap_or_default()));
        Command::new(&self.program)
            .args(arguments)
            .arg("config")
            .current_dir(folder)
            .env_clear()
            .envs(kept.into_iter().filter(|(_, value)| !value.is_empty()))
            .env("DOCKER_HOST", "unix:///nowhere")
            .output()
            .unwrap()
    }

    fn read(&self, arguments: &[&str], folder: &Path) -> Value {
        let output = self.config(arguments, folder);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "Compose {} {arguments:?}: {said}", self.version);
        assert_eq!(said, "", "Compose {} {arguments:?} warns", self.version);
        yaml(&String::from_utf8(output.stdout).unwrap()).unwrap()
    }
}

/// What a configuration says of each service, all of it, in the form that both generations' outputs can be brought to.
fn essence(config: &Value) -> BTreeMap<String, Value> {
    let services = config["services"].as_object().unwrap();
    services.iter().map(|(name, service)| (name.clone(), one_form(service))).collect()
}

fn one_form(service: &Value) -> Value {
    let mut service = service.clone();
    let bytes = |size: &str| match size.split_at(size.len() - 1) {
        (number, "m") => number.parse::<u64>().unwrap() << 20,
        (number, "g") => number.parse::<u64>().unwrap() << 30,
        _ => size.parse().unwrap(),
    };
    service["mem_limit"] = json!(bytes(service["mem_limit"].as_str().unwrap()));
    for pointer in ["/healthcheck/interval", "/healthcheck/timeout", "/healthcheck/start_period", "/stop_grace_period"]
    {
        if let Some(duration) = service.pointer_mut(pointer) {
            *duration = json!(humantime::parse_duration(duration.as_str().unwrap()).unwrap().as_secs());
        }
    }
    let list = |name: &str, one: fn(&Value) -> Value| -> Value {
        let mut list: Vec<_> = service[name].as_array().into_iter().flatten().map(one).collect();
        // Compose 1.29 lists mounts in an order of its own.
        list.sort_by_key(Value::to_string);
        list.into()
    };
    let ports = list("ports", |port| match port.as_str() {
        Some(port) => json!(port),
        None => json!(format!(
            "{}:{}:{}/{}",
            port["host_ip"].as_str().unwrap_or_default(),
            port["published"].as_str().unwrap(),
            port["target"],
            port["protocol"].as_str().unwrap(),
        )),
    });
    let volumes = list("volumes", |mount| match mount.as_str() {
        Some(mount) => json!(mount),
        None => json!(format!(
            "{}:{}:{}",
            mount["source"].as_str().unwrap(),
            mount["target"].as_str().unwrap(),
            if mount["read_only"] == true { "ro" } else { "rw" },
        )),
    });
    let secrets = list("secrets", |secret| secret["source"].clone());
    let members = service.as_object_mut().unwrap();
    for (name, list) in [("ports", ports), ("volumes", volumes), ("secrets", secrets)] {
        members.insert(name.to_owned(), list);
    }
    let networks: Vec<_> = members["networks"].as_object().unwrap().keys().cloned().collect();
    members.insert("networks".to_owned(), json!(networks));
    if let Some(waits) = members.get_mut("depends_on") {
        for how in waits.as_object_mut().unwrap().values_mut() {
            *how = how["condition"].clone();
        }
    }
    // Compose 2 names the default as well.
    if let Some(build) = members.get_mut("build").filter(|build| build["dockerfile"] == "Dockerfile") {
        build.as_object_mut().unwrap().remove("dockerfile");
    }
    service
}

async fn both_generations_of_compose_read_the_same(tools: [PathBuf; 2]) {
    let [first, second] = Compose::both(tools);
    // Without a .env of whoever runs the tests.
    let copy = tempfile::tempdir().unwrap();
    for file in [COMPOSE, ENVIRONMENT, SECRETS] {
        let to = copy.path().join(file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(root().join(file), to).unwrap();
    }
    let both = |arguments: &[&str]| {
        let [first, second] = [&first, &second].map(|compose| compose.read(arguments, copy.path()));
        assert_eq!(
            first["secrets"]["grafana_admin_password"]["file"],
            second["secrets"]["grafana_admin_password"]["file"]
        );
        let [all, second] = [&first, &second].map(essence);
        for (name, service) in &second {
            // Compose 1.29 shows the services of every profile, whether or not it would start them.
            assert_eq!(all.get(name), Some(service), "{name} with {arguments:?}: 1.29 on the left, 2 on the right");
        }
        second
    };

    let plain = both(&[]);
    let example = both(&["--env-file", ENVIRONMENT]);
    let secrets = both(&["-f", COMPOSE, "-f", SECRETS]);

    assert_eq!(plain, example, "{ENVIRONMENT} changes something");
    assert_names(&plain, &[]);
    for profile in ["load", "job"] {
        assert_names(&both(&["--profile", profile]), &[profile]);
        assert_names(&both(&["--profile", profile, "-f", COMPOSE, "-f", SECRETS]), &[profile]);
    }
    assert_names(&both(&["--profile", "load", "--profile", "job"]), &["load", "job"]);
    let file = "/run/secrets/grafana_admin_password";
    for (service, password) in [("grafana", "GF_SECURITY_ADMIN_PASSWORD_"), ("provision", "GRAFANA_ADMIN_PASSWORD")] {
        let environment = &secrets[service]["environment"];
        assert_eq!(environment[format!("{password}_FILE")], file, "{service}");
        // Grafana, and provision.sh, refuse to be told both ways.
        assert_eq!(environment[password.trim_end_matches('_')], "", "{service}");
        assert_eq!(strings(&secrets[service]["secrets"]), ["grafana_admin_password"], "{service}");
    }
}

/// Those without a profile start always, the others with theirs only.
fn assert_names(services: &BTreeMap<String, Value>, profiles: &[&str]) {
    let started = |service: &&Service| service.profile.is_none_or(|profile| profiles.contains(&profile));
    let mut names: Vec<_> = SERVICES.iter().filter(started).map(|service| service.name).collect();
    names.sort_unstable();
    assert_eq!(services.keys().collect::<Vec<_>>(), names, "with the profiles {profiles:?}");
}

/// The test above would be worth nothing with a Compose that takes everything.
async fn what_a_generation_lacks_is_refused(tools: [PathBuf; 2]) {
    let [first, second] = Compose::both(tools);
    let text = std::fs::read_to_string(root().join(COMPOSE)).unwrap();
    let secret = "\nsecrets:\n  word:\n    environment: WORD\n";
    // A fault, who must complain of it, and with what.
    let faults = [
        ("services:\n", "name: stack\nservices:\n", &first, "'name' does not match"),
        ("      start_period: 3m", "      start_interval: 1s", &first, "'start_interval' does not match"),
        ("\nnetworks:\n", &format!("{secret}\nnetworks:\n"), &first, "'environment' does not match"),
        ("services:\n", "version: '3.8'\nservices:\n", &second, "`version` is obsolete"),
        ("${API_PORT:-8000}", "${API_PORT}", &second, "variable is not set"),
        ("${API_PORT:-8000}", "${API_PORT}", &first, "variable is not set"),
        ("      prometheus:\n        condition", "      metrics:\n        condition", &second, "undefined service"),
    ];
    for (right, wrong, compose, complaint) in faults {
        assert!(text.contains(right), "no {right:?}");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(COMPOSE), text.replacen(right, wrong, 1)).unwrap();
        let said = compose.config(&[], folder.path()).stderr;
        let said = String::from_utf8_lossy(&said);
        assert!(said.contains(complaint), "Compose {} of {wrong:?}: {said:?}", compose.version);
    }
}
