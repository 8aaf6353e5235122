//! The REST API: every operation's answers, over a real socket.

use std::collections::HashSet;
use std::io::Read;
use std::time::{Duration, Instant};

use api_monitoring::api::surface::{OPERATIONS, Operation};
use flate2::read::GzDecoder;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use reqwest::{Method, Url};
use serde_json::{Value, json};

use crate::support::{Answer, Server, encode};

// ---- Users ----

#[tokio::test]
async fn a_user_is_created_from_the_query_from_json_or_from_both() {
    let server = Server::start().await;
    let cases = [
        ("?name=John&email=john%40example.com", json!({}), "both fields in the query"),
        ("", json!({"name": "John", "email": "john@example.com"}), "both fields in the body"),
        ("?name=John", json!({"email": "john@example.com"}), "the address in the body"),
        ("?email=john@example.com", json!({"name": "John"}), "the name in the body"),
        ("?name=%20John+&email=john%40example.com", json!({}), "blanks around the name, `+` being one of them"),
        ("", json!({"name": "\u{3000}John ", "email": "john@example.com"}), "blanks around the name in the body"),
    ];
    for (index, (query, body, reason)) in cases.into_iter().enumerate() {
        let mut request = server.request("POST", &format!("/api/users{query}"));
        if body != json!({}) {
            request = request.json(&body);
        }

        let created = Answer::to(request).await;
        let read = server.get(created.header("location")).await;

        let id = index + 1;
        assert_eq!(created.status, 201, "{reason}: {}", created.text());
        assert_eq!(created.header("content-type"), "application/json", "{reason}");
        assert_eq!(created.header("location"), format!("/api/users/{id}"), "{reason}");
        assert_eq!(created.json(), json!({"id": id, "name": "John", "email": "john@example.com"}), "{reason}");
        assert_eq!(read.status, 200, "{reason}");
        assert_eq!(read.header("content-type"), "application/json", "{reason}");
        assert_eq!(read.json(), created.json(), "{reason}");
    }
}

