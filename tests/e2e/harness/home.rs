//! A home folder of its own, and the apps that are started in it in the background.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::folder::{Folder, fixtures};
use super::output::Output;
use super::process::Process;
use super::said::Said;
use super::{Signal, http};

/// The folder; dropping it ends all that was started in it.
pub(crate) struct Home(Folder);

impl Home {
    pub(crate) fn new() -> Self {
        let folder = Folder::new();
        // Without it, clients would look for those that can make none, too, as those of other tests on a read-only root.
        std::fs::create_dir(folder.home()).expect("a folder in the temporary folder");
        Self(folder)
    }

    /// Where apps are started: relative names start from here.
    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    /// What `CLUSTERD_HOME` says here.
    pub(crate) fn home(&self) -> PathBuf {
        self.0.home()
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        self.0.write(name, content)
    }

    /// A file of what clusterd keeps of an app.
    pub(crate) fn file(&self, app: &str, name: &str) -> String {
        std::fs::read_to_string(self.path(app).join(name)).unwrap_or_default()
    }

    pub(crate) fn path(&self, app: &str) -> PathBuf {
        self.0.home().join("apps").join(app)
    }

    /// Runs `clusterd` with these words; `{fixtures}` is the folder of the servers.
    pub(crate) fn say(&self, words: &str) -> Said {
        self.say_with(words, &[])
    }

    /// The same, with these variables.
    pub(crate) fn say_with(&self, words: &str, variables: &[(&str, &str)]) -> Said {
        let fixtures = fixtures();
        let words = words.replace("{fixtures}", fixtures.to_str().expect("a path in UTF-8"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
        command.args(words.split_whitespace()).current_dir(self.folder()).env("PWD", self.folder());
        command.env("CLUSTERD_HOME", self.0.home()).envs(variables.iter().copied()).stdin(Stdio::null());
        command.output().expect("clusterd can be started").into()
    }

    /// The same, started by the command `under`.
    pub(crate) fn say_under(&self, under: &[&str], words: &str, variables: &[(&str, &str)]) -> Said {
        let mut command = Command::new(under[0]);
        command.args(&under[1..]).arg(env!("CARGO_BIN_EXE_clusterd")).args(words.split_whitespace());
        command.current_dir(self.folder()).env("PWD", self.folder()).stdin(Stdio::null());
        command.env("CLUSTERD_HOME", self.0.home()).envs(variables.iter().copied());
        command.output().expect("it can be started").into()
    }

    /// Runs `clusterd` with these words, which may have spaces in them.
    pub(crate) fn say_words(&self, words: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clusterd"));
        command
            .args(words)
            .current_dir(self.folder())
            .env("CLUSTERD_HOME", self.0.home())
            .stdin(Stdio::null());
        command.output().expect("it can be started").into()
    }

    /// Runs `clusterd` with these words, until what is answered is dropped.
    pub(crate) fn follow(&self, words: &str) -> Following {
        let mut process = Command::new(env!("CARGO_BIN_EXE_clusterd"))
            .args(words.split_whitespace())
            .current_dir(self.folder())
            .env("CLUSTERD_HOME", self.0.home())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("clusterd can be started");
        let output = Output::read(process.stdout.take().expect("a pipe"));
        Following { process, output }
    }

    /// The app as `list -o json` shows it.
    pub(crate) fn app(&self, name: &str) -> Option<Value> {
        let apps = self.say("list -o json").json();
        apps.as_array().expect("a list").iter().find(|app| app["name"] == name).cloned()
    }

    /// The primary of an app, as it has said in its lock.
    #[track_caller]
    pub(crate) fn primary(&self, app: &str) -> Process {
        let lock: Value = serde_json::from_str(&self.file(app, "lock")).expect("somebody holds the lock");
        let pid = lock["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a process id");
        Process::find(pid).expect("it runs")
    }

    /// What a server on this port of this machine answers.
    pub(crate) fn get(&self, port: u16) -> Option<String> {
        let response = http::request(SocketAddr::from(([127, 0, 0, 1], port)), "GET", "/").ok()?;
        Some(response.text())
    }
}

/// A command that goes on.
pub(crate) struct Following {
    process: Child,
    output: Output,
}

impl Following {
    /// What it has written so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.output.lines()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Home {
    /// Kills every primary with its guardian, as the end of the machine does.
    pub(crate) fn kill_everything(&self) {
        for primary in self.primaries() {
            // It would start another guardian.
            primary.signal(Signal::STOP);
            let guardians = primary.children().into_iter().filter(|child| child.name() == "clusterd-guard");
            guardians.for_each(|guardian| guardian.signal(Signal::KILL));
            primary.signal(Signal::KILL);
            super::until("it has ended", || (!primary.is_alive()).then_some(()));
        }
    }

    fn primaries(&self) -> Vec<Process> {
        std::fs::read_dir(self.0.home().join("apps"))
            .into_iter()
            .flatten()
            .filter_map(|entry| std::fs::read(entry.ok()?.path().join("lock")).ok())
            .filter_map(|lock| serde_json::from_slice::<Value>(&lock).ok()?["pid"].as_i64())
            .filter_map(|pid| Process::find(i32::try_from(pid).ok()?))
            .filter(|process| process.environment("CLUSTERD_HOME").as_deref() == self.0.home().to_str())
            .collect()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let pids = self.primaries();
        // Without their folders, guardians start nothing again.
        let _ = std::fs::remove_dir_all(self.0.home().join("apps"));
        // What a test has failed with is said first, and nobody waits for an app that would have ended later.
        let has_failed = std::thread::panicking();
        pids.iter().for_each(|primary| primary.signal(if has_failed { Signal::INT } else { Signal::TERM }));
        let have_ended = || pids.iter().all(|primary| !primary.is_alive()).then_some(());
        if !has_failed {
            super::until("what was started in the home folder has ended", have_ended);
        }
    }
}
