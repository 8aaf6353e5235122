//! What a job's wrapper takes of memory. It runs in the container of the job, within its limit: what is killed there for
//! memory is the command's run, whatever it did.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal::SIGKILL;

use crate::gateway::{Gateway, Reply, backup, under};
use crate::support::{Process, eventually, finished};

/// Far beyond [`PATIENCE`](crate::support::PATIENCE).
const FOREVER: &str = "59m";

/// The largest file that is read.
const FILE_MAX: usize = 4 * 1024 * 1024;

/// What a file or a listing may add.
const ADDED_MAX_KIB: u64 = 32 * 1000 * 1000 / 1024;

/// A line of `/proc/PID/status`, in KiB.
fn status_kib(job: &Process, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", job.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().trim_end_matches(" kB").parse().unwrap()
}

/// A name of four characters for each number.
fn name(mut number: usize) -> String {
    const FIRST: &[u8] = b"abcdefghijklmnopqrstvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const MORE: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    let mut name = String::from(char::from(FIRST[number % FIRST.len()]));
    number /= FIRST.len();
    while number > 0 || name.len() < 3 {
        name.push(char::from(MORE[number % MORE.len()]));
        number /= MORE.len();
    }
    name
}

/// As many of these lines as there is room for, and one that is good.
fn full(head: &str, line: impl Fn(usize) -> String) -> String {
    let mut text = format!("good 1\n{head}");
    for line in (0..).map(line) {
        if text.len() + line.len() > FILE_MAX {
            break;
        }
        text += &line;
    }
    text
}

/// Files of the largest size, each the worst of its kind.
fn files() -> Vec<(&'static str, String)> {
    let long = "x".repeat(FILE_MAX - 100);
    let mut labels = "good 1\na{".to_owned();
    for name in (0..).map(name) {
        if labels.len() > FILE_MAX - 100 {
            break;
        }
        labels += &format!("{name}=\"\",");
    }
    labels += "} 1\n";
    vec![
        ("families of one sample", full("", |number| format!("{} 1\n", name(number)))),
        ("samples of one family", full("", |number| format!("a{{b=\"{}\"}} 1\n", name(number)))),
        ("faults of one family each", full("", |number| format!("{}\n", name(number)))),
        ("faults without a name", full("", |_| "?\n".to_owned())),
        ("samples that stand twice", full("", |_| "a 1\n".to_owned())),
        ("buckets", full("# TYPE h histogram\n", |number| format!("h_bucket{{le=\"{number}\"}} 1\n"))),
        ("labels", labels),
        ("one long label", format!("good 1\na{{b=\"{long}\"}} 1\n")),
        ("one long name", format!("good 1\n{long} 1\n")),
        ("one long fault", format!("good 1\na{{b=\"{long} 1\n")),
    ]
}

fn job(folder: &Path, gateway: &Gateway, deadline: &str, options: &[&str], script: &str) -> Command {
    let url = gateway.url();
    let always = ["--no-start-push", "--pushgateway-url", &url, "--push-deadline", deadline];
    backup(folder, &[&always[..], options].concat(), script)
}

/// The memory of a wrapper that has sent so many requests, and got no answer to the last.
async fn held_at<const N: usize>(
    request: usize,
    replies: [Reply; N],
    options: &[&str],
    script: &str,
    what: &str,
) -> u64 {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::answering(replies).await;
    let mut job = Process::spawn(job(folder.path(), &gateway, FOREVER, options, script));
    // A file of the largest size takes seconds to read in a build that is not optimised.
    while gateway.requests().len() < request {
        assert!(job.ended().is_none(), "{:?}", job.lines());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let peak = status_kib(&job, what);
    job.signal(SIGKILL);
    peak
}

#[tokio::test]
async fn a_metrics_file_of_the_largest_size_adds_little_memory_whatever_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    // With a spool it is also written to disk.
    let spooled = ["--spool-dir", "spool"];
    let without = held_at(1, [Reply::Nothing], &spooled, "true", "VmHWM").await;
    for (kind, text) in files() {
        let file = folder.path().join("file");
        std::fs::write(&file, &text).unwrap();
        assert!((FILE_MAX - 200..=FILE_MAX).contains(&text.len()), "{kind}: {}", text.len());

        let script = format!("cat {} > \"$JOB_METRICS_FILE\"", file.display());
        let with = held_at(2, [Reply::ok(), Reply::Nothing], &spooled, &script, "VmHWM").await;

        let added = with.saturating_sub(without);
        eprintln!("{kind}: {added} KiB above {without}");
        assert!(added <= ADDED_MAX_KIB, "{kind}: {added} KiB");
    }
}

