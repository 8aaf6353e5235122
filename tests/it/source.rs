//! The source in `src` as the compiler reads it: tokens, so that line breaks, comments and texts hide nothing.

use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};

/// A source file.
pub struct Source {
    /// Below `src`.
    pub path: PathBuf,
    tokens: Vec<TokenTree>,
}

/// A path into the library, from its root on: `["push", "PushClient"]`; empty for the root itself.
pub type Reference = Vec<String>;

impl Source {
    pub fn all() -> Vec<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let read = |file: PathBuf| {
            let path = file.strip_prefix(&root).unwrap();
            Self::new(path, &std::fs::read_to_string(&file).unwrap())
        };
        files(&root).into_iter().map(read).collect()
    }

    pub fn new(path: impl Into<PathBuf>, text: &str) -> Self {
        let path = path.into();
        let tokens = text.parse::<TokenStream>().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { path, tokens: tokens.into_iter().collect() }
    }

    /// The top-level module that the file belongs to; `lib` and `main` are theirs.
    pub fn top_module(&self) -> String {
        let first = self.path.iter().next().unwrap().to_str().unwrap();
        first.trim_end_matches(".rs").to_owned()
    }

    /// The file's module, from the root on: `["api", "users"]` of `api/users.rs`, `["api"]` of `api/mod.rs`, and nothing
    /// of `lib.rs` and `main.rs`.
    fn module(&self) -> Vec<String> {
        let names = self.path.with_extension("");
        let names = names.iter().map(|name| name.to_str().unwrap().to_owned());
        names.filter(|name| !["lib", "main", "mod"].contains(&name.as_str())).collect()
    }

    /// Every path into the library: in imports, code, macros and attributes, with tests and without documentation.
    pub fn references(&self) -> Vec<Reference> {
        let mut found = Vec::new();
        references(&self.tokens, &self.module(), &mut found);
        found
    }

    /// Every name and literal of the code that is shipped, without documentation and tests.
    pub fn words(&self) -> Vec<TokenTree> {
        let mut found = Vec::new();
        words(&self.tokens, &mut found);
        found
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| match path.extension() {
            _ if path.is_dir() => files(&path),
            Some(extension) if extension == "rs" => vec![path],
            _ => Vec::new(),
        })
        .collect()
}

// ---- References ----

/// The library's name, by which the binary calls it.
const LIBRARY: &str = "api_monitoring";

/// Code from a file that no module is named after (`#[path]`, `include!`) is a reference too: nothing else shows it.
fn references(tokens: &[TokenTree], module: &[String], found: &mut Vec<Reference>) {
    let mut rest = tokens;
    while let Some(token) = rest.first() {
        let mut taken = 1;
        if let Some((attribute, length)) = attribute(rest) {
            if is(&attribute, "path") {
                found.push(vec!["#[path]".to_owned()]);
            } else if !is(&attribute, "doc") {
                references(&in_attribute(attribute.stream()), module, found);
            }
            taken = length;
        } else if let [TokenTree::Ident(word), TokenTree::Ident(name), TokenTree::Group(body), ..] = rest
            && word == "mod"
        {
            references(&inside(body), &[module, &[plain(name)]].concat(), found);
            taken = 3;
        } else if let [TokenTree::Ident(name), TokenTree::Punct(mark), ..] = rest
            && (name == "include" && mark.as_char() == '!')
        {
            found.push(vec!["include!".to_owned()]);
        } else if is_root_import(rest) {
            found.push(Vec::new());
        } else if let [TokenTree::Ident(first), after @ ..] = rest
            && ["crate", "self", "super", LIBRARY].contains(&plain(first).as_str())
            && is_separator(after)
        {
            let mut paths = Vec::new();
            taken = use_tree(rest, &[], &mut paths);
            found.extend(paths.iter().map(|path| resolved(path, module)));
        } else if let TokenTree::Group(group) = token {
            references(&inside(group), module, found);
        }
        rest = &rest[taken..];
    }
}

/// `extern crate self as x`, `use crate as x`: another name for the root.
fn is_root_import(tokens: &[TokenTree]) -> bool {
    let words: Vec<_> = tokens.iter().take(3).map(ToString::to_string).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["extern", "crate", name] => ["self", LIBRARY].contains(&name),
        [name, "as", _] => ["crate", LIBRARY].contains(&name),
        _ => false,
    }
}

/// Writes out each path of a tree such as `a::{b, c::{self, d as e}, *}`. Returns how many tokens it takes.
fn use_tree(tokens: &[TokenTree], before: &[String], found: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    let mut taken = 0;
    loop {
        match tokens.get(taken) {
            Some(TokenTree::Ident(name)) => path.push(plain(name)),
            Some(TokenTree::Punct(star)) if star.as_char() == '*' => path.push("*".to_owned()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let members = inside(group);
                for member in members.split(|token| token.to_string() == ",").filter(|member| !member.is_empty()) {
                    use_tree(member, &path, found);
                }
                return taken + 1;
            }
            // A type's arguments, or what a macro fills in.
            _ => break,
        }
        taken += 1;
        if !is_separator(&tokens[taken..]) {
            break;
        }
        taken += 2;
    }
    found.push(path);
    taken
}

