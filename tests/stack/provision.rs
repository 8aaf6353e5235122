//! What deploy/provision/provision.sh does, run by real shells against a Grafana on loopback that answers as told, with
//! a `terraform` that writes down how it is called and does as told.
//!
//! That real Terraform does the right thing when it is called so is not shown here.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::needs;
use crate::project::root;
use crate::servers::{BASE64, Place, Test, WGET};
use crate::support::eventually;

pub fn tests() -> Vec<Test> {
    vec![
        needs!([WGET, BASE64], provisioning_applies_once_grafana_answers),
        needs!([WGET, BASE64], provisioning_gives_up_on_a_grafana_that_does_not_answer),
        needs!([WGET, BASE64], provisioning_gives_up_on_a_grafana_that_never_gets_well),
        needs!([WGET, BASE64], a_refused_password_ends_provisioning_before_grafana_locks_its_user_out),
        needs!([WGET, BASE64], a_refused_token_ends_provisioning),
        needs!([WGET, BASE64], a_user_without_rights_ends_provisioning),
        needs!([WGET, BASE64], an_address_with_401_in_it_is_no_refusal),
        needs!([WGET, BASE64], the_password_is_taken_from_the_environment_or_from_a_file),
        needs!([WGET, BASE64], a_token_is_taken_before_a_password),
        needs!([WGET, BASE64], wrong_settings_end_provisioning_with_what_is_wrong),
        needs!([WGET, BASE64], what_grafana_has_and_the_state_lacks_is_taken_over),
        needs!([WGET, BASE64], what_the_state_has_is_not_taken_over),
        needs!([WGET, BASE64], a_failed_import_is_shown_and_tried_again),
        needs!([WGET, BASE64], a_failed_apply_is_tried_again),
        needs!([WGET, BASE64], an_apply_that_never_succeeds_fails_visibly),
        needs!([WGET, BASE64], provisioning_stays_and_ends_well_when_it_is_told_to),
        needs!([WGET, BASE64], what_ends_before_it_was_done_has_failed),
        needs!([WGET, BASE64], a_plan_ends_as_terraform_does),
        needs!([WGET, BASE64], destroying_removes_and_says_so),
        needs!([WGET, BASE64], every_shell_does_the_same),
    ]
}

/// With everything in it that a shell could stumble over, and so long that base64 breaks its line.
const PASSWORD: &str = r#"p%s w"o'r\d$HOME`ü*-------------------------------------------------------------------"#;

/// Names and values of the environment.
type Settings = &'static [(&'static str, &'static str)];

const APPLY: &str = "apply -input=false -auto-approve -no-color";

// ---- Waiting for Grafana ----

async fn provisioning_applies_once_grafana_answers(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(|asked| match asked {
        Asked { path: "/api/health", before: 0, .. } | Asked { path: "/api/org", before: 0, .. } => 503,
        asked => healthy(asked),
    })
    .await;
    let stage = Stage::new(&grafana.url(), &tools);

    let ended = stage.provision(&["apply"]).ended().await;

    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.lines[0], format!("provision: waiting for Grafana at {}", grafana.url()), "{ended:?}");
    assert_eq!(
        ended.last(),
        format!(
            "provision: done: data sources, folder and dashboards are in Grafana, {}/d/api-monitoring",
            grafana.url()
        )
    );
    assert_eq!(stage.calls(), ["state list", APPLY]);
    assert!(!stage.marker().exists(), "it is for --stay");
}

async fn provisioning_gives_up_on_a_grafana_that_does_not_answer(tools: [PathBuf; 2]) {
    let nobody = Place::reserve();
    let stage = Stage::new(&nobody.url(""), &tools);

    let ended = stage.provision_with(&["apply"], &[("PROVISION_TIMEOUT_SECONDS", "1")]).ended().await;

    assert_eq!(ended.code, 1, "{ended:?}");
    let expected = format!("provision: failed: Grafana at {} does not answer within 1 s: ", nobody.url(""));
    let reason = ended.last().strip_prefix(&expected).unwrap_or_else(|| panic!("{ended:?}"));
    assert!(reason.to_lowercase().contains("connection refused"), "wget's own reason: {reason:?}");
    assert_eq!(stage.calls(), [""; 0]);
}

