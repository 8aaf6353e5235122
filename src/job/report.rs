//! What is pushed about a run, and what is said on stderr when it cannot be.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use prometheus::{Registry, TextEncoder};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::causes;
use crate::config::{FlushConfig, ReportConfig};
use crate::metrics::{BATCH_MOMENTS, BatchEnd, BatchRun};
use crate::push::{Courier, Flushed, GroupingKey, HeldUp, Lost, MetricsText, Outcome, Push, PushError, Spool, Stopped};
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
    start: Option<Start>,
}

/// The push of a run's start, on its way beside the run.
#[derive(Debug)]
struct Start {
    /// Gives it up when it is dropped.
    wanted: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

/// What a job says of itself beside how it went.
#[derive(Debug, Default)]
pub struct Told {
    /// Families, the faults of others taken out.
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
        Self { text: MetricsText::default(), incomplete: true, notes: vec![reason] }
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
        Self { key, expected_interval, start_push, deadline, spool_folder, courier, start: None }
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
        self.announce_start(run);
        let done = work.await;
        if let Some(Start { wanted, .. }) = &mut self.start {
            wanted.take();
        }
        done
    }

    fn announce_start(&mut self, run: &BatchRun) {
        let Some(courier) = self.courier.as_mut().filter(|_| self.start_push) else { return };
        let Ok(registry) = run.at_start() else { return };
        let (key, moment, until) = (self.key.clone(), run.started, Instant::now() + self.deadline);
        let announcer = courier.announcer();
        let (wanted, over) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            if let Ok(push) = Push::of_registry(key, &registry, moment, &BATCH_MOMENTS).await {
                let _ = announcer.announce(&push, until, async { drop(over.await) }).await;
            }
        });
        self.start = Some(Start { wanted: Some(wanted), task });
    }

    /// What is on its way must not arrive after the push of the end, which needs time of its own, too.
    async fn start_is_over(&mut self) {
        if let Some(Start { wanted, mut task }) = self.start.take() {
            drop(wanted);
            if tokio::time::timeout(self.deadline / 2, &mut task).await.is_err() {
                task.abort();
            }
        }
    }

    /// Pushes how the run went and what it says of itself, then what waits in the spool; all within the deadline, which
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
        let Some(mut courier) = self.courier.take() else { return false };
        let until = ended_at + self.deadline;
        let give_up = give_up.shared();
        let mut fate = Fate { lost: false, waits: false, answers: true };
        let what = format!("the outcome of {}", self.key.job());
        let outcome = match outcome(&self.key, run, end).await {
            Ok(outcome) => Some(courier.accept(outcome).await),
            Err(error) => {
                say(&format!("{what} cannot be pushed: {}", causes::chain(&error)));
                fate.lost = true;
                None
            }
        };
        self.start_is_over().await;
        if let Some(outcome) = outcome {
            let outcome = courier.deliver(outcome, until, give_up.clone()).await;
            fate.tell(&what, outcome, self.spool_folder.as_deref());
        }
        let told = own(&self.key).await;
        for note in &told.notes {
            say(note);
        }
        fate.lost |= told.incomplete;
        if !told.text.families().is_empty() {
            let what = format!("what {} says of itself", self.key.job());
            match Push::new(self.key.clone(), told.text, end.ended, &BATCH_MOMENTS) {
                Err(error) => {
                    say(&format!("{what} cannot be pushed: {error}"));
                    fate.lost = true;
                }
                Ok(own) => {
                    let own = courier.accept(own).await;
                    let outcome = courier.deliver(own, until, give_up.clone()).await;
                    fate.tell(&what, outcome, self.spool_folder.as_deref());
                }
            }
        }
        // A gateway that did not answer just now will not take what waits either.
        if fate.answers && self.spool_folder.is_some() {
            // What it did not take just now it need not be asked to take again.
            let wanted = |key: &GroupingKey| !(fate.waits && *key == self.key);
            tokio::select! {
                biased;
                flushed = courier.flush_groups(|| until, wanted) => match flushed {
                    // Another process is delivering it.
                    Ok(Flushed { busy: true, .. }) => {}
                    Ok(flushed) => tell(self.spool_folder.as_deref(), &flushed),
                    Err(error) => say(&causes::chain(&error)),
                },
                () = give_up => {}
            }
        }
        self.courier = Some(courier);
        fate.lost
    }

    /// Delivers what waits in the spool, each push within the deadline. True when nothing is left there and nothing had
    /// to be set aside.
    pub(super) async fn flush_alone(config: FlushConfig, clock: fn() -> SystemTime) -> bool {
        let FlushConfig { target, spool_folder, deadline, seed } = config;
        let Some(spool) = open_spool(Some(&spool_folder)) else { return false };
        let mut courier = Courier::new(target, Some(spool), clock, seed);
        let patience = Instant::now() + deadline;
        let mut flushed = Flushed::default();
        loop {
            let is_new = |key: &GroupingKey| !flushed.held_up.iter().any(|held_up| held_up.key == *key);
            let more = match courier.flush_groups(|| Instant::now() + deadline, is_new).await {
                Ok(more) => more,
                Err(error) => {
                    tell(Some(&spool_folder), &flushed);
                    say(&causes::chain(&error));
                    return false;
                }
            };
            flushed = flushed.and(more);
            // Another process may give up half-way.
            let others = flushed.busy || flushed.in_progress > 0;
            if !others || flushed.stopped.is_some() || Instant::now() >= patience {
                break;
            }
            tokio::time::sleep(BUSY_PAUSE).await;
        }
        tell(Some(&spool_folder), &flushed);
        if flushed.busy || flushed.in_progress > 0 {
            say(&format!("another process delivers what else waits in {}", spool_folder.display()));
        }
        flushed.is_all()
    }
}

