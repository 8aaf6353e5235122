//! wrk: a closed loop that keeps a server busy.
//!
//! A script makes the requests, so that ids are spread, and prints what was counted, so that nothing is read from text
//! made for people.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const CONNECTIONS: usize = 32;

/// Called with a path, and the smallest and the largest number that is put after it.
const SCRIPT: &str = r#"
local start, first, last
local finish = " HTTP/1.1\r\nHost: bench\r\n\r\n"

function init(arguments)
    math.randomseed(1)
    start, first, last = "GET " .. arguments[1], tonumber(arguments[2]), tonumber(arguments[3])
end

function request()
    return start .. math.random(first, last) .. finish
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format("counted %d %d %d %d %d\n", summary.requests, errors.status, errors.connect,
        errors.read + errors.write, errors.timeout))
    io.write(string.format("latency %d %d %d %d\n", latency:percentile(50), latency:percentile(90),
        latency:percentile(99), latency.max))
    io.write(string.format("duration %d\n", summary.duration))
end
"#;

/// Where requests go: `GET` of `path` followed by a number.
pub struct Numbered {
    pub path: &'static str,
    pub first: u64,
    pub last: u64,
}

pub struct Wrk {
    program: PathBuf,
    script: PathBuf,
    /// As it names itself.
    pub version: String,
}

/// What was answered, all with 2xx.
#[derive(Debug, PartialEq)]
pub struct Load {
    pub answered: f64,
    pub seconds: f64,
    /// In milliseconds.
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Wrk {
    /// Takes the installed wrk, or the one that scripts/bench-peers.sh unpacked. The script is written to the folder.
    pub fn find(root: &Path, folder: &Path) -> Self {
        let script = folder.join("wrk.lua");
        std::fs::write(&script, SCRIPT).unwrap();
        let places = [PathBuf::from("wrk"), root.join("target/bench/wrk")];
        let found = places.into_iter().find_map(|program| {
            // Told to name its version, it fails all the same.
            let said = Command::new(&program).arg("-v").output().ok()?;
            let said = String::from_utf8_lossy(&said.stdout);
            let version = said.starts_with("wrk ").then(|| said.split(' ').take(2).collect::<Vec<_>>().join(" "))?;
            Some((program, version))
        });
        let (program, version) = found.expect("wrk is installed, or scripts/bench-peers.sh has unpacked it");
        Self { program, script, version }
    }

    /// The command line without what differs from run to run.
    pub fn usage(duration: Duration) -> String {
        format!("wrk -t1 -c{CONNECTIONS} -d{}s --latency", duration.as_secs())
    }

    /// Sends requests for some whole seconds. An answer that is not 2xx, or none at all, ends the measurement.
    pub fn run(&self, name: &str, address: SocketAddr, duration: Duration, requests: &Numbered) -> Load {
        let Numbered { path, first, last } = requests;
        let said = Command::new(&self.program)
            .args(["-t1", "--latency", "--timeout", "10s", &format!("-c{CONNECTIONS}")])
            .arg(format!("-d{}s", duration.as_secs().max(1)))
            .arg("-s")
            .args([&self.script])
            .arg(format!("http://{address}"))
            .args(["--", path, &first.to_string(), &last.to_string()])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&said.stdout);
        assert!(said.status.success(), "{name}: wrk: {}: {text}{}", said.status, String::from_utf8_lossy(&said.stderr));
        parse(&text).unwrap_or_else(|wrong| panic!("{name}: {wrong}: {text}"))
    }
}

fn parse(text: &str) -> Result<Load, &'static str> {
    let line = |start| {
        let line = text.lines().find_map(|line| line.strip_prefix(start)).ok_or("wrk printed no figures")?;
        let figures: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
        figures.map_err(|_| "wrk printed something else than figures")
    };
    let (counted, latency, duration) = (line("counted ")?, line("latency ")?, line("duration ")?);
    let ([answered, failures @ ..], &[p50, p90, p99, max], &[duration]) =
        (counted.as_slice(), latency.as_slice(), duration.as_slice())
    else {
        return Err("wrk printed other figures");
    };
    if failures.len() != 4 || failures.iter().any(|failures| *failures != 0.0) {
        return Err("answers with an error status, or none at all");
    }
    if *answered < 1.0 || duration < 1.0 {
        return Err("nothing was answered");
    }
    let [p50, p90, p99, max] = [p50, p90, p99, max].map(|micros| micros / 1e3);
    Ok(Load { answered: *answered, seconds: duration / 1e6, p50, p90, p99, max })
}

/// What would lie silently if it were wrong.
pub fn check() {
    let text =
        |failures| format!("Running 1s test\ncounted 5000 {failures}\nlatency 100 200 3000 4000\nduration 2000000\n");
    let load = Load { answered: 5000.0, seconds: 2.0, p50: 0.1, p90: 0.2, p99: 3.0, max: 4.0 };
    assert_eq!(parse(&text("0 0 0 0")), Ok(load));
    for failures in ["1 0 0 0", "0 1 0 0", "0 0 1 0", "0 0 0 1", "0 0 0"] {
        assert!(parse(&text(failures)).is_err(), "{failures}");
    }
    assert!(parse(&text("0 0 0 0").replace("5000", "0")).is_err());
    assert!(parse("Requests/sec: 100").is_err());
}
