//! The guard that ends every request in exactly one record.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
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

    /// Leaves out of the duration what the service waited for its client, such as for the body to come.
    pub fn leave_out(&mut self, waited: Duration) {
        self.started += waited;
    }

    /// Records how the request ended. From status 400 on it counts as an error too, of the kind `error_type`: a word from
    /// a closed set, never user text. Below, the kind says nothing.
    pub fn finish(mut self, status: StatusCode, error_type: Option<&'static str>) {
        self.end(status.as_u16(), error_type);
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
        let error_type = if status < 400 { None } else { error_type.or_else(|| unclassified(status)) };
        stripe.record(status, duration, error_type);
        Some(Ended { status, duration, stripe })
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// The kind of a failure that names none.
fn unclassified(status: u16) -> Option<&'static str> {
    match status {
        ..400 => None,
        400..500 => Some(names::ERROR_UNCLASSIFIED_CLIENT),
        500.. => Some(names::ERROR_UNCLASSIFIED_SERVER),
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use prometheus::{Registry, TextEncoder};

    use super::super::{Red, RouteTable};
    use super::*;

    fn red() -> (Red, Registry) {
        let registry = Registry::new();
        let red = Red::register(&registry, RouteTable::new(["/work"]).unwrap()).unwrap();
        (red, registry)
    }

    fn assert_sample(registry: &Registry, expected: &str) {
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(text.lines().any(|line| line == expected), "no {expected:?} in\n{text}");
    }

    #[test]
    fn a_request_that_is_dropped_is_a_client_that_went_away() {
        let (red, registry) = red();

        let observation = red.observe(&Method::GET, "/work");
        assert_sample(&registry, r#"http_requests_in_progress{method="GET",route="/work"} 1"#);
        drop(observation);

        assert_sample(&registry, r#"http_requests_total{method="GET",route="/work",status="499"} 1"#);
        assert_sample(&registry, r#"api_errors_total{error_type="client_closed_request"} 1"#);
        assert_sample(&registry, r#"http_requests_in_progress{method="GET",route="/work"} 0"#);
    }

    #[test]
    fn a_request_whose_thread_unwinds_panicked() {
        let (red, registry) = red();

        let panicked = std::thread::spawn(move || {
            let _observation = red.observe(&Method::GET, "/work");
            panic!("boom");
        })
        .join();

        assert!(panicked.is_err());
        assert_sample(&registry, r#"http_requests_total{method="GET",route="/work",status="500"} 1"#);
        assert_sample(&registry, r#"api_errors_total{error_type="panic"} 1"#);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_waited_for_the_client_is_left_out_of_the_duration() {
        let (red, registry) = red();
        let mut observation = red.observe(&Method::GET, "/work");
        tokio::time::sleep(Duration::from_secs(9)).await;

        observation.leave_out(Duration::from_secs(8));
        observation.finish(StatusCode::OK, None);

        assert_sample(&registry, r#"http_request_duration_seconds_sum{method="GET",route="/work"} 1"#);
    }

    #[test]
    fn a_success_is_no_error_whatever_kind_is_named() {
        let (red, registry) = red();

        red.observe(&Method::GET, "/work").finish(StatusCode::OK, Some("teapot"));

        assert_sample(&registry, r#"http_requests_total{method="GET",route="/work",status="200"} 1"#);
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        assert!(!text.contains("teapot"), "{text}");
    }

    #[test]
    fn a_status_beyond_the_standard_is_an_error_of_the_server() {
        let (red, registry) = red();

        red.observe(&Method::GET, "/work").finish(StatusCode::from_u16(799).unwrap(), None);

        assert_sample(&registry, r#"http_requests_total{method="GET",route="/work",status="799"} 1"#);
        assert_sample(&registry, r#"api_errors_total{error_type="unclassified_server_error"} 1"#);
        assert_sample(&registry, r#"http_request_duration_seconds_count{method="GET",route="/work"} 1"#);
    }
}
