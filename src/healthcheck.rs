//! `healthcheck`: asks a running API whether it is healthy, for containers without a shell.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, StatusCode, Url};

use crate::config::HealthcheckConfig;

/// Why the API does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// Nothing listens there, or the connection broke.
    #[error("{url} cannot be reached")]
    Unreachable {
        /// What was asked.
        url: Url,
        /// What the client said.
        #[source]
        source: reqwest::Error,
    },
    /// Nothing answered in time.
    #[error("{url} does not answer within {timeout:?}")]
    TooLate {
        /// What was asked.
        url: Url,
        /// How long was waited.
        timeout: Duration,
    },
    /// It answered something else.
    #[error("{url} answers {status}, expected 200 OK")]
    Status {
        /// What was asked.
        url: Url,
        /// What was answered.
        status: StatusCode,
    },
}

/// Asks once.
///
/// # Errors
///
/// When the answer is not 200 within the time-out.
pub async fn check(config: HealthcheckConfig) -> Result<(), Unhealthy> {
    let HealthcheckConfig { url: asked, timeout } = config;
    // What is said of it must not hold a token of its query.
    let mut url = asked.clone();
    url.set_query(None);
    url.set_fragment(None);
    let no_answer = |error: reqwest::Error| {
        if error.is_timeout() {
            Unhealthy::TooLate { url: url.clone(), timeout }
        } else {
            Unhealthy::Unreachable { url: url.clone(), source: error.without_url() }
        }
    };
    // Straight to the container's own address: a proxy from the environment would only be in the way.
    let client = Client::builder().no_proxy().redirect(Policy::none()).timeout(timeout).build().map_err(no_answer)?;
    match client.get(asked).send().await.map_err(no_answer)?.status() {
        StatusCode::OK => Ok(()),
        status => Err(Unhealthy::Status { url, status }),
    }
}
