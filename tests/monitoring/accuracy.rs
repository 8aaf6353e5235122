//! Every number of every dashboard, held against a known run: traffic by `load` with a seed, batch jobs whose ends are
//! known, real servers, and the project's own prometheus.yml and rules.
//!
//! In two steps. What was scraped is what was done: every counter, by method, route, status and kind of error, equals
//! the reports of `load`, and every job's figures are those of its run. And what is shown is what was scraped: each
//! query's result, at every moment of its graph and for several choices of the variables, is within the bounds that
//! `expected.rs` works out from the samples. `history.rs` states how far a rate may be off.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::expected::{At, CHECKS, Check, Expected, SLOW, recorded, unmatched};
use crate::grafana::{Choice, Chosen, Dashboard, Target, View, cells};
use crate::history::{History, Series};
use crate::needs;
use crate::runs::{Jobs, Run, UNTIL_GO, now};
use crate::servers::prometheus::{Labels, Matrix, Prometheus};
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PROMETHEUS, PUSHGATEWAY, Test};
use crate::stack::Stack;
use crate::support::{Answer, Process, Server, binary, client, eventually};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([PROMETHEUS, PUSHGATEWAY], every_number_of_every_dashboard_is_so),
        needs!([], every_query_has_a_check_and_every_check_a_query),
    ]
}

/// More than a test takes, in seconds.
const ALL_OF_IT: u32 = 1200;

/// What is read of Prometheus' samples: all that the dashboards' queries rest on.
const NAMES: &str = "http_.+|api_.+|app_.+|process_.+|up|scrape_duration_seconds|\
    scrape_samples_post_metric_relabeling|push_.+|batch_job_.+|import_.+|ALERTS|job:up:max|\
    job_route:http_requests:rate5m|job_route:http_request_duration_seconds_(sum|count):rate5m|\
    job_route_le:http_request_duration_seconds_bucket:rate5m|job_route:slo_errors:rate5m|job:slo_(errors|requests):rate(5m|2h)";

/// What shows nothing, even after this run, and why.
const EMPTY: &[(&str, &[&str], &str)] = &[
    ("Version changes", &["annotation"], "one version ran, from the start"),
    ("Request Rate: the Same Hour of Other Days", &["B", "C"], "there was no Prometheus a day before"),
    ("Mean Duration: the Same Hour of Other Days", &["B", "C"], "there was no Prometheus a day before"),
];

/// Queries with a mistake in them. Each must be noticed, or the checks of all the others are worth little.
#[rustfmt::skip]
const MISTAKES: &[(&str, &str, &str, &str, &str)] = &[
    ("api-monitoring", "Error Rate (5m)", "A", "5..", "4.."),
    ("api-monitoring", "Error Rate (5m)", "A", "[5m]", "[1m]"),
    ("api-monitoring", "Request Rate (5m)", "A", "[5m]", "[1m]"),
    ("api-monitoring", "Request Rate (5m)", "A", "rate(", "irate("),
    ("api-monitoring", "Request Rate (5m)", "A", "http_requests_total", "http_request_duration_seconds_sum"),
    ("api-monitoring", "Request Rate (5m)", "A", "sum by (method, route)", "max by (method, route)"),
    ("api-monitoring", "Request Rate (5m)", "A", ", route!~\"$probes\"", ""),
    ("api-monitoring", "Request Rate (5m)", "A", "instance=~\"$instance\"", "instance=\"$instance\""),
    ("api-monitoring", "Active Requests", "A", "sum(", "count("),
    ("api-monitoring", "Latency Percentiles", "A", "0.5", "0.9"),
    ("api-monitoring", "Latency Percentiles", "B", "0.95", "0.9"),
    ("api-monitoring", "Latency Percentiles", "C", "0.99", "0.95"),
    ("api-monitoring", "Latency Percentiles", "C", "sum by (le)", "avg by (instance, le)"),
    ("api-monitoring", "Requests by Status Code", "A", "rate(", "increase("),
    ("api-monitoring", "Errors by Type", "A", "sum by (error_type) (rate", "avg by (error_type) (rate"),
    ("api-monitoring", "Request Distribution by Endpoint", "A", "increase(", "rate("),
    ("api-monitoring", "Request Distribution by Endpoint", "A", "[$__range]", "[$__rate_interval]"),
    ("api-monitoring", "Average Response Time by Endpoint", "A", "_sum{", "_count{"),
    ("api-monitoring", "Users", "A", "max", "sum"),
    ("api-monitoring", "Users Created and Deleted", "B", "deleted", "registered"),
    ("api-monitoring", "Memory", "A", "resident", "virtual"),
    ("api-endpoints", "Endpoints", "B", "by (route)", ""),
    ("api-endpoints", "Endpoints", "E", "0.95", "0.99"),
    ("api-endpoints", "Error Rate", "A", ", status=~\"5..\"", ""),
    ("api-endpoints", "Duration", "A", "_bucket", "_count"),
    ("api-endpoints", "Statuses by Route", "A", "route=~\"$route\"", "route=\"$route\""),
    ("api-endpoints", "Request Rate: the Same Hour of Other Days", "B", "offset 1d", ""),
    ("api-endpoints", "Latency Percentiles of All Routes", "B", "p95_5m", "p99_5m"),
    ("api-endpoints", "Mean Duration by Route", "A", "mean5m", "p50_5m"),
    ("api-slo", "Availability / Achieved", "A", "30d", "5m"),
    ("api-slo", "Latency / Achieved", "A", "latency", "availability"),
    ("api-slo", "Availability / Burn Rate", "A", "burn_rate1h", "ratio_rate1h"),
    ("api-slo", "Availability / Burn Rate against its Alert", "B", "/ 6", "/ 14.4"),
    ("api-slo", "Latency / What Spends the Budget", "A", "slo_errors", "slo_requests"),
    ("batch-jobs", "Failed", "A", "!= 0", "== 0"),
    ("batch-jobs", "Overdue", "A", "> batch_job", "< batch_job"),
    ("batch-jobs", "Age of the Last Success against what is Expected", "A", "success", "start"),
    ("batch-jobs", "Pushes Rejected", "A", ">", "<"),
    ("batch-jobs", "Last Runs", "D", "success", "end"),
    // Not the larger one: the kernel may have counted no time at all in one of the two modes.
    ("batch-jobs", "Last Runs", "G", "sum without", "count without"),
    ("batch-jobs", "Rows of the Last Import", "A", "by (job, result)", "by (job)"),
    ("batch-jobs", "Pushes by Services", "A", "by (result)", "by (instance)"),
];

