//! Bodies that are still coming: how many are waited for at once, and for how long.
//!
//! A body that is there with its request's head never waits here, and a request takes its place among those in flight
//! when its body is whole. So clients that send slowly, or stop, hold up only each other.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::poll_once;
use super::problem::{ApiError, BODIES_MAX};

/// The bodies that are waited for. When no place is left, the one that has waited longest gives way: a body that comes at
/// all is here sooner than one that has stopped.
#[derive(Debug, Default)]
pub struct Uploads(Mutex<Places>);

#[derive(Debug, Default)]
struct Places {
    /// The ticket of the next.
    next: u64,
    /// By ticket, the oldest first. A place whose sender is dropped is lost.
    taken: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Uploads {
    /// Waits for a body until the deadline, and tells how long that took.
    pub async fn wait<T>(
        &self,
        deadline: Duration,
        body: impl Future<Output = Result<T, ApiError>>,
    ) -> (Result<T, ApiError>, Duration) {
        let mut body = pin!(body);
        // Most are there already: they need neither a place nor a timer.
        if let Poll::Ready(outcome) = poll_once(body.as_mut()).await {
            return (outcome, Duration::ZERO);
        }
        let started = Instant::now();
        let mut place = self.take();
        let outcome = tokio::select! {
            biased;
            outcome = body => outcome,
            _ = &mut place.lost => Err(ApiError::BodyDisplaced),
            () = tokio::time::sleep(deadline) => Err(ApiError::BodyTimeout(deadline)),
        };
        (outcome, started.elapsed())
    }

    fn take(&self) -> Place<'_> {
        let (keep, lost) = oneshot::channel();
        let mut places = self.places();
        let ticket = places.next;
        places.next += 1;
        places.taken.insert(ticket, keep);
        if places.taken.len() > BODIES_MAX {
            places.taken.pop_first();
        }
        Place { uploads: self, ticket, lost }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        // Nothing that could panic half-way changes the map.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A body's place. It is given back when this is dropped.
struct Place<'a> {
    uploads: &'a Uploads,
    ticket: u64,
    lost: oneshot::Receiver<()>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.uploads.places().taken.remove(&self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use futures_util::FutureExt;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    fn taken(uploads: &Uploads) -> usize {
        uploads.places().taken.len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_there_takes_no_place() {
        let uploads = Uploads::default();

        let (body, waited) = uploads.wait(DEADLINE, ready(Ok("body"))).await;

        assert_eq!((body.unwrap(), waited), ("body", Duration::ZERO));
        assert_eq!(uploads.places().next, 0, "no ticket was given out");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_waited_for_until_the_deadline_and_the_time_is_told() {
        let uploads = Uploads::default();
        let coming = |after| async move {
            tokio::time::sleep(after).await;
            Ok(())
        };

        let (in_time, waited) = uploads.wait(DEADLINE, coming(DEADLINE / 2)).await;
        let (late, waited_in_vain) = uploads.wait(DEADLINE, coming(DEADLINE * 2)).await;

        assert!(in_time.is_ok());
        assert_eq!(waited, DEADLINE / 2);
        assert!(matches!(late, Err(ApiError::BodyTimeout(DEADLINE))), "{late:?}");
        assert_eq!(waited_in_vain, DEADLINE);
        assert_eq!(taken(&uploads), 0, "both places are given back");
    }

    #[tokio::test(start_paused = true)]
    async fn the_body_that_has_waited_longest_gives_way_and_the_others_stay() {
        let uploads = Uploads::default();
        let mut waiting: Vec<_> =
            (0..=BODIES_MAX).map(|_| Box::pin(uploads.wait(DEADLINE, pending::<Result<(), _>>()))).collect();

        let mut ended = waiting.iter_mut().map(|body| body.as_mut().now_or_never()).collect::<Vec<_>>();
        ended[0] = waiting[0].as_mut().now_or_never();

        assert!(matches!(ended[0], Some((Err(ApiError::BodyDisplaced), _))), "{:?}", ended[0]);
        assert!(ended[1..].iter().all(Option::is_none));
        assert_eq!(taken(&uploads), BODIES_MAX);
        drop(waiting);
        assert_eq!(taken(&uploads), 0);
    }
}
