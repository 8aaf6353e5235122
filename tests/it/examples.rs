//! The README's examples: commands with the output that it shows for them, and running them as they are written.

use std::path::Path;

/// A command with the output that the README shows for it.
#[derive(Debug)]
pub struct Example {
    command: String,
    output: Vec<String>,
}

pub fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The examples of a section: in its `console` blocks, lines that start with `$ ` (continued by a final `\`), each
/// followed by its output.
pub fn examples(section: &str) -> Vec<Example> {
    let readme = readme();
    let start = readme.find(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section:?}"));
    let text = &readme[start + 4..];
    let text = &text[..text.find("\n## ").unwrap_or(text.len())];
    let blocks = text.split("```console\n").skip(1).map(|block| block.split("```").next().unwrap());
    let mut examples: Vec<Example> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        if let Some(command) = line.strip_prefix("$ ") {
            examples.push(Example { command: command.to_owned(), output: Vec::new() });
            continue;
        }
        let example = examples.last_mut().expect("output follows a command");
        if example.command.ends_with('\\') {
            example.command.truncate(example.command.len() - 1);
            example.command.push_str(line);
        } else {
            example.output.push(line.to_owned());
        }
    }
    examples
}

/// Whether a line is what the README shows, where `…` stands for whatever differs from run to run.
fn fits(shown: &str, line: &str) -> bool {
    let mut pieces = shown.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let mut last = None;
    for piece in pieces {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
        last = Some(piece);
    }
    rest.is_empty() || last == Some("")
}

#[test]
fn an_ellipsis_stands_for_anything() {
    assert!(fits("a…c", "abc"));
    assert!(fits("a…", "abc"));
    assert!(fits("abc", "abc"));
    assert!(!fits("a…d", "abc"));
    assert!(!fits("ab", "abc"));
}

impl Example {
    /// Runs the command in a folder, with the binary on the path, where each address of the README stands for a real
    /// one; the error shows what the README shows and what came.
    pub async fn run(&self, folder: &Path, addresses: &[(&str, &str)]) -> Result<(), String> {
        let real = addresses.iter().fold(self.command.clone(), |text, (shown, real)| text.replace(shown, real));
        let binaries = Path::new(crate::support::BINARY).parent().unwrap();
        let path = std::env::var("PATH").unwrap();
        let output = tokio::process::Command::new("bash")
            .args(["-c", &real])
            .current_dir(folder)
            .env("PATH", format!("{}:{path}", binaries.display()))
            .env("NO_PROXY", "*")
            .output()
            .await
            .unwrap();

        let got = String::from_utf8(output.stdout).unwrap();
        let got = addresses.iter().fold(got, |text, (shown, real)| text.replace(real, shown));
        let got: Vec<_> = got.lines().map(str::trim_end).collect();
        let fine =
            got.len() == self.output.len() && self.output.iter().zip(&got).all(|(shown, line)| fits(shown, line));
        if fine {
            return Ok(());
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        Err(format!("$ {}\nthe README shows {:#?}\nand it gives {got:#?}\n{stderr}", self.command, self.output))
    }
}
