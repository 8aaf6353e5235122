//! Metrics that the command writes itself, into a file that the wrapper reads when it has ended.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::TempPath;

use super::report::Told;
use crate::metrics::is_taken;
use crate::push::{GroupingKey, MetricsText};

/// The largest file that is read: some 50,000 series, far more than belongs into a gateway.
pub const SIZE_MAX: u64 = 4 * 1024 * 1024;

/// Faults that are said one by one; more are counted.
const FAULTS_SAID: usize = 10;

/// Where the command writes, and what was there before.
#[derive(Debug)]
pub struct MetricsFile(Place);

#[derive(Debug)]
enum Place {
    /// Chosen by whoever runs the job, and never touched by us.
    Given { path: PathBuf, before: Option<Stamp> },
    /// A fresh file, removed when this is dropped.
    Temporary(TempPath),
    /// There is no room for one.
    Nowhere,
}

/// Tells whether a file was written to.
#[derive(Debug, PartialEq)]
struct Stamp {
    inode: u64,
    length: u64,
    modified: Option<SystemTime>,
}

impl MetricsFile {
    /// The file that was given, or a fresh one.
    #[must_use]
    pub fn prepare(given: Option<PathBuf>) -> Self {
        Self(match given {
            Some(path) => Place::Given { before: fs::metadata(&path).ok().as_ref().map(stamp), path },
            None => match tempfile::Builder::new().prefix("job-metrics-").tempfile() {
                Ok(file) => Place::Temporary(file.into_temp_path()),
                // The command runs without; most need none.
                Err(_) => Place::Nowhere,
            },
        })
    }

    /// Where the command writes.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        match &self.0 {
            Place::Given { path, .. } => Some(path),
            Place::Temporary(path) => Some(path),
            Place::Nowhere => None,
        }
    }

    /// What the command wrote, as far as it can stand in this group, and what there is to say about the rest.
    #[must_use]
    pub fn read(&self, key: &GroupingKey) -> Told {
        let Some(path) = self.path() else { return Told::default() };
        let bytes = match self.bytes(path) {
            Ok(bytes) => bytes,
            Err(reason) => return Told::unusable(format!("the metrics file {} {reason}", path.display())),
        };
        let mut text = MetricsText::parse(&bytes);
        text.keep_what_fits(key, is_taken);
        let faults = text.fault_count();
        let mut notes: Vec<_> =
            text.faults().iter().take(FAULTS_SAID).map(|fault| format!("{}, {fault}", path.display())).collect();
        if faults > FAULTS_SAID {
            notes.push(format!("{}, and {} faults more", path.display(), faults - FAULTS_SAID));
        }
        if faults > 0 {
            notes.push("what these lines are about is not pushed; everything else is".to_owned());
        }
        text.forget_faults();
        Told { text, incomplete: faults > 0, notes }
    }

    fn bytes(&self, path: &Path) -> Result<Vec<u8>, String> {
        let cannot = |error: io::Error| format!("cannot be read: {error}");
        let metadata = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return self.unwritten(),
            metadata => metadata.map_err(cannot)?,
        };
        if !metadata.is_file() {
            return Err("is no regular file".to_owned());
        }
        if matches!(&self.0, Place::Given { before: Some(before), .. } if *before == stamp(&metadata)) {
            return self.unwritten();
        }
        let file = File::open(path).map_err(cannot)?;
        // Room for all at once, and for the end to be seen.
        let length = usize::try_from(metadata.len().min(SIZE_MAX)).unwrap_or_default();
        let mut bytes = Vec::with_capacity(length + 2);
        file.take(SIZE_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() as u64 > SIZE_MAX {
            return Err(format!("is {} bytes long, and at most {SIZE_MAX} are read", metadata.len()));
        }
        Ok(bytes)
    }

    /// A file that was asked for and not written is worth a word: what it says may be of an earlier run.
    fn unwritten(&self) -> Result<Vec<u8>, String> {
        match self.0 {
            Place::Given { .. } => Err("was not written by this run, and is not pushed".to_owned()),
            _ => Ok(Vec::new()),
        }
    }
}

fn stamp(metadata: &Metadata) -> Stamp {
    Stamp { inode: metadata.ino(), length: metadata.len(), modified: metadata.modified().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(file: &MetricsFile) -> Told {
        file.read(&GroupingKey::new("backup").unwrap().with("zone", "a").unwrap())
    }

    #[test]
    fn a_fresh_file_is_there_for_the_command_and_gone_afterwards() {
        let file = MetricsFile::prepare(None);
        let path = file.path().unwrap().to_owned();

        let empty = read(&file);
        fs::write(&path, "rows 5\n").unwrap();
        let written = read(&file);
        drop(file);

        assert_eq!((empty.text.as_str(), empty.notes.len()), ("", 0));
        assert_eq!(written.text.as_str(), "rows 5\n");
        assert!(!path.exists());
    }

    #[test]
    fn a_given_file_counts_only_when_this_run_wrote_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics");
        fs::write(&path, "rows 5\n").unwrap();

        let file = MetricsFile::prepare(Some(path.clone()));
        let stale = read(&file);
        fs::write(&path, "rows 50\n").unwrap();
        let written = read(&file);
        fs::remove_file(&path).unwrap();
        let missing = read(&file);

        assert_eq!(stale.text.as_str(), "");
        assert!(stale.notes[0].ends_with("was not written by this run, and is not pushed"), "{stale:?}");
        assert_eq!(written.text.as_str(), "rows 50\n");
        assert_eq!(missing.notes, stale.notes);
    }

    #[test]
    fn what_cannot_be_pushed_is_said_and_the_rest_is_pushed() {
        let file = MetricsFile::prepare(None);
        let path = file.path().unwrap();
        fs::write(path, "batch_job_last_exit_code 0\npush_time_seconds 1\nzoned{zone=\"b\"} 1\nrows 5\nup 1\n")
            .unwrap();

        let told = read(&file);

        assert_eq!(told.text.as_str(), "rows 5\n");
        assert!(told.incomplete);
        let path = path.display();
        assert_eq!(
            told.notes,
            [
                format!("{path}, line 1: the name batch_job_last_exit_code is taken"),
                format!("{path}, line 2: the name push_time_seconds is taken"),
                format!("{path}, line 3: zoned has the label zone, which is part of the grouping key"),
                format!("{path}, line 5: the name up is taken"),
                "what these lines are about is not pushed; everything else is".to_owned(),
            ]
        );
    }

    #[test]
    fn a_file_that_is_too_large_or_no_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics");
        let file = MetricsFile::prepare(Some(path.clone()));

        File::create(&path).unwrap().set_len(100 * 1024 * 1024).unwrap();
        let large = read(&file);
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let no_file = read(&file);

        assert!(large.notes[0].contains("is 104857600 bytes long, and at most 4194304 are read"), "{large:?}");
        assert!(no_file.notes[0].ends_with("is no regular file"), "{no_file:?}");
        assert!(large.incomplete && no_file.incomplete);
    }

    #[test]
    fn many_faults_are_counted_not_listed() {
        let file = MetricsFile::prepare(None);
        fs::write(file.path().unwrap(), "?\n".repeat(25)).unwrap();

        let told = read(&file);

        assert_eq!(told.notes.len(), FAULTS_SAID + 2);
        assert!(told.notes[FAULTS_SAID].ends_with("and 15 faults more"), "{told:?}");
    }
}
