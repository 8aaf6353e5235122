//! Real servers that tests run against, and where their binaries are.
//!
//! Each is taken from an environment variable, from the path, or from `target/tools`, where `make tools` puts it. Where
//! one is missing, the tests that need it are reported as ignored with the reason; with `CI=true` they fail.

pub mod prometheus;
pub mod pushgateway;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

/// A server's binary: its variable and the names that it goes by.
pub struct Tool {
    variable: &'static str,
    names: &'static [&'static str],
}

pub const PROMETHEUS: Tool = Tool { variable: "PROMETHEUS", names: &["prometheus"] };
pub const PUSHGATEWAY: Tool = Tool { variable: "PUSHGATEWAY", names: &["pushgateway", "prometheus-pushgateway"] };

impl Tool {
    /// Where it is, or what to do to have one.
    pub fn find(&self) -> Result<PathBuf, String> {
        let Self { variable, names } = self;
        if let Some(given) = std::env::var_os(variable) {
            let path = PathBuf::from(given);
            return if path.is_file() { Ok(path) } else { Err(format!("{variable} is {path:?}, which is no file")) };
        }
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/usr/bin");
        std::env::split_paths(&folders)
            .chain([unpacked])
            .flat_map(|folder| names.iter().map(move |name| folder.join(name)))
            .find(|path| path.is_file())
            .ok_or_else(|| format!("no {}: run `make tools`, or set {variable} to its path", names[0]))
    }
}

/// A test by name, with the tools that it needs.
pub struct Test {
    pub name: &'static str,
    pub tools: &'static [Tool],
    pub run: fn(Vec<PathBuf>),
}

/// Makes a [`Test`] of an async function that takes the tools' paths.
#[macro_export]
macro_rules! needs {
    ([$($tool:expr),+], $test:path) => {
        $crate::servers::Test {
            name: stringify!($test),
            tools: &[$($tool),+],
            run: |tools| tokio::runtime::Runtime::new().unwrap().block_on($test(tools.try_into().unwrap())),
        }
    };
}

/// Runs tests as the standard harness would.
pub fn run(tests: Vec<Test>) -> ExitCode {
    let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let trials = tests.into_iter().map(|Test { name, tools, run }| {
        match tools.iter().map(Tool::find).collect::<Result<Vec<_>, _>>() {
            Ok(tools) => Trial::test(name, move || {
                run(tools);
                Ok(())
            }),
            Err(reason) if required => Trial::test(name, move || Err(reason.into())),
            Err(reason) => {
                Trial::test(format!("{name} ({reason})"), || Err(Failed::from(reason))).with_ignored_flag(true)
            }
        }
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
