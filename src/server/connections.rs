//! All connections: they are accepted up to a limit, and ended without losing a request.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Body;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, sleep, timeout};
use tower_service::Service;

use super::connection::Front;
use super::exchange::RequestBody;
use super::place::{Common, Place};
use super::refusal::{Refusals, Room, Throttle};
use crate::metrics::{ConnectionMetrics, Refusal};

/// Pause after the system refused a connection for lack of resources: trying again at once would only burn CPU.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection that was used a moment ago is waited for at the end: its client's next request is perhaps on
/// its way, and the answer tells it to come no more. One that has waited for longer is closed at once.
const LINGER: Duration = Duration::from_secs(1);

/// Connections beyond the limit, for as long as those that make room for them need to go.
const OVERLAP_MAX: usize = 64;

/// The connections of a server.
pub(super) struct Connections {
    limit: usize,
    drain_timeout: Duration,
    metrics: ConnectionMetrics,
    common: Arc<Common>,
    tasks: JoinSet<()>,
    places: HashMap<Id, Arc<Place>>,
    room: Room,
    refusals: Refusals,
    full: Throttle,
    failing: Throttle,
}

/// Makes every answer the last of its connection.
pub(super) struct Goodbye(Arc<Common>);

impl Goodbye {
    pub(super) fn say(&self) {
        self.0.say_goodbye();
    }
}

impl Connections {
    pub(super) fn new(limit: usize, drain_timeout: Duration, metrics: ConnectionMetrics) -> Self {
        // Whoever only waits must not use up the time of those that are being answered.
        let linger = LINGER.min(drain_timeout / 2);
        Self {
            limit,
            drain_timeout,
            metrics,
            common: Arc::new(Common::new(linger)),
            tasks: JoinSet::new(),
            places: HashMap::new(),
            room: Room::default(),
            refusals: Refusals::new(),
            full: Throttle::default(),
            failing: Throttle::default(),
        }
    }

    /// The means to announce the end before it comes.
    pub(super) fn goodbye(&self) -> Goodbye {
        Goodbye(Arc::clone(&self.common))
    }

    /// Serves connections until told to stop, then lets requests in flight finish.
    pub(super) async fn serve<S, B>(mut self, listener: TcpListener, service: S, mut stopped: oneshot::Receiver<()>)
    where
        S: Service<Request<RequestBody>, Response = Response<B>, Error = Infallible, Future: Send>,
        S: Clone + Send + Sync + 'static,
        B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + Unpin + 'static,
    {
        let front = Arc::new(Front::new(service));
        let serve = move |stream, place| Arc::clone(&front).serve(stream, place);
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                Some(ended) = self.tasks.join_next_with_id() => self.forget(&ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => self.admit(stream, &serve),
                    Err(error) if is_the_clients(&error) => {}
                    Err(error) => {
                        self.cannot_accept(&error);
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        self.common.say_goodbye();
        if let Err(error) = self.empty_the_queue(listener, &serve) {
            tracing::warn!(cause = %error, "cannot accept the last connections");
        }
        self.end().await;
    }

    /// Gives a connection its place, when there is one.
    fn admit<F>(&mut self, stream: TcpStream, serve: &impl Fn(TcpStream, Arc<Place>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if !self.has_room() {
            self.metrics.add_refused(Refusal::Limit);
            if let Some(refused) = self.full.happened() {
                tracing::warn!(refused, max_connections = self.limit, "too many connections; new ones are refused");
            }
            self.refusals.tell(stream);
            return;
        }
        // Small answers must not wait for the client's acknowledgement of the one before (Nagle's algorithm).
        let _ = stream.set_nodelay(true);
        let place = Arc::new(Place::new(Arc::clone(&self.common)));
        let task = self.tasks.spawn(serve(stream, Arc::clone(&place)));
        self.places.insert(task.id(), place);
        self.metrics.set_open(self.tasks.len());
    }

    /// Whether there is room for one more, if need be because another one leaves.
    fn has_room(&mut self) -> bool {
        if self.tasks.len() < self.limit {
            return true;
        }
        if self.tasks.len() >= self.limit + OVERLAP_MAX {
            return false;
        }
        let leaving = self.room.longest_waiting(&self.places);
        leaving.inspect(|place| place.leave()).is_some()
    }

    fn forget(&mut self, ended: &Result<(Id, ()), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, ())| *id);
        self.places.remove(&id);
        self.metrics.set_open(self.tasks.len());
    }

    fn cannot_accept(&mut self, error: &io::Error) {
        self.metrics.add_refused(Refusal::System);
        if let Some(attempts) = self.failing.happened() {
            tracing::warn!(cause = %error, attempts, "cannot accept connections");
        }
    }

    // ---- The end ----

    /// Accepts whoever has connected already, and then nobody. The last look at the queue and its end are as close
    /// together as two system calls can be: whoever connects between them is lost.
    fn empty_the_queue<F>(
        &mut self,
        listener: TcpListener,
        serve: &impl Fn(TcpStream, Arc<Place>) -> F,
    ) -> io::Result<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = listener.into_std()?;
        // A flood of connections must not keep the service from ending.
        let latest = Instant::now() + LINGER;
        while Instant::now() < latest {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true)?;
                    self.admit(TcpStream::from_std(stream)?, serve);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if is_the_clients(&error) || error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Lets each connection end when no request is lost by that, for as long as the drain may take.
    async fn end(mut self) {
        for place in self.places.values() {
            place.leave();
        }
        let all_gone = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(self.drain_timeout, all_gone).await.is_err() {
            while self.tasks.try_join_next().is_some() {}
            tracing::warn!(connections = self.tasks.len(), "the drain timed out; connections are cut");
        }
        // Cut connections end as 499 each, recorded before the last metrics leave.
        self.tasks.shutdown().await;
        self.metrics.set_open(0);
    }
}

/// The client was gone before it could be accepted.
fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset)
}
