//! What the service's own pushes did: the families by which pushing is watched.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{Gauge, Histogram, IntCounterVec, Registry};

use super::names;

/// How a push ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PushResult {
    /// The gateway took it.
    Success,
    /// The gateway answered that it will not take it.
    Refused,
    /// The gateway did not answer, or asked to try again.
    Unavailable,
}

/// Handles to the `push_*` families. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PushMetrics {
    attempts: IntCounterVec,
    last_success: Gauge,
    duration: Histogram,
}

impl PushMetrics {
    /// Registers the families; every result is at 0.
    ///
    /// # Errors
    ///
    /// When the registry already holds one of them.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            attempts: IntCounterVec::new(names::PUSH_ATTEMPTS_TOTAL.opts(), names::PUSH_ATTEMPTS_TOTAL.labels)?,
            last_success: Gauge::with_opts(names::PUSH_LAST_SUCCESS_TIMESTAMP_SECONDS.opts())?,
            duration: Histogram::with_opts(names::PUSH_DURATION_SECONDS.histogram_opts(&names::PUSH_DURATION_BUCKETS))?,
        };
        for result in names::PUSH_RESULTS {
            metrics.attempts.with_label_values(&[result]);
        }
        registry.register(Box::new(metrics.attempts.clone()))?;
        registry.register(Box::new(metrics.last_success.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        Ok(metrics)
    }

    /// Records a push that took `duration` and ended at `now`.
    pub fn record(&self, result: PushResult, duration: Duration, now: SystemTime) {
        let [success, refused, unavailable] = names::PUSH_RESULTS;
        let label = match result {
            PushResult::Success => success,
            PushResult::Refused => refused,
            PushResult::Unavailable => unavailable,
        };
        self.attempts.with_label_values(&[label]).inc();
        self.duration.observe(duration.as_secs_f64());
        if result == PushResult::Success {
            self.last_success.set(now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64());
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus::TextEncoder;

    use super::*;

    #[test]
    fn each_push_counts_once_and_only_a_success_moves_the_last_success() {
        let registry = Registry::new();
        let metrics = PushMetrics::register(&registry).unwrap();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);

        metrics.record(PushResult::Success, Duration::from_millis(20), at(5));
        metrics.record(PushResult::Unavailable, Duration::from_secs(2), at(9));

        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        for line in [
            "push_attempts_total{result=\"success\"} 1",
            "push_attempts_total{result=\"refused\"} 0",
            "push_attempts_total{result=\"unavailable\"} 1",
            "push_last_success_timestamp_seconds 5",
            "push_duration_seconds_count 2",
            "push_duration_seconds_sum 2.02",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in {text}");
        }
    }
}
