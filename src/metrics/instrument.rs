//! The warp wrapper: an [`Observation`] around each request, its id, and its line in the log.
//!
//! It refuses services that can still reject: a rejection has no status yet, so it could not be recorded.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use warp::Filter;
use warp::path::FullPath;
use warp::reply::{Reply, Response};

use super::families::Red;
use super::observation::{Ended, Observation};
use super::request_id::{HEADER, Offered, RequestId};

/// Attached by a service to a failed response (as an extension), to name the kind of failure.
///
/// ```
/// use api_monitoring::metrics::Failure;
/// use warp::{Reply, http::StatusCode};
///
/// let mut response = StatusCode::CONFLICT.into_response();
/// response.extensions_mut().insert(Failure { error_type: "name_taken", cause: None });
/// ```
#[derive(Debug, Clone)]
pub struct Failure {
    /// The `error_type` label: a word from a closed set, never user text.
    pub error_type: &'static str,
    /// For the log only: the chain of causes, outermost first.
    pub cause: Option<Arc<str>>,
}

/// Attached by a service to a response (as an extension): how long it waited for its client, such as for the rest of the
/// request's body. That is no work of the service's, and no part of the duration.
#[derive(Debug, Clone, Copy)]
pub struct Waited(pub Duration);

impl Red {
    /// Wraps a service: every request is counted, timed, given an `X-Request-Id` and logged in one line.
    ///
    /// The duration runs from the request's head until the response's head is ready, less what the service says that it
    /// [waited](Waited) for its client; a body that is streamed afterwards is not part of it. A request whose client goes away before that is recorded with status 499, one
    /// whose handler unwinds with status 500. Nothing here waits or blocks.
    ///
    /// warp's path filters panic on a request without any path (`CONNECT host:port`), before this wrapper sees it: a
    /// server that is reached directly should give such requests a path, as this project's does.
    ///
    /// The log line is a `tracing` event of level info and target `http_request`.
    pub fn instrument<F, R>(
        &self,
        service: F,
    ) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static
    where
        F: Filter<Extract = (R,), Error = Infallible> + Clone + Send + Sync + 'static,
        R: Reply + 'static,
    {
        let red = self.clone();
        warp::method()
            .and(warp::path::full())
            .and(offered_request_id())
            .map(move |method, path: FullPath, Offered(id)| Exchange::start(&red, &method, path.as_str(), id))
            .and(service)
            .map(|exchange: Exchange, reply: R| exchange.finish(reply.into_response()))
    }
}

/// The caller's request id, if there is a sane one.
fn offered_request_id() -> impl Filter<Extract = (Offered,), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::header::optional::<Offered>(HEADER)
        .map(|offered: Option<Offered>| offered.unwrap_or(Offered(None)))
        // The only rejection left is a header that is no text.
        .or(warp::any().map(|| Offered(None)))
        .unify()
}

/// A request with its id, under observation. Ends by [`Exchange::finish`], or by being dropped.
struct Exchange {
    observation: Observation,
    id: RequestId,
}

impl Exchange {
    fn start(red: &Red, method: &http::Method, path: &str, id: Option<RequestId>) -> Self {
        let observation = red.observe(method, path);
        Self { observation, id: id.unwrap_or_else(RequestId::new) }
    }

    fn finish(mut self, mut response: Response) -> Response {
        if let Some(Waited(waited)) = response.extensions_mut().remove() {
            self.observation.leave_out(waited);
        }
        let failure = response.extensions_mut().remove::<Failure>();
        let kind = failure.as_ref().map(|failure| failure.error_type);
        let cause = failure.as_ref().and_then(|failure| failure.cause.as_deref());
        if let Some(ended) = self.observation.end(response.status().as_u16(), kind) {
            self.log(&ended, cause);
        }
        response.headers_mut().insert(HEADER, self.id.take());
        response
    }

