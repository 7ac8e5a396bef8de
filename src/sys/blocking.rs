//! Threads for what may block. tokio's (`tokio::task::spawn_blocking`, of 1.54) end the program where no thread can be started.

use std::collections::VecDeque;
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::signals::Blocked;

/// Threads at a time. What waits for one is held by whoever awaits it.
const MOST: usize = 512;
/// How long a thread with nothing to do stays, but for the last one, which stays for good.
const REST: Duration = Duration::from_secs(10);

/// Those of this process.
static THREADS: Threads = Threads { state: Mutex::new(State::NONE), more: Condvar::new() };

/// Starts the first thread, so that there is one whatever limits allow later.
///
/// # Errors
/// It cannot be started; the text says what would help.
pub(crate) fn begin() -> io::Result<()> {
    let mut state = THREADS.state();
    if state.threads == 0 { THREADS.start_one(&mut state).map_err(refused) } else { Ok(()) }
}

/// Does this on a thread that may block; on the calling one, if there is none and none can be started. It is done also if nobody
/// awaits it any more. What belongs to the calling thread's runtime, such as sockets, can be made there.
///
/// # Panics
/// If it panics.
pub(crate) fn run<T: Send + 'static>(
    job: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = T> + Send + Sync + 'static {
    let (tell, done) = oneshot::channel();
    let runtime = Handle::try_current().ok();
    THREADS.take(Box::new(move || {
        let _within = runtime.as_ref().map(Handle::enter);
        drop(tell.send(job()));
    }));
    async { done.await.expect("the thread has not panicked") }
}

type Job = Box<dyn FnOnce() + Send>;

struct Threads {
    state: Mutex<State>,
    more: Condvar,
}

struct State {
    waiting: VecDeque<Job>,
    /// Threads that wait for something to do.
    resting: usize,
    threads: usize,
}

impl State {
    const NONE: Self = Self { waiting: VecDeque::new(), resting: 0, threads: 0 };
}

impl Threads {
    fn take(&'static self, job: Job) {
        let mut state = self.state();
        // Where no more can be started, those that are there come to it.
        if state.resting <= state.waiting.len()
            && state.threads < MOST
            && self.start_one(&mut state).is_err()
            && state.threads == 0
        {
            drop(state);
            return job();
        }
        state.waiting.push_back(job);
        drop(state);
        self.more.notify_one();
    }

    fn start_one(&'static self, state: &mut State) -> io::Result<()> {
        // No signal ends the program by such a thread that another one is about to wait for.
        let blocked = Blocked::all()?;
        // Where memory ends between its stack and the smaller one for signals, std panics instead of refusing.
        thread::Builder::new().name("blocking".to_owned()).spawn(|| self.work())?;
        drop(blocked);
        state.threads += 1;
        Ok(())
    }

    /// What each thread does.
    fn work(&self) {
        let mut state = self.state();
        loop {
            while let Some(job) = state.waiting.pop_front() {
                drop(state);
                job();
                state = self.state();
            }
            let is_over;
            (state, is_over) = self.rest(state);
            if is_over && state.waiting.is_empty() && state.threads > 1 {
                state.threads -= 1;
                return;
            }
        }
    }

    /// Waits until there may be something to do, or it has been long enough; the only thread wakes for nothing else.
    fn rest<'a>(&self, mut state: MutexGuard<'a, State>) -> (MutexGuard<'a, State>, bool) {
        state.resting += 1;
        let is_over;
        (state, is_over) = match state.threads {
            1 => (self.more.wait(state).unwrap_or_else(PoisonError::into_inner), false),
            _ => {
                let waited = self.more.wait_timeout(state, REST).unwrap_or_else(PoisonError::into_inner);
                (waited.0, waited.1.timed_out())
            }
        };
        state.resting -= 1;
        (state, is_over)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn refused(error: io::Error) -> io::Error {
    let hint = "raise the limit of processes (ulimit -u, TasksMax=, docker run --pids-limit), or of memory (ulimit -v)";
    io::Error::new(error.kind(), format!("cannot start a thread: {error}\nhint: {hint}"))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Barrier};
    use std::thread::ThreadId;

    use rustix::process::{Resource, getrlimit, setrlimit};

    use super::*;
    use crate::sys::scarcity::run_alone;

    fn thread() -> ThreadId {
        thread::current().id()
    }

    #[tokio::test]
    async fn what_waits_for_each_other_is_done_at_once() {
        let all = Arc::new(Barrier::new(8));
        let jobs: Vec<_> = (0..8)
            .map(|number| {
                let all = Arc::clone(&all);
                run(move || {
                    all.wait();
                    (number, thread())
                })
            })
            .collect();
        for (number, job) in jobs.into_iter().enumerate() {
            let (same, where_done) = job.await;
            assert_eq!(same, number);
            assert_ne!(where_done, thread());
        }
    }

    #[tokio::test]
    async fn what_nobody_awaits_is_done_all_the_same() {
        let (tell, told) = oneshot::channel();
        drop(run(move || tell.send(()).unwrap()));
        told.await.unwrap();
    }

    #[tokio::test]
    async fn what_belongs_to_the_runtime_can_be_made_there() {
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        one.set_nonblocking(true).unwrap();
        let made = run(|| tokio::net::UnixStream::from_std(one)).await.unwrap();
        drop(other);
        made.readable().await.unwrap();
    }

    #[tokio::test]
    async fn no_signal_is_for_these_threads() {
        let status = run(|| std::fs::read_to_string("/proc/thread-self/status").unwrap()).await;
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).unwrap();
        let blocked = u64::from_str_radix(blocked, 16).unwrap();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD] {
            assert_ne!(blocked & 1 << (signal - 1), 0, "{signal}: {blocked:x}");
        }
    }

    #[test]
    fn where_no_thread_can_be_started_the_calling_one_does_it() {
        run_alone("sys::blocking::tests::alone_without_room_for_a_thread");
    }

    #[tokio::test]
    #[ignore = "the limit is the whole process's"]
    async fn alone_without_room_for_a_thread() {
        let before = getrlimit(Resource::As);
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = status.split(' ').next().unwrap().parse().unwrap();
        let mut full = getrlimit(Resource::As);
        // Less than a stack takes.
        full.current = Some(pages * 4096 + (1 << 20));
        setrlimit(Resource::As, full).unwrap();
        let refused = begin().unwrap_err().to_string();
        let done = run(thread).await;
        setrlimit(Resource::As, before).unwrap();
        assert!(
            refused.starts_with("cannot start a thread: ") && refused.contains("\nhint: raise"),
            "{refused}"
        );
        assert_eq!(done, thread());

        let first = run(thread).await;
        assert_ne!(first, thread());
        // It stays, whatever the limit is by then.
        setrlimit(Resource::As, full).unwrap();
        assert_eq!(run(thread).await, first);
        setrlimit(Resource::As, before).unwrap();
    }
}
