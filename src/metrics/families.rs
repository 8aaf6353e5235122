//! The RED families on a registry, and the handles through which one request is recorded.
//!
//! [`Red`] owns the four `http_*`/`api_errors_total` families. It refuses the global registry: the caller hands one
//! in, so every service and every test owns its numbers.

use std::sync::{Arc, OnceLock};

use prometheus::core::Collector;
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::names::{self, METHODS, OTHER_METHOD};
use super::request_id::RequestIds;
use super::routes::RouteTable;

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
    requests: IntCounterVec,
    durations: HistogramVec,
    in_progress: IntGaugeVec,
    errors: IntCounterVec,
    known_errors: Vec<(&'static str, IntCounter)>,
    /// One row a route and one for `unmatched`; one column a method and one for `OTHER`.
    series: Vec<[OnceLock<Arc<Series>>; METHODS.len() + 1]>,
    request_ids: RequestIds,
}

/// One method on one route.
#[derive(Debug)]
pub(super) struct Series {
    pub(super) method: &'static str,
    pub(super) route: String,
    /// `None` for requests that are left out of the metrics.
    handles: Option<Handles>,
}

/// Resolved beforehand, so that recording a request looks nothing up.
#[derive(Debug)]
struct Handles {
    in_progress: IntGauge,
    duration: Histogram,
    known_statuses: Vec<(u16, IntCounter)>,
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
        let durations = HistogramVec::new(
            names::HTTP_REQUEST_DURATION_SECONDS.histogram_opts(&names::HTTP_REQUEST_DURATION_BUCKETS),
            names::HTTP_REQUEST_DURATION_SECONDS.labels,
        )?;
        let in_progress =
            IntGaugeVec::new(names::HTTP_REQUESTS_IN_PROGRESS.opts(), names::HTTP_REQUESTS_IN_PROGRESS.labels)?;
        let errors = IntCounterVec::new(names::API_ERRORS_TOTAL.opts(), names::API_ERRORS_TOTAL.labels)?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(durations.clone()))?;
        registry.register(Box::new(in_progress.clone()))?;
        registry.register(Box::new(errors.clone()))?;

        let mut kinds: Vec<_> = error_types.into_iter().collect();
        if kinds.is_empty() {
            kinds.extend([names::ERROR_UNCLASSIFIED_CLIENT, names::ERROR_UNCLASSIFIED_SERVER]);
        }
        kinds.extend([names::ERROR_CLIENT_CLOSED_REQUEST, names::ERROR_PANIC]);
        let known_errors = kinds.into_iter().map(|kind| (kind, errors.with_label_values(&[kind]))).collect();
        let series = (0..=table.unmatched()).map(|_| std::array::from_fn(|_| OnceLock::new())).collect();
        let families = Families {
            table,
            requests,
            durations,
            in_progress,
            errors,
            known_errors,
            series,
            request_ids: RequestIds::new(),
        };
        families.set_known_series_to_zero();
        Ok(Self(Arc::new(families)))
    }

    /// Finished requests in all: the sum of `http_requests_total` over its labels.
    #[must_use]
    pub fn finished_requests(&self) -> u64 {
        let families = self.0.requests.collect();
        let samples = families.iter().flat_map(prometheus::proto::MetricFamily::get_metric);
        // The crate's protobuf model holds an integer counter as f64: exact up to 2^53 requests.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        samples.map(|sample| sample.get_counter().value() as u64).sum()
    }

    pub(super) fn request_ids(&self) -> &RequestIds {
        &self.0.request_ids
    }

    /// Where a request belongs.
    pub(super) fn series(&self, method: &http::Method, path: &str) -> Arc<Series> {
        Arc::clone(self.0.series(method_index(method), self.0.table.index(path)))
    }

    /// Counts a request as finished: its status, its duration and, from status 400 on, its kind of error.
    pub(super) fn finish(&self, series: &Series, status: u16, seconds: f64, error_type: Option<&'static str>) {
        let Some(handles) = &series.handles else { return };
        handles.in_progress.dec();
        match handles.known_statuses.iter().find(|(known, _)| *known == status) {
            Some((_, counter)) => counter.inc(),
            None => self.0.requests(series.method, &series.route, status).inc(),
        }
        handles.duration.observe(seconds);
        if let Some(kind) = error_type {
            match self.0.known_errors.iter().find(|(known, _)| *known == kind) {
                Some((_, counter)) => counter.inc(),
                None => self.0.errors.with_label_values(&[kind]).inc(),
            }
        }
    }
}

impl Families {
    fn set_known_series_to_zero(&self) {
        for (index, route) in self.table.routes().iter().enumerate() {
            for (method, _) in &route.answers {
                self.series(method_index(method), index);
            }
        }
        // A path outside the table is answered 404, whatever the method.
        for method in METHODS.iter().copied().chain([OTHER_METHOD]) {
            self.requests(method, names::UNMATCHED, 404);
        }
    }

    fn requests(&self, method: &str, route: &str, status: u16) -> IntCounter {
        self.requests.with_label_values(&[method, route, status.to_string().as_str()])
    }

    fn series(&self, method: usize, route: usize) -> &Arc<Series> {
        self.series[route][method].get_or_init(|| {
            let known = self.table.routes().get(route);
            let (method, route) = (method_label(method), self.table.label(route));
            let unrecorded = known.is_some_and(|known| known.unrecorded.iter().any(|left_out| left_out == method));
            let handles = (!unrecorded).then(|| {
                let answers = known.into_iter().flat_map(|known| &known.answers);
                let statuses = answers
                    .filter(|(answered, _)| answered == method)
                    .flat_map(|(_, statuses)| statuses.iter().copied().chain([names::CLIENT_CLOSED_REQUEST]));
                Handles {
                    in_progress: self.in_progress.with_label_values(&[method, route]),
                    duration: self.durations.with_label_values(&[method, route]),
                    known_statuses: statuses.map(|status| (status, self.requests(method, route, status))).collect(),
                }
            });
            Arc::new(Series { method, route: route.to_owned(), handles })
        })
    }
}

impl Series {
    /// Counts a request as in progress, until [`Red::finish`].
    pub(super) fn start(&self) {
        if let Some(handles) = &self.handles {
            handles.in_progress.inc();
        }
    }
}

fn method_index(method: &http::Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len())
}

fn method_label(index: usize) -> &'static str {
    METHODS.get(index).copied().unwrap_or(OTHER_METHOD)
}
