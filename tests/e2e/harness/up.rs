//! A running `clusterd up`, what it has written, and what it ended with.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::home::Home;
use super::output::Output;
use super::process::{Process, with_environment};
use super::{Signal, until};

/// Marks every process that belongs to one `up`.
pub(crate) const MARK: &str = "UP_TEST_MARK";

/// A running `clusterd up`; dropping it ends it, and what is left of it.
pub(crate) struct Up {
    pub(crate) child: Child,
    pub(crate) stdout: Output,
    pub(crate) stderr: Output,
    pub(crate) mark: String,
}

impl Up {
    pub(crate) fn start(home: &Home, words: &str) -> Self {
        Self::under(home, &[], words, &[])
    }

    /// By another command, to which its own is appended, and with these variables.
    pub(crate) fn under(home: &Home, under: &[&str], words: &str, variables: &[(&str, &str)]) -> Self {
        let own = [env!("CARGO_BIN_EXE_clusterd"), "up"];
        let all: Vec<_> = under.iter().copied().chain(own).chain(words.split_whitespace()).collect();
        Self::by(home, &all, variables)
    }

    /// By this command, with these variables.
    pub(crate) fn by(home: &Home, all: &[&str], variables: &[(&str, &str)]) -> Self {
        let mark = home.folder().display().to_string();
        let mut child = Command::new(all[0])
            .args(&all[1..])
            .current_dir(home.folder())
            .env("PWD", home.folder())
            .env("CLUSTERD_HOME", home.home())
            .env(MARK, &mark)
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("clusterd can be started");
        let stdout = Output::read(child.stdout.take().expect("a pipe"));
        let stderr = Output::read(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr, mark }
    }

    pub(crate) fn process(&self) -> Process {
        Process::find(i32::try_from(self.child.id()).expect("a process id")).expect("it runs")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process().signal(signal);
    }

    /// Waits for its end, and says how it was.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let status = until("it has ended", || self.child.try_wait().expect("the child is ours"));
        until("all that it wrote is read", || {
            (self.stdout.has_ended() && self.stderr.has_ended()).then_some(())
        });
        status
    }

    #[track_caller]
    pub(crate) fn code(&mut self) -> i32 {
        let status = self.ended();
        status.code().unwrap_or_else(|| panic!("ended by signal {:?}", status.signal()))
    }

    /// Waits until standard error has a line with all of these.
    #[track_caller]
    pub(crate) fn says(&self, words: &[&str]) -> String {
        until(&format!("it says {words:?}"), || self.stderr.line_with(words))
    }

    #[track_caller]
    pub(crate) fn writes(&self, line: &str) {
        until(&format!("it writes {line}"), || {
            self.stdout.lines().iter().any(|other| other == line).then_some(())
        });
    }

    /// Every process of it that runs.
    pub(crate) fn processes(&self) -> Vec<Process> {
        with_environment(MARK, &self.mark)
    }

    #[track_caller]
    pub(crate) fn leaves_no_process(&self) {
        until("no process is left", || self.processes().is_empty().then_some(()));
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.processes().iter().for_each(|process| process.signal(Signal::KILL));
    }
}
