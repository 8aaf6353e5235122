//! What batch jobs send to a gateway, when they try again, and what they do with its answers.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use futures_util::future::join_all;
use nix::sys::signal::Signal::{SIGHUP, SIGINT, SIGTERM};
use tokio::process::Child;
use tokio::time::Instant;

use crate::gateway::{Gateway, Reply, backup, run, run_with, under, unused_address};
use crate::support::{Process, binary, eventually, finished, in_time};

/// Far beyond [`PATIENCE`](crate::support::PATIENCE): a job that waited for it would fail its test.
const FOREVER: &str = "59m";

const SECRET: &str = "hunter2";

// ---- What is sent ----

#[tokio::test]
async fn a_run_is_pushed_with_post_in_the_text_format_at_its_start_and_at_its_end() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let folder = tempfile::tempdir().unwrap();
    let url = gateway.url();
    let options = ["--pushgateway-url", &url, "--expect-every", "1h"];

    // It ends when its start has arrived.
    let job = Process::spawn(backup(folder.path(), &options, "until [ -e end ]; do sleep 0.02; done; exit 3"));
    let start = gateway.request(1).await;
    std::fs::write(folder.path().join("end"), "").unwrap();
    let end = gateway.request(2).await;
    let code = { job }.exit().await.code();

    assert_eq!(code, Some(3));
    for request in [&start, &end] {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/metrics/job/backup"));
        assert_eq!(request.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
        assert_eq!(request.samples().value("batch_job_expected_interval_seconds", &[]), 3600.0);
    }
    let (start, end) = (start.samples(), end.samples());
    let value = |name: &str| (start.value(name, &[]), end.value(name, &[]));
    assert_eq!(value("batch_job_running"), (1.0, 0.0));
    let (at_start, at_end) = value("batch_job_last_start_timestamp_seconds");
    assert_eq!(at_start, at_end, "one run, one start");
    assert_eq!(end.value("batch_job_last_exit_code", &[]), 3.0);
    assert_eq!(gateway.requests().len(), 2);
}

#[tokio::test]
async fn the_push_of_the_start_can_be_left_out() {
    for (options, environment) in [(&["--no-start-push"][..], &[][..]), (&[], &[("JOB_NO_START_PUSH", "true")])] {
        let gateway = Gateway::answering([Reply::ok()]).await;
        let folder = tempfile::tempdir().unwrap();
        let url = gateway.url();
        let mut job = backup(folder.path(), &[&["--pushgateway-url", &url], options].concat(), "true");
        job.envs(environment.iter().copied());

        finished(job).await;

        let running: Vec<_> =
            gateway.requests().iter().map(|push| push.samples().value("batch_job_running", &[])).collect();
        assert_eq!(running, [0.0], "{options:?} {environment:?}");
    }
}

#[tokio::test]
async fn the_grouping_is_in_the_path_wherever_it_comes_from() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let (database, path) = (("PUSH_GROUPING", "database=a b"), "path=/var");

    run(&gateway.url(), &["--push-grouping", "database=a b", "--push-grouping", path], "true").await;
    run_with(&gateway.url(), &[], &[("PUSH_GROUPING", "path=/var,database=a b")], "true").await;
    run_with(&gateway.url(), &["--push-grouping", path], &[database], "true").await;

    let paths: Vec<_> = gateway.requests().into_iter().map(|request| request.path).collect();
    let both = "/metrics/job/backup/database/a%20b/path@base64/L3Zhcg";
    assert_eq!(paths, [both, both, "/metrics/job/backup/path@base64/L3Zhcg"]);
}

#[tokio::test]
async fn without_a_url_nothing_is_sent_or_spooled() {
    let nobody = Gateway::answering([Reply::ok()]).await;
    let folder = tempfile::tempdir().unwrap();
    let options = ["--spool-dir", "spool", "--fail-on-push-error", "--pushgateway-username", "u"];
    let mut job = backup(folder.path(), &options, "echo 'rows 5' > \"$JOB_METRICS_FILE\"");
    // Whatever was sent to another machine would come here.
    job.envs([("HTTP_PROXY", nobody.url()), ("http_proxy", nobody.url()), ("https_proxy", nobody.url())]);
    job.env("PUSHGATEWAY_PASSWORD", SECRET);

    let output = finished(job).await;

    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert_eq!(nobody.requests().len(), 0);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_proxy_is_passed_by_for_a_gateway_on_this_machine() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let proxy = Gateway::answering([Reply::ok()]).await;
    let proxies = [("HTTP_PROXY", &*proxy.url()), ("http_proxy", &proxy.url()), ("ALL_PROXY", &proxy.url())];

    run_with(&gateway.url(), &[], &proxies, "true").await;

    assert_eq!((gateway.requests().len(), proxy.requests().len()), (1, 0));
}

#[tokio::test]
async fn another_gateway_is_reached_through_the_proxy_of_the_environment() {
    let proxy = Gateway::answering([Reply::ok()]).await;

    // TEST-NET-1 (RFC 5737): nobody's address.
    let ran = run_with("http://192.0.2.1:9091", &[], &[("http_proxy", &proxy.url())], "true").await;

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(proxy.request(1).await.path, "http://192.0.2.1:9091/metrics/job/backup");
}

// ---- The start does not hold up the command ----

#[tokio::test]
async fn the_command_runs_while_the_gateway_leaves_the_start_unanswered() {
    let gateway = Gateway::answering([Reply::Nothing]).await;
    let folder = tempfile::tempdir().unwrap();
    let url = gateway.url();

    let _job = Process::spawn(backup(folder.path(), &["--pushgateway-url", &url], "touch began; sleep 60"));

    gateway.request(1).await;
    eventually("the command", async || folder.path().join("began").exists().then_some(())).await;
    assert_eq!(gateway.requests().len(), 1, "it was not answered");
}

#[tokio::test]
async fn a_start_that_is_never_answered_does_not_cost_the_push_of_the_end() {
    let late = Reply::Late("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned());
    let gateway = Gateway::answering([Reply::Nothing, late]).await;
    let folder = tempfile::tempdir().unwrap();
    let url = gateway.url();
    let options = ["--pushgateway-url", &url, "--push-deadline", "4s"];
    let job = spawned(backup(folder.path(), &options, "until [ -e end ]; do sleep 0.02; done"));
    gateway.request(1).await;

    std::fs::write(folder.path().join("end"), "").unwrap();
    let output = ended(job).await;

    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap().as_str()), (Some(0), ""));
    assert_eq!(gateway.request(2).await.samples().value("batch_job_running", &[]), 0.0);
}

