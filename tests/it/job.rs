//! `job` is transparent: what goes in and out, exit codes, time-outs, signals, and the terminal are the command's own.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal::{
    self, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, SIGTSTP, SIGURG, SIGUSR1, SIGUSR2, SIGWINCH,
};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::gateway::{Gateway, Reply, backup, under};
use crate::support::{Process, binary, eventually, finished, in_time};

/// Longer than [`PATIENCE`](crate::support::PATIENCE): a test that waited for it would fail. Not for ever, so that what a
/// failed test leaves behind goes away.
const LONG: &str = "120";

// ---- What goes in and out ----

#[tokio::test]
async fn stdin_and_stdout_are_passed_on_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = vec![0; 5_000_000];
    StdRng::seed_from_u64(4).fill(&mut bytes[..]);
    let mut job = job_of(folder.path(), &["cat"]);
    job.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());

    let output = fed(job, &bytes).await;

    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert!(output.stdout == bytes, "{} bytes came back", output.stdout.len());
}

#[tokio::test]
async fn stdout_and_stderr_stay_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (mut one, mut two) = (vec![0; 3_000_000], vec![0; 2_000_000]);
    let mut random = StdRng::seed_from_u64(5);
    random.fill(&mut one[..]);
    random.fill(&mut two[..]);
    std::fs::write(folder.path().join("one"), &one).unwrap();
    std::fs::write(folder.path().join("two"), &two).unwrap();

    let output = finished(script(folder.path(), "cat two >&2 & cat one; wait")).await;

    assert!(output.stdout == one, "{} bytes on stdout", output.stdout.len());
    assert!(output.stderr == two, "{} bytes on stderr", output.stderr.len());
}

#[tokio::test]
async fn closed_streams_do_no_harm() {
    let cases = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"];
    for closed in cases {
        let folder = tempfile::tempdir().unwrap();
        let job = script(folder.path(), "echo out; echo err >&2; cat; touch ran; exit 3");

        let ran = finished(under(&format!("exec \"$@\" {closed}"), &job)).await;
        let absent = job_of(folder.path(), &["nonexistent"]);
        let absent = finished(under(&format!("exec \"$@\" {closed}"), &absent)).await;

        assert_eq!(ran.status.code(), Some(3), "{closed}");
        assert!(folder.path().join("ran").exists(), "{closed}");
        assert_eq!(absent.status.code(), Some(127), "{closed}: there is something to say, and nowhere to say it");
    }
}

#[tokio::test]
async fn a_command_whose_reader_is_gone_is_ended_by_the_pipe() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job_of(folder.path(), &["yes"]);
    job.stdin(Stdio::null()).stdout(std::io::pipe().unwrap().1);

    let status = in_time("the end", tokio::process::Command::from(job).kill_on_drop(true).status()).await.unwrap();

    assert_eq!(status.code(), Some(128 + 13));
}

#[tokio::test]
async fn what_the_wrapper_has_to_say_does_not_wait_for_a_reader() {
    let folder = tempfile::tempdir().unwrap();
    let (_reader, mut full) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.write(&[b'x'; 4096]).is_ok() {}
    full.set_nonblocking(false).unwrap();
    let mut job = job_of(folder.path(), &["nonexistent"]);
    job.stdin(Stdio::null()).stderr(OwnedFd::from(full));

    let status = in_time("the end", tokio::process::Command::from(job).kill_on_drop(true).status()).await.unwrap();

    assert_eq!(status.code(), Some(127));
}

#[tokio::test]
async fn arguments_are_passed_on_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let arguments: Vec<&OsStr> = [
        &b"a b"[..],
        b"it's \"quoted\"",
        b"",
        b"-x",
        b"--name",
        b"--",
        b"--help",
        b"$HOME `id` *",
        b"two\nlines",
        b"\xff\xfe no UTF-8",
    ]
    .map(OsStr::from_bytes)
    .to_vec();
    let mut job = script(folder.path(), "printf '%s\\0' \"$@\"");
    job.arg("sh").args(&arguments);

    let output = finished(job).await;

    let expected = arguments.iter().flat_map(|argument| [argument.as_bytes(), b"\0"]).collect::<Vec<_>>().concat();
    assert_eq!(OsString::from_vec(output.stdout), OsString::from_vec(expected));
}

