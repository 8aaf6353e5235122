//! What is pushed about a run, and what is said on stderr when it cannot be.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use prometheus::{Registry, TextEncoder};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::causes;
use crate::config::{FlushConfig, ReportConfig};
use crate::metrics::{BATCH_MOMENTS, BatchEnd, BatchRun};
use crate::push::{Courier, Flushed, GroupingKey, Lost, MetricsText, Outcome, Push, PushError, Spool, SpoolError};
use crate::words::say;

/// Pause before it is asked again whether another process is still delivering.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// Pushes about one run of a job. Without a gateway it does nothing.
#[derive(Debug)]
pub struct Reporter {
    key: GroupingKey,
    expected_interval: Option<Duration>,
    start_push: bool,
    deadline: Duration,
    spool_folder: Option<PathBuf>,
    courier: Option<Courier>,
}

/// What a job says of itself beside how it went.
#[derive(Debug, Default)]
pub struct Told {
    /// Families.
    pub text: MetricsText,
    /// Whether something that was to be pushed cannot be.
    pub incomplete: bool,
    /// What there is to say about that.
    pub notes: Vec<String>,
}

impl Told {
    /// All that a registry holds.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded.
    pub fn of_registry(registry: &Registry) -> prometheus::Result<Self> {
        let text = TextEncoder::new().encode_to_string(&registry.gather())?;
        Ok(Self { text: MetricsText::parse(text.as_bytes()), ..Self::default() })
    }

    /// Nothing that can be pushed, and why.
    #[must_use]
    pub fn unusable(reason: String) -> Self {
        Self { incomplete: true, notes: vec![reason], ..Self::default() }
    }
}

impl Reporter {
    /// Reports by these settings. A spool that cannot be opened is said, and done without.
    #[must_use]
    pub fn new(config: ReportConfig, clock: fn() -> SystemTime) -> Self {
        let ReportConfig { key, delivery, expected_interval, start_push } = config;
        let deadline = delivery.deadline;
        let (courier, spool_folder) = match delivery.target {
            None => (None, None),
            Some(target) => {
                let spool = open_spool(delivery.spool_folder.as_deref());
                let spool_folder = delivery.spool_folder.filter(|_| spool.is_some());
                (Some(Courier::new(target, spool, clock, delivery.seed)), spool_folder)
            }
        };
        Self { key, expected_interval, start_push, deadline, spool_folder, courier }
    }

    /// The group that is pushed into.
    #[must_use]
    pub fn key(&self) -> &GroupingKey {
        &self.key
    }

    /// How often the job should succeed, where that is known.
    #[must_use]
    pub fn expected_interval(&self) -> Option<Duration> {
        self.expected_interval
    }

    /// Whether there is a gateway to push to.
    #[must_use]
    pub fn pushes(&self) -> bool {
        self.courier.is_some()
    }

    /// Pushes that the run has started, while it runs. The run is not held up, and a push that fails costs nothing: the one
    /// at the end says it all again.
    pub async fn while_running<T>(&mut self, run: &BatchRun, work: impl Future<Output = T>) -> T {
        let Some(courier) = self.courier.as_mut().filter(|_| self.start_push) else { return work.await };
        let until = Instant::now() + self.deadline;
        let (over, told) = oneshot::channel::<()>();
        let announce = async {
            let Ok(registry) = run.at_start() else { return };
            let push = Push::of_registry(self.key.clone(), &registry, run.started, &BATCH_MOMENTS).await;
            if let Ok(push) = push {
                let give_up = async { drop(told.await) };
                let _ = courier.announce(&push, until, give_up).await;
            }
        };
        let mut announce = std::pin::pin!(announce);
        let mut work = std::pin::pin!(work);
        let done = tokio::select! {
            biased;
            done = &mut work => done,
            () = &mut announce => return work.await,
        };
        drop(over);
        // What is on its way must not arrive after the push of the end, which needs time of its own, too.
        let _ = tokio::time::timeout(self.deadline / 2, announce).await;
        done
    }

    /// Pushes how the run went, then what it says of itself, then what waits in the spool; all within the deadline, which
    /// runs from the end of the work, and without another try once `give_up` has resolved. True when something got lost.
    ///
    /// What the run says of itself is asked for when its outcome is delivered, spooled or lost: whatever that takes, and
    /// whatever becomes of this process meanwhile, the outcome is told. Without a gateway it is not asked for.
    pub async fn end(
        &mut self,
        run: &BatchRun,
        end: &BatchEnd,
        ended_at: Instant,
        own: impl AsyncFnOnce(&GroupingKey) -> Told,
        give_up: impl Future<Output = ()>,
    ) -> bool {
        if !self.pushes() {
            return false;
        }
        let until = ended_at + self.deadline;
        let give_up = give_up.shared();
        let job = self.key.job().to_owned();
        let outcome = match outcome(&self.key, run, end).await {
            Ok(push) => push,
            Err(error) => {
                say(&format!("the outcome of {job} cannot be pushed: {}", causes::chain(&error)));
                return true;
            }
        };
        let mut fate = self.deliver(&outcome, &format!("the outcome of {job}"), until, give_up.clone()).await;

        let Told { text, incomplete, notes } = own(&self.key).await;
        for note in &notes {
            say(note);
        }
        fate.lost |= incomplete;
        if !text.families().is_empty() {
            let push = Push { text: text.to_string(), ..outcome };
            drop(text);
            fate.and(self.deliver(&push, &format!("what {job} says of itself"), until, give_up.clone()).await);
        }

        // A gateway that did not answer just now will not take what waits either.
        if let Some(courier) = self.courier.as_mut().filter(|_| fate.answers && self.spool_folder.is_some()) {
            tokio::select! {
                biased;
                flushed = courier.flush(|| until) => match flushed {
                    // What waits, if anything does, is in good hands.
                    Ok(Flushed { busy: true, .. }) => {}
                    flushed => { tell(self.spool_folder.as_deref(), flushed); }
                },
                () = give_up => {}
            }
        }
        fate.lost
    }

