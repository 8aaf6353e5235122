//! `import`: users from CSV or JSON lines into the store, as a monitored batch job.
//!
//! A thread reads and checks rows; each chunk becomes one transaction that also notes how many rows of the source are
//! done, under the import's key. So a run that was cut off, at any point, is taken up by the next one with the same key:
//! no row is lost and none comes twice. What is pushed about it goes through [`job::report`](crate::job::report), as for
//! any other job.

mod chunks;
mod csv;
mod head;
mod json;
mod key;
mod lines;
mod row;
mod source;

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use nix::sys::resource::UsageWho;
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::causes;
use crate::config::ImportConfig;
use crate::job::OWN_FAILURE;
use crate::job::command::usage;
use crate::job::report::{Reporter, Told};
use crate::metrics::{BatchEnd, BatchRun, import_rows};
use crate::signals::Stop;
use crate::store::{ImportBatch, ImportProgress, OpenError, StoreError, UserStore};
use crate::words::{print, say, say_all};
use chunks::{Chunk, Rejected};
use source::{Source, SourceError};

/// Chunks that wait for the store while the next is read.
const CHUNKS_AHEAD: usize = 2;

/// How long the progress bar may take to go.
const CLEAR_TIMEOUT: Duration = Duration::from_secs(1);

const FAILED: u8 = 1;

/// Why an import failed. What was committed until then stays.
#[derive(Debug, thiserror::Error)]
enum ImportError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("the users cannot be stored")]
    Store(#[from] StoreError),
    #[error("the rejects file {} cannot be written", path.display())]
    Rejects { path: PathBuf, source: io::Error },
    #[error("the rejects file {} is what is imported", .0.display())]
    RejectsIntoSource(PathBuf),
    #[error("a thread of the import ended early")]
    Thread(#[source] io::Error),
    #[error(
        "an earlier version has imported rows of {0}, and took several of its lines for one row; mend these lines and \
         import what is missing as a file of its own, or give a --key to import all again"
    )]
    CountedOtherwise(String),
    #[error("another process is importing under the key {0:?}")]
    Overtaken(String),
    #[error("no row of {name} is imported: all of its rows were rejected")]
    AllRejected { name: String },
    #[error("told to end")]
    Interrupted,
}

/// What became of the rows.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    imported: u64,
    rejected: u64,
    skipped: u64,
}

/// Imports, and gives the exit code: 0 when the source was read to its end with no more rejections than allowed and not
/// every row among them, 128+n when signal n ended it, 125 when it went well but a push got lost and that is to count,
/// else 1.
pub async fn run(config: ImportConfig, stop: Stop, clock: fn() -> SystemTime) -> u8 {
    let ImportConfig { report, fail_on_push_error, .. } = &config;
    let fail_on_push_error = *fail_on_push_error;
    let mut reporter = Reporter::new(report.clone(), clock);
    let run = BatchRun { started: clock(), expected_interval: reporter.expected_interval() };
    let began = Instant::now();
    let mut tally = Tally::default();

    let work = async {
        let done = import(&config, &stop, &mut tally).await;
        (done, clock(), Instant::now())
    };
    let (done, ended, ended_at) = reporter.while_running(&run, work).await;

    let duration = ended_at - began;
    let mut exit_code = match &done {
        Ok(()) => 0,
        Err(ImportError::Interrupted) => stop.exit_code().unwrap_or(FAILED),
        Err(error) => {
            say(&causes::chain(error));
            FAILED
        }
    };
    let Tally { imported, rejected, skipped } = tally;
    let [imported_rows, rejected_rows, skipped_rows] = [imported, rejected, skipped].map(HumanCount);
    let outcome = format!("imported {imported_rows} rows, rejected {rejected_rows}, skipped {skipped_rows}");
    let whole = matches!(done, Ok(()) | Err(ImportError::AllRejected { .. }));
    let short = if whole { "" } else { ", and did not get to the end" };
    if let Err(error) = print(&format!("{outcome}{short} ({:.1} s)\n", duration.as_secs_f64())) {
        say(&format!("cannot write to stdout: {error}"));
        exit_code = exit_code.max(FAILED);
    }

    let end = BatchEnd { ended, duration, exit_code, usage: usage(UsageWho::RUSAGE_SELF) };
    let registry = Registry::new();
    let told = import_rows(&registry, [imported, rejected, skipped]).and_then(|()| Told::of_registry(&registry));
    let told = told.unwrap_or_else(|error| Told::unusable(error.to_string()));
    let lost = reporter.end(&run, &end, ended_at, async |_| told, std::future::pending()).await;
    if lost && fail_on_push_error && exit_code == 0 { OWN_FAILURE } else { exit_code }
}

