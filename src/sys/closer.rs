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
//! A client of whose connection clusterd has the last copy waits for its end, and a process that sends descriptors may send
//! very many. So copies of connections that were handed over come first, and there is room for them when there is none for
//! what is sent.
//!
//! It is one for the whole process, as the table of descriptors is, so that a [`ForeignFd`] can be dropped anywhere.

mod foreign;
mod here;
mod interrupt;
mod room;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::thread::{JoinHandleExt, RawPthread};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_linger;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

pub(crate) use self::foreign::ForeignFd;
use self::here::{Here, Watched};
use self::interrupt::INTERRUPT;
use self::room::Room;
use super::carried::CarriedFd;

/// How many may wait to be closed before nothing that is sent is to be received.
const ROOM_FOR_SENT: usize = 1024;

/// How many may wait before no client is to be accepted.
const ROOM: usize = 2 * ROOM_FOR_SENT;

/// How many threads there may be.
const MOST_THREADS: usize = 32;

/// How long a close(2) may take before it is interrupted, and half of the longest that it takes then.
const LOOK: Duration = Duration::from_millis(20);

/// How long it is waited for those that are to be closed before.
const CATCH_UP: Duration = Duration::from_millis(100);

/// How long after a close(2) that took long there are more threads than one.
const REST: Duration = Duration::from_secs(10);

/// Within this nobody does as much with a connection as it takes to have close(2) wait, beginning with its receipt.
const MOMENT: Duration = Duration::from_micros(10);

const STACK: usize = 128 * 1024;

/// Descriptors that are closed together, which wakes a thread once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    waiting: Vec<ForeignFd>,
    here: Arc<Here>,
}

impl Batch {
    /// Closes a connection that was given to somebody at `since`: on the calling thread if that takes no time, and otherwise
    /// with the others.
    ///
    /// It takes none as long as the connection does not linger, nor if it was given that moment: whoever has got it would
    /// have to let it linger, fill it and close it meanwhile. A close(2) that lasts all the same is interrupted like any
    /// other. Another thread that is woken for each connection would cost as much as the hand-off does.
    pub(crate) fn close_connection(&mut self, fd: ForeignFd, since: Instant) {
        let takes_no_time = since.elapsed() < MOMENT || matches!(socket_linger(&fd), Ok(None));
        if takes_no_time { self.close_here(fd) } else { self.waiting.push(fd) }
    }

    fn close_here(&self, fd: ForeignFd) {
        self.here.close(fd.into_owned(), |thread| CLOSER.look_after(thread));
    }

    /// Has all of them closed.
    pub(crate) fn close(&mut self) {
        if !self.waiting.is_empty() {
            CLOSER.add(self.waiting.drain(..).map(|fd| Task::CloseHanded(fd.into_owned())));
        }
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.close();
    }
}

fn close(fd: OwnedFd) {
    CLOSER.add([Task::Close(fd)]);
}

/// Ready when a client may be accepted, whose connection is to be closed some time.
pub(crate) fn poll_room(cx: &mut Context<'_>) -> Poll<()> {
    CLOSER.for_accepted.poll(cx)
}

/// Whether no client is to be accepted.
pub(crate) fn is_full() -> bool {
    CLOSER.for_accepted.is_full()
}