#[tokio::test]
async fn json_is_taken_under_every_spelling_of_its_media_type() {
    let server = Server::start().await;
    for (content_type, reason) in [
        ("application/json", "as registered"),
        ("application/json; charset=utf-8", "with a parameter"),
        ("Application/JSON", "media types are case-insensitive"),
        ("application/json ; charset=utf-8", "a blank before the semicolon (RFC 9110, section 5.6.6)"),
        ("application/json\t;\tcharset=UTF-8 ; q=\"a;b\"", "tabs, and a semicolon in quotes"),
        ("application/json;charset=\"utf-8\"", "a parameter in quotes"),
        ("application/json; charset=utf8", "as many write it"),
        ("application/json; charset=us-ascii", "a part of UTF-8"),
        ("application/json;", "a semicolon and nothing after it"),
    ] {
        let request = server.request("POST", "/api/users").header("content-type", content_type);

        let created = Answer::to(request.body(r#"{"name":"John","email":"john@example.com"}"#)).await;

        assert_eq!(created.status, 201, "{content_type}: {reason}: {}", created.text());
    }
}

#[tokio::test]
async fn a_body_that_is_sent_as_it_is_may_say_so() {
    let server = Server::start().await;
    for encoding in ["identity", "Identity", "identity, identity", ""] {
        let request = server.request("POST", "/api/users").header("content-encoding", encoding);

        let created = Answer::to(request.json(&json!({"name": "John", "email": "john@example.com"}))).await;

        assert_eq!(created.status, 201, "{encoding:?}: {}", created.text());
    }
}

#[tokio::test]
async fn a_byte_order_mark_before_json_is_skipped() {
    let server = Server::start().await;
    for (method, path, status) in [("POST", "/api/users", 201), ("PUT", "/api/users/1", 200)] {
        let request = server.request(method, path).header("content-type", "application/json");

        let answer = Answer::to(request.body("\u{FEFF}{\"name\":\"John\",\"email\":\"john@example.com\"}")).await;

        assert_eq!(answer.status, status, "{method}: {}", answer.text());
        assert_eq!(answer.json()["name"], "John", "{method}");
    }
    let alone = server.request("POST", "/api/users?name=John&email=john@example.com").body("\u{FEFF}");
    let alone = Answer::to(alone.header("content-type", "application/json")).await;
    assert_eq!(alone.status, 201, "nothing but the mark is no body: {}", alone.text());
}

#[tokio::test]
async fn a_user_is_changed_field_by_field() {
    let server = Server::start().await;
    let id = server.create("John").await;
    let cases = [
        ("?name=Jane", json!({}), "Jane", "john@example.com", "the name alone, in the query"),
        ("?email=jane%40example.com", json!({}), "Jane", "jane@example.com", "the address alone, in the query"),
        ("?name=Jim&email=jim%40example.com", json!({}), "Jim", "jim@example.com", "both, in the query"),
        ("", json!({"name": "Joan"}), "Joan", "jim@example.com", "the name alone, in the body"),
        ("", json!({"email": "joan@example.com"}), "Joan", "joan@example.com", "the address alone, in the body"),
        ("", json!({"name": "Jo", "email": "jo@example.com"}), "Jo", "jo@example.com", "both, in the body"),
        ("?name=Joe", json!({"email": "joe@example.com"}), "Joe", "joe@example.com", "one in each"),
        ("?name=Joe", json!({}), "Joe", "joe@example.com", "a change to what it already is"),
    ];
    for (query, body, name, email, reason) in cases {
        let mut request = server.request("PUT", &format!("/api/users/{id}{query}"));
        if body != json!({}) {
            request = request.json(&body);
        }

        let changed = Answer::to(request).await;
        let read = server.get(&format!("/api/users/{id}")).await;

        assert_eq!(changed.status, 200, "{reason}: {}", changed.text());
        assert_eq!(changed.header("content-type"), "application/json", "{reason}");
        assert_eq!(changed.json(), json!({"id": id, "name": name, "email": email}), "{reason}");
        assert_eq!(read.json(), changed.json(), "{reason}");
    }
}

#[tokio::test]
async fn a_deleted_user_is_gone_and_its_id_is_never_given_again() {
    let server = Server::start().await;
    let kept = server.create("John").await;
    let last = server.create("Jane").await;
    let path = format!("/api/users/{last}");

    let deleted = server.send("DELETE", &path).await;

    assert_eq!(deleted.status, 204);
    assert_eq!(deleted.body, b"");
    assert_eq!(deleted.header("content-type"), "", "there is no content to have a type");
    for (method, query) in [("GET", ""), ("PUT", "?name=Joan"), ("DELETE", "")] {
        let answer = server.send(method, &format!("{path}{query}")).await;
        let problem = answer.problem();
        assert_eq!(answer.status, 404, "{method}");
        assert_eq!(problem.error_type, "not_found", "{method}");
        assert!(problem.detail.ends_with(&format!("id {last}")), "{method}: {problem:?}");
    }
    assert_eq!(ids(&server.get("/api/users").await.json()), [kept]);
    assert_eq!(server.create("Joan").await, last + 1, "not even the highest id is used again");
}

#[tokio::test]
async fn names_are_kept_as_given_and_counted_in_characters() {
    let server = Server::start().await;
    let longest = "🦀".repeat(200);
    let too_long = "🦀".repeat(201);
    let composed = "e\u{301}".repeat(100);
    let cases = [
        (longest.as_str(), 201, "200 characters, though 800 bytes"),
        (too_long.as_str(), 422, "201 characters"),
        (composed.as_str(), 201, "200 characters, though a reader sees 100"),
        ("李小龍", 201, "Han"),
        ("محمد", 201, "Arabic, from right to left"),
        ("Ольга Ивановна", 201, "Cyrillic"),
        ("สมชาย", 201, "Thai, with combining vowels"),
        ("👩‍👩‍👧‍👦", 201, "emoji, joined by format characters"),
        ("🏴\u{E0067}\u{E0062}\u{E0073}\u{E0063}\u{E0074}\u{E007F}", 201, "Scotland's flag, which is made of tags"),
        ("علی\u{200C}رضا", 201, "Persian, with a zero-width non-joiner"),
        ("a", 201, "one character"),
        (r#"Robert'); DROP TABLE users;-- <b>&"\"#, 201, "text that means something elsewhere"),
    ];
    for (name, status, reason) in cases {
        let query = format!("/api/users?name={}&email=john%40example.com", encode(name));
        let body = json!({"name": name, "email": "john@example.com"});

        let from_query = server.send("POST", &query).await;
        let from_json = Answer::to(server.request("POST", "/api/users").json(&body)).await;

        for (answer, place) in [(from_query, "query"), (from_json, "body")] {
            assert_eq!(answer.status, status, "{reason}, in the {place}: {}", answer.text());
            if status == 201 {
                assert_eq!(answer.json()["name"], name, "{reason}, in the {place}");
                let read = server.get(answer.header("location")).await;
                assert_eq!(read.json(), answer.json(), "{reason}, in the {place}");
            }
        }
    }
}

#[tokio::test]
async fn users_from_before_a_rule_are_read_and_changed_as_they_are() {
    let server = Server::start().await;
    let (name, email) = ("\u{202E}\u{200B}", "john@ex?ample.com");
    let insert = sqlx::query("INSERT INTO users (name, email) VALUES (?, ?)").bind(name).bind(email);
    insert.execute(&mut server.database().await).await.unwrap();

    let read = server.get("/api/users/1").await;
    let listed = server.get("/api/users").await;
    let changed = server.send("PUT", "/api/users/1?email=john@example.com").await;

    let stored = json!({"id": 1, "name": name, "email": email});
    assert_eq!((read.json(), &listed.json()["users"][0]), (stored.clone(), &stored));
    assert_eq!(changed.json(), json!({"id": 1, "name": name, "email": "john@example.com"}));
}

// ---- Listings ----

#[tokio::test]
async fn a_listing_without_limit_holds_all_users_and_no_next() {
    let server = Server::start().await;
    let user = |id: i64| json!({"id": id, "name": "John", "email": "john@example.com"});

    let empty = server.get("/api/users").await;

    assert_eq!(empty.status, 200);
    assert_eq!(empty.header("content-type"), "application/json");
    assert_eq!(empty.json(), json!({"users": [], "count": 0}));

    for _ in 1..=3 {
        server.create("John").await;
    }

    let cases = [
        ("", json!({"users": [user(1), user(2), user(3)], "count": 3}), "all"),
        ("?after=0", json!({"users": [user(1), user(2), user(3)], "count": 3}), "all, as after no id"),
        ("?after=1", json!({"users": [user(2), user(3)], "count": 2}), "after the first"),
        ("?after=3", json!({"users": [], "count": 0}), "after the last"),
        ("?after=9223372036854775807", json!({"users": [], "count": 0}), "after the last id there can ever be"),
    ];
    for (query, expected, reason) in cases {
        let listing = server.get(&format!("/api/users{query}")).await;
        assert_eq!(listing.status, 200, "{reason}");
        assert_eq!(listing.json(), expected, "{reason}");
    }
}

#[tokio::test]
async fn pages_follow_one_another_by_next_and_hold_each_user_once() {
    let server = Server::start().await;
    for number in 1..=25 {
        server.create(&format!("User {number}")).await;
    }

    let mut pages = vec![server.get("/api/users?limit=10").await.json()];
    while let Some(next) = pages.last().unwrap()["next"].as_i64() {
        pages.push(server.get(&format!("/api/users?limit=10&after={next}")).await.json());
    }

    let facts: Vec<_> = pages.iter().map(|page| json!([page["count"], page["next"]])).collect();
    assert_eq!(facts, [json!([10, 10]), json!([10, 20]), json!([5, null])]);
    assert_eq!(pages.iter().flat_map(ids).collect::<Vec<_>>(), (1..=25).collect::<Vec<_>>());
    let cases = [
        ("limit=25", 25, json!(null), "a page that is exactly full is the last when nothing follows"),
        ("limit=24", 24, json!(24), "one user follows"),
        ("limit=1", 1, json!(1), "the smallest page"),
        ("limit=1000", 25, json!(null), "the largest page"),
        ("limit=10&after=25", 0, json!(null), "nothing is left"),
        ("after=20&limit=3", 3, json!(23), "the order of the parameters does not matter"),
    ];
    for (query, count, next, reason) in cases {
        let page = server.get(&format!("/api/users?{query}")).await.json();
        assert_eq!(ids(&page).len(), count, "{reason}");
        assert_eq!(page["count"], count, "{reason}");
        assert_eq!(page.get("next"), Some(&next), "{reason}");
    }
}

#[tokio::test]
async fn a_long_listing_is_streamed_as_one_json_document() {
    // More than two of the chunks in which the store is read.
    const USERS: usize = 2_500;
    let server = Server::start().await;
    let created: HashSet<i64> =
        stream::iter(0..USERS).map(|_| server.create("John")).buffer_unordered(64).collect().await;
    assert_eq!(created.len(), USERS);

    let listing = server.get("/api/users").await;
    let rest = server.get("/api/users?after=500").await;

    assert_eq!(listing.status, 200);
    assert_eq!(listing.header("transfer-encoding"), "chunked", "its length is not known when it starts");
    let listing = listing.json();
    assert_eq!(listing["count"], USERS);
    assert_eq!(ids(&listing), (1..=2_500).collect::<Vec<_>>());
    assert_eq!(rest.json()["count"], USERS - 500);
    assert_eq!(ids(&rest.json()), (501..=2_500).collect::<Vec<_>>(), "exactly two chunks: the third is empty");
}

// ---- Test endpoints and legacy endpoints ----

#[tokio::test]
async fn a_slow_answer_takes_the_two_to_three_seconds_that_it_says() {
    let server = Server::start().await;
    let started = Instant::now();

    let answer = server.get("/api/slow").await;

    let waited = started.elapsed().as_secs_f64();
    let body = answer.json();
    let delay = body["delay_seconds"].as_f64().unwrap();
    let measured = server.metrics().await.value("http_request_duration_seconds_sum", &slow_labels());
    assert_eq!(answer.status, 200);
    assert_eq!(body, json!({"delay_seconds": delay}));
    assert!((2.0..=3.0).contains(&delay), "{delay}");
    // The service measures from within the client's wait, and the delay lies within what it measures.
    assert!(delay <= measured && measured <= waited, "{delay} <= {measured} <= {waited}");
}

#[tokio::test]
async fn the_error_endpoint_always_fails() {
    let server = Server::start().await;
    for _ in 0..3 {
        let answer = server.get("/api/error").await;

        assert_eq!(answer.status, 500);
        assert_eq!(answer.problem().error_type, "simulated");
    }
}

#[tokio::test]
async fn the_legacy_endpoints_set_their_gauges() {
    let server = Server::start().await;
    let cases = [
        ("/update?users=42", json!({"active_users": 42}), "app_active_users", 42.0, "some users"),
        ("/update?users=0", json!({"active_users": 0}), "app_active_users", 0.0, "no users"),
        ("/cpu?value=12.5", json!({"cpu_usage_percent": 12.5}), "app_cpu_usage_percent", 12.5, "a fraction"),
        ("/cpu?value=100", json!({"cpu_usage_percent": 100.0}), "app_cpu_usage_percent", 100.0, "the most"),
        ("/cpu?value=0", json!({"cpu_usage_percent": 0.0}), "app_cpu_usage_percent", 0.0, "the least"),
    ];
    for (path, body, gauge, value, reason) in cases {
        let answer = server.get(path).await;

        assert_eq!(answer.status, 200, "{reason}");
        assert_eq!(answer.json(), body, "{reason}");
        assert_eq!(server.metrics().await.value(gauge, &[]), value, "{reason}");
    }
}

// ---- Operation and documentation ----

#[tokio::test]
async fn the_probes_say_that_all_is_well() {
    let server = Server::start().await;

    let (health, ready) = (server.get("/health").await, server.get("/ready").await);

    assert_eq!((health.status.as_u16(), ready.status.as_u16()), (200, 200));
    assert_eq!(health.json(), json!({"status": "healthy", "version": env!("CARGO_PKG_VERSION")}));
    assert_eq!(ready.json(), json!({"status": "ready"}));
}

#[tokio::test]
async fn swagger_ui_loads_everything_from_the_server_itself() {
    let server = Server::start().await;
    let here = Url::parse(&server.url("/docs")).unwrap();

    let page = server.get("/docs").await;

    assert_eq!(page.status, 200);
    assert_eq!(media_type(&page), "text/html");
    let html = page.text();
    let base = attributes(&html, "base", "href").first().map_or(here.clone(), |base| here.join(base).unwrap());
    let mut assets = attributes(&html, "link", "href");
    assets.extend(attributes(&html, "script", "src"));
    let assets: Vec<Url> = assets.into_iter().map(|asset| base.join(asset).unwrap()).collect();
    assert!(assets.len() > 5, "{assets:?}");
    for asset in assets {
        assert_eq!(asset.origin(), here.origin(), "nothing comes from elsewhere");
        let answer = server.get(asset.path()).await;
        assert_eq!(answer.status, 200, "{asset}");
        let expected = match asset.path().rsplit_once('.').map(|(_, extension)| extension) {
            Some("css") => "text/css",
            Some("js") => "text/javascript",
            Some("png") => "image/png",
            other => panic!("{asset}: no media type is known for {other:?}"),
        };
        assert_eq!(media_type(&answer), expected, "{asset}");
    }
}

/// What a browser asks for, from the page's address on; the proxy takes the prefix off.
#[tokio::test]
async fn behind_a_proxy_that_strips_a_prefix_the_documentation_stays_below_it() {
    let server = Server::start().await;
    let page = Url::parse("https://proxy.example/prefix/docs").unwrap();
    let html = server.get("/docs").await.text();
    let base = page.join(attributes(&html, "base", "href").first().expect("a base")).unwrap();

    let initializer = server.get("/docs/swagger-initializer.js").await.text();
    // Swagger UI resolves a relative address twice, for its requests against the page instead of its base: so it is
    // given a whole one.
    let (_, after) = initializer.split_once(r#""url": new URL(""#).expect("the description that Swagger UI shows");
    let (relative, after) = after.split_once('"').unwrap();
    assert!(after.starts_with(", document.baseURI).href"), "{after}");
    let description = base.join(relative).unwrap();
    let servers = server.get("/openapi.json").await.json()["servers"].clone();
    let servers: Vec<Url> =
        servers.as_array().unwrap().iter().map(|at| description.join(at["url"].as_str().unwrap()).unwrap()).collect();
    let landing = server.get("/").await.text();
    let landing_page = Url::parse("https://proxy.example/prefix/").unwrap();
    let links = attributes(&landing, "a", "href").into_iter().map(|link| landing_page.join(link).unwrap());

    assert_eq!(description.path(), "/prefix/openapi.json");
    assert_eq!(servers.iter().map(Url::path).collect::<Vec<_>>(), ["/prefix/"]);
    for link in links.filter(|link| link.host_str() == Some("proxy.example")) {
        assert!(link.path().starts_with("/prefix/"), "{link}");
    }
}

#[tokio::test]
async fn files_of_swagger_ui_come_compressed_where_the_client_takes_that_and_plain_where_not() {
    let server = Server::start().await;
    let get = async |accepted: Option<&str>| {
        let request = server.request("GET", "/docs/swagger-ui-bundle.js");
        Answer::to(accepted.into_iter().fold(request, |request, value| request.header("accept-encoding", value))).await
    };

    let (plain, compressed, refused) = (get(None).await, get(Some("gzip, br")).await, get(Some("gzip;q=0")).await);

    assert!(plain.status == 200 && compressed.status == 200);
    assert_eq!(compressed.header("content-encoding"), "gzip");
    for answer in [&plain, &refused] {
        assert!(!answer.headers.contains_key("content-encoding"));
    }
    assert_eq!(refused.body, plain.body);
    assert!(plain.text().contains("SwaggerUIBundle"));
    assert!(compressed.body.len() * 2 < plain.body.len(), "{} of {}", compressed.body.len(), plain.body.len());
    let mut unpacked = Vec::new();
    GzDecoder::new(compressed.body.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert!(unpacked == plain.body, "both are the same file");
    for answer in [plain, compressed, refused] {
        assert_eq!(answer.header("vary"), "accept-encoding", "a cache must keep them apart");
    }
}

#[tokio::test]
async fn the_landing_page_links_to_what_is_served_and_to_what_watches_it() {
    let server = Server::start().await;
    let here = Url::parse(&server.url("/")).unwrap();
    let expected = |path: &str| match path {
        "/update" | "/cpu" => 422,
        "/api/error" => 500,
        _ => 200,
    };

    let page = server.get("/").await;

    assert_eq!(page.status, 200);
    assert_eq!(page.header("content-type"), "text/html; charset=utf-8");
    let html = page.text();
    let links: Vec<Url> = attributes(&html, "a", "href").into_iter().map(|link| here.join(link).unwrap()).collect();
    let (own, elsewhere): (Vec<&Url>, Vec<&Url>) = links.iter().partition(|link| link.origin() == here.origin());
    let answers = join_all(own.iter().map(|link| server.get(link.path()))).await;
    for (link, answer) in own.iter().zip(answers) {
        assert_eq!(answer.status, expected(link.path()), "{link}");
    }
    let ports: HashSet<_> = elsewhere.iter().filter_map(|link| link.port()).collect();
    assert!(ports.is_superset(&HashSet::from([9090, 3000])), "Prometheus and Grafana: {ports:?}");
}

#[tokio::test]
async fn the_description_is_served_as_json() {
    let server = Server::start().await;

    let answer = server.get("/openapi.json").await;

    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.json()["info"]["version"], env!("CARGO_PKG_VERSION"));
}

// ---- What holds for every request ----

#[tokio::test]
async fn head_answers_like_get_without_a_body() {
    let server = Server::start().await;
    server.create("John").await;
    let with_get = OPERATIONS.iter().filter(|operation| operation.method == Method::GET);
    let unknown = ["/nope".to_owned(), "/api/users/7".to_owned(), "/api/users/x".to_owned()];

    // At once, because one of them takes 2 to 3 s.
    let answers = join_all(with_get.map(sample_path).chain(unknown).map(|path| async {
        let (get, head) = tokio::join!(server.get(&path), server.send("HEAD", &path));
        (path, get, head)
    }))
    .await;

    assert!(answers.len() > 14, "every operation with GET, and some failures");
    for (path, get, head) in answers {
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert_eq!(head.body, b"", "{path}");
        // Their bodies differ from one request to the next.
        if !["/metrics", "/api/slow"].contains(&path.as_str()) {
            assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
        }
    }
}

#[tokio::test]
async fn another_method_on_a_known_path_answers_405_with_allow() {
    let server = Server::start().await;
    let read_only = "GET, HEAD";
    let rows = [
        ("/api/users", "GET, HEAD, POST", "users are listed and created"),
        ("/api/users/1", "GET, HEAD, PUT, DELETE", "a user is read, changed and deleted, whether or not it exists"),
        ("/api/users/x", "GET, HEAD, PUT, DELETE", "the method is judged before the id"),
        ("/health", read_only, "a probe"),
        ("/ready", read_only, "a probe"),
        ("/metrics", read_only, "the scrape"),
        ("/api/slow", read_only, "a test endpoint"),
        ("/api/error", read_only, "a test endpoint"),
        ("/update", read_only, "legacy: it changes something by GET, and only so"),
        ("/cpu", read_only, "legacy: it changes something by GET, and only so"),
        ("/openapi.json", read_only, "a document"),
        ("/docs", read_only, "a document"),
        ("/docs/swagger-ui.css", read_only, "a document"),
        ("/docs/nope.css", read_only, "the method is judged before the file"),
        ("/", read_only, "a document"),
    ];
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"];
    for (path, allow, reason) in rows {
        for method in methods.iter().filter(|method| !allow.split(", ").any(|allowed| allowed == **method)) {
            let answer = server.send(method, path).await;

            let problem = answer.problem();
            assert_eq!(answer.status, 405, "{method} {path}: {reason}");
            assert_eq!(answer.header("allow"), allow, "{method} {path}: {reason}");
            assert_eq!(problem.error_type, "method_not_allowed", "{method} {path}");
            assert!(problem.detail.contains(&format!("{method:?}")), "{method} {path}: {problem:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_path_answers_404_and_names_it() {
    let server = Server::start().await;
    server.create("John").await;
    let cases = [
        ("/nope", "nothing like it"),
        ("/api", "a part of a path"),
        ("/api/users/", "a trailing slash is another path"),
        ("/health/", "a trailing slash is another path"),
        ("/api/users/1/posts", "one segment too many"),
        ("//api/users", "an empty segment"),
        ("/API/users", "paths are case-sensitive"),
        ("/api%2Fusers", "an encoded slash is no separator"),
        ("/docs/nope.js", "no such file"),
        ("/docs/..%2f..%2fetc%2fpasswd", "a file elsewhere"),
        ("/favicon.ico", "what browsers ask for by themselves"),
    ];
    for (path, reason) in cases {
        for method in ["GET", "POST", "FOO"] {
            if method != "GET" && path.starts_with("/docs/") {
                // Known as a path, whatever the file: 405.
                continue;
            }
            let answer = server.send(method, path).await;

            let problem = answer.problem();
            assert_eq!(answer.status, 404, "{method} {path}: {reason}");
            assert_eq!(problem.error_type, "unknown_path", "{method} {path}: {reason}");
            assert!(problem.detail.contains(&format!("{path:?}")), "{method} {path}: {problem:?}");
        }
    }
}

#[tokio::test]
async fn every_kind_of_response_carries_the_callers_request_id_or_a_new_one() {
    let rows = [
        ("GET", "/health", 200, "a probe"),
        ("GET", "/metrics", 200, "the scrape, which is not counted"),
        ("GET", "/", 200, "a page"),
        ("GET", "/docs/swagger-ui.css", 200, "a file"),
        ("POST", "/api/users?name=John&email=john@example.com", 201, "a write"),
        ("GET", "/api/users", 200, "a streamed body"),
        ("HEAD", "/api/users/1", 200, "no body"),
        ("DELETE", "/api/users/1", 204, "no content"),
        ("GET", "/api/users/1", 404, "no such user"),
        ("GET", "/nope", 404, "no such path"),
        ("FOO", "/health", 405, "no such method"),
        ("POST", "/metrics", 405, "not the scrape"),
        ("POST", "/api/users?name=%", 400, "a broken query"),
        ("POST", "/api/users", 422, "nothing given"),
        ("GET", "/api/error", 500, "a failure of the service"),
    ];
    let (offered, none) = (Server::start().await, Server::start().await);
    let mut generated = HashSet::new();
    for (method, path, status, reason) in rows {
        let with_id = Answer::to(offered.request(method, path).header("x-request-id", "caller:7/A_b-c.d+e=@~")).await;
        let without = none.send(method, path).await;

        assert_eq!((with_id.status.as_u16(), without.status.as_u16()), (status, status), "{method} {path}: {reason}");
        assert_eq!(with_id.header("x-request-id"), "caller:7/A_b-c.d+e=@~", "{method} {path}: {reason}");
        assert_ne!(without.header("x-request-id"), "", "{method} {path}: {reason}");
        assert!(generated.insert(without.header("x-request-id").to_owned()), "{method} {path}: given out twice");
    }
}

#[tokio::test]
async fn a_request_id_that_is_not_sane_is_replaced() {
    let server = Server::start().await;
    let (longest, too_long) = ("a".repeat(128), "a".repeat(129));
    let cases: [(&[u8], bool, &str); 8] = [
        (longest.as_bytes(), true, "the longest"),
        (too_long.as_bytes(), false, "one longer"),
        (b"", false, "empty"),
        (b"a b", false, "a blank"),
        (b"a\"b", false, "a quote"),
        (b"a;b", false, "a separator"),
        ("é".as_bytes(), false, "not ASCII"),
        (b"\xff\xfe", false, "not UTF-8"),
    ];
    for (offered, kept, reason) in cases {
        let answer = Answer::to(server.request("GET", "/health").header("x-request-id", offered)).await;

        let given = answer.header("x-request-id");
        assert_eq!(answer.status, 200, "{reason}");
        assert_eq!(given.as_bytes() == offered, kept, "{reason}: {given}");
        assert!(!given.is_empty(), "{reason}");
    }
}

// ---- Limits ----

#[tokio::test]
async fn beyond_the_limit_of_requests_in_flight_the_answer_is_503_but_probes_get_through() {
    let server = Server::start_with(&["--max-in-flight", "1"]).await;

    let (slow, ()) = tokio::join!(server.get("/api/slow"), async {
        server.in_progress("/api/slow", 1).await;

        let refused = server.get("/api/slow").await;
        let write = server.send("POST", "/api/users?name=John&email=john@example.com").await;
        let probes = [server.get("/health").await, server.get("/ready").await, server.get("/metrics").await];

        for answer in [refused, write] {
            assert_eq!(answer.status, 503);
            assert_eq!(answer.problem().error_type, "overloaded");
            let seconds: u32 = answer.header("retry-after").parse().expect("seconds to wait");
            assert!(seconds >= 1);
        }
        assert!(probes.iter().all(|answer| answer.status == 200), "{probes:?}");
    });

    assert_eq!(slow.status, 200, "the first is not disturbed");
    assert_eq!(server.get("/api/users").await.json(), json!({"users": [], "count": 0}), "there is room again");
}

#[tokio::test]
async fn a_request_past_its_deadline_answers_504() {
    let server = Server::start_with(&["--request-timeout", "1s"]).await;
    let started = Instant::now();

    let late = server.get("/api/slow").await;

    assert_eq!(late.status, 504);
    let problem = late.problem();
    assert_eq!(problem.error_type, "timeout");
    assert!(problem.detail.contains("1 s"), "{problem:?}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    let metrics = server.metrics().await;
    let measured = metrics.value("http_request_duration_seconds_sum", &slow_labels());
    assert!(measured < 2.0, "it was answered at its deadline and not when the handler would be done: {measured}");
    assert_eq!(server.get("/health").await.status, 200);
}

// ---- Pieces ----

fn slow_labels() -> [(&'static str, &'static str); 2] {
    [("method", "GET"), ("route", "/api/slow")]
}

/// A path that an operation answers with success, given that there is a user 1.
fn sample_path(operation: &&Operation) -> String {
    let path = operation.template.replace("{id}", "1").replace("{file}", "swagger-ui.css");
    match operation.template {
        "/update" => path + "?users=1",
        "/cpu" => path + "?value=1",
        _ => path,
    }
}

/// The ids of a listing, in its order.
fn ids(listing: &Value) -> Vec<i64> {
    listing["users"].as_array().unwrap().iter().map(|user| user["id"].as_i64().unwrap()).collect()
}

fn media_type(answer: &Answer) -> &str {
    answer.header("content-type").split(';').next().unwrap().trim()
}

/// The values of an attribute of all elements of a kind in a page.
fn attributes<'html>(html: &'html str, element: &str, attribute: &str) -> Vec<&'html str> {
    let (open, attribute) = (format!("<{element} "), format!("{attribute}=\""));
    let tags = html.split(&open).skip(1).filter_map(|rest| rest.split('>').next());
    tags.filter_map(|tag| tag.split_once(&attribute)?.1.split('"').next()).collect()
}

#[tokio::test]
async fn the_seed_repeats_the_delays_of_the_slow_endpoint() {
    let delays = async |seed: &str| {
        let server = Server::start_with(&["--seed", seed, "--database-url", "sqlite::memory:"]).await;
        server.get("/api/slow").await.json()["delay_seconds"].as_f64().unwrap()
    };

    let (first, again, other) = tokio::join!(delays("7"), delays("7"), delays("8"));

    assert_eq!(first, again);
    assert_ne!(first, other);
}
