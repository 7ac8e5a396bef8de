//! [`Output`]: the program's stdout and stderr, each written by a thread of its own.
//!
//! It knows neither workers nor formats. A destination whose reader is slow or stuck blocks its writer thread
//! and nobody else.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use tokio::sync::watch;
use tokio::time::Instant;

use super::look::Look;
use super::messages;
use super::open_pipes::OpenPipes;
use super::queue::Queue;
use crate::sys::signals;

/// One of the two standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

/// The program's stdout and stderr. Clones write to the same; with the last one the writer threads end.
#[derive(Clone, Debug)]
pub struct Output {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    stdout: Destination,
    stderr: Destination,
    /// How many pipes of workers are being read.
    captures: watch::Sender<usize>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stdout.queue.close();
        self.stderr.queue.close();
    }
}

/// One stream's queue, how lines look at its end, and the pipes from which they come.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) queue: Arc<Queue>,
    pub(super) look: Look,
    pub(super) pipes: Arc<OpenPipes>,
}

/// The output could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// A standard stream could not be duplicated.
    #[error("cannot duplicate a standard stream: {0}")]
    Duplicate(#[source] io::Error),
    /// A standard stream could not be examined.
    #[error("cannot examine a standard stream: {0}")]
    Examine(#[source] io::Error),
    /// A writer thread could not be started.
    #[error("cannot start a thread that writes logs: {0}")]
    Thread(#[source] io::Error),
}

/// Not everything was written in time, because a reader of the output is slow or stuck, or because somebody still
/// holds a worker's pipe.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "some output was not written: its reader is too slow, or a process that a worker left behind holds its pipe"
)]
pub struct Unwritten;

impl Output {
    /// Over the program's own standard streams.
    ///
    /// # Errors
    /// When a descriptor or a thread is not to be had.
    pub fn stdio() -> Result<Self, OutputError> {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let stderr = io::stderr().as_fd().try_clone_to_owned();
        Self::start(stdout.map_err(OutputError::Duplicate)?, stderr.map_err(OutputError::Duplicate)?)
    }

