//! One contract for metrics: what rules, alerts, dashboards and docs ask for is there, and is asked for in a way that
//! gives a true answer; what is there is described and used.
//!
//! What is there is not listed anywhere: it is what the running binary and a real Pushgateway expose.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use promql_parser::label::{METRIC_NAME, MatchOp, Matcher};
use promql_parser::parser::token::{
    T_BOTTOMK, T_COUNT, T_COUNT_VALUES, T_DIV, T_GROUP, T_LAND, T_LIMIT_RATIO, T_LIMITK, T_LOR, T_LUNLESS, T_TOPK,
};
use promql_parser::parser::value::ValueType;
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality, VectorSelector,
};

use crate::expressions::{self, Expression, Recorded};
use crate::fixture::{self, Break, EXPOSED, GATEWAY};
use crate::needs;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PUSHGATEWAY, Test};
use crate::support::{Answer, Samples, Server, binary, client, eventually, finished};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([PUSHGATEWAY], rules_dashboards_and_docs_keep_to_what_is_exposed),
        needs!([], a_metric_or_a_label_that_does_not_exist_is_found),
        needs!([], arithmetic_that_cannot_be_true_is_found),
        needs!([], a_metric_that_nobody_describes_or_uses_is_found),
        needs!([], labels_are_followed_through_an_expression),
    ]
}

/// A metric that is exposed by nothing of ours, and that we ask for all the same.
struct Foreign {
    name: &'static str,
    kind: Kind,
    labels: &'static [&'static str],
    /// Who makes it, and where that is written.
    #[allow(dead_code, reason = "for whoever reads the list")]
    reason: &'static str,
}

/// Each entry must be asked for by somebody.
const FOREIGN: &[Foreign] = &[
    Foreign {
        name: "up",
        kind: Kind::Gauge,
        labels: &[],
        reason: "Prometheus writes it with every scrape: https://prometheus.io/docs/concepts/jobs_instances/",
    },
    Foreign { name: "scrape_duration_seconds", kind: Kind::Gauge, labels: &[], reason: "the same" },
    Foreign { name: "scrape_samples_post_metric_relabeling", kind: Kind::Gauge, labels: &[], reason: "the same" },
    Foreign {
        name: "ALERTS",
        kind: Kind::Gauge,
        labels: &["alertname", "alertstate", "severity"],
        reason: "Prometheus writes it for each alert that is pending or firing: \
                 https://prometheus.io/docs/prometheus/latest/configuration/alerting_rules/",
    },
];

/// Prometheus adds these to whatever it scrapes; the name is one too.
const TARGET_LABELS: [&str; 3] = ["instance", "job", METRIC_NAME];

// ---- What is there ----

/// What a sample is, or what an expression gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Goes up and down, or is not of counters.
    Gauge,
    /// Made from counters, such as a rate; no longer one itself.
    OfCounters,
    /// Only grows.
    Counter,
}

#[derive(Debug, Clone)]
struct Metric {
    kind: Kind,
    /// A histogram's cumulative buckets.
    buckets: bool,
    labels: BTreeSet<String>,
    /// As its `TYPE` line calls it: `x` for `x_bucket`.
    family: String,
}

/// Every metric that there is.
struct Known {
    metrics: BTreeMap<String, Metric>,
    /// The families that this project makes, and so has to describe and to use.
    ours: BTreeSet<String>,
    foreign: &'static [Foreign],
}

impl Known {
    /// From what the binary exposes, and what a Pushgateway exposes after jobs of those names.
    fn new(exposed: &str, gateway: &str, jobs: &[&str], foreign: &'static [Foreign]) -> Self {
        // Which the gateway adds to every group.
        const OF_THE_GATEWAY: [&str; 2] = ["push_time_seconds", "push_failure_time_seconds"];
        let mut known = Self { metrics: BTreeMap::new(), ours: BTreeSet::new(), foreign };
        known.add(exposed, |_| true);
        known.add(gateway, |(family, labels)| {
            !OF_THE_GATEWAY.contains(&family) && labels.get("job").is_some_and(|job| jobs.contains(&job.as_str()))
        });
        known
    }

    fn add(&mut self, exposition: &str, is_ours: impl Fn((&str, &BTreeMap<String, String>)) -> bool) {
        let types = exposition.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        let types: BTreeMap<_, _> = types.collect();
        for sample in Samples::parse(exposition).0 {
            let part = ["_bucket", "_sum", "_count"].into_iter().find_map(|part| {
                let family = sample.name.strip_suffix(part)?;
                types.get(family).filter(|kind| ["histogram", "summary"].contains(kind)).map(|_| (family, part))
            });
            let (family, part) = part.unwrap_or((&sample.name, ""));
            let counts = !part.is_empty() || types.get(family) == Some(&"counter");
            if is_ours((family, &sample.labels)) {
                self.ours.insert(family.to_owned());
            }
            let metric = self.metrics.entry(sample.name.clone()).or_insert_with(|| Metric {
                kind: if counts { Kind::Counter } else { Kind::Gauge },
                buckets: part == "_bucket",
                labels: TARGET_LABELS.map(str::to_owned).into(),
                family: family.to_owned(),
            });
            metric.labels.extend(sample.labels.into_keys());
        }
    }

    fn get(&self, name: &str) -> Option<Metric> {
        let foreign = || {
            let Foreign { kind, labels, .. } = self.foreign.iter().find(|foreign| foreign.name == name)?;
            let labels = labels.iter().chain(&TARGET_LABELS).map(|label| (*label).to_owned()).collect();
            Some(Metric { kind: *kind, buckets: false, labels, family: name.to_owned() })
        };
        self.metrics.get(name).cloned().or_else(foreign)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.metrics.keys().map(String::as_str).chain(self.foreign.iter().map(|foreign| foreign.name))
    }
}

// ---- What an expression gives ----

