//! The users API: a warp service, and a customer of [`metrics`](crate::metrics).
//!
//! [`routes`] is the HTTP surface on one page; [`surface`] is the table it follows. Handlers touch their parsed input
//! and [`App`], nothing else: no registry, no headers they did not ask for, no clock.
//!
//! A failure is a reply, and no filter here rejects: the service cannot fail, and every request has one response to be
//! recorded.

pub mod openapi;
pub mod problem;
pub mod surface;

mod diagnostics;
mod docs;
mod health;
mod input;
mod legacy;
mod users;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use warp::Filter;
use warp::path::FullPath;
use warp::reply::Response;

use crate::metrics::{Exposition, ServiceMetrics, accepts_gzip};
use crate::store::UserStore;
use input::Declared;
use problem::{ApiError, Panicked};
use surface::{Endpoint, Operation, Routing};

pub use diagnostics::Delays;
pub use problem::HostFault;

/// Listings of all users that are sent at once. Each holds one chunk of users for as long as its client reads.
const LISTINGS_MAX: usize = 64;

/// What the service allows a request to take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests handled at once; more are answered 503. The probes and the scrape are not limited.
    pub max_in_flight: usize,
    /// Deadline of a request, until the head of its response is ready. It runs from where the handler first waits.
    pub request_timeout: Duration,
}

/// What the handlers work with. A cheap handle; clones share everything.
#[derive(Clone)]
pub struct App(Arc<Parts>);

struct Parts {
    /// Empty while the service starts.
    store: OnceLock<UserStore>,
    draining: AtomicBool,
    limits: Limits,
    in_flight: Semaphore,
    listings: Arc<Semaphore>,
    metrics: ServiceMetrics,
    exposition: Exposition,
    delays: Delays,
    docs: docs::Docs,
    routing: Routing,
}

impl App {
    /// A service that is starting: it answers its probes, and 503 where it needs the store.
    #[must_use]
    pub fn starting(limits: Limits, metrics: ServiceMetrics, exposition: Exposition, delays: Delays) -> Self {
        Self(Arc::new(Parts {
            store: OnceLock::new(),
            draining: AtomicBool::new(false),
            limits,
            in_flight: Semaphore::new(limits.max_in_flight),
            listings: Arc::new(Semaphore::new(LISTINGS_MAX)),
            metrics,
            exposition,
            delays,
            docs: docs::Docs::new(),
            routing: Routing::default(),
        }))
    }

    /// Hands over the open store: from now on the service is ready. A second store is ignored.
    pub fn started(&self, store: UserStore) {
        let _ = self.0.store.set(store);
    }

    /// From now on the service is not ready; it still answers everything.
    pub fn drain(&self) {
        self.0.draining.store(true, Ordering::Relaxed);
    }

    fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Relaxed)
    }

    fn store(&self) -> Result<&UserStore, ApiError> {
        self.0.store.get().ok_or(ApiError::Starting)
    }

    /// The right to send a listing of all users; it outlives the request's head.
    fn listing_permit(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.0.listings).try_acquire_owned().map_err(|_| ApiError::Overloaded)
    }

    fn metrics(&self) -> &ServiceMetrics {
        &self.0.metrics
    }

    fn delays(&self) -> &Delays {
        &self.0.delays
    }

    fn docs(&self) -> &docs::Docs {
        &self.0.docs
    }

    /// Runs an operation's handler within the limits; whatever comes of it is a response.
    async fn answer(
        &self,
        operation: &Operation,
        handler: impl Future<Output = Result<Response, ApiError>>,
    ) -> Response {
        let _permit = match self.permit(operation) {
            Ok(permit) => permit,
            Err(error) => return error.into_response(),
        };
        let deadline = self.0.limits.request_timeout;
        // Unwind safe: a handler that panicked is not polled again, and what it shares is atomic or behind locks that
        // say whether they are poisoned.
        let mut handler = pin!(AssertUnwindSafe(handler).catch_unwind());
        // A handler that need not wait needs no timer: setting one up takes longer than many a handler does.
        let outcome = match poll_fn(|context| Poll::Ready(handler.as_mut().poll(context))).await {
            Poll::Ready(outcome) => Ok(outcome),
            Poll::Pending => tokio::time::timeout(deadline, handler).await,
        };
        let outcome = match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(ApiError::Panic(Panicked(panic_message(panic.as_ref())))),
            Err(_) => Err(ApiError::Timeout(deadline)),
        };
        outcome.unwrap_or_else(ApiError::into_response)
    }

    /// The right to be handled, while there is room. The probes and the scrape get through under overload too.
    fn permit(&self, operation: &Operation) -> Result<Option<SemaphorePermit<'_>>, ApiError> {
        match operation.endpoint {
            Endpoint::Health | Endpoint::Ready | Endpoint::Metrics => Ok(None),
            _ => self.0.in_flight.try_acquire().map(Some).map_err(|_| ApiError::Overloaded),
        }
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// The whole service: an answer for every operation of [`surface::OPERATIONS`], and for everything else.
///
/// One filter takes a request apart, and `handle` picks its handler. A filter for each operation, joined by `or`, reads
/// as well, but warp clones and polls its way through all that stand before the right one: a tenth of the time of a
/// whole request here.
#[must_use]
pub fn routes(app: App) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let host_fault = warp::ext::optional::<HostFault>();
    let parts = warp::method().and(warp::path::full()).and(query()).and(warp::header::headers_cloned()).and(body());
    parts.and(host_fault).then(
        move |method, path: FullPath, query: String, headers, body, host_fault: Option<HostFault>| {
            let app = app.clone();
            async move {
                if let Some(fault) = host_fault {
                    return ApiError::InvalidHost(fault).into_response();
                }
                match app.0.routing.operation(&method, path.as_str()) {
                    Ok(operation) => {
                        app.answer(operation, handle(&app, operation, &path, &query, &headers, body)).await
                    }
                    Err(error) => error.into_response(),
                }
            }
        },
    )
}

