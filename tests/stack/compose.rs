//! docker-compose.yml and what belongs to it: the facts of the specification, and that both generations of Compose read
//! the same from it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::needs;
use crate::servers::{COMPOSE_V1, COMPOSE_V2, Test};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([], the_stack_is_as_specified),
        needs!([], every_deviation_is_found),
        needs!([COMPOSE_V1, COMPOSE_V2], both_generations_of_compose_read_the_same),
        needs!([COMPOSE_V1, COMPOSE_V2], what_a_generation_lacks_is_refused),
    ]
}

// ---- What is read ----

/// The project's files by name, as they are or with a fault put in.
#[derive(Clone)]
struct Files {
    texts: BTreeMap<&'static str, String>,
    /// Everything that git knows or would add.
    tracked: BTreeSet<String>,
}

const COMPOSE: &str = "docker-compose.yml";
const ENVIRONMENT: &str = ".env.example";
const API_IMAGE: &str = "Dockerfile";
const PROVISION_IMAGE: &str = "deploy/provision/Dockerfile";
const IGNORED: &str = ".dockerignore";
const SCRAPED: &str = "prometheus/prometheus.yml";
const README: &str = "README.md";

impl Files {
    fn read() -> Self {
        let names = [COMPOSE, ENVIRONMENT, API_IMAGE, PROVISION_IMAGE, IGNORED, SCRAPED, README];
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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
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
    Ok((whole, defaults))
}

fn yaml(text: &str) -> Result<Value, String> {
    let mut value: serde_norway::Value = serde_norway::from_str(text).map_err(|error| error.to_string())?;
    // What is merged may merge something itself.
    for _ in 0..2 {
        value.apply_merge().map_err(|error| error.to_string())?;
    }
    serde_json::to_value(value).map_err(|error| error.to_string())
}

fn strings(list: &Value) -> Vec<String> {
    let one = |item: &Value| item.as_str().map_or_else(|| item.to_string(), str::to_owned);
    list.as_array().map(|list| list.iter().map(one).collect()).unwrap_or_default()
}

fn keys(map: &Value) -> BTreeSet<String> {
    map.as_object().map(|map| map.keys().cloned().collect()).unwrap_or_default()
}

// ---- The facts ----

struct Service {
    name: &'static str,
    container: Option<&'static str>,
    /// On which port it listens, which is published under the same number.
    port: Option<u16>,
    /// The end of its health check's command.
    health: Option<&'static str>,
    /// Which service must be healthy first.
    after: Option<&'static str>,
    profile: Option<&'static str>,
    read_only: bool,
}

const SERVICES: [Service; 8] = [
    Service {
        name: "api",
        container: Some("api-monitoring"),
        port: Some(8000),
        health: Some("/usr/local/bin/api-monitoring healthcheck"),
        after: None,
        profile: None,
        read_only: true,
    },
    Service {
        name: "prometheus",
        container: Some("prometheus-monitoring"),
        port: Some(9090),
        health: Some("http://127.0.0.1:9090/-/healthy"),
        after: Some("api"),
        profile: None,
        read_only: true,
    },
    Service {
        name: "pushgateway",
        container: Some("pushgateway-monitoring"),
        port: Some(9091),
        health: Some("http://127.0.0.1:9091/-/healthy"),
        after: None,
        profile: None,
        read_only: true,
    },
    Service {
        name: "alertmanager",
        container: Some("alertmanager-monitoring"),
        port: Some(9093),
        health: Some("http://127.0.0.1:9093/-/healthy"),
        after: None,
        profile: None,
        read_only: true,
    },
    Service {
        name: "grafana",
        container: Some("grafana-monitoring"),
        port: Some(3000),
        health: Some("http://127.0.0.1:3000/api/health"),
        after: Some("prometheus"),
        profile: None,
        // Upstream does not say where else it writes.
        read_only: false,
    },
    Service {
        name: "provision",
        container: Some("provision-monitoring"),
        port: None,
        health: Some("test -f /tmp/provisioned"),
        after: Some("grafana"),
        profile: None,
        read_only: true,
    },
    Service {
        name: "load",
        container: Some("load-monitoring"),
        port: None,
        health: None,
        after: Some("api"),
        profile: Some("load"),
        read_only: true,
    },
    Service {
        name: "job",
        container: None,
        port: None,
        health: None,
        after: Some("api"),
        profile: Some("job"),
        read_only: true,
    },
];

/// What a service's command or environment must say, and why.
const SETTINGS: [(&str, &str, &str); 21] = [
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
    ("grafana", "GF_METRICS_ENABLED=true", "Prometheus scrapes it"),
    (
        "grafana",
        "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH=/etc/grafana/dashboards/api-monitoring.json",
        "home is our main dashboard",
    ),
    ("load", "LOAD_TARGET=http://api:8000", "the API in the network"),
    ("job", "PUSHGATEWAY_URL=http://pushgateway:9091", "where it pushes"),
];

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
    found.extend(of_all_files(files, &compose));
    found.extend(of_settings(&files.texts[ENVIRONMENT], &defaults));
    found.extend(of_images(files, &compose, &defaults));
    found.extend(of_targets(&files.texts[SCRAPED]));
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
        waits.collect::<Vec<_>>() == Vec::from_iter(expected.after.map(|after| (after, "service_healthy"))),
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
            let mut parts = mount.split(':');
            let (Some(source), Some(target)) = (parts.next(), parts.next()) else { continue };
            if source.starts_with(['.', '/']) {
                if !files.holds(source) {
                    found.push(format!("{name} mounts {source}, which is not in the project"));
                }
                if parts.next() != Some("ro") {
                    found.push(format!("{name} mounts {source} writable"));
                }
            } else {
                used.insert(source.to_owned());
                if service["profiles"].is_null() {
                    kept.insert(source.to_owned());
                }
                if !target.starts_with('/') {
                    found.push(format!("{name} mounts {source} nowhere"));
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
    for volume in
        ["api_data", "prometheus_data", "pushgateway_data", "alertmanager_data", "grafana_data", "provision_state"]
    {
        if !used.contains(volume) {
            found.push(format!("{volume} is no volume: what it should keep would be lost"));
        }
    }

    // What is named inside a mounted folder.
    for path in [
        "prometheus/prometheus.yml",
        "prometheus/rules/red.alerts.yml",
        "deploy/alertmanager/alertmanager.yml",
        "grafonnet/rendered/api-monitoring.json",
    ] {
        if !files.holds(path) {
            found.push(format!("{path} is not in the project"));
        }
    }
    found
}

/// The example has every setting with its default, and no other.
fn of_settings(example: &str, defaults: &BTreeMap<String, String>) -> Vec<String> {
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
    for (name, default) in defaults.iter().filter(|(name, _)| name.ends_with("_BIND_ADDRESS")) {
        if default != "127.0.0.1" {
            found.push(format!("{name} publishes a port to others by default"));
        }
    }
    found
}

/// A version of at least two numbers, such as `v3.5.0`, `1.95.0-slim-bookworm` or `12.4`.
fn is_pinned(image: &str) -> bool {
    let Some((_, tag)) = image.rsplit_once(':') else { return false };
    let numbers = tag.trim_start_matches('v').split('-').next().unwrap();
    numbers.split('.').count() >= 2 && numbers.split('.').all(|number| number.parse::<u32>().is_ok())
}

fn of_images(files: &Files, compose: &Value, defaults: &BTreeMap<String, String>) -> Vec<String> {
    let mut found = Vec::new();
    let services = compose["services"].as_object().into_iter().flatten();
    let built: Vec<_> = services
        .clone()
        .filter(|(_, service)| !service["build"].is_null())
        .map(|(_, service)| &service["image"])
        .collect();
    for (name, service) in services.filter(|(_, service)| !built.contains(&&service["image"])) {
        if !is_pinned(service["image"].as_str().unwrap_or_default()) {
            found.push(format!("{name} has an image without a full version: {}", service["image"]));
        }
    }
    for file in [API_IMAGE, PROVISION_IMAGE] {
        let text = &files.texts[file];
        let mut arguments = BTreeMap::new();
        let (mut user, mut stages) = (None, 0);
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("ARG") => {
                    let argument = words.next().unwrap_or_default();
                    let (name, default) = argument.split_once('=').unwrap_or((argument, ""));
                    arguments.insert(name.to_owned(), default.to_owned());
                    if defaults.get(name).is_none_or(|other| other != default) {
                        found.push(format!("{file}: {name} is {default:?}, and not so in {COMPOSE}"));
                    }
                }
                Some("FROM") => {
                    (user, stages) = (None, stages + 1);
                    let mut image = words.next().unwrap_or_default().to_owned();
                    for (name, value) in &arguments {
                        image = image.replace(&format!("${{{name}}}"), value);
                    }
                    if image != "scratch" && !is_pinned(&image) {
                        found.push(format!("{file}: {image} has no full version"));
                    }
                }
                Some("USER") => user = words.next().map(str::to_owned),
                // Both need BuildKit.
                Some("#") if words.next().is_some_and(|word| word.starts_with("syntax=")) => {
                    found.push(format!("{file}: a syntax line is fetched from a registry"));
                }
                Some("RUN") if words.next().is_some_and(|word| word.starts_with("--")) => {
                    found.push(format!("{file}: {line:?} needs BuildKit"));
                }
                Some("COPY") if !line.contains("--from=") => {
                    let sources: Vec<_> = words.filter(|word| !word.starts_with("--")).collect();
                    for source in &sources[..sources.len().saturating_sub(1)] {
                        let folder = source.split('*').next().unwrap().trim_end_matches('/');
                        // `FILE*` is a file that may be missing.
                        let (source, optional) = source.strip_suffix('*').map_or((*source, false), |file| (file, true));
                        if !is_let_through(&files.texts[IGNORED], source) || !(optional || files.holds(folder)) {
                            found.push(format!("{file} copies {source}, which {IGNORED} keeps out or is not there"));
                        }
                    }
                }
                _ => {}
            }
        }
        if user.is_none_or(|user| user.starts_with("0") || user.starts_with("root")) {
            found.push(format!("{file}: the image runs as root"));
        }
        if file == API_IMAGE && (stages < 2 || !text.contains("\nFROM scratch\n")) {
            found.push(format!("{file}: what builds would be in the image"));
        }
        for line in text.lines().filter(|line| line.contains("cargo build")) {
            if !line.contains("--locked") {
                found.push(format!("{file}: {line:?} may take other versions than Cargo.lock"));
            }
        }
    }
    for path in [".git", "target", ".env", "secrets", "terraform/terraform.tfstate", "terraform/local.tfvars", "data"] {
        if is_let_through(&files.texts[IGNORED], path) {
            found.push(format!("{IGNORED} lets {path} into the images' context"));
        }
    }
    found
}

