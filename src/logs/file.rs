//! [`LogFile`]: one file that lines are added to, opened again when it was moved away, and set aside when it is full.
//!
//! It blocks as long as the file does: a writer thread of its own has it. Where the end of the file is, is asked and
//! never remembered, so that others may truncate it.

use std::fs::{DirBuilder, File, Metadata, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use chrono::Utc;
use tracing::{info, warn};

use super::compress::{Compressor, is_compressed};
use super::drops::lines_in;
use super::plan::Rotation;
use super::rotation::{kept, prune, set_aside};
use super::write::{Pause, write_some};

/// How long a file that cannot be set aside is left as it is.
const AGAIN: Duration = Duration::from_secs(60);

/// The file.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    compressor: Compressor,
    open: Option<Open>,
    /// What was written last has no end.
    is_torn: bool,
    /// Not to be set aside before that.
    not_before: Option<Instant>,
    traits: FileTraits,
}

/// What is special about a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FileTraits {
    /// This process's stdout and stderr follow it.
    pub(super) is_standard: bool,
    /// It is for its user alone, if it has to be made.
    pub(super) is_private: bool,
}

#[derive(Debug)]
struct Open {
    fd: OwnedFd,
    /// Which file it is: its device and its number there.
    which: (u64, u64),
    /// Nothing else is set aside.
    is_file: bool,
    since: SystemTime,
}

/// Lines that are in no file.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) lines: u64,
    pub(super) why: io::Error,
}

impl LogFile {
    /// The file at this path.
    pub(super) fn new(path: PathBuf, rotation: Rotation, compressor: Compressor, traits: FileTraits) -> Self {
        Self { path, rotation, compressor, open: None, is_torn: false, not_before: None, traits }
    }

    /// Opens it, and looks after what an earlier process has left.
    pub(super) fn begin(&mut self) -> io::Result<()> {
        self.reopen()?;
        self.is_torn = self.open.as_ref().is_some_and(|open| open.is_file) && ends_within_a_line(&self.path);
        self.look_after_kept();
        Ok(())
    }

    /// Opens it again, wherever the one that was open has gone.
    ///
    /// # Errors
    /// Those of mkdir(2) and open(2). What was open is not any more.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        self.open = None;
        let (fd, metadata) = open(&self.path, self.traits.is_private)?;
        if self.traits.is_standard {
            rustix::stdio::dup2_stdout(&fd)?;
            rustix::stdio::dup2_stderr(&fd)?;
        }
        let since = metadata.created().or_else(|_| metadata.modified()).unwrap_or_else(|_| SystemTime::now());
        self.open = Some(Open { fd, which: which(&metadata), is_file: metadata.is_file(), since });
        self.is_torn = false;
        Ok(())
    }

    /// Adds whole lines. In the middle of it, `pause` may hold it up.
    ///
    /// # Errors
    /// How many of them are lost, and why.
    pub(super) fn write(&mut self, lines: &[u8], pause: Pause<'_>) -> Result<(), Lost> {
        let lost = |why| Lost { lines: lines_in(lines), why };
        self.make_ready(lines.len() as u64).map_err(lost)?;
        let Some(open) = &self.open else { return Err(lost(io::ErrorKind::NotFound.into())) };
        if self.is_torn {
            write_some(&open.fd, b"\n", &|_| ()).map_err(|(_, why)| lost(why))?;
            self.is_torn = false;
        }
        write_some(&open.fd, lines, pause).map_err(|(written, why)| {
            self.is_torn = written > 0 && lines[written - 1] != b'\n';
            Lost { lines: lines_in(&lines[written..]), why }
        })
    }

    /// The right file is open, with room for so many bytes.
    fn make_ready(&mut self, more: u64) -> io::Result<()> {
        let is_there = |open: &Open| self.path.metadata().is_ok_and(|found| which(&found) == open.which);
        if !self.open.as_ref().is_some_and(is_there) {
            self.reopen()?;
        }
        if self.is_full(more) {
            self.rotate();
        }
        Ok(())
    }

    fn is_full(&self, more: u64) -> bool {
        let Some(open) = self.open.as_ref().filter(|open| open.is_file) else { return false };
        if self.not_before.is_some_and(|time| Instant::now() < time) {
            return false;
        }
        let size = rustix::fs::fstat(&open.fd).map_or(0, |found| u64::try_from(found.st_size).unwrap_or(0));
        let is_large = self.rotation.max_size.is_some_and(|most| size + more > most);
        let is_old =
            self.rotation.max_age.is_some_and(|most| open.since.elapsed().is_ok_and(|age| age > most));
        size > 0 && (is_large || is_old)
    }

    fn rotate(&mut self) {
        // With the file open still, lines go on being added to it if there is no other.
        let before = self.open.take();
        let set_aside = set_aside(&self.path, Utc::now()).and_then(|()| self.reopen());
        if let Err(error) = set_aside {
            warn!(file = %self.path.display(), %error, "cannot begin another log file");
            self.not_before = Some(Instant::now() + AGAIN);
            self.open = self.open.take().or(before);
        }
        self.look_after_kept();
    }

    fn look_after_kept(&self) {
        if !self.open.as_ref().is_some_and(|open| open.is_file) {
            return;
        }
        if let Err(error) = prune(&self.path, self.rotation.keep) {
            warn!(file = %self.path.display(), %error, "cannot remove an old log file");
        }
        if self.rotation.compress && kept(&self.path).iter().any(|file| !is_compressed(file)) {
            self.compressor.compress_beside(&self.path);
        }
    }
}

