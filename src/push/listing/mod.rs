//! What a gateway holds, as far as one push wants to know: a gateway of many jobs lists many megabytes, of which a few
//! lines are of the group that is asked for.
//!
//! The listing is read as it comes, and nothing else of it is kept.
//!
//! - [`stream`]: an answer's chunks as bytes for a parser, with a limit to what the parser must hold at once.
//! - [`pick`]: a parser's values, of which one kind is wanted and all others are passed over.

mod pick;
mod stream;

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::grouping_key::GroupingKey;
use super::text::{MetricsText, Names};
use pick::{Pick, Picked, TextOf};
pub(super) use stream::{StreamError, stream};

/// Which group is asked for, and which of its families.
#[derive(Debug)]
pub(super) struct Question {
    key: GroupingKey,
    families: Names,
    more: Vec<String>,
}

impl Question {
    /// Asks what a group holds of these families, and of those that are named besides.
    pub(super) fn new(key: GroupingKey, families: &MetricsText, more: &[String]) -> Self {
        Self { key, families: families.names(), more: more.to_vec() }
    }

    fn wants(&self, family: &str) -> bool {
        self.families.contains(family) || self.more.iter().any(|name| name == family)
    }
}

/// What a gateway holds of what it was asked for.
#[derive(Debug)]
pub(super) struct Listing {
    /// The gateway's clock when it answered, if it said so.
    pub(super) date: Option<SystemTime>,
    /// The group, where there is one.
    pub(super) group: Option<Group>,
}

/// Families of a group at a gateway, by name.
#[derive(Default)]
pub(super) struct Group {
    names: String,
    /// In the order of their names.
    entries: Vec<Entry>,
}

/// One family of a group at a gateway.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StoredFamily {
    /// When it was pushed, by the gateway's clock.
    pub(super) pushed: SystemTime,
    /// Its value, where it is one sample.
    pub(super) value: Option<f64>,
}

/// A family in the smallest form: a group may hold half a million.
#[derive(Clone, Copy)]
struct Entry {
    /// Where its name begins and ends.
    begin: u32,
    end: u32,
    /// Nanoseconds since 1970.
    pushed: u64,
    value: f64,
    is_one: bool,
}

impl Group {
    /// What it holds of a family.
    pub(super) fn get(&self, name: &str) -> Option<StoredFamily> {
        let after = self.entries.partition_point(|entry| self.name(entry) <= name);
        let entry = self.entries[..after].last().filter(|entry| self.name(entry) == name)?;
        let pushed = UNIX_EPOCH + Duration::from_nanos(entry.pushed);
        Some(StoredFamily { pushed, value: entry.is_one.then_some(entry.value) })
    }

    fn add(&mut self, name: &str, family: StoredFamily) {
        let begin = self.names.len();
        self.names.push_str(name);
        let at = |place: usize| u32::try_from(place).expect("a listing that is read is shorter than 4 GiB");
        let pushed = family.pushed.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        self.entries.push(Entry {
            begin: at(begin),
            end: at(self.names.len()),
            pushed: u64::try_from(pushed).unwrap_or(u64::MAX),
            value: family.value.unwrap_or_default(),
            is_one: family.value.is_some(),
        });
    }

    /// Puts the families in order. Of one that stands twice, the last counts, as JSON's readers have it.
    fn sorted(mut self) -> Self {
        let names = &self.names;
        self.entries.sort_unstable_by_key(|entry| (&names[entry.begin as usize..entry.end as usize], entry.begin));
        self
    }

    fn name(&self, entry: &Entry) -> &str {
        &self.names[entry.begin as usize..entry.end as usize]
    }
}

impl<Name: AsRef<str>> FromIterator<(Name, StoredFamily)> for Group {
    fn from_iter<I: IntoIterator<Item = (Name, StoredFamily)>>(families: I) -> Self {
        let mut group = Self::default();
        families.into_iter().for_each(|(name, family)| group.add(name.as_ref(), family));
        group.sorted()
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.entries.iter().map(|entry| (self.name(entry), self.get(self.name(entry))))).finish()
    }
}

