//! A client that sends bytes as they are, and reads one answer after the other.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::support::{Answer, Server, in_time};

/// A request that leaves the connection open.
pub const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: api\r\n\r\n";

/// One connection.
pub struct Wire(BufReader<TcpStream>);

impl Wire {
    pub async fn to(server: &Server) -> Self {
        Self::connect(&server.address).await.unwrap()
    }

    pub async fn connect(address: &str) -> io::Result<Self> {
        TcpStream::connect(address).await.map(|stream| Self(BufReader::new(stream)))
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.get_mut().write_all(bytes).await
    }

    /// Reads one answer, whose body must have a length.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let reading = async {
            let mut bytes = Vec::new();
            while !bytes.ends_with(b"\r\n\r\n") {
                if self.0.read_until(b'\n', &mut bytes).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            let mut answer = Answer::parse(&bytes);
            let length = answer.header("content-length").parse().expect("an answer with a length");
            answer.body = vec![0; length];
            self.0.read_exact(&mut answer.body).await?;
            Ok(answer)
        };
        in_time("an answer", reading).await
    }

    /// Sends a request and reads its answer.
    pub async fn ask(&mut self, request: &[u8]) -> io::Result<Answer> {
        self.send(request).await?;
        self.answer().await
    }

    /// Sends no more, and reads until the server closes.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.0.get_mut().shutdown().await;
        let _ = in_time("the end of the connection", self.0.read_to_end(&mut bytes)).await;
        bytes
    }

    /// Whether the server closes without a further byte. A reset is an end too.
    pub async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let read = in_time("the end of the connection", self.0.read_to_end(&mut rest)).await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "something came before the end");
        read.is_ok() || rest.is_empty()
    }
}
