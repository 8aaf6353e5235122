//! tour
pub mod metrics;
pub mod users;
