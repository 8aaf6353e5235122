//! Pushes that wait on disk until the gateway takes them.
//!
//! One file a push, named by the moment that it tells of, so that a sorted listing is oldest first. A file is written
//! beside its place, flushed and then moved there: it is whole or absent, also after a loss of power. Any number of
//! processes may store at once; one at a time delivers, by a lock that ends with its process.
//!
//! The folder stays small however long the gateway is away: a push makes an older one of the same group superfluous
//! when it tells of every family that the older one tells of.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::delivery::Push;
use super::grouping_key::GroupingKey;
use super::text::MetricsText;

/// The form of an entry. Another one is not ours to read.
const VERSION: u32 = 1;

/// Where entries go that cannot be delivered.
const SET_ASIDE: &str = "set-aside";

/// Entries being written; one that is older than [`ABANDONED`] was left by a process that was killed.
const BEING_WRITTEN: &str = ".new-";
const ABANDONED: Duration = Duration::from_hours(1);

/// A folder of pushes that wait. Clones are the same folder.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: Arc<Path>,
}

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the spool folder {} cannot be {what}", folder.display())]
pub struct SpoolError {
    folder: PathBuf,
    what: &'static str,
    source: io::Error,
}

/// An entry that cannot be delivered.
#[derive(Debug)]
pub struct Undeliverable {
    /// Where it is now.
    pub path: PathBuf,
    /// Why it cannot be delivered.
    pub reason: String,
}

/// What a delivery of the spool's entries came to.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Entries that the gateway took.
    pub delivered: usize,
    /// Entries of which the gateway holds something newer already.
    pub superseded: usize,
    /// Entries that cannot be delivered, now or later, and were moved out of the way.
    pub set_aside: Vec<Undeliverable>,
    /// Entries that this process or this version cannot read; they wait for one that can.
    pub unreadable: Vec<Undeliverable>,
    /// Entries that still wait, the unreadable ones not counted.
    pub left: usize,
    /// Of those, how many wait for which other gateway.
    pub elsewhere: BTreeMap<String, usize>,
    /// Why entries are left, where it is not for another gateway.
    pub error: Option<super::PushError>,
    /// Whether another process is delivering; nothing was done then.
    pub busy: bool,
}

/// A push on disk.
#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    version: u32,
    gateway: String,
    job: String,
    labels: BTreeMap<String, String>,
    /// Seconds since 1970.
    moment: f64,
    moments: Vec<String>,
    text: String,
}

/// The right to deliver, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    spool: Spool,
    _lock: File,
}

/// What a look into the folder finds.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) waiting: Vec<Waiting>,
    pub(super) set_aside: Vec<Undeliverable>,
    pub(super) unreadable: Vec<Undeliverable>,
}

/// An entry that can be delivered.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) path: PathBuf,
    /// The base URL of the gateway that it is for.
    pub(super) gateway: String,
    pub(super) push: Push,
}

impl Spool {
    /// A spool in this folder, which is created when it is absent.
    ///
    /// # Errors
    ///
    /// When it cannot be created.
    pub fn open(folder: &Path) -> Result<Self, SpoolError> {
        let spool = Self { folder: folder.into() };
        fs::create_dir_all(folder).map_err(|source| spool.error("created", source))?;
        Ok(spool)
    }

    /// Keeps a push for a gateway. When this returns, it is on disk.
    ///
    /// # Errors
    ///
    /// When it cannot be written, for lack of room, say. Nothing of it is left behind then.
    pub(super) fn store(&self, gateway: &str, push: &Push) -> Result<PathBuf, SpoolError> {
        let entry = Entry {
            version: VERSION,
            gateway: gateway.to_owned(),
            job: push.key.job().to_owned(),
            labels: push.key.labels().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            moment: push.moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            moments: push.moments.clone(),
            text: push.text.clone(),
        };
        let path = self.write(&entry, &push.key).map_err(|source| self.error("written", source))?;
        self.drop_superfluous(&path, gateway, push);
        Ok(path)
    }

    fn write(&self, entry: &Entry, key: &GroupingKey) -> io::Result<PathBuf> {
        let mut file = tempfile::Builder::new().prefix(BEING_WRITTEN).tempfile_in(&self.folder)?;
        file.write_all(serde_json::to_string(entry)?.as_bytes())?;
        file.as_file().sync_all()?;
        // The random part of the temporary name keeps apart what happened at the same moment.
        let unique = file.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let unique = unique.trim_start_matches(BEING_WRITTEN);
        let name = format!("{:020.6}-{}-{unique}.json", entry.moment, group_hash(&entry.gateway, key));
        let path = self.folder.join(name);
        file.persist(&path).map_err(|error| error.error)?;
        File::open(&self.folder)?.sync_all()?;
        Ok(path)
    }

