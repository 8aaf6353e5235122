//! The rows of an import: CSV or JSON lines in, users and rejections out, a chunk at a time.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::rc::Rc;

use csv::ByteRecord;
use serde::{Deserialize, Serialize};

use crate::config::{ImportFormat, ImportSource};
use crate::users::NewUser;

/// Rows in one transaction: enough that its cost is shared by many, few enough that a service on the same database waits
/// for well under a second.
pub(super) const CHUNK_ROWS: u64 = 5_000;

/// Rejected rows are kept until their chunk is done; when they take more than this, it is done.
const REJECTED_MAX: usize = 4 * 1024 * 1024;

/// How much of a text from the source is shown in a message, in characters.
const SHOWN_MAX: usize = 200;

/// The longest row that is read. Two fields of 200 characters do not come near; an open quote passes it soon.
const ROW_MAX: u64 = 1024 * 1024;

/// Read at once.
const BUFFER: usize = 128 * 1024;

/// The columns of a CSV file.
const COLUMNS: [&str; 2] = ["name", "email"];

/// Some rows, in their order.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// How many rows of the source this is.
    pub(super) rows: u64,
    pub(super) users: Vec<NewUser>,
    pub(super) rejected: Vec<Rejected>,
    /// Rows before these that were left out.
    pub(super) skipped: u64,
    /// How many bytes of the source are read.
    pub(super) bytes: u64,
}

/// A row that makes no user. Serialised, it is a line of the rejects file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rejected {
    /// The line on which the row begins, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub reason: String,
    /// The row; what of it is not UTF-8 is replaced.
    pub row: String,
}

