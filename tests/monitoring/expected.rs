//! What each query of each dashboard must show, worked out from what was scraped, and without PromQL.

use std::collections::{BTreeMap, BTreeSet};

use crate::grafana::{Choice, Chosen, Timing};
use crate::history::{Bounds, History, Series};
use crate::servers::prometheus::Labels;

/// Series by their labels, with what the value of each may be.
pub type Expected = BTreeMap<Labels, Bounds>;

/// A query's place: dashboard, panel and letter.
pub type Place = (&'static str, &'static str, &'static str);

/// Requests that took longer than the latency objective: counted by no metric, but told by two.
pub const SLOW: &str = "slow_requests";

const REQUESTS: &str = "http_requests_total";
const DURATIONS: [&str; 3] = [
    "http_request_duration_seconds_sum",
    "http_request_duration_seconds_count",
    "http_request_duration_seconds_bucket",
];
const WINDOW: f64 = 300.0;
const DAY: f64 = 86400.0;
const HOUR: f64 = 3600.0;
/// How far back a job's last success, or its first start, is looked for.
const JOB_HISTORY: f64 = 7.0 * DAY;
/// What error budgets are for.
const BUDGET_WINDOW: f64 = 30.0 * DAY;

/// A query's moment: what was scraped by then, what is chosen, and which time is looked at.
pub struct At<'a> {
    pub history: &'a History,
    pub choice: &'a Choice,
    pub timing: Timing,
    pub moment: f64,
}

/// Which series the variables select.
#[derive(Clone, Copy)]
enum Which {
    Any,
    /// Of the chosen jobs and instances.
    Service,
    /// Of the chosen jobs and routes: what rules recorded is summed over the instances.
    Route,
    /// Of the chosen jobs, instances and routes.
    Request,
    /// Of these, what failed.
    Failed,
    /// Of the chosen batch jobs.
    Batch,
}

