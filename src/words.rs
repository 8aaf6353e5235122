//! What the program says on stderr beside its log: one line a time, with its name.

use std::io::Write;
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
        let _ = std::io::stderr().write_all(line.as_bytes());
        let _ = written.send(());
    });
    let _ = done.recv_timeout(PATIENCE);
}

/// Says lines, and waits until all are read; for threads that may block.
pub fn say_all(lines: &[String]) {
    for text in lines {
        if std::io::stderr().write_all(line(text).as_bytes()).is_err() {
            return;
        }
    }
}

fn line(text: &str) -> String {
    format!("api-monitoring: {}\n", causes::one_line(text))
}
