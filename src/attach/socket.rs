//! The attach socket: where a worker's process asks to listen, and gets its channel.
//!
//! It listens, and hears the first message of each connection; what follows from that is in [`handshake`] and
//! [`questions`].

use std::future::poll_fn;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::SocketAddrUnix;
use tokio::io::Interest;
use tokio::sync::{Notify, oneshot};
use tracing::warn;

use super::handshake::{self, AttachError, Hello, PATIENCE};
use super::served::ServedPorts;
use super::snapshot::{AttachSnapshot, Stage, TurnSnapshot, wrong};
use super::turns::{Room, Turn, Turns};
use super::waiting::{Complaints, Waiting};
use super::{listener, on_demand, questions};
use crate::carry::{CarriedFd, CarriedFds, NotCarried, Steps, Still};
use crate::ids::{LinkId, WorkerPort};
use crate::protocol::wire::{Binding, FromWorker, MAX_MESSAGE, ToWorker};
use crate::supervisor;
use crate::sys::closer::{self, ForeignFd};
use crate::sys::peer::Peer;
use crate::sys::watched::Watched;
use crate::sys::{guarded, seqpacket};
use crate::tasks;

/// What the socket is called in its folder.
const FILE_NAME: &str = "attach";

/// How many connections may wait in the attach socket's backlog.
const BACKLOG: i32 = 256;

/// How long those may take that are being answered when it is to stand still. Whoever is waited for is not among them.
const FINISHING: Duration = Duration::from_millis(500);

/// The socket, listening.
#[derive(Debug)]
pub(crate) struct AttachSocket {
    state: Arc<State>,
    /// Those that another image had in hand.
    carried: Vec<(Applicant, Begun)>,
}

/// Asks the socket to stand still.
#[derive(Clone, Debug)]
pub(crate) struct AttachHandle(Arc<State>);

/// What the socket shares with those that bind it again, and with whoever has it stand still.
#[derive(Debug)]
struct State {
    name: String,
    turns: Turns,
    listening: Mutex<Listening>,
    /// Told when there is a listener to take the place of this one.
    replaced: Notify,
}

#[derive(Debug)]
struct Listening {
    now: Arc<Watched<ForeignFd>>,
    next: Option<Watched<ForeignFd>>,
}

/// Binds the attach socket again where its file was removed, while it is served.
#[derive(Debug)]
pub(crate) struct Rebind {
    path: PathBuf,
    state: Arc<State>,
}

impl Rebind {
    /// Whether there is a socket where workers look for it.
    pub(crate) fn is_bound(&self) -> bool {
        self.path.symlink_metadata().is_ok_and(|file| file.file_type().is_socket())
    }

    /// Listens at the same path again. The listener before is closed once it has answered everybody that waits there.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub(crate) fn again(&self) -> io::Result<()> {
        let stands_still = || io::Error::other("the attach socket stands still");
        let _step = self.state.turns.steps.step_now().ok_or_else(stands_still)?;
        let mut listening = self.state.listening();
        if listening.next.is_some() {
            return Err(io::Error::other("the attach socket is not served"));
        }
        listening.next = Some(listen_at(&self.path)?);
        drop(listening);
        self.state.replaced.notify_one();
        Ok(())
    }
}

/// What the handshakes depend on.
#[derive(Clone, Debug)]
pub(crate) struct AttachContext {
    /// Knows whose tokens there are.
    pub supervisor: supervisor::Handle,
    /// Where channels go.
    pub served: ServedPorts,
    /// What servers that take their listeners as from systemd get.
    pub inherited: Arc<[(WorkerPort, Binding)]>,
}

impl AttachSocket {
    /// Listens in `folder`, or at an abstract name where there is no folder.
    ///
    /// # Errors
    /// Those of bind(2) and listen(2).
    pub(crate) fn bind(folder: Option<&Path>) -> io::Result<Self> {
        let (listener, name) = match folder {
            Some(folder) => {
                let path = folder.join(FILE_NAME);
                (listen_at(&path)?, path.display().to_string())
            }
            None => {
                let name = format!("clusterd-{:016x}", fastrand::u64(..));
                let address = SocketAddrUnix::new_abstract_name(name.as_bytes())?;
                (listen(&address)?, format!("@{name}"))
            }
        };
        Ok(Self::new(listener, None, name))
    }

    fn new(listener: Watched<ForeignFd>, next: Option<Watched<ForeignFd>>, name: String) -> Self {
        let listening = Mutex::new(Listening { now: Arc::new(listener), next });
        let state = State { name, turns: Turns::new(), listening, replaced: Notify::new() };
        Self { state: Arc::new(state), carried: Vec::new() }
    }

