//! Start, drain and end of the process.

use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use futures_util::future::join_all;
use nix::sys::signal::Signal::{self, SIGINT, SIGTERM};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::durability::server_with_users;
use crate::support::{Answer, Process, Server, binary, client, eventually, finished, in_time};

/// Far beyond [`PATIENCE`](crate::support::PATIENCE): a process that waited for it would fail its test.
const FOREVER: &str = "1h";

/// A request whose body stops after its first byte.
const TRICKLED_BODY: &[u8] =
    b"POST /api/users HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\nContent-Length: 60\r\n\r\n{";

// ---- The end ----

#[tokio::test]
async fn the_first_signal_ends_the_process_cleanly() {
    for signal in [SIGTERM, SIGINT] {
        let mut server = Server::start().await;

        server.signal(signal);
        let status = server.exit().await;

        server.log_event("stopped").await;
        assert_eq!(status.code(), Some(0), "{signal}: {status}");
        assert_eq!(messages(&server), ["listening", "ready", "draining", "stopped"], "{signal}");
    }
}

#[tokio::test]
async fn during_the_drain_delay_the_service_is_unready_and_still_answers() {
    let server = Server::start_with(&["--drain-delay", FOREVER]).await;
    let id = server.create("John").await;

    server.signal(SIGTERM);

    server.log_event("draining").await;
    let unready =
        eventually("503 from /ready", async || Some(server.get("/ready").await).filter(|answer| answer.status == 503))
            .await;
    assert_eq!(unready.problem().error_type, "draining");
    assert_eq!(unready.header("retry-after"), "1");
    let user = format!("/api/users/{id}");
    for (method, path, status, reason) in [
        ("GET", "/health", 200, "the process is alive"),
        ("GET", "/metrics", 200, "the drain is worth watching"),
        ("GET", "/api/users", 200, "load balancers have not noticed yet"),
        ("POST", "/api/users?name=Jane&email=jane%40example.com", 201, "writes are still safe"),
        ("DELETE", user.as_str(), 204, "and so are these"),
    ] {
        // A client of its own has no connection yet: new ones are accepted.
        let answer = Answer::to(client().request(method.parse().unwrap(), server.url(path))).await;
        assert_eq!(answer.status, status, "{method} {path}: {reason}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_process_at_once() {
    for (first, second, code) in [(SIGTERM, SIGTERM, 143), (SIGINT, SIGINT, 130), (SIGTERM, SIGINT, 130)] {
        let mut server = Server::start_with(&["--drain-delay", FOREVER]).await;
        server.signal(first);
        server.log_event("draining").await;

        server.signal(second);
        let status = server.exit().await;

        assert_eq!(status.code(), Some(code), "{second} after {first}: {status}");
        eventually("the reason", async || {
            server.log().iter().any(|line| line.to_string().contains("ended at once by a second signal")).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_second_signal_does_not_wait_for_requests_in_flight() {
    let mut server = Server::start_with(&["--drain-timeout", FOREVER, "--request-timeout", FOREVER]).await;
    let mut endless = connect_and_send(&server, TRICKLED_BODY).await;
    server.in_progress("/api/users", 1).await;
    server.signal(SIGTERM);
    server.log_event("draining").await;

    server.signal(SIGTERM);
    let status = server.exit().await;

    assert_eq!(status.code(), Some(143), "{status}");
    assert_eq!(rest(&mut endless).await, b"", "no answer was made up");
}

#[tokio::test]
async fn a_request_in_flight_finishes_while_new_connections_are_refused() {
    let mut server = Server::start().await;
    let slow = tokio::spawn(Answer::to(server.request("GET", "/api/slow")));
    server.in_progress("/api/slow", 1).await;

    server.signal(SIGTERM);
    let refused = eventually("a refused connection", async || TcpStream::connect(&server.address).await.err()).await;
    let in_flight = !slow.is_finished();
    let answer = in_time("the slow answer", slow).await.unwrap();
    let status = server.exit().await;

    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(in_flight, "connections were refused only after the request had finished");
    assert_eq!(answer.status, 200);
    assert!(answer.json()["delay_seconds"].is_number());
    assert_eq!(status.code(), Some(0), "{status}");
    server.log_event("stopped").await;
    assert_eq!(above_info(&server), [json!(null); 0]);
}

#[tokio::test]
async fn a_request_that_outlasts_the_drain_timeout_is_cut() {
    let mut server = Server::start_with(&["--drain-timeout", "200ms"]).await;
    let slow = tokio::spawn(server.request("GET", "/api/slow").send());
    server.in_progress("/api/slow", 1).await;

    server.signal(SIGTERM);
    let status = server.exit().await;

    assert_eq!(status.code(), Some(0), "{status}");
    assert!(in_time("the end of the request", slow).await.unwrap().is_err(), "a cut request has no answer");
    let cut = server.log_event("the drain timed out; connections are cut").await;
    assert_eq!((&cut["level"], &cut["connections"]), (&json!("WARN"), &json!(1)));
    server.log_event("stopped").await;
    let records: Vec<_> = server.log().into_iter().filter(|event| event["route"] == "/api/slow").collect();
    assert_eq!(records.len(), 1, "{records:?}");
    assert_eq!(records[0]["status"], 499, "the cut request is on record");
}

#[tokio::test]
async fn a_listing_that_nobody_reads_is_cut_at_the_drain_timeout() {
    // 16 MB: more than the sockets on both sides hold, so the server waits for the reader.
    let mut server = server_with_users(60_000, &["--drain-timeout", "200ms"]).await;
    let mut reader = connect_and_send(&server, b"GET /api/users HTTP/1.1\r\nHost: api\r\n\r\n").await;
    in_time("a part of the listing", reader.read_exact(&mut [0; 1024])).await.unwrap();

    server.signal(SIGTERM);
    let status = server.exit().await;

    assert_eq!(status.code(), Some(0), "{status}");
    server.log_event("the drain timed out; connections are cut").await;
    server.log_event("stopped").await;
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_drain() {
    let mut server = Server::start_with(&["--drain-timeout", FOREVER]).await;
    let mut idle = BufReader::new(connect_and_send(&server, b"GET /health HTTP/1.1\r\nHost: api\r\n\r\n").await);
    in_time("the answer", idle.read_until(b'}', &mut Vec::new())).await.unwrap();

    server.signal(SIGTERM);
    let status = server.exit().await;

    assert_eq!(status.code(), Some(0), "{status}");
    server.log_event("stopped").await;
    assert_eq!(above_info(&server), [json!(null); 0]);
}

#[tokio::test]
async fn a_connection_that_never_sent_a_byte_does_not_hold_up_the_drain() {
    let mut server = Server::start_with(&["--drain-timeout", FOREVER]).await;
    let _silent = TcpStream::connect(&server.address).await.unwrap();
    // Connections are accepted in order: after this answer, the silent one is accepted.
    server.get("/health").await;

    server.signal(SIGTERM);
    let status = server.exit().await;

    assert_eq!(status.code(), Some(0), "{status}");
    server.log_event("stopped").await;
    assert_eq!(above_info(&server), [json!(null); 0]);
}

#[tokio::test]
async fn half_a_body_holds_up_the_drain_for_no_longer_than_its_timeout() {
    let mut server = Server::start_with(&["--drain-timeout", "200ms", "--request-timeout", FOREVER]).await;
    let _half = connect_and_send(&server, TRICKLED_BODY).await;
    server.in_progress("/api/users", 1).await;

    server.signal(SIGTERM);
    let status = server.exit().await;

    assert_eq!(status.code(), Some(0), "{status}");
    server.log_event("the drain timed out; connections are cut").await;
    server.log_event("stopped").await;
}

// ---- In between: clients that misbehave, handlers that panic ----

#[tokio::test]
async fn clients_that_trickle_do_not_hold_up_others() {
    let server = Server::start_with(&["--request-timeout", FOREVER]).await;
    let heads = join_all((0..50).map(|_| connect_and_send(&server, b"GET /api/users HT"))).await;
    let bodies = join_all((0..50).map(|_| connect_and_send(&server, TRICKLED_BODY))).await;
    server.in_progress("/api/users", 50).await;

    let id = server.create("John").await;
    let read = server.get(&format!("/api/users/{id}")).await;

    assert_eq!(read.status, 200);
    drop((heads, bodies));
    server.in_progress("/api/users", 0).await;
}

#[tokio::test]
async fn two_hundred_connections_dropped_at_once_leave_nothing_behind() {
    let server = Server::start().await;
    server.metrics().await;
    let files_before = open_files(&server);
    let silent = join_all((0..100).map(|_| connect_and_send(&server, b""))).await;
    let waiting =
        join_all((0..100).map(|_| connect_and_send(&server, b"GET /api/slow HTTP/1.1\r\nHost: a\r\n\r\n"))).await;
    server.in_progress("/api/slow", 100).await;

    drop((silent, waiting));

    server.in_progress("/api/slow", 0).await;
    let gone = [("method", "GET"), ("route", "/api/slow"), ("status", "499")];
    assert_eq!(server.metrics().await.value("http_requests_total", &gone), 100.0);
    eventually("no connection left open", async || (open_files(&server) <= files_before).then_some(())).await;
    server.create("John").await;
}

#[tokio::test]
async fn a_panic_in_a_handler_is_answered_500_and_the_process_lives_on() {
    let server = Server::start().await;
    let mut database = server.database().await;
    // An insert that silently inserts nothing is what the store rules out by `expect`: the one way to a panic that a
    // test can take from outside.
    let swallow = "CREATE TRIGGER swallow BEFORE INSERT ON users BEGIN SELECT RAISE(IGNORE); END";
    sqlx::raw_sql(swallow).execute(&mut database).await.unwrap();

    let answer = server.send("POST", "/api/users?name=John&email=john%40example.com").await;

    assert_eq!(answer.status, 500);
    assert_eq!(answer.problem().error_type, "panic");
    assert_eq!(answer.problem().detail, "the service failed to answer", "internals are for the log");
    let panic = eventually("an event with a source location", async || {
        server.log().into_iter().find(|event| event["location"].is_string())
    })
    .await;
    assert_eq!((&panic["level"], &panic["message"]), (&json!("ERROR"), &json!("panic")), "{panic}");
    assert!(panic["location"].as_str().unwrap().starts_with("src/"), "{panic}");
    let failed = server.log_event("request failed").await;
    assert_eq!(failed["request_id"], answer.header("x-request-id"));
    assert!(failed["cause"].as_str().unwrap().starts_with("a handler panicked: "), "{failed}");
    let samples = server.metrics().await;
    let post = [("method", "POST"), ("route", "/api/users")];
    assert_eq!(samples.value("http_requests_in_progress", &post), 0.0);
    assert_eq!(samples.value("http_requests_total", &[post[0], post[1], ("status", "500")]), 1.0);
    assert_eq!(samples.value("api_errors_total", &[("error_type", "panic")]), 1.0);
    sqlx::raw_sql("DROP TRIGGER swallow").execute(&mut database).await.unwrap();
    server.create("John").await;
}

// ---- The start ----

#[tokio::test]
async fn an_address_that_cannot_be_listened_on_stops_the_start_before_anything_is_written() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (address, reason) in [
        (taken.as_str(), "Address already in use"),
        // TEST-NET-1 (RFC 5737): nobody's address.
        ("192.0.2.1:8000", "Cannot assign requested address"),
    ] {
        let folder = tempfile::tempdir().unwrap();

        let sentence = refusal(folder.path(), &["--listen", address]).await;

        assert!(sentence.starts_with(&format!("cannot listen on {address} (--listen, API_LISTEN)")), "{sentence}");
        assert!(sentence.contains(reason), "{sentence}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{address}: something was written");
    }
}

#[tokio::test]
async fn a_database_that_cannot_be_created_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    for (url, reason) in [
        ("sqlite://file/users.db", "its folder is a file"),
        ("sqlite://file/deeper/users.db", "its folder would lie below a file"),
        ("sqlite:///proc/nope/users.db", "its folder cannot be created"),
        ("sqlite:///proc/users.db", "its folder takes no files"),
        ("sqlite://.", "it is a folder"),
    ] {
        let sentence = refusal(folder.path(), &["--database-url", url]).await;

        assert!(sentence.contains(url), "{reason}: {sentence}");
        assert!(sentence.contains("cannot be"), "{reason}: {sentence}");
        assert_eq!(std::fs::read(&file).unwrap(), b"precious", "{reason}");
    }
}

#[tokio::test]
async fn a_corrupt_database_stops_the_start_and_is_left_as_it_is() {
    let mut server = Server::start().await;
    for _ in 0..200 {
        server.create(&"x".repeat(200)).await;
    }
    server.signal(SIGTERM);
    server.exit().await;
    let file = server.folder.path().join("data/users.db");
    let whole = std::fs::read(&file).unwrap();
    let half = whole.len() / 2;
    let page = 4096;
    let mut noise = vec![0; whole.len()];
    StdRng::seed_from_u64(1).fill(&mut noise[..]);
    for (bytes, reason) in [
        (noise.clone(), "random bytes"),
        (b"id,name,email\n1,John,john@example.com\n".repeat(100), "text"),
        (whole[..half / page * page].to_vec(), "cut to half, between two pages"),
        (whole[..half / page * page + 100].to_vec(), "cut to half, within a page"),
        ([&whole[..page], &vec![0; whole.len() - page]].concat(), "nothing left but its first page"),
        ([&whole[..100], &noise[100..]].concat(), "nothing left but its header"),
    ] {
        std::fs::write(&file, &bytes).unwrap();

        let sentence = refusal(server.folder.path(), &[]).await;

        assert!(sentence.contains("corrupt"), "{reason}: {sentence}");
        assert!(sentence.contains("sqlite://data/users.db"), "{reason}: {sentence}");
        assert!(std::fs::read(&file).unwrap() == bytes, "{reason}: the file was changed");
    }
}

#[tokio::test]
async fn a_database_of_a_newer_version_stops_the_start_and_is_left_as_it_is() {
    let mut server = Server::start().await;
    server.create("John").await;
    server.signal(SIGTERM);
    server.exit().await;
    let mut database = server.database().await;
    let migration = "INSERT INTO _sqlx_migrations VALUES (9999, 'from the future', '', true, x'00', 0)";
    sqlx::raw_sql(migration).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    let file = server.folder.path().join("data/users.db");
    let before = std::fs::read(&file).unwrap();

    let sentence = refusal(server.folder.path(), &[]).await;

    assert!(sentence.contains("newer version"), "{sentence}");
    assert!(sentence.contains("sqlite://data/users.db"), "{sentence}");
    assert!(std::fs::read(&file).unwrap() == before, "the file was changed");
}

#[tokio::test]
async fn a_database_of_another_program_stops_the_start_and_is_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("theirs.db");
    let mut database = SqliteConnectOptions::new().filename(&file).create_if_missing(true).connect().await.unwrap();
    let theirs = "CREATE TABLE users (login TEXT PRIMARY KEY, password TEXT); INSERT INTO users VALUES ('j', 'x')";
    sqlx::raw_sql(theirs).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    let before = std::fs::read(&file).unwrap();

    let sentence = refusal(folder.path(), &["--database-url", "sqlite://theirs.db"]).await;

    assert!(sentence.contains("schema"), "the reason is what is in the file: {sentence}");
    assert!(std::fs::read(&file).unwrap() == before, "the file was changed");
}

#[tokio::test]
async fn a_database_that_another_program_holds_stops_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let _lock = locked_database(folder.path()).await;

    let sentence = refusal(folder.path(), &["--database-url", "sqlite://users.db"]).await;

    assert!(sentence.contains("sqlite://users.db is locked by another program"), "{sentence}");
}

#[tokio::test]
async fn while_the_database_opens_the_service_answers_and_a_signal_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let _lock = locked_database(folder.path()).await;
    let mut process = serve(folder.path(), &["--database-url", "sqlite://users.db"]);
    let listening: Value = serde_json::from_str(&process.line("listening").await).unwrap();
    let ask = async |method: &str, path: &str| {
        let url = format!("http://{}{path}", listening["address"].as_str().unwrap());
        Answer::to(client().request(method.parse().unwrap(), url)).await
    };

    let health = ask("GET", "/health").await;
    let unready = ask("GET", "/ready").await;
    let list = ask("GET", "/api/users").await;
    let create = ask("POST", "/api/users?name=John&email=john%40example.com").await;
    process.signal(SIGTERM);
    let status = process.exit().await;

    assert_eq!(health.status, 200);
    for answer in [unready, list, create] {
        assert_eq!(answer.status, 503);
        assert_eq!(answer.problem().error_type, "starting");
        assert_eq!(answer.header("retry-after"), "1");
    }
    // The lock still holds: had the process waited for the database, it would have failed with 1.
    assert_eq!(status.code(), Some(0), "{status}: {:?}", process.lines());
    process.line("stopped").await;
}

#[tokio::test]
async fn a_signal_at_any_moment_of_the_start_ends_the_process_without_a_failure() {
    let folder = tempfile::tempdir().unwrap();
    for moment in ["", "listening", "ready"].repeat(5) {
        let mut process = serve(folder.path(), &[]);
        if !moment.is_empty() {
            process.line(moment).await;
        }

        process.signal(SIGTERM);
        let status = process.exit().await;

        // Before the process catches signals, the system ends it.
        let by_the_system = moment.is_empty() && status.signal() == Some(Signal::SIGTERM as i32);
        assert!(by_the_system || status.code() == Some(0), "{moment:?}: {status}: {:?}", process.lines());
    }
}

// ---- Helpers ----

fn messages(server: &Server) -> Vec<String> {
    server.log().iter().map(|event| event["message"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Warnings, errors, and whatever is no log event.
fn above_info(server: &Server) -> Vec<Value> {
    server.log().into_iter().filter(|event| event["level"] != "INFO").collect()
}

fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap().count()
}

async fn connect_and_send(server: &Server, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// What is still to be read; a connection that was reset has nothing more to say.
async fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = in_time("the end of the connection", stream.read_to_end(&mut bytes)).await;
    bytes
}

/// A server that need not become ready.
fn serve(folder: &Path, arguments: &[&str]) -> Process {
    let mut command = binary(folder);
    command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]).args(arguments);
    Process::spawn(command)
}

/// A start that fails; gives the one sentence that it says, without the program's name.
async fn refusal(folder: &Path, arguments: &[&str]) -> String {
    let mut command = binary(folder);
    if !arguments.contains(&"--listen") {
        command.env("API_LISTEN", "127.0.0.1:0");
    }
    command.args(["serve", "--log", "warn"]).args(arguments);
    let output = finished(command).await;
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
    let sentence = stderr.strip_prefix("api-monitoring: ").and_then(|said| said.strip_suffix('\n'));
    let sentence = sentence.unwrap_or_else(|| panic!("{arguments:?}: no sentence of ours: {stderr}"));
    assert!(!sentence.contains('\n'), "{arguments:?}: more than one line: {stderr}");
    sentence.to_owned()
}

/// Creates `users.db` and keeps everybody else out of it until the connection is dropped.
async fn locked_database(folder: &Path) -> sqlx::SqliteConnection {
    let options = SqliteConnectOptions::new().filename(folder.join("users.db")).create_if_missing(true);
    let mut connection = options.connect().await.unwrap();
    sqlx::raw_sql("BEGIN EXCLUSIVE").execute(&mut connection).await.unwrap();
    connection
}
