//! One line of the text format: names, labels and values, read in place.

use super::faults::Shown;
use crate::push::grouping_key::is_label_name;

/// What may stand between the parts of a line.
pub(super) const BLANK: [char; 2] = [' ', '\t'];

/// A label's name, and its value as it is written, which has one form only: what must be escaped must be.
pub(super) type Label<'a> = (&'a str, &'a str);

/// Reads a sample: its name and value. `labels` is cleared, then filled with its labels in the order of their names.
pub(super) fn parse_sample<'a>(line: &'a str, labels: &mut Vec<Label<'a>>) -> Result<(&'a str, f64), String> {
    labels.clear();
    let name = name_at_start(line).ok_or("expected a metric name")?;
    let shown = Shown(name);
    let mut rest = line[name.len()..].trim_start_matches(BLANK);
    if let Some(inside) = rest.strip_prefix('{') {
        rest = parse_labels(name, inside, labels)?.trim_start_matches(BLANK);
    } else if rest.len() == line.len() - name.len() && !rest.is_empty() {
        return Err(format!("{shown} is followed by {:?}, expected labels or a value", first_char(rest)));
    }
    let (value, rest) = rest.split_once(BLANK).unwrap_or((rest, ""));
    if value.is_empty() {
        return Err(format!("{shown} has no value"));
    }
    let number = parse_value(value);
    let number = number.ok_or_else(|| format!("{shown} has the value {:?}, expected a number", Shown(value)))?;
    match rest.trim_matches(BLANK) {
        "" => Ok((name, number)),
        time if time.parse::<i64>().is_ok() => Err(format!("{shown} has a timestamp, which the Pushgateway refuses")),
        more => Err(format!("{shown} has {:?} after its value", Shown(more))),
    }
}

/// Reads labels up to the closing brace and gives what follows it.
fn parse_labels<'a>(metric: &str, text: &'a str, labels: &mut Vec<Label<'a>>) -> Result<&'a str, String> {
    let metric = Shown(metric);
    // Room for all at once: what grows leaves its old places behind. A label has five bytes at least.
    labels.reserve(text.bytes().filter(|byte| *byte == b'=').count().min(text.len() / 5));
    let mut rest = text;
    let after_labels = loop {
        rest = rest.trim_start_matches(BLANK);
        if let Some(after) = rest.strip_prefix('}') {
            break after;
        }
        let (name, after) = rest.split_once('=').ok_or_else(|| format!("the labels of {metric} do not end"))?;
        let name = name.trim_end_matches(BLANK);
        let label = Shown(name);
        if !is_label_name(name) || name.starts_with("__") {
            return Err(format!("{metric} has the label {label:?}, which is not a label name"));
        }
        let quoted = after.trim_start_matches(BLANK).strip_prefix('"');
        let quoted = quoted.ok_or_else(|| format!("the value of {metric}'s label {label} is not quoted"))?;
        let (value, after) =
            split_quoted(quoted).ok_or_else(|| format!("the value of {metric}'s label {label} is not well quoted"))?;
        labels.push((name, value));
        let after = after.trim_start_matches(BLANK);
        rest = match after.strip_prefix(',') {
            Some(after) => after,
            None if after.starts_with('}') => after,
            None => return Err(format!("the labels of {metric} do not end after {label}")),
        };
    };
    labels.sort_unstable();
    match labels.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(twice) => Err(format!("{metric} has the label {} twice", Shown(twice[0].0))),
        None => Ok(after_labels),
    }
}

/// Splits at the closing quote; `None` when there is none, or an escape sequence is unknown.
fn split_quoted(text: &str) -> Option<(&str, &str)> {
    let mut bytes = text.bytes().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((&text[..at], &text[at + 1..])),
            b'\\' if !matches!(bytes.next()?.1, b'n' | b'\\' | b'"') => return None,
            _ => {}
        }
    }
    None
}

/// The value of a label that is written so.
pub(super) fn unescaped(written: &str) -> String {
    let mut value = String::with_capacity(written.len());
    let mut chars = written.chars();
    while let Some(c) = chars.next() {
        value.push(match c {
            '\\' => chars.next().map_or('\\', |escaped| if escaped == 'n' { '\n' } else { escaped }),
            c => c,
        });
    }
    value
}

/// Whether each backslash is followed by another one or by `n`, as in a help text.
pub(super) fn is_well_escaped(help: &str) -> bool {
    let mut bytes = help.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'\\' && !matches!(bytes.next(), Some(b'\\' | b'n')) {
            return false;
        }
    }
    true
}

/// A number as the gateway reads it: `NaN` has no sign, and only what says so is infinite.
pub(super) fn parse_value(text: &str) -> Option<f64> {
    let value: f64 = text.parse().ok()?;
    let plain = text.trim_start_matches(['+', '-']);
    let spelled_out = plain.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("inf"));
    let fine = if value.is_nan() { plain == text } else { value.is_finite() || spelled_out };
    fine.then_some(value)
}

/// The first word of a text, and what follows the blanks after it.
pub(super) fn next_word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(BLANK).unwrap_or((text, ""));
    (word, rest.trim_start_matches(BLANK))
}

/// The metric name that a text begins with.
pub(super) fn name_at_start(text: &str) -> Option<&str> {
    name_in_bytes(text.as_bytes()).map(|name| &text[..name.len()])
}

/// The same for bytes that may be no text further on.
pub(super) fn name_in_bytes(bytes: &[u8]) -> Option<&[u8]> {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b':');
    let end = bytes.iter().position(|byte| !is_part(byte)).unwrap_or(bytes.len());
    (end > 0 && !bytes[0].is_ascii_digit()).then_some(&bytes[..end])
}

fn first_char(text: &str) -> char {
    text.chars().next().unwrap_or_default()
}
