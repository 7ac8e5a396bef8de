//! Why a worker does not listen on the ports that it is served on, and what would help.
//!
//! [`advice()`] is pure: from what was seen to a sentence. [`running`] and [`ended`] look, which may take
//! milliseconds: call them where that holds up nobody. Nothing here changes what happens to the worker.

mod advice;
mod advisor;
pub(crate) mod elf;
mod holder;
pub(crate) mod program;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::iter;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use procfs::process::Process;
use rustix::process::Pid;

pub(crate) use self::advice::{advice, advice_on_ring, advice_on_turn};
pub(super) use self::advisor::Advisor;
use self::elf::Kind;
pub(crate) use self::holder::{
    ServerBelow, advice_on_holder, advice_on_server_below, ring_of, server_below, unfit_holder,
};
use super::ends::Ended;
use super::{AttachEnv, CommandSpec};
use crate::ids::WorkerPort;
use crate::sys::processes;

/// What was seen of a worker that does not listen where it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Findings {
    /// The ports on which it is expected and does not listen.
    pub missing: Vec<WorkerPort>,
    /// The ports on which it listens as it should; of one that ended, those on which other workers do.
    pub served: Vec<WorkerPort>,
    /// How it ended, if it did.
    pub ended: Option<Ended>,
    /// The ports that its processes opened themselves, past clusterd; of one that ended, those of other workers.
    pub opened: BTreeSet<u16>,
    /// What keeps the shim from serving it.
    pub obstacle: Option<Obstacle>,
    /// Whether the shim alone is to serve it: a program that calls the kernel past it finds its port in use.
    pub needs_shim: bool,
    /// A process of the worker that ended runs on, out of its group.
    pub left: bool,
    /// What it is waited for beside its ports.
    pub awaited: Awaited,
    /// How long it has run.
    pub after: Duration,
}

/// What a worker still has to do to be ready, beside listening.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Nothing.
    Nothing,
    /// To say that it is ready (`--wait-ready`).
    Word,
    /// To answer its probe well (`--ready-http`).
    Answer,
}

/// A program that the shim cannot serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Obstacle {
    /// Its name.
    pub program: String,
    /// Why not.
    pub why: Why,
}

/// Why the shim cannot serve a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Go calls the kernel past the C library.
    Go,
    /// A static program loads no library.
    Static,
    /// Its environment does not name the shim: somebody on the way cleared it.
    NotNamed,
    /// Its environment names the shim, and it was not loaded.
    NotLoaded,
    /// The same, and the shim is nothing but memory of clusterd, which other users may not look into.
    InMemory,
    /// No shim is preloaded into anything.
    NoShim,
    /// It has an io_uring, by which the kernel accepts past the C library.
    Ring,
}

/// Looks at a worker that runs.
pub(crate) fn running(
    group: Pid,
    (attach, awaited, after): (&AttachEnv, Awaited, Duration),
    missing: Vec<WorkerPort>,
    served: Vec<WorkerPort>,
) -> Findings {
    Findings {
        missing,
        served,
        ended: None,
        opened: processes::listening_ports(group),
        obstacle: leaves(group).iter().find_map(|process| obstacle_to(process, attach)),
        needs_shim: needs_shim(attach),
        left: false,
        awaited,
        after,
    }
}

/// Looks at what is left of a worker that ended, the file of its program, and at the `others` that run.
pub(crate) fn ended(
    spec: &CommandSpec,
    (how, left): (Ended, bool),
    (missing, served): (Vec<WorkerPort>, Vec<WorkerPort>),
    (attach, others): (&AttachEnv, &[Pid]),
) -> Findings {
    let opened: BTreeSet<u16> = others.iter().flat_map(|&group| processes::listening_ports(group)).collect();
    // What another worker opened itself is what this one could not open.
    let of_others = || {
        let leaves = others.iter().filter(|_| !opened.is_empty()).flat_map(|&group| leaves(group));
        leaves.into_iter().find_map(|process| obstacle_to(&process, attach))
    };
    let in_file = if attach.filter.is_none() { obstacle_in_file(spec) } else { None };
    let obstacle = in_file.or_else(of_others);
    Findings {
        missing,
        served,
        ended: Some(how),
        opened,
        obstacle,
        needs_shim: needs_shim(attach),
        left,
        awaited: Awaited::Nothing,
        after: Duration::ZERO,
    }
}

fn needs_shim(attach: &AttachEnv) -> bool {
    attach.shim.is_some() && attach.filter.is_none()
}

/// The members of a group that have no child in it: what starts the server is of no interest, the server is.
fn leaves(group: Pid) -> Vec<Process> {
    let members: Vec<(Process, i32)> = processes::members(group)
        .into_iter()
        .filter_map(|pid| Process::new(pid.as_raw_pid()).ok())
        .filter_map(|process| process.stat().ok().map(|stat| (process, stat.ppid)))
        .collect();
    let parents: BTreeSet<i32> = members.iter().map(|&(_, parent)| parent).collect();
    let leaves = members.into_iter().map(|(process, _)| process);
    leaves.filter(|process| !parents.contains(&process.pid)).collect()
}

