//! `import`: each row once, in its order, whatever comes between; and what is said about it.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;

use futures_util::future::{join, join_all};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::Signal::{self, SIGINT, SIGKILL, SIGTERM};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin};

use crate::support::{Answer, BINARY, Server, binary, eventually, finished, in_time};

/// Rows in one transaction (`CHUNK_ROWS` in src/import/chunks.rs).
const CHUNK: u32 = 5_000;

/// A row that makes no user, in either format, and why.
const BAD_CSV: &str = ",user@example.com\n";
const BAD_JSON: &str = "{\"name\":\"\",\"email\":\"user@example.com\"}\n";
const BAD_REASON: &str = "name must not be empty or blank";

/// CSV rows of the users of those numbers, without the header.
fn rows(numbers: impl IntoIterator<Item = u32>) -> String {
    numbers.into_iter().map(|number| format!("User {number},user{number}@example.com\n")).collect()
}

/// A CSV file of the first users.
fn csv(users: u32) -> String {
    format!("name,email\n{}", rows(1..=users))
}

/// The first users as JSON lines.
fn json_lines(users: u32) -> String {
    (1..=users).map(|number| format!("{}\n", json!({"name": name(number), "email": email(number)}))).collect()
}

fn name(number: u32) -> String {
    format!("User {number}")
}

fn email(number: u32) -> String {
    format!("user{number}@example.com")
}

/// A folder with a database of its own, to import into.
struct Place(Arc<TempDir>);

impl Place {
    fn new() -> Self {
        Self(Arc::new(tempfile::tempdir().unwrap()))
    }

    /// A fresh folder with a file in it.
    fn with(file: &str, content: impl AsRef<[u8]>) -> Self {
        let place = Self::new();
        place.write(file, content);
        place
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file)
    }

    fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(file), content).unwrap();
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.path(file)).unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = binary(self.0.path());
        command.arg("import").args(arguments);
        command
    }

    /// Imports, with nothing on stdin.
    async fn import(&self, arguments: &[&str]) -> Run {
        finished(self.command(arguments)).await.into()
    }

    /// Imports what is given on stdin.
    async fn import_stdin(&self, arguments: &[&str], input: impl AsRef<[u8]>) -> Run {
        let mut import = self.start(arguments);
        import.feed(input).await;
        import.end().await
    }

    /// Starts an import; it reads what it is fed.
    fn start(&self, arguments: &[&str]) -> Import {
        Import::spawn(self.command(&[&["-"], arguments].concat()))
    }

    /// Connects to the database, as another program would.
    async fn database(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path("data/users.db")).connect().await.unwrap()
    }

    /// Names and addresses, ordered by id.
    async fn users(&self) -> Vec<(String, String)> {
        let mut database = self.database().await;
        sqlx::query_as("SELECT name, email FROM users ORDER BY id").fetch_all(&mut database).await.unwrap()
    }

    async fn names(&self) -> Vec<String> {
        self.users().await.into_iter().map(|(name, _)| name).collect()
    }

    /// How many users are committed; none as long as there is no database.
    async fn committed(&self) -> u32 {
        let options = SqliteConnectOptions::new().filename(self.path("data/users.db"));
        let Ok(mut database) = options.connect().await else { return 0 };
        let users = sqlx::query_scalar("SELECT users FROM user_count").fetch_one(&mut database).await;
        database.close().await.unwrap();
        users.unwrap_or(0)
    }

    async fn until_committed(&self, users: u32) {
        let reached = async || (self.committed().await >= users).then_some(());
        eventually(&format!("{users} users in the database"), reached).await;
    }

    /// Fails unless the database holds the first users, each once and in their order, with ids without a gap.
    async fn assert_holds_users(&self, users: u32, reason: &str) {
        let mut database = self.database().await;
        let held: Vec<(u32, String, String)> =
            sqlx::query_as("SELECT id, name, email FROM users ORDER BY id").fetch_all(&mut database).await.unwrap();
        let expected = (1..=users).map(|number| (number, name(number), email(number)));
        let wrong = held.iter().cloned().zip(expected).find(|(held, expected)| held != expected);
        assert_eq!(wrong, None, "{reason}: the first that differs");
        assert_eq!(held.len(), users as usize, "{reason}");
    }

    /// Rows that are done under each key.
    async fn progress(&self) -> Vec<u32> {
        let mut database = self.database().await;
        sqlx::query_scalar("SELECT rows FROM imports ORDER BY key").fetch_all(&mut database).await.unwrap()
    }
}

/// An import under way. Killed when it goes out of scope.
struct Import {
    child: Child,
    input: Option<ChildStdin>,
}

impl Import {
    fn spawn(command: Command) -> Self {
        let mut command = tokio::process::Command::from(command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take();
        Self { child, input }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().unwrap().try_into().unwrap())
    }

    fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Waits until it has taken that, up to what a pipe holds.
    async fn feed(&mut self, input: impl AsRef<[u8]>) {
        let stdin = self.input.as_mut().unwrap();
        // One that ends before it has read all is no failure of ours: its exit code tells.
        let _ = in_time("a reader of the input", stdin.write_all(input.as_ref())).await;
    }

    /// Closes its input and waits for its end.
    async fn end(mut self) -> Run {
        drop(self.input.take());
        in_time("the end of the import", self.child.wait_with_output()).await.unwrap().into()
    }

    /// Waits for its end, with its input left open.
    async fn end_by_itself(mut self) -> Run {
        let input = self.input.take();
        let run = self.end().await;
        drop(input);
        run
    }
}

/// What a run left behind.
#[derive(Debug)]
struct Run {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

impl Run {
    /// Imported, rejected, skipped; of a run that came to the end of its source.
    #[track_caller]
    fn whole(&self) -> (u32, u32, u32) {
        let (tally, whole) = self.summary();
        assert!(self.status.code() == Some(0) && whole, "{self:?}");
        tally
    }

    /// The same of a run that did not, and ended with that code.
    #[track_caller]
    fn cut(&self, code: i32) -> (u32, u32, u32) {
        let (tally, whole) = self.summary();
        assert!(self.status.code() == Some(code) && !whole, "{self:?}");
        tally
    }

    /// The same of a run that came to the end, with every row rejected.
    #[track_caller]
    fn in_vain(&self) -> u32 {
        let (tally, whole) = self.summary();
        assert!(self.status.code() == Some(1) && whole, "{self:?}");
        let said = self.said();
        assert!(said.last().unwrap().ends_with(" is imported: all of its rows were rejected"), "{self:?}");
        let (0, rejected @ 1.., 0) = tally else { panic!("{self:?}") };
        rejected
    }

    /// Reads the one line on stdout, such as `imported 1,000 rows, rejected 1, skipped 0 (0.1 s)`.
    #[track_caller]
    fn summary(&self) -> ((u32, u32, u32), bool) {
        let read = || {
            let (tally, seconds) = self.stdout.strip_suffix(" s)\n")?.rsplit_once(" (")?;
            seconds.parse::<f64>().ok()?;
            let cut = tally.strip_suffix(", and did not get to the end");
            let mut counts = cut.unwrap_or(tally).split(", ");
            let mut count = |before, after| {
                let digits = counts.next()?.strip_prefix(before)?.strip_suffix(after)?;
                digits.replace(',', "").parse().ok()
            };
            let tally = (count("imported ", " rows")?, count("rejected ", "")?, count("skipped ", "")?);
            counts.next().is_none().then_some((tally, cut.is_none()))
        };
        read().unwrap_or_else(|| panic!("no summary: {self:?}"))
    }

    /// What it said on stderr, without the program's name before each line.
    #[track_caller]
    fn said(&self) -> Vec<&str> {
        let ours = |line: &'_ str| line.starts_with("api-monitoring: ");
        assert!(self.stderr.lines().all(ours), "a line that is not ours: {self:?}");
        self.stderr.lines().map(|line| &line["api-monitoring: ".len()..]).collect()
    }

    /// The one sentence that it said.
    #[track_caller]
    fn sentence(&self) -> &str {
        let said = self.said();
        assert_eq!(said.len(), 1, "{self:?}");
        said[0]
    }
}

/// The most memory that a running import has held.
fn peak_kib(import: &Import) -> u32 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", import.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().strip_suffix(" kB").unwrap().parse().unwrap()
}

/// The lines of a rejects file.
fn rejects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

// ---- Rows ----

