//! Whole programs side by side: what the service costs, against itself without instrumentation and against others.
//!
//! ```text
//! cargo bench --bench programs                    all sections, some minutes
//! cargo bench --bench programs -- users scrapes   these
//! cargo bench --bench programs -- --quick         one short round of each, to see that all works
//! cargo bench --bench programs -- --record        all, and the results into docs/benchmarks.md and the sentences that
//!                                                 repeat them
//! ```
//!
//! The arms are measured in turn, A B C, A B C, …; ratios are taken round by round. On a machine that others share, the
//! steady figure is the CPU time that a server takes for a request, which its own clock tells to the nanosecond. Answers
//! are checked: an arm that answers something else, or dies, ends the run with its name. The results are also written to
//! target/bench/results.md.

#![allow(missing_docs, clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

mod rounds;

mod report;

mod recorded;

mod quotes;

mod machine;

mod http;

mod process;

mod connections;

mod wrk;

mod arms;

mod users;

mod scrapes;

mod creates;

mod million;

mod import;

mod job;

mod rest;

mod steps;

use std::time::Instant;

use arms::Bench;
use report::Report;

type Section = fn(&Bench, &mut Report);

const SECTIONS: [(&str, Section); 8] = [
    ("steps", steps::run),
    ("users", users::run),
    ("scrapes", scrapes::run),
    ("creates", creates::run),
    ("million", million::run),
    ("import", import::run),
    ("job", job::run),
    ("rest", rest::run),
];

fn main() {
    for check in
        [rounds::check, report::check, recorded::check, quotes::check, machine::check, wrk::check, scrapes::check]
    {
        check();
    }
    // Cargo adds `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let (flags, names): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with("--"));
    let known = |name: &String| SECTIONS.iter().any(|(section, _)| section == name);
    assert!(names.iter().all(|name| known(name)), "sections are {:?}", SECTIONS.map(|(name, _)| name));
    let [quick, record] = ["--quick", "--record"].map(|flag| flags.iter().any(|given| *given == flag));
    assert_eq!(flags.len(), usize::from(quick) + usize::from(record), "flags are --quick and --record");
    assert!(!record || (names.is_empty() && !quick), "what is recorded is a whole run");

    let bench = Bench::new(quick);
    let document = bench.root.join("docs/benchmarks.md");
    let recorded = |results: &str| {
        let text = std::fs::read_to_string(&document).expect("docs/benchmarks.md is there");
        report::splice(&text, results).unwrap_or_else(|wrong| panic!("docs/benchmarks.md: {wrong}"))
    };
    if record {
        // Now, rather than after minutes of measuring.
        recorded("");
        quotes::find(&bench.root).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
    let mut report = Report::default();
    let began = Instant::now();
    for (name, section) in SECTIONS {
        if names.is_empty() || names.iter().any(|chosen| *chosen == name) {
            println!("\n== {name} ==\n");
            let began = Instant::now();
            section(&bench, &mut report);
            println!("  ({:.0} s)", began.elapsed().as_secs_f64());
        }
    }
    let notes = format!(
        "Command: `make bench`, of which this part took {:.0} s; at least {} interleaved rounds. CPU is user and system time of the \
         server's process; ratios are taken round by round. MB are 10^6 bytes.\n",
        began.elapsed().as_secs_f64(),
        bench.rounds
    );
    let machine = machine::machine() + "\n" + &machine::versions(&bench.root, &bench.wrk.version);
    let results = report.finish(&machine, &notes);
    println!("\n== results ==\n\n{results}");
    std::fs::write(bench.root.join("target/bench/results.md"), &results).unwrap();
    if record {
        std::fs::write(&document, recorded(&results)).unwrap();
        quotes::renew(&bench.root).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}
