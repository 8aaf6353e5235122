//! The service at rest: its binary, its start, its memory when nobody asks for anything.
//!
//! The last section: its binary is the one that users get, and takes the place of the one that the others measure.

use crate::arms::{BINARY, Bench};
use crate::report::{Goal, Report};
use crate::rounds::Spread;

/// Starts of a round; cheap, and the first may read from the disk.
const STARTS: usize = 3;

pub fn run(bench: &Bench, report: &mut Report) {
    bench.build_plain();
    let database = bench.database("rest", 1000);
    let (mut took, mut memory) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds * STARTS {
        let server = bench.ours("ours, at rest", &database, "warn");
        took.push(server.took.as_secs_f64() * 1e3);
        memory.push(server.resident() / 1e6);
    }
    let (took, memory) = (Spread::of(took), Spread::of(memory));
    let binary = Spread::of([std::fs::metadata(BINARY).unwrap().len() as f64 / 1e6]);
    report.goal("resident memory, idle", Goal::AtMost(15.0), 1, "MB", Some(memory));
    report.goal("start until ready, existing database", Goal::AtMost(50.0), 1, "ms", Some(took));
    report.goal("release binary, stripped", Goal::AtMost(15.0), 2, "MB", Some(binary));
}
