//! The product's promises, checked on the real binary over real sockets.

mod api;
mod bad_input;
mod cli;
mod contract;
mod durability;
mod exposition;
mod lifecycle;
mod logs;
mod support;
