//! docker-compose.yml and what belongs to it are as the specification says.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::images::{self, API, IGNORED, PROVISION, is_pinned};
use crate::needs;
use crate::project::{root, yaml};
use crate::servers::Test;

pub fn tests() -> Vec<Test> {
    vec![needs!([], the_stack_is_as_specified), needs!([], every_deviation_is_found)]
}

// ---- What is read ----

/// The project's files by name, as they are or with a fault put in.
#[derive(Clone)]
pub struct Files {
    pub texts: BTreeMap<&'static str, String>,
    /// Everything that git knows or would add.
    pub tracked: BTreeSet<String>,
}

pub const COMPOSE: &str = "docker-compose.yml";
pub const ENVIRONMENT: &str = ".env.example";
pub const SECRETS: &str = "deploy/compose.secrets.yml";
const SCRAPED: &str = "prometheus/prometheus.yml";
const README: &str = "README.md";

impl Files {
    fn read() -> Self {
        let names = [COMPOSE, ENVIRONMENT, SECRETS, API, PROVISION, IGNORED, SCRAPED, README];
        let texts = names.map(|name| (name, std::fs::read_to_string(root().join(name)).unwrap()));
        let listed = Command::new("git")
            .args(["ls-files", "--cached", "--others", "--exclude-standard"])
            .current_dir(root())
            .output()
            .unwrap();
        assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
        let tracked = String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect();
        Self { texts: texts.into(), tracked }
    }

    fn holds(&self, path: &str) -> bool {
        let path = path.trim_start_matches("./").trim_end_matches('/');
        self.tracked.iter().any(|file| file == path || file.starts_with(&format!("{path}/")))
    }
}

/// A text with every `${NAME:-default}` replaced by its default, and the defaults by name.
fn resolved(text: &str) -> Result<(String, BTreeMap<String, String>), String> {
    let mut pieces = text.split("${");
    let mut whole = pieces.next().unwrap().to_owned();
    let mut defaults = BTreeMap::new();
    for piece in pieces {
        let Some((setting, rest)) = piece.split_once('}') else {
            return Err(format!("${{{piece} has another variable in its default, which Compose 1.29 cannot read"));
        };
        let Some((name, default)) = setting.split_once(":-") else {
            return Err(format!("${{{setting}}} has no default: the stack must start without a .env"));
        };
        if defaults.insert(name.to_owned(), default.to_owned()).is_some_and(|other| other != default) {
            return Err(format!("{name} has two defaults"));
        }
        whole.push_str(default);
        whole.push_str(rest);
    }
    if whole.contains('$') {
        return Err("there is a \"$\" that is not of the form ${NAME:-default}".to_owned());
    }
    Ok((whole, defaults))
}

pub fn strings(list: &Value) -> Vec<String> {
    let one = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
    list.as_array().map(|list| list.iter().map(one).collect()).unwrap_or_default()
}

