//! `backup`: a whole copy of the store in a new file, and a service that is restored from it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::join_all;
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGKILL, SIGTERM};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

use crate::durability::server_with_users;
use crate::runbook;
use crate::support::{BINARY, Process, Server, binary, encode, eventually, finished};

/// What a run of `backup` left behind.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Run {
    async fn of(command: Command) -> Self {
        let output = finished(command).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    /// The one line that a failure says, without the program's name.
    fn sentence(&self) -> &str {
        let sentence = self.stderr.strip_prefix("api-monitoring: ").and_then(|said| said.strip_suffix('\n'));
        sentence.filter(|said| !said.contains('\n')).unwrap_or_else(|| panic!("not one line of ours: {self:?}"))
    }
}

/// Runs `backup` in a folder.
async fn back_up(folder: &Path, arguments: &[&str]) -> Run {
    let mut command = binary(folder);
    command.arg("backup").args(arguments);
    Run::of(command).await
}

/// A folder for a new service, with a backup in place.
fn restored(backup: &Path) -> Arc<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::copy(backup, folder.path().join("data/users.db")).unwrap();
    Arc::new(folder)
}

/// The users that a server lists, by id.
async fn users(server: &Server) -> BTreeMap<i64, String> {
    let answer = server.get("/api/users").await;
    assert_eq!(answer.status, 200);
    let users = answer.json()["users"].as_array().unwrap().clone();
    users.iter().map(|user| (user["id"].as_i64().unwrap(), user["name"].as_str().unwrap().to_owned())).collect()
}

/// The names in a folder, in their order.
fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

/// What the files of a folder hold.
fn contents(folder: &Path) -> BTreeMap<OsString, Vec<u8>> {
    names(folder).into_iter().map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

/// The answers of a statement on a database file.
async fn ask(file: &Path, statement: &'static str) -> Vec<String> {
    let mut database = SqliteConnectOptions::new().filename(file).read_only(true).connect().await.unwrap();
    let answers = sqlx::query_scalar(statement).fetch_all(&mut database).await.unwrap();
    database.close().await.unwrap();
    answers
}

// ---- Backing up and restoring ----

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_was_killed_is_restored_from_a_backup_that_was_made_under_traffic() {
    let server = Server::start().await;
    let acknowledged = Mutex::new(BTreeMap::new());
    let killed = AtomicBool::new(false);
    let write = async |writer: usize| {
        for number in 0.. {
            let name = format!("writer {writer} user {number}");
            let path = format!("/api/users?name={}&email=john%40example.com", encode(&name));
            match server.request("POST", &path).send().await {
                Ok(answer) => {
                    assert_eq!(answer.status(), 201, "a backup disturbs no write");
                    let location = answer.headers()["location"].to_str().unwrap();
                    let id: i64 = location.strip_prefix("/api/users/").unwrap().parse().unwrap();
                    acknowledged.lock().unwrap().insert(id, name);
                }
                Err(error) => return assert!(killed.load(Ordering::SeqCst), "{error}"),
            }
        }
    };
    let back_up_and_kill = async {
        let known = || acknowledged.lock().unwrap().len();
        eventually("200 users", async || (known() >= 200).then_some(())).await;
        let before = acknowledged.lock().unwrap().clone();
        let run = back_up(server.folder.path(), &["backup.db"]).await;
        // It goes on meanwhile.
        let then = known();
        eventually("more users", async || (known() >= then + 50).then_some(())).await;
        killed.store(true, Ordering::SeqCst);
        server.signal(SIGKILL);
        (before, run)
    };

    let (_, (before, run)) = futures_util::future::join(join_all((0..8).map(write)), back_up_and_kill).await;
    fs::remove_dir_all(server.folder.path().join("data")).unwrap();
    let backup = server.folder.path().join("backup.db");
    let again = Server::start_in(restored(&backup), &[]).await;

    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let listed = users(&again).await;
    let all = acknowledged.into_inner().unwrap();
    assert!(before.iter().all(|(id, name)| listed.get(id) == Some(name)), "{before:?}\n{listed:?}");
    // A creation may have been made and its answer lost with the server.
    assert!(listed.iter().all(|(id, name)| all.get(id).is_none_or(|known| known == name)));
    let size = fs::metadata(&backup).unwrap().len();
    let line = format!("backed up {} users into backup.db ({} bytes)\n", listed.len(), grouped(size));
    assert_eq!(run.stdout, line);
    assert_eq!(ask(&backup, "PRAGMA integrity_check").await, ["ok"]);
    assert!(again.create("the next").await > *listed.keys().last().unwrap(), "ids go on");
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap());
    groups.collect::<Vec<_>>().join(",")
}