    /// Over these two, which stay in the mode they are in: it is shared with whoever else holds them. Where both
    /// are the same file, one thread writes for both, so that no line is torn.
    ///
    /// # Errors
    /// When a descriptor cannot be examined or a thread cannot be started.
    pub fn start(stdout: OwnedFd, stderr: OwnedFd) -> Result<Self, OutputError> {
        let same = same_file(&stdout, &stderr).map_err(OutputError::Examine)?;
        let stdout = Destination::start(stdout)?;
        let stderr = if same { stdout.clone() } else { Destination::start(stderr)? };
        let shared = Shared { stdout, stderr, captures: watch::Sender::new(0) };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Whether stdout is a terminal that may show colours.
    pub(crate) fn has_colours(&self) -> bool {
        self.shared.stdout.look == Look::Terminal { colour: true }
    }

    /// Waits until all pipes of workers are at their end and everything is written, but no longer than until
    /// `deadline`. The output can still be used afterwards.
    ///
    /// # Errors
    /// [`Unwritten`] when the deadline came first.
    pub async fn finish(&self, deadline: Instant) -> Result<(), Unwritten> {
        let mut captures = self.shared.captures.subscribe();
        let all = async {
            let _ = captures.wait_for(|open| *open == 0).await;
            self.shared.stdout.queue.flushed().await;
            self.shared.stderr.queue.flushed().await;
        };
        tokio::time::timeout_at(deadline, all).await.map_err(|_| Unwritten)
    }

    pub(super) fn destination(&self, stream: Stream) -> &Destination {
        match stream {
            Stream::Stdout => &self.shared.stdout,
            Stream::Stderr => &self.shared.stderr,
        }
    }

    /// Counts a pipe as being read until the answer is dropped.
    pub(super) fn capturing(&self) -> Capturing {
        self.shared.captures.send_modify(|open| *open += 1);
        Capturing { output: self.clone() }
    }
}

/// A worker's pipe that is being read.
#[derive(Debug)]
pub(super) struct Capturing {
    output: Output,
}

impl Drop for Capturing {
    fn drop(&mut self) {
        self.output.shared.captures.send_modify(|open| *open -= 1);
    }
}

impl Destination {
    fn start(fd: OwnedFd) -> Result<Self, OutputError> {
        let (queue, look) = (Arc::new(Queue::new()), Look::of(&fd));
        let destination = Self { queue, look, pipes: Arc::default() };
        let queue = destination.queue.clone();
        thread::Builder::new()
            .name("clusterd-log".to_owned())
            .spawn(move || {
                // With a handler for SIGTTOU, which would otherwise stop the process, a write would be begun again
                // and again.
                let _ = signals::write_to_any_terminal();
                write_until_closed(&queue, &fd);
            })
            .map_err(OutputError::Thread)?;
        Ok(destination)
    }
}

fn write_until_closed(queue: &Queue, destination: &OwnedFd) {
    let mut bytes = Vec::new();
    while let Some(batch) = queue.take(&mut bytes) {
        // What cannot be written is lost: there is nowhere to say so, and the workers must not stop for it. The
        // next batch is tried again, for a named pipe may get a new reader and a full disk room.
        let _ = write_all(destination, &bytes);
        queue.written(&batch);
        if batch.dropped > 0 {
            tracing::warn!(
                target: messages::REPORT_OF_DROPPED,
                dropped = batch.dropped,
                "messages dropped: the reader of this output was too slow"
            );
        }
    }
}

/// Writes all of `bytes`, however long it takes. SIGPIPE must be ignored, as the Rust runtime has it.
fn write_all(destination: &OwnedFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(destination, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Another holder of the same open file, a worker's runtime for one, made it non-blocking.
            Err(Errno::AGAIN) => wait_for_room(destination)?,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn wait_for_room(destination: &OwnedFd) -> io::Result<()> {
    let mut fds = [PollFd::new(destination, PollFlags::OUT)];
    match rustix::event::poll(&mut fds, None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn same_file(a: &OwnedFd, b: &OwnedFd) -> io::Result<bool> {
    let (a, b) = (rustix::fs::fstat(a)?, rustix::fs::fstat(b)?);
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, pipe};
    use std::time::Duration;

    use super::*;

    /// An output over two pipes.
    fn output() -> (Output, PipeReader, PipeReader) {
        let ((stdout, out), (stderr, err)) = (pipe().unwrap(), pipe().unwrap());
        (Output::start(out.into(), err.into()).unwrap(), stdout, stderr)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    fn at_once() -> Instant {
        Instant::now() + Duration::from_millis(20)
    }

    async fn fill(queue: &Queue) {
        let lines = [b'\n'; 16 * 1024];
        while tokio::time::timeout(Duration::from_millis(50), queue.push_lines(&lines)).await.is_ok() {}
    }

    #[tokio::test]
    async fn the_last_handle_ends_the_writers_when_all_is_written() {
        let (output, mut stdout, _stderr) = output();
        output.destination(Stream::Stdout).queue.push_lines(b"line\n").await;
        drop(output);
        let mut text = String::new();
        stdout.read_to_string(&mut text).unwrap();
        assert_eq!(text, "line\n");
    }

    #[tokio::test]
    async fn a_stuck_stdout_does_not_keep_messages_from_stderr() {
        let (output, _stdout, mut stderr) = output();
        fill(&output.destination(Stream::Stdout).queue).await;
        output.destination(Stream::Stderr).queue.push_message(b"message\n");
        let mut text = [0; 8];
        stderr.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"message\n");
    }

    #[tokio::test]
    async fn finishing_is_bounded_when_a_reader_is_stuck() {
        let (output, mut stdout, _stderr) = output();
        assert_eq!(output.finish(soon()).await, Ok(()));
        fill(&output.destination(Stream::Stdout).queue).await;
        assert_eq!(output.finish(at_once()).await, Err(Unwritten));
        std::thread::spawn(move || io::copy(&mut stdout, &mut io::sink()));
        assert_eq!(output.finish(soon()).await, Ok(()));
    }

    #[tokio::test]
    async fn output_without_a_reader_is_discarded() {
        let (output, stdout, _stderr) = output();
        drop(stdout);
        let lines = vec![b'\n'; 1024 * 1024];
        for _ in 0..3 {
            output.destination(Stream::Stdout).queue.push_lines(&lines).await;
            assert_eq!(output.finish(soon()).await, Ok(()));
        }
    }

    #[tokio::test]
    async fn finishing_waits_for_pipes_that_are_still_read() {
        let (output, _stdout, _stderr) = output();
        let capturing = output.capturing();
        assert_eq!(output.finish(at_once()).await, Err(Unwritten));
        drop(capturing);
        assert_eq!(output.finish(soon()).await, Ok(()));
    }

    #[tokio::test]
    async fn a_destination_in_non_blocking_mode_gets_everything() {
        let (mut stdout, out) = pipe().unwrap();
        let (_stderr, err) = pipe().unwrap();
        rustix::io::ioctl_fionbio(&out, true).unwrap();
        let output = Output::start(out.into(), err.into()).unwrap();
        let lines = vec![b'\n'; 1024 * 1024];
        output.destination(Stream::Stdout).queue.push_lines(&lines).await;
        drop(output);
        let mut read = Vec::new();
        stdout.read_to_end(&mut read).unwrap();
        assert_eq!(read.len(), lines.len());
    }

    #[test]
    fn one_file_has_one_writer() {
        let both = |stdout: PipeWriter, stderr: PipeWriter| {
            let output = Output::start(stdout.into(), stderr.into()).unwrap();
            Arc::ptr_eq(&output.shared.stdout.queue, &output.shared.stderr.queue)
        };
        let ((_a, first), (_b, second)) = (pipe().unwrap(), pipe().unwrap());
        let again = first.try_clone().unwrap();
        assert!(both(first.try_clone().unwrap(), again));
        assert!(!both(first, second));
    }
}
