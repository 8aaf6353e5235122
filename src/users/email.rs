//! E-mail addresses: the `email_address` crate judges what stands before the `@`, this module the domain and what cannot
//! be seen.

use std::str::FromStr;

use email_address::EmailAddress;

use super::{Invalid, characters};

/// Longest e-mail address, in characters: what fits SMTP's path (RFC 5321, section 4.5.3.1.3, less the brackets).
pub const EMAIL_MAX_CHARS: usize = 254;

/// Longest part before the `@`, in bytes (RFC 5321, section 4.5.3.1.1).
const LOCAL_PART_MAX_BYTES: usize = 64;

/// Longest domain, in bytes (RFC 1035, section 2.3.4, without the length bytes of its form on the wire).
const DOMAIN_MAX_BYTES: usize = 253;

/// Longest label of a domain, in bytes (RFC 1035, section 2.3.4).
const LABEL_MAX_BYTES: usize = 63;

/// A syntactically valid e-mail address of at most 254 characters; whether anyone reads it is not asked.
///
/// The part before the `@` is a dot-atom or a quoted string (RFC 5322, RFC 6531), the domain a name of a host: labels of
/// letters, digits, hyphens and characters outside ASCII. Nothing in it is invisible but blanks between quotes.
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

    /// The rules as a pattern (ECMA-262 with its flag `u`), but for the lengths that are limited in bytes, and the whole.
    #[must_use]
    pub fn pattern() -> String {
        let beyond_ascii = format!("[^{}]", characters::ascii_or_invisible_class());
        let atom = format!(r"(?:[A-Za-z0-9!#$%&'*+\-\/=?^_`{{|}}~]|{beyond_ascii})+");
        let quoted = format!(r#""(?:[ !#-\[\]-~]|\\[!-~]|{beyond_ascii})+""#);
        let letter = format!("(?:[A-Za-z0-9]|{beyond_ascii})");
        let label = format!("{letter}(?:(?:-|{letter}){{0,{}}}{letter})?", LABEL_MAX_BYTES - 2);
        format!(r"^(?:{atom}(?:\.{atom})*|{quoted})@{label}(?:\.{label})*$")
    }
}

impl FromStr for Email {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let length = text.chars().count();
        if length > EMAIL_MAX_CHARS {
            return Err(Invalid::new(format!("must have at most {EMAIL_MAX_CHARS} characters (it has {length})")));
        }
        if let Some(reason) = text.chars().find_map(unseen) {
            return Err(Invalid::new(reason));
        }
        match fault(text) {
            None => Ok(Self(text.to_owned())),
            Some(fault) => Err(Invalid::new(format!("must be an e-mail address such as john@example.com ({fault})"))),
        }
    }
}

/// Why a character may stand nowhere in an address, however it is quoted.
fn unseen(c: char) -> Option<String> {
    let invisible = || (!c.is_ascii() && characters::is_invisible(c)).then_some("invisible characters");
    characters::refusal(c)
        .or_else(|| Some(format!("must not hold {} (it has {})", invisible()?, characters::code_point(c))))
}

/// What is wrong with an address of characters that may stand in one.
fn fault(text: &str) -> Option<String> {
    let Some((local, domain)) = text.rsplit_once('@') else { return Some("it has no @".to_owned()) };
    if local.is_empty() {
        return Some("nothing stands before its @".to_owned());
    }
    if local.len() > LOCAL_PART_MAX_BYTES {
        return Some(format!("it has {} bytes before its @, and may have {LOCAL_PART_MAX_BYTES}", local.len()));
    }
    if !EmailAddress::is_valid_local_part(local) {
        return Some("what stands before its @ is neither words with dots between them nor quoted".to_owned());
    }
    fault_of_domain(domain)
}

