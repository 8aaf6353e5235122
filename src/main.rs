//! The `api-monitoring` binary: parse, run, exit code. The only place that prints a fatal error.

use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Context;
use api_monitoring::cli::{self, Command};
use api_monitoring::config::{
    BackupConfig, ConfigError, HealthcheckConfig, ImportConfig, JobCall, LoadConfig, LogConfig, ServeConfig,
};
use api_monitoring::signals::{SecondSignal, Signals, Stop};
use api_monitoring::words::{print, say, unless_closed};
use api_monitoring::{api, backup, causes, healthcheck, import, job, load, logs, server};

/// It gives memory back to the system within seconds. The C library's keeps what connections held at a peak.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) => return answer(&error),
    };
    match run(command) {
        Ok(code) => code,
        Err(error) => {
            say(&causes::chain(error.as_ref()));
            exit_code(&error)
        }
    }
}

/// Help and version go to stdout, and are what was asked for; all else is a wrong setting.
fn answer(answer: &clap::Error) -> ExitCode {
    let printed = answer.print().and_then(|()| std::io::stdout().flush());
    match unless_closed(printed) {
        Err(error) if !answer.use_stderr() => {
            say(&format!("cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::from(u8::try_from(answer.exit_code()).unwrap_or(2)),
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigError>() {
        return ExitCode::from(2);
    }
    error.downcast_ref::<SecondSignal>().map_or(ExitCode::FAILURE, |signal| ExitCode::from(signal.exit_code()))
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve(ServeConfig::try_from(&args)?, LogConfig::try_from(&args)?)?,
        Command::Job(args) => return job(args.try_into()?),
        Command::Import(args) => return import(args.try_into()?),
        Command::Backup(args) => return backup(args.try_into()?),
        Command::Load(args) => load(args.try_into()?)?,
        Command::Healthcheck(args) => {
            let config = HealthcheckConfig::try_from(args)?;
            runtime()?.block_on(healthcheck::check(config))?;
        }
        Command::Openapi => print(&api::openapi::to_json()).context("cannot write to stdout")?,
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::disallowed_methods, reason = "the one place from which the time of day comes")]
const CLOCK: fn() -> SystemTime = SystemTime::now;

fn serve(config: ServeConfig, log: LogConfig) -> anyhow::Result<()> {
    let _logs = logs::start(log);
    until_done_or_signalled(async |stop| {
        let listener = server::bind(config.listen).await?;
        Ok(server::run(listener, config, CLOCK, stop.requested()).await?)
    })
}

fn job(call: JobCall) -> anyhow::Result<ExitCode> {
    // One thread: the wrapper only waits, and should cost the command nothing.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match (runtime, &call) {
        (Ok(runtime), _) => runtime,
        (Err(error), JobCall::Run(_)) => {
            say(&format!("cannot start the runtime: {error}"));
            return Ok(ExitCode::from(job::OWN_FAILURE));
        }
        (Err(error), JobCall::Flush(_)) => return Err(error).context("cannot start the runtime"),
    };
    let code = match call {
        JobCall::Run(config) => runtime.block_on(job::run(config, CLOCK)),
        JobCall::Flush(config) => u8::from(!runtime.block_on(job::flush(config, CLOCK))),
    };
    runtime.shutdown_background();
    Ok(ExitCode::from(code))
}

fn import(config: ImportConfig) -> anyhow::Result<ExitCode> {
    let mut code = 0;
    until_done_or_signalled(async |stop| {
        code = Box::pin(import::run(config, stop, CLOCK)).await;
        Ok(())
    })?;
    Ok(ExitCode::from(code))
}

fn backup(config: BackupConfig) -> anyhow::Result<ExitCode> {
    let mut code = 0;
    until_done_or_signalled(async |stop| {
        code = backup::run(config, stop).await?;
        Ok(())
    })?;
    Ok(ExitCode::from(code))
}

fn load(config: LoadConfig) -> anyhow::Result<()> {
    until_done_or_signalled(async |stop| Ok(load::run(config, stop).await?))
}

/// Runs work that ends cleanly at the first signal; a second one ends it at once.
fn until_done_or_signalled(work: impl AsyncFnOnce(Stop) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let signals = Signals::catch().context("cannot catch signals")?;
        signals.guard(work).await?
    });
    // After a second signal, nothing is waited for.
    runtime.shutdown_background();
    ended
}

fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")
}
