//! Signals that wait in the kernel until they are taken, first those that come first in a list.
//!
//! What they ask for is the caller's. Here it is only known which of them stop the program: one that comes twice though it was
//! sent once is seen here.

use std::io;
use std::time::{Duration, Instant};

use tokio::io::Interest;

use super::signals::{self, Sender};
use super::watched::Watched;

/// What a signal asks for.
pub(crate) trait Ask: Copy + 'static {
    /// Whether it asks for the end, and is a stronger wish when it is repeated.
    fn stops(self) -> bool;
}

/// A signal by its number and its name, and what it asks for.
pub(crate) type Meaning<A> = (i32, &'static str, A);

/// What was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken<A> {
    /// None waits any more.
    Nothing,
    /// What the signal of this name asks for.
    Asked(A, &'static str),
    /// The signal of this name came to the whole process group, and once more from the parent: it was sent once.
    Echo(&'static str),
}

/// The signals, from the moment of creation.
#[derive(Debug)]
pub(crate) struct SignalQueue<A: 'static> {
    meanings: &'static [Meaning<A>],
    watched: Watched,
    /// The last one to stop, unless its echo was heard.
    last: Option<Heard>,
}

impl<A: Ask> SignalQueue<A> {
    /// Starts to listen: none ends the program by itself from now on. To be called by the main thread, before there is
    /// another, or after [`signals::keep_waiting`].
    ///
    /// # Errors
    /// Those of signalfd(2), pthread_sigmask(3) and epoll_ctl(2).
    pub(crate) fn new(meanings: &'static [Meaning<A>]) -> io::Result<Self> {
        let numbers: Vec<_> = meanings.iter().map(|(number, ..)| *number).collect();
        let watched = Watched::new(signals::wait_for(&numbers)?, Interest::READABLE)?;
        Ok(Self { meanings, watched, last: None })
    }

    /// Waits until one has come.
    pub(crate) async fn come(&self) {
        if self.watched.readable().await.is_err() {
            // The runtime ends, and the program with it.
            std::future::pending().await
        }
    }

    /// Takes the next. Signals of one kind that come together count once (signal(7)).
    pub(crate) async fn take(&mut self) -> Taken<A> {
        let mut waiting = self.meanings.iter().filter_map(|it| Some((*it, signals::take(it.0)?)));
        let Some(((number, name, asked), sender)) = waiting.next() else {
            if let Ok(mut ready) = self.watched.readable().await {
                ready.clear_ready();
            }
            return Taken::Nothing;
        };
        match asked.stops() && self.is_echo(Heard { number, sender, at: Instant::now() }) {
            true => Taken::Echo(name),
            false => Taken::Asked(asked, name),
        }
    }

    fn is_echo(&mut self, heard: Heard) -> bool {
        let is_echo = self.last.take().is_some_and(|last| heard.is_echo_of(&last));
        self.last = (!is_echo).then_some(heard);
        is_echo
    }
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
