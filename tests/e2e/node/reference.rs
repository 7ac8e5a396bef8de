//! Node's own cluster primary, running: what clusterd is compared with.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::harness::folder::{Folder, fixtures};
use crate::harness::process::Process;
use crate::harness::{Signal, until};

/// The primary with its workers; dropping it ends them.
pub(crate) struct Reference {
    folder: Folder,
    child: Child,
}

impl Reference {
    /// Starts workers that run a program of `fixtures/node` in a folder of their own.
    pub(crate) fn start(folder: Folder, workers: u32, app: &str, environment: &[(String, String)]) -> Self {
        let mut command = Command::new("node");
        command.arg(fixtures().join("node/primary.js")).arg(workers.to_string());
        command.arg(fixtures().join("node").join(app)).current_dir(folder.path());
        command.envs(environment.iter().cloned()).stdin(Stdio::null());
        Self { folder, child: command.spawn().expect("node can be started") }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        let primary = Process::find(self.child.id() as i32);
        let processes: Vec<_> = primary.into_iter().flat_map(|primary| primary.descendants()).collect();
        let _ = self.child.kill();
        let _ = self.child.wait();
        processes.iter().for_each(|process| process.signal(Signal::KILL));
        until("the workers of Node's primary are gone", || {
            (!processes.iter().any(Process::is_alive)).then_some(())
        });
    }
}
