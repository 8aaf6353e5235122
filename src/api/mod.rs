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

mod body;
mod diagnostics;
mod docs;
mod health;
mod input;
mod legacy;
mod uploads;
mod users;

use std::borrow::Cow;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use bytes::Buf;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use http::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;
use warp::Filter;
use warp::path::FullPath;
use warp::reply::Response;

use crate::metrics::{Exposition, ServiceMetrics, Waited};
use crate::store::UserStore;
use body::Declared;
use problem::{ApiError, Panicked};
use surface::{Endpoint, Operation, Routing};
use uploads::Uploads;

pub use diagnostics::Delays;
pub use problem::HostFault;

/// Listings of all users that are sent at once. Each holds one chunk of users for as long as its client reads.
const LISTINGS_MAX: usize = 64;

/// What the service allows a request to take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests handled at once; more are answered 503. The probes and the scrape are not limited, and a request whose
    /// body is still coming is not handled yet.
    pub max_in_flight: usize,
    /// Deadline of a body to be whole, and then, once more, of the handler until the head of its response is ready. Each
    /// runs from where its work first waits, so a request may take twice as long.
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
    uploads: Uploads,
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
            uploads: Uploads::default(),
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

    /// Reads the body of a request, and tells how long the client was waited for.
    async fn body(
        &self,
        headers: &HeaderMap,
        body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    ) -> (Result<Vec<u8>, ApiError>, Duration) {
        let (declared, mut body) = (Declared::by(headers), pin!(body));
        let reading = body::read_json(body.as_mut(), &declared);
        let (read, waited) = self.0.uploads.wait(self.0.limits.request_timeout, reading).await;
        if !matches!(read, Err(ApiError::BodyTooLarge)) {
            return (read, waited);
        }
        let started = Instant::now();
        body::discard(body, &declared).await;
        (read, waited + started.elapsed())
    }

    /// Runs an operation's handler within the limits.
    async fn within_limits(
        &self,
        operation: &Operation,
        handler: impl Future<Output = Result<Response, ApiError>>,
    ) -> Result<Response, ApiError> {
        let _permit = self.permit(operation)?;
        let deadline = self.0.limits.request_timeout;
        let mut handler = pin!(handler);
        // A handler that need not wait needs no timer: setting one up takes longer than many a handler does.
        match poll_once(handler.as_mut()).await {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => tokio::time::timeout(deadline, handler).await.unwrap_or(Err(ApiError::Timeout(deadline))),
        }
    }

    /// The right to be handled, while there is room. The probes and the scrape get through under overload too.
    fn permit(&self, operation: &Operation) -> Result<Option<SemaphorePermit<'_>>, ApiError> {
        match operation.endpoint {
            Endpoint::Health | Endpoint::Ready | Endpoint::Metrics => Ok(None),
            _ => self.0.in_flight.try_acquire().map(Some).map_err(|_| ApiError::Overloaded),
        }
    }
}

/// Polls a future a first time.
async fn poll_once<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|context| Poll::Ready(future.as_mut().poll(context))).await
}

/// Makes a response of whatever comes of a request, a panic included.
async fn respond(work: impl Future<Output = Result<Response, ApiError>>) -> Response {
    // Unwind safe: what panicked is not polled again, and what it shares is atomic or behind locks that say whether they
    // are poisoned.
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    let outcome = outcome.unwrap_or_else(|panic| Err(ApiError::Panic(Panicked(panic_message(panic.as_ref())))));
    let mut response = outcome.unwrap_or_else(ApiError::into_response);
    // Whatever is no document is true for this moment only. Without a word, caches may even keep a 404 (RFC 9110,
    // section 15.1).
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// The whole service: an answer for every operation of [`surface::OPERATIONS`], and for everything else.
///
/// One filter takes a request apart, and `handle` picks its handler. A filter for each operation, joined by `or`, reads
/// as well, but warp clones and polls its way through all that stand before the right one.
#[must_use]
pub fn routes(app: App) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let host_fault = warp::ext::optional::<HostFault>();
    let parts = warp::method().and(warp::path::full()).and(query()).and(warp::header::headers_cloned()).and(body());
    parts.and(host_fault).then(
        move |method, path: FullPath, query: String, headers, body, host_fault: Option<HostFault>| {
            let app = app.clone();
            async move {
                let mut waited = Duration::ZERO;
                let work = async {
                    match host_fault {
                        Some(fault) => Err(ApiError::InvalidHost(fault)),
                        None => answer(&app, &method, path.as_str(), &query, &headers, body, &mut waited).await,
                    }
                };
                let mut response = respond(work).await;
                if !waited.is_zero() {
                    response.extensions_mut().insert(Waited(waited));
                }
                response
            }
        },
    )
}

/// Reads what an operation takes of a request, and then has it handled. The body is read first: a request whose client
/// is slow takes nothing from others.
async fn answer(
    app: &App,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: impl Stream<Item = Result<impl Buf, warp::Error>>,
    waited: &mut Duration,
) -> Result<Response, ApiError> {
    let operation = app.0.routing.operation(method, path)?;
    let mut given = Vec::new();
    if operation.takes_body() {
        let (read, took) = app.body(headers, body).await;
        *waited = took;
        given = read?;
    }
    app.within_limits(operation, handle(app, operation, path, query, headers, &given)).await
}

/// Gives an operation's handler what it reads of a request.
async fn handle(
    app: &App,
    operation: &Operation,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, ApiError> {
    let parameter = operation.parameter(path);
    match operation.endpoint {
        Endpoint::ListUsers => users::list(app, query).await,
        Endpoint::CreateUser => users::create(app, query, body).await,
        Endpoint::GetUser => users::get(app, parameter).await,
        Endpoint::UpdateUser => users::update(app, parameter, query, body).await,
        Endpoint::DeleteUser => users::delete(app, parameter).await,
        Endpoint::Health => health::health().await,
        Endpoint::Ready => health::ready(app).await,
        Endpoint::Metrics => Ok(app.0.exposition.reply(accept_encoding(headers).as_deref()).await?),
        Endpoint::Slow => diagnostics::slow(app).await,
        Endpoint::Error => diagnostics::error().await,
        Endpoint::Update => legacy::update(app, query).await,
        Endpoint::Cpu => legacy::cpu(app, query).await,
        Endpoint::Openapi => docs::openapi_json(app, headers).await,
        Endpoint::Docs => docs::swagger_ui(app, headers).await,
        Endpoint::DocsFile => docs::swagger_file(app, parameter, headers).await,
        Endpoint::Landing => docs::landing(app, headers).await,
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

/// All lines of the header as one (RFC 9110, section 5.3); one that is no text counts as absent.
fn accept_encoding(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let mut lines = headers.get_all(ACCEPT_ENCODING).iter().filter_map(|line| line.to_str().ok());
    let first = lines.next()?;
    Some(lines.fold(Cow::Borrowed(first), |all, line| Cow::Owned(format!("{all}, {line}"))))
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
        let panicking = warp::path("panic").then(|| respond(async { panic!("boom") }));
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
