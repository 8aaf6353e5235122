//! The command line: sub-commands, flags, their environment variables and their help. Values are still raw text here;
//! [`config`](crate::config) checks them.

// Doc comments here are help texts: plain words, no markup.
#![allow(clippy::doc_markdown, rustdoc::bare_urls)]

use std::ffi::{OsStr, OsString};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// Names the metrics file of a job for the jobs within it, so that they do not take it for their own.
pub const METRICS_FILE_MARK: &str = "JOB_METRICS_FILE_OF_OUTER";

/// A users REST API whose behaviour you can see, trust and be paged for.
#[derive(Debug, Parser)]
#[command(name = "api-monitoring", version, about, max_term_width = 100)]
#[command(override_usage = "api-monitoring [COMMAND] [OPTIONS]")]
#[command(after_help = "\
Every option can be given as a flag or as the environment variable named with it; the flag wins, and an empty variable \
counts as not set.

Exit codes: 0 done, 1 failed, 2 wrong settings, 128+n ended at once by a second signal n. Those of job are its command's.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the API (the default when no command is given)
    Serve(ServeArgs),
    /// Run any command as a monitored batch job: push how it went to a Pushgateway, and exit with its code
    Job(JobArgs),
    /// Import users from CSV or JSON lines, as a monitored batch job
    Import(ImportArgs),
    /// Copy the whole store into a new file, while the service runs or not
    Backup(BackupArgs),
    /// Send known, mixed traffic to a running API, and report exactly what was sent and answered
    Load(LoadArgs),
    /// Exit 0 when the API answers that it is healthy, 1 when it does not
    Healthcheck(HealthcheckArgs),
    /// Print the OpenAPI description
    Openapi,
}

/// Raw settings of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one, which is logged
    #[arg(long, env = "API_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub listen: String,

    /// Where the users are kept: sqlite://PATH or sqlite::memory: [default: sqlite://data/users.db]
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// A file that holds the database URL, for URLs with a password
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<OsString>,

    /// Deadline of a request's body to be whole, and from then on of the head of the response
    #[arg(long, env = "REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    pub request_timeout: String,

    /// Requests handled at once; more are answered 503. A request whose body is still coming is not handled yet
    #[arg(long, env = "MAX_IN_FLIGHT", value_name = "COUNT", default_value = "1024")]
    pub max_in_flight: String,

    /// Connections open at once, lowered to what the limit of open files allows; above it, the one that has waited
    /// longest for a request makes room, or else the new one is answered 503
    #[arg(long, env = "MAX_CONNECTIONS", value_name = "COUNT", default_value = "4096")]
    pub max_connections: String,

    /// How long requests in flight may take to finish after SIGTERM or SIGINT
    #[arg(long, env = "DRAIN_TIMEOUT", value_name = "DURATION", default_value = "8s")]
    pub drain_timeout: String,

    /// How long to go on accepting after SIGTERM or SIGINT, with /ready at 503, so that load balancers notice
    #[arg(long, env = "DRAIN_DELAY", value_name = "DURATION", default_value = "0s")]
    pub drain_delay: String,

    /// Log lines for people (text) or for machines (json); they go to stderr
    #[arg(long, env = "LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub log_format: String,

    /// What to log: a level (error, warn, info, debug, trace) or tracing directives, such as info,http_request=warn
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    pub log: String,

    /// Seed of the random delays of /api/slow, to repeat a run; random when left out
    #[arg(long, env = "API_SEED", value_name = "NUMBER")]
    pub seed: Option<String>,

    /// How often to push, give or take a tenth
    #[arg(long, env = "PUSH_INTERVAL", value_name = "DURATION", default_value = "15s")]
    pub push_interval: String,

    /// The job label of what is pushed
    #[arg(long, env = "PUSH_JOB", value_name = "NAME", default_value = "api-monitoring")]
    pub push_job: String,

    /// Delete what was pushed when the service ends, instead of pushing a last time
    #[arg(long, env = "PUSH_DELETE_ON_EXIT", num_args = 0, default_missing_value = "true", default_value = "false")]
    pub push_delete_on_exit: String,

    #[command(flatten)]
    /// Where to push.
    pub gateway: GatewayArgs,
}

