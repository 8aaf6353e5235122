//! `serve` with push on.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::needs;
use crate::runs::{Run, found, now};
use crate::servers::Place;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PUSHGATEWAY, Test};
use crate::support::{Answer, Process, Server, binary, client, eventually, in_time};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([PUSHGATEWAY], the_metrics_arrive_under_the_job_and_an_instance_of_host_and_port),
        needs!([PUSHGATEWAY], what_the_gateway_shows_is_what_was_requested),
        needs!([PUSHGATEWAY], two_services_do_not_overwrite_each_other),
        needs!([PUSHGATEWAY], the_last_push_has_the_requests_that_the_drain_waited_for),
        needs!([PUSHGATEWAY], a_service_that_deletes_on_exit_leaves_no_group),
        needs!([PUSHGATEWAY], a_service_pushes_to_a_gateway_under_a_path_and_deletes_there),
        needs!([PUSHGATEWAY], job_and_labels_of_the_group_come_from_flags),
        needs!([PUSHGATEWAY], job_and_labels_of_the_group_come_from_the_environment),
        needs!([PUSHGATEWAY], a_label_that_the_metrics_have_themselves_ends_the_start),
        needs!([PUSHGATEWAY], the_services_own_metrics_tell_of_its_pushes),
        needs!([PUSHGATEWAY], a_gateway_that_is_not_there_at_the_start_gets_the_metrics_later),
        needs!([PUSHGATEWAY], a_killed_gateway_costs_no_request_and_gets_the_metrics_when_it_is_back),
        needs!([PUSHGATEWAY], a_hanging_gateway_holds_up_neither_requests_nor_the_end),
        needs!([PUSHGATEWAY], a_refusing_gateway_costs_a_log_line_and_a_count),
    ]
}

const USERS: &[(&str, &str)] = &[("method", "GET"), ("route", "/api/users"), ("status", "200")];
const SLOW: &[(&str, &str)] = &[("method", "GET"), ("route", "/api/slow"), ("status", "200")];

/// A service that pushes often, or only at its start and its end.
const OFTEN: &str = "200ms";
const SELDOM: &str = "24h";

async fn pushing(url: &str, interval: &str, more: &[&str]) -> Server {
    Server::start_with(&[&["--pushgateway-url", url, "--push-interval", interval], more].concat()).await
}

/// Host and port, as the service names its instance.
fn instance(server: &Server) -> String {
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    format!("{host}:{}", server.address.rsplit(':').next().unwrap())
}

/// A value that the gateway shows of the service's group.
async fn shown(gateway: &Pushgateway, instance: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    found(&gateway.group(&[("job", "api-monitoring"), ("instance", instance)]).await, name, labels)
}

/// Waits until a push that began after this call has arrived.
async fn pushed_after_now(gateway: &Pushgateway, instance: &str) {
    // Each tells of those before it.
    let pushes = async || shown(gateway, instance, "push_attempts_total", &[("result", "success")]).await;
    let before = eventually("a push", &pushes).await;
    // The next one may be under way, and gathered, already.
    eventually("two more pushes", async || pushes().await.filter(|pushes| *pushes >= before + 2.0)).await;
}

/// Attempts by how they ended: success, refused, unavailable.
async fn attempts(server: &Server) -> [f64; 3] {
    let metrics = server.metrics().await;
    ["success", "refused", "unavailable"].map(|result| metrics.value("push_attempts_total", &[("result", result)]))
}

async fn requests(server: &Server, count: usize) {
    for _ in 0..count {
        assert_eq!(server.get("/api/users").await.status, 200);
    }
}

/// Tells the service to end, and waits for an end without failure.
async fn end(mut server: Server) {
    server.signal(Signal::SIGTERM);
    let status = server.exit().await;
    assert!(status.success(), "{status}: {:?}", server.log());
}

