//! `GET /metrics`: the registry as Prometheus' text format, compressed when asked for.
//!
//! This module owns gathering and encoding. It refuses to do either on an async worker: with 100,000 series they take
//! tens of milliseconds, in which no request on that worker would move.

use std::convert::Infallible;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderValue, StatusCode};
use prometheus::Registry;
use tokio::sync::Semaphore;
use warp::reply::{Reply, Response};
use warp::{Filter, Rejection};

use super::text;

/// The media type of the text format, as Prometheus asks for it.
pub const CONTENT_TYPE_TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// `GET` and `HEAD /metrics` for any warp service; every other request is rejected, so that `.or(service)` follows.
///
/// Not wrapped by [`Red::instrument`](super::Red::instrument), scrapes are not counted as traffic.
#[must_use]
pub fn exposition(
    registry: Registry,
) -> impl Filter<Extract = (Response,), Error = Rejection> + Clone + Send + Sync + 'static {
    let exposition = Exposition::new(registry);
    warp::path!("metrics")
        .and(warp::get().or(warp::head()).unify())
        .and(accept_encoding())
        .map(move |accepted| (exposition.clone(), accepted))
        .then(|(exposition, accepted): (Exposition, Option<String>)| async move {
            exposition.reply(accepted.as_deref()).await.unwrap_or_else(|error| {
                tracing::error!(cause = %error, "cannot encode the metrics");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            })
        })
}

/// Extracts the `Accept-Encoding` header; one that is no text counts as absent.
fn accept_encoding() -> impl Filter<Extract = (Option<String>,), Error = Infallible> + Clone + Send + Sync + 'static {
    warp::header::optional::<String>("accept-encoding").or(warp::any().map(|| None)).unify()
}

/// Answers scrapes of one registry, for services that route by themselves.
#[derive(Clone)]
pub struct Exposition {
    registry: Registry,
    /// One encoding at a time: many scrapers at once must not take all cores from the requests.
    turn: Arc<Semaphore>,
    /// Bytes of the last text: the next one needs as much room.
    last: Arc<AtomicUsize>,
}

/// Why the metrics could not be encoded. Not expected: the registry checks families when they are registered.
#[derive(Debug, thiserror::Error)]
pub enum ExpositionError {
    /// The encoder refused a family.
    #[error("a metric family cannot be encoded")]
    Encode(#[from] prometheus::Error),
    /// Compressing in memory failed.
    #[error("the metrics cannot be compressed")]
    Compress(#[from] std::io::Error),
    /// The encoding task panicked or was cancelled with the runtime.
    #[error("the encoding task ended early")]
    Task(#[from] tokio::task::JoinError),
}

impl Exposition {
    /// Answers from this registry.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        Self { registry, turn: Arc::new(Semaphore::new(1)), last: Arc::default() }
    }

    /// Gathers and encodes on the blocking pool, gzipped if `accept_encoding` (the header's value) allows it.
    ///
    /// # Errors
    ///
    /// When a family cannot be encoded.
    pub async fn reply(&self, accept_encoding: Option<&str>) -> Result<Response, ExpositionError> {
        let gzip = accept_encoding.is_some_and(accepts_gzip);
        let turn = Arc::clone(&self.turn).acquire_owned().await.expect("the semaphore is never closed");
        let (registry, last) = (self.registry.clone(), Arc::clone(&self.last));
        let body = tokio::task::spawn_blocking(move || {
            let body = encode(&registry, gzip, &last);
            drop(turn);
            body
        })
        .await??;

        let mut response = Response::new(body.into());
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE_TEXT));
        headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
        // A scrape that a cache answered would show a service standing still.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        Ok(response)
    }
}

fn encode(registry: &Registry, gzip: bool, last: &AtomicUsize) -> Result<Bytes, ExpositionError> {
    let families = registry.gather();
    let mut text = String::with_capacity(last.load(Ordering::Relaxed));
    text::encode(&families, &mut text)?;
    // Counts grow by a digit now and then.
    last.store(text.len() + text.len() / 64, Ordering::Relaxed);
    if !gzip {
        return Ok(text.into());
    }
    // The fastest level: exposition text shrinks to a tenth even so, and a scrape every few seconds should cost little.
    let mut encoder = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    Ok(encoder.finish()?.into())
}