/// Ready when there is room for what processes send: whoever goes on to receive from them is to ask first.
pub(crate) fn poll_room_for_sent(cx: &mut Context<'_>) -> Poll<()> {
    CLOSER.for_sent.poll(cx)
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

/// Returns when what was to be closed before is closed, unless that takes long: its address, say, is free by then.
pub(crate) async fn catch_up() {
    let next = CLOSER.lock().next;
    let caught_up = async {
        loop {
            let done = CLOSER.done.notified();
            let oldest = CLOSER.lock().oldest();
            if oldest.is_none_or(|oldest| oldest >= next) {
                return;
            }
            done.await;
        }
    };
    let _ = timeout(CATCH_UP, caught_up).await;
}

/// Descriptors that wait to be closed, and go on waiting until this is dropped.
pub(crate) struct Held(Vec<Task>);

/// Has all of them wait. To be closed by execve(2), which lets nobody interrupt it, they would have to linger.
pub(crate) fn hold() -> Held {
    let mut state = CLOSER.lock();
    let (acts, closes): (Vec<_>, Vec<_>) =
        std::iter::from_fn(|| state.waiting.pop()).partition(|(_, task)| matches!(task, Task::Act(_)));
    acts.into_iter().for_each(|(number, act)| state.waiting.push(number, act));
    CLOSER.update_room(&state);
    Held(closes.into_iter().map(|(_, task)| task).collect())
}

impl Held {
    /// Their numbers.
    pub(crate) fn numbers(&self) -> Vec<CarriedFd> {
        let fds = self.0.iter().filter_map(|task| match task {
            Task::CloseHanded(fd) | Task::Close(fd) => Some(fd),
            Task::Act(_) => None,
        });
        fds.map(CarriedFd::of).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        CLOSER.add(self.0.drain(..));
    }
}

enum Task {
    CloseHanded(OwnedFd),
    Close(OwnedFd),
    Act(Box<dyn FnOnce() + Send>),
}

impl Task {
    fn run(self) {
        match self {
            Task::CloseHanded(fd) | Task::Close(fd) => drop(fd),
            Task::Act(act) => act(),
        }
    }
}

static CLOSER: Closer = Closer {
    state: Mutex::new(State {
        waiting: Waiting::new(),
        next: 0,
        hands: Vec::new(),
        idle: 0,
        was_stuck: None,
        is_watched: false,
        has_watch: false,
        here: Vec::new(),
    }),
    for_accepted: Room::of(ROOM),
    for_sent: Room::of(ROOM_FOR_SENT),
    work: Condvar::new(),
    watch: Condvar::new(),
    done: Notify::const_new(),
};

struct Closer {
    state: Mutex<State>,
    for_accepted: Room,
    for_sent: Room,
    work: Condvar,
    watch: Condvar,
    /// Told whenever something is done.
    done: Notify,
}

struct State {
    waiting: Waiting,
    /// The number of the next task.
    next: u64,
    /// Each thread's; none in the place of one that has left.
    hands: Vec<Option<Hand>>,
    /// How many threads have nothing to do.
    idle: usize,
    /// When a close(2) was last seen to take long.
    was_stuck: Option<Instant>,
    /// It is looked at times whether a thread is stuck.
    is_watched: bool,
    has_watch: bool,
    /// Those that close by themselves, and have done so lately.
    here: Vec<Watched>,
}

/// What waits to be done, in its order, with its number.
struct Waiting {
    handed: VecDeque<(u64, Task)>,
    others: VecDeque<(u64, Task)>,
}

impl Waiting {
    const fn new() -> Self {
        Self { handed: VecDeque::new(), others: VecDeque::new() }
    }

    fn push(&mut self, number: u64, task: Task) {
        match task {
            Task::CloseHanded(_) => self.handed.push_back((number, task)),
            Task::Close(_) | Task::Act(_) => self.others.push_back((number, task)),
        }
    }

    fn pop(&mut self) -> Option<(u64, Task)> {
        self.handed.pop_front().or_else(|| self.others.pop_front())
    }

    fn oldest(&self) -> Option<u64> {
        [&self.handed, &self.others].into_iter().filter_map(|tasks| Some(tasks.front()?.0)).min()
    }

    fn len(&self) -> usize {
        self.handed.len() + self.others.len()
    }
}

/// What one thread does.
#[derive(Clone, Copy)]
struct Hand {
    thread: RawPthread,
    /// The number of its task, if it has one.
    doing: Option<u64>,
    /// It is still at what it was when this was last looked at.
    was_seen: bool,
}

impl Closer {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&'static self, tasks: impl IntoIterator<Item = Task>) {
        let mut state = self.lock();
        for task in tasks {
            let number = state.next;
            state.next += 1;
            state.waiting.push(number, task);
        }
        self.update_room(&state);
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
        interrupt::allow();
        let mut state = self.lock();
        if state.hands.is_empty() {
            self.begin(&mut state);
        }
        state.here.push(thread);
        state.is_watched = true;
        self.watch.notify_one();
    }

    fn update_room(&self, state: &State) {
        let waiting = state.waiting.len();
        self.for_accepted.update(waiting);
        self.for_sent.update(waiting);
    }

    /// Starts the first threads.
    fn begin(&'static self, state: &mut State) {
        state.has_watch = state.has_watch || (interrupt::handle().is_ok() && self.start_watch().is_ok());
        self.start_one(state);
    }

    fn start_watch(&'static self) -> io::Result<()> {
        let thread = thread::Builder::new().name("closer-watch".to_owned()).stack_size(STACK);
        thread.spawn(|| self.watch()).map(drop)
    }

    /// Without another thread, those that wait to be closed wait longer.
    fn start_one(&'static self, state: &mut State) {
        let me = state.hands.iter().position(Option::is_none).unwrap_or(state.hands.len());
        let thread = thread::Builder::new().name("closer".to_owned()).stack_size(STACK);
        if let Ok(started) = thread.spawn(move || self.close_all(me)) {
            let thread = started.as_pthread_t();
            let hand = Some(Hand { thread, doing: None, was_seen: false });
            match state.hands.get_mut(me) {
                Some(place) => *place = hand,
                None => state.hands.push(hand),
            }
        }
    }

    /// What one thread does; the first for ever, and others until nothing takes long any more.
    fn close_all(&self, me: usize) {
        interrupt::allow();
        while let Some(task) = self.next(me) {
            task.run();
        }
    }

    fn next(&self, me: usize) -> Option<Task> {
        let mut state = self.lock();
        state.set_doing(me, None);
        self.done.notify_waiters();
        loop {
            if let Some((number, task)) = state.waiting.pop() {
                state.set_doing(me, Some(number));
                if !state.is_watched {
                    state.is_watched = true;
                    self.watch.notify_one();
                }
                self.update_room(&state);
                return Some(task);
            }
            if me > 0 && state.was_stuck.is_none_or(|at| at.elapsed() >= REST) {
                state.hands[me] = None;
                return None;
            }
            state.idle += 1;
            state = if me == 0 {
                self.work.wait(state).unwrap_or_else(PoisonError::into_inner)
            } else {
                self.work.wait_timeout(state, REST).unwrap_or_else(PoisonError::into_inner).0
            };
            state.idle -= 1;
        }
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
        let (mut threads, mut stuck, mut busy) = (0, 0, 0);
        for hand in state.hands.iter_mut().flatten() {
            threads += 1;
            if hand.doing.is_none() {
                continue;
            }
            busy += 1;
            if hand.was_seen {
                stuck += 1;
                // SAFETY: a thread leaves its place, under the lock that is held here, before it ends.
                unsafe { libc::pthread_kill(hand.thread as libc::pthread_t, INTERRUPT) };
            }
            hand.was_seen = true;
        }
        state.here.retain_mut(Watched::look);
        if stuck > 0 {
            state.was_stuck = Some(Instant::now());
        }
        let waits = state.waiting.len() > 0;
        if waits && stuck == threads && threads < MOST_THREADS {
            self.start_one(state);
        }
        state.is_watched = busy > 0 || waits || !state.here.is_empty();
    }
}

