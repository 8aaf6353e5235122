//! The figures of docs/benchmarks.md that sentences repeat. Recording puts the new ones into the sentences, and
//! tests/it/figures.rs fails when one differs.

use std::ops::Range;
use std::path::Path;

use super::recorded::At::{Cell, Goal, Step};
use super::recorded::{At, Figures};

/// A sentence with figures.
pub struct Quote {
    pub file: &'static str,
    /// A piece of the file that it has only once, with `{}` for each number. Any white space stands for any other.
    text: &'static str,
    figures: &'static [(At, Shown)],
}

/// How a number is made of a figure.
#[derive(Debug, Clone, Copy)]
enum Shown {
    /// The median to so many digits after the point.
    Digits(usize),
    Low(usize),
    High(usize),
    /// One over the median, to so many digits after the point.
    Inverse(usize),
    /// The median, its first digits only: 954582 is 950,000.
    First(i32),
    LowFirst(i32),
    HighFirst(i32),
}

use Shown::{Digits, First, High, HighFirst, Inverse, Low, LowFirst};

const README: &str = "README.md";
const DESIGN: &str = "docs/design.md";
pub const BENCHMARKS: &str = "docs/benchmarks.md";

const ARMS: &str = "GET /api/users/{id}, closed loop";
const CPU: &str = "CPU µs/request";
const RANDOM: &str = "wrk -t1 -c32";
const CREATES: &str = "POST /api/users with a JSON body";
const ONE_THREAD: At = Goal("RED bookkeeping of one request, one thread");
const TWO_THREADS: At = Goal("the same, two threads on the same route");
const FASTAPI: At = Goal("GET /api/users/{id}, CPU per request, ours / FastAPI + prometheus-client");
const AXUM: At = Goal("GET /api/users/{id}, CPU per request, ours / axum + axum-prometheus, no store");
const OF_A_THOUSAND: At = Cell(RANDOM, "GET /api/users/{id}, all users, 1,000 users", CPU);
const OF_A_MILLION: At = Cell(RANDOM, "GET /api/users/{id}, all users, 1,000,000 users", CPU);
const CREATED: At = Cell(CREATES, "64 clients", "acknowledged/s");
const BESIDE_ONE: At = Goal("creates/s acknowledged to 64 clients, against one client, one after another");
const BESIDE_FLUSHES: At =
    Goal("creates/s acknowledged to 64 clients, against a bare 4096 bytes and fdatasync at a time");
const BINARY: At = Goal("release binary, stripped");

