//! What clusterd waits with: for clients, for workers, for signals and for time. A filter of system calls may forbid it.

use std::io;

use tokio::io::Interest;

use super::finding::Found;
use crate::sys::event_loop;
use crate::sys::exhausted::more_descriptors;
use crate::sys::signals::{self, Blocked};
use crate::sys::watched::Watched;

pub(super) fn look() -> Found {
    judge(wait())
}

/// Waits for a signal that does not come.
fn wait() -> io::Result<()> {
    // Those of the thread that looks are as before afterwards.
    let _before = Blocked::all()?;
    let runtime = event_loop::begin()?;
    runtime.block_on(async {
        let signals = signals::wait_for(&[libc::SIGUSR1])?;
        Watched::new(signals, Interest::READABLE).map(drop)
    })
}

fn judge(waited: io::Result<()>) -> Found {
    let Err(error) = waited else {
        return Found::works("an event loop can wait for descriptors and signals");
    };
    // Who made the event loop may have a hint of its own.
    if let Some((what, hint)) = error.to_string().split_once("\nhint: ") {
        return Found::fails(what, format!("clusterd does not start; {hint}"));
    }
    let permit = "let the filter of system calls permit epoll, eventfd2 and signalfd4";
    let hint = more_descriptors(&error).unwrap_or(permit);
    Found::fails(
        format!("an event loop cannot wait for descriptors and signals: {error}"),
        format!("clusterd does not start; {hint}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Verdict;
    use super::*;

    #[test]
    fn what_is_missing_is_named_with_what_would_help() {
        assert_eq!(judge(Ok(())).verdict, Verdict::Works);
        let hinted = "cannot create a pair of Unix sockets: refused\nhint: permit AF_UNIX";
        for (error, what, follows) in [
            ("refused", "an event loop cannot wait for descriptors and signals: refused", "epoll"),
            (
                hinted,
                "cannot create a pair of Unix sockets: refused",
                "clusterd does not start; permit AF_UNIX",
            ),
        ] {
            let found = judge(Err(io::Error::other(error)));
            assert_eq!((found.verdict, found.what.as_str()), (Verdict::Fails, what));
            assert!(found.follows.as_ref().is_some_and(|words| words.contains(follows)), "{found:?}");
        }
    }

    #[test]
    fn nothing_of_the_thread_that_looks_is_changed() {
        let blocked = || {
            std::fs::read_to_string("/proc/thread-self/status")
                .map(|status| status.lines().find(|line| line.starts_with("SigBlk:")).map(str::to_owned))
        };
        let before = blocked().unwrap();
        assert_eq!(look().verdict, Verdict::Works);
        assert_eq!(blocked().unwrap(), before);
    }
}
