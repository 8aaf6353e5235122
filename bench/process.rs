//! Processes that are measured: servers on loopback and commands that end, with their CPU time and memory.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use crate::http::{Client, get};

/// What a server may take to start; an interpreter takes its time.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server; killed when dropped.
pub struct Server {
    pub name: &'static str,
    pub address: SocketAddr,
    /// From its start until it was ready.
    pub took: Duration,
    child: Child,
    clock: ClockId,
    log: PathBuf,
}

/// A command that sees nothing of this process' environment but where programs are.
pub fn command(program: impl AsRef<Path>, folder: &Path) -> Command {
    let mut command = Command::new(program.as_ref());
    command.current_dir(folder).env_clear();
    for variable in ["PATH", "HOME"] {
        command.envs(std::env::var_os(variable).map(|value| (variable, value)));
    }
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// An address that is free now.
pub fn free_address() -> SocketAddr {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap()
}

impl Server {
    /// Starts a server that listens on `address`, and waits until it answers `ready` with 200. What it says on stderr is
    /// kept in the folder, unless it goes elsewhere already.
    pub fn start(
        name: &'static str,
        mut command: Command,
        address: SocketAddr,
        ready: &str,
        log: Option<&Path>,
    ) -> Self {
        let log =
            log.map_or_else(|| PathBuf::from("/dev/null"), |folder| folder.join(format!("{}.log", address.port())));
        command.stderr(File::create(&log).unwrap());
        let began = Instant::now();
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {:?}: {error}", command.get_program()));
        let clock = clock_getcpuclockid(Pid::from_raw(child.id().cast_signed())).unwrap();
        let mut server = Self { name, address, took: Duration::ZERO, child, clock, log };
        let is_ready = || {
            let answer = Client::connect(address).and_then(|mut client| client.send(&get(ready)));
            answer.is_ok_and(|answer| answer.status == 200)
        };
        while !is_ready() {
            server.assert_alive();
            assert!(began.elapsed() < START_TIMEOUT, "{name}: not ready within {START_TIMEOUT:?}: {}", server.said());
            std::thread::sleep(Duration::from_micros(200));
        }
        server.took = began.elapsed();
        server
    }

    /// User and system time of all its threads, those that ended included, to the nanosecond.
    pub fn cpu(&mut self) -> Duration {
        self.assert_alive();
        clock_gettime(self.clock).unwrap().into()
    }

    /// Bytes resident now.
    pub fn resident(&self) -> f64 {
        memory(self.child.id(), "VmRSS").expect("the server runs")
    }

    /// Bytes resident at most, ever.
    pub fn peak(&self) -> f64 {
        memory(self.child.id(), "VmHWM").expect("the server runs")
    }

    fn assert_alive(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{}: ended, {status}: {}", self.name, self.said());
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a command went that ended by itself.
pub struct Ended {
    pub took: Duration,
    /// Bytes resident at most.
    pub peak: f64,
}

/// Runs a command to its end, which must be a good one, and watches its memory.
pub fn watched(mut command: Command) -> Ended {
    let said = tempfile::NamedTempFile::new().unwrap();
    command.stderr(said.reopen().unwrap());
    let began = Instant::now();
    let mut child = command.spawn().unwrap();
    let mut peak = 0.0_f64;
    // The peak never falls, so what is missed are the last milliseconds.
    let status = loop {
        peak = peak.max(memory(child.id(), "VmHWM").unwrap_or(0.0));
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let took = began.elapsed();
    assert!(status.success(), "{command:?}: {status}: {}", std::fs::read_to_string(said.path()).unwrap_or_default());
    Ended { took, peak }
}

/// Runs a command to its end, which must be a good one; nothing is done beside it.
pub fn timed(mut command: Command) -> Duration {
    let began = Instant::now();
    let status = command.status().unwrap();
    let took = began.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}

/// A line of `/proc/PID/status`, in bytes; none once the process has ended.
fn memory(pid: u32, field: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<f64>().ok()? * 1024.0)
}