pub const QUOTES: &[Quote] = &[
    Quote {
        file: README,
        text: "| itself without instrumentation | {} times | bookkeeping alone is {} ns; a log line for each request \
               makes it {} times that |",
        figures: &[
            (Goal("GET /api/users/{id}, CPU per request, ours / ours, not instrumented"), Digits(2)),
            (ONE_THREAD, Digits(0)),
            (Cell(ARMS, "ours, a log line each", "ours / arm"), Inverse(1)),
        ],
    },
    Quote {
        file: README,
        text: "| a bare hyper server without a store | {} times |",
        figures: &[(Goal("GET /api/users/{id}, CPU per request, ours / hyper, no store"), Digits(2))],
    },
    Quote {
        file: README,
        text: "| axum with axum-prometheus, without a store | {} times |",
        figures: &[(AXUM, Digits(2))],
    },
    Quote {
        file: README,
        text: "| the origin's design, FastAPI with prometheus-client | 1/{} |",
        figures: &[(FASTAPI, Inverse(0))],
    },
    Quote {
        file: README,
        text: "read at random, instead of 1,000 | {} times | slower: most come from SQLite, in {} µs instead of {} |",
        figures: &[
            (Goal("GET /api/users/{id}, all users, CPU per request, 1,000,000 users / 1,000"), Digits(1)),
            (OF_A_MILLION, Digits(0)),
            (OF_A_THOUSAND, Digits(0)),
        ],
    },
    Quote {
        file: README,
        text: "A scrape of 100,000 series takes {} times what Go's `client_golang` takes, and moved the P99 of other \
               requests by {} ms.",
        figures: &[
            (Goal("exposition of 100000 series as text, CPU per scrape, ours / client_golang"), Digits(2)),
            (
                Goal("p99 of GET /health while 100000 series are scraped without a pause, against nobody scraping"),
                Digits(1),
            ),
        ],
    },
    Quote {
        file: README,
        text: "64 clients get {} to {} creates a second acknowledged, each on the disk; `import` writes {} rows a \
               second; `job` adds {} ms to a command. At rest the service takes {} MB, starts in {} ms, and is one \
               file of {} MB.",
        figures: &[
            (CREATED, LowFirst(2)),
            (CREATED, HighFirst(2)),
            (Goal("import of 1000000 rows, CSV, into a fresh SQLite file"), First(2)),
            (Goal("`job` around `true`, without a push, more than `true` bare"), Digits(1)),
            (Goal("resident memory, idle"), Digits(0)),
            (Goal("start until ready, existing database"), Digits(0)),
            (BINARY, Digits(1)),
        ],
    },
    Quote {
        file: DESIGN,
        text: "take {} ns a request on one thread and {} on two, which share their cache lines. Ours takes {} and {}",
        figures: &[
            (Step("red crate handles/one thread"), Digits(0)),
            (Step("red crate handles/two threads"), Digits(0)),
            (ONE_THREAD, Digits(0)),
            (TWO_THREADS, Digits(0)),
        ],
    },
    Quote {
        file: BENCHMARKS,
        text: "It takes {} µs a request here; the bare hyper server takes {},",
        figures: &[
            (Cell(ARMS, "FastAPI + prometheus-client", CPU), Digits(0)),
            (Cell(ARMS, "hyper, no store", CPU), Digits(1)),
        ],
    },
    Quote { file: BENCHMARKS, text: "ours takes 1/{} of FastAPI's.", figures: &[(FASTAPI, Inverse(0))] },
    Quote {
        file: BENCHMARKS,
        text: "a request takes {} µs instead of {}.",
        figures: &[(OF_A_MILLION, Digits(0)), (OF_A_THOUSAND, Digits(0))],
    },
    Quote {
        file: BENCHMARKS,
        text: "takes {} times as long, and a read of the same 1,000 users {} times.",
        figures: &[
            (Goal("GET /api/users?limit=100&after=X, CPU per request, 1,000,000 users / 1,000"), Digits(2)),
            (Goal("GET /api/users/{id}, the same 1,000 users, CPU per request, 1,000,000 users / 1,000"), Digits(2)),
        ],
    },
    Quote {
        file: BENCHMARKS,
        text: "64 clients get {} times as many creates acknowledged ({} to {}) as one client gets",
        figures: &[(BESIDE_ONE, Digits(1)), (BESIDE_ONE, Low(1)), (BESIDE_ONE, High(1))],
    },
    Quote {
        file: BENCHMARKS,
        text: "it is {} times as many ({} to {}),",
        figures: &[(BESIDE_FLUSHES, Digits(1)), (BESIDE_FLUSHES, Low(1)), (BESIDE_FLUSHES, High(1))],
    },
    Quote {
        file: BENCHMARKS,
        text: "At {} to {} creates a second, the two cores are busy at some {} µs a create",
        figures: &[(CREATED, LowFirst(2)), (CREATED, HighFirst(2)), (Cell(CREATES, "64 clients", CPU), Digits(0))],
    },
    Quote {
        file: BENCHMARKS,
        text: "the median is {}, the rounds go from {} to {}.",
        figures: &[(AXUM, Digits(3)), (AXUM, Low(2)), (AXUM, High(2))],
    },
    Quote {
        file: BENCHMARKS,
        text: "Some {} scrapes in 2 s keep one of two cores busy",
        figures: &[(
            Cell(
                "GET /health at 500/s for 2 s a round, alone and beside scrapes of 10000",
                "ours",
                "scrapes meanwhile",
            ),
            First(1),
        )],
    },
    Quote {
        file: BENCHMARKS,
        text: "It is at {} ms, `client_golang` at {}.",
        figures: &[
            (
                Cell("GET /health at 500/s for 2 s a round, alone and beside scrapes of 10000", "ours", "moved by, ms"),
                Digits(1),
            ),
            (
                Cell(
                    "GET /health at 500/s for 2 s a round, alone and beside scrapes of 10000",
                    "client_golang",
                    "moved by, ms",
                ),
                Digits(1),
            ),
        ],
    },
    Quote { file: BENCHMARKS, text: "**The binary's 15 MB.** It has {}:", figures: &[(BINARY, Digits(2))] },
];

impl Quote {
    /// Where its numbers stand in the text of its file.
    pub fn numbers(&self, text: &str) -> Result<Vec<Range<usize>>, String> {
        let mut found = places(text, self.text);
        match (found.pop(), found.len()) {
            (Some(numbers), 0) => Ok(numbers),
            (None, _) => Err(format!("{} does not say {:?}", self.file, self.text)),
            _ => Err(format!("{} says {:?} more than once", self.file, self.text)),
        }
    }

