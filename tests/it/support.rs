//! What the tests share: the real binary on a free port, a client, and a parser for what it exposes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::Value;
use sqlx::ConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_api-monitoring");

/// How long a test waits for a condition before it fails. Generous: it only bounds failures.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A command that runs the binary in a folder, with nothing of this process's environment but the path.
pub fn binary(folder: &Path) -> Command {
    let mut command = Command::new(BINARY);
    command.current_dir(folder).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// A running server in a fresh folder; killed when it goes out of scope.
pub struct Server {
    child: Child,
    pub folder: Arc<TempDir>,
    pub address: String,
    pub client: Client,
    log: Arc<Mutex<Vec<Value>>>,
}

impl Server {
    /// Starts with the defaults: a database file in a fresh folder.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts with more arguments, in a fresh folder, and waits until it is ready.
    pub async fn start_with(arguments: &[&str]) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), arguments).await
    }

    /// The same in a folder that may hold another server's data.
    pub async fn start_in(folder: Arc<TempDir>, arguments: &[&str]) -> Self {
        let mut child = binary(folder.path())
            .args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
                lines.lock().unwrap().push(event);
            }
        });
        let mut server = Self { child, folder, address: String::new(), client: client(), log };
        let started = || match server.child.try_wait().unwrap() {
            Some(status) => panic!("the server ended with {status}: {:?}", server.log()),
            None => std::future::ready(server.log().iter().any(|event| event["message"] == "ready").then_some(())),
        };
        eventually("the server's start", started).await;
        server.address = server.log_event("listening").await["address"].as_str().unwrap().to_owned();
        server
    }

    /// Every log event so far.
    pub fn log(&self) -> Vec<Value> {
        self.log.lock().unwrap().clone()
    }

    /// Waits for the first log event with that message.
    pub async fn log_event(&self, message: &str) -> Value {
        let find = || self.log().into_iter().find(|event| event["message"] == message);
        eventually(&format!("a log event {message:?}"), async || find()).await
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        self.client.request(Method::from_bytes(method.as_bytes()).unwrap(), self.url(path))
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::to(self.request("GET", path)).await
    }

    pub async fn send(&self, method: &str, path: &str) -> Answer {
        Answer::to(self.request(method, path)).await
    }

    /// Creates a user and gives its id.
    pub async fn create(&self, name: &str) -> i64 {
        let body = serde_json::json!({"name": name, "email": "john@example.com"});
        let answer = Answer::to(self.request("POST", "/api/users").json(&body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["id"].as_i64().unwrap()
    }

    /// What `/metrics` shows now.
    pub async fn metrics(&self) -> Samples {
        let answer = self.get("/metrics").await;
        assert_eq!(answer.status, 200);
        Samples::parse(&answer.text())
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits for the process to end.
    pub async fn exit(&mut self) -> ExitStatus {
        let child = Mutex::new(&mut self.child);
        eventually("the end of the process", async || child.lock().unwrap().try_wait().unwrap()).await
    }

    /// A figure of `/proc/PID/status`, such as `VmRSS`, in KiB.
    pub fn memory_kib(&self, figure: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(figure)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Sends bytes as they are and reads until the server closes, as it does after `Connection: close` or when it cannot
    /// go on. It leaves its own half of the connection open: a server may take its end for a
    /// client that went away.
    pub async fn exchange(&self, bytes: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        // A server that answers before it has read everything may close before everything is written.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        let _ = read.expect("an end of the answer");
        Answer::parse(&answer)
    }

    /// Waits until that many requests are in progress on a route, whatever their method.
    pub async fn in_progress(&self, route: &str, count: u32) {
        let what = format!("{count} requests in progress on {route}");
        eventually(&what, async || {
            let now = self.metrics().await.sum("http_requests_in_progress", &[("route", route)]);
            (now == f64::from(count)).then_some(())
        })
        .await;
    }

    /// Connects to its database file, as another program would.
    pub async fn database(&self) -> SqliteConnection {
        let file = self.folder.path().join("data/users.db");
        SqliteConnectOptions::new().filename(file).connect().await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that talks to the server directly and follows no redirect.
pub fn client() -> Client {
    Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub async fn to(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, body: response.bytes().await.unwrap().to_vec() }
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Reads the problem that a failed answer must be, and checks what all problems share.
    pub fn problem(&self) -> Problem {
        let json = self.json();
        let text = |member: &str| json[member].as_str().unwrap_or_else(|| panic!("no text {member:?} in {json}"));
        let fields: Vec<String> = json["errors"].as_array().into_iter().flatten().map(field_of).collect();
        assert_eq!(self.header("content-type"), "application/problem+json", "{json}");
        assert_ne!(self.header("x-request-id"), "", "{json}");
        assert_eq!(json["status"], self.status.as_u16(), "the status is repeated in the body");
        assert!(!text("title").is_empty() && !text("detail").is_empty(), "{json}");
        assert_eq!(fields.is_empty(), self.status != 422, "422, and nothing else, lists fields: {json}");
        let error_type = text("type").strip_prefix("/#").expect("a reference into the landing page").to_owned();
        Problem { error_type, detail: text("detail").to_owned(), fields }
    }

    /// Parses an answer as it came over the wire, when the connection's end is the body's.
    fn parse(bytes: &[u8]) -> Self {
        let shown = String::from_utf8_lossy(bytes);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no whole head of a response in {shown:?}"));
        let mut lines = str::from_utf8(&bytes[..end]).unwrap().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.parse::<reqwest::header::HeaderName>().unwrap(), value.parse().unwrap())
        };
        Self { status, headers: lines.map(header).collect(), body: bytes[end + 4..].to_vec() }
    }
}

/// Waits until a condition gives something, and fails with its name when it does not for [`PATIENCE`].
pub async fn eventually<T, F>(what: &str, mut condition: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// The samples of an exposition.
#[derive(Debug, Clone, PartialEq)]
pub struct Samples(pub Vec<Sample>);

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Samples {
    /// Parses the text format (no timestamps, which nothing of ours sends).
    pub fn parse(text: &str) -> Self {
        let samples = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(samples.map(Sample::parse).collect())
    }

    /// The value of the one series with that name and exactly these labels.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let expected: BTreeMap<_, _> = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let mut found = self.0.iter().filter(|sample| sample.name == name && sample.labels == expected);
        let sample = found.next().unwrap_or_else(|| panic!("no series {name}{labels:?} in\n{self}"));
        assert!(found.next().is_none(), "{name}{labels:?} stands twice");
        sample.value
    }

    /// The sum over all series of that name whose labels include these.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let matching = |sample: &&Sample| {
            sample.name == name && labels.iter().all(|(k, v)| sample.labels.get(*k).is_some_and(|given| given == v))
        };
        self.0.iter().filter(matching).map(|sample| sample.value).sum()
    }

    /// The series, without their values.
    pub fn series(&self) -> Vec<(String, BTreeMap<String, String>)> {
        self.0.iter().map(|sample| (sample.name.clone(), sample.labels.clone())).collect()
    }
}

impl std::fmt::Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|sample| writeln!(f, "{}{:?} {}", sample.name, sample.labels, sample.value))
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => {
                (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("no end of labels in {line:?}")))
            }
            None => (series, ""),
        };
        let value = value.parse().unwrap_or_else(|_| panic!("no number in {line:?}"));
        Self { name: name.to_owned(), labels: parse_labels(labels), value }
    }
}

