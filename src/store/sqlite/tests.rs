//! The store on a database in memory and on files.

use std::sync::Mutex;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use sqlx::{ConnectOptions, Connection};
use tokio::time::Instant;

use super::writer::GROUP;
use super::*;
use crate::store::ImportProgress;

/// What the owner was told, in order.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<Committed>>>);

impl Told {
    fn listener(&self) -> OnCommit {
        let told = Arc::clone(&self.0);
        Arc::new(move |committed| told.lock().unwrap().push(committed))
    }

    fn all(&self) -> Vec<Committed> {
        self.0.lock().unwrap().clone()
    }
}

fn new_user(name: &str) -> NewUser {
    NewUser { name: name.parse().unwrap(), email: "john@example.com".parse().unwrap() }
}

fn file_url(folder: &tempfile::TempDir) -> DatabaseUrl {
    format!("sqlite://{}/new/users.db", folder.path().display()).parse().unwrap()
}

async fn open(url: &DatabaseUrl) -> (SqliteStore, Told) {
    let told = Told::default();
    (SqliteStore::open(url, told.listener()).await.unwrap(), told)
}

async fn in_memory() -> (SqliteStore, Told) {
    open(&"sqlite::memory:".parse().unwrap()).await
}

#[tokio::test]
async fn a_user_is_created_read_changed_and_deleted() {
    let (store, told) = in_memory().await;

    let john = store.create(new_user("John")).await.unwrap();
    let only_name = UserChange { name: Some("Jane".parse().unwrap()), email: None };
    let jane = store.update(john.id, only_name).await.unwrap().unwrap();

    assert_eq!((jane.id, jane.name.as_str(), &jane.email), (john.id, "Jane", &john.email));
    let only_email = UserChange { name: None, email: Some("jane@example.org".parse().unwrap()) };
    let jane = store.update(john.id, only_email).await.unwrap().unwrap();
    assert_eq!((jane.name.as_str(), jane.email.as_str()), ("Jane", "jane@example.org"));
    assert_eq!(store.user(john.id).await.unwrap(), Some(Arc::new(jane)));
    assert!(store.delete(john.id).await.unwrap());
    assert_eq!(store.user(john.id).await.unwrap(), None);
    assert!(!store.delete(john.id).await.unwrap(), "a second time there is nothing to delete");
    let counts: Vec<_> = told.all().iter().map(|c| (c.created, c.deleted, c.users)).collect();
    assert_eq!(counts, [(0, 0, 0), (1, 0, 1), (0, 0, 1), (0, 0, 1), (0, 1, 0), (0, 0, 0)]);
}

#[tokio::test]
async fn ids_grow_and_are_not_reused() {
    let (store, _) = in_memory().await;
    let first = store.create(new_user("first")).await.unwrap().id;
    store.delete(first).await.unwrap();

    let second = store.create(new_user("second")).await.unwrap().id;

    assert!(second > first, "{second} after {first}");
}

#[tokio::test]
async fn pages_are_ordered_and_start_after_the_id_given() {
    let (store, _) = in_memory().await;
    for name in ["a", "b", "c", "d"] {
        store.create(new_user(name)).await.unwrap();
    }

    let names = |page: Vec<User>| page.iter().map(|user| user.name.as_str().to_owned()).collect::<Vec<_>>();

    assert_eq!(names(store.page(0, 2).await.unwrap()), ["a", "b"]);
    assert_eq!(names(store.page(2, 2).await.unwrap()), ["c", "d"]);
    assert_eq!(names(store.page(4, 2).await.unwrap()), [""; 0]);
}

#[tokio::test]
async fn users_survive_closing_and_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&file_url(&folder)).await;
    let john = store.create(new_user("John")).await.unwrap();
    store.close().await;

    let (store, told) = open(&file_url(&folder)).await;

    assert_eq!(store.user(john.id).await.unwrap(), Some(Arc::new(john)));
    assert_eq!(told.all(), [Committed { created: 0, deleted: 0, users: 1 }], "the count is known from the start");
}

