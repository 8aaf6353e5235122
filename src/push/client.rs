//! The Pushgateway's protocol: PUT, POST and DELETE of a group, and the listing of what it holds.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, LOCATION, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode};
use prometheus::proto::MetricFamily;
use prometheus::{Registry, TextEncoder};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, Url};

use super::disclosure::Sent;
use super::grouping_key::GroupingKey;
use super::listing::{Listing, Question, StreamError, stream};
use super::target::{Credentials, PushTarget, Secret};

/// How long one request may take, unless its caller has less time.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of an answer's body is read, for the reason in it. The gateway's own fit many times over.
const REASON_MAX: usize = 64 * 1024;

/// How long that may take.
const REASON_TIMEOUT: Duration = Duration::from_secs(1);

/// How much of a reason is shown, in characters.
const REASON_SHOWN: usize = 500;

/// Redirects that are followed.
const REDIRECTS_MAX: usize = 5;

/// Talks to one gateway. Clones share connections.
#[derive(Debug, Clone)]
pub struct PushClient {
    http: Client,
    target: PushTarget,
}

/// Why a push, a deletion or a listing failed. The texts show what the gateway said, and no secret.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The registry cannot be encoded.
    #[error("the metrics cannot be encoded")]
    Encode(#[from] prometheus::Error),
    /// A metric has a label of the grouping key: the gateway would overwrite its values without a word.
    #[error("the metric {metric} has the label {label}, which is part of the grouping key")]
    GroupingLabel {
        /// The metric.
        metric: String,
        /// The label.
        label: String,
    },
    /// The password or token cannot be had.
    #[error("the {what} cannot be used")]
    Secret {
        /// Password or token.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No client can be built, for lack of authorities, say.
    #[error("no connection can be prepared")]
    Client(#[source] reqwest::Error),
    /// Nothing answers there, or the connection broke.
    #[error("the gateway cannot be reached")]
    Unreachable(#[source] reqwest::Error),
    /// No answer in time.
    #[error("the gateway does not answer within {:.1} s", .0.as_secs_f64())]
    TimedOut(Duration),
    /// The gateway is there but asks to try again: 5xx or 429.
    #[error("the gateway answers {status}{reason}")]
    Unavailable {
        /// The status.
        status: StatusCode,
        /// What its body says, after a colon; may be empty.
        reason: String,
        /// How long to wait, if it said so.
        retry_after: Option<Duration>,
    },
    /// The gateway will not take it: any other status. 400 means that the metrics are invalid, or inconsistent with
    /// those that it holds.
    #[error("the gateway answers {status}{reason}")]
    Refused {
        /// The status.
        status: StatusCode,
        /// What its body says, after a colon; may be empty.
        reason: String,
    },
    /// The gateway's listing of what it holds cannot be read.
    #[error("the gateway's listing cannot be read")]
    Listing(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There was no time left to try.
    #[error("no time is left to reach the gateway")]
    OutOfTime,
    /// A collector of the registry panicked, or the runtime ended.
    #[error("the metrics cannot be gathered")]
    Gather(#[from] tokio::task::JoinError),
}

impl PushError {
    /// Whether the same push may succeed later without anything else being changed: connection errors, time-outs, 5xx
    /// and 429.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::TimedOut(_) | Self::Unavailable { .. })
    }

    /// Whether the metrics themselves were refused, so that no later try can succeed: 400, or 413.
    #[must_use]
    pub fn refuses_content(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE, .. })
    }
}

impl PushClient {
    /// A client of this gateway. Nothing is sent yet.
    ///
    /// Proxies come from the environment, as for curl, but not for addresses of this machine.
    ///
    /// # Errors
    ///
    /// When the target is https and there are no authorities to vouch for it.
    pub fn new(target: PushTarget) -> Result<Self, PushError> {
        let http = match builder(&target).build() {
            Ok(http) => http,
            // A machine without authorities, such as a minimal container, can still push where none are needed.
            Err(_) if target.url.scheme() == "http" => {
                builder(&target).tls_certs_only([]).build().map_err(PushError::Client)?
            }
            Err(error) => return Err(PushError::Client(error)),
        };
        Ok(Self { http, target })
    }

    /// The gateway.
    #[must_use]
    pub fn target(&self) -> &PushTarget {
        &self.target
    }

    /// Replaces the group by what the registry holds (PUT): whatever else was in it is gone. Takes 5 s at most.
    ///
    /// # Errors
    ///
    /// See [`PushError`]; the group is then unchanged, unless the answer was lost on its way.
    pub async fn push(&self, key: &GroupingKey, registry: &Registry) -> Result<(), PushError> {
        let text = encode(key, registry).await?;
        self.put(key, text.into(), REQUEST_TIMEOUT).await
    }

    /// Replaces the families of the group that the registry holds too (POST): others stay. Takes 5 s at most.
    ///
    /// # Errors
    ///
    /// See [`PushError`]; the group is then unchanged, unless the answer was lost on its way.
    pub async fn push_add(&self, key: &GroupingKey, registry: &Registry) -> Result<(), PushError> {
        let text = encode(key, registry).await?;
        self.post(key, text.into()).await
    }

    /// Deletes the group. One that is not there counts as deleted. Takes 5 s at most.
    ///
    /// # Errors
    ///
    /// See [`PushError`].
    pub async fn delete(&self, key: &GroupingKey) -> Result<(), PushError> {
        self.send(Method::DELETE, key, None, REQUEST_TIMEOUT).await
    }

    pub(super) async fn put(&self, key: &GroupingKey, text: Bytes, timeout: Duration) -> Result<(), PushError> {
        self.send(Method::PUT, key, Some(text), timeout).await
    }

    pub(super) async fn post(&self, key: &GroupingKey, text: Bytes) -> Result<(), PushError> {
        self.send(Method::POST, key, Some(text), REQUEST_TIMEOUT).await
    }

    async fn send(
        &self,
        method: Method,
        key: &GroupingKey,
        text: Option<Bytes>,
        timeout: Duration,
    ) -> Result<(), PushError> {
        let (mut request, sent) = self.request(method, &key.path())?;
        if let Some(text) = text {
            request = request.header(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8").body(text);
        }
        within(timeout, async {
            let response = request.send().await.map_err(no_answer)?;
            // The body of a success is of no interest, however long it may be.
            if response.status().is_success() { Ok(()) } else { Err(refusal(response, &sent).await) }
        })
        .await
    }

    /// What the gateway holds of what is asked for. Takes 5 s at most.
    pub(super) async fn listing(&self, question: &Arc<Question>) -> Result<Listing, PushError> {
        let (request, sent) = self.request(Method::GET, "/api/v1/metrics")?;
        within(REQUEST_TIMEOUT, async {
            let response = request.send().await.map_err(no_answer)?;
            if !response.status().is_success() {
                return Err(refusal(response, &sent).await);
            }
            let date =
                response.headers().get(DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
            let group = stream(response, question).await.map_err(|error| match error {
                StreamError::Broken(error) => no_answer(error),
                StreamError::Unreadable(reason) => PushError::Listing(reason),
                StreamError::Ended(error) => error.into(),
            })?;
            Ok(Listing { date, group })
        })
        .await
    }

    /// A request, and the credentials that it carries.
    fn request(&self, method: Method, path: &str) -> Result<(RequestBuilder, Sent), PushError> {
        let mut url = self.target.url.clone();
        url.set_path(path);
        let request = self.http.request(method, url);
        let reveal = |what, secret: &Secret| secret.reveal().map_err(|source| PushError::Secret { what, source });
        Ok(match &self.target.credentials {
            None => (request, Sent::default()),
            Some(Credentials::Basic { username, password }) => {
                let password = reveal("password", password)?;
                let sent = Sent::basic(username, &password);
                (request.basic_auth(username, Some(password)), sent)
            }
            Some(Credentials::Bearer(token)) => {
                let token = reveal("bearer token", token)?;
                let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| PushError::Secret {
                    what: "bearer token",
                    source: std::io::Error::new(std::io::ErrorKind::InvalidData, "it cannot stand in a header"),
                })?;
                header.set_sensitive(true);
                (request.header(AUTHORIZATION, header), Sent::bearer(&token))
            }
        })
    }
}

fn builder(target: &PushTarget) -> ClientBuilder {
    let mut builder = Client::builder().redirect(Policy::custom(follow)).referer(false);
    if let Some(authorities) = &target.authorities {
        builder = builder.tls_certs_only(authorities.clone());
    }
    if is_this_machine(target) { builder.no_proxy() } else { builder }
}

fn is_this_machine(target: &PushTarget) -> bool {
    let host = target.url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Follows where the request goes on as it is: 307 and 308. The older ones would turn a push into a GET, which succeeds
/// and pushes nothing. The HTTP client takes the credentials out when host, port or scheme change; what was sent over
/// TLS is not sent on in the clear.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let keeps_method = matches!(attempt.status(), StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT);
    let in_the_clear = attempt.url().scheme() == "http";
    let downgraded = in_the_clear && attempt.previous().iter().any(|url| url.scheme() == "https");
    if keeps_method && !downgraded && attempt.previous().len() <= REDIRECTS_MAX {
        attempt.follow()
    } else {
        attempt.stop()
    }
}

async fn within<T>(timeout: Duration, work: impl Future<Output = Result<T, PushError>>) -> Result<T, PushError> {
    tokio::time::timeout(timeout, work).await.unwrap_or(Err(PushError::TimedOut(timeout)))
}

fn no_answer(error: reqwest::Error) -> PushError {
    let error = error.without_url();
    if error.is_builder() { PushError::Client(error) } else { PushError::Unreachable(error) }
}

/// The registry's families as text, gathered and encoded off the runtime's threads.
pub(super) async fn encode(key: &GroupingKey, registry: &Registry) -> Result<String, PushError> {
    let registry = registry.clone();
    let (families, text) = tokio::task::spawn_blocking(move || {
        let families = registry.gather();
        let text = TextEncoder::new().encode_to_string(&families);
        (families, text)
    })
    .await?;
    check_labels(key, &families)?;
    Ok(text?)
}

fn check_labels(key: &GroupingKey, families: &[MetricFamily]) -> Result<(), PushError> {
    for family in families {
        let labels = family.get_metric().iter().flat_map(prometheus::proto::Metric::get_label);
        if let Some(label) = labels.map(prometheus::proto::LabelPair::name).find(|name| key.label(name).is_some()) {
            return Err(PushError::GroupingLabel { metric: family.name().to_owned(), label: label.to_owned() });
        }
    }
    Ok(())
}

/// What an answer that is no success means.
async fn refusal(response: Response, sent: &Sent) -> PushError {
    let status = response.status();
    let retry_after = seconds(response.headers().get(RETRY_AFTER));
    if let Some(location) = response.headers().get(LOCATION).filter(|_| status.is_redirection()) {
        let to = location_shown(location, sent).map(|location| format!(" to {location}")).unwrap_or_default();
        return PushError::Refused { status, reason: format!(": it redirects{to}, which is not followed") };
    }
    // The status says what to do, however long the reason for it takes.
    let body = tokio::time::timeout(REASON_TIMEOUT, read(response, REASON_MAX)).await;
    let body = body.ok().and_then(Result::ok).filter(|_| sent.allows(status));
    let reason = body.map(|body| reason(&body, sent)).unwrap_or_default();
    if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS {
        PushError::Unavailable { status, reason, retry_after }
    } else {
        PushError::Refused { status, reason }
    }
}

fn seconds(header: Option<&HeaderValue>) -> Option<Duration> {
    header?.to_str().ok()?.parse().ok().map(Duration::from_secs)
}

/// Where a redirect leads, without what may be secret in it.
fn location_shown(location: &HeaderValue, sent: &Sent) -> Option<String> {
    let location = location.to_str().ok()?;
    let location = location.split(['?', '#']).next().unwrap_or_default();
    let location = match location.parse::<Url>() {
        Ok(mut url) => {
            // These fail only where there can be none.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            shown(url.as_str())
        }
        Err(_) => shown(location),
    };
    sent.is_not_in(location.as_bytes()).then_some(location)
}

/// What a body says, in one line after a colon. It may come from anyone, and goes to a terminal.
fn reason(body: &[u8], sent: &Sent) -> String {
    let text = String::from_utf8_lossy(body);
    match shown(text.trim()) {
        nothing if nothing.is_empty() => nothing,
        words if sent.is_not_in(words.as_bytes()) => format!(": {words}"),
        _ => ": its words are not shown, for they seem to repeat the credentials".to_owned(),
    }
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(REASON_SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(REASON_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

/// Reads a body up to a limit; what there is beyond it is left.
async fn read(mut response: Response, limit: usize) -> Result<Bytes, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await? {
        let room = limit - body.len();
        if chunk.len() > room {
            body.extend_from_slice(&chunk[..room]);
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_by_itself_is_tried_again() {
        let unavailable = |status| PushError::Unavailable { status, reason: String::new(), retry_after: None };
        let refused = |status| PushError::Refused { status, reason: String::new() };
        let cases = [
            (unavailable(StatusCode::BAD_GATEWAY), true, false),
            (unavailable(StatusCode::TOO_MANY_REQUESTS), true, false),
            (PushError::TimedOut(REQUEST_TIMEOUT), true, false),
            (refused(StatusCode::BAD_REQUEST), false, true),
            (refused(StatusCode::PAYLOAD_TOO_LARGE), false, true),
            (refused(StatusCode::UNAUTHORIZED), false, false),
            (PushError::OutOfTime, false, false),
        ];
        for (error, transient, content) in cases {
            assert_eq!((error.is_transient(), error.refuses_content()), (transient, content), "{error}");
        }
    }

    #[test]
    fn a_reason_is_one_short_line_whatever_was_answered() {
        let reason = |body: &[u8]| reason(body, &Sent::default());
        assert_eq!(reason(b" \n"), "");
        assert_eq!(reason(b"wrong\x1b[31m\nline 2\n"), ": wrong [31m line 2");
        assert_eq!(reason(&vec![b'x'; 9999]).chars().count(), REASON_SHOWN + 3);
    }

    #[tokio::test]
    async fn a_metric_that_has_a_label_of_the_grouping_key_is_refused() {
        let registry = Registry::new();
        let family = prometheus::IntCounterVec::new(prometheus::Opts::new("runs_total", "Runs."), &["zone"]).unwrap();
        family.with_label_values(&["a"]).inc();
        registry.register(Box::new(family)).unwrap();
        let key = |label| GroupingKey::new("j").unwrap().with(label, "x").unwrap();

        let refused = encode(&key("zone"), &registry).await.unwrap_err().to_string();

        assert_eq!(refused, "the metric runs_total has the label zone, which is part of the grouping key");
        assert!(encode(&key("region"), &registry).await.is_ok());
    }
}