impl At<'_> {
    fn picks(&self, variable: &str, value: &str) -> bool {
        match &self.choice[variable] {
            Chosen::All => true,
            Chosen::Values(values) => values.iter().any(|chosen| chosen == value),
        }
    }

    fn includes(&self, which: Which, series: &Series) -> bool {
        let job = || self.picks("job", series.label("job"));
        let instance = || self.picks("instance", series.label("instance"));
        let route = || {
            let left_out = self.choice["probes"] == Chosen::Values(vec!["/health|/ready".to_owned()]);
            let route = series.label("route");
            self.picks("route", route) && !(left_out && is_probe(route))
        };
        match which {
            Which::Any => true,
            Which::Service => job() && instance(),
            Which::Route => job() && route(),
            Which::Request => job() && instance() && route(),
            Which::Failed => self.includes(Which::Request, series) && series.label("status").starts_with('5'),
            Which::Batch => self.picks("batch_job", series.label("job")),
        }
    }

    fn chosen(&self, name: &str, which: Which) -> impl Iterator<Item = &Series> {
        self.history.of(name).iter().filter(move |series| self.includes(which, series))
    }

    // ---- Rates of counters ----

    fn rates_over(&self, window: f64, name: &str, which: Which, by: &[&str]) -> Expected {
        summed(self.chosen(name, which).filter_map(|one| Some((kept(one, by), one.rate(window, self.moment)?))))
    }

    fn rates(&self, name: &str, which: Which, by: &[&str]) -> Expected {
        self.rates_over(self.timing.rate_interval, name, which, by)
    }

    /// Only those that counted something within the time range; if there are none, a line at 0 that says so.
    fn occurred(&self, rates: Expected, name: &str, which: Which, by: &[&str], nothing: &str) -> Expected {
        let whole = At { moment: self.timing.end, ..*self };
        let counted = whole.rates_over(self.timing.range, name, which, by);
        let occurred: Expected =
            rates.into_iter().filter(|(labels, _)| counted.get(labels).is_some_and(|rate| rate.high > 0.0)).collect();
        if !occurred.is_empty() {
            return occurred;
        }
        let said = Labels::from([(by[by.len() - 1].to_owned(), nothing.to_owned())]);
        self.rates(name, which, &[]).into_values().map(|_| (said.clone(), Bounds::ZERO)).collect()
    }

    fn counts_over_range(&self, by: &[&str]) -> Expected {
        let rates = self.rates_over(self.timing.range, REQUESTS, Which::Request, by);
        positive(rates.into_iter().map(|(labels, rate)| (labels, rate.times(self.timing.range))).collect())
    }

    fn failed_share(&self, by: &[&str], window: f64) -> Expected {
        let failed = self.rates_over(window, REQUESTS, Which::Failed, by);
        let all = self.rates_over(window, REQUESTS, Which::Request, by);
        let share = |(labels, all): (Labels, Bounds)| {
            let failed = failed.get(&labels).copied().unwrap_or(Bounds::ZERO);
            Some((labels, failed.per(all)?))
        };
        all.into_iter().filter_map(share).collect()
    }

    fn mean(&self, window: f64) -> Expected {
        let [sum, count] =
            [DURATIONS[0], DURATIONS[1]].map(|name| self.rates_over(window, name, Which::Request, &["route"]));
        sum.into_iter().filter_map(|(labels, sum)| Some((labels.clone(), sum.per(count[&labels])?))).collect()
    }

    /// Quantiles of the increases of the buckets, interpolated within a bucket as PromQL does.
    ///
    /// Each series is extrapolated by a factor of its own, between 1 and `1 + spread`; so the share of a bucket is off
    /// by at most that factor, and the quantile lies between those of `q / (1 + spread)` and `q * (1 + spread)`.
    fn quantiles(&self, q: f64, by: &[&str], window: f64) -> Expected {
        let mut histograms: BTreeMap<Labels, (BTreeMap<u64, f64>, f64)> = BTreeMap::new();
        for series in self.chosen(DURATIONS[2], Which::Request) {
            let Some(rate) = series.rate(window, self.moment) else { continue };
            let bound: f64 = series.label("le").parse().unwrap();
            let (buckets, spread) = histograms.entry(kept(series, by)).or_default();
            *buckets.entry(bound.to_bits()).or_default() += rate.low;
            *spread = spread.max(rate.spread());
        }
        let quantile = |(labels, (buckets, spread)): (Labels, (BTreeMap<u64, f64>, f64))| {
            let buckets: Vec<_> = buckets.into_iter().map(|(bound, count)| (f64::from_bits(bound), count)).collect();
            let [low, high] = [q / (1.0 + spread), (q * (1.0 + spread)).min(1.0)];
            let [low, high] = [quantile_of(&buckets, low)?, quantile_of(&buckets, high)?];
            Some((labels, Bounds { low, high, sure: true }))
        };
        histograms.into_iter().filter_map(quantile).collect()
    }

    // ---- Gauges ----

    fn gauges(&self, name: &str, which: Which) -> Expected {
        named(self.computed(name, which, |value, _| value), name)
    }

    /// Of each gauge and of the moment.
    fn computed(&self, name: &str, which: Which, value: impl Fn(f64, f64) -> f64) -> Expected {
        let now =
            |one: &Series| Some((one.labels.clone(), Bounds::exactly(value(one.at(self.moment)?.1, self.moment))));
        self.chosen(name, which).filter_map(now).collect()
    }

    fn ages(&self, name: &str, which: Which) -> Expected {
        self.computed(name, which, |then, now| now - then)
    }

    fn gauge_sums(&self, name: &str, which: Which, by: &[&str]) -> Expected {
        let now = self.computed(name, which, |value, _| value);
        summed(now.into_iter().map(|(labels, value)| (only(&labels, by), value)))
    }

    fn largest_users(&self) -> Expected {
        let now = self.computed("api_users", Which::Service, |value, _| value);
        now.into_iter().fold(Expected::new(), |mut largest, (labels, value)| {
            let one = largest.entry(only(&labels, &["job"])).or_insert(value);
            *one = if value.low > one.low { value } else { *one };
            largest
        })
    }

    fn started(&self) -> Expected {
        let starts = self.computed("process_start_time_seconds", Which::Service, |start, _| 1000.0 * start);
        let starts: Expected =
            starts.into_iter().map(|(labels, start)| (only(&labels, &["instance", "job"]), start)).collect();
        let versions = self.computed("api_build_info", Which::Service, |value, _| value);
        versions.into_keys().map(|labels| (labels.clone(), starts[&only(&labels, &["instance", "job"])])).collect()
    }

    // ---- Recorded by rules ----

    fn recorded_sum(&self, name: &str) -> Option<Bounds> {
        let values = self.chosen(name, Which::Route).filter_map(|one| Some(one.at(self.moment)?.1));
        values.map(Bounds::exactly).reduce(|a, b| a + b)
    }

    fn recorded_rate(&self) -> Expected {
        alone(self.recorded_sum("job_route:http_requests:rate5m"))
    }

    fn recorded_mean(&self) -> Expected {
        let [sum, count] = ["sum", "count"]
            .map(|kind| self.recorded_sum(&format!("job_route:http_request_duration_seconds_{kind}:rate5m")));
        alone(sum.and_then(|sum| sum.per(count?)))
    }

    fn recorded_means(&self) -> Expected {
        let [sum, count] =
            ["sum", "count"].map(|kind| format!("job_route:http_request_duration_seconds_{kind}:rate5m"));
        let [sum, count] = [sum, count].map(|name| self.computed(&name, Which::Route, |value, _| value));
        let means = sum.into_iter().filter_map(|(labels, sum)| Some((labels.clone(), sum.per(count[&labels])?)));
        named(means.collect(), "job_route:http_request_duration_seconds:mean5m")
    }

    /// Of the buckets' recorded rates, which were evaluated together with the quantiles.
    fn recorded_quantiles(&self, q: f64, name: &str, by: &[&str]) -> Expected {
        let mut histograms: BTreeMap<Labels, BTreeMap<u64, f64>> = BTreeMap::new();
        // Those of a job are of all its routes, whatever is chosen.
        let which = if by.contains(&"route") { Which::Route } else { Which::Any };
        let buckets = "job_route_le:http_request_duration_seconds_bucket:rate5m";
        for series in self.chosen(buckets, which).filter(|one| self.picks("job", one.label("job"))) {
            let Some((_, rate)) = series.at(self.moment) else { continue };
            let bound: f64 = series.label("le").parse().unwrap();
            *histograms.entry(kept(series, by)).or_default().entry(bound.to_bits()).or_default() += rate;
        }
        let quantile = |(labels, buckets): (Labels, BTreeMap<u64, f64>)| {
            let buckets: Vec<_> = buckets.into_iter().map(|(bound, count)| (f64::from_bits(bound), count)).collect();
            Some((labels, Bounds::exactly(quantile_of(&buckets, q)?)))
        };
        named(histograms.into_iter().filter_map(quantile).collect(), name)
    }

    /// What misses an objective and what it is about, over a window that ends at an evaluation.
    ///
    /// From a day on it is the mean of the rates over five minutes at each evaluation, of which each is held against
    /// the counters by [`recorded`]. While a run is younger than five minutes, such a rate is a fifth of a minute's
    /// share of all that came until then; so the mean weighs early requests more, and is near the share of failures,
    /// but not that share.
    fn slo_rates(&self, slo: &str, window: f64, evaluated: f64) -> Option<[Bounds; 2]> {
        let kinds = ["errors", "requests"];
        if window < DAY {
            let before = if window == WINDOW { self.red_tick_before(evaluated)? } else { evaluated };
            let rates = kinds.map(|kind| {
                let labels = Labels::from([("slo".to_owned(), slo.to_owned())]);
                let counters = counters(self.history, &format!("job:slo_{kind}"), &labels);
                recorded_sum(&counters, window, [before, evaluated])
            });
            let [Some(errors), Some(requests)] = rates else { return None };
            return Some([errors, requests]);
        }
        let means = kinds.map(|kind| {
            let name = format!("job:slo_{kind}:rate5m");
            let series = self.history.of(&name).iter().find(|one| one.label("slo") == slo)?;
            mean(series, window, evaluated)
        });
        let [Some(errors), Some(requests)] = means else { return None };
        Some([errors, requests])
    }

    fn red_tick_before(&self, evaluated: f64) -> Option<f64> {
        Some(self.history.of("job:up:max")[0].last_two(evaluated)?[0])
    }

    /// The share of requests that missed an objective; time in which nobody could count them is missed too.
    fn slo_ratio(&self, slo: &str, window: f64) -> Expected {
        let known = || {
            let clock = if window < 2.0 * HOUR { "job:slo_requests:rate5m" } else { "job:slo_requests:rate2h" };
            let clock = self.history.of(clock).iter().find(|one| one.label("slo") == slo)?;
            let (evaluated, _) = clock.at(self.moment)?;
            let up = mean(&self.history.of("job:up:max")[0], window, evaluated)?;
            let missed = self.slo_rates(slo, window, evaluated).and_then(|[errors, requests]| errors.per(requests));
            match missed.map(Bounds::rest) {
                Some(met) => {
                    let met = Bounds { low: met.low.max(0.0) * up.low, high: met.high * up.high, sure: met.sure };
                    Some(met.rest())
                }
                None if up.low < 1.0 => Some(up.rest().unsure()),
                None => None,
            }
        };
        let labels = Labels::from([("job", "api"), ("slo", slo)].map(|(name, value)| (name.into(), value.into())));
        known().into_iter().filter(|_| self.picks("job", "api")).map(|ratio| (labels.clone(), ratio)).collect()
    }

    fn achieved(&self, slo: &str) -> Expected {
        self.slo_ratio(slo, BUDGET_WINDOW).into_iter().map(|(labels, ratio)| (labels, ratio.rest())).collect()
    }

    fn burn_rate(&self, slo: &str, window: f64) -> Expected {
        let allowed = allowed(slo);
        self.slo_ratio(slo, window).into_iter().map(|(labels, ratio)| (labels, ratio.times(1.0 / allowed))).collect()
    }

    fn named_burn_rate(&self, slo: &str, (window, name): (f64, &str)) -> Expected {
        named(self.burn_rate(slo, window), &format!("job:slo_errors_per_request:burn_rate{name}"))
    }

    /// What is burnt weighs as much of the budget's window as is known.
    fn budget_left(&self, slo: &str) -> Expected {
        let clock = self.history.of("job:slo_requests:rate2h").iter().find(|one| one.label("slo") == slo);
        let Some((evaluated, _)) = clock.and_then(|clock| clock.at(self.moment)) else { return Expected::new() };
        let Some(known) = self.known_since(evaluated) else { return Expected::new() };
        let burnt = self.burn_rate(slo, BUDGET_WINDOW).into_iter();
        let left = burnt.map(|(labels, burnt)| {
            let [a, b] = known.map(|since| burnt.times((evaluated - since) / BUDGET_WINDOW));
            (labels, Bounds::either(a, b).rest())
        });
        named(left.collect(), "job:slo_error_budget:remaining_ratio30d")
    }

    /// The lower burn rate of two windows, in multiples of the rate that raises the alert.
    fn burn_pair(&self, slo: &str, long: f64, short: f64, factor: f64) -> Expected {
        let long = self.burn_rate(slo, long);
        let lower = |(labels, short): (Labels, Bounds)| {
            let lower = match long.get(&labels) {
                // The longer windows are evaluated less often, and so come later.
                None => short,
                Some(long) => {
                    let lower = Bounds { low: long.low.min(short.low), high: long.high.min(short.high), ..short };
                    if long.sure { lower } else { Bounds::either(lower, short) }
                }
            };
            (labels, lower.times(1.0 / factor))
        };
        self.burn_rate(slo, short).into_iter().map(lower).collect()
    }

    fn spent_by_route(&self, slo: &str) -> Expected {
        let sums = self.history.of("job_route:slo_errors:rate5m").iter().filter_map(|one| {
            if one.label("slo") != slo || !self.picks("job", one.label("job")) {
                return None;
            }
            let samples = one.within(self.timing.range, self.moment);
            let sum = samples.iter().map(|(_, value)| value).sum();
            (!samples.is_empty()).then(|| (kept(one, &["route"]), Bounds::exactly(sum)))
        });
        let sums = summed(sums);
        let all = sums.values().copied().fold(Bounds::ZERO, |a, b| a + b);
        positive(sums.into_iter().filter_map(|(labels, sum)| Some((labels, sum.per(all)?))).collect())
    }

    /// The evaluation that had said something at the first whole minute at which any had, and the one before it, which
    /// is what is seen while that is being written.
    fn known_since(&self, moment: f64) -> Option<[f64; 2]> {
        let series = &self.history.of("job:up:max")[0];
        let first = (series.samples[0].0 / 60.0).ceil() * 60.0;
        if first <= moment { series.last_two(first) } else { None }
    }

    fn rule_history(&self) -> Expected {
        let known = self.known_since(self.moment).filter(|_| self.picks("job", "api"));
        let labels = self.history.of("job:up:max")[0].labels.clone();
        known.map(|[_, since]| (labels, Bounds::exactly(self.moment - since))).into_iter().collect()
    }

    // ---- Batch jobs ----

    /// How many jobs have such a value, in whatever group.
    fn count(&self, name: &str, counts: impl Fn(f64) -> bool) -> Expected {
        let gauges = self.computed(name, Which::Batch, |value, _| value);
        distinct(gauges.into_iter().filter(|(_, value)| counts(value.low)))
    }

    /// Since each job succeeded; for one that never did, since its first known start.
    fn since_success(&self) -> Expected {
        let mut since = Expected::new();
        for start in self.chosen("batch_job_last_start_timestamp_seconds", Which::Batch) {
            let starts = start.within(JOB_HISTORY, self.moment).iter().map(|(_, start)| *start);
            if let Some(first) = starts.min_by(f64::total_cmp) {
                since.insert(start.labels.clone(), Bounds::exactly(self.moment - first));
            }
        }
        for success in self.chosen("batch_job_last_success_timestamp_seconds", Which::Batch) {
            let successes = success.within(JOB_HISTORY, self.moment).iter().map(|(_, success)| *success);
            if let Some(last) = successes.max_by(f64::total_cmp) {
                since.insert(success.labels.clone(), Bounds::exactly(self.moment - last));
            }
        }
        since
    }

    fn success_age(&self) -> Expected {
        let expected = self.computed("batch_job_expected_interval_seconds", Which::Batch, |value, _| value);
        let since = self.since_success();
        let share = |(labels, every): (Labels, Bounds)| Some((labels.clone(), since.get(&labels)?.per(every)?));
        expected.into_iter().filter_map(share).collect()
    }

    fn overdue(&self) -> Expected {
        distinct(self.success_age().into_iter().filter(|(_, share)| share.low > 1.0))
    }

    fn push_ages(&self) -> Expected {
        let never = |age: &Bounds| age.low == self.moment;
        self.ages("push_time_seconds", Which::Batch).into_iter().filter(|(_, age)| !never(age)).collect()
    }

    fn rejected(&self) -> Expected {
        let failures = self.computed("push_failure_time_seconds", Which::Batch, |value, _| value);
        let pushes = self.computed("push_time_seconds", Which::Batch, |value, _| value);
        whole(
            failures
                .iter()
                .filter(|(labels, failed)| pushes.get(*labels).is_some_and(|at| failed.low > at.low))
                .count(),
        )
    }

    fn gateway_up(&self) -> Expected {
        let up = self.history.of("up").iter().filter(|one| one.label("job") == "pushgateway");
        alone(up.filter_map(|one| Some(one.at(self.moment)?.1)).min_by(f64::total_cmp).map(Bounds::exactly))
    }
}

