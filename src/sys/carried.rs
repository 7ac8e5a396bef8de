//! Descriptors that go through execve(2) into another image of this program: by their numbers, which stay the same.
//!
//! Whose they are and what they are for is written down by those who have them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rustix::io::FdFlags;
use serde::{Deserialize, Serialize};

/// The number of the first descriptor that is no standard stream.
const FIRST: RawFd = 3;

/// A descriptor as it is written down. It is not owned by that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CarriedFd {
    descriptor: RawFd,
}

impl CarriedFd {
    /// What it is called where it is looked for among all that is written down.
    pub(crate) const KEY: &str = "descriptor";

    /// This one. It has to stay open until the other image has it.
    pub(crate) fn of(fd: &impl AsFd) -> Self {
        Self { descriptor: fd.as_fd().as_raw_fd() }
    }

    /// The one of this number.
    pub(crate) fn numbered(descriptor: RawFd) -> Self {
        Self { descriptor }
    }

    /// Its number.
    pub(crate) fn number(self) -> RawFd {
        self.descriptor
    }

    /// Has execve(2) leave it open, or close it.
    ///
    /// # Errors
    /// Those of fcntl(2): it is not open.
    pub(crate) fn survives_exec(self, survives: bool) -> io::Result<()> {
        let flags = if survives { FdFlags::empty() } else { FdFlags::CLOEXEC };
        self.with(|fd| Ok(rustix::io::fcntl_setfd(fd, flags)?))
    }

    /// Everything that is in this file, from its beginning, without another descriptor.
    ///
    /// # Errors
    /// It is longer than this, in bytes, or not open, or no file.
    pub(crate) fn read(self, longest: u64) -> io::Result<Vec<u8>> {
        let stat = self.with(|fd| Ok(rustix::fs::fstat(fd)?))?;
        let len = usize::try_from(stat.st_size).map_err(io::Error::other)?;
        if len as u64 > longest {
            return Err(io::Error::other(format!("it is {len} bytes long")));
        }
        let mut bytes = vec![0; len];
        let mut at = 0;
        while at < len {
            match self.with(|fd| Ok(rustix::io::pread(fd, &mut bytes[at..], at as u64)?))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                read => at += read,
            }
        }
        Ok(bytes)
    }

    fn with<T>(self, act: impl FnOnce(BorrowedFd<'_>) -> io::Result<T>) -> io::Result<T> {
        if self.descriptor < 0 {
            return Err(rustix::io::Errno::BADF.into());
        }
        // SAFETY: it is not -1, and only used for one system call, which fails with EBADF if it is not open.
        act(unsafe { BorrowedFd::borrow_raw(self.descriptor) })
    }
}

/// The descriptors that this image was given by the one before. Each stays open, and the same, until all of these are dropped,
/// so that they can be given back until then.
pub(crate) struct CarriedFds(Mutex<BTreeMap<RawFd, Kept>>);

struct Kept {
    original: OwnedFd,
    is_taken: bool,
}

impl CarriedFds {
    /// Takes them over, once in the life of a process.
    ///
    /// # Errors
    /// One is not open, is a standard stream, or is named twice; or this was called before.
    pub(crate) fn adopt(numbers: &[CarriedFd]) -> io::Result<Self> {
        static IS_DONE: AtomicBool = AtomicBool::new(false);
        if IS_DONE.swap(true, Ordering::Relaxed) {
            return Err(io::Error::other("descriptors were taken over before"));
        }
        Self::check(numbers)?;
        // None is owned, and so closed, before all are there: they may have to be given back.
        for number in numbers {
            let descriptor = number.descriptor;
            number
                .survives_exec(false)
                .map_err(|error| io::Error::new(error.kind(), format!("descriptor {descriptor}: {error}")))?;
        }
        make_room(numbers);
        let own = |descriptor| {
            // SAFETY: it is open, as was just seen, and the image before has left it to this one, in which nobody
            // else knows of it: this is done once, and each number is taken once.
            let original = unsafe { OwnedFd::from_raw_fd(descriptor) };
            (descriptor, Kept { original, is_taken: false })
        };
        let all = numbers.iter().map(|number| own(number.descriptor)).collect();
        Ok(Self(Mutex::new(all)))
    }

    /// That they can be taken over, as far as their numbers tell.
    ///
    /// # Errors
    /// One is a standard stream, or is named twice.
    pub(crate) fn check(numbers: &[CarriedFd]) -> io::Result<()> {
        let mut seen = BTreeSet::new();
        match numbers.iter().find(|number| number.descriptor < FIRST || !seen.insert(**number)) {
            Some(CarriedFd { descriptor }) => {
                Err(io::Error::other(format!("descriptor {descriptor} is not one of its own")))
            }
            None => Ok(()),
        }
    }

    /// Copies of descriptors of this process, by their numbers: for tests, in which one process is both images.
    #[cfg(test)]
    pub(crate) fn copies(numbers: &[CarriedFd]) -> Self {
        let copy = |number: CarriedFd| number.with(|fd| fd.try_clone_to_owned()).expect("it is open");
        Self::of(numbers.iter().map(|&number| (number, copy(number))))
    }

