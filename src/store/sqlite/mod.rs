//! Users in SQLite: one writer that commits in groups, and a pool of readers.
//!
//! SQLite takes one writer at a time, and a durable commit costs a flush to disk. So all writes go through one task:
//! whatever waits when it is free becomes one transaction, flushed once, and each writer is answered after the commit.
//! Readers have connections of their own and never wait for it (WAL).
//!
//! Users that were read lately are kept in memory ([`Recent`]): a read through a connection goes to its thread and back,
//! which takes longer than everything else about a request. Others are read in groups ([`Lookups`]). The
//! writer keeps the memory true: it holds a user's place from before the change until it is committed, and forgets
//! everything once another program has written.
//!
//! A database whose file was taken away under it ([`Files`]) is neither read nor written: what it would show or take is
//! gone with the process.

mod copy;
mod errors;
mod files;
mod lookups;
mod open;
mod recent;
#[cfg(test)]
mod tests;
mod writer;

use std::sync::Arc;

use sqlx::sqlite::{SqliteConnection, SqlitePool, SqlitePoolOptions};
use tokio::sync::{mpsc, oneshot};

use super::{Committed, DatabaseUrl, ImportBatch, OnCommit, OpenError, StoreError};
use crate::users::{Email, NewUser, User, UserChange, UserId, UserName};
pub(super) use copy::{CopyError, copy};
pub(super) use files::with_suffix;

use errors::{closed, explain, explain_open, unreadable};
use files::Files;
use lookups::Lookups;
use open::{BUSY_TIMEOUT, Prepared, connect_options, prepare_patiently};
use recent::Recent;
use writer::{Change, Command, Writer};

/// Reader connections at most; each is a thread. Reads take microseconds, so a few serve many requests.
const READERS: u32 = 4;

/// Writes that may wait. At a few thousand commits a second, more would only wait past their deadline.
const QUEUE: usize = 1024;

#[derive(Clone, Debug)]
pub(super) struct SqliteStore {
    recent: Recent,
    lookups: Lookups,
    files: Files,
    readers: SqlitePool,
    writer: mpsc::Sender<Command>,
}

type Row = (i64, String, String);

impl SqliteStore {
    pub(super) async fn open(url: &DatabaseUrl, on_commit: OnCommit) -> Result<Self, OpenError> {
        let options = connect_options(url)?;
        let Prepared { writer, version, users, files } = prepare_patiently(url, &options).await?;
        on_commit(Committed { created: 0, deleted: 0, users });

        let readers = SqlitePoolOptions::new()
            .min_connections(READERS)
            .max_connections(READERS)
            .acquire_timeout(BUSY_TIMEOUT)
            // A read that waited for a connection is no event; one that waited in vain is an error of its own.
            .acquire_slow_threshold(BUSY_TIMEOUT)
            // A connection to a file in this process does not go stale, and is kept: a new one would need a file
            // descriptor when there may be none, and would open whatever then stands at the path.
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.create_if_missing(false))
            .await
            .map_err(|error| explain_open(url, error))?;
        // The readers opened what the writer did.
        files.look().await.map_err(|lost| unreadable(url, lost))?;
        let (sender, commands) = mpsc::channel(QUEUE);
        let recent = Recent::default();
        let writer = Writer {
            connection: writer,
            users,
            version: Some(version),
            look_failed: false,
            recent: recent.clone(),
            files: files.clone(),
            on_commit,
        };
        tokio::spawn(writer.run(commands));
        Ok(Self { recent, lookups: Lookups::through(readers.clone()), files, readers, writer: sender })
    }

    pub(super) async fn create(&self, user: NewUser) -> Result<User, StoreError> {
        let created = self.write(Change::Create(user)).await?;
        Ok(created.expect("an insert gives its row back"))
    }

    pub(super) async fn update(&self, id: UserId, change: UserChange) -> Result<Option<User>, StoreError> {
        self.write(Change::Update(id, change)).await
    }

    pub(super) async fn delete(&self, id: UserId) -> Result<bool, StoreError> {
        Ok(self.write(Change::Delete(id)).await?.is_some())
    }

    async fn write(&self, change: Change) -> Result<Option<User>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.writer.try_send(Command::Write(change, reply)).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => StoreError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => closed(),
        })?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    pub(super) async fn user(&self, id: UserId) -> Result<Option<Arc<User>>, StoreError> {
        self.files.present()?;
        let place = match self.recent.get(id) {
            Ok(user) => return Ok(Some(user)),
            Err(place) => place,
        };
        let user = self.lookups.user(id).await?.map(Arc::new);
        if let (Some(place), Some(user)) = (place, &user) {
            // Refused when the user was forgotten meanwhile: what was read may be what it was before.
            let _ = place.insert(Arc::clone(user));
        }
        Ok(user)
    }

    pub(super) async fn page(&self, after: i64, limit: u32) -> Result<Vec<User>, StoreError> {
        self.files.present()?;
        let rows: Vec<Row> = sqlx::query_as("SELECT id, name, email FROM users WHERE id > ? ORDER BY id LIMIT ?")
            .bind(after)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(explain)?;
        Ok(rows.into_iter().filter_map(user).collect())
    }

    pub(super) async fn import_progress(&self, key: &str) -> Result<u64, StoreError> {
        self.files.present()?;
        let rows: Option<i64> = sqlx::query_scalar("SELECT rows FROM imports WHERE key = ?")
            .bind(key)
            .fetch_optional(&self.readers)
            .await
            .map_err(explain)?;
        Ok(rows.and_then(|rows| u64::try_from(rows).ok()).unwrap_or(0))
    }

    pub(super) async fn import(&self, batch: ImportBatch) -> Result<bool, StoreError> {
        let (reply, answer) = oneshot::channel();
        // One batch waits at a time: an import has no use for being turned away.
        self.writer.send(Command::Import(batch, reply)).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        if self.writer.is_closed() || self.lookups.is_closed() {
            return Err(closed());
        }
        self.files.present()?;
        sqlx::query("SELECT users FROM user_count").execute(&self.readers).await.map(drop).map_err(explain)
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.recent.forget_all();
        let (reply, closed) = oneshot::channel();
        // A writer that is gone already has nothing to close.
        if self.writer.send(Command::Close(reply)).await.is_ok() {
            let _ = closed.await;
        }
    }
}

async fn execute(connection: &mut SqliteConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(connection).await.map(drop)
}

async fn count(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT users FROM user_count").fetch_one(connection).await
}

async fn data_version(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("PRAGMA data_version").fetch_one(connection).await
}

/// A row as a user; `None` for an id that only another program can have written.
fn user((id, name, email): Row) -> Option<User> {
    Some(User { id: UserId::new(id)?, name: UserName::stored(name), email: Email::stored(email) })
}