/// What is known of an expression's result.
#[derive(Debug, Clone, PartialEq)]
struct Shape {
    kind: Kind,
    /// Whatever of it is made from counters is a sum, an average or the like, and not one series for each of theirs.
    aggregated: bool,
    /// Cumulative buckets, as `histogram_quantile` needs them.
    buckets: bool,
    labels: Labels,
}

/// The labels that a result's series have.
#[derive(Debug, Clone, PartialEq)]
struct Labels {
    names: BTreeSet<String>,
    /// Every series has each of them. Not so after `or`.
    certain: bool,
    /// There may be any others: nothing is known of the metric, which is reported where it stands.
    any: bool,
}

impl Labels {
    fn of(names: impl IntoIterator<Item = String>) -> Self {
        Self { names: names.into_iter().collect(), certain: true, any: false }
    }

    fn has(&self, label: &str) -> bool {
        self.any || self.names.contains(label)
    }

    fn and(mut self, more: &[String]) -> Self {
        self.names.extend(more.iter().cloned());
        self
    }

    fn without(mut self, less: &[String]) -> Self {
        self.names.retain(|name| !less.contains(name));
        self
    }

    fn only(self, these: &[String]) -> Self {
        let names = these.iter().filter(|label| self.has(label)).cloned().collect();
        Self { names, any: false, ..self }
    }

    fn or(self, other: Self) -> Self {
        let certain = self.certain && other.certain && self.names == other.names;
        Self { names: &self.names | &other.names, certain, any: self.any || other.any }
    }

    /// That series of these two may have all labels in common; false only where that is sure not to be.
    fn may_equal(&self, other: &Self) -> bool {
        let name = [METRIC_NAME.to_owned()];
        let unsure = |labels: &Self| labels.any || !labels.certain;
        unsure(self) || unsure(other) || self.clone().without(&name).names == other.clone().without(&name).names
    }
}

impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<_> = self.names.iter().map(String::as_str).filter(|name| *name != METRIC_NAME).collect();
        write!(f, "it has {}", if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    }
}

impl Shape {
    /// A number, or a vector without labels.
    fn number() -> Self {
        Self { kind: Kind::Gauge, aggregated: false, buckets: false, labels: Labels::of([]) }
    }

    fn of_counters(&self) -> bool {
        self.kind != Kind::Gauge
    }

    fn unknown() -> Self {
        Self { labels: Labels { any: true, ..Labels::of([]) }, aggregated: true, buckets: true, ..Self::number() }
    }

    /// What comes of two together: of whichever of them counts.
    fn beside(&self, other: &Self) -> Self {
        let counting = [self, other].into_iter().filter(|side| side.of_counters());
        Self {
            kind: self.kind.max(other.kind).min(Kind::OfCounters),
            aggregated: counting.clone().count() > 0 && counting.clone().all(|side| side.aggregated),
            ..self.clone()
        }
    }
}

/// Follows expressions, and the rules that they ask for, from the metrics on.
struct Analyst<'a> {
    known: &'a Known,
    rules: BTreeMap<&'a str, Vec<(&'a Expression, &'a Recorded)>>,
    findings: Vec<String>,
    /// Every metric and rule that was asked for by name.
    asked: BTreeSet<String>,
    /// The rules being followed, so that one that asks for itself ends.
    within: Vec<String>,
}

impl<'a> Analyst<'a> {
    fn new(known: &'a Known, expressions: &'a [Expression]) -> Self {
        let mut rules: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for expression in expressions {
            if let Some(recorded) = &expression.records {
                rules.entry(recorded.name.as_str()).or_default().push((expression, recorded));
            }
        }
        Self { known, rules, findings: Vec::new(), asked: BTreeSet::new(), within: Vec::new() }
    }

    /// What an expression gives; what is wrong with it goes to the findings.
    fn shape(&mut self, expression: &Expr) -> Shape {
        match expression {
            Expr::Paren(inner) => self.shape(&inner.expr),
            Expr::Unary(inner) => self.shape(&inner.expr),
            Expr::Subquery(inner) => self.shape(&inner.expr),
            Expr::VectorSelector(selector) => self.selected(selector),
            Expr::MatrixSelector(matrix) => self.selected(&matrix.vs),
            Expr::Aggregate(aggregate) => self.aggregated(aggregate),
            Expr::Binary(binary) => self.combined(binary),
            Expr::Call(call) => self.called(call),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => Shape::number(),
        }
    }

    fn find(&mut self, finding: String) {
        self.findings.push(finding);
    }

    /// Reports each label that these do not have.
    fn expect(&mut self, what: &str, wanted: &[String], labels: &Labels) {
        for label in wanted.iter().filter(|label| !labels.has(label)) {
            self.find(format!("{what} has no label {label:?}; {labels}"));
        }
    }

    fn selected(&mut self, selector: &VectorSelector) -> Shape {
        let alternatives = selector.matchers.or_matchers.iter().flatten();
        let matchers: Vec<_> = selector.matchers.matchers.iter().chain(alternatives).collect();
        let (of_name, of_labels): (Vec<&Matcher>, Vec<_>) =
            matchers.into_iter().partition(|matcher| matcher.name == METRIC_NAME);
        let names: Vec<String> = match &selector.name {
            Some(name) => vec![name.clone()],
            None => {
                let all = self.known.names().chain(self.rules.keys().copied());
                all.filter(|name| of_name.iter().all(|matcher| matcher.is_match(name))).map(str::to_owned).collect()
            }
        };
        let shapes: Vec<_> = names.iter().filter_map(|name| self.named(name)).collect();
        // Whoever selects everything asks for nothing in particular.
        let wide = selector.name.is_none()
            && !of_name.iter().any(|matcher| matches!(matcher.op, MatchOp::Equal | MatchOp::Re(_)));
        if !wide {
            self.asked.extend(names);
        }
        // Of several metrics, what holds of each of them.
        let both = |a: Shape, b: Shape| Shape {
            kind: a.kind.min(b.kind),
            aggregated: a.aggregated && b.aggregated,
            buckets: a.buckets && b.buckets,
            labels: a.labels.or(b.labels),
        };
        let Some(shape) = shapes.into_iter().reduce(both) else {
            let asked = selector.name.clone().unwrap_or_else(|| selector.to_string());
            self.find(format!("nothing exposes or records {asked:?}"));
            return Shape::unknown();
        };
        let labels: Vec<_> = of_labels.iter().map(|matcher| matcher.name.clone()).collect();
        self.expect(selector.name.as_deref().unwrap_or("what is selected"), &labels, &shape.labels);
        shape
    }

