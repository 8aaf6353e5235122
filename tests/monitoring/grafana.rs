//! What Grafana does to a dashboard's queries before Prometheus sees them: variables and intervals filled in, and the
//! moments asked for. The rules are those of its Prometheus data source.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::needs;
use crate::servers::Test;
use crate::servers::prometheus::{Matrix, Prometheus};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([], a_variable_is_put_in_so_that_it_means_its_value),
        needs!([], a_name_that_nothing_gives_a_value_is_an_error),
        needs!([], steps_and_rate_intervals_follow_the_time_range),
        needs!([], the_moments_of_a_graph_are_multiples_of_its_step),
        needs!([], cumulative_buckets_become_a_heatmaps_cells),
    ]
}

/// How often the data source is told that Prometheus scrapes, in seconds: as in prometheus.yml.
const SCRAPE_INTERVAL: f64 = 15.0;

/// How many points a graph asks for, about its width in pixels, where its panel does not say.
const POINTS: f64 = 1000.0;

/// A dashboard, as far as its numbers go.
pub struct Dashboard {
    /// The file's name without its ending.
    pub name: String,
    /// How far back it reaches when it is opened, in seconds.
    pub range: f64,
    pub variables: Vec<Variable>,
    pub targets: Vec<Target>,
}

pub struct Variable {
    pub name: String,
    /// A query, or what else it offers.
    pub query: String,
    kind: Kind,
    all: Option<String>,
    /// What is chosen when the dashboard is opened.
    pub current: Chosen,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// One value or several, as a regular expression.
    Several,
    /// One value, as it is.
    Single,
    DataSource,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Chosen {
    All,
    Values(Vec<String>),
}

/// What is chosen, by variable.
pub type Choice = BTreeMap<String, Chosen>;

/// One query of a panel, of an annotation (its name is the panel's), or of a variable.
#[derive(Debug, Clone)]
pub struct Target {
    pub panel: String,
    pub ref_id: String,
    pub expr: String,
    pub instant: bool,
    pub format: Option<String>,
    /// Fixed for an annotation, in seconds.
    step: Option<f64>,
}

/// The time that a dashboard shows, in Unix seconds.
#[derive(Debug, Clone, Copy)]
pub struct View {
    pub from: f64,
    pub to: f64,
}

/// What is asked for a target in a view, all in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Timing {
    pub start: f64,
    pub end: f64,
    pub step: f64,
    pub rate_interval: f64,
    pub range: f64,
}

impl Dashboard {
    /// Every dashboard of a folder.
    pub fn all(folder: &Path) -> Vec<Self> {
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.retain(|file| file.extension().is_some_and(|ending| ending == "json"));
        files.sort();
        let read = |file: &std::path::PathBuf| {
            let dashboard = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
            Self::read(file.file_stem().unwrap().to_str().unwrap(), &dashboard)
        };
        files.iter().map(read).collect()
    }

    fn read(name: &str, dashboard: &Value) -> Self {
        let mut titles: Vec<(String, &Value)> = Vec::new();
        let mut row = "";
        for panel in dashboard["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            if panel["type"] == "row" {
                // A collapsed row would hold its panels itself.
                assert_eq!(panel["panels"].as_array().map_or(0, Vec::len), 0, "{name}: the row {title:?} is collapsed");
                row = title.split(':').next().unwrap();
            } else {
                assert!(panel.get("repeat").is_none(), "{name}: {title:?} is repeated");
                let twice = dashboard["panels"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|other| other["title"] == title && other["type"] != "row");
                let title = if twice.count() > 1 { format!("{row} / {title}") } else { title.to_owned() };
                titles.push((title, panel));
            }
        }
        let of_panels = titles.iter().flat_map(|(title, panel)| {
            let overridden = ["interval", "maxDataPoints", "timeFrom", "timeShift"];
            let overridden = overridden.iter().find(|key| panel.get(**key).is_some());
            assert!(overridden.is_none(), "{name}: {title:?} sets its {overridden:?}, which is not looked at here");
            panel["targets"].as_array().unwrap().iter().map(|target| Target {
                panel: title.clone(),
                ref_id: text(target, "refId"),
                expr: text(target, "expr"),
                instant: target["instant"] == true,
                format: target["format"].as_str().map(str::to_owned),
                step: None,
            })
        });
        let of_annotations = dashboard["annotations"]["list"].as_array().into_iter().flatten().map(|one| Target {
            panel: text(one, "name"),
            ref_id: "annotation".to_owned(),
            expr: text(one, "expr"),
            instant: false,
            format: None,
            step: Some(seconds(one["step"].as_str().unwrap())),
        });
        Self {
            name: name.to_owned(),
            range: seconds(dashboard["time"]["from"].as_str().unwrap().strip_prefix("now-").unwrap()),
            variables: dashboard["templating"]["list"].as_array().unwrap().iter().map(Variable::read).collect(),
            targets: of_panels.chain(of_annotations).collect(),
        }
    }

    /// What is chosen when it is opened.
    pub fn opened(&self) -> Choice {
        self.variables.iter().map(|variable| (variable.name.clone(), variable.current.clone())).collect()
    }

    /// The PromQL that is asked, with everything filled in.
    pub fn fill_in(&self, expr: &str, choice: &Choice, timing: &Timing) -> String {
        let value = |name: &str| match name {
            "__range" => Some(format!("{}s", timing.range)),
            "__rate_interval" => Some(format!("{}s", timing.rate_interval)),
            "__interval" => Some(format!("{}s", timing.step)),
            _ => {
                let variable = self.variables.iter().find(|variable| variable.name == name)?;
                Some(variable.written(choice.get(name)?))
            }
        };
        interpolate(expr, value).unwrap_or_else(|name| panic!("{}: ${name} has no value in {expr}", self.name))
    }

    /// The result of one of its targets.
    pub async fn evaluate(&self, prometheus: &Prometheus, target: &Target, choice: &Choice, view: View) -> Matrix {
        let timing = target.timing(view);
        let promql = self.fill_in(&target.expr, choice, &timing);
        if target.instant {
            let vector = prometheus.query_at(&promql, timing.end).await;
            vector.into_iter().map(|(labels, value)| (labels, vec![(timing.end, value)])).collect()
        } else {
            prometheus.query_range(&promql, (timing.start, timing.end), timing.step).await
        }
    }
}

