//! The limit: what a bare hyper server takes for the same answer. `bench-hyper ADDRESS`
//!
//! `GET /api/users/{id}` gives byte for byte the JSON of `api-monitoring`, and is made from the same data for each
//! request. It does nothing else for it: no metrics, no log, no time-outs, no limits, no database.

use std::convert::Infallible;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpListener;

type Error = Box<dyn std::error::Error>;

#[derive(Serialize)]
struct User {
    id: usize,
    name: String,
    email: String,
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let address = std::env::args().nth(1).ok_or("usage: bench-hyper ADDRESS")?;
    let users: &[User] = (1..=1000).map(user).collect::<Vec<_>>().leak();
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // Fails when the client is gone already, which is of no concern here.
        let _ = stream.set_nodelay(true);
        let service = service_fn(move |request| async move { Ok::<_, Infallible>(answer(users, &request)) });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn user(id: usize) -> User {
    User { id, name: format!("User {id}"), email: format!("user{id}@example.com") }
}

fn answer(users: &[User], request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    if request.method() != Method::GET {
        return status(StatusCode::NOT_FOUND);
    }
    if path == "/health" {
        return status(StatusCode::OK);
    }
    let id = path.strip_prefix("/api/users/").and_then(|id| id.parse::<usize>().ok());
    match id.and_then(|id| users.get(id.checked_sub(1)?)) {
        Some(user) => json(user),
        None => status(StatusCode::NOT_FOUND),
    }
}

fn json(value: &impl Serialize) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("strings and numbers always serialise");
    let mut response = Response::new(Full::from(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::default();
    *response.status_mut() = status;
    response
}
