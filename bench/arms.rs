//! The arms: every program that is measured, and how it is started. Those of others are built by
//! scripts/bench-peers.sh; one that is not there is left out, and said so.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::process::{Server, command, free_address, watched};
use crate::wrk::Wrk;

/// As `cargo build --release` makes it, but for features of dependencies that only tests ask for; without these once
/// [`Bench::build_plain`] was called.
pub const BINARY: &str = env!("CARGO_BIN_EXE_api-monitoring");

/// What all sections work with.
pub struct Bench {
    pub rounds: usize,
    /// One short round of everything, to see that it works.
    quick: bool,
    /// The project's folder.
    pub root: PathBuf,
    /// For databases and whatever else is written: below target, so on the disk that the project is on, since /tmp may
    /// be memory, where writing to disk costs nothing. Deleted at the end.
    pub folder: TempDir,
    pub wrk: Wrk,
    examples: PathBuf,
}

impl Bench {
    pub fn new(quick: bool) -> Self {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        std::fs::create_dir_all(root.join("target/bench")).unwrap();
        let folder = tempfile::tempdir_in(root.join("target/bench")).unwrap();
        let wrk = Wrk::find(&root, folder.path());
        Self { rounds: if quick { 1 } else { 5 }, quick, wrk, folder, examples: build_examples(&root), root }
    }

    /// What a measurement takes: this long, or one second of a quick run.
    pub fn lasting(&self, seconds: u64) -> Duration {
        Duration::from_secs(if self.quick { 1 } else { seconds })
    }

    /// How many there are: so many, or one in `part` of a quick run.
    pub fn many(&self, number: u64, part: u64) -> u64 {
        if self.quick { number / part } else { number }
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A new database with this many users, "User 1" and so on, made by our own `import`.
    pub fn database(&self, name: &str, users: u64) -> PathBuf {
        let file = self.path().join(format!("{name}.csv"));
        write_rows(&file, users, "name,email\n", |row| format!("User {row},user{row}@example.com\n"));
        let database = self.path().join(format!("{name}.db"));
        watched(import(&file, &database, self.path()));
        std::fs::remove_file(file).unwrap();
        database
    }

    /// Our service as it is shipped; log lines go nowhere, or there are none.
    pub fn ours(&self, name: &'static str, database: &Path, log: &str) -> Server {
        self.service(name, Path::new(BINARY), database, log)
    }

    /// Builds the binary anew, as users do. Cargo puts it where the other was.
    pub fn build_plain(&self) {
        build(&self.root, &["--bin", "api-monitoring"]);
    }

    /// Our service with its instrumentation off, and no log lines.
    pub fn uninstrumented(&self, name: &'static str, database: &Path) -> Server {
        self.service(name, &self.examples.join("uninstrumented"), database, "warn")
    }

    fn service(&self, name: &'static str, program: &Path, database: &Path, log: &str) -> Server {
        let address = free_address();
        let mut serve = command(program, self.path());
        serve.args(["serve", "--listen", &address.to_string(), "--log", log]).args(["--database-url", &url(database)]);
        // Lines at every request go nowhere; few lines say what is wrong.
        let said = (log == "warn").then(|| self.path());
        Server::start(name, serve, address, "/ready", said)
    }

    /// Our exposition of so many series, and nothing else.
    pub fn series(&self, name: &'static str, series: u64) -> Server {
        self.foreign(name, &self.examples.join("series"), Some(series))
    }

    /// Another's program, if it is there.
    pub fn peer(&self, name: &'static str, program: &str, series: Option<u64>) -> Option<Server> {
        let program = self.root.join("target/bench").join(program);
        program.exists().then(|| self.foreign(name, &program, series))
    }

    fn foreign(&self, name: &'static str, program: &Path, series: Option<u64>) -> Server {
        let address = free_address();
        let mut start = command(program, self.path());
        start.arg(address.to_string()).args(series.map(|series| series.to_string()));
        Server::start(name, start, address, "/health", Some(self.path()))
    }
}

pub fn url(database: &Path) -> String {
    format!("sqlite://{}", database.display())
}

/// Our `import` of a file into a database; every row must be a user.
pub fn import(file: &Path, database: &Path, folder: &Path) -> Command {
    let mut import = command(BINARY, folder);
    import.arg("import").arg(file).args(["--max-errors", "0", "--database-url", &url(database)]);
    import
}

pub fn write_rows(file: &Path, rows: u64, head: &str, row: impl Fn(u64) -> String) {
    let mut file = BufWriter::new(std::fs::File::create(file).unwrap());
    file.write_all(head.as_bytes()).unwrap();
    (1..=rows).for_each(|number| file.write_all(row(number).as_bytes()).unwrap());
    file.flush().unwrap();
}

/// Our own two arms, from the sources that this program was built from. They lie beside it.
fn build_examples(root: &Path) -> PathBuf {
    build(root, &["--example", "uninstrumented", "--example", "series"]);
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(2).expect("cargo puts it into PROFILE/deps").join("examples")
}

fn build(root: &Path, what: &[&str]) {
    let mut build = Command::new(env!("CARGO"));
    build.current_dir(root).stdin(Stdio::null());
    // What build.rs found out stands in this process' environment; taken for a setting, it would have all built anew.
    build.env_remove("BUILD_REVISION").env_remove("BUILD_RUSTC");
    build.args(["build", "--release", "--locked", "--quiet"]).args(what);
    assert!(build.status().unwrap().success(), "cargo build --release {}", what.join(" "));
}
