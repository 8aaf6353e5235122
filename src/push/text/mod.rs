//! Metrics that another program wrote: the text format, checked line by line before it is pushed.
//!
//! The gateway refuses a whole push for one wrong line, and leaves out in silence what does not fit its family's type.
//! So each line is checked here by its rules, and what is wrong costs its own family only.
//!
//! - [`line`]: the grammar of one line.
//! - [`kind`]: types of families, and the names of their parts.
//! - [`parser`]: which lines make a family, and which families cannot stand beside each other.
//! - [`consistency`]: whether the samples of a family agree.
//! - [`faults`]: what is said of the rest.
//!
//! A text is kept once, as it is pushed; families are places in it. Clones share it.
//!
//! Format: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

mod consistency;
mod faults;
mod kind;
mod line;
mod parser;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::grouping_key::GroupingKey;
pub use faults::Fault;
use faults::{Faults, Shown};
use line::{Label, name_at_start, next_word, parse_sample, unescaped};
use parser::Parser;

/// Metrics in the text format: families without a fault, and the faults of the others.
///
/// ```
/// use api_monitoring::push::MetricsText;
///
/// let text = MetricsText::parse(b"# TYPE rows gauge\nrows{table=\"users\"} 12\nsize 1 1700000000000\n");
///
/// let names: Vec<_> = text.families().iter().map(|family| family.name()).collect();
/// assert_eq!(names, ["rows"]);
/// assert_eq!(text.faults()[0].to_string(), "line 3: size has a timestamp, which the Pushgateway refuses");
/// ```
#[derive(Debug, Default, Clone)]
pub struct MetricsText {
    text: Arc<String>,
    places: Arc<Vec<Place>>,
    faults: Faults,
}

/// Where a family is.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// Where it begins in the text that is kept, in bytes. It ends where the next one begins.
    begin: u32,
    /// The line of the text that was read on which it was first named.
    line: u32,
}

/// The families of a text.
#[derive(Clone, Copy)]
pub struct Families<'a> {
    text: &'a str,
    places: &'a [Place],
}

/// A family: name, type and samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family<'a> {
    text: &'a str,
    line: usize,
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

/// The names of a text's families, to ask for.
#[derive(Debug, Clone)]
pub(super) struct Names {
    text: MetricsText,
    /// Indices of places, in the order of the names.
    sorted: Vec<u32>,
}

impl MetricsText {
    /// Reads a text. A family with a faulty line is left out whole: half a family would be a wrong answer. So is one
    /// whose samples contradict each other, and one that cannot stand beside another that comes before it.
    ///
    /// It takes a few times the memory of the text at most, whatever the text is.
    #[must_use]
    pub fn parse(text: &[u8]) -> Self {
        Parser::parse(text)
    }

    fn new(text: String, places: Vec<Place>, faults: Faults) -> Self {
        Self { text: Arc::new(text), places: Arc::new(places), faults }
    }

