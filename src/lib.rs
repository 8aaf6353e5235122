//! tour
pub mod metrics;
pub mod store;
pub mod users;
