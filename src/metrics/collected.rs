//! The series as the registry collects them: sums over their stripes, in the `prometheus` crate's terms.

use std::collections::HashMap;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

use super::families::{Red, UNMATCHED_STATUS};
use super::names::{self, Definition, METHODS, OTHER_METHOD};
use super::series::Totals;

/// The families of requests, durations and requests in progress.
pub(super) struct Collected {
    red: Red,
    desc: [Desc; 3],
}

impl Collected {
    pub(super) fn new(red: Red) -> prometheus::Result<Self> {
        let desc = |family: Definition| {
            let labels = family.labels.iter().map(|label| (*label).to_owned()).collect();
            Desc::new(family.name.to_owned(), family.help.to_owned(), labels, HashMap::new())
        };
        let desc = [
            desc(names::HTTP_REQUESTS_TOTAL)?,
            desc(names::HTTP_REQUEST_DURATION_SECONDS)?,
            desc(names::HTTP_REQUESTS_IN_PROGRESS)?,
        ];
        Ok(Self { red, desc })
    }
}

impl Collector for Collected {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut requests: Vec<Metric> =
            self.red.with_other_statuses().collect().iter_mut().flat_map(MetricFamily::take_metric).collect();
        let (mut durations, mut in_progress) = (Vec::new(), Vec::new());
        // A path outside the table is answered 404, whatever the method: at 0 until that method is first seen there.
        let mut never_unmatched: Vec<&str> = METHODS.iter().copied().chain([OTHER_METHOD]).collect();
        for (subject, totals) in self.red.recorded() {
            if subject.route == names::UNMATCHED {
                never_unmatched.retain(|method| *method != subject.method);
            }
            let labels = |status| labels(subject.method, &subject.route, status);
            requests.extend(totals.statuses.iter().map(|(status, count)| counter(labels(Some(*status)), *count)));
            durations.push(histogram(labels(None), &totals));
            in_progress.push(gauge(labels(None), totals.in_progress));
        }
        let zero = |method| counter(labels(method, names::UNMATCHED, Some(UNMATCHED_STATUS)), 0);
        requests.extend(never_unmatched.into_iter().map(zero));
        vec![
            family(names::HTTP_REQUESTS_TOTAL, MetricType::COUNTER, requests),
            family(names::HTTP_REQUEST_DURATION_SECONDS, MetricType::HISTOGRAM, durations),
            family(names::HTTP_REQUESTS_IN_PROGRESS, MetricType::GAUGE, in_progress),
        ]
    }
}

fn family(definition: Definition, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(definition.name.to_owned());
    family.set_help(definition.help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

/// Ordered by name, as the crate orders those of its own families.
fn labels(method: &str, route: &str, status: Option<u16>) -> Vec<LabelPair> {
    let label = |name: &str, value: String| {
        let mut label = LabelPair::default();
        label.set_name(name.to_owned());
        label.set_value(value);
        label
    };
    let both = [label(names::METHOD, method.to_owned()), label(names::ROUTE, route.to_owned())];
    both.into_iter().chain(status.map(|status| label(names::STATUS, status.to_string()))).collect()
}

#[allow(clippy::cast_precision_loss, reason = "exact up to 2^53 requests; the crate's model knows no other numbers")]
fn counter(labels: Vec<LabelPair>, count: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(count as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_counter(counter);
    metric
}

#[allow(clippy::cast_precision_loss, reason = "no process has 2^53 requests in progress")]
fn gauge(labels: Vec<LabelPair>, number: usize) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(number as f64);
    let mut metric = Metric::from_label(labels);
    metric.set_gauge(gauge);
    metric
}

fn histogram(labels: Vec<LabelPair>, totals: &Totals) -> Metric {
    let mut below = 0;
    let buckets = names::HTTP_REQUEST_DURATION_BUCKETS.iter().zip(totals.buckets).map(|(bound, requests)| {
        below += requests;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(below);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(totals.buckets.iter().sum());
    histogram.set_sample_sum(totals.duration.as_secs_f64());
    let mut metric = Metric::from_label(labels);
    metric.set_histogram(histogram);
    metric
}
