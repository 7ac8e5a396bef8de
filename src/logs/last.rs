//! [`LastLines`]: what a worker has written last, for whoever asks why it ended.
//!
//! It reads no pipe and decides nothing: it is fed what passes, and keeps a bounded end of it.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::watch;

use super::snapshot::LastSnapshot;
use crate::carry::Raw;

/// How many lines are kept.
const LINES: usize = 20;
/// How much is kept of each, in bytes.
const LENGTH: usize = 500;

/// The last 20 lines of one captured pipe, the first 500 bytes of each. They are kept for as long as a clone of this
/// exists.
#[derive(Clone, Debug)]
pub(crate) struct LastLines {
    kept: Arc<Mutex<Kept>>,
    ended: watch::Receiver<()>,
}

impl LastLines {
    /// Nothing yet, and the end that is fed.
    #[cfg(test)]
    pub(super) fn new() -> (Self, Feed) {
        Self::with(Kept::default())
    }

    /// These yet, and the end that is fed.
    pub(super) fn with(kept: Kept) -> (Self, Feed) {
        let (feeding, ended) = watch::channel(());
        let kept = Arc::new(Mutex::new(kept));
        let feed = Feed { kept: Arc::downgrade(&kept), _feeding: feeding };
        (Self { kept, ended }, feed)
    }

    /// The same lines, for as long as somebody else keeps them.
    pub(super) fn watched(&self) -> WatchedLines {
        WatchedLines(Arc::downgrade(&self.kept))
    }

    /// The lines, the oldest first, without their newlines; what is not UTF-8 is replaced. A last line that is not
    /// complete is among them.
    pub(crate) fn lines(&self) -> Vec<String> {
        let kept = lock(&self.kept);
        let partial = kept.is_open.then_some(&kept.partial);
        let lines: Vec<_> = kept.complete.iter().chain(partial).collect();
        lines[lines.len().saturating_sub(LINES)..].iter().map(|line| readable(line)).collect()
    }

    /// Waits until the pipe was read to its end. A worker's end may be noticed before its last words are read; and a
    /// process that it leaves behind may hold the pipe open for ever, so that this is to be bounded.
    pub(crate) async fn ended(&self) {
        let mut ended = self.ended.clone();
        // Nothing is ever sent: an error says that the feed is gone.
        while ended.changed().await.is_ok() {}
    }
}

/// Lines that are there while somebody keeps them.
#[derive(Clone, Debug)]
pub(super) struct WatchedLines(Weak<Mutex<Kept>>);

impl WatchedLines {
    /// Whether they are there.
    pub(super) fn are_kept(&self) -> bool {
        self.0.strong_count() > 0
    }

    /// What the next image of clusterd has to know of them, if they are there.
    pub(super) fn snapshot(&self) -> Option<LastSnapshot> {
        let kept = self.0.upgrade()?;
        let kept = lock(&kept);
        Some(LastSnapshot {
            complete: kept.complete.iter().cloned().map(Raw).collect(),
            partial: Raw(kept.partial.clone()),
            is_open: kept.is_open,
        })
    }
}

/// Where the bytes of a pipe go by. Dropped at the pipe's end.
#[derive(Debug)]
pub(super) struct Feed {
    kept: Weak<Mutex<Kept>>,
    _feeding: watch::Sender<()>,
}

impl Feed {
    /// Takes the next bytes of the stream, if somebody wants to know.
    pub(super) fn push(&self, bytes: &[u8]) {
        if let Some(kept) = self.kept.upgrade() {
            lock(&kept).push(bytes);
        }
    }
}

/// What is kept.
#[derive(Debug, Default)]
pub(super) struct Kept {
    complete: VecDeque<Vec<u8>>,
    /// The start of the line that is being written.
    partial: Vec<u8>,
    /// Whether such a line has begun.
    is_open: bool,
}

impl TryFrom<LastSnapshot> for Kept {
    type Error = io::Error;