#[tokio::test]
async fn many_arguments_and_a_large_environment_are_passed_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = script(folder.path(), "echo $#; env | wc -c");
    job.arg("sh").args((0..10_000).map(|n| n.to_string()));
    let long = "x".repeat(100_000);
    for n in 0..8 {
        job.env(format!("LONG_{n}"), &long);
    }

    let output = finished(job).await;

    let text = String::from_utf8(output.stdout).unwrap();
    let [arguments, bytes] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
    assert_eq!(arguments, "10000");
    assert!(bytes.trim().parse::<u32>().unwrap() > 800_000, "{bytes}");
}

#[tokio::test]
async fn the_environment_is_passed_on_with_the_metrics_file_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = job_of(folder.path(), &["env", "-0"]);
    job.env("PLAIN", "a=b c\nd").env("JOB_TIMEOUT", "1h").env(OsStr::from_bytes(b"\xff"), OsStr::from_bytes(b"\xfe"));
    job.env("PUSHGATEWAY_PASSWORD_FILE", "");

    let output = finished(job).await;

    let mut found: Vec<_> = output.stdout.split(|byte| *byte == 0).filter(|one| !one.is_empty()).collect();
    found.sort_unstable();
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    let [file, outer, others @ ..] = &found[..] else { panic!("{found:?}") };
    assert!(file.starts_with(b"JOB_METRICS_FILE=/"), "{}", String::from_utf8_lossy(file));
    // So that a job within this one does not take the file for its own.
    assert_eq!(outer.strip_prefix(b"JOB_METRICS_FILE_OF_OUTER="), file.strip_prefix(b"JOB_METRICS_FILE="));
    let expected: [&[u8]; 5] =
        [b"JOB_TIMEOUT=1h", path.as_bytes(), b"PLAIN=a=b c\nd", b"PUSHGATEWAY_PASSWORD_FILE=", b"\xff=\xfe"];
    assert_eq!(others, expected);
}

#[tokio::test]
async fn the_command_runs_in_the_wrappers_folder() {
    let folder = tempfile::tempdir().unwrap();

    let output = finished(job_of(folder.path(), &["pwd", "-P"])).await;

    let expected = folder.path().canonicalize().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap().trim_end(), expected.to_str().unwrap());
}

#[tokio::test]
async fn open_files_are_passed_on_and_none_is_added() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "three\n").unwrap();
    let list = ["sh", "-c", "cat <&3; ls /proc/self/fd"];
    let mut bare = Command::new("bash");
    bare.current_dir(folder.path()).args(["-c", "exec 3<file; exec \"$@\"", "bash"]).args(list);

    let bare = finished(bare).await;
    let wrapped = finished(under("exec 3<file; exec \"$@\"", &job_of(folder.path(), &list))).await;

    assert!(bare.stdout.starts_with(b"three\n"));
    assert_eq!(String::from_utf8(wrapped.stdout).unwrap(), String::from_utf8(bare.stdout).unwrap());
}

#[tokio::test]
async fn a_job_without_a_gateway_says_nothing_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let mut job = script(folder.path(), "echo 'rows 5' > \"$JOB_METRICS_FILE\"; echo done");
    job.env("TMPDIR", temporary.path());

    let output = finished(job).await;

    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"done\n"[..], &b""[..]));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
}

// ---- The metrics file ----

#[tokio::test]
async fn the_metrics_file_is_there_for_the_command_alone_and_gone_afterwards() {
    let folder = tempfile::tempdir().unwrap();

    let output = finished(script(folder.path(), "stat -c '%s %a %n' \"$JOB_METRICS_FILE\"")).await;

    let stat = String::from_utf8(output.stdout).unwrap();
    let [size, mode, path] = stat.trim_end().splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{stat:?}") };
    assert_eq!((size, mode), ("0", "600"), "nobody else on the machine writes into it");
    assert!(Path::new(path).is_absolute() && !Path::new(path).exists(), "{path}");
}

