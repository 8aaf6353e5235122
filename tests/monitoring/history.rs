//! Every sample that Prometheus has of what was scraped, and what a rate over such samples may be.
//!
//! A rate of PromQL is the increase between the first and the last sample of its window, extrapolated to the window's
//! ends: at each end by the time to it, or where that is more than 1.1 times the samples' mean distance, by half that
//! distance; at the start never beyond the moment at which the counter would have been 0. So it is never less than the
//! increase over the window, and more than that by at most 1.1 distances at each end. A counter that exists at 0 from
//! the start is extrapolated only at the end: over `n` samples the error is at most `1.1 / (n - 1)`.

use std::collections::BTreeMap;
use std::ops::Add;

use serde_json::Value;

use crate::servers::prometheus::{Labels, Prometheus};
use crate::support::client;

/// Beyond this many times the distance of samples, a rate is extrapolated by half of it.
const REACH: f64 = 1.1;

/// How long Prometheus takes the last sample for the present one, in seconds.
const STALE: f64 = 300.0;

/// A moment in Unix seconds and a value.
pub type Sample = (f64, f64);

#[derive(Debug, Clone)]
pub struct Series {
    pub name: String,
    /// Without the name.
    pub labels: Labels,
    pub samples: Vec<Sample>,
}

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bounds {
    pub low: f64,
    pub high: f64,
    /// Whether it must be there at all.
    pub sure: bool,
}

pub struct History(BTreeMap<String, Vec<Series>>);

impl History {
    /// Everything of these names, a regular expression, in the last so many seconds.
    pub async fn read(prometheus: &Prometheus, names: &str, seconds: u32) -> Self {
        let url = format!("http://{}/api/v1/query", prometheus.address());
        let query = format!("{{__name__=~\"{names}\"}}[{seconds}s]");
        let answer = client().get(url).query(&[("query", &query)]).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        let mut all: BTreeMap<String, Vec<Series>> = BTreeMap::new();
        for series in answer["data"]["result"].as_array().unwrap() {
            let mut labels: Labels = serde_json::from_value(series["metric"].clone()).unwrap();
            let name = labels.remove("__name__").unwrap();
            let samples = series["values"].as_array().unwrap().iter();
            let samples = samples.map(|one| (one[0].as_f64().unwrap(), one[1].as_str().unwrap().parse().unwrap()));
            all.entry(name.clone()).or_default().push(Series { name, labels, samples: samples.collect() });
        }
        Self(all)
    }

    pub fn of(&self, name: &str) -> &[Series] {
        self.0.get(name).unwrap_or_else(|| panic!("Prometheus has no {name}"))
    }

    /// The moment of the first sample.
    pub fn start(&self) -> f64 {
        self.0.values().flatten().map(|one| one.samples[0].0).fold(f64::INFINITY, f64::min)
    }

    /// Adds series that are worked out from others.
    pub fn add(&mut self, series: Vec<Series>) {
        for one in series {
            self.0.entry(one.name.clone()).or_default().push(one);
        }
    }
}

impl Series {
    pub fn label(&self, name: &str) -> &str {
        self.labels.get(name).map_or("", String::as_str)
    }

    fn until(&self, moment: f64) -> &[Sample] {
        &self.samples[..self.samples.partition_point(|(at, _)| *at <= moment)]
    }

    /// The latest sample at a moment, unless it is stale.
    pub fn at(&self, moment: f64) -> Option<Sample> {
        self.until(moment).last().copied().filter(|(at, _)| *at > moment - STALE)
    }

    /// The samples of a window that ends at a moment.
    pub fn within(&self, window: f64, moment: f64) -> &[Sample] {
        let samples = self.until(moment);
        &samples[samples.partition_point(|(at, _)| *at <= moment - window)..]
    }

    /// The last sample at a moment and the one before it, which is what one saw who asked while the last was being
    /// written.
    pub fn last_two(&self, moment: f64) -> Option<[f64; 2]> {
        let samples = self.until(moment);
        let last = samples.last()?.0;
        Some([samples.len().checked_sub(2).map_or(last, |before| samples[before].0), last])
    }

