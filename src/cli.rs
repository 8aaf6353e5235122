//! The command line: sub-commands, flags, their environment variables and their help. Values are still raw text here;
//! [`config`](crate::config) checks them.

// Doc comments here are help texts: plain words, no markup.
#![allow(clippy::doc_markdown, rustdoc::bare_urls)]

use std::ffi::OsString;

use clap::parser::ValueSource;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// A users REST API whose behaviour you can see, trust and be paged for.
#[derive(Debug, Parser)]
#[command(name = "api-monitoring", version, about, max_term_width = 100)]
#[command(override_usage = "api-monitoring [COMMAND] [OPTIONS]")]
#[command(after_help = "\
Every option can be given as a flag or as the environment variable named with it; the flag wins.

Exit codes: 0 done, 1 failed, 2 wrong settings, 128+n ended at once by a second signal n.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the API (the default when no command is given)
    Serve(ServeArgs),
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
    pub database_url_file: Option<String>,

    /// Deadline of a request, until the head of its response is ready
    #[arg(long, env = "REQUEST_TIMEOUT", value_name = "DURATION", default_value = "10s")]
    pub request_timeout: String,

    /// Requests handled at once; more are answered 503
    #[arg(long, env = "MAX_IN_FLIGHT", value_name = "COUNT", default_value = "1024")]
    pub max_in_flight: String,

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
}

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
    pub report: Option<String>,
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
    let matches = Cli::command().try_get_matches_from(arguments)?;
    let mut command = Cli::from_arg_matches(&matches)?.command;
    if let (Command::Serve(args), Some(("serve", matches))) = (&mut command, matches.subcommand()) {
        // A flag wins over the environment, also where one names the database and the other a file that does.
        let flag = |id| matches.value_source(id) == Some(ValueSource::CommandLine);
        match (flag("database_url"), flag("database_url_file")) {
            (true, false) => args.database_url_file = None,
            (false, true) => args.database_url = None,
            _ => {}
        }
    }
    Ok(command)
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
            for option in command.get_arguments().filter(|option| !matches!(option.get_id().as_str(), "help")) {
                let name = format!("{} --{}", command.get_name(), option.get_id());
                assert!(option.get_env().is_some(), "{name}");
                assert!(option.get_help().is_some(), "{name}");
            }
        }
    }
}
