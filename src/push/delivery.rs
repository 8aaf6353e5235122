//! Pushes that must not get lost: tried again while there is time, then spooled, and delivered later without undoing
//! anything newer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::FutureExt;
use prometheus::Registry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::client::{PushClient, PushError, REQUEST_TIMEOUT, encode};
use super::grouping_key::GroupingKey;
use super::listing::{Group, Listing, Question};
use super::spool::{Flushed, Found, Spool, SpoolError, Turn, Waiting};
use super::target::PushTarget;
use super::text::MetricsText;

/// The pause after the first failed try. It doubles with each, up to [`LAST_PAUSE`], and each is cut by up to a half at
/// random, so that jobs that failed together do not come back together.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

/// What a try may still take once it is given up.
const GIVE_UP_GRACE: Duration = Duration::from_secs(1);

/// `Date` has whole seconds: clocks that differ by less than this are taken for equal.
const CLOCKS_EQUAL: f64 = 2.0;

/// A push of some families into a group, which leaves the group's others as they are (POST).
#[derive(Debug, Clone, PartialEq)]
pub struct Push {
    /// The group.
    pub key: GroupingKey,
    /// The families, in the text format.
    pub text: String,
    /// When what they tell of happened.
    pub moment: SystemTime,
    /// Families of the group whose values are moments, in seconds since 1970. By them a late delivery knows whether the
    /// group tells of something later already. Without them it goes by when the gateway got what it holds, and may take
    /// what came late itself for newer than it is.
    pub moments: Vec<String>,
}

/// Delivers pushes to one gateway.
#[derive(Debug)]
pub struct Courier {
    target: PushTarget,
    /// Built when it is first needed: authorities take a while to read.
    client: Option<PushClient>,
    spool: Option<Spool>,
    clock: fn() -> SystemTime,
    chance: StdRng,
}

/// What became of a push.
#[derive(Debug)]
pub enum Outcome {
    /// The gateway took it.
    Delivered,
    /// It waits on disk.
    Spooled(PushError),
    /// It is nowhere.
    Lost(Lost),
}

/// Why a push got lost.
#[derive(Debug)]
pub struct Lost {
    /// Why the gateway did not take it.
    pub reason: PushError,
    /// Why it was not spooled, where that was tried.
    pub spool: Option<SpoolError>,
}

impl Push {
    /// A push of all that a registry holds.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded, or has a label of the grouping key.
    pub async fn of_registry(
        key: GroupingKey,
        registry: &Registry,
        moment: SystemTime,
        moments: &[&str],
    ) -> Result<Self, PushError> {
        let text = encode(&key, registry).await?;
        Ok(Self { key, text, moment, moments: moments.iter().map(|name| (*name).to_owned()).collect() })
    }
}

impl Courier {
    /// Delivers to this gateway, and keeps in the spool, if there is one, what the gateway does not take in time.
    ///
    /// `seed` makes the pauses between tries; `clock` tells the time of day.
    #[must_use]
    pub fn new(target: PushTarget, spool: Option<Spool>, clock: fn() -> SystemTime, seed: u64) -> Self {
        Self { target, client: None, spool, clock, chance: StdRng::seed_from_u64(seed) }
    }

    /// Pushes, and tries again until `until` as long as that may help: on connection errors, time-outs, 5xx and 429. From
    /// the first failure on, the push waits in the spool, so that nothing but the disk can lose it. Once `give_up` has
    /// resolved, a try is cut after a second and no other follows.
    ///
    /// A push that is tried again goes out as far as it is still news, as one from the spool does.
    pub async fn deliver(&mut self, push: &Push, until: Instant, give_up: impl Future<Output = ()>) -> Outcome {
        let give_up = give_up.shared();
        let first = match self.client() {
            Ok(client) => {
                once(until, give_up.clone(), GIVE_UP_GRACE, client.post(&push.key, push.text.clone().into())).await
            }
            Err(error) => Err(error),
        };
        let reason = match first {
            Ok(()) => return Outcome::Delivered,
            Err(reason) if reason.refuses_content() => return Outcome::Lost(Lost { reason, spool: None }),
            Err(reason) => reason,
        };
        let kept = self.keep(push).await;
        let outcome = if reason.is_transient() { self.again(push, reason, until, give_up).await } else { Err(reason) };
        match (outcome, kept) {
            (Ok(()), kept) => {
                self.forget(kept).await;
                Outcome::Delivered
            }
            (Err(reason), kept) if reason.refuses_content() => {
                self.forget(kept).await;
                Outcome::Lost(Lost { reason, spool: None })
            }
            (Err(reason), Some(Ok(_))) => Outcome::Spooled(reason),
            (Err(reason), kept) => Outcome::Lost(Lost { reason, spool: kept.and_then(Result::err) }),
        }
    }

