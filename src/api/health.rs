//! The probes: liveness asks nothing, readiness asks the store.

use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::problem::ApiError;
use super::{App, json};

/// The answer of `GET /health`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"status": "healthy", "version": "0.1.0"}))]
pub struct Health {
    /// Always `healthy`: a process that is not does not answer.
    pub status: &'static str,
    /// The running version.
    pub version: &'static str,
}

/// The answer of `GET /ready`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"status": "ready"}))]
pub struct Ready {
    /// Always `ready`; otherwise the answer is 503.
    pub status: &'static str,
}

/// `GET /health`.
pub async fn health() -> Result<Response, ApiError> {
    Ok(json(StatusCode::OK, &Health { status: "healthy", version: env!("CARGO_PKG_VERSION") }))
}

/// `GET /ready`.
pub async fn ready(app: &App) -> Result<Response, ApiError> {
    if app.is_draining() {
        return Err(ApiError::Draining);
    }
    app.store()?.ping().await?;
    Ok(json(StatusCode::OK, &Ready { status: "ready" }))
}
