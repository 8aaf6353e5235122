//! Where a Pushgateway is and how to log in there. The URL is checked here, so that a mistake is an error before the first
//! push; files are read when they are needed, since what they hold may change, or come, later.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reqwest::{Certificate, Client, Url};

/// The largest file of a secret that is read: far more than a request's head may hold.
const SECRET_MAX: u64 = 64 * 1024;

/// The largest file of authorities that is read: a system's own take some 250 KB.
const CA_FILE_MAX: u64 = 16 * 1024 * 1024;

/// The base URL of a gateway, the credentials for it, and the authorities that may vouch for it.
///
/// ```
/// use api_monitoring::push::PushTarget;
///
/// let target: PushTarget = "https://proxy.example.org/pushgateway/".parse()?;
///
/// assert_eq!(target.url().as_str(), "https://proxy.example.org/pushgateway");
/// assert!("http://127.0.0.1:9091/metrics/job/backup".parse::<PushTarget>().is_err());
/// # Ok::<(), api_monitoring::push::InvalidTarget>(())
/// ```
#[derive(Debug, Clone)]
pub struct PushTarget {
    pub(super) url: Url,
    pub(super) credentials: Option<Credentials>,
    /// `None`: the system's authorities.
    pub(super) ca_file: Option<PathBuf>,
}

/// How to log in at a gateway, or at the proxy before it.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// Basic authentication (RFC 7617).
    Basic {
        /// User name.
        username: String,
        /// Password.
        password: Secret,
    },
    /// A bearer token (RFC 6750).
    Bearer(Secret),
}

/// A password or token. It is never shown. A final line break is not part of it.
#[derive(Clone)]
pub enum Secret {
    /// The secret itself.
    Value(OsString),
    /// A file that holds it, read anew for each request, so that a rotated secret is taken up.
    File(PathBuf),
}

/// Why a URL was refused. Its text completes the sentence "… is not usable:" and does not repeat the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidTarget(&'static str);

/// Why a file of authorities was refused.
#[derive(Debug, thiserror::Error)]
pub enum CaFileError {
    /// It cannot be read.
    #[error("the file cannot be read")]
    Read(#[from] io::Error),
    /// It is no PEM, or what it holds is no certificate.
    #[error("the file is not PEM, or holds something that is not a certificate")]
    Parse(#[from] reqwest::Error),
    /// It holds no certificate.
    #[error("the file holds no certificate in PEM form")]
    Empty,
}

impl FromStr for PushTarget {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        const EXPECTED: &str = "expected a URL with scheme and host, such as http://127.0.0.1:9091";
        let authority =
            text.split_once("://").map_or(text, |(_, rest)| rest.split(['/', '?', '#']).next().unwrap_or(rest));
        if authority.contains('@') {
            return Err(InvalidTarget(
                "expected a URL without user name and password; they are given by settings of their own",
            ));
        }
        let mut url: Url = text.parse().map_err(|_| InvalidTarget(EXPECTED))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(InvalidTarget(EXPECTED));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidTarget(
                "expected a URL without query and fragment, such as http://127.0.0.1:9091 or https://proxy/pushgateway",
            ));
        }
        let base = url.path().trim_end_matches('/').to_owned();
        if names_a_group(&base) {
            return Err(InvalidTarget(
                "expected a URL without /metrics at its end, such as http://127.0.0.1:9091 or \
                 https://proxy/pushgateway; that part of the path is made from the grouping key",
            ));
        }
        url.set_path(&base);
        Ok(Self { url, credentials: None, ca_file: None })
    }
}

/// Whether a path goes on, or ends, as the gateway's own paths of groups do: with `/metrics`, or `/metrics/job/…`.
fn names_a_group(path: &str) -> bool {
    let mut segments = path.split('/').peekable();
    while let Some(segment) = segments.next() {
        let group = segments.peek().is_none_or(|next| matches!(*next, "job" | "job@base64"));
        if segment == "metrics" && group {
            return true;
        }
    }
    false
}

impl PushTarget {
    /// Logs in with these credentials. They are sent to this host only, wherever it redirects.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials: Some(credentials), ..self }
    }

    /// Trusts the certificates of a PEM file, and no others, instead of the system's. The file is read when a client is
    /// made for this target.
    #[must_use]
    pub fn with_ca_file(self, path: impl Into<PathBuf>) -> Self {
        Self { ca_file: Some(path.into()), ..self }
    }

    /// The base URL: scheme, host and, where the gateway stands under one, a path without its final slash.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The URL of one of the gateway's own paths.
    pub(super) fn url_of(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}{path}", self.url.path().trim_end_matches('/')));
        url
    }
}

/// The certificates of a PEM file.
pub(super) fn authorities(path: &Path) -> Result<Vec<Certificate>, CaFileError> {
    let authorities = Certificate::from_pem_bundle(&read_plain_file(path, CA_FILE_MAX)?)?;
    if authorities.is_empty() { Err(CaFileError::Empty) } else { Ok(authorities) }
}

/// Whether a file of authorities could be used now.
///
/// # Errors
///
/// When the file cannot be read, or holds no certificate.
pub fn check_ca_file(path: &Path) -> Result<(), CaFileError> {
    // Only a client that is built with them tells whether they are certificates.
    Client::builder().tls_certs_only(authorities(path)?).build()?;
    Ok(())
}