#[tokio::test]
async fn no_zombie_is_left_while_the_wrapper_still_pushes() {
    let gateway = Gateway::answering([Reply::Nothing]).await;
    let folder = tempfile::tempdir().unwrap();
    let url = gateway.url();
    let options = ["--no-start-push", "--pushgateway-url", &url, "--push-deadline", FOREVER];

    let job = Process::spawn(backup(folder.path(), &options, "echo $$ > pid"));
    gateway.request(1).await;

    let pid = std::fs::read_to_string(folder.path().join("pid")).unwrap();
    assert!(!Path::new("/proc").join(pid.trim()).exists(), "the command {pid} is gone");
    assert!(Path::new("/proc").join(job.pid().to_string()).exists(), "the wrapper is not");
}

// ---- Trying again ----

#[tokio::test]
async fn a_push_is_tried_again_when_the_gateway_is_in_trouble() {
    let cases = [
        (Reply::status("500 Internal Server Error"), "500"),
        (Reply::status("502 Bad Gateway"), "502"),
        (Reply::status("503 Service Unavailable"), "503"),
        (Reply::status("504 Gateway Timeout"), "504"),
        (Reply::status("429 Too Many Requests"), "429"),
        (Reply::Reset, "a reset connection"),
        (Reply::Cut(String::new()), "a connection that ends"),
        (Reply::Cut("HTTP/1.1 200".to_owned()), "half a head"),
        (Reply::Whole("what?\r\n\r\n".to_owned()), "no HTTP at all"),
    ];
    for (trouble, reason) in cases {
        let gateway = Gateway::answering([trouble.clone(), trouble, Reply::ok()]).await;

        let ran = run(&gateway.url(), &["--push-deadline", FOREVER], "exit 3").await;

        assert_eq!((ran.code, ran.stderr.as_str()), (Some(3), ""), "{reason}");
        let pushes = gateway.requests();
        assert_eq!(pushes.len(), 3, "{reason}");
        let first = &pushes[0];
        assert!(pushes.iter().all(|push| (&push.path, &push.body) == (&first.path, &first.body)), "{reason}");
    }
}

#[tokio::test]
async fn a_push_is_tried_again_when_nothing_listens_yet() {
    let (_, socket) = unused_address();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    let options = ["--no-start-push", "--pushgateway-url", &url, "--push-deadline", FOREVER];
    let job = spawned(backup(folder.path(), &options, "echo $$ > pid.new; mv pid.new pid"));
    let pid = eventually("the command", async || std::fs::read_to_string(folder.path().join("pid")).ok()).await;
    eventually("its end", async || (!Path::new("/proc").join(pid.trim()).exists()).then_some(())).await;
    // The first try comes at once, so that by the time of a second pause it was refused.
    let began = Instant::now();
    eventually("some pauses", async || (began.elapsed() > Duration::from_millis(400)).then_some(())).await;

    let gateway = Gateway::on(socket.listen(8).unwrap(), [Reply::ok()]);

    let output = ended(job).await;
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert_eq!(gateway.requests().len(), 1);
}

#[tokio::test]
async fn no_try_comes_before_the_moment_that_the_gateway_named() {
    for status in ["503 Service Unavailable", "429 Too Many Requests"] {
        let wait = Reply::with(status, &[("Retry-After", "1")], "");
        let gateway = Gateway::answering([wait, Reply::ok()]).await;

        run(&gateway.url(), &["--push-deadline", FOREVER], "true").await;

        let [first, second] = &gateway.requests()[..] else { panic!("not two requests after {status}") };
        let pause = second.at - first.at;
        assert!(pause >= Duration::from_secs(1), "{status}: the second came after {pause:?}");
    }
}

#[tokio::test]
async fn a_moment_beyond_the_deadline_is_not_waited_for() {
    let gateway = Gateway::answering([Reply::with("503 Service Unavailable", &[("Retry-After", "3600")], "")]).await;

    let ran = run(&gateway.url(), &["--push-deadline", FOREVER], "true").await;

    assert_eq!(ran.code, Some(0));
    assert_eq!(gateway.requests().len(), 1);
    assert_eq!(
        ran.said(),
        ["the outcome of backup could not be pushed and is lost: \
         the gateway answers 503 Service Unavailable"]
    );
}

#[tokio::test]
async fn a_moment_that_makes_no_sense_is_no_obstacle() {
    for nonsense in ["soon", "-1", "0.1", "", "99999999999999999999999999"] {
        let wait = Reply::with("503 Service Unavailable", &[("Retry-After", nonsense)], "");
        let gateway = Gateway::answering([wait, Reply::ok()]).await;

        let ran = run(&gateway.url(), &["--push-deadline", FOREVER], "true").await;

        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{nonsense:?}");
        assert_eq!(gateway.requests().len(), 2, "{nonsense:?}");
    }
}

#[tokio::test]
async fn what_the_gateway_will_not_take_is_not_tried_again_and_its_words_are_said_in_one_line() {
    let body = "inconsistent metrics:\n  rows is a gauge\r\n";
    for status in ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "404 Not Found", "413 Payload Too Large"] {
        let gateway = Gateway::answering([Reply::with(status, &[], body)]).await;

        let ran = run(&gateway.url(), &["--push-deadline", FOREVER], "exit 3").await;

        assert_eq!(ran.code, Some(3), "{status}");
        assert_eq!(gateway.requests().len(), 1, "{status}");
        let lost = format!(
            "the outcome of backup could not be pushed and is lost: the gateway answers {status}: \
             inconsistent metrics:   rows is a gauge"
        );
        assert_eq!(ran.said(), [lost]);
    }
}

// ---- Answers that do not come, or do not end ----

#[tokio::test]
async fn a_gateway_that_never_answers_holds_a_job_until_the_deadline_and_no_longer() {
    let gateway = Gateway::answering([Reply::Nothing]).await;

    let ran = run(&gateway.url(), &["--push-deadline", "2s"], "exit 3").await;

    assert_eq!(ran.code, Some(3));
    assert_eq!(gateway.requests().len(), 1);
    let held = gateway.held().await;
    // Well below the 5 s that one try may take where there is time for more.
    assert!(held < Duration::from_secs(4), "{held:?}");
    let [said] = ran.said()[..] else { panic!("{ran:?}") };
    let lost = "the outcome of backup could not be pushed and is lost: the gateway does not answer within ";
    assert!(said.starts_with(lost), "{said}");
}

