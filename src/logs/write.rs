//! [`Output`]: the program's stdout and stderr and the log files, each written by a thread of its own.
//!
//! It reads nothing. A destination that is slow or stuck blocks its writer thread and nobody else: a standard stream
//! slows workers down as if they wrote there themselves, a file costs their lines.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use prometheus::{IntCounter, IntCounterVec};
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::compress::Compressor;
use super::console::{Console, Label, Turn};
use super::drops::{Drops, PATIENCE, lines_in};
use super::file::{FileTraits, LogFile};
use super::ids::WorkerIds;
use super::lines::{LineLook, LineSplitter};
use super::look::Look;
use super::messages;
use super::open_pipes::OpenPipes;
use super::plan::{LogPlan, Place};
use super::queue::Queue;
use super::snapshot::PlaceSnapshot;
use crate::ids::Slot;
use crate::sys::signals;

/// One of the two standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stream {
    /// Descriptor 1.
    Stdout,
    /// Descriptor 2.
    Stderr,
}

impl Stream {
    /// What PM2 calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "out",
            Stream::Stderr => "err",
        }
    }
}

/// Where everything is written: the program's standard streams, and files. Clones write to the same; with the last one
/// the writer threads end.
#[derive(Clone, Debug)]
pub struct Output {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    plan: LogPlan,
    /// Before each line on the standard streams, if others write to them, too.
    label: Option<Label>,
    /// Turns at streams to which nobody writes here; the next image of clusterd is given them all the same.
    _turns: [Option<Turn>; 2],
    stdout: Destination,
    stderr: Destination,
    /// Where clusterd's own messages go.
    own: Destination,
    /// The files that lines of workers have been written to.
    files: Mutex<Files>,
    /// Nothing is to be written to files that are opened now, either.
    is_held: AtomicBool,
    compressor: Compressor,
    /// What workers are called in lines that are objects.
    ids: WorkerIds,
    /// Lines that were dropped, by `log`.
    dropped: IntCounterVec,
    /// The pipes from which lines come, by stream.
    pipes: [Arc<OpenPipes>; 2],
    /// How many pipes of workers are being read.
    captures: watch::Sender<usize>,
}

/// What the logs of workers are called where what they lose is counted.
const OF_WORKERS: [&str; 3] = ["out", "error", "combined"];

