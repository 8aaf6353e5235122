//! Finds out what is being built, for `api_build_info`: the source revision and the compiler.

#![allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]

use std::env;
use std::process::Command;

fn main() {
    // A build outside a checkout (a container image) hands its revision in.
    println!("cargo:rerun-if-env-changed=BUILD_REVISION");
    println!("cargo:rerun-if-changed=build.rs");
    // The log of HEAD's movements changes with every commit and every checkout; it is absent outside a checkout.
    if let Some(log) = output("git", &["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo:rerun-if-changed={log}");
    }
    let given = env::var("BUILD_REVISION").ok().filter(|revision| !revision.is_empty());
    // Sources unpacked inside another project's checkout must not pass for that project's revision.
    let ours = output("git", &["rev-parse", "--show-prefix"]).is_none();
    let revision = given.or_else(|| output("git", &["rev-parse", "--short=12", "HEAD"]).filter(|_| ours));
    let rustc = output(&env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned()), &["--version"]);
    // "rustc 1.95.0 (59807616e 2026-04-14)" → "1.95.0"
    let rustc = rustc.and_then(|text| text.split(' ').nth(1).map(str::to_owned));
    println!("cargo:rustc-env=BUILD_REVISION={}", revision.as_deref().unwrap_or("unknown"));
    println!("cargo:rustc-env=BUILD_RUSTC={}", rustc.as_deref().unwrap_or("unknown"));
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
