//! SQLite's errors in the store's words.

use std::sync::Arc;

use sqlx::migrate::MigrateError;

use crate::store::{DatabaseUrl, OpenError, StoreError};

#[derive(Debug, thiserror::Error)]
#[error("the store is closed")]
struct Closed;

/// SQLite's primary result code (<https://sqlite.org/rescode.html>) behind an error, if it came from SQLite.
fn result_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?.parse::<i32>().ok()?;
    Some(code & 0xff)
}

const SQLITE_BUSY: i32 = 5;
const SQLITE_LOCKED: i32 = 6;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_NOTADB: i32 = 26;

pub(super) fn explain_open(url: &DatabaseUrl, error: sqlx::Error) -> OpenError {
    let database = url.clone();
    let code = result_code(&error);
    let source = Arc::new(error);
    match code {
        Some(SQLITE_CORRUPT | SQLITE_NOTADB) => OpenError::Corrupt { database, source },
        Some(SQLITE_BUSY | SQLITE_LOCKED) => OpenError::Locked { database, source },
        _ => OpenError::Unreadable { database, source },
    }
}

pub(super) fn unreadable(url: &DatabaseUrl, cause: impl std::error::Error + Send + Sync + 'static) -> OpenError {
    OpenError::Unreadable { database: url.clone(), source: Arc::new(cause) }
}

pub(super) fn explain_migration(url: &DatabaseUrl, error: MigrateError) -> OpenError {
    match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => explain_open(url, error),
        other => OpenError::Schema { database: url.clone(), source: Arc::new(other) },
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    matches!(result_code(error), Some(SQLITE_BUSY | SQLITE_LOCKED))
}

pub(super) fn explain(error: sqlx::Error) -> StoreError {
    use sqlx::Error::{PoolClosed, PoolTimedOut, WorkerCrashed};
    let passing = matches!(error, PoolClosed | PoolTimedOut | WorkerCrashed) || is_busy(&error);
    if passing { StoreError::Unavailable(Arc::new(error)) } else { StoreError::Failed(Arc::new(error)) }
}

pub(super) fn closed() -> StoreError {
    StoreError::Unavailable(Arc::new(Closed))
}