fn dashboards() -> Vec<Dashboard> {
    Dashboard::all(&Path::new(env!("CARGO_MANIFEST_DIR")).join("grafonnet/rendered"))
}

fn every_query_has_a_check_and_every_check_a_query() {
    let mut places = BTreeSet::new();
    for dashboard in dashboards() {
        for Target { panel, ref_id, .. } in dashboard.targets {
            assert!(places.insert((dashboard.name.clone(), panel.clone(), ref_id)), "{panel} stands twice");
        }
    }
    assert_eq!(unmatched(&places), Vec::<String>::new());

    let known = places.pop_first().unwrap();
    places.insert(("api-slo".to_owned(), "New".to_owned(), "A".to_owned()));
    let name = format!("{}, {:?}, {}", known.0, known.1, known.2);
    let both = ["nobody checks api-slo, \"New\", A".to_owned(), format!("there is no {name} to be checked")];
    assert_eq!(unmatched(&places), both, "a query without a check is noticed, and a check without a query");
}

// ---- The run ----

/// An instance of the service, its `job` and `instance`, and what it was sent.
struct Sent {
    job: &'static str,
    instance: String,
    report: Value,
    /// Requests to /api/error at the very start, beside the report's.
    failures: u32,
}

/// So many requests fail at the very start: the share of failures is another one over five minutes than over the last.
const FAILURES: u32 = 30;

impl Sent {
    fn all(&self) -> f64 {
        self.report["sent"].as_f64().unwrap() + f64::from(self.failures)
    }

    /// Adds the failures to counts by some labels.
    fn with_failures(&self, mut counts: Counts, labels: &[&str]) -> Counts {
        if self.failures > 0 {
            let labels = labels.iter().map(|label| (*label).to_owned()).collect();
            *counts.entry(labels).or_default() += f64::from(self.failures);
        }
        counts
    }
}

/// Sends the traffic of a seed, and gives the report. Every request is answered.
async fn load(server: &Server, seed: &str, rate: &str) -> Value {
    let report = server.folder.path().join("report.json");
    let status = tokio::process::Command::from(binary(server.folder.path()))
        .args(["load", "--target", &server.url(""), "--report", report.to_str().unwrap()])
        // However slow this machine is at the moment, nothing waits for a place.
        .args(["--concurrency", "100000", "--duration", "62s", "--seed", seed, "--rate", rate])
        .stdout(Stdio::null())
        .status()
        .await
        .unwrap();
    assert!(status.success(), "{status}");
    let report: Value = serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap();
    assert_eq!(report["sent"], report["answered"], "both sides speak of the same requests");
    report
}

