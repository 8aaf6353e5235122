//! A whole copy of the store in a new file, made while others read and write it.
//!
//! The copy is made in a folder of its own beside its place, checked, flushed to disk, and only then moved there. So a
//! file of that name is a whole backup, or somebody else's, and whatever ends the copying leaves none.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempPath;

use super::sqlite::{self, CopyError};
use super::{DatabaseUrl, OpenError, Target};

/// Files of these names belong to the database that is named like them without the ending.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// What a backup holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backup {
    /// Users in it.
    pub users: i64,
    /// Its size.
    pub bytes: u64,
}

/// Why there is no backup. Nothing is left of it then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// What a process has in memory, no other one can copy.
    #[error("users in memory cannot be backed up; name the database file")]
    InMemory,
    /// There is no such database.
    #[error("the database {database} does not exist")]
    Missing {
        /// The database.
        database: DatabaseUrl,
    },
    /// There is another program's database, or an empty file.
    #[error("{database} holds no users of this program; there is nothing to back up")]
    Foreign {
        /// The database.
        database: DatabaseUrl,
    },
    /// The database cannot be read.
    #[error(transparent)]
    Database(#[from] OpenError),
    /// The file, or one that would be taken for a part of it, is there.
    #[error("{} exists; a backup overwrites nothing", .0.display())]
    Exists(PathBuf),
    /// The file would be taken for a part of the database.
    #[error("{} is a name for a part of the database itself", .0.display())]
    PartOfDatabase(PathBuf),
    /// It is no name of a file.
    #[error("{} names no file", .0.display())]
    NoFile(PathBuf),
    /// The folder of the file cannot be used.
    #[error("the folder {folder:?} of the backup cannot be written")]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The copy cannot be written, or is not whole.
    #[error("the backup {} cannot be written", file.display())]
    Copy {
        /// Where it would be.
        file: PathBuf,
        /// What went wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It was told to end.
    #[error("told to end; no backup was made")]
    Interrupted,
}

/// Copies the database, as it is at one moment, into a file that is not there yet. Others read and write meanwhile; the
/// database itself is not changed, and an older schema stays as it is.
///
/// When it succeeds, the copy is on disk and was checked from end to end. It may be read by whoever may read the
/// database. `stop` ends the copying.
///
/// # Errors
///
/// See [`BackupError`].
pub async fn back_up(url: &DatabaseUrl, file: &Path, stop: impl Future<Output = ()>) -> Result<Backup, BackupError> {
    let Target::SqliteFile(database) = &url.0 else { return Err(BackupError::InMemory) };
    let metadata = fs::metadata(database).map_err(|error| unreadable(url, error))?;
    let place = free_place(file, database)?;
    let failed = |source: io::Error| BackupError::Copy { file: file.to_owned(), source: source.into() };

    // Whatever ends this removes the folder; after `kill -9` its name says what it is.
    let making = tempfile::Builder::new().prefix(".api-monitoring-backup-").tempdir_in(&place.folder);
    let making = making.map_err(|source| BackupError::Folder { folder: place.folder.clone(), source })?;
    let copy = making.path().join("copy");
    let users = sqlite::copy(url, database, &copy, stop).await.map_err(|error| match error {
        CopyError::Database(error) => error.into(),
        CopyError::Foreign => BackupError::Foreign { database: url.clone() },
        CopyError::Copy(source) => BackupError::Copy { file: file.to_owned(), source },
        CopyError::Interrupted => BackupError::Interrupted,
    })?;
    fs::set_permissions(&copy, metadata.permissions()).map_err(failed)?;
    let bytes = flush(copy.clone()).await.map_err(failed)?;
    place.take(copy).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => BackupError::Exists(file.to_owned()),
        _ => failed(error),
    })?;
    flush(place.folder).await.map_err(failed)?;
    Ok(Backup { users, bytes })
}

fn unreadable(url: &DatabaseUrl, error: io::Error) -> BackupError {
    let database = url.clone();
    match error.kind() {
        ErrorKind::NotFound => BackupError::Missing { database },
        _ => OpenError::Unreadable { database, source: Arc::new(error) }.into(),
    }
}

/// Where a backup goes.
struct Place {
    folder: PathBuf,
    name: OsString,
}

impl Place {
    /// Moves the copy there, unless something has come there meanwhile.
    fn take(&self, copy: PathBuf) -> io::Result<()> {
        TempPath::try_from_path(copy)?.persist_noclobber(self.folder.join(&self.name)).map_err(|error| error.error)
    }
}

/// The place of a file that is not there, and that nobody will take for a part of a database.
fn free_place(file: &Path, database: &Path) -> Result<Place, BackupError> {
    let name = file.file_name().filter(|_| !file.as_os_str().as_encoded_bytes().ends_with(b"/"));
    let name = name.ok_or_else(|| BackupError::NoFile(file.to_owned()))?.to_owned();
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = folder.canonicalize().map_err(|source| BackupError::Folder { folder: folder.to_owned(), source })?;
    let path = folder.join(&name);
    let real = database.canonicalize().unwrap_or_else(|_| database.to_owned());
    if BESIDE.iter().any(|ending| sqlite::with_suffix(&real, ending) == path) {
        return Err(BackupError::PartOfDatabase(file.to_owned()));
    }
    // What is left of another database of that name would be read as the newest part of this one.
    let beside = BESIDE.iter().map(|ending| sqlite::with_suffix(file, ending));
    match iter::once(file.to_owned()).chain(beside).find(|path| path.symlink_metadata().is_ok()) {
        Some(taken) => Err(BackupError::Exists(taken)),
        None => Ok(Place { folder, name }),
    }
}

/// Writes what the system still has of a file or folder to the disk; gives its length.
async fn flush(path: PathBuf) -> io::Result<u64> {
    let flushed = tokio::task::spawn_blocking(move || {
        let file = File::open(path)?;
        // Some file systems have nothing to flush of a folder.
        file.sync_all().or_else(|error| if error.kind() == ErrorKind::InvalidInput { Ok(()) } else { Err(error) })?;
        Ok(file.metadata()?.len())
    });
    flushed.await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