async fn the_metrics_arrive_under_the_job_and_an_instance_of_host_and_port([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let server = pushing(&gateway.url(""), OFTEN, &[]).await;
    let instance = instance(&server);

    pushed_after_now(&gateway, &instance).await;

    let labels = [("instance", instance.as_str()), ("job", "api-monitoring")];
    assert_eq!(
        gateway.groups().await,
        [BTreeMap::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned())))]
    );
    // Every series of the service is there, and the gateway adds two.
    let mut expected = server.metrics().await.series();
    let own = ["push_failure_time_seconds", "push_time_seconds"];
    expected.extend(own.map(|name| (name.to_owned(), BTreeMap::new())));
    expected.sort();
    let mut series = gateway.group(&labels).await.series();
    series.sort();
    assert_eq!(series, expected);
}

async fn what_the_gateway_shows_is_what_was_requested([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let server = pushing(&gateway.url(""), OFTEN, &[]).await;
    let instance = instance(&server);

    for (more, in_all) in [(0, 0.0), (7, 7.0), (12, 19.0)] {
        requests(&server, more).await;
        pushed_after_now(&gateway, &instance).await;

        assert_eq!(shown(&gateway, &instance, "http_requests_total", USERS).await, Some(in_all));
    }
    server.create("Łukasz").await;
    pushed_after_now(&gateway, &instance).await;
    assert_eq!(shown(&gateway, &instance, "api_users", &[]).await, Some(1.0));
}

async fn two_services_do_not_overwrite_each_other([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let first = pushing(&gateway.url(""), OFTEN, &[]).await;
    let second = pushing(&gateway.url(""), OFTEN, &[]).await;
    let instances = [instance(&first), instance(&second)];
    let counts = async || {
        let [first, second] = &instances;
        [
            shown(&gateway, first, "http_requests_total", USERS).await,
            shown(&gateway, second, "http_requests_total", USERS).await,
        ]
    };

    requests(&first, 3).await;
    requests(&second, 8).await;
    for instance in &instances {
        pushed_after_now(&gateway, instance).await;
    }

    assert_eq!(counts().await, [Some(3.0), Some(8.0)]);
    assert_eq!(gateway.groups().await.len(), 2);
    // When one is gone, the other's pushes leave what it said.
    end(first).await;
    requests(&second, 1).await;
    pushed_after_now(&gateway, &instances[1]).await;
    assert_eq!(counts().await, [Some(3.0), Some(9.0)]);
}

async fn the_last_push_has_the_requests_that_the_drain_waited_for([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let server = pushing(&gateway.url(""), SELDOM, &[]).await;
    let instance = instance(&server);
    eventually("the first push", async || (gateway.pushes("put").await == 1.0).then_some(())).await;
    requests(&server, 5).await;
    let slow = tokio::spawn(Answer::to(server.request("GET", "/api/slow")));
    server.in_progress("/api/slow", 1).await;
    assert_eq!(shown(&gateway, &instance, "http_requests_total", USERS).await, Some(0.0), "the interval is long");

    end(server).await;

    assert_eq!(in_time("the slow answer", slow).await.unwrap().status, 200);
    assert_eq!(shown(&gateway, &instance, "http_requests_total", USERS).await, Some(5.0));
    assert_eq!(shown(&gateway, &instance, "http_requests_total", SLOW).await, Some(1.0));
    let in_progress = gateway.metrics().await.sum("http_requests_in_progress", &[]);
    assert_eq!(in_progress, 0.0);
    assert_eq!(gateway.pushes("put").await, 2.0, "one at the start, one at the end");
}

async fn a_service_that_deletes_on_exit_leaves_no_group([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let leaving = pushing(&gateway.url(""), OFTEN, &["--push-delete-on-exit"]).await;
    let staying = pushing(&gateway.url(""), OFTEN, &[]).await;
    let staying = instance(&staying);
    pushed_after_now(&gateway, &instance(&leaving)).await;
    pushed_after_now(&gateway, &staying).await;

    end(leaving).await;

    // The gateway accepts a deletion before it has made it.
    let groups = eventually("the deletion", async || Some(gateway.groups().await).filter(|all| all.len() < 2)).await;
    assert_eq!(groups.iter().map(|labels| labels["instance"].as_str()).collect::<Vec<_>>(), [staying.as_str()]);
}

async fn a_service_pushes_to_a_gateway_under_a_path_and_deletes_there([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start_under(&tool, Place::reserve(), "/pushgateway").await;
    let server = pushing(&gateway.url("/"), OFTEN, &["--push-delete-on-exit"]).await;
    pushed_after_now(&gateway, &instance(&server)).await;

    end(server).await;

    eventually("the deletion", async || gateway.groups().await.is_empty().then_some(())).await;
}

async fn job_and_labels_of_the_group_come_from_flags([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let flags = ["--push-job", "users/api", "--push-grouping", "zone=eu/north a", "--push-grouping", "instance=web-1"];
    let server = pushing(&gateway.url(""), OFTEN, &flags).await;
    requests(&server, 4).await;

    eventually("a push", async || (gateway.pushes("put").await >= 1.0).then_some(())).await;
    end(server).await;

    let labels = [("instance", "web-1"), ("job", "users/api"), ("zone", "eu/north a")];
    let expected = BTreeMap::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(gateway.groups().await, [expected]);
    assert_eq!(gateway.group(&labels).await.value("http_requests_total", USERS), 4.0);
}

async fn job_and_labels_of_the_group_come_from_the_environment([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    command.env("PUSHGATEWAY_URL", gateway.url("")).env("PUSH_INTERVAL", SELDOM).env("PUSH_JOB", "users-api");
    command.env("PUSH_GROUPING", "zone=eu,path=/var/lib,empty=,instance=web-2");
    let mut server = Process::spawn(command);
    server.line("\"ready\"").await;

    server.signal(Signal::SIGTERM);
    assert!(server.exit().await.success(), "{:?}", server.lines());

    let labels = [("empty", ""), ("instance", "web-2"), ("job", "users-api"), ("path", "/var/lib"), ("zone", "eu")];
    let expected = BTreeMap::from(labels.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(gateway.groups().await, [expected]);
}

async fn a_label_that_the_metrics_have_themselves_ends_the_start([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let folder = tempfile::tempdir().unwrap();

    for (label, metric) in [("route", "http_request_duration_seconds"), ("result", "push_attempts_total")] {
        let mut command = binary(folder.path());
        command.args(["serve", "--listen", "127.0.0.1:0", "--pushgateway-url", &gateway.url("")]);
        command.args(["--push-grouping", &format!("{label}=x")]);

        let run = Run::of(command).await;

        assert_eq!(run.code, Some(1), "{run:?}");
        let sentence = format!(
            "api-monitoring: the metrics cannot be pushed: the metric {metric} has the label {label}, \
             which is part of the grouping key\n"
        );
        assert_eq!(run.said, sentence);
    }
    assert_eq!(gateway.groups().await, [], "nothing was pushed");
}

async fn the_services_own_metrics_tell_of_its_pushes([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let before = now();
    let server = pushing(&gateway.url(""), SELDOM, &[]).await;

    let metrics = eventually("the first push", async || {
        let metrics = server.metrics().await;
        (metrics.value("push_last_success_timestamp_seconds", &[]) != 0.0).then_some(metrics)
    })
    .await;

    assert_eq!(attempts(&server).await, [1.0, 0.0, 0.0]);
    let last_success = metrics.value("push_last_success_timestamp_seconds", &[]);
    let arrived = shown(&gateway, &instance(&server), "push_time_seconds", &[]).await.unwrap();
    assert!(before <= arrived && arrived <= last_success && last_success <= now(), "{before} {arrived} {last_success}");
    assert_eq!(metrics.value("push_duration_seconds_count", &[]), 1.0);
    let duration = metrics.value("push_duration_seconds_sum", &[]);
    assert!(duration > 0.0 && duration <= last_success - before, "{duration}");
    let buckets = metrics.0.iter().filter(|sample| sample.name == "push_duration_seconds_bucket").count();
    assert!(buckets > 5, "{metrics}");
}

async fn a_gateway_that_is_not_there_at_the_start_gets_the_metrics_later([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let server = pushing(&place.url(""), OFTEN, &[]).await;
    requests(&server, 3).await;
    eventually("pushes in vain", async || (attempts(&server).await[2] >= 3.0).then_some(())).await;
    assert_eq!(attempts(&server).await[..2], [0.0, 0.0]);
    assert_eq!(server.metrics().await.value("push_last_success_timestamp_seconds", &[]), 0.0);

    let gateway = Pushgateway::start_at(&tool, place).await;
    pushed_after_now(&gateway, &instance(&server)).await;

    assert_eq!(shown(&gateway, &instance(&server), "http_requests_total", USERS).await, Some(3.0));
    end(server).await;
}

async fn a_killed_gateway_costs_no_request_and_gets_the_metrics_when_it_is_back([tool]: [PathBuf; 1]) {
    let mut gateway = Pushgateway::start(&tool).await;
    let server = pushing(&gateway.url(""), OFTEN, &[]).await;
    pushed_after_now(&gateway, &instance(&server)).await;

    gateway.kill();
    let [_, refused, unavailable] = attempts(&server).await;
    eventually("three pushes in vain", async || {
        requests(&server, 1).await;
        (attempts(&server).await[2] >= unavailable + 3.0).then_some(())
    })
    .await;

    assert_eq!(attempts(&server).await[1], refused);
    let warning = server.log_event("cannot push the metrics").await;
    assert_eq!(warning["level"], "WARN", "{warning}");
    let cause = warning["cause"].as_str().unwrap();
    assert!(cause.starts_with("the gateway cannot be reached: "), "{warning}");
    assert_eq!(server.get("/health").await.status, 200);

    let gateway = gateway.restart().await;
    let [successes, ..] = attempts(&server).await;
    pushed_after_now(&gateway, &instance(&server)).await;
    assert!(attempts(&server).await[0] >= successes + 2.0);
    let answered = server.metrics().await.value("http_requests_total", USERS);
    assert_eq!(shown(&gateway, &instance(&server), "http_requests_total", USERS).await, Some(answered));
}

async fn a_hanging_gateway_holds_up_neither_requests_nor_the_end([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    gateway.signal(Signal::SIGSTOP);
    let server = pushing(&gateway.url(""), SELDOM, &[]).await;

    // The first push is under way for 5 s.
    requests(&server, 10).await;
    assert_eq!(attempts(&server).await, [0.0; 3], "10 requests were answered while one push was not");

    // The push under way and the last one are given a second each, the drain has nothing to wait for, and the rest is a
    // busy machine. It is what Docker waits for before it kills.
    let began = Instant::now();
    end(server).await;
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

async fn a_refusing_gateway_costs_a_log_line_and_a_count([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let other = client().put(gateway.url("/metrics/job/other")).body("# TYPE api_users counter\napi_users 1\n");
    assert_eq!(Answer::to(other).await.status, 200);
    let server = pushing(&gateway.url(""), OFTEN, &[]).await;

    eventually("refused pushes", async || (attempts(&server).await[1] >= 3.0).then_some(())).await;

    assert_eq!(attempts(&server).await[0], 0.0);
    assert_eq!(attempts(&server).await[2], 0.0);
    let warning = server.log_event("cannot push the metrics").await;
    let cause = warning["cause"].as_str().unwrap();
    assert!(cause.starts_with("the gateway answers 400 Bad Request: ") && cause.contains("api_users"), "{warning}");
    requests(&server, 3).await;
    end(server).await;
    assert_eq!(gateway.group(&[("job", "other")]).await.value("api_users", &[]), 1.0);
}
