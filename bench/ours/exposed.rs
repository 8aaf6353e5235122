//! Many series: a third of them gauges, a third counters, a third those of histograms; as `bench/client_golang` has
//! them.

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Seconds; with `+Inf`, the sum and the count, a child has 13 series.
const BUCKETS: [f64; 10] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Series that one histogram makes.
pub const SERIES_OF_A_CHILD: usize = BUCKETS.len() + 3;

/// A registry with about so many series.
pub fn registry(series: usize) -> prometheus::Result<Registry> {
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
