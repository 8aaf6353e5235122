//! The test endpoints: one that is slow and one that fails, to see dashboards and alerts move.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use super::problem::ApiError;
use super::{App, json};

/// The answer of `GET /api/slow`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"delay_seconds": 2.417}))]
pub struct Slow {
    /// How long the answer was held back, in seconds.
    #[schema(minimum = 2, maximum = 3)]
    pub delay_seconds: f64,
}

/// Where the delays of `GET /api/slow` come from: a seeded generator, so that a run can be repeated.
#[derive(Debug)]
pub struct Delays(Mutex<StdRng>);

impl Delays {
    /// Delays that repeat with the seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(StdRng::seed_from_u64(seed)))
    }

    /// Uniformly random, 2 to 3 s.
    fn next(&self) -> Duration {
        // A generator that panicked half-way is still a generator.
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Duration::from_secs_f64(rng.random_range(2.0..=3.0))
    }
}

/// `GET /api/slow`.
pub async fn slow(app: &App) -> Result<Response, ApiError> {
    let delay = app.delays().next();
    tokio::time::sleep(delay).await;
    Ok(json(StatusCode::OK, &Slow { delay_seconds: delay.as_secs_f64() }))
}

/// `GET /api/error`.
pub async fn error() -> Result<Response, ApiError> {
    Err(ApiError::Simulated)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_lie_between_2_and_3_seconds_and_repeat_with_the_seed() {
        let draw = |seed| {
            let delays = Delays::seeded(seed);
            (0..1000).map(|_| delays.next()).collect::<Vec<_>>()
        };

        let first = draw(7);

        assert!(first.iter().all(|delay| (2.0..=3.0).contains(&delay.as_secs_f64())));
        let mean = first.iter().sum::<Duration>().as_secs_f64() / 1000.0;
        assert!((2.45..2.55).contains(&mean), "uniform, so about 2.5 s on average: {mean}");
        assert_eq!(first, draw(7));
        assert_ne!(first, draw(8));
    }
}
