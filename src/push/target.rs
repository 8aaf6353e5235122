//! Where a Pushgateway is and how to log in there. Everything is checked here, so that a mistake is an error before the
//! first push.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use reqwest::{Certificate, Url};

/// The base URL of a gateway, the credentials for it, and the authorities that may vouch for it.
#[derive(Debug, Clone)]
pub struct PushTarget {
    pub(super) url: Url,
    pub(super) credentials: Option<Credentials>,
    /// `None`: the system's.
    pub(super) authorities: Option<Vec<Certificate>>,
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

/// A password or token. It is never shown.
#[derive(Clone)]
pub enum Secret {
    /// The secret itself.
    Value(String),
    /// A file that holds it, read anew for each request, so that a rotated secret is taken up. A final line break is
    /// not part of it.
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
    #[error("the file is not PEM, or holds what is no certificate")]
    Parse(#[from] reqwest::Error),
    /// It holds no certificate.
    #[error("the file holds no certificate in PEM form")]
    Empty,
}

impl FromStr for PushTarget {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        const EXPECTED: &str = "expected a URL with scheme and host, such as http://127.0.0.1:9091";
        if text.contains('@') {
            return Err(InvalidTarget(
                "expected a URL without user name and password; they are given by settings of their own",
            ));
        }
        let url: Url = text.parse().map_err(|_| InvalidTarget(EXPECTED))?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(InvalidTarget(EXPECTED));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            return Err(InvalidTarget(
                "expected a URL without path, query and fragment, such as http://127.0.0.1:9091; the path is made from \
                 the grouping key",
            ));
        }
        Ok(Self { url, credentials: None, authorities: None })
    }
}

impl PushTarget {
    /// Logs in with these credentials. They are sent to this host only, wherever it redirects.
    #[must_use]
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials: Some(credentials), ..self }
    }

    /// Trusts the certificates of a PEM file, and no others, instead of the system's.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or holds no certificate.
    pub fn with_ca_file(self, path: &Path) -> Result<Self, CaFileError> {
        let authorities = Certificate::from_pem_bundle(&std::fs::read(path)?)?;
        if authorities.is_empty() {
            return Err(CaFileError::Empty);
        }
        // Only a client that is built with them tells whether they are certificates.
        reqwest::Client::builder().tls_certs_only(authorities.clone()).build()?;
        Ok(Self { authorities: Some(authorities), ..self })
    }

    /// The base URL.
    #[must_use]
    pub fn url(&self) -> &Url {
        &self.url
    }
}

impl Secret {
    /// The secret's text, for a request header.
    ///
    /// # Errors
    ///
    /// When its file cannot be read, or what it holds cannot be a password or token: nothing, or control characters.
    pub fn reveal(&self) -> io::Result<String> {
        let text = match self {
            Self::Value(value) => value.clone(),
            Self::File(path) => std::fs::read_to_string(path)?.trim_end_matches(['\r', '\n']).to_owned(),
        };
        // The texts do not say more: they end up in logs.
        if text.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "it holds control characters"));
        }
        Ok(text)
    }
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
    fn a_target_is_a_scheme_and_a_host() {
        for (url, base) in [
            ("http://127.0.0.1:9091", "http://127.0.0.1:9091/"),
            ("https://push.example.org/", "https://push.example.org/"),
            ("http://[::1]:9091", "http://[::1]:9091/"),
        ] {
            assert_eq!(url.parse::<PushTarget>().unwrap().url().as_str(), base);
        }
        for (url, reason) in [
            ("", "empty"),
            ("localhost:9091", "no scheme"),
            ("127.0.0.1:9091", "no scheme"),
            ("ftp://host", "another scheme"),
            ("http://", "no host"),
            ("http://host/metrics", "a path"),
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
    fn a_ca_file_holds_certificates() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let target = || "https://host".parse::<PushTarget>().unwrap();

        assert!(matches!(target().with_ca_file(&path), Err(CaFileError::Read(_))));
        std::fs::write(&path, "not a certificate").unwrap();
        assert!(matches!(target().with_ca_file(&path), Err(CaFileError::Empty)));
    }
}
