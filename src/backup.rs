//! `backup`: a whole copy of the users in a new file, beside a running service or without one.

use indicatif::HumanCount;

use crate::causes::one_line;
use crate::config::BackupConfig;
use crate::signals::Stop;
use crate::store::{self, Backup, BackupError};
use crate::words::{print, say};

const FAILED: u8 = 1;

/// Makes a backup, and gives the exit code: 0 when it is on disk, 128+n when signal n ended it.
///
/// # Errors
///
/// When there is no backup; nothing is left of it then.
pub async fn run(config: BackupConfig, stop: Stop) -> Result<u8, BackupError> {
    let BackupConfig { database_url, file } = config;
    match store::back_up(&database_url, &file, stop.clone().requested()).await {
        Ok(Backup { users, bytes }) => {
            let file = one_line(&file.display().to_string());
            let (users, bytes) = (HumanCount(users.unsigned_abs()), HumanCount(bytes));
            match print(&format!("backed up {users} users into {file} ({bytes} bytes)\n")) {
                Ok(()) => Ok(0),
                Err(error) => {
                    say(&format!("cannot write to stdout: {error}; the backup is made"));
                    Ok(FAILED)
                }
            }
        }
        Err(error @ BackupError::Interrupted) => {
            say(&error.to_string());
            Ok(stop.exit_code().unwrap_or(FAILED))
        }
        Err(error) => Err(error),
    }
}
