//! What every dashboard, alert and rule owes to whoever reads it: a unit, a description, a page in the runbook, a test.
//!
//! Nothing here asks what a query means; `contract` does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, walk_expr};
use serde_json::{Value, json};

use crate::expressions::{self, list, panels, rules_of, text};
use crate::fixture::{self, Break};
use crate::needs;
use crate::servers::Test;

pub fn tests() -> Vec<Test> {
    vec![
        needs!([], rules_dashboards_and_runbook_are_complete),
        needs!([], what_a_dashboard_lacks_is_found),
        needs!([], what_an_alert_or_a_rule_lacks_is_found),
    ]
}

/// The alerts that there must be: those of the specification, and one for pushes that the gateway rejects.
pub const ALERTS: [&str; 12] = [
    "HighErrorRate",
    "HighLatencyP95",
    "TooManyActiveRequests",
    "TrafficSpike",
    "TrafficDrop",
    "ApiDown",
    "ApiErrorBudgetBurn",
    "BatchJobFailed",
    "BatchJobOverdue",
    "PushgatewayDown",
    "PushRejected",
    "MetricsCardinalityHigh",
];

/// What the specification calls the main dashboard.
const MAIN: (&str, &str) = ("api-monitoring", "API Monitoring Dashboard");

/// Its first panels, with the kinds of Grafana's panels that can show what the specification says.
pub const MAIN_PANELS: [(&str, &[&str]); 8] = [
    ("Request Rate (5m)", &["timeseries"]),
    ("Active Requests", &["gauge"]),
    ("Latency Percentiles", &["timeseries"]),
    ("Error Rate (5m)", &["stat", "gauge", "timeseries"]),
    ("Requests by Status Code", &["timeseries", "barchart"]),
    ("Errors by Type", &["timeseries"]),
    ("Request Distribution by Endpoint", &["piechart"]),
    ("Average Response Time by Endpoint", &["bargauge", "barchart", "timeseries"]),
];

/// Its variables.
const MAIN_VARIABLES: [&str; 4] = ["datasource", "job", "instance", "route"];

/// Panels that show no values, and so have no unit.
const WITHOUT_VALUES: [&str; 4] = ["text", "alertlist", "annolist", "dashlist"];

/// Panels whose columns or lanes are of different sorts. One unit for all of them would be wrong for some, so it is
/// enough that an override gives one of them a unit.
const WITH_COLUMNS: [&str; 2] = ["table", "state-timeline"];

/// The columns of Grafana's grid.
const GRID: u64 = 24;

/// What each section of the runbook says, by the words it begins with.
const RUNBOOK_SECTIONS: [&str; 3] = ["what it means", "how to look", "what to do"];

const RUNBOOK: &str = "docs/runbook.md";

/// Everything under a root folder that is not as it should be.
fn check(root: &Path) -> Vec<String> {
    let mut findings = expressions::find(root).findings;
    // What cannot be read has just been found.
    let boards = expressions::documents(root, "grafonnet/rendered", "json", &mut Vec::new());
    let boards: Vec<_> = boards.iter().map(|(file, board)| Board { file, board }).collect();
    for board in &boards {
        findings.extend(board.findings(&boards).into_iter().map(|finding| format!("{}: {finding}", board.file)));
    }
    match boards.iter().find(|board| text(&board.board["uid"]) == MAIN.0) {
        Some(main) => findings.extend(main.as_main().into_iter().map(|finding| format!("{}: {finding}", main.file))),
        None => findings.push(format!("grafonnet/rendered: no dashboard has the uid {:?}", MAIN.0)),
    }
    let rules = expressions::documents(root, "prometheus/rules", "yml", &mut Vec::new());
    let rules: Vec<_> =
        rules.iter().flat_map(|(file, document)| rules_of(document).map(move |rule| (file, rule))).collect();
    let uids: Vec<_> = boards.iter().map(|board| text(&board.board["uid"])).collect();
    let runbook = Runbook::read(root, &mut findings);
    let tests = RuleTests::read(root, &mut findings);
    for (file, rule) in &rules {
        let (kind, found) = match text(&rule["record"]) {
            "" => ("alert", alert(rule, &uids, &runbook, &tests)),
            name => ("rule", recording_rule(name, &tests)),
        };
        let name = text(&rule["record"]).to_owned() + text(&rule["alert"]);
        findings.extend(found.into_iter().map(|finding| format!("{file}: {kind} {name:?}: {finding}")));
    }
    let alerts: BTreeSet<_> = rules.iter().map(|(_, rule)| text(&rule["alert"])).collect();
    let missing = ALERTS.iter().filter(|name| !alerts.contains(*name));
    findings.extend(missing.map(|name| format!("prometheus/rules: no alert {name:?}")));
    let orphans = runbook.0.keys().filter(|heading| !alerts.contains(heading.as_str()));
    findings.extend(orphans.map(|heading| format!("{RUNBOOK}: no alert is called {heading:?}")));
    findings
}

