//! Where an import reads from.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::head::Foreign;
use super::key::FileKey;
use crate::config::{ImportFormat, ImportSource};

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

#[cfg(test)]
impl Source {
    /// A source of these bytes.
    pub(super) fn of_bytes(bytes: Vec<u8>, format: Option<ImportFormat>) -> Self {
        Self { name: "bytes".to_owned(), format, input: Box::new(io::Cursor::new(bytes)), file: None }
    }
}

/// What is known of a regular file before it is imported. What is appended to it meanwhile is not read.
pub(super) struct SourceFile {
    pub(super) length: u64,
    /// Under which key its progress is kept.
    pub(super) key: FileKey,
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
            let (length, key) = FileKey::of(&mut input, format)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_file_is_named() {
        let missing = ImportSource::File("/nonexistent/users.csv".into());
        let error = Source::open(&missing, None).err().unwrap().to_string();
        assert_eq!(error, "/nonexistent/users.csv cannot be read");
    }
}