/// Gives an operation's handler what it reads of a request.
async fn handle(
    app: &App,
    operation: &Operation,
    path: &FullPath,
    query: &str,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Response, ApiError> {
    let parameter = operation.parameter(path.as_str());
    match operation.endpoint {
        Endpoint::ListUsers => users::list(app, query).await,
        Endpoint::CreateUser => users::create(app, query, &json_body(headers, body).await?).await,
        Endpoint::GetUser => users::get(app, parameter).await,
        Endpoint::UpdateUser => users::update(app, parameter, query, &json_body(headers, body).await?).await,
        Endpoint::DeleteUser => users::delete(app, parameter).await,
        Endpoint::Health => health::health().await,
        Endpoint::Ready => health::ready(app).await,
        Endpoint::Metrics => Ok(app.0.exposition.reply(accept_encoding(headers)).await?),
        Endpoint::Slow => diagnostics::slow(app).await,
        Endpoint::Error => diagnostics::error().await,
        Endpoint::Update => legacy::update(app, query).await,
        Endpoint::Cpu => legacy::cpu(app, query).await,
        Endpoint::Openapi => docs::openapi_json(app).await,
        Endpoint::Docs => docs::swagger_ui(app).await,
        Endpoint::DocsFile => {
            docs::swagger_file(app, parameter, accept_encoding(headers).is_some_and(accepts_gzip)).await
        }
        Endpoint::Landing => docs::landing().await,
    }
}

/// The raw query string, empty when there is none.
fn query() -> impl Filter<Extract = (String,), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::query::raw().or(warp::any().map(String::new)).unify()
}

/// The request's body, not read yet.
fn body() -> impl Filter<Extract = (impl Stream<Item = Result<impl Buf, warp::Error>> + Send,), Error = Infallible>
+ Clone
+ Send
+ Sync
+ 'static {
    let not_taken_before = warp::body::stream().map(Some).or(warp::any().map(|| None)).unify();
    not_taken_before.map(|body| stream::iter(body).flatten())
}

/// A header that is no text counts as absent.
fn accept_encoding(headers: &HeaderMap) -> Option<&str> {
    headers.get(ACCEPT_ENCODING)?.to_str().ok()
}

/// Reads a body with what the headers declare about it.
async fn json_body(
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
) -> Result<Vec<u8>, ApiError> {
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let declared =
        Declared { content_type: headers.get(CONTENT_TYPE).cloned(), length, waits: headers.contains_key(EXPECT) };
    input::read_json_body(body, declared).await
}

