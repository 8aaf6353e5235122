//! The runbook's commands, run as they are written.

use std::path::Path;
use std::process::{Command, ExitStatus};

/// The commands that a section of the runbook names, in its first `sh` blocks, up to one that speaks to Docker alone.
pub fn commands(section: &str) -> String {
    let runbook = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/runbook.md")).unwrap();
    let start = runbook.find(&format!("\n### {section}\n")).unwrap_or_else(|| panic!("no section {section:?}"));
    let text = &runbook[start + 5..];
    let text = &text[..text.find("\n#").unwrap_or(text.len())];
    let blocks = text.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.take_while(|block| !block.starts_with("docker compose")).collect()
}

/// Runs commands in a folder, up to the first that fails, with the binary on the path.
pub fn run(folder: &Path, commands: &str) -> ExitStatus {
    let binaries = Path::new(crate::support::BINARY).parent().unwrap();
    let path = format!("{}:{}", binaries.display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("bash");
    bash.args(["-ec", commands]).current_dir(folder).env("PATH", path).status().unwrap()
}
