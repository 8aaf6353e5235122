//! RED metrics on a foreign warp service: `cargo run --example minimal`, then
//! `curl localhost:3030/hello/Ada` and `curl localhost:3030/metrics`.

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;

use api_monitoring::metrics::{Red, RouteTable, exposition};
use prometheus::Registry;
use warp::Filter;
use warp::http::StatusCode;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let registry = Registry::new();
    let red = Red::register(&registry, RouteTable::new(["/hello/{name}"])?)?;

    let hello = warp::path!("hello" / String).map(|name| format!("Hello, {name}!\n"));
    // What no route serves must end in a response too, before it can be counted.
    let service = hello.recover(|_| async { Ok::<_, Infallible>(StatusCode::NOT_FOUND) });

    // Scrapes stay outside the wrapper: they are not traffic.
    let all = exposition(registry).or(red.instrument(service));
    let address: SocketAddr = ([127, 0, 0, 1], 3030).into();
    warp::serve(all).run(address).await;
    Ok(())
}
