//! What waits in the spool: when it is there, who delivers it, and what cannot hold it up.

use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex};

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::needs;
use crate::runs::{Jobs, Run, Shown, TO_THE_SPOOL, WITH_SPOOL, found};
use crate::servers::Place;
use crate::servers::pushgateway::Pushgateway;
use crate::servers::{PUSHGATEWAY, Test};
use crate::support::{Process, client, eventually};

pub fn tests() -> Vec<Test> {
    vec![
        needs!(
            [PUSHGATEWAY],
            of_two_runs_the_newest_value_of_every_family_wins_at_a_gateway_that_does_not_know_the_job
        ),
        needs!([PUSHGATEWAY], with_a_gateway_that_hangs_kill_9_loses_no_outcome),
        needs!([PUSHGATEWAY], an_outcome_is_in_the_spool_before_the_starts_push_is_given_up),
        needs!([PUSHGATEWAY], a_push_that_is_being_tried_is_left_to_its_own_process),
        needs!([PUSHGATEWAY], a_push_that_is_refused_or_slow_holds_up_no_other_group),
        needs!([PUSHGATEWAY], a_job_that_is_refused_itself_delivers_what_waits_for_others),
        needs!([PUSHGATEWAY], entries_of_the_version_before_are_delivered),
        needs!([PUSHGATEWAY], what_is_no_plain_file_in_the_spool_is_left_and_holds_nothing_up),
        needs!([PUSHGATEWAY], a_lock_that_is_no_plain_file_holds_nothing_up),
    ]
}

async fn of_two_runs_the_newest_value_of_every_family_wins_at_a_gateway_that_does_not_know_the_job(
    [tool]: [PathBuf; 1],
) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let rounds = 0..12;
    for round in rounds.clone() {
        let job = format!("round {round}");
        jobs.run(&job, TO_THE_SPOOL, "printf 'rows 1\\nextra 1\\n' > $JOB_METRICS_FILE; exit 3").await;
        jobs.run(&job, TO_THE_SPOOL, "printf 'rows 2\\n' > $JOB_METRICS_FILE; exit 4").await;
    }
    let gateway = Pushgateway::start_at(&tool, place).await;

    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    for round in rounds {
        let group = gateway.group(&[("job", &format!("round {round}"))]).await;
        let values = ["rows", "extra"].map(|name| found(&group, name, &[]));
        assert_eq!(values, [Some(2.0), Some(1.0)], "round {round}: {flushed:?}");
        assert_eq!(Shown::in_group(&group).exit_code, Some(4.0), "round {round}");
    }
}

/// What a [`Proxy`] does with the pushes into a group.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Passed,
    Refused,
    Unanswered,
}

/// Stands before a gateway and decides by the job what becomes of a push. It ends with this.
struct Proxy {
    /// The job of each push that came, in its order.
    seen: Arc<Mutex<Vec<String>>>,
    _serving: JoinSet<()>,
}

impl Proxy {
    /// Listens at a place, where another one may just have ended; without a gateway, nothing is ever passed on.
    async fn at(place: &Place, gateway: Option<&Pushgateway>, fate: fn(&str) -> Fate) -> Self {
        let listener = eventually("the place", async || {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(place.address.parse().unwrap()).ok()?;
            socket.listen(64).ok()
        })
        .await;
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut serving = JoinSet::new();
        serving.spawn(Self::serve(listener, Arc::clone(&seen), gateway.map(|gateway| gateway.url("")), fate));
        Self { seen, _serving: serving }
    }