#[tokio::test]
async fn an_answer_that_does_not_end_does_no_harm() {
    let more = "x".repeat(100_000);
    let endless = |head: &str| Reply::Endless(format!("HTTP/1.1 {head}"), more.clone());
    let chunks = format!("{:x}\r\n{more}\r\n", more.len());
    let chunked = Reply::Endless("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned(), chunks);
    let headers = Reply::Endless("HTTP/1.1 200 OK\r\n".to_owned(), "X-Header: x\r\n".to_owned());
    let cases = [
        (endless("200 OK\r\n\r\n"), true, FOREVER, "a body after a success"),
        (chunked, true, FOREVER, "in chunks"),
        (endless("500 Oh\r\nRetry-After: 3600\r\n\r\n"), false, FOREVER, "a body after a failure"),
        (endless("400 Bad Request\r\n\r\n"), false, FOREVER, "a body after a refusal"),
        (endless("200 OK\r\nX-Header: "), false, "2s", "a header"),
        (headers, false, "2s", "many headers"),
    ];
    let runs = cases.map(async |(reply, delivered, deadline, reason)| {
        let gateway = Gateway::answering([reply]).await;
        let folder = tempfile::tempdir().unwrap();
        let url = gateway.url();
        let options = ["--no-start-push", "--pushgateway-url", &url, "--push-deadline", deadline];

        let job = spawned(backup(folder.path(), &options, "exit 3"));
        let (peak, output) = tokio::join!(peak_memory_kib(job.id().unwrap()), ended(job));

        assert_eq!(output.status.code(), Some(3), "{reason}");
        assert!(peak < 100_000, "{reason}: {peak} KiB");
        gateway.held().await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(said.is_empty(), delivered, "{reason}: {said}");
        assert!(said.lines().count() <= 1 && said.len() < 1000, "{reason}: {} bytes", said.len());
    });
    join_all(runs).await;
}

#[tokio::test]
async fn nothing_in_an_answer_controls_the_terminal() {
    let body = "\x1b]0;title\x07 \x1b[2J\x08\x7f\u{9b}31m red\r\n\0end";
    let gateway = Gateway::answering([Reply::with("400 Bad Request", &[], body)]).await;

    let ran = run(&gateway.url(), &[], "true").await;

    let [said] = ran.said()[..] else { panic!("{ran:?}") };
    assert!(said.ends_with("end") && said.contains("31m red"), "{said:?}");
    assert!(!said.contains(char::is_control), "{said:?}");
}

#[tokio::test]
async fn a_body_that_is_no_text_is_shown_as_far_as_it_goes() {
    // Raw bytes cannot stand in the script of a reply: Latin-1 in UTF-8 is as wrong for the one who reads it.
    let long = "ä".repeat(10_000);
    let gateway = Gateway::answering([Reply::with("400 Bad Request", &[], &long)]).await;

    let ran = run(&gateway.url(), &[], "true").await;

    let [said] = ran.said()[..] else { panic!("{ran:?}") };
    let shown = said.split("400 Bad Request: ").nth(1).unwrap();
    assert_eq!(shown, format!("{}…", "ä".repeat(500)));
}

// ---- Redirects ----

#[tokio::test]
async fn a_redirect_that_keeps_the_method_is_followed_with_the_whole_push() {
    for status in ["307 Temporary Redirect", "308 Permanent Redirect"] {
        let there = Gateway::answering([Reply::ok()]).await;
        let location = format!("{}/elsewhere", there.url());
        let here = Gateway::answering([Reply::with(status, &[("Location", &location)], "")]).await;

        let ran = run(&here.url(), &[], "true").await;

        assert_eq!(ran.stderr, "", "{status}");
        let (first, [second]) = (here.request(1).await, &there.requests()[..]) else { panic!("not one push there") };
        assert_eq!((second.method.as_str(), second.path.as_str()), ("POST", "/elsewhere"), "{status}");
        assert_eq!(second.body, first.body, "{status}");
        assert_eq!(second.header("content-type"), first.header("content-type"), "{status}");
    }
}

#[tokio::test]
async fn a_redirect_that_would_make_a_get_of_the_push_is_reported_and_not_followed() {
    for status in ["301 Moved Permanently", "302 Found", "303 See Other"] {
        let there = Gateway::answering([Reply::ok()]).await;
        let location = format!("{}/elsewhere?token={SECRET}#{SECRET}", there.url());
        let here = Gateway::answering([Reply::with(status, &[("Location", &location)], "")]).await;

        let ran = run(&here.url(), &["--push-deadline", FOREVER], "exit 3").await;

        assert_eq!((ran.code, here.requests().len(), there.requests().len()), (Some(3), 1, 0), "{status}");
        let expected = format!(
            "the outcome of backup could not be pushed and is lost: the gateway answers {status}: it \
             redirects to {}/elsewhere, which is not followed",
            there.url()
        );
        assert_eq!(ran.said(), [expected]);
    }
}

#[tokio::test]
async fn a_password_in_a_redirect_is_not_repeated() {
    let location = ("Location", "http://u:hunter2@127.0.0.1:1/elsewhere");
    let gateway = Gateway::answering([Reply::with("301 Moved Permanently", &[location], "")]).await;

    let ran = run(&gateway.url(), &[], "true").await;

    assert!(ran.stderr.contains("/elsewhere, which is not followed") && !ran.stderr.contains(SECRET), "{}", ran.stderr);
}

#[tokio::test]
async fn redirects_in_a_circle_come_to_an_end() {
    let gateway = Gateway::answering([Reply::with("307 Temporary Redirect", &[("Location", "/round")], "")]).await;

    let ran = run(&gateway.url(), &["--push-deadline", FOREVER], "exit 3").await;

    assert_eq!(ran.code, Some(3));
    assert!(ran.said()[0].contains("it redirects to /round, which is not followed"), "{}", ran.stderr);
    assert!(gateway.requests().len() < 20, "{}", gateway.requests().len());
}

#[tokio::test]
async fn credentials_do_not_go_along_to_another_host() {
    // The name and the address of one machine are two hosts; so are two ports.
    let there = Gateway::answering([Reply::ok()]).await;
    for (there, host, reason) in [(&there, "127.0.0.1", "another port"), (&there, "localhost", "another name")] {
        let before = there.requests().len();
        let location = format!("http://{host}:{}/", there.address.port());
        for credentials in credentials() {
            let here =
                Gateway::answering([Reply::with("307 Temporary Redirect", &[("Location", &location)], "")]).await;

            let ran = run_with(&here.url(), &[], &credentials.environment, "true").await;

            assert_eq!(ran.stderr, "", "{reason}");
            assert_eq!(here.request(1).await.header("authorization"), credentials.header, "{reason}");
        }
        let delivered = &there.requests()[before..];
        assert_eq!(delivered.len(), 2, "{reason}");
        assert!(delivered.iter().all(|push| !push.headers.contains_key("authorization")), "{reason}");
    }
}

#[tokio::test]
async fn credentials_do_not_go_along_to_another_name_of_the_same_port() {
    let (_, socket) = unused_address();
    let port = socket.local_addr().unwrap().port();
    let location = format!("http://localhost:{port}/");
    let redirect = Reply::with("307 Temporary Redirect", &[("Location", &location)], "");
    let gateway = Gateway::on(socket.listen(8).unwrap(), [redirect, Reply::ok()]);

    run_with(&gateway.url(), &[], &[("PUSHGATEWAY_BEARER_TOKEN", SECRET)], "true").await;

    let authorization: Vec<_> = gateway.requests().iter().map(|push| push.header("authorization").to_owned()).collect();
    assert_eq!(authorization, [format!("Bearer {SECRET}"), String::new()]);
}

#[tokio::test]
async fn credentials_go_along_on_the_same_host() {
    for credentials in credentials() {
        let redirect = Reply::with("308 Permanent Redirect", &[("Location", "/elsewhere")], "");
        let gateway = Gateway::answering([redirect, Reply::ok()]).await;

        run_with(&gateway.url(), &[], &credentials.environment, "true").await;

        let [first, second] = &gateway.requests()[..] else { panic!("not two requests") };
        assert_eq!((first.header("authorization"), second.path.as_str()), (&*credentials.header, "/elsewhere"));
        assert_eq!(second.header("authorization"), credentials.header);
    }
}

// ---- Credentials ----

struct Credentials {
    environment: Vec<(&'static str, &'static str)>,
    header: String,
}

fn credentials() -> [Credentials; 2] {
    let basic = BASE64_STANDARD.encode(format!("backup:{SECRET}"));
    [
        Credentials {
            environment: vec![("PUSHGATEWAY_USERNAME", "backup"), ("PUSHGATEWAY_PASSWORD", SECRET)],
            header: format!("Basic {basic}"),
        },
        Credentials { environment: vec![("PUSHGATEWAY_BEARER_TOKEN", SECRET)], header: format!("Bearer {SECRET}") },
    ]
}

#[tokio::test]
async fn credentials_come_from_the_environment_or_from_files() {
    let basic = |password: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("backup:{password}")));
    let folder = tempfile::tempdir().unwrap();
    let (password, token) = (folder.path().join("password"), folder.path().join("token"));
    std::fs::write(&password, "from a file: äöü\r\n").unwrap();
    std::fs::write(&token, "from-a-file\n").unwrap();
    let (password, token) = (password.to_str().unwrap(), token.to_str().unwrap());
    let user = ("PUSHGATEWAY_USERNAME", "backup");
    let by_flag = ["--pushgateway-username", "backup", "--pushgateway-password-file", password];
    let cases = [
        (&[][..], vec![user, ("PUSHGATEWAY_PASSWORD", "a:b c")], basic("a:b c")),
        (&[], vec![("PUSHGATEWAY_BEARER_TOKEN", "a.b-c")], "Bearer a.b-c".to_owned()),
        (&[], vec![user, ("PUSHGATEWAY_PASSWORD_FILE", password)], basic("from a file: äöü")),
        (&by_flag, vec![], basic("from a file: äöü")),
        (&[], vec![("PUSHGATEWAY_BEARER_TOKEN_FILE", token)], "Bearer from-a-file".to_owned()),
        (&["--pushgateway-bearer-token-file", token], vec![], "Bearer from-a-file".to_owned()),
        (&[], vec![("PUSHGATEWAY_PASSWORD", ""), ("PUSHGATEWAY_USERNAME", "")], String::new()),
        // A flag wins over the environment, also where they are two ways to log in.
        (&by_flag, vec![("PUSHGATEWAY_BEARER_TOKEN", "token")], basic("from a file: äöü")),
        (&by_flag, vec![("PUSHGATEWAY_PASSWORD", "another")], basic("from a file: äöü")),
        (
            &["--pushgateway-bearer-token-file", token],
            vec![user, ("PUSHGATEWAY_PASSWORD", "another")],
            "Bearer from-a-file".to_owned(),
        ),
    ];
    for (options, environment, header) in cases {
        let gateway = Gateway::answering([Reply::ok()]).await;

        let ran = run_with(&gateway.url(), options, &environment, "true").await;

        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{options:?} {environment:?}");
        assert_eq!(gateway.request(1).await.header("authorization"), header, "{options:?} {environment:?}");
    }
}

