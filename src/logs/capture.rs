//! Reads the workers' pipes and passes their lines on.
//!
//! It does not start workers, and does not wait for them: a pipe may outlive its worker, in a grandchild's hands.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::last::{Feed, Kept, LastLines};
use super::open_pipes::{OpenPipe, Reader};
use super::queue::Queue;
use super::write::{Output, Route, Stream};
use crate::carry::{CarriedFd, StandStill};
use crate::ids::WorkerId;
use crate::tasks;

/// How much is read at once, in bytes.
const READ: usize = 16 * 1024;

/// The same, and the size of the pipe, for a worker that writes so much to a file that each read finds that much.
const READ_MUCH: usize = 256 * 1024;

/// What has come of a pipe before it is read.
#[derive(Debug, Default)]
pub(super) struct Begun {
    /// The start of a line.
    pub(super) partial: Vec<u8>,
    /// The last lines.
    pub(super) last: Kept,
}

/// What whoever reads a pipe has while it stands still.
#[derive(Debug)]
pub(super) struct Standing {
    /// The pipe; nothing if it is at its end.
    pub(super) pipe: Option<CarriedFd>,
    /// What has come of the line that is not complete yet.
    pub(super) partial: Vec<u8>,
    /// Whole lines that found no room in their queues yet.
    pub(super) waiting: Vec<(Arc<Queue>, Vec<u8>)>,
}

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
    pub(crate) fn capture(&self, worker: WorkerId, stream: Stream, pipe: OwnedFd) -> io::Result<LastLines> {
        self.read_on(worker, stream, (pipe, Begun::default()))
    }

    /// The same with a pipe of which some has come already.
    pub(super) fn read_on(
        &self,
        worker: WorkerId,
        stream: Stream,
        (pipe, begun): (OwnedFd, Begun),
    ) -> io::Result<LastLines> {
        let pipe = pipe::Receiver::from_owned_fd(pipe)?;
        let capturing = self.capturing();
        let routes = self.routes(worker.slot, stream, &begun.partial).map_err(io::Error::other)?;
        let (last, feed) = LastLines::with(begun.last);
        let bytes = Vec::with_capacity(READ);
        let capture = Capture { pipe, routes, last: Some(feed), bytes, ended: None };
        let (asks, asked) = mpsc::channel(1);
        let reading = tasks::spawn(async move {
            if let Err(error) = capture.run(asked).await {
                tracing::warn!(%worker, %error, "cannot read a worker's output any longer");
            }
            drop(capturing);
        });
        let reader = Some(Reader { task: reading.abort_handle(), asks });
        if self.pipes(stream).add(OpenPipe { worker, reader, last: last.watched() }) {
            tracing::warn!(%worker, "dropped the output of an earlier process: nobody reads it");
        }
        Ok(last)
    }
}

/// A pipe that is being read.
struct Capture {
    pipe: pipe::Receiver,
    routes: Vec<Route>,
    /// Until the pipe is at its end.
    last: Option<Feed>,
    bytes: Vec<u8>,
    /// How reading it has ended; what has come may yet be passed on.
    ended: Option<io::Result<()>>,
}

impl Capture {
    async fn run(mut self, mut asked: mpsc::Receiver<StandStill<Standing>>) -> io::Result<()> {
        loop {
            tokio::select! {
                biased;
                Some(asked) = asked.recv() => asked.with(self.standing()).await,
                ended = self.step() => {
                    if let Some(ended) = ended {
                        return ended;
                    }
                }
            }
        }
    }

    fn standing(&self) -> Standing {
        let waiting = self.routes.iter().filter(|route| !route.complete.is_empty());
        Standing {
            pipe: self.ended.is_none().then(|| CarriedFd::of(&self.pipe)),
            // It is the same in all of them: they have seen the same.
            partial: self.routes.first().map_or_else(Vec::new, |route| route.lines.partial().to_owned()),
            waiting: waiting
                .map(|route| (Arc::clone(&route.destination.queue), route.complete.clone()))
                .collect(),
        }
    }

    /// Passes on what has come, and reads on; tells how reading has ended when all is passed on. It may be given up at any
    /// point, and begun again: nothing is lost.
    async fn step(&mut self) -> Option<io::Result<()>> {
        for Route { destination, complete, .. } in &mut self.routes {
            if !complete.is_empty() {
                destination.pass(complete).await;
                complete.clear();
            }
        }
        if self.ended.is_some() {
            return self.ended.take();
        }
        self.bytes.clear();
        match self.pipe.read_buf(&mut self.bytes).await {
            Ok(0) => self.end(Ok(())),
            Ok(_) => self.cut(),
            Err(error) => self.end(Err(error)),
        }
        None
    }

    /// Cuts what was read into lines.
    fn cut(&mut self) {
        if let Some(last) = &self.last {
            last.push(&self.bytes);
        }
        for Route { lines, complete, .. } in &mut self.routes {
            lines.push(&self.bytes, complete);
        }
        let (is_full, may_drop) =
            (self.bytes.len() == self.bytes.capacity(), |route: &Route| route.destination.may_drop());
        if is_full && self.bytes.capacity() < READ_MUCH && self.routes.iter().any(may_drop) {
            self.bytes = Vec::with_capacity(READ_MUCH);
            // The user may have no more memory for pipes; this one stays as it is, then.
            let _ = rustix::pipe::fcntl_setpipe_size(&self.pipe, READ_MUCH);
        }
    }

    fn end(&mut self, how: io::Result<()>) {
        // Whoever waits for the last words need not wait until they are written.
        self.last = None;
        self.routes.iter_mut().for_each(|route| route.lines.end(&mut route.complete));
        self.ended = Some(how);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
    use std::thread;
    use std::time::Duration;

    use tokio::time::Instant;

    use super::*;
    use crate::ids::Slot;
    use crate::logs::lines::LONGEST;
    use crate::logs::open_pipes::MOST;
    use crate::logs::write::Unwritten;

    fn output() -> (Output, PipeReader, PipeReader) {
        let ((stdout, out), (stderr, err)) = (pipe().unwrap(), pipe().unwrap());
        (Output::start(out.into(), err.into()).unwrap(), stdout, stderr)
    }

    fn id(slot: u32) -> WorkerId {
        WorkerId { slot: Slot(slot), launch: 7 }
    }

    fn worker(output: &Output, slot: u32, stream: Stream) -> PipeWriter {
        let (reader, writer) = pipe().unwrap();
        output.capture(id(slot), stream, reader.into()).unwrap();
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
        let last = output.capture(id(1), Stream::Stderr, reader.into()).unwrap();
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
        assert!(output.capture(id(1), Stream::Stdout, file.into()).is_err());
        assert_eq!(output.finish(Instant::now() + Duration::from_secs(10)).await, Ok(()));
    }
}
