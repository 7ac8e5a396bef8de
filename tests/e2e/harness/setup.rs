//! What a cluster under test is made of, before it is started.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::cluster::{Cluster, Ended};
use super::folder::{Folder, fixtures};

/// The variable that marks every process of one cluster.
pub(crate) const MARK: &str = "CLUSTERD_TEST_MARK";

/// The port that workers ask for unless the test says otherwise. None of them ever binds it.
pub(crate) const WORKER_PORT: u16 = 8080;

/// A cluster to be started; the methods read as the sentence that describes it.
pub(crate) struct Setup {
    pub(crate) folder: Folder,
    pub(crate) workers: u32,
    command: Vec<String>,
    ports: Vec<String>,
    options: Vec<String>,
    environment: Vec<(String, OsString)>,
    under: Vec<String>,
    terminal: bool,
    pub(crate) reads_stdout: bool,
    metrics: String,
    log_format: &'static str,
    worker_port: u16,
    names_port: bool,
}

impl Setup {
    pub(crate) fn new(command: Vec<String>) -> Self {
        Self {
            folder: Folder::new(),
            workers: 1,
            command,
            ports: Vec::new(),
            options: Vec::new(),
            environment: Vec::new(),
            under: Vec::new(),
            terminal: false,
            reads_stdout: true,
            metrics: "127.0.0.1:0".to_owned(),
            log_format: "json",
            worker_port: WORKER_PORT,
            names_port: true,
        }
    }

    /// The built-in demo instead of the command.
    pub(crate) fn of_demo(mut self) -> Self {
        self.command.clear();
        self
    }

    /// One more word of the workers' command, which may hold spaces.
    pub(crate) fn arg(mut self, word: &str) -> Self {
        self.command.push(word.to_owned());
        self
    }

    pub(crate) fn workers(mut self, workers: u32) -> Self {
        self.workers = workers;
        self
    }

    /// A port of the cluster, as `--port` takes it. Without any, the kernel chooses one for [`WORKER_PORT`].
    pub(crate) fn port(mut self, port: &str) -> Self {
        self.ports.extend(["--port".to_owned(), port.to_owned()]);
        self
    }

    /// An address of the cluster, as `--bind` takes it.
    pub(crate) fn bind(mut self, address: &str) -> Self {
        self.ports.extend(["--bind".to_owned(), address.to_owned()]);
        self
    }

    /// Nothing says where clusterd is to listen.
    pub(crate) fn no_port(mut self) -> Self {
        self.names_port = false;
        self
    }

    /// The port that the workers ask for: `{port}` in the command, and what the cluster's own port is mapped to.
    pub(crate) fn worker_port(mut self, port: u16) -> Self {
        self.worker_port = port;
        self
    }

    /// Where metrics and probes are; without this, the kernel chooses a port.
    pub(crate) fn metrics(mut self, address: &str) -> Self {
        self.metrics = address.to_owned();
        self
    }

    /// Further options of clusterd, separated by spaces.
    pub(crate) fn options(mut self, options: &str) -> Self {
        self.options.extend(options.split_whitespace().map(str::to_owned));
        self
    }

    /// Three workers that keep their turns however slowly they start: on a loaded machine the processes of a
    /// pre-forking server may come up long after its listener.
    pub(crate) fn taking_turns(self) -> Self {
        self.workers(3).env("CLUSTERD_HANDOFF_TIMEOUT", "30s").env("CLUSTERD_REDISPATCH_AFTER", "30s")
    }

    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// A file in the cluster's folder, which is the workers' working directory and `{folder}` in the command.
    pub(crate) fn file(self, name: &str, content: &str) -> Self {
        self.folder.write(name, content);
        self
    }

    /// A file as [`Setup::file`], in which what stands in braces is replaced as in the command.
    pub(crate) fn filled_file(self, name: &str, content: &str) -> Self {
        let content = self.fill(content);
        self.file(name, &content)
    }