async fn provisioning_gives_up_on_a_grafana_that_never_gets_well(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(|asked| if asked.path == "/api/health" { 200 } else { 503 }).await;
    let stage = Stage::new(&grafana.url(), &tools);

    let ended = stage.provision_with(&["apply"], &[("PROVISION_TIMEOUT_SECONDS", "1")]).ended().await;

    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.last().starts_with("provision: failed: Grafana at "), "{ended:?}");
    assert!(ended.last().contains("503"), "{ended:?}");
    assert_eq!(stage.calls(), [""; 0]);
}

// ---- Who applies ----

async fn a_refused_password_ends_provisioning_before_grafana_locks_its_user_out(tools: [PathBuf; 2]) {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let grafana = Grafana::start(|asked| if asked.path == "/api/health" { 200 } else { 401 }).await;
    let stage = Stage::new(&grafana.url(), &tools);

    let ended = stage.provision(&["apply", "--stay"]).ended().await;

    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.last().contains("refuses the password of admin (401)"), "{ended:?}");
    assert!(ended.last().contains("see README.md, \"Provisioning failed\""), "{ended:?}");
    assert!(readme.contains("\n### Provisioning failed\n"), "the section that it names");
    // After five mistakes Grafana lets that user in no more, not even with the right password.
    assert_eq!(grafana.authorizations(), [basic("admin", PASSWORD)]);
    assert_eq!(stage.calls(), [""; 0]);
    assert!(!stage.marker().exists());
}

async fn a_refused_token_ends_provisioning(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(|asked| if asked.path == "/api/health" { 200 } else { 401 }).await;
    let stage = Stage::new(&grafana.url(), &tools);

    let ended = stage.provision_with(&["plan"], &[("GRAFANA_TOKEN", "glsa_old")]).ended().await;

    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.last().contains("refuses the token of GRAFANA_TOKEN (401)"), "{ended:?}");
    assert!(!ended.text().contains("glsa_old"), "{ended:?}");
}

async fn a_user_without_rights_ends_provisioning(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(|asked| if asked.path == "/api/health" { 200 } else { 403 }).await;
    let stage = Stage::new(&grafana.url(), &tools);

    let ended = stage.provision(&["destroy"]).ended().await;

    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.last().ends_with("(403); an administrator is needed"), "{ended:?}");
    assert_eq!(grafana.authorizations().len(), 1);
}

async fn an_address_with_401_in_it_is_no_refusal(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(|asked| match asked {
        Asked { path: "/401/api/org", before: 0, .. } => 503,
        Asked { path, .. } if path.starts_with("/401/") => healthy(Asked { path: &path[4..], ..asked }),
        _ => 404,
    })
    .await;
    let stage = Stage::new(&format!("{}/401/", grafana.url()), &tools);

    let ended = stage.provision(&["apply"]).ended().await;

    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(stage.calls(), ["state list", APPLY]);
}

async fn the_password_is_taken_from_the_environment_or_from_a_file(tools: [PathBuf; 2]) {
    const CASES: [(&str, Settings, &str); 4] = [
        ("the environment", &[], "admin"),
        ("another user", &[("GRAFANA_ADMIN_USER", "operator")], "operator"),
        ("a file", &[("GRAFANA_ADMIN_PASSWORD", ""), ("GRAFANA_ADMIN_PASSWORD_FILE", "password")], "admin"),
        ("an empty name of a file", &[("GRAFANA_ADMIN_PASSWORD_FILE", "")], "admin"),
    ];
    for (reason, settings, user) in CASES {
        let grafana = Grafana::start(healthy).await;
        let stage = Stage::new(&grafana.url(), &tools);
        std::fs::write(stage.scratch.path().join("password"), format!("{PASSWORD}\n")).unwrap();

        let ended = stage.provision_with(&["apply"], settings).ended().await;

        assert_eq!(ended.code, 0, "{reason}: {ended:?}");
        assert_eq!(stage.auth(), format!("{user}:{PASSWORD}"), "{reason}");
        let authorizations = grafana.authorizations();
        assert!(authorizations.iter().all(|given| *given == basic(user, PASSWORD)), "{reason}: {authorizations:?}");
        assert_eq!(authorizations.len(), 4, "{reason}: the organisation, the folder and two data sources");
    }
}

