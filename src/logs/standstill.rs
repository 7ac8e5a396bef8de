//! How the output stands still, for the next image of clusterd, and goes on there.
//!
//! Whoever reads a pipe reads no further: what comes waits in the pipe. Whoever writes stops where it is, if need be in the
//! middle of a batch, of which the rest is written in the next image. So no line is lost, and none is written twice.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::MemfdFlags;
use tokio::time::timeout;

use super::capture::{Begun, Standing};
use super::last::{Kept, LastLines};
use super::lines::LONGEST;
use super::open_pipes::OpenPipe;
use super::queue::{Left, Queue};
use super::snapshot::{DestinationSnapshot, OutputSnapshot, PipeSnapshot, PlaceSnapshot};
use super::write::{Destination, Output, Stream};
use crate::carry::{CarriedFd, CarriedFds, Frozen, NotCarried, Raw, Still};
use crate::ids::WorkerId;
use crate::sys::signals;

/// So long it is waited until all is written: most often it is, and nothing has to be carried.
const FLUSH: Duration = Duration::from_millis(10);

/// So long whoever writes may take to stand still.
const PATIENCE: Duration = Duration::from_millis(500);

/// How often it is interrupted meanwhile.
const AGAIN: Duration = Duration::from_millis(1);

/// The queue of a destination, held until this is dropped.
#[derive(Debug)]
struct Held(Arc<Queue>);

impl Held {
    fn new(queue: &Arc<Queue>) -> Self {
        queue.hold();
        Self(Arc::clone(queue))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.go_on();
    }
}

/// A pipe, and whoever reads it, if it stands still.
struct StillPipe {
    pipe: OpenPipe,
    stream: Stream,
    standing: Option<(Standing, Frozen<Standing>)>,
}

impl Output {
    /// Has all lines stand still, for the next image of clusterd. Messages of clusterd itself may come at any time, and are
    /// there, too. No pipe is to be captured meanwhile.
    ///
    /// # Errors
    /// Something is being written to a disk that does not answer.
    pub(crate) async fn stand_still(&self) -> Result<Still<OutputSnapshot>, NotCarried> {
        let pipes = self.still_pipes().await;
        let all = self.destinations();
        let flushed = async {
            for (_, destination) in &all {
                destination.queue.flushed().await;
            }
        };
        let _ = timeout(FLUSH, flushed).await;
        let no_file =
            |error: io::Error| NotCarried(format!("messages, for want of a file in memory: {error}"));
        let memory = rustix::fs::memfd_create(c"clusterd-last-words", MemfdFlags::CLOEXEC);
        let last_words: File = memory.map_err(|error| no_file(error.into()))?.into();
        let held: Vec<Held> = all.iter().map(|(_, destination)| Held::new(&destination.queue)).collect();
        let mut destinations = Vec::new();
        for (place, destination) in all {
            let is_own = Arc::ptr_eq(&destination.queue, &self.own().queue);
            let left = left(&place, &destination, is_own.then_some(&last_words)).await?;
            destinations.push(snapshot(place, &destination, left, &pipes));
        }
        let state = OutputSnapshot {
            ids: self.worker_ids().all(),
            destinations,
            last_words: CarriedFd::of(&last_words),
            pipes: pipes.iter().filter_map(StillPipe::snapshot).collect(),
        };
        let frozen: Vec<_> = pipes.into_iter().map(|pipe| pipe.standing).collect();
        Ok(Still::new(state, (frozen, held, last_words)))
    }

