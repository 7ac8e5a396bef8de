//! Files that are read as text: as they are, or compressed.
//!
//! Only regular files are read. To open anything else may wait or set something off, lines that are read from a named pipe are
//! gone for whoever else reads it, and a device may have no end.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use rustix::fs::OFlags;

use super::rotation::{COMPRESSED, kept, with_suffix};

/// A file that is open.
#[derive(Debug)]
pub(super) enum Text {
    /// As it is.
    Plain(File),
    /// It is decompressed.
    Compressed(Box<MultiGzDecoder<BufReader<File>>>),
    /// It was compressed, and cannot be read any further.
    Damaged,
}

impl Read for Text {
    fn read(&mut self, block: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(block),
            Self::Compressed(file) => file.read(block),
            Self::Damaged => Ok(0),
        }
    }
}

/// Opens a regular file. Anything else is as if it were not there.
///
/// # Errors
/// Those of stat(2) and open(2).
pub(super) fn open(path: &Path) -> io::Result<File> {
    if is_no_file(path) {
        return Err(io::ErrorKind::NotFound.into());
    }
    // By now it may be another.
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::NotFound.into()),
    }
}

/// Opens one that was set aside, and may have been compressed meanwhile.
///
/// # Errors
/// As [`open`].
pub(super) fn open_aside(path: &Path) -> io::Result<Text> {
    match open_as_named(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            open_as_named(&with_suffix(path, COMPRESSED))
        }
        opened => opened,
    }
}

fn open_as_named(path: &Path) -> io::Result<Text> {
    let file = open(path)?;
    Ok(match is_compressed(path) {
        true => Text::Compressed(Box::new(MultiGzDecoder::new(BufReader::new(file)))),
        false => Text::Plain(file),
    })
}

/// Whether it is compressed, by its name.
pub(super) fn is_compressed(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(COMPRESSED.as_bytes())
}

/// Whether there is something that is no regular file.
pub(super) fn is_no_file(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| !found.is_file())
}

/// The files that were set aside for the one at this path, the oldest first, compressed or not.
pub(super) fn asides(path: &Path) -> Vec<PathBuf> {
    let mut asides = kept(path);
    // One that is not there any more has just been compressed.
    asides.retain(|aside| !is_no_file(aside));
    asides
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn what_is_no_file_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        symlink("/dev/zero", at("device")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        symlink(at("nowhere"), at("link")).unwrap();
        let _socket = UnixListener::bind(at("socket")).unwrap();
        for name in ["pipe", "device", "folder", "link", "socket", "nothing"] {
            assert_eq!(open(&at(name)).unwrap_err().kind(), io::ErrorKind::NotFound, "{name}");
            let is_there = !matches!(name, "link" | "nothing");
            assert_eq!(is_no_file(&at(name)), is_there, "{name}");
        }
        fs::write(at("nowhere"), "text").unwrap();
        assert_eq!(io::read_to_string(open(&at("link")).unwrap()).unwrap(), "text");
    }

    #[test]
    fn what_is_named_like_one_that_was_set_aside_and_is_no_file_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("out.log.20261128T235957.123Z")).unwrap();
        symlink("/dev/zero", at("out.log.20261128T235958.123Z.gz")).unwrap();
        fs::write(at("out.log.20261128T235959.123Z"), "text").unwrap();
        assert_eq!(asides(&at("out.log")), [at("out.log.20261128T235959.123Z")]);
    }
}
