//! What a request gives: fields from the query string and from a JSON body, read strictly. How the body itself is read
//! is in `body`.
//!
//! Nothing is guessed: broken encoding, unknown, doubled or ill-typed fields are errors that name the field. The fields'
//! own rules are in `users`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::problem::{ApiError, FieldError, shown};

/// Fields by name, each given once, all of them known.
#[derive(Debug, Default)]
pub struct Fields {
    given: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// Reads a query string.
    ///
    /// # Errors
    ///
    /// When its percent-encoding or its UTF-8 is broken. Unknown and doubled fields show in [`Fields::finish`].
    pub fn from_query(known: &[&str], query: &str) -> Result<Self, ApiError> {
        let mut fields = Self::default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            fields.add(known, decode_query(name)?, decode_query(value)?);
        }
        Ok(fields)
    }

    /// Adds the members of a JSON object; a field that the query gave already is an error.
    ///
    /// # Errors
    ///
    /// When the body is no JSON, or no object.
    pub fn and_json(mut self, known: &[&str], body: &[u8]) -> Result<Self, ApiError> {
        let Members(members) = serde_json::from_slice(body).map_err(|error| match error.classify() {
            serde_json::error::Category::Data => ApiError::invalid("body", "must be a JSON object", None),
            _ => ApiError::MalformedJson(error.to_string()),
        })?;
        let from_query = self.given.len();
        for (name, value) in members {
            match value {
                _ if self.given[..from_query].iter().any(|(given, _)| *given == name) => {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let message = "is given both in the query and in the body";
                    self.errors.push(FieldError::new(&name, message, Some(&value)));
                }
                Value::String(text) => self.add(known, name, text),
                other if known.contains(&name.as_str()) => {
                    self.errors.push(FieldError::new(&name, "must be a string", Some(&other.to_string())));
                }
                other => self.add(known, name, other.to_string()),
            }
        }
        Ok(self)
    }

    fn add(&mut self, known: &[&str], name: String, value: String) {
        if !known.contains(&name.as_str()) {
            let message = format!("is not a known field (known: {})", known.join(", "));
            self.errors.push(FieldError::new(&name, message, Some(&value)));
        } else if self.given.iter().any(|(given, _)| *given == name) {
            self.errors.push(FieldError::new(&name, "is given more than once", Some(&value)));
        } else {
            self.given.push((name, value));
        }
    }

    /// Takes and parses a field, if it was given. A value that breaks its rules shows in [`Fields::finish`].
    pub fn optional<T, E: fmt::Display>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let index = self.given.iter().position(|(given, _)| given == name)?;
        let (_, value) = self.given.remove(index);
        parse(&value).map_err(|error| self.errors.push(FieldError::new(name, error.to_string(), Some(&value)))).ok()
    }

    /// The same, for a field that must be given.
    pub fn required<T, E: fmt::Display>(&mut self, name: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let refused = |error: &FieldError| error.field == name;
        if !self.given.iter().any(|(given, _)| given == name) && !self.errors.iter().any(refused) {
            self.errors.push(FieldError::new(name, "is missing", None));
        }
        self.optional(name, parse)
    }

    /// Ends the reading.
    ///
    /// # Errors
    ///
    /// Every fault found, in one error.
    pub fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::Validation(self.errors)) }
    }
}

/// A JSON object's members as written, doubled names included.
struct Members(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor;

        impl<'de> Visitor<'de> for ObjectVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(ObjectVisitor)
    }
}

/// Parses an unsigned decimal integer within a range: digits only, no sign.
///
/// # Errors
///
/// Says the range.
pub fn integer<T>(text: &str, range: RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten().filter(|number| range.contains(number));
    number.ok_or_else(|| format!("must be an integer from {} to {}", range.start(), range.end()))
}

/// Decodes a path segment.
///
/// # Errors
///
/// Gives the raw text back when its percent-encoding or its UTF-8 is broken.
pub fn decode_segment(text: &str) -> Result<String, &str> {
    let broken = text.split('%').skip(1).any(|rest| {
        let digits = rest.as_bytes().get(..2);
        !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    });
    if broken {
        return Err(text);
    }
    percent_decode_str(text).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| text)
}

