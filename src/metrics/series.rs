//! The numbers of one method on one route, kept so that recording a request costs next to nothing.
//!
//! A series is kept in stripes, one a thread as a rule, and added up when it is collected: threads that record at the
//! same time would otherwise take the same cache line from each other, which costs more than all the rest. A stripe
//! counts a request in one cell, by status and bucket: two additions record it. The counter and the histogram's counts are
//! sums over the same cells, so they agree at every scrape. Only a status without cells, which nobody declared and which is
//! not common, is counted in a second place; and the sum of durations may be ahead or behind by requests that just end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{IntCounter, IntCounterVec};

use super::{names, threads};

/// One for each upper bound, and one for what took longer.
pub(super) const BUCKETS: usize = names::HTTP_REQUEST_DURATION_BUCKETS.len() + 1;

/// The upper bounds in nanoseconds.
const BOUNDS: [u64; BUCKETS - 1] = bounds();

/// Statuses that have cells on every route; unless they were declared, they show from their first request on.
const COMMON: [u16; 23] =
    [200, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 409, 422, 429, 499, 500, 502, 503];

/// One method on one route.
#[derive(Debug)]
pub(super) struct Series(Box<[Arc<Stripe>]>);

/// What a series is of.
#[derive(Debug)]
pub(super) struct Subject {
    pub(super) method: &'static str,
    pub(super) route: String,
    /// False for requests that are left out of the metrics.
    pub(super) recorded: bool,
    /// The statuses with cells; the first `declared` of them show from the start.
    statuses: Vec<u16>,
    declared: usize,
    pub(super) others: Others,
}

/// Where is counted what has no cells: found by its labels, which takes longer. Shared by all series.
#[derive(Clone, Debug)]
pub(super) struct Others {
    /// Requests with a status without cells.
    pub(super) requests: IntCounterVec,
    pub(super) errors: IntCounterVec,
    /// The kinds of error known beforehand.
    pub(super) known_errors: Arc<[(&'static str, IntCounter)]>,
}

/// A thread's part of a series. Requests in progress hold it, and but for the series nothing else does. Aligned, so that
/// neither its time nor its reference count shares a cache line with another thread's.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Stripe {
    pub(super) subject: Arc<Subject>,
    /// A row for each of the statuses, and a last one for all others; made with the first request, since most never see
    /// one, and clients must not be able to fill the memory with empty rows.
    rows: Box<[OnceLock<Box<Row>>]>,
    /// Enough for 584 years of requests; then it begins anew, as after a restart.
    nanoseconds: AtomicU64,
}

/// Requests by bucket, each in one. Aligned like the stripe.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Row([AtomicU64; BUCKETS]);

/// What a series came to.
pub(super) struct Totals {
    /// Requests being handled.
    pub(super) in_progress: usize,
    /// Finished requests by status: the declared ones, and those that were answered and have cells.
    pub(super) statuses: Vec<(u16, u64)>,
    /// All finished requests by bucket, each in one.
    pub(super) buckets: [u64; BUCKETS],
    /// What they took in all.
    pub(super) duration: Duration,
}

impl Subject {
    pub(super) fn new(
        method: &'static str,
        route: String,
        declared: impl IntoIterator<Item = u16>,
        others: Others,
    ) -> Self {
        let mut statuses: Vec<u16> = Vec::new();
        for status in declared {
            if !statuses.contains(&status) {
                statuses.push(status);
            }
        }
        let declared = statuses.len();
        let common = COMMON.iter().copied().filter(|status| !statuses.contains(status)).collect::<Vec<_>>();
        statuses.extend(common);
        Self { method, route, recorded: true, statuses, declared, others }
    }

    /// The same, left out of the metrics.
    pub(super) fn unrecorded(method: &'static str, route: String, others: Others) -> Self {
        Self { recorded: false, ..Self::new(method, route, [], others) }
    }
}

impl Series {
    /// A series at zero, for so many threads.
    pub(super) fn new(subject: Subject, threads: usize) -> Self {
        let subject = Arc::new(subject);
        // A power of two, so that a thread's stripe is found without a division.
        Self((0..threads.next_power_of_two()).map(|_| Arc::new(Stripe::new(&subject))).collect())
    }

    pub(super) fn subject(&self) -> &Subject {
        &self.0[0].subject
    }

    /// The calling thread's stripe. A request is in progress for as long as it holds it.
    pub(super) fn stripe(&self) -> Arc<Stripe> {
        Arc::clone(&self.0[threads::number() & (self.0.len() - 1)])
    }

