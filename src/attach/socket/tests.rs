//! The attach socket with real connections, as one image after the other serves it.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};

use tokio::runtime::Runtime;
use tokio::sync::{Mutex, mpsc};
use tokio::time::timeout;

use super::*;
use crate::attach::bound::BoundChannels;
use crate::carry::testing::carried;
use crate::front::handle::{Command, channels};
use crate::front::links::ChannelPermits;
use crate::front::steering::Sharing;
use crate::ids::{Slot, WorkerId};
use crate::protocol::wire::{ChannelName, Endpoint, Refusal, Token};
use crate::supervisor::testing::admitting;

const DEADLINE: Duration = Duration::from_secs(20);
const PORT: WorkerPort = WorkerPort(3000);
const WORKER: WorkerId = WorkerId { slot: Slot(2), launch: 9 };
const TOKEN: Token = Token([7; 16]);
const ADDRESS: Endpoint = Endpoint::V4 { address: [127, 0, 0, 1], port: PORT.0 };

/// Of one worker, several processes may bind this.
fn binding() -> Binding {
    Binding { reuses_port: true, ..Binding::new(ADDRESS) }
}

/// What the front was asked for.
#[derive(Debug, PartialEq)]
enum Asked {
    Attach,
    Share,
    Listens(LinkId),
}

/// The other rooms: a supervisor that admits one worker, and a front that does what it is asked while the lock is free.
fn rooms() -> (AttachContext, mpsc::UnboundedReceiver<Asked>, Arc<Mutex<()>>) {
    let (front, reports, mut ends) = channels(&[PORT]);
    let (asked, seen) = mpsc::unbounded_channel();
    let busy = Arc::new(Mutex::new(()));
    let is_free = Arc::clone(&busy);
    tokio::spawn(async move {
        let _reports = reports;
        while let Some(command) = ends.commands.recv().await {
            drop(is_free.lock().await);
            match command {
                Command::Attach(_) => asked.send(Asked::Attach).unwrap(),
                Command::Share(Sharing { reply, .. }) => {
                    asked.send(Asked::Share).unwrap();
                    reply.send(Ok(TcpListener::bind("127.0.0.1:0").unwrap().into())).unwrap();
                }
                Command::Listens { link, reply } => {
                    asked.send(Asked::Listens(link)).unwrap();
                    reply.send(Ok(())).unwrap();
                }
                other => panic!("nobody asks for {other:?}"),
            }
        }
    });
    let served = ServedPorts {
        front,
        permits: ChannelPermits::new(16),
        ports: [PORT].into(),
        bound: BoundChannels::new(),
        on_demand: None,
    };
    let inherited = [(PORT, binding())].into();
    (AttachContext { supervisor: admitting(TOKEN, WORKER), served, inherited }, seen, busy)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// A process of the worker.
struct Process(OwnedFd);

impl Process {
    fn connect(name: &str) -> Self {
        let own = ChannelName { address: ADDRESS, given: false, nonce: fastrand::u64(..) }.encode();
        let own = SocketAddrUnix::new_abstract_name(&own[1..]).unwrap();
        let primary = match name.strip_prefix('@') {
            Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap(),
            None => SocketAddrUnix::new(name).unwrap(),
        };
        Self(seqpacket::connect(&own, &primary).unwrap())
    }

    fn say(&self, message: &FromWorker, fd: Option<&OwnedFd>) {
        let mut buffer = [0; MAX_MESSAGE];
        seqpacket::send(&self.0, message.encode(&mut buffer), fd.map(AsFd::as_fd)).unwrap();
    }

    fn hello(&self, brings_socket: bool) {
        let attach =
            FromWorker::Attach { token: TOKEN, binding: binding(), wants_drain: false, brings_socket };
        self.say(&attach, None);
    }

    fn send_end(&self) {
        self.say(&FromWorker::End, Some(&self.0));
    }

    fn send_socket(&self) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        self.say(&FromWorker::Socket, Some(&socket.into()));
    }

    async fn hears(&self) -> ToWorker {
        let watched = Watched::new(self.0.try_clone().unwrap(), Interest::READABLE).unwrap();
        let mut buffer = [0; MAX_MESSAGE];
        let heard = watched.when_readable(|socket| seqpacket::receive(socket, &mut buffer));
        let record = timeout(DEADLINE, heard).await.expect("it is answered").unwrap();
        ToWorker::decode(&buffer[..record.len]).unwrap()
    }

    fn has_heard(&self) -> bool {
        seqpacket::has_record(&self.0).unwrap()
    }

    async fn attaches(&self, brings_socket: bool) {
        self.hello(brings_socket);
        assert_eq!(self.hears().await, ToWorker::Admitted);
        self.send_end();
        if brings_socket {
            self.send_socket();
        }
        assert_eq!(self.hears().await, ToWorker::Welcome);
    }
}

