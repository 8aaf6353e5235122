//! Pushing, against a real Pushgateway and a real Prometheus that scrapes it.
//!
//! Both are taken from `PUSHGATEWAY` and `PROMETHEUS`, from the path, or from `target/tools`, where `make tools` puts
//! them. Where one is missing, the tests that need it are reported as ignored with the reason; with `CI=true` they fail.

#![allow(clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

#[path = "../it/examples.rs"]
mod examples;
#[allow(dead_code, reason = "shared with the other test binaries, which use all of it")]
#[path = "../servers/mod.rs"]
mod servers;
#[allow(dead_code, reason = "shared with the other test binaries, which use all of it")]
#[path = "../it/support.rs"]
mod support;

mod runs;

mod import;
mod job;
mod library;
mod outage;
mod readme;
mod scraped;
mod service;
mod text;

use std::process::ExitCode;

fn main() -> ExitCode {
    let modules = [
        library::tests(),
        service::tests(),
        job::tests(),
        outage::tests(),
        import::tests(),
        scraped::tests(),
        readme::tests(),
        text::tests(),
    ];
    servers::run(modules.into_iter().flatten().collect())
}