fn keys(map: &Value) -> BTreeSet<String> {
    map.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

// ---- The facts ----

pub struct Service {
    pub name: &'static str,
    container: Option<&'static str>,
    /// On which port it listens, which is published under the same number.
    port: Option<u16>,
    /// The end of its health check's command.
    health: Option<&'static str>,
    /// Which services come first, and in which condition.
    after: &'static [(&'static str, &'static str)],
    pub profile: Option<&'static str>,
    read_only: bool,
}

const HEALTHY: &str = "service_healthy";

pub const SERVICES: [Service; 8] = [
    Service {
        name: "api",
        container: Some("api-monitoring"),
        port: Some(8000),
        health: Some("/usr/local/bin/api-monitoring healthcheck"),
        after: &[],
        profile: None,
        read_only: true,
    },
    Service {
        name: "prometheus",
        container: Some("prometheus-monitoring"),
        port: Some(9090),
        health: Some("http://127.0.0.1:9090/-/healthy"),
        after: &[("api", HEALTHY)],
        profile: None,
        read_only: true,
    },
    Service {
        name: "pushgateway",
        container: Some("pushgateway-monitoring"),
        port: Some(9091),
        health: Some("http://127.0.0.1:9091/-/healthy"),
        after: &[],
        profile: None,
        read_only: true,
    },
    Service {
        name: "alertmanager",
        container: Some("alertmanager-monitoring"),
        port: Some(9093),
        health: Some("http://127.0.0.1:9093/-/healthy"),
        after: &[],
        profile: None,
        read_only: true,
    },
    Service {
        name: "grafana",
        container: Some("grafana-monitoring"),
        port: Some(3000),
        health: Some("http://127.0.0.1:3000/api/health"),
        after: &[("prometheus", HEALTHY)],
        profile: None,
        // Upstream does not say where else it writes.
        read_only: false,
    },
    Service {
        name: "provision",
        container: Some("provision-monitoring"),
        port: None,
        health: Some("test -f /tmp/provisioned"),
        after: &[("grafana", HEALTHY)],
        profile: None,
        read_only: true,
    },
    Service {
        name: "load",
        container: Some("load-monitoring"),
        port: None,
        health: None,
        after: &[("api", HEALTHY)],
        profile: Some("load"),
        read_only: true,
    },
    Service {
        name: "job",
        container: None,
        port: None,
        health: None,
        after: &[("api", HEALTHY), ("pushgateway", "service_started")],
        profile: Some("job"),
        read_only: true,
    },
];

/// What a service's command or environment must say, and why.
const SETTINGS: [(&str, &str, &str); 33] = [
    ("api", "API_LISTEN=0.0.0.0:8000", "or nothing outside its container reaches it"),
    ("api", "DATABASE_URL=sqlite:///data/users.db", "the volume"),
    ("prometheus", "--config.file=/etc/prometheus/prometheus.yml", "the mounted folder"),
    ("prometheus", "--storage.tsdb.path=/prometheus", "the volume"),
    ("prometheus", "--storage.tsdb.retention.time=15d", "what the budgets' dashboard is said to rest on"),
    ("prometheus", "--web.enable-lifecycle", "rules are reloaded without a restart"),
    ("prometheus", "--enable-feature=exemplar-storage", "exemplars"),
    ("pushgateway", "--persistence.file=/pushgateway/metrics", "what was pushed outlives the container"),
    ("alertmanager", "--config.file=/etc/alertmanager/alertmanager.yml", "the mounted folder"),
    ("alertmanager", "--storage.path=/alertmanager", "the volume"),
    ("grafana", "GF_SECURITY_ADMIN_USER=admin", "the local default"),
    ("grafana", "GF_SECURITY_ADMIN_PASSWORD=admin", "the local default"),
    ("grafana", "GF_USERS_ALLOW_SIGN_UP=false", "nobody makes an account"),
    ("grafana", "GF_AUTH_ANONYMOUS_ENABLED=false", "nobody looks without one"),
    ("grafana", "GF_ANALYTICS_REPORTING_ENABLED=false", "no usage report"),
    ("grafana", "GF_ANALYTICS_CHECK_FOR_UPDATES=false", "no look for updates"),
    ("grafana", "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES=false", "no look for updates"),
    ("grafana", "GF_NEWS_NEWS_FEED_ENABLED=false", "no look for news"),
    ("grafana", "GF_SECURITY_DISABLE_GRAVATAR=true", "no avatars from outside"),
    ("grafana", "GF_PLUGINS_PREINSTALL_DISABLED=true", "no plugins from outside"),
    ("grafana", "GF_PLUGINS_PUBLIC_KEY_RETRIEVAL_DISABLED=true", "nor their keys"),
    ("grafana", "GF_SNAPSHOTS_EXTERNAL_ENABLED=false", "no dashboards to outside"),
    ("grafana", "GF_METRICS_ENABLED=true", "Prometheus scrapes it"),
    (
        "grafana",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH=/etc/grafana/dashboards/api-monitoring.json",
        "home is our main dashboard",
    ),
    ("grafana", "GF_SERVER_ROOT_URL=http://localhost:3000/", "its links"),
    ("provision", "TF_VAR_grafana_url=http://grafana:3000", "where it applies"),
    ("provision", "TF_VAR_grafana_public_url=http://localhost:3000", "the dashboards' addresses that it prints"),
    ("provision", "TF_VAR_prometheus_url=http://prometheus:9090", "where Grafana asks"),
    ("provision", "TF_VAR_alertmanager_url=http://alertmanager:9093", "where Grafana asks"),
    ("load", "LOAD_TARGET=http://api:8000", "the API in the network"),
    ("job", "LOAD_TARGET=http://api:8000", "the API in the network"),
    ("job", "PUSHGATEWAY_URL=http://pushgateway:9091", "where it pushes"),
    ("job", "PUSH_SPOOL_DIR=/spool", "the volume"),
];

/// What those settings and the images name inside a container, and which volume or file of the project that must be.
const PLACES: [(&str, &str, &str); 10] = [
    ("api", "/data/users.db", "api_data/users.db"),
    ("prometheus", "/etc/prometheus/prometheus.yml", "./prometheus/prometheus.yml"),
    ("prometheus", "/prometheus", "prometheus_data"),
    ("pushgateway", "/pushgateway/metrics", "pushgateway_data/metrics"),
    ("alertmanager", "/etc/alertmanager/alertmanager.yml", "./deploy/alertmanager/alertmanager.yml"),
    ("alertmanager", "/alertmanager", "alertmanager_data"),
    ("grafana", "/etc/grafana/dashboards/api-monitoring.json", "./grafonnet/rendered/api-monitoring.json"),
    ("grafana", "/var/lib/grafana", "grafana_data"),
    ("provision", "/state/terraform.tfstate", "provision_state/terraform.tfstate"),
    ("job", "/spool", "job_spool"),
];

/// Settings of deploy/compose.secrets.yml alone, which .env.example names in a comment: without that file they would do
/// nothing.
const WITH_SECRETS_ONLY: [&str; 1] = ["GRAFANA_ADMIN_PASSWORD_FILE"];

/// Every deviation of the files from the specification, one sentence each.
fn deviations(files: &Files) -> Vec<String> {
    let mut found = Vec::new();
    let (text, defaults) = match resolved(&files.texts[COMPOSE]) {
        Ok(resolved) => resolved,
        Err(deviation) => return vec![deviation],
    };
    let compose = match yaml(&text) {
        Ok(compose) => compose,
        Err(error) => return vec![format!("{COMPOSE} cannot be read: {error}")],
    };
    let known: BTreeSet<_> = SERVICES.iter().map(|service| service.name.to_owned()).collect();
    for name in known.symmetric_difference(&keys(&compose["services"])) {
        found.push(format!("service {name} is in one of specification and {COMPOSE} only"));
    }
    for service in &SERVICES {
        found.extend(of_service(service, &compose["services"][service.name]));
    }
    for (name, setting, reason) in SETTINGS {
        let service = &compose["services"][name];
        let says = strings(&service["command"]);
        let environment = service["environment"].as_object();
        let set =
            environment.into_iter().flatten().map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("")));
        if !says.into_iter().chain(set).any(|said| said == setting) {
            found.push(format!("{name} lacks {setting}: {reason}"));
        }
    }
    for flag in strings(&compose["services"]["prometheus"]["command"]) {
        if flag.starts_with("--web.enable-admin-api") {
            found.push(
                "prometheus has its admin API on, with which everybody could delete what was measured".to_owned(),
            );
        }
    }
    found.extend(of_open_files(&compose["services"]["api"], &defaults));
    found.extend(of_all_files(files, &compose));
    found.extend(of_settings(&files.texts[ENVIRONMENT], &files.texts[SECRETS], &defaults));
    found.extend(of_images(&compose));
    found.extend(images::deviations(files, &compose, &defaults));
    found.extend(of_targets(files));
    found.extend(of_readme(&files.texts[README], &compose));
    found
}