#[tokio::test]
async fn the_metrics_file_goes_away_however_the_run_ends() {
    let cases: [(&[&str], &str); 4] = [
        (&["--", "nonexistent"], "not found"),
        (&["--", "sh", "-c", "kill -9 $$"], "killed"),
        (&["--timeout", "50ms", "--", "sleep", LONG], "timed out"),
        (&["--", "sh", "-c", "rm \"$JOB_METRICS_FILE\""], "removed by the command"),
    ];
    for (arguments, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut job = binary(folder.path());
        job.args(["job", "--name", "backup"]).args(arguments).env("TMPDIR", folder.path());

        finished(job).await;

        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{reason}");
    }
}

#[tokio::test]
async fn a_command_runs_also_where_there_is_no_room_for_a_metrics_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = script(folder.path(), "echo \"${JOB_METRICS_FILE-none}\"; exit 3");
    job.env("TMPDIR", "/dev/null/nowhere");

    let output = finished(job).await;

    assert_eq!(output.status.code(), Some(3));
    assert_eq!((output.stdout.as_slice(), output.stderr.as_slice()), (&b"none\n"[..], &b""[..]));
}

// ---- Exit codes ----

#[tokio::test]
async fn the_exit_code_of_the_command_is_ours() {
    let folder = tempfile::tempdir().unwrap();
    for code in [0, 1, 2, 3, 77, 124, 125, 126, 127, 128, 130, 143, 254, 255] {
        let output = finished(script(folder.path(), &format!("exit {code}"))).await;

        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(code), &b""[..]));
    }
}

#[tokio::test]
async fn a_command_that_a_signal_ended_gives_128_and_the_signal() {
    let folder = tempfile::tempdir().unwrap();
    // 34 and 64 are the first and the last of the real-time signals.
    for signal in [1, 2, 3, 6, 9, 10, 11, 13, 14, 15, 34, 64] {
        let output = finished(script(folder.path(), &format!("ulimit -c 0; kill -{signal} $$; exit 0"))).await;

        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(128 + signal), &b""[..]));
    }
}

#[tokio::test]
async fn a_command_that_cannot_be_run_gives_126_and_one_that_is_not_there_127() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    };
    file("plain", "#!/bin/sh\n", 0o644);
    file("orphan", "#!/nonexistent/interpreter\n", 0o755);
    file("noise", "\u{7f}ELF\0 and then nothing", 0o755);
    let long = "x".repeat(300);
    let cases = [
        ("nonexistent", 127, "not in the path"),
        ("./nonexistent", 127, "not in the folder"),
        ("/nonexistent/command", 127, "not in a folder that is not there either"),
        ("./orphan", 127, "its interpreter is not there"),
        ("./plain", 126, "not executable"),
        ("./", 126, "a folder"),
        ("./plain/command", 126, "below a file"),
        ("./noise", 126, "no program of this machine"),
        (&long, 126, "a name that no file can have"),
    ];
    for (command, code, reason) in cases {
        let output = finished(job_of(folder.path(), &[command])).await;

        assert_eq!(output.status.code(), Some(code), "{reason}: {output:?}");
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.starts_with(&format!("api-monitoring: cannot run {command}: ")), "{reason}: {said}");
        assert_eq!((said.lines().count(), output.stdout.len()), (1, 0), "{reason}: {said}");
    }
}

#[tokio::test]
async fn a_script_that_names_no_interpreter_is_run_by_the_shell() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup.sh");
    std::fs::write(&path, "echo \"$1\"; exit 3\n").unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();

    let output = finished(job_of(folder.path(), &["./backup.sh", "--full"])).await;

    // As `env`, `nohup`, `timeout` and cron do.
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "--full\n");
    assert_eq!(output.status.code(), Some(3));
}

