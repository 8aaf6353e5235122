//! The store, seen from outside: nothing acknowledged is lost, and listings stay small in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::future::{join, join_all};
use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Deserialize;
use serde_json::Value;
use sqlx::Connection;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;

use crate::support::{BINARY, Process, Server, client, encode, eventually, in_time};

const MIB: u64 = 1024 * 1024;

const EMAIL: &str = "john%40example.com";

/// A listing, with as much of it as the tests look at.
#[derive(Deserialize)]
struct Listing {
    users: Vec<Listed>,
    count: usize,
}

#[derive(Deserialize)]
struct Listed {
    id: i64,
    name: String,
}

impl Listing {
    async fn of(server: &Server) -> Self {
        let answer = server.get("/api/users").await;
        assert_eq!(answer.status, 200);
        serde_json::from_slice(&answer.body).unwrap()
    }

    fn names(self) -> BTreeMap<i64, String> {
        let users = self.users.len();
        let names: BTreeMap<_, _> = self.users.into_iter().map(|user| (user.id, user.name)).collect();
        assert_eq!(names.len(), users, "an id is listed twice");
        names
    }
}

/// Starts with that many users of about 270 bytes each in the listing, written past the API to be quick.
pub async fn server_with_users(users: u32, arguments: &[&str]) -> Server {
    let mut empty = Server::start().await;
    empty.signal(SIGTERM);
    empty.exit().await;
    let mut database = empty.database().await;
    let fill = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?) \
                INSERT INTO users (name, email) SELECT printf('%0200d', n), 'user' || n || '@example.com' FROM numbers";
    sqlx::query(fill).bind(users).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    Server::start_in(Arc::clone(&empty.folder), arguments).await
}

// ---- Acknowledged writes ----

/// What one client knows of the users that it alone writes.
struct Ledger {
    writer: u32,
    rng: StdRng,
    names_given: u32,
    /// By id, the name that was acknowledged last.
    users: BTreeMap<i64, String>,
    deleted: BTreeSet<i64>,
    /// The change that was sent and never answered: it may have been made or not.
    unanswered: Option<Change>,
}

#[derive(Clone)]
enum Change {
    Create(String),
    Update(i64, String),
    Delete(i64),
}

impl Ledger {
    fn new(writer: u32) -> Self {
        let rng = StdRng::seed_from_u64(writer.into());
        Self { writer, rng, names_given: 0, users: BTreeMap::new(), deleted: BTreeSet::new(), unanswered: None }
    }

    /// The next change: mostly creations, and changes of users that there are.
    fn next(&mut self) -> Change {
        // Unique, so that a user can be told by its name when its id was never answered.
        self.names_given += 1;
        let name = format!("writer {} name {}", self.writer, self.names_given);
        let choice = self.rng.random_range(0..10);
        let user = self.rng.random_range(0..self.users.len().max(1));
        match self.users.keys().nth(user).copied() {
            Some(id) if choice < 3 => Change::Update(id, name),
            Some(id) if choice < 5 => Change::Delete(id),
            _ => Change::Create(name),
        }
    }