    /// What a metric is, or what a rule records.
    fn named(&mut self, name: &str) -> Option<Shape> {
        if let Some(Metric { kind, buckets, labels, .. }) = self.known.get(name) {
            return Some(Shape { kind, aggregated: false, buckets, labels: Labels::of(labels) });
        }
        let rules = self.rules.get(name)?.clone();
        if self.within.iter().any(|rule| rule == name) {
            return Some(Shape::unknown());
        }
        self.within.push(name.to_owned());
        // What is wrong within the rule is found where it stands, and what it asks for it asks for there.
        let (findings, asked) = (self.findings.clone(), self.asked.clone());
        let shapes: Vec<_> = rules
            .into_iter()
            .map(|(expression, recorded)| {
                let shape = self.shape(&expression.parsed);
                let labels = shape.labels.clone().and(&recorded.labels).and(&[METRIC_NAME.to_owned()]);
                Shape { labels, kind: shape.kind.min(Kind::OfCounters), ..shape }
            })
            .collect();
        (self.findings, self.asked) = (findings, asked);
        self.within.pop();
        shapes.into_iter().reduce(|a, b| Shape {
            buckets: a.buckets && b.buckets,
            labels: a.labels.clone().or(b.labels.clone()),
            ..a.beside(&b)
        })
    }

    fn aggregated(&mut self, AggregateExpr { op, expr, param, modifier }: &AggregateExpr) -> Shape {
        let mut shape = self.shape(expr);
        if let Some(param) = param {
            self.shape(param);
        }
        let listed = modifier.as_ref().map_or(&[][..], |modifier| &modifier.labels().labels);
        self.expect(&format!("what {op} aggregates"), listed, &shape.labels);
        // These choose among the series and leave them as they are.
        if [T_TOPK, T_BOTTOMK, T_LIMITK, T_LIMIT_RATIO].contains(&op.id()) {
            return shape;
        }
        shape.labels = match modifier {
            Some(LabelModifier::Include(by)) => shape.labels.only(&by.labels),
            Some(LabelModifier::Exclude(without)) => {
                shape.labels.without(&without.labels).without(&[METRIC_NAME.to_owned()])
            }
            None => Labels::of([]),
        };
        if let (T_COUNT_VALUES, Some(Expr::StringLiteral(label))) = (op.id(), param.as_deref()) {
            shape.labels = shape.labels.and(std::slice::from_ref(&label.val));
        }
        shape.kind = shape.kind.min(Kind::OfCounters);
        // How many series there are says nothing of what they count.
        if [T_COUNT, T_COUNT_VALUES, T_GROUP].contains(&op.id()) {
            shape.kind = Kind::Gauge;
        }
        Shape { aggregated: true, ..shape }
    }

    fn combined(&mut self, binary: &BinaryExpr) -> Shape {
        let BinaryExpr { op, lhs, rhs, modifier } = binary;
        let (left, right) = (self.shape(lhs), self.shape(rhs));
        let is_vector = |side: &Expr| side.value_type() == ValueType::Vector;
        let together = left.beside(&right);
        match (is_vector(lhs), is_vector(rhs)) {
            (true, true) => {}
            (false, true) => return Shape { buckets: right.buckets, labels: right.labels, ..together },
            _ => return together,
        }
        let raw = |side: &Shape| side.of_counters() && !side.aggregated;
        if op.id() == T_DIV && left.of_counters() && right.of_counters() && (raw(&left) || raw(&right)) {
            let side = match (raw(&left), raw(&right)) {
                (true, true) => "either side",
                (true, false) => "the left side",
                _ => "the right side",
            };
            self.find(format!("a ratio that is not aggregated on {side}: {binary}"));
        }
        let name = vec![METRIC_NAME.to_owned()];
        let matching = modifier.as_ref().and_then(|modifier| modifier.matching.as_ref());
        let (on, ignored) = match matching {
            Some(LabelModifier::Include(on)) => (Some(&on.labels), &name),
            Some(LabelModifier::Exclude(ignored)) => (None, &ignored.labels),
            None => (None, &name),
        };
        if let Some(on) = on {
            self.expect(&format!("the left side of {op}"), on, &left.labels);
            self.expect(&format!("the right side of {op}"), on, &right.labels);
        } else {
            let either = left.labels.clone().or(right.labels.clone()).and(&name);
            self.expect(&format!("either side of {op}"), ignored, &either);
            let (left, right) = (left.labels.clone().without(ignored), right.labels.clone().without(ignored));
            if op.id() != T_LOR && !left.may_equal(&right) {
                self.find(format!("the sides of {op} never match: on the left {left}, on the right {right}"));
            }
        }
        let labels = match modifier.as_ref().map(|modifier| &modifier.card) {
            _ if op.id() == T_LOR => left.labels.or(right.labels),
            _ if [T_LAND, T_LUNLESS].contains(&op.id()) => return left,
            Some(VectorMatchCardinality::ManyToOne(more)) => {
                self.expect(&format!("the right side of {op}"), &more.labels, &right.labels);
                left.labels.and(&more.labels)
            }
            Some(VectorMatchCardinality::OneToMany(more)) => {
                self.expect(&format!("the left side of {op}"), &more.labels, &left.labels);
                right.labels.and(&more.labels)
            }
            _ => match on {
                Some(on) => left.labels.only(on),
                None => left.labels.without(ignored),
            },
        };
        Shape { buckets: left.buckets && right.buckets, labels, ..together }
    }

