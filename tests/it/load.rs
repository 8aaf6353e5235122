//! `load`: what it sends is what it reports, and what the service counts.

use std::path::Path;
use std::process::{Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::support::{Server, binary, eventually, in_time};

/// Runs `load` to its end.
async fn load(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = tokio::process::Command::from(binary(folder));
    command.arg("load").args(arguments).stdin(Stdio::null()).output().await.unwrap()
}

fn read_report(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn line(bytes: &[u8]) -> String {
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

/// The sum of the numbers under one key of every operation of a report.
fn total(report: &Value, key: &str) -> u64 {
    report["operations"].as_array().unwrap().iter().map(|operation| operation[key].as_u64().unwrap()).sum()
}

#[tokio::test]
async fn the_report_holds_exactly_what_the_service_counted() {
    let server = Server::start().await;
    let folder = server.folder.path();

    // However slow this machine is at the moment, nothing waits for a place.
    let all = ["--concurrency", "100000"];
    let arguments = ["--target", &server.url(""), "--rate", "250", "--duration", "2s", "--report", "r.json"];
    let arguments = [&arguments[..], &all].concat();
    let output = load(folder, &arguments).await;

    assert!(output.status.success(), "{output:?}");
    let report = read_report(&folder.join("r.json"));
    assert_eq!(report["sent"], 500, "250 a second for 2 s");
    assert_eq!((total(&report, "sent"), total(&report, "answered")), (500, 500));
    let metrics = server.metrics().await;
    for operation in report["operations"].as_array().unwrap() {
        let (method, route) = (operation["method"].as_str().unwrap(), operation["route"].as_str().unwrap());
        for (status, count) in operation["statuses"].as_object().unwrap() {
            let labels = [("method", method), ("route", route), ("status", status.as_str())];
            assert_eq!(
                metrics.value("http_requests_total", &labels),
                count["answered"].as_f64().unwrap(),
                "{labels:?}"
            );
            let latency = &count["latency_seconds"];
            assert!(latency["p50"].as_f64().unwrap() <= latency["max"].as_f64().unwrap(), "{labels:?}: {latency}");
        }
    }
    assert_eq!(metrics.sum("http_requests_total", &[]), 500.0, "and nothing else was counted");
    for (kind, count) in report["errors"].as_object().unwrap() {
        assert_eq!(metrics.value("api_errors_total", &[("error_type", kind)]), count.as_f64().unwrap(), "{kind}");
    }
    assert_eq!(
        metrics.sum("api_errors_total", &[]),
        report["errors"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum::<f64>()
    );
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.starts_with("500 requests sent in 2.0 s, 500 answered\n"), "{table}");
}

#[tokio::test]
async fn the_report_can_go_to_stdout_alone() {
    let server = Server::start().await;

    let arguments = ["--target", &server.url(""), "--rate", "50", "--duration", "200ms", "--report", "-"];
    let output = load(server.folder.path(), &arguments).await;

    let report: Value = serde_json::from_slice(&output.stdout).expect("nothing but JSON");
    assert_eq!(report["sent"], 10);
    assert_eq!(report["interrupted"], false);
}

#[tokio::test]
async fn ctrl_c_stops_the_traffic_and_the_report_still_holds_all_of_it() {
    let server = Server::start().await;
    let path = server.folder.path().join("r.json");
    let child = tokio::process::Command::from(binary(server.folder.path()))
        .args(["load", "--target", &server.url(""), "--rate", "100", "--duration", "1h", "--report", "r.json"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("some traffic", async || (server.metrics().await.sum("http_requests_total", &[]) > 50.0).then_some(()))
        .await;

    kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = child.wait_with_output().await.unwrap();

    assert!(output.status.success(), "{output:?}");
    let report = read_report(&path);
    assert_eq!(report["interrupted"], true);
    assert_eq!(report["sent"], report["answered"], "requests in flight were waited for");
    let counted = server.metrics().await.sum("http_requests_total", &[]);
    assert_eq!(report["answered"].as_f64().unwrap(), counted);
}

#[tokio::test]
async fn requests_without_an_answer_are_reported_with_the_reason() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = format!("http://{}", listener.local_addr().unwrap());
    // A server that closes every connection without a word.
    let closing = tokio::spawn(async move {
        loop {
            drop(listener.accept().await.unwrap());
        }
    });
    let folder = tempfile::tempdir().unwrap();

    let arguments = ["--target", &target, "--rate", "50", "--duration", "200ms", "--report", "-"];
    let output = load(folder.path(), &arguments).await;
    closing.abort();

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["sent"], &report["answered"]), (&Value::from(10), &Value::from(0)));
    assert_eq!(report["unanswered"]["the connection broke"], 10, "{report}");
}

#[tokio::test]
async fn at_the_limit_of_requests_in_flight_others_start_late_and_the_report_says_so() {
    let server = Server::start().await;

    // Seed 1 sends its first slow request within these; with one request in flight it holds all others up.
    let arguments =
        ["--target", &server.url(""), "--rate", "200", "--duration", "1s", "--concurrency", "1", "--report", "-"];
    let output = load(server.folder.path(), &arguments).await;

    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let (sent, not_started) = (report["sent"].as_u64().unwrap(), report["not_started"].as_u64().unwrap());
    assert!(not_started > 0, "{report}");
    assert_eq!(sent + not_started, 200, "200 a second for 1 s");
    assert_eq!(report["sent"], report["answered"]);
}

#[tokio::test]
async fn a_report_may_go_to_a_pipe_and_through_a_link() {
    let server = Server::start().await;
    let (folder, target) = (server.folder.path(), server.url(""));
    let load_to = async |path| {
        load(folder, &["--target", &target, "--rate", "50", "--duration", "100ms", "--report", path]).await.status
    };
    std::os::unix::fs::symlink("real.json", folder.join("link.json")).unwrap();
    std::fs::write(folder.join("real.json"), "old").unwrap();
    // A pipe stands for all that must be written to and not replaced, such as /dev/null.
    let pipe = folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader =
        tokio::process::Command::new("cat").arg(&pipe).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();

    assert!(load_to("pipe").await.success());
    assert!(load_to("link.json").await.success());

    let through_the_pipe: Value =
        serde_json::from_slice(&in_time("the report", reader.wait_with_output()).await.unwrap().stdout).unwrap();
    assert_eq!(through_the_pipe["sent"], 5);
    assert!(folder.join("link.json").is_symlink(), "the link is left as it is");
    assert_eq!(read_report(&folder.join("real.json"))["sent"], 5);
}

#[tokio::test]
async fn nothing_is_sent_when_the_target_or_the_report_cannot_be_reached() {
    let server = Server::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let folder = server.folder.path();
    std::fs::write(folder.join("old.json"), "kept").unwrap();

    let unreachable = load(folder, &["--target", &format!("http://{free}"), "--report", "old.json"]).await;
    let unwritable = load(folder, &["--target", &server.url(""), "--report", "nowhere/r.json"]).await;
    let directory = load(folder, &["--target", &server.url(""), "--report", "."]).await;

    assert_eq!(unreachable.status.code(), Some(1));
    let said = line(&unreachable.stderr);
    assert!(
        said.starts_with(&format!("api-monitoring: cannot reach http://{free}/ (--target, LOAD_TARGET): ")),
        "{said}"
    );
    assert_eq!(std::fs::read_to_string(folder.join("old.json")).unwrap(), "kept", "an old report is not lost");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!files.collect::<Vec<_>>().iter().any(|name| name.starts_with('.')), "nothing half-written is left");
    for (output, path) in [(unwritable, "nowhere/r.json"), (directory, ".")] {
        assert_eq!(output.status.code(), Some(1));
        let said = line(&output.stderr);
        assert!(said.contains(&format!("cannot write the report to {path:?} (--report, LOAD_REPORT): ")), "{said}");
    }
    assert_eq!(server.metrics().await.sum("http_requests_total", &[]), 0.0);
}
