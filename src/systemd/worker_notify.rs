//! Hears what workers say on their notification sockets, and passes on that they are ready.
//!
//! What clusterd says to its own service manager is in the rest of this room.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use crate::carry::{CarriedFd, CarriedFds, NotCarried, Raw, Step, Steps, Still};
use crate::ids::WorkerId;
use crate::protocol::notify::{MAX_MESSAGE, Notification};
use crate::supervisor;
use crate::supervisor::identity::Users;
use crate::supervisor::process_table;
use crate::supervisor::processes::notify_socket::{NotifySocket, SocketPath};
use crate::sys::closer::{self, ForeignFd};
use crate::sys::datagram::{self, Sender};
use crate::sys::guarded;
use crate::sys::watched::Watched;
use crate::tasks;

/// How long nothing is heard of a worker after it has said something: one that says more is made to wait by the
/// kernel, as by a service manager that is slow.
const PAUSE: Duration = Duration::from_millis(10);

/// How many workers may wait for their being ready to be passed on.
const READY: usize = 64;

/// How long it may take until what was heard is passed on when all are to stand still.
const FINISHING: Duration = Duration::from_millis(500);

/// The workers that are listened to.
#[derive(Debug)]
pub(crate) struct WorkerNotifications {
    users: Users,
    ready: mpsc::Sender<Ready>,
    listening: HashMap<WorkerId, Listening>,
    /// From what is received to what is passed on.
    steps: Steps,
}

/// A worker is ready.
#[derive(Debug)]
pub(crate) struct Ready {
    worker: WorkerId,
    /// Ends once it is passed on.
    _step: Step,
}

/// A worker that is listened to.
#[derive(Debug)]
struct Listening {
    group: Pid,
    socket: Arc<Watched<ForeignFd>>,
    /// What is to be removed once the worker is gone. At the end of the program its folder is.
    path: Option<PathBuf>,
    task: AbortHandle,
}

impl WorkerNotifications {
    /// No worker yet; those that say that they are ready come out at the other end. Processes of these users are heard.
    pub(crate) fn new(users: Users) -> (Self, mpsc::Receiver<Ready>) {
        let (ready, said) = mpsc::channel(READY);
        (Self { users, ready, listening: HashMap::new(), steps: Steps::default() }, said)
    }

    /// Listens to a worker until it is gone.
    pub(crate) fn listen(&mut self, worker: WorkerId, group: Pid, socket: NotifySocket) {
        let NotifySocket { socket, path } = socket;
        if let Err(error) = self.begin(worker, group, socket, path.map(SocketPath::keep)) {
            warn!(%worker, %error, "cannot receive a worker's readiness");
        }
    }

    fn begin(
        &mut self,
        worker: WorkerId,
        group: Pid,
        socket: ForeignFd,
        path: Option<PathBuf>,
    ) -> io::Result<()> {
        let socket = Arc::new(Watched::new(socket, Interest::READABLE)?);
        let ear = Ear {
            worker,
            group,
            socket: Arc::clone(&socket),
            users: self.users.clone(),
            ready: self.ready.clone(),
            steps: self.steps.clone(),
        };
        let task = tasks::spawn(async move {
            if let Err(error) = ear.listen().await {
                warn!(%worker, %error, "cannot receive a worker's readiness any more");
            }
        });
        let task = task.abort_handle();
        self.listening.insert(worker, Listening { group, socket, path, task });
        Ok(())
    }

    /// A worker that is gone says nothing any more.
    pub(crate) fn gone(&mut self, worker: WorkerId) {
        let Some(Listening { path, task, .. }) = self.listening.remove(&worker) else { return };
        task.abort();
        // The folder may have gone before.
        path.map(fs::remove_file);
    }

    /// Has nothing received, and what was received passed on. The supervisor has to be there for that.
    ///
    /// # Errors
    /// That takes too long.
    pub(crate) fn stand_still(
        &self,
    ) -> impl Future<Output = Result<Still<Vec<NotifySnapshot>>, NotCarried>> + Send + use<> {
        let steps = self.steps.clone();
        let snapshot: Vec<_> = self.listening.iter().map(|(worker, it)| it.snapshot(*worker)).collect();
        let sockets: Vec<_> = self.listening.values().map(|it| Arc::clone(&it.socket)).collect();
        async move {
            let stopped = steps.stop(FINISHING).await.ok_or_else(|| {
                NotCarried(format!("that a worker is ready takes longer than {FINISHING:?} to be passed on"))
            })?;
            Ok(Still::new(snapshot, (stopped, sockets)))
        }
    }

