//! Reads the workers' pipes and passes their lines on.
//!
//! It does not start workers, and does not wait for them: a pipe may outlive its worker, in a grandchild's hands.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::last::{Feed, LastLines};
use super::write::{Destination, Output, Route, Stream};
use crate::ids::Slot;

/// How much is read at once, in bytes.
const READ: usize = 16 * 1024;

/// The same, and the size of the pipe, for a worker that writes so much to a file that each read finds that much.
const READ_MUCH: usize = 256 * 1024;

impl Output {
    /// Passes what a worker writes into `pipe` on to where `stream` goes, line by line, until the pipe's last writer closes
    /// it. While a standard stream has no room nothing is read, so the worker blocks as if it wrote there itself.
    ///
    /// The answer keeps the last lines that came. Of a worker that was started very often meanwhile, the pipe of an
    /// earlier launch is given up.
    ///
    /// # Errors
    /// `pipe` is not the reading end of a pipe, or cannot be watched (fcntl(2), epoll_ctl(2)).
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn capture(&self, slot: Slot, stream: Stream, pipe: OwnedFd) -> io::Result<LastLines> {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        let capturing = self.capturing();
        let routes = self.routes(slot, stream).map_err(io::Error::other)?;
        let (last, feed) = LastLines::new();
        let reading = tokio::spawn(async move {
            if let Err(error) = pass_on(pipe, routes, feed).await {
                tracing::warn!(worker = %slot, %error, "cannot read a worker's output any longer");
            }
            drop(capturing);
        });
        if self.pipes(stream).add(slot, reading.abort_handle()) {
            tracing::warn!(worker = %slot, "dropped the output of an earlier process: nobody reads it");
        }
        Ok(last)
    }
}

async fn pass_on(mut pipe: pipe::Receiver, mut routes: Vec<Route>, last: Feed) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(READ);
    let mut complete = Vec::new();
    let result = loop {
        bytes.clear();
        match pipe.read_buf(&mut bytes).await {
            Ok(0) => break Ok(()),
            Ok(_) => last.push(&bytes),
            Err(error) => break Err(error),
        }
        for Route { destination, lines } in &mut routes {
            lines.push(&bytes, &mut complete);
            pass(destination, &mut complete).await;
        }
        let is_full = bytes.len() == bytes.capacity();
        if is_full && bytes.capacity() < READ_MUCH && routes.iter().any(|route| route.destination.may_drop())
        {
            bytes = Vec::with_capacity(READ_MUCH);
            // The user may have no more memory for pipes; this one stays as it is, then.
            let _ = rustix::pipe::fcntl_setpipe_size(&pipe, READ_MUCH);
        }
    };
    // Whoever waits for the last words need not wait until they are written.
    drop(last);
    for Route { destination, lines } in &mut routes {
        lines.end(&mut complete);
        pass(destination, &mut complete).await;
    }
    result
}

