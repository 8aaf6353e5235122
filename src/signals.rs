//! SIGTERM, SIGINT and SIGHUP: the first asks for a clean end, the second demands one at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

/// The process's signals, caught from [`Signals::catch`] on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    /// A file at its limit of size is an error like a full disk, and not the end.
    _file_size: Signal,
    /// `None` where it is ignored, as `nohup` wants it.
    hangup: Option<Signal>,
}

/// A second signal; its number makes the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("ended at once by a second signal")]
pub struct SecondSignal(i32);

impl SecondSignal {
    /// 128 + the signal's number, as shells do.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        u8::try_from(128 + self.0).unwrap_or(u8::MAX)
    }
}

impl Signals {
    /// Catches them from now on. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// When the system refuses to install a handler.
    pub fn catch() -> io::Result<Self> {
        let hangup = SignalKind::hangup();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            _file_size: signal(SignalKind::from_raw(nix::libc::SIGXFSZ))?,
            hangup: if Ignored::now().holds(hangup) { None } else { Some(signal(hangup)?) },
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            () = received(self.hangup.as_mut()) => SignalKind::hangup(),
        }
    }

    /// Runs `work` with a future that resolves at the first signal; a second signal abandons the work.
    ///
    /// # Errors
    ///
    /// When a second signal came before the work was done.
    pub async fn guard<T>(mut self, work: impl AsyncFnOnce(Stop) -> T) -> Result<T, SecondSignal> {
        let (stop, stopped) = watch::channel(None);
        let work = work(Stop(stopped));
        let second = async {
            stop.send_replace(Some(self.next().await));
            SecondSignal(self.next().await.as_raw_value())
        };
        tokio::select! {
            done = work => Ok(done),
            signal = second => Err(signal),
        }
    }
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// The signals that this process ignores. One that was ignored when it began stays so, as `nohup` wants it: to catch it
/// would undo that, for this process and for those that it starts.
#[derive(Debug, Clone, Copy)]
pub struct Ignored {
    mask: u64,
}

impl Ignored {
    /// Those of this moment; none where that cannot be read (it can on Linux).
    #[must_use]
    pub fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Self { mask: mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0) }
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn holds(self, signal: SignalKind) -> bool {
        self.mask & (1 << (signal.as_raw_value() - 1)) != 0
    }
}

/// Tells when the first signal has come.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<Option<SignalKind>>);

impl Stop {
    /// 128 + the first signal's number, once it has come.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        let signal = (*self.0.borrow())?;
        Some(SecondSignal(signal.as_raw_value()).exit_code())
    }

    /// Resolves at the first signal.
    pub async fn requested(mut self) {
        if self.0.wait_for(Option::is_some).await.is_err() {
            // The guard is gone, and this future with it.
            std::future::pending::<()>().await;
        }
    }
}
