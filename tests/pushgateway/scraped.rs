//! What a Prometheus that scrapes the gateway answers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::needs;
use crate::runs::{Jobs, Shown};
use crate::servers::prometheus::Prometheus;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PROMETHEUS, PUSHGATEWAY, Test};
use crate::support::{Server, eventually};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([PUSHGATEWAY, PROMETHEUS], each_value_comes_under_the_labels_that_it_was_pushed_with),
        needs!([PUSHGATEWAY, PROMETHEUS], one_question_finds_every_overdue_job),
    ]
}

/// A server that scrapes a gateway as the gateway's documentation asks for.
async fn scraping(binary: &Path, gateway: &Pushgateway) -> Prometheus {
    let scrape = json!([{
        "job_name": "pushgateway",
        "honor_labels": true,
        "static_configs": [{"targets": [gateway.address]}],
    }]);
    Prometheus::start(binary, &scrape).await
}

fn labels<const N: usize>(labels: [(&str, &str); N]) -> BTreeMap<String, String> {
    labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

async fn each_value_comes_under_the_labels_that_it_was_pushed_with([gateway, prometheus]: [PathBuf; 2]) {
    let gateway = Pushgateway::start(&gateway).await;
    let prometheus = scraping(&prometheus, &gateway).await;
    let jobs = Jobs::at(gateway.url(""));
    let grouping = ["--push-grouping", "instance=db1", "--push-grouping", "path=/var/lib \"Łódź\""];
    jobs.run("backup", &grouping, "exit 3").await.ended_quietly_with(3);
    jobs.run("nightly report", &[], "echo 'rows{table=\"a b\"} 5' > $JOB_METRICS_FILE").await.ended_quietly_with(0);
    let server =
        Server::start_with(&["--pushgateway-url", &gateway.url(""), "--push-grouping", "instance=web-1"]).await;
    assert_eq!(server.get("/api/users").await.status, 200);
    server.signal(nix::sys::signal::Signal::SIGTERM);
    let mut server = server;
    assert!(server.exit().await.success());

    prometheus.scraped_after_now().await;

    let in_order = |mut vector: Vec<(BTreeMap<String, String>, f64)>| {
        vector.sort_by(|(a, _), (b, _)| a.cmp(b));
        vector
    };
    let name = ("__name__", "batch_job_last_exit_code");
    let backup = [("instance", "db1"), ("job", "backup"), ("path", "/var/lib \"Łódź\"")];
    let expected = vec![
        (labels([name, backup[0], backup[1], backup[2]]), 3.0),
        // No instance: that of the gateway would be wrong.
        (labels([name, ("job", "nightly report")]), 0.0),
    ];
    assert_eq!(in_order(prometheus.query(name.1).await), expected);
    let rows = labels([("__name__", "rows"), ("job", "nightly report"), ("table", "a b")]);
    assert_eq!(prometheus.query("rows").await, [(rows, 5.0)]);
    let requests = r#"http_requests_total{job="api-monitoring",instance="web-1",route="/api/users",status="200"} > 0"#;
    assert_eq!(prometheus.scalar(requests).await, 1.0);
    // A moment keeps all its digits.
    let end = prometheus.scalar(r#"batch_job_last_end_timestamp_seconds{job="backup"}"#).await;
    assert_eq!(Some(end), Shown::in_group(&gateway.group(&backup).await).end);
    assert_eq!(prometheus.query(r#"{exported_job!=""}"#).await, []);
    assert_eq!(prometheus.query(r#"{exported_instance!=""}"#).await, []);
    assert_eq!(prometheus.scalar(r#"up{job="pushgateway"}"#).await, 1.0);
}

async fn one_question_finds_every_overdue_job([gateway, prometheus]: [PathBuf; 2]) {
    let gateway = Pushgateway::start(&gateway).await;
    let prometheus = scraping(&prometheus, &gateway).await;
    let jobs = Jobs::at(gateway.url(""));
    let (soon, late) = (&["--expect-every", "1s"], &["--expect-every", "1h"]);
    jobs.run("gone", soon, "exit 0").await.ended_quietly_with(0);
    jobs.run("gone", &["--push-grouping", "zone=b", "--expect-every", "1s"], "exit 0").await.ended_quietly_with(0);
    jobs.run("now failing", soon, "exit 0").await.ended_quietly_with(0);
    jobs.run("now failing", soon, "exit 3").await.ended_quietly_with(3);
    jobs.run("fresh", late, "exit 0").await.ended_quietly_with(0);
    jobs.run("fresh but failing", late, "exit 0").await.ended_quietly_with(0);
    jobs.run("fresh but failing", late, "exit 4").await.ended_quietly_with(4);
    jobs.run("of no known interval", &[], "exit 0").await.ended_quietly_with(0);
    jobs.run("never well", soon, "exit 5").await.ended_quietly_with(5);
    let named = async |promql: &str| {
        let mut series = BTreeSet::new();
        for (labels, value) in prometheus.query(promql).await {
            let zone = labels.get("zone").cloned().unwrap_or_default();
            assert!(series.insert((labels["job"].clone(), zone)), "{labels:?} stands twice, also with {value}");
        }
        series
    };
    let set = |names: &[(&str, &str)]| -> BTreeSet<_> {
        names.iter().map(|(job, zone)| ((*job).to_owned(), (*zone).to_owned())).collect()
    };
    let overdue = "time() - batch_job_last_success_timestamp_seconds > batch_job_expected_interval_seconds";

    let expected = set(&[("gone", ""), ("gone", "b"), ("now failing", "")]);
    eventually("all overdue jobs", async || (named(overdue).await.len() >= expected.len()).then_some(())).await;
    // Nothing else is, also later; that a job never went well is the other rule's to tell.
    prometheus.scraped_after_now().await;
    assert_eq!(named(overdue).await, expected);
    let failing = set(&[("now failing", ""), ("fresh but failing", ""), ("never well", "")]);
    assert_eq!(named("batch_job_last_exit_code != 0").await, failing);

    jobs.run("gone", late, "exit 0").await.ended_quietly_with(0);
    prometheus.scraped_after_now().await;
    assert_eq!(
        named(overdue).await,
        set(&[("gone", "b"), ("now failing", "")]),
        "a success ends it, for its group alone"
    );
}
