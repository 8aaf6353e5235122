//! Runs of `job` and `import`, and what the gateway then shows of them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::unistd::Pid;
use tempfile::TempDir;

use crate::servers::pushgateway::Pushgateway;
use crate::support::{Sample, Samples, binary, eventually, finished};

/// For a run whose gateway does not answer: its pushes wait in the folder `spool`, after one or two tries.
pub const TO_THE_SPOOL: &[&str] = &["--spool-dir", "spool", "--push-deadline", "100ms"];

/// For a run whose gateway is there, and that is to deliver what waits in the folder `spool`.
pub const WITH_SPOOL: &[&str] = &["--spool-dir", "spool", "--push-deadline", "60s"];

/// A command that lasts until the file `go` is there, or its test is over and has taken the folder along.
pub const UNTIL_GO: &str = "until [ -e go ] || [ ! -e \"$PWD\" ]; do sleep 0.01; done";

/// Where jobs run: a folder of their own and, perhaps, a gateway.
pub struct Jobs {
    pub folder: TempDir,
    gateway: String,
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    pub code: Option<i32>,
    /// What was said on stderr, the command's own words included.
    pub said: String,
    pub stdout: String,
}

/// What the gateway shows of a job's runs; `None` where a family is not there.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    pub start: Option<f64>,
    pub end: Option<f64>,
    pub success: Option<f64>,
    pub duration: Option<f64>,
    pub exit_code: Option<f64>,
    pub running: Option<f64>,
    pub user_cpu: Option<f64>,
    pub system_cpu: Option<f64>,
    pub memory: Option<f64>,
    pub expected_interval: Option<f64>,
}

impl Jobs {
    pub fn at(gateway: String) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), gateway }
    }

    /// The binary with a sub-command, this gateway, and more arguments.
    pub fn command(&self, sub_command: &str, arguments: &[&str]) -> Command {
        let mut command = binary(self.folder.path());
        command.arg(sub_command).args(["--pushgateway-url", &self.gateway]).args(arguments);
        command
    }

    /// A job that runs a shell script.
    pub fn job(&self, name: &str, flags: &[&str], script: &str) -> Command {
        let mut command = self.command("job", &["--name", name]);
        command.args(flags).args(["--", "sh", "-c", script]);
        command
    }

    /// Runs a job to its end.
    pub async fn run(&self, name: &str, flags: &[&str], script: &str) -> Run {
        Run::of(self.job(name, flags, script)).await
    }

    /// Delivers what waits in the folder `spool`.
    pub async fn flush(&self) -> Run {
        Run::of(self.command("job", &["--flush", "--spool-dir", "spool"])).await
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// Waits until a command has written a file, by moving it to its place or by leaving it empty.
    pub async fn written(&self, name: &str) {
        eventually(&format!("the file {name}"), async || self.path(name).exists().then_some(())).await;
    }

    /// The entries that wait in the folder `spool`, oldest first.
    pub fn waiting(&self) -> Vec<PathBuf> {
        entries(&self.path("spool"))
    }

    /// The entries that were set aside.
    pub fn set_aside(&self) -> Vec<PathBuf> {
        entries(&self.path("spool/set-aside"))
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(files) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = files.map(|file| file.unwrap().path());
    let mut entries: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "json")).collect();
    entries.sort();
    entries
}

impl Run {
    pub async fn of(command: Command) -> Self {
        let Output { status, stdout, stderr } = finished(command).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: status.code(), said: text(stderr), stdout: text(stdout) }
    }

    /// Fails unless it ended with this code and the wrapper had nothing to say.
    #[track_caller]
    pub fn ended_quietly_with(&self, code: i32) {
        assert_eq!((self.code, self.said.as_str()), (Some(code), ""), "{self:?}");
    }
}

impl Shown {
    /// What there is of a job whose group has no further labels.
    pub async fn of(gateway: &Pushgateway, job: &str) -> Self {
        Self::in_group(&gateway.group(&[("job", job)]).await)
    }

    pub fn in_group(group: &Samples) -> Self {
        let value = |name| found(group, name, &[]);
        Self {
            start: value("batch_job_last_start_timestamp_seconds"),
            end: value("batch_job_last_end_timestamp_seconds"),
            success: value("batch_job_last_success_timestamp_seconds"),
            duration: value("batch_job_last_duration_seconds"),
            exit_code: value("batch_job_last_exit_code"),
            running: value("batch_job_running"),
            user_cpu: found(group, "batch_job_last_cpu_seconds", &[("mode", "user")]),
            system_cpu: found(group, "batch_job_last_cpu_seconds", &[("mode", "system")]),
            memory: value("batch_job_last_max_resident_memory_bytes"),
            expected_interval: value("batch_job_expected_interval_seconds"),
        }
    }

    /// Waits until the gateway shows that the job runs.
    pub async fn running(gateway: &Pushgateway, job: &str) -> Self {
        eventually(&format!("{job} to run"), async || {
            let shown = Self::of(gateway, job).await;
            (shown.running == Some(1.0)).then_some(shown)
        })
        .await
    }
}

/// The value of the series with that name and exactly these labels, if there is one.
pub fn found(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let same = |sample: &&Sample| {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        sample.name == name && sample.labels == labels.collect()
    };
    samples.0.iter().find(same).map(|sample| sample.value)
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

/// Waits until a process is gone, and its parent knows.
pub async fn gone(pid: Pid) {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    eventually("the end of the command", async || (!folder.exists()).then_some(())).await;
}
