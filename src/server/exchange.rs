//! The edge between a connection and the service: one request and its response.
//!
//! What HTTP asks of a server rather than of a service stands here: the `Host` header, and when a connection must end
//! with an answer, and say so.

use std::cell::RefCell;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, Uri, Version};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use tower_service::Service;

use super::host;
use super::place::Place;

/// What a connection is served by: a service, and the edge around it.
pub(super) fn service<S, B>(
    service: S,
    place: &Arc<Place>,
) -> impl hyper::service::Service<
    Request<Incoming>,
    Response = Response<AnswerBody<B>>,
    Error = Infallible,
    Future: Future<Output = Result<Response<AnswerBody<B>>, Infallible>> + Send,
> + Send
+ use<S, B>
where
    S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible, Future: Send> + Send,
    B: Body<Data = Bytes> + Send + Unpin,
{
    // A connection handles one request at a time, so it needs no service for each of them.
    let service = RefCell::new(service);
    let place = Arc::clone(place);
    service_fn(move |request: Request<Incoming>| {
        let version = request.version();
        let answer = service.borrow_mut().call(received(request, &place));
        let place = Arc::clone(&place);
        async move { answer.await.map(|response| answered(response, version, place)) }
    })
}

/// A request as the service gets it.
fn received(mut request: Request<Incoming>, place: &Arc<Place>) -> Request<RequestBody> {
    let has_body = !request.body().is_end_stream();
    place.begin(has_body);
    if let Some(fault) = host::fault(request.version(), request.headers()) {
        request.extensions_mut().insert(fault);
    }
    let place = has_body.then(|| Arc::clone(place));
    with_path(request).map(|body| RequestBody { body, place })
}

/// Gives a request without a path (`CONNECT host:port`, or a target without its slash) the path `*`, which no route
/// serves: warp's path filters panic where there is none, and such a request must be answered and counted too.
fn with_path<B>(mut request: Request<B>) -> Request<B> {
    if request.uri().path_and_query().is_none() {
        *request.uri_mut() = Uri::from_static("*");
    }
    request
}

/// A response as the connection sends it. It says so when it is the last one.
fn answered<B: Body>(mut response: Response<B>, version: Version, place: Arc<Place>) -> Response<AnswerBody<B>> {
    // Without a length and without chunks, the end of the connection is the end of the body.
    let endless = version < Version::HTTP_11 && response.body().size_hint().exact().is_none();
    // What is left of a request's body stands between it and the next request.
    if endless || place.is_unread() || place.says_goodbye() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        // hyper adds `keep-alive` to what an HTTP/1.0 client gets, unless the response is of that version too.
        if version < Version::HTTP_11 {
            *response.version_mut() = version;
        }
    }
    response.map(|body| AnswerBody { body, place })
}

/// A request's body. It tells its place when it has been read to its end.
pub(super) struct RequestBody {
    body: Incoming,
    /// `None` when there is nothing to be read.
    place: Option<Arc<Place>>,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        let ended = matches!(frame, Poll::Ready(None)) || (frame.is_ready() && self.body.is_end_stream());
        if ended && let Some(place) = self.place.take() {
            place.has_read_all();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body. When it goes, its request is answered.
pub(super) struct AnswerBody<B> {
    body: B,
    place: Arc<Place>,
}

impl<B: Body + Unpin> Body for AnswerBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<B> Drop for AnswerBody<B> {
    fn drop(&mut self) {
        self.place.answered();
    }
}
