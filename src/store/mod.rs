//! Where users are kept: [`UserStore`], the one face of whatever database stands behind it.
//!
//! What it promises: a write that was answered survives `kill -9` and a loss of power; ids grow and are never reused;
//! a listing holds one page in memory. It refuses to know HTTP or metrics: it tells its owner what was committed
//! through a callback.

mod backup;
mod sqlite;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use backup::{Backup, BackupError, back_up};

use crate::users::{NewUser, User, UserChange, UserId};
use sqlite::SqliteStore;

/// The users, in a database.
///
/// A cheap handle; clones share the database. Every method but [`UserStore::close`] may be cancelled by dropping its
/// future: a write is then either made whole or not at all.
#[derive(Clone, Debug)]
pub struct UserStore(Backend);

// PostgreSQL will be the second variant; callers see neither.
#[derive(Clone, Debug)]
enum Backend {
    Sqlite(SqliteStore),
}

/// What the store tells its owner after each commit, before the writers are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    /// Users created by this commit.
    pub created: u64,
    /// Users deleted by this commit.
    pub deleted: u64,
    /// Users in the store now, whoever wrote them.
    pub users: i64,
}

/// A part of an import.
#[derive(Debug, Clone)]
pub struct ImportBatch {
    /// The users to create, in their order.
    pub users: Vec<NewUser>,
    /// Under which key the progress is kept, if any, and how.
    pub progress: Option<ImportProgress>,
}

/// How a batch moves an import on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportProgress {
    /// Names the import.
    pub key: String,
    /// Rows of its source that were done before this batch.
    pub before: u64,
    /// Rows of its source that are done with it, those included that made no user.
    pub after: u64,
}

/// Called after each commit, and when the number of users changed otherwise. Must be quick: writers wait for it.
pub type OnCommit = Arc<dyn Fn(Committed) + Send + Sync>;

/// Which database holds the users.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(Target);

#[derive(Clone, PartialEq, Eq)]
enum Target {
    SqliteFile(std::path::PathBuf),
    SqliteMemory,
}

/// Why a database URL was refused. It does not repeat the URL, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidDatabaseUrl(String);

impl FromStr for DatabaseUrl {
    type Err = InvalidDatabaseUrl;

    fn from_str(url: &str) -> Result<Self, InvalidDatabaseUrl> {
        const ACCEPTED: &str = "expected sqlite://PATH, such as sqlite://data/users.db, or sqlite::memory:";
        let refused = |reason: &str| Err(InvalidDatabaseUrl(reason.to_owned()));
        if url == "sqlite::memory:" {
            return Ok(Self(Target::SqliteMemory));
        }
        if url.starts_with("postgres:") || url.starts_with("postgresql:") {
            return refused("PostgreSQL is not supported by this version; expected sqlite://PATH or sqlite::memory:");
        }
        match url.strip_prefix("sqlite://") {
            // SQLite's own words for memory and for URLs: each connection would get a database of its own.
            Some(path) if path.starts_with(':') || path.starts_with("file:") => refused(ACCEPTED),
            Some(path) if path.contains(['?', '#']) => {
                refused("a SQLite URL takes no parameters; expected sqlite://PATH or sqlite::memory:")
            }
            Some(path) if !path.is_empty() && !path.ends_with('/') && !path.contains('\0') => {
                Ok(Self(Target::SqliteFile(path.into())))
            }
            Some(_) => refused(ACCEPTED),
            None => match scheme(url) {
                Some(scheme) => refused(&format!("databases of the scheme {scheme} are not supported; {ACCEPTED}")),
                None => refused(ACCEPTED),
            },
        }
    }
}

/// A URL's scheme (RFC 3986, 3.1). Only what `://` follows: before a colon alone may stand a user name.
fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once("://")?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_scheme.then_some(scheme)
}

impl DatabaseUrl {
    /// Whether the database is gone with the process.
    #[must_use]
    pub fn is_in_memory(&self) -> bool {
        matches!(self.0, Target::SqliteMemory)
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Target::SqliteFile(path) => write!(f, "sqlite://{}", path.display()),
            Target::SqliteMemory => f.write_str("sqlite::memory:"),
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Why the store could not be opened. Each text names the database and what to do about it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// The folder of the database file cannot be created or written.
    #[error("the folder {folder:?} of the database {database} cannot be written")]
    Folder {
        /// The database.
        database: DatabaseUrl,
        /// The folder.
        folder: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: Arc<std::io::Error>,
    },
    /// The file is there but cannot be opened for reading and writing.
    #[error(
        "the database {database} cannot be opened; check that this user may read and write the file and its folder"
    )]
    Unreadable {
        /// The database.
        database: DatabaseUrl,
        /// What the database said.
        #[source]
        source: Cause,
    },
    /// The file is no database, or a damaged one.
    #[error("the database {database} is corrupt or no database at all; restore it from a backup, or move it away")]
    Corrupt {
        /// The database.
        database: DatabaseUrl,
        /// What the database said.
        #[source]
        source: Cause,
    },
    /// The database holds another program's tables.
    #[error("the database {database} has another program's schema; name a file of its own for the users")]
    Foreign {
        /// The database.
        database: DatabaseUrl,
    },
    /// The schema was changed by a newer version, or by hand.
    #[error("the database {database} has a schema that this version does not know; it may come from a newer version")]
    Schema {
        /// The database.
        database: DatabaseUrl,
        /// What differs.
        #[source]
        source: Cause,
    },
    /// Another program holds the database for longer than the busy time-out.
    #[error("the database {database} is locked by another program")]
    Locked {
        /// The database.
        database: DatabaseUrl,
        /// What the database said.
        #[source]
        source: Cause,
    },
}

