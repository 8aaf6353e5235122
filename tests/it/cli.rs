//! The command line: help, exit codes, wrong settings.

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal::SIGTERM;
use serde_json::Value;
use tempfile::TempDir;

use crate::gateway::unused_address;
use crate::support::{Process, Server, binary, finished, in_time};

/// What a run of the binary left behind.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    folder: TempDir,
}

/// Arguments, environment, and the reason for the case.
type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);

/// Runs the binary in an empty folder, with no other environment than is given.
async fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    command.args(arguments).envs(environment.iter().copied());
    let output = finished(command).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Run { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr), folder }
}

impl Run {
    /// The one line that a refusal or a failure says, without the program's name.
    fn sentence(&self) -> &str {
        let sentence = self.stderr.strip_prefix("api-monitoring: ").and_then(|said| said.strip_suffix('\n'));
        sentence.filter(|said| !said.contains('\n')).unwrap_or_else(|| panic!("not one line of ours: {self:?}"))
    }
}

// ---- Help ----

#[tokio::test]
async fn help_names_every_setting_with_its_environment_variable() {
    let serve = [
        ("--listen", "API_LISTEN"),
        ("--database-url", "DATABASE_URL"),
        ("--database-url-file", "DATABASE_URL_FILE"),
        ("--request-timeout", "REQUEST_TIMEOUT"),
        ("--max-in-flight", "MAX_IN_FLIGHT"),
        ("--max-connections", "MAX_CONNECTIONS"),
        ("--drain-timeout", "DRAIN_TIMEOUT"),
        ("--drain-delay", "DRAIN_DELAY"),
        ("--log-format", "LOG_FORMAT"),
        ("--log", "RUST_LOG"),
        ("--seed", "API_SEED"),
        ("--push-interval", "PUSH_INTERVAL"),
        ("--push-job", "PUSH_JOB"),
        ("--push-delete-on-exit", "PUSH_DELETE_ON_EXIT"),
    ];
    let gateway = [
        ("--pushgateway-url", "PUSHGATEWAY_URL"),
        ("--push-grouping", "PUSH_GROUPING"),
        ("--pushgateway-username", "PUSHGATEWAY_USERNAME"),
        ("--pushgateway-password-file", "PUSHGATEWAY_PASSWORD_FILE"),
        ("--pushgateway-bearer-token-file", "PUSHGATEWAY_BEARER_TOKEN_FILE"),
        ("--ca-file", "PUSHGATEWAY_CA_FILE"),
    ];
    let delivery = [
        ("--push-deadline", "PUSH_DEADLINE"),
        ("--spool-dir", "PUSH_SPOOL_DIR"),
        ("--fail-on-push-error", "FAIL_ON_PUSH_ERROR"),
        ("--expect-every", "JOB_EXPECT_EVERY"),
        ("--no-start-push", "JOB_NO_START_PUSH"),
    ];
    let job = [
        ("--name", "JOB_NAME"),
        ("--timeout", "JOB_TIMEOUT"),
        ("--kill-after", "JOB_KILL_AFTER"),
        ("--metrics-file", "JOB_METRICS_FILE"),
        ("--flush", "JOB_FLUSH"),
    ];
    let import = [
        ("--format", "IMPORT_FORMAT"),
        ("--key", "IMPORT_KEY"),
        ("--rejects", "IMPORT_REJECTS"),
        ("--max-errors", "IMPORT_MAX_ERRORS"),
        ("--database-url", "DATABASE_URL"),
        ("--database-url-file", "DATABASE_URL_FILE"),
        ("--push-job", "PUSH_JOB"),
    ];
    let backup = [("--database-url", "DATABASE_URL"), ("--database-url-file", "DATABASE_URL_FILE")];
    let load = [
        ("--target", "LOAD_TARGET"),
        ("--rate", "LOAD_RATE"),
        ("--duration", "LOAD_DURATION"),
        ("--concurrency", "LOAD_CONCURRENCY"),
        ("--seed", "LOAD_SEED"),
        ("--report", "LOAD_REPORT"),
    ];
    let healthcheck = [("--url", "HEALTHCHECK_URL"), ("--timeout", "HEALTHCHECK_TIMEOUT")];
    for (command, settings) in [
        ("serve", [&serve[..], &gateway].concat()),
        ("job", [&job[..], &gateway, &delivery].concat()),
        ("import", [&import[..], &gateway, &delivery].concat()),
        ("backup", backup.to_vec()),
        ("load", load.to_vec()),
        ("healthcheck", healthcheck.to_vec()),
        ("openapi", vec![]),
    ] {
        let help = run(&[command, "--help"], &[]).await;

        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{command}");
        let descriptions = descriptions(&help.stdout);
        for (flag, variable) in &settings {
            let description = descriptions.iter().find(|text| text.split(' ').next() == Some(flag));
            let description = description.unwrap_or_else(|| panic!("{command}: no {flag} in {}", help.stdout));
            let names = |end: &str| description.contains(&format!("[env: {variable}{end}"));
            assert!(names("]") || names("="), "{command} {flag}: no {variable} in {description:?}");
        }
        assert_eq!(descriptions.len(), settings.len(), "{command}: a setting that this test does not know");
    }
}

/// What a help text says of each flag but `--help`, beginning with the flag, whatever the line breaks in it.
fn descriptions(help: &str) -> Vec<String> {
    let mut descriptions: Vec<String> = Vec::new();
    for line in help.lines() {
        // The flags stand below each other, their descriptions further in.
        if line.starts_with("      --") {
            descriptions.push(line.trim().to_owned());
        } else if line.starts_with("       ")
            && let Some(description) = descriptions.last_mut()
        {
            *description += &format!(" {}", line.trim());
        }
    }
    descriptions
}

#[tokio::test]
async fn help_says_where_the_gateways_secrets_come_from() {
    for command in ["serve", "job", "import"] {
        let help = run(&[command, "--help"], &[]).await;

        let words = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        let said = "Secrets for the gateway are taken from the environment, PUSHGATEWAY_PASSWORD or \
                    PUSHGATEWAY_BEARER_TOKEN, or from files, never from arguments.";
        assert!(words.contains(said), "{command}: {}", help.stdout);
    }
}

#[tokio::test]
async fn the_programs_help_lists_its_commands_and_exit_codes() {
    for flag in ["--help", "-h", "help"] {
        let help = run(&[flag], &[]).await;

        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{flag}");
        let first_words: Vec<&str> = help.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
        for command in ["serve", "job", "import", "backup", "load", "healthcheck", "openapi"] {
            assert!(first_words.contains(&command), "{flag}: no {command} in {}", help.stdout);
        }
        assert!(help.stdout.contains("Exit codes: 0 "), "{flag}: {}", help.stdout);
    }
}

#[tokio::test]
async fn the_version_is_the_packages() {
    for flag in ["--version", "-V"] {
        let version = run(&[flag], &[]).await;

        assert_eq!((version.code, version.stderr.as_str()), (Some(0), ""), "{flag}");
        assert_eq!(version.stdout, concat!("api-monitoring ", env!("CARGO_PKG_VERSION"), "\n"), "{flag}");
    }
}

// ---- Wrong settings ----

