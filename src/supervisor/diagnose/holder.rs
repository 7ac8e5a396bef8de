//! Why a worker that listens takes no connection: the process that has its listener cannot use it.
//!
//! [`unfit_holder`] looks, which may take milliseconds; [`advice_on_holder`] is pure.

use std::path::Path;

use procfs::process::Process;
use rustix::process::Pid;

use super::advice::about_obstacle;
use super::{Obstacle, Why, obstacle};
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

/// A process that was given its listeners as from systemd, and the server that it has started instead of becoming it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ServerBelow {
    starter: String,
    server: String,
}

/// Whether the main process of this worker, which leads its group, has started another program: that has the listeners too,
/// perhaps, and they are not announced to it.
pub(crate) fn server_below(group: Pid) -> Option<ServerBelow> {
    let starter = Process::new(group.as_raw_pid()).ok()?;
    let own = starter.exe().ok()?;
    let mut others = super::leaves(group).into_iter().filter(|leaf| leaf.exe().is_ok_and(|exe| exe != own));
    let server = others.next_back()?.stat().ok()?.comm;
    Some(ServerBelow { starter: starter.stat().ok()?.comm, server })
}

/// What to tell the user about it.
pub(crate) fn advice_on_server_below(ServerBelow { starter, server }: &ServerBelow) -> String {
    format!(
        "nobody takes connections from the worker's listeners: LISTEN_FDS is for the process that clusterd starts, which is \
         {starter}, and that runs {server}; have {starter} become the server (exec), or name the server itself as the command"
    )
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