#[tokio::test]
async fn a_service_takes_up_a_token_that_was_rotated() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "old").unwrap();
    let _service = Process::spawn(serve(folder.path(), &gateway.url(), &["--pushgateway-bearer-token-file", "token"]));
    assert_eq!(gateway.request(1).await.header("authorization"), "Bearer old");

    std::fs::write(folder.path().join("next"), "new\n").unwrap();
    std::fs::rename(folder.path().join("next"), &token).unwrap();

    let last = || gateway.requests().pop().unwrap().header("authorization").to_owned();
    eventually("the new token", async || (last() == "Bearer new").then_some(())).await;
}

#[tokio::test]
async fn a_service_whose_token_is_gone_pushes_nothing_without_it_and_lives_on() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "old").unwrap();
    let mut service =
        Process::spawn(serve(folder.path(), &gateway.url(), &["--pushgateway-bearer-token-file", "token"]));
    gateway.request(1).await;

    std::fs::remove_file(&token).unwrap();
    let warning = service.line("cannot push the metrics").await;
    service.signal(SIGTERM);

    assert_eq!(service.exit().await.code(), Some(0));
    assert!(warning.contains("the bearer token in token cannot be used: No such file or directory"), "{warning}");
    assert!(gateway.requests().iter().all(|push| push.header("authorization") == "Bearer old"));
}

