//! How a worker's process ended, in words, numbers and labels.
//!
//! What follows from it is not known here.

use std::fmt;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It exited with this code.
    Code(i32),
    /// This signal ended it.
    Signal {
        /// Its number.
        signal: i32,
        /// It has left a core dump.
        core: bool,
    },
}

impl Ended {
    /// The code with which a shell would exit after it.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Ended::Code(code) => u8::try_from(code).unwrap_or(1),
            Ended::Signal { signal, .. } => u8::try_from(128 + signal).unwrap_or(1),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Ended::Code(code) => write!(f, "exited with code {code}"),
            Ended::Signal { signal, core } => {
                match signal_name(signal) {
                    Some(name) => write!(f, "was killed by {name}")?,
                    None => write!(f, "was killed by signal {signal}")?,
                }
                if core { f.write_str(" (core dumped)") } else { Ok(()) }
            }
        }
    }
}

/// The names of the signals that end processes, as signal(7) has them.
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        libc::SIGHUP => "SIGHUP",
        libc::SIGINT => "SIGINT",
        libc::SIGQUIT => "SIGQUIT",
        libc::SIGILL => "SIGILL",
        libc::SIGTRAP => "SIGTRAP",
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGKILL => "SIGKILL",
        libc::SIGUSR1 => "SIGUSR1",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGUSR2 => "SIGUSR2",
        libc::SIGPIPE => "SIGPIPE",
        libc::SIGALRM => "SIGALRM",
        libc::SIGTERM => "SIGTERM",
        libc::SIGXCPU => "SIGXCPU",
        libc::SIGXFSZ => "SIGXFSZ",
        libc::SIGSYS => "SIGSYS",
        _ => return None,
    })
}

/// How a run of a worker came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The process ended by itself, or by somebody else's hand.
    Ended(Ended),
    /// It was not ready in time, and was stopped for it.
    Unready,
    /// It could not be started at all.
    NotStarted,
}

impl From<Ended> for End {
    fn from(ended: Ended) -> Self {
        End::Ended(ended)
    }
}

/// Why a worker is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It exited with code 0.
    Exit,
    /// It exited with another code.
    Crash,
    /// A signal ended it.
    Signal,
    /// It was not ready in time.
    Unready,
    /// It could not be started.
    Failed,
    /// A command asked for it.
    Command,
}

impl Reason {
    /// Every reason.
    pub(crate) const ALL: [Reason; 6] =
        [Reason::Exit, Reason::Crash, Reason::Signal, Reason::Unready, Reason::Failed, Reason::Command];

    /// The value of the `reason` label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Reason::Exit => "exit",
            Reason::Crash => "crash",
            Reason::Signal => "signal",
            Reason::Unready => "unready",
            Reason::Failed => "failed",
            Reason::Command => "command",
        }
    }
}

impl From<End> for Reason {
    fn from(end: End) -> Self {
        match end {
            End::Ended(Ended::Code(0)) => Reason::Exit,
            End::Ended(Ended::Code(_)) => Reason::Crash,
            End::Ended(Ended::Signal { .. }) => Reason::Signal,
            End::Unready => Reason::Unready,
            End::NotStarted => Reason::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_told_in_words_and_as_a_shell_would_exit() {
        let ended = [
            (Ended::Code(3), "exited with code 3", 3),
            (Ended::Signal { signal: libc::SIGSEGV, core: true }, "was killed by SIGSEGV (core dumped)", 139),
            (Ended::Signal { signal: 40, core: false }, "was killed by signal 40", 168),
        ];
        for (ended, words, code) in ended {
            assert_eq!((ended.to_string().as_str(), ended.exit_code()), (words, code));
        }
    }
}
