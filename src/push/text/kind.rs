//! Types of families, and the parts of which histograms and summaries are made.

use std::fmt;

/// A family's type.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    #[default]
    Untyped,
    Counter,
    Gauge,
    Histogram,
    Summary,
}

/// What a sample is to its family. Buckets and quantiles have a bound, which is the value of a label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The value itself; of a summary, a quantile.
    Value,
    Bucket,
    Sum,
    Count,
}

impl Kind {
    /// Reads a `# TYPE` line's last word; the gateway takes it in capitals too.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let kinds = [Self::Untyped, Self::Counter, Self::Gauge, Self::Histogram, Self::Summary];
        kinds.into_iter().find(|kind| text.eq_ignore_ascii_case(kind.name()))
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Untyped => "untyped",
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Summary => "summary",
        }
    }

    /// The parts that such a family has beside samples of its own name. No other family may have their names: the gateway
    /// refuses the whole push for it.
    pub(super) fn parts(self) -> &'static [Part] {
        match self {
            Self::Histogram => &[Part::Bucket, Part::Sum, Part::Count],
            Self::Summary => &[Part::Sum, Part::Count],
            Self::Untyped | Self::Counter | Self::Gauge => &[],
        }
    }

    /// The label that holds the bound of a part, where it has one.
    pub(super) fn bound_of(self, part: Part) -> Option<&'static str> {
        match (self, part) {
            (Self::Histogram, Part::Bucket) => Some("le"),
            (Self::Summary, Part::Value) => Some("quantile"),
            _ => None,
        }
    }

    /// The label that only the part with a bound may have.
    pub(super) fn bound_label(self) -> Option<&'static str> {
        match self {
            Self::Histogram => Some("le"),
            Self::Summary => Some("quantile"),
            Self::Untyped | Self::Counter | Self::Gauge => None,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Part {
    /// What a part's name has after the family's.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Value => "",
            Self::Bucket => "_bucket",
            Self::Sum => "_sum",
            Self::Count => "_count",
        }
    }

    /// The part that a sample of this family's is, by its name.
    pub(super) fn of(kind: Kind, family: &str, sample: &str) -> Self {
        let suffix = sample.strip_prefix(family).unwrap_or_default();
        kind.parts().iter().copied().find(|part| part.suffix() == suffix).unwrap_or(Self::Value)
    }
}
