//! What this machine allows, in words, with what follows for the user: `clusterd doctor`.
//!
//! Each check tries the real thing, as clusterd itself would, and leaves nothing behind: it opens no port, and what it makes it
//! removes. What it has seen becomes words and a verdict in a function without effects. Nothing that tells who somebody is
//! (names of machines, users and home folders) is in them: they are made for bug reports.
//!
//! Of [`primary`](crate::primary), which otherwise nobody knows, it uses what that decides and makes before anything is opened.
//! It neither mends anything nor looks at a clusterd that runs.
//!
//! - [`finding`]: a verdict and its words.
//! - `kernel`, `places`, `preload`, `intercept`, `sockets`, `limits`, `processes`, `waiting`: the checks, by what they look at.
//! - [`child`]: the process that some of them start, and what it does.

pub(crate) mod child;
mod finding;
mod intercept;
mod kernel;
mod limits;
mod places;
mod preload;
mod processes;
mod sockets;
mod waiting;

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use serde::Serialize;

use self::finding::Found;
pub(crate) use self::finding::{Finding, Verdict};

/// How long a check may take. All of them together take some 50 ms where the machine has a CPU for them.
const PATIENCE: Duration = Duration::from_secs(5);

/// A check.
struct Check {
    name: &'static str,
    /// clusterd serves nothing without it.
    is_needed: bool,
    look: fn() -> Found,
}

const fn needed(name: &'static str, look: fn() -> Found) -> Check {
    Check { name, is_needed: true, look }
}

const fn useful(name: &'static str, look: fn() -> Found) -> Check {
    Check { name, is_needed: false, look }
}

/// All checks, in the order in which they are printed: what serves first, then what limits.
const CHECKS: [Check; 26] = [
    useful("kernel", kernel::look),
    useful("proc", places::proc),
    useful("runtime-folder", places::runtime_folder),
    useful("control-socket", places::control_socket),
    needed("preload", preload::preload),
    useful("memfd", preload::memory),
    needed("event-loop", waiting::look),
    needed("random", processes::random),
    needed("tcp", sockets::tcp),
    needed("hand-over", sockets::hand_over),
    useful("passrights", sockets::pass_rights),
    useful("netlink", sockets::netlink),
    useful("cookies", sockets::cookies),
    useful("seccomp", intercept::seccomp),
    useful("process-access", intercept::access),
    useful("steering", sockets::steering),
    useful("socket-filter", sockets::filter),
    useful("tcp-migrate", sockets::migrate),
    useful("backlog", sockets::backlog),
    useful("low-ports", sockets::low_ports),
    useful("user", processes::user),
    needed("orphans", processes::orphans),
    needed("processes", processes::room),
    useful("cpus", limits::cpus),
    useful("memory", limits::memory),
    needed("open-files", limits::open_files),
];

/// What was found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// clusterd's version.
    pub version: &'static str,
    /// Whether this clusterd needs no libraries.
    pub is_static: bool,
    /// The kernel's release, as uname(2) tells it.
    pub kernel: String,
    /// The processor's architecture.
    pub processor: &'static str,
    /// Whether clusterd can run a server here.
    pub serves: bool,
    /// Every check.
    pub checks: Vec<Finding>,
}

/// Looks at everything.
pub(crate) fn examine() -> Report {
    let checks: Vec<_> = CHECKS.iter().map(|check| bounded(check, PATIENCE)).collect();
    Report {
        version: env!("CARGO_PKG_VERSION"),
        is_static: cfg!(target_feature = "crt-static"),
        kernel: kernel::release(),
        processor: std::env::consts::ARCH,
        serves: !checks.iter().any(Finding::is_in_the_way),
        checks,
    }
}

/// Carries a check out on a thread of its own, which is left behind if it hangs: on a file system that does not answer, say.
fn bounded(&Check { name, is_needed, look }: &Check, patience: Duration) -> Finding {
    let (sender, receiver) = mpsc::sync_channel(1);
    let spawned = thread::Builder::new().spawn(move || sender.send(look()));
    let found = match spawned {
        // That there are no threads is for a check of its own to say.
        Err(_) => look(),
        Ok(_) => receiver.recv_timeout(patience).unwrap_or_else(|error| match error {
            RecvTimeoutError::Timeout => hangs(patience),
            RecvTimeoutError::Disconnected => {
                Found::fails("the check itself has failed", "Please report it: it is a defect of clusterd")
            }
        }),
    };
    Finding::new(name, is_needed, found)
}

fn hangs(patience: Duration) -> Found {
    let what = format!("the system has not answered within {}", humantime::format_duration(patience));
    Found::fails(
        what,
        "clusterd may hang in the same way; a file system that does not answer is a common reason",
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_check_that_hangs_says_so_in_time() {
        let never = || loop {
            thread::park();
        };
        let finding = bounded(&needed("never", never), Duration::from_millis(10));
        assert!(finding.is_in_the_way());
        assert_eq!(finding.what(), "the system has not answered within 10ms");
    }

    #[test]
    fn a_check_that_panics_is_a_finding() {
        let broken = || std::panic::resume_unwind(Box::new("without a message"));
        assert_eq!(bounded(&useful("broken", broken), PATIENCE).what(), "the check itself has failed");
    }

    #[test]
    fn each_check_has_a_name_of_its_own() {
        let names: BTreeSet<_> = CHECKS.iter().map(|check| check.name).collect();
        assert_eq!(names.len(), CHECKS.len());
    }
}