async fn next(seen: &mut mpsc::UnboundedReceiver<Asked>) -> Asked {
    timeout(DEADLINE, seen.recv()).await.expect("the front is asked").unwrap()
}

/// Until so many are waited for, each as far as it has got.
async fn until_waited_for(handle: &AttachHandle, is_so: impl Fn(&[Stage]) -> bool) {
    let look = async {
        loop {
            let turns = handle.0.turns.snapshot();
            if is_so(&turns.into_iter().map(|turn| turn.stage).collect::<Vec<_>>()) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, look).await.expect("they are waited for");
}

#[test]
fn whoever_is_in_the_middle_of_attaching_is_answered_by_the_next_image() {
    let first = runtime();
    let (name, processes, late, (snapshot, fds)) = first.block_on(async {
        let (context, mut seen, _) = rooms();
        let socket = AttachSocket::bind(None).unwrap();
        let (name, handle) = (socket.name().to_owned(), socket.handle());
        tokio::spawn(socket.serve(context));
        let [silent, admitted, halfway, inherits] = [(); 4].map(|()| Process::connect(&name));
        for process in [&admitted, &halfway] {
            process.hello(true);
            assert_eq!(process.hears().await, ToWorker::Admitted);
        }
        halfway.send_end();
        inherits.say(&FromWorker::Inherit { token: TOKEN }, None);
        assert!(matches!(inherits.hears().await, ToWorker::Listener { .. }));
        assert_eq!(inherits.hears().await, ToWorker::Welcome);
        assert_eq!(next(&mut seen).await, Asked::Share);
        until_waited_for(&handle, |stages| {
            matches!(
                stages,
                [
                    Stage::Began,
                    Stage::Admitted { worker_end: None, .. },
                    Stage::Admitted { worker_end: Some(_), .. },
                    Stage::Inherited { .. }
                ]
            )
        })
        .await;
        let still = handle.stand_still().await.unwrap();
        let late = Process::connect(&name);
        let carried = carried(&still.state);
        assert_eq!(carried.0, still.state);
        (name, [silent, admitted, halfway, inherits], late, carried)
    });
    // With all its tasks.
    drop(first);
    let [silent, admitted, halfway, inherits] = processes;
    runtime().block_on(async {
        let (context, mut seen, _) = rooms();
        let Stage::Inherited { links } = snapshot.turns[3].stage.clone() else { panic!() };
        let socket = AttachSocket::restore(snapshot, &fds).unwrap();
        assert_eq!((socket.name(), fds.untaken()), (name.as_str(), vec![]));
        tokio::spawn(socket.serve(context));
        halfway.send_socket();
        assert_eq!(halfway.hears().await, ToWorker::Welcome);
        admitted.send_end();
        admitted.send_socket();
        assert_eq!(admitted.hears().await, ToWorker::Welcome);
        silent.attaches(true).await;
        late.attaches(false).await;
        for _ in 0..4 {
            assert_eq!(next(&mut seen).await, Asked::Attach);
        }
        drop(inherits);
        assert_eq!(next(&mut seen).await, Asked::Listens(links[0]));
        Process::connect(&name).attaches(false).await;
    });
}

#[tokio::test]
async fn standing_still_and_going_on_loses_nobody() {
    let (context, _seen, _) = rooms();
    let socket = AttachSocket::bind(None).unwrap();
    let (name, handle) = (socket.name().to_owned(), socket.handle());
    tokio::spawn(socket.serve(context));
    let [silent, admitted] = [(); 2].map(|()| Process::connect(&name));
    admitted.hello(true);
    assert_eq!(admitted.hears().await, ToWorker::Admitted);
    until_waited_for(&handle, |stages| matches!(stages, [Stage::Began, Stage::Admitted { .. }])).await;
    let still = handle.stand_still().await.unwrap();
    let late = Process::connect(&name);
    silent.hello(false);
    late.hello(false);
    admitted.send_end();
    admitted.send_socket();
    // Many times what it takes to answer all of them.
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(![&silent, &late, &admitted].into_iter().any(Process::has_heard));
    assert_eq!(handle.0.turns.snapshot(), still.state.turns);
    drop(still);
    assert_eq!(admitted.hears().await, ToWorker::Welcome);
    for process in [silent, late] {
        assert_eq!(process.hears().await, ToWorker::Admitted);
        process.send_end();
        assert_eq!(process.hears().await, ToWorker::Welcome);
    }
}

#[tokio::test]
async fn whoever_is_being_answered_is_answered_before_it_stands_still() {
    let (context, mut seen, busy) = rooms();
    let socket = AttachSocket::bind(None).unwrap();
    let (name, handle) = (socket.name().to_owned(), socket.handle());
    tokio::spawn(socket.serve(context));
    let inherits = Process::connect(&name);
    until_waited_for(&handle, |stages| stages.len() == 1).await;
    let is_busy = busy.lock().await;
    inherits.say(&FromWorker::Inherit { token: TOKEN }, None);
    until_waited_for(&handle, <[Stage]>::is_empty).await;
    let NotCarried(why) = handle.stand_still().await.unwrap_err();
    assert!(why.contains("attaching"), "{why}");
    assert!(!inherits.has_heard());
    drop(is_busy);
    let still = handle.stand_still().await.unwrap();
    assert_eq!(next(&mut seen).await, Asked::Share);
    assert!(matches!(inherits.hears().await, ToWorker::Listener { .. }));
    assert!(matches!(still.state.turns[..], [TurnSnapshot { stage: Stage::Inherited { .. }, .. }]));
}

#[tokio::test]
async fn a_socket_that_was_bound_again_goes_along_with_who_waits_at_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let socket = AttachSocket::bind(Some(folder.path())).unwrap();
    let rebind = socket.rebind(folder.path());
    let before = Process::connect(socket.name());
    std::fs::remove_file(socket.name()).unwrap();
    assert!(!rebind.is_bound());
    rebind.again().unwrap();
    assert!(rebind.again().is_err(), "it is not served yet");
    let after = Process::connect(socket.name());
    let still = socket.handle().stand_still().await.unwrap();
    assert!(rebind.again().is_err());
    let (snapshot, fds) = carried(&still.state);
    drop((still, socket, rebind));
    let restored = AttachSocket::restore(snapshot, &fds).unwrap();
    let rebind = restored.rebind(folder.path());
    assert!(rebind.is_bound());
    let (context, _seen, _) = rooms();
    tokio::spawn(restored.serve(context));
    before.attaches(false).await;
    after.attaches(true).await;
}

