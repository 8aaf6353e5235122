//! Creating users, each acknowledged only once it is on the disk: many clients at once against one fsync at a time.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::arms::Bench;
use crate::connections::{Traffic, closed_loop, p99, quantile};
use crate::http::{fetch, post};
use crate::process::Server;
use crate::report::{Goal, Report};
use crate::rounds::{Spread, each, interleaved};

const CLIENTS: usize = 64;

/// What SQLite writes at least for a commit: one page.
const PAGE: [u8; 4096] = [0x5a; 4096];

#[derive(Clone, Copy, PartialEq)]
enum Arm {
    Many,
    One,
    Raw,
}

pub fn run(bench: &Bench, report: &mut Report) {
    let database = bench.path().join("creates.db");
    let mut server = bench.ours("ours", &database, "warn");
    let mut acknowledged = 0;
    let mut quantiles = [Vec::new(), Vec::new()];
    let mut cpu = Vec::new();
    let rounds = interleaved(bench.rounds, &mut [Arm::Many, Arm::One, Arm::Raw], |arm| {
        if *arm == Arm::Raw {
            return raw(bench);
        }
        let clients = if *arm == Arm::Many { CLIENTS } else { 1 };
        let before = server.cpu();
        let traffic = create(&server, clients, bench.lasting(2));
        acknowledged += traffic.answered;
        if *arm == Arm::Many {
            cpu.push((server.cpu() - before).as_secs_f64() * 1e6 / traffic.answered as f64);
            quantiles[0].push(quantile(&traffic.latency, 0.5));
            quantiles[1].push(p99(&traffic.latency));
        }
        let rate = traffic.answered as f64 / traffic.took.as_secs_f64();
        println!("  {clients:>2} clients: {rate:.0} creates/s");
        rate
    });
    // Killed, not ended: what was acknowledged must be there without any goodbye.
    drop(server);
    let restarted = bench.ours("ours, restarted", &database, "warn");
    let listing: Value = serde_json::from_slice(&fetch(restarted.name, restarted.address, "/api/users")).unwrap();
    assert_eq!(listing["count"], acknowledged, "as many users as acknowledged creates");

    let [many, one, raw] = [&rounds[0], &rounds[1], &rounds[2]];
    let what = |than| format!("creates/s acknowledged to {CLIENTS} clients, against {than}");
    let goal = Goal::AtLeast(5.0);
    report.goal(what("one client, one after another"), goal, 1, "times", Some(Spread::ratio(many, one)));
    report.goal(what("a bare 4096 bytes and fdatasync at a time"), goal, 1, "times", Some(Spread::ratio(many, raw)));
    let row = |name: &str, rates: &[f64], further: [String; 3]| {
        let mut row = vec![name.to_owned(), Spread::of(each(rates, |rate| *rate)).show(0)];
        row.extend(further);
        row
    };
    let none = || ["–"; 3].map(str::to_owned);
    let [p50, p99] = quantiles.map(|quantile| Spread::of(quantile).show(2));
    report.table(
        &format!("POST /api/users with a JSON body, closed loop, default settings; all {acknowledged} were there after kill -9"),
        &["arm", "acknowledged/s", "p50 ms", "p99 ms", "CPU µs/request"],
        [
            row(&format!("{CLIENTS} clients"), many, [p50, p99, Spread::of(cpu).show(1)]),
            row("one client", one, none()),
            row("append 4096 bytes, fdatasync", raw, none()),
        ],
    );
}

fn create(server: &Server, clients: usize, duration: Duration) -> Traffic {
    closed_loop(server.name, server.address, clients, duration, 201, |number| {
        post("/api/users", &format!(r#"{{"name":"User {number}","email":"user{number}@example.com"}}"#))
    })
}

/// How often a second the file system makes one small append durable.
fn raw(bench: &Bench) -> f64 {
    let mut file = tempfile::tempfile_in(bench.path()).unwrap();
    let duration = bench.lasting(1);
    let began = Instant::now();
    let mut synced = 0;
    while began.elapsed() < duration {
        file.write_all(&PAGE).unwrap();
        file.sync_data().unwrap();
        synced += 1;
    }
    f64::from(synced) / began.elapsed().as_secs_f64()
}
