//! The files of a database, and whether they are still where they were opened.
//!
//! SQLite holds its files open. Where one is removed or replaced, SQLite goes on writing into what nobody else can open,
//! and all of it is gone with the process. So what stands at each path is compared with what was opened, by device and
//! inode, as SQLite itself tells files apart.
//!
//! The system is asked about paths only. To open a file of the database here, and to close it again, would drop the locks
//! that SQLite has on it (POSIX drops all locks of a process on a file with the first descriptor that it closes).

use std::convert::Infallible;
use std::fmt;
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use crate::store::StoreError;

/// How often the files are looked for while nothing is written.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The files of one database, watched from when they were opened. A cheap handle; a database in memory has none.
#[derive(Clone, Debug, Default)]
pub(super) struct Files(Option<Arc<Watched>>);

#[derive(Debug)]
struct Watched {
    opened: Opened,
    /// As the database file was when it was last seen; `None` once nobody looks any more. Held while the files are looked
    /// for, so that an older look never replaces what a newer one saw.
    content: Mutex<Option<Content>>,
    /// What the last look missed.
    lost: RwLock<Option<Lost>>,
}

#[derive(Debug)]
struct Opened {
    /// As the settings name it: where the next start looks for it. Links are followed each time.
    database: PathBuf,
    identity: Identity,
    /// The write-ahead log and its index, by what their names add to that of the file to which the links lead.
    beside: Vec<(&'static str, Identity)>,
}

/// Device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

/// Length, and time of the last change in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Content(u64, i64, i64);

/// A file of the database that is not where it was opened.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    file: PathBuf,
    fate: Fate,
    /// What to do about it.
    advice: &'static str,
}

#[derive(Debug, Clone)]
enum Fate {
    Removed,
    FolderRemoved,
    Replaced,
    /// SQLite never leaves a database file empty.
    Emptied,
    /// It was away, and what came back is not as it was.
    Changed,
    Unseen(Arc<io::Error>),
}

const DATABASE: &str = "put it back as it was, or save what this process still holds open before you end it \
                        (docs/runbook.md, \"The database file is gone\")";
const BESIDE: &str = "end this process with SIGTERM, which writes all that it holds into the database file, and start it \
                      again";
const CHANGED: &str =
    "end this process, restore a backup (docs/runbook.md, \"Restoring a backup\"), and start it again";

impl Files {
    /// Watches the file at a path, which a connection has just opened, and what SQLite made beside it. `before` is what
    /// stood there before that.
    pub(super) fn opened(database: &Path, before: Option<Identity>) -> Result<Self, Lost> {
        let metadata = look_at(database, DATABASE)?;
        let identity = Identity::of(&metadata);
        if before.is_some_and(|before| before != identity) {
            return Err(Lost::replaced(database, DATABASE));
        }
        let real = real_path(database)?;
        // A file system on which SQLite cannot have a write-ahead log has neither.
        let beside = ["-wal", "-shm"].into_iter();
        let beside = beside.filter_map(|suffix| Some((suffix, Identity::at(&with_suffix(&real, suffix))?))).collect();
        Ok(Self(Some(Arc::new(Watched {
            opened: Opened { database: database.to_owned(), identity, beside },
            content: Mutex::new(Some(Content::of(&metadata))),
            lost: RwLock::new(None),
        }))))
    }

    /// Whether all were there when they were last looked for; costs no call to the system.
    pub(super) fn present(&self) -> Result<(), Lost> {
        let Some(watched) = &self.0 else { return Ok(()) };
        watched.lost.read().unwrap_or_else(PoisonError::into_inner).clone().map_or(Ok(()), Err)
    }

    /// Looks for all of them now, on a thread that a disk may hold up.
    pub(super) async fn look(&self) -> Result<(), Lost> {
        let Some(watched) = self.0.clone() else { return Ok(()) };
        let database = watched.opened.database.clone();
        let looked = tokio::task::spawn_blocking(move || watched.look()).await;
        looked.unwrap_or_else(|error| Err(Lost::missed(&database, io::Error::other(error), DATABASE)))
    }

    /// Looks for them no more: all are taken to be there.
    pub(super) async fn release(&self) {
        let Some(watched) = self.0.clone() else { return };
        // A look that is under way is waited for.
        let release = move || *watched.content.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let _ = tokio::task::spawn_blocking(release).await;
    }

    /// Looks for them for ever.
    pub(super) async fn watch(&self) -> Infallible {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            look.tick().await;
            // What it misses is logged, and known to whoever asks next.
            let _ = self.look().await;
        }
    }
}