    /// Sends changes until the server goes away; counts the answers.
    async fn write_to(&mut self, server: &Server, acknowledged: &AtomicU32) {
        loop {
            let change = self.next();
            let request = match &change {
                Change::Create(name) => {
                    server.request("POST", &format!("/api/users?name={}&email={EMAIL}", encode(name)))
                }
                Change::Update(id, name) => server.request("PUT", &format!("/api/users/{id}?name={}", encode(name))),
                Change::Delete(id) => server.request("DELETE", &format!("/api/users/{id}")),
            };
            self.unanswered = Some(change.clone());
            let Ok(response) = request.send().await else { return };
            self.unanswered = None;
            match change {
                Change::Create(name) => {
                    assert_eq!(response.status(), 201);
                    let location = response.headers()["location"].to_str().unwrap();
                    let id = location.strip_prefix("/api/users/").unwrap().parse().unwrap();
                    assert!(self.users.insert(id, name).is_none(), "id {id} was given twice");
                }
                Change::Update(id, name) => {
                    assert_eq!(response.status(), 200);
                    self.users.insert(id, name);
                }
                Change::Delete(id) => {
                    assert_eq!(response.status(), 204);
                    self.users.remove(&id);
                    self.deleted.insert(id);
                }
            }
            acknowledged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Settles, after a restart, whether the unanswered change was made. Either is right, nothing else is.
    fn settle(&mut self, listed: &BTreeMap<i64, String>) {
        match self.unanswered.take() {
            Some(Change::Create(name)) => {
                let made = listed.iter().find(|(_, listed)| **listed == name);
                self.users.extend(made.map(|(id, name)| (*id, name.clone())));
            }
            Some(Change::Update(id, name)) if listed.get(&id) == Some(&name) => drop(self.users.insert(id, name)),
            Some(Change::Delete(id)) if !listed.contains_key(&id) => {
                self.users.remove(&id);
                self.deleted.insert(id);
            }
            _ => {}
        }
    }
}

#[tokio::test]
async fn acknowledged_writes_survive_the_end_of_the_process() {
    let mut rng = StdRng::seed_from_u64(1);
    let mut server = Server::start().await;
    let mut ledgers: Vec<Ledger> = (0..8).map(Ledger::new).collect();
    let mut highest_id = 0;
    for (round, end) in [SIGKILL, SIGKILL, SIGTERM, SIGKILL, SIGKILL].into_iter().enumerate() {
        let acknowledged = AtomicU32::new(0);
        let enough = rng.random_range(50..300);
        let known = |ledger: &Ledger| ledger.users.keys().chain(&ledger.deleted).copied().collect::<Vec<_>>();
        let known: BTreeSet<i64> = ledgers.iter().flat_map(known).collect();

        let writing = join_all(ledgers.iter_mut().map(|ledger| ledger.write_to(&server, &acknowledged)));
        let ending = async {
            let count = || acknowledged.load(Ordering::Relaxed);
            eventually("enough answers", async || (count() >= enough).then_some(())).await;
            server.signal(end);
        };
        join(writing, ending).await;
        server.exit().await;
        server = Server::start_in(Arc::clone(&server.folder), &[]).await;

        let listed = Listing::of(&server).await.names();
        ledgers.iter_mut().for_each(|ledger| ledger.settle(&listed));
        let expected: BTreeMap<_, _> = ledgers.iter().flat_map(|ledger| ledger.users.clone()).collect();
        assert_eq!(listed, expected, "round {round}, {end}");
        assert_eq!(count(&server).await, listed.len(), "round {round}, {end}: api_users");
        let deleted: BTreeSet<i64> = ledgers.iter().flat_map(|ledger| ledger.deleted.iter().copied()).collect();
        let created: Vec<i64> = expected.keys().chain(&deleted).copied().filter(|id| !known.contains(id)).collect();
        assert!(listed.keys().all(|id| !deleted.contains(id)), "round {round}, {end}: an id was used again");
        assert!(created.iter().all(|id| *id > highest_id), "round {round}, {end}: an id was used again");
        highest_id = created.into_iter().max().unwrap_or(highest_id);
    }
}

/// A limit on the size of files stands for a full disk: what would grow a file beyond it fails in the same place.
#[tokio::test]
async fn writes_fail_while_the_disk_is_full_and_work_again_when_there_is_room() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new("bash");
    // The signal that comes with such a write is ignored, so that the write itself fails.
    let limited = format!("trap '' XFSZ; ulimit -S -f 200; exec {BINARY} --listen 127.0.0.1:0 --log-format json");
    command.args(["-c", &limited]).current_dir(folder.path());
    let process = Process::spawn(command);
    let listening: Value = serde_json::from_str(&process.line("\"listening\"").await).unwrap();
    process.line("\"ready\"").await;
    let users = format!("http://{}/api/users", listening["address"].as_str().unwrap());
    let client = client();
    let create = async || client.post(format!("{users}?name=John&email={EMAIL}")).send().await.unwrap().status();

    let mut acknowledged = 0;
    let full = loop {
        match create().await.as_u16() {
            201 => acknowledged += 1,
            status => break status,
        }
    };
    let still_full = create().await;
    let room = ["--pid", &process.pid().to_string(), "--fsize=unlimited"];
    assert!(Command::new("prlimit").args(room).status().unwrap().success());
    let again = create().await;

    assert_eq!((full, still_full.as_u16()), (500, 500));
    assert_eq!(again, 201);
    let listing: Value = client.get(&users).send().await.unwrap().json().await.unwrap();
    assert_eq!(listing["count"], acknowledged + 1, "what was acknowledged, and nothing else");
}

#[tokio::test]
async fn after_a_burst_the_log_gives_its_disk_space_back() {
    let server = Server::start().await;
    let size = || std::fs::metadata(server.folder.path().join("data/users.db-wal")).unwrap().len();
    let mut database = server.database().await;
    let burst = "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 100000) \
                 INSERT INTO users (name, email) SELECT printf('%0200d', n), 'john@example.com' FROM numbers";
    sqlx::raw_sql(burst).execute(&mut database).await.unwrap();
    let largest = size();
    assert!(largest > 20 * MIB, "{largest} bytes are no burst");

    eventually("a smaller log", async || {
        server.create("John").await;
        (size() <= 8 * MIB).then_some(())
    })
    .await;

    assert_eq!(count(&server).await, Listing::of(&server).await.count);
}

#[tokio::test]
async fn the_id_of_a_deleted_user_is_not_used_again_after_a_restart() {
    for end in [SIGKILL, SIGTERM] {
        let mut server = Server::start().await;
        let highest = server.create("John").await;
        assert_eq!(server.send("DELETE", &format!("/api/users/{highest}")).await.status, 204);

        server.signal(end);
        server.exit().await;
        let again = Server::start_in(Arc::clone(&server.folder), &[]).await;

        assert!(again.create("Jane").await > highest, "{end}");
    }
}

#[tokio::test]
async fn concurrent_creations_are_all_made_each_with_its_own_id() {
    for (arguments, reason) in [
        (&[][..], "a file, several writes to a commit"),
        (&["--database-url", "sqlite::memory:"], "memory, which readers and the writer share"),
    ] {
        let server = Server::start_with(arguments).await;

        let ids = join_all((0..64).map(|number| {
            let server = &server;
            async move {
                let id = server.create(&format!("User {number}")).await;
                // Readers and the writer meet.
                assert_eq!(server.get(&format!("/api/users/{id}")).await.status, 200, "{reason}");
                (id, format!("User {number}"))
            }
        }))
        .await;

        let ids: BTreeMap<i64, String> = ids.into_iter().collect();
        assert_eq!(ids.len(), 64, "{reason}");
        assert_eq!(Listing::of(&server).await.names(), ids, "{reason}");
        assert_eq!(server.metrics().await.value("api_users_registered_total", &[]), 64.0, "{reason}");
        assert_eq!(count(&server).await, 64, "{reason}");
    }
}

#[tokio::test]
async fn without_a_setting_users_are_kept_in_the_folder_data() {
    let mut server = Server::start().await;
    let id = server.create("John").await;
    let file = server.folder.path().join("data/users.db");

    server.signal(SIGTERM);
    server.exit().await;
    let after_stop = std::fs::read(&file).unwrap();
    let files = std::fs::read_dir(server.folder.path().join("data")).unwrap().count();
    let again = Server::start_in(Arc::clone(&server.folder), &[]).await;

    assert!(after_stop.starts_with(b"SQLite format 3\0"));
    assert_eq!(files, 1, "a clean end leaves one file, which can be copied as a backup");
    assert_eq!(again.get(&format!("/api/users/{id}")).await.json()["name"], "John");
    assert_eq!(count(&again).await, 1);
}

#[tokio::test]
async fn users_in_memory_leave_no_file() {
    let server = Server::start_with(&["--database-url", "sqlite::memory:"]).await;

    server.create("John").await;

    assert_eq!(Listing::of(&server).await.count, 1);
    assert_eq!(std::fs::read_dir(server.folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn users_that_another_program_writes_are_served_and_counted() {
    let server = Server::start().await;
    server.create("John").await;
    let mut database = server.database().await;

    let theirs = "INSERT INTO users (name, email) VALUES ('Jane', 'jane@example.com')";
    sqlx::raw_sql(theirs).execute(&mut database).await.unwrap();

    assert_eq!(Listing::of(&server).await.count, 2);
    eventually("2 users in api_users", async || (count(&server).await == 2).then_some(())).await;
}

// ---- Listings ----

#[tokio::test]
async fn listing_all_of_a_large_table_takes_no_memory_for_it() {
    const USERS: usize = 200_000;
    let server = server_with_users(USERS.try_into().unwrap(), &[]).await;
    server.get("/api/users?limit=1000").await;
    let before = server.memory_kib("VmHWM");

    let answer = server.get("/api/users").await;
    let grown = server.memory_kib("VmHWM") - before;

    assert!(answer.body.len() > 50_000_000, "{} bytes prove nothing", answer.body.len());
    let listing: Listing = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(listing.count, USERS);
    assert!(listing.users.iter().map(|user| user.id).eq(1..=200_000), "each user once, ordered by id");
    assert!(grown < 16 * 1024, "the peak grew by {grown} KiB for a listing of {} bytes", answer.body.len());
}

#[tokio::test]
async fn a_reader_that_stops_reading_does_not_hold_up_writers() {
    let server = server_with_users(60_000, &[]).await;
    let mut reader = open_listing(&server).await;
    in_time("a part of the listing", reader.read_exact(&mut [0; 1024])).await.unwrap();

    let first = in_time("a creation", server.create("during the listing")).await;
    let ids = in_time("creations", join_all((0..200).map(|_| server.create("during the listing")))).await;
    let deleted = server.send("DELETE", "/api/users/60000").await;

    assert_eq!(ids.len(), 200);
    assert_eq!(deleted.status, 204);
    let mut listing = Vec::new();
    in_time("the rest of the listing", reader.read_to_end(&mut listing)).await.unwrap();
    let listing = String::from_utf8(listing).unwrap();
    assert!(listing.contains(&format!(r#"{{"id":{first},"#)), "a user created while the listing ran comes at its end");
    assert!(!listing.contains(r#"{"id":60000,"#), "a user deleted before the listing came to it is not in it");
}

#[tokio::test]
async fn a_reader_that_takes_nothing_for_long_is_cut() {
    // More than the sockets between the two can hold, so that the server has to wait for its reader.
    let server = server_with_users(60_000, &[]).await;
    let open = async || server.metrics().await.value("process_open_fds", &[]);
    let before = open().await;
    let mut reader = open_listing(&server).await;
    in_time("a part of the listing", reader.read_exact(&mut [0; 1024])).await.unwrap();
    assert_eq!(open().await, before + 1.0, "its connection is open");

    // After 30 s (`WRITE_TIMEOUT` in src/server/patience.rs).
    eventually("the end of its connection", async || (open().await == before).then_some(())).await;

    let mut rest = Vec::new();
    let end = in_time("the end of what was sent", reader.read_to_end(&mut rest)).await;
    assert!(end.is_err() || !rest.ends_with(b"}"), "the listing was whole");
}

#[tokio::test]
async fn clients_that_break_a_listing_off_leave_the_server_healthy() {
    let server = server_with_users(60_000, &[]).await;

    let readers = join_all((0..20).map(|_| async {
        let mut reader = open_listing(&server).await;
        in_time("a part of the listing", reader.read_exact(&mut [0; 1024])).await.unwrap();
        reader
    }))
    .await;
    drop(readers);

    server.in_progress("/api/users", 0).await;
    assert_eq!(Listing::of(&server).await.count, 60_000);
    assert_eq!(server.get("/ready").await.status, 200);
    server.create("John").await;
    assert_eq!(errors(&server), [""; 0]);
}

/// Asks for all users over a connection that takes little at a time, and ends after the answer.
async fn open_listing(server: &Server) -> tokio::net::TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let mut stream = socket.connect(server.address.parse().unwrap()).await.unwrap();
    stream.write_all(b"GET /api/users HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n").await.unwrap();
    stream
}

/// The number of users that `/metrics` shows.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of users is neither")]
async fn count(server: &Server) -> usize {
    server.metrics().await.value("api_users", &[]) as usize
}

/// The messages of errors. Warnings are left out: on a busy machine, sqlx warns of each read that waited for long.
fn errors(server: &Server) -> Vec<String> {
    let log = server.log();
    log.iter().filter(|event| event["level"] == "ERROR").map(|event| event["message"].to_string()).collect()
}
