//! Hears of the first connection after a silence, at any of many listening sockets.
//!
//! It accepts nothing and counts nothing. A socket is heard of once each time it is armed, so that connections under load
//! wake nobody: who was woken looks by itself from then on.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll, ready};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::time::Timespec;
use tokio::io::Interest;

use super::MemberId;
use crate::sys::watched::Watched;

/// How many are told at a time.
const EVENTS: usize = 64;

/// An epoll(7) instance of its own, watched by the front's runtime.
#[derive(Debug)]
pub(super) struct Wakeups(Watched<OwnedFd>);

impl Wakeups {
    /// None yet.
    ///
    /// # Errors
    /// Those of epoll_create1(2) and epoll_ctl(2).
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub(super) fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self(Watched::new(epoll, Interest::READABLE)?))
    }

    /// Hears once of this socket, and again when it is armed.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn add(&self, socket: impl AsFd, member: MemberId) -> io::Result<()> {
        Ok(epoll::add(&self.0, socket, EventData::new_u64(member.0), once())?)
    }

    /// Hears once more of it; at once, if connections wait.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(super) fn arm(&self, socket: impl AsFd, member: MemberId) -> io::Result<()> {
        Ok(epoll::modify(&self.0, socket, EventData::new_u64(member.0), once())?)
    }

    /// Hears of it no more. The kernel would keep it for as long as a worker has a copy.
    pub(super) fn remove(&self, socket: impl AsFd) {
        // One that could not be added is not there.
        let _ = epoll::delete(&self.0, socket);
    }

    /// Ready when something has happened at a socket that was armed.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let mut events = Vec::<Event>::with_capacity(EVENTS);
            epoll::wait(&self.0, rustix::buffer::spare_capacity(&mut events), Some(&Timespec::default()))?;
            if !events.is_empty() {
                return Poll::Ready(Ok(()));
            }
            guard.clear_ready();
        }
    }
}

fn once() -> EventFlags {
    EventFlags::IN | EventFlags::ONESHOT
}
