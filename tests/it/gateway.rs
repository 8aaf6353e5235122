//! A gateway on loopback that answers by script, for answers that a real one never gives; and runs of `job` against it.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{Samples, binary, eventually, finished};

/// What a gateway that is far away, or has much to do, takes for an answer.
const LATE: Duration = Duration::from_millis(500);

/// A gateway that takes every request and keeps it. It ends with this.
pub struct Gateway {
    pub address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _serving: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Seen {
    requests: Vec<Request>,
    /// How long each request's connection went on after it, where it was the last one on it.
    held: Vec<Duration>,
    /// What it says that it holds: the groups of its listing.
    holds: String,
    /// Its answer when it is asked for its listing, where that is another one.
    listing: Option<Reply>,
    /// How often it was asked.
    asked: usize,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
    /// When all of it was there.
    pub at: Instant,
}

impl Request {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The samples that were pushed.
    pub fn samples(&self) -> Samples {
        Samples::parse(&self.body)
    }

    /// The names of the families that were pushed.
    pub fn families(&self) -> Vec<&str> {
        let mut families: Vec<&str> = Vec::new();
        for line in self.body.lines() {
            let name = match line.strip_prefix("# TYPE ") {
                Some(typed) => typed.split(' ').next().unwrap(),
                None if line.starts_with('#') => continue,
                None => &line[..line.find(['{', ' ']).unwrap()],
            };
            // A histogram's parts are no families.
            let is_known = |known: &&str| {
                name.strip_prefix(known).is_some_and(|part| ["", "_bucket", "_sum", "_count"].contains(&part))
            };
            if !families.iter().any(is_known) {
                families.push(name);
            }
        }
        families
    }
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// These bytes; then the connection takes the next request.
    Whole(String),
    /// These bytes, after a while.
    Late(String),
    /// These bytes, and then the end of the connection.
    Cut(String),
    /// These bytes, then others again and again, for as long as they are taken.
    Endless(String, String),
    /// These bytes, then others so many times, and then the end of the connection.
    Long(String, String, usize),
    /// Not at all: the connection is kept until the client ends it.
    Nothing,
    /// The connection is reset.
    Reset,
}

impl Reply {
    /// What a real gateway answers to a push.
    pub fn ok() -> Self {
        Self::status("200 OK")
    }

    /// An answer without a body; `status` is number and phrase.
    pub fn status(status: &str) -> Self {
        Self::with(status, &[], "")
    }

    /// An answer with these headers and that body; `status` is number and phrase.
    pub fn with(status: &str, headers: &[(&str, &str)], body: &str) -> Self {
        let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        Self::Whole(format!("{head}\r\n{body}"))
    }
}

impl Gateway {
    /// Gives the requests these answers, in their order, and the last one to all that come after.
    pub async fn answering<const N: usize>(replies: [Reply; N]) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), replies)
    }

    /// The same on a socket that listens already.
    pub fn on<const N: usize>(listener: TcpListener, replies: [Reply; N]) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&seen), Arc::new(replies)));
        Self { address, seen, _serving: serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Has it say that it holds these groups, as JSON; none at first.
    pub fn hold(&self, groups: &str) {
        groups.clone_into(&mut self.seen.lock().unwrap().holds);
    }

    /// Has it answer so when it is asked what it holds.
    pub fn list(&self, reply: Reply) {
        self.seen.lock().unwrap().listing = Some(reply);
    }

    /// How often it was asked what it holds.
    pub fn asked(&self) -> usize {
        self.seen.lock().unwrap().asked
    }

    /// Every request so far, but for questions what it holds.
    pub fn requests(&self) -> Vec<Request> {
        self.seen.lock().unwrap().requests.clone()
    }

    /// Waits for that many requests, and gives the last of them.
    pub async fn request(&self, number: usize) -> Request {
        eventually(&format!("request {number}"), async || self.requests().get(number - 1).cloned()).await
    }

    /// Waits until a client that got no answer, or none that ends, has gone, and gives how long it stayed.
    pub async fn held(&self) -> Duration {
        eventually("a client that goes away", async || self.seen.lock().unwrap().held.first().copied()).await
    }
}

async fn serve(listener: TcpListener, seen: Arc<Mutex<Seen>>, replies: Arc<[Reply]>) {
    // They end with this.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(talk(stream, Arc::clone(&seen), Arc::clone(&replies)));
    }
}

