//! Metrics of the command's own: what of them is pushed, and what is said of the rest.

use crate::gateway::{Gateway, Ran, Reply, backup, run, run_with};
use crate::support::{BINARY, Process};

/// Runs a script against a gateway that takes everything; gives what it pushed of its own, and what the wrapper said
/// with `PATH` in the place of the file's path.
async fn own(script: &str) -> (Option<String>, Vec<String>) {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let ran = run(&gateway.url(), &[], &format!("{script}\necho \"$JOB_METRICS_FILE\"; exit 3")).await;
    assert_eq!(ran.code, Some(3), "{ran:?}");
    pushed(&gateway, &ran, ran.stdout.trim_end())
}

fn pushed(gateway: &Gateway, ran: &Ran, path: &str) -> (Option<String>, Vec<String>) {
    let mut pushes = gateway.requests().into_iter();
    let outcome = pushes.next().expect("the outcome is pushed, whatever the file holds");
    assert_eq!(outcome.samples().value("batch_job_last_exit_code", &[]), f64::from(ran.code.unwrap()));
    let own = pushes.next().map(|push| push.body);
    assert_eq!(pushes.len(), 0);
    (own, ran.said().iter().map(|line| line.replace(path, "PATH")).collect())
}

/// A script that writes this text.
fn writes(text: &str) -> String {
    format!("cat > \"$JOB_METRICS_FILE\" <<'EOF'\n{text}EOF")
}

const REST: &str = "what these lines are about is not pushed; everything else is";

#[tokio::test]
async fn what_the_command_writes_is_pushed_after_the_outcome() {
    let text = "# HELP rows Rows that were saved.\n# TYPE rows gauge\nrows{table=\"a \\\"b\\\"\\\\\\n\"} 12\nrows{table=\"\"} 0.5\n";

    let (own, said) = own(&writes(text)).await;

    assert_eq!(own.as_deref(), Some(text));
    assert_eq!(said, [""; 0]);
}

#[tokio::test]
async fn nothing_written_is_nothing_pushed_and_nothing_said() {
    for script in ["true", ": > \"$JOB_METRICS_FILE\"", "rm \"$JOB_METRICS_FILE\"", &writes("# only a comment\n\n")] {
        assert_eq!(own(script).await, (None, vec![]), "{script}");
    }
}

#[tokio::test]
async fn a_file_that_is_moved_into_place_is_read() {
    let script = "echo 'rows 5' > \"$JOB_METRICS_FILE.new\"; mv \"$JOB_METRICS_FILE.new\" \"$JOB_METRICS_FILE\"";

    let (own, _) = own(script).await;

    assert_eq!(own.as_deref(), Some("rows 5\n"));
}

#[tokio::test]
async fn not_a_number_and_the_infinities_are_values() {
    let (own, said) = own(&writes("a NaN\nb +Inf\nc -Inf\nd 1e300\n")).await;

    assert_eq!(own.as_deref(), Some("a NaN\nb +Inf\nc -Inf\nd 1e300\n"));
    assert_eq!(said, [""; 0]);
}

#[tokio::test]
async fn broken_lines_are_said_with_their_numbers_and_the_rest_is_pushed() {
    let (own, said) = own(&writes("good 1\nrows one\n\n{\nlost{a=\"b\" 1\nalso_good 2\n")).await;

    assert_eq!(own.as_deref(), Some("good 1\nalso_good 2\n"));
    assert_eq!(
        said,
        [
            "PATH, line 2: rows has the value \"one\", expected a number",
            "PATH, line 4: expected a metric name",
            "PATH, line 5: the labels of lost do not end after a",
            REST
        ]
    );
}

#[tokio::test]
async fn a_faulty_line_costs_its_own_family_whole() {
    let histogram = "# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum x\nh_count 2\n";

    let (own, said) = own(&writes(&format!("{histogram}good 1\n"))).await;

    assert_eq!(own.as_deref(), Some("good 1\n"), "half a histogram would be a wrong answer");
    assert_eq!(said, ["PATH, line 4: h_sum has the value \"x\", expected a number", REST]);
}

