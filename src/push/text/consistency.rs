//! Whether the samples of one family agree with each other.
//!
//! The gateway looks at little of this. What it takes and shows all the same, Prometheus refuses or misreads: a series
//! that stands twice, or a count that nobody wrote and that is shown as 0.

use std::hash::{BuildHasher, Hash, Hasher, RandomState};

use hashbrown::HashTable;

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

/// A series that was met, in the smallest form: there may be half a million.
struct Seen {
    hash: u32,
    at: At,
}

impl<'a> Consistency<'a> {
    pub(super) fn new(text: &'a [u8], labels: Vec<Label<'a>>) -> Self {
        Self { text, labels, others: Vec::new() }
    }

    /// Whether a family is consistent; if not, the faults say why.
    pub(super) fn holds(&mut self, name: &str, kind: Kind, lines: &[SampleLine], faults: &mut Faults) -> bool {
        let before = faults.count;
        if lines.len() > 1 {
            self.note_twice(name, kind, lines, faults);
        }
        if !kind.parts().is_empty() && faults.count == before {
            // Another hash tells apart what one does not.
            let samples = loop {
                if let Ok(samples) = self.grouped(name, kind, lines, &RandomState::new()) {
                    break samples;
                }
            };
            samples.chunk_by(|a, b| a.hash == b.hash).for_each(|group| check(Shown(name), kind, group, faults));
        }
        faults.count == before
    }

    /// Notes the series that stand twice.
    fn note_twice(&mut self, name: &str, kind: Kind, lines: &[SampleLine], faults: &mut Faults) {
        let hasher = RandomState::new();
        let spread = |hash: u32| u64::from(hash).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut all = HashTable::new();
        for line in lines {
            let (sample, _) = read(self.text, line.at, &mut self.labels);
            let place = place(kind, name, sample, &self.labels);
            let mut hash = hasher.build_hasher();
            (place.0 as u8, place.1.to_bits()).hash(&mut hash);
            series(kind, &self.labels).for_each(|label| label.hash(&mut hash));
            #[allow(clippy::cast_possible_truncation, reason = "any bits of it will do")]
            let hash = hash.finish() as u32;
            let is_same = |seen: &Seen| {
                seen.hash == hash && {
                    let (other, _) = read(self.text, seen.at, &mut self.others);
                    self::place(kind, name, other, &self.others) == place
                        && series(kind, &self.labels).eq(series(kind, &self.others))
                }
            };
            if all.find(spread(hash), is_same).is_some() {
                faults.note(line.at as usize, || format!("{} comes twice with the same labels", Shown(sample)));
            } else {
                all.insert_unique(spread(hash), Seen { hash, at: line.at }, |seen| spread(seen.hash));
            }
        }
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
            let (part, bound) = place(kind, name, sample, &self.labels);
            let (mut hash, mut whole) = (hasher.build_hasher(), hasher.build_hasher());
            series(kind, &self.labels).for_each(|label| label.hash(&mut hash));
            unbound(kind, &self.labels).for_each(|label| label.hash(&mut whole));
            samples.push(Sample { hash: hash.finish(), whole: whole.finish(), bound, value, at: line.at, part });
        }
        samples.sort_unstable_by(|a, b| {
            let order = |sample: &Sample| (sample.hash, sample.part);
            order(a).cmp(&order(b)).then(a.bound.total_cmp(&b.bound))
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
}

/// Checks the parts of a histogram or summary that share their labels.
fn check(name: Shown<'_>, kind: Kind, group: &[Sample], faults: &mut Faults) {
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

/// What part of its family a sample is, and its bound, where it has one.
fn place(kind: Kind, family: &str, sample: &str, labels: &[Label<'_>]) -> (Part, f64) {
    let part = Part::of(kind, family, sample);
    let bound = kind.bound_of(part).and_then(|label| labels.iter().find(|(name, _)| *name == label));
    // 0 and -0 are one bound.
    (part, bound.and_then(|(_, written)| parse_value(written)).unwrap_or_default() + 0.0)
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
        let text = b"h_sum{b=\"1\"} 1\nh_sum{b=\"2\"} 1\nh_count{b=\"2\"} 1\n";
        let lines = [0, 15, 30].map(|at| SampleLine::new(0, at));
        let mut consistency = Consistency::new(text, Vec::new());

        assert!(consistency.grouped("h", Kind::Histogram, &lines, &Blind).is_err());
        assert!(consistency.grouped("h", Kind::Histogram, &lines[1..], &Blind).is_ok(), "they are the same");
        assert_eq!(consistency.grouped("h", Kind::Histogram, &lines, &RandomState::new()).unwrap().len(), 3);
    }
}