    /// The rate over a window that ends at a moment. There is none over fewer than two samples.
    pub fn rate(&self, window: f64, moment: f64) -> Option<Bounds> {
        // A sample at the very start of the window belongs to it in Prometheus 2, and not in Prometheus 3.
        let open = self.within(window, moment);
        let closed = self.within(window + 0.0005, moment);
        let [open, closed] = [open, closed].map(|samples| extrapolated(samples, window, moment));
        Some(Bounds::either(open?, closed?))
    }

    /// The same as a rule computed it, at one of two moments or between them, and perhaps before the last sample was
    /// written.
    pub fn recorded_rate(&self, window: f64, [before, moment]: [f64; 2]) -> Option<Bounds> {
        let late = Bounds { sure: false, ..Bounds::ZERO };
        let seen = self.rate(window, moment)?;
        let Some([unseen, _]) = self.last_two(before) else { return Some(Bounds::either(late, seen)) };
        let samples = self.within(window, moment);
        let first_end = samples.partition_point(|(at, _)| *at < unseen) + 1;
        let each = (first_end..samples.len()).map(|end| extrapolated(&samples[..end], window, moment).unwrap_or(late));
        Some(each.fold(seen, Bounds::either))
    }
}

fn extrapolated(samples: &[Sample], window: f64, moment: f64) -> Option<Bounds> {
    let [first, .., last] = samples else { return None };
    let sampled = millis(last.0 - first.0);
    let reach = REACH * sampled / (samples.len() - 1) as f64;
    let before = if first.1 == 0.0 { 0.0 } else { reach.min(millis(first.0 - moment) + window).max(0.0) };
    let after = reach.min(millis(moment - last.0));
    // No counter falls in these tests, which is checked where they are compared with what was sent.
    let increase = last.1 - first.1;
    let high = increase / window * (sampled + before + after) / sampled;
    Some(Bounds { low: increase / window, high, sure: true })
}

/// Seconds without what is lost of them in numbers as large as Unix seconds; Prometheus counts milliseconds.
fn millis(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

impl Bounds {
    pub const ZERO: Self = Self::exactly(0.0);

    pub const fn exactly(value: f64) -> Self {
        Self { low: value, high: value, sure: true }
    }

    /// What is one or the other.
    pub fn either(a: Self, b: Self) -> Self {
        Self { low: a.low.min(b.low), high: a.high.max(b.high), sure: a.sure && b.sure }
    }

    pub fn unsure(self) -> Self {
        Self { sure: false, ..self }
    }

    pub fn times(self, factor: f64) -> Self {
        let (a, b) = (self.low * factor, self.high * factor);
        Self { low: a.min(b), high: a.max(b), sure: self.sure }
    }

    /// The complement to 1.
    pub fn rest(self) -> Self {
        Self { low: 1.0 - self.high, high: 1.0 - self.low, sure: self.sure }
    }

    /// Divides by what must be more than 0; there is no ratio where it is not.
    pub fn per(self, divisor: Self) -> Option<Self> {
        if divisor.high <= 0.0 {
            return None;
        }
        let sure = self.sure && divisor.sure && divisor.low > 0.0;
        let high = if divisor.low > 0.0 { self.high / divisor.low } else { f64::INFINITY };
        Some(Self { low: self.low / divisor.high, high, sure })
    }

    /// By how much it may be off, as a share.
    pub fn spread(self) -> f64 {
        if self.low > 0.0 { self.high / self.low - 1.0 } else { 0.0 }
    }

    pub fn holds(self, value: f64) -> bool {
        // Sums of the same numbers in another order differ in the last digits.
        let rounding = 1e-9 * (1.0 + value.abs());
        self.low - rounding <= value && value <= self.high + rounding
    }
}

impl Add for Bounds {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { low: self.low + other.low, high: self.high + other.high, sure: self.sure || other.sure }
    }
}