fn of_service(expected: &Service, service: &Value) -> Vec<String> {
    let name = expected.name;
    let mut found = Vec::new();
    let mut expect = |fact: bool, deviation: &str| {
        if !fact {
            found.push(format!("{name} {deviation}"));
        }
    };
    expect(service["container_name"].as_str() == expected.container, "has another container_name than specified");
    let port = expected.port.map(|port| format!("127.0.0.1:{port}:{port}"));
    expect(
        strings(&service["ports"]) == Vec::from_iter(port),
        "publishes other ports than specified, on 127.0.0.1 alone",
    );
    expect(strings(&service["networks"]) == ["monitoring"], "is not in the network monitoring alone");

    let health = strings(&service["healthcheck"]["test"]).join(" ");
    match expected.health {
        Some(end) => {
            expect(
                health.starts_with("CMD ") && health.ends_with(end),
                "has no health check without a shell, as specified",
            );
            for setting in ["interval", "timeout", "retries", "start_period"] {
                expect(!service["healthcheck"][setting].is_null(), &format!("has a health check without {setting}"));
            }
        }
        None => expect(health.is_empty(), "ends by itself, and `up --wait` would wait for its health"),
    }
    let waits = service["depends_on"].as_object();
    let waits = waits.into_iter().flatten().map(|(on, how)| (on.as_str(), how["condition"].as_str().unwrap_or("")));
    expect(
        waits.collect::<BTreeSet<_>>() == expected.after.iter().copied().collect(),
        "does not start once what it needs is healthy",
    );
    expect(strings(&service["profiles"]) == Vec::from_iter(expected.profile), "has other profiles than specified");
    let once = expected.profile.is_some() || name == "provision";
    expect(
        service["restart"].as_str() == Some(if once { "no" } else { "unless-stopped" }),
        "is started again where it should not be, or is not where it should be",
    );

    for limit in ["mem_limit", "cpus", "pids_limit"] {
        expect(!service[limit].is_null(), &format!("has no {limit}"));
    }
    let log = &service["logging"];
    expect(
        log["driver"] == "json-file"
            && log["options"]["max-size"].is_string()
            && log["options"]["max-file"].is_string(),
        "has logs that grow without end",
    );
    expect(strings(&service["cap_drop"]) == ["ALL"] && service["cap_add"].is_null(), "keeps capabilities");
    expect(strings(&service["security_opt"]) == ["no-new-privileges:true"], "may gain privileges");
    expect(service["privileged"].is_null(), "is privileged");
    let user = service["user"].as_str().unwrap_or("0");
    expect(!["0", "root"].contains(&user.split(':').next().unwrap()), "runs as root");
    expect(service["read_only"].as_bool().unwrap_or(false) == expected.read_only, "has no read-only file system");
    found
}

