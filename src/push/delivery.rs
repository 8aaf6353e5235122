//! Pushes that must not get lost: kept on disk while they are tried, and delivered later without undoing anything newer.

use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use futures_util::future::Shared;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::client::{PushClient, PushError, REQUEST_TIMEOUT};
use super::news::{Held, Order, Told};
use super::patience::Patience;
use super::payload::{Push, seconds};
use super::spool::{Kept, Spool, SpoolError};
use super::target::PushTarget;

/// What a try may still take once it is given up.
const GIVE_UP_GRACE: Duration = Duration::from_secs(1);

/// Delivers pushes to one gateway.
///
/// ```
/// use std::time::{Duration, SystemTime};
///
/// use api_monitoring::push::{Courier, GroupingKey, MetricsText, Outcome, Push, Spool};
/// use tokio::time::Instant;
///
/// # tokio::runtime::Runtime::new()?.block_on(async {
/// # let folder = tempfile::tempdir()?;
/// # let folder = folder.path();
/// let spool = Spool::open(folder)?; // such as /var/spool/push
/// let mut courier = Courier::new("http://127.0.0.1:1".parse()?, Some(spool), SystemTime::now, 1);
/// let families = MetricsText::parse(b"report_rows 1200\n");
/// let push = Push::new(GroupingKey::new("nightly_report")?, families, SystemTime::now(), &[])?;
///
/// let push = courier.accept(push).await; // on disk from here on
/// let until = Instant::now() + Duration::from_millis(50);
/// let outcome = courier.deliver(push, until, std::future::pending()).await;
///
/// assert!(matches!(outcome, Outcome::Spooled(_)), "nothing listens there");
/// let flushed = courier.flush(|| Instant::now() + Duration::from_millis(50)).await?;
/// assert_eq!(flushed.stopped.map(|stopped| stopped.left), Some(1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Courier {
    target: PushTarget,
    /// Built when it is first needed: authorities take a while to read.
    client: Option<PushClient>,
    pub(super) spool: Option<Spool>,
    pub(super) clock: fn() -> SystemTime,
    pub(super) chance: StdRng,
    pub(super) told: Told,
    /// How many pushes it was given.
    pushes: u32,
}

/// Pushes what need not be delivered, to the gateway of a [`Courier`].
#[derive(Debug)]
pub struct Announcer {
    client: Result<PushClient, PushError>,
    chance: StdRng,
}

/// What became of a push.
#[derive(Debug)]
pub enum Outcome {
    /// A gateway accepted it: every family in one push, at the first try; at a later one, every family that was still news.
    /// Of those left out then, the gateway holds a value that is newer, or this very one.
    Delivered,
    /// It waits on disk, all of it.
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

/// A push on its way to a gateway: on disk, where there is a spool, from before its first try until it is settled. When
/// its process ends before that, what is on disk is anybody's to deliver.
#[derive(Debug)]
pub struct Consignment {
    push: Push,
    order: Order,
    kept: Option<Result<Kept, SpoolError>>,
}

impl Consignment {
    /// Whether it is on disk.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        matches!(self.kept, Some(Ok(_)))
    }
}

impl Courier {
    /// Delivers to this gateway, and keeps in the spool, if there is one, what the gateway does not take in time.
    ///
    /// `seed` makes the pauses between tries; `clock` tells the time of day.
    #[must_use]
    pub fn new(target: PushTarget, spool: Option<Spool>, clock: fn() -> SystemTime, seed: u64) -> Self {
        let chance = StdRng::seed_from_u64(seed);
        Self { target, client: None, spool, clock, chance, told: Told::default(), pushes: 0 }
    }

    /// Takes a push, and keeps it on disk, where there is a spool. Of pushes that tell of one moment, a later one counts as
    /// newer.
    ///
    /// A spool that cannot keep it does not end the delivery; it is told when the push gets lost.
    pub async fn accept(&mut self, push: Push) -> Consignment {
        let order = Order { moment: seconds(push.moment()), sequence: self.pushes };
        self.pushes = self.pushes.saturating_add(1);
        let kept = match self.spool.clone() {
            None => None,
            Some(spool) => {
                let (gateway, push) = (self.gateway(), push.clone());
                Some(blocking(move || spool.store(&gateway, &push, order)).await)
            }
        };
        Consignment { push, order, kept }
    }

