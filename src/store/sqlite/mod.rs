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

mod lookups;
mod recent;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};

use super::{Committed, DatabaseUrl, ImportBatch, ImportProgress, OnCommit, OpenError, StoreError, Target};
use crate::users::{Email, NewUser, User, UserChange, UserId, UserName};
use lookups::Lookups;
use recent::Recent;

/// How long a statement waits for another program that holds the database. Below the request time-out's default (10 s),
/// so that a client whose write is the first to wait learns the reason.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reader connections at most; each is a thread. Reads take microseconds, so a few serve many requests.
const READERS: u32 = 4;

/// Writes that may wait. At a few thousand commits a second, more would only wait past their deadline.
const QUEUE: usize = 1024;

/// Writes in one transaction at most, so that the first of them is not kept waiting for long.
const GROUP: usize = 256;

/// Pause before a start tries again to prepare a database that another process holds.
const PREPARE_AGAIN: Duration = Duration::from_millis(20);

/// How often other programs' writes are looked for. So long may a user be shown as it was before one.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Clone, Debug)]
pub(super) struct SqliteStore {
    recent: Recent,
    lookups: Lookups,
    readers: SqlitePool,
    writer: mpsc::Sender<Command>,
}

#[derive(Debug)]
enum Command {
    Write(Change, oneshot::Sender<Result<Option<User>, StoreError>>),
    Import(ImportBatch, oneshot::Sender<Result<bool, StoreError>>),
    Close(oneshot::Sender<()>),
}

#[derive(Debug)]
enum Change {
    Create(NewUser),
    Update(UserId, UserChange),
    Delete(UserId),
}

#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
struct Closed;

type Row = (i64, String, String);

impl SqliteStore {
    pub(super) async fn open(url: &DatabaseUrl, on_commit: OnCommit) -> Result<Self, OpenError> {
        let options = connect_options(url)?;
        let (writer, version, users) = prepare_patiently(url, &options).await?;
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
        let (sender, commands) = mpsc::channel(QUEUE);
        let recent = Recent::default();
        let version = Some(version);
        let look_failed = false;
        let writer = Writer { connection: writer, users, version, look_failed, recent: recent.clone(), on_commit };
        tokio::spawn(writer.run(commands));
        Ok(Self { recent, lookups: Lookups::through(readers.clone()), readers, writer: sender })
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
        let rows: Vec<Row> = sqlx::query_as("SELECT id, name, email FROM users WHERE id > ? ORDER BY id LIMIT ?")
            .bind(after)
            .bind(limit)
            .fetch_all(&self.readers)
            .await
            .map_err(explain)?;
        Ok(rows.into_iter().filter_map(user).collect())
    }

    pub(super) async fn import_progress(&self, key: &str) -> Result<u64, StoreError> {
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

/// The one task that writes.
struct Writer {
    connection: SqliteConnection,
    /// As last told to the owner.
    users: i64,
    /// Changes when another connection writes (SQLite's `PRAGMA data_version`). `None` when `users` may be wrong.
    version: Option<i64>,
    /// So that a fault that lasts is said once.
    look_failed: bool,
    recent: Recent,
    on_commit: OnCommit,
}

type Waiting = (Change, oneshot::Sender<Result<Option<User>, StoreError>>);

impl Writer {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut waiting = Vec::with_capacity(GROUP);
        let mut closing = Vec::new();
        loop {
            tokio::select! {
                biased;
                // First, or it would never have its turn while there is always something to write.
                _ = look.tick() => self.look().await,
                received = commands.recv_many(&mut waiting, GROUP) => if received == 0 { break },
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
                let imported = self.import(&batch).await.map_err(explain);
                let _ = reply.send(imported);
            }
        }
        if let Err(error) = self.connection.close().await {
            tracing::warn!(cause = %error, "the database did not close cleanly; it recovers at the next start");
        }
        for reply in closing {
            let _ = reply.send(());
        }
    }

    async fn write(&mut self, group: Vec<Waiting>) {
        if group.is_empty() {
            return;
        }
        // Readers go to the database meanwhile: each of them sees a change once it is committed, and none sees it undone.
        let recent = self.recent.clone();
        let held: Vec<_> = changed(&group).into_iter().map(|id| recent.hold(id)).collect();
        let outcome = commit(&mut self.connection, &group).await;
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
            Err(NotCommitted::Change(error) | NotCommitted::Transaction(error)) => {
                // A commit that failed may have reached the disk.
                self.version = None;
                let error = explain(error);
                for (_, reply) in group {
                    let _ = reply.send(Err(error.clone()));
                }
            }
        }
    }

