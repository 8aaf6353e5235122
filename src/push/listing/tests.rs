use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn question(key: GroupingKey, names: &[&str]) -> Question {
    let text = names.iter().fold(String::new(), |text, name| format!("{text}{name} 1\n"));
    Question::new(key, &MetricsText::parse(text.as_bytes()), &["moment".to_owned()])
}

fn backup() -> GroupingKey {
    GroupingKey::new("backup").unwrap().with("path", "/var").unwrap()
}

fn seconds(family: StoredFamily) -> f64 {
    family.pushed.duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

#[test]
fn the_families_that_are_asked_for_are_read_of_their_group() {
    let listing = br#"{"status":"success","data":[
        {"labels":{"job":"backup"},"running":{"time_stamp":"2026-11-22T20:00:00Z","metrics":[{"value":"7"}]}},
        {"cpu":{"time_stamp":"2026-11-22T19:00:00Z","type":"GAUGE","metrics":[
            {"labels":{"mode":"user"},"value":"1"},{"labels":{"mode":"system"},"value":"2"}]},
        "labels":{"job":"backup","path":"/var"},
        "last_push_successful":true,
        "moment":{"time_stamp":"2026-11-22T19:00:00Z","metrics":[{"value":"5e9"}]},
        "other":{"time_stamp":"2026-11-22T19:00:00Z","metrics":[{"value":"3"}]},
        "running":{"time_stamp":"2026-11-22T20:00:00.5+01:00","type":"GAUGE","metrics":[{"labels":{},"value":"1"}]}},
        {"labels":{"time_stamp":"2026-11-22T19:00:00Z","type":"UNTYPED","metrics":[]}}]}"#;

    let group = read(&listing[..], &question(backup(), &["running", "cpu", "absent"])).unwrap().unwrap();

    let family = |name: &str| group.get(name).unwrap_or_else(|| panic!("no {name} in {group:?}"));
    assert_eq!((seconds(family("running")) - seconds(family("cpu")), family("running").value), (0.5, Some(1.0)));
    assert_eq!((family("cpu").value, family("moment").value), (None, Some(5e9)));
    assert!(group.get("other").is_none() && group.get("absent").is_none(), "{group:?}");
    let another = question(GroupingKey::new("another").unwrap(), &["running"]);
    assert!(read(&listing[..], &another).unwrap().is_none());
}

#[test]
fn what_is_no_listing_is_an_error() {
    for (text, reason) in [
        ("", "nothing"),
        ("[]", "no object"),
        ("{}", "no list"),
        (r#"{"data":{}}"#, "no list"),
        (r#"{"data":["#, "no end"),
        (r#"{"data":[]} x"#, "more after its end"),
        ("<html>", "no JSON"),
    ] {
        assert!(read(text.as_bytes(), &question(backup(), &[])).is_err(), "{reason}");
    }
    assert!(read(&br#"{"data":[]}"#[..], &question(backup(), &[])).unwrap().is_none());
}

const NAMES: [&str; 5] = ["a", "b", "labels", "moment", "z"];

/// The group as somebody reads it who has all of the listing before them.
fn plainly(listing: &Value, question: &Question) -> Option<BTreeMap<String, StoredFamily>> {
    let is_it = |group: &&Value| {
        let Some(labels) = group["labels"].as_object() else { return false };
        labels.len() == question.key.labels().count() + 1
            && labels.iter().all(|(name, value)| value.as_str().is_some_and(|v| question.key.label(name) == Some(v)))
    };
    let group = listing["data"].as_array().unwrap().iter().find(is_it)?;
    let families = group.as_object().unwrap().iter().filter(|(name, _)| *name != "labels" && question.wants(name));
    let read = families.filter_map(|(name, family)| {
        let pushed = moment(family["time_stamp"].as_str()?)?;
        let value = match family["metrics"].as_array().map(Vec::as_slice) {
            Some([one]) => one["value"].as_str().and_then(|value| value.parse().ok()),
            _ => None,
        };
        Some((name.clone(), StoredFamily { pushed, value }))
    });
    Some(read.collect())
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z\"\\\\\u{0}-\u{1f}é👩]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-c]|labels|value|metrics|time_stamp", inner, 0..3)
                .prop_map(|object| Value::Object(object.into_iter().collect())),
        ]
    })
}

fn any_family() -> impl Strategy<Value = Value> {
    let stamp = prop_oneof![
        4 => (0..60_u32).prop_map(|second| json!(format!("2026-11-22T19:00:{second:02}.25Z"))),
        1 => any_value(),
    ];
    let sample = prop_oneof![
        4 => any::<i32>().prop_map(|value| json!({"labels": {"a": "b"}, "value": value.to_string()})),
        1 => any_value(),
    ];
    let family = (stamp, prop::collection::vec(sample, 0..3))
        .prop_map(|(stamp, metrics)| json!({"help": "x", "time_stamp": stamp, "type": "GAUGE", "metrics": metrics}));
    prop_oneof![4 => family, 1 => any_value()]
}

fn any_group() -> impl Strategy<Value = Value> {
    let labels = prop_oneof![
        3 => Just(json!({"job": "backup", "path": "/var"})),
        1 => Just(json!({"job": "backup", "path": "/tmp"})),
        1 => Just(json!({"job": "backup"})),
        1 => Just(json!({"job": "backup", "path": "/var", "more": ""})),
        1 => any_value(),
    ];
    let families = prop::collection::btree_map(prop::sample::select(&NAMES[..]), any_family(), 0..5);
    (labels, families).prop_map(|(labels, families)| {
        let mut group: serde_json::Map<_, _> = families.into_iter().map(|(name, f)| (name.to_owned(), f)).collect();
        group.entry("labels").or_insert(labels);
        Value::Object(group)
    })
}

proptest! {
    #[test]
    fn a_listing_gives_the_same_group_as_a_plain_reading(
        groups in prop::collection::vec(any_group(), 0..4),
        indented in any::<bool>(),
    ) {
        let listing = json!({"status": "success", "data": groups});
        let text = if indented { serde_json::to_string_pretty(&listing) } else { serde_json::to_string(&listing) };
        let question = question(backup(), &["a", "b", "c"]);

        let group = read(text.unwrap().as_bytes(), &question).unwrap();

        let expected = plainly(&listing, &question);
        prop_assert_eq!(group.is_some(), expected.is_some());
        let expected = expected.unwrap_or_default();
        for name in NAMES {
            let found = group.as_ref().and_then(|group| group.get(name));
            prop_assert_eq!(found, expected.get(name).copied(), "{}", name);
        }
    }

    #[test]
    fn whatever_is_answered_is_read_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        value in any_value(),
        cut in any::<prop::sample::Index>(),
    ) {
        let question = question(backup(), &["a"]);
        let text = json!({"data": [value.clone(), value]}).to_string();

        let _ = read(&bytes[..], &question);
        let _ = read(&text.as_bytes()[..cut.index(text.len())], &question);
        prop_assert!(read(text.as_bytes(), &question).is_ok());
    }
}
