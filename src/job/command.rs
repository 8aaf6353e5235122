//! One command: started, signalled, timed, and waited for.
//!
//! At a terminal the command shares the wrapper's process group, so that it can read the terminal and Ctrl-C reaches it
//! as it would without the wrapper. Everywhere else (cron, systemd, containers, CI) it leads a group of its own, so that
//! signals and the time-out reach whatever it started too.

use std::ffi::OsStr;
use std::fs::File;
use std::future::poll_fn;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{getpgrp, tcgetpgrp};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, kill_process_group, test_kill_process_group, waitpgid,
};
use tokio::process::Child;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal as listen};
use tokio::time::{Instant, sleep, sleep_until};

use super::OWN_FAILURE;
use crate::config::{JobCommand, METRICS_FILE_MARK};
use crate::metrics::Usage;
use crate::signals::Ignored;

/// Names the file into which the command may write metrics of its own.
pub const METRICS_FILE_VARIABLE: &str = "JOB_METRICS_FILE";

/// As for `timeout`, `env` and shells.
const TIMED_OUT: u8 = 124;
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// How often it is asked whether a group that was told to end is gone.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// The last signal that a system may have: Linux counts to 64.
const LAST_SIGNAL: i32 = 64;

/// The signals that are not passed on. Two cannot be caught; some are a fault of the process that gets them. SIGCHLD is
/// about the command, SIGPIPE about our own output. The terminal stops whoever uses it from the background.
const NOT_PASSED_ON: [Signal; 10] = [
    Signal::KILL,
    Signal::STOP,
    Signal::ILL,
    Signal::BUS,
    Signal::FPE,
    Signal::SEGV,
    Signal::CHILD,
    Signal::PIPE,
    Signal::TTIN,
    Signal::TTOU,
];

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit code for the wrapper.
    pub exit_code: u8,
    /// What it used, if it ran.
    pub usage: Option<Usage>,
    /// What there is to say about it, if its own output does not say it.
    pub reason: Option<String>,
}

/// A command that was started, or could not be.
#[derive(Debug)]
pub struct Running {
    child: Result<Child, Ended>,
    receiver: Receiver,
    timeout: Option<Duration>,
    kill_after: Duration,
    began: Instant,
}

/// Who gets the signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receiver {
    /// The command alone: its group is ours too, and the terminal's.
    Process,
    /// The command's group.
    Group,
}

/// The signals that are passed on: all that can be.
#[derive(Debug)]
pub struct Forwarded {
    streams: Vec<(Signal, Stream)>,
    /// Where SIGCHLD is ignored, the system throws away how a command ended; caught, it does not.
    _child: Stream,
}

impl Forwarded {
    /// Catches them from now on. What is ignored already stays ignored, as `nohup` wants it.
    ///
    /// # Errors
    ///
    /// When the system refuses to install a handler.
    pub fn catch() -> io::Result<Self> {
        let ignored = Ignored::now();
        // At a terminal Ctrl-Z stops the command as it does us; the shell waits for that.
        let stopped_together = Receiver::now() == Receiver::Process;
        let is_left_out =
            |signal: &Signal| NOT_PASSED_ON.contains(signal) || (*signal == Signal::TSTP && stopped_together);
        let mut streams = Vec::new();
        for signal in (1..=LAST_SIGNAL).filter_map(signal_of).filter(|signal| !is_left_out(signal)) {
            let kind = SignalKind::from_raw(signal.as_raw());
            if !ignored.holds(kind) {
                streams.push((signal, listen(kind)?));
            }
        }
        // Of a stop and a continuation that come together, the continuation is the later one.
        streams.sort_by_key(|(signal, _)| *signal == Signal::CONT);
        Ok(Self { streams, _child: listen(SignalKind::child())? })
    }

    async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let caught = self.streams.iter_mut().find_map(|(signal, stream)| {
                matches!(stream.poll_recv(context), Poll::Ready(Some(()))).then_some(*signal)
            });
            caught.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Resolves at the next signal that asks for an end.
    pub async fn any(&mut self) {
        loop {
            match self.next().await {
                Signal::TSTP => {
                    self.stop();
                }
                // Without a handler, nothing comes of them either.
                Signal::CONT | Signal::WINCH | Signal::URG => {}
                _ => return,
            }
        }
    }

