//! Pushes that must not get lost: tried again while there is time, then spooled, and delivered later without undoing
//! anything newer.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::Registry;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::client::{Group, Listing, PushClient, PushError, REQUEST_TIMEOUT, StoredFamily, encode};
use super::grouping_key::GroupingKey;
use super::spool::{Flushed, SetAside, Spool, SpoolError, Turn, Waiting};
use super::target::PushTarget;

/// The pause after the first failed try. It doubles with each, up to [`LAST_PAUSE`], and each is cut by up to a half at
/// random, so that jobs that failed together do not come back together.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(2);

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
    /// group tells of something later already; without them it goes by when the gateway got what it holds.
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

    /// Pushes, and tries again until `until`, or until `give_up` resolves, as long as that may help: on connection errors,
    /// time-outs, 5xx and 429. What is not delivered then is spooled, unless the gateway refused the metrics themselves.
    pub async fn deliver(&mut self, push: &Push, until: Instant, give_up: impl Future<Output = ()>) -> Outcome {
        let reason = match self.post(&push.key, &push.text, until, give_up).await {
            Ok(()) => return Outcome::Delivered,
            Err(error) => error,
        };
        let Some(spool) = self.spool.clone().filter(|_| !reason.refuses_content()) else {
            return Outcome::Lost(Lost { reason, spool: None });
        };
        let (gateway, push) = (self.target.url().to_string(), push.clone());
        match blocking(move || spool.store(&gateway, &push)).await {
            Ok(_) => Outcome::Spooled(reason),
            Err(error) => Outcome::Lost(Lost { reason, spool: Some(error) }),
        }
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
        self.post(&push.key, &push.text, until, give_up).await
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
        let Some((turn, waiting, set_aside)) = blocking(move || waiting(&spool, now)).await? else {
            return Ok(Flushed { busy: true, ..Flushed::default() });
        };
        let mut flushed = Flushed { set_aside, ..Flushed::default() };
        let gateway = self.target.url().to_string();
        let (ours, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|w| w.entry.gateway == gateway);
        flushed.left = others.len();
        for other in others {
            *flushed.elsewhere.entry(other.entry.gateway).or_default() += 1;
        }
        if ours.is_empty() {
            return Ok(flushed);
        }
        let mut held = match self.listing(until()).await {
            Ok(listing) => Held::new(listing, (self.clock)()),
            Err(error) => {
                flushed.left += ours.len();
                flushed.error = Some(error);
                return Ok(flushed);
            }
        };
        let mut ours = ours.into_iter();
        while let Some(mut entry) = ours.next() {
            held.keep_newer(&mut entry);
            if entry.text.families().is_empty() {
                turn.remove(&entry.path)?;
                flushed.superseded += 1;
                continue;
            }
            match self.post(&entry.key, &entry.text.to_string(), until(), std::future::pending()).await {
                Ok(()) => {
                    turn.remove(&entry.path)?;
                    held.took(&entry);
                    flushed.delivered += 1;
                }
                Err(error) if error.refuses_content() => {
                    flushed.set_aside.push(turn.set_aside(&entry.path, error.to_string()));
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

    async fn post(
        &mut self,
        key: &GroupingKey,
        text: &str,
        until: Instant,
        give_up: impl Future<Output = ()>,
    ) -> Result<(), PushError> {
        let client = self.client()?;
        let attempt = async |timeout| client.post(key, text.to_owned(), timeout).await;
        patiently(&mut self.chance, until, give_up, attempt).await
    }

    async fn listing(&mut self, until: Instant) -> Result<Listing, PushError> {
        let client = self.client()?;
        patiently(&mut self.chance, until, std::future::pending(), async |timeout| client.listing(timeout).await).await
    }

    fn client(&mut self) -> Result<PushClient, PushError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = PushClient::new(self.target.clone())?;
        Ok(self.client.insert(client).clone())
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.reason, f)
    }
}

/// Tries until it succeeds, until trying again cannot help, or until there is no time for another pause, or one is given
/// up.
async fn patiently<T>(
    chance: &mut StdRng,
    until: Instant,
    give_up: impl Future<Output = ()>,
    mut attempt: impl AsyncFnMut(Duration) -> Result<T, PushError>,
) -> Result<T, PushError> {
    let mut give_up = std::pin::pin!(give_up);
    let mut pause = FIRST_PAUSE;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(PushError::OutOfTime);
        }
        let error = match attempt(left.min(REQUEST_TIMEOUT)).await {
            Ok(done) => return Ok(done),
            Err(error) if error.is_transient() => error,
            Err(error) => return Err(error),
        };
        let mut wait = pause.mul_f64(chance.random_range(0.5..=1.0));
        if let PushError::Unavailable { retry_after: Some(asked), .. } = &error {
            wait = wait.max(*asked);
        }
        if until.saturating_duration_since(Instant::now()) <= wait {
            return Err(error);
        }
        tokio::select! {
            biased;
            () = &mut give_up => return Err(error),
            () = tokio::time::sleep(wait) => {}
        }
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

type Found = (Turn, Vec<Waiting>, Vec<SetAside>);

fn waiting(spool: &Spool, now: SystemTime) -> Result<Option<Found>, SpoolError> {
    let Some(turn) = spool.turn()? else { return Ok(None) };
    let (waiting, set_aside) = turn.waiting(now)?;
    Ok(Some((turn, waiting, set_aside)))
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
    groups: Vec<Group>,
    /// What the gateway's clock is ahead of ours, in seconds.
    ahead: f64,
}

impl Held {
    fn new(listing: Listing, now: SystemTime) -> Self {
        let ahead = listing.date.map_or(0.0, |date| seconds(date) - seconds(now));
        Self { groups: listing.groups, ahead: if ahead.abs() < CLOCKS_EQUAL { 0.0 } else { ahead } }
    }

    /// Leaves of an entry the families that are newer than what its group holds.
    fn keep_newer(&self, waiting: &mut Waiting) {
        let Some(group) = self.groups.iter().find(|group| waiting.key.is(&group.labels)) else { return };
        let entry = &waiting.entry;
        let moments = entry.moments.iter().filter_map(|name| group.families.get(name)?.value);
        let latest = moments.fold(f64::NEG_INFINITY, f64::max);
        waiting.text.retain(|family| {
            let Some(stored) = group.families.get(family.name()) else { return true };
            if entry.moments.iter().any(|name| name == family.name()) {
                // Moments only grow, whichever run they come from.
                let [sample] = family.samples() else { return false };
                return stored.value.is_none_or(|value| sample.value > value);
            }
            // All of it is news if the group knows of nothing later; else only what was not pushed since.
            let tells_last = latest.is_finite() && entry.moment >= latest;
            tells_last || seconds(stored.pushed) - self.ahead < entry.moment
        });
    }

    /// Notes what a delivered entry left in its group, as if it had come at its moment.
    fn took(&mut self, waiting: &Waiting) {
        let at = self.groups.iter().position(|group| waiting.key.is(&group.labels));
        let at = at.unwrap_or_else(|| {
            let mut labels: BTreeMap<_, _> =
                waiting.key.labels().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            labels.insert("job".to_owned(), waiting.key.job().to_owned());
            self.groups.push(Group { labels, families: BTreeMap::new() });
            self.groups.len() - 1
        });
        let pushed = UNIX_EPOCH + Duration::from_secs_f64((waiting.entry.moment + self.ahead).max(0.0));
        for family in waiting.text.families() {
            let value = match family.samples() {
                [sample] => Some(sample.value),
                _ => None,
            };
            self.groups[at].families.insert(family.name().to_owned(), StoredFamily { pushed, value });
        }
    }
}

fn seconds(moment: SystemTime) -> f64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "job_start_timestamp_seconds";
    const SUCCESS: &str = "job_success_timestamp_seconds";

    fn at(second: u32) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second.into())
    }

    /// What the gateway holds of the job `j`: families with the second in which they were pushed, and their value.
    fn held(families: &[(&str, u32, f64)]) -> Held {
        let families = families.iter().map(|(name, pushed, value)| {
            ((*name).to_owned(), StoredFamily { pushed: at(*pushed), value: Some(*value) })
        });
        let labels = BTreeMap::from([("job".to_owned(), "j".to_owned())]);
        let group = Group { labels, families: families.collect() };
        Held { groups: vec![group], ahead: 0.0 }
    }

    /// A push of the job `j` that tells of a second, through a spool, as it would be found there.
    fn waiting(second: u32, text: &str) -> Waiting {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::open(folder.path()).unwrap();
        let key = GroupingKey::new("j").unwrap();
        let moments = vec![START.to_owned(), SUCCESS.to_owned()];
        let push = Push { key, text: text.to_owned(), moment: at(second), moments };
        spool.store("http://gateway/", &push).unwrap();
        let (mut waiting, _) = spool.turn().unwrap().unwrap().waiting(at(0)).unwrap();
        waiting.pop().unwrap()
    }

    /// The names of the families that are still news.
    fn news(held: &Held, mut waiting: Waiting) -> Vec<String> {
        held.keep_newer(&mut waiting);
        waiting.text.families().iter().map(|family| family.name().to_owned()).collect()
    }

    const RUN: &str = "code 0\njob_start_timestamp_seconds 10\njob_success_timestamp_seconds 12\nrows 5\n";

    #[test]
    fn all_is_news_to_a_group_that_is_not_there_or_tells_of_earlier_runs() {
        let all = ["code", START, SUCCESS, "rows"];

        assert_eq!(news(&Held { groups: Vec::new(), ahead: 0.0 }, waiting(12, RUN)), all);
        let earlier = held(&[("code", 4, 1.0), (START, 4, 3.0), (SUCCESS, 4, 4.0), ("rows", 4, 1.0)]);
        assert_eq!(news(&earlier, waiting(12, RUN)), all);
    }

    #[test]
    fn an_earlier_run_that_was_delivered_late_does_not_hide_a_later_one() {
        // Pushed in second 99 by the gateway's clock, but of a run that began in second 3.
        let late = held(&[("code", 99, 1.0), (START, 99, 3.0), (SUCCESS, 99, 4.0), ("rows", 99, 1.0)]);

        assert_eq!(news(&late, waiting(12, RUN)), ["code", START, SUCCESS, "rows"]);
    }

    #[test]
    fn a_later_run_that_failed_keeps_its_values_and_gets_the_earlier_success() {
        let later = held(&[("code", 20, 3.0), (START, 20, 18.0)]);

        assert_eq!(news(&later, waiting(12, RUN)), [SUCCESS, "rows"]);
    }

    #[test]
    fn a_later_runs_families_are_kept_and_those_it_did_not_push_are_updated() {
        let later = held(&[("code", 20, 0.0), (START, 20, 18.0), (SUCCESS, 20, 20.0), ("rows", 5, 1.0)]);

        assert_eq!(news(&later, waiting(12, RUN)), ["rows"], "rows is of a run before");
    }

    #[test]
    fn the_start_of_a_run_is_no_news_after_its_end() {
        let ended = held(&[("running", 12, 0.0), (START, 12, 10.0), (SUCCESS, 12, 12.0)]);

        let start = waiting(10, "running 1\njob_start_timestamp_seconds 10\n");

        assert_eq!(news(&ended, start), [""; 0]);
    }

    #[test]
    fn what_a_run_says_of_itself_is_news_after_its_outcome() {
        let outcome = held(&[("code", 12, 0.0), (START, 12, 10.0), (SUCCESS, 12, 12.0), ("rows", 5, 1.0)]);

        assert_eq!(news(&outcome, waiting(12, "rows 5\n")), ["rows"]);
    }

    #[test]
    fn without_moments_it_goes_by_when_the_gateway_got_what_it_holds() {
        let text = "rows 5\nother 1\n";

        assert_eq!(news(&held(&[("rows", 11, 1.0), ("other", 13, 1.0)]), waiting(12, text)), ["rows"]);
        let ahead = Held { ahead: 60.0, ..held(&[("rows", 71, 1.0), ("other", 73, 1.0)]) };
        assert_eq!(news(&ahead, waiting(12, text)), ["rows"], "by a clock that is a minute ahead");
    }

    #[test]
    fn what_was_delivered_counts_from_its_moment() {
        let mut held = Held { groups: Vec::new(), ahead: 0.0 };

        held.took(&waiting(12, RUN));

        assert_eq!(news(&held, waiting(12, RUN)), ["code", "rows"], "the same run once more does no harm");
        assert_eq!(news(&held, waiting(11, "code 1\njob_start_timestamp_seconds 9\n")), [""; 0]);
        assert_eq!(news(&held, waiting(15, "code 1\njob_start_timestamp_seconds 13\n")), ["code", START]);
    }

    #[test]
    fn clocks_that_differ_by_less_than_a_date_can_tell_are_equal() {
        let ahead =
            |seconds: u32| Held::new(Listing { date: Some(at(100 + seconds)), groups: Vec::new() }, at(100)).ahead;

        assert!(ahead(1).abs() < f64::EPSILON);
        assert!((ahead(60) - 60.0).abs() < f64::EPSILON);
    }

    /// Tries with a fixed outcome until there is no more time, and gives the moments of the tries in seconds.
    async fn tries(until: u64, outcome: impl Fn() -> PushError) -> Vec<f64> {
        let began = Instant::now();
        let mut tries = Vec::new();
        let until = began + Duration::from_secs(until);
        let _ = patiently(&mut StdRng::seed_from_u64(1), until, std::future::pending(), async |_| -> Result<(), _> {
            tries.push(began.elapsed().as_secs_f64());
            Err(outcome())
        })
        .await;
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
    async fn giving_up_ends_the_pauses_but_not_a_try() {
        let until = Instant::now() + Duration::from_secs(10);
        let mut tries = 0;

        let given_up =
            patiently(&mut StdRng::seed_from_u64(1), until, std::future::ready(()), async |_| -> Result<(), _> {
                tries += 1;
                Err(unavailable(None))
            })
            .await;

        assert_eq!(tries, 1);
        assert!(matches!(given_up, Err(PushError::Unavailable { .. })));
    }
}
