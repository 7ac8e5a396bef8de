//! Signals that are kept until somebody asks for them, and wake only while somebody waits for one.
//!
//! It is an epoll instance of its own (epoll(7)), which is watched by the runtime's or is not. To begin or to end that is one
//! system call, however many descriptors there are; nobody is woken by those that are signalled meanwhile.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::task::{Context, Poll};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use tokio::io::Interest;

use super::watched::Watched;

/// How many signals are fetched at once.
const AT_ONCE: usize = 64;

/// The descriptors whose other ends are looked at, each under a number: they are signalled when the other end has received
/// something.
#[derive(Debug)]
pub(crate) struct Edges(State);

#[derive(Debug)]
enum State {
    Unwatched(OwnedFd),
    Watched(Watched<OwnedFd>),
    /// Between the two.
    Neither,
}

impl Edges {
    /// None yet.
    ///
    /// # Errors
    /// Those of epoll_create1(2).
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(State::Unwatched(epoll::create(CreateFlags::CLOEXEC)?)))
    }

    /// Adds a descriptor. It counts as signalled at first.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub(crate) fn add(&self, fd: impl AsFd, number: u64) -> io::Result<()> {
        let signals = EventFlags::OUT | EventFlags::ET;
        self.with(|epoll| epoll::add(epoll, fd, EventData::new_u64(number), signals)).unwrap_or(Ok(()))?;
        Ok(())
    }

    /// Takes it out again. What was signalled before may still be told.
    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = self.with(|epoll| epoll::delete(epoll, fd));
    }

    fn with<T>(&self, act: impl FnOnce(&OwnedFd) -> T) -> Option<T> {
        match &self.0 {
            State::Unwatched(epoll) => Some(act(epoll)),
            State::Watched(epoll) => Some(act(epoll.owner())),
            State::Neither => None,
        }
    }

    /// Whether signals wake whoever asks with [`Edges::poll`].
    pub(crate) fn are_watched(&self) -> bool {
        matches!(self.0, State::Watched(_))
    }

    /// Has signals wake, or nobody. Must be called on the runtime that is to watch.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): it is as it was.
    pub(crate) fn watch(&mut self, watch: bool) -> io::Result<()> {
        self.0 = match (std::mem::replace(&mut self.0, State::Neither), watch) {
            (State::Unwatched(epoll), true) => match Watched::try_new(epoll, Interest::READABLE) {
                Ok(epoll) => State::Watched(epoll),
                Err((epoll, error)) => {
                    self.0 = State::Unwatched(epoll);
                    return Err(error);
                }
            },
            (State::Watched(epoll), false) => State::Unwatched(epoll.into_fd()),
            (as_it_is, _) => as_it_is,
        };
        Ok(())
    }

    /// Tells the numbers of what was signalled since it was last told, each once. Pending if there is none: the waker is used
    /// for the next, if it is watched.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, mut told: impl FnMut(u64)) -> Poll<()> {
        let State::Watched(epoll) = &self.0 else { return Poll::Pending };
        let mut any = Poll::Pending;
        while let Poll::Ready(Ok(mut guard)) = epoll.poll_read_ready(cx) {
            guard.clear_ready();
            if fetch(epoll.owner(), &mut told) {
                any = Poll::Ready(());
            }
        }
        any
    }

    /// Tells them without waiting for any.
    pub(crate) fn ask(&self, mut told: impl FnMut(u64)) {
        let _ = self.with(|epoll| fetch(epoll, &mut told));
    }
}

/// Whether there was any.
fn fetch(epoll: &OwnedFd, told: &mut impl FnMut(u64)) -> bool {
    let mut any = false;
    loop {
        let mut room = [MaybeUninit::<Event>::uninit(); AT_ONCE];
        let Ok((events, _)) = epoll::wait(epoll, &mut room, Some(&Timespec::default())) else { return any };
        events.iter().for_each(|event| told(event.data.u64()));
        any |= !events.is_empty();
        if events.len() < AT_ONCE {
            return any;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::sys::seqpacket;

    async fn next(edges: &Edges) -> Vec<u64> {
        let told = poll_fn(|cx| {
            let mut told = Vec::new();
            edges.poll(cx, |number| told.push(number)).map(|()| told)
        });
        timeout(Duration::from_millis(50), told).await.unwrap_or_default()
    }

    #[tokio::test]
    async fn what_is_received_is_told_once_and_wakes_only_who_waits() {
        let mut edges = Edges::new().unwrap();
        let pairs = [seqpacket::pair().unwrap(), seqpacket::pair().unwrap()];
        for (pair, number) in pairs.iter().zip(7..) {
            edges.add(&pair.0, number).unwrap();
        }
        assert_eq!(next(&edges).await, [0; 0], "nobody waits");
        edges.watch(true).unwrap();
        assert_eq!(next(&edges).await, [7, 8]);
        let take = |index: usize| {
            seqpacket::send(&pairs[index].0, b"x", None).unwrap();
            seqpacket::receive(&pairs[index].1, &mut [0; 8]).unwrap();
        };
        assert_eq!(next(&edges).await, [0; 0]);
        take(1);
        take(1);
        assert_eq!(next(&edges).await, [8]);
        edges.watch(false).unwrap();
        take(0);
        assert_eq!(next(&edges).await, [0; 0]);
        let mut told = Vec::new();
        edges.ask(|number| told.push(number));
        assert_eq!(told, [7]);
        take(1);
        edges.remove(&pairs[0].0);
        take(0);
        edges.watch(true).unwrap();
        assert_eq!(next(&edges).await, [8], "it was kept");
    }
}