    fn called(&mut self, call: &Call) -> Shape {
        let Call { func, args } = call;
        let arguments: Vec<_> = args.args.iter().map(|argument| (argument, self.shape(argument))).collect();
        let is_series = |argument: &Expr| [ValueType::Vector, ValueType::Matrix].contains(&argument.value_type());
        let Some((series, given)) = arguments.iter().find(|(argument, _)| is_series(argument)) else {
            return Shape::number();
        };
        let given = given.clone();
        let texts = args.args.iter().filter_map(|argument| match &**argument {
            Expr::StringLiteral(text) => Some(text.val.clone()),
            _ => None,
        });
        let texts: Vec<_> = texts.collect();
        let name = [METRIC_NAME.to_owned()];
        let mut labels = given.labels.clone().without(&name);
        let mut kind = given.kind.min(Kind::OfCounters);
        let mut buckets = given.buckets;
        match func.name {
            "rate" | "irate" | "increase" | "resets" if given.kind != Kind::Counter && !given.labels.any => {
                self.find(format!("{} of what is no counter: {series}", func.name));
            }
            "delta" | "idelta" | "deriv" | "predict_linear" if given.kind == Kind::Counter => {
                self.find(format!("{} of a counter, which falls to 0 at a restart: {series}", func.name));
            }
            "histogram_quantile" | "histogram_fraction" => {
                if !given.labels.has("le") {
                    self.find(format!("{} of what has no label \"le\"; {}: {series}", func.name, given.labels));
                } else if !given.buckets {
                    self.find(format!("{} of what are no buckets: {series}", func.name));
                } else if !given.aggregated {
                    self.find(format!("{} of buckets that are not aggregated by \"le\": {series}", func.name));
                }
                labels = labels.without(&["le".to_owned()]);
                (kind, buckets) = (Kind::Gauge, false);
            }
            "label_replace" | "label_join" => {
                let sources = if func.name == "label_replace" { &texts[2..3] } else { &texts[2..] };
                // An empty one stands for an empty value.
                let sources: Vec<_> = sources.iter().filter(|source| !source.is_empty()).cloned().collect();
                self.expect(&format!("what {} is given", func.name), &sources, &given.labels);
                labels = labels.and(&texts[..1]);
            }
            "absent" | "absent_over_time" => {
                // It says what is missing: the values that were asked for.
                let asked = match &***series {
                    Expr::VectorSelector(selector) => selector.matchers.matchers.as_slice(),
                    Expr::MatrixSelector(matrix) => matrix.vs.matchers.matchers.as_slice(),
                    _ => &[],
                };
                let equal = asked.iter().filter(|matcher| matches!(matcher.op, MatchOp::Equal));
                labels = Labels::of(equal.map(|matcher| matcher.name.clone())).without(&name);
                (kind, buckets) = (Kind::Gauge, false);
            }
            "scalar" => return Shape { labels: Labels::of([]), kind, ..given },
            // What these tell is no amount of what was counted.
            "changes" | "count_over_time" | "present_over_time" | "timestamp" => (kind, buckets) = (Kind::Gauge, false),
            _ => {}
        }
        Shape { kind, buckets, labels, ..given }
    }
}

// ---- The contract ----

/// Everything under a root folder that does not keep to what is known.
fn check(root: &Path, known: &Known) -> Vec<String> {
    let expressions = expressions::find(root).expressions;
    let mut analyst = Analyst::new(known, &expressions);
    let mut findings = Vec::new();
    for Expression { place, parsed, records: _, shows } in &expressions {
        let shape = analyst.shape(parsed);
        analyst.expect("what it shows", shows, &shape.labels);
        findings.extend(analyst.findings.drain(..).map(|finding| format!("{place}: {finding}")));
    }

    let (described, mut described_wrongly) = described(root, known, &analyst);
    findings.append(&mut described_wrongly);
    findings.extend(
        known
            .ours
            .iter()
            .filter(|family| !described.contains(*family))
            .map(|family| format!("{METRICS}: {family:?} is exposed and not described")),
    );

    // The page that describes all of them is no use of any.
    let pages = expressions::pages(root);
    let mentioned: BTreeSet<_> =
        pages.iter().filter(|(file, _)| file != METRICS).flat_map(|(_, text)| words(text)).collect();
    let used = |name: &str| analyst.asked.contains(name) || mentioned.contains(name);
    for family in known.ours.iter().filter(|family| !family.starts_with("process_") && !family.starts_with("push_")) {
        let members = known.metrics.iter().filter(|(_, metric)| metric.family == *family);
        if !used(family) && !members.clone().any(|(name, _)| used(name)) {
            findings.push(format!("{family}: no dashboard, rule, alert or page uses it"));
        }
    }
    for (name, rules) in &analyst.rules {
        if !used(name) {
            findings.push(format!("{}: nobody uses it", rules[0].0.place));
        }
    }
    for Foreign { name, .. } in known.foreign {
        if known.metrics.contains_key(*name) {
            findings.push(format!("FOREIGN: {name:?} is exposed, and need not be listed"));
        } else if !analyst.asked.contains(*name) {
            findings.push(format!("FOREIGN: nobody asks for {name:?}"));
        }
    }
    findings
}

const METRICS: &str = "docs/metrics.md";

/// The names in a text that may be those of metrics.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.map(|word| word.trim_matches(':'))
}

