//! /metrics, seen from outside: what traffic leaves in it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use api_monitoring::api::problem::ErrorKind;
use api_monitoring::api::surface::OPERATIONS;
use flate2::read::GzDecoder;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::{Answer, Samples, Server, client, eventually};

/// The text format, as Prometheus asks for it.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";

// ---- The format ----

#[tokio::test]
async fn the_exposition_is_prometheus_text() {
    let server = Server::start().await;

    let (get, head) = (server.get("/metrics").await, server.send("HEAD", "/metrics").await);

    for answer in [&get, &head] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), TEXT_FORMAT);
        assert_eq!(answer.header("content-encoding"), "", "nobody asked for a coding");
        assert_eq!(answer.header("vary"), "accept-encoding", "a cache must not mix up the two forms");
    }
    assert!(get.text().ends_with('\n'), "the format wants the last line ended");
}

#[tokio::test]
async fn gzip_is_used_when_it_is_asked_for_and_holds_the_same_series() {
    let server = Server::start().await;
    mixed_traffic(&server).await;
    let plain = server.get("/metrics").await;
    let cases = [
        ("gzip", true, "alone"),
        ("gzip, deflate, br", true, "among others"),
        ("deflate, gzip;q=0.5", true, "less liked, but allowed"),
        ("*", true, "anything"),
        ("GZIP", true, "codings are case-insensitive"),
        ("gzip;q=0", false, "forbidden"),
        ("identity", false, "as it is"),
        ("br", false, "another coding"),
        ("", false, "none"),
    ];
    for (accepted, gzip, reason) in cases {
        let answer = Answer::to(server.request("GET", "/metrics").header("accept-encoding", accepted)).await;

        assert_eq!(answer.header("content-encoding"), if gzip { "gzip" } else { "" }, "{accepted:?}: {reason}");
        assert_eq!(answer.header("content-type"), TEXT_FORMAT, "{accepted:?}: {reason}");
        let mut text = String::new();
        if gzip {
            assert!(answer.body.len() * 2 < plain.body.len(), "{accepted:?}: it is worth it");
            GzDecoder::new(answer.body.as_slice()).read_to_string(&mut text).unwrap();
        } else {
            text = answer.text();
        }
        assert_eq!(Samples::parse(&text).series(), Samples::parse(&plain.text()).series(), "{accepted:?}: {reason}");
    }
}

#[tokio::test]
async fn every_family_has_one_help_and_one_type_and_all_of_its_series_together() {
    let server = Server::start().await;
    mixed_traffic(&server).await;

    let families = families(&server.get("/metrics").await.text());

    let kinds: BTreeMap<&str, &str> =
        families.iter().map(|family| (family.name.as_str(), family.kind.as_str())).collect();
    assert_eq!(kinds.len(), families.len(), "no family stands twice");
    let expected = [
        ("http_requests_total", "counter"),
        ("http_request_duration_seconds", "histogram"),
        ("http_requests_in_progress", "gauge"),
        ("api_errors_total", "counter"),
        ("app_requests_total", "counter"),
        ("app_active_users", "gauge"),
        ("app_cpu_usage_percent", "gauge"),
        ("api_users_registered_total", "counter"),
        ("api_users_deleted_total", "counter"),
        ("api_users", "gauge"),
        ("api_build_info", "gauge"),
        ("api_connections", "gauge"),
        ("api_connections_refused_total", "counter"),
        ("process_cpu_seconds_total", "counter"),
        ("process_resident_memory_bytes", "gauge"),
        ("process_virtual_memory_bytes", "gauge"),
        ("process_open_fds", "gauge"),
        ("process_max_fds", "gauge"),
        ("process_threads", "gauge"),
        ("process_start_time_seconds", "gauge"),
    ];
    assert_eq!(kinds, BTreeMap::from(expected));
    for family in families {
        assert!(!family.help.is_empty(), "{}", family.name);
        assert!(!family.samples.0.is_empty(), "{} has no series", family.name);
    }
}

