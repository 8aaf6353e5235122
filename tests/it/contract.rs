//! One table behind routing, metrics and OpenAPI: they agree, and so do the live answers.

use std::collections::{BTreeMap, BTreeSet};

use api_monitoring::api::problem::ErrorKind;
use api_monitoring::api::surface::{OPERATIONS, Operation};
use futures_util::future::join_all;
use jsonschema::Validator;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::support::{Answer, Server, binary, encode};

/// The status of a request whose client went away, on every route, beside the documented ones.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The scrape, which is not counted.
const SCRAPE: &str = "/metrics";

// ---- The table, the description, the routes ----

#[tokio::test]
async fn the_description_holds_the_operations_of_the_table_and_no_others() {
    let description = Description::of(&Server::start().await).await;

    let in_table: BTreeSet<_> = OPERATIONS.iter().map(|operation| (operation.template, lower(operation))).collect();
    let documented: BTreeSet<_> = description.operations().collect();

    assert_eq!(in_table.len(), OPERATIONS.len(), "no operation stands twice in the table");
    let documented: BTreeSet<_> = documented.iter().map(|(path, method)| (*path, (*method).to_owned())).collect();
    assert_eq!(documented, in_table);
    let mut ids = BTreeSet::new();
    for operation in OPERATIONS {
        let id = &description.operation(operation)["operationId"];
        assert_eq!(id, operation.id);
        assert!(ids.insert(operation.id), "{id} stands twice");
    }
}

#[tokio::test]
async fn the_description_holds_the_statuses_of_the_table_and_no_others() {
    let description = Description::of(&Server::start().await).await;
    for operation in OPERATIONS {
        let responses = description.operation(operation)["responses"].as_object().unwrap();

        let documented: BTreeSet<u16> = responses.keys().map(|status| status.parse().unwrap()).collect();

        assert_eq!(documented, operation.statuses().into_iter().collect(), "{}", name(operation));
    }
}