#[tokio::test]
async fn the_runbook_restores_a_backup_in_place_of_a_database_that_is_damaged() {
    let mut server = Server::start().await;
    server.create("John").await;
    let shared = Arc::clone(&server.folder);
    let folder = shared.path();
    let run = back_up(folder, &["users-2026-11-29.db"]).await;
    server.create("after the backup").await;
    server.signal(SIGKILL);
    server.exit().await;
    fs::write(folder.join("data/users.db"), "damaged ".repeat(10_000)).unwrap();

    let data = folder.join("data");
    let commands: String = runbook::commands("Restoring a backup")
        .lines()
        // Who runs the service, and how, is not this test's.
        .filter(|line| !line.starts_with("systemctl") && !line.starts_with("chown"))
        .map(|line| line.replace("/var/lib/api-monitoring", data.to_str().unwrap()) + "\n")
        .map(|line| line.replace("/backups", folder.to_str().unwrap()))
        .collect();
    assert!(runbook::run(folder, &commands).success(), "{commands}");
    let again = Server::start_in(Arc::clone(&shared), &[]).await;

    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(users(&again).await.into_values().collect::<Vec<_>>(), ["John"]);
    assert_eq!(names(&data.join("damaged")), ["users.db", "users.db-shm", "users.db-wal"]);
}

#[tokio::test]
async fn a_backup_keeps_the_ids_that_were_given_and_how_far_imports_are() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    fs::write(folder.path().join("users.csv"), "name,email\nAda,a@example.com\nGrace,g@example.com\n").unwrap();
    let import = async |folder: &Path| {
        let mut command = binary(folder);
        command.arg("import").arg("users.csv");
        Run::of(command).await
    };
    assert_eq!(import(folder.path()).await.code, Some(0));
    let server = Server::start_in(Arc::clone(&folder), &[]).await;
    let highest = server.create("John").await;
    assert_eq!(server.send("DELETE", &format!("/api/users/{highest}")).await.status, 204);

    let run = back_up(folder.path(), &["backup.db"]).await;
    let restored = restored(&folder.path().join("backup.db"));
    fs::copy(folder.path().join("users.csv"), restored.path().join("users.csv")).unwrap();
    let again = Server::start_in(Arc::clone(&restored), &[]).await;
    let imported = import(restored.path()).await;

    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(imported.stdout.starts_with("imported 0 rows, rejected 0, skipped 2"), "{imported:?}");
    assert!(again.create("Jane").await > highest, "the id of a deleted user is not used again");
}

#[tokio::test]
async fn a_backup_changes_nothing_of_the_database() {
    let mut server = Server::start().await;
    server.create("John").await;
    let data = server.folder.path().join("data");

    server.signal(SIGKILL);
    server.exit().await;
    let killed = contents(&data);
    let of_the_killed = back_up(server.folder.path(), &["one.db"]).await;
    let mut after_kill = contents(&data);
    let mut again = Server::start_in(Arc::clone(&server.folder), &[]).await;
    again.signal(SIGTERM);
    again.exit().await;
    let ended = contents(&data);
    let of_the_ended = back_up(server.folder.path(), &["two.db"]).await;

    assert_eq!((of_the_killed.code, of_the_ended.code), (Some(0), Some(0)), "{of_the_killed:?} {of_the_ended:?}");
    // The index of the log holds who reads now, and is made anew by whoever comes first.
    after_kill.insert("users.db-shm".into(), killed[OsStr::new("users.db-shm")].clone());
    assert!(killed == after_kill, "a log that was left is left as it is");
    assert!(ended == contents(&data), "and a database that was closed stays one file");
    for file in ["one.db", "two.db"] {
        let backup = Server::start_in(restored(&server.folder.path().join(file)), &[]).await;
        assert_eq!(users(&backup).await.into_values().collect::<Vec<_>>(), ["John"], "{file}");
    }
}

