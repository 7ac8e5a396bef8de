//! The process table, asked without holding up the task that asks.
//!
//! What is asked is in [`sys::processes`](crate::sys::processes); here it only moves to a thread that may block.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::process::{Pid, WaitId, WaitIdOptions};

use crate::front::links::Holder;
use crate::sys::blocking;
use crate::sys::idle;
use crate::sys::processes as table;
pub(crate) use crate::sys::processes::{Named, listener_of};
use crate::sys::usage;

/// Of these ends of channels of one worker, which does any process of it hold?
pub(crate) async fn held(holders: Vec<Holder>) -> Vec<bool> {
    if holders.is_empty() {
        return Vec::new();
    }
    let look = move || {
        let sockets = holders.iter().map(|holder| holder.inode).collect();
        // Of a process in another namespace the number is not known.
        let hints = holders.iter().map(|holder| Pid::from_raw(holder.pid)).collect::<Option<Vec<_>>>();
        let held = table::held(&sockets, &hints.unwrap_or_default());
        holders.iter().map(|holder| held.contains(&holder.inode)).collect()
    };
    blocking::run(look).await
}

/// The same, but that it may also be on its way to a process of the worker.
pub(crate) async fn may_be_held(holder: Holder) -> bool {
    let look = move || table::may_be_held(holder.inode, Pid::from_raw(holder.pid));
    blocking::run(look).await
}

/// Whether this child of ours has ended. Nobody needs to have waited for it.
pub(crate) fn has_ended(child: Pid) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(rustix::process::waitid(WaitId::Pid(child), options), Ok(None))
}

/// Is this listener, which its process has closed, still held? Its child processes may have got it; without any, it is only
/// looked whether the process has come to close it.
pub(crate) async fn is_passed_on(holder: Holder) -> bool {
    let look = move || table::is_passed_on(holder.inode, Pid::from_raw(holder.pid));
    blocking::run(look).await
}

/// Is this process Node itself, with the shim loaded? Others speak the protocol of Node's cluster too, but Deno, for
/// one, makes nothing of a listener that it is sent. Of a process that lets nobody look into it, it is not assumed:
/// a program that is setuid or has file capabilities loads no shim.
pub(crate) async fn is_node_with(process: Pid, shim: PathBuf) -> bool {
    let look = move || {
        let is_node = table::program_name(process).is_some_and(|name| name.as_bytes().starts_with(b"node"));
        is_node && table::has_mapped(process, &shim).unwrap_or(false)
    };
    blocking::run(look).await
}

/// Is this process Deno, by the name of its program? It says that it listens on a socket that it is sent, and makes
/// nothing of it.
pub(crate) async fn is_deno(process: Pid) -> bool {
    let look = move || table::program_name(process).is_some_and(|name| name == "deno");
    blocking::run(look).await
}

/// Whether this process, of an event loop of libuv, would end if it were not for the socket with this inode.
pub(crate) async fn only_socket_keeps(process: Pid, inode: u64) -> bool {
    blocking::run(move || idle::only_socket_keeps(process, inode)).await
}

/// Is this process one of a worker's, whose group this is?
pub(crate) async fn belongs_to(process: Pid, group: Pid) -> bool {
    blocking::run(move || table::belongs_to(process, group)).await
}

/// The memory of each of these groups, in their order and in bytes. Only of a group that may have more than `limit` is
/// it told apart what its processes share, which costs more; unless one of them lets nobody look into it.
pub(crate) async fn memory_if_above(limit: u64, groups: Vec<Pid>) -> Vec<u64> {
    let look = move || {
        let usages = usage::group_usages(&groups);
        let memory = |group: &Pid| {
            let resident = usages.get(group).map_or(0, |usage| usage.resident);
            let exact = (resident > limit).then(|| usage::proportional_memory(*group)).flatten();
            exact.unwrap_or(resident)
        };
        groups.iter().map(memory).collect()
    };
    blocking::run(look).await
}
