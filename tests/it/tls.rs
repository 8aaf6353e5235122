//! Pushing over TLS: whom the client trusts, and where it does not go on.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::support::{binary, finished};

/// An authority of our own, as nothing on this machine knows it.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn file(&self, folder: &Path) -> PathBuf {
        let path = folder.join("ca.pem");
        std::fs::write(&path, self.0.pem()).unwrap();
        path
    }

    /// A TLS server for that name, vouched for by this authority.
    fn server(&self, name: &str) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config =
            ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
        TlsAcceptor::from(Arc::new(config.unwrap()))
    }
}

/// A gateway behind TLS that gives every request the same answer, and keeps the requests' heads.
struct Gateway {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Gateway {
    async fn start(tls: TlsAcceptor, answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A client that does not trust us ends here.
                let Ok(mut stream) = tls.accept(stream).await else { continue };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                kept.lock().unwrap().push(String::from_utf8(head).unwrap());
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.shutdown().await;
            }
        });
        Self { url, requests }
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Runs a job that pushes there, and gives what it left behind.
async fn push_to(url: &str, more: &[&str]) -> Output {
    let folder: TempDir = tempfile::tempdir().unwrap();
    let mut job = binary(folder.path());
    job.args(["job", "--name", "j", "--no-start-push", "--push-deadline", "2s", "--pushgateway-url", url]);
    job.env("PUSHGATEWAY_BEARER_TOKEN", "s3cret").args(more).args(["--", "true"]);
    let output = finished(job).await;
    assert!(output.status.success(), "{output:?}");
    output
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[tokio::test]
async fn a_gateway_vouched_for_by_the_ca_file_gets_the_push_and_the_credentials() {
    let authority = Authority::new();
    let gateway = Gateway::start(authority.server("127.0.0.1"), OK.to_owned()).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = authority.file(folder.path());

    let output = push_to(&gateway.url, &["--ca-file", ca.to_str().unwrap()]).await;

    assert_eq!(stderr(&output), "");
    let requests = gateway.requests();
    assert_eq!(requests.len(), 1, "{requests:?}");
    assert!(requests[0].starts_with("POST /metrics/job/j HTTP/1.1\r\n"), "{requests:?}");
    assert!(requests[0].contains("\r\nauthorization: Bearer s3cret\r\n"), "{requests:?}");
}

#[tokio::test]
async fn a_gateway_that_nobody_trusted_vouches_for_gets_nothing() {
    let (ours, another) = (Authority::new(), Authority::new());
    let gateway = Gateway::start(ours.server("127.0.0.1"), OK.to_owned()).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = another.file(folder.path());

    let by_another = push_to(&gateway.url, &["--ca-file", ca.to_str().unwrap()]).await;
    let by_the_system = push_to(&gateway.url, &[]).await;

    assert_eq!(gateway.requests(), [""; 0]);
    assert!(stderr(&by_another).contains("is lost"), "{by_another:?}");
    assert!(stderr(&by_the_system).contains("is lost"), "{by_the_system:?}");
}

#[tokio::test]
async fn a_certificate_for_another_name_is_not_enough() {
    let authority = Authority::new();
    let gateway = Gateway::start(authority.server("push.example.org"), OK.to_owned()).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = authority.file(folder.path());

    let output = push_to(&gateway.url, &["--ca-file", ca.to_str().unwrap()]).await;

    assert_eq!(gateway.requests(), [""; 0]);
    assert!(stderr(&output).contains("is lost"), "{output:?}");
}

#[tokio::test]
async fn what_was_to_go_over_tls_is_not_sent_on_in_the_clear() {
    let authority = Authority::new();
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/metrics/job/j", plain.local_addr().unwrap());
    let answer = format!(
        "HTTP/1.1 308 Permanent Redirect\r\nlocation: {location}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    let gateway = Gateway::start(authority.server("127.0.0.1"), answer).await;
    let folder = tempfile::tempdir().unwrap();
    let ca = authority.file(folder.path());

    let output = push_to(&gateway.url, &["--ca-file", ca.to_str().unwrap()]).await;

    let said = format!("308 Permanent Redirect: it redirects to {location}, which is not followed");
    assert!(stderr(&output).contains(&said), "{output:?}");
    let nobody = futures_util::FutureExt::now_or_never(plain.accept());
    assert!(nobody.is_none(), "nothing came in the clear");
}
