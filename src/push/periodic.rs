//! A service that pushes its registry at an interval, replacing its own group each time.

use std::future::Future;
use std::time::Duration;

use prometheus::Registry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::client::{PushClient, PushError, REQUEST_TIMEOUT, encode};
use super::grouping_key::GroupingKey;

/// By how much of it an interval may be longer or shorter, at random, so that replicas do not push in step.
const JITTER: f64 = 0.1;

/// Pushes a registry until it is told to stop.
#[derive(Debug)]
pub struct Periodic {
    /// To which gateway.
    pub client: PushClient,
    /// Into which group. Each process needs its own: a push replaces all of it.
    pub key: GroupingKey,
    /// How often; give or take a tenth.
    pub interval: Duration,
    /// Whether the last act is to delete the group, instead of one more push.
    pub delete_on_exit: bool,
    /// What that last act may take, together with a push that is under way when the end comes.
    pub last_timeout: Duration,
    /// Of the random part of the intervals.
    pub seed: u64,
}

/// A push that was tried.
#[derive(Debug)]
pub struct Attempt {
    /// How it ended.
    pub result: Result<(), PushError>,
    /// What it took, gathering included.
    pub duration: Duration,
}

impl Periodic {
    /// Whether the registry, as it is now, can be pushed into this group.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded, or has a label of the grouping key.
    pub async fn check(&self, registry: &Registry) -> Result<(), PushError> {
        encode(&self.key, registry).await.map(drop)
    }

    /// Pushes at once, then at each interval, until `stop` resolves; then a last time, or deletes the group. Every push is
    /// told to `observe`, the deletion too. Nothing blocks a runtime thread, and a push that fails is not repeated before
    /// the next interval, which has newer numbers.
    pub async fn run(self, registry: Registry, observe: impl Fn(&Attempt), stop: impl Future<Output = ()>) {
        let mut chance = StdRng::seed_from_u64(self.seed);
        let timeout = self.interval.min(REQUEST_TIMEOUT);
        let mut stop = std::pin::pin!(stop);
        let end = loop {
            let began = Instant::now();
            let mut push = std::pin::pin!(self.push(&registry, timeout));
            tokio::select! {
                attempt = &mut push => observe(&attempt),
                () = &mut stop => {
                    let end = Instant::now() + self.last_timeout;
                    // Given up at once, it might reach the gateway after the last act.
                    if let Ok(attempt) = tokio::time::timeout_at(end, push).await {
                        observe(&attempt);
                    }
                    break end;
                }
            }
            let next = began + self.interval.mul_f64(chance.random_range(1.0 - JITTER..=1.0 + JITTER));
            tokio::select! {
                biased;
                () = &mut stop => break Instant::now() + self.last_timeout,
                () = tokio::time::sleep_until(next) => {}
            }
        };
        observe(&self.last(&registry, end).await);
    }

    async fn last(&self, registry: &Registry, end: Instant) -> Attempt {
        let began = Instant::now();
        let act = async {
            if self.delete_on_exit {
                self.client.delete(&self.key).await
            } else {
                self.push(registry, self.last_timeout).await.result
            }
        };
        let result = tokio::time::timeout_at(end, act).await.unwrap_or(Err(PushError::TimedOut(self.last_timeout)));
        Attempt { result, duration: began.elapsed() }
    }

    async fn push(&self, registry: &Registry, timeout: Duration) -> Attempt {
        let began = Instant::now();
        let result = match encode(&self.key, registry).await {
            Ok(text) => self.client.put(&self.key, text.into(), timeout).await,
            Err(error) => Err(error),
        };
        Attempt { result, duration: began.elapsed() }
    }
}