/// Jobs of every kind; gives the one that still runs.
async fn run_jobs(jobs: &Jobs, gateway: &Pushgateway) -> Process {
    // Only a dot tells two of them apart, which stands for any character where it is not escaped.
    jobs.run("backup.daily", &["--expect-every", "1h"], "true").await.ended_quietly_with(0);
    jobs.run("backup-daily", &["--expect-every", "1h"], "exit 3").await.ended_quietly_with(3);
    jobs.run("report", &["--expect-every", "1s"], "true").await.ended_quietly_with(0);
    jobs.write("users.csv", "name,email\nAda,ada@example.com\nno address,nowhere\nGrace,grace@example.com\n");
    let import = Run::of(jobs.command("import", &["users.csv"])).await;
    assert_eq!(import.code, Some(0), "{import:?}");
    // The type of this family is another one in every group.
    let contradiction = "# TYPE batch_job_running counter\nbatch_job_running 1\n";
    let push = client().post(gateway.url("/metrics/job/import-users")).body(contradiction);
    assert_eq!(Answer::to(push).await.status, 400);
    let running = Process::spawn(jobs.job("cleanup", &[], UNTIL_GO));
    crate::runs::Shown::running(gateway, "cleanup").await;
    running
}

async fn every_number_of_every_dashboard_is_so([prometheus, pushgateway]: [PathBuf; 2]) {
    let gateway = Pushgateway::start(&pushgateway).await;
    let born = now();
    let (first, second) = (Server::start().await, Server::start().await);
    let pushing = Server::start_with(&["--pushgateway-url", &gateway.url(""), "--push-interval", "1s"]).await;
    let mut stack = Stack::own();
    stack.scrape("api", &[&first.address, &second.address]);
    stack.scrape("pushgateway", &[&gateway.address]);
    let prometheus = stack.start(&prometheus).await;
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let pushed = format!("{host}:{}", pushing.address.rsplit(':').next().unwrap());

    let recorded_already = r#"count_over_time(job:slo_requests:rate2h{slo="latency"}[5m]) > 1
        and on () count(count_over_time(push_attempts_total[5m]) > 2)"#;
    eventually("two evaluations of every rule", async || prometheus.query(recorded_already).await.pop()).await;
    let quiet = passed(&prometheus).await;
    assert_eq!(prometheus.query("sum(http_requests_total) > 0").await, [], "nothing was sent yet");

    for _ in 0..FAILURES {
        assert_eq!(second.get("/api/error").await.status, 500);
    }
    let failed = now();
    let jobs = Jobs::at(gateway.url(""));
    let (reports, _running) = tokio::join!(
        async { tokio::join!(load(&first, "2026", "55"), load(&second, "5", "4"), load(&pushing, "7", "4")) },
        run_jobs(&jobs, &gateway),
    );
    let sent = [
        Sent { job: "api", instance: first.address.clone(), report: reports.0, failures: 0 },
        Sent { job: "api", instance: second.address.clone(), report: reports.1, failures: FAILURES },
        Sent { job: "api-monitoring", instance: pushed.clone(), report: reports.2, failures: 0 },
    ];
    assert!(
        sent[0].report["sent"].as_u64().unwrap() >= 3000 && sent[0].report["sending_seconds"].as_f64() >= Some(60.0)
    );
    for one @ Sent { job, instance, .. } in &sent {
        let all = format!("sum(http_requests_total{{job=\"{job}\", instance=\"{instance}\"}}) == {}", one.all());
        eventually(&all, async || prometheus.query(&all).await.pop()).await;
    }
    let alerts = [
        r#"ALERTS{alertstate="firing", alertname="BatchJobFailed", job="backup-daily"}"#,
        r#"ALERTS{alertstate="firing", alertname="BatchJobOverdue", job="report"}"#,
        r#"ALERTS{alertstate="firing", alertname="PushRejected", job="import-users"}"#,
        r#"ALERTS{alertstate="firing", alertname="ApiErrorBudgetBurn", slo="availability", window="1h"}"#,
    ];
    for alert in alerts {
        eventually(alert, async || prometheus.query(alert).await.pop()).await;
    }
    // The budgets need a whole minute of the clock, and then wait for their own, slower evaluation.
    let budgets = "count(job:slo_error_budget:remaining_ratio30d) == count(job:slo_errors_per_request:burn_rate30d)";
    eventually(budgets, async || prometheus.query(budgets).await.pop()).await;
    // The last point of a graph has the failures of the start more than a minute behind it.
    let last_point = || (now() / 15.0).floor() * 15.0;
    eventually("a point of the graphs", async || (last_point() > failed + 60.0).then_some(())).await;
    let end = passed(&prometheus).await;
    let mut history = History::read(&prometheus, NAMES, ALL_OF_IT).await;

    // What was scraped is what was done.
    sent.iter().for_each(|sent| requests_were_scraped(&history, sent));
    jobs_were_scraped(&history, born, end);
    servers_were_scraped(&history, &prometheus, [&first, &second], born).await;
    for group in prometheus.rules().await {
        for rule in group["rules"].as_array().unwrap() {
            assert_eq!((&rule["health"], rule["lastError"].as_str().unwrap_or("")), (&"ok".into(), ""), "{rule}");
        }
    }
    let slow = slow_requests(&history);
    history.add(slow);
    let wrong = recorded(&history);
    assert!(wrong.is_empty(), "{} recorded values differ:\n{}", wrong.len(), first_of(&wrong));

    // What is shown is what was scraped: before the traffic, while requests were in progress, and in the end.
    let busy = busy_moment(&history, &sent[0].instance);
    let chosen = |name: &str, values: &[&str]| {
        (name.to_owned(), Chosen::Values(values.iter().map(|value| (*value).to_owned()).collect()))
    };
    let all = ["job", "instance", "route", "batch_job"].map(|name| (name.to_owned(), Chosen::All));
    let all: Choice = all.into_iter().chain([chosen("probes", &["-"])]).collect();
    let one = Choice::from([
        chosen("job", &["api"]),
        chosen("instance", &[&second.address]),
        chosen("route", &["/api/users/{id}"]),
        chosen("batch_job", &["backup.daily"]),
    ]);
    let several = Choice::from([
        chosen("job", &["api", "api-monitoring"]),
        chosen("instance", &[&first.address, &pushed]),
        chosen("route", &["/api/users/{id}", "/api/error", "/health", "/api/slow"]),
        chosen("batch_job", &["backup.daily", "report"]),
        chosen("probes", &["-"]),
    ]);
    let minute = 60.0;
    let looks = [
        ("quiet, as opened", quiet, None, Choice::new()),
        ("quiet, all", quiet, Some(30.0 * minute), all.clone()),
        ("busy, as opened", busy, None, Choice::new()),
        ("busy, one of each", busy, Some(5.0 * minute), one.clone()),
        ("in the end, as opened", end, None, Choice::new()),
        ("in the end, all", end, Some(180.0 * minute), all),
        ("in the end, one of each", end, Some(30.0 * minute), one),
        ("in the end, several", end, None, several),
    ];
    let dashboards = dashboards();
    let mut wrong = Vec::new();
    let mut compared = 0;
    for (look, to, range, choice) in &looks {
        for dashboard in &dashboards {
            let mut full = dashboard.opened();
            full.extend(choice.clone().into_iter().filter(|(name, _)| full.contains_key(name)).collect::<Vec<_>>());
            let view = View { from: to - range.unwrap_or(dashboard.range), to: *to };
            for target in &dashboard.targets {
                let shown = dashboard.evaluate(&prometheus, target, &full, view).await;
                let differences = differences(&history, dashboard, target, &full, view, &shown);
                compared += shown.iter().map(|(_, points)| points.len()).sum::<usize>();
                wrong.extend(differences.into_iter().map(|difference| {
                    format!("{}, {:?}, {} ({look}): {difference}", dashboard.name, target.panel, target.ref_id)
                }));
                let empty = EMPTY
                    .iter()
                    .any(|(panel, letters, _)| target.panel == *panel && letters.contains(&target.ref_id.as_str()));
                if *look == "in the end, as opened" && shown.is_empty() != empty {
                    wrong.push(format!("{}, {:?}, {}: empty", dashboard.name, target.panel, target.ref_id));
                }
            }
            wrong.extend(split_rows(&prometheus, dashboard, &full, view, look).await);
        }
    }
    assert!(wrong.is_empty(), "{} of {compared} numbers differ:\n{}", wrong.len(), first_of(&wrong));
    println!("{compared} numbers of {} queries are so", CHECKS.len());
    variables_offer_what_there_is(&prometheus, &dashboards, &history, end, &sent).await;
    print_objectives(&prometheus, &sent, end).await;

    // Mistakes are noticed.
    let mut unnoticed = Vec::new();
    for (name, panel, letter, from, to) in MISTAKES {
        let dashboard = dashboards.iter().find(|one| one.name == *name).unwrap();
        let target = dashboard.targets.iter().find(|one| one.panel == *panel && one.ref_id == *letter).unwrap();
        assert!(target.expr.contains(from), "{panel}, {letter}: no {from} in {}", target.expr);
        let mut mistaken = target.clone();
        mistaken.expr = target.expr.replace(from, to);
        let mut noticed = false;
        for (_, at, range, choice) in looks.iter().filter(|(look, ..)| look.starts_with("in the end")) {
            let mut full = dashboard.opened();
            full.extend(choice.clone().into_iter().filter(|(name, _)| full.contains_key(name)).collect::<Vec<_>>());
            let view = View { from: at - range.unwrap_or(dashboard.range), to: *at };
            let shown = dashboard.evaluate(&prometheus, &mistaken, &full, view).await;
            noticed |= !differences(&history, dashboard, target, &full, view, &shown).is_empty();
        }
        if !noticed {
            unnoticed.push(format!("{name}, {panel:?}, {letter}: {to:?} instead of {from:?}"));
        }
    }
    assert_eq!(unnoticed, Vec::<String>::new(), "mistakes that nobody would notice");
}