/// Why a read or write failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// More writes are waiting than the queue holds; nothing was written, and trying again soon may work.
    #[error("too many writes are waiting")]
    Overloaded,
    /// The database is busy, closed or gone; the write is not acknowledged, and trying again later may work.
    #[error("the database does not answer")]
    Unavailable(#[source] Cause),
    /// The database refused or broke: a full disk, a damaged file. The write is not acknowledged.
    #[error("the database failed")]
    Failed(#[source] Cause),
}

impl UserStore {
    /// Opens the database, creating it and its folder when absent, and brings its schema up to date.
    ///
    /// # Errors
    ///
    /// See [`OpenError`].
    pub async fn open(url: &DatabaseUrl, on_commit: OnCommit) -> Result<Self, OpenError> {
        SqliteStore::open(url, on_commit).await.map(|store| Self(Backend::Sqlite(store)))
    }

    /// Creates a user and gives it the next id.
    ///
    /// # Errors
    ///
    /// When the write is not acknowledged. It was not made, unless the database broke during its commit.
    pub async fn create(&self, user: NewUser) -> Result<User, StoreError> {
        let Backend::Sqlite(store) = &self.0;
        store.create(user).await
    }

    /// The user of that id, if there is one. What another program writes to the database shows within 0.1 s, as a rule;
    /// what this one writes shows at once.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn user(&self, id: UserId) -> Result<Option<Arc<User>>, StoreError> {
        let Backend::Sqlite(store) = &self.0;
        store.user(id).await
    }

    /// At most `limit` users with ids above `after`, ordered by id.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn page(&self, after: i64, limit: u32) -> Result<Vec<User>, StoreError> {
        let Backend::Sqlite(store) = &self.0;
        store.page(after, limit).await
    }

    /// Changes a user; gives it as it now is, or `None` when there is no user of that id.
    ///
    /// # Errors
    ///
    /// When the write is not acknowledged. It was not made, unless the database broke during its commit.
    pub async fn update(&self, id: UserId, change: UserChange) -> Result<Option<User>, StoreError> {
        let Backend::Sqlite(store) = &self.0;
        store.update(id, change).await
    }

    /// Deletes a user; false when there is no user of that id.
    ///
    /// # Errors
    ///
    /// When the write is not acknowledged. It was not made, unless the database broke during its commit.
    pub async fn delete(&self, id: UserId) -> Result<bool, StoreError> {
        let Backend::Sqlite(store) = &self.0;
        store.delete(id).await
    }

    /// How many rows of its source an import has done; 0 for one that has not begun.
    ///
    /// # Errors
    ///
    /// When the database does not answer.
    pub async fn import_progress(&self, key: &str) -> Result<u64, StoreError> {
        let Backend::Sqlite(store) = &self.0;
        store.import_progress(key).await
    }

    /// Creates the users of a batch and notes the progress, all in one transaction. False, with nothing done, when the
    /// import is not where the batch begins: another process is at it.
    ///
    /// # Errors
    ///
    /// When the batch is not acknowledged. Nothing of it was written, unless the database broke during its commit.
    pub async fn import(&self, batch: ImportBatch) -> Result<bool, StoreError> {
        let Backend::Sqlite(store) = &self.0;
        store.import(batch).await
    }

    /// Whether the store reads, and its writer still takes writes. Whether the disk has room is not tried.
    ///
    /// # Errors
    ///
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let Backend::Sqlite(store) = &self.0;
        store.ping().await
    }

    /// Makes the writes that are waiting, then closes the database. Later calls fail with
    /// [`StoreError::Unavailable`].
    pub async fn close(&self) {
        let Backend::Sqlite(store) = &self.0;
        store.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn database_urls_name_a_file_or_memory() {
        let accepted = [
            ("sqlite://data/users.db", "relative"),
            ("sqlite:///var/lib/api/users.db", "absolute"),
            ("sqlite::memory:", "in memory"),
        ];
        for (url, reason) in accepted {
            assert_eq!(url.parse::<DatabaseUrl>().map(|parsed| parsed.to_string()), Ok(url.to_owned()), "{reason}");
        }
        let refused = [
            ("", "empty"),
            ("users.db", "no scheme"),
            ("sqlite://", "no path"),
            ("sqlite://data/", "a folder"),
            ("sqlite://:memory:", "another way to say memory, which each connection would have to itself"),
            ("sqlite://file:users.db", "SQLite's own URL"),
            ("sqlite://users.db?mode=ro", "parameters, which could switch off durability"),
            ("mysql://host/db", "another database"),
            ("postgres://user:secret@host/db", "not supported yet"),
        ];
        for (url, reason) in refused {
            let error = url.parse::<DatabaseUrl>().expect_err(reason).to_string();
            assert!(error.contains("expected sqlite://PATH"), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
