//! The users API: a warp service, and a customer of [`metrics`](crate::metrics).
//!
//! [`routes`] is the HTTP surface on one page; [`surface`] is the table it follows. Handlers touch their parsed input
//! and [`App`], nothing else: no registry, no headers they did not ask for, no clock.
//!
//! A rejection means "not my route"; a failure is a reply. So nothing after `on` rejects, and the last filter
//! answers whatever is left: the service cannot fail, and every request has one response to be recorded.

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
use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Buf;
use futures_util::{FutureExt, Stream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, EXPECT};
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use warp::path::FullPath;
use warp::reply::Response;
use warp::{Filter, Rejection};

use crate::metrics::names::UNMATCHED;
use crate::metrics::{Exposition, ServiceMetrics, Template, accept_encoding};
use crate::store::UserStore;
use input::Declared;
use problem::{ApiError, Panicked};
use surface::Operation;

pub use diagnostics::Delays;

/// Listings of all users that are sent at once. Each holds one chunk of users for as long as its client reads.
const LISTINGS_MAX: usize = 64;

/// What the service allows a request to take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Requests handled at once; more are answered 503. The probes and the scrape are not limited.
    pub max_in_flight: usize,
    /// Deadline of a request, until the head of its response is ready.
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

    /// Runs a handler within the limits; whatever comes of it is a response.
    async fn answer(&self, handler: impl Future<Output = Result<Response, ApiError>>) -> Response {
        match self.0.in_flight.try_acquire() {
            Ok(_permit) => self.answer_unlimited(handler).await,
            Err(_) => ApiError::Overloaded.into_response(),
        }
    }

    /// The same for the probes and the scrape, which must get through under overload: only the deadline holds.
    async fn answer_unlimited(&self, handler: impl Future<Output = Result<Response, ApiError>>) -> Response {
        let deadline = self.0.limits.request_timeout;
        // Unwind safe: a handler that panicked is not polled again, and what it shares is atomic or behind locks that
        // say whether they are poisoned.
        let handler = AssertUnwindSafe(handler).catch_unwind();
        let outcome = match tokio::time::timeout(deadline, handler).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(panic)) => Err(ApiError::Panic(Panicked(panic_message(panic.as_ref())))),
            Err(_) => Err(ApiError::Timeout(deadline)),
        };
        outcome.unwrap_or_else(ApiError::into_response)
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message").to_owned()
}

/// The whole service: every operation of [`surface::OPERATIONS`], and an answer for everything else.
#[must_use]
pub fn routes(app: App) -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let with_app = warp::any().map(move || app.clone());
    let app = || with_app.clone();

    let list_users = on(&surface::LIST_USERS)
        .and(app())
        .and(query())
        .then(|app: App, query| async move { app.answer(users::list(app.clone(), query)).await });
    let get_user = on(&surface::GET_USER)
        .and(app())
        .and(parameter(&surface::GET_USER))
        .then(|app: App, id| async move { app.answer(users::get(app.clone(), id)).await });
    let create_user = on(&surface::CREATE_USER).and(app()).and(query()).and(body()).then(
        |app: App, query, body: JsonBody<_>| async move {
            app.answer(async { users::create(app.clone(), query, body.read().await?).await }).await
        },
    );
    let update_user =
        on(&surface::UPDATE_USER).and(app()).and(parameter(&surface::UPDATE_USER)).and(query()).and(body()).then(
            |app: App, id, query, body: JsonBody<_>| async move {
                app.answer(async { users::update(app.clone(), id, query, body.read().await?).await }).await
            },
        );
    let delete_user = on(&surface::DELETE_USER)
        .and(app())
        .and(parameter(&surface::DELETE_USER))
        .then(|app: App, id| async move { app.answer(users::delete(app.clone(), id)).await });
    let users = list_users.or(get_user).unify().or(create_user).unify().or(update_user).unify().or(delete_user).unify();

    let health =
        on(&surface::HEALTH).and(app()).then(|app: App| async move { app.answer_unlimited(health::health()).await });
    let ready = on(&surface::READY)
        .and(app())
        .then(|app: App| async move { app.answer_unlimited(health::ready(app.clone())).await });
    let metrics =
        on(&surface::METRICS).and(app()).and(accept_encoding()).then(|app: App, accepted: Option<String>| async move {
            app.answer_unlimited(async { Ok(app.0.exposition.reply(accepted.as_deref()).await?) }).await
        });
    let operation = health.or(ready).unify().or(metrics).unify();

    let slow =
        on(&surface::SLOW).and(app()).then(|app: App| async move { app.answer(diagnostics::slow(app.clone())).await });
    let error = on(&surface::ERROR).and(app()).then(|app: App| async move { app.answer(diagnostics::error()).await });
    let update = on(&surface::UPDATE)
        .and(app())
        .and(query())
        .then(|app: App, query| async move { app.answer(legacy::update(app.clone(), query)).await });
    let cpu = on(&surface::CPU)
        .and(app())
        .and(query())
        .then(|app: App, query| async move { app.answer(legacy::cpu(app.clone(), query)).await });
    let test_and_legacy = slow.or(error).unify().or(update).unify().or(cpu).unify();

    let openapi = on(&surface::OPENAPI)
        .and(app())
        .then(|app: App| async move { app.answer(docs::openapi_json(app.clone())).await });
    let swagger_ui =
        on(&surface::DOCS).and(app()).then(|app: App| async move { app.answer(docs::swagger_ui(app.clone())).await });
    let swagger_file = on(&surface::DOCS_FILE)
        .and(app())
        .and(parameter(&surface::DOCS_FILE))
        .then(|app: App, file| async move { app.answer(docs::swagger_file(app.clone(), file)).await });
    let landing = on(&surface::LANDING).and(app()).then(|app: App| async move { app.answer(docs::landing()).await });
    let documentation = openapi.or(swagger_ui).unify().or(swagger_file).unify().or(landing).unify();

    let all = users.or(operation).unify().or(test_and_legacy).unify().or(documentation).unify();
    all.or(unmatched()).unify()
}