    /// Tries again, until that cannot help any more.
    async fn again(
        &mut self,
        push: &Push,
        failed: PushError,
        until: Instant,
        give_up: impl Future<Output = ()> + Clone,
    ) -> Result<(), PushError> {
        let (client, clock) = (self.client()?, self.clock);
        let question = question(push);
        let attempt = async || {
            let text = match client.listing(&question).await {
                Ok(listing) => Held::new(listing, clock(), clock()).news(push).to_body(),
                // The gateway is away still.
                Err(error) if error.is_transient() => return Err(error),
                // It does not tell what it holds; the push is only seconds old.
                Err(_) => push.text.clone().into(),
            };
            if text.is_empty() { Ok(()) } else { client.post(&push.key, text).await }
        };
        patiently(&mut self.chance, Some(failed), until, give_up, GIVE_UP_GRACE, attempt).await
    }

    /// Pushes what a later push will say again, and so need not be spooled: tries until `until`, or until `give_up`
    /// resolves. A try that is under way then is still waited for, so that it cannot arrive after that later push.
    ///
    /// # Errors
    ///
    /// Why the last try failed.
    pub async fn announce(
        &mut self,
        push: &Push,
        until: Instant,
        give_up: impl Future<Output = ()>,
    ) -> Result<(), PushError> {
        let client = self.client()?;
        let attempt = async || client.post(&push.key, push.text.clone().into()).await;
        patiently(&mut self.chance, None, until, give_up.shared(), REQUEST_TIMEOUT, attempt).await
    }

    /// Delivers what waits in the spool, oldest first; `until` gives each push its time. What the group tells of
    /// something later is left out, family by family. Stops at the first entry that the gateway does not take, unless
    /// the gateway refuses the entry itself, which is then set aside.
    ///
    /// Dropping the future leaves in the spool what was not delivered.
    ///
    /// # Errors
    ///
    /// When the spool cannot be read or cleared.
    pub async fn flush(&mut self, until: impl Fn() -> Instant) -> Result<Flushed, SpoolError> {
        let Some(spool) = self.spool.clone() else { return Ok(Flushed::default()) };
        let now = (self.clock)();
        let looked = spool.clone();
        let Some((turn, found)) = blocking(move || look(&looked, now)).await? else {
            return Ok(Flushed { busy: true, ..Flushed::default() });
        };
        let Found { waiting, set_aside, unreadable } = found;
        let mut flushed = Flushed { set_aside, unreadable, ..Flushed::default() };
        let gateway = self.target.url().to_string();
        let (ours, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|waiting| waiting.gateway == gateway);
        flushed.left = others.len();
        for other in others {
            *flushed.elsewhere.entry(other.gateway).or_default() += 1;
        }
        let mut ours = ours.into_iter();
        while let Some(Waiting { path, push, .. }) = ours.next() {
            match self.deliver_late(&push, now, until()).await {
                Ok(news) => {
                    spool.remove(&path)?;
                    *(if news { &mut flushed.delivered } else { &mut flushed.superseded }) += 1;
                }
                Err(error) if error.refuses_content() => {
                    flushed.set_aside.push(turn.set_aside(&path, error.to_string()));
                }
                Err(error) => {
                    flushed.left += 1 + ours.len();
                    flushed.error = Some(error);
                    break;
                }
            }
        }
        Ok(flushed)
    }

    /// Pushes what of an old push is still news; false when none of it is. The gateway is asked right before: what comes
    /// to it between its answer and the push is the one thing that can be overwritten.
    async fn deliver_late(&mut self, push: &Push, began: SystemTime, until: Instant) -> Result<bool, PushError> {
        let (client, clock) = (self.client()?, self.clock);
        let question = question(push);
        let attempt = async || {
            let text = Held::new(client.listing(&question).await?, clock(), began).news(push);
            if text.families().is_empty() {
                return Ok(false);
            }
            client.post(&push.key, text.to_body()).await.map(|()| true)
        };
        patiently(&mut self.chance, None, until, std::future::pending(), REQUEST_TIMEOUT, attempt).await
    }

