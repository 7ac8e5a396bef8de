//! Closes descriptors that somebody else has a hand in, on threads that may wait.
//!
//! How long close(2) takes is for others to decide: of a TCP socket that whoever holds it has told to linger (SO_LINGER,
//! socket(7)), up to as many seconds as it says, non-blocking or not; of a file, as long as its file system likes; and of a
//! Unix socket, as long as the descriptors take that lie in it unread. It does not decide what is closed.
//!
//! Nobody here cares to wait, so a close(2) that lasts is interrupted, after which the kernel goes on by itself: what was to
//! be sent is sent, and the descriptor is free. One that cannot be interrupted (a file of FUSE) costs a thread, of which
//! there are as many as needed, up to a bound. So none that takes long holds up the others. SO_LINGER is left as it is: it
//! is the connection's, whoever else has that may rely on it, or may set it again, and what lies in a channel could not be
//! reached.
//!
//! It is one for the whole process, as the table of descriptors is, so that a [`ForeignFd`] can be dropped anywhere.

mod here;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt::socket_linger;
use tokio::sync::oneshot;

use self::here::{Here, Watched};

/// How many may wait to be closed before nobody is to bring more.
const ROOM: usize = 1024;

/// How many threads there may be.
const MOST_THREADS: usize = 32;

/// How long a close(2) may take before it is interrupted, and half of the longest that it takes then.
const LOOK: Duration = Duration::from_millis(20);

const STACK: usize = 128 * 1024;

/// Interrupts a thread. It does nothing by default, and with its handler it does not do more.
const INTERRUPT: i32 = libc::SIGURG;

/// A descriptor that came from somebody else, or that somebody else may have as well. Dropping it never waits.
pub(crate) struct ForeignFd(ManuallyDrop<OwnedFd>);

impl ForeignFd {
    /// The same, of which whoever has it now sees to it that it is closed where that may take long.
    pub(crate) fn into_owned(mut self) -> OwnedFd {
        // SAFETY: it is forgotten right after, so that nobody takes it twice.
        let fd = unsafe { ManuallyDrop::take(&mut self.0) };
        std::mem::forget(self);
        fd
    }

    /// Another descriptor of the same.
    ///
    /// # Errors
    /// Those of fcntl(2) with F_DUPFD_CLOEXEC.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self::from)
    }
}

impl From<OwnedFd> for ForeignFd {
    fn from(fd: OwnedFd) -> Self {
        Self(ManuallyDrop::new(fd))
    }
}

impl AsFd for ForeignFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for ForeignFd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Drop for ForeignFd {
    fn drop(&mut self) {
        // SAFETY: nobody can use it after this.
        let fd = unsafe { ManuallyDrop::take(&mut self.0) };
        CLOSER.add([Task::Close(fd)]);
    }
}

/// Descriptors that are closed together, which wakes a thread once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    waiting: Vec<ForeignFd>,
    here: Arc<Here>,
}

impl Batch {
    /// Closes a connection that was just given to somebody: on the calling thread if that takes no time, and otherwise with
    /// the others.
    ///
    /// It takes none as long as the connection does not linger. Whoever has got it would have to let it linger, fill it and
    /// close it between two system calls of this thread; a close(2) that lasts all the same is interrupted like any other.
    /// Another thread that is woken for each connection would cost as much as the hand-off does.
    pub(crate) fn close_connection(&mut self, fd: ForeignFd) {
        match socket_linger(&fd) {
            Ok(None) => self.close_here(fd),
            Ok(Some(_)) | Err(_) => self.waiting.push(fd),
        }
    }

    fn close_here(&self, fd: ForeignFd) {
        self.here.close(fd.into_owned(), |thread| CLOSER.look_after(thread));
    }

    /// Has all of them closed.
    pub(crate) fn close(&mut self) {
        if !self.waiting.is_empty() {
            CLOSER.add(self.waiting.drain(..).map(|fd| Task::Close(fd.into_owned())));
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.close();
    }
}

/// Ready when more may be brought to be closed: whoever goes on to take descriptors from others is to ask first.
pub(crate) fn poll_room(cx: &mut Context<'_>) -> Poll<()> {
    if is_full() { CLOSER.poll_room(cx) } else { Poll::Ready(()) }
}

/// Whether nobody is to bring more.
pub(crate) fn is_full() -> bool {
    CLOSER.is_full.load(Ordering::Relaxed)
}

/// Does what closes descriptors by the way, where it may take long, and returns what came of it.
///
/// # Errors
/// Its thread has panicked.
pub(crate) async fn elsewhere<T: Send + 'static>(
    act: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let (done, outcome) = oneshot::channel();
    // Who does not wait for it any more does not want to know.
    CLOSER.add([Task::Act(Box::new(move || drop(done.send(act()))))]);
    outcome.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))
}