async fn a_token_is_taken_before_a_password(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(healthy).await;
    let stage = Stage::new(&grafana.url(), &tools);

    let ended = stage.provision_with(&["apply"], &[("GRAFANA_TOKEN", "glsa_t0ken")]).ended().await;

    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(!ended.text().contains("glsa_t0ken"), "{ended:?}");
    assert_eq!(stage.auth(), "glsa_t0ken");
    assert!(
        grafana.authorizations().iter().all(|given| given == "Bearer glsa_t0ken"),
        "{:?}",
        grafana.authorizations()
    );
}

async fn wrong_settings_end_provisioning_with_what_is_wrong(tools: [PathBuf; 2]) {
    const CASES: [(&str, &str, Settings, &str); 7] = [
        (
            "two passwords",
            "apply",
            &[("GRAFANA_ADMIN_PASSWORD_FILE", "/nowhere")],
            "both GRAFANA_ADMIN_PASSWORD and GRAFANA_ADMIN_PASSWORD_FILE are set",
        ),
        ("no password", "apply", &[("GRAFANA_ADMIN_PASSWORD", "")], "no password: set GRAFANA_ADMIN_PASSWORD or "),
        (
            "a file that is not there",
            "apply",
            &[("GRAFANA_ADMIN_PASSWORD", ""), ("GRAFANA_ADMIN_PASSWORD_FILE", "/nowhere")],
            "GRAFANA_ADMIN_PASSWORD_FILE, /nowhere, cannot be read by user ",
        ),
        (
            // As root every file can be read.
            "a folder in place of a file",
            "apply",
            &[("GRAFANA_ADMIN_PASSWORD", ""), ("GRAFANA_ADMIN_PASSWORD_FILE", "/")],
            "GRAFANA_ADMIN_PASSWORD_FILE, /, cannot be read by user ",
        ),
        (
            "an empty file",
            "apply",
            &[("GRAFANA_ADMIN_PASSWORD", ""), ("GRAFANA_ADMIN_PASSWORD_FILE", "/dev/null")],
            "no password: set ",
        ),
        (
            "no number",
            "apply",
            &[("PROVISION_TIMEOUT_SECONDS", "3m")],
            "PROVISION_TIMEOUT_SECONDS is \"3m\", expected a number of seconds",
        ),
        ("no command", "aply", &[], "\"aply\" is no command; expected apply, plan or destroy"),
    ];
    let grafana = Grafana::start(healthy).await;
    for (reason, argument, settings, expected) in CASES {
        let stage = Stage::new(&grafana.url(), &tools);

        let ended = stage.provision_with(&[argument], settings).ended().await;

        assert_eq!(ended.code, 1, "{reason}: {ended:?}");
        let said = ended.last().strip_prefix("provision: failed: ").unwrap_or_else(|| panic!("{reason}: {ended:?}"));
        assert!(said.starts_with(expected), "{reason}: {ended:?}");
        assert_eq!(stage.calls(), [""; 0], "{reason}");
    }
    assert_eq!(grafana.authorizations(), [""; 0]);
}

// ---- A lost state ----

