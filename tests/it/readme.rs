//! The README's examples, run as they are written.

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

/// The sub-commands, from the binary's own help.
fn commands() -> Vec<String> {
    let help = help(&[]);
    let (_, rest) = help.split_once("\nCommands:\n").unwrap();
    let lines = rest.lines().take_while(|line| !line.is_empty());
    // A description may go on in a line of its own, further to the right.
    let names = lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next());
    names.filter(|name| !["", "help"].contains(name)).map(str::to_owned).collect()
}

fn help(command: &[&str]) -> String {
    let help = std::process::Command::new(crate::support::BINARY).args(command).arg("--help").output().unwrap();
    String::from_utf8(help.stdout).unwrap()
}

#[test]
fn the_settings_of_the_readme_are_those_of_the_command_line() {
    let readme = readme();
    let commands = commands();
    for known in ["serve", "job", "import", "backup", "load", "healthcheck", "openapi"] {
        assert!(commands.iter().any(|command| command == known), "{known} is not among {commands:?}");
    }
    let mut rows_seen = 0;
    for command in &commands {
        let help = help(&[command]);
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
                rows_seen += 1;
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
    assert!(rows_seen > 20, "only {rows_seen} settings with a default were found in the help");
    let all: Vec<String> = commands.iter().map(|command| help(&[command])).collect();
    for flag in readme.lines().filter_map(|line| line.strip_prefix("| `--")?.split('`').next()) {
        assert!(
            all.iter().any(|help| help.split_whitespace().any(|word| word == format!("--{flag}"))),
            "no command takes --{flag}"
        );
    }
}