    /// Goes on with what another image had. Whom it had in hand is answered once this is served.
    ///
    /// # Errors
    /// It is not what [`AttachHandle::stand_still`] has told; a descriptor is missing, or cannot be watched.
    pub(crate) fn restore(snapshot: AttachSnapshot, fds: &CarriedFds) -> io::Result<Self> {
        let AttachSnapshot { name, listener, next, turns } = snapshot;
        let watch = |fd| Watched::new(ForeignFd::from(fds.take(fd)?), Interest::READABLE);
        let mut socket = Self::new(watch(listener)?, next.map(watch).transpose()?, name);
        socket.state.look_again();
        for turn in turns {
            let room =
                socket.state.turns.room_now().ok_or_else(|| wrong("more processes attach than may"))?;
            socket.carried.push(Applicant::restore(turn, room, &socket.state.turns, fds)?);
        }
        Ok(socket)
    }

    /// What has it stand still.
    pub(crate) fn handle(&self) -> AttachHandle {
        AttachHandle(Arc::clone(&self.state))
    }

    /// What binds it again in this folder, where it is bound.
    pub(crate) fn rebind(&self, folder: &Path) -> Rebind {
        Rebind { path: folder.join(FILE_NAME), state: Arc::clone(&self.state) }
    }

    /// What workers find in their environment: a path, or `@name`.
    pub(crate) fn name(&self) -> &str {
        &self.state.name
    }

