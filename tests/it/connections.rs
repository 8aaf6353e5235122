//! The server under attack: connections up to a limit, and memory that comes back.

use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::Signal::SIGTERM;
use serde_json::{Value, json};

use crate::support::{BINARY, Process, Samples, Server, binary, eventually, in_time};
use crate::wire::{HEALTH, Wire};

const SLOW: &[u8] = b"GET /api/slow HTTP/1.1\r\nHost: api\r\n\r\n";
const METRICS: &[u8] = b"GET /metrics HTTP/1.1\r\nHost: api\r\n\r\n";

// ---- Memory ----

/// What the service may take in all, in KiB.
const MEMORY_MAX_KIB: u64 = 128 * 1024;

/// What it may take again, beyond what it took at the start, after all have gone.
const KEPT_MAX_KIB: u64 = 24 * 1024;

const HALF_HEADS: usize = 1_000;
const IDLE: usize = 10_000;

/// Raises this process's limit of open files; gives how many connections it leaves room for.
fn room_for_connections() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    usize::try_from(hard).unwrap_or(usize::MAX).saturating_sub(1_000)
}

/// As many connections as wanted, each of which sent some bytes, and had an answer if it should.
async fn connections(server: &Server, wanted: usize, bytes: &[u8], answered: bool) -> Vec<Wire> {
    let mut open = Vec::new();
    while open.len() < wanted {
        let some = join_all((0..100.min(wanted - open.len())).map(|_| async {
            let mut wire = Wire::to(server).await;
            // A server that has read enough closes before everything is written.
            let _ = wire.send(bytes).await;
            if answered {
                wire.answer().await.unwrap();
            }
            wire
        }));
        open.extend(some.await);
    }
    open
}

#[tokio::test]
async fn a_thousand_half_heads_and_ten_thousand_idle_connections_stay_within_128_mb() {
    let idle = room_for_connections().min(IDLE);
    if idle < IDLE {
        eprintln!("the limit of open files leaves room for {idle} idle connections instead of {IDLE}");
    }
    let server = Server::start_with(&["--max-connections", "20000", "--log", "info,http_request=warn"]).await;
    server.get("/health").await;
    let at_start = server.memory_kib("VmRSS");
    let head = b"GET /health HTTP/1.1\r\nHost: api\r\nX: ".to_vec();
    let (endless, half) = ([&head[..], &[b'x'; 400_000]].concat(), [&head[..], &[b'x'; 16_000]].concat());

    let endless = connections(&server, HALF_HEADS, &endless, false).await;
    let half = connections(&server, HALF_HEADS, &half, false).await;
    let half_heads = server.memory_kib("VmRSS");
    drop((endless, half));
    let mut asked = connections(&server, idle / 2, HEALTH, true).await;
    asked.extend(connections(&server, idle - idle / 2, b"", false).await);
    let open = server.metrics().await.value("api_connections", &[]);
    let peak = server.memory_kib("VmHWM");
    drop(asked);

    eprintln!("at the start {at_start} KiB, with half heads {half_heads} KiB, at most {peak} KiB");
    assert!(open >= idle as f64, "{open} connections were open at once");
    assert!(peak < MEMORY_MAX_KIB, "{peak} KiB at most, {half_heads} KiB with half heads");
    eventually("the memory's return", async || {
        let now = server.memory_kib("VmRSS");
        (now < at_start + KEPT_MAX_KIB).then_some(())
    })
    .await;
}

// ---- The limit ----

#[tokio::test]
async fn beyond_the_limit_a_connection_is_answered_503_counted_and_logged_once() {
    let server = Server::start_with(&["--max-connections", "3"]).await;
    // Requests in progress make no room.
    let mut busy = Vec::new();
    for _ in 0..2 {
        let mut wire = Wire::to(&server).await;
        wire.send(SLOW).await.unwrap();
        busy.push(wire);
    }
    let mut watching = Wire::to(&server).await;
    watching.ask(HEALTH).await.unwrap();

    for _ in 0..5 {
        let mut refused = Wire::to(&server).await;
        let answer = refused.ask(HEALTH).await.unwrap();

        assert_eq!(answer.status, 503);
        assert_eq!((answer.header("connection"), answer.header("retry-after")), ("close", "1"));
        assert_eq!(answer.json()["type"], "/#overloaded");
        assert!(refused.is_closed().await);
    }

    let metrics = Samples::parse(&watching.ask(METRICS).await.unwrap().text());
    assert_eq!(metrics.value("api_connections_refused_total", &[("reason", "limit")]), 5.0);
    assert_eq!(metrics.value("api_connections", &[]), 3.0);
    assert_eq!(events(&server, "too many connections; new ones are refused").len(), 1);
    for mut wire in busy {
        assert_eq!(wire.answer().await.unwrap().status, 200, "what was in progress is not touched");
    }
}

