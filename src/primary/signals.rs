//! The signals that tell clusterd what to do.
//!
//! Only their meaning; what follows is in `orders` and `shutdown`.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervisor::Scale;

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

/// The signals, from the moment of creation.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Signal, &'static str, SignalAction)>);

impl Signals {
    /// Starts to listen; from now on none of them ends the program by itself.
    ///
    /// # Errors
    /// Those of sigaction(2).
    pub(super) fn new() -> io::Result<Self> {
        let listen = |(number, name, action)| Ok((signal(SignalKind::from_raw(number))?, name, action));
        MEANINGS.into_iter().map(listen).collect::<io::Result<_>>().map(Self)
    }

    /// The next action, and the name of the signal that carried it. Signals of one kind that come together count once
    /// (signal(7)).
    pub(super) async fn next(&mut self) -> (SignalAction, &'static str) {
        poll_fn(|cx| {
            let next = self.0.iter_mut().find_map(|(signal, name, action)| {
                matches!(signal.poll_recv(cx), Poll::Ready(Some(()))).then_some((*action, *name))
            });
            next.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