    /// Goes on listening to a worker that another image has listened to.
    ///
    /// # Errors
    /// It is not what [`WorkerNotifications::stand_still`] has told; a descriptor is missing, or cannot be watched.
    pub(crate) fn restore(&mut self, snapshot: NotifySnapshot, fds: &CarriedFds) -> io::Result<()> {
        let NotifySnapshot { worker, group, socket, path } = snapshot;
        let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a worker has no process group");
        let group = (group > 0).then(|| Pid::from_raw(group)).flatten().ok_or_else(wrong)?;
        self.begin(worker, group, fds.take(socket)?.into(), path.map(PathBuf::from))
    }
}

impl Listening {
    fn snapshot(&self, worker: WorkerId) -> NotifySnapshot {
        NotifySnapshot {
            worker,
            group: self.group.as_raw_pid(),
            socket: CarriedFd::of(&*self.socket),
            path: self.path.as_deref().map(Raw::from),
        }
    }
}

/// A worker's notification socket, for the next image. How long a worker is not heard after it has said something is not
/// carried: at worst it is heard sooner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NotifySnapshot {
    worker: WorkerId,
    group: i32,
    socket: CarriedFd,
    path: Option<Raw>,
}

/// Tells the supervisor which workers are ready, until nobody listens to them any more.
pub(crate) async fn pass_on(mut ready: mpsc::Receiver<Ready>, supervisor: supervisor::Handle) {
    while let Some(Ready { worker, _step }) = ready.recv().await {
        supervisor.ready(worker).await;
    }
}

/// What hears one worker.
#[derive(Debug)]
struct Ear {
    worker: WorkerId,
    group: Pid,
    socket: Arc<Watched<ForeignFd>>,
    users: Users,
    ready: mpsc::Sender<Ready>,
    steps: Steps,
}

