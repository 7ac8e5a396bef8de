//! Bytes on their way to one destination: bounded, in order, with room of their own for clusterd's messages.
//!
//! It writes nothing. Workers' lines wait for room, so that a slow reader slows the workers down as if they wrote
//! to it themselves. Messages never wait: one that finds no room is dropped and counted.

use std::mem;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, Semaphore};

/// How many bytes of workers' lines may be on their way.
const LINES_ROOM: usize = 256 * 1024;

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
}

impl Queue {
    pub(super) fn new() -> Self {
        Self {
            pending: Mutex::default(),
            filled: Condvar::new(),
            room: Semaphore::new(LINES_ROOM),
            idle: Notify::new(),
        }
    }

    /// Queues whole lines of a worker, as soon as there is room; who waits longest is first.
    pub(super) async fn push_lines(&self, lines: &[u8]) {
        // More than the whole room goes when nothing else is on its way.
        let size = lines.len().min(LINES_ROOM);
        let permits = u32::try_from(size).expect("the room fits");
        let permit = self.room.acquire_many(permits).await.expect("never closed");
        permit.forget();
        let mut pending = self.lock();
        pending.bytes.extend_from_slice(lines);
        pending.of_lines += size;
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

    /// Blocks until there is something to write, and swaps it into `bytes`, whose former content is discarded.
    /// `None` once the queue is closed and empty.
    pub(super) fn take(&self, bytes: &mut Vec<u8>) -> Option<Batch> {
        bytes.clear();
        let mut pending = self.lock();
        pending.writing = false;
        while pending.bytes.is_empty() {
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