/// Whose calls are intercepted is served whatever it is.
fn obstacle_to(process: &Process, attach: &AttachEnv) -> Option<Obstacle> {
    if attach.filter.is_some() { None } else { obstacle(process, attach.shim.as_deref()) }
}

fn obstacle(process: &Process, shim: Option<&Path>) -> Option<Obstacle> {
    // Through /proc, since the path is that of the process's own mount namespace.
    let why = match Kind::of(&PathBuf::from(format!("/proc/{}/exe", process.pid))) {
        Kind::Go => Some(Why::Go),
        Kind::Static => Some(Why::Static),
        Kind::Attaching => None,
        Kind::Dynamic | Kind::Unknown => shim.map_or(Some(Why::NoShim), |shim| not_loaded(process, shim)),
    };
    Some(Obstacle { why: why?, program: process.stat().ok()?.comm })
}

fn not_loaded(process: &Process, shim: &Path) -> Option<Why> {
    if processes::has_mapped(Pid::from_raw(process.pid)?, shim)? {
        return None;
    }
    let named = process.environ().ok().is_none_or(|environment| {
        let list = environment.get(OsStr::new("LD_PRELOAD"));
        list.is_some_and(|list| {
            let mut entries = list.as_bytes().split(|byte| matches!(byte, b':' | b' '));
            entries.any(|entry| entry == shim.as_os_str().as_bytes())
        })
    });
    Some(match named {
        true if shim.starts_with("/proc") => Why::InMemory,
        true => Why::NotLoaded,
        false => Why::NotNamed,
    })
}

/// Of the command, or of what it runs if it is a shell.
fn obstacle_in_file(spec: &CommandSpec) -> Option<Obstacle> {
    let file = spec.find_program().ok()??;
    let find = |word: &OsStr| spec.workplace.file_of(word, spec.inherited.get("PATH").cloned());
    let below = program::run_by_shell(&file, &spec.command, find);
    iter::once(file).chain(below).find_map(|file| {
        let why = match Kind::of(&file) {
            Kind::Go => Why::Go,
            Kind::Static => Why::Static,
            Kind::Dynamic | Kind::Attaching | Kind::Unknown => return None,
        };
        Some(Obstacle { program: file.file_name()?.display().to_string(), why })
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use super::*;

    /// `sleep` in a group of its own, past its exec; ended when dropped.
    struct Sleeper(Child);

    impl Sleeper {
        fn new(preload: Option<&Path>) -> Self {
            let mut command = Command::new("sleep");
            command.arg("60").process_group(0).env_remove("LD_PRELOAD");
            if let Some(file) = preload {
                command.env("LD_PRELOAD", file).stderr(std::process::Stdio::null());
            }
            let sleeper = Self(command.spawn().expect("sleep"));
            let deadline = Instant::now() + Duration::from_secs(20);
            let name = || std::fs::read_to_string(format!("/proc/{}/comm", sleeper.0.id()));
            while !name().is_ok_and(|name| name.trim() == "sleep") {
                assert!(Instant::now() < deadline, "not in time");
                std::thread::yield_now();
            }
            sleeper
        }

        fn seen(&self, shim: &Path) -> Findings {
            let attach = AttachEnv { shim: Some(shim.to_owned()), ..CommandSpec::of_demo().attach };
            let how = (&attach, Awaited::Nothing, Duration::ZERO);
            running(Pid::from_child(&self.0), how, vec![WorkerPort(3000)], vec![])
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_missing_shim_is_seen() {
        let folder = tempfile::tempdir().expect("a folder");
        let shim = folder.path().join("shim.so");
        std::fs::write(&shim, "no library").expect("written");
        let why = |sleeper: &Sleeper| sleeper.seen(&shim).obstacle.map(|obstacle| obstacle.why);
        assert_eq!(why(&Sleeper::new(None)), Some(Why::NotNamed));
        assert_eq!(why(&Sleeper::new(Some(&shim))), Some(Why::NotLoaded));
    }

    #[test]
    fn a_loaded_library_is_seen() {
        let sleeper = Sleeper::new(None);
        let deadline = Instant::now() + Duration::from_secs(20);
        let library = loop {
            let process = Process::new(Pid::from_child(&sleeper.0).as_raw_pid()).expect("it runs");
            let maps = process.maps().expect("its own user may look");
            let found = maps.0.iter().find_map(|map| match &map.pathname {
                procfs::process::MMapPath::Path(path) if path.to_string_lossy().contains("libc") => {
                    Some(path.clone())
                }
                _ => None,
            });
            match found {
                Some(path) => break path,
                None => assert!(Instant::now() < deadline, "not in time"),
            }
        };
        assert_eq!(sleeper.seen(&library).obstacle, None);
    }
}
