//! A real Alertmanager, started for one test.

use std::path::Path;

use serde_json::Value;

use super::{Place, Running};
use crate::support::{Answer, client};

/// A running server; killed when it goes out of scope.
pub struct Alertmanager {
    running: Running,
}

impl Alertmanager {
    /// Starts alone, without a cluster, with this configuration, and waits until it answers.
    pub async fn start(binary: &Path, config: &Value) -> Self {
        // JSON is YAML.
        let files = [("alertmanager.yml", config.to_string())];
        // An empty address: no cluster, and so no port for one that another test might have.
        let arguments = ["--config.file=alertmanager.yml", "--storage.path=data", "--cluster.listen-address="];
        Self { running: Running::start(binary, Place::reserve(), &files, &arguments).await }
    }

    pub fn address(&self) -> &str {
        &self.running.place.address
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        self.running.log()
    }

    /// Every alert that it holds, as its API (v2) shows them: labels, annotations, receivers, and in `status` whether
    /// it is `active` or `suppressed`, and by what.
    pub async fn alerts(&self) -> Vec<Value> {
        let answer = Answer::to(client().get(self.running.place.url("/api/v2/alerts"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    }

    /// Hands it alerts, as Prometheus does: objects with `labels`, and if need be `annotations`, `startsAt`, `endsAt`.
    pub async fn post(&self, alerts: &Value) {
        let answer = Answer::to(client().post(self.running.place.url("/api/v2/alerts")).json(alerts)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}