// ---- Filters: what matches, and what it yields ----

/// Lets an operation's requests through and rejects all others.
fn on(operation: &'static Operation) -> impl Filter<Extract = (), Error = Rejection> + Clone + Send + Sync + 'static {
    let template = parsed(operation);
    warp::method()
        .and(warp::path::full())
        .and_then(move |method: Method, path: FullPath| {
            let mine = operation.serves(&method) && template.matches(path.as_str());
            ready(if mine { Ok(()) } else { Err(warp::reject::not_found()) })
        })
        .untuple_one()
}

/// The operation's path parameter, still percent-encoded.
fn parameter(
    operation: &'static Operation,
) -> impl Filter<Extract = (String,), Error = Infallible> + Clone + Send + Sync + 'static {
    let template = parsed(operation);
    warp::path::full().map(move |path: FullPath| template.parameter(path.as_str()).unwrap_or_default().to_owned())
}

fn parsed(operation: &Operation) -> Arc<Template> {
    Arc::new(Template::parse(operation.template).expect("the templates of the table are well-formed"))
}

/// The raw query string, empty when there is none.
fn query() -> impl Filter<Extract = (String,), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::query::raw().or(warp::any().map(String::new)).unify()
}

/// The request's body, not read yet, and what is declared about it.
fn body()
-> impl Filter<Extract = (JsonBody<impl Stream<Item = Result<impl Buf, warp::Error>> + Send>,), Error = Rejection>
+ Clone
+ Send
+ Sync
+ 'static {
    warp::body::stream()
        .and(header(CONTENT_TYPE.as_str()))
        .and(header(CONTENT_LENGTH.as_str()))
        .and(header(EXPECT.as_str()))
        .map(|stream, content_type, length: Option<HeaderValue>, expect: Option<HeaderValue>| {
            let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
            JsonBody { stream, declared: Declared { content_type, length, waits: expect.is_some() } }
        })
}

struct JsonBody<S> {
    stream: S,
    declared: Declared,
}

impl<S, B> JsonBody<S>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    async fn read(self) -> Result<Vec<u8>, ApiError> {
        input::read_json_body(self.stream, self.declared).await
    }
}

fn header(
    name: &'static str,
) -> impl Filter<Extract = (Option<HeaderValue>,), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::header::value(name).map(Some).or(warp::any().map(|| None)).unify()
}

/// Whatever no operation serves: 404 for an unknown path, 405 for a known one.
fn unmatched() -> impl Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static {
    let table = Arc::new(surface::route_table());
    warp::method().and(warp::path::full()).map(move |method: Method, path: FullPath| {
        let error = match table.resolve(path.as_str()) {
            UNMATCHED => ApiError::UnknownPath(path.as_str().to_owned()),
            template => ApiError::MethodNotAllowed {
                method: method.to_string(),
                path: template.to_owned(),
                allow: surface::allowed_methods(template),
            },
        };
        error.into_response()
    })
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
        let list = async || users::list(app.clone(), String::new()).await;
        let mut being_sent = Vec::new();
        for _ in 0..LISTINGS_MAX {
            being_sent.push(list().await.unwrap());
        }

        assert!(matches!(list().await, Err(ApiError::Overloaded)));
        assert!(users::list(app.clone(), "limit=1".to_owned()).await.is_ok(), "a page is no such listing");

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
                async move { app.answer(async { panic!("boom") }).await }
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
