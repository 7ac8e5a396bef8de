//! The room as a whole, with real sockets and real processes.

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::notes::{Note, Notes};
use super::*;
use crate::carry::{Still, testing};
use crate::ids::Slot;
use crate::sys::mark::Family;

const TIMEOUT: Duration = Duration::from_secs(20);
/// Long enough for several looks.
const A_WHILE: Duration = Duration::from_millis(300);

struct Room {
    notes: Notes,
    handle: Handle,
    listener: TcpListener,
    runtime: tokio::runtime::Runtime,
    launches: u64,
}

/// A process in a group of its own, which is ended when dropped.
struct Worker {
    id: WorkerId,
    child: Child,
    room: Handle,
}

impl Drop for Worker {
    fn drop(&mut self) {
        let group = Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
        self.room.gone(self.id);
    }
}

impl Room {
    fn new() -> Self {
        Self::at("127.0.0.1:0", false)
    }

    fn at(address: &str, workers_accept: bool) -> Self {
        let notes = Notes::new().unwrap();
        let listener = TcpListener::bind(address).unwrap();
        notes.serves(listener.local_addr().unwrap().port());
        let handle = start(notes.clone(), Family::random(), workers_accept, None).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { notes, handle, listener, runtime, launches: 0 }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        (client, self.listener.accept().unwrap().0)
    }

    fn note(&self, socket: impl AsFd, worker: WorkerId, client: &TcpStream) {
        let client = client.local_addr().unwrap();
        let (accepted, waited) = (Instant::now(), Duration::from_millis(7));
        let worker = Some(worker);
        self.notes.given(socket, |cookie| Note::new(cookie, worker, client, accepted, waited));
    }

    fn next_id(&mut self) -> WorkerId {
        self.launches += 1;
        WorkerId { slot: Slot(u32::try_from(self.launches).unwrap()), launch: self.launches }
    }

    fn worker(&mut self, command: &mut Command) -> Worker {
        let child = command.process_group(0).spawn().unwrap();
        let id = self.next_id();
        self.handle.began(id, Pid::from_child(&child));
        Worker { id, child, room: self.handle.clone() }
    }

    /// A worker whose one process has the socket as its standard input.
    fn sleeper(&mut self, socket: TcpStream) -> Worker {
        self.worker(Command::new("sleep").arg("60").stdin(OwnedFd::from(socket)))
    }

    fn run<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(TIMEOUT, future).await.expect("in time") })
    }

    fn drains(&self, worker: WorkerId, limit: Duration) -> bool {
        let drained = self.handle.drained(worker, Vec::new());
        self.runtime.block_on(async { tokio::time::timeout(limit, drained).await.is_ok() })
    }

    fn counts(&self) -> BTreeMap<WorkerId, usize> {
        self.run(self.handle.count_by_worker()).unwrap()
    }

    fn until(&self, what: impl Fn() -> bool) {
        let deadline = Instant::now() + TIMEOUT;
        while !what() {
            assert!(Instant::now() < deadline, "not in time");
            std::thread::yield_now();
        }
    }
}

#[test]
fn open_connections_are_told_with_what_is_known_of_them() {
    for address in ["127.0.0.1:0", "[::]:0"] {
        let mut room = Room::at(address, false);
        let worker = room.next_id();
        let port = room.port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (mut server, peer) = room.listener.accept().unwrap();
        room.note(&server, worker, &client);
        let waiting = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let accepted = room.listener.accept().unwrap().0;
        let _in_backlog = TcpStream::connect(("127.0.0.1", port)).unwrap();
        client.write_all(b"question").unwrap();
        server.read_exact(&mut [0; 8]).unwrap();
        client.shutdown(Shutdown::Write).unwrap();

        let mut open = room.run(room.handle.snapshot()).unwrap();
        open.sort_by_key(|connection| connection.worker.is_none());

        let [given, queued] = &open[..] else { panic!("{open:?}") };
        assert_eq!((given.worker, given.client), (Some(worker), peer));
        assert_eq!(given.local, server.local_addr().unwrap());
        assert_eq!(given.state, ConnectionState::CloseWait);
        assert_eq!(given.queued_for, Some(Duration::from_millis(7)));
        assert!(given.age.is_some_and(|age| age < TIMEOUT));
        // The end that the client has told counts as a byte.
        assert_eq!(given.figures.unwrap().received, 9);
        assert_eq!((queued.worker, queued.age), (None, None));
        assert_eq!(queued.client.port(), waiting.local_addr().unwrap().port());
        assert_eq!(room.counts(), BTreeMap::from([(worker, 1)]));
        drop(accepted);
    }
}