impl State {
    fn set_doing(&mut self, me: usize, doing: Option<u64>) {
        if let Some(hand) = &mut self.hands[me] {
            (hand.doing, hand.was_seen) = (doing, false);
        }
    }

    /// The number of the task that was added first and is not done. One that takes long is not waited for.
    fn oldest(&self) -> Option<u64> {
        let doing = self.hands.iter().flatten().filter(|hand| !hand.was_seen).filter_map(|hand| hand.doing);
        doing.chain(self.waiting.oldest()).min()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::UnixListener;

    use socket2::SockRef;

    use super::*;

    /// Far less than anything lingers, and enough for a machine that has other things to do.
    const SOON: Duration = Duration::from_secs(60);

    /// A connection whose close(2) takes ten minutes, and its other end, which reads nothing.
    fn lingering() -> (ForeignFd, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.set_nonblocking(true).unwrap();
        while server.write(&[0; 65536]).is_ok() {}
        SockRef::from(&server).set_linger(Some(Duration::from_secs(600))).unwrap();
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
        batch.close_connection(fd, start - MOMENT);
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
        let (mut batch, earlier) = (Batch::default(), Instant::now() - MOMENT);
        batch.close_connection(fd, earlier);
        assert_eq!(batch.waiting.len(), 1);
        SockRef::from(&quick).set_linger(None).unwrap();
        batch.close_connection(quick, earlier);
        assert_eq!(batch.waiting.len(), 1);
        drop(batch);
        numbers.iter().for_each(Number::until_closed);
    }

    #[test]
    fn copies_of_connections_that_were_handed_over_come_first() {
        let fd = || OwnedFd::from(io::pipe().unwrap().0);
        let mut waiting = Waiting::new();
        waiting.push(0, Task::Close(fd()));
        waiting.push(1, Task::CloseHanded(fd()));
        waiting.push(2, Task::Act(Box::new(|| ())));
        assert_eq!(waiting.oldest(), Some(0));
        let order: Vec<_> = std::iter::from_fn(|| waiting.pop()).collect();
        assert!(matches!(order[..], [(1, Task::CloseHanded(_)), (0, Task::Close(_)), (2, Task::Act(_))]));
    }

    #[test]
    fn a_connection_lingers_as_whoever_else_has_it_wants() {
        let (fd, _peer) = lingering();
        let (again, number) = (fd.try_clone().unwrap(), Number::of(&fd));
        drop(fd);
        number.until_closed();
        assert_eq!(SockRef::from(&again).linger().unwrap(), Some(Duration::from_secs(600)));
    }

    #[tokio::test]
    async fn a_name_is_free_once_the_last_copy_of_its_listener_is_closed() {
        let name = format!("clusterd-closer-{}", std::process::id());
        let name = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
        let mut has_caught_up = true;
        for _ in 0..100 {
            let start = Instant::now();
            let listener = loop {
                match UnixListener::bind_addr(&name) {
                    Err(_) if !has_caught_up && start.elapsed() < SOON => catch_up().await,
                    bound => break bound.unwrap(),
                }
            };
            drop(ForeignFd::from(OwnedFd::from(listener)));
            let start = Instant::now();
            catch_up().await;
            // Other tests have it wait for what lingers.
            has_caught_up = start.elapsed() < CATCH_UP;
        }
    }

    #[tokio::test]
    async fn what_is_done_elsewhere_comes_back() {
        assert_eq!(elsewhere(|| Ok(7)).await.unwrap(), 7);
        let failed = elsewhere(|| Err::<(), _>(ErrorKind::NotFound.into())).await.unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::NotFound);
    }
}
