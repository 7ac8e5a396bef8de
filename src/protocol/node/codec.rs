//! The lines of one Node channel: which bytes make a message, and which descriptor goes with it on its way out.
//!
//! It reads and writes no socket, and does not know what the messages mean.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use thiserror::Error;

use super::message::{FromNode, ToNode};

/// The longest line that a worker may send, in bytes without its line feed.
pub const MAX_LINE: usize = 16 * 1024 * 1024;

/// How much memory, in bytes, the messages to one worker that does not read may take.
pub const MAX_QUEUED: usize = 16 * 1024 * 1024;

/// How much memory is kept for the next line, in bytes.
const KEPT: usize = 64 * 1024;

/// What a worker sent is not Node's protocol: nothing after it can be trusted.
#[derive(Debug, Error)]
pub enum Fault {
    /// The line is longer than [`MAX_LINE`].
    #[error("the worker sent a message longer than {} MiB; send it in parts", MAX_LINE / (1024 * 1024))]
    TooLong,
    /// The line is no text.
    #[error("the worker sent a line that is not UTF-8: {0}")]
    NotUtf8(#[source] std::str::Utf8Error),
    /// The line is no JSON value.
    #[error("the worker sent a line that is not JSON: {0}")]
    NotJson(#[source] serde_json::Error),
    /// One of the cluster module's messages has not the fields that it must have.
    #[error("the worker sent a malformed {message:?} message: {error}")]
    Malformed {
        /// What it claims to be.
        message: &'static str,
        /// What is wrong with it.
        #[source]
        error: serde_json::Error,
    },
}

/// Turns what is read from a channel into messages. Whatever descriptors came with it are not its concern.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The beginning of a line whose end has not come.
    partial: Vec<u8>,
}

impl Decoder {
    /// Adds to `messages` those that end in `chunk`: a line need not begin or end where a read does.
    ///
    /// # Errors
    /// The first [`Fault`] of the worker; messages before it have been added. The decoder is of no use then.
    pub fn feed(&mut self, chunk: &[u8], messages: &mut Vec<FromNode>) -> Result<(), Fault> {
        let mut rest = chunk;
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            let (line, after) = (&rest[..end], &rest[end + 1..]);
            messages.push(self.end_line(line)?);
            rest = after;
        }
        fits(self.partial.len() + rest.len())?;
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// How many bytes wait for the end of their line.
    pub fn buffered(&self) -> usize {
        self.partial.len()
    }

    /// These bytes. A decoder that is fed with them is as far as this one.
    pub fn partial(&self) -> &[u8] {
        &self.partial
    }

    /// The message of the line that ends with `tail`.
    fn end_line(&mut self, tail: &[u8]) -> Result<FromNode, Fault> {
        fits(self.partial.len() + tail.len())?;
        let message = if self.partial.is_empty() {
            FromNode::read(tail)?
        } else {
            self.partial.extend_from_slice(tail);
            FromNode::read(&self.partial)?
        };
        self.partial.clear();
        self.partial.shrink_to(KEPT);
        Ok(message)
    }
}

fn fits(len: usize) -> Result<(), Fault> {
    if len > MAX_LINE { Err(Fault::TooLong) } else { Ok(()) }
}

/// The worker does not read: what waits for it takes as much memory as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "the worker does not read its messages; {} MiB of them are queued",
    MAX_QUEUED / (1024 * 1024)
)]
pub struct Full;

/// The messages on their way to one worker, in order.
///
/// `F` is the descriptor, as in [`ToNode`]. One sendmsg(2) takes what [`Outgoing::front`] gives, at most a line
/// and at most one descriptor: Node pairs a read with one descriptor only, and a line with the descriptor that
/// was there when it came.
#[derive(Debug)]
pub struct Outgoing<F = OwnedFd> {
    lines: VecDeque<Line<F>>,
    /// How much of the first line has been written.
    written: usize,
    /// The memory that all of them take, in bytes.
    size: usize,
}

#[derive(Debug)]
struct Line<F> {
    bytes: Vec<u8>,
    /// Gone with the first byte.
    fd: Option<F>,
}

impl<F> Default for Outgoing<F> {
    fn default() -> Self {
        Self { lines: VecDeque::new(), written: 0, size: 0 }
    }
}

impl<F> Outgoing<F> {
    /// Adds a message after all others.
    ///
    /// # Errors
    /// [`Full`]; the message is dropped, and its descriptor with it.
    pub fn push(&mut self, message: ToNode<'_, F>) -> Result<(), Full> {
        let (bytes, fd) = message.into_line();
        let line = Line { bytes, fd };
        let size = self.size + line.size();
        if size > MAX_QUEUED {
            return Err(Full);
        }
        self.size = size;
        self.lines.push_back(line);
        Ok(())
    }

    /// Puts what was sent and taken back before all that has not been sent, in its order. Nothing of it counts
    /// against the bound: it was let in once.
    pub fn put_back(&mut self, pieces: impl DoubleEndedIterator<Item = (Vec<u8>, Option<F>)>) {
        // What is left of a line that was sent in part comes after its beginning, which is not there any more.
        if let Some(line) = self.lines.front_mut().filter(|_| self.written > 0) {
            self.size -= line.size();
            line.bytes.drain(..self.written);
            self.size += line.size();
            self.written = 0;
        }
        for (bytes, fd) in pieces.rev() {
            let line = Line { bytes, fd };
            self.size += line.size();
            self.lines.push_front(line);
        }
    }

    /// Removes the lines with a descriptor of which nothing has been sent and that `wanted` knows; what it knows of them is
    /// returned.
    pub fn take_unsent<T>(&mut self, wanted: impl Fn(&[u8]) -> Option<T>) -> Vec<T> {
        let (mut taken, size) = (Vec::new(), &mut self.size);
        self.lines.retain(|line| {
            // One that was begun has none any more.
            let known = line.fd.as_ref().and_then(|_| wanted(&line.bytes));
            let Some(known) = known else { return true };
            *size -= line.size();
            taken.push(known);
            false
        });
        taken
    }

    /// What the next sendmsg(2) has to carry, if there is anything: bytes, and the descriptor beside them.
    pub fn front(&self) -> Option<(&[u8], Option<&F>)> {
        let line = self.lines.front()?;
        Some((&line.bytes[self.written..], line.fd.as_ref()))
    }

    /// All that is to be sent, in order, as [`Outgoing::put_back`] takes it: of the first line, the rest.
    pub fn pieces(&self) -> impl Iterator<Item = (&[u8], Option<&F>)> {
        let written = std::iter::once(self.written).chain(std::iter::repeat(0));
        self.lines.iter().zip(written).map(|(line, written)| (&line.bytes[written..], line.fd.as_ref()))
    }

    /// The first `len` bytes of [`Outgoing::front`] have been sent, and with the first of them the descriptor,
    /// which is dropped.
    pub fn sent(&mut self, len: usize) {
        let Some(line) = self.lines.front_mut().filter(|_| len > 0) else { return };
        line.fd = None;
        self.written += len;
        if self.written >= line.bytes.len() {
            self.size -= line.size();
            self.lines.pop_front();
            self.written = 0;
        }
    }

    /// Everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl<F> Line<F> {
    fn size(&self) -> usize {
        self.bytes.len() + size_of::<Self>()
    }
}

#[cfg(test)]
mod tests;
