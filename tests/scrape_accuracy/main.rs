//! The heart of the promise: a real Prometheus scrapes the running API under known traffic, and what its HTTP API
//! answers equals what was sent.
//!
//! Prometheus is taken from `PROMETHEUS`, from the path, or from `target/tools`, where `make tools` puts it. Where
//! there is none, these tests are reported as ignored with the reason; with `CI=true` they fail.

#![allow(clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

#[allow(dead_code, reason = "shared with the other test binaries, which use all of it")]
#[path = "../servers/mod.rs"]
mod servers;
#[allow(dead_code, reason = "shared with the other test binaries, which use all of it")]
#[path = "../it/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{ExitCode, Stdio};

use serde_json::Value;

use servers::PROMETHEUS;
use servers::prometheus::{Prometheus, Vector};
use support::{Server, binary};

fn main() -> ExitCode {
    servers::run(vec![
        needs!([PROMETHEUS], what_prometheus_counts_equals_what_load_sent),
        needs!([PROMETHEUS], the_first_error_ever_shows_in_increase),
    ])
}

type Counts = BTreeMap<Vec<String>, u64>;

/// Runs `load` to its end and gives its report.
async fn load(server: &Server, arguments: &[&str]) -> Value {
    let report = server.folder.path().join("report.json");
    let status = tokio::process::Command::from(binary(server.folder.path()))
        .args(["load", "--target", &server.url(""), "--report", report.to_str().unwrap()])
        // However slow this machine is at the moment, nothing waits for a place.
        .args(["--concurrency", "100000"])
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap()
}

/// The report's counts by method, route and status.
fn reported(report: &Value) -> Counts {
    let operations = report["operations"].as_array().unwrap();
    let rows = operations.iter().flat_map(|operation| {
        let labels = [operation["method"].as_str().unwrap(), operation["route"].as_str().unwrap()];
        operation["statuses"].as_object().unwrap().iter().map(move |(status, count)| {
            let count = count["answered"].as_u64().unwrap();
            (labels.into_iter().chain([status.as_str()]).map(str::to_owned).collect(), count)
        })
    });
    rows.collect()
}

/// A vector's values by some labels, those at 0 left out.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn counted(vector: &Vector, labels: &[&str]) -> Counts {
    let rows = vector.iter().filter(|(_, value)| *value != 0.0).map(|(series, value)| {
        assert!(value.fract() == 0.0 && *value > 0.0, "{series:?} counts {value}");
        (labels.iter().map(|label| series[*label].clone()).collect(), *value as u64)
    });
    rows.collect()
}

async fn what_prometheus_counts_equals_what_load_sent([tool]: [PathBuf; 1]) {
    let server = Server::start().await;
    let prometheus = Prometheus::scraping(&tool, &server.address).await;
    prometheus.scraped_after_now().await;

    let report = load(&server, &["--rate", "60", "--duration", "25s", "--seed", "2026"]).await;
    prometheus.scraped_after_now().await;

    // Everything that was sent was answered, so that the two sides speak of the same requests.
    assert_eq!(report["sent"], 1500);
    assert_eq!(report["answered"], 1500);

    let requests = prometheus.query("http_requests_total").await;
    let counts = counted(&requests, &["method", "route", "status"]);
    print_comparison(&reported(&report), &counts);
    assert_eq!(counts, reported(&report), "requests by method, route and status");

    let durations = prometheus.query("http_request_duration_seconds_count").await;
    let answered = report["operations"].as_array().unwrap().iter().map(|operation| {
        let labels = ["method", "route"].map(|label| operation[label].as_str().unwrap().to_owned());
        (labels.to_vec(), operation["answered"].as_u64().unwrap())
    });
    assert_eq!(counted(&durations, &["method", "route"]), answered.collect(), "the histogram's counts");

    let errors = prometheus.query("api_errors_total").await;
    let by_type = report["errors"].as_object().unwrap();
    let by_type = by_type.iter().map(|(kind, count)| (vec![kind.clone()], count.as_u64().unwrap()));
    assert_eq!(counted(&errors, &["error_type"]), by_type.collect(), "errors by type");

    quantiles_agree(&prometheus, &report).await;

    assert_eq!(prometheus.scalar("sum(http_requests_in_progress)").await, 0.0, "in progress in the end");
    let busiest = prometheus.scalar("max_over_time(sum(http_requests_in_progress)[1m:1s])").await;
    assert!(busiest >= 1.0, "slow requests were seen in progress: {busiest}");

    assert_eq!(prometheus.scalar("app_requests_total").await, 1500.0, "the legacy count");
    let created = reported(&report)[&["POST", "/api/users", "201"].map(str::to_owned).to_vec()];
    let deleted = reported(&report)[&["DELETE", "/api/users/{id}", "204"].map(str::to_owned).to_vec()];
    assert_eq!(prometheus.scalar("api_users_registered_total").await, created as f64);
    assert_eq!(prometheus.scalar("api_users_deleted_total").await, deleted as f64);
    let users = server.get("/api/users").await.json();
    assert_eq!(prometheus.scalar("api_users").await, users["count"].as_f64().unwrap());
}