#[test]
fn where_workers_accept_their_descriptors_tell_whose_a_connection_is() {
    let mut room = Room::at("127.0.0.1:0", true);
    let (_client, server) = room.connect();
    let worker = room.sleeper(server);
    let (_other, _nobodys) = room.connect();
    room.until(|| room.counts() == BTreeMap::from([(worker.id, 1)]));
}

#[test]
fn a_worker_is_drained_when_none_of_its_processes_holds_a_connection() {
    let mut room = Room::new();
    let (client, server) = room.connect();
    let (_mine, _not_theirs) = room.connect();
    let worker = room.sleeper(server.try_clone().unwrap());
    room.note(&server, worker.id, &client);
    drop(server);
    assert!(!room.drains(worker.id, A_WHILE));
    // The client has said all that it has to say, and may still be answered.
    client.shutdown(Shutdown::Write).unwrap();
    assert!(!room.drains(worker.id, A_WHILE));
    let idle = room.worker(Command::new("sleep").arg("60"));
    assert!(room.drains(idle.id, TIMEOUT));
    let id = worker.id;
    drop(worker);
    assert!(room.drains(id, TIMEOUT));
}

#[test]
fn a_client_that_has_left_is_not_waited_for_and_one_that_waits_for_its_answer_is() {
    let mut room = Room::new();
    let (mut client, mut server) = room.connect();
    let worker = room.sleeper(server.try_clone().unwrap());
    room.note(&server, worker.id, &client);
    client.write_all(b"a request").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    server.read_to_end(&mut Vec::new()).unwrap();
    assert!(!room.drains(worker.id, Duration::from_secs(3)), "it is owed an answer");
    server.write_all(b"the answer").unwrap();
    assert!(room.drains(worker.id, TIMEOUT));
}