/// Reads the gateway's `/api/v1/metrics`: in `data` an object a group, with its `labels`, and the families beside them.
fn read(listing: impl std::io::Read, question: &Question) -> Result<Option<Group>, serde_json::Error> {
    let mut parser = serde_json::Deserializer::from_reader(listing);
    let Some(group) = Picked(Answer(question)).deserialize(&mut parser)? else {
        return Err(serde_json::Error::custom("it has no list of groups"));
    };
    parser.end()?;
    Ok(group.map(Group::sorted))
}

/// The whole answer: the group, if it is in the list; nothing at all without a list.
struct Answer<'a>(&'a Question);

impl<'de> Pick<'de> for Answer<'_> {
    type Value = Option<Option<Group>>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_data) = object.next_key_seed(Picked(TextOf(|key: &str| Some(key == "data"))))? {
            if is_data == Some(true) {
                found = object.next_value_seed(Picked(Groups(self.0)))?;
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

struct Groups<'a>(&'a Question);

impl<'de> Pick<'de> for Groups<'_> {
    type Value = Option<Option<Group>>;

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(group) = list.next_element_seed(Picked(OneGroup(self.0)))? {
            found = found.or(group);
        }
        Ok(Some(found))
    }
}

/// A group, if it is the one that is asked for. Its labels may come after its families.
struct OneGroup<'a>(&'a Question);

impl<'de> Pick<'de> for OneGroup<'_> {
    type Value = Option<Group>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let Self(question) = self;
        let (mut group, mut is_it) = (Group::default(), None);
        let key = || {
            Picked(TextOf(|key: &str| match key {
                "labels" => Some(Key::Labels),
                family if question.wants(family) => Some(Key::Family(family.to_owned())),
                _ => None,
            }))
        };
        while let Some(key) = object.next_key_seed(key())? {
            match key {
                // Somebody's family of that name takes the place of the labels: the group cannot be told then.
                Some(Key::Labels) => is_it = Some(object.next_value_seed(Picked(Labels(&question.key)))?),
                Some(Key::Family(name)) if is_it != Some(false) => {
                    // Beside the families stands `last_push_successful`, a bool.
                    if let Some(family) = object.next_value_seed(Picked(OneFamily))? {
                        group.add(&name, family);
                    }
                }
                _ => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(is_it.filter(|is_it| *is_it).map(|_| group))
    }
}

enum Key {
    Labels,
    Family(String),
}

/// Whether labels are those of a grouping key.
struct Labels<'a>(&'a GroupingKey);

impl<'de> Pick<'de> for Labels<'_> {
    type Value = bool;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<bool, A::Error> {
        let Self(key) = self;
        let (mut found, mut others) = (0, false);
        while let Some(name) = object.next_key::<String>()? {
            let value = object.next_value_seed(Picked(TextOf(|value: &str| Some(key.label(&name) == Some(value)))))?;
            match value {
                Some(true) => found += 1,
                _ => others = true,
            }
        }
        Ok(!others && found == key.labels().count() + 1)
    }
}

struct OneFamily;

impl<'de> Pick<'de> for OneFamily {
    type Value = Option<StoredFamily>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let (mut pushed, mut value) = (None, None);
        while let Some(key) = object.next_key::<String>()? {
            match key.as_str() {
                "time_stamp" => pushed = object.next_value_seed(Picked(TextOf(moment)))?,
                "metrics" => value = object.next_value_seed(Picked(Samples))?,
                _ => drop(object.next_value::<IgnoredAny>()?),
            }
        }
        Ok(pushed.map(|pushed| StoredFamily { pushed, value }))
    }
}

/// The value of a list of one sample.
struct Samples;

impl<'de> Pick<'de> for Samples {
    type Value = Option<f64>;

    fn list<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let Some(first) = list.next_element_seed(Picked(OneSample))? else { return Ok(None) };
        let mut alone = true;
        while list.next_element::<IgnoredAny>()?.is_some() {
            alone = false;
        }
        Ok(first.filter(|_| alone))
    }
}

struct OneSample;

impl<'de> Pick<'de> for OneSample {
    type Value = Option<f64>;

    fn object<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut value = None;
        while let Some(key) = object.next_key::<String>()? {
            if key == "value" {
                value = object.next_value_seed(Picked(TextOf(|value: &str| value.parse().ok())))?;
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(value)
    }
}

fn moment(text: &str) -> Option<SystemTime> {
    Some(OffsetDateTime::parse(text, &Rfc3339).ok()?.into())
}

#[cfg(test)]
mod tests;
