//! The signals that tell clusterd what to do.
//!
//! Only their meaning; what follows is in `shutdown`.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Stop when everything that was accepted is served: TERM, QUIT, and HUP (the terminal is gone).
    Graceful,
    /// Stop at once: INT, as nginx has it, and so Ctrl-C.
    Fast,
}

/// The signals, from the moment of creation.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    quit: Signal,
    hup: Signal,
    int: Signal,
}

impl Signals {
    /// Starts to listen; from now on none of them ends the program by itself.
    ///
    /// # Errors
    /// Those of sigaction(2).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hup: signal(SignalKind::hangup())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// The next wish, and the name of the signal that carried it.
    pub async fn next(&mut self) -> (Wish, &'static str) {
        tokio::select! {
            _ = self.term.recv() => (Wish::Graceful, "SIGTERM"),
            _ = self.quit.recv() => (Wish::Graceful, "SIGQUIT"),
            _ = self.hup.recv() => (Wish::Graceful, "SIGHUP"),
            _ = self.int.recv() => (Wish::Fast, "SIGINT"),
        }
    }
}