// ---- Dashboards ----

struct Board<'a> {
    file: &'a str,
    board: &'a Value,
}

impl Board<'_> {
    fn findings(&self, boards: &[Board<'_>]) -> Vec<String> {
        let board = self.board;
        let mut findings = self.head(boards);
        let mut ids = BTreeMap::new();
        for panel in panels(board) {
            let name = named(panel);
            match panel["id"].as_u64() {
                Some(id) => {
                    if let Some(other) = ids.insert(id, name.clone()) {
                        findings.push(format!("{name}: {other} has the same id {id}"));
                    }
                }
                None => findings.push(format!("{name}: no id")),
            }
            findings.extend(self.panel(panel).into_iter().map(|finding| format!("{name}: {finding}")));
        }
        findings.extend(overlaps(&board["panels"]));
        // A row's panels take their places when it is opened, and push down what follows.
        findings.extend(panels(board).flat_map(|panel| overlaps(&panel["panels"])));
        self.sources(board, "", &mut findings);
        findings.extend(self.links(boards));
        // 1 is on load, 2 with the time range; anything else, a word included, is never.
        let stale = list(&board["templating"]["list"])
            .filter(|variable| variable["type"] == "query" && !matches!(variable["refresh"].as_u64(), Some(1 | 2)));
        findings.extend(stale.map(|variable| format!("variable {}: its values are never refreshed", variable["name"])));
        findings
    }

    /// What stands above the panels.
    fn head(&self, boards: &[Board<'_>]) -> Vec<String> {
        let board = self.board;
        let mut findings = Vec::new();
        let mut demand = |holds: bool, finding: String| findings.extend((!holds).then_some(finding));
        let uid = text(&board["uid"]);
        let name = self.file.rsplit('/').next().unwrap().trim_end_matches(".json");
        demand(uid == name, format!("its uid is {uid:?}, not the file's name"));
        let same = |other: &&Board<'_>| other.file != self.file && text(&other.board["uid"]) == uid;
        if let Some(other) = boards.iter().find(same) {
            demand(false, format!("{} has the same uid {uid:?}", other.file));
        }
        demand(!text(&board["title"]).is_empty(), "no title".to_owned());
        demand(list(&board["tags"]).next().is_some(), "no tags".to_owned());
        demand(board["timezone"] == "browser", format!("its timezone is {}, not the browser's", board["timezone"]));
        demand(board["schemaVersion"].is_u64(), "no schemaVersion".to_owned());
        demand(!text(&board["refresh"]).is_empty(), "no refresh".to_owned());
        findings
    }

    fn panel(&self, panel: &Value) -> Vec<String> {
        let mut findings = Vec::new();
        let mut demand = |holds: bool, finding: &str| findings.extend((!holds).then_some(finding.to_owned()));
        let kind = text(&panel["type"]);
        demand(!text(&panel["title"]).is_empty(), "no title");
        if kind == "row" {
            return findings;
        }
        demand(!text(&panel["description"]).is_empty(), "no description");
        if !WITHOUT_VALUES.contains(&kind) {
            let overrides = list(&panel["fieldConfig"]["overrides"]).flat_map(|one| list(&one["properties"]));
            let mut units = overrides.filter(|property| property["id"] == "unit").map(|property| &property["value"]);
            let has_unit = !text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty()
                || WITH_COLUMNS.contains(&kind) && units.any(|unit| !text(unit).is_empty());
            demand(has_unit, "no unit");
            demand(list(&panel["targets"]).next().is_some(), "no query");
            let source = |value: &Value| !value["datasource"].is_null();
            demand(source(panel) || list(&panel["targets"]).all(source), "no datasource");
        }
        if let Some(repeat) = panel["repeat"].as_str() {
            let known = expressions::variables(self.board).contains_key(repeat);
            demand(known, &format!("it repeats by {repeat:?}, which is no variable"));
        }
        findings
    }

    /// Every datasource must be asked for by a variable, or be Grafana itself.
    fn sources(&self, value: &Value, place: &str, findings: &mut Vec<String>) {
        let variables = list(&self.board["templating"]["list"]).filter(|variable| variable["type"] == "datasource");
        let variables: Vec<_> = variables.map(|variable| text(&variable["name"])).collect();
        let is_variable = |uid: &str| {
            let name = uid.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')).or_else(|| uid.strip_prefix('$'));
            name.is_some_and(|name| variables.contains(&name))
        };
        match value {
            Value::Object(members) => {
                let named = ["title", "name"].map(|member| text(&value[member])).concat();
                let place = if named.is_empty() { place.to_owned() } else { named };
                if let Some(source) = members.get("datasource").filter(|source| !source.is_null()) {
                    let uid = source["uid"].as_str().unwrap_or_else(|| text(source));
                    if !is_variable(uid) && uid != "-- Grafana --" {
                        findings.push(format!("{place:?}: its datasource is {uid:?}, and not a variable"));
                    }
                }
                members.values().for_each(|member| self.sources(member, &place, findings));
            }
            Value::Array(values) => values.iter().for_each(|value| self.sources(value, place, findings)),
            _ => {}
        }
    }

    /// Links between dashboards must lead to one that is there, and take time and variables along.
    fn links(&self, boards: &[Board<'_>]) -> Vec<String> {
        let mut findings = Vec::new();
        let exists = |uid: &str| boards.iter().any(|board| text(&board.board["uid"]) == uid);
        if list(&self.board["links"]).next().is_none() {
            findings.push("no links to the other dashboards".to_owned());
        }
        for link in list(&self.board["links"]) {
            let name = format!("link {:?}", text(&link["title"]));
            let tagged = || {
                let wanted: Vec<_> = list(&link["tags"]).collect();
                boards.iter().any(|board| wanted.iter().all(|tag| list(&board.board["tags"]).any(|own| own == *tag)))
            };
            let leads = match linked(text(&link["url"])) {
                _ if link["type"] == "dashboards" => tagged(),
                Some(uid) => exists(uid),
                // Out of Grafana.
                None => continue,
            };
            if !leads {
                findings.push(format!("{name}: it leads to no dashboard"));
            }
            for keeps in ["keepTime", "includeVars"].iter().filter(|keeps| link[**keeps] != true) {
                findings.push(format!("{name}: without {keeps}"));
            }
        }
        for panel in panels(self.board) {
            let mut links = Vec::new();
            within(panel, &mut links);
            for link in links {
                let url = text(&link["url"]);
                let Some(uid) = linked(url) else { continue };
                let name = format!("{}: link {:?}", named(panel), text(&link["title"]));
                if !exists(uid) {
                    findings.push(format!("{name}: it leads to no dashboard"));
                }
                if !url.contains("${__url_time_range}") {
                    findings.push(format!("{name}: without ${{__url_time_range}}"));
                }
                if !url.contains("${__all_variables}") && !url.contains("var-") && !url.contains(":queryparam}") {
                    findings.push(format!("{name}: without variables"));
                }
            }
        }
        findings
    }

    /// What the specification asks of the main dashboard.
    fn as_main(&self) -> Vec<String> {
        let board = self.board;
        let mut findings = Vec::new();
        let mut demand = |holds: bool, finding: String| findings.extend((!holds).then_some(finding));
        demand(text(&board["title"]) == MAIN.1, format!("its title is {}, not {:?}", board["title"], MAIN.1));
        demand(board["refresh"] == "5s", format!("its refresh is {}, not 5s", board["refresh"]));
        let last = json!({"from": "now-15m", "to": "now"});
        demand(board["time"] == last, format!("its time is {}, not the last 15 minutes", board["time"]));
        let mut shown = panels(board).filter(|panel| panel["type"] != "row");
        for (place, (title, kinds)) in (1..).zip(MAIN_PANELS) {
            let panel = shown.next().unwrap_or(&Value::Null);
            demand(panel["title"] == title, format!("its panel {place} is {}, not {title:?}", panel["title"]));
            let kind = text(&panel["type"]);
            let fits = panel["title"] != title || kinds.contains(&kind);
            demand(fits, format!("panel {title:?}: it is a {kind}, not a {}", kinds.join(" or ")));
        }
        for name in MAIN_VARIABLES {
            let variable = list(&board["templating"]["list"]).find(|variable| variable["name"] == name);
            let chosen = |variable: &Value| {
                variable["type"] == "datasource" || variable["multi"] == true && variable["includeAll"] == true
            };
            demand(variable.is_some(), format!("no variable {name:?}"));
            demand(variable.is_none_or(chosen), format!("variable {name:?}: not for several and All"));
        }
        findings
    }
}

fn named(panel: &Value) -> String {
    let kind = if panel["type"] == "row" { "row" } else { "panel" };
    match text(&panel["title"]) {
        "" => format!("{kind} {}", panel["id"]),
        title => format!("{kind} {title:?}"),
    }
}

/// The uid of the dashboard that an address leads to: `/d/uid`, `/d/uid/name?...`.
fn linked(url: &str) -> Option<&str> {
    let after = url.strip_prefix("d/").or_else(|| url.split_once("/d/").map(|(_, after)| after))?;
    after.split(['/', '?', '#']).next()
}

/// Every link of a panel: its own, those of its fields, and those of its overrides.
fn within<'a>(panel: &'a Value, links: &mut Vec<&'a Value>) {
    match panel {
        Value::Object(members) => {
            for (name, member) in members {
                // A row's panels are looked at by themselves.
                if name == "panels" {
                    continue;
                }
                if name == "links" || name == "value" && members.get("id").is_some_and(|id| id == "links") {
                    links.extend(list(member));
                }
                within(member, links);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| within(value, links)),
        _ => {}
    }
}

/// Panels of one grid that leave it, or lie on each other.
fn overlaps(panels: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    let mut placed: Vec<(String, [u64; 4])> = Vec::new();
    for panel in list(panels) {
        let name = named(panel);
        let at = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64());
        let [Some(x), Some(y), Some(w), Some(h)] = at else {
            findings.push(format!("{name}: no gridPos"));
            continue;
        };
        if w == 0 || h == 0 || x + w > GRID {
            findings.push(format!("{name}: it does not fit the grid of {GRID} columns: {}", panel["gridPos"]));
        }
        let lies_on =
            |(_, [ox, oy, ow, oh]): &&(String, [u64; 4])| x < ox + ow && *ox < x + w && y < oy + oh && *oy < y + h;
        if let Some((other, _)) = placed.iter().find(lies_on) {
            findings.push(format!("{name}: it overlaps {other}"));
        }
        placed.push((name, [x, y, w, h]));
    }
    findings
}

// ---- Rules ----

fn alert(rule: &Value, uids: &[&str], runbook: &Runbook, tests: &RuleTests) -> Vec<String> {
    let mut findings = Vec::new();
    let mut demand = |holds: bool, finding: String| findings.extend((!holds).then_some(finding));
    let name = text(&rule["alert"]);
    let (first, rest) = name.split_at(name.len().min(1));
    let shouted = name.as_bytes().windows(2).any(|pair| pair.iter().all(u8::is_ascii_uppercase));
    let camel = !shouted
        && first.bytes().all(|byte| byte.is_ascii_uppercase())
        && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
    demand(camel, "its name is not CamelCase".to_owned());
    let severity = &rule["labels"]["severity"];
    demand(
        severity == "critical" || severity == "warning",
        format!("its severity is {severity}, not critical or warning"),
    );
    let annotation = |annotation: &str| text(&rule["annotations"][annotation]);
    for wanted in ["summary", "description"] {
        demand(!annotation(wanted).is_empty(), format!("no {wanted}"));
    }
    let tells = ["$value", "$labels"].iter().any(|part| annotation("description").contains(part));
    demand(tells, "its description shows neither $value nor $labels".to_owned());

    let anchor = annotation("runbook_url").split_once(&format!("{RUNBOOK}#")).map(|(_, anchor)| anchor);
    demand(
        anchor == Some(&*name.to_lowercase()),
        format!("its runbook_url {:?} does not lead to its heading", annotation("runbook_url")),
    );
    match runbook.0.get(name) {
        None => demand(false, format!("no heading in {RUNBOOK}")),
        Some(section) => {
            for part in RUNBOOK_SECTIONS {
                demand(section.contains(part), format!("its section in {RUNBOOK} does not say {part:?}"));
            }
        }
    }
    let board = linked(annotation("dashboard_url"));
    demand(
        board.is_some_and(|uid| uids.contains(&uid)),
        format!("its dashboard_url {:?} leads to no dashboard", annotation("dashboard_url")),
    );

    // Several alerts may share a name: it is their labels that tell them apart.
    let fixed = rule["labels"].as_object().into_iter().flatten().filter(|(_, value)| !text(value).contains("{{"));
    let fixed: Vec<_> = fixed.collect();
    let cases = tests.alerts.get(name);
    let fires = |labels: &Value| fixed.iter().all(|(label, value)| labels[label] == **value);
    let fired = cases.is_some_and(|cases| cases.firing.iter().any(fires));
    demand(fired, "no test under prometheus/tests shows it firing".to_owned());
    demand(cases.is_some_and(|cases| cases.silent), "no test under prometheus/tests shows it silent".to_owned());
    findings
}

fn recording_rule(name: &str, tests: &RuleTests) -> Vec<String> {
    let mut findings = Vec::new();
    let mut demand = |holds: bool, finding: &str| findings.extend((!holds).then_some(finding.to_owned()));
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let parts: Vec<_> = name.split(':').collect();
    demand(parts.len() == 3 && parts.iter().all(|part| is_word(part)), "its name is not level:metric:operations");
    demand(tests.asked.contains(name), "no test under prometheus/tests asks for it");
    findings
}

/// The text of each `##` section of the runbook, by its heading: what its parts begin with, one a line, in lower case.
struct Runbook(BTreeMap<String, BTreeSet<String>>);

impl Runbook {
    fn read(root: &Path, findings: &mut Vec<String>) -> Self {
        let Ok(page) = std::fs::read_to_string(root.join(RUNBOOK)) else {
            findings.push(format!("{RUNBOOK}: not there"));
            return Self(BTreeMap::new());
        };
        let mut sections: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut current = None;
        for line in page.lines() {
            if let Some(heading) = line.strip_prefix("## ") {
                current = Some(heading.trim().to_owned());
                sections.entry(heading.trim().to_owned()).or_default();
            }
            // A part is a heading of its own, or begins in bold.
            let part = line.strip_prefix("### ").or_else(|| line.strip_prefix("**"));
            if let (Some(section), Some(part)) = (&current, part) {
                let part = part.to_lowercase();
                let known = RUNBOOK_SECTIONS.iter().filter(|known| part.starts_with(**known));
                sections.get_mut(section).unwrap().extend(known.map(|known| (*known).to_owned()));
            }
        }
        Self(sections)
    }
}

/// What the unit tests of rules show.
#[derive(Default)]
struct RuleTests {
    alerts: BTreeMap<String, Cases>,
    /// Every name that an expression of theirs asks for.
    asked: BTreeSet<String>,
}

#[derive(Default)]
struct Cases {
    /// The labels of each alert that is expected to fire.
    firing: Vec<Value>,
    /// It is somewhere expected not to fire.
    silent: bool,
}

impl RuleTests {
    fn read(root: &Path, findings: &mut Vec<String>) -> Self {
        let mut read = Self::default();
        for (file, document) in expressions::documents(root, "prometheus/tests", "yml", findings) {
            for test in list(&document["tests"]) {
                for case in list(&test["alert_rule_test"]) {
                    let cases = read.alerts.entry(text(&case["alertname"]).to_owned()).or_default();
                    cases.silent |= list(&case["exp_alerts"]).next().is_none();
                    cases.firing.extend(list(&case["exp_alerts"]).map(|alert| alert["exp_labels"].clone()));
                }
                for case in list(&test["promql_expr_test"]) {
                    match parser::parse(text(&case["expr"])) {
                        Ok(expression) => drop(walk_expr(&mut read, &expression)),
                        Err(error) => findings.push(format!("{file}: {}: {error}", case["expr"])),
                    }
                }
            }
        }
        read
    }
}

impl ExprVisitor for RuleTests {
    type Error = std::convert::Infallible;

    fn pre_visit(&mut self, expression: &Expr) -> Result<bool, Self::Error> {
        let selector = match expression {
            Expr::VectorSelector(selector) => Some(selector),
            Expr::MatrixSelector(matrix) => Some(&matrix.vs),
            _ => None,
        };
        self.asked.extend(selector.and_then(|selector| selector.name.clone()));
        Ok(true)
    }
}

// ---- Tests ----

fn rules_dashboards_and_runbook_are_complete() {
    let findings = check(Path::new(env!("CARGO_MANIFEST_DIR")));

    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

const BOARD: &str = "grafonnet/rendered/api-monitoring.json";
const SLO: &str = "grafonnet/rendered/api-slo.json";
const RULES: &str = "prometheus/rules/red.rules.yml";
const ALERT_RULES: &str = "prometheus/rules/red.alerts.yml";
const RULE_TESTS: &str = "prometheus/tests/red.test.yml";

fn what_a_dashboard_lacks_is_found() {
    /// Sets a value in a dashboard.
    macro_rules! lacks {
        ($reason:expr, $file:ident $pointer:expr => $value:tt, [$($finding:expr),*]) => {
            Break {
                reason: $reason,
                change: |tree| tree.set($file, $pointer, json!($value)),
                findings: &[$(concat!("grafonnet/rendered/", $finding)),*],
            }
        };
    }
    let breaks = [
        lacks!("two panels of one id", BOARD "/panels/3/id" => 3,
            ["api-monitoring.json: panel \"Error Rate (5m)\": panel \"Latency Percentiles\" has the same id 3"]),
        lacks!("a panel of a row with another's id", BOARD "/panels/8/panels/0/id" => 1,
            ["api-monitoring.json: panel \"Users\": panel \"Request Rate (5m)\" has the same id 1"]),
        lacks!("a panel without id", BOARD "/panels/3/id" => null, ["api-monitoring.json: panel \"Error Rate \
         (5m)\": no id"]),
        lacks!("a panel without title", SLO "/panels/0/title" => "", ["api-slo.json: panel 1: no title"]),
        lacks!("a row without title", BOARD "/panels/8/title" => "", ["api-monitoring.json: row 9: no title"]),
        lacks!("a panel without description", BOARD "/panels/3/description" => null,
            ["api-monitoring.json: panel \"Error Rate (5m)\": no description"]),
        lacks!("the same in a row", BOARD "/panels/8/panels/0/description" => "",
            ["api-monitoring.json: panel \"Users\": no description"]),
        lacks!("a text without description", BOARD "/panels/9/description" => "",
            ["api-monitoring.json: panel \"About\": no description"]),
        lacks!("a panel without unit", BOARD "/panels/3/fieldConfig/defaults/unit" => null,
            ["api-monitoring.json: panel \"Error Rate (5m)\": no unit"]),
        lacks!("a unit for some of its series only", BOARD "/panels/3/fieldConfig" =>
            {"defaults": {}, "overrides": [{"properties": [{"id": "unit", "value": "s"}]}]},
            ["api-monitoring.json: panel \"Error Rate (5m)\": no unit"]),
        lacks!("a table without any unit", BOARD "/panels/10/fieldConfig/overrides/0/properties/0/id" => "color",
            ["api-monitoring.json: panel \"Slowest\": no unit"]),
        lacks!("a panel without query", SLO "/panels/0/targets" => [], ["api-slo.json: panel \"Failed\": no \
         query"]),
        lacks!("a panel without datasource", SLO "/panels/0/datasource" => null,
            ["api-slo.json: panel \"Failed\": no datasource"]),
        lacks!("a datasource baked in", BOARD "/panels/3/datasource/uid" => "PBFA97CFB590B2093",
            ["api-monitoring.json: \"Error Rate (5m)\": its datasource is \"PBFA97CFB590B2093\", and not a \
             variable"]),
        lacks!("a datasource by name", BOARD "/panels/3/datasource" => "Prometheus",
            ["api-monitoring.json: \"Error Rate (5m)\": its datasource is \"Prometheus\", and not a variable"]),
        lacks!("a query's datasource", BOARD "/panels/3/targets/0" =>
            {"refId": "A", "expr": "up", "datasource": {"uid": "prometheus"}},
            ["api-monitoring.json: \"Error Rate (5m)\": its datasource is \"prometheus\", and not a variable"]),
        lacks!("a datasource of another variable", BOARD "/panels/3/datasource/uid" => "${job}",
            ["api-monitoring.json: \"Error Rate (5m)\": its datasource is \"${job}\", and not a variable"]),
        lacks!("an annotation's datasource", SLO "/annotations/list/1/datasource/uid" => "prometheus",
            ["api-slo.json: \"Alerts\": its datasource is \"prometheus\", and not a variable"]),
        lacks!("a variable's datasource", SLO "/templating/list/1/datasource/uid" => "prometheus",
            ["api-slo.json: \"job\": its datasource is \"prometheus\", and not a variable"]),
        lacks!("no uid", SLO "/uid" => null, [
            "api-monitoring.json: link \"Other\": it leads to no dashboard",
            "api-monitoring.json: panel \"Users\": link \"Objectives\": it leads to no dashboard",
            "api-slo.json: its uid is \"\", not the file's name"
        ]),
        Break {
            reason: "two dashboards of one uid",
            change: |tree| drop(tree.0.insert("grafonnet/rendered/other.json".to_owned(), tree.0[SLO].clone())),
            findings: &[
                "grafonnet/rendered/api-slo.json: grafonnet/rendered/other.json has the same uid \"api-slo\"",
                "grafonnet/rendered/other.json: its uid is \"api-slo\", not the file's name",
                "grafonnet/rendered/other.json: grafonnet/rendered/api-slo.json has the same uid \"api-slo\"",
            ],
        },
        lacks!("no title", SLO "/title" => "", ["api-slo.json: no title"]),
        lacks!("no tags, which a link needs", SLO "/tags" => [], ["api-slo.json: no tags"]),
        lacks!("the server's timezone", SLO "/timezone" => "utc", ["api-slo.json: its timezone is \"utc\", not \
         the browser's"]),
        lacks!("no schemaVersion", SLO "/schemaVersion" => null, ["api-slo.json: no schemaVersion"]),
        lacks!("no refresh", SLO "/refresh" => false, ["api-slo.json: no refresh"]),
        lacks!("another refresh of the main one", BOARD "/refresh" => "1m",
            ["api-monitoring.json: its refresh is \"1m\", not 5s"]),
        lacks!("another range of the main one", BOARD "/time/from" => "now-1h",
            ["api-monitoring.json: its time is {\"from\":\"now-1h\",\"to\":\"now\"}, not the last 15 minutes"]),
        lacks!("another title of the main one", BOARD "/title" => "API",
            ["api-monitoring.json: its title is \"API\", not \"API Monitoring Dashboard\""]),
        Break {
            reason: "no main dashboard",
            change: |tree| {
                let board = tree.0.remove(BOARD).unwrap();
                tree.0.insert("grafonnet/rendered/api.json".to_owned(), board);
                tree.set("grafonnet/rendered/api.json", "/uid", json!("api"));
                tree.set(SLO, "/links/0/url", json!("/d/api"));
                let alerts = tree.0.get_mut(ALERT_RULES).unwrap();
                *alerts = alerts.replace("/d/api-monitoring", "/d/api");
            },
            findings: &["grafonnet/rendered: no dashboard has the uid \"api-monitoring\""],
        },
        Break {
            reason: "its panels in another order",
            change: |tree| tree.change(BOARD, |board| board["panels"].as_array_mut().unwrap().swap(4, 5)),
            findings: &[
                "grafonnet/rendered/api-monitoring.json: its panel 5 is \"Errors by Type\", not \"Requests by \
                 Status Code\"",
                "grafonnet/rendered/api-monitoring.json: its panel 6 is \"Requests by Status Code\", not \
                 \"Errors by Type\"",
            ],
        },
        lacks!("another kind of panel", BOARD "/panels/6/type" => "bargauge",
            ["api-monitoring.json: panel \"Request Distribution by Endpoint\": it is a bargauge, not a piechart"]),
        lacks!("a variable less", BOARD "/templating/list/2/name" => "host", ["api-monitoring.json: no variable \
         \"instance\""]),
        lacks!("a variable for one value only", BOARD "/templating/list/3/multi" => false,
            ["api-monitoring.json: variable \"route\": not for several and All"]),
        lacks!("a variable that is never asked for again", BOARD "/templating/list/3/refresh" => "time",
            ["api-monitoring.json: variable \"route\": its values are never refreshed"]),
        lacks!("a repetition by nothing", BOARD "/panels/3" =>
            {"id": 4, "type": "stat", "title": "Error Rate (5m)", "description": "x", "repeat": "zone",
             "fieldConfig": {"defaults": {"unit": "s"}}, "gridPos": {"x": 12, "y": 8, "w": 12, "h": 8},
             "targets": [{"refId": "A", "expr": "up", "datasource": {"uid": "$datasource"}}]},
            ["api-monitoring.json: panel \"Error Rate (5m)\": it repeats by \"zone\", which is no variable"]),
        lacks!("no links", SLO "/links" => [], ["api-slo.json: no links to the other dashboards"]),
        lacks!("a link to nowhere", SLO "/links/0/url" => "/d/api-users",
            ["api-slo.json: link \"Other\": it leads to no dashboard"]),
        lacks!("a link by tags that none has", SLO "/links/1/tags" => ["users"],
            ["api-slo.json: link \"All\": it leads to no dashboard"]),
        lacks!("a link that forgets the \
         time", SLO "/links/0/keepTime" => false, ["api-slo.json: link \"Other\": without keepTime"]),
        lacks!("a link that forgets the variables", SLO "/links/1/includeVars" => null,
            ["api-slo.json: link \"All\": without includeVars"]),
        lacks!("a panel's link to nowhere", BOARD "/panels/8/panels/0/fieldConfig/defaults/links/0/url" =>
            "/d/slo?${__url_time_range}&var-job=${job}",
            ["api-monitoring.json: panel \"Users\": link \"Objectives\": it leads to no dashboard"]),
        lacks!("a panel's link that forgets both", BOARD "/panels/8/panels/0/fieldConfig/defaults/links/0/url" =>
            "/d/api-slo/objectives",
            ["api-monitoring.json: panel \"Users\": link \"Objectives\": without ${__url_time_range}",
             "api-monitoring.json: panel \"Users\": link \"Objectives\": without variables"]),
        lacks!("a panel on another", BOARD "/panels/3/gridPos" => {"x": 11, "y": 8, "w": 12, "h": 8},
            ["api-monitoring.json: panel \"Error Rate (5m)\": it overlaps panel \"Latency Percentiles\""]),
        lacks!("a panel that leaves the grid", BOARD "/panels/3/gridPos/x" => 13,
            ["api-monitoring.json: panel \"Error Rate (5m)\": it does not fit the grid of 24 columns"]),
        lacks!("a panel without place", BOARD "/panels/3/gridPos" => null,
            ["api-monitoring.json: panel \"Error Rate (5m)\": no gridPos"]),
    ];
    fixture::each_is_found(&breaks, check);
}

fn what_an_alert_or_a_rule_lacks_is_found() {
    /// Sets a value in the first alert.
    macro_rules! lacks {
        ($reason:expr, $pointer:expr => $value:tt, [$($finding:expr),*]) => {
            Break {
                reason: $reason,
                change: |tree| tree.set(ALERT_RULES, concat!("/groups/0/rules/0/", $pointer), json!($value)),
                findings: &[$(concat!("prometheus/rules/red.alerts.yml: alert \"HighErrorRate\": ", $finding)),*],
            }
        };
    }
    const NO_RUNBOOK: [&str; 1 + ALERTS.len()] = {
        let mut findings = ["prometheus/rules/red.alerts.yml: alert "; 1 + ALERTS.len()];
        findings[0] = "docs/runbook.md: not there";
        findings
    };
    let breaks = [
        lacks!("no severity", "labels" => {"window": "5m"}, ["its severity is null, not critical or warning"]),
        lacks!("an unknown severity", "labels/severity" => "page",
            ["its severity is \"page\", not critical or warning", "no test under prometheus/tests shows it \
             firing"]),
        lacks!("no summary", "annotations/summary" => "", ["no summary"]),
        lacks!("no description", "annotations/description" => null,
            ["no description", "its description shows neither $value nor $labels"]),
        lacks!("a description without figures", "annotations/description" => "Too many.",
            ["its description shows neither $value nor $labels"]),
        lacks!("no runbook", "annotations/runbook_url" => null, ["its runbook_url \"\" does not lead to its \
         heading"]),
        lacks!("another alert's runbook", "annotations/runbook_url" => "https://example.com/docs/runbook.md#apidown",
            ["its runbook_url \"https://example.com/docs/runbook.md#apidown\" does not lead to its heading"]),
        lacks!("no dashboard", "annotations/dashboard_url" => null, ["its dashboard_url \"\" leads to no \
         dashboard"]),
        lacks!("a dashboard that is not there", "annotations/dashboard_url" => "http://localhost:3000/d/api",
            ["its dashboard_url \"http://localhost:3000/d/api\" leads to no dashboard"]),
        Break {
            reason: "an alert without heading in the runbook",
            change: |tree| tree.replace(RUNBOOK, "## HighErrorRate\n", "## High error rate\n"),
            findings: &[
                "prometheus/rules/red.alerts.yml: alert \"HighErrorRate\": no heading in docs/runbook.md",
                "docs/runbook.md: no alert is called \"High error rate\"",
            ],
        },
        Break {
            reason: "a section that does not say what to do",
            change: |tree| {
                let page = tree.0.get_mut(RUNBOOK).unwrap();
                *page = page.replacen("### What to do\n", "### Further\n", 1);
            },
            findings: &[
                "prometheus/rules/red.alerts.yml: alert \"HighErrorRate\": its section in docs/runbook.md does \
                 not say \"what to do\"",
            ],
        },
        Break {
            reason: "a heading for no alert",
            change: |tree| tree.0.get_mut(RUNBOOK).unwrap().push_str("## DiskFull\n"),
            findings: &["docs/runbook.md: no alert is called \"DiskFull\""],
        },
        Break {
            reason: "an alert less",
            change: |tree| {
                tree.change(ALERT_RULES, |rules| {
                    rules["groups"][0]["rules"].as_array_mut().unwrap().remove(0);
                })
            },
            findings: &[
                "prometheus/rules: no alert \"HighErrorRate\"",
                "docs/runbook.md: no alert is called \"HighErrorRate\"",
            ],
        },
        Break {
            reason: "a name that is not CamelCase",
            change: |tree| {
                for file in [ALERT_RULES, RULE_TESTS, RUNBOOK] {
                    let text = tree.0.get_mut(file).unwrap();
                    *text =
                        text.replace("HighErrorRate", "High_error_rate").replace("#higherrorrate", "#high_error_rate");
                }
            },
            findings: &[
                "prometheus/rules/red.alerts.yml: alert \"High_error_rate\": its name is not CamelCase",
                "prometheus/rules: no alert \"HighErrorRate\"",
            ],
        },
        Break {
            reason: "no test that fires",
            change: |tree| tree.set(RULE_TESTS, "/tests/0/alert_rule_test/0/exp_alerts", json!([])),
            findings: &[
                "prometheus/rules/red.alerts.yml: alert \"HighErrorRate\": no test under prometheus/tests shows \
                 it firing",
            ],
        },
        Break {
            reason: "no test of the one of several that bears another label",
            change: |tree| tree.set(ALERT_RULES, "/groups/0/rules/0/labels/window", json!("1h")),
            findings: &[
                "prometheus/rules/red.alerts.yml: alert \"HighErrorRate\": no test under prometheus/tests shows \
                 it firing",
            ],
        },
        Break {
            reason: "no test that stays silent",
            change: |tree| tree.set(RULE_TESTS, "/tests/1/alert_rule_test/0/alertname", json!("ApiDown")),
            findings: &[
                "prometheus/rules/red.alerts.yml: alert \"HighErrorRate\": no test under prometheus/tests shows \
                 it silent",
            ],
        },
        Break {
            reason: "a rule's name",
            change: |tree| {
                for file in [RULES, RULE_TESTS] {
                    let text = tree.0.get_mut(file).unwrap();
                    *text = text.replace("job:api_users:max", "job:api_users");
                }
            },
            findings: &[
                "prometheus/rules/red.rules.yml: rule \"job:api_users\": its name is not level:metric:operations",
            ],
        },
        Break {
            reason: "a rule without test",
            change: |tree| tree.replace(RULE_TESTS, "job:api_users:max", "sum(api_users)"),
            findings: &["prometheus/rules/red.rules.yml: rule \"job:api_users:max\": no test under \
             prometheus/tests \
                 asks for it"],
        },
        Break {
            reason: "no tests",
            change: |tree| tree.replace(RULE_TESTS, "job:api_users:max", "job:api_users:max{"),
            findings: &[
                "prometheus/tests/red.test.yml: \"job:api_users:max{\": ",
                "prometheus/rules/red.rules.yml: rule \"job:api_users:max\": no test under prometheus/tests \
                 asks for it",
            ],
        },
        Break { reason: "no runbook", change: |tree| drop(tree.0.remove(RUNBOOK)), findings: &NO_RUNBOOK },
    ];
    fixture::each_is_found(&breaks, check);
}