/// What became of a run's pushes.
struct Fate {
    lost: bool,
    /// Whether one waits in the spool.
    waits: bool,
    /// Whether the gateway answers, whatever it answers.
    answers: bool,
}

impl Fate {
    /// Notes what became of one of them, and says it where it was not delivered.
    fn tell(&mut self, what: &str, outcome: Outcome, folder: Option<&Path>) {
        let (reason, fate) = match outcome {
            Outcome::Delivered => return,
            Outcome::Spooled(reason) => {
                self.waits = true;
                let fate = format!("waits in {} until the gateway takes it: {}", shown(folder), causes::chain(&reason));
                (reason, fate)
            }
            Outcome::Lost(because) => {
                self.lost = true;
                let fate = format!("could not be pushed and is lost: {}", explain(&because));
                (because.reason, fate)
            }
        };
        self.answers &= matches!(reason, PushError::Refused { .. });
        say(&format!("{what} {fate}"));
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

/// Says what became of the spool, if there is anything to say.
fn tell(folder: Option<&Path>, flushed: &Flushed) {
    let folder = shown(folder);
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
    // One and the same reason, a login that is wrong, say, is said once.
    let mut held_up: BTreeMap<String, Vec<&HeldUp>> = BTreeMap::new();
    for group in &flushed.held_up {
        held_up.entry(causes::chain(&group.reason)).or_default().push(group);
    }
    for (reason, groups) in held_up {
        let left = pushes(groups.iter().map(|group| group.left).sum());
        let whose = if let [group] = groups[..] { group.key.to_string() } else { format!("{} groups", groups.len()) };
        say(&format!("left {left} of {whose} in {folder}: {reason}"));
    }
    if let Some(Stopped { left, reason }) = &flushed.stopped {
        say(&format!("left {} in {folder}: {}", pushes(*left), causes::chain(reason)));
    }
}

fn pushes(count: usize) -> String {
    if count == 1 { "1 push".to_owned() } else { format!("{count} pushes") }
}
