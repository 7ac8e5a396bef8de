//! Workers whose bind(2) and listen(2) are told to this process, because nothing can be preloaded into them: Go, static
//! programs, raw system calls.
//!
//! At bind(2) of a served port, a listening socket of the worker's own takes the place of its socket, and its listen(2) is what
//! tells that it is ready. All else is between the worker and the kernel: it accepts by itself.
//!
//! What a process may ask is `admission`'s to decide, and what stands in its way is known to [`bound`].

use std::collections::HashMap;
use std::io;
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::process::Pid;
use socket2::{Domain, SockRef};
use tokio::io::Interest;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::admission::{self, Admission, Applicant, Refusal, Request, Rules, Takes};
use super::bound::{self, Bound};
use super::handshake::AttachError;
use super::listener;
use super::served::ServedPorts;
use super::snapshot::{CallSnapshot, CallsSnapshot};
use crate::carry::{CarriedFd, CarriedFds, NotCarried, Step, Steps, Still};
use crate::front::steering::Given;
use crate::ids::{WorkerId, WorkerPort};
use crate::protocol::wire::{Binding, Endpoint};
use crate::sys::blocking;
use crate::sys::remote::{self, Remote, RemoteSocket};
use crate::sys::seccomp::notifications::{Asks, Call, Notifications};
use crate::sys::socket;
use crate::sys::watched::Watched;
use crate::tasks;

/// How long a call waits for a free descriptor, and how often it is looked for one.
const PATIENCE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_millis(100);

/// How long it may take until whatever is being done for a worker is done when all are to stand still.
const FINISHING: Duration = Duration::from_millis(500);

/// Answers the calls of workers.
#[derive(Debug)]
pub(crate) struct InterceptedCalls {
    served: ServedPorts,
    /// Whatever is done, beside waiting for calls and looking into processes.
    steps: Steps,
    /// Of which there are processes, also of launches that are gone.
    launches: Vec<Weak<Calls>>,
}

/// The calls of one launch, and of whatever descends from it.
#[derive(Debug)]
struct Calls {
    worker: WorkerId,
    notifications: Watched<Notifications>,
    /// Cancelled when the launch is gone.
    gone: CancellationToken,
    known: Mutex<Known>,
}

/// What is known beside them.
#[derive(Debug, Default)]
struct Known {
    /// Listening sockets that are in place, while the bind(2) for them has not returned, by their cookies (SO_COOKIE,
    /// socket(7)). A call that a signal has interrupted is made again, on the socket that is in place by then.
    untold: HashMap<u64, Endpoint>,
    /// It was said that its processes cannot be looked into.
    told_of_access: bool,
    /// The call that is being answered.
    call: Option<CallSnapshot>,
}

/// Answers the calls of one launch.
#[derive(Debug)]
struct Launch {
    worker: WorkerId,
    served: ServedPorts,
    calls: Arc<Calls>,
    steps: Steps,
    step: Option<Step>,
}

/// What a call comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// It is the kernel's to carry out.
    CarryOut,
    /// It has succeeded.
    Done,
    /// The socket of this cookie is in place: bind(2) has succeeded.
    Bound(u64),
    /// It has failed with this error (errno(3)).
    Failed(i32),
}

/// No descriptor is free, or no memory, which passes.
#[derive(Debug)]
struct Scarce(io::Error);

impl Scarce {
    /// Any other error is given back.
    fn unless(error: io::Error) -> Result<io::Error, Self> {
        match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::ENOBUFS) => Err(Self(error)),
            _ => Ok(error),
        }
    }
}

/// A socket that is to be bound, as its process has it.
#[derive(Debug)]
struct Asked {
    process: Remote,
    number: i32,
    socket: RemoteSocket,
    /// Whose it is.
    uid: u32,
    binding: Binding,
}

impl InterceptedCalls {
    /// With this they are answered.
    pub(crate) fn new(served: ServedPorts) -> Self {
        Self { served, steps: Steps::default(), launches: Vec::new() }
    }

    /// Answers the calls of a launch until none of its processes is left.
    pub(crate) fn answer(&mut self, worker: WorkerId, notifications: Notifications) {
        if let Err(error) = self.begin(worker, notifications, Known::default()) {
            // They fail with ENOSYS then.
            warn!(%worker, %error, "cannot answer the worker's bind and listen calls");
        }
    }