    /// Keeps a push on disk, if there is a spool.
    async fn keep(&self, push: &Push) -> Option<Result<PathBuf, SpoolError>> {
        let spool = self.spool.clone()?;
        let (gateway, push) = (self.target.url().to_string(), push.clone());
        Some(blocking(move || spool.store(&gateway, &push)).await)
    }

    /// Removes from the spool what was delivered after all. Where that fails it is delivered once more, as no news.
    async fn forget(&self, kept: Option<Result<PathBuf, SpoolError>>) {
        if let (Some(spool), Some(Ok(path))) = (self.spool.clone(), kept) {
            let _ = blocking(move || spool.remove(&path)).await;
        }
    }

    fn client(&mut self) -> Result<PushClient, PushError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = PushClient::new(self.target.clone())?;
        Ok(self.client.insert(client).clone())
    }
}

/// One try, within the time that is left, and within `grace` once `give_up` has resolved.
async fn once<T>(
    until: Instant,
    give_up: impl Future<Output = ()>,
    grace: Duration,
    attempt: impl Future<Output = Result<T, PushError>>,
) -> Result<T, PushError> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(PushError::OutOfTime);
    }
    let cut = async {
        give_up.await;
        tokio::time::sleep(grace).await;
    };
    tokio::select! {
        biased;
        outcome = tokio::time::timeout(left, attempt) => outcome.unwrap_or(Err(PushError::TimedOut(left))),
        () = cut => Err(PushError::TimedOut(grace)),
    }
}