#[tokio::test]
async fn durability_is_switched_on() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&file_url(&folder)).await;

    let journal: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.readers).await.unwrap();
    let mut writer = connect_options(&file_url(&folder)).unwrap().connect().await.unwrap();
    let synchronous: i64 = sqlx::query_scalar("PRAGMA synchronous").fetch_one(&mut writer).await.unwrap();
    let busy: i64 = sqlx::query_scalar("PRAGMA busy_timeout").fetch_one(&mut writer).await.unwrap();

    assert_eq!((journal.as_str(), synchronous, busy), ("wal", 2, 5000), "2 is FULL");
}

#[tokio::test]
async fn writes_that_wait_together_are_committed_together() {
    let (store, told) = in_memory().await;

    let writes = (0..100).map(|n| store.create(new_user(&n.to_string())));
    let created = futures_util::future::try_join_all(writes).await.unwrap();

    let commits = told.all().len() - 1;
    assert!(commits < 100, "{commits} commits for 100 writes");
    assert_eq!(told.all().iter().map(|c| c.created).sum::<u64>(), 100);
    let ids: std::collections::BTreeSet<_> = created.iter().map(|user| user.id).collect();
    assert_eq!(ids.len(), 100, "each got its own id");
}

#[tokio::test]
async fn a_write_that_nobody_waits_for_any_more_is_not_made() {
    let (store, told) = in_memory().await;
    let abandoned = store.create(new_user("abandoned"));
    // One poll queues the write; the drop abandons it before the writer, on this same thread, could take it.
    assert!(futures_util::FutureExt::now_or_never(abandoned).is_none());

    let kept = store.create(new_user("kept")).await.unwrap();

    assert_eq!(store.page(0, 10).await.unwrap(), [kept]);
    assert_eq!(told.all().last().unwrap().users, 1);
}

