//! CSV by RFC 4180, a row a line.
//!
//! The `csv` crate is lenient: it takes text after a closing quote as part of the field, and an open quote takes the
//! rest of the file. Here either is a fault of its row, and no row reaches beyond its line; no valid name or address
//! holds a line's end.

use std::borrow::Cow;

use super::row::{Row, user};

/// What may stand between a quoted field and the commas around it.
const BLANKS: [char; 2] = [' ', '\t'];

/// Why a line is no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum Fault {
    #[error("a quote is left open, and a row ends with its line")]
    OpenQuote,
    #[error("text follows a closing quote, expected a comma (a quote inside a quoted field is written twice)")]
    AfterQuote,
    #[error("a quote stands inside a field that is not quoted")]
    QuoteInside,
}

/// Reads rows whose columns stand in the header's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Csv {
    email_first: bool,
}

impl Csv {
    /// Reads a header; `None` where the text is another one, or none.
    pub(super) fn of_header(text: &str) -> Option<Self> {
        Self::of_columns(&Record::of(text).ok()?)
    }

    fn of_columns(record: &Record<'_>) -> Option<Self> {
        let [first, second] = record.fields.each_ref().map(|field| field.trim());
        let is = |columns: [&str; 2]| first.eq_ignore_ascii_case(columns[0]) && second.eq_ignore_ascii_case(columns[1]);
        let email_first = is(["email", "name"]);
        (record.count == 2 && (email_first || is(["name", "email"]))).then_some(Self { email_first })
    }

    /// Reads a row.
    pub(super) fn row(self, text: &str) -> Row {
        let record = match Record::of(text) {
            Ok(record) => record,
            Err(fault) => return Row::Rejected(fault.to_string()),
        };
        if record.empty {
            return Row::Empty;
        }
        if record.count != 2 {
            return Row::Rejected(format!("the row has {} fields, expected name and email", record.count));
        }
        let [first, second] = &record.fields;
        match if self.email_first { user(second, first) } else { user(first, second) } {
            // Files that were joined repeat it.
            Row::Rejected(_) if Self::of_columns(&record).is_some() => {
                Row::Rejected("the header stands here again".to_owned())
            }
            row => row,
        }
    }
}

/// Whether a line holds separators and blanks only.
pub(super) fn is_empty(text: &str) -> bool {
    Record::of(text).is_ok_and(|record| record.empty)
}

/// What one line says.
struct Record<'a> {
    /// The first fields.
    fields: [Cow<'a, str>; 2],
    /// How many there are in all.
    count: usize,
    /// Nothing but blanks in any of them.
    empty: bool,
}

impl<'a> Record<'a> {
    fn of(text: &'a str) -> Result<Self, Fault> {
        let mut record = Self { fields: [Cow::Borrowed(""), Cow::Borrowed("")], count: 0, empty: true };
        for field in (Fields { rest: Some(text) }) {
            let field = field?;
            record.empty &= field.trim().is_empty();
            if let Some(place) = record.fields.get_mut(record.count) {
                *place = field;
            }
            record.count += 1;
        }
        Ok(record)
    }
}

/// The fields of one line.
struct Fields<'a> {
    /// What is left of it; none after the last field.
    rest: Option<&'a str>,
}

