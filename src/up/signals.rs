//! The signals that `clusterd up` takes for its apps.
//!
//! Only which they are: what follows is in [`run`](mod@super::run).

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Arrivals, SignalKind, signal};

/// What is done with one that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// All apps end.
    Stop,
    /// Each app gets it.
    PassOn,
}

/// Of several that came, the first in this list is the next.
const MEANINGS: [(Signal, &str, Meaning); 9] = [
    (Signal::INT, "SIGINT", Meaning::Stop),
    (Signal::TERM, "SIGTERM", Meaning::Stop),
    (Signal::QUIT, "SIGQUIT", Meaning::Stop),
    (Signal::HUP, "SIGHUP", Meaning::PassOn),
    (Signal::TTIN, "SIGTTIN", Meaning::PassOn),
    (Signal::TTOU, "SIGTTOU", Meaning::PassOn),
    (Signal::WINCH, "SIGWINCH", Meaning::PassOn),
    (Signal::USR1, "SIGUSR1", Meaning::PassOn),
    (Signal::USR2, "SIGUSR2", Meaning::PassOn),
];

/// One that has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrived {
    pub(super) signal: Signal,
    pub(super) name: &'static str,
    pub(super) meaning: Meaning,
}

/// The signals, from the moment of creation.
#[derive(Debug)]
pub(super) struct Signals(Vec<(Arrivals, Arrived)>);

impl Signals {
    /// Starts to listen; from now on none of them ends the program by itself.
    ///
    /// # Errors
    /// Those of sigaction(2).
    pub(super) fn new() -> io::Result<Self> {
        let listen = |(number, name, meaning): (Signal, _, _)| {
            let arrivals = signal(SignalKind::from_raw(number.as_raw()))?;
            Ok((arrivals, Arrived { signal: number, name, meaning }))
        };
        MEANINGS.into_iter().map(listen).collect::<io::Result<_>>().map(Self)
    }

    /// The next. Signals of one kind that come together count once (signal(7)).
    pub(super) async fn next(&mut self) -> Arrived {
        poll_fn(|cx| {
            let next = self.0.iter_mut().find_map(|(arrivals, arrived)| {
                matches!(arrivals.poll_recv(cx), Poll::Ready(Some(()))).then_some(*arrived)
            });
            next.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