async fn what_grafana_has_and_the_state_lacks_is_taken_over(tools: [PathBuf; 2]) {
    const CASES: [(&str, Settings, [&str; 3]); 2] = [
        ("as they are called by default", &[], ["api-monitoring-folder", "prometheus", "alertmanager"]),
        (
            "called otherwise",
            &[
                ("TF_VAR_folder_uid", "folder-2"),
                ("TF_VAR_prometheus_uid", "prometheus-2"),
                ("TF_VAR_alertmanager_uid", "alertmanager-2"),
            ],
            ["folder-2", "prometheus-2", "alertmanager-2"],
        ),
    ];
    for (reason, settings, [folder, prometheus, alertmanager]) in CASES {
        let there = [
            format!("/api/folders/{folder}"),
            format!("/api/datasources/uid/{prometheus}"),
            format!("/api/datasources/uid/{alertmanager}"),
        ];
        let grafana =
            Grafana::start(move |asked| if there.iter().any(|path| path == asked.path) { 200 } else { healthy(asked) })
                .await;
        let stage = Stage::new(&grafana.url(), &tools);
        stage.tell("state", "echo 'No state file was found!' >&2; exit 1");

        let ended = stage.provision_with(&["apply"], settings).ended().await;

        assert_eq!(ended.code, 0, "{reason}: {ended:?}");
        let import = "import -input=false -no-color";
        let expected = [
            "state list".to_owned(),
            format!("{import} grafana_folder.this {folder}"),
            format!("{import} grafana_data_source.prometheus {prometheus}"),
            format!("{import} grafana_data_source.alertmanager[\"this\"] {alertmanager}"),
            APPLY.to_owned(),
        ];
        assert_eq!(stage.calls(), expected, "{reason}");
        assert_eq!(
            ended.lines[0], "provision: grafana_folder.this is in Grafana already, and is taken over",
            "{reason}"
        );
    }
}

async fn what_the_state_has_is_not_taken_over(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(|_| 200).await;
    let stage = Stage::new(&grafana.url(), &tools);
    // The folder's permissions are not the folder.
    stage.tell(
        "state",
        r#"printf '%s\n' grafana_data_source.prometheus 'grafana_data_source.alertmanager["this"]' grafana_folder_permission.this"#,
    );

    let ended = stage.provision(&["apply"]).ended().await;

    assert_eq!(ended.code, 0, "{ended:?}");
    let expected = ["state list", "import -input=false -no-color grafana_folder.this api-monitoring-folder", APPLY];
    assert_eq!(stage.calls(), expected);
}

async fn a_failed_import_is_shown_and_tried_again(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(|_| 200).await;
    let stage = Stage::new(&grafana.url(), &tools);
    stage.tell("import", r#"[ "$(count)" -gt 1 ] || { echo 'Error: status 503'; exit 1; }"#);

    let ended = stage.provision(&["apply"]).ended().await;

    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.lines.iter().any(|line| line == "Error: status 503"), "{ended:?}");
    assert!(ended.lines.iter().any(|line| line == "provision: trying again in 2 s"), "{ended:?}");
    let calls = stage.calls();
    assert_eq!(calls.iter().filter(|call| call.starts_with("import")).count(), 4, "{calls:?}");
    assert_eq!(calls.iter().filter(|call| *call == APPLY).count(), 1, "{calls:?}");
}

// ---- Failures on the way ----

async fn a_failed_apply_is_tried_again(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(healthy).await;
    let stage = Stage::new(&grafana.url(), &tools);
    stage.tell("apply", r#"[ "$(count)" -gt 1 ] || { echo 'Error: status 503' >&2; exit 1; }"#);

    let ended = stage.provision(&["apply"]).ended().await;

    assert_eq!(ended.code, 0, "{ended:?}");
    assert_eq!(ended.lines[..2], ["Error: status 503", "provision: trying again in 2 s"]);
    assert_eq!(stage.calls(), ["state list", APPLY, "state list", APPLY]);
}

async fn an_apply_that_never_succeeds_fails_visibly(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(healthy).await;
    let stage = Stage::new(&grafana.url(), &tools);
    stage.tell("apply", "echo 'Error: data source with the same name already exists' >&2; exit 1");

    let settings = [("PROVISION_TIMEOUT_SECONDS", "4")];
    let ended = stage.provision_with(&["apply", "--stay"], &settings).ended().await;

    assert_eq!(ended.code, 1, "{ended:?}");
    assert_eq!(ended.last(), "provision: failed: Terraform could not apply; its error stands above");
    let above = &ended.lines[ended.lines.len() - 2];
    assert_eq!(above, "Error: data source with the same name already exists");
    assert!(stage.calls().iter().filter(|call| *call == APPLY).count() > 1, "{ended:?}");
    assert!(!stage.marker().exists(), "that would be healthy");
}

// ---- Staying and ending ----

async fn provisioning_stays_and_ends_well_when_it_is_told_to(tools: [PathBuf; 2]) {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let grafana = Grafana::start(healthy).await;
        let stage = Stage::new(&grafana.url(), &tools);
        // What an earlier run has left says nothing about this one.
        std::fs::write(stage.marker(), "").unwrap();
        let gone = stage.told.path().join("gone");
        stage.tell("apply", "[ -e \"$TMPDIR/provisioned\" ] || touch \"$TOLD/gone\"");

        let mut provision =
            stage.provision_with(&["apply", "--stay"], &[("TF_VAR_grafana_public_url", "http://localhost:3000/")]);
        provision.line("provision: done").await;
        eventually("the marker", async || stage.marker().exists().then_some(())).await;
        assert_eq!(provision.child.try_wait().unwrap(), None, "it stays");
        provision.signal(signal);
        let ended = provision.ended().await;

        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.last().ends_with("in Grafana, http://localhost:3000/d/api-monitoring"), "{ended:?}");
        assert!(gone.exists(), "the marker was there while it applied");
    }
}

