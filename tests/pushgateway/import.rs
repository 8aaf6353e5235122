//! `import`, which pushes about itself as `job` does about a command.

use std::path::PathBuf;
use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use crate::needs;
use crate::runs::{Jobs, Run, Shown, TO_THE_SPOOL, now};
use crate::servers::Place;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PUSHGATEWAY, Test};
use crate::support::{Samples, in_time};

pub fn tests() -> Vec<Test> {
    vec![
        needs!([PUSHGATEWAY], an_import_pushes_what_became_of_its_rows),
        needs!([PUSHGATEWAY], a_failed_import_keeps_the_last_success_and_tells_how_far_it_got),
        needs!([PUSHGATEWAY], an_import_whose_rows_are_all_rejected_pushes_no_success),
        needs!([PUSHGATEWAY], an_import_is_seen_while_it_runs),
        needs!([PUSHGATEWAY], an_import_that_waited_is_delivered_by_a_flush),
    ]
}

const USERS: &str = "name,email\nAda,ada@example.com\nno address,nowhere\n\"Łukasz, jr\",l@example.com\n\
                     ,nobody@example.com\nGrace,grace@example.com\n";

/// Rows by what became of them: imported, rejected, skipped.
fn rows(group: &Samples) -> [f64; 3] {
    ["imported", "rejected", "skipped"].map(|result| group.value("import_rows_total", &[("result", result)]))
}

async fn an_import_pushes_what_became_of_its_rows([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    jobs.write("users.csv", USERS);
    let before = now();

    let run = Run::of(jobs.command("import", &["users.csv", "--rejects", "rejects", "--expect-every", "24h"])).await;

    let after = now();
    assert_eq!((run.code, run.said.as_str()), (Some(0), ""), "{run:?}");
    assert!(run.stdout.starts_with("imported 3 rows, rejected 2, skipped 0 ("), "{run:?}");
    let group = gateway.group(&[("job", "import-users")]).await;
    assert_eq!(rows(&group), [3.0, 2.0, 0.0]);
    let shown = Shown::in_group(&group);
    assert_eq!((shown.exit_code, shown.running, shown.success), (Some(0.0), Some(0.0), shown.end));
    assert_eq!(shown.expected_interval, Some(86400.0));
    let (start, end) = (shown.start.unwrap(), shown.end.unwrap());
    assert!(before <= start && start <= end && end <= after, "{shown:?}");
    let duration = shown.duration.unwrap();
    assert!(duration > 0.0 && (duration - (end - start)).abs() < 1.0, "{shown:?}");
    assert!(shown.memory > Some(1e6) && shown.user_cpu.is_some() && shown.system_cpu.is_some(), "{shown:?}");

    // The next run of the same file has nothing left to do, which is a success too.
    let again = Run::of(jobs.command("import", &["users.csv"])).await;

    assert_eq!(again.code, Some(0), "{again:?}");
    let group = gateway.group(&[("job", "import-users")]).await;
    assert_eq!(rows(&group), [0.0, 0.0, 5.0]);
    assert!(Shown::in_group(&group).success > shown.success, "{group}");
}

async fn a_failed_import_keeps_the_last_success_and_tells_how_far_it_got([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    jobs.write("good.csv", "name,email\nAda,ada@example.com\n");
    jobs.write("bad.csv", USERS);
    let push = ["--push-job", "users", "--push-grouping", "source=crm/eu", "--max-errors", "1"];
    let group = [("job", "users"), ("source", "crm/eu")];
    assert_eq!(Run::of(jobs.command("import", &[&["good.csv"], &push[..]].concat())).await.code, Some(0));
    let good = Shown::in_group(&gateway.group(&group).await);

    let failed = Run::of(jobs.command("import", &[&["bad.csv"], &push[..]].concat())).await;

    assert_eq!(failed.code, Some(1), "{failed:?}");
    let group = gateway.group(&group).await;
    let shown = Shown::in_group(&group);
    assert_eq!((shown.exit_code, shown.running), (Some(1.0), Some(0.0)));
    assert_eq!((good.success, shown.success), (good.end, good.end));
    assert!(shown.start > good.end, "{shown:?}");
    // What was said is what is pushed.
    let [imported, rejected, skipped] = rows(&group);
    let outcome =
        format!("imported {imported} rows, rejected {rejected}, skipped {skipped}, and did not get to the end");
    assert!(failed.stdout.starts_with(&outcome), "{failed:?}");
}

async fn an_import_whose_rows_are_all_rejected_pushes_no_success([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    jobs.write("users.csv", "name,email\nno address,nowhere\n,nobody@example.com\n");

    // The second run is the scheduler's, which tries again.
    for _ in 0..2 {
        let run = Run::of(jobs.command("import", &["users.csv"])).await;

        assert_eq!(run.code, Some(1), "{run:?}");
        assert!(run.stdout.starts_with("imported 0 rows, rejected 2, skipped 0 ("), "{run:?}");
        let group = gateway.group(&[("job", "import-users")]).await;
        assert_eq!(rows(&group), [0.0, 2.0, 0.0]);
        let shown = Shown::in_group(&group);
        assert_eq!((shown.exit_code, shown.running, shown.success), (Some(1.0), Some(0.0), None));
    }
}

async fn an_import_is_seen_while_it_runs([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    let mut command = tokio::process::Command::from(jobs.command("import", &["-", "--format", "csv"]));
    let mut import = command.stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let mut input = import.stdin.take().unwrap();
    input.write_all(b"name,email\nAda,ada@example.com\n").await.unwrap();

    let during = Shown::running(&gateway, "import-users").await;
    drop(input);

    assert!(in_time("the import", import.wait()).await.unwrap().success());
    let group = gateway.group(&[("job", "import-users")]).await;
    let after = Shown::in_group(&group);
    assert_eq!((during.end, during.success), (None, None));
    assert_eq!((after.running, after.start, after.success), (Some(0.0), during.start, after.end));
    assert_eq!(rows(&group), [1.0, 0.0, 0.0]);
}

async fn an_import_that_waited_is_delivered_by_a_flush([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    jobs.write("users.csv", USERS);
    let run = Run::of(jobs.command("import", &[&["users.csv", "--rejects", "rejects"], TO_THE_SPOOL].concat())).await;
    assert_eq!((run.code, jobs.waiting().len()), (Some(0), 2), "{run:?}");
    let imported = now();
    let gateway = Pushgateway::start_at(&tool, place).await;

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    let group = gateway.group(&[("job", "import-users")]).await;
    assert_eq!(rows(&group), [3.0, 2.0, 0.0]);
    let shown = Shown::in_group(&group);
    assert_eq!((shown.exit_code, shown.success), (Some(0.0), shown.end));
    assert!(shown.end.is_some() && shown.end < Some(imported), "{shown:?}");
}
