//! What being monitored costs, side by side in one run.
//!
//! **The instrumentation**: throughput of `GET /api/users/{id}` without it, with it, and with it and its log line. Three
//! servers with the same store answer in turn (a, b, c, a, b, c, …), each alone while it is measured. Each has a runtime
//! with one worker, which the client keeps busy, so throughput is the inverse of the worker's time per request. The
//! client is a bare loop over keep-alive connections in a thread of its own. Absolute figures mean little on a shared
//! machine; the ratios are what counts. Log lines are formatted as text and thrown away.
//!
//! **A large scrape**: latency of `GET /health` while nobody scrapes, and while a registry of 100,000 series is scraped
//! without a pause, on a runtime with one worker: if encoding held it up, requests would wait for tens of milliseconds.

#![allow(missing_docs, clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

use std::convert::Infallible;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use api_monitoring::api::problem::ErrorKind;
use api_monitoring::api::{self, App, Delays, Limits, surface};
use api_monitoring::metrics::{BuildInfo, Exposition, Red, ServiceMetrics, exposition};
use api_monitoring::server;
use api_monitoring::store::UserStore;
use api_monitoring::users::NewUser;
use prometheus::Registry;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::dynamic_filter_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use warp::Filter;
use warp::reply::Response;

const ROUNDS: usize = 9;
const ROUND: Duration = Duration::from_secs(2);
const CONNECTIONS: usize = 16;
const USERS: usize = 1000;
const SERIES: usize = 100_000;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}/users.db", folder.path().display()).parse().unwrap();
    let storage = runtime();
    let store = storage.block_on(UserStore::open(&url, Arc::new(|_| ()))).unwrap();
    storage.block_on(fill(&store));

    instrumentation(store);
    large_scrape();
}

fn instrumentation(store: UserStore) {
    let logging = Arc::new(AtomicBool::new(false));
    let enabled = Arc::clone(&logging);
    let lines = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(std::io::sink);
    let only_when_asked = dynamic_filter_fn(move |_, _| enabled.load(Ordering::Relaxed));
    tracing_subscriber::registry().with(lines.with_filter(only_when_asked)).init();

    let (red, app) = assemble(store);
    let off = Server::start(api::routes(app.clone()));
    let on = Server::start(red.instrument(api::routes(app)));
    let logged = |address| {
        logging.store(true, Ordering::Relaxed);
        let throughput = round(address);
        logging.store(false, Ordering::Relaxed);
        throughput
    };

    round(off.address);
    round(on.address);
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (round(off.address), round(on.address), logged(on.address))).collect();
    println!("GET /api/users/{{id}}, {CONNECTIONS} connections, {ROUNDS} rounds of {} s each", ROUND.as_secs());
    print("requests/s without instrumentation", 0, rounds.iter().map(|(a, _, _)| *a));
    print("requests/s with instrumentation", 0, rounds.iter().map(|(_, b, _)| *b));
    print("requests/s with a log line each too", 0, rounds.iter().map(|(_, _, c)| *c));
    print("ratio with / without", 3, rounds.iter().map(|(a, b, _)| b / a));
    print("ratio with log lines / without", 3, rounds.iter().map(|(a, _, c)| c / a));
    assert!(red.finished_requests() > 0, "the instrumented server recorded what it answered");
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

async fn fill(store: &UserStore) {
    let user = NewUser { name: "John".parse().unwrap(), email: "john@example.com".parse().unwrap() };
    futures_util::future::try_join_all((0..USERS).map(|_| store.create(user.clone()))).await.unwrap();
}

fn assemble(store: UserStore) -> (Red, App) {
    let registry = Registry::new();
    let kinds = ErrorKind::ALL.iter().map(|kind| kind.error_type());
    let red = Red::register_with_errors(&registry, surface::route_table(), kinds).unwrap();
    let build = BuildInfo { version: "bench", revision: "bench", rustc: "bench" };
    let metrics = ServiceMetrics::register(&registry, &red, build).unwrap();
    let limits = Limits { max_in_flight: 1024, request_timeout: Duration::from_secs(10) };
    let app = App::starting(limits, metrics, Exposition::new(registry), Delays::seeded(1));
    app.started(store);
    (red, app)
}

struct Server {
    address: SocketAddr,
    _runtime: Runtime,
    _stop: oneshot::Sender<()>,
}

