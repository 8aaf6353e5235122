//! The push of the service's own metrics: periodic, and a last time at the end.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use prometheus::Registry;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::ServeError;
use crate::causes;
use crate::config::PushConfig;
use crate::metrics::{PushMetrics, PushResult};
use crate::push::{Attempt, Periodic, PushClient};

/// What the last push may take, together with one that is under way when the end comes: with the drain's default, it all
/// fits into Docker's 10 s.
const LAST_PUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The label that tells replicas apart.
const INSTANCE: &str = "instance";

/// The push of the service's own metrics, ready to start.
pub(super) struct Pushing {
    periodic: Periodic,
    metrics: PushMetrics,
    clock: fn() -> SystemTime,
}

/// The push of the service's own metrics, under way. It ends with this.
pub(super) struct StartedPushing {
    stop: oneshot::Sender<()>,
    task: JoinSet<()>,
}

impl Pushing {
    pub(super) async fn prepare(
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

    pub(super) fn start(self, registry: Registry) -> StartedPushing {
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
    pub(super) async fn stop(mut self) {
        let _ = self.stop.send(());
        self.task.join_next().await;
    }
}

/// Host and port: different for every process that can run at the same time, and the same again after a restart.
fn instance(address: SocketAddr) -> String {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let host = host.filter(|name| !name.is_empty()).unwrap_or_else(|| address.ip().to_string());
    format!("{host}:{}", address.port())
}
