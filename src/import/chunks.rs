//! The rows of a source, a chunk at a time.

use std::io::{Chain, Cursor, Read};

use serde::Serialize;

use super::csv::{self, Csv};
use super::head::{BYTE_ORDER_MARK, Head};
use super::json;
use super::lines::{LINE_MAX, Line, Lines};
use super::row::{Row, cut};
use super::source::{Source, SourceError};
use crate::config::ImportFormat;
use crate::users::NewUser;

/// Rows in one transaction: enough that its cost is shared by many, few enough that a service on the same database waits
/// for well under a second.
pub(super) const CHUNK_ROWS: u64 = 5_000;

/// Rejected rows are kept until their chunk is done; when they take more than this, it is done.
const REJECTED_MAX: usize = 4 * 1024 * 1024;

/// Some rows, in their order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// How many rows of the source this is, empty ones included.
    pub(super) rows: u64,
    pub(super) users: Vec<NewUser>,
    pub(super) rejected: Vec<Rejected>,
    /// Rows before these that were left out, without the empty ones.
    pub(super) skipped: u64,
    /// How many bytes of the source are read.
    pub(super) bytes: u64,
}

/// A row that makes no user. Serialised, it is a line of the rejects file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// Its line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
    /// The row; what of it is not UTF-8 is replaced, and of a line that is too long there is only the beginning.
    pub row: String,
}

/// Reads a source to its end in chunks, leaving out the first `skip` rows. Blocks; ends early when `take` wants no more.
/// What comes before an error is taken, too.
pub(super) fn read(
    source: Source,
    skip: u64,
    max_errors: u64,
    mut take: impl FnMut(Chunk) -> bool,
) -> Result<(), SourceError> {
    let mut rows = Rows::begin(source)?;
    let mut chunk = Chunk::default();
    let (mut left_out, mut rejected, mut weight) = (0, 0, 0);
    let ended = loop {
        let (line, row) = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        if left_out < skip {
            left_out += 1;
            chunk.skipped += u64::from(row != Row::Empty);
            continue;
        }
        match row {
            Row::User(user) => chunk.users.push(user),
            Row::Empty => {}
            Row::Rejected(reason) if rejected == max_errors => {
                break Err(SourceError::TooMany { name: rows.name.clone(), allowed: max_errors, line, reason });
            }
            Row::Rejected(reason) => {
                let row = rows.shown();
                rejected += 1;
                weight += row.len();
                chunk.rejected.push(Rejected { line, reason, row });
            }
        }
        chunk.rows += 1;
        if chunk.rows == CHUNK_ROWS || weight > REJECTED_MAX {
            weight = 0;
            let done = Chunk { bytes: rows.lines.bytes, ..std::mem::take(&mut chunk) };
            if !take(done) {
                return Ok(());
            }
        }
    };
    if chunk.rows > 0 || chunk.skipped > 0 {
        take(Chunk { bytes: rows.lines.bytes, ..chunk });
    }
    ended
}

/// Reads the rows of a source one after the other.
struct Rows {
    name: String,
    lines: SourceLines,
    form: Form,
}

/// The lines of a source whose beginning was read before.
type SourceLines = Lines<Chain<Cursor<Vec<u8>>, Box<dyn Read + Send>>>;

#[derive(Debug, Clone, Copy)]
enum Form {
    Csv(Csv),
    JsonLines,
}

impl Rows {
    /// Finds out the form, and reads a CSV file's header.
    fn begin(source: Source) -> Result<Self, SourceError> {
        let Source { name, format, mut input, .. } = source;
        let mut head = match Head::read(&mut input) {
            Ok(head) => head,
            Err(source) => return Err(SourceError::Read { name, source }),
        };
        if let Some(what) = head.foreign() {
            return Err(SourceError::Foreign { name, what });
        }
        if head.bytes.starts_with(BYTE_ORDER_MARK.as_bytes()) {
            head.bytes.drain(..BYTE_ORDER_MARK.len());
        }
        let mut lines = Lines::new(Cursor::new(head.bytes).chain(input));
        let form = match format.unwrap_or(head.format) {
            ImportFormat::Csv => Form::Csv(header(&name, &mut lines)?),
            ImportFormat::JsonLines => Form::JsonLines,
        };
        Ok(Self { name, lines, form })
    }

