//! Opening a database: its file and folder, its schema, and the settings of a connection.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::time::Instant;

use super::errors::{explain_migration, explain_open, unreadable};
use super::files::{Files, Identity};
use super::{count, data_version, execute};
use crate::store::{DatabaseUrl, OpenError, Target};

/// How long a statement waits for another program that holds the database. Below the request time-out's default (10 s),
/// so that a client whose write is the first to wait learns the reason.
pub(super) const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What the write-ahead log may keep of the disk once its content is in the database file: about twice what it takes
/// under ordinary writes (SQLite moves 1,000 pages at a time), so that only what a burst left is given back.
pub(super) const LOG_BYTES: u64 = 8 * 1024 * 1024;

/// Pause before a start tries again to prepare a database that another process holds.
const PREPARE_AGAIN: Duration = Duration::from_millis(20);

/// A database with the current schema.
pub(super) struct Prepared {
    /// The writer's connection.
    pub(super) writer: SqliteConnection,
    /// Its data version.
    pub(super) version: i64,
    /// How many users there are.
    pub(super) users: i64,
    /// Where it is.
    pub(super) files: Files,
}

/// Prepares, and tries again while another process is preparing the same file: some of the locks that this takes do not
/// wait (SQLite's documentation of `SQLITE_BUSY`).
pub(super) async fn prepare_patiently(
    url: &DatabaseUrl,
    options: &SqliteConnectOptions,
) -> Result<Prepared, OpenError> {
    let patience = Instant::now() + BUSY_TIMEOUT;
    loop {
        match prepare(url, options).await {
            Err(OpenError::Locked { .. }) if Instant::now() < patience => tokio::time::sleep(PREPARE_AGAIN).await,
            outcome => return outcome,
        }
    }
}

async fn prepare(url: &DatabaseUrl, options: &SqliteConnectOptions) -> Result<Prepared, OpenError> {
    let explain = |error| explain_open(url, error);
    let path = match &url.0 {
        Target::SqliteFile(path) => Some(path),
        Target::SqliteMemory => None,
    };
    let before = path.and_then(|path| Identity::at(path));
    let mut writer = options.connect().await.map_err(explain)?;
    if is_foreign(&mut writer).await.map_err(explain)? {
        return Err(OpenError::Foreign { database: url.clone() });
    }
    if path.is_some() {
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
    let files = match path {
        Some(path) => Files::opened(path, before).map_err(|lost| unreadable(url, lost))?,
        None => Files::default(),
    };
    Ok(Prepared { writer, version, users, files })
}

/// Whether the database belongs to another program: it has tables, and none of ours. Reads only.
async fn is_foreign(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT COUNT(*) > 0 AND COUNT(*) FILTER (WHERE name = '_sqlx_migrations') = 0 FROM sqlite_schema",
    )
    .fetch_one(connection)
    .await
}

pub(super) fn connect_options(url: &DatabaseUrl) -> Result<SqliteConnectOptions, OpenError> {
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
        .pragma("journal_size_limit", LOG_BYTES.to_string())
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
