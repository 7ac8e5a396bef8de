//! Waits for children: the only place that does.
//!
//! It takes every child that has ended, also orphans that were adopted as PID 1 or subreaper, and says which it
//! was. Whose child that is, and what follows, is not decided here.

use std::io;

use rustix::io::Errno;
use rustix::process::{Pid, WaitOptions, WaitStatus};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::supervisor::ends::Ended;

/// Which children are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// Every child, as PID 1 and a subreaper must.
    Everyone,
    /// Only members of the process groups that are asked about: for a program that has other children.
    #[cfg_attr(not(test), expect(dead_code, reason = "for tests, which have other children"))]
    Groups,
}

/// The ends of children.
#[derive(Debug)]
pub(crate) struct Reaper {
    signal: Signal,
    scope: Scope,
}

impl Reaper {
    /// Starts to listen for SIGCHLD.
    ///
    /// # Errors
    /// The signal handler cannot be installed.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub(crate) fn new(scope: Scope) -> io::Result<Self> {
        let signal = signal(SignalKind::child())?;
        Ok(Self { signal, scope })
    }

    /// Waits for the next child that ends. `groups` matters for [`Scope::Groups`] alone. A future that is
    /// dropped loses nothing: a child is taken only in the poll that returns it.
    pub(crate) async fn next(&mut self, groups: &[Pid]) -> (Pid, Ended) {
        loop {
            if let Some(ended) = self.take(groups) {
                return ended;
            }
            self.signal.recv().await;
        }
    }

    fn take(&self, groups: &[Pid]) -> Option<(Pid, Ended)> {
        match self.scope {
            Scope::Everyone => take_one(rustix::process::wait),
            Scope::Groups => {
                groups.iter().find_map(|&group| take_one(|options| rustix::process::waitpgid(group, options)))
            }
        }
    }
}

type Waited = rustix::io::Result<Option<(Pid, WaitStatus)>>;

fn take_one(wait: impl Fn(WaitOptions) -> Waited) -> Option<(Pid, Ended)> {
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, status))) => {
                if let Some(how) = how(status) {
                    return Some((pid, how));
                }
            }
            Err(Errno::INTR) => {}
            // ECHILD: there is no child at all.
            Ok(None) | Err(_) => return None,
        }
    }
}

/// WCOREDUMP of wait(2).
const CORE_DUMPED: i32 = 0x80;

fn how(status: WaitStatus) -> Option<Ended> {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(Ended::Code(code)),
        (None, Some(signal)) => Some(Ended::Signal { signal, core: status.as_raw() & CORE_DUMPED != 0 }),
        (None, None) => None,
    }
}
