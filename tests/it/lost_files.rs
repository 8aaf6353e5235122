//! The database's files, taken away under a running service: it notices, says so, and acknowledges nothing that is lost.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::runbook;
use crate::support::{Answer, Server, binary, encode, eventually, in_time};

const LOST: &str = "the database is not where it was opened; no user is read or written";
const BACK: &str = "the database is back where it was opened; users are read and written again";

/// The names of all users that a server lists.
async fn names(server: &Server) -> BTreeSet<String> {
    let answer = server.get("/api/users").await;
    assert_eq!(answer.status, 200);
    let users = answer.json()["users"].as_array().unwrap().clone();
    users.iter().map(|user| user["name"].as_str().unwrap().to_owned()).collect()
}

/// Creates users at once; gives their number.
async fn fifty_users(server: &Server) -> usize {
    join_all((0..50).map(|number| async move { server.create(&format!("User {number}")).await })).await.len()
}

fn data(server: &Server) -> PathBuf {
    server.folder.path().join("data")
}

/// A folder for a server, with files as its database.
fn folder_with(files: &[(&Path, &str)]) -> Arc<TempDir> {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    for (file, name) in files {
        fs::copy(file, folder.path().join("data").join(name)).unwrap();
    }
    Arc::new(folder)
}

fn lines(server: &Server, message: &str) -> Vec<Value> {
    server.log().into_iter().filter(|event| event["message"] == message).collect()
}

/// Waits for the error line with that cause.
async fn said_of(server: &Server, cause: &str) -> Value {
    let find = || lines(server, LOST).into_iter().find(|event| event["cause"].as_str().unwrap().contains(cause));
    eventually(&format!("an error line with {cause:?}"), async || find()).await
}

async fn becomes(server: &Server, status: u16) -> Answer {
    let what = format!("{status} from /ready");
    eventually(&what, async || {
        let answer = server.get("/ready").await;
        (answer.status == status).then_some(answer)
    })
    .await
}

// ---- Acknowledged writes ----

/// Clients that write until they are told to end: what was acknowledged, and what became of requests that began after
/// the file was gone.
#[derive(Default)]
struct Writers {
    gone: AtomicBool,
    acknowledged: AtomicUsize,
    refused: AtomicUsize,
}