/// Raw settings of where to push; common to all commands that do.
#[derive(Debug, Args)]
#[command(after_help = SECRETS)]
pub struct GatewayArgs {
    /// Base URL of the Pushgateway, such as http://127.0.0.1:9091 or https://proxy/pushgateway; nothing is pushed without
    /// it
    #[arg(long, env = "PUSHGATEWAY_URL", value_name = "URL", hide_env_values = true)]
    pub pushgateway_url: Option<String>,

    /// A further label of the group that is pushed; may be repeated (in the environment: NAME=VALUE,NAME=VALUE)
    #[arg(long, env = "PUSH_GROUPING", value_name = "NAME=VALUE")]
    pub push_grouping: Vec<String>,

    /// User name for basic authentication at the gateway
    #[arg(long, env = "PUSHGATEWAY_USERNAME", value_name = "NAME", hide_env_values = true)]
    pub pushgateway_username: Option<String>,

    /// A file that holds the password; read for each push
    #[arg(long, env = "PUSHGATEWAY_PASSWORD_FILE", value_name = "FILE")]
    pub pushgateway_password_file: Option<OsString>,

    /// A file that holds a bearer token for the gateway; read for each push
    #[arg(long, env = "PUSHGATEWAY_BEARER_TOKEN_FILE", value_name = "FILE")]
    pub pushgateway_bearer_token_file: Option<OsString>,

    /// Trust the certificates in this PEM file, and no others, instead of the system's
    #[arg(long, env = "PUSHGATEWAY_CA_FILE", value_name = "FILE")]
    pub ca_file: Option<OsString>,

    /// From the environment only: arguments can be read by everyone on the machine.
    #[arg(skip)]
    pub secrets: Secrets,
}

/// Secrets that were given in the environment.
#[derive(Default)]
pub struct Secrets {
    /// `PUSHGATEWAY_PASSWORD`.
    pub password: Option<OsString>,
    /// `PUSHGATEWAY_BEARER_TOKEN`.
    pub bearer_token: Option<OsString>,
}

/// Raw settings of how a batch job's pushes are delivered.
#[derive(Debug, Args)]
pub struct DeliveryArgs {
    #[command(flatten)]
    /// Where to push.
    pub gateway: GatewayArgs,

    /// How long the pushes at the end may be tried again while the gateway does not answer
    #[arg(long, env = "PUSH_DEADLINE", value_name = "DURATION", default_value = "10s")]
    pub push_deadline: String,

    /// Keep pushes that could not be delivered in this folder; the next run of any job with it delivers them
    #[arg(long, env = "PUSH_SPOOL_DIR", value_name = "DIR")]
    pub spool_dir: Option<OsString>,

    /// Fail when a push was neither delivered nor spooled, though the work itself went well
    #[arg(long, env = "FAIL_ON_PUSH_ERROR", num_args = 0, default_missing_value = "true", default_value = "false")]
    pub fail_on_push_error: String,

    /// How often the job is expected to succeed, such as 1h; pushed, for an alert on overdue jobs
    #[arg(long, env = "JOB_EXPECT_EVERY", value_name = "DURATION")]
    pub expect_every: Option<String>,

    /// Do not push at the start, only at the end
    #[arg(long, env = "JOB_NO_START_PUSH", num_args = 0, default_missing_value = "true", default_value = "false")]
    pub no_start_push: String,
}

/// Raw settings of `job`.
#[derive(Debug, Args)]
#[command(override_usage = "api-monitoring job --name NAME [OPTIONS] -- COMMAND [ARGUMENTS]...
       api-monitoring job --flush --spool-dir DIR --pushgateway-url URL")]
#[command(after_help = JOB_EXIT_CODES)]
pub struct JobArgs {
    /// The job's name, by which its metrics are found; its job label
    #[arg(long, env = "JOB_NAME", value_name = "NAME")]
    pub name: Option<String>,

    #[command(flatten)]
    /// How pushes are delivered.
    pub delivery: DeliveryArgs,

