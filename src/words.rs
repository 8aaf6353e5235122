//! What the program says on stderr beside its log, one line a time, with its name; and what it was asked for, on stdout.

use std::io::{self, ErrorKind, Write};
use std::sync::mpsc;
use std::time::Duration;

use crate::causes;

/// How long it is waited for somebody to read a line.
const PATIENCE: Duration = Duration::from_secs(1);

/// Says a line, as far as somebody reads it: neither a closed nor a full pipe may keep the program from going on.
pub fn say(text: &str) {
    let line = line(text);
    let (written, done) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = io::stderr().write_all(line.as_bytes());
        let _ = written.send(());
    });
    let _ = done.recv_timeout(PATIENCE);
}

/// Says lines, and waits until all are read; for threads that may block.
pub fn say_all(lines: &[String]) {
    for text in lines {
        if io::stderr().write_all(line(text).as_bytes()).is_err() {
            return;
        }
    }
}

/// Writes to stdout what was asked for, to the last byte.
///
/// # Errors
///
/// When it cannot be written, for lack of room, say. That nobody reads any more (`| head`) is no failure.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    unless_closed(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()))
}

/// A failed write, unless it failed because whoever read has seen enough.
///
/// # Errors
///
/// See there.
pub fn unless_closed(written: io::Result<()>) -> io::Result<()> {
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

fn line(text: &str) -> String {
    format!("api-monitoring: {}\n", causes::one_line(text))
}
