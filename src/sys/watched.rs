//! A descriptor that tokio watches: `AsyncFd`, with its safety rule kept once and here.

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::closer::ForeignFd;

/// An owned descriptor, registered with the current tokio runtime until it is dropped.
#[derive(Debug)]
pub(crate) struct Watched<F: Single = OwnedFd>(AsyncFd<Owned<F>>);

/// A descriptor that stays the same, and open, until it is dropped.
pub(crate) trait Single: AsFd {}

impl Single for OwnedFd {}
impl Single for ForeignFd {}

/// It gives its number to tokio.
#[derive(Debug)]
pub(crate) struct Owned<F: Single>(F);

impl<F: Single> AsRawFd for Owned<F> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl<F: Single> Watched<F> {
    /// Registers `fd`, which must be in non-blocking mode.
    ///
    /// # Errors
    /// Those of epoll_ctl(2): the descriptor cannot be polled, or a limit is reached.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub(crate) fn new(fd: F, interest: Interest) -> io::Result<Self> {
        Self::try_new(fd, interest).map_err(|(_, error)| error)
    }

    /// The same, which gives the descriptor back if it cannot be.
    ///
    /// # Errors
    /// As [`Watched::new`], with the descriptor.
    pub(crate) fn try_new(fd: F, interest: Interest) -> Result<Self, (F, io::Error)> {
        // SAFETY: tokio asks that the descriptor stays open, and the same, for as long as it is registered.
        // `Owned` owns it, which is `Single`, gives out only borrows, and is dropped by `AsyncFd` after the deregistration.
        let registered = unsafe { AsyncFd::register_with_interest(Owned(fd), interest) };
        registered.map(Self).map_err(|error| {
            let (Owned(fd), error) = error.into_parts();
            (fd, error)
        })
    }

    /// What owns the descriptor.
    pub(crate) fn owner(&self) -> &F {
        &self.0.get_ref().0
    }

    /// The descriptor, no longer registered.
    pub(crate) fn into_fd(self) -> F {
        self.0.into_inner().0
    }

    /// Waits until `attempt` does not say `WouldBlock`, and returns what it says. Cancel safe: there is no await
    /// between an attempt that succeeds and the return.
    ///
    /// # Errors
    /// Those of `attempt`.
    pub(crate) async fn when_readable<T>(
        &self,
        mut attempt: impl FnMut(&Self) -> io::Result<T>,
    ) -> io::Result<T> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(result) = guard.try_io(|_| attempt(self)) {
                return result;
            }
        }
    }
}

impl<F: Single> AsFd for Watched<F> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().0.as_fd()
    }
}

impl<F: Single> Deref for Watched<F> {
    type Target = AsyncFd<Owned<F>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