/// Files, with which of those each is.
type Files = BTreeMap<PathBuf, (&'static str, Destination)>;

impl Drop for Shared {
    fn drop(&mut self) {
        for destination in [&self.stdout, &self.stderr, &self.own] {
            destination.queue.close();
        }
        let files = self.files.get_mut().unwrap_or_else(PoisonError::into_inner);
        files.values().for_each(|(_, file)| file.queue.close());
    }
}

/// The queue of one stream or file, and how lines look at its end.
#[derive(Clone, Debug)]
pub(super) struct Destination {
    pub(super) queue: Arc<Queue>,
    pub(super) look: Look,
    /// Lines that find no room in time are dropped; without this, whoever writes them waits.
    pub(super) drops: Option<Arc<Drops>>,
    /// Who writes them.
    pub(super) writer: Arc<JoinHandle<()>>,
}

/// Where a writer thread writes to.
#[derive(Debug)]
enum Sink {
    Standard(OwnedFd, Option<Turn>),
    File(LogFile, Arc<Drops>),
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
    /// As this plan has it, over the program's own standard streams where it names no files; on a `console` others write to
    /// those, too. What is dropped is counted.
    ///
    /// # Errors
    /// When a descriptor or a thread is not to be had.
    pub(crate) fn of(
        plan: LogPlan,
        console: Option<Console>,
        dropped: IntCounterVec,
    ) -> Result<Self, OutputError> {
        let stdout = io::stdout().as_fd().try_clone_to_owned().map_err(OutputError::Duplicate)?;
        let stderr = io::stderr().as_fd().try_clone_to_owned().map_err(OutputError::Duplicate)?;
        Self::over((stdout, stderr), plan, console, dropped)
    }

    /// Over these two, which stay in the mode they are in: it is shared with whoever else holds them. Where both
    /// are the same file, one thread writes for both, so that no line is torn.
    ///
    /// # Errors
    /// When a descriptor cannot be examined or a thread cannot be started.
    pub fn start(stdout: OwnedFd, stderr: OwnedFd) -> Result<Self, OutputError> {
        Self::over((stdout, stderr), LogPlan::default(), None, crate::metrics::lines_dropped())
    }

    pub(super) fn over(
        (stdout, stderr): (OwnedFd, OwnedFd),
        plan: LogPlan,
        console: Option<Console>,
        dropped: IntCounterVec,
    ) -> Result<Self, OutputError> {
        let messages = dropped.with_label_values(&["clusterd"]);
        // One app must not wait because another has filled what they share.
        let drops = |name: &str, log| {
            console.is_some().then(|| Drops::new(Path::new(name), dropped.with_label_values(&[log]), true))
        };
        let drops = [drops("stdout", "out"), drops("stderr", "error")];
        let (label, turns) = console.map_or((None, [None, None]), |all| (Some(all.label), all.turns));
        let compressor = Compressor::default();
        let (unused, [stdout, stderr, own]) = match &plan.own {
            // The standard streams are that file, and nothing else is written there.
            Place::File(path) => {
                let traits = traits(&plan, path, true);
                let file = LogFile::new(path.clone(), plan.rotation.clone(), compressor.clone(), traits);
                let own = Destination::file(file, Drops::new(path, messages.clone(), false), messages)?;
                (turns, [own.clone(), own.clone(), own])
            }
            Place::Standard | Place::Nowhere => {
                let same = same_file(&stdout, &stderr).map_err(OutputError::Examine)?;
                let ([out_turn, mut err_turn], [out_drops, err_drops]) = (turns, drops);
                let unused = if same { err_turn.take() } else { None };
                let stdout = Destination::standard((stdout, out_turn), out_drops, messages.clone())?;
                let stderr = match same {
                    true => stdout.clone(),
                    false => Destination::standard((stderr, err_turn), err_drops, messages)?,
                };
                ([None, unused], [stdout, stderr.clone(), stderr])
            }
        };
        let shared = Shared {
            plan,
            label,
            _turns: unused,
            stdout,
            stderr,
            own,
            files: Mutex::default(),
            is_held: AtomicBool::new(false),
            compressor,
            ids: WorkerIds::default(),
            dropped,
            pipes: [Arc::default(), Arc::default()],
            captures: watch::Sender::new(0),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Over these pipes, to which others write, too, if there is a label.
    #[cfg(test)]
    pub(super) fn on_pipes(pipes: (OwnedFd, OwnedFd), label: Option<Label>) -> Self {
        let console = label.map(|label| Console { label, turns: [None, None] });
        Self::over(pipes, LogPlan::default(), console, crate::metrics::lines_dropped()).unwrap()
    }

    /// What workers are called in lines that are objects.
    pub(crate) fn worker_ids(&self) -> &WorkerIds {
        &self.shared.ids
    }

    /// Opens every file again.
    pub(crate) fn reopen(&self) {
        self.shared.own.queue.reopen();
        self.files().values().for_each(|(_, file)| file.queue.reopen());
    }

    /// Whether anything goes to files.
    pub(crate) fn has_files(&self) -> bool {
        let plan = &self.shared.plan;
        let is_file = |place: &Place| matches!(place, Place::File(_));
        plan.combined.is_some() || [&plan.out, &plan.error, &plan.own].into_iter().any(is_file)
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
            let files: Vec<_> = self.files().values().map(|(_, file)| file.clone()).collect();
            let shared = &self.shared;
            for destination in [&shared.stdout, &shared.stderr, &shared.own].into_iter().chain(&files) {
                destination.queue.flushed().await;
            }
        };
        tokio::time::timeout_at(deadline, all).await.map_err(|_| Unwritten)
    }

    /// What stands before lines on the standard streams, if others write to them, too.
    pub(super) fn label(&self) -> Option<&Label> {
        self.shared.label.as_ref()
    }

    /// Where clusterd's own messages go.
    pub(super) fn own(&self) -> &Destination {
        &self.shared.own
    }

    pub(super) fn pipes(&self, stream: Stream) -> &Arc<OpenPipes> {
        &self.shared.pipes[usize::from(stream == Stream::Stderr)]
    }

    pub(super) fn destination(&self, stream: Stream) -> &Destination {
        match stream {
            Stream::Stdout => &self.shared.stdout,
            Stream::Stderr => &self.shared.stderr,
        }
    }

    /// Has nothing be written until [`Output::go_on`]: what an image of clusterd before has left comes first, and it may be
    /// given back to that.
    pub(crate) fn hold(&self) {
        self.shared.is_held.store(true, Ordering::Relaxed);
        self.destinations().iter().for_each(|(_, destination)| destination.queue.hold());
    }

    /// Has everything be written.
    pub(crate) fn go_on(&self) {
        self.shared.is_held.store(false, Ordering::Relaxed);
        self.destinations().iter().for_each(|(_, destination)| destination.queue.go_on());
    }

    /// Everything that is written to, each once.
    pub(super) fn destinations(&self) -> Vec<(PlaceSnapshot, Destination)> {
        let Shared { stdout, stderr, own, .. } = &*self.shared;
        let standard =
            [(PlaceSnapshot::Stdout, stdout), (PlaceSnapshot::Stderr, stderr), (PlaceSnapshot::Own, own)];
        let mut all: Vec<(PlaceSnapshot, Destination)> = Vec::new();
        for (place, destination) in standard {
            if !all.iter().any(|(_, known)| Arc::ptr_eq(&known.queue, &destination.queue)) {
                all.push((place, destination.clone()));
            }
        }
        for (path, (log, file)) in &*self.files() {
            let (path, log) = (path.as_path().into(), (*log).to_owned());
            all.push((PlaceSnapshot::File { path, log }, file.clone()));
        }
        all
    }

    /// The one that was there.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn destination_at(&self, place: PlaceSnapshot) -> Result<Destination, OutputError> {
        match place {
            PlaceSnapshot::Stdout => Ok(self.shared.stdout.clone()),
            PlaceSnapshot::Stderr => Ok(self.shared.stderr.clone()),
            PlaceSnapshot::Own => Ok(self.shared.own.clone()),
            PlaceSnapshot::File { path, log } => {
                let known = OF_WORKERS.into_iter().find(|known| *known == log);
                self.file(path.into(), known.unwrap_or(OF_WORKERS[0]))
            }
        }
    }

    /// Where the lines of a worker's stream go, and what they look like there, when this has come of a line already.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn routes(
        &self,
        slot: Slot,
        stream: Stream,
        partial: &[u8],
    ) -> Result<Vec<Route>, OutputError> {
        let plan = &self.shared.plan;
        let mut routes = Vec::new();
        for (index, place) in plan.places(slot, stream).into_iter().enumerate() {
            let log = OF_WORKERS[match (index, stream) {
                (1.., _) => 2,
                (_, Stream::Stdout) => 0,
                (_, Stream::Stderr) => 1,
            }];
            let (destination, format, label) = match place {
                Place::Nowhere => continue,
                Place::Standard => (self.destination(stream).clone(), &plan.standard_format, self.label()),
                Place::File(path) => (self.file(path, log)?, &plan.format, None),
            };
            let look = destination.look;
            let prefix = label.map_or_else(|| look.prefix(slot), |label| label.prefix(look, Some(slot)));
            let look = LineLook::of(format, prefix, (stream, slot), &self.shared.ids);
            let lines = LineSplitter::within(look, partial.to_owned());
            routes.push(Route { destination, lines, complete: Vec::new() });
        }
        Ok(routes)
    }

    fn file(&self, path: PathBuf, log: &'static str) -> Result<Destination, OutputError> {
        let mut files = self.files();
        if let Some((_, known)) = files.get(&path) {
            return Ok(known.clone());
        }
        let rotation = self.shared.plan.rotation.clone();
        let file = LogFile::new(
            path.clone(),
            rotation,
            self.shared.compressor.clone(),
            traits(&self.shared.plan, &path, false),
        );
        let counter = self.shared.dropped.with_label_values(&[log]);
        let destination = Destination::file(file, Drops::new(&path, counter.clone(), true), counter)?;
        if self.shared.is_held.load(Ordering::Relaxed) {
            destination.queue.hold();
        }
        files.insert(path, (log, destination.clone()));
        Ok(destination)
    }

    fn files(&self) -> MutexGuard<'_, Files> {
        self.shared.files.lock().unwrap_or_else(PoisonError::into_inner)
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

/// What is in the app's own folder is private.
fn traits(plan: &LogPlan, path: &Path, is_standard: bool) -> FileTraits {
    let is_private = matches!(&plan.own, Place::File(own) if own.parent() == path.parent());
    FileTraits { is_standard, is_private }
}

/// One way of a worker's lines.
#[derive(Debug)]
pub(super) struct Route {
    pub(super) destination: Destination,
    pub(super) lines: LineSplitter,
    /// Whole lines that are to be passed on.
    pub(super) complete: Vec<u8>,
}

impl Destination {
    fn standard(
        (fd, turn): (OwnedFd, Option<Turn>),
        drops: Option<Drops>,
        messages: IntCounter,
    ) -> Result<Self, OutputError> {
        let look = Look::of(&fd);
        Self::start(Sink::Standard(fd, turn), (Queue::new(), look, drops.map(Arc::new)), messages)
    }

    fn file(file: LogFile, drops: Drops, messages: IntCounter) -> Result<Self, OutputError> {
        let drops = Arc::new(drops);
        let sink = Sink::File(file, Arc::clone(&drops));
        Self::start(sink, (Queue::of_file(), Look::Plain, Some(drops)), messages)
    }

    fn start(
        sink: Sink,
        (queue, look, drops): (Queue, Look, Option<Arc<Drops>>),
        messages: IntCounter,
    ) -> Result<Self, OutputError> {
        let queue = Arc::new(queue);
        let taken = Arc::clone(&queue);
        let writer = thread::Builder::new()
            .name("clusterd-log".to_owned())
            .spawn(move || {
                // With a handler for SIGTTOU, which would otherwise stop the process, a write would be begun again
                // and again.
                let _ = signals::write_to_any_terminal();
                // Without that, clusterd cannot become another image of itself while nobody reads.
                let _ = signals::allow_interrupts();
                write_until_closed(&taken, sink, &messages);
            })
            .map_err(OutputError::Thread)?;
        Ok(Self { queue, look, drops, writer: Arc::new(writer) })
    }

    /// Whether it is one that is not waited for as long as it takes.
    pub(super) fn may_drop(&self) -> bool {
        self.drops.is_some()
    }

    /// Passes whole lines of a worker on, which waits for as long as is right for this destination.
    pub(super) async fn pass(&self, lines: &[u8]) {
        let Some(drops) = &self.drops else { return self.queue.push_lines(lines).await };
        if self.queue.try_push_lines(lines) {
            return;
        }
        let is_pushed =
            drops.may_wait() && tokio::time::timeout(PATIENCE, self.queue.push_lines(lines)).await.is_ok();
        if !is_pushed {
            drops.late(lines_in(lines));
        }
    }
}

impl Sink {
    fn begin(&mut self) {
        if let Sink::File(file, drops) = self {
            let _ = file.begin().inspect_err(|error| drops.count(0, error));
        }
    }

    fn reopen(&mut self) {
        if let Sink::File(file, drops) = self {
            let _ = file.reopen().inspect_err(|error| drops.count(0, error));
        }
    }

    /// In the middle of it, `pause` may hold it up.
    fn write(&mut self, bytes: &[u8], pause: Pause<'_>) {
        match self {
            // What cannot be written is lost: there is nowhere to say so, and the workers must not stop for it. The
            // next batch is tried again, for a named pipe may get a new reader and a full disk room.
            Sink::Standard(fd, turn) => {
                let write = || write_some(fd, bytes, pause);
                drop(Turn::during(turn.as_ref(), || pause(bytes), write));
            }
            Sink::File(file, drops) => match file.write(bytes, pause) {
                Ok(()) => drops.settle(),
                Err(lost) => drops.count(lost.lines, &lost.why),
            },
        }
    }
}

/// What a batch may leave behind of memory, in bytes.
const KEPT: usize = 64 * 1024;

fn write_until_closed(queue: &Queue, mut sink: Sink, messages: &IntCounter) {
    let mut bytes = Vec::new();
    sink.begin();
    while let Some(batch) = queue.take(&mut bytes) {
        if batch.reopen {
            sink.reopen();
        }
        sink.write(&bytes, &|rest| queue.pause(rest));
        queue.written(&batch);
        if bytes.len() < bytes.capacity() / 4 {
            bytes.clear();
            bytes.shrink_to(KEPT);
        }
        if batch.dropped > 0 {
            messages.inc_by(batch.dropped);
            tracing::warn!(
                target: messages::REPORT_OF_DROPPED,
                dropped = batch.dropped,
                "messages dropped: the reader of this output was too slow"
            );
        }
    }
}

/// Is called with what is not written yet whenever writing does not go on by itself. It may take its time.
pub(super) type Pause<'a> = &'a dyn Fn(&[u8]);

/// Writes all of `bytes`, however long it takes, or as many of them as can be. SIGPIPE must be ignored, as the Rust
/// runtime has it.
pub(super) fn write_some(
    destination: &OwnedFd,
    bytes: &[u8],
    pause: Pause<'_>,
) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < bytes.len() {
        let failed = match rustix::io::write(destination, &bytes[written..]) {
            Ok(0) => io::ErrorKind::WriteZero.into(),
            Ok(count) => {
                written += count;
                if written < bytes.len() {
                    pause(&bytes[written..]);
                }
                continue;
            }
            Err(Errno::INTR) => {
                pause(&bytes[written..]);
                continue;
            }
            // Another holder of the same open file, a worker's runtime for one, made it non-blocking.
            Err(Errno::AGAIN) => match wait_for_room(destination) {
                Ok(()) => {
                    pause(&bytes[written..]);
                    continue;
                }
                Err(error) => error,
            },
            Err(error) => error.into(),
        };
        return Err((written, failed));
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
