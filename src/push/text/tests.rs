use proptest::prelude::*;

use super::*;

fn faults(text: &str) -> Vec<String> {
    MetricsText::parse(text.as_bytes()).faults().iter().map(ToString::to_string).collect()
}

fn names(text: &MetricsText) -> Vec<&str> {
    text.families().iter().map(|family| family.name()).collect()
}

#[test]
fn whatever_is_right_comes_out_as_it_was() {
    let text = "# HELP a_rows Rows \\\\ lines\\n.\n# TYPE a_rows gauge\na_rows{t=\"a\\\"b\",u=\"\"} 1.5e3\na_rows NaN\n\
                # TYPE b_seconds histogram\nb_seconds_bucket{le=\"+Inf\"} 2\nb_seconds_sum 3\nb_seconds_count 2\n\
                # TYPE c summary\nc{quantile=\"0.5\"} 1\nc_sum 2\nc_count 3\n\
                # TYPE d untyped\nd +Inf\n";

    let parsed = MetricsText::parse(text.as_bytes());

    assert_eq!(parsed.faults(), []);
    assert_eq!(parsed.to_string(), text);
    assert_eq!(names(&parsed), ["a_rows", "b_seconds", "c", "d"]);
    let sample = first_sample(&parsed);
    assert_eq!((sample.labels["t"].as_str(), sample.value), ("a\"b", 1500.0));
}

#[test]
fn blanks_comments_and_windows_line_ends_do_no_harm() {
    let parsed = MetricsText::parse(b"\r\n  # a comment\n\t rows \t { a = \"x\" , } \t 5 \r\n# EOF\n");

    assert_eq!(parsed.faults(), []);
    assert_eq!(first_sample(&parsed).labels["a"], "x");
}

fn first_sample(text: &MetricsText) -> Sample {
    text.families().iter().next().unwrap().samples().next().unwrap()
}

#[test]
fn families_stay_in_their_order_and_each_in_one_piece() {
    let parsed = MetricsText::parse(b"b 1\n# TYPE a gauge\nb{c=\"d\"} 2\na 3\n# HELP b Late.\nb{c=\"e\"} 4\n");

    let text = "# HELP b Late.\nb 1\nb{c=\"d\"} 2\nb{c=\"e\"} 4\n# TYPE a gauge\na 3\n";
    assert_eq!((parsed.faults(), parsed.to_string().as_str()), (&[][..], text));
}

/// A whole histogram `a` and a whole summary.
const HISTOGRAM: &str = "# TYPE a histogram\na_bucket{le=\"+Inf\"} 2\na_sum 3\na_count 2\n";
const SUMMARY: &str = "# TYPE a summary\na{quantile=\"0.5\"} 1\na_sum 3\na_count 2\n";

#[test]
fn of_two_families_that_cannot_stand_beside_each_other_the_later_one_is_lost() {
    let cases: [(&str, &str, &str); 6] = [
        (
            "a_sum 1\n# TYPE a histogram\na_bucket{le=\"+Inf\"} 2\na_count 2\n",
            "a_sum",
            "line 2: a cannot be a histogram beside a_sum, which would be a part of it",
        ),
        (
            "# TYPE a_count counter\na_count 1\n# TYPE a summary\na_sum 2\n",
            "a_count",
            "line 3: a cannot be a summary beside a_count, which would be a part of it",
        ),
        (
            "a_bucket 1\n# TYPE a histogram\na_sum 3\na_count 2\n",
            "a_bucket",
            "line 2: a cannot be a histogram beside a_bucket, which would be a part of it",
        ),
        (
            &format!("{HISTOGRAM}# TYPE a_sum gauge\na_sum 4\n"),
            "a",
            "line 5: a_sum is a part of the histogram a, not a family",
        ),
        (
            &format!("{SUMMARY}# HELP a_count Something else.\n"),
            "a",
            "line 5: a_count is a part of the summary a, not a family",
        ),
        (
            &format!("{HISTOGRAM}# TYPE a_bucket counter\na_bucket 1\n"),
            "a",
            "line 5: a_bucket is a part of the histogram a, not a family",
        ),
    ];
    for (text, kept, fault) in cases {
        let parsed = MetricsText::parse(text.as_bytes());

        assert_eq!(faults(text), [fault], "{text:?}");
        assert_eq!(names(&parsed), [kept], "{text:?}");
    }
    assert_eq!(faults(&format!("{SUMMARY}# TYPE a_bucket counter\na_bucket 1\n")), [""; 0], "a summary has no buckets");
    assert_eq!(faults("# TYPE a counter\na 1\na_sum 1\na_count 2\na_bucket 3\n"), [""; 0], "nor has a counter parts");
}

