//! What the kernel offers and no safe library wraps: the only unsafe code beside the shim in `preload`.
//!
//! It knows nothing of clusterd: every file here could serve another program.

#![allow(unsafe_code)]

pub(crate) mod acting;
pub(crate) mod blocking;
pub(crate) mod bpf;
pub(crate) mod carried;
pub(crate) mod cgroups;
pub(crate) mod closer;
pub(crate) mod counter;
pub(crate) mod datagram;
pub(crate) mod edges;
pub(crate) mod event_loop;
pub(crate) mod exec;
pub(crate) mod exhausted;
pub(crate) mod guarded;
pub(crate) mod idle;
pub(crate) mod kin;
pub(crate) mod mark;
pub(crate) mod memory;
#[cfg(test)]
pub(crate) mod network;
pub(crate) mod peer;
pub(crate) mod privileges;
pub(crate) mod proc_fd;
pub(crate) mod process;
pub(crate) mod processes;
pub(crate) mod remote;
pub(crate) mod reuseport;
#[cfg(test)]
pub(crate) mod scarcity;
pub(crate) mod seccomp;
pub mod seqpacket;
pub(crate) mod signal_queue;
pub(crate) mod signals;
pub(crate) mod sock_diag;
pub(crate) mod socket;
#[cfg(any(test, all(target_env = "gnu", target_arch = "x86_64", target_feature = "crt-static")))]
mod static_glibc;
pub(crate) mod terminal;
pub(crate) mod unix;
pub(crate) mod usage;
pub(crate) mod users;
pub(crate) mod watched;
