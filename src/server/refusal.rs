//! Connections beyond the limit: which one makes room, and what the others are told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, timeout};

use super::connection::discard;
use super::place::Place;
use crate::api::problem::ApiError;

/// How long a connection has waited for a request before it may have to make room for another.
const MAKES_ROOM_AFTER: Duration = Duration::from_secs(1);

/// How often it is searched for those, and how many are remembered: a flood must not have all of them searched each time.
const SEARCH_PAUSE: Duration = Duration::from_millis(100);
const FOUND_MAX: usize = 64;

/// Refusals told at once; beyond that, connections are closed without a word.
const TOLD_MAX: usize = 64;

/// How long a client may take to hear it.
const TELLING_TIME: Duration = Duration::from_secs(1);

/// How often a refusal is logged.
const LOG_PAUSE: Duration = Duration::from_secs(5);

/// Finds the connections that have waited longest for a request.
#[derive(Default)]
pub(super) struct Room {
    /// Those that have waited longest come last.
    found: Vec<Arc<Place>>,
    searched: Option<Instant>,
}

impl Room {
    /// The one of these that has waited longest, more or less, and long enough to make room.
    pub(super) fn longest_waiting(&mut self, places: &HashMap<Id, Arc<Place>>) -> Option<Arc<Place>> {
        self.still_waiting().or_else(|| {
            if self.searched.is_some_and(|searched| searched.elapsed() < SEARCH_PAUSE) {
                return None;
            }
            self.search(places);
            self.still_waiting()
        })
    }

    fn still_waiting(&mut self) -> Option<Arc<Place>> {
        while let Some(place) = self.found.pop() {
            if place.waiting_since(MAKES_ROOM_AFTER).is_some() {
                return Some(place);
            }
        }
        None
    }

    fn search(&mut self, places: &HashMap<Id, Arc<Place>>) {
        self.searched = Some(Instant::now());
        let waiting = |place: &Arc<Place>| Some((place.waiting_since(MAKES_ROOM_AFTER)?, Arc::clone(place)));
        let mut waiting: Vec<_> = places.values().filter_map(waiting).collect();
        waiting.sort_unstable_by_key(|(since, _)| *since);
        self.found = waiting.into_iter().take(FOUND_MAX).rev().map(|(_, place)| place).collect();
    }
}

/// Tells clients that there is no room, a few at a time.
pub(super) struct Refusals {
    answer: Arc<[u8]>,
    telling: JoinSet<()>,
}

impl Refusals {
    pub(super) fn new() -> Self {
        Self { answer: answer().into(), telling: JoinSet::new() }
    }

    /// Answers before a request was read, and closes.
    pub(super) fn tell(&mut self, mut stream: TcpStream) {
        while self.telling.try_join_next().is_some() {}
        if self.telling.len() >= TOLD_MAX {
            return;
        }
        let answer = Arc::clone(&self.answer);
        self.telling.spawn(async move {
            let told = timeout(TELLING_TIME, async {
                stream.write_all(&answer).await?;
                stream.shutdown().await
            });
            if let Ok(Ok(())) = told.await {
                discard(&stream).await;
            }
        });
    }
}

/// The whole answer, the same problem as for too many requests.
fn answer() -> Vec<u8> {
    let problem = ApiError::Overloaded.problem();
    let body = serde_json::to_string(&problem).expect("strings and numbers always serialise");
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n\
         retry-after: 1\r\ncache-control: no-store\r\nconnection: close\r\n\r\n",
        body.len()
    );
    (head + &body).into_bytes()
}

/// Lets a line be logged once per some seconds.
#[derive(Default)]
pub(super) struct Throttle {
    logged: Option<Instant>,
    since: u64,
}

impl Throttle {
    /// How often it happened since it was logged, when it is time to log it again.
    pub(super) fn happened(&mut self) -> Option<u64> {
        self.since += 1;
        if self.logged.is_some_and(|logged| logged.elapsed() < LOG_PAUSE) {
            return None;
        }
        self.logged = Some(Instant::now());
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_happens_all_the_time_is_logged_once_per_some_seconds_with_its_number() {
        let mut throttle = Throttle::default();
        let mut logged = Vec::new();

        for _ in 0..120 {
            logged.extend(throttle.happened());
            tokio::time::advance(Duration::from_millis(100)).await;
        }

        assert_eq!(logged, [1, 50, 50]);
    }
}
