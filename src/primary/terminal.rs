//! The terminal that clusterd was started from, and whether that has been closed since.
//!
//! What follows from it is in [`signals`](super::signals) and [`signal_actions`](super::signal_actions).

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::termios::{tcgetattr, tcgetsid};

use crate::sys::process::duplicate;

/// The terminal, as it was at the start.
#[derive(Debug)]
pub(super) struct Terminal {
    /// Duplicates of the standard streams that were this terminal. None if clusterd is to outlive it.
    streams: Vec<OwnedFd>,
}

impl Terminal {
    /// Looks at the standard streams. With nohup(1), which has SIGHUP ignored, clusterd is to outlive the terminal.
    pub(super) fn at_start(ignores_hup: bool) -> Self {
        let own = (0..3).filter_map(|stream| duplicate(stream).ok()).filter(controls_this_session);
        Self { streams: if ignores_hup { Vec::new() } else { own.collect() } }
    }

    /// Whether it was closed. The kernel does that to a terminal before it sends SIGHUP, and from then on every
    /// operation on it fails with EIO.
    pub(super) fn is_closed(&self) -> bool {
        self.streams.iter().any(|stream| matches!(tcgetattr(stream), Err(Errno::IO)))
    }
}

/// A process that left its terminal's session (setsid(1)) gets no SIGHUP from it.
fn controls_this_session(stream: &OwnedFd) -> bool {
    let own = rustix::process::getsid(None);
    matches!((tcgetsid(stream), own), (Ok(session), Ok(own)) if session == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_no_terminal_and_never_closed_as_one() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let reader = reader.into();
        assert!(!controls_this_session(&reader));
        drop(writer);
        assert!(!Terminal { streams: vec![reader] }.is_closed());
        assert!(!Terminal { streams: vec![] }.is_closed());
    }
}
