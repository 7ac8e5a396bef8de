//! A client's connection to the control socket, from which no descriptor is taken.
//!
//! How long it takes to close one is for whoever sent it to decide ([`closer`](crate::sys::closer)), and nobody knows yet
//! who that is. Since Linux 6.16 none can be sent; before, what comes with one is not read. What is read means nothing
//! here.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;

use crate::sys::guarded;

/// The connection.
#[derive(Debug)]
pub(super) struct ControlStream(Option<UnixStream>);

impl From<UnixStream> for ControlStream {
    fn from(stream: UnixStream) -> Self {
        Self(Some(stream))
    }
}

impl ControlStream {
    fn open(&self) -> &UnixStream {
        self.0.as_ref().expect("it is there until it is dropped")
    }

    fn open_mut(&mut self) -> Pin<&mut UnixStream> {
        Pin::new(self.0.as_mut().expect("it is there until it is dropped"))
    }
}

impl Drop for ControlStream {
    fn drop(&mut self) {
        if let Some(Ok(stream)) = self.0.take().map(UnixStream::into_std) {
            guarded::close(OwnedFd::from(stream));
        }
    }
}

impl AsFd for ControlStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.open().as_fd()
    }
}

/// Reads what is there, unless a descriptor is beside it.
fn read(stream: &UnixStream, buffer: &mut [u8]) -> io::Result<usize> {
    let seen = guarded::look(stream, buffer)?;
    if seen.has_descriptors {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a descriptor came with the request"));
    }
    // No more than was seen: descriptors may lie behind it.
    let flags = rustix::net::RecvFlags::DONTWAIT;
    let (len, _) = rustix::net::recv(stream, &mut buffer[..seen.len], flags)?;
    Ok(len)
}

impl AsyncRead for ControlStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.open();
        loop {
            ready!(stream.poll_read_ready(cx))?;
            match stream.try_io(Interest::READABLE, || read(stream, buf.initialize_unfilled())) {
                Ok(len) => {
                    buf.advance(len);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for ControlStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.open_mut().poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open_mut().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.open_mut().poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream as StdStream;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::sys::seqpacket;

    #[tokio::test]
    async fn what_comes_with_a_descriptor_is_not_read() {
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut ours = ControlStream::from(UnixStream::from_std(ours).unwrap());
        seqpacket::send_part(&theirs, b"GET", None).unwrap();
        let mut buffer = [0; 64];
        assert_eq!(ours.read(&mut buffer).await.unwrap(), 3);
        seqpacket::send_part(&theirs, b" /", Some(theirs.as_fd())).unwrap();
        let refused = ours.read(&mut buffer).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::InvalidData);
        ours.write_all(b"no").await.unwrap();
    }

    #[tokio::test]
    async fn the_end_is_seen() {
        let (ours, theirs) = StdStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut ours = ControlStream::from(UnixStream::from_std(ours).unwrap());
        drop(theirs);
        assert_eq!(ours.read(&mut [0; 64]).await.unwrap(), 0);
    }
}
