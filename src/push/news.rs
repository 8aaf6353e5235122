//! What of an older push is still news to its group, family by family.

use std::cmp::Ordering;
use std::time::SystemTime;

use super::grouping_key::GroupingKey;
use super::listing::{Group, Listing, StoredFamily};
use super::payload::{Push, seconds};
use super::text::{Family, Names};

/// `Date` has whole seconds: clocks that differ by less than this are taken for equal.
const CLOCKS_EQUAL: f64 = 2.0;

/// Which of two pushes into a group is the newer one: by the moment that they tell of, then by their place within the run
/// that made them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Order {
    /// Seconds since 1970.
    pub(super) moment: f64,
    pub(super) sequence: u32,
}

impl Order {
    /// Older first.
    pub(super) fn compare(&self, other: &Self) -> Ordering {
        self.moment.total_cmp(&other.moment).then(self.sequence.cmp(&other.sequence))
    }
}

/// What this process has delivered. A gateway's stamps tell when it got a value, not of when the value is: what was
/// delivered late looks newer there than it is.
#[derive(Debug, Default)]
pub(super) struct Told(Vec<(GroupingKey, Order, Names)>);

impl Told {
    /// Notes that the group knows all that a push tells, or newer values. What the note says alone replaces older ones, so
    /// there are few for each group.
    pub(super) fn note(&mut self, push: &Push, order: Order) {
        let names = push.families().names();
        self.0.retain(|(group, told, older)| {
            group != push.key() || told.compare(&order).is_gt() || !names.contains_all(older)
        });
        self.0.push((push.key().clone(), order, names));
    }

    /// Whether a newer push has told of this family.
    pub(super) fn is_newer(&self, key: &GroupingKey, family: &str, order: Order) -> bool {
        self.0.iter().any(|(group, told, names)| group == key && told.compare(&order).is_gt() && names.contains(family))
    }
}

/// What the gateway holds in a group, as far as it decides what of an older push is still news.
#[derive(Debug)]
pub(super) struct Held {
    group: Option<Group>,
    /// What the gateway's clock is ahead of ours, in seconds.
    ahead: f64,
}

impl Held {
    /// What a listing that was read now says of a group.
    pub(super) fn of(listing: Listing, now: SystemTime) -> Self {
        let ahead = listing.date.map_or(0.0, |date| seconds(date) - seconds(now));
        let ahead = if ahead.abs() < CLOCKS_EQUAL { 0.0 } else { ahead };
        Self { group: listing.group, ahead }
    }

    /// Whether a family of a push into this group is newer than what the group holds.
    pub(super) fn is_news(&self, push: &Push, family: &Family<'_>) -> bool {
        let Some(group) = &self.group else { return true };
        let Some(stored) = group.get(family.name()) else { return true };
        let is_moment = push.moments().iter().any(|name| name == family.name());
        // Moments only grow, whichever run they come from.
        if let (true, Some(moment), Some(value)) = (is_moment, family.sole_value(), stored.value) {
            return value.is_nan() || moment > value;
        }
        let moment = seconds(push.moment());
        let stored_before = seconds(stored.pushed) - self.ahead < moment;
        match latest(group, push) {
            // All of it is news if the group tells of nothing later.
            Some((latest, _)) if moment >= latest => true,
            // Else only what was not pushed since: neither with what is later, by one and the same clock, nor after.
            Some((_, with)) => stored_before && stored.pushed < with.pushed,
            None => stored_before,
        }
    }
}

/// The latest moment that a group tells of, and the family that has it.
fn latest(group: &Group, push: &Push) -> Option<(f64, StoredFamily)> {
    let stored = push.moments().iter().filter_map(|name| group.get(name));
    let moments = stored.filter_map(|family| Some((family.value?, family))).filter(|(value, _)| value.is_finite());
    moments.max_by(|(a, _), (b, _)| a.total_cmp(b))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::text::MetricsText;
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
        Held { group: Some(families.collect()), ahead: 0.0 }
    }

    fn push_with(second: u32, text: &str, moments: &[&str]) -> Push {
        Push::new(GroupingKey::new("j").unwrap(), MetricsText::parse(text.as_bytes()), at(second), moments).unwrap()
    }

    /// A push of the job `j` that tells of a second.
    fn push(second: u32, text: &str) -> Push {
        push_with(second, text, &[START, SUCCESS])
    }

    /// The names of the families that are still news.
    fn news(held: &Held, push: &Push) -> Vec<String> {
        let Some(news) = push.clone().news(|family| held.is_news(push, family)) else { return Vec::new() };
        news.families().families().iter().map(|family| family.name().to_owned()).collect()
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
    fn a_later_runs_families_are_kept_also_when_the_gateways_clock_is_a_little_behind() {
        // It got in its second 11 what tells of second 13: too little for its `Date` to show.
        let later = held(&[("code", 11, 3.0), (START, 11, 13.0), ("rows", 11, 1.0), ("other", 10, 1.0)]);

        assert_eq!(news(&later, &push(12, "code 0\nrows 5\nother 2\n")), ["other"]);
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
        let push = push_with(12, "rows 5\nother 1\n", &[]);

        assert_eq!(news(&held(&[("rows", 11, 1.0), ("other", 13, 1.0)]), &push), ["rows"]);
        let ahead = Held { ahead: 60.0, ..held(&[("rows", 71, 1.0), ("other", 73, 1.0)]) };
        assert_eq!(news(&ahead, &push), ["rows"], "by a clock that is a minute ahead");
    }

    #[test]
    fn the_same_push_once_more_does_no_harm() {
        let itself = held(&[("code", 12, 0.0), (START, 12, 10.0), (SUCCESS, 12, 12.0), ("rows", 12, 5.0)]);

        assert_eq!(news(&itself, &push(12, RUN)), ["code", "rows"]);
    }

    #[test]
    fn a_moment_that_is_no_number_or_has_several_series_hides_nothing() {
        let nonsense = held(&[(START, 20, f64::NAN), (SUCCESS, 5, 4.0)]);
        let several = "job_success_timestamp_seconds{a=\"b\"} 1\njob_success_timestamp_seconds{a=\"c\"} 2\n";
        let several = push(12, &format!("{START} 10\n{several}"));

        assert_eq!(news(&nonsense, &several), [START, SUCCESS]);
    }

    #[test]
    fn clocks_that_differ_by_less_than_a_date_can_tell_are_equal() {
        let ahead = |seconds: u32| {
            let listing = Listing { date: Some(at(100 + seconds)), group: None };
            Held::of(listing, at(100)).ahead
        };

        assert!(ahead(1).abs() < f64::EPSILON);
        assert!((ahead(60) - 60.0).abs() < f64::EPSILON);
    }

    #[test]
    fn what_was_told_is_known_by_its_newest_push() {
        let order = |moment: u32, sequence| Order { moment: moment.into(), sequence };
        let mut told = Told::default();

        told.note(&push(12, "rows 5\n"), order(12, 1));
        told.note(&push(11, "rows 4\nother 1\n"), order(11, 0));

        let key = GroupingKey::new("j").unwrap();
        let newer = |family, moment, sequence| told.is_newer(&key, family, order(moment, sequence));
        assert!(newer("rows", 11, 9) && newer("rows", 12, 0) && newer("other", 10, 0));
        assert!(!newer("rows", 12, 1) && !newer("rows", 13, 0) && !newer("other", 12, 0) && !newer("another", 1, 0));
        assert!(!told.is_newer(&GroupingKey::new("k").unwrap(), "rows", order(1, 0)));
    }
}