/// A JSON response.
fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("strings and numbers always serialise");
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use prometheus::Registry;
    use serde_json::Value;

    use super::*;
    use crate::metrics::{BuildInfo, Red};

    fn starting(limits: Limits) -> (App, Red) {
        let registry = Registry::new();
        let red = Red::register(&registry, surface::route_table()).unwrap();
        let build = BuildInfo { version: "test", revision: "test", rustc: "test" };
        let metrics = ServiceMetrics::register(&registry, &red, build).unwrap();
        (App::starting(limits, metrics, Exposition::new(registry), Delays::seeded(1)), red)
    }

    fn limits() -> Limits {
        Limits { max_in_flight: 10, request_timeout: Duration::from_secs(10) }
    }

    /// The status, and the kind of error that the problem document names.
    async fn ask(
        service: &(impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static),
        path: &str,
    ) -> (u16, String) {
        let response = warp::test::request().path(path).reply(service).await;
        let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        let kind = body["type"].as_str().unwrap_or_default().trim_start_matches("/#").to_owned();
        (response.status().as_u16(), kind)
    }

    fn failure(status: u16, kind: &str) -> (u16, String) {
        (status, kind.to_owned())
    }

    #[tokio::test]
    async fn a_service_that_is_starting_answers_what_needs_no_store() {
        let (app, _) = starting(limits());
        let service = routes(app.clone());

        for path in ["/health", "/metrics", "/openapi.json", "/"] {
            assert_eq!(ask(&service, path).await.0, 200, "{path}");
        }
        for path in ["/ready", "/api/users", "/api/users/1"] {
            assert_eq!(ask(&service, path).await, failure(503, "starting"), "{path}");
        }

        let store = UserStore::open(&"sqlite::memory:".parse().unwrap(), Arc::new(|_| ())).await.unwrap();
        app.started(store);

        assert_eq!(ask(&service, "/ready").await.0, 200);
        assert_eq!(ask(&service, "/api/users").await.0, 200);
    }

    #[tokio::test]
    async fn a_store_that_is_closed_makes_the_service_unready() {
        let (app, _) = starting(limits());
        let store = UserStore::open(&"sqlite::memory:".parse().unwrap(), Arc::new(|_| ())).await.unwrap();
        app.started(store.clone());
        let service = routes(app);

        store.close().await;

        assert_eq!(ask(&service, "/ready").await, failure(503, "store_unavailable"));
        assert_eq!(ask(&service, "/health").await.0, 200, "liveness asks no dependency");
    }

    #[tokio::test]
    async fn listings_that_are_being_sent_are_limited_until_they_end() {
        let (app, _) = starting(limits());
        app.started(UserStore::open(&"sqlite::memory:".parse().unwrap(), Arc::new(|_| ())).await.unwrap());
        let list = async || users::list(&app, "").await;
        let mut being_sent = Vec::new();
        for _ in 0..LISTINGS_MAX {
            being_sent.push(list().await.unwrap());
        }

        assert!(matches!(list().await, Err(ApiError::Overloaded)));
        assert!(users::list(&app, "limit=1").await.is_ok(), "a page is no such listing");

        being_sent.pop();
        assert!(list().await.is_ok());
    }

    #[tokio::test]
    async fn a_panic_in_a_handler_is_a_500_and_the_next_request_is_answered() {
        let (app, red) = starting(limits());
        let panicking = warp::path("panic").then({
            let app = app.clone();
            move || {
                let app = app.clone();
                async move { app.answer(&surface::ERROR, async { panic!("boom") }).await }
            }
        });
        let service = red.instrument(panicking.or(routes(app)).unify());

        assert_eq!(ask(&service, "/panic").await, failure(500, "panic"));

        assert_eq!(ask(&service, "/health").await.0, 200);
        assert_eq!(red.finished_requests(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_past_its_deadline_is_a_504() {
        let (app, _) = starting(Limits { request_timeout: Duration::from_secs(1), ..limits() });

        assert_eq!(ask(&routes(app), "/api/slow").await, failure(504, "timeout"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_service_turns_requests_away_and_still_answers_its_probes() {
        let (app, _) = starting(Limits { max_in_flight: 1, ..limits() });
        let service = routes(app);

        let (slow, turned_away, health, metrics) = tokio::join!(
            ask(&service, "/api/slow"),
            ask(&service, "/api/error"),
            ask(&service, "/health"),
            ask(&service, "/metrics")
        );

        assert_eq!(slow.0, 200);
        assert_eq!(turned_away, failure(503, "overloaded"));
        assert_eq!((health.0, metrics.0), (200, 200));
        assert_eq!(ask(&service, "/api/error").await, failure(500, "simulated"), "there is room again");
    }
}
