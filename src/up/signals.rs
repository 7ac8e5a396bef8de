//! The signals that `clusterd up` takes for its apps.
//!
//! Only which they are: what follows is in [`run`](mod@super::run).

use std::io;

use rustix::process::Signal;

use crate::sys::signal_queue::{Ask, Meaning, SignalQueue};

/// What is done with one that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// All apps end, as this signal ends each.
    Stop(Signal),
    /// Each app gets it.
    PassOn(Signal),
}

impl Ask for Deed {
    fn stops(self) -> bool {
        matches!(self, Self::Stop(_))
    }
}

/// Of several that came, the first in this list is the next.
const MEANINGS: [Meaning<Deed>; 9] = [
    (libc::SIGINT, "SIGINT", Deed::Stop(Signal::INT)),
    (libc::SIGTERM, "SIGTERM", Deed::Stop(Signal::TERM)),
    (libc::SIGQUIT, "SIGQUIT", Deed::Stop(Signal::QUIT)),
    (libc::SIGHUP, "SIGHUP", Deed::PassOn(Signal::HUP)),
    (libc::SIGTTIN, "SIGTTIN", Deed::PassOn(Signal::TTIN)),
    (libc::SIGTTOU, "SIGTTOU", Deed::PassOn(Signal::TTOU)),
    (libc::SIGWINCH, "SIGWINCH", Deed::PassOn(Signal::WINCH)),
    (libc::SIGUSR1, "SIGUSR1", Deed::PassOn(Signal::USR1)),
    (libc::SIGUSR2, "SIGUSR2", Deed::PassOn(Signal::USR2)),
];

/// The signals, from this moment: none of them ends the program by itself any more.
///
/// # Errors
/// Those of [`SignalQueue::new`].
pub(super) fn listen() -> io::Result<SignalQueue<Deed>> {
    SignalQueue::new(&MEANINGS)
}
