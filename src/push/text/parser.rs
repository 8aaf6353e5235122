//! From lines to families, in one pass and in little memory.
//!
//! A file of 4 MiB may hold 600,000 families. So nothing is copied out of the text on the way: a family is known by where
//! its name stands, a sample by where its line begins.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

use super::consistency::Consistency;
use super::faults::{Faults, Shown, newlines};
use super::kind::{Kind, Part};
use super::line::{BLANK, Label, is_well_escaped, name_at_start, name_in_bytes, next_word, parse_sample};
use super::{MetricsText, Place};

/// Where something stands in the text, in bytes. A text is shorter than 4 GiB.
pub(super) type At = u32;

/// A family as far as it is known.
#[derive(Debug)]
struct Known {
    /// Where its name stood first.
    name: At,
    /// Where its `# HELP` line begins.
    help: Option<At>,
    kind: Kind,
    typed: bool,
    sampled: bool,
    broken: bool,
}

/// A line with a sample.
#[derive(Debug, Clone, Copy)]
pub(super) struct SampleLine {
    family: u32,
    /// Where the line begins, blanks left out.
    pub(super) at: At,
}

impl SampleLine {
    #[cfg(test)]
    pub(super) fn new(family: u32, at: At) -> Self {
        Self { family, at }
    }
}

/// Reads line by line.
pub(super) struct Parser<'a> {
    text: &'a [u8],
    families: Vec<Known>,
    /// Indices into `families`, by name.
    by_name: HashTable<u32>,
    hasher: RandomState,
    samples: Vec<SampleLine>,
    /// Noted by the bytes with which their lines begin.
    faults: Faults,
    /// Of the sample at hand.
    labels: Vec<Label<'a>>,
}

