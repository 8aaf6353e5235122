//! The HTTP surface in one table: every operation's method, path template, documented statuses and errors.
//!
//! Routing (`api::routes`), metrics ([`route_table`]), OpenAPI (`api::openapi`) and `load` all read it, so they cannot
//! disagree. HEAD is served wherever GET is and is not listed.

use http::{Method, StatusCode};
use utoipa::openapi::path::OperationBuilder;

use super::openapi;
use super::problem::{ApiError, ErrorKind};
use crate::metrics::{Route, RouteTable};

/// One method on one path.
#[derive(Debug)]
pub struct Operation {
    /// Unique `snake_case` name: the `operationId`.
    pub id: &'static str,
    /// The method.
    pub method: Method,
    /// The path template.
    pub template: &'static str,
    /// Heading in the documentation.
    pub tag: &'static str,
    /// One line for the documentation.
    pub summary: &'static str,
    /// What answers it.
    pub endpoint: Endpoint,
    /// The status of success.
    pub success: StatusCode,
    /// Groups of errors that it may answer.
    pub errors: &'static [&'static [ErrorKind]],
    /// Adds parameters, body and the success response to its documentation.
    pub describe: fn(OperationBuilder) -> OperationBuilder,
}

use ErrorKind::{
    BodyDisplaced, BodyTimeout, BodyTooLarge, Draining, Internal, MalformedJson, MalformedQuery, NotFound, Overloaded,
    Panic, Simulated, Starting, StoreFailed, StoreUnavailable, Timeout, UnreadableBody, UnsupportedEncoding,
    UnsupportedMediaType, Validation,
};

/// Any handler can be late or panic.
const HANDLER: &[ErrorKind] = &[Panic, Timeout];
/// Any handler but the probes and the scrape can be turned away under overload.
const LIMITED: &[ErrorKind] = &[Overloaded];
/// Whatever needs the database.
const STORE: &[ErrorKind] = &[Starting, StoreUnavailable, StoreFailed];
const QUERY: &[ErrorKind] = &[MalformedQuery, Validation];
const BODY: &[ErrorKind] = &[
    MalformedJson,
    UnreadableBody,
    BodyTimeout,
    BodyDisplaced,
    BodyTooLarge,
    UnsupportedMediaType,
    UnsupportedEncoding,
];

const OPERATIONAL: &str = "operation";
const USERS: &str = "users";
const TEST: &str = "test endpoints";
const LEGACY: &str = "legacy";
const DOCUMENTATION: &str = "documentation";

macro_rules! operations {
    ($($name:ident = $endpoint:ident: $method:ident $template:literal, $tag:ident, $success:ident, $errors:expr, $describe:ident, $summary:literal;)+) => {
        /// What answers an operation: one of `api::routes`' handlers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Endpoint {
            $(#[doc = concat!("`", stringify!($method), " ", $template, "`: ", $summary)] $endpoint,)+
        }

        $(
            #[doc = concat!("`", stringify!($method), " ", $template, "`: ", $summary)]
            pub static $name: Operation = Operation {
                id: stringify!($describe),
                method: Method::$method,
                template: $template,
                tag: $tag,
                summary: $summary,
                endpoint: Endpoint::$endpoint,
                success: StatusCode::$success,
                errors: $errors,
                describe: openapi::$describe,
            };
        )+

        /// Every operation, in the order of the documentation.
        pub static OPERATIONS: &[&Operation] = &[$(&$name),+];
    };
}