async fn what_ends_before_it_was_done_has_failed(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(|_| 200).await;
    for subcommand in ["import", "apply"] {
        let stage = Stage::new(&grafana.url(), &tools);
        let [begun, saved] = ["begun", "saved"].map(|file| stage.told.path().join(file));
        // Terraform ends what it has begun, and keeps its state.
        stage.tell(
            subcommand,
            "trap 'touch \"$TOLD/saved\"; exit 1' TERM; touch \"$TOLD/begun\"; while :; do sleep 0.05; done",
        );

        let provision = stage.provision(&["apply", "--stay"]);
        eventually("Terraform's start", async || begun.exists().then_some(())).await;
        provision.signal(Signal::SIGTERM);
        let ended = provision.ended().await;

        assert_eq!((ended.code, ended.last()), (1, "provision: ended before it was done"), "{subcommand}: {ended:?}");
        assert!(saved.exists(), "{subcommand}: Terraform was not told to end, or not waited for");
    }

    let nobody = Place::reserve();
    let stage = Stage::new(&nobody.url(""), &tools);
    let provision = stage.provision(&["apply"]);
    provision.line("waiting for Grafana").await;
    provision.signal(Signal::SIGTERM);
    let ended = provision.ended().await;

    assert_eq!((ended.code, ended.last()), (1, "provision: ended before it was done"), "{ended:?}");
}

// ---- The other commands ----

async fn a_plan_ends_as_terraform_does(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(healthy).await;
    for code in [0, 1, 2] {
        let stage = Stage::new(&grafana.url(), &tools);
        stage.tell("plan", &format!("exit {code}"));

        let ended = stage.provision(&["plan"]).ended().await;

        assert_eq!(ended.code, code, "{ended:?}");
        assert_eq!(stage.calls(), ["plan -input=false -no-color -detailed-exitcode"]);
    }
}

async fn destroying_removes_and_says_so(tools: [PathBuf; 2]) {
    let grafana = Grafana::start(healthy).await;
    let cases = [
        ("exit 0", 0, "provision: done: nothing of it is left in Grafana"),
        ("exit 1", 1, "provision: failed: Terraform could not destroy; its error stands above"),
    ];
    for (told, code, said) in cases {
        let stage = Stage::new(&grafana.url(), &tools);
        stage.tell("destroy", told);

        let ended = stage.provision(&["destroy"]).ended().await;

        assert_eq!((ended.code, ended.last()), (code, said), "{ended:?}");
        assert_eq!(stage.calls(), ["destroy -input=false -auto-approve -no-color"]);
    }
}

