//! The control: the workers' command by itself, without clusterd, on a port of its own.
//!
//! What it does is what clusterd has to match. However the test ends, nothing of it is left.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::process::{self, Child};
use std::thread;
use std::time::{Duration, Instant};

use super::Signal;
use super::output::Output;
use super::process::{Process, with_environment};
use super::setup::{MARK, Setup};

/// How long it may take to end by itself.
const GRACE: Duration = Duration::from_secs(3);

/// The command, running; dropping it ends it.
pub(crate) struct Native {
    setup: Setup,
    child: Child,
    mark: String,
    outputs: [Output; 2],
}

impl Native {
    pub(crate) fn start(setup: Setup) -> Self {
        let mark = format!("native-{}-{}", process::id(), setup.asks_for());
        let mut child = setup.native_command(&mark).process_group(0).spawn().expect("it can be started");
        let outputs = [
            Output::read(child.stdout.take().expect("stdout is a pipe")),
            Output::read(child.stderr.take().expect("stderr is a pipe")),
        ];
        Self { setup, child, mark, outputs }
    }

    /// Where clients would reach it on this address.
    pub(crate) fn at(&self, ip: IpAddr) -> SocketAddr {
        (ip, self.setup.asks_for()).into()
    }

    #[track_caller]
    pub(crate) fn must_live(&mut self) {
        if let Some(status) = self.child.try_wait().expect("the child is ours") {
            panic!("the command ended without clusterd, too: {status}");
        }
    }

    fn processes(&self) -> Vec<Process> {
        let mut all = with_environment(MARK, &self.mark);
        if let Some(child) = Process::find(self.child.id() as i32) {
            all.extend(child.descendants());
            all.push(child);
        }
        all
    }
}

impl Drop for Native {
    fn drop(&mut self) {
        let processes = self.processes();
        processes.iter().for_each(|process| process.signal(Signal::TERM));
        let deadline = Instant::now() + GRACE;
        while processes.iter().any(Process::is_alive) && Instant::now() < deadline {
            let _ = self.child.try_wait();
            thread::sleep(Duration::from_millis(5));
        }
        processes.iter().chain(&self.processes()).for_each(|process| process.signal(Signal::KILL));
        let _ = self.child.wait();
        if thread::panicking() {
            let [stdout, stderr] = &self.outputs;
            eprintln!("--- what the command said without clusterd\n{}{}\n---", stdout.text(), stderr.text());
        }
    }
}
