//! What the next image of clusterd begins with: the pipes of workers, with what has come of their lines, and what is not
//! written yet.
//!
//! Files are opened again by their paths. Which of those that were set aside are to be compressed is found out then, as for how
//! long one could not be set aside; one that is half compressed is begun anew.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};

use serde::{Deserialize, Serialize};

use super::write::Stream;
use crate::carry::{CarriedFd, CarriedFds, Moment, Raw};
use crate::ids::WorkerId;

/// How much is read of what was said last, in bytes: more than is ever there.
const LAST_WORDS: u64 = 1024 * 1024;

/// What all the output has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputSnapshot {
    /// What workers are called in lines that are objects.
    pub(super) ids: Vec<u32>,
    pub(super) destinations: Vec<DestinationSnapshot>,
    /// What clusterd has said since this was written down, up to its last moment.
    pub(super) last_words: CarriedFd,
    /// The pipes of each worker's stream, the oldest first.
    pub(super) pipes: Vec<PipeSnapshot>,
}

/// One that lines are written to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DestinationSnapshot {
    pub(super) place: PlaceSnapshot,
    /// What is to be written before anything else. It may begin within a line.
    pub(super) left: Raw,
    /// Messages that were dropped, which was not said yet.
    pub(super) dropped: u64,
    pub(super) drops: Option<DropsSnapshot>,
}

/// Which one it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) enum PlaceSnapshot {
    Stdout,
    Stderr,
    /// That of clusterd's own messages, where it is none of those.
    Own,
    /// A file of workers, and what that is called where what it loses is counted.
    File {
        path: Raw,
        log: String,
    },
}

/// What a file, or a shared stream, has cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DropsSnapshot {
    pub(super) unsaid: u64,
    pub(super) why: String,
    pub(super) said: Option<Moment>,
    pub(super) late_until: Option<Moment>,
}

/// A pipe that is read, or one that was, whose last lines somebody keeps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PipeSnapshot {
    pub(super) worker: WorkerId,
    pub(super) stream: Stream,
    /// Nothing if it is at its end.
    pub(super) pipe: Option<CarriedFd>,
    /// What has come of the line that is not complete yet.
    pub(super) partial: Raw,
    /// The last lines, if somebody keeps them.
    pub(super) last: Option<LastSnapshot>,
}

/// The last lines.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LastSnapshot {
    pub(super) complete: Vec<Raw>,
    pub(super) partial: Raw,
    pub(super) is_open: bool,
}

impl fmt::Display for PlaceSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stdout => f.write_str("stdout"),
            Self::Stderr => f.write_str("stderr"),
            Self::Own => f.write_str("the file of clusterd's own messages"),
            Self::File { path: Raw(path), .. } => String::from_utf8_lossy(path).fmt(f),
        }
    }
}

impl OutputSnapshot {
    /// Looks at all of it, without an output that it could be of.
    ///
    /// # Errors
    /// It cannot have been so, or a descriptor was not carried over.
    #[cfg(feature = "internal")]
    pub(crate) fn trial(&self, fds: &CarriedFds) -> io::Result<()> {
        self.last_words(fds)?;
        for pipe in self.pipes.iter().filter_map(|pipe| pipe.pipe) {
            fds.take(pipe)?;
        }
        let last = self.pipes.iter().filter_map(|pipe| pipe.last.clone());
        last.map(super::last::Kept::try_from).try_for_each(|kept| kept.map(drop))
    }

    /// What clusterd has said last, in whole lines.
    pub(super) fn last_words(&self, fds: &CarriedFds) -> io::Result<Vec<u8>> {
        let mut file = File::from(fds.take(self.last_words)?);
        let mut words = Vec::new();
        file.rewind()?;
        file.take(LAST_WORDS).read_to_end(&mut words)?;
        words.truncate(memchr::memrchr(b'\n', &words).map_or(0, |end| end + 1));
        Ok(words)
    }
}
