//! A Pushgateway client for short-lived work: what ends before anyone scrapes it pushes its metrics.
//!
//! A batch program builds a registry, pushes it at its end, and may delete its group:
//!
//! ```
//! # use std::convert::Infallible;
//! # use warp::Filter;
//! use api_monitoring::push::{GroupingKey, PushClient};
//! use prometheus::{IntCounter, Registry};
//!
//! # tokio::runtime::Runtime::new()?.block_on(async {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let url = format!("http://{}", listener.local_addr()?);
//! # let (_stop, stopped) = tokio::sync::oneshot::channel();
//! # let gateway = warp::any().map(|| warp::reply::Response::new(Default::default()));
//! # tokio::spawn(api_monitoring::server::serve(listener, gateway, stopped, std::time::Duration::ZERO));
//! let registry = Registry::new();
//! let rows = IntCounter::new("report_rows_total", "Rows of the nightly report.")?;
//! registry.register(Box::new(rows.clone()))?;
//! rows.inc_by(1200);
//!
//! let gateway = PushClient::new(url.parse()?)?; // such as http://pushgateway:9091
//! let group = GroupingKey::new("nightly_report")?.with("region", "eu/north")?;
//! gateway.push(&group, &registry).await?; // PUT: replaces the whole group
//! gateway.push_add(&group, &registry).await?; // POST: replaces families of the same name
//! gateway.delete(&group).await?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! In reading order:
//!
//! - [`GroupingKey`]: the labels under which the gateway keeps a group, and their form in a URL.
//! - [`PushTarget`]: where a gateway is and how to log in there, checked before anything is pushed.
//! - [`PushClient`]: the gateway's protocol, one request at a time.
//! - [`MetricsText`]: metrics that another program wrote, checked line by line.
//! - [`Courier`]: a push that must not get lost: tried again, then spooled.
//! - [`Spool`]: pushes that wait on disk for the gateway to come back.
//! - [`Periodic`]: a service that pushes its registry at an interval.
//!
//! It refuses to name a metric, to read the environment, and to hold up a runtime thread with the network, with gathering
//! or with a spool. It imports nothing else of this crate.

mod grouping_key;

mod target;

mod disclosure;

mod listing;

mod client;

mod text;

mod delivery;

mod spool;

mod periodic;

pub use client::{PushClient, PushError};
pub use delivery::{Courier, Lost, Outcome, Push};
pub use grouping_key::{GroupingKey, InvalidGroupingKey};
pub use periodic::{Attempt, Periodic};
pub use spool::{Flushed, Spool, SpoolError, Undeliverable};
pub use target::{CaFileError, Credentials, InvalidTarget, PushTarget, Secret};
pub use text::{Families, Family, Fault, MetricsText, Sample};