#[tokio::test]
async fn each_row_of_a_file_becomes_a_user_with_ids_in_the_files_order() {
    let users = CHUNK * 2 + 1;
    for (file, content) in [("users.csv", csv(users)), ("users.jsonl", json_lines(users))] {
        let place = Place::with(file, content);

        let run = place.import(&[file]).await;

        assert_eq!(run.whole(), (users, 0, 0), "{file}");
        place.assert_holds_users(users, file).await;
    }
}

#[tokio::test]
async fn each_row_of_stdin_becomes_a_user_with_ids_in_its_order() {
    let users = CHUNK * 2 + 1;
    for (format, content) in [("csv", csv(users)), ("jsonl", json_lines(users))] {
        let place = Place::new();

        let run = place.import_stdin(&[], content).await;

        assert_eq!(run.whole(), (users, 0, 0), "{format}");
        place.assert_holds_users(users, format).await;
    }
}

#[tokio::test]
async fn rejected_rows_leave_no_gap_in_the_ids() {
    let place = Place::with("users.csv", format!("name,email\n{}{BAD_CSV}{}", rows([1]), rows([2])));

    let run = place.import(&["users.csv"]).await;

    assert_eq!(run.whole(), (2, 1, 0));
    place.assert_holds_users(2, "around a rejected row").await;
}

#[tokio::test]
async fn the_format_is_known_by_the_ending_else_by_the_first_character() {
    let (csv, json_lines) = (csv(1), json_lines(1));
    for (file, content, reason) in [
        ("users.csv", &csv, "its ending"),
        ("USERS.CSV", &csv, "its ending in capitals"),
        ("users.jsonl", &json_lines, "its ending"),
        ("users.ndjson", &json_lines, "its other ending"),
        ("users", &csv, "no ending"),
        ("users", &json_lines, "no ending, and a brace"),
        ("users.txt", &csv, "an ending that tells nothing"),
        ("users.txt", &json_lines, "an ending that tells nothing, and a brace"),
        ("users.txt", &format!(" \n\n{json_lines}"), "a brace behind blanks"),
    ] {
        let place = Place::with(file, content);

        let run = place.import(&[file]).await;

        assert_eq!(run.whole(), (1, 0, 0), "{file}: {reason}");
    }
}

#[tokio::test]
async fn json_lines_are_known_behind_a_byte_order_mark() {
    let place = Place::new();

    let run = place.import_stdin(&[], format!("\u{feff}{}", json_lines(1))).await;

    assert_eq!(run.whole(), (1, 0, 0));
}

#[tokio::test]
async fn json_lines_are_known_behind_many_blank_lines() {
    // More than a row may have.
    let text = format!("{}{}", "\n".repeat(2 << 20), json_lines(1));
    let place = Place::with("users.txt", &text);

    let from_file = place.import(&["users.txt"]).await;
    let from_stdin = place.import_stdin(&[], &text).await;

    assert_eq!(from_file.whole(), (1, 0, 0));
    assert_eq!(from_stdin.whole(), (1, 0, 0));
}

#[tokio::test]
async fn a_format_that_is_given_wins_over_the_ending_and_the_content() {
    for (file, content, format) in
        [("users.jsonl", csv(1), "csv"), ("users.csv", json_lines(1), "jsonl"), ("users", json_lines(1), "auto")]
    {
        let place = Place::with(file, content);

        let by_flag = place.import(&[file, "--format", format]).await;
        let mut command = place.command(&[file, "--key", "another"]);
        command.env("IMPORT_FORMAT", format);
        let by_variable = Run::from(finished(command).await);

        assert_eq!(by_flag.whole(), (1, 0, 0), "{file} as {format}");
        assert_eq!(by_variable.whole(), (1, 0, 0), "{file} as {format}");
    }
}

#[tokio::test]
async fn csv_is_read_as_programs_write_it() {
    let expected = [("Smith, \"J\"", "smith@example.com"), ("Łukasz", "lukasz@example.com")];
    for (text, reason) in [
        ("name,email\n\"Smith, \"\"J\"\"\",smith@example.com\nŁukasz,lukasz@example.com\n", "quotes"),
        ("name,email\r\n\"Smith, \"\"J\"\"\",smith@example.com\r\nŁukasz,lukasz@example.com\r\n", "CRLF"),
        ("\u{feff}name,email\n\"Smith, \"\"J\"\"\",smith@example.com\nŁukasz,lukasz@example.com\n", "byte order mark"),
        ("\n\nname,email\n\n\"Smith, \"\"J\"\"\",smith@example.com\n\nŁukasz,lukasz@example.com\n\n\n", "blank lines"),
        (
            "\"name\",\"email\"\n\"Smith, \"\"J\"\"\",\"smith@example.com\"\n\"Łukasz\",\"lukasz@example.com\"\n",
            "all quoted",
        ),
        ("name,email\n\"Smith, \"\"J\"\"\",smith@example.com\nŁukasz,lukasz@example.com", "no newline at the end"),
        (
            "Email, NAME \nsmith@example.com,\"Smith, \"\"J\"\"\"\nlukasz@example.com , Łukasz \n",
            "columns the other way",
        ),
    ] {
        for stdin in [false, true] {
            let place = Place::with("users.csv", text);

            let run = if stdin { place.import_stdin(&[], text).await } else { place.import(&["users.csv"]).await };

            assert_eq!(run.whole(), (2, 0, 0), "{reason}: {run:?}");
            assert_eq!(place.users().await, expected.map(|(name, email)| (name.into(), email.into())), "{reason}");
        }
    }
}

#[tokio::test]
async fn json_lines_are_read_as_programs_write_them() {
    let expected = [("Smith, \"J\"", "smith@example.com"), ("Łukasz", "lukasz@example.com")];
    let lines = [
        r#"{"name":"Smith, \"J\"","email":"smith@example.com"}"#,
        r#" { "email" : "lukasz@example.com", "name" : "\u0141ukasz" } "#,
    ];
    for (text, reason) in [
        (lines.join("\n") + "\n", "plain"),
        (lines.join("\n"), "no newline at the end"),
        (lines.join("\r\n") + "\r\n", "CRLF"),
        (format!("\n\n{}\n \n", lines.join("\n\n")), "blank lines"),
        (format!("\u{feff}{}\n", lines.join("\n")), "byte order mark"),
    ] {
        let place = Place::with("users.jsonl", &text);

        let run = place.import(&["users.jsonl"]).await;

        assert_eq!(run.whole(), (2, 0, 0), "{reason}: {run:?}");
        assert_eq!(place.users().await, expected.map(|(name, email)| (name.into(), email.into())), "{reason}");
    }
}

#[tokio::test]
async fn a_list_without_users_is_imported_with_no_rows() {
    for (file, text, reason) in [
        ("users.csv", "name,email\n", "only a header"),
        ("users.csv", "name,email", "only a header, without its newline"),
        ("users.csv", "\u{feff}name,email\r\n\r\n", "a header and a blank line"),
        ("users.jsonl", "", "no lines"),
        ("USERS.NDJSON", "", "no lines, and an ending in capitals"),
        ("users.jsonl", "\n \r\n", "blank lines"),
    ] {
        let place = Place::with(file, text);

        let run = place.import(&[file]).await;

        assert_eq!((run.whole(), run.stderr.as_str()), ((0, 0, 0), ""), "{reason}");
    }
}

#[tokio::test]
async fn every_row_is_imported_rejected_or_skipped() {
    let first = format!("name,email\n{}{BAD_CSV}{}", rows(1..=3), rows(4..=6));
    let more = format!("{}{BAD_CSV}{BAD_CSV}{}", rows(7..=9), rows([10]));
    let place = Place::with("users.csv", &first);

    let run = place.import(&["users.csv", "--key", "k"]).await;
    place.write("users.csv", format!("{first}{more}"));
    let grown = place.import(&["users.csv", "--key", "k"]).await;

    assert_eq!(run.whole(), (6, 1, 0));
    assert_eq!(grown.whole(), (4, 2, 7), "13 rows in all");
    place.assert_holds_users(10, "7 rows, then 6 more").await;
    assert_eq!(place.progress().await, [13]);
}

#[tokio::test]
async fn nothing_of_a_progress_bar_is_written_where_no_terminal_is() {
    let users = CHUNK * 4;
    let place = Place::with("users.csv", csv(users));

    let run = place.import(&["users.csv"]).await;

    assert_eq!((run.whole(), run.stderr.as_str()), ((users, 0, 0), ""));
    assert!(run.stdout.chars().filter(|c| c.is_control()).eq(['\n']), "{run:?}");
}