/// Every series that rules record over five minutes is the rate of its counters, at each evaluation.
pub fn recorded(history: &History) -> Vec<String> {
    let clock = &history.of("job:up:max")[0];
    let mut wrong = Vec::new();
    for name in RECORDED {
        for series in history.of(name) {
            assert!(!is_probe(series.label("route")), "{name} records a probe: {:?}", series.labels);
            let counters = counters(history, name, &series.labels);
            for (moment, value) in &series.samples {
                // A rule may have been computed from another group's evaluation before the last.
                let before = clock.last_two(*moment).map_or(*moment, |[before, _]| before);
                let expected = recorded_sum(&counters, WINDOW, [before, *moment]);
                if !expected.is_some_and(|expected| expected.holds(*value)) {
                    wrong.push(format!("{name}{:?} is {value} at {moment}, not {expected:?}", series.labels));
                }
            }
        }
    }
    wrong
}

const RECORDED: [&str; 7] = [
    "job_route:http_requests:rate5m",
    "job_route:http_request_duration_seconds_sum:rate5m",
    "job_route:http_request_duration_seconds_count:rate5m",
    "job_route_le:http_request_duration_seconds_bucket:rate5m",
    "job_route:slo_errors:rate5m",
    "job:slo_errors:rate5m",
    "job:slo_requests:rate5m",
];

