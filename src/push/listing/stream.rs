//! An answer as a parser wants it: bytes to read, on a thread of its own.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use reqwest::Response;
use tokio::sync::mpsc;

use super::{Group, Question, read};

/// How much of a listing is read: some 100,000 series.
const LISTING_MAX: usize = 64 * 1024 * 1024;

/// Chunks that are there before they are read.
const CHUNKS: usize = 2;

/// The longest text that is read, in characters; a sample's label may be as long as a metrics file.
const TEXT_MAX: usize = 8 * 1024 * 1024;

/// The longest number or word.
const WORD_MAX: usize = 1024;

/// How deep objects and lists may stand in each other. The gateway's own go to seven.
const DEPTH_MAX: usize = 64;

/// Reads a listing as it comes. The parser is not the runtime's: a deadline holds, however much there is to read. When
/// this is dropped, the parser finds the end of its input and ends too.
pub(in crate::push) async fn stream(
    mut response: Response,
    question: &Arc<Question>,
) -> Result<Option<Group>, StreamError> {
    let (sender, receiver) = mpsc::channel(CHUNKS);
    let question = Arc::clone(question);
    let chunks = Chunks { receiver, chunk: Bytes::new(), guard: Guard::default() };
    let parser = tokio::task::spawn_blocking(move || read(BufReader::new(chunks), &question));
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.map_err(StreamError::Broken)? {
        length += chunk.len();
        if length > LISTING_MAX {
            return Err(StreamError::Unreadable(format!("it is longer than {LISTING_MAX} bytes").into()));
        }
        // The parser may have found a fault, which it will tell.
        if sender.send(chunk).await.is_err() {
            break;
        }
    }
    drop(sender);
    parser.await.map_err(StreamError::Ended)?.map_err(|error| StreamError::Unreadable(error.into()))
}

/// Why a listing cannot be read.
#[derive(Debug)]
pub(in crate::push) enum StreamError {
    /// The connection broke.
    Broken(reqwest::Error),
    /// It is no listing, or too large.
    Unreadable(Box<dyn std::error::Error + Send + Sync>),
    /// The runtime ended.
    Ended(tokio::task::JoinError),
}

/// Chunks as a reader. It waits for each, on a thread that may.
struct Chunks {
    receiver: mpsc::Receiver<Bytes>,
    chunk: Bytes,
    guard: Guard,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() {
            let Some(chunk) = self.receiver.blocking_recv() else { return Ok(0) };
            self.guard.pass(&chunk).map_err(io::Error::other)?;
            self.chunk = chunk;
        }
        let length = buffer.len().min(self.chunk.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Sees to it that a parser of JSON stays small: what it must hold at once are texts, numbers and how deep it is, also
/// of what it passes over.
#[derive(Debug, Default)]
struct Guard {
    depth: usize,
    /// Of the text or the word at hand.
    length: usize,
    in_text: bool,
    /// How many more characters belong to an escape sequence.
    escaped: usize,
}

impl Guard {
    /// Looks at what comes next; refuses what is too much.
    fn pass(&mut self, json: &[u8]) -> Result<(), String> {
        for byte in json {
            if self.in_text {
                self.text(*byte)?;
            } else {
                self.outside(*byte)?;
            }
        }
        Ok(())
    }

    fn text(&mut self, byte: u8) -> Result<(), String> {
        match (self.escaped, byte) {
            (0, b'"') => {
                self.in_text = false;
                self.length = 0;
            }
            (0, b'\\') => self.escaped = 1,
            (0, _) => self.length += 1,
            // `\u` and four digits.
            (1, b'u') => self.escaped = 4,
            (more, _) => {
                self.escaped = more - 1;
                self.length += usize::from(more == 1);
            }
        }
        if self.length > TEXT_MAX { Err(format!("a text in it is longer than {TEXT_MAX} characters")) } else { Ok(()) }
    }

    fn outside(&mut self, byte: u8) -> Result<(), String> {
        self.length += 1;
        match byte {
            b'"' => self.in_text = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => self.depth = self.depth.saturating_sub(1),
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ if self.length > WORD_MAX => return Err(format!("a word in it is longer than {WORD_MAX} characters")),
            _ => return Ok(()),
        }
        self.length = 0;
        if self.depth > DEPTH_MAX { Err(format!("it is deeper than {DEPTH_MAX} levels")) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_parser_would_have_to_hold_is_refused() {
        let passes = |json: &str| {
            json.as_bytes().chunks(7).fold(Ok(()), {
                let mut guard = Guard::default();
                move |so_far: Result<(), String>, chunk| so_far.and_then(|()| guard.pass(chunk))
            })
        };
        let text = |length| format!("[\"{}\"]", "x".repeat(length));
        let escaped = |length| format!("[\"{}\\\"\"]", "\\u003c".repeat(length));
        let nested = |depth| format!("{}{}", "[".repeat(depth), "]".repeat(depth));

        for fine in [text(TEXT_MAX), escaped(TEXT_MAX - 1), nested(DEPTH_MAX), "[],".repeat(999), " ".repeat(9999)] {
            assert_eq!(passes(&fine), Ok(()), "{fine:.20}");
        }
        for (bad, reason) in [
            (text(TEXT_MAX + 1), "a text in it is longer than 8388608 characters"),
            (escaped(TEXT_MAX), "a text in it is longer than 8388608 characters"),
            (nested(DEPTH_MAX + 1), "it is deeper than 64 levels"),
            ("1".repeat(WORD_MAX + 1), "a word in it is longer than 1024 characters"),
        ] {
            assert_eq!(passes(&bad), Err(reason.to_owned()));
        }
    }
}
