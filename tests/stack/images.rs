//! The two images that are built here: from what, by any builder, without root, and with nothing in their context that
//! they are not made of.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::compose::{COMPOSE, Files};

pub const API: &str = "Dockerfile";
pub const PROVISION: &str = "deploy/provision/Dockerfile";
pub const IGNORED: &str = ".dockerignore";

/// What lies in a working copy, is not in git, and is nobody's business: one path of each kind.
const PRIVATE: [&str; 8] = [
    ".git/config",
    ".env",
    "data/users.db",
    "deploy/alertmanager/secrets/page_webhook_url",
    "secrets/grafana_admin_password",
    "target/release/api-monitoring",
    "terraform/.terraform/terraform.tfstate",
    "terraform/terraform.tfstate",
];

/// A full version, whatever follows it: `v3.5.0`, `1.95.0-slim-bookworm`.
pub fn is_pinned(image: &str) -> bool {
    let Some((_, tag)) = image.rsplit_once(':') else { return false };
    let numbers: Vec<_> = tag.trim_start_matches('v').split('-').next().unwrap().split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

/// Whether a path is what a pattern names, or lies in a folder that it names. A `*` stands for anything but a slash.
pub fn matches(pattern: &str, path: &str) -> bool {
    let one = |(pattern, name): (&str, &str)| match pattern.split_once('*') {
        Some((start, end)) => name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end),
        None => pattern == name,
    };
    let pattern = pattern.trim_end_matches('/');
    pattern.split('/').count() <= path.split('/').count() && pattern.split('/').zip(path.split('/')).all(one)
}

/// Whether an ignore file lets a path into the context: the last line that matches it decides.
fn is_let_through(ignored: &str, path: &str) -> bool {
    let lines = ignored.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut through = true;
    for line in lines {
        let kept = line.strip_prefix('!');
        if matches(kept.unwrap_or(line), path) {
            through = kept.is_some();
        }
    }
    through
}

/// The instructions of a Dockerfile, word by word; what is continued on the next line is one.
fn instructions(text: &str) -> Vec<Vec<String>> {
    let mut instructions = Vec::new();
    let mut words: Vec<String> = Vec::new();
    for line in text.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty()) {
        let continued = line.strip_suffix('\\');
        words.extend(continued.unwrap_or(line).split_whitespace().map(str::to_owned));
        if continued.is_none() {
            instructions.push(std::mem::take(&mut words));
        }
    }
    instructions
}

/// What is wrong with both images and their context. The defaults are those of docker-compose.yml's settings.
pub fn deviations(files: &Files, compose: &Value, defaults: &BTreeMap<String, String>) -> Vec<String> {
    let ignored = &files.texts[IGNORED];
    // Docker sends the Dockerfile itself, whether or not it is ignored.
    let mut copied = BTreeSet::from([API.to_owned(), PROVISION.to_owned()]);
    let mut found = Vec::new();
    for file in [API, PROVISION] {
        let text = &files.texts[file];
        found.extend(of_text(text).into_iter().map(|deviation| format!("{file}: {deviation}")));
        let mut arguments = BTreeMap::new();
        let mut user = None;
        for words in instructions(text) {
            let (instruction, words) = words.split_first().unwrap();
            let plain: Vec<_> = words.iter().filter(|word| !word.starts_with("--")).collect();
            match instruction.as_str() {
                "ARG" => {
                    let (name, default) = plain[0].split_once('=').unwrap_or((plain[0], ""));
                    arguments.insert(name.to_owned(), default.to_owned());
                    if defaults.get(name).is_none_or(|other| other != default) {
                        found.push(format!("{file}: {name} is {default:?}, and not so in {COMPOSE}"));
                    }
                }
                "FROM" => {
                    user = None;
                    let with = |image: String, (name, value): (&String, &String)| {
                        image.replace(&format!("${{{name}}}"), value)
                    };
                    let image = arguments.iter().fold(plain[0].clone(), with);
                    if image != "scratch" && !is_pinned(&image) {
                        found.push(format!("{file}: {image} has no full version"));
                    }
                }
                "USER" => user = plain.first().map(|user| (*user).clone()),
                "COPY" if !words.iter().any(|word| word.starts_with("--from=")) => {
                    let sources = &plain[..plain.len() - 1];
                    for source in sources {
                        let taken: Vec<_> = files.tracked.iter().filter(|path| matches(source, path)).collect();
                        // Beside others, one with a `*` may be missing: a file that need not be in git.
                        match source.strip_suffix('*').filter(|_| sources.len() > 1) {
                            Some(file_name) if !is_let_through(ignored, file_name) => {
                                found.push(format!("{file} copies {source}, and {IGNORED} keeps it out"));
                            }
                            None if taken.is_empty() => {
                                found.push(format!("{file} copies {source}, which is not there"));
                            }
                            _ => {}
                        }
                        if let Some(path) = taken.iter().find(|path| !is_let_through(ignored, path)) {
                            found.push(format!("{file} copies {source}, and {IGNORED} keeps {path} out"));
                        }
                        copied.extend(taken.into_iter().cloned());
                    }
                }
                _ => {}
            }
        }
        found.extend(of_user(file, user.as_deref(), compose));
        if file == PROVISION {
            found.extend(of_provisioning(text, user.as_deref().unwrap_or_default()));
        }
    }
    let others: Vec<_> = files.tracked.difference(&copied).filter(|path| is_let_through(ignored, path)).collect();
    let private = PRIVATE.iter().filter(|path| is_let_through(ignored, path));
    for path in private.copied().chain(others.first().map(|path| path.as_str())) {
        found.push(format!("{IGNORED} lets {path} into the images' context, and neither is made of it"));
    }
    found
}