impl Variable {
    fn read(variable: &Value) -> Self {
        let current = match &variable["current"]["value"] {
            Value::Array(values) => values.iter().map(|value| value.as_str().unwrap().to_owned()).collect(),
            Value::String(value) => vec![value.clone()],
            _ => Vec::new(),
        };
        let kind = match variable["type"].as_str().unwrap() {
            "datasource" => Kind::DataSource,
            _ if variable["multi"] == true || variable["includeAll"] == true => Kind::Several,
            _ => Kind::Single,
        };
        Self {
            name: text(variable, "name"),
            query: text(variable, "query"),
            kind,
            all: variable["allValue"].as_str().map(str::to_owned),
            current: if current == ["$__all"] { Chosen::All } else { Chosen::Values(current) },
        }
    }

    pub fn is_query(&self) -> bool {
        self.query.starts_with("label_values(")
    }

    /// How a choice is written into a query.
    fn written(&self, chosen: &Chosen) -> String {
        match (self.kind, chosen) {
            (_, Chosen::All) => self.all.clone().expect("a value that stands for all"),
            (Kind::Several, Chosen::Values(values)) => {
                let values: Vec<_> = values.iter().map(|value| as_regex(value)).collect();
                if let [value] = &values[..] { value.clone() } else { format!("({})", values.join("|")) }
            }
            (_, Chosen::Values(values)) => values[0].replace('\\', r"\\").replace('\'', r"\\'"),
        }
    }
}

/// A value as a regular expression that stands in a string of PromQL: escaped for both.
fn as_regex(value: &str) -> String {
    value.chars().fold(String::new(), |mut written, c| {
        match c {
            '\\' => written.push_str(r"\\\\"),
            '$' | '^' | '*' | '{' | '}' | '[' | ']' | '\'' | '+' | '?' | '.' | '(' | ')' | '|' => {
                written.push_str(r"\\");
                written.push(c);
            }
            _ => written.push(c),
        }
        written
    })
}

/// Puts in the values of `$name` and `${name}`, or gives the name that has none.
fn interpolate(expr: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut parts = expr.split('$');
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (name, rest) = match part.strip_prefix('{') {
            Some(braced) => braced.split_once('}').unwrap_or((braced, "")),
            None => part.split_at(part.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(part.len())),
        };
        filled += &value(name).ok_or(name)?;
        filled += rest;
    }
    Ok(filled)
}

impl Target {
    /// What is asked for it in a view.
    pub fn timing(&self, View { from, to }: View) -> Timing {
        let range = to - from;
        let step = self.step.unwrap_or_else(|| (round_interval(range / POINTS)).max(SCRAPE_INTERVAL));
        let rate_interval = (step + SCRAPE_INTERVAL).max(4.0 * SCRAPE_INTERVAL);
        let aligned = |moment: f64| (moment / step).floor() * step;
        let (start, end) = if self.instant { (to, to) } else { (aligned(from), aligned(to)) };
        Timing { start, end, step, rate_interval, range: range.round() }
    }
}

/// Grafana's "nice" intervals from a second to an hour: up to the first of each pair it is the second.
fn round_interval(seconds: f64) -> f64 {
    #[rustfmt::skip]
    let limits = [
        (1.5, 1.0), (3.5, 2.0), (7.5, 5.0), (12.5, 10.0), (17.5, 15.0), (25.0, 20.0), (45.0, 30.0), (90.0, 60.0),
        (210.0, 120.0), (450.0, 300.0), (750.0, 600.0), (1050.0, 900.0), (1500.0, 1200.0), (2700.0, 1800.0),
    ];
    limits.into_iter().find(|(limit, _)| seconds < *limit).map_or(3600.0, |(_, interval)| interval)
}

