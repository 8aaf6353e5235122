//! The form of an entry, and how a file is read that may be anything.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use serde::{Deserialize, Serialize};

use super::super::grouping_key::GroupingKey;
use super::super::news::Order;
use super::super::payload::{InvalidPush, Push};
use super::super::text::MetricsText;

/// The form that is written.
const VERSION: u32 = 2;

/// The first form that is read. It has no `sequence`.
const FIRST_VERSION: u32 = 1;

/// The largest entry: several times what the largest metrics file of a job comes to.
const SIZE_MAX: u64 = 32 * 1024 * 1024;

/// A push on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Entry<'a> {
    version: u32,
    gateway: Cow<'a, str>,
    job: Cow<'a, str>,
    labels: BTreeMap<Cow<'a, str>, Cow<'a, str>>,
    /// Seconds since 1970.
    moment: f64,
    /// The place among those of the same moment.
    #[serde(default)]
    sequence: u32,
    moments: Cow<'a, [String]>,
    text: Cow<'a, str>,
}

/// An entry that waits, without what it tells: that is read when it is needed, so that a long outage costs no memory.
#[derive(Debug)]
pub(in super::super) struct Waiting {
    pub(in super::super) path: PathBuf,
    /// The base URL of the gateway that it is for.
    pub(in super::super) gateway: String,
    pub(in super::super) key: GroupingKey,
    pub(in super::super) order: Order,
    /// When it was written, or last tried in vain.
    pub(in super::super) tried: SystemTime,
}

/// An entry, to be delivered.
#[derive(Debug)]
pub(in super::super) enum Content {
    /// What it tells, and what is wrong with the lines that it has beside that: another version may have taken them.
    Push(Push, Option<InvalidPush>),
    /// The process that wrote it is trying to deliver it.
    InProgress,
}

/// Why a file is no entry.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Unreadable {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is not a plain file")]
    NoFile,
    #[error("it is {0} bytes long, and at most {SIZE_MAX} are read")]
    TooLarge(u64),
    #[error("it has the form {0}, and this version knows only those up to {VERSION}")]
    Version(u32),
    #[error("it is not a spooled push: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it is damaged: {0}")]
    Damaged(String),
}

impl Unreadable {
    /// Whether it is left where it is: another user or version may be able to deliver it, or it is nothing of ours.
    pub(in super::super) fn stays(&self) -> bool {
        !matches!(self, Self::Json(_) | Self::Damaged(_))
    }

    /// Whether there is nothing any more: another process has delivered it, or found it superfluous.
    pub(in super::super) fn is_gone(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// Writes an entry and waits until it is on disk.
pub(super) fn write(file: &mut File, gateway: &str, push: &Push, order: Order) -> io::Result<()> {
    let key = push.key();
    let entry = Entry {
        version: VERSION,
        gateway: gateway.into(),
        job: key.job().into(),
        labels: key.labels().map(|(name, value)| (name.into(), value.into())).collect(),
        moment: order.moment,
        sequence: order.sequence,
        moments: push.moments().into(),
        text: push.families().as_str().into(),
    };
    let mut writer = BufWriter::new(&mut *file);
    serde_json::to_writer(&mut writer, &entry)?;
    writer.flush()?;
    drop(writer);
    let length = file.metadata()?.len();
    if length > SIZE_MAX {
        let reason = format!("the push takes {length} bytes, and at most {SIZE_MAX} are kept");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, reason));
    }
    file.sync_all()
}

/// What an entry is about.
pub(super) fn head(path: &Path) -> Result<Waiting, Unreadable> {
    let file = open(path)?;
    let tried = file.metadata()?.modified()?;
    let bytes = read(file)?;
    let entry = parse(&bytes)?;
    let (key, order) = (entry.key()?, entry.order()?);
    Ok(Waiting { path: path.to_owned(), gateway: entry.gateway.into_owned(), key, order, tried })
}

/// What an entry tells.
pub(in super::super) fn content(path: &Path) -> Result<Content, Unreadable> {
    let file = open(path)?;
    // A folder that knows no locks does without: what is delivered twice is no news the second time.
    if matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) {
        return Ok(Content::InProgress);
    }
    let bytes = read(file)?;
    let entry = parse(&bytes)?;
    let (key, Order { moment, .. }) = (entry.key()?, entry.order()?);
    let mut families = MetricsText::parse(entry.text.as_bytes());
    families.keep_what_fits(&key, |_| false);
    let faults = InvalidPush::of_faults(&families);
    families.forget_faults();
    let moments: Vec<_> = entry.moments.iter().map(String::as_str).collect();
    let moment = at(moment).ok_or_else(|| Unreadable::Damaged(format!("{moment} s is not a moment")))?;
    match Push::new(key, families, moment, &moments) {
        Ok(push) => Ok(Content::Push(push, faults)),
        Err(nothing) => Err(Unreadable::Damaged(faults.unwrap_or(nothing).to_string())),
    }
}

/// Opens a plain file and nothing else: a pipe would be waited for, and a device may do something.
pub(super) fn open(path: &Path) -> Result<File, Unreadable> {
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(Unreadable::NoFile);
    }
    // Whatever has taken its place meanwhile is neither followed nor waited for.
    let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK | O_NOFOLLOW).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(Unreadable::NoFile) }
}

fn read(file: File) -> Result<Vec<u8>, Unreadable> {
    let length = file.metadata()?.len();
    let mut bytes = Vec::new();
    if length <= SIZE_MAX {
        file.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    }
    let length = length.max(bytes.len() as u64);
    if length > SIZE_MAX { Err(Unreadable::TooLarge(length)) } else { Ok(bytes) }
}

fn parse(bytes: &[u8]) -> Result<Entry<'_>, Unreadable> {
    #[derive(Deserialize)]
    struct Form {
        version: u32,
    }
    // First of all: another form may have other fields.
    let Form { version } = serde_json::from_slice(bytes)?;
    if !(FIRST_VERSION..=VERSION).contains(&version) {
        return Err(Unreadable::Version(version));
    }
    Ok(serde_json::from_slice(bytes)?)
}

impl Entry<'_> {
    fn key(&self) -> Result<GroupingKey, Unreadable> {
        GroupingKey::new(&self.job)
            .and_then(|key| self.labels.iter().try_fold(key, |key, (name, value)| key.with(name, value)))
            .map_err(|error| Unreadable::Damaged(error.to_string()))
    }

    fn order(&self) -> Result<Order, Unreadable> {
        let Self { moment, sequence, .. } = *self;
        if at(moment).is_none() {
            return Err(Unreadable::Damaged(format!("{moment} s is not a moment")));
        }
        Ok(Order { moment, sequence })
    }
}

fn at(moment: f64) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(moment).ok()?)
}