/// The way through everything that shells do differently: background jobs, signals, quoting, substitution.
async fn every_shell_does_the_same(tools: [PathBuf; 2]) {
    let shells: [&[&str]; 4] = [&["dash"], &["busybox", "sh"], &["bash", "--posix"], &["ksh"]];
    let path = std::env::var_os("PATH").unwrap();
    let at_hand = |shell: &&[&str]| std::env::split_paths(&path).any(|folder| folder.join(shell[0]).is_file());
    for shell in [&["sh"] as &[&str]].into_iter().chain(shells.into_iter().filter(at_hand)) {
        let grafana = Grafana::start(|asked| match asked {
            Asked { path: "/api/health", before: 0, .. } => 503,
            Asked { path: "/api/folders/api-monitoring-folder", .. } => 200,
            asked => healthy(asked),
        })
        .await;
        let stage = Stage { shell, ..Stage::new(&grafana.url(), &tools) };
        stage.tell("apply", r#"[ "$(count)" -gt 1 ] || exit 1"#);

        let provision = stage.provision(&["apply", "--stay"]);
        provision.line("provision: done").await;
        eventually("the marker", async || stage.marker().exists().then_some(())).await;
        provision.signal(Signal::SIGTERM);
        let ended = provision.ended().await;

        assert_eq!(ended.code, 0, "{shell:?}: {ended:?}");
        assert_eq!(stage.auth(), format!("admin:{PASSWORD}"), "{shell:?}");
        let import = "import -input=false -no-color grafana_folder.this api-monitoring-folder";
        assert_eq!(stage.calls(), ["state list", import, APPLY, "state list", import, APPLY], "{shell:?}");
    }
}

// ---- What it runs against ----

/// A Grafana that answers with the statuses that it is told.
struct Grafana {
    address: String,
    asked: Arc<Mutex<Vec<Head>>>,
}

/// Path and `Authorization` of a request.
type Head = (String, Option<String>);

/// A request, as an answer is chosen by it.
#[derive(Clone, Copy)]
struct Asked<'a> {
    path: &'a str,
    /// How often the same was asked for before.
    before: usize,
    authorized: bool,
}

/// Lets everybody in who says who he is, and has no folder and no data source.
fn healthy(asked: Asked<'_>) -> u16 {
    match (asked.path, asked.authorized) {
        ("/api/health", _) | ("/api/org", true) => 200,
        (_, false) => 401,
        _ => 404,
    }
}

impl Grafana {
    async fn start(answer: impl Fn(Asked<'_>) -> u16 + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, seen) = (Arc::new(answer), Arc::clone(&asked));
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (answer, seen) = (Arc::clone(&answer), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Some((path, authorization)) = Self::head(&mut stream).await else { return };
                    let status = {
                        let mut seen = seen.lock().unwrap();
                        let before = seen.iter().filter(|(other, _)| *other == path).count();
                        let status = answer(Asked { path: &path, before, authorized: authorization.is_some() });
                        seen.push((path, authorization));
                        status
                    };
                    let reason =
                        HashMap::from([(200, "OK"), (401, "Unauthorized"), (403, "Forbidden"), (404, "Not Found")])
                            .remove(&status)
                            .unwrap_or("Service Unavailable");
                    let text =
                        format!("HTTP/1.1 {status} {reason}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}");
                    let _ = stream.write_all(text.as_bytes()).await;
                });
            }
        });
        Self { address, asked }
    }

    /// Reads a request's head: its path, and its `Authorization`.
    async fn head(stream: &mut TcpStream) -> Option<Head> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.ok()?);
        }
        let head = String::from_utf8(head).unwrap();
        let path = head.split(' ').nth(1)?.to_owned();
        let authorization = head.lines().filter_map(|line| line.split_once(": "));
        let authorization = authorization.filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        Some((path, authorization.map(|(_, value)| value.to_owned()).next()))
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What requests said about who asks, of those that said something.
    fn authorizations(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().filter_map(|(_, authorization)| authorization.clone()).collect()
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// A `terraform` that writes down its arguments and what it gets as `grafana_auth`, then runs what a test put in the
/// file of its subcommand. There `count` says how often that has been called.
const TERRAFORM: &str = r#"#!/bin/sh
echo "$*" >>"$TOLD/calls"
printf %s "$TF_VAR_grafana_auth" >"$TOLD/auth"
subcommand=$1
count() { grep -c "^$subcommand" "$TOLD/calls"; }
[ ! -e "$TOLD/$subcommand" ] || . "$TOLD/$subcommand"
"#;

/// Everything around one run of the script.
struct Stage {
    shell: &'static [&'static str],
    url: String,
    /// What comes first on the path: `terraform`, and the tools.
    programs: TempDir,
    /// What `terraform` is told, and what it says.
    told: TempDir,
    scratch: TempDir,
}

