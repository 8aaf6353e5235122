//! Users that were read lately, in memory.

use std::sync::Arc;
use std::time::Duration;

use quick_cache::sync::{Cache, DefaultLifecycle, GuardResult, PlaceholderGuard};
use quick_cache::{DefaultHashBuilder, Weighter};

use crate::users::{User, UserId};

/// Memory for users, in bytes: about 20,000 of them.
const BYTES_MAX: u64 = 4 * 1024 * 1024;

/// What a user takes beside its texts: its id, two strings, and its place.
const BYTES_EACH: u64 = 160;

/// Users that were read lately, by id. A cheap handle.
///
/// What is forgotten while it is being read is not kept: a reader takes a [`Place`] before it reads, and loses it when
/// the user is forgotten before it has put the user there.
#[derive(Clone, Debug)]
pub(super) struct Recent(Arc<Cache<UserId, Arc<User>, Bytes>>);

/// The right to put a user that is being read.
pub(super) type Place<'a> =
    PlaceholderGuard<'a, UserId, Arc<User>, Bytes, DefaultHashBuilder, DefaultLifecycle<UserId, Arc<User>>>;

/// Weighs users by the memory they take.
#[derive(Clone, Debug)]
pub(super) struct Bytes;

impl Weighter<UserId, Arc<User>> for Bytes {
    fn weight(&self, _: &UserId, user: &Arc<User>) -> u64 {
        BYTES_EACH + (user.name.as_str().len() + user.email.as_str().len()) as u64
    }
}

impl Default for Recent {
    fn default() -> Self {
        let users = usize::try_from(BYTES_MAX / BYTES_EACH).expect("the limit is below that of any machine");
        Self(Arc::new(Cache::with_weighter(users, BYTES_MAX, Bytes)))
    }
}

impl Recent {
    /// A user, or a place for it; neither when another reader has the place.
    pub(super) fn get(&self, id: UserId) -> Result<Arc<User>, Option<Place<'_>>> {
        // Nobody waits for another's read: of a user that is not there, all would have to wait for each other in turn.
        match self.0.get_value_or_guard(&id, Some(Duration::ZERO)) {
            GuardResult::Value(user) => Ok(user),
            GuardResult::Guard(place) => Err(Some(place)),
            GuardResult::Timeout => Err(None),
        }
    }

    /// Forgets a user, and takes the place from whoever reads it now. Until what this gives is dropped, nobody gets it.
    pub(super) fn hold(&self, id: UserId) -> Place<'_> {
        loop {
            self.0.remove(&id);
            // Not the case when a reader was quicker.
            if let Err(Some(place)) = self.get(id) {
                return place;
            }
        }
    }

    /// Forgets all users, and takes the places of those that are being read.
    pub(super) fn forget_all(&self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: i64, name: &str) -> Arc<User> {
        let id = UserId::new(id).unwrap();
        Arc::new(User { id, name: name.parse().unwrap(), email: "john@example.com".parse().unwrap() })
    }

    fn put(recent: &Recent, user: &Arc<User>) {
        let place = recent.get(user.id).expect_err("not there yet").expect("nobody else reads it");
        place.insert(Arc::clone(user)).expect("not forgotten meanwhile");
    }

    #[test]
    fn a_place_is_lost_when_its_user_or_all_are_forgotten() {
        let recent = Recent::default();
        let john = user(1, "John");

        let place = recent.get(john.id).unwrap_err().unwrap();
        drop(recent.hold(john.id));
        assert!(place.insert(Arc::clone(&john)).is_err());

        let place = recent.get(john.id).unwrap_err().unwrap();
        recent.forget_all();
        assert!(place.insert(Arc::clone(&john)).is_err());

        put(&recent, &john);
        assert!(recent.get(john.id).is_ok());
    }

    #[test]
    fn a_second_reader_gets_no_place_until_the_first_gave_up_its_own() {
        let recent = Recent::default();
        let id = UserId::new(1).unwrap();

        let first = recent.get(id).unwrap_err();
        assert!(recent.get(id).unwrap_err().is_none());
        drop(first);

        assert!(recent.get(id).unwrap_err().is_some());
    }

    #[test]
    fn while_a_user_is_held_nobody_can_put_it() {
        let recent = Recent::default();
        let john = user(1, "John");
        put(&recent, &john);

        let held = recent.hold(john.id);
        assert!(recent.get(john.id).unwrap_err().is_none(), "neither the user nor a place");
        drop(held);

        put(&recent, &john);
    }

    #[test]
    fn memory_is_bounded_whatever_is_read() {
        let recent = Recent::default();
        let longest = "x".repeat(200);

        for id in 1..=100_000 {
            put(&recent, &user(id, &longest));
        }

        assert!(recent.0.weight() <= BYTES_MAX, "{} bytes", recent.0.weight());
        assert!(recent.0.len() > 1000, "and it keeps {}", recent.0.len());
    }
}
