//! `job` with a gateway that is there.

use std::path::PathBuf;

use nix::sys::signal::Signal;

use crate::needs;
use crate::runs::{Jobs, Run, Shown, UNTIL_GO, found, now};
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PUSHGATEWAY, Test};
use crate::support::{Answer, Process, client, in_time};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([PUSHGATEWAY], a_run_is_seen_while_it_runs_and_when_it_has_ended),
        needs!([PUSHGATEWAY], a_start_that_is_not_to_be_pushed_is_not),
        needs!([PUSHGATEWAY], what_is_pushed_about_a_run_is_what_happened),
        needs!([PUSHGATEWAY], a_failed_run_keeps_the_last_success_timestamp),
        needs!([PUSHGATEWAY], however_a_command_ends_its_exit_code_is_pushed),
        needs!([PUSHGATEWAY], a_signal_to_the_wrapper_ends_the_command_and_is_pushed),
        needs!([PUSHGATEWAY], the_expected_interval_is_pushed_in_seconds),
        needs!([PUSHGATEWAY], labels_of_the_grouping_make_groups_of_their_own),
        needs!([PUSHGATEWAY], metrics_of_the_commands_own_are_pushed_with_the_rest),
        needs!([PUSHGATEWAY], a_faulty_line_of_the_commands_own_costs_its_family_and_nothing_else),
        needs!([PUSHGATEWAY], own_metrics_that_the_gateway_refuses_cost_neither_the_outcome_nor_the_exit_code),
        needs!([PUSHGATEWAY], fifty_jobs_at_once_all_arrive),
        needs!([PUSHGATEWAY], the_run_after_one_that_was_killed_without_notice_puts_things_right),
    ]
}

async fn a_run_is_seen_while_it_runs_and_when_it_has_ended([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    let before = now();
    let job = tokio::spawn(Run::of(jobs.job("backup", &[], UNTIL_GO)));

    let during = Shown::running(&gateway, "backup").await;
    assert!((before..=now()).contains(&during.start.unwrap()), "{during:?}");
    assert_eq!((during.end, during.exit_code, during.success), (None, None, None));

    jobs.write("go", "");
    in_time("the job", job).await.unwrap().ended_quietly_with(0);
    let after = Shown::of(&gateway, "backup").await;
    assert_eq!((after.running, after.start), (Some(0.0), during.start));
    assert_eq!((after.exit_code, after.success), (Some(0.0), after.end));
    assert!(after.end.is_some(), "{after:?}");
}

async fn a_start_that_is_not_to_be_pushed_is_not([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));

    let mut job = Process::spawn(jobs.job("told", &[], UNTIL_GO));
    Shown::running(&gateway, "told").await;
    jobs.write("go", "");
    assert_eq!(job.exit().await.code(), Some(0));
    assert_eq!(gateway.pushes("post").await, 2.0, "one at the start, one at the end");

    // This one lasts until a job that started later has been seen to run: long enough to be seen itself.
    let untold = format!("rm go; touch untold; {UNTIL_GO}");
    let mut untold = Process::spawn(jobs.job("untold", &["--no-start-push"], &untold));
    jobs.written("untold").await;
    let mut witness = Process::spawn(jobs.job("witness", &[], UNTIL_GO));
    Shown::running(&gateway, "witness").await;
    assert_eq!(Shown::of(&gateway, "untold").await.start, None);
    jobs.write("go", "");
    assert_eq!((untold.exit().await.code(), witness.exit().await.code()), (Some(0), Some(0)));

    assert_eq!(gateway.pushes("post").await, 5.0, "of the three more, two are the witness's");
    assert_eq!(Shown::of(&gateway, "untold").await.running, Some(0.0));
}

