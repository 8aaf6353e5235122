//! Settings: raw arguments in, ready-made values out. Past this point nobody parses and nobody reads the environment.
//!
//! A wrong setting is one sentence that names the setting, its value and what is accepted. White space around a value is
//! not part of it, but for paths and secrets, which may hold any.

mod backup;
mod batch;
mod push;

use std::ffi::OsStr;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use reqwest::Url;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::cli::{HealthcheckArgs, LoadArgs, ServeArgs};
use crate::store::DatabaseUrl;

pub use crate::cli::METRICS_FILE_MARK;
pub use backup::BackupConfig;
pub use batch::{ImportConfig, ImportFormat, ImportSource, JobCall, JobCommand, JobConfig};
pub use push::{DeliveryConfig, FlushConfig, PushConfig, ReportConfig};

/// The store when none is named.
const DEFAULT_DATABASE_URL: &str = "sqlite://data/users.db";

/// A setting that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{setting}{value} is not usable: {reason}")]
pub struct ConfigError {
    setting: &'static str,
    /// ` "value"`, or nothing where the value may be secret.
    value: String,
    reason: String,
}

/// Settings of `serve`.
#[derive(Debug)]
pub struct ServeConfig {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Where the users are.
    pub database_url: DatabaseUrl,
    /// Deadline of a request.
    pub request_timeout: Duration,
    /// Requests handled at once.
    pub max_in_flight: usize,
    /// Connections open at once.
    pub max_connections: usize,
    /// What requests in flight are given to finish.
    pub drain_timeout: Duration,
    /// How long to go on accepting after the signal.
    pub drain_delay: Duration,
    /// Seed of the delays of `/api/slow`.
    pub seed: u64,
    /// Where to push the metrics, if anywhere.
    pub push: Option<PushConfig>,
}

/// How to log.
#[derive(Debug)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
    /// What to log.
    pub filter: EnvFilter,
}

/// The form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Settings of `load`.
#[derive(Debug, Clone)]
pub struct LoadConfig {
    /// Base URL, without a trailing slash.
    pub target: Url,
    /// Requests started per second.
    pub rate: f64,
    /// How long to send.
    pub duration: Duration,
    /// Requests in flight at most.
    pub concurrency: usize,
    /// Seed of the mix.
    pub seed: u64,
    /// Where the JSON report goes.
    pub report: Option<ReportTarget>,
}

/// Where a report goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportTarget {
    /// Standard output.
    Stdout,
    /// A file, replaced when it exists.
    File(PathBuf),
}

/// Settings of `healthcheck`.
#[derive(Debug)]
pub struct HealthcheckConfig {
    /// What to ask.
    pub url: Url,
    /// How long to wait.
    pub timeout: Duration,
}

impl TryFrom<&ServeArgs> for ServeConfig {
    type Error = ConfigError;

    fn try_from(args: &ServeArgs) -> Result<Self, ConfigError> {
        let hour = Duration::from_hours(1);
        Ok(Self {
            listen: parse(
                "--listen (API_LISTEN)",
                &args.listen,
                "expected an address and port such as 127.0.0.1:8000",
            )?,
            database_url: database_url(args.database_url.as_deref(), args.database_url_file.as_deref())?,
            request_timeout: duration(
                "--request-timeout (REQUEST_TIMEOUT)",
                &args.request_timeout,
                Duration::from_millis(1)..=hour,
            )?,
            max_in_flight: number("--max-in-flight (MAX_IN_FLIGHT)", &args.max_in_flight, 1..=1_000_000)?,
            max_connections: number("--max-connections (MAX_CONNECTIONS)", &args.max_connections, 1..=1_000_000)?,
            drain_timeout: duration("--drain-timeout (DRAIN_TIMEOUT)", &args.drain_timeout, Duration::ZERO..=hour)?,
            drain_delay: duration("--drain-delay (DRAIN_DELAY)", &args.drain_delay, Duration::ZERO..=hour)?,
            seed: match &args.seed {
                Some(seed) => number("--seed (API_SEED)", seed, 0..=u64::MAX)?,
                None => rand::random(),
            },
            push: push::push(args)?,
        })
    }
}

