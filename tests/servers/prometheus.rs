//! A real Prometheus server, started for one test.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::Client;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Place, Running};
use crate::support::{client, eventually};

pub type Labels = BTreeMap<String, String>;

/// The result of an instant query: series and values.
pub type Vector = Vec<(Labels, f64)>;

/// The result of a range query: series and their points, each a moment in Unix seconds and a value.
pub type Matrix = Vec<(Labels, Vec<(f64, f64)>)>;

/// A running server; killed when it goes out of scope.
pub struct Prometheus {
    running: Running,
    client: Client,
}

/// An alert that is pending or firing.
#[derive(Debug)]
pub struct Alert {
    /// `alertname` among them.
    pub labels: Labels,
    /// As the templates made them.
    pub annotations: Labels,
    /// `pending` or `firing`.
    pub state: String,
    /// Unix seconds of the evaluation at which it became pending.
    pub active_at: f64,
    /// What its expression gave at the latest evaluation.
    pub value: f64,
}

impl Prometheus {
    /// Scrapes one target every second as the job `api`.
    pub async fn scraping(binary: &Path, target: &str) -> Self {
        Self::start(binary, &json!([{"job_name": "api", "static_configs": [{"targets": [target]}]}])).await
    }

    /// Starts with these `scrape_configs`, each scraped every second, and waits until it answers.
    pub async fn start(binary: &Path, scrape_configs: &Value) -> Self {
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": scrape_configs,
        });
        Self::start_with(binary, Place::reserve(), &config, &[]).await
    }

    /// Starts at a place with a whole configuration, and waits until it answers.
    ///
    /// `files` are names and contents, written beside the configuration, which names them by relative paths: with a
    /// file `rules/red.alerts.yml` goes `"rule_files": ["rules/*.yml"]`. A configuration may hold the place's own
    /// address, since that is known before the start.
    pub async fn start_with(binary: &Path, place: Place, config: &Value, files: &[(&str, String)]) -> Self {
        // JSON is YAML.
        let files = [files, &[("prometheus.yml", config.to_string())]].concat();
        let arguments = [
            "--config.file=prometheus.yml",
            "--storage.tsdb.path=data",
            // Scrapes begin at once instead of 5 s after the start: for so long targets would be absent to rules whose
            // `for` a test may have scaled down.
            "--scrape.discovery-reload-interval=100ms",
        ];
        let running = Running::start(binary, place, &files, &arguments).await;
        Self { running, client: client() }
    }

    /// Waits for two scrapes that began after this call, so that whatever had happened by now is seen, and in-progress
    /// and counters are of one moment.
    pub async fn scraped_after_now(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let query = format!("count_over_time(up[5m]) and on() (timestamp(up) > {})", now + 1.0);
        eventually("a scrape", async || self.query(&query).await.pop()).await;
    }

    pub fn address(&self) -> &str {
        &self.running.place.address
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.running.log()
    }

    /// An instant query of now; it must give a vector.
    pub async fn query(&self, promql: &str) -> Vector {
        Self::vector(promql, self.ask("query", &[("query", promql)]).await)
    }

    /// An instant query of a moment in Unix seconds; it must give a vector.
    pub async fn query_at(&self, promql: &str, time: f64) -> Vector {
        Self::vector(promql, self.ask("query", &[("query", promql), ("time", &time.to_string())]).await)
    }

    /// A query over a range of time, its ends in Unix seconds, with a point every `step` seconds.
    pub async fn query_range(&self, promql: &str, (start, end): (f64, f64), step: f64) -> Matrix {
        let [start, end, step] = [start, end, step].map(|seconds| seconds.to_string());
        let parameters = [("query", promql), ("start", &*start), ("end", &*end), ("step", &*step)];
        let data = self.ask("query_range", &parameters).await;
        let series = data["result"].as_array().unwrap().iter();
        series
            .map(|one| (labels(&one["metric"]), one["values"].as_array().unwrap().iter().map(point).collect()))
            .collect()
    }

    /// A query that gives exactly one value.
    pub async fn scalar(&self, promql: &str) -> f64 {
        let vector = self.query(promql).await;
        assert_eq!(vector.len(), 1, "{promql}: {vector:?}");
        vector[0].1
    }

    /// Every alert that is pending or firing now.
    pub async fn alerts(&self) -> Vec<Alert> {
        let data = self.ask("alerts", &[]).await;
        data["alerts"].as_array().unwrap().iter().map(Alert::from_json).collect()
    }

    /// The alerts of that name that are firing now.
    pub async fn firing(&self, name: &str) -> Vec<Alert> {
        let firing = |alert: &Alert| alert.state == "firing" && alert.labels["alertname"] == name;
        self.alerts().await.into_iter().filter(firing).collect()
    }

    /// The groups of rules as `/api/v1/rules` shows them, with the health and last error of each rule.
    pub async fn rules(&self) -> Vec<Value> {
        let mut data = self.ask("rules", &[]).await;
        serde_json::from_value(data["groups"].take()).unwrap()
    }

    async fn ask(&self, question: &str, parameters: &[(&str, &str)]) -> Value {
        let request = self.client.get(self.running.place.url(&format!("/api/v1/{question}"))).query(parameters);
        let mut answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["status"], "success", "{question} {parameters:?}: {answer}");
        answer["data"].take()
    }

    fn vector(promql: &str, data: Value) -> Vector {
        assert_eq!(data["resultType"], "vector", "{promql}");
        let series = data["result"].as_array().unwrap().iter();
        series.map(|one| (labels(&one["metric"]), point(&one["value"]).1)).collect()
    }
}

impl Alert {
    fn from_json(alert: &Value) -> Self {
        let text = |member: &str| alert[member].as_str().unwrap_or_else(|| panic!("no {member} in {alert}"));
        let active_at = OffsetDateTime::parse(text("activeAt"), &Rfc3339).unwrap();
        Self {
            labels: labels(&alert["labels"]),
            annotations: labels(&alert["annotations"]),
            state: text("state").to_owned(),
            active_at: active_at.unix_timestamp_nanos() as f64 / 1e9,
            value: text("value").parse().unwrap(),
        }
    }
}

fn labels(object: &Value) -> Labels {
    serde_json::from_value(object.clone()).unwrap()
}

/// A sample as the API gives it: `[Unix seconds, "value"]`.
fn point(sample: &Value) -> (f64, f64) {
    (sample[0].as_f64().unwrap(), sample[1].as_str().unwrap().parse().unwrap())
}
