//! Where one control socket is: a file, or an abstract name; and the guard that removes it.
//!
//! Which of them a clusterd takes, and where a client looks, is decided in [`home`](super::home).

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use tracing::debug;

use super::app_name::decoded;
use crate::sys::unix::{self, Name};

/// Where one control socket is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SocketAddress {
    /// A file.
    File(PathBuf),
    /// An abstract name.
    Abstract(String),
}

/// A path, or `@` and the abstract name.
impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SocketAddress::File(path) => path.display().fmt(f),
            SocketAddress::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

impl SocketAddress {
    /// The name, without what all have: of the app and its process.
    pub(crate) fn stem(&self) -> String {
        match self {
            SocketAddress::File(path) => path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            SocketAddress::Abstract(name) => name.clone(),
        }
    }

    /// What the app is called whose clusterd is there, if its name can be seen.
    pub(super) fn app(&self) -> Option<String> {
        decoded(self.stem().rsplit_once('-')?.0)
    }

    /// Connects without waiting for room in the backlog.
    ///
    /// # Errors
    /// Those of [`unix::connect`].
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        unix::connect(self.name())
    }

    /// Connects, or removes a file on which no process listens: a killed clusterd left it behind.
    ///
    /// # Errors
    /// Those of [`unix::connect`].
    pub(crate) fn connect_or_clear(&self) -> io::Result<UnixStream> {
        self.connect().inspect_err(|error| {
            if error.kind() == io::ErrorKind::ConnectionRefused {
                self.remove();
            }
        })
    }

    /// The owner of the socket's folder, if no other user may create sockets in it.
    pub(crate) fn folder_owner(&self) -> Option<u32> {
        let SocketAddress::File(path) = self else { return None };
        let folder = fs::metadata(path.parent()?).ok()?;
        (folder.mode() & 0o022 == 0).then(|| folder.uid())
    }

    fn name(&self) -> Name<'_> {
        match self {
            SocketAddress::File(path) => Name::Path(path),
            SocketAddress::Abstract(name) => Name::Abstract(name.as_bytes()),
        }
    }

    /// Which file is there now; `None` without any.
    fn file(&self) -> Option<(u64, u64)> {
        let SocketAddress::File(path) = self else { return None };
        path.symlink_metadata().ok().map(|found| (found.dev(), found.ino()))
    }

    fn remove(&self) {
        if let SocketAddress::File(path) = self
            && let Err(error) = fs::remove_file(path)
        {
            debug!(socket = %path.display(), %error, "cannot remove a control socket");
        }
    }
}

/// The address of a socket that listens; dropping it removes the socket's file, unless another has its name by then.
#[derive(Debug)]
pub(crate) struct SocketGuard {
    address: SocketAddress,
    /// Which file it is: its device and its number there.
    file: Option<(u64, u64)>,
}

impl SocketGuard {
    /// Guards this address, at which the caller listens.
    pub(crate) fn new(address: SocketAddress) -> Self {
        let file = address.file();
        Self { address, file }
    }

    /// The address.
    pub(crate) fn address(&self) -> &SocketAddress {
        &self.address
    }

    /// Whether clients find the socket there.
    pub(crate) fn is_there(&self) -> bool {
        self.address.file() == self.file
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        if self.is_there() {
            self.address.remove();
        }
    }
}
