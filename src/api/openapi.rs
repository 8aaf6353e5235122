//! The OpenAPI 3.1 description, made from the table of operations and from the Rust types of their bodies.
//!
//! Statuses and errors come from [`surface`]; this module adds what a table cannot say: parameters,
//! bodies, examples.

use serde_json::{Value, json};
use utoipa::openapi::content::{Content, ContentBuilder};
use utoipa::openapi::example::ExampleBuilder;
use utoipa::openapi::header::HeaderBuilder;
use utoipa::openapi::path::{HttpMethod, OperationBuilder, ParameterBuilder, ParameterIn, PathItem, PathsBuilder};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::response::ResponseBuilder;
use utoipa::openapi::schema::{ComponentsBuilder, ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{
    InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Schema, ServerBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use super::diagnostics::Slow;
use super::health::{Health, Ready};
use super::legacy::{ActiveUsers, CpuUsage};
use super::problem::{ApiError, ErrorKind, FieldError, HostFault, Panicked, Problem};
use super::surface::{self, OPERATIONS, Operation};
use super::users::{self, LIMIT_MAX, UserBody, UserFieldsBody, UserList};
use crate::metrics::CONTENT_TYPE_TEXT;
use crate::users::UserId;

const JSON: &str = "application/json";
const PROBLEM_JSON: &str = "application/problem+json";

/// The description as pretty-printed JSON, ending in a newline.
///
/// # Panics
///
/// Never: the description always serialises.
#[must_use]
pub fn to_json() -> String {
    let mut text = describe().to_pretty_json().expect("the description always serialises");
    text.push('\n');
    text
}

/// The description.
#[must_use]
pub fn describe() -> OpenApi {
    let info = InfoBuilder::new()
        .title("api-monitoring")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "A users API whose behaviour you can see: every request is counted, timed and logged. Errors are \
             `application/problem+json` (RFC 9457). Every response carries `X-Request-Id`: the caller's, if it sent a \
             sane one. HEAD is served wherever GET is; a known path with another method answers 405 with `Allow`. What \
             is no document says `Cache-Control: no-store`.",
        ))
        .license(Some(LicenseBuilder::new().name("MIT").identifier(Some("MIT")).build()));
    let ((name, name_schema), (email, email_schema)) = (users::name_schema(), users::email_schema());
    let components = ComponentsBuilder::new()
        .schema(name, name_schema)
        .schema(email, email_schema)
        .schema_from::<UserBody<'_>>()
        .schema_from::<UserList<'_>>()
        .schema_from::<UserFieldsBody>()
        .schema_from::<Health>()
        .schema_from::<Ready>()
        .schema_from::<Slow>()
        .schema_from::<ActiveUsers>()
        .schema_from::<CpuUsage>()
        .schema_from::<FieldError>()
        .schema_from::<Problem>();
    let paths = OPERATIONS.iter().fold(PathsBuilder::new(), |paths, operation| {
        paths.path(operation.template, PathItem::new(http_method(operation), describe_operation(operation)))
    });
    // Relative to where this description is: a proxy may serve it below a prefix.
    let here = ServerBuilder::new().url("./").description(Some("Where this description comes from.")).build();
    OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([here]))
        .paths(paths.build())
        .components(Some(components.build()))
        .build()
}

fn http_method(operation: &Operation) -> HttpMethod {
    match operation.method.as_str() {
        "GET" => HttpMethod::Get,
        "POST" => HttpMethod::Post,
        "PUT" => HttpMethod::Put,
        "DELETE" => HttpMethod::Delete,
        other => unreachable!("the table of operations has no {other}"),
    }
}