/// The API has as many open files as its connections need, and some more.
fn of_open_files(api: &Value, defaults: &BTreeMap<String, String>) -> Vec<String> {
    let number = |value: &Value| value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let connections: Option<u64> = defaults.get("MAX_CONNECTIONS").and_then(|default| default.parse().ok());
    let limits = &api["ulimits"]["nofile"];
    let enough = |limit: &Value| matches!((number(limit), connections), (Some(files), Some(connections)) if files >= connections + 256);
    let fits = enough(&limits["soft"]) && enough(&limits["hard"]);
    if fits { Vec::new() } else { vec!["api has too few open files for MAX_CONNECTIONS".to_owned()] }
}

fn of_all_files(files: &Files, compose: &Value) -> Vec<String> {
    let mut found = Vec::new();
    // Compose 1.29 knows no other, and the obsolete `version` makes Compose 2 warn.
    for key in keys(compose) {
        if !["services", "networks", "volumes"].contains(&key.as_str()) && !key.starts_with("x-") {
            found.push(format!("{COMPOSE} has the top-level key {key}"));
        }
    }
    if compose["networks"]["monitoring"]["driver"] != "bridge" || keys(&compose["networks"]).len() != 1 {
        found.push("there is not the one bridge network monitoring".to_owned());
    }

    let mut used = BTreeSet::new();
    // Compose 2 leaves at `down -v` the volumes that only a profile's services use.
    let mut kept = BTreeSet::new();
    for (name, service) in compose["services"].as_object().into_iter().flatten() {
        for mount in strings(&service["volumes"]) {
            let source = mount.split(':').next().unwrap();
            if source.starts_with(['.', '/']) {
                if !files.holds(source) {
                    found.push(format!("{name} mounts {source}, which is not in the project"));
                }
                if !mount.ends_with(":ro") {
                    found.push(format!("{name} mounts {source} writable"));
                }
            } else {
                used.insert(source.to_owned());
                if service["profiles"].is_null() {
                    kept.insert(source.to_owned());
                }
                match (mount.ends_with(":ro"), is_of(name, source)) {
                    (false, false) => found.push(format!("{name} mounts {source} writable, which is not its own")),
                    (true, true) => found.push(format!("{name} cannot write {source}, which is its own")),
                    _ => {}
                }
            }
        }
    }
    for volume in used.symmetric_difference(&keys(&compose["volumes"])) {
        found.push(format!("volume {volume} is declared and not used, or used and not declared"));
    }
    for volume in used.difference(&kept) {
        found.push(format!("volume {volume} belongs to a profile alone: `down -v` would leave it behind"));
    }
    for (name, path, place) in PLACES {
        let is = mounted(&compose["services"][name], path);
        if is.as_deref() != Some(place) || place.starts_with('.') && !files.holds(place) {
            found.push(format!("{name} has not {place} at {path}"));
        }
    }
    found
}

/// The service keeps something of its own on the volume.
fn is_of(service: &str, volume: &str) -> bool {
    PLACES.iter().any(|(owner, _, place)| *owner == service && place.split('/').next() == Some(volume))
}

/// What of a volume or of the project is at a path in a container, if anything is mounted there.
fn mounted(service: &Value, path: &str) -> Option<String> {
    strings(&service["volumes"]).iter().find_map(|mount| {
        let mut parts = mount.split(':');
        let (source, target) = (parts.next()?, parts.next()?);
        let rest = path.strip_prefix(target)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| format!("{source}{rest}"))
    })
}