/// The entries that wait in a folder.
fn waiting(spool: &Path) -> usize {
    let Ok(files) = std::fs::read_dir(spool) else { return 0 };
    files.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|end| end == "json")).count()
}

#[tokio::test]
async fn a_password_token_or_ca_file_that_cannot_be_used_stops_no_command_and_the_push_waits() {
    let files = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = files.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (empty, blank, lines) = (file("empty", b""), file("blank", b"\n"), file("lines", b"a\nb\n"));
    let (bytes, none) = (file("bytes", b"\xff"), file("none.pem", b"-----BEGIN CERTIFICATE-----\naGVsbG8=\n"));
    let pipe = files.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    let folder = files.path().to_str().unwrap();
    let missing = "/nonexistent/secret";
    let password = |path| vec!["--pushgateway-username", "u", "--pushgateway-password-file", path];
    let token = |path| vec!["--pushgateway-bearer-token-file", path];
    let ca = |path| vec!["--ca-file", path];
    let of = |what: &str, path: &str, reason: &str| format!("the {what} {path} cannot be used: {reason}");
    let cases = [
        (password(missing), of("password in", missing, "No such file or directory")),
        (password(&empty), of("password in", &empty, "it is empty")),
        (password(folder), of("password in", folder, "Is a directory")),
        (password(pipe), of("password in", pipe, "it is not a plain file")),
        (password(&bytes), of("password in", &bytes, "it is not UTF-8")),
        (vec!["--pushgateway-username", "u"], "the password cannot be used: it is empty or not given".to_owned()),
        (token(missing), of("bearer token in", missing, "No such file or directory")),
        (token(&blank), of("bearer token in", &blank, "it is empty")),
        (token(&lines), of("bearer token in", &lines, "it holds control characters")),
        (token("/dev/zero"), of("bearer token in", "/dev/zero", "it is not a plain file")),
        (ca(missing), of("CA file", missing, "the file cannot be read: No such file or directory")),
        (ca(&empty), of("CA file", &empty, "the file holds no certificate in PEM form")),
        (ca(folder), of("CA file", folder, "the file cannot be read: Is a directory")),
        (ca(pipe), of("CA file", pipe, "the file cannot be read: it is not a plain file")),
        (ca(&none), of("CA file", &none, "the file is not PEM, or holds something that is not a certificate")),
    ];
    for (options, reason) in cases {
        let gateway = Gateway::answering([Reply::ok()]).await;
        let spool = ["--spool-dir", "spool"];

        // From the start's push on.
        let ran = run(&gateway.url(), &[&options[..], &spool].concat(), "touch ran; exit 3").await;
        let unspooled = run(&gateway.url(), &options, "touch ran").await;

        assert_eq!(ran.code, Some(3), "{options:?}: {ran:?}");
        assert!(ran.folder.path().join("ran").exists(), "{options:?}");
        let [said] = ran.said()[..] else { panic!("{options:?}: {ran:?}") };
        assert!(said.starts_with("the outcome of backup waits in spool") && said.contains(&reason), "{said}");
        assert_eq!(waiting(&ran.folder.path().join("spool")), 1, "{options:?}");
        assert_eq!(unspooled.code, Some(0), "{options:?}: {unspooled:?}");
        let [said] = unspooled.said()[..] else { panic!("{options:?}: {unspooled:?}") };
        assert!(said.starts_with("the outcome of backup could not be pushed") && said.contains(&reason), "{said}");
        assert_eq!(gateway.requests().len(), 0, "{options:?}: nothing goes out without it");
    }
}

#[tokio::test]
async fn what_a_push_lacks_stops_no_import() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    for options in [["--pushgateway-bearer-token-file", "missing"], ["--ca-file", "missing"]] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("users.csv"), "name,email\nAda,ada@example.com\n").unwrap();
        let mut import = binary(folder.path());
        import.args(["import", "users.csv", "--pushgateway-url", &gateway.url(), "--spool-dir", "spool"]).args(options);

        let output = finished(import).await;

        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{options:?}: {stderr}");
        assert!(stdout.starts_with("imported 1 rows"), "{options:?}: {stdout}");
        assert!(stderr.contains("missing cannot be used: "), "{options:?}: {stderr}");
        assert!(waiting(&folder.path().join("spool")) > 0, "{options:?}: {stderr}");
    }
    assert_eq!(gateway.requests().len(), 0);
}

#[tokio::test]
async fn a_secret_that_comes_while_the_command_runs_is_used() {
    let gateway = Gateway::answering([Reply::ok()]).await;

    let options = ["--pushgateway-bearer-token-file", "token"];
    let ran = run(&gateway.url(), &options, "echo rotated > token").await;

    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""));
    assert_eq!(gateway.request(1).await.header("authorization"), "Bearer rotated");
}

#[tokio::test]
async fn what_waits_for_a_secret_is_delivered_once_it_is_there() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let url = gateway.url();
    let options = ["--pushgateway-bearer-token-file", "token", "--spool-dir", "spool"];
    let ran = run(&url, &options, "exit 3").await;
    let (folder, spool) = (ran.folder.path(), ran.folder.path().join("spool"));
    let flush = || {
        let mut flush = binary(folder);
        flush.args(["job", "--flush", "--pushgateway-url", &url]).args(options);
        finished(flush)
    };

    let without = flush().await;
    let waited = waiting(&spool);
    std::fs::write(folder.join("token"), "back").unwrap();
    let with = flush().await;

    let said = String::from_utf8_lossy(&without.stderr);
    assert_eq!((without.status.code(), waited), (Some(1), 1), "{said}");
    assert!(said.contains("the bearer token in token cannot be used: No such file or directory"), "{said}");
    assert_eq!(with.status.code(), Some(0), "{with:?}");
    assert_eq!(waiting(&spool), 0);
    assert_eq!(gateway.request(1).await.header("authorization"), "Bearer back");
}

