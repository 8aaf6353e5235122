//! Faults of which the truth is known, from the first request to the alert: real servers, the project's own rules.
//!
//! How long it takes until an alert fires is printed, and nothing is demanded of it: it depends on the machine.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::needs;
use crate::runs::{Jobs, now};
use crate::servers::prometheus::{Alert, Prometheus};
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PROMETHEUS, PUSHGATEWAY, Test};
use crate::stack::{self, Stack};
use crate::support::{Answer, Server, client, eventually};

pub fn tests() -> Vec<Test> {
    vec![needs!([PROMETHEUS, PUSHGATEWAY], alerts_fire_for_what_is_wrong_and_for_nothing_else)]
}

/// Between two requests of steady traffic.
const PAUSE: Duration = Duration::from_millis(50);

/// All at once, each with a Prometheus of its own, since most of the time is waiting.
async fn alerts_fire_for_what_is_wrong_and_for_nothing_else([prometheus, pushgateway]: [PathBuf; 2]) {
    let over = AtomicBool::new(false);
    let gateway = Pushgateway::start(&pushgateway).await;
    let trouble = async {
        tokio::join!(
            failures_and_then_a_dead_api(&prometheus, &gateway),
            slow_requests(&prometheus, &gateway),
            jobs_and_then_a_dead_gateway(&prometheus, &pushgateway),
        );
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(trouble, nothing_wrong(&prometheus, &pushgateway, &over));
}

/// A Prometheus that scrapes one API and a gateway.
async fn watching(binary: &Path, api: &Server, gateway: &Pushgateway) -> Prometheus {
    let mut stack = Stack::own();
    stack.scrape("api", &[&api.address]);
    stack.scrape("pushgateway", &[&gateway.address]);
    let prometheus = stack.start(binary).await;
    // Before the first scrape both are absent, and alerts about that pending.
    let calm = r#"up{job="api"} == 1 and on () up{job="pushgateway"} == 1 and on () job:up:max unless on () ALERTS"#;
    eventually("both targets to be up", async || prometheus.query(calm).await.pop()).await;
    prometheus
}

/// Waits until an alert fires, and prints how long that took.
async fn detected(prometheus: &Prometheus, name: &str, began: Instant) -> Alert {
    let alert = eventually(name, async || prometheus.firing(name).await.pop()).await;
    // Not what it takes in production: the ranges of the rules are as long here as there, and hold nothing of before.
    let took = began.elapsed().as_secs_f64();
    println!(
        "{name}: fires after {took:.1} s, where all but the ranges of the rules is {} times as fast",
        stack::SPEED
    );
    alert
}

/// Every alert that fired at any evaluation. A scrape that a busy machine loses makes ApiDown pending, and no more.
async fn ever_fired(prometheus: &Prometheus, since: f64) -> BTreeSet<String> {
    // What was seen firing a moment ago is stored by then.
    prometheus.scraped_after_now().await;
    let raised = prometheus.query_range(r#"ALERTS{alertstate="firing"}"#, (since, now()), 1.0).await;
    raised.into_iter().map(|(labels, _)| labels["alertname"].clone()).collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Sends these, one after another, again and again; only stops when it is no longer polled.
async fn steady(server: &Server, paths: &[(&str, u16)]) {
    let mut ticks = interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for (path, status) in paths.iter().cycle() {
        ticks.tick().await;
        assert_eq!(Answer::to(client().get(server.url(path))).await.status, *status);
    }
}

/// Does something while there is traffic.
async fn during<T>(traffic: impl Future<Output = ()>, what: impl Future<Output = T>) -> T {
    tokio::select! {
        () = traffic => unreachable!("steady traffic does not end"),
        value = what => value,
    }
}

async fn failures_and_then_a_dead_api(prometheus: &Path, gateway: &Pushgateway) {
    let server = Server::start().await;
    let prometheus = watching(prometheus, &server, gateway).await;
    let since = now();

    // One request of five fails.
    let good = ("/api/users", 200);
    let began = Instant::now();
    let mix = [good, good, good, good, ("/api/error", 500)];
    let alert = during(steady(&server, &mix), detected(&prometheus, "HighErrorRate", began)).await;

    // It has counted so many requests by then that one more or less moves the share by less than a hundredth.
    assert!(prometheus.scalar("sum(http_requests_total)").await >= 100.0);
    assert!((alert.value - 0.2).abs() < 0.01, "{alert:?}");
    for text in [&alert.annotations["summary"], &alert.annotations["description"]] {
        let share = text.split(' ').find_map(|word| word.strip_suffix('%')).unwrap_or_else(|| panic!("{text}"));
        assert!((share.parse::<f64>().unwrap() - 100.0 * alert.value).abs() < 0.01, "{text}, of {}", alert.value);
    }
    eventually("the budget's alert", async || prometheus.firing("ApiErrorBudgetBurn").await.pop()).await;
    assert_eq!(ever_fired(&prometheus, since).await, names(&["ApiErrorBudgetBurn", "HighErrorRate"]));

    // Then it is killed.
    let address = server.address.clone();
    drop(server);
    let alert = detected(&prometheus, "ApiDown", Instant::now()).await;
    assert_eq!((alert.labels["instance"].as_str(), alert.labels["severity"].as_str()), (&*address, "critical"));
}

async fn slow_requests(prometheus: &Path, gateway: &Pushgateway) {
    let server = Server::start().await;
    let prometheus = watching(prometheus, &server, gateway).await;
    let since = now();

    // One request of ten takes 2 to 3 s; the others do not wait for it.
    let began = Instant::now();
    let quick = steady(&server, &[("/api/users", 200)]);
    let slow = async {
        let mut ticks = interval(9 * PAUSE);
        // After a stall they do not come all at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = tokio::task::JoinSet::new();
        loop {
            ticks.tick().await;
            let request = client().get(server.url("/api/slow"));
            waiting.spawn(async { assert_eq!(Answer::to(request).await.status, 200) });
        }
    };
    let both = async {
        tokio::join!(quick, slow);
    };
    let alert = during(both, detected(&prometheus, "HighLatencyP95", began)).await;

    assert!((1.0..=5.0).contains(&alert.value), "between the bounds of 2 to 3 s: {alert:?}");
    assert_eq!(prometheus.firing("HighErrorRate").await.len(), 0);
    // The other objective's budget is burnt.
    let raised = ever_fired(&prometheus, since).await;
    let allowed = names(&["ApiErrorBudgetBurn", "HighLatencyP95"]);
    assert!(raised.is_subset(&allowed) && raised.contains("HighLatencyP95"), "{raised:?}");
}

async fn jobs_and_then_a_dead_gateway(prometheus: &Path, pushgateway: &Path) {
    let server = Server::start().await;
    let mut gateway = Pushgateway::start(pushgateway).await;
    let prometheus = watching(prometheus, &server, &gateway).await;
    let since = now();
    let jobs = Jobs::at(gateway.url(""));

    jobs.run("good", &["--expect-every", "1h"], "true").await.ended_quietly_with(0);
    let began = Instant::now();
    jobs.run("failing", &["--expect-every", "1h"], "exit 3").await.ended_quietly_with(3);
    let failed = detected(&prometheus, "BatchJobFailed", began).await;
    assert_eq!((failed.labels["job"].as_str(), failed.value), ("failing", 3.0));

    let before = now();
    jobs.run("late", &["--expect-every", "1s"], "true").await.ended_quietly_with(0);
    let began = Instant::now();

    // A family has one type in all groups.
    let contradiction = "# TYPE batch_job_running counter\nbatch_job_running 1\n";
    let push = Answer::to(client().post(gateway.url("/metrics/job/good")).body(contradiction)).await;
    assert_eq!(push.status, 400, "{}", push.text());
    let rejected = detected(&prometheus, "PushRejected", Instant::now()).await;
    assert_eq!(rejected.labels["job"], "good");

    let overdue = detected(&prometheus, "BatchJobOverdue", began).await;
    assert_eq!(overdue.labels["job"], "late");
    assert!(overdue.value > 1.0 && overdue.value <= now() - before, "{overdue:?}");
    assert_eq!(prometheus.firing("BatchJobFailed").await.len(), 1, "only one failed");
    let raised = ever_fired(&prometheus, since).await;
    assert_eq!(raised, names(&["BatchJobFailed", "BatchJobOverdue", "PushRejected"]));

    gateway.kill();
    let down = detected(&prometheus, "PushgatewayDown", Instant::now()).await;
    assert_eq!((down.labels["job"].as_str(), down.labels["severity"].as_str()), ("pushgateway", "critical"));
}

/// An ordinary day: good requests, a job that succeeds, and no alert for as long as the other scenarios last.
async fn nothing_wrong(prometheus: &Path, pushgateway: &Path, over: &AtomicBool) {
    let server = Server::start().await;
    // Its own, since another is killed.
    let gateway = Pushgateway::start(pushgateway).await;
    let prometheus = watching(prometheus, &server, &gateway).await;
    let since = now();
    let jobs = Jobs::at(gateway.url(""));
    jobs.run("nightly", &["--expect-every", "24h"], "true").await.ended_quietly_with(0);
    server.create("Ada").await;

    let paths = [("/api/users", 200), ("/api/users/1", 200), ("/api/users/1000", 404), ("/health", 200)];
    let until_over = async {
        while !over.load(Ordering::Relaxed) {
            // Nothing else tells of the others' end.
            tokio::time::sleep(PAUSE).await;
        }
    };
    during(steady(&server, &paths), until_over).await;
    prometheus.scraped_after_now().await;

    assert_eq!(ever_fired(&prometheus, since).await, BTreeSet::new());
    let requests = prometheus.scalar("sum(http_requests_total)").await;
    println!("no alert in {:.0} s and {requests} good requests", now() - since);
}