    async fn serve(
        listener: TcpListener,
        seen: Arc<Mutex<Vec<String>>>,
        gateway: Option<String>,
        fate: fn(&str) -> Fate,
    ) {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let (seen, gateway) = (Arc::clone(&seen), gateway.clone());
            connections.spawn(async move { Self::talk(stream, &seen, gateway.as_deref(), fate).await });
        }
    }

    /// Answers one request, and ends the connection.
    async fn talk(
        stream: TcpStream,
        seen: &Mutex<Vec<String>>,
        gateway: Option<&str>,
        fate: fn(&str) -> Fate,
    ) -> Option<()> {
        let mut stream = BufReader::new(stream);
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.is_empty()) {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            lines.push(line.trim_end().to_owned());
        }
        let length =
            lines.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        stream.read_exact(&mut body).await.ok()?;
        let (method, path) = lines[0].strip_suffix(" HTTP/1.1")?.split_once(' ')?;
        let job = path.strip_prefix("/metrics/job/").map(str::to_owned);
        seen.lock().unwrap().extend(job.clone());
        let fate = job.map_or(Fate::Passed, |job| fate(&job));
        let (status, answer) = match (fate, gateway) {
            (Fate::Unanswered, _) | (_, None) => std::future::pending().await,
            (Fate::Refused, _) => (403, "not you".into()),
            (Fate::Passed, Some(gateway)) => {
                let request = client().request(method.parse().unwrap(), format!("{gateway}{path}")).body(body);
                let answer = request.send().await.ok()?;
                (answer.status().as_u16(), answer.bytes().await.ok()?)
            }
        };
        let head = format!("HTTP/1.1 {status} -\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(&answer).await.ok()
    }

    fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn with_a_gateway_that_hangs_kill_9_loses_no_outcome([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let hanging = Proxy::at(&place, None, |_| Fate::Unanswered).await;
    let flags = ["--spool-dir", "spool", "--push-deadline", "1h", "--no-start-push"];
    let names: Vec<_> = (0..10).map(|index| format!("job{index}")).collect();
    let started = names.iter().map(|name| (name, Process::spawn(jobs.job(name, &flags, "exit 3"))));

    for (name, mut job) in started.collect::<Vec<_>>() {
        eventually("the push of the end", async || hanging.seen().contains(name).then_some(())).await;
        job.signal(Signal::SIGKILL);
        job.exit().await;
    }
    drop(hanging);
    let gateway = eventually_at(&tool, place).await;
    let flushed = jobs.flush().await;

    assert_eq!(flushed.code, Some(0), "{flushed:?}");
    for name in names {
        assert_eq!(Shown::of(&gateway, &name).await.exit_code, Some(3.0), "{name}: {flushed:?}");
    }
}

/// Starts a gateway where a [`Proxy`] has just ended.
async fn eventually_at(tool: &std::path::Path, place: Place) -> Pushgateway {
    eventually("the proxy's end", async || TcpStream::connect(&place.address).await.is_err().then_some(())).await;
    Pushgateway::start_at(tool, place).await
}

async fn an_outcome_is_in_the_spool_before_the_starts_push_is_given_up([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    let hanging = Proxy::at(&place, None, |_| Fate::Unanswered).await;
    let flags = ["--spool-dir", "spool", "--push-deadline", "1h"];
    let mut job = Process::spawn(jobs.job("backup", &flags, "until [ -e go ]; do sleep 0.01; done; exit 3"));
    eventually("the push of the start", async || (hanging.seen().len() == 1).then_some(())).await;

    jobs.write("go", "");
    eventually("the outcome", async || (jobs.waiting().len() == 1).then_some(())).await;
    job.signal(Signal::SIGKILL);
    job.exit().await;

    assert_eq!(hanging.seen().len(), 1, "the start's push was still under way");
    drop(hanging);
    let gateway = eventually_at(&tool, place).await;
    jobs.flush().await;
    assert_eq!(Shown::of(&gateway, "backup").await.exit_code, Some(3.0));
}

async fn a_push_that_is_being_tried_is_left_to_its_own_process([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(place.url(""));
    jobs.run("slow", TO_THE_SPOOL, "exit 2").await;
    jobs.run("other", TO_THE_SPOOL, "exit 3").await;
    let proxy =
        Proxy::at(&place, Some(&gateway), |job| if job == "slow" { Fate::Unanswered } else { Fate::Passed }).await;
    let flags = ["--spool-dir", "spool", "--push-deadline", "1h", "--no-start-push"];
    let mut job = Process::spawn(jobs.job("slow", &flags, "exit 4"));
    eventually("the push of the end", async || proxy.seen().contains(&"slow".to_owned()).then_some(())).await;
    let tried = proxy.seen().len();

    let flushed = jobs.run("other", WITH_SPOOL, "exit 5").await;

    assert_eq!(
        (flushed.code, flushed.said.as_str()),
        (Some(5), "api-monitoring: dropped 1 push in spool: the gateway has newer values\n")
    );
    assert_eq!(proxy.seen()[tried..].iter().filter(|job| *job == "slow").count(), 0);
    assert_eq!(jobs.waiting().len(), 2);
    // Killed, it tries no more, and what it leaves is anybody's.
    job.signal(Signal::SIGKILL);
    job.exit().await;
    drop(proxy);
    let _open = Proxy::at(&place, Some(&gateway), |_| Fate::Passed).await;
    let flushed = jobs.flush().await;
    assert_eq!((flushed.code, jobs.waiting().len()), (Some(0), 0), "{flushed:?}");
    assert_eq!(Shown::of(&gateway, "slow").await.exit_code, Some(4.0));
}

async fn a_push_that_is_refused_or_slow_holds_up_no_other_group([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(place.url(""));
    // The oldest ones are in trouble; the first group has two pushes.
    for (job, script) in
        [("refused", "exit 0"), ("refused", "exit 4"), ("slow", "exit 5"), ("a", "exit 6"), ("b", "exit 7")]
    {
        jobs.run(job, TO_THE_SPOOL, script).await;
    }
    assert_eq!(jobs.waiting().len(), 5);
    let proxy = Proxy::at(&place, Some(&gateway), |job| match job {
        "refused" => Fate::Refused,
        "slow" => Fate::Unanswered,
        _ => Fate::Passed,
    })
    .await;

    let flush = jobs.command("job", &["--flush", "--spool-dir", "spool", "--push-deadline", "2s"]);
    let flushed = Run::of(flush).await;

    assert_eq!(flushed.code, Some(1), "{flushed:?}");
    let said: Vec<_> = flushed.said.lines().collect();
    let [delivered, refused, slow] = said[..] else { panic!("{flushed:?}") };
    assert_eq!(delivered, "api-monitoring: delivered 2 pushes that waited in spool");
    let beginning = "api-monitoring: left 2 pushes of {job=\"refused\"} in spool: the gateway answers 403 ";
    assert!(refused.starts_with(beginning) && refused.ends_with(": not you"), "{flushed:?}");
    assert!(slow.starts_with("api-monitoring: left 1 push of {job=\"slow\"} in spool: "), "{flushed:?}");
    for (job, exit_code) in [("refused", None), ("slow", None), ("a", Some(6.0)), ("b", Some(7.0))] {
        assert_eq!(Shown::of(&gateway, job).await.exit_code, exit_code, "{job}");
    }
    assert_eq!(jobs.waiting().len(), 3, "they stay");
    assert_eq!(proxy.seen().iter().filter(|job| *job == "refused").count(), 1, "none after the first that is refused");

    drop(proxy);
    let _open = Proxy::at(&place, Some(&gateway), |_| Fate::Passed).await;
    let flushed = jobs.flush().await;

    assert_eq!((flushed.code, jobs.waiting().len()), (Some(0), 0), "{flushed:?}");
    let shown = Shown::of(&gateway, "refused").await;
    assert_eq!((shown.exit_code, shown.success.is_some()), (Some(4.0), true), "the newest of each family");
    assert_eq!(Shown::of(&gateway, "slow").await.exit_code, Some(5.0));
}

async fn a_job_that_is_refused_itself_delivers_what_waits_for_others([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(place.url(""));
    jobs.run("other", TO_THE_SPOOL, "exit 6").await;
    let proxy =
        Proxy::at(&place, Some(&gateway), |job| if job == "refused" { Fate::Refused } else { Fate::Passed }).await;

    let run = jobs.run("refused", &[WITH_SPOOL, &["--no-start-push"]].concat(), "exit 4").await;

    assert_eq!(run.code, Some(4));
    let said: Vec<_> = run.said.lines().collect();
    let [waits, delivered] = said[..] else { panic!("{run:?}") };
    assert!(waits.starts_with("api-monitoring: the outcome of refused waits in spool until"), "{run:?}");
    assert_eq!(delivered, "api-monitoring: delivered 1 push that waited in spool");
    assert_eq!(Shown::of(&gateway, "other").await.exit_code, Some(6.0));
    assert_eq!((proxy.seen().len(), jobs.waiting().len()), (2, 1), "what was just refused is not tried once more");
}

async fn entries_of_the_version_before_are_delivered([tool]: [PathBuf; 1]) {
    let gateway = Pushgateway::start(&tool).await;
    let jobs = Jobs::at(gateway.url(""));
    std::fs::create_dir(jobs.path("spool")).unwrap();
    let url = gateway.url("/");
    for (name, moment, text) in [
        ("00000000000010.500000-0123456789ab-aaaaaa", 10.5, "# TYPE rows gauge\\nrows 1\\nextra 1\\n"),
        ("00000000000012.500000-0123456789ab-cccccc", 12.5, "# TYPE rows gauge\\nrows 2\\nlater 1 1700000000000\\n"),
        ("00000000000012.500000-0123456789ab-bbbbbb", 12.5, "# TYPE code gauge\\ncode 3\\n"),
    ] {
        let entry = format!(
            r#"{{"version":1,"gateway":"{url}","job":"backup","labels":{{"zone":"a"}},"moment":{moment},"moments":[],"text":"{text}"}}"#
        );
        jobs.write(&format!("spool/{name}.json"), &entry);
    }

    let flushed = jobs.flush().await;

    let group = gateway.group(&[("job", "backup"), ("zone", "a")]).await;
    let values = ["rows", "extra", "code"].map(|name| found(&group, name, &[]));
    assert_eq!(values, [Some(2.0), Some(1.0), Some(3.0)], "{flushed:?}");
    // What that version would not have let through is told, and kept to be looked at.
    assert_eq!(flushed.code, Some(1), "{flushed:?}");
    assert!(flushed.said.contains("line 3: later has a timestamp"), "{flushed:?}");
    assert_eq!((jobs.set_aside().len(), jobs.waiting().len()), (1, 0));
}

/// Makes what a folder may hold beside plain files, and gives the names.
fn no_plain_files(jobs: &Jobs) -> BTreeSet<String> {
    let path = |name: &str| jobs.path(&format!("spool/{name}.json"));
    assert!(Command::new("mkfifo").arg(path("0-fifo")).status().unwrap().success());
    std::fs::create_dir(path("1-folder")).unwrap();
    drop(UnixListener::bind(path("2-socket")).unwrap());
    std::os::unix::fs::symlink("nowhere", path("3-nowhere")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", path("4-device")).unwrap();
    let large = std::fs::File::create(path("5-large")).unwrap();
    large.set_len(1 << 40).unwrap();
    ["0-fifo", "1-folder", "2-socket", "3-nowhere", "4-device", "5-large"].map(|name| format!("{name}.json")).into()
}

async fn what_is_no_plain_file_in_the_spool_is_left_and_holds_nothing_up([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    for (job, script) in [("waiting", "exit 3"), ("also waiting", "exit 4")] {
        jobs.run(job, TO_THE_SPOOL, script).await;
    }
    let names = no_plain_files(&jobs);
    let gateway = Pushgateway::start_at(&tool, place).await;

    let run = jobs.run("backup", WITH_SPOOL, "exit 5").await;
    let flushed = jobs.flush().await;

    assert_eq!((run.code, flushed.code), (Some(5), Some(1)), "{run:?} {flushed:?}");
    assert!(run.said.contains("delivered 2 pushes that waited in spool"), "{run:?}");
    for name in &names {
        let left = format!("api-monitoring: left spool/{name}: it is ");
        assert!(flushed.said.contains(&left), "{name}: {flushed:?}");
    }
    let left: BTreeSet<_> =
        jobs.waiting().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert_eq!(left, names);
    for (job, exit_code) in [("waiting", 3.0), ("also waiting", 4.0), ("backup", 5.0)] {
        assert_eq!(Shown::of(&gateway, job).await.exit_code, Some(exit_code), "{job}");
    }
}

async fn a_lock_that_is_no_plain_file_holds_nothing_up([tool]: [PathBuf; 1]) {
    let place = Place::reserve();
    let jobs = Jobs::at(place.url(""));
    jobs.run("waiting", TO_THE_SPOOL, "exit 3").await;
    std::fs::remove_file(jobs.path("spool/.lock")).unwrap_or_default();
    assert!(Command::new("mkfifo").arg(jobs.path("spool/.lock")).status().unwrap().success());
    let gateway = Pushgateway::start_at(&tool, place).await;

    let run = jobs.run("backup", WITH_SPOOL, "exit 5").await;
    let flushed = jobs.flush().await;

    assert_eq!((run.code, flushed.code), (Some(5), Some(1)), "{run:?} {flushed:?}");
    for said in [&run.said, &flushed.said] {
        assert!(said.starts_with("api-monitoring: the spool folder spool cannot be locked: "), "{said}");
    }
    assert_eq!(Shown::of(&gateway, "backup").await.exit_code, Some(5.0));
    std::fs::remove_file(jobs.path("spool/.lock")).unwrap();
    jobs.flush().await;
    assert_eq!(Shown::of(&gateway, "waiting").await.exit_code, Some(3.0));
}