#[tokio::test]
async fn closing_makes_the_writes_that_wait_and_refuses_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&file_url(&folder)).await;

    let (written, ()) = tokio::join!(store.create(new_user("last")), store.close());

    assert!(written.is_ok(), "{written:?}");
    assert!(matches!(store.create(new_user("late")).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_store_that_no_longer_takes_writes_does_not_answer_its_ping() {
    let (store, _) = in_memory().await;
    assert!(store.ping().await.is_ok());
    let (reply, closed) = oneshot::channel();
    store.writer.send(Command::Close(reply)).await.unwrap();
    closed.await.unwrap();

    assert!(store.page(0, 1).await.is_ok(), "it still reads");
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn users_written_by_another_program_are_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (_store, told) = open(&file_url(&folder)).await;
    let (other, _) = open(&file_url(&folder)).await;

    other.create(new_user("other")).await.unwrap();

    tokio::time::timeout(Duration::from_mins(1), async {
        while told.all().last().unwrap().users != 1 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .expect("the count follows");
    assert_eq!(told.all().iter().map(|c| c.created).sum::<u64>(), 0, "not created by this process");
}

// ---- Users kept in memory ----

fn renamed(name: &str) -> UserChange {
    UserChange { name: Some(name.parse().unwrap()), email: None }
}

#[tokio::test]
async fn a_user_that_was_read_is_read_no_more() {
    let (store, _) = in_memory().await;
    let john = store.create(new_user("John")).await.unwrap();
    let first = store.user(john.id).await.unwrap().unwrap();

    let second = store.user(john.id).await.unwrap().unwrap();

    assert!(Arc::ptr_eq(&first, &second));
}

#[tokio::test]
async fn a_user_that_was_read_shows_every_change_at_once() {
    let (store, _) = in_memory().await;
    let john = store.create(new_user("John")).await.unwrap();

    for number in 0..100 {
        let name = format!("John {number}");
        store.user(john.id).await.unwrap();
        store.update(john.id, renamed(&name)).await.unwrap();
        assert_eq!(store.user(john.id).await.unwrap().unwrap().name.as_str(), name);
    }
    store.delete(john.id).await.unwrap();

    assert_eq!(store.user(john.id).await.unwrap(), None);
}

#[tokio::test]
async fn a_user_that_changes_while_it_is_read_is_not_kept_as_it_was() {
    let (store, _) = in_memory().await;
    let john = store.create(new_user("John")).await.unwrap();
    // A reader that has its place, and then its row, and then is slow.
    let place = store.recent.get(john.id).unwrap_err().unwrap();
    let as_it_was = Arc::new(store.lookups.user(john.id).await.unwrap().unwrap());

    store.update(john.id, renamed("Jane")).await.unwrap();
    let refused = place.insert(as_it_was);

    assert!(refused.is_err());
    assert_eq!(store.user(john.id).await.unwrap().unwrap().name.as_str(), "Jane");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_reader_sees_a_change_undone() {
    async fn read(store: &SqliteStore, id: UserId) -> u32 {
        store.user(id).await.unwrap().unwrap().name.as_str().parse().unwrap()
    }
    // A file, where readers have snapshots of their own.
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&file_url(&folder)).await;
    let id = store.create(new_user("0")).await.unwrap().id;
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut last = 0;
                while last < 300 {
                    let now = read(&store, id).await;
                    assert!(now >= last, "{now} after {last}");
                    last = now;
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();

    for number in 1..=300 {
        store.update(id, renamed(&number.to_string())).await.unwrap();
        assert_eq!(read(&store, id).await, number, "who is answered sees what was written");
    }

    for reader in readers {
        tokio::time::timeout(Duration::from_mins(1), reader).await.expect("the last change shows").unwrap();
    }
}

#[tokio::test]
async fn a_change_by_another_program_shows() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&file_url(&folder)).await;
    let (other, _) = open(&file_url(&folder)).await;
    let (kept, gone) =
        (store.create(new_user("John")).await.unwrap().id, store.create(new_user("x")).await.unwrap().id);
    for id in [kept, gone] {
        assert!(store.user(id).await.unwrap().is_some());
    }

    other.update(kept, renamed("Jane")).await.unwrap();
    other.delete(gone).await.unwrap();

    let patience = Instant::now() + Duration::from_mins(1);
    while store.user(kept).await.unwrap().unwrap().name.as_str() != "Jane" || store.user(gone).await.unwrap().is_some()
    {
        assert!(Instant::now() < patience, "it never shows");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_change_by_another_program_shows_while_this_one_writes_without_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&file_url(&folder)).await;
    let (other, _) = open(&file_url(&folder)).await;
    let john = store.create(new_user("John")).await.unwrap().id;
    store.user(john).await.unwrap();
    other.update(john, renamed("Jane")).await.unwrap();

    let shown = async {
        while store.user(john).await.unwrap().unwrap().name.as_str() != "Jane" {
            tokio::task::yield_now().await;
        }
    };
    // More than one group: whatever the writer takes, another group waits when it is free again.
    let writing = futures_util::stream::repeat(())
        .map(|()| store.create(new_user("x")))
        .buffer_unordered(2 * GROUP)
        .try_for_each(|_| std::future::ready(Ok(())));

    tokio::select! {
        stopped = writing => panic!("{stopped:?}"),
        shown = tokio::time::timeout(Duration::from_mins(1), shown) => shown.expect("it shows"),
    }
}

#[tokio::test]
async fn a_closed_store_answers_nothing_from_memory() {
    let (store, _) = in_memory().await;
    let john = store.create(new_user("John")).await.unwrap();
    store.user(john.id).await.unwrap();

    store.close().await;

    assert!(matches!(store.user(john.id).await, Err(StoreError::Unavailable(_))));
}

#[tokio::test]
async fn a_change_that_fails_does_not_fail_those_that_wait_with_it() {
    let (store, told) = in_memory().await;
    let john = store.create(new_user("John")).await.unwrap();
    // The id space is used up: no user can be created any more.
    let last = "UPDATE sqlite_sequence SET seq = 9223372036854775807 WHERE name = 'users'";
    sqlx::query(last).execute(&store.readers).await.unwrap();
    let rename = UserChange { name: Some("Jane".parse().unwrap()), email: None };

    let (before, created, after) = tokio::join!(
        store.update(john.id, rename.clone()),
        store.create(new_user("one too many")),
        store.delete(john.id)
    );

    assert_eq!(before.unwrap().unwrap().name.as_str(), "Jane");
    assert!(matches!(created, Err(StoreError::Failed(_))), "{created:?}");
    assert!(after.unwrap());
    assert_eq!(told.all().iter().map(|c| (c.created, c.deleted)).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1)), (1, 1));
}

#[tokio::test]
async fn two_processes_may_meet_at_a_fresh_file() {
    for _ in 0..30 {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (file_url(&folder), file_url(&folder));

        let (one, two) = tokio::join!(
            tokio::spawn(async move { SqliteStore::open(&one, Arc::new(|_| ())).await.map(drop) }),
            tokio::spawn(async move { SqliteStore::open(&two, Arc::new(|_| ())).await.map(drop) })
        );

        one.unwrap().unwrap();
        two.unwrap().unwrap();
    }
}

#[tokio::test]
async fn writes_beyond_the_queue_are_turned_away_at_once() {
    let (store, _) = in_memory().await;
    let user = new_user("John");

    // Each is polled once, before the writer, on this same thread, can take any.
    let outcomes: Vec<_> =
        (0..QUEUE + 3).map(|_| futures_util::FutureExt::now_or_never(store.create(user.clone()))).collect();

    let turned_away = outcomes.iter().filter(|outcome| matches!(outcome, Some(Err(StoreError::Overloaded)))).count();
    assert_eq!(turned_away, 3);
    // Those that were polled are abandoned now; once the writer has passed them over, there is room again.
    let patience = Instant::now() + Duration::from_mins(1);
    while matches!(store.create(user.clone()).await, Err(StoreError::Overloaded)) {
        assert!(Instant::now() < patience, "there is never room again");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_locked_database_fails_the_write_and_keeps_the_store_usable() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&file_url(&folder)).await;
    let mut other = connect_options(&file_url(&folder)).unwrap().connect().await.unwrap();
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();

    let refused = store.create(new_user("refused")).await;
    lock.rollback().await.unwrap();
    let accepted = store.create(new_user("accepted")).await.unwrap();

    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(store.page(0, 10).await.unwrap(), [accepted]);
}

// ---- Imports ----

fn batch(names: &[&str], progress: Option<(&str, u64, u64)>) -> ImportBatch {
    let users = names.iter().map(|name| new_user(name)).collect();
    let progress = progress.map(|(key, before, after)| ImportProgress { key: key.to_owned(), before, after });
    ImportBatch { users, progress }
}

async fn names(store: &SqliteStore) -> Vec<String> {
    let users = store.page(0, 1000).await.unwrap();
    users.iter().map(|user| user.name.as_str().to_owned()).collect()
}

#[tokio::test]
async fn a_batch_makes_its_users_in_their_order_and_moves_the_import_on() {
    let (store, told) = in_memory().await;
    assert_eq!(store.import_progress("k").await.unwrap(), 0);

    let first = store.import(batch(&["b", "a"], Some(("k", 0, 3)))).await;
    let second = store.import(batch(&["c"], Some(("k", 3, 4)))).await;

    assert!(first.unwrap() && second.unwrap());
    assert_eq!(names(&store).await, ["b", "a", "c"]);
    assert_eq!(store.import_progress("k").await.unwrap(), 4);
    let counts: Vec<_> = told.all().iter().map(|c| (c.created, c.deleted, c.users)).collect();
    assert_eq!(counts, [(0, 0, 0), (2, 0, 2), (1, 0, 3)], "the owner is told of each commit");
}

#[tokio::test]
async fn a_batch_of_ten_thousand_users_keeps_their_order() {
    let (store, _) = in_memory().await;
    // As texts, they would be ordered differently.
    let users: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();

    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    assert!(store.import(batch(&users, None)).await.unwrap());

    for after in (0..10_000).step_by(1000) {
        let page = store.page(after, 1000).await.unwrap();
        let expected = (after..after + 1000).map(|number| (number + 1, number.to_string()));
        assert!(page.iter().map(|user| (user.id.get(), user.name.as_str().to_owned())).eq(expected), "{after}");
    }
}

#[tokio::test]
async fn imported_names_are_kept_letter_by_letter() {
    let (store, _) = in_memory().await;
    let kept = ["007", "1e5", "true", "null", r#""John""#, r"C:\new", "[0]", "{}", "O'Brien", "李小龍", "👩‍👩‍👧‍👦"];

    assert!(store.import(batch(&kept, None)).await.unwrap());

    assert_eq!(names(&store).await, kept);
}

#[tokio::test]
async fn a_batch_that_begins_elsewhere_than_its_import_is_changes_nothing() {
    let (store, told) = in_memory().await;
    store.import(batch(&["first"], Some(("k", 0, 5)))).await.unwrap();
    let commits = told.all().len();

    for (before, after, reason) in
        [(0, 5, "the same batch once more"), (3, 8, "one that overlaps"), (6, 9, "one that leaves a row out")]
    {
        let made = store.import(batch(&["again"], Some(("k", before, after)))).await;
        assert!(!made.unwrap(), "{reason}");
    }

    assert_eq!(names(&store).await, ["first"]);
    assert_eq!(store.import_progress("k").await.unwrap(), 5);
    assert_eq!(told.all().len(), commits, "there was no commit to tell of");
    assert!(store.import(batch(&["second"], Some(("k", 5, 6)))).await.unwrap(), "it can go on from where it is");
}

#[tokio::test]
async fn a_first_batch_that_begins_behind_the_first_row_leaves_no_trace() {
    let (store, _) = in_memory().await;

    assert!(!store.import(batch(&["late"], Some(("k", 5, 6)))).await.unwrap());

    assert_eq!(names(&store).await, [""; 0]);
    let keys: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM imports").fetch_one(&store.readers).await.unwrap();
    assert_eq!(keys, 0);
}

#[tokio::test]
async fn each_key_is_an_import_of_its_own() {
    let (store, _) = in_memory().await;

    let keys = [("k", 1), ("K", 2), ("k ", 3), ("", 4)];
    for (key, rows) in keys {
        assert!(store.import(batch(&[&rows.to_string()], Some((key, 0, rows)))).await.unwrap(), "{key:?}");
    }

    assert_eq!(names(&store).await, ["1", "2", "3", "4"]);
    for (key, rows) in keys {
        assert_eq!(store.import_progress(key).await.unwrap(), rows, "{key:?}");
    }
    assert_eq!(store.import_progress("another").await.unwrap(), 0);
}

#[tokio::test]
async fn a_batch_without_progress_is_made_each_time() {
    let (store, _) = in_memory().await;

    for _ in 0..2 {
        assert!(store.import(batch(&["John"], None)).await.unwrap());
    }

    assert_eq!(names(&store).await, ["John", "John"]);
}

#[tokio::test]
async fn a_batch_without_users_moves_its_import_on() {
    let (store, _) = in_memory().await;

    assert!(store.import(batch(&[], Some(("k", 0, 7)))).await.unwrap());

    assert_eq!((names(&store).await.len(), store.import_progress("k").await.unwrap()), (0, 7));
}

#[tokio::test]
async fn a_batch_that_fails_leaves_neither_users_nor_progress() {
    let (store, told) = in_memory().await;
    store.import(batch(&["first"], Some(("k", 0, 1)))).await.unwrap();
    // Two ids are left: the third user of a batch cannot be made.
    let last = "UPDATE sqlite_sequence SET seq = 9223372036854775805 WHERE name = 'users'";
    sqlx::query(last).execute(&store.readers).await.unwrap();

    let failed = store.import(batch(&["a", "b", "c"], Some(("k", 1, 4)))).await;

    assert!(matches!(failed, Err(StoreError::Failed(_))), "{failed:?}");
    assert_eq!(names(&store).await, ["first"]);
    assert_eq!(store.import_progress("k").await.unwrap(), 1);
    assert_eq!(told.all().last().unwrap().users, 1);
    assert!(store.import(batch(&["a", "b"], Some(("k", 1, 3)))).await.unwrap(), "the store goes on");
    assert_eq!(names(&store).await, ["first", "a", "b"]);
}

#[tokio::test]
async fn a_locked_database_fails_the_batch_and_keeps_the_store_usable() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&file_url(&folder)).await;
    let mut other = connect_options(&file_url(&folder)).unwrap().connect().await.unwrap();
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();

    let refused = store.import(batch(&["John"], Some(("k", 0, 1)))).await;
    lock.rollback().await.unwrap();
    let made = store.import(batch(&["John"], Some(("k", 0, 1)))).await;

    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(made.unwrap());
    assert_eq!(names(&store).await, ["John"]);
}