/// The path from the root on that a path in a module means.
fn resolved(path: &[String], module: &[String]) -> Reference {
    let mut place = module.to_vec();
    for (position, name) in path.iter().enumerate() {
        match name.as_str() {
            "crate" | LIBRARY if position == 0 => place.clear(),
            "self" => {}
            "super" => drop(place.pop()),
            _ => place.push(name.clone()),
        }
    }
    place
}

fn is_separator(tokens: &[TokenTree]) -> bool {
    let is_colon = |token: &TokenTree| matches!(token, TokenTree::Punct(colon) if colon.as_char() == ':');
    matches!(tokens, [one, other, ..] if is_colon(one) && is_colon(other))
}

/// An attribute's tokens, texts taken apart too: `#[serde(with = "crate::words")]`.
fn in_attribute(tokens: TokenStream) -> Vec<TokenTree> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) => in_attribute(group.stream()),
            TokenTree::Literal(literal) => {
                let text = literal.to_string();
                let code = text.trim_matches(['r', '#', '"']).parse::<TokenStream>();
                code.map(|code| code.into_iter().collect()).unwrap_or_default()
            }
            _ => vec![token],
        })
        .collect()
}

// ---- Words ----

fn words(tokens: &[TokenTree], found: &mut Vec<TokenTree>) {
    let mut rest = tokens;
    while let Some(token) = rest.first() {
        let mut taken = 1;
        if let Some((attribute, length)) = attribute(rest) {
            taken = length;
            if is_for_tests(&attribute) {
                taken += item(&rest[length..]);
            } else if !is(&attribute, "doc") {
                words(&inside(&attribute), found);
            }
        } else if let TokenTree::Group(group) = token {
            words(&inside(group), found);
        } else if !matches!(token, TokenTree::Punct(_)) {
            found.push(token.clone());
        }
        rest = &rest[taken..];
    }
}

/// `#[test]`, `#[tokio::test]`, `#[cfg(test)]`, `#[cfg(all(test, unix))]`; neither `not(test)` nor `any(test, …)`.
fn is_for_tests(attribute: &Group) -> bool {
    let names = names(attribute.stream());
    let says = |name: &str| names.iter().any(|said| said == name);
    let is_test = is(attribute, "test") || is(attribute, "tokio") && says("test");
    is_test || is(attribute, "cfg") && says("test") && !says("not") && !says("any")
}

fn names(tokens: TokenStream) -> Vec<String> {
    tokens
        .into_iter()
        .flat_map(|token| match token {
            TokenTree::Group(group) => names(group.stream()),
            TokenTree::Ident(name) => vec![plain(&name)],
            _ => Vec::new(),
        })
        .collect()
}

/// How many tokens the item takes that begins here: it ends with its body, its semicolon, or its comma in a list.
fn item(tokens: &[TokenTree]) -> usize {
    // Commas between `<` and `>` separate arguments; the `>` of an arrow closes nothing.
    let mut within = 0_usize;
    let mut before = ' ';
    for (position, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => return position + 1,
            TokenTree::Punct(mark) => {
                match mark.as_char() {
                    ';' => return position + 1,
                    ',' if within == 0 => return position + 1,
                    '<' => within += 1,
                    '>' if !['-', '='].contains(&before) => within = within.saturating_sub(1),
                    _ => {}
                }
                before = mark.as_char();
                continue;
            }
            _ => {}
        }
        before = ' ';
    }
    tokens.len()
}

// ---- Tokens ----

/// The attribute that begins here, and how many tokens it takes.
fn attribute(tokens: &[TokenTree]) -> Option<(Group, usize)> {
    let is = |token: &TokenTree, mark: char| matches!(token, TokenTree::Punct(punct) if punct.as_char() == mark);
    match tokens {
        [hash, TokenTree::Group(group), ..] if is(hash, '#') => Some((group.clone(), 2)),
        [hash, bang, TokenTree::Group(group), ..] if is(hash, '#') && is(bang, '!') => Some((group.clone(), 3)),
        _ => None,
    }
}

/// The attribute begins with this name.
fn is(attribute: &Group, name: &str) -> bool {
    attribute.stream().into_iter().next().is_some_and(|first| first.to_string() == name)
}

fn inside(group: &Group) -> Vec<TokenTree> {
    group.stream().into_iter().collect()
}

/// A name without the mark of a raw one, `r#name`.
fn plain(name: &Ident) -> String {
    name.to_string().trim_start_matches("r#").to_owned()
}