/// Answers the requests of one connection until it ends.
async fn talk(stream: TcpStream, seen: Arc<Mutex<Seen>>, replies: Arc<[Reply]>) {
    let mut stream = BufReader::new(stream);
    while let Some(request) = receive(&mut stream).await {
        let came = request.at;
        let reply = {
            let mut seen = seen.lock().unwrap();
            // A push that is tried again asks first what there is.
            if request.path == "/api/v1/metrics" {
                seen.asked += 1;
                let holds = || Reply::with("200 OK", &[], &format!("{{\"data\":[{}]}}", seen.holds));
                seen.listing.clone().unwrap_or_else(holds)
            } else {
                seen.requests.push(request);
                replies[seen.requests.len().min(replies.len()) - 1].clone()
            }
        };
        if !answer(&mut stream, reply, came, &seen).await {
            return;
        }
    }
}

/// Answers one request; false when the connection ends with that.
async fn answer(stream: &mut BufReader<TcpStream>, reply: Reply, came: Instant, seen: &Mutex<Seen>) -> bool {
    if matches!(reply, Reply::Late(_)) {
        tokio::time::sleep(LATE).await;
    }
    match reply {
        Reply::Whole(answer) | Reply::Late(answer) => return stream.write_all(answer.as_bytes()).await.is_ok(),
        Reply::Endless(beginning, more) => {
            let mut taken = stream.write_all(beginning.as_bytes()).await;
            while taken.is_ok() {
                taken = stream.write_all(more.as_bytes()).await;
            }
            seen.lock().unwrap().held.push(came.elapsed());
        }
        Reply::Long(beginning, more, times) => {
            let mut taken = stream.write_all(beginning.as_bytes()).await;
            for _ in 0..times {
                if taken.is_ok() {
                    taken = stream.write_all(more.as_bytes()).await;
                }
            }
        }
        Reply::Cut(part) => {
            let _ = stream.write_all(part.as_bytes()).await;
        }
        Reply::Nothing => {
            let _ = stream.read_to_end(&mut Vec::new()).await;
            seen.lock().unwrap().held.push(came.elapsed());
        }
        Reply::Reset => stream.get_ref().set_zero_linger().unwrap(),
    }
    false
}

/// Reads a request; `None` when the connection ends before there is a whole one.
async fn receive(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = async || {
        let mut line = String::new();
        let read = stream.read_line(&mut line).await.ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    };
    let first = line().await?;
    let [method, path, "HTTP/1.1"] = first.split(' ').collect::<Vec<_>>()[..] else { panic!("{first:?}") };
    let mut headers = HeaderMap::new();
    loop {
        let line = line().await?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    }
    let length = headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let (method, path, body) = (method.to_owned(), path.to_owned(), String::from_utf8(body).unwrap());
    Some(Request { method, path, headers, body, at: Instant::now() })
}

/// An address at which nothing listens, kept from others while the socket lives.
pub fn unused_address() -> (SocketAddr, TcpSocket) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap(), socket)
}

// ---- Jobs ----

/// `job --name backup` with these options, which runs a shell script.
pub fn backup(folder: &Path, options: &[&str], script: &str) -> Command {
    let mut job = binary(folder);
    job.args(["job", "--name", "backup"]).args(options).args(["--", "sh", "-c", script]);
    job
}

/// What a job left behind.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub folder: TempDir,
}

impl Ran {
    /// What the wrapper said, line by line, without the program's name.
    pub fn said(&self) -> Vec<&str> {
        let line = |line| str::strip_prefix(line, "api-monitoring: ").unwrap_or_else(|| panic!("not ours: {self:?}"));
        self.stderr.lines().map(line).collect()
    }
}

/// Runs a shell script as the job `backup`, in an empty folder, and pushes only at its end.
pub async fn run(url: &str, options: &[&str], script: &str) -> Ran {
    run_with(url, options, &[], script).await
}

/// The same with more environment variables.
pub async fn run_with(url: &str, options: &[&str], environment: &[(&str, &str)], script: &str) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let mut job = backup(folder.path(), &[&["--no-start-push", "--pushgateway-url", url], options].concat(), script);
    job.envs(environment.iter().copied());
    let output = finished(job).await;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr), folder }
}

/// Runs a command through a shell that prepares the process for it, and then becomes it: `exec "$@"`.
pub fn under(preparation: &str, command: &Command) -> Command {
    let mut shell = Command::new("bash");
    shell.args(["-c", preparation, "bash"]).arg(command.get_program()).args(command.get_args());
    shell.current_dir(command.get_current_dir().unwrap()).env_clear();
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}
