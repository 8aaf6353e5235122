//! A real Prometheus server, started for one test.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::{client, eventually};

/// The result of an instant query: series and values.
pub type Vector = Vec<(BTreeMap<String, String>, f64)>;

/// A running server that scrapes every second; killed when it goes out of scope.
pub struct Prometheus {
    child: Child,
    address: String,
    client: Client,
    folder: TempDir,
}

impl Prometheus {
    /// Scrapes one target as the job `api`.
    pub async fn scraping(binary: &Path, target: &str) -> Self {
        Self::start(binary, &serde_json::json!([{"job_name": "api", "static_configs": [{"targets": [target]}]}])).await
    }

    /// Starts with these `scrape_configs`, and waits until it answers.
    pub async fn start(binary: &Path, scrape_configs: &Value) -> Self {
        // Prometheus cannot report a port that it chose itself. One that was free a moment ago is nearly always free
        // still; where it is not, the server ends and another is tried.
        let mut log = String::new();
        for _ in 0..5 {
            let mut server = Self::spawn(binary, scrape_configs);
            if server.starts().await {
                return server;
            }
            log = std::fs::read_to_string(server.folder.path().join("log")).unwrap();
        }
        panic!("Prometheus does not start: {log}");
    }

    fn spawn(binary: &Path, scrape_configs: &Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": scrape_configs,
        });
        // JSON is YAML.
        std::fs::write(folder.path().join("prometheus.yml"), config.to_string()).unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let child = Command::new(binary)
            .current_dir(folder.path())
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("log")).unwrap())
            .spawn()
            .unwrap();
        Self { child, address, client: client(), folder }
    }

    async fn starts(&mut self) -> bool {
        let url = format!("http://{}/-/ready", self.address);
        let Self { child, client, .. } = self;
        let child = std::sync::Mutex::new(child);
        eventually("Prometheus' start or end", async || {
            let ended = child.lock().unwrap().try_wait().unwrap().is_some();
            let ready = client.get(&url).send().await.is_ok_and(|answer| answer.status() == 200);
            (ended || ready).then_some(!ended)
        })
        .await
    }

    /// Waits for two scrapes that began after this call, so that whatever had happened by now is seen, and in-progress
    /// and counters are of one moment.
    pub async fn scraped_after_now(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        let query = format!("count_over_time(up[5m]) and on() (timestamp(up) > {})", now + 1.0);
        eventually("a scrape", async || self.query(&query).await.pop()).await;
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// An instant query; it must give a vector.
    pub async fn query(&self, promql: &str) -> Vector {
        let request = self.client.get(format!("http://{}/api/v1/query", self.address)).query(&[("query", promql)]);
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["status"], "success", "{promql}: {answer}");
        assert_eq!(answer["data"]["resultType"], "vector", "{promql}");
        let series = answer["data"]["result"].as_array().unwrap();
        let vector = series.iter().map(|series| {
            let labels = serde_json::from_value(series["metric"].clone()).unwrap();
            (labels, series["value"][1].as_str().unwrap().parse().unwrap())
        });
        vector.collect()
    }

    /// A query that gives exactly one value.
    pub async fn scalar(&self, promql: &str) -> f64 {
        let vector = self.query(promql).await;
        assert_eq!(vector.len(), 1, "{promql}: {vector:?}");
        vector[0].1
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