/// Why no more rows can be had.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source cannot be opened or read.
    #[error("{name} cannot be read")]
    Read {
        /// The source.
        name: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it, not even a header.
    #[error("{name} is empty, expected CSV with the header name,email")]
    Empty {
        /// The source.
        name: String,
    },
    /// A CSV file begins with something else than its header.
    #[error("{name} has the header {header:?}, expected the columns name and email, separated by a comma")]
    Header {
        /// The source.
        name: String,
        /// Its first row.
        header: String,
    },
    /// A row goes on and on.
    #[error("the row on line {line} of {name} is longer than {ROW_MAX} bytes; a quote may be left open")]
    TooLong {
        /// The source.
        name: String,
        /// The line on which it begins.
        line: u64,
    },
    /// More rows than were allowed are rejected.
    #[error("more than {allowed} rows of {name} are rejected (--max-errors, IMPORT_MAX_ERRORS): line {line}: {reason}")]
    TooMany {
        /// The source.
        name: String,
        /// How many were allowed.
        allowed: u64,
        /// The line of the one too many.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
}

/// One row.
struct Row {
    user: Result<NewUser, Rejected>,
    line: u64,
}

/// Reads rows one after the other.
trait Rows {
    /// The next row; `None` at the end.
    fn next(&mut self) -> Result<Option<Row>, SourceError>;

    /// How many bytes are read.
    fn bytes(&self) -> u64;
}

/// How a source is named in messages.
pub(super) fn shown(source: &ImportSource) -> String {
    match source {
        ImportSource::Stdin => "stdin".to_owned(),
        ImportSource::File(path) => path.display().to_string(),
    }
}

/// A source, open for reading.
pub(super) struct Source {
    pub(super) name: String,
    /// Given, or told by the file's ending; `None`: by its content.
    format: Option<ImportFormat>,
    input: Box<dyn Read + Send>,
    /// What there is about a regular file.
    pub(super) file: Option<SourceFile>,
}

/// What is known of a regular file before it is imported. What is appended to it meanwhile is not read.
pub(super) struct SourceFile {
    pub(super) length: u64,
    /// Names what it holds and the form in which it is read, since what is no user in one may be one in the other.
    pub(super) key: String,
    /// Device and inode.
    pub(super) identity: (u64, u64),
}

impl Source {
    /// Opens a source; a regular file is read once to its end. Blocks, also until somebody writes to a pipe.
    pub(super) fn open(source: &ImportSource, format: Option<ImportFormat>) -> Result<Self, SourceError> {
        let name = shown(source);
        let path = match source {
            ImportSource::Stdin => return Ok(Self { name, format, input: Box::new(io::stdin()), file: None }),
            ImportSource::File(path) => path,
        };
        let format = format.or_else(|| by_ending(path));
        let opened = File::open(path).and_then(|mut input| {
            let metadata = input.metadata()?;
            if !metadata.is_file() {
                return Ok((Box::new(input) as Box<dyn Read + Send>, None));
            }
            let (length, key) = digest(&mut input, format)?;
            input.rewind()?;
            let file = SourceFile { length, key, identity: (metadata.dev(), metadata.ino()) };
            Ok((Box::new(input.take(length)) as Box<dyn Read + Send>, Some(file)))
        });
        match opened {
            Ok((input, file)) => Ok(Self { name, format, input, file }),
            Err(source) => Err(SourceError::Read { name, source }),
        }
    }
}

/// Reads a source to its end in chunks, leaving out the first `skip` rows. Blocks; ends early when `take` wants no more.
/// What comes before an error is taken, too.
pub(super) fn read(
    source: Source,
    skip: u64,
    max_errors: u64,
    mut take: impl FnMut(Chunk) -> bool,
) -> Result<(), SourceError> {
    let name = source.name.clone();
    let mut rows = rows(source)?;
    let mut chunk = Chunk::default();
    let (mut left_out, mut rejected, mut weight) = (0, 0, 0);
    let ended = loop {
        let row = match rows.next() {
            Ok(Some(row)) => row,
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        };
        if left_out < skip {
            left_out += 1;
            chunk.skipped = left_out;
            continue;
        }
        match row.user {
            Ok(user) => chunk.users.push(user),
            Err(rejection) if rejected == max_errors => {
                let reason = rejection.reason;
                break Err(SourceError::TooMany { name, allowed: max_errors, line: row.line, reason });
            }
            Err(rejection) => {
                rejected += 1;
                weight += rejection.row.len();
                chunk.rejected.push(rejection);
            }
        }
        chunk.rows += 1;
        if chunk.rows == CHUNK_ROWS || weight > REJECTED_MAX {
            weight = 0;
            let done = Chunk { bytes: rows.bytes(), ..std::mem::take(&mut chunk) };
            if !take(done) {
                return Ok(());
            }
        }
    };
    if chunk.rows > 0 || chunk.skipped > 0 {
        take(Chunk { bytes: rows.bytes(), ..chunk });
    }
    ended
}

fn rows(source: Source) -> Result<Box<dyn Rows>, SourceError> {
    let Source { name, format, input, .. } = source;
    let done = Rc::new(Cell::new(0));
    let mut input = input;
    let mut head = Vec::new();
    let by_content = by_content(&mut input, &mut head).map_err(|error| failed(&name, 1, error))?;
    let input = Guarded { input, read: 0, done: Rc::clone(&done) };
    if head.starts_with(BYTE_ORDER_MARK) {
        head.drain(..BYTE_ORDER_MARK.len());
    }
    let input = Cursor::new(head).chain(input);
    Ok(match format.unwrap_or(by_content) {
        ImportFormat::Csv => Box::new(CsvRows::new(name, input, done)?),
        ImportFormat::JsonLines => {
            let input = BufReader::with_capacity(BUFFER, input);
            Box::new(JsonRows { name, input, done, line: 0, text: Vec::new() })
        }
    })
}

fn by_ending(path: &Path) -> Option<ImportFormat> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(ImportFormat::Csv),
        "jsonl" | "ndjson" => Some(ImportFormat::JsonLines),
        _ => None,
    }
}

/// Blanks at the beginning that are looked through for the first character.
const BLANK_MAX: usize = 16 * 1024 * 1024;

