//! A connection's socket, which tells its place what comes and goes.

use std::io;
use std::os::fd::AsFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::place::Place;

/// A client's socket.
pub(super) struct Socket {
    stream: TcpStream,
    /// What was read before and is to be read again.
    again: Bytes,
    place: Arc<Place>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, place: Arc<Place>) -> Self {
        Self { stream, again: Bytes::new(), place }
    }

    /// Puts back what was read too much.
    pub(super) fn read_again(mut self, bytes: Bytes) -> Self {
        self.again = bytes;
        self
    }

    pub(super) fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Whether there is something to read, once there is or the connection has ended. It stays where it is.
    pub(super) fn poll_asked(&self, context: &mut Context<'_>) -> Poll<bool> {
        if !self.again.is_empty() {
            return Poll::Ready(true);
        }
        // Not only whether the runtime holds it for readable: of a new connection, it does so at first.
        let peeked = self.stream.poll_peek(context, &mut ReadBuf::new(&mut [0]));
        peeked.map(|bytes| bytes.is_ok_and(|bytes| bytes > 0))
    }

    /// Whether bytes have come, as the system sees it now: the runtime learns of it a moment later. They stay where they
    /// are.
    pub(super) fn holds_bytes(&self) -> bool {
        let twin = self.stream.as_fd().try_clone_to_owned().map(std::net::TcpStream::from);
        twin.and_then(|twin| twin.peek(&mut [0])).is_ok_and(|bytes| bytes > 0)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.again.is_empty() {
            let length = self.again.len().min(buffer.remaining());
            buffer.put_slice(&self.again.split_to(length));
            self.place.received();
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if buffer.filled().len() > before {
            self.place.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.place.wrote(written.is_ready());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.place.wrote(written.is_ready());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
