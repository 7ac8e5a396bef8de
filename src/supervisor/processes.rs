//! The process table, asked without holding up the task that asks.
//!
//! What is asked is in [`sys::processes`](crate::sys::processes); here it only moves to a thread that may block.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::process::Pid;

use crate::protocol::native::Holder;
use crate::sys::processes as table;
pub use crate::sys::processes::{Named, listener_of};

/// Does any process but this one hold this end of a channel?
pub async fn is_held(holder: Holder) -> bool {
    let look = move || table::is_held(holder.inode, Pid::from_raw(holder.pid));
    // Not to have looked must not cost a worker its channel.
    tokio::task::spawn_blocking(look).await.unwrap_or(true)
}

/// Is this process Node itself, with the shim loaded? Others speak the protocol of Node's cluster too, but Deno, for
/// one, makes nothing of a listener that it is sent. Of a process that lets nobody look into it, it is not assumed:
/// a program that is setuid or has file capabilities loads no shim.
pub async fn is_node_with(process: Pid, shim: PathBuf) -> bool {
    let look = move || {
        let is_node = table::program_name(process).is_some_and(|name| name.as_bytes().starts_with(b"node"));
        is_node && table::has_mapped(process, &shim).unwrap_or(false)
    };
    tokio::task::spawn_blocking(look).await.unwrap_or(false)
}

/// How many TCP connections to these local ports are open.
pub async fn open_connections(ports: &[u16]) -> usize {
    let ports = ports.to_vec();
    let look = move || table::open_connections(&ports);
    tokio::task::spawn_blocking(look).await.unwrap_or(0)
}