#[tokio::test]
async fn a_script_of_the_path_that_names_no_interpreter_is_not_mistaken_for_one_of_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bin");
    std::fs::create_dir(&path).unwrap();
    for (script, text) in [(path.join("backup.sh"), "exit 3\n"), (folder.path().join("backup.sh"), "exit 4\n")] {
        std::fs::write(&script, text).unwrap();
        std::fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    }
    let mut job = job_of(folder.path(), &["backup.sh"]);
    job.env("PATH", path);

    let output = finished(job).await;

    assert_eq!(output.status.code(), Some(3), "{output:?}");
}

// ---- Time-outs ----

#[tokio::test]
async fn a_command_that_takes_too_long_is_told_to_end_and_gives_124() {
    let run = timed_out(&[], "trap 'touch told; exit 0' TERM; touch ready; while :; do sleep 0.02; done").await;

    assert!(run.folder.path().join("told").exists(), "{}", run.stderr);
    // Shells have a word to say about their own children first.
    let said = run.stderr.lines().last().unwrap();
    assert_eq!(said, format!("api-monitoring: the command timed out after {}", run.timeout));
}

#[tokio::test]
async fn a_command_that_does_not_end_when_told_is_killed() {
    for patience in ["0s", "200ms"] {
        timed_out(&["--kill-after", patience], &format!("trap '' TERM; touch ready; sleep {LONG}")).await;
    }
}

#[tokio::test]
async fn a_command_that_is_stopped_can_time_out_too() {
    timed_out(&["--kill-after", LONG_SECONDS], "touch ready; kill -STOP $$; exit 0").await;
}

#[tokio::test]
async fn what_the_command_started_is_told_to_end_too_and_given_the_time_for_it() {
    let helper = "trap 'sleep 0.2; touch cleaned; exit' TERM; touch ready; while :; do sleep 0.02; done";
    let run = timed_out(&["--kill-after", LONG_SECONDS], &format!("sh -c {} & wait", quoted(helper))).await;

    assert!(run.folder.path().join("cleaned").exists(), "the wrapper waits for it");
}

#[tokio::test]
async fn nothing_of_the_command_is_left_after_a_time_out() {
    let stubborn = format!("trap '' TERM; echo $$ > pid; touch ready; sleep {LONG}; true");
    for (last, reason) in [("wait", "the command ends, its helper does not"), ("trap '' TERM; wait", "neither ends")] {
        let script = format!("sh -c {} & {last}", quoted(&stubborn));

        let run = timed_out(&["--kill-after", "100ms"], &script).await;

        let pid = std::fs::read_to_string(run.folder.path().join("pid")).unwrap();
        eventually(&format!("the end of {pid}: {reason}"), async || (!runs(pid.trim())).then_some(())).await;
    }
}

#[tokio::test]
async fn a_command_that_ends_in_time_is_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = binary(folder.path());
    job.args(["job", "--name", "backup", "--timeout", LONG_SECONDS, "--", "sh", "-c", "exit 3"]);

    let output = finished(job).await;

    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(3), &b""[..]));
}

#[tokio::test]
async fn what_the_command_leaves_running_after_its_own_end_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let background = format!("sleep {LONG} > /dev/null 2>&1 & echo $!");

    let output = finished(script(folder.path(), &background)).await;

    let pid = String::from_utf8(output.stdout).unwrap();
    assert!(runs(pid.trim()), "{pid}");
    kill(Pid::from_raw(pid.trim().parse().unwrap()), SIGKILL).unwrap();
}

// ---- Signals ----

#[tokio::test]
async fn signals_are_passed_on_and_the_command_decides() {
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2] {
        let folder = tempfile::tempdir().unwrap();
        let name = name(signal);
        let trap = format!("trap 'echo got >> told; exit 7' {name}; touch ready; while :; do sleep 0.02; done");
        let mut job = Process::spawn(script(folder.path(), &trap));
        there(folder.path(), "ready").await;

        job.signal(signal);

        assert_eq!(job.exit().await.code(), Some(7), "{signal}");
        assert_eq!(std::fs::read_to_string(folder.path().join("told")).unwrap(), "got\n", "{signal}");
    }
}

