//! Records of a Unix socket whose other end may not mean well: descriptors that nobody asked for are not received.
//!
//! A descriptor for which there is no room is closed by recvmsg(2), on the thread that calls it, and how long that takes is
//! for whoever sent it to decide ([`closer`](super::closer)). So it is looked first. Since Linux 6.16 a socket can refuse
//! them altogether.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, ReturnFlags};

use super::closer::ForeignFd;
use super::{seqpacket, socket};

/// From linux/socket.h.
const SO_PASSRIGHTS: i32 = 83;

/// A record.
#[derive(Debug)]
pub(crate) struct Record {
    /// Its length in bytes; 0 at the end of the stream.
    pub len: usize,
    /// The descriptor that came with it.
    pub fd: Option<ForeignFd>,
}

/// Decides whether descriptors can be sent to this socket, and to those that are accepted from it later; sendmsg(2) fails
/// with EPERM otherwise. Returns whether the kernel can do so.
pub(crate) fn pass_descriptors(socket: impl AsFd, passes: bool) -> bool {
    let value = i32::from(passes).to_ne_bytes();
    socket::set_option(socket, libc::SOL_SOCKET, SO_PASSRIGHTS, &value).is_ok()
}

/// Closes a socket of a stranger's: here if nobody can have sent descriptors to it, since that takes no time, and otherwise where
/// it may take long. To wake a thread for each costs as much as all else that is done for a client that only asks.
pub(crate) fn close(socket: OwnedFd) {
    let mut passes = [0; 4];
    match socket::option(&socket, libc::SOL_SOCKET, SO_PASSRIGHTS, &mut passes) {
        Ok(passes) if passes == 0_i32.to_ne_bytes() => drop(socket),
        _ => drop(ForeignFd::from(socket)),
    }
}

/// As [`seqpacket::receive`]. A record that is longer than the buffer, or has several descriptors, stays where it is.
///
/// # Errors
/// Those of recvmsg(2); `InvalidData`: it is left where it is; EMFILE: there is no room for one.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Record> {
    let seen = seqpacket::peek(&socket, buffer)?;
    let fd = seen.fd.map(ForeignFd::from);
    if seen.truncated {
        // For none at all?
        seqpacket::room_for_a_descriptor(&socket)?;
        return Err(io::ErrorKind::InvalidData.into());
    }
    // It was received already, as a duplicate; the other is not, so that it needs no room, and is not the last.
    let flags = RecvFlags::DONTWAIT;
    let (len, _) = retry_on_intr(|| rustix::net::recv(&socket, &mut *buffer, flags))?;
    Ok(Record { len, fd })
}

/// The next bytes of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// How many there are, up to what fits into the buffer; 0 at the end of the stream.
    pub len: usize,
    /// Whether there are descriptors beside them.
    pub has_descriptors: bool,
}

fn has_passcred(socket: impl AsFd) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_passcred(socket)?)
}

/// Looks at what comes next, which stays where it is. Never blocks.
///
/// # Errors
/// Those of recvmsg(2).
pub(crate) fn look(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Seen> {
    // With SO_PASSCRED, credentials come first.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let room = if has_passcred(&socket)? { space.as_mut_slice() } else { &mut [] };
    let mut none = RecvAncillaryBuffer::new(room);
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let received = retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [io::IoSliceMut::new(&mut *buffer)], &mut none, flags)
    })?;
    let has_descriptors = received.flags.contains(ReturnFlags::CTRUNC);
    Ok(Seen { len: received.bytes, has_descriptors })
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_socket_that_nobody_can_send_descriptors_to_is_closed_at_once() {
        for passes in [false, true] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let is_refused = pass_descriptors(&ours, passes) && !passes;
            theirs.set_nonblocking(is_refused).unwrap();
            theirs.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            close(ours.into());
            assert_eq!(theirs.read(&mut [0; 8]).unwrap(), 0, "{passes}");
        }
    }
}