impl Ear {
    async fn listen(self) -> io::Result<()> {
        loop {
            let seen = self.socket.when_readable(|socket| guarded::look(socket, &mut [0])).await?;
            let step = self.steps.step().await;
            if seen.has_descriptors {
                // What is stored (FDSTORE) or waited for (BARRIER) is closed, which may take long. None of it is heard.
                drop(step);
                let socket = Arc::clone(&self.socket);
                closer::elsewhere(move || datagram::receive(&*socket, &mut [])).await?;
                debug!(worker = %self.worker, "a notification with descriptors was not read");
            } else {
                self.receive(step).await?;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn receive(&self, step: Step) -> io::Result<()> {
        let (worker, mut buffer) = (self.worker, [0; MAX_MESSAGE]);
        let received = datagram::receive(&*self.socket, &mut buffer)?;
        match received.sender {
            Some(sender) if !received.truncated && may_speak(sender, &self.users, self.group).await => {
                let said = Notification::read(&buffer[..received.len]);
                note(worker, &said);
                if said.ready {
                    // Nobody is left to be told when the program ends.
                    let _ = self.ready.send(Ready { worker, _step: step }).await;
                }
            }
            sender => debug!(%worker, ?sender, received.truncated, "a notification was not read"),
        }
        Ok(())
    }
}

/// Whether a process speaks for a worker: by its user, for it may have ended by now; or else, since a server may give up
/// root, by being one of the worker's.
async fn may_speak(sender: Sender, users: &Users, group: Pid) -> bool {
    if users.contains(sender.uid) {
        return true;
    }
    match Pid::from_raw(sender.pid) {
        Some(process) => process_table::belongs_to(process, group).await,
        None => false,
    }
}

fn note(worker: WorkerId, said: &Notification) {
    if let Some(status) = &said.status {
        debug!(%worker, status, "worker status");
    }
    if !said.others.is_empty() {
        debug!(%worker, names = ?said.others, "worker notification has no effect");
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::carry::testing::carried;
    use crate::ids::Slot;
    use crate::supervisor::processes::notify_socket;

    const WORKER: WorkerId = WorkerId { slot: Slot(2), launch: 9 };
    const DEADLINE: Duration = Duration::from_secs(20);

    /// A worker that is listened to, and where it speaks.
    fn worker(notices: &mut WorkerNotifications, folder: &tempfile::TempDir) -> UnixDatagram {
        let attach = folder.path().join("attach");
        let (socket, name) = notify_socket::bind(OsStr::new(&attach), WORKER.launch).unwrap();
        notices.listen(WORKER, rustix::process::getpgrp(), socket);
        let speaker = UnixDatagram::unbound().unwrap();
        speaker.connect(name).unwrap();
        speaker
    }

    #[tokio::test]
    async fn ready_is_passed_on_and_the_rest_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (mut notices, mut ready) = WorkerNotifications::new(Users::of_workers(None));
        let speaker = worker(&mut notices, &folder);
        let long = [b"READY=1\n".as_slice(), &[b'x'; MAX_MESSAGE]].concat();
        for message in [b"STATUS=READY=1".as_slice(), &long, b"", b"STOPPING=1\nREADY=1\n"] {
            speaker.send(message).unwrap();
        }
        let said = tokio::time::timeout(DEADLINE, ready.recv()).await.unwrap();
        assert_eq!(said.map(|ready| ready.worker), Some(WORKER));
        assert!(ready.try_recv().is_err(), "it was said once");
    }

    #[tokio::test]
    async fn a_worker_that_is_gone_is_not_heard() {
        let folder = tempfile::tempdir().unwrap();
        let (mut notices, _ready) = WorkerNotifications::new(Users::of_workers(None));
        let speaker = worker(&mut notices, &folder);
        notices.gone(WORKER);
        let refused = async {
            while speaker.send(b"READY=1").is_ok() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(DEADLINE, refused).await.unwrap();
        assert!(!folder.path().join("notify-9").exists());
        assert!(notices.listening.is_empty());
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn what_was_said_meanwhile_is_heard_by_the_next_image_and_what_was_heard_is_passed_on() {
        let folder = tempfile::tempdir().unwrap();
        let first = runtime();
        let (speaker, (snapshot, fds)) = first.block_on(async {
            let (mut notices, mut ready) = WorkerNotifications::new(Users::of_workers(None));
            let speaker = worker(&mut notices, &folder);
            speaker.send(b"READY=1").unwrap();
            let heard = tokio::time::timeout(DEADLINE, ready.recv()).await.unwrap().unwrap();
            let NotCarried(why) = notices.stand_still().await.unwrap_err();
            assert!(why.contains("ready"), "{why}");
            drop(heard);
            let still = notices.stand_still().await.unwrap();
            speaker.send(b"READY=1").unwrap();
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
            assert!(ready.try_recv().is_err());
            (speaker, carried(&still.state))
        });
        drop(first);
        let [snapshot] = <[NotifySnapshot; 1]>::try_from(snapshot).unwrap();
        assert!(folder.path().join("notify-9").exists());
        runtime().block_on(async {
            let (mut notices, mut ready) = WorkerNotifications::new(Users::of_workers(None));
            let wrong = NotifySnapshot { group: -1, ..snapshot.clone() };
            assert!(notices.restore(wrong, &fds).is_err());
            notices.restore(snapshot, &fds).unwrap();
            let said = tokio::time::timeout(DEADLINE, ready.recv()).await.unwrap();
            assert_eq!(said.map(|ready| ready.worker), Some(WORKER));
            drop(fds);
            notices.gone(WORKER);
            let refused = async {
                while speaker.send(b"READY=1").is_ok() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(DEADLINE, refused).await.unwrap();
            assert!(!folder.path().join("notify-9").exists());
        });
    }

    #[tokio::test]
    async fn standing_still_and_going_on_loses_no_word() {
        let folder = tempfile::tempdir().unwrap();
        let (mut notices, mut ready) = WorkerNotifications::new(Users::of_workers(None));
        let speaker = worker(&mut notices, &folder);
        let still = notices.stand_still().await.unwrap();
        speaker.send(b"READY=1").unwrap();
        drop(still);
        let said = tokio::time::timeout(DEADLINE, ready.recv()).await.unwrap();
        assert_eq!(said.map(|ready| ready.worker), Some(WORKER));
    }
}
