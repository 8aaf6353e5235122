//! Whom an alert reaches: the project's own rules and Alertmanager configuration, real servers, and a webhook that
//! keeps what it is sent.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::needs;
use crate::servers::alertmanager::Alertmanager;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{ALERTMANAGER, PROMETHEUS, PUSHGATEWAY, Place, Test};
use crate::stack::{self, Stack};
use crate::support::{Process, Samples, binary, client, eventually, finished};

use gateway::{Gateway, Reply};

#[allow(dead_code, reason = "shared with the tests of pushing, which use all of it")]
#[path = "../it/gateway.rs"]
mod gateway;

pub fn tests() -> Vec<Test> {
    vec![
        needs!([PROMETHEUS, PUSHGATEWAY, ALERTMANAGER], a_dead_api_pages_and_silences_what_follows_until_it_is_back),
        needs!([ALERTMANAGER], what_follows_from_an_alert_is_not_told_and_everything_else_is),
        needs!([ALERTMANAGER], a_notice_waits_for_its_url),
        needs!([], every_alert_that_inhibition_names_is_raised_by_a_rule),
    ]
}

/// The two receivers' webhook, and the folder with the files of its URLs.
struct Webhook {
    // It takes every request and keeps it, whoever sends it.
    taken: Gateway,
    secrets: TempDir,
}

/// A notice as Alertmanager sends it, and when it came.
#[derive(Debug)]
struct Notice {
    body: Value,
    at: Instant,
}

impl Webhook {
    async fn start() -> Self {
        let taken = Gateway::answering([Reply::ok()]).await;
        let webhook = Self { taken, secrets: tempfile::tempdir().unwrap() };
        ["page", "ticket"].into_iter().for_each(|receiver| webhook.write_url(receiver));
        webhook
    }

    fn url_file(&self, receiver: &str) -> PathBuf {
        self.secrets.path().join(format!("{receiver}_webhook_url"))
    }

    fn write_url(&self, receiver: &str) {
        // Most editors end a file with a line break.
        std::fs::write(self.url_file(receiver), format!("{}/{receiver}\n", self.taken.url())).unwrap();
    }

    /// What a receiver was sent about an alert: `firing` or `resolved`.
    fn notices(&self, receiver: &str, alert: &str, status: &str) -> Vec<Notice> {
        let mut requests = self.taken.requests();
        requests.retain(|request| request.path == format!("/{receiver}"));
        let notices = requests.into_iter().map(|request| {
            let body: Value = serde_json::from_str(&request.body).unwrap();
            assert_eq!(body["receiver"], receiver);
            Notice { body, at: request.at }
        });
        notices
            .filter(|Notice { body, .. }| body["groupLabels"]["alertname"] == alert && body["status"] == status)
            .collect()
    }

    /// Waits for the first such notice.
    async fn notice(&self, receiver: &str, alert: &str, status: &str) -> Notice {
        let what = format!("a notice for {receiver} that {alert} is {status}");
        eventually(&what, async || self.notices(receiver, alert, status).into_iter().next()).await
    }
}

/// The API at a place where it may have run before.
async fn api_at(place: &Place) -> Process {
    let mut serve = binary(place.folder());
    serve.args(["serve", "--listen", &place.address]);
    let api = Process::spawn(serve);
    let (client, ready) = (client(), place.url("/ready"));
    let up = async || client.get(&ready).send().await.ok().filter(|answer| answer.status() == 200);
    eventually("the API's start", up).await;
    api
}

/// Of each alert of that name that Alertmanager holds, whether another one inhibits it.
async fn inhibited(alertmanager: &Alertmanager, name: &str) -> Vec<bool> {
    let mut alerts = alertmanager.alerts().await;
    alerts.retain(|alert| alert["labels"]["alertname"] == name);
    alerts.iter().map(|alert| !alert["status"]["inhibitedBy"].as_array().unwrap().is_empty()).collect()
}

fn print_time(what: &str, time: Duration) {
    let (measured, about) = (time.as_secs_f64(), stack::in_production(time).as_secs_f64());
    println!("{what}: {measured:.1} s, {} times as fast as in production: about {about:.0} s there", stack::SPEED);
}