#[tokio::test]
async fn at_the_limit_the_connection_that_waited_longest_makes_room() {
    let server = Server::start_with(&["--max-connections", "20"]).await;
    let mut open = Vec::new();
    for _ in 0..20 {
        let mut wire = Wire::to(&server).await;
        wire.ask(HEALTH).await.unwrap();
        open.push(wire);
    }

    let mut later = eventually("room for another", async || {
        let mut wire = Wire::to(&server).await;
        let answer = wire.ask(HEALTH).await.unwrap();
        (answer.status == 200).then_some(wire)
    })
    .await;

    let metrics = Samples::parse(&later.ask(METRICS).await.unwrap().text());
    assert!(metrics.value("api_connections", &[]) <= 21.0);
    assert!(open[0].is_closed().await, "it had waited longest");
    assert_eq!(open[19].ask(HEALTH).await.unwrap().status, 200, "it had not");
}

#[tokio::test]
async fn silent_connections_up_to_the_limit_do_not_keep_a_probe_out() {
    let server = Server::start_with(&["--max-connections", "50"]).await;
    let silent = connections(&server, 25, b"", false).await;
    let half = connections(&server, 25, b"GET /health HT", false).await;

    for _ in 0..10 {
        eventually("an answer to a probe", async || {
            let answer = Wire::to(&server).await.ask(HEALTH).await.ok()?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    drop((silent, half));
}

// ---- Open files ----

/// A server whose soft and hard limit of open files is so many.
fn with_open_files(files: u64, folder: &std::path::Path, arguments: &[&str]) -> Process {
    let mut command = Command::new("sh");
    let run = binary(folder);
    command.current_dir(folder).env_clear().envs(run.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(run.get_program());
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]).args(arguments);
    Process::spawn(command)
}

#[tokio::test]
async fn a_limit_beyond_the_open_files_is_lowered_and_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = with_open_files(300, folder.path(), &["--max-connections", "1000"]);

    let said: Value = serde_json::from_str(&server.line("--max-connections is lowered").await).unwrap();
    server.line("\"ready\"").await;
    server.signal(SIGTERM);

    assert_eq!((&said["level"], &said["wanted"], &said["open_files"]), (&json!("WARN"), &json!(1000), &json!(300)));
    let lowered = said["max_connections"].as_u64().unwrap();
    assert!(0 < lowered && lowered < 300, "{said}");
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_soft_limit_of_open_files_is_raised_as_far_as_needed() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    assert!(hard > 600, "this machine's hard limit of open files is {hard}, too low to try this");
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    command
        .current_dir(folder.path())
        .args(["-c", "ulimit -S -n 100; exec \"$0\" serve --listen 127.0.0.1:0 --max-connections 300"]);
    command.arg(BINARY);
    let server = Process::spawn(command);

    server.line("ready").await;

    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.pid())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let soft: u64 = files.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(soft > 300, "{files}");
    assert!(!server.lines().iter().any(|line| line.contains("lowered")), "{:?}", server.lines());
}

#[tokio::test]
async fn when_no_file_is_left_for_connections_it_is_counted_and_logged_once_per_some_seconds() {
    let server = Server::start().await;
    let mut watching = Wire::to(&server).await;
    let files = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count();
    let lower = ["--pid", &server.pid().to_string(), &format!("--nofile={files}:{files}")];
    assert!(Command::new("prlimit").args(lower).status().unwrap().success());

    let _waiting = Wire::to(&server).await;

    let failing = async {
        loop {
            let metrics = Samples::parse(&watching.ask(METRICS).await.unwrap().text());
            let failed = metrics.value("api_connections_refused_total", &[("reason", "system")]);
            if failed >= 20.0 {
                return failed;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let failed = in_time("twenty failed attempts", failing).await;
    let logged = events(&server, "cannot accept connections");
    assert!(logged.len() as f64 <= 1.0 + failed / 20.0, "{failed} attempts were logged {} times", logged.len());
    assert_eq!(logged[0]["level"], "WARN");
}

fn events(server: &Server, message: &str) -> Vec<Value> {
    server.log().into_iter().filter(|event| event["message"] == message).collect()
}
