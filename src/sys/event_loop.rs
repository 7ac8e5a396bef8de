//! tokio's event loop where the kernel grants little.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};

use super::signals::Blocked;

/// How long a thread that waits for something to do stays.
const FOR_GOOD: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// What builds an event loop on the calling thread, with timers, descriptors and signals.
///
/// # Errors
/// There is none where no pair of Unix sockets can be made, by which signals are told of: tokio 1.54 panics then. So it is
/// with systemd's `RestrictAddressFamilies=` without AF_UNIX.
pub(crate) fn on_this_thread() -> io::Result<Builder> {
    UnixStream::pair().map_err(|error| io::Error::new(error.kind(), no_pair(&error)))?;
    let mut builder = Builder::new_current_thread();
    builder.enable_all();
    Ok(builder)
}

/// The same, with threads for what may block (`tokio::task::spawn_blocking`), which stay. Where there is none, and none can be
/// started any more, tokio 1.54 panics; where there is one, it does what others would have done: [`begin_to_block`].
///
/// # Errors
/// Those of [`on_this_thread`], and that no thread can be started.
pub(crate) fn that_may_block() -> io::Result<Runtime> {
    let mut builder = on_this_thread()?;
    // No signal ends the program by such a thread that another one is about to wait for.
    builder.on_thread_start(|| drop(Blocked::all().map(std::mem::forget)));
    let runtime = builder.thread_keep_alive(FOR_GOOD).build()?;
    // tokio would not say that it cannot.
    start_and_end_one().map_err(|error| io::Error::new(error.kind(), no_thread(&error)))?;
    Ok(runtime)
}

/// Has the first of these threads start. Should there be no room for it, though there has just been, the program ends: not where
/// it has something to give back.
pub(crate) fn begin_to_block(runtime: &Runtime) {
    drop(runtime.spawn_blocking(|| ()));
}

/// Starts a thread, and waits until the kernel does not count it any more.
fn start_and_end_one() -> io::Result<()> {
    let thread = thread::Builder::new().spawn(rustix::thread::gettid)?;
    if let Ok(id) = thread.join() {
        // Its end is told a moment before it is one thread less for the limits.
        let task = format!("/proc/self/task/{}", id.as_raw_nonzero());
        let deadline = Instant::now() + Duration::from_secs(1);
        while Path::new(&task).exists() && Instant::now() < deadline {
            thread::yield_now();
        }
    }
    Ok(())
}

fn no_thread(error: &io::Error) -> String {
    let hint = "raise the limit of processes (ulimit -u, TasksMax=, docker run --pids-limit), or of memory (ulimit -v)";
    format!("cannot start a thread: {error}\nhint: {hint}")
}

fn no_pair(error: &io::Error) -> String {
    let hint = match error.raw_os_error() {
        Some(libc::EMFILE) => "raise the limit of open files (ulimit -n)",
        Some(libc::ENFILE) => "raise the system's limit of open files (sysctl fs.file-max)",
        _ => "RestrictAddressFamilies= of systemd, or another sandbox, has to permit AF_UNIX",
    };
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