async fn pass(destination: &Destination, complete: &mut Vec<u8>) {
    if !complete.is_empty() {
        destination.pass(complete).await;
        complete.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
    use std::thread;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::logs::lines::LONGEST;
    use crate::logs::open_pipes::MOST;
    use crate::logs::write::Unwritten;

    fn output() -> (Output, PipeReader, PipeReader) {
        let ((stdout, out), (stderr, err)) = (pipe().unwrap(), pipe().unwrap());
        (Output::start(out.into(), err.into()).unwrap(), stdout, stderr)
    }

    fn worker(output: &Output, slot: u32, stream: Stream) -> PipeWriter {
        let (reader, writer) = pipe().unwrap();
        output.capture(Slot(slot), stream, reader.into()).unwrap();
        writer
    }

    /// Reads on a thread of its own until the output is gone.
    fn read_all(mut stdout: PipeReader) -> thread::JoinHandle<Vec<u8>> {
        thread::spawn(move || {
            let mut all = Vec::new();
            stdout.read_to_end(&mut all).unwrap();
            all
        })
    }

    /// Ends the output and says what came out of it.
    async fn finish(output: Output, reading: thread::JoinHandle<Vec<u8>>) -> Vec<u8> {
        let deadline = Instant::now() + Duration::from_secs(20);
        assert_eq!(output.finish(deadline).await, Ok(()));
        drop(output);
        reading.join().unwrap()
    }

    #[tokio::test]
    async fn while_nobody_reads_the_pipes_of_a_worker_that_is_started_again_and_again_are_bounded() {
        let (output, stdout, _stderr) = output();
        // It fills the output's own pipe, the queue and the worker's pipe.
        let mut first = worker(&output, 1, Stream::Stdout);
        rustix::io::ioctl_fionbio(&first, true).unwrap();
        let line = [b'x'; 4095].iter().chain(b"\n").copied().collect::<Vec<_>>();
        let is_full = |first: &mut PipeWriter| first.write(&line).is_err();
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut times = 0;
        while times < 50 {
            assert!(Instant::now() < deadline, "there is room without end");
            times = if is_full(&mut first) { times + 1 } else { 0 };
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let mut others: Vec<_> = (0..MOST).map(|_| worker(&output, 1, Stream::Stdout)).collect();
        // The first has nobody who reads any more, and the others have.
        while !matches!(first.write(b"x\n"), Err(error) if error.kind() == io::ErrorKind::BrokenPipe) {
            assert!(Instant::now() < deadline, "it was not given up");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let reading = read_all(stdout);
        others.iter_mut().for_each(|other| other.write_all(b"last\n").unwrap());
        drop((others, first));
        let all = finish(output, reading).await;
        assert_eq!(all.windows(5).filter(|&line| line == b"last\n").count(), MOST);
    }

    #[tokio::test]
    async fn what_a_worker_writes_goes_to_the_same_stream_unchanged() {
        let (output, stdout, stderr) = output();
        worker(&output, 1, Stream::Stdout).write_all(b"\xff\xfe binary\0\nno newline").unwrap();
        worker(&output, 1, Stream::Stderr).write_all(b"oh\r\n").unwrap();
        let (stdout, stderr) = (read_all(stdout), read_all(stderr));
        let out = finish(output, stdout).await;
        assert_eq!(out, b"\xff\xfe binary\0\nno newline\n");
        assert_eq!(stderr.join().unwrap(), b"oh\r\n");
    }

    #[tokio::test]
    async fn the_last_words_are_kept() {
        let (output, _stdout, _stderr) = output();
        let (reader, mut writer) = pipe().unwrap();
        let last = output.capture(Slot(1), Stream::Stderr, reader.into()).unwrap();
        writer.write_all(b"starting\nError: no such table").unwrap();
        drop(writer);
        tokio::time::timeout(Duration::from_secs(10), last.ended()).await.unwrap();
        assert_eq!(last.lines(), ["starting", "Error: no such table"]);
    }

    #[tokio::test]
    async fn lines_of_different_workers_never_mix() {
        let (output, stdout, _stderr) = output();
        let reading = read_all(stdout);
        for slot in 1..=8u8 {
            let mut pipe = worker(&output, slot.into(), Stream::Stdout);
            thread::spawn(move || {
                let mut text = Vec::new();
                for line in 0..2000usize {
                    text.extend(vec![b'a' + slot; line * 7 % 300]);
                    text.push(b'\n');
                }
                for part in text.chunks(97 + usize::from(slot)) {
                    pipe.write_all(part).unwrap();
                }
            });
        }
        let all = finish(output, reading).await;
        let mut lines = 0;
        for line in all.split_inclusive(|&byte| byte == b'\n') {
            assert!(line[..line.len() - 1].windows(2).all(|pair| pair[0] == pair[1]));
            lines += 1;
        }
        assert_eq!(lines, 8 * 2000);
    }

    #[tokio::test]
    async fn a_long_line_comes_in_pieces_that_end_with_newlines() {
        let (output, stdout, _stderr) = output();
        let reading = read_all(stdout);
        let mut pipe = worker(&output, 1, Stream::Stdout);
        thread::spawn(move || pipe.write_all(&vec![b'x'; 3 * LONGEST + 1]).unwrap());
        let all = finish(output, reading).await;
        let lengths: Vec<_> = all.split(|&byte| byte == b'\n').map(<[u8]>::len).collect();
        assert_eq!(lengths, [LONGEST, LONGEST, LONGEST, 1, 0]);
    }

    #[tokio::test]
    async fn a_blocked_reader_slows_the_worker_down_and_loses_nothing() {
        const TOTAL: usize = 4 * 1024 * 1024;
        let (output, stdout, mut stderr) = output();
        let mut pipe = worker(&output, 1, Stream::Stdout);
        let writing = thread::spawn(move || pipe.write_all(&b"0123456789abcde\n".repeat(TOTAL / 16)));
        let unfinished = output.finish(Instant::now() + Duration::from_millis(200)).await;
        assert_eq!(unfinished, Err(Unwritten));
        assert!(!writing.is_finished(), "the worker must wait");
        output.destination(Stream::Stderr).queue.push_message(b"a message\n");
        let mut message = [0; 10];
        stderr.read_exact(&mut message).unwrap();
        let all = finish(output, read_all(stdout)).await;
        writing.join().unwrap().unwrap();
        assert_eq!(all.len(), TOTAL);
    }

    #[tokio::test]
    async fn a_grandchild_may_keep_the_pipe_open() {
        let (output, stdout, _stderr) = output();
        let pipe = worker(&output, 1, Stream::Stdout);
        let mut grandchild = pipe.try_clone().unwrap();
        drop(pipe);
        let unfinished = output.finish(Instant::now() + Duration::from_millis(20)).await;
        assert_eq!(unfinished, Err(Unwritten));
        grandchild.write_all(b"still here\n").unwrap();
        drop(grandchild);
        assert_eq!(finish(output, read_all(stdout)).await, b"still here\n");
    }

    #[tokio::test]
    async fn only_a_pipe_can_be_captured() {
        let (output, _stdout, _stderr) = output();
        let file = tempfile::tempfile().unwrap();
        assert!(output.capture(Slot(1), Stream::Stdout, file.into()).is_err());
        assert_eq!(output.finish(Instant::now() + Duration::from_secs(10)).await, Ok(()));
    }
}
