//! The socket on which one launch of a worker says how it is: `NOTIFY_SOCKET`, sd_notify(3).
//!
//! Each launch has its own, so that it is known who speaks even when the process that spoke, a short-lived
//! `systemd-notify` for one, has ended by the time that it is heard. What is said is not understood here.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::net::SocketAddrUnix;

use crate::sys::closer::ForeignFd;
use crate::sys::datagram;

/// The socket, bound.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    /// Where messages arrive, in non-blocking mode.
    pub socket: ForeignFd,
    /// The path at which it is found, if it has one.
    pub path: Option<SocketPath>,
}

/// The path of a socket, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketPath(PathBuf);

impl SocketPath {
    /// The same, which whoever has it now sees to.
    pub(crate) fn keep(mut self) -> PathBuf {
        let path = std::mem::take(&mut self.0);
        std::mem::forget(self);
        path
    }
}

impl Drop for SocketPath {
    fn drop(&mut self) {
        // The folder may have gone before.
        let _ = fs::remove_file(&self.0);
    }
}

/// Binds a socket for this launch beside the attach socket: in its folder, or at an abstract name like its own.
/// Returns it with what `NOTIFY_SOCKET` says: a path, or `@name`.
///
/// # Errors
/// Those of socket(2) and bind(2).
pub(crate) fn bind(attach: &OsStr, launch: u64) -> io::Result<(NotifySocket, OsString)> {
    if let Some(name) = attach.as_bytes().strip_prefix(b"@") {
        let name = [name, format!("-notify-{launch}").as_bytes()].concat();
        let socket = datagram::bind(&SocketAddrUnix::new_abstract_name(&name)?)?;
        let name = OsString::from_vec([b"@".as_slice(), &name].concat());
        return Ok((NotifySocket { socket: socket.into(), path: None }, name));
    }
    let path = Path::new(attach).with_file_name(format!("notify-{launch}"));
    let socket = datagram::bind(&SocketAddrUnix::new(&path)?)?;
    let bound = NotifySocket { socket: socket.into(), path: Some(SocketPath(path.clone())) };
    // Who is heard is decided by user and process.
    fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    Ok((bound, path.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_beside_the_attach_socket_and_removed_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let (socket, name) = bind(folder.path().join("attach").as_os_str(), 7).unwrap();
        let path = folder.path().join("notify-7");
        assert_eq!(Path::new(&name), path);
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o666);
        drop(socket);
        assert!(!path.exists());
    }

    #[test]
    fn without_a_folder_it_has_an_abstract_name() {
        let attach = format!("@clusterd-test-{:016x}", fastrand::u64(..));
        let (socket, name) = bind(OsStr::new(&attach), 7).unwrap();
        assert_eq!(name, OsStr::new(&format!("{attach}-notify-7")));
        assert!(socket.path.is_none());
    }
}
