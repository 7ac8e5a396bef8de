//! What `clusterd VERB` said, and what it exited with.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use super::process::Process;

/// A client that has ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// Runs `clusterd` with these words, under `under`, towards the clusterds of `home`.
    #[track_caller]
    pub(crate) fn of(home: &Path, under: &[&str], words: &str) -> Self {
        command(home, under, env!("CARGO_BIN_EXE_clusterd"), words)
            .output()
            .expect("clusterd can be started")
            .into()
    }

    /// The same, with a program that stands elsewhere.
    #[track_caller]
    pub(crate) fn by(program: &Path, home: &Path, under: &[&str], words: &str) -> Self {
        let program = program.to_str().expect("a path in UTF-8");
        command(home, under, program, words).output().expect("clusterd can be started").into()
    }

    /// What it printed with success.
    #[track_caller]
    pub(crate) fn done(&self) -> &str {
        assert_eq!(self.code, 0, "{self:?}");
        &self.stdout
    }

    /// What it printed with success, as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(self.done()).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// What it printed, a JSON object a line.
    #[track_caller]
    pub(crate) fn lines(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines.map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("not JSON: {line}"))).collect()
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let code = output.status.code().expect("no signal has ended it");
        Self { code, stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }
}

/// A client that goes on; dropping it ends it.
pub(crate) struct Saying(Child);

impl Saying {
    pub(crate) fn start(home: &Path, words: &str) -> Self {
        let mut command = command(home, &[], env!("CARGO_BIN_EXE_clusterd"), words);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Self(child.expect("clusterd can be started"))
    }

    /// What it prints, as it comes.
    pub(crate) fn stdout(&mut self) -> super::output::Output {
        super::output::Output::read(self.0.stdout.take().expect("it is read once"))
    }

    /// The client itself.
    pub(crate) fn process(&self) -> Process {
        let pid = i32::try_from(self.0.id()).expect("a process id");
        Process::find(pid).expect("nobody has waited for it")
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Said {
        super::until("the client has ended", || self.0.try_wait().expect("the child is ours"));
        let (mut stdout, mut stderr) = (String::new(), String::new());
        use std::io::Read as _;
        if let Some(mut pipe) = self.0.stdout.take() {
            pipe.read_to_string(&mut stdout).expect("text");
        }
        if let Some(mut pipe) = self.0.stderr.take() {
            pipe.read_to_string(&mut stderr).expect("text");
        }
        let status = self.0.wait().expect("the child is ours");
        Said { code: status.code().expect("no signal has ended it"), stdout, stderr }
    }
}

impl Drop for Saying {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(home: &Path, under: &[&str], program: &str, words: &str) -> Command {
    let all: Vec<_> = under.iter().copied().chain([program]).chain(words.split_whitespace()).collect();
    let mut command = Command::new(all[0]);
    command.args(&all[1..]).env("CLUSTERD_HOME", home).stdin(Stdio::null());
    command
}