#[tokio::test]
async fn a_progress_bar_is_drawn_on_a_terminal_and_gone_at_the_end() {
    let users = CHUNK * 4;
    let place = Place::with("users.csv", csv(users));
    let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    let mut command = place.command(&["users.csv"]);
    command.env("TERM", "xterm").stdout(Stdio::piped()).stderr(terminal.slave);
    let mut screen = File::from(terminal.master);
    let shown = std::thread::spawn(move || {
        let mut shown = Vec::new();
        // Reading a terminal that nobody has open any more fails.
        let _ = screen.read_to_end(&mut shown);
        String::from_utf8(shown).unwrap()
    });

    let mut command = tokio::process::Command::from(command);
    let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    drop(command);
    let run = Run::from(in_time("the end of the import", child.wait_with_output()).await.unwrap());

    assert_eq!(run.whole(), (users, 0, 0));
    let shown = shown.join().unwrap();
    assert!(shown.contains("5,000 rows"), "{shown:?}");
    assert!(shown.ends_with("\r\u{1b}[2K"), "the line is not cleared: {shown:?}");
}

// ---- Rejected rows ----

#[tokio::test]
async fn rejected_rows_are_told_on_stderr_by_line_with_the_reason() {
    let csv = format!("name,email\n{}{BAD_CSV}{}C,c\nD\n", rows([1]), rows([2]));
    let json_lines = format!("{}{BAD_JSON}not JSON\n", json_lines(1));
    let place = Place::with("users.csv", csv);
    place.write("users.jsonl", json_lines);

    let csv = place.import(&["users.csv"]).await;
    let json_lines = place.import(&["users.jsonl"]).await;

    assert_eq!(csv.whole(), (2, 3, 0));
    let said = csv.said();
    assert_eq!(said[0], format!("users.csv, line 3: {BAD_REASON}"));
    assert!(said[1].starts_with("users.csv, line 5: email must be an e-mail address"), "{said:?}");
    assert_eq!(said[2], "users.csv, line 6: the row has 1 fields, expected name and email");
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(json_lines.whole(), (1, 2, 0));
    let said = json_lines.said();
    assert_eq!(said[0], format!("users.jsonl, line 2: {BAD_REASON}"));
    assert!(said[1].starts_with("users.jsonl, line 3: the row is not a user: "), "{said:?}");
    assert_eq!(said.len(), 2, "{said:?}");
}

#[tokio::test]
async fn rejected_rows_of_stdin_are_told_with_their_lines_too() {
    let place = Place::new();

    let run = place.import_stdin(&[], format!("{}{BAD_CSV}", csv(1))).await;

    assert_eq!(run.whole(), (1, 1, 0));
    assert_eq!(run.sentence(), format!("stdin, line 3: {BAD_REASON}"));
}

#[tokio::test]
async fn lines_are_counted_as_an_editor_counts_them() {
    for (text, lines, reason) in [
        ("name,email\n,a@b.c\nA,a@b.c\n,a@b.c\n", [2, 4], "LF"),
        ("name,email\r\n,a@b.c\r\nA,a@b.c\r\n,a@b.c\r\n", [2, 4], "CRLF"),
        ("name,email\n\n\n,a@b.c\n\n,a@b.c\n", [4, 6], "blank lines before them"),
        ("\r\nname,email\r\n\r\n,a@b.c\r\nA,a@b.c\r\n\r\n,a@b.c\r\n", [4, 7], "both"),
        ("name,email\r,a@b.c\rA,a@b.c\r,a@b.c\r", [2, 4], "CR"),
        ("\r\rname,email\r\r,a@b.c\r\n\r,a@b.c", [5, 7], "CR and blank lines"),
        ("name,email\rA,a@b.c\n,a@b.c\r\nA,a@b.c\r\r\n\n,a@b.c\n", [3, 7], "all of them"),
        ("name,email\n\"A\nB,a@b.c\n,a@b.c\n", [2, 4], "an open quote"),
    ] {
        let place = Place::with("users.csv", text);

        let run = place.import(&["users.csv", "--rejects", "rejects.jsonl"]).await;

        let told: Vec<Value> = rejects(&place.read("rejects.jsonl")).iter().map(|row| row["line"].clone()).collect();
        assert_eq!(told, lines, "{reason}: {run:?}");
    }
    for text in [format!("\r\n\r\n{BAD_JSON}\n{BAD_JSON}"), format!("\r\r{BAD_JSON}\r{BAD_JSON}").replace('\n', "\r")] {
        let place = Place::with("users.jsonl", text + &json_lines(1));
        let run = place.import(&["users.jsonl"]).await;
        let expected = [3, 5].map(|line| format!("users.jsonl, line {line}: {BAD_REASON}"));
        assert_eq!(run.said(), expected, "JSON lines");
    }
}

#[tokio::test]
async fn rejected_rows_are_appended_to_the_rejects_file_as_json_lines() {
    const KEPT: &str = "{\"line\":9,\"reason\":\"of another run\",\"row\":\"\"}\n";
    let place = Place::with("users.csv", format!("{}\"\",\"Smith, \"\"J\"\"\"\n{BAD_CSV}", csv(1)));
    place.write("rejects.jsonl", KEPT);

    let run = place.import(&["users.csv", "--rejects", "rejects.jsonl"]).await;

    assert_eq!((run.whole(), run.stderr.as_str()), ((1, 2, 0), ""));
    let text = place.read("rejects.jsonl");
    assert!(text.starts_with(KEPT), "{text}");
    let rejects = rejects(&text);
    assert_eq!(rejects.len(), 3, "{text}");
    assert!(rejects[1]["reason"].as_str().unwrap().starts_with(&format!("{BAD_REASON}; email must be")), "{text}");
    assert_eq!((&rejects[1]["line"], &rejects[1]["row"]), (&json!(3), &json!("\"\",\"Smith, \"\"J\"\"\"")));
    assert_eq!(rejects[2], json!({"line": 4, "reason": BAD_REASON, "row": ",user@example.com"}));
}

#[tokio::test]
async fn a_rejects_file_is_there_also_when_no_row_is_rejected() {
    let place = Place::with("users.csv", csv(1));

    let run = place.import(&["users.csv", "--rejects", "rejects.jsonl"]).await;

    assert_eq!(run.whole(), (1, 0, 0));
    assert_eq!(place.read("rejects.jsonl"), "");
}

#[tokio::test]
async fn a_row_cannot_write_control_characters_to_the_terminal() {
    let place = Place::with("users.jsonl", "{\"\\u001b[31m\\nimported\":\"x\"}\n");

    let run = place.import(&["users.jsonl"]).await;

    assert_eq!(run.in_vain(), 1);
    assert!(run.stderr.chars().filter(|c| c.is_control()).eq(['\n', '\n']), "{:?}", run.stderr);
    assert!(run.said()[0].starts_with("users.jsonl, line 1: the row is not a user: "), "{run:?}");
}

#[tokio::test]
async fn the_reason_of_a_rejection_is_short_however_long_the_row() {
    let long = "x".repeat(500_000);
    let place = Place::with("users.jsonl", format!("{{\"{long}\":\"x\"}}\n"));

    let run = place.import(&["users.jsonl"]).await;

    assert_eq!(run.in_vain(), 1);
    assert!(run.said()[0].len() < 1000, "{} bytes", run.said()[0].len());
}

#[tokio::test]
async fn as_many_rows_as_allowed_may_be_rejected_and_not_one_more() {
    for (arguments, allowed) in [(&["--max-errors", "0"][..], 0), (&["--max-errors", "3"], 3), (&[], 1000)] {
        let place = Place::with("enough.csv", format!("{}{}{}", csv(1), BAD_CSV.repeat(allowed), rows([2])));
        place.write("too_many.csv", format!("{}{}{}", csv(1), BAD_CSV.repeat(allowed + 1), rows([2])));
        let rejected = u32::try_from(allowed).unwrap();

        let enough = place.import(&[&["enough.csv"], arguments].concat()).await;
        let too_many = place.import(&[&["too_many.csv"], arguments].concat()).await;

        assert_eq!(enough.whole(), (2, rejected, 0));
        assert_eq!(too_many.cut(1), (1, rejected, 0), "what came before is imported");
        let said = too_many.said();
        assert_eq!(said.len(), allowed + 1, "{said:?}");
        let line = allowed + 3;
        let expected = format!(
            "more than {allowed} rows of too_many.csv are rejected (--max-errors, IMPORT_MAX_ERRORS): line {line}: {BAD_REASON}"
        );
        assert_eq!(said[allowed], expected);
        assert_eq!(place.names().await, ["User 1", "User 2", "User 1"]);
    }
}

