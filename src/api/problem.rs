//! Every way in which a request can fail, and how it is said: a status, an `error_type` and problem+json (RFC 9457).
//!
//! [`ErrorKind`] is the closed set behind the `error_type` label. Handlers return an [`ApiError`]; this module alone
//! turns one into a response, and counts nothing: the instrumentation reads the kind from the response.

use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;
use warp::reply::Response;

use crate::causes;
use crate::metrics::{ExpositionError, Failure};
use crate::store::StoreError;

/// Largest request body, in bytes.
pub const BODY_MAX_BYTES: usize = 64 * 1024;

/// Bodies that are waited for at once: 16 MiB, when each has nearly all that it may have.
pub const BODIES_MAX: usize = 256;

/// What a client is asked to wait after a 503, in seconds: long enough to matter, short enough for a rolling restart.
const RETRY_AFTER_SECONDS: u16 = 1;

/// Longest piece of a client's own text that an error repeats, in characters.
const SHOWN_MAX_CHARS: usize = 80;

/// Most faults that one error lists; the others are only counted, so that an answer cannot outgrow its request.
const FAULTS_MAX: usize = 8;

macro_rules! error_kinds {
    ($($(#[doc = $doc:literal])+ $kind:ident = $status:literal, $error_type:literal, $title:literal;)+) => {
        /// The kinds of failure: one per variant of [`ApiError`].
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ErrorKind {
            $($(#[doc = $doc])+ $kind,)+
        }

        impl ErrorKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind),+];

            /// The status it is answered with.
            #[must_use]
            pub fn status(self) -> StatusCode {
                let status = match self { $(Self::$kind => $status),+ };
                StatusCode::from_u16(status).expect("three digits make a status")
            }

            /// The `error_type` label, and the fragment of the problem's `type`.
            #[must_use]
            pub const fn error_type(self) -> &'static str {
                match self { $(Self::$kind => $error_type),+ }
            }

            /// The problem's `title`: the same for every occurrence.
            #[must_use]
            pub const fn title(self) -> &'static str {
                match self { $(Self::$kind => $title),+ }
            }

            /// What it means, for the OpenAPI description.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$kind => concat!($($doc),+).trim()),+ }
            }
        }
    };
}

error_kinds! {
    /// The `Host` header is missing, given more than once, or not a host name; every request needs one.
    InvalidHost = 400, "invalid_host", "Invalid Host header";
    /// The query string is not valid percent-encoded UTF-8.
    MalformedQuery = 400, "malformed_query", "Malformed query string";
    /// The body is not valid JSON.
    MalformedJson = 400, "malformed_json", "Malformed JSON";
    /// The body could not be read, such as chunks that are not well-formed.
    UnreadableBody = 400, "unreadable_body", "Unreadable request body";
    /// There is no user with that id.
    NotFound = 404, "not_found", "User not found";
    /// Nothing is served at that path.
    UnknownPath = 404, "unknown_path", "Unknown path";
    /// The path is served, but not with that method; `Allow` lists those it is served with.
    MethodNotAllowed = 405, "method_not_allowed", "Method not allowed";
    /// The rest of the body did not come within the deadline.
    BodyTimeout = 408, "body_timeout", "Request body timeout";
    /// More than 256 bodies were waited for at once, and this one for the longest: it gave way.
    BodyDisplaced = 408, "body_displaced", "Request body displaced";
    /// The body is larger than 64 KiB.
    BodyTooLarge = 413, "body_too_large", "Request body too large";
    /// The body's content type is not `application/json` in UTF-8.
    UnsupportedMediaType = 415, "unsupported_media_type", "Unsupported media type";
    /// The body is compressed or otherwise encoded, and `Accept-Encoding` says that no encoding is accepted.
    UnsupportedEncoding = 415, "unsupported_encoding", "Unsupported content encoding";
    /// A value breaks the rules of its field; `errors` lists each.
    Validation = 422, "validation", "Invalid input";
    /// The client went away before it was answered.
    ClientClosedRequest = 499, "client_closed_request", "Client closed request";
    /// A test endpoint failed on purpose.
    Simulated = 500, "simulated", "Simulated error";
    /// The database refused or broke; the change is not acknowledged.
    StoreFailed = 500, "store_failed", "Storage failure";
    /// A handler panicked; the service lives on.
    Panic = 500, "panic", "Internal error";
    /// A fault of the service itself.
    Internal = 500, "internal", "Internal error";
    /// More requests are being handled, or more writes are waiting, than the service takes at once.
    Overloaded = 503, "overloaded", "Overloaded";
    /// The service is starting: the database is not open yet.
    Starting = 503, "starting", "Starting";
    /// The service is stopping: requests in flight still finish.
    Draining = 503, "draining", "Draining";
    /// The database does not answer; the change is not acknowledged.
    StoreUnavailable = 503, "store_unavailable", "Storage unavailable";
    /// The service did not do what was asked within its deadline; a write may still have been made.
    Timeout = 504, "timeout", "Deadline exceeded";
}