#[tokio::test]
async fn the_command_prints_what_the_server_serves() {
    let folder = tempfile::tempdir().unwrap();
    let served = Server::start().await.get("/openapi.json").await;

    let printed = binary(folder.path()).arg("openapi").output().unwrap();

    assert!(printed.status.success(), "{printed:?}");
    assert_eq!(String::from_utf8(printed.stdout).unwrap(), served.text());
    assert_eq!(printed.stderr, b"");
    assert!(served.json()["openapi"].as_str().unwrap().starts_with("3.1"), "{}", served.json()["openapi"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "describing creates no database");
}

#[tokio::test]
async fn every_operation_is_served_as_described_and_leaves_its_metrics() {
    let server = Server::start().await;
    let description = Description::of(&server).await;
    server.create("John").await;
    let before = server.metrics().await;

    // One after the other: the table reads and changes the user before it deletes it.
    let mut answers = Vec::new();
    for operation in OPERATIONS {
        answers.push(Answer::to(description.sample(&server, operation)).await);
    }

    let after = server.metrics().await;
    for (operation, answer) in OPERATIONS.iter().zip(answers) {
        let status = operation.success.as_str();
        assert_eq!(answer.status.as_str(), status, "{}: {}", name(operation), answer.text());
        description.judge(operation, &answer);
        if operation.template != SCRAPE {
            let (method, route) = (("method", operation.method.as_str()), ("route", operation.template));
            let labels = [method, route, ("status", status)];
            let grown = |name, labels: &[_]| after.value(name, labels) - before.value(name, labels);
            assert_eq!(grown("http_requests_total", &labels), 1.0, "{}", name(operation));
            assert_eq!(grown("http_request_duration_seconds_count", &[method, route]), 1.0, "{}", name(operation));
            assert_eq!(after.value("http_requests_in_progress", &[method, route]), 0.0, "{}", name(operation));
        }
    }
}

#[tokio::test]
async fn a_method_that_the_description_does_not_have_is_not_served() {
    let server = Server::start().await;
    let description = Description::of(&server).await;
    let documented: BTreeSet<_> = description.operations().collect();
    for template in OPERATIONS.iter().map(|operation| operation.template).collect::<BTreeSet<_>>() {
        let path = template.replace("{id}", "1").replace("{file}", "swagger-ui.css");
        for method in ["get", "head", "post", "put", "delete", "patch", "options", "trace"] {
            let described = documented.contains(&(template, if method == "head" { "get" } else { method }));
            if !described {
                let answer = server.send(&method.to_uppercase(), &path).await;

                assert_eq!(answer.status, 405, "{method} {path}");
                description.validate(&json!({"$ref": "#/components/schemas/Problem"}), &answer.json(), "405");
            }
        }
    }
}

#[tokio::test]
async fn users_at_the_edge_of_their_rules_fit_the_documented_schema() {
    let server = Server::start().await;
    let description = Description::of(&server).await;
    let (name, address) = ("🦀".repeat(200), format!("{}@{}.{}.com", "a".repeat(64), "d".repeat(63), "d".repeat(63)));
    let cases = [
        (name.as_str(), "john@example.com", "the longest name, counted in characters"),
        ("J", address.as_str(), "a long address"),
        ("Jörg", "jörg@exämple.de", "an internationalised address"),
        ("O'Brien", "\"john doe\"@example.com", "a quoted local part"),
    ];
    for (name, email, reason) in cases {
        let created =
            Answer::to(server.request("POST", "/api/users").json(&json!({"name": name, "email": email}))).await;

        assert_eq!(created.status, 201, "{reason}: {}", created.text());
        description.validate(&json!({"$ref": "#/components/schemas/User"}), &created.json(), reason);
    }
    let listings = [server.get("/api/users").await, server.get("/api/users?limit=1").await];
    for listing in listings {
        description.validate(&json!({"$ref": "#/components/schemas/UserList"}), &listing.json(), "a listing");
    }
}

// ---- The metrics before the first request ----

#[tokio::test]
async fn before_any_traffic_every_known_series_exists_at_0() {
    let metrics = Server::start().await.metrics().await;
    for operation in OPERATIONS.iter().filter(|operation| operation.template != SCRAPE) {
        let (method, route) = (("method", operation.method.as_str()), ("route", operation.template));
        for status in operation.statuses().into_iter().chain([CLIENT_CLOSED_REQUEST]) {
            let status = status.to_string();
            assert_eq!(metrics.value("http_requests_total", &[method, route, ("status", &status)]), 0.0);
            if operation.serves(&Method::HEAD) {
                let head = [("method", "HEAD"), route, ("status", &status)];
                assert_eq!(metrics.value("http_requests_total", &head), 0.0, "a probe's first failure must show");
            }
        }
        assert_eq!(metrics.value("http_request_duration_seconds_count", &[method, route]), 0.0);
        assert_eq!(metrics.value("http_request_duration_seconds_sum", &[method, route]), 0.0);
        assert_eq!(metrics.value("http_requests_in_progress", &[method, route]), 0.0);
        for bucket in ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"] {
            let labels = [method, route, ("le", bucket)];
            assert_eq!(metrics.value("http_request_duration_seconds_bucket", &labels), 0.0);
        }
    }
    for kind in ErrorKind::ALL.iter().map(|kind| kind.error_type()).chain(["client_closed_request"]) {
        assert_eq!(metrics.value("api_errors_total", &[("error_type", kind)]), 0.0);
    }
    for figure in [
        "api_users",
        "api_users_registered_total",
        "api_users_deleted_total",
        "app_requests_total",
        "app_active_users",
        "app_cpu_usage_percent",
    ] {
        assert_eq!(metrics.value(figure, &[]), 0.0, "{figure}");
    }
}

// ---- Errors ----

#[tokio::test]
async fn every_documented_error_is_a_problem_with_an_example_of_each_kind() {
    let description = Description::of(&Server::start().await).await;
    for operation in OPERATIONS {
        let mut examples: BTreeMap<String, u16> = BTreeMap::new();
        for (status, response) in description.operation(operation)["responses"].as_object().unwrap() {
            let status: u16 = status.parse().unwrap();
            if status < 400 {
                continue;
            }
            let place = format!("{} {status}", name(operation));
            let content = response["content"].as_object().unwrap_or_else(|| panic!("{place} has no content"));
            assert_eq!(content.keys().collect::<Vec<_>>(), ["application/problem+json"], "{place}");
            let media = &content["application/problem+json"];
            assert_eq!(media["schema"]["$ref"], "#/components/schemas/Problem", "{place}");
            for (kind, example) in media["examples"].as_object().unwrap_or_else(|| panic!("{place} has no examples")) {
                let value = &example["value"];
                assert_eq!(value["type"], format!("/#{kind}"), "{place}");
                assert_eq!(value["status"], status, "{place}: {kind}");
                examples.insert(kind.clone(), status);
            }
            assert_eq!(response["headers"].get("Retry-After").is_some(), status == 503, "{place}");
        }

        let expected: BTreeMap<_, _> =
            operation.error_kinds().map(|kind| (kind.error_type().to_owned(), kind.status().as_u16())).collect();

        assert_eq!(examples, expected, "{}", name(operation));
    }
}

