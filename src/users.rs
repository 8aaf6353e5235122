//! What a user is: names, e-mail addresses and ids, and their rules.
//!
//! Raw input becomes one of these types once, at the edge; past that point it is valid. This module knows no HTTP and
//! no SQL.

use std::fmt;
use std::str::FromStr;

use email_address::{EmailAddress, Options};
use serde::Serialize;

/// Longest name, in characters (Unicode scalar values), after trimming.
pub const NAME_MAX_CHARS: usize = 200;

/// Longest e-mail address, in characters: what fits SMTP's path (RFC 5321, section 4.5.3.1.3, less the brackets).
pub const EMAIL_MAX_CHARS: usize = 254;

/// Why a value was refused. Its text completes the sentence "the name …" and does not repeat the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A user's name: 1 to 200 characters after trimming, in any script, without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName(String);

impl UserName {
    /// Takes over what a store gives back: it was checked before it was written.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// The trimmed name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(control) = text.chars().find(|c| c.is_control()) {
            return Err(Invalid::new(format!(
                "must not hold control characters (it has U+{:04X})",
                u32::from(control)
            )));
        }
        let name = text.trim();
        match name.chars().count() {
            0 => Err(Invalid::new("must not be empty or blank")),
            1..=NAME_MAX_CHARS => Ok(Self(name.to_owned())),
            length => Err(Invalid::new(format!("must have at most {NAME_MAX_CHARS} characters (it has {length})"))),
        }
    }
}

/// A syntactically valid e-mail address of at most 254 characters; whether anyone reads it is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Email(String);

impl Email {
    /// Takes over what a store gives back: it was checked before it was written.
    pub(crate) fn stored(text: String) -> Self {
        Self(text)
    }

    /// The address as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Email {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let length = text.chars().count();
        if length > EMAIL_MAX_CHARS {
            return Err(Invalid::new(format!("must have at most {EMAIL_MAX_CHARS} characters (it has {length})")));
        }
        if text.chars().any(char::is_control) {
            return Err(Invalid::new("must not hold control characters"));
        }
        // An address alone: no display name, and a domain that is a name, not an address literal.
        let options = Options::default().without_display_text().without_domain_literal();
        EmailAddress::parse_with_options(text, options)
            .map(|_| Self(text.to_owned()))
            .map_err(|error| Invalid::new(format!("must be an e-mail address such as john@example.com ({error})")))
    }
}

/// A user's id: a positive 64-bit integer. Ids grow and are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct UserId(i64);

impl UserId {
    /// Takes an id that the store gave out.
    ///
    /// Returns `None` for zero and below, which no store gives out.
    #[must_use]
    pub fn new(id: i64) -> Option<Self> {
        (id > 0).then_some(Self(id))
    }

    /// The id as a number.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl FromStr for UserId {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        // `i64::from_str` would take a sign.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let id = digits.then(|| text.parse().ok()).flatten().and_then(Self::new);
        id.ok_or_else(|| Invalid::new(format!("must be an integer from 1 to {}", i64::MAX)))
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A stored user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Given by the store.
    pub id: UserId,
    /// Need not be unique.
    pub name: UserName,
    /// Need not be unique.
    pub email: Email,
}

/// A user to be created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewUser {
    /// The name to store.
    pub name: UserName,
    /// The address to store.
    pub email: Email,
}

/// A change of one or both fields; `None` leaves a field as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserChange {
    /// The new name.
    pub name: Option<UserName>,
    /// The new address.
    pub email: Option<Email>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_their_rules() {
        let longest = "é".repeat(NAME_MAX_CHARS);
        let too_long = "é".repeat(NAME_MAX_CHARS + 1);
        let padded = format!("  {longest}\u{a0}");
        let cases = [
            ("John", Some("John"), "plain"),
            ("  John Doe ", Some("John Doe"), "trimmed"),
            ("李小龍", Some("李小龍"), "any script"),
            ("👩‍👩‍👧‍👦", Some("👩‍👩‍👧‍👦"), "emoji, joined by format characters that are no control characters"),
            (&longest, Some(longest.as_str()), "200 characters, counted as characters and not as bytes"),
            (&padded, Some(longest.as_str()), "blanks around it do not count"),
            (&too_long, None, "201 characters"),
            ("", None, "empty"),
            (" \u{3000} ", None, "blank"),
            ("Jo\0hn", None, "NUL"),
            ("John\n", None, "a newline, even at the end"),
            ("Jo\u{85}hn", None, "a control character outside ASCII"),
        ];
        for (text, expected, reason) in cases {
            let name = text.parse::<UserName>();
            assert_eq!(name.as_ref().ok().map(UserName::as_str), expected, "{text:?}: {reason}");
        }
    }

    #[test]
    fn email_addresses_follow_their_rules() {
        let local = "a".repeat(64);
        let domain = format!("{}.{}.{}.com", "d".repeat(63), "d".repeat(63), "d".repeat(57));
        let longest = format!("{local}@{domain}");
        let too_long = format!("{local}@d{}", &domain[1..].replacen('.', "d.", 3).replacen("d.", ".", 2));
        assert_eq!(longest.len(), EMAIL_MAX_CHARS);
        let cases = [
            ("john@example.com", true, "plain"),
            ("john.doe+tag@sub.example.co.uk", true, "dots and tags"),
            ("jörg@exämple.de", true, "internationalised (RFC 6531)"),
            ("o'brien@example.ie", true, "an apostrophe"),
            (longest.as_str(), true, "254 characters"),
            (too_long.as_str(), false, "255 characters"),
            ("", false, "empty"),
            ("john", false, "no @"),
            ("@example.com", false, "no local part"),
            ("john@", false, "no domain"),
            ("john@@example.com", false, "two @"),
            ("john doe@example.com", false, "a blank"),
            (" john@example.com", false, "a blank before it"),
            ("john@example..com", false, "an empty label"),
            ("john@-example.com", false, "a label that starts with a dash"),
            (".john@example.com", false, "a leading dot"),
            ("John <john@example.com>", false, "a display name"),
            ("john@[127.0.0.1]", false, "an address literal"),
            ("john@example.com\n", false, "a newline"),
            ("jo\0hn@example.com", false, "NUL"),
        ];
        for (text, valid, reason) in cases {
            assert_eq!(text.parse::<Email>().is_ok(), valid, "{text:?}: {reason}: {:?}", text.parse::<Email>());
        }
    }

    #[test]
    fn ids_are_positive_integers() {
        let cases = [
            ("1", Some(1), "the first"),
            ("9223372036854775807", Some(i64::MAX), "the last"),
            ("0", None, "zero"),
            ("-1", None, "negative"),
            ("+1", None, "signed"),
            ("abc", None, "no number"),
            ("1e3", None, "a float's notation"),
            ("1.0", None, "a float"),
            (" 1", None, "a blank"),
            ("", None, "empty"),
            ("9223372036854775808", None, "2^63"),
            ("18446744073709551616", None, "2^64"),
            ("١", None, "a digit outside ASCII"),
        ];
        for (text, expected, reason) in cases {
            assert_eq!(text.parse::<UserId>().ok().map(UserId::get), expected, "{text:?}: {reason}");
        }
    }
}