/// What a heatmap shows of cumulative buckets at one moment: upper bounds with what each bucket holds itself.
pub fn cells(mut cumulative: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    cumulative.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut below = 0.0;
    let own = |(bound, count): (f64, f64)| {
        let own: f64 = count - below;
        below = count;
        (bound, own.max(0.0))
    };
    cumulative.into_iter().map(own).collect()
}

fn text(object: &Value, member: &str) -> String {
    object[member].as_str().unwrap_or_else(|| panic!("no {member} in {object}")).to_owned()
}

fn seconds(duration: &str) -> f64 {
    humantime::parse_duration(duration).unwrap().as_secs_f64()
}

fn a_variable_is_put_in_so_that_it_means_its_value() {
    let variable = |kind| Variable {
        name: "route".to_owned(),
        query: String::new(),
        kind,
        all: Some(".*".to_owned()),
        current: Chosen::All,
    };
    let of = |values: &[&str]| Chosen::Values(values.iter().map(|value| (*value).to_owned()).collect());
    #[rustfmt::skip]
    let cases = [
        (Kind::Several, Chosen::All, ".*", "All is what the dashboard says that it is, unescaped"),
        (Kind::Several, of(&["api"]), "api", "one value needs no brackets"),
        (Kind::Several, of(&["/api/users/{id}"]), r"/api/users/\\{id\\}", "braces would count repetitions"),
        (Kind::Several, of(&["127.0.0.1:8000", "b"]), r"(127\\.0\\.0\\.1:8000|b)", "a dot would stand for any character"),
        (Kind::Several, of(&[r"a\b"]), r"a\\\\b", "a backslash is escaped for the expression and for the string"),
        (Kind::Several, of(&["$^*+?()|[]'"]), r"\\$\\^\\*\\+\\?\\(\\)\\|\\[\\]\\'", "every other special character"),
        (Kind::Single, of(&["/health|/ready"]), "/health|/ready", "a single value may be an expression itself"),
        (Kind::Single, of(&[r"it's a\b"]), r"it\\'s a\\b", "only quotes and backslashes are escaped in it"),
    ];
    for (kind, chosen, expected, reason) in cases {
        assert_eq!(variable(kind).written(&chosen), expected, "{chosen:?}: {reason}");
    }
}

fn a_name_that_nothing_gives_a_value_is_an_error() {
    let value = |name: &str| (name == "job" || name == "__range").then(|| format!("<{name}>"));
    let cases = [
        (r#"up{job=~"$job"}[$__range]"#, Ok(r#"up{job=~"<job>"}[<__range>]"#)),
        ("${job}s", Ok("<job>s")),
        ("up", Ok("up")),
        ("$jobs", Err("jobs")),
        ("${instance}", Err("instance")),
    ];
    for (expr, expected) in cases {
        let expected = expected.map(str::to_owned).map_err(str::to_owned);
        assert_eq!(interpolate(expr, value), expected, "{expr}");
    }
}

fn graph() -> Target {
    let text = || "A".to_owned();
    Target { panel: text(), ref_id: text(), expr: text(), instant: false, format: None, step: None }
}

fn steps_and_rate_intervals_follow_the_time_range() {
    let minutes = 60.0;
    let hours = 60.0 * minutes;
    let cases = [
        (15.0 * minutes, 15.0, 60.0, "0.9 s a point, but there is only a sample each 15 s; a rate takes four"),
        (6.0 * hours, 20.0, 60.0, "21.6 s are rounded"),
        (24.0 * hours, 60.0, 75.0, "86.4 s are rounded; a rate overlaps the step by a scrape"),
        (7.0 * 24.0 * hours, 600.0, 615.0, "604.8 s are rounded"),
    ];
    for (range, step, rate_interval, reason) in cases {
        let timing = graph().timing(View { from: 1e9, to: 1e9 + range });
        assert_eq!((timing.step, timing.rate_interval, timing.range), (step, rate_interval, range), "{reason}");
    }
}

fn the_moments_of_a_graph_are_multiples_of_its_step() {
    let view = View { from: 1007.2, to: 1907.2 };
    let Timing { start, end, .. } = graph().timing(view);
    assert_eq!((start, end), (1005.0, 1905.0), "so that a refresh does not shift them");

    let instant = Target { instant: true, ..graph() }.timing(view);
    assert_eq!((instant.start, instant.end), (1907.2, 1907.2), "one value is of the end itself");
}

fn cumulative_buckets_become_a_heatmaps_cells() {
    let shown = cells(vec![(f64::INFINITY, 9.0), (0.1, 5.0), (0.5, 5.0), (1.0, 7.0)]);
    assert_eq!(shown, [(0.1, 5.0), (0.5, 0.0), (1.0, 2.0), (f64::INFINITY, 2.0)]);
}
