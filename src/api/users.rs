//! The handlers of `/api/users`: parsed input in, a user or an [`ApiError`] out.

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use sync_wrapper::SyncStream;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, SchemaType, Type};
use utoipa::openapi::{Ref, RefOr, Schema, SchemaFormat};
use warp::reply::{Reply, Response};

use super::input::{Fields, decode_segment, integer};
use super::problem::{ApiError, FieldError};
use super::{App, json, surface};
use crate::store::{StoreError, UserStore};
use crate::users::{EMAIL_MAX_CHARS, Email, Invalid, NAME_MAX_CHARS, NewUser, User, UserChange, UserId, UserName};

/// Largest `limit` of a page.
pub const LIMIT_MAX: u32 = 1000;

/// Users read and held at once while all of them are listed: some 20 KB of JSON as a rule, half a megabyte at the most.
const CHUNK: u32 = 250;

/// The fields of a user that a client gives.
const FIELDS: &[&str] = &["name", "email"];

/// A user as clients see it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User, example = json!({"id": 1, "name": "John", "email": "john@example.com"}))]
pub struct UserBody<'a> {
    /// Given by the service; grows and is never reused.
    #[schema(value_type = i64, minimum = 1)]
    pub id: UserId,
    /// 1 to 200 characters.
    #[schema(min_length = 1, max_length = 200)]
    pub name: &'a str,
    /// A syntactically valid address; it need not be unique.
    #[schema(format = "idn-email", max_length = 254)]
    pub email: &'a str,
}

impl<'a> From<&'a User> for UserBody<'a> {
    fn from(user: &'a User) -> Self {
        Self { id: user.id, name: user.name.as_str(), email: user.email.as_str() }
    }
}

/// A listing: of a page, or of all users.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "users": [{"id": 1, "name": "John", "email": "john@example.com"}], "count": 1, "next": null
}))]
pub struct UserList<'a> {
    /// Ordered by id.
    pub users: Vec<UserBody<'a>>,
    /// The length of `users`.
    #[schema(minimum = 0)]
    pub count: usize,
    /// Only with `limit`: the `after` of the next page, or null on the last.
    #[schema(value_type = Option<i64>, required = false)]
    pub next: Option<UserId>,
}

/// The fields of a user that a client gives in a body; those left out may stand in the query.
#[derive(ToSchema)]
#[schema(as = UserFields, example = json!({"name": "John", "email": "john@example.com"}))]
#[serde(deny_unknown_fields)]
#[allow(dead_code, reason = "the schema of what is parsed field by field")]
pub struct UserFieldsBody {
    #[schema(schema_with = name_reference, required = false)]
    name: Option<String>,
    #[schema(schema_with = email_reference, required = false)]
    email: Option<String>,
}

/// The name of the schema of names, and what it says. Blanks around a name do not count, which no schema can say: this one
/// asks for a little more than the service does.
pub fn name_schema() -> (&'static str, Schema) {
    let rule = "1 to 200 characters after trimming, something visible among them; no control characters, no line breaks \
                and none that change the direction of text.";
    let text = ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).description(Some(rule));
    let text = text.min_length(Some(1)).max_length(Some(NAME_MAX_CHARS)).pattern(Some(UserName::pattern()));
    ("Name", text.build().into())
}

/// The name of the schema of addresses, and what it says. What is limited in bytes is said in words only.
pub fn email_schema() -> (&'static str, Schema) {
    let rule = "A syntactically valid address of at most 254 characters, with at most 64 bytes before the `@` and a domain \
                of at most 253 bytes, 63 in each of its parts. It need not be unique.";
    let text = ObjectBuilder::new().schema_type(SchemaType::new(Type::String)).description(Some(rule));
    let text = text.format(Some(SchemaFormat::Custom("idn-email".to_owned())));
    let text = text.min_length(Some(3)).max_length(Some(EMAIL_MAX_CHARS)).pattern(Some(Email::pattern()));
    ("Email", text.build().into())
}

/// Refers to [`name_schema`].
pub fn name_reference() -> RefOr<Schema> {
    Ref::from_schema_name("Name").into()
}

/// Refers to [`email_schema`].
pub fn email_reference() -> RefOr<Schema> {
    Ref::from_schema_name("Email").into()
}

/// `GET /api/users`: one page with `limit`, else everything after `after`, streamed.
pub async fn list(app: &App, query: &str) -> Result<Response, ApiError> {
    let mut fields = Fields::from_query(&["limit", "after"], query)?;
    let limit = fields.optional("limit", |text| integer(text, 1..=LIMIT_MAX));
    let after = fields.optional("after", |text| integer(text, 0..=i64::MAX)).unwrap_or(0);
    fields.finish()?;
    match limit {
        Some(limit) => page(app.store()?, after, limit).await,
        None => all(app, after).await,
    }
}

async fn page(store: &UserStore, after: i64, limit: u32) -> Result<Response, ApiError> {
    // One more than asked for tells whether there is a next page.
    let mut users = store.page(after, limit + 1).await?;
    let more = users.len() > limit as usize;
    users.truncate(limit as usize);
    let next = users.last().filter(|_| more).map(|user| user.id);
    let users: Vec<UserBody<'_>> = users.iter().map(UserBody::from).collect();
    Ok(json(StatusCode::OK, &UserList { count: users.len(), users, next }))
}

