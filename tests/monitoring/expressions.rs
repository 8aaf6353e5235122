//! Every PromQL expression of rules, alerts, dashboards and docs: where it stands, and what a real parser makes of it.
//!
//! What Grafana would put in for its variables is put in here too; that each expression asks for what exists is judged
//! in `contract`.

use std::collections::BTreeMap;
use std::path::Path;

use promql_parser::parser::{self, Expr};
use serde_json::Value;

use crate::fixture::{self, Break};
use crate::needs;
use crate::servers::Test;

pub fn tests() -> Vec<Test> {
    vec![
        needs!([], every_expression_is_found_with_its_place),
        needs!([], an_expression_that_cannot_be_read_is_named_with_its_file),
        needs!([], variables_are_filled_in_as_grafana_would),
        needs!([], expressions_of_a_page_are_told_apart),
    ]
}

/// An expression and what its surroundings expect of it.
pub struct Expression {
    /// File and name, such as `prometheus/rules/x.yml: alert "ApiDown"`.
    pub place: String,
    pub parsed: Expr,
    /// Set on recording rules.
    pub records: Option<Recorded>,
    /// Labels that its result must have: a legend, an annotation or `label_values` shows them.
    pub shows: Vec<String>,
}

/// What a recording rule makes.
pub struct Recorded {
    pub name: String,
    /// The labels that the rule adds.
    pub labels: Vec<String>,
}

/// What [`find`] found.
#[derive(Default)]
pub struct Found {
    pub expressions: Vec<Expression>,
    /// What could not be read or parsed.
    pub findings: Vec<String>,
}

/// What Grafana's own variables stand for: durations, and the same as numbers.
const BUILT_IN: [(&str, &str); 8] = [
    ("__rate_interval", "1m"),
    ("__interval", "15s"),
    ("__range", "15m"),
    ("__interval_ms", "15000"),
    ("__range_s", "900"),
    ("__range_ms", "900000"),
    ("__from", "0"),
    ("__to", "900000"),
];

/// What stands for the value of a variable that only a running Grafana knows.
const SOME_VALUE: &str = "x";

/// Finds every expression under a root folder.
pub fn find(root: &Path) -> Found {
    let mut found = Found::default();
    let rules = documents(root, "prometheus/rules", "yml", &mut found.findings);
    for (file, document) in &rules {
        for rule in rules_of(document) {
            found.rule(file, rule);
        }
    }
    let dashboards = documents(root, "grafonnet/rendered", "json", &mut found.findings);
    for (file, dashboard) in &dashboards {
        found.dashboard(file, dashboard);
    }
    // A page explains the panels of any dashboard.
    let variables = dashboards.iter().flat_map(|(_, dashboard)| variables(dashboard)).collect();
    for (file, text) in pages(root) {
        for (line, expression) in of_page(&text) {
            found.add(&format!("{file}: line {line}"), &expression, &variables, Vec::new());
        }
    }
    found
}

/// The files of a folder that end so, with their text, by name; that there are none is a finding.
pub fn files(root: &Path, folder: &str, extension: &str, findings: &mut Vec<String>) -> Vec<(String, String)> {
    let entries = std::fs::read_dir(root.join(folder)).into_iter().flatten();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|end| end == extension))
        .map(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            (format!("{folder}/{name}"), std::fs::read_to_string(&path).unwrap())
        })
        .collect();
    files.sort();
    if files.is_empty() {
        findings.push(format!("{folder}: no *.{extension} there"));
    }
    files
}

/// The same for YAML and JSON, which is YAML; what cannot be read is a finding.
pub fn documents(root: &Path, folder: &str, extension: &str, findings: &mut Vec<String>) -> Vec<(String, Value)> {
    let files = files(root, folder, extension, findings);
    let read = files.into_iter().filter_map(|(file, text)| match serde_norway::from_str(&text) {
        Ok(document) => Some((file, document)),
        Err(error) => {
            findings.push(format!("{file}: {error}"));
            None
        }
    });
    read.collect()
}

/// README.md and what stands in docs/, with the text.
pub fn pages(root: &Path) -> Vec<(String, String)> {
    let readme = std::fs::read_to_string(root.join("README.md")).map(|text| ("README.md".to_owned(), text));
    readme.into_iter().chain(files(root, "docs", "md", &mut Vec::new())).collect()
}

/// The rules of a rule file.
pub fn rules_of(document: &Value) -> impl Iterator<Item = &Value> {
    list(&document["groups"]).flat_map(|group| list(&group["rules"]))
}

/// The panels of a dashboard in its order, rows and what stands in them included.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    list(&dashboard["panels"]).flat_map(|panel| std::iter::once(panel).chain(list(&panel["panels"])))
}