    fn try_from(snapshot: LastSnapshot) -> io::Result<Self> {
        let LastSnapshot { complete, partial: Raw(partial), is_open } = snapshot;
        let complete: VecDeque<_> = complete.into_iter().map(|Raw(line)| line).collect();
        if complete.len() > LINES || complete.iter().chain([&partial]).any(|line| line.len() > LENGTH) {
            return Err(io::Error::other("more last lines of a worker than are kept, or longer ones"));
        }
        Ok(Self { complete, partial, is_open })
    }
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        for part in end_of(bytes).split_inclusive(|&byte| byte == b'\n') {
            let body = part.strip_suffix(b"\n").unwrap_or(part);
            let room = LENGTH - self.partial.len();
            self.partial.extend_from_slice(&body[..body.len().min(room)]);
            self.is_open = body.len() == part.len();
            if !self.is_open {
                self.complete_line();
            }
        }
    }

    fn complete_line(&mut self) {
        // The buffer of the line that falls out is used again.
        let oldest = if self.complete.len() < LINES { None } else { self.complete.pop_front() };
        let mut next = oldest.unwrap_or_default();
        next.clear();
        self.complete.push_back(std::mem::replace(&mut self.partial, next));
    }
}

/// The end of `bytes` from which all that is kept can be told: of a worker that writes much, only little is looked at.
fn end_of(bytes: &[u8]) -> &[u8] {
    let newlines = bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
    // One more than is kept: what began before these bytes ends with the first of them, and falls out.
    match newlines.map(|(at, _)| at).nth(LINES) {
        Some(at) => &bytes[at..],
        None => bytes,
    }
}

fn readable(line: &[u8]) -> String {
    String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)).into_owned()
}

fn lock(kept: &Mutex<Kept>) -> MutexGuard<'_, Kept> {
    // What is kept is of use even if somebody panicked over it.
    kept.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let (last, feed) = LastLines::new();
        chunks.iter().for_each(|chunk| feed.push(chunk));
        last.lines()
    }

    #[test]
    fn the_last_lines_are_kept() {
        let table: [(&[&[u8]], &[&str]); 6] = [
            (&[], &[]),
            (&[b"a\nb\n"], &["a", "b"]),
            (&[b"a\npa", b"nic"], &["a", "panic"]),
            (&[b"a", b"\n\n", b"b"], &["a", "", "b"]),
            (&[b"dos\r\n"], &["dos"]),
            (&[b"\xff\n"], &["\u{fffd}"]),
        ];
        for (chunks, expected) in table {
            assert_eq!(lines(chunks), expected, "{chunks:?}");
        }
    }

    #[test]
    fn there_are_no_more_than_20_of_500_bytes() {
        let mut text = String::new();
        for number in 0..100 {
            text.push_str(&format!("{number} {}\n", "x".repeat(600)));
        }
        text.push_str("last");
        let kept = lines(&[text.as_bytes()]);
        assert_eq!(kept.len(), LINES);
        assert_eq!(kept[LINES - 1], "last");
        assert!(kept[0].starts_with("81 x"));
        assert!(kept[..LINES - 1].iter().all(|line| line.len() == LENGTH));
    }

    #[tokio::test]
    async fn the_end_of_the_pipe_is_told() {
        let (last, feed) = LastLines::new();
        let soon = Duration::from_millis(20);
        assert!(tokio::time::timeout(soon, last.ended()).await.is_err());
        feed.push(b"last words");
        drop(feed);
        tokio::time::timeout(Duration::from_secs(10), last.ended()).await.unwrap();
        assert_eq!(last.lines(), ["last words"]);
    }

    proptest! {
        #[test]
        fn it_is_the_end_of_the_stream_however_it_is_cut(
            stream in proptest::collection::vec(prop_oneof![3 => Just(b'\n'), 5 => Just(b'x')], 0..300),
            size in 1usize..300,
        ) {
            let text = String::from_utf8(stream.clone()).unwrap();
            let all: Vec<_> = text.lines().collect();
            let chunks: Vec<&[u8]> = stream.chunks(size).collect();
            prop_assert_eq!(lines(&chunks), &all[all.len().saturating_sub(LINES)..]);
        }
    }
}
