//! The listener of the library `clusterd-worker`, for the demo worker.
//!
//! The library's own files are compiled here once more, through links: the command and the library depend on each other
//! in neither direction, so that each can be packed and installed by itself.

#![allow(dead_code, reason = "the demo uses only a part of the library")]

mod channel;
mod error;
mod listener;

pub(crate) use listener::Listener;

use crate::protocol::wire;
use crate::sys::seqpacket;