/// What an array holds; nothing where there is none.
pub fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A text; empty where there is none.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Each variable of a dashboard, with a value that it may have.
pub fn variables(dashboard: &Value) -> BTreeMap<String, String> {
    let variables = list(&dashboard["templating"]["list"]).map(|variable| {
        // The first of the values that one may choose from: `5m,1h`, or with a text for each, `short : 5m,long : 1h`.
        let choice = || {
            let first = text(&variable["query"]).split(',').next().unwrap_or_default();
            first.rsplit(" : ").next().unwrap_or_default().trim()
        };
        let value = match text(&variable["type"]) {
            "interval" | "custom" => choice(),
            "constant" | "textbox" => text(&variable["query"]),
            _ => SOME_VALUE,
        };
        (text(&variable["name"]).to_owned(), value.to_owned())
    });
    variables.collect()
}

/// Puts values in for variables; one that is not defined is an error.
fn fill(text: &str, variables: &BTreeMap<String, String>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['$', '[']) {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        match variable(rest) {
            Some((name, after)) => {
                let built_in = BUILT_IN.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
                let value = built_in.or_else(|| variables.get(name).map(String::as_str));
                filled.push_str(value.ok_or_else(|| format!("the variable ${name} is not defined"))?);
                rest = after;
            }
            None => {
                filled.push_str(&rest[..1]);
                rest = &rest[1..];
            }
        }
    }
    Ok(filled + rest)
}

/// The name of the variable that a text begins with, and what comes after it: `$name`, `${name}`, `${name:format}`,
/// `[[name]]`, `[[name:format]]`. Groups of `label_replace` (`$1`) are none.
fn variable(text: &str) -> Option<(&str, &str)> {
    let word = |text: &str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let enclosed = |open: &str, close: &str| {
        let (inside, after) = text.strip_prefix(open)?.split_once(close)?;
        let name = &inside[..word(inside)];
        let format = &inside[name.len()..];
        (format.is_empty() || format.starts_with([':', '.'])).then_some((name, after))
    };
    let bare = || text.strip_prefix('$').map(|rest| rest.split_at(word(rest)));
    let found = enclosed("${", "}").or_else(|| enclosed("[[", "]]")).or_else(bare);
    found.filter(|(name, _)| !name.is_empty() && !name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The expressions in a page's code marked `promql`, each with the number of its first line after comments.
///
/// Several may stand in one block. An expression goes on in a line that is indented, that begins with an operator or a
/// bracket that closes, or that follows an operator, a comma or a bracket that opens.
fn of_page(page: &str) -> Vec<(usize, String)> {
    const OPERATORS: [&str; 17] =
        ["and", "or", "unless", "by", "without", "on", "ignoring", "==", "!=", ">", "<", "+", "-", "*", "/", "%", "^"];
    let first_word = |line: &str| line.split([' ', '(']).next().unwrap_or_default().to_owned();
    let goes_on = |line: &str| line.starts_with([' ', ')', '}']) || OPERATORS.contains(&&*first_word(line));
    let expects_more = |line: &str| {
        let line = line.split('#').next().unwrap_or_default().trim_end();
        line.ends_with(['(', '{', ',']) || OPERATORS.contains(&line.rsplit(' ').next().unwrap_or_default())
    };
    let says_something = |text: &str| text.lines().any(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let mut expressions: Vec<(usize, String)> = Vec::new();
    let mut inside = None;
    for (number, line) in (1..).zip(page.lines()) {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            inside = if inside.is_none() { Some(language.trim()) } else { None };
            expressions.push((number + 1, String::new()));
        } else if inside == Some("promql") {
            let so_far = &expressions.last().unwrap().1;
            let more = goes_on(line) || so_far.lines().last().is_some_and(expects_more);
            if says_something(so_far) && !more {
                expressions.push((number, String::new()));
            }
            let (first, expression) = expressions.last_mut().unwrap();
            if !says_something(expression) {
                *first = number;
            }
            *expression += line;
            *expression += "\n";
        }
    }
    expressions.retain(|(_, expression)| says_something(expression));
    expressions
}

/// The labels in a legend: `{{method}} {{ route }}`.
fn of_legend(legend: &str) -> Vec<String> {
    let pieces = legend.split("{{").skip(1).filter_map(|piece| piece.split_once("}}"));
    pieces.map(|(label, _)| label.trim().to_owned()).collect()
}

/// The labels in a template of Prometheus: `{{ $labels.job }}`.
fn of_template(template: &str) -> Vec<String> {
    let pieces = template.split("$labels.").skip(1);
    pieces.map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap().to_owned()).collect()
}

/// The queries in a template of Prometheus: `{{ printf "up{job='%s'}" $labels.job | query }}`.
fn queries(template: &str) -> Vec<String> {
    let actions = template.split("{{").skip(1).filter_map(|piece| piece.split_once("}}"));
    let asking = actions.filter(|(action, _)| action.split_whitespace().any(|word| word == "query"));
    let literal = |action: &str| {
        let start = action.find('"')?;
        let text = &action[start..];
        let mut escaped = false;
        let end = text.char_indices().skip(1).find_map(|(at, c)| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends.then_some(at)
        })?;
        let text: String = serde_json::from_str(&text[..=end]).ok()?;
        Some(text.replace("%q", "\"x\"").replace("%s", SOME_VALUE))
    };
    asking.map(|(action, _)| literal(action).unwrap_or_else(|| action.to_owned())).collect()
}