impl Watched {
    fn look(&self) -> Result<(), Lost> {
        let mut content = self.content.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(content) = &mut *content else { return Ok(()) };
        let before = self.lost.read().unwrap_or_else(PoisonError::into_inner).clone();
        let seen = self.opened.find().and_then(|now| match &before {
            // Another program may have written to it without our log: what SQLite keeps of it in memory may be wrong.
            Some(lost) if lost.was_away() && now != *content => {
                Err(Lost { file: self.opened.database.clone(), fate: Fate::Changed, advice: CHANGED })
            }
            _ => Ok(now),
        });
        let lost = match seen {
            Ok(now) => {
                *content = now;
                None
            }
            Err(lost) => Some(lost),
        };
        tell(before.as_ref(), lost.as_ref());
        self.lost.write().unwrap_or_else(PoisonError::into_inner).clone_from(&lost);
        lost.map_or(Ok(()), Err)
    }
}

impl Opened {
    /// The database file's content, when all files are where they were opened.
    fn find(&self) -> Result<Content, Lost> {
        let metadata = find(&self.database, self.identity, DATABASE)?;
        if metadata.len() == 0 {
            return Err(Lost { file: self.database.clone(), fate: Fate::Emptied, advice: CHANGED });
        }
        // As the next start would find them: where a link leads elsewhere by now, it would open another log.
        let real = real_path(&self.database)?;
        for (suffix, identity) in &self.beside {
            find(&with_suffix(&real, suffix), *identity, BESIDE)?;
        }
        Ok(Content::of(&metadata))
    }
}

fn find(file: &Path, identity: Identity, advice: &'static str) -> Result<Metadata, Lost> {
    let metadata = look_at(file, advice)?;
    if Identity::of(&metadata) == identity { Ok(metadata) } else { Err(Lost::replaced(file, advice)) }
}

/// The file to which the links lead: SQLite names the log after it.
fn real_path(database: &Path) -> Result<PathBuf, Lost> {
    database.canonicalize().map_err(|error| Lost::missed(database, error, DATABASE))
}

fn look_at(file: &Path, advice: &'static str) -> Result<Metadata, Lost> {
    file.metadata().map_err(|error| Lost::missed(file, error, advice))
}

/// The path of a file that SQLite keeps beside a database.
pub(in crate::store) fn with_suffix(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Says once what has changed since the look before.
fn tell(before: Option<&Lost>, now: Option<&Lost>) {
    match (before, now) {
        (Some(before), Some(now)) if before.to_string() == now.to_string() => {}
        (_, Some(lost)) => tracing::error!(
            cause = %lost,
            advice = lost.advice,
            "the database is not where it was opened; no user is read or written"
        ),
        (Some(_), None) => tracing::warn!("the database is back where it was opened; users are read and written again"),
        (None, None) => {}
    }
}

impl Identity {
    /// Of what stands at a path, if anything does.
    pub(super) fn at(path: &Path) -> Option<Self> {
        path.metadata().ok().as_ref().map(Self::of)
    }

    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

impl Content {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.len(), metadata.mtime(), metadata.mtime_nsec())
    }
}

impl Lost {
    fn missed(file: &Path, error: io::Error, advice: &'static str) -> Self {
        let folder_exists = || file.parent().is_none_or(|folder| folder.as_os_str().is_empty() || folder.exists());
        let fate = match error.kind() {
            ErrorKind::NotFound if folder_exists() => Fate::Removed,
            ErrorKind::NotFound => Fate::FolderRemoved,
            _ => Fate::Unseen(Arc::new(error)),
        };
        Self { file: file.to_owned(), fate, advice }
    }

    fn replaced(file: &Path, advice: &'static str) -> Self {
        Self { file: file.to_owned(), fate: Fate::Replaced, advice }
    }

    /// Whether somebody may have changed the file under another name.
    fn was_away(&self) -> bool {
        !matches!(self.fate, Fate::Unseen(_))
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match &self.fate {
            Fate::Removed => write!(f, "{file} was removed or moved away"),
            Fate::FolderRemoved => write!(f, "{file} is gone with its folder"),
            Fate::Replaced => write!(f, "{file} was replaced by another file"),
            Fate::Emptied => write!(f, "{file} was emptied"),
            Fate::Changed => write!(f, "{file} was changed while it was away"),
            Fate::Unseen(error) => write!(f, "{file} cannot be looked at: {error}"),
        }
    }
}

impl std::error::Error for Lost {}

impl From<Lost> for StoreError {
    fn from(lost: Lost) -> Self {
        Self::Unavailable(Arc::new(lost))
    }
}
