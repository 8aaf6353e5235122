//! `healthcheck`: asks a running API whether it is healthy, for containers without a shell.

use std::time::Duration;

use reqwest::{Client, StatusCode, Url};

use crate::config::HealthcheckConfig;

/// Why the API does not count as healthy.
#[derive(Debug, thiserror::Error)]
pub enum Unhealthy {
    /// Nothing, or nothing in time, answered.
    #[error("{url} does not answer within {timeout:?}")]
    NoAnswer {
        /// What was asked.
        url: Url,
        /// How long was waited.
        timeout: Duration,
        /// What the client said.
        #[source]
        source: reqwest::Error,
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
    let HealthcheckConfig { url, timeout } = config;
    let no_answer = |source| Unhealthy::NoAnswer { url: url.clone(), timeout, source };
    // Straight to the container's own address: a proxy from the environment would only be in the way.
    let client = Client::builder().no_proxy().timeout(timeout).build().map_err(no_answer)?;
    match client.get(url.clone()).send().await.map_err(no_answer)?.status() {
        StatusCode::OK => Ok(()),
        status => Err(Unhealthy::Status { url, status }),
    }
}
