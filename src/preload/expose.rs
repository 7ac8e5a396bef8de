//! Exposing the shim: giving it a path that the dynamic linker of every process of a worker can load.
//!
//! It neither makes the folder nor removes it, and does not touch the workers' environment.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{MemfdFlags, SealFlags, StatVfsMountFlags};
use serde::{Deserialize, Serialize};

use super::{FILE_NAME, SHIM};
use crate::carry::{CarriedFd, CarriedFds, Raw};

/// Why the shim cannot be exposed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExposeError {
    /// There is no shim for this processor.
    #[error(
        "the shim exists for x86_64 and aarch64, not for {}; only Node and workers that use the library are served",
        std::env::consts::ARCH
    )]
    Unsupported,
    /// Neither a file nor a memfd could be made.
    #[error(
        "cannot expose the shim to workers: as a file: {file}; as a memfd: {memfd}\nhint: {}",
        advice(memfd)
    )]
    Nowhere {
        /// Why it is not there.
        file: io::Error,
        /// Why it is not in memory either.
        memfd: io::Error,
    },
    /// In memory, it could not be loaded by another user.
    #[error(
        "cannot expose the shim to workers of another user (--user): {file}\n\
         hint: make one of /run, TMPDIR, /tmp and /dev/shm writable, mounted without noexec and accessible to that user\n\
         hint: with --attach node, Node workers need no shim"
    )]
    OtherUser {
        /// Why it is not a file.
        file: io::Error,
    },
}

fn advice(memfd: &io::Error) -> &'static str {
    match memfd.raw_os_error() {
        Some(libc::EMFILE) => "raise the limit of open files (ulimit -n)",
        Some(libc::ENFILE) => "raise the system's limit of open files (sysctl fs.file-max)",
        _ => "mount one of /run, TMPDIR, /tmp and /dev/shm without noexec, and writable",
    }
}

/// The shim where programs can load it, for as long as this lives and the folder exists.
#[derive(Debug)]
pub(crate) struct Exposed {
    path: PathBuf,
    /// Keeps alive what `/proc/PID/fd/N` names.
    _memory: Option<OwnedFd>,
}

/// The shim as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ExposedSnapshot {
    path: Raw,
    memory: Option<CarriedFd>,
}

impl Exposed {
    /// Writes the shim into `folder`, or, without one from which programs could load it, into a memfd of this process.
    ///
    /// The file serves every process that may look into the folder; the memfd only those that may look into this
    /// process, which ends with a change of user: it is no choice if the shim `is_for_others`.
    ///
    /// # Errors
    /// [`ExposeError`].
    pub(crate) fn new(folder: Option<&Path>, is_for_others: bool) -> Result<Self, ExposeError> {
        let shim = SHIM.ok_or(ExposeError::Unsupported)?;
        let file = match folder.map(|folder| write_file(folder, shim)) {
            Some(Ok(path)) => return Ok(Self { path, _memory: None }),
            Some(Err(error)) => error,
            None => io::Error::other("no writable folder"),
        };
        if is_for_others {
            return Err(ExposeError::OtherUser { file });
        }
        match write_memory(shim) {
            Ok((path, memory)) => Ok(Self { path, _memory: Some(memory) }),
            Err(memfd) => Err(ExposeError::Nowhere { file, memfd }),
        }
    }

    /// As it is written down for the next image of clusterd.
    pub(crate) fn snapshot(&self) -> ExposedSnapshot {
        ExposedSnapshot { path: self.path.as_path().into(), memory: self._memory.as_ref().map(CarriedFd::of) }
    }

    /// As it was written down. Workers that are started from now on load the shim of this version, if it is in a folder;
    /// in memory it is the one of the version before.
    ///
    /// # Errors
    /// Its descriptor is gone.
    pub(crate) fn restore(written: ExposedSnapshot, fds: &CarriedFds) -> io::Result<Self> {
        let path = PathBuf::from(written.path);
        let memory = written.memory.map(|memory| fds.keep(memory)).transpose()?;
        if let (None, Some(folder), Some(shim)) = (&memory, path.parent(), SHIM)
            && fs::read(&path).map_or(true, |there| there != shim)
        {
            write_file(folder, shim)?;
        }
        Ok(Self { path, _memory: memory })
    }

