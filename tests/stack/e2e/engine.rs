//! The stack under a Docker engine: Compose and `docker` as a person would call them, in a project of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::NamedTempFile;
use tokio::process::Command;

use super::{note, within};
use crate::project::{root, yaml};

/// The project: a prefix of the stack's volumes and network, and a label of all that belongs to it.
pub const PROJECT: &str = "api-monitoring-e2e";

/// Building everything without a cache takes minutes; downloading the images may.
const TO_BUILD: Duration = Duration::from_secs(45 * 60);
/// Anything else that Compose does.
const TO_ACT: Duration = Duration::from_secs(6 * 60);
/// From a container's start until it is healthy: Grafana's first start has three minutes, provisioning waits for it.
const TO_BE_HEALTHY: Duration = Duration::from_secs(6 * 60);

/// All that Compose sees of the environment: how to reach the engine and the network, none of the stack's settings.
const PASSED_ON: [&str; 24] = [
    "PATH",
    "HOME",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "DOCKER_CONFIG",
    "DOCKER_CERT_PATH",
    "DOCKER_TLS_VERIFY",
    "DOCKER_API_VERSION",
    "DOCKER_BUILDKIT",
    "DOCKER_DEFAULT_PLATFORM",
    "BUILDKIT_PROGRESS",
    "BUILDX_BUILDER",
    "BUILDX_CONFIG",
    "COMPOSE_DOCKER_CLI_BUILD",
    "COMPOSE_HTTP_TIMEOUT",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "SSH_AUTH_SOCK",
    "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME",
];

/// The settings of docker-compose.yml that say where a service's port is published, by service.
const PORTS: [(&str, &str); 5] = [
    ("api", "API_PORT"),
    ("prometheus", "PROMETHEUS_PORT"),
    ("pushgateway", "PUSHGATEWAY_PORT"),
    ("alertmanager", "ALERTMANAGER_PORT"),
    ("grafana", "GRAFANA_PORT"),
];

pub struct Engine {
    compose: Vec<String>,
    /// The first number of Compose's version.
    generation: u32,
    /// docker-compose.yml.
    file: Value,
    /// Instead of the user's `.env`.
    empty: NamedTempFile,
    ports: BTreeMap<&'static str, (&'static str, u16)>,
}

/// What a command that has ended said.
pub struct Ran {
    pub command: String,
    /// None when it was killed.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    /// What it wrote to stdout, when it succeeded.
    #[track_caller]
    pub fn succeeded(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { command, code, stdout, stderr } = self;
        let code = code.map_or_else(|| "was killed".to_owned(), |code| format!("exited with {code}"));
        write!(f, "`{command}` {code}:\n{}\n{}", tail(stdout), tail(stderr))
    }
}

impl Engine {
    /// Finds Compose and an engine, and refuses when something of the stack is there already: it may be somebody's.
    pub async fn prepare() -> Self {
        let compose = match std::env::var("COMPOSE") {
            Ok(given) => given.split_whitespace().map(str::to_owned).collect(),
            Err(_) if answers(&["docker", "compose", "version"]).await => {
                vec!["docker".to_owned(), "compose".to_owned()]
            }
            Err(_) => vec!["docker-compose".to_owned()],
        };
        let file = yaml(&std::fs::read_to_string(root().join("docker-compose.yml")).unwrap()).unwrap();
        let mut engine =
            Self { compose, generation: 0, file, empty: NamedTempFile::new().unwrap(), ports: free_ports() };
        let docker = engine.docker(&["version", "--format", "{{.Server.Version}}"]).await;
        assert_eq!(docker.code, Some(0), "the end-to-end test needs a Docker engine: {docker}");
        let version = engine.compose(&["version", "--short"]).await;
        assert_eq!(version.code, Some(0), "the end-to-end test needs Compose; COMPOSE says which: {version}");
        let version = version.stdout.trim().trim_start_matches('v').to_owned();
        engine.generation = version.split('.').next().unwrap().parse().unwrap();
        note(&format!("Docker {}, Compose {version} (`{}`)", docker.stdout.trim(), engine.compose.join(" ")));
        engine.refuse_company().await;
        for (service, (_, port)) in &engine.ports {
            note(&format!("{service} on 127.0.0.1:{port}"));
        }
        engine
    }