impl TryFrom<&ServeArgs> for LogConfig {
    type Error = ConfigError;

    fn try_from(args: &ServeArgs) -> Result<Self, ConfigError> {
        Ok(Self { format: log_format(&args.log_format)?, filter: log_filter(&args.log)? })
    }
}

impl TryFrom<LoadArgs> for LoadConfig {
    type Error = ConfigError;

    fn try_from(args: LoadArgs) -> Result<Self, ConfigError> {
        Ok(Self {
            target: base_url("--target (LOAD_TARGET)", &args.target)?,
            rate: number("--rate (LOAD_RATE)", &args.rate, 0.1..=100_000.0)?,
            duration: duration(
                "--duration (LOAD_DURATION)",
                &args.duration,
                Duration::from_millis(1)..=Duration::from_hours(7 * 24),
            )?,
            concurrency: number("--concurrency (LOAD_CONCURRENCY)", &args.concurrency, 1..=100_000)?,
            seed: number("--seed (LOAD_SEED)", &args.seed, 0..=u64::MAX)?,
            report: match args.report.as_deref() {
                None => None,
                Some(path) if path.is_empty() => {
                    return Err(refused("--report (LOAD_REPORT)", "", "expected a file, or - for stdout"));
                }
                Some(path) if path == "-" => Some(ReportTarget::Stdout),
                Some(path) => Some(ReportTarget::File(path.into())),
            },
        })
    }
}

impl TryFrom<HealthcheckArgs> for HealthcheckConfig {
    type Error = ConfigError;

    fn try_from(args: HealthcheckArgs) -> Result<Self, ConfigError> {
        Ok(Self {
            url: http_url("--url (HEALTHCHECK_URL)", &args.url)?,
            timeout: duration(
                "--timeout (HEALTHCHECK_TIMEOUT)",
                &args.timeout,
                Duration::from_millis(1)..=Duration::from_hours(1),
            )?,
        })
    }
}

/// A setting that is not there, or whose value may be secret.
fn missing(setting: &'static str, reason: impl Into<String>) -> ConfigError {
    ConfigError { setting, value: String::new(), reason: reason.into() }
}

fn refused(setting: &'static str, value: impl fmt::Debug, reason: impl Into<String>) -> ConfigError {
    ConfigError { setting, value: format!(" {value:?}"), reason: reason.into() }
}

fn parse<T: FromStr>(setting: &'static str, value: &str, expected: &str) -> Result<T, ConfigError> {
    value.trim().parse().map_err(|_| refused(setting, value, expected))
}

fn number<T>(setting: &'static str, value: &str, range: RangeInclusive<T>) -> Result<T, ConfigError>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    let number = value.trim().parse().ok().filter(|number| range.contains(number));
    number
        .ok_or_else(|| refused(setting, value, format!("expected a number from {} to {}", range.start(), range.end())))
}

fn duration(setting: &'static str, value: &str, range: RangeInclusive<Duration>) -> Result<Duration, ConfigError> {
    let duration = humantime::parse_duration(value.trim()).ok().filter(|duration| range.contains(duration));
    duration.ok_or_else(|| {
        let (start, end) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
        refused(
            setting,
            value,
            format!("expected a duration with its unit, such as 8s or 500ms, from {start} to {end}"),
        )
    })
}

/// A switch: a flag alone, or a variable, which may be set to nothing.
fn switch(setting: &'static str, value: &str) -> Result<bool, ConfigError> {
    match value.trim().to_ascii_lowercase().as_str() {
        "" | "0" | "false" | "no" | "off" => Ok(false),
        "1" | "true" | "yes" | "on" => Ok(true),
        _ => Err(refused(setting, value, "expected true or false")),
    }
}

