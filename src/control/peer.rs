//! Who may be at the other end of a control socket: for the server and for the client.
//!
//! It decides by what the kernel says (SO_PEERCRED, unix(7)), and asks nobody.

use std::io;
use std::os::fd::AsFd;

use procfs::process::Process;

use super::address::SocketAddress;
use crate::sys::peer::Peer;

/// Why the process at the other end is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Stranger {
    /// Another user's process.
    #[error("user {uid} is not trusted; only user {ours} and root are")]
    OtherUser {
        /// Its user.
        uid: u32,
        /// The user of this process.
        ours: u32,
    },
    /// A process in another container that shares the network namespace, to which abstract names belong.
    #[error("its process is in another pid namespace")]
    OtherContainer,
}

/// Checks a client of the socket at this address: processes of the same user and of root are trusted.
///
/// # Errors
/// The credentials cannot be read (getsockopt(2)).
pub(crate) fn check_client(socket: impl AsFd, address: &SocketAddress) -> io::Result<Result<Peer, Stranger>> {
    let peer = Peer::of(socket)?;
    let ours = rustix::process::geteuid().as_raw();
    Ok(judge(peer, ours, None).and_then(|()| same_container(peer, address)).map(|()| peer))
}

/// Checks the server at this address: processes of the same user and of root are trusted. Root also trusts the owner of
/// a folder in which no other user can create sockets: root has chosen that folder.
///
/// # Errors
/// The credentials cannot be read (getsockopt(2)).
pub(crate) fn check_server(socket: impl AsFd, address: &SocketAddress) -> io::Result<Result<Peer, Stranger>> {
    let peer = Peer::of(socket)?;
    let ours = rustix::process::geteuid().as_raw();
    let owner = address.folder_owner().filter(|_| ours == 0);
    Ok(judge(peer, ours, owner).and_then(|()| same_container(peer, address)).map(|()| peer))
}

fn judge(peer: Peer, ours: u32, owner: Option<u32>) -> Result<(), Stranger> {
    let is_trusted = peer.uid == 0 || peer.uid == ours || owner == Some(peer.uid);
    if is_trusted { Ok(()) } else { Err(Stranger::OtherUser { uid: peer.uid, ours }) }
}

/// The root of a container is user 0 as well, and sees abstract names of the host if it shares its network.
fn same_container(peer: Peer, address: &SocketAddress) -> Result<(), Stranger> {
    match address {
        SocketAddress::File(_) => Ok(()),
        SocketAddress::Abstract(_) if is_in_our_pid_namespace(peer.pid) => Ok(()),
        SocketAddress::Abstract(_) => Err(Stranger::OtherContainer),
    }
}

/// A process of a namespace below ours has a number here and another one there (`NSpid`, proc(5)).
fn is_in_our_pid_namespace(pid: i32) -> bool {
    let numbers = || Process::new(pid).ok()?.status().ok()?.nspid;
    pid > 0 && numbers().is_some_and(|numbers| numbers.len() == 1)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn the_same_user_and_root_are_trusted_and_root_trusts_the_owner_of_a_folder() {
        let table = [
            (1000, 1000, None, true),
            (0, 1000, None, true),
            (1001, 1000, None, false),
            (1001, 0, None, false),
            (1001, 0, Some(1001), true),
            (1002, 0, Some(1001), false),
            (0, 0, None, true),
        ];
        for (uid, ours, owner, is_trusted) in table {
            let judged = judge(Peer { pid: 1, uid }, ours, owner);
            assert_eq!(judged.is_ok(), is_trusted, "{uid} by {ours} in a folder of {owner:?}");
        }
    }

    #[test]
    fn this_process_is_no_stranger_to_itself() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        for address in [SocketAddress::File(PathBuf::from("/x")), SocketAddress::Abstract("x".to_owned())] {
            assert!(check_client(&ours, &address).unwrap().is_ok(), "{address}");
            assert!(check_server(&ours, &address).unwrap().is_ok(), "{address}");
        }
    }

    #[test]
    fn processes_that_cannot_be_seen_are_in_another_container() {
        assert!(is_in_our_pid_namespace(rustix::process::getpid().as_raw_pid()));
        assert!(!is_in_our_pid_namespace(0));
        assert!(!is_in_our_pid_namespace(i32::MAX));
    }
}
