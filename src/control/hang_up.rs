//! Whether the client of a Unix stream socket has closed it altogether.
//!
//! A client that only ended its request still wants the answer, and reading cannot tell the two apart: both are the end
//! of the stream. The kernel can (EPOLLHUP, epoll_ctl(2)).

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream as StdStream;

use tokio::io::Interest;
use tokio::net::UnixStream;

/// Watches for the client's hanging up, through a duplicate of the socket.
#[derive(Debug)]
pub(super) struct HangUp(UnixStream);

impl HangUp {
    /// Watches this socket.
    ///
    /// # Errors
    /// There is no descriptor left, or it cannot be watched (epoll_ctl(2)).
    pub(super) fn of(socket: &UnixStream) -> io::Result<Self> {
        let duplicate = socket.as_fd().try_clone_to_owned()?;
        UnixStream::from_std(StdStream::from(duplicate)).map(Self)
    }

    /// Completes when the client has hung up.
    pub(super) async fn happened(self) {
        while let Ok(ready) = self.0.ready(Interest::WRITABLE).await {
            if ready.is_write_closed() {
                return;
            }
            // As if the socket were full: waits for the next change.
            let _ = self.0.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
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
