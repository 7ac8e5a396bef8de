//! The signals that tell clusterd what to do.
//!
//! Only their meaning; what follows is in `signal_actions` and `shutdown`. Until one is taken it is the kernel's, so that an image
//! of clusterd leaves those that it has not obeyed to the next.

use std::io;

use tokio::io::Interest;

use crate::supervisor::Scale;
use crate::sys::signals;
use crate::sys::watched::Watched;

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

/// Of several that came, the first in this list is the next.
const MEANINGS: [(i32, &str, SignalAction); 9] = [
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

/// Their numbers.
fn numbers() -> [i32; MEANINGS.len()] {
    MEANINGS.map(|(number, ..)| number)
}

/// Has them wait for whoever will listen: none ends the program by itself from now on. To be called before there is another
/// thread.
///
/// # Errors
/// Those of pthread_sigmask(3).
pub(super) fn keep_waiting() -> io::Result<()> {
    signals::keep_waiting(&numbers())
}

/// The signals, from the moment of creation.
#[derive(Debug)]
pub(super) struct Signals(Watched);

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// Those of signalfd(2) and epoll_ctl(2).
    pub(super) fn new() -> io::Result<Self> {
        Watched::new(signals::wait_for(&numbers())?, Interest::READABLE).map(Self)
    }

    /// Waits until one has come.
    pub(super) async fn come(&self) {
        if self.0.readable().await.is_err() {
            // The runtime ends, and the program with it.
            std::future::pending().await
        }
    }

    /// Takes the next action, and the name of the signal that carried it. Signals of one kind that come together count once
    /// (signal(7)).
    pub(super) async fn take(&self) -> Option<(SignalAction, &'static str)> {
        let found = MEANINGS.into_iter().find(|(number, ..)| signals::take(*number));
        if found.is_none()
            && let Ok(mut ready) = self.0.readable().await
        {
            ready.clear_ready();
        }
        found.map(|(_, name, action)| (action, name))
    }
}
