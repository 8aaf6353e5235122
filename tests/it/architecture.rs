//! The house rules that can be read off the source: imports go one way, and metric names stand in one file.

use std::collections::BTreeSet;

use api_monitoring::api::problem::ErrorKind;
use api_monitoring::metrics::names;
use proc_macro2::TokenTree;

use crate::source::{Reference, Source};

/// What each module may name of the library. `main` starts what is asked for and tells how it ended.
const ARROWS: &[(&str, &[&str])] = &[
    ("metrics", &[]),
    ("push", &[]),
    ("users", &[]),
    ("store", &["users"]),
    ("causes", &[]),
    ("words", &["causes"]),
    ("api", &["causes", "metrics", "store", "users"]),
    ("cli", &[]),
    ("config", &["causes", "cli", "metrics", "push", "store"]),
    ("logs", &["config"]),
    ("signals", &[]),
    ("healthcheck", &["config"]),
    ("server", &["api", "causes", "config", "metrics", "push", "store"]),
    ("job", &["causes", "config", "metrics", "push", "signals", "words"]),
    ("import", &["causes", "config", "job", "metrics", "signals", "store", "users", "words"]),
    ("backup", &["causes", "config", "signals", "store", "words"]),
    ("load", &["api", "config", "metrics", "signals", "words"]),
    ("lib", &[]),
    (
        "main",
        &[
            "api",
            "backup",
            "causes",
            "cli",
            "config",
            "healthcheck",
            "import",
            "job",
            "load",
            "logs",
            "server",
            "signals",
            "words",
        ],
    ),
];

/// What of these sources goes against the arrows.
fn forbidden(sources: &[Source]) -> Vec<String> {
    sources.iter().flat_map(forbidden_in).collect()
}

fn forbidden_in(source: &Source) -> Vec<String> {
    let (module, path) = (source.top_module(), source.path.display());
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("{path}: {module} has no arrows yet; add it to the table")];
    };
    let fault = |reference: &Reference| match reference.first().map(String::as_str) {
        None | Some("*") => Some(format!("{path} names the root of the library, behind which any module may stand")),
        Some(first) if first == module || allowed.contains(&first) => None,
        Some(_) => Some(format!("{path} names {}, and {module} may name only {allowed:?}", reference.join("::"))),
    };
    source.references().iter().filter_map(fault).collect()
}

#[test]
fn imports_follow_the_arrows() {
    let sources = Source::all();

    assert_eq!(forbidden(&sources), Vec::<String>::new());
    let modules: BTreeSet<_> = sources.iter().map(Source::top_module).collect();
    let listed: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(modules, listed, "the modules that exist, and those that have arrows");
}

#[test]
fn the_arrows_lead_one_way() {
    let mut left = ARROWS.to_vec();
    while !left.is_empty() {
        let names: Vec<_> = left.iter().map(|(name, _)| *name).collect();
        left.retain(|(_, allowed)| allowed.iter().any(|name| names.contains(name)));
        assert!(left.len() < names.len(), "these import each other, or what does: {names:?}");
    }
}

#[test]
fn a_forbidden_import_is_found_however_it_is_written() {
    let cases = [
        ("push/client.rs", "use crate::{\n    server,\n};", "push/client.rs names server, and push may"),
        ("push/client.rs", "use super::super::server::serve;", "push/client.rs names server::serve, and push may"),
        (
            "users.rs",
            "mod rules { fn f() { super::super::api::routes() } }",
            "users.rs names api::routes, and users may",
        ),
        ("store/mod.rs", "tracing::info!(x = crate::config::X);", "store/mod.rs names config::X, and store may"),
        ("cli.rs", "use crate::{self as root};", "cli.rs names the root"),
        ("cli.rs", "use super::*;", "cli.rs names the root"),
        ("main.rs", "use api_monitoring::{\n    store::UserStore,\n};", "main.rs names store::UserStore, and main may"),
        ("lib.rs", "pub use self::server::serve;", "lib.rs names server::serve, and lib may"),
        ("cli.rs", "include!(\"../server.rs\");", "cli.rs names include!"),
        ("new.rs", "", "new.rs: new has no arrows yet"),
    ];
    for (path, text, expected) in cases {
        let found = forbidden(&[Source::new(path, text)]);

        assert!(matches!(&found[..], [one] if one.starts_with(expected)), "{path}: {text}: {found:?}");
    }
}

const NAMES: &str = "metrics/names.rs";

/// Every metric that `names` defines.
fn metrics(names: &Source) -> BTreeSet<String> {
    let words: Vec<_> = names.words().iter().map(ToString::to_string).collect();
    words.windows(2).filter(|pair| pair[0] == "name").filter_map(|pair| text(&pair[1])).map(str::to_owned).collect()
}

