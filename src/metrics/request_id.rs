//! The identity of a request: the caller's, if it sent a sane one, else one of ours.
//!
//! It goes into the response (`X-Request-Id`) and into every log line about the request, never into a label.

use std::cell::RefCell;
use std::collections::hash_map::RandomState;
use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::Write;
use std::str::FromStr;
use std::sync::LazyLock;

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

    /// A new id.
    pub(super) fn new() -> Self {
        thread_local! {
            static IDS: RefCell<Ids> = RefCell::new(Ids::of_this_thread());
        }
        IDS.with_borrow_mut(Ids::next)
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

/// Makes ids that are unique across processes (64 random bits) and within one (the thread, and a count of its own).
struct Ids {
    /// All of an id but the count: what is the same for a thread is written once.
    start: String,
    next: u64,
}

impl Ids {
    fn of_this_thread() -> Self {
        // RandomState is the standard library's own source of random keys: good enough for uniqueness, and an id is
        // no secret.
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
        Self { start: format!("{:016x}-{:x}-", *PROCESS, threads::number()), next: 0 }
    }

    fn next(&mut self) -> RequestId {
        let number = self.next;
        self.next += 1;
        // The start and 16 digits fit with room to spare; a thread's number has as many at most.
        let mut text = [0; 64];
        let mut rest = &mut text[..];
        rest.write_all(self.start.as_bytes()).and_then(|()| write!(rest, "{number:x}")).expect("it fits");
        let length = 64 - rest.len();
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
        let elsewhere = std::thread::spawn(|| [RequestId::new(), RequestId::new()]).join().unwrap();
        let ids = [[RequestId::new(), RequestId::new()], elsewhere].concat();

        for (index, id) in ids.iter().enumerate() {
            assert!(!ids[..index].contains(id), "{id} twice");
            assert_eq!(RequestId::sane(id.as_str()).as_ref(), Some(id));
        }
    }
}