#[tokio::test]
async fn words_that_no_command_knows_are_refused() {
    let cases: [(&[&str], &str, &str); 9] = [
        (&["sevre"], "sevre", "a command that does not exist"),
        (&["--nope"], "--nope", "a flag of no command"),
        (&["serve", "--nope"], "--nope", "a flag that serve does not have"),
        (&["serve", "8000"], "8000", "an argument without a flag"),
        (&["serve", "--listen"], "--listen", "a flag without its value"),
        (&["healthcheck", "--listen", "127.0.0.1:0"], "--listen", "another command's flag"),
        (&["job", "--name", "backup", "touch", "ran"], "touch", "a command that does not stand after --"),
        (
            &["job", "--pushgateway-password", "hunter2", "--", "true"],
            "--pushgateway-password",
            "a secret as an argument",
        ),
        (&["import", "a.csv", "b.csv"], "b.csv", "two files"),
    ];
    for (arguments, named, reason) in cases {
        let refused = run(arguments, &[]).await;

        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{reason}");
        let first_line = refused.stderr.lines().next().unwrap();
        assert!(first_line.starts_with("error: ") && first_line.contains(named), "{reason}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn a_wrong_setting_is_refused_in_one_sentence_wherever_it_comes_from() {
    const ADDRESS: &str = "expected an address and port such as 127.0.0.1:8000";
    const DEADLINE: &str = "expected a duration with its unit, such as 8s or 500ms, from 1ms to 1h";
    const DRAIN: &str = "expected a duration with its unit, such as 8s or 500ms, from 0s to 1h";
    const COUNT: &str = "expected a number from 1 to 1000000";
    const FILTER: &str =
        "expected a level (error, warn, info, debug, trace, off), or directives such as info,http_request=warn";
    const SEED: &str = "expected a number from 0 to 18446744073709551615";
    const RATE: &str = "expected a number from 0.1 to 100000";
    const URL: &str = "expected a URL such as http://127.0.0.1:8000";
    const INTERVAL: &str = "expected a duration with its unit, such as 8s or 500ms, from 100ms to 1day";
    const PUSHING: &str = "expected a duration with its unit, such as 8s or 500ms, from 100ms to 1h";
    const TIMEOUT: &str = "expected a duration with its unit, such as 8s or 500ms, from 1ms to 30days";
    const PATIENCE: &str = "expected a duration with its unit, such as 8s or 500ms, from 0s to 1day";
    const EVERY: &str = "expected a duration with its unit, such as 8s or 500ms, from 1s to ";
    const NAME: &str = "a job's name must not be empty or blank";
    const GATEWAY: &str = "expected a URL with scheme and host, such as http://127.0.0.1:9091";
    const NO_METRICS: &str = "expected a URL without /metrics at its end, such as http://127.0.0.1:9091 or \
                              https://proxy/pushgateway";
    const KEY: &str = "expected a text of 1 to 200 bytes that is not blank";
    const PAIR: &str = "expected NAME=VALUE, such as instance=db1";
    let long_key = "x".repeat(201);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let text = file("text", "not a certificate\n");
    let cut_off = file("cut-off.pem", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n");
    let cases = [
        ("serve", "--listen", "API_LISTEN", "8000", ADDRESS, "a port without an address"),
        ("serve", "--listen", "API_LISTEN", "127.0.0.1", ADDRESS, "an address without a port"),
        ("serve", "--listen", "API_LISTEN", "localhost:8000", ADDRESS, "a name, which may have several addresses"),
        ("serve", "--listen", "API_LISTEN", "127.0.0.1:65536", ADDRESS, "a port beyond the last"),
        ("serve", "--listen", "API_LISTEN", "", ADDRESS, "empty"),
        ("serve", "--listen", "API_LISTEN", "a\nb", ADDRESS, "two lines, which must not become two lines of log"),
        ("serve", "--request-timeout", "REQUEST_TIMEOUT", "10", DEADLINE, "no unit"),
        ("serve", "--request-timeout", "REQUEST_TIMEOUT", "0s", DEADLINE, "no time at all"),
        ("serve", "--request-timeout", "REQUEST_TIMEOUT", "61m", DEADLINE, "too long"),
        ("serve", "--request-timeout", "REQUEST_TIMEOUT", "-1s", DEADLINE, "negative"),
        ("serve", "--request-timeout", "REQUEST_TIMEOUT", "", DEADLINE, "empty"),
        ("serve", "--max-in-flight", "MAX_IN_FLIGHT", "0", COUNT, "nothing could be served"),
        ("serve", "--max-in-flight", "MAX_IN_FLIGHT", "1000001", COUNT, "too many"),
        ("serve", "--max-in-flight", "MAX_IN_FLIGHT", "1.5", COUNT, "a fraction"),
        ("serve", "--max-in-flight", "MAX_IN_FLIGHT", "", COUNT, "empty"),
        ("serve", "--max-connections", "MAX_CONNECTIONS", "0", COUNT, "nobody could connect"),
        ("serve", "--max-connections", "MAX_CONNECTIONS", "1000001", COUNT, "too many"),
        ("serve", "--max-connections", "MAX_CONNECTIONS", "4k", COUNT, "a unit"),
        ("serve", "--drain-timeout", "DRAIN_TIMEOUT", "8", DRAIN, "no unit"),
        ("serve", "--drain-timeout", "DRAIN_TIMEOUT", "2h", DRAIN, "too long"),
        ("serve", "--drain-timeout", "DRAIN_TIMEOUT", "", DRAIN, "empty"),
        ("serve", "--drain-delay", "DRAIN_DELAY", "soon", DRAIN, "a word"),
        ("serve", "--drain-delay", "DRAIN_DELAY", "", DRAIN, "empty"),
        ("serve", "--log-format", "LOG_FORMAT", "xml", "expected text or json", "another format"),
        ("serve", "--log-format", "LOG_FORMAT", "", "expected text or json", "empty"),
        ("serve", "--log", "RUST_LOG", "a=b=c", FILTER, "no directive"),
        ("serve", "--log", "RUST_LOG", "", FILTER, "empty"),
        ("serve", "--log", "RUST_LOG", "loud", FILTER, "a mistyped level, which would silence all else as a target"),
        ("serve", "--log", "RUST_LOG", "info,http_request=loud", FILTER, "no level"),
        ("serve", "--log", "RUST_LOG", "info,http_request = warn", FILTER, "blanks that would belong to the target"),
        ("serve", "--log", "RUST_LOG", "info,=warn", FILTER, "no target"),
        ("serve", "--seed", "API_SEED", "-1", SEED, "negative"),
        ("serve", "--seed", "API_SEED", "18446744073709551616", SEED, "2^64"),
        ("serve", "--seed", "API_SEED", "", SEED, "empty"),
        ("load", "--target", "LOAD_TARGET", "localhost:8000", URL, "no scheme"),
        ("load", "--rate", "LOAD_RATE", "0", RATE, "nothing would be sent"),
        ("load", "--rate", "LOAD_RATE", "NaN", RATE, "no number"),
        ("load", "--duration", "LOAD_DURATION", "30", "expected a duration with its unit", "no unit"),
        ("load", "--concurrency", "LOAD_CONCURRENCY", "0", "expected a number from 1 to 100000", "nothing could start"),
        ("load", "--seed", "LOAD_SEED", "one", SEED, "no number"),
        ("load", "--report", "LOAD_REPORT", "", "expected a file, or - for stdout", "empty"),
        (
            "serve",
            "--database-url-file",
            "DATABASE_URL_FILE",
            "/nonexistent/url",
            "the file cannot be read: No such file or directory",
            "a file that is not there",
        ),
        (
            "serve",
            "--database-url-file",
            "DATABASE_URL_FILE",
            "/",
            "the file cannot be read: Is a directory",
            "a folder",
        ),
        ("healthcheck", "--url", "HEALTHCHECK_URL", "localhost:8000", URL, "no scheme"),
        ("healthcheck", "--url", "HEALTHCHECK_URL", "ftp://localhost/", URL, "another scheme"),
        ("healthcheck", "--url", "HEALTHCHECK_URL", "/health", URL, "a path alone"),
        ("healthcheck", "--url", "HEALTHCHECK_URL", "", URL, "empty"),
        ("healthcheck", "--timeout", "HEALTHCHECK_TIMEOUT", "3", DEADLINE, "no unit"),
        ("healthcheck", "--timeout", "HEALTHCHECK_TIMEOUT", "0s", DEADLINE, "no time at all"),
        ("serve", "--push-interval", "PUSH_INTERVAL", "15", INTERVAL, "no unit"),
        ("serve", "--push-interval", "PUSH_INTERVAL", "0s", INTERVAL, "no pause at all"),
        ("serve", "--push-interval", "PUSH_INTERVAL", "25h", INTERVAL, "too long"),
        ("serve", "--push-interval", "PUSH_INTERVAL", "", INTERVAL, "empty"),
        ("serve", "--push-job", "PUSH_JOB", "", NAME, "empty"),
        ("serve", "--push-job", "PUSH_JOB", " \t", NAME, "blank"),
        ("serve", "--pushgateway-url", "PUSHGATEWAY_URL", "localhost:9091", GATEWAY, "no scheme"),
        ("job", "--name", "JOB_NAME", "", NAME, "empty"),
        ("job", "--name", "JOB_NAME", "  ", NAME, "blank"),
        (
            "job",
            "--name",
            "JOB_NAME",
            "a\nb",
            "the job's name \"a\\nb\" must not hold control characters",
            "two lines, which must not become two",
        ),
        ("job", "--timeout", "JOB_TIMEOUT", "60", TIMEOUT, "no unit"),
        ("job", "--timeout", "JOB_TIMEOUT", "0s", TIMEOUT, "no time at all"),
        ("job", "--timeout", "JOB_TIMEOUT", "31days", TIMEOUT, "too long"),
        ("job", "--timeout", "JOB_TIMEOUT", "", TIMEOUT, "empty"),
        ("job", "--kill-after", "JOB_KILL_AFTER", "10", PATIENCE, "no unit, also while there is no time-out"),
        ("job", "--kill-after", "JOB_KILL_AFTER", "25h", PATIENCE, "too long"),
        ("job", "--kill-after", "JOB_KILL_AFTER", "-1s", PATIENCE, "negative"),
        ("job", "--push-deadline", "PUSH_DEADLINE", "10", PUSHING, "no unit"),
        ("job", "--push-deadline", "PUSH_DEADLINE", "99ms", PUSHING, "too short"),
        ("job", "--push-deadline", "PUSH_DEADLINE", "2h", PUSHING, "too long"),
        ("job", "--push-deadline", "PUSH_DEADLINE", "", PUSHING, "empty"),
        ("job", "--expect-every", "JOB_EXPECT_EVERY", "3600", EVERY, "no unit"),
        ("job", "--expect-every", "JOB_EXPECT_EVERY", "500ms", EVERY, "too often"),
        ("job", "--expect-every", "JOB_EXPECT_EVERY", "367days", EVERY, "too rarely"),
        ("job", "--metrics-file", "JOB_METRICS_FILE", "", "expected a path", "empty"),
        ("job", "--spool-dir", "PUSH_SPOOL_DIR", "", "expected a path", "empty"),
        ("job", "--pushgateway-url", "PUSHGATEWAY_URL", "localhost:9091", GATEWAY, "no scheme"),
        ("job", "--pushgateway-url", "PUSHGATEWAY_URL", "127.0.0.1:9091", GATEWAY, "no scheme"),
        ("job", "--pushgateway-url", "PUSHGATEWAY_URL", "ftp://127.0.0.1:9091", GATEWAY, "another scheme"),
        ("job", "--pushgateway-url", "PUSHGATEWAY_URL", "http://", GATEWAY, "no host"),
        ("job", "--pushgateway-url", "PUSHGATEWAY_URL", "http://h:65536", GATEWAY, "a port beyond the last"),
        ("job", "--pushgateway-url", "PUSHGATEWAY_URL", "http://h/metrics", NO_METRICS, "the gateway's own path"),
        (
            "job",
            "--pushgateway-url",
            "PUSHGATEWAY_URL",
            "http://h/push/metrics/job/b",
            NO_METRICS,
            "the path of a group",
        ),
        ("job", "--push-grouping", "PUSH_GROUPING", "zone", PAIR, "no value"),
        ("serve", "--ca-file", "PUSHGATEWAY_CA_FILE", "/nonexistent/ca", "the file cannot be read: ", "not there"),
        ("serve", "--ca-file", "PUSHGATEWAY_CA_FILE", "/", "the file cannot be read: Is a directory", "a folder"),
        ("serve", "--ca-file", "PUSHGATEWAY_CA_FILE", &text, "the file holds no certificate in PEM form", "a text"),
        (
            "serve",
            "--ca-file",
            "PUSHGATEWAY_CA_FILE",
            &cut_off,
            "the file is not PEM, or holds something that is not a certificate: ",
            "no end",
        ),
        ("import", "--format", "IMPORT_FORMAT", "xml", "expected auto, csv or jsonl", "another format"),
        ("import", "--format", "IMPORT_FORMAT", "", "expected auto, csv or jsonl", "empty"),
        ("import", "--key", "IMPORT_KEY", "", KEY, "empty"),
        ("import", "--key", "IMPORT_KEY", " ", KEY, "blank"),
        ("import", "--key", "IMPORT_KEY", &long_key, KEY, "too long"),
        ("import", "--max-errors", "IMPORT_MAX_ERRORS", "-1", SEED, "negative"),
        ("import", "--max-errors", "IMPORT_MAX_ERRORS", "many", SEED, "no number"),
        ("import", "--max-errors", "IMPORT_MAX_ERRORS", "", SEED, "empty"),
        ("import", "--rejects", "IMPORT_REJECTS", "", "expected a path", "empty"),
        ("import", "--push-job", "PUSH_JOB", "", NAME, "empty"),
        ("import", "--push-deadline", "PUSH_DEADLINE", "10", PUSHING, "no unit"),
        ("import", "--expect-every", "JOB_EXPECT_EVERY", "1", EVERY, "no unit"),
        ("import", "--pushgateway-url", "PUSHGATEWAY_URL", "h:9091", GATEWAY, "no scheme"),
    ];
    for (command, flag, variable, value, accepted, reason) in cases {
        // What else it needs to run.
        let others = if flag == "--name" { &["--", "touch", "ran"] } else { needed(command) };
        let gateway: &[(&str, &str)] = match flag {
            "--ca-file" => &[("PUSHGATEWAY_URL", "https://127.0.0.1:9091")],
            _ => &[],
        };
        let mut runs = vec![run(&[&[command, &format!("{flag}={value}")], others].concat(), gateway).await];
        // An empty variable counts as one that is not set.
        if !value.is_empty() {
            runs.push(run(&[&[command], others].concat(), &[gateway, &[(variable, value)]].concat()).await);
        }

        for refused in runs {
            assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{flag} {value:?}: {reason}");
            let beginning = format!("{flag} ({variable}) {value:?} is not usable: {accepted}");
            assert!(refused.sentence().starts_with(&beginning), "{flag} {value:?}: {reason}: {}", refused.stderr);
            assert_eq!(std::fs::read_dir(refused.folder.path()).unwrap().count(), 0, "{reason}: it began to serve");
        }
    }
}

#[tokio::test]
async fn a_wrong_database_url_is_refused_without_repeating_it() {
    let cases = [
        ("postgres://u:hunter2@h/d", "PostgreSQL, which comes later"),
        ("postgresql://u:hunter2@h/d", "its other name"),
        ("mysql://u:hunter2@h/d", "another database"),
        ("u:hunter2@h/d", "what stands before the colon is no scheme"),
        ("hunter2", "no URL"),
        ("sqlite://hunter2?mode=ro", "parameters"),
        ("sqlite://hunter2/", "a folder"),
        ("sqlite://", "no path"),
        ("", "empty"),
    ];
    for (url, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("url");
        std::fs::write(&file, url).unwrap();
        let path = file.to_str().unwrap();
        const URL: &str = "--database-url (DATABASE_URL)";
        const FILE: &str = "--database-url-file (DATABASE_URL_FILE)";
        for (setting, arguments, environment) in [
            (URL, vec![format!("--database-url={url}")], vec![]),
            (URL, vec![], vec![("DATABASE_URL", url)]),
            (FILE, vec![format!("--database-url-file={path}")], vec![]),
            (FILE, vec![], vec![("DATABASE_URL_FILE", path)]),
        ] {
            let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
            // An empty variable counts as one that is not set.
            if environment.iter().any(|(_, value)| value.is_empty()) {
                continue;
            }

            let refused = run(&arguments, &environment).await;

            assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{reason}, {setting}");
            let sentence = refused.sentence();
            assert!(sentence.starts_with(&format!("{setting} is not usable: ")), "{reason}: {sentence}");
            assert!(sentence.contains("expected sqlite://PATH"), "{reason}: {sentence}");
            assert!(!sentence.contains("hunter2"), "{reason}, {setting}: {sentence}");
        }
    }
}

#[tokio::test]
async fn a_database_of_another_kind_is_refused_by_the_name_of_its_scheme() {
    for (url, scheme) in [("mysql://u:hunter2@h/d", "mysql"), ("mongodb+srv://u:hunter2@h/d", "mongodb+srv")] {
        let refused = run(&[], &[("DATABASE_URL", url)]).await;

        assert_eq!(refused.code, Some(2), "{url}");
        let beginning = format!(
            "--database-url (DATABASE_URL) is not usable: databases of the scheme {scheme} are not supported; "
        );
        assert!(refused.sentence().starts_with(&beginning), "{}", refused.stderr);
        assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    }
}

#[tokio::test]
async fn a_label_that_cannot_stand_in_the_grouping_is_refused_by_name() {
    const NO_NAME: &str = "is no label name: expected letters, digits and _, not beginning with a digit";
    const RESERVED: &str = "is reserved, as all that begin with __";
    let cases = [
        ("job", "=a", format!("\"\" {NO_NAME}"), "no name"),
        ("job", " =a", format!("\"\" {NO_NAME}"), "a blank name"),
        ("job", "a =b", format!("\"a \" {NO_NAME}"), "a blank after the name"),
        ("job", "1st=a", format!("\"1st\" {NO_NAME}"), "a digit first"),
        ("job", "a-b=c", format!("\"a-b\" {NO_NAME}"), "a hyphen"),
        ("job", "größe=a", format!("\"größe\" {NO_NAME}"), "other letters"),
        ("job", "__name__=a", format!("the label name \"__name__\" {RESERVED}"), "what Prometheus keeps for itself"),
        ("job", "__x=a", format!("the label name \"__x\" {RESERVED}"), "the same"),
        ("job", "job=a", "the label job is the job's name (\"backup\") already".to_owned(), "the job again"),
        ("job", "mode=a", "the label mode is one of the pushed metrics' own".to_owned(), "a metric's own"),
        ("import", "mode=a", "the label mode is one of the pushed metrics' own".to_owned(), "a metric's own"),
        ("import", "result=a", "the label result is one of the pushed metrics' own".to_owned(), "a metric's own"),
        ("import", "job=a", "the label job is the job's name (\"import-users\") already".to_owned(), "the job again"),
        ("serve", "job=a", "the label job is the job's name (\"api-monitoring\") already".to_owned(), "the job again"),
    ];
    for (command, label, expected, reason) in cases {
        let others = needed(command);
        let twice = [&[command, "--push-grouping", "zone=a", "--push-grouping", label], others].concat();

        let by_flag = run(&twice, &[]).await;
        let by_variable = run(&[&[command], others].concat(), &[("PUSH_GROUPING", &format!("zone=a,{label}"))]).await;

        for refused in [by_flag, by_variable] {
            assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{label}: {reason}");
            let sentence = format!("--push-grouping (PUSH_GROUPING) {label:?} is not usable: {expected}");
            assert_eq!(refused.sentence(), sentence, "{reason}");
        }
    }
}

#[tokio::test]
async fn a_label_that_is_given_twice_is_refused() {
    let twice = ["job", "--push-grouping=zone=a", "--push-grouping=zone=b", "--name", "backup", "--", "touch", "ran"];

    let by_flag = run(&twice, &[]).await;
    let by_variable = run(&["job", "--name", "backup", "--", "true"], &[("PUSH_GROUPING", "zone=a,zone=b")]).await;

    for refused in [by_flag, by_variable] {
        assert_eq!(refused.code, Some(2));
        let sentence = "--push-grouping (PUSH_GROUPING) \"zone=b\" is not usable: the label zone is given twice";
        assert_eq!(refused.sentence(), sentence);
    }
}

#[tokio::test]
async fn a_gateways_url_with_a_password_is_refused_without_repeating_it() {
    let urls = ["http://u:hunter2@h:9091", "http://hunter2@h", "u:hunter2@h:9091", "http://u:hunter2@h/metrics"];
    for (command, url) in ["serve", "job", "import"].into_iter().flat_map(|command| urls.map(|url| (command, url))) {
        let others = needed(command);

        let by_flag = run(&[&[command, "--pushgateway-url", url], others].concat(), &[]).await;
        let by_variable = run(&[&[command], others].concat(), &[("PUSHGATEWAY_URL", url)]).await;

        for refused in [by_flag, by_variable] {
            assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{command} {url}");
            assert_eq!(
                refused.sentence(),
                "--pushgateway-url (PUSHGATEWAY_URL) is not usable: expected a URL without user name and password; they \
                 are given by settings of their own",
                "{command} {url}"
            );
        }
    }
}

const USER: &str = "--pushgateway-username (PUSHGATEWAY_USERNAME)";
const PASSWORD_FILE: &str = "--pushgateway-password-file (PUSHGATEWAY_PASSWORD_FILE)";
const TOKEN_FILE: &str = "--pushgateway-bearer-token-file (PUSHGATEWAY_BEARER_TOKEN_FILE)";

/// Runs a command with settings of the gateway, and expects that they end it with that sentence before it begins.
async fn refused_for(command: &str, environment: &[(&str, &str)], expected: &str) {
    let environment = [&[("PUSHGATEWAY_URL", "http://127.0.0.1:9091")], environment].concat();

    let refused = run(&[&[command], needed(command)].concat(), &environment).await;

    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{command} {environment:?}");
    assert_eq!(refused.sentence(), expected, "{command}");
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
    assert_eq!(std::fs::read_dir(refused.folder.path()).unwrap().count(), 0, "{command}: it began");
}

#[tokio::test]
async fn a_base_url_with_a_query_or_a_fragment_is_refused_without_repeating_it() {
    let cases = [
        ("job", "--pushgateway-url", "PUSHGATEWAY_URL"),
        ("serve", "--pushgateway-url", "PUSHGATEWAY_URL"),
        ("load", "--target", "LOAD_TARGET"),
    ];
    for (command, flag, variable) in cases {
        for url in ["http://h/?token=hunter2", "http://h/push#hunter2", "ftp://h/?token=hunter2"] {
            let refused = run(&[&[command], needed(command)].concat(), &[(variable, url)]).await;

            assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{command} {url}");
            let beginning = format!("{flag} ({variable}) is not usable: expected a URL ");
            assert!(refused.sentence().starts_with(&beginning), "{url}: {}", refused.stderr);
            assert!(!refused.stderr.contains("hunter2"), "{url}: {}", refused.stderr);
        }
    }
}

#[tokio::test]
async fn credentials_that_do_not_go_together_are_refused_without_repeating_them() {
    let folder = tempfile::tempdir().unwrap();
    let good = folder.path().join("good");
    std::fs::write(&good, "hunter2\n").unwrap();
    let good = good.to_str().unwrap();
    let password_file = ("PUSHGATEWAY_PASSWORD_FILE", good);
    let token_file = ("PUSHGATEWAY_BEARER_TOKEN_FILE", good);
    let (user, password) = (("PUSHGATEWAY_USERNAME", "u"), ("PUSHGATEWAY_PASSWORD", "hunter2"));
    let token = ("PUSHGATEWAY_BEARER_TOKEN", "hunter2");
    let one_of =
        |setting: &str, file: &str| format!("{setting} is not usable: {file} is given too; give only one of them");
    let both = "PUSHGATEWAY_BEARER_TOKEN is not usable: a user name or password is given too; the gateway takes one or \
                the other";
    let cases = [
        (vec![password], format!("{USER} is not usable: a password is given, and no user name")),
        (vec![password_file], format!("{USER} is not usable: a password is given, and no user name")),
        (
            vec![("PUSHGATEWAY_USERNAME", "u:hunter2"), password],
            format!("{USER} is not usable: expected a name without a colon"),
        ),
        (vec![user, password, password_file], one_of("PUSHGATEWAY_PASSWORD", PASSWORD_FILE)),
        (vec![token, token_file], one_of("PUSHGATEWAY_BEARER_TOKEN", TOKEN_FILE)),
        (vec![user, password, token], both.to_owned()),
        (vec![user, token], both.to_owned()),
        (vec![password, token], both.to_owned()),
        (vec![user, password_file, token_file], both.to_owned()),
    ];
    for (environment, expected) in cases {
        for command in ["serve", "job", "import"] {
            refused_for(command, &environment, &expected).await;
        }
    }
}

#[tokio::test]
async fn a_service_is_refused_credentials_that_cannot_be_read_without_repeating_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let two_lines = file("two", "hunter2\nhunter3\n");
    let (empty, blank) = (file("empty", ""), file("blank", "\n"));
    let user = ("PUSHGATEWAY_USERNAME", "u");
    let cases = [
        (
            vec![user],
            format!("{USER} is not usable: a password is missing: PUSHGATEWAY_PASSWORD, or a file that holds it"),
        ),
        (
            vec![user, ("PUSHGATEWAY_PASSWORD_FILE", "/nonexistent/password")],
            format!("{PASSWORD_FILE} \"/nonexistent/password\" is not usable: No such file or directory (os error 2)"),
        ),
        (
            vec![("PUSHGATEWAY_BEARER_TOKEN_FILE", "/")],
            format!("{TOKEN_FILE} \"/\" is not usable: Is a directory (os error 21)"),
        ),
        (
            vec![("PUSHGATEWAY_BEARER_TOKEN_FILE", "/dev/zero")],
            format!("{TOKEN_FILE} \"/dev/zero\" is not usable: it is not a plain file"),
        ),
        (
            vec![user, ("PUSHGATEWAY_PASSWORD_FILE", &*empty)],
            format!("{PASSWORD_FILE} {empty:?} is not usable: it is empty"),
        ),
        (
            vec![("PUSHGATEWAY_BEARER_TOKEN_FILE", &*blank)],
            format!("{TOKEN_FILE} {blank:?} is not usable: it is empty"),
        ),
        (
            vec![("PUSHGATEWAY_BEARER_TOKEN_FILE", &*two_lines)],
            format!("{TOKEN_FILE} {two_lines:?} is not usable: it holds control characters"),
        ),
        (
            vec![user, ("PUSHGATEWAY_PASSWORD", "hunter2\nhunter3")],
            "PUSHGATEWAY_PASSWORD is not usable: it holds control characters".to_owned(),
        ),
    ];
    for (environment, expected) in cases {
        refused_for("serve", &environment, &expected).await;
    }
}

#[tokio::test]
async fn a_service_is_refused_a_ca_file_whose_certificate_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ca.pem");
    std::fs::write(&path, "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n").unwrap();
    let path = path.to_str().unwrap();

    let refused = run(&["serve", "--pushgateway-url", "https://127.0.0.1:9091", "--ca-file", path], &[]).await;

    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""));
    let beginning = format!("--ca-file (PUSHGATEWAY_CA_FILE) {path:?} is not usable: ");
    assert!(refused.sentence().starts_with(&beginning), "{}", refused.stderr);
}