/// Whether somebody's last line has no end: the disk was full, or its writer was killed.
fn ends_within_a_line(path: &Path) -> bool {
    let last = || {
        let file = File::open(path)?;
        let mut last = [b'\n'];
        if let Some(at) = file.metadata()?.len().checked_sub(1) {
            file.read_exact_at(&mut last, at)?;
        }
        io::Result::Ok(last)
    };
    // What may not be read is taken to be whole.
    last().is_ok_and(|last| last != [b'\n'])
}

fn which(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Opens a file to add to it, and makes it, and its folder, if there is none. A named pipe that nobody reads is not waited for.
fn open(path: &Path, is_private: bool) -> io::Result<(OwnedFd, Metadata)> {
    let open = || {
        let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(if is_private { 0o600 } else { 0o640 })
            .custom_flags(flags)
            .open(path)
    };
    let file = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                if !is_private {
                    info!(folder = %folder.display(), "making the folder of a log");
                }
                DirBuilder::new()
                    .recursive(true)
                    .mode(if is_private { 0o700 } else { 0o750 })
                    .create(folder)?;
            }
            open()?
        }
        outcome => outcome?,
    };
    let metadata = file.metadata()?;
    Ok((file.into(), metadata))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn rotation(max_size: u64, keep: usize) -> Rotation {
        Rotation { max_size: Some(max_size), max_age: None, keep, compress: false }
    }

    fn log(path: &Path, rotation: Rotation) -> LogFile {
        let mut log = LogFile::new(path.to_owned(), rotation, Compressor::default(), FileTraits::default());
        log.begin().unwrap();
        log
    }

    fn write(log: &mut LogFile, lines: &[u8]) -> Result<(), Lost> {
        log.write(lines, &|_| ())
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_full_file_is_set_aside_and_only_so_many_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/out.log");
        let mut log = log(&path, rotation(10, 2));
        for number in 0..6 {
            write(&mut log, format!("line {number}\n").as_bytes()).unwrap();
        }
        assert_eq!(read(&path), "line 5\n");
        let kept: Vec<_> = kept(&path).iter().map(|file| read(file)).collect();
        assert_eq!(kept, ["line 3\n", "line 4\n"]);
    }

    #[test]
    fn a_file_that_is_too_old_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let mut log = log(&path, Rotation { max_age: Some(Duration::ZERO), ..rotation(1000, 5) });
        write(&mut log, b"one\n").unwrap();
        write(&mut log, b"two\n").unwrap();
        assert_eq!((read(&path).as_str(), kept(&path).len()), ("two\n", 1));
    }

    #[test]
    fn others_may_truncate_move_and_remove_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let mut log = log(&path, rotation(100, 5));
        write(&mut log, b"one\n").unwrap();
        fs::copy(&path, folder.path().join("copy")).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        write(&mut log, b"two\n").unwrap();
        assert_eq!(read(&path), "two\n", "there is no hole");
        fs::rename(&path, folder.path().join("moved")).unwrap();
        write(&mut log, b"three\n").unwrap();
        assert_eq!((read(&path).as_str(), read(&folder.path().join("moved")).as_str()), ("three\n", "two\n"));
        fs::remove_dir_all(folder.path()).unwrap();
        write(&mut log, b"four\n").unwrap();
        assert_eq!(read(&path), "four\n");
    }

    #[test]
    fn what_cannot_be_written_is_counted_and_the_next_line_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("folder/out.log");
        fs::write(folder.path().join("folder"), "a file").unwrap();
        let mut log =
            LogFile::new(path.clone(), rotation(100, 5), Compressor::default(), FileTraits::default());
        assert!(log.begin().is_err());
        let lost = write(&mut log, b"one\ntwo\n").unwrap_err();
        assert_eq!(lost.lines, 2);
        fs::remove_file(folder.path().join("folder")).unwrap();
        write(&mut log, b"three\n").unwrap();
        assert_eq!(read(&path), "three\n");
        log.is_torn = true;
        write(&mut log, b"four\n").unwrap();
        assert_eq!(read(&path), "three\n\nfour\n");
    }

    #[test]
    fn a_line_that_was_left_without_an_end_is_ended_first() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        for (before, after) in [("half", "half\nnext\n"), ("whole\n", "whole\nnext\n"), ("", "next\n")] {
            fs::write(&path, before).unwrap();
            write(&mut log(&path, rotation(100, 5)), b"next\n").unwrap();
            assert_eq!(read(&path), after);
        }
    }

    #[test]
    fn a_full_device_and_a_pipe_that_nobody_reads_lose_lines() {
        let device = Path::new("/dev/full");
        let mut log = log(device, rotation(1, 5));
        let lost = write(&mut log, b"one\n").unwrap_err();
        assert_eq!((lost.lines, lost.why.kind()), (1, io::ErrorKind::StorageFull));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let mut log =
            LogFile::new(path.clone(), rotation(1, 5), Compressor::default(), FileTraits::default());
        assert_eq!(write(&mut log, b"one\n").unwrap_err().lines, 1);
        let mut reader = File::options().read(true).custom_flags(0o4000).open(&path).unwrap();
        write(&mut log, b"two\n").unwrap();
        let mut read = [0; 4];
        io::Read::read_exact(&mut reader, &mut read).unwrap();
        assert_eq!(&read, b"two\n");
    }
}
