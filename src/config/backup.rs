//! Settings of `backup`.

use std::path::PathBuf;

use super::{ConfigError, database_url, missing, refused};
use crate::cli::BackupArgs;
use crate::store::DatabaseUrl;

/// Settings of `backup`.
#[derive(Debug)]
pub struct BackupConfig {
    /// The database that is copied; not one in memory.
    pub database_url: DatabaseUrl,
    /// Where the copy goes.
    pub file: PathBuf,
}

impl TryFrom<BackupArgs> for BackupConfig {
    type Error = ConfigError;

    fn try_from(args: BackupArgs) -> Result<Self, ConfigError> {
        let BackupArgs { file, database_url: url, database_url_file } = args;
        let database_url = database_url(url.as_deref(), database_url_file.as_deref())?;
        if database_url.is_in_memory() {
            let reason =
                "users in memory are gone with their process and cannot be backed up; name the file of a database";
            return Err(missing("--database-url (DATABASE_URL)", reason));
        }
        if file.is_empty() || file == "-" {
            return Err(refused("FILE", &file, "expected the file to write"));
        }
        Ok(Self { database_url, file: file.into() })
    }
}