    /// Answers for as long as the program runs.
    pub(crate) async fn serve(self, context: AttachContext) {
        let Self { state, carried } = self;
        tasks::spawn(close_unused(state.turns.steps.clone(), context.served.clone()));
        let (mut waiting, complaints) = (Waiting::default(), Complaints::default());
        for (applicant, begun) in carried {
            let goes = waiting.joined(applicant.peer.uid);
            tasks::spawn(answer(applicant, begun, goes, context.clone(), complaints.clone()));
        }
        let mut is_said = false;
        // Nobody closes the semaphore.
        while let Some(room) = state.turns.room().await {
            poll_fn(closer::poll_room_for_sent).await;
            match state.accept(room).await {
                Ok(applicant) => {
                    is_said = false;
                    let goes = waiting.joined(applicant.peer.uid);
                    tasks::spawn(answer(applicant, Begun::Not, goes, context.clone(), complaints.clone()));
                }
                Err(error) => {
                    if !std::mem::replace(&mut is_said, true) {
                        warn!(%error, "cannot accept at the attach socket; trying again");
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl AttachHandle {
    /// Has the socket accept nobody, and whoever is being answered come to an end; who is waited for goes along. The front
    /// and the supervisor have to be there for that.
    ///
    /// # Errors
    /// Somebody is still being answered.
    pub(crate) async fn stand_still(&self) -> Result<Still<AttachSnapshot>, NotCarried> {
        let state = Arc::clone(&self.0);
        let stopped = state.turns.steps.stop(FINISHING).await;
        let stopped = stopped.ok_or_else(|| {
            NotCarried(format!("a process of a worker is attaching, which takes longer than {FINISHING:?}"))
        })?;
        Ok(Still::new(state.snapshot(), (stopped, state)))
    }
}

impl State {
    fn listening(&self) -> MutexGuard<'_, Listening> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn snapshot(&self) -> AttachSnapshot {
        let listening = self.listening();
        AttachSnapshot {
            name: self.name.clone(),
            listener: CarriedFd::of(&*listening.now),
            next: listening.next.as_ref().map(CarriedFd::of),
            turns: self.turns.snapshot(),
        }
    }

    /// The next process that connects.
    async fn accept(&self, room: Room) -> io::Result<Applicant> {
        loop {
            let listener = Arc::clone(&self.listening().now);
            let ready = tokio::select! {
                biased;
                ready = listener.readable() => Some(ready?),
                () = self.replaced.notified() => None,
            };
            let _step = self.turns.steps.step().await;
            let accept = || seqpacket::accept(&*listener);
            let accepted = match ready {
                Some(mut ready) => ready.try_io(|_| accept()).ok(),
                None => Some(accept()),
            };
            match accepted {
                Some(Ok(channel)) => {
                    self.look_again();
                    let channel = ForeignFd::from(channel);
                    let Ok(peer) = Peer::of(&channel) else { continue };
                    return Ok(Applicant::new(channel, peer, room, &self.turns));
                }
                Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                // Whoever waits at the one before was answered.
                _ => self.replace(),
            }
        }
    }

    /// Others may wait at the listener, or another one to take its place.
    fn look_again(&self) {
        if self.listening().next.is_some() {
            self.replaced.notify_one();
        }
    }

    fn replace(&self) {
        let mut listening = self.listening();
        if let Some(next) = listening.next.take() {
            listening.now = Arc::new(next);
        }
    }
}

/// Closes what was opened for servers that are gone, as long as the program runs.
async fn close_unused(steps: Steps, served: ServedPorts) {
    let Some(on_demand) = &served.on_demand else { return };
    let mut times = tokio::time::interval(on_demand::LOOK);
    loop {
        times.tick().await;
        let _step = steps.step().await;
        on_demand.close_unused(&served.bound, &served.front, Instant::now()).await;
    }
}

fn listen_at(path: &Path) -> io::Result<Watched<ForeignFd>> {
    let listener = listen(&SocketAddrUnix::new(path)?)?;
    // Who may attach is decided by the token, whatever user a process has become.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

fn listen(address: &SocketAddrUnix) -> io::Result<Watched<ForeignFd>> {
    let listener = seqpacket::listen(address, BACKLOG)?;
    // Nobody can send one before it is admitted. An older kernel lets them, and then they are not received.
    guarded::pass_descriptors(&listener, false);
    Watched::new(listener.into(), Interest::READABLE)
}

/// A process that has connected.
#[derive(Debug)]
struct Applicant {
    channel: ForeignFd,
    peer: Peer,
    turn: Turn,
    /// How long it may take for what it has to say next.
    until: Instant,
}

/// What another image has begun for it.
#[derive(Debug)]
enum Begun {
    /// Nothing.
    Not,
    /// It was told that it may send descriptors, and may have sent its end.
    Admitted(Hello, Option<ForeignFd>),
    /// It has got these listeners.
    Inherited(Vec<LinkId>),
}

impl Applicant {
    fn new(channel: ForeignFd, peer: Peer, room: Room, turns: &Turns) -> Self {
        let until = Instant::now() + PATIENCE;
        let turn = turns.begin(room, &channel, Stage::Began, until);
        Self { channel, peer, turn, until }
    }

    fn restore(
        snapshot: TurnSnapshot,
        room: Room,
        turns: &Turns,
        fds: &CarriedFds,
    ) -> io::Result<(Self, Begun)> {
        let TurnSnapshot { channel, stage, until } = snapshot;
        let (channel, until) = (ForeignFd::from(fds.take(channel)?), until.into());
        let taken = |fd: CarriedFd| fds.take(fd).map(ForeignFd::from);
        let begun = match stage.clone() {
            Stage::Began => Begun::Not,
            Stage::Admitted { hello, worker_end } => {
                Begun::Admitted(hello, worker_end.map(taken).transpose()?)
            }
            Stage::Inherited { links } => Begun::Inherited(links),
        };
        let peer = Peer::of(&channel)?;
        // It is written down once more as soon as it is waited for.
        let turn = turns.begin(room, &channel, stage, until);
        Ok((Self { channel, peer, turn, until }, begun))
    }
}

/// Hears what one process wants, and answers. What is not admitted is closed unread.
async fn answer(
    applicant: Applicant,
    begun: Begun,
    goes: oneshot::Receiver<()>,
    context: AttachContext,
    complaints: Complaints,
) {
    let Applicant { channel, peer, mut turn, until } = applicant;
    let answered = match begun {
        Begun::Not => match first_message(&channel, &mut turn, until, goes).await {
            Ok(message) => hear(message, &channel, (peer, &mut turn), &context).await,
            Err(error) => Err(error),
        },
        Begun::Admitted(hello, worker_end) => {
            let before = Some(handshake::Invited { worker_end, until });
            handshake::attach(&channel, (peer, &mut turn), hello, before, &context).await
        }
        Begun::Inherited(links) => listener::inherited(&channel, &mut turn, (links, until), &context).await,
    };
    if let Err(error) = answered {
        error.log(peer, &complaints);
        let refuse = ToWorker::Refuse(error.refusal());
        let _ = seqpacket::send(&channel, refuse.encode(&mut [0; MAX_MESSAGE]), None);
    }
}

async fn hear(
    message: FromWorker,
    channel: &ForeignFd,
    (peer, turn): (Peer, &mut Turn),
    context: &AttachContext,
) -> Result<(), AttachError> {
    match message {
        FromWorker::Attach { token, binding, wants_drain, brings_socket } => {
            let hello = Hello { token, binding, wants_drain, brings_socket };
            handshake::attach(channel, (peer, turn), hello, None, context).await
        }
        FromWorker::FetchSocket { token, nonce } => {
            questions::fetch_socket(channel, token, nonce, context).await
        }
        FromWorker::AskListened { token, port, channel: nonce } => {
            questions::ask_listened(channel, token, (WorkerPort(port), nonce), context).await
        }
        FromWorker::Inherit { token } => listener::inherit(channel, (peer, turn), token, context).await,
        FromWorker::Listens { token, cookie } => listener::listens(channel, token, cookie, context).await,
        FromWorker::Catches { token, signals } => questions::catches(token, signals, context).await,
        _ => Err(AttachError::Malformed),
    }
}

/// Waits for the message that opens a connection, and leaves it where it is: no descriptor of a process that may not be
/// admitted is received.
async fn first_message(
    channel: &ForeignFd,
    turn: &mut Turn,
    until: Instant,
    goes: oneshot::Receiver<()>,
) -> Result<FromWorker, AttachError> {
    let heard = async {
        tokio::select! {
            message = handshake::peek(channel) => Ok(message),
            _ = goes => Err(AttachError::GaveWay),
        }
    };
    let heard = turn.wait(channel, (Stage::Began, until), heard).await;
    match heard.unwrap_or(Err(AttachError::Silent)) {
        Ok(message) => message,
        // Who has spoken by now is heard.
        Err(error) => handshake::peek_now(channel).unwrap_or(Err(error)),
    }
}

#[cfg(test)]
mod tests;