impl Server {
    fn start<F>(service: F) -> Self
    where
        F: Filter<Extract = (Response,), Error = Infallible> + Clone + Send + Sync + 'static,
    {
        let runtime = runtime();
        let listener = runtime.block_on(server::bind(([127, 0, 0, 1], 0).into())).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(server::serve(listener, service, stopped, Duration::ZERO));
        Self { address, _runtime: runtime, _stop: stop }
    }
}

fn large_scrape() {
    let registry = Registry::new();
    let jobs = prometheus::IntGaugeVec::new(prometheus::Opts::new("jobs", "Jobs."), &["number"]).unwrap();
    for number in 0..SERIES {
        jobs.with_label_values(&[number.to_string().as_str()]).set(1);
    }
    registry.register(Box::new(jobs)).unwrap();
    let health = warp::path!("health").map(|| Response::new("healthy".into()));
    let unknown = warp::any().map(|| Response::new("unknown".into()));
    let server = Server::start(exposition(registry).or(health).unify().or(unknown).unify());

    let scraped = Arc::new(AtomicBool::new(true));
    println!("GET /health on one worker, {SERIES} series behind /metrics");
    print_latency("nobody scrapes", &mut latencies(server.address));
    let scraper = std::thread::spawn({
        let (scraped, address) = (Arc::clone(&scraped), server.address);
        move || {
            let mut bytes = 0;
            let mut scrapes = 0;
            while scraped.load(Ordering::Relaxed) {
                let mut connection = TcpStream::connect(address).unwrap();
                connection.write_all(b"GET /metrics HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n").unwrap();
                bytes += connection.read_to_end(&mut Vec::new()).unwrap();
                scrapes += 1;
            }
            (scrapes, bytes / scrapes)
        }
    });
    print_latency("scraped without a pause", &mut latencies(server.address));
    scraped.store(false, Ordering::Relaxed);
    let (scrapes, bytes) = scraper.join().unwrap();
    println!("  {scrapes} scrapes of {} KiB each meanwhile", bytes / 1024);
}

/// How long each of many requests takes, one after another.
fn latencies(address: SocketAddr) -> Vec<Duration> {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    let started = Instant::now();
    let mut latencies = Vec::new();
    while started.elapsed() < 3 * ROUND {
        let sent = Instant::now();
        connection.write_all(b"GET /health HTTP/1.1\r\nhost: bench\r\n\r\n").unwrap();
        let read = connection.read(&mut buffer).unwrap();
        assert!(buffer[..read].ends_with(b"healthy"));
        latencies.push(sent.elapsed());
        // A steady trickle: a client in a tight loop would measure how two threads share a core.
        std::thread::sleep(Duration::from_micros(500));
    }
    latencies
}

fn print_latency(what: &str, latencies: &mut [Duration]) {
    latencies.sort();
    let at = |per_mille: usize| latencies[(latencies.len() - 1) * per_mille / 1000].as_secs_f64() * 1e3;
    let (p50, p99, worst) = (at(500), at(990), at(1000));
    println!("  {what:<36} p50 {p50:.2} ms  p99 {p99:.2} ms  worst {worst:.2} ms  ({} requests)", latencies.len());
}

/// Requests answered per second. One thread writes a request on every connection, then reads all the answers: while it
/// handles one, the server has the others to do.
fn round(address: SocketAddr) -> f64 {
    let mut connections: Vec<_> = (0..CONNECTIONS).map(|_| TcpStream::connect(address).unwrap()).collect();
    for connection in &connections {
        connection.set_nodelay(true).unwrap();
    }
    let mut buffer = [0; 4096];
    let mut answered = 0_usize;
    let started = Instant::now();
    while started.elapsed() < ROUND {
        for (number, connection) in connections.iter_mut().enumerate() {
            let id = 1 + (answered + number) % USERS;
            let request = format!("GET /api/users/{id} HTTP/1.1\r\nhost: bench\r\n\r\n");
            connection.write_all(request.as_bytes()).unwrap();
        }
        for connection in &mut connections {
            // An answer of this size arrives in one piece; its end is the end of the JSON object.
            let mut length = 0;
            while length == 0 || buffer[length - 1] != b'}' {
                let read = connection.read(&mut buffer[length..]).unwrap();
                assert!(read > 0, "the server closed the connection");
                length += read;
            }
            assert!(buffer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..length]));
            answered += 1;
        }
    }
    answered as f64 / started.elapsed().as_secs_f64()
}

fn print(what: &str, digits: usize, values: impl Iterator<Item = f64>) {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let (low, median, high) = (values[0], values[values.len() / 2], values[values.len() - 1]);
    println!("  {what:<36} median {median:.digits$}  (from {low:.digits$} to {high:.digits$})");
}
