//! Hears what workers say on their notification sockets, and passes on that they are ready.
//!
//! What clusterd says to its own service manager is in the rest of this room.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;
use tokio::io::Interest;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tracing::{debug, warn};

use crate::ids::WorkerId;
use crate::protocol::notify::{MAX_MESSAGE, Notification};
use crate::supervisor;
use crate::supervisor::identity::Users;
use crate::supervisor::process_table;
use crate::supervisor::processes::notify_socket::NotifySocket;
use crate::sys::closer;
use crate::sys::datagram::{self, Sender};
use crate::sys::guarded;
use crate::sys::watched::Watched;

/// How long nothing is heard of a worker after it has said something: one that says more is made to wait by the
/// kernel, as by a service manager that is slow.
const PAUSE: Duration = Duration::from_millis(10);

/// How many workers may wait for their being ready to be passed on.
const READY: usize = 64;

/// The workers that are listened to.
#[derive(Debug)]
pub(crate) struct WorkerNotifications {
    users: Users,
    ready: mpsc::Sender<WorkerId>,
    listening: HashMap<WorkerId, AbortHandle>,
}

impl WorkerNotifications {
    /// No worker yet; those that say that they are ready come out at the other end. Processes of these users are heard.
    pub(crate) fn new(users: Users) -> (Self, mpsc::Receiver<WorkerId>) {
        let (ready, said) = mpsc::channel(READY);
        (Self { users, ready, listening: HashMap::new() }, said)
    }

    /// Listens to a worker until it is gone.
    pub(crate) fn listen(&mut self, worker: WorkerId, group: Pid, socket: NotifySocket) {
        let (users, ready) = (self.users.clone(), self.ready.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = listen((worker, group), socket, &users, &ready).await {
                warn!(%worker, %error, "cannot receive a worker's readiness any more");
            }
        });
        self.listening.insert(worker, task.abort_handle());
    }

    /// A worker that is gone says nothing any more.
    pub(crate) fn gone(&mut self, worker: WorkerId) {
        if let Some(task) = self.listening.remove(&worker) {
            task.abort();
        }
    }
}

/// Tells the supervisor which workers are ready, until nobody listens to them any more.
pub(crate) async fn pass_on(mut ready: mpsc::Receiver<WorkerId>, supervisor: supervisor::Handle) {
    while let Some(worker) = ready.recv().await {
        supervisor.ready(worker).await;
    }
}

async fn listen(
    (worker, group): (WorkerId, Pid),
    socket: NotifySocket,
    users: &Users,
    ready: &mpsc::Sender<WorkerId>,
) -> io::Result<()> {
    let NotifySocket { socket, path: _path } = socket;
    let socket = Arc::new(Watched::new(socket, Interest::READABLE)?);
    let mut buffer = [0; MAX_MESSAGE];
    loop {
        let seen = socket.when_readable(|socket| guarded::look(socket, &mut [0])).await?;
        let received = if seen.has_descriptors {
            // What is stored (FDSTORE) or waited for (BARRIER) is closed, which may take long.
            let socket = Arc::clone(&socket);
            closer::elsewhere(move || datagram::receive(&*socket, &mut [])).await?
        } else {
            datagram::receive(&*socket, &mut buffer)?
        };
        match received.sender {
            Some(sender) if !received.truncated && may_speak(sender, users, group).await => {
                let said = Notification::read(&buffer[..received.len]);
                note(worker, &said);
                if said.ready {
                    // Nobody is left to be told when the program ends.
                    let _ = ready.send(worker).await;
                }
            }
            sender => debug!(%worker, ?sender, received.truncated, "a notification was not read"),
        }
        tokio::time::sleep(PAUSE).await;
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
        assert_eq!(said, Some(WORKER));
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
}