    fn log(&self, ended: &Ended, cause: Option<&str>) {
        let (method, route, request_id) = (ended.subject().method, ended.subject().route.as_str(), self.id.as_str());
        let status = ended.status;
        // Whole microseconds: more digits would only be noise to read.
        let latency_ms = (ended.duration.as_secs_f64() * 1e6).round() / 1e3;
        tracing::info!(target: "http_request", method, route, status, latency_ms, request_id, "request");
        match cause {
            Some(cause) if status >= 500 => {
                tracing::error!(target: "http_request", method, route, status, request_id, cause, "request failed");
            }
            // A fault of the client's is no error of ours.
            Some(cause) => {
                tracing::debug!(target: "http_request", method, route, status, request_id, cause, "request refused");
            }
            None => {}
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(ended) = self.observation.give_up() {
            self.log(&ended, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::AssertUnwindSafe;

    use futures_util::FutureExt;
    use http::StatusCode;
    use prometheus::Registry;

    use super::super::routes::{Route, RouteTable};
    use super::*;

    /// Everything that a registry holds, as `name{label="value"} → sample` lines without histogram buckets.
    fn samples(registry: &Registry) -> Vec<String> {
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        text.lines().filter(|line| !line.starts_with('#') && !line.contains("_bucket")).map(str::to_owned).collect()
    }

    fn assert_sample(registry: &Registry, expected: &str) {
        let samples = samples(registry);
        assert!(samples.iter().any(|sample| sample == expected), "no {expected:?} in {samples:#?}");
    }

    fn red(registry: &Registry) -> Red {
        let table = RouteTable::new([Route::new("/work").answers(http::Method::GET, [200])]).unwrap();
        Red::register_with_errors(registry, table, ["teapot"]).unwrap()
    }

    fn answering(status: u16) -> impl Filter<Extract = (StatusCode,), Error = Infallible> + Clone {
        warp::any().map(move || StatusCode::from_u16(status).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_is_counted_once_with_its_duration() {
        let registry = Registry::new();
        let slow = warp::any().then(|| async {
            tokio::time::sleep(Duration::from_millis(1500)).await;
            "done"
        });
        let service = red(&registry).instrument(slow);

        warp::test::request().path("/work").reply(&service).await;

        assert_sample(&registry, r#"http_requests_total{method="GET",route="/work",status="200"} 1"#);
        assert_sample(&registry, r#"http_request_duration_seconds_sum{method="GET",route="/work"} 1.5"#);
        assert_sample(&registry, r#"http_request_duration_seconds_count{method="GET",route="/work"} 1"#);
        assert_sample(&registry, r#"http_requests_in_progress{method="GET",route="/work"} 0"#);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_response_says_that_was_waited_is_left_out_of_the_duration() {
        let registry = Registry::new();
        let waiting = warp::any().then(|| async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let mut response = StatusCode::OK.into_response();
            response.extensions_mut().insert(Waited(Duration::from_secs(2)));
            response
        });

        warp::test::request().path("/work").reply(&red(&registry).instrument(waiting)).await;

        assert_sample(&registry, r#"http_request_duration_seconds_sum{method="GET",route="/work"} 1"#);
    }

    #[tokio::test]
    async fn a_request_is_in_progress_until_its_response_and_499_when_it_is_dropped() {
        let registry = Registry::new();
        let service = red(&registry).instrument(warp::any().then(std::future::pending::<&str>));
        let mut request = Box::pin(warp::test::request().path("/work").reply(&service));

        assert!(request.as_mut().now_or_never().is_none());
        assert_sample(&registry, r#"http_requests_in_progress{method="GET",route="/work"} 1"#);
        drop(request);

        assert_sample(&registry, r#"http_requests_in_progress{method="GET",route="/work"} 0"#);
        assert_sample(&registry, r#"http_requests_total{method="GET",route="/work",status="499"} 1"#);
        assert_sample(&registry, r#"api_errors_total{error_type="client_closed_request"} 1"#);
    }

    #[tokio::test]
    async fn a_panic_is_recorded_as_500_and_ends_the_in_progress_count() {
        let registry = Registry::new();
        let panicking = warp::any().then(|| async { if true { panic!("boom") } else { "never" } });
        let service = red(&registry).instrument(panicking);

        let outcome = AssertUnwindSafe(warp::test::request().path("/work").reply(&service)).catch_unwind().await;

        assert!(outcome.is_err());
        assert_sample(&registry, r#"http_requests_in_progress{method="GET",route="/work"} 0"#);
        assert_sample(&registry, r#"http_requests_total{method="GET",route="/work",status="500"} 1"#);
        assert_sample(&registry, r#"api_errors_total{error_type="panic"} 1"#);
    }

    #[tokio::test]
    async fn known_series_exist_at_zero_before_the_first_request() {
        let registry = Registry::new();
        red(&registry);

        for expected in [
            r#"http_requests_total{method="GET",route="/work",status="200"} 0"#,
            r#"http_requests_total{method="GET",route="/work",status="499"} 0"#,
            r#"http_requests_total{method="OTHER",route="unmatched",status="404"} 0"#,
            r#"http_request_duration_seconds_count{method="GET",route="/work"} 0"#,
            r#"http_requests_in_progress{method="GET",route="/work"} 0"#,
            r#"api_errors_total{error_type="teapot"} 0"#,
            r#"api_errors_total{error_type="client_closed_request"} 0"#,
        ] {
            assert_sample(&registry, expected);
        }
    }

    #[tokio::test]
    async fn a_service_that_names_no_kinds_of_error_has_two_at_zero() {
        let registry = Registry::new();
        Red::register(&registry, RouteTable::new(["/work"]).unwrap()).unwrap();

        assert_sample(&registry, r#"api_errors_total{error_type="unclassified_client_error"} 0"#);
        assert_sample(&registry, r#"api_errors_total{error_type="unclassified_server_error"} 0"#);
    }

    #[tokio::test]
    async fn whatever_clients_send_the_labels_stay_in_their_sets() {
        let registry = Registry::new();
        let service = red(&registry).instrument(answering(404));

        for path in ["/a", "/b", "/work//", "/%ff"] {
            for method in ["FOO", "BREW", "get"] {
                warp::test::request().method(method).path(path).reply(&service).await;
            }
        }

        assert_sample(&registry, r#"http_requests_total{method="OTHER",route="unmatched",status="404"} 12"#);
        let others = samples(&registry).iter().filter(|sample| sample.contains("OTHER")).count();
        assert_eq!(others, 4, "one counter, one gauge, and a histogram's sum and count");
    }

    #[tokio::test]
    async fn every_failed_response_counts_one_error_of_its_kind() {
        let registry = Registry::new();
        let red = red(&registry);
        let named = warp::any().map(|| {
            let mut response = StatusCode::IM_A_TEAPOT.into_response();
            response.extensions_mut().insert(Failure { error_type: "teapot", cause: None });
            response
        });

        warp::test::request().path("/work").reply(&red.instrument(named)).await;
        warp::test::request().path("/work").reply(&red.instrument(answering(403))).await;
        warp::test::request().path("/work").reply(&red.instrument(answering(502))).await;
        warp::test::request().path("/work").reply(&red.instrument(answering(302))).await;

        assert_sample(&registry, r#"api_errors_total{error_type="teapot"} 1"#);
        assert_sample(&registry, r#"api_errors_total{error_type="unclassified_client_error"} 1"#);
        assert_sample(&registry, r#"api_errors_total{error_type="unclassified_server_error"} 1"#);
        assert_eq!(red.finished_requests(), 4);
    }

    #[tokio::test]
    async fn an_unrecorded_route_is_answered_with_an_id_and_leaves_no_trace() {
        let registry = Registry::new();
        let table = RouteTable::new([Route::new("/metrics").unrecorded(http::Method::GET)]).unwrap();
        let service = Red::register(&registry, table).unwrap().instrument(answering(200));
        let before = samples(&registry);

        let response = warp::test::request().path("/metrics").reply(&service).await;

        assert!(response.headers().contains_key(HEADER));
        assert_eq!(samples(&registry), before);
    }

    #[tokio::test]
    async fn the_callers_request_id_comes_back_and_an_insane_one_is_replaced() {
        let service = red(&Registry::new()).instrument(answering(200));
        let id_for = async |offered: &[u8]| {
            let offered = http::HeaderValue::from_bytes(offered).unwrap();
            let response = warp::test::request().header(HEADER, offered).reply(&service).await;
            response.headers()[HEADER].to_str().unwrap().to_owned()
        };

        assert_eq!(id_for(b"abc-123").await, "abc-123");
        assert_ne!(id_for(b"a b").await, "a b");
        assert!(!id_for(b"\xff\xfe").await.is_empty());
    }
}