/// Whether an ignore file that keeps everything out but `!` lines lets a path through.
fn is_let_through(ignored: &str, path: &str) -> bool {
    let mut lines = ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    if lines.next() != Some("*") {
        return true;
    }
    lines.filter_map(|line| line.strip_prefix('!')).any(|kept| match kept.split_once('*') {
        Some((start, end)) => path.starts_with(start) && path.ends_with(end),
        None => path == kept || path.starts_with(&format!("{kept}/")),
    })
}

/// Prometheus asks for services of the stack, on the ports that they listen on.
fn of_targets(configuration: &str) -> Vec<String> {
    let configuration = yaml(configuration).unwrap();
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
            "      grafana:\n        condition: service_healthy",
            "      api:\n        condition: service_healthy",
            "provision does not start once",
        ),
        (COMPOSE, "    profiles: [load]\n", "", "load has other profiles"),
        (COMPOSE, "    mem_limit: 512m\n", "", "grafana has no mem_limit"),
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
            "      - job_spool:/spool\n    environment:\n      API_LISTEN",
            "    environment:\n      API_LISTEN",
            "job_spool belongs to a profile alone",
        ),
        (COMPOSE, "      - pushgateway_data:/pushgateway\n", "", "pushgateway_data is no volume"),
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
        (API_IMAGE, "ARG RUST_VERSION=1.95.0", "ARG RUST_VERSION=1", "RUST_VERSION is \"1\""),
        (API_IMAGE, "rust:${RUST_VERSION}-slim-bookworm", "rust:latest", "rust:latest has no full version"),
        (API_IMAGE, "USER 65532:65532", "USER root", "Dockerfile: the image runs as root"),
        (API_IMAGE, "--locked --lib", "--lib", "may take other versions"),
        (API_IMAGE, "# The image of", "# syntax=docker/dockerfile:1\n# The image of", "a syntax line"),
        (API_IMAGE, "RUN mkdir src", "RUN --mount=type=cache,target=/c mkdir src", "needs BuildKit"),
        (API_IMAGE, "FROM scratch\n", "FROM debian:12.5-slim\n", "what builds would be in the image"),
        (API_IMAGE, "COPY src src", "COPY sources src", "copies sources, which"),
        (
            PROVISION_IMAGE,
            "USER 65532:65532",
            "# USER 65532:65532",
            "deploy/provision/Dockerfile: the image runs as root",
        ),
        (PROVISION_IMAGE, "TERRAFORM_VERSION=1.11.4", "TERRAFORM_VERSION=1.11.3", "TERRAFORM_VERSION is \"1.11.3\""),
        (IGNORED, "!grafonnet/rendered\n", "", "copies grafonnet/rendered, which"),
        (IGNORED, "*\n!Cargo.toml", "target\n!Cargo.toml", "lets .git into"),
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

