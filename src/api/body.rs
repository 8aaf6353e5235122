//! How a request's body is read: what its headers declare, up to which size, and who breaks it off.

use std::error::Error;
use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use futures_util::{Stream, TryStreamExt};
use http::header::{AsHeaderName, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue};
use mime::Mime;

use super::problem::{ApiError, BODY_MAX_BYTES};

/// How much of a body beyond the limit is still read and thrown away: a client that writes its whole body before it
/// reads would otherwise see a reset connection instead of the answer.
const DISCARD_MAX_BYTES: usize = 8 * 1024 * 1024;

/// How long that may take: a client that stalls gets its answer all the same.
const DISCARD_TIME: Duration = Duration::from_secs(2);

/// Some editors begin a file with it. RFC 8259, section 8.1, lets a parser ignore it.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What a request declares about its body.
#[derive(Debug)]
pub struct Declared {
    /// `Content-Type`, all its lines in one.
    content_type: Option<String>,
    /// Codings that are to be undone before the body can be read.
    encoding: Option<String>,
    /// `Content-Length`, if it is a number.
    length: Option<usize>,
    /// `Expect: 100-continue`: the client waits to be asked for the body.
    waits: bool,
}

impl Declared {
    /// Reads the headers.
    #[must_use]
    pub fn by(headers: &HeaderMap) -> Self {
        let (content, transfer) = (joined(headers, CONTENT_ENCODING), joined(headers, TRANSFER_ENCODING));
        Self {
            content_type: joined(headers, CONTENT_TYPE),
            encoding: content
                .filter(|codings| codes(codings, "identity"))
                .or_else(|| transfer.filter(|codings| codes(codings, "chunked"))),
            length: headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok()),
            waits: headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue")),
        }
    }
}