    fn begin(&mut self, worker: WorkerId, notifications: Notifications, known: Known) -> io::Result<()> {
        let notifications = Watched::new(notifications, Interest::READABLE)?;
        let gone = CancellationToken::new();
        let calls = Arc::new(Calls { worker, notifications, gone, known: Mutex::new(known) });
        self.launches.retain(|launch| launch.strong_count() > 0);
        self.launches.push(Arc::downgrade(&calls));
        let (served, steps) = (self.served.clone(), self.steps.clone());
        tasks::spawn(Launch { worker, served, calls, steps, step: None }.answer_all());
        Ok(())
    }

    /// The launch is gone. Processes that it has left behind bind on their own from now on.
    pub(crate) fn gone(&mut self, worker: WorkerId) {
        let launches = self.launches.iter().filter_map(Weak::upgrade);
        launches.filter(|calls| calls.worker == worker).for_each(|calls| calls.gone.cancel());
    }

    /// Has no call received, and none answered. One that waits for what may take long is told to the next image, which
    /// answers it anew. The front has to be there for that.
    ///
    /// # Errors
    /// What is being done for one takes too long.
    pub(crate) fn stand_still(
        &self,
    ) -> impl Future<Output = Result<Still<Vec<CallsSnapshot>>, NotCarried>> + Send + use<> {
        let (steps, launches) = (self.steps.clone(), self.launches.clone());
        async move {
            let stopped = steps.stop(FINISHING).await.ok_or_else(|| {
                NotCarried(format!("a worker's bind or listen takes longer than {FINISHING:?}"))
            })?;
            let launches: Vec<_> = launches.iter().filter_map(Weak::upgrade).collect();
            let snapshot = launches.iter().map(|calls| calls.snapshot()).collect();
            Ok(Still::new(snapshot, (stopped, launches)))
        }
    }

    /// Goes on with the calls of a launch that another image has answered.
    ///
    /// # Errors
    /// It is not what [`InterceptedCalls::stand_still`] has told; a descriptor is missing, or cannot be watched.
    pub(crate) fn restore(&mut self, snapshot: CallsSnapshot, fds: &CarriedFds) -> io::Result<()> {
        let CallsSnapshot { worker, notifications, is_gone, untold, told_of_access, call } = snapshot;
        if let Some(call) = &call {
            call.restore()?;
        }
        let untold = untold.into_iter().collect();
        let notifications = Notifications::new(fds.take(notifications)?);
        self.begin(worker, notifications, Known { untold, told_of_access, call })?;
        if is_gone {
            self.gone(worker);
        }
        Ok(())
    }
}

impl Calls {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> CallsSnapshot {
        let known = self.known();
        CallsSnapshot {
            worker: self.worker,
            notifications: CarriedFd::of(&self.notifications),
            is_gone: self.gone.is_cancelled(),
            untold: known.untold.iter().map(|(&cookie, &address)| (cookie, address)).collect(),
            told_of_access: known.told_of_access,
            call: known.call.clone(),
        }
    }
}

impl Launch {
    async fn answer_all(mut self) {
        loop {
            let (call, until) = match self.next().await {
                Ok(call) => call,
                Err(error) if error.raw_os_error() == Some(libc::ENOENT) => continue,
                Err(error) => {
                    return debug!(worker = %self.worker, %error, "no process of the worker can call any more");
                }
            };
            let answer = match self.calls.gone.is_cancelled() {
                true => Answer::CarryOut,
                false => self.answer(&call, until).await,
            };
            if let Err(error) = self.tell(&call, answer) {
                debug!(worker = %self.worker, %error, "a call was given up before it was answered");
            }
            self.calls.known().call = None;
        }
    }

    /// The call that another image has begun to answer, or else the next one, and how long it waits at most. A step has begun.
    async fn next(&mut self) -> io::Result<(Call, Instant)> {
        self.step = None;
        let begun = self.calls.known().call.clone();
        if let Some(begun) = begun {
            self.step = Some(self.steps.step().await);
            return begun.restore();
        }
        let notifications = &self.calls.notifications;
        loop {
            let mut ready = notifications.readable().await?;
            let step = self.steps.step().await;
            let Ok(received) = ready.try_io(|_| notifications.owner().receive()) else { continue };
            let (call, until) = (received?, Instant::now() + PATIENCE);
            self.calls.known().call = Some(CallSnapshot::of(&call, until));
            self.step = Some(step);
            return Ok((call, until));
        }
    }

