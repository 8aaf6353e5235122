//! What a connection is doing, as its task, its socket, the service and the server see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use tokio::time::Instant;

/// Connections that keep their buffers while they are idle for a moment; beyond that, an answered one gives them back at
/// once.
const WARM_MAX: usize = 256;

/// What all connections share.
pub(super) struct Common {
    started: Instant,
    /// From the signal on: every answer is its connection's last.
    goodbye: AtomicBool,
    /// Connections that hold buffers.
    warm: AtomicUsize,
    /// How long a connection that should leave may still wait for a request.
    pub(super) linger: Duration,
}

/// The place of one connection. Only its own task writes to it, but for the wish that it leave.
pub(super) struct Place {
    pub(super) common: Arc<Common>,
    /// Requests so far.
    requests: AtomicU32,
    /// A request is being handled or answered: from its head until its response's body is in hyper's hands.
    answering: AtomicBool,
    /// The request's body is not read to its end.
    unread: AtomicBool,
    /// Bytes came that are no request yet.
    begun: AtomicBool,
    /// Writes so far.
    writes: AtomicU32,
    /// The client takes no more for now.
    blocked: AtomicBool,
    /// Since when it waits for a request, in milliseconds after the server's start and 1; 0 when it does not wait.
    waiting_since: AtomicU64,
    leaving: AtomicBool,
    task: AtomicWaker,
}

/// What a connection is doing. The numbers tell one time from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// It waits for a request, of which nothing has come; how many came before.
    Idle(u32),
    /// A part of a request's head has come; how many requests came before.
    Head(u32),
    /// A request is being handled or answered.
    Answering,
    /// Its client takes nothing of the answer; how many writes went well before.
    Blocked(u32),
}

/// One of the connections that hold buffers, for as long as it lives.
pub(super) struct Warm<'a>(&'a Common);

impl Common {
    pub(super) fn new(linger: Duration) -> Self {
        let (goodbye, warm) = (AtomicBool::new(false), AtomicUsize::new(0));
        Self { started: Instant::now(), goodbye, warm, linger }
    }

    pub(super) fn say_goodbye(&self) {
        self.goodbye.store(true, Relaxed);
    }

    pub(super) fn warm(&self) -> Warm<'_> {
        self.warm.fetch_add(1, Relaxed);
        Warm(self)
    }

    pub(super) fn is_crowded(&self) -> bool {
        self.warm.load(Relaxed) > WARM_MAX
    }

    fn moment(&self, instant: Instant) -> u64 {
        let since_start = instant.saturating_duration_since(self.started);
        u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

impl Drop for Warm<'_> {
    fn drop(&mut self) {
        self.0.warm.fetch_sub(1, Relaxed);
    }
}

impl Place {
    /// A connection that was accepted now.
    pub(super) fn new(common: Arc<Common>) -> Self {
        let now = common.moment(Instant::now());
        Self {
            common,
            requests: AtomicU32::new(0),
            answering: AtomicBool::new(false),
            unread: AtomicBool::new(false),
            begun: AtomicBool::new(false),
            writes: AtomicU32::new(0),
            blocked: AtomicBool::new(false),
            waiting_since: AtomicU64::new(now),
            leaving: AtomicBool::new(false),
            task: AtomicWaker::new(),
        }
    }

    pub(super) fn activity(&self) -> Activity {
        if self.blocked.load(Relaxed) {
            Activity::Blocked(self.writes.load(Relaxed))
        } else if self.answering.load(Relaxed) {
            Activity::Answering
        } else if self.begun.load(Relaxed) {
            Activity::Head(self.requests.load(Relaxed))
        } else {
            Activity::Idle(self.requests.load(Relaxed))
        }
    }

    // ---- What the socket tells ----

    /// Bytes came: of a head, unless they are a request's body.
    pub(super) fn received(&self) {
        if !self.answering.load(Relaxed) {
            self.begun.store(true, Relaxed);
        }
    }

    /// A write went well, or has to wait.
    pub(super) fn wrote(&self, done: bool) {
        self.blocked.store(!done, Relaxed);
        if done {
            increment(&self.writes);
        }
    }

    // ---- What the service tells ----

    /// A request's head is whole; it may have a body.
    pub(super) fn begin(&self, has_body: bool) {
        increment(&self.requests);
        self.begun.store(false, Relaxed);
        self.unread.store(has_body, Relaxed);
        self.answering.store(true, Relaxed);
        self.waiting_since.store(0, Relaxed);
    }

    /// The request's body is read to its end.
    pub(super) fn has_read_all(&self) {
        self.unread.store(false, Relaxed);
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread.load(Relaxed)
    }

    /// The response's body is in hyper's hands.
    pub(super) fn answered(&self) {
        self.answering.store(false, Relaxed);
    }

    // ---- What its task tells ----

    /// It waits for a request since then, unless it did before.
    pub(super) fn waits_since(&self, instant: Instant) {
        if self.waiting_since.load(Relaxed) == 0 {
            self.waiting_since.store(self.common.moment(instant), Relaxed);
        }
    }

    /// Its task is woken when it should leave.
    pub(super) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }

    // ---- What the server wants ----

    /// The moment since which it has waited for a request, when that is as long as `at_least`, and it is not leaving.
    pub(super) fn waiting_since(&self, at_least: Duration) -> Option<u64> {
        let since = self.waiting_since.load(Relaxed);
        let latest = self.common.moment(Instant::now().checked_sub(at_least)?);
        (since != 0 && since < latest && !self.is_leaving()).then_some(since)
    }

    /// It is to leave as soon as no request is lost by that.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Relaxed);
        self.task.wake();
    }

    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.load(Relaxed)
    }

    /// Whether the next answer is this connection's last.
    pub(super) fn says_goodbye(&self) -> bool {
        self.is_leaving() || self.common.goodbye.load(Relaxed)
    }
}

/// There is one writer, so this needs no locked instruction.
fn increment(number: &AtomicU32) {
    number.store(number.load(Relaxed).wrapping_add(1), Relaxed);
}
