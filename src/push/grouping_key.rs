//! Grouping keys: the labels under which the Pushgateway keeps a group of metrics.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The label that every grouping key has.
const JOB: &str = "job";

/// The labels by which histograms and summaries tell their parts apart. The gateway would give each part the label once
/// more, and Prometheus then refuses the gateway's whole exposition.
const PARTS: [&str; 2] = ["le", "quantile"];

/// What stands in a path as it is (RFC 3986, "unreserved").
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A job and further labels; all metrics pushed under the same ones are one group.
///
/// Values may hold anything: those that cannot stand in a path go as URL-safe base64, as the gateway defines it.
///
/// ```
/// use api_monitoring::push::GroupingKey;
///
/// let key = GroupingKey::new("backup")?.with("path", "/var/lib")?.with("note", "100 %")?;
///
/// assert_eq!(key.path(), "/metrics/job/backup/note/100%20%25/path@base64/L3Zhci9saWI");
/// assert!(key.with("job", "other").is_err());
/// # Ok::<(), api_monitoring::push::InvalidGroupingKey>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GroupingKey {
    job: String,
    labels: BTreeMap<String, String>,
}

/// Why a job or a label was refused. Its text is a sentence that names the offender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidGroupingKey(String);

impl GroupingKey {
    /// The key of a job, without further labels.
    ///
    /// # Errors
    ///
    /// When the job is empty, blank or holds control characters.
    pub fn new(job: &str) -> Result<Self, InvalidGroupingKey> {
        if job.trim().is_empty() {
            return Err(InvalidGroupingKey("a job's name must not be empty or blank".to_owned()));
        }
        if job.chars().any(char::is_control) {
            return Err(InvalidGroupingKey(format!("the job's name {job:?} must not hold control characters")));
        }
        Ok(Self { job: job.to_owned(), labels: BTreeMap::new() })
    }

    /// The key with one more label. Any value will do, an empty one too.
    ///
    /// # Errors
    ///
    /// When the name is no label name (letters, digits and `_`, not beginning with a digit), is reserved (beginning with
    /// `__`; `le`, `quantile`), or is there already, as `job` always is.
    pub fn with(mut self, name: &str, value: &str) -> Result<Self, InvalidGroupingKey> {
        if !is_label_name(name) {
            return Err(InvalidGroupingKey(format!(
                "{name:?} is no label name: expected letters, digits and _, not beginning with a digit"
            )));
        }
        if name.starts_with("__") {
            return Err(InvalidGroupingKey(format!("the label name {name:?} is reserved, as all that begin with __")));
        }
        if PARTS.contains(&name) {
            return Err(InvalidGroupingKey(format!(
                "the label name {name} belongs to histograms and summaries: pushed over theirs, it would make all that \
                 the gateway holds unreadable"
            )));
        }
        if name == JOB {
            return Err(InvalidGroupingKey(format!("the label {JOB} is the job's name ({:?}) already", self.job)));
        }
        if self.labels.contains_key(name) {
            return Err(InvalidGroupingKey(format!("the label {name} is given twice")));
        }
        self.labels.insert(name.to_owned(), value.to_owned());
        Ok(self)
    }

    /// The job's name.
    #[must_use]
    pub fn job(&self) -> &str {
        &self.job
    }

    /// The value of a label; that of `job` too.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        if name == JOB { Some(&self.job) } else { self.labels.get(name).map(String::as_str) }
    }

    /// All labels but the job, by name.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The path of the group at the gateway: `/metrics/job/JOB/NAME/VALUE…`, labels sorted by name.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = "/metrics".to_owned();
        push_label(&mut path, JOB, &self.job);
        for (name, value) in &self.labels {
            push_label(&mut path, name, value);
        }
        path
    }
}

