//! The client, as a batch program uses it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_monitoring::push::{Courier, GroupingKey, MetricsText, Outcome, Push, PushClient, PushError, Spool};
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::needs;
use crate::runs::found;
use crate::servers::Place;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PUSHGATEWAY, Test};
use crate::support::{Sample, Samples, eventually};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([PUSHGATEWAY], what_a_registry_holds_is_what_the_gateway_shows),
        needs!([PUSHGATEWAY], a_push_replaces_the_whole_group),
        needs!([PUSHGATEWAY], a_push_that_adds_replaces_only_families_of_the_same_name),
        needs!([PUSHGATEWAY], a_push_leaves_groups_with_other_labels_alone),
        needs!([PUSHGATEWAY], a_deleted_group_is_gone_and_deleting_an_absent_one_succeeds),
        needs!([PUSHGATEWAY], any_label_value_reaches_the_gateway_as_it_is),
        needs!([PUSHGATEWAY], any_name_of_a_job_reaches_the_gateway_as_it_is),
        needs!([PUSHGATEWAY], inconsistent_metrics_are_refused_for_good_with_the_gateways_reason),
        needs!([PUSHGATEWAY], an_absent_gateway_is_worth_another_try),
        needs!([PUSHGATEWAY], the_newest_value_of_every_family_wins_in_whatever_order_pushes_come),
        needs!([PUSHGATEWAY], what_the_text_format_does_not_allow_is_no_push_and_nothing_is_delivered_in_silence),
    ]
}

/// A registry of gauges.
fn registry(gauges: &[(&str, i64)]) -> Registry {
    let registry = Registry::new();
    for (name, value) in gauges {
        let gauge = IntGauge::new(*name, "For a test.").unwrap();
        gauge.set(*value);
        registry.register(Box::new(gauge)).unwrap();
    }
    registry
}

fn client(gateway: &Pushgateway) -> PushClient {
    PushClient::new(gateway.url("").parse().unwrap()).unwrap()
}

fn key(job: &str) -> GroupingKey {
    GroupingKey::new(job).unwrap()
}

/// What was pushed into a group, without what the gateway adds, in a fixed order.
fn pushed(group: Samples) -> Vec<Sample> {
    let own = ["push_time_seconds", "push_failure_time_seconds"];
    in_order(group.0.into_iter().filter(|sample| !own.contains(&sample.name.as_str())).collect())
}

fn in_order(mut samples: Vec<Sample>) -> Vec<Sample> {
    samples.sort_by_key(|sample| (sample.name.clone(), sample.labels.clone()));
    samples
}

fn gauges(expected: &[(&str, f64)]) -> Vec<Sample> {
    let sample =
        |(name, value): &(&str, f64)| Sample { name: (*name).to_owned(), labels: BTreeMap::new(), value: *value };
    in_order(expected.iter().map(sample).collect())
}