    /// The names of the containers are fixed, so there can be one such stack on an engine.
    async fn refuse_company(&self) {
        let there = self.docker(&["ps", "-a", "--format", "{{.Names}}"]).await.succeeded();
        let services = self.file["services"].as_object().unwrap().values();
        let ours: BTreeSet<_> = services.filter_map(|service| service["container_name"].as_str()).collect();
        let taken: Vec<_> = there.lines().filter(|name| ours.contains(name)).collect();
        assert!(
            taken.is_empty(),
            "nothing was touched: there is such a stack already: {} exists (`docker ps -a`). Take that down first \
             (`{} down` keeps its data; after an end-to-end test that was killed: `{}`)",
            taken.join(", "),
            self.compose.join(" "),
            self.clean_up(),
        );
        let left = self.left().await;
        assert!(
            left.is_empty(),
            "nothing was touched: {left:?} is left of another run; remove it: `{}`",
            self.clean_up()
        );
    }

    /// What a person would type to remove what a killed run has left.
    fn clean_up(&self) -> String {
        format!("{} -p {PROJECT} --profile load --profile job down -v --remove-orphans", self.compose.join(" "))
    }

    /// Where a service is reached from here.
    pub fn url(&self, service: &str) -> String {
        format!("http://127.0.0.1:{}", self.ports[service].1)
    }

    /// The services that `up` starts, each with its container's name.
    pub fn services(&self) -> Vec<(&str, &str)> {
        let services = self.file["services"].as_object().unwrap().iter();
        services
            .filter(|(_, service)| service.get("profiles").is_none())
            .map(|(name, service)| (name.as_str(), service["container_name"].as_str().expect("a fixed name")))
            .collect()
    }

    /// Runs Compose on the project's file.
    pub async fn compose(&self, arguments: &[&str]) -> Ran {
        self.compose_with(&[], arguments).await
    }

    /// The same with more settings.
    pub async fn compose_with(&self, settings: &[(&str, &str)], arguments: &[&str]) -> Ran {
        let mut command = self.command(&self.compose);
        command.args(["-p", PROJECT, "--env-file"]).arg(self.empty.path());
        command.arg("-f").arg(root().join("docker-compose.yml"));
        command.args(arguments).envs(settings.iter().copied());
        command.envs(self.ports.values().map(|(setting, port)| (setting, port.to_string())));
        let limit = if arguments.contains(&"--build") { TO_BUILD } else { TO_ACT };
        finished(command, format!("{} {}", self.compose.join(" "), arguments.join(" ")), limit).await
    }

    pub async fn docker(&self, arguments: &[&str]) -> Ran {
        let mut command = self.command(&["docker".to_owned()]);
        command.args(arguments);
        finished(command, format!("docker {}", arguments.join(" ")), TO_ACT).await
    }

    fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new(&words[0]);
        let passed_on = PASSED_ON.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.args(&words[1..]).current_dir(root()).env_clear().envs(passed_on);
        command
    }

    /// `up -d`, with `--wait` where Compose has that, until every container is healthy; `more` are further arguments.
    pub async fn up(&self, more: &[&str]) {
        let since = Instant::now();
        let wait: &[&str] = if self.generation >= 2 { &["--wait"] } else { &[] };
        self.compose(&[&["up", "-d"], wait, more].concat()).await.succeeded();
        self.healthy().await;
        note(&format!("every container is healthy after {} s", since.elapsed().as_secs()));
    }

    /// Waits until every container is healthy; fails at once when one has ended.
    pub async fn healthy(&self) {
        for (service, container) in self.services() {
            let format = "{{.State.Status}} {{.State.Health.Status}} {{.State.ExitCode}}";
            within(TO_BE_HEALTHY, &format!("a healthy {service}"), async || {
                let state = self.docker(&["inspect", "--format", format, container]).await.succeeded();
                match state.split_whitespace().collect::<Vec<_>>()[..] {
                    ["running", "healthy", _] => Ok(()),
                    ["exited" | "dead", _, code] => panic!("{container} has ended with {code}"),
                    _ => Err(state),
                }
            })
            .await;
        }
    }

    /// What a container has written to stdout.
    pub async fn log(&self, container: &str) -> String {
        self.docker(&["logs", container]).await.succeeded()
    }

    /// Asserts that no container ended and was started again by the engine alone.
    pub async fn nothing_crashed(&self) {
        for (_, container) in self.services() {
            let restarts = self.docker(&["inspect", "--format", "{{.RestartCount}}", container]).await.succeeded();
            assert_eq!(restarts.trim(), "0", "times that {container} ended by itself");
        }
    }

    /// Asserts that all volumes are of the project by name: `down -v` would leave others behind.
    pub async fn every_volume_has_a_name(&self) {
        for (_, container) in self.services() {
            let format = r#"{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{end}}{{end}}"#;
            let names = self.docker(&["inspect", "--format", format, container]).await.succeeded();
            let foreign = names.split_whitespace().find(|name| !name.starts_with(&format!("{PROJECT}_")));
            assert_eq!(foreign, None, "a volume of {container}");
        }
    }

    /// For a failure: how the containers are, and the last lines of each one's log.
    pub async fn show(&self) {
        let containers = self.docker(&["ps", "-a", "--filter", &label(), "--format", "{{.Names}}\t{{.Status}}"]).await;
        println!("\n{}", containers.stdout);
        for container in containers.stdout.lines().filter_map(|line| line.split('\t').next()) {
            let log = self.docker(&["logs", "--tail", "40", container]).await;
            println!("--- {container}\n{}{}", log.stdout, log.stderr);
        }
    }

    /// Asserts that `down -v`, as a person types it, leaves nothing of the project, whatever profiles were used.
    pub async fn leaves_nothing(&self) {
        self.compose(&["down", "-v"]).await.succeeded();
        let left = self.left().await;
        assert!(left.is_empty(), "left after `down -v`: {left:?}");
    }

    /// `down`, the volumes kept.
    pub async fn down(&self) {
        self.compose(&["down"]).await.succeeded();
    }

    /// Takes it down, volumes and profiles included; gives what is still there then, which is removed as well.
    pub async fn remove(&self) -> Vec<String> {
        let down = self.compose(&["--profile", "load", "--profile", "job", "down", "-v", "--remove-orphans"]).await;
        let mut wrong = self.left().await;
        for thing in &wrong {
            let (kind, name) = thing.split_once(' ').expect("a kind and a name");
            let force: &[&str] = if kind == "network" { &[] } else { &["-f"] };
            self.docker(&[&[kind, "rm"], force, &[name]].concat()).await;
        }
        if down.code != Some(0) {
            wrong.push(down.to_string());
        }
        wrong
    }

    /// What there is of the project: kinds and names.
    async fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        for (kind, listing) in [
            ("container", &["ps", "-a", "--format", "{{.Names}}"][..]),
            ("volume", &["volume", "ls", "-q"]),
            ("network", &["network", "ls", "--format", "{{.Name}}"]),
        ] {
            let label = label();
            let found = self.docker(&[listing, &["--filter", &label]].concat()).await;
            left.extend(found.stdout.lines().map(|name| format!("{kind} {name}")));
        }
        left
    }
}

/// Both generations of Compose put it on all that they make.
fn label() -> String {
    format!("label=com.docker.compose.project={PROJECT}")
}

/// The last lines of a text.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// A free port for each service, below those that the system gives to clients: whenever a container is made anew, its
/// port is let go of for a moment, and no connection of somebody else's may take it then.
fn free_ports() -> BTreeMap<&'static str, (&'static str, u16)> {
    let start = 20_000 + u16::try_from(std::process::id() % 1000).unwrap() * 10;
    let mut free = (start..32_000).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    PORTS.into_iter().map(|(service, setting)| (service, (setting, free.next().expect("a free port")))).collect()
}

/// Whether a command is there and succeeds.
async fn answers(words: &[&str]) -> bool {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().await.is_ok_and(|status| status.success())
}

/// Runs a command to its end, in a process group of its own: Ctrl-C is for the test, which then takes the stack down.
async fn finished(mut command: Command, shown: String, limit: Duration) -> Ran {
    let child = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let child = child.unwrap_or_else(|error| panic!("`{shown}` cannot be run: {error}"));
    let mut group = Group(Some(Pid::from_raw(child.id().unwrap().try_into().unwrap())));
    let ended = tokio::time::timeout(limit, child.wait_with_output()).await;
    let output: Output = ended.unwrap_or_else(|_| panic!("`{shown}` took more than {limit:?}")).unwrap();
    group.0 = None;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ran { command: shown, code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
}

/// The processes of a command that has not ended; killed when it goes out of scope.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}
