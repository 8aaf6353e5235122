//! What the pieces cost, each by itself, with criterion: `cargo bench --bench micro`, then part of an id to choose.
//!
//! One program, because each would be linked and optimised as a whole: that takes longer than to measure it.

#![allow(missing_docs, clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

#[path = "../../bench/ours/exposed.rs"]
mod exposed;
mod exposition;
mod parsing;
mod red;
mod routes;

fn main() {
    red::run();
    routes::run();
    exposition::run();
    parsing::run();
}
