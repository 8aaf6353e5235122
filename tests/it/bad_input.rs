//! Bad input: a clear error that names it, and nothing changed.

use std::collections::HashSet;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::{StreamExt, stream};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::{Body, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Answer, Problem, Server, client, encode};

/// The largest body that is read.
const BODY_MAX_BYTES: usize = 64 * 1024;

/// Longest `detail`, in characters: it repeats what the client sent, but not at any length.
const DETAIL_MAX_CHARS: usize = 1_000;

/// The first user of every server here, so that there is something to damage.
const JOHN: &str = "/api/users/1";

/// A server whose users must stay as they are, whatever is sent to it.
struct Guarded {
    server: Server,
    before: (Value, [f64; 3]),
}

impl Guarded {
    async fn start() -> Self {
        let server = Server::start().await;
        assert_eq!(server.create("John").await, 1);
        let before = state(&server).await;
        Self { server, before }
    }

    /// Sends a bad request and sees that it is refused in this way.
    async fn refuses(&self, request: RequestBuilder, expected: (u16, &str), reason: &str) -> Problem {
        judged(&Answer::to(request).await, expected, reason)
    }

    /// Sees that everything sent so far changed nothing.
    async fn is_unchanged(&self) {
        assert_eq!(state(&self.server).await, self.before);
    }
}

/// The listing, and what the metrics say of the users.
async fn state(server: &Server) -> (Value, [f64; 3]) {
    let (listing, metrics) = (server.get("/api/users").await.json(), server.metrics().await);
    let figures = ["api_users", "api_users_registered_total", "api_users_deleted_total"];
    (listing, figures.map(|name| metrics.value(name, &[])))
}

/// The problem of an answer that must have this status and this kind of error.
fn judged(answer: &Answer, (status, error_type): (u16, &str), reason: &str) -> Problem {
    assert_eq!(answer.status, status, "{reason}: {}", String::from_utf8_lossy(&answer.body));
    let problem = answer.problem();
    assert_eq!(problem.error_type, error_type, "{reason}");
    let length = problem.detail.chars().count();
    assert!(length <= DETAIL_MAX_CHARS, "{reason}: a detail of {length} characters");
    problem
}

// ---- Ids ----