/// The example has every setting with its default, and no other.
fn of_settings(example: &str, secrets: &str, defaults: &BTreeMap<String, String>) -> Vec<String> {
    let lines = example.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let set: BTreeMap<_, _> = lines.filter_map(|line| line.split_once('=')).collect();
    let mut found = Vec::new();
    for (name, default) in defaults {
        match set.get(name.as_str()) {
            None => found.push(format!("{name} is not in {ENVIRONMENT}")),
            Some(other) if other != default => {
                found.push(format!("{name} is {other:?} in {ENVIRONMENT} and {default:?} in {COMPOSE}"));
            }
            Some(_) => {}
        }
    }
    for name in set.keys().filter(|name| !defaults.contains_key(**name)) {
        found.push(format!("{name} of {ENVIRONMENT} is no setting of {COMPOSE}"));
    }
    match resolved(secrets) {
        Ok((_, others)) => {
            for name in others.into_keys().filter(|name| !WITH_SECRETS_ONLY.contains(&name.as_str())) {
                found.push(format!("{name} is a setting of {SECRETS} alone"));
            }
        }
        Err(deviation) => found.push(format!("{SECRETS}: {deviation}")),
    }
    for (name, default) in defaults.iter().filter(|(name, _)| name.ends_with("_BIND_ADDRESS")) {
        if default != "127.0.0.1" {
            found.push(format!("{name} publishes a port to others by default"));
        }
    }
    found
}

/// What is not built here is fetched in one version.
fn of_images(compose: &Value) -> Vec<String> {
    let services = || compose["services"].as_object().into_iter().flatten();
    let built =
        |image: &Value| services().any(|(_, service)| !service["build"].is_null() && service["image"] == *image);
    let loose = services().filter(|(_, service)| !is_pinned(service["image"].as_str().unwrap_or_default()));
    let loose = loose.filter(|(_, service)| !built(&service["image"]));
    loose.map(|(name, service)| format!("{name} has an image without a full version: {}", service["image"])).collect()
}

/// Prometheus asks for services of the stack, on the ports that they listen on.
fn of_targets(files: &Files) -> Vec<String> {
    let configuration = yaml(&files.texts[SCRAPED]).unwrap();
    let jobs = configuration["scrape_configs"].as_array().unwrap();
    let managers = configuration["alerting"]["alertmanagers"].as_array().unwrap();
    let listening: BTreeSet<_> = SERVICES
        .iter()
        .filter_map(|service| {
            let host = if service.name == "prometheus" { "localhost" } else { service.name };
            service.port.map(|port| format!("{host}:{port}"))
        })
        .collect();
    let targets = |groups: &[Value]| -> BTreeSet<String> {
        let lists = groups.iter().flat_map(|group| group["static_configs"].as_array().unwrap());
        lists.flat_map(|list| strings(&list["targets"])).collect()
    };
    let mut found = Vec::new();
    for target in targets(jobs).symmetric_difference(&listening) {
        found.push(format!("{target} is scraped and not in the stack, or in the stack and not scraped"));
    }
    if targets(managers) != BTreeSet::from(["alertmanager:9093".to_owned()]) {
        found.push("alerts do not go to the stack's Alertmanager".to_owned());
    }
    for pattern in strings(&configuration["rule_files"]) {
        if !files.tracked.iter().any(|file| images::matches(&format!("prometheus/{pattern}"), file)) {
            found.push(format!("{SCRAPED} reads the rules {pattern}, and there are none"));
        }
    }
    found
}

/// The README's table has every container with its port and image.
fn of_readme(readme: &str, compose: &Value) -> Vec<String> {
    let first = |line: &str| line.split('|').nth(1).map(|cell| cell.trim().to_owned()).unwrap_or_default();
    let rows: Vec<_> = readme.lines().filter(|line| first(line).ends_with("-monitoring`")).collect();
    let mut found = Vec::new();
    for service in &SERVICES {
        let Some(container) = service.container else { continue };
        let row = rows.iter().find(|row| row.starts_with(&format!("| `{container}` |")));
        let Some(row) = row else {
            found.push(format!("{README}: {container} is not in the table"));
            continue;
        };
        if service.port.is_some_and(|port| !row.contains(&format!("(http://localhost:{port})"))) {
            found.push(format!("{README}: {container} has another port"));
        }
        let image = compose["services"][service.name]["image"].as_str().unwrap_or_default();
        let (repository, _) = image.split_once(':').unwrap_or((image, ""));
        if repository.contains('/') && !row.contains(&format!("`{repository}`")) {
            found.push(format!("{README}: {container} has another image"));
        }
    }
    if rows.len() != SERVICES.iter().filter(|service| service.container.is_some()).count() {
        found.push(format!("{README}: the table has another number of containers"));
    }
    found
}