impl Writers {
    /// Creates users until enough were refused; gives the names of those that were acknowledged.
    async fn write(&self, server: &Server, writer: usize) -> Vec<String> {
        let mut names = Vec::new();
        for number in 0.. {
            let name = format!("writer {writer} user {number}");
            let after = self.gone.load(Ordering::SeqCst);
            let path = format!("/api/users?name={}&email=john%40example.com", encode(&name));
            let answer = server.send("POST", &path).await;
            if answer.status == 201 {
                assert!(!after, "{name} was acknowledged after the file was gone");
                names.push(name);
                self.acknowledged.fetch_add(1, Ordering::SeqCst);
                continue;
            }
            assert_eq!((answer.status.as_u16(), answer.problem().error_type.as_str()), (503, "store_unavailable"));
            if after && self.refused.fetch_add(1, Ordering::SeqCst) > 200 {
                break;
            }
        }
        names
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_is_acknowledged_once_the_database_file_is_removed_and_none_before_it_is_lost() {
    for round in 0..5 {
        let server = Server::start().await;
        let kept = tempfile::tempdir_in(server.folder.path()).unwrap();
        let writers = Writers::default();

        let taking_away = async {
            let enough = || (writers.acknowledged.load(Ordering::SeqCst) > 300).then_some(());
            eventually("300 users", async || enough()).await;
            // Under another name the files go on, with all that is written into them.
            for file in ["users.db", "users.db-wal"] {
                fs::hard_link(data(&server).join(file), kept.path().join(file)).unwrap();
            }
            fs::remove_file(data(&server).join("users.db")).unwrap();
            writers.gone.store(true, Ordering::SeqCst);
        };
        let writing = join_all((0..8).map(|writer| writers.write(&server, writer)));
        let (acknowledged, ()) = futures_util::future::join(writing, taking_away).await;
        server.signal(SIGKILL);

        let folder = folder_with(&[
            (&kept.path().join("users.db"), "users.db"),
            (&kept.path().join("users.db-wal"), "users.db-wal"),
        ]);
        let kept = names(&Server::start_in(folder, &[]).await).await;
        let acknowledged: BTreeSet<_> = acknowledged.into_iter().flatten().collect();
        assert!(acknowledged.is_subset(&kept), "round {round}: {:?}", acknowledged.difference(&kept));
    }
}

// ---- What may happen to the files ----

/// What happens to the database, in its folder; how the error line calls it.
type Fate = (&'static str, fn(&Path), &'static str);

fn replace(folder: &Path, name: &str) {
    let other = folder.join("other");
    fs::copy(folder.join("users.db"), &other).unwrap();
    fs::rename(other, folder.join(name)).unwrap();
}

#[tokio::test]
async fn a_file_of_the_database_that_is_taken_away_ends_reads_and_writes_with_one_error_line() {
    let fates: [Fate; 11] = [
        ("emptied", |data| drop(fs::File::create(data.join("users.db")).unwrap()), "users.db was emptied"),
        ("removed", |data| fs::remove_file(data.join("users.db")).unwrap(), "users.db was removed or moved away"),
        (
            "moved",
            |data| fs::rename(data.join("users.db"), data.join("users.bak")).unwrap(),
            "users.db was removed or moved away",
        ),
        ("replaced by a copy", |data| replace(data, "users.db"), "users.db was replaced by another file"),
        (
            "its folder moved",
            |data| fs::rename(data, data.with_file_name("elsewhere")).unwrap(),
            "users.db is gone with its folder",
        ),
        ("log removed", |data| fs::remove_file(data.join("users.db-wal")).unwrap(), "users.db-wal was removed"),
        ("log replaced", |data| replace(data, "users.db-wal"), "users.db-wal was replaced by another file"),
        ("index removed", |data| fs::remove_file(data.join("users.db-shm")).unwrap(), "users.db-shm was removed"),
        ("index replaced", |data| replace(data, "users.db-shm"), "users.db-shm was replaced by another file"),
        (
            "moved, with a link in its place",
            |data| {
                fs::create_dir(data.join("big")).unwrap();
                fs::rename(data.join("users.db"), data.join("big/users.db")).unwrap();
                symlink("big/users.db", data.join("users.db")).unwrap();
            },
            "big/users.db-wal was removed or moved away",
        ),
        (
            "a folder in its place",
            |data| {
                fs::remove_file(data.join("users.db")).unwrap();
                fs::create_dir(data.join("users.db")).unwrap();
            },
            "users.db was ",
        ),
    ];
    for (fate, take_away, cause) in fates {
        let server = Server::start().await;
        let john = format!("/api/users/{}", server.create("John").await);
        // From now on in memory, too.
        assert_eq!(server.get(&john).await.status, 200, "{fate}");

        take_away(&data(&server));
        let ready = becomes(&server, 503).await;

        assert_eq!(ready.problem().error_type, "store_unavailable", "{fate}");
        for (method, path) in [
            ("GET", john.as_str()),
            ("GET", "/api/users"),
            ("GET", "/api/users?limit=1"),
            ("POST", "/api/users?name=Jane&email=jane%40example.com"),
            ("PUT", &format!("{john}?name=Jane")),
            ("DELETE", &john),
        ] {
            let answer = server.send(method, path).await;
            assert_eq!(answer.status, 503, "{fate}: {method} {path}");
            assert_eq!(answer.problem().error_type, "store_unavailable", "{fate}: {method} {path}");
        }
        assert_eq!(server.get("/health").await.status, 200, "{fate}: a restart would make an empty database");
        let last = said_of(&server, cause).await;
        let said = lines(&server, LOST);
        assert!(!last["advice"].as_str().unwrap().is_empty(), "{fate}: {last}");
        assert_eq!(last["level"], "ERROR", "{fate}");
        assert!(said.len() == 1 || fate == "a folder in its place", "{fate}: {said:?}");
    }
}

#[tokio::test]
async fn a_link_that_leads_to_another_database_is_noticed() {
    let folder = folder_with(&[]);
    let link = folder.path().join("link.db");
    symlink("data/one.db", &link).unwrap();
    let server = Server::start_in(Arc::clone(&folder), &["--database-url", "sqlite://link.db"]).await;
    server.create("John").await;
    fs::copy(folder.path().join("data/one.db"), folder.path().join("data/two.db")).unwrap();

    symlink("data/two.db", folder.path().join("new")).unwrap();
    fs::rename(folder.path().join("new"), &link).unwrap();

    becomes(&server, 503).await;
    said_of(&server, "link.db was replaced by another file").await;
}

#[tokio::test]
async fn a_database_file_that_comes_back_as_it_was_is_used_again() {
    let server = Server::start().await;
    let john = server.create("John").await;
    let (place, away) = (data(&server).join("users.db"), data(&server).join("away.db"));

    for round in 1..=2 {
        fs::rename(&place, &away).unwrap();
        becomes(&server, 503).await;
        fs::rename(&away, &place).unwrap();
        becomes(&server, 200).await;

        let id = server.create(&format!("Round {round}")).await;
        assert!(id > john);
        assert_eq!(server.get(&format!("/api/users/{john}")).await.json()["name"], "John");
        assert_eq!(server.metrics().await.value("api_users", &[]), f64::from(1 + round));
        let said = || [LOST, BACK].map(|message| lines(&server, message).len());
        eventually("a word about each", async || (said() == [round as usize; 2]).then_some(())).await;
    }
}

#[tokio::test]
async fn a_database_file_that_was_changed_while_it_was_away_is_not_used_again() {
    let server = Server::start().await;
    server.create("John").await;
    let (place, away) = (data(&server).join("users.db"), data(&server).join("away.db"));

    fs::rename(&place, &away).unwrap();
    becomes(&server, 503).await;
    let changed = fs::read(&away).unwrap();
    fs::write(&away, changed).unwrap();
    fs::rename(&away, &place).unwrap();

    said_of(&server, "users.db was changed while it was away").await;
    assert_eq!(server.get("/ready").await.status, 503);
    assert_eq!(lines(&server, BACK), [Value::Null; 0]);
}

#[tokio::test]
async fn after_the_log_was_removed_a_clean_end_writes_all_that_was_acknowledged_into_the_database_file() {
    for files in [&["users.db-wal"][..], &["users.db-shm"], &["users.db-wal", "users.db-shm"]] {
        let mut server = Server::start().await;
        let acknowledged = fifty_users(&server).await;
        for file in files {
            fs::remove_file(data(&server).join(file)).unwrap();
        }
        becomes(&server, 503).await;

        server.signal(SIGTERM);
        assert!(server.exit().await.success(), "{files:?}");
        let again = Server::start_in(Arc::clone(&server.folder), &[]).await;

        assert_eq!(names(&again).await.len(), acknowledged, "{files:?}");
    }
}

#[tokio::test]
async fn the_clean_end_of_a_service_is_no_loss() {
    for _ in 0..10 {
        let mut server = Server::start().await;
        server.create("John").await;

        server.signal(SIGTERM);
        assert!(server.exit().await.success());

        assert_eq!(lines(&server, LOST), [Value::Null; 0]);
    }
}

/// As the runbook says it.
#[tokio::test]
async fn a_removed_database_can_be_saved_from_the_process_that_holds_it() {
    let mut server = Server::start().await;
    let acknowledged = fifty_users(&server).await;
    fs::remove_dir_all(data(&server)).unwrap();
    becomes(&server, 503).await;

    let commands = runbook::commands("The database file is gone");
    let commands =
        commands.replace("docker inspect -f '{{.State.Pid}}' api-monitoring", &format!("echo {}", server.pid()));
    let saved = tempfile::tempdir().unwrap();
    assert!(runbook::run(saved.path(), &commands).success(), "{commands}");
    server.signal(SIGTERM);
    server.exit().await;

    let folder = folder_with(&[(&saved.path().join("whole.db"), "users.db")]);
    assert_eq!(names(&Server::start_in(folder, &[]).await).await.len(), acknowledged);
}

// ---- Imports ----

#[tokio::test]
async fn an_import_into_a_database_file_that_is_removed_fails() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    command.args(["import", "-", "--format", "csv"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut import = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    let mut rows = import.stdin.take().unwrap();
    let chunk =
        |from: usize| (from..from + 5000).map(|n| format!("User {n},user{n}@example.com\n")).collect::<String>();

    rows.write_all(b"name,email\n").await.unwrap();
    rows.write_all(chunk(0).as_bytes()).await.unwrap();
    rows.write_all(chunk(5000).as_bytes()).await.unwrap();
    let log = folder.path().join("data/users.db-wal");
    let committed = || fs::metadata(&log).is_ok_and(|log| log.len() > 100_000).then_some(());
    eventually("the first rows in the log", async || committed()).await;
    fs::remove_file(folder.path().join("data/users.db")).unwrap();
    // More than one chunk, so that one is begun after the file was gone.
    for from in [10_000, 15_000, 20_000] {
        // It need not read on once it has failed.
        let _ = rows.write_all(chunk(from).as_bytes()).await;
    }
    drop(rows);
    let output = in_time("the end of the import", import.wait_with_output()).await.unwrap();

    let (said, outcome) = (String::from_utf8(output.stderr).unwrap(), String::from_utf8(output.stdout).unwrap());
    assert_eq!(output.status.code(), Some(1), "{said}{outcome}");
    assert!(said.contains("users.db was removed or moved away"), "{said}");
    assert!(outcome.contains("and did not get to the end"), "{outcome}");
    assert!(!outcome.contains("imported 25,000 rows"), "{outcome}");
}
