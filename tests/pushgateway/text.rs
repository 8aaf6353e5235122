//! What our check of the text format passes, a real gateway takes: whatever was written, in whatever order.

use std::collections::BTreeSet;
use std::path::PathBuf;

use api_monitoring::push::MetricsText;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use crate::needs;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PUSHGATEWAY, Test};
use crate::support::{Answer, client};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([PUSHGATEWAY], what_the_check_passes_the_gateway_takes_and_shows_once),
        needs!([PUSHGATEWAY], families_that_the_gateway_refuses_beside_each_other_are_told_in_every_order),
    ]
}

/// How many texts are tried.
const TEXTS: usize = 150;

/// Pushes a text as it is; gives the status and the reason.
async fn push(client: &reqwest::Client, gateway: &Pushgateway, text: String) -> (u16, String) {
    let answer = Answer::to(client.put(gateway.url("/metrics/job/text")).body(text)).await;
    (answer.status.into(), answer.text())
}

/// A family as a careful program writes it, with some of its lines left out or changed now and then.
fn any_family() -> impl Strategy<Value = Vec<String>> {
    let name = prop::sample::select(vec!["a", "b", "a_sum", "a_count", "a_bucket", "a_count_sum"]);
    let kind = prop::sample::select(vec!["", "untyped", "gauge", "counter", "histogram", "summary"]);
    let label =
        prop::sample::select(vec!["", "l=\"x\"", "l=\"\"", "m=\"y\",l=\"\\\\\\n\\\"é\"", "le=\"1\"", "quantile=\"1\""]);
    let spoilt = prop_oneof![6 => Just(None), 1 => any::<prop::sample::Index>().prop_map(Some)];
    (name, kind, label, 0..4_u32, any::<bool>(), spoilt).prop_map(|(name, kind, label, value, helped, spoilt)| {
        let mut lines = Vec::new();
        if helped {
            lines.push(format!("# HELP {name} Of \\\\ {name}\\n."));
        }
        if !kind.is_empty() {
            lines.push(format!("# TYPE {name} {kind}"));
        }
        let sample = |part: &str, more: &str, value: u32| {
            let labels = [label, more].into_iter().filter(|labels| !labels.is_empty()).collect::<Vec<_>>().join(",");
            format!("{name}{part}{{{labels}}} {value}")
        };
        match kind {
            "histogram" => {
                lines.push(sample("_bucket", "le=\"1\"", value));
                lines.push(sample("_bucket", "le=\"1e0\"", value));
                lines.push(sample("_bucket", "le=\"+Inf\"", value + 1));
                lines.extend([sample("_sum", "", 9), sample("_count", "", value + 1)]);
                // Mostly, one bound is written one way.
                if !helped {
                    lines.retain(|line| !line.contains("1e0"));
                }
            }
            "summary" => {
                lines.extend([sample("", "quantile=\"0.5\"", 1), sample("_sum", "", 9), sample("_count", "", value)])
            }
            _ => lines.push(sample("", "", value)),
        }
        if let Some(index) = spoilt {
            let line = lines.remove(index.index(lines.len()));
            lines.extend([line.replace(" 9", " 8"), line]);
        }
        lines
    })
}

/// Families one after the other, some of them in pieces.
fn any_text() -> impl Strategy<Value = String> {
    let families = prop::collection::vec(any_family(), 1..5);
    (families, any::<Option<prop::sample::Index>>()).prop_map(|(families, turn)| {
        let mut lines = families.concat();
        if let Some(turn) = turn {
            let index = turn.index(lines.len());
            lines.rotate_left(index);
        }
        lines.join("\n") + "\n"
    })
}

async fn what_the_check_passes_the_gateway_takes_and_shows_once([tool]: [PathBuf; 1]) {
    let (gateway, client) = (Pushgateway::start(&tool).await, client());
    let mut runner = TestRunner::deterministic();
    let (texts, mut kept, mut refused) = (any_text(), 0, 0);
    for _ in 0..TEXTS {
        let text = texts.new_tree(&mut runner).unwrap().current();
        let parsed = MetricsText::parse(text.as_bytes());

        let (status, reason) = push(&client, &gateway, parsed.to_string()).await;

        assert_eq!(status, 200, "{reason}\n{text}\nbecame\n{parsed}\nwith {:?}", parsed.faults());
        let shown = gateway.group(&[("job", "text")]).await.series();
        assert_eq!(shown.iter().collect::<BTreeSet<_>>().len(), shown.len(), "a series stands twice: {text}");
        let of_ours = shown.iter().filter(|(name, _)| !name.starts_with("push_")).count();
        let samples: usize = parsed.families().iter().map(|family| family.samples().count()).sum();
        assert_eq!(of_ours, samples, "as many as were written: {text}\nbecame\n{parsed}");
        kept += usize::from(samples > 0);
        refused += usize::from(push(&client, &gateway, text).await.0 != 200);
    }
    assert!(kept > TEXTS / 2 && refused > TEXTS / 10, "{kept} with samples, {refused} that the gateway refuses");
}

async fn families_that_the_gateway_refuses_beside_each_other_are_told_in_every_order([tool]: [PathBuf; 1]) {
    let (gateway, client) = (Pushgateway::start(&tool).await, client());
    let histogram = "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n";
    let summary = "# TYPE a summary\na{quantile=\"0.5\"} 1\na_sum 1\na_count 1\n";
    for (whole, part, clash) in [
        (histogram, "a_sum", true),
        (histogram, "a_count", true),
        (histogram, "a_bucket", true),
        (summary, "a_sum", true),
        (summary, "a_count", true),
        (summary, "a_bucket", false),
        (histogram, "a_total", false),
    ] {
        let part = format!("# TYPE {part} gauge\n{part}{{l=\"x\"}} 1\n");
        for text in [format!("{whole}{part}"), format!("{part}{whole}")] {
            let parsed = MetricsText::parse(text.as_bytes());

            let raw = push(&client, &gateway, text.clone()).await.0;
            let checked = push(&client, &gateway, parsed.to_string()).await.0;

            assert_eq!((raw == 200, checked), (!clash, 200), "{text}");
            assert_eq!(parsed.faults().is_empty(), !clash, "{text}: {:?}", parsed.faults());
            assert_eq!(parsed.families().len(), if clash { 1 } else { 2 }, "one of them is pushed: {text}");
        }
    }
}
