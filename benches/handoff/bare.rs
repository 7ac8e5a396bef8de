//! The yardstick: a primary that only accepts, passes on and closes, and does nothing of what makes clusterd one.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;

use anyhow::Context;
use clusterd::internal::protocol::wire::{
    ENV_PORTS, ENV_SOCKET, ENV_TOKEN, FromWorker, MAX_MESSAGE, ToWorker,
};
use clusterd::internal::sys::seqpacket;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags};
use socket2::{Domain, Socket, Type};

use crate::worker;

/// The first argument of a process that is to be this primary; port and number of workers follow.
pub(crate) const ROLE: &str = "role-bare";

/// Starts its workers, and passes connections on to them until it is killed.
pub(crate) fn run() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(2);
    let mut number =
        || -> anyhow::Result<usize> { Ok(arguments.next().context("too few arguments")?.parse()?) };
    let port = u16::try_from(number()?)?;
    let channels = workers(port, number()?)?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.set_reuse_address(true)?;
    listener.set_nonblocking(true)?;
    listener.bind(&address.into())?;
    listener.listen(4096)?;
    serve(&listener, &channels, ToWorker::Connection { peer: address.into(), linger: None })
}

/// Starts workers, and returns the primary's ends of their channels, in blocking mode: a worker whose channel is
/// full is waited for.
fn workers(port: u16, count: usize) -> anyhow::Result<Vec<OwnedFd>> {
    let name = format!("clusterd-bench-{}", std::process::id());
    let attach = seqpacket::listen(&SocketAddrUnix::new_abstract_name(name.as_bytes())?, 16)?;
    let mut channels = Vec::new();
    for _ in 0..count {
        Command::new(std::env::current_exe()?)
            .arg(worker::ROLE)
            .env(ENV_SOCKET, format!("@{name}"))
            .env(ENV_TOKEN, "0".repeat(32))
            .env(ENV_PORTS, port.to_string())
            .spawn()?;
        await_input(&attach)?;
        let channel = seqpacket::accept(&attach)?;
        await_input(&channel)?;
        let mut buffer = [0; MAX_MESSAGE];
        let record = seqpacket::receive(&channel, &mut buffer)?;
        let message = FromWorker::decode(&buffer[..record.len]);
        anyhow::ensure!(matches!(message, Ok(FromWorker::Attach { .. })), "a worker said {message:?}");
        seqpacket::send(&channel, ToWorker::Admitted.encode(&mut buffer), None)?;
        await_input(&channel)?;
        drop(seqpacket::receive(&channel, &mut buffer)?);
        seqpacket::send(&channel, ToWorker::Welcome.encode(&mut buffer), None)?;
        rustix::io::ioctl_fionbio(&channel, false)?;
        channels.push(channel);
    }
    Ok(channels)
}

fn await_input(fd: &OwnedFd) -> anyhow::Result<()> {
    let limit = Timespec { tv_sec: 10, tv_nsec: 0 };
    let ready = poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&limit))?;
    anyhow::ensure!(ready == 1, "a worker does not attach");
    Ok(())
}

fn serve(listener: &Socket, channels: &[OwnedFd], message: ToWorker) -> anyhow::Result<()> {
    let mut buffer = [0; MAX_MESSAGE];
    let record = [IoSlice::new(message.encode(&mut buffer))];
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, listener, EventData::new_u64(0), EventFlags::IN)?;
    let mut turns = channels.iter().cycle();
    let mut events = Vec::with_capacity(1);
    loop {
        events.clear();
        // A process that was stopped continues with EINTR (signal(7)).
        match epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
        loop {
            match rustix::net::accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(connection) => pass(turns.next().context("no workers")?, &record, connection)?,
                Err(Errno::AGAIN) => break,
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot accept"),
            }
        }
    }
}

fn pass(channel: &OwnedFd, record: &[IoSlice<'_>], connection: OwnedFd) -> anyhow::Result<()> {
    let fds = [connection.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    rustix::net::sendmsg(channel, record, &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
