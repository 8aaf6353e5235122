//! What one line of a source says, in either form.

use crate::users::NewUser;

/// How much of a text from the source is shown in a message, in characters.
const SHOWN_MAX: usize = 200;

/// A row.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// A user.
    User(NewUser),
    /// Separators and blanks only, as spreadsheets leave them.
    Empty,
    /// No user, and why.
    Rejected(String),
}

/// A user, or everything that is wrong with it.
pub(super) fn user(name: &str, email: &str) -> Row {
    match (name.parse(), email.trim().parse()) {
        (Ok(name), Ok(email)) => Row::User(NewUser { name, email }),
        (Err(name), Ok(_)) => Row::Rejected(format!("name {name}")),
        (Ok(_), Err(email)) => Row::Rejected(format!("email {email}")),
        (Err(name), Err(email)) => Row::Rejected(format!("name {name}; email {email}")),
    }
}

/// The beginning of a text that may be long.
pub(super) fn cut(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}