async fn import(config: &ImportConfig, stop: &Stop, tally: &mut Tally) -> Result<(), ImportError> {
    let mut stopped = std::pin::pin!(stop.clone().requested());
    let (mut import, source) = tokio::select! {
        biased;
        () = &mut stopped => return Err(ImportError::Interrupted),
        begun = Import::begin(config) => begun?,
    };
    let mut chunks = read_ahead(source, import.done, config.max_errors);
    let ended = loop {
        let chunk = tokio::select! {
            biased;
            () = &mut stopped => break Err(ImportError::Interrupted),
            chunk = chunks.recv() => chunk,
        };
        let chunk = match chunk {
            None => break Ok(()),
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => break Err(error.into()),
        };
        tally.skipped += chunk.skipped;
        // First the rejections, so that none is lost; then the users, with the progress. Nobody may be reading the
        // rejections; what is being committed is waited for.
        let told = tokio::select! {
            biased;
            told = import.tell_rejected(&chunk.rejected) => told,
            () = &mut stopped => Err(ImportError::Interrupted),
        };
        let taken = match told {
            Ok(()) => import.take(chunk, tally).await,
            Err(error) => Err(error),
        };
        if let Err(error) = taken {
            break Err(error);
        }
    };
    import.finish().await;
    ended?;
    // Progress is noted only from the first user on, so rows that were skipped hold one.
    match *tally {
        Tally { imported: 0, rejected: 1.., skipped: 0 } => Err(ImportError::AllRejected { name: import.name }),
        _ => Ok(()),
    }
}

/// An import under way.
struct Import {
    store: UserStore,
    name: String,
    /// Under which key the progress is kept.
    key: Option<String>,
    /// Rows of the source that are done, those of earlier runs included.
    done: u64,
    /// How many of them the store knows to be done.
    noted: u64,
    rejects: Option<(PathBuf, File)>,
    bar: ProgressBar,
}

impl Import {
    async fn begin(config: &ImportConfig) -> Result<(Self, Source), ImportError> {
        let (from, format) = (config.source.clone(), config.format);
        let opened = tokio::task::spawn_blocking(move || Source::open(&from, format)).await;
        let source = opened.map_err(|error| ImportError::Thread(error.into()))??;
        let rejects = match &config.rejects {
            None => None,
            Some(path) => Some((path.clone(), open_rejects(path, &source)?)),
        };
        let file_key = source.file.as_ref().map(|file| &file.key).filter(|_| config.key.is_none());
        let key = config.key.clone().or_else(|| file_key.map(|file| file.key.clone()));
        let store = UserStore::open(&config.database_url, Arc::new(|_| ())).await?;
        if let Some(earlier) = file_key.and_then(|file| file.earlier.as_deref())
            && store.import_progress(earlier).await? > 0
        {
            return Err(ImportError::CountedOtherwise(source.name));
        }
        let done = match &key {
            Some(key) => store.import_progress(key).await?,
            None => 0,
        };
        let name = source.name.clone();
        if let (1.., Some(key)) = (done, &key) {
            say(&format!("{} rows of {name} are imported already, under the key {key}", HumanCount(done)));
        }
        let bar = bar(source.file.as_ref().map(|file| file.length));
        Ok((Self { store, name, key, done, noted: done, rejects, bar }, source))
    }

