//! Calls of which a filter tells, and their answers.
//!
//! What the answer should be is the caller's to decide. While a call waits for it, the process that made it can be killed, and
//! its number be given to another: whatever is found out about the process counts only if [`Notifications::is_pending`] says
//! so afterwards.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, retry_on_intr};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::program::{self, Number};
use crate::sys::watched::Single;

/// Where the kernel tells of the calls of one child and of all that descends from it, until none of them is left.
#[derive(Debug)]
pub(crate) struct Notifications(OwnedFd);

/// A call that waits for its answer.
#[derive(Debug)]
pub(crate) struct Call {
    id: u64,
    /// Which thread has made it.
    pub(crate) thread: Pid,
    /// What it asks.
    pub(crate) asks: Asks,
}

/// What a call asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) enum Asks {
    /// bind(2).
    Bind {
        /// The socket.
        fd: i32,
        /// Where in the caller's memory the address is.
        address: u64,
        /// How long it says that it is.
        len: u32,
    },
    /// listen(2).
    Listen {
        /// The socket.
        fd: i32,
    },
    /// A call of which the filter should not have told.
    Other,
}

/// The kernel carries the call out.
const CONTINUE: u32 = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;

impl Single for Notifications {}

impl Call {
    /// One that was received before, and was called this.
    pub(crate) fn received(id: u64, thread: Pid, asks: Asks) -> Self {
        Self { id, thread, asks }
    }

    /// Its name, for the kernel.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Notifications {
    /// On the descriptor that the filter came with.
    pub(crate) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// The next call.
    ///
    /// # Errors
    /// `WouldBlock`: there is none yet. ENOENT: its caller is gone, was interrupted by a signal, or cannot be seen. Any other: there will be no
    /// more.
    pub(crate) fn receive(&self) -> io::Result<Call> {
        self.poll()?;
        // SAFETY: all bytes zero is a value of this structure of numbers, and the one that the kernel asks for.
        let mut told: libc::seccomp_notif = unsafe { std::mem::zeroed() };
        self.control(libc::SECCOMP_IOCTL_NOTIF_RECV, (&raw mut told).cast())?;
        // The process may be outside this process namespace, and then has no number here: nothing can be found out about it.
        let Some(thread) = i32::try_from(told.pid).ok().and_then(Pid::from_raw) else {
            self.respond(told.id, 0, CONTINUE)?;
            return Err(Errno::NOENT.into());
        };
        let call = u32::try_from(told.data.nr).ok().and_then(|number| program::OWN?.call(number));
        let [first, second, third, ..] = told.data.args;
        // As the kernel takes an `int` from a register.
        let fd = first as i32;
        let asks = match call {
            Some(Number::Bind) => Asks::Bind { fd, address: second, len: third as u32 },
            Some(Number::Listen) => Asks::Listen { fd },
            None => Asks::Other,
        };
        Ok(Call { id: told.id, thread, asks })
    }

    /// Whether the call still waits for its answer.
    pub(crate) fn is_pending(&self, call: &Call) -> bool {
        let mut id = call.id;
        self.control(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, (&raw mut id).cast()).is_ok()
    }

    /// Lets the kernel carry the call out. The caller's other threads may have changed meanwhile what it asks.
    ///
    /// # Errors
    /// ENOENT: it does not wait any more.
    pub(crate) fn carry_out(&self, call: &Call) -> io::Result<()> {
        self.respond(call.id, 0, CONTINUE)
    }

    /// Tells the caller that it has succeeded, or which error (errno(3)) it has come to.
    ///
    /// # Errors
    /// ENOENT: it does not wait any more; a signal may have interrupted it, and then it asks again.
    pub(crate) fn tell(&self, call: &Call, outcome: Result<(), i32>) -> io::Result<()> {
        self.respond(call.id, outcome.err().unwrap_or(0), 0)
    }

    /// Puts a duplicate of `fd` at this number of the caller's, in the place of what it is.
    ///
    /// # Errors
    /// ENOENT: it does not wait any more. EBADF: the number is above its limit.
    pub(crate) fn put(
        &self,
        call: &Call,
        fd: BorrowedFd<'_>,
        number: i32,
        closes_on_exec: bool,
    ) -> io::Result<()> {
        let srcfd = fd.as_raw_fd().cast_unsigned();
        let mut added = libc::seccomp_notif_addfd {
            id: call.id,
            flags: libc::SECCOMP_ADDFD_FLAG_SETFD as u32,
            srcfd,
            newfd: number.cast_unsigned(),
            newfd_flags: if closes_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 },
        };
        self.control(libc::SECCOMP_IOCTL_NOTIF_ADDFD, (&raw mut added).cast())
    }

    /// Asking for a call that is not there would wait for it.
    fn poll(&self) -> io::Result<()> {
        let mut watched = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        retry_on_intr(|| rustix::event::poll(&mut watched, Some(&now)))?;
        let [seen] = watched;
        match seen.revents() {
            seen if seen.contains(PollFlags::IN) => Ok(()),
            seen if seen.intersects(PollFlags::HUP | PollFlags::ERR) => Err(io::ErrorKind::BrokenPipe.into()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn respond(&self, id: u64, errno: i32, flags: u32) -> io::Result<()> {
        let mut answer = libc::seccomp_notif_resp { id, val: 0, error: -errno, flags };
        self.control(libc::SECCOMP_IOCTL_NOTIF_SEND, (&raw mut answer).cast())
    }

    fn control(&self, request: libc::Ioctl, argument: *mut c_void) -> io::Result<()> {
        // SAFETY: each request is made with a pointer to the structure that it reads and writes, and
        // `have_known_form` has seen that the kernel's are of the same size.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), request, argument) } {
            0.. => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// Whether the kernel's structures are those that this program was built with (SECCOMP_GET_NOTIF_SIZES, seccomp(2)).
///
/// # Errors
/// Those of seccomp(2), but for the ones that say that there are none.
pub(super) fn have_known_form() -> io::Result<bool> {
    let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    let operation = libc::c_long::from(libc::SECCOMP_GET_NOTIF_SIZES);
    // SAFETY: the kernel writes the structure that the pointer points to.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, operation, 0 as libc::c_long, &raw mut sizes) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            Some(libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP) => Ok(false),
            _ => Err(error),
        };
    }
    Ok(usize::from(sizes.seccomp_notif) == size_of::<libc::seccomp_notif>()
        && usize::from(sizes.seccomp_notif_resp) == size_of::<libc::seccomp_notif_resp>())
}