#[tokio::test]
async fn progress_survives_closing_and_opening_again() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&file_url(&folder)).await;
    store.import(batch(&["John"], Some(("k", 0, 2)))).await.unwrap();
    store.close().await;

    let (store, told) = open(&file_url(&folder)).await;

    assert_eq!(store.import_progress("k").await.unwrap(), 2);
    assert_eq!(told.all(), [Committed { created: 0, deleted: 0, users: 1 }]);
}

#[tokio::test]
async fn of_two_stores_that_import_the_same_rows_at_once_one_does() {
    for _ in 0..10 {
        let folder = tempfile::tempdir().unwrap();
        let (one, _) = open(&file_url(&folder)).await;
        let (two, _) = open(&file_url(&folder)).await;

        let rows = || batch(&["a", "b"], Some(("k", 0, 2)));
        let (by_one, by_two) = tokio::join!(one.import(rows()), two.import(rows()));

        assert!(by_one.unwrap() != by_two.unwrap());
        assert_eq!(names(&one).await, ["a", "b"]);
    }
}

#[tokio::test]
async fn writes_and_batches_that_wait_together_are_all_made() {
    let (store, told) = in_memory().await;

    let (before, imported, after) = tokio::join!(
        store.create(new_user("before")),
        store.import(batch(&["a", "b"], Some(("k", 0, 2)))),
        store.create(new_user("after"))
    );

    assert!(before.is_ok() && imported.unwrap() && after.is_ok());
    assert_eq!(told.all().iter().map(|c| c.created).sum::<u64>(), 4);
    assert_eq!(told.all().last().unwrap().users, 4);
}

