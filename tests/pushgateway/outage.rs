//! `job` with a gateway that is away: nothing is lost, and nothing old overwrites anything newer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};

use crate::needs;
use crate::runs::{Jobs, Run, Shown, TO_THE_SPOOL, UNTIL_GO, WITH_SPOOL, found, gone, now};
use crate::servers::Place;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PUSHGATEWAY, Test};
use crate::support::{Answer, Process, client, eventually, in_time};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([PUSHGATEWAY], a_gateway_that_starts_late_is_still_reached),
        needs!([PUSHGATEWAY], a_gateway_that_ends_during_a_run_and_comes_back_as_it_was_gets_the_outcome_later),
        needs!([PUSHGATEWAY], a_gateway_that_is_killed_during_a_run_and_comes_back_empty_gets_the_outcome_later),
        needs!([PUSHGATEWAY], a_gateway_that_hangs_holds_a_job_up_no_longer_than_the_deadline),
        needs!([PUSHGATEWAY], a_start_that_arrives_after_the_end_is_put_right_by_a_flush),
        needs!([PUSHGATEWAY], a_signal_ends_the_tries_and_the_outcome_waits),
        needs!([PUSHGATEWAY], without_a_spool_what_is_not_delivered_in_time_is_lost_and_said),
        needs!([PUSHGATEWAY], a_push_waits_from_its_first_failure_on_also_when_the_wrapper_is_killed),
        needs!([PUSHGATEWAY], the_next_run_of_another_job_delivers_what_waits),
        needs!([PUSHGATEWAY], a_run_that_waited_overwrites_nothing_of_a_later_one_but_keeps_its_success),
        needs!([PUSHGATEWAY], the_next_run_of_the_same_job_delivers_the_success_of_the_one_before),
        needs!([PUSHGATEWAY], a_run_that_a_later_one_has_made_old_in_everything_is_dropped),
        needs!([PUSHGATEWAY], a_run_that_waited_is_told_while_the_next_one_is_under_way),
        needs!([PUSHGATEWAY], metrics_of_the_commands_own_that_waited_overwrite_no_later_ones),
        needs!([PUSHGATEWAY], what_waited_is_compared_with_its_own_group_and_no_other),
        needs!([PUSHGATEWAY], of_runs_that_waited_the_newest_values_remain),
        needs!([PUSHGATEWAY], a_corrupt_entry_is_set_aside_and_the_others_are_delivered),
        needs!([PUSHGATEWAY], an_entry_that_the_gateway_refuses_is_set_aside_and_the_others_are_delivered),
        needs!([PUSHGATEWAY], what_waits_for_another_gateway_is_left_for_it),
        needs!([PUSHGATEWAY], the_exit_code_of_a_flush_says_whether_anything_is_left),
        needs!([PUSHGATEWAY], a_flush_that_loses_its_gateway_half_way_is_taken_up_by_the_next),
        needs!([PUSHGATEWAY], what_a_run_pushes_during_a_flush_is_not_overwritten),
        needs!([PUSHGATEWAY], a_group_that_cannot_be_read_holds_up_nobody_elses_pushes),
        needs!([PUSHGATEWAY], flushes_at_the_same_time_deliver_each_entry_once),
        needs!([PUSHGATEWAY], twenty_jobs_at_once_share_a_spool),
        needs!([PUSHGATEWAY], a_gateway_under_a_path_gets_what_waited_for_it),
    ]
}

