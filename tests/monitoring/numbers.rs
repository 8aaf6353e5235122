//! Each number stands once, in prometheus/config.libsonnet: when those of thresholds, objectives and windows are changed
//! there, none of the old ones is left in the rules; no Jsonnet file of the dashboards spells one; and prometheus.yml has the same limit.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::needs;
use crate::servers::{JSONNET, Test};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([JSONNET], every_number_of_the_rules_comes_from_the_configuration),
        needs!([], the_dashboards_spell_no_number_of_the_configuration),
        needs!([JSONNET], the_pages_for_people_repeat_the_numbers_as_they_are),
        needs!([], the_sample_limit_of_the_alert_is_that_of_every_scrape),
    ]
}

const CONFIG: &str = "prometheus/config.libsonnet";

/// A line of the configuration, what it becomes, and what that must drive out of the rules.
const CHANGES: [(&str, &str, &[&str]); 24] = [
    ("apiJob: 'api'", "apiJob: 'billing'", &[]),
    ("  window: '5m'", "  window: '7m'", &["5m", "300"]),
    ("latencyThreshold: 0.5,", "latencyThreshold: 0.35,", &["500"]),
    ("critical: 0.05 }", "critical: 0.07 }", &["0.05"]),
    ("alert: 10 }", "alert: 17 }", &["10"]),
    ("minFailures: 10,", "minFailures: 13,", &["10"]),
    ("minRequests: 20,", "minRequests: 23,", &["20"]),
    ("    window: '6h'", "    window: '9h'", &["6h", "5h"]),
    ("oldest: '1h'", "oldest: '2h'", &["1h"]),
    ("idle: 0.1,", "idle: 0.3,", &["0.1"]),
    ("spike: 3,", "spike: 3.7,", &["3"]),
    ("drop: 0.25,", "drop: 0.19,", &["0.25"]),
    ("availability: 0.999,", "availability: 0.995,", &["0.999"]),
    ("latency: 0.99,", "latency: 0.97,", &["0.99"]),
    ("budgetWindow: '30d'", "budgetWindow: '28d'", &["30d", "50", "120", "240", "720"]),
    ("factor: 14.4, long: '1h', short: '5m'", "factor: 13.3, long: '61m', short: '11m'", &["14.4", "1h", "3600"]),
    ("factor: 6, long: '6h', short: '30m'", "factor: 5.7, long: '11h', short: '31m'", &["6", "30m", "21600"]),
    ("factor: 3, long: '1d', short: '2h'", "factor: 2.9, long: '26h', short: '4h'", &["3", "1d", "86400"]),
    ("factor: 1, long: '3d', short: '6h'", "factor: 1.1, long: '80h', short: '8h'", &["3d", "259200"]),
    ("targetHistory: '1d'", "targetHistory: '2d'", &["1d"]),
    ("restarts: { number: 3, window: '10m' }", "restarts: { number: 4, window: '12m' }", &["3", "10m"]),
    ("jobHistory: '7d'", "jobHistory: '9d'", &["7d"]),
    ("sampleLimit: 10000,", "sampleLimit: 20011,", &["10000"]),
    ("sampleShare: 0.8,", "sampleShare: 0.7,", &["0.8"]),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

async fn every_number_of_the_rules_comes_from_the_configuration([jsonnet]: [PathBuf; 1]) {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(root().join("prometheus")).unwrap().map(Result::unwrap) {
        if file.path().extension().is_some_and(|extension| extension == "libsonnet" || extension == "jsonnet") {
            std::fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
    }
    let config = folder.path().join("config.libsonnet");
    let mut text = std::fs::read_to_string(&config).unwrap();
    for (line, changed, _) in CHANGES {
        assert_eq!(text.matches(line).count(), 1, "{line} in {CONFIG}");
        text = text.replace(line, changed);
    }
    std::fs::write(&config, text).unwrap();

    let mut command = Command::new(jsonnet);
    let rendered =
        command.arg("-S").arg("-m").arg(folder.path()).arg(folder.path().join("rules.jsonnet")).output().unwrap();

    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let old: BTreeSet<_> = CHANGES.iter().flat_map(|(_, _, gone)| gone.iter().copied()).collect();
    let mut seen = 0;
    for file in ["red.rules.yml", "slo.rules.yml", "red.alerts.yml", "jobs.alerts.yml"] {
        let file_text = std::fs::read_to_string(folder.path().join(file)).unwrap();
        let rules: Value = serde_norway::from_str(&file_text).unwrap();
        for rule in rules["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
            // An alert's `for` stands at the alert and nowhere else.
            let annotations = rule["annotations"].as_object().into_iter().flatten();
            // Where it leads is no number of the rule.
            let annotations = annotations.filter(|(name, _)| !name.ends_with("_url")).map(|(_, text)| text);
            for text in annotations.chain([&rule["expr"], &rule["record"]]).filter_map(Value::as_str) {
                // Which quantile is asked for is said by the rule's name, and is no threshold.
                let text = text.replace("histogram_quantile(0.99", "").replace("quantile_over_time(0.5", "");
                let left: Vec<_> = numbers(&text).filter(|number| old.contains(number)).collect();
                assert!(left.is_empty(), "{file} still has {left:?} in {text}");
                assert!(!text.contains("job=\"api\""), "{file}: {text}");
                seen += numbers(&text).count();
            }
        }
    }
    assert!(seen > 500, "only {seen} numbers were looked at");
}

/// The numbers in a text, each with the unit of a duration if it has one. Parts of words are none: `p95`, `2xx`.
fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    // A recorded rule's window is a part of its name.
    let words = words.map(|word| word.trim_end_matches('.')).map(|word| {
        ["rate", "burn_rate", "median", "mean"].iter().find_map(|prefix| word.strip_prefix(prefix)).unwrap_or(word)
    });
    words.filter(|word| {
        let digits = word.trim_end_matches(['s', 'm', 'h', 'd']);
        word.len() - digits.len() <= 1 && !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.')
    })
}

fn the_dashboards_spell_no_number_of_the_configuration() {
    let mut files: Vec<_> = ["grafonnet", "grafonnet/dashboards"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root().join(folder)).unwrap().map(|file| file.unwrap().path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "libsonnet" || extension == "jsonnet"))
        .collect();
    files.sort();
    // Those that mean only one thing: 3 or 10 may also be a width.
    let spelled =
        ["5m", "30m", "3d", "7d", "30d", "0.999", "0.99", "14.4", "0.05", "0.02", "0.8", "10000", "8000", "500"];

    let found: Vec<_> = files
        .iter()
        .flat_map(|path| {
            let text = std::fs::read_to_string(path).unwrap();
            let found = numbers(&text).filter(|number| spelled.contains(number)).map(str::to_owned).collect::<Vec<_>>();
            found.into_iter().map(move |number| format!("{}: {number}", path.display()))
        })
        .collect();

    assert!(files.len() >= 8, "{files:?}");
    assert!(found.is_empty(), "to be taken from {CONFIG}: {found:#?}");
}

