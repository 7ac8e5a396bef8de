//! Which signals the app in a Node worker catches: the primary asks it to end in the way that it was written for.
//!
//! It stands in for no function that installs a handler, since none of libc's could be called in its place. libuv, whose
//! handlers are those of the app, blocks all signals while it installs or removes one, so that it is enough to look when
//! signals are let in again (pthread_sigmask(3)). Node's own handlers, which only restore the terminal and end the process,
//! are known by SA_RESETHAND.

use core::sync::atomic::{AtomicI32, AtomicU64, Ordering};

use crate::abi;
use crate::node;
use crate::primary;
use crate::settings;
use crate::syscalls as sys;
use crate::wire::FromWorker;

/// The signals by which a server may be asked to stop. Not USR1, which Node catches for its debugger.
const SIGNALS: [i32; 8] = [
    abi::SIGHUP,
    abi::SIGINT,
    abi::SIGQUIT,
    abi::SIGUSR2,
    abi::SIGALRM,
    abi::SIGTERM,
    abi::SIGWINCH,
    abi::SIGPWR,
];

/// The process that tells: a Node worker. Children of it share this memory, or have a copy of it.
static TELLER: AtomicI32 = AtomicI32::new(0);

/// What the primary knows.
static TOLD: AtomicU64 = AtomicU64::new(0);

/// Not a set of [`SIGNALS`]: what the primary knows is not known.
const UNKNOWN: u64 = u64::MAX;

/// Called once, before `main`.
pub(crate) fn watch() {
    if settings::names_primary() && node::is_worker() {
        TELLER.store(sys::getpid(), Ordering::Relaxed);
    }
}

/// Tells the primary which signals are caught now, if they are not those of before.
pub(crate) fn look() {
    let teller = TELLER.load(Ordering::Relaxed);
    if teller == 0 || teller != sys::getpid() {
        return;
    }
    let caught = SIGNALS.iter().filter(|&&signal| is_caught(signal));
    let signals = caught.fold(0, |signals, signal| signals | 1 << (signal - 1));
    if TOLD.swap(signals, Ordering::Relaxed) == signals {
        return;
    }
    let told = primary::tell(&FromWorker::Catches { token: settings::token(), signals });
    if told.is_err() {
        TOLD.store(UNKNOWN, Ordering::Relaxed);
    }
}

fn is_caught(signal: i32) -> bool {
    let is_apps =
        |(handler, flags)| !matches!(handler, abi::SIG_DFL | abi::SIG_IGN) && flags & abi::SA_RESETHAND == 0;
    sys::disposition(signal).is_ok_and(is_apps)
}
