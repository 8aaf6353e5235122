//! The exposition of many series, and nothing else: `series ADDRESS:PORT SERIES`.
//!
//! The same lines as bench/client_golang gives: a third of the series are gauges, a third counters, a third those of
//! histograms.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use api_monitoring::metrics::exposition;
use api_monitoring::server;
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};
use tokio::sync::oneshot;
use warp::Filter;
use warp::http::StatusCode;
use warp::reply::{Reply, Response};

/// Seconds; with `+Inf`, the sum and the count, a child has 13 series.
const BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
const SERIES_OF_A_CHILD: usize = BUCKETS.len() + 3;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut argument = || arguments.next().context("usage: series ADDRESS:PORT SERIES");
    let (address, series) = (argument()?.parse()?, argument()?.parse()?);
    let registry = registry(series)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(serve(address, registry))
}

fn registry(series: usize) -> prometheus::Result<Registry> {
    let third = series / 3;
    let jobs = IntGaugeVec::new(Opts::new("bench_jobs", "Jobs by number."), &["number"])?;
    for number in 0..third {
        jobs.with_label_values(&[number.to_string()]).set(number as i64);
    }
    let labels = ["method", "route", "status"];
    let requests = IntCounterVec::new(Opts::new("bench_requests_total", "Requests by route."), &labels)?;
    for number in 0..third {
        requests.with_label_values(&["GET", &route(number), "200"]).inc_by(number as u64);
    }
    let duration = HistogramOpts::new("bench_duration_seconds", "Durations by route.").buckets(BUCKETS.to_vec());
    let durations = HistogramVec::new(duration, &["route"])?;
    for number in 0..third / SERIES_OF_A_CHILD {
        let duration = durations.with_label_values(&[route(number)]);
        observations(number).for_each(|seconds| duration.observe(seconds));
    }
    let registry = Registry::new();
    registry.register(Box::new(jobs))?;
    registry.register(Box::new(requests))?;
    registry.register(Box::new(durations))?;
    Ok(registry)
}

fn route(number: usize) -> String {
    format!("/api/items/{number}")
}

/// Seconds from 0.001 to 7, spread over all buckets.
fn observations(number: usize) -> impl Iterator<Item = f64> {
    (1..=4).map(move |i| (37 * i * (number + 1) % 7000 + 1) as f64 / 1000.0)
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