    /// Looks into a process, between two steps.
    async fn apart<T: Send + 'static>(
        &mut self,
        look: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        self.between_steps(blocking::run(look)).await
    }

    async fn between_steps<T>(&mut self, waits: impl Future<Output = T>) -> T {
        self.step = None;
        let outcome = waits.await;
        self.step = Some(self.steps.step().await);
        outcome
    }

    /// What the call comes to. While no descriptor or no memory is free it waits, as at the attach socket: carried out by the
    /// kernel it would fail, or listen beside the others unseen.
    async fn answer(&mut self, call: &Call, until: Instant) -> Answer {
        let mut is_said = false;
        loop {
            let tried = match call.asks {
                Asks::Bind { fd, address, len } => self.bind(call, fd, (address, len)).await,
                Asks::Listen { fd } => self.listen(call, fd).await,
                Asks::Other => Ok(Answer::CarryOut),
            };
            let error = match tried {
                Ok(answer) => return answer,
                Err(Scarce(error)) => error,
            };
            if !std::mem::replace(&mut is_said, true) {
                warn!(worker = %self.worker, %error, "cannot answer the worker's bind or listen yet; trying again");
            }
            if Instant::now() >= until
                || self.calls.gone.is_cancelled()
                || !self.calls.notifications.owner().is_pending(call)
            {
                return Answer::Failed(libc::ENOBUFS);
            }
            self.between_steps(tokio::time::sleep(AGAIN)).await;
        }
    }

    fn tell(&mut self, call: &Call, answer: Answer) -> io::Result<()> {
        let calls = self.calls.notifications.owner();
        match answer {
            Answer::CarryOut => calls.carry_out(call),
            Answer::Done => calls.tell(call, Ok(())),
            Answer::Failed(errno) => calls.tell(call, Err(errno)),
            Answer::Bound(cookie) => {
                calls.tell(call, Ok(()))?;
                self.calls.known().untold.remove(&cookie);
                Ok(())
            }
        }
    }

    async fn bind(&mut self, call: &Call, fd: i32, (at, len): (u64, u32)) -> Result<Answer, Scarce> {
        let (thread, served) = (call.thread, self.served.clone());
        let look = move || ask(thread, fd, (at, len), served.rules_where_workers_accept());
        let asked = match self.apart(look).await {
            Ok(Some(asked)) if self.calls.notifications.owner().is_pending(call) => asked,
            Ok(_) => return Ok(Answer::CarryOut),
            Err(error) => {
                let error = Scarce::unless(error)?;
                self.complain(&error);
                return Ok(Answer::CarryOut);
            }
        };
        let cookie = self.cookie_of(&asked.socket);
        let is_untold = |cookie: &u64| self.calls.known().untold.get(cookie) == Some(&asked.binding.address);
        if let Some(cookie) = cookie.filter(is_untold) {
            return Ok(Answer::Bound(cookie));
        }
        // Of one that is bound the kernel says EINVAL.
        let is_bound = match asked.socket.is_likeness {
            true => cookie.is_some(),
            false => bound_port(&asked.socket.socket) != 0,
        };
        if is_bound {
            return Ok(Answer::CarryOut);
        }
        match self.give(call, asked).await {
            Ok(answer) => Ok(answer),
            Err(AttachError::Socket(error)) => Ok(self.refuse(&Scarce::unless(error)?.into())),
            Err(error) => Ok(self.refuse(&error)),
        }
    }

    /// The cookie of a process's socket; `None` if that cannot be had, or only of one that was put in place.
    fn cookie_of(&self, RemoteSocket { socket, is_likeness, inode }: &RemoteSocket) -> Option<u64> {
        match is_likeness {
            true => self.served.bound.cookie_of(self.worker, *inode),
            false => rustix::net::sockopt::socket_cookie(socket).ok(),
        }
    }

    /// Puts a listening socket in the place of the process's own.
    async fn give(&mut self, call: &Call, asked: Asked) -> Result<Answer, AttachError> {
        let permit = self.served.permits.take();
        let port = WorkerPort(asked.binding.address.port());
        let request =
            Request { applicant: Applicant::Started(self.worker), port, takes: Takes::ChannelOrSocket };
        let rules = self.served.rules_where_workers_accept();
        let admitted = admission::admit(request, permit.as_ref(), rules)?;
        let (Admission { worker, source, .. }, Some(permit)) = (admitted, permit) else {
            return Err(Refusal::NotServed(port).into());
        };
        let service = self.served.service(source, &asked.binding).await?;
        let bound = Bound { worker, uid: asked.uid, binding: asked.binding };
        let pid = call.thread.as_raw_pid();
        let made = listener::make(None, (bound, pid), (service, Given::Bound), permit, &self.served).await?;
        bound::set_as_on(&asked.socket.socket, &made.listener);
        let (link, cookie, address) = (made.link, made.cookie, asked.binding.address);
        match self.place(call, asked, made.listener).await {
            Ok(()) => {
                self.calls.known().untold.insert(cookie, address);
                Ok(Answer::Bound(cookie))
            }
            Err(error) => {
                self.served.front.detach(link).await;
                Err(error.into())
            }
        }
    }

    /// Under each number that the process has for its socket, and at each epoll instance that watches it.
    async fn place(&self, call: &Call, asked: Asked, listener: OwnedFd) -> io::Result<()> {
        copy_mode(&asked.socket.socket, &listener)?;
        let asked_for = (asked.process, asked.number, asked.socket.inode);
        let (numbers, watches) = blocking::run(move || look_around(asked_for)).await?;
        for (number, closes_on_exec) in numbers {
            let put = self.calls.notifications.owner().put(call, listener.as_fd(), number, closes_on_exec);
            if put.as_ref().is_err_and(is_above_limit) {
                warn!(
                    worker = %self.worker, number, limit = remote::open_files_limit(call.thread),
                    "the number of the worker's socket is not below its limit of open files (RLIMIT_NOFILE), which it has \
                     lowered since, so that no listening socket can be put in its place"
                );
            }
            put?;
        }
        // Without it the old registrations would stay.
        drop(asked.socket);
        if let Err(error) = blocking::run(move || remote::watch_again(&watches?, listener.as_fd())).await {
            warn!(worker = %self.worker, %error, "cannot register the worker's listening socket with its epoll instance");
        }
        Ok(())
    }

    /// Its backlog is what `--backlog` says, however often and with whatever the server calls it.
    async fn listen(&mut self, call: &Call, fd: i32) -> Result<Answer, Scarce> {
        let thread = call.thread;
        let socket = match self.apart(move || Remote::of_thread(thread)?.socket(fd)).await {
            Ok(socket) => socket,
            Err(error) => return Scarce::unless(error).map(|_| Answer::CarryOut),
        };
        let cookie = socket.and_then(|socket| self.cookie_of(&socket));
        let Some(cookie) = cookie.filter(|_| self.calls.notifications.owner().is_pending(call)) else {
            return Ok(Answer::CarryOut);
        };
        match listener::let_in(self.worker, cookie, &self.served).await {
            Ok(true) => Ok(Answer::Done),
            Ok(false) => Ok(Answer::CarryOut),
            Err(error) => {
                let error = Scarce::unless(error)?;
                warn!(worker = %self.worker, %error, "cannot listen for the worker");
                Ok(Answer::Failed(error.raw_os_error().unwrap_or(libc::EADDRINUSE)))
            }
        }
    }

    fn refuse(&mut self, error: &AttachError) -> Answer {
        match error {
            // It is free, or the kernel says what is wrong with it.
            AttachError::Refused(Refusal::NotServed(_) | Refusal::NoAddress { .. }) => {
                return Answer::CarryOut;
            }
            AttachError::Refused(refusal @ Refusal::InUse { is_news: true, .. }) => info!("{refusal}"),
            AttachError::Socket(error) if is_access(error) => {
                self.complain(error);
                return Answer::CarryOut;
            }
            // It was said.
            AttachError::Socket(error) if is_above_limit(error) => return Answer::Failed(libc::EBADF),
            AttachError::Socket(error) => {
                warn!(worker = %self.worker, %error, "cannot make a listening socket for the worker");
                return Answer::Failed(error.raw_os_error().unwrap_or(libc::EADDRINUSE));
            }
            other => debug!(worker = %self.worker, error = %other, "refused a listening socket"),
        }
        Answer::Failed(libc::EADDRINUSE)
    }

    /// Of what an operator can mend, once for each launch.
    fn complain(&mut self, error: &io::Error) {
        match is_access(error) {
            true if std::mem::replace(&mut self.calls.known().told_of_access, true) => {}
            true => warn!(
                worker = %self.worker, %error,
                "cannot look into a process of the worker (ptrace access), so that it is not served; start clusterd as the \
                 same user, or with CAP_SYS_PTRACE"
            ),
            false => {
                debug!(worker = %self.worker, %error, "a call asks what the kernel refuses, or its process is gone")
            }
        }
    }
}

