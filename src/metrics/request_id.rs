//! The identity of a request: the caller's, if it sent a sane one, else one of ours.
//!
//! It goes into the response (`X-Request-Id`) and into every log line about the request, never into a label.

use std::cell::Cell;
use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::str::FromStr;

use http::HeaderValue;

use super::threads;

/// The header that carries the id, both ways.
pub const HEADER: &str = "x-request-id";

/// Longest id taken over from a caller, in bytes: a UUID has 36, a W3C trace id 55.
const MAX_BYTES: usize = 128;

/// An id that is safe to send and to log: 1 to 128 characters of `A–Z a–z 0–9 - _ . : / + = @ ~`.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestId(HeaderValue);

impl RequestId {
    fn sane(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@~".contains(&byte);
        let sane = (1..=MAX_BYTES).contains(&text.len()) && text.bytes().all(allowed);
        sane.then(|| HeaderValue::from_str(text).ok().map(Self)).flatten()
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().expect("an id is made of ASCII only")
    }

    /// The id for the response's header; nothing is left here.
    pub(super) fn take(&mut self) -> HeaderValue {
        std::mem::replace(&mut self.0, HeaderValue::from_static(""))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a caller sent as its id; parsing never fails, an insane id is simply none.
#[derive(Debug, Clone)]
pub(super) struct Offered(pub(super) Option<RequestId>);

impl FromStr for Offered {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(RequestId::sane(text)))
    }
}

/// Makes ids that are unique across processes (64 random bits) and within one (the thread and a count of its own).
#[derive(Debug)]
pub(super) struct RequestIds {
    process: String,
}

impl RequestIds {
    pub(super) fn new() -> Self {
        // RandomState is the standard library's own source of random keys: good enough for uniqueness, and an id is
        // no secret.
        Self { process: format!("{:016x}", RandomState::new().build_hasher().finish()) }
    }

    pub(super) fn next(&self) -> RequestId {
        thread_local! {
            static NEXT: Cell<u64> = const { Cell::new(0) };
        }
        let number = NEXT.replace(NEXT.get().wrapping_add(1));
        // Written in place: three numbers of at most 16 digits, and two dashes.
        let mut text = [0; 50];
        let mut rest = &mut text[..];
        write!(rest, "{}-{:x}-{number:x}", self.process, threads::number()).expect("there is room for all of it");
        let length = 50 - rest.len();
        RequestId(HeaderValue::from_bytes(&text[..length]).expect("hexadecimal digits and dashes make a header value"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sane_id_is_kept_and_an_insane_one_is_not() {
        let longest = "a".repeat(MAX_BYTES);
        let too_long = "a".repeat(MAX_BYTES + 1);
        let cases = [
            ("4bf92f3577b34da6a3ce929d0e0e4736", true, "a trace id"),
            ("2f1c-AZ_09.x:y/z+w=@~", true, "every allowed character"),
            (longest.as_str(), true, "the longest"),
            (too_long.as_str(), false, "one more than the longest"),
            ("", false, "empty"),
            ("a b", false, "a blank would break log lines apart"),
            ("a\"b", false, "a quote"),
            ("é", false, "not ASCII"),
        ];
        for (text, kept, reason) in cases {
            let Ok(Offered(id)) = text.parse::<Offered>();
            assert_eq!(id.map(|id| id.to_string()), kept.then(|| text.to_owned()), "{text:?}: {reason}");
        }
    }

    #[test]
    fn generated_ids_differ_and_are_sane() {
        let ids = RequestIds::new();

        let (first, second) = (ids.next(), ids.next());

        assert_ne!(first, second);
        assert_eq!(RequestId::sane(first.as_str()), Some(first));
    }
}
