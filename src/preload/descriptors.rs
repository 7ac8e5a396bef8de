//! The descriptors of this process, as `/proc` shows them: which are the same socket, which are epoll instances, and
//! what those watch.
//!
//! `/proc/thread-self`, because the first thread of a process may have ended.

use core::ffi::CStr;

use crate::abi;
use crate::fdinfo::{self, Decimal};
use crate::proc_fd::{self, Registration};
use crate::syscalls::{self as sys, Fd, Owned};

/// What an epoll instance's link says.
const EPOLL: &[u8] = b"anon_inode:[eventpoll]";

/// The longest link of interest: `socket:[18446744073709551615]`.
const LINK_LEN: usize = 32;

/// The folder of this process's descriptors.
pub(crate) struct Descriptors(Owned);

/// What a descriptor's link says, as far as it is of interest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    text: [u8; LINK_LEN],
    len: usize,
}

impl Link {
    fn new(text: &[u8]) -> Self {
        let mut link = Self { text: [0; LINK_LEN], len: text.len() };
        for (to, from) in link.text.iter_mut().zip(text) {
            *to = *from;
        }
        link
    }

    fn text(&self) -> &[u8] {
        self.text.get(..self.len).unwrap_or_default()
    }

    /// The number that tells sockets apart; `None` for what is no socket.
    pub(crate) fn inode(&self) -> Option<u64> {
        proc_fd::inode_of_socket(self.text())
    }
}

impl Descriptors {
    /// `None` where `/proc` is not mounted.
    pub(crate) fn open() -> Option<Self> {
        sys::open(None, c"/proc/thread-self/fd", abi::O_DIRECTORY).ok().map(Self)
    }

    /// What this descriptor is; `None` if it is closed.
    pub(crate) fn link(&self, fd: Fd) -> Option<Link> {
        self.link_of(Decimal::new(fd).text())
    }

    fn link_of(&self, name: &CStr) -> Option<Link> {
        let mut buffer = [0; LINK_LEN];
        sys::readlink(&self.0, name, &mut buffer).ok().map(|text| Link::new(text))
    }

    /// Shows every descriptor with its link.
    fn each(&self, mut show: impl FnMut(Fd, Link)) {
        let Ok(folder) = sys::open(Some(&self.0), c".", abi::O_DIRECTORY) else {
            return;
        };
        let mut buffer = [0; 1024];
        while let Ok(entries) = sys::getdents(&folder, &mut buffer) {
            if entries.is_empty() {
                return;
            }
            fdinfo::names(entries, |name| {
                if let (Some(fd), Some(link)) = (fdinfo::descriptor(name), self.link_of(name)) {
                    show(fd, link);
                }
            });
        }
    }

    /// Shows every descriptor that is the same as this one.
    pub(crate) fn each_of(&self, wanted: Link, mut show: impl FnMut(Fd)) {
        self.each(|fd, link| {
            if link == wanted {
                show(fd);
            }
        });
    }

    /// Shows what the epoll instances watch, each with the instance's descriptor.
    pub(crate) fn each_registration(&self, mut show: impl FnMut(Fd, Registration)) {
        let Ok(folder) = sys::open(None, c"/proc/thread-self/fdinfo", abi::O_DIRECTORY) else {
            return;
        };
        self.each(|epoll, link| {
            if link.text() != EPOLL {
                return;
            }
            let Ok(file) = sys::open(Some(&folder), Decimal::new(epoll).text(), 0) else {
                return;
            };
            let mut lines = fdinfo::Lines::default();
            let mut buffer = [0; 512];
            while let Ok(bytes) = sys::read(&file, &mut buffer) {
                if bytes.is_empty() {
                    return;
                }
                lines.read(bytes, |registration| show(epoll, registration));
            }
        });
    }
}