impl<'a> Fields<'a> {
    /// A field without quotes. Blanks around it are its own.
    fn plain(&mut self, text: &'a str) -> Result<Cow<'a, str>, Fault> {
        let (field, rest) = text.split_once(',').map_or((text, None), |(field, rest)| (field, Some(rest)));
        self.rest = rest;
        if field.contains('"') { Err(Fault::QuoteInside) } else { Ok(Cow::Borrowed(field)) }
    }

    /// A field that began with a quote.
    fn quoted(&mut self, text: &'a str) -> Result<Cow<'a, str>, Fault> {
        let mut from = 0;
        let end = loop {
            let quote = from + text[from..].find('"').ok_or(Fault::OpenQuote)?;
            if !text[quote + 1..].starts_with('"') {
                break quote;
            }
            from = quote + 2;
        };
        let after = text[end + 1..].trim_start_matches(BLANKS);
        if !after.is_empty() {
            self.rest = Some(after.strip_prefix(',').ok_or(Fault::AfterQuote)?);
        }
        let field = &text[..end];
        Ok(if from == 0 { Cow::Borrowed(field) } else { Cow::Owned(field.replace("\"\"", "\"")) })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Cow<'a, str>, Fault>;

    /// The next field; nothing after a fault.
    fn next(&mut self) -> Option<Self::Item> {
        let text = self.rest.take()?;
        Some(match text.trim_start_matches(BLANKS).strip_prefix('"') {
            Some(quoted) => self.quoted(quoted),
            None => self.plain(text),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads rows below the header `name,email`: a user as `name|email`, else a rejection's reason.
    fn read(text: &str) -> Result<String, String> {
        match Csv::of_header("name,email").unwrap().row(text) {
            Row::User(user) => Ok(format!("{}|{}", user.name.as_str(), user.email.as_str())),
            Row::Empty => Ok(String::new()),
            Row::Rejected(reason) => Err(reason),
        }
    }

    #[test]
    fn rows_are_read_as_rfc_4180_writes_them() {
        for (text, user, reason) in [
            ("Ada,a@example.com", "Ada|a@example.com", "plain"),
            ("\"Smith, J\",a@example.com", "Smith, J|a@example.com", "a comma inside quotes"),
            ("\"Smith \"\"J\"\"\",\"a@example.com\"", "Smith \"J\"|a@example.com", "quotes written twice"),
            ("\"\"\"\",a@example.com", "\"|a@example.com", "a name that is one quote"),
            (" Ada , a@example.com ", "Ada|a@example.com", "blanks around fields"),
            (" \"Smith, J\" ,\t\"a@example.com\"\t", "Smith, J|a@example.com", "blanks around quotes"),
            ("O'Brien\\,a@example.com", "O'Brien\\|a@example.com", "a backslash is itself"),
            ("\"a\\\",b@example.com", "a\\|b@example.com", "and so it is before a closing quote"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(user), "{text:?}: {reason}");
        }
    }

    #[test]
    fn a_row_with_a_quote_out_of_place_is_rejected() {
        for (text, fault, reason) in [
            ("\"Bob\"x,b@example.com", Fault::AfterQuote, "text after a closing quote"),
            ("\"Bob\" x,b@example.com", Fault::AfterQuote, "and a blank before it"),
            ("Bob,\"b@example.com\"x", Fault::AfterQuote, "the same in the last field"),
            ("\"Bob \\\"B\\\" Smith\",b@example.com", Fault::AfterQuote, "quotes that a backslash escapes"),
            ("\"\\\"Bob\\\"\",b@example.com", Fault::AfterQuote, "the same at both ends"),
            ("\"Bob\\\"\",b@example.com", Fault::OpenQuote, "the same at the end"),
            ("\"Bob,b@example.com", Fault::OpenQuote, "an open quote"),
            ("Bob,\"b@example.com", Fault::OpenQuote, "the same in the last field"),
            ("\"Bob\"\",b@example.com", Fault::OpenQuote, "a quote too many"),
            ("\"", Fault::OpenQuote, "nothing but a quote"),
            ("Bo\"b,b@example.com", Fault::QuoteInside, "a quote inside"),
            ("Bob\",b@example.com", Fault::QuoteInside, "the end of a row that spans lines"),
            ("Bob,b@example.com,\"\"x", Fault::AfterQuote, "in a field too many"),
        ] {
            assert_eq!(read(text), Err(fault.to_string()), "{text:?}: {reason}");
        }
    }

    #[test]
    fn a_row_with_nothing_in_it_is_empty() {
        for text in [",", ",,", ",,,,", " , ", "\t,\t", "  ", "\"\",\"\"", "\" \",", "\u{a0},\u{3000}"] {
            assert_eq!(read(text).as_deref(), Ok(""), "{text:?}");
        }
        for text in [",x", "\"\"\"\",", ",,x", "-,", "\",\"\"\""] {
            assert!(read(text).is_err(), "{text:?} says something");
        }
    }

    #[test]
    fn a_row_needs_both_fields_and_no_more() {
        for (text, fields) in [("Ada", 1), ("Ada,a@example.com,", 3), ("Ada;a@example.com", 1), ("a,b,c,d", 4)] {
            assert_eq!(read(text), Err(format!("the row has {fields} fields, expected name and email")), "{text:?}");
        }
    }

    #[test]
    fn a_header_that_stands_here_again_is_named() {
        for text in ["name,email", "\"Name\", EMAIL ", "email,name"] {
            assert_eq!(read(text), Err("the header stands here again".to_owned()), "{text:?}");
        }
    }

    #[test]
    fn a_header_has_both_columns_in_any_order() {
        for (text, header) in [
            ("name,email", Some(false)),
            (" EMAIL ,\"Name\"", Some(true)),
            ("name;email", None),
            ("name,email,", None),
            ("name,name", None),
            ("name", None),
            ("\"name,email", None),
        ] {
            assert_eq!(Csv::of_header(text).map(|csv| csv.email_first), header, "{text:?}");
        }
    }
}