/// The present moment, as soon as everything of it was scraped and evaluated: a query of it always gives the same.
async fn passed(prometheus: &Prometheus) -> f64 {
    let moment = (now() * 1000.0).floor() / 1000.0;
    prometheus.scraped_after_now().await;
    let evaluated =
        // A rule of each group, and every target's scrape.
        ["up", "job:up:max", "job:slo_requests:rate5m", "job:slo_requests:rate2h"].map(|metric| format!("min(timestamp({metric})) > {moment}"));
    let evaluated = evaluated.join(" and ");
    eventually("the next evaluation", async || prometheus.query(&evaluated).await.pop()).await;
    moment
}

/// A late moment at which requests were in progress.
fn busy_moment(history: &History, instance: &str) -> f64 {
    let gauges = history.of("http_requests_in_progress").iter();
    let gauges = gauges.filter(|one| one.label("instance") == instance && one.label("route") == "/api/slow");
    let busy = gauges.flat_map(|one| &one.samples).filter(|(_, value)| *value > 0.0).map(|(at, _)| *at);
    busy.max_by(f64::total_cmp).expect("a slow request is seen in progress")
}

/// The requests slower than the objective, of each series.
fn slow_requests(history: &History) -> Vec<Series> {
    let buckets = history.of("http_request_duration_seconds_bucket").iter().filter(|one| one.label("le") == "0.5");
    let buckets: BTreeMap<Labels, &Series> = buckets
        .map(|one| {
            let mut labels = one.labels.clone();
            labels.remove("le");
            (labels, one)
        })
        .collect();
    let slow = |all: &Series| {
        let quick = buckets[&all.labels];
        let samples = all.samples.iter().zip(&quick.samples).map(|((at, all), (same, quick))| {
            assert_eq!(at, same, "a scrape brings both");
            (*at, all - quick)
        });
        Series { name: SLOW.to_owned(), labels: all.labels.clone(), samples: samples.collect() }
    };
    history.of("http_request_duration_seconds_count").iter().map(slow).collect()
}

