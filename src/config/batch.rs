//! Settings of the batch work: `job` and `import`.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use super::push::{GATEWAY_URL, SPOOL_DIR, fail_on_push_error, push_deadline, report, target};
use super::{ConfigError, FlushConfig, ReportConfig, database_url, duration, missing, number, path, refused, switch};
use crate::cli::{ImportArgs, JobArgs};
use crate::metrics::names;
use crate::store::DatabaseUrl;

/// Longest key of an import, in bytes.
const IMPORT_KEY_MAX: usize = 200;

const JOB_NAME: &str = "--name (JOB_NAME)";

/// Settings of `job`.
#[derive(Debug)]
pub enum JobCall {
    /// Run a command.
    Run(JobConfig),
    /// Deliver what waits.
    Flush(FlushConfig),
}

/// Settings of a job that runs a command.
#[derive(Debug)]
pub struct JobConfig {
    /// What to run.
    pub command: JobCommand,
    /// Where it writes metrics of its own.
    pub metrics_file: Option<PathBuf>,
    /// What is pushed about it.
    pub report: ReportConfig,
    /// Whether a lost push makes a job fail that went well.
    pub fail_on_push_error: bool,
}

/// A command.
#[derive(Debug, Clone)]
pub struct JobCommand {
    /// A path, or a name to look up.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// After this it gets SIGTERM.
    pub timeout: Option<Duration>,
    /// What it and what it started are given to end, once told to, before SIGKILL.
    pub kill_after: Duration,
}

/// Settings of `import`.
#[derive(Debug)]
pub struct ImportConfig {
    /// What to read.
    pub source: ImportSource,
    /// Its form; `None`: find out.
    pub format: Option<ImportFormat>,
    /// Under which key the progress is kept; `None`: the content's digest.
    pub key: Option<String>,
    /// Where rejected rows go; `None`: stderr.
    pub rejects: Option<PathBuf>,
    /// How many rows may be rejected.
    pub max_errors: u64,
    /// Where the users are.
    pub database_url: DatabaseUrl,
    /// What is pushed about it.
    pub report: ReportConfig,
    /// Whether a lost push makes an import fail that went well.
    pub fail_on_push_error: bool,
}

/// What an import reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportSource {
    /// Standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// The form of what an import reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImportFormat {
    /// Comma-separated values (RFC 4180) with a header.
    Csv,
    /// A JSON object a line.
    JsonLines,
}

impl TryFrom<JobArgs> for JobCall {
    type Error = ConfigError;

    fn try_from(args: JobArgs) -> Result<Self, ConfigError> {
        if switch("--flush (JOB_FLUSH)", &args.flush)? {
            return flush(&args).map(Self::Flush);
        }
        let name = args.name.as_deref().ok_or_else(|| missing(JOB_NAME, "expected the job's name, such as backup"))?;
        let mut words = args.command.into_iter();
        let program = words.next().filter(|program| !program.is_empty());
        let program = program.ok_or_else(|| missing("COMMAND", "expected the command to run, after --"))?;
        let day = Duration::from_hours(24);
        let kill_after = duration("--kill-after (JOB_KILL_AFTER)", &args.kill_after, Duration::ZERO..=day)?;
        let after = args.timeout.as_deref();
        let after = after.map(|after| duration("--timeout (JOB_TIMEOUT)", after, Duration::from_millis(1)..=30 * day));
        Ok(Self::Run(JobConfig {
            command: JobCommand { program, arguments: words.collect(), timeout: after.transpose()?, kill_after },
            metrics_file: metrics_file(args.metrics_file.as_deref())?,
            report: report(JOB_NAME, name, &args.delivery, &[names::MODE])?,
            fail_on_push_error: fail_on_push_error(&args.delivery)?,
        }))
    }
}

impl TryFrom<ImportArgs> for ImportConfig {
    type Error = ConfigError;

    fn try_from(args: ImportArgs) -> Result<Self, ConfigError> {
        Ok(Self {
            source: match args.file {
                file if file.is_empty() => return Err(refused("FILE", "", "expected a file, or - for stdin")),
                file if file == "-" => ImportSource::Stdin,
                file => ImportSource::File(file.into()),
            },
            format: match args.format.trim() {
                "auto" => None,
                "csv" => Some(ImportFormat::Csv),
                "jsonl" => Some(ImportFormat::JsonLines),
                _ => return Err(refused("--format (IMPORT_FORMAT)", &args.format, "expected auto, csv or jsonl")),
            },
            key: args.key.as_deref().map(import_key).transpose()?,
            rejects: path("--rejects (IMPORT_REJECTS)", args.rejects.as_deref())?,
            max_errors: number("--max-errors (IMPORT_MAX_ERRORS)", &args.max_errors, 0..=u64::MAX)?,
            database_url: lasting(database_url(args.database_url.as_deref(), args.database_url_file.as_deref())?)?,
            report: report("--push-job (PUSH_JOB)", &args.push_job, &args.delivery, &[names::MODE, names::RESULT])?,
            fail_on_push_error: fail_on_push_error(&args.delivery)?,
        })
    }
}

fn import_key(key: &str) -> Result<String, ConfigError> {
    match key.trim() {
        trimmed if trimmed.is_empty() || trimmed.len() > IMPORT_KEY_MAX => {
            let expected = format!("expected a text of 1 to {IMPORT_KEY_MAX} bytes that is not blank");
            Err(refused("--key (IMPORT_KEY)", key, expected))
        }
        trimmed => Ok(trimmed.to_owned()),
    }
}

/// A database that outlives the import.
fn lasting(url: DatabaseUrl) -> Result<DatabaseUrl, ConfigError> {
    if url.is_in_memory() {
        let reason = "a database in memory is gone with the import; expected one in a file";
        return Err(refused("--database-url (DATABASE_URL)", url.to_string(), reason));
    }
    Ok(url)
}

/// The path as the command finds it, too, whichever folder it goes to. Where ours is gone, there is no such path, and the
/// command runs all the same.
fn metrics_file(file: Option<&OsStr>) -> Result<Option<PathBuf>, ConfigError> {
    let file = path("--metrics-file (JOB_METRICS_FILE)", file)?;
    Ok(file.map(|file| std::path::absolute(&file).unwrap_or(file)))
}

fn flush(args: &JobArgs) -> Result<FlushConfig, ConfigError> {
    if !args.command.is_empty() {
        return Err(missing("--flush (JOB_FLUSH)", "it runs no command; leave out one or the other"));
    }
    let delivery = &args.delivery;
    let target = target(&delivery.gateway)?
        .ok_or_else(|| missing(GATEWAY_URL, "--flush needs the gateway's URL, such as http://127.0.0.1:9091"))?;
    let spool_folder = path(SPOOL_DIR, delivery.spool_dir.as_deref())?
        .ok_or_else(|| missing(SPOOL_DIR, "--flush needs the folder where pushes wait"))?;
    Ok(FlushConfig { target, spool_folder, deadline: push_deadline(delivery)?, seed: rand::random() })
}
