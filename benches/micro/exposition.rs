//! What a scrape costs by the number of series, in wall-clock time from the request until its whole body is there:
//!
//! - `exposition/text/SERIES`, `exposition/gzip/SERIES`: through [`exposition`], with 100, 10,000 and 100,000 series.
//! - `exposition/crate/SERIES`: the `prometheus` crate's own way, gathering and then its text encoder.
//!
//! A third of the series are gauges, a third counters, a third those of histograms, as in bench/, where whole programs
//! are compared. The runtime has one thread; ours hands the work to its blocking pool and back, which counts too.
//!
//! Criterion keeps each figure, in nanoseconds, in `criterion/GROUP/SERIES/new/estimates.json` below the target folder,
//! where the slash within the group is an underscore: `criterion/exposition_text/10000/new/estimates.json`.

use std::hint::black_box;
use std::time::Duration;

use api_monitoring::metrics::exposition;
use bytes::Bytes;
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, SamplingMode};
use prometheus::{Registry, TextEncoder};
use tokio::runtime::Runtime;
use warp::Filter;
use warp::reply::Response;

use crate::exposed::{SERIES_OF_A_CHILD, registry};

const SERIES: [usize; 3] = [100, 10_000, 100_000];

pub fn run() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(20)
        .nresamples(10_000)
        .without_plots()
        .configure_from_args();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for series in SERIES {
        let registry = registry(series).unwrap();
        let scraped = exposition(registry.clone());
        check(&runtime, &scraped, &registry, series);
        measure(&mut criterion, "exposition/text", series, |group, id| {
            group.bench_function(id, |bencher| bencher.iter(|| scrape(&runtime, &scraped, false)));
        });
        measure(&mut criterion, "exposition/gzip", series, |group, id| {
            group.bench_function(id, |bencher| bencher.iter(|| scrape(&runtime, &scraped, true)));
        });
        measure(&mut criterion, "exposition/crate", series, |group, id| {
            group.bench_function(id, |bencher| bencher.iter(|| encode(black_box(&registry))));
        });
    }
    criterion.final_summary();
}

fn measure(
    criterion: &mut Criterion,
    group: &str,
    series: usize,
    bench: impl FnOnce(&mut BenchmarkGroup<'_, WallTime>, BenchmarkId),
) {
    let mut group = criterion.benchmark_group(group);
    // Of what takes long, linear sampling would want ten times as many scrapes.
    group.sampling_mode(SamplingMode::Flat);
    if series > 10_000 {
        group.sample_size(10).measurement_time(Duration::from_secs(3));
    }
    bench(&mut group, BenchmarkId::from_parameter(series));
    group.finish();
}

fn scrape<F>(runtime: &Runtime, scraped: &F, gzip: bool) -> Bytes
where
    F: Filter<Extract = (Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static,
{
    let request = warp::test::request().path("/metrics");
    let request = if gzip { request.header("accept-encoding", "gzip") } else { request };
    let response = runtime.block_on(request.reply(scraped));
    assert_eq!(response.status(), 200);
    response.into_body()
}

fn encode(registry: &Registry) -> String {
    TextEncoder::new().encode_to_string(&registry.gather()).unwrap()
}

/// Both ways give the same text, of as many series as were asked for.
fn check<F>(runtime: &Runtime, scraped: &F, registry: &Registry, series: usize)
where
    F: Filter<Extract = (Response,), Error = warp::Rejection> + Clone + Send + Sync + 'static,
{
    let text = encode(registry);
    let samples = text.lines().filter(|line| !line.starts_with('#')).count();
    // Histograms come in thirteens.
    assert!(
        samples <= series && samples + SERIES_OF_A_CHILD > series,
        "{samples} series where {series} were asked for"
    );
    assert!(scrape(runtime, scraped, false) == text, "the exposition of {series} series is not the crate's");
    assert!(scrape(runtime, scraped, true).starts_with(&[0x1f, 0x8b]), "gzip when asked for");
}