    /// Writes the shim into `folder` again, from which it was removed.
    ///
    /// # Errors
    /// Those of writing a file.
    pub(crate) fn write_again(folder: &Path) -> io::Result<()> {
        let shim = SHIM.ok_or(io::ErrorKind::Unsupported)?;
        write_file(folder, shim).map(drop)
    }

    /// What to append to LD_PRELOAD; without a space or a colon, which separate its entries (ld.so(8)).
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

/// Whether programs could load the shim from a file in `folder`.
///
/// # Errors
/// Why they could not, and those of statvfs(3).
pub(crate) fn lets_load(folder: &Path) -> io::Result<()> {
    let path = std::path::absolute(folder)?;
    if path.as_os_str().as_bytes().iter().any(|byte| byte.is_ascii_whitespace() || *byte == b':') {
        return Err(io::Error::other("LD_PRELOAD cannot name a path with a space or a colon"));
    }
    if rustix::fs::statvfs(folder)?.f_flag.contains(StatVfsMountFlags::NOEXEC) {
        return Err(io::Error::other("the file system is mounted with noexec"));
    }
    Ok(())
}

fn write_file(folder: &Path, shim: &[u8]) -> io::Result<PathBuf> {
    lets_load(folder)?;
    let path = std::path::absolute(folder)?.join(FILE_NAME);
    // A process that starts at this moment finds the whole file, of this version or of the one before.
    let unfinished = path.with_extension(format!("so.{}", std::process::id()));
    let written = write_unfinished(&unfinished, shim).and_then(|()| fs::rename(&unfinished, &path));
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written.map(|()| path)
}

fn write_unfinished(path: &Path, shim: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(shim)?;
    // Not left to the umask: workers may run as other users.
    file.set_permissions(Permissions::from_mode(0o555))
}

fn write_memory(shim: &[u8]) -> io::Result<(PathBuf, OwnedFd)> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux 6.3 wants to be told that the file is to be executable; older kernels do not know the flag.
    let memory = match rustix::fs::memfd_create(FILE_NAME, flags | MemfdFlags::EXEC) {
        Err(rustix::io::Errno::INVAL) => rustix::fs::memfd_create(FILE_NAME, flags)?,
        other => other?,
    };
    let mut file = File::from(memory);
    file.write_all(shim)?;
    file.set_permissions(Permissions::from_mode(0o555))?;
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
    Ok((path, file.into()))
}

#[cfg(all(test, shim))]
mod tests {
    use super::*;

    #[test]
    fn the_shim_is_a_file_that_everyone_may_load() {
        let folder = tempfile::tempdir().unwrap();
        let exposed = Exposed::new(Some(folder.path()), true).unwrap();
        assert_eq!(exposed.path(), folder.path().join(FILE_NAME));
        assert_eq!(fs::read(exposed.path()).unwrap(), SHIM.unwrap());
        assert_eq!(fs::metadata(exposed.path()).unwrap().permissions().mode() & 0o777, 0o555);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn a_newer_primary_replaces_the_file_of_an_older() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE_NAME), "older").unwrap();
        let exposed = Exposed::new(Some(folder.path()), true).unwrap();
        assert_eq!(fs::read(exposed.path()).unwrap(), SHIM.unwrap());
    }

    #[test]
    fn a_path_that_ld_preload_cannot_name_becomes_a_memfd() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["with space", "with:colon", "with\ttab"] {
            let folder = folder.path().join(name);
            fs::create_dir(&folder).unwrap();
            let exposed = Exposed::new(Some(&folder), false).unwrap();
            assert!(exposed.path().starts_with("/proc"), "{}", exposed.path().display());
            assert_eq!(fs::read(exposed.path()).unwrap(), SHIM.unwrap());
        }
    }

    #[test]
    fn without_a_folder_it_becomes_a_sealed_memfd() {
        let exposed = Exposed::new(None, false).unwrap();
        assert!(matches!(Exposed::new(None, true), Err(ExposeError::OtherUser { .. })));
        let memory = exposed._memory.as_ref().unwrap();
        assert!(rustix::io::write(memory, b"x").is_err());
        assert!(rustix::fs::ftruncate(memory, 0).is_err());
    }
}
