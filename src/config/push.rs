//! Settings of pushing: the gateway, the group, the delivery.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ConfigError, duration, missing, path, refused, refused_url, switch};
use crate::causes;
use crate::cli::{DeliveryArgs, GatewayArgs, ServeArgs};
use crate::push::{Credentials, GroupingKey, InvalidTarget, PushTarget, Secret, check_ca_file};

pub(super) const GATEWAY_URL: &str = "--pushgateway-url (PUSHGATEWAY_URL)";

const GATEWAY_USERNAME: &str = "--pushgateway-username (PUSHGATEWAY_USERNAME)";

pub(super) const SPOOL_DIR: &str = "--spool-dir (PUSH_SPOOL_DIR)";

const PASSWORD: &str = "PUSHGATEWAY_PASSWORD";

const PASSWORD_FILE: &str = "--pushgateway-password-file (PUSHGATEWAY_PASSWORD_FILE)";

const TOKEN: &str = "PUSHGATEWAY_BEARER_TOKEN";

const TOKEN_FILE: &str = "--pushgateway-bearer-token-file (PUSHGATEWAY_BEARER_TOKEN_FILE)";

const CA_FILE: &str = "--ca-file (PUSHGATEWAY_CA_FILE)";

/// How a service pushes its metrics.
#[derive(Debug)]
pub struct PushConfig {
    /// The gateway.
    pub target: PushTarget,
    /// The group; without the label `instance`, unless that was given.
    pub key: GroupingKey,
    /// How often.
    pub interval: Duration,
    /// Whether to delete the group at the end.
    pub delete_on_exit: bool,
}

/// What is pushed about a batch job, and how.
#[derive(Debug, Clone)]
pub struct ReportConfig {
    /// The group.
    pub key: GroupingKey,
    /// How often the job should succeed.
    pub expected_interval: Option<Duration>,
    /// Whether its start is pushed too.
    pub start_push: bool,
    /// How pushes are delivered.
    pub delivery: DeliveryConfig,
}

/// How a batch job's pushes are delivered.
#[derive(Debug, Clone)]
pub struct DeliveryConfig {
    /// The gateway; nothing is pushed without one.
    pub target: Option<PushTarget>,
    /// How long pushes are tried again.
    pub deadline: Duration,
    /// Where undelivered pushes wait.
    pub spool_folder: Option<PathBuf>,
    /// Of the pauses between tries.
    pub seed: u64,
}

/// Settings of a delivery of what waits.
#[derive(Debug)]
pub struct FlushConfig {
    /// The gateway.
    pub target: PushTarget,
    /// Where pushes wait.
    pub spool_folder: PathBuf,
    /// How long each may be tried again.
    pub deadline: Duration,
    /// Of the pauses between tries.
    pub seed: u64,
}

/// How the service pushes. All of it is checked, also while there is no gateway.
pub(super) fn push(args: &ServeArgs) -> Result<Option<PushConfig>, ConfigError> {
    let key = grouping("--push-job (PUSH_JOB)", &args.push_job, &args.gateway, &[])?;
    let range = Duration::from_millis(100)..=Duration::from_hours(24);
    let interval = duration("--push-interval (PUSH_INTERVAL)", &args.push_interval, range)?;
    let delete_on_exit = switch("--push-delete-on-exit (PUSH_DELETE_ON_EXIT)", &args.push_delete_on_exit)?;
    let target = target(&args.gateway)?;
    // A service that could not push would be a service that nobody hears of; a job must run all the same.
    check_files(&args.gateway)?;
    Ok(target.map(|target| PushConfig { target, key, interval, delete_on_exit }))
}

/// What is pushed about a job of this name; `own` are labels that the metrics have themselves.
pub(super) fn report(
    setting: &'static str,
    name: &str,
    args: &DeliveryArgs,
    own: &[&str],
) -> Result<ReportConfig, ConfigError> {
    let every = args.expect_every.as_deref();
    let every = every.map(|every| {
        let range = Duration::from_secs(1)..=Duration::from_hours(24 * 366);
        duration("--expect-every (JOB_EXPECT_EVERY)", every, range)
    });
    Ok(ReportConfig {
        key: grouping(setting, name, &args.gateway, own)?,
        expected_interval: every.transpose()?,
        start_push: !switch("--no-start-push (JOB_NO_START_PUSH)", &args.no_start_push)?,
        delivery: DeliveryConfig {
            target: target(&args.gateway)?,
            deadline: push_deadline(args)?,
            spool_folder: path(SPOOL_DIR, args.spool_dir.as_deref())?,
            seed: rand::random(),
        },
    })
}

pub(super) fn fail_on_push_error(args: &DeliveryArgs) -> Result<bool, ConfigError> {
    switch("--fail-on-push-error (FAIL_ON_PUSH_ERROR)", &args.fail_on_push_error)
}

pub(super) fn push_deadline(args: &DeliveryArgs) -> Result<Duration, ConfigError> {
    let range = Duration::from_millis(100)..=Duration::from_hours(1);
    duration("--push-deadline (PUSH_DEADLINE)", &args.push_deadline, range)
}

