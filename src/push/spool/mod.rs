//! Pushes that wait on disk until the gateway takes them.
//!
//! One file a push, named by the moment that it tells of, its group, and its place among the pushes of the same moment. A
//! file is written beside its place, flushed and then moved there: it is whole or absent, also after a loss of power. Any
//! number of processes may store at once; one at a time delivers, by a lock that ends with its process. Whoever stores a
//! push holds a lock on its file while it tries to deliver it itself, and nobody else does meanwhile.
//!
//! The folder stays small however long the gateway is away: a push makes an older one of the same group superfluous
//! when it tells of every family that the older one tells of.
//!
//! Only plain files are opened, whatever else is in the folder.

mod entry;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::libc::{O_NOFOLLOW, O_NONBLOCK};
use sha2::{Digest, Sha256};

use super::grouping_key::GroupingKey;
use super::news::Order;
use super::payload::Push;
use entry::head;
pub(super) use entry::{Content, Waiting, content};

/// Where entries go that cannot be delivered.
const SET_ASIDE: &str = "set-aside";

/// By this file processes take turns to deliver.
const LOCK: &str = ".lock";

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

/// A push that was stored, for as long as its process tries to deliver it: nobody else does until this is dropped.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    order: Order,
    _lock: File,
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

    /// Keeps a push for a gateway. When this returns, it is on disk, and nobody else delivers it as long as what this
    /// gives is there.
    ///
    /// # Errors
    ///
    /// When it cannot be written, for lack of room, say. Nothing of it is left behind then.
    pub(super) fn store(&self, gateway: &str, push: &Push, order: Order) -> Result<Kept, SpoolError> {
        self.write(gateway, push, order).map_err(|source| self.error("written", source))
    }

    fn write(&self, gateway: &str, push: &Push, order: Order) -> io::Result<Kept> {
        let mut file = tempfile::Builder::new().prefix(BEING_WRITTEN).tempfile_in(&self.folder)?;
        entry::write(file.as_file_mut(), gateway, push, order)?;
        // A folder that knows no locks does without: what is delivered twice is no news the second time.
        let _ = file.as_file().try_lock();
        // The random part of the temporary name keeps apart what two processes tell of the same moment.
        let unique = file.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let unique = unique.trim_start_matches(BEING_WRITTEN);
        let Order { moment, sequence } = order;
        let name = format!("{moment:020.6}-{}-{sequence:06}-{unique}.json", group_hash(gateway, push.key()));
        let path = self.folder.join(name);
        let lock = file.persist(&path).map_err(|error| error.error)?;
        File::open(&self.folder).and_then(|folder| folder.sync_all()).inspect_err(|_| {
            let _ = fs::remove_file(&path);
        })?;
        Ok(Kept { path, order, _lock: lock })
    }

    /// Leaves a push to whoever comes next, and removes older entries of the same group that tell of nothing that this one
    /// does not tell of. What cannot be read or removed stays: it costs a delivery, not a value.
    pub(super) fn leave(&self, kept: &Kept, gateway: &str, push: &Push) {
        let same_group = format!("-{}-", group_hash(gateway, push.key()));
        let Ok(files) = self.files() else { return };
        let told = push.families().names();
        let in_group = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(&same_group));
        for path in files.iter().filter(|path| **path != kept.path && in_group(path)) {
            let older = |waiting: Waiting| {
                let same = waiting.gateway == gateway && waiting.key == *push.key();
                same && waiting.order.compare(&kept.order).is_le()
            };
            if !head(path).is_ok_and(older) {
                continue;
            }
            let Ok(Content::Push(older, None)) = content(path) else { continue };
            if older.families().families().iter().all(|family| told.contains(family.name())) {
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Removes what its own process has delivered after all.
    pub(super) fn forget(&self, kept: &Kept) -> Result<(), SpoolError> {
        self.remove(&kept.path)
    }

    /// Removes an entry that needs no delivery any more.
    pub(super) fn remove(&self, path: &Path) -> Result<(), SpoolError> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(self.error("cleared", source)),
            _ => Ok(()),
        }
    }

    /// Moves an entry to where nothing delivers it, for somebody to look at.
    pub(super) fn set_aside(&self, path: &Path, reason: String) -> Undeliverable {
        let folder = self.folder.join(SET_ASIDE);
        let moved = path.file_name().map(|name| folder.join(name)).and_then(|to| {
            fs::create_dir_all(&folder).and_then(|()| fs::rename(path, &to)).ok()?;
            Some(to)
        });
        Undeliverable { path: moved.unwrap_or_else(|| path.to_owned()), reason }
    }

    /// Notes that an entry was tried in vain, so that others come first next time. Without leave to do so, they do not.
    pub(super) fn tried(path: &Path, now: SystemTime) {
        let _ = entry::open(path).map(|file| file.set_modified(now));
    }

    /// The right to deliver; `None` while another process has it.
    pub(super) fn turn(&self) -> Result<Option<Turn>, SpoolError> {
        let failed = |source| self.error("locked", source);
        // Whatever else has that name is neither followed nor waited for.
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .custom_flags(O_NONBLOCK | O_NOFOLLOW)
            .open(self.folder.join(LOCK))
            .map_err(failed)?;
        if !lock.metadata().map_err(failed)?.is_file() {
            return Err(failed(io::Error::other(format!("{LOCK} is not a plain file"))));
        }
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
    /// What waits. What is damaged is set aside; what only somebody else can read is left.
    pub(super) fn look(&self, now: SystemTime) -> Result<Found, SpoolError> {
        self.clean_up(now);
        let files = self.spool.files().map_err(|source| self.spool.error("read", source))?;
        let mut found = Found::default();
        for path in files {
            match head(&path) {
                Ok(entry) => found.waiting.push(entry),
                Err(gone) if gone.is_gone() => {}
                Err(unreadable) if unreadable.stays() => {
                    found.unreadable.push(Undeliverable { path, reason: unreadable.to_string() });
                }
                Err(damaged) => found.set_aside.push(self.spool.set_aside(&path, damaged.to_string())),
            }
        }
        Ok(found)
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

/// Says in a file's name which group it belongs to, so that few files are read to find those of one group.
fn group_hash(gateway: &str, key: &GroupingKey) -> String {
    let digest = Sha256::digest(format!("{gateway}{}", key.path()));
    let mut text = String::new();
    digest.iter().take(6).try_for_each(|byte| write!(text, "{byte:02x}")).expect("text takes any text");
    text
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::super::text::MetricsText;
    use super::*;

    const GATEWAY: &str = "http://gateway:9091/";

    fn push(job: &str, second: u64, text: &str) -> Push {
        let moment = UNIX_EPOCH + Duration::from_secs(second);
        Push::new(GroupingKey::new(job).unwrap(), MetricsText::parse(text.as_bytes()), moment, &[]).unwrap()
    }

    fn order(second: u32, sequence: u32) -> Order {
        Order { moment: second.into(), sequence }
    }

    fn spool() -> (tempfile::TempDir, Spool) {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(&folder.path().join("spool")).unwrap();
        (folder, spool)
    }

    fn look(spool: &Spool) -> Found {
        spool.turn().unwrap().expect("nobody else has the turn").look(UNIX_EPOCH).unwrap()
    }

    /// What waits, as job and order.
    fn waiting(spool: &Spool) -> Vec<(String, Order)> {
        let found = look(spool);
        assert!(found.set_aside.is_empty() && found.unreadable.is_empty(), "{found:?}");
        found.waiting.into_iter().map(|waiting| (waiting.key.job().to_owned(), waiting.order)).collect()
    }

    /// Stores a push and leaves it.
    fn leave(spool: &Spool, gateway: &str, job: &str, order: Order, text: &str) {
        let push = push(job, 0, text);
        let kept = spool.store(gateway, &push, order).unwrap();
        spool.leave(&kept, gateway, &push);
    }

    #[test]
    fn names_sort_by_moment_and_then_by_the_place_within_a_run() {
        let (_folder, spool) = spool();
        let orders = [order(20, 0), order(1_900_000_000, 4), order(3, 11), order(3, 2), order(3, 100)];

        for order in orders {
            spool.store(GATEWAY, &push("a", 0, "rows 1\n"), order).unwrap();
        }

        let found: Vec<_> = waiting(&spool).into_iter().map(|(_, order)| order).collect();
        assert_eq!(found, [order(3, 2), order(3, 11), order(3, 100), order(20, 0), order(1_900_000_000, 4)]);
    }

    #[test]
    fn what_is_stored_comes_out_as_it_was_and_only_its_own_process_delivers_it_meanwhile() {
        let (_folder, spool) = spool();
        let push = push("a", 1, "rows{a=\"\u{1}\\\\b\"} 1\n");

        let kept = spool.store(GATEWAY, &push, order(1, 0)).unwrap();
        assert!(matches!(content(&kept.path), Ok(Content::InProgress)));
        let path = kept.path.clone();
        drop(kept);

        let Ok(Content::Push(read, None)) = content(&path) else { panic!("it waits for anybody") };
        assert_eq!((read.key(), read.moment(), read.moments()), (push.key(), push.moment(), push.moments()));
        assert_eq!(read.families().to_string(), push.families().to_string());
    }

    #[test]
    fn a_push_that_is_left_replaces_an_older_one_of_its_group_that_tells_nothing_else() {
        let (_folder, spool) = spool();
        let both = "rows 1\nsuccess 5\n";

        leave(&spool, GATEWAY, "a", order(1, 0), "rows 1\n");
        leave(&spool, GATEWAY, "a", order(2, 0), both);
        leave(&spool, GATEWAY, "a", order(3, 0), "rows 3\n");
        leave(&spool, GATEWAY, "a", order(3, 1), "rows 4\n");
        leave(&spool, "http://other/", "a", order(4, 0), both);
        leave(&spool, GATEWAY, "b", order(5, 0), both);
        leave(&spool, GATEWAY, "b", order(4, 0), both);

        let left = |job: &str, order| (job.to_owned(), order);
        let mut found = waiting(&spool);
        found.sort_by(|(a, x), (b, y)| a.cmp(b).then(x.compare(y)));
        let expected = [
            left("a", order(2, 0)),
            left("a", order(3, 1)),
            left("a", order(4, 0)),
            left("b", order(4, 0)),
            left("b", order(5, 0)),
        ];
        assert_eq!(found, expected, "nothing older replaces");
    }

    #[test]
    fn nothing_is_replaced_before_a_push_is_left() {
        let (_folder, spool) = spool();
        leave(&spool, GATEWAY, "a", order(1, 0), "rows 1\n");

        let kept = spool.store(GATEWAY, &push("a", 2, "rows 2\n"), order(2, 0)).unwrap();
        spool.forget(&kept).unwrap();

        assert_eq!(waiting(&spool), [("a".to_owned(), order(1, 0))], "the newer one may have been refused");
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
        leave(&spool, GATEWAY, "kept", order(1, 0), "rows 1\n");
        let good = fs::read_to_string(&spool.files().unwrap()[0]).unwrap();
        for (name, text) in [
            ("1.json", "{".to_owned()),
            ("2.json", r#"{"version":3,"moment":"noon"}"#.to_owned()),
            ("3.json", good.replace("kept", "")),
            ("4.json", good.replace("\"moment\":1.0", "\"moment\":1e19")),
            ("5.json", good.replace("\"moment\":1.0", "\"moment\":-1")),
        ] {
            assert_ne!(text, good, "{name}");
            fs::write(folder.join(name), text).unwrap();
        }

        let found = look(&spool);

        assert_eq!(found.waiting.len(), 1);
        let newer = &found.unreadable[0];
        assert_eq!(newer.reason, "it has the form 3, and this version knows only those up to 2");
        assert!(found.unreadable.len() == 1 && newer.path.exists(), "it waits for the version that wrote it");
        let set_aside = &found.set_aside;
        let reasons: Vec<_> = set_aside.iter().map(|entry| entry.reason.split(':').next().unwrap()).collect();
        let damaged = "it is damaged";
        assert_eq!(reasons, ["it is not a spooled push", damaged, damaged, damaged]);
        assert!(set_aside.iter().all(|entry| entry.path.starts_with(folder.join(SET_ASIDE)) && entry.path.exists()));
    }

    #[test]
    fn lines_that_cannot_be_pushed_cost_nothing_else_of_an_entry() {
        let (_folder, spool) = spool();
        leave(&spool, GATEWAY, "a", order(1, 0), "rows 1\nothers 2\n");
        let path = &spool.files().unwrap()[0];
        let good = fs::read_to_string(path).unwrap();

        fs::write(path, good.replace("rows 1", "rows 1 5")).unwrap();
        let Ok(Content::Push(push, Some(faults))) = content(path) else { panic!("half of it is fine") };
        assert_eq!(push.families().to_string(), "others 2\n");
        assert!(faults.to_string().contains("rows has a timestamp"), "{faults}");
        fs::write(path, good.replace("rows 1", "rows").replace("others 2", "others")).unwrap();
        let nothing = content(path).unwrap_err();
        assert!(nothing.to_string().starts_with("it is damaged: ") && !nothing.stays(), "{nothing}");
    }

    #[test]
    fn a_push_that_is_too_large_to_be_read_again_is_not_kept() {
        let (_folder, spool) = spool();
        let text = format!("rows{{a=\"{}\"}} 1\n", "\u{1}".repeat(6_000_000));

        let error = spool.store(GATEWAY, &push("a", 1, &text), order(1, 0)).unwrap_err();

        let reason = std::error::Error::source(&error).unwrap().to_string();
        assert!(reason.contains("at most 33554432 are kept"), "{reason}");
        assert_eq!(fs::read_dir(&spool.folder).unwrap().count(), 0);
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
        let error = spool.store(GATEWAY, &push("a", 1, "rows 1\n"), order(1, 0)).unwrap_err().to_string();
        assert!(error.contains("spool cannot be written"), "{error}");
    }

    /// Reads a file of these bytes in every way; it must neither panic nor get lost.
    fn read(spool: &Spool, bytes: &[u8]) {
        fs::write(spool.folder.join("1.json"), bytes).unwrap();
        let _ = content(&spool.folder.join("1.json"));
        let Found { waiting, set_aside, unreadable } = look(spool);
        assert_eq!(waiting.len() + set_aside.len() + unreadable.len(), 1);
        let kept = set_aside.first().map_or(spool.folder.join("1.json"), |entry| entry.path.clone());
        assert_eq!(fs::read(kept).unwrap(), bytes);
    }

    proptest! {
        #[test]
        fn whatever_a_file_holds_it_is_read_or_kept(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            read(&spool().1, &bytes);
        }

        #[test]
        fn whatever_is_changed_in_an_entry_it_is_read_or_kept(
            at in 0usize..400, bytes in "[0-9e.\"{}:,\\\\n-]{0,6}|\\PC{0,3}", length in 0usize..12,
        ) {
            let (_folder, spool) = spool();
            leave(&spool, GATEWAY, "a", order(1, 0), "rows{a=\"b\"} 1\n");
            let path = spool.files().unwrap().remove(0);
            let mut entry = fs::read(&path).unwrap();
            fs::remove_file(path).unwrap();
            let at = at.min(entry.len());
            entry.splice(at..(at + length).min(entry.len()), bytes.into_bytes());

            read(&spool, &entry);
        }

        #[test]
        fn orders_agree_with_the_names(moments in prop::collection::vec((0u32..4_000_000_000, 0u32..1_000_000), 2..6)) {
            let (_folder, spool) = spool();
            for (moment, sequence) in &moments {
                spool.store(GATEWAY, &push("a", 0, "rows 1\n"), order(*moment, *sequence)).unwrap();
            }

            let found: Vec<_> = waiting(&spool).into_iter().map(|(_, order)| order).collect();

            prop_assert!(found.is_sorted_by(|a, b| a.compare(b).is_le()), "{found:?}");
        }
    }
}
