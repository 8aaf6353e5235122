//! The exposition of many series: what a scrape costs, and whether requests beside it notice.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::arms::Bench;
use crate::connections::{Traffic, p99, steady};
use crate::http::{Client, fetch, get, get_gzipped};
use crate::process::Server;
use crate::report::{Goal, Report};
use crate::rounds::{Spread, each, interleaved};

const OURS: &str = "ours";
const GO: &str = "client_golang";

/// How many series, and how many scrapes of them one round takes.
const SIZES: [(u64, u64); 2] = [(10_000, 30), (100_000, 5)];

/// `GET /health` per second beside the scrapes: few, so that they wait for the server and not for each other.
const TRICKLE: f64 = 500.0;

pub fn run(bench: &Bench, report: &mut Report) {
    for (series, scrapes) in SIZES {
        let started = [Some(bench.series(OURS, series)), bench.peer(GO, "client_golang", Some(series))];
        let mut arms: Vec<Server> = started
            .into_iter()
            .zip([OURS, GO])
            .filter_map(|(arm, name)| arm.or_else(|| report.left_out(name)))
            .collect();
        check_equal(series, &arms);
        cost(bench, report, &mut arms, series, scrapes);
        interference(bench, report, &mut arms, series);
    }
}

/// Both expose the same lines, and as many as were asked for.
fn check_equal(series: u64, arms: &[Server]) {
    let expositions: Vec<_> = arms.iter().map(|arm| lines(&fetch(arm.name, arm.address, "/metrics"))).collect();
    for (arm, lines) in arms.iter().zip(&expositions) {
        let samples = lines.iter().filter(|line| !line.starts_with('#')).count() as u64;
        assert!(
            samples.abs_diff(series) <= series / 100,
            "{}: {samples} series where {series} were asked for",
            arm.name
        );
        let differing = lines.symmetric_difference(&expositions[0]).take(4).collect::<Vec<_>>();
        assert!(differing.is_empty(), "{} exposes something else than {}: {differing:#?}", arm.name, arms[0].name);
    }
}

/// The lines of an exposition, numbers in one spelling.
fn lines(exposition: &[u8]) -> BTreeSet<String> {
    let text = std::str::from_utf8(exposition).expect("an exposition is text");
    let lines: BTreeSet<_> = text.lines().map(canonical).collect();
    assert_eq!(lines.len(), text.lines().count(), "no line stands there twice");
    lines
}

fn canonical(line: &str) -> String {
    if line.starts_with('#') {
        return line.to_owned();
    }
    let number = |text: &str| text.parse::<f64>().map_or_else(|_| text.to_owned(), |number| number.to_string());
    let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
    let series = match series.split_once("le=\"").and_then(|(before, rest)| Some((before, rest.split_once('"')?))) {
        Some((before, (bound, after))) => format!("{before}le=\"{}\"{after}", number(bound)),
        None => series.to_owned(),
    };
    format!("{series} {}", number(value))
}

/// Milliseconds of the server's CPU for one scrape, and bytes of its body.
struct Scrape {
    text: f64,
    text_bytes: usize,
    gzip: f64,
    gzip_bytes: usize,
}

fn cost(bench: &Bench, report: &mut Report, arms: &mut [Server], series: u64, scrapes: u64) {
    let rounds = interleaved(bench.rounds, arms, |arm| {
        let (text, text_bytes) = scrape(arm, &get("/metrics"), scrapes, false);
        let (gzip, gzip_bytes) = scrape(arm, &get_gzipped("/metrics"), scrapes, true);
        println!("  {:<14} {series} series: {text:.2} ms of CPU as text, {gzip:.2} ms gzipped", arm.name);
        Scrape { text, text_bytes, gzip, gzip_bytes }
    });
    let ratio = |figure: fn(&Scrape) -> f64| {
        let go = rounds.get(1)?;
        Some(Spread::ratio(&each(&rounds[0], figure), &each(go, figure)))
    };
    let what = format!("exposition of {series} series as text, CPU per scrape, ours / {GO}");
    report.goal(what, Goal::AtMost(0.4), 3, "", ratio(|scrape| scrape.text));
    let gzip_ratio = ratio(|scrape| scrape.gzip).map_or("–".to_owned(), |ratio| ratio.show(3));
    let rows = arms.iter().zip(&rounds).map(|(arm, rounds)| {
        let show = |figure: fn(&Scrape) -> f64| Spread::of(each(rounds, figure)).show(2);
        let kilobytes = |bytes: usize| format!("{}", bytes / 1000);
        let last = rounds.last().expect("there is at least one round");
        vec![
            arm.name.to_owned(),
            show(|scrape| scrape.text),
            kilobytes(last.text_bytes),
            show(|scrape| scrape.gzip),
            kilobytes(last.gzip_bytes),
        ]
    });
    report.table(
        &format!("Scrapes of {series} series, {scrapes} a round and form; ours / {GO} gzipped: {gzip_ratio}"),
        &["arm", "text, CPU ms/scrape", "kB", "gzip, CPU ms/scrape", "kB"],
        rows,
    );
}