fn first_of(lines: &[String]) -> String {
    lines.iter().take(40).cloned().collect::<Vec<_>>().join("\n")
}

// ---- What was scraped is what was done ----

type Counts = BTreeMap<Vec<String>, f64>;

fn counted(history: &History, name: &str, sent: &Sent, by: &[&str]) -> Counts {
    let mut counts = Counts::new();
    let here = history.of(name).iter();
    for series in here.filter(|one| one.label("job") == sent.job && one.label("instance") == sent.instance) {
        let values: Vec<_> = series.samples.iter().map(|(_, value)| *value).collect();
        // A series that began with its first request would show no increase by it. Only what cannot be known beforehand
        // does (docs/design.md): a method that a path does not have, and durations of paths that there are not.
        let known = series.label("status") != "405" && series.label("method") != "OTHER" && !by_unknown(series);
        assert!(values[0] == 0.0 || !known, "{name}{:?} is not there from the start", series.labels);
        assert!(values.is_sorted(), "{name}{:?} falls", series.labels);
        let labels = by.iter().map(|label| series.label(label).to_owned()).collect();
        *counts.entry(labels).or_default() += values[values.len() - 1];
    }
    counts.retain(|_, count| *count > 0.0);
    counts
}

fn by_unknown(series: &Series) -> bool {
    // Durations have no status, so a wrong method is known by the method alone.
    let wrong_method = [("POST", "/health"), ("PATCH", "/api/users")];
    let labels = (series.label("method"), series.label("route"));
    series.name.contains("duration") && (labels.1 == "unmatched" || wrong_method.contains(&labels))
}