    /// clusterd is started by this command, to which its own is appended: `unshare`, `setpriv`, ...
    pub(crate) fn under(mut self, command: &[&str]) -> Self {
        self.under = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// clusterd and its workers belong to a user without any privilege.
    pub(crate) fn owned_by_nobody(self) -> Self {
        self.folder.give_home_to_nobody();
        self.under(&super::NOBODY)
    }

    /// clusterd's messages are written for people.
    pub(crate) fn text_messages(mut self) -> Self {
        self.log_format = "text";
        self
    }

    /// Standard output is a pipe that fills up.
    pub(crate) fn nobody_reads_stdout(mut self) -> Self {
        self.reads_stdout = false;
        self
    }

    /// Starts it on a terminal of its own, whose text is its standard output, and waits for nothing.
    pub(crate) fn on_a_terminal(mut self) -> Cluster {
        self.terminal = true;
        Cluster::spawn(self.text_messages())
    }

    /// Starts it and waits until every worker is online.
    pub(crate) fn start(self) -> Cluster {
        let cluster = self.launch();
        cluster.wait_online();
        cluster
    }

    /// Starts it and waits until it listens, whatever the workers do.
    pub(crate) fn launch(self) -> Cluster {
        let addresses = self.ports.len().max(2) / 2;
        self.launch_with(addresses)
    }

    /// As [`Setup::launch`], where it listens at so many addresses.
    pub(crate) fn launch_with(self, addresses: usize) -> Cluster {
        Cluster::launch(self, addresses)
    }

    /// Starts it and waits for its end.
    pub(crate) fn run(self) -> Ended {
        Cluster::spawn(self).ended()
    }

    /// The port that the workers' command asks for.
    pub(crate) fn asks_for(&self) -> u16 {
        self.worker_port
    }

    /// The workers' command without clusterd. As for a worker, `PORT` names its port, and `CLUSTERD_WORKER_ID` is 0.
    pub(crate) fn native_command(&self, mark: &str) -> Command {
        let words: Vec<_> = self.command.iter().map(|word| self.fill(word)).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.folder.path()).env(MARK, mark);
        command.env("PORT", self.worker_port.to_string()).env("CLUSTERD_WORKER_ID", "0");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The command that starts it.
    pub(crate) fn command(&self, mark: &str) -> Command {
        let mut words: Vec<String> = self.under.iter().map(|word| self.fill(word)).collect();
        words.push(self.program().to_string_lossy().into_owned());
        words.extend(self.arguments());
        if self.terminal {
            let line: Vec<_> =
                words.iter().map(|word| format!("'{}'", word.replace('\'', r"'\''"))).collect();
            words = ["script", "-qec", &format!("exec {}", line.join(" ")), "/dev/null"]
                .map(str::to_owned)
                .to_vec();
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(self.folder.path()).env(MARK, mark);
        command.env_remove("PORT").env_remove("WEB_CONCURRENCY");
        command.env("CLUSTERD_HOME", self.folder.home());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn program(&self) -> PathBuf {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_clusterd"));
        match self.under.first() {
            Some(first) if first == "setpriv" => self.folder.copy_program(&program),
            _ => program,
        }
    }

    fn arguments(&self) -> Vec<String> {
        let mut arguments = self.ports.clone();
        if arguments.is_empty() && self.names_port {
            arguments.extend(["--port".to_owned(), format!("0:{}", self.worker_port)]);
        }
        let workers = self.workers.to_string();
        let rest = ["--workers", &workers, "--metrics", &self.metrics, "--log-format", self.log_format];
        arguments.extend(rest.map(str::to_owned));
        arguments.extend(self.options.iter().cloned());
        if !self.command.is_empty() {
            arguments.push("--".to_owned());
            arguments.extend(self.command.iter().map(|word| self.fill(word)));
        }
        arguments
    }

    /// The text with what stands in braces replaced.
    fn fill(&self, text: &str) -> String {
        text.replace("{port}", &self.worker_port.to_string())
            .replace("{folder}", &self.folder.path().to_string_lossy())
            .replace("{fixtures}", &fixtures().to_string_lossy())
    }
}
