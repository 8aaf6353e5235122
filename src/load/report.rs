//! What `load` sent and got: exact counts by the service's own labels, and latency quantiles.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::mix::Planned;

/// Largest latency told apart, in microseconds: longer than a request may take.
const LATENCY_MAX_MICROS: u64 = 120_000_000;

/// What was answered to a request.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// From the start of the request to the head of the response: what the service's histogram measures, seen from
    /// outside.
    pub latency: Duration,
    /// The kind of error that a problem document names.
    pub error_type: Option<String>,
}

/// Why there was no answer: the client's view, in a few words.
pub type NoAnswer = &'static str;

/// Counts while the traffic runs.
#[derive(Debug)]
pub struct Tally {
    operations: BTreeMap<(&'static str, &'static str), OperationTally>,
    errors: BTreeMap<String, u64>,
    unanswered: BTreeMap<&'static str, u64>,
    latency: Histogram<u64>,
    start_delay_max: Duration,
}

#[derive(Debug)]
struct OperationTally {
    sent: u64,
    latency: Histogram<u64>,
    /// Latencies by status; their lengths are the counts.
    statuses: BTreeMap<u16, Histogram<u64>>,
}

/// How a run went, beside its requests.
#[derive(Debug)]
pub struct Run {
    /// Requests that were due; unknown when it was interrupted.
    pub planned: Option<u64>,
    /// How long requests were started.
    pub sending: Duration,
    /// Whether a signal ended it early.
    pub interrupted: bool,
}

/// The report, as it is written to JSON. Times are in seconds.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Base URL.
    pub target: String,
    /// Seed of the mix.
    pub seed: u64,
    /// Requests per second asked for.
    pub rate: f64,
    /// How long requests were started.
    pub sending_seconds: f64,
    /// Whether a signal ended it early.
    pub interrupted: bool,
    /// Requests that were due, but for which there was no place before the end: as many as allowed were in flight.
    pub not_started: u64,
    /// Requests started.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Requests without an answer, by reason.
    pub unanswered: BTreeMap<&'static str, u64>,
    /// How late the latest request started, because as many as allowed were in flight.
    pub start_delay_max_seconds: f64,
    /// Over all answers.
    pub latency_seconds: Quantiles,
    /// Answers of status 400 and above, by kind of error.
    pub errors: BTreeMap<String, u64>,
    /// By method and route template, as the service labels them.
    pub operations: Vec<OperationReport>,
}

/// One method on one route.
#[derive(Debug, Serialize)]
pub struct OperationReport {
    /// The `method` label.
    pub method: &'static str,
    /// The `route` label.
    pub route: &'static str,
    /// Requests started.
    pub sent: u64,
    /// Requests answered.
    pub answered: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, StatusReport>,
    /// Over its answers.
    pub latency_seconds: Quantiles,
}

/// The answers of one operation with one status.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct StatusReport {
    /// How many.
    pub answered: u64,
    /// Over these answers.
    pub latency_seconds: Quantiles,
}

/// Latency from the start of a request to the head of its response.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Quantiles {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 95th percentile.
    pub p95: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
    /// Arithmetic mean.
    pub mean: f64,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            operations: BTreeMap::new(),
            errors: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            latency: histogram(),
            start_delay_max: Duration::ZERO,
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_MAX_MICROS, 3).expect("3 significant digits of 2 minutes are allowed")
}

impl Tally {
    /// Counts a request that is being started, this late.
    pub fn started(&mut self, request: &Planned, delay: Duration) {
        self.operation(request).sent += 1;
        self.start_delay_max = self.start_delay_max.max(delay);
    }

    /// Counts what came of it.
    pub fn ended(&mut self, request: &Planned, outcome: Result<Answer, NoAnswer>) {
        match outcome {
            Ok(answer) => {
                let micros = u64::try_from(answer.latency.as_micros()).unwrap_or(u64::MAX);
                self.latency.saturating_record(micros);
                let operation = self.operation(request);
                operation.latency.saturating_record(micros);
                operation.statuses.entry(answer.status).or_insert_with(histogram).saturating_record(micros);
                if let Some(kind) = answer.error_type {
                    *self.errors.entry(kind).or_default() += 1;
                }
            }
            Err(reason) => *self.unanswered.entry(reason).or_default() += 1,
        }
    }

    fn operation(&mut self, request: &Planned) -> &mut OperationTally {
        self.operations.entry((request.route, request.method_label())).or_insert_with(|| OperationTally {
            sent: 0,
            statuses: BTreeMap::new(),
            latency: histogram(),
        })
    }