const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads the beginning of a source, up to its first character or more, and tells its form by that: JSON lines begin with
/// a brace; whatever else it is, the CSV header's check has a word for it. So it has for what begins with nothing but
/// blanks for long.
fn by_content(input: &mut impl Read, head: &mut Vec<u8>) -> io::Result<ImportFormat> {
    let mut buffer = [0; 4096];
    let mut blank = 0;
    while blank < BLANK_MAX {
        if blank == 0 && head.starts_with(BYTE_ORDER_MARK) {
            blank = BYTE_ORDER_MARK.len();
        }
        blank += head[blank..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        // Half of a byte order mark tells nothing yet.
        if blank < head.len() && !BYTE_ORDER_MARK.starts_with(head) {
            let json = head[blank] == b'{';
            return Ok(if json { ImportFormat::JsonLines } else { ImportFormat::Csv });
        }
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => head.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(ImportFormat::Csv)
}

/// The length of an input and its key: the digest of all that it holds, and its form.
fn digest(input: &mut impl Read, format: Option<ImportFormat>) -> io::Result<(u64, String)> {
    use sha2::{Digest, Sha256};
    let mut head = Vec::new();
    let format = by_content(input, &mut head).map(|by_content| format.unwrap_or(by_content))?;
    let mut digest = Sha256::new();
    let mut input = BufReader::with_capacity(BUFFER, Cursor::new(head).chain(input));
    let mut length = 0;
    loop {
        let read = match input.fill_buf() {
            Ok([]) => break,
            Ok(bytes) => {
                digest.update(bytes);
                bytes.len()
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
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
    Ok((length, key))
}

/// Stops reading in the middle of a row that goes on and on.
struct Guarded {
    input: Box<dyn Read + Send>,
    read: u64,
    /// The bytes of the rows that are done.
    done: Rc<Cell<u64>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the row is too long")]
struct TooLong;

impl Read for Guarded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // What was read before the guard stood there counts as done, too.
        if self.read.saturating_sub(self.done.get()) > ROW_MAX + BUFFER as u64 {
            return Err(io::Error::other(TooLong));
        }
        let read = self.input.read(buffer)?;
        self.read += read as u64;
        Ok(read)
    }
}

/// What an error while reading the row on that line means.
fn failed(name: &str, line: u64, source: io::Error) -> SourceError {
    let name = name.to_owned();
    if source.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<TooLong>) {
        SourceError::TooLong { name, line }
    } else {
        SourceError::Read { name, source }
    }
}

// ---- CSV ----

struct CsvRows {
    name: String,
    reader: csv::Reader<Lines>,
    lines: Rc<RefCell<LineStarts>>,
    done: Rc<Cell<u64>>,
    record: ByteRecord,
    /// Where name and email stand.
    columns: [usize; 2],
}

/// The beginning of a source, and the rest of it.
type Input = io::Chain<Cursor<Vec<u8>>, Guarded>;

/// Notes where lines begin, as an editor counts them. The CSV reader counts otherwise where lines are blank or end with
/// CR LF.
struct Lines {
    input: Input,
    starts: Rc<RefCell<LineStarts>>,
}

struct LineStarts {
    /// Offset and number of each line that is not blank, as far as the reader has not passed it.
    starts: VecDeque<(u64, u64)>,
    offset: u64,
    line: u64,
    line_start: u64,
    blank: bool,
}

impl LineStarts {
    fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.offset += 1;
            if *byte == b'\n' {
                self.line += 1;
                self.line_start = self.offset;
                self.blank = true;
            } else if self.blank && *byte != b'\r' {
                self.starts.push_back((self.line_start, self.line));
                self.blank = false;
            }
        }
    }

    /// The number of the first line that begins at this offset or later, blank ones left out.
    fn line_at(&mut self, offset: u64) -> u64 {
        while self.starts.front().is_some_and(|(start, _)| *start < offset) {
            self.starts.pop_front();
        }
        self.starts.front().map_or(self.line, |(_, line)| *line)
    }
}

impl Read for Lines {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.starts.borrow_mut().note(&buffer[..read]);
        Ok(read)
    }
}

impl CsvRows {
    fn new(name: String, input: Input, done: Rc<Cell<u64>>) -> Result<Self, SourceError> {
        let starts = LineStarts { starts: VecDeque::new(), offset: 0, line: 1, line_start: 0, blank: true };
        let lines = Rc::new(RefCell::new(starts));
        let input = Lines { input, starts: Rc::clone(&lines) };
        let mut reader = csv::ReaderBuilder::new().flexible(true).buffer_capacity(BUFFER).from_reader(input);
        let header = reader.byte_headers().cloned().map_err(|error| csv_failed(&name, 1, error))?;
        if header.is_empty() {
            return Err(SourceError::Empty { name });
        }
        let at = |column: &str| {
            let is_it = |field: &[u8]| field.trim_ascii().eq_ignore_ascii_case(column.as_bytes());
            header.iter().position(is_it)
        };
        let columns = COLUMNS.map(at);
        let ([Some(user_name), Some(email)], 2) = (columns, header.len()) else {
            return Err(SourceError::Header { name, header: cut(&raw(&header)) });
        };
        Ok(Self { name, reader, lines, done, record: ByteRecord::new(), columns: [user_name, email] })
    }
}

