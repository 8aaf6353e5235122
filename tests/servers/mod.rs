//! Real servers that tests run against, and where their binaries are.
//!
//! Each is taken from an environment variable, from the path, or from `target/tools`, where `make tools` puts it. Where
//! one is missing, the tests that need it are reported as ignored with the reason; with `CI=true` they fail.

pub mod alertmanager;
pub mod prometheus;
pub mod pushgateway;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use libtest_mimic::{Arguments, Failed, Trial};
use tempfile::TempDir;
use tokio::net::TcpSocket;

use crate::support::{client, eventually};

/// A server's binary: its variable and the names that it goes by.
pub struct Tool {
    variable: &'static str,
    names: &'static [&'static str],
}

pub const PROMETHEUS: Tool = Tool { variable: "PROMETHEUS", names: &["prometheus"] };
pub const PUSHGATEWAY: Tool = Tool { variable: "PUSHGATEWAY", names: &["pushgateway", "prometheus-pushgateway"] };
// Not Debian's prometheus-alertmanager: it looks for its templates under /usr/share, and cannot run unpacked elsewhere.
pub const ALERTMANAGER: Tool = Tool { variable: "ALERTMANAGER", names: &["alertmanager"] };
pub const JSONNET: Tool = Tool { variable: "JSONNET", names: &["jsonnet"] };
// `docker-compose` may be of either generation; `make tools` gives each a name of its own.
pub const COMPOSE_V1: Tool = Tool { variable: "COMPOSE_V1", names: &["docker-compose-v1"] };
pub const COMPOSE_V2: Tool = Tool { variable: "COMPOSE_V2", names: &["docker-compose-v2"] };
pub const WGET: Tool = Tool { variable: "WGET", names: &["wget"] };
pub const BASE64: Tool = Tool { variable: "BASE64", names: &["base64"] };

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

/// Where a server is going to be: an address that nobody else gets meanwhile, and a folder.
pub struct Place {
    pub address: String,
    folder: TempDir,
    _reserved: TcpSocket,
}

impl Place {
    pub fn reserve() -> Self {
        // A socket that is bound and does not listen: connections are refused, the system gives the port to nobody, and
        // a server that reuses addresses too, as all of ours do, may still listen there.
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = socket.local_addr().unwrap().to_string();
        Self { address, folder: tempfile::tempdir().unwrap(), _reserved: socket }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// A server's running process; killed when it goes out of scope.
struct Running {
    child: Child,
    place: Place,
}

impl Running {
    /// Starts a server in its folder, with its files written there, and waits until `/-/ready` answers.
    async fn start(binary: &Path, place: Place, files: &[(&str, String)], arguments: &[&str]) -> Self {
        for (name, text) in files {
            let path = place.folder().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let child = Command::new(binary)
            .current_dir(place.folder())
            .args(arguments)
            .arg(format!("--web.listen-address={}", place.address))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(place.folder().join("log")).unwrap())
            .spawn()
            .unwrap();
        let mut server = Self { child, place };
        let (client, ready) = (client(), server.place.url("/-/ready"));
        eventually("a server's start", || {
            let ended = server.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} does not start: {}", binary.display(), server.log());
            let request = client.get(&ready);
            async { request.send().await.ok().filter(|answer| answer.status() == 200) }
        })
        .await;
        server
    }

    /// Everything that it has written to stderr.
    fn log(&self) -> String {
        std::fs::read_to_string(self.place.folder().join("log")).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A test by name, with the tools that it needs.
pub struct Test {
    pub name: &'static str,
    pub tools: &'static [Tool],
    /// Why it is left out unless it is asked for; no failure with `CI=true` either.
    pub left_out: Option<&'static str>,
    pub run: fn(Vec<PathBuf>),
}

/// Makes a [`Test`] of an async function that takes the tools' paths, or of a plain one that needs none.
#[macro_export]
macro_rules! needs {
    ([], $test:path) => {
        $crate::servers::Test { name: stringify!($test), tools: &[], left_out: None, run: |_| $test() }
    };
    ([$($tool:expr),+], $test:path) => {
        $crate::servers::Test {
            name: stringify!($test),
            tools: &[$($tool),+],
            left_out: None,
            run: |tools| tokio::runtime::Runtime::new().unwrap().block_on($test(tools.try_into().unwrap())),
        }
    };
}

/// Runs tests as the standard harness would.
pub fn run(tests: Vec<Test>) -> ExitCode {
    let required = std::env::var("CI").is_ok_and(|ci| ci == "true");
    let ignored = |name: &str, reason: &str| {
        let reason = reason.to_owned();
        Trial::test(format!("{name} ({reason})"), || Err(Failed::from(reason))).with_ignored_flag(true)
    };
    let trials = tests.into_iter().map(|Test { name, tools, left_out, run }| {
        if let Some(reason) = left_out {
            return ignored(name, reason);
        }
        match tools.iter().map(Tool::find).collect::<Result<Vec<_>, _>>() {
            Ok(tools) => Trial::test(name, move || {
                run(tools);
                Ok(())
            }),
            Err(reason) if required => Trial::test(name, move || Err(reason.into())),
            Err(reason) => ignored(name, &reason),
        }
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
