//! What a user is: names, e-mail addresses and ids, and their rules.
//!
//! Raw input becomes one of these types once, at the edge; past that point it is valid. This module knows no HTTP and
//! no SQL.

mod characters;
mod email;

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use characters::code_point;
pub use email::{EMAIL_MAX_CHARS, Email};

/// Longest name, in characters (Unicode scalar values), after trimming.
pub const NAME_MAX_CHARS: usize = 200;

/// Why a value was refused. Its text completes the sentence "the name …" and does not repeat the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A user's name: 1 to 200 characters after trimming, in any script. It has something to see, and nothing that breaks a
/// list or shows it in another order: no control characters, line breaks or controls of direction.
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

impl UserName {
    /// The rules as a pattern (ECMA-262 with its flag `u`), but for the length.
    #[must_use]
    pub fn pattern() -> String {
        let (refused, invisible) = (characters::refused_class(), characters::invisible_class());
        format!("^[^{refused}]*[^{invisible}][^{refused}]*$")
    }
}

impl FromStr for UserName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        if let Some(reason) = text.chars().find_map(characters::refusal) {
            return Err(Invalid::new(reason));
        }
        let name = text.trim();
        if name.chars().all(characters::is_invisible) {
            // Somebody who sees nothing must be told what is there.
            let unseen =
                name.chars().next().map(|c| format!(" (its first character is the invisible {})", code_point(c)));
            return Err(Invalid::new(format!("must not be empty or blank{}", unseen.unwrap_or_default())));
        }
        match name.chars().count() {
            ..=NAME_MAX_CHARS => Ok(Self(name.to_owned())),
            length => Err(Invalid::new(format!("must have at most {NAME_MAX_CHARS} characters (it has {length})"))),
        }
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
    use std::sync::LazyLock;

    use proptest::prelude::*;

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
            ("John\u{2028}Doe", None, "a line break that is no control character"),
            ("\u{200B}", None, "a zero-width space, which no trimming takes away"),
            ("\u{AD}\u{2060}\u{FEFF}", None, "several that cannot be seen"),
            ("\u{3164} \u{FFA0}", None, "letters that are drawn as nothing"),
            ("\u{2800}", None, "Braille without dots"),
            ("\u{FE0F}", None, "a variation selector alone"),
            ("\u{E0061}\u{E007F}", None, "tags alone"),
            ("\u{200B}John", Some("\u{200B}John"), "something visible is there; what is around it stays as it is"),
            ("علی\u{200C}رضا", Some("علی\u{200C}رضا"), "a zero-width non-joiner, as Persian is written"),
            ("❤\u{FE0F}", Some("❤\u{FE0F}"), "a variation selector after what it selects"),
            ("John\u{202E}nhoJ", None, "an override of the direction"),
            ("\u{2067}John\u{2069}", None, "an isolate"),
            ("John\u{200F}", None, "a mark of direction"),
        ];
        for (text, expected, reason) in cases {
            let name = text.parse::<UserName>();
            assert_eq!(name.as_ref().ok().map(UserName::as_str), expected, "{text:?}: {reason}");
        }
    }

    #[test]
    fn a_name_of_nothing_visible_is_refused_as_blank_and_says_what_it_holds() {
        let reason = |name: &str| name.parse::<UserName>().unwrap_err().to_string();

        assert_eq!(reason(" "), "must not be empty or blank");
        assert_eq!(reason(" \u{3164}"), "must not be empty or blank (its first character is the invisible U+3164)");
        assert_eq!(
            reason("John\u{202E}nhoJ"),
            "must not hold characters that change the direction of text (it has U+202E)"
        );
    }

    proptest! {
        /// Whatever is taken is trimmed, can be seen, and neither breaks nor turns a line.
        #[test]
        fn a_name_that_is_taken_keeps_its_rules(text in tricky_text()) {
            if let Ok(name) = text.parse::<UserName>() {
                let name = name.as_str();
                prop_assert_eq!(name, text.trim());
                prop_assert!(name.chars().any(|c| !characters::is_invisible(c)));
                prop_assert!(name.chars().all(|c| characters::refusal(c).is_none()));
                prop_assert!((1..=NAME_MAX_CHARS).contains(&name.chars().count()));
            }
        }

        #[test]
        fn the_pattern_of_names_says_what_the_parser_says(text in tricky_text()) {
            // Blanks around a name do not count, and only the parser knows it.
            let taken = text.parse::<UserName>().is_ok() || text.trim().chars().count() > NAME_MAX_CHARS && {
                text.chars().all(|c| characters::refusal(c).is_none()) && !text.chars().all(characters::is_invisible)
            };
            prop_assert_eq!(NAME_PATTERN.is_valid(&text.clone().into()), taken, "{:?}", text);
        }
    }

    static NAME_PATTERN: LazyLock<jsonschema::Validator> =
        LazyLock::new(|| jsonschema::validator_for(&serde_json::json!({"pattern": UserName::pattern()})).unwrap());

    /// Text of characters that names and addresses have rules about, and of all others; now and then a long one.
    pub(super) fn tricky_text() -> impl Strategy<Value = String> {
        let tricky = "\0\t\n\u{85} \u{A0}\u{3000}\u{200B}\u{200C}\u{200D}\u{AD}\u{2800}\u{3164}\u{FE0F}\u{E0061}\u{61C}\
                      \u{200F}\u{202E}\u{2028}\u{2069}\u{301}\u{FEFF}@.\"\\<>[]-?/#`|_+aZ9éم🦀";
        let tricky = prop::sample::select(tricky.chars().collect::<Vec<_>>());
        let c = prop_oneof![8 => tricky, 1 => any::<char>(), 4 => prop::char::range('a', 'z')];
        prop_oneof![9 => 0..12usize, 1 => 195..206usize]
            .prop_flat_map(move |length| prop::collection::vec(c.clone(), length))
            .prop_map(String::from_iter)
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