/// The counters of which a recorded series, with these labels, is the rate.
fn counters<'a>(history: &'a History, recorded: &str, labels: &Labels) -> Vec<&'a Series> {
    let label = |name: &str| labels.get(name).map(String::as_str);
    let metric = recorded.split(':').nth(1).unwrap();
    let (counter, failed) = match (metric, label("slo")) {
        ("http_requests", _) | ("slo_requests", Some("availability")) => (REQUESTS, false),
        ("http_request_duration_seconds_sum", _) => (DURATIONS[0], false),
        ("http_request_duration_seconds_count", _) | ("slo_requests", Some("latency")) => (DURATIONS[1], false),
        ("http_request_duration_seconds_bucket", _) => (DURATIONS[2], false),
        ("slo_errors", Some("availability")) => (REQUESTS, true),
        ("slo_errors", Some("latency")) => (SLOW, false),
        _ => panic!("of what is {recorded}{labels:?} the rate?"),
    };
    let counts = |one: &&Series| {
        let same = |name: &str| label(name).is_none_or(|value| one.label(name) == value);
        let counted = !failed || one.label("status").starts_with('5');
        one.label("job") == "api" && !is_probe(one.label("route")) && counted && same("route") && same("le")
    };
    history.of(counter).iter().filter(counts).collect()
}