#[tokio::test]
async fn a_signal_that_the_command_does_not_catch_ends_it_and_gives_128_and_the_signal() {
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2] {
        let folder = tempfile::tempdir().unwrap();
        let mut job = Process::spawn(script(folder.path(), &format!("ulimit -c 0; touch ready; exec sleep {LONG}")));
        there(folder.path(), "ready").await;

        job.signal(signal);

        assert_eq!(job.exit().await.code(), Some(128 + signal as i32), "{signal}");
    }
}

#[tokio::test]
async fn each_signal_is_passed_on_not_only_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let count = "trap 'n=$((n + 1)); touch got$n' USR1; touch ready; until [ -e got3 ]; do sleep 0.02; done; exit 9";
    let mut job = Process::spawn(script(folder.path(), count));
    there(folder.path(), "ready").await;

    for got in ["got1", "got2", "got3"] {
        job.signal(SIGUSR1);
        there(folder.path(), got).await;
    }

    assert_eq!(job.exit().await.code(), Some(9));
}

#[tokio::test]
async fn signals_reach_what_the_command_started() {
    let folder = tempfile::tempdir().unwrap();
    let helper = "trap 'touch told; exit' TERM; touch ready; while :; do sleep 0.02; done";
    let mut job = Process::spawn(script(folder.path(), &format!("sh -c {} & wait", quoted(helper))));
    there(folder.path(), "ready").await;

    job.signal(SIGTERM);

    there(folder.path(), "told").await;
    assert_eq!(job.exit().await.code(), Some(143));
}

#[tokio::test]
async fn nothing_of_the_command_is_left_after_it_was_told_to_end() {
    for signal in [SIGTERM, SIGINT] {
        let folder = tempfile::tempdir().unwrap();
        let stubborn = format!("trap '' TERM INT; echo $$ > pid; touch ready; sleep {LONG}; true");
        let helped = format!("trap 'exit 5' INT TERM; sh -c {} & wait", quoted(&stubborn));
        let mut job = Process::spawn(backup(folder.path(), &["--kill-after", "100ms"], &helped));
        there(folder.path(), "ready").await;

        job.signal(signal);

        assert_eq!(job.exit().await.code(), Some(5), "{signal}");
        let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
        eventually(&format!("the end of {pid}: {signal}"), async || (!runs(pid.trim())).then_some(())).await;
    }
}

#[tokio::test]
async fn a_signal_that_is_ignored_from_the_start_stays_ignored() {
    for signal in [SIGHUP, SIGINT, SIGTERM, SIGUSR1] {
        let folder = tempfile::tempdir().unwrap();
        let name = name(signal);
        let job = format!("touch ready; until [ -e go ]; do sleep 0.02; done; kill -{name} $$; exit 3");
        // As `nohup` starts a command, for SIGHUP.
        let ignoring = format!("trap '' {name}; exec \"$@\"");
        let mut job = Process::spawn(under(&ignoring, &script(folder.path(), &job)));
        there(folder.path(), "ready").await;

        job.signal(signal);
        std::fs::write(folder.path().join("go"), "").unwrap();

        assert_eq!(job.exit().await.code(), Some(3), "{signal}");
    }
}

/// The signals that cannot be passed on, or must not be: of the process itself (SIGKILL, SIGSTOP, faults), of its children,
/// of its own output, of a terminal that is used from the background, and two that the C library keeps for itself.
const NOT_PASSED_ON: [i32; 12] = [4, 7, 8, 9, 11, 13, 17, 19, 21, 22, 32, 33];

/// Its handler stops the command instead, and the wrapper with it.
const STOPS: i32 = 20;

#[tokio::test]
async fn every_signal_that_can_be_caught_is_passed_on_and_how_it_went_is_pushed() {
    let signals: Vec<i32> = (1..=64).filter(|n| !NOT_PASSED_ON.contains(n) && *n != STOPS).collect();
    for some in signals.chunks(8) {
        join_all(some.iter().map(|signal| passed_on(*signal))).await;
    }
}

