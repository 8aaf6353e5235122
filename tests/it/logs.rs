//! Log lines, for people and for machines.

use std::net::Ipv4Addr;
use std::process::{ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::Connection;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr};

use crate::support::{Answer, Process, Server, binary, client, eventually, in_time};

const CREATE: &str = "/api/users?name=John&email=john%40example.com";

// ---- One line per request ----

#[tokio::test]
async fn each_request_is_one_json_line_that_says_what_was_asked_and_answered() {
    let server = Server::start().await;
    let cases = [
        ("POST", CREATE, "POST", "/api/users", 201, "a success"),
        ("GET", "/api/users/1", "GET", "/api/users/{id}", 200, "the route is a template"),
        ("HEAD", "/api/users", "HEAD", "/api/users", 200, "HEAD is itself"),
        ("GET", "/api/users/7", "GET", "/api/users/{id}", 404, "a user that does not exist"),
        ("GET", "/api/users/x", "GET", "/api/users/{id}", 422, "an id that is none"),
        ("POST", "/api/users", "POST", "/api/users", 422, "nothing given"),
        ("PATCH", "/api/users", "PATCH", "/api/users", 405, "a wrong method"),
        ("BREW", "/api/users", "OTHER", "/api/users", 405, "a method outside the standard ones"),
        ("GET", "/nope", "GET", "unmatched", 404, "an unknown path"),
        ("GET", "/api/error", "GET", "/api/error", 500, "a failure"),
        ("GET", "/health", "GET", "/health", 200, "a probe"),
        ("GET", "/metrics", "GET", "/metrics", 200, "the scrape, which is not in the metrics"),
        ("DELETE", "/api/users/1", "DELETE", "/api/users/{id}", 204, "an answer without a body"),
    ];
    for (method, path, logged_method, route, status, reason) in cases {
        let answer = server.send(method, path).await;

        let id = answer.header("x-request-id");
        let line = request_line(&server, id).await;
        assert_eq!(answer.status, status, "{reason}");
        assert_eq!(
            (&line["method"], &line["route"], &line["status"], &line["level"], &line["message"], &line["target"]),
            (
                &json!(logged_method),
                &json!(route),
                &json!(status),
                &json!("INFO"),
                &json!("request"),
                &json!("http_request"),
            ),
            "{reason}"
        );
        assert!((0.0..60_000.0).contains(&line["latency_ms"].as_f64().unwrap()), "{reason}: {line}");
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'), "{reason}: {line}");
    }
    let lines = server.log().iter().filter(|event| event["message"] == "request").count();
    assert_eq!(lines, cases.len(), "one line per request");
}

#[tokio::test]
async fn a_request_is_logged_under_the_id_that_its_client_chose() {
    let server = Server::start().await;
    let request = server.request("GET", "/health").header("X-Request-Id", "trace-7");

    let answer = Answer::to(request).await;

    assert_eq!(answer.header("x-request-id"), "trace-7");
    assert_eq!(request_line(&server, "trace-7").await["route"], "/health");
}

#[tokio::test]
async fn a_client_that_hangs_up_is_logged_with_status_499() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    stream.write_all(b"GET /api/slow HTTP/1.1\r\nHost: api\r\nX-Request-Id: gone\r\n\r\n").await.unwrap();
    server.in_progress("/api/slow", 1).await;

    drop(stream);

    let line = request_line(&server, "gone").await;
    assert_eq!((&line["route"], &line["status"], &line["level"]), (&json!("/api/slow"), &json!(499), &json!("INFO")));
    assert!(line["latency_ms"].as_f64().unwrap() < 3000.0, "{line}");
}

// ---- The text format ----

#[tokio::test]
async fn text_lines_are_for_reading_without_colours_in_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    command.args(["--listen", "127.0.0.1:0"]);
    let mut process = Process::spawn(command);
    process.line("ready").await;
    let listening = process.line("listening").await;
    let (_, address) = listening.split_once("address=").unwrap();

    let answer = Answer::to(client().get(format!("http://{address}/api/users/7"))).await;

    let line = process.line("request").await;
    let (_, fields) = line.split_once(" INFO http_request: request ").unwrap_or_else(|| panic!("{line:?}"));
    let names: Vec<&str> = fields.split(' ').map(|field| field.split_once('=').unwrap().0).collect();
    assert_eq!(names, ["method", "route", "status", "latency_ms", "request_id"], "{line:?}");
    let id = answer.header("x-request-id");
    let begin = r#"method="GET" route="/api/users/{id}" status=404 latency_ms="#;
    assert!(fields.starts_with(begin) && fields.ends_with(&format!("request_id=\"{id}\"")), "{line:?}");
    process.signal(Signal::SIGTERM);
    process.exit().await;
    process.line("stopped").await;
    for line in process.lines() {
        assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        assert!(line.starts_with("20"), "a line begins with its time: {line:?}");
    }
}

// ---- What is not said ----

