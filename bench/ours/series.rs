//! The exposition of many series, and nothing else: `series ADDRESS:PORT SERIES`.
//!
//! The same lines as `bench/client_golang` gives: a third of the series are gauges, a third counters, a third those of
//! histograms.

#![allow(clippy::cast_possible_wrap, clippy::cast_precision_loss, reason = "small numbers")]

mod exposed;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use api_monitoring::metrics::exposition;
use api_monitoring::server;
use prometheus::Registry;
use tokio::sync::oneshot;
use warp::Filter;
use warp::http::StatusCode;
use warp::reply::{Reply, Response};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("usage: series ADDRESS:PORT SERIES");
    let (address, series) = (argument()?.parse()?, argument()?.parse()?);
    let registry = exposed::registry(series)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(address, registry))
}

async fn serve(address: SocketAddr, registry: Registry) -> anyhow::Result<()> {
    let health = warp::path!("health").map(|| Response::new("healthy".into()));
    let unknown = warp::any().map(|| StatusCode::NOT_FOUND.into_response());
    let service = exposition(registry).or(health).unify().or(unknown).unify();
    let listener = server::bind(address).await?;
    // Kept, so that it serves until it is killed.
    let (_stop, stopped) = oneshot::channel();
    tokio::spawn(server::serve(listener, service, stopped, Duration::ZERO)).await?;
    Ok(())
}
