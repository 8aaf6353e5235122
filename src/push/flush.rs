//! Delivering what waits in the spool: the newest value of every family wins, and no group holds up another.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::SystemTime;

use tokio::time::Instant;

use super::client::{PushError, REQUEST_TIMEOUT};
use super::delivery::{Courier, blocking};
use super::grouping_key::GroupingKey;
use super::news::{Held, Order, Told};
use super::patience::Patience;
use super::payload::Push;
use super::spool::{Content, Found, Spool, SpoolError, Turn, Undeliverable, Waiting, content};
use super::text::Family;

/// What a delivery of the spool's entries came to.
#[derive(Debug, Default)]
pub struct Flushed {
    /// Entries of which the gateway took what was still news.
    pub delivered: usize,
    /// Entries of which the gateway holds something newer already.
    pub superseded: usize,
    /// Entries that cannot be delivered, now or later, and were moved out of the way.
    pub set_aside: Vec<Undeliverable>,
    /// Entries that this process or this version cannot read or remove, and what is not a plain file; they are left.
    pub unreadable: Vec<Undeliverable>,
    /// How many entries wait for which other gateway.
    pub elsewhere: BTreeMap<String, usize>,
    /// Groups of which the gateway did not take an entry, so that it and the older ones are left.
    pub held_up: Vec<HeldUp>,
    /// Entries that are left to another process, which is trying to deliver them or a newer one of their group.
    pub in_progress: usize,
    /// Why the delivery ended before it had come to every group.
    pub stopped: Option<Stopped>,
    /// Whether another process is delivering; nothing was done then.
    pub busy: bool,
}

/// A group whose entries wait because the gateway did not take one of them.
#[derive(Debug)]
pub struct HeldUp {
    /// The group.
    pub key: GroupingKey,
    /// How many wait.
    pub left: usize,
    /// Why.
    pub reason: PushError,
}

/// The end of a delivery at a gateway that cannot be asked what it holds.
#[derive(Debug)]
pub struct Stopped {
    /// How many entries are left for that.
    pub left: usize,
    /// Why.
    pub reason: PushError,
}

impl Flushed {
    /// Whether nothing is left in the spool, and nothing had to be set aside.
    #[must_use]
    pub fn is_all(&self) -> bool {
        let Self { set_aside, unreadable, elsewhere, held_up, in_progress, stopped, busy, .. } = self;
        let nothing_left = held_up.is_empty() && elsewhere.is_empty() && *in_progress == 0 && stopped.is_none();
        nothing_left && set_aside.is_empty() && unreadable.is_empty() && !busy
    }

    /// What this delivery and a later one came to together.
    #[must_use]
    pub fn and(mut self, later: Self) -> Self {
        if later.busy {
            return Self { busy: true, ..self };
        }
        self.set_aside.extend(later.set_aside);
        self.held_up.extend(later.held_up);
        Self {
            delivered: self.delivered + later.delivered,
            superseded: self.superseded + later.superseded,
            set_aside: self.set_aside,
            held_up: self.held_up,
            ..later
        }
    }
}

/// The entries of one group, the newest last.
#[derive(Debug)]
struct Group {
    key: GroupingKey,
    entries: Vec<Waiting>,
    /// Why the gateway did not take the newest, where it was tried.
    failed: Option<PushError>,
    /// What the group was told by this delivery.
    told: Told,
}

/// Why a group's entries are left.
#[derive(Debug)]
enum Obstacle {
    /// Nobody's could be delivered.
    Gateway(PushError),
    /// The gateway does not take an entry of this group.
    Group(PushError),
    /// Another process tries to deliver one.
    InProgress,
}

impl Courier {
    /// Delivers what waits in the spool; `until` gives each push its time.
    ///
    /// Of each group, the newest entry comes first, and of older ones what none of the newer has told. What the group tells
    /// of something later is left out, family by family. An entry that the gateway does not take stays, with the older ones
    /// of its group, and other groups go on; when all had their turn, it is tried again if that may help. An entry that the
    /// gateway refuses for what it tells is set aside. A gateway that does not even tell what it holds ends the delivery.
    ///
    /// Dropping the future leaves in the spool what was not delivered.
    ///
    /// # Errors
    ///
    /// When the spool cannot be read.
    pub async fn flush(&mut self, until: impl Fn() -> Instant) -> Result<Flushed, SpoolError> {
        self.flush_groups(until, |_| true).await
    }

