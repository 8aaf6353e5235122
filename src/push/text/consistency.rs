//! Whether the samples of one family agree with each other.
//!
//! The gateway looks at little of this. What it takes and shows all the same, Prometheus refuses or misreads: a series
//! that stands twice, or a count that nobody wrote and that is shown as 0.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use super::faults::{Faults, Shown};
use super::kind::{Kind, Part};
use super::line::{Label, parse_sample, parse_value};
use super::parser::{At, SampleLine, line_at};

/// Checks one family after the other.
pub(super) struct Consistency<'a> {
    text: &'a [u8],
    labels: Vec<Label<'a>>,
    others: Vec<Label<'a>>,
}

/// A sample, with as much of it as is compared.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Of the labels by which Prometheus tells series apart, but for that of the bound.
    hash: u64,
    /// Of the labels by which the gateway puts parts together: the empty ones too.
    whole: u64,
    bound: f64,
    value: f64,
    at: At,
    part: Part,
}

/// Two sets of labels have one hash.
#[derive(Debug)]
struct Collision;

impl<'a> Consistency<'a> {
    pub(super) fn new(text: &'a [u8], labels: Vec<Label<'a>>) -> Self {
        Self { text, labels, others: Vec::new() }
    }

    /// Whether a family is consistent; if not, the faults say why.
    pub(super) fn holds(&mut self, name: &str, kind: Kind, lines: &[SampleLine], faults: &mut Faults) -> bool {
        if lines.len() == 1 && kind.parts().is_empty() {
            return true;
        }
        let before = faults.count;
        // Another hash tells apart what one does not.
        let samples = loop {
            if let Ok(samples) = self.grouped(name, kind, lines, &RandomState::new()) {
                break samples;
            }
        };
        for group in samples.chunk_by(|a, b| a.hash == b.hash) {
            self.check(name, kind, group, faults);
        }
        faults.count == before
    }

    /// The samples in groups that share their labels, buckets and quantiles of each in the order of their bounds.
    fn grouped(
        &mut self,
        name: &str,
        kind: Kind,
        lines: &[SampleLine],
        hasher: &impl BuildHasher,
    ) -> Result<Vec<Sample>, Collision> {
        let mut samples = Vec::with_capacity(lines.len());
        for line in lines {
            let (sample, value) = read(self.text, line.at, &mut self.labels);
            let part = Part::of(kind, name, sample);
            let bound = kind.bound_of(part).and_then(|label| self.labels.iter().find(|(name, _)| *name == label));
            let bound = bound.and_then(|(_, written)| parse_value(written)).unwrap_or_default();
            let (mut hash, mut whole) = (hasher.build_hasher(), hasher.build_hasher());
            series(kind, &self.labels).for_each(|label| label.hash(&mut hash));
            unbound(kind, &self.labels).for_each(|label| label.hash(&mut whole));
            samples.push(Sample { hash: hash.finish(), whole: whole.finish(), bound, value, at: line.at, part });
        }
        samples.sort_unstable_by(|a, b| {
            let order = |sample: &Sample| (sample.hash, sample.part);
            order(a).cmp(&order(b)).then(a.bound.total_cmp(&b.bound)).then(a.at.cmp(&b.at))
        });
        for group in samples.chunk_by(|a, b| a.hash == b.hash) {
            let [first, more @ ..] = group else { continue };
            read(self.text, first.at, &mut self.labels);
            for sample in more {
                read(self.text, sample.at, &mut self.others);
                if !series(kind, &self.labels).eq(series(kind, &self.others)) {
                    return Err(Collision);
                }
            }
        }
        Ok(samples)
    }

