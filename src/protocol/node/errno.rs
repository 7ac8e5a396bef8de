//! How a failure is told to a Node worker: by libuv's number for it, which the worker turns into its name.
//!
//! It tells nothing else of the error: Node has no place for a text.

use std::io::{self, ErrorKind};

use serde::Serialize;

/// libuv's number for a failure: on Linux the negative of errno(3), so that the worker reports -98 as
/// `bind EADDRINUSE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Errno(i32);

impl Errno {
    /// `EADDRINUSE`: also what a worker gets that asks for what it has already.
    pub const ADDRESS_IN_USE: Errno = Errno(-libc::EADDRINUSE);
    /// `ENOTSUP`: the worker's runtime can make nothing of what it asks for.
    pub const NOT_SUPPORTED: Errno = Errno(-libc::ENOTSUP);
    /// `UNKNOWN`, for what has no errno (`UV__UNKNOWN`, libuv's `uv/errno.h`).
    pub const UNKNOWN: Errno = Errno(-4094);

    /// The number, never positive.
    pub fn get(self) -> i32 {
        self.0
    }

    fn of_kind(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::AddrInUse => Self::ADDRESS_IN_USE,
            ErrorKind::AddrNotAvailable => Errno(-libc::EADDRNOTAVAIL),
            ErrorKind::AlreadyExists => Errno(-libc::EEXIST),
            ErrorKind::InvalidInput => Errno(-libc::EINVAL),
            ErrorKind::NotFound => Errno(-libc::ENOENT),
            ErrorKind::PermissionDenied => Errno(-libc::EACCES),
            ErrorKind::TimedOut => Errno(-libc::ETIMEDOUT),
            ErrorKind::Unsupported => Self::NOT_SUPPORTED,
            _ => Self::UNKNOWN,
        }
    }
}

impl From<&io::Error> for Errno {
    fn from(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) if number > 0 => Errno(-number),
            _ => Self::of_kind(error.kind()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_knows_a_failure_by_its_negative_number() {
        for (error, expected) in [
            (io::Error::from_raw_os_error(libc::EADDRINUSE), -98),
            (io::Error::from_raw_os_error(libc::EACCES), -13),
            (io::Error::from_raw_os_error(libc::EADDRNOTAVAIL), -99),
            (ErrorKind::AddrInUse.into(), -98),
            (ErrorKind::InvalidInput.into(), -22),
            (io::Error::other("no number"), -4094),
            (io::Error::from_raw_os_error(0), -4094),
        ] {
            assert_eq!(Errno::from(&error).get(), expected, "{error}");
        }
    }
}
