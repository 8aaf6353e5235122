//! The service with its instrumentation off, for comparison: takes the arguments of `api-monitoring serve`.
//!
//! All else is as in the shipped binary: its runtime, its log, its store, its limits, and the metrics of its own that
//! are not counted by request. Only [`Red::instrument`] is missing.

use std::sync::Arc;

use anyhow::bail;
use api_monitoring::api::problem::ErrorKind;
use api_monitoring::api::{self, App, Delays, Limits, surface};
use api_monitoring::cli::{self, Command};
use api_monitoring::config::{LogConfig, ServeConfig};
use api_monitoring::metrics::{BuildInfo, Exposition, Red, ServiceMetrics};
use api_monitoring::store::UserStore;
use api_monitoring::{logs, server};
use prometheus::Registry;
use tokio::sync::oneshot;

fn main() -> anyhow::Result<()> {
    let Command::Serve(args) = cli::parse(std::env::args_os())? else { bail!("only serve can be measured") };
    let _logs = logs::start(LogConfig::try_from(&args)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(ServeConfig::try_from(&args)?))
}

async fn serve(config: ServeConfig) -> anyhow::Result<()> {
    let registry = Registry::new();
    let kinds = ErrorKind::ALL.iter().map(|kind| kind.error_type());
    let red = Red::register_with_errors(&registry, surface::route_table(), kinds)?;
    let build = BuildInfo { version: "bench", revision: "bench", rustc: "bench" };
    let metrics = ServiceMetrics::register(&registry, &red, build)?;
    let limits = Limits { max_in_flight: config.max_in_flight, request_timeout: config.request_timeout };
    let app = App::starting(limits, metrics.clone(), Exposition::new(registry), Delays::seeded(config.seed));

    let listener = server::bind(config.listen).await?;
    let on_commit = Arc::new(move |committed: api_monitoring::store::Committed| {
        metrics.add_registered(committed.created);
        metrics.add_deleted(committed.deleted);
        metrics.set_users(committed.users);
    });
    app.started(UserStore::open(&config.database_url, on_commit).await?);
    // Kept, so that it serves until it is killed.
    let (_stop, stopped) = oneshot::channel();
    // On a worker, as the binary does it: the thread that waits here has no part in answering.
    tokio::spawn(server::serve(listener, api::routes(app), stopped, config.drain_timeout)).await?;
    Ok(())
}