    /// Removes older entries of the same group that tell of nothing that the new one does not tell of. What cannot be
    /// read or removed stays: it costs a delivery, not a value.
    fn drop_superfluous(&self, new: &Path, gateway: &str, push: &Push) {
        let same_group = format!("-{}-", group_hash(gateway, &push.key));
        let Ok(files) = self.files() else { return };
        let told = names(push);
        for path in files.iter().filter(|path| *path != new && path.to_string_lossy().contains(&same_group)) {
            let Ok(older) = read(path) else { continue };
            let same = older.push.key == push.key && older.gateway == gateway && older.push.moment <= push.moment;
            if same && names(&older.push).is_subset(&told) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Removes an entry that needs no delivery any more.
    pub(super) fn remove(&self, path: &Path) -> Result<(), SpoolError> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.error("cleared", source)),
            _ => Ok(()),
        }
    }

    /// The right to deliver; `None` while another process has it.
    pub(super) fn turn(&self) -> Result<Option<Turn>, SpoolError> {
        let failed = |source| self.error("locked", source);
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(self.folder.join(".lock"));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Turn { spool: self.clone(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    /// The entries' files, oldest first.
    fn files(&self) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                files.push(path);
            }
        }
        files.sort();
        Ok(files)
    }

    fn error(&self, what: &'static str, source: io::Error) -> SpoolError {
        SpoolError { folder: self.folder.to_path_buf(), what, source }
    }
}

