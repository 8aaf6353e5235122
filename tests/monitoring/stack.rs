//! The project's own monitoring configuration, made to run on this machine and in a test's time.
//!
//! What is changed is where things are (targets, Alertmanager, the files of URLs) and how long they take: scrapes,
//! evaluations, each alert's `for` and Alertmanager's waits are [`SPEED`] times as fast. Whatever else the files say is
//! so here too, ranges such as `[5m]` in expressions included. Whatever is to be changed must be there: a file without
//! it makes the test fail.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::servers::Place;
use crate::servers::prometheus::Prometheus;

/// How many times faster than in production time runs: a scrape and an evaluation each second instead of every 15 s.
/// An alert still sees as many evaluations before it fires.
pub const SPEED: u32 = 15;

/// The job in prometheus.yml by which Prometheus scrapes itself.
const ITSELF: &str = "prometheus";

/// Prometheus with the project's prometheus.yml and rules. Nothing is scraped and nobody is told, unless asked for.
///
/// ```ignore
/// let mut stack = Stack::own();
/// stack.scrape("api", &[&server.address]);
/// let prometheus = stack.start(&binary).await;
/// ```
pub struct Stack {
    config: Value,
    /// Names, as prometheus.yml refers to them, and contents.
    rules: Vec<(String, Value)>,
}

impl Stack {
    /// Reads prometheus.yml and the rules, and quickens them.
    pub fn own() -> Self {
        let mut config = yaml("prometheus/prometheus.yml");
        let global = &mut config["global"];
        quicken(global, "scrape_interval");
        quicken(global, "evaluation_interval");
        // Not quickened as well, so that a busy machine loses no scrape.
        assert!(global["scrape_timeout"].is_string(), "no scrape_timeout");
        global["scrape_timeout"] = global["scrape_interval"].clone();
        for job in list(&mut config, "/scrape_configs") {
            assert!(job.get("scrape_interval").is_none(), "a job's own interval would have to be quickened: {job}");
            *find(job, "/static_configs") = json!([]);
        }
        *find(&mut config, "/alerting/alertmanagers/0/static_configs") = json!([]);
        assert_eq!(config["rule_files"], json!(["rules/*.yml"]), "the rules are read from there");
        Self { config, rules: rules() }
    }

    /// Scrapes these addresses as a job of prometheus.yml, with all that is set there.
    pub fn scrape(&mut self, job: &str, addresses: &[&str]) {
        let jobs = list(&mut self.config, "/scrape_configs");
        let found = jobs.iter_mut().find(|one| one["job_name"] == job);
        found.unwrap_or_else(|| panic!("no job {job}"))["static_configs"] = json!([{"targets": addresses}]);
    }

    /// Tells an Alertmanager at this address.
    pub fn tell(&mut self, alertmanager: &str) {
        let configs = find(&mut self.config, "/alerting/alertmanagers/0/static_configs");
        *configs = json!([{"targets": [alertmanager]}]);
    }

    /// Starts it; it scrapes itself too.
    pub async fn start(mut self, binary: &Path) -> Prometheus {
        let place = Place::reserve();
        self.scrape(ITSELF, &[&place.address]);
        let files: Vec<_> = self.rules.iter().map(|(name, rules)| (name.as_str(), rules.to_string())).collect();
        Prometheus::start_with(binary, place, &self.config, &files).await
    }
}

/// Alertmanager's configuration, quickened, with the files of URLs in another folder.
pub fn alertmanager(secrets: &Path) -> Value {
    let mut config = yaml("deploy/alertmanager/alertmanager.yml");
    let route = &mut config["route"];
    for wait in ["group_wait", "group_interval", "repeat_interval"] {
        quicken(route, wait);
        for below in list(route, "/routes").iter_mut().filter(|below| below.get(wait).is_some()) {
            quicken(below, wait);
        }
    }
    for receiver in list(&mut config, "/receivers") {
        let file = find(receiver, "/webhook_configs/0/url_file");
        let name = file.as_str().and_then(|path| path.strip_prefix("/etc/alertmanager/secrets/"));
        *file = json!(secrets.join(name.unwrap_or_else(|| panic!("{file} is elsewhere"))));
    }
    config
}

/// The names of the alerts that the rules raise.
pub fn alert_names() -> BTreeSet<String> {
    let rules = rules();
    let groups = rules.iter().flat_map(|(_, file)| file["groups"].as_array().unwrap());
    let rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
    rules.filter_map(|rule| Some(rule.get("alert")?.as_str().unwrap().to_owned())).collect()
}

/// A duration of a test's time as it is in production.
pub fn in_production(measured: Duration) -> Duration {
    measured * SPEED
}

/// The files of rules, quickened.
fn rules() -> Vec<(String, Value)> {
    let mut names: Vec<_> = std::fs::read_dir(path("prometheus/rules"))
        .unwrap()
        .map(|file| format!("rules/{}", file.unwrap().file_name().into_string().unwrap()))
        .filter(|name| name.ends_with(".yml"))
        .collect();
    names.sort();
    let mut lasting = 0;
    let mut quickened = |name: String| {
        let mut file = yaml(&format!("prometheus/{name}"));
        for group in list(&mut file, "/groups") {
            if group.get("interval").is_some() {
                quicken(group, "interval");
            }
            for rule in list(group, "/rules") {
                for wait in ["for", "keep_firing_for"] {
                    if rule.get(wait).is_some() {
                        quicken(rule, wait);
                        lasting += 1;
                    }
                }
            }
        }
        (name, file)
    };
    let rules = names.into_iter().map(&mut quickened).collect();
    assert!(lasting > 0, "no alert waits for anything");
    rules
}

/// Divides a duration by [`SPEED`].
fn quicken(object: &mut Value, member: &str) {
    let given = object[member].as_str().unwrap_or_else(|| panic!("no {member} in {object}"));
    let duration = humantime::parse_duration(given).unwrap();
    object[member] = json!(format!("{}ms", (duration / SPEED).as_millis()));
}

fn find<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Value {
    let shown = value.to_string();
    value.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in {shown}"))
}

fn list<'a>(value: &'a mut Value, pointer: &str) -> &'a mut Vec<Value> {
    find(value, pointer).as_array_mut().unwrap_or_else(|| panic!("{pointer} is no list"))
}

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Reads a file of the project, its anchors and merges (`<<`) resolved.
fn yaml(name: &str) -> Value {
    let text = std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let mut value: serde_norway::Value =
        serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
    value.apply_merge().unwrap();
    serde_json::to_value(value).unwrap()
}
