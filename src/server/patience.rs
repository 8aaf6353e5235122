//! How long a connection may do the same: one timer for all that it may wait for.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep};

use super::place::{Activity, Place};

/// How long a connection may be idle. Longer than the idle time-out of common load balancers (60 s), so that they close
/// first and never race a closing connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);

/// How long a request's head may take from its first byte on.
const HEAD_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a client may take none of its answer. A listing that nobody reads would otherwise be held for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long an idle connection keeps its buffers. Most clients that come again do so within that.
const WARM_TIME: Duration = Duration::from_secs(1);

/// Watches for how long a connection does the same.
pub(super) struct Patience {
    activity: Activity,
    since: Instant,
    /// Rings at the deadline or before: it is not set anew for each request, which would cost more than a bell in vain.
    bell: Pin<Box<Sleep>>,
}

impl Patience {
    pub(super) fn new(place: &Place) -> Self {
        Self { activity: place.activity(), since: Instant::now(), bell: Box::pin(sleep(WARM_TIME)) }
    }

    /// Whether a connection that holds buffers has done the same for too long; else its task is woken when it has.
    pub(super) fn is_over(&mut self, place: &Place, context: &mut Context<'_>) -> bool {
        let idle = if place.common.is_crowded() { Duration::ZERO } else { WARM_TIME };
        self.is_over_with(idle, place, context)
    }

    /// The same for one without buffers: it may be idle for longer.
    pub(super) fn is_over_without_buffers(&mut self, place: &Place, context: &mut Context<'_>) -> bool {
        self.is_over_with(IDLE_TIMEOUT, place, context)
    }

    /// The time starts again.
    pub(super) fn renew(&mut self) {
        self.since = Instant::now();
    }

    fn is_over_with(&mut self, idle: Duration, place: &Place, context: &mut Context<'_>) -> bool {
        let activity = place.activity();
        let (limit, waits) = match activity {
            Activity::Answering => {
                self.activity = activity;
                return false;
            }
            Activity::Blocked(_) => (WRITE_TIMEOUT, false),
            Activity::Idle(_) | Activity::Head(_) if place.is_leaving() => (place.common.linger, true),
            Activity::Head(_) => (HEAD_TIMEOUT, true),
            Activity::Idle(_) => (idle, true),
        };
        if activity != self.activity {
            self.activity = activity;
            self.renew();
        }
        if waits {
            place.waits_since(self.since);
        }
        self.has_rung(self.since + limit, context)
    }

    fn has_rung(&mut self, deadline: Instant, context: &mut Context<'_>) -> bool {
        if self.bell.deadline() > deadline {
            self.bell.as_mut().reset(deadline);
        }
        while let Poll::Ready(()) = self.bell.as_mut().poll(context) {
            if self.bell.deadline() >= deadline {
                return true;
            }
            self.bell.as_mut().reset(deadline);
        }
        false
    }
}
