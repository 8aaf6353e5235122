//! The README's examples, run as they are written.

use std::path::Path;

use crate::support::Server;

/// A command with the output that the README shows for it.
#[derive(Debug)]
struct Example {
    command: String,
    output: Vec<String>,
}

fn readme() -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap()
}

/// The examples of a section: in its `console` blocks, lines that start with `$ ` (continued by a final `\`), each
/// followed by its output.
fn examples(section: &str) -> Vec<Example> {
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

#[tokio::test]
async fn the_examples_of_the_readme_show_what_happens() {
    let server = Server::start().await;
    let examples = examples("Endpoints");
    assert!(examples.len() > 12, "only {} examples were found", examples.len());

    for example in examples {
        let command = example.command.replace("localhost:8000", &server.address);
        let output =
            tokio::process::Command::new("bash").args(["-c", &command]).env("NO_PROXY", "*").output().await.unwrap();

        let got = String::from_utf8(output.stdout).unwrap().replace(&server.address, "localhost:8000");
        let got: Vec<_> = got.lines().map(str::trim_end).collect();
        let fine =
            got.len() == example.output.len() && example.output.iter().zip(&got).all(|(shown, line)| fits(shown, line));
        assert!(fine, "$ {}\nthe README shows {:#?}\nand it gives {got:#?}", example.command, example.output);
    }
}

#[test]
fn the_commands_of_the_readme_exist() {
    let readme = readme();
    let makefile = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Makefile")).unwrap();
    for line in readme.lines().filter_map(|line| line.strip_prefix("make ")) {
        let target = line.split_whitespace().next().unwrap();
        assert!(makefile.lines().any(|rule| rule.starts_with(&format!("{target}:"))), "make {target}");
    }
    let ci = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(".ci/run")).unwrap();
    assert!(ci.lines().any(|line| line == "exec make test"), "CI runs the README's test command");
    assert!(readme.contains("\nmake test\n"), "and the README names it");
}

#[test]
fn the_settings_of_the_readme_are_those_of_the_command_line() {
    let readme = readme();
    for command in ["serve", "load", "healthcheck"] {
        let help = std::process::Command::new(crate::support::BINARY).args([command, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let flags = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
        for flag in flags.map(|flag| flag.trim_end_matches([',', '.'])).filter(|flag| *flag != "help") {
            assert!(readme.contains(&format!("`--{flag}`")), "{command} --{flag} is not in the README");
        }
        let names = help.split("[env: ").skip(1).map(|rest| rest.split(['=', ']']).next().unwrap());
        for name in names {
            assert!(readme.contains(&format!("`{name}`")), "{command}: {name} is not in the README");
        }
        // A flag, its variable and its default stand in one row.
        let rows = help.split("\n      --").skip(1).map(|row| row.split_whitespace().collect::<Vec<_>>().join(" "));
        for row in rows {
            let piece = |mark: &str| row.split(mark).nth(1).map(|rest| rest.split(['=', ']']).next().unwrap());
            if let (Some(flag), Some(name), Some(default)) =
                (row.split(' ').next(), piece("[env: "), piece("[default: "))
            {
                let shown = readme.lines().any(|line| {
                    [flag, name, default]
                        .iter()
                        .all(|text| line.contains(&format!("`{}{text}`", if *text == flag { "--" } else { "" })))
                });
                // The one-option commands stand in a sentence.
                assert!(shown || command == "healthcheck", "--{flag}, {name}, {default} do not stand in one row");
            }
        }
    }
    let all: Vec<String> = ["serve", "load", "healthcheck"]
        .iter()
        .map(|command| {
            let help = std::process::Command::new(crate::support::BINARY).args([command, "--help"]).output().unwrap();
            String::from_utf8(help.stdout).unwrap()
        })
        .collect();
    for flag in readme.lines().filter_map(|line| line.strip_prefix("| `--")?.split('`').next()) {
        assert!(all.iter().any(|help| help.contains(&format!("--{flag} "))), "no command takes --{flag}");
    }
}