/// The metrics that docs/metrics.md describes: in backticks in a heading, or in the first column of a table, when it is
/// called `metric`. One that does not exist is a finding.
fn described(root: &Path, known: &Known, analyst: &Analyst<'_>) -> (BTreeSet<String>, Vec<String>) {
    let Ok(page) = std::fs::read_to_string(root.join(METRICS)) else {
        return (BTreeSet::new(), vec![format!("{METRICS}: not there")]);
    };
    let (mut places, mut table) = (Vec::new(), None);
    for line in page.lines() {
        let cell = line.strip_prefix('|').and_then(|cells| cells.split('|').next());
        table = cell.map(|cell| table.unwrap_or(cell.trim()));
        if line.starts_with('#') {
            places.push(line);
        } else if table == Some("metric") {
            places.extend(cell);
        }
    }
    let quoted = places.iter().flat_map(|place| place.split('`').skip(1).step_by(2));
    let names: BTreeSet<String> = quoted.map(|name| name.split('{').next().unwrap().to_owned()).collect();
    let labels: BTreeSet<_> = known.metrics.values().flat_map(|metric| &metric.labels).collect();
    let families: BTreeSet<_> = known.metrics.values().map(|metric| &metric.family).collect();
    let exists = |name: &String| {
        families.contains(name) || known.get(name).is_some() || analyst.rules.contains_key(name.as_str())
    };
    let wrong = names.iter().filter(|name| !labels.contains(name) && !exists(name));
    let findings = wrong.map(|name| format!("{METRICS}: nothing exposes or records {name:?}")).collect();
    (names, findings)
}

// ---- Tests ----

async fn rules_dashboards_and_docs_keep_to_what_is_exposed([gateway]: [PathBuf; 1]) {
    const JOBS: [&str; 3] = ["backup", "import-users", "api-monitoring"];
    let gateway = Pushgateway::start(&gateway).await;
    let url = gateway.url("");
    let server = Server::start_with(&["--pushgateway-url", &url, "--push-interval", "1s"]).await;
    let run = async |sub_command: &str, arguments: &[&str]| {
        let mut command = binary(server.folder.path());
        command.arg(sub_command).args(["--pushgateway-url", &url, "--expect-every", "24h"]).args(arguments);
        let output = finished(command).await;
        assert!(output.status.success(), "{sub_command}: {output:?}");
    };
    std::fs::write(server.folder.path().join("users.csv"), "name,email\nAda,ada@example.com\n").unwrap();
    run("job", &["--name", JOBS[0], "--", "true"]).await;
    run("import", &["users.csv"]).await;
    // Its group has an instance too.
    eventually("a push of the service", async || {
        gateway.groups().await.iter().any(|group| group["job"] == JOBS[2]).then_some(())
    })
    .await;
    let pushed = Answer::to(client().get(gateway.url("/metrics"))).await.text();
    let known = Known::new(&server.get("/metrics").await.text(), &pushed, &JOBS, FOREIGN);
    for name in ["http_requests_total", "push_attempts_total", "batch_job_last_exit_code", "import_rows_total"] {
        assert!(known.ours.contains(name), "{name} is not among {:?}", known.ours);
    }

    let findings = check(Path::new(env!("CARGO_MANIFEST_DIR")), &known);

    assert!(findings.is_empty(), "{} findings:\n{}", findings.len(), findings.join("\n"));
}

/// The metrics of the good tree.
fn known() -> Known {
    const FOREIGN: &[Foreign] = &[
        Foreign { name: "up", kind: Kind::Gauge, labels: &[], reason: "Prometheus" },
        Foreign {
            name: "ALERTS",
            kind: Kind::Gauge,
            labels: &["alertname", "alertstate", "severity"],
            reason: "Prometheus",
        },
    ];
    Known::new(EXPOSED, GATEWAY, &["backup"], FOREIGN)
}

const BOARD: &str = "grafonnet/rendered/api-monitoring.json";
const SLO: &str = "grafonnet/rendered/api-slo.json";
const RULES: &str = "prometheus/rules/red.rules.yml";
const ALERT_RULES: &str = "prometheus/rules/red.alerts.yml";

