//! What may be shown of an answer. A gateway, or a proxy before it, may repeat the request in its error page, credentials
//! and all; messages go to stderr and into logs, where they must not be.
//!
//! An answer to a request with credentials is shown only where nothing in it looks like a piece of them: as they are, or
//! encoded in any way that is known here. Of 401, 403 and 407, which are about credentials, only the status is shown.

use std::collections::HashSet;
use std::fmt::{self, Write as _};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use percent_encoding::percent_decode;

/// How long a piece is that counts as one, in letters and digits: a third of the whole, within these.
const PIECE: std::ops::RangeInclusive<usize> = 4..=6;

/// The header with credentials for a proxy, which are the environment's and not known here. A page that repeats the
/// request names it.
const PROXYS: &[u8] = b"proxyauthorization";

/// How often an encoding may be in another one.
const ROUNDS: usize = 3;

type Decode = fn(&[u8]) -> Vec<u8>;

/// The credentials of a request, in the forms in which an answer may repeat them.
#[derive(Default)]
pub(super) struct Sent {
    /// Whole secrets, as they are.
    secrets: Vec<Vec<u8>>,
    /// Pieces of their forms; of these, only letters and digits, all small.
    pieces: HashSet<Vec<u8>>,
    lengths: HashSet<usize>,
}

impl Sent {
    /// A user's password.
    pub(super) fn basic(username: &str, password: &str) -> Self {
        let mut sent = Self::default();
        sent.add(password);
        sent.add_encoded(&format!("{username}:{password}"));
        sent
    }

    /// A token.
    pub(super) fn bearer(token: &str) -> Self {
        let mut sent = Self::default();
        sent.add(token);
        sent
    }

    fn add(&mut self, secret: &str) {
        // Blanks around it may be cut off with those around the answer.
        self.secrets.push(secret.trim().as_bytes().to_owned());
        self.add_form(secret);
        self.add_encoded(secret);
    }

    /// Adds base64 and hexadecimal digits.
    fn add_encoded(&mut self, secret: &str) {
        let digits = secret.bytes().fold(String::new(), |mut digits, byte| {
            let _ = write!(digits, "{byte:02x}");
            digits
        });
        self.add_form(&digits);
        for before in 0..3 {
            // What stands before it decides how it comes out; its first and last characters are not its alone.
            let encoded = BASE64_STANDARD.encode([&vec![0; before], secret.as_bytes()].concat());
            let own = (before * 8).div_ceil(6)..(before + secret.len()) * 8 / 6;
            self.add_form(&encoded[own]);
        }
    }

    fn add_form(&mut self, form: &str) {
        // Backwards, too.
        for form in [form.to_owned(), form.chars().rev().collect()] {
            let plain = plain(form.as_bytes());
            let length = (plain.len() / 3).clamp(*PIECE.start(), *PIECE.end()).min(plain.len());
            if length > 0 {
                self.lengths.insert(length);
                self.pieces.extend(plain.windows(length).map(<[u8]>::to_vec));
            }
        }
    }

    /// Whether an answer of this status says anything that may be shown.
    pub(super) fn allows(&self, status: StatusCode) -> bool {
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.secrets.is_empty(),
            // Credentials for a proxy are the environment's, and not known here.
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => false,
            _ => true,
        }
    }

    /// Whether nothing in a text looks like a piece of the credentials.
    pub(super) fn is_not_in(&self, text: &[u8]) -> bool {
        if plain(text).windows(PROXYS.len()).any(|window| window == PROXYS) {
            return false;
        }
        if self.secrets.is_empty() {
            return true;
        }
        let mut text = text.to_vec();
        for _ in 0..ROUNDS {
            for decode in [<[u8]>::to_vec as Decode, |text| percent_decode(text).collect(), entities, escapes] {
                text = decode(&text);
                if self.is_plainly_in(&text) {
                    return false;
                }
            }
        }
        true
    }

    fn is_plainly_in(&self, text: &[u8]) -> bool {
        let is_in = |secret: &Vec<u8>| text.windows(secret.len().max(1)).any(|window| window == secret.as_slice());
        let plain = plain(text);
        self.secrets.iter().any(is_in)
            || self.lengths.iter().any(|length| plain.windows(*length).any(|piece| self.pieces.contains(piece)))
    }
}

impl fmt::Debug for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What no encoding changes: letters and digits, all small, and what is not ASCII.
fn plain(text: &[u8]) -> Vec<u8> {
    let letters = text.iter().filter(|byte| byte.is_ascii_alphanumeric() || !byte.is_ascii());
    letters.map(u8::to_ascii_lowercase).collect()
}

/// A text without HTML's entities.
fn entities(text: &[u8]) -> Vec<u8> {
    replaced(text, b'&', |rest| {
        let end = rest.iter().take(10).position(|byte| *byte == b';')?;
        let name = str::from_utf8(&rest[..end]).ok()?;
        let c = match name.strip_prefix('#') {
            Some(number) => {
                let number = match number.strip_prefix(['x', 'X']) {
                    Some(digits) => u32::from_str_radix(digits, 16),
                    None => number.parse(),
                };
                char::from_u32(number.ok()?)?
            }
            None => match name {
                "amp" => '&',
                "lt" => '<',
                "gt" => '>',
                "quot" => '"',
                "apos" => '\'',
                _ => return None,
            },
        };
        Some((c, end + 1))
    })
}

