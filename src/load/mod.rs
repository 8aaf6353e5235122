//! `load`: known, mixed traffic to a running API, and an exact report of what was sent and answered.
//!
//! Open loop: requests start at a steady rate whether or not earlier ones are answered, as real clients do; a slow
//! server does not slow the traffic down and so cannot hide its latency.

mod mix;
mod report;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, Url};
use tempfile::NamedTempFile;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::{LoadConfig, ReportTarget};
use crate::signals::Stop;
use crate::words::{print, unless_closed};

pub use mix::{Mix, Planned};
pub use report::{Answer, NoAnswer, OperationReport, Quantiles, Report, Run, StatusReport, Tally};

/// After this, a request counts as unanswered: longer than the service's own deadline.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long reaching the target may take before the traffic starts.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the progress line moves.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Why no traffic could be sent, or its report not be written.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nothing listens there.
    #[error("cannot reach {target} (--target, LOAD_TARGET)")]
    Unreachable {
        /// The base URL.
        target: Url,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The HTTP client cannot be set up.
    #[error("cannot set up the HTTP client")]
    Client(#[from] reqwest::Error),
    /// The report cannot be written.
    #[error("cannot write the report to {path:?} (--report, LOAD_REPORT)")]
    Report {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Nor can what goes to stdout.
    #[error("cannot write the report to stdout")]
    Stdout(#[source] std::io::Error),
}

/// Sends traffic until the duration is over or `stop` resolves, waits for what is in flight, and writes the report: a
/// table for people on stdout, and JSON where it was asked for.
///
/// # Errors
///
/// Before the first request when the target cannot be reached or the report's file not be made; at the end when there is no
/// room for the report.
pub async fn run(config: LoadConfig, stop: Stop) -> Result<(), LoadError> {
    let report_file = match &config.report {
        Some(ReportTarget::File(path)) => Some(ReportFile::create(path)?),
        _ => None,
    };
    reach(&config.target).await?;
    let report = send(&config, stop).await?;
    let json = serde_json::to_string_pretty(&report).expect("numbers and strings always serialise") + "\n";
    if let Some(file) = report_file {
        file.finish(&json)?;
    }
    let text = if config.report == Some(ReportTarget::Stdout) { json } else { report.to_string() };
    print(&text).map_err(LoadError::Stdout)
}

/// A connection without a request, so that the service counts nothing.
async fn reach(target: &Url) -> Result<(), LoadError> {
    let unreachable = |source| LoadError::Unreachable { target: target.clone(), source };
    let host = target.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let port = target.port_or_known_default().unwrap_or_default();
    match timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port))).await {
        Ok(connected) => connected.map(drop).map_err(unreachable),
        Err(_) => Err(unreachable(std::io::ErrorKind::TimedOut.into())),
    }
}

async fn send(config: &LoadConfig, stop: Stop) -> Result<Report, LoadError> {
    let client = Client::builder()
        // The service is measured, not a proxy on the way; and what it answers is counted, not what it points to.
        .no_proxy()
        .redirect(Policy::none())
        .timeout(REQUEST_TIMEOUT)
        // Shorter than the server keeps idle connections, so that none is used while it is being closed.
        .pool_idle_timeout(REQUEST_TIMEOUT)
        .build()?;
    let tally = Arc::new(Mutex::new(Tally::default()));
    let permits = Arc::new(Semaphore::new(config.concurrency));
    let mut in_flight = JoinSet::new();
    let progress = Progress::start(config, Arc::clone(&tally));

    let started = Instant::now();
    let end = started + config.duration;
    let mut stopped = std::pin::pin!(stop.requested());
    let mut interrupted = false;
    for (number, request) in (0_u64..).zip(Mix::seeded(config.seed)) {
        let due = started + due(number, config.rate);
        if due >= end {
            break;
        }
        let turn = async {
            sleep_until(due).await;
            Arc::clone(&permits).acquire_owned().await.expect("the semaphore is never closed")
        };
        let permit = tokio::select! {
            biased;
            () = &mut stopped => { interrupted = true; break }
            permit = timeout(end.saturating_duration_since(Instant::now()), turn) => match permit {
                Ok(permit) => permit,
                // Nothing could be started any more before the end.
                Err(_) => break,
            },
        };
        lock(&tally).started(&request, due.elapsed());
        let (client, tally, target) = (client.clone(), Arc::clone(&tally), config.target.clone());
        in_flight.spawn(async move {
            let outcome = exchange(&client, &target, &request).await;
            lock(&tally).ended(&request, outcome);
            drop(permit);
        });
        // Takes finished requests out of the set.
        while in_flight.try_join_next().is_some() {}
    }
    let sending = started.elapsed().min(config.duration);
    while in_flight.join_next().await.is_some() {}
    progress.finish();
    let run = Run { planned: (!interrupted).then(|| planned(config.rate, config.duration)), sending, interrupted };
    let report = lock(&tally).report(config.target.to_string(), config.seed, config.rate, &run);
    Ok(report)
}

/// When a request is due, from the start on.
#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53 requests")]
fn due(number: u64, rate: f64) -> Duration {
    Duration::from_secs_f64(number as f64 / rate)
}