fn a_metric_or_a_label_that_does_not_exist_is_found() {
    let breaks = [
        Break {
            reason: "a panel that asks for a metric that does not exist",
            change: |tree| tree.replace(BOARD, "sum(http_requests_in_progress)", "sum(http_requests_active)"),
            findings: &[
                "grafonnet/rendered/api-monitoring.json: panel \"Active Requests\" (A): nothing exposes or \
                 records \"http_requests_active\"",
                "http_requests_in_progress: no dashboard, rule, alert or page uses it",
            ],
        },
        Break {
            reason: "a histogram by its family's name, under which there are no samples",
            change: |tree| {
                tree.replace(
                    BOARD,
                    "rate(http_request_duration_seconds_bucket[5m])",
                    "rate(http_request_duration_seconds[5m])",
                )
            },
            findings: &[
                "grafonnet/rendered/api-monitoring.json: panel \"Latency Percentiles\" (B): nothing exposes or \
                 records \"http_request_duration_seconds\"",
            ],
        },
        Break {
            reason: "the same in a row",
            change: |tree| tree.replace(BOARD, "api_users{job", "api_user{job"),
            findings: &["grafonnet/rendered/api-monitoring.json: panel \"Users\" (A): nothing exposes or records \
                 \"api_user\""],
        },
        Break {
            reason: "the same in a rule, of which an alert and a panel are made",
            change: |tree| {
                tree.replace(
                    RULES,
                    "max without (instance) (api_users)",
                    "max without (instance) \
             (users)",
                )
            },
            findings: &[
                "prometheus/rules/red.rules.yml: rule \"job:api_users:max\": nothing exposes or records \"users\"",
            ],
        },
        Break {
            reason: "the same in an alert",
            change: |tree| tree.replace(ALERT_RULES, "batch_job_last_exit_code", "batch_job_exit_code"),
            findings: &[
                "prometheus/rules/red.alerts.yml: alert \"BatchJobFailed\": nothing exposes or records \
                 \"batch_job_exit_code\"",
                "batch_job_last_exit_code: no dashboard, rule, alert or page uses it",
            ],
        },
        Break {
            reason: "the same in a query of an alert's description",
            change: |tree| tree.replace(ALERT_RULES, "rate5m{job='%s'}", "rate6m{job='%s'}"),
            findings: &["prometheus/rules/red.alerts.yml: alert \"TrafficSpike\", a template: nothing exposes or \
                 records \"job:http_requests:rate6m\""],
        },
        Break {
            reason: "the same in a page",
            change: |tree| tree.replace("README.md", "job:http_requests:rate5m", "job:http_requests:rate1h"),
            findings: &["README.md: line 4: nothing exposes or records \"job:http_requests:rate1h\""],
        },
        Break {
            reason: "the same in a variable",
            change: |tree| {
                tree.set(BOARD, "/templating/list/3/query/query", "label_values(http_requests, route)".into());
            },
            findings: &["grafonnet/rendered/api-monitoring.json: variable \"route\": nothing exposes or records \
                 \"http_requests\""],
        },
        Break {
            reason: "the same in an annotation",
            change: |tree| tree.replace(BOARD, "ALERTS{", "ALARMS{"),
            findings: &["grafonnet/rendered/api-monitoring.json: annotation \"Alerts\": nothing exposes or records \
                 \"ALARMS\""],
        },
        Break {
            reason: "names by a pattern that none has",
            change: |tree| {
                tree.replace(
                    BOARD,
                    "sum(http_requests_in_progress)",
                    "sum({__name__=~\\\"https_.*|http_requests_in_progres\\\"})",
                )
            },
            findings: &[
                "grafonnet/rendered/api-monitoring.json: panel \"Active Requests\" (A): nothing exposes or \
                 records \"{__name__=~",
                "http_requests_in_progress: no dashboard, rule, alert or page uses it",
            ],
        },
        Break {
            reason: "a label that the metric does not have",
            change: |tree| tree.replace(BOARD, "http_requests_total{route=~", "http_requests_total{path=~"),
            findings: &[
                "grafonnet/rendered/api-monitoring.json: panel \"Request Rate (5m)\" (A): http_requests_total \
                 has no label \"path\"; it has instance, job, method, route, status",
            ],
        },
        Break {
            reason: "sums by a label that is not there",
            change: |tree| tree.replace(BOARD, "sum by (error_type)", "sum by (error_kind)"),
            findings: &[
                "grafonnet/rendered/api-monitoring.json: panel \"Errors by Type\" (A): what sum aggregates has \
                 no label \"error_kind\"; it has error_type, instance, job",
                "grafonnet/rendered/api-monitoring.json: panel \"Errors by Type\" (A): what it shows has no \
                 label \"error_type\"; it has none",
            ],
        },
        Break {
            reason: "sums without a label that is not there",
            change: |tree| tree.replace(RULES, "max without (instance)", "max without (instance, route)"),
            findings: &[
                "prometheus/rules/red.rules.yml: rule \"job:api_users:max\": what max aggregates has no label \
                 \"route\"; it has instance, job",
            ],
        },
        Break {
            reason: "a label that a rule has summed away",
            change: |tree| {
                tree.replace("docs/guide.md", "ratio_rate5m{job=\"$job\"}", "ratio_rate5m{route=\"$route\"}")
            },
            findings: &["docs/guide.md: line 6: job:http_requests_failed_per_request:ratio_rate5m has no label \
                 \"route\"; it has job"],
        },
        Break {
            reason: "a variable's label",
            change: |tree| {
                tree.set(
                    BOARD,
                    "/templating/list/3/query/query",
                    "label_values(http_requests_total, \
                 handler)"
                        .into(),
                );
            },
            findings: &["grafonnet/rendered/api-monitoring.json: variable \"route\": what it shows has no label \
                 \"handler\""],
        },
        Break {
            reason: "a legend's label",
            change: |tree| tree.replace(BOARD, "{{method}} {{route}}", "{{method}} {{path}}"),
            findings: &[
                "grafonnet/rendered/api-monitoring.json: panel \"Request Rate (5m)\" (A): what it shows has no \
                 label \"path\"; it has method, route",
            ],
        },
        Break {
            reason: "an annotation's label",
            change: |tree| tree.replace(BOARD, "{{alertname}}", "{{alert}}"),
            findings: &["grafonnet/rendered/api-monitoring.json: annotation \"Alerts\": what it shows has no label \
                 \"alert\""],
        },
        Break {
            reason: "an alert's label",
            change: |tree| tree.set(ALERT_RULES, "/groups/0/rules/0/annotations/summary", "{{ $labels.route }}".into()),
            findings: &["prometheus/rules/red.alerts.yml: alert \"HighErrorRate\": what it shows has no label \
                 \"route\"; it has job"],
        },
        Break {
            reason: "sides that are matched on a label that one of them does not have",
            change: |tree| {
                let both = "job:http_requests:rate5m * on (job, route) group_left () http_requests_in_progress";
                tree.set(SLO, "/panels/0/targets/0/expr", both.into());
            },
            findings: &["grafonnet/rendered/api-slo.json: panel \"Failed\" (A): the left side of * has no label \
                 \"route\"; it has job"],
        },
        Break {
            reason: "a label taken over from a side that does not have it",
            change: |tree| {
                tree.replace(
                    SLO,
                    "\"job:http_requests_failed_per_request:ratio_rate5m\"",
                    "\"http_requests_in_progress * on (job, instance) group_left (version) up\"",
                )
            },
            findings: &["grafonnet/rendered/api-slo.json: panel \"Failed\" (A): the right side of * has no label \
                 \"version\"; it has instance, job"],
        },
        Break {
            reason: "a label ignored that neither side has",
            change: |tree| {
                tree.replace(
                    SLO,
                    "\"job:http_requests_failed_per_request:ratio_rate5m\"",
                    "\"up * ignoring (zone) up\"",
                )
            },
            findings: &[
                "grafonnet/rendered/api-slo.json: panel \"Failed\" (A): either side of * has no label \"zone\"; \
                 it has instance, job",
            ],
        },
        Break {
            reason: "a foreign metric that nobody asks for",
            change: |tree| {
                for board in [BOARD, SLO] {
                    tree.replace(board, "ALERTS{alertstate=\\\"firing\\\"}", "up");
                    tree.change(board, |board| {
                        board["annotations"]["list"][1] = board["annotations"]["list"][0].clone()
                    });
                }
            },
            findings: &["FOREIGN: nobody asks for \"ALERTS\""],
        },
    ];
    fixture::each_is_found(&breaks, |root| check(root, &known()));
}

