//! Bytes on their way to one destination: bounded, in order, with room of their own for clusterd's messages.
//!
//! It writes nothing. Workers' lines wait for room, so that a slow reader slows the workers down as if they wrote
//! to it themselves. Messages never wait: one that finds no room is dropped and counted. When clusterd becomes another image
//! of itself, the queue is held, and what is left is passed on to that.

use std::fs::File;
use std::io::Write as _;
use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

/// How many bytes of workers' lines may be on their way.
const LINES_ROOM: usize = 256 * 1024;

/// How many may be on their way to a file, which is not waited for as long as it takes.
const FILE_ROOM: usize = 1024 * 1024;

/// How many bytes of messages may wait.
const MESSAGES_ROOM: usize = 64 * 1024;

/// The queue of one destination. Any number of threads may push; one takes.
#[derive(Debug)]
pub(super) struct Queue {
    pending: Mutex<Pending>,
    /// There is something to take, or the queue was closed.
    filled: Condvar,
    /// Bytes of room for workers' lines.
    room: Semaphore,
    /// How many there are when nothing is on its way.
    whole_room: usize,
    /// Everything that was pushed has been written.
    idle: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    bytes: Vec<u8>,
    /// How much of the lines' room these bytes use.
    of_lines: usize,
    /// How much of the messages' room these bytes use.
    of_messages: usize,
    /// Messages that found no room since the last batch was taken.
    dropped: u64,
    /// Somebody wants the destination to be opened again.
    reopen: bool,
    /// A batch was taken and is not yet written.
    writing: bool,
    closed: bool,
    /// Nothing is to be written, or taken, while this is so.
    is_held: bool,
    /// What is not written of the batch in the middle of which the queue is held.
    rest: Option<Vec<u8>>,
    /// Where messages are written, too, that come when it is known what is left.
    last_words: Option<File>,
}

/// What a queue has that is held.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// What is not written; it may begin within a line.
    pub(super) bytes: Vec<u8>,
    /// How many messages were dropped, which was not said.
    pub(super) dropped: u64,
}