    /// The next row, with its line; `None` at the end.
    fn next(&mut self) -> Result<Option<(u64, Row)>, SourceError> {
        while let Some(line) = next(&self.name, &mut self.lines)? {
            if let Some(row) = self.form.row(line.text) {
                return Ok(Some((line.number, row)));
            }
        }
        Ok(None)
    }

    /// The row that was read last, as it is shown to people.
    fn shown(&self) -> String {
        let line = self.lines.current();
        let text = without_mark(&String::from_utf8_lossy(line)).to_owned();
        if line.len() > LINE_MAX { cut(&text) } else { text }
    }
}

impl Form {
    /// What a line says; `None` for a blank one, which is no row.
    fn row(self, line: &[u8]) -> Option<Row> {
        if line.len() > LINE_MAX {
            let reason = format!("the row is longer than {LINE_MAX} bytes, only its beginning is kept");
            return Some(Row::Rejected(reason));
        }
        let blank = match self {
            Self::Csv(_) => line.is_empty(),
            Self::JsonLines => line.trim_ascii().is_empty(),
        };
        if blank {
            return None;
        }
        let Ok(text) = std::str::from_utf8(line) else {
            return Some(Row::Rejected("the row is not UTF-8".to_owned()));
        };
        let text = without_mark(text);
        Some(match self {
            Self::Csv(csv) => csv.row(text),
            Self::JsonLines => json::row(text),
        })
    }
}

/// A CSV file's header, with the blank and empty lines before it.
fn header(name: &str, lines: &mut SourceLines) -> Result<Csv, SourceError> {
    while let Some(line) = next(name, lines)? {
        let text = String::from_utf8_lossy(line.text);
        let text = without_mark(&text);
        if let Some(csv) = Csv::of_header(text) {
            return Ok(csv);
        }
        if !csv::is_empty(text) {
            return Err(SourceError::Header { name: name.to_owned(), header: cut(text) });
        }
    }
    Err(SourceError::Empty { name: name.to_owned() })
}

fn next<'a>(name: &str, lines: &'a mut SourceLines) -> Result<Option<Line<'a>>, SourceError> {
    lines.next().map_err(|source| SourceError::Read { name: name.to_owned(), source })
}

/// A line without the byte order marks that stand before it, also in the middle of files that were joined.
fn without_mark(line: &str) -> &str {
    line.trim_start_matches(BYTE_ORDER_MARK)
}

