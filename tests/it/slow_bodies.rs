//! Bodies that come slowly or never: a limit and a deadline of their own, and never a failure of the service.

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Answer, Samples, Server, in_time};

/// Bodies that are waited for at once.
const PLACES: usize = 256;

/// Longer than any test runs.
const FOREVER: &str = "1h";

const BODY: &str = r#"{"name":"Jane","email":"jane@example.com"}"#;

/// A request whose body is still to come, but for its first byte.
struct HalfSent(TcpStream);

impl HalfSent {
    async fn to(server: &Server) -> Self {
        let head = format!(
            "POST /api/users HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            BODY.len()
        );
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&BODY.as_bytes()[..1]).await.unwrap();
        Self(stream)
    }

    /// Sends the rest, and closes after the answer.
    async fn finish(mut self) -> Answer {
        self.0.write_all(&BODY.as_bytes()[1..]).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            let read = in_time("an answer", self.0.read_buf(&mut answer)).await.unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
        }
        Answer::parse(&answer)
    }

    /// What is answered without the rest, up to the end of the connection.
    async fn answer(mut self) -> Answer {
        let mut answer = Vec::new();
        in_time("an answer and the connection's end", self.0.read_to_end(&mut answer)).await.unwrap();
        Answer::parse(&answer)
    }
}

/// Finished requests that count against the availability objective.
fn failed(metrics: &Samples) -> f64 {
    let ours = |status: u16| metrics.sum("http_requests_total", &[("status", &status.to_string())]);
    (500..600).map(ours).sum()
}

#[tokio::test]
async fn half_sent_bodies_take_no_place_from_other_requests() {
    let server = Server::start_with(&["--max-in-flight", "2", "--request-timeout", FOREVER]).await;
    let halves = join_all((0..50).map(|_| HalfSent::to(&server))).await;
    server.in_progress("/api/users", 50).await;

    let id = server.create("John").await;
    let read = server.get(&format!("/api/users/{id}")).await;
    let listed = server.get("/api/users").await;

    assert_eq!((read.status.as_u16(), listed.status.as_u16()), (200, 200), "{read:?} {listed:?}");
    drop(halves);
    assert_eq!(failed(&server.metrics().await), 0.0);
}

#[tokio::test]
async fn a_body_that_does_not_come_answers_408_and_is_no_failure_of_the_service() {
    let server = Server::start_with(&["--request-timeout", "1s"]).await;

    let answer = HalfSent::to(&server).await.answer().await;

    assert_eq!(answer.status, 408);
    assert_eq!(answer.header("connection"), "close");
    let problem = answer.problem();
    assert_eq!(problem.error_type, "body_timeout");
    assert!(problem.detail.contains("1 s"), "{problem:?}");
    let metrics = server.metrics().await;
    assert_eq!(metrics.value("api_errors_total", &[("error_type", "body_timeout")]), 1.0);
    assert_eq!(failed(&metrics), 0.0);
    let measured = metrics.sum("http_request_duration_seconds_sum", &[("route", "/api/users")]);
    assert!(measured < 1.0, "the wait for the client is in the latency of the service: {measured}");
    server.in_progress("/api/users", 0).await;
    assert_eq!(server.get("/api/users").await.json()["count"], 0);
}

#[tokio::test]
async fn the_wait_for_a_body_is_not_part_of_the_duration() {
    let server = Server::start().await;
    let half = HalfSent::to(&server).await;
    server.in_progress("/api/users", 1).await;
    // 2 to 3 s pass.
    let waited = server.get("/api/slow").await.json()["delay_seconds"].as_f64().unwrap();

    let answer = half.finish().await;

    assert_eq!(answer.status, 201, "{}", answer.text());
    let labels = [("method", "POST"), ("route", "/api/users")];
    let measured = server.metrics().await.value("http_request_duration_seconds_sum", &labels);
    assert!(measured < waited, "{measured} s of {waited} s");
}

#[tokio::test]
async fn beyond_the_limit_of_bodies_waited_for_the_one_that_has_waited_longest_gives_way() {
    let server = Server::start_with(&["--request-timeout", FOREVER]).await;
    let first = HalfSent::to(&server).await;
    server.in_progress("/api/users", 1).await;
    let others = join_all((1..PLACES).map(|_| HalfSent::to(&server))).await;
    server.in_progress("/api/users", PLACES as u32).await;

    let last = HalfSent::to(&server).await;
    let displaced = first.answer().await;
    let created = last.finish().await;

    assert_eq!(displaced.status, 408);
    assert_eq!(displaced.header("connection"), "close");
    assert_eq!(displaced.problem().error_type, "body_displaced");
    assert_eq!(created.status, 201, "{}", created.text());
    let metrics = server.metrics().await;
    assert_eq!(metrics.value("api_errors_total", &[("error_type", "body_displaced")]), 1.0);
    assert_eq!(failed(&metrics), 0.0);
    drop(others);
}
