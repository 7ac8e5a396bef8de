//! tokio's event loop where the kernel grants little.

use std::io;
use std::os::unix::net::UnixStream;

use tokio::runtime::{Builder, Runtime};

use super::exhausted::more_descriptors;

/// With so many pairs of descriptors there are as many as tokio takes: an epoll instance twice, an eventfd, a pair and its copy.
const PAIRS: usize = 4;

/// What builds an event loop on the calling thread, with timers, descriptors and signals.
///
/// # Errors
/// There is none where no pair of Unix sockets can be made, by which signals are told of: tokio 1.54 panics then. So it is
/// with systemd's `RestrictAddressFamilies=` without AF_UNIX, and where it would be the pair for which no descriptor is left.
pub(crate) fn on_this_thread() -> io::Result<Builder> {
    let held: io::Result<Vec<_>> = (0..PAIRS).map(|_| UnixStream::pair()).collect();
    held.map_err(|error| io::Error::new(error.kind(), no_pair(&error))).map(drop)?;
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    Ok(builder)
}

/// An event loop on the calling thread.
///
/// # Errors
/// Those of [`on_this_thread`], and of epoll_create1(2) and eventfd(2).
pub(crate) fn begin() -> io::Result<Runtime> {
    on_this_thread()?.build()
}

fn no_pair(error: &io::Error) -> String {
    let permit = "RestrictAddressFamilies= of systemd, or another sandbox, has to permit AF_UNIX";
    let hint = more_descriptors(error).unwrap_or(permit);
    format!("cannot create a pair of Unix sockets: {error}\nhint: {hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_would_help() {
        for (error, hint) in
            [(libc::EMFILE, "ulimit"), (libc::EAFNOSUPPORT, "AF_UNIX"), (libc::EPERM, "AF_UNIX")]
        {
            let said = no_pair(&io::Error::from_raw_os_error(error));
            assert!(said.starts_with("cannot create a pair of Unix sockets: "), "{said}");
            assert!(
                said.lines().last().is_some_and(|last| last.starts_with("hint: ") && last.contains(hint)),
                "{said}"
            );
        }
    }
}
