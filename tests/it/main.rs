//! The product's promises, checked on the real binary over real sockets.

#![allow(clippy::pedantic, clippy::disallowed_methods, reason = "these rules are for the product")]

mod api;
mod architecture;
mod bad_input;
mod cli;
mod contract;
mod durability;
mod exposition;
mod lifecycle;
mod load;
mod logs;
mod readme;
mod support;
