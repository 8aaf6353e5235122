//! What batch work puts together and reads before it pushes, in wall-clock time:
//!
//! - `grouping_key/build/VALUES`: a job and two labels, checked. The VALUES are `plain`, or `base64`, which a path
//!   cannot hold as they are.
//! - `grouping_key/path/VALUES`: its path at the gateway.
//! - `grouping_key/display/VALUES`: the key for people.
//! - `metrics_file/parse/LINES`: another program's metrics, of 10, 1,000 and 10,000 lines.
//! - `metrics_file/write/LINES`: those metrics as they are pushed.
//!
//! Criterion keeps each figure, in nanoseconds, in `criterion/GROUP/NAME/new/estimates.json` below the target folder,
//! where the slash within the group is an underscore: `criterion/metrics_file_parse/1000/new/estimates.json`.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use api_monitoring::push::{GroupingKey, MetricsText};
use criterion::{BenchmarkId, Criterion};

const LINES: [usize; 3] = [10, 1_000, 10_000];

/// Lines of a family, its `# HELP` and `# TYPE` included.
const FAMILY: usize = 10;

pub fn run() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .nresamples(10_000)
        .without_plots()
        .configure_from_args();
    grouping_key(&mut criterion, "plain", ["nightly_backup", "db-1.example.org", "eu-north-1"]);
    grouping_key(&mut criterion, "base64", ["nightly/backup", "/var/lib/postgresql", ""]);
    LINES.iter().for_each(|lines| metrics_file(&mut criterion, *lines));
    criterion.final_summary();
}

fn grouping_key(criterion: &mut Criterion, values: &str, [job, instance, region]: [&str; 3]) {
    let build = || {
        let key = GroupingKey::new(black_box(job)).unwrap();
        key.with("instance", black_box(instance)).unwrap().with("region", black_box(region)).unwrap()
    };
    let key = build();
    assert_eq!(key.path().matches("@base64").count(), if values == "base64" { 3 } else { 0 });

    criterion.benchmark_group("grouping_key/build").bench_function(values, |bencher| bencher.iter(build));
    criterion
        .benchmark_group("grouping_key/path")
        .bench_function(values, |bencher| bencher.iter(|| black_box(&key).path()));
    criterion
        .benchmark_group("grouping_key/display")
        .bench_function(values, |bencher| bencher.iter(|| black_box(&key).to_string()));
}

fn metrics_file(criterion: &mut Criterion, lines: usize) {
    let file = file(lines);
    assert_eq!(file.lines().count(), lines);
    let text = MetricsText::parse(file.as_bytes());
    assert_eq!((text.families().len(), text.faults()), (lines / FAMILY, [].as_slice()));
    assert_eq!(text.to_string(), file);

    criterion.benchmark_group("metrics_file/parse").bench_function(BenchmarkId::from_parameter(lines), |bencher| {
        bencher.iter(|| MetricsText::parse(black_box(file.as_bytes())));
    });
    criterion
        .benchmark_group("metrics_file/write")
        .bench_function(BenchmarkId::from_parameter(lines), |bencher| bencher.iter(|| black_box(&text).to_string()));
}

/// Families of ten lines, in turn a gauge by table and shard and a histogram.
fn file(lines: usize) -> String {
    let mut file = String::new();
    for number in 0..lines / FAMILY {
        if number % 2 == 0 {
            gauge(&mut file, &format!("backup_{number}_rows"));
        } else {
            histogram(&mut file, &format!("backup_{number}_seconds"));
        }
    }
    file
}

fn gauge(file: &mut String, name: &str) {
    writeln!(file, "# HELP {name} Rows by table.\n# TYPE {name} gauge").unwrap();
    for shard in 0..FAMILY - 2 {
        writeln!(file, "{name}{{shard=\"{shard}\",table=\"public.users\"}} {}", shard * 1250).unwrap();
    }
}

fn histogram(file: &mut String, name: &str) {
    writeln!(file, "# HELP {name} Durations by step.\n# TYPE {name} histogram").unwrap();
    for (count, bound) in ["0.1", "0.5", "1", "5", "10", "+Inf"].into_iter().enumerate() {
        writeln!(file, "{name}_bucket{{step=\"dump\",le=\"{bound}\"}} {count}").unwrap();
    }
    writeln!(file, "{name}_sum{{step=\"dump\"}} 12.75\n{name}_count{{step=\"dump\"}} 5").unwrap();
}
