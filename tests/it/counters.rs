//! Whatever requests come, in whatever order, and however they end: what was counted stays counted, and all of it is.

use std::collections::BTreeMap;

use api_monitoring::metrics::names::{METHODS, OTHER_METHOD, UNMATCHED};
use api_monitoring::metrics::{Observation, Red, Route, RouteTable};
use http::{Method, StatusCode};
use prometheus::{Registry, TextEncoder};
use proptest::prelude::*;

use crate::support::{Sample, Samples};

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Begin { method: String, path: String },
    Finish { which: prop::sample::Index, status: u16, error_type: Option<&'static str> },
    GoAway { which: prop::sample::Index },
}

fn step() -> impl Strategy<Value = Step> {
    let method = prop_oneof![prop::sample::select(METHODS.to_vec()).prop_map(str::to_owned), "[A-Z]{1,10}"];
    let path = prop_oneof!["/work|/work/[0-9]{1,3}|/probe", "(/[a-z%{}]{0,5}){0,3}"];
    // The edges more often than others: from 400 on a request has failed.
    let status = prop_oneof![100..=999_u16, prop::sample::select(vec![200, 399, 400, 404, 499, 500])];
    let which = any::<prop::sample::Index>;
    let error_type = prop::option::of(prop::sample::select(vec!["validation", "store_failed"]));
    prop_oneof![
        3 => (method, path).prop_map(|(method, path)| Step::Begin { method, path }),
        2 => (which(), status, error_type)
            .prop_map(|(which, status, error_type)| Step::Finish { which, status, error_type }),
        1 => which().prop_map(|which| Step::GoAway { which }),
    ]
}

fn scrape(registry: &Registry) -> Samples {
    Samples::parse(&TextEncoder::new().encode_to_string(&registry.gather()).unwrap())
}

fn sum(samples: &Samples, wanted: impl Fn(&Sample) -> bool) -> f64 {
    samples.0.iter().filter(|sample| wanted(sample)).map(|sample| sample.value).sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn counters_never_fall_and_every_request_is_counted_once(steps in prop::collection::vec(step(), 1..40)) {
        let registry = Registry::new();
        let routes = [
            Route::new("/work").answers(Method::GET, [200, 404]),
            Route::new("/work/{id}").answers(Method::PUT, [200]),
            Route::new("/probe"),
        ];
        let red = Red::register(&registry, RouteTable::new(routes).unwrap()).unwrap();
        let mut open: Vec<Observation> = Vec::new();
        let (mut ended, mut failed) = (0.0, 0.0);
        let mut before: BTreeMap<_, f64> = BTreeMap::new();

        for step in steps {
            let status = match step {
                Step::Begin { method, path } => {
                    open.push(red.observe(&method.parse().unwrap(), &path));
                    None
                }
                Step::Finish { .. } | Step::GoAway { .. } if open.is_empty() => None,
                Step::Finish { which, status, error_type } => {
                    let observation = open.swap_remove(which.index(open.len()));
                    observation.finish(StatusCode::from_u16(status).unwrap(), error_type);
                    Some(status)
                }
                Step::GoAway { which } => {
                    drop(open.swap_remove(which.index(open.len())));
                    Some(499)
                }
            };
            ended += f64::from(u8::from(status.is_some()));
            failed += f64::from(u8::from(status.is_some_and(|status| status >= 400)));

            let samples = scrape(&registry);

            for sample in &samples.0 {
                let route = sample.labels.get("route").map_or(UNMATCHED, String::as_str);
                prop_assert!(["/work", "/work/{id}", "/probe", UNMATCHED].contains(&route), "{:?}", sample);
                let method = sample.labels.get("method").map_or(OTHER_METHOD, String::as_str);
                prop_assert!(method == OTHER_METHOD || METHODS.contains(&method), "{:?}", sample);
            }
            let counters = samples.0.iter().filter(|sample| sample.name != "http_requests_in_progress");
            let now: BTreeMap<_, f64> =
                counters.map(|sample| ((sample.name.clone(), sample.labels.clone()), sample.value)).collect();
            for (series, value) in &before {
                prop_assert!(now.get(series).is_some_and(|now| now >= value), "{:?} was {}, now {:?}", series, value, now.get(series));
            }
            before = now;
            prop_assert_eq!(sum(&samples, |sample| sample.name == "http_requests_total"), ended);
            prop_assert_eq!(sum(&samples, |sample| sample.name == "http_request_duration_seconds_count"), ended);
            let all = |sample: &Sample| sample.labels.get("le").is_some_and(|bound| bound == "+Inf");
            prop_assert_eq!(sum(&samples, all), ended);
            prop_assert_eq!(sum(&samples, |sample| sample.name == "api_errors_total"), failed);
            let in_progress = sum(&samples, |sample| sample.name == "http_requests_in_progress");
            prop_assert_eq!(in_progress, f64::from(u32::try_from(open.len()).unwrap()));
        }
    }
}
