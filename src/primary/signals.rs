//! The signals that tell clusterd what to do.
//!
//! Only their meaning; what follows is in `signal_actions` and `shutdown`. Until one is taken it is the kernel's, so that an image
//! of clusterd leaves those that it has not obeyed to the next.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::Interest;
use tracing::info;

use crate::supervisor::Scale;
use crate::sys::signals::{self, Sender};
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

impl SignalAction {
    /// Whether it asks for the end, and is a stronger wish when it is repeated.
    fn stops(self) -> bool {
        matches!(self, Self::Graceful | Self::Fast)
    }
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

/// Within this time the parent has passed on what it has got together with this process, however busy the machine is.
const ECHO: Duration = Duration::from_secs(2);

/// A signal to stop that counted.
#[derive(Clone, Copy, Debug)]
struct Heard {
    number: i32,
    sender: Sender,
    at: Instant,
}

impl Heard {
    /// Whether this is the other one of a signal that came twice: to the whole group, and from the parent, which passes on
    /// what it gets, as npm does for what it runs. Two from one sender are two.
    fn is_echo_of(&self, earlier: &Self) -> bool {
        self.number == earlier.number && self.sender != earlier.sender && self.at - earlier.at < ECHO
    }
}

/// The signals, from the moment of creation.
#[derive(Debug)]
pub(super) struct Signals {
    watched: Watched,
    /// The last one to stop, unless its echo was heard.
    last: Option<Heard>,
}

impl Signals {
    /// Starts to listen.
    ///
    /// # Errors
    /// Those of signalfd(2) and epoll_ctl(2).
    pub(super) fn new() -> io::Result<Self> {
        let watched = Watched::new(signals::wait_for(&numbers())?, Interest::READABLE)?;
        Ok(Self { watched, last: None })
    }

    /// Waits until one has come.
    pub(super) async fn come(&self) {
        if self.watched.readable().await.is_err() {
            // The runtime ends, and the program with it.
            std::future::pending().await
        }
    }

    /// Takes the next action, and the name of the signal that carried it. Signals of one kind that come together count once
    /// (signal(7)), and so does one that the parent passes on to whom it has reached already.
    pub(super) async fn take(&mut self) -> Option<(SignalAction, &'static str)> {
        let mut waiting = MEANINGS.into_iter().filter_map(|it| Some((it, signals::take(it.0)?)));
        let Some(((number, name, action), sender)) = waiting.next() else {
            if let Ok(mut ready) = self.watched.readable().await {
                ready.clear_ready();
            }
            return None;
        };
        if action.stops() && self.is_echo(Heard { number, sender, at: Instant::now() }) {
            info!("{name}: the parent has passed on what has come here, too; it counts once");
            return None;
        }
        Some((action, name))
    }

    fn is_echo(&mut self, heard: Heard) -> bool {
        let is_echo = self.last.take().is_some_and(|last| heard.is_echo_of(&last));
        self.last = (!is_echo).then_some(heard);
        is_echo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_parent_passes_on_counts_once() {
        let begin = Instant::now();
        let heard = |number, sender, milliseconds| Heard {
            number,
            sender,
            at: begin + Duration::from_millis(milliseconds),
        };
        let group = heard(libc::SIGTERM, Sender::Other, 0);
        assert!(heard(libc::SIGTERM, Sender::Parent, 1).is_echo_of(&group));
        assert!(heard(libc::SIGTERM, Sender::Other, 1).is_echo_of(&heard(libc::SIGTERM, Sender::Parent, 0)));
        for again in [
            heard(libc::SIGTERM, Sender::Other, 1),
            heard(libc::SIGINT, Sender::Parent, 1),
            heard(libc::SIGTERM, Sender::Parent, 2000),
        ] {
            assert!(!again.is_echo_of(&group), "{again:?}");
        }
    }
}