#[test]
fn histograms_and_summaries_that_contradict_themselves_are_named_with_their_line() {
    let histogram = |lines: &str| format!("# TYPE h histogram\n{lines}");
    let cases = [
        (
            histogram("h_bucket{le=\"1\"} 5\nh_bucket{le=\"2\"} 3\nh_bucket{le=\"+Inf\"} 5\nh_sum 1\nh_count 5\n"),
            "line 3: h_bucket falls from 5 to 3; each bucket counts the lower ones too",
        ),
        (
            histogram("h_bucket{le=\"+Inf\"} 1\nh_bucket{le=\"1\"} 2\nh_sum 1\nh_count 1\n"),
            "line 2: h_bucket falls from 2 to 1; each bucket counts the lower ones too",
        ),
        (
            histogram("h_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n"),
            "line 2: the histogram h has no h_bucket with le=\"+Inf\"",
        ),
        (histogram("h_sum 1\nh_count 1\n"), "line 2: the histogram h has no h_bucket with le=\"+Inf\""),
        (
            histogram("h_bucket{le=\"+Inf\"} 2\nh_sum 1\nh_count 1\n"),
            "line 4: h_count is 1, and h_bucket with le=\"+Inf\" is 2",
        ),
        (
            histogram("h_bucket{le=\"+Inf\"} 2\nh_count 2\n"),
            "line 2: the histogram h has no h_sum, for which the gateway would show 0",
        ),
        (
            histogram("h_bucket{le=\"+Inf\"} 2\nh_sum 2\n"),
            "line 2: the histogram h has no h_count, for which the gateway would show 0",
        ),
        (
            histogram("h_bucket{le=\"1\"} 1\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 2\nh_count 2\n"),
            "line 3: h_bucket comes twice with the same labels",
        ),
        (
            histogram("h_bucket{le=\"Inf\",a=\"\"} 2\nh_sum 2\nh_count 2\n"),
            "line 3: the parts of the histogram h do not have the same labels: one has an empty one more",
        ),
        (
            histogram(
                "h_bucket{a=\"b\",le=\"+Inf\"} 2\nh_sum{a=\"b\"} 2\nh_count{a=\"b\"} 2\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 0\nh_sum 0\nh_count 0\n",
            ),
            "line 6: h_bucket falls from 1 to 0; each bucket counts the lower ones too",
        ),
        (
            "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns_sum 1\n".to_owned(),
            "line 2: the summary s has no s_count, for which the gateway would show 0",
        ),
        (
            "# TYPE s summary\ns{quantile=\"0.5\"} 1\ns{quantile=\"5e-1\"} 1\ns_sum 1\ns_count 1\n".to_owned(),
            "line 3: s comes twice with the same labels",
        ),
        ("a 1\na{b=\"\"} 2\n".to_owned(), "line 2: a comes twice with the same labels"),
    ];
    for (text, fault) in cases {
        assert!(faults(&text).contains(&fault.to_owned()), "{text:?}: {:?}", faults(&text));
        assert!(MetricsText::parse(text.as_bytes()).families().is_empty(), "{text:?}");
    }
}

#[test]
fn a_long_piece_of_the_text_is_not_repeated_whole() {
    let long = "x".repeat(100_000);
    for text in [
        format!("rows {long}\n"),
        format!("{long}\n"),
        format!("rows{{{long}=1}} 1\n"),
        format!("# TYPE {long} {long}\n"),
    ] {
        let [fault] = &faults(&text)[..] else { panic!("{text:.20}") };
        assert!(fault.contains('…') && fault.len() < 300, "{fault}");
    }
}

#[test]
fn faults_are_counted_and_the_first_are_kept() {
    let text = "up 1\n".to_owned() + &"?\n".repeat(1_000);
    let mut parsed = MetricsText::parse(text.as_bytes());
    assert_eq!((parsed.fault_count(), parsed.faults().len()), (1_000, 100));

    parsed.keep_what_fits(&GroupingKey::new("j").unwrap(), |name| name == "up");

    assert_eq!((parsed.fault_count(), parsed.faults().len()), (1_001, 100));
    assert_eq!(parsed.faults()[..2].iter().map(|fault| fault.line).collect::<Vec<_>>(), [1, 2]);
}