/// What bind(2) asks, if it is to bind a TCP socket to one of these ports.
fn ask(thread: Pid, number: i32, (at, len): (u64, u32), rules: Rules<'_>) -> io::Result<Option<Asked>> {
    let mut address = [0; size_of::<libc::sockaddr_storage>()];
    let Some(read) = usize::try_from(len).ok().and_then(|len| address.get_mut(..len)) else {
        return Ok(None);
    };
    let process = Remote::of_thread(thread)?;
    process.read(at, read)?;
    let Some(address) = endpoint(read).filter(|address| rules.may_serve(WorkerPort(address.port()))) else {
        return Ok(None);
    };
    let Some(socket) = process.socket(number)?.filter(|seen| is_of_family(&seen.socket, &address)) else {
        return Ok(None);
    };
    let is_set = |level, name| {
        let mut value = [0; 4];
        socket::option(&socket.socket, level, name, &mut value).is_ok_and(|value| value != [0; 4])
    };
    let binding = Binding {
        address,
        only_v6: is_set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY),
        reuses_address: is_set(libc::SOL_SOCKET, libc::SO_REUSEADDR),
        reuses_port: is_set(libc::SOL_SOCKET, libc::SO_REUSEPORT),
    };
    let uid = process.uid.map_or_else(|| Ok(rustix::fs::fstat(&socket.socket)?.st_uid), io::Result::Ok)?;
    Ok(Some(Asked { process, number, socket, uid, binding }))
}

