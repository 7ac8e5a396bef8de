//! Whoever reads the output, if that is another program of a shell's pipeline: whether it has gone.
//!
//! What follows from it is not known here.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::FileType;
use rustix::time::Timespec;
use tokio::io::Interest;

use crate::sys::watched::Watched;

/// The reader.
#[derive(Debug)]
pub(super) struct Reader(Option<Watched>);

impl Reader {
    /// That of stdout, if that is a pipe and nobody else looks after the output: a container's log, a service manager's and
    /// what nohup(1) was given for it may come back, and apps are to outlive that.
    pub(super) fn of_stdout(ignores_hup: bool) -> Self {
        let is_service =
            ["NOTIFY_SOCKET", "INVOCATION_ID"].iter().any(|name| std::env::var_os(name).is_some());
        if ignores_hup || is_service || std::process::id() == 1 {
            return Self(None);
        }
        Self::of(io::stdout())
    }

    fn of(stream: impl AsFd) -> Self {
        let is_pipe = rustix::fs::fstat(&stream)
            .is_ok_and(|file| FileType::from_raw_mode(file.st_mode) == FileType::Fifo);
        let copy =
            || stream.as_fd().try_clone_to_owned().and_then(|copy| Watched::new(copy, Interest::ERROR));
        Self(if is_pipe { copy().ok() } else { None })
    }

    /// Returns once it has gone. Where that is never seen it does not return.
    pub(super) async fn is_gone(&self) {
        if let Some(pipe) = &self.0 {
            while let Ok(mut ready) = pipe.ready(Interest::ERROR).await {
                if has_no_reader(pipe.owner()) {
                    return;
                }
                ready.clear_ready();
            }
        }
        std::future::pending().await
    }
}

/// Whether the other end of this pipe is closed (poll(2)).
fn has_no_reader(pipe: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().contains(PollFlags::ERR)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_pipe_whose_reader_has_gone_is_noticed_before_anything_is_written() {
        let (read, write) = io::pipe().unwrap();
        let reader = Reader::of(&write);
        assert!(timeout(Duration::from_millis(20), reader.is_gone()).await.is_err(), "it is there");
        drop(read);
        timeout(Duration::from_secs(10), reader.is_gone()).await.unwrap();
        // At once where it had gone before.
        timeout(Duration::from_secs(10), Reader::of(&write).is_gone()).await.unwrap();
    }

    #[tokio::test]
    async fn a_file_has_no_reader_that_could_go() {
        let file = tempfile::tempfile().unwrap();
        assert!(Reader::of(&file).0.is_none());
    }
}