#[tokio::test]
async fn what_clients_write_never_reaches_the_log() {
    const WORD: &str = "Zanzibar";
    let server = Server::start().await;
    let id = server.create("Zanzibar").await;
    let user = format!("/api/users/{id}?email=zanzibar%40example.com");
    let json = r#"{"name": "Zanzibar", "email": "zanzibar@example.com"}"#;
    let cases = [
        ("POST", "/api/users?name=Zanzibar&email=zanzibar%40example.com", "", 201, "in a query"),
        ("POST", "/api/users", json, 201, "in a body"),
        ("PUT", user.as_str(), "", 200, "in a change"),
        ("POST", "/api/users?name=Zanzibar&email=zanzibar", "", 422, "in an address that is none"),
        ("POST", "/api/users?zanzibar=1", "", 422, "in the name of a parameter"),
        ("POST", "/api/users?name=%zzZanzibar", "", 400, "in broken percent-encoding"),
        ("POST", "/api/users", "{Zanzibar", 400, "in broken JSON"),
        ("POST", "/api/users", r#"{"zanzibar": 1}"#, 422, "in the name of a member"),
        ("GET", "/zanzibar", "", 404, "in an unknown path"),
        ("GET", "/api/users/Zanzibar", "", 422, "in an id"),
        ("GET", "/docs/zanzibar", "", 404, "in the name of a file"),
        ("ZANZIBAR", "/api/users", "", 405, "in a method"),
    ];

    for (method, path, body, status, reason) in &cases {
        let mut request = server
            .request(method, path)
            .header("User-Agent", WORD)
            .header("Authorization", WORD)
            .header("Cookie", WORD)
            // Not a sane id, because of the blank.
            .header("X-Request-Id", "Zan zibar Zanzibar");
        if !body.is_empty() {
            request = request.header("Content-Type", "application/json").body(*body);
        }
        let answer = Answer::to(request).await;
        assert_eq!(answer.status, *status, "{reason}: {}", answer.text());
        request_line(&server, answer.header("x-request-id")).await;
    }
    let media_type = server.request("POST", "/api/users").header("Content-Type", WORD).body("Zanzibar");
    let media_type = Answer::to(media_type).await;

    assert_eq!(media_type.status, 415);
    request_line(&server, media_type.header("x-request-id")).await;
    for event in server.log() {
        assert!(!event.to_string().to_lowercase().contains("zanzibar"), "{event}");
    }
}

#[tokio::test]
async fn a_fault_of_the_clients_is_no_error_of_ours() {
    let server = Server::start().await;

    server.get("/nope").await;
    server.get("/api/users/x").await;
    server.send("PATCH", "/api/users").await;
    Answer::to(server.request("POST", "/api/users").header("Content-Type", "application/json").body("{")).await;
    // A body that is no valid chunked encoding.
    let broken = b"POST /api/users HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\n\
                   Transfer-Encoding: chunked\r\nX-Request-Id: broken\r\n\r\nnot a length\r\n";
    server.exchange(broken).await;

    assert_eq!(request_line(&server, "broken").await["status"], 400);
    // The events of one request are written together; one more request shows that nothing followed the last.
    let last = server.get("/health").await;
    request_line(&server, last.header("x-request-id")).await;
    let faults: Vec<Value> = server.log().into_iter().filter(|event| event["level"] != "INFO").collect();
    assert_eq!(faults, [json!(null); 0]);
}

#[tokio::test]
async fn the_level_warn_silences_requests_and_all_else_that_is_well() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing tells which port was taken at this level. All of 127.0.0.0/8 is this machine (on Linux), and this
    // process's number makes an address that is nobody else's.
    let address = format!("{}:8000", Ipv4Addr::from_bits(0x7f00_0000 | (std::process::id() & 0x00ff_ffff)));
    let mut command = binary(folder.path());
    command.args(["--listen", &address]).env("RUST_LOG", "warn");
    let mut process = Process::spawn(command);
    let client = client();
    let ask = async |path: &str| client.get(format!("http://{address}{path}")).send().await;
    eventually("an answer", async || ask("/ready").await.ok().filter(|answer| answer.status() == 200)).await;

    let error = ask("/api/error").await.unwrap();
    process.signal(Signal::SIGTERM);
    let status = process.exit().await;

    assert_eq!(error.status(), 500);
    assert_eq!(status.code(), Some(0));
    assert_eq!(process.lines(), [""; 0]);
}

#[tokio::test]
async fn request_lines_can_be_silenced_alone() {
    let mut server = Server::start_with(&["--log", "info,http_request=warn"]).await;

    server.create("John").await;
    server.signal(Signal::SIGTERM);
    server.exit().await;

    server.log_event("stopped").await;
    let messages: Vec<Value> = server.log().into_iter().map(|event| event["message"].clone()).collect();
    assert_eq!(messages, ["listening", "ready", "draining", "stopped"]);
}

// ---- Failures ----

