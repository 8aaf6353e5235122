//! The text format (version 0.0.4) of gathered families.
//!
//! The crate's own encoder gives the same bytes, and the tests here hold this one to that. It takes a `dyn` call and a new
//! string for every label and value; this one takes neither.

use std::fmt::Write;

use prometheus::proto::{LabelPair, Metric, MetricFamily, MetricType};

/// Appends the families to a text.
///
/// # Errors
///
/// For a family of a type that the text format does not know from the `prometheus` crate.
pub(super) fn encode(families: &[MetricFamily], text: &mut String) -> prometheus::Result<()> {
    for family in families {
        let kind = match family.get_field_type() {
            MetricType::COUNTER => "counter",
            MetricType::GAUGE => "gauge",
            MetricType::HISTOGRAM => "histogram",
            MetricType::SUMMARY => "summary",
            other @ MetricType::UNTYPED => {
                return Err(prometheus::Error::Msg(format!("{}: no text for the type {other:?}", family.name())));
            }
        };
        head(text, family, kind);
        let mut lines =
            Lines { text, name: family.name(), labels: String::new(), timestamp: String::new(), bounds: Vec::new() };
        for metric in family.get_metric() {
            lines.turn_to(metric);
            match family.get_field_type() {
                MetricType::COUNTER => lines.sample("", metric.get_counter().value()),
                MetricType::GAUGE => lines.sample("", metric.get_gauge().value()),
                MetricType::HISTOGRAM => lines.histogram(metric),
                _ => lines.summary(metric),
            }
        }
    }
    Ok(())
}

fn head(text: &mut String, family: &MetricFamily, kind: &str) {
    let (name, help) = (family.name(), family.help());
    if !help.is_empty() {
        text.extend(["# HELP ", name, " "]);
        escaped(text, help, &['\\', '\n']);
        text.push('\n');
    }
    text.extend(["# TYPE ", name, " ", kind, "\n"]);
}

/// Writes the lines of a family.
struct Lines<'text> {
    text: &'text mut String,
    name: &'text str,
    /// Of the metric at hand, without braces: a histogram repeats them on each of its lines.
    labels: String,
    /// Of the metric at hand, with a blank before it; empty when it has none.
    timestamp: String,
    /// Bounds in the order of the last histogram's buckets, and their texts: the next one has the same.
    bounds: Vec<(f64, String)>,
}

impl Lines<'_> {
    fn turn_to(&mut self, metric: &Metric) {
        self.labels.clear();
        for pair in metric.get_label() {
            label(&mut self.labels, pair);
        }
        self.timestamp.clear();
        if metric.timestamp_ms() != 0 {
            write!(self.timestamp, " {}", metric.timestamp_ms()).expect("a string takes all that is written");
        }
    }

    fn histogram(&mut self, metric: &Metric) {
        let histogram = metric.get_histogram();
        let count = exact(histogram.get_sample_count());
        let mut has_infinite = false;
        for (index, bucket) in histogram.get_bucket().iter().enumerate() {
            let bound = bucket.upper_bound();
            has_infinite |= bound == f64::INFINITY;
            if self.bounds.get(index).is_none_or(|(known, _)| known.to_bits() != bound.to_bits()) {
                self.bounds.truncate(index);
                self.bounds.push((bound, bound_text(bound)));
            }
            self.start("_bucket", Some(("le", Bound::Known(index))));
            self.end(exact(bucket.cumulative_count()));
        }
        if !has_infinite {
            self.start("_bucket", Some(("le", Bound::Text("+Inf"))));
            self.end(count);
        }
        self.sample("_sum", histogram.get_sample_sum());
        self.sample("_count", count);
    }

    fn summary(&mut self, metric: &Metric) {
        let summary = metric.get_summary();
        for quantile in summary.get_quantile() {
            self.start("", Some(("quantile", Bound::Text(&bound_text(quantile.quantile())))));
            self.end(quantile.value());
        }
        self.sample("_sum", summary.sample_sum());
        self.sample("_count", exact(summary.sample_count()));
    }

    fn sample(&mut self, suffix: &str, value: f64) {
        self.start(suffix, None);
        self.end(value);
    }

    /// Name and labels, with one more label if there is one.
    fn start(&mut self, suffix: &str, more: Option<(&str, Bound<'_>)>) {
        let text = &mut *self.text;
        text.push_str(self.name);
        text.push_str(suffix);
        if self.labels.is_empty() && more.is_none() {
            return;
        }
        text.push('{');
        text.push_str(&self.labels);
        if let Some((name, bound)) = more {
            if !self.labels.is_empty() {
                text.push(',');
            }
            let bound = match bound {
                Bound::Known(index) => &self.bounds[index].1,
                Bound::Text(text) => text,
            };
            text.extend([name, "=\"", bound, "\""]);
        }
        text.push('}');
    }

    fn end(&mut self, value: f64) {
        self.text.push(' ');
        number(self.text, value);
        self.text.push_str(&self.timestamp);
        self.text.push('\n');
    }
}