#[tokio::test]
async fn what_a_job_lacks_is_said() {
    const NO_COMMAND: &str = "COMMAND is not usable: expected the command to run, after --";
    let gateway = ["--pushgateway-url", "http://127.0.0.1:9091"];
    let cases: [(&[&str], &str, &str); 7] = [
        (
            &["--", "touch", "ran"],
            "--name (JOB_NAME) is not usable: expected the job's name, such as backup",
            "the name",
        ),
        (&["--name", "backup"], NO_COMMAND, "the command"),
        (&["--name", "backup", "--"], NO_COMMAND, "the command, after its dashes"),
        (&["--name", "backup", "--", "", "a"], NO_COMMAND, "the command, before its argument"),
        (
            &["--flush", "--spool-dir", "spool", gateway[0], gateway[1], "--", "touch", "ran"],
            "--flush (JOB_FLUSH) is not usable: it runs no command; leave out one or the other",
            "nothing: it has too much",
        ),
        (
            &["--flush", gateway[0], gateway[1]],
            "--spool-dir (PUSH_SPOOL_DIR) is not usable: --flush needs the folder where pushes wait",
            "the spool",
        ),
        (
            &["--flush", "--spool-dir", "spool"],
            "--pushgateway-url (PUSHGATEWAY_URL) is not usable: --flush needs the gateway's URL, such as \
             http://127.0.0.1:9091",
            "the gateway",
        ),
    ];
    for (arguments, expected, lacking) in cases {
        let refused = run(&[&["job"], arguments].concat(), &[]).await;

        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{lacking}");
        assert_eq!(refused.sentence(), expected, "{lacking}");
        assert_eq!(std::fs::read_dir(refused.folder.path()).unwrap().count(), 0, "{lacking}: it began");
    }
}

