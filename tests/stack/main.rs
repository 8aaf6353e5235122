//! The stack: what docker-compose.yml, the images and Terraform's files say, and what they do.
//!
//! Everything here works without a Docker engine, but for `e2e`, which is asked for with `COMPOSE_E2E=1` (`make e2e`).
//! Where a tool is missing, the tests that need it are reported as ignored with the reason; with `CI=true` they fail.

#![allow(clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

#[allow(dead_code, reason = "shared with the other test binaries, which use all of it")]
#[path = "../servers/mod.rs"]
mod servers;
#[allow(dead_code, reason = "shared with the other test binaries, which use all of it")]
#[path = "../it/support.rs"]
mod support;

mod project;

mod compose;
mod e2e;
mod generations;
mod images;
mod provision;
mod terraform;

use std::process::ExitCode;

fn main() -> ExitCode {
    let modules = [compose::tests(), generations::tests(), terraform::tests(), provision::tests(), e2e::tests()];
    servers::run(modules.into_iter().flatten().collect())
}