#[tokio::test]
async fn an_import_with_too_many_errors_goes_on_under_a_higher_limit() {
    // The one too many stands in the second transaction.
    let good = CHUNK + 10;
    let text = format!("{}{BAD_CSV}{BAD_CSV}{}{BAD_CSV}{}", csv(good), rows([good + 1]), rows([good + 2]));
    let place = Place::with("users.csv", text);

    let cut = place.import(&["users.csv", "--max-errors", "1"]).await;
    let again = place.import(&["users.csv", "--max-errors", "1"]).await;
    let whole = place.import(&["users.csv", "--max-errors", "2"]).await;

    assert_eq!(cut.cut(1), (good, 1, 0));
    assert_eq!(again.cut(1), (1, 1, good + 1), "the limit is each run's own");
    assert_eq!(whole.whole(), (1, 1, good + 3));
    place.assert_holds_users(good + 2, "in three runs").await;
}

#[tokio::test]
async fn a_rejects_file_that_takes_no_more_ends_the_import_and_loses_nothing() {
    let good = CHUNK;
    let text = format!("{}{}{BAD_CSV}", csv(good), rows([good + 1]));
    let place = Place::with("users.csv", text);

    // A device that is always full.
    let cut = place.import(&["users.csv", "--rejects", "/dev/full"]).await;
    let whole = place.import(&["users.csv", "--rejects", "rejects.jsonl"]).await;

    assert_eq!(cut.cut(1), (good, 0, 0));
    assert_eq!(cut.sentence(), "the rejects file /dev/full cannot be written: No space left on device (os error 28)");
    assert_eq!(whole.whole(), (1, 1, good));
    assert_eq!(rejects(&place.read("rejects.jsonl")).len(), 1);
    place.assert_holds_users(good + 1, "in two runs").await;
}

#[tokio::test]
async fn a_rejects_file_that_cannot_be_opened_ends_the_import_before_it_begins() {
    let place = Place::with("users.csv", csv(1));

    let run = place.import(&["users.csv", "--rejects", "missing/rejects.jsonl"]).await;

    assert_eq!(run.cut(1), (0, 0, 0));
    let expected = "the rejects file missing/rejects.jsonl cannot be written: No such file or directory (os error 2)";
    assert_eq!(run.sentence(), expected);
    assert!(!place.path("data").exists());
}

#[tokio::test]
async fn rejects_are_not_written_into_what_is_imported() {
    let place = Place::with("users.csv", format!("{}{BAD_CSV}", csv(1)));
    let content = place.read("users.csv");
    std::os::unix::fs::symlink("users.csv", place.path("link")).unwrap();

    for rejects in ["users.csv", "./users.csv", "link"] {
        let run = place.import(&["users.csv", "--rejects", rejects]).await;

        assert_eq!(run.cut(1), (0, 0, 0), "{rejects}");
        assert_eq!(run.sentence(), format!("the rejects file {rejects} is what is imported"));
    }

    assert_eq!(place.read("users.csv"), content);
}

#[tokio::test]
async fn long_rejected_rows_do_not_fill_the_memory() {
    const ROWS: u32 = 200;
    let place = Place::new();
    let mut import = place.start(&["--rejects", "rejects.jsonl"]);
    let row = format!(",{}\n", "x".repeat(1_000_000));

    import.feed("name,email\n").await;
    for _ in 0..ROWS {
        import.feed(&row).await;
    }
    // All but what the pipe holds is read now.
    let peak_kib = peak_kib(&import);

    assert_eq!(import.end().await.in_vain(), ROWS);
    assert!(peak_kib < 64 * 1024, "{peak_kib} KiB for {ROWS} rows of 1 MB");
}

// ---- Going on ----

#[tokio::test]
async fn an_import_that_was_killed_goes_on_where_it_ended() {
    let place = Place::new();
    let all = csv(CHUNK * 4);
    let mut import = place.start(&["--key", "k"]);
    import.feed(csv(CHUNK * 2 + 100)).await;
    place.until_committed(CHUNK * 2).await;

    import.signal(SIGKILL);
    let killed = import.end_by_itself().await;
    let again = place.import_stdin(&["--key", "k"], &all).await;

    assert_eq!((killed.status.code(), killed.stdout.as_str()), (None, ""));
    assert_eq!(again.whole(), (CHUNK * 2, 0, CHUNK * 2));
    assert_eq!(again.sentence(), "10,000 rows of stdin are imported already, under the key k");
    place.assert_holds_users(CHUNK * 4, "in two runs").await;
}

#[tokio::test]
async fn an_import_that_is_killed_again_and_again_makes_each_row_one_user() {
    let users = CHUNK * 40;
    for (file, content) in [("users.csv", csv(users)), ("users.jsonl", json_lines(users))] {
        let place = Place::with(file, content);
        let (mut before, mut cuts) = (0, 0);
        while cuts < 4 && before < users {
            let import = Import::spawn(place.command(&[file]));
            // It is in the middle of its work when one of its transactions has been seen.
            place.until_committed(before + 1).await;
            import.signal(SIGKILL);
            cuts += u32::from(import.end().await.status.code().is_none());
            before = place.committed().await;
        }
        let rest = place.import(&[file]).await;

        assert_eq!(rest.whole(), (users - before, 0, before), "{file}");
        place.assert_holds_users(users, &format!("{file}, killed {cuts} times")).await;
        assert!(cuts > 0, "{file}: it was never killed, which proves nothing");
        assert_eq!(place.progress().await, [users], "{file}");
    }
}

#[tokio::test]
async fn an_import_that_is_killed_loses_no_rejection() {
    let place = Place::new();
    let all = format!("{}{BAD_CSV}{}", csv(CHUNK), rows(CHUNK + 1..=CHUNK * 2));
    let arguments = ["--key", "k", "--rejects", "rejects.jsonl"];
    let mut import = place.start(&arguments);
    import.feed(csv(CHUNK)).await;
    place.until_committed(CHUNK).await;
    let mut other = place.database().await;
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();

    // Killed between the rejections of a transaction and its commit.
    import.feed(&all[csv(CHUNK).len()..]).await;
    let told = async || (!place.read("rejects.jsonl").is_empty()).then_some(());
    eventually("the rejection", told).await;
    import.signal(SIGKILL);
    import.end_by_itself().await;
    lock.rollback().await.unwrap();
    let again = place.import_stdin(&arguments, all).await;

    assert_eq!(again.whole(), (CHUNK, 1, CHUNK));
    let expected = json!({"line": CHUNK + 2, "reason": BAD_REASON, "row": BAD_CSV.trim_end()});
    assert_eq!(rejects(&place.read("rejects.jsonl")), [expected.clone(), expected], "told by both runs");
    place.assert_holds_users(CHUNK * 2, "in two runs").await;
}

#[tokio::test]
async fn an_import_that_is_told_to_end_leaves_nothing_half_and_can_go_on() {
    for (signal, code) in [(SIGTERM, 143), (SIGINT, 130)] {
        let place = Place::new();
        let all = csv(CHUNK * 3);
        let mut import = place.start(&["--key", "k"]);
        import.feed(csv(CHUNK + 100)).await;
        place.until_committed(CHUNK).await;

        import.signal(signal);
        let cut = import.end_by_itself().await;

        assert_eq!((cut.cut(code), cut.stderr.as_str()), ((CHUNK, 0, 0), ""), "{signal}");
        place.assert_holds_users(CHUNK, "the whole transaction").await;
        assert_eq!(place.progress().await, [CHUNK], "{signal}");
        assert_eq!(place.import_stdin(&["--key", "k"], all).await.whole(), (CHUNK * 2, 0, CHUNK), "{signal}");
        place.assert_holds_users(CHUNK * 3, "in two runs").await;
    }
}