async fn what_is_pushed_about_a_run_is_what_happened([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    // A busy loop, 64 MiB at once, and a while of doing nothing.
    let script = "i=0; while [ $i -lt 500000 ]; do i=$((i+1)); done; \
                  dd if=/dev/zero of=/dev/null bs=64M count=1 2>dd; times >times; sleep 0.3; exit 7";
    let before = now();

    jobs.run("busy", &[], script).await.ended_quietly_with(7);

    let after = now();
    let Shown {
        start: Some(start),
        end: Some(end),
        success: None,
        duration: Some(duration),
        exit_code: Some(7.0),
        running: Some(0.0),
        user_cpu: Some(user),
        system_cpu: Some(system),
        memory: Some(memory),
        expected_interval: None,
    } = Shown::of(&gateway, "busy").await
    else {
        panic!("{:?}", Shown::of(&gateway, "busy").await)
    };
    assert!(before <= start && start <= end && end <= after, "{before} {start} {end} {after}");
    assert!((duration - (end - start)).abs() < 1.0, "{duration} s, from {start} to {end}");
    assert!(duration >= 0.3, "{duration}");
    let told = shell_times(&std::fs::read_to_string(jobs.path("times")).unwrap());
    for (pushed, told) in [user, system].into_iter().zip(told) {
        assert!((told - 0.02..told + 0.3).contains(&pushed), "pushed user {user} s, system {system} s; {told:?}");
    }
    assert!(user > 0.05, "the loop was busy: {user} s");
    let mib = memory / 1024.0 / 1024.0;
    assert!((64.0..100.0).contains(&mib), "{mib} MiB");
}

/// User and system time in the two lines of the shell's `times`, one for itself and one for its children: `0m0.25s 0m1s`.
fn shell_times(text: &str) -> [f64; 2] {
    let seconds = |time: &str| {
        let (minutes, seconds) = time.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let times: Vec<_> = text.split_whitespace().map(seconds).collect();
    [times[0] + times[2], times[1] + times[3]]
}

async fn a_failed_run_keeps_the_last_success_timestamp([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));

    jobs.run("backup", &[], "exit 0").await.ended_quietly_with(0);
    let first = Shown::of(&gateway, "backup").await;
    jobs.run("backup", &[], "exit 3").await.ended_quietly_with(3);
    let second = Shown::of(&gateway, "backup").await;

    assert_eq!((first.exit_code, second.exit_code), (Some(0.0), Some(3.0)));
    assert_eq!((first.success, second.success), (first.end, first.end));
    assert!(second.end > first.end, "{second:?}");
}

async fn however_a_command_ends_its_exit_code_is_pushed([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    jobs.write("not-executable", "");
    let ignoring = ["--timeout", "200ms", "--kill-after", "100ms"];
    let cases: &[(&str, &[&str], &[&str], i32)] = &[
        ("it succeeds", &[], &["true"], 0),
        ("it fails", &[], &["sh", "-c", "exit 255"], 255),
        ("a signal ends it", &[], &["sh", "-c", "kill -9 $$"], 137),
        ("it is not there", &[], &["./nowhere"], 127),
        ("it cannot be executed", &[], &["./not-executable"], 126),
        ("it takes too long", &["--timeout", "200ms"], &["sleep", "600"], 124),
        ("it takes too long and does not listen", &ignoring, &["sh", "-c", "trap '' TERM; sleep 600"], 124),
    ];
    for (name, flags, command, code) in cases {
        let mut job = jobs.command("job", &["--name", name]);
        job.args(*flags).arg("--").args(*command);

        let run = Run::of(job).await;

        assert_eq!(run.code, Some(*code), "{name}: {run:?}");
        let shown = Shown::of(&gateway, name).await;
        assert_eq!((shown.exit_code, shown.running), (Some(f64::from(*code)), Some(0.0)), "{name}");
        assert_eq!(shown.success, shown.end.filter(|_| *code == 0), "{name}: only 0 is a success");
        assert!(shown.start <= shown.end && shown.start.is_some(), "{name}: {shown:?}");
        let ran = !matches!(code, 126 | 127);
        assert_eq!(shown.user_cpu.is_some(), ran, "{name}: what did not run used nothing");
        if *code == 124 {
            assert!((0.2..60.0).contains(&shown.duration.unwrap()), "{name}: {shown:?}");
        }
    }
}

async fn a_signal_to_the_wrapper_ends_the_command_and_is_pushed([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    let mut job = Process::spawn(jobs.job("backup", &[], "sleep 600"));
    Shown::running(&gateway, "backup").await;

    job.signal(Signal::SIGTERM);

    assert_eq!(job.exit().await.code(), Some(143));
    let shown = Shown::of(&gateway, "backup").await;
    assert_eq!((shown.exit_code, shown.running, shown.success), (Some(143.0), Some(0.0), None));
}

async fn the_expected_interval_is_pushed_in_seconds([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));

    for (every, seconds) in [("1h", 3600.0), ("90s", 90.0), ("1day 30m", 88200.0), ("1500ms", 1.5)] {
        jobs.run(every, &["--expect-every", every], "true").await.ended_quietly_with(0);

        assert_eq!(Shown::of(&gateway, every).await.expected_interval, Some(seconds), "{every}");
    }

    // It is there from the start on, so that a first run that never ends is missed too.
    let mut job = Process::spawn(jobs.job("first", &["--expect-every", "2h"], UNTIL_GO));
    assert_eq!(Shown::running(&gateway, "first").await.expected_interval, Some(7200.0));
    jobs.write("go", "");
    assert_eq!(job.exit().await.code(), Some(0));
}

async fn labels_of_the_grouping_make_groups_of_their_own([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    let labels = |path| [("job", "backup"), ("note", "a=b, \"c\""), ("path", path)];
    let run = async |path: &str, script| {
        let path = format!("path={path}");
        jobs.run("backup", &["--push-grouping", &path, "--push-grouping", "note=a=b, \"c\""], script).await
    };

    run("/var/lib", "exit 4").await.ended_quietly_with(4);
    run("", "exit 5").await.ended_quietly_with(5);
    let mut from_environment = jobs.job("backup", &[], "exit 6");
    from_environment.env("PUSH_GROUPING", "path=/srv,zone=a");
    Run::of(from_environment).await.ended_quietly_with(6);

    let exit_code = async |labels: &[(&str, &str)]| Shown::in_group(&gateway.group(labels).await).exit_code;
    assert_eq!(exit_code(&labels("/var/lib")).await, Some(4.0));
    assert_eq!(exit_code(&labels("")).await, Some(5.0));
    assert_eq!(exit_code(&[("job", "backup"), ("path", "/srv"), ("zone", "a")]).await, Some(6.0));
    assert_eq!(gateway.groups().await.len(), 3);
}

async fn metrics_of_the_commands_own_are_pushed_with_the_rest([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    let metrics = "# HELP backup_files_total Files \\\\ copied.\n\
                   # TYPE backup_files_total counter\n\
                   backup_files_total{table=\"a b\",path=\"C:\\\\x \\\"y\\\"\"} 12\n\
                   backup_files_total{table=\"\",path=\"\"} 3\n\
                   # TYPE backup_size_bytes histogram\n\
                   backup_size_bytes_bucket{le=\"1\"} 1\n\
                   backup_size_bytes_bucket{le=\"+Inf\"} 2\n\
                   backup_size_bytes_sum 4.5\n\
                   backup_size_bytes_count 2\n\
                   backup_ratio +Inf\n";
    jobs.write("told", metrics);

    jobs.run("by variable", &[], "cp told \"$JOB_METRICS_FILE\"").await.ended_quietly_with(0);
    jobs.run("by name", &["--metrics-file", "own.prom"], "cp told own.prom; exit 3").await.ended_quietly_with(3);

    for (job, exit_code) in [("by variable", 0.0), ("by name", 3.0)] {
        let group = gateway.group(&[("job", job)]).await;
        let value = |name: &str, labels: &[(&str, &str)]| group.value(name, labels);
        assert_eq!(value("backup_files_total", &[("path", "C:\\x \"y\""), ("table", "a b")]), 12.0, "{job}");
        assert_eq!(value("backup_size_bytes_bucket", &[("le", "1")]), 1.0);
        assert_eq!(value("backup_size_bytes_bucket", &[("le", "+Inf")]), 2.0);
        assert_eq!((value("backup_size_bytes_sum", &[]), value("backup_size_bytes_count", &[])), (4.5, 2.0));
        assert_eq!(value("backup_ratio", &[]), f64::INFINITY);
        assert_eq!(group.sum("backup_files_total", &[]), 15.0, "the empty labels' series too");
        assert_eq!(Shown::in_group(&group).exit_code, Some(exit_code));
    }
    let shown = Answer::to(client().get(gateway.url("/metrics"))).await.text();
    let lines: Vec<_> = shown.lines().filter(|line| line.starts_with('#') && line.contains("backup_files")).collect();
    assert_eq!(lines, ["# HELP backup_files_total Files \\\\ copied.", "# TYPE backup_files_total counter"]);
}

async fn a_faulty_line_of_the_commands_own_costs_its_family_and_nothing_else([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    jobs.write("told", "rows 1\nlost{a=\"b\"} 1\nlost 2 1700000000000\nbatch_job_running 5\nmore 3\n");

    let run = jobs.run("backup", &["--metrics-file", "own.prom"], "cp told own.prom").await;

    assert_eq!(run.code, Some(0), "{run:?}");
    let said = run.said.replace(&jobs.path("own.prom").display().to_string(), "own.prom");
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        [
            "api-monitoring: own.prom, line 3: lost has a timestamp, which the Pushgateway refuses",
            "api-monitoring: own.prom, line 4: the name batch_job_running is taken",
            "api-monitoring: what these lines are about is not pushed; everything else is",
        ]
    );
    let group = gateway.group(&[("job", "backup")]).await;
    assert_eq!((group.value("rows", &[]), group.value("more", &[])), (1.0, 3.0));
    assert_eq!((found(&group, "lost", &[]), found(&group, "lost", &[("a", "b")])), (None, None));
    let shown = Shown::in_group(&group);
    assert_eq!((shown.running, shown.exit_code, shown.success), (Some(0.0), Some(0.0), shown.end));
}

async fn own_metrics_that_the_gateway_refuses_cost_neither_the_outcome_nor_the_exit_code([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    let script = "printf '# TYPE rows %s\\nrows 1\\n' $kind > $JOB_METRICS_FILE; exit $code";
    let run = async |job: &str, flags: &[&str], kind: &str, code: &str| {
        let mut command = jobs.job(job, flags, script);
        command.env("kind", kind).env("code", code);
        Run::of(command).await
    };
    run("first", &[], "gauge", "0").await.ended_quietly_with(0);

    let refused = run("second", &["--spool-dir", "spool"], "counter", "0").await;
    let insisting = run("third", &["--fail-on-push-error"], "counter", "0").await;
    let failing = run("fourth", &["--fail-on-push-error"], "counter", "9").await;

    assert_eq!((refused.code, insisting.code, failing.code), (Some(0), Some(125), Some(9)));
    for (job, run) in [("second", &refused), ("third", &insisting), ("fourth", &failing)] {
        let fate = format!(
            "api-monitoring: what {job} says of itself could not be pushed and is lost: \
             the gateway answers 400 Bad Request: "
        );
        assert!(run.said.starts_with(&fate) && run.said.contains("inconsistent"), "{run:?}");
        assert_eq!(run.said.lines().count(), 1, "{run:?}");
        let group = gateway.group(&[("job", job)]).await;
        assert!(Shown::in_group(&group).end.is_some(), "{group}");
        assert_eq!(found(&group, "rows", &[]), None);
    }
    assert_eq!(jobs.waiting().len(), 0, "no later try could succeed");
    assert_eq!(Shown::of(&gateway, "fourth").await.exit_code, Some(9.0));
}

async fn fifty_jobs_at_once_all_arrive([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    let code = |index: usize| i32::try_from(index % 7).unwrap();
    let before = now();

    let runs = (0..50).map(|index| {
        let script = format!("echo rows {index} > $JOB_METRICS_FILE; exit {}", code(index));
        let job = jobs.job(&format!("job {index}"), &["--push-deadline", "60s"], &script);
        (index, tokio::spawn(Run::of(job)))
    });
    for (index, run) in runs.collect::<Vec<_>>() {
        in_time("a job", run).await.unwrap().ended_quietly_with(code(index));
    }

    for index in 0..50 {
        let group = gateway.group(&[("job", &format!("job {index}"))]).await;
        let shown = Shown::in_group(&group);
        assert_eq!((shown.exit_code, shown.running), (Some(f64::from(code(index))), Some(0.0)), "job {index}");
        assert_eq!(shown.success, shown.end.filter(|_| code(index) == 0), "job {index}");
        assert!(before <= shown.start.unwrap() && shown.start <= shown.end && shown.end <= Some(now()), "job {index}");
        assert_eq!(group.value("rows", &[]), index as f64, "job {index}");
    }
    assert_eq!(gateway.groups().await.len(), 50);
}

async fn the_run_after_one_that_was_killed_without_notice_puts_things_right([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    jobs.run("backup", &[], "exit 0").await.ended_quietly_with(0);
    let first = Shown::of(&gateway, "backup").await;
    let mut killed = Process::spawn(jobs.job("backup", &[], &format!("{UNTIL_GO}; touch went-on")));
    let during = Shown::running(&gateway, "backup").await;

    killed.signal(Signal::SIGKILL);
    killed.exit().await;

    // Nobody was left to tell, and the command goes on: it gets to its end on its own.
    assert_eq!(Shown::of(&gateway, "backup").await, during);
    assert_eq!((during.running, during.end, during.success), (Some(1.0), first.end, first.end));
    assert!(during.start > first.start, "{during:?}");
    jobs.write("go", "");
    jobs.written("went-on").await;
    jobs.run("backup", &[], "exit 5").await.ended_quietly_with(5);

    let after = Shown::of(&gateway, "backup").await;
    assert_eq!((after.running, after.exit_code, after.success), (Some(0.0), Some(5.0), first.success));
    assert!(during.start < after.start && after.start <= after.end, "{after:?}");
    assert!(after.duration.unwrap() < after.end.unwrap() - during.start.unwrap(), "of the last run alone: {after:?}");
}
