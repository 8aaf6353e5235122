//! Settings of pushing: the gateway, the group, the delivery.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ConfigError, duration, missing, path, refused, switch};
use crate::causes;
use crate::cli::{DeliveryArgs, GatewayArgs, ServeArgs};
use crate::push::{Credentials, GroupingKey, InvalidTarget, PushTarget, Secret};

pub(super) const GATEWAY_URL: &str = "--pushgateway-url (PUSHGATEWAY_URL)";

const GATEWAY_USERNAME: &str = "--pushgateway-username (PUSHGATEWAY_USERNAME)";

pub(super) const SPOOL_DIR: &str = "--spool-dir (PUSH_SPOOL_DIR)";

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
    Ok(target(&args.gateway)?.map(|target| PushConfig { target, key, interval, delete_on_exit }))
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
    let key = GroupingKey::new(job).map_err(|error| refused(setting, job, error.to_string()))?;
    args.push_grouping.iter().try_fold(key, |key, label| {
        let (name, value) = label
            .split_once('=')
            .ok_or_else(|| refused(GROUPING, label, "expected NAME=VALUE, such as instance=db1"))?;
        if own.contains(&name) {
            return Err(refused(GROUPING, label, format!("the label {name} is one of the pushed metrics' own")));
        }
        key.with(name, value).map_err(|error| refused(GROUPING, label, error.to_string()))
    })
}

/// The gateway, with what it takes to log in there; `None` without a URL.
pub(super) fn target(args: &GatewayArgs) -> Result<Option<PushTarget>, ConfigError> {
    let credentials = credentials(args)?;
    let Some(url) = &args.pushgateway_url else { return Ok(None) };
    let target: PushTarget = url.parse().map_err(|error: InvalidTarget| {
        // What stands before an @ may be a password.
        if url.contains('@') {
            missing(GATEWAY_URL, error.to_string())
        } else {
            refused(GATEWAY_URL, url, error.to_string())
        }
    })?;
    let target = match credentials {
        Some(Credentials::Basic { ref username, .. }) if username.contains(':') => {
            return Err(refused(GATEWAY_USERNAME, username, "expected a name without a colon"));
        }
        Some(credentials) => target.with_credentials(credentials),
        None => target,
    };
    match &args.ca_file {
        None => Ok(Some(target)),
        Some(file) => target
            .with_ca_file(Path::new(file))
            .map(Some)
            .map_err(|error| refused("--ca-file (PUSHGATEWAY_CA_FILE)", file, causes::chain(&error))),
    }
}

fn credentials(args: &GatewayArgs) -> Result<Option<Credentials>, ConfigError> {
    let password = secret(
        "PUSHGATEWAY_PASSWORD",
        args.secrets.password.as_deref(),
        "--pushgateway-password-file (PUSHGATEWAY_PASSWORD_FILE)",
        args.pushgateway_password_file.as_deref(),
    )?;
    let token = secret(
        "PUSHGATEWAY_BEARER_TOKEN",
        args.secrets.bearer_token.as_deref(),
        "--pushgateway-bearer-token-file (PUSHGATEWAY_BEARER_TOKEN_FILE)",
        args.pushgateway_bearer_token_file.as_deref(),
    )?;
    match (&args.pushgateway_username, password, token) {
        (None, None, None) => Ok(None),
        (Some(username), Some(password), None) => Ok(Some(Credentials::Basic { username: username.clone(), password })),
        (None, None, Some(token)) => Ok(Some(Credentials::Bearer(token))),
        (Some(username), None, None) => Err(refused(
            GATEWAY_USERNAME,
            username,
            "a password is missing: PUSHGATEWAY_PASSWORD, or a file that holds it",
        )),
        (None, Some(_), None) => Err(missing(GATEWAY_USERNAME, "a password is given, and no user name")),
        (_, _, Some(_)) => Err(missing(
            "PUSHGATEWAY_BEARER_TOKEN",
            "a user name or password is given too; the gateway takes one or the other",
        )),
    }
}

/// A secret from the environment or from a file; never repeated.
fn secret(
    variable: &'static str,
    value: Option<&OsStr>,
    file_setting: &'static str,
    file: Option<&str>,
) -> Result<Option<Secret>, ConfigError> {
    let (setting, shown, secret) = match (value, file) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            return Err(missing(variable, format!("{file_setting} is given too; give only one of them")));
        }
        (Some(value), None) => match value.to_str() {
            Some(value) => (variable, String::new(), Secret::Value(value.to_owned())),
            None => return Err(missing(variable, "it is not UTF-8")),
        },
        (None, Some(file)) => (file_setting, format!(" {file:?}"), Secret::File(file.into())),
    };
    match secret.reveal() {
        Ok(_) => Ok(Some(secret)),
        Err(error) => Err(ConfigError { setting, value: shown, reason: error.to_string() }),
    }
}