/// What an image is made by: only what the classic builder can do as well, and only of locked versions.
fn of_text(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let directives = text.lines().filter_map(|line| line.trim().trim_start_matches('#').split_once('='));
    if directives.into_iter().any(|(name, _)| name.trim().eq_ignore_ascii_case("syntax")) {
        found.push("a syntax line is fetched from a registry".to_owned());
    }
    let mut stages = 0;
    for words in instructions(text) {
        let known: &[&str] = if words[0] == "COPY" { &["--from=", "--chown="] } else { &[] };
        let flags = words[1..].iter().take_while(|word| word.starts_with("--"));
        for flag in flags.filter(|flag| !known.iter().any(|known| flag.starts_with(known))) {
            found.push(format!("{} {flag} needs BuildKit", words[0]));
        }
        if words[0] == "ADD" {
            found.push("ADD takes what is not in the context, or unpacks it".to_owned());
        }
        stages += usize::from(words[0] == "FROM");
        for run in words.join(" ").split("&&").filter(|run| run.contains("cargo build") && !run.contains("--locked")) {
            found.push(format!("{:?} may take other versions than Cargo.lock", run.trim()));
        }
    }
    // Provisioning needs no compiler: its one stage is what it runs.
    if text.contains("cargo build") && (stages < 2 || !text.contains("\nFROM scratch\n")) {
        found.push("what builds would be in the image".to_owned());
    }
    found
}

/// What is copied is the user's, as a checkout may let nobody else read; and the state stays where the volume is, whichever
/// backend somebody keeps in terraform/ for applying by hand.
fn of_provisioning(text: &str, user: &str) -> Vec<String> {
    let instructions = instructions(text);
    let copies: Vec<_> = instructions.iter().filter(|words| words[0] == "COPY").collect();
    let mut found = Vec::new();
    for copy in copies.iter().filter(|words| !words.contains(&format!("--chown={user}"))) {
        found.push(format!("{PROVISION} copies {}, which its user may not be able to read", copy[1]));
    }
    let last = |source: &str| copies.iter().rposition(|words| words.iter().any(|word| word == source));
    if last("deploy/provision/backend.tf") <= last("terraform/*.tf") {
        found.push(format!("{PROVISION}: a backend of terraform/ would take the place of the image's"));
    }
    found
}

/// The image's user is not root, and whoever runs it is the owner of the folders in it that volumes take theirs from.
fn of_user(file: &str, user: Option<&str>, compose: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let Some(user) = user.filter(|user| !["0", "root"].contains(&user.split(':').next().unwrap())) else {
        return vec![format!("{file}: the image runs as root")];
    };
    let services = || compose["services"].as_object().into_iter().flatten();
    let built = services().find(|(_, service)| {
        !service["build"].is_null() && service["build"]["dockerfile"].as_str().unwrap_or(API) == file
    });
    let Some((_, built)) = built else { return vec![format!("{file} is built by no service")] };
    for (name, service) in services().filter(|(_, service)| service["image"] == built["image"]) {
        if service["user"] != user {
            found.push(format!("{name} runs as {}, {file} is for {user}", service["user"]));
        }
    }
    found
}
