//! Where an import reads from, and under which key a file's progress is kept.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::head::{Foreign, Head};
use crate::config::{ImportFormat, ImportSource};

/// Read at once.
const BUFFER: usize = 128 * 1024;

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
    /// It is no text in UTF-8.
    #[error("{name} is {what}")]
    Foreign {
        /// The source.
        name: String,
        /// What it is instead.
        what: Foreign,
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
    pub(super) format: Option<ImportFormat>,
    pub(super) input: Box<dyn Read + Send>,
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

fn by_ending(path: &Path) -> Option<ImportFormat> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" => Some(ImportFormat::Csv),
        "jsonl" | "ndjson" => Some(ImportFormat::JsonLines),
        _ => None,
    }
}

/// The length of an input and its key: the digest of all that it holds, and its form.
fn digest(input: &mut impl Read, format: Option<ImportFormat>) -> io::Result<(u64, String)> {
    use sha2::{Digest, Sha256};
    let head = Head::read(input)?;
    let format = format.unwrap_or(head.format);
    let mut digest = Sha256::new();
    let mut input = BufReader::with_capacity(BUFFER, Cursor::new(head.bytes).chain(input));
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
