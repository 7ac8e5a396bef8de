//! Compresses log files that were set aside, with time that nobody else wants.
//!
//! One thread does so for all files of a primary; it is there only while there is something to do. It waits until no
//! file was set aside for a while: whoever writes as fast as it can sooner has its files removed than compressed.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use tracing::warn;

use super::rotation::{COMPRESSED, UNFINISHED, kept, with_suffix};
use crate::sys::process::be_idle;

/// How long no file was set aside, before any is compressed.
const QUIET: Duration = Duration::from_secs(10);

/// Whom to tell of files.
#[derive(Clone, Debug)]
pub(super) struct Compressor {
    quiet: Duration,
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The files beside which others were set aside.
    beside: BTreeSet<PathBuf>,
    last: Option<Instant>,
    has_thread: bool,
}

impl Default for Compressor {
    fn default() -> Self {
        Self::after(QUIET)
    }
}

impl Compressor {
    /// That waits for so long.
    pub(super) fn after(quiet: Duration) -> Self {
        Self { quiet, waiting: Arc::default() }
    }

    /// Files were set aside beside this one.
    pub(super) fn compress_beside(&self, path: &Path) {
        let mut waiting = lock(&self.waiting);
        waiting.beside.insert(path.to_owned());
        waiting.last = Some(Instant::now());
        if waiting.has_thread {
            return;
        }
        let (shared, quiet) = (Arc::clone(&self.waiting), self.quiet);
        let thread = thread::Builder::new().name("clusterd-gzip".to_owned()).spawn(move || {
            be_idle();
            work(&shared, quiet);
        });
        // Without a thread the files stay as they are, until the next is set aside.
        waiting.has_thread = thread.is_ok();
    }
}

fn work(shared: &Mutex<Waiting>, quiet: Duration) {
    loop {
        let mut waiting = lock(shared);
        let since = waiting.last.map_or(quiet, |last| last.elapsed());
        if since < quiet {
            drop(waiting);
            thread::sleep(quiet - since);
            continue;
        }
        let Some(path) = waiting.beside.pop_first() else {
            waiting.has_thread = false;
            return;
        };
        drop(waiting);
        for file in kept(&path).iter().filter(|file| !is_compressed(file)) {
            if let Err(error) = compress(file) {
                warn!(file = %file.display(), %error, "cannot compress a log file");
            }
        }
    }
}

/// Puts the compressed file in the place of the one that is not, with the same times and for the same people.
fn compress(file: &Path) -> io::Result<()> {
    let unfinished = with_suffix(file, UNFINISHED);
    let write = || {
        let from = File::open(file)?;
        let metadata = from.metadata()?;
        let mode = metadata.permissions().mode() & 0o777;
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
        let mut encoder = GzEncoder::new(&to, Compression::default());
        io::copy(&mut BufReader::with_capacity(64 * 1024, from), &mut encoder)?;
        encoder.finish()?;
        to.set_modified(metadata.modified()?)?;
        // It may have been removed meanwhile: one too many.
        if file.exists() {
            fs::rename(&unfinished, with_suffix(file, COMPRESSED))?;
            return fs::remove_file(file);
        }
        fs::remove_file(&unfinished)
    };
    write().inspect_err(|_| drop(fs::remove_file(&unfinished)))
}

pub(super) fn is_compressed(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == &COMPRESSED[1..])
}

fn lock(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn files_that_were_set_aside_are_compressed_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.log");
        let aside = folder.path().join("out.log.20261128T235959.123Z");
        let text = b"a line that comes again\n".repeat(10_000);
        fs::write(&path, "now").unwrap();
        fs::write(&aside, &text).unwrap();
        let compressor = Compressor::after(Duration::from_millis(1));
        compressor.compress_beside(&path);
        let deadline = Instant::now() + Duration::from_secs(20);
        let is_done = || kept(&path).iter().all(|file| is_compressed(file)) && !aside.exists();
        while !is_done() {
            assert!(Instant::now() < deadline, "{:?}", kept(&path));
            thread::sleep(Duration::from_millis(1));
        }
        let compressed = with_suffix(&aside, COMPRESSED);
        assert_eq!(kept(&path), std::slice::from_ref(&compressed));
        let mut read = Vec::new();
        GzDecoder::new(File::open(&compressed).unwrap()).read_to_end(&mut read).unwrap();
        assert!(read == text && compressed.metadata().unwrap().len() < 10_000);
        assert_eq!(fs::read_to_string(&path).unwrap(), "now");
    }
}