#[tokio::test]
async fn the_build_and_the_process_are_described() {
    let server = Server::start().await;

    let metrics = server.metrics().await;

    let builds: Vec<_> = metrics.0.iter().filter(|sample| sample.name == "api_build_info").collect();
    assert_eq!(builds.len(), 1);
    assert_eq!(builds[0].value, 1.0);
    assert_eq!(builds[0].labels.keys().collect::<Vec<_>>(), ["revision", "rustc", "version"]);
    assert_eq!(builds[0].labels["version"], env!("CARGO_PKG_VERSION"));
    assert!(builds[0].labels.values().all(|value| !value.is_empty()), "{:?}", builds[0].labels);
    let memory = metrics.value("process_resident_memory_bytes", &[]);
    assert!(memory > 1e6 && memory < 1e9, "{memory} bytes");
    assert!(metrics.value("process_open_fds", &[]) > 3.0, "a listener, a connection, a database");
    assert!(metrics.value("process_start_time_seconds", &[]) > 1.7e9, "seconds since 1970");
}

// ---- Rate and errors ----

#[tokio::test]
async fn a_scrape_is_not_counted() {
    let server = Server::start().await;
    let before = server.metrics().await;

    server.send("HEAD", "/metrics").await;
    let after = server.metrics().await;

    assert_eq!(after.series(), before.series());
    assert_eq!(after.value("app_requests_total", &[]), 0.0);
    assert_eq!(after.sum("http_requests_total", &[]), 0.0);
    assert_eq!(after.sum("http_requests_in_progress", &[]), 0.0, "a scrape does not see itself");
    assert!(after.0.iter().all(|sample| sample.labels.get("route").is_none_or(|route| route != "/metrics")));
}

#[tokio::test]
async fn every_request_is_counted_once_by_method_route_and_status() {
    let server = Server::start().await;
    let cases = [
        ("POST", "/api/users?name=John&email=john@example.com", "POST", "/api/users", "201", "a write"),
        ("GET", "/api/users", "GET", "/api/users", "200", "a streamed body"),
        ("GET", "/api/users/1?x=%zz", "GET", "/api/users/{id}", "200", "the query is no part of the route"),
        ("HEAD", "/api/users/1", "HEAD", "/api/users/{id}", "200", "HEAD is not GET"),
        ("GET", "/api/users/7", "GET", "/api/users/{id}", "404", "no such user"),
        ("GET", "/api/users/x", "GET", "/api/users/{id}", "422", "no id"),
        ("PATCH", "/api/users/1", "PATCH", "/api/users/{id}", "405", "a wrong method keeps the path's route"),
        ("FOO", "/api/users/1", "OTHER", "/api/users/{id}", "405", "a made-up method"),
        ("POST", "/metrics", "POST", "/metrics", "405", "not the scrape"),
        ("GET", "/nope", "GET", "unmatched", "404", "no route"),
        ("FOO", "/nope", "OTHER", "unmatched", "404", "neither"),
        ("GET", "/docs/nope.js", "GET", "/docs/{file}", "404", "no such file"),
        ("GET", "/docs/index.css", "GET", "/docs/{file}", "200", "a file"),
        ("GET", "/health", "GET", "/health", "200", "a probe is counted like all else"),
        ("GET", "/api/error", "GET", "/api/error", "500", "a failure"),
    ];
    for (method, path, method_label, route, status, reason) in cases {
        let before = server.metrics().await;

        server.send(method, path).await;

        let after = server.metrics().await;
        let grown = |name, labels: &[_]| after.sum(name, labels) - before.sum(name, labels);
        let labels = [("method", method_label), ("route", route), ("status", status)];
        assert_eq!(grown("http_requests_total", &labels), 1.0, "{reason}");
        assert_eq!(grown("http_requests_total", &[]), 1.0, "{reason}: and no other");
        assert_eq!(grown("http_request_duration_seconds_count", &labels[..2]), 1.0, "{reason}");
        assert_eq!(grown("http_request_duration_seconds_count", &[]), 1.0, "{reason}: and no other");
        assert_eq!(after.sum("http_requests_in_progress", &[]), 0.0, "{reason}");
    }
}

