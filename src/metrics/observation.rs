//! The guard that ends every request in exactly one record.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::names;
use super::series::{Stripe, Subject};

/// A request under observation, from [`Red::observe`](super::Red::observe) on: it is in progress until it is finished.
///
/// Dropped without that, it is recorded with status 499, as a client that went away, or with status 500 when its thread
/// is unwinding.
#[derive(Debug)]
#[must_use = "dropped at once, the request counts as one whose client went away"]
pub struct Observation {
    /// `None` once it has ended.
    stripe: Option<Arc<Stripe>>,
    started: Instant,
}

/// How an observation ended, for the log.
pub(super) struct Ended {
    /// As it was recorded.
    pub(super) status: u16,
    pub(super) duration: Duration,
    stripe: Arc<Stripe>,
}

impl Ended {
    pub(super) fn subject(&self) -> &Subject {
        &self.stripe.subject
    }
}

impl Observation {
    pub(super) fn start(stripe: Arc<Stripe>) -> Self {
        Self { stripe: Some(stripe), started: Instant::now() }
    }

    /// Records how the request ended. From status 400 on it counts as an error too, of the kind `error_type`: a word from
    /// a closed set, never user text.
    pub fn finish(mut self, status: u16, error_type: Option<&'static str>) {
        self.end(status, error_type);
    }

    /// The same, where the status is not known: the client went away, or the handler panics.
    pub(super) fn give_up(&mut self) -> Option<Ended> {
        if std::thread::panicking() {
            self.end(names::PANICKED, Some(names::ERROR_PANIC))
        } else {
            self.end(names::CLIENT_CLOSED_REQUEST, Some(names::ERROR_CLIENT_CLOSED_REQUEST))
        }
    }

    /// `None` when it has ended before.
    pub(super) fn end(&mut self, status: u16, error_type: Option<&'static str>) -> Option<Ended> {
        let stripe = self.stripe.take()?;
        let duration = self.started.elapsed();
        stripe.record(status, duration, error_type.or_else(|| unclassified(status)));
        Some(Ended { status, duration, stripe })
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if self.stripe.is_some() {
            self.give_up();
        }
    }
}

/// The kind of a failure that names none.
fn unclassified(status: u16) -> Option<&'static str> {
    match status {
        400..=499 => Some(names::ERROR_UNCLASSIFIED_CLIENT),
        500..=599 => Some(names::ERROR_UNCLASSIFIED_SERVER),
        _ => None,
    }
}
