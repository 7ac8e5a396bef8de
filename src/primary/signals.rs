//! The signals that tell clusterd what to do.
//!
//! Only their meaning; what follows is in `signal_actions` and `shutdown`. Until one is taken it is the kernel's, so that an image
//! of clusterd leaves those that it has not obeyed to the next.

use std::io;

use crate::supervisor::Scale;
use crate::sys::signal_queue::{Ask, Meaning, SignalQueue};
use crate::sys::signals;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SignalAction {
    /// Stop when everything that was accepted is served: TERM and QUIT.
    Graceful,
    /// Stop at once: INT, as nginx has it, and so Ctrl-C.
    Fast,
    /// HUP: replace every worker, as nginx and gunicorn do.
    Reload,
    /// TTIN and TTOU: one worker more or fewer, as gunicorn and unicorn have it.
    Scale(Scale),
    /// WINCH: end the workers, as nginx and gunicorn do.
    Drain,
    /// USR1: open the log files again.
    Reopen,
    /// USR2: replace clusterd itself.
    Upgrade,
}

impl Ask for SignalAction {
    fn stops(self) -> bool {
        matches!(self, Self::Graceful | Self::Fast)
    }
}

/// Of several that came, the first in this list is the next.
const MEANINGS: [Meaning<SignalAction>; 9] = [
    (libc::SIGINT, "SIGINT", SignalAction::Fast),
    (libc::SIGTERM, "SIGTERM", SignalAction::Graceful),
    (libc::SIGQUIT, "SIGQUIT", SignalAction::Graceful),
    (libc::SIGHUP, "SIGHUP", SignalAction::Reload),
    (libc::SIGTTIN, "SIGTTIN", SignalAction::Scale(Scale::By(1))),
    (libc::SIGTTOU, "SIGTTOU", SignalAction::Scale(Scale::By(-1))),
    (libc::SIGWINCH, "SIGWINCH", SignalAction::Drain),
    (libc::SIGUSR1, "SIGUSR1", SignalAction::Reopen),
    (libc::SIGUSR2, "SIGUSR2", SignalAction::Upgrade),
];

/// Has them wait for whoever will listen: none ends the program by itself from now on. To be called before there is another
/// thread.
///
/// # Errors
/// Those of pthread_sigmask(3).
pub(super) fn keep_waiting() -> io::Result<()> {
    signals::keep_waiting(&MEANINGS.map(|(number, ..)| number))
}

/// The signals, from this moment.
///
/// # Errors
/// Those of [`SignalQueue::new`].
pub(super) fn listen() -> io::Result<SignalQueue<SignalAction>> {
    SignalQueue::new(&MEANINGS)
}
