//! Bytes on their way to one destination: bounded, in order, with room of their own for clusterd's messages.
//!
//! It writes nothing. Workers' lines wait for room, so that a slow reader slows the workers down as if they wrote
//! to it themselves. Messages never wait: one that finds no room is dropped and counted.

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
        pending.bytes.extend_from_slice(message);
        pending.of_messages += message.len();
        self.filled.notify_one();
    }

    /// Queues the message that tells how many were dropped, whether there is room or not: it is the only one that
    /// knows. Only who takes batches may push it, one a batch, so that it stays bounded.
    pub(super) fn push_report(&self, report: &[u8]) {
        self.lock().bytes.extend_from_slice(report);
        self.filled.notify_one();
    }

    /// Blocks until there is something to write, and swaps it into `bytes`, whose former content is discarded.
    /// `None` once the queue is closed and empty.
    pub(super) fn take(&self, bytes: &mut Vec<u8>) -> Option<Batch> {
        bytes.clear();
        let mut pending = self.lock();
        pending.writing = false;
        while pending.bytes.is_empty() && !pending.reopen {
            self.idle.notify_waiters();
            if pending.closed {
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

    fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> std::task::Poll<F::Output> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }
}
