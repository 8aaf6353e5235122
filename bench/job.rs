//! `job`: what the wrapper adds to a command.

use std::path::Path;
use std::time::Duration;

use crate::arms::{BINARY, Bench};
use crate::process::{command, timed};
use crate::report::{Goal, Report};
use crate::rounds::Spread;

/// Pairs of a round; its figures are medians over them.
const PAIRS: usize = 60;

pub fn run(bench: &Bench, report: &mut Report) {
    // By its path, as the wrapper is: a name would be looked up in a copy of this large process, which takes longer than
    // the command.
    let program = ["/usr/bin/true", "/bin/true"].into_iter().find(|path| Path::new(path).exists());
    let program = Path::new(program.expect("each system has true"));
    let bare = || milliseconds(timed(command(program, bench.path())));
    let wrapped = || {
        let mut job = command(Path::new(BINARY), bench.path());
        job.args(["job", "--name", "bench", "--"]).arg(program);
        milliseconds(timed(job))
    };
    let (mut bares, mut added) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        // One of each in turn, so that what else the machine does meets both.
        let pairs: Vec<_> = (0..PAIRS).map(|_| (bare(), wrapped())).collect();
        bares.push(Spread::of(pairs.iter().map(|(bare, _)| *bare)).median);
        added.push(Spread::of(pairs.iter().map(|(bare, wrapped)| wrapped - bare)).median);
    }
    let added = Spread::of(added);
    assert!(added.low > 0.0, "a command within another takes longer than alone: {added:?}");
    report.goal("`job` around `true`, without a push, more than `true` bare", Goal::AtMost(5.0), 2, "ms", Some(added));
    report.table(
        &format!("`api-monitoring job --name bench -- /usr/bin/true`, medians of {PAIRS} pairs a round"),
        &["bare ms", "wrapped: more, ms"],
        [vec![Spread::of(bares).show(2), added.show(2)]],
    );
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