    /// These, by the numbers that are written down of them.
    #[cfg(any(test, feature = "internal"))]
    pub(crate) fn of(all: impl Iterator<Item = (CarriedFd, OwnedFd)>) -> Self {
        let kept = |original| Kept { original, is_taken: false };
        Self(Mutex::new(all.map(|(number, fd)| (number.descriptor, kept(fd))).collect()))
    }

    /// A descriptor of the same file, for whoever it was written down by.
    ///
    /// # Errors
    /// It was not carried, or was taken before; and those of fcntl(2) with F_DUPFD_CLOEXEC.
    pub(crate) fn take(&self, number: CarriedFd) -> io::Result<OwnedFd> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.get_mut(&number.descriptor) {
            Some(kept) if !kept.is_taken => {
                let copy = kept.original.try_clone()?;
                kept.is_taken = true;
                Ok(copy)
            }
            Some(_) => Err(io::Error::other(format!("descriptor {} has two owners", number.descriptor))),
            None => Err(io::Error::other(format!("descriptor {} was not carried over", number.descriptor))),
        }
    }

    /// The descriptor itself, of which others know the number.
    ///
    /// # Errors
    /// It was not carried, or was taken before.
    pub(crate) fn keep(&self, number: CarriedFd) -> io::Result<OwnedFd> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match all.remove(&number.descriptor) {
            Some(Kept { original, is_taken: false }) => Ok(original),
            Some(Kept { .. }) => {
                Err(io::Error::other(format!("descriptor {} has two owners", number.descriptor)))
            }
            None => Err(io::Error::other(format!("descriptor {} was not carried over", number.descriptor))),
        }
    }

    /// The numbers of those that nobody has taken.
    pub(crate) fn untaken(&self) -> Vec<RawFd> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter(|(_, kept)| !kept.is_taken).map(|(&number, _)| number).collect()
    }
}

/// Has the table of descriptors grow now for a copy of each. With several threads, the kernel would wait until none reads the old
/// table (expand_fdtable() in fs/file.c), which takes up to tens of milliseconds; there is one thread yet.
fn make_room(numbers: &[CarriedFd]) {
    let Some(highest) = numbers.iter().max() else { return };
    let copies = RawFd::try_from(numbers.len()).unwrap_or(RawFd::MAX);
    let last = highest.descriptor.saturating_add(copies);
    // It is closed at once; where the limit of open files is lower, there is no such descriptor.
    let _ = highest.with(|fd| Ok(rustix::io::fcntl_dupfd_cloexec(fd, last)?));
}

impl fmt::Debug for CarriedFds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CarriedFds").field("untaken", &self.untaken()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_descriptor_is_taken_once_and_is_of_the_same_file() {
        let (mut reader, writer) = io::pipe().unwrap();
        let number = CarriedFd::of(&writer);
        let carried = CarriedFds::copies(&[number]);
        drop(writer);
        assert_eq!(carried.untaken(), [number.number()]);
        let mut taken = std::fs::File::from(carried.take(number).unwrap());
        assert!(rustix::io::fcntl_getfd(&taken).unwrap().contains(FdFlags::CLOEXEC));
        assert!(carried.take(number).unwrap_err().to_string().contains("two owners"));
        assert!(carried.take(CarriedFd::numbered(i32::MAX)).is_err());
        assert_eq!(carried.untaken(), [0; 0]);
        taken.write_all(b"x").unwrap();
        drop((taken, carried));
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        assert_eq!(all, b"x");
    }

    #[test]
    fn a_number_is_of_one_descriptor_that_is_no_standard_stream() {
        let check = |numbers: &[i32]| {
            let numbers: Vec<_> = numbers.iter().map(|&number| CarriedFd::numbered(number)).collect();
            CarriedFds::check(&numbers).map_err(|error| error.to_string())
        };
        assert_eq!(check(&[3, 5, 4]), Ok(()));
        for (numbers, wrong) in [([3, 4, 3], 3), ([3, 2, 4], 2), ([-1, 3, 4], -1)] {
            assert_eq!(check(&numbers), Err(format!("descriptor {wrong} is not one of its own")));
        }
    }

    #[test]
    fn one_that_is_not_open_cannot_go_through() {
        assert_eq!(
            CarriedFd::numbered(i32::MAX).survives_exec(true).unwrap_err().raw_os_error(),
            Some(libc::EBADF)
        );
        assert!(CarriedFd::numbered(-1).survives_exec(true).is_err());
        let (reader, _writer) = io::pipe().unwrap();
        let flags = || rustix::io::fcntl_getfd(&reader).unwrap();
        CarriedFd::of(&reader).survives_exec(true).unwrap();
        assert_eq!(flags(), FdFlags::empty());
        CarriedFd::of(&reader).survives_exec(false).unwrap();
        assert_eq!(flags(), FdFlags::CLOEXEC);
    }
}