/// How many rows a CSV text has.
#[cfg(test)]
pub(super) fn count(text: &str) -> usize {
    let mut rows = 0;
    let source = Source::of_bytes(text.as_bytes().to_vec(), Some(ImportFormat::Csv));
    read(source, 0, u64::MAX, |chunk| {
        rows += chunk.rows;
        true
    })
    .expect("it has a header");
    usize::try_from(rows).expect("a text in memory has no more")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::ImportSource;

    /// Reads a text as a file of that name: the users' names, the rejections, and how it ended.
    fn read_text(
        file_name: &str,
        text: impl AsRef<[u8]>,
        skip: u64,
        max_errors: u64,
    ) -> (Vec<String>, Vec<Rejected>, Result<(), SourceError>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file_name);
        std::fs::write(&path, text).unwrap();
        let (mut users, mut rejected, mut rows) = (Vec::new(), Vec::new(), 0);
        let source = Source::open(&ImportSource::File(path), None).unwrap();
        let ended = read(source, skip, max_errors, |chunk| {
            rows += chunk.rows;
            users.extend(chunk.users.iter().map(|user| format!("{} {}", user.name.as_str(), user.email.as_str())));
            rejected.extend(chunk.rejected);
            true
        });
        assert!(rows >= (users.len() + rejected.len()) as u64);
        (users, rejected, ended)
    }

    #[test]
    fn csv_is_read_with_its_quotes_blank_lines_and_byte_order_mark() {
        let text = "\u{feff}Email, name \r\na@example.com,\"Smith, \"\"J\"\"\"\r\n\r\nb@example.com, Łukasz \r\n";

        let (users, rejected, ended) = read_text("users.csv", text, 0, 0);

        assert_eq!(users, ["Smith, \"J\" a@example.com", "Łukasz b@example.com"]);
        assert!(rejected.is_empty() && ended.is_ok());
    }

    #[test]
    fn json_lines_are_read() {
        let text =
            "\u{feff}{\"name\":\"A\",\"email\":\"a@example.com\"}\n\n {\"email\":\"b@example.com\",\"name\":\"B\"}";

        for file_name in ["users.jsonl", "users.ndjson", "users.txt"] {
            // What makes it JSON in a file without a telling name is its first character.
            let (users, rejected, ended) = read_text(file_name, text, 0, 0);

            assert_eq!(users, ["A a@example.com", "B b@example.com"], "{file_name}");
            assert!(rejected.is_empty() && ended.is_ok());
        }
    }

    #[test]
    fn rejected_rows_are_told_by_line_with_reason_and_the_row_itself() {
        let csv =
            b"name,email\n,a@example.com\nA,\n\"B\nB\",x\nC,c@example.com,d\n\xff,e@example.com\nA\0,a@example.com\nok,ok@example.com\n";

        let (users, rejected, _) = read_text("users.csv", csv, 0, 9);

        let told: Vec<_> = rejected.iter().map(|row| (row.line, row.reason.as_str(), row.row.as_str())).collect();
        assert_eq!(users, ["ok ok@example.com"]);
        assert_eq!(told.len(), 7, "{told:?}");
        assert_eq!(told[0], (2, "name must not be empty or blank", ",a@example.com"));
        assert!(told[1].0 == 3 && told[1].1.starts_with("email must be an e-mail address"), "{told:?}");
        assert_eq!(told[2], (4, "a quote is left open, and a row ends with its line", "\"B"));
        assert_eq!(told[3], (5, "a quote stands inside a field that is not quoted", "B\",x"));
        assert_eq!(told[4], (6, "the row has 3 fields, expected name and email", "C,c@example.com,d"));
        assert_eq!(told[5], (7, "the row is not UTF-8", "\u{fffd},e@example.com"));
        assert_eq!(told[6], (8, "name must not hold control characters (it has U+0000)", "A\0,a@example.com"));
    }

    #[test]
    fn rows_with_nothing_in_them_are_places_of_the_source_and_no_more() {
        let csv = "name,email\n,\nA,a@example.com\n,,\n\n \nB,b@example.com\n\"\",\n";

        let (users, rejected, ended) = read_text("users.csv", csv, 0, 0);
        let (resumed, ..) = read_text("users.csv", csv, 2, 0);

        assert_eq!(users, ["A a@example.com", "B b@example.com"]);
        assert!(rejected.is_empty() && ended.is_ok());
        assert_eq!(resumed, ["B b@example.com"], "the empty row and A are done");
    }

    #[test]
    fn a_line_that_is_too_long_is_a_rejected_row() {
        let long = "x".repeat(4 * LINE_MAX);
        let json = |name: &str| format!("{{\"name\":\"{name}\",\"email\":\"a@example.com\"}}\n");

        for (file_name, text) in [
            ("users.csv", format!("name,email\n\"{long}\r\nA,a@example.com\n")),
            ("users.jsonl", format!("\n{}{}", json(&long), json("A"))),
            ("users.jsonl", format!("\n{}{}{}", " ".repeat(2 * LINE_MAX), json("hidden"), json("A"))),
        ] {
            let (users, rejected, ended) = read_text(file_name, text, 0, 9);

            assert_eq!(users, ["A a@example.com"]);
            assert_eq!(rejected.len(), 1);
            assert_eq!(rejected[0].line, 2);
            assert_eq!(rejected[0].reason, "the row is longer than 1048576 bytes, only its beginning is kept");
            assert!(rejected[0].row.len() < 300, "{} bytes", rejected[0].row.len());
            assert!(ended.is_ok());
        }
    }

    #[test]
    fn one_rejection_too_many_ends_it_before_that_row() {
        let csv = "name,email\nA,a@example.com\n,x\nB,b@example.com\n,x\nC,c@example.com\n";

        let (users, rejected, ended) = read_text("users.csv", csv, 0, 1);

        assert_eq!((users.len(), rejected.len()), (2, 1));
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("more than 1 rows") && error.contains("line 5: name must not be empty"), "{error}");
    }

    #[test]
    fn rows_that_are_done_already_are_left_out() {
        let csv = "name,email\nA,a@example.com\n,x\nB,b@example.com\n";

        assert_eq!(read_text("users.csv", csv, 2, 0).0, ["B b@example.com"]);
        assert_eq!(read_text("users.csv", csv, 9, 0).0, [""; 0]);
    }

    #[test]
    fn a_file_that_is_no_list_of_users_is_refused() {
        for (text, shown) in [
            ("name;email\nA;a@example.com\n", "\"name;email\""),
            ("name,email,age\n", "\"name,email,age\""),
            ("name,name\n", "\"name,name\""),
            ("A,a@example.com\n", "\"A,a@example.com\""),
        ] {
            let error = read_text("users.csv", text, 0, 0).2.unwrap_err().to_string();
            assert!(error.contains("expected the columns name and email"), "{error}");
            assert!(error.contains(shown), "{error} shows {shown}");
        }
        let empty = read_text("users.csv", "\n", 0, 0).2.unwrap_err();
        assert!(matches!(empty, SourceError::Empty { .. }), "{empty}");
    }

    #[test]
    fn what_is_appended_to_a_file_after_it_was_opened_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        std::fs::write(&path, "name,email\nA,a@example.com\n").unwrap();
        let source = Source::open(&ImportSource::File(path.clone()), None).unwrap();
        let mut file = std::fs::File::options().append(true).open(&path).unwrap();
        std::io::Write::write_all(&mut file, b"B,b@example.com\n").unwrap();

        let mut rows = 0;
        read(source, 0, 0, |chunk| {
            rows += chunk.rows;
            true
        })
        .unwrap();

        assert_eq!(rows, 1);
    }

    /// Every row with its line: a user's name, or why there is none. An empty row is an empty name.
    fn rows_of(bytes: &[u8], format: ImportFormat) -> Vec<(u64, Result<String, String>)> {
        let Ok(mut rows) = Rows::begin(Source::of_bytes(bytes.to_vec(), Some(format))) else { return Vec::new() };
        std::iter::from_fn(|| rows.next().unwrap())
            .map(|(line, row)| match row {
                Row::User(user) => (line, Ok(user.name.as_str().to_owned())),
                Row::Empty => (line, Ok(String::new())),
                Row::Rejected(reason) => (line, Err(reason)),
            })
            .collect()
    }

    /// Numbers of the lines that are not blank.
    fn lines_with_text(bytes: &[u8], format: ImportFormat) -> Vec<u64> {
        let mut numbers = Vec::new();
        let (mut number, mut line) = (1, Vec::new());
        let mut end = |number, line: &mut Vec<u8>| {
            let blank = if format == ImportFormat::Csv { line.is_empty() } else { line.trim_ascii().is_empty() };
            if !blank {
                numbers.push(number);
            }
            line.clear();
        };
        for (at, byte) in bytes.iter().enumerate() {
            match byte {
                b'\n' if at > 0 && bytes[at - 1] == b'\r' => {}
                b'\n' | b'\r' => {
                    end(number, &mut line);
                    number += 1;
                }
                byte => line.push(*byte),
            }
        }
        end(number, &mut line);
        numbers
    }

    /// Bytes of which the interesting ones are frequent.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::sample::select(vec!["\n", "\r", "\r\n", ",", "\"", " ", "\u{feff}", "{", "}", "\0", "\\"])
                .prop_map(|piece| piece.as_bytes().to_vec()),
            prop::sample::select(vec!["A,a@example.com", "{\"name\":\"A\",\"email\":\"a@example.com\"}", "name,email"])
                .prop_map(|piece| piece.as_bytes().to_vec()),
            any::<u8>().prop_map(|byte| vec![byte]),
        ];
        prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn whatever_the_bytes_every_line_with_text_is_one_row(bytes in bytes()) {
            let csv = [b"name,email\n", &bytes[..]].concat();
            let lines: Vec<_> = rows_of(&csv, ImportFormat::Csv).into_iter().map(|(line, _)| line).collect();
            prop_assert_eq!(lines, &lines_with_text(&csv, ImportFormat::Csv)[1..]);

            let json = [b"{}\n", &bytes[..]].concat();
            let lines: Vec<_> = rows_of(&json, ImportFormat::JsonLines).into_iter().map(|(line, _)| line).collect();
            prop_assert_eq!(lines, lines_with_text(&json, ImportFormat::JsonLines));

            // Without a header or with an encoding's mark, it may be refused.
            rows_of(&bytes, ImportFormat::Csv);
            rows_of(&bytes, ImportFormat::JsonLines);
        }

        #[test]
        fn an_import_that_goes_on_at_any_row_reads_the_same_rows(bytes in bytes(), skip in 0_usize..12) {
            let csv = [b"name,email\n", &bytes[..]].concat();
            let all = rows_of(&csv, ImportFormat::Csv);
            let (mut users, mut rejected, mut skipped) = (Vec::new(), Vec::new(), 0);

            let source = Source::of_bytes(csv, Some(ImportFormat::Csv));
            read(source, skip as u64, u64::MAX, |chunk| {
                users.extend(chunk.users.into_iter().map(|user| user.name.as_str().to_owned()));
                rejected.extend(chunk.rejected.into_iter().map(|row| (row.line, row.reason)));
                skipped += chunk.skipped;
                true
            }).unwrap();

            let (done, left) = all.split_at(skip.min(all.len()));
            let empty = |row: &&(u64, Result<String, String>)| row.1.as_ref().is_ok_and(String::is_empty);
            prop_assert_eq!(skipped, done.iter().filter(|row| !empty(row)).count() as u64);
            let left = left.iter().filter(|row| !empty(row)).cloned();
            let (expected_users, expected_rejected): (Vec<_>, Vec<_>) = left.partition(|(_, row)| row.is_ok());
            prop_assert_eq!(users, expected_users.into_iter().filter_map(|(_, row)| row.ok()).collect::<Vec<_>>());
            let expected = expected_rejected.into_iter().filter_map(|(line, row)| Some((line, row.err()?)));
            prop_assert_eq!(rejected, expected.collect::<Vec<_>>());
        }

        #[test]
        fn what_the_csv_crate_writes_is_read_with_its_lines(
            names in prop::collection::vec("[a-zŁ,\" ']{0,8}", 0..20),
            quoted in any::<bool>(),
            end in prop::sample::select(vec!["\n", "\r", "\r\n", "\n\n"]),
        ) {
            let style = if quoted { ::csv::QuoteStyle::Always } else { ::csv::QuoteStyle::Necessary };
            let mut writer = ::csv::WriterBuilder::new().quote_style(style).from_writer(Vec::new());
            writer.write_record(["name", "email"]).unwrap();
            for name in &names {
                writer.write_record([name, "a@example.com"]).unwrap();
            }
            let text = String::from_utf8(writer.into_inner().unwrap()).unwrap().replace('\n', end);
            let lines_a_row = if end == "\n\n" { 2 } else { 1 };

            let rows = rows_of(text.as_bytes(), ImportFormat::Csv);

            prop_assert_eq!(rows.len(), names.len());
            for (at, ((line, row), name)) in (1..).zip(rows.into_iter().zip(&names)) {
                prop_assert_eq!(line, 1 + at * lines_a_row);
                match name.trim() {
                    "" => prop_assert_eq!(row, Err("name must not be empty or blank".to_owned())),
                    name => prop_assert_eq!(row, Ok(name.to_owned())),
                }
            }
        }
    }
}