    pub(super) fn totals(&self) -> Totals {
        let subject = self.subject();
        let mut counts = vec![0; subject.statuses.len() + 1];
        let mut buckets = [0; BUCKETS];
        let mut nanoseconds = 0_u64;
        let mut in_progress = 0;
        for stripe in &self.0 {
            // The series holds it too.
            in_progress += Arc::strong_count(stripe) - 1;
            nanoseconds = nanoseconds.wrapping_add(stripe.nanoseconds.load(Ordering::Relaxed));
            for (count, row) in counts.iter_mut().zip(&stripe.rows) {
                let cells = row.get().into_iter().flat_map(|row| &row.0);
                for (bucket, cell) in buckets.iter_mut().zip(cells) {
                    let requests = cell.load(Ordering::Relaxed);
                    *count += requests;
                    *bucket += requests;
                }
            }
        }
        let counted = subject.statuses.iter().copied().zip(counts).enumerate();
        let shown = counted.filter(|(index, (_, count))| *index < subject.declared || *count > 0);
        let statuses = shown.map(|(_, counted)| counted).collect();
        Totals { in_progress, statuses, buckets, duration: Duration::from_nanos(nanoseconds) }
    }
}

impl Stripe {
    fn new(subject: &Arc<Subject>) -> Self {
        let rows = if subject.recorded { subject.statuses.len() + 1 } else { 0 };
        let rows = (0..rows).map(|_| OnceLock::new()).collect();
        Self { subject: Arc::clone(subject), rows, nanoseconds: AtomicU64::new(0) }
    }

    /// Counts a finished request: its status, its duration and its kind of error, if it failed.
    pub(super) fn record(&self, status: u16, duration: Duration, error_type: Option<&str>) {
        let Subject { method, route, recorded, statuses, others, .. } = &*self.subject;
        if !recorded {
            return;
        }
        let known = statuses.iter().position(|known| *known == status);
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Without a branch: cheaper than to stop at the right one, whichever it is.
        let bucket = BOUNDS.iter().filter(|bound| nanoseconds > **bound).count();
        let row = self.rows[known.unwrap_or(statuses.len())].get_or_init(Box::default);
        row.0[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        if known.is_none() {
            others.requests.with_label_values(&[*method, route, status.to_string().as_str()]).inc();
        }
        if let Some(kind) = error_type {
            others.count_error(kind);
        }
    }
}

impl Others {
    fn count_error(&self, kind: &str) {
        match self.known_errors.iter().find(|(known, _)| *known == kind) {
            Some((_, counter)) => counter.inc(),
            None => self.errors.with_label_values(&[kind]).inc(),
        }
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and far below the limit")]
const fn bounds() -> [u64; BUCKETS - 1] {
    let mut nanoseconds = [0; BUCKETS - 1];
    let mut index = 0;
    while index < nanoseconds.len() {
        // Rounded: a product of decimals may lie just below the number that is meant.
        nanoseconds[index] = (names::HTTP_REQUEST_DURATION_BUCKETS[index] * 1e9 + 0.5) as u64;
        index += 1;
    }
    nanoseconds
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    fn series(declared: impl IntoIterator<Item = u16>) -> Series {
        let counters = |name: &str, labels: &[&str]| IntCounterVec::new(Opts::new(name, "Help."), labels).unwrap();
        let others = Others {
            requests: counters("requests_total", &["method", "route", "status"]),
            errors: counters("errors_total", &["kind"]),
            known_errors: Arc::new([]),
        };
        Series::new(Subject::new("GET", "/".to_owned(), declared, others), 2)
    }

    #[test]
    fn a_duration_at_a_bound_is_within_it() {
        for (index, bound) in names::HTTP_REQUEST_DURATION_BUCKETS.into_iter().enumerate() {
            let at = Duration::from_secs_f64(bound);
            for (duration, bucket) in [(at, index), (at + Duration::from_nanos(1), index + 1)] {
                let series = series([]);
                series.stripe().record(200, duration, None);
                let mut expected = [0; BUCKETS];
                expected[bucket] = 1;
                assert_eq!(series.totals().buckets, expected, "{duration:?}");
            }
        }
    }

    #[test]
    fn what_threads_record_at_once_adds_up() {
        let series = series([200]);

        std::thread::scope(|scope| {
            for thread in 0..4 {
                let series = &series;
                scope.spawn(move || {
                    for number in 0..10_000 {
                        let status = if number % 4 == thread { 500 } else { 200 };
                        series.stripe().record(status, Duration::from_millis(number % 20), None);
                    }
                });
            }
        });

        let totals = series.totals();
        assert_eq!(totals.statuses, [(200, 30_000), (500, 10_000)]);
        // Of 20 durations, 0 to 5 ms are in the first bucket, and so on.
        assert_eq!(totals.buckets[..4], [12_000, 10_000, 18_000, 0]);
        assert_eq!(totals.duration, Duration::from_millis(4 * 500 * (0..20).sum::<u64>()));
        assert_eq!(totals.in_progress, 0);
    }

    #[test]
    fn declared_statuses_show_from_the_start_and_common_ones_once_they_are_answered() {
        let series = series([418, 200, 418]);
        assert_eq!(series.totals().statuses, [(418, 0), (200, 0)]);

        series.stripe().record(404, Duration::ZERO, None);
        series.stripe().record(299, Duration::ZERO, None);

        let totals = series.totals();
        assert_eq!(totals.statuses, [(418, 0), (200, 0), (404, 1)]);
        assert_eq!(totals.buckets[0], 2, "a status without cells is in the histogram too");
        let others = &series.subject().others.requests;
        assert_eq!(others.with_label_values(&["GET", "/", "299"]).get(), 1);
    }

    #[test]
    fn who_holds_a_stripe_is_in_progress() {
        let series = series([]);

        let held = [series.stripe(), series.stripe()];
        assert_eq!(series.totals().in_progress, 2);
        drop(held);

        assert_eq!(series.totals().in_progress, 0);
    }
}
