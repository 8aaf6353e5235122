//! Metrics that another program wrote: the text format, checked line by line before it is pushed.
//!
//! The gateway refuses a whole push for one wrong line, and leaves out in silence what does not fit its family's type.
//! So each line is checked here by its rules, and what is wrong costs its own family only.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::grouping_key::{GroupingKey, is_label_name};

/// Metrics in the text format: families without a fault, and the faults of the others.
///
/// ```
/// use api_monitoring::push::MetricsText;
///
/// let text = MetricsText::parse(b"# TYPE rows gauge\nrows{table=\"users\"} 12\nsize 1 1700000000000\n");
///
/// assert_eq!(text.families()[0].name(), "rows");
/// assert_eq!(text.faults()[0].to_string(), "line 3: size has a timestamp, which the Pushgateway refuses");
/// ```
#[derive(Debug, Default, Clone)]
pub struct MetricsText {
    families: Vec<Family>,
    faults: Vec<Fault>,
}

/// A family: name, type and samples.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Family {
    name: String,
    /// The whole `# HELP` line, where there is one.
    help: Option<String>,
    kind: Kind,
    typed: bool,
    samples: Vec<Sample>,
    lines: Vec<String>,
    first_line: usize,
    broken: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Kind {
    #[default]
    Untyped,
    Counter,
    Gauge,
    Histogram,
    Summary,
}

/// One value under its labels.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The family's name, or that with the suffix of a histogram's or summary's part.
    pub name: String,
    /// Names and values.
    pub labels: BTreeMap<String, String>,
    /// `NaN` and the infinities are values too.
    pub value: f64,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong; it names what it is about.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

impl Family {
    /// The family's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its samples, in the order in which they were written.
    #[must_use]
    pub fn samples(&self) -> &[Sample] {
        &self.samples
    }
}

impl MetricsText {
    /// Reads a text. A family with a faulty line is left out whole: half a family would be a wrong answer.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        let mut parser = Parser::default();
        for (index, line) in text.split_inclusive(|byte| *byte == b'\n').enumerate() {
            parser.line(index + 1, line);
        }
        let (families, faults) = parser.finish();
        Self { families, faults }
    }

    /// The families without a fault, in the order in which they were written.
    #[must_use]
    pub fn families(&self) -> &[Family] {
        &self.families
    }

    /// What is wrong, by line.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults
    }

    /// Takes the faults for told, so that the families without one can be pushed.
    pub fn forget_faults(&mut self) {
        self.faults = Vec::new();
    }

    /// Takes out the families that cannot stand in a group: those of a name that `reserved` says is taken, and those
    /// with a label of the grouping key, which the gateway would overwrite.
    pub fn keep_what_fits(&mut self, key: &GroupingKey, reserved: impl Fn(&str) -> bool) {
        let mut faults = Vec::new();
        self.families.retain(|family| {
            let reason = if reserved(&family.name) {
                Some(format!("the name {} is taken", family.name))
            } else {
                let mut labels = family.samples.iter().flat_map(|sample| sample.labels.keys());
                let taken = labels.find(|label| key.label(label).is_some());
                taken.map(|label| format!("{} has the label {label}, which is part of the grouping key", family.name))
            };
            let fits = reason.is_none();
            faults.extend(reason.map(|reason| Fault { line: family.first_line, reason }));
            fits
        });
        self.faults.append(&mut faults);
        self.faults.sort_by_key(|fault| fault.line);
    }

    /// Takes out the families that `keep` does not want.
    pub(super) fn retain(&mut self, keep: impl FnMut(&Family) -> bool) {
        self.families.retain(keep);
    }
}

