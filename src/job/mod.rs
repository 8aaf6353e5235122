//! `job`: runs any command as a monitored batch job and pushes how it went.
//!
//! - [`command`]: the command itself: its process group, its signals, its time-out, its exit code.
//! - [`metrics_file`]: what the command says of itself.
//! - [`report`]: what is pushed, when, and what is said on stderr when it cannot be; `import` reports by it too.
//!
//! The wrapper is transparent: stdin, stdout and stderr are the command's own, the exit code is the command's, and
//! nothing that happens to a push changes either, unless that is asked for.

pub mod command;

pub mod metrics_file;

pub mod report;

use std::time::SystemTime;

use crate::config::{FlushConfig, JobConfig};
use crate::metrics::{BatchEnd, BatchRun};
use crate::push::GroupingKey;
use crate::words::say;
use command::{Ended, Forwarded, Running};
use metrics_file::MetricsFile;
use report::{Reporter, Told};
use tokio::time::Instant;

/// The exit code for a failure of the wrapper itself, as for `env` and `timeout`.
pub const OWN_FAILURE: u8 = 125;

/// Runs the command and gives the exit code for the process: the command's own, 128+n when signal n ended it, 124 when
/// it timed out, 126 when it cannot be run, 127 when it is not there, 125 when the wrapper itself fails.
pub async fn run(config: JobConfig, clock: fn() -> SystemTime) -> u8 {
    let mut signals = match Forwarded::catch() {
        Ok(signals) => signals,
        Err(error) => {
            say(&format!("cannot catch signals: {error}"));
            return OWN_FAILURE;
        }
    };
    let metrics_file = MetricsFile::prepare(config.metrics_file);
    let mut reporter = Reporter::new(config.report, clock);

    let run = BatchRun { started: clock(), expected_interval: reporter.expected_interval() };
    let began = Instant::now();
    let running = Running::start(&config.command, metrics_file.path());
    let command = async {
        let Ended { exit_code, usage, reason } = running.end(&mut signals).await;
        (BatchEnd { ended: clock(), duration: began.elapsed(), exit_code, usage }, Instant::now(), reason)
    };
    let (end, ended_at, reason) = reporter.while_running(&run, command).await;
    if let Some(reason) = reason {
        say(&reason);
    }

    // On a thread of its own: the deadline, and signals, are heeded meanwhile.
    let own = async |key: &GroupingKey| {
        let key = key.clone();
        let told = tokio::task::spawn_blocking(move || metrics_file.read(&key)).await;
        told.unwrap_or_else(|error| Told::unusable(format!("the metrics file cannot be read: {error}")))
    };
    let lost = reporter.end(&run, &end, ended_at, own, signals.any()).await;
    if lost && config.fail_on_push_error && end.exit_code == 0 { OWN_FAILURE } else { end.exit_code }
}

/// Delivers what waits in the spool; true when nothing is left there and nothing had to be set aside.
pub async fn flush(config: FlushConfig, clock: fn() -> SystemTime) -> bool {
    Reporter::flush_alone(config, clock).await
}