impl Turn {
    /// What waits, oldest first. What is damaged is set aside; what only somebody else can read is left.
    pub(super) fn look(&self, now: SystemTime) -> Result<Found, SpoolError> {
        self.clean_up(now);
        let files = self.spool.files().map_err(|source| self.spool.error("read", source))?;
        let mut found = Found::default();
        for path in files {
            match read(&path) {
                Ok(entry) => found.waiting.push(entry),
                // Another process found it superfluous meanwhile.
                Err(Unreadable::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Err(unreadable @ (Unreadable::Io(_) | Unreadable::Version(_))) => {
                    found.unreadable.push(Undeliverable { path, reason: unreadable.to_string() });
                }
                Err(damaged) => found.set_aside.push(self.set_aside(&path, damaged.to_string())),
            }
        }
        Ok(found)
    }

    /// Moves an entry to where nothing delivers it, for somebody to look at.
    pub(super) fn set_aside(&self, path: &Path, reason: String) -> Undeliverable {
        let folder = self.spool.folder.join(SET_ASIDE);
        let moved = path.file_name().map(|name| folder.join(name)).and_then(|to| {
            fs::create_dir_all(&folder).and_then(|()| fs::rename(path, &to)).ok()?;
            Some(to)
        });
        Undeliverable { path: moved.unwrap_or_else(|| path.to_owned()), reason }
    }

    /// Removes what killed processes left half-written.
    fn clean_up(&self, now: SystemTime) {
        let Ok(files) = fs::read_dir(&self.spool.folder) else { return };
        for file in files.flatten().filter(|file| file.file_name().to_string_lossy().starts_with(BEING_WRITTEN)) {
            let written = file.metadata().and_then(|metadata| metadata.modified());
            if written.is_ok_and(|written| now.duration_since(written).is_ok_and(|age| age > ABANDONED)) {
                let _ = fs::remove_file(file.path());
            }
        }
    }
}

/// Why a file is no entry.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("it is no spooled push: {0}")]
    Json(#[from] serde_json::Error),
    #[error("it has the form {0}, and this version knows only {VERSION}")]
    Version(u32),
    #[error("it is damaged: {0}")]
    Damaged(String),
}

fn read(path: &Path) -> Result<Waiting, Unreadable> {
    let entry: Entry = serde_json::from_slice(&fs::read(path)?)?;
    if entry.version != VERSION {
        return Err(Unreadable::Version(entry.version));
    }
    let key = GroupingKey::new(&entry.job)
        .and_then(|key| entry.labels.iter().try_fold(key, |key, (name, value)| key.with(name, value)))
        .map_err(|error| Unreadable::Damaged(error.to_string()))?;
    if let Some(fault) = MetricsText::parse(entry.text.as_bytes()).faults().first() {
        return Err(Unreadable::Damaged(fault.to_string()));
    }
    let moment = Duration::try_from_secs_f64(entry.moment).map_err(|error| Unreadable::Damaged(error.to_string()))?;
    let push = Push { key, text: entry.text, moment: UNIX_EPOCH + moment, moments: entry.moments };
    Ok(Waiting { path: path.to_owned(), gateway: entry.gateway, push })
}

/// The names of all that a push tells of.
fn names(push: &Push) -> BTreeSet<String> {
    let text = MetricsText::parse(push.text.as_bytes());
    text.families().iter().map(|family| family.name().to_owned()).collect()
}

/// Says in a file's name which group it belongs to, so that few files are read to find those of one group.
fn group_hash(gateway: &str, key: &GroupingKey) -> String {
    let digest = Sha256::digest(format!("{gateway}{}", key.path()));
    let mut text = String::new();
    digest.iter().take(6).try_for_each(|byte| write!(text, "{byte:02x}")).expect("text takes any text");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const GATEWAY: &str = "http://gateway:9091/";

    fn push(job: &str, second: u64, text: &str) -> Push {
        Push {
            key: GroupingKey::new(job).unwrap(),
            text: text.to_owned(),
            moment: UNIX_EPOCH + Duration::from_secs(second),
            moments: Vec::new(),
        }
    }

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&folder.path().join("spool")).unwrap();
        (folder, spool)
    }

    /// What waits, as job, moment and text.
    fn waiting(spool: &Spool) -> Vec<(String, f64, String)> {
        let turn = spool.turn().unwrap().expect("nobody else has the turn");
        let found = turn.look(UNIX_EPOCH).unwrap();
        assert!(found.set_aside.is_empty(), "{found:?}");
        let seconds = |push: &Push| push.moment.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        found.waiting.into_iter().map(|w| (w.push.key.job().to_owned(), seconds(&w.push), w.push.text)).collect()
    }

    #[test]
    fn what_is_stored_waits_oldest_first() {
        let (_folder, spool) = spool();

        for (job, second) in [("b", 20), ("a", 1_900_000_000), ("c", 3)] {
            spool.store(GATEWAY, &push(job, second, "rows 1\n")).unwrap();
        }

        let order: Vec<_> = waiting(&spool).into_iter().map(|(job, ..)| job).collect();
        assert_eq!(order, ["c", "b", "a"]);
    }

    #[test]
    fn a_push_replaces_an_older_one_of_its_group_that_tells_nothing_else() {
        let (_folder, spool) = spool();
        let both = "rows 1\nsuccess 5\n";

        spool.store(GATEWAY, &push("a", 1, "rows 1\n")).unwrap();
        spool.store(GATEWAY, &push("a", 2, both)).unwrap();
        spool.store(GATEWAY, &push("a", 3, "rows 3\n")).unwrap();
        spool.store("http://other/", &push("a", 4, both)).unwrap();
        spool.store(GATEWAY, &push("b", 5, both)).unwrap();
        spool.store(GATEWAY, &push("b", 4, both)).unwrap();

        let order: Vec<_> = waiting(&spool).into_iter().map(|(job, moment, _)| (job, moment)).collect();
        let a = |moment: f64| ("a".to_owned(), moment);
        let b = |moment: f64| ("b".to_owned(), moment);
        assert_eq!(order, [a(2.0), a(3.0), a(4.0), b(4.0), b(5.0)], "a(1) is told by a(2); nothing older replaces");
    }

    #[test]
    fn one_at_a_time_delivers() {
        let (_folder, spool) = spool();

        let turn = spool.turn().unwrap();

        assert!(turn.is_some());
        assert!(spool.turn().unwrap().is_none());
        drop(turn);
        assert!(spool.turn().unwrap().is_some());
    }

    #[test]
    fn what_is_damaged_is_set_aside_and_the_others_stay() {
        let (folder, spool) = spool();
        let folder = folder.path().join("spool");
        spool.store(GATEWAY, &push("kept", 1, "rows 1\n")).unwrap();
        let good = fs::read_to_string(&spool.files().unwrap()[0]).unwrap();
        for (name, text) in [
            ("1.json", "{".to_owned()),
            ("2.json", good.replace("\"version\":1", "\"version\":2")),
            ("3.json", good.replace("kept", "")),
            ("4.json", good.replace("rows 1", "rows")),
        ] {
            fs::write(folder.join(name), text).unwrap();
        }

        let found = spool.turn().unwrap().unwrap().look(UNIX_EPOCH).unwrap();

        assert_eq!(found.waiting.len(), 1);
        let newer = &found.unreadable[0];
        assert_eq!(newer.reason, "it has the form 2, and this version knows only 1");
        assert!(found.unreadable.len() == 1 && newer.path.exists(), "it waits for the version that wrote it");
        let set_aside = &found.set_aside;
        let reasons: Vec<_> = set_aside.iter().map(|entry| entry.reason.split(':').next().unwrap()).collect();
        let damaged = "it is damaged";
        assert_eq!(reasons, ["it is no spooled push", damaged, damaged]);
        assert!(set_aside.iter().all(|entry| entry.path.starts_with(folder.join(SET_ASIDE)) && entry.path.exists()));
    }

    #[test]
    fn what_a_killed_process_left_half_written_goes_away_in_time() {
        let (folder, spool) = spool();
        let half = folder.path().join("spool/.new-abc");
        fs::write(&half, "{").unwrap();
        let written = fs::metadata(&half).unwrap().modified().unwrap();
        let turn = spool.turn().unwrap().unwrap();

        turn.look(written + ABANDONED).unwrap();
        assert!(half.exists(), "it may still be written");
        turn.look(written + ABANDONED + Duration::from_secs(1)).unwrap();
        assert!(!half.exists());
    }

    #[test]
    fn a_folder_that_cannot_be_used_is_named() {
        let (folder, spool) = spool();
        fs::write(folder.path().join("file"), "").unwrap();

        let error = Spool::open(&folder.path().join("file/spool")).unwrap_err().to_string();
        assert!(error.contains("file/spool cannot be created"), "{error}");

        fs::remove_dir_all(&spool.folder).unwrap();
        let error = spool.store(GATEWAY, &push("a", 1, "rows 1\n")).unwrap_err().to_string();
        assert!(error.contains("spool cannot be written"), "{error}");
    }
}
