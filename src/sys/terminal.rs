//! The terminal that this process was started from, and whether that has been closed since.
//!
//! What follows from it is not known here.

use std::os::fd::OwnedFd;

use procfs::process::Process;
use rustix::fs::{major, minor};
use rustix::io::Errno;
use rustix::termios::tcgetattr;

use super::process::duplicate;

/// The terminal, as it was at the start.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Duplicates of the standard streams that were this terminal. None if this process is to outlive it.
    streams: Vec<OwnedFd>,
}

impl Terminal {
    /// Looks at the standard streams. With nohup(1), which has SIGHUP ignored, the process is to outlive
    /// the terminal.
    pub(crate) fn at_start(ignores_hup: bool) -> Self {
        let own = (0..3).filter_map(|stream| duplicate(stream).ok()).filter(controls_this_session);
        Self { streams: if ignores_hup { Vec::new() } else { own.collect() } }
    }

    /// Whether this process is to outlive it, or has none.
    pub(crate) fn is_outlived(&self) -> bool {
        self.streams.is_empty()
    }

    /// Whether it was closed. The kernel does that to a terminal before it sends SIGHUP, and from then on every
    /// operation on it fails with EIO.
    pub(crate) fn is_closed(&self) -> bool {
        self.streams.iter().any(|stream| matches!(tcgetattr(stream), Err(Errno::IO)))
    }
}

/// A process that left its terminal's session (setsid(1)) gets no SIGHUP from it. Sessions are not compared by number: in
/// a process namespace of its own, as in a container, a process may be of one that has none there.
fn controls_this_session(stream: &OwnedFd) -> bool {
    let Ok(file) = rustix::fs::fstat(stream) else { return false };
    let Ok(this) = Process::myself().and_then(|process| process.stat()) else { return false };
    let controlling = device(this.tty_nr.cast_unsigned());
    tcgetattr(stream).is_ok() && (major(file.st_rdev), minor(file.st_rdev)) == controlling
}

/// Major and minor number of a terminal, as proc_pid_stat(5) has them.
fn device(tty_nr: u32) -> (u32, u32) {
    (tty_nr >> 8 & 0xfff, tty_nr & 0xff | tty_nr >> 12 & 0xfff00)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_known_by_their_numbers() {
        assert_eq!(device(0x8805), (136, 5));
        assert_eq!(device(0x0010_8802), (136, 0x102), "the minor number has bits on both sides");
    }

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
