//! A stop loses no request: what was sent gets its answer, and clients learn in time that they must go elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use futures_util::future::join_all;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP, SIGTERM};
use serde_json::json;

use crate::support::{Server, eventually, in_time};
use crate::wire::{HEALTH, Wire};

/// Far beyond [`PATIENCE`](crate::support::PATIENCE): a process that waited for it would fail its test.
const FOREVER: &str = "1h";

const LIST: &[u8] = b"GET /api/users?limit=10 HTTP/1.1\r\nHost: api\r\n\r\n";
const LIST_AND_CLOSE: &[u8] = b"GET /api/users?limit=10 HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n";

// ---- The signal ----

#[tokio::test]
async fn from_the_signal_on_every_answer_says_that_the_connection_closes() {
    let server = Server::start_with(&["--drain-delay", FOREVER]).await;
    let mut open = Vec::new();
    for _ in 0..5 {
        let mut wire = Wire::to(&server).await;
        assert_eq!(wire.ask(HEALTH).await.unwrap().header("connection"), "");
        open.push(wire);
    }

    server.signal(SIGTERM);

    server.log_event("draining").await;
    eventually("503 from /ready", async || (server.get("/ready").await.status == 503).then_some(())).await;
    let requests: [&[u8]; 5] = [
        HEALTH,
        LIST,
        b"GET /ready HTTP/1.1\r\nHost: api\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: api\r\n\r\n",
        b"GET /nowhere HTTP/1.1\r\nHost: api\r\n\r\n",
    ];
    for (mut kept, request) in open.into_iter().zip(requests) {
        let mut fresh = Wire::to(&server).await;
        for wire in [&mut kept, &mut fresh] {
            let answer = wire.ask(request).await.unwrap();

            assert_eq!(answer.header("connection"), "close", "{}", String::from_utf8_lossy(request));
            assert!(wire.is_closed().await);
        }
    }
    let old = b"GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(Wire::to(&server).await.ask(old).await.unwrap().header("connection"), "close", "HTTP/1.0");
}

#[tokio::test]
async fn connections_that_wait_to_be_accepted_when_the_signal_comes_are_answered() {
    for _ in 0..5 {
        let mut server = Server::start().await;
        // A process that stands still accepts nothing: the system queues what comes.
        server.signal(SIGSTOP);
        let mut wires = Vec::new();
        for _ in 0..100 {
            let mut wire = Wire::to(&server).await;
            wire.send(LIST_AND_CLOSE).await.unwrap();
            wires.push(wire);
        }

        server.signal(SIGTERM);
        server.signal(SIGCONT);
        let answers = join_all(wires.iter_mut().map(Wire::answer)).await;

        let lost = answers.iter().filter(|answer| answer.is_err()).count();
        assert_eq!(lost, 0, "of 100 requests that were sent before the signal");
        assert_eq!(server.exit().await.code(), Some(0));
    }
}

#[tokio::test]
async fn a_request_that_comes_after_the_signal_on_a_connection_just_used_is_answered() {
    let mut server = Server::start().await;
    let mut wire = Wire::to(&server).await;
    wire.ask(HEALTH).await.unwrap();

    server.signal(SIGTERM);
    eventually("a refused connection", async || Wire::connect(&server.address).await.err()).await;
    let answer = wire.ask(HEALTH).await.expect("it was told nothing yet, so it may send");

    assert_eq!((answer.status.as_u16(), answer.header("connection")), (200, "close"));
    assert_eq!(server.exit().await.code(), Some(0));
}

#[tokio::test]
async fn half_a_head_does_not_hold_up_a_stop() {
    let mut server = Server::start_with(&["--drain-timeout", FOREVER]).await;
    let mut half = Wire::to(&server).await;
    half.send(b"GET /health HT").await.unwrap();
    let mut second_half = Wire::to(&server).await;
    second_half.ask(HEALTH).await.unwrap();
    second_half.send(b"GET /health HT").await.unwrap();
    server.get("/health").await;

    server.signal(SIGTERM);
    let status = server.exit().await;

    assert_eq!(status.code(), Some(0), "{status}");
    server.log_event("stopped").await;
    assert!(half.is_closed().await && second_half.is_closed().await);
    let noted: Vec<_> = server.log().into_iter().filter(|event| event["level"] != "INFO").collect();
    assert_eq!(noted, [json!(null); 0], "nothing timed out");
}

// ---- The drill ----

/// Stops, and how many servers are stopped side by side.
const STOPS: usize = 20;
const SIDE_BY_SIDE: usize = 4;

/// Clients of each kind. Each asks 15 times a second, so that it is 300 requests a second in all.
const CLIENTS: usize = 10;
const PAUSE: Duration = Duration::from_micros(1_000_000 / 15);

/// What became of the requests of a stop.
#[derive(Debug, Default)]
struct Tally {
    answered: AtomicU32,
    lost: AtomicU32,
}

impl Tally {
    /// Counts a request that was sent; gives whether the connection stays open.
    fn record(&self, answer: std::io::Result<crate::support::Answer>) -> bool {
        match answer {
            Ok(answer) if answer.status == 200 => {
                self.answered.fetch_add(1, Relaxed);
                answer.header("connection") != "close"
            }
            _ => {
                self.lost.fetch_add(1, Relaxed);
                false
            }
        }
    }
}

/// Asks on one connection for as long as it stays open, then on another, until none can be had.
async fn keeps_its_connection(address: String, tally: Arc<Tally>) {
    while let Ok(mut wire) = Wire::connect(&address).await {
        while tally.record(wire.ask(LIST).await) {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Asks each time on a new connection, until none can be had.
async fn connects_each_time(address: String, tally: Arc<Tally>) {
    while let Ok(mut wire) = Wire::connect(&address).await {
        tally.record(wire.ask(LIST_AND_CLOSE).await);
        tokio::time::sleep(PAUSE).await;
    }
}

/// One stop under load; gives how many requests were answered, and how many lost.
async fn stop_under_load() -> (u32, u32) {
    let mut server = Server::start_with(&["--log", "info,http_request=warn"]).await;
    let tally = Arc::new(Tally::default());
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(keeps_its_connection(server.address.clone(), Arc::clone(&tally)));
        clients.spawn(connects_each_time(server.address.clone(), Arc::clone(&tally)));
    }
    eventually("traffic", async || (tally.answered.load(Relaxed) >= 100).then_some(())).await;

    server.signal(SIGTERM);
    let status = server.exit().await;

    in_time("the end of the clients", clients.join_all()).await;
    assert_eq!(status.code(), Some(0), "{status}");
    assert!(!server.log().iter().any(|event| event["level"] == "WARN"), "{:?}", server.log());
    (tally.answered.load(Relaxed), tally.lost.load(Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_stops_under_three_hundred_requests_a_second_lose_none() {
    let mut lost = Vec::new();
    for _ in 0..STOPS / SIDE_BY_SIDE {
        let stops = join_all((0..SIDE_BY_SIDE).map(|_| stop_under_load())).await;
        lost.extend(stops.into_iter().map(|(_, lost)| lost));
    }

    assert_eq!(lost, [0; STOPS], "requests that were sent and got no answer, by stop");
}