async fn what_a_registry_holds_is_what_the_gateway_shows([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let registry = Registry::new();
    let rows = IntCounterVec::new(Opts::new("rows_total", "Rows, \\ and\nlines."), &["table", "kind"]).unwrap();
    rows.with_label_values(&["users", ""]).inc_by(1_200_000);
    rows.with_label_values(&["Łódź \"a\\b\"\n", "x"]).inc();
    let ratio = Gauge::new("done_ratio", "Share.").unwrap();
    ratio.set(0.1 + 0.2);
    let sizes = HistogramOpts::new("size_bytes", "Sizes.").buckets(vec![1.0, 250.0]);
    let sizes = Histogram::with_opts(sizes).unwrap();
    [0.5, 7.0, 1e12].into_iter().for_each(|size| sizes.observe(size));
    registry.register(Box::new(rows)).unwrap();
    registry.register(Box::new(ratio)).unwrap();
    registry.register(Box::new(sizes)).unwrap();

    client(&gateway).push(&key("report"), &registry).await.unwrap();

    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let group = gateway.group(&[("job", "report")]).await;
    assert_eq!(pushed(group), in_order(Samples::parse(&text).0));
}

async fn a_push_replaces_the_whole_group([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let client = client(&gateway);

    client.push(&key("report"), &registry(&[("old", 1), ("rows", 2)])).await.unwrap();
    client.push(&key("report"), &registry(&[("rows", 3), ("new", 4)])).await.unwrap();

    assert_eq!(pushed(gateway.group(&[("job", "report")]).await), gauges(&[("rows", 3.0), ("new", 4.0)]));
}

async fn a_push_that_adds_replaces_only_families_of_the_same_name([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let client = client(&gateway);
    let by_table = |tables: &[&str]| {
        let rows = IntCounterVec::new(Opts::new("rows_total", "Rows."), &["table"]).unwrap();
        tables.iter().for_each(|table| rows.with_label_values(&[*table]).inc());
        let registry = registry(&[("new", 4)]);
        registry.register(Box::new(rows)).unwrap();
        registry
    };

    client.push_add(&key("report"), &registry(&[("old", 1)])).await.unwrap();
    client.push_add(&key("report"), &by_table(&["users", "orders"])).await.unwrap();
    client.push_add(&key("report"), &by_table(&["users"])).await.unwrap();

    let group = gateway.group(&[("job", "report")]).await;
    assert_eq!(group.value("old", &[]), 1.0);
    assert_eq!(group.value("new", &[]), 4.0);
    assert_eq!(group.value("rows_total", &[("table", "users")]), 1.0);
    let orders = found(&group, "rows_total", &[("table", "orders")]);
    assert_eq!(orders, None, "a family is replaced with all its series");
}

async fn a_push_leaves_groups_with_other_labels_alone([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let client = client(&gateway);
    let north = key("report").with("region", "north").unwrap();
    let south = key("report").with("region", "south").unwrap();

    for (key, rows) in [(&key("report"), 1), (&north, 2), (&south, 3)] {
        client.push(key, &registry(&[("rows", rows)])).await.unwrap();
    }
    client.push(&north, &registry(&[("rows", 4)])).await.unwrap();
    client.delete(&key("report")).await.unwrap();

    let region = |name| [("job", "report"), ("region", name)];
    eventually("the deletion", async || (gateway.groups().await.len() == 2).then_some(())).await;
    assert_eq!(gateway.group(&region("north")).await.value("rows", &[]), 4.0);
    assert_eq!(gateway.group(&region("south")).await.value("rows", &[]), 3.0);
}

async fn a_deleted_group_is_gone_and_deleting_an_absent_one_succeeds([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let client = client(&gateway);
    client.push(&key("report"), &registry(&[("rows", 1)])).await.unwrap();
    assert_eq!(gateway.groups().await.len(), 1);

    client.delete(&key("report")).await.unwrap();

    // The gateway accepts a deletion before it has made it.
    eventually("the deletion", async || gateway.groups().await.is_empty().then_some(())).await;
    client.delete(&key("report")).await.unwrap();
    client.delete(&key("nobody")).await.unwrap();
    assert!(gateway.groups().await.is_empty());
}

async fn any_label_value_reaches_the_gateway_as_it_is([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let client = client(&gateway);
    let long = "lange/Wörter ".repeat(80);
    let told = [
        ("", "nothing"),
        ("/", "a slash alone"),
        ("/var//lib/", "slashes at both ends and together"),
        ("a b  c ", "blanks, one at the end"),
        ("\"a\" 'b' `c`", "quotes"),
        ("..", "a segment that URLs drop"),
        (".", "a segment that URLs drop"),
        ("...", "a segment that URLs keep"),
        ("../../metrics", "the way out of the path"),
        ("a\\b\\n", "backslashes"),
        ("a\nb\r\tc", "line breaks and tabs"),
        ("100 %", "a percent sign"),
        ("%2F%2f%20%", "what looks percent-encoded"),
        ("a+b&c=d;e?f#g@h:i,j|k^l~m[n]{o}(p)<q>*!$", "what has a meaning in URLs"),
        ("@base64", "the gateway's own mark"),
        ("L3Zhcg", "what looks like base64"),
        ("=", "base64's padding"),
        ("Łódź, 東京, עברית, 🦀👩‍👩‍👧", "unicode"),
        ("e\u{301}\u{200b}\u{202e}\u{feff}", "what is not seen"),
        ("\0\u{1}\u{7f}", "control characters"),
        (long.as_str(), "a long text"),
    ];
    let mut chance = StdRng::seed_from_u64(2026);
    let letters: Vec<char> = "/.%\\\"'=@+ \n\tab0_~-é東🦀".chars().collect();
    let mut random = || (0..chance.random_range(1..8)).map(|_| *letters.choose(&mut chance).unwrap()).collect();
    let random: Vec<String> = (0..150).map(|_| random()).collect();
    let told = told.into_iter().chain(random.iter().map(|value| (value.as_str(), "chance")));

    for (index, (value, reason)) in told.enumerate() {
        // A value may end the path or stand in its middle.
        let key = key("labels").with("a", value).unwrap().with("number", &index.to_string()).unwrap();
        let key = key.with("z", value).unwrap();

        let result = client.push(&key, &registry(&[("rows", 1)])).await;

        result.unwrap_or_else(|error| panic!("{reason}: {value:?}: {error}"));
        let labels = [("a", value), ("job", "labels"), ("number", &index.to_string()), ("z", value)];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let groups = gateway.groups().await;
        assert_eq!(groups, [BTreeMap::from(labels)], "{reason}: {value:?}");
        client.delete(&key).await.unwrap();
        eventually("the deletion", async || gateway.groups().await.is_empty().then_some(())).await;
    }
}

async fn any_name_of_a_job_reaches_the_gateway_as_it_is([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let client = client(&gateway);
    let jobs = ["nightly report", "a/b", "/", "..", ".", "100 %", "a\\b", "\"quoted\"", "a@base64", "Łódź 東京 🦀"];

    for job in jobs {
        client.push(&key(job), &registry(&[("rows", 1)])).await.unwrap();

        let group = gateway.group(&[("job", job)]).await;
        assert_eq!(pushed(group), gauges(&[("rows", 1.0)]), "{job:?}");
    }

    let mut listed: Vec<_> =
        gateway.groups().await.into_iter().map(|mut labels| labels.remove("job").unwrap()).collect();
    listed.sort();
    let mut expected = jobs.map(str::to_owned);
    expected.sort();
    assert_eq!(listed, expected);
}

async fn inconsistent_metrics_are_refused_for_good_with_the_gateways_reason([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let client = client(&gateway);
    let counter = Registry::new();
    counter.register(Box::new(prometheus::IntCounter::new("rows", "For a test.").unwrap())).unwrap();
    client.push(&key("a"), &registry(&[("rows", 1)])).await.unwrap();

    for result in [client.push(&key("b"), &counter).await, client.push_add(&key("b"), &counter).await] {
        let error = result.unwrap_err();

        assert!(matches!(&error, PushError::Refused { status, .. } if *status == 400), "{error:?}");
        assert!(!error.is_transient());
        assert!(error.refuses_content());
        let text = error.to_string();
        let reason = text.strip_prefix("the gateway answers 400 Bad Request: ").unwrap_or_else(|| panic!("{text}"));
        assert!(reason.contains("inconsistent with existing metrics") && reason.contains("\"rows\""), "{reason}");
    }
    let group = gateway.group(&[("job", "a")]).await;
    assert_eq!(group.value("rows", &[]), 1.0, "what was there is untouched");
    assert_eq!(pushed(gateway.group(&[("job", "b")]).await), []);
}

async fn an_absent_gateway_is_worth_another_try([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let client = PushClient::new(place.url("").parse().unwrap()).unwrap();

    let error = client.push(&key("report"), &registry(&[("rows", 1)])).await.unwrap_err();

    assert!(matches!(error, PushError::Unreachable(_)), "{error:?}");
    assert!(error.is_transient());
    let gateway = Pushgateway::start_at(&tool, place).await;
    client.push(&key("report"), &registry(&[("rows", 1)])).await.unwrap();
    assert_eq!(gateway.group(&[("job", "report")]).await.value("rows", &[]), 1.0);
}

fn push(job: &str, moment: SystemTime, text: &str, moments: &[&str]) -> Push {
    Push::new(key(job), MetricsText::parse(text.as_bytes()), moment, moments).unwrap()
}

/// Delivers to a place, from a spool in a folder.
fn courier(place: &str, spool: &TempDir, seed: u64) -> Courier {
    let spool = Spool::open(spool.path()).unwrap();
    Courier::new(place.parse().unwrap(), Some(spool), SystemTime::now, seed)
}

/// A family and its value.
type Values = BTreeMap<String, i64>;

/// One push of a job, of some families, with a value that no other push has.
struct Told {
    job: String,
    moment: SystemTime,
    values: Values,
}

const MOMENT: &str = "told_timestamp_seconds";

impl Told {
    /// As a push that names its moment, or as one without.
    fn push(&self, with_moment: bool) -> Push {
        let seconds = self.moment.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64();
        let mut text: String = self.values.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        if with_moment {
            text += &format!("{MOMENT} {seconds}\n");
        }
        push(&self.job, self.moment, &text, if with_moment { &[MOMENT] } else { &[] })
    }
}

/// Runs of chance push while the gateway is away or there, are killed before their first try, deliver what waits, and are
/// cut off at that; in the end the gateway shows the newest value of each family.
async fn the_newest_value_of_every_family_wins_in_whatever_order_pushes_come([tool]: [PathBuf; 1]) {
    let mut chance = StdRng::seed_from_u64(2026);
    let place = Arc::new(Place::reserve());
    let (url, spool) = (place.url(""), tempfile::tempdir().unwrap());
    let mut newest: BTreeMap<String, Values> = BTreeMap::new();
    let mut value = 0;
    let soon = || Instant::now() + Duration::from_secs(60);
    let mut gateway: Option<Pushgateway> = None;
    for phase in 0..6 {
        let is_there = phase % 2 == 1;
        match &mut gateway {
            None if is_there => gateway = Some(Pushgateway::start_at(&tool, Arc::clone(&place)).await),
            None => {}
            Some(_) if is_there => gateway = Some(gateway.take().unwrap().restart().await),
            Some(gateway) => gateway.stop().await,
        }
        for round in 0..30 {
            let job = format!("job {}", round % 10);
            let moment = SystemTime::now();
            let is_killed = chance.random_bool(0.3);
            let mut courier = courier(&url, &spool, round);
            // Up to three pushes tell of one moment; the last of them is the newest.
            for _ in 0..chance.random_range(1..=3) {
                let names = ["a", "b", "c", "d"].into_iter().filter(|_| chance.random_bool(0.5));
                value += 1;
                let values: Values = names.chain(["always"]).map(|name| (name.to_owned(), value)).collect();
                newest.entry(job.clone()).or_default().extend(values.clone());
                let told = Told { job: job.clone(), moment, values };
                let consignment = courier.accept(told.push(round % 2 == 0)).await;
                if !is_killed {
                    let until = if is_there { soon() } else { Instant::now() + Duration::from_millis(20) };
                    let outcome = courier.deliver(consignment, until, std::future::pending()).await;
                    assert_eq!(matches!(outcome, Outcome::Delivered), is_there, "{outcome:?}");
                }
            }
            if is_there && chance.random_bool(0.5) {
                let patience = Duration::from_millis(chance.random_range(0..40));
                let _ = tokio::time::timeout(patience, courier.flush(soon)).await;
            }
        }
        let Some(gateway) = gateway.as_ref().filter(|_| is_there) else { continue };
        // What a flush that was cut off was doing with the spool ends by itself.
        let flushed = eventually("a whole flush", async || {
            let flushed = courier(&url, &spool, 0).flush(soon).await.unwrap();
            (!flushed.busy).then_some(flushed)
        })
        .await;
        assert!(flushed.is_all(), "{flushed:?}");
        for (job, values) in &newest {
            let group = gateway.group(&[("job", job)]).await;
            for (name, newest) in values {
                assert_eq!(found(&group, name, &[]), Some(*newest as f64), "phase {phase}, {job}, {name}");
            }
        }
    }
}

async fn what_the_text_format_does_not_allow_is_no_push_and_nothing_is_delivered_in_silence([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let spool = tempfile::tempdir().unwrap();
    for text in ["rows 5", "rows 5 1700000000000\n", "rows_total 5 # {a=\"b\"} 1\n", "{\"rows\"} 5\n", "kept 1\nrows\n"]
    {
        let families = MetricsText::parse(text.as_bytes());
        let error = Push::new(key("report"), families, SystemTime::now(), &[]).unwrap_err().to_string();
        assert!(error.starts_with("the metrics cannot be pushed: line "), "{text:?}: {error}");
    }
    let empty = Push::of_registry(key("report"), &Registry::new(), SystemTime::now(), &[]).await.unwrap_err();
    assert_eq!(empty.to_string(), "there is nothing to push");

    // What is a push is delivered, also after a first try that failed, or waits whole.
    let mut courier = courier(&place.url(""), &spool, 1);
    let fine = courier.accept(push("report", SystemTime::now(), "rows 5\nkept 1\n", &[])).await;
    assert!(fine.is_kept());
    let until = Instant::now() + Duration::from_secs(60);
    let delivering = tokio::spawn(async move { courier.deliver(fine, until, std::future::pending()).await });
    // The first try comes at once, so that by now it was refused.
    let began = Instant::now();
    eventually("some pauses", async || (began.elapsed() > Duration::from_millis(400)).then_some(())).await;
    let gateway = Pushgateway::start_at(&tool, place).await;

    let outcome = delivering.await.unwrap();

    assert!(matches!(outcome, Outcome::Delivered), "{outcome:?}");
    assert_eq!(pushed(gateway.group(&[("job", "report")]).await), gauges(&[("rows", 5.0), ("kept", 1.0)]));
    let left = std::fs::read_dir(spool.path()).unwrap().count();
    assert_eq!(left, 0);
}