fn log_filter(value: &str) -> Result<EnvFilter, ConfigError> {
    const SETTING: &str = "--log (RUST_LOG)";
    const EXPECTED: &str = "expected a level (error, warn, info, debug, trace, off), or directives such as \
                            info,http_request=warn";
    let directives: Vec<&str> = value.split(',').map(str::trim).collect();
    // The filter would take a mistyped level, or one with a blank beside it, for the name of a target, and silence all
    // others.
    let is_level = |word: &str| !word.is_empty() && word.parse::<LevelFilter>().is_ok();
    let is_usable = |directive: &&str| match directive.split_once('=') {
        _ if directive.contains('[') => true,
        Some((target, _)) => !target.is_empty() && !directive.contains(char::is_whitespace),
        None => is_level(directive),
    };
    if !directives.iter().all(is_usable) {
        return Err(refused(SETTING, value, EXPECTED));
    }
    let filter = EnvFilter::builder().parse(directives.join(","));
    filter.map_err(|error| refused(SETTING, value, format!("{EXPECTED} ({error})")))
}

fn log_format(value: &str) -> Result<LogFormat, ConfigError> {
    match value.trim() {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(refused("--log-format (LOG_FORMAT)", value, "expected text or json")),
    }
}

fn http_url(setting: &'static str, value: &str) -> Result<Url, ConfigError> {
    const EXPECTED: &str = "expected a URL such as http://127.0.0.1:8000, without user name and password";
    let url: Option<Url> = value.trim().parse().ok().filter(|_| !value.contains('@'));
    url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
        .ok_or_else(|| refused_url(setting, value, EXPECTED))
}

/// A URL before the paths of an API.
fn base_url(setting: &'static str, value: &str) -> Result<Url, ConfigError> {
    const EXPECTED: &str = "expected a URL such as http://127.0.0.1:8000, without query and fragment";
    let url = http_url(setting, value)?;
    if url.query().is_some() || url.fragment().is_some() { Err(refused_url(setting, value, EXPECTED)) } else { Ok(url) }
}

/// A URL that cannot be used. It is repeated where it cannot hold a password, before an `@`, or a token, in its query.
fn refused_url(setting: &'static str, value: &str, reason: impl Into<String>) -> ConfigError {
    if value.contains(['@', '?', '#']) { missing(setting, reason) } else { refused(setting, value, reason) }
}

fn path(setting: &'static str, value: Option<&OsStr>) -> Result<Option<PathBuf>, ConfigError> {
    match value {
        Some(value) if value.is_empty() => Err(refused(setting, "", "expected a path")),
        value => Ok(value.map(PathBuf::from)),
    }
}

