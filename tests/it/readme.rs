//! The README's examples, run as they are written.

use std::path::Path;

use crate::examples::{examples, readme};
use crate::support::Server;

#[tokio::test]
async fn the_examples_of_the_readme_show_what_happens() {
    let server = Server::start().await;
    let examples = examples("Endpoints");
    assert!(examples.len() > 12, "only {} examples were found", examples.len());

    for example in examples {
        let run = example.run(server.folder.path(), &[("localhost:8000", &server.address)]).await;
        run.unwrap_or_else(|difference| panic!("{difference}"));
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
    const COMMANDS: [&str; 6] = ["serve", "job", "import", "backup", "load", "healthcheck"];
    for command in COMMANDS {
        let help = std::process::Command::new(crate::support::BINARY).args([command, "--help"]).output().unwrap();
        let help = String::from_utf8(help.stdout).unwrap();
        let flags = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
        for flag in flags.map(|flag| flag.trim_end_matches([',', '.', ':'])).filter(|flag| !["", "help"].contains(flag))
        {
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
    let all: Vec<String> = COMMANDS
        .iter()
        .map(|command| {
            let help = std::process::Command::new(crate::support::BINARY).args([command, "--help"]).output().unwrap();
            String::from_utf8(help.stdout).unwrap()
        })
        .collect();
    for flag in readme.lines().filter_map(|line| line.strip_prefix("| `--")?.split('`').next()) {
        assert!(
            all.iter().any(|help| help.split_whitespace().any(|word| word == format!("--{flag}"))),
            "no command takes --{flag}"
        );
    }
}