operations! {
    LIST_USERS = ListUsers: GET "/api/users", USERS, OK, &[HANDLER, LIMITED, STORE, QUERY], list_users,
        "List users, ordered by id";
    CREATE_USER = CreateUser: POST "/api/users", USERS, CREATED, &[HANDLER, LIMITED, STORE, QUERY, BODY], create_user,
        "Create a user";
    GET_USER = GetUser: GET "/api/users/{id}", USERS, OK, &[HANDLER, LIMITED, STORE, &[Validation, NotFound]], get_user,
        "Get a user";
    UPDATE_USER = UpdateUser: PUT "/api/users/{id}", USERS, OK, &[HANDLER, LIMITED, STORE, QUERY, BODY, &[NotFound]], update_user,
        "Change a user's name, e-mail address or both";
    DELETE_USER = DeleteUser: DELETE "/api/users/{id}", USERS, NO_CONTENT, &[HANDLER, LIMITED, STORE, &[Validation, NotFound]],
        delete_user, "Delete a user";
    HEALTH = Health: GET "/health", OPERATIONAL, OK, &[HANDLER], health,
        "Liveness: the process answers; no dependency is asked";
    READY = Ready: GET "/ready", OPERATIONAL, OK, &[HANDLER, &[Starting, Draining, StoreUnavailable, StoreFailed]], ready,
        "Readiness: traffic is welcome";
    METRICS = Metrics: GET "/metrics", OPERATIONAL, OK, &[HANDLER, &[Internal]], metrics,
        "The metrics, in Prometheus' text format";
    SLOW = Slow: GET "/api/slow", TEST, OK, &[HANDLER, LIMITED], slow,
        "Answer after a uniformly random 2 to 3 s";
    ERROR = Error: GET "/api/error", TEST, INTERNAL_SERVER_ERROR, &[HANDLER, LIMITED, &[Simulated]], error,
        "Always fail";
    UPDATE = Update: GET "/update", LEGACY, OK, &[HANDLER, LIMITED, QUERY], update,
        "Set the legacy gauge of active users";
    CPU = Cpu: GET "/cpu", LEGACY, OK, &[HANDLER, LIMITED, QUERY], cpu,
        "Set the legacy gauge of the CPU usage, in percent";
    OPENAPI = Openapi: GET "/openapi.json", DOCUMENTATION, OK, &[HANDLER, LIMITED], openapi_json,
        "This description";
    DOCS = Docs: GET "/docs", DOCUMENTATION, OK, &[HANDLER, LIMITED], docs,
        "Swagger UI";
    DOCS_FILE = DocsFile: GET "/docs/{file}", DOCUMENTATION, OK, &[HANDLER, LIMITED, &[ErrorKind::UnknownPath]], docs_file,
        "A file of Swagger UI";
    LANDING = Landing: GET "/", DOCUMENTATION, OK, &[HANDLER, LIMITED], landing,
        "A page that links to all of this";
}

impl Operation {
    /// Whether it is served with this method.
    #[must_use]
    pub fn serves(&self, method: &Method) -> bool {
        self.method == *method || (self.method == Method::GET && *method == Method::HEAD)
    }

    /// The path parameter of a path that fits the template, still percent-encoded; empty when there is none. It stands
    /// last in every template.
    #[must_use]
    pub fn parameter<'path>(&self, path: &'path str) -> &'path str {
        if self.template.ends_with('}') { path.rsplit('/').next().unwrap_or_default() } else { "" }
    }

    /// Whether it reads a body.
    #[must_use]
    pub fn takes_body(&self) -> bool {
        matches!(self.endpoint, Endpoint::CreateUser | Endpoint::UpdateUser)
    }

    /// Whether its answer is the same until a newer binary runs, so that a client may ask whether what it has is still
    /// good: 304 (RFC 9110, section 13).
    #[must_use]
    pub fn is_document(&self) -> bool {
        matches!(self.endpoint, Endpoint::Openapi | Endpoint::Docs | Endpoint::DocsFile | Endpoint::Landing)
    }

    /// The errors that it may answer.
    pub fn error_kinds(&self) -> impl Iterator<Item = ErrorKind> + '_ {
        self.errors.iter().flat_map(|group| group.iter().copied())
    }

    /// Every status that it may answer, each once, in ascending order.
    #[must_use]
    pub fn statuses(&self) -> Vec<u16> {
        let not_modified = self.is_document().then_some(StatusCode::NOT_MODIFIED);
        let all = self.error_kinds().map(ErrorKind::status).chain([self.success]).chain(not_modified);
        let mut statuses: Vec<u16> = all.map(|status| status.as_u16()).collect();
        statuses.sort_unstable();
        statuses.dedup();
        statuses
    }
}