#[tokio::test]
async fn an_id_that_is_no_positive_integer_answers_422_and_is_named() {
    let guarded = Guarded::start().await;
    let endless = "9".repeat(8 * 1024);
    let endless_shown = format!("{}…", "9".repeat(80));
    let cases = [
        ("0", "0", "zero"),
        ("-1", "-1", "negative"),
        ("abc", "abc", "no number"),
        ("1e3", "1e3", "a float's notation"),
        ("9223372036854775808", "9223372036854775808", "2^63"),
        ("18446744073709551616", "18446744073709551616", "2^64"),
        ("+1", "+1", "signed: in a path, `+` is no blank"),
        ("1.0", "1.0", "a float"),
        ("0x1", "0x1", "hexadecimal"),
        ("1%20", "1 ", "a blank after it"),
        ("%31%00", "1\\0", "NUL after it"),
        ("%D9%A1", "١", "a digit outside ASCII"),
        ("1,2", "1,2", "two ids"),
        ("1;DROP", "1;DROP", "SQL"),
        ("%zz", "%zz", "broken percent-encoding"),
        ("%", "%", "percent-encoding that ends early"),
        ("%ff", "%ff", "broken UTF-8"),
        (endless.as_str(), endless_shown.as_str(), "8 KiB of digits, of which only the first are repeated"),
    ];
    for (id, shown, reason) in cases {
        for (method, query) in [("GET", ""), ("PUT", "?name=Jane"), ("DELETE", "")] {
            let request = guarded.server.request(method, &format!("/api/users/{id}{query}"));

            let problem = guarded.refuses(request, (422, "validation"), &format!("{method}: {reason}")).await;

            assert_eq!(problem.fields, ["id"], "{method}: {reason}");
            assert!(problem.detail.contains(&format!("\"{shown}\"")), "{method}: {reason}: {problem:?}");
        }
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn an_id_that_nobody_has_answers_404_and_is_named() {
    let guarded = Guarded::start().await;
    for (id, reason) in [("2", "not given out yet"), ("9223372036854775807", "the largest id, 2^63 - 1")] {
        for (method, query) in [("GET", ""), ("PUT", "?name=Jane"), ("DELETE", "")] {
            let request = guarded.server.request(method, &format!("/api/users/{id}{query}"));

            let problem = guarded.refuses(request, (404, "not_found"), &format!("{method}: {reason}")).await;

            assert!(problem.detail.ends_with(&format!(" {id}")), "{method}: {reason}: {problem:?}");
        }
    }
    guarded.is_unchanged().await;
}

// ---- Names and addresses ----

#[tokio::test]
async fn a_name_or_address_that_breaks_its_rules_answers_422_and_is_named() {
    let guarded = Guarded::start().await;
    let (long, emoji) = ("a".repeat(201), "🦀".repeat(201));
    let long_address = format!("{}@{}.{}.{}.com", "a".repeat(64), "d".repeat(63), "d".repeat(63), "d".repeat(58));
    assert_eq!(long_address.len(), 255);
    let cases = [
        ("name", "", "", "empty"),
        ("name", "   ", "   ", "blank"),
        ("name", "\u{3000}\u{a0}", r"\u{3000}\u{a0}", "blank in other scripts"),
        ("name", long.as_str(), &long[..80], "201 characters"),
        ("name", emoji.as_str(), "🦀", "201 characters outside the basic plane"),
        ("name", "Jo\0hn", "Jo\\0hn", "NUL"),
        ("name", "John\n", "John\\n", "a newline, even at its end"),
        ("name", "Jo\rhn", "Jo\\rhn", "a carriage return"),
        ("name", "Jo\u{85}hn", "Jo\\u{85}hn", "a control character outside ASCII"),
        ("name", "\u{1b}[31mJohn", "\\u{1b}[31mJohn", "an escape sequence, which a log must not repeat"),
        ("name", "\u{200B}", "\\u{200b}", "a zero-width space"),
        ("name", " \u{AD}\u{FEFF}", " \\u{ad}\\u{feff}", "nothing that can be seen"),
        ("name", "\u{3164}", "", "a letter that is drawn as nothing"),
        ("name", "\u{2800}", "", "Braille without dots"),
        ("name", "\u{FE0F}", "", "a variation selector alone"),
        ("name", "John\u{202E}nhoJ", "John\\u{202e}nhoJ", "an override of the direction"),
        ("name", "\u{2067}John\u{2069}", "\\u{2067}John", "an isolate"),
        ("name", "John\u{2028}Doe", "John\\u{2028}Doe", "a line break that is no control character"),
        ("email", "", "", "empty"),
        ("email", "john", "john", "no @"),
        ("email", "john@", "john@", "no domain"),
        ("email", "@example.com", "@example.com", "no local part"),
        ("email", "john@@example.com", "john@@example.com", "two @"),
        ("email", "john doe@example.com", "john doe@example.com", "a blank"),
        ("email", " john@example.com", " john@example.com", "a blank before it: addresses are not trimmed"),
        ("email", "john@example..com", "john@example..com", "an empty label"),
        ("email", "John <john@example.com>", "John <john@example.com>", "a display name"),
        ("email", "john@example.com\n", "john@example.com\\n", "a newline"),
        ("email", "jo\0hn@example.com", "jo\\0hn@example.com", "NUL"),
        ("email", long_address.as_str(), &long_address[..80], "255 characters"),
        ("email", "john@ex?ample.com", "john@ex?ample.com", "a question mark in the domain"),
        ("email", "john@example.com/x", "john@example.com/x", "a slash in the domain"),
        ("email", "john@example.com#x", "john@example.com#x", "a number sign in the domain"),
        ("email", "john@ex`ample.com", "john@ex`ample.com", "a backtick in the domain"),
        ("email", "john@ex|ample.com", "john@ex|ample.com", "a pipe in the domain"),
        ("email", "jo\u{200B}hn@example.com", "jo\\u{200b}hn@example.com", "what cannot be seen"),
        ("email", "john@exam\u{202E}ple.com", "john@exam\\u{202e}ple.com", "an override of the direction"),
    ];
    for (field, value, shown, reason) in cases {
        let other = if field == "name" { ("email", "jane@example.com") } else { ("name", "Jane") };
        for (method, path) in [("POST", "/api/users"), ("PUT", JOHN)] {
            let query = format!("{path}?{field}={}&{}={}", encode(value), other.0, encode(other.1));
            let in_query = guarded.server.request(method, &query);
            let in_body = guarded.server.request(method, path).json(&json!({field: value, other.0: other.1}));
            for (request, place) in [(in_query, "query"), (in_body, "body")] {
                let reason = format!("{method}, {field} in the {place}: {reason}");

                let problem = guarded.refuses(request, (422, "validation"), &reason).await;

                assert_eq!(problem.fields, [field], "{reason}");
                assert!(problem.detail.contains(&format!("\"{shown}")), "{reason}: {problem:?}");
            }
        }
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn a_missing_field_answers_422_and_is_named() {
    let guarded = Guarded::start().await;
    let cases = [
        ("POST", "/api/users", None, &["name", "email"][..], "nothing at all"),
        ("POST", "/api/users?name=Jane", None, &["email"], "no address"),
        ("POST", "/api/users?email=jane@example.com", None, &["name"], "no name"),
        ("POST", "/api/users", Some(json!({})), &["name", "email"], "an empty object"),
        ("POST", "/api/users", Some(json!({"name": "Jane"})), &["email"], "no address in the body"),
        ("GET", "/update", None, &["users"], "a gauge without its value"),
        ("GET", "/cpu", None, &["value"], "a gauge without its value"),
    ];
    for (method, path, body, fields, reason) in cases {
        let mut request = guarded.server.request(method, path);
        if let Some(body) = body {
            request = request.json(&body);
        }

        let problem = guarded.refuses(request, (422, "validation"), reason).await;

        assert_eq!(problem.fields, fields, "{reason}");
        assert!(fields.iter().all(|field| problem.detail.contains(field)), "{reason}: {problem:?}");
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn a_change_that_names_no_field_answers_422() {
    let guarded = Guarded::start().await;
    let nothing = guarded.server.request("PUT", JOHN);
    let empty = guarded.server.request("PUT", JOHN).json(&json!({}));
    let to_nobody = guarded.server.request("PUT", "/api/users/2");
    for (request, reason) in [(nothing, "no query and no body"), (empty, "an empty object"), (to_nobody, "no user")] {
        let problem = guarded.refuses(request, (422, "validation"), reason).await;

        assert!(["name", "email"].iter().all(|field| problem.detail.contains(field)), "{reason}: {problem:?}");
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn every_fault_of_a_request_is_listed_at_once() {
    let guarded = Guarded::start().await;
    let request = guarded.server.request("POST", "/api/users?name=&email=john");

    let problem = guarded.refuses(request, (422, "validation"), "two faults").await;

    assert_eq!(problem.fields, ["name", "email"]);
    guarded.is_unchanged().await;
}

// ---- Fields that are given twice, or are not known ----

#[tokio::test]
async fn a_field_that_is_given_twice_answers_422_and_is_named() {
    let guarded = Guarded::start().await;
    let cases = [
        ("?name=Jane", r#"{"name": "Joan"}"#, &["name"][..], "in the query and in the body"),
        ("?name=Jane", r#"{"name": "Jane"}"#, &["name"], "the same value in both places"),
        ("?name=Jane", r#"{"name": 7}"#, &["name"], "in both places, and ill-typed in one"),
        ("?name=Jane&email=j@a.de", r#"{"name": "Joan", "email": "j@b.de"}"#, &["name", "email"], "both in both"),
        ("?name=Jane&name=Joan&email=j@a.de", "", &["name"], "twice in the query"),
        ("?name=Jane&name=Jane&email=j@a.de", "", &["name"], "twice the same in the query"),
        ("?name=Jane&n%61me=Joan&email=j@a.de", "", &["name"], "twice in the query, once in disguise"),
        ("", r#"{"name": "Jane", "name": "Joan", "email": "j@a.de"}"#, &["name"], "twice in the body"),
        ("", r#"{"name": "Jane", "n\u0061me": "Joan", "email": "j@a.de"}"#, &["name"], "in disguise in the body"),
    ];
    for (query, body, fields, reason) in cases {
        for (method, path) in [("POST", "/api/users"), ("PUT", JOHN)] {
            let request = with_json(guarded.server.request(method, &format!("{path}{query}")), body);

            let problem = guarded.refuses(request, (422, "validation"), &format!("{method}: {reason}")).await;

            // A POST may complain of the other field too, which is then missing.
            assert!(fields.iter().all(|field| problem.fields.iter().any(|named| named == field)), "{reason}");
            assert_eq!(problem.fields.iter().filter(|named| *named == fields[0]).count(), 1, "{reason}: once");
        }
    }
    for (path, fields, reason) in [
        ("/api/users?limit=1&limit=2", ["limit"], "a page of two sizes"),
        ("/api/users?after=1&after=1", ["after"], "twice the same"),
        ("/update?users=1&users=2", ["users"], "a gauge with two values"),
        ("/cpu?value=1&value=2", ["value"], "a gauge with two values"),
    ] {
        let problem = guarded.refuses(guarded.server.request("GET", path), (422, "validation"), reason).await;

        assert_eq!(problem.fields, fields, "{reason}");
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn a_field_that_is_not_known_answers_422_and_is_named() {
    let guarded = Guarded::start().await;
    let user = "name=Jane&email=jane@example.com";
    let cases = [
        ("POST", format!("/api/users?{user}&admin=true"), "", "admin", "one more in the query"),
        ("POST", format!("/api/users?{user}&Name=Joan"), "", "Name", "names of fields are case-sensitive"),
        ("POST", format!("/api/users?{user}&="), "", "", "a field without a name"),
        ("POST", format!("/api/users?{user}"), r#"{"admin": true}"#, "admin", "one more in the body"),
        ("POST", format!("/api/users?{user}"), r#"{"id": 7}"#, "id", "the id is not the client's to give"),
        ("POST", format!("/api/users?{user}"), r#"{"nmae": null}"#, "nmae", "a typo"),
        ("PUT", format!("{JOHN}?{user}&admin=true"), "", "admin", "one more in the query"),
        ("PUT", format!("{JOHN}?{user}"), r#"{"id": 7}"#, "id", "an id does not change"),
        ("GET", "/api/users?offset=1".to_owned(), "", "offset", "another way to page"),
        ("GET", "/api/users?name=John".to_owned(), "", "name", "there is no search"),
        ("GET", "/update?users=1&value=1".to_owned(), "", "value", "the other gauge's"),
        ("GET", "/cpu?users=1&value=1".to_owned(), "", "users", "the other gauge's"),
    ];
    for (method, path, body, field, reason) in cases {
        let request = with_json(guarded.server.request(method, &path), body);

        let problem = guarded.refuses(request, (422, "validation"), reason).await;

        assert_eq!(problem.fields, [field], "{reason}");
        assert!(problem.detail.contains(field), "{reason}: {problem:?}");
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn however_many_faults_a_request_has_its_detail_stays_short() {
    let guarded = Guarded::start().await;
    // As many as a head of 16 KiB holds.
    let faults = 2_000;
    let query = (0..faults).map(|number| format!("f{number}&")).collect::<String>();
    let object: Value =
        (0..faults).map(|number| (format!("f{number}"), json!(0))).collect::<serde_json::Map<_, _>>().into();
    let in_query = guarded.server.request("POST", &format!("/api/users?{query}"));
    let in_body = guarded.server.request("POST", "/api/users").json(&object);
    for (request, place) in [(in_query, "query"), (in_body, "body")] {
        let problem = guarded.refuses(request, (422, "validation"), place).await;

        assert!(problem.detail.contains("f0"), "the first of them is named: {problem:?}");
    }
    guarded.is_unchanged().await;
}

// ---- Query strings ----

#[tokio::test]
async fn a_query_that_is_no_percent_encoded_utf8_answers_400_and_is_shown() {
    let guarded = Guarded::start().await;
    let cases = [
        ("name=%", "%", "a percent sign alone"),
        ("name=%4", "%4", "half an octet"),
        ("name=%zz", "%zz", "no hexadecimal digits"),
        ("name=%%41", "%%41", "a percent sign that is not encoded itself"),
        ("name=%ff", "%ff", "an octet that never stands in UTF-8"),
        ("name=%C3", "%C3", "UTF-8 that ends early"),
        ("name=%C0%80", "%C0%80", "an overlong NUL"),
        ("name=%ED%A0%80", "%ED%A0%80", "a surrogate"),
        ("n%ffme=Jane", "n%ffme", "broken in the field's name"),
    ];
    for (query, shown, reason) in cases {
        let requests =
            [("POST", "/api/users"), ("PUT", JOHN), ("GET", "/api/users"), ("GET", "/update"), ("GET", "/cpu")];
        for (method, path) in requests {
            let reason = format!("{method} {path}: {reason}");
            let request = guarded.server.request(method, &format!("{path}?{query}"));

            let problem = guarded.refuses(request, (400, "malformed_query"), &reason).await;

            assert!(problem.detail.contains(&format!("\"{shown}\"")), "{reason}: {problem:?}");
        }
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn a_number_out_of_its_range_answers_422_and_is_named() {
    let guarded = Guarded::start().await;
    let cases = [
        ("/api/users", "limit", "0", "an empty page"),
        ("/api/users", "limit", "1001", "one more than the largest page"),
        ("/api/users", "limit", "-1", "negative"),
        ("/api/users", "limit", "ten", "no number"),
        ("/api/users", "limit", "1.5", "no integer"),
        ("/api/users", "limit", "", "empty"),
        ("/api/users", "limit", "4294967297", "2^32 + 1, which must not wrap around to 1"),
        ("/api/users", "after", "-1", "negative"),
        ("/api/users", "after", "x", "no number"),
        ("/api/users", "after", "9223372036854775808", "2^63"),
        ("/update", "users", "-1", "negative"),
        ("/update", "users", "1.5", "no integer"),
        ("/update", "users", "9223372036854775808", "2^63"),
        ("/update", "users", "", "empty"),
        ("/cpu", "value", "-0.1", "below the range"),
        ("/cpu", "value", "100.1", "above the range"),
        ("/cpu", "value", "NaN", "not a number"),
        ("/cpu", "value", "inf", "infinite"),
        ("/cpu", "value", "", "empty"),
        ("/cpu", "value", "12,5", "a decimal comma"),
    ];
    for (path, field, value, reason) in cases {
        let reason = format!("{path}: {reason}");
        let request = guarded.server.request("GET", &format!("{path}?{field}={value}"));

        let problem = guarded.refuses(request, (422, "validation"), &reason).await;

        assert_eq!(problem.fields, [field], "{reason}");
        assert!(problem.detail.ends_with(&format!("got \"{value}\"")), "{reason}: {problem:?}");
    }
    let metrics = guarded.server.metrics().await;
    assert_eq!((metrics.value("app_active_users", &[]), metrics.value("app_cpu_usage_percent", &[])), (0.0, 0.0));
    guarded.is_unchanged().await;
}

// ---- Bodies ----

#[tokio::test]
async fn a_body_that_is_no_json_answers_400() {
    let guarded = Guarded::start().await;
    let arrays = format!(r#"{{"name": {}1{}, "email": "j@a.de"}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let objects = format!(r#"{{"name": {}1{}, "email": "j@a.de"}}"#, r#"{"a":"#.repeat(10_000), "}".repeat(10_000));
    let unknown =
        format!(r#"{{"a": {}1{}, "name": "Jane", "email": "j@a.de"}}"#, "[".repeat(10_000), "]".repeat(10_000));
    let cases: [(&[u8], &str); 15] = [
        (b"{", "it ends early"),
        (b"Jane", "a bare word"),
        (br#"{"name": "Jane",}"#, "a trailing comma"),
        (br#"{'name': 'Jane'}"#, "single quotes"),
        (br#"{"name": "Jane"} {"name": "Joan"}"#, "two documents"),
        (br#"{"name": NaN}"#, "no JSON number"),
        (b"name=Jane&email=jane@example.com", "a form"),
        (b"\xef\xbb\xbf\xef\xbb\xbf{}", "a second byte order mark"),
        (b"\xfe\xff\0{\0}", "UTF-16"),
        (b"{\"name\": \"J\xffne\"}", "broken UTF-8"),
        (br#"{"name": "J\ud800ne"}"#, "half a surrogate pair"),
        (b"{\"name\": \"Jane\n\"}", "a newline within a string"),
        (arrays.as_bytes(), "arrays nested 10,000 deep"),
        (objects.as_bytes(), "objects nested 10,000 deep"),
        (unknown.as_bytes(), "a field nobody asked for, nested 10,000 deep"),
    ];
    for (body, reason) in cases {
        for (method, path) in [("POST", "/api/users"), ("PUT", JOHN)] {
            let request = guarded.server.request(method, path).header("content-type", "application/json");

            let problem = guarded.refuses(request.body(body.to_vec()), (400, "malformed_json"), reason).await;

            assert!(problem.detail.contains("line "), "the place is named: {reason}: {problem:?}");
        }
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn json_of_the_wrong_shape_answers_422_and_names_what_is_wrong() {
    let guarded = Guarded::start().await;
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let deep = format!(r#"{{"name": {deep}, "email": "j@a.de"}}"#);
    let cases = [
        ("[]", "body", "an array"),
        (r#"[{"name": "Jane", "email": "j@a.de"}]"#, "body", "an array of users"),
        ("null", "body", "null"),
        ("7", "body", "a number"),
        (r#""Jane""#, "body", "a string"),
        (r#"{"name": 7, "email": "j@a.de"}"#, "name", "a name that is a number"),
        (r#"{"name": null, "email": "j@a.de"}"#, "name", "a name that is null"),
        (r#"{"name": ["Jane"], "email": "j@a.de"}"#, "name", "a name in an array"),
        (r#"{"name": "Jane", "email": {"work": "j@a.de"}}"#, "email", "an address in an object"),
        (r#"{"name": "Jane", "email": true}"#, "email", "an address that is true"),
        (deep.as_str(), "name", "nested as deep as is still read, and cut in the detail"),
    ];
    for (body, field, reason) in cases {
        for (method, path) in [("POST", "/api/users"), ("PUT", JOHN)] {
            let request = with_json(guarded.server.request(method, path), body);

            let problem = guarded.refuses(request, (422, "validation"), reason).await;

            assert!(problem.fields.iter().any(|named| named == field), "{method}: {reason}: {problem:?}");
        }
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_answers_415_and_shows_the_type() {
    let guarded = Guarded::start().await;
    let endless = format!("text/{}", "x".repeat(4096));
    let endless_shown = format!("\"text/{}…\"", "x".repeat(75));
    let cases = [
        (None, "missing", "no content type"),
        (Some("text/plain"), "\"text/plain\"", "plain text"),
        (Some("application/x-www-form-urlencoded"), "\"application/x-www-form-urlencoded\"", "a form"),
        (Some("application/jsonl"), "\"application/jsonl\"", "another type with the same beginning"),
        (Some("application/problem+json"), "\"application/problem+json\"", "JSON of another meaning"),
        (Some("application"), "\"application\"", "no media type at all"),
        (Some("*/*"), "\"*/*\"", "any type, which is for Accept"),
        (Some("application/json; charset=iso-8859-1"), "charset=iso-8859-1", "JSON is UTF-8 (RFC 8259, section 8.1)"),
        (Some("application/json; charset"), "charset", "a parameter without its value"),
        (Some(endless.as_str()), endless_shown.as_str(), "4 KiB, of which only the first are repeated"),
    ];
    for (content_type, shown, reason) in cases {
        for (method, path) in [("POST", "/api/users"), ("PUT", JOHN)] {
            let mut request = guarded.server.request(method, path).body(r#"{"name":"Jane","email":"j@a.de"}"#);
            if let Some(content_type) = content_type {
                request = request.header("content-type", content_type);
            }

            let answer = Answer::to(request).await;

            let problem = judged(&answer, (415, "unsupported_media_type"), reason);
            assert!(problem.detail.contains(shown), "{reason}: {problem:?}");
            assert_eq!(answer.header("accept"), "application/json", "{reason}");
            // Of codings, such an answer must say nothing (RFC 9110, section 12.5.3).
            assert_eq!(answer.header("accept-encoding"), "", "{reason}");
        }
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn two_content_types_answer_415() {
    let guarded = Guarded::start().await;
    for types in [["application/json", "text/plain"], ["text/plain", "application/json"]] {
        let mut request = guarded.server.request("POST", "/api/users").body(r#"{"name":"Jane","email":"j@a.de"}"#);
        for content_type in types {
            request = request.header("content-type", content_type);
        }

        let problem = guarded.refuses(request, (415, "unsupported_media_type"), "whichever is first").await;

        assert!(problem.detail.contains(&types.join(", ")), "{problem:?}");
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn an_encoded_body_answers_415_and_says_that_none_is_taken() {
    let guarded = Guarded::start().await;
    let plain = br#"{"name":"Jane","email":"jane@example.com"}"#.to_vec();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(&plain).unwrap();
    let packed = encoder.finish().unwrap();
    let cases = [
        ("gzip", &packed, "a compressed body"),
        ("gzip", &plain, "a body that says so and is not"),
        ("X-GZIP", &packed, "the same by its old name"),
        ("identity, br", &plain, "one of two"),
        ("made-up", &plain, "no coding that anybody knows"),
    ];
    for (encoding, body, reason) in cases {
        for (method, path) in [("POST", "/api/users"), ("PUT", JOHN)] {
            let request = guarded.server.request(method, path).header("content-type", "application/json");

            let answer = Answer::to(request.header("content-encoding", encoding).body(body.clone())).await;

            let problem = judged(&answer, (415, "unsupported_encoding"), reason);
            assert_eq!(answer.header("accept-encoding"), "identity", "{reason}");
            assert!(problem.detail.contains(&format!("\"{encoding}\"")), "{reason}: {problem:?}");
        }
    }
    let head = "POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n";
    let packed_on_the_way = format!("{head}Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n");

    let answer = guarded.server.exchange(packed_on_the_way.as_bytes()).await;

    judged(&answer, (415, "unsupported_encoding"), "a coding of the transfer");
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn a_body_of_64_kib_is_read_and_one_byte_more_answers_413() {
    let guarded = Guarded::start().await;
    let user = r#"{"name":"Jane","email":"jane@example.com"}"#;
    let padded = |length: usize| user.to_owned() + &" ".repeat(length - user.len());
    let named = |length: usize| {
        let rest = r#"{"name":"","email":"jane@example.com"}"#.len();
        format!(r#"{{"name":"{}","email":"jane@example.com"}}"#, "a".repeat(length - rest))
    };
    let cases = [
        (named(BODY_MAX_BYTES), (422, "validation"), "64 KiB are read, and the name in them is too long"),
        (named(BODY_MAX_BYTES + 1), (413, "body_too_large"), "one byte more"),
        (padded(BODY_MAX_BYTES + 1), (413, "body_too_large"), "one blank more, after what would be a user"),
        (padded(1024 * 1024), (413, "body_too_large"), "1 MiB"),
    ];
    for (body, expected, reason) in cases {
        for (method, path) in [("POST", "/api/users"), ("PUT", JOHN)] {
            assert!(body.len() >= BODY_MAX_BYTES);
            // A client of its own: the server closes the connections of bodies that it does not read to the end.
            let request = || client().request(method.parse().unwrap(), guarded.server.url(path));
            let request = || request().header("content-type", "application/json");
            let pieces: Vec<_> =
                body.as_bytes().chunks(10_000).map(|piece| Ok::<_, std::io::Error>(piece.to_vec())).collect();
            let declared = request().body(body.clone());
            let chunked = request().body(Body::wrap_stream(stream::iter(pieces)));
            for (request, sent) in [(declared, "with its length declared"), (chunked, "in chunks")] {
                let reason = format!("{method}, {sent}: {reason}");
                guarded.refuses(request, expected, &reason).await;
            }
        }
    }
    guarded.is_unchanged().await;

    let largest = with_json(guarded.server.request("POST", "/api/users"), &padded(BODY_MAX_BYTES));
    let created = Answer::to(largest).await;

    assert_eq!(created.status, 201, "64 KiB that hold a user are taken: {}", created.text());
}

#[tokio::test]
async fn a_body_of_2_mb_answers_413() {
    const LENGTH: usize = 2_000_000;
    let guarded = Guarded::start().await;
    let body = " ".repeat(LENGTH);
    let cases = [
        (format!("Content-Length: {LENGTH}\r\n\r\n{body}"), "with its length declared"),
        (format!("Transfer-Encoding: chunked\r\n\r\n{LENGTH:x}\r\n{body}\r\n0\r\n\r\n"), "in one chunk"),
    ];
    for (rest, reason) in cases {
        let head = "POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n";

        let answer = guarded.server.exchange(format!("{head}{rest}").as_bytes()).await;

        judged(&answer, (413, "body_too_large"), reason);
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn a_client_that_writes_before_it_reads_sees_the_413_too() {
    let guarded = Guarded::start().await;
    // More than the buffers between the two can hold.
    let body = " ".repeat(7_000_000);
    // More than once: if the server just closed, it would be luck whether the answer or the reset comes first.
    for attempt in 1..=20 {
        // A client of its own, because this connection is not used again.
        let request = client().post(guarded.server.url("/api/users")).header("content-type", "application/json");
        let request = if attempt % 2 == 0 { request.body(body.clone()) } else { request.body(in_chunks(&body)) };

        let answer = request.send().await;

        let status = answer.map(|response| response.status().as_u16());
        assert_eq!(status.as_ref().ok(), Some(&413), "attempt {attempt}: {status:?}");
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn a_declared_length_beyond_all_limits_is_refused_before_the_body_comes() {
    let guarded = Guarded::start().await;
    for (length, reason) in [("104857600", "100 MiB"), ("9223372036854775808", "2^63")] {
        let head = format!(
            "POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
        );

        let answer = guarded.server.exchange(head.as_bytes()).await;

        judged(&answer, (413, "body_too_large"), reason);
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn a_body_that_cannot_be_read_answers_400() {
    let guarded = Guarded::start().await;
    for (chunk, reason) in [
        ("zz\r\n", "a chunk whose size is no number"),
        ("FFFFFFFFFFFFFFFFF\r\n", "a chunk whose size is beyond 64 bits"),
        ("2\r\n{}garbage", "a chunk without its end"),
    ] {
        let request = format!(
            "POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n{chunk}"
        );

        let answer = guarded.server.exchange(request.as_bytes()).await;

        judged(&answer, (400, "unreadable_body"), reason);
    }
    guarded.is_unchanged().await;
}

// ---- Methods, targets and requests that are no HTTP ----

#[tokio::test]
async fn made_up_methods_share_one_label_and_change_nothing() {
    let guarded = Guarded::start().await;
    let long = "X".repeat(500);
    let cases = [
        ("FOO", "made up"),
        ("get", "methods are case-sensitive"),
        ("PROPFIND", "registered, but not ours"),
        ("!#$%&'*+-.^_`|~", "every character that a method may have"),
        (long.as_str(), "500 characters"),
    ];
    let methods = cases.iter().flat_map(|case| [case, case]);
    let mut series = HashSet::new();
    for (method, reason) in methods {
        let known = guarded.refuses(guarded.server.request(method, JOHN), (405, "method_not_allowed"), reason).await;
        let unknown = guarded.refuses(guarded.server.request(method, "/nope"), (404, "unknown_path"), reason).await;
        series.insert(guarded.server.metrics().await.series().len());

        let shown = method.get(..80).unwrap_or(method);
        assert!(known.detail.contains(&format!("\"{}", shown.escape_debug())), "{reason}: {known:?}");
        assert!(unknown.detail.contains("\"/nope\""), "{reason}: {unknown:?}");
    }
    assert_eq!(series.len(), 1, "the first made the series of all: {series:?}");
    let metrics = guarded.server.metrics().await;
    let count = |route, status| {
        let labels = [("method", "OTHER"), ("route", route), ("status", status)];
        metrics.value("http_requests_total", &labels)
    };
    assert_eq!((count("/api/users/{id}", "405"), count("unmatched", "404")), (10.0, 10.0));
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn targets_that_are_no_path_answer_404_and_are_counted_as_unmatched() {
    let guarded = Guarded::start().await;
    let cases = [
        ("OPTIONS", "*", "a question about the server as a whole"),
        ("CONNECT", "example.com:443", "a proxy is asked for a tunnel"),
        ("GET", "health", "a path without its slash, which reads as a host"),
    ];
    for (method, target, reason) in cases {
        let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");

        let answer = guarded.server.exchange(request.as_bytes()).await;

        judged(&answer, (404, "unknown_path"), reason);
        let labels = [("method", method), ("route", "unmatched"), ("status", "404")];
        assert_eq!(guarded.server.metrics().await.value("http_requests_total", &labels), 1.0, "{reason}");
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn an_absolute_target_is_served_by_its_path() {
    let server = Server::start().await;

    let answer =
        server.exchange(b"GET http://elsewhere.example/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;

    assert_eq!(answer.status, 200, "as RFC 9112, section 3.2.2, asks of every server");
    assert_eq!(answer.json(), json!({"status": "ready"}));
}

#[tokio::test]
async fn a_path_of_8_kib_answers_like_a_short_one_and_is_shown_cut() {
    let guarded = Guarded::start().await;
    let long = "x".repeat(8 * 1024);
    let cases = [
        (format!("/{long}"), (404, "unknown_path"), "no route"),
        (format!("/{}", "x/".repeat(4 * 1024)), (404, "unknown_path"), "four thousand segments"),
        (format!("/{}", "%41".repeat(2731)), (404, "unknown_path"), "percent-encoded"),
        (format!("/docs/{long}"), (404, "unknown_path"), "a file"),
        (format!("/api/users/{long}"), (422, "validation"), "an id"),
        (format!("/api/users?{long}=1"), (422, "validation"), "a query parameter's name"),
        (format!("/api/users?limit={long}"), (422, "validation"), "a query parameter's value"),
    ];
    for (path, expected, reason) in cases {
        assert!(path.len() >= 8 * 1024);

        let problem = guarded.refuses(guarded.server.request("GET", &path), expected, reason).await;

        let shown =
            problem.detail.contains(&long[..20]) || problem.detail.contains("x/x/") || problem.detail.contains("%41");
        assert!(shown && problem.detail.chars().count() < 300, "{reason}: {problem:?}");
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn a_thousand_random_paths_make_no_new_series() {
    let guarded = Guarded::start().await;
    let mut rng = StdRng::seed_from_u64(3);
    let mut segment =
        || (0..rng.random_range(4..20)).map(|_| format!("%{:02X}", rng.random::<u8>())).collect::<String>();
    let shapes: [fn(&str, &str) -> String; 4] = [
        |a, _| format!("/{a}"),
        |a, b| format!("/{a}/{b}"),
        |a, _| format!("/api/users/{a}"),
        |a, _| format!("/docs/{a}"),
    ];
    let paths: Vec<String> = (0..1_000).map(|index| shapes[index % 4](&segment(), &segment())).collect();
    assert_eq!(paths.iter().collect::<HashSet<_>>().len(), 1_000);
    assert_eq!(guarded.server.get(&paths[0]).await.status, 404);
    let before = guarded.server.metrics().await;

    let answers: Vec<Answer> =
        stream::iter(&paths[1..]).map(|path| guarded.server.get(path)).buffer_unordered(32).collect().await;

    assert!(answers.iter().all(|answer| [404, 422].contains(&answer.status.as_u16())));
    let after = guarded.server.metrics().await;
    assert_eq!(after.series(), before.series());
    assert_eq!(
        after.sum("http_requests_total", &[]) - before.sum("http_requests_total", &[]),
        999.0,
        "all are counted"
    );
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_the_server_lives_on() {
    let guarded = Guarded::start().await;
    let cases: [(Vec<u8>, u16, &str); 13] = [
        (b"rubbish\r\n\r\n".into(), 400, "no request line"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".into(), 400, "a TLS handshake"),
        (b"GET  /health HTTP/1.1\r\n\r\n".into(), 400, "two blanks"),
        (b"GET /health HTTP/3.0\r\n\r\n".into(), 400, "another version"),
        (b"G\xc3T /health HTTP/1.1\r\n\r\n".into(), 400, "a method outside ASCII"),
        (b"GET /api/users/\xff HTTP/1.1\r\n\r\n".into(), 400, "broken UTF-8 in the path, not encoded"),
        (b"GET /api/users?limit=\xff HTTP/1.1\r\n\r\n".into(), 400, "broken UTF-8 in the query, not encoded"),
        (b"GET /health HTTP/1.1\r\n: x\r\n\r\n".into(), 400, "a header without a name"),
        (b"GET /health HTTP/1.1\r\nA: \0\r\n\r\n".into(), 400, "NUL in a header"),
        (b"POST /api/users HTTP/1.1\r\nContent-Length: x\r\n\r\n".into(), 400, "a length that is no number"),
        (b"POST /api/users HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n".into(), 400, "two lengths"),
        (format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000)).into(), 431, "a target of 70,000 characters"),
        (format!("GET /health HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(200)).into(), 431, "two hundred headers"),
    ];
    for (request, status, reason) in cases {
        let answer = guarded.server.exchange(&request).await;

        assert_eq!(answer.status, status, "{reason}");
        assert_eq!(guarded.server.get("/health").await.status, 200, "{reason}");
    }
    guarded.is_unchanged().await;
}

#[tokio::test]
async fn text_outside_ascii_may_stand_in_a_target_as_it_is() {
    let guarded = Guarded::start().await;

    let path = "GET /api/users/é HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let query = "PUT /api/users/1?name=Zoë HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let (path, query) =
        (guarded.server.exchange(path.as_bytes()).await, guarded.server.exchange(query.as_bytes()).await);

    let problem = judged(&path, (422, "validation"), "an id");
    assert!(problem.detail.contains("\"é\""), "{problem:?}");
    assert_eq!((query.status.as_u16(), &query.json()["name"]), (200, &json!("Zoë")), "curl sends it so");
}

fn with_json(request: RequestBuilder, body: &str) -> RequestBuilder {
    if body.is_empty() {
        return request;
    }
    request.header("content-type", "application/json").body(body.to_owned())
}

/// A body that is sent with chunked transfer encoding.
fn in_chunks(text: &str) -> Body {
    let chunks = text.as_bytes().chunks(10_000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec()));
    Body::wrap_stream(stream::iter(chunks.collect::<Vec<_>>()))
}
