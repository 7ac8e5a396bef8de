//! The shim: a library, loaded into a worker's processes with LD_PRELOAD, that turns a listener on a served port
//! into a channel to the primary.
//!
//! It is not a part of the crate: `build.rs` compiles it alone, and the crate embeds the outcome. It needs no
//! allocation and no libc but `errno`, `getenv`, `unsetenv`, `recvfrom`, `sigprocmask` and, where there is one, `dlsym`, so the
//! same file loads into glibc and musl programs, and its functions may be called wherever those that they stand in for may: in
//! signal handlers and after fork.
//!
//! - `intercept`: the functions that programs call for their listeners; `writing`: those with which they write.
//! - `attach`: how a listener becomes a channel, which `replace` puts in its place; `descriptors` and `fdinfo` tell
//!   where that is.
//! - `channel`: how connections come out of one.
//! - `options`, `shadow`, `address`: what a channel says in a listener's place.
//! - `listening`: whether anybody listens yet.
//! - `primary`: words with the primary beside the channels.
//! - `draining`: whether the launch drains; `closing`: how clients of HTTP hear of it then, and `http`: in which words.
//! - `settings`: what the environment tells; `numbers`: sets of ports and descriptors.
//! - `node`: which process may speak on the worker's Node channel; `runtime`: which program.
//! - `handlers`: which signals the app in a Node worker catches.
//! - `libc`: its own functions behind those that the shim stands in for; `syscalls`, `abi`: the kernel.

#![no_std]
#![deny(unsafe_op_in_unsafe_fn)]
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod abi;
mod address;
mod attach;
mod channel;
mod closing;
mod descriptors;
#[path = "../protocol/drain_page.rs"]
mod drain_page;
mod draining;
mod fdinfo;
mod handlers;
mod http;
mod intercept;
mod libc;
mod listening;
mod node;
mod numbers;
mod options;
mod primary;
#[path = "../sys/proc_fd.rs"]
mod proc_fd;
mod replace;
mod runtime;
mod settings;
mod shadow;
mod syscalls;
#[allow(dead_code)]
#[path = "../protocol/wire.rs"]
mod wire;
mod writing;

pub use intercept::*;
pub use writing::*;

/// Makes the dynamic linker call [`start`] before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

extern "C" fn start() {
    settings::read();
    draining::find();
    libc::find();
    node::protect();
    handlers::watch();
}

/// Nothing in the shim panics; the language wants this to exist. A server that cannot go on must not hang.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        syscalls::kill(syscalls::getpid(), abi::SIGABRT);
    }
}
