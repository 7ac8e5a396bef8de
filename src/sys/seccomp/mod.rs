//! A filter for a child that has its calls of bind(2) and listen(2) told to this process, which answers them
//! (seccomp_unotify(2)).
//!
//! It installs the filter; what a call gets for an answer is for others to decide ([`notifications`]).

pub(crate) mod notifications;
pub(crate) mod program;

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

use self::notifications::Notifications;
use super::bpf::Instruction;

/// What it takes for a process of this user to install a filter (seccomp(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Privilege {
    /// It has CAP_SYS_ADMIN.
    Capability,
    /// It gives up to gain privileges by execve(2), for itself and all that descends from it (PR_SET_NO_NEW_PRIVS).
    NoNewPrivileges,
}

/// Why there is no such filter here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsupported {
    /// The numbers of the calls are not known.
    #[error("there is no filter for this processor")]
    Processor,
    /// seccomp(2) says ENOSYS or EINVAL, or the notifications have another form.
    #[error("the kernel has no seccomp user notification (Linux 5.9 and later have it)")]
    Kernel,
    /// Only one process may be told.
    #[error(
        "another program intercepts system calls of this process already (seccomp user notification: an outer clusterd, \
         Incus, LXD), and the kernel allows only one"
    )]
    Nested,
    /// Something else.
    #[error("seccomp(2) failed: {0}")]
    System(#[from] io::Error),
}

/// Whether a child of this process can have the filter, and what that takes. It is tried on a thread that ends with it.
///
/// # Errors
/// [`Unsupported`].
pub(crate) fn supported() -> Result<Privilege, Unsupported> {
    let convention = program::OWN.ok_or(Unsupported::Processor)?;
    if !notifications::have_known_form()? {
        return Err(Unsupported::Kernel);
    }
    let program = program::filter(convention);
    let tried = std::thread::Builder::new().spawn(move || try_here(&program))?.join();
    tried.unwrap_or(Err(Errno::IO)).map_err(|error| match error {
        Errno::BUSY => Unsupported::Nested,
        Errno::NOSYS | Errno::INVAL => Unsupported::Kernel,
        other => Unsupported::System(other.into()),
    })
}

fn try_here(program: &[Instruction]) -> rustix::io::Result<Privilege> {
    match install(program) {
        Ok(_) => return Ok(Privilege::Capability),
        Err(Errno::ACCESS) => {}
        Err(error) => return Err(error),
    }
    rustix::thread::set_no_new_privs(true)?;
    install(program).map(|_| Privilege::NoNewPrivileges)
}

/// The filter, ready for a child between fork and exec.
#[derive(Debug)]
pub(crate) struct Filter {
    program: Vec<Instruction>,
    privilege: Privilege,
    /// Where the child sends the descriptor on which it is told.
    way_back: OwnedFd,
}

/// Where the parent of a child with a filter hears of its calls, once it has started.
#[derive(Debug)]
pub(crate) struct Listening(OwnedFd);

/// A filter for one child, which takes this.
///
/// # Errors
/// Those of socketpair(2); there is none for this processor.
pub(crate) fn for_child(privilege: Privilege) -> io::Result<(Filter, Listening)> {
    let convention = program::OWN.ok_or(io::ErrorKind::Unsupported)?;
    let (here, there) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    Ok((Filter { program: program::filter(convention), privilege, way_back: there }, Listening(here)))
}

impl Filter {
    /// Installs it in this process, which is a child between fork and exec: it makes plain system calls, and neither
    /// allocates nor locks.
    ///
    /// # Errors
    /// Those of seccomp(2) and sendmsg(2).
    pub(super) fn install(&self) -> rustix::io::Result<()> {
        if self.privilege == Privilege::NoNewPrivileges {
            rustix::thread::set_no_new_privs(true)?;
        }
        let told = install(&self.program)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut sent = SendAncillaryBuffer::new(&mut space);
        let fds = [told.as_fd()];
        if !sent.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Errno::NOBUFS);
        }
        rustix::net::sendmsg(&self.way_back, &[IoSlice::new(&[0])], &mut sent, SendFlags::NOSIGNAL).map(drop)
    }
}

impl Listening {
    /// What the child has sent. It has started: what it had to send is here.
    ///
    /// # Errors
    /// Those of recvmsg(2): no descriptor is free.
    pub(crate) fn receive(self) -> io::Result<Notifications> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut received = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
        rustix::net::recvmsg(&self.0, &mut [IoSliceMut::new(&mut [0])], &mut received, flags)?;
        let told = received.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok(Notifications::new(told.ok_or(Errno::MFILE)?))
    }
}

/// Installs a filter for the calling thread; where it is told of calls. A signal interrupts nothing that is being answered
/// (Linux 5.19 and later): Go's runtime sends itself SIGURG all the time.
fn install(program: &[Instruction]) -> rustix::io::Result<OwnedFd> {
    let listener = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    match install_with(program, listener | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(Errno::INVAL) => install_with(program, listener),
        other => other,
    }
}

fn install_with(program: &[Instruction], flags: libc::c_ulong) -> rustix::io::Result<OwnedFd> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::INVAL)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    let mode = libc::c_long::from(libc::SECCOMP_SET_MODE_FILTER);
    // SAFETY: the kernel reads `len` instructions from the slice that `filter` points to, which lives until the call
    // returns, and writes nothing to it.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    match i32::try_from(result) {
        // SAFETY: with NEW_LISTENER the call returns a new descriptor, which nobody else owns.
        Ok(fd @ 0..) => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Tells of the calls of this thread from now on, and of no other's.
    ///
    /// # Errors
    /// [`Unsupported`].
    pub(crate) fn on_this_thread() -> Result<Notifications, Unsupported> {
        supported()?;
        rustix::thread::set_no_new_privs(true).map_err(io::Error::from)?;
        let convention = program::OWN.ok_or(Unsupported::Processor)?;
        let told = install(&program::filter(convention)).map_err(io::Error::from)?;
        Ok(Notifications::new(told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_keeps_no_filter_from_a_trial() {
        let filters = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").expect("/proc");
            let line = status.lines().find(|line| line.starts_with("Seccomp_filters:")).map(str::to_owned);
            (line, rustix::thread::no_new_privs().expect("prctl"))
        };
        let before = filters();
        match supported() {
            Ok(_) => {}
            Err(error) => eprintln!("skipped: {error}"),
        }
        assert_eq!(filters(), before);
    }
}
