//! The running stack from end to end, told as one story: brought up, watched, fed, restarted and taken down again.
//!
//! It runs only with `COMPOSE_E2E=1` (`make e2e`), and needs a Docker engine and Compose: what `COMPOSE` names, else
//! `docker compose`, else `docker-compose`. The images are pulled or built as `docker compose up -d --build` would. The
//! stack is a project of its own, with its own volumes, network and ports, and nothing of a `.env` or of the shell's
//! settings gets in. Only its containers' names are those of the stack that people run: while that is there, the test
//! refuses and touches nothing. What it made it removes, also after a failure or Ctrl-C.
//!
//! With `COMPOSE_E2E_STAND_INS=1` the images are stand-ins that go by the upstream names, for machines that cannot pull
//! any: everything is real but Grafana, which is its HTTP API alone. What that cannot answer is left out, and each
//! such thing is said with its reason.

mod engine;
mod web;

#[allow(dead_code, reason = "shared with the tests of the dashboards, which use all of it")]
#[path = "../monitoring/grafana.rs"]
mod dashboards;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::project::{root, yaml};
use crate::servers::Test;
use crate::support::{Samples, binary};
use dashboards::Dashboard;
use engine::{Engine, PROJECT};
use web::{Asked, Hope, Prometheus, Web};

pub fn tests() -> Vec<Test> {
    let asked = std::env::var("COMPOSE_E2E").is_ok_and(|asked| asked == "1");
    vec![Test {
        name: "e2e::the_stack_comes_up_works_loses_nothing_and_goes",
        tools: &[],
        left_out: (!asked).then_some("COMPOSE_E2E=1 starts it, as `make e2e` does"),
        run: |_| tokio::runtime::Runtime::new().unwrap().block_on(the_stack_comes_up_works_loses_nothing_and_goes()),
    }]
}

/// Until what happened is in Prometheus: some scrapes and evaluations, each 15 s.
const SCRAPED: Duration = Duration::from_secs(90);

/// Until dashboards show something: a rate takes some scrapes, and what is recorded from it some evaluations.
const DRAWN: Duration = Duration::from_secs(240);

/// Not counted as traffic here: the containers' health checks ask for these routes all the time.
const PROBES: [&str; 2] = ["/health", "/ready"];

const FOLDER: &str = "api-monitoring-folder";
const DATA_SOURCE: &str = "prometheus";
/// Grafana has it as its home page, too.
const MAIN: &str = "api-monitoring";
const JOBS: &str = "batch-jobs";

async fn the_stack_comes_up_works_loses_nothing_and_goes() {
    let begun = Instant::now();
    let engine = Engine::prepare().await;
    let mut interrupts =
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(|kind| signal(kind).unwrap());
    let [interrupt, terminate, hangup] = &mut interrupts;

    let story = AssertUnwindSafe(story(&engine)).catch_unwind();
    let ended = tokio::select! {
        ended = story => ended,
        _ = interrupt.recv() => Err(Box::new("interrupted") as _),
        _ = terminate.recv() => Err(Box::new("told to end") as _),
        _ = hangup.recv() => Err(Box::new("the terminal is gone") as _),
    };
    if ended.is_err() {
        // A failure while it is shown is no reason to leave the stack behind.
        let _ = AssertUnwindSafe(engine.show()).catch_unwind().await;
    }
    // Whatever happened, and wherever the story ended.
    let left = engine.remove().await;
    if let Err(panic) = ended {
        resume_unwind(panic);
    }
    assert!(left.is_empty(), "left after `down -v --remove-orphans`, and now removed: {left:#?}");
    note(&format!("{} s in all", begun.elapsed().as_secs()));
}

/// What every part of the story speaks to.
struct Stack<'a> {
    engine: &'a Engine,
    stand_ins: bool,
    api: Web,
    prometheus: Prometheus,
    pushgateway: Web,
    alertmanager: Web,
    grafana: Web,
}

