//! What the kernel offers and no safe library wraps: the only unsafe code beside the shim in `preload`.
//!
//! It knows nothing of clusterd: every file here could serve another program.

#![allow(unsafe_code)]

pub mod acting;
pub mod datagram;
pub mod peer;
pub mod process;
pub mod processes;
#[cfg(test)]
pub(crate) mod scarcity;
pub mod seqpacket;
pub mod socket;
pub mod unix;
pub mod usage;
pub mod watched;
