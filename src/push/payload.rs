//! What is pushed: families of one group that all tell of one moment.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::Registry;

use super::client::{PushError, encode};
use super::grouping_key::GroupingKey;
use super::listing::Question;
use super::text::{Family, Fault, MetricsText};

/// Faults that an error names one by one; more are counted.
const FAULTS_NAMED: usize = 10;

/// A push of some families into a group, which leaves the group's others as they are (POST).
///
/// It holds what it was made of, parsed: at least one family, and nothing that the text format or the grouping key does
/// not allow.
///
/// ```
/// use std::time::SystemTime;
/// use api_monitoring::push::{GroupingKey, MetricsText, Push};
///
/// let key = GroupingKey::new("backup")?;
/// let families = MetricsText::parse(b"rows 5\nsize 1 1700000000000\n");
///
/// let error = Push::new(key, families, SystemTime::now(), &[]).unwrap_err();
///
/// assert_eq!(
///     error.to_string(),
///     "the metrics cannot be pushed: line 2: size has a timestamp, which the Pushgateway refuses"
/// );
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Push {
    key: GroupingKey,
    families: MetricsText,
    moment: SystemTime,
    moments: Vec<String>,
}

/// Why metrics are no push.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPush {
    /// There is no family. The gateway would take that for a success, and nothing would have been said.
    #[error("there is nothing to push")]
    Empty,
    /// Lines with a fault. Nothing is left out in silence, so the other families are no push either.
    #[error("the metrics cannot be pushed: {}", named(first, *count))]
    Faults {
        /// The first of them.
        first: Vec<Fault>,
        /// How many there are.
        count: usize,
    },
}

impl Push {
    /// A push of these families. `moment` is when what they tell of happened.
    ///
    /// `moments` names families whose values are moments, in seconds since 1970. By them a late delivery knows whether the
    /// group tells of something later already. Without them it goes by when the gateway got what it holds, and may take
    /// what came late itself for newer than it is.
    ///
    /// # Errors
    ///
    /// When there is no family, when the text had a fault ([`MetricsText::forget_faults`] leaves the rest to be pushed), or
    /// when a family has a label of the grouping key.
    pub fn new(
        key: GroupingKey,
        mut families: MetricsText,
        moment: SystemTime,
        moments: &[&str],
    ) -> Result<Self, InvalidPush> {
        families.keep_what_fits(&key, |_| false);
        if let Some(faults) = InvalidPush::of_faults(&families) {
            return Err(faults);
        }
        if families.families().is_empty() {
            return Err(InvalidPush::Empty);
        }
        let moments = moments.iter().map(|name| (*name).to_owned()).collect();
        Ok(Self { key, families, moment, moments })
    }

    /// A push of all that a registry holds.
    ///
    /// # Errors
    ///
    /// When it cannot be encoded, has a label of the grouping key, or holds no series.
    pub async fn of_registry(
        key: GroupingKey,
        registry: &Registry,
        moment: SystemTime,
        moments: &[&str],
    ) -> Result<Self, PushError> {
        let text = encode(&key, registry).await?;
        let families = tokio::task::spawn_blocking(move || MetricsText::parse(text.as_bytes())).await?;
        Ok(Self::new(key, families, moment, moments)?)
    }

    /// The group.
    #[must_use]
    pub fn key(&self) -> &GroupingKey {
        &self.key
    }

    /// The families: at least one.
    #[must_use]
    pub fn families(&self) -> &MetricsText {
        &self.families
    }

    /// When what they tell of happened.
    #[must_use]
    pub fn moment(&self) -> SystemTime {
        self.moment
    }

    /// Names of families whose values are moments.
    #[must_use]
    pub fn moments(&self) -> &[String] {
        &self.moments
    }

    /// Asks what a gateway holds of it.
    pub(super) fn question(&self) -> Arc<Question> {
        Arc::new(Question::new(self.key.clone(), &self.families, &self.moments))
    }

    /// What is left of it without the families that are no news; `None` when none is.
    pub(super) fn news(mut self, is_news: impl Fn(&Family<'_>) -> bool) -> Option<Self> {
        self.families.retain(is_news);
        (!self.families.families().is_empty()).then_some(self)
    }
}

impl InvalidPush {
    /// The faults of a text, if it has any.
    pub(super) fn of_faults(text: &MetricsText) -> Option<Self> {
        let faults = || Self::Faults { first: text.faults().to_vec(), count: text.fault_count() };
        (text.fault_count() > 0).then(faults)
    }
}

/// Seconds since 1970, as they stand in families and in spooled entries.
pub(super) fn seconds(moment: SystemTime) -> f64 {
    moment.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn named(first: &[Fault], count: usize) -> String {
    let mut named: Vec<_> = first.iter().take(FAULTS_NAMED).map(ToString::to_string).collect();
    if count > named.len() {
        named.push(format!("and {} more", count - named.len()));
    }
    named.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(text: &str) -> Result<Push, InvalidPush> {
        let key = GroupingKey::new("j").unwrap().with("zone", "a").unwrap();
        Push::new(key, MetricsText::parse(text.as_bytes()), UNIX_EPOCH, &[])
    }

    #[test]
    fn what_cannot_be_pushed_is_refused_whole_and_named_by_line() {
        let cases = [
            ("rows 5", "line 1: the last line has no end; it may be cut off"),
            ("rows 5 1700000000000\n", "line 1: rows has a timestamp"),
            ("rows_total 5 # {id=\"a\"} 1\n", "line 1: rows_total has \"# {id"),
            ("{\"rows.total\"} 5\n", "line 1: expected a metric name"),
            ("kept 1\nrows x\n", "line 2: rows has the value \"x\""),
            ("kept 1\nrows{zone=\"b\"} 1\n", "line 2: rows has the label zone"),
        ];
        for (text, fault) in cases {
            let error = push(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("the metrics cannot be pushed: {fault}")), "{text:?}: {error}");
        }
        let error = push(&"?\n".repeat(25)).unwrap_err().to_string();
        assert!(error.ends_with("line 10: expected a metric name; and 15 more"), "{error}");
    }

    #[test]
    fn nothing_is_no_push() {
        for text in ["", "\n", "# HELP rows Rows.\n"] {
            assert_eq!(push(text).unwrap_err(), InvalidPush::Empty, "{text:?}");
        }
    }

    #[test]
    fn what_is_left_without_what_is_no_news_is_what_goes_out() {
        let push = push("a 1\nb 2\n").unwrap();
        let only = |name: &'static str| push.clone().news(|family| family.name() == name);

        assert_eq!(only("b").unwrap().families().as_str(), "b 2\n");
        assert!(only("c").is_none());
        assert_eq!(push.families().families().len(), 2, "clones are not changed");
    }
}