/// The value of a label that holds a number.
enum Bound<'text> {
    /// One of [`Lines::bounds`].
    Known(usize),
    Text(&'text str),
}

fn bound_text(bound: f64) -> String {
    if bound == f64::INFINITY {
        return "+Inf".to_owned();
    }
    let mut text = String::new();
    number(&mut text, bound);
    text
}

fn label(labels: &mut String, pair: &LabelPair) {
    if !labels.is_empty() {
        labels.push(',');
    }
    labels.push_str(pair.name());
    labels.push_str("=\"");
    escaped(labels, pair.value(), &['\\', '\n', '"']);
    labels.push('"');
}

/// Appends a text with a backslash before each of the characters given; a line's end becomes `\n`.
fn escaped(text: &mut String, plain: &str, special: &[char]) {
    let mut rest = plain;
    while let Some(index) = rest.find(special) {
        let (before, from) = rest.split_at(index);
        text.push_str(before);
        text.push('\\');
        text.push(if from.starts_with('\n') { 'n' } else { char::from(from.as_bytes()[0]) });
        rest = &from[1..];
    }
    text.push_str(rest);
}

/// Appends a number as `f64`'s `Display` writes it.
fn number(text: &mut String, value: f64) {
    #[allow(clippy::cast_possible_truncation, reason = "checked on the next line")]
    let whole = value as i64;
    // Most samples are counts, which are quicker written as such. Up to 2^53 the two are the same; -0 has a sign.
    #[allow(clippy::cast_precision_loss, clippy::float_cmp, reason = "exact where it matters")]
    if whole as f64 == value && whole.unsigned_abs() < 1 << 53 && (whole != 0 || value.is_sign_positive()) {
        text.push_str(itoa::Buffer::new().format(whole));
    } else {
        write!(text, "{value}").expect("a string takes all that is written");
    }
}