fn the_stack_is_as_specified() {
    let found = deviations(&Files::read());
    assert!(found.is_empty(), "\n{}", found.join("\n"));
}

fn every_deviation_is_found() {
    /// A file, what of it becomes what, and what must be said.
    type Fault = (&'static str, &'static str, &'static str, &'static str);
    let faults: &[Fault] = &[
        (
            COMPOSE,
            "container_name: grafana-monitoring",
            "container_name: grafana",
            "grafana has another container_name",
        ),
        (COMPOSE, "${API_PORT:-8000}:8000", "${API_PORT:-8000}:80", "api publishes other ports"),
        (COMPOSE, "'${API_BIND_ADDRESS:-127.0.0.1}:", "'", "api publishes other ports"),
        (COMPOSE, "${API_PORT:-8000}", "${API_PORT}", "${API_PORT} has no default"),
        (COMPOSE, "${LOAD_RATE:-20}", "$LOAD_RATE", "there is a \"$\" that is not of the form"),
        (COMPOSE, "${LOAD_RATE:-20}", "${LOAD_RATE:-${RATE:-20}}", "which Compose 1.29 cannot read"),
        (COMPOSE, "9090/-/healthy'", "9090/'", "prometheus has no health check"),
        (
            COMPOSE,
            "test: [CMD, test, -f",
            "test: [CMD-SHELL, test, -f",
            "provision has no health check without a shell",
        ),
        (COMPOSE, "      start_period: 3m\n", "", "grafana has a health check without start_period"),
        (
            COMPOSE,
            "      prometheus:\n        condition: service_healthy",
            "      prometheus:\n        condition: service_started",
            "grafana does not start once",
        ),
        (
            COMPOSE,
            "      pushgateway:\n        condition: service_started\n",
            "",
            "job does not start once what it needs is healthy",
        ),
        (
            COMPOSE,
            "      grafana:\n        condition: service_healthy",
            "      api:\n        condition: service_healthy",
            "provision does not start once",
        ),
        (COMPOSE, "    profiles: [load]\n", "", "load has other profiles"),
        (
            COMPOSE,
            "API_BIND_ADDRESS:-127.0.0.1",
            "API_BIND_ADDRESS:-0.0.0.0",
            "API_BIND_ADDRESS publishes a port to others",
        ),
        (COMPOSE, "${ALERTMANAGER_PORT:-9093}:", "${ALERTMANAGER_PORT:-9094}:", "ALERTMANAGER_PORT has two defaults"),
        (COMPOSE, "cap_drop: [ALL]", "privileged: true\n  cap_drop: [ALL]", "grafana is privileged"),
        (COMPOSE, "  pushgateway:\n    <<", "  gateway:\n    <<", "service pushgateway is in one of"),
        (
            COMPOSE,
            "      dockerfile: deploy/provision/Dockerfile\n",
            "",
            "deploy/provision/Dockerfile is built by no service",
        ),
        (
            COMPOSE,
            "    container_name: load-monitoring\n",
            "    container_name: load-monitoring\n    healthcheck: {test: [NONE]}\n",
            "load ends by itself",
        ),
        (COMPOSE, "    mem_limit: 512m\n", "", "grafana has no mem_limit"),
        (COMPOSE, "        hard: 8192\n", "        hard: 1024\n", "api has too few open files"),
        (COMPOSE, "        soft: 8192\n", "", "api has too few open files"),
        (COMPOSE, "      max-file: '3'\n", "", "api has logs that grow"),
        (COMPOSE, "cap_drop: [ALL]", "cap_drop: [NET_RAW]", "prometheus keeps capabilities"),
        (COMPOSE, "no-new-privileges:true", "no-new-privileges:false", "alertmanager may gain privileges"),
        (COMPOSE, "    user: '472'\n", "", "grafana runs as root"),
        (
            COMPOSE,
            "    read_only: true\n    user: '65532:65532'\n    tmpfs",
            "    user: '65532:65532'\n    tmpfs",
            "api has no read-only file system",
        ),
        (COMPOSE, "networks: [monitoring]", "networks: [default]", "job is not in the network"),
        (COMPOSE, "    driver: bridge", "    driver: host", "there is not the one bridge network"),
        (COMPOSE, "services:\n", "version: '3.8'\nservices:\n", "has the top-level key version"),
        (COMPOSE, "services:\n", "name: api\nservices:\n", "has the top-level key name"),
        (
            COMPOSE,
            "./prometheus:/etc/prometheus:ro",
            "./prometheus:/etc/prometheus",
            "prometheus mounts ./prometheus writable",
        ),
        (COMPOSE, "./deploy/alertmanager:", "./alertmanager:", "alertmanager mounts ./alertmanager, which is not in"),
        (COMPOSE, "  job_spool:\n", "", "volume job_spool is declared and not used, or"),
        (
            COMPOSE,
            "      - job_spool:/spool:ro\n    environment:\n      API_LISTEN",
            "    environment:\n      API_LISTEN",
            "job_spool belongs to a profile alone",
        ),
        (COMPOSE, "job_spool:/spool:ro", "job_spool:/spool", "api mounts job_spool writable, which is not its own"),
        (
            COMPOSE,
            "      - job_spool:/spool\n    depends_on",
            "      - job_spool:/spool:ro\n    depends_on",
            "job cannot write job_spool, which is its own",
        ),
        (
            COMPOSE,
            "      - pushgateway_data:/pushgateway\n",
            "",
            "pushgateway has not pushgateway_data/metrics at /pushgateway/metrics",
        ),
        (
            COMPOSE,
            "prom/prometheus:${PROMETHEUS_VERSION:-v3.16.0}",
            "prom/prometheus:latest",
            "prometheus has an image without",
        ),
        (
            COMPOSE,
            "prom/pushgateway:${PUSHGATEWAY_VERSION:-v1.11.1}",
            "prom/pushgateway",
            "pushgateway has an image without",
        ),
        (
            COMPOSE,
            "${PROMETHEUS_RETENTION:-15d}",
            "${PROMETHEUS_RETENTION:-30d}",
            "prometheus lacks --storage.tsdb.retention.time=15d",
        ),
        (
            COMPOSE,
            "      - --web.enable-lifecycle\n",
            "      - --web.enable-admin-api\n",
            "prometheus has its admin API on",
        ),
        (COMPOSE, "      - --web.enable-lifecycle\n", "", "prometheus lacks --web.enable-lifecycle"),
        (
            COMPOSE,
            "GF_USERS_ALLOW_SIGN_UP: 'false'",
            "GF_USERS_ALLOW_SIGN_UP: 'true'",
            "grafana lacks GF_USERS_ALLOW_SIGN_UP=false",
        ),
        (
            COMPOSE,
            "GF_AUTH_ANONYMOUS_ENABLED: 'false'",
            "GF_AUTH_ANONYMOUS_ENABLED: 'true'",
            "grafana lacks GF_AUTH_ANONYMOUS",
        ),
        (
            COMPOSE,
            "    healthcheck:\n      test: [CMD, wget, -q, -O, /dev/null, 'http://127.0.0.1:3000",
            "    health:\n      test: [CMD, wget, -q, -O, /dev/null, 'http://127.0.0.1:3000",
            "grafana has no health check",
        ),
        (
            COMPOSE,
            "    restart: 'no'\n    read_only: true\n    user: '65532:65532'\n    tmpfs: ['/tmp:size=64m,mode=1777']\n    command: [apply",
            "    read_only: true\n    user: '65532:65532'\n    tmpfs: ['/tmp:size=64m,mode=1777']\n    command: [apply",
            "provision is started again",
        ),
        (ENVIRONMENT, "API_PORT=8000\n", "", "API_PORT is not in .env.example"),
        (ENVIRONMENT, "GRAFANA_VERSION=", "GRAFANA_VERSION=1", "GRAFANA_VERSION is"),
        (ENVIRONMENT, "LOG_FORMAT=json", "LOG_FORMAT=json\nCOLOUR=red", "COLOUR of .env.example is no setting"),
        (
            COMPOSE,
            "./prometheus:/etc/prometheus:ro",
            "./prometheus:/etc/prom:ro",
            "has not ./prometheus/prometheus.yml at",
        ),
        (COMPOSE, "prometheus_data:/prometheus\n", "prometheus_data:/data\n", "prometheus has not prometheus_data at"),
        (COMPOSE, "./grafonnet/rendered:", "./grafonnet:", "has not ./grafonnet/rendered/api-monitoring.json at"),
        (
            COMPOSE,
            "TF_VAR_prometheus_url: http://prometheus",
            "TF_VAR_prometheus_url: http://localhost",
            "provision lacks TF_VAR_prom",
        ),
        (COMPOSE, "GRAFANA_VERSION:-12.4.10", "GRAFANA_VERSION:-12.4", "grafana has an image without a full version"),
        (
            COMPOSE,
            "    user: '65532:65532'\n    tmpfs",
            "    user: '65533:65533'\n    tmpfs",
            "runs as \"65533:65533\", Dockerfile is for",
        ),
        (SECRETS, ":-./secrets/grafana_admin_password", "", "${GRAFANA_ADMIN_PASSWORD_FILE} has no default"),
        (
            SECRETS,
            "GRAFANA_ADMIN_PASSWORD: ''",
            "GRAFANA_ADMIN_PASSWORD: ${PASSWORD:-}",
            "PASSWORD is a setting of deploy",
        ),
        (API, "COPY src src", "COPY --link src src", "Dockerfile: COPY --link needs BuildKit"),
        (API, "COPY src src", "ADD src src", "Dockerfile: ADD takes"),
        (
            API,
            "    && cargo build --release --locked --lib",
            "    && cargo build --release --lib",
            "Dockerfile: \"cargo build --release --lib\" may",
        ),
        (API, "# The image of", "#syntax = docker/dockerfile:1\n# The image of", "Dockerfile: a syntax line"),
        (API, "ARG RUST_VERSION=1.95.0", "ARG RUST_VERSION=1", "RUST_VERSION is \"1\""),
        (API, "rust:${RUST_VERSION}-bookworm", "rust:latest", "rust:latest has no full version"),
        (API, "USER 65532:65532", "USER root", "Dockerfile: the image runs as root"),
        (API, "--locked --lib", "--lib", "may take other versions"),
        (API, "# The image of", "# syntax=docker/dockerfile:1\n# The image of", "a syntax line"),
        (API, "RUN mkdir -p src", "RUN --mount=type=cache,target=/c mkdir -p src", "needs BuildKit"),
        (API, "FROM scratch\n", "FROM debian:12.5-slim\n", "what builds would be in the image"),
        (API, "COPY src src", "COPY sources src", "copies sources, which is not there"),
        (
            PROVISION,
            "COPY --chown=65532:65532 terraform/*.tf",
            "COPY terraform/*.tf",
            "which its user may not be able to read",
        ),
        (
            PROVISION,
            "COPY --chown=65532:65532 deploy/provision/backend.tf ./\n",
            "",
            "a backend of terraform/ would take the place of the image's",
        ),
        (PROVISION, "USER 65532:65532", "# USER 65532:65532", "deploy/provision/Dockerfile: the image runs as root"),
        (PROVISION, "TERRAFORM_VERSION=1.11.4", "TERRAFORM_VERSION=1.11.3", "TERRAFORM_VERSION is \"1.11.3\""),
        (IGNORED, "!grafonnet/rendered\n", "", "copies grafonnet/rendered, and .dockerignore keeps"),
        (IGNORED, "*\n!Cargo.toml", "target\n!Cargo.toml", "lets .git/config into"),
        (IGNORED, "!terraform/*.tf\n", "!terraform/*.tf*\n!terraform\n", "lets terraform/terraform.tfstate into"),
        (
            SCRAPED,
            "targets: ['pushgateway:9091']",
            "targets: ['gateway:9091']",
            "gateway:9091 is scraped and not in the stack",
        ),
        (SCRAPED, "targets: ['alertmanager:9093']", "targets: ['alerts:9093']", "alerts do not go"),
        (
            README,
            "| `pushgateway-monitoring` |",
            "| `gateway` |",
            "README.md: pushgateway-monitoring is not in the table",
        ),
        (IGNORED, "!src\n", "!src\nsrc/api\n", "copies src, and .dockerignore keeps src/api/"),
        (
            IGNORED,
            "!terraform/.terraform.lock.hcl\n",
            "",
            "copies terraform/.terraform.lock.hcl*, and .dockerignore keeps it",
        ),
        (IGNORED, "!build.rs\n", "!build.rs\n!tests\n", "lets tests/"),
        (IGNORED, "!src\n", "!src\n!deploy\n", "lets deploy/alertmanager/secrets/page_webhook_url into"),
        (SCRAPED, "rules/*.yml", "rules/*.yaml", "reads the rules rules/*.yaml, and there are none"),
        (README, "(http://localhost:9093)", "(http://localhost:9094)", "alertmanager-monitoring has another port"),
        (README, "`prom/prometheus`", "`prometheus`", "prometheus-monitoring has another image"),
    ];
    let sound = Files::read();
    for (file, right, wrong, said) in faults {
        let mut files = sound.clone();
        let text = files.texts.get_mut(file).unwrap();
        assert!(text.contains(right), "{file} has no {right:?}");
        *text = text.replacen(right, wrong, 1);
        let found = deviations(&files);
        assert!(found.iter().any(|found| found.contains(said)), "{right:?} → {wrong:?} is not found: {found:?}");
    }
}
