//! A users REST API on warp whose behaviour you can see, trust and be paged for, and the library that makes it so.
//!
//! To take the metrics into a warp service of your own you need one module, [`metrics`]:
//!
//! ```
//! use std::convert::Infallible;
//!
//! use api_monitoring::metrics::{Red, RouteTable, exposition};
//! use prometheus::Registry;
//! use warp::Filter;
//! use warp::http::StatusCode;
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! let registry = Registry::new();
//! let red = Red::register(&registry, RouteTable::new(["/hello/{name}"])?)?;
//!
//! let hello = warp::path!("hello" / String).map(|name| format!("Hello, {name}!"));
//! let service = hello.recover(|_| async { Ok::<_, Infallible>(StatusCode::NOT_FOUND) });
//! let all = exposition(registry).or(red.instrument(service));
//!
//! warp::test::request().path("/hello/Ada").reply(&all).await;
//! let metrics = warp::test::request().path("/metrics").reply(&all).await;
//! let counted = r#"http_requests_total{method="GET",route="/hello/{name}",status="200"} 1"#;
//! assert!(String::from_utf8_lossy(metrics.body()).lines().any(|line| line == counted));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The rest is the service itself. In reading order:
//!
//! - [`metrics`]: rate, errors and duration of any warp service; imports nothing else of this crate.
//! - [`push`]: a Pushgateway client for short-lived work; imports nothing else of this crate.
//! - [`users`]: what a user is: names, addresses, ids and their rules.
//! - [`store`]: where users are kept; an acknowledged write survives `kill -9`.
//! - [`api`]: the HTTP surface: one table of operations, handlers, errors as problem+json.
//! - [`server`]: assembly, connections, and the order in which the service ends.
//! - [`job`]: any command as a monitored batch job, its exit code its own.
//! - [`import`]: users from CSV or JSON lines, each once, as a batch job.
//! - [`backup`]: a whole copy of the users, while the service runs.
//! - [`load`]: known traffic to a running API, and an exact report.
//! - [`healthcheck`]: one question to a running API.
//! - [`cli`], [`config`]: raw arguments, then checked settings.
//! - [`logs`], [`signals`]: lines on stderr; a clean end, or one at once.
//! - [`causes`], [`words`]: an error in one line; a line that nobody need read, and text that somebody asked for.

pub mod metrics;

pub mod push;

pub mod users;

pub mod store;

pub mod api;

pub mod server;

pub mod job;

pub mod import;

pub mod backup;

pub mod load;

pub mod healthcheck;

pub mod cli;

pub mod config;

pub mod logs;

pub mod signals;

pub mod causes;

pub mod words;
