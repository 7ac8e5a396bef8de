//! A new channel to the front, for a server of a Node worker: its ends, and its name.
//!
//! Who gets it is the session's to say.

use std::io;

use crate::ids::LinkId;
use crate::protocol::name_address;
use crate::protocol::wire::{ChannelName, Endpoint};
use crate::sys::closer::ForeignFd;
use crate::sys::seqpacket;

/// The ends.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) ours: ForeignFd,
    pub(super) workers: ForeignFd,
    /// The worker's end again, to take connections back from.
    pub(super) kept: ForeignFd,
    /// Of the worker's end.
    pub(super) inode: u64,
    /// In its name.
    pub(super) nonce: u64,
}

impl Ends {
    /// Of a channel for a server that listens on `address`.
    ///
    /// # Errors
    /// Those of socketpair(2), bind(2) and fcntl(2).
    pub(super) fn new(address: Endpoint, link: LinkId) -> io::Result<Self> {
        let nonce = u64::from(std::process::id()) << 32 ^ link.0;
        let name = ChannelName { address, given: true, nonce };
        let (ours, workers) = seqpacket::named_pair(&name_address(&name)?)?;
        let (ours, workers) = (ForeignFd::from(ours), ForeignFd::from(workers));
        let kept = workers.try_clone()?;
        let inode = rustix::fs::fstat(&workers)?.st_ino;
        Ok(Self { ours, workers, kept, inode, nonce })
    }
}