    async fn still_pipes(&self) -> Vec<StillPipe> {
        let mut asked = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            asked.extend(self.pipes(stream).all().into_iter().map(|pipe| (pipe.ask(), pipe, stream)));
        }
        let mut pipes = Vec::new();
        for (asked, pipe, stream) in asked {
            let mut standing = None;
            if let Some(mut frozen) = asked {
                standing = frozen.state().await.map(|standing| (standing, frozen));
            }
            pipes.push(StillPipe { pipe, stream, standing });
        }
        pipes
    }

    /// Begins with what an image before has left, while this is held ([`Output::hold`]). Lines are written and pipes are read
    /// when this goes on, and the thread that it is called on. The answer has the last lines of each worker's standard error, where somebody kept them.
    ///
    /// # Errors
    /// It cannot have been written down by this output, or there are no descriptors or threads any more.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub(crate) fn restore(
        &self,
        snapshot: OutputSnapshot,
        fds: &CarriedFds,
    ) -> io::Result<HashMap<WorkerId, LastLines>> {
        let mut last_words = snapshot.last_words(fds)?;
        self.worker_ids().set(snapshot.ids);
        for DestinationSnapshot { place, left: Raw(mut bytes), dropped, drops } in snapshot.destinations {
            let destination = self.destination_at(place).map_err(io::Error::other)?;
            // Together: it is written at once, and the first part may begin within a line.
            if Arc::ptr_eq(&destination.queue, &self.own().queue) {
                bytes.append(&mut last_words);
            }
            destination.queue.put_back(Left { bytes, dropped });
            if let (Some(known), Some(drops)) = (&destination.drops, drops) {
                known.restore(drops);
            }
        }
        let mut lines = HashMap::new();
        for pipe in snapshot.pipes {
            let (worker, stream, is_kept) = (pipe.worker, pipe.stream, pipe.last.is_some());
            let last = self.restore_pipe(pipe, fds)?;
            if stream == Stream::Stderr && is_kept {
                lines.insert(worker, last);
            }
        }
        Ok(lines)
    }

    fn restore_pipe(&self, pipe: PipeSnapshot, fds: &CarriedFds) -> io::Result<LastLines> {
        let PipeSnapshot { worker, stream, pipe, partial: Raw(partial), last } = pipe;
        if partial.len() > LONGEST {
            return Err(io::Error::other("the start of a line that is longer than lines may be"));
        }
        let last = last.map(Kept::try_from).transpose()?.unwrap_or_default();
        match pipe {
            Some(pipe) => self.read_on(worker, stream, (fds.take(pipe)?, Begun { partial, last })),
            None => {
                let (last, _ended) = LastLines::with(last);
                self.pipes(stream).add(OpenPipe { worker, reader: None, last: last.watched() });
                Ok(last)
            }
        }
    }
}

/// What is left in a queue that is held, once whoever writes stands still.
async fn left(
    place: &PlaceSnapshot,
    destination: &Destination,
    last_words: Option<&File>,
) -> Result<Left, NotCarried> {
    let standing = async {
        loop {
            if let Some(left) = destination.queue.left(last_words) {
                return left;
            }
            signals::interrupt(&destination.writer);
            tokio::time::sleep(AGAIN).await;
        }
    };
    timeout(PATIENCE, standing)
        .await
        .map_err(|_| NotCarried(format!("lines that are being written to {place}, which takes too long")))
}

/// With the lines that have found no room yet.
fn snapshot(
    place: PlaceSnapshot,
    destination: &Destination,
    left: Left,
    pipes: &[StillPipe],
) -> DestinationSnapshot {
    let Left { mut bytes, dropped } = left;
    for (standing, _) in pipes.iter().filter_map(|pipe| pipe.standing.as_ref()) {
        for (_, lines) in standing.waiting.iter().filter(|(queue, _)| Arc::ptr_eq(queue, &destination.queue))
        {
            bytes.extend_from_slice(lines);
        }
    }
    let drops = destination.drops.as_ref().map(|drops| drops.snapshot());
    DestinationSnapshot { place, left: Raw(bytes), dropped, drops }
}

impl StillPipe {
    /// Nothing of one that is at its end and of which nobody keeps the last lines.
    fn snapshot(&self) -> Option<PipeSnapshot> {
        let standing = self.standing.as_ref().map(|(standing, _)| standing);
        let (pipe, last) = (standing.and_then(|standing| standing.pipe), self.pipe.last.snapshot());
        (pipe.is_some() || last.is_some()).then(|| PipeSnapshot {
            worker: self.pipe.worker,
            stream: self.stream,
            pipe,
            partial: Raw(standing.map_or_else(Vec::new, |standing| standing.partial.clone())),
            last,
        })
    }
}