#[tokio::test]
async fn every_error_that_is_answered_is_documented_and_fits_the_schema() {
    let server = Server::start().await;
    let description = Description::of(&server).await;
    server.create("John").await;
    let json_type = ("content-type", "application/json");
    let (users, user) =
        (|method| server.request(method, "/api/users"), |method| server.request(method, "/api/users/1"));
    let too_large = " ".repeat(64 * 1024 + 1);
    let cases = [
        (400, "list_users", server.request("GET", "/api/users?limit=%")),
        (422, "list_users", server.request("GET", "/api/users?limit=0")),
        (400, "create_user", server.request("POST", "/api/users?name=%ff")),
        (400, "create_user", users("POST").header(json_type.0, json_type.1).body("{")),
        (413, "create_user", users("POST").header(json_type.0, json_type.1).body(too_large.clone())),
        (415, "create_user", users("POST").header(json_type.0, "text/plain").body("{}")),
        (
            415,
            "create_user",
            users("POST").header(json_type.0, json_type.1).header("content-encoding", "br").body("{}"),
        ),
        (422, "create_user", users("POST")),
        (404, "get_user", server.request("GET", "/api/users/7")),
        (422, "get_user", server.request("GET", "/api/users/x")),
        (400, "update_user", server.request("PUT", "/api/users/1?name=%ff")),
        (400, "update_user", user("PUT").header(json_type.0, json_type.1).body("{")),
        (404, "update_user", server.request("PUT", "/api/users/7?name=Jane")),
        (413, "update_user", user("PUT").header(json_type.0, json_type.1).body(too_large)),
        (415, "update_user", user("PUT").header(json_type.0, "text/plain").body("{}")),
        (422, "update_user", user("PUT")),
        (404, "delete_user", server.request("DELETE", "/api/users/7")),
        (422, "delete_user", server.request("DELETE", "/api/users/0")),
        (500, "error", server.request("GET", "/api/error")),
        (400, "update", server.request("GET", "/update?users=%")),
        (422, "update", server.request("GET", "/update?users=-1")),
        (400, "cpu", server.request("GET", "/cpu?value=%")),
        (422, "cpu", server.request("GET", "/cpu?value=101")),
        (404, "docs_file", server.request("GET", "/docs/nope.js")),
    ];
    for (status, id, request) in cases {
        let operation = OPERATIONS.iter().find(|operation| operation.id == id).unwrap();

        let answer = Answer::to(request).await;

        assert_eq!(answer.status, status, "{id}: {}", answer.text());
        description.judge(operation, &answer);
    }
}