fn parse_labels(text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("no end of a label value in {text:?}")) {
                (at, '"') => break at,
                (_, '\\') => match chars.next().unwrap().1 {
                    'n' => value.push('\n'),
                    escaped => value.push(escaped),
                },
                (_, c) => value.push(c),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "a label stands twice in {text:?}");
        rest = after[end + 1..].trim_start_matches(',');
    }
    assert!(rest.is_empty(), "{rest:?} is left of the labels {text:?}");
    labels
}

/// Percent-encodes everything but letters and digits.
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}

/// A failed answer as its client reads it (RFC 9457).
#[derive(Debug, PartialEq)]
pub struct Problem {
    /// The fragment of `type`.
    pub error_type: String,
    pub detail: String,
    /// The fields that `errors` names, in its order; empty without `errors`.
    pub fields: Vec<String>,
}

fn field_of(error: &Value) -> String {
    let message = error["message"].as_str().unwrap_or_else(|| panic!("no message in {error}"));
    assert!(!message.is_empty(), "{error}");
    error["field"].as_str().unwrap_or_else(|| panic!("no field in {error}")).to_owned()
}

/// Waits for a future, and fails with its name when that takes longer than [`PATIENCE`].
pub async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Runs a command to its end; killed when that does not come within [`PATIENCE`].
pub async fn finished(command: Command) -> std::process::Output {
    let mut command = tokio::process::Command::from(command);
    in_time("the end of the process", command.stdin(Stdio::null()).kill_on_drop(true).output()).await.unwrap()
}

/// A running process that need not become ready; its stderr is kept line by line. Killed when it goes out of scope.
pub struct Process {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| kept.lock().unwrap().push(line))
        });
        Self { child, lines }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Waits for the first line that holds a text.
    pub async fn line(&self, text: &str) -> String {
        let find = || self.lines().into_iter().find(|line| line.contains(text));
        eventually(&format!("a line with {text:?}"), async || find()).await
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// How the process ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Waits for the process to end.
    pub async fn exit(&mut self) -> ExitStatus {
        let child = Mutex::new(&mut self.child);
        eventually("the end of the process", async || child.lock().unwrap().try_wait().unwrap()).await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
