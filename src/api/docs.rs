//! Documentation served from the binary: the landing page, the OpenAPI description and Swagger UI.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use flate2::read::GzDecoder;
use headers::{ETag, HeaderMapExt, IfNoneMatch};
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use http::{HeaderMap, HeaderValue, StatusCode};
use sha2::{Digest, Sha256};
use utoipa_swagger_ui::Config;
use warp::reply::Response;

use super::input::decode_segment;
use super::problem::ApiError;
use super::{App, accept_encoding, openapi, surface};
use crate::metrics::accepts_gzip;

/// One static page; everything it needs is in it.
const LANDING: &str = include_str!("landing.html");

/// Swagger UI's own entry page, by its file name.
const SWAGGER_INDEX: &str = "index.html";

/// Swagger UI's script that names the description.
const SWAGGER_INITIALIZER: &str = "swagger-initializer.js";

/// The description as Swagger UI finds it: relative to `/docs/`, so that it also works behind a proxy that adds a prefix.
const DESCRIPTION: &str = "../openapi.json";

/// What the documentation handlers serve. Each is made when it is first asked for: a start should not wait for it.
pub struct Docs {
    landing: LazyLock<Document>,
    openapi: LazyLock<Document>,
    swagger_ui: LazyLock<Document>,
    /// Files of Swagger UI by name, each unpacked once, however many clients take it so.
    files: Mutex<HashMap<String, Arc<SwaggerFile>>>,
}

impl Docs {
    /// The documents of this binary.
    #[must_use]
    pub fn new() -> Self {
        Self {
            landing: LazyLock::new(|| Document::new(LANDING.into(), "text/html; charset=utf-8")),
            openapi: LazyLock::new(|| Document::new(openapi::to_json().into(), "application/json")),
            swagger_ui: LazyLock::new(swagger_index),
            files: Mutex::default(),
        }
    }

    fn swagger_file(&self, name: &str) -> Option<Arc<SwaggerFile>> {
        // Nothing that could panic half-way changes the map, and it holds no more than the binary does.
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = files.get(name) {
            return Some(Arc::clone(known));
        }
        let file = Arc::new(SwaggerFile::of(name)?);
        files.insert(name.to_owned(), Arc::clone(&file));
        Some(file)
    }
}

/// Swagger UI's page, with its relative links pointing into `/docs/`.
fn swagger_index() -> Document {
    let page = SwaggerFile::of(SWAGGER_INDEX).expect("the assets hold an index page");
    let text = String::from_utf8_lossy(&page.plain().body).replace("<head>", "<head>\n    <base href=\"docs/\">");
    Document::new(text.into(), &page.content_type)
}

/// A file of Swagger UI. Those of any size are compressed in the binary, which is smaller for it.
struct SwaggerFile {
    content_type: String,
    packed: Option<Document>,
    plain: OnceLock<Document>,
}

impl SwaggerFile {
    fn of(name: &str) -> Option<Self> {
        let found = utoipa_swagger_ui::serve(name, Arc::new(Config::from(DESCRIPTION))).ok().flatten()?;
        let bytes = match found.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        let content_type = found.content_type;
        let document = Document::new(bytes, &content_type);
        let (packed, plain) = if found.gzpipped {
            (Some(Document { is_gzip: true, ..document }), OnceLock::new())
        } else if name == SWAGGER_INITIALIZER {
            (None, OnceLock::from(Document::new(whole_address(&document.body), &content_type)))
        } else {
            (None, OnceLock::from(document))
        };
        Some(Self { content_type, packed, plain })
    }

    /// As it is without compression.
    fn plain(&self) -> &Document {
        self.plain.get_or_init(|| {
            let packed = self.packed.as_ref().expect("what is not plain is packed");
            let mut plain = Vec::new();
            GzDecoder::new(&packed.body[..]).read_to_end(&mut plain).expect("the build compressed it");
            Document::new(plain.into(), &self.content_type)
        })
    }
}

/// Makes the description's address a whole one. Swagger UI resolves it against the page's base when it loads it, but
/// against the page itself when it makes requests of what it describes; behind a prefix that would be another place.
fn whole_address(initializer: &[u8]) -> Bytes {
    let relative = format!("\"{DESCRIPTION}\"");
    let whole = format!("new URL({relative}, document.baseURI).href");
    String::from_utf8_lossy(initializer).replace(&relative, &whole).into()
}

/// What is sent under one entity tag.
struct Document {
    body: Bytes,
    content_type: HeaderValue,
    tag: ETag,
    is_gzip: bool,
}

impl Document {
    fn new(body: Bytes, content_type: &str) -> Self {
        // Of its content, so that a newer binary with the same file has the same tag.
        let digest = Sha256::digest(&body);
        let digest = URL_SAFE_NO_PAD.encode(&digest[..16]);
        Self {
            body,
            content_type: HeaderValue::from_str(content_type).expect("media types make a header value"),
            tag: format!("\"{digest}\"").parse().expect("letters, digits, - and _ in quotes make a tag"),
            is_gzip: false,
        }
    }

