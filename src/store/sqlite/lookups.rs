//! Users by id, read in groups.
//!
//! A statement goes to its connection's thread and back, which costs far more than what it does there. So lookups go
//! through one task: whatever waits when a connection is free becomes one statement on it and shares that cost. All
//! connections still read at once from a slow disk.

use std::collections::BTreeMap;
use std::iter;

use sqlx::sqlite::{SqliteConnection, SqlitePool};
use tokio::sync::{mpsc, oneshot};

use super::errors::{closed, explain};
use super::{Row, user};
use crate::store::StoreError;
use crate::users::{User, UserId};

/// Lookups that may wait. Those beyond wait to be let in.
const QUEUE: usize = 1024;

/// Lookups in one statement at most, so that the first of them is not kept waiting for long.
const GROUP: usize = 64;

/// Reads users by id. A cheap handle.
#[derive(Clone, Debug)]
pub(super) struct Lookups(mpsc::Sender<Lookup>);

type Lookup = (UserId, oneshot::Sender<Result<Option<User>, StoreError>>);

impl Lookups {
    /// Reads through connections of the pool, until the last handle is dropped.
    pub(super) fn through(readers: SqlitePool) -> Self {
        let (sender, lookups) = mpsc::channel(QUEUE);
        tokio::spawn(run(readers, lookups));
        Self(sender)
    }

    pub(super) async fn user(&self, id: UserId) -> Result<Option<User>, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.0.send((id, reply)).await.map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(closed()))
    }

    /// Whether nothing can be read any more.
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

async fn run(readers: SqlitePool, mut lookups: mpsc::Receiver<Lookup>) {
    while let Some(first) = lookups.recv().await {
        // Meanwhile the group grows.
        let connection = readers.acquire().await;
        let group = group(first, &mut lookups);
        match connection {
            Ok(mut connection) => drop(tokio::spawn(async move { answer(&mut connection, group).await })),
            Err(error) => refuse(group, error),
        }
    }
}

/// This lookup and those that wait, but for those that nobody waits for any more.
fn group(first: Lookup, lookups: &mut mpsc::Receiver<Lookup>) -> Vec<Lookup> {
    let waiting = iter::from_fn(|| lookups.try_recv().ok());
    iter::once(first).chain(waiting).filter(|(_, reply)| !reply.is_closed()).take(GROUP).collect()
}

async fn answer(connection: &mut SqliteConnection, group: Vec<Lookup>) {
    match read(connection, &group).await {
        Ok(users) => {
            for (id, reply) in group {
                let _ = reply.send(Ok(users.get(&id).cloned()));
            }
        }
        // One user that cannot be read must not fail those that only happened to wait with it.
        Err(_) if group.len() > 1 => {
            for lookup in group {
                Box::pin(answer(connection, vec![lookup])).await;
            }
        }
        Err(error) => refuse(group, error),
    }
}

fn refuse(group: Vec<Lookup>, error: sqlx::Error) {
    let error = explain(error);
    for (_, reply) in group {
        let _ = reply.send(Err(error.clone()));
    }
}

async fn read(connection: &mut SqliteConnection, group: &[Lookup]) -> Result<BTreeMap<UserId, User>, sqlx::Error> {
    let ids: Vec<i64> = group.iter().map(|(id, _)| id.get()).collect();
    let ids = serde_json::to_string(&ids).map_err(|error| sqlx::Error::Encode(error.into()))?;
    let rows: Vec<Row> =
        sqlx::query_as("SELECT id, name, email FROM users WHERE id IN (SELECT value FROM json_each(?))")
            .bind(ids)
            .fetch_all(connection)
            .await?;
    Ok(rows.into_iter().filter_map(user).map(|user| (user.id, user)).collect())
}

#[cfg(test)]
mod tests {
    use sqlx::sqlite::SqlitePoolOptions;

    use super::*;

    fn id(id: i64) -> UserId {
        UserId::new(id).unwrap()
    }

    /// "User 1" to "User 9", of whom the fifth has a name that is no text.
    async fn readers() -> SqlitePool {
        let readers = SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
        for statement in [
            "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT, email TEXT) STRICT",
            "INSERT INTO users SELECT value, 'User ' || value, '' FROM json_each('[1,2,3,4,5,6,7,8,9]')",
            "UPDATE users SET name = CAST(x'ff' AS TEXT) WHERE id = 5",
        ] {
            sqlx::query(statement).execute(&readers).await.unwrap();
        }
        readers
    }

    fn name(found: Result<Option<User>, StoreError>) -> Option<String> {
        found.unwrap().map(|user| user.name.as_str().to_owned())
    }

    #[test]
    fn a_group_is_what_waits_and_is_waited_for_and_has_a_limit() {
        let (sender, mut lookups) = mpsc::channel(2 * GROUP);
        let mut answers: Vec<_> = (1..=6 + GROUP)
            .map(|number| {
                let (reply, answer) = oneshot::channel();
                sender.try_send((id(number.try_into().unwrap()), reply)).unwrap();
                answer
            })
            .collect();
        for gone in [3, 0] {
            drop(answers.remove(gone));
        }

        let mut next = || {
            let first = lookups.try_recv().unwrap();
            group(first, &mut lookups).into_iter().map(|(id, _)| id.get()).collect::<Vec<_>>()
        };
        let (one, other) = (next(), next());

        assert_eq!((one.len(), &one[..4]), (GROUP, &[2, 3, 5, 6][..]));
        let last = i64::try_from(6 + GROUP).unwrap();
        assert_eq!(other, [last - 3, last - 2, last - 1, last]);
    }

    #[tokio::test]
    async fn each_gets_the_user_that_it_asked_for() {
        let lookups = Lookups::through(readers().await);

        let asked = [7, 2, 12, 7, 9, 1, i64::MAX];
        let found = futures_util::future::join_all(asked.map(|asked| lookups.user(id(asked)))).await;

        let found: Vec<_> = found.into_iter().map(name).collect();
        let expected = asked.map(|asked| (asked <= 9).then(|| format!("User {asked}")));
        assert_eq!(found, expected);
    }

    #[tokio::test]
    async fn a_user_that_cannot_be_read_does_not_fail_those_that_wait_with_it() {
        let lookups = Lookups::through(readers().await);

        let (before, broken, after) = tokio::join!(lookups.user(id(4)), lookups.user(id(5)), lookups.user(id(6)));

        assert_eq!((name(before), name(after)), (Some("User 4".to_owned()), Some("User 6".to_owned())));
        assert!(matches!(broken, Err(StoreError::Failed(_))), "{broken:?}");
    }

    #[tokio::test]
    async fn without_a_connection_all_that_wait_are_refused() {
        let readers = readers().await;
        let lookups = Lookups::through(readers.clone());
        let held = readers.acquire().await.unwrap();

        let closing = async {
            tokio::task::yield_now().await;
            tokio::join!(readers.close(), async { drop(held) });
        };
        let (one, other, ()) = tokio::join!(lookups.user(id(1)), lookups.user(id(2)), closing);

        for refused in [one, other] {
            assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
        }
    }
}