impl Secret {
    /// The secret's text, for a request header.
    ///
    /// # Errors
    ///
    /// When its file cannot be read, or what it holds cannot be a password or token: nothing, or control characters.
    pub fn reveal(&self) -> io::Result<String> {
        let (bytes, empty) = match self {
            Self::Value(value) => (value.as_bytes().to_vec(), "it is empty or not given"),
            Self::File(path) => (read_plain_file(path, SECRET_MAX)?, "it is empty"),
        };
        // The texts do not say more: they end up in logs.
        let text = String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8"))?;
        let text = text.trim_end_matches(['\r', '\n']);
        if text.is_empty() {
            return Err(invalid(empty));
        }
        if text.chars().any(char::is_control) {
            return Err(invalid("it holds control characters"));
        }
        Ok(text.to_owned())
    }

    /// What it is called in a message: `password`, or `password in /run/secrets/password`.
    pub(super) fn named(&self, what: &str) -> String {
        match self {
            Self::Value(_) => what.to_owned(),
            Self::File(path) => format!("{what} in {}", path.display()),
        }
    }
}

/// Reads a file that nobody can keep open without end: a pipe would hold up the thread until somebody writes.
fn read_plain_file(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let found = path.metadata()?;
    // That it is a folder, the system says itself.
    if !found.is_file() && !found.is_dir() {
        return Err(invalid("it is not a plain file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(invalid("it is too long")) } else { Ok(bytes) }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("[redacted]"),
            Self::File(path) => write!(f, "[from {}]", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_scheme_a_host_and_perhaps_a_base_path() {
        for (url, base, listing) in [
            ("http://127.0.0.1:9091", "http://127.0.0.1:9091/", "http://127.0.0.1:9091/api/v1/metrics"),
            ("https://push.example.org/", "https://push.example.org/", "https://push.example.org/api/v1/metrics"),
            ("http://[::1]:9091", "http://[::1]:9091/", "http://[::1]:9091/api/v1/metrics"),
            ("http://h/push", "http://h/push", "http://h/push/api/v1/metrics"),
            ("http://h/push//", "http://h/push", "http://h/push/api/v1/metrics"),
            ("http://h//", "http://h/", "http://h/api/v1/metrics"),
            (
                "http://h/a%20b/metrics-of-jobs/",
                "http://h/a%20b/metrics-of-jobs",
                "http://h/a%20b/metrics-of-jobs/api/v1/metrics",
            ),
            ("http://h/metrics/push", "http://h/metrics/push", "http://h/metrics/push/api/v1/metrics"),
        ] {
            let target = url.parse::<PushTarget>().unwrap();
            assert_eq!((target.url().as_str(), target.url_of("/api/v1/metrics").as_str()), (base, listing), "{url}");
        }
        for (url, reason) in [
            ("", "empty"),
            ("localhost:9091", "no scheme"),
            ("127.0.0.1:9091", "no scheme"),
            ("ftp://host", "another scheme"),
            ("http://", "no host"),
            ("http://host/metrics", "the gateway's own path"),
            ("http://host/push/metrics/", "the same, under a base path"),
            ("http://host/push/metrics/job/backup", "the path of a group"),
            ("http://host/metrics/job@base64/YS9i", "the same, with a name that holds a slash"),
            ("http://host/?a=b", "a query"),
            ("http://host/#a", "a fragment"),
            ("http://user:secret@host", "credentials"),
        ] {
            let error = url.parse::<PushTarget>().expect_err(reason).to_string();
            assert!(error.starts_with("expected a URL") && !error.contains("secret"), "{reason}: {error}");
        }
    }

    #[test]
    fn secrets_are_not_shown_and_come_without_their_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "s3cret\n").unwrap();
        let credentials = Credentials::Basic { username: "u".into(), password: Secret::Value("s3cret".into()) };

        assert_eq!(Secret::File(path.clone()).reveal().unwrap(), "s3cret");
        assert!(!format!("{credentials:?} {:?}", Secret::File(path.clone())).contains("s3cret"));
        std::fs::write(&path, "rotated").unwrap();
        assert_eq!(Secret::File(path.clone()).reveal().unwrap(), "rotated");
        for unusable in ["", "\n", "a\nb"] {
            std::fs::write(&path, unusable).unwrap();
            assert!(Secret::File(path.clone()).reveal().is_err(), "{unusable:?}");
        }
    }

    #[test]
    fn a_secret_is_read_from_a_plain_file_alone() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("long");
        std::fs::write(&long, vec![b'x'; 65 * 1024]).unwrap();
        // A device or a pipe might never end, or never begin.
        for (path, expected) in [
            (Path::new("/dev/zero"), "it is not a plain file"),
            (folder.path(), "Is a directory (os error 21)"),
            (&long, "it is too long"),
        ] {
            let refused = Secret::File(path.to_owned()).reveal().unwrap_err().to_string();
            assert_eq!(refused, expected, "{}", path.display());
        }
    }

    #[test]
    fn a_ca_file_holds_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");

        assert!(matches!(check_ca_file(&path), Err(CaFileError::Read(_))));
        std::fs::write(&path, "not a certificate").unwrap();
        assert!(matches!(check_ca_file(&path), Err(CaFileError::Empty)));
    }
}