impl<'a> Parser<'a> {
    pub(super) fn parse(text: &'a [u8]) -> MetricsText {
        // Room for all at once: what grows leaves its old places behind, and what is not written to takes no memory. A
        // sample has four bytes at least.
        let lines = newlines(text).min(text.len() / 4);
        let mut parser = Self {
            text,
            families: Vec::with_capacity(lines),
            by_name: HashTable::with_capacity(lines),
            hasher: RandomState::new(),
            samples: Vec::with_capacity(lines),
            faults: Faults::default(),
            labels: Vec::new(),
        };
        if At::try_from(text.len()).is_err() {
            parser.faults.note(0, || "the text is longer than 4 GiB".to_owned());
            return MetricsText::new(String::new(), Vec::new(), parser.faults.at_lines(text));
        }
        let mut at = 0;
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            parser.line(at, line);
            at += line.len();
        }
        parser.finish()
    }

    fn line(&mut self, begin: usize, bytes: &'a [u8]) {
        let whole = bytes.ends_with(b"\n");
        let blanks = bytes.iter().take_while(|byte| is_blank(**byte)).count();
        let at = begin + blanks;
        let Ok(line) = str::from_utf8(trimmed(bytes)) else {
            let name = name_in_bytes(&bytes[blanks..]).map(|name| (at, name));
            return self.fault(at, name, || "the line is not UTF-8".to_owned());
        };
        let name = |line: &str| name_at_start(line).map(|name| (at, &self.text[at..at + name.len()]));
        match line.strip_prefix('#') {
            Some(comment) => self.comment(at, line, comment.trim_start_matches(BLANK)),
            None if line.is_empty() => {}
            // The rest may be missing: the last digits of a value, say.
            None if !whole => {
                let name = name(line);
                self.fault(at, name, || "the last line has no end; it may be cut off".to_owned());
            }
            None => self.sample(at, line),
        }
    }

    fn comment(&mut self, at: usize, line: &'a str, comment: &'a str) {
        let (keyword, comment) = next_word(comment);
        if !matches!(keyword, "HELP" | "TYPE") {
            return;
        }
        let (word, rest) = next_word(comment);
        let shown = Shown(word);
        if name_at_start(word) != Some(word) {
            return self.fault(at, None, || format!("# {keyword} names {shown:?}, which is not a metric name"));
        }
        let name = word.as_bytes();
        let index = self.declared(at, at + line.len() - comment.len(), name);
        let family = &mut self.families[index];
        if keyword == "HELP" {
            if family.help.is_some() {
                self.breaks(at, index, || format!("a second # HELP of {shown}"));
            } else if is_well_escaped(rest) {
                family.help = Some(position(at));
            } else {
                self.breaks(at, index, || format!("the help of {shown} has an unknown escape sequence"));
            }
            return;
        }
        let Some(kind) = Kind::parse(rest) else {
            return self.breaks(at, index, || format!("{shown} has the unknown type {:?}", Shown(rest)));
        };
        if family.typed {
            self.breaks(at, index, || format!("a second # TYPE of {shown}"));
        } else if family.sampled {
            self.breaks(at, index, || format!("the # TYPE of {shown} comes after its first sample"));
        } else {
            (family.kind, family.typed) = (kind, true);
            let taken =
                kind.parts().iter().find(|part| self.find(&[name, part.suffix().as_bytes()].concat()).is_some());
            if let Some(part) = taken {
                let suffix = part.suffix();
                self.breaks(at, index, || {
                    format!("{shown} cannot be a {kind} beside {shown}{suffix}, which would be a part of it")
                });
            }
        }
    }

    /// The family that a `# HELP` or `# TYPE` line is about. It is never a part of another one: whoever declares a part
    /// means a family of its own, for which there is no room.
    fn declared(&mut self, at: usize, name_at: usize, name: &[u8]) -> usize {
        if let Some(index) = self.find(name) {
            return index;
        }
        let whole = self.whole_of(name);
        let index = self.add(name_at, name);
        if let Some(whole) = whole {
            let (kind, whole) = (self.families[whole].kind, shown(self.name(whole)));
            self.breaks(at, index, || format!("{} is a part of the {kind} {whole}, not a family", shown(name)));
        }
        index
    }

    fn sample(&mut self, at: usize, line: &'a str) {
        let mut labels = std::mem::take(&mut self.labels);
        let parsed = parse_sample(line, &mut labels);
        match parsed {
            Ok((name, value)) => {
                let index = self.family_of(at, name.as_bytes());
                let family = &self.families[index];
                if let Some(reason) = misfit(shown(self.name(index)).0, family.kind, name, &labels, value) {
                    self.breaks(at, index, || reason);
                } else {
                    self.families[index].sampled = true;
                    self.samples.push(SampleLine { family: position(index), at: position(at) });
                }
            }
            Err(reason) => {
                let name = name_at_start(line).map(|name| (at, name.as_bytes()));
                self.fault(at, name, || reason);
            }
        }
        self.labels = labels;
    }

    /// Notes a fault; the family that it is about, if any, is broken.
    fn fault(&mut self, at: usize, name: Option<(usize, &[u8])>, reason: impl FnOnce() -> String) {
        match name {
            Some((name_at, name)) => {
                let index = self.family_of(name_at, name);
                self.breaks(at, index, reason);
            }
            None => self.faults.note(at, reason),
        }
    }

    fn breaks(&mut self, at: usize, family: usize, reason: impl FnOnce() -> String) {
        self.families[family].broken = true;
        self.faults.note(at, reason);
    }

    /// The family that a sample belongs to: its own name, or without the suffix of a histogram's or summary's part.
    fn family_of(&mut self, name_at: usize, name: &[u8]) -> usize {
        self.find(name).or_else(|| self.whole_of(name)).unwrap_or_else(|| self.add(name_at, name))
    }

    /// The histogram or summary that has a part of this name.
    fn whole_of(&self, name: &[u8]) -> Option<usize> {
        [Part::Bucket, Part::Sum, Part::Count].into_iter().find_map(|part| {
            let index = self.find(name.strip_suffix(part.suffix().as_bytes())?)?;
            self.families[index].kind.parts().contains(&part).then_some(index)
        })
    }

    fn find(&self, name: &[u8]) -> Option<usize> {
        let same = |index: &u32| self.name(*index as usize) == name;
        self.by_name.find(self.hasher.hash_one(name), same).map(|index| *index as usize)
    }

    fn add(&mut self, name_at: usize, name: &[u8]) -> usize {
        let index = self.families.len();
        self.families.push(Known {
            name: position(name_at),
            help: None,
            kind: Kind::default(),
            typed: false,
            sampled: false,
            broken: false,
        });
        let (families, text, hasher) = (&self.families, self.text, &self.hasher);
        let hash = |index: &u32| hasher.hash_one(name_at_byte(text, families[*index as usize].name));
        self.by_name.insert_unique(hasher.hash_one(name), position(index), hash);
        index
    }

    fn name(&self, family: usize) -> &'a [u8] {
        name_at_byte(self.text, self.families[family].name)
    }

    fn finish(self) -> MetricsText {
        let Self { text, families, by_name, mut samples, mut faults, labels, .. } = self;
        drop(by_name);
        if !samples.is_sorted_by_key(|sample| sample.family) {
            samples.sort_unstable_by_key(|sample| (sample.family, sample.at));
        }
        // What is not written to takes no memory.
        let mut kept = String::with_capacity(text.len() + 1);
        let mut places = Vec::with_capacity(families.len());
        let mut consistency = Consistency::new(text, labels);
        let mut lines = Lines { counted: 0, line: 1 };
        let mut rest = &samples[..];
        for (index, family) in families.iter().enumerate() {
            let own;
            let end = rest.iter().position(|sample| sample.family as usize != index).unwrap_or(rest.len());
            (own, rest) = rest.split_at(end);
            let name = shown(name_at_byte(text, family.name)).0;
            // A family of which there is only talk is not pushed.
            if own.is_empty() || family.broken || !consistency.holds(name, family.kind, own, &mut faults) {
                continue;
            }
            places.push(Place { begin: position(kept.len()), line: lines.of(text, family.name) });
            if let Some(help) = family.help {
                push_line(&mut kept, &[line_at(text, help)]);
            }
            if family.typed {
                push_line(&mut kept, &["# TYPE ", name, " ", family.kind.name()]);
            }
            for sample in own {
                push_line(&mut kept, &[line_at(text, sample.at)]);
            }
        }
        drop((families, samples, consistency));
        MetricsText::new(kept, places, faults.at_lines(text))
    }
}