impl fmt::Display for MetricsText {
    /// The families in the text format, each with its `# HELP` and `# TYPE` lines.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for family in &self.families {
            if let Some(help) = &family.help {
                writeln!(f, "{help}")?;
            }
            writeln!(f, "# TYPE {} {}", family.name, family.kind)?;
            family.lines.iter().try_for_each(|line| writeln!(f, "{line}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Untyped => "untyped",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        })
    }
}

#[derive(Default)]
struct Parser {
    families: BTreeMap<String, Family>,
    faults: Vec<Fault>,
    /// Every series so far, to find those that come twice.
    seen: BTreeSet<(String, BTreeMap<String, String>)>,
}

impl Parser {
    fn line(&mut self, number: usize, bytes: &[u8]) {
        let Ok(line) = std::str::from_utf8(bytes) else {
            let name = name_at_start(&String::from_utf8_lossy(bytes)).map(str::to_owned);
            return self.fault(number, name.as_deref(), "the line is not UTF-8");
        };
        let whole = line.ends_with('\n');
        let line = line.trim_matches([' ', '\t', '\r', '\n']);
        match line.strip_prefix('#') {
            Some(comment) => self.comment(number, line, comment.trim_start_matches([' ', '\t'])),
            None if line.is_empty() => {}
            // The rest may be missing: the last digits of a value, say.
            None if !whole => self.fault(number, name_at_start(line), "the last line has no end; it may be cut off"),
            None => self.sample(number, line),
        }
    }

    fn comment(&mut self, number: usize, line: &str, comment: &str) {
        let (keyword, comment) = next_word(comment);
        if !matches!(keyword, "HELP" | "TYPE") {
            return;
        }
        let (name, rest) = next_word(comment);
        if name_at_start(name) != Some(name) {
            return self.fault(number, None, &format!("# {keyword} names {name:?}, which is no metric name"));
        }
        if keyword == "HELP" {
            let again = self.families.get(name).is_some_and(|family| family.help.is_some());
            if again {
                return self.fault(number, Some(name), &format!("a second # HELP of {name}"));
            }
            if !escapes_are_known(rest, "\\n") {
                return self.fault(number, Some(name), &format!("the help of {name} has an unknown escape sequence"));
            }
            self.family(number, name).help = Some(line.to_owned());
            return;
        }
        let kind = match rest.to_ascii_lowercase().as_str() {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            "summary" => Kind::Summary,
            "untyped" => Kind::Untyped,
            _ => return self.fault(number, Some(name), &format!("{name} has the unknown type {rest:?}")),
        };
        let family = self.family(number, name);
        let fault = if family.typed {
            Some(format!("a second # TYPE of {name}"))
        } else if family.samples.is_empty() {
            (family.kind, family.typed) = (kind, true);
            None
        } else {
            Some(format!("the # TYPE of {name} comes after its first sample"))
        };
        if let Some(reason) = fault {
            self.fault(number, Some(name), &reason);
        }
    }

    fn sample(&mut self, number: usize, line: &str) {
        let sample = match parse_sample(line) {
            Ok(sample) => sample,
            Err(reason) => return self.fault(number, name_at_start(line), &reason),
        };
        let name = self.family_of(&sample.name).to_owned();
        let kind = self.families.get(&name).map_or(Kind::Untyped, |family| family.kind);
        if let Some(reason) = misfit(&name, kind, &sample) {
            return self.fault(number, Some(&name), &reason);
        }
        if !self.seen.insert((sample.name.clone(), sample.labels.clone())) {
            return self.fault(number, Some(&name), &format!("{} comes twice with the same labels", sample.name));
        }
        let family = self.family(number, &name);
        family.samples.push(sample);
        family.lines.push(line.to_owned());
    }

    fn family(&mut self, number: usize, name: &str) -> &mut Family {
        self.families.entry(name.to_owned()).or_insert_with(|| Family {
            name: name.to_owned(),
            first_line: number,
            ..Family::default()
        })
    }

    /// The family that a sample belongs to: its own name, or without the suffix of a histogram's or summary's part.
    fn family_of<'a>(&self, name: &'a str) -> &'a str {
        let part_of = |suffix: &str, kinds: &[Kind]| {
            let base = name.strip_suffix(suffix)?;
            self.families.get(base).is_some_and(|family| kinds.contains(&family.kind)).then_some(base)
        };
        if self.families.contains_key(name) {
            return name;
        }
        part_of("_bucket", &[Kind::Histogram])
            .or_else(|| part_of("_sum", &[Kind::Histogram, Kind::Summary]))
            .or_else(|| part_of("_count", &[Kind::Histogram, Kind::Summary]))
            .unwrap_or(name)
    }

    /// Notes a fault; the family that it is about, if any, is broken.
    fn fault(&mut self, line: usize, name: Option<&str>, reason: &str) {
        if let Some(name) = name {
            let name = self.family_of(name).to_owned();
            self.family(line, &name).broken = true;
        }
        self.faults.push(Fault { line, reason: reason.to_owned() });
    }

    fn finish(self) -> (Vec<Family>, Vec<Fault>) {
        // A family of which there is only talk is not pushed.
        let families = self.families.into_values().filter(|family| !family.broken && !family.samples.is_empty());
        let mut families: Vec<_> = families.collect();
        // `a_sum` may be a family of its own as long as it comes before a histogram `a`.
        families.sort_by_key(|family| family.first_line);
        (families, self.faults)
    }
}