/// A text without the escape sequences of JSON and of programs' literals.
fn escapes(text: &[u8]) -> Vec<u8> {
    replaced(text, b'\\', |rest| {
        let digits = match rest.first()? {
            b'u' => 4,
            b'x' => 2,
            other => return Some((char::from(*other), 1)),
        };
        let number = str::from_utf8(rest.get(1..=digits)?).ok()?;
        Some((char::from_u32(u32::from_str_radix(number, 16).ok()?)?, digits + 1))
    })
}

/// Puts characters in the place of sequences that begin with `mark`. `read` gets what follows the mark, and gives the
/// character and how much of that it took.
fn replaced(text: &[u8], mark: u8, read: impl Fn(&[u8]) -> Option<(char, usize)>) -> Vec<u8> {
    let (mut decoded, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some((first, after)) = rest.split_first() {
        if let Some((c, taken)) = Some(after).filter(|_| *first == mark).and_then(&read) {
            decoded.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            rest = &after[taken..];
        } else {
            decoded.push(*first);
            rest = after;
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    /// Ways in which an answer may repeat a text.
    fn repetitions(secret: &str) -> Vec<String> {
        let json = serde_json::to_string(secret).unwrap();
        let html = secret.chars().fold(String::new(), |html, c| format!("{html}&#{};", u32::from(c)));
        let unicode = secret.encode_utf16().fold(String::new(), |text, unit| format!("{text}\\u{unit:04x}"));
        let percent = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
        vec![
            secret.to_owned(),
            secret.to_ascii_uppercase(),
            secret.chars().rev().collect(),
            secret.chars().fold(String::new(), |apart, c| format!("{apart}{c}\n ")),
            BASE64_STANDARD.encode(secret),
            BASE64_STANDARD.encode(format!("a{secret}bc")),
            BASE64_STANDARD.encode(format!("ab{secret}c")),
            secret.bytes().fold(String::new(), |digits, byte| format!("{digits}{byte:02X}")),
            utf8_percent_encode(&percent, NON_ALPHANUMERIC).to_string(),
            serde_json::to_string(&json).unwrap(),
            html.replace('&', "&amp;"),
            percent,
            json,
            html,
            unicode,
        ]
    }

    #[test]
    fn credentials_are_found_however_they_are_repeated() {
        for secret in ["hunter2", "p@ss/w0rd!", "a\"b\\c<d>&e'f", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0", "äöü€"] {
            let sent = [Sent::basic("backup", secret), Sent::bearer(secret)];
            for repeated in repetitions(secret) {
                for sent in &sent {
                    let page = format!("<p>You sent: {repeated}</p>");
                    assert!(!sent.is_not_in(page.as_bytes()), "{secret}: {page}");
                }
            }
            let header = format!("Basic {}", BASE64_STANDARD.encode(format!("backup:{secret}")));
            assert!(!sent[0].is_not_in(header.as_bytes()), "{header}");
            let beginning: String = secret.chars().take(secret.chars().count() - 1).collect();
            assert!(!sent[1].is_not_in(format!("{beginning}…").as_bytes()), "{beginning}");
        }
    }

    #[test]
    fn words_that_have_nothing_to_do_with_the_credentials_are_shown() {
        let words =
            br#"pushed metrics are invalid or inconsistent with existing metrics: collected metric "rows" { gauge }"#;

        assert!(Sent::basic("backup", "hunter2").is_not_in(words));
        assert!(
            Sent::bearer("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U")
                .is_not_in(words)
        );
        assert!(Sent::default().is_not_in(b"hunter2"), "nothing was sent");
        assert!(!Sent::default().is_not_in(b"proxy-authorization: Basic dTpodW50ZXIy"), "nothing that is known here");
    }

    #[test]
    fn what_is_about_credentials_is_not_shown_where_some_were_sent() {
        let shown = |status: u16| {
            let status = StatusCode::from_u16(status).unwrap();
            (Sent::bearer("x").allows(status), Sent::default().allows(status))
        };

        assert_eq!([401, 403, 407, 400].map(shown), [(false, true), (false, true), (false, false), (true, true)]);
    }

    proptest! {
        #[test]
        fn any_piece_of_a_secret_in_any_text_is_found(
            secret in "[!-~]([ -~]{0,38}[!-~])?",
            before in "\\PC{0,20}",
            after in "\\PC{0,20}",
        ) {
            let sent = Sent::bearer(&secret);

            let page = format!("{before}{secret}{after}");
            prop_assert!(!sent.is_not_in(page.as_bytes()));
        }

        #[test]
        fn any_bytes_can_be_looked_through(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Sent::basic("u", "%4&\\u").is_not_in(&bytes);
        }
    }
}