async fn passed_on(signal: i32) {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let folder = tempfile::tempdir().unwrap();
    let trap = format!("trap 'echo got >> told; exit 7' {signal}; touch ready; while :; do sleep 0.02; done");
    let mut job = binary(folder.path());
    job.args(["job", "--name", "backup", "--no-start-push", "--pushgateway-url", &gateway.url()]);
    // Other shells do not know the signals for real time.
    job.args(["--", "bash", "-c", &trap]);
    let mut job = Process::spawn(job);
    there(folder.path(), "ready").await;

    send(signal, job.pid());

    assert_eq!(job.exit().await.code(), Some(7), "{signal}: {:?}", job.lines());
    assert_eq!(std::fs::read_to_string(folder.path().join("told")).unwrap(), "got\n", "{signal}");
    assert_eq!(gateway.request(1).await.samples().value("batch_job_last_exit_code", &[]), 7.0, "{signal}");
}

/// Sends any signal; those for real time have no names here.
fn send(signal: i32, to: Pid) {
    let sent = Command::new("bash").args(["-c", &format!("kill -{signal} {to}")]).status().unwrap();
    assert!(sent.success(), "{signal}");
}

#[tokio::test]
async fn an_alarm_that_was_set_before_the_wrapper_began_ends_the_command_and_is_pushed() {
    // However slow this machine is at the moment, one of them leaves the command the time to get ready.
    for seconds in [1, 5, 20] {
        let gateway = Gateway::answering([Reply::ok()]).await;
        let folder = tempfile::tempdir().unwrap();
        let url = gateway.url();
        let script = format!("touch ready; exec sleep {LONG}");
        let job = backup(folder.path(), &["--no-start-push", "--pushgateway-url", &url], &script);
        let alarm = format!("exec perl -e 'alarm {seconds}; exec @ARGV' \"$@\"");

        let output = finished(under(&alarm, &job)).await;

        if folder.path().join("ready").exists() {
            assert_eq!(output.status.code(), Some(128 + 14), "{output:?}");
            assert_eq!(gateway.request(1).await.samples().value("batch_job_last_exit_code", &[]), 142.0);
            return;
        }
    }
    panic!("never ready in time");
}

#[tokio::test]
async fn a_wrapper_that_is_started_with_sigchld_ignored_knows_how_its_command_ended() {
    for code in [0, 9] {
        let folder = tempfile::tempdir().unwrap();
        let job = script(folder.path(), &format!("exit {code}"));

        let output =
            finished(under("trap '' CHLD; exec perl -e '$SIG{CHLD} = \"IGNORE\"; exec @ARGV' \"$@\"", &job)).await;

        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
}

#[tokio::test]
async fn a_job_that_is_told_to_stop_stops_with_its_command_and_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    // It starts nothing while it waits: a shell whose child was stopped before its `exec` cannot stop itself (`vfork`).
    let script = "echo $$ > pid; mkfifo go; touch ready; read line < go; exit 3";
    let mut job = Process::spawn(self::script(folder.path(), script));
    there(folder.path(), "ready").await;
    let command = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    let both = [job.pid().to_string(), command.trim().to_owned()];
    let are = async |what: &str, stopped: bool| {
        let state = |pid: &String| state(pid).starts_with('T');
        eventually(what, async || both.iter().all(|pid| state(pid) == stopped).then_some(())).await;
    };

    for _ in 0..2 {
        job.signal(SIGTSTP);
        are("both to stop", true).await;
        job.signal(SIGCONT);
        are("both to go on", false).await;
    }
    std::fs::write(folder.path().join("go"), "\n").unwrap();

    assert_eq!(job.exit().await.code(), Some(3));
}

#[tokio::test]
async fn a_signal_that_asks_for_no_end_ends_no_tries_to_push() {
    for signal in [SIGWINCH, SIGCONT, SIGURG] {
        let busy = Reply::with("503 Service Unavailable", &[("Retry-After", "1")], "");
        let gateway = Gateway::answering([busy, Reply::ok()]).await;
        let folder = tempfile::tempdir().unwrap();
        let url = gateway.url();
        let mut job = Process::spawn(backup(folder.path(), &["--no-start-push", "--pushgateway-url", &url], "exit 3"));
        gateway.request(1).await;

        job.signal(signal);

        assert_eq!(job.exit().await.code(), Some(3), "{signal}");
        assert_eq!((gateway.requests().len(), job.lines()), (2, vec![]), "{signal}");
    }
}