impl fmt::Display for GroupingKey {
    /// As a selector: `{job="backup",path="/var/lib"}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{JOB}={:?}", self.job)?;
        for (name, value) in &self.labels {
            write!(f, ",{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

fn push_label(path: &mut String, name: &str, value: &str) {
    path.push('/');
    path.push_str(name);
    // A slash would end the value, also as %2F, which the gateway decodes before it splits; nothing can stand between
    // two slashes; and URLs drop the segments `.` and `..`.
    if value.is_empty() {
        path.push_str("@base64/=");
    } else if value.contains('/') || value == "." || value == ".." {
        path.push_str("@base64/");
        path.push_str(&BASE64_URL_SAFE_NO_PAD.encode(value));
    } else {
        path.push('/');
        path.extend(utf8_percent_encode(value, ENCODED));
    }
}

/// Whether a text is a label name as the gateway takes them.
pub(super) fn is_label_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path_of(value: &str) -> String {
        GroupingKey::new("j").unwrap().with("l", value).unwrap().path()
    }

    #[test]
    fn values_stand_in_the_path_or_go_as_base64() {
        let cases = [
            ("db1", "/metrics/job/j/l/db1", "plain"),
            ("10.0.0.1:9100", "/metrics/job/j/l/10.0.0.1%3A9100", "an address"),
            ("a b\"c'%", "/metrics/job/j/l/a%20b%22c%27%25", "spaces, quotes and percent signs"),
            ("Łódź", "/metrics/job/j/l/%C5%81%C3%B3d%C5%BA", "unicode"),
            ("a\\b?c#d", "/metrics/job/j/l/a%5Cb%3Fc%23d", "what ends a path"),
            ("/var/tmp", "/metrics/job/j/l@base64/L3Zhci90bXA", "a slash"),
            ("", "/metrics/job/j/l@base64/=", "nothing"),
            ("..", "/metrics/job/j/l@base64/Li4", "what a URL would drop"),
            (".", "/metrics/job/j/l@base64/Lg", "what a URL would drop"),
        ];
        for (value, path, reason) in cases {
            assert_eq!(path_of(value), path, "{reason}");
        }
        assert_eq!(GroupingKey::new("a/b").unwrap().path(), "/metrics/job@base64/YS9i");
    }

    #[test]
    fn jobs_and_labels_that_the_gateway_would_not_take_are_refused_by_name() {
        for (job, named) in [("", "empty"), (" \t", "blank"), ("a\nb", r#""a\nb""#)] {
            let error = GroupingKey::new(job).unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
        let key = GroupingKey::new("j").unwrap().with("zone", "a").unwrap();
        for (name, named) in [
            ("", "\"\" is no label name"),
            ("1st", "\"1st\" is no label name"),
            ("a-b", "\"a-b\" is no label name"),
            ("é", "\"é\" is no label name"),
            ("__name__", "\"__name__\" is reserved"),
            ("le", "le belongs to histograms"),
            ("quantile", "quantile belongs to histograms"),
            ("job", "the job's name (\"j\") already"),
            ("zone", "zone is given twice"),
        ] {
            let error = key.clone().with(name, "x").unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_key_reads_as_a_selector() {
        let key = GroupingKey::new("j").unwrap().with("zone", "a\"b").unwrap();
        assert_eq!(key.to_string(), r#"{job="j",zone="a\"b"}"#);
    }

    /// Reads a path as the gateway does: split at slashes after percent-decoding, base64 where it is marked.
    fn read(path: &str) -> Vec<(String, String)> {
        let url: reqwest::Url = format!("http://gateway{path}").parse().unwrap();
        let decoded = percent_encoding::percent_decode_str(url.path()).decode_utf8().unwrap();
        let parts: Vec<_> = decoded.split('/').skip(2).collect();
        let labels = parts.chunks(2).map(|pair| match pair[0].strip_suffix("@base64") {
            None => (pair[0].to_owned(), pair[1].to_owned()),
            Some(name) => {
                let bytes = BASE64_URL_SAFE_NO_PAD.decode(pair[1].trim_end_matches('=')).unwrap();
                (name.to_owned(), String::from_utf8(bytes).unwrap())
            }
        });
        labels.collect()
    }

    proptest! {
        #[test]
        fn every_value_reaches_the_gateway_as_it_is(job in "[^\\p{Cc}]{0,9}[/a][^\\p{Cc}]{0,9}", value in "\\PC{0,20}|[./]{0,4}") {
            let key = GroupingKey::new(&job).unwrap().with("label", &value).unwrap();

            prop_assert_eq!(read(&key.path()), [("job".to_owned(), job), ("label".to_owned(), value)]);
        }
    }
}