/// Why a request failed, with what its answer needs to say.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ApiError {
    /// [`ErrorKind::InvalidHost`].
    #[error("{0}")]
    InvalidHost(HostFault),
    /// [`ErrorKind::MalformedQuery`]: what is wrong, and where.
    #[error("the query string {0}")]
    MalformedQuery(String),
    /// [`ErrorKind::MalformedJson`]: the parser's words.
    #[error("the request body is not valid JSON: {0}")]
    MalformedJson(String),
    /// [`ErrorKind::UnreadableBody`].
    #[error("the request body could not be read")]
    UnreadableBody(#[source] Arc<dyn Error + Send + Sync>),
    /// [`ErrorKind::NotFound`]: the id asked for.
    #[error("there is no user with id {0}")]
    NotFound(crate::users::UserId),
    /// [`ErrorKind::UnknownPath`]: the path.
    #[error("nothing is served at {}", shown(.0))]
    UnknownPath(String),
    /// [`ErrorKind::MethodNotAllowed`].
    #[error("{path} is not served with the method {}; it is with {allow}", shown(.method))]
    MethodNotAllowed {
        /// The method.
        method: String,
        /// The route template.
        path: String,
        /// The `Allow` header.
        allow: String,
    },
    /// [`ErrorKind::BodyTimeout`]: the deadline.
    #[error("the request body was not whole within {} s", .0.as_secs_f64())]
    BodyTimeout(Duration),
    /// [`ErrorKind::BodyDisplaced`].
    #[error("more than {BODIES_MAX} request bodies were still coming, and this one for the longest; try again")]
    BodyDisplaced,
    /// [`ErrorKind::BodyTooLarge`].
    #[error("the request body is larger than {BODY_MAX_BYTES} bytes")]
    BodyTooLarge,
    /// [`ErrorKind::UnsupportedMediaType`]: the content type, if there is one.
    #[error("the content type of the request body is {}; expected application/json in UTF-8",
            .0.as_deref().map_or("missing".to_owned(), shown))]
    UnsupportedMediaType(Option<String>),
    /// [`ErrorKind::UnsupportedEncoding`]: the codings.
    #[error("the request body is encoded as {}; send it without an encoding", shown(.0))]
    UnsupportedEncoding(String),
    /// [`ErrorKind::Validation`]: at least one field.
    #[error("{}", sentence(.0))]
    Validation(Vec<FieldError>),
    /// [`ErrorKind::ClientClosedRequest`].
    #[error("the client went away before its request was whole")]
    ClientClosedRequest,
    /// [`ErrorKind::Simulated`].
    #[error("this endpoint always fails, to show what a failure looks like")]
    Simulated,
    /// [`ErrorKind::Internal`].
    #[error("the service failed to answer")]
    Internal(#[source] Arc<dyn Error + Send + Sync>),
    /// [`ErrorKind::Panic`]: the panic's message, for the log only.
    #[error("the service failed to answer")]
    Panic(#[source] Panicked),
    /// [`ErrorKind::Overloaded`].
    #[error("the service is at its limit; try again in {RETRY_AFTER_SECONDS} s")]
    Overloaded,
    /// [`ErrorKind::Starting`].
    #[error("the service is starting; try again in {RETRY_AFTER_SECONDS} s")]
    Starting,
    /// [`ErrorKind::Draining`].
    #[error("the service is stopping")]
    Draining,
    /// [`ErrorKind::StoreFailed`].
    #[error("the database failed; a change is not acknowledged")]
    StoreFailed(#[source] StoreError),
    /// [`ErrorKind::StoreUnavailable`].
    #[error("the database does not answer; a change is not acknowledged")]
    StoreUnavailable(#[source] StoreError),
    /// [`ErrorKind::Timeout`]: the deadline.
    #[error("the request was not done within {} s; a write may still have been made", .0.as_secs_f64())]
    Timeout(Duration),
}

/// What is wrong with a request's `Host` header. A server that finds it attaches it to the request, as an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// HTTP/1.1 without one.
    #[error("the request has no Host header")]
    Missing,
    /// More than one.
    #[error("the request has more than one Host header")]
    Repeated,
    /// No host and port.
    #[error("the request's Host header is not a host with or without a port")]
    Malformed,
}

/// What a panic said.
#[derive(Debug, Clone, thiserror::Error)]
#[error("a handler panicked: {0}")]
pub struct Panicked(pub String);

/// One field that broke its rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!({"field": "name", "message": "must not be empty or blank"}))]
pub struct FieldError {
    /// The field or parameter.
    pub field: String,
    /// What it must be, as the rest of a sentence that starts with the field.
    pub message: String,
    /// The value as it was given, for the sentence in `detail`.
    #[serde(skip)]
    pub value: Option<String>,
}

/// An error as RFC 9457 has it, sent as `application/problem+json`.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// The kind of error, as a reference to its explanation: `/#` and its `error_type`.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference", example = "/#validation")]
    pub kind: String,
    /// The kind in words, the same for every occurrence.
    pub title: &'static str,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    pub status: u16,
    /// What is wrong with this request, in one sentence.
    pub detail: String,
    /// For 422: the fields that are wrong, the first 8 at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub errors: Option<Vec<FieldError>>,
}

impl ApiError {
    /// The kind of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::InvalidHost(_) => ErrorKind::InvalidHost,
            Self::MalformedQuery(_) => ErrorKind::MalformedQuery,
            Self::MalformedJson(_) => ErrorKind::MalformedJson,
            Self::UnreadableBody(_) => ErrorKind::UnreadableBody,
            Self::NotFound(_) => ErrorKind::NotFound,
            Self::UnknownPath(_) => ErrorKind::UnknownPath,
            Self::MethodNotAllowed { .. } => ErrorKind::MethodNotAllowed,
            Self::BodyTimeout(_) => ErrorKind::BodyTimeout,
            Self::BodyDisplaced => ErrorKind::BodyDisplaced,
            Self::BodyTooLarge => ErrorKind::BodyTooLarge,
            Self::UnsupportedMediaType(_) => ErrorKind::UnsupportedMediaType,
            Self::UnsupportedEncoding(_) => ErrorKind::UnsupportedEncoding,
            Self::Validation(_) => ErrorKind::Validation,
            Self::ClientClosedRequest => ErrorKind::ClientClosedRequest,
            Self::Simulated => ErrorKind::Simulated,
            Self::Internal(_) => ErrorKind::Internal,
            Self::Panic(_) => ErrorKind::Panic,
            Self::Overloaded => ErrorKind::Overloaded,
            Self::Starting => ErrorKind::Starting,
            Self::Draining => ErrorKind::Draining,
            Self::StoreFailed(_) => ErrorKind::StoreFailed,
            Self::StoreUnavailable(_) => ErrorKind::StoreUnavailable,
            Self::Timeout(_) => ErrorKind::Timeout,
        }
    }

    /// A single field that is wrong.
    pub fn invalid(field: &str, message: impl Into<String>, value: Option<&str>) -> Self {
        Self::Validation(vec![FieldError::new(field, message, value)])
    }

    /// The error as a client sees it.
    #[must_use]
    pub fn problem(&self) -> Problem {
        let kind = self.kind();
        let errors = match self {
            Self::Validation(errors) => Some(errors.iter().take(FAULTS_MAX).cloned().collect()),
            _ => None,
        };
        Problem {
            kind: format!("/#{}", kind.error_type()),
            title: kind.title(),
            status: kind.status().as_u16(),
            detail: self.to_string(),
            errors,
        }
    }

    /// The response, with its kind and its causes attached for the instrumentation.
    #[must_use]
    pub fn into_response(self) -> Response {
        let kind = self.kind();
        let body = serde_json::to_vec(&self.problem()).expect("strings and numbers always serialise");
        let mut response = Response::new(body.into());
        *response.status_mut() = kind.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match &self {
            Self::MethodNotAllowed { allow, .. } => {
                headers.insert(ALLOW, HeaderValue::from_str(allow).expect("methods make a header value"));
            }
            // What would still come of the body is not read.
            Self::BodyTimeout(_) | Self::BodyDisplaced => {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            // One of the two says what to do better, never both (RFC 9110, section 12.5.3).
            Self::UnsupportedMediaType(_) => {
                headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
            }
            Self::UnsupportedEncoding(_) => {
                headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            }
            _ if kind.status() == StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
            }
            _ => {}
        }
        let cause = self.source().map(|cause| causes::chain(cause).into());
        response.extensions_mut().insert(Failure { error_type: kind.error_type(), cause });
        response
    }
}