#[tokio::test]
async fn an_import_of_a_file_that_is_told_to_end_can_go_on() {
    let users = CHUNK * 40;
    let place = Place::with("users.csv", csv(users));
    let import = Import::spawn(place.command(&["users.csv"]));
    place.until_committed(CHUNK).await;

    import.signal(SIGTERM);
    let cut = import.end().await;
    let (imported, ..) = cut.cut(143);
    let held = place.committed().await;
    let whole = place.import(&["users.csv"]).await;

    assert_eq!(imported, held, "what it says is what the database holds");
    assert_eq!(imported % CHUNK, 0, "whole transactions");
    assert_eq!(whole.whole(), (users - imported, 0, imported));
    place.assert_holds_users(users, "in two runs").await;
}

#[tokio::test]
async fn an_import_is_told_to_end_also_while_nobody_reads_what_it_says() {
    // Rejections of one transaction, and more than a pipe holds.
    let place = Place::with("users.csv", format!("name,email\n{}", BAD_CSV.repeat(CHUNK as usize)));
    let mut child = Import::spawn(place.command(&["users.csv", "--max-errors", "5000"])).child;
    let mut said = child.stderr.take().unwrap();
    in_time("its first word", said.read_u8()).await.unwrap();

    kill(Pid::from_raw(child.id().unwrap().try_into().unwrap()), SIGTERM).unwrap();
    let status = in_time("the end of the import", child.wait()).await.unwrap();

    assert_eq!(status.code(), Some(143));
    drop(said);
}

#[tokio::test]
async fn a_file_that_was_imported_is_not_imported_again() {
    for (file, content, form) in [("users.csv", csv(3), "csv"), ("users.jsonl", json_lines(3), "jsonl")] {
        let place = Place::with(file, content);
        place.import(&[file]).await.whole();

        let again = place.import(&[file]).await;

        assert_eq!(again.whole(), (0, 0, 3), "{file}");
        let said = again.sentence();
        let key = said.strip_prefix(&format!("3 rows of {file} are imported already, under the key sha256:"));
        let digest = key.and_then(|key| key.strip_suffix(&format!(":{form}")));
        assert!(digest.is_some_and(|digest| digest.len() == 64), "{said}");
        place.assert_holds_users(3, file).await;
    }
}

#[tokio::test]
async fn a_copy_under_another_name_counts_as_imported() {
    let place = Place::with("users.csv", csv(3));
    place.import(&["users.csv"]).await.whole();
    std::fs::rename(place.path("users.csv"), place.path("renamed.csv")).unwrap();

    let again = place.import(&["renamed.csv"]).await;

    assert_eq!(again.whole(), (0, 0, 3));
    place.assert_holds_users(3, "the first import's").await;
}

#[tokio::test]
async fn a_file_with_other_content_is_another_import() {
    let place = Place::with("users.csv", csv(1));
    place.import(&["users.csv"]).await.whole();
    place.write("users.csv", csv(2));

    let other = place.import(&["users.csv"]).await;

    assert_eq!((other.whole(), other.stderr.as_str()), ((2, 0, 0), ""));
    assert_eq!(place.names().await, ["User 1", "User 1", "User 2"]);
}

#[tokio::test]
async fn another_key_makes_another_import_of_the_same_file() {
    let place = Place::with("users.csv", csv(2));
    place.import(&["users.csv"]).await.whole();

    let by_flag = place.import(&["users.csv", "--key", "again"]).await;
    let mut command = place.command(&["users.csv"]);
    command.env("IMPORT_KEY", "and again");
    let by_variable = Run::from(finished(command).await);
    let same_key = place.import(&["users.csv", "--key", "again"]).await;

    assert_eq!((by_flag.whole(), by_flag.stderr.as_str()), ((2, 0, 0), ""));
    assert_eq!((by_variable.whole(), by_variable.stderr.as_str()), ((2, 0, 0), ""));
    assert_eq!(same_key.whole(), (0, 0, 2));
    assert_eq!(place.names().await, ["User 1", "User 2", "User 1", "User 2", "User 1", "User 2"]);
}

#[tokio::test]
async fn stdin_without_a_key_is_imported_each_time() {
    let place = Place::new();

    for _ in 0..2 {
        let run = place.import_stdin(&[], csv(2)).await;
        assert_eq!((run.whole(), run.stderr.as_str()), ((2, 0, 0), ""));
    }

    assert_eq!(place.names().await, ["User 1", "User 2", "User 1", "User 2"]);
    assert_eq!(place.progress().await, [0; 0], "nothing is noted");
}

#[tokio::test]
async fn skipped_rows_are_counted_as_far_as_the_source_has_them() {
    let place = Place::new();
    place.import_stdin(&["--key", "k"], csv(10)).await.whole();

    let shorter = place.import_stdin(&["--key", "k"], csv(3)).await;

    assert_eq!(shorter.summary().0, (0, 0, 3), "{shorter:?}");
}

#[tokio::test]
async fn a_file_that_was_read_in_the_wrong_format_can_be_imported_in_the_right_one() {
    let place = Place::with("users.txt", csv(2));
    let wrong = place.import(&["users.txt", "--format", "jsonl"]).await;

    let right = place.import(&["users.txt", "--format", "csv"]).await;

    assert_eq!(wrong.in_vain(), 3);
    assert_eq!(right.whole(), (2, 0, 0));
    place.assert_holds_users(2, "by the second run").await;
}

#[tokio::test]
async fn rows_that_version_0_1_0_counted_otherwise_are_not_guessed_at() {
    let content = format!("name,email\n\"A\nB\",b@example.com\n{}", rows([1]));
    let place = Place::with("users.csv", &content);
    place.write("good.csv", csv(1));
    let elsewhere = Place::with("users.csv", &content);
    elsewhere.import(&["users.csv"]).await.whole();
    let keys = "SELECT key FROM imports";
    let key: String = sqlx::query_scalar(keys).fetch_one(&mut elsewhere.database().await).await.unwrap();
    place.import(&["good.csv"]).await.whole();
    // As that version left it: the open quote and the next line were one rejected row, and User 1 was imported.
    let earlier = sqlx::query("INSERT INTO imports (key, rows) VALUES (?, 2)");
    let earlier = earlier.bind(key.strip_suffix(":lines").unwrap());
    earlier.execute(&mut place.database().await).await.unwrap();

    let same = place.import(&["users.csv"]).await;
    let all_again = place.import(&["users.csv", "--key", "again"]).await;

    assert_eq!(same.cut(1), (0, 0, 0));
    assert!(same.sentence().starts_with("an earlier version has imported rows of users.csv"), "{same:?}");
    assert_eq!(all_again.whole(), (1, 2, 0));
    assert_eq!(place.names().await, ["User 1", "User 1"], "of good.csv, and of the import that was asked for");
}

#[tokio::test]
async fn an_import_that_another_one_overtakes_ends_and_no_row_comes_twice() {
    let place = Place::new();
    let mut overtaken = place.start(&["--key", "k"]);
    overtaken.feed(csv(CHUNK)).await;
    place.until_committed(CHUNK).await;
    let mut other = place.start(&["--key", "k"]);
    other.feed(csv(CHUNK * 2)).await;
    place.until_committed(CHUNK * 2).await;

    overtaken.feed(rows(CHUNK + 1..=CHUNK * 2)).await;
    let overtaken = overtaken.end_by_itself().await;
    other.feed(rows([CHUNK * 2 + 1])).await;
    let other = other.end().await;

    assert_eq!(overtaken.cut(1), (CHUNK, 0, 0));
    assert_eq!(overtaken.sentence(), "another process is importing under the key \"k\"");
    assert_eq!(other.whole(), (CHUNK + 1, 0, CHUNK));
    place.assert_holds_users(CHUNK * 2 + 1, "by both").await;
}

#[tokio::test]
async fn of_two_imports_of_one_file_at_once_one_says_so_and_no_row_comes_twice() {
    let users = CHUNK * 4;
    let place = Place::with("users.csv", csv(users));
    place.import_stdin(&[], csv(0)).await.whole();

    let (one, two) = join(place.import(&["users.csv"]), place.import(&["users.csv"])).await;

    // One is overtaken by the other, or begins where the other has come to, or both.
    let overtaken = |run: &Run| run.said().iter().any(|said| said.starts_with("another process is importing"));
    let began_late = |run: &Run| run.said().iter().any(|said| said.contains("are imported already"));
    let both = [&one, &two];
    assert!(both.iter().any(|run| overtaken(run) || began_late(run)), "{both:?}");
    assert!(both.iter().all(|run| overtaken(run) != run.status.success()), "{both:?}");
    assert!(both.iter().any(|run| run.status.success()), "{both:?}");
    assert_eq!(both.iter().map(|run| run.summary().0.0).sum::<u32>(), users, "{both:?}");
    place.assert_holds_users(users, "by both").await;
}