/// All lines of a header as one value, which they stand for (RFC 9110, section 5.3).
fn joined(headers: &HeaderMap, name: impl AsHeaderName) -> Option<String> {
    let lines: Vec<_> =
        headers.get_all(name).iter().map(|line| String::from_utf8_lossy(HeaderValue::as_bytes(line))).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

/// Whether a list of codings names another than the one that needs no undoing.
fn codes(codings: &str, none: &str) -> bool {
    codings.split(',').map(str::trim).any(|coding| !coding.is_empty() && !coding.eq_ignore_ascii_case(none))
}

/// Reads a JSON body up to the limit, without its byte order mark.
///
/// # Errors
///
/// When it is larger, ends early, is encoded, or is not empty and not declared as JSON.
pub async fn read_json<S, B>(mut stream: Pin<&mut S>, declared: &Declared) -> Result<Vec<u8>, ApiError>
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    if declared.length.is_some_and(|length| length > BODY_MAX_BYTES) {
        return Err(ApiError::BodyTooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = stream.try_next().await.map_err(unreadable)? {
        if body.len() + chunk.remaining() > BODY_MAX_BYTES {
            return Err(ApiError::BodyTooLarge);
        }
        append(&mut body, chunk);
    }
    if body.is_empty() {
        return Ok(body);
    }
    if let Some(encoding) = &declared.encoding {
        return Err(ApiError::UnsupportedEncoding(encoding.clone()));
    }
    if !declared.content_type.as_deref().is_some_and(is_json) {
        return Err(ApiError::UnsupportedMediaType(declared.content_type.clone()));
    }
    if body.starts_with(BYTE_ORDER_MARK) {
        body.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(body)
}

fn append(body: &mut Vec<u8>, mut chunk: impl Buf) {
    while chunk.has_remaining() {
        let piece = chunk.chunk();
        body.extend_from_slice(piece);
        let taken = piece.len();
        chunk.advance(taken);
    }
}

/// Reads on for a while after a body proved too large, so that the client gets to read the answer. One that waits to be
/// asked reads it anyhow.
pub async fn discard<S, B>(mut stream: Pin<&mut S>, declared: &Declared)
where
    S: Stream<Item = Result<B, warp::Error>>,
    B: Buf,
{
    if declared.waits || declared.length.is_some_and(|length| length > DISCARD_MAX_BYTES) {
        return;
    }
    let reading = async {
        let mut discarded = 0;
        while let Ok(Some(chunk)) = stream.try_next().await {
            discarded += chunk.remaining();
            if discarded > DISCARD_MAX_BYTES {
                break;
            }
        }
    };
    // The answer is the same, however much of the body came.
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

/// Tells a client that went away from one that sent chunks that are not well-formed, by what hyper gives as the cause.
fn unreadable(error: warp::Error) -> ApiError {
    let malformed = |error: &std::io::Error| matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::InvalidData);
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(next) = cause {
        let gone = next.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_incomplete_message)
            || next.downcast_ref::<std::io::Error>().is_some_and(|error| !malformed(error));
        if gone {
            return ApiError::ClientClosedRequest;
        }
        cause = next.source();
    }
    ApiError::UnreadableBody(Arc::new(error))
}

/// Whether a content type is JSON, which is UTF-8 (RFC 8259, section 8.1): another charset would be another text.
fn is_json(content_type: &str) -> bool {
    let Ok(mime) = without_blanks(content_type).parse::<Mime>() else { return false };
    let utf8 = |charset: mime::Name<'_>| ["utf-8", "utf8", "us-ascii"].into_iter().any(|known| charset == known);
    mime.essence_str() == mime::APPLICATION_JSON.essence_str() && mime.get_param(mime::CHARSET).is_none_or(utf8)
}

/// A media type without the blanks around its semicolons, and without semicolons that nothing follows: both are allowed
/// (RFC 9110, section 5.6.6), and the `mime` crate refuses them.
fn without_blanks(media_type: &str) -> String {
    let mut quoted = false;
    let pieces = media_type.split(|c| {
        quoted ^= c == '"';
        c == ';' && !quoted
    });
    pieces.map(|piece| piece.trim_matches([' ', '\t'])).filter(|piece| !piece.is_empty()).collect::<Vec<_>>().join(";")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_in_utf8_is_told_from_everything_else() {
        let cases = [
            ("application/json", true, "as registered"),
            ("Application/JSON;Charset=UTF-8", true, "in any case"),
            ("application/json ; charset=utf-8", true, "a blank before the semicolon"),
            ("application/json\t;\tcharset=\"utf-8\" ; x=\"a; b\"", true, "tabs; a semicolon in quotes"),
            ("application/json;", true, "nothing after the semicolon"),
            ("application/json; charset=us-ascii", true, "a part of UTF-8"),
            ("application/json; charset=iso-8859-1", false, "another charset"),
            ("application/json; charset=", false, "no value"),
            ("application/json charset=utf-8", false, "no semicolon"),
            ("application/json, application/json", false, "two types"),
            ("application/jsonl", false, "another type"),
            ("application/ json", false, "a blank inside"),
            (";application/json", true, "a semicolon that nothing comes before, which is taken for nothing"),
            ("\"", false, "a quote that does not end"),
            ("", false, "nothing"),
        ];
        for (content_type, expected, reason) in cases {
            assert_eq!(is_json(content_type), expected, "{content_type:?}: {reason}");
        }
    }

    #[test]
    fn codings_that_must_be_undone_are_told_from_those_that_must_not() {
        let declared = |lines: &[(&'static str, &'static str)]| {
            let lines = lines.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            Declared::by(&lines.collect::<HeaderMap>()).encoding
        };

        assert_eq!(declared(&[]), None);
        assert_eq!(declared(&[("content-encoding", "identity"), ("transfer-encoding", "Chunked")]), None);
        assert_eq!(declared(&[("content-encoding", " , Identity,")]), None);
        assert_eq!(declared(&[("content-encoding", "gzip")]).as_deref(), Some("gzip"));
        assert_eq!(declared(&[("transfer-encoding", "gzip, chunked")]).as_deref(), Some("gzip, chunked"));
    }
}