    /// Delivers a push, and says where it is, if it is not at the gateway.
    async fn deliver(&mut self, push: &Push, what: &str, until: Instant, give_up: impl Future<Output = ()>) -> Fate {
        let Some(courier) = &mut self.courier else { return Fate { lost: false, answers: false } };
        let (fate, where_it_is) = match courier.deliver(push, until, give_up).await {
            Outcome::Delivered => return Fate { lost: false, answers: true },
            Outcome::Spooled(reason) => {
                let folder = shown(self.spool_folder.as_deref());
                let waits = format!("waits in {folder} until the gateway takes it: {}", causes::chain(&reason));
                (Fate { lost: false, answers: false }, waits)
            }
            Outcome::Lost(because) => {
                let lost = format!("could not be pushed and is lost: {}", explain(&because));
                (Fate { lost: true, answers: because.reason.refuses_content() }, lost)
            }
        };
        say(&format!("{what} {where_it_is}"));
        fate
    }

    /// Delivers what waits in the spool, each push within the deadline. True when nothing is left there and nothing had
    /// to be set aside.
    pub(super) async fn flush_alone(config: FlushConfig, clock: fn() -> SystemTime) -> bool {
        let FlushConfig { target, spool_folder, deadline, seed } = config;
        let Some(spool) = open_spool(Some(&spool_folder)) else { return false };
        let mut courier = Courier::new(target, Some(spool), clock, seed);
        let patience = Instant::now() + deadline;
        loop {
            match courier.flush(|| Instant::now() + deadline).await {
                // The other one may give up half-way.
                Ok(Flushed { busy: true, .. }) if Instant::now() < patience => tokio::time::sleep(BUSY_PAUSE).await,
                flushed => return tell(Some(&spool_folder), flushed),
            }
        }
    }
}

/// What became of a run's pushes.
#[derive(Debug, Clone, Copy)]
struct Fate {
    /// Whether something got lost.
    lost: bool,
    /// Whether the gateway answers.
    answers: bool,
}

impl Fate {
    fn and(&mut self, other: Self) {
        self.lost |= other.lost;
        self.answers &= other.answers;
    }
}

async fn outcome(key: &GroupingKey, run: &BatchRun, end: &BatchEnd) -> Result<Push, PushError> {
    Push::of_registry(key.clone(), &run.at_end(end)?, end.ended, &BATCH_MOMENTS).await
}

fn open_spool(folder: Option<&Path>) -> Option<Spool> {
    let opened = Spool::open(folder?);
    opened.inspect_err(|error| say(&causes::chain(error))).ok()
}

fn shown(folder: Option<&Path>) -> impl std::fmt::Display {
    folder.unwrap_or(Path::new("")).display()
}

fn explain(lost: &Lost) -> String {
    let reason = causes::chain(&lost.reason);
    match &lost.spool {
        None => reason,
        Some(spool) => format!("{reason}; and {}", causes::chain(spool)),
    }
}

/// Says what became of the spool, if there is anything to say. True when nothing is left there and nothing had to be set
/// aside.
fn tell(folder: Option<&Path>, flushed: Result<Flushed, SpoolError>) -> bool {
    let folder = shown(folder);
    let flushed = match flushed {
        Ok(flushed) => flushed,
        Err(error) => {
            say(&causes::chain(&error));
            return false;
        }
    };
    if flushed.busy {
        say(&format!("another process delivers what waits in {folder}"));
        return false;
    }
    if flushed.delivered > 0 {
        say(&format!("delivered {} that waited in {folder}", pushes(flushed.delivered)));
    }
    if flushed.superseded > 0 {
        say(&format!("dropped {} in {folder}: the gateway has newer values", pushes(flushed.superseded)));
    }
    for entry in &flushed.set_aside {
        say(&format!("cannot deliver {}: {}", entry.path.display(), entry.reason));
    }
    for entry in &flushed.unreadable {
        say(&format!("left {}: {}", entry.path.display(), entry.reason));
    }
    for (gateway, count) in &flushed.elsewhere {
        say(&format!("left {} in {folder}, made for the gateway {gateway}", pushes(*count)));
    }
    if let Some(error) = &flushed.error {
        let here = flushed.left - flushed.elsewhere.values().sum::<usize>();
        say(&format!("left {} in {folder}: {}", pushes(here), causes::chain(error)));
    }
    flushed.left == 0 && flushed.set_aside.is_empty() && flushed.unreadable.is_empty()
}

fn pushes(count: usize) -> String {
    if count == 1 { "1 push".to_owned() } else { format!("{count} pushes") }
}