#[tokio::test]
async fn a_failure_of_the_store_is_logged_with_its_cause() {
    let server = Server::start().await;
    let mut database = server.database().await;
    let fire = "CREATE TRIGGER fire BEFORE INSERT ON users BEGIN SELECT RAISE(ABORT, 'the disk is on fire'); END";
    sqlx::raw_sql(fire).execute(&mut database).await.unwrap();

    let answer = server.send("POST", CREATE).await;

    assert_eq!((answer.status.as_u16(), answer.problem().error_type.as_str()), (500, "store_failed"));
    assert!(!answer.text().contains("fire"), "the cause is for the log: {}", answer.text());
    let failed = server.log_event("request failed").await;
    assert_eq!(failed["request_id"], answer.header("x-request-id"));
    assert_eq!(
        (&failed["level"], &failed["method"], &failed["route"], &failed["status"]),
        (&json!("ERROR"), &json!("POST"), &json!("/api/users"), &json!(500))
    );
    let cause = failed["cause"].as_str().unwrap();
    assert!(cause.starts_with("the database failed: ") && cause.contains("the disk is on fire"), "{cause}");
    assert_eq!(request_line(&server, answer.header("x-request-id")).await["level"], "INFO");
}

#[tokio::test]
async fn a_write_that_another_program_holds_up_for_too_long_is_503_with_its_cause_in_the_log() {
    let server = Server::start().await;
    let mut database = server.database().await;
    let mut lock = database.begin_with("BEGIN IMMEDIATE").await.unwrap();
    sqlx::raw_sql("DELETE FROM users").execute(&mut *lock).await.unwrap();

    // Readers do not wait for the lock.
    let read = server.get("/api/users").await;
    let refused = server.send("POST", CREATE).await;
    lock.rollback().await.unwrap();
    let retried = server.send("POST", CREATE).await;

    assert_eq!(read.status, 200);
    assert_eq!((refused.status.as_u16(), refused.problem().error_type.as_str()), (503, "store_unavailable"));
    assert_eq!(refused.header("retry-after"), "1");
    assert_eq!(retried.status, 201);
    let failed = server.log_event("request failed").await;
    assert_eq!((&failed["level"], &failed["status"]), (&json!("ERROR"), &json!(503)));
    assert_eq!(failed["request_id"], refused.header("x-request-id"));
    let cause = failed["cause"].as_str().unwrap();
    assert!(cause.starts_with("the database does not answer: ") && cause.contains("locked"), "{cause}");
}

// ---- A reader that stalls ----

#[tokio::test]
async fn a_stalled_log_reader_holds_up_neither_requests_nor_a_clean_end() {
    let mut server = Stalled::start(&[]).await;

    // Each is answered, which `fill_the_pipe` checks.
    server.fill_the_pipe().await;
    server.signal(Signal::SIGTERM);
    let status = server.exit().await;

    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn a_stalled_log_reader_does_not_hold_up_the_end_that_a_second_signal_demands() {
    let mut server = Stalled::start(&["--drain-delay", "1h"]).await;
    server.fill_the_pipe().await;
    server.signal(Signal::SIGTERM);
    eventually("503 from /ready", async || (server.status("/ready").await == 503).then_some(())).await;

    server.signal(Signal::SIGTERM);
    let status = server.exit().await;

    assert_eq!(status.code(), Some(143), "{status}");
}

/// A server whose log is a pipe that nobody reads.
struct Stalled {
    child: Child,
    address: String,
    client: Client,
    /// Kept open: a pipe without a reader would be broken, not full.
    _stderr: BufReader<ChildStderr>,
}

impl Stalled {
    async fn start(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = binary(folder.path());
        command.args(["--listen", "127.0.0.1:0", "--log-format", "json", "--database-url", "sqlite::memory:"]);
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        stderr.read_line(&mut line).await.unwrap();
        let listening: Value = serde_json::from_str(&line).unwrap();
        let address = listening["address"].as_str().unwrap().to_owned();
        Self { child, address, client: client(), _stderr: stderr }
    }

    async fn status(&self, path: &str) -> u16 {
        self.client.get(format!("http://{}{path}", self.address)).send().await.unwrap().status().as_u16()
    }

    /// A pipe holds 64 KiB, and a request's line takes about 200 bytes.
    async fn fill_the_pipe(&self) {
        for _ in 0..1000 {
            assert_eq!(in_time("an answer", self.status("/health")).await, 200);
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().unwrap().try_into().unwrap()), signal).unwrap();
    }

    async fn exit(&mut self) -> ExitStatus {
        in_time("the end of the process", self.child.wait()).await.unwrap()
    }
}

// ---- Helpers ----

/// Waits for the line of the request with that id, and makes sure that there is one only.
async fn request_line(server: &Server, id: &str) -> Value {
    let lines = || {
        let log = server.log().into_iter();
        log.filter(|event| event["message"] == "request" && event["request_id"] == id).collect::<Vec<_>>()
    };
    eventually(&format!("a line of request {id}"), async || (!lines().is_empty()).then_some(())).await;
    let mut lines = lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}