async fn a_gateway_that_starts_late_is_still_reached([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let script = "echo rows 5 > $JOB_METRICS_FILE; echo $$ > pid.new; mv pid.new pid; exit 3";
    let job = tokio::spawn(Run::of(jobs.job("backup", &["--push-deadline", "50s"], script)));

    jobs.written("pid").await;
    gone(pid(&jobs, "pid")).await;
    let gateway = Pushgateway::start_at(&tool, place).await;

    in_time("the job", job).await.unwrap().ended_quietly_with(3);
    let group = gateway.group(&[("job", "backup")]).await;
    let shown = Shown::in_group(&group);
    assert_eq!((shown.exit_code, shown.running), (Some(3.0), Some(0.0)));
    assert!(shown.start.is_some() && shown.start <= shown.end, "{shown:?}");
    assert_eq!(group.value("rows", &[]), 5.0);
}

fn pid(jobs: &Jobs, file: &str) -> Pid {
    Pid::from_raw(std::fs::read_to_string(jobs.path(file)).unwrap().trim().parse().unwrap())
}

/// What the gateway shows before and while a run loses its gateway, and after a flush has delivered what the run left.
async fn before_during_and_after(mut gateway: Pushgateway, away: impl AsyncFnOnce(&mut Pushgateway)) -> [Shown; 3] {
    let jobs = Jobs::at(gateway.url(""));
    jobs.run("backup", &[], "echo rows 1 > $JOB_METRICS_FILE").await.ended_quietly_with(0);
    let before = Shown::of(&gateway, "backup").await;
    let script = format!("{UNTIL_GO}; echo rows 2 > $JOB_METRICS_FILE; exit 3");
    let flags = ["--spool-dir", "spool", "--push-deadline", "5s"];
    let job = tokio::spawn(Run::of(jobs.job("backup", &flags, &script)));
    let during = Shown::running(&gateway, "backup").await;

    away(&mut gateway).await;
    jobs.write("go", "");
    let run = in_time("the job", job).await.unwrap();
    assert_eq!(run.code, Some(3), "{run:?}");
    let said: Vec<_> = run.said.lines().collect();
    let fate = |what| format!("api-monitoring: {what} waits in spool until the gateway takes it");
    let [outcome, own] = said[..] else { panic!("{run:?}") };
    assert!(
        outcome.starts_with(&fate("the outcome of backup")) && own.starts_with(&fate("what backup says of itself")),
        "{run:?}"
    );
    assert_eq!(jobs.waiting().len(), 2);

    let gateway = gateway.restart().await;
    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    assert_eq!(flushed.said, "api-monitoring: delivered 2 pushes that waited in spool\n");
    assert_eq!(jobs.waiting().len(), 0);
    let group = gateway.group(&[("job", "backup")]).await;
    assert_eq!(group.value("rows", &[]), 2.0);
    let after = Shown::in_group(&group);
    assert_eq!((after.running, after.exit_code), (Some(0.0), Some(3.0)));
    assert_eq!(after.start, during.start);
    assert!(after.end > during.start, "{after:?}");
    [before, during, after]
}

async fn a_gateway_that_ends_during_a_run_and_comes_back_as_it_was_gets_the_outcome_later([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;

    let [before, _, after] = before_during_and_after(gateway, async |gateway| gateway.stop().await).await;

    assert_eq!(after.success, before.success);
    assert!(after.success.is_some() && after.success < after.start, "{after:?}");
}

async fn a_gateway_that_is_killed_during_a_run_and_comes_back_empty_gets_the_outcome_later([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;

    let [.., after] = before_during_and_after(gateway, async |gateway| gateway.kill()).await;

    assert_eq!(after.success, None, "it was the gateway's to keep");
}

async fn a_gateway_that_hangs_holds_a_job_up_no_longer_than_the_deadline([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    gateway.signal(Signal::SIGSTOP);
    let began = Instant::now();

    let run = jobs.run("backup", &["--spool-dir", "spool", "--push-deadline", "3s"], "exit 3").await;

    // The push of the start and that of the end have the deadline each; the rest is a busy machine.
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert_eq!(run.code, Some(3), "{run:?}");
    assert_eq!(run.said.lines().count(), 1, "{run:?}");
    assert_eq!(jobs.waiting().len(), 1);

    // It now reads also what nobody waits for any more, in whatever order.
    gateway.signal(Signal::SIGCONT);
    eventually("both pushes", async || (gateway.pushes("post").await == 2.0).then_some(())).await;
    let flushed = jobs.flush().await;
    assert_eq!((flushed.code, jobs.waiting().len()), (Some(0), 0), "{flushed:?}");
    let shown = Shown::of(&gateway, "backup").await;
    assert_eq!((shown.exit_code, shown.running, shown.success), (Some(3.0), Some(0.0), None));
    assert!(shown.start.is_some() && shown.start <= shown.end, "{shown:?}");
}

async fn a_start_that_arrives_after_the_end_is_put_right_by_a_flush([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    jobs.run("backup", TO_THE_SPOOL, "exit 3").await;
    let [entry] = &jobs.waiting()[..] else { panic!("{:?}", jobs.waiting()) };
    let entry: Value = serde_json::from_slice(&std::fs::read(entry).unwrap()).unwrap();
    let outcome = entry["text"].as_str().unwrap().to_owned();
    let gateway = Pushgateway::start_at(&tool, place).await;
    // Tries that were given up may be read by the gateway much later, the one at the start last.
    for text in [outcome, "# TYPE batch_job_running gauge\nbatch_job_running 1\n".to_owned()] {
        assert_eq!(Answer::to(client().post(gateway.url("/metrics/job/backup")).body(text)).await.status, 200);
    }
    let before = Shown::of(&gateway, "backup").await;
    assert_eq!((before.running, before.exit_code), (Some(1.0), Some(3.0)));

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    assert_eq!(Shown::of(&gateway, "backup").await, Shown { running: Some(0.0), ..before });
}

async fn a_signal_ends_the_tries_and_the_outcome_waits([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let script = "echo $$ > pid.new; mv pid.new pid; exit 3";
    let mut job = Process::spawn(jobs.job("backup", &["--spool-dir", "spool", "--push-deadline", "1h"], script));
    jobs.written("pid").await;
    gone(pid(&jobs, "pid")).await;

    job.signal(Signal::SIGTERM);

    assert_eq!(job.exit().await.code(), Some(3));
    let gateway = Pushgateway::start_at(&tool, place).await;
    jobs.flush().await;
    let shown = Shown::of(&gateway, "backup").await;
    assert_eq!((shown.exit_code, shown.running), (Some(3.0), Some(0.0)), "the signal came too late for the command");
}

async fn a_push_waits_from_its_first_failure_on_also_when_the_wrapper_is_killed([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let flags = ["--spool-dir", "spool", "--push-deadline", "1h"];
    let mut job = Process::spawn(jobs.job("backup", &flags, "exit 3"));

    eventually("a push that waits", async || (jobs.waiting().len() == 1).then_some(())).await;
    job.signal(Signal::SIGKILL);
    job.exit().await;

    let gateway = Pushgateway::start_at(&tool, place).await;
    jobs.flush().await;
    assert_eq!(Shown::of(&gateway, "backup").await.exit_code, Some(3.0));
    assert_eq!(jobs.waiting().len(), 0);
}

async fn without_a_spool_what_is_not_delivered_in_time_is_lost_and_said([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let in_vain = ["--push-deadline", "100ms"];
    let insisting = ["--push-deadline", "100ms", "--fail-on-push-error"];

    let succeeding = jobs.run("backup", &in_vain, "exit 0").await;
    let failing = jobs.run("backup", &insisting, "exit 3").await;
    let insisting = jobs.run("backup", &insisting, "exit 0").await;

    assert_eq!((succeeding.code, failing.code, insisting.code), (Some(0), Some(3), Some(125)));
    for run in [succeeding, failing, insisting] {
        let fate = "api-monitoring: the outcome of backup could not be pushed and is lost: ";
        assert!(run.said.starts_with(fate) && run.said.lines().count() == 1, "{run:?}");
    }
    let gateway = Pushgateway::start_at(&tool, place).await;
    jobs.run("another", WITH_SPOOL, "exit 0").await.ended_quietly_with(0);
    assert_eq!(gateway.groups().await.len(), 1);
}

async fn the_next_run_of_another_job_delivers_what_waits([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let waiting = jobs.run("backup", TO_THE_SPOOL, "echo rows 5 > $JOB_METRICS_FILE; exit 3").await;
    assert_eq!((waiting.code, jobs.waiting().len()), (Some(3), 2), "{waiting:?}");
    let between = now();
    let gateway = Pushgateway::start_at(&tool, place).await;

    let delivering = jobs.run("report", WITH_SPOOL, "exit 4").await;

    assert_eq!(delivering.code, Some(4));
    assert_eq!(delivering.said, "api-monitoring: delivered 2 pushes that waited in spool\n");
    assert_eq!(jobs.waiting().len(), 0);
    let group = gateway.group(&[("job", "backup")]).await;
    let shown = Shown::in_group(&group);
    assert_eq!((shown.exit_code, shown.running, group.value("rows", &[])), (Some(3.0), Some(0.0), 5.0));
    assert!(shown.end < Some(between), "it tells when it was, not when it arrived");
    assert_eq!(Shown::of(&gateway, "report").await.exit_code, Some(4.0));
}

async fn a_run_that_waited_overwrites_nothing_of_a_later_one_but_keeps_its_success([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let began = now();
    let succeeding = jobs.run("backup", TO_THE_SPOOL, "exit 0").await;
    assert_eq!((succeeding.code, jobs.waiting().len()), (Some(0), 1), "{succeeding:?}");
    let gateway = Pushgateway::start_at(&tool, place).await;
    jobs.run("backup", &["--expect-every", "1h"], "exit 5").await.ended_quietly_with(5);
    let later = Shown::of(&gateway, "backup").await;
    assert_eq!((later.exit_code, later.success), (Some(5.0), None));

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    let shown = Shown::of(&gateway, "backup").await;
    assert_eq!(shown, Shown { success: shown.success, ..later.clone() });
    assert!((began..later.start.unwrap()).contains(&shown.success.unwrap()), "{shown:?}");
    assert_eq!(jobs.waiting().len(), 0);
}

async fn the_next_run_of_the_same_job_delivers_the_success_of_the_one_before([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let succeeding = jobs.run("backup", TO_THE_SPOOL, "exit 0").await;
    assert_eq!((succeeding.code, jobs.waiting().len()), (Some(0), 1), "{succeeding:?}");
    let gateway = Pushgateway::start_at(&tool, place).await;

    let failing = jobs.run("backup", WITH_SPOOL, "exit 5").await;

    assert_eq!(failing.code, Some(5));
    assert_eq!(failing.said, "api-monitoring: delivered 1 push that waited in spool\n");
    let shown = Shown::of(&gateway, "backup").await;
    assert_eq!((shown.exit_code, shown.running), (Some(5.0), Some(0.0)));
    assert!(shown.success.is_some() && shown.success < shown.start, "{shown:?}");
    assert_eq!(jobs.waiting().len(), 0);
}

async fn a_run_that_a_later_one_has_made_old_in_everything_is_dropped([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let failing = jobs.run("backup", TO_THE_SPOOL, "echo rows 1 > $JOB_METRICS_FILE; exit 5").await;
    assert_eq!((failing.code, jobs.waiting().len()), (Some(5), 2), "{failing:?}");
    let gateway = Pushgateway::start_at(&tool, place).await;
    jobs.run("backup", &[], "echo rows 2 > $JOB_METRICS_FILE").await.ended_quietly_with(0);
    let later = Shown::of(&gateway, "backup").await;
    let pushes = gateway.pushes("post").await;

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    assert_eq!(flushed.said, "api-monitoring: dropped 2 pushes in spool: the gateway has newer values\n");
    assert_eq!(gateway.pushes("post").await, pushes);
    let group = gateway.group(&[("job", "backup")]).await;
    assert_eq!((Shown::in_group(&group), group.value("rows", &[])), (later, 2.0));
    assert_eq!(jobs.waiting().len(), 0);
}

async fn a_run_that_waited_is_told_while_the_next_one_is_under_way([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    jobs.run("backup", TO_THE_SPOOL, "exit 5").await;
    assert_eq!(jobs.waiting().len(), 1);
    let gateway = Pushgateway::start_at(&tool, place).await;
    let job = tokio::spawn(Run::of(jobs.job("backup", &[], UNTIL_GO)));
    let during = Shown::running(&gateway, "backup").await;

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    let shown = Shown::of(&gateway, "backup").await;
    assert_eq!((shown.running, shown.start), (during.running, during.start), "of the run that is under way");
    assert_eq!((shown.exit_code, shown.success), (Some(5.0), None), "of the last one that ended");
    assert!(shown.end.is_some() && shown.end < shown.start, "{shown:?}");
    jobs.write("go", "");
    in_time("the job", job).await.unwrap().ended_quietly_with(0);
    let after = Shown::of(&gateway, "backup").await;
    assert_eq!((after.running, after.exit_code, after.success), (Some(0.0), Some(0.0), after.end));
}

async fn metrics_of_the_commands_own_that_waited_overwrite_no_later_ones([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let waiting = jobs.run("backup", TO_THE_SPOOL, "printf 'rows 1\\nold 7\\n' > $JOB_METRICS_FILE").await;
    assert_eq!((waiting.code, jobs.waiting().len()), (Some(0), 2), "{waiting:?}");
    let gateway = Pushgateway::start_at(&tool, place).await;
    jobs.run("backup", &[], "printf 'rows 2\\nnew 8\\n' > $JOB_METRICS_FILE").await.ended_quietly_with(0);
    let later = Shown::of(&gateway, "backup").await;

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    let group = gateway.group(&[("job", "backup")]).await;
    assert_eq!(group.value("rows", &[]), 2.0);
    assert_eq!(group.value("new", &[]), 8.0);
    assert_eq!(group.value("old", &[]), 7.0, "what the later run did not tell is still the newest there is");
    assert_eq!(Shown::in_group(&group), later);
}

async fn what_waited_is_compared_with_its_own_group_and_no_other([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let own = ["--push-grouping", "path=/var/Łódź", "--push-grouping", "note="];
    let other = ["--push-grouping", "path=/var/Łódź"];
    jobs.run("backup", &[&own, TO_THE_SPOOL].concat(), "exit 3").await;
    jobs.run("backup", TO_THE_SPOOL, "exit 4").await;
    assert_eq!(jobs.waiting().len(), 2);
    let gateway = Pushgateway::start_at(&tool, place).await;
    jobs.run("backup", &own, "exit 5").await.ended_quietly_with(5);
    jobs.run("backup", &other, "exit 6").await.ended_quietly_with(6);
    let groups: [&[(&str, &str)]; 3] = [
        &[("job", "backup"), ("note", ""), ("path", "/var/Łódź")],
        &[("job", "backup"), ("path", "/var/Łódź")],
        &[("job", "backup")],
    ];

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    let said: Vec<_> = flushed.said.lines().collect();
    let dropped = "api-monitoring: dropped 1 push in spool: the gateway has newer values";
    assert_eq!(said, ["api-monitoring: delivered 1 push that waited in spool", dropped]);
    for (labels, exit_code) in groups.into_iter().zip([5.0, 6.0, 4.0]) {
        let shown = Shown::in_group(&gateway.group(labels).await);
        assert_eq!(shown.exit_code, Some(exit_code), "{labels:?}");
    }
}

async fn of_runs_that_waited_the_newest_values_remain([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let run = async |job: &str, metrics: &str, code: i32| {
        let script = format!("printf '{metrics}' > $JOB_METRICS_FILE; exit {code}");
        let run = jobs.run(job, TO_THE_SPOOL, &script).await;
        assert_eq!(run.code, Some(code), "{run:?}");
        now()
    };
    let began = now();
    let first = run("succeeding, then failing", "rows 1\\nfirst 1\\n", 0).await;
    run("succeeding, then failing", "rows 2\\nsecond 2\\n", 5).await;
    run("failing, then succeeding", "rows 3\\n", 6).await;
    let second = run("failing, then succeeding", "rows 4\\n", 0).await;
    assert_eq!(jobs.waiting().len(), 6, "the failure that a success follows says nothing that the success does not");
    let gateway = Pushgateway::start_at(&tool, place).await;

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    assert_eq!(flushed.said, "api-monitoring: delivered 6 pushes that waited in spool\n");
    let group = gateway.group(&[("job", "succeeding, then failing")]).await;
    let shown = Shown::in_group(&group);
    assert_eq!((shown.exit_code, shown.running), (Some(5.0), Some(0.0)));
    assert!((began..first).contains(&shown.success.unwrap()), "{shown:?}");
    assert!(shown.success < shown.start && shown.start <= shown.end, "{shown:?}");
    let own = ["rows", "first", "second"].map(|name| group.value(name, &[]));
    assert_eq!(own, [2.0, 1.0, 2.0]);
    let group = gateway.group(&[("job", "failing, then succeeding")]).await;
    let shown = Shown::in_group(&group);
    assert_eq!((shown.exit_code, shown.running, shown.success), (Some(0.0), Some(0.0), shown.end));
    assert!(shown.end < Some(second), "{shown:?}");
    assert_eq!(group.value("rows", &[]), 4.0);
}

async fn a_corrupt_entry_is_set_aside_and_the_others_are_delivered([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    for (index, job) in ["first", "cut off", "last"].into_iter().enumerate() {
        let run = jobs.run(job, TO_THE_SPOOL, &format!("exit {index}")).await;
        assert_eq!(jobs.waiting().len(), index + 1, "{run:?}");
    }
    let half = |path: &Path| {
        let text = std::fs::read_to_string(path).unwrap();
        std::fs::write(path, &text[..text.len() / 2]).unwrap();
    };
    half(&jobs.waiting()[1]);
    jobs.write("spool/0.json", "not an entry");
    let gateway = Pushgateway::start_at(&tool, place).await;

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(1), "{flushed:?}");
    let said: Vec<_> = flushed.said.lines().collect();
    let [delivered, no_entry, cut_off] = said[..] else { panic!("{flushed:?}") };
    assert_eq!(delivered, "api-monitoring: delivered 2 pushes that waited in spool");
    let set_aside = jobs.set_aside();
    for (line, path) in [no_entry, cut_off].into_iter().zip(&set_aside) {
        let path = Path::new("spool/set-aside").join(path.file_name().unwrap());
        let beginning = format!("api-monitoring: cannot deliver {}: it is not a spooled push: ", path.display());
        assert!(line.starts_with(&beginning), "{flushed:?}");
    }
    assert_eq!((set_aside.len(), jobs.waiting().len()), (2, 0));
    assert_eq!(std::fs::read_to_string(&set_aside[0]).unwrap(), "not an entry", "it is there to be looked at");
    for (job, exit_code) in [("first", Some(0.0)), ("cut off", None), ("last", Some(2.0))] {
        assert_eq!(Shown::of(&gateway, job).await.exit_code, exit_code, "{job}");
    }
    jobs.flush().await.ended_quietly_with(0);
}

async fn an_entry_that_the_gateway_refuses_is_set_aside_and_the_others_are_delivered([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let gauge = "printf '# TYPE rows gauge\\nrows 1\\n' > $JOB_METRICS_FILE";
    jobs.run("gauge", TO_THE_SPOOL, gauge).await;
    jobs.run("last", TO_THE_SPOOL, "echo others 2 > $JOB_METRICS_FILE").await;
    assert_eq!(jobs.waiting().len(), 4);
    let gateway = Pushgateway::start_at(&tool, place).await;
    let counter = client().put(gateway.url("/metrics/job/counter")).body("# TYPE rows counter\nrows 1\n");
    assert_eq!(Answer::to(counter).await.status, 200);

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(1), "{flushed:?}");
    let said: Vec<_> = flushed.said.lines().collect();
    let [delivered, refused] = said[..] else { panic!("{flushed:?}") };
    assert_eq!(delivered, "api-monitoring: delivered 3 pushes that waited in spool");
    assert!(refused.contains("the gateway answers 400") && refused.contains("inconsistent"), "{flushed:?}");
    assert_eq!((jobs.set_aside().len(), jobs.waiting().len()), (1, 0));
    let group = gateway.group(&[("job", "gauge")]).await;
    assert_eq!((found(&group, "rows", &[]), Shown::in_group(&group).exit_code), (None, Some(0.0)));
    let group = gateway.group(&[("job", "last")]).await;
    assert_eq!((found(&group, "others", &[]), Shown::in_group(&group).exit_code), (Some(2.0), Some(0.0)));
    jobs.flush().await.ended_quietly_with(0);
}

async fn what_waits_for_another_gateway_is_left_for_it([tool]: [PathBuf; 1]) {
    let (here, there) = (Place::reserve(), Place::reserve());
    let jobs = Jobs::at(here.url(""));
    let jobs_there = Jobs::at(there.url(""));
    std::os::unix::fs::symlink(jobs.path("spool"), jobs_there.path("spool")).unwrap();
    jobs.run("ours", TO_THE_SPOOL, "exit 3").await;
    jobs_there.run("theirs", TO_THE_SPOOL, "exit 4").await;
    assert_eq!(jobs.waiting().len(), 2);
    let gateway = Pushgateway::start_at(&tool, here).await;

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(1), "not all is delivered: {flushed:?}");
    let said: Vec<_> = flushed.said.lines().collect();
    let left = format!("api-monitoring: left 1 push in spool, made for the gateway {}", there.url("/"));
    assert_eq!(said, ["api-monitoring: delivered 1 push that waited in spool", &left]);
    assert_eq!(jobs.waiting().len(), 1);
    assert_eq!(gateway.groups().await.len(), 1);
    let other = Pushgateway::start_at(&tool, there).await;
    assert_eq!(jobs_there.flush().await.code, Some(0));
    assert_eq!(Shown::of(&other, "theirs").await.exit_code, Some(4.0));
    assert_eq!(other.groups().await.len(), 1);
    assert_eq!(jobs.waiting().len(), 0);
}

async fn the_exit_code_of_a_flush_says_whether_anything_is_left([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let flush =
        async || Run::of(jobs.command("job", &["--flush", "--spool-dir", "spool", "--push-deadline", "1s"])).await;

    flush().await.ended_quietly_with(0);
    jobs.run("backup", TO_THE_SPOOL, "echo rows 1 > $JOB_METRICS_FILE").await;
    let in_vain = flush().await;
    let waiting = jobs.waiting();
    let gateway = Pushgateway::start_at(&tool, place).await;
    let delivering = jobs.flush().await;

    assert_eq!(in_vain.code, Some(1));
    let left = "api-monitoring: left 2 pushes in spool: ";
    assert!(in_vain.said.starts_with(left) && in_vain.said.lines().count() == 1, "{in_vain:?}");
    assert_eq!((waiting.len(), delivering.code), (2, Some(0)));
    assert_eq!(Shown::of(&gateway, "backup").await.exit_code, Some(0.0));
    jobs.flush().await.ended_quietly_with(0);
    std::fs::remove_dir_all(jobs.path("spool")).unwrap();
    jobs.write("spool", "a file");
    let unusable = jobs.flush().await;
    assert_eq!(unusable.code, Some(1));
    assert!(unusable.said.starts_with("api-monitoring: the spool folder spool cannot be created: "), "{unusable:?}");
}

/// Passes connections on to a gateway, and holds one push back.
struct Relay {
    address: String,
    /// Resolves when that push is on its way.
    held: oneshot::Receiver<()>,
    go_on: Arc<Notify>,
}

impl Relay {
    /// Holds back the push after the first `pushes`.
    async fn start(gateway: String, pushes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (hold, held) = oneshot::channel();
        let go_on = Arc::new(Notify::new());
        let notified = Arc::clone(&go_on);
        tokio::spawn(async move {
            let (mut hold, mut left) = (Some(hold), pushes);
            // One connection after the other: there is one client.
            while let Ok((client, _)) = listener.accept().await {
                let Ok(server) = TcpStream::connect(&gateway).await else { continue };
                let (mut from_client, mut to_client) = client.into_split();
                let (mut from_server, mut to_server) = server.into_split();
                let back = tokio::spawn(async move { tokio::io::copy(&mut from_server, &mut to_client).await });
                let mut bytes = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from_client.read(&mut bytes).await {
                    // The client waits for an answer before it sends the next request: each begins with a read.
                    if bytes.starts_with(b"POST ") {
                        if let Some(hold) = hold.take_if(|_| left == 0) {
                            hold.send(()).unwrap();
                            notified.notified().await;
                        }
                        left = left.saturating_sub(1);
                    }
                    if to_server.write_all(&bytes[..length]).await.is_err() {
                        break;
                    }
                }
                back.abort();
            }
        });
        Self { address, held, go_on }
    }
}

async fn a_flush_that_loses_its_gateway_half_way_is_taken_up_by_the_next([tool]: [PathBuf; 1]) {
    let mut gateway = Pushgateway::start(&tool).await;
    let relay = Relay::start(gateway.address.clone(), 2).await;
    let jobs = Jobs::at(format!("http://{}", relay.address));
    // Nothing is behind the relay while these run: they are to wait.
    gateway.stop().await;
    for index in 0..5 {
        let run = jobs.run(&format!("job {index}"), TO_THE_SPOOL, &format!("exit {index}")).await;
        assert_eq!((run.code, jobs.waiting().len()), (Some(index), index as usize + 1), "{run:?}");
    }
    let mut gateway = gateway.restart().await;

    let flush = jobs.command("job", &["--flush", "--spool-dir", "spool", "--push-deadline", "3s"]);
    let flush = tokio::spawn(Run::of(flush));
    in_time("the third push", relay.held).await.unwrap();
    gateway.stop().await;
    relay.go_on.notify_one();
    let flushed = in_time("the flush", flush).await.unwrap();

    assert_eq!(flushed.code, Some(1), "{flushed:?}");
    let said: Vec<_> = flushed.said.lines().collect();
    let [delivered, left] = said[..] else { panic!("{flushed:?}") };
    assert_eq!(delivered, "api-monitoring: delivered 2 pushes that waited in spool");
    assert!(left.starts_with("api-monitoring: left 3 pushes in spool: "), "{flushed:?}");
    assert_eq!(jobs.waiting().len(), 3);
    let gateway = gateway.restart().await;
    let exit_codes = async || {
        let mut exit_codes = Vec::new();
        for index in 0..5 {
            exit_codes.push(Shown::of(&gateway, &format!("job {index}")).await.exit_code);
        }
        exit_codes
    };
    assert_eq!(exit_codes().await, [Some(0.0), Some(1.0), None, None, None], "oldest first");

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    assert_eq!(flushed.said, "api-monitoring: delivered 3 pushes that waited in spool\n");
    assert_eq!(exit_codes().await, [0.0, 1.0, 2.0, 3.0, 4.0].map(Some));
}

async fn what_a_run_pushes_during_a_flush_is_not_overwritten([tool]: [PathBuf; 1]) {
    let mut gateway = Pushgateway::start(&tool).await;
    let relay = Relay::start(gateway.address.clone(), 0).await;
    let jobs = Jobs::at(format!("http://{}", relay.address));
    // Nothing is behind the relay while these run: they are to wait.
    gateway.stop().await;
    jobs.run("first", TO_THE_SPOOL, "exit 0").await;
    jobs.run("second", TO_THE_SPOOL, "exit 0").await;
    assert_eq!(jobs.waiting().len(), 2);
    let gateway = gateway.restart().await;

    let flush = tokio::spawn(Run::of(jobs.command("job", &["--flush", "--spool-dir", "spool"])));
    in_time("the first push", relay.held).await.unwrap();
    Jobs::at(gateway.url("")).run("second", &[], "exit 5").await.ended_quietly_with(5);
    let later = Shown::of(&gateway, "second").await;
    relay.go_on.notify_one();
    let flushed = in_time("the flush", flush).await.unwrap();

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    let shown = Shown::of(&gateway, "second").await;
    assert_eq!(shown, Shown { success: shown.success, ..later.clone() });
    assert!(shown.success.is_some() && shown.success < later.start, "{shown:?}");
    assert_eq!(Shown::of(&gateway, "first").await.exit_code, Some(0.0));
}

async fn a_group_that_cannot_be_read_holds_up_nobody_elses_pushes([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    jobs.run("backup", TO_THE_SPOOL, "exit 3").await;
    assert_eq!(jobs.waiting().len(), 1);
    let gateway = Pushgateway::start_at(&tool, place).await;
    // In the gateway's listing, families stand beside the group's labels: these take their place.
    let names = "labels 1\nlast_push_successful 1\n";
    assert_eq!(Answer::to(client().put(gateway.url("/metrics/job/other")).body(names)).await.status, 200);

    let flushed = jobs.flush().await;

    assert_eq!((flushed.code, jobs.waiting().len()), (Some(0), 0), "{flushed:?}");
    assert_eq!(Shown::of(&gateway, "backup").await.exit_code, Some(3.0));
}

async fn flushes_at_the_same_time_deliver_each_entry_once([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    for index in 0..5 {
        jobs.run(&format!("job {index}"), TO_THE_SPOOL, "echo rows 1 > $JOB_METRICS_FILE").await;
    }
    assert_eq!(jobs.waiting().len(), 10);
    let gateway = Pushgateway::start_at(&tool, place).await;

    let flushes: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(Run::of(jobs.command("job", &["--flush", "--spool-dir", "spool", "--push-deadline", "60s"])))
        })
        .collect();
    for flush in flushes {
        let flushed = in_time("a flush", flush).await.unwrap();
        assert_eq!(flushed.code, Some(0), "{flushed:?}");
    }

    assert_eq!(gateway.pushes("post").await, 10.0);
    assert_eq!((gateway.groups().await.len(), jobs.waiting().len()), (5, 0));
}

async fn twenty_jobs_at_once_share_a_spool([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let runs = (0..20).map(|index| {
        let script = format!("echo rows {index} > $JOB_METRICS_FILE; exit {}", index % 3);
        (index, tokio::spawn(Run::of(jobs.job(&format!("job {index}"), TO_THE_SPOOL, &script))))
    });
    for (index, run) in runs.collect::<Vec<_>>() {
        let run = in_time("a job", run).await.unwrap();
        assert_eq!((run.code, run.said.lines().count()), (Some(index % 3), 2), "{run:?}");
    }
    assert_eq!(jobs.waiting().len(), 40);
    let ended = now();
    let gateway = Pushgateway::start_at(&tool, place).await;

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    assert_eq!(flushed.said, "api-monitoring: delivered 40 pushes that waited in spool\n");
    for index in 0..20 {
        let group = gateway.group(&[("job", &format!("job {index}"))]).await;
        let shown = Shown::in_group(&group);
        assert_eq!((shown.exit_code, shown.running), (Some(f64::from(index % 3)), Some(0.0)), "job {index}");
        assert_eq!(shown.success, shown.end.filter(|_| index % 3 == 0), "job {index}");
        assert!(shown.start.is_some() && shown.start <= shown.end && shown.end < Some(ended), "job {index}");
        assert_eq!(group.value("rows", &[]), f64::from(index), "job {index}");
    }
    assert_eq!((gateway.groups().await.len(), jobs.waiting().len()), (20, 0));
}

async fn a_gateway_under_a_path_gets_what_waited_for_it([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start_under(&tool, Place::reserve(), "/team/pushgateway").await;

    let [before, _, after] = before_during_and_after(gateway, async |gateway| gateway.stop().await).await;

    assert_eq!(after.success, before.success);
}