fn arithmetic_that_cannot_be_true_is_found() {
    /// The same panel with other expressions.
    macro_rules! asks {
        ($reason:expr, $expression:expr, [$($finding:expr),*]) => {
            Break {
                reason: $reason,
                change: |tree| tree.set(SLO, "/panels/0/targets/0/expr", $expression.into()),
                findings: &[$(concat!("grafonnet/rendered/api-slo.json: panel \"Failed\" (A): ", $finding)),*],
            }
        };
    }
    let breaks = [
        asks!(
            "a gauge's rate",
            "sum by (job) (rate(api_users[5m]))",
            ["rate of what is no counter: \
         api_users[5m]"]
        ),
        asks!("a gauge's increase", "sum by (job) (increase(api_users[5m]))", ["increase of what is no counter"]),
        asks!("a gauge's latest rate", "sum by (job) (irate(api_users[5m]))", ["irate of what is no counter"]),
        asks!("the rate of a recorded rate", "rate(job:http_requests:rate5m[5m])", ["rate of what is no counter"]),
        asks!("the rate of a sum", "rate(sum by (job) (http_requests_total)[5m:1m])", ["rate of what is no counter"]),
        asks!("a foreign gauge's rate", "rate(up[5m])", ["rate of what is no counter"]),
        asks!(
            "a gauge among counters",
            "rate({__name__=~\"api_errors_total|api_users\"}[5m])",
            ["rate of what is no counter"]
        ),
        asks!(
            "a counter's slope",
            "deriv(api_errors_total[5m])",
            ["deriv of a counter, which falls to 0 at a restart"]
        ),
        asks!(
            "a ratio of plain rates, which is 1 wherever there is an error",
            "rate(http_requests_total{status=~\"5..\"}[5m]) / rate(http_requests_total[5m])",
            ["a ratio that is not aggregated on either side: rate("]
        ),
        asks!(
            "a sum over a plain rate",
            "sum(rate(http_requests_total{status=~\"5..\"}[5m])) / on () rate(http_requests_total[5m])",
            ["a ratio that is not aggregated on the right side", "what it shows has no label \"job\""]
        ),
        asks!(
            "a plain rate over a recorded sum",
            "rate(http_requests_total[5m]) / on (job) group_left () job:http_requests:rate5m",
            ["a ratio that is not aggregated on the left side"]
        ),
        asks!(
            "plain rates hidden in brackets and functions",
            "(clamp_min(increase(http_requests_total[5m]), 0)) / (increase(http_requests_total[5m]) > 0)",
            ["a ratio that is not aggregated on either side"]
        ),
        asks!(
            "the largest of a plain rate",
            "topk(3, rate(http_requests_total[5m])) / rate(http_requests_total[5m])",
            ["a ratio that is not aggregated on either side"]
        ),
        asks!(
            "plain counters",
            "http_request_duration_seconds_sum / http_request_duration_seconds_count",
            ["a ratio that is not aggregated on either side"]
        ),
        asks!(
            "a quantile without le",
            "histogram_quantile(0.9, sum by (job) (rate(http_request_duration_seconds_bucket[5m])))",
            ["histogram_quantile of what has no label \"le\"; it has job: sum by (job)"]
        ),
        asks!(
            "a quantile of what was summed without le",
            "histogram_quantile(0.9, sum without (le, route) \
             (job_route_le:http_request_duration_seconds_bucket:rate5m))",
            ["histogram_quantile of what has no label \"le\"; it has job"]
        ),
        asks!(
            "a quantile of a sum of durations",
            "histogram_quantile(0.9, sum by (job) (rate(http_request_duration_seconds_sum[5m])))",
            ["histogram_quantile of what has no label \"le\"; it has job"]
        ),
        asks!(
            "a quantile of what is labelled le and is none",
            "histogram_quantile(0.9, label_replace(sum by (job) (api_users), \"le\", \"1\", \"job\", \".*\"))",
            ["histogram_quantile of what are no buckets"]
        ),
        asks!(
            "a quantile for each instance",
            "histogram_quantile(0.9, rate(http_request_duration_seconds_bucket[5m]))",
            ["histogram_quantile of buckets that are not aggregated by \"le\""]
        ),
        asks!(
            "sides with other labels, which never match",
            "sum by (job, route) (rate(http_requests_total[5m])) / sum by (job) (rate(http_requests_total[5m]))",
            ["the sides of / never match: on the left it has job, route, on the right it has job"]
        ),
        asks!(
            "the same of a condition",
            "sum by (job) (api_users) and api_users",
            ["the sides of and never \
         match"]
        ),
        // What follows is right.
        asks!(
            "a gauge's slope",
            "sum by (job) (deriv(api_users[5m]) + delta(api_users[5m]) + changes(api_users[5m]))",
            []
        ),
        asks!("several counters", "rate({__name__=~\"api_errors_total|http_requests_total\"}[5m])", []),
        asks!("a ratio with a number", "rate(http_requests_total[5m]) / 60", []),
        asks!("a ratio of gauges", "api_users / (api_users > 0)", []),
        asks!(
            "how many series of how many",
            "rate(http_requests_total[5m]) / on (job) group_left () count by (job) (http_requests_total)",
            []
        ),
        asks!(
            "a mean",
            "sum without (method, route, instance) (rate(http_request_duration_seconds_sum[5m])) \
             / sum without (method, route, instance) (rate(http_request_duration_seconds_count[5m]))",
            []
        ),
        asks!(
            "a quantile of recorded buckets",
            "histogram_quantile(0.9, sum without (route) \
             (job_route_le:http_request_duration_seconds_bucket:rate5m) > 0)",
            []
        ),
    ];
    fixture::each_is_found(&breaks, |root| check(root, &known()));
}