#[tokio::test]
async fn a_batch_that_nobody_waits_for_any_more_is_not_made() {
    let (store, _) = in_memory().await;
    let abandoned = store.import(batch(&["abandoned"], Some(("k", 0, 1))));
    // One poll queues the batch; the drop abandons it before the writer, on this same thread, could take it.
    assert!(futures_util::FutureExt::now_or_never(abandoned).is_none());

    let kept = store.import(batch(&["kept"], Some(("k", 0, 1)))).await;

    assert!(kept.unwrap());
    assert_eq!(names(&store).await, ["kept"]);
}

#[tokio::test]
async fn closing_makes_the_batch_that_waits_and_refuses_later_ones() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&file_url(&folder)).await;

    // Both wait before the writer, on this same thread, can take either.
    let (reply, closed) = oneshot::channel();
    let last = store.import(batch(&["last"], Some(("k", 0, 1))));
    let (made, sent) = tokio::join!(last, store.writer.send(Command::Close(reply)));

    assert!(made.unwrap() && sent.is_ok());
    closed.await.unwrap();
    assert!(matches!(store.import(batch(&["late"], None)).await, Err(StoreError::Unavailable(_))));
    let (store, _) = open(&file_url(&folder)).await;
    assert_eq!((names(&store).await.len(), store.import_progress("k").await.unwrap()), (1, 1));
}

#[tokio::test]
async fn files_that_are_no_usable_database_are_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let url = |name: &str| format!("sqlite://{}", at(name).display()).parse::<DatabaseUrl>().unwrap();
    std::fs::write(at("text.db"), "this is no database, whatever its name says. ".repeat(100)).unwrap();
    std::fs::create_dir(at("folder.db")).unwrap();
    std::fs::write(at("file"), "").unwrap();
    let (store, _) = open(&url("newer.db")).await;
    store.close().await;
    let mut newer = connect_options(&url("newer.db")).unwrap().connect().await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations VALUES (9999, 'from the future', '', true, x'00', 0)")
        .execute(&mut newer)
        .await
        .unwrap();

    let refused = async |name| SqliteStore::open(&url(name), Arc::new(|_| ())).await.expect_err(name);

    assert!(matches!(refused("text.db").await, OpenError::Corrupt { .. }));
    assert!(matches!(refused("folder.db").await, OpenError::Unreadable { .. }));
    assert!(matches!(refused("file/users.db").await, OpenError::Folder { .. }));
    assert!(matches!(refused("newer.db").await, OpenError::Schema { .. }));
    assert!(refused("text.db").await.to_string().contains("text.db"), "the text names the file");
}