#[tokio::test]
async fn a_job_takes_files_whose_names_are_no_utf8() {
    let gateway = Gateway::answering([Reply::ok()]).await;
    let (url, away) = (gateway.url(), unused_address());
    let names = ["metrics", "spool", "token"].map(|name| OsString::from_vec([name.as_bytes(), b"\xff"].concat()));
    let [metrics, spool, token] = &names;
    for (url, delivered) in [(url.clone(), true), (format!("http://{}", away.0), false)] {
        for variables in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join(token), "s3cret").unwrap();
            let mut job = binary(folder.path());
            let deadline = if delivered { FOREVER } else { "100ms" };
            job.args(["job", "--name", "backup", "--no-start-push", "--push-deadline", deadline]);
            job.args(["--pushgateway-url", &url]);
            let settings = [
                ("--metrics-file", "JOB_METRICS_FILE", metrics),
                ("--spool-dir", "PUSH_SPOOL_DIR", spool),
                ("--pushgateway-bearer-token-file", "PUSHGATEWAY_BEARER_TOKEN_FILE", token),
            ];
            for (flag, variable, path) in settings {
                if variables {
                    job.env(variable, path)
                } else {
                    job.arg(flag).arg(path)
                };
            }
            job.args(["--", "sh", "-c", "echo rows 5 > \"$JOB_METRICS_FILE\"; exit 3"]);

            let output = finished(job).await;

            assert_eq!(output.status.code(), Some(3), "{output:?}");
            assert_eq!(waiting(&folder.path().join(spool)), if delivered { 0 } else { 2 }, "{output:?}");
        }
    }
    let requests = gateway.requests();
    assert_eq!(requests.len(), 4, "the outcome and the command's own, twice");
    assert!(requests.iter().all(|push| push.header("authorization") == "Bearer s3cret"));
    assert_eq!(requests[1].samples().value("rows", &[]), 5.0);
}

// ---- A gateway under a path ----

#[tokio::test]
async fn a_base_path_stands_before_the_paths_of_pushes_and_of_the_listing() {
    for base in ["/pushgateway", "/pushgateway/", "/team/a%20b//"] {
        let gateway = Gateway::answering([Reply::status("503 Service Unavailable"), Reply::ok()]).await;
        let path = base.trim_end_matches('/');

        // The second try asks first what there is.
        let ran = run(&format!("{}{base}", gateway.url()), &[], "true").await;

        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{base}");
        let paths: Vec<_> = gateway.requests().into_iter().map(|request| request.path).collect();
        let push = format!("{path}/metrics/job/backup");
        assert_eq!(paths, [push.clone(), push]);
        assert_eq!(gateway.listed(), [format!("{path}/api/v1/metrics")]);
    }
}

#[tokio::test]
async fn what_waits_for_a_gateway_under_a_path_waits_for_no_other_of_that_host() {
    let gateway = Gateway::answering([Reply::status("401 Unauthorized"), Reply::ok()]).await;
    let ran = run(&format!("{}/a/", gateway.url()), &["--spool-dir", "spool"], "true").await;
    let flush = |base: &str| {
        let mut flush = binary(ran.folder.path());
        flush.args([
            "job",
            "--flush",
            "--spool-dir",
            "spool",
            "--pushgateway-url",
            &format!("{}{base}", gateway.url()),
        ]);
        finished(flush)
    };

    for other in ["", "/b", "/a/a"] {
        let left = flush(other).await;
        assert_eq!(left.status.code(), Some(1), "{other}: {left:?}");
    }
    let delivered = flush("/a").await;

    assert_eq!(delivered.status.code(), Some(0), "{delivered:?}");
    assert_eq!(gateway.requests().len(), 2);
}

#[tokio::test]
async fn no_secret_is_printed_logged_or_spooled() {
    for credentials in credentials() {
        let encoded = credentials.header.split(' ').nth(1).unwrap();
        let is_clean = |text: &str| !text.contains(SECRET) && !text.contains(encoded);
        for reply in [Reply::status("401 Unauthorized"), away()] {
            let gateway = Gateway::answering([reply]).await;
            let options = ["--spool-dir", "spool", "--push-deadline", FOREVER];

            let ran = run_with(&gateway.url(), &options, &credentials.environment, "true").await;

            assert_eq!(gateway.request(1).await.header("authorization"), credentials.header);
            assert!(!ran.stderr.is_empty() && is_clean(&ran.stderr), "{}", ran.stderr);
            let spooled = files(&ran.folder.path().join("spool"));
            assert!(!spooled.is_empty() && spooled.iter().all(|(_, text)| is_clean(text)), "{spooled:?}");
        }
        let gateway = Gateway::answering([Reply::status("500 Internal Server Error")]).await;
        let folder = tempfile::tempdir().unwrap();
        let mut service = serve(folder.path(), &gateway.url(), &["--log", "trace"]);
        let service = Process::spawn({
            service.envs(credentials.environment.iter().copied());
            service
        });
        gateway.request(2).await;
        service.line("cannot push the metrics").await;
        let log = service.lines().join("\n");
        assert!(is_clean(&log), "{log}");
    }
}

#[tokio::test]
async fn an_answer_that_repeats_the_request_gives_no_credentials_away() {
    for credentials in credentials() {
        let encoded = credentials.header.split(' ').nth(1).unwrap();
        let backwards: String = encoded.chars().rev().collect();
        let spelled: String = SECRET.chars().map(|c| format!("&#x{:x};", u32::from(c))).collect();
        let is_clean = |text: &str| {
            [SECRET, encoded, &backwards, &spelled, &SECRET[..4]].iter().all(|secret| !text.contains(secret))
        };
        let pages = [
            format!("You sent Authorization: {}", credentials.header),
            format!("token=hunter%32 {SECRET}"),
            backwards.clone(),
            spelled.clone(),
            // Cut in the middle by what is shown of a page, and by what is read of it.
            format!("{}{}", "x ".repeat(248), credentials.header),
            format!("{}{encoded}", "-".repeat(500 - 4)),
        ];
        for page in &pages {
            for status in ["400 Bad Request", "401 Unauthorized", "403 Forbidden", "407 Proxy", "500 Oh"] {
                let reply = Reply::with(status, &[("Retry-After", "3600")], page);
                let gateway = Gateway::answering([reply]).await;

                let ran = run_with(&gateway.url(), &[], &credentials.environment, "true").await;

                let [said] = ran.said()[..] else { panic!("{ran:?}") };
                assert!(said.contains(&status[..3]) && is_clean(said), "{page}: {said}");
            }
        }
        let leads = format!("/login/{SECRET}/{encoded}");
        let gateway = Gateway::answering([Reply::with("302 Found", &[("Location", &leads)], "")]).await;
        let ran = run_with(&gateway.url(), &[], &credentials.environment, "true").await;
        assert!(ran.stderr.contains("it redirects, which is not followed") && is_clean(&ran.stderr), "{}", ran.stderr);

        let gateway = Gateway::answering([Reply::with("500 Oh", &[], &pages[0])]).await;
        let folder = tempfile::tempdir().unwrap();
        let mut service = serve(folder.path(), &gateway.url(), &["--log", "trace"]);
        service.envs(credentials.environment.iter().copied());
        let service = Process::spawn(service);
        service.line("cannot push the metrics").await;
        let log = service.lines().join("\n");
        assert!(is_clean(&log), "{log}");
    }
}