/// Counts lines, from one place to the next.
struct Lines {
    counted: usize,
    line: usize,
}

impl Lines {
    /// The line of a byte; none of those that were asked for before may be further on.
    fn of(&mut self, text: &[u8], at: At) -> u32 {
        self.line += newlines(&text[self.counted..at as usize]);
        self.counted = at as usize;
        position(self.line)
    }
}

/// Why a sample does not belong to a family of that type. The gateway leaves such samples out without a word, or makes
/// something else of them.
fn misfit(family: &str, kind: Kind, name: &str, labels: &[Label<'_>], value: f64) -> Option<String> {
    const COUNTS_END: f64 = 18_446_744_073_709_551_616.0;
    let label = kind.bound_label()?;
    let part = Part::of(kind, family, name);
    let bound = labels.iter().find(|(name, _)| *name == label).map(|(_, written)| *written);
    let (family, name) = (Shown(family), Shown(name));
    if (kind, part) == (Kind::Histogram, Part::Value) {
        return Some(format!("the histogram {family} has only _bucket, _sum and _count"));
    }
    let counts = matches!(part, Part::Bucket | Part::Count);
    match (kind.bound_of(part), bound) {
        (None, Some(_)) => Some(format!("{name} must not have the label {label}")),
        (Some(_), bound) if bound.and_then(super::line::parse_value).is_none_or(f64::is_nan) => {
            Some(format!("{name} needs the label {label} with a number"))
        }
        _ if counts && (value < 0.0 || value.fract() != 0.0) => {
            Some(format!("{name} counts {value}, which is not a whole number"))
        }
        _ if counts && value >= COUNTS_END => Some(format!("{name} counts {value:e}, which is more than 64 bits hold")),
        _ => None,
    }
}

/// The line that begins there, without blanks at its end. It was read before, so it is text.
pub(super) fn line_at(text: &[u8], at: At) -> &str {
    let rest = &text[at as usize..];
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    str::from_utf8(trimmed(&rest[..end])).expect("only lines that are text are kept")
}

fn push_line(text: &mut String, pieces: &[&str]) {
    text.extend(pieces.iter().copied());
    text.push('\n');
}

fn name_at_byte(text: &[u8], at: At) -> &[u8] {
    name_in_bytes(&text[at as usize..]).expect("a family's name begins here")
}

fn shown(name: &[u8]) -> Shown<'_> {
    Shown(str::from_utf8(name).expect("names are ASCII"))
}

fn trimmed(line: &[u8]) -> &[u8] {
    let begin = line.iter().position(|byte| !is_blank(*byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| !is_blank(*byte)).map_or(begin, |last| last + 1);
    &line[begin..end]
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn position(at: usize) -> At {
    At::try_from(at).expect("a text is shorter than 4 GiB, and has no more lines than bytes")
}