#[tokio::test]
async fn a_backup_of_an_older_version_keeps_its_schema() {
    let mut server = Server::start().await;
    server.create("John").await;
    server.signal(SIGTERM);
    server.exit().await;
    let mut database = server.database().await;
    sqlx::raw_sql("DROP TABLE imports; DELETE FROM _sqlx_migrations WHERE version = 2")
        .execute(&mut database)
        .await
        .unwrap();
    database.close().await.unwrap();
    let folder = server.folder.path();

    let run = back_up(folder, &["backup.db"]).await;

    assert_eq!(run.code, Some(0), "{run:?}");
    let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
    let expected = ["_sqlx_migrations", "sqlite_sequence", "user_count", "users"];
    assert_eq!(ask(&folder.join("data/users.db"), tables).await, expected);
    assert_eq!(ask(&folder.join("backup.db"), tables).await, expected);
    let again = Server::start_in(restored(&folder.join("backup.db")), &[]).await;
    assert_eq!(users(&again).await.len(), 1);
}

#[tokio::test]
async fn a_backup_may_be_read_by_whoever_may_read_the_database_and_may_have_any_name() {
    let server = Server::start().await;
    server.create("John").await;
    let folder = server.folder.path();
    fs::set_permissions(folder.join("data/users.db"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::create_dir(folder.join(OsStr::from_bytes(b"no text \xff"))).unwrap();
    fs::create_dir(folder.join("it's")).unwrap();
    let longest = "x".repeat(250);
    for name in
        [b"plain".as_slice(), b"no text \xff/\xfe.db", b"it's/a \"b\" %20?mode=ro#c", b"file:x", longest.as_bytes()]
    {
        let file = Path::new(OsStr::from_bytes(name));
        let mut command = binary(folder);
        command.arg("backup").arg(file);
        let run = Run::of(command).await;

        assert_eq!(run.code, Some(0), "{run:?}");
        assert_eq!(fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777, 0o640, "{file:?}");
        let again = Server::start_in(restored(&folder.join(file)), &[]).await;
        assert_eq!(users(&again).await.len(), 1, "{file:?}");
    }
}

// ---- What is refused ----

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let mut server = Server::start().await;
    server.create("John").await;
    server.signal(SIGTERM);
    server.exit().await;
    let folder = server.folder.path();
    fs::write(folder.join("there"), "precious").unwrap();
    fs::write(folder.join("left.db-wal"), "of another database").unwrap();
    fs::create_dir(folder.join("folder")).unwrap();
    symlink("nowhere", folder.join("link")).unwrap();
    let before = (names(folder), contents(&folder.join("data")));
    for (file, said, reason) in [
        ("there", "there exists; a backup overwrites nothing", "a file"),
        ("folder", "folder exists; a backup overwrites nothing", "a folder"),
        ("link", "link exists; a backup overwrites nothing", "a link that leads nowhere"),
        ("data/users.db", "data/users.db exists; a backup overwrites nothing", "the database itself"),
        ("left.db", "left.db-wal exists; a backup overwrites nothing", "a log that would be taken for this file's"),
        ("data/users.db-wal", "data/users.db-wal is a name for a part of the database itself", "its log"),
        ("data/../data/users.db-journal", "data/../data/users.db-journal is a name for a part", "its journal"),
        ("new/", "new/ names no file", "a name for a folder"),
        ("..", ".. names no file", "a folder above"),
        ("nowhere/backup.db", "the folder \"nowhere\" of the backup cannot be written: No such file", "no folder"),
    ] {
        let run = back_up(folder, &[file]).await;

        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{reason}: {run:?}");
        assert!(run.sentence().starts_with(said), "{reason}: {run:?}");
        assert!((names(folder), contents(&folder.join("data"))) == before, "{reason}: something changed");
    }
    assert_eq!(fs::read(folder.join("there")).unwrap(), b"precious");
}

#[tokio::test]
async fn of_backups_into_one_file_at_once_one_is_made() {
    let server = Server::start().await;
    server.create("John").await;
    let folder = server.folder.path();

    let runs = join_all((0..4).map(|_| back_up(folder, &["backup.db"]))).await;

    let mut codes: Vec<_> = runs.iter().map(|run| run.code.unwrap()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 1, 1, 1], "{runs:?}");
    assert_eq!(names(folder), ["backup.db", "data"]);
    assert_eq!(ask(&folder.join("backup.db"), "PRAGMA integrity_check").await, ["ok"]);
}