#[tokio::test]
async fn an_answer_without_the_credentials_is_shown_also_where_some_were_sent() {
    let gateway = Gateway::answering([Reply::with("400 Bad Request", &[], "rows is a gauge")]).await;

    for credentials in credentials() {
        let ran = run_with(&gateway.url(), &[], &credentials.environment, "true").await;

        assert!(ran.said()[0].ends_with("400 Bad Request: rows is a gauge"), "{}", ran.stderr);
    }
}

// ---- The exit code ----

#[tokio::test]
async fn a_push_that_fails_does_not_change_the_exit_code() {
    let refusing = Gateway::answering([Reply::status("400 Bad Request")]).await;
    let (nobody, _kept) = unused_address();
    for url in [refusing.url(), format!("http://{nobody}")] {
        for code in [0, 1, 3, 125, 255] {
            let ran = run(&url, &["--push-deadline", "100ms"], &format!("exit {code}")).await;

            assert_eq!(ran.code, Some(code), "{url}: {}", ran.stderr);
            assert_eq!(ran.said().len(), 1, "{url}: {}", ran.stderr);
        }
    }
}

#[tokio::test]
async fn a_lost_push_makes_a_good_run_fail_where_that_is_asked_for() {
    let taking = Gateway::answering([Reply::ok()]).await;
    let refusing = Gateway::answering([Reply::status("400 Bad Request")]).await;
    let away = Gateway::answering([away()]).await;
    let spool = ["--spool-dir", "spool"];
    let broken = "echo rows > \"$JOB_METRICS_FILE\"";
    let cases = [
        (&taking, &[][..], "true", 0, "delivered"),
        (&refusing, &[], "true", 125, "refused"),
        (&away, &[], "true", 125, "not answered in time"),
        (&away, &[], "exit 3", 3, "the command's own failure comes first"),
        (&away, &spool, "true", 0, "spooled"),
        (&refusing, &spool, "true", 125, "what is refused is not spooled"),
        (&away, &["--spool-dir", "/dev/null/spool"], "true", 125, "a spool that cannot be used"),
        (&taking, &[], broken, 125, "metrics of its own that are no metrics"),
    ];
    for (gateway, options, script, code, reason) in cases {
        let options = [options, &["--push-deadline", FOREVER]].concat();

        let by_flag = run(&gateway.url(), &[&options[..], &["--fail-on-push-error"]].concat(), script).await;
        let by_variable = run_with(&gateway.url(), &options, &[("FAIL_ON_PUSH_ERROR", "true")], script).await;

        assert_eq!((by_flag.code, by_variable.code), (Some(code), Some(code)), "{reason}: {}", by_flag.stderr);
    }
}

// ---- The spool folder ----

#[tokio::test]
async fn what_the_gateway_does_not_take_in_time_waits_in_the_spool() {
    let gateway = Gateway::answering([away()]).await;
    let options = ["--spool-dir", "deep/spool", "--push-deadline", FOREVER];

    let ran = run(&gateway.url(), &options, "echo 'rows 5' > \"$JOB_METRICS_FILE\"; exit 3").await;

    assert_eq!(ran.code, Some(3));
    let waits = |what| {
        format!(
            "the {what} of backup waits in deep/spool until the gateway takes it: \
             the gateway answers 503 Service Unavailable: later"
        )
    };
    let [outcome, own] = ran.said()[..] else { panic!("{ran:?}") };
    assert_eq!(outcome, waits("outcome"));
    assert!(own.starts_with("what backup says of itself waits in deep/spool "), "{own}");
    assert_eq!(files(&ran.folder.path().join("deep/spool")).len(), 2);
}