enum Task {
    Close(OwnedFd),
    Act(Box<dyn FnOnce() + Send>),
}

impl Task {
    fn run(self) {
        match self {
            Task::Close(fd) => drop(fd),
            Task::Act(act) => act(),
        }
    }
}

static CLOSER: Closer = Closer {
    state: Mutex::new(State {
        waiting: VecDeque::new(),
        hands: Vec::new(),
        idle: 0,
        is_watched: false,
        has_watch: false,
        for_room: Vec::new(),
        here: Vec::new(),
    }),
    is_full: AtomicBool::new(false),
    work: Condvar::new(),
    watch: Condvar::new(),
};

struct Closer {
    state: Mutex<State>,
    is_full: AtomicBool,
    work: Condvar,
    watch: Condvar,
}

struct State {
    waiting: VecDeque<Task>,
    /// Each thread's.
    hands: Vec<Hand>,
    /// How many threads have nothing to do.
    idle: usize,
    /// It is looked at times whether a thread is stuck.
    is_watched: bool,
    has_watch: bool,
    /// Who wants to know that there is room.
    for_room: Vec<Waker>,
    /// Those that close by themselves, and have done so lately.
    here: Vec<Watched>,
}

/// What one thread does.
#[derive(Clone, Copy)]
struct Hand {
    thread: libc::pthread_t,
    is_busy: bool,
    /// It is still at what it was when this was last looked at.
    was_seen: bool,
}