async fn a_dead_api_pages_and_silences_what_follows_until_it_is_back(
    [prometheus, pushgateway, alertmanager]: [PathBuf; 3],
) {
    let webhook = Webhook::start().await;
    let alertmanager = Alertmanager::start(&alertmanager, &stack::alertmanager(webhook.secrets.path())).await;
    let pushgateway = Pushgateway::start(&pushgateway).await;
    let place = Place::reserve();
    let api = api_at(&place).await;
    let mut stack = Stack::own();
    stack.scrape("api", &[&place.address]);
    stack.scrape("pushgateway", &[&pushgateway.address]);
    stack.tell(alertmanager.address());
    let prometheus = stack.start(&prometheus).await;
    // It dies of something that burns its error budget first, which is noticed only when it is dead.
    eventually("the first scrape", async || prometheus.query("api_build_info").await.pop()).await;
    for _ in 0..20 {
        assert_eq!(client().get(place.url("/api/error")).send().await.unwrap().status(), 500);
    }
    let failures = r#"sum(http_requests_total{route="/api/error", status="500"}) == 20"#;
    eventually("the failures' scrape", async || prometheus.query(failures).await.pop()).await;
    assert_eq!(prometheus.firing("ApiDown").await.len(), 0);

    // It dies: a person is told where and what to do.
    drop(api);
    let died = Instant::now();
    let page = webhook.notice("page", "ApiDown", "firing").await;
    print_time("from the API's death to the page", page.at - died);
    let [alert] = &page.body["alerts"].as_array().unwrap()[..] else { panic!("one alert: {page:?}") };
    let labels = json!({"alertname": "ApiDown", "job": "api", "instance": place.address, "severity": "critical"});
    assert_eq!(alert["labels"], labels);
    let [firing] = &prometheus.firing("ApiDown").await[..] else { panic!("it still fires, once") };
    assert_eq!(alert["annotations"], json!(firing.annotations));
    let written: Vec<_> = firing.annotations.keys().collect();
    assert_eq!(written, ["dashboard_url", "description", "runbook_url", "summary"]);

    // What follows from that is not told; what has nothing to do with it makes a ticket.
    let mut job = binary(place.folder());
    job.args(["job", "--name", "nightly", "--pushgateway-url", &pushgateway.url(""), "--", "false"]);
    assert_eq!(finished(job).await.status.code(), Some(1));
    let ticket = webhook.notice("ticket", "BatchJobFailed", "firing").await;
    assert_eq!(ticket.body["groupLabels"], json!({"alertname": "BatchJobFailed", "job": "nightly"}));
    eventually("an alert about the burnt error budget", async || {
        let burns = inhibited(&alertmanager, "ApiErrorBudgetBurn").await;
        (!burns.is_empty() && burns.into_iter().all(|inhibited| inhibited)).then_some(())
    })
    .await;
    suppressed(&alertmanager, 1).await;
    assert_eq!(webhook.notices("page", "ApiErrorBudgetBurn", "firing").len(), 0);
    assert_eq!(webhook.notices("page", "ApiDown", "firing").len(), 1);
    assert_eq!(webhook.notices("page", "ApiDown", "resolved").len(), 0);

    // It is back: that is told, and what was silenced and is still so.
    let returned = Instant::now();
    let _api = api_at(&place).await;
    let resolved = webhook.notice("page", "ApiDown", "resolved").await;
    print_time("from the API's return to the notice", resolved.at - returned);
    assert_eq!(resolved.body["alerts"][0]["labels"], labels);
    webhook.notice("page", "ApiErrorBudgetBurn", "firing").await;
}

/// Waits until so many alerts at least were inhibited, and therefore dropped on their way to a receiver.
async fn suppressed(alertmanager: &Alertmanager, count: u32) {
    let url = format!("http://{}/metrics", alertmanager.address());
    eventually("suppressed notices", async || {
        let text = client().get(&url).send().await.unwrap().text().await.unwrap();
        let suppressed =
            Samples::parse(&text).sum("alertmanager_notifications_suppressed_total", &[("reason", "inhibition")]);
        (suppressed >= f64::from(count)).then_some(())
    })
    .await;
}