#[tokio::test]
async fn who_is_too_late_for_the_old_image_is_so_for_the_new_one_and_who_has_spoken_is_heard() {
    let socket = AttachSocket::bind(None).unwrap();
    let [silent, speaks] = [(); 2].map(|()| Process::connect(socket.name()));
    let room = || socket.state.turns.room_now().unwrap();
    let [first, second] = [(); 2].map(|()| {
        let listener = Arc::clone(&socket.state.listening().now);
        let channel = ForeignFd::from(seqpacket::accept(&*listener).unwrap());
        let peer = Peer::of(&channel).unwrap();
        Applicant::new(channel, peer, room(), &socket.state.turns)
    });
    let mut still = socket.handle().stand_still().await.unwrap();
    still.state.turns.iter_mut().for_each(|turn| turn.until = Instant::now().into());
    speaks.say(&FromWorker::AskListened { token: TOKEN, port: 1, channel: 0 }, None);
    let (snapshot, fds) = carried(&still.state);
    drop((first, second, still, socket));
    tokio::spawn(AttachSocket::restore(snapshot, &fds).unwrap().serve(rooms().0));
    assert_eq!(silent.hears().await, ToWorker::Refuse(Refusal::NotAdmitted));
    assert_eq!(speaks.hears().await, ToWorker::HasListened(true));
}

#[tokio::test]
async fn what_no_image_has_written_is_refused() {
    let socket = AttachSocket::bind(None).unwrap();
    let still = socket.handle().stand_still().await.unwrap();
    let turn = |channel| TurnSnapshot { channel, stage: Stage::Began, until: Instant::now().into() };
    let (file, _other) = seqpacket::pair().unwrap();
    let same = still.state.listener;
    let many: Vec<_> = (0..200).map(|_| file.try_clone().unwrap()).collect();
    let wrong = [
        AttachSnapshot { next: Some(same), ..still.state.clone() },
        AttachSnapshot { turns: vec![turn(same)], ..still.state.clone() },
        AttachSnapshot {
            turns: many.iter().map(|fd| turn(CarriedFd::of(fd))).collect(),
            ..still.state.clone()
        },
    ];
    for snapshot in wrong {
        let (snapshot, fds) = carried(&snapshot);
        let error = AttachSocket::restore(snapshot, &fds).unwrap_err();
        assert!(!error.to_string().is_empty());
    }
    let mut written = serde_json::to_value(&still.state).unwrap();
    written["further"] = true.into();
    assert!(serde_json::from_value::<AttachSnapshot>(written).is_err());
}
