//! How the processes of workers get the channels that their connections come through.
//!
//! What goes through a channel is the front's; which workers there are is the supervisor's.
//!
//! - [`admission`]: who may attach, to what, and how it is served; one decision for every way.
//! - [`bound`]: what the processes of each launch have bound; [`served`]: the ports, as every way needs them;
//!   [`on_demand`]: those that are opened for whoever asks.
//! - [`socket`]: the way of the shim and of the library: [`handshake`], [`questions`]; [`listener`]: the sockets of those that
//!   accept by themselves; [`turns`]: whom it has in hand; [`waiting`]: what becomes of those that say nothing.
//! - [`node`]: the way of Node's cluster workers.
//! - [`listen_fds`]: the way of servers that take their listeners as from systemd: what runs in the worker's process.
//! - [`snapshot`]: all of that as it goes to the next image.

pub(crate) mod admission;
pub(crate) mod bound;
mod handshake;
pub(crate) mod listen_fds;
mod listener;
pub(crate) mod node;
pub(crate) mod on_demand;
mod questions;
pub(crate) mod seccomp;
pub(crate) mod served;
pub(crate) mod snapshot;
pub(crate) mod socket;
mod turns;
mod waiting;

use std::os::fd::AsFd;
use std::time::Duration;

use tracing::debug;

use crate::sys::seqpacket;

/// How often it is looked whether a descriptor has become free.
const LOOK: Duration = Duration::from_millis(50);

/// Returns when a descriptor can be received on `socket`: the kernel destroys what the table has no room for.
async fn room_for_a_descriptor(socket: impl AsFd) {
    let Err(error) = seqpacket::room_for_a_descriptor(&socket) else { return };
    debug!(%error, "waiting until a file descriptor is free");
    while seqpacket::room_for_a_descriptor(&socket).is_err() {
        tokio::time::sleep(LOOK).await;
    }
}