/// The model has whole numbers here, and `f64` everywhere else.
#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53, as the crate's own encoder has it")]
fn exact(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use prometheus::proto::{Bucket, Counter, Gauge, Histogram, Quantile, Summary};
    use prometheus::{Encoder, TextEncoder};
    use proptest::prelude::*;

    use super::*;

    fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(name.to_owned());
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        family
    }

    fn metric(labels: &[(String, String)], timestamp_ms: i64) -> Metric {
        let pairs = labels.iter().map(|(name, value)| {
            let mut pair = LabelPair::default();
            pair.set_name(name.clone());
            pair.set_value(value.clone());
            pair
        });
        let mut metric = Metric::from_label(pairs.collect());
        metric.set_timestamp_ms(timestamp_ms);
        metric
    }

    fn encoded(family: &MetricFamily) -> String {
        let mut text = String::new();
        encode(std::slice::from_ref(family), &mut text).unwrap();
        text
    }

    fn by_the_crate(family: &MetricFamily) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(std::slice::from_ref(family), &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            any::<f64>(),
            any::<u64>().prop_map(exact),
            any::<i32>().prop_map(f64::from),
            Just(0.0),
            Just(-0.0),
            Just(9_007_199_254_740_992.0),
            Just(-9_007_199_254_740_993.0),
        ]
    }

    fn any_metric() -> impl Strategy<Value = (Metric, Vec<f64>)> {
        let text = "[a-z\\\\\n\"é👩 {},=]{0,12}";
        let labels = prop::collection::vec(("[a-z_]{1,8}", text), 0..4);
        let timestamp = prop_oneof![Just(0), any::<i64>()];
        let values = prop::collection::vec(any_value(), 6);
        (labels, timestamp, values).prop_map(|(labels, timestamp, values)| (metric(&labels, timestamp), values))
    }

    proptest! {
        #[test]
        fn the_text_is_that_of_the_crates_own_encoder(
            help in "[a-z\\\\\n\" ]{0,20}",
            metrics in prop::collection::vec(any_metric(), 1..5),
            kind in 0..4_usize,
        ) {
            let kind = [MetricType::COUNTER, MetricType::GAUGE, MetricType::HISTOGRAM, MetricType::SUMMARY][kind];
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "any number will do")]
            let count = |value: f64| value.abs() as u64;
            let metrics = metrics.into_iter().map(|(mut metric, values)| {
                match kind {
                    MetricType::COUNTER => {
                        let mut counter = Counter::default();
                        counter.set_value(values[0]);
                        metric.set_counter(counter);
                    }
                    MetricType::GAUGE => {
                        let mut gauge = Gauge::default();
                        gauge.set_value(values[0]);
                        metric.set_gauge(gauge);
                    }
                    MetricType::HISTOGRAM => {
                        let mut histogram = Histogram::default();
                        // The crate writes an infinite bound as `inf`, which no histogram of its own has.
                        let bounds = values[2..].iter().copied().filter(|bound| *bound != f64::INFINITY);
                        let buckets = bounds.map(|bound| {
                            let mut bucket = Bucket::default();
                            bucket.set_upper_bound(bound);
                            bucket.set_cumulative_count(count(values[1]));
                            bucket
                        });
                        histogram.set_bucket(buckets.collect());
                        histogram.set_sample_sum(values[0]);
                        histogram.set_sample_count(count(values[1]));
                        metric.set_histogram(histogram);
                    }
                    _ => {
                        let mut quantile = Quantile::default();
                        quantile.set_quantile(0.5);
                        quantile.set_value(values[2]);
                        let mut summary = Summary::default();
                        summary.set_quantile(vec![quantile]);
                        summary.set_sample_sum(values[0]);
                        summary.set_sample_count(count(values[1]));
                        metric.set_summary(summary);
                    }
                }
                metric
            });
            let family = family("name", &help, kind, metrics.collect());

            prop_assert_eq!(encoded(&family), by_the_crate(&family));
        }
    }

    #[test]
    fn an_infinite_bound_is_written_as_prometheus_reads_it_and_once() {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(f64::INFINITY);
        bucket.set_cumulative_count(2);
        let mut histogram = Histogram::default();
        histogram.set_bucket(vec![bucket]);
        histogram.set_sample_count(2);
        let mut metric = metric(&[], 0);
        metric.set_histogram(histogram);

        let text = encoded(&family("h", "", MetricType::HISTOGRAM, vec![metric]));

        assert_eq!(text, "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum 0\nh_count 2\n");
    }

    #[test]
    fn a_family_without_a_type_is_refused_by_name() {
        let untyped = family("untyped_thing", "", MetricType::UNTYPED, vec![metric(&[], 0)]);

        let error = encode(&[untyped], &mut String::new()).unwrap_err();

        assert!(error.to_string().contains("untyped_thing"), "{error}");
    }
}