/// The value of `Allow` for a template: every method that it is served with.
#[must_use]
pub fn allowed_methods(template: &str) -> String {
    let served = |method: &Method| OPERATIONS.iter().any(|op| op.template == template && op.serves(method));
    let methods = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH];
    methods.iter().filter(|method| served(method)).map(Method::as_str).collect::<Vec<_>>().join(", ")
}

/// Finds the operation that a request asks for.
#[derive(Debug)]
pub struct Routing {
    table: RouteTable,
    /// In the order of the table.
    operations: Vec<Vec<&'static Operation>>,
}

impl Default for Routing {
    /// Routes to all of [`OPERATIONS`].
    fn default() -> Self {
        let table = route_table();
        let mut operations = vec![Vec::new(); table.len()];
        for operation in OPERATIONS {
            let route =
                table.position(operation.template).expect("every operation has a route, which fits its template");
            operations[route].push(*operation);
        }
        Self { table, operations }
    }
}

impl Routing {
    /// The operation.
    ///
    /// # Errors
    ///
    /// When nothing is served at the path, or not with the method.
    pub fn operation(&self, method: &Method, path: &str) -> Result<&'static Operation, ApiError> {
        let route = self.table.position(path).ok_or_else(|| ApiError::UnknownPath(path.to_owned()))?;
        let found = self.operations[route].iter().find(|operation| operation.serves(method));
        found.copied().ok_or_else(|| {
            let template = self.table.resolve(path);
            ApiError::MethodNotAllowed {
                method: method.to_string(),
                path: template.to_owned(),
                allow: allowed_methods(template),
            }
        })
    }
}

/// The templates with their documented statuses, for the instrumentation. The scrape itself is left out of the
/// metrics: it would always see itself in progress.
///
/// # Panics
///
/// Never: the templates of the table are well-formed and grouped here.
#[must_use]
pub fn route_table() -> RouteTable {
    let mut routes: Vec<(&str, Route)> = Vec::new();
    for operation in OPERATIONS {
        let index = routes.iter().position(|(template, _)| *template == operation.template).unwrap_or_else(|| {
            routes.push((operation.template, Route::new(operation.template)));
            routes.len() - 1
        });
        let (template, route) = routes.remove(index);
        let route = if template == METRICS.template {
            route.unrecorded(Method::GET).unrecorded(Method::HEAD)
        } else {
            let route = route.answers(operation.method.clone(), operation.statuses());
            if operation.serves(&Method::HEAD) { route.answers(Method::HEAD, operation.statuses()) } else { route }
        };
        routes.insert(index, (template, route));
    }
    let table = RouteTable::new(routes.into_iter().map(|(_, route)| route));
    table.expect("the templates of the table are well-formed").exact()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_error_is_documented_where_it_can_happen() {
        // Answered outside every operation, or seen by nobody.
        let elsewhere = [
            ErrorKind::InvalidHost,
            ErrorKind::UnknownPath,
            ErrorKind::MethodNotAllowed,
            ErrorKind::ClientClosedRequest,
        ];
        for kind in ErrorKind::ALL.iter().filter(|kind| !elsewhere.contains(kind)) {
            let documented = OPERATIONS.iter().any(|operation| operation.error_kinds().any(|known| known == *kind));
            assert!(documented, "no operation documents {kind:?}");
        }
    }

    #[test]
    fn operations_that_read_a_body_document_what_can_be_wrong_with_it() {
        for operation in OPERATIONS {
            let documented = BODY.iter().all(|kind| operation.error_kinds().any(|known| known == *kind));
            assert_eq!(operation.takes_body(), documented, "{}", operation.id);
        }
    }

    #[test]
    fn allow_lists_head_wherever_get_is_served() {
        assert_eq!(allowed_methods("/api/users"), "GET, HEAD, POST");
        assert_eq!(allowed_methods("/api/users/{id}"), "GET, HEAD, PUT, DELETE");
        assert_eq!(allowed_methods("/metrics"), "GET, HEAD");
    }

    #[test]
    fn every_template_is_in_the_route_table_and_resolves_to_itself() {
        let table = route_table();
        for operation in OPERATIONS {
            let path = operation.template.replace("{id}", "1").replace("{file}", "x.css");
            assert_eq!(table.resolve(&path), operation.template);
        }
    }
}