#[tokio::test]
async fn overload_is_answered_as_documented() {
    let server = Server::start_with(&["--max-in-flight", "1"]).await;
    let description = Description::of(&server).await;

    // A slow answer holds the only place while all others are asked at once.
    let (slow, answers) = tokio::join!(server.get("/api/slow"), async {
        server.in_progress("/api/slow", 1).await;
        let ask = |operation| Answer::to(description.sample(&server, operation));
        join_all(OPERATIONS.iter().map(|operation| ask(operation))).await
    });

    assert_eq!(slow.status, 200);
    let mut free = Vec::new();
    for (operation, answer) in OPERATIONS.iter().zip(answers) {
        description.judge(operation, &answer);
        if answer.status == 503 {
            assert_eq!(answer.problem().error_type, "overloaded", "{}", name(operation));
        } else {
            assert_eq!(answer.status, 200, "{}", name(operation));
            free.push(operation.id);
        }
    }
    assert_eq!(free, ["health", "ready", "metrics"], "all others are turned away");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_answered_as_documented() {
    let server = Server::start_with(&["--request-timeout", "1s"]).await;
    let description = Description::of(&server).await;
    let operation = OPERATIONS.iter().find(|operation| operation.id == "create_user").unwrap();

    let answer = server.exchange(b"POST /api/users HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n").await;

    assert_eq!(answer.status, 408);
    description.judge(operation, &answer);
}

#[tokio::test]
async fn a_document_that_the_client_has_is_answered_as_documented() {
    let server = Server::start().await;
    let description = Description::of(&server).await;
    let documents: Vec<_> =
        OPERATIONS.iter().filter(|operation| operation.statuses().contains(&304)).copied().collect();
    assert_eq!(documents.len(), 4);
    for operation in documents {
        let answer = Answer::to(description.sample(&server, operation).header("if-none-match", "*")).await;

        assert_eq!(answer.status, 304, "{}", name(operation));
        description.judge(operation, &answer);
    }
}

/// Whatever fits the description is taken, and whatever does not is refused.
#[tokio::test]
async fn the_description_demands_what_the_service_demands() {
    let server = Server::start().await;
    let description = Description::of(&server).await;
    server.create("John").await;
    let (long, short) = ("a".repeat(201), "a".repeat(200));
    let bodies = [
        json!({"name": "Jane", "email": "jane@example.com"}),
        json!({"name": short, "email": "jane@example.com"}),
        json!({"name": long, "email": "jane@example.com"}),
        json!({"name": " ", "email": "jane@example.com"}),
        json!({"name": "", "email": "jane@example.com"}),
        json!({"name": "\u{200B}", "email": "jane@example.com"}),
        json!({"name": "a\u{202E}b", "email": "jane@example.com"}),
        json!({"name": "a\nb", "email": "jane@example.com"}),
        json!({"name": "👩‍👩‍👧‍👦", "email": "jane@example.com"}),
        json!({"name": "Jane", "email": "jane"}),
        json!({"name": "Jane", "email": "jane@ex?mple.com"}),
        json!({"name": "Jane", "email": "jane@-example.com"}),
        json!({"name": "Jane", "email": format!("jane@{}.com", "d".repeat(64))}),
        json!({"name": "Jane", "email": format!("{}@{}.{}.{}.com", "a".repeat(60), "d".repeat(63), "d".repeat(63), "d".repeat(63))}),
        json!({"name": "Jane", "email": "\"jane doe\"@exämple.com"}),
        json!({"name": "Jane", "email": "jane@example.com", "admin": true}),
        json!({"name": 7, "email": "jane@example.com"}),
        json!({"name": null, "email": "jane@example.com"}),
        json!({"name": "Jane"}),
        json!({"email": "jane@example.com"}),
        json!({}),
        json!([]),
        json!("name"),
    ];
    for (id, path, query) in [
        ("create_user", "/api/users", ""),
        ("create_user", "/api/users", "?name=Joan"),
        ("update_user", "/api/users/1", ""),
        ("update_user", "/api/users/1", "?email=joan@example.com"),
    ] {
        let operation = OPERATIONS.iter().find(|operation| operation.id == id).unwrap();
        for body in &bodies {
            let answer =
                Answer::to(server.request(operation.method.as_str(), &format!("{path}{query}")).json(body)).await;

            let fits = description.fits_body(operation, body);
            let place = format!("{}{query} with {body}: {}", name(operation), answer.text());
            if query.is_empty() && id == "update_user" {
                assert_eq!(fits && *body != json!({}), answer.status.is_success(), "{place}");
            } else if !answer.status.is_success() && fits {
                // What no schema of a body can say: the query must have the rest, and nothing twice.
                assert!(
                    answer.problem().detail.contains("is missing") || answer.problem().detail.contains("both"),
                    "{place}"
                );
            } else {
                assert!(fits || !answer.status.is_success(), "{place}");
            }
        }
    }
}

#[tokio::test]
async fn a_missed_deadline_is_answered_as_documented() {
    let server = Server::start_with(&["--request-timeout", "1s"]).await;
    let description = Description::of(&server).await;
    let late = OPERATIONS.iter().find(|operation| operation.id == "slow").unwrap();

    let answer = Answer::to(description.sample(&server, late)).await;

    assert_eq!(answer.status, 504);
    description.judge(late, &answer);
}

// ---- Examples ----

#[tokio::test]
async fn every_documented_example_fits_its_schema() {
    let description = Description::of(&Server::start().await).await;

    let examples = description.examples();

    // Each schema of the bodies, each parameter, and each kind of error of each operation.
    assert!(examples.len() > 100, "{}", examples.len());
    for (place, schema, example) in examples {
        description.validate(&schema, &example, &place);
    }
}

// ---- Pieces ----

fn lower(operation: &Operation) -> String {
    operation.method.as_str().to_lowercase()
}

fn name(operation: &Operation) -> String {
    format!("{} {}", operation.method, operation.template)
}

/// The OpenAPI description, as a client reads it.
struct Description(Value);

impl Description {
    async fn of(server: &Server) -> Self {
        Self(server.get("/openapi.json").await.json())
    }

    /// Every path template with each of its methods, in lower case.
    fn operations(&self) -> impl Iterator<Item = (&str, &str)> {
        let paths = self.0["paths"].as_object().unwrap();
        paths
            .iter()
            .flat_map(|(path, item)| item.as_object().unwrap().keys().map(|method| (path.as_str(), method.as_str())))
    }

    fn operation(&self, operation: &Operation) -> &Value {
        let found = &self.0["paths"][operation.template][lower(operation)];
        assert!(found.is_object(), "{} is not described", name(operation));
        found
    }

    /// What `$ref` points to, or the value itself.
    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            Some(reference) => self.0.pointer(reference.strip_prefix('#').unwrap()).expect(reference),
            None => value,
        }
    }

    /// A request that should succeed, made of nothing but the description's own examples.
    fn sample(&self, server: &Server, operation: &Operation) -> RequestBuilder {
        let described = self.operation(operation);
        let mut path = operation.template.to_owned();
        let mut query = Vec::new();
        for parameter in described["parameters"].as_array().into_iter().flatten() {
            let (name, example) = (parameter["name"].as_str().unwrap(), &parameter["example"]);
            let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
            match parameter["in"].as_str().unwrap() {
                "path" => path = path.replace(&format!("{{{name}}}"), &text),
                _ if parameter["required"] == true => query.push(format!("{name}={}", encode(&text))),
                _ => {}
            }
        }
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        let request = server.client.request(operation.method.clone(), server.url(&path));
        match described["requestBody"]["content"].get("application/json") {
            Some(content) => request.json(&self.resolved(&content["schema"])["example"]),
            None => request,
        }
    }

    /// Sees that an answer is as documented for its operation: status, media type, schema and headers.
    fn judge(&self, operation: &Operation, answer: &Answer) {
        let place = format!("{} {}", name(operation), answer.status.as_u16());
        let response = &self.operation(operation)["responses"][answer.status.as_str()];
        assert!(response.is_object(), "{place} is not documented");
        for (header, described) in response["headers"].as_object().unwrap() {
            let value = answer.headers.get(header).unwrap_or_else(|| panic!("{place} has no {header}"));
            let text = value.to_str().unwrap();
            let number = described["schema"]["type"] == "integer";
            let value = if number { text.parse::<i64>().unwrap().into() } else { Value::from(text) };
            self.validate(&described["schema"], &value, &format!("{place}, {header}"));
        }
        let Some(content) = response["content"].as_object() else {
            assert_eq!(answer.body, b"", "{place}: no content is documented");
            return;
        };
        let (media_type, media) = content.iter().next().unwrap();
        assert_eq!(content.len(), 1, "{place}");
        if media_type != "*/*" {
            assert_eq!(answer.header("content-type"), media_type, "{place}");
        }
        if media_type.ends_with("json") {
            self.validate(&media["schema"], &answer.json(), &place);
        }
    }

    /// Every example with its place and its schema.
    fn examples(&self) -> Vec<(String, Value, Value)> {
        let mut found = Vec::new();
        for (name, schema) in self.0["components"]["schemas"].as_object().unwrap() {
            let reference = json!({"$ref": format!("#/components/schemas/{name}")});
            found.extend(schema.get("example").map(|example| (name.clone(), reference, example.clone())));
            for (property, schema) in schema["properties"].as_object().into_iter().flatten() {
                let place = format!("{name}.{property}");
                found.extend(schema.get("example").map(|example| (place, schema.clone(), example.clone())));
            }
        }
        for operation in OPERATIONS {
            let described = self.operation(operation);
            for parameter in described["parameters"].as_array().into_iter().flatten() {
                let place = format!("{}, {}", name(operation), parameter["name"]);
                match parameter.get("example") {
                    Some(example) => found.push((place, parameter["schema"].clone(), example.clone())),
                    // Sent beside the example of the body, it would be an error.
                    None => assert!(described["requestBody"].is_object(), "{place} has no example"),
                }
            }
            for (status, response) in described["responses"].as_object().unwrap() {
                for media in response["content"].as_object().into_iter().flat_map(|content| content.values()) {
                    for (kind, example) in media["examples"].as_object().into_iter().flatten() {
                        let place = format!("{} {status}, {kind}", name(operation));
                        found.push((place, media["schema"].clone(), example["value"].clone()));
                    }
                }
            }
        }
        found
    }

    /// Whether a body fits what is described for an operation.
    fn fits_body(&self, operation: &Operation, body: &Value) -> bool {
        let schema = &self.operation(operation)["requestBody"]["content"]["application/json"]["schema"];
        self.validator(schema).is_valid(body)
    }

    /// Sees that a value fits a schema of the description.
    fn validate(&self, schema: &Value, value: &Value, place: &str) {
        let faults: Vec<_> = self
            .validator(schema)
            .iter_errors(value)
            .map(|fault| format!("{}: {fault}", fault.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{place}: {faults:?} in {value}");
    }

    fn validator(&self, schema: &Value) -> Validator {
        let mut schema = schema.clone();
        // Where its references lead.
        schema["components"] = self.0["components"].clone();
        jsonschema::options().should_validate_formats(true).build(&schema).unwrap()
    }
}