#[tokio::test]
async fn the_largest_metrics_file_is_pushed_within_a_limit_of_memory() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::answering([Reply::Nothing]).await;
    let without = Process::spawn(job(folder.path(), &gateway, FOREVER, &[], "true"));
    gateway.request(1).await;
    // What is reserved and not used counts here, such as the stacks of threads.
    let limit = status_kib(&without, "VmPeak") + 2 * ADDED_MAX_KIB;
    let (_, text) = files().swap_remove(0);
    std::fs::write(folder.path().join("file"), &text).unwrap();
    let gateway = Gateway::answering([Reply::ok()]).await;

    let job = job(folder.path(), &gateway, FOREVER, &[], "cat file > \"$JOB_METRICS_FILE\"; exit 3");
    let ended = finished(under(&format!("ulimit -v {limit}; exec \"$@\""), &job)).await;

    assert_eq!(ended.status.code(), Some(3), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(gateway.request(2).await.body.len(), text.len());
}

/// 64 MiB of a listing of many groups.
fn long_listing() -> Reply {
    let family =
        r#""rows":{"time_stamp":"2026-11-22T20:00:00Z","type":"GAUGE","metrics":[{"labels":{"a":"b"},"value":"1"}]}"#;
    let group = format!(r#"{{"labels":{{"job":"other"}},"last_push_successful":true,{family}}},"#);
    let groups = group.repeat(1024);
    let head = "HTTP/1.1 200 OK\r\n\r\n{\"data\":[".to_owned();
    Reply::Long(head, groups.clone(), 64 * 1024 * 1024 / groups.len())
}

#[tokio::test]
async fn a_long_listing_adds_little_memory_whatever_it_holds() {
    let head = "HTTP/1.1 200 OK\r\n\r\n{\"data\":[";
    let endless = |begin: &str, more: &str| Reply::Endless(format!("{head}{begin}"), more.repeat(10_000));
    let away = Reply::with("503 Busy", &[], "");
    let without = held_at(2, [away.clone(), Reply::Nothing], &[], "true", "VmHWM").await;
    let family = r#""rows":{"time_stamp":"2026-11-22T20:00:00Z","metrics":[{"value":"1"}]},"#;
    let cases = [
        ("many groups", long_listing()),
        ("one group", endless(r#"{"labels":{"job":"backup"},"#, family)),
        ("one family", endless(r#"{"labels":{"job":"backup"},"batch_job_running":{"metrics":["#, r#"{"value":"1"},"#)),
        ("labels", endless(r#"{"labels":{"#, r#""a":"b","#)),
        ("one text", endless("\"", "x")),
        ("one name", endless("{\"", "x")),
        ("one number", endless("", "1")),
        ("lists in lists", endless("", "[")),
        ("blanks", endless("", " ")),
    ];
    for (kind, listing) in cases {
        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::answering([away.clone()]).await;
        gateway.list(listing);
        let mut job = Process::spawn(job(folder.path(), &gateway, "3s", &[], "exit 3"));
        let mut peak: u64 = 0;
        let code = eventually("the end of the job", || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", job.pid())).unwrap_or_default();
            let now = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            peak = now.map_or(peak, |line| line.trim().trim_end_matches(" kB").parse().unwrap());
            std::future::ready(job.ended())
        })
        .await;

        let added = peak.saturating_sub(without);
        eprintln!("{kind}: {added} KiB above {without}");
        assert!(added <= ADDED_MAX_KIB, "{kind}: {added} KiB");
        assert_eq!(code.code(), Some(3), "{kind}");
        assert!(gateway.asked() > 0, "{kind}");
    }
}
