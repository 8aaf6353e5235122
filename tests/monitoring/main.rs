//! What people look at, held against the truth: rules, alerts and dashboards name only what exists, and with known
//! traffic, real servers and the project's own configuration they show the numbers that are so.
//!
//! The servers are taken from `PROMETHEUS`, `PUSHGATEWAY` and `ALERTMANAGER`, from the path, or from `target/tools`,
//! where `make tools` puts them. Where one is missing, the tests that need it are reported as ignored with the reason;
//! with `CI=true` they fail.

#![allow(clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

#[allow(dead_code, reason = "shared with the other test binaries, which use all of it")]
#[path = "../servers/mod.rs"]
mod servers;
#[allow(dead_code, reason = "shared with the other test binaries, which use all of it")]
#[path = "../it/support.rs"]
mod support;

mod stack;

#[allow(dead_code, reason = "shared with the tests of jobs, which use all of it")]
#[path = "../pushgateway/runs.rs"]
mod runs;

mod fixture;

mod accuracy;
mod contract;
mod expected;
mod expressions;
mod grafana;
mod history;
mod lint;
mod notifications;
mod numbers;
mod scenarios;

use std::process::ExitCode;

fn main() -> ExitCode {
    let modules = [
        accuracy::tests(),
        expressions::tests(),
        grafana::tests(),
        lint::tests(),
        contract::tests(),
        numbers::tests(),
        scenarios::tests(),
        notifications::tests(),
    ];
    servers::run(modules.into_iter().flatten().collect())
}