fn text(literal: &str) -> Option<&str> {
    literal.strip_prefix('"')?.strip_suffix('"')
}

/// The texts in which a metric of these is spelled, alone or among other words.
fn spelled(source: &Source, metrics: &BTreeSet<String>) -> Vec<String> {
    let texts = source.words().into_iter().filter(|word| matches!(word, TokenTree::Literal(_)));
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let spells = |text: &String| text.split(|c| !is_of_name(c)).any(|word| metrics.contains(word));
    let texts = texts.map(|text| text.to_string()).filter(spells);
    texts.map(|text| format!("{}: {text}", source.path.display())).collect()
}

#[test]
fn metric_names_are_spelled_in_one_file_only() {
    let (defined, others): (Vec<_>, Vec<_>) =
        Source::all().into_iter().partition(|source| source.path.ends_with(NAMES));
    let metrics = metrics(&defined[0]);
    for known in [names::HTTP_REQUESTS_TOTAL, names::API_USERS, names::BATCH_JOB_RUNNING, names::APP_REQUESTS_TOTAL] {
        assert!(metrics.contains(known.name), "{} is not among {metrics:?}", known.name);
    }

    let found: Vec<_> = others.iter().flat_map(|source| spelled(source, &metrics)).collect();

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_metric_name_is_found_wherever_code_spells_it() {
    let metrics = metrics(&Source::new(NAMES, "const A: Definition = Definition { name: \"a_total\", help: \"x\" };"));
    let cases = [
        ("f(\"a_total\");", true, "alone"),
        ("format!(\"sum(a_total{{}})\")", true, "within a longer text"),
        ("f(\"x\n  a_total\");", true, "in a text's second line"),
        ("f(r#\"// a_total\"#);", true, "in a raw text"),
        ("#[cfg(test)] fn helper() {}\nf(\"a_total\");", true, "after what only tests have"),
        ("f(\"a_totals\", \"xa_total\", a_total);", false, "another name, and a variable"),
        ("/// \"a_total\"\n/* \"a_total\" */ // \"a_total\"\nfn f() {}", false, "comments"),
        ("#[cfg(test)] mod tests { const A: &str = \"a_total\"; }", false, "tests, which show a scrape"),
    ];
    for (text, is_found, reason) in cases {
        let found = spelled(&Source::new("api/x.rs", text), &metrics);

        assert_eq!(!found.is_empty(), is_found, "{reason}: {text}");
    }
}

/// The words of the database that shipped code has above the store.
fn leaked(source: &Source) -> Vec<String> {
    // The URL's form is said where it is given: in the default.
    let may_tell = ["cli.rs", "config/mod.rs"].iter().any(|file| source.path.ends_with(file));
    let is_url = |word: &TokenTree| matches!(word, TokenTree::Literal(text) if text.to_string().contains("sqlite:"));
    let is_database = |word: &TokenTree| {
        let word = word.to_string().to_lowercase();
        word.contains("sqlx") || word.contains("sqlite")
    };
    let words = source.words().into_iter().filter(|word| is_database(word) && !(may_tell && is_url(word)));
    words.map(|word| format!("{}: {word}", source.path.display())).collect()
}

#[test]
fn no_word_of_the_database_leaks_above_the_store() {
    let above = Source::all().into_iter().filter(|source| source.top_module() != "store");

    let found: Vec<_> = above.flat_map(|source| leaked(&source)).collect();

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_word_of_the_database_is_found_wherever_it_stands() {
    let cases = [
        ("api/users.rs", "#[cfg(test)] fn helper() {}\nuse sqlx::Row;", true, "after what only tests have"),
        ("api/users.rs", "type Pool = SqlitePool;", true, "within a name"),
        ("api/users.rs", "f(\"sqlite://data\");", true, "a URL where none is given"),
        ("config/mod.rs", "f(\"sqlite://data\");", false, "the default URL"),
        ("config/mod.rs", "use sqlx::Row;", true, "the library beside the default URL"),
        ("api/users.rs", "/* sqlx */ /// SQLite\nfn f() {}", false, "comments"),
    ];
    for (path, text, is_found, reason) in cases {
        let found = leaked(&Source::new(path, text));

        assert_eq!(!found.is_empty(), is_found, "{reason}: {text}");
    }
}

#[test]
fn error_types_of_the_instrumentation_and_of_the_api_agree() {
    // A panic that the API catches and one that it does not are the same kind of error, and so are clients that go away
    // while they send and while they wait.
    let status = |error_type| ErrorKind::ALL.iter().find(|kind| kind.error_type() == error_type).unwrap().status();
    assert_eq!(status(names::ERROR_PANIC), names::PANICKED);
    assert_eq!(status(names::ERROR_CLIENT_CLOSED_REQUEST), names::CLIENT_CLOSED_REQUEST);
}
