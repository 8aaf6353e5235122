//! Trying again: until it succeeds, until it cannot help, or until there is no time left.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::Instant;

use super::client::PushError;

/// The pause after the first failed try. It doubles with each, up to [`LAST_PAUSE`], and each is cut by up to a half at
/// random, so that jobs that failed together do not come back together.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// How long it is tried.
#[derive(Debug)]
pub(super) struct Patience<G> {
    pub(super) until: Instant,
    /// Resolves when no other try is wanted.
    pub(super) give_up: G,
    /// What a try that is under way may still take then.
    pub(super) grace: Duration,
}

impl<G: Future<Output = ()> + Clone> Patience<G> {
    /// One try.
    pub(super) async fn once<T>(&self, attempt: impl Future<Output = Result<T, PushError>>) -> Result<T, PushError> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(PushError::OutOfTime);
        }
        let cut = async {
            self.give_up.clone().await;
            tokio::time::sleep(self.grace).await;
        };
        tokio::select! {
            biased;
            outcome = tokio::time::timeout(left, attempt) => outcome.unwrap_or(Err(PushError::TimedOut(left))),
            () = cut => Err(PushError::TimedOut(self.grace)),
        }
    }

    /// Tries until it succeeds, until trying again cannot help, until there is no time for another pause, or until it is
    /// given up. After a failure, it begins with a pause.
    pub(super) async fn again<T, A: Future<Output = Result<T, PushError>>>(
        &self,
        chance: &mut StdRng,
        mut failed: Option<PushError>,
        may_help: impl Fn(&PushError) -> bool,
        mut attempt: impl FnMut() -> A,
    ) -> Result<T, PushError> {
        let mut pause = FIRST_PAUSE;
        loop {
            if let Some(error) = failed {
                let mut wait = pause.mul_f64(chance.random_range(0.5..=1.0));
                if let PushError::Unavailable { retry_after: Some(asked), .. } = &error {
                    wait = wait.max(*asked);
                }
                if self.until.saturating_duration_since(Instant::now()) <= wait {
                    return Err(error);
                }
                tokio::select! {
                    biased;
                    () = self.give_up.clone() => return Err(error),
                    () = tokio::time::sleep(wait) => {}
                }
                // The sleep may have been longer than was asked for.
                if Instant::now() >= self.until {
                    return Err(error);
                }
                pause = (pause * 2).min(LAST_PAUSE);
            }
            match self.once(attempt()).await {
                Err(error) if may_help(&error) => failed = Some(error),
                outcome => return outcome,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use rand::SeedableRng;

    use super::*;

    const GRACE: Duration = Duration::from_secs(1);

    /// Tries with a fixed outcome until there is no more time, and gives the moments of the tries in seconds.
    async fn tries(until: u64, outcome: impl Fn() -> PushError) -> Vec<f64> {
        let began = Instant::now();
        let tries = RefCell::new(Vec::new());
        let until = began + Duration::from_secs(until);
        let attempt = async || {
            tries.borrow_mut().push(began.elapsed().as_secs_f64());
            Err::<(), _>(outcome())
        };
        let patience = Patience { until, give_up: std::future::pending(), grace: GRACE };
        let _ = patience.again(&mut StdRng::seed_from_u64(1), None, PushError::is_transient, attempt).await;
        tries.into_inner()
    }

    fn unavailable(retry_after: Option<u64>) -> PushError {
        PushError::Unavailable {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            reason: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_between_tries_grow_up_to_a_limit() {
        let tries = tries(10, || unavailable(None)).await;

        let pauses: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let longest = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0];
        assert!(pauses.len() >= 6, "{pauses:?}");
        for (pause, longest) in pauses.iter().zip(longest) {
            assert!((longest / 2.0 - 0.01..=longest + 0.01).contains(pause), "{pauses:?}");
        }
        assert!(*tries.last().unwrap() < 10.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_says_when_to_come_back_is_heeded() {
        let tries = tries(10, || unavailable(Some(4))).await;

        assert_eq!(tries.iter().map(|at| at.round()).collect::<Vec<_>>(), [0.0, 4.0, 8.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_help_is_not_tried_again() {
        let refused = || PushError::Refused { status: http::StatusCode::BAD_REQUEST, reason: String::new() };

        assert_eq!(tries(10, refused).await.len(), 1);
        assert_eq!(tries(0, refused).await.len(), 0, "there is no time at all");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_is_given_up_has_a_second_and_no_other_follows() {
        let began = Instant::now();
        let until = began + Duration::from_secs(10);
        let given_up = async |attempt: &mut dyn FnMut() -> Option<PushError>| {
            let mut tries = 0;
            let attempt = || {
                tries += 1;
                let failed = attempt();
                async { if let Some(error) = failed { Err::<(), _>(error) } else { std::future::pending().await } }
            };
            let patience = Patience { until, give_up: std::future::ready(()), grace: GRACE };
            let mut chance = StdRng::seed_from_u64(1);
            let outcome = patience.again(&mut chance, None, PushError::is_transient, attempt).await;
            (outcome, tries)
        };

        let (failed, tries) = given_up(&mut || Some(unavailable(None))).await;
        assert!(matches!(failed, Err(PushError::Unavailable { .. })) && tries == 1, "{failed:?}");
        assert_eq!(began.elapsed(), Duration::ZERO);

        let (hanging, tries) = given_up(&mut || None).await;
        assert!(matches!(hanging, Err(PushError::TimedOut(_))) && tries == 1, "{hanging:?}");
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
