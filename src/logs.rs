//! Log lines on stderr: text for people, JSON for machines.
//!
//! Lines are written by a thread of their own. When whoever reads them stalls, lines are dropped once the buffer is
//! full, and how many is said at the end: a full pipe must not stop requests.

use std::io::{IsTerminal, stderr};

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt, registry};

use crate::config::{LogConfig, LogFormat};

/// Lines kept for a slow reader: a second or so of heavy traffic, some 2 MB.
const BUFFERED_LINES: usize = 8192;

/// Keeps the writing thread; dropping it writes what is buffered.
#[derive(Debug)]
pub struct Logs {
    dropped: ErrorCounter,
    _writer: WorkerGuard,
}

/// Starts logging for the whole process, and sends panics there too.
#[must_use]
pub fn start(config: LogConfig) -> Logs {
    let (writer, guard) =
        NonBlockingBuilder::default().lossy(true).buffered_lines_limit(BUFFERED_LINES).finish(stderr());
    let dropped = writer.error_counter();
    let lines = fmt::layer().with_writer(writer);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed(),
    };
    registry().with(config.filter).with(lines).init();
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(location, reason = message, "panic");
    }));
    Logs { dropped, _writer: guard }
}

impl Drop for Logs {
    fn drop(&mut self) {
        match self.dropped.dropped_lines() {
            0 => {}
            lines => tracing::warn!(lines, "log lines were dropped: stderr was not read fast enough"),
        }
    }
}