async fn story(engine: &Engine) {
    let at = |service| Web::at(engine.url(service));
    let stack = Stack {
        engine,
        stand_ins: std::env::var("COMPOSE_E2E_STAND_INS").is_ok_and(|given| given == "1"),
        api: at("api"),
        prometheus: Prometheus(at("prometheus")),
        pushgateway: at("pushgateway"),
        alertmanager: at("alertmanager"),
        grafana: at("grafana").with_login("admin", "admin"),
    };

    step("brings the stack up");
    stack.comes_up().await;
    step("sends traffic: Prometheus counts what was sent");
    let counted = stack.counts_known_traffic().await;
    stack.load_profile().await;
    step("checks targets up");
    stack.targets_are_up().await;
    step("checks rules loaded, Alertmanager known, Prometheus' flags");
    stack.rules_are_loaded().await;
    stack.prometheus_is_set_up().await;
    step("checks the data source through Grafana's API");
    stack.grafana_lets_in_who_may().await;
    stack.data_source_works().await;
    step("checks dashboards present with data");
    stack.dashboards_are_there().await;
    stack.panels_have_data().await;
    step("runs a short-lived job: pushed and scraped");
    stack.job_is_pushed().await;
    step("provisions again without change");
    stack.second_provision_changes_nothing().await;
    stack.lost_state_is_no_loss().await;
    step("restarts without loss");
    stack.survives(&counted).await;
    engine.nothing_crashed().await;
    step("takes it down");
    engine.leaves_nothing().await;
    note("after `down -v` no container, volume or network is left");
}

/// What Prometheus counted at a moment, in Unix seconds.
struct Counted {
    moment: f64,
    by_status: BTreeMap<String, u64>,
}