impl Rows for CsvRows {
    fn next(&mut self) -> Result<Option<Row>, SourceError> {
        let begins = self.reader.position().byte();
        self.done.set(begins);
        let more = self.reader.read_byte_record(&mut self.record);
        let line = self.lines.borrow_mut().line_at(begins);
        if !more.map_err(|error| csv_failed(&self.name, line, error))? {
            return Ok(None);
        }
        let user = match (self.record.len(), self.columns.map(|at| self.record.get(at).map(std::str::from_utf8))) {
            (2, [Some(Ok(name)), Some(Ok(email))]) => user(name, email),
            (2, _) => Err("the row is not UTF-8".to_owned()),
            (fields, _) => Err(format!("the row has {fields} fields, expected name and email")),
        };
        let user = user.map_err(|reason| Rejected { line, reason, row: raw(&self.record) });
        Ok(Some(Row { user, line }))
    }

    fn bytes(&self) -> u64 {
        self.reader.position().byte()
    }
}

fn csv_failed(name: &str, line: u64, error: csv::Error) -> SourceError {
    let source = match error.into_kind() {
        csv::ErrorKind::Io(source) => source,
        // Byte records of any length cannot fail otherwise.
        other => io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}")),
    };
    failed(name, line, source)
}

/// A record as a line of CSV again.
fn raw(record: &ByteRecord) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let _ = writer.write_byte_record(record);
    let bytes = writer.into_inner().unwrap_or_default();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

// ---- JSON lines ----

struct JsonRows {
    name: String,
    input: BufReader<Input>,
    done: Rc<Cell<u64>>,
    line: u64,
    text: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonUser {
    name: String,
    email: String,
}

impl Rows for JsonRows {
    fn next(&mut self) -> Result<Option<Row>, SourceError> {
        loop {
            self.text.clear();
            let read = self.input.read_until(b'\n', &mut self.text);
            let read = read.map_err(|error| failed(&self.name, self.line + 1, error))?;
            if read == 0 {
                return Ok(None);
            }
            self.line += 1;
            self.done.set(self.done.get() + read as u64);
            let text = self.text.trim_ascii();
            if !text.is_empty() {
                let line = self.line;
                let user = json_user(text).map_err(|reason| Rejected {
                    line,
                    reason,
                    row: String::from_utf8_lossy(text).into_owned(),
                });
                return Ok(Some(Row { user, line }));
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.done.get()
    }
}

fn json_user(text: &[u8]) -> Result<NewUser, String> {
    // The row is all that the parser sees: its own line number would mislead.
    let parsed: JsonUser = serde_json::from_slice(text).map_err(|error| {
        let error = error.to_string().replace(" at line 1 column", " at column");
        format!("the row is no user: {}", cut(&error))
    })?;
    user(&parsed.name, &parsed.email)
}

// ---- Both ----

/// A user, or everything that is wrong with it.
fn user(name: &str, email: &str) -> Result<NewUser, String> {
    match (name.parse(), email.trim().parse()) {
        (Ok(name), Ok(email)) => Ok(NewUser { name, email }),
        (Err(name), Ok(_)) => Err(format!("name {name}")),
        (Ok(_), Err(email)) => Err(format!("email {email}")),
        (Err(name), Err(email)) => Err(format!("name {name}; email {email}")),
    }
}

/// The beginning of a text that may be long.
fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(chunk.rows, (chunk.users.len() + chunk.rejected.len()) as u64);
            users.extend(chunk.users.iter().map(|user| format!("{} {}", user.name.as_str(), user.email.as_str())));
            rejected.extend(chunk.rejected);
            true
        });
        assert_eq!(rows, (users.len() + rejected.len()) as u64);
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
            b"name,email\n,a@example.com\nA,\n\"B\nB\",x\nC,c@example.com,d\n\xff,e@example.com\nok,ok@example.com\n";