fn describe_operation(operation: &Operation) -> OperationBuilder {
    let builder =
        OperationBuilder::new().operation_id(Some(operation.id)).tag(operation.tag).summary(Some(operation.summary));
    let mut statuses: Vec<_> = operation.error_kinds().map(ErrorKind::status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    let builder = (operation.describe)(builder);
    let builder = if operation.is_document() {
        builder.response("304", document("The client's own is still good, as `If-None-Match` says."))
    } else {
        builder
    };
    statuses.into_iter().fold(builder, |builder, status| {
        let kinds: Vec<_> = operation.error_kinds().filter(|kind| kind.status() == status).collect();
        builder.response(status.as_str(), error_response(operation, &kinds))
    })
}

/// One response for all kinds of error that share a status, with an example of each.
fn error_response(operation: &Operation, kinds: &[ErrorKind]) -> ResponseBuilder {
    let meanings: Vec<_> = kinds.iter().map(|kind| format!("`{}`: {}", kind.error_type(), kind.meaning())).collect();
    let examples = kinds.iter().map(|&kind| {
        let problem = serde_json::to_value(example(operation, kind).problem()).expect("a problem always serialises");
        (kind.error_type(), ExampleBuilder::new().summary(kind.title()).value(Some(problem)).build())
    });
    let content =
        ContentBuilder::new().schema(Some(Ref::from_schema_name(Problem::name()))).examples_from_iter(examples).build();
    let response = response(meanings.join(" ")).content(PROBLEM_JSON, content);
    if kinds.iter().any(|kind| kind.status() == http::StatusCode::SERVICE_UNAVAILABLE) {
        return response.header(
            "Retry-After",
            HeaderBuilder::new()
                .schema(Some(integer(0, None)))
                .description(Some("Seconds to wait before another try."))
                .build(),
        );
    }
    response
}

/// An error of that kind as the operation could answer it.
fn example(operation: &Operation, kind: ErrorKind) -> ApiError {
    let cause = || std::sync::Arc::new(std::io::Error::other("example"));
    let id = UserId::new(42).expect("42 is positive");
    match kind {
        ErrorKind::InvalidHost => ApiError::InvalidHost(HostFault::Missing),
        ErrorKind::MalformedQuery => ApiError::MalformedQuery("is not percent-encoded UTF-8 at \"%zz\"".to_owned()),
        ErrorKind::MalformedJson => {
            ApiError::MalformedJson("EOF while parsing an object at line 1 column 1".to_owned())
        }
        ErrorKind::UnreadableBody => ApiError::UnreadableBody(cause()),
        ErrorKind::NotFound => ApiError::NotFound(id),
        ErrorKind::UnknownPath => ApiError::UnknownPath("/docs/nothing.js".to_owned()),
        ErrorKind::MethodNotAllowed => ApiError::MethodNotAllowed {
            method: "PATCH".to_owned(),
            path: operation.template.to_owned(),
            allow: surface::allowed_methods(operation.template),
        },
        ErrorKind::BodyTimeout => ApiError::BodyTimeout(std::time::Duration::from_secs(10)),
        ErrorKind::BodyDisplaced => ApiError::BodyDisplaced,
        ErrorKind::BodyTooLarge => ApiError::BodyTooLarge,
        ErrorKind::UnsupportedMediaType => ApiError::UnsupportedMediaType(Some("text/plain".to_owned())),
        ErrorKind::UnsupportedEncoding => ApiError::UnsupportedEncoding("gzip".to_owned()),
        ErrorKind::Validation => ApiError::Validation(vec![example_field(operation)]),
        ErrorKind::ClientClosedRequest => ApiError::ClientClosedRequest,
        ErrorKind::Simulated => ApiError::Simulated,
        ErrorKind::StoreFailed => ApiError::StoreFailed(crate::store::StoreError::Failed(cause())),
        ErrorKind::Panic => ApiError::Panic(Panicked("example".to_owned())),
        ErrorKind::Internal => ApiError::Internal(cause()),
        ErrorKind::Overloaded => ApiError::Overloaded,
        ErrorKind::Starting => ApiError::Starting,
        ErrorKind::Draining => ApiError::Draining,
        ErrorKind::StoreUnavailable => ApiError::StoreUnavailable(crate::store::StoreError::Unavailable(cause())),
        ErrorKind::Timeout => ApiError::Timeout(std::time::Duration::from_secs(10)),
    }
}

fn example_field(operation: &Operation) -> FieldError {
    match operation.id {
        "list_users" => FieldError::new("limit", format!("must be an integer from 1 to {LIMIT_MAX}"), Some("0")),
        "create_user" => FieldError::new("name", "must not be empty or blank", Some(" ")),
        "update" => FieldError::new("users", format!("must be an integer from 0 to {}", i64::MAX), Some("-1")),
        "cpu" => FieldError::new("value", "must be a number from 0 to 100", Some("101")),
        _ => FieldError::new("id", format!("must be an integer from 1 to {}", i64::MAX), Some("abc")),
    }
}

// ---- What each operation takes and gives ----

pub(super) fn list_users(operation: OperationBuilder) -> OperationBuilder {
    operation
        .description(Some(
            "Without `limit`, all users are streamed in bounded memory, however many there are. A listing that breaks \
             off, because the database stopped answering half-way, ends without its last chunk.",
        ))
        .parameter(query("limit", integer(1, Some(i64::from(LIMIT_MAX))), false, "Users on a page.", json!(100)))
        .parameter(query("after", integer(0, Some(i64::MAX)), false, "The last id seen: the page before.", json!(0)))
        .response("200", json_response::<UserList<'_>>("The users, ordered by id."))
}

pub(super) fn create_user(operation: OperationBuilder) -> OperationBuilder {
    user_input(operation, "Both fields must be given, each in the query or in the body.").response(
        "201",
        json_response::<UserBody<'_>>("The user, with its id.").header(
            "Location",
            HeaderBuilder::new()
                .schema(Some(text(Some("uri-reference"))))
                .description(Some("The new user's path."))
                .build(),
        ),
    )
}

pub(super) fn get_user(operation: OperationBuilder) -> OperationBuilder {
    operation.parameter(user_id()).response("200", json_response::<UserBody<'_>>("The user."))
}

pub(super) fn update_user(operation: OperationBuilder) -> OperationBuilder {
    user_input(operation.parameter(user_id()), "One field or both must be given, each in the query or in the body.")
        .response("200", json_response::<UserBody<'_>>("The user as it now is."))
}

pub(super) fn delete_user(operation: OperationBuilder) -> OperationBuilder {
    operation.parameter(user_id()).response("204", response("The user is deleted."))
}

pub(super) fn health(operation: OperationBuilder) -> OperationBuilder {
    operation.response("200", json_response::<Health>("The process answers."))
}

pub(super) fn ready(operation: OperationBuilder) -> OperationBuilder {
    operation.response("200", json_response::<Ready>("The store answers; traffic is welcome."))
}

pub(super) fn metrics(operation: OperationBuilder) -> OperationBuilder {
    operation
        .description(Some("Compressed with gzip when `Accept-Encoding` allows it. Scrapes are not counted."))
        .response("200", response("All series of the registry.").content(CONTENT_TYPE_TEXT, text_content()))
}

pub(super) fn slow(operation: OperationBuilder) -> OperationBuilder {
    operation.response("200", json_response::<Slow>("How long the answer was held back."))
}

pub(super) fn error(operation: OperationBuilder) -> OperationBuilder {
    // Its only answer is the error of the table.
    operation
}

pub(super) fn update(operation: OperationBuilder) -> OperationBuilder {
    operation
        .parameter(query("users", integer(0, Some(i64::MAX)), true, "Active users.", json!(42)))
        .response("200", json_response::<ActiveUsers>("The gauge as it now is."))
}

pub(super) fn cpu(operation: OperationBuilder) -> OperationBuilder {
    let percent =
        ObjectBuilder::new().schema_type(SchemaType::new(Type::Number)).minimum(Some(0)).maximum(Some(100)).build();
    operation
        .parameter(query("value", percent.into(), true, "CPU usage in percent.", json!(12.5)))
        .response("200", json_response::<CpuUsage>("The gauge as it now is."))
}

pub(super) fn openapi_json(operation: OperationBuilder) -> OperationBuilder {
    let object = ObjectBuilder::new().schema_type(SchemaType::new(Type::Object)).build();
    let content = ContentBuilder::new().schema(Some(Schema::from(object))).build();
    operation.response("200", document("This description.").content(JSON, content))
}

pub(super) fn docs(operation: OperationBuilder) -> OperationBuilder {
    operation.response("200", document("Swagger UI.").content("text/html", text_content()))
}

pub(super) fn docs_file(operation: OperationBuilder) -> OperationBuilder {
    let file = ParameterBuilder::new()
        .name("file")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .schema(Some(text(None)))
        .example(Some(json!("swagger-ui.css")))
        .build();
    operation.parameter(file).response("200", document("The file.").content("*/*", text_content()))
}

pub(super) fn landing(operation: OperationBuilder) -> OperationBuilder {
    operation.response("200", document("The page.").content("text/html; charset=utf-8", text_content()))
}

// ---- Pieces ----

/// Every response carries its request id.
fn response(description: impl Into<String>) -> ResponseBuilder {
    let id =
        HeaderBuilder::new().schema(Some(text(None))).description(Some("Identifies this request in the logs.")).build();
    ResponseBuilder::new().description(description).header("X-Request-Id", id)
}

fn json_response<T: ToSchema>(description: &str) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build();
    response(description).content(JSON, content)
}

/// What a client may keep, and ask about before it is sent again.
fn document(description: &str) -> ResponseBuilder {
    let tag = HeaderBuilder::new().schema(Some(text(None))).description(Some("Names this very content.")).build();
    response(description).header("ETag", tag)
}

fn text_content() -> Content {
    ContentBuilder::new().schema(Some(text(None))).build()
}

/// `name` and `email` as query parameters, or as a JSON body.
fn user_input(operation: OperationBuilder, rule: &str) -> OperationBuilder {
    let body = ContentBuilder::new().schema(Some(Ref::from_schema_name(UserFieldsBody::name()))).build();
    operation
        .description(Some(format!("{rule} A field that is given in both places is an error, which no schema can say.")))
        .parameter(optional_query("name", users::name_reference(), "The name, unless the body gives it."))
        .parameter(optional_query("email", users::email_reference(), "The e-mail address, unless the body gives it."))
        .request_body(Some(RequestBodyBuilder::new().content(JSON, body).required(Some(Required::False)).build()))
}

fn user_id() -> ParameterBuilder {
    ParameterBuilder::new()
        .name("id")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The user's id."))
        .schema(Some(integer(1, Some(i64::MAX))))
        .example(Some(json!(1)))
}

fn query(name: &str, schema: RefOr<Schema>, required: bool, description: &str, example: Value) -> ParameterBuilder {
    let required = if required { Required::True } else { Required::False };
    optional_query(name, schema, description).required(required).example(Some(example))
}

/// Without an example: Swagger UI would send it beside the body's, which is an error.
fn optional_query(name: &str, schema: RefOr<Schema>, description: &str) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
}

fn integer(minimum: i64, maximum: Option<i64>) -> RefOr<Schema> {
    let RefOr::T(Schema::Object(mut schema)) = i64::schema() else { unreachable!("an i64 is a plain schema") };
    schema.minimum = Some(minimum.into());
    schema.maximum = maximum.map(Into::into);
    Schema::Object(schema).into()
}

fn text(format: Option<&str>) -> RefOr<Schema> {
    let format = format.map(|format| utoipa::openapi::SchemaFormat::Custom(format.to_owned()));
    ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).format(format).build().into()
}