/// Whether an `Accept-Encoding` value allows gzip (RFC 9110, section 12.5.3): named, or covered by `*`, and not with
/// `q=0`.
#[must_use]
pub fn accepts_gzip(accept_encoding: &str) -> bool {
    let allowed = |coding: &str| {
        accept_encoding.split(',').find_map(|item| {
            let mut parts = item.split(';').map(str::trim);
            let named = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(coding));
            let weight = parts.find_map(|part| part.strip_prefix("q=").or(part.strip_prefix("Q=")));
            named.then(|| weight.is_none_or(|q| q.trim().parse::<f32>().is_ok_and(|q| q > 0.0)))
        })
    };
    allowed("gzip").or_else(|| allowed("*")).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Mutex;
    use std::sync::mpsc;
    use std::time::Duration;

    use prometheus::core::{Collector, Desc};
    use prometheus::{IntCounter, proto};

    use super::*;

    fn registry() -> Registry {
        let registry = Registry::new();
        let counter = IntCounter::new("jobs_total", "Jobs.").unwrap();
        counter.inc_by(3);
        registry.register(Box::new(counter)).unwrap();
        registry
    }

    #[test]
    fn gzip_is_sent_only_where_it_is_accepted() {
        let cases = [
            ("gzip", true, "named"),
            ("deflate, GZIP;q=0.5", true, "named among others, any case"),
            ("*", true, "covered by the wildcard"),
            ("gzip;q=0", false, "refused"),
            ("gzip; q=0.0, *", false, "refused by name, whatever the wildcard says"),
            ("*;q=0", false, "everything refused"),
            ("br, identity", false, "not named"),
            ("", false, "empty"),
        ];
        for (header, expected, reason) in cases {
            assert_eq!(accepts_gzip(header), expected, "{header:?}: {reason}");
        }
    }

    #[tokio::test]
    async fn the_text_has_the_media_type_that_prometheus_asks_for() {
        let response = warp::test::request().path("/metrics").reply(&exposition(registry())).await;

        assert_eq!(response.headers()[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(response.headers()[CACHE_CONTROL], "no-store");
        assert!(response.headers().get(CONTENT_ENCODING).is_none());
        assert_eq!(response.body(), "# HELP jobs_total Jobs.\n# TYPE jobs_total counter\njobs_total 3\n");
    }

    #[tokio::test]
    async fn the_compressed_text_is_the_text() {
        let request = warp::test::request().path("/metrics").header("accept-encoding", "gzip");

        let response = request.reply(&exposition(registry())).await;

        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(response.headers()[VARY], "accept-encoding");
        let mut text = String::new();
        flate2::read::GzDecoder::new(&response.body()[..]).read_to_string(&mut text).unwrap();
        assert!(text.ends_with("jobs_total 3\n"), "{text}");
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_left_to_the_service() {
        let filter = exposition(registry());
        assert!(!warp::test::request().path("/metrics/x").matches(&filter).await);
        assert!(!warp::test::request().method("POST").path("/metrics").matches(&filter).await);
        assert!(warp::test::request().method("HEAD").path("/metrics").matches(&filter).await);
    }

    /// Collects only once it is told to.
    struct Gate(IntCounter, Mutex<mpsc::Receiver<()>>);

    impl Collector for Gate {
        fn desc(&self) -> Vec<&Desc> {
            self.0.desc()
        }

        fn collect(&self) -> Vec<proto::MetricFamily> {
            // Bounded, so that a version that collects on the async worker fails instead of hanging.
            self.1.lock().unwrap().recv_timeout(Duration::from_secs(20)).unwrap();
            self.0.collect()
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn a_scrape_that_takes_long_does_not_hold_up_the_only_async_worker() {
        let (open, gate) = mpsc::channel();
        let registry = Registry::new();
        registry.register(Box::new(Gate(IntCounter::new("slow_total", "Slow.").unwrap(), Mutex::new(gate)))).unwrap();
        let service = exposition(registry).or(warp::path("other").map(|| "answered"));
        let scrape = tokio::spawn({
            let service = service.clone();
            async move { warp::test::request().path("/metrics").reply(&service).await }
        });
        tokio::task::yield_now().await;

        let other = warp::test::request().path("/other").reply(&service).await;

        assert_eq!(other.body(), "answered");
        assert!(!scrape.is_finished());
        open.send(()).unwrap();
        assert_eq!(scrape.await.unwrap().status(), 200);
    }
}