    /// Checks the samples that share their labels.
    fn check(&mut self, name: &str, kind: Kind, group: &[Sample], faults: &mut Faults) {
        let before = faults.count;
        for pair in group.windows(2) {
            #[allow(clippy::float_cmp, reason = "bounds that are written differently and are one are exactly equal")]
            if pair[0].part == pair[1].part && pair[0].bound == pair[1].bound {
                let at = pair[0].at.max(pair[1].at);
                let name = format!("{}{}", Shown(name), pair[0].part.suffix());
                faults.note(at as usize, || format!("{name} comes twice with the same labels"));
            }
        }
        if kind.parts().is_empty() || faults.count > before {
            return;
        }
        let name = Shown(name);
        if let Some(other) = group.iter().find(|sample| sample.whole != group[0].whole) {
            return faults.note(other.at as usize, || {
                format!("the parts of the {kind} {name} do not have the same labels: one has an empty one more")
            });
        }
        let first = group.iter().map(|sample| sample.at).min().unwrap_or_default();
        for part in [Part::Sum, Part::Count] {
            if !group.iter().any(|sample| sample.part == part) {
                faults.note(first as usize, || {
                    format!("the {kind} {name} has no {name}{}, for which the gateway would show 0", part.suffix())
                });
            }
        }
        if kind == Kind::Histogram {
            check_buckets(name, first, group, faults);
        }
    }
}

fn check_buckets(name: Shown<'_>, first: At, group: &[Sample], faults: &mut Faults) {
    let buckets = || group.iter().filter(|sample| sample.part == Part::Bucket);
    for (lower, upper) in buckets().zip(buckets().skip(1)) {
        if upper.value < lower.value {
            faults.note(upper.at as usize, || {
                format!(
                    "{name}_bucket falls from {} to {}; each bucket counts the lower ones too",
                    lower.value, upper.value
                )
            });
        }
    }
    let Some(infinite) = buckets().next_back().filter(|bucket| bucket.bound == f64::INFINITY) else {
        return faults.note(first as usize, || format!("the histogram {name} has no {name}_bucket with le=\"+Inf\""));
    };
    #[allow(clippy::float_cmp, reason = "both are whole numbers")]
    if let Some(count) = group.iter().find(|sample| sample.part == Part::Count && sample.value != infinite.value) {
        faults.note(count.at as usize, || {
            format!("{name}_count is {}, and {name}_bucket with le=\"+Inf\" is {}", count.value, infinite.value)
        });
    }
}

fn read<'a>(text: &'a [u8], at: At, labels: &mut Vec<Label<'a>>) -> (&'a str, f64) {
    parse_sample(line_at(text, at), labels).expect("only samples that were read before are compared")
}

/// The labels that tell series apart: without the bound's, and without empty ones, which are none to Prometheus.
fn series<'l, 'a>(kind: Kind, labels: &'l [Label<'a>]) -> impl Iterator<Item = &'l Label<'a>> {
    unbound(kind, labels).filter(|(_, value)| !value.is_empty())
}

fn unbound<'l, 'a>(kind: Kind, labels: &'l [Label<'a>]) -> impl Iterator<Item = &'l Label<'a>> {
    labels.iter().filter(move |(name, _)| kind.bound_label() != Some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hash that takes everything for the same.
    struct Blind;

    impl Hasher for Blind {
        fn finish(&self) -> u64 {
            0
        }

        fn write(&mut self, _: &[u8]) {}
    }

    impl BuildHasher for Blind {
        type Hasher = Self;

        fn build_hasher(&self) -> Self {
            Self
        }
    }

    #[test]
    fn labels_that_differ_are_told_apart_also_when_their_hashes_are_one() {
        let text = b"a{b=\"1\"} 1\na{b=\"2\"} 1\na{b=\"2\"} 1\n";
        let lines = [0, 11, 22].map(|at| SampleLine::new(0, at));
        let mut consistency = Consistency::new(text, Vec::new());

        assert!(consistency.grouped("a", Kind::Gauge, &lines, &Blind).is_err());
        assert!(consistency.grouped("a", Kind::Gauge, &lines[1..], &Blind).is_ok(), "they are the same");
        let mut faults = Faults::default();
        assert!(!consistency.holds("a", Kind::Gauge, &lines, &mut faults));
        assert_eq!((faults.count, faults.first[0].line), (1, 22));
    }
}