#[tokio::test]
async fn the_tests_of_signals_pass_also_where_signals_are_ignored_from_the_start() {
    let tests = [
        "job::a_command_that_a_signal_ended_gives_128_and_the_signal",
        "job::signals_are_passed_on_and_the_command_decides",
        "job::a_signal_that_the_command_does_not_catch_ends_it_and_gives_128_and_the_signal",
        "job::nothing_of_the_command_is_left_after_it_was_told_to_end",
        "job::ctrl_c_reaches_the_command_once",
        "job::sigterm_reaches_the_command_at_a_terminal_too",
    ];
    let mut suite = Command::new("bash");
    // As `nohup`, shells without job control, and many CI runners start them.
    suite.args(["-c", "trap '' HUP INT QUIT TERM USR1; exec \"$@\"", "bash"]);
    suite.arg(std::env::current_exe().unwrap()).arg("--exact").args(tests);

    let output = finished(suite).await;

    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains(&format!("{} passed", tests.len())), "{said}");
}

// ---- At a terminal ----

#[tokio::test]
async fn the_command_can_read_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let script = "touch ready; read -r line; printf %s \"$line\" > line; exit 5";
    let mut terminal = Terminal::run(&backup(folder.path(), &[], script));
    there(folder.path(), "ready").await;

    terminal.types("hello\n");

    assert_eq!(terminal.exit().await.code(), Some(5), "{}", terminal.shown());
    assert_eq!(std::fs::read_to_string(folder.path().join("line")).unwrap(), "hello");
}

#[tokio::test]
async fn the_command_is_at_a_terminal_where_the_wrapper_is() {
    let folder = tempfile::tempdir().unwrap();
    let script = "test -t 0 && test -t 1 && test -t 2 && echo \"at a $(tty | cut -c1-5)\"; exit 5";
    let mut terminal = Terminal::run(&backup(folder.path(), &[], script));

    assert_eq!(terminal.exit().await.code(), Some(5));
    eventually("its output", async || terminal.shown().contains("at a /dev/").then_some(())).await;
}

#[tokio::test]
async fn ctrl_c_reaches_the_command_once() {
    for (key, signal) in [("\x03", SIGINT), ("\x1c", SIGQUIT)] {
        let folder = tempfile::tempdir().unwrap();
        let name = name(signal);
        let script = format!(
            "ulimit -c 0; trap 'echo got >> told' {name}; trap 'touch other' USR1; touch ready
             until [ -e end ]; do sleep 0.02; done; exit 4"
        );
        let mut terminal = Terminal::run(&backup(folder.path(), &[], &script));
        there(folder.path(), "ready").await;

        // Two signals on top of each other would count as one: the wrapper sees its own only after the command has.
        terminal.signal(SIGSTOP);
        terminal.types(key);
        there(folder.path(), "told").await;
        terminal.signal(SIGUSR1);
        terminal.signal(SIGCONT);
        // What it passes on, it passes on in that order.
        there(folder.path(), "other").await;
        std::fs::write(folder.path().join("end"), "").unwrap();

        assert_eq!(terminal.exit().await.code(), Some(4), "{signal}: {}", terminal.shown());
        assert_eq!(std::fs::read_to_string(folder.path().join("told")).unwrap(), "got\n", "{signal}");
    }
}

#[tokio::test]
async fn sigterm_reaches_the_command_at_a_terminal_too() {
    for signal in [SIGTERM, SIGHUP] {
        let folder = tempfile::tempdir().unwrap();
        let name = name(signal);
        let script = format!("trap 'exit 7' {name}; touch ready; while :; do sleep 0.02; done");
        let mut terminal = Terminal::run(&backup(folder.path(), &[], &script));
        there(folder.path(), "ready").await;

        terminal.signal(signal);

        assert_eq!(terminal.exit().await.code(), Some(7), "{signal}: {}", terminal.shown());
    }
}