fn scrape(arm: &mut Server, request: &str, scrapes: u64, gzipped: bool) -> (f64, usize) {
    let mut client = Client::connect(arm.address).unwrap();
    let name = arm.name;
    let mut once = || {
        let answer = client.send(request).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.body.starts_with(&[0x1f, 0x8b]), gzipped, "{name}: gzip when asked for, else text");
        answer.body.len()
    };
    // Not measured: the first may find nothing allocated yet.
    let bytes = once();
    let before = arm.cpu();
    (0..scrapes).for_each(|_| _ = once());
    ((arm.cpu() - before).as_secs_f64() * 1e3 / scrapes as f64, bytes)
}

struct Beside {
    quiet: Traffic,
    scraped: Traffic,
    scrapes: u64,
}

impl Beside {
    /// Milliseconds by which the scrapes move the 99th percentile. Counted from when requests were sent: client and
    /// scraper share the processors with the server here, and how late they make each other is not its doing.
    fn moved(&self) -> f64 {
        p99(&self.scraped.answer) - p99(&self.quiet.answer)
    }
}

fn interference(bench: &Bench, report: &mut Report, arms: &mut [Server], series: u64) {
    let duration = bench.lasting(2);
    let rounds = interleaved(bench.rounds, arms, |arm| {
        let health = || steady(arm.name, arm.address, 16, TRICKLE, duration, |_| get("/health"));
        let quiet = health();
        let over = AtomicBool::new(false);
        let (scraped, scrapes) = std::thread::scope(|scope| {
            let scraper = scope.spawn(|| {
                let mut client = Client::connect(arm.address).unwrap();
                let mut scrapes = 0;
                while !over.load(Ordering::Relaxed) {
                    assert_eq!(client.send(&get("/metrics")).unwrap().status, 200, "{}", arm.name);
                    scrapes += 1;
                }
                scrapes
            });
            let scraped = health();
            over.store(true, Ordering::Relaxed);
            (scraped, scraper.join().unwrap())
        });
        assert!(scrapes > 0, "{}: no scrape ended meanwhile", arm.name);
        Beside { quiet, scraped, scrapes }
    });
    let moved = Spread::of(each(&rounds[0], Beside::moved));
    let what = format!("p99 of GET /health while {series} series are scraped without a pause, against nobody scraping");
    report.goal(what, Goal::AtMost(2.0), 2, "ms", Some(moved));
    let rows = arms.iter().zip(&rounds).map(|(arm, rounds)| {
        let show = |figure: fn(&Beside) -> f64| Spread::of(each(rounds, figure)).show(3);
        vec![
            arm.name.to_owned(),
            show(|beside| p99(&beside.quiet.answer)),
            show(|beside| p99(&beside.scraped.answer)),
            show(Beside::moved),
            show(|beside| p99(&beside.scraped.late)),
            Spread::of(each(rounds, |beside| beside.scrapes as f64)).show(0),
        ]
    });
    report.table(
        &format!(
            "GET /health at {TRICKLE}/s for {} s a round, alone and beside scrapes of {series} series",
            duration.as_secs()
        ),
        &[
            "arm",
            "alone, p99 ms",
            "scraped, p99 ms",
            "moved by, ms",
            "not counted: the client sent late, p99 ms",
            "scrapes meanwhile",
        ],
        rows,
    );
}

/// What would lie silently if it were wrong.
pub fn check() {
    let same = [("a_bucket{x=\"1\",le=\"1.0\"} 5", "a_bucket{x=\"1\",le=\"1\"} 5.0"), ("a 1e+06", "a 1000000")];
    for (one, other) in same {
        assert_eq!(canonical(one), canonical(other));
    }
    for (one, other) in [("a{b=\"1\"} 1", "a{b=\"1.0\"} 1"), ("a 1", "a 2"), ("# HELP a 1", "# HELP a 1.0")] {
        assert_ne!(canonical(one), canonical(other));
    }
}