#[tokio::test]
async fn families_that_clash_or_contradict_themselves_are_said_by_line_and_the_rest_is_pushed() {
    let cases = [
        (
            "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n# TYPE a_sum gauge\na_sum 5\n",
            "PATH, line 5: a_sum is a part of the histogram a, not a family",
            "# TYPE a histogram\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
        ),
        (
            "a_count 5\n# TYPE a summary\na_sum 1\n",
            "PATH, line 2: a cannot be a summary beside a_count, which would be a part of it",
            "a_count 5\n",
        ),
        (
            "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_bucket{le=\"+Inf\"} 1\na_sum 1\na_count 1\n",
            "PATH, line 3: a_bucket falls from 2 to 1; each bucket counts the lower ones too",
            "",
        ),
        (
            "# TYPE a histogram\na_bucket{le=\"1\"} 2\na_sum 1\na_count 2\n",
            "PATH, line 2: the histogram a has no a_bucket with le=\"+Inf\"",
            "",
        ),
    ];
    for (text, fault, kept) in cases {
        let (own, said) = own(&writes(&format!("{text}good 1\n"))).await;

        assert_eq!(own.unwrap(), format!("{kept}good 1\n"), "{text:?}");
        assert_eq!(said, [fault, REST], "{text:?}");
    }
}

#[tokio::test]
async fn the_file_is_read_when_the_outcome_is_delivered() {
    let gateway = Gateway::answering([Reply::with("503 Busy", &[("Retry-After", "1")], ""), Reply::ok()]).await;
    let folder = tempfile::tempdir().unwrap();
    let (url, file) = (gateway.url(), folder.path().join("mine"));
    let options = ["--no-start-push", "--pushgateway-url", &url, "--metrics-file", "mine", "--push-deadline", "59m"];
    let mut job = Process::spawn(backup(folder.path(), &options, "echo 'rows 5' > mine"));

    // The outcome waits for the gateway. A file that takes the wrapper down with it is one of this moment.
    gateway.request(1).await;
    std::fs::write(file, "rows 6 of the moment after\nlate 6\n").unwrap();

    assert_eq!(job.exit().await.code(), Some(0));
    assert_eq!(gateway.request(3).await.body, "late 6\n");
}

#[tokio::test]
async fn a_timestamp_is_refused_as_the_gateway_would_and_the_reason_is_said() {
    let (own, said) = own(&writes("old 1 1700000000000\nnew 1\n")).await;

    assert_eq!(own.as_deref(), Some("new 1\n"));
    assert_eq!(said, ["PATH, line 1: old has a timestamp, which the Pushgateway refuses", REST]);
}

#[tokio::test]
async fn types_that_come_twice_or_contradict_each_other_are_refused() {
    let cases = [
        ("# TYPE a gauge\n# TYPE a gauge\na 1\n", "PATH, line 2: a second # TYPE of a"),
        ("# TYPE a gauge\n# TYPE a counter\na 1\n", "PATH, line 2: a second # TYPE of a"),
        ("# TYPE a gauge\na 1\n# TYPE a counter\na{b=\"c\"} 1\n", "PATH, line 3: a second # TYPE of a"),
        ("a 1\n# TYPE a counter\n", "PATH, line 2: the # TYPE of a comes after its first sample"),
        ("# TYPE a countdown\na 1\n", "PATH, line 1: a has the unknown type \"countdown\""),
        ("# TYPE a histogram\na 1\n", "PATH, line 2: the histogram a has only _bucket, _sum and _count"),
        ("a{b=\"c\"} 1\na{b=\"c\"} 2\n", "PATH, line 2: a comes twice with the same labels"),
    ];
    for (text, fault) in cases {
        let (own, said) = own(&writes(&format!("{text}good 1\n"))).await;

        assert_eq!(own.as_deref(), Some("good 1\n"), "{text:?}");
        assert_eq!(said, [fault, REST], "{text:?}");
    }
}