#[test]
fn words_may_stand_apart_and_types_may_be_loud() {
    let parsed = MetricsText::parse(b"#  TYPE \t rows  GAUGE \nrows 1\n# HELP  rows  Rows.\n");

    assert_eq!(parsed.faults(), []);
    assert!(parsed.to_string().contains("# TYPE rows gauge\n"), "{parsed}");
}

#[test]
fn each_fault_is_named_with_its_line() {
    let cases: &[(&str, &str)] = &[
        ("rows 1 1700000000000\n", "line 1: rows has a timestamp, which the Pushgateway refuses"),
        ("ok 1\nrows one\n", "line 2: rows has the value \"one\", expected a number"),
        ("rows\n", "line 1: rows has no value"),
        ("rows 1 2 3\n", "line 1: rows has \"2 3\" after its value"),
        ("rows 1 # EOF\n", "line 1: rows has \"# EOF\" after its value"),
        ("5 rows\n", "line 1: expected a metric name"),
        ("rows-total 5\n", "line 1: rows is followed by '-', expected labels or a value"),
        ("rows 12", "line 1: the last line has no end; it may be cut off"),
        ("rows{a=1} 1\n", "line 1: the value of rows's label a is not quoted"),
        ("rows{a=\"1} 1\n", "line 1: the value of rows's label a is not well quoted"),
        ("rows{a=\"\\t\"} 1\n", "line 1: the value of rows's label a is not well quoted"),
        ("rows{a=\"1\" b=\"2\"} 1\n", "line 1: the labels of rows do not end after a"),
        ("rows{a=\"1\",a=\"2\"} 1\n", "line 1: rows has the label a twice"),
        ("rows{a-b=\"1\"} 1\n", "line 1: rows has the label \"a-b\", which is not a label name"),
        ("rows{__name__=\"x\"} 1\n", "line 1: rows has the label \"__name__\", which is not a label name"),
        ("rows{\n", "line 1: the labels of rows do not end"),
        ("rows{a=\"b\"} 1\nrows{a=\"b\"} 2\n", "line 2: rows comes twice with the same labels"),
        ("# TYPE rows gauge\n# TYPE rows gauge\nrows 1\n", "line 2: a second # TYPE of rows"),
        ("# TYPE rows gauge\n# TYPE rows counter\nrows 1\n", "line 2: a second # TYPE of rows"),
        ("rows 1\n# TYPE rows counter\n", "line 2: the # TYPE of rows comes after its first sample"),
        ("# TYPE rows number\nrows 1\n", "line 1: rows has the unknown type \"number\""),
        ("# TYPE 5 gauge\n", "line 1: # TYPE names \"5\", which is not a metric name"),
        ("# HELP rows a\n# HELP rows b\nrows 1\n", "line 2: a second # HELP of rows"),
        ("# HELP rows a\\t\nrows 1\n", "line 1: the help of rows has an unknown escape sequence"),
        ("# TYPE h histogram\nh 1\n", "line 2: the histogram h has only _bucket, _sum and _count"),
        ("# TYPE h histogram\nh_bucket 1\n", "line 2: h_bucket needs the label le with a number"),
        ("# TYPE h histogram\nh_sum{le=\"1\"} 1\n", "line 2: h_sum must not have the label le"),
        ("# TYPE h histogram\nh_bucket{le=\"NaN\"} 1\n", "line 2: h_bucket needs the label le with a number"),
        ("# TYPE h histogram\nh_count 1e300\n", "line 2: h_count counts 1e300, which is more than 64 bits hold"),
        ("# TYPE s summary\ns_sum{quantile=\"1\"} 1\n", "line 2: s_sum must not have the label quantile"),
        ("# TYPE h histogram\nh_count 1.5\n", "line 2: h_count counts 1.5, which is not a whole number"),
        ("# TYPE h histogram\nh_count NaN\n", "line 2: h_count counts NaN, which is not a whole number"),
        ("# TYPE s summary\ns_count -1\n", "line 2: s_count counts -1, which is not a whole number"),
        ("rows -NaN\n", "line 1: rows has the value \"-NaN\", expected a number"),
        ("rows 1e400\n", "line 1: rows has the value \"1e400\", expected a number"),
        ("# TYPE s summary\ns 1\n", "line 2: s needs the label quantile with a number"),
    ];
    for (text, fault) in cases {
        assert_eq!(faults(text), [*fault], "{text:?}");
    }
    assert_eq!(MetricsText::parse(b"rows{a=\"\xff\"} 1\n").faults()[0].to_string(), "line 1: the line is not UTF-8");
}

