//! The running service: assembly, connections, and the order in which it ends.
//!
//! The end is a sequence: unready → (a pause for load balancers) → no new connections → requests in flight finish,
//! within a limit → the store makes the writes that wait and closes → the metrics are pushed a last time, if at all.

use std::cell::RefCell;
use std::future::Future;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Request, Uri};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tower_service::Service;
use warp::Filter;
use warp::reply::Response;

use crate::api::problem;
use crate::api::{self, App, Delays, Limits, surface};
use crate::causes;
use crate::config::{PushConfig, ServeConfig};
use crate::metrics::{BuildInfo, Exposition, PushMetrics, PushResult, Red, ServiceMetrics};
use crate::push::{Attempt, Periodic, PushClient, PushError};
use crate::store::{OnCommit, OpenError, UserStore};

/// How long a connection may take to send a request's head, idle time between requests included. Longer than the idle
/// time-out of common load balancers (60 s), so that they close first and never race a closing connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a client may take none of its answer. A listing that nobody reads would otherwise be held for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause after the system refused a connection for lack of resources: trying again at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the last push may take, together with one that is under way when the end comes: with the drain's default, it all
/// fits into Docker's 10 s.
const LAST_PUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the service could not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address} (--listen, API_LISTEN)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said, such as that it is in use.
        #[source]
        source: std::io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The metrics cannot be pushed with these settings.
    #[error("the metrics cannot be pushed")]
    Push(#[from] PushError),
    /// The metrics cannot be registered: a fault of the service itself.
    #[error("cannot register the metrics")]
    Metrics(#[from] prometheus::Error),
}

/// Listens on an address.
///
/// # Errors
///
/// When the port is taken, or the address is not one of this machine.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })
}

/// Runs the service until `shutdown` resolves and all is drained. It answers while the store is still opening.
///
/// Dropping the future ends it at once, as `kill -9` would: what was acknowledged is safe. `clock` tells the time of day.
///
/// # Errors
///
/// When the store cannot be opened, or the metrics cannot be pushed as the settings want it. A gateway that does not
/// answer is no error.
pub async fn run(
    listener: TcpListener,
    config: ServeConfig,
    clock: fn() -> SystemTime,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ServeError> {
    let registry = Registry::new();
    let red = Red::register_with_errors(
        &registry,
        surface::route_table(),
        problem::ErrorKind::ALL.iter().map(|kind| kind.error_type()),
    )?;
    let metrics = ServiceMetrics::register(&registry, &red, build_info())?;
    let address = listener.local_addr().unwrap_or(config.listen);
    let pushing = match config.push {
        Some(push) => Some(Pushing::prepare(push, &registry, address, config.seed, clock).await?),
        None => None,
    };
    let limits = Limits { max_in_flight: config.max_in_flight, request_timeout: config.request_timeout };
    let app = App::starting(limits, metrics.clone(), Exposition::new(registry.clone()), Delays::seeded(config.seed));
    let service = red.instrument(api::routes(app.clone()));

    tracing::info!(%address, "listening");
    let pushing = pushing.map(|pushing| pushing.start(registry));
    let (stop, stopped) = oneshot::channel();
    // Dropped with this future, so that no connection outlives it.
    let mut serving = JoinSet::new();
    serving.spawn(serve(listener, service, stopped, config.drain_timeout));

    let mut shutdown = std::pin::pin!(shutdown);
    let opened = tokio::select! {
        opened = UserStore::open(&config.database_url, count_commits(metrics)) => Some(opened?),
        () = &mut shutdown => None,
    };
    if let Some(store) = &opened {
        app.started(store.clone());
        tracing::info!(database = %config.database_url, "ready");
        shutdown.await;
    }

    tracing::info!("draining");
    app.drain();
    tokio::time::sleep(config.drain_delay).await;
    let _ = stop.send(());
    serving.join_next().await;
    if let Some(store) = opened {
        store.close().await;
    }
    if let Some(started) = pushing {
        started.stop().await;
    }
    tracing::info!("stopped");
    Ok(())
}

fn build_info() -> BuildInfo {
    BuildInfo { version: env!("CARGO_PKG_VERSION"), revision: env!("BUILD_REVISION"), rustc: env!("BUILD_RUSTC") }
}

/// The push of the service's own metrics, ready to start.
struct Pushing {
    periodic: Periodic,
    metrics: PushMetrics,
    clock: fn() -> SystemTime,
}

/// The push of the service's own metrics, under way. It ends with this.
struct StartedPushing {
    stop: oneshot::Sender<()>,
    task: JoinSet<()>,
}

impl Pushing {
    async fn prepare(
        config: PushConfig,
        registry: &Registry,
        address: SocketAddr,
        seed: u64,
        clock: fn() -> SystemTime,
    ) -> Result<Self, ServeError> {
        let PushConfig { target, mut key, interval, delete_on_exit } = config;
        if key.label(INSTANCE).is_none() {
            key = key.with(INSTANCE, &instance(address)).expect("the label is a valid name, and not there yet");
        }
        let metrics = PushMetrics::register(registry)?;
        let periodic = Periodic {
            client: PushClient::new(target)?,
            key,
            interval,
            delete_on_exit,
            last_timeout: LAST_PUSH_TIMEOUT,
            seed,
        };
        periodic.check(registry).await?;
        Ok(Self { periodic, metrics, clock })
    }

    fn start(self, registry: Registry) -> StartedPushing {
        let Self { periodic, metrics, clock } = self;
        tracing::info!(gateway = %periodic.client.target().url(), group = %periodic.key, "pushing metrics");
        let (stop, stopped) = oneshot::channel::<()>();
        let mut task = JoinSet::new();
        let observe = move |attempt: &Attempt| {
            let result = match &attempt.result {
                Ok(()) => PushResult::Success,
                Err(error) if error.is_transient() => PushResult::Unavailable,
                Err(_) => PushResult::Refused,
            };
            metrics.record(result, attempt.duration, clock());
            if let Err(error) = &attempt.result {
                tracing::warn!(cause = causes::chain(error), "cannot push the metrics");
            }
        };
        task.spawn(periodic.run(registry, observe, async { drop(stopped.await) }));
        StartedPushing { stop, task }
    }
}

impl StartedPushing {
    /// Has the last push made, or the group deleted, and waits for that.
    async fn stop(mut self) {
        let _ = self.stop.send(());
        self.task.join_next().await;
    }
}

/// The label that tells replicas apart.
const INSTANCE: &str = "instance";

/// Host and port: different for every process that can run at the same time, and the same again after a restart.
fn instance(address: SocketAddr) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host = host.filter(|name| !name.is_empty()).unwrap_or_else(|| address.ip().to_string());
    format!("{host}:{}", address.port())
}