    /// The same for some groups; entries of others at this gateway are left and not counted.
    ///
    /// # Errors
    ///
    /// When the spool cannot be read.
    pub async fn flush_groups(
        &mut self,
        until: impl Fn() -> Instant,
        wanted: impl Fn(&GroupingKey) -> bool,
    ) -> Result<Flushed, SpoolError> {
        let Some(spool) = self.spool.clone() else { return Ok(Flushed::default()) };
        let now = (self.clock)();
        let looked = spool.clone();
        let Some((turn, found)) = blocking(move || look(&looked, now)).await? else {
            return Ok(Flushed { busy: true, ..Flushed::default() });
        };
        let Found { waiting, set_aside, unreadable } = found;
        let flushed = Flushed { set_aside, unreadable, ..Flushed::default() };
        let mut round = Round { spool, flushed, _turn: turn };
        let gateway = self.gateway();
        let (mut ours, others): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|waiting| waiting.gateway == gateway);
        ours.retain(|waiting| wanted(&waiting.key));
        for other in others {
            *round.flushed.elsewhere.entry(other.gateway).or_default() += 1;
        }
        let once_more = self.deliver_groups(groups(ours), &until, &mut round).await;
        let last = until();
        self.deliver_groups(once_more, &|| last, &mut round).await;
        Ok(round.flushed)
    }

    /// Delivers group by group, and gives those that failed for the first time and are worth more tries.
    async fn deliver_groups(
        &mut self,
        groups: Vec<Group>,
        until: &impl Fn() -> Instant,
        round: &mut Round,
    ) -> Vec<Group> {
        let mut once_more = Vec::new();
        let mut groups = groups.into_iter();
        while let Some(mut group) = groups.next() {
            let failed = group.failed.is_some();
            let Err(obstacle) = self.deliver_group(&mut group, until, round).await else { continue };
            let left = group.entries.len();
            match obstacle {
                Obstacle::InProgress => round.flushed.in_progress += left,
                // One that took its time already would take it once more.
                Obstacle::Group(reason)
                    if !failed && reason.is_transient() && !matches!(reason, PushError::TimedOut(_)) =>
                {
                    once_more.push(Group { failed: Some(reason), ..group });
                }
                Obstacle::Group(reason) => round.hold_up(group, reason, (self.clock)()).await,
                Obstacle::Gateway(reason) => {
                    let others = groups.by_ref().chain(once_more.drain(..)).map(|group| group.entries.len());
                    round.flushed.stopped = Some(Stopped { left: left + others.sum::<usize>(), reason });
                }
            }
        }
        once_more
    }

    /// Delivers a group's entries, the newest first, so that no newer value is ever there to be overwritten, also when this
    /// ends half-way. What is left of them stays in the group.
    async fn deliver_group(
        &mut self,
        group: &mut Group,
        until: &impl Fn() -> Instant,
        round: &mut Round,
    ) -> Result<(), Obstacle> {
        while let Some(Waiting { path, order, .. }) = group.entries.last() {
            let (path, order) = (path.clone(), *order);
            let at = path.clone();
            match blocking(move || content(&at)).await {
                Ok(Content::InProgress) => return Err(Obstacle::InProgress),
                Ok(Content::Push(push, faults)) => {
                    match self.deliver_late(&push, order, &group.told, group.failed.take(), until()).await {
                        Ok(news) => {
                            group.told.note(&push, order);
                            *(if news { &mut round.flushed.delivered } else { &mut round.flushed.superseded }) += 1;
                            round.clear(path, faults.map(|faults| faults.to_string())).await;
                        }
                        Err(Obstacle::Group(error)) if error.refuses_content() => {
                            round.set_aside(path, error.to_string()).await;
                        }
                        Err(obstacle) => return Err(obstacle),
                    }
                }
                Err(gone) if gone.is_gone() => {}
                Err(unreadable) if unreadable.stays() => {
                    round.flushed.unreadable.push(Undeliverable { path, reason: unreadable.to_string() });
                }
                Err(damaged) => round.set_aside(path, damaged.to_string()).await,
            }
            group.entries.pop();
        }
        Ok(())
    }

    /// Pushes what of an old push is still news; false when none of it is. The gateway is asked right before: what comes
    /// to it between its answer and the push is the one thing that can be overwritten.
    ///
    /// A push that has `failed` before is tried until there is no time left; another one once.
    async fn deliver_late(
        &mut self,
        push: &Push,
        order: Order,
        told: &Told,
        failed: Option<PushError>,
        until: Instant,
    ) -> Result<bool, Obstacle> {
        let client = self.client().map_err(Obstacle::Gateway)?;
        let (clock, told_before) = (self.clock, &self.told);
        let question = push.question();
        let patient = failed.is_some();
        let asked = Cell::new(patient);
        let attempt = async || {
            asked.set(false);
            let held = Held::of(client.listing(&question).await?, clock());
            asked.set(true);
            let is_told = |family: &Family<'_>| {
                [told, told_before].iter().any(|told| told.is_newer(push.key(), family.name(), order))
            };
            match push.clone().news(|family| !is_told(family) && held.is_news(push, family)) {
                Some(news) => client.post(push.key(), news.families().to_body()).await.map(|()| true),
                None => Ok(false),
            }
        };
        let may_help = |error: &PushError| error.is_transient() && (patient || !asked.get());
        let patience = Patience { until, give_up: std::future::pending(), grace: REQUEST_TIMEOUT };
        let outcome = patience.again(&mut self.chance, failed, may_help, attempt).await;
        outcome.map_err(if asked.get() { Obstacle::Group } else { Obstacle::Gateway })
    }
}