impl Found {
    fn add(&mut self, place: &str, expression: &str, variables: &BTreeMap<String, String>, shows: Vec<String>) {
        let parsed = fill(expression, variables).and_then(|filled| parser::parse(&filled));
        match parsed {
            Ok(parsed) => {
                self.expressions.push(Expression { place: place.to_owned(), parsed, records: None, shows });
            }
            Err(error) => self.findings.push(format!("{place}: {}", error.lines().next().unwrap_or_default())),
        }
    }

    fn rule(&mut self, file: &str, rule: &Value) {
        let (kind, name) = match text(&rule["record"]) {
            "" => ("alert", text(&rule["alert"])),
            name => ("rule", name),
        };
        let place = format!("{file}: {kind} {name:?}");
        let annotations = rule["annotations"].as_object().into_iter().flatten();
        let templates: Vec<_> = annotations.map(|(_, template)| text(template)).collect();
        let added: Vec<_> = rule["labels"].as_object().into_iter().flatten().map(|(label, _)| label.clone()).collect();
        let mut shows: Vec<_> = templates.iter().flat_map(|template| of_template(template)).collect();
        shows.retain(|label| !added.contains(label));
        let before = self.expressions.len();
        // Prometheus knows no variables, and `$` in a rule is not for them.
        match parser::parse(text(&rule["expr"])) {
            Ok(parsed) => self.expressions.push(Expression { place: place.clone(), parsed, records: None, shows }),
            Err(error) => self.findings.push(format!("{place}: {}", error.lines().next().unwrap_or_default())),
        }
        if kind == "rule" && before < self.expressions.len() {
            self.expressions[before].records = Some(Recorded { name: name.to_owned(), labels: added });
        }
        for query in templates.iter().flat_map(|template| queries(template)) {
            self.add(&format!("{place}, a template"), &query, &BTreeMap::new(), Vec::new());
        }
    }

    fn dashboard(&mut self, file: &str, dashboard: &Value) {
        let variables = variables(dashboard);
        for panel in panels(dashboard) {
            for target in list(&panel["targets"]) {
                let place = format!("{file}: panel {:?} ({})", text(&panel["title"]), text(&target["refId"]));
                match target["expr"].as_str() {
                    Some(expression) => {
                        self.add(&place, expression, &variables, of_legend(text(&target["legendFormat"])));
                    }
                    None => self.findings.push(format!("{place}: no expression")),
                }
            }
        }
        for variable in list(&dashboard["templating"]["list"]).filter(|variable| variable["type"] == "query") {
            let place = format!("{file}: variable {:?}", text(&variable["name"]));
            let query = variable["query"].as_str().unwrap_or_else(|| text(&variable["query"]["query"]));
            match of_variable(query) {
                Some((expression, shows)) => self.add(&place, &expression, &variables, shows),
                None => self.findings.push(format!("{place}: {query:?} is no query of Grafana's")),
            }
        }
        // The one that Grafana has itself asks for nothing.
        for annotation in list(&dashboard["annotations"]["list"]).filter(|annotation| annotation["builtIn"] != 1) {
            let place = format!("{file}: annotation {:?}", text(&annotation["name"]));
            let expression = annotation["expr"].as_str().or_else(|| annotation["target"]["expr"].as_str());
            let mut shows: Vec<_> =
                ["titleFormat", "textFormat"].map(|format| of_legend(text(&annotation[format]))).concat();
            shows.extend(text(&annotation["tagKeys"]).split(',').map(str::trim).map(str::to_owned));
            shows.retain(|label| !label.is_empty());
            match expression {
                Some(expression) => self.add(&place, expression, &variables, shows),
                None => self.findings.push(format!("{place}: no expression")),
            }
        }
    }
}