#[tokio::test]
async fn names_that_are_not_the_commands_to_give_are_refused() {
    let text = "batch_job_last_exit_code 0\nbatch_job_mine 1\npush_time_seconds 1\npush_failure_time_seconds 1\n\
         up{job=\"api\"} 1\nALERTS 1\nALERTS_FOR_STATE 1\nscrape_duration_seconds 1\nscrape_mine 1\ngood 1\n";

    let (own, said) = own(&writes(text)).await;

    assert_eq!(own.as_deref(), Some("good 1\n"));
    let taken = |line, name| format!("PATH, line {line}: the name {name} is taken");
    let expected = [
        taken(1, "batch_job_last_exit_code"),
        taken(2, "batch_job_mine"),
        taken(3, "push_time_seconds"),
        taken(4, "push_failure_time_seconds"),
        taken(5, "up"),
        taken(6, "ALERTS"),
        taken(7, "ALERTS_FOR_STATE"),
        taken(8, "scrape_duration_seconds"),
        taken(9, "scrape_mine"),
        REST.to_owned(),
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn labels_of_the_grouping_are_refused() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let script = writes("a{zone=\"x\"} 1\nb{job=\"x\"} 1\nc{instance=\"x\"} 1\n");

    let ran = run(&gateway.url(), &["--push-grouping", "zone=y"], &script).await;

    let own = gateway.request(2).await;
    assert_eq!(own.families(), ["c"]);
    let [zone, job, _] = ran.said()[..] else { panic!("{ran:?}") };
    assert!(zone.ends_with("line 1: a has the label zone, which is part of the grouping key"), "{zone}");
    assert!(job.ends_with("line 2: b has the label job, which is part of the grouping key"), "{job}");
}

#[tokio::test]
async fn a_last_line_that_may_be_cut_off_is_not_pushed() {
    let (own, said) = own("printf 'good 1\\nrows 12' > \"$JOB_METRICS_FILE\"").await;

    assert_eq!(own.as_deref(), Some("good 1\n"));
    assert_eq!(said, ["PATH, line 2: the last line has no end; it may be cut off", REST]);
}

#[tokio::test]
async fn bytes_that_are_no_text_are_said_and_do_not_reach_the_terminal() {
    let noise = "printf 'good 1\\n\\377\\376 1\\n\\033[31mred 1\\nrows \\033[2J\\n' > \"$JOB_METRICS_FILE\"";

    let (own, said) = own(noise).await;

    assert_eq!(own.as_deref(), Some("good 1\n"));
    let [not_text, no_name, no_value, _] = &said[..] else { panic!("{said:?}") };
    assert_eq!(not_text, "PATH, line 2: the line is not UTF-8");
    assert_eq!(no_name, "PATH, line 3: expected a metric name");
    assert_eq!(no_value, "PATH, line 4: rows has the value \"\\u{1b}[2J\", expected a number");
}

#[tokio::test]
async fn many_faults_are_counted_and_not_listed() {
    let (_, said) = own("yes '?' | head -n 1000 > \"$JOB_METRICS_FILE\"").await;

    assert_eq!(said.len(), 12, "{said:?}");
    assert_eq!(said[9..], ["PATH, line 10: expected a metric name", "PATH, and 990 faults more", REST]);
}

#[tokio::test]
async fn a_large_file_is_pushed_and_one_that_is_far_too_large_is_not_read() {
    let lines = "i=0; while [ $i -lt 20000 ]; do echo \"rows{table=\\\"users_$i\\\"} $i\"; i=$((i + 1)); done";

    let (large, _) = own(&format!("{{ {lines}; }} > \"$JOB_METRICS_FILE\"")).await;
    let (nothing, said) = own("yes 'rows 5' | head -c 104857600 > \"$JOB_METRICS_FILE\"").await;

    assert_eq!(large.unwrap().lines().count(), 20_000);
    assert_eq!(nothing, None);
    assert_eq!(said, ["the metrics file PATH is 104857600 bytes long, and at most 4194304 are read"]);
}

#[tokio::test]
async fn what_is_no_file_is_not_read() {
    for command in ["mkfifo", "mkdir", "ln -s /dev/zero"] {
        let (own, said) = own(&format!("rm \"$JOB_METRICS_FILE\"; {command} \"$JOB_METRICS_FILE\"")).await;

        assert_eq!(own, None, "{command}");
        assert_eq!(said, ["the metrics file PATH is no regular file"], "{command}");
    }
}

#[tokio::test]
async fn a_file_that_was_named_is_the_one_that_the_command_is_told() {
    let by_flag: (&[&str], &[(&str, &str)]) = (&["--metrics-file", "mine"], &[]);
    let by_variable: (&[&str], &[(&str, &str)]) = (&[], &[("JOB_METRICS_FILE", "mine")]);
    for (options, environment) in [by_flag, by_variable] {
        let gateway = Gateway::answering([Reply::ok()]).await;

        let ran = run_with(&gateway.url(), options, environment, "echo 'rows 5' > \"$JOB_METRICS_FILE\"").await;

        assert_eq!(ran.stderr, "");
        assert_eq!(gateway.request(2).await.body, "rows 5\n");
        let kept = std::fs::read_to_string(ran.folder.path().join("mine")).unwrap();
        assert_eq!(kept, "rows 5\n", "it is the caller's, and stays");
    }
}

#[tokio::test]
async fn a_job_within_a_job_has_a_file_of_its_own() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let inside = "sh -c 'echo inside 1 > \"$JOB_METRICS_FILE\"'";
    let script = format!(
        "echo outside 1 > \"$JOB_METRICS_FILE\"
         {BINARY} job --name inner --no-start-push --pushgateway-url {} -- {inside}",
        gateway.url()
    );

    let ran = run(&gateway.url(), &[], &script).await;

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    let requests = gateway.requests();
    let own = requests.iter().map(|push| (push.path.as_str(), push.families()));
    let own: Vec<_> = own.filter(|(_, families)| !families.contains(&"batch_job_running")).collect();
    let expected = [("/metrics/job/inner", vec!["inside"]), ("/metrics/job/backup", vec!["outside"])];
    assert_eq!(own, expected);
}

