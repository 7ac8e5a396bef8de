//! Datagrams of a Unix socket, with the process and the user that have sent each of them.
//!
//! Descriptors that come with one are not received: the kernel closes what there is no room for.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// What was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Datagram {
    /// Its length in bytes.
    pub len: usize,
    /// Who has sent it; `None` if descriptors came with it.
    pub sender: Option<Sender>,
    /// It was longer than the buffer.
    pub truncated: bool,
}

/// The sender of a datagram (SO_PASSCRED, unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    /// Its process id; 0 if it lives in a pid namespace that this one cannot see.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

/// A new socket in non-blocking mode, bound to `address`.
///
/// # Errors
/// Those of socket(2) and bind(2).
pub(crate) fn bind(address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
    rustix::net::sockopt::set_socket_passcred(&socket, true)?;
    rustix::net::bind(&socket, address)?;
    Ok(socket)
}

/// Receives one datagram into `buffer`. Never blocks.
///
/// # Errors
/// Those of recvmsg(2); `WouldBlock` when there is none.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Datagram> {
    // rustix has no number for a sender that lives in a pid namespace which this one cannot see: 0 is no `Pid`.
    let mut space = nix::cmsg_space!(nix::sys::socket::UnixCredentials);
    let mut parts = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<()>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let sender = received.cmsgs().ok().and_then(|mut messages| {
        messages.find_map(|message| match message {
            ControlMessageOwned::ScmCredentials(sender) => {
                Some(Sender { pid: sender.pid(), uid: sender.uid() })
            }
            _ => None,
        })
    });
    Ok(Datagram { len: received.bytes, sender, truncated: received.flags.contains(MsgFlags::MSG_TRUNC) })
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;
    use std::mem::MaybeUninit;

    use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

    use super::*;

    fn bound() -> (OwnedFd, SocketAddrUnix) {
        let name = format!("clusterd-test-{:016x}", fastrand::u64(..));
        let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
        (bind(&address).unwrap(), address)
    }

    #[test]
    fn the_sender_is_known() {
        let (socket, address) = bound();
        let (sender, _) = bound();
        rustix::net::sendto(&sender, b"hello", SendFlags::empty(), &address).unwrap();
        let pid = rustix::process::getpid().as_raw_pid();
        let sender = Some(Sender { pid, uid: rustix::process::geteuid().as_raw() });
        let mut buffer = [0; 4];
        let received = receive(&socket, &mut buffer).unwrap();
        assert_eq!(received, Datagram { len: 4, sender, truncated: true });
        let none = receive(&socket, &mut buffer).unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn descriptors_are_closed_and_their_message_has_no_sender() {
        let (socket, address) = bound();
        let (reader, writer) = std::io::pipe().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let passed = [writer.as_fd(), writer.as_fd()];
        ancillary.push(SendAncillaryMessage::ScmRights(&passed));
        let (sender, _) = bound();
        rustix::net::connect(&sender, &address).unwrap();
        let text = [IoSlice::new(b"BARRIER=1")];
        rustix::net::sendmsg(&sender, &text, &mut ancillary, SendFlags::empty()).unwrap();
        drop(writer);
        assert_eq!(receive(&socket, &mut [0; 64]).unwrap().sender, None);
        // At its end: nobody can write to it any more.
        let mut rest = Vec::new();
        std::io::Read::read_to_end(&mut &reader, &mut rest).unwrap();
    }
}