#[test]
fn a_fault_costs_its_own_family_and_no_other() {
    let text = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"x\"} 2\nh_count 2\nkept 1\n5\nlost{a=\"b\"} 1\nlost{a=\"c\"} x\n";

    let parsed = MetricsText::parse(text.as_bytes());

    assert_eq!(names(&parsed), ["kept"]);
    assert_eq!(parsed.faults().iter().map(|fault| fault.line).collect::<Vec<_>>(), [3, 6, 8]);
}

#[test]
fn what_cannot_stand_in_the_group_is_taken_out() {
    let key = GroupingKey::new("backup").unwrap().with("zone", "a").unwrap();
    let mut parsed = MetricsText::parse(b"a 1\nb{zone=\"b\"} 1\nc{job=\"x\"} 1\nd 1\n");

    parsed.keep_what_fits(&key, |name| name == "a");

    assert_eq!(names(&parsed), ["d"]);
    let faults: Vec<_> = parsed.faults().iter().map(ToString::to_string).collect();
    assert_eq!(
        faults,
        [
            "line 1: the name a is taken",
            "line 2: b has the label zone, which is part of the grouping key",
            "line 3: c has the label job, which is part of the grouping key"
        ]
    );
}

#[test]
fn clones_and_names_are_of_the_same_families() {
    let parsed = MetricsText::parse(b"b 1\n# HELP a A.\na{c=\"x\\n\"} 2\na 3\n");
    let asked = parsed.names();

    assert_eq!(["a", "b", "c", ""].map(|name| asked.contains(name)), [true, true, false, false]);
    let values: Vec<_> = parsed.families().iter().map(|family| family.sole_value()).collect();
    assert_eq!(values, [Some(1.0), None]);
    let samples: Vec<_> = parsed.families().iter().flat_map(|family| family.samples()).collect();
    assert_eq!((samples[1].labels["c"].as_str(), samples[2].value), ("x\n", 3.0));
}

/// Lines as they are often written, well and badly.
fn any_line() -> impl Strategy<Value = String> {
    let name = "a|b|a_sum|a_count|a_bucket|b_sum";
    let labels = prop_oneof![
        2 => Just(String::new()),
        3 => "\\{le=\"(1|1\\.0|2|\\+Inf|x)\"\\}",
        1 => "\\{quantile=\"(0\\.5|1|NaN)\"\\}",
        2 => "\\{l=\"(|x|\\\\n|é)\"(,m=\"\")?\\}",
    ];
    prop_oneof![
        8 => (name, labels, "0|1|2|3|1\\.5|NaN|-1").prop_map(|(name, labels, value)| format!("{name}{labels} {value}\n")),
        3 => (name, "gauge|counter|untyped|histogram|summary|SUMMARY|x").prop_map(|(name, kind)| format!("# TYPE {name} {kind}\n")),
        1 => (name, "[a-z\\\\n ]{0,5}").prop_map(|(name, help)| format!("# HELP {name} {help}\n")),
        1 => "[ab{}=\",#\\\\ \t\r1é]{0,12}\n?",
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let parsed = MetricsText::parse(&bytes);
        prop_assert!(parsed.faults().is_sorted_by_key(|fault| fault.line));
    }

    #[test]
    fn what_was_read_once_is_read_again_without_a_fault_and_stays_the_same(lines in prop::collection::vec(any_line(), 0..24)) {
        let text = lines.concat();

        let once = MetricsText::parse(text.as_bytes());
        let again = MetricsText::parse(once.as_str().as_bytes());

        prop_assert!(again.faults().is_empty(), "{text:?} became {once}, of which {:?}", again.faults());
        prop_assert_eq!(again.as_str(), once.as_str());
        prop_assert!(once.as_str().len() <= text.len() + 1);
        let samples = |text: &MetricsText| text.families().iter().flat_map(|family| family.samples()).count();
        prop_assert_eq!(samples(&again), samples(&once));
    }
}
