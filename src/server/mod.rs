//! The running service: assembly, connections, and the order in which it ends.
//!
//! The end is a sequence: unready, and every answer says `Connection: close` → (a pause for load balancers) → whoever
//! has connected already is accepted, nobody else → requests in flight finish, within a limit → the store makes the
//! writes that wait and closes → the metrics are pushed a last time, if at all.
//!
//! `connections` accepts and ends, `connection` is the life of one: what it does is in its `place`, how long it may do
//! so in `patience`. `exchange` is the edge between a connection and the service.

mod connection;
mod connections;
mod exchange;
mod files;
mod host;
mod patience;
mod place;
mod pushing;
mod refusal;
mod socket;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use warp::Filter;
use warp::reply::Response;

use crate::api::problem;
use crate::api::{self, App, Delays, Limits, surface};
use crate::config::ServeConfig;
use crate::metrics::{BuildInfo, ConnectionMetrics, Exposition, Red, ServiceMetrics};
use crate::push::PushError;
use crate::store::{OnCommit, OpenError, UserStore};

use connections::Connections;
use pushing::Pushing;

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
    let max_connections = files::room_for(config.max_connections);
    let connections = Connections::new(max_connections, config.drain_timeout, metrics.connections().clone());
    let goodbye = connections.goodbye();

    tracing::info!(%address, "listening");
    let pushing = pushing.map(|pushing| pushing.start(registry));
    let (stop, stopped) = oneshot::channel();
    // Dropped with this future, so that no connection outlives it.
    let mut serving = JoinSet::new();
    serving.spawn(connections.serve(listener, warp::service(service), stopped));

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
    goodbye.say();
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

/// Serves connections until told to stop, then lets requests in flight finish, for at most `drain_timeout`: for a
/// service that is put together elsewhere. It has as many connections as the limit of open files allows.
pub async fn serve<F>(listener: TcpListener, service: F, stopped: oneshot::Receiver<()>, drain_timeout: Duration)
where
    F: Filter<Extract = (Response,), Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
{
    let connections = Connections::new(files::room_for_most(), drain_timeout, ConnectionMetrics::detached());
    connections.serve(listener, warp::service(service), stopped).await;
}

fn build_info() -> BuildInfo {
    BuildInfo { version: env!("CARGO_PKG_VERSION"), revision: env!("BUILD_REVISION"), rustc: env!("BUILD_RUSTC") }
}

/// The store tells of each commit before it answers, so the counters never miss a write that a client knows of.
fn count_commits(metrics: ServiceMetrics) -> OnCommit {
    Arc::new(move |committed| {
        metrics.add_registered(committed.created);
        metrics.add_deleted(committed.deleted);
        metrics.set_users(committed.users);
    })
}