/// The store tells of each commit before it answers, so the counters never miss a write that a client knows of.
fn count_commits(metrics: ServiceMetrics) -> OnCommit {
    Arc::new(move |committed| {
        metrics.add_registered(committed.created);
        metrics.add_deleted(committed.deleted);
        metrics.set_users(committed.users);
    })
}

/// Serves connections until told to stop, then lets requests in flight finish, for at most `drain_timeout`.
pub async fn serve<F>(listener: TcpListener, service: F, mut stopped: oneshot::Receiver<()>, drain_timeout: Duration)
where
    F: Filter<Extract = (Response,), Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
{
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let service = warp::service(service);
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            _ = &mut stopped => break,
            // Takes finished connections out of the set.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    // Small answers must not wait for the client's acknowledgement of the one before (Nagle's
                    // algorithm).
                    let _ = stream.set_nodelay(true);
                    let mut stream = TimeoutStream::new(stream);
                    stream.set_write_timeout(Some(WRITE_TIMEOUT));
                    let io = TokioIo::new(Box::pin(stream));
                    // A connection handles one request at a time, so it needs no service for each of them.
                    let service = RefCell::new(service.clone());
                    let service = service_fn(move |request| service.borrow_mut().call(with_path(request)));
                    connections.spawn(graceful.watch(http.serve_connection(io, service)));
                }
                // The client was gone before it could be accepted.
                Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::warn!(cause = %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // From here on the system refuses new connections.
    drop(listener);
    if tokio::time::timeout(drain_timeout, graceful.shutdown()).await.is_err() {
        while connections.try_join_next().is_some() {}
        tracing::warn!(connections = connections.len(), "the drain timed out; connections are cut");
    }
    // Cut connections end as 499 each, recorded before the last metrics leave.
    connections.shutdown().await;
}

/// Gives a request without a path (`CONNECT host:port`, or a target without its slash) the path `*`, which no route
/// serves: warp's path filters panic where there is none, and such a request must be answered and counted too.
fn with_path<B>(mut request: Request<B>) -> Request<B> {
    if request.uri().path_and_query().is_none() {
        *request.uri_mut() = Uri::from_static("*");
    }
    request
}
