//! What the bookkeeping of one request costs, on the real route table. Wall-clock time of one request:
//!
//! - `red/clock_reads`: two reads of the clock, the floor under everything that measures a duration.
//! - `red/observe/one_thread`: [`Red::observe`], and then `Observation::finish` of a request that succeeds.
//! - `red/observe/two_threads`: the same, while another thread does it too, on the same route. It wants two processors
//!   that have nothing else to do.
//! - `red/crate_labels/…`, `red/crate_handles/…`: the same bookkeeping with the metric types of the `prometheus` crate,
//!   on one thread and on two: their children looked up by label for each request, and looked up once beforehand. The
//!   route is resolved for each request as ours is.
//! - `red/bare/…`, `red/instrumented/…`: a warp service that only answers, on one thread and on two, called without a
//!   connection; once bare, once in [`Red::instrument`]. Both make their request. Nobody reads the log, so the
//!   difference is the wrapper's cost without it.
//!
//! Criterion keeps each figure, in nanoseconds, in `criterion/GROUP/NAME/new/estimates.json` below the target folder,
//! where a slash within the group is an underscore: `criterion/red_observe/one_thread/new/estimates.json`.

use std::hint::black_box;
use std::sync::{Barrier, mpsc};
use std::thread;
use std::time::Duration;

use api_monitoring::api::problem::ErrorKind;
use api_monitoring::api::surface;
use api_monitoring::metrics::{Red, RouteTable, names};
use criterion::Criterion;
use futures_util::FutureExt;
use http::{Method, Request, StatusCode};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use tokio::time::Instant;
use tower_service::Service;
use warp::Filter;
use warp::reply::Response;

const PATH: &str = "/api/users/42";
const ROUTE: &str = "/api/users/{id}";

pub fn run() {
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2))
        .sample_size(30)
        .nresamples(10_000)
        .without_plots()
        .configure_from_args();
    criterion.benchmark_group("red").bench_function("clock_reads", |bencher| bencher.iter(|| Instant::now().elapsed()));
    observe(&mut criterion);
    crate_labels(&mut criterion);
    crate_handles(&mut criterion);
    wrapper(&mut criterion);
    criterion.final_summary();
}

fn red() -> Red {
    let kinds = ErrorKind::ALL.iter().map(|kind| kind.error_type());
    let table = surface::route_table();
    assert_eq!(table.resolve(PATH), ROUTE);
    Red::register_with_errors(&Registry::new(), table, kinds).unwrap()
}

fn observe(criterion: &mut Criterion) {
    let red = red();
    on_one_thread_and_two(criterion, "red/observe", || {
        || red.observe(&Method::GET, black_box(PATH)).finish(black_box(StatusCode::OK), None)
    });
}

/// What a service writes that has no library: the crate's families, and labels at every request.
struct Families {
    table: RouteTable,
    requests: IntCounterVec,
    durations: HistogramVec,
    in_progress: IntGaugeVec,
}

impl Families {
    fn new() -> Self {
        let durations = HistogramOpts::new("durations", "Durations.");
        let durations = durations.buckets(names::HTTP_REQUEST_DURATION_BUCKETS.to_vec());
        Self {
            table: surface::route_table(),
            requests: IntCounterVec::new(Opts::new("requests", "Requests."), &["method", "route", "status"]).unwrap(),
            durations: HistogramVec::new(durations, &["method", "route"]).unwrap(),
            in_progress: IntGaugeVec::new(Opts::new("in_progress", "In progress."), &["method", "route"]).unwrap(),
        }
    }
}

fn crate_labels(criterion: &mut Criterion) {
    let families = Families::new();
    let request = || {
        let (method, route) = (black_box(Method::GET), families.table.resolve(black_box(PATH)));
        let in_progress = families.in_progress.with_label_values(&[method.as_str(), route]);
        in_progress.inc();
        let began = Instant::now();
        let (took, status) = (began.elapsed(), black_box(StatusCode::OK));
        families.requests.with_label_values(&[method.as_str(), route, status.as_str()]).inc();
        families.durations.with_label_values(&[method.as_str(), route]).observe(took.as_secs_f64());
        in_progress.dec();
    };
    on_one_thread_and_two(criterion, "red/crate_labels", || request);
}

struct Handles {
    requests: IntCounter,
    durations: Histogram,
    in_progress: IntGauge,
}

fn crate_handles(criterion: &mut Criterion) {
    let families = Families::new();
    let handles = Handles {
        requests: families.requests.with_label_values(&["GET", ROUTE, "200"]),
        durations: families.durations.with_label_values(&["GET", ROUTE]),
        in_progress: families.in_progress.with_label_values(&["GET", ROUTE]),
    };
    let request = || {
        black_box(families.table.resolve(black_box(PATH)));
        handles.in_progress.inc();
        let began = Instant::now();
        let took = began.elapsed();
        handles.requests.inc();
        handles.durations.observe(took.as_secs_f64());
        handles.in_progress.dec();
    };
    on_one_thread_and_two(criterion, "red/crate_handles", || request);
}

/// Measures what `prepare` gives, which each thread prepares for itself.
fn on_one_thread_and_two<R: FnMut()>(criterion: &mut Criterion, name: &str, prepare: impl Fn() -> R + Sync) {
    let mut group = criterion.benchmark_group(name);
    group.bench_function("one_thread", |bencher| bencher.iter(prepare()));

    let (both, prepare) = (&Barrier::new(2), &prepare);
    thread::scope(|scope| {
        let (orders, ordered) = mpsc::channel();
        let (report, reports) = mpsc::channel();
        // One thread for all samples, as the workers of a runtime live long: what belongs to a thread is set up once.
        scope.spawn(move || {
            let mut request = prepare();
            for requests in ordered {
                both.wait();
                report.send(timed(requests, &mut request)).unwrap();
            }
        });
        let mut request = prepare();
        group.bench_function("two_threads", |bencher| {
            bencher.iter_custom(|requests| {
                orders.send(requests).unwrap();
                both.wait();
                let own = timed(requests, &mut request);
                (own + reports.recv().unwrap()) / 2
            });
        });
        // The thread ends when no more orders can come.
        drop(orders);
    });
}

fn timed(requests: u64, mut request: impl FnMut()) -> Duration {
    let began = Instant::now();
    (0..requests).for_each(|_| request());
    began.elapsed()
}

fn wrapper(criterion: &mut Criterion) {
    let red = red();
    let bare = warp::any().map(|| "done");
    let instrumented = red.instrument(bare);
    let request = || Request::builder().uri(PATH).body(String::new()).unwrap();

    on_one_thread_and_two(criterion, "red/bare", || {
        let mut service = warp::service(bare);
        move || drop(answer(service.call(request())))
    });
    on_one_thread_and_two(criterion, "red/instrumented", || {
        let mut service = warp::service(instrumented.clone());
        move || drop(answer(service.call(request())))
    });
    let before = red.finished_requests();
    let answered = answer(warp::service(instrumented).call(request()));
    assert!(answered.headers().contains_key("x-request-id") && red.finished_requests() == before + 1);
}

fn answer<E: std::fmt::Debug>(answer: impl Future<Output = Result<Response, E>>) -> Response {
    let response = answer.now_or_never().expect("nothing is waited for").unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response
}