// ---- Both generations ----

/// What Compose makes of the files: exit code, what it says, and the configuration.
fn config(compose: &Path, generation: &str, arguments: &[&str], folder: &Path) -> Value {
    let output = Command::new(compose)
        .args(arguments)
        .arg("config")
        .current_dir(folder)
        // Nothing of whoever runs the tests, and no engine.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", folder)
        .env("DOCKER_HOST", "unix:///nowhere")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "Compose {generation} {arguments:?}: {said}");
    assert_eq!(said, "", "Compose {generation} {arguments:?} warns");
    yaml(&String::from_utf8(output.stdout).unwrap()).unwrap()
}

/// What both say of a service, in one form: they write durations, ports, sizes and commands differently.
fn essence(config: &Value) -> BTreeMap<String, Value> {
    let services = config["services"].as_object().unwrap();
    let one = |service: &Value| {
        let ports = service["ports"].as_array().into_iter().flatten().map(|port| match port.as_str() {
            Some(port) => port.trim_end_matches("/tcp").to_owned(),
            None => format!(
                "{}:{}:{}",
                port["host_ip"].as_str().unwrap_or("0.0.0.0"),
                port["published"].as_str().unwrap_or_default(),
                port["target"]
            ),
        });
        let mounts: BTreeSet<_> = service["volumes"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|mount| match mount.as_str() {
                Some(mount) => mount.split(':').take(2).map(str::to_owned).collect::<Vec<_>>(),
                None => [&mount["source"], &mount["target"]].map(|part| part.as_str().unwrap().to_owned()).to_vec(),
            })
            .collect();
        serde_json::json!({
            "image": service["image"],
            "container_name": service["container_name"],
            "user": service["user"],
            "command": service["command"],
            "environment": service["environment"],
            "depends_on": service["depends_on"].as_object().map(|on| {
                on.iter().map(|(name, how)| (name.clone(), how["condition"].clone())).collect::<serde_json::Map<_, _>>()
            }),
            "health": service["healthcheck"]["test"],
            "ports": ports.collect::<Vec<_>>(),
            "mounts": mounts,
            "restart": service["restart"],
            "read_only": service["read_only"],
            "cap_drop": service["cap_drop"],
        })
    };
    services.iter().map(|(name, service)| (name.clone(), one(service))).collect()
}