    /// The families without a fault, in the order in which they were written.
    #[must_use]
    pub fn families(&self) -> Families<'_> {
        Families { text: &self.text, places: &self.places }
    }

    /// What is wrong, by line: the first 100 faults.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        &self.faults.first
    }

    /// How many faults there are.
    #[must_use]
    pub fn fault_count(&self) -> usize {
        self.faults.count
    }

    /// Takes the faults for told, so that the families without one can be pushed.
    pub fn forget_faults(&mut self) {
        self.faults = Faults::default();
    }

    /// Takes out the families that cannot stand in a group: those of a name that `reserved` says is taken, and those
    /// with a label of the grouping key, which the gateway would overwrite.
    pub fn keep_what_fits(&mut self, key: &GroupingKey, reserved: impl Fn(&str) -> bool) {
        let mut faults = std::mem::take(&mut self.faults);
        self.retain(|family| {
            let name = Shown(family.name());
            if reserved(family.name()) {
                faults.note(family.line, || format!("the name {name} is taken"));
                return false;
            }
            let mut labels = Vec::new();
            let taken = family.lines().find_map(|line| {
                read(line, &mut labels);
                labels.iter().map(|(label, _)| *label).find(|label| key.label(label).is_some())
            });
            if let Some(label) = taken.map(Shown) {
                let reason = || format!("{name} has the label {label}, which is part of the grouping key");
                faults.note(family.line, reason);
            }
            taken.is_none()
        });
        self.faults = faults;
    }

    /// Takes out the families that `keep` does not want.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Family<'_>) -> bool) {
        let kept: Vec<bool> = self.families().iter().map(|family| keep(&family)).collect();
        if kept.iter().all(|kept| *kept) {
            return;
        }
        let (mut text, mut places) = (String::with_capacity(self.text.len()), Vec::new());
        for ((family, place), _) in self.families().iter().zip(&*self.places).zip(kept).filter(|(_, kept)| *kept) {
            let begin = u32::try_from(text.len()).expect("it is a part of a text that is shorter than 4 GiB");
            places.push(Place { begin, ..*place });
            text.push_str(family.text);
        }
        (self.text, self.places) = (Arc::new(text), Arc::new(places));
    }

    /// The families in the text format, each with its `# HELP` and `# TYPE` lines where it has them.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same for a request's body, not copied.
    pub(super) fn to_body(&self) -> Bytes {
        struct Shared(Arc<String>);

        impl AsRef<[u8]> for Shared {
            fn as_ref(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        Bytes::from_owner(Shared(Arc::clone(&self.text)))
    }

    /// The names of its families.
    pub(super) fn names(&self) -> Names {
        let mut sorted: Vec<u32> = (0..).take(self.places.len()).collect();
        let families = self.families();
        sorted.sort_unstable_by_key(|index| families.at(*index as usize).name());
        Names { text: self.clone(), sorted }
    }
}

impl fmt::Display for MetricsText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'a> Families<'a> {
    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Family<'a>> + use<'a> {
        let families = *self;
        (0..self.len()).map(move |index| families.at(index))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn at(&self, index: usize) -> Family<'a> {
        let Place { begin, line } = self.places[index];
        let end = self.places.get(index + 1).map_or(self.text.len(), |next| next.begin as usize);
        Family { text: &self.text[begin as usize..end], line: line as usize }
    }
}

impl fmt::Debug for Families<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<'a> Family<'a> {
    /// The family's name.
    #[must_use]
    pub fn name(&self) -> &'a str {
        // A comment names it after its keyword.
        let begin = match self.text.strip_prefix('#') {
            Some(comment) => next_word(comment.trim_start_matches(line::BLANK)).1,
            None => self.text,
        };
        // Without one it has no type, and its samples have its own name.
        name_at_start(begin).expect("a family begins with a line that names it")
    }

    /// Its samples, in the order in which they were written.
    pub fn samples(&self) -> impl Iterator<Item = Sample> + use<'a> {
        self.lines().map(|line| {
            let mut labels = Vec::new();
            let (name, value) = read(line, &mut labels);
            let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), unescaped(value)));
            Sample { name: name.to_owned(), labels: labels.collect(), value }
        })
    }

    /// Its value, where it is one sample.
    #[must_use]
    pub fn sole_value(&self) -> Option<f64> {
        let mut lines = self.lines();
        let (first, None) = (lines.next()?, lines.next()) else { return None };
        Some(read(first, &mut Vec::new()).1)
    }

    fn lines(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.text.lines().filter(|line| !line.starts_with('#'))
    }
}

impl Names {
    /// Whether there is a family for each of those.
    pub(super) fn contains_all(&self, others: &Self) -> bool {
        others.text.families().iter().all(|family| self.contains(family.name()))
    }

    /// Whether there is a family of this name.
    pub(super) fn contains(&self, name: &str) -> bool {
        let families = self.text.families();
        self.sorted.binary_search_by_key(&name, |index| families.at(*index as usize).name()).is_ok()
    }
}

fn read<'a>(line: &'a str, labels: &mut Vec<Label<'a>>) -> (&'a str, f64) {
    parse_sample(line, labels).expect("only lines that were read before are kept")
}

#[cfg(test)]
mod tests;