async fn what_follows_from_an_alert_is_not_told_and_everything_else_is([alertmanager]: [PathBuf; 1]) {
    const TOLD: bool = true;
    const SILENCED: bool = false;
    let cases = [
        ("alertname=ApiDown job=api instance=a severity=critical", TOLD, "it is the cause"),
        ("alertname=HighErrorRate job=api severity=critical", SILENCED, "a dying API fails requests"),
        ("alertname=HighLatencyP95 job=api severity=warning", SILENCED, "a dying API is slow"),
        ("alertname=TooManyActiveRequests job=api severity=warning", SILENCED, "requests pile up"),
        ("alertname=TrafficDrop job=api severity=warning", SILENCED, "nothing counts requests"),
        ("alertname=TrafficSpike job=api severity=warning", SILENCED, "all of them come back"),
        ("alertname=ApiErrorBudgetBurn job=api slo=latency severity=critical", SILENCED, "it burns the budget"),
        ("alertname=MetricsCardinalityHigh job=api instance=a severity=warning", TOLD, "this may be why it is down"),
        ("alertname=HighErrorRate job=billing severity=critical", TOLD, "another service"),
        ("alertname=PushgatewayDown job=pushgateway instance=g severity=critical", TOLD, "it is the cause"),
        ("alertname=BatchJobFailed job=nightly severity=warning", SILENCED, "old news"),
        ("alertname=BatchJobOverdue job=nightly severity=critical", SILENCED, "it cannot tell that it succeeded"),
        ("alertname=PushRejected job=nightly severity=warning", SILENCED, "nothing is pushed"),
        ("alertname=ApiErrorBudgetBurn job=billing slo=latency window=1h severity=critical", TOLD, "a fast burn"),
        (
            "alertname=ApiErrorBudgetBurn job=billing slo=latency window=3d severity=warning",
            SILENCED,
            "its page is out",
        ),
        ("alertname=ApiErrorBudgetBurn job=billing slo=availability severity=warning", TOLD, "another objective"),
        ("alertname=ApiErrorBudgetBurn job=search slo=latency severity=warning", TOLD, "another service"),
        ("alertname=SomebodyElses", TOLD, "without job and severity it equals no other"),
    ]
    .map(|(labels, told, reason)| {
        let labels = labels.split(' ').map(|label| label.split_once('=').unwrap());
        (json!(labels.collect::<BTreeMap<_, _>>()), told, reason)
    });
    let webhook = Webhook::start().await;
    let alertmanager = Alertmanager::start(&alertmanager, &stack::alertmanager(webhook.secrets.path())).await;

    let alerts: Vec<_> = cases.iter().map(|(labels, ..)| json!({"labels": labels})).collect();
    alertmanager.post(&json!(alerts)).await;

    let silenced = cases.iter().filter(|(_, told, _)| *told == SILENCED).count();
    suppressed(&alertmanager, silenced.try_into().unwrap()).await;
    for (labels, told, reason) in &cases {
        let name = labels["alertname"].as_str().unwrap();
        let receiver = if labels["severity"] == "critical" { "page" } else { "ticket" };
        let is_in =
            |Notice { body, .. }: Notice| body["alerts"].as_array().unwrap().iter().any(|a| a["labels"] == *labels);
        if *told {
            let arrived = async || webhook.notices(receiver, name, "firing").into_iter().any(is_in).then_some(());
            eventually(&format!("{labels} ({reason}) for {receiver}"), arrived).await;
        }
        for other in ["page", "ticket"].into_iter().filter(|other| !told || *other != receiver) {
            assert!(
                !webhook.notices(other, name, "firing").into_iter().any(is_in),
                "{labels} reached {other} ({reason})"
            );
        }
    }
}

async fn a_notice_waits_for_its_url([alertmanager]: [PathBuf; 1]) {
    let webhook = Webhook::start().await;
    let missing = webhook.url_file("page");
    std::fs::remove_file(&missing).unwrap();
    let alertmanager = Alertmanager::start(&alertmanager, &stack::alertmanager(webhook.secrets.path())).await;

    let alerts = [("HighErrorRate", "critical"), ("TrafficDrop", "warning")];
    let alerts = alerts.map(|(name, severity)| json!({"labels": {"alertname": name, "severity": severity}}));
    alertmanager.post(&json!(alerts)).await;

    // It runs, says what is missing, and goes on with what it can send.
    let complaint = format!("open {}: no such file or directory", missing.display());
    eventually("its complaint", async || alertmanager.log().contains(&complaint).then_some(())).await;
    webhook.notice("ticket", "TrafficDrop", "firing").await;
    assert_eq!(webhook.notices("page", "HighErrorRate", "firing").len(), 0);

    webhook.write_url("page");
    webhook.notice("page", "HighErrorRate", "firing").await;
}

/// A name that no rule knows would silence nothing, and nobody would notice.
fn every_alert_that_inhibition_names_is_raised_by_a_rule() {
    let raised = stack::alert_names();
    let config = stack::alertmanager(Path::new("/nowhere"));
    let mut named = 0;
    for rule in config["inhibit_rules"].as_array().unwrap() {
        let matchers = ["source_matchers", "target_matchers"].map(|side| rule[side].as_array().unwrap());
        for matcher in matchers.into_iter().flatten().map(|matcher| matcher.as_str().unwrap()) {
            let Some(names) = matcher.strip_prefix("alertname=") else { continue };
            for name in names.trim_start_matches('~').trim_matches('"').split('|') {
                assert!(raised.contains(name), "deploy/alertmanager/alertmanager.yml: no rule raises {name:?}");
                named += 1;
            }
        }
    }
    assert!(named > 0, "no alert is named");
}
