//! Prints docs/metrics.md: every metric family as the registries hold it, and what to ask of it.
//!
//! The words and the queries are in `metrics_reference.md` beside this file; here its `$PLACES` are filled.
//! `tests/it/metrics_reference.rs` fails when `docs/metrics.md` is not what this prints.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Display;
use std::time::{Duration, UNIX_EPOCH};

use api_monitoring::api::problem::ErrorKind;
use api_monitoring::api::surface::{self, HEALTH, OPERATIONS, READY};
use api_monitoring::metrics::{
    BatchEnd, BatchRun, BuildInfo, PushMetrics, Red, ServiceMetrics, Usage, import_rows, names,
};
use prometheus::Registry;
use prometheus::proto::{Bucket, Metric, MetricFamily};

/// The page with its words and queries, and a place for what the registries say.
const TEMPLATE: &str = include_str!("metrics_reference.md");

fn main() -> Result<(), Box<dyn Error>> {
    print!("{}", page()?);
    Ok(())
}

/// The page. It holds nothing that depends on the machine, the build or the moment.
///
/// # Errors
///
/// When a family has no place in the template, or a place of the template nothing to hold.
pub fn page() -> Result<String, Box<dyn Error>> {
    let (service, pushing, batch) = (service()?, pushing()?, batch()?);
    let more = total(&pushing, at_start);
    let values = [
        ("$START", total(&service, at_start).to_string()),
        ("$MORE", more.to_string()),
        ("$MOST", (total(&service, at_most) + more).to_string()),
        ("$METHODS", (names::METHODS.len() + 1).to_string()),
        ("$ROUTES", templates().len().to_string()),
        ("$STATUSES", statuses().len().to_string()),
        ("$API", format!("job=\"api\", route!~\"{}|{}\"", HEALTH.template, READY.template)),
        ("$LABELS", labels()),
        ("$ZEROS", zeros(&service)),
        ("$ERRORS", errors()),
    ];
    let page = with_families([service, pushing, batch].concat())?;
    let page = values.iter().fold(page, |page, (place, value)| page.replace(place, value));
    match page.lines().find(|line| line.contains('$')) {
        Some(line) => Err(format!("nothing is known for the place in {line:?}").into()),
        None => Ok(page),
    }
}

/// The template with a table of families for each line `$FAMILIES PREFIX`. A family goes to the first that fits.
fn with_families(mut families: Vec<MetricFamily>) -> Result<String, String> {
    let mut page = String::new();
    for line in TEMPLATE.lines() {
        if let Some(prefix) = line.strip_prefix("$FAMILIES ") {
            let fitting = families.extract_if(.., |family| family.name().starts_with(prefix));
            let head = ["metric", "type", "unit", "labels", "series", "meaning"];
            page += &table(head, fitting.map(|family| row(&family)));
        } else {
            page += line;
        }
        page += "\n";
    }
    match families.first() {
        Some(family) => Err(format!("{} has no place in the template", family.name())),
        None => Ok(page),
    }
}

/// What `serve` registers.
fn service() -> prometheus::Result<Vec<MetricFamily>> {
    let registry = Registry::new();
    let red = Red::register_with_errors(
        &registry,
        surface::route_table(),
        ErrorKind::ALL.iter().map(|kind| kind.error_type()),
    )?;
    ServiceMetrics::register(&registry, &red, BuildInfo { version: "", revision: "", rustc: "" })?;
    Ok(registry.gather())
}

/// What it registers besides while it pushes.
fn pushing() -> prometheus::Result<Vec<MetricFamily>> {
    let registry = Registry::new();
    PushMetrics::register(&registry)?;
    Ok(registry.gather())
}

/// All that a run of `import` can push, which is all that a run of `job` can and the rows.
fn batch() -> prometheus::Result<Vec<MetricFamily>> {
    let usage = Usage { user: Duration::ZERO, system: Duration::ZERO, max_resident_memory_bytes: 0 };
    let end = BatchEnd { ended: UNIX_EPOCH, duration: Duration::ZERO, exit_code: 0, usage: Some(usage) };
    let registry = BatchRun { started: UNIX_EPOCH, expected_interval: Some(Duration::ZERO) }.at_end(&end)?;
    import_rows(&registry, [0; names::IMPORT_RESULTS.len()])?;
    Ok(registry.gather())
}

fn total(families: &[MetricFamily], of_family: fn(&MetricFamily) -> usize) -> usize {
    families.iter().map(of_family).sum()
}

/// The series that a family has before anything happened.
fn at_start(family: &MetricFamily) -> usize {
    family.get_metric().iter().map(size).sum()
}

/// The series that it can have: every method on every route, and every status with it.
fn at_most(family: &MetricFamily) -> usize {
    // GET and HEAD of the scrape are not recorded.
    let pairs = (templates().len() + 1) * (names::METHODS.len() + 1) - 2;
    match family.get_metric().first() {
        Some(first) if has(first, names::STATUS) => pairs * size(first) * statuses().len(),
        Some(first) if has(first, names::ROUTE) => pairs * size(first),
        _ => at_start(family),
    }
}