    /// Requests started so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.operations.values().map(|operation| operation.sent).sum()
    }

    /// Requests answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.latency.len()
    }

    /// Answers of status 500 and above so far.
    #[must_use]
    pub fn server_errors(&self) -> u64 {
        let all = self.operations.values().flat_map(|operation| &operation.statuses);
        all.filter(|(status, _)| **status >= 500).map(|(_, latency)| latency.len()).sum()
    }

    /// Latencies so far.
    #[must_use]
    pub fn latency(&self) -> Quantiles {
        Quantiles::of(&self.latency)
    }

    /// The report of a run.
    #[must_use]
    pub fn report(&self, target: String, seed: u64, rate: f64, run: &Run) -> Report {
        let operations = self.operations.iter().map(|((route, method), operation)| OperationReport {
            method,
            route,
            sent: operation.sent,
            answered: operation.latency.len(),
            statuses: operation.statuses.iter().map(|(status, latency)| (*status, StatusReport::of(latency))).collect(),
            latency_seconds: Quantiles::of(&operation.latency),
        });
        Report {
            target,
            seed,
            rate,
            sending_seconds: run.sending.as_secs_f64(),
            interrupted: run.interrupted,
            not_started: run.planned.map_or(0, |planned| planned.saturating_sub(self.sent())),
            sent: self.sent(),
            answered: self.answered(),
            unanswered: self.unanswered.clone(),
            start_delay_max_seconds: self.start_delay_max.as_secs_f64(),
            latency_seconds: self.latency(),
            errors: self.errors.clone(),
            operations: operations.collect(),
        }
    }
}

impl StatusReport {
    fn of(latency: &Histogram<u64>) -> Self {
        Self { answered: latency.len(), latency_seconds: Quantiles::of(latency) }
    }
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        // Microseconds below 2^53 are exact in an f64.
        #[allow(clippy::cast_precision_loss)]
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e6;
        Self { p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99), max: at(1.0), mean: histogram.mean() / 1e6 }
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, answered, sending_seconds, .. } = self;
        let early = if self.interrupted { ", interrupted" } else { "" };
        writeln!(f, "{sent} requests sent in {sending_seconds:.1} s{early}, {answered} answered")?;
        for (reason, count) in &self.unanswered {
            writeln!(f, "  {count} without an answer: {reason}")?;
        }
        writeln!(f, "\n{:<8}{:<18}{:>7}{:>11}{:>11}{:>11}  STATUSES", "METHOD", "ROUTE", "SENT", "P50", "P95", "P99")?;
        for operation in &self.operations {
            let OperationReport { method, route, sent, latency_seconds: latency, .. } = operation;
            let [p50, p95, p99] = [latency.p50, latency.p95, latency.p99].map(milliseconds);
            let statuses: Vec<_> =
                operation.statuses.iter().map(|(status, report)| format!("{status}×{}", report.answered)).collect();
            writeln!(f, "{method:<8}{route:<18}{sent:>7}{p50:>11}{p95:>11}{p99:>11}  {}", statuses.join(" "))?;
        }
        if !self.errors.is_empty() {
            let errors: Vec<_> = self.errors.iter().map(|(kind, count)| format!("{kind}×{count}")).collect();
            writeln!(f, "\nErrors by type: {}", errors.join(" "))?;
        }
        if self.not_started > 0 || self.start_delay_max_seconds > 0.1 {
            let (late, never) = (milliseconds(self.start_delay_max_seconds), self.not_started);
            let advice = "raise --concurrency, or lower --rate";
            writeln!(f, "\nRequests started up to {late} late, and {never} were never started: {advice}.")?;
        }
        Ok(())
    }
}

fn milliseconds(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &'static str, route: &'static str) -> Planned {
        Planned { method: method.parse().unwrap(), path: route.to_owned(), body: None, route }
    }

    #[allow(clippy::unnecessary_wraps, reason = "has the shape of an outcome")]
    fn answer(status: u16, millis: u64, error_type: Option<&str>) -> Result<Answer, NoAnswer> {
        Ok(Answer { status, latency: Duration::from_millis(millis), error_type: error_type.map(str::to_owned) })
    }

    #[test]
    fn every_request_is_counted_once_under_its_labels() {
        let mut tally = Tally::default();
        let (get, foo) = (request("GET", "/api/users"), request("FOO", "unmatched"));

        for (request, outcome) in [
            (&get, answer(200, 1, None)),
            (&get, answer(200, 3, None)),
            (&get, answer(503, 2, Some("overloaded"))),
            (&get, Err("timed out")),
            (&foo, answer(404, 1, Some("unknown_path"))),
        ] {
            tally.started(request, Duration::ZERO);
            tally.ended(request, outcome);
        }
        let report = tally.report(
            String::new(),
            1,
            1.0,
            &Run { planned: Some(7), sending: Duration::from_secs(1), interrupted: false },
        );

        assert_eq!((report.sent, report.answered, report.not_started), (5, 4, 2));
        assert_eq!(report.unanswered, BTreeMap::from([("timed out", 1)]));
        assert_eq!(report.errors, BTreeMap::from([("overloaded".to_owned(), 1), ("unknown_path".to_owned(), 1)]));
        let rows: Vec<_> = report
            .operations
            .iter()
            .map(|row| {
                let statuses: Vec<_> = row.statuses.iter().map(|(status, report)| (*status, report.answered)).collect();
                (row.method, row.route, row.sent, row.answered, statuses)
            })
            .collect();
        assert_eq!(
            rows,
            [("GET", "/api/users", 4, 3, vec![(200, 2), (503, 1)]), ("OTHER", "unmatched", 1, 1, vec![(404, 1)]),]
        );
        assert_eq!(tally.server_errors(), 1);
        assert!((report.operations[0].latency_seconds.p50 - 0.002).abs() < 1e-5, "{:?}", report.operations[0]);
    }
}
