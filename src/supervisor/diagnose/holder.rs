//! Why a worker that listens takes no connection: the process that has its listener cannot use it.
//!
//! [`unfit_holder`] looks, which may take milliseconds; [`advice_on_holder`] is pure.

use std::path::Path;

use procfs::process::Process;
use rustix::process::Pid;

use super::{Obstacle, Why, about_obstacle, obstacle};
use crate::sys::processes;

/// The process of this worker that holds one of these channels and cannot take connections from it.
pub(crate) fn unfit_holder(group: Pid, channels: &[u64], shim: Option<&Path>) -> Option<Obstacle> {
    let holders = processes::family_with(group, |inode| channels.contains(&inode));
    let holders = holders.into_iter().filter_map(|pid| Process::new(pid.as_raw_pid()).ok());
    holders.into_iter().find_map(|process| ring(&process).or_else(|| obstacle(&process, shim)))
}

/// The program of this process, if it has an io_uring. Node has one for files, and never accepts by it.
pub(crate) fn ring_of(process: i32) -> Option<Obstacle> {
    ring(&Process::new(process).ok()?)
}

fn ring(process: &Process) -> Option<Obstacle> {
    if !processes::has_io_uring(process) {
        return None;
    }
    let program = process.stat().ok()?.comm;
    (!program.starts_with("node")).then_some(Obstacle { program, why: Why::Ring })
}

/// What to tell the user about such a process.
pub(crate) fn advice_on_holder(obstacle: &Obstacle) -> String {
    let Obstacle { program, why } = obstacle;
    match why {
        Why::NotNamed => format!(
            "{program} has the worker's listener, and cannot take connections from it: its environment lacks clusterd's \
             LD_PRELOAD; have whatever starts it pass on LD_PRELOAD, CLUSTERD_ATTACH_SOCKET, CLUSTERD_ATTACH_TOKEN \
             and CLUSTERD_ATTACH_PORTS (dovecot: import_environment)"
        ),
        Why::Go | Why::Static | Why::NotLoaded | Why::InMemory | Why::NoShim | Why::Ring => format!(
            "{program} has the worker's listener, and cannot take connections from it: {}",
            about_obstacle(obstacle)
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_cannot_take_connections_is_named_with_the_remedy() {
        let said = |why| advice_on_holder(&Obstacle { program: "imap-login".to_owned(), why });
        for (why, part) in [
            (Why::NotNamed, "(dovecot: import_environment)"),
            (Why::Static, "imap-login is statically linked"),
            (Why::Ring, "io_uring"),
        ] {
            let said = said(why);
            assert!(
                said.starts_with("imap-login has the worker's listener") && said.contains(part),
                "{said}"
            );
        }
    }
}
