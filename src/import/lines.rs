//! The lines of a source. LF, CR LF and a lone CR each end one, so that numbers agree with what an editor shows.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};

use memchr::memchr2;

/// The longest line that is read whole, in bytes. A user takes 13 kB at most, with every character escaped.
pub(super) const LINE_MAX: usize = 1024 * 1024;

/// Read at once.
const BUFFER: usize = 128 * 1024;

/// One line, without what ends it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// From 1.
    pub(super) number: u64,
    /// Longer than [`LINE_MAX`] if only its beginning is here.
    pub(super) text: &'a [u8],
}

/// Reads lines. However long one is, memory holds its beginning and no more.
pub(super) struct Lines<R> {
    input: BufReader<R>,
    /// How many bytes are read.
    pub(super) bytes: u64,
    number: u64,
    text: Vec<u8>,
    /// The end of the current line is not read yet.
    open: bool,
    /// The last line ended with CR; an LF that follows belongs to it.
    after_cr: bool,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(input: R) -> Self {
        let input = BufReader::with_capacity(BUFFER, input);
        Self { input, bytes: 0, number: 0, text: Vec::new(), open: false, after_cr: false }
    }

    /// The next line; `None` at the end.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        // The rest of a line that was too long.
        while self.open {
            self.text.clear();
            self.append()?;
        }
        self.text.clear();
        if !self.append()? {
            return Ok(None);
        }
        while self.open && self.text.len() <= LINE_MAX {
            self.append()?;
        }
        self.number += 1;
        Ok(Some(Line { number: self.number, text: &self.text }))
    }

    /// The text of the line that was read last.
    pub(super) fn current(&self) -> &[u8] {
        &self.text
    }

    /// Appends what is in the buffer of the current line; false at the end of the source.
    fn append(&mut self) -> io::Result<bool> {
        self.fill()?;
        if self.after_cr && self.input.buffer().first() == Some(&b'\n') {
            self.consume(1);
            self.fill()?;
        }
        self.after_cr = false;
        let buffered = self.input.buffer();
        if buffered.is_empty() {
            self.open = false;
            return Ok(false);
        }
        let end = memchr2(b'\n', b'\r', buffered);
        let text = &buffered[..end.unwrap_or(buffered.len())];
        self.text.extend_from_slice(text);
        self.open = end.is_none();
        self.after_cr = end.is_some_and(|end| buffered[end] == b'\r');
        let read = text.len() + usize::from(end.is_some());
        self.consume(read);
        Ok(true)
    }

    fn fill(&mut self) -> io::Result<()> {
        loop {
            match self.input.fill_buf() {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                filled => return filled.map(|_| ()),
            }
        }
    }

    fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.bytes += bytes as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// Gives a few bytes at a time, as a pipe may.
    struct Trickle(Cursor<Vec<u8>>, usize);

    impl Read for Trickle {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(self.1);
            self.0.read(&mut buffer[..most])
        }
    }

    fn lines(text: &[u8], at_once: usize) -> Vec<(u64, Vec<u8>)> {
        let mut lines = Lines::new(Trickle(Cursor::new(text.to_vec()), at_once));
        let mut read = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            read.push((line.number, line.text.to_vec()));
        }
        assert_eq!(lines.bytes, text.len() as u64, "every byte is read");
        read
    }

    /// The same by the standard library, which knows only LF.
    fn expected(text: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let text = String::from_utf8(text.to_vec()).unwrap().replace("\r\n", "\n").replace('\r', "\n");
        (1..).zip(text.lines().map(|line| line.as_bytes().to_vec())).collect()
    }

    #[test]
    fn each_way_to_end_a_line_counts_as_one() {
        for text in ["", "a", "a\n", "a\r", "a\r\n", "\n\r\r\n\r", "a\nb\rc\r\nd", "a\r\rb\n\nc\r\n\r\nd", "\r\n\n\r"] {
            for at_once in [1, 2, 3, 100] {
                assert_eq!(lines(text.as_bytes(), at_once), expected(text.as_bytes()), "{text:?}, {at_once} at once");
            }
        }
    }

    #[test]
    fn of_a_line_that_is_too_long_the_beginning_is_kept_and_the_next_line_is_found() {
        let text = format!("a\n{}\r\nb\n{}", "x".repeat(5 * LINE_MAX), "y".repeat(5 * LINE_MAX));

        let mut lines = Lines::new(Cursor::new(text.as_bytes()));

        assert_eq!(lines.next().unwrap(), Some(Line { number: 1, text: b"a" }));
        let long = lines.next().unwrap().unwrap();
        assert!(long.number == 2 && long.text.len() > LINE_MAX, "line {}: {} bytes", long.number, long.text.len());
        assert_eq!(lines.next().unwrap(), Some(Line { number: 3, text: b"b" }));
        assert_eq!(lines.next().unwrap().map(|long| long.number), Some(4));
        assert_eq!(lines.next().unwrap(), None);
        assert!(lines.text.capacity() < 4 * LINE_MAX, "{} bytes kept", lines.text.capacity());
        assert_eq!(lines.bytes, text.len() as u64);
    }

    proptest! {
        #[test]
        fn lines_and_numbers_are_the_same_however_the_bytes_arrive(text in "[a\r\n]{0,40}", at_once in 1_usize..8) {
            prop_assert_eq!(lines(text.as_bytes(), at_once), expected(text.as_bytes()));
        }
    }
}
