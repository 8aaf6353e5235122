//! The peer: axum with axum-prometheus, put together as the latter's README shows it. `bench-axum ADDRESS`
//!
//! `GET /api/users/{id}` gives byte for byte the JSON of `api-monitoring`, from users in memory. It counts and times
//! requests by method, route and status, and gives the metrics at `/metrics`.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use axum_prometheus::PrometheusMetricLayer;
use serde::Serialize;
use tokio::net::TcpListener;

type Error = Box<dyn std::error::Error>;
type Users = &'static [User];

#[derive(Serialize)]
struct User {
    id: usize,
    name: String,
    email: String,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).ok_or("usage: bench-axum ADDRESS")?;
    let users: Users = (1..=1000).map(user).collect::<Vec<_>>().leak();
    let (prometheus_layer, metric_handle) = PrometheusMetricLayer::pair();
    let app = Router::new()
        .route("/health", get(|| async {}))
        .route("/api/users/{id}", get(user_by_id))
        .route("/metrics", get(|| async move { metric_handle.render() }))
        .layer(prometheus_layer)
        .with_state(users);

    let listener = TcpListener::bind(address).await?.tap_io(|stream| {
        // The client was gone before it could be accepted.
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, app).await?)
}

fn user(id: usize) -> User {
    User { id, name: format!("User {id}"), email: format!("user{id}@example.com") }
}

async fn user_by_id(State(users): State<Users>, Path(id): Path<usize>) -> Result<Json<&'static User>, StatusCode> {
    let user = id.checked_sub(1).and_then(|index| users.get(index));
    user.map(Json).ok_or(StatusCode::NOT_FOUND)
}