impl Stack<'_> {
    async fn comes_up(&self) {
        note("builds the images, which takes minutes the first time");
        self.engine.up(&["--build"]).await;
        self.engine.every_volume_has_a_name().await;
        self.provision_says_done().await;
    }

    async fn provision_says_done(&self) {
        let log = self.engine.log("provision-monitoring").await;
        let last = log.trim_end().lines().last().unwrap_or_default();
        assert!(last.starts_with("provision: done: "), "the last line of provision's log: {last:?}");
        note(&format!("{last:?}"));
    }

    async fn counts_known_traffic(&self) -> Counted {
        let up = || self.prometheus.shows(r#"up{job="api"}"#, 1.0);
        up().await;
        let folder = tempfile::tempdir().unwrap();
        let report = load(folder.path(), &self.engine.url("api")).await;
        assert_eq!(report["sent"], report["answered"], "everything was answered, so that both sides speak of the same");

        let mut sent = BTreeMap::<String, u64>::new();
        let operations = report["operations"].as_array().unwrap().iter();
        for operation in operations.filter(|one| !PROBES.contains(&one["route"].as_str().unwrap())) {
            for (status, count) in operation["statuses"].as_object().unwrap() {
                *sent.entry(status.clone()).or_default() += count["answered"].as_u64().unwrap();
            }
        }
        let moment = within(SCRAPED, "what Prometheus counts to be what was sent", async || {
            let moment = unix_seconds();
            let counted = by_status(&self.prometheus.query_at(&traffic(), moment).await);
            if counted == sent { Ok(moment) } else { Err(format!("counted {counted:?}, sent {sent:?}")) }
        })
        .await;
        let shown: Vec<_> = sent.iter().map(|(status, count)| format!("{status}×{count}")).collect();
        note(&format!("sent and counted: {}", shown.join(" ")));
        Counted { moment, by_status: sent }
    }

    async fn load_profile(&self) {
        let settings = [("LOAD_DURATION", "5s"), ("LOAD_RATE", "20")];
        self.engine.compose_with(&settings, &["--profile", "load", "up", "-d", "load"]).await.succeeded();
        let code = self.engine.docker(&["wait", "load-monitoring"]).await.succeeded();
        let log = self.engine.log("load-monitoring").await;
        assert_eq!(code.trim(), "0", "{log}");
        let first = log.lines().next().unwrap_or_default();
        assert!(first.starts_with("100 requests sent"), "{log}");
        note(&format!("the profile `load`: {first}"));
        // A restart would start it as well, and the users would no longer be the same.
        self.engine.compose(&["--profile", "load", "rm", "-f", "load"]).await.succeeded();
    }

    async fn targets_are_up(&self) {
        let config = read_yaml("prometheus/prometheus.yml");
        let mut expected = BTreeMap::new();
        for job in config["scrape_configs"].as_array().unwrap() {
            let name = job["job_name"].as_str().unwrap();
            for target in
                job["static_configs"].as_array().unwrap().iter().flat_map(|one| one["targets"].as_array().unwrap())
            {
                expected.insert((name.to_owned(), target.as_str().unwrap().to_owned()), "up".to_owned());
            }
        }
        let (of_grafana, others): (Vec<_>, Vec<_>) = expected.keys().cloned().partition(|(job, _)| job == "grafana");
        assert_eq!((of_grafana.len(), others.len()), (1, 4), "jobs of prometheus.yml");
        let grafana = self.stand_ins.then(|| &of_grafana[0]);
        within(SCRAPED, "all targets up", async || {
            let targets = self.prometheus.ask("targets?state=active").await;
            let mut found = BTreeMap::new();
            let mut errors = Vec::new();
            for target in targets["activeTargets"].as_array().unwrap() {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let labels = &target["labels"];
                found.insert((text(&labels["job"]), text(&labels["instance"])), text(&target["health"]));
                errors.push(target["lastError"].clone());
            }
            if let Some(grafana) = grafana {
                found.entry(grafana.clone()).and_modify(|health| *health = "up".to_owned());
            }
            if found == expected { Ok(()) } else { Err(format!("{found:?}, errors {errors:?}")) }
        })
        .await;
        let names: Vec<_> = others.iter().map(|(job, target)| format!("{job} ({target})")).collect();
        note(&format!("up: {}", names.join(", ")));
        if self.stand_ins {
            left_out("that the target grafana is up", "the stand-in has no /metrics");
        } else {
            note("up: grafana (grafana:3000)");
        }
    }

    async fn rules_are_loaded(&self) {
        let mut expected = BTreeMap::new();
        let files = std::fs::read_dir(root().join("prometheus/rules")).unwrap().map(|file| file.unwrap().path());
        for file in files.filter(|path| path.extension().is_some_and(|ending| ending == "yml")) {
            for group in read_yaml(file.to_str().unwrap())["groups"].as_array().unwrap() {
                let name = group["name"].as_str().unwrap().to_owned();
                expected.insert(name, group["rules"].as_array().unwrap().len());
            }
        }
        assert!(!expected.is_empty(), "no rules");
        within(SCRAPED, "all rules loaded and evaluated", async || {
            let data = self.prometheus.ask("rules").await;
            let groups = data["groups"].as_array().unwrap();
            let rules = |group: &Value| group["rules"].as_array().unwrap().clone();
            let loaded = groups.iter().map(|group| (group["name"].as_str().unwrap().to_owned(), rules(group).len()));
            let loaded: BTreeMap<_, _> = loaded.collect();
            assert_eq!(loaded, expected, "groups of rules, and how many each has");
            let failing = groups.iter().flat_map(rules).find(|rule| rule["health"] != "ok");
            failing.map_or(Ok(()), |rule| Err(format!("{}: {}, {}", rule["name"], rule["health"], rule["lastError"])))
        })
        .await;
        note(&format!("{} rules in {} groups, none with an error", expected.values().sum::<usize>(), expected.len()));
    }

    async fn prometheus_is_set_up(&self) {
        let known = self.prometheus.ask("alertmanagers").await;
        let urls: Vec<_> = known["activeAlertmanagers"].as_array().unwrap().iter().map(|one| &one["url"]).collect();
        assert_eq!(urls, ["http://alertmanager:9093/api/v2/alerts"], "Alertmanagers that Prometheus tells");

        let flags = self.prometheus.ask("status/flags").await;
        for (flag, expected) in [
            ("storage.tsdb.retention.time", "15d"),
            ("web.enable-admin-api", "false"),
            ("web.enable-lifecycle", "true"),
            ("enable-feature", "exemplar-storage"),
        ] {
            assert_eq!(flags[flag], expected, "--{flag}");
        }
        note("Alertmanager is known; 15 days are kept; the admin API is off");
    }

    async fn grafana_lets_in_who_may(&self) {
        let stranger = Web::at(self.engine.url("grafana"));
        for path in ["/api/org", "/api/search", "/api/datasources"] {
            assert_eq!(stranger.get(path).await.status, 401, "{path} for nobody");
        }
        // Once: Grafana locks out who comes with a wrong password again and again.
        let mistaken = Web::at(self.engine.url("grafana")).with_login("admin", "wrong");
        assert_eq!(mistaken.get("/api/org").await.status, 401, "a wrong password");
        assert_eq!(self.grafana.get("/api/org").await.status, 200, "admin/admin");
        note("admin/admin is let in; nobody else is");
    }

    async fn data_source_works(&self) {
        let source = self.grafana.json(&format!("/api/datasources/uid/{DATA_SOURCE}")).await;
        let set_up = json!({
            "type": source["type"], "url": source["url"], "isDefault": source["isDefault"],
            "httpMethod": source["jsonData"]["httpMethod"], "timeInterval": source["jsonData"]["timeInterval"],
            "alertmanagerUid": source["jsonData"]["alertmanagerUid"],
        });
        let expected = json!({
            "type": "prometheus", "url": "http://prometheus:9090", "isDefault": true,
            "httpMethod": "POST", "timeInterval": "15s",
            "alertmanagerUid": "alertmanager",
        });
        assert_eq!(set_up, expected, "the data source {DATA_SOURCE}");
        let alertmanager = self.grafana.json("/api/datasources/uid/alertmanager").await;
        assert_eq!(
            (&alertmanager["type"], &alertmanager["url"]),
            (&json!("alertmanager"), &json!("http://alertmanager:9093"))
        );
        note("the data source is the default, asks by POST, and knows the scrape interval and Alertmanager");

        if self.stand_ins {
            left_out("the data source's health", "the stand-in asks no data source");
            return;
        }
        let health = self.grafana.json(&format!("/api/datasources/uid/{DATA_SOURCE}/health")).await;
        assert_eq!(health["status"], "OK", "{health}");
        note(&format!("its health: {}", health["message"]));
    }

    async fn dashboards_are_there(&self) {
        let rendered = rendered();
        let uids: Vec<_> = rendered.keys().map(String::as_str).collect();
        let found = self.grafana.json("/api/search?type=dash-db&limit=5000").await;
        let mut found: Vec<_> =
            found.as_array().unwrap().iter().map(|one| (text(&one["uid"]), text(&one["folderUid"]))).collect();
        found.sort();
        let expected: Vec<_> = uids.iter().map(|uid| ((*uid).to_owned(), FOLDER.to_owned())).collect();
        assert_eq!(found, expected, "dashboards in Grafana, and their folders");
        for (uid, ours) in &rendered {
            let there = self.grafana.json(&format!("/api/dashboards/uid/{uid}")).await;
            let titles = |dashboard: &Value| {
                let panels = dashboard["panels"].as_array().unwrap().iter();
                panels.map(|panel| text(&panel["title"])).collect::<Vec<_>>()
            };
            assert_eq!(there["dashboard"]["title"], ours["title"], "{uid}");
            assert_eq!(titles(&there["dashboard"]), titles(ours), "panels of {uid}");
        }
        note(&format!("in their folder, as rendered: {}", uids.join(", ")));

        let permissions = self.grafana.json(&format!("/api/folders/{FOLDER}/permissions")).await;
        let permissions = permissions.as_array().unwrap().iter();
        let of_roles = permissions.filter_map(|one| Some((one["role"].as_str()?, one["permissionName"].as_str()?)));
        let of_roles: BTreeSet<_> = of_roles.filter(|(role, _)| *role != "Admin").collect();
        assert_eq!(of_roles, BTreeSet::from([("Viewer", "View"), ("Editor", "Edit")]), "the folder's permissions");
        note("viewers view the folder, editors edit it");

        if self.stand_ins {
            left_out("the home dashboard", "the stand-in has no pages");
        } else {
            let home = self.grafana.json("/api/dashboards/home").await;
            assert_eq!(home["dashboard"]["title"], rendered[MAIN]["title"], "the home dashboard");
            note("the home dashboard is ours");
        }
    }

    /// Asks every query of every dashboard. The first eight panels of the main one have numbers, and something on each
    /// of the others has, but for that of jobs, none of which has run yet.
    async fn panels_have_data(&self) {
        let asked = if self.stand_ins {
            left_out(
                "queries through Grafana",
                "the stand-in asks no data source; Prometheus is asked the same itself",
            );
            Asked::Prometheus(&self.prometheus)
        } else {
            Asked::Grafana(&self.grafana, DATA_SOURCE)
        };
        for dashboard in Dashboard::all(&root().join("grafonnet/rendered")) {
            for target in &dashboard.targets {
                let answered = asked.numbers(&dashboard, target).await;
                assert!(answered.is_ok(), "{}, {:?}: {answered:?}", dashboard.name, target.panel);
            }
            note(&format!("{}: {} queries answered without an error", dashboard.name, dashboard.targets.len()));
            if dashboard.name == MAIN {
                for panel in first_panels(&dashboard) {
                    self.has_data(&asked, &dashboard, Some(panel)).await;
                }
                note("its first eight panels have data");
            } else if dashboard.name != JOBS {
                self.has_data(&asked, &dashboard, None).await;
            }
        }
    }

    /// Waits until a panel of a dashboard has numbers, or any panel.
    async fn has_data(&self, asked: &Asked<'_>, dashboard: &Dashboard, panel: Option<&str>) {
        let what = format!("data in {:?} of {}", panel.unwrap_or("any panel"), dashboard.name);
        within(DRAWN, &what, async || {
            for target in dashboard.targets.iter().filter(|target| panel.is_none_or(|panel| target.panel == panel)) {
                if asked.numbers(dashboard, target).await? > 0 {
                    return Ok(());
                }
            }
            Err("no numbers".to_owned())
        })
        .await;
    }

    async fn job_is_pushed(&self) {
        self.engine.compose(&["run", "--rm", "-T", "job"]).await.succeeded();
        self.was_pushed("smoke-test", 0.0).await;
        note("smoke-test: exit code 0 in the Pushgateway and in Prometheus");

        let failing = ["/usr/local/bin/api-monitoring", "healthcheck", "--url", "http://127.0.0.1:1/health"];
        let ran = self
            .engine
            .compose(&[&["run", "--rm", "-T", "job", "--name", "failing", "--"], &failing[..]].concat())
            .await;
        assert_eq!(ran.code, Some(1), "the command's exit code is that of `compose run`: {ran}");
        self.was_pushed("failing", 1.0).await;
        note("failing: exit code 1, of the command and there");

        let jobs = Dashboard::all(&root().join("grafonnet/rendered")).into_iter().find(|one| one.name == JOBS);
        let asked = if self.stand_ins {
            Asked::Prometheus(&self.prometheus)
        } else {
            Asked::Grafana(&self.grafana, DATA_SOURCE)
        };
        self.has_data(&asked, &jobs.expect("the dashboard of jobs"), Some("Last Runs")).await;
        note("both stand in their dashboard");
    }

    /// A job's exit code is in the Pushgateway, and soon in Prometheus.
    async fn was_pushed(&self, job: &str, code: f64) {
        let pushed = Samples::parse(&self.pushgateway.get("/metrics").await.text());
        let of_job = |sample: &&crate::support::Sample| {
            sample.name == "batch_job_last_exit_code" && sample.labels.get("job").is_some_and(|name| name == job)
        };
        let values: Vec<_> = pushed.0.iter().filter(of_job).map(|sample| sample.value).collect();
        assert_eq!(values, [code], "exit codes of {job} in the Pushgateway:\n{pushed}");
        self.prometheus.shows(&format!(r#"batch_job_last_exit_code{{job="{job}"}}"#), code).await;
    }

    async fn second_provision_changes_nothing(&self) {
        let plan = self.engine.compose(&["run", "--rm", "-T", "provision", "plan"]).await;
        // 2: there would be changes.
        assert_eq!(plan.code, Some(0), "a second plan is empty: {plan}");
        note("`provision plan`: no changes");
    }

    /// With its state gone and Grafana kept, provisioning takes over what it made before.
    async fn lost_state_is_no_loss(&self) {
        let before = self.inventory().await;
        self.engine.compose(&["rm", "-s", "-f", "provision"]).await.succeeded();
        self.engine.docker(&["volume", "rm", &format!("{PROJECT}_provision_state")]).await.succeeded();
        self.engine.up(&["provision"]).await;
        let log = self.engine.log("provision-monitoring").await;
        assert!(log.contains("is in Grafana already, and is taken over"), "the state was not lost:\n{log}");
        self.provision_says_done().await;
        assert_eq!(self.inventory().await, before, "what is in Grafana, after the state was lost");
        self.second_provision_changes_nothing().await;
        note("with its state lost, it took over what was there: the same uids, nothing twice");
    }

    /// Everything that was made in Grafana, each with its uid and title.
    async fn inventory(&self) -> Vec<[String; 3]> {
        let sources = self.grafana.json("/api/datasources").await;
        let sources = sources.as_array().unwrap().iter();
        let sources = sources.map(|one| ["data source".to_owned(), text(&one["uid"]), text(&one["name"])]);
        let found = self.grafana.json("/api/search?limit=5000").await;
        let found = found.as_array().unwrap().iter();
        let found = found.map(|one| [text(&one["type"]), text(&one["uid"]), text(&one["title"])]);
        let mut all: Vec<_> = sources.chain(found).collect();
        all.sort();
        all
    }

    async fn survives(&self, counted: &Counted) {
        // Of each service something that only its own volume brings back.
        let user = self.api.post("/api/users", &json!({"name": "Kept", "email": "kept@example.com"})).await;
        assert_eq!(user.status, 201, "{}", user.text());
        let folder = self.grafana.post("/api/folders", &json!({"uid": "kept", "title": "Kept"})).await;
        assert_eq!(folder.status, 200, "{}", folder.text());
        let silence = self.silence().await;
        let before = self.kept(counted, &silence).await;

        self.engine.compose(&["restart"]).await.succeeded();
        self.engine.healthy().await;
        self.is_as(&before, counted, &silence).await;
        note("after `restart`: users, pushed metrics, samples, silences, folders and data sources are there");

        self.engine.down().await;
        self.engine.up(&[]).await;
        self.is_as(&before, counted, &silence).await;
        self.second_provision_changes_nothing().await;
        note("after `down` and `up -d` as well");
    }

    async fn silence(&self) -> String {
        let [now, end] = [0, 3600].map(|seconds| SystemTime::now() + Duration::from_secs(seconds));
        let silence = json!({
            "matchers": [{"name": "alertname", "value": "Kept", "isRegex": false, "isEqual": true}],
            "startsAt": humantime::format_rfc3339_seconds(now).to_string(),
            "endsAt": humantime::format_rfc3339_seconds(end).to_string(),
            "createdBy": "e2e",
            "comment": "to be there after a restart",
        });
        let answer = self.alertmanager.post("/api/v2/silences", &silence).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        text(&answer.json()["silenceID"])
    }

    async fn kept(&self, counted: &Counted, silence: &str) -> Kept {
        let pushed = Samples::parse(&self.pushgateway.get("/metrics").await.text());
        let mut pushed: Vec<_> = pushed
            .0
            .iter()
            .filter(|sample| sample.name.starts_with("batch_job_"))
            .map(|sample| format!("{sample:?}"))
            .collect();
        pushed.sort();
        assert!(!pushed.is_empty(), "nothing is pushed");
        Kept {
            users: self.api.json("/api/users").await,
            pushed,
            samples: by_status(&self.prometheus.query_at(&traffic(), counted.moment).await),
            in_grafana: self.inventory().await,
            silence: text(&self.alertmanager.json(&format!("/api/v2/silence/{silence}")).await["comment"]),
        }
    }

    async fn is_as(&self, before: &Kept, counted: &Counted, silence: &str) {
        let now = self.kept(counted, silence).await;
        assert_eq!(now.samples, counted.by_status, "what Prometheus counted before the restart");
        assert_eq!(now.users, before.users, "users");
        assert_eq!(now.pushed, before.pushed, "what was pushed");
        assert_eq!(now.in_grafana, before.in_grafana, "what is in Grafana");
        assert_eq!(now.silence, before.silence, "the silence");
        let log = self.engine.log("provision-monitoring").await;
        let applied = log.lines().rfind(|line| line.starts_with("Apply complete!")).unwrap_or_default();
        assert_eq!(applied, "Apply complete! Resources: 0 added, 0 changed, 0 destroyed.", "{log}");
        self.provision_says_done().await;
    }
}

/// What must be there after a restart as before.
struct Kept {
    users: Value,
    pushed: Vec<String>,
    samples: BTreeMap<String, u64>,
    in_grafana: Vec<[String; 3]>,
    silence: String,
}

/// Says which part of the story begins.
fn step(what: &str) {
    println!("\n{what}");
}

/// Says what was seen.
fn note(what: &str) {
    println!("    {what}");
}

/// Says what is not checked with stand-ins.
fn left_out(what: &str, reason: &str) {
    println!("    LEFT OUT: {what}; {reason}");
}

/// Waits until a condition holds, and fails with the last reason why it does not.
async fn within<T, F>(limit: Duration, what: &str, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Hope<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match condition().await {
            Ok(value) => return value,
            Err(reason) if Instant::now() > deadline => panic!("waited {limit:?} in vain for {what}: {reason}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    }
}

/// Runs the freshly built binary's `load` to its end and gives its report.
async fn load(folder: &Path, target: &str) -> Value {
    let report = folder.join("report.json");
    let mut command = tokio::process::Command::from(binary(folder));
    command.args(["load", "--target", target, "--rate", "50", "--duration", "10s", "--seed", "2026"]);
    command.arg("--report").arg(&report).kill_on_drop(true).stdout(Stdio::null());
    let status = command.status().await.unwrap();
    assert!(status.success(), "load: {status}");
    serde_json::from_slice(&std::fs::read(report).unwrap()).unwrap()
}

/// Requests by status, those of the probes left out.
fn traffic() -> String {
    format!(r#"sum by (status) (http_requests_total{{job="api", route!~"{}"}}) > 0"#, PROBES.join("|"))
}

fn by_status(vector: &web::Vector) -> BTreeMap<String, u64> {
    vector.iter().map(|(labels, value)| (labels["status"].clone(), *value as u64)).collect()
}

/// The dashboards as they were rendered, by uid.
fn rendered() -> BTreeMap<String, Value> {
    let files = std::fs::read_dir(root().join("grafonnet/rendered")).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "json"));
    let read = |path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
    files.map(read).map(|dashboard| (text(&dashboard["uid"]), dashboard)).collect()
}

/// The titles of a dashboard's first eight panels.
fn first_panels(dashboard: &Dashboard) -> Vec<&str> {
    let mut titles: Vec<&str> = dashboard.targets.iter().map(|target| target.panel.as_str()).collect();
    titles.dedup();
    assert!(titles.len() > 8, "{titles:?}");
    titles.truncate(8);
    titles
}

fn read_yaml(path: &str) -> Value {
    yaml(&std::fs::read_to_string(root().join(path)).unwrap()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}
