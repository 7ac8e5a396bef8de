//! Whether the client of a Unix stream socket has closed it altogether.
//!
//! A client that only ended its request still wants the answer, and reading cannot tell the two apart: both are the end
//! of the stream. The kernel can (EPOLLHUP, epoll_ctl(2)).

use std::io;
use std::os::fd::AsFd;

use tokio::io::Interest;

use crate::sys::guarded;
use crate::sys::watched::Watched;

/// Watches for the client's hanging up, through a duplicate of the socket.
#[derive(Debug)]
pub(super) struct HangUp(Option<Watched>);

impl Drop for HangUp {
    fn drop(&mut self) {
        self.0.take().map(Watched::into_fd).into_iter().for_each(guarded::close);
    }
}

impl HangUp {
    /// Watches this socket.
    ///
    /// # Errors
    /// There is no descriptor left, or it cannot be watched (epoll_ctl(2)).
    pub(super) fn of(socket: impl AsFd) -> io::Result<Self> {
        let duplicate = socket.as_fd().try_clone_to_owned()?;
        Watched::new(duplicate, Interest::WRITABLE).map(|watched| Self(Some(watched)))
    }

    /// Completes when the client has hung up.
    pub(super) async fn happened(self) {
        let Some(watched) = &self.0 else { return };
        while let Ok(mut guard) = watched.writable().await {
            if guard.ready().is_write_closed() {
                return;
            }
            // As if the socket were full: waits for the next change.
            guard.clear_ready();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn only_a_client_that_closed_altogether_has_hung_up() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut hang_up = Box::pin(HangUp::of(&ours).unwrap().happened());
        theirs.shutdown().await.unwrap();
        assert!(timeout(Duration::from_millis(20), &mut hang_up).await.is_err());
        drop(theirs);
        hang_up.await;
    }
}
