//! A real Pushgateway, started for one test.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;

use crate::support::{Answer, Samples, client, eventually};

/// A running gateway; killed when it goes out of scope. What it holds survives [`Pushgateway::kill`] only as far as its
/// persistence file goes, which it writes when it is told to end.
pub struct Pushgateway {
    binary: PathBuf,
    child: Child,
    pub address: String,
    folder: Arc<TempDir>,
}

impl Pushgateway {
    /// Starts on a free port, and waits until it answers.
    pub async fn start(binary: &Path) -> Self {
        Self::start_at(binary, "127.0.0.1:0", Arc::new(tempfile::tempdir().unwrap())).await
    }

    /// Starts at an address, such as that of an earlier one.
    pub async fn start_at(binary: &Path, address: &str, folder: Arc<TempDir>) -> Self {
        let mut child = Command::new(binary)
            .current_dir(folder.path())
            .arg(format!("--web.listen-address={address}"))
            .arg("--persistence.file=metrics")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line));
        });
        // Newer versions quote their values, older ones do not.
        let address_of = |line: &String| {
            let after = line.split("Listening on\"").nth(1)?.split("address=").nth(1)?;
            Some(after.split_whitespace().next()?.trim_matches('"').to_owned())
        };
        let listening = eventually("the Pushgateway's address", || {
            let lines = lines.lock().unwrap().clone();
            assert!(child.try_wait().unwrap().is_none() || lines.is_empty(), "the Pushgateway ended: {lines:?}");
            std::future::ready(lines.iter().find_map(address_of))
        })
        .await;
        let gateway = Self { binary: binary.to_owned(), child, address: listening, folder };
        eventually("the Pushgateway's start", async || {
            let ready = client().get(gateway.url("/-/ready")).send().await;
            ready.is_ok_and(|answer| answer.status() == 200).then_some(())
        })
        .await;
        gateway
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// What Prometheus would scrape.
    pub async fn metrics(&self) -> Samples {
        let answer = Answer::to(client().get(self.url("/metrics"))).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Samples::parse(&answer.text())
    }

    /// The labels of every group that it holds.
    pub async fn groups(&self) -> Vec<BTreeMap<String, String>> {
        let answer = Answer::to(client().get(self.url("/api/v1/metrics"))).await.json();
        let groups = answer["data"].as_array().unwrap();
        groups.iter().map(|group| serde_json::from_value(group["labels"].clone()).unwrap()).collect()
    }

    /// Kills it as `kill -9` does.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Starts again at the same address, with what was persisted.
    pub async fn restart(self) -> Self {
        let (binary, address, folder) = (self.binary.clone(), self.address.clone(), Arc::clone(&self.folder));
        drop(self);
        Self::start_at(&binary, &address, folder).await
    }
}

impl Drop for Pushgateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