    /// End the command with SIGTERM when it runs longer than this
    #[arg(long, env = "JOB_TIMEOUT", value_name = "DURATION")]
    pub timeout: Option<String>,

    /// What it is given to end then, before SIGKILL
    #[arg(long, env = "JOB_KILL_AFTER", value_name = "DURATION", default_value = "10s")]
    pub kill_after: String,

    /// The file into which the command writes metrics of its own (text format); it finds the path in JOB_METRICS_FILE,
    /// also when this is left out: then it is a fresh temporary file
    #[arg(long, env = "JOB_METRICS_FILE", value_name = "FILE")]
    pub metrics_file: Option<OsString>,

    /// Run no command, only deliver what waits in the spool folder
    #[arg(long, env = "JOB_FLUSH", num_args = 0, default_missing_value = "true", default_value = "false")]
    pub flush: String,

    /// The command and its arguments, after --
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Raw settings of `import`.
#[derive(Debug, Args)]
#[command(after_help = SECRETS)]
pub struct ImportArgs {
    /// The file to import (- for stdin), in UTF-8: CSV with the header name,email and a row a line, or a JSON object with
    /// both in each line
    #[arg(value_name = "FILE")]
    pub file: OsString,

    /// csv, jsonl, or auto: by the file's ending, else by its first character
    #[arg(long, env = "IMPORT_FORMAT", value_name = "FORMAT", default_value = "auto")]
    pub format: String,

    /// Names this import, so that another run with the same key goes on where this one ended; by default, what the file
    /// holds makes the key, and stdin has none
    #[arg(long, env = "IMPORT_KEY", value_name = "KEY")]
    pub key: Option<String>,

    /// Append rejected rows to this file, as JSON lines with line, reason and row; without it they are said on stderr
    #[arg(long, env = "IMPORT_REJECTS", value_name = "FILE")]
    pub rejects: Option<OsString>,

    /// Rows that may be rejected; one more ends the import. An import that takes no row fails, however few were rejected
    #[arg(long, env = "IMPORT_MAX_ERRORS", value_name = "COUNT", default_value = "1000")]
    pub max_errors: String,

    /// Where the users are kept: sqlite://PATH or sqlite::memory: [default: sqlite://data/users.db]
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// A file that holds the database URL, for URLs with a password
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<OsString>,

    /// The job label of what is pushed
    #[arg(long, env = "PUSH_JOB", value_name = "NAME", default_value = "import-users")]
    pub push_job: String,

    #[command(flatten)]
    /// How pushes are delivered.
    pub delivery: DeliveryArgs,
}

/// Raw settings of `backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// The file to write, which must not be there yet
    #[arg(value_name = "FILE")]
    pub file: OsString,

    /// Where the users are kept: sqlite://PATH [default: sqlite://data/users.db]
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,

    /// A file that holds the database URL, for URLs with a password
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<OsString>,
}

const SECRETS: &str = "\
Secrets for the gateway are taken from the environment, PUSHGATEWAY_PASSWORD or PUSHGATEWAY_BEARER_TOKEN, or from files, \
never from arguments.";

const JOB_EXIT_CODES: &str = "\
Exit codes: the command's own; 128+n when signal n ended it, 124 when it timed out, 125 when this program itself fails, \
126 when the command cannot be run, 127 when it is not there; 2 for wrong settings, before anything runs. With --flush: \
0 when all is delivered, else 1.

Secrets for the gateway are taken from the environment, PUSHGATEWAY_PASSWORD or PUSHGATEWAY_BEARER_TOKEN, or from files, \
never from arguments.";