fn fault_of_domain(domain: &str) -> Option<String> {
    if domain.is_empty() {
        return Some("it has no domain".to_owned());
    }
    if domain.len() > DOMAIN_MAX_BYTES {
        return Some(format!("its domain has {} bytes, and may have {DOMAIN_MAX_BYTES}", domain.len()));
    }
    let foreign = |c: &char| c.is_ascii() && !c.is_ascii_alphanumeric() && !['-', '.'].contains(c);
    if let Some(foreign) = domain.chars().find(foreign) {
        return Some(format!("its domain may hold letters, digits, hyphens and dots, and holds {foreign:?}"));
    }
    domain.split('.').find_map(|label| match label {
        "" => Some("a part of its domain is empty".to_owned()),
        _ if label.len() > LABEL_MAX_BYTES => {
            Some(format!("a part of its domain has {} bytes, and may have {LABEL_MAX_BYTES}", label.len()))
        }
        _ if label.starts_with('-') || label.ends_with('-') => {
            Some("a part of its domain begins or ends with a hyphen".to_owned())
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::super::tests::tricky_text;
    use super::*;

    #[test]
    fn email_addresses_follow_their_rules() {
        let local = "a".repeat(64);
        let domain = format!("{}.{}.{}.com", "d".repeat(63), "d".repeat(63), "d".repeat(57));
        let longest = format!("{local}@{domain}");
        let too_long = format!("{local}@d{}", &domain[1..].replacen('.', "d.", 3).replacen("d.", ".", 2));
        assert_eq!(longest.len(), EMAIL_MAX_CHARS);
        let (octets_63, octets_64) = (format!("j@{}a.de", "é".repeat(31)), format!("j@{}.de", "é".repeat(32)));
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
            ("o@ไทย.ที่", true, "a label that ends in a combining mark"),
            ("john@ex?ample.com", false, "a question mark in the domain"),
            ("john@example.com/x", false, "a slash in the domain"),
            ("john@example.com#x", false, "a number sign in the domain"),
            ("john@ex`ample.com", false, "a backtick in the domain"),
            ("john@ex|ample.com", false, "a pipe in the domain"),
            ("john@ex_ample.com", false, "an underscore in the domain: a name of DNS, but of no host"),
            ("jo?h/n#d`o|e_@example.com", true, "all of these before the @ (RFC 5322, section 3.2.3)"),
            ("\"john doe\"@example.com", true, "a quoted local part with a blank"),
            ("\"john\\@doe\"@example.com", true, "a quoted local part with an escaped @"),
            ("john@example-.com", false, "a label that ends with a dash"),
            ("john@example.com.", false, "a dot at the end"),
            (octets_63.as_str(), true, "a label of 63 bytes"),
            (octets_64.as_str(), false, "a label of 64 bytes, though of 32 characters"),
            ("jo\u{200B}hn@example.com", false, "what cannot be seen, before the @"),
            ("john@exam\u{AD}ple.com", false, "what cannot be seen, in the domain"),
            ("john\u{A0}doe@example.com", false, "a blank outside ASCII"),
            ("jo\u{202E}hn@example.com", false, "an override of the direction"),
        ];
        for (text, valid, reason) in cases {
            assert_eq!(text.parse::<Email>().is_ok(), valid, "{text:?}: {reason}: {:?}", text.parse::<Email>());
        }
    }

    #[test]
    fn an_address_that_is_refused_says_why() {
        let cases = [
            ("john", "it has no @"),
            ("@example.com", "nothing stands before its @"),
            ("john@", "it has no domain"),
            ("john@ex?mple.com", "its domain may hold letters, digits, hyphens and dots, and holds '?'"),
            ("john@example..com", "a part of its domain is empty"),
            ("john@-example.com", "a part of its domain begins or ends with a hyphen"),
        ];
        for (text, expected) in cases {
            let reason = text.parse::<Email>().unwrap_err().to_string();
            assert_eq!(reason, format!("must be an e-mail address such as john@example.com ({expected})"), "{text}");
        }
        let reason = "jo\u{200B}hn@example.com".parse::<Email>().unwrap_err().to_string();
        assert_eq!(reason, "must not hold invisible characters (it has U+200B)");
    }

    static PATTERN: LazyLock<jsonschema::Validator> = LazyLock::new(|| {
        let schema = serde_json::json!({"pattern": Email::pattern(), "maxLength": EMAIL_MAX_CHARS});
        jsonschema::validator_for(&schema).unwrap()
    });

    /// Something like an address: parts of the right form, and of any other.
    fn like_an_address() -> impl Strategy<Value = String> {
        let word = || prop_oneof!["[a-zA-Z0-9.-]{0,12}", "[!-~é]{1,10}", "\"[ -~]{0,6}\"", tricky_text()];
        (word(), prop_oneof![9 => Just("@"), 1 => Just("")], word(), word())
            .prop_map(|(local, at, domain, end)| format!("{local}{at}{domain}{end}"))
    }

    proptest! {
        #[test]
        fn an_address_that_is_taken_keeps_its_rules(text in like_an_address()) {
            if let Ok(email) = text.parse::<Email>() {
                prop_assert_eq!(email.as_str(), &text);
                prop_assert!(text.chars().all(|c| c == ' ' || !characters::is_invisible(c)));
                let domain = text.rsplit('@').next().unwrap();
                let fine = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-.".contains(c);
                prop_assert!(domain.chars().all(fine) && domain.len() <= DOMAIN_MAX_BYTES);
                prop_assert!(domain.split('.').all(|label| (1..=LABEL_MAX_BYTES).contains(&label.len())));
            }
        }

        #[test]
        fn the_pattern_of_addresses_says_what_the_parser_says(text in like_an_address()) {
            let taken = text.parse::<Email>().is_ok();
            let (local, domain) = text.rsplit_once('@').unwrap_or_default();
            let too_long = local.len() > LOCAL_PART_MAX_BYTES
                || domain.len() > DOMAIN_MAX_BYTES
                || domain.split('.').any(|label| label.len() > LABEL_MAX_BYTES);
            prop_assert_eq!(PATTERN.is_valid(&text.clone().into()) && !too_long, taken, "{:?}", text);
        }
    }
}