#[tokio::test]
async fn a_login_that_is_refused_is_spooled_and_a_refused_push_is_not() {
    let cases = [("401 Unauthorized", 1), ("403 Forbidden", 1), ("404 Not Found", 1), ("400 Bad Request", 0)];
    for (status, spooled) in cases {
        let gateway = Gateway::answering([Reply::status(status)]).await;

        let ran = run(&gateway.url(), &["--spool-dir", "spool"], "true").await;

        assert_eq!(gateway.requests().len(), 1, "{status}");
        assert_eq!(files(&ran.folder.path().join("spool")).len(), spooled, "{status}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn a_spool_folder_that_cannot_be_made_is_said_and_done_without() {
    let taking = Gateway::answering([Reply::ok()]).await;
    let away = Gateway::answering([away()]).await;
    let unusable = "the spool folder /dev/null/spool cannot be created: Not a directory (os error 20)";
    let lost = "the outcome of backup could not be pushed and is lost: \
                the gateway answers 503 Service Unavailable: later";
    for (gateway, said, reason) in
        [(&taking, &[unusable][..], "it is not needed"), (&away, &[unusable, lost], "it is needed")]
    {
        let options = ["--spool-dir", "/dev/null/spool", "--push-deadline", FOREVER];

        let ran = run(&gateway.url(), &options, "exit 3").await;

        assert_eq!(ran.code, Some(3), "{reason}");
        assert_eq!(ran.said(), said, "{reason}");
    }
}

#[tokio::test]
async fn a_full_spool_folder_is_said_and_nothing_half_written_is_left() {
    let gateway = Gateway::answering([away()]).await;
    let folder = tempfile::tempdir().unwrap();
    let url = gateway.url();
    let options = ["--no-start-push", "--pushgateway-url", &url, "--push-deadline", FOREVER, "--spool-dir", "spool"];
    // With this limit, whatever is written to a file fails, as on a full disk.
    let job = under("trap '' XFSZ; ulimit -f 0; exec \"$@\"", &backup(folder.path(), &options, "exit 3"));

    let output = finished(job).await;

    assert_eq!(output.status.code(), Some(3));
    let said = String::from_utf8(output.stderr).unwrap();
    let expected = "api-monitoring: the outcome of backup could not be pushed and is lost: the gateway \
                    answers 503 Service Unavailable: later; and the spool folder spool cannot be written: File too large";
    assert!(said.starts_with(expected) && said.lines().count() == 1, "{said}");
    assert_eq!(files(&folder.path().join("spool")), []);
}

#[tokio::test]
async fn a_push_that_is_tried_again_leaves_out_what_a_later_run_has_pushed_meanwhile() {
    let gateway = Gateway::answering([Reply::status("503 Service Unavailable"), Reply::ok()]).await;
    let family = |value: &str| {
        format!(r#"{{"time_stamp":"2999-01-01T00:00:00Z","metrics":[{{"labels":{{}},"value":"{value}"}}]}}"#)
    };
    // Of a run in the far future, which failed: it tells of no success.
    let (start, code) = (family("9e9"), family("1"));
    gateway.hold(&format!(
        r#"{{"labels":{{"job":"backup"}},"batch_job_last_start_timestamp_seconds":{start},"batch_job_last_exit_code":{code}}}"#
    ));

    let ran = run(&gateway.url(), &["--push-deadline", FOREVER], "exit 0").await;

    assert_eq!((ran.code, ran.said()), (Some(0), vec![]));
    let requests = gateway.requests();
    let [first, second] = &requests[..] else { panic!("{requests:?}") };
    let left_out = ["batch_job_last_exit_code", "batch_job_last_start_timestamp_seconds"];
    let mut expected = first.families();
    expected.retain(|family| !left_out.contains(family));
    assert_eq!(second.families(), expected);
    assert!(expected.contains(&"batch_job_last_success_timestamp_seconds"), "{expected:?}");
}

// ---- Signals during the push of the end ----

#[tokio::test]
async fn a_signal_ends_the_tries_and_the_push_is_spooled() {
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let gateway = Gateway::answering([Reply::status("503 Service Unavailable")]).await;
        let folder = tempfile::tempdir().unwrap();
        let mut job = Process::spawn(pushing_for_ever(folder.path(), &gateway, "exit 3"));
        gateway.request(2).await;

        job.signal(signal);

        assert_eq!(job.exit().await.code(), Some(3), "{signal}");
        assert_eq!(files(&folder.path().join("spool")).len(), 1, "{signal}: {:?}", job.lines());
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_tries_where_the_first_ended_the_command() {
    let gateway = Gateway::answering([Reply::status("503 Service Unavailable")]).await;
    let folder = tempfile::tempdir().unwrap();
    let script = "trap 'exit 4' TERM; touch ready; while :; do sleep 0.02; done";
    let mut job = Process::spawn(pushing_for_ever(folder.path(), &gateway, script));
    eventually("the command", async || folder.path().join("ready").exists().then_some(())).await;
    job.signal(SIGTERM);
    gateway.request(2).await;

    job.signal(SIGTERM);

    assert_eq!(job.exit().await.code(), Some(4));
    assert_eq!(files(&folder.path().join("spool")).len(), 1, "{:?}", job.lines());
}

#[tokio::test]
async fn a_signal_does_not_wait_for_a_gateway_that_never_answers() {
    let gateway = Gateway::answering([Reply::Nothing]).await;
    let folder = tempfile::tempdir().unwrap();
    let mut job = Process::spawn(pushing_for_ever(folder.path(), &gateway, "exit 3"));
    gateway.request(1).await;

    job.signal(SIGTERM);
    let status = job.exit().await;

    let held = gateway.held().await;
    assert_eq!(status.code(), Some(3));
    assert_eq!(files(&folder.path().join("spool")).len(), 1, "{:?}", job.lines());
    // Well below the 5 s that a try may take.
    assert!(held < Duration::from_secs(4), "{held:?}");
}

// ---- Helpers ----

/// What a gateway answers that is away for longer than any deadline: nothing is tried again, however slow this machine
/// is at the moment.
fn away() -> Reply {
    Reply::with("503 Service Unavailable", &[("Retry-After", "3600")], "later")
}

/// A job that pushes only at its end, and tries for ever.
fn pushing_for_ever(folder: &Path, gateway: &Gateway, script: &str) -> Command {
    let url = gateway.url();
    let options = ["--no-start-push", "--pushgateway-url", &url, "--push-deadline", FOREVER, "--spool-dir", "spool"];
    backup(folder, &options, script)
}

/// A service that pushes ten times a second.
fn serve(folder: &Path, url: &str, options: &[&str]) -> Command {
    let mut service = binary(folder);
    service.args(["serve", "--listen", "127.0.0.1:0", "--log-format", "json"]);
    service.args(["--pushgateway-url", url, "--push-interval", "100ms"]).args(options);
    service
}

/// The files of a folder with their text; that by which processes take turns is none.
fn files(folder: &Path) -> Vec<(String, String)> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let files = entries.map(|entry| entry.unwrap().path()).filter(|path| !path.ends_with(".lock"));
    let read = |path: std::path::PathBuf| (path.display().to_string(), std::fs::read_to_string(path).unwrap());
    files.map(read).collect()
}

/// A process whose stderr is kept until its end; killed when that does not come.
fn spawned(command: Command) -> Child {
    let mut command = tokio::process::Command::from(command);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap()
}

async fn ended(child: Child) -> Output {
    in_time("the end of the process", child.wait_with_output()).await.unwrap()
}

/// Waits for the end of a process, and gives the most memory that it held.
async fn peak_memory_kib(pid: u32) -> u64 {
    let mut peak = 0;
    eventually("the end of the process", || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        // One that has ended has no memory.
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.map(|line| line.split_whitespace().next().unwrap().parse().unwrap());
        peak = now.unwrap_or(peak);
        std::future::ready(now.is_none().then_some(()))
    })
    .await;
    peak
}