impl Stage {
    fn new(url: &str, [wget, base64]: &[PathBuf; 2]) -> Self {
        let [programs, told, scratch] = [(); 3].map(|()| tempfile::tempdir().unwrap());
        let terraform = programs.path().join("terraform");
        std::fs::write(&terraform, TERRAFORM).unwrap();
        std::fs::set_permissions(&terraform, std::fs::Permissions::from_mode(0o755)).unwrap();
        symlink(wget, programs.path().join("wget")).unwrap();
        symlink(base64, programs.path().join("base64")).unwrap();
        Self { shell: &["sh"], url: url.to_owned(), programs, told, scratch }
    }

    /// Has `terraform` run this when it is called with that subcommand.
    fn tell(&self, subcommand: &str, script: &str) {
        std::fs::write(self.told.path().join(subcommand), script).unwrap();
    }

    /// How `terraform` was called.
    fn calls(&self) -> Vec<String> {
        let calls = std::fs::read_to_string(self.told.path().join("calls")).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    fn auth(&self) -> String {
        std::fs::read_to_string(self.told.path().join("auth")).unwrap()
    }

    fn marker(&self) -> PathBuf {
        self.scratch.path().join("provisioned")
    }

    fn provision(&self, arguments: &[&str]) -> Provision {
        self.provision_with(arguments, &[])
    }

    /// Runs the script with more settings, or others.
    fn provision_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Provision {
        let mut path = self.programs.path().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let log = self.told.path().join("log");
        let file = File::create(&log).unwrap();
        let mut command = Command::new(self.shell[0]);
        command
            .args(&self.shell[1..])
            .arg(root().join("deploy/provision/provision.sh"))
            .args(arguments)
            .current_dir(self.scratch.path())
            .env_clear()
            .env("PATH", path)
            .env("TMPDIR", self.scratch.path())
            .env("TOLD", self.told.path())
            .env("TF_VAR_grafana_url", &self.url)
            .env("GRAFANA_ADMIN_PASSWORD", PASSWORD)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .process_group(0);
        Provision { child: command.spawn().unwrap(), log }
    }
}

/// The running script, and all that it starts; killed when it goes out of scope.
struct Provision {
    child: Child,
    log: PathBuf,
}

impl Provision {
    /// Everything that it and `terraform` have said so far.
    fn lines(&self) -> Vec<String> {
        std::fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect()
    }

    /// Waits for a line that holds a text.
    async fn line(&self, text: &str) {
        let find = || self.lines().iter().any(|line| line.contains(text)).then_some(());
        eventually(&format!("a line with {text:?}"), async || find()).await;
    }

    /// Sends a signal to the shell alone, as Docker does.
    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().try_into().unwrap())
    }

    /// Waits for its end. Whatever happened, the password must not have been shown.
    async fn ended(mut self) -> Ended {
        let child = Mutex::new(&mut self.child);
        let status = eventually("the script's end", async || child.lock().unwrap().try_wait().unwrap()).await;
        let ended = Ended { code: status.code().unwrap_or(-1), lines: self.lines() };
        let text = ended.text();
        assert!(!text.contains(PASSWORD) && !text.contains(&basic("admin", PASSWORD)), "the password is shown: {text}");
        ended
    }
}

impl Drop for Provision {
    fn drop(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

#[derive(Debug)]
struct Ended {
    code: i32,
    lines: Vec<String>,
}

impl Ended {
    fn last(&self) -> &str {
        self.lines.last().map_or("", String::as_str)
    }

    fn text(&self) -> String {
        self.lines.join("\n")
    }
}
