//! How a worker is spoken to.
//!
//! - [`drain_page`]: where the shim reads that its launch drains.
//! - [`wire`]: the attach protocol's messages, shared with the shim.
//! - [`node`]: the messages of Node's own cluster protocol.
//! - [`notify`]: what a worker says of itself in the language of systemd.

mod carried;
#[cfg_attr(not(test), expect(dead_code, reason = "only the shim takes apart what it is told"))]
pub(crate) mod drain_page;
pub mod node;
pub(crate) mod notify;
pub mod wire;

use std::io;

use rustix::net::SocketAddrUnix;

use self::wire::ChannelName;

/// The address that a worker's end of a channel is bound to.
///
/// # Errors
/// None for the names that there are: they are shorter than `sun_path`.
pub fn name_address(name: &ChannelName) -> io::Result<SocketAddrUnix> {
    // The zero byte in front is the address type's to write.
    Ok(SocketAddrUnix::new_abstract_name(&name.encode()[1..])?)
}

#[cfg(test)]
mod tests;