impl FieldError {
    /// A field, what it must be, and the value that was given.
    pub fn new(field: &str, message: impl Into<String>, value: Option<&str>) -> Self {
        Self { field: cut(field), message: message.into(), value: value.map(str::to_owned) }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Overloaded => Self::Overloaded,
            StoreError::Unavailable(_) => Self::StoreUnavailable(error),
            StoreError::Failed(_) => Self::StoreFailed(error),
        }
    }
}

impl From<ExpositionError> for ApiError {
    fn from(error: ExpositionError) -> Self {
        Self::Internal(Arc::new(error))
    }
}

/// Text of a client's, safe to repeat: quoted, escaped and cut.
#[must_use]
pub fn shown(text: &str) -> String {
    format!("\"{}\"", cut(text).escape_debug())
}

/// At most [`SHOWN_MAX_CHARS`] characters, and an ellipsis where there were more.
fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn sentence(errors: &[FieldError]) -> String {
    let mut text = String::new();
    for error in errors.iter().take(FAULTS_MAX) {
        if !text.is_empty() {
            text.push_str("; ");
        }
        let plain = !error.field.is_empty() && error.field.chars().all(|c| c.is_alphanumeric() || "_-".contains(c));
        text.push_str(&if plain { error.field.clone() } else { shown(&error.field) });
        let _ = write!(text, " {}", error.message);
        if let Some(value) = &error.value {
            let _ = write!(text, ", got {}", shown(value));
        }
    }
    if let Some(more @ 1..) = errors.len().checked_sub(FAULTS_MAX) {
        let _ = write!(text, "; and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_distinct_snake_case_words_on_error_statuses() {
        let mut seen = std::collections::BTreeSet::new();
        for kind in ErrorKind::ALL {
            let word = kind.error_type();
            assert!(word.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{word}");
            assert!(seen.insert(word), "{word} is used twice");
            assert!(kind.status().as_u16() >= 400, "{word}");
            assert!(!kind.meaning().is_empty(), "{word}");
        }
    }

    #[test]
    fn a_validation_problem_names_each_field_and_value() {
        let error = ApiError::Validation(vec![
            FieldError::new("name", "must not be empty or blank", Some(" ")),
            FieldError::new("email", "is missing", None),
        ]);

        let problem = serde_json::to_value(error.problem()).unwrap();

        let expected = serde_json::json!({
            "type": "/#validation",
            "title": "Invalid input",
            "status": 422,
            "detail": "name must not be empty or blank, got \" \"; email is missing",
            "errors": [
                {"field": "name", "message": "must not be empty or blank"},
                {"field": "email", "message": "is missing"},
            ],
        });
        assert_eq!(problem, expected);
    }

    #[test]
    fn text_of_clients_is_escaped_and_cut() {
        assert_eq!(shown("a\nb\"c\0"), r#""a\nb\"c\0""#);
        let long = shown(&"é".repeat(5000));
        assert_eq!(long.chars().count(), SHOWN_MAX_CHARS + 3);
        assert!(long.ends_with("…\""));
    }

    #[test]
    fn an_error_lists_the_first_faults_and_counts_the_others() {
        let faults = (0..1000).map(|n| FieldError::new(&format!("f{n}"), "is wrong", None)).collect();

        let problem = ApiError::Validation(faults).problem();

        assert!(problem.detail.starts_with("f0 is wrong; f1 is wrong; "), "{}", problem.detail);
        assert!(problem.detail.ends_with("; f7 is wrong; and 992 more"), "{}", problem.detail);
        assert_eq!(problem.errors.map(|errors| errors.len()), Some(FAULTS_MAX));
    }

    #[test]
    fn causes_go_to_the_log_and_not_to_the_client() {
        let disk = std::io::Error::other("disk on fire");
        let error = ApiError::from(StoreError::Failed(Arc::new(disk)));
        assert!(!error.problem().detail.contains("fire"));

        let response = error.into_response();

        let failure = response.extensions().get::<Failure>().unwrap();
        assert_eq!(failure.error_type, "store_failed");
        assert_eq!(failure.cause.as_deref(), Some("the database failed: disk on fire"));
    }
}
