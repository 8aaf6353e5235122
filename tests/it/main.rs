//! The product's promises, checked on the real binary over real sockets.

#![allow(clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

mod api;
mod architecture;
mod backup;
mod bad_input;
mod caching;
mod cli;
mod connections;
mod contract;
mod counters;
mod durability;
mod examples;
mod exposition;
mod figures;
mod gateway;
mod http;
mod import;
mod job;
mod lifecycle;
mod load;
mod logs;
mod lost_files;
mod memory;
mod metrics_reference;
mod own_metrics;
mod pages;
mod pushing;
mod readme;
mod runbook;
mod slow_bodies;
mod source;
mod stopping;
mod support;
mod tls;
mod wire;