/// The database URL, from the setting itself or from a file. Its value is never repeated: it may hold a password.
fn database_url(url: Option<&str>, file: Option<&OsStr>) -> Result<DatabaseUrl, ConfigError> {
    const URL: &str = "--database-url (DATABASE_URL)";
    const FILE: &str = "--database-url-file (DATABASE_URL_FILE)";
    let secret = |setting, reason: String| ConfigError { setting, value: String::new(), reason };
    let (setting, text) = match (url, file) {
        (Some(_), Some(_)) => return Err(secret(URL, format!("{FILE} is given too; give only one of them"))),
        (Some(url), None) => (URL, url.to_owned()),
        (None, None) => (URL, DEFAULT_DATABASE_URL.to_owned()),
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| refused(FILE, path, format!("the file cannot be read: {error}")))?;
            (FILE, text)
        }
    };
    text.trim().parse().map_err(|error: crate::store::InvalidDatabaseUrl| secret(setting, error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Command};

    fn serve(arguments: &[&str]) -> Result<ServeConfig, ConfigError> {
        let arguments = ["api-monitoring", "serve"].iter().chain(arguments).map(Into::into);
        let Ok(Command::Serve(args)) = cli::parse(arguments) else { panic!("not serve") };
        LogConfig::try_from(&args)?;
        ServeConfig::try_from(&args)
    }

    fn load(arguments: &[&str]) -> Result<LoadConfig, ConfigError> {
        let arguments = ["api-monitoring", "load"].iter().chain(arguments).map(Into::into);
        let Ok(Command::Load(args)) = cli::parse(arguments) else { panic!("not load") };
        args.try_into()
    }

    #[test]
    fn the_defaults_are_usable() {
        let config = serve(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8000");
        assert_eq!(config.database_url.to_string(), DEFAULT_DATABASE_URL);
        assert!(config.request_timeout > Duration::from_secs(3), "/api/slow takes up to 3 s");
        assert!(config.drain_timeout < Duration::from_secs(10), "Docker kills after 10 s");
        assert!(load(&[]).is_ok());
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_value_and_what_is_accepted() {
        let cases: &[(&[&str], &str)] = &[
            (
                &["--listen", "8000"],
                r#"--listen (API_LISTEN) "8000" is not usable: expected an address and port such as 127.0.0.1:8000"#,
            ),
            (
                &["--request-timeout", "10"],
                r#"--request-timeout (REQUEST_TIMEOUT) "10" is not usable: expected a duration with its unit, such as 8s or 500ms, from 1ms to 1h"#,
            ),
            (
                &["--request-timeout", "0s"],
                r#"--request-timeout (REQUEST_TIMEOUT) "0s" is not usable: expected a duration with its unit, such as 8s or 500ms, from 1ms to 1h"#,
            ),
            (
                &["--max-in-flight", "0"],
                r#"--max-in-flight (MAX_IN_FLIGHT) "0" is not usable: expected a number from 1 to 1000000"#,
            ),
            (&["--log-format", "xml"], r#"--log-format (LOG_FORMAT) "xml" is not usable: expected text or json"#),
            (
                &["--seed", "-1"],
                r#"--seed (API_SEED) "-1" is not usable: expected a number from 0 to 18446744073709551615"#,
            ),
        ];
        for (arguments, expected) in cases {
            let arguments = arguments.join("=");
            assert_eq!(serve(&[&arguments]).expect_err(&arguments).to_string(), *expected);
        }
        let error = serve(&["--log", "a=b=c"]).unwrap_err().to_string();
        assert!(error.starts_with(r#"--log (RUST_LOG) "a=b=c" is not usable: expected a level"#), "{error}");
        for (filter, usable) in [("info,http_request=warn", true), ("off", true), ("", false), ("loud", false)] {
            assert_eq!(serve(&["--log", filter]).is_ok(), usable, "{filter:?}");
        }
        for arguments in [["--rate", "0"], ["--rate", "NaN"], ["--target", "localhost:8000"], ["--duration", "1"]] {
            let error = load(&arguments).expect_err(arguments[0]).to_string();
            assert!(error.starts_with(arguments[0]), "{error}");
            assert!(error.contains(&format!("{:?} is not usable: expected", arguments[1])), "{error}");
        }
    }

    #[test]
    fn a_database_url_is_never_repeated() {
        for arguments in [&["--database-url", "postgres://u:secret@h/d"], &["--database-url", "secret"]] {
            let error = serve(arguments).unwrap_err().to_string();
            assert!(error.starts_with("--database-url (DATABASE_URL) is not usable: "), "{error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_database_url_can_come_from_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("url");
        std::fs::write(&path, "sqlite://elsewhere/users.db\n").unwrap();
        let path = path.to_str().unwrap();

        let config = serve(&["--database-url-file", path]).unwrap();

        assert_eq!(config.database_url.to_string(), "sqlite://elsewhere/users.db");
        let both = serve(&["--database-url-file", path, "--database-url", "sqlite::memory:"]).unwrap_err();
        assert!(both.to_string().contains("give only one of them"), "{both}");
        let missing = serve(&["--database-url-file", "/nonexistent/url"]).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent/url"), "{missing}");
    }
}
