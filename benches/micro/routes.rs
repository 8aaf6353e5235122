//! What it costs to find a request's route in the real route table, in wall-clock time:
//!
//! - `routes/literal`, `routes/parameter`: paths of the API, without a parameter and with one.
//! - `routes/unknown`: a short path outside the table.
//! - `routes/long_parameter`: a known route with a parameter of 4 KB.
//! - `routes/long_unknown`: a path of 4 KB in one segment, outside the table.
//! - `routes/many_segments`: a path of 100 segments that begins as a known one.
//!
//! Criterion keeps each figure, in nanoseconds, in `criterion/routes/NAME/new/estimates.json` below the target folder.

use std::hint::black_box;
use std::time::Duration;

use api_monitoring::api::surface;
use api_monitoring::metrics::names::UNMATCHED;
use criterion::Criterion;

pub fn run() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
        .nresamples(10_000)
        .without_plots()
        .configure_from_args();
    let table = surface::route_table();
    let long = "x".repeat(4096);
    let cases = [
        ("literal", "/api/users".to_owned(), "/api/users"),
        ("parameter", "/api/users/42".to_owned(), "/api/users/{id}"),
        ("unknown", "/wp-login.php".to_owned(), UNMATCHED),
        ("long_parameter", format!("/api/users/{long}"), "/api/users/{id}"),
        ("long_unknown", format!("/{long}"), UNMATCHED),
        ("many_segments", format!("/api/users{}", "/a".repeat(98)), UNMATCHED),
    ];

    let mut group = criterion.benchmark_group("routes");
    for (name, path, route) in &cases {
        assert_eq!(table.resolve(path), *route, "{name}");
        group.bench_function(*name, |bencher| bencher.iter(|| black_box(table.resolve(black_box(path)))));
    }
    group.finish();
    criterion.final_summary();
}