async fn the_pages_for_people_repeat_the_numbers_as_they_are([jsonnet]: [PathBuf; 1]) {
    let printed = Command::new(jsonnet).arg(root().join(CONFIG)).output().unwrap();
    let config: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let number = |pointer: &str| config.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer}"));
    // As a person writes them: a share in percent, without digits that a float adds.
    let percent = |share: f64| format!("{} %", (share * 1e8).round() / 1e6);
    let read = |name: &str| {
        let text = std::fs::read_to_string(root().join(name)).unwrap();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let pairs = config["burnRates"].as_array().unwrap();
    let factors: Vec<_> = pairs.iter().map(|pair| pair["factor"].to_string()).collect();
    let (last, first) = factors.split_last().unwrap();
    let (availability, latency) = (number("/objectives/availability"), number("/objectives/latency"));
    let mut expected = vec![
        ("README.md", format!("over {} of the requests of 5 minutes failed", percent(number("/errorRatio/critical")))),
        ("README.md", format!("the P{} is over {} s", number("/alertQuantile") * 100.0, number("/latencyThreshold"))),
        ("README.md", format!("over {} requests are handled at once", number("/requestsInProgress/alert"))),
        ("README.md", format!("over {} times, or below a quarter of", number("/traffic/spike"))),
        ("README.md", format!("availability ({})", percent(availability))),
        ("README.md", format!("latency ({} within {} s)", percent(latency), number("/latencyThreshold"))),
        ("README.md", format!("burns {} or {last} times too fast", first.join(", "))),
        ("docs/runbook.md", format!("at least {} such failures", number("/minFailures"))),
        ("docs/runbook.md", format!("fewer than {} such requests in the window", number("/minFailures"))),
        ("docs/runbook.md", format!("more than {} of a job's requests", percent(number("/errorRatio/critical")))),
    ];
    for pair in pairs {
        let factor = pair["factor"].as_f64().unwrap();
        let row = format!(
            "| {}, {} | {factor} | {} | {} |",
            pair["long"].as_str().unwrap(),
            pair["short"].as_str().unwrap(),
            percent(factor * (1.0 - availability)),
            percent(factor * (1.0 - latency))
        );
        expected.push(("docs/runbook.md", row));
    }
    assert_eq!(number("/traffic/drop"), 0.25, "README.md calls it a quarter");

    let missing: Vec<_> = expected.iter().filter(|(page, words)| !read(page).contains(words)).collect();

    assert!(missing.is_empty(), "other numbers than in {CONFIG}: {missing:#?}");
}

fn the_sample_limit_of_the_alert_is_that_of_every_scrape() {
    let read = |name: &str| std::fs::read_to_string(root().join(name)).unwrap();
    let config = read(CONFIG);
    let limit = config.lines().find_map(|line| line.trim().strip_prefix("sampleLimit: ")).expect("sampleLimit");
    let limit: u64 = limit.trim_end_matches(',').parse().unwrap();

    let mut prometheus: serde_norway::Value = serde_norway::from_str(&read("prometheus/prometheus.yml")).unwrap();
    prometheus.apply_merge().unwrap();

    let jobs = prometheus["scrape_configs"].as_sequence().unwrap();
    assert!(jobs.len() >= 5);
    for job in jobs {
        assert_eq!(
            job["sample_limit"].as_u64(),
            Some(limit),
            "{:?} in prometheus.yml against {CONFIG}",
            job["job_name"]
        );
    }
}
