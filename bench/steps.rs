//! Single steps, as `cargo bench --bench micro` has just measured them: criterion's samples, read from its folder.

use std::fs::Metadata;
use std::path::{Path, PathBuf};

use crate::arms::{BINARY, Bench};
use crate::report::{Goal, Report};
use crate::rounds::Spread;

/// What has a goal: the folder of the figure, what it is, and the nanoseconds.
const GOALS: [(&str, &str, f64); 2] = [
    ("red_observe/one_thread", "RED bookkeeping of one request, one thread", 90.0),
    ("red_observe/two_threads", "the same, two threads on the same route", 200.0),
];

pub fn run(_: &Bench, report: &mut Report) {
    let folder = Path::new(BINARY).ancestors().nth(2).expect("the binary is in target/release").join("criterion");
    let mut figures: Vec<(String, Spread)> = figures(&folder);
    figures.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (figure, what, most) in GOALS {
        let measured = figures.iter().find(|(known, _)| known == figure).map(|(_, spread)| *spread);
        report.goal(what, Goal::AtMost(most), 0, "ns", measured);
    }
    if figures.is_empty() {
        report.left_out::<()>("single steps (cargo bench --bench micro)");
        return;
    }
    let rows = figures.iter().map(|(figure, spread)| vec![figure.replace('_', " "), show(*spread)]);
    report.table("Single steps, wall-clock time, the samples' median and range:", &["step", "time"], rows);
}

/// Every figure of the newest run. Those that were measured before the program was built are of another program.
fn figures(folder: &Path) -> Vec<(String, Spread)> {
    let built = modified(std::fs::metadata(BINARY));
    let samples = files(folder).into_iter().filter(|file| file.ends_with("new/sample.json"));
    let current = samples.filter(|file| modified(std::fs::metadata(file)) >= built);
    current
        .map(|file| {
            let text = std::fs::read_to_string(&file).unwrap();
            let sample: serde_json::Value = serde_json::from_str(&text).unwrap();
            let numbers = |name: &str| -> Vec<f64> {
                sample[name].as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
            };
            let spread = Spread::ratio(&numbers("times"), &numbers("iters"));
            let figure = file.ancestors().nth(2).unwrap().strip_prefix(folder).unwrap();
            (figure.to_str().unwrap().to_owned(), spread)
        })
        .collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn modified(file: std::io::Result<Metadata>) -> std::time::SystemTime {
    file.and_then(|file| file.modified()).unwrap()
}

fn show(nanoseconds: Spread) -> String {
    let (unit, digits, name) = match nanoseconds.median {
        median if median < 1e3 => (1.0, 0, "ns"),
        median if median < 1e6 => (1e3, 1, "µs"),
        _ => (1e6, 1, "ms"),
    };
    let Spread { median, low, high } = nanoseconds;
    format!("{} {name}", Spread { median: median / unit, low: low / unit, high: high / unit }.show(digits))
}