    /// The text of its file with the recorded figures.
    pub fn renewed(&self, text: &str, figures: &Figures) -> Result<String, String> {
        let mut renewed = text.to_owned();
        let numbers = self.numbers(text)?;
        assert_eq!(numbers.len(), self.figures.len(), "a figure for each number of {:?}", self.text);
        for (place, (at, shown)) in numbers.into_iter().zip(self.figures).rev() {
            renewed.replace_range(place, &shown.of(figures, *at)?);
        }
        Ok(renewed)
    }
}

/// Puts the recorded figures into the sentences of all files below the project's folder.
pub fn renew(root: &Path) -> Result<(), String> {
    let figures = Figures::of(&read(root, BENCHMARKS));
    for quote in QUOTES {
        std::fs::write(root.join(quote.file), quote.renewed(&read(root, quote.file), &figures)?).unwrap();
    }
    Ok(())
}

/// Fails when a file does not have one of its sentences.
pub fn find(root: &Path) -> Result<(), String> {
    QUOTES.iter().try_for_each(|quote| quote.numbers(&read(root, quote.file)).map(drop))
}

pub fn read(root: &Path, file: &str) -> String {
    std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

impl Shown {
    fn of(self, figures: &Figures, at: At) -> Result<String, String> {
        let figure = figures.get(at)?;
        Ok(match self {
            Digits(digits) => format!("{:.digits$}", figure.median),
            Low(digits) => format!("{:.digits$}", figure.low),
            High(digits) => format!("{:.digits$}", figure.high),
            Inverse(digits) => format!("{:.digits$}", 1.0 / figure.median),
            First(digits) => first(figure.median, digits),
            LowFirst(digits) => first(figure.low, digits),
            HighFirst(digits) => first(figure.high, digits),
        })
    }
}

/// A whole number of which only the first digits are told, with commas between its thousands.
fn first(number: f64, digits: i32) -> String {
    let unit = 10_f64.powi((number.log10().floor() as i32 + 1 - digits).max(0));
    let whole = format!("{:.0}", (number / unit).round() * unit);
    let mut grouped = String::new();
    for (position, digit) in whole.chars().enumerate() {
        if position > 0 && (whole.len() - position) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The places of a pattern's numbers in a text, for each time that the text has it.
pub fn places(text: &str, pattern: &str) -> Vec<Vec<Range<usize>>> {
    let starts = text.char_indices().map(|(start, _)| start);
    // Not from the middle of a number on.
    let starts =
        starts.filter(|start| !pattern.starts_with("{}") || !text[..*start].ends_with(|c: char| c.is_ascii_digit()));
    starts.filter_map(|start| matched(text, start, pattern)).collect()
}

fn matched(text: &str, start: usize, pattern: &str) -> Option<Vec<Range<usize>>> {
    let mut numbers = Vec::new();
    let mut at = start;
    let mut pattern = pattern;
    while let Some(wanted) = pattern.chars().next() {
        let rest = &text[at..];
        if let Some(after) = pattern.strip_prefix("{}") {
            let length = number(rest);
            if length == 0 {
                return None;
            }
            numbers.push(at..at + length);
            (at, pattern) = (at + length, after);
        } else if wanted.is_whitespace() {
            let blank = rest.len() - rest.trim_start().len();
            if blank == 0 {
                return None;
            }
            (at, pattern) = (at + blank, pattern.trim_start());
        } else {
            (at, pattern) = (at + rest.starts_with(wanted).then(|| wanted.len_utf8())?, &pattern[wanted.len_utf8()..]);
        }
    }
    Some(numbers)
}

/// How many bytes the number takes that a text begins with: `1`, `0.98`, `15,000`.
pub fn number(text: &str) -> usize {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.' && c != ',').unwrap_or(text.len());
    text[..end].trim_end_matches(['.', ',']).len()
}

/// What would lie silently if it were wrong.
pub fn check() {
    assert_eq!(
        [954_582.0, 15_010.0, 484.0, 99.6, 7.0].map(|number| first(number, 2)),
        ["950,000", "15,000", "480", "100", "7"]
    );
    assert_eq!(first(1_234_567.0, 9), "1,234,567");
    assert_eq!(["1.5,", "15,000 to", "7.", "x", ""].map(number), [3, 6, 1, 0, 0]);
    assert_eq!(places("It takes 1.5\n µs, or 20 µs.", "takes {} µs, or {} µs"), [vec![9..12, 22..24]]);
    assert_eq!(places("takes x µs, takes 1 ms", "takes {} µs"), Vec::<Vec<Range<usize>>>::new());
    assert_eq!(places("12 µs 2 µs", "{} µs").concat(), [0..2, 7..8]);
}
