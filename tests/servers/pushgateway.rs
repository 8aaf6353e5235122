//! A real Pushgateway, started for one test.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Place;
use crate::support::{Answer, Samples, client, eventually};

/// A running gateway; killed when it goes out of scope. It writes what it holds to its folder when it is told to end
/// ([`Pushgateway::stop`]), and not when it is killed.
pub struct Pushgateway {
    binary: PathBuf,
    child: Child,
    pub address: String,
    place: Arc<Place>,
    /// Under which path it stands; empty at the root.
    prefix: &'static str,
}

impl Pushgateway {
    /// Starts at a place of its own, and waits until it answers.
    pub async fn start(binary: &Path) -> Self {
        Self::start_at(binary, Place::reserve()).await
    }

    /// Starts with what an earlier one wrote there, if any did.
    pub async fn start_at(binary: &Path, place: impl Into<Arc<Place>>) -> Self {
        Self::start_under(binary, place, "").await
    }

    /// The same under a path.
    pub async fn start_under(binary: &Path, place: impl Into<Arc<Place>>, prefix: &'static str) -> Self {
        let place = place.into();
        let folder = place.folder();
        let mut child = Command::new(binary)
            .current_dir(folder)
            .arg(format!("--web.listen-address={}", place.address))
            .arg(format!("--web.route-prefix={prefix}"))
            .arg("--persistence.file=metrics")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.join("log")).unwrap())
            .spawn()
            .unwrap();
        let (client, ready) = (client(), place.url(&format!("{prefix}/-/ready")));
        eventually("the Pushgateway's start", || {
            let log = || std::fs::read_to_string(folder.join("log")).unwrap();
            assert!(child.try_wait().unwrap().is_none(), "the Pushgateway ended: {}", log());
            let request = client.get(&ready);
            async { request.send().await.ok().filter(|answer| answer.status() == 200) }
        })
        .await;
        Self { binary: binary.to_owned(), child, address: place.address.clone(), place, prefix }
    }

    pub fn url(&self, path: &str) -> String {
        self.place.url(&format!("{}{path}", self.prefix))
    }

    /// What Prometheus would scrape.
    pub async fn metrics(&self) -> Samples {
        let answer = Answer::to(client().get(self.url("/metrics"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Samples::parse(&answer.text())
    }

    /// What it shows of one group, by the labels that the metrics have themselves; nothing when there is no such group.
    pub async fn group(&self, labels: &[(&str, &str)]) -> Samples {
        // Where a group has no instance, an empty one is shown, so that Prometheus adds none.
        let instance = [("instance", "")].into_iter().filter(|_| labels.iter().all(|(name, _)| *name != "instance"));
        let labels: Vec<_> = labels.iter().copied().chain(instance).collect();
        let mut samples = self.metrics().await.0;
        samples.retain_mut(|sample| {
            labels.iter().all(|(name, value)| sample.labels.remove(*name).is_some_and(|given| given == *value))
        });
        Samples(samples)
    }

    /// The labels of every group that it holds.
    pub async fn groups(&self) -> Vec<BTreeMap<String, String>> {
        let groups = self.listing().await;
        groups.into_iter().map(|mut group| serde_json::from_value(group["labels"].take()).unwrap()).collect()
    }

    async fn listing(&self) -> Vec<Value> {
        let mut answer = Answer::to(client().get(self.url("/api/v1/metrics"))).await.json();
        serde_json::from_value(answer["data"].take()).unwrap()
    }

    /// How many pushes of a method (`post` or `put`) it has taken since it started.
    pub async fn pushes(&self, method: &str) -> f64 {
        let taken = [("handler", "push"), ("method", method), ("code", "200")];
        self.metrics().await.sum("pushgateway_http_requests_total", &taken)
    }

    /// Kills it as `kill -9` does: what it holds is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Tells it to end and waits for that: what it holds is written to its folder.
    pub async fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let child = &mut self.child;
        eventually("the Pushgateway's end", || std::future::ready(child.try_wait().unwrap())).await;
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// Starts again at the same address, with what was written.
    pub async fn restart(self) -> Self {
        let (binary, place, prefix) = (self.binary.clone(), Arc::clone(&self.place), self.prefix);
        drop(self);
        Self::start_under(&binary, place, prefix).await
    }
}

impl Drop for Pushgateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