#[tokio::test]
async fn imports_of_different_files_at_once_are_all_made() {
    let place = Place::new();
    let users = CHUNK * 2;
    place.import_stdin(&[], csv(0)).await.whole();

    let runs = join_all((0..4).map(|_| place.import_stdin(&[], csv(users)))).await;

    assert!(runs.iter().all(|run| run.whole() == (users, 0, 0)), "{runs:?}");
    assert_eq!(place.committed().await, users * 4);
    let names = place.names().await;
    for number in [1, users / 2, users] {
        assert_eq!(names.iter().filter(|held| **held == name(number)).count(), 4);
    }
}

// ---- Beside a running service ----

#[tokio::test]
async fn a_running_service_shows_imported_users_and_takes_writes_meanwhile() {
    let place = Place::with("users.csv", csv(CHUNK * 40));
    let users = CHUNK * 40;
    let server = Server::start_in(Arc::clone(&place.0), &[]).await;
    let done = tokio::sync::Notify::new();

    let import = async {
        let run = place.import(&["users.csv"]).await;
        done.notify_one();
        run
    };
    let writes = async {
        let mut ids = Vec::new();
        let mut done = std::pin::pin!(done.notified());
        loop {
            let body = json!({"name": "Written meanwhile", "email": "john@example.com"});
            let answer = Answer::to(server.request("POST", "/api/users").json(&body)).await;
            assert_eq!(answer.status, 201, "{}", answer.text());
            ids.push(answer.json()["id"].as_u64().unwrap());
            if futures_util::FutureExt::now_or_never(done.as_mut()).is_some() {
                return ids;
            }
        }
    };
    let (run, ids) = join(import, writes).await;

    assert_eq!(run.whole(), (users, 0, 0));
    let listing = server.get("/api/users").await.json();
    let listed = |user: &Value| user["name"].as_str().unwrap().to_owned();
    let listing: Vec<(u64, String)> =
        listing["users"].as_array().unwrap().iter().map(|user| (user["id"].as_u64().unwrap(), listed(user))).collect();
    let (written, imported): (Vec<_>, Vec<_>) = listing.into_iter().partition(|(id, _)| ids.contains(id));
    assert!(written.len() == ids.len() && written.iter().all(|(_, name)| name == "Written meanwhile"));
    assert!(imported.into_iter().map(|(_, name)| name).eq((1..=users).map(name)), "in the file's order");
    let count = users as usize + ids.len();
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let follows = async || (server.metrics().await.value("api_users", &[]) == count as f64).then_some(());
    eventually("api_users to follow", follows).await;
    let registered = server.metrics().await.value("api_users_registered_total", &[]);
    assert_eq!(registered, f64::from(u32::try_from(ids.len()).unwrap()), "what the API created, and nothing else");
}

#[tokio::test]
async fn the_number_of_users_follows_an_import_though_the_service_writes_nothing() {
    let place = Place::with("users.csv", csv(3));
    let server = Server::start_in(Arc::clone(&place.0), &[]).await;

    place.import(&["users.csv"]).await.whole();

    let follows = async || (server.metrics().await.value("api_users", &[]) == 3.0).then_some(());
    eventually("api_users to follow", follows).await;
    let registered = server.metrics().await.value("api_users_registered_total", &[]);
    assert_eq!(registered, 0.0, "the service created none of them");
}

#[tokio::test]
async fn the_ids_of_imported_users_go_on_after_those_of_the_api() {
    let place = Place::with("users.csv", csv(2));
    let server = Server::start_in(Arc::clone(&place.0), &[]).await;
    let before = server.create("before").await;

    place.import(&["users.csv"]).await.whole();
    let after = server.create("after").await;

    assert_eq!((before, after), (1, 4));
    assert_eq!(server.get("/api/users/3").await.json()["name"], "User 2");
}

// ---- When the database fails ----

#[tokio::test]
async fn a_database_that_another_program_locks_for_long_ends_the_import_which_can_go_on() {
    let place = Place::new();
    let mut import = place.start(&["--key", "k"]);
    import.feed(csv(CHUNK)).await;
    place.until_committed(CHUNK).await;
    let mut other = place.database().await;
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();

    import.feed(rows(CHUNK + 1..=CHUNK * 2)).await;
    let cut = import.end_by_itself().await;
    let at_start = place.import_stdin(&["--key", "k"], csv(CHUNK * 2)).await;
    lock.rollback().await.unwrap();
    let whole = place.import_stdin(&["--key", "k"], csv(CHUNK * 2)).await;

    assert_eq!(cut.cut(1), (CHUNK, 0, 0));
    let said = cut.sentence();
    assert!(said.starts_with("the users cannot be stored: the database does not answer: "), "{said}");
    assert!(said.ends_with("database is locked"), "{said}");
    assert_eq!(at_start.cut(1), (0, 0, 0));
    let said = at_start.sentence();
    assert!(said.starts_with("the database sqlite://data/users.db is locked by another program: "), "{said}");
    assert_eq!(whole.whole(), (CHUNK, 0, CHUNK));
    place.assert_holds_users(CHUNK * 2, "in two runs").await;
}

#[tokio::test]
async fn a_database_that_is_locked_for_a_moment_is_waited_for() {
    let place = Place::new();
    place.import_stdin(&["--key", "k"], csv(1)).await.whole();
    let mut other = place.database().await;
    let lock = other.begin_with("BEGIN EXCLUSIVE").await.unwrap();

    let mut import = place.start(&["--key", "k"]);
    let files = format!("/proc/{}/fd", import.pid());
    let has_it_open = || {
        let mut files = std::fs::read_dir(&files).unwrap().flatten();
        files.any(|file| std::fs::read_link(file.path()).is_ok_and(|path| path.ends_with("data/users.db")))
    };
    eventually("its opening of the database", async || has_it_open().then_some(())).await;
    lock.rollback().await.unwrap();
    import.feed(csv(2)).await;

    assert_eq!(import.end().await.whole(), (1, 0, 1));
}

