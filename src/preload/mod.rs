//! The shim as the crate sees it: a file to embed, and to expose to the dynamic linker of workers.
//!
//! The shim itself is a library of its own, which begins in `lib.rs` beside this file and is compiled by
//! `build.rs`. Nothing of it runs in this process.

mod expose;
mod page;

pub(crate) use expose::{ExposeError, Exposed, ExposedSnapshot, lets_load};
pub(crate) use page::{DrainPage, DrainPageSnapshot};

/// The shim, an ELF shared object; `None` on processors for which there is none.
#[cfg(shim)]
pub(crate) const SHIM: Option<&[u8]> = Some(include_bytes!(concat!(env!("OUT_DIR"), "/shim.so")));

/// The shim, an ELF shared object; `None` on processors for which there is none.
#[cfg(not(shim))]
pub const SHIM: Option<&[u8]> = None;

/// What the shim's file is called: this name also shows in `/proc/PID/maps` of a process that has loaded it.
pub(crate) const FILE_NAME: &str = "clusterd-shim.so";

// The shim's files without system calls are tested with the crate.
#[cfg(all(test, shim))]
#[allow(dead_code)]
mod abi;
#[cfg(all(test, shim))]
mod address;
#[cfg(all(test, shim))]
mod fdinfo;
#[cfg(all(test, shim))]
mod http;
#[cfg(all(test, shim))]
mod runtime;
#[cfg(all(test, shim))]
mod tests;
#[cfg(all(test, shim))]
use crate::{protocol::wire, sys::proc_fd};
