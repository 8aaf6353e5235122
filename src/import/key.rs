//! Under which key the progress of a file is kept.

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Cursor, ErrorKind, Read};

use memchr::memchr;
use sha2::{Digest, Sha256};

use super::head::{BYTE_ORDER_MARK, Head};
use crate::config::ImportFormat;

/// Read at once.
const BUFFER: usize = 128 * 1024;

/// The key of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileKey {
    /// Names what the file holds and the form in which it is read, since what is no user in one may be one in the other.
    pub(super) key: String,
    /// The key that version 0.1.0 used, where it took several lines of this file for one row. How many rows it had done
    /// then tells nothing about which lines are done.
    pub(super) earlier: Option<String>,
}

impl FileKey {
    /// Reads a file to its end: its length and its key.
    pub(super) fn of(input: &mut impl Read, format: Option<ImportFormat>) -> io::Result<(u64, Self)> {
        let head = Head::read(input)?;
        let format = format.unwrap_or(head.format);
        let mut digest = Sha256::new();
        let mut rows = EarlierRows::of(format);
        let mut input = BufReader::with_capacity(BUFFER, Cursor::new(head.bytes).chain(input));
        let mut length = 0;
        loop {
            let read = match input.fill_buf() {
                Ok([]) => break,
                Ok(bytes) => {
                    digest.update(bytes);
                    let mark = if length == 0 { BYTE_ORDER_MARK.as_bytes() } else { &[] };
                    rows.read(bytes.strip_prefix(mark).unwrap_or(bytes));
                    bytes.len()
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            input.consume(read);
            length += read as u64;
        }
        let mut key = "sha256:".to_owned();
        digest.finalize().iter().try_for_each(|byte| write!(key, "{byte:02x}")).expect("text takes any text");
        key.push_str(match format {
            ImportFormat::Csv => ":csv",
            ImportFormat::JsonLines => ":jsonl",
        });
        let earlier = rows.spanned_lines.then(|| key.clone());
        if earlier.is_some() {
            key.push_str(":lines");
        }
        Ok((length, Self { key, earlier }))
    }
}

/// Rows as version 0.1.0 read them: a CSV field in quotes, and a JSON line with lone CRs, could span lines.
struct EarlierRows {
    place: Place,
    spanned_lines: bool,
}

/// Where in a row a reader is.
#[derive(Clone, Copy)]
enum Place {
    CsvFieldBegins,
    CsvField,
    CsvQuotes,
    /// Behind a quote in quotes: the closing one, or the first of two.
    CsvQuote,
    Json,
    JsonAfterCr,
}

impl EarlierRows {
    fn of(format: ImportFormat) -> Self {
        let place = match format {
            ImportFormat::Csv => Place::CsvFieldBegins,
            ImportFormat::JsonLines => Place::Json,
        };
        Self { place, spanned_lines: false }
    }

    fn read(&mut self, bytes: &[u8]) {
        let plain = match self.place {
            Place::CsvFieldBegins | Place::CsvField => memchr(b'"', bytes).is_none(),
            Place::Json => memchr(b'\r', bytes).is_none(),
            Place::CsvQuotes | Place::CsvQuote | Place::JsonAfterCr => false,
        };
        // Where nothing spans lines, as almost everywhere, the last byte says where the next ones begin.
        let from = if plain { bytes.len().saturating_sub(1) } else { 0 };
        for byte in &bytes[from..] {
            self.place = match (self.place, byte) {
                (Place::CsvFieldBegins | Place::CsvQuote, b'"') => Place::CsvQuotes,
                (Place::CsvQuotes, b'"') => Place::CsvQuote,
                (Place::CsvQuotes, byte) => {
                    self.spanned_lines |= matches!(byte, b'\n' | b'\r');
                    Place::CsvQuotes
                }
                (Place::CsvFieldBegins | Place::CsvField | Place::CsvQuote, b',' | b'\n' | b'\r') => {
                    Place::CsvFieldBegins
                }
                (Place::CsvFieldBegins | Place::CsvField | Place::CsvQuote, _) => Place::CsvField,
                (Place::JsonAfterCr, b'\n') => Place::Json,
                (place @ (Place::Json | Place::JsonAfterCr), byte) => {
                    self.spanned_lines |= matches!(place, Place::JsonAfterCr);
                    if *byte == b'\r' { Place::JsonAfterCr } else { Place::Json }
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key(text: &str, format: Option<ImportFormat>) -> FileKey {
        FileKey::of(&mut text.as_bytes(), format).unwrap().1
    }

    #[test]
    fn the_key_of_a_file_names_its_content_and_its_form() {
        // The example of FIPS 180-2, appendix B.1.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key("abc", None), FileKey { key: format!("{abc}:csv"), earlier: None });
        let json_lines = key("abc", Some(ImportFormat::JsonLines));
        assert_eq!(json_lines, FileKey { key: format!("{abc}:jsonl"), earlier: None });
    }

    #[test]
    fn a_file_whose_rows_spanned_lines_has_another_key_than_before() {
        for (text, spanned) in [
            ("name,email\n\"A,a@example.com\nB,b@example.com\n", true),
            ("name,email\nA,\"\r\"\n", true),
            ("\u{feff}\"name\n\",email", true),
            ("name,email\n\"A, \"\"B\"\"\",a@example.com\r\n\"C\"x,Bo\"b\n", false),
            ("name,email\rA,a@example.com\r", false),
            ("name,email\n\"A", false),
            ("{}\r{}\r", true),
            ("{}\r\n{}\n{}\r", false),
        ] {
            let FileKey { key, earlier } = key(text, None);

            assert_eq!(earlier.is_some(), spanned, "{text:?}");
            assert_eq!(key, earlier.map_or(key.clone(), |earlier| earlier + ":lines"), "{text:?}");
        }
    }

    /// How many rows version 0.1.0 counted below the header.
    fn earlier_rows(text: &str) -> usize {
        csv::ReaderBuilder::new().flexible(true).from_reader(text.as_bytes()).byte_records().count()
    }

    proptest! {
        #[test]
        fn a_csv_file_under_its_old_key_has_as_many_rows_as_before(rows in "[a,\" \r\n]{0,60}") {
            let text = format!("name,email\n{rows}");
            if key(&text, Some(ImportFormat::Csv)).earlier.is_none() {
                let rows = super::super::chunks::count(&text);
                prop_assert_eq!(rows, earlier_rows(&text));
            }
        }
    }
}