/// What [`Queue::take`] took, beside the bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// How much of the lines' room it uses, to be given back with [`Queue::written`].
    pub(super) of_lines: usize,
    /// How many messages were dropped since the batch before.
    pub(super) dropped: u64,
    /// Whether the destination is to be opened again first. There may be nothing to write then.
    pub(super) reopen: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self::with_room(LINES_ROOM)
    }

    pub(super) fn of_file() -> Self {
        Self::with_room(FILE_ROOM)
    }

    fn with_room(whole_room: usize) -> Self {
        Self {
            pending: Mutex::default(),
            filled: Condvar::new(),
            room: Semaphore::new(whole_room),
            whole_room,
            idle: Notify::new(),
        }
    }

    /// Queues whole lines of a worker, as soon as there is room; who waits longest is first.
    pub(super) async fn push_lines(&self, lines: &[u8]) {
        let permits = self.permits_for(lines);
        self.room.acquire_many(permits).await.expect("never closed").forget();
        self.push_permitted(lines, permits);
    }

    /// Queues them if there is room now. Whether there was.
    pub(super) fn try_push_lines(&self, lines: &[u8]) -> bool {
        let permits = self.permits_for(lines);
        let Ok(permit) = self.room.try_acquire_many(permits) else { return false };
        permit.forget();
        self.push_permitted(lines, permits);
        true
    }

    /// More than the whole room goes when nothing else is on its way.
    fn permits_for(&self, lines: &[u8]) -> u32 {
        u32::try_from(lines.len().min(self.whole_room)).expect("the room fits")
    }

    fn push_permitted(&self, lines: &[u8], permits: u32) {
        let mut pending = self.lock();
        pending.bytes.extend_from_slice(lines);
        pending.of_lines += permits as usize;
        self.filled.notify_one();
    }

    /// Has the destination opened again, before anything else is written.
    pub(super) fn reopen(&self) {
        self.lock().reopen = true;
        self.filled.notify_one();
    }

    /// Queues a whole message, or drops and counts it when there is no room.
    pub(super) fn push_message(&self, message: &[u8]) {
        let mut pending = self.lock();
        if pending.of_messages + message.len() > MESSAGES_ROOM {
            pending.dropped += 1;
            return;
        }
        pending.of_messages += message.len();
        pending.push(message);
        self.filled.notify_one();
    }

    /// Queues the message that tells how many were dropped, whether there is room or not: it is the only one that
    /// knows. Only who takes batches may push it, one a batch, so that it stays bounded.
    pub(super) fn push_report(&self, report: &[u8]) {
        self.lock().push(report);
        self.filled.notify_one();
    }

    /// Blocks until there is something to write, and swaps it into `bytes`, whose former content is discarded.
    /// `None` once the queue is closed and empty.
    pub(super) fn take(&self, bytes: &mut Vec<u8>) -> Option<Batch> {
        bytes.clear();
        let mut pending = self.lock();
        pending.writing = false;
        while pending.is_held || (pending.bytes.is_empty() && !pending.reopen) {
            self.idle.notify_waiters();
            if pending.closed && !pending.is_held {
                return None;
            }
            pending = self.filled.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(&mut pending.bytes, bytes);
        pending.writing = true;
        pending.of_messages = 0;
        Some(Batch {
            of_lines: mem::take(&mut pending.of_lines),
            dropped: mem::take(&mut pending.dropped),
            reopen: mem::take(&mut pending.reopen),
        })
    }

    /// The batch is written, or cannot be: its room is free again.
    pub(super) fn written(&self, batch: &Batch) {
        self.room.add_permits(batch.of_lines);
    }

    /// Returns when everything that was pushed before has been written.
    pub(super) async fn flushed(&self) {
        loop {
            let idle = self.idle.notified();
            if self.is_idle() {
                return;
            }
            idle.await;
        }
    }

    /// Has nothing be taken any more, and nothing be written but what would wait for nobody.
    pub(super) fn hold(&self) {
        self.lock().is_held = true;
    }

    /// What is left now that the queue is held; `None` as long as a batch is being written. Messages that are pushed from now
    /// on go to `last_words`, too.
    pub(super) fn left(&self, last_words: Option<&File>) -> Option<Left> {
        let mut pending = self.lock();
        let mut bytes = match (&pending.rest, pending.writing) {
            (None, true) => return None,
            (None, false) => Vec::new(),
            (Some(rest), _) => rest.clone(),
        };
        bytes.extend_from_slice(&pending.bytes);
        // Without another descriptor nobody would know of them.
        pending.last_words = last_words.and_then(|file| file.try_clone().ok());
        Some(Left { bytes, dropped: pending.dropped })
    }

    /// Is called in the middle of a batch of which this is not written. Returns when it is to be gone on with.
    pub(super) fn pause(&self, rest: &[u8]) {
        let mut pending = self.lock();
        while pending.is_held {
            if pending.rest.is_none() {
                pending.rest = Some(rest.to_owned());
                self.idle.notify_waiters();
            }
            pending = self.filled.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        pending.rest = None;
    }

    /// Is held no longer.
    pub(super) fn go_on(&self) {
        let mut pending = self.lock();
        pending.is_held = false;
        pending.last_words = None;
        self.filled.notify_one();
    }

    /// Queues what is left of an image before, ahead of all that there is.
    pub(super) fn put_back(&self, left: Left) {
        let Left { bytes, dropped } = left;
        // There may be more than there is room for. Lines wait until all of it is written, then.
        let of_lines = self.room.forget_permits(bytes.len().min(self.whole_room));
        let mut pending = self.lock();
        pending.bytes.splice(0..0, bytes);
        pending.of_lines += of_lines;
        pending.dropped = pending.dropped.saturating_add(dropped);
        self.filled.notify_one();
    }

    /// Lets [`Queue::take`] return `None` after what is still there.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.filled.notify_one();
    }

    fn is_idle(&self) -> bool {
        let pending = self.lock();
        pending.bytes.is_empty() && !pending.writing
    }

    /// No code that runs under the lock leaves the state half changed, so a poisoned one is sound.
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending {
    fn push(&mut self, message: &[u8]) {
        self.bytes.extend_from_slice(message);
        if let Some(file) = &mut self.last_words {
            // It is a file in memory: where there is none left, the message is lost with this image.
            let _ = file.write_all(message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    async fn push_everything(queue: &Queue, count: usize, lines: &[u8]) {
        for _ in 0..count {
            queue.push_lines(lines).await;
        }
    }

    #[tokio::test]
    async fn what_is_pushed_comes_out_in_order() {
        let queue = Queue::new();
        queue.push_lines(b"line\n").await;
        queue.push_message(b"message\n");
        queue.push_lines(b"line\n").await;
        let mut bytes = b"old".to_vec();
        let batch = queue.take(&mut bytes);
        assert_eq!(bytes, b"line\nmessage\nline\n");
        assert_eq!(batch, Some(Batch { of_lines: 10, dropped: 0, reopen: false }));
    }

    #[tokio::test]
    async fn a_closed_queue_still_gives_what_it_holds() {
        let queue = Queue::new();
        queue.push_message(b"last\n");
        queue.close();
        let mut bytes = Vec::new();
        assert!(queue.take(&mut bytes).is_some());
        assert!(queue.take(&mut bytes).is_none());
    }

    #[tokio::test]
    async fn messages_without_room_are_dropped_and_counted_once() {
        let queue = Queue::new();
        let message = [b'm'; 1024];
        for _ in 0..MESSAGES_ROOM / message.len() + 3 {
            queue.push_message(&message);
        }
        let mut bytes = Vec::new();
        assert_eq!(queue.take(&mut bytes), Some(Batch { of_lines: 0, dropped: 3, reopen: false }));
        assert_eq!(bytes.len(), MESSAGES_ROOM);
        queue.push_message(&message);
        assert_eq!(queue.take(&mut bytes), Some(Batch { of_lines: 0, dropped: 0, reopen: false }));
    }

    #[tokio::test]
    async fn the_report_of_dropped_messages_needs_no_room() {
        let queue = Queue::new();
        let message = [b'm'; MESSAGES_ROOM];
        queue.push_message(&message);
        queue.push_message(&message);
        let mut bytes = Vec::new();
        assert_eq!(queue.take(&mut bytes), Some(Batch { of_lines: 0, dropped: 1, reopen: false }));
        queue.push_message(&message);
        queue.push_report(b"1 was dropped");
        assert_eq!(queue.take(&mut bytes), Some(Batch { of_lines: 0, dropped: 0, reopen: false }));
        assert!(bytes.ends_with(b"m1 was dropped"));
    }

    #[tokio::test]
    async fn lines_wait_until_what_is_before_them_is_written() {
        let queue = Queue::new();
        let lines = [b'\n'; 1024];
        push_everything(&queue, LINES_ROOM / lines.len(), &lines).await;
        let mut waiting = std::pin::pin!(queue.push_lines(&lines));
        let mut bytes = Vec::new();
        assert!(poll_once(waiting.as_mut()).is_pending());
        let batch = queue.take(&mut bytes).unwrap();
        assert!(poll_once(waiting.as_mut()).is_pending(), "taken is not written");
        queue.push_message(b"there is room for messages\n");
        queue.written(&batch);
        waiting.await;
    }

    #[tokio::test]
    async fn lines_longer_than_the_room_pass_alone() {
        let queue = Queue::new();
        let lines = vec![b'\n'; LINES_ROOM + 1];
        queue.push_lines(&lines).await;
        let mut bytes = Vec::new();
        let batch = queue.take(&mut bytes).unwrap();
        assert_eq!(batch.of_lines, LINES_ROOM);
        queue.written(&batch);
        queue.push_lines(&lines).await;
    }

    #[tokio::test]
    async fn flushed_means_written() {
        let queue = Queue::new();
        queue.flushed().await;
        queue.push_message(b"message\n");
        assert!(poll_once(std::pin::pin!(queue.flushed())).is_pending());
        let mut bytes = Vec::new();
        queue.take(&mut bytes).unwrap();
        assert!(poll_once(std::pin::pin!(queue.flushed())).is_pending());
        queue.close();
        queue.take(&mut bytes);
        let flushed = tokio::time::timeout(Duration::from_secs(10), queue.flushed()).await;
        assert_eq!(flushed, Ok(()));
    }

    fn left(bytes: &[u8], dropped: u64) -> Option<Left> {
        Some(Left { bytes: bytes.to_owned(), dropped })
    }

    #[tokio::test]
    async fn what_is_left_of_a_held_queue_comes_first_in_the_next() {
        let queue = Queue::new();
        queue.push_lines(b"line\n").await;
        let mut bytes = Vec::new();
        let batch = queue.take(&mut bytes).unwrap();
        queue.push_message(b"message\n");
        queue.hold();
        assert_eq!(queue.left(None), None, "a batch is being written");
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                queue.pause(b"ne\n");
                queue.written(&batch);
                queue.take(&mut bytes)
            });
            while queue.left(None).is_none() {
                std::thread::yield_now();
            }
            let words = tempfile::tempfile().unwrap();
            assert_eq!(queue.left(Some(&words)), left(b"ne\nmessage\n", 0));
            queue.push_message(b"last words\n");
            assert_eq!(words.metadata().unwrap().len(), 11);
            assert!(!writer.is_finished());
            queue.go_on();
            assert!(writer.join().unwrap().is_some());
        });
        assert_eq!(bytes, b"message\nlast words\n", "it goes on");

        let next = Queue::new();
        next.push_message(b"new\n");
        next.put_back(Left { bytes: vec![b'x'; LINES_ROOM + 1], dropped: 3 });
        assert!(!next.try_push_lines(b"line\n"));
        let batch = next.take(&mut bytes).unwrap();
        assert_eq!((bytes.len(), batch.dropped), (LINES_ROOM + 1 + 4, 3));
        next.written(&batch);
        assert!(next.try_push_lines(&[b'\n'; LINES_ROOM]) && !next.try_push_lines(b"\n"));
    }

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
