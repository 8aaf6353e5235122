//! An error and its causes in one line.

use std::error::Error;
use std::fmt::Write as _;

/// The error's text and, after colons, those of its causes. Many libraries put a cause's text into their own; what the
/// line says already is not said again.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            let _ = write!(text, ": {said}");
        }
        next = cause.source();
    }
    one_line(&text)
}

/// A text without control characters: they are escaped, so that no file name, row or answer can break the line or reach
/// the terminal.
#[must_use]
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(one_line("a\nb\u{1b}[31m é"), "a\\nb\\u{1b}[31m é");
    }

    #[test]
    fn causes_follow_after_colons_and_nothing_is_said_twice() {
        let layer = |text, source: Option<Layer>| Layer { text, source: source.map(Box::new) };
        let innermost = layer("no space left", None);
        let wrapping = layer("cannot write: no space left", Some(innermost));

        assert_eq!(
            chain(&layer("the report failed", Some(wrapping))),
            "the report failed: cannot write: no space left"
        );
    }
}