/// Raw settings of `load`.
#[derive(Debug, Args)]
pub struct LoadArgs {
    /// Base URL of the API
    #[arg(
        long,
        env = "LOAD_TARGET",
        value_name = "URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8000"
    )]
    pub target: String,

    /// Requests started per second, evenly spaced, whether or not earlier ones are answered
    #[arg(long, env = "LOAD_RATE", value_name = "PER_SECOND", default_value = "50")]
    pub rate: String,

    /// How long to send
    #[arg(long, env = "LOAD_DURATION", value_name = "DURATION", default_value = "30s")]
    pub duration: String,

    /// Requests in flight at most; at this limit requests start late, and the report says how late
    #[arg(long, env = "LOAD_CONCURRENCY", value_name = "COUNT", default_value = "256")]
    pub concurrency: String,

    /// Seed of the mix: the same seed sends the same requests in the same order
    #[arg(long, env = "LOAD_SEED", value_name = "NUMBER", default_value = "1")]
    pub seed: String,

    /// Write the report as JSON to this file (- for stdout, which then holds nothing else)
    #[arg(long, env = "LOAD_REPORT", value_name = "FILE")]
    pub report: Option<OsString>,
}

/// Raw settings of `healthcheck`.
#[derive(Debug, Args)]
pub struct HealthcheckArgs {
    /// What to ask
    #[arg(
        long,
        env = "HEALTHCHECK_URL",
        value_name = "URL",
        hide_env_values = true,
        default_value = "http://127.0.0.1:8000/health"
    )]
    pub url: String,

    /// How long to wait for the answer
    #[arg(long, env = "HEALTHCHECK_TIMEOUT", value_name = "DURATION", default_value = "3s")]
    pub timeout: String,
}

/// Parses the process's arguments; without a command, they are `serve`'s.
///
/// # Errors
///
/// clap's own message, which also carries `--help` and `--version`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let first = arguments.get(1).and_then(|argument| argument.to_str());
    let for_the_program = |flag: &str| matches!(flag, "-h" | "--help" | "-V" | "--version");
    if first.is_none_or(|flag| flag.starts_with('-') && !for_the_program(flag)) {
        let position = arguments.len().min(1);
        arguments.insert(position, "serve".into());
    }
    let matches = without_empty_variables(Cli::command(), variable).try_get_matches_from(arguments)?;
    let mut command = Cli::from_arg_matches(&matches)?.command;
    if let Some((_, matches)) = matches.subcommand() {
        match &mut command {
            Command::Serve(args) => {
                prefer_flag(matches, &mut args.database_url, &mut args.database_url_file);
                complete(&mut args.gateway, matches);
            }
            Command::Job(args) => complete_job(args, matches),
            Command::Import(args) => {
                prefer_flag(matches, &mut args.database_url, &mut args.database_url_file);
                complete(&mut args.delivery.gateway, matches);
            }
            Command::Backup(args) => prefer_flag(matches, &mut args.database_url, &mut args.database_url_file),
            Command::Load(_) | Command::Healthcheck(_) | Command::Openapi => {}
        }
    }
    Ok(command)
}

/// An empty variable is one that is not set, as compose files write it: `${X:-}`. So no option reads one; an empty flag
/// stays what it is.
fn without_empty_variables(
    command: clap::Command,
    variable: impl Fn(&OsStr) -> Option<OsString> + Copy,
) -> clap::Command {
    let forget = move |option: Arg| {
        let empty = option.get_env().filter(|name| variable(name).is_some_and(|value| value.is_empty()));
        match empty.map(|name| name.to_string_lossy().into_owned()) {
            None => option,
            // The help names it all the same.
            Some(name) => {
                let help = option.get_help().cloned().unwrap_or_default();
                option.help(format!("{help} [env: {name}=]")).env(None)
            }
        }
    };
    command.mut_subcommands(|command| command.mut_args(forget))
}

/// A flag wins over the environment, also where one names the database and the other a file that does.
fn prefer_flag(matches: &ArgMatches, url: &mut Option<String>, file: &mut Option<OsString>) {
    let flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    match (flag("database_url"), flag("database_url_file")) {
        (true, false) => *file = None,
        (false, true) => *url = None,
        _ => {}
    }
}

