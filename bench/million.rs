//! A million users against a thousand: a page, a user, and the memory that a listing of all takes.

use serde::de::IgnoredAny;
use serde_json::Value;

use crate::arms::Bench;
use crate::http::fetch;
use crate::process::Server;
use crate::report::{Goal, Report};
use crate::rounds::{Spread, each, interleaved};
use crate::wrk::{Load, Numbered, Wrk};

const FEW: u64 = 1000;
const MANY: u64 = 1_000_000;
const PAGE: u64 = 100;

pub fn run(bench: &Bench, report: &mut Report) {
    let many = bench.many(MANY, 10);
    let [few_database, many_database] = [("few", FEW), ("many", many)].map(|(name, users)| bench.database(name, users));
    let mut arms = [
        (bench.ours("1,000 users", &few_database, "warn"), FEW),
        (bench.ours("1,000,000 users", &many_database, "warn"), many),
    ];
    let mut rows = Vec::new();
    let user = |users| Numbered { path: "/api/users/", first: 1, last: users };
    // Every page is full, wherever it starts.
    let page = |users| Numbered { path: "/api/users?limit=100&after=", first: 0, last: users - PAGE };
    compare(bench, report, &mut rows, &mut arms, "GET /api/users?limit=100&after=X", page);
    compare(bench, report, &mut rows, &mut arms, "GET /api/users/{id}, the same 1,000 users", |_| user(FEW));
    compare(bench, report, &mut rows, &mut arms, "GET /api/users/{id}, all users", user);
    report.table(
        &format!("{}, X and ids at random", Wrk::usage(bench.lasting(2))),
        &["request", "users", "CPU µs/request", "requests/s", "p50 ms", "p99 ms"],
        rows,
    );
    drop(arms);
    list_all(bench, report, &many_database, many);
}

struct Measured {
    load: Load,
    /// Microseconds a request.
    cpu: f64,
}

fn compare(
    bench: &Bench,
    report: &mut Report,
    rows: &mut Vec<Vec<String>>,
    arms: &mut [(Server, u64)],
    what: &str,
    requests: impl Fn(u64) -> Numbered,
) {
    for (arm, users) in &*arms {
        check_answers(arm, &requests(*users));
    }
    let rounds = interleaved(bench.rounds, arms, |(arm, users)| {
        let before = arm.cpu();
        let load = bench.wrk.run(arm.name, arm.address, bench.lasting(2), &requests(*users));
        let cpu = (arm.cpu() - before).as_secs_f64() * 1e6 / load.answered;
        println!("  {:<16} {what}: {cpu:.1} µs of CPU a request", arm.name);
        Measured { load, cpu }
    });
    let ratio =
        |figure: fn(&Measured) -> f64| Some(Spread::ratio(&each(&rounds[1], figure), &each(&rounds[0], figure)));
    let goal = Goal::AtMost(1.3);
    report.goal(format!("{what}, CPU per request, 1,000,000 users / 1,000"), goal, 3, "", ratio(|round| round.cpu));
    report.goal(format!("{what}, median latency, 1,000,000 users / 1,000"), goal, 3, "", ratio(|round| round.load.p50));
    for ((arm, _), rounds) in arms.iter().zip(&rounds) {
        let show = |digits, figure: fn(&Measured) -> f64| Spread::of(each(rounds, figure)).show(digits);
        rows.push(vec![
            what.to_owned(),
            arm.name.to_owned(),
            show(2, |round| round.cpu),
            show(0, |round| round.load.answered / round.load.seconds),
            show(2, |round| round.load.p50),
            show(2, |round| round.load.p99),
        ]);
    }
}

/// The first and the last of the requests get what they ask for: a full page that starts there, or that user.
fn check_answers(arm: &Server, requests: &Numbered) {
    for number in [requests.first, requests.last] {
        let path = format!("{}{number}", requests.path);
        let answer: Value = serde_json::from_slice(&fetch(arm.name, arm.address, &path)).unwrap();
        let right = match answer["users"].as_array() {
            Some(users) => users.len() as u64 == PAGE && users[0]["id"] == number + 1,
            None => answer["id"] == number,
        };
        assert!(right, "{}: GET {path}: {answer}", arm.name);
    }
}

/// All users, without looking into them.
#[derive(serde::Deserialize)]
struct Listing {
    users: Vec<IgnoredAny>,
    count: u64,
}

fn list_all(bench: &Bench, report: &mut Report, database: &std::path::Path, users: u64) {
    let mut seconds = Vec::new();
    let mut idle = Vec::new();
    // A peak never falls, so each round takes a fresh server.
    let above = interleaved(bench.rounds, &mut [()], |()| {
        let mut server = bench.ours("ours, listing all", database, "warn");
        idle.push(server.resident() / 1e6);
        let before = server.cpu();
        let body = fetch(server.name, server.address, "/api/users");
        seconds.push((server.cpu() - before).as_secs_f64());
        let listing: Listing = serde_json::from_slice(&body).unwrap();
        assert_eq!((listing.users.len() as u64, listing.count), (users, users), "all users, and their count");
        server.peak() / 1e6 - idle.last().expect("just measured")
    });
    let above = Spread::of(above.into_iter().flatten());
    let what = format!("listing all of {users} users, peak resident memory above idle");
    report.goal(what, Goal::AtMost(20.0), 1, "MB", Some(above));
    report.table(
        &format!("GET /api/users with {users} users, read to the end, a fresh server each"),
        &["idle MB", "peak above idle MB", "CPU s"],
        [vec![Spread::of(idle).show(1), above.show(1), Spread::of(seconds).show(2)]],
    );
}
