//! `GET /api/users/{id}`: what a request costs the server, and how it stands beside others.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::arms::{BINARY, Bench};
use crate::connections::{Traffic, p99, quantile, steady};
use crate::http::{fetch, get};
use crate::process::{Server, command, timed};
use crate::report::{Goal, Report};
use crate::rounds::{Spread, each, interleaved};
use crate::wrk::{Load, Numbered, Wrk};

const USERS: u64 = 1000;
const REQUESTS: Numbered = Numbered { path: "/api/users/", first: 1, last: USERS };

/// Requests per second that the slowest of the arms can answer too.
const STEADY_RATE: f64 = 500.0;
const STEADY_CONNECTIONS: usize = 16;

/// Requests per second of `load`, of which some write and some wait for seconds.
const MIXED_RATE: u64 = 500;

/// More than elsewhere, since some of these ratios are to be told from 1.
const ROUNDS: u64 = 9;

const OURS: &str = "ours";
const UNINSTRUMENTED: &str = "ours, not instrumented";
const LOGGED: &str = "ours, a log line each";
const HYPER: &str = "hyper, no store";
const AXUM: &str = "axum + axum-prometheus, no store";
const FASTAPI: &str = "FastAPI + prometheus-client";

const GOALS: [(&str, f64); 4] = [(UNINSTRUMENTED, 1.04), (HYPER, 1.2), (AXUM, 0.9), (FASTAPI, 1.0 / 60.0)];

pub fn run(bench: &Bench, report: &mut Report) {
    let mut arms = start(bench, report);
    for arm in &arms {
        check_answer(arm);
    }
    closed_loop(bench, report, &mut arms);
    open_loop(bench, report, &mut arms);
    mixed(bench, report, &mut arms);
}

fn start(bench: &Bench, report: &mut Report) -> Vec<Server> {
    let database = bench.database("users", USERS);
    let copy = |name: &str| {
        let copy = bench.path().join(format!("users-{name}.db"));
        std::fs::copy(&database, &copy).unwrap();
        copy
    };
    let arms = [
        (HYPER, bench.peer(HYPER, "hyper", None)),
        (UNINSTRUMENTED, Some(bench.uninstrumented(UNINSTRUMENTED, &copy("uninstrumented")))),
        (OURS, Some(bench.ours(OURS, &copy("ours"), "warn"))),
        (LOGGED, Some(bench.ours(LOGGED, &copy("logged"), "info"))),
        (AXUM, bench.peer(AXUM, "axum", None)),
        (FASTAPI, bench.peer(FASTAPI, "fastapi", None)),
    ];
    arms.into_iter().filter_map(|(name, server)| server.or_else(|| report.left_out(name))).collect()
}

/// All answer the same: what costs less must not do less.
fn check_answer(arm: &Server) {
    for id in [1, 7, USERS] {
        let body = fetch(arm.name, arm.address, &format!("/api/users/{id}"));
        let expected = json!({"id": id, "name": format!("User {id}"), "email": format!("user{id}@example.com")});
        let user: Option<Value> = serde_json::from_slice(&body).ok();
        assert_eq!(user, Some(expected), "{}: {}", arm.name, String::from_utf8_lossy(&body));
    }
}

/// A load, and microseconds of the server's CPU for each request of it.
struct Measured<L> {
    load: L,
    cpu: f64,
}

fn measured<L>(arm: &mut Server, load: impl FnOnce(&Server) -> L, answered: impl FnOnce(&L) -> f64) -> Measured<L> {
    let before = arm.cpu();
    let load = load(arm);
    let cpu = (arm.cpu() - before).as_secs_f64() * 1e6 / answered(&load);
    // No server answers within a microsecond: the processor was another process'.
    assert!(cpu > 1.0, "{}: {cpu} µs a request; the program that was started is not the one that answers", arm.name);
    Measured { load, cpu }
}

