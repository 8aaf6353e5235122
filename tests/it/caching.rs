//! What may be kept: documents, asked about before they are sent again; and nothing else.

use std::collections::HashSet;

use reqwest::RequestBuilder;

use crate::support::{Answer, Server};

/// The documents, each with and without compression where there are both.
const DOCUMENTS: [(&str, Option<&str>); 6] = [
    ("/", None),
    ("/docs", None),
    ("/openapi.json", None),
    ("/docs/swagger-ui-bundle.js", None),
    ("/docs/swagger-ui-bundle.js", Some("gzip")),
    ("/docs/swagger-initializer.js", None),
];

fn request(server: &Server, method: &str, path: &str, accepted: Option<&str>) -> RequestBuilder {
    let request = server.request(method, path);
    accepted.into_iter().fold(request, |request, value| request.header("accept-encoding", value))
}

#[tokio::test]
async fn no_cache_may_keep_an_answer_that_is_no_document() {
    let server = Server::start().await;
    for (method, path, status, reason) in [
        ("GET", "/health", 200, "a probe"),
        ("GET", "/ready", 200, "a probe"),
        ("HEAD", "/ready", 200, "a probe"),
        ("GET", "/metrics", 200, "a scrape"),
        ("POST", "/api/users?name=John&email=john@example.com", 201, "a write"),
        ("GET", "/api/users", 200, "users change"),
        ("GET", "/api/users/1", 200, "a user changes"),
        ("GET", "/update?users=1", 200, "it sets a gauge, which a cache would not"),
        ("GET", "/cpu?value=1", 200, "it sets a gauge, which a cache would not"),
        ("GET", "/api/users/2", 404, "the user may be created; caches keep a 404 unless they are told"),
        ("GET", "/nope", 404, "a newer version may serve it"),
        ("GET", "/docs/nope.js", 404, "a newer version may serve it"),
        ("PATCH", "/api/users", 405, "a newer version may serve it"),
        ("GET", "/api/users?limit=0", 422, "an error"),
        ("GET", "/api/error", 500, "an error"),
        ("DELETE", "/api/users/1", 204, "a write"),
    ] {
        let answer = server.send(method, path).await;

        assert_eq!(answer.status, status, "{method} {path}: {reason}");
        assert_eq!(answer.header("cache-control"), "no-store", "{method} {path}: {reason}");
        assert_eq!(answer.header("etag"), "", "{method} {path}: {reason}");
    }
}

#[tokio::test]
async fn a_document_that_the_client_has_is_not_sent_again() {
    let server = Server::start().await;
    let mut tags = HashSet::new();
    for (path, accepted) in DOCUMENTS {
        let full = Answer::to(request(&server, "GET", path, accepted)).await;
        let tag = full.header("etag").to_owned();
        assert_eq!(full.status, 200, "{path}");
        assert!(tag.starts_with('"') && tag.ends_with('"') && tag.len() > 10, "{path}: a strong tag: {tag}");
        assert_eq!(full.header("cache-control"), "no-cache", "{path}");
        assert!(tags.insert(tag.clone()), "{path}, {accepted:?}: the tag of another representation");

        for (known, reason) in [
            (tag.clone(), "the same"),
            (format!("W/{tag}"), "weakened on the way: they are compared as weak ones"),
            (format!("\"a,b\", {tag}, \"c\""), "one of several"),
            ("*".to_owned(), "whatever there is"),
        ] {
            for method in ["GET", "HEAD"] {
                let asked = request(&server, method, path, accepted).header("if-none-match", &known);

                let answer = Answer::to(asked).await;

                let place = format!("{method} {path}, {accepted:?}: {reason}");
                assert_eq!(answer.status, 304, "{place}");
                assert_eq!(answer.body, b"", "{place}");
                for header in ["etag", "cache-control", "vary"] {
                    assert_eq!(answer.header(header), full.header(header), "{place}: {header}");
                }
                for header in ["content-type", "content-encoding"] {
                    assert_eq!(answer.header(header), "", "{place}: {header}");
                }
            }
        }
        let in_two_lines =
            request(&server, "GET", path, accepted).header("if-none-match", "\"a\"").header("if-none-match", &tag);
        assert_eq!(Answer::to(in_two_lines).await.status, 304, "{path}: in the second of two lines");
        for (known, reason) in [("\"a\"", "another"), ("a", "no tag at all"), ("", "empty")] {
            let answer = Answer::to(request(&server, "GET", path, accepted).header("if-none-match", known)).await;

            assert_eq!(answer.status, 200, "{path}: {reason}");
            assert!(answer.body == full.body, "{path}: {reason}");
        }
        let head = Answer::to(request(&server, "HEAD", path, accepted)).await;
        assert_eq!((head.status.as_u16(), head.header("etag")), (200, tag.as_str()), "{path}");
    }
}

#[tokio::test]
async fn a_compressed_file_and_the_plain_one_are_not_taken_for_each_other() {
    let server = Server::start().await;
    let path = "/docs/swagger-ui-bundle.js";
    let tag = async |accepted| Answer::to(request(&server, "GET", path, accepted)).await.header("etag").to_owned();
    let (plain, compressed) = (tag(None).await, tag(Some("gzip")).await);

    for (known, accepted, status) in
        [(&plain, Some("gzip"), 200), (&compressed, None, 200), (&plain, None, 304), (&compressed, Some("gzip"), 304)]
    {
        let answer = Answer::to(request(&server, "GET", path, accepted).header("if-none-match", known)).await;

        assert_eq!(answer.status, status, "{known} for {accepted:?}");
        assert_eq!(answer.header("vary"), "accept-encoding", "{known} for {accepted:?}");
    }
}

#[tokio::test]
async fn an_answer_without_its_document_is_counted_as_304() {
    let server = Server::start().await;
    let labels = [("method", "GET"), ("route", "/docs/{file}"), ("status", "304")];
    assert_eq!(server.metrics().await.value("http_requests_total", &labels), 0.0, "from the start");

    server.request("GET", "/docs/swagger-ui.css").header("if-none-match", "*").send().await.unwrap();

    assert_eq!(server.metrics().await.value("http_requests_total", &labels), 1.0);
}