/// Why a sample does not belong to a family of that type. The gateway leaves such samples out without a word.
fn misfit(family: &str, kind: Kind, sample: &Sample) -> Option<String> {
    let part = sample.name.strip_prefix(family)?;
    let (label, needed) = match kind {
        Kind::Histogram => ("le", part == "_bucket"),
        Kind::Summary => ("quantile", part.is_empty()),
        Kind::Untyped | Kind::Counter | Kind::Gauge => return None,
    };
    let number = sample.labels.get(label).map(|value| parse_value(value).is_some());
    if (kind, part) == (Kind::Histogram, "") {
        Some(format!("the histogram {family} has only _bucket, _sum and _count"))
    } else if number == Some(false) || (needed && number.is_none()) {
        Some(format!("{} needs the label {label} with a number", sample.name))
    } else if matches!(part, "_bucket" | "_count") && (sample.value < 0.0 || sample.value.fract() != 0.0) {
        Some(format!("{} counts {}, which is no whole number", sample.name, sample.value))
    } else {
        None
    }
}

fn parse_sample(line: &str) -> Result<Sample, String> {
    const BLANK: [char; 2] = [' ', '\t'];
    let name = name_at_start(line).ok_or("expected a metric name")?;
    let mut rest = line[name.len()..].trim_start_matches(BLANK);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = parse_labels(name, inside, &mut labels)?.trim_start_matches(BLANK);
    } else if rest.len() == line.len() - name.len() && !rest.is_empty() {
        return Err(format!("{name} is followed by {:?}, expected labels or a value", first_char(rest)));
    }
    let (value, rest) = rest.split_once(BLANK).unwrap_or((rest, ""));
    if value.is_empty() {
        return Err(format!("{name} has no value"));
    }
    let number = parse_value(value).ok_or_else(|| format!("{name} has the value {value:?}, expected a number"))?;
    match rest.trim_matches(BLANK) {
        "" => Ok(Sample { name: name.to_owned(), labels, value: number }),
        time if time.parse::<i64>().is_ok() => Err(format!("{name} has a timestamp, which the Pushgateway refuses")),
        more => Err(format!("{name} has {more:?} after its value")),
    }
}

/// Reads labels up to the closing brace and gives what follows it.
fn parse_labels<'a>(metric: &str, mut rest: &'a str, labels: &mut BTreeMap<String, String>) -> Result<&'a str, String> {
    loop {
        rest = rest.trim_start_matches([' ', '\t']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (name, after) = rest.split_once('=').ok_or_else(|| format!("the labels of {metric} do not end"))?;
        let name = name.trim_end_matches([' ', '\t']);
        if !is_label_name(name) || name.starts_with("__") {
            return Err(format!("{metric} has the label {name:?}, which is no label name"));
        }
        let quoted = after.trim_start_matches([' ', '\t']).strip_prefix('"');
        let quoted = quoted.ok_or_else(|| format!("the value of {metric}'s label {name} is not quoted"))?;
        let (value, after) =
            parse_quoted(quoted).ok_or_else(|| format!("the value of {metric}'s label {name} is not well quoted"))?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("{metric} has the label {name} twice"));
        }
        let after = after.trim_start_matches([' ', '\t']);
        rest = match after.strip_prefix(',') {
            Some(after) => after,
            None if after.starts_with('}') => after,
            None => return Err(format!("the labels of {metric} do not end after {name}")),
        };
    }
}

/// Reads up to the closing quote; `None` when there is none, or an escape sequence is unknown.
fn parse_quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(match chars.next()?.1 {
                'n' => '\n',
                escaped @ ('\\' | '"') => escaped,
                _ => return None,
            }),
            c => value.push(c),
        }
    }
    None
}