/// A delivery under way.
#[derive(Debug)]
struct Round {
    spool: Spool,
    flushed: Flushed,
    /// Held until the end.
    _turn: Turn,
}

impl Round {
    /// Takes an entry out of the spool that was delivered, or sets it aside for the lines in it that could not be.
    async fn clear(&mut self, path: PathBuf, faults: Option<String>) {
        if let Some(faults) = faults {
            return self.set_aside(path, faults).await;
        }
        let (spool, at) = (self.spool.clone(), path.clone());
        if let Err(error) = blocking(move || spool.remove(&at)).await {
            let reason = format!("it was delivered, and {}", chain(&error));
            self.flushed.unreadable.push(Undeliverable { path, reason });
        }
    }

    async fn set_aside(&mut self, path: PathBuf, reason: String) {
        let spool = self.spool.clone();
        self.flushed.set_aside.push(blocking(move || spool.set_aside(&path, reason)).await);
    }

    /// Leaves a group, for others to come first next time.
    async fn hold_up(&mut self, group: Group, reason: PushError, now: SystemTime) {
        let Group { key, entries, .. } = group;
        self.flushed.held_up.push(HeldUp { key, left: entries.len(), reason });
        blocking(move || entries.iter().for_each(|entry| Spool::tried(&entry.path, now))).await;
    }
}

fn look(spool: &Spool, now: SystemTime) -> Result<Option<(Turn, Found)>, SpoolError> {
    let Some(turn) = spool.turn()? else { return Ok(None) };
    let found = turn.look(now)?;
    Ok(Some((turn, found)))
}

/// Entries by group, the newest of each last. The group that was stored or tried longest ago comes first, so that with
/// little time every group has its turn one day.
fn groups(waiting: Vec<Waiting>) -> Vec<Group> {
    let mut by_key: HashMap<GroupingKey, Vec<Waiting>> = HashMap::new();
    for entry in waiting {
        by_key.entry(entry.key.clone()).or_default().push(entry);
    }
    let mut groups: Vec<_> =
        by_key.into_iter().map(|(key, entries)| Group { key, entries, failed: None, told: Told::default() }).collect();
    for group in &mut groups {
        group.entries.sort_by(|a, b| a.order.compare(&b.order).then_with(|| a.path.cmp(&b.path)));
    }
    groups.sort_by_key(|group| (group.entries.iter().map(|entry| entry.tried).max(), group.key.path()));
    groups
}

/// An error with its cause, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    format!("{error}{cause}")
}