/// Lists everything in bounded memory: a chunk is read when the socket has taken the one before it. No read
/// transaction stays open in between, so a slow client holds up nobody; a user that exists throughout is listed exactly
/// once, because ids only grow.
async fn all(app: &App, after: i64) -> Result<Response, ApiError> {
    let permit = app.listing_permit()?;
    let store = app.store()?.clone();
    // The first chunk is read before the status is sent, so that a database that does not answer is a 503.
    let first = store.page(after, CHUNK).await?;
    let listing = Listing { store, state: State::First(first), count: 0, _permit: permit };
    let chunks = stream::unfold(listing, |mut listing| async move {
        let chunk = listing.chunk().await.transpose()?;
        Some((chunk, listing))
    });
    let mut response = warp::reply::stream(SyncStream::new(Box::pin(chunks))).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A listing that is being sent.
struct Listing {
    store: UserStore,
    state: State,
    count: usize,
    _permit: OwnedSemaphorePermit,
}

enum State {
    /// Nothing was sent yet.
    First(Vec<User>),
    /// Users up to this id were sent.
    After(UserId),
    /// The end was sent, or the listing broke off.
    Ended,
}

impl Listing {
    /// The next piece of the body, or `None` after the last. An error breaks the body off, so that the client cannot
    /// take a part for the whole.
    async fn chunk(&mut self) -> Result<Option<Bytes>, StoreError> {
        let (mut text, users) = match std::mem::replace(&mut self.state, State::Ended) {
            State::First(users) => (br#"{"users":["#.to_vec(), users),
            State::After(last) => {
                let users = self.store.page(last.get(), CHUNK).await.inspect_err(|error| {
                    tracing::error!(cause = %error, sent = self.count, "a listing broke off");
                })?;
                (Vec::new(), users)
            }
            State::Ended => return Ok(None),
        };
        for user in &users {
            if self.count > 0 {
                text.push(b',');
            }
            serde_json::to_writer(&mut text, &UserBody::from(user)).expect("strings and numbers always serialise");
            self.count += 1;
        }
        match users.last() {
            Some(last) if users.len() == CHUNK as usize => self.state = State::After(last.id),
            _ => text.extend_from_slice(format!(r#"],"count":{}}}"#, self.count).as_bytes()),
        }
        Ok(Some(text.into()))
    }
}

/// `GET /api/users/{id}`.
pub async fn get(app: &App, id: &str) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    let user = app.store()?.user(id).await?.ok_or(ApiError::NotFound(id))?;
    Ok(json(StatusCode::OK, &UserBody::from(&*user)))
}

/// `POST /api/users`.
pub async fn create(app: &App, query: &str, body: &[u8]) -> Result<Response, ApiError> {
    let mut fields = fields(query, body)?;
    let name = fields.required("name", str::parse::<UserName>);
    let email = fields.required("email", str::parse::<Email>);
    fields.finish()?;
    let new = name.zip(email).map(|(name, email)| NewUser { name, email }).expect("no error means both were given");
    let user = app.store()?.create(new).await?;

    let mut response = json(StatusCode::CREATED, &UserBody::from(&user));
    let location = surface::GET_USER.template.replace("{id}", &user.id.to_string());
    let location = HeaderValue::try_from(location).expect("a path of ASCII makes a header value");
    response.headers_mut().insert(LOCATION, location);
    Ok(response)
}

/// `PUT /api/users/{id}`.
pub async fn update(app: &App, id: &str, query: &str, body: &[u8]) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    let mut fields = fields(query, body)?;
    let change = UserChange {
        name: fields.optional("name", str::parse::<UserName>),
        email: fields.optional("email", str::parse::<Email>),
    };
    fields.finish()?;
    if change.name.is_none() && change.email.is_none() {
        let missing = |field| FieldError::new(field, "is missing (name, email or both must be given)", None);
        return Err(ApiError::Validation(FIELDS.iter().map(|field| missing(field)).collect()));
    }
    let user = app.store()?.update(id, change).await?.ok_or(ApiError::NotFound(id))?;
    Ok(json(StatusCode::OK, &UserBody::from(&user)))
}

/// `DELETE /api/users/{id}`.
pub async fn delete(app: &App, id: &str) -> Result<Response, ApiError> {
    let id = parse_id(id)?;
    if !app.store()?.delete(id).await? {
        return Err(ApiError::NotFound(id));
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

fn fields(query: &str, body: &[u8]) -> Result<Fields, ApiError> {
    let fields = Fields::from_query(FIELDS, query)?;
    if body.is_empty() { Ok(fields) } else { fields.and_json(FIELDS, body) }
}

fn parse_id(segment: &str) -> Result<UserId, ApiError> {
    let text = decode_segment(segment).unwrap_or_else(str::to_owned);
    text.parse().map_err(|error: Invalid| ApiError::invalid("id", error.to_string(), Some(&text)))
}