#[tokio::test]
async fn a_named_file_that_this_run_did_not_write_is_said_and_not_pushed() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let stale = tempfile::tempdir().unwrap();
    let stale = stale.path().join("stale");
    std::fs::write(&stale, "rows 5\n").unwrap();
    for path in [stale.to_str().unwrap(), "never/written"] {
        let ran = run(&gateway.url(), &["--metrics-file", path], "true").await;

        let [said] = ran.said()[..] else { panic!("{ran:?}") };
        let unwritten = format!("{path} was not written by this run, and is not pushed");
        assert!(said.starts_with("the metrics file /") && said.ends_with(&unwritten), "{said}");
        assert_eq!(ran.code, Some(0));
    }
    assert!(gateway.requests().iter().all(|push| push.families().contains(&"batch_job_running")));
}

#[tokio::test]
async fn a_named_file_that_is_no_file_is_said() {
    let gateway = Gateway::answering([Reply::ok()]).await;

    let ran = run(&gateway.url(), &["--metrics-file", "/"], "true").await;

    assert_eq!((ran.code, ran.said()), (Some(0), vec!["the metrics file / is no regular file"]));
}

#[tokio::test]
async fn the_outcome_is_pushed_also_when_the_gateway_refuses_the_commands_own() {
    let refusal = Reply::with("400 Bad Request", &[], "pushed metrics are invalid or inconsistent\n");
    let gateway = Gateway::answering([Reply::ok(), refusal]).await;

    let ran = run(&gateway.url(), &["--spool-dir", "spool"], &writes("rows 5\n")).await;

    assert_eq!(ran.code, Some(0));
    let [outcome, own] = &gateway.requests()[..] else { panic!("not two pushes") };
    assert_eq!(outcome.samples().value("batch_job_last_exit_code", &[]), 0.0);
    assert_eq!(own.families(), ["rows"]);
    assert_eq!(
        ran.said(),
        ["what backup says of itself could not be pushed and is lost: the gateway answers 400 Bad Request: \
          pushed metrics are invalid or inconsistent"]
    );
}

#[tokio::test]
async fn a_run_that_failed_pushes_what_it_wrote_all_the_same() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let script = format!("{}\nkill -9 $$", writes("rows 5\n"));

    let ran = run(&gateway.url(), &[], &script).await;

    assert_eq!(ran.code, Some(137));
    assert_eq!(gateway.request(2).await.families(), ["rows"]);
}