/// The quantiles lie at most one bucket apart: the service measures a part of what the client measures, and
/// `histogram_quantile` interpolates within a bucket. Only medians of the quick routes are compared: above them, a busy
/// machine delays the client more than the service. What is wrong with a histogram shows at `/api/slow`, whose
/// latencies spread over 2 to 3 s.
async fn quantiles_agree(prometheus: &Prometheus, report: &Value) {
    let bucket = |seconds: f64| {
        let bounds = api_monitoring::metrics::names::HTTP_REQUEST_DURATION_BUCKETS;
        i64::try_from(bounds.iter().take_while(|bound| **bound < seconds).count()).unwrap()
    };
    let mut compared = 0;
    for operation in report["operations"].as_array().unwrap() {
        let (method, route) = (operation["method"].as_str().unwrap(), operation["route"].as_str().unwrap());
        if operation["answered"].as_u64().unwrap() < 10 {
            continue;
        }
        let quantiles: &[(&str, &str)] =
            if route == "/api/slow" { &[("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99")] } else { &[("0.5", "p50")] };
        for (quantile, key) in quantiles {
            let series = format!("http_request_duration_seconds_bucket{{method=\"{method}\",route=\"{route}\"}}");
            let theirs = prometheus.scalar(&format!("histogram_quantile({quantile}, sum by (le) ({series}))")).await;
            let ours = operation["latency_seconds"][key].as_f64().unwrap();
            let apart = bucket(ours) - bucket(theirs);
            assert!((-1..=1).contains(&apart), "{key} of {method} {route}: load {ours} s, Prometheus {theirs} s");
            compared += 1;
        }
    }
    assert!(compared > 15, "only {compared} quantiles were compared");
}

async fn the_first_error_ever_shows_in_increase([tool]: [PathBuf; 1]) {
    let server = Server::start().await;
    let prometheus = Prometheus::scraping(&tool, &server.address).await;
    prometheus.scraped_after_now().await;

    server.get("/api/error").await;
    server.get("/api/users/abc").await;
    prometheus.scraped_after_now().await;

    // A series that only appeared with its first error would show no increase at all. The exact value is extrapolated
    // to the window's ends, so it is not compared.
    for series in [
        r#"http_requests_total{method="GET",route="/api/error",status="500"}"#,
        r#"api_errors_total{error_type="simulated"}"#,
        r#"http_requests_total{method="GET",route="/api/users/{id}",status="422"}"#,
    ] {
        assert!(prometheus.scalar(&format!("increase({series}[1m])")).await >= 0.9, "{series}");
        assert!(prometheus.scalar(&format!("rate({series}[1m])")).await > 0.0, "{series}");
    }
    let ratio = "sum(increase(http_requests_total{status=~\"5..\"}[1m])) / sum(increase(http_requests_total[1m]))";
    assert_eq!(prometheus.scalar(ratio).await, 0.5, "one of two requests failed, aggregated on both sides");
}

fn print_comparison(sent: &Counts, counted: &Counts) {
    println!("{:<8}{:<18}{:<8}{:>6}{:>12}", "METHOD", "ROUTE", "STATUS", "LOAD", "PROMETHEUS");
    let labels: std::collections::BTreeSet<_> = sent.keys().chain(counted.keys()).collect();
    for labels in labels {
        let [method, route, status] = labels.as_slice() else { unreachable!("three labels") };
        let of = |counts: &Counts| counts.get(labels).copied().unwrap_or_default();
        println!("{method:<8}{route:<18}{status:<8}{:>6}{:>12}", of(sent), of(counted));
    }
    let total = |counts: &Counts| counts.values().sum::<u64>();
    println!("{:<34}{:>6}{:>12}", "in all", total(sent), total(counted));
}
