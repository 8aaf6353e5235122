//! The house rules that can be read off the source: imports go one way, and metric names stand in one file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use api_monitoring::api::problem::ErrorKind;
use api_monitoring::metrics::names;

/// What each module may import of this crate; `main` may import all.
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
    ("load", &["api", "config", "metrics", "signals"]),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every source file below a folder, with its text.
fn files(folder: &Path) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.extension() {
            _ if path.is_dir() => files(&path),
            Some(extension) if extension == "rs" => vec![(path.clone(), std::fs::read_to_string(&path).unwrap())],
            _ => Vec::new(),
        })
        .collect()
}

/// The top-level module that a file belongs to.
fn module(path: &Path) -> String {
    let first = path.strip_prefix(source()).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The modules that a text names after `crate::`, in imports and elsewhere, comments left out.
fn imported(text: &str) -> BTreeSet<String> {
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.flat_map(|line| line.split("crate::").skip(1))
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(group) => group.split(',').map(|item| item.trim().to_owned()).collect(),
            None => vec![rest.to_owned()],
        })
        .map(|name| name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
        .filter(|name: &String| !name.is_empty())
        .collect()
}

#[test]
fn imports_follow_the_arrows() {
    let mut modules = BTreeSet::new();
    for (path, text) in files(&source()) {
        let module = module(&path);
        if module == "main" || module == "lib" {
            continue;
        }
        let allowed = ARROWS.iter().find(|(name, _)| *name == module);
        let (_, allowed) = allowed.unwrap_or_else(|| panic!("{module} has no arrows yet: add it here"));
        for import in imported(&text) {
            let fine = import == module || allowed.contains(&import.as_str());
            assert!(fine, "{} imports {import}, and {module} may import only {allowed:?}", path.display());
        }
        modules.insert(module);
    }
    let listed: BTreeSet<_> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(modules, listed, "the modules that exist, and those that have arrows");
}

#[test]
fn imports_are_found_wherever_they_stand() {
    let text = "use crate::a::B;\n// crate::c\nlet d = crate::d::e();\nuse crate::{f, g::H};\n";

    assert_eq!(imported(text), ["a", "d", "f", "g"].map(str::to_owned).into());
}

#[test]
fn metric_names_are_spelled_in_one_file_only() {
    let names = [
        names::HTTP_REQUESTS_TOTAL,
        names::HTTP_REQUEST_DURATION_SECONDS,
        names::HTTP_REQUESTS_IN_PROGRESS,
        names::API_ERRORS_TOTAL,
        names::API_USERS_REGISTERED_TOTAL,
        names::API_USERS_DELETED_TOTAL,
        names::API_USERS,
        names::API_BUILD_INFO,
        names::API_CONNECTIONS,
        names::API_CONNECTIONS_REFUSED_TOTAL,
        names::APP_ACTIVE_USERS,
        names::APP_CPU_USAGE_PERCENT,
        names::APP_REQUESTS_TOTAL,
        names::PUSH_ATTEMPTS_TOTAL,
        names::PUSH_LAST_SUCCESS_TIMESTAMP_SECONDS,
        names::PUSH_DURATION_SECONDS,
        names::BATCH_JOB_LAST_START_TIMESTAMP_SECONDS,
        names::BATCH_JOB_LAST_END_TIMESTAMP_SECONDS,
        names::BATCH_JOB_LAST_SUCCESS_TIMESTAMP_SECONDS,
        names::BATCH_JOB_LAST_DURATION_SECONDS,
        names::BATCH_JOB_LAST_EXIT_CODE,
        names::BATCH_JOB_RUNNING,
        names::BATCH_JOB_LAST_CPU_SECONDS,
        names::BATCH_JOB_LAST_MAX_RESIDENT_MEMORY_BYTES,
        names::BATCH_JOB_EXPECTED_INTERVAL_SECONDS,
        names::IMPORT_ROWS_TOTAL,
    ];
    for (path, text) in files(&source()).into_iter().filter(|(path, _)| !path.ends_with("metrics/names.rs")) {
        // Tests and documentation show what a scrape looks like; code must not spell it.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            for name in names {
                assert!(!line.contains(&format!("\"{}\"", name.name)), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn no_word_of_the_database_leaks_above_the_store() {
    // The URL's form is said where it is given: in help and in the default.
    let told = ["cli.rs", "config/mod.rs"];
    for (path, text) in files(&source()) {
        let below = path.starts_with(source().join("store"));
        let said = told.iter().any(|file| path.ends_with(file));
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let leaks = line.contains("sqlx") || line.to_lowercase().contains("sqlite");
            assert!(!leaks || below || said, "{}: {line}", path.display());
        }
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