    /// Pushes, and tries again until `until` as long as that may help: on connection errors, time-outs, 5xx and 429. Once
    /// `give_up` has resolved, a try is cut after a second and no other follows.
    ///
    /// A push that is tried again goes out as far as it is still news, as one from the spool does. Dropping the future
    /// leaves in the spool what is there.
    pub async fn deliver(
        &mut self,
        consignment: Consignment,
        until: Instant,
        give_up: impl Future<Output = ()>,
    ) -> Outcome {
        let Consignment { push, order, kept } = consignment;
        let patience = Patience { until, give_up: give_up.shared(), grace: GIVE_UP_GRACE };
        let outcome = match self.first(&push, &patience).await {
            Err(reason) if reason.is_transient() => self.again(&push, order, reason, &patience).await,
            outcome => outcome,
        };
        if outcome.is_ok() {
            self.told.note(&push, order);
        }
        self.settle(push, kept, outcome).await
    }

    async fn first<F: Future<Output = ()>>(
        &mut self,
        push: &Push,
        patience: &Patience<Shared<F>>,
    ) -> Result<(), PushError> {
        let client = self.client()?;
        patience.once(client.post(push.key(), push.families().to_body())).await
    }

    /// Tries again, until that cannot help any more.
    async fn again<F: Future<Output = ()>>(
        &mut self,
        push: &Push,
        order: Order,
        failed: PushError,
        patience: &Patience<Shared<F>>,
    ) -> Result<(), PushError> {
        let (client, clock, told) = (self.client()?, self.clock, &self.told);
        let question = push.question();
        let attempt = async || {
            let news = match client.listing(&question).await {
                Ok(listing) => {
                    let held = Held::of(listing, clock());
                    push.clone()
                        .news(|family| !told.is_newer(push.key(), family.name(), order) && held.is_news(push, family))
                }
                // The gateway is away still.
                Err(error) if error.is_transient() => return Err(error),
                // It does not tell what it holds; the push is only seconds old.
                Err(_) => Some(push.clone()),
            };
            match news {
                Some(news) => client.post(push.key(), news.families().to_body()).await,
                None => Ok(()),
            }
        };
        patience.again(&mut self.chance, Some(failed), PushError::is_transient, attempt).await
    }

    /// Removes from disk what needs no delivery any more, and leaves there what does.
    async fn settle(
        &self,
        push: Push,
        kept: Option<Result<Kept, SpoolError>>,
        outcome: Result<(), PushError>,
    ) -> Outcome {
        let (kept, spool_error) = match kept {
            Some(Ok(kept)) => (self.spool.clone().map(|spool| (spool, kept)), None),
            Some(Err(error)) => (None, Some(error)),
            None => (None, None),
        };
        match (outcome, kept) {
            (Err(reason), None) => {
                let spool = spool_error.filter(|_| !reason.refuses_content());
                Outcome::Lost(Lost { reason, spool })
            }
            (Err(reason), Some((spool, kept))) if !reason.refuses_content() => {
                let gateway = self.gateway();
                blocking(move || spool.leave(&kept, &gateway, &push)).await;
                Outcome::Spooled(reason)
            }
            (outcome, kept) => {
                if let Some((spool, kept)) = kept {
                    // Where that fails it is delivered once more, as no news.
                    let _ = blocking(move || spool.forget(&kept)).await;
                }
                match outcome {
                    Ok(()) => Outcome::Delivered,
                    Err(reason) => Outcome::Lost(Lost { reason, spool: None }),
                }
            }
        }
    }

    /// Who pushes, beside this, what a later push will say again.
    pub fn announcer(&mut self) -> Announcer {
        Announcer { client: self.client(), chance: StdRng::seed_from_u64(self.chance.random()) }
    }

    /// The gateway's URL, by which its entries are told from others'.
    pub(super) fn gateway(&self) -> String {
        self.target.url().to_string()
    }

    pub(super) fn client(&mut self) -> Result<PushClient, PushError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let client = PushClient::new(self.target.clone())?;
        Ok(self.client.insert(client).clone())
    }
}

impl Announcer {
    /// Pushes what a later push will say again, and so need not be spooled: tries until `until`, or until `give_up`
    /// resolves. A try that is under way then is still waited for, so that it cannot arrive after that later push.
    ///
    /// # Errors
    ///
    /// Why the last try failed.
    pub async fn announce(
        mut self,
        push: &Push,
        until: Instant,
        give_up: impl Future<Output = ()>,
    ) -> Result<(), PushError> {
        let client = self.client?;
        let patience = Patience { until, give_up: give_up.shared(), grace: REQUEST_TIMEOUT };
        let attempt = || client.post(push.key(), push.families().to_body());
        patience.again(&mut self.chance, None, PushError::is_transient, attempt).await
    }
}

/// Works with files off the runtime's threads. Once begun it ends, also when nobody waits for it any more.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime ends and drops this future with it.
            Err(_) => std::future::pending().await,
        },
    }
}
