//! A small tree of rules, dashboards and pages in which nothing is wrong, to break one thing in at a time.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lint::{ALERTS, MAIN_PANELS};

/// Files by their path, with their text.
pub struct Tree(pub BTreeMap<String, String>);

/// One thing that is wrong with a tree, and what must be found.
pub struct Break {
    pub reason: &'static str,
    pub change: fn(&mut Tree),
    /// How each finding begins, in order; there must be no others.
    pub findings: &'static [&'static str],
}

/// Fails unless a check finds nothing in the good tree, and in each broken one just what is broken.
pub fn each_is_found(breaks: &[Break], check: impl Fn(&Path) -> Vec<String>) {
    assert_eq!(check(good().write().path()), Vec::<String>::new(), "nothing is wrong with the good tree");
    let mut wrong = Vec::new();
    for Break { reason, change, findings } in breaks {
        let mut tree = good();
        change(&mut tree);
        let found = check(tree.write().path());
        let same = found.len() == findings.len()
            && found.iter().zip(*findings).all(|(found, expected)| found.starts_with(expected));
        if !same {
            wrong.push(format!("{reason}:\n  found    {found:#?}\n  expected {findings:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

impl Tree {
    /// Writes the files to a folder.
    pub fn write(&self) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in &self.0 {
            let path = folder.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        folder
    }

    /// Replaces a text that stands once in a file.
    #[track_caller]
    pub fn replace(&mut self, file: &str, from: &str, to: &str) {
        let text = self.0.get_mut(file).unwrap();
        assert_eq!(text.matches(from).count(), 1, "{from:?} in {file}:\n{text}");
        *text = text.replace(from, to);
    }

    /// Puts a value in a JSON file, at a place that is there already; null stands for a missing one.
    #[track_caller]
    pub fn set(&mut self, file: &str, pointer: &str, value: Value) {
        self.change(file, |document| {
            *document.pointer_mut(pointer).unwrap_or_else(|| panic!("no {pointer} in {file}")) = value;
        });
    }

    /// Changes a JSON file.
    #[track_caller]
    pub fn change(&mut self, file: &str, change: impl FnOnce(&mut Value)) {
        let text = self.0.get_mut(file).unwrap();
        let mut document = serde_json::from_str(text).unwrap();
        change(&mut document);
        *text = written(&document);
    }
}

fn written(document: &Value) -> String {
    format!("{document:#}\n")
}

/// What the binary of this tree exposes.
pub const EXPOSED: &str = "\
# HELP http_requests_total Finished.
# TYPE http_requests_total counter
http_requests_total{method=\"GET\",route=\"/\",status=\"200\"} 1
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{method=\"GET\",route=\"/\",le=\"0.5\"} 1
http_request_duration_seconds_bucket{method=\"GET\",route=\"/\",le=\"+Inf\"} 1
http_request_duration_seconds_sum{method=\"GET\",route=\"/\"} 0.1
http_request_duration_seconds_count{method=\"GET\",route=\"/\"} 1
# TYPE http_requests_in_progress gauge
http_requests_in_progress{method=\"GET\",route=\"/\"} 0
# TYPE api_errors_total counter
api_errors_total{error_type=\"not_found\"} 0
# TYPE api_users gauge
api_users 3
# TYPE process_open_fds gauge
process_open_fds 8
";

/// What its Pushgateway exposes after a job.
pub const GATEWAY: &str = "\
# TYPE batch_job_last_exit_code gauge
batch_job_last_exit_code{instance=\"\",job=\"backup\"} 0
# TYPE push_time_seconds gauge
push_time_seconds{instance=\"\",job=\"backup\"} 1
# TYPE pushgateway_http_requests_total counter
pushgateway_http_requests_total{code=\"200\",handler=\"push\",method=\"post\"} 1
";

pub fn good() -> Tree {
    let files = [
        ("prometheus/rules/red.rules.yml", written(&recording_rules())),
        ("prometheus/rules/red.alerts.yml", written(&alerts())),
        ("prometheus/tests/red.test.yml", written(&rule_tests())),
        ("grafonnet/rendered/api-monitoring.json", written(&main_dashboard())),
        ("grafonnet/rendered/api-slo.json", written(&second_dashboard())),
        ("docs/runbook.md", runbook()),
        ("docs/metrics.md", METRICS.to_owned()),
        ("docs/guide.md", GUIDE.to_owned()),
        ("README.md", README.to_owned()),
    ];
    Tree(files.map(|(file, text)| (file.to_owned(), text)).into())
}

const README: &str = "\
# A tree

```promql
sum(job:http_requests:rate5m)
```
";

const GUIDE: &str = "\
Open files: `process_open_fds`, as `up` an old friend. Users: `job:api_users:max`.

```promql
# Down.
up == 0
job:http_requests_failed_per_request:ratio_rate5m{job=\"$job\"}
```
";

const METRICS: &str = "\
# Metrics

| metric | type | labels |
|---|---|---|
| `http_requests_total` | counter | `method`, `route`, `status` |
| `http_request_duration_seconds` | histogram | `method`, `route` |
| `http_requests_in_progress{method,route}` | gauge | |
| `api_users` | gauge | |

| kind | status |
|---|---|
| `not_found` | 404 |

## `api_errors_total`

One of `error_type`.

## `process_open_fds`

## `batch_job_last_exit_code`
";

fn recording_rules() -> Value {
    let rule = |record: &str, expression: &str| json!({"record": record, "expr": expression});
    json!({"groups": [{"name": "red.rules", "rules": [
        rule("job:http_requests:rate5m", "sum without (instance, method, route, status) \
         (rate(http_requests_total[5m]))"),
        rule(
            "job_route_le:http_request_duration_seconds_bucket:rate5m",
            "sum without (instance, method) (rate(http_request_duration_seconds_bucket[5m]))",
        ),
        rule(
            "job:http_requests_failed_per_request:ratio_rate5m",
            "sum without (instance, method, route, status) (rate(http_requests_total{status=~\"5..\"}[5m])) \
             / (job:http_requests:rate5m > 0)",
        ),
        rule("job:api_users:max", "max without (instance) (api_users)"),
    ]}]})
}

fn alerts() -> Value {
    let alert = |name: &str| {
        let expression = match name {
            "TrafficSpike" => "job:http_requests:rate5m > 3 * avg_over_time(job:http_requests:rate5m[6h])",
            "ApiDown" => "up{job=\"api\"} == 0",
            "BatchJobFailed" => "batch_job_last_exit_code != 0",
            _ => "job:http_requests_failed_per_request:ratio_rate5m > 0.05",
        };
        let description = match name {
            "TrafficSpike" => {
                "{{ with printf \"job:http_requests:rate5m{job='%s'}\" $labels.job | query }}{{ . | first | \
                 value }}{{ end }}"
            }
            _ => "It is {{ $value }}.",
        };
        json!({
            "alert": name,
            "expr": expression,
            "labels": {"severity": "critical", "window": "5m"},
            "annotations": {
                "summary": "Of {{ $labels.job }}",
                "description": description,
                "runbook_url": format!("https://example.com/docs/runbook.md#{}", name.to_lowercase()),
                "dashboard_url": "http://localhost:3000/d/api-monitoring",
            },
        })
    };
    json!({"groups": [{"name": "red.alerts", "rules": ALERTS.map(alert)}]})
}

fn rule_tests() -> Value {
    let firing = |name: &str| {
        json!({"eval_time": "6m", "alertname": name, "exp_alerts": [
            {"exp_labels": {"job": "api", "severity": "critical", "window": "5m"}},
        ]})
    };
    let silent = |name: &str| json!({"eval_time": "1m", "alertname": name, "exp_alerts": []});
    let recorded = recording_rules();
    let names = recorded.pointer("/groups/0/rules").unwrap().as_array().unwrap().iter().map(|rule| &rule["record"]);
    let values: Vec<_> = names.map(|name| json!({"expr": name, "eval_time": "5m", "exp_samples": []})).collect();
    json!({"rule_files": ["../rules/red.alerts.yml"], "tests": [
        {"interval": "1m", "alert_rule_test": ALERTS.map(firing), "promql_expr_test": values},
        {"interval": "1m", "alert_rule_test": ALERTS.map(silent)},
    ]})
}

fn runbook() -> String {
    let sections = ALERTS.map(|name| {
        format!("## {name}\n\n### What it means\n\nIt.\n\n### How to look\n\nSo.\n\n### What to do\n\nThat.\n\n")
    });
    format!("# Runbook\n\n{}", sections.concat())
}

/// A panel with a place of its own in a grid of two columns.
fn panel(number: usize, kind: &str, title: &str, targets: &[(&str, &str)]) -> Value {
    let targets: Vec<_> = (b'A'..)
        .zip(targets)
        .map(|(name, (expression, legend))| {
            json!({"refId": char::from(name).to_string(), "expr": expression, "legendFormat": legend})
        })
        .collect();
    json!({
        "id": number,
        "type": kind,
        "title": title,
        "description": "Good is low.",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "fieldConfig": {"defaults": {"unit": "short", "links": []}},
        "gridPos": {"x": (number - 1) % 2 * 12, "y": (number - 1) / 2 * 8, "w": 12, "h": 8},
        "targets": targets,
    })
}

fn main_dashboard() -> Value {
    let targets: [&[(&str, &str)]; 8] = [
        &[(
            "sum by (method, route) (rate(http_requests_total{route=~\"$route\"}[$__rate_interval]))",
            "{{method}} {{route}}",
        )],
        &[("sum(http_requests_in_progress)", "")],
        &[
            (
                "histogram_quantile(0.95, sum by (le) \
             (job_route_le:http_request_duration_seconds_bucket:rate5m))",
                "P95",
            ),
            ("histogram_quantile(0.5, sum by (le) (rate(http_request_duration_seconds_bucket[5m])))", "P50"),
        ],
        &[(
            "sum(rate(http_requests_total{status=~\"5..\"}[5m])) / sum(rate(http_requests_total[5m])) or vector(0)",
            "",
        )],
        &[("sum by (status) (increase(http_requests_total[$__rate_interval]))", "{{status}}")],
        &[("sum by (error_type) (rate(api_errors_total[$__rate_interval]))", "{{ error_type }}")],
        &[("sum by (route) (increase(http_requests_total[$__range]))", "{{route}}")],
        &[(
            "sum by (route) (rate(http_request_duration_seconds_sum[5m]))\n/\n  sum by (route) \
             (rate(http_request_duration_seconds_count[5m]))",
            "{{route}}",
        )],
    ];
    let eight = (1..).zip(MAIN_PANELS).zip(targets);
    let mut panels: Vec<_> =
        eight.map(|((number, (title, kinds)), targets)| panel(number, kinds[0], title, targets)).collect();
    let mut users = panel(10, "timeseries", "Users", &[("api_users{job=~\"$job\"}", "{{instance}}")]);
    users["gridPos"] = json!({"x": 0, "y": 33, "w": 12, "h": 8});
    users["fieldConfig"]["defaults"]["links"] =
        json!([{"title": "Objectives", "url": "/d/api-slo?${__url_time_range}&${__all_variables}"}]);
    panels.push(json!({
        "id": 9,
        "type": "row",
        "title": "Users",
        "collapsed": true,
        "gridPos": {"x": 0, "y": 32, "w": 24, "h": 1},
        "panels": [users],
    }));
    panels.push(json!({
        "id": 11,
        "type": "text",
        "title": "About",
        "description": "What this is.",
        "gridPos": {"x": 0, "y": 33, "w": 24, "h": 2},
    }));
    let mut table = panel(12, "table", "Slowest", &[("topk(5, job:http_requests:rate5m)", "")]);
    table["fieldConfig"] = json!({"defaults": {}, "overrides": [
        {"matcher": {"id": "byName", "options": "Value"}, "properties": [{"id": "unit", "value": "reqps"}]},
    ]});
    table["gridPos"] = json!({"x": 0, "y": 35, "w": 24, "h": 4});
    panels.push(table);
    dashboard("api-monitoring", "API Monitoring Dashboard", "api-slo", panels)
}

fn second_dashboard() -> Value {
    let panels =
        vec![panel(1, "timeseries", "Failed", &[("job:http_requests_failed_per_request:ratio_rate5m", "{{job}}")])];
    dashboard("api-slo", "Objectives", "api-monitoring", panels)
}

fn dashboard(uid: &str, title: &str, other: &str, panels: Vec<Value>) -> Value {
    let source = json!({"type": "prometheus", "uid": "${datasource}"});
    let of_series = |name: &str| {
        json!({
            "name": name,
            "type": "query",
            "datasource": source,
            "query": {"query": format!("label_values(http_requests_total, {name})"), "refId": name},
            "multi": true,
            "includeAll": true,
            "refresh": 2,
        })
    };
    json!({
        "uid": uid,
        "title": title,
        "tags": ["api"],
        "timezone": "browser",
        "schemaVersion": 41,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "annotations": {"list": [
            {"builtIn": 1, "name": "Annotations & Alerts", "datasource": {"type": "grafana", "uid": "-- Grafana --"}},
            {
                "name": "Alerts",
                "datasource": source,
                "expr": "ALERTS{alertstate=\"firing\"}",
                "titleFormat": "{{alertname}}",
                "tagKeys": "severity",
            },
        ]},
        "templating": {"list": [
            {"name": "datasource", "type": "datasource", "query": "prometheus"},
            of_series("job"),
            of_series("instance"),
            of_series("route"),
            {"name": "busiest", "type": "query", "datasource": source, "refresh": 1, "query": "query_result(topk(1, \
             up{job=~\"$job\"}))"},
        ]},
        "links": [
            {"type": "link", "title": "Other", "url": format!("/d/{other}"), "keepTime": true, "includeVars": true},
            {"type": "dashboards", "title": "All", "tags": ["api"], "keepTime": true, "includeVars": true},
        ],
        "panels": panels,
    })
}