fn requests_were_scraped(history: &History, sent: &Sent) {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let count = |value: &Value| value.as_f64().unwrap();
    let mut by_status = Counts::new();
    let mut by_operation = Counts::new();
    for operation in sent.report["operations"].as_array().unwrap() {
        let labels = vec![text(&operation["method"]), text(&operation["route"])];
        for (status, answers) in operation["statuses"].as_object().unwrap() {
            let labels = [&labels[..], std::slice::from_ref(status)].concat();
            by_status.insert(labels, count(&answers["answered"]));
        }
        by_operation.insert(labels, count(&operation["answered"]));
    }
    let errors = sent.report["errors"].as_object().unwrap();
    let errors: Counts = errors.iter().map(|(kind, number)| (vec![kind.clone()], count(number))).collect();
    let by_status = sent.with_failures(by_status, &["GET", "/api/error", "500"]);
    let by_operation = sent.with_failures(by_operation, &["GET", "/api/error"]);
    let errors = sent.with_failures(errors, &["simulated"]);
    let of_labels = |labels: [&str; 3]| by_status.get(labels.map(str::to_owned).as_slice()).copied();
    let alone = |number: Option<f64>| number.map(|number| (Vec::new(), number)).into_iter().collect::<Counts>();

    let name = "http_requests_total";
    assert_eq!(counted(history, name, sent, &["method", "route", "status"]), by_status, "requests");
    let name = "http_request_duration_seconds_count";
    assert_eq!(counted(history, name, sent, &["method", "route"]), by_operation, "durations");
    assert_eq!(counted(history, "api_errors_total", sent, &["error_type"]), errors, "errors by type");
    assert_eq!(counted(history, "app_requests_total", sent, &[]), alone(Some(sent.all())), "legacy");
    let created = of_labels(["POST", "/api/users", "201"]);
    assert_eq!(counted(history, "api_users_registered_total", sent, &[]), alone(created), "created");
    let deleted = of_labels(["DELETE", "/api/users/{id}", "204"]);
    assert_eq!(counted(history, "api_users_deleted_total", sent, &[]), alone(deleted), "deleted");

    // What the client measures of a slow request is nearly all the service's time; of quick ones it is not, so there
    // the service's own figures are the truth.
    let slow = sent.report["operations"].as_array().unwrap().iter().find(|one| one["route"] == "/api/slow");
    let Some(slow) = slow else { return };
    let name = "http_request_duration_seconds_sum";
    let total = counted(history, name, sent, &["method", "route"])[&vec!["GET".to_owned(), "/api/slow".to_owned()]];
    let (served, measured) = (total / count(&slow["answered"]), count(&slow["latency_seconds"]["mean"]));
    assert!((served / measured - 1.0).abs() < 0.05, "slow requests took {measured} s, and are said to take {served} s");
}

fn jobs_were_scraped(history: &History, born: f64, end: f64) {
    let last = |name: &str, label: &str| -> BTreeMap<(String, String), f64> {
        let of_jobs = history.of(name).iter().filter(|one| one.label("job") != "api-monitoring");
        let last = |one: &Series| one.samples[one.samples.len() - 1].1;
        of_jobs.map(|one| ((one.label("job").to_owned(), one.label(label).to_owned()), last(one))).collect()
    };
    let expected = |values: &[(&str, &str, f64)]| {
        values.iter().map(|(job, label, value)| (((*job).to_owned(), (*label).to_owned()), *value)).collect()
    };
    let (good, bad, late, import, running) = ("backup.daily", "backup-daily", "report", "import-users", "cleanup");

    let exits = [(good, "", 0.0), (bad, "", 3.0), (late, "", 0.0), (import, "", 0.0)];
    assert_eq!(last("batch_job_last_exit_code", ""), expected(&exits));
    let runs = [(good, "", 0.0), (bad, "", 0.0), (late, "", 0.0), (import, "", 0.0), (running, "", 1.0)];
    assert_eq!(last("batch_job_running", ""), expected(&runs));
    let every = [(good, "", 3600.0), (bad, "", 3600.0), (late, "", 1.0)];
    assert_eq!(last("batch_job_expected_interval_seconds", ""), expected(&every));
    let rows = [(import, "imported", 2.0), (import, "rejected", 1.0), (import, "skipped", 0.0)];
    assert_eq!(last("import_rows_total", "result"), expected(&rows));
    let succeeded = last("batch_job_last_success_timestamp_seconds", "");
    let who: Vec<_> = succeeded.keys().map(|(job, _)| job.as_str()).collect();
    assert_eq!(who, [good, import, late]);
    for (name, count) in [("success", 3), ("start", 5), ("end", 4)] {
        let moments = last(&format!("batch_job_last_{name}_timestamp_seconds"), "");
        assert_eq!(moments.len(), count, "{name}");
        assert!(moments.values().all(|at| born <= *at && *at <= end), "{name}: {moments:?}");
    }
    let failed = last("push_failure_time_seconds", "");
    let failed: Vec<_> = failed.iter().filter(|(_, at)| **at > 0.0).map(|((job, _), _)| job.as_str()).collect();
    assert_eq!(failed, [import], "whose push was rejected");
}

