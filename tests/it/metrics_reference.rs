//! docs/metrics.md is what its generator prints, and what it says of each metric is so.

use std::collections::BTreeMap;
use std::path::Path;

use api_monitoring::api::surface::OPERATIONS;
use api_monitoring::metrics::names::{METHODS, OTHER_METHOD, UNMATCHED};
use tokio::net::TcpSocket;

use crate::gateway::{Gateway, Reply, run, unused_address};
use crate::support::{Samples, Server};

#[allow(dead_code, reason = "its `main` is the example's")]
#[path = "../../examples/metrics_reference.rs"]
mod generator;

fn file(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What the page says of a family.
#[derive(Debug)]
struct Row {
    name: String,
    kind: String,
    labels: Vec<String>,
    at_start: usize,
    at_most: usize,
    meaning: String,
}

fn rows() -> Vec<Row> {
    let page = generator::page().unwrap();
    let rows = page.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| `")?.trim_end_matches(" |").split('|').map(str::trim).collect();
        let [name, kind, _unit, labels, series, meaning] = cells[..] else { return None };
        let words = |text: &str| text.split(", ").map(|word| word.trim_matches('`').to_owned()).collect::<Vec<_>>();
        let numbers: Vec<usize> =
            words(series).iter().map(|n| n.trim_start_matches("at most ").parse().unwrap()).collect();
        Some(Row {
            name: name.trim_end_matches('`').to_owned(),
            kind: kind.to_owned(),
            labels: words(labels).into_iter().filter(|label| !label.is_empty()).collect(),
            at_start: numbers[0],
            at_most: numbers[numbers.len() - 1],
            meaning: meaning.to_owned(),
        })
    });
    rows.collect()
}

/// The number that follows these words, in bold.
fn stated(words: &str) -> usize {
    let page = generator::page().unwrap().replace('\n', " ");
    let (_, rest) =
        page.split_once(&format!("{words} **")).unwrap_or_else(|| panic!("the page does not say {words:?}"));
    rest.split_once("**").unwrap().0.parse().unwrap()
}

/// How many series of each family a scrape holds, by the family's `TYPE` line.
fn series(text: &str) -> BTreeMap<&str, usize> {
    let mut families = BTreeMap::new();
    let mut current = "";
    for line in text.lines() {
        match line.strip_prefix("# TYPE ") {
            Some(family) => current = family.split(' ').next().unwrap(),
            None if line.starts_with('#') => {}
            None => *families.entry(current).or_default() += 1,
        }
    }
    families
}

/// A service that pushes, and the address to which it does: nothing listens there.
async fn pushing() -> (Server, TcpSocket) {
    let (address, gateway) = unused_address();
    (Server::start_with(&["--pushgateway-url", &format!("http://{address}")]).await, gateway)
}

// The generator leaves `process_*` out where the service does.
#[cfg(target_os = "linux")]
#[test]
fn the_page_is_what_the_generator_prints() {
    let (committed, printed) = (file("docs/metrics.md"), generator::page().unwrap());

    let differ = committed.lines().zip(printed.lines()).find(|(committed, printed)| committed != printed);
    assert!(
        committed == printed,
        "docs/metrics.md is out of date; run: cargo run --example metrics_reference > docs/metrics.md\n{differ:#?}"
    );
}

#[tokio::test]
async fn every_family_that_the_service_exposes_is_on_the_page_as_it_is() {
    let (server, _gateway) = pushing().await;

    let scrape = server.get("/metrics").await.text();

    let rows = rows();
    let row =
        |name: &str| rows.iter().find(|row| row.name == name).unwrap_or_else(|| panic!("{name} is not on the page"));
    for (name, kind) in scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) {
        assert_eq!(row(name).kind, kind, "{name}");
    }
    for (name, help) in scrape.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ')) {
        assert!(row(name).meaning.starts_with(help), "{name}: {help:?} is not {:?}", row(name).meaning);
    }
    for sample in Samples::parse(&scrape).0 {
        let suffixes = ["", "_bucket", "_sum", "_count"];
        let family = suffixes.iter().filter_map(|suffix| sample.name.strip_suffix(suffix));
        let row = family.flat_map(|family| rows.iter().filter(move |row| row.name == family)).next();
        let labels: Vec<_> = sample.labels.into_keys().filter(|label| label != "le").collect();
        assert_eq!(row.unwrap().labels, labels, "{}", sample.name);
    }
}

#[tokio::test]
async fn a_service_that_has_just_started_exposes_as_many_series_as_the_page_says() {
    let (server, _gateway) = pushing().await;

    let scrape = server.get("/metrics").await.text();

    let series = series(&scrape);
    for row in rows().iter().filter(|row| series.contains_key(row.name.as_str())) {
        assert_eq!(series[row.name.as_str()], row.at_start, "{}", row.name);
    }
    assert_eq!(series.values().sum::<usize>(), stated("holds") + stated("series, and"));
}

#[tokio::test]
async fn every_method_on_every_route_makes_no_more_series_than_the_page_says() {
    let (server, _gateway) = pushing().await;
    let paths = OPERATIONS.iter().map(|operation| operation.template.replace("{id}", "1").replace("{file}", "x"));
    for path in paths.chain(["/nowhere".to_owned()]) {
        for method in METHODS.into_iter().chain(["BREW"]) {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            server.exchange(request.as_bytes()).await;
        }
    }

    let scrape = server.get("/metrics").await.text();

    let series = series(&scrape);
    for row in rows().iter().filter(|row| series.contains_key(row.name.as_str())) {
        let count = series[row.name.as_str()];
        assert!(count <= row.at_most, "{} has {count} series, and at most {}", row.name, row.at_most);
        // Where no status is among the labels, that was all there can be.
        assert!(count == row.at_most || row.labels.contains(&"status".to_owned()), "{}: {count}", row.name);
    }
    assert!(series.values().sum::<usize>() <= stated("never more than"));
    assert!([OTHER_METHOD, UNMATCHED].iter().all(|value| scrape.contains(&format!("\"{value}\""))));
}

#[test]
fn the_most_series_fit_into_a_scrape() {
    let configuration = file("prometheus/prometheus.yml");
    let limits = configuration.lines().filter_map(|line| line.trim().strip_prefix("sample_limit: "));
    let limits: Vec<usize> = limits.map(|limit| limit.parse().unwrap()).collect();

    assert!(!limits.is_empty() && limits.iter().all(|limit| stated("never more than") < *limit), "{limits:?}");
}

#[tokio::test]
async fn every_family_that_a_job_pushes_is_on_the_page() {
    let gateway = Gateway::answering([Reply::ok()]).await;

    run(&gateway.url(), &["--expect-every", "1h"], "true").await;

    let mut pushed = gateway.request(1).await.families().into_iter().map(str::to_owned).collect::<Vec<_>>();
    let mut listed: Vec<_> =
        rows().into_iter().map(|row| row.name).filter(|name| name.starts_with("batch_job_")).collect();
    pushed.sort();
    listed.sort();
    assert_eq!(pushed, listed);
}
