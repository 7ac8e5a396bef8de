//! Reads the workers' pipes and passes their lines on.
//!
//! It does not start workers, and does not wait for them: a pipe may outlive its worker, in a grandchild's hands.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::lines::Lines;
use super::queue::Queue;
use super::write::{Output, Stream};
use crate::ids::Slot;

/// How much is read at once, in bytes.
const READ: usize = 16 * 1024;

impl Output {
    /// Passes what a worker writes into `pipe` on to `stream`, line by line, until the pipe's last writer closes
    /// it. While the destination has no room nothing is read, so the worker blocks as if it wrote there itself.
    ///
    /// # Errors
    /// `pipe` is not the reading end of a pipe, or cannot be watched (fcntl(2), epoll_ctl(2)).
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn capture(&self, slot: Slot, stream: Stream, pipe: OwnedFd) -> io::Result<()> {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        let capturing = self.capturing();
        let destination = self.destination(stream).clone();
        tokio::spawn(async move {
            let lines = Lines::new(destination.look.prefix(slot));
            if let Err(error) = pass_on(pipe, lines, &destination.queue).await {
                tracing::warn!(worker = %slot, %error, "cannot read a worker's output any more");
            }
            drop(capturing);
        });
        Ok(())
    }
}

async fn pass_on(mut pipe: pipe::Receiver, mut lines: Lines, queue: &Queue) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(READ);
    let mut complete = Vec::new();
    let result = loop {
        bytes.clear();
        match pipe.read_buf(&mut bytes).await {
            Ok(0) => break Ok(()),
            Ok(_) => lines.push(&bytes, &mut complete),
            Err(error) => break Err(error),
        }
        if !complete.is_empty() {
            queue.push_lines(&complete).await;
            complete.clear();
        }
    };
    lines.end(&mut complete);
    if !complete.is_empty() {
        queue.push_lines(&complete).await;
    }
    result
}