fn closed_loop(bench: &Bench, report: &mut Report, arms: &mut [Server]) {
    let duration = bench.lasting(2);
    let rounds = bench.many(ROUNDS, ROUNDS) as usize;
    let under_load = |arm: &mut Server| {
        measured(arm, |arm| bench.wrk.run(arm.name, arm.address, duration, &REQUESTS), |load| load.answered)
    };
    // A just-in-time compiler, a cache, or a pool may still be cold.
    for arm in &mut *arms {
        bench.wrk.run(arm.name, arm.address, Duration::from_secs(1), &REQUESTS);
    }
    let rounds = interleaved(rounds, arms, |arm| {
        let measured: Measured<Load> = under_load(arm);
        println!("  {:<34} {:8.2} µs of CPU a request", arm.name, measured.cpu);
        measured
    });

    let cpu = |name: &str| {
        let index = arms.iter().position(|arm| arm.name == name)?;
        Some(each(&rounds[index], |round| round.cpu))
    };
    let ours = cpu(OURS).expect("our own arm is always there");
    for (peer, goal) in GOALS {
        let ratio = cpu(peer).map(|peer| Spread::ratio(&ours, &peer));
        report.goal(format!("GET /api/users/{{id}}, CPU per request, ours / {peer}"), Goal::AtMost(goal), 4, "", ratio);
    }
    let rows = arms.iter().zip(&rounds).map(|(arm, rounds)| {
        let show = |digits, figure: fn(&Measured<Load>) -> f64| Spread::of(each(rounds, figure)).show(digits);
        let to_ours = Spread::ratio(&ours, &each(rounds, |round| round.cpu));
        vec![
            arm.name.to_owned(),
            show(2, |round| round.cpu),
            to_ours.show(3),
            show(0, |round| round.load.answered / round.load.seconds),
            show(2, |round| round.load.p50),
            show(2, |round| round.load.p90),
            show(2, |round| round.load.p99),
        ]
    });
    report.table(
        &format!("GET /api/users/{{id}}, closed loop: {}, ids of {USERS} users at random", Wrk::usage(duration)),
        &["arm", "CPU µs/request", "ours / arm", "requests/s", "p50 ms", "p90 ms", "p99 ms"],
        rows,
    );
}

fn open_loop(bench: &Bench, report: &mut Report, arms: &mut [Server]) {
    let duration = bench.lasting(2);
    let request = |number: u64| get(&format!("/api/users/{}", 1 + number * 617 % USERS));
    let rounds = interleaved(bench.rounds, arms, |arm| {
        let load = |arm: &Server| steady(arm.name, arm.address, STEADY_CONNECTIONS, STEADY_RATE, duration, request);
        measured(arm, load, |traffic| traffic.answered as f64)
    });
    let rows = arms.iter().zip(&rounds).map(|(arm, rounds)| {
        let show = |digits, figure: fn(&Measured<Traffic>) -> f64| Spread::of(each(rounds, figure)).show(digits);
        vec![
            arm.name.to_owned(),
            show(1, |round| round.cpu),
            show(3, |round| quantile(&round.load.latency, 0.5)),
            show(3, |round| quantile(&round.load.latency, 0.9)),
            show(3, |round| p99(&round.load.latency)),
            show(3, |round| p99(&round.load.late)),
        ]
    });
    let seconds = duration.as_secs();
    report.table(
        &format!("GET /api/users/{{id}}, open loop: {STEADY_RATE} requests/s for {seconds} s a round, latency from when each was due"),
        &["arm", "CPU µs/request", "p50 ms", "p90 ms", "p99 ms", "of it the client's own lateness, p99 ms"],
        rows,
    );
}

/// Our own `load` writes, so it comes last.
fn mixed(bench: &Bench, report: &mut Report, arms: &mut Vec<Server>) {
    let seconds = bench.lasting(3).as_secs();
    arms.retain(|arm| [OURS, UNINSTRUMENTED].contains(&arm.name));
    let rounds = interleaved(bench.rounds, arms, |arm| {
        measured(arm, |arm| load(bench, arm, seconds), |load| load["answered"].as_f64().unwrap())
    });
    let rows = arms.iter().zip(&rounds).map(|(arm, rounds)| {
        let show = |digits, figure: &dyn Fn(&Measured<Value>) -> f64| Spread::of(each(rounds, figure)).show(digits);
        let latency = |quantile| show(2, &|round| round.load["latency_seconds"][quantile].as_f64().unwrap() * 1e3);
        let rate = |round: &Measured<Value>| {
            round.load["answered"].as_f64().unwrap() / round.load["sending_seconds"].as_f64().unwrap()
        };
        let mut row = vec![arm.name.to_owned(), show(1, &|round| round.cpu), show(0, &rate)];
        row.extend(["p50", "p90", "p95"].map(latency));
        row
    });
    report.table(
        &format!("Mixed traffic, open loop: `api-monitoring load --rate {MIXED_RATE} --duration {seconds}s`; 1.5 % of it waits 2 to 3 s on purpose"),
        &["arm", "CPU µs/request", "requests/s", "p50 ms", "p90 ms", "p95 ms"],
        rows,
    );
}

fn load(bench: &Bench, arm: &Server, seconds: u64) -> Value {
    let file = bench.path().join("load.json");
    let mut load = command(Path::new(BINARY), bench.path());
    load.args(["load", "--target", &format!("http://{}", arm.address), "--rate", &MIXED_RATE.to_string()]);
    load.args(["--duration", &format!("{seconds}s"), "--report"]).arg(&file).stderr(std::process::Stdio::null());
    timed(load);
    let report: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let unanswered = report["unanswered"].as_object().is_none_or(|reasons| !reasons.is_empty());
    assert!(!unanswered && report["not_started"] == 0, "{}: load: {report}", arm.name);
    report
}