    /// Clears the bar and closes the store.
    async fn finish(&self) {
        let bar = self.bar.clone();
        // A terminal that takes nothing would hold the bar for ever.
        let cleared = tokio::task::spawn_blocking(move || bar.finish_and_clear());
        let _ = tokio::time::timeout(CLEAR_TIMEOUT, cleared).await;
        self.store.close().await;
    }

    /// Commits a chunk's users, with the progress. Rejections before the first user are no progress: another run reads
    /// and reports them again, and fails again if there is nothing else.
    async fn take(&mut self, chunk: Chunk, tally: &mut Tally) -> Result<(), ImportError> {
        let (imported, rejected) = (chunk.users.len() as u64, chunk.rejected.len() as u64);
        self.done += chunk.rows;
        if imported > 0 || self.noted > 0 {
            let (before, after) = (self.noted, self.done);
            let progress = self.key.clone().map(|key| ImportProgress { key, before, after });
            if after > before && !self.store.import(ImportBatch { users: chunk.users, progress }).await? {
                return Err(ImportError::Overtaken(self.key.clone().unwrap_or_default()));
            }
            self.noted = after;
        }
        tally.imported += imported;
        tally.rejected += rejected;
        self.bar.set_position(chunk.bytes);
        self.bar.set_message(format!("{} rows", HumanCount(self.done)));
        Ok(())
    }

    /// Writes rejections to their file, or says them on stderr; on a thread that may block, as either may be a pipe.
    async fn tell_rejected(&self, rejected: &[Rejected]) -> Result<(), ImportError> {
        if rejected.is_empty() {
            return Ok(());
        }
        let Some((path, file)) = &self.rejects else {
            let line = |row: &Rejected| format!("{}, line {}: {}", self.name, row.line, row.reason);
            let lines: Vec<_> = rejected.iter().map(line).collect();
            let bar = self.bar.clone();
            let said = tokio::task::spawn_blocking(move || bar.suspend(|| say_all(&lines)));
            return said.await.map_err(|error| ImportError::Thread(error.into()));
        };
        let failed = |source| ImportError::Rejects { path: path.clone(), source };
        let mut lines = Vec::new();
        for row in rejected {
            serde_json::to_writer(&mut lines, row).map_err(|error| failed(error.into()))?;
            lines.push(b'\n');
        }
        let mut file = file.try_clone().map_err(failed)?;
        let written = tokio::task::spawn_blocking(move || {
            file.write_all(&lines)?;
            // A pipe has nothing to flush to.
            file.sync_data().or_else(|error| if error.kind() == ErrorKind::InvalidInput { Ok(()) } else { Err(error) })
        });
        written.await.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)
    }
}

/// Opens the rejects file for appending, unless it is what is being read.
fn open_rejects(path: &Path, source: &Source) -> Result<File, ImportError> {
    let failed = |source| ImportError::Rejects { path: path.to_owned(), source };
    let file = OpenOptions::new().create(true).append(true).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if source.file.as_ref().is_some_and(|read| read.identity == (metadata.dev(), metadata.ino())) {
        return Err(ImportError::RejectsIntoSource(path.to_owned()));
    }
    Ok(file)
}

/// Reads chunks on a thread of their own, where stdin may block without holding anything up.
fn read_ahead(source: Source, skip: u64, max_errors: u64) -> mpsc::Receiver<Result<Chunk, SourceError>> {
    let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
    tokio::task::spawn_blocking(move || {
        let take = |chunk| sender.blocking_send(Ok(chunk)).is_ok();
        if let Err(error) = chunks::read(source, skip, max_errors, take) {
            let _ = sender.blocking_send(Err(error));
        }
    });
    chunks
}

/// A bar over the bytes of a file, or a count where their number is not known; on stderr, where that is a terminal.
fn bar(length: Option<u64>) -> ProgressBar {
    let (bar, template) = match length {
        Some(length) => {
            (ProgressBar::new(length), "{bar:30} {percent:>3} % {msg} ({binary_bytes_per_sec}, {eta} left)")
        }
        None => (ProgressBar::no_length(), "{spinner} {msg} ({elapsed})"),
    };
    let style = ProgressStyle::with_template(template).expect("the template is fixed");
    bar.with_style(style.progress_chars("━╸ "))
}
