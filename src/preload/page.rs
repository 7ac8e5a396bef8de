//! The page in which the shim reads whether its launch drains: writing it.
//!
//! Which launches drain is the supervisor's to decide. What stands where is in [`drain_page`].

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use crate::carry::{CarriedFd, CarriedFds, Raw};
use crate::protocol::drain_page;

/// What the page is called in its folder.
const FILE_NAME: &str = "draining";

/// How many pages are written that were removed, and that older workers may still read.
const FORMER: usize = 4;

/// The page, for as long as this lives.
#[derive(Debug)]
pub(crate) struct DrainPage {
    path: PathBuf,
    /// The one at the path is the last; those before it were removed by others.
    files: Vec<File>,
    /// Whether it is one that can be removed.
    is_in_folder: bool,
}

/// The page as it is written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DrainPageSnapshot {
    path: Raw,
    files: Vec<CarriedFd>,
    is_in_folder: bool,
}

impl DrainPage {
    /// Makes it in `folder`, where every process may read it; without one in memory, where those may that may look into this
    /// process.
    ///
    /// # Errors
    /// Those of creating and writing a file.
    pub(crate) fn new(folder: Option<&Path>) -> io::Result<Self> {
        let Some(folder) = folder else {
            let file = File::from(rustix::fs::memfd_create(FILE_NAME, MemfdFlags::CLOEXEC)?);
            file.write_all_at(&[0; drain_page::LEN], 0)?;
            let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
            return Ok(Self { path, files: vec![file], is_in_folder: false });
        };
        let path = std::path::absolute(folder)?.join(FILE_NAME);
        let file = create(&path, &[0; drain_page::LEN])?;
        Ok(Self { path, files: vec![file], is_in_folder: true })
    }

    /// As it is written down for the next image of clusterd.
    pub(crate) fn snapshot(&self) -> DrainPageSnapshot {
        DrainPageSnapshot {
            path: self.path.as_path().into(),
            files: self.files.iter().map(CarriedFd::of).collect(),
            is_in_folder: self.is_in_folder,
        }
    }

    /// As it was written down.
    ///
    /// # Errors
    /// One of its descriptors is gone.
    pub(crate) fn restore(written: DrainPageSnapshot, fds: &CarriedFds) -> io::Result<Self> {
        let DrainPageSnapshot { path, files, is_in_folder } = written;
        // Of one in memory, workers know the number.
        let files = files.into_iter().map(|file| if is_in_folder { fds.take(file) } else { fds.keep(file) });
        let files = files.map(|file| file.map(File::from)).collect::<io::Result<_>>()?;
        Ok(Self { path: path.into(), files, is_in_folder })
    }

    /// Where workers find it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes it again if it was removed; whether it was. Who reads the removed one is told as before.
    ///
    /// # Errors
    /// Those of creating and writing a file.
    pub(crate) fn make_again(&mut self) -> io::Result<bool> {
        if !self.is_in_folder || self.path.is_file() {
            return Ok(false);
        }
        let mut content = [0; drain_page::LEN];
        if let Some(last) = self.files.last() {
            last.read_exact_at(&mut content, 0)?;
        }
        self.files.push(create(&self.path, &content)?);
        let surplus = self.files.len().saturating_sub(1 + FORMER);
        self.files.drain(..surplus);
        Ok(true)
    }

    /// Clients connect to this port.
    ///
    /// # Errors
    /// Those of reading and writing a file.
    pub(crate) fn serve(&self, port: u16) -> io::Result<()> {
        let (byte, bit) = drain_page::port(port);
        for file in &self.files {
            let mut bits = [0];
            file.read_exact_at(&mut bits, byte as u64)?;
            file.write_all_at(&[bits[0] | bit], byte as u64)?;
        }
        Ok(())
    }

    /// This launch drains from now on.
    ///
    /// # Errors
    /// Those of writing a file.
    pub(crate) fn begin(&self, launch: u64) -> io::Result<()> {
        self.files.iter().try_for_each(|file| put(file, launch, launch))
    }

    /// This launch does not drain, or is gone: its place is free, unless another has it already.
    ///
    /// # Errors
    /// Those of reading and writing a file.
    pub(crate) fn end(&self, launch: u64) -> io::Result<()> {
        for file in &self.files {
            let mut noted = [0; 8];
            file.read_exact_at(&mut noted, drain_page::place(launch) as u64)?;
            if u64::from_ne_bytes(noted) == launch {
                put(file, launch, 0)?;
            }
        }
        Ok(())
    }
}

/// Eight bytes that are aligned are copied to the page at once, and so are seen whole.
fn put(file: &File, launch: u64, note: u64) -> io::Result<()> {
    file.write_all_at(&note.to_ne_bytes(), drain_page::place(launch) as u64)
}

/// A process that starts at this moment finds the whole page or none.
fn create(path: &Path, content: &[u8]) -> io::Result<File> {
    let unfinished = path.with_extension(std::process::id().to_string());
    let written = || {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all_at(content, 0)?;
        // Not left to the umask: workers may run as other users.
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&unfinished, path).map(|()| file)
    };
    written().inspect_err(|_| drop(fs::remove_file(&unfinished)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(path: &Path, launch: u64) -> u64 {
        let (bytes, place) = (fs::read(path).unwrap(), drain_page::place(launch));
        assert_eq!(bytes.len(), drain_page::LEN);
        u64::from_ne_bytes(bytes[place..place + 8].try_into().unwrap())
    }

    #[test]
    fn a_launch_stands_in_it_while_it_drains() {
        let folder = tempfile::tempdir().unwrap();
        for page in [DrainPage::new(Some(folder.path())).unwrap(), DrainPage::new(None).unwrap()] {
            page.begin(7).unwrap();
            assert_eq!((noted(page.path(), 7), noted(page.path(), 8)), (7, 0));
            page.end(7).unwrap();
            assert_eq!(noted(page.path(), 7), 0);
        }
    }

    #[test]
    fn one_that_has_the_place_of_another_is_left_in_it() {
        let page = DrainPage::new(None).unwrap();
        let (old, new) = (3, 3 + 4096);
        page.begin(old).unwrap();
        page.begin(new).unwrap();
        page.end(old).unwrap();
        assert_eq!(noted(page.path(), old), new);
    }

    #[test]
    fn every_user_may_read_it_and_only_ours_may_write_it() {
        let folder = tempfile::tempdir().unwrap();
        let page = DrainPage::new(Some(folder.path())).unwrap();
        assert_eq!(fs::metadata(page.path()).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing unfinished is left");
    }

    #[test]
    fn ports_stand_beside_each_other() {
        let page = DrainPage::new(None).unwrap();
        page.serve(3000).unwrap();
        page.serve(3001).unwrap();
        assert_eq!(fs::read(page.path()).unwrap()[375], 0b11);
    }

    #[test]
    fn one_that_was_removed_is_made_again_and_both_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let mut page = DrainPage::new(Some(folder.path())).unwrap();
        page.serve(3000).unwrap();
        page.begin(1).unwrap();
        let removed = folder.path().join("removed");
        fs::rename(page.path(), &removed).unwrap();
        assert!(page.make_again().unwrap());
        assert!(!page.make_again().unwrap());
        page.begin(2).unwrap();
        for path in [page.path(), &removed] {
            assert_eq!((noted(path, 1), noted(path, 2)), (1, 2), "{}", path.display());
        }
        assert_eq!(fs::read(page.path()).unwrap()[375], 1);
    }
}
