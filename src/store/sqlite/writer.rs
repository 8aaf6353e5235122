//! The one task that writes: whatever waits when it is free becomes one transaction.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::Connection;
use sqlx::sqlite::SqliteConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use super::errors::explain;
use super::files::{Files, Lost};
use super::recent::Recent;
use super::{Row, count, data_version, execute, user};
use crate::store::{Committed, ImportBatch, ImportProgress, OnCommit, StoreError};
use crate::users::{Email, NewUser, User, UserChange, UserId, UserName};

/// Writes in one transaction at most, so that the first of them is not kept waiting for long.
pub(super) const GROUP: usize = 256;

/// How often other programs' writes are looked for. So long may a user be shown as it was before one.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) enum Command {
    Write(Change, oneshot::Sender<Result<Option<User>, StoreError>>),
    Import(ImportBatch, oneshot::Sender<Result<bool, StoreError>>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
pub(super) enum Change {
    Create(NewUser),
    Update(UserId, UserChange),
    Delete(UserId),
}

/// The one task that writes.
pub(super) struct Writer {
    pub(super) connection: SqliteConnection,
    /// As last told to the owner.
    pub(super) users: i64,
    /// Changes when another connection writes (SQLite's `PRAGMA data_version`). `None` when `users` may be wrong.
    pub(super) version: Option<i64>,
    /// So that a fault that lasts is said once.
    pub(super) look_failed: bool,
    pub(super) recent: Recent,
    pub(super) files: Files,
    pub(super) on_commit: OnCommit,
}

type Waiting = (Change, oneshot::Sender<Result<Option<User>, StoreError>>);

impl Writer {
    /// Writes until it is told to close, or nobody is left who could tell it anything.
    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let files = self.files.clone();
        let closing = tokio::select! {
            closing = self.serve(&mut commands) => closing,
            // Beside the writes: one that waits for another program's lock must not hold this up.
            never = files.watch() => match never {},
        };
        // SQLite removes files of its own when it closes.
        files.release().await;
        if let Err(error) = self.connection.close().await {
            tracing::warn!(cause = %error, "the database did not close cleanly; it recovers at the next start");
        }
        for reply in closing {
            let _ = reply.send(());
        }
    }

    /// Gives those who wait for the end.
    async fn serve(&mut self, commands: &mut mpsc::Receiver<Command>) -> Vec<oneshot::Sender<()>> {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::with_capacity(GROUP);
        let mut closing = Vec::new();
        loop {
            tokio::select! {
                biased;
                // First, or it would never have its turn while there is always something to write.
                _ = look.tick() => self.look().await,
                received = commands.recv_many(&mut waiting, GROUP) => if received == 0 { return closing },
            }
            let mut group = Vec::with_capacity(waiting.len());
            let mut imports = Vec::new();
            for command in waiting.drain(..) {
                match command {
                    // Nobody waits for the answer any more: better not to write than to surprise.
                    Command::Write(_, reply) if reply.is_closed() => {}
                    Command::Write(change, reply) => group.push((change, reply)),
                    Command::Import(_, reply) if reply.is_closed() => {}
                    Command::Import(batch, reply) => imports.push((batch, reply)),
                    Command::Close(reply) => {
                        // What is queued is still written; then `recv_many` gives 0.
                        commands.close();
                        closing.push(reply);
                    }
                }
            }
            self.write(group).await;
            for (batch, reply) in imports {
                let imported = self.import(&batch).await;
                let _ = reply.send(imported);
            }
        }
    }

    async fn write(&mut self, group: Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        // Readers go to the database meanwhile: each of them sees a change once it is committed, and none sees it undone.
        let recent = self.recent.clone();
        let held: Vec<_> = changed(&group).into_iter().map(|id| recent.hold(id)).collect();
        let outcome = self.commit(&group).await;
        drop(held);
        match outcome {
            Ok((outcomes, committed)) => {
                self.tell(committed);
                for ((_, reply), outcome) in group.into_iter().zip(outcomes) {
                    let _ = reply.send(Ok(outcome));
                }
            }
            // One change must not fail those that only happened to wait with it.
            Err(NotCommitted::Change(_)) if group.len() > 1 => {
                for waiting in group {
                    Box::pin(self.write(vec![waiting])).await;
                }
            }
            Err(error) => {
                // A commit that failed may have reached the disk.
                self.version = None;
                let error = StoreError::from(error);
                for (_, reply) in group {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Commits a group. What was committed into files that are gone counts as not committed.
    async fn commit(&mut self, group: &[Waiting]) -> Result<(Vec<Option<User>>, Committed), NotCommitted> {
        self.files.present()?;
        let made = commit(&mut self.connection, group).await?;
        // After the commit, so that whoever is answered finds the file with the change in its place at that moment.
        self.files.look().await?;
        Ok(made)
    }

    /// Makes all of a batch in one transaction, or none of it.
    async fn import(&mut self, batch: &ImportBatch) -> Result<bool, StoreError> {
        self.files.present()?;
        execute(&mut self.connection, "BEGIN IMMEDIATE").await.map_err(explain)?;
        let made = match import(&mut self.connection, batch).await {
            Ok(Some(committed)) => execute(&mut self.connection, "COMMIT").await.map(|()| Some(committed)),
            other => other,
        };
        match made {
            Ok(Some(committed)) => {
                // As in `commit`.
                self.files.look().await.inspect_err(|_| self.version = None)?;
                self.tell(committed);
                Ok(true)
            }
            made => {
                // Fails where SQLite has rolled back already.
                let _ = execute(&mut self.connection, "ROLLBACK").await;
                made.map(|_| false).map_err(explain)
            }
        }
    }

    /// Looks whether another program has written.
    async fn look(&mut self) {
        let looked = self.try_look().await;
        if let Err(error) = &looked {
            // What nobody can see may have happened.
            self.recent.forget_all();
            if !self.look_failed {
                tracing::warn!(cause = %error, "cannot see what other programs write; users are read anew each time");
            }
        }
        self.look_failed = looked.is_err();
    }

    async fn try_look(&mut self) -> Result<(), sqlx::Error> {
        let version = data_version(&mut self.connection).await?;
        if self.version != Some(version) {
            self.recent.forget_all();
            let users = count(&mut self.connection).await?;
            self.version = Some(version);
            if users != self.users {
                self.tell(Committed { created: 0, deleted: 0, users });
            }
        }
        Ok(())
    }

    fn tell(&mut self, committed: Committed) {
        self.users = committed.users;
        (self.on_commit)(committed);
    }
}

/// The users that exist and may change, each once.
fn changed(group: &[Waiting]) -> BTreeSet<UserId> {
    let ids = group.iter().filter_map(|(change, _)| match change {
        Change::Create(_) => None,
        Change::Update(id, _) | Change::Delete(id) => Some(*id),
    });
    ids.collect()
}

/// Why a group was not committed.
enum NotCommitted {
    /// One of its changes cannot be made.
    Change(sqlx::Error),
    /// The transaction could not be begun or ended.
    Transaction(sqlx::Error),
    /// The files into which it was, or would have been, committed are gone.
    Lost(Lost),
}

impl From<Lost> for NotCommitted {
    fn from(lost: Lost) -> Self {
        Self::Lost(lost)
    }
}

impl From<NotCommitted> for StoreError {
    fn from(error: NotCommitted) -> Self {
        match error {
            NotCommitted::Change(error) | NotCommitted::Transaction(error) => explain(error),
            NotCommitted::Lost(lost) => lost.into(),
        }
    }
}

/// Makes all changes of a group in one transaction, or none.
///
/// Plain statements instead of sqlx's transaction: on a full disk SQLite rolls back by itself, after which sqlx would
/// take the connection to be in a transaction for good. Nothing cancels the writer, so none is left open.
async fn commit(
    connection: &mut SqliteConnection,
    group: &[Waiting],
) -> Result<(Vec<Option<User>>, Committed), NotCommitted> {
    // IMMEDIATE takes the write lock first: a transaction that has read cannot wait for it later.
    execute(connection, "BEGIN IMMEDIATE").await.map_err(NotCommitted::Transaction)?;
    let made = match apply_all(connection, group).await {
        Ok(made) => execute(connection, "COMMIT").await.map(|()| made).map_err(NotCommitted::Transaction),
        Err(error) => Err(NotCommitted::Change(error)),
    };
    if made.is_err() {
        // Fails where SQLite has rolled back already.
        let _ = execute(connection, "ROLLBACK").await;
    }
    made
}

async fn apply_all(
    connection: &mut SqliteConnection,
    group: &[Waiting],
) -> Result<(Vec<Option<User>>, Committed), sqlx::Error> {
    let mut outcomes = Vec::with_capacity(group.len());
    let (mut created, mut deleted) = (0, 0);
    for (change, _) in group {
        let outcome = apply(connection, change).await?;
        match change {
            Change::Create(_) => created += 1,
            Change::Delete(_) => deleted += u64::from(outcome.is_some()),
            Change::Update(..) => {}
        }
        outcomes.push(outcome);
    }
    let users = count(connection).await?;
    Ok((outcomes, Committed { created, deleted, users }))
}

/// Moves the import on and creates its users; `None` when the import is not where the batch begins.
async fn import(connection: &mut SqliteConnection, batch: &ImportBatch) -> Result<Option<Committed>, sqlx::Error> {
    if let Some(ImportProgress { key, before, after }) = &batch.progress {
        let count = |rows: u64| i64::try_from(rows).unwrap_or(i64::MAX);
        sqlx::query("INSERT INTO imports (key, rows) VALUES (?, 0) ON CONFLICT DO NOTHING")
            .bind(key)
            .execute(&mut *connection)
            .await?;
        let moved = sqlx::query("UPDATE imports SET rows = ? WHERE key = ? AND rows = ?")
            .bind(count(*after))
            .bind(key)
            .bind(count(*before))
            .execute(&mut *connection)
            .await?;
        if moved.rows_affected() == 0 {
            return Ok(None);
        }
    }
    // One statement for all rows: a statement a row would spend most of its time between threads.
    let rows: Vec<_> = batch.users.iter().map(|user| [user.name.as_str(), user.email.as_str()]).collect();
    let rows = serde_json::to_string(&rows).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let created =
        sqlx::query("INSERT INTO users (name, email) SELECT value ->> 0, value ->> 1 FROM json_each(?) ORDER BY key")
            .bind(rows)
            .execute(&mut *connection)
            .await?;
    let users = count(connection).await?;
    Ok(Some(Committed { created: created.rows_affected(), deleted: 0, users }))
}

async fn apply(connection: &mut SqliteConnection, change: &Change) -> Result<Option<User>, sqlx::Error> {
    let query = match change {
        Change::Create(NewUser { name, email }) => {
            sqlx::query_as("INSERT INTO users (name, email) VALUES (?, ?) RETURNING id, name, email")
                .bind(name.as_str())
                .bind(email.as_str())
        }
        Change::Update(id, UserChange { name, email }) => sqlx::query_as(
            "UPDATE users SET name = COALESCE(?, name), email = COALESCE(?, email) WHERE id = ? \
             RETURNING id, name, email",
        )
        .bind(name.as_ref().map(UserName::as_str))
        .bind(email.as_ref().map(Email::as_str))
        .bind(id.get()),
        Change::Delete(id) => sqlx::query_as("DELETE FROM users WHERE id = ? RETURNING id, name, email").bind(id.get()),
    };
    let row: Option<Row> = query.fetch_optional(connection).await?;
    Ok(row.and_then(user))
}