/// What a variable's query asks for: an expression, and the label of it that is shown.
fn of_variable(query: &str) -> Option<(String, Vec<String>)> {
    let (function, rest) = query.trim().split_once('(')?;
    let inside = rest.strip_suffix(')')?.trim();
    match function {
        "label_values" => {
            let (series, label) = inside.rsplit_once(',').unwrap_or((r#"{__name__!=""}"#, inside));
            Some((series.to_owned(), vec![label.trim().to_owned()]))
        }
        "query_result" => Some((inside.to_owned(), Vec::new())),
        "metrics" => Some((format!("{{__name__=~{inside:?}}}"), Vec::new())),
        _ => None,
    }
}

// ---- Tests ----

fn every_expression_is_found_with_its_place() {
    let tree = fixture::good().write();

    let found = find(tree.path());

    assert_eq!(found.findings, Vec::<String>::new());
    let places: Vec<_> = found.expressions.iter().map(|expression| expression.place.as_str()).collect();
    for place in [
        "prometheus/rules/red.alerts.yml: alert \"TrafficSpike\"",
        "prometheus/rules/red.alerts.yml: alert \"TrafficSpike\", a template",
        "prometheus/rules/red.rules.yml: rule \"job:http_requests:rate5m\"",
        "grafonnet/rendered/api-monitoring.json: panel \"Request Rate (5m)\" (A)",
        "grafonnet/rendered/api-monitoring.json: panel \"Users\" (A)",
        "grafonnet/rendered/api-monitoring.json: variable \"route\"",
        "grafonnet/rendered/api-monitoring.json: variable \"busiest\"",
        "grafonnet/rendered/api-monitoring.json: annotation \"Alerts\"",
        "README.md: line 4",
        "docs/guide.md: line 5",
        "docs/guide.md: line 6",
    ] {
        assert!(places.contains(&place), "{place} is not among {places:#?}");
    }
    let shows = |place: &str| &found.expressions.iter().find(|expression| expression.place == place).unwrap().shows;
    assert_eq!(
        shows(
            "grafonnet/rendered/api-monitoring.json: panel \"Request Rate (5m)\" \
     (A)"
        ),
        &["method", "route"]
    );
    assert_eq!(shows("grafonnet/rendered/api-monitoring.json: variable \"route\""), &["route"]);
    assert_eq!(shows("grafonnet/rendered/api-monitoring.json: annotation \"Alerts\""), &["alertname", "severity"]);
    assert_eq!(shows("prometheus/rules/red.alerts.yml: alert \"TrafficSpike\""), &["job", "job"]);
}

fn an_expression_that_cannot_be_read_is_named_with_its_file() {
    const BOARD: &str = "grafonnet/rendered/api-monitoring.json";
    let breaks = [
        Break {
            reason: "a bracket that does not close",
            change: |tree| tree.replace(BOARD, "sum by (error_type) (rate(", "sum by (error_type) (rate(("),
            findings: &["grafonnet/rendered/api-monitoring.json: panel \"Errors by Type\" (A): "],
        },
        Break {
            reason: "rate of an instant",
            change: |tree| tree.replace(BOARD, "rate(api_errors_total[$__rate_interval])", "rate(api_errors_total)"),
            findings: &["grafonnet/rendered/api-monitoring.json: panel \"Errors by Type\" (A): expected type \
             matrix"],
        },
        Break {
            reason: "a variable of Grafana's that there is not",
            change: |tree| tree.replace(BOARD, "api_errors_total[$__rate_interval]", "api_errors_total[$__rates]"),
            findings: &[
                "grafonnet/rendered/api-monitoring.json: panel \"Errors by Type\" (A): the variable $__rates is \
                 not defined",
            ],
        },
        Break {
            reason: "a variable that the dashboard does not have",
            change: |tree| tree.replace(BOARD, "api_users{job=~\\\"$job\\\"}", "api_users{job=~\\\"${jobs:regex}\\\"}"),
            findings: &[
                "grafonnet/rendered/api-monitoring.json: panel \"Users\" (A): the variable $jobs is not defined",
            ],
        },
        Break {
            reason: "a variable that asks for nothing known",
            change: |tree| {
                tree.replace(BOARD, "label_values(http_requests_total, route)", "labels(http_requests_total)")
            },
            findings: &["grafonnet/rendered/api-monitoring.json: variable \"route\": \"labels(http_requests_total"],
        },
        Break {
            reason: "an annotation without expression",
            change: |tree| tree.set(BOARD, "/annotations/list/1/expr", Value::Null),
            findings: &["grafonnet/rendered/api-monitoring.json: annotation \"Alerts\": no expression"],
        },
        Break {
            reason: "a target without expression",
            change: |tree| tree.set(BOARD, "/panels/5/targets/0/expr", Value::Null),
            findings: &["grafonnet/rendered/api-monitoring.json: panel \"Errors by Type\" (A): no expression"],
        },
        Break {
            reason: "a rule with a variable, of which Prometheus knows nothing",
            change: |tree| tree.replace("prometheus/rules/red.rules.yml", "(api_users)", "(api_users{job=$job})"),
            findings: &["prometheus/rules/red.rules.yml: rule \"job:api_users:max\": "],
        },
        Break {
            reason: "an alert with half an expression",
            change: |tree| {
                tree.replace("prometheus/rules/red.alerts.yml", "batch_job_last_exit_code != 0", "batch_job !=")
            },
            findings: &["prometheus/rules/red.alerts.yml: alert \"BatchJobFailed\": "],
        },
        Break {
            reason: "a template's query",
            change: |tree| tree.replace("prometheus/rules/red.alerts.yml", "rate5m{job='%s'}", "rate5m{job='%s'"),
            findings: &["prometheus/rules/red.alerts.yml: alert \"TrafficSpike\", a template: "],
        },
        Break {
            reason: "a page",
            change: |tree| tree.replace("docs/guide.md", "up == 0", "up == == 0"),
            findings: &["docs/guide.md: line 5: "],
        },
        Break {
            reason: "a file that is no JSON",
            change: |tree| drop(tree.0.insert(BOARD.to_owned(), "{".to_owned())),
            findings: &["grafonnet/rendered/api-monitoring.json: "],
        },
        Break {
            reason: "no rules at all",
            change: |tree| tree.0.retain(|file, _| !file.starts_with("prometheus/rules/")),
            findings: &["prometheus/rules: no *.yml there"],
        },
    ];
    fixture::each_is_found(&breaks, |root| find(root).findings);
}

fn variables_are_filled_in_as_grafana_would() {
    let dashboard = serde_json::json!({"templating": {"list": [
        {"name": "job", "type": "query", "query": "label_values(up, job)"},
        {"name": "window", "type": "interval", "query": "5m,1h"},
        {"name": "quantile", "type": "custom", "query": "median : 0.5, p95 : 0.95"},
        {"name": "limit", "type": "constant", "query": "10"},
    ]}});
    let variables = variables(&dashboard);
    for (text, expected, reason) in [
        ("up{job=~\"$job\"}", "up{job=~\"x\"}", "a matcher's value"),
        ("up{job=~\"${job:regex}\"}", "up{job=~\"x\"}", "with a format"),
        ("up{job=~\"[[job]]|[[job:pipe]]\"}", "up{job=~\"x|x\"}", "the old way"),
        ("rate(a[$__rate_interval])", "rate(a[1m])", "a duration of Grafana's"),
        ("max_over_time(a[${__range}:$__interval])", "max_over_time(a[15m:15s])", "two of them"),
        ("rate(a[$window])", "rate(a[5m])", "a duration to choose"),
        ("quantile($quantile, a) > $limit", "quantile(0.5, a) > 10", "numbers"),
        (
            "label_replace(a, \"b\", \"$1-${2}\", \"c\", \"(.*)$\")",
            "label_replace(a, \"b\", \"$1-${2}\", \"c\", \"(.*)$\")",
            "groups and an end",
        ),
        ("a{b=~\"[[:alpha:]]+\"}[5m]", "a{b=~\"[[:alpha:]]+\"}[5m]", "a class of characters"),
    ] {
        assert_eq!(fill(text, &variables), Ok(expected.to_owned()), "{reason}");
    }
    for (text, name) in
        [("$jobs", "jobs"), ("${instance}", "instance"), ("[[zone:csv]]", "zone"), ("$__rate", "__rate")]
    {
        assert_eq!(fill(text, &variables), Err(format!("the variable ${name} is not defined")));
    }
}

fn expressions_of_a_page_are_told_apart() {
    let page = "\
Text with `up`.

```promql
# What fails.
sum(a)
/
sum(b) # of all
# What is up.
up
and on (job)
  max by (job) (
c
)

d
order
```

```sh
up
```
";

    let expressions = of_page(page);

    let expected = [
        (5, "# What fails.\nsum(a)\n/\nsum(b) # of all\n"),
        (9, "# What is up.\nup\nand on (job)\n  max by (job) (\nc\n)\n"),
        (15, "\nd\n"),
        (16, "order\n"),
    ];
    let expressions: Vec<_> = expressions.iter().map(|(line, text)| (*line, text.as_str())).collect();
    assert_eq!(expressions, expected);
}
