//! The machine and the versions that results hold for; no names of machines, no paths.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

/// Processor, memory, kernel.
pub fn machine() -> String {
    let cpus = read("/proc/cpuinfo");
    let model =
        cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |(_, it)| it);
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let memory = read("/proc/meminfo");
    let total =
        memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    let gigabytes = total.unwrap_or(0.0_f64) * 1024.0 / 1e9;
    // What follows the number names a build, and some builds a place.
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.trim().split('-').next().unwrap_or("?").to_owned();
    format!("Machine: {model}, {cores} cores, {gigabytes:.0} GB of memory, Linux {kernel}.\n")
}

/// The versions of all that took part, as they say themselves or as their lock files have them.
pub fn versions(root: &Path, wrk: &str) -> String {
    let said = |command: &mut Command| {
        let said = command.output().ok().filter(|said| said.status.success())?;
        Some(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    };
    let rustc = said(Command::new("rustc").arg("-V")).unwrap_or_else(|| "rustc ?".to_owned());
    let mut all = format!("Versions: {rustc}; {wrk}");
    let mut add = |name: &str, version: Option<String>| {
        if let Some(version) = version {
            write!(all, "; {name} {version}").expect("a string takes all");
        }
    };
    let ours = |name| cargo_version(&read(root.join("Cargo.lock")), name);
    ["warp", "hyper", "tokio", "sqlx", "prometheus"]
        .into_iter()
        .for_each(|name| add(&format!("{name} (ours)"), ours(name)));
    let hyper = |name| cargo_version(&read(root.join("bench/hyper/Cargo.lock")), name);
    add("hyper (peer)", hyper("hyper"));
    let axum = |name| cargo_version(&read(root.join("bench/axum/Cargo.lock")), name);
    ["axum", "axum-prometheus"].into_iter().for_each(|name| add(name, axum(name)));
    let python = |name| pinned(&read(root.join("bench/fastapi/requirements.txt")), name);
    ["fastapi", "uvicorn", "prometheus-client"].into_iter().for_each(|name| add(name, python(name)));
    add("on", said(Command::new(root.join("target/bench/venv/bin/python")).arg("-V")));
    let module = "github.com/prometheus/client_golang";
    add("client_golang", required(&read(root.join("bench/client_golang/go.mod")), module));
    // `PATH: go1.2.3`: what it was built with.
    let go = said(Command::new("go").arg("version").arg(root.join("target/bench/client_golang")));
    add("on", go.and_then(|said| said.split_whitespace().last().map(str::to_owned)));
    all + ".\n"
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// `name = "hyper"`, and the version in the next line.
fn cargo_version(lock: &str, name: &str) -> Option<String> {
    let mut lines = lock.lines().skip_while(|line| *line != format!("name = \"{name}\""));
    Some(lines.nth(1)?.strip_prefix("version = \"")?.trim_end_matches('"').to_owned())
}

/// `fastapi==0.1.2`, with whatever may follow.
fn pinned(requirements: &str, name: &str) -> Option<String> {
    let rest = |line: &'_ str| -> Option<String> {
        let (package, version) = line.split_once("==")?;
        let package = package.split('[').next()?.trim();
        let is_it = package.eq_ignore_ascii_case(name) || package.replace('_', "-").eq_ignore_ascii_case(name);
        is_it.then(|| version.split([' ', ';', '\\']).next().unwrap_or_default().to_owned())
    };
    requirements.lines().find_map(rest)
}

/// `github.com/owner/name v1.2.3`, alone or in a block.
fn required(module: &str, name: &str) -> Option<String> {
    let line = module.lines().find(|line| line.split_whitespace().any(|word| word == name))?;
    line.split_whitespace().find(|word| word.starts_with('v')).map(str::to_owned)
}

/// What would lie silently if it were wrong.
pub fn check() {
    let lock =
        "[[package]]\nname = \"hyper-util\"\nversion = \"0.1\"\n\n[[package]]\nname = \"hyper\"\nversion = \"1.2.3\"\n";
    assert_eq!(cargo_version(lock, "hyper").as_deref(), Some("1.2.3"));
    assert_eq!(cargo_version(lock, "axum"), None);
    let requirements =
        "# pinned\nuvicorn[standard]==0.30.1 \\\n    --hash=sha256:0\nprometheus_client==0.20 ; python_version>'3'\n";
    assert_eq!(pinned(requirements, "uvicorn").as_deref(), Some("0.30.1"));
    assert_eq!(pinned(requirements, "prometheus-client").as_deref(), Some("0.20"));
    let module = "module bench\n\nrequire github.com/a/b v1.20.0\n";
    assert_eq!(required(module, "github.com/a/b").as_deref(), Some("v1.20.0"));
}
