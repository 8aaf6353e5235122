//! The README's batch jobs, run as they are written.

use std::path::PathBuf;

use serde_json::json;

use crate::examples::examples;
use crate::needs;
use crate::servers::prometheus::Prometheus;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PROMETHEUS, PUSHGATEWAY, Test};

pub fn tests() -> Vec<Test> {
    vec![needs!([PUSHGATEWAY, PROMETHEUS], the_batch_jobs_of_the_readme_show_what_happens)]
}

async fn the_batch_jobs_of_the_readme_show_what_happens([gateway, prometheus]: [PathBuf; 2]) {
    let gateway = Pushgateway::start(&gateway).await;
    let scrape = json!([{
        "job_name": "pushgateway",
        "honor_labels": true,
        "static_configs": [{"targets": [gateway.address]}],
    }]);
    let prometheus = Prometheus::start(&prometheus, &scrape).await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "to be backed up").unwrap();
    let backup = tempfile::tempdir().unwrap();
    let backup = backup.path().join("backup.tgz").display().to_string();
    let places = [
        ("localhost:9091", gateway.address.as_str()),
        ("localhost:9090", prometheus.address()),
        ("/tmp/backup.tgz", &backup),
    ];
    let examples = examples("Batch jobs");
    assert!(examples.len() >= 8, "only {} examples were found", examples.len());

    for (index, example) in examples.iter().enumerate() {
        if index == 3 {
            // The gateway has been shown; Prometheus is asked next.
            prometheus.scraped_after_now().await;
        }
        example.run(folder.path(), &places).await.unwrap_or_else(|difference| panic!("{difference}"));
    }
}