fn decode_query(text: &str) -> Result<String, ApiError> {
    // In a query, `+` is a blank (the form encoding that every client uses).
    decode_segment(&text.replace('+', " "))
        .map_err(|text| ApiError::MalformedQuery(format!("is not percent-encoded UTF-8 at {}", shown(text))))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[&str] = &["name", "email"];

    #[allow(clippy::unnecessary_wraps, reason = "has the shape of a parser")]
    fn as_is(text: &str) -> Result<String, String> {
        Ok(text.to_owned())
    }

    /// The faults found in a query and a body, as the client would read them.
    fn faults(query: &str, body: &str) -> String {
        let fields = Fields::from_query(KNOWN, query)
            .and_then(|fields| if body.is_empty() { Ok(fields) } else { fields.and_json(KNOWN, body.as_bytes()) });
        fields.and_then(Fields::finish).err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn fields_come_from_the_query_or_from_the_body() {
        let query = Fields::from_query(KNOWN, "name=John%20+Doe&email=a%2Bb%40c.de").unwrap();
        let mut fields = query;
        assert_eq!(fields.required("name", as_is).as_deref(), Some("John  Doe"));
        assert_eq!(fields.required("email", as_is).as_deref(), Some("a+b@c.de"));
        assert!(fields.finish().is_ok());

        let mixed = Fields::from_query(KNOWN, "name=John").unwrap();
        let mut mixed = mixed.and_json(KNOWN, br#"{"email": "a@b.de"}"#).unwrap();
        assert_eq!(mixed.required("name", as_is).as_deref(), Some("John"));
        assert_eq!(mixed.required("email", as_is).as_deref(), Some("a@b.de"));
    }

    #[test]
    fn a_required_field_that_is_missing_is_named_once() {
        let mut fields = Fields::from_query(KNOWN, "name=a&name=b").unwrap();
        fields.required("name", as_is);
        fields.required("email", as_is);
        assert_eq!(
            fields.finish().unwrap_err().to_string(),
            "name is given more than once, got \"b\"; email is missing"
        );
    }

    #[test]
    fn faults_are_named() {
        let cases = [
            ("name=a&name=b", "", r#"name is given more than once, got "b""#),
            ("name=a", r#"{"name": "b"}"#, r#"name is given both in the query and in the body, got "b""#),
            ("", r#"{"name": "a", "name": "b"}"#, r#"name is given more than once, got "b""#),
            ("nmae=a", "", r#"nmae is not a known field (known: name, email), got "a""#),
            ("", r#"{"admin": true}"#, r#"admin is not a known field (known: name, email), got "true""#),
            ("", r#"{"name": 7}"#, r#"name must be a string, got "7""#),
            ("", r#"{"email": null}"#, r#"email must be a string, got "null""#),
            ("a b=1", "", r#""a b" is not a known field (known: name, email), got "1""#),
            ("", "[]", "body must be a JSON object"),
            ("", "\"name\"", "body must be a JSON object"),
            ("", "{", "the request body is not valid JSON: EOF while parsing an object at line 1 column 1"),
            ("name=%", "", r#"the query string is not percent-encoded UTF-8 at "%""#),
            ("name=%4", "", r#"the query string is not percent-encoded UTF-8 at "%4""#),
            ("name=%zz", "", r#"the query string is not percent-encoded UTF-8 at "%zz""#),
            ("name=%ff", "", r#"the query string is not percent-encoded UTF-8 at "%ff""#),
        ];
        for (query, body, expected) in cases {
            assert_eq!(faults(query, body), expected, "query {query:?}, body {body:?}");
        }
    }

    #[test]
    fn integers_are_digits_within_their_range() {
        assert_eq!(integer("0", 0..=9), Ok(0));
        assert_eq!(integer("007", 0..=9), Ok(7));
        for text in ["", "-1", "+1", "1.5", "1e1", " 1", "10", "99999999999999999999"] {
            assert_eq!(integer(text, 0..=9), Err("must be an integer from 0 to 9".to_owned()), "{text:?}");
        }
    }

    #[test]
    fn json_that_is_nested_too_deep_or_no_utf8_is_malformed() {
        let deep = format!("{{\"name\": {}1{}}}", "[".repeat(10_000), "]".repeat(10_000));
        let broken: &[&[u8]] = &[deep.as_bytes(), b"{\"name\": \"\xff\"}", b"{\"name\": \"\\ud800\"}", b"{} trailing"];
        for body in broken {
            let error = Fields::default().and_json(KNOWN, body).unwrap_err();
            assert!(matches!(error, ApiError::MalformedJson(_)), "{error:?}");
        }
    }

    /// A query or a body: of the right form and shape, or of any other.
    fn like_input() -> impl Strategy<Value = (String, Vec<u8>)> {
        let text = || prop_oneof!["name|email|nmae|", "[a-z%&=+]{0,12}", "(%[0-9a-f]{2}){0,6}", ".{0,12}"];
        let query = prop::collection::vec((text(), prop::option::of(text())), 0..5).prop_map(|pairs| {
            let pair = |(name, value): (String, Option<String>)| match value {
                Some(value) => format!("{name}={value}"),
                None => name,
            };
            pairs.into_iter().map(pair).collect::<Vec<_>>().join("&")
        });
        let json = prop::collection::vec((text(), prop_oneof![text().prop_map(Value::from), Just(Value::Null)]), 0..4)
            .prop_map(|members| {
                let member = |(name, value): (String, Value)| format!("{}:{value}", Value::from(name));
                let members: Vec<_> = members.into_iter().map(member).collect();
                format!("{{{}}}", members.join(",")).into_bytes()
            });
        (query, prop_oneof![4 => json, 1 => prop::collection::vec(any::<u8>(), 0..40)])
    }

    proptest! {
        /// Whatever comes is read or refused; what is read is known, given once, and has exactly the value that was
        /// given.
        #[test]
        fn fields_that_are_taken_are_known_and_given_once((query, body) in like_input()) {
            let Ok(fields) = Fields::from_query(KNOWN, &query) else {
                prop_assert!(query.contains('%'), "only broken percent-encoding is refused as a whole: {:?}", query);
                return Ok(());
            };
            let fields = if body.is_empty() { Ok(fields) } else { fields.and_json(KNOWN, &body) };
            let Ok(mut fields) = fields else { return Ok(()) };
            let [name, email] = ["name", "email"].map(|known| fields.optional(known, as_is));
            if fields.finish().is_ok() {
                let pairs = query.split('&').filter(|pair| !pair.is_empty()).count();
                let members = serde_json::from_slice::<Members>(&body).map_or(0, |Members(members)| members.len());
                prop_assert_eq!(name.iter().count() + email.iter().count(), pairs + members);
                for (known, value) in [("name", name), ("email", email)] {
                    let Some(value) = value else { continue };
                    let in_body = serde_json::from_slice::<Value>(&body).is_ok_and(|body| body[known] == *value);
                    let in_query = query.split('&').any(|pair| {
                        let (name, given) = pair.split_once('=').unwrap_or((pair, ""));
                        decode_query(name).unwrap() == known && decode_query(given).unwrap() == value
                    });
                    prop_assert!(in_body || in_query, "{} {:?} in {:?} and {:?}", known, value, query, body);
                }
            }
        }

        #[test]
        fn integers_and_segments_are_read_or_refused(text in "[0-9+%a-f-]{0,22}|.{0,20}") {
            if let Ok(number) = integer::<i64>(&text, 0..=i64::MAX) {
                prop_assert_eq!(number.to_string(), text.trim_start_matches('0').to_owned() + if number == 0 { "0" } else { "" });
            }
            match decode_segment(&text) {
                Ok(decoded) => prop_assert!(text.contains('%') || decoded == text),
                Err(raw) => prop_assert!(raw == text && text.contains('%')),
            }
        }
    }
}