async fn servers_were_scraped(history: &History, prometheus: &Prometheus, servers: [&Server; 2], born: f64) {
    for server in servers {
        let of_server = |name: &str| {
            let series = history.of(name).iter().find(|one| one.label("instance") == server.address).unwrap();
            series.samples.clone()
        };
        let exposed = server.metrics().await.0.len() as f64;
        let series = of_server("scrape_samples_post_metric_relabeling");
        assert!(series.iter().all(|(_, count)| *count <= exposed), "no more series than there are");
        assert_eq!(series[series.len() - 1].1, exposed, "how many series there are");
        // The kernel's moment of boot and the process's start after it are both cut to whole seconds.
        let (_, started) = of_server("process_start_time_seconds")[0];
        let (first_seen, up) = of_server("up")[0];
        assert!(born - 2.0 <= started && started <= first_seen, "started at {started}, after {born}");
        assert_eq!(up, 1.0);
        let (_, memory) = of_server("process_resident_memory_bytes")[0];
        assert!(memory > 1e6 && memory < 1e9, "{memory} bytes");
        let listed = server.get("/api/users").await.json();
        let users = of_server("api_users");
        assert_eq!(listed["count"].as_f64(), Some(users[users.len() - 1].1), "users");
    }
    // Nothing fires but what has a reason to.
    let firing: BTreeSet<_> = prometheus
        .alerts()
        .await
        .into_iter()
        .filter(|alert| alert.state == "firing")
        .map(|alert| alert.labels["alertname"].clone())
        .collect();
    let reasons = ["ApiErrorBudgetBurn", "BatchJobFailed", "BatchJobOverdue", "PushRejected"];
    assert_eq!(firing.into_iter().collect::<Vec<_>>(), reasons);
}

// ---- What is shown is what was scraped ----

/// Where a query's result is not what it must be.
fn differences(
    history: &History,
    dashboard: &Dashboard,
    target: &Target,
    choice: &Choice,
    view: View,
    shown: &Matrix,
) -> Vec<String> {
    let place = (dashboard.name.as_str(), target.panel.as_str(), target.ref_id.as_str());
    let check: Check = CHECKS.iter().find(|(checked, _)| *checked == place).expect("every query has a check").1;
    let timing = target.timing(view);
    let mut at_moments: BTreeMap<i64, BTreeMap<&Labels, f64>> = BTreeMap::new();
    let moments = ((timing.end - timing.start) / timing.step).round() as i64;
    let key = |moment: f64| (moment * 1000.0).round() as i64;
    for step in 0..=moments {
        at_moments.insert(key(timing.start + step as f64 * timing.step), BTreeMap::new());
    }
    for (labels, points) in shown {
        for (moment, value) in points {
            at_moments.get_mut(&key(*moment)).expect("a moment that was asked for").insert(labels, *value);
        }
    }
    let mut differences = Vec::new();
    let start = history.start();
    for (moment, values) in at_moments {
        let at = At { history, choice, timing, moment: moment as f64 / 1000.0 };
        // Before the first sample there is nothing.
        let expected = if at.moment < start { Expected::new() } else { check(&at) };
        for (labels, bounds) in &expected {
            match values.get(labels) {
                Some(value) if bounds.holds(*value) => {}
                None if !bounds.sure => {}
                found => differences.push(format!("{labels:?} is {found:?} and not {bounds:?} at {moment} ms")),
            }
        }
        for (labels, value) in &values {
            if !expected.contains_key(*labels) {
                differences.push(format!("{labels:?} is {value} and should not be there at {moment} ms"));
            }
        }
        if target.format.as_deref() == Some("heatmap") && !values.is_empty() {
            let buckets: Vec<_> = values
                .iter()
                .map(|(labels, value)| (labels.get("le").map_or(f64::NAN, |le| le.parse().unwrap()), *value))
                .collect();
            let all = buckets.iter().map(|(_, count)| *count).fold(0.0, f64::max);
            let drawn: f64 = cells(buckets).iter().map(|(_, count)| count).sum();
            if (drawn - all).abs() > 1e-9 * (1.0 + all) {
                differences.push(format!("the cells hold {drawn}, of {all}, at {moment} ms"));
            }
        }
    }
    differences
}

