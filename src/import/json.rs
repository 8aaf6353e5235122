//! JSON lines: an object a line.

use serde::Deserialize;

use super::row::{Row, cut, user};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonUser {
    name: String,
    email: String,
}

/// Reads a row.
pub(super) fn row(text: &str) -> Row {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Row::Empty;
    }
    // An array of two strings would pass for the fields in their order.
    if !text.starts_with('{') {
        return Row::Rejected("the row is not a user: expected a JSON object with name and email".to_owned());
    }
    match serde_json::from_str::<JsonUser>(text) {
        Ok(parsed) => user(&parsed.name, &parsed.email),
        Err(error) => {
            // The row is all that the parser sees: its own line number would mislead.
            let error = error.to_string().replace(" at line 1 column", " at column");
            Row::Rejected(format!("the row is not a user: {}", cut(&error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, String> {
        match row(text) {
            Row::User(user) => Ok(format!("{}|{}", user.name.as_str(), user.email.as_str())),
            Row::Empty => Ok(String::new()),
            Row::Rejected(reason) => Err(reason),
        }
    }

    #[test]
    fn an_object_with_both_fields_is_a_user() {
        for text in
            [r#"{"name":"A","email":"a@example.com"}"#, r#" { "email" : "a@example.com" , "name" : "\u0041" } "#]
        {
            assert_eq!(read(text).as_deref(), Ok("A|a@example.com"), "{text}");
        }
    }

    #[test]
    fn what_is_no_user_is_rejected_with_the_reason() {
        for (text, reason) in [
            (r#"{"name":"A"}"#, "missing field `email` at column 12"),
            (r#"["A","a@example.com"]"#, "expected a JSON object with name and email"),
            ("Ada,a@example.com", "expected a JSON object with name and email"),
            (r#"{"name":"A","email":"a@example.com"} {"#, "trailing characters at column 38"),
            (r#"{"name":"A","email":"a@example.com"},"#, "trailing characters at column 37"),
            (r#"{"name":"A","name":"B","email":"a@example.com"}"#, "duplicate field `name` at column 18"),
            (
                r#"{"name":"A","email":"a@example.com","id":1}"#,
                "unknown field `id`, expected `name` or `email` at column 40",
            ),
            (r#"{"name":["A"],"email":"a@example.com"}"#, "invalid type: sequence, expected a string at column 8"),
            (r#"{"name":null,"email":"a@example.com"}"#, "invalid type: null, expected a string at column 12"),
            (r#"{"name":"A\ud800","email":"a@example.com"}"#, "unexpected end of hex escape"),
            (r#"{"name":"A"#, "EOF while parsing a string at column 10"),
        ] {
            let told = read(text).unwrap_err();
            assert!(told.starts_with("the row is not a user: ") && told.contains(reason), "{text}: {told}");
        }
        let deep = format!("{{\"name\":{}", "[".repeat(100_000));
        assert!(read(&deep).is_err(), "nesting is not followed");
    }

    #[test]
    fn fields_follow_the_rules_of_users() {
        let told = read(r#"{"name":"","email":""}"#).unwrap_err();
        assert!(told.starts_with("name must not be empty or blank; email must be"), "{told}");
        let told = read(r#"{"name":"A\u0000","email":"a@example.com"}"#).unwrap_err();
        assert!(told.starts_with("name must not hold control characters (it has U+0000)"), "{told}");
    }
}