/// The numbers of a socket, each with whether it is close-on-exec, and what watches it if that can be had.
type Around = (Vec<(i32, bool)>, io::Result<Vec<remote::Watch>>);

/// Under which numbers a process has a socket, each with whether it is close-on-exec, and what watches it there.
fn look_around((process, number, inode): (Remote, i32, u64)) -> io::Result<Around> {
    let mut numbers = process.numbers_of(inode, number)?;
    // Where one is too high, none is changed.
    numbers.sort_unstable_by(|one, other| other.cmp(one));
    let with_flags = |&number: &i32| Ok((number, process.closes_on_exec(number)?));
    let numbers = numbers.iter().map(with_flags).collect::<io::Result<_>>()?;
    Ok((numbers, process.watches(number, inode)))
}

/// The address in a `struct sockaddr_in` or `sockaddr_in6`, as bind(2) reads it.
fn endpoint(bytes: &[u8]) -> Option<Endpoint> {
    let (family, rest) = bytes.split_first_chunk()?;
    let (port, rest) = rest.split_first_chunk()?;
    let port = u16::from_be_bytes(*port);
    match i32::from(u16::from_ne_bytes(*family)) {
        // The address is followed by eight bytes that nobody reads and everybody has to give.
        libc::AF_INET if rest.len() >= 12 => Some(Endpoint::V4 { address: *rest.first_chunk()?, port }),
        // What old programs say for every address.
        libc::AF_UNSPEC if rest.len() >= 12 && rest.starts_with(&[0; 4]) => {
            Some(Endpoint::V4 { address: [0; 4], port })
        }
        libc::AF_INET6 => {
            let (address, rest) = rest.get(4..)?.split_first_chunk()?;
            // Without the scope, a structure of RFC 2133 is accepted, too.
            let scope = rest.first_chunk().map_or(0, |scope| u32::from_ne_bytes(*scope));
            Some(Endpoint::V6 { address: *address, port, scope })
        }
        _ => None,
    }
}

/// Whether a socket can be bound to an address of this kind.
fn is_of_family(socket: &OwnedFd, address: &Endpoint) -> bool {
    let socket = SockRef::from(socket);
    let is_in = |domain| socket.domain().is_ok_and(|its| its == domain);
    match address {
        Endpoint::V4 { .. } => is_in(Domain::IPV4),
        Endpoint::V6 { address, .. } => {
            let is_v4 = Ipv6Addr::from(*address).to_ipv4_mapped().is_some();
            is_in(Domain::IPV6) && !(is_v4 && socket.only_v6().unwrap_or(false))
        }
    }
}

fn is_access(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EACCES | libc::EPERM))
}

/// What is said of a number at which nothing can be put.
fn is_above_limit(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EBADF)
}

/// Whether calls wait.
fn copy_mode(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let mode = rustix::fs::fcntl_getfl(from)? & OFlags::NONBLOCK;
    Ok(rustix::fs::fcntl_setfl(to, mode)?)
}

/// The port to which a socket is bound; 0 if to none.
fn bound_port(socket: &OwnedFd) -> u16 {
    let address = SockRef::from(socket).local_addr().ok().and_then(|address| address.as_socket());
    address.map_or(0, |address| address.port())
}

#[cfg(test)]
mod tests;