#[tokio::test]
async fn what_an_import_lacks_is_said() {
    let nothing = run(&["import"], &[]).await;
    let empty = run(&["import", ""], &[]).await;

    assert_eq!((nothing.code, nothing.stdout.as_str()), (Some(2), ""));
    assert!(nothing.stderr.starts_with("error: ") && nothing.stderr.contains("<FILE>"), "{}", nothing.stderr);
    assert_eq!(empty.code, Some(2));
    assert_eq!(empty.sentence(), "FILE \"\" is not usable: expected a file, or - for stdin");
}

#[tokio::test]
async fn a_switch_that_is_neither_on_nor_off_is_refused_in_one_sentence() {
    let cases = [
        ("job", "--fail-on-push-error", "FAIL_ON_PUSH_ERROR"),
        ("job", "--no-start-push", "JOB_NO_START_PUSH"),
        ("job", "--flush", "JOB_FLUSH"),
        ("import", "--no-start-push", "JOB_NO_START_PUSH"),
        ("serve", "--push-delete-on-exit", "PUSH_DELETE_ON_EXIT"),
    ];
    for (command, flag, variable) in cases {
        let refused = run(&[&[command], needed(command)].concat(), &[(variable, "maybe")]).await;

        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{variable}");
        let beginning = format!("{flag} ({variable}) \"maybe\" is not usable: expected ");
        assert!(refused.sentence().starts_with(&beginning), "{variable}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn a_secret_is_never_printed() {
    const SECRET: &str = "hunter2";
    let url = "postgres://u:hunter2@h/d";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, url).unwrap();
    let file = file.to_str().unwrap();
    let environment = [
        ("DATABASE_URL", url),
        ("RUST_LOG", "trace"),
        ("PUSHGATEWAY_URL", "http://u:hunter2@h"),
        ("PUSHGATEWAY_USERNAME", "hunter2"),
        ("PUSHGATEWAY_PASSWORD", SECRET),
        ("PUSHGATEWAY_BEARER_TOKEN", SECRET),
    ];
    let cases: [Case<'_>; 16] = [
        (&[], &environment, "by default"),
        (&["serve"], &environment, "on its own command"),
        (&["serve", "--help"], &environment, "in the help of serve, which shows values of the environment"),
        (&["--help"], &environment, "in the program's help"),
        (&["help", "serve"], &environment, "in the help, the other way"),
        (&["healthcheck", "--help"], &environment, "in another command's help"),
        (&["job", "--help"], &environment, "in the help of job"),
        (&["import", "--help"], &environment, "in the help of import"),
        (&["job", "--name", "backup", "--", "true"], &environment, "where a job's settings are wrong"),
        (&["import", "users.csv"], &environment, "where an import's settings are wrong"),
        (&["job", "--flush", "--spool-dir", "spool"], &environment, "where a flush's settings are wrong"),
        (&["openapi"], &environment, "in the description"),
        (&["serve", "--nope"], &environment, "beside a wrong flag"),
        (&["serve", "--database-url", url, "--log", "trace"], &[], "as a flag"),
        (&["serve", "--database-url", url, "--database-url", url], &[], "as a flag given twice"),
        (&["serve", "--database-url-file", file, "--log", "trace"], &environment, "in a file and in the environment"),
    ];
    for (arguments, environment, reason) in cases {
        let run = run(arguments, environment).await;

        assert!(!run.stdout.contains(SECRET), "{reason}: {}", run.stdout);
        assert!(!run.stderr.contains(SECRET), "{reason}: {}", run.stderr);
    }
}

#[tokio::test]
async fn a_password_in_the_url_of_the_health_check_is_never_printed() {
    let nobody = unused_address();
    let url = format!("http://u:hunter2@{}/health", nobody.0);
    let token = format!("http://{}/health?token=hunter2", nobody.0);
    let cases: [Case<'_>; 6] = [
        (&["healthcheck", "--url", &url], &[], "when nothing answers"),
        (&["healthcheck"], &[("HEALTHCHECK_URL", &url)], "the same, from the environment"),
        (&["healthcheck", "--help"], &[("HEALTHCHECK_URL", &url)], "in the help, which shows values"),
        (&["healthcheck", "--url", "ftp://u:hunter2@h/"], &[], "when it is refused"),
        (&["healthcheck", "--url", &token], &[], "as a token, when nothing answers"),
        (&["healthcheck", "--url", "ftp://h/?token=hunter2"], &[], "as a token, when it is refused"),
    ];
    for (arguments, environment, reason) in cases {
        let run = run(arguments, environment).await;

        assert!(!run.stdout.contains("hunter2"), "{reason}: {}", run.stdout);
        assert!(!run.stderr.contains("hunter2"), "{reason}: {}", run.stderr);
    }
}

#[tokio::test]
async fn the_exit_code_does_not_need_somebody_who_reads_the_reason() {
    let cases: [(&[&str], i32, &str); 3] = [
        (&["serve", "--nope"], 2, "a wrong flag"),
        (&["serve", "--listen", "nowhere"], 2, "a wrong setting"),
        (&["serve", "--listen", "127.0.0.1:0", "--database-url", "sqlite:///proc/nope/users.db"], 1, "a failed start"),
    ];
    for (arguments, code, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut command = binary(folder.path());
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(pipe_that_nobody_reads());

        let status =
            in_time("the end of the process", tokio::process::Command::from(command).kill_on_drop(true).status())
                .await
                .unwrap();

        assert_eq!(status.code(), Some(code), "{reason}: {status}");
    }
}

// ---- Where settings come from ----

#[tokio::test]
async fn a_flag_that_names_the_database_wins_over_a_file_named_by_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("url"), "sqlite://flag.db").unwrap();
    let cases: [(&[&str], (&str, &str), &str); 2] = [
        (&["--database-url", "sqlite://flag.db"], ("DATABASE_URL_FILE", "/nonexistent"), "a URL over a file"),
        (&["--database-url-file", "url"], ("DATABASE_URL", "sqlite://variable.db"), "a file over a URL"),
    ];
    for (flags, (variable, value), reason) in cases {
        let mut command = binary(folder.path());
        command.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]).args(flags).env(variable, value);

        let ready = Process::spawn(command).line("\"ready\"").await;

        let ready: Value = serde_json::from_str(&ready).unwrap();
        assert_eq!(ready["database"], "sqlite://flag.db", "{reason}");
    }
}