async fn both_generations_of_compose_read_the_same([first, second]: [PathBuf; 2]) {
    // Without a .env of whoever runs the tests.
    let copy = tempfile::tempdir().unwrap();
    for file in [COMPOSE, ENVIRONMENT, "deploy/compose.secrets.yml"] {
        let to = copy.path().join(file);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(root().join(file), to).unwrap();
    }
    let secrets = ["-f", COMPOSE, "-f", "deploy/compose.secrets.yml"];
    let everything = ["--profile", "load", "--profile", "job"];
    let cases: [&[&str]; 4] = [&[], &["--env-file", ENVIRONMENT], &everything, &secrets];
    let mut all = Vec::new();
    for arguments in cases {
        let (first, second) =
            (config(&first, "1.29", arguments, copy.path()), config(&second, "2", arguments, copy.path()));
        let secret = |config: &Value| config["secrets"]["grafana_admin_password"]["file"].as_str().map(str::to_owned);
        let file = copy.path().join("secrets/grafana_admin_password").to_str().unwrap().to_owned();
        let expected = (arguments == secrets).then_some(file);
        assert_eq!((secret(&first), secret(&second)), (expected.clone(), expected), "beside docker-compose.yml");
        let (first, second) = (essence(&first), essence(&second));
        for (name, service) in &second {
            assert_eq!(first.get(name), Some(service), "{name} with {arguments:?}: 1.29 on the left, 2 on the right");
        }
        all.push(second);
    }
    assert_eq!(all[0], all[1], "{ENVIRONMENT} changes something");

    let names = |profile: fn(&Service) -> bool| -> Vec<&str> {
        let mut names: Vec<_> =
            SERVICES.iter().filter(|service| profile(service)).map(|service| service.name).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(all[0].keys().collect::<Vec<_>>(), names(|service| service.profile.is_none()), "without a profile");
    assert_eq!(all[2].keys().collect::<Vec<_>>(), names(|_| true), "with every profile");

    let (grafana, provision) = (&all[3]["grafana"]["environment"], &all[3]["provision"]["environment"]);
    let path = "/run/secrets/grafana_admin_password";
    assert_eq!(grafana["GF_SECURITY_ADMIN_PASSWORD__FILE"], path);
    assert_eq!(provision["GRAFANA_ADMIN_PASSWORD_FILE"], path);
    for password in [&grafana["GF_SECURITY_ADMIN_PASSWORD"], &provision["GRAFANA_ADMIN_PASSWORD"]] {
        assert_eq!(password, "", "both are set, which both refuse");
    }
}

/// The test above would be worth nothing with a Compose that takes everything.
async fn what_a_generation_lacks_is_refused([first, second]: [PathBuf; 2]) {
    for (compose, generation) in [(&first, "1."), (&second, "2.")] {
        let said = Command::new(compose).args(["version", "--short"]).output().unwrap().stdout;
        let said = String::from_utf8(said).unwrap();
        assert!(said.trim_start_matches('v').starts_with(generation), "{} is Compose {said}", compose.display());
    }
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(root().join(COMPOSE)).unwrap();
    let refused = |compose: &Path, right: &str, wrong: &str| {
        assert!(text.contains(right), "no {right:?}");
        std::fs::write(folder.path().join(COMPOSE), text.replacen(right, wrong, 1)).unwrap();
        let output = Command::new(compose).arg("config").current_dir(folder.path()).output().unwrap();
        !output.status.success() || !output.stderr.is_empty()
    };

    assert!(refused(&first, "services:\n", "name: stack\nservices:\n"), "1.29 knows no name");
    assert!(refused(&first, "      start_period: 3m", "      start_interval: 1s"), "nor a start_interval");
    assert!(refused(&second, "services:\n", "version: '3.8'\nservices:\n"), "2 warns of a version");
    assert!(
        refused(&second, "      prometheus:\n        condition", "      metrics:\n        condition"),
        "no such service"
    );
}
