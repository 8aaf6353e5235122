//! RED metrics (rate, errors, duration) for any warp service.
//!
//! - [`RouteTable`] maps paths to route templates, so that clients cannot grow the set of series.
//! - [`Red`] registers the families on your [`prometheus::Registry`] and wraps your service: every request ends in
//!   exactly one record, whether it is answered, dropped by its client, or panics.
//! - [`exposition()`] answers `GET /metrics` without holding up an async worker.
//! - [`BatchRun`] gives the families that tell how a run of a batch job went, for a push.
//! - [`names`] holds every metric name, label and bucket.
//!
//! What it refuses: global registries, raw paths as labels, services that can still reject. It imports nothing else
//! of this crate. `examples/minimal.rs` is a whole foreign service.

pub mod names;

mod batch;
mod collected;
mod connections;
mod exposition;
mod families;
mod instrument;
mod observation;
mod push;
mod request_id;
mod routes;
mod series;
mod service;
mod text;
mod threads;

pub use batch::{BATCH_MOMENTS, BatchEnd, BatchRun, Usage, import_rows, is_taken};
pub use connections::{ConnectionMetrics, Refusal};
pub use exposition::{CONTENT_TYPE_TEXT, Exposition, ExpositionError, accepts_gzip, exposition};
pub use families::Red;
pub use instrument::{Failure, Waited};
pub use observation::Observation;
pub use push::{PushMetrics, PushResult};
pub use routes::{Route, RouteTable, TemplateError};
pub use service::{BuildInfo, ServiceMetrics};