    /// The document, or word that the client's own is still good (RFC 9110, section 13.1.2).
    fn answer(&self, request: &HeaderMap) -> Response {
        let known = request.typed_get::<IfNoneMatch>().is_some_and(|known| !known.precondition_passes(&self.tag));
        let mut response = Response::new(if known { Bytes::new() } else { self.body.clone() }.into());
        let headers = response.headers_mut();
        headers.typed_insert(self.tag.clone());
        // A newer binary brings newer files under the same names: to be asked about before each use.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        if known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            return response;
        }
        headers.insert(CONTENT_TYPE, self.content_type.clone());
        if self.is_gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// `GET /`.
pub async fn landing(app: &App, request: &HeaderMap) -> Result<Response, ApiError> {
    Ok(app.docs().landing.answer(request))
}

/// `GET /openapi.json`.
pub async fn openapi_json(app: &App, request: &HeaderMap) -> Result<Response, ApiError> {
    Ok(app.docs().openapi.answer(request))
}

/// `GET /docs`.
pub async fn swagger_ui(app: &App, request: &HeaderMap) -> Result<Response, ApiError> {
    Ok(app.docs().swagger_ui.answer(request))
}

/// `GET /docs/{file}`, compressed where the client takes it so.
pub async fn swagger_file(app: &App, file: &str, request: &HeaderMap) -> Result<Response, ApiError> {
    let known = decode_segment(file).ok().and_then(|name| app.docs().swagger_file(&name));
    let unknown = || ApiError::UnknownPath(surface::DOCS_FILE.template.replace("{file}", file));
    let known = known.ok_or_else(unknown)?;
    let takes_gzip = accept_encoding(request).is_some_and(|accepted| accepts_gzip(&accepted));
    let document = known.packed.as_ref().filter(|_| takes_gzip).unwrap_or_else(|| known.plain());
    let mut response = document.answer(request);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::super::problem::ErrorKind;
    use super::*;

    #[test]
    fn the_landing_page_links_every_document_and_explains_every_kind_of_error() {
        for operation in surface::OPERATIONS.iter().filter(|operation| !operation.template.contains('{')) {
            assert!(LANDING.contains(&format!("href=\".{}", operation.template)), "no link to {}", operation.template);
        }
        for kind in ErrorKind::ALL {
            // In code style where the meaning has it.
            let pieces = kind.meaning().split('`').enumerate();
            let meaning: String = pieces
                .map(|(n, text)| if n % 2 == 0 { text.to_owned() } else { format!("<code>{text}</code>") })
                .collect();
            let (word, status) = (kind.error_type(), kind.status().as_u16());
            let row = format!(
                r#"<tr id="{word}"><th scope="row"><code>{word}</code></th><td>{status}</td><td>{meaning}</td>"#
            );
            assert!(LANDING.contains(&row), "no row\n{row}");
        }
    }

    #[test]
    fn the_landing_page_is_light_or_dark_as_its_reader_likes() {
        assert!(LANDING.contains("prefers-color-scheme: dark"));
    }

    #[test]
    fn the_landing_page_loads_nothing_from_elsewhere() {
        let without_icon = LANDING.replacen("<link rel=\"icon\" href=\"data:", "", 1);
        for forbidden in ["src=", "@import", "url(", "<link"] {
            assert!(!without_icon.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn every_file_that_swagger_ui_asks_for_is_in_the_binary() {
        let docs = Docs::new();
        for file in [
            SWAGGER_INDEX,
            "swagger-ui.css",
            "index.css",
            "swagger-ui-bundle.js",
            "swagger-ui-standalone-preset.js",
            SWAGGER_INITIALIZER,
        ] {
            assert!(docs.swagger_file(file).is_some(), "{file}");
        }
        let initializer = docs.swagger_file(SWAGGER_INITIALIZER).unwrap();
        let initializer = String::from_utf8_lossy(&initializer.plain().body);
        assert!(initializer.contains(r#""url": new URL("../openapi.json", document.baseURI).href"#), "{initializer}");
    }

    #[test]
    fn a_file_is_unpacked_once_for_all_who_take_it_so() {
        let docs = Docs::new();

        let [one, two] = [(); 2].map(|()| docs.swagger_file("swagger-ui-bundle.js").unwrap());

        let packed = one.packed.as_ref().unwrap();
        assert!(one.plain().body.len() > packed.body.len());
        assert_eq!(one.plain().body.as_ptr(), two.plain().body.as_ptr(), "slow readers hold one copy together");
        assert_ne!(one.plain().tag, packed.tag);
    }
}
