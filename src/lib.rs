//! tour
pub mod api;
pub mod cli;
pub mod config;
pub mod healthcheck;
pub mod load;
pub mod logs;
pub mod metrics;
pub mod server;
pub mod signals;
pub mod store;
pub mod users;