#[tokio::test]
async fn without_a_database_of_ours_there_is_no_backup_and_none_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fs::write(folder.join("text"), "no database ".repeat(1000)).unwrap();
    fs::write(folder.join("empty"), "").unwrap();
    let mut other =
        SqliteConnectOptions::new().filename(folder.join("other")).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql("CREATE TABLE users (id)").execute(&mut other).await.unwrap();
    other.close().await.unwrap();
    let before = contents(folder);
    for (url, said) in [
        ("sqlite://data/users.db", "the database sqlite://data/users.db does not exist"),
        ("sqlite://text", "the database sqlite://text is corrupt or no database at all"),
        ("sqlite://empty", "sqlite://empty holds no users of this program"),
        ("sqlite://other", "sqlite://other holds no users of this program"),
        ("sqlite://text/users.db", "the database sqlite://text/users.db cannot be opened"),
    ] {
        let run = back_up(folder, &["backup", "--database-url", url]).await;

        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{url}: {run:?}");
        assert!(run.sentence().starts_with(said), "{url}: {run:?}");
        assert!(contents(folder) == before, "{url}: something changed");
    }
}

#[tokio::test]
async fn a_backup_with_settings_that_cannot_be_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, said) in [
        (
            &["b.db", "--database-url", "sqlite::memory:"][..],
            "--database-url (DATABASE_URL) is not usable: users in memory",
        ),
        (&["-"], "FILE \"-\" is not usable: expected the file to write"),
        (&[""], "FILE \"\" is not usable: expected the file to write"),
    ] {
        let run = back_up(folder.path(), arguments).await;

        assert_eq!(run.code, Some(2), "{run:?}");
        assert!(run.sentence().starts_with(said), "{run:?}");
    }
    assert_eq!(back_up(folder.path(), &[]).await.code, Some(2), "no file");
    assert_eq!(names(folder.path()), [""; 0]);
}

// ---- Ends before its time ----

/// A limit on the size of files stands for a full disk, as in `durability`.
#[tokio::test]
async fn a_backup_for_which_there_is_no_room_leaves_nothing() {
    let server = server_with_users(5000, &[]).await;
    let mut command = Command::new("bash");
    let limited = format!("trap '' XFSZ; ulimit -S -f 200; exec {BINARY} backup backup.db");
    command.args(["-c", &limited]).current_dir(server.folder.path());

    let run = Run::of(command).await;

    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{run:?}");
    assert!(run.sentence().starts_with("the backup backup.db cannot be written: "), "{run:?}");
    assert_eq!(names(server.folder.path()), ["data"]);
    assert_eq!(users(&server).await.len(), 5000);
}

#[tokio::test]
async fn a_signal_ends_a_backup_and_nothing_is_left_of_it() {
    let server = server_with_users(200_000, &[]).await;
    let folder = server.folder.path();
    for (signal, code) in [(SIGTERM, 143), (SIGINT, 130), (SIGHUP, 129)] {
        let mut command = binary(folder);
        command.args(["backup", "backup.db"]);
        let mut backup = Process::spawn(command);
        let begun = || {
            let making = names(folder).into_iter().find(|name| name.as_bytes().starts_with(b".api-monitoring-backup-"));
            making.filter(|making| fs::metadata(folder.join(making).join("copy")).is_ok_and(|copy| copy.len() > 0))
        };
        eventually("a part of the copy", async || begun()).await;

        backup.signal(signal);
        let end = backup.exit().await;

        assert_eq!(end.code(), Some(code), "{signal}: {:?}", backup.lines());
        assert_eq!(backup.lines(), ["api-monitoring: told to end; no backup was made"], "{signal}");
        assert_eq!(names(folder), ["data"], "{signal}");
    }
    assert_eq!(names(&folder.join("data")).into_iter().collect::<BTreeSet<_>>().len(), 3, "the service goes on");
    server.create("John").await;
}
