//! A copy of a database, made beside whoever reads and writes it.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};

use super::errors::explain_open;
use super::files::with_suffix;
use super::open::BUSY_TIMEOUT;
use crate::store::{DatabaseUrl, OpenError};

/// SQLite's steps between two looks whether the copying shall end; some milliseconds.
const STEPS: i32 = 10_000;

/// Why there is no copy, or no whole one.
pub(in crate::store) enum CopyError {
    /// The database cannot be read.
    Database(OpenError),
    /// It is not a database of ours.
    Foreign,
    /// The copy cannot be written, or has faults.
    Copy(Box<dyn std::error::Error + Send + Sync>),
    /// It was told to end.
    Interrupted,
}

#[derive(Debug, thiserror::Error)]
#[error("the copy has faults: {0}")]
struct Faulty(String);

/// Copies a database into a file that is not there, checks the copy, and gives the number of users in it. Once `stop`
/// resolves, it ends as soon as nothing writes to the copy any more.
pub(in crate::store) async fn copy(
    url: &DatabaseUrl,
    database: &Path,
    copy: &Path,
    stop: impl Future<Output = ()>,
) -> Result<i64, CopyError> {
    let unreadable = |error| CopyError::Database(explain_open(url, error));
    let mut connection = connect(database).await.map_err(unreadable)?;
    if !has_users(&mut connection).await.map_err(unreadable)? {
        return Err(CopyError::Foreign);
    }
    let stopped = Arc::new(AtomicBool::new(false));
    let goes_on = Arc::clone(&stopped);
    let mut handle = connection.lock_handle().await.map_err(unreadable)?;
    handle.set_progress_handler(STEPS, move || !goes_on.load(Ordering::Relaxed));
    drop(handle);

    let copied = {
        let mut copying = pin!(copy_and_check(url, &mut connection, copy));
        tokio::select! {
            copied = &mut copying => copied,
            () = stop => {
                stopped.store(true, Ordering::Relaxed);
                let _ = copying.await;
                Err(CopyError::Interrupted)
            }
        }
    };
    // The copy is what counts.
    let _ = connection.close().await;
    copied
}

async fn connect(database: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let real = database.canonicalize().unwrap_or_else(|_| database.to_owned());
    // Read-only, SQLite leaves a log as it finds it, also that of a service that was killed. Where there is none it makes
    // one all the same, which only a connection that may write removes again.
    let read_only = with_suffix(&real, "-wal").exists();
    let options = SqliteConnectOptions::new().filename(database).read_only(read_only).busy_timeout(BUSY_TIMEOUT);
    options.thread_name(|_| "users-db-copy".to_owned()).disable_statement_logging().connect().await
}

async fn has_users(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let ours = "SELECT COUNT(*) = 2 FROM sqlite_schema WHERE name IN ('_sqlx_migrations', 'user_count')";
    sqlx::query_scalar(ours).fetch_one(connection).await
}

async fn copy_and_check(url: &DatabaseUrl, connection: &mut SqliteConnection, copy: &Path) -> Result<i64, CopyError> {
    // A name need not be text (UTF-8): SQLite takes its bytes as they are.
    let name = copy.as_os_str().as_encoded_bytes();
    // In one read transaction, so that it is the database of one moment, with the ids that were given.
    let copied = sqlx::query("VACUUM INTO CAST(? AS TEXT)").bind(name).execute(&mut *connection).await;
    copied.map_err(|error| match explain_open(url, error) {
        OpenError::Unreadable { source, .. } => CopyError::Copy(Box::new(source)),
        error => CopyError::Database(error),
    })?;
    check(connection, name).await.map_err(CopyError::Copy)
}

/// Reads the copy from end to end.
async fn check(
    connection: &mut SqliteConnection,
    name: &[u8],
) -> Result<i64, Box<dyn std::error::Error + Send + Sync>> {
    sqlx::query("ATTACH CAST(? AS TEXT) AS copy").bind(name).execute(&mut *connection).await?;
    let faults: Vec<String> = sqlx::query_scalar("PRAGMA copy.integrity_check").fetch_all(&mut *connection).await?;
    if faults != ["ok"] {
        return Err(Faulty(faults.join("; ")).into());
    }
    Ok(sqlx::query_scalar("SELECT users FROM copy.user_count").fetch_one(connection).await?)
}
