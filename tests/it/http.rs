//! What HTTP asks of a server rather than of a service: hosts, versions, the end of connections, and rubbish.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::support::{Server, eventually};
use crate::wire::{HEALTH, Wire};

// ---- Host (RFC 9112, section 3.2) ----

#[tokio::test]
async fn a_request_without_exactly_one_well_formed_host_is_400_and_counted() {
    let server = Server::start().await;
    let cases = [
        ("GET /api/users HTTP/1.1\r\n\r\n", "none"),
        ("GET /api/users HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "two, though they agree"),
        ("GET /api/users HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n", "two, in HTTP/1.0"),
        ("GET /api/users HTTP/1.1\r\nHost: a b\r\n\r\n", "a blank"),
        ("GET /api/users HTTP/1.1\r\nHost: user@a\r\n\r\n", "a user"),
        ("GET /api/users HTTP/1.1\r\nHost: a/b\r\n\r\n", "a path"),
        ("GET /api/users HTTP/1.1\r\nHost: a:x\r\n\r\n", "a port that is no number"),
        ("GET http://a/api/users HTTP/1.1\r\n\r\n", "none, beside a target that names one"),
    ];
    for (request, reason) in &cases {
        let answer = Wire::to(&server).await.ask(request.as_bytes()).await.unwrap();

        assert_eq!(answer.status, 400, "{reason}");
        let problem = answer.problem();
        assert_eq!(problem.error_type, "invalid_host", "{reason}");
        assert!(problem.detail.contains("Host header"), "{reason}: {problem:?}");
    }
    let count = cases.len() as f64;
    let metrics = server.metrics().await;
    let refused = [("method", "GET"), ("route", "/api/users"), ("status", "400")];
    assert_eq!(metrics.value("http_requests_total", &refused), count);
    assert_eq!(metrics.value("api_errors_total", &[("error_type", "invalid_host")]), count);
}

#[tokio::test]
async fn a_host_may_be_empty_or_an_address_and_http_1_0_needs_none() {
    let server = Server::start().await;
    for request in [
        "GET /health HTTP/1.1\r\nHost:\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: [::1]:8000\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: Example.com:\r\n\r\n",
        "GET /health HTTP/1.0\r\n\r\n",
    ] {
        let answer = Wire::to(&server).await.ask(request.as_bytes()).await.unwrap();

        assert_eq!(answer.status, 200, "{request}");
    }
}

// ---- The end of a connection is announced ----

#[tokio::test]
async fn an_http_1_0_client_that_keeps_alive_gets_a_length_or_the_end_of_the_connection() {
    let server = Server::start().await;
    server.create("John").await;
    let ask = |path: &str| format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");

    let listing = server.exchange(ask("/api/users").as_bytes()).await;
    let mut wire = Wire::to(&server).await;
    let page = wire.ask(ask("/api/users?limit=1").as_bytes()).await.unwrap();
    let health = wire.ask(ask("/health").as_bytes()).await.unwrap();

    assert_eq!((listing.header("connection"), listing.header("content-length")), ("close", ""));
    assert_eq!(listing.json()["count"], 1, "the end of the connection is the end of the body");
    for answer in [page, health] {
        assert_eq!(answer.header("connection"), "keep-alive", "what has a length leaves the connection open");
    }
}

#[tokio::test]
async fn an_answer_before_the_whole_body_was_read_says_that_the_connection_closes() {
    let server = Server::start().await;
    let post = |path: &str, more: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\n{more}\r\n\r\n");
    let cases = [
        (post("/nowhere", "Content-Length: 10"), 404, "no route, and no body yet"),
        (post("/nowhere", "Content-Length: 10") + "0123456789", 404, "no route, and the whole body is there"),
        (post("/nowhere", "Transfer-Encoding: chunked") + "3\r\nabc\r\n", 404, "chunks without an end"),
        (post("/health", "Content-Length: 10"), 405, "another method"),
        ("GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n".to_owned(), 200, "a body that nobody wants"),
        (post("/api/users", "Expect: 100-continue\r\nContent-Length: 70000"), 413, "a body that is not asked for"),
        ("POST /api/users HTTP/1.1\r\nContent-Length: 10\r\n\r\n".to_owned(), 400, "no host"),
    ];
    for (request, status, reason) in cases {
        let mut wire = Wire::to(&server).await;

        let answer = wire.ask(request.as_bytes()).await.unwrap();

        assert_eq!(answer.status, status, "{reason}");
        assert_eq!(answer.header("connection"), "close", "{reason}");
        assert!(wire.is_closed().await, "{reason}");
    }
}

#[tokio::test]
async fn a_body_that_was_read_to_its_end_leaves_the_connection_open() {
    let server = Server::start().await;
    let body = r#"{"name": "John", "email": "john@example.com"}"#;
    let head = "POST /api/users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n";
    let mut wire = Wire::to(&server).await;
    for request in [
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
    ] {
        let answer = wire.ask(request.as_bytes()).await.unwrap();

        assert_eq!((answer.status.as_u16(), answer.header("connection")), (201, ""), "{}", answer.text());
    }
    assert_eq!(wire.ask(HEALTH).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_sends_all_of_its_body_before_it_reads_still_gets_its_answer() {
    let server = Server::start().await;
    let length = 4 * 1024 * 1024;
    let head = format!("POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
    for _ in 0..5 {
        let mut wire = Wire::to(&server).await;

        wire.send(head.as_bytes()).await.unwrap();
        wire.send(&vec![b'x'; length]).await.expect("nothing is reset while the client sends");

        assert_eq!(wire.answer().await.unwrap().status, 404);
    }
}

// ---- Rubbish ----

#[tokio::test]
async fn a_head_beyond_16_kib_is_431_and_one_below_is_read() {
    let server = Server::start().await;
    let with_header = |length: usize| format!("GET /health HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(length));
    let with_target = |length: usize| format!("GET /health?{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length));

    for (request, status, reason) in [
        (with_header(16_000), 200, "just below"),
        (with_target(16_000), 200, "a long target"),
        (with_header(17_000), 431, "just above"),
        (with_target(70_000), 431, "a target far above"),
        (with_header(1_000_000), 431, "far above"),
    ] {
        let mut wire = Wire::to(&server).await;
        // A server that refuses may close before everything is written.
        let _ = wire.send(request.as_bytes()).await;

        let answer = wire.answer().await.unwrap();

        assert_eq!(answer.status, status, "{reason}");
        assert_eq!(answer.header("connection") == "close", status == 431, "{reason}");
    }
}

/// Requests, valid ones and others, of which random ones are made.
const SEEDS: [&str; 6] = [
    "GET /api/users?limit=10&after=3 HTTP/1.1\r\nHost: localhost:8000\r\n\r\n",
    "POST /api/users?name=J%C3%B6rg&email=a%40b.de HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "POST /api/users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 44\r\n\r\n\
     {\"name\": \"John\", \"email\": \"john@example.com\"}",
    "PUT /api/users/1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
     f\r\n{\"name\": \"Jane\"}\r\n0\r\n\r\n",
    "GET /metrics HTTP/1.0\r\nConnection: keep-alive\r\nAccept-Encoding: gzip\r\n\r\n",
    "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\nUpgrade: websocket\r\nExpect: 100-continue\r\nX-Request-Id: a\r\n\r\n",
];

/// A request with some of its bytes replaced, removed, doubled or put in; now and then nothing but random bytes.
fn mutated(rng: &mut StdRng) -> Vec<u8> {
    if rng.random_ratio(1, 10) {
        return (0..rng.random_range(1..2000)).map(|_| rng.random()).collect();
    }
    let mut bytes: Vec<u8> = SEEDS[rng.random_range(0..SEEDS.len())].into();
    for _ in 0..rng.random_range(1..6) {
        if bytes.is_empty() {
            break;
        }
        let at = rng.random_range(0..bytes.len());
        let end = (at + rng.random_range(1..20)).min(bytes.len());
        match rng.random_range(0..5) {
            0 => bytes[at] = rng.random(),
            1 => drop(bytes.drain(at..end)),
            2 => bytes.insert(at, b"\r\n %&=:;,/\0\xff"[rng.random_range(0..12)]),
            3 => bytes.truncate(at),
            _ => {
                let twice = bytes[at..end].to_vec();
                bytes.splice(at..at, twice);
            }
        }
    }
    bytes
}

#[tokio::test]
async fn whatever_bytes_come_the_server_goes_on_answering() {
    let server = Server::start_with(&["--request-timeout", "1s", "--log", "info,http_request=warn"]).await;
    let mut rng = StdRng::seed_from_u64(20_261_129);
    let mut statuses = std::collections::BTreeMap::<String, u32>::new();
    for round in 0..40 {
        let mut wires = Vec::new();
        for _ in 0..25 {
            let request = mutated(&mut rng);
            let mut wire = Wire::to(&server).await;
            let _ = wire.send(&request).await;
            wires.push((wire, request));
        }
        // One whole request behind each, so that many of the halves become whole ones, of some kind.
        for (mut wire, request) in wires {
            let _ = wire.send(HEALTH).await;
            let answer = wire.rest().await;
            if !answer.is_empty() {
                assert!(answer.starts_with(b"HTTP/1."), "{:?} to {:?}", text(&answer), text(&request));
                *statuses.entry(text(&answer[9..12])).or_default() += 1;
            }
        }

        assert_eq!(server.get("/health").await.status, 200, "round {round}");
    }
    assert!(statuses.len() >= 4, "the requests were not as different as they should be: {statuses:?}");
    let panics = server.log().into_iter().filter(|event| event["level"] == "ERROR" || event.is_string());
    assert_eq!(panics.collect::<Vec<Value>>(), [Value::Null; 0]);
    eventually("nothing in progress", async || {
        let now = server.metrics().await.sum("http_requests_in_progress", &[]);
        (now == 0.0).then_some(())
    })
    .await;
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
