//! The command line: help, exit codes, wrong settings.

use std::net::TcpListener;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal::SIGTERM;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpSocket;

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
        ("--drain-timeout", "DRAIN_TIMEOUT"),
        ("--drain-delay", "DRAIN_DELAY"),
        ("--log-format", "LOG_FORMAT"),
        ("--log", "RUST_LOG"),
        ("--seed", "API_SEED"),
    ];
    let healthcheck = [("--url", "HEALTHCHECK_URL"), ("--timeout", "HEALTHCHECK_TIMEOUT")];
    for (command, settings) in [("serve", &serve[..]), ("healthcheck", &healthcheck), ("openapi", &[])] {
        let help = run(&[command, "--help"], &[]).await;

        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{command}");
        // One description per flag, whatever the line breaks in it.
        let words = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        let descriptions: Vec<&str> = words.split(" --").skip(1).collect();
        for (flag, variable) in settings {
            let flag = flag.strip_prefix("--").unwrap();
            let description = descriptions.iter().find(|text| text.split(' ').next() == Some(flag));
            let description = description.unwrap_or_else(|| panic!("{command}: no --{flag} in {words}"));
            let names = |end: &str| description.contains(&format!("[env: {variable}{end}"));
            assert!(names("]") || names("="), "{command} --{flag}: no {variable} in {description:?}");
        }
        // `--help` describes itself too.
        assert_eq!(descriptions.len(), settings.len() + 1, "{command}: a setting that this test does not know");
    }
}

#[tokio::test]
async fn the_programs_help_lists_its_commands_and_exit_codes() {
    for flag in ["--help", "-h", "help"] {
        let help = run(&[flag], &[]).await;

        assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""), "{flag}");
        let first_words: Vec<&str> = help.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
        for command in ["serve", "load", "healthcheck", "openapi"] {
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
    let cases: [(&[&str], &str, &str); 6] = [
        (&["sevre"], "sevre", "a command that does not exist"),
        (&["--nope"], "--nope", "a flag of no command"),
        (&["serve", "--nope"], "--nope", "a flag that serve does not have"),
        (&["serve", "8000"], "8000", "an argument without a flag"),
        (&["serve", "--listen"], "--listen", "a flag without its value"),
        (&["healthcheck", "--listen", "127.0.0.1:0"], "--listen", "another command's flag"),
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
    ];
    for (command, flag, variable, value, accepted, reason) in cases {
        let by_flag = run(&[command, &format!("{flag}={value}")], &[]).await;
        let by_variable = run(&[command], &[(variable, value)]).await;

        for refused in [by_flag, by_variable] {
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
async fn a_secret_is_never_printed() {
    const SECRET: &str = "hunter2";
    let url = "postgres://u:hunter2@h/d";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, url).unwrap();
    let file = file.to_str().unwrap();
    let environment = [("DATABASE_URL", url), ("RUST_LOG", "trace")];
    let cases: [Case<'_>; 11] = [
        (&[], &environment, "by default"),
        (&["serve"], &environment, "on its own command"),
        (&["serve", "--help"], &environment, "in the help of serve, which shows values of the environment"),
        (&["--help"], &environment, "in the program's help"),
        (&["help", "serve"], &environment, "in the help, the other way"),
        (&["healthcheck", "--help"], &environment, "in another command's help"),
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
    let cases: [Case<'_>; 4] = [
        (&["healthcheck", "--url", &url], &[], "when nothing answers"),
        (&["healthcheck"], &[("HEALTHCHECK_URL", &url)], "the same, from the environment"),
        (&["healthcheck", "--help"], &[("HEALTHCHECK_URL", &url)], "in the help, which shows values"),
        (&["healthcheck", "--url", "ftp://u:hunter2@h/"], &[], "when it is refused"),
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
        ("--drain-timeout", "DRAIN_TIMEOUT", "1s"),
        ("--drain-delay", "DRAIN_DELAY", "0s"),
        ("--seed", "API_SEED", "7"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let mut command = binary(folder.path());
    for (flag, variable, value) in flags {
        // As a value of any setting this is wrong, so the process ends where a variable wins.
        command.args([flag, value]).env(variable, "=wrong=");
    }

    let mut process = Process::spawn(command);

    process.line("ready").await;
    process.signal(SIGTERM);
    assert_eq!(process.exit().await.code(), Some(0));
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

/// An address at which nothing listens, kept from others while the socket lives.
fn unused_address() -> (std::net::SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

fn pipe_that_nobody_reads() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

async fn wait_with_stderr(command: Command) -> std::process::Output {
    let child = tokio::process::Command::from(command).kill_on_drop(true).spawn().unwrap();
    in_time("the end of the process", child.wait_with_output()).await.unwrap()
}
