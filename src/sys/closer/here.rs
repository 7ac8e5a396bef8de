//! A thread that closes by itself what takes no time, as far as can be known, and is interrupted if it takes time all the
//! same.
//!
//! It costs two counts a close; who is watched, and when, is [`super`]'s.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::interrupt::INTERRUPT;

/// What one thread closes by itself.
#[derive(Debug, Default)]
pub(super) struct Here {
    /// How often it has begun and ended to close: odd as long as it closes.
    steps: AtomicU64,
    is_watched: AtomicBool,
}

impl Here {
    /// Closes it. `watch` is called when nobody looks at this thread yet.
    pub(super) fn close(self: &Arc<Self>, fd: OwnedFd, watch: impl FnOnce(Watched)) {
        // In this order, as against `Watched::look`: either it sees this step, or this sees that nobody looks any more.
        self.steps.fetch_add(1, Ordering::SeqCst);
        if !self.is_watched.swap(true, Ordering::SeqCst) {
            watch(Watched::this_thread(Arc::clone(self)));
        }
        drop(fd);
        self.steps.fetch_add(1, Ordering::SeqCst);
    }
}

/// A thread that is looked at.
#[derive(Debug)]
pub(super) struct Watched {
    here: Arc<Here>,
    thread: libc::pid_t,
    seen: u64,
}

impl Watched {
    fn this_thread(here: Arc<Here>) -> Self {
        Self { here, thread: rustix::thread::gettid().as_raw_pid(), seen: 0 }
    }

    /// Interrupts the thread if it is at the same close as when this was last called. Returns whether to go on looking: it
    /// has done something since.
    pub(super) fn look(&mut self) -> bool {
        let before = std::mem::replace(&mut self.seen, self.here.steps.load(Ordering::SeqCst));
        if self.seen != before {
            return true;
        }
        if self.seen % 2 == 1 {
            self.interrupt();
            return true;
        }
        self.here.is_watched.store(false, Ordering::SeqCst);
        let has_begun = self.here.steps.load(Ordering::SeqCst) != self.seen;
        // Whoever finds it unset before this sets it again brings a look of its own.
        has_begun && !self.here.is_watched.swap(true, Ordering::SeqCst)
    }

    fn interrupt(&self) {
        let process = rustix::process::getpid().as_raw_pid();
        // SAFETY: it takes numbers, and the signal has a handler that does nothing; a thread that is gone gets none.
        unsafe { libc::syscall(libc::SYS_tgkill, process, self.thread, INTERRUPT) };
    }
}