/// A limit on the size of files stands for a full disk: what would grow a file beyond it fails in the same place.
#[tokio::test]
async fn a_full_disk_ends_the_import_which_can_go_on_when_there_is_room() {
    let users = CHUNK * 10;
    let place = Place::with("users.csv", csv(users));
    let mut command = Command::new("bash");
    // The signal that comes with such a write is ignored, so that the write itself fails.
    let limited = format!("trap '' XFSZ; ulimit -S -f 1000; exec {BINARY} import users.csv");
    command.args(["-c", &limited]).current_dir(place.0.path()).env_clear();

    let cut = Run::from(finished(command).await);
    let held = place.committed().await;
    let whole = place.import(&["users.csv"]).await;

    let (imported, rejected, skipped) = cut.cut(1);
    assert_eq!((imported, rejected, skipped), (held, 0, 0), "what it says is what the database holds");
    assert!(held > 0 && held < users, "{held} users prove nothing");
    let said = cut.sentence();
    assert!(said.starts_with("the users cannot be stored: the database failed: "), "{said}");
    assert_eq!(whole.whole(), (users - held, 0, held));
    place.assert_holds_users(users, "in two runs").await;
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named() {
    let place = Place::with("users.csv", csv(1));
    place.write("text.db", "this is no database, whatever its name says. ".repeat(100));
    std::fs::create_dir(place.path("folder.db")).unwrap();
    for (file, expected, reason) in [
        ("text.db", "the database sqlite://text.db is corrupt or no database at all", "a text"),
        ("folder.db", "the database sqlite://folder.db cannot be opened", "a folder"),
        ("users.csv/users.db", "the folder \"users.csv\" of the database", "a file where its folder should be"),
    ] {
        let run = place.import(&["users.csv", "--database-url", &format!("sqlite://{file}")]).await;

        assert_eq!(run.cut(1), (0, 0, 0), "{reason}");
        assert!(run.sentence().starts_with(expected), "{reason}: {run:?}");
    }
    let elsewhere = place.import(&["users.csv", "--database-url", "sqlite://other/users.db"]).await;
    assert_eq!(elsewhere.whole(), (1, 0, 0));
    assert!(!place.path("data").exists(), "the default is left alone");
}

// ---- Bad input ----

#[tokio::test]
async fn a_source_that_is_no_list_of_users_is_refused_in_one_sentence() {
    const HEADER: &str = ", expected the columns name and email, separated by a comma";
    let cases: [(&str, &[u8], &str, &str); 7] = [
        ("users.csv", b"name;email\nA;a@example.com\n", "\"name;email\"", "another delimiter"),
        ("users.csv", b"name\temail\nA\ta@example.com\n", r#""name\temail""#, "tabs"),
        ("users.csv", b"A,a@example.com\n", "\"A,a@example.com\"", "no header"),
        ("users.csv", b"name,email,age\nA,a@example.com,7\n", "\"name,email,age\"", "a column too many"),
        ("users.csv", b"name\nA\n", "\"name\"", "a column too few"),
        ("users.csv", b"name,name\nA,A\n", "\"name,name\"", "a column twice"),
        ("users.txt", b"[{\"name\":\"A\"}]\n", "\"", "a JSON array"),
    ];
    for (file, content, shown, reason) in cases {
        let place = Place::with(file, content);

        let from_file = place.import(&[file]).await;
        let from_stdin = place.import_stdin(&[], content).await;

        for (run, source) in [(from_file, file), (from_stdin, "stdin")] {
            assert_eq!(run.cut(1), (0, 0, 0), "{reason}");
            let said = run.sentence();
            assert!(said.starts_with(&format!("{source} has the header {shown}")), "{reason}: {said}");
            assert!(said.ends_with(HEADER), "{reason}: {said}");
        }
        assert_eq!(place.committed().await, 0, "{reason}");
    }
}

#[tokio::test]
async fn an_empty_csv_source_is_called_empty() {
    let place = Place::with("users.csv", "");

    let from_file = place.import(&["users.csv"]).await;
    let from_stdin = place.import_stdin(&[], "").await;

    for (run, source) in [(from_file, "users.csv"), (from_stdin, "stdin")] {
        assert_eq!(run.cut(1), (0, 0, 0));
        assert!(run.sentence().starts_with(&format!("{source} is empty")), "{run:?}");
    }
}

#[tokio::test]
async fn a_header_that_goes_on_and_on_is_shown_in_part() {
    let place = Place::with("users.csv", "x".repeat(500_000));

    let run = place.import(&["users.csv"]).await;

    assert_eq!(run.cut(1), (0, 0, 0));
    assert!(run.sentence().starts_with("users.csv has the header \"xxx"), "{:.100}", run.sentence());
    assert!(run.sentence().len() < 1000, "{} bytes", run.sentence().len());
}

#[tokio::test]
async fn a_source_that_cannot_be_read_is_named() {
    let place = Place::new();
    std::fs::create_dir(place.path("folder")).unwrap();
    for (file, expected) in [
        ("missing.csv", "missing.csv cannot be read: No such file or directory (os error 2)"),
        ("folder", "folder cannot be read: Is a directory (os error 21)"),
    ] {
        for arguments in [&[file][..], &[file, "--key", "k"]] {
            let run = place.import(arguments).await;

            assert_eq!((run.cut(1), run.sentence()), ((0, 0, 0), expected), "{arguments:?}");
        }
    }
}

#[tokio::test]
async fn another_encoding_is_named_with_what_converts_it() {
    let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    for (content, what, reason) in [
        (
            utf_16(&format!("\u{feff}{}", csv(1))),
            "in UTF-16LE, expected UTF-8; `iconv -f UTF-16LE -t UTF-8`",
            "with a mark",
        ),
        (utf_16(&csv(1)), "in UTF-16LE, expected UTF-8; `iconv -f UTF-16LE -t UTF-8`", "without one"),
        (utf_16(&json_lines(1)), "in UTF-16LE, expected UTF-8; `iconv -f UTF-16LE -t UTF-8`", "JSON lines"),
        (b"\xfe\xff\0n\0a".to_vec(), "in UTF-16BE, expected UTF-8; `iconv -f UTF-16BE -t UTF-8`", "big-endian"),
        (b"\x1f\x8b\x08\0\0\0\0\0".to_vec(), "compressed with gzip, expected text; `gzip -dc`", "gzip"),
        (b"PK\x03\x04\x14\0\x06\0".to_vec(), "a ZIP archive or a spreadsheet's workbook, expected text", "a workbook"),
    ] {
        for file in ["users.csv", "users.jsonl", "users"] {
            let place = Place::with(file, &content);

            let from_file = place.import(&[file]).await;
            let from_stdin = place.import_stdin(&[], &content).await;

            for (run, source) in [(from_file, file), (from_stdin, "stdin")] {
                assert_eq!(run.cut(1), (0, 0, 0), "{reason}");
                assert!(run.sentence().starts_with(&format!("{source} is {what}")), "{reason}: {run:?}");
            }
        }
    }
}

#[tokio::test]
async fn an_open_quote_costs_its_row_and_no_other() {
    const GOOD: u32 = 20_000;
    let text = format!("name,email\n\"Eve,eve@example.com\n{}", rows(1..=GOOD));
    let place = Place::with("users.csv", &text);

    let run = place.import(&["users.csv", "--rejects", "rejects.jsonl"]).await;

    assert_eq!(run.whole(), (GOOD, 1, 0));
    let told = json!({
        "line": 2,
        "reason": "a quote is left open, and a row ends with its line",
        "row": "\"Eve,eve@example.com",
    });
    assert_eq!(rejects(&place.read("rejects.jsonl")), [told]);
    place.assert_holds_users(GOOD, "below the open quote").await;
}

#[tokio::test]
async fn quotes_out_of_place_make_a_rejected_row_and_no_garbled_user() {
    let bad = "\"Bob\"x,bob@example.com\n\"Bob \\\"B\\\" Smith\",bob@example.com\nBo\"b,bob@example.com\n\
               Bob,\"bob@example.com\n\"Bob\nby\",bob@example.com\n";
    let place = Place::with("users.csv", format!("name,email\n{}{bad}{}", rows([1]), rows([2])));

    let run = place.import(&["users.csv"]).await;

    assert_eq!(run.whole(), (2, 6, 0), "{run:?}");
    let lines: Vec<_> = run.said().iter().map(|said| said.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(lines, (3..=8).map(|line| format!("users.csv, line {line}")).collect::<Vec<_>>());
    place.assert_holds_users(2, "around rows with quotes out of place").await;
}

#[tokio::test]
async fn rows_of_nothing_but_separators_are_passed_over_as_blank_lines_are() {
    let empty = ",\n,,\n , \n\"\",\"\"\n\n \n".repeat(300);
    let text = format!(",,\nname,email\n{}{empty}{}{empty}", rows([1]), rows([2]));
    let place = Place::with("users.csv", &text);
    place.write("none.csv", format!("name,email\n{empty}"));

    let run = place.import(&["users.csv", "--max-errors", "0"]).await;
    let again = place.import(&["users.csv", "--max-errors", "0"]).await;
    let none = place.import(&["none.csv"]).await;

    assert_eq!((run.whole(), run.stderr.as_str()), ((2, 0, 0), ""));
    assert_eq!(again.whole(), (0, 0, 2));
    assert_eq!((none.whole(), none.stderr.as_str()), ((0, 0, 0), ""), "nothing was asked for");
    place.assert_holds_users(2, "among empty rows").await;
}

#[tokio::test]
async fn an_import_that_is_cut_off_among_empty_rows_goes_on_where_it_ended() {
    let empty = ",\n".repeat(CHUNK as usize / 2);
    let first = format!("name,email\n{empty}{}{empty}", rows(1..=CHUNK));
    let place = Place::new();
    let mut import = place.start(&["--key", "k"]);
    import.feed(&first).await;
    place.until_committed(CHUNK).await;

    import.signal(SIGKILL);
    import.end_by_itself().await;
    let again = place.import_stdin(&["--key", "k"], format!("{first}{}", rows([CHUNK + 1]))).await;

    assert_eq!(again.whole(), (1, 0, CHUNK));
    place.assert_holds_users(CHUNK + 1, "in two runs").await;
}

#[tokio::test]
async fn byte_order_marks_of_files_that_were_joined_are_no_part_of_a_name() {
    let csv_text = format!("\u{feff}name,email\n{}\u{feff}name,email\n\u{feff}{}\u{feff}\n", rows([1]), rows([2]));
    let json_text = format!("\u{feff}{}\u{feff}{}", json_lines(1), json_lines(2).lines().last().unwrap());
    for (file, text, rejected) in [("users.csv", csv_text, 1), ("users.jsonl", json_text, 0)] {
        let place = Place::with(file, text);

        let run = place.import(&[file]).await;

        assert_eq!(run.whole(), (2, rejected, 0), "{run:?}");
        if rejected == 1 {
            assert_eq!(run.sentence(), "users.csv, line 3: the header stands here again");
        }
        place.assert_holds_users(2, file).await;
    }
}

#[tokio::test]
async fn a_row_without_end_takes_no_memory_and_is_one_rejected_row() {
    const MEBIBYTES: u32 = 256;
    let part = "x".repeat(1 << 20);
    for head in ["name,email\n\"", "{\"name\":\""] {
        let place = Place::new();
        let mut import = place.start(&["--rejects", "rejects.jsonl"]);
        import.feed(head).await;
        for _ in 0..MEBIBYTES {
            import.feed(&part).await;
        }
        // All but what the pipe holds is read now.
        let peak_kib = peak_kib(&import);

        let good = if head.starts_with('n') { rows([1]) } else { json_lines(1) };
        import.feed(format!("\n{good}")).await;
        assert_eq!(import.end().await.whole(), (1, 1, 0));
        assert!(peak_kib < 64 * 1024, "{peak_kib} KiB for a row of {MEBIBYTES} MiB");
        let rejects = rejects(&place.read("rejects.jsonl"));
        assert_eq!(rejects[0]["reason"], "the row is longer than 1048576 bytes, only its beginning is kept");
        assert!(rejects[0]["row"].as_str().unwrap().len() < 1000);
    }
}

#[tokio::test]
async fn a_header_without_end_is_refused_before_its_end() {
    let place = Place::new();
    let mut import = place.start(&[]);
    import.feed("x".repeat(2 << 20)).await;

    let run = import.end_by_itself().await;

    assert_eq!(run.cut(1), (0, 0, 0));
    assert!(run.sentence().starts_with("stdin has the header \"xxx"), "{:.100}", run.sentence());
}

#[tokio::test]
async fn a_json_array_is_no_user_though_it_holds_two_strings() {
    let place = Place::with("users.jsonl", format!("{}[\"Eve\",\"eve@example.com\"]\n", json_lines(1)));

    let run = place.import(&["users.jsonl"]).await;

    assert_eq!(run.whole(), (1, 1, 0));
    let expected = "users.jsonl, line 2: the row is not a user: expected a JSON object with name and email";
    assert_eq!(run.sentence(), expected);
}

// ---- Nothing taken ----

#[tokio::test]
async fn an_import_whose_rows_are_all_rejected_fails() {
    let content = format!("name,email\n{}", BAD_CSV.repeat(3));
    let place = Place::with("users.csv", &content);
    place.write("users.jsonl", BAD_JSON);

    let from_file = place.import(&["users.csv"]).await;
    let from_json = place.import(&["users.jsonl"]).await;
    let from_stdin = place.import_stdin(&[], &content).await;
    let with_key = place.import_stdin(&["--key", "k"], &content).await;

    assert_eq!([&from_file, &from_json, &from_stdin, &with_key].map(Run::in_vain), [3, 1, 3, 3]);
    assert_eq!(from_file.said()[3], "no row of users.csv is imported: all of its rows were rejected");
}

#[tokio::test]
async fn an_import_whose_rows_are_all_rejected_fails_again_when_it_is_tried_again() {
    // More than one transaction of them.
    let bad = CHUNK + 1;
    let content = format!("name,email\n{}", BAD_CSV.repeat(bad as usize));
    let place = Place::with("users.csv", &content);

    for _ in 0..2 {
        let run = place.import(&["users.csv", "--max-errors", "9999"]).await;
        assert_eq!(run.in_vain(), bad);
    }
    assert_eq!(place.progress().await, [0; 0], "nothing is done");
}

#[tokio::test]
async fn rejections_before_the_first_user_are_noted_with_it() {
    let content = format!("name,email\n{}{}", BAD_CSV.repeat(CHUNK as usize + 1), rows([1]));
    let place = Place::with("users.csv", &content);
    let arguments = ["users.csv", "--max-errors", "9999", "--rejects", "rejects.jsonl"];

    let run = place.import(&arguments).await;
    let again = place.import(&arguments).await;

    assert_eq!(run.whole(), (1, CHUNK + 1, 0));
    assert_eq!(again.whole(), (0, 0, CHUNK + 2));
    place.assert_holds_users(1, "once").await;
}

#[tokio::test]
async fn an_import_that_took_rows_before_succeeds_though_the_rest_is_rejected() {
    let place = Place::with("users.csv", csv(2));
    place.import(&["users.csv", "--key", "k"]).await.whole();
    place.write("users.csv", format!("{}{BAD_CSV}", csv(2)));

    let run = place.import(&["users.csv", "--key", "k"]).await;

    assert_eq!(run.whole(), (0, 1, 2));
}

#[tokio::test]
async fn a_pipe_that_is_named_as_a_file_is_imported() {
    for (script, reason) in [
        ("exec $0 import <(cat users.csv)", "a pipe that is open already"),
        ("exec $0 import --key k <(cat users.csv)", "the same, with a key"),
        ("mkfifo pipe; cat users.csv > pipe & exec $0 import pipe", "a pipe to be opened, which works once"),
        ("mkfifo pipe; cat users.csv > pipe & exec $0 import --key k pipe", "the same, with a key"),
    ] {
        let place = Place::with("users.csv", csv(CHUNK));
        let mut command = Command::new("bash");
        command.args(["-c", script, BINARY]).current_dir(place.0.path());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());

        let run = Run::from(finished(command).await);

        assert_eq!(run.whole(), (CHUNK, 0, 0), "{reason}: {run:?}");
        place.assert_holds_users(CHUNK, reason).await;
    }
}

#[tokio::test]
async fn a_wrong_setting_is_refused_before_anything_is_read() {
    let long = "k".repeat(201);
    let key = "expected a text of 1 to 200 bytes that is not blank";
    let count = "expected a number from 0 to 18446744073709551615";
    let memory = "a database in memory is gone with the import; expected one in a file";
    let cases = [
        ("--format", "IMPORT_FORMAT", "xml", "expected auto, csv or jsonl", "another format"),
        ("--format", "IMPORT_FORMAT", "CSV", "expected auto, csv or jsonl", "capitals"),
        ("--format", "IMPORT_FORMAT", "", "expected auto, csv or jsonl", "empty"),
        ("--key", "IMPORT_KEY", "", key, "empty"),
        ("--key", "IMPORT_KEY", " ", key, "blank"),
        ("--key", "IMPORT_KEY", &long, key, "too long"),
        ("--max-errors", "IMPORT_MAX_ERRORS", "-1", count, "negative"),
        ("--max-errors", "IMPORT_MAX_ERRORS", "1%", count, "a share"),
        ("--max-errors", "IMPORT_MAX_ERRORS", "", count, "empty"),
        ("--rejects", "IMPORT_REJECTS", "", "expected a path", "empty"),
        ("--database-url", "DATABASE_URL", "sqlite::memory:", memory, "a database that nobody would see"),
    ];
    for (flag, variable, value, accepted, reason) in cases {
        let place = Place::with("users.csv", csv(1));

        let mut runs = vec![place.import(&["users.csv", &format!("{flag}={value}")]).await];
        // An empty variable is one that is not set.
        if !value.is_empty() {
            let mut command = place.command(&["users.csv"]);
            command.env(variable, value);
            runs.push(Run::from(finished(command).await));
        }

        for run in runs {
            assert_eq!((run.status.code(), run.stdout.as_str()), (Some(2), ""), "{flag} {value:?}: {reason}");
            let expected = format!("{flag} ({variable}) {value:?} is not usable: {accepted}");
            assert_eq!(run.sentence(), expected, "{reason}");
        }
        assert!(!place.path("data").exists(), "{reason}: it began to import");
    }
}

#[tokio::test]
async fn without_exactly_one_source_nothing_is_imported() {
    let place = Place::with("users.csv", csv(1));
    for (arguments, code, reason) in
        [(&[][..], 2, "none"), (&["users.csv", "users.csv"], 2, "two"), (&[""], 2, "an empty name")]
    {
        let run = place.import(arguments).await;

        assert_eq!((run.status.code(), run.stdout.as_str()), (Some(code), ""), "{reason}");
        assert!(!run.stderr.is_empty(), "{reason}");
        assert!(!place.path("data").exists(), "{reason}: it began to import");
    }
}