#[tokio::test]
async fn settings_come_from_the_environment() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    command.envs([
        ("API_LISTEN", "127.0.0.1:0"),
        ("DATABASE_URL", "sqlite://elsewhere/mine.db"),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "info"),
        ("REQUEST_TIMEOUT", "5s"),
        ("MAX_IN_FLIGHT", "10"),
        ("MAX_CONNECTIONS", "10"),
        ("DRAIN_TIMEOUT", "1s"),
        ("DRAIN_DELAY", "0s"),
        ("API_SEED", "7"),
    ]);

    let mut process = Process::spawn(command);

    let ready: Value = serde_json::from_str(&process.line("ready").await).unwrap();
    assert_eq!(ready["database"], "sqlite://elsewhere/mine.db");
    assert!(folder.path().join("elsewhere/mine.db").is_file());
    process.signal(SIGTERM);
    assert_eq!(process.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_flag_wins_over_its_environment_variable() {
    let flags = [
        ("--listen", "API_LISTEN", "127.0.0.1:0"),
        ("--database-url", "DATABASE_URL", "sqlite::memory:"),
        ("--log-format", "LOG_FORMAT", "text"),
        ("--log", "RUST_LOG", "info"),
        ("--request-timeout", "REQUEST_TIMEOUT", "5s"),
        ("--max-in-flight", "MAX_IN_FLIGHT", "10"),
        ("--max-connections", "MAX_CONNECTIONS", "10"),
        ("--drain-timeout", "DRAIN_TIMEOUT", "1s"),
        ("--drain-delay", "DRAIN_DELAY", "0s"),
        ("--seed", "API_SEED", "7"),
        ("--push-interval", "PUSH_INTERVAL", "1h"),
        ("--push-job", "PUSH_JOB", "api"),
        ("--pushgateway-url", "PUSHGATEWAY_URL", "http://127.0.0.1:1"),
        ("--push-grouping", "PUSH_GROUPING", "zone=a"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    for (flag, variable, value) in flags {
        // As a value of most settings this is wrong, so the process ends where a variable wins.
        command.args([flag, value]).env(variable, "=wrong=");
    }

    let mut process = Process::spawn(command);

    process.line("ready").await;
    process.signal(SIGTERM);
    assert_eq!(process.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_flag_of_a_job_wins_over_its_environment_variable() {
    let settings = [
        ("--name", "JOB_NAME", "", "backup"),
        ("--timeout", "JOB_TIMEOUT", "1", "1h"),
        ("--kill-after", "JOB_KILL_AFTER", "1", "1s"),
        ("--metrics-file", "JOB_METRICS_FILE", "", "metrics"),
        ("--push-deadline", "PUSH_DEADLINE", "1", "100ms"),
        ("--spool-dir", "PUSH_SPOOL_DIR", "", "spool"),
        ("--expect-every", "JOB_EXPECT_EVERY", "1", "1h"),
        ("--push-grouping", "PUSH_GROUPING", "=", "zone=a"),
    ];
    let flags = settings.map(|(flag, _, _, right)| [flag, right]).concat();
    let variables = settings.map(|(_, variable, wrong, _)| (variable, wrong));

    let ran = run(&[&["job"], &flags[..], &["--", "sh", "-c", "exit 3"]].concat(), &variables).await;

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(3), ""));
}

#[tokio::test]
async fn an_empty_variable_is_one_that_is_not_set_for_every_setting_of_every_command() {
    let (nobody, _kept) = unused_address();
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.csv");
    std::fs::write(&users, "name,email\nAda,ada@example.com\n").unwrap();
    let (base, health) = (format!("http://{nobody}"), format!("http://{nobody}/health"));
    let cases: [(&[&str], i32, &str); 5] = [
        (&["job", "--name", "backup", "--", "sh", "-c", "exit 3"], 3, ""),
        (&["import", users.to_str().unwrap()], 0, ""),
        (&["load", "--target", &base], 1, "api-monitoring: cannot reach "),
        (&["healthcheck", "--url", &health], 1, "api-monitoring: http://"),
        // The address is read before the wrong setting is found.
        (&["serve", "--max-in-flight=0"], 2, "api-monitoring: --max-in-flight (MAX_IN_FLIGHT) \"0\" is not usable"),
    ];
    for (arguments, code, said) in cases {
        let variables = variables(arguments[0]).await;
        // As compose files write it: `VARIABLE: ${VARIABLE:-}`.
        let empty: Vec<_> = variables.iter().map(|name| (name.as_str(), "")).collect();

        let ran = run(arguments, &empty).await;

        assert_eq!(ran.code, Some(code), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.starts_with(said) && ran.stderr.is_empty() == said.is_empty(), "{arguments:?}: {ran:?}");
    }

    let mut serve = binary(folder.path());
    serve.args(["serve", "--listen", "127.0.0.1:0"]);
    serve.envs(variables("serve").await.iter().map(|name| (name, "")));
    let mut serve = Process::spawn(serve);
    let ready = serve.line("ready").await;
    assert!(ready.contains("sqlite://data/users.db"), "{ready}");
    serve.signal(SIGTERM);
    assert_eq!(serve.exit().await.code(), Some(0));
}

/// The variables that a command's help names.
async fn variables(command: &str) -> Vec<String> {
    let help = run(&[command, "--help"], &[]).await.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let options = help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap().to_owned());
    let secrets = ["PUSHGATEWAY_PASSWORD", "PUSHGATEWAY_BEARER_TOKEN"].map(str::to_owned);
    let variables: Vec<_> = options.chain(secrets).collect();
    assert!(variables.len() > 3, "{command}: {variables:?}");
    variables
}

#[tokio::test]
async fn an_empty_flag_is_refused_also_where_its_variable_is_empty() {
    let refused = run(&["serve", "--drain-timeout="], &[("DRAIN_TIMEOUT", "")]).await;

    assert_eq!(refused.code, Some(2));
    assert!(refused.sentence().starts_with("--drain-timeout (DRAIN_TIMEOUT) \"\" is not usable: "), "{refused:?}");
}

#[tokio::test]
async fn white_space_around_a_value_is_not_part_of_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("url"), " sqlite://mine.db \n\n").unwrap();
    let variables = [
        ("API_LISTEN", "127.0.0.1:0"),
        ("LOG_FORMAT", "json"),
        ("RUST_LOG", "info"),
        ("REQUEST_TIMEOUT", "5s"),
        ("MAX_IN_FLIGHT", "10"),
        ("DRAIN_TIMEOUT", "1s"),
        ("DRAIN_DELAY", "0s"),
        ("API_SEED", "7"),
        ("PUSH_INTERVAL", "1h"),
        ("PUSH_JOB", "users-api"),
        ("PUSH_DELETE_ON_EXIT", "false"),
        ("PUSH_GROUPING", "zone=a, instance=web-1"),
        ("PUSHGATEWAY_URL", "http://127.0.0.1:1"),
        ("PUSHGATEWAY_USERNAME", "u"),
        // Of secrets, only a final line break is not a part.
        ("PUSHGATEWAY_PASSWORD", "hunter2"),
    ];
    let mut serve = binary(folder.path());
    serve.env("DATABASE_URL_FILE", "url");
    for (variable, value) in variables {
        let before = if variable == "PUSHGATEWAY_PASSWORD" { "" } else { " \t" };
        serve.env(variable, format!("{before}{value}\n"));
    }

    let mut process = Process::spawn(serve);

    let ready: Value = serde_json::from_str(&process.line("\"ready\"").await).unwrap();
    assert_eq!(ready["database"], "sqlite://mine.db");
    let pushing = process.line("pushing metrics").await;
    assert!(pushing.contains(r#"{job=\"users-api\",instance=\"web-1\",zone=\"a\"}"#), "{pushing}");
    process.signal(SIGTERM);
    assert_eq!(process.exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_log_filter_with_white_space_silences_nothing() {
    for (filter, lines) in
        [("info ", true), (" info\n", true), ("warn , api_monitoring = info", false), ("info, hyper=warn", true)]
    {
        let folder = tempfile::tempdir().unwrap();
        let mut serve = binary(folder.path());
        serve.args(["serve", "--listen", "127.0.0.1:0"]).env("RUST_LOG", filter);

        let mut process = Process::spawn(serve);

        if lines {
            process.line("ready").await;
            process.signal(SIGTERM);
            assert_eq!(process.exit().await.code(), Some(0), "{filter:?}");
        } else {
            assert_eq!(process.exit().await.code(), Some(2), "{filter:?}: {:?}", process.lines());
        }
    }
}

#[tokio::test]
async fn files_are_named_by_any_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let named = |name: &[u8]| folder.path().join(OsStr::from_bytes(name));
    let (users, rejects, report, url) =
        (named(b"users\xff.csv"), named(b"rejects\xfe"), named(b"report\xfd"), named(b"url\xfc"));
    std::fs::write(&users, "name,email\nAda,ada@example.com\n,nobody@example.com\n").unwrap();
    std::fs::write(&url, "sqlite://elsewhere.db").unwrap();
    let server = Server::start().await;

    for variables in [false, true] {
        let mut import = binary(folder.path());
        import.arg("import").arg(&users);
        let mut load = binary(folder.path());
        load.args(["load", "--duration", "1ms", "--target", &server.url("")]);
        if variables {
            import.env("IMPORT_REJECTS", &rejects).env("DATABASE_URL_FILE", &url).args(["--key", "again"]);
            load.env("LOAD_REPORT", &report);
        } else {
            import.arg("--rejects").arg(&rejects).arg("--database-url-file").arg(&url);
            load.arg("--report").arg(&report);
        }

        for command in [import, load] {
            let output = finished(command).await;
            assert_eq!(output.status.code(), Some(0), "{output:?}");
        }

        assert_eq!(std::fs::read_to_string(&rejects).unwrap().lines().count(), 1);
        serde_json::from_slice::<Value>(&std::fs::read(&report).unwrap()).unwrap();
        assert!(folder.path().join("elsewhere.db").is_file());
        std::fs::remove_file(&rejects).unwrap();
        std::fs::remove_file(&report).unwrap();
    }
}

#[tokio::test]
async fn serve_is_what_happens_without_a_command() {
    let cases: [(&[&str], &str); 3] =
        [(&[], "nothing at all"), (&["--log-format", "text"], "flags alone"), (&["serve"], "the command itself")];
    for (arguments, reason) in cases {
        let folder = tempfile::tempdir().unwrap();
        let mut command = binary(folder.path());
        command.args(arguments).env("API_LISTEN", "127.0.0.1:0");

        let mut process = Process::spawn(command);

        process.line("ready").await;
        assert!(folder.path().join("data/users.db").is_file(), "{reason}");
        process.signal(SIGTERM);
        assert_eq!(process.exit().await.code(), Some(0), "{reason}");
    }
}

#[tokio::test]
async fn the_address_that_port_0_took_is_logged() {
    let server = Server::start().await;

    let listening = server.log_event("listening").await;

    let address: std::net::SocketAddr = listening["address"].as_str().unwrap().parse().unwrap();
    assert!(address.ip().is_loopback() && address.port() != 0, "{address}");
    assert_eq!(server.get("/health").await.status, 200);
}

// ---- healthcheck ----

#[tokio::test]
async fn a_health_check_succeeds_where_the_service_answers() {
    let server = Server::start().await;
    let url = server.url("/health");
    let cases: [Case<'_>; 3] = [
        (&["healthcheck", "--url", &url], &[], "by flag"),
        (&["healthcheck"], &[("HEALTHCHECK_URL", &url)], "by variable"),
        (
            &["healthcheck", "--url", &url],
            &[("HTTP_PROXY", "http://127.0.0.1:1"), ("http_proxy", "http://127.0.0.1:1")],
            "past a proxy, which would not reach the container's own address",
        ),
    ];
    for (arguments, environment, reason) in cases {
        let healthy = run(arguments, environment).await;

        assert_eq!(healthy.code, Some(0), "{reason}: {}", healthy.stderr);
        assert_eq!((healthy.stdout.as_str(), healthy.stderr.as_str()), ("", ""), "{reason}");
    }
}

#[tokio::test]
async fn a_health_check_fails_with_a_sentence_where_nothing_good_answers() {
    let server = Server::start().await;
    let (nobody, _kept) = unused_address();
    // The system takes connections for it; it never answers.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let cases = [
        (format!("http://{nobody}/health"), "3s", "cannot be reached: ", "nothing listens"),
        (server.url("/api/error"), "3s", "answers 500 Internal Server Error, expected 200 OK", "it answers a failure"),
        (server.url("/nope"), "3s", "answers 404 Not Found, expected 200 OK", "it answers something else"),
        (format!("http://{}/", mute.local_addr().unwrap()), "200ms", "does not answer within 200ms", "it hangs"),
        (server.url("/api/slow"), "200ms", "does not answer within 200ms", "it is too slow"),
    ];
    for (url, timeout, expected, reason) in cases {
        let unhealthy = run(&["healthcheck", "--url", &url, "--timeout", timeout], &[]).await;

        assert_eq!((unhealthy.code, unhealthy.stdout.as_str()), (Some(1), ""), "{reason}: {}", unhealthy.stderr);
        assert!(unhealthy.sentence().starts_with(&format!("{url} {expected}")), "{reason}: {}", unhealthy.stderr);
    }
}

// ---- What is written to stdout ----

#[tokio::test]
async fn what_was_asked_for_and_finds_no_room_is_a_failure() {
    let server = Server::start().await;
    let url = server.url("");
    let load = ["load", "--duration", "1ms", "--target", &url];
    let cases: [&[&str]; 7] = [
        &["--version"],
        &["--help"],
        &["help", "job"],
        &["serve", "--help"],
        &["openapi"],
        &load,
        &[&load[..], &["--report", "-"]].concat(),
    ];
    for arguments in cases {
        let folder = tempfile::tempdir().unwrap();
        let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let command = |stdout: Stdio| {
            let mut command = binary(folder.path());
            command.args(arguments).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped());
            command
        };

        let failed = wait_with_stderr(command(full().into())).await;
        let unread = wait_with_stderr(command(pipe_that_nobody_reads().into())).await;

        let said = String::from_utf8(failed.stderr).unwrap();
        assert_eq!(failed.status.code(), Some(1), "{arguments:?}: {said}");
        let lines: Vec<_> = said.lines().filter(|line| line.starts_with("api-monitoring: cannot write ")).collect();
        assert!(lines.len() == 1 && said.contains("No space left on device"), "{arguments:?}: {said}");
        assert_eq!((unread.status.code(), unread.stderr.as_slice()), (Some(0), &b""[..]), "{arguments:?}");
    }
}

// ---- openapi ----

#[tokio::test]
async fn openapi_prints_the_description_and_nothing_else() {
    let server = Server::start().await;

    let printed = run(&["openapi"], &[]).await;

    assert_eq!((printed.code, printed.stderr.as_str()), (Some(0), ""));
    let description: Value = serde_json::from_str(&printed.stdout).unwrap();
    assert!(description["openapi"].as_str().unwrap().starts_with("3.1."), "{}", description["openapi"]);
    assert_eq!(description, server.get("/openapi.json").await.json(), "the running service tells the same");
    assert!(printed.stdout.ends_with("}\n"), "a text file ends with a newline");
    assert_eq!(std::fs::read_dir(printed.folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn openapi_ends_quietly_when_its_reader_has_seen_enough() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    command.arg("openapi").stdin(Stdio::null()).stdout(pipe_that_nobody_reads()).stderr(Stdio::piped());

    let output = wait_with_stderr(command).await;

    assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{}", output.status);
}

// ---- Helpers ----

/// The arguments without which a command does not run.
fn needed(command: &str) -> &'static [&'static str] {
    match command {
        "job" => &["--name", "backup", "--", "touch", "ran"],
        "import" => &["users.csv"],
        _ => &[],
    }
}

fn pipe_that_nobody_reads() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

async fn wait_with_stderr(command: Command) -> std::process::Output {
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    in_time("the end of the process", child.wait_with_output()).await.unwrap()
}