fn a_metric_that_nobody_describes_or_uses_is_found() {
    let breaks = [
        Break {
            reason: "an exposed metric that is not described",
            change: |tree| tree.replace(METRICS, "| `api_users` | gauge | |\n", ""),
            findings: &["docs/metrics.md: \"api_users\" is exposed and not described"],
        },
        Break {
            reason: "a pushed metric that is not described",
            change: |tree| tree.replace(METRICS, "## `batch_job_last_exit_code`", "## The exit code"),
            findings: &["docs/metrics.md: \"batch_job_last_exit_code\" is exposed and not described"],
        },
        Break {
            reason: "a described metric that is not exposed",
            change: |tree| tree.replace(METRICS, "| `api_users` |", "| `api_users` |\n| `api_accounts` |"),
            findings: &["docs/metrics.md: nothing exposes or records \"api_accounts\""],
        },
        Break {
            reason: "a heading for a metric that is not exposed",
            change: |tree| {
                tree.replace(METRICS, "## `api_errors_total`", "## `api_errors_total` and `api_faults_total`")
            },
            findings: &["docs/metrics.md: nothing exposes or records \"api_faults_total\""],
        },
        Break {
            reason: "no description at all",
            change: |tree| drop(tree.0.remove(METRICS)),
            findings: &[
                "docs/metrics.md: not there",
                "docs/metrics.md: \"api_errors_total\"",
                "docs/metrics.md: \"api_users\"",
                "docs/metrics.md: \"batch_job_last_exit_code\"",
                "docs/metrics.md: \"http_request_duration_seconds\"",
                "docs/metrics.md: \"http_requests_in_progress\"",
                "docs/metrics.md: \"http_requests_total\"",
                "docs/metrics.md: \"process_open_fds\"",
            ],
        },
        Break {
            reason: "a metric that nobody uses; its description is no use",
            change: |tree| {
                tree.replace(BOARD, "rate(api_errors_total[$__rate_interval])", "rate(http_requests_total[5m])")
            },
            findings: &[
                "grafonnet/rendered/api-monitoring.json: panel \"Errors by Type\" (A): what sum aggregates",
                "grafonnet/rendered/api-monitoring.json: panel \"Errors by Type\" (A): what it shows",
                "api_errors_total: no dashboard, rule, alert or page uses it",
            ],
        },
        Break {
            reason: "a rule that nobody uses",
            change: |tree| {
                let file = tree.0.get_mut(RULES).unwrap();
                *file = file.replace("job:api_users:max", "job:api_users:min");
            },
            findings: &["prometheus/rules/red.rules.yml: rule \"job:api_users:min\": nobody uses it"],
        },
    ];
    fixture::each_is_found(&breaks, |root| check(root, &known()));
}

fn labels_are_followed_through_an_expression() {
    for (promql, expected, reason) in [
        ("http_requests_in_progress", "instance job method route", "a metric's own and its target's"),
        ("sum(up)", "", "one sum"),
        ("sum by (method) (http_requests_in_progress)", "method", "a sum by"),
        ("sum without (method, route) (http_requests_in_progress)", "instance job", "a sum without"),
        ("topk by (job) (3, up)", "instance job", "a choice leaves the labels"),
        ("count_values by (job) (\"users\", api_users)", "job users", "a count by value adds one"),
        ("count by (__name__) ({job=\"api\"})", "", "the name is none to show"),
        ("label_replace(sum(up), \"zone\", \"a\", \"\", \"\")", "zone", "a label that is made"),
        (
            "label_join(up, \"target\", \"/\", \"job\", \
         \"instance\")",
            "instance job target",
            "labels that are joined",
        ),
        ("absent(up{job=\"api\", instance=~\"a.*\"})", "job", "the absent one's"),
        (
            "histogram_quantile(0.5, sum by (le, route) (rate(http_request_duration_seconds_bucket[5m])))",
            "route",
            "no le",
        ),
        ("sum by (job) (up) * 2 > 1", "job", "numbers change nothing"),
        ("1 - sum by (job) (up)", "job", "on either side"),
        (
            "http_requests_in_progress * on (job, instance) group_left () \
         up",
            "instance job method route",
            "many to one",
        ),
        (
            "up * on (job, instance) group_right () http_requests_in_progress",
            "instance job method route",
            "one to many",
        ),
        ("up * on (job) sum by (job) (up)", "job", "one to one, on"),
        ("up * ignoring (instance) sum by (job) (up)", "job", "one to one, ignoring"),
        ("up and on (job) sum by (job) (up)", "instance job", "a condition"),
        ("sum by (job) (up) or vector(0)", "job", "one or the other"),
        ("max_over_time(sum by (job) (up)[1h:1m])", "job", "over time"),
        ("time() - api_users", "instance job", "time has none"),
    ] {
        let known = known();
        let mut analyst = Analyst::new(&known, &[]);

        let shape = analyst.shape(&promql_parser::parser::parse(promql).unwrap());

        let labels: Vec<_> =
            shape.labels.names.iter().map(String::as_str).filter(|name| *name != METRIC_NAME).collect();
        assert_eq!(labels.join(" "), expected, "{reason}: {promql}");
        assert_eq!(analyst.findings, Vec::<String>::new(), "{reason}: {promql}");
    }
}