/// A histogram is one series a bucket, one for those above all bounds, and the sum and the count.
fn size(series: &Metric) -> usize {
    if series.histogram.is_some() { series.get_histogram().get_bucket().len() + 3 } else { 1 }
}

fn has(series: &Metric, label: &str) -> bool {
    series.get_label().iter().any(|pair| pair.name() == label)
}

fn templates() -> BTreeSet<&'static str> {
    OPERATIONS.iter().map(|operation| operation.template).collect()
}

/// Every status that the service answers, on whichever route.
fn statuses() -> BTreeSet<u16> {
    let errors = ErrorKind::ALL.iter().map(|kind| kind.status().as_u16());
    OPERATIONS.iter().flat_map(|operation| operation.statuses()).chain(errors).collect()
}

fn row(family: &MetricFamily) -> [String; 6] {
    let series = &family.get_metric()[0];
    let (start, most) = (at_start(family), at_most(family));
    let buckets: Vec<_> = series.get_histogram().get_bucket().iter().map(Bucket::upper_bound).collect();
    let buckets = if buckets.is_empty() { String::new() } else { format!(" Buckets: {}, +Inf.", list(&buckets)) };
    [
        code(family.name()),
        format!("{:?}", family.get_field_type()).to_lowercase(),
        unit(family).to_owned(),
        list(series.get_label().iter().map(|pair| code(pair.name()))),
        if start == most { start.to_string() } else { format!("{start}, at most {most}") },
        family.help().to_owned() + &buckets,
    ]
}

fn unit(family: &MetricFamily) -> &'static str {
    const UNITS: [(&str, &str); 9] = [
        ("_timestamp_seconds", "seconds since 1970"),
        ("_time_seconds", "seconds since 1970"),
        ("_seconds", "seconds"),
        ("_bytes", "bytes"),
        ("_ratio", "0 to 1"),
        ("_percent", "0 to 100"),
        ("_running", "0 or 1"),
        ("_code", "exit code"),
        ("_info", "always 1"),
    ];
    let name = family.name().trim_end_matches("_total");
    UNITS.iter().find(|(suffix, _)| name.ends_with(suffix)).map_or("count", |(_, unit)| unit)
}

fn labels() -> String {
    let methods = names::METHODS.into_iter().chain([names::OTHER_METHOD]);
    let rows = [
        (code(names::METHOD), "`http_*`", list(methods.map(code))),
        (code(names::ROUTE), "`http_*`", format!("the templates below; {} for any other path", code(names::UNMATCHED))),
        (code(names::STATUS), "`http_requests_total`", list(statuses().into_iter().map(code))),
        (code(names::ERROR_TYPE), "`api_errors_total`", "the kinds below".to_owned()),
        (code(names::RESULT), "`push_attempts_total`", list(names::PUSH_RESULTS.map(code))),
        (code(names::RESULT), "`import_rows_total`", list(names::IMPORT_RESULTS.map(code))),
        (code(names::REASON), "`api_connections_refused_total`", list(names::REFUSAL_REASONS.map(code))),
        (code(names::MODE), "`batch_job_last_cpu_seconds`", list(names::CPU_MODES.map(code))),
        (list(names::API_BUILD_INFO.labels.iter().map(code)), "`api_build_info`", "the build's own".to_owned()),
        (code("le"), "histograms", "the buckets' upper bounds".to_owned()),
    ];
    table(["label", "on", "values"], rows.map(|(label, on, values)| [label, on.to_owned(), values]))
}

/// Which statuses each route has a series for before it was ever answered.
fn zeros(families: &[MetricFamily]) -> String {
    let requests = families.iter().filter(|family| family.name() == names::HTTP_REQUESTS_TOTAL.name);
    let mut statuses: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for series in requests.flat_map(MetricFamily::get_metric) {
        let value = |label| series.get_label().iter().find(|pair| pair.name() == label).map_or("", |pair| pair.value());
        let of_method = statuses.entry((value(names::ROUTE), value(names::METHOD))).or_default();
        of_method.push(value(names::STATUS));
    }
    // Methods that are answered alike share a row.
    let mut methods: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for ((route, method), statuses) in statuses {
        methods.entry((route, list(statuses))).or_default().push(method);
    }
    let rows = methods.into_iter().map(|((route, statuses), methods)| [code(route), list(methods), statuses]);
    table(["route", "methods", "statuses"], rows)
}

fn errors() -> String {
    let rows = ErrorKind::ALL
        .iter()
        .map(|kind| [code(kind.error_type()), kind.status().as_u16().to_string(), kind.meaning().to_owned()]);
    table(["error_type", "status", "meaning"], rows)
}

/// A table in Markdown, without the end of its last line.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let lines = rows.into_iter().map(|cells| format!("\n| {} |", cells.join(" | ")).replace("|  |", "| |"));
    format!("| {} |\n|{}", head.join(" | "), "---|".repeat(N)) + &lines.collect::<String>()
}

fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

fn code(text: impl Display) -> String {
    format!("`{text}`")
}
