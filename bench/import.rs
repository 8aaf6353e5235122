//! `import`: rows a second into a fresh SQLite file, and whether memory grows with the rows.

use std::path::PathBuf;

use crate::arms::{self, Bench};
use crate::process::{Ended, watched};
use crate::report::{Goal, Report};
use crate::rounds::{Spread, each, interleaved};

const ROWS: u64 = 1_000_000;
/// What the memory of all rows is compared with.
const PART: u64 = 10;

/// What "flat" allows: the allocator and the page cache of SQLite take a little more in a longer run.
const FLAT: f64 = 1.1;

struct File {
    path: PathBuf,
    rows: u64,
}

pub fn run(bench: &Bench, report: &mut Report) {
    let rows = bench.many(ROWS, 10);
    for (format, name, head) in [("csv", "CSV", "name,email\n"), ("jsonl", "JSON lines", "")] {
        let file = |rows: u64| {
            let path = bench.path().join(format!("{rows}.{format}"));
            arms::write_rows(&path, rows, head, |row| match format {
                "csv" => format!("User {row},user{row}@example.com\n"),
                _ => format!("{{\"name\":\"User {row}\",\"email\":\"user{row}@example.com\"}}\n"),
            });
            File { path, rows }
        };
        compare(bench, report, name, &mut [file(rows), file(rows / PART)]);
    }
}

fn compare(bench: &Bench, report: &mut Report, name: &str, files: &mut [File; 2]) {
    let rounds = interleaved(bench.rounds, files, |file| {
        let folder = tempfile::tempdir_in(bench.path()).unwrap();
        let ended = watched(arms::import(&file.path, &folder.path().join("users.db"), folder.path()));
        println!("  {name}, {} rows: {:.2} s, {:.1} MB", file.rows, ended.took.as_secs_f64(), ended.peak / 1e6);
        ended
    });
    let [all, part] = &*files;
    let rate =
        |file: &File, rounds: &[Ended]| Spread::of(each(rounds, |run| file.rows as f64 / run.took.as_secs_f64()));
    let peak = |run: &Ended| run.peak / 1e6;
    let memory = Spread::ratio(&each(&rounds[0], peak), &each(&rounds[1], peak));
    let what = format!("import of {} rows, {name}, into a fresh SQLite file", all.rows);
    report.goal(&what, Goal::AtLeast(100_000.0), 0, "rows/s", Some(rate(all, &rounds[0])));
    let what = format!("{what}: peak memory against {} rows", part.rows);
    report.goal(what, Goal::AtMost(FLAT), 2, "", Some(memory));
    let rows = files.iter().zip(&rounds).map(|(file, rounds)| {
        vec![file.rows.to_string(), rate(file, rounds).show(0), Spread::of(each(rounds, peak)).show(1)]
    });
    report.table(&format!("`api-monitoring import`, {name}"), &["rows", "rows/s", "peak resident MB"], rows);
}
