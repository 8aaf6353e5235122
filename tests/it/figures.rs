//! Numbers that come from a benchmark are those of docs/benchmarks.md, wherever they are told.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

#[allow(dead_code, reason = "bench/ uses all of it")]
#[path = "../../bench/quotes.rs"]
mod quotes;
#[allow(dead_code, reason = "bench/ uses all of it")]
#[path = "../../bench/recorded.rs"]
mod recorded;

use quotes::{BENCHMARKS, QUOTES, Quote};
use recorded::Figures;

/// A number that belongs to what was measured, and that no run changes.
struct Fixed {
    file: &'static str,
    /// A piece of the file, with `{}` for each number.
    text: &'static str,
    #[allow(dead_code, reason = "for whoever reads the list")]
    reason: &'static str,
}

const FIXED: &[Fixed] = &[
    Fixed { file: "README.md", text: "with {} cores", reason: "the machine" },
    Fixed { file: "README.md", text: "itself with {} users, read at random, instead of {} |", reason: "the load" },
    Fixed { file: "README.md", text: "A scrape of {} series", reason: "the load" },
    Fixed { file: "README.md", text: "{} clients get", reason: "the load" },
    Fixed { file: "README.md", text: "with prometheus-client | {}/", reason: "one over the figure" },
    Fixed { file: BENCHMARKS, text: "**A {}th of FastAPI's CPU time.**", reason: "the goal" },
    Fixed { file: BENCHMARKS, text: "HTTP/{} over", reason: "a version" },
    Fixed { file: BENCHMARKS, text: "can reach a {}th; ours takes {}/", reason: "the goal, and one over the figure" },
    Fixed { file: BENCHMARKS, text: "**Getting one of {} users against one of {}.**", reason: "the load" },
    Fixed {
        file: BENCHMARKS,
        text: "All of the {} users are in memory once they were read; of {}",
        reason: "the load",
    },
    Fixed { file: BENCHMARKS, text: "about {} % are ({} MB)", reason: "what the memory for users may take" },
    Fixed { file: BENCHMARKS, text: "the same {} users", reason: "the load" },
    Fixed { file: BENCHMARKS, text: "{} clients get", reason: "the load" },
    Fixed { file: BENCHMARKS, text: "appends {} bytes", reason: "the load" },
    Fixed { file: BENCHMARKS, text: "A disk that takes {} ms decides again, and the {} share", reason: "an example" },
    Fixed { file: BENCHMARKS, text: "**axum's {}**", reason: "the goal" },
    Fixed { file: BENCHMARKS, text: "beside scrapes of {} series", reason: "the load" },
    Fixed { file: BENCHMARKS, text: "scrapes in {} s keep one", reason: "the length of a round" },
    Fixed { file: BENCHMARKS, text: "up to {} ms at", reason: "Linux's" },
    Fixed { file: BENCHMARKS, text: "**The binary's {} MB.**", reason: "the goal" },
    Fixed { file: "bench/connections.rs", text: "may wake a thread {} µs late", reason: "Linux's" },
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_readers_of_recorded_figures_and_of_sentences_are_right() {
    recorded::check();
    quotes::check();
}

#[test]
fn sentences_that_repeat_a_figure_have_the_recorded_one() {
    let figures = Figures::of(&quotes::read(root(), BENCHMARKS));
    let differs = |quote: &Quote| {
        let text = quotes::read(root(), quote.file);
        let renewed = match quote.renewed(&text, &figures) {
            Ok(renewed) => renewed,
            Err(wrong) => return Some(wrong),
        };
        let (said, recorded) = (said(quote, &text), said(quote, &renewed));
        (said != recorded).then(|| format!("{}: {said:?}, recorded are {recorded:?}", quote.file))
    };

    let found: Vec<_> = QUOTES.iter().filter_map(differs).collect();

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn recording_puts_the_new_figures_into_the_sentences() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("docs")).unwrap();
    let before = ["README.md", "docs/design.md", BENCHMARKS].map(|file| (file, quotes::read(root(), file)));
    let row = "| RED bookkeeping of one request, one thread | ≤ 90 ns | ";
    for (file, text) in &before {
        let (start, rest) = text.split_once(row).map_or((text.as_str(), None), |(start, rest)| (start, Some(rest)));
        let rest = rest.map(|rest| format!("{row}7 (6 to 8) ns{}", &rest[rest.find(" | ").unwrap()..]));
        std::fs::write(folder.path().join(file), format!("{start}{}", rest.unwrap_or_default())).unwrap();
    }

    quotes::find(folder.path()).unwrap();
    quotes::renew(folder.path()).unwrap();

    let changed = |file: &str, text: &str| {
        let after = quotes::read(folder.path(), file);
        assert_eq!(after.lines().count(), text.lines().count(), "{file}");
        let lines = after.lines().zip(text.lines()).filter(|(after, before)| after != before);
        lines.map(|(after, _)| after.to_owned()).collect::<Vec<_>>()
    };
    let [readme, design, benchmarks] = before.map(|(file, text)| changed(file, &text));
    assert!(matches!(&readme[..], [line] if line.contains("bookkeeping alone is 7 ns;")), "{readme:?}");
    assert!(matches!(&design[..], [line] if line.contains("Ours takes 7 and")), "{design:?}");
    assert!(matches!(&benchmarks[..], [line] if line.starts_with(row)), "{benchmarks:?}");
}

#[test]
fn a_sentence_that_its_file_does_not_have_is_told_before_anything_is_measured() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("docs")).unwrap();
    for quote in QUOTES {
        std::fs::write(folder.path().join(quote.file), "# Nothing\n").unwrap();
    }

    let told = quotes::find(folder.path()).unwrap_err();

    assert!(told.starts_with("README.md does not say"), "{told}");
}

