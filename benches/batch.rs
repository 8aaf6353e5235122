//! What batch work costs: the wrapper around a command, against the command bare; and the import, in rows a second.

#![allow(clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const BINARY: &str = env!("CARGO_BIN_EXE_api-monitoring");

/// Pairs of runs; one of each in turn, so that what else the machine does meets both.
const PAIRS: usize = 300;

const ROWS: usize = 500_000;

fn main() {
    wrapper();
    import("csv", |row| format!("User {row},user{row}@example.com\n"));
    import("jsonl", |row| format!("{{\"name\":\"User {row}\",\"email\":\"user{row}@example.com\"}}\n"));
}

fn wrapper() {
    let folder = tempfile::tempdir().unwrap();
    let bare = || timed(command("true", folder.path()));
    let wrapped = || {
        let mut job = command(BINARY, folder.path());
        job.args(["job", "--name", "bench", "--", "true"]);
        timed(job)
    };
    let (mut bares, mut wrappeds) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        bares.push(bare());
        wrappeds.push(wrapped());
    }
    let (bare, wrapped) = (median(&mut bares), median(&mut wrappeds));
    println!(
        "job, no push:    {:.2} ms around `true`, which takes {:.2} ms bare (median of {PAIRS} pairs; at most 5 ms)",
        milliseconds(wrapped.saturating_sub(bare)),
        milliseconds(bare)
    );
}

fn import(format: &str, row: impl Fn(usize) -> String) {
    let folder = tempfile::tempdir().unwrap();
    let mut text = if format == "csv" { "name,email\n".to_owned() } else { String::new() };
    (0..ROWS).for_each(|number| text.write_str(&row(number)).unwrap());
    let file = folder.path().join(format!("users.{format}"));
    std::fs::write(&file, text).unwrap();
    let mut rates: Vec<_> = (0..3)
        .map(|round| {
            let mut import = command(BINARY, folder.path());
            import.arg("import").arg(&file).args(["--database-url", &format!("sqlite://{round}.db")]);
            ROWS as f64 / timed(import).as_secs_f64()
        })
        .collect();
    rates.sort_by(f64::total_cmp);
    println!("import, {format}:{:.0} rows/s into a fresh SQLite file (median of 3; at least 50000)", rates[1]);
}

fn command(program: &str, folder: &Path) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.current_dir(folder).env_clear().env("PATH", path);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// How long a command takes, from its start until it is waited for.
fn timed(mut command: Command) -> Duration {
    let began = Instant::now();
    let status = command.status().unwrap();
    let took = began.elapsed();
    assert!(status.success(), "{status}");
    took
}

fn median(durations: &mut [Duration]) -> Duration {
    durations.sort();
    durations[durations.len() / 2]
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
