//! The pages for people: links between them lead somewhere, and the `make` commands that they name exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: impl AsRef<Path>) -> String {
    std::fs::read_to_string(root().join(file)).unwrap()
}

/// Every page.
fn pages() -> Vec<PathBuf> {
    let docs = std::fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let docs = docs.filter(|page| page.extension().is_some_and(|extension| extension == "md"));
    let others = ["README.md", "terraform/README.md", "deploy/alertmanager/README.md"];
    docs.chain(others.map(|page| root().join(page))).collect()
}

/// A page's lines that are no code.
fn prose(page: &str) -> Vec<&str> {
    let mut in_code = false;
    let mut is_prose = |line: &&str| {
        let mark = line.trim_start().starts_with("```");
        in_code ^= mark;
        !mark && !in_code
    };
    page.lines().filter(|line| is_prose(line)).collect()
}

// ---- Links ----

/// Where the links of a page lead: `[words](target)`. Words may go on in the next line; code in backticks has no links.
fn links(page: &str) -> Vec<String> {
    let text = prose(page).join(" ");
    // Outside of backticks, every second piece.
    let text: String = text.split('`').step_by(2).collect::<Vec<_>>().join("code");
    text.split("](").skip(1).filter_map(|rest| rest.split([')', ' ']).next().map(str::to_owned)).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &str) -> BTreeSet<String> {
    let heading = |line: &str| Some(line.trim_start_matches('#').strip_prefix(' ')?.to_lowercase());
    let headings = prose(page).into_iter().filter(|line| line.starts_with('#')).filter_map(heading);
    let anchor = |heading: String| {
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || ['-', '_', ' '].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

/// What of a page's links leads nowhere.
fn dead(page: &Path) -> Vec<String> {
    let text = read(page);
    let is_foreign = |link: &String| link.contains("://") || link.starts_with("mailto:");
    let links = links(&text).into_iter().filter(|link| !is_foreign(link));
    let leads = |link: &String| {
        let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { page.to_owned() } else { page.parent().unwrap().join(file) };
        target.exists() && (anchor.is_empty() || anchors(&read(&target)).contains(anchor))
    };
    links.filter(|link| !leads(link)).map(|link| format!("{}: {link}", page.display())).collect()
}

#[test]
fn links_between_pages_lead_somewhere() {
    let found: Vec<_> = pages().iter().flat_map(|page| dead(page)).collect();

    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_link_that_leads_nowhere_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    std::fs::write(
        folder.path().join("other.md"),
        "## What it costs\n### `a_b` and *c*, d!\n```sh\n# no heading\n```\n",
    )
    .unwrap();
    let text = "# Here\n[a](other.md), [b](other.md#what-it-costs), [c\nd](#here), [e](other.md#a_b-and-c-d) `[f](g)`\n\
                ```\n[h](i.md)\n```\n[j](https://x.example/y#z) [k](other.md#no-heading) [l](#there) [m](none.md)\n";
    std::fs::write(&page, text).unwrap();

    let found: Vec<_> = dead(&page).iter().map(|found| found.rsplit(' ').next().unwrap().to_owned()).collect();

    assert_eq!(found, ["other.md#no-heading", "#there", "none.md"]);
}

// ---- Commands ----

/// The targets of a Makefile, each with what `make` says of it.
fn targets(makefile: &str) -> Vec<(&str, Option<&str>)> {
    let is_name = |name: &str| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let rules = makefile.lines().filter_map(|line| line.split_once(':')).filter(|(name, _)| is_name(name));
    rules.map(|(name, rest)| (name, rest.split_once("## ").map(|(_, said)| said))).collect()
}

/// The targets that a page names: in a line that begins with `make`, or in backticks. One command may name several.
fn made(page: &str) -> Vec<&str> {
    let lines = page.lines().filter_map(|line| line.strip_prefix("make "));
    let quoted = page.split("`make ").skip(1);
    let commands = lines.chain(quoted).map(|rest| rest.split(['`', '\n', '#']).next().unwrap());
    // Settings follow: `make bench RECORD=1`.
    commands.flat_map(str::split_whitespace).filter(|word| !word.contains('=')).collect()
}

#[test]
fn the_commands_that_pages_name_exist() {
    let makefile = read("Makefile");
    let targets: BTreeSet<_> = targets(&makefile).into_iter().map(|(name, _)| name).collect();
    for page in pages() {
        for target in made(&read(&page)) {
            assert!(targets.contains(target), "{}: make {target}", page.display());
        }
    }
    assert_eq!(made("make a\nthen `make b C=1` or\nmake d e # f\n"), ["a", "d", "e", "b"]);
    assert!(read(".ci/run").lines().any(|line| line == "exec make test"), "CI runs the README's test command");
    assert!(read("README.md").contains("\nmake test\n"), "and the README names it");
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

// ---- The layout ----

#[test]
fn the_layout_of_the_readme_is_that_of_the_project() {
    let readme = read("README.md");
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
    let pages = pages().into_iter().filter(|page| page.starts_with(root().join("docs")));
    let pages = pages.map(|page| page.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
    for path in top.chain(folders("src/")).chain(pages) {
        let is_listed = listed.iter().any(|listed| listed.starts_with(&path));
        assert!(is_listed, "{path} is in the project, and not in the layout");
    }
}
