//! The life of one connection: it waits without buffers, talks with them, and ends without cutting off its last answer.

use std::convert::Infallible;
use std::error::Error;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tower_service::Service;

use super::exchange::{self, RequestBody};
use super::patience::Patience;
use super::place::{Activity, Place};
use super::socket::Socket;

/// Largest head of a request, in bytes: that much of it is buffered, and no more.
const HEAD_MAX_BYTES: usize = 16 * 1024;

/// How much is still read and thrown away after the last answer, and for how long: closing on bytes that nobody read
/// resets the connection, and the client might not get the answer.
const DISCARD_MAX_BYTES: usize = 8 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// What serves connections: the protocol's settings, and the service.
pub(super) struct Front<S> {
    http: http1::Builder,
    service: S,
}

/// How a connection goes on after it has talked.
enum Next {
    /// It waits for a request.
    Wait(Socket),
    /// It is over, and what its client still sends is thrown away.
    Discard(TcpStream),
    /// It is over.
    End,
}

impl<S, B> Front<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible, Future: Send> + Clone + Send + Sync,
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
{
    pub(super) fn new(service: S) -> Self {
        let mut http = http1::Builder::new();
        http.max_buf_size(HEAD_MAX_BYTES);
        Self { http, service }
    }

    /// Serves a connection to its end.
    pub(super) async fn serve(self: Arc<Self>, stream: TcpStream, place: Arc<Place>) {
        let mut patience = Patience::new(&place);
        let mut socket = Socket::new(stream, Arc::clone(&place));
        while is_asked(&socket, &place, &mut patience).await {
            match self.talking(socket, &place, &mut patience).await {
                Next::Wait(waiting) => socket = waiting,
                Next::Discard(stream) => return discard(&stream).await,
                Next::End => return,
            }
        }
    }

    /// [`Front::talk`] on the heap, and made outside of what waits for it: so a connection that waits is small.
    fn talking<'a>(
        &'a self,
        socket: Socket,
        place: &'a Arc<Place>,
        patience: &'a mut Patience,
    ) -> Pin<Box<dyn Future<Output = Next> + Send + 'a>> {
        Box::pin(self.talk(socket, place, patience))
    }

    /// Answers requests until there is none for a while, or the connection is over.
    async fn talk(&self, socket: Socket, place: &Arc<Place>, patience: &mut Patience) -> Next {
        let _warm = place.common.warm();
        let service = exchange::service(self.service.clone(), place);
        let mut connection = self.http.serve_connection(TokioIo::new(socket), service);
        let ended = poll_fn(|context| {
            place.register(context.waker());
            match Pin::new(&mut connection).poll(context) {
                Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
                Poll::Pending if patience.is_over(place, context) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            }
        });
        let ended = ended.await;
        let parts = connection.into_parts();
        let socket = parts.io.into_inner();
        match ended {
            Some(outcome) => {
                let refused = outcome.is_err_and(|error| error.is_parse());
                let rest = refused || place.is_unread() || !parts.read_buf.is_empty() || has_more(&socket).await;
                if rest { Next::Discard(socket.into_stream()) } else { Next::End }
            }
            None if matches!(place.activity(), Activity::Idle(_)) => Next::Wait(socket.read_again(parts.read_buf)),
            // Half a head, or a client that takes nothing.
            None => Next::End,
        }
    }
}

/// Waits for something to read; says no when there will be nothing, or the connection has waited long enough.
async fn is_asked(socket: &Socket, place: &Place, patience: &mut Patience) -> bool {
    poll_fn(|context| {
        place.register(context.waker());
        if let Poll::Ready(asked) = socket.poll_asked(context) {
            return Poll::Ready(asked);
        }
        if !patience.is_over_without_buffers(place, context) {
            return Poll::Pending;
        }
        let asked = socket.holds_bytes();
        // The runtime has yet to learn of them.
        patience.renew();
        Poll::Ready(asked)
    })
    .await
}

/// Whether the client has sent more than was read.
async fn has_more(socket: &Socket) -> bool {
    poll_fn(|context| Poll::Ready(socket.poll_asked(context) == Poll::Ready(true))).await
}

/// Reads on until the client closes, within limits. The connection is closed for writing already.
pub(super) async fn discard(stream: &TcpStream) {
    let reading = async {
        let mut left = DISCARD_MAX_BYTES;
        while left > 0 && stream.readable().await.is_ok() {
            match throw_away(stream) {
                Ok(0) => break,
                Ok(bytes) => left = left.saturating_sub(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
    };
    // Whether the client closed or not, it had its time.
    let _ = timeout(DISCARD_TIME, reading).await;
}

/// Apart, so that the buffer is no part of what a connection keeps while it waits.
fn throw_away(stream: &TcpStream) -> io::Result<usize> {
    stream.try_read(&mut [0; 8 * 1024])
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use warp::Filter;

    use super::super::place::Common;
    use super::*;

    #[tokio::test]
    async fn a_connection_that_waits_is_small() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let place = Arc::new(Place::new(Arc::new(Common::new(Duration::ZERO))));
        let front = Arc::new(Front::new(warp::service(warp::any().map(warp::reply))));

        let waiting = front.serve(stream, place);

        assert!(size_of_val(&waiting) < 1024, "{} bytes for each", size_of_val(&waiting));
    }
}
