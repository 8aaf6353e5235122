//! The README's examples, run as they are written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

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

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// The targets of the Makefile, each with what `make` says of it.
fn targets(makefile: &str) -> Vec<(&str, Option<&str>)> {
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let rules = makefile.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| is_name(name));
    rules
        .filter(|(name, _)| !name.is_empty())
        .map(|(name, rest)| (name, rest.split_once("## ").map(|(_, said)| said)))
        .collect()
}

/// The targets that a page names: `make TARGET` in a line of its own, or in backticks.
fn made(page: &str) -> impl Iterator<Item = &str> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("make "));
    let quoted = page.split("`make ").skip(1);
    // One command may make several; what follows is a setting or a comment.
    let words = lines.chain(quoted).flat_map(|rest| rest.split(['`', '\n', '#']).next().unwrap().split_whitespace());
    words.filter(|word| !word.contains('='))
}

#[test]
fn the_commands_of_the_pages_exist() {
    let makefile = read("Makefile");
    let targets: BTreeSet<_> = targets(&makefile).into_iter().map(|(name, _)| name).collect();
    let pages: Vec<PathBuf> =
        std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let pages = pages.into_iter().filter(|page| page.extension().is_some_and(|extension| extension == "md"));
    let others = ["README.md", "terraform/README.md", "deploy/alertmanager/README.md"].map(|page| root().join(page));
    for page in pages.chain(others) {
        let text = read(&page);
        for target in made(&text) {
            assert!(targets.contains(target), "{}: make {target}", page.display());
        }
    }
    let named: Vec<_> =
        ["make test\n", "x `make bench A=1` y", "make rules docs # z"].into_iter().flat_map(made).collect();
    assert_eq!(named, ["test", "bench", "rules", "docs"]);
    assert!(read(".ci/run").lines().any(|line| line == "exec make test"), "CI runs the README's test command");
    assert!(readme().contains("\nmake test\n"), "and the README names it");
}

#[test]
fn make_lists_every_target() {
    let makefile = read("Makefile");
    let phony = makefile.lines().find_map(|line| line.strip_prefix(".PHONY: ")).unwrap();
    let phony: BTreeSet<_> = phony.split(' ').collect();

    let targets = targets(&makefile);

    for (name, said) in &targets {
        assert!(said.is_some_and(|said| !said.is_empty()), "`make` says nothing of {name}");
    }
    // A file of a target's name would stop it.
    assert_eq!(targets.iter().map(|(name, _)| *name).collect::<BTreeSet<_>>(), phony);
}

#[test]
fn the_layout_of_the_readme_is_that_of_the_project() {
    let readme = readme();
    let (_, layout) = readme.split_once("\n## Layout\n").unwrap();
    let rows = layout.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    let listed: BTreeSet<String> =
        rows.flat_map(|row| row.split("`, `").map(|path| path.trim_end_matches('`').to_owned())).collect();

    for path in &listed {
        assert!(root().join(path).exists(), "{path} is in the layout, and not in the project");
    }
    let folders = |folder: &str| -> Vec<String> {
        let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap());
        let folders = entries.filter(|entry| entry.path().is_dir());
        folders.map(|entry| format!("{folder}{}/", entry.file_name().to_str().unwrap())).collect()
    };
    let ignored = read(".gitignore");
    let is_ours = |path: &String| {
        let name = path.trim_end_matches('/');
        !name.starts_with('.') && !ignored.lines().any(|line| line.strip_prefix('/') == Some(name))
    };
    let top = folders("").into_iter().filter(is_ours);
    let pages = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let pages =
        pages.filter(|path| path.is_file()).map(|path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
    for path in top.chain(folders("src/")).chain(pages) {
        assert!(
            listed.iter().any(|listed| listed.starts_with(&path)),
            "{path} is in the project, and not in the layout"
        );
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