    /// Stops this process, unless it was told to go on since; then it gives that signal, which is still to be passed on.
    fn stop(&mut self) -> Option<Signal> {
        let mut context = Context::from_waker(Waker::noop());
        let (go_on, stream) = self.streams.iter_mut().find(|(signal, _)| *signal == Signal::CONT)?;
        if stream.poll_recv(&mut context).is_ready() {
            return Some(*go_on);
        }
        let _ = kill_process(getpid(), Signal::STOP);
        None
    }
}

/// The signal of that number, if there is one.
#[cfg(target_os = "linux")]
fn signal_of(number: i32) -> Option<Signal> {
    rustix_libc_wrappers::process::SignalExt::from_raw(number)
}

/// The signal of that number, if there is one.
#[cfg(not(target_os = "linux"))]
fn signal_of(number: i32) -> Option<Signal> {
    Signal::from_named_raw(number)
}

impl Receiver {
    fn now() -> Self {
        if at_a_terminal() { Self::Process } else { Self::Group }
    }
}

impl Running {
    /// Starts a command; its time-out runs from now.
    #[must_use]
    pub fn start(command: &JobCommand, metrics_file: Option<&Path>) -> Self {
        let receiver = Receiver::now();
        let prepare = |mut process: tokio::process::Command| {
            process.args(&command.arguments);
            if let Some(file) = metrics_file {
                process.env(METRICS_FILE_VARIABLE, file).env(METRICS_FILE_MARK, file);
            }
            if receiver == Receiver::Group {
                process.process_group(0);
            }
            process
        };
        let child = match prepare(tokio::process::Command::new(&command.program)).spawn() {
            // A script without an interpreter's name: shells run it themselves, and so do `env` and `timeout`.
            Err(error) if error.raw_os_error() == Some(Errno::ENOEXEC as i32) => match text_file(&command.program) {
                Some(script) => {
                    let mut shell = tokio::process::Command::new("/bin/sh");
                    shell.arg(script);
                    prepare(shell).spawn()
                }
                None => Err(error),
            },
            spawned => spawned,
        };
        let child = child.map_err(|error| cannot_run(command, &error));
        Self { child, receiver, timeout: command.timeout, kill_after: command.kill_after, began: Instant::now() }
    }

    /// Waits for the end, passing signals on.
    pub async fn end(self, signals: &mut Forwarded) -> Ended {
        let Self { child, receiver, timeout, kill_after, began } = self;
        let mut child = match child {
            Ok(child) => child,
            Err(ended) => return ended,
        };
        let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) else {
            return Ended {
                exit_code: OWN_FAILURE,
                usage: None,
                reason: Some("the command has no process".to_owned()),
            };
        };
        let target = Target { pid, receiver };
        let mut terminate_at = timeout.map(|after| began + after);
        let mut kill_at = None;
        // What outlives a command that was told to end is ended, too.
        let mut outlive_until = None;
        let status = loop {
            tokio::select! {
                biased;
                status = child.wait() => break status,
                signal = signals.next() => {
                    target.forward(signal);
                    match signal {
                        Signal::TERM | Signal::INT => outlive_until = Some(Instant::now() + kill_after),
                        // The command has stopped; a shell that has both in the foreground waits until we have, too.
                        Signal::TSTP => {
                            if let Some(go_on) = signals.stop() {
                                target.forward(go_on);
                            }
                        }
                        _ => {}
                    }
                }
                () = at(terminate_at) => {
                    target.send(Signal::TERM);
                    // A stopped process would not notice.
                    target.send(Signal::CONT);
                    terminate_at = None;
                    kill_at = Some(Instant::now() + kill_after);
                }
                () = at(kill_at.filter(|_| terminate_at.is_none())) => {
                    target.send(Signal::KILL);
                    // Sent once more if need be: what the command starts meanwhile belongs to its group too.
                    kill_at = Some(Instant::now() + ASK_AGAIN);
                }
            }
        };
        let timed_out = timeout.is_some() && terminate_at.is_none();
        if let Some(kill_at) = kill_at.or(outlive_until).filter(|_| receiver == Receiver::Group) {
            target.outlast(kill_at).await;
        }
        match status {
            Ok(status) => Ended {
                exit_code: if timed_out { TIMED_OUT } else { exit_code(status) },
                usage: usage(UsageWho::RUSAGE_CHILDREN),
                reason: timeout
                    .filter(|_| timed_out)
                    .map(|after| format!("the command timed out after {}", humantime::format_duration(after))),
            },
            Err(error) => Ended {
                exit_code: OWN_FAILURE,
                usage: None,
                reason: Some(format!("the command cannot be waited for: {error}")),
            },
        }
    }
}