/// Tries until it succeeds, until trying again cannot help, until there is no time for another pause, or until it is given
/// up. After a failure, it begins with a pause.
async fn patiently<T>(
    chance: &mut StdRng,
    mut failed: Option<PushError>,
    until: Instant,
    give_up: impl Future<Output = ()> + Clone,
    grace: Duration,
    mut attempt: impl AsyncFnMut() -> Result<T, PushError>,
) -> Result<T, PushError> {
    let mut pause = FIRST_PAUSE;
    loop {
        if let Some(error) = failed {
            let mut wait = pause.mul_f64(chance.random_range(0.5..=1.0));
            if let PushError::Unavailable { retry_after: Some(asked), .. } = &error {
                wait = wait.max(*asked);
            }
            if until.saturating_duration_since(Instant::now()) <= wait {
                return Err(error);
            }
            tokio::select! {
                biased;
                () = give_up.clone() => return Err(error),
                () = tokio::time::sleep(wait) => {}
            }
            // The sleep may have been longer than was asked for.
            if Instant::now() >= until {
                return Err(error);
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
        match once(until, give_up.clone(), grace, attempt()).await {
            Err(error) if error.is_transient() => failed = Some(error),
            outcome => return outcome,
        }
    }
}

fn look(spool: &Spool, now: SystemTime) -> Result<Option<(Turn, Found)>, SpoolError> {
    let Some(turn) = spool.turn()? else { return Ok(None) };
    let found = turn.look(now)?;
    Ok(Some((turn, found)))
}

/// Works with files off the runtime's threads. Once begun it ends, also when nobody waits for it any more.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends and drops this future with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// What the gateway holds, as far as it decides what of an older push is still news.
#[derive(Debug)]
struct Held {
    group: Option<Group>,
    /// What the gateway's clock is ahead of ours, in seconds.
    ahead: f64,
    /// When this delivery began, in seconds since 1970.
    began: f64,
}

impl Held {
    fn new(listing: Listing, now: SystemTime, began: SystemTime) -> Self {
        let ahead = listing.date.map_or(0.0, |date| seconds(date) - seconds(now));
        let ahead = if ahead.abs() < CLOCKS_EQUAL { 0.0 } else { ahead };
        Self { group: listing.group, ahead, began: seconds(began) }
    }

    /// The families of a push that are newer than what its group holds.
    fn news(&self, push: &Push) -> MetricsText {
        let mut text = MetricsText::parse(push.text.as_bytes());
        let Some(group) = &self.group else { return text };
        let moment = seconds(push.moment);
        let moments = push.moments.iter().filter_map(|name| group.get(name)?.value);
        let latest = moments.fold(f64::NEG_INFINITY, f64::max);
        text.retain(|family| {
            let Some(stored) = group.get(family.name()) else { return true };
            if push.moments.iter().any(|name| name == family.name()) {
                // Moments only grow, whichever run they come from.
                let Some(moment) = family.sole_value() else { return false };
                return stored.value.is_none_or(|value| moment > value);
            }
            // All of it is news if the group knows of nothing later; else only what was not pushed since.
            let tells_last = latest.is_finite() && moment >= latest;
            let pushed = seconds(stored.pushed) - self.ahead;
            let by_this_delivery = push.moments.is_empty() && pushed >= self.began;
            tells_last || pushed < moment || by_this_delivery
        });
        text
    }
}

fn question(push: &Push) -> Arc<Question> {
    Arc::new(Question::new(push.key.clone(), &MetricsText::parse(push.text.as_bytes()), &push.moments))
}

fn seconds(moment: SystemTime) -> f64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::super::listing::StoredFamily;
    use super::*;

    const START: &str = "job_start_timestamp_seconds";
    const SUCCESS: &str = "job_success_timestamp_seconds";

    fn at(second: u32) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second.into())
    }

    /// What the gateway holds of the job `j`: families with the second in which they were pushed, and their value.
    fn held(families: &[(&str, u32, f64)]) -> Held {
        let families = families
            .iter()
            .map(|(name, pushed, value)| (*name, StoredFamily { pushed: at(*pushed), value: Some(*value) }));
        Held { group: Some(families.collect()), ahead: 0.0, began: 100.0 }
    }

    /// A push of the job `j` that tells of a second.
    fn push(second: u32, text: &str) -> Push {
        let moments = vec![START.to_owned(), SUCCESS.to_owned()];
        Push { key: GroupingKey::new("j").unwrap(), text: text.to_owned(), moment: at(second), moments }
    }

    /// The names of the families that are still news.
    fn news(held: &Held, push: &Push) -> Vec<String> {
        held.news(push).families().iter().map(|family| family.name().to_owned()).collect()
    }

    const RUN: &str = "code 0\njob_start_timestamp_seconds 10\njob_success_timestamp_seconds 12\nrows 5\n";

    #[test]
    fn all_is_news_to_a_group_that_is_not_there_or_tells_of_earlier_runs() {
        let all = ["code", START, SUCCESS, "rows"];

        assert_eq!(news(&Held { group: None, ..held(&[]) }, &push(12, RUN)), all);
        let earlier = held(&[("code", 4, 1.0), (START, 4, 3.0), (SUCCESS, 4, 4.0), ("rows", 4, 1.0)]);
        assert_eq!(news(&earlier, &push(12, RUN)), all);
    }

    #[test]
    fn an_earlier_run_that_was_delivered_late_does_not_hide_a_later_one() {
        // Pushed in second 99 by the gateway's clock, but of a run that began in second 3.
        let late = held(&[("code", 99, 1.0), (START, 99, 3.0), (SUCCESS, 99, 4.0), ("rows", 99, 1.0)]);

        assert_eq!(news(&late, &push(12, RUN)), ["code", START, SUCCESS, "rows"]);
    }

    #[test]
    fn a_later_run_that_failed_keeps_its_values_and_gets_the_earlier_success() {
        let later = held(&[("code", 20, 3.0), (START, 20, 18.0)]);

        assert_eq!(news(&later, &push(12, RUN)), [SUCCESS, "rows"]);
    }

    #[test]
    fn a_later_runs_families_are_kept_and_those_it_did_not_push_are_updated() {
        let later = held(&[("code", 20, 0.0), (START, 20, 18.0), (SUCCESS, 20, 20.0), ("rows", 5, 1.0)]);

        assert_eq!(news(&later, &push(12, RUN)), ["rows"], "rows is of a run before");
    }

    #[test]
    fn the_start_of_a_run_is_no_news_after_its_end() {
        let ended = held(&[("running", 12, 0.0), (START, 12, 10.0), (SUCCESS, 12, 12.0)]);

        let start = push(10, "running 1\njob_start_timestamp_seconds 10\n");

        assert_eq!(news(&ended, &start), [""; 0]);
    }

    #[test]
    fn what_a_run_says_of_itself_is_news_after_its_outcome() {
        let outcome = held(&[("code", 12, 0.0), (START, 12, 10.0), (SUCCESS, 12, 12.0), ("rows", 5, 1.0)]);

        assert_eq!(news(&outcome, &push(12, "rows 5\n")), ["rows"]);
    }

    #[test]
    fn without_moments_it_goes_by_when_the_gateway_got_what_it_holds() {
        let push = Push { moments: Vec::new(), ..push(12, "rows 5\nother 1\n") };

        assert_eq!(news(&held(&[("rows", 11, 1.0), ("other", 13, 1.0)]), &push), ["rows"]);
        let ahead = Held { ahead: 60.0, ..held(&[("rows", 71, 1.0), ("other", 73, 1.0)]) };
        assert_eq!(news(&ahead, &push), ["rows"], "by a clock that is a minute ahead");
        let ours = held(&[("rows", 101, 1.0), ("other", 99, 1.0)]);
        assert_eq!(news(&ours, &push), ["rows"], "this delivery began in second 100 and is itself what pushed rows");
    }

    #[test]
    fn the_same_push_once_more_does_no_harm() {
        let itself = held(&[("code", 12, 0.0), (START, 12, 10.0), (SUCCESS, 12, 12.0), ("rows", 12, 5.0)]);

        assert_eq!(news(&itself, &push(12, RUN)), ["code", "rows"]);
    }

    #[test]
    fn clocks_that_differ_by_less_than_a_date_can_tell_are_equal() {
        let ahead = |seconds: u32| {
            let listing = Listing { date: Some(at(100 + seconds)), group: None };
            Held::new(listing, at(100), at(100)).ahead
        };

        assert!(ahead(1).abs() < f64::EPSILON);
        assert!((ahead(60) - 60.0).abs() < f64::EPSILON);
    }

    /// Tries with a fixed outcome until there is no more time, and gives the moments of the tries in seconds.
    async fn tries(until: u64, outcome: impl Fn() -> PushError) -> Vec<f64> {
        let began = Instant::now();
        let mut tries = Vec::new();
        let until = began + Duration::from_secs(until);
        let attempt = async || -> Result<(), _> {
            tries.push(began.elapsed().as_secs_f64());
            Err(outcome())
        };
        let never = std::future::pending();
        let _ = patiently(&mut StdRng::seed_from_u64(1), None, until, never, GIVE_UP_GRACE, attempt).await;
        tries
    }

    fn unavailable(retry_after: Option<u64>) -> PushError {
        PushError::Unavailable {
            status: http::StatusCode::SERVICE_UNAVAILABLE,
            reason: String::new(),
            retry_after: retry_after.map(Duration::from_secs),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_between_tries_grow_up_to_a_limit() {
        let tries = tries(10, || unavailable(None)).await;

        let pauses: Vec<_> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let longest = [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0, 2.0];
        assert!(pauses.len() >= 6, "{pauses:?}");
        for (pause, longest) in pauses.iter().zip(longest) {
            assert!((longest / 2.0 - 0.01..=longest + 0.01).contains(pause), "{pauses:?}");
        }
        assert!(*tries.last().unwrap() < 10.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_gateway_that_says_when_to_come_back_is_heeded() {
        let tries = tries(10, || unavailable(Some(4))).await;

        assert_eq!(tries.iter().map(|at| at.round()).collect::<Vec<_>>(), [0.0, 4.0, 8.0]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_cannot_help_is_not_tried_again() {
        let refused = || PushError::Refused { status: http::StatusCode::BAD_REQUEST, reason: String::new() };

        assert_eq!(tries(10, refused).await.len(), 1);
        assert_eq!(tries(0, refused).await.len(), 0, "there is no time at all");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_is_given_up_has_a_second_and_no_other_follows() {
        let began = Instant::now();
        let until = began + Duration::from_secs(10);
        let given_up = async |attempt: &mut dyn FnMut() -> Option<PushError>| {
            let mut tries = 0;
            let attempt = async || -> Result<(), _> {
                tries += 1;
                match attempt() {
                    Some(error) => Err(error),
                    None => std::future::pending().await,
                }
            };
            let mut chance = StdRng::seed_from_u64(1);
            let now = std::future::ready(());
            let outcome = patiently(&mut chance, None, until, now, GIVE_UP_GRACE, attempt).await;
            (outcome, tries)
        };

        let (failed, tries) = given_up(&mut || Some(unavailable(None))).await;
        assert!(matches!(failed, Err(PushError::Unavailable { .. })) && tries == 1, "{failed:?}");
        assert_eq!(began.elapsed(), Duration::ZERO);

        let (hanging, tries) = given_up(&mut || None).await;
        assert!(matches!(hanging, Err(PushError::TimedOut(_))) && tries == 1, "{hanging:?}");
        assert_eq!(began.elapsed().as_secs(), 1);
    }
}
