//! Putting a channel, or another socket, in the place of the server's socket, wherever the process knows that socket: under each of its
//! numbers, in the same modes, and at the epoll instances that watch it.
//!
//! Another process that was given the socket before keeps it as it is.

use crate::abi;
use crate::descriptors::Descriptors;
use crate::primary::through_signals;
use crate::syscalls::{self as sys, Change, Fd, Owned, Result, Watch};

/// For which events the epoll instances that watch the server's socket watch what takes its place.
#[derive(Clone, Copy)]
pub(crate) enum Watched {
    /// For the same.
    AsBefore,
    /// For those alone that a listener could show.
    AsListener,
}

/// Makes `fd`, and every other descriptor of the same socket, a duplicate of `channel`.
pub(crate) fn everywhere(
    fd: Fd,
    channel: &Owned,
    watched: Watched,
    descriptors: Option<&Descriptors>,
) -> Result<()> {
    copy_modes(fd, channel)?;
    let socket = descriptors.and_then(|descriptors| Some((descriptors, descriptors.link(fd)?)));
    let Some((descriptors, link)) = socket else {
        return replace(fd, channel);
    };
    let withdrawn = Withdrawn::from_all(descriptors, link, watched);
    let replaced = replace(fd, channel);
    if replaced.is_ok() {
        descriptors.each_of(link, |other| {
            let _ = replace(other, channel);
        });
    }
    withdrawn.renew();
    replaced
}

fn replace(fd: Fd, channel: &Owned) -> Result<()> {
    let cloexec = sys::fcntl(fd, abi::F_GETFD, 0)? & abi::FD_CLOEXEC != 0;
    through_signals(|| sys::dup3(channel, fd, if cloexec { abi::O_CLOEXEC } else { 0 }))
}

/// What a server may have said of its socket beside its options: whether it blocks, for how long accept waits, and who
/// gets a signal when there is something to accept.
fn copy_modes(fd: Fd, channel: &Owned) -> Result<()> {
    let mut time = [0; 16];
    if sys::getsockopt(fd, abi::SOL_SOCKET, abi::SO_RCVTIMEO, &mut time).is_ok() {
        sys::setsockopt(channel.get(), abi::SOL_SOCKET, abi::SO_RCVTIMEO, &time)?;
    }
    if let Ok(owner) = sys::signal_owner(fd) {
        let _ = sys::set_signal_owner(channel, owner);
    }
    if let Ok(signal) = sys::fcntl(fd, abi::F_GETSIG, 0) {
        let _ = sys::fcntl(channel.get(), abi::F_SETSIG, signal);
    }
    let modes = sys::fcntl(fd, abi::F_GETFL, 0)? & (abi::O_NONBLOCK | abi::O_ASYNC);
    sys::fcntl(channel.get(), abi::F_SETFL, modes).map(drop)
}

/// How many registrations of one socket are carried over: servers have one for each event loop.
const MOST: usize = 64;

/// No listener ever is: a channel would wake up those that wait for it.
const WRITABLE: u32 = abi::EPOLLOUT | abi::EPOLLWRNORM | abi::EPOLLWRBAND;

/// The registrations of the server's socket that were deleted. They have to be, while the numbers still name the socket:
/// the primary keeps it, so that they would stay, and tell for ever that nothing is connected there.
struct Withdrawn {
    registrations: [(Fd, Fd, Watch); MOST],
    count: usize,
}

impl Withdrawn {
    fn from_all(descriptors: &Descriptors, socket: crate::descriptors::Link, watched: Watched) -> Self {
        let hidden = match watched {
            Watched::AsBefore => 0,
            Watched::AsListener => WRITABLE,
        };
        let mut withdrawn = Self { registrations: [(-1, -1, Watch { events: 0, data: 0 }); MOST], count: 0 };
        descriptors.each_registration(|epoll, registration| {
            let target = registration.target;
            let is_it = registration.inode.is_none_or(|inode| socket.inode() == Some(inode))
                && descriptors.link(target) == Some(socket);
            let Some(place) = withdrawn.registrations.get_mut(withdrawn.count).filter(|_| is_it) else {
                return;
            };
            if sys::epoll_ctl(epoll, target, Change::Delete).is_ok() {
                let watch = Watch { events: registration.events & !hidden, data: registration.data };
                *place = (epoll, target, watch);
                withdrawn.count += 1;
            }
        });
        withdrawn
    }

    fn renew(&self) {
        for &(epoll, target, watch) in self.registrations.iter().take(self.count) {
            let _ = sys::epoll_ctl(epoll, target, Change::Add(watch));
        }
    }
}
