//! Many keep-alive connections on one thread: a closed loop, and an open one at a steady rate.
//!
//! The kernel wakes the thread for an answer or when the next request is due, so this client leaves the processors to
//! the server between two requests.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use crate::http::Head;

/// No answer takes this long here.
const PATIENCE: Duration = Duration::from_secs(20);

/// What was answered, all with the expected status.
pub struct Traffic {
    pub answered: u64,
    pub took: Duration,
    /// In nanoseconds: from when the request was due to the end of its answer. In a closed loop, it is due when it is
    /// sent.
    pub latency: Histogram<u64>,
    /// In nanoseconds: from when it was sent.
    pub answer: Histogram<u64>,
    /// In nanoseconds: how late this client sent it.
    pub late: Histogram<u64>,
}

/// Each connection sends its next request when the last is answered, until the time is over; then the answers that are
/// still due are waited for, so that every request is answered and counted. `request` makes the n-th request.
pub fn closed_loop(
    name: &str,
    address: SocketAddr,
    connections: usize,
    duration: Duration,
    status: u16,
    request: impl Fn(u64) -> String,
) -> Traffic {
    let mut traffic = Traffic::new();
    let mut all = connect(name, address, connections);
    let began = Instant::now();
    let mut sent = 0;
    let mut send = |connection: &mut Connection| {
        let now = Instant::now();
        connection.send(&request(sent), now, now);
        sent += 1;
    };
    all.iter_mut().for_each(&mut send);
    while all.iter().any(|connection| connection.under_way.is_some()) {
        for index in readable(name, &all, PATIENCE) {
            if traffic.receive(name, &mut all[index], status) && began.elapsed() < duration {
                send(&mut all[index]);
            }
        }
    }
    traffic.took = began.elapsed();
    assert_eq!(traffic.answered, sent, "{name}: each request has one answer");
    traffic
}

/// Requests are due at fixed times, whether or not earlier ones are answered. One that finds all connections taken is
/// sent late, and its latency counts from when it was due.
pub fn steady(
    name: &str,
    address: SocketAddr,
    connections: usize,
    rate: f64,
    duration: Duration,
    request: impl Fn(u64) -> String,
) -> Traffic {
    // The kernel may wake a thread 50 µs late to save power; that would be seen as the server's latency.
    nix::sys::prctl::set_timerslack(1).unwrap();
    let mut traffic = Traffic::new();
    let mut all = connect(name, address, connections);
    let mut idle: Vec<usize> = (0..connections).collect();
    let planned = (rate * duration.as_secs_f64()) as u64;
    let due = |number: u64| Duration::from_secs_f64(number as f64 / rate);
    let began = Instant::now();
    let mut sent = 0;
    while traffic.answered < planned {
        while sent < planned && due(sent) <= began.elapsed() {
            let Some(index) = idle.pop() else { break };
            let now = Instant::now();
            let due = began + due(sent);
            traffic.late.saturating_record((now - due).as_nanos() as u64);
            all[index].send(&request(sent), due, now);
            sent += 1;
        }
        let next_is_waited_for = sent < planned && !idle.is_empty();
        let timeout = if next_is_waited_for { due(sent).saturating_sub(began.elapsed()) } else { PATIENCE };
        for index in readable(name, &all, timeout) {
            if traffic.receive(name, &mut all[index], 200) {
                idle.push(index);
            }
        }
    }
    traffic.took = began.elapsed();
    traffic
}

impl Traffic {
    fn new() -> Self {
        let histogram = || Histogram::new_with_max(120_000_000_000, 3).expect("3 digits of 2 minutes are allowed");
        Self { answered: 0, took: Duration::ZERO, latency: histogram(), answer: histogram(), late: histogram() }
    }

    /// Takes what has arrived; whether the answer is complete.
    fn receive(&mut self, name: &str, connection: &mut Connection, expected: u16) -> bool {
        let Some(status) = connection.receive(name) else { return false };
        let body = || String::from_utf8_lossy(&connection.received).into_owned();
        assert_eq!(status, expected, "{name} answered {}", body());
        connection.received.clear();
        let (due, sent) = connection.under_way.take().unwrap_or_else(|| panic!("{name}: an answer to no request"));
        self.latency.saturating_record(due.elapsed().as_nanos() as u64);
        self.answer.saturating_record(sent.elapsed().as_nanos() as u64);
        self.answered += 1;
        true
    }
}

/// The 99th percentile, in milliseconds.
pub fn p99(times: &Histogram<u64>) -> f64 {
    quantile(times, 0.99)
}

/// Milliseconds that this share did not exceed.
pub fn quantile(times: &Histogram<u64>, share: f64) -> f64 {
    times.value_at_quantile(share) as f64 / 1e6
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    /// When the request under way was due, and when it was sent.
    under_way: Option<(Instant, Instant)>,
}

impl Connection {
    fn send(&mut self, request: &str, due: Instant, now: Instant) {
        // Far below what a socket takes at once.
        self.stream.write_all(request.as_bytes()).unwrap();
        self.under_way = Some((due, now));
    }

    /// The status, once the whole answer is there.
    fn receive(&mut self, name: &str) -> Option<u16> {
        let mut buffer = [0; 1 << 14];
        match self.stream.read(&mut buffer) {
            Ok(0) => panic!("{name}: closed the connection"),
            Ok(read) => self.received.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => panic!("{name}: {error}"),
        }
        let head = self.received.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
        let Head { status, length } = Head::parse(&self.received[..head]);
        let length = length.unwrap_or_else(|| panic!("{name}: an answer without a length"));
        (self.received.len() >= head + length).then_some(status)
    }
}

fn connect(name: &str, address: SocketAddr, connections: usize) -> Vec<Connection> {
    let connection = |_| {
        let stream = TcpStream::connect(address).unwrap_or_else(|error| panic!("{name}: {error}"));
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        Connection { stream, received: Vec::new(), under_way: None }
    };
    (0..connections).map(connection).collect()
}

/// The connections that have something to read; none when the time is over before.
fn readable(name: &str, all: &[Connection], timeout: Duration) -> Vec<usize> {
    let mut files: Vec<_> = all.iter().map(|one| PollFd::new(one.stream.as_fd(), PollFlags::POLLIN)).collect();
    ppoll(&mut files, Some(TimeSpec::from_duration(timeout)), None).unwrap();
    let readable: Vec<_> = (0..all.len()).filter(|index| files[*index].any() == Some(true)).collect();
    assert!(!readable.is_empty() || timeout < PATIENCE, "{name}: no answer within {timeout:?}");
    readable
}