        let (users, rejected, _) = read_text("users.csv", csv, 0, 9);

        let told: Vec<_> = rejected.iter().map(|row| (row.line, row.reason.as_str(), row.row.as_str())).collect();
        assert_eq!(users, ["ok ok@example.com"]);
        assert_eq!(told.len(), 5, "{told:?}");
        assert_eq!(told[0], (2, "name must not be empty or blank", ",a@example.com"));
        assert!(told[1].0 == 3 && told[1].1.starts_with("email must be an e-mail address"), "{told:?}");
        assert!(told[2].0 == 4 && told[2].1.starts_with("name must not hold control characters"), "{told:?}");
        assert_eq!(told[3], (6, "the row has 3 fields, expected name and email", "C,c@example.com,d"));
        assert_eq!(told[4], (7, "the row is not UTF-8", "\u{fffd},e@example.com"));

        let json = "{\"name\":\"A\"}\n[]\n{\"name\":\"A\",\"email\":\"a@example.com\",\"id\":1}\n{\"name\":\"\",\"email\":\"\"}\n";
        let (_, rejected, _) = read_text("users.jsonl", json, 0, 9);
        let reasons: Vec<_> = rejected.iter().map(|row| row.reason.as_str()).collect();
        assert_eq!(reasons[0], "the row is no user: missing field `email` at column 12");
        assert!(reasons[1].starts_with("the row is no user: invalid"), "{reasons:?}");
        assert_eq!(reasons[2], "the row is no user: unknown field `id`, expected `name` or `email` at column 40");
        assert!(reasons[3].contains("name must not be empty or blank; email must be"), "{reasons:?}");
    }

    #[test]
    fn one_rejection_too_many_ends_it_before_that_row() {
        let csv = "name,email\nA,a@example.com\n,\nB,b@example.com\n,\nC,c@example.com\n";

        let (users, rejected, ended) = read_text("users.csv", csv, 0, 1);

        assert_eq!((users.len(), rejected.len()), (2, 1));
        let error = ended.unwrap_err().to_string();
        assert!(error.contains("more than 1 rows") && error.contains("line 5: name must not be empty"), "{error}");
    }

    #[test]
    fn rows_that_are_done_already_are_left_out() {
        let csv = "name,email\nA,a@example.com\n,\nB,b@example.com\n";

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
    fn a_row_without_end_does_not_fill_the_memory() {
        let long = "x".repeat(4 * 1024 * 1024);

        let csv = read_text("users.csv", format!("name,email\nA,a@example.com\n\"{long}"), 0, 9).2.unwrap_err();
        let json = read_text("users.jsonl", format!("\n{{\"name\":\"{long}\"}}"), 0, 9).2.unwrap_err();

        assert!(matches!(csv, SourceError::TooLong { line: 3, .. }), "{csv}");
        assert!(matches!(json, SourceError::TooLong { line: 2, .. }), "{json}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let missing = ImportSource::File("/nonexistent/users.csv".into());
        let error = Source::open(&missing, None).err().unwrap().to_string();
        assert_eq!(error, "/nonexistent/users.csv cannot be read");
    }

    #[test]
    fn the_key_of_a_file_names_its_content_and_its_form() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        let key = |path: &Path, format| {
            let source = Source::open(&ImportSource::File(path.to_owned()), format).unwrap();
            source.file.map(|file| file.key)
        };

        // The example of FIPS 180-2, appendix B.1.
        let abc = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(key(&path, None), Some(format!("{abc}:csv")));
        assert_eq!(key(&path, Some(ImportFormat::JsonLines)), Some(format!("{abc}:jsonl")));
        assert_eq!(key(Path::new("/dev/null"), None), None, "no regular file");
    }

    #[test]
    fn what_is_appended_to_a_file_after_it_was_opened_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("users.csv");
        std::fs::write(&path, "name,email\nA,a@example.com\n").unwrap();
        let source = Source::open(&ImportSource::File(path.clone()), None).unwrap();
        let mut file = File::options().append(true).open(&path).unwrap();
        io::Write::write_all(&mut file, b"B,b@example.com\n").unwrap();

        let mut rows = 0;
        read(source, 0, 0, |chunk| {
            rows += chunk.rows;
            true
        })
        .unwrap();

        assert_eq!(rows, 1);
    }
}
