//! Documentation served from the binary: the landing page, the OpenAPI description and Swagger UI.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::HeaderValue;
use http::header::{CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, VARY};
use utoipa_swagger_ui::Config;
use warp::reply::Response;

use super::input::decode_segment;
use super::problem::ApiError;
use super::{App, openapi, surface};

/// One static page; everything it needs is in it.
const LANDING: &str = include_str!("landing.html");

/// Swagger UI's own entry page, by its file name.
const SWAGGER_INDEX: &str = "index.html";

/// What the documentation handlers serve, made once at start.
pub struct Docs {
    openapi: Bytes,
    swagger: Arc<Config<'static>>,
    /// Files as they are unpacked, by name: each once, however many clients take it so.
    unpacked: Mutex<HashMap<String, Bytes>>,
}

impl Docs {
    /// Renders the description of the operations.
    #[must_use]
    pub fn new() -> Self {
        // Relative to `/docs/`, so that it also works behind a proxy that adds a prefix.
        Self {
            openapi: openapi::to_json().into(),
            swagger: Arc::new(Config::from("../openapi.json")),
            unpacked: Mutex::default(),
        }
    }

    fn swagger_file(&self, file: &str) -> Option<File> {
        let found = utoipa_swagger_ui::serve(file, Arc::clone(&self.swagger)).ok().flatten()?;
        let bytes = match found.bytes {
            Cow::Borrowed(bytes) => Bytes::from_static(bytes),
            Cow::Owned(bytes) => bytes.into(),
        };
        Some(File { bytes, is_gzip: found.gzpipped, content_type: found.content_type })
    }

    /// The bytes of a file without compression.
    fn plain(&self, name: &str, file: &File) -> Bytes {
        if !file.is_gzip {
            return file.bytes.clone();
        }
        // Nothing that could panic half-way changes the map.
        let mut unpacked = self.unpacked.lock().unwrap_or_else(PoisonError::into_inner);
        let unpack = || {
            let mut plain = Vec::new();
            GzDecoder::new(&file.bytes[..]).read_to_end(&mut plain).expect("the build compressed it");
            plain.into()
        };
        unpacked.entry(name.to_owned()).or_insert_with(unpack).clone()
    }
}

/// A file of Swagger UI. Those of any size are compressed in the binary, which is smaller for it.
struct File {
    bytes: Bytes,
    is_gzip: bool,
    content_type: String,
}

/// `GET /`.
pub async fn landing() -> Result<Response, ApiError> {
    Ok(document(LANDING.into(), "text/html; charset=utf-8"))
}

/// `GET /openapi.json`.
pub async fn openapi_json(app: &App) -> Result<Response, ApiError> {
    Ok(document(app.docs().openapi.clone(), "application/json"))
}

/// `GET /docs`: Swagger UI's page, with its relative links pointing into `/docs/`.
pub async fn swagger_ui(app: &App) -> Result<Response, ApiError> {
    let page = app.docs().swagger_file(SWAGGER_INDEX).expect("the assets hold an index page");
    let text = String::from_utf8_lossy(&app.docs().plain(SWAGGER_INDEX, &page))
        .replace("<head>", "<head>\n    <base href=\"docs/\">");
    Ok(document(text.into(), &page.content_type))
}

/// `GET /docs/{file}`, compressed where the client takes it so.
pub async fn swagger_file(app: &App, file: &str, takes_gzip: bool) -> Result<Response, ApiError> {
    let known = decode_segment(file).ok().and_then(|name| Some((app.docs().swagger_file(&name)?, name)));
    let unknown = || ApiError::UnknownPath(surface::DOCS_FILE.template.replace("{file}", file));
    let (file, name) = known.ok_or_else(unknown)?;
    let as_it_is = file.is_gzip && takes_gzip;
    let body = if as_it_is { file.bytes.clone() } else { app.docs().plain(&name, &file) };
    let mut response = document(body, &file.content_type);
    response.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
    if as_it_is {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(response)
}

fn document(body: Bytes, content_type: &str) -> Response {
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    let content_type = HeaderValue::from_str(content_type);
    headers.insert(CONTENT_TYPE, content_type.expect("media types make a header value"));
    // A newer binary brings newer files under the same names.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
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
            "swagger-initializer.js",
        ] {
            assert!(docs.swagger_file(file).is_some(), "{file}");
        }
        let initializer = docs.swagger_file("swagger-initializer.js").unwrap();
        let initializer = docs.plain("swagger-initializer.js", &initializer);
        assert!(String::from_utf8_lossy(&initializer).contains("../openapi.json"));
    }

    #[test]
    fn a_file_is_unpacked_once_for_all_who_take_it_so() {
        let docs = Docs::new();
        let file = docs.swagger_file("swagger-ui-bundle.js").unwrap();

        let [one, two] = [(); 2].map(|()| docs.plain("swagger-ui-bundle.js", &file));

        assert!(file.is_gzip && one.len() > file.bytes.len());
        assert_eq!(one.as_ptr(), two.as_ptr(), "clients that read slowly hold one copy together");
    }
}
