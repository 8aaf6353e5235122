//! The RED families on a registry, and the handles through which one request is recorded.
//!
//! [`Red`] owns the four `http_*`/`api_errors_total` families. It refuses the global registry: the caller hands one
//! in, so every service and every test owns its numbers.

use std::sync::{Arc, OnceLock};
use std::thread::available_parallelism;

use prometheus::{IntCounterVec, Registry};

use super::collected::Collected;
use super::names::{self, METHODS, OTHER_METHOD};
use super::observation::Observation;
use super::routes::RouteTable;
use super::series::{Others, Series, Subject, Totals};

/// Stripes of a series at most; threads beyond share them.
const STRIPES_MAX: usize = 16;

/// A path outside the table is answered so, whatever the method.
pub(super) const UNMATCHED_STATUS: u16 = 404;

/// Rate, errors and duration of an HTTP service.
///
/// A cheap handle: clones record into the same families. Order of use: build a [`RouteTable`], register, wrap the
/// service with [`Red::instrument`], expose the registry with [`exposition`](super::exposition()).
///
/// ```
/// use api_monitoring::metrics::{Red, RouteTable, exposition};
/// use prometheus::Registry;
/// use warp::Filter;
///
/// let registry = Registry::new();
/// let red = Red::register(&registry, RouteTable::new(["/hello/{name}"])?)?;
///
/// let hello = warp::path!("hello" / String).map(|name| format!("Hello, {name}!"));
/// // Every request must end in a response before it can be measured: `recover` turns rejections into one.
/// let service = red.instrument(hello.recover(|_| async {
///     Ok::<_, std::convert::Infallible>(warp::http::StatusCode::NOT_FOUND)
/// }));
/// let all = exposition(registry).or(service);
/// # drop(all);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Red(Arc<Families>);

#[derive(Debug)]
struct Families {
    table: RouteTable,
    /// One row a route and one for `unmatched`; one column a method and one for `OTHER`.
    series: Vec<[OnceLock<Series>; METHODS.len() + 1]>,
    /// How many threads are expected to record at once.
    stripes: usize,
    others: Others,
}

impl Red {
    /// Registers the families and sets every series that is known beforehand to 0.
    ///
    /// Series at most, with R routes: (R + 1) × 10 methods × the statuses that the service answers, and the same
    /// without statuses for duration and in-progress.
    ///
    /// # Errors
    ///
    /// When the registry already holds one of the families.
    pub fn register(registry: &Registry, table: RouteTable) -> prometheus::Result<Self> {
        Self::register_with_errors(registry, table, [])
    }

    /// The same, with the closed set of kinds of error that the service attaches to its responses
    /// ([`Failure`](super::Failure)): their series exist at 0 from the start too. A service that leaves some failures
    /// unnamed adds [`names::ERROR_UNCLASSIFIED_CLIENT`] and [`names::ERROR_UNCLASSIFIED_SERVER`].
    ///
    /// # Errors
    ///
    /// As [`Red::register`].
    pub fn register_with_errors(
        registry: &Registry,
        table: RouteTable,
        error_types: impl IntoIterator<Item = &'static str>,
    ) -> prometheus::Result<Self> {
        let requests = IntCounterVec::new(names::HTTP_REQUESTS_TOTAL.opts(), names::HTTP_REQUESTS_TOTAL.labels)?;
        let errors = IntCounterVec::new(names::API_ERRORS_TOTAL.opts(), names::API_ERRORS_TOTAL.labels)?;
        let mut kinds: Vec<_> = error_types.into_iter().collect();
        if kinds.is_empty() {
            kinds.extend([names::ERROR_UNCLASSIFIED_CLIENT, names::ERROR_UNCLASSIFIED_SERVER]);
        }
        kinds.extend([names::ERROR_CLIENT_CLOSED_REQUEST, names::ERROR_PANIC]);
        let known_errors = kinds.into_iter().map(|kind| (kind, errors.with_label_values(&[kind]))).collect();

        let families = Families {
            series: (0..=table.unmatched()).map(|_| std::array::from_fn(|_| OnceLock::new())).collect(),
            table,
            stripes: available_parallelism().map_or(1, usize::from).min(STRIPES_MAX),
            others: Others { requests, errors: errors.clone(), known_errors },
        };
        families.set_known_series_to_zero();
        let red = Self(Arc::new(families));
        registry.register(Box::new(Collected::new(red.clone())?))?;
        registry.register(Box::new(errors))?;
        Ok(red)
    }

    /// Begins to observe a request; [`Observation::finish`] is to be told how it ended. For servers that
    /// [`Red::instrument`] does not fit: that wraps a warp service in just this.
    pub fn observe(&self, method: &http::Method, path: &str) -> Observation {
        Observation::start(self.0.series(method_index(method), self.0.table.index(path)).stripe())
    }

    /// Finished requests in all: the sum of `http_requests_total` over its labels.
    #[must_use]
    pub fn finished_requests(&self) -> u64 {
        self.recorded().flat_map(|(_, totals)| totals.buckets).sum()
    }

    /// The series that are part of the metrics, with what they came to.
    pub(super) fn recorded(&self) -> impl Iterator<Item = (&Subject, Totals)> {
        let series = self.0.series.iter().flatten().filter_map(OnceLock::get);
        series.filter(|series| series.subject().recorded).map(|series| (series.subject(), series.totals()))
    }

    /// Requests with a status that nobody could know beforehand.
    pub(super) fn with_other_statuses(&self) -> &IntCounterVec {
        &self.0.others.requests
    }
}

impl Families {
    fn set_known_series_to_zero(&self) {
        for (index, route) in self.table.routes().iter().enumerate() {
            for (method, _) in &route.answers {
                self.series(method_index(method), index);
            }
        }
    }

    fn series(&self, method: usize, route: usize) -> &Series {
        self.series[route][method].get_or_init(|| {
            let known = self.table.routes().get(route);
            let (method, template) = (method_label(method), self.table.label(route).to_owned());
            let others = self.others.clone();
            let subject = match known {
                Some(known) if known.unrecorded.iter().any(|left_out| left_out == method) => {
                    Subject::unrecorded(method, template, others)
                }
                Some(known) => {
                    let answers = known.answers.iter().filter(|(answered, _)| answered == method);
                    let statuses = answers
                        .flat_map(|(_, statuses)| statuses.iter().copied().chain([names::CLIENT_CLOSED_REQUEST]));
                    Subject::new(method, template, statuses, others)
                }
                None => Subject::new(method, template, [UNMATCHED_STATUS], others),
            };
            Series::new(subject, self.stripes)
        })
    }
}

fn method_index(method: &http::Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len())
}

fn method_label(index: usize) -> &'static str {
    METHODS.get(index).copied().unwrap_or(OTHER_METHOD)
}
