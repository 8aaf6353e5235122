//! HTTP/1.1 as these measurements need it: requests as text, heads of answers, and a bare client over one connection.
//! A full client would take more time than some of the servers.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than any answer here takes.
const TIMEOUT: Duration = Duration::from_secs(60);

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\n\r\n")
}

pub fn get_gzipped(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bench\r\nAccept-Encoding: gzip\r\n\r\n")
}

pub fn post(path: &str, json: &str) -> String {
    let length = json.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
    )
}

/// What an answer's head says.
pub struct Head {
    pub status: u16,
    /// None when the body comes in chunks.
    pub length: Option<usize>,
}

impl Head {
    /// Reads a head, its last empty line included.
    pub fn parse(head: &[u8]) -> Self {
        let head = std::str::from_utf8(head).expect("a head is text");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let length = lines.find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().expect("a length is a number"))
        });
        Self { status: status.unwrap_or_else(|| panic!("no HTTP answer: {head:?}")), length }
    }
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
}

/// One keep-alive connection, one request after another.
pub struct Client(BufReader<TcpStream>);

impl Client {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self(BufReader::with_capacity(1 << 17, stream)))
    }

    /// Sends a request and reads its whole answer.
    pub fn send(&mut self, request: &str) -> io::Result<Answer> {
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if self.0.read_until(b'\n', &mut head)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let Head { status, length } = Head::parse(&head);
        let mut body = Vec::new();
        match length {
            Some(length) => self.read_exactly(length, &mut body)?,
            None => while self.read_chunk(&mut body)? {},
        }
        Ok(Answer { status, body })
    }

    /// Appends a chunk; false after the last one.
    fn read_chunk(&mut self, body: &mut Vec<u8>) -> io::Result<bool> {
        let mut size = String::new();
        self.0.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        self.read_exactly(size, body)?;
        self.0.read_line(&mut String::new())?;
        Ok(size > 0)
    }

    fn read_exactly(&mut self, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
        let read = (&mut self.0).take(length as u64).read_to_end(body)?;
        if read == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }
}

/// The answer to one request on a connection of its own; it must be 200.
pub fn fetch(name: &str, address: SocketAddr, path: &str) -> Vec<u8> {
    let answer = Client::connect(address).and_then(|mut client| client.send(&get(path)));
    match answer {
        Ok(Answer { status: 200, body }) => body,
        other => panic!("{name}: GET {path}: {other:?}"),
    }
}