/// How many requests are due before the end.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rates and durations are positive")]
fn planned(rate: f64, duration: Duration) -> u64 {
    let about = (rate * duration.as_secs_f64()) as u64;
    // The product may round to the other side of a whole number: what counts is when each is due.
    (about.saturating_sub(1)..=about + 1).find(|number| due(*number, rate) >= duration).unwrap_or(about)
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    // Counting does not panic half-way.
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends one request and reads its whole answer.
async fn exchange(client: &Client, target: &Url, request: &Planned) -> Result<Answer, NoAnswer> {
    let url = format!("{}{}", target.as_str().trim_end_matches('/'), request.path);
    let mut builder = client.request(request.method.clone(), url);
    if let Some((content_type, body)) = &request.body {
        builder = builder.header(http::header::CONTENT_TYPE, *content_type).body(body.clone());
    }
    let started = Instant::now();
    let response = builder.send().await.map_err(|error| reason(&error))?;
    let latency = started.elapsed();
    let status = response.status().as_u16();
    let error_type = error_type(response).await?;
    Ok(Answer { status, latency, error_type })
}

/// Reads the body; that of a failure names its kind in the fragment of `type`.
async fn error_type(response: Response) -> Result<Option<String>, NoAnswer> {
    let failed = response.status().as_u16() >= 400;
    let body = response.bytes().await.map_err(|error| reason(&error))?;
    if !failed {
        return Ok(None);
    }
    let problem: Option<serde_json::Value> = serde_json::from_slice(&body).ok();
    let kind = problem.as_ref().and_then(|problem| problem["type"].as_str()?.split_once('#'));
    Ok(kind.map(|(_, kind)| kind.to_owned()))
}

fn reason(error: &reqwest::Error) -> NoAnswer {
    match error {
        error if error.is_timeout() => "timed out",
        error if error.is_connect() => "could not connect",
        error if error.is_body() || error.is_decode() => "the answer broke off",
        _ => "the connection broke",
    }
}

/// A line on the terminal that shows how the traffic goes; nothing where stderr is no terminal.
struct Progress {
    bar: ProgressBar,
    moving: tokio::task::JoinHandle<()>,
}

impl Progress {
    fn start(config: &LoadConfig, tally: Arc<Mutex<Tally>>) -> Self {
        let millis = u64::try_from(config.duration.as_millis()).unwrap_or(u64::MAX);
        let style = ProgressStyle::with_template("{elapsed_precise} [{bar:24}] {msg}");
        let bar = ProgressBar::new(millis).with_style(style.expect("the template is well-formed"));
        let moving = tokio::spawn({
            let bar = bar.clone();
            let started = Instant::now();
            async move {
                loop {
                    tokio::time::sleep(PROGRESS_INTERVAL).await;
                    bar.set_position(u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX).min(millis));
                    bar.set_message(Self::message(&lock(&tally)));
                }
            }
        });
        Self { bar, moving }
    }

    fn message(tally: &Tally) -> String {
        let (sent, answered, errors) = (tally.sent(), tally.answered(), tally.server_errors());
        let p95 = tally.latency().p95 * 1e3;
        format!("{sent} sent, {answered} answered, {errors} server errors, p95 {p95:.1} ms")
    }

    fn finish(self) {
        self.moving.abort();
        self.bar.finish_and_clear();
    }
}

/// Where the JSON report goes. A regular file appears whole or not at all: it is written beside its place and then moved
/// there. Anything else (a pipe, a device) is written to.
enum ReportFile {
    Replace { path: PathBuf, partial: NamedTempFile },
    Write { path: PathBuf, file: std::fs::File },
}

impl ReportFile {
    fn create(path: &Path) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Report { path: path.to_owned(), source };
        // Through links, so that a link stays one.
        let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if place.exists() && !place.is_file() {
            let file = std::fs::OpenOptions::new().write(true).open(&place).map_err(failed)?;
            return Ok(Self::Write { path: path.to_owned(), file });
        }
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        let partial = tempfile::Builder::new().prefix(".load-report-").permissions(readable).tempfile_in(folder);
        Ok(Self::Replace { path: place, partial: partial.map_err(failed)? })
    }

    fn finish(self, text: &str) -> Result<(), LoadError> {
        match self {
            Self::Write { path, mut file } => {
                unless_closed(file.write_all(text.as_bytes())).map_err(|source| LoadError::Report { path, source })
            }
            Self::Replace { path, mut partial } => {
                let written = partial.write_all(text.as_bytes());
                let moved = written.and_then(|()| partial.persist(&path).map(drop).map_err(|error| error.error));
                moved.map_err(|source| LoadError::Report { path, source })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_counts_the_requests_that_are_due_before_the_end() {
        let hour = Duration::from_hours(1);
        let cases = [
            (100.0, Duration::from_secs(30), 3000, "whole"),
            (2.0, Duration::from_millis(700), 2, "at 0 s and at 0.5 s"),
            (0.1, Duration::from_millis(1), 1, "the first is due at once"),
            (1.1, hour, 3960, "the product is a little more than 3960"),
        ];
        for (rate, duration, expected, reason) in cases {
            assert_eq!(planned(rate, duration), expected, "{rate}/s for {duration:?}: {reason}");
        }
    }
}