#[test]
fn a_connection_that_was_passed_on_to_a_child_in_another_session_is_the_workers() {
    for is_noted in [true, false] {
        let mut room = Room::new();
        let (client, server) = room.connect();
        let copy = server.try_clone().unwrap();
        let mut shell = Command::new("sh");
        shell.args(["-c", "exec 3<&0 0</dev/null; setsid sleep 60 <&3 & echo $! >&2; exec 3<&-; wait"]);
        let mut worker = room.worker(shell.stdin(OwnedFd::from(server)).stderr(std::process::Stdio::piped()));
        if is_noted {
            room.note(&copy, worker.id, &client);
        }
        drop(copy);
        let mut child = String::new();
        let mut stderr = worker.child.stderr.take().unwrap();
        while !child.ends_with('\n') {
            let mut byte = [0];
            stderr.read_exact(&mut byte).unwrap();
            child.push(char::from(byte[0]));
        }
        assert!(!room.drains(worker.id, A_WHILE));
        let child = Pid::from_raw(child.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(child, Signal::KILL).unwrap();
        assert!(room.drains(worker.id, TIMEOUT));
    }
}

#[test]
fn a_drain_ends_soon_after_the_last_connection_whoever_closes_it() {
    let mut room = Room::new();
    let (client, server) = room.connect();
    let worker = room.worker(Command::new("cat").stdin(OwnedFd::from(server.try_clone().unwrap())));
    room.note(&server, worker.id, &client);
    drop(server);
    let drained = room.handle.drained(worker.id, Vec::new());
    room.run(async {
        let closes = async {
            tokio::time::sleep(A_WHILE).await;
            drop(client);
        };
        tokio::join!(drained, closes)
    });
}

#[test]
fn a_worker_that_lets_nobody_look_into_it_is_known_by_what_was_noted() {
    if !rustix::process::geteuid().is_root() || Command::new("perl").arg("-v").output().is_err() {
        return;
    }
    // This process' other threads keep the right to look into everybody, so it is taken from it as a whole.
    crate::sys::scarcity::run_alone("connections::tests::nobody_may_look_into_a_worker");
}

#[test]
#[ignore = "run alone by the test above"]
fn nobody_may_look_into_a_worker() {
    let mut own = rustix::thread::capabilities(None).unwrap();
    // As in a container: who is looked into has none of it either, which counts (capabilities(7), ptrace(2)).
    let ptrace = rustix::thread::CapabilitySet::SYS_PTRACE;
    rustix::thread::remove_capability_from_bounding_set(ptrace).unwrap();
    own.effective.remove(ptrace);
    own.permitted.remove(ptrace);
    rustix::thread::set_capabilities(None, own).unwrap();
    for is_noted in [true, false] {
        let mut room = Room::new();
        let (client, server) = room.connect();
        let script = "use POSIX; POSIX::setgid(54321); POSIX::setuid(12345); $| = 1; print \"ready\\n\"; \
                      <STDIN>; POSIX::close(0); sleep 60";
        let mut perl = Command::new("perl");
        perl.args(["-e", script]).stdin(OwnedFd::from(server.try_clone().unwrap()));
        let mut worker = room.worker(perl.stdout(std::process::Stdio::piped()));
        worker.child.stdout.take().unwrap().read_exact(&mut [0; 6]).unwrap();
        if is_noted {
            room.note(&server, worker.id, &client);
        }
        // It has the connection, too.
        drop((server, perl));
        let idle = room.worker(Command::new("sleep").arg("60"));
        assert!(!room.drains(worker.id, A_WHILE), "noted: {is_noted}");
        assert!(room.drains(idle.id, TIMEOUT));
        (&client).write_all(b"enough\n").unwrap();
        assert!(room.drains(worker.id, TIMEOUT));
    }
}

#[test]
fn ends_are_told_with_their_figures_and_free_connections_once() {
    let mut room = Room::new();
    let worker = room.next_id();
    let (ends, ended) = mpsc::channel();
    let (frees, freed) = mpsc::channel();
    room.handle.watch_ends(move |batch| batch.into_iter().for_each(|end| drop(ends.send(end))));
    room.handle.watch_freed(Telling::Gathered, move |batch| {
        for whose in batch {
            let _ = frees.send(whose);
        }
    });
    // After an answer it listens.
    room.counts();
    for _ in 0..3 {
        let (mut client, mut server) = room.connect();
        room.note(&server, worker, &client);
        server.write_all(b"an answer").unwrap();
        client.read_exact(&mut [0; 9]).unwrap();
        drop(client);
        server.read_to_end(&mut Vec::new()).unwrap();
    }
    for _ in 0..3 {
        let end = ended.recv_timeout(TIMEOUT).unwrap();
        assert_eq!(end.worker, worker);
        assert!(end.figures.is_some_and(|figures| figures.sent >= 9), "{end:?}");
        assert_eq!(freed.recv_timeout(TIMEOUT).unwrap(), worker);
    }
    assert!(ended.recv_timeout(A_WHILE).is_err() && freed.try_recv().is_err());
}

#[test]
fn a_connection_that_no_process_has_is_free_while_the_kernel_still_has_to_do_with_it() {
    let mut room = Room::new();
    let worker = room.next_id();
    let (ends, ended) = mpsc::channel();
    let (frees, freed) = mpsc::channel();
    room.handle.watch_ends(move |batch| drop(ends.send(batch)));
    room.handle.watch_freed(Telling::AtOnce, move |batch| {
        for whose in batch {
            let _ = frees.send(whose);
        }
    });
    let (client, server) = room.connect();
    room.note(&server, worker, &client);
    server.set_nonblocking(true).unwrap();
    while (&server).write(&[0; 65536]).is_ok() {}
    // The client does not read: what was written waits.
    drop(server);
    room.handle.hurry(true);
    assert_eq!(freed.recv_timeout(TIMEOUT).unwrap(), worker);
    assert!(ended.try_recv().is_err());
    room.handle.hurry(false);
    drop(client);
    assert_eq!(ended.recv_timeout(TIMEOUT).unwrap().len(), 1);
    assert!(freed.recv_timeout(A_WHILE).is_err(), "told once");
}

#[test]
fn a_connection_that_its_client_has_reset_is_its_workers_until_that_has_closed_it() {
    let mut room = Room::new();
    let worker = room.next_id();
    let (ends, ended) = mpsc::channel();
    room.handle.watch_ends(move |batch| batch.into_iter().for_each(|end| drop(ends.send(end))));
    room.handle.hurry(true);
    // Each answer is a look. After the second one all ends are told that come.
    (0..2).for_each(|_| drop(room.counts()));
    let (mut client, mut server) = room.connect();
    room.note(&server, worker, &client);
    client.write_all(b"a request").unwrap();
    server.read_exact(&mut [0; 9]).unwrap();
    socket2::SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(server.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    for _ in 0..5 {
        assert_eq!(room.counts(), BTreeMap::new(), "the kernel lists it no more");
    }
    assert!(ended.try_recv().is_err());
    drop(server);
    let end = ended.recv_timeout(TIMEOUT).unwrap();
    assert_eq!((end.worker, end.figures.map(|figures| figures.received)), (worker, Some(9)));
}

/// Another one that goes on with what this one has, as far as both serve the same port.
fn next_image(room: &Room, still: &Still<ConnectionsSnapshot>) -> Room {
    let (snapshot, _) = testing::carried(&room.handle.since(still.state.clone()));
    let (rest, _) = testing::carried(&room.notes.snapshot());
    let notes = Notes::new().unwrap();
    notes.serves(room.port());
    notes.restore(rest);
    let handle = start(notes.clone(), Family::random(), false, Some(snapshot)).unwrap();
    let listener = room.listener.try_clone().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    Room { notes, handle, listener, runtime, launches: room.launches }
}

#[test]
fn the_next_image_knows_whose_connections_are_and_tells_of_each_that_is_free_once() {
    let mut room = Room::new();
    let (first, second) = (room.next_id(), room.next_id());
    let (frees, freed) = mpsc::channel();
    room.handle.watch_freed(Telling::Gathered, move |batch| drop(frees.send(batch)));
    let [ended, ends_meanwhile, stays, ends_later] = [0; 4].map(|_| room.connect());
    for (connection, worker) in [(&ended, first), (&ends_meanwhile, first), (&stays, second)] {
        room.note(&connection.1, worker, &connection.0);
    }
    // After an answer it listens.
    assert_eq!(room.counts(), BTreeMap::from([(first, 2), (second, 1)]));
    drop(ended);
    assert_eq!(freed.recv_timeout(TIMEOUT).unwrap(), [first]);
    let still = room.run(room.handle.stand_still()).unwrap();
    // It was given when nobody read notes any more.
    room.note(&ends_later.1, first, &ends_later.0);
    drop(ends_meanwhile);
    let next = next_image(&room, &still);
    drop(still);
    let (frees, freed) = mpsc::channel();
    next.handle.watch_freed(Telling::Gathered, move |batch| {
        for whose in batch {
            let _ = frees.send(whose);
        }
    });
    assert_eq!(freed.recv_timeout(TIMEOUT).unwrap(), first, "what ended meanwhile");
    let open = next.run(next.handle.snapshot()).unwrap();
    let of = |worker| open.iter().filter(|open| open.worker == Some(worker)).collect::<Vec<_>>();
    assert_eq!((of(first).len(), of(second).len()), (1, 1));
    assert!(open.iter().all(|open| open.queued_for == Some(Duration::from_millis(7)) && open.age.is_some()));
    drop(ends_later);
    assert_eq!(freed.recv_timeout(TIMEOUT).unwrap(), first);
    assert!(freed.recv_timeout(A_WHILE).is_err(), "each is told once");
    drop(stays);
}

#[test]
fn the_next_image_looks_into_the_same_processes() {
    let mut room = Room::at("127.0.0.1:0", true);
    let (_client, server) = room.connect();
    let worker = room.sleeper(server);
    room.until(|| room.counts() == BTreeMap::from([(worker.id, 1)]));
    let still = room.run(room.handle.stand_still()).unwrap();
    let (_another_client, another) = room.connect();
    let late = room.sleeper(another);
    let next = next_image(&room, &still);
    next.until(|| next.counts() == BTreeMap::from([(worker.id, 1), (late.id, 1)]));
    assert!(!next.drains(worker.id, A_WHILE));
    let id = worker.id;
    drop(still);
    drop(worker);
    assert!(next.drains(id, TIMEOUT));
}

#[test]
fn a_room_that_was_to_stand_still_goes_on_and_has_missed_nothing() {
    let mut room = Room::new();
    let worker = room.next_id();
    let (frees, freed) = mpsc::channel();
    room.handle.watch_freed(Telling::AtOnce, move |batch| drop(frees.send(batch)));
    let (client, server) = room.connect();
    room.note(&server, worker, &client);
    assert_eq!(room.counts(), BTreeMap::from([(worker, 1)]));
    let still = room.run(room.handle.stand_still()).unwrap();
    drop((client, server));
    assert!(freed.recv_timeout(A_WHILE).is_err(), "it stands still");
    drop(still);
    assert_eq!(freed.recv_timeout(TIMEOUT).unwrap(), [worker]);
}

#[test]
fn what_can_be_no_process_group_is_refused() {
    let mut room = Room::new();
    let worker = room.next_id();
    for group in [0, -1, i32::MIN] {
        let snapshot = serde_json::json!({
            "noted": [], "groups": [{ "worker": worker, "group": group }], "notes_all": true, "left_ports": [],
        });
        let snapshot = serde_json::from_value(snapshot).unwrap();
        let error = start(room.notes.clone(), Family::random(), false, Some(snapshot)).unwrap_err();
        assert!(error.to_string().contains("no process group"), "{error}");
    }
}