/// Whether each backslash is followed by one of these characters.
fn escapes_are_known(text: &str, known: &str) -> bool {
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\\' && !chars.next().is_some_and(|next| known.contains(next)) {
            return false;
        }
    }
    true
}

/// A number as the gateway reads it: `NaN` has no sign, and only what says so is infinite.
fn parse_value(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let plain = text.trim_start_matches(['+', '-']);
    let spelled_out = plain.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("inf"));
    let fine = if value.is_nan() { plain == text } else { value.is_finite() || spelled_out };
    fine.then_some(value)
}

/// The first word of a text, and what follows the blanks after it.
fn next_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once([' ', '\t']).unwrap_or((text, ""));
    (word, rest.trim_start_matches([' ', '\t']))
}

/// The metric name that a text begins with.
fn name_at_start(text: &str) -> Option<&str> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let name = &text[..end];
    name.starts_with(|c: char| !c.is_ascii_digit()).then_some(name)
}

fn first_char(text: &str) -> char {
    text.chars().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        MetricsText::parse(text.as_bytes()).faults().iter().map(ToString::to_string).collect()
    }

    fn names(text: &MetricsText) -> Vec<&str> {
        text.families().iter().map(Family::name).collect()
    }

    #[test]
    fn whatever_is_right_comes_out_as_it_was() {
        let text = "# HELP a_rows Rows \\\\ lines\\n.\n# TYPE a_rows gauge\na_rows{t=\"a\\\"b\",u=\"\"} 1.5e3\na_rows NaN\n\
                    # TYPE b_seconds histogram\nb_seconds_bucket{le=\"+Inf\"} 2\nb_seconds_sum 3\nb_seconds_count 2\n\
                    # TYPE c summary\nc{quantile=\"0.5\"} 1\nc_sum 2\nc_count 3\n\
                    # TYPE d untyped\nd +Inf\n";

        let parsed = MetricsText::parse(text.as_bytes());

        assert_eq!(parsed.faults(), []);
        assert_eq!(parsed.to_string(), text);
        assert_eq!(names(&parsed), ["a_rows", "b_seconds", "c", "d"]);
        let sample = &parsed.families()[0].samples()[0];
        assert_eq!((sample.labels["t"].as_str(), sample.value), ("a\"b", 1500.0));
    }

    #[test]
    fn blanks_comments_and_windows_line_ends_do_no_harm() {
        let parsed = MetricsText::parse(b"\r\n  # a comment\n\t rows \t { a = \"x\" , } \t 5 \r\n# EOF\n");

        assert_eq!(parsed.faults(), []);
        assert_eq!(parsed.families()[0].samples()[0].labels["a"], "x");
    }

    #[test]
    fn families_stay_in_their_order() {
        let text = "# TYPE a_sum untyped\na_sum 1\n# TYPE a histogram\na_count 2\n";

        let parsed = MetricsText::parse(text.as_bytes());

        assert_eq!((parsed.faults(), parsed.to_string().as_str()), (&[][..], text));
    }

    #[test]
    fn words_may_stand_apart_and_types_may_be_loud() {
        let parsed = MetricsText::parse(b"#  TYPE \t rows  GAUGE \nrows 1\n# HELP  rows  Rows.\n");

        assert_eq!(parsed.faults(), []);
        assert!(parsed.to_string().contains("# TYPE rows gauge\n"), "{parsed}");
    }

    #[test]
    fn each_fault_is_named_with_its_line() {
        let cases: &[(&str, &str)] = &[
            ("rows 1 1700000000000\n", "line 1: rows has a timestamp, which the Pushgateway refuses"),
            ("ok 1\nrows one\n", "line 2: rows has the value \"one\", expected a number"),
            ("rows\n", "line 1: rows has no value"),
            ("rows 1 2 3\n", "line 1: rows has \"2 3\" after its value"),
            ("rows 1 # EOF\n", "line 1: rows has \"# EOF\" after its value"),
            ("5 rows\n", "line 1: expected a metric name"),
            ("rows-total 5\n", "line 1: rows is followed by '-', expected labels or a value"),
            ("rows 12", "line 1: the last line has no end; it may be cut off"),
            ("rows{a=1} 1\n", "line 1: the value of rows's label a is not quoted"),
            ("rows{a=\"1} 1\n", "line 1: the value of rows's label a is not well quoted"),
            ("rows{a=\"\\t\"} 1\n", "line 1: the value of rows's label a is not well quoted"),
            ("rows{a=\"1\" b=\"2\"} 1\n", "line 1: the labels of rows do not end after a"),
            ("rows{a=\"1\",a=\"2\"} 1\n", "line 1: rows has the label a twice"),
            ("rows{a-b=\"1\"} 1\n", "line 1: rows has the label \"a-b\", which is no label name"),
            ("rows{__name__=\"x\"} 1\n", "line 1: rows has the label \"__name__\", which is no label name"),
            ("rows{\n", "line 1: the labels of rows do not end"),
            ("rows{a=\"b\"} 1\nrows{a=\"b\"} 2\n", "line 2: rows comes twice with the same labels"),
            ("# TYPE rows gauge\n# TYPE rows gauge\nrows 1\n", "line 2: a second # TYPE of rows"),
            ("# TYPE rows gauge\n# TYPE rows counter\nrows 1\n", "line 2: a second # TYPE of rows"),
            ("rows 1\n# TYPE rows counter\n", "line 2: the # TYPE of rows comes after its first sample"),
            ("# TYPE rows number\nrows 1\n", "line 1: rows has the unknown type \"number\""),
            ("# TYPE 5 gauge\n", "line 1: # TYPE names \"5\", which is no metric name"),
            ("# HELP rows a\n# HELP rows b\nrows 1\n", "line 2: a second # HELP of rows"),
            ("# HELP rows a\\t\nrows 1\n", "line 1: the help of rows has an unknown escape sequence"),
            ("# TYPE h histogram\nh 1\n", "line 2: the histogram h has only _bucket, _sum and _count"),
            ("# TYPE h histogram\nh_bucket 1\n", "line 2: h_bucket needs the label le with a number"),
            ("# TYPE h histogram\nh_sum{le=\"x\"} 1\n", "line 2: h_sum needs the label le with a number"),
            ("# TYPE h histogram\nh_count 1.5\n", "line 2: h_count counts 1.5, which is no whole number"),
            ("# TYPE h histogram\nh_count NaN\n", "line 2: h_count counts NaN, which is no whole number"),
            ("# TYPE s summary\ns_count -1\n", "line 2: s_count counts -1, which is no whole number"),
            ("rows -NaN\n", "line 1: rows has the value \"-NaN\", expected a number"),
            ("rows 1e400\n", "line 1: rows has the value \"1e400\", expected a number"),
            ("# TYPE s summary\ns 1\n", "line 2: s needs the label quantile with a number"),
        ];
        for (text, fault) in cases {
            assert_eq!(faults(text), [*fault], "{text:?}");
        }
        assert_eq!(
            MetricsText::parse(b"rows{a=\"\xff\"} 1\n").faults()[0].to_string(),
            "line 1: the line is not UTF-8"
        );
    }

    #[test]
    fn a_fault_costs_its_own_family_and_no_other() {
        let text = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"x\"} 2\nh_count 2\nkept 1\n5\nlost{a=\"b\"} 1\nlost{a=\"c\"} x\n";

        let parsed = MetricsText::parse(text.as_bytes());

        assert_eq!(names(&parsed), ["kept"]);
        assert_eq!(parsed.faults().iter().map(|fault| fault.line).collect::<Vec<_>>(), [3, 6, 8]);
    }

    #[test]
    fn what_cannot_stand_in_the_group_is_taken_out() {
        let key = GroupingKey::new("backup").unwrap().with("zone", "a").unwrap();
        let mut parsed = MetricsText::parse(b"a 1\nb{zone=\"b\"} 1\nc{job=\"x\"} 1\nd 1\n");

        parsed.keep_what_fits(&key, |name| name == "a");

        assert_eq!(names(&parsed), ["d"]);
        let faults: Vec<_> = parsed.faults().iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "line 1: the name a is taken",
                "line 2: b has the label zone, which is part of the grouping key",
                "line 3: c has the label job, which is part of the grouping key"
            ]
        );
    }
}
