//! The product's promises, checked on the real binary over real sockets.

#![allow(clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

mod api;
mod architecture;
mod bad_input;
mod cli;
mod contract;
mod durability;
mod examples;
mod exposition;
mod gateway;
mod import;
mod job;
mod lifecycle;
mod load;
mod logs;
mod memory;
mod metrics_reference;
mod own_metrics;
mod pushing;
mod readme;
mod support;
mod tls;