#[tokio::test]
async fn the_totals_agree_and_never_fall() {
    let server = Server::start().await;
    let mut before = families(&server.get("/metrics").await.text());
    let mut sent = 0;
    for _ in 0..3 {
        sent += mixed_traffic(&server).await;

        let now = families(&server.get("/metrics").await.text());

        let metrics = Samples(now.iter().flat_map(|family| family.samples.0.clone()).collect());
        let failed = |sample: &&_| is(sample, "http_requests_total") && sample.labels["status"].as_str() >= "400";
        let failures: f64 = metrics.0.iter().filter(failed).map(|sample| sample.value).sum();
        assert_eq!(metrics.sum("http_requests_total", &[]), f64::from(sent));
        assert_eq!(metrics.value("app_requests_total", &[]), f64::from(sent));
        assert_eq!(metrics.sum("http_request_duration_seconds_count", &[]), f64::from(sent));
        assert!(failures > 0.0);
        assert_eq!(metrics.sum("api_errors_total", &[]), failures, "every failed request counts one error");
        for earlier in before.iter().filter(|family| family.kind != "gauge").flat_map(|family| &family.samples.0) {
            let same = |sample: &&_| is(sample, &earlier.name) && sample.labels == earlier.labels;
            let later = metrics.0.iter().find(same).unwrap_or_else(|| panic!("{earlier:?} is gone"));
            assert!(later.value >= earlier.value, "{earlier:?} fell to {}", later.value);
        }
        before = now;
    }
}

#[tokio::test]
async fn every_failure_counts_one_error_of_its_kind() {
    let server = Server::start().await;
    let cases = [
        ("GET", "/api/users/7", "not_found"),
        ("GET", "/nope", "unknown_path"),
        ("FOO", "/nope", "unknown_path"),
        ("DELETE", "/health", "method_not_allowed"),
        ("GET", "/api/users/x", "validation"),
        ("GET", "/api/users?limit=%", "malformed_query"),
        ("GET", "/api/error", "simulated"),
    ];
    for (method, path, error_type) in cases {
        let before = server.metrics().await;

        let answer = server.send(method, path).await;

        let after = server.metrics().await;
        let grown = |labels: &[_]| after.sum("api_errors_total", labels) - before.sum("api_errors_total", labels);
        assert_eq!(answer.problem().error_type, error_type, "{method} {path}: metric and answer say the same");
        assert_eq!(grown(&[("error_type", error_type)]), 1.0, "{method} {path}");
        assert_eq!(grown(&[]), 1.0, "{method} {path}: and no other");
    }
}