/// Takes the secrets from the environment, and apart what it says in a form of its own: there, the labels of the grouping
/// stand in one variable, with commas.
fn complete(args: &mut GatewayArgs, matches: &ArgMatches) {
    let from_environment = |id| matches.value_source(id) == Some(ValueSource::EnvVariable);
    if from_environment("push_grouping") {
        let labels = args.push_grouping.iter().flat_map(|all| all.split(','));
        args.push_grouping = labels.map(str::to_owned).filter(|label| !label.trim().is_empty()).collect();
    }
    args.secrets =
        Secrets { password: secret("PUSHGATEWAY_PASSWORD"), bearer_token: secret("PUSHGATEWAY_BEARER_TOKEN") };
    // A flag wins over the environment, also where one names a secret and the other another way to log in.
    let flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
    let password_flag = flag("pushgateway_password_file");
    let token_flag = flag("pushgateway_bearer_token_file");
    if password_flag {
        args.secrets.password = None;
    }
    if token_flag {
        args.secrets.bearer_token = None;
    }
    if (password_flag || flag("pushgateway_username")) && !token_flag {
        args.secrets.bearer_token = None;
        args.pushgateway_bearer_token_file = None;
    }
    if token_flag && !password_flag && !flag("pushgateway_username") {
        args.secrets.password = None;
        args.pushgateway_password_file = None;
        args.pushgateway_username = None;
    }
}

fn complete_job(args: &mut JobArgs, matches: &ArgMatches) {
    complete(&mut args.delivery.gateway, matches);
    let from_environment = matches.value_source("metrics_file") == Some(ValueSource::EnvVariable);
    // The metrics file of a job around this one is not ours.
    if from_environment && args.metrics_file == variable(METRICS_FILE_MARK.as_ref()) {
        args.metrics_file = None;
    }
}

/// A secret must not be an argument, so clap cannot take it.
fn secret(name: &str) -> Option<OsString> {
    variable(name.as_ref()).filter(|value| !value.is_empty())
}

#[allow(clippy::disallowed_methods, reason = "the one place, beside clap, where settings come in")]
fn variable(name: &OsStr) -> Option<OsString> {
    std::env::var_os(name)
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Command, clap::Error> {
        parse(["api-monitoring"].iter().chain(arguments).map(Into::into))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        assert!(matches!(parsed(&[]), Ok(Command::Serve(_))));
        let Ok(Command::Serve(args)) = parsed(&["--listen", "127.0.0.1:0"]) else { panic!("flags alone are serve's") };
        assert_eq!(args.listen, "127.0.0.1:0");
    }

    #[test]
    fn help_and_version_are_the_programs_and_unknown_words_are_refused() {
        use clap::error::ErrorKind::{DisplayHelp, DisplayVersion, InvalidSubcommand};
        for (argument, kind) in [("--help", DisplayHelp), ("--version", DisplayVersion), ("sevre", InvalidSubcommand)] {
            assert_eq!(parsed(&[argument]).unwrap_err().kind(), kind, "{argument}");
        }
    }

    #[test]
    fn every_option_has_an_environment_variable_and_a_help_text() {
        for command in Cli::command().get_subcommands() {
            for option in command.get_arguments().filter(|option| !option.is_positional() && option.get_id() != "help")
            {
                let name = format!("{} --{}", command.get_name(), option.get_id());
                assert!(option.get_env().is_some(), "{name}");
                assert!(option.get_help().is_some(), "{name}");
            }
        }
    }

    #[test]
    fn no_option_of_any_command_reads_an_empty_variable_and_help_still_names_it() {
        let empty = without_empty_variables(Cli::command(), |_| Some(OsString::new()));
        let unset = without_empty_variables(Cli::command(), |_| None);
        let mut options = 0;
        for (command, original) in empty.get_subcommands().zip(unset.get_subcommands()) {
            for (option, original) in command.get_arguments().zip(original.get_arguments()) {
                let Some(variable) = original.get_env().map(|name| name.to_string_lossy().into_owned()) else {
                    continue;
                };
                let name = format!("{} --{}", command.get_name(), option.get_id());
                assert_eq!(option.get_env(), None, "{name}");
                let help = option.get_help().unwrap().to_string();
                assert!(help.ends_with(&format!(" [env: {variable}=]")), "{name}: {help}");
                options += 1;
            }
        }
        assert!(options > 40, "{options}");
    }
}