    /// Makes all of a batch in one transaction, or none of it.
    async fn import(&mut self, batch: &ImportBatch) -> Result<bool, sqlx::Error> {
        execute(&mut self.connection, "BEGIN IMMEDIATE").await?;
        let made = match import(&mut self.connection, batch).await {
            Ok(Some(committed)) => execute(&mut self.connection, "COMMIT").await.map(|()| Some(committed)),
            other => other,
        };
        match made {
            Ok(Some(committed)) => {
                self.tell(committed);
                Ok(true)
            }
            made => {
                // Fails where SQLite has rolled back already.
                let _ = execute(&mut self.connection, "ROLLBACK").await;
                made.map(|_| false)
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

async fn execute(connection: &mut SqliteConnection, statement: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(statement).execute(connection).await.map(drop)
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

/// Prepares, and tries again while another process is preparing the same file: some of the locks that this takes do not
/// wait (SQLite's documentation of `SQLITE_BUSY`).
async fn prepare_patiently(
    url: &DatabaseUrl,
    options: &SqliteConnectOptions,
) -> Result<(SqliteConnection, i64, i64), OpenError> {
    let patience = Instant::now() + BUSY_TIMEOUT;
    loop {
        match prepare(url, options).await {
            Err(OpenError::Locked { .. }) if Instant::now() < patience => tokio::time::sleep(PREPARE_AGAIN).await,
            outcome => return outcome,
        }
    }
}

/// The writer's connection to a database with the current schema, its data version, and the number of users in it.
async fn prepare(url: &DatabaseUrl, options: &SqliteConnectOptions) -> Result<(SqliteConnection, i64, i64), OpenError> {
    let explain = |error| explain_open(url, error);
    let mut writer = options.connect().await.map_err(explain)?;
    if is_foreign(&mut writer).await.map_err(explain)? {
        return Err(OpenError::Foreign { database: url.clone() });
    }
    if matches!(url.0, Target::SqliteFile(_)) {
        // Kept in the file from now on, so that readers need not ask for it.
        execute(&mut writer, "PRAGMA journal_mode = WAL").await.map_err(explain)?;
    }
    // In one transaction that holds the write lock from its start: another process at the same file waits, and finds
    // everything done. It also tells a file that may only be read, which SQLite opens without a word.
    let mut schema = writer.begin_with("BEGIN IMMEDIATE").await.map_err(explain)?;
    let migrations = sqlx::migrate!("src/store/migrations/sqlite");
    migrations.run_direct(None, &mut *schema, false).await.map_err(|error| explain_migration(url, error))?;
    schema.commit().await.map_err(explain)?;
    // In this order: what is written in between shows as a change of the version.
    let version = data_version(&mut writer).await.map_err(explain)?;
    let users = count(&mut writer).await.map_err(explain)?;
    Ok((writer, version, users))
}

/// Whether the database belongs to another program: it has tables, and none of ours. Reads only.
async fn is_foreign(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(*) > 0 AND COUNT(*) FILTER (WHERE name = '_sqlx_migrations') = 0 FROM sqlite_schema",
    )
    .fetch_one(connection)
    .await
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

fn connect_options(url: &DatabaseUrl) -> Result<SqliteConnectOptions, OpenError> {
    let options = match &url.0 {
        Target::SqliteMemory => "sqlite::memory:".parse().expect("sqlx knows its own in-memory URL"),
        Target::SqliteFile(path) => {
            create_folder(url, path)?;
            SqliteConnectOptions::new().filename(path).create_if_missing(true)
        }
    };
    Ok(options
        // FULL flushes the log at each commit: NORMAL could lose acknowledged writes with the power (SQLite's
        // "PRAGMA synchronous").
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .thread_name(|id| format!("users-db-{id}"))
        .disable_statement_logging())
}

fn create_folder(url: &DatabaseUrl, path: &Path) -> Result<(), OpenError> {
    let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) else { return Ok(()) };
    std::fs::create_dir_all(folder).map_err(|source| OpenError::Folder {
        database: url.clone(),
        folder: folder.to_owned(),
        source: Arc::new(source),
    })
}

/// SQLite's primary result code (<https://sqlite.org/rescode.html>) behind an error, if it came from SQLite.
fn result_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?.parse::<i32>().ok()?;
    Some(code & 0xff)
}

const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_NOTADB: i32 = 26;

fn explain_open(url: &DatabaseUrl, error: sqlx::Error) -> OpenError {
    let database = url.clone();
    let code = result_code(&error);
    let source = Arc::new(error);
    match code {
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => OpenError::Corrupt { database, source },
        Some(SQLITE_BUSY | SQLITE_LOCKED) => OpenError::Locked { database, source },
        _ => OpenError::Unreadable { database, source },
    }
}

fn explain_migration(url: &DatabaseUrl, error: MigrateError) -> OpenError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => explain_open(url, error),
        other => OpenError::Schema { database: url.clone(), source: Arc::new(other) },
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    matches!(result_code(error), Some(SQLITE_BUSY | SQLITE_LOCKED))
}

fn explain(error: sqlx::Error) -> StoreError {
    use sqlx::Error::{PoolClosed, PoolTimedOut, WorkerCrashed};
    let passing = matches!(error, PoolClosed | PoolTimedOut | WorkerCrashed) || is_busy(&error);
    if passing { StoreError::Unavailable(Arc::new(error)) } else { StoreError::Failed(Arc::new(error)) }
}

fn closed() -> StoreError {
    StoreError::Unavailable(Arc::new(Closed))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::{StreamExt, TryStreamExt};

    use super::*;

    /// What the owner was told, in order.
    #[derive(Clone, Default)]
    struct Told(Arc<Mutex<Vec<Committed>>>);

    impl Told {
        fn listener(&self) -> OnCommit {
            let told = Arc::clone(&self.0);
            Arc::new(move |committed| told.lock().unwrap().push(committed))
        }

        fn all(&self) -> Vec<Committed> {
            self.0.lock().unwrap().clone()
        }
    }

    fn new_user(name: &str) -> NewUser {
        NewUser { name: name.parse().unwrap(), email: "john@example.com".parse().unwrap() }
    }

    fn file_url(folder: &tempfile::TempDir) -> DatabaseUrl {
        format!("sqlite://{}/new/users.db", folder.path().display()).parse().unwrap()
    }

    async fn open(url: &DatabaseUrl) -> (SqliteStore, Told) {
        let told = Told::default();
        (SqliteStore::open(url, told.listener()).await.unwrap(), told)
    }

    async fn in_memory() -> (SqliteStore, Told) {
        open(&"sqlite::memory:".parse().unwrap()).await
    }

    #[tokio::test]
    async fn a_user_is_created_read_changed_and_deleted() {
        let (store, told) = in_memory().await;

        let john = store.create(new_user("John")).await.unwrap();
        let only_name = UserChange { name: Some("Jane".parse().unwrap()), email: None };
        let jane = store.update(john.id, only_name).await.unwrap().unwrap();

        assert_eq!((jane.id, jane.name.as_str(), &jane.email), (john.id, "Jane", &john.email));
        let only_email = UserChange { name: None, email: Some("jane@example.org".parse().unwrap()) };
        let jane = store.update(john.id, only_email).await.unwrap().unwrap();
        assert_eq!((jane.name.as_str(), jane.email.as_str()), ("Jane", "jane@example.org"));
        assert_eq!(store.user(john.id).await.unwrap(), Some(Arc::new(jane)));
        assert!(store.delete(john.id).await.unwrap());
        assert_eq!(store.user(john.id).await.unwrap(), None);
        assert!(!store.delete(john.id).await.unwrap(), "a second time there is nothing to delete");
        let counts: Vec<_> = told.all().iter().map(|c| (c.created, c.deleted, c.users)).collect();
        assert_eq!(counts, [(0, 0, 0), (1, 0, 1), (0, 0, 1), (0, 0, 1), (0, 1, 0), (0, 0, 0)]);
    }

    #[tokio::test]
    async fn ids_grow_and_are_not_reused() {
        let (store, _) = in_memory().await;
        let first = store.create(new_user("first")).await.unwrap().id;
        store.delete(first).await.unwrap();

        let second = store.create(new_user("second")).await.unwrap().id;

        assert!(second > first, "{second} after {first}");
    }

    #[tokio::test]
    async fn pages_are_ordered_and_start_after_the_id_given() {
        let (store, _) = in_memory().await;
        for name in ["a", "b", "c", "d"] {
            store.create(new_user(name)).await.unwrap();
        }

        let names = |page: Vec<User>| page.iter().map(|user| user.name.as_str().to_owned()).collect::<Vec<_>>();

        assert_eq!(names(store.page(0, 2).await.unwrap()), ["a", "b"]);
        assert_eq!(names(store.page(2, 2).await.unwrap()), ["c", "d"]);
        assert_eq!(names(store.page(4, 2).await.unwrap()), [""; 0]);
    }

    #[tokio::test]
    async fn users_survive_closing_and_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&file_url(&folder)).await;
        let john = store.create(new_user("John")).await.unwrap();
        store.close().await;

        let (store, told) = open(&file_url(&folder)).await;

        assert_eq!(store.user(john.id).await.unwrap(), Some(Arc::new(john)));
        assert_eq!(told.all(), [Committed { created: 0, deleted: 0, users: 1 }], "the count is known from the start");
    }