#[tokio::test]
async fn labels_stay_within_their_closed_sets() {
    let server = Server::start().await;
    mixed_traffic(&server).await;
    for path in ["/api/users/123456", "/a/b?c=d", "/%ff", "/metrics/", "/api/users/%2e%2e", "/docs/x.js", "/unmatched"]
    {
        for method in ["GET", "BREW", "get", "POST"] {
            server.send(method, path).await;
        }
    }

    let metrics = server.metrics().await;

    let values = |label: &str| -> BTreeSet<String> {
        metrics.0.iter().filter_map(|sample| sample.labels.get(label).cloned()).collect()
    };
    let is_within = |label: &str, allowed: &[&str]| {
        let strange: Vec<_> = values(label).into_iter().filter(|value| !allowed.contains(&value.as_str())).collect();
        assert!(strange.is_empty(), "{label}: {strange:?}");
    };
    let templates: Vec<_> = OPERATIONS.iter().map(|operation| operation.template).chain(["unmatched"]).collect();
    let kinds: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.error_type()).chain(["client_closed_request"]).collect();
    is_within("route", &templates);
    is_within("error_type", &kinds);
    is_within("method", &["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "OTHER"]);
    is_within("le", &["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"]);
    assert!(values("status").iter().all(|status| (200..=599).contains(&status.parse::<u16>().unwrap())));
}

// ---- Duration and requests in progress ----

#[tokio::test]
async fn a_slow_request_is_in_progress_until_it_is_answered_and_falls_into_its_buckets() {
    let server = Server::start().await;
    let labels = [("method", "GET"), ("route", "/api/slow")];

    let (slow, during) = tokio::join!(server.get("/api/slow"), async {
        server.in_progress("/api/slow", 1).await;
        server.metrics().await
    });

    let delay = slow.json()["delay_seconds"].as_f64().unwrap();
    let after = server.metrics().await;
    assert_eq!(during.sum("http_requests_in_progress", &[]), 1.0, "it alone");
    assert_eq!(during.value("http_request_duration_seconds_count", &labels), 0.0, "counted when it is over");
    assert_eq!(after.value("http_requests_in_progress", &labels), 0.0);
    let bucket = |le| after.value("http_request_duration_seconds_bucket", &[labels[0], labels[1], ("le", le)]);
    assert_eq!((bucket("1"), bucket("10"), bucket("+Inf")), (0.0, 1.0, 1.0), "{delay} s");
    let sum = after.value("http_request_duration_seconds_sum", &labels);
    assert_eq!(bucket("2.5"), f64::from(u8::from(sum <= 2.5)), "{sum} s");
    assert!(sum >= delay, "{sum} >= {delay}");
}

#[tokio::test]
async fn requests_in_progress_add_up_and_a_client_that_hangs_up_is_counted_as_499() {
    let server = Server::start().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(b"GET /api/slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        clients.push(stream);
    }
    server.in_progress("/api/slow", 3).await;

    drop(clients);

    server.in_progress("/api/slow", 0).await;
    let metrics = server.metrics().await;
    let labels = [("method", "GET"), ("route", "/api/slow")];
    assert_eq!(metrics.value("http_requests_total", &[labels[0], labels[1], ("status", "499")]), 3.0);
    assert_eq!(metrics.value("http_requests_total", &[labels[0], labels[1], ("status", "200")]), 0.0);
    assert_eq!(metrics.value("http_request_duration_seconds_count", &labels), 3.0, "each ends in one record");
    assert_eq!(metrics.value("api_errors_total", &[("error_type", "client_closed_request")]), 3.0);
    assert_eq!(metrics.sum("api_errors_total", &[]), 3.0);
}

#[tokio::test]
async fn a_client_that_hangs_up_half_way_through_its_body_ends_in_one_record_and_writes_nothing() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let head = b"POST /api/users?name=John&email=john@example.com HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head).await.unwrap();
    server.in_progress("/api/users", 1).await;

    drop(stream);

    server.in_progress("/api/users", 0).await;
    let metrics = server.metrics().await;
    let ended: Vec<_> =
        metrics.0.iter().filter(|sample| is(sample, "http_requests_total") && sample.value > 0.0).collect();
    // Whether the end of the connection shows first as a hang-up or as a broken body is the connection's business.
    assert_eq!(ended.len(), 1, "{ended:?}");
    assert!(["400", "499"].contains(&ended[0].labels["status"].as_str()), "{ended:?}");
    assert_eq!(metrics.sum("api_errors_total", &[]), 1.0);
    assert_eq!(metrics.value("api_users", &[]), 0.0);
}

// ---- Users ----

#[tokio::test]
async fn every_acknowledged_write_is_in_the_next_scrape() {
    let server = Server::start().await;
    let figures = async || {
        let metrics = server.metrics().await;
        ["api_users_registered_total", "api_users_deleted_total", "api_users"].map(|name| metrics.value(name, &[]))
    };
    let john = "/api/users?name=John&email=john@example.com";
    let cases = [
        ("POST", john, 201, [1.0, 0.0, 1.0], "the first user"),
        ("POST", john, 201, [2.0, 0.0, 2.0], "another"),
        ("PUT", "/api/users/1?name=Jane", 200, [2.0, 0.0, 2.0], "a change is neither"),
        ("DELETE", "/api/users/1", 204, [2.0, 1.0, 1.0], "a user goes"),
        ("DELETE", "/api/users/1", 404, [2.0, 1.0, 1.0], "it cannot go twice"),
        ("POST", "/api/users?name=John", 422, [2.0, 1.0, 1.0], "a refused user"),
        ("DELETE", "/api/users/2", 204, [2.0, 2.0, 0.0], "the last user goes"),
        ("POST", john, 201, [3.0, 2.0, 1.0], "a new one"),
    ];
    for (method, path, status, expected, reason) in cases {
        let answer = server.send(method, path).await;

        assert_eq!(answer.status, status, "{reason}");
        assert_eq!(figures().await, expected, "{reason}");
    }
}