/// The group of a job, with the labels of the grouping.
pub(super) fn grouping(
    setting: &'static str,
    job: &str,
    args: &GatewayArgs,
    own: &[&str],
) -> Result<GroupingKey, ConfigError> {
    const GROUPING: &str = "--push-grouping (PUSH_GROUPING)";
    let key = GroupingKey::new(job.trim()).map_err(|error| refused(setting, job, error.to_string()))?;
    args.push_grouping.iter().try_fold(key, |key, label| {
        let (name, value) = label
            .trim()
            .split_once('=')
            .ok_or_else(|| refused(GROUPING, label, "expected NAME=VALUE, such as instance=db1"))?;
        if own.contains(&name) {
            return Err(refused(GROUPING, label, format!("the label {name} is one of the pushed metrics' own")));
        }
        key.with(name, value).map_err(|error| refused(GROUPING, label, error.to_string()))
    })
}

/// The gateway, with what it takes to log in there; `None` without a URL. No file is read: one that is missing for the
/// moment must not stop a job.
pub(super) fn target(args: &GatewayArgs) -> Result<Option<PushTarget>, ConfigError> {
    let credentials = credentials(args)?;
    let ca_file = path(CA_FILE, args.ca_file.as_deref())?;
    let Some(url) = &args.pushgateway_url else { return Ok(None) };
    let parsed = url.trim().parse::<PushTarget>();
    let target = parsed.map_err(|error: InvalidTarget| refused_url(GATEWAY_URL, url, error.to_string()))?;
    let target = match credentials {
        Some(credentials) => target.with_credentials(credentials),
        None => target,
    };
    Ok(Some(match ca_file {
        Some(file) => target.with_ca_file(file),
        None => target,
    }))
}

/// Whether what only pushing needs is there now: the password or token, and the authorities.
fn check_files(args: &GatewayArgs) -> Result<(), ConfigError> {
    if args.pushgateway_username.is_some() && password(args)?.is_none() {
        return Err(missing(GATEWAY_USERNAME, "a password is missing: PUSHGATEWAY_PASSWORD, or a file that holds it"));
    }
    for (variable, file_setting, secret) in
        [(PASSWORD, PASSWORD_FILE, password(args)?), (TOKEN, TOKEN_FILE, token(args)?)]
    {
        let Some(secret) = secret else { continue };
        secret.reveal().map_err(|error| match &secret {
            Secret::Value(_) => missing(variable, error.to_string()),
            Secret::File(file) => refused(file_setting, file, error.to_string()),
        })?;
    }
    match &args.ca_file {
        Some(file) if args.pushgateway_url.is_some() => {
            check_ca_file(Path::new(file)).map_err(|error| refused(CA_FILE, file, causes::chain(&error)))
        }
        _ => Ok(()),
    }
}

fn credentials(args: &GatewayArgs) -> Result<Option<Credentials>, ConfigError> {
    let username = args.pushgateway_username.as_deref().map(username).transpose()?;
    match (username, password(args)?, token(args)?) {
        (None, None, None) => Ok(None),
        // A password that is missing for the moment is found out when it is needed.
        (Some(username), password, None) => {
            let password = password.unwrap_or_else(|| Secret::Value(OsString::new()));
            Ok(Some(Credentials::Basic { username, password }))
        }
        (None, None, Some(token)) => Ok(Some(Credentials::Bearer(token))),
        (None, Some(_), None) => Err(missing(GATEWAY_USERNAME, "a password is given, and no user name")),
        (_, _, Some(_)) => {
            Err(missing(TOKEN, "a user name or password is given too; the gateway takes one or the other"))
        }
    }
}

/// A user name; never repeated, since it may be `name:password`.
fn username(name: &str) -> Result<String, ConfigError> {
    match name.trim() {
        "" => Err(missing(GATEWAY_USERNAME, "expected a name that is not blank")),
        name if name.contains(':') => Err(missing(GATEWAY_USERNAME, "expected a name without a colon")),
        name if name.contains(char::is_control) => {
            Err(missing(GATEWAY_USERNAME, "expected a name without control characters"))
        }
        name => Ok(name.to_owned()),
    }
}

fn password(args: &GatewayArgs) -> Result<Option<Secret>, ConfigError> {
    secret(PASSWORD, args.secrets.password.as_deref(), PASSWORD_FILE, args.pushgateway_password_file.as_deref())
}

fn token(args: &GatewayArgs) -> Result<Option<Secret>, ConfigError> {
    secret(TOKEN, args.secrets.bearer_token.as_deref(), TOKEN_FILE, args.pushgateway_bearer_token_file.as_deref())
}

/// A secret from the environment or from a file; never repeated.
fn secret(
    variable: &'static str,
    value: Option<&OsStr>,
    file_setting: &'static str,
    file: Option<&OsStr>,
) -> Result<Option<Secret>, ConfigError> {
    match (value, path(file_setting, file)?) {
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(missing(variable, format!("{file_setting} is given too; give only one of them"))),
        (Some(value), None) => Ok(Some(Secret::Value(value.to_owned()))),
        (None, Some(file)) => Ok(Some(Secret::File(file))),
    }
}
