//! What is wrong with a text, in bounded memory: a file of nothing but faults must not take more than one without.

use std::fmt;

/// Faults that are kept; more are counted.
const KEPT: usize = 100;

/// How much of a piece of the text is repeated in a fault, in characters.
const SHOWN: usize = 80;

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

/// The first faults of a text, by line, and how many there are.
#[derive(Debug, Default, Clone)]
pub(super) struct Faults {
    pub(super) first: Vec<Fault>,
    pub(super) count: usize,
}

impl Faults {
    /// Notes a fault at a line, or at the byte with which the line begins; see [`Faults::at_lines`]. The reason is asked
    /// for only when it is kept.
    pub(super) fn note(&mut self, at: usize, reason: impl FnOnce() -> String) {
        self.count += 1;
        let place = self.first.partition_point(|fault| fault.line <= at);
        if place < KEPT {
            self.first.insert(place, Fault { line: at, reason: reason() });
            self.first.truncate(KEPT);
        }
    }

    /// The faults, which were noted by bytes, by lines.
    pub(super) fn at_lines(mut self, text: &[u8]) -> Self {
        let (mut line, mut counted) = (1, 0);
        for fault in &mut self.first {
            line += newlines(&text[counted..fault.line]);
            counted = fault.line;
            fault.line = line;
        }
        self
    }
}

/// The number of line ends.
pub(super) fn newlines(bytes: &[u8]) -> usize {
    bytes.split(|byte| *byte == b'\n').count() - 1
}

/// A piece of the text, for a message: its beginning, where it is long.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a>(pub(super) &'a str);

impl<'a> Shown<'a> {
    fn cut(self) -> (&'a str, &'static str) {
        self.0.char_indices().nth(SHOWN).map_or((self.0, ""), |(end, _)| (&self.0[..end], "…"))
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (beginning, more) = self.cut();
        write!(f, "{beginning}{more}")
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (beginning, more) = self.cut();
        write!(f, "{beginning:?}{more}")
    }
}
