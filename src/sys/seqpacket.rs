//! SOCK_SEQPACKET Unix sockets: one record a call, with at most one descriptor beside it.
//!
//! It knows no message. The library `clusterd-worker` includes this very file, so nothing here is unsafe or of clusterd
//! alone.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use rustix::process::Pid;

const FLAGS: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// One received record.
#[derive(Debug)]
pub struct Record {
    /// Its length in bytes; 0 at the end of the stream.
    pub len: usize,
    /// The descriptor that came with it. Any further one was closed.
    pub fd: Option<OwnedFd>,
    /// A descriptor, or a part of the record, did not fit and was destroyed by the kernel.
    pub truncated: bool,
    /// Who sent it, on a socket with SO_PASSCRED (unix(7)).
    pub sender: Option<Pid>,
}

/// A new socket in non-blocking mode, listening at `address`.
///
/// # Errors
/// Those of socket(2), bind(2) and listen(2).
pub fn listen(address: &SocketAddrUnix, backlog: i32) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    rustix::net::bind(&socket, address)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Takes the next connection, in non-blocking mode.
///
/// # Errors
/// Those of accept4(2); `WouldBlock` when there is none.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, FLAGS)?)
}

/// A new socket in non-blocking mode, bound to `name` and connected to `address`.
///
/// # Errors
/// Those of socket(2), bind(2) and connect(2). `WouldBlock`: the listener's backlog is full.
pub fn connect(name: &SocketAddrUnix, address: &SocketAddrUnix) -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?;
    rustix::net::bind(&socket, name)?;
    rustix::net::connect(&socket, address)?;
    Ok(socket)
}

/// Two connected sockets in non-blocking mode, the second of which is bound to `name`.
///
/// # Errors
/// Those of socketpair(2) and bind(2).
pub fn named_pair(name: &SocketAddrUnix) -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, named) = pair()?;
    rustix::net::bind(&named, name)?;
    Ok((ours, named))
}

/// Two connected sockets in non-blocking mode.
///
/// # Errors
/// Those of socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, FLAGS, None)?)
}

/// Sends one record, with a copy of `fd` if there is one. Never blocks, never raises SIGPIPE.
///
/// # Errors
/// Those of sendmsg(2): `WouldBlock` when the send buffer is full, `BrokenPipe` when the peer is gone.
pub fn send(socket: impl AsFd, record: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    send_part(socket, record, fd).map(drop)
}

/// As [`send`], on a stream socket: returns how many bytes were sent, the descriptor with the first of them.
///
/// # Errors
/// Those of sendmsg(2).
pub fn send_part(socket: impl AsFd, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let bytes = [IoSlice::new(bytes)];
    Ok(rustix::io::retry_on_intr(|| rustix::net::sendmsg(&socket, &bytes, &mut ancillary, flags))?)
}

/// Whether a descriptor could be received: with a full table, recvmsg(2) takes the record and the kernel destroys the
/// descriptor in it. To be asked first, so that the record can be left where it is.
///
/// # Errors
/// Those of fcntl(2) with F_DUPFD_CLOEXEC: EMFILE when there is no room.
pub fn room_for_a_descriptor(socket: impl AsFd) -> io::Result<()> {
    rustix::io::fcntl_dupfd_cloexec(socket, 0)?;
    Ok(())
}

/// Whether there is a record, or the end of the stream, to be received.
///
/// # Errors
/// Those of recv(2).
pub fn has_record(socket: impl AsFd) -> io::Result<bool> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match rustix::io::retry_on_intr(|| rustix::net::recv(&socket, &mut [0_u8; 1], flags)) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::AGAIN) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Looks at the bytes of the next record, of which as many are told as fit into `buffer`. The record stays where it is, and
/// no descriptor is received. Never blocks.
///
/// # Errors
/// Those of recv(2); `WouldBlock` when there is no record.
pub fn peek_bytes(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    let (len, _) = rustix::io::retry_on_intr(|| rustix::net::recv(&socket, &mut *buffer, flags))?;
    Ok(len)
}

/// Receives one record into `buffer`. Never blocks. The descriptor is close-on-exec.
///
/// # Errors
/// Those of recvmsg(2); `WouldBlock` when there is no record.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Record> {
    receive_with(socket, buffer, RecvFlags::empty())
}

/// Looks at the next record, which stays where it is: the descriptor is a duplicate. Otherwise as [`receive`].
///
/// # Errors
/// Those of recvmsg(2); `WouldBlock` when there is no record.
pub fn peek(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Record> {
    receive_with(socket, buffer, RecvFlags::PEEK)
}

fn receive_with(socket: impl AsFd, buffer: &mut [u8], flags: RecvFlags) -> io::Result<Record> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1), ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = flags | RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = loop {
        match rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let (mut fd, mut sender) = (None, None);
    for message in ancillary.drain() {
        match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fd = fds.next(),
            RecvAncillaryMessage::ScmCredentials(credentials) => sender = Some(credentials.pid),
            _ => {}
        }
    }
    let truncated = received.flags.intersects(ReturnFlags::CTRUNC | ReturnFlags::TRUNC);
    Ok(Record { len: received.bytes, fd, truncated, sender })
}

/// How many bytes of records wait to be received on `socket` (SIOCINQ, unix(7)). For this kind of socket Linux counts all
/// records, though the manual page tells of stream sockets only.
///
/// # Errors
/// Those of ioctl(2).
pub fn waiting_bytes(socket: impl AsFd) -> io::Result<usize> {
    let bytes = rustix::io::ioctl_fionread(socket)?;
    Ok(usize::try_from(bytes).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    const DEADLINE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

    #[test]
    fn all_records_that_wait_are_counted() {
        let (ours, theirs) = pair().unwrap();
        let mut waiting = vec![waiting_bytes(&theirs).unwrap()];
        for record in [b"x".as_slice(), b"two", b"three"] {
            send(&ours, record, None).unwrap();
            waiting.push(waiting_bytes(&theirs).unwrap());
        }
        for _ in 0..3 {
            receive(&theirs, &mut [0; 8]).unwrap();
            waiting.push(waiting_bytes(&theirs).unwrap());
        }
        assert_eq!(waiting, [0, 1, 4, 9, 8, 5, 0]);
    }

    /// The race is between the receiver's processor, which takes the record, and the sender's, which is woken.
    #[test]
    fn whoever_is_told_that_a_record_was_received_finds_it_received() {
        const RECORDS: usize = 30_000;
        let (ours, theirs) = pair().unwrap();
        let duplicate = theirs.try_clone().unwrap();
        let receiver = std::thread::spawn(move || {
            for _ in 0..RECORDS {
                poll(&mut [PollFd::new(&theirs, PollFlags::IN)], Some(&DEADLINE)).unwrap();
                receive(&theirs, &mut [0; 8]).unwrap();
            }
            // The end stays open until the sender has asked about the last record.
            theirs
        });
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        let edges = EventFlags::OUT | EventFlags::ET;
        epoll::add(&epoll, &ours, EventData::new_u64(0), edges).unwrap();
        let await_edge = || {
            let mut events = Vec::with_capacity(1);
            epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&DEADLINE)).unwrap();
            assert_eq!(events.len(), 1, "an edge within the deadline");
        };
        await_edge();
        for record in 0..RECORDS {
            send(&ours, b"x", None).unwrap();
            await_edge();
            assert_eq!(waiting_bytes(&duplicate).unwrap(), 0, "record {record}");
        }
        receiver.join().unwrap();
    }
}