#[test]
fn references_are_found_however_they_are_written() {
    let cases: &[(&str, &str, &[&str], &str)] = &[
        ("a.rs", "use crate::b::C;", &["b::C"], "an import"),
        ("a.rs", "use crate::{\n    b, // crate::x\n    c::D,\n};", &["b", "c::D"], "a group over several lines"),
        ("a.rs", "use crate::{b::{self, C as D, e::*}, f};", &["b", "b::C", "b::e::*", "f"], "nested groups"),
        ("a.rs", "use {crate::b, std::fmt, super::c};", &["b", "c"], "a group of everything"),
        ("a.rs", "pub(crate) use crate :: b as c;", &["b"], "blanks and another name"),
        ("a/b/c.rs", "use super::super::{d, super::e};", &["a::d", "e"], "parents of parents"),
        ("a/mod.rs", "use super::b; use self::super::c;", &["b", "c"], "a folder's parent"),
        ("a.rs", "mod t { use super::*; mod u { use super::super::super::b; } }", &["a::*", "b"], "modules in a file"),
        ("a.rs", "fn f() -> crate::b::C<crate::d::E> { <crate::g::H>::i() }", &["b::C", "d::E", "g::H"], "types"),
        ("a.rs", "fn f() { info!(x = %crate::b::c(), \"crate::d\"); }", &["b::c"], "a macro's arguments"),
        ("a.rs", "macro_rules! m { () => { $crate::b::c!({ super::d }) } }", &["b::c", "d"], "a macro's body"),
        ("a.rs", "#[serde(with = \"crate::b\")] struct S;", &["b"], "a text of an attribute"),
        ("a.rs", "#[derive(crate::b::C)] struct S;", &["b::C"], "a name of an attribute"),
        ("main.rs", "use api_monitoring::{\n    b,\n    c::D,\n};", &["b", "c::D"], "the library by its name"),
        ("main.rs", "fn f() { ::api_monitoring::b::c() }", &["b::c"], "the same in code"),
        ("a.rs", "use crate::r#b;", &["b"], "a raw name"),
        ("a.rs", "#[cfg(test)] mod tests { use crate::b; }", &["b"], "a test"),
        ("a.rs", "use crate as root;", &[""], "the root by another name"),
        ("a.rs", "use crate::{self as root};", &[""], "the same in a group"),
        ("a.rs", "extern crate self as root;", &[""], "the same as a crate"),
        ("a.rs", "use super::*;", &["*"], "everything of the root"),
        ("a.rs", "macro_rules! m { ($n:ident) => { $crate::$n::f() } }", &[""], "a name that a macro fills in"),
        ("a.rs", "#[path = \"b.rs\"] mod c; include!(\"d.rs\");", &["#[path]", "include!"], "another file"),
        ("a.rs", "/// crate::b\n//! crate::c\n/* crate::d */ // crate::e\nfn f() {}", &[], "comments"),
        ("a.rs", "fn f(self) { self.b(\"crate::c\", r#\"super::d\"#); Self::e() }", &[], "what only looks like one"),
        ("a.rs", "pub(crate) fn f() {} pub(super) fn g() {}", &[], "visibility"),
        ("a.rs", "mod b; use b::C; use std::fmt;", &[], "its own modules and other crates"),
    ];
    for (path, text, expected, reason) in cases {
        let found = Source::new(path, text).references();

        let found: Vec<_> = found.iter().map(|reference| reference.join("::")).collect();
        assert_eq!(found, *expected, "{reason}: {text}");
    }
}

#[test]
fn words_are_those_of_the_code_that_is_shipped() {
    let cases: &[(&str, &[&str], &str)] = &[
        ("#[cfg(test)] mod tests { x }\nfn f() { y }", &["fn", "f", "y"], "what follows a test"),
        ("#[cfg(test)] #[allow(x)] fn f<A, B>(a: A) -> Vec<B> { x }\ny!();", &["y"], "a test with attributes"),
        ("#[cfg(all(test, unix))] const X: [u8; 1] = [1]; const Y: u8 = 2;", &["const", "Y", "u8", "2"], "a constant"),
        ("struct S { #[cfg(test)] x: Vec<u8>, y: u8 }", &["struct", "S", "y", "u8"], "a field"),
        ("#[tokio::test] async fn x() {} #[test] fn x() {} y!();", &["y"], "a test that stands alone"),
        ("#[cfg(not(test))] mod y;", &["cfg", "not", "test", "mod", "y"], "what tests do not have"),
        ("#[cfg(any(test, a))] y!();", &["cfg", "any", "test", "a", "y"], "what tests have too"),
        ("/* x */ /// x\nfn f() {} // x", &["fn", "f"], "comments"),
        ("m! { /// x\n y #[error(\"z\")] }", &["m", "y", "error", "\"z\""], "a macro's arguments"),
        ("f(r#\"y\n/* z */\"#);", &["f", "r#\"y\n/* z */\"#"], "a text over several lines"),
    ];
    for (text, expected, reason) in cases {
        let found: Vec<_> = Source::new("a.rs", text).words().iter().map(ToString::to_string).collect();

        assert_eq!(found, *expected, "{reason}: {text}");
    }
}