/// What a rule may have recorded of them: 0 where there are none, since a route of which no status is a failure never
/// fails.
fn recorded_sum(counters: &[&Series], window: f64, seen: [f64; 2]) -> Option<Bounds> {
    if counters.is_empty() {
        return Some(Bounds::ZERO);
    }
    counters.iter().filter_map(|one| one.recorded_rate(window, seen)).reduce(|a, b| a + b)
}

/// The mean of what was recorded until an evaluation, which may not have seen the last of it.
fn mean(series: &Series, window: f64, evaluated: f64) -> Option<Bounds> {
    let samples = series.within(window, evaluated);
    let mean = |samples: &[(f64, f64)]| {
        let sum: f64 = samples.iter().map(|(_, value)| value).sum();
        (!samples.is_empty()).then(|| Bounds::exactly(sum / samples.len() as f64))
    };
    let all = mean(samples)?;
    Some(match mean(&samples[..samples.len() - 1]) {
        Some(unseen) => Bounds::either(unseen, all),
        None => all.unsure(),
    })
}

fn is_probe(route: &str) -> bool {
    ["/health", "/ready"].contains(&route)
}

/// The share of requests that may miss an objective.
fn allowed(slo: &str) -> f64 {
    match slo {
        "availability" => 1.0 - 0.999,
        "latency" => 1.0 - 0.99,
        _ => panic!("no objective {slo}"),
    }
}

/// A quantile of cumulative buckets, or of nothing.
fn quantile_of(buckets: &[(f64, f64)], q: f64) -> Option<f64> {
    let all = buckets.last()?.1;
    if all <= 0.0 {
        return None;
    }
    let rank = q * all;
    let at = buckets.iter().position(|(_, count)| *count >= rank).unwrap_or(buckets.len() - 1);
    let (below, before) = if at == 0 { (0.0, 0.0) } else { buckets[at - 1] };
    let (bound, count) = buckets[at];
    if bound.is_infinite() {
        return Some(below);
    }
    Some(if count > before { below + (bound - below) * (rank - before) / (count - before) } else { bound })
}

fn only(labels: &Labels, by: &[&str]) -> Labels {
    labels.iter().filter(|(name, _)| by.contains(&name.as_str())).map(|(k, v)| (k.clone(), v.clone())).collect()
}

fn kept(series: &Series, by: &[&str]) -> Labels {
    only(&series.labels, by)
}

fn summed(values: impl Iterator<Item = (Labels, Bounds)>) -> Expected {
    values.fold(Expected::new(), |mut sums, (labels, value)| {
        sums.entry(labels).and_modify(|sum| *sum = *sum + value).or_insert(value);
        sums
    })
}

fn positive(values: Expected) -> Expected {
    values.into_iter().filter(|(_, value)| value.high > 0.0).collect()
}

fn named(values: Expected, name: &str) -> Expected {
    let name = |(mut labels, value): (Labels, Bounds)| {
        labels.insert("__name__".to_owned(), name.to_owned());
        (labels, value)
    };
    values.into_iter().map(name).collect()
}

fn alone(value: Option<Bounds>) -> Expected {
    value.map(|value| (Labels::new(), value)).into_iter().collect()
}

fn distinct(jobs: impl Iterator<Item = (Labels, Bounds)>) -> Expected {
    whole(jobs.map(|(labels, _)| labels["job"].clone()).collect::<BTreeSet<_>>().len())
}

fn whole(count: usize) -> Expected {
    alone(Some(Bounds::exactly(count as f64)))
}