#[tokio::test]
async fn a_restart_starts_the_counters_anew_and_keeps_the_users() {
    let mut first = Server::start().await;
    first.create("John").await;
    let folder = std::sync::Arc::clone(&first.folder);
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.exit().await;

    let second = Server::start_in(folder, &[]).await;

    let metrics = second.metrics().await;
    assert_eq!(metrics.value("api_users_registered_total", &[]), 0.0, "it counts what this process did");
    assert_eq!(metrics.value("api_users", &[]), 1.0, "it counts what is there");
}

// ---- Pieces ----

/// Sends some of everything, failures included, and gives how many requests those were. Scrapes are none.
async fn mixed_traffic(server: &Server) -> u32 {
    let created = server.create("John").await;
    let user = format!("/api/users/{created}");
    let requests = [
        ("GET", "/api/users"),
        ("GET", "/api/users?limit=1"),
        ("GET", user.as_str()),
        ("HEAD", user.as_str()),
        ("PUT", &format!("{user}?name=Jane")),
        ("PUT", user.as_str()),
        ("DELETE", user.as_str()),
        ("DELETE", user.as_str()),
        ("PATCH", user.as_str()),
        ("GET", "/api/users/x"),
        ("POST", "/api/users"),
        ("POST", "/api/users?name=%"),
        ("GET", "/api/error"),
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/update?users=3"),
        ("GET", "/cpu?value=101"),
        ("GET", "/openapi.json"),
        ("GET", "/docs"),
        ("GET", "/docs/nope.js"),
        ("GET", "/"),
        ("GET", "/nope"),
        ("FOO", "/nope"),
        ("OPTIONS", "/health"),
        ("POST", "/metrics"),
    ];
    for (method, path) in requests {
        server.send(method, path).await;
    }
    // One that nobody waits for: its client is gone before it is answered.
    let slow = tokio::spawn(client().get(server.url("/api/slow")).send());
    server.in_progress("/api/slow", 1).await;
    slow.abort();
    server.in_progress("/api/slow", 0).await;
    u32::try_from(requests.len()).unwrap() + 2
}

fn is(sample: &crate::support::Sample, name: &str) -> bool {
    sample.name == name
}

/// A metric family as the text format has it.
struct Family {
    name: String,
    kind: String,
    help: String,
    samples: Samples,
}

/// Takes an exposition apart, and sees that every sample stands under the family that it belongs to.
fn families(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            let (name, help) = (name.to_owned(), help.to_owned());
            families.push(Family { name, kind: String::new(), help, samples: Samples(Vec::new()) });
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let family = families.last_mut().expect("HELP comes first");
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!((name, family.kind.as_str()), (family.name.as_str(), ""), "one TYPE after each HELP");
            kind.clone_into(&mut family.kind);
        } else {
            let family = families.last_mut().unwrap_or_else(|| panic!("{line:?} stands under no family"));
            let samples = Samples::parse(line);
            let suffix = samples.0[0].name.strip_prefix(&family.name);
            let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
            assert!(suffix.is_some_and(|suffix| suffixes.contains(&suffix)), "{line:?} stands under {}", family.name);
            family.samples.0.extend(samples.0);
        }
    }
    families
}

#[tokio::test]
async fn a_client_that_goes_away_while_it_sends_its_body_is_counted_with_status_499() {
    let server = Server::start().await;
    let mut stream = TcpStream::connect(&server.address).await.unwrap();
    let head = "POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let labels = [("method", "POST"), ("route", "/api/users")];
    eventually("the request in progress", async || {
        (server.metrics().await.value("http_requests_in_progress", &labels) == 1.0).then_some(())
    })
    .await;

    drop(stream);

    let ended = eventually("its end", async || {
        let metrics = server.metrics().await;
        (metrics.value("http_requests_in_progress", &labels) == 0.0).then_some(metrics)
    })
    .await;
    let with_status = [("method", "POST"), ("route", "/api/users"), ("status", "499")];
    assert_eq!(ended.value("http_requests_total", &with_status), 1.0);
    assert_eq!(ended.value("api_errors_total", &[("error_type", "client_closed_request")]), 1.0);
    assert_eq!(ended.sum("api_errors_total", &[]), 1.0, "and as nothing else");
}
