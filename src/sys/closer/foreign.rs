//! A descriptor that is closed where that may take long.
//!
//! When and where is [`super`]'s.

use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor that came from somebody else, or that somebody else may have as well. Dropping it never waits.
pub(crate) struct ForeignFd(ManuallyDrop<OwnedFd>);

impl ForeignFd {
    /// The same, of which whoever has it now sees to it that it is closed where that may take long.
    pub(crate) fn into_owned(mut self) -> OwnedFd {
        // SAFETY: it is forgotten right after, so that nobody takes it twice.
        let fd = unsafe { ManuallyDrop::take(&mut self.0) };
        std::mem::forget(self);
        fd
    }

    /// Another descriptor of the same.
    ///
    /// # Errors
    /// Those of fcntl(2) with F_DUPFD_CLOEXEC.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self::from)
    }
}

impl From<OwnedFd> for ForeignFd {
    fn from(fd: OwnedFd) -> Self {
        Self(ManuallyDrop::new(fd))
    }
}

impl AsFd for ForeignFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for ForeignFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Drop for ForeignFd {
    fn drop(&mut self) {
        // SAFETY: nobody can use it after this.
        let fd = unsafe { ManuallyDrop::take(&mut self.0) };
        super::close(fd);
    }
}