impl Closer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&'static self, tasks: impl IntoIterator<Item = Task>) {
        let mut state = self.lock();
        state.waiting.extend(tasks);
        if state.waiting.len() >= ROOM {
            self.is_full.store(true, Ordering::Relaxed);
        }
        if state.hands.is_empty() {
            self.begin(&mut state);
        }
        if state.idle > 0 {
            drop(state);
            self.work.notify_one();
        }
    }

    /// The calling thread closes by itself.
    fn look_after(&'static self, thread: Watched) {
        allow_interrupt();
        let mut state = self.lock();
        if state.hands.is_empty() {
            self.begin(&mut state);
        }
        state.here.push(thread);
        state.is_watched = true;
        self.watch.notify_one();
    }

    /// Starts the first threads.
    fn begin(&'static self, state: &mut State) {
        state.has_watch = state.has_watch || (handle_interrupt().is_ok() && self.start_watch().is_ok());
        self.start_one(state);
    }

    fn start_watch(&'static self) -> io::Result<()> {
        let thread = thread::Builder::new().name("closer-watch".to_owned()).stack_size(STACK);
        thread.spawn(|| self.watch()).map(drop)
    }

    /// Without another thread, those that wait to be closed wait longer.
    fn start_one(&'static self, state: &mut State) {
        let me = state.hands.len();
        let thread = thread::Builder::new().name("closer".to_owned()).stack_size(STACK);
        if let Ok(started) = thread.spawn(move || self.close_all(me)) {
            use std::os::unix::thread::JoinHandleExt;
            let thread = started.as_pthread_t();
            state.hands.push(Hand { thread, is_busy: false, was_seen: false });
        }
    }

    /// What one thread does for ever.
    fn close_all(&self, me: usize) {
        allow_interrupt();
        loop {
            self.next(me).run();
        }
    }

    fn next(&self, me: usize) -> Task {
        let mut state = self.lock();
        loop {
            if let Some(task) = state.waiting.pop_front() {
                state.hands[me] = Hand { is_busy: true, was_seen: false, ..state.hands[me] };
                if !state.is_watched {
                    state.is_watched = true;
                    self.watch.notify_one();
                }
                if state.waiting.len() == ROOM / 2 {
                    self.is_full.store(false, Ordering::Relaxed);
                    state.for_room.drain(..).for_each(Waker::wake);
                }
                return task;
            }
            state.hands[me].is_busy = false;
            state.idle += 1;
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !self.is_full.load(Ordering::Relaxed) {
            return Poll::Ready(());
        }
        if !state.for_room.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.for_room.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Looks after the threads for ever; as long as none has anything to do, it sleeps.
    fn watch(&'static self) {
        let mut state = self.lock();
        loop {
            while !state.is_watched {
                state = self.watch.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            thread::sleep(LOOK);
            state = self.lock();
            self.look_at(&mut state);
        }
    }

    fn look_at(&'static self, state: &mut State) {
        let mut stuck = 0;
        for hand in state.hands.iter_mut().filter(|hand| hand.is_busy) {
            if hand.was_seen {
                stuck += 1;
                // SAFETY: a thread that closes never ends, so that this is one.
                unsafe { libc::pthread_kill(hand.thread, INTERRUPT) };
            }
            hand.was_seen = true;
        }
        state.here.retain_mut(Watched::look);
        let threads = state.hands.len();
        if !state.waiting.is_empty() && stuck == threads && threads < MOST_THREADS {
            self.start_one(state);
        }
        let is_any_busy = state.hands.iter().any(|hand| hand.is_busy);
        state.is_watched = is_any_busy || !state.waiting.is_empty() || !state.here.is_empty();
    }
}

/// System calls that it interrupts and that can go on do so.
fn handle_interrupt() -> io::Result<()> {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: all zero is a valid `sigaction`: no flag, and no signal blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(i32) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler does nothing, and so nothing that a handler may not do.
    let result = unsafe { libc::sigaction(INTERRUPT, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// For the calling thread, whose mask is inherited.
fn allow_interrupt() {
    // SAFETY: all zero is a valid set; the calls write to it and then read it, and change this thread's mask alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, INTERRUPT);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::time::Instant;

    use socket2::SockRef;

    use super::*;

    /// Sooner than lingering ends, and later than a machine that is busy needs.
    const SOON: Duration = Duration::from_secs(10);

    /// A connection whose close(2) takes half a minute, and its other end, which reads nothing.
    fn lingering() -> (ForeignFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65536]).is_ok() {}
        SockRef::from(&server).set_linger(Some(Duration::from_secs(30))).unwrap();
        (OwnedFd::from(server).into(), client)
    }

    /// The number of a descriptor, and what it is of.
    struct Number(String, std::path::PathBuf);

    impl Number {
        fn of(fd: &ForeignFd) -> Self {
            let link = format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd());
            let file = std::fs::read_link(&link).unwrap();
            Self(link, file)
        }

        /// Waits until the number is free, or another file's.
        fn until_closed(&self) {
            let start = Instant::now();
            while std::fs::read_link(&self.0).is_ok_and(|now| now == self.1) {
                assert!(start.elapsed() < SOON, "it is not closed");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }

    #[test]
    fn what_lingers_holds_nobody_up() {
        let start = Instant::now();
        let mut peers = Vec::new();
        for _ in 0..20 {
            let (fd, peer) = lingering();
            peers.push(peer);
            drop(fd);
        }
        let (pipe, mut writer) = io::pipe().unwrap();
        drop(ForeignFd::from(OwnedFd::from(pipe)));
        while writer.write(b"x").map_err(|error| error.kind()) != Err(ErrorKind::BrokenPipe) {
            assert!(start.elapsed() < SOON, "it is not closed");
        }
        let (fd, _peer) = lingering();
        let number = Number::of(&fd);
        let mut batch = Batch::default();
        batch.close_connection(fd);
        batch.close();
        number.until_closed();
        assert!(start.elapsed() < SOON);
    }

    #[test]
    fn a_close_on_the_thread_of_the_caller_is_interrupted() {
        let (start, (fd, _peer)) = (Instant::now(), lingering());
        let number = Number::of(&fd);
        Batch::default().close_here(fd);
        assert!(start.elapsed() < SOON, "it took as long as it lingers");
        number.until_closed();
    }

    #[test]
    fn only_a_connection_that_does_not_linger_is_closed_at_once() {
        let (fd, _peer) = lingering();
        let quick = fd.try_clone().unwrap();
        let numbers = [Number::of(&fd), Number::of(&quick)];
        let mut batch = Batch::default();
        batch.close_connection(fd);
        assert_eq!(batch.waiting.len(), 1);
        SockRef::from(&quick).set_linger(None).unwrap();
        batch.close_connection(quick);
        assert_eq!(batch.waiting.len(), 1);
        drop(batch);
        numbers.iter().for_each(Number::until_closed);
    }

    #[test]
    fn a_connection_lingers_as_whoever_else_has_it_wants() {
        let (fd, _peer) = lingering();
        let (again, number) = (fd.try_clone().unwrap(), Number::of(&fd));
        drop(fd);
        number.until_closed();
        assert_eq!(SockRef::from(&again).linger().unwrap(), Some(Duration::from_secs(30)));
    }

    #[tokio::test]
    async fn what_is_done_elsewhere_comes_back() {
        assert_eq!(elsewhere(|| Ok(7)).await.unwrap(), 7);
        let failed = elsewhere(|| Err::<(), _>(ErrorKind::NotFound.into())).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::NotFound);
    }
}