/// Where signals for the command go.
#[derive(Debug, Clone, Copy)]
struct Target {
    pid: Pid,
    receiver: Receiver,
}

impl Target {
    /// Passes on a signal that the wrapper got.
    fn forward(self, signal: Signal) {
        // What the terminal sends (Ctrl-C, Ctrl-\, a new size) the command in its group has got already; a second one
        // makes many programs give up at once.
        let from_the_terminal = matches!(signal, Signal::INT | Signal::QUIT | Signal::WINCH);
        if self.receiver == Receiver::Group || !from_the_terminal {
            self.send(signal);
        }
    }

    fn send(self, signal: Signal) {
        // It may have ended meanwhile.
        let _ = match self.receiver {
            Receiver::Process => kill_process(self.pid, signal),
            Receiver::Group => kill_process_group(self.pid, signal),
        };
    }

    /// Waits until nothing of the group is left, and ends what is left at `kill_at`.
    async fn outlast(self, kill_at: Instant) {
        while test_kill_process_group(self.pid) != Err(rustix::io::Errno::SRCH) {
            // As a container's first process we inherit what is left of the group, and must bury it.
            let _ = waitpgid(self.pid, WaitOptions::NOHANG);
            if Instant::now() >= kill_at {
                return self.send(Signal::KILL);
            }
            sleep(ASK_AGAIN).await;
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Whether the wrapper is in the foreground of a terminal.
fn at_a_terminal() -> bool {
    File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(&terminal) == Ok(getpgrp()))
}

/// The file of a program that is text, as far as its beginning tells: a shell would take another machine's program for one
/// line of nonsense after the other.
fn text_file(program: &OsStr) -> Option<PathBuf> {
    let file = if program.as_bytes().contains(&b'/') { PathBuf::from(program) } else { on_the_path(program)? };
    let mut beginning = [0; 128];
    let read = File::open(&file).and_then(|mut file| file.read(&mut beginning)).ok()?;
    (!beginning[..read].contains(&0)).then_some(file)
}

/// Where the system finds a program by its name.
#[allow(clippy::disallowed_methods, reason = "where commands are looked up is no setting of ours")]
fn on_the_path(program: &OsStr) -> Option<PathBuf> {
    let runs = |file: &PathBuf| std::fs::metadata(file).is_ok_and(|found| found.is_file() && found.mode() & 0o111 != 0);
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(runs)
}

fn cannot_run(command: &JobCommand, error: &io::Error) -> Ended {
    let exit_code = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => NOT_FOUND,
        // The system has no room for another process: nothing is wrong with the command.
        Some(Errno::EAGAIN | Errno::ENOMEM) => OWN_FAILURE,
        _ => NOT_EXECUTABLE,
    };
    Ended { exit_code, usage: None, reason: Some(format!("cannot run {}: {error}", command.program.display())) }
}

fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(OWN_FAILURE)
}

/// What processes have used; `None` when the system does not say.
pub(crate) fn usage(who: UsageWho) -> Option<Usage> {
    let usage = getrusage(who).ok()?;
    let time = |time: TimeVal| Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or(0));
    // Linux and the BSDs count in KiB, macOS in bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Some(Usage {
        user: time(usage.user_time()),
        system: time(usage.system_time()),
        max_resident_memory_bytes: u64::try_from(usage.max_rss()).unwrap_or(0) * unit,
    })
}