/// A sentence as its file has it, from its first number to its last.
fn said<'a>(quote: &Quote, text: &'a str) -> &'a str {
    let numbers = quote.numbers(text).unwrap();
    &text[numbers[0].start..numbers[numbers.len() - 1].end]
}

#[test]
fn no_other_sentence_has_a_measured_number() {
    let mut found = Vec::new();
    let mut unused: BTreeSet<_> = FIXED.iter().map(|fixed| (fixed.file, fixed.text)).collect();
    for (file, text) in documents() {
        let quotes = QUOTES.iter().filter(|quote| quote.file == file);
        let quoted = quotes.filter_map(|quote| quote.numbers(&text).ok()).flatten();
        let mut known: BTreeSet<usize> = quoted.map(|number| number.start).collect();
        for fixed in FIXED.iter().filter(|fixed| fixed.file == file) {
            let places = quotes::places(&text, fixed.text);
            if !places.is_empty() {
                unused.remove(&(fixed.file, fixed.text));
            }
            known.extend(places.into_iter().flatten().map(|number| number.start));
        }
        let others = measured(&file, &text).into_iter().filter(|number| !known.contains(&number.start));
        found.extend(others.map(|number| format!("{file}: {:?}", around(&text, number))));
    }

    assert_eq!(found, Vec::<String>::new(), "list these in bench/quotes.rs if a benchmark has them, else in FIXED");
    assert!(unused.is_empty(), "FIXED lists what no file says: {unused:?}");
}

#[test]
fn a_measured_number_is_found_where_it_is_told() {
    let cases = [
        ("README.md", "A request takes 8 µs.", &["8"][..], "a unit that only measurements have"),
        ("docs/push.md", "It costs 1,200\nns (or 9.5ns).", &["1,200", "9.5"], "over a line's end, and without a blank"),
        ("src/a.rs", "// 8 µs\nfn f() { g(\"9 µs\") }\n/// 10 ns\n", &["8", "9", "10"], "source"),
        ("README.md", "## What it costs\n\n12 MB, P99, `13`\n\n```\n14\n```\n## Next\n15 MB", &["12"], "its section"),
        (BENCHMARKS, "1 MB\n## What is not reached, and why\n2 MB", &["2"], "the words about the results"),
        (BENCHMARKS, "<!-- results -->\n3 µs\n<!-- /results -->\n4 µs", &["4"], "the results themselves"),
        ("docs/push.md", "It waits 5 s, 10 ms and holds 64 MiB of nsx.", &[], "settings"),
    ];
    for (file, text, expected, reason) in cases {
        let found: Vec<_> = measured(file, text).into_iter().map(|number| &text[number]).collect();

        assert_eq!(found, expected, "{reason}: {text:?}");
    }
}

/// Whatever people read about the project, by its path.
fn documents() -> Vec<(String, String)> {
    let folders = ["docs", "src", "bench", "benches", "examples", "scripts", "deploy", "terraform"];
    let files = folders.iter().flat_map(|folder| files(&root().join(folder)));
    let named = ["README.md", "Cargo.toml", "Makefile", "Dockerfile", "docker-compose.yml"];
    let files = files.chain(named.map(|file| root().join(file)));
    let path = |file: &Path| file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    // What is no text has no sentences. The list of quotes has patterns, and cases of its own.
    let read = |file: PathBuf| Some((path(&file), std::fs::read_to_string(&file).ok()?));
    files.filter_map(read).filter(|(file, _)| file != "bench/quotes.rs" && file != "bench/recorded.rs").collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The numbers that were measured: those in nanoseconds and microseconds, and in sections on costs all of them. Those of
/// the results, and what stands in code within a page, are no sentences.
fn measured(file: &str, text: &str) -> Vec<Range<usize>> {
    let is_page = file.ends_with(".md");
    let mut found = Vec::new();
    let (mut in_code, mut in_results, mut in_costs, mut start) = (false, false, false, 0);
    for line in text.split_inclusive('\n') {
        if line.starts_with("<!-- results") || line.starts_with("<!-- /results") {
            in_results = file == BENCHMARKS && !line.contains('/');
        } else if is_page && line.starts_with("```") {
            in_code = !in_code;
        } else if line.starts_with("## ") {
            in_costs = is_page && (line.starts_with("## What it costs") || line.starts_with("## What is not reached"));
        } else if !in_code && !in_results {
            let numbers = numbers(line, is_page).into_iter().map(|number| start + number.start..start + number.end);
            found.extend(numbers.filter(|number| in_costs || is_tiny(&text[number.end..])));
        }
        start += line.len();
    }
    found
}

/// The unit that follows is one that only measurements have.
fn is_tiny(after: &str) -> bool {
    let unit: String = after.trim_start().chars().take_while(|c| c.is_alphanumeric()).collect();
    ["ns", "µs", "us"].contains(&unit.as_str())
}

/// The numbers of a line that stand for themselves, not within a name, and in a page not within code.
fn numbers(line: &str, is_page: bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut at, mut before, mut in_code) = (0, ' ', false);
    while let Some(c) = line[at..].chars().next() {
        in_code ^= is_page && c == '`';
        let length = quotes::number(&line[at..]);
        if c.is_ascii_digit() && !before.is_alphanumeric() && before != '_' && !in_code {
            found.push(at..at + length);
        }
        let taken = if c.is_ascii_digit() { length } else { c.len_utf8() };
        before = if c.is_ascii_digit() { '0' } else { c };
        at += taken;
    }
    found
}

/// A number with some of what stands around it.
fn around(text: &str, number: Range<usize>) -> String {
    let before: String = text[..number.start].chars().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect();
    let after: String = text[number.start..].chars().take(30).collect();
    before + &after
}