/// Tables whose queries do not meet in one row for each series of the first.
async fn split_rows(
    prometheus: &Prometheus,
    dashboard: &Dashboard,
    choice: &Choice,
    view: View,
    look: &str,
) -> Vec<String> {
    let mut rows: BTreeMap<&str, BTreeSet<Labels>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for target in dashboard.targets.iter().filter(|one| one.format.as_deref() == Some("table")) {
        let shown = dashboard.evaluate(prometheus, target, choice, view).await;
        let labels = shown.into_iter().map(|(mut labels, _)| {
            labels.remove("__name__");
            labels
        });
        let labels: BTreeSet<_> = labels.collect();
        let first = rows.entry(&target.panel).or_insert_with(|| labels.clone());
        // A job that is running for the first time has no exit code, but a row of its own.
        if target.panel != "Last Runs" && !labels.is_subset(first) {
            wrong.push(format!("{:?}, {} ({look}): a row of its own", target.panel, target.ref_id));
        }
        if labels.iter().any(|row| row.keys().ne(first.first().unwrap_or(row).keys())) {
            wrong.push(format!("{:?}, {} ({look}): other columns than the first", target.panel, target.ref_id));
        }
    }
    wrong
}

/// The choices that each variable offers, as Grafana asks for them.
async fn variables_offer_what_there_is(
    prometheus: &Prometheus,
    dashboards: &[Dashboard],
    history: &History,
    end: f64,
    sent: &[Sent],
) {
    let set = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<BTreeSet<_>>();
    let routes = history.of("http_requests_total").iter().map(|one| one.label("route").to_owned());
    let mut routes: BTreeSet<_> = routes.collect();
    routes.retain(|route| route != "/health" && route != "/ready");
    for dashboard in dashboards {
        let target = dashboard.targets.iter().find(|one| one.instant).unwrap();
        let timing = target.timing(View { from: end - dashboard.range, to: end });
        for variable in dashboard.variables.iter().filter(|one| one.is_query()) {
            let filled = dashboard.fill_in(&variable.query, &dashboard.opened(), &timing);
            let inside = filled.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
            let (series, label) = inside.rsplit_once(", ").unwrap();
            let url = format!("http://{}/api/v1/label/{label}/values", prometheus.address());
            let answer = Answer::to(client().get(url).query(&[("match[]", series)])).await.json();
            let offered: BTreeSet<String> = serde_json::from_value(answer["data"].clone()).unwrap();
            let expected = match variable.name.as_str() {
                "job" => set(&["api", "api-monitoring"]),
                "instance" => set(&[&sent[0].instance, &sent[1].instance]),
                "route" => routes.clone(),
                "batch_job" => set(&["backup-daily", "backup.daily", "cleanup", "import-users", "report"]),
                name => panic!("nobody checks what {name} offers"),
            };
            assert_eq!(offered, expected, "{}: ${}", dashboard.name, variable.name);
        }
    }
}

async fn print_objectives(prometheus: &Prometheus, sent: &[Sent], end: f64) {
    let api = || sent.iter().filter(|one| one.job == "api");
    let answers = |which: &dyn Fn(&Value, &str) -> bool| -> f64 {
        let operations = api().flat_map(|one| one.report["operations"].as_array().unwrap());
        let counted = operations.filter(|one| one["route"] != "/health" && one["route"] != "/ready").flat_map(|one| {
            let statuses = one["statuses"].as_object().unwrap().iter();
            statuses.filter(|(status, _)| which(one, status)).map(|(_, count)| count["answered"].as_f64().unwrap())
        });
        counted.sum()
    };
    let failures: f64 = api().map(|one| f64::from(one.failures)).sum();
    let all = answers(&|_, _| true) + failures;
    let missed = [
        ("availability", (answers(&|_, status| status.starts_with('5')) + failures) / all),
        ("latency", answers(&|operation, _| operation["route"] == "/api/slow") / all),
    ];
    for (slo, share) in missed {
        for window in ["5m", "1h", "6h", "1d", "30d"] {
            let ratio = format!("job:slo_errors_per_request:ratio_rate{window}{{slo=\"{slo}\"}}");
            let ratio = prometheus.query_at(&ratio, end).await[0].1;
            println!(
                "{slo}: {:.3} % of requests missed it, over {window} {:.3} % are shown",
                share * 100.0,
                ratio * 100.0
            );
        }
    }
}