    #[tokio::test]
    async fn durability_is_switched_on() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&file_url(&folder)).await;

        let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.readers).await.unwrap();
        let mut writer = connect_options(&file_url(&folder)).unwrap().connect().await.unwrap();
        let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut writer).await.unwrap();
        let busy: i64 = sqlx::query_scalar("PRAGMA busy_timeout").fetch_one(&mut writer).await.unwrap();

        assert_eq!((journal.as_str(), synchronous, busy), ("wal", 2, 5000), "2 is FULL");
    }

    #[tokio::test]
    async fn writes_that_wait_together_are_committed_together() {
        let (store, told) = in_memory().await;

        let writes = (0..100).map(|n| store.create(new_user(&n.to_string())));
        let created = futures_util::future::try_join_all(writes).await.unwrap();

        let commits = told.all().len() - 1;
        assert!(commits < 100, "{commits} commits for 100 writes");
        assert_eq!(told.all().iter().map(|c| c.created).sum::<u64>(), 100);
        let ids: std::collections::BTreeSet<_> = created.iter().map(|user| user.id).collect();
        assert_eq!(ids.len(), 100, "each got its own id");
    }

    #[tokio::test]
    async fn a_write_that_nobody_waits_for_any_more_is_not_made() {
        let (store, told) = in_memory().await;
        let abandoned = store.create(new_user("abandoned"));
        // One poll queues the write; the drop abandons it before the writer, on this same thread, could take it.
        assert!(futures_util::FutureExt::now_or_never(abandoned).is_none());

        let kept = store.create(new_user("kept")).await.unwrap();

        assert_eq!(store.page(0, 10).await.unwrap(), [kept]);
        assert_eq!(told.all().last().unwrap().users, 1);
    }

    #[tokio::test]
    async fn closing_makes_the_writes_that_wait_and_refuses_later_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&file_url(&folder)).await;

        let (written, ()) = tokio::join!(store.create(new_user("last")), store.close());

        assert!(written.is_ok(), "{written:?}");
        assert!(matches!(store.create(new_user("late")).await, Err(StoreError::Unavailable(_))));
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    }

    #[tokio::test]
    async fn a_store_that_no_longer_takes_writes_does_not_answer_its_ping() {
        let (store, _) = in_memory().await;
        assert!(store.ping().await.is_ok());
        let (reply, closed) = oneshot::channel();
        store.writer.send(Command::Close(reply)).await.unwrap();
        closed.await.unwrap();

        assert!(store.page(0, 1).await.is_ok(), "it still reads");
        assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    }

    #[tokio::test]
    async fn users_written_by_another_program_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let (_store, told) = open(&file_url(&folder)).await;
        let (other, _) = open(&file_url(&folder)).await;

        other.create(new_user("other")).await.unwrap();

        tokio::time::timeout(Duration::from_mins(1), async {
            while told.all().last().unwrap().users != 1 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("the count follows");
        assert_eq!(told.all().iter().map(|c| c.created).sum::<u64>(), 0, "not created by this process");
    }

    // ---- Users kept in memory ----

    fn renamed(name: &str) -> UserChange {
        UserChange { name: Some(name.parse().unwrap()), email: None }
    }

    #[tokio::test]
    async fn a_user_that_was_read_is_read_no_more() {
        let (store, _) = in_memory().await;
        let john = store.create(new_user("John")).await.unwrap();
        let first = store.user(john.id).await.unwrap().unwrap();

        let second = store.user(john.id).await.unwrap().unwrap();

        assert!(Arc::ptr_eq(&first, &second));
    }

    #[tokio::test]
    async fn a_user_that_was_read_shows_every_change_at_once() {
        let (store, _) = in_memory().await;
        let john = store.create(new_user("John")).await.unwrap();

        for number in 0..100 {
            let name = format!("John {number}");
            store.user(john.id).await.unwrap();
            store.update(john.id, renamed(&name)).await.unwrap();
            assert_eq!(store.user(john.id).await.unwrap().unwrap().name.as_str(), name);
        }
        store.delete(john.id).await.unwrap();

        assert_eq!(store.user(john.id).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_user_that_changes_while_it_is_read_is_not_kept_as_it_was() {
        let (store, _) = in_memory().await;
        let john = store.create(new_user("John")).await.unwrap();
        // A reader that has its place, and then its row, and then is slow.
        let place = store.recent.get(john.id).unwrap_err().unwrap();
        let as_it_was = Arc::new(store.lookups.user(john.id).await.unwrap().unwrap());

        store.update(john.id, renamed("Jane")).await.unwrap();
        let refused = place.insert(as_it_was);

        assert!(refused.is_err());
        assert_eq!(store.user(john.id).await.unwrap().unwrap().name.as_str(), "Jane");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn no_reader_sees_a_change_undone() {
        async fn read(store: &SqliteStore, id: UserId) -> u32 {
            store.user(id).await.unwrap().unwrap().name.as_str().parse().unwrap()
        }
        // A file, where readers have snapshots of their own.
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&file_url(&folder)).await;
        let id = store.create(new_user("0")).await.unwrap().id;
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move {
                    let mut last = 0;
                    while last < 300 {
                        let now = read(&store, id).await;
                        assert!(now >= last, "{now} after {last}");
                        last = now;
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();

        for number in 1..=300 {
            store.update(id, renamed(&number.to_string())).await.unwrap();
            assert_eq!(read(&store, id).await, number, "who is answered sees what was written");
        }

        for reader in readers {
            tokio::time::timeout(Duration::from_mins(1), reader).await.expect("the last change shows").unwrap();
        }
    }

    #[tokio::test]
    async fn a_change_by_another_program_shows() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&file_url(&folder)).await;
        let (other, _) = open(&file_url(&folder)).await;
        let (kept, gone) =
            (store.create(new_user("John")).await.unwrap().id, store.create(new_user("x")).await.unwrap().id);
        for id in [kept, gone] {
            assert!(store.user(id).await.unwrap().is_some());
        }

        other.update(kept, renamed("Jane")).await.unwrap();
        other.delete(gone).await.unwrap();

        let patience = Instant::now() + Duration::from_mins(1);
        while store.user(kept).await.unwrap().unwrap().name.as_str() != "Jane"
            || store.user(gone).await.unwrap().is_some()
        {
            assert!(Instant::now() < patience, "it never shows");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_change_by_another_program_shows_while_this_one_writes_without_a_pause() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&file_url(&folder)).await;
        let (other, _) = open(&file_url(&folder)).await;
        let john = store.create(new_user("John")).await.unwrap().id;
        store.user(john).await.unwrap();
        other.update(john, renamed("Jane")).await.unwrap();

        let shown = async {
            while store.user(john).await.unwrap().unwrap().name.as_str() != "Jane" {
                tokio::task::yield_now().await;
            }
        };
        // More than one group: whatever the writer takes, another group waits when it is free again.
        let writing = futures_util::stream::repeat(())
            .map(|()| store.create(new_user("x")))
            .buffer_unordered(2 * GROUP)
            .try_for_each(|_| std::future::ready(Ok(())));

        tokio::select! {
            stopped = writing => panic!("{stopped:?}"),
            shown = tokio::time::timeout(Duration::from_mins(1), shown) => shown.expect("it shows"),
        }
    }

    #[tokio::test]
    async fn a_closed_store_answers_nothing_from_memory() {
        let (store, _) = in_memory().await;
        let john = store.create(new_user("John")).await.unwrap();
        store.user(john.id).await.unwrap();

        store.close().await;

        assert!(matches!(store.user(john.id).await, Err(StoreError::Unavailable(_))));
    }

    #[tokio::test]
    async fn a_change_that_fails_does_not_fail_those_that_wait_with_it() {
        let (store, told) = in_memory().await;
        let john = store.create(new_user("John")).await.unwrap();
        // The id space is used up: no user can be created any more.
        let last = "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'users'";
        sqlx::query(last).execute(&store.readers).await.unwrap();
        let rename = UserChange { name: Some("Jane".parse().unwrap()), email: None };

        let (before, created, after) = tokio::join!(
            store.update(john.id, rename.clone()),
            store.create(new_user("one too many")),
            store.delete(john.id)
        );

        assert_eq!(before.unwrap().unwrap().name.as_str(), "Jane");
        assert!(matches!(created, Err(StoreError::Failed(_))), "{created:?}");
        assert!(after.unwrap());
        assert_eq!(
            told.all().iter().map(|c| (c.created, c.deleted)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)),
            (1, 1)
        );
    }

    #[tokio::test]
    async fn two_processes_may_meet_at_a_fresh_file() {
        for _ in 0..30 {
            let folder = tempfile::tempdir().unwrap();
            let (one, two) = (file_url(&folder), file_url(&folder));

            let (one, two) = tokio::join!(
                tokio::spawn(async move { SqliteStore::open(&one, Arc::new(|_| ())).await.map(drop) }),
                tokio::spawn(async move { SqliteStore::open(&two, Arc::new(|_| ())).await.map(drop) })
            );

            one.unwrap().unwrap();
            two.unwrap().unwrap();
        }
    }

    #[tokio::test]
    async fn writes_beyond_the_queue_are_turned_away_at_once() {
        let (store, _) = in_memory().await;
        let user = new_user("John");

        // Each is polled once, before the writer, on this same thread, can take any.
        let outcomes: Vec<_> =
            (0..QUEUE + 3).map(|_| futures_util::FutureExt::now_or_never(store.create(user.clone()))).collect();

        let turned_away =
            outcomes.iter().filter(|outcome| matches!(outcome, Some(Err(StoreError::Overloaded)))).count();
        assert_eq!(turned_away, 3);
        // Those that were polled are abandoned now; once the writer has passed them over, there is room again.
        let patience = Instant::now() + Duration::from_mins(1);
        while matches!(store.create(user.clone()).await, Err(StoreError::Overloaded)) {
            assert!(Instant::now() < patience, "there is never room again");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_locked_database_fails_the_write_and_keeps_the_store_usable() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&file_url(&folder)).await;
        let mut other = connect_options(&file_url(&folder)).unwrap().connect().await.unwrap();
        let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();

        let refused = store.create(new_user("refused")).await;
        lock.rollback().await.unwrap();
        let accepted = store.create(new_user("accepted")).await.unwrap();

        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert_eq!(store.page(0, 10).await.unwrap(), [accepted]);
    }

    // ---- Imports ----

    fn batch(names: &[&str], progress: Option<(&str, u64, u64)>) -> ImportBatch {
        let users = names.iter().map(|name| new_user(name)).collect();
        let progress = progress.map(|(key, before, after)| ImportProgress { key: key.to_owned(), before, after });
        ImportBatch { users, progress }
    }

    async fn names(store: &SqliteStore) -> Vec<String> {
        let users = store.page(0, 1000).await.unwrap();
        users.iter().map(|user| user.name.as_str().to_owned()).collect()
    }

    #[tokio::test]
    async fn a_batch_makes_its_users_in_their_order_and_moves_the_import_on() {
        let (store, told) = in_memory().await;
        assert_eq!(store.import_progress("k").await.unwrap(), 0);

        let first = store.import(batch(&["b", "a"], Some(("k", 0, 3)))).await;
        let second = store.import(batch(&["c"], Some(("k", 3, 4)))).await;

        assert!(first.unwrap() && second.unwrap());
        assert_eq!(names(&store).await, ["b", "a", "c"]);
        assert_eq!(store.import_progress("k").await.unwrap(), 4);
        let counts: Vec<_> = told.all().iter().map(|c| (c.created, c.deleted, c.users)).collect();
        assert_eq!(counts, [(0, 0, 0), (2, 0, 2), (1, 0, 3)], "the owner is told of each commit");
    }

    #[tokio::test]
    async fn a_batch_of_ten_thousand_users_keeps_their_order() {
        let (store, _) = in_memory().await;
        // As texts, they would be ordered differently.
        let users: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();

        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        assert!(store.import(batch(&users, None)).await.unwrap());

        for after in (0..10_000).step_by(1000) {
            let page = store.page(after, 1000).await.unwrap();
            let expected = (after..after + 1000).map(|number| (number + 1, number.to_string()));
            assert!(page.iter().map(|user| (user.id.get(), user.name.as_str().to_owned())).eq(expected), "{after}");
        }
    }

    #[tokio::test]
    async fn imported_names_are_kept_letter_by_letter() {
        let (store, _) = in_memory().await;
        let kept =
            ["007", "1e5", "true", "null", r#""John""#, r"C:\new", "[0]", "{}", "O'Brien", "李小龍", "👩‍👩‍👧‍👦", "\u{feff}"];

        assert!(store.import(batch(&kept, None)).await.unwrap());

        assert_eq!(names(&store).await, kept);
    }

    #[tokio::test]
    async fn a_batch_that_begins_elsewhere_than_its_import_is_changes_nothing() {
        let (store, told) = in_memory().await;
        store.import(batch(&["first"], Some(("k", 0, 5)))).await.unwrap();
        let commits = told.all().len();

        for (before, after, reason) in
            [(0, 5, "the same batch once more"), (3, 8, "one that overlaps"), (6, 9, "one that leaves a row out")]
        {
            let made = store.import(batch(&["again"], Some(("k", before, after)))).await;
            assert!(!made.unwrap(), "{reason}");
        }

        assert_eq!(names(&store).await, ["first"]);
        assert_eq!(store.import_progress("k").await.unwrap(), 5);
        assert_eq!(told.all().len(), commits, "there was no commit to tell of");
        assert!(store.import(batch(&["second"], Some(("k", 5, 6)))).await.unwrap(), "it can go on from where it is");
    }

    #[tokio::test]
    async fn a_first_batch_that_begins_behind_the_first_row_leaves_no_trace() {
        let (store, _) = in_memory().await;

        assert!(!store.import(batch(&["late"], Some(("k", 5, 6)))).await.unwrap());

        assert_eq!(names(&store).await, [""; 0]);
        let keys: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM imports").fetch_one(&store.readers).await.unwrap();
        assert_eq!(keys, 0);
    }

    #[tokio::test]
    async fn each_key_is_an_import_of_its_own() {
        let (store, _) = in_memory().await;

        let keys = [("k", 1), ("K", 2), ("k ", 3), ("", 4)];
        for (key, rows) in keys {
            assert!(store.import(batch(&[&rows.to_string()], Some((key, 0, rows)))).await.unwrap(), "{key:?}");
        }

        assert_eq!(names(&store).await, ["1", "2", "3", "4"]);
        for (key, rows) in keys {
            assert_eq!(store.import_progress(key).await.unwrap(), rows, "{key:?}");
        }
        assert_eq!(store.import_progress("another").await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_batch_without_progress_is_made_each_time() {
        let (store, _) = in_memory().await;

        for _ in 0..2 {
            assert!(store.import(batch(&["John"], None)).await.unwrap());
        }

        assert_eq!(names(&store).await, ["John", "John"]);
    }

    #[tokio::test]
    async fn a_batch_without_users_moves_its_import_on() {
        let (store, _) = in_memory().await;

        assert!(store.import(batch(&[], Some(("k", 0, 7)))).await.unwrap());

        assert_eq!((names(&store).await.len(), store.import_progress("k").await.unwrap()), (0, 7));
    }

    #[tokio::test]
    async fn a_batch_that_fails_leaves_neither_users_nor_progress() {
        let (store, told) = in_memory().await;
        store.import(batch(&["first"], Some(("k", 0, 1)))).await.unwrap();
        // Two ids are left: the third user of a batch cannot be made.
        let last = "UPDATE sqlite_sequence SET seq = 9223372036854775805 WHERE name = 'users'";
        sqlx::query(last).execute(&store.readers).await.unwrap();

        let failed = store.import(batch(&["a", "b", "c"], Some(("k", 1, 4)))).await;

        assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
        assert_eq!(names(&store).await, ["first"]);
        assert_eq!(store.import_progress("k").await.unwrap(), 1);
        assert_eq!(told.all().last().unwrap().users, 1);
        assert!(store.import(batch(&["a", "b"], Some(("k", 1, 3)))).await.unwrap(), "the store goes on");
        assert_eq!(names(&store).await, ["first", "a", "b"]);
    }

    #[tokio::test]
    async fn a_locked_database_fails_the_batch_and_keeps_the_store_usable() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&file_url(&folder)).await;
        let mut other = connect_options(&file_url(&folder)).unwrap().connect().await.unwrap();
        let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();

        let refused = store.import(batch(&["John"], Some(("k", 0, 1)))).await;
        lock.rollback().await.unwrap();
        let made = store.import(batch(&["John"], Some(("k", 0, 1)))).await;

        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        assert!(made.unwrap());
        assert_eq!(names(&store).await, ["John"]);
    }

    #[tokio::test]
    async fn progress_survives_closing_and_opening_again() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&file_url(&folder)).await;
        store.import(batch(&["John"], Some(("k", 0, 2)))).await.unwrap();
        store.close().await;

        let (store, told) = open(&file_url(&folder)).await;

        assert_eq!(store.import_progress("k").await.unwrap(), 2);
        assert_eq!(told.all(), [Committed { created: 0, deleted: 0, users: 1 }]);
    }

    #[tokio::test]
    async fn of_two_stores_that_import_the_same_rows_at_once_one_does() {
        for _ in 0..10 {
            let folder = tempfile::tempdir().unwrap();
            let (one, _) = open(&file_url(&folder)).await;
            let (two, _) = open(&file_url(&folder)).await;

            let rows = || batch(&["a", "b"], Some(("k", 0, 2)));
            let (by_one, by_two) = tokio::join!(one.import(rows()), two.import(rows()));

            assert!(by_one.unwrap() != by_two.unwrap());
            assert_eq!(names(&one).await, ["a", "b"]);
        }
    }

    #[tokio::test]
    async fn writes_and_batches_that_wait_together_are_all_made() {
        let (store, told) = in_memory().await;

        let (before, imported, after) = tokio::join!(
            store.create(new_user("before")),
            store.import(batch(&["a", "b"], Some(("k", 0, 2)))),
            store.create(new_user("after"))
        );

        assert!(before.is_ok() && imported.unwrap() && after.is_ok());
        assert_eq!(told.all().iter().map(|c| c.created).sum::<u64>(), 4);
        assert_eq!(told.all().last().unwrap().users, 4);
    }

    #[tokio::test]
    async fn a_batch_that_nobody_waits_for_any_more_is_not_made() {
        let (store, _) = in_memory().await;
        let abandoned = store.import(batch(&["abandoned"], Some(("k", 0, 1))));
        // One poll queues the batch; the drop abandons it before the writer, on this same thread, could take it.
        assert!(futures_util::FutureExt::now_or_never(abandoned).is_none());

        let kept = store.import(batch(&["kept"], Some(("k", 0, 1)))).await;

        assert!(kept.unwrap());
        assert_eq!(names(&store).await, ["kept"]);
    }

    #[tokio::test]
    async fn closing_makes_the_batch_that_waits_and_refuses_later_ones() {
        let folder = tempfile::tempdir().unwrap();
        let (store, _) = open(&file_url(&folder)).await;

        // Both wait before the writer, on this same thread, can take either.
        let (reply, closed) = oneshot::channel();
        let last = store.import(batch(&["last"], Some(("k", 0, 1))));
        let (made, sent) = tokio::join!(last, store.writer.send(Command::Close(reply)));

        assert!(made.unwrap() && sent.is_ok());
        closed.await.unwrap();
        assert!(matches!(store.import(batch(&["late"], None)).await, Err(StoreError::Unavailable(_))));
        let (store, _) = open(&file_url(&folder)).await;
        assert_eq!((names(&store).await.len(), store.import_progress("k").await.unwrap()), (1, 1));
    }

    #[tokio::test]
    async fn files_that_are_no_usable_database_are_refused_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let url = |name: &str| format!("sqlite://{}", at(name).display()).parse::<DatabaseUrl>().unwrap();
        std::fs::write(at("text.db"), "this is no database, whatever its name says. ".repeat(100)).unwrap();
        std::fs::create_dir(at("folder.db")).unwrap();
        std::fs::write(at("file"), "").unwrap();
        let (store, _) = open(&url("newer.db")).await;
        store.close().await;
        let mut newer = connect_options(&url("newer.db")).unwrap().connect().await.unwrap();
        sqlx::query("INSERT INTO _sqlx_migrations VALUES (9999, 'from the future', '', true, x'00', 0)")
            .execute(&mut newer)
            .await
            .unwrap();

        let refused = async |name| SqliteStore::open(&url(name), Arc::new(|_| ())).await.expect_err(name);

        assert!(matches!(refused("text.db").await, OpenError::Corrupt { .. }));
        assert!(matches!(refused("folder.db").await, OpenError::Unreadable { .. }));
        assert!(matches!(refused("file/users.db").await, OpenError::Folder { .. }));
        assert!(matches!(refused("newer.db").await, OpenError::Schema { .. }));
        assert!(refused("text.db").await.to_string().contains("text.db"), "the text names the file");
    }
}