// ---- Helpers ----

/// [`LONG`], as a setting.
const LONG_SECONDS: &str = "120s";

/// A job that runs this command.
fn job_of(folder: &Path, command: &[&str]) -> Command {
    let mut job = binary(folder);
    job.args(["job", "--name", "backup", "--"]).args(command);
    job
}

fn script(folder: &Path, script: &str) -> Command {
    backup(folder, &[], script)
}

/// Runs a job whose stdin gets these bytes.
async fn fed(job: Command, bytes: &[u8]) -> Output {
    let mut child = tokio::process::Command::from(job).kill_on_drop(true).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let feed = async {
        stdin.write_all(bytes).await.unwrap();
        drop(stdin);
    };
    in_time("the end of the job", async { tokio::join!(feed, child.wait_with_output()).1.unwrap() }).await
}

/// A job that timed out.
struct TimedOut {
    folder: TempDir,
    timeout: String,
    stderr: String,
}

/// Runs a script that makes the file `ready` and then takes too long.
async fn timed_out(options: &[&str], script: &str) -> TimedOut {
    // However slow this machine is at the moment, one of them leaves the script the time to get ready.
    for timeout in ["200ms", "1s", "5s", "20s"] {
        let folder = tempfile::tempdir().unwrap();
        let stderr = folder.path().join("stderr");
        let mut job = backup(folder.path(), &[&["--timeout", timeout], options].concat(), script);
        // A file, not a pipe: whoever reads a pipe to its end waits for all who may write there, not for the wrapper.
        job.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&stderr).unwrap());

        let job = tokio::process::Command::from(job).kill_on_drop(true).status();
        let status = in_time("the end of the job", job).await.unwrap();

        let stderr = std::fs::read_to_string(stderr).unwrap();
        assert_eq!(status.code(), Some(124), "{stderr}");
        if folder.path().join("ready").exists() {
            return TimedOut { folder, timeout: timeout.to_owned(), stderr };
        }
    }
    panic!("never ready in time: {script}");
}

/// A process at a terminal of its own, in the foreground. Killed when it goes out of scope.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn run(command: &Command) -> Self {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let end = ptsname_r(&master).unwrap();
        let end = OpenOptions::new().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(end).unwrap();
        let keyboard = File::from(OwnedFd::from(master));
        // Of util-linux; begins a session that has this terminal.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        session.current_dir(command.get_current_dir().unwrap()).env_clear();
        session.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        session.stdin(end.try_clone().unwrap()).stdout(end.try_clone().unwrap()).stderr(end);
        let child = session.spawn().expect("setsid must be in the path");
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (mut output, shown) = (keyboard.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut bytes = [0; 1024];
            // Fails when nobody has the terminal open any more.
            while let Ok(read @ 1..) = output.read(&mut bytes) {
                shown.lock().unwrap().extend_from_slice(&bytes[..read]);
            }
        });
        Self { child, keyboard, screen }
    }

    fn types(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// What stands on it.
    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    async fn exit(&mut self) -> ExitStatus {
        let child = Mutex::new(&mut self.child);
        eventually("the end of the process", async || child.lock().unwrap().try_wait().unwrap()).await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the command has made a file.
async fn there(folder: &Path, name: &str) {
    eventually(name, async || folder.join(name).exists().then_some(())).await;
}

/// Whether a process runs; one that ended and was not waited for does not.
fn runs(pid: &str) -> bool {
    let state = state(pid);
    !state.is_empty() && !state.starts_with(['Z', 'X'])
}

/// What a process is doing, by its first letter; nothing when it is gone.
fn state(pid: &str) -> String {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().unwrap_or_default().to_owned()
}

/// A signal's name, as shells want it.
fn name(signal: Signal) -> &'static str {
    signal.as_str().strip_prefix("SIG").unwrap()
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
