//! `job` against a real gateway.

use std::path::PathBuf;

use crate::needs;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PUSHGATEWAY, Test};
use crate::support::{binary, finished};

pub fn tests() -> Vec<Test> {
    vec![needs!([PUSHGATEWAY], a_failed_run_keeps_the_last_success_timestamp)]
}

async fn a_failed_run_keeps_the_last_success_timestamp([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let folder = tempfile::tempdir().unwrap();
    let run = async |command: &str| {
        let mut job = binary(folder.path());
        job.args(["job", "--name", "backup", "--pushgateway-url", &gateway.url(""), "--", "sh", "-c", command]);
        finished(job).await.status.code()
    };
    let group = [("job", "backup")];

    assert_eq!(run("exit 0").await, Some(0));
    let first = gateway.metrics().await;
    assert_eq!(run("exit 3").await, Some(3));
    let second = gateway.metrics().await;

    let success = "batch_job_last_success_timestamp_seconds";
    assert_eq!(second.sum(success, &group), first.sum(success, &group));
    let end = "batch_job_last_end_timestamp_seconds";
    assert!(second.sum(end, &group) > first.sum(end, &group));
    assert_eq!(second.sum("batch_job_last_exit_code", &group), 3.0);
}