/// A day and a week before this run there was nothing: Prometheus was not there yet.
fn before_the_run(_: &At<'_>) -> Expected {
    Expected::new()
}

/// One version runs, from the start.
fn no_change_of_version(_: &At<'_>) -> Expected {
    Expected::new()
}

pub type Check = fn(&At<'_>) -> Expected;

/// What must be shown, by place.
#[rustfmt::skip]
pub const CHECKS: &[(Place, Check)] = &[
    (("api-monitoring", "Request Rate (5m)", "A"), |at| {
        let by = ["method", "route"];
        at.occurred(at.rates_over(WINDOW, REQUESTS, Which::Request, &by), REQUESTS, Which::Request, &by, "no requests")
    }),
    (("api-monitoring", "Active Requests", "A"), |at| at.gauge_sums("http_requests_in_progress", Which::Request, &[])),
    (("api-monitoring", "Latency Percentiles", "A"), |at| at.quantiles(0.5, &[], at.timing.rate_interval)),
    (("api-monitoring", "Latency Percentiles", "B"), |at| at.quantiles(0.95, &[], at.timing.rate_interval)),
    (("api-monitoring", "Latency Percentiles", "C"), |at| at.quantiles(0.99, &[], at.timing.rate_interval)),
    (("api-monitoring", "Error Rate (5m)", "A"), |at| at.failed_share(&[], WINDOW)),
    (("api-monitoring", "Requests by Status Code", "A"), |at| {
        at.occurred(at.rates(REQUESTS, Which::Request, &["status"]), REQUESTS, Which::Request, &["status"], "no requests")
    }),
    (("api-monitoring", "Errors by Type", "A"), |at| {
        let (errors, by) = ("api_errors_total", ["error_type"]);
        at.occurred(at.rates(errors, Which::Service, &by), errors, Which::Service, &by, "no errors")
    }),
    (("api-monitoring", "Request Distribution by Endpoint", "A"), |at| at.counts_over_range(&["route"])),
    (("api-monitoring", "Average Response Time by Endpoint", "A"), |at| at.mean(at.timing.range)),
    (("api-monitoring", "Users", "A"), |at| at.largest_users()),
    (("api-monitoring", "Users Created and Deleted", "A"), |at| at.rates("api_users_registered_total", Which::Service, &[])),
    (("api-monitoring", "Users Created and Deleted", "B"), |at| at.rates("api_users_deleted_total", Which::Service, &[])),
    (("api-monitoring", "Active Users (legacy)", "A"), |at| at.gauges("app_active_users", Which::Service)),
    (("api-monitoring", "CPU Usage (legacy)", "A"), |at| at.gauges("app_cpu_usage_percent", Which::Service)),
    (("api-monitoring", "Requests (legacy)", "A"), |at| at.rates("app_requests_total", Which::Service, &["instance"])),
    (("api-monitoring", "CPU", "A"), |at| at.rates_over(WINDOW, "process_cpu_seconds_total", Which::Service, &["instance", "job"])),
    (("api-monitoring", "Memory", "A"), |at| at.gauges("process_resident_memory_bytes", Which::Service)),
    (("api-monitoring", "File Descriptors", "A"), |at| at.gauges("process_open_fds", Which::Service)),
    (("api-monitoring", "Uptime", "A"), |at| at.ages("process_start_time_seconds", Which::Service)),
    (("api-monitoring", "Reachable", "A"), |at| at.gauges("up", Which::Service)),
    (("api-monitoring", "Scrape Duration", "A"), |at| at.gauges("scrape_duration_seconds", Which::Service)),
    (("api-monitoring", "Series", "A"), |at| at.gauges("scrape_samples_post_metric_relabeling", Which::Service)),
    (("api-monitoring", "Versions", "A"), |at| at.started()),
    (("api-monitoring", "Version changes", "annotation"), no_change_of_version),
    (("api-monitoring", "Firing alerts", "annotation"), firing),

    (("api-endpoints", "Endpoints", "A"), |at| at.counts_over_range(&["route"])),
    (("api-endpoints", "Endpoints", "B"), |at| at.failed_share(&["route"], at.timing.range)),
    (("api-endpoints", "Endpoints", "C"), |at| at.mean(at.timing.range)),
    (("api-endpoints", "Endpoints", "D"), |at| at.quantiles(0.5, &["route"], at.timing.range)),
    (("api-endpoints", "Endpoints", "E"), |at| at.quantiles(0.95, &["route"], at.timing.range)),
    (("api-endpoints", "Endpoints", "F"), |at| at.quantiles(0.99, &["route"], at.timing.range)),
    (("api-endpoints", "Request Rate", "A"), |at| {
        at.occurred(at.rates(REQUESTS, Which::Request, &["route"]), REQUESTS, Which::Request, &["route"], "no requests")
    }),
    (("api-endpoints", "Error Rate", "A"), |at| at.failed_share(&["route"], at.timing.rate_interval)),
    (("api-endpoints", "Duration", "A"), |at| at.rates(DURATIONS[2], Which::Request, &["le"])),
    (("api-endpoints", "Latency Percentiles", "A"), |at| at.quantiles(0.5, &[], at.timing.rate_interval)),
    (("api-endpoints", "Latency Percentiles", "B"), |at| at.quantiles(0.95, &[], at.timing.rate_interval)),
    (("api-endpoints", "Latency Percentiles", "C"), |at| at.quantiles(0.99, &[], at.timing.rate_interval)),
    (("api-endpoints", "P95 by Route", "A"), |at| at.quantiles(0.95, &["route"], at.timing.rate_interval)),
    (("api-endpoints", "Statuses by Route", "A"), |at| {
        let by = ["route", "status"];
        at.occurred(at.rates(REQUESTS, Which::Request, &by), REQUESTS, Which::Request, &by, "no requests")
    }),
    (("api-endpoints", "Request Rate: the Same Hour of Other Days", "A"), |at| at.recorded_rate()),
    (("api-endpoints", "Request Rate: the Same Hour of Other Days", "B"), before_the_run),
    (("api-endpoints", "Request Rate: the Same Hour of Other Days", "C"), before_the_run),
    (("api-endpoints", "Mean Duration: the Same Hour of Other Days", "A"), |at| at.recorded_mean()),
    (("api-endpoints", "Mean Duration: the Same Hour of Other Days", "B"), before_the_run),
    (("api-endpoints", "Mean Duration: the Same Hour of Other Days", "C"), before_the_run),
    (("api-endpoints", "Latency Percentiles of All Routes", "A"), |at| at.recorded_quantiles(0.5, "job:http_request_duration_seconds:p50_5m", &["job"])),
    (("api-endpoints", "Latency Percentiles of All Routes", "B"), |at| at.recorded_quantiles(0.95, "job:http_request_duration_seconds:p95_5m", &["job"])),
    (("api-endpoints", "Latency Percentiles of All Routes", "C"), |at| at.recorded_quantiles(0.99, "job:http_request_duration_seconds:p99_5m", &["job"])),
    (("api-endpoints", "Latency Percentiles by Route", "A"), |at| at.recorded_quantiles(0.5, "job_route:http_request_duration_seconds:p50_5m", &["job", "route"])),
    (("api-endpoints", "Latency Percentiles by Route", "B"), |at| at.recorded_quantiles(0.95, "job_route:http_request_duration_seconds:p95_5m", &["job", "route"])),
    (("api-endpoints", "Latency Percentiles by Route", "C"), |at| at.recorded_quantiles(0.99, "job_route:http_request_duration_seconds:p99_5m", &["job", "route"])),
    (("api-endpoints", "Mean Duration by Route", "A"), |at| at.recorded_means()),
    (("api-endpoints", "Version changes", "annotation"), no_change_of_version),
    (("api-endpoints", "Firing alerts", "annotation"), firing),

    (("api-slo", "Availability / Achieved", "A"), |at| at.achieved("availability")),
    (("api-slo", "Availability / Error Budget Left", "A"), |at| at.budget_left("availability")),
    (("api-slo", "Availability / Burn Rate against its Alert", "A"), |at| at.burn_pair("availability", HOUR, WINDOW, 14.4)),
    (("api-slo", "Availability / Burn Rate against its Alert", "B"), |at| at.burn_pair("availability", 6.0 * HOUR, 0.5 * HOUR, 6.0)),
    (("api-slo", "Availability / Burn Rate against its Alert", "C"), |at| at.burn_pair("availability", DAY, 2.0 * HOUR, 3.0)),
    (("api-slo", "Availability / Burn Rate against its Alert", "D"), |at| at.burn_pair("availability", 3.0 * DAY, 6.0 * HOUR, 1.0)),
    (("api-slo", "Availability / Error Budget over Time", "A"), |at| at.budget_left("availability")),
    (("api-slo", "Availability / Burn Rate", "A"), |at| at.named_burn_rate("availability", (HOUR, "1h"))),
    (("api-slo", "Availability / Burn Rate", "B"), |at| at.named_burn_rate("availability", (6.0 * HOUR, "6h"))),
    (("api-slo", "Availability / Burn Rate", "C"), |at| at.named_burn_rate("availability", (DAY, "1d"))),
    (("api-slo", "Availability / Burn Rate", "D"), |at| at.named_burn_rate("availability", (3.0 * DAY, "3d"))),
    (("api-slo", "Availability / What Spends the Budget", "A"), |at| at.spent_by_route("availability")),
    (("api-slo", "Latency / Achieved", "A"), |at| at.achieved("latency")),
    (("api-slo", "Latency / Error Budget Left", "A"), |at| at.budget_left("latency")),
    (("api-slo", "Latency / Burn Rate against its Alert", "A"), |at| at.burn_pair("latency", HOUR, WINDOW, 14.4)),
    (("api-slo", "Latency / Burn Rate against its Alert", "B"), |at| at.burn_pair("latency", 6.0 * HOUR, 0.5 * HOUR, 6.0)),
    (("api-slo", "Latency / Burn Rate against its Alert", "C"), |at| at.burn_pair("latency", DAY, 2.0 * HOUR, 3.0)),
    (("api-slo", "Latency / Burn Rate against its Alert", "D"), |at| at.burn_pair("latency", 3.0 * DAY, 6.0 * HOUR, 1.0)),
    (("api-slo", "Latency / Error Budget over Time", "A"), |at| at.budget_left("latency")),
    (("api-slo", "Latency / Burn Rate", "A"), |at| at.named_burn_rate("latency", (HOUR, "1h"))),
    (("api-slo", "Latency / Burn Rate", "B"), |at| at.named_burn_rate("latency", (6.0 * HOUR, "6h"))),
    (("api-slo", "Latency / Burn Rate", "C"), |at| at.named_burn_rate("latency", (DAY, "1d"))),
    (("api-slo", "Latency / Burn Rate", "D"), |at| at.named_burn_rate("latency", (3.0 * DAY, "3d"))),
    (("api-slo", "Latency / What Spends the Budget", "A"), |at| at.spent_by_route("latency")),
    (("api-slo", "History behind the Figures", "A"), |at| at.rule_history()),
    (("api-slo", "Version changes", "annotation"), no_change_of_version),
    (("api-slo", "Firing alerts", "annotation"), firing),

    (("batch-jobs", "Jobs", "A"), |at| at.count("batch_job_last_start_timestamp_seconds", |_| true)),
    (("batch-jobs", "Running", "A"), |at| at.count("batch_job_running", |value| value == 1.0)),
    (("batch-jobs", "Failed", "A"), |at| at.count("batch_job_last_exit_code", |value| value != 0.0)),
    (("batch-jobs", "Overdue", "A"), |at| at.overdue()),
    (("batch-jobs", "Pushes Rejected", "A"), |at| at.rejected()),
    (("batch-jobs", "Pushgateway", "A"), |at| at.gateway_up()),
    (("batch-jobs", "Last Runs", "A"), |at| at.gauges("batch_job_last_exit_code", Which::Batch)),
    (("batch-jobs", "Last Runs", "B"), |at| at.gauges("batch_job_running", Which::Batch)),
    (("batch-jobs", "Last Runs", "C"), |at| at.ages("batch_job_last_end_timestamp_seconds", Which::Batch)),
    (("batch-jobs", "Last Runs", "D"), |at| at.ages("batch_job_last_success_timestamp_seconds", Which::Batch)),
    (("batch-jobs", "Last Runs", "E"), |at| at.gauges("batch_job_expected_interval_seconds", Which::Batch)),
    (("batch-jobs", "Last Runs", "F"), |at| at.gauges("batch_job_last_duration_seconds", Which::Batch)),
    (("batch-jobs", "Last Runs", "G"), |at| at.gauge_sums("batch_job_last_cpu_seconds", Which::Batch, &["instance", "job"])),
    (("batch-jobs", "Last Runs", "H"), |at| at.gauges("batch_job_last_max_resident_memory_bytes", Which::Batch)),
    (("batch-jobs", "Results over Time", "A"), |at| at.gauges("batch_job_last_exit_code", Which::Batch)),
    (("batch-jobs", "Runs over Time", "A"), |at| at.gauges("batch_job_running", Which::Batch)),
    (("batch-jobs", "Duration over Runs", "A"), |at| at.gauges("batch_job_last_duration_seconds", Which::Batch)),
    (("batch-jobs", "Age of the Last Success against what is Expected", "A"), |at| at.success_age()),
    (("batch-jobs", "Rows of the Last Import", "A"), |at| at.gauge_sums("import_rows_total", Which::Batch, &["job", "result"])),
    (("batch-jobs", "Time since the Last Push", "A"), |at| at.push_ages()),
    (("batch-jobs", "Pushes by Services", "A"), |at| at.rates("push_attempts_total", Which::Any, &["result"])),
    (("batch-jobs", "Firing alerts", "annotation"), firing),
];

/// The alerts that were firing. One that ends does so at an evaluation that leaves no sample, so it is sure to be there
/// only while it goes on from one evaluation to the next.
fn firing(at: &At<'_>) -> Expected {
    let evaluations = at.history.of("job:up:max")[0].samples.iter().map(|(moment, _)| *moment);
    let evaluations: Vec<_> = evaluations.collect();
    let mut alerts = Expected::new();
    for alert in at.history.of("ALERTS").iter().filter(|one| one.label("alertstate") == "firing") {
        let Some((last, value)) = alert.at(at.moment) else { continue };
        let next = alert.samples.iter().map(|(moment, _)| *moment).find(|moment| *moment > at.moment);
        let goes_on = next
            .is_some_and(|next| evaluations.iter().filter(|moment| last < **moment && **moment < next).count() <= 1);
        alerts.insert(alert.labels.clone(), Bounds { sure: goes_on, ..Bounds::exactly(value) });
    }
    named(alerts, "ALERTS")
}

/// The places that have no check, and the checks that have no place.
pub fn unmatched(places: &BTreeSet<(String, String, String)>) -> Vec<String> {
    let checked = CHECKS
        .iter()
        .map(|((dashboard, panel, letter), _)| ((*dashboard).to_owned(), (*panel).to_owned(), (*letter).to_owned()));
    let checked: BTreeSet<_> = checked.collect();
    let name = |(dashboard, panel, letter): &(String, String, String)| format!("{dashboard}, {panel:?}, {letter}");
    let unchecked = places.difference(&checked).map(|place| format!("nobody checks {}", name(place)));
    let missing = checked.difference(places).map(|place| format!("there is no {} to be checked", name(place)));
    unchecked.chain(missing).collect()
}
