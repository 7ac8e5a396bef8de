//! The calls of a thread of this process, which are told and answered by one image after the other.

use std::net::TcpListener;
use std::sync::mpsc as blocking;
use std::thread::JoinHandle;

use socket2::{Protocol, SockAddr, Socket, Type};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::*;
use crate::attach::bound::BoundChannels;
use crate::carry::testing::carried;
use crate::front::handle::{Command, channels};
use crate::front::links::ChannelPermits;
use crate::front::steering::Sharing;
use crate::ids::{ServiceId, Slot};
use crate::sys::seccomp::testing::on_this_thread;

const DEADLINE: Duration = Duration::from_secs(20);
const WORKER: WorkerId = WorkerId { slot: Slot(2), launch: 9 };
const PORT: WorkerPort = WorkerPort(3000);

#[test]
fn an_address_is_read_as_bind_reads_it() {
    let v4 = [2, 0, 0x0b, 0xb8, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
    let in_v4 = Endpoint::V4 { address: [127, 0, 0, 1], port: 3000 };
    let mut v6 = [0; 28];
    (v6[0], v6[2], v6[3], v6[23], v6[24]) = (10, 0x0b, 0xb8, 1, 7);
    let mut loopback = [0; 16];
    loopback[15] = 1;
    let in_v6 = |scope| Endpoint::V6 { address: loopback, port: 3000, scope };
    let unix = [&[1, 0], b"/run/socket".as_slice()].concat();
    let unspecified = [&[0, 0, 0x0b, 0xb8, 0, 0, 0, 0], [0; 8].as_slice()].concat();
    let unspecified_at = [&[0, 0, 0x0b, 0xb8, 127, 0, 0, 1], [0; 8].as_slice()].concat();
    let any = Endpoint::V4 { address: [0; 4], port: 3000 };
    let table: [(&[u8], Option<Endpoint>); 12] = [
        (&v4, Some(in_v4)),
        (&[v4, [0; 16]].concat(), Some(in_v4)),
        (&unspecified, Some(any)),
        (&unspecified[..15], None),
        (&unspecified_at, None),
        (&v4[..15], None),
        (&v6, Some(in_v6(u32::from_ne_bytes([7, 0, 0, 0])))),
        (&v6[..24], Some(in_v6(0))),
        (&v6[..23], None),
        (&unix, None),
        (&[2], None),
        (&[], None),
    ];
    for (bytes, expected) in table {
        assert_eq!(endpoint(bytes), expected, "{bytes:?}");
    }
}

/// A thread that is as a worker: what it calls is told.
struct Worker {
    calls: blocking::Sender<fn(&Socket) -> io::Result<()>>,
    outcomes: mpsc::UnboundedReceiver<io::Result<()>>,
    notifications: Option<Notifications>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// `None` where there is no such filter.
    fn start() -> Option<Self> {
        let ((calls, asked), (told, notifications)) = (blocking::channel(), blocking::channel());
        let (outcome, outcomes) = mpsc::unbounded_channel();
        let thread = std::thread::spawn(move || {
            told.send(on_this_thread()).unwrap();
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
            asked.into_iter().for_each(|call: fn(&Socket) -> io::Result<()>| {
                let _ = outcome.send(call(&socket));
            });
        });
        match notifications.recv().unwrap() {
            Ok(notifications) => Some(Self { calls, outcomes, notifications: Some(notifications), thread }),
            Err(error) => {
                eprintln!("skipped: {error}");
                None
            }
        }
    }

    fn binds(&self) {
        let bind = |socket: &Socket| {
            socket.bind(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], PORT.0))))
        };
        self.calls.send(bind).unwrap();
    }

    fn listens(&self) {
        self.calls.send(|socket| socket.listen(1)).unwrap();
    }

    /// What its call has come to.
    async fn comes_to(&mut self) -> io::Result<()> {
        timeout(DEADLINE, self.outcomes.recv()).await.expect("the call is answered").unwrap()
    }

    fn ends(self) {
        drop(self.calls);
        self.thread.join().unwrap();
    }
}

/// With a front that has listeners, or no descriptor for them; while the lock is free.
fn interception(has_descriptors: bool) -> (InterceptedCalls, Arc<tokio::sync::Mutex<()>>) {
    let (front, reports, mut ends) = channels(&[PORT]);
    let (bound, busy) = (BoundChannels::new(), Arc::new(tokio::sync::Mutex::new(())));
    let (table, is_free) = (bound.clone(), Arc::clone(&busy));
    tokio::spawn(async move {
        let _reports = reports;
        while let Some(command) = ends.commands.recv().await {
            drop(is_free.lock().await);
            match command {
                Command::Share(Sharing { reply, .. }) if has_descriptors => {
                    reply.send(TcpListener::bind("127.0.0.1:0").map(OwnedFd::from)).unwrap();
                }
                Command::Share(Sharing { reply, .. }) => {
                    reply.send(Err(io::Error::from_raw_os_error(libc::EMFILE))).unwrap();
                }
                Command::Listens { link, reply } => {
                    reply.send(Ok(())).unwrap();
                    table.listened(WORKER, ServiceId::Port(PORT), link);
                }
                other => panic!("nobody asks for {other:?}"),
            }
        }
    });
    let served =
        ServedPorts { front, permits: ChannelPermits::new(16), ports: [PORT].into(), bound, on_demand: None };
    (InterceptedCalls::new(served), busy)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Until it is so of what stands still.
async fn until_still(
    calls: &InterceptedCalls,
    is_so: impl Fn(&CallsSnapshot) -> bool,
) -> Still<Vec<CallsSnapshot>> {
    let look = async {
        loop {
            match calls.stand_still().await {
                Ok(still) if still.state.iter().all(&is_so) => return still,
                _ => tokio::task::yield_now().await,
            }
        }
    };
    timeout(DEADLINE, look).await.expect("it stands still so")
}

#[test]
fn a_call_that_waits_is_answered_by_the_next_image_and_so_are_those_that_follow() {
    let Some(mut worker) = Worker::start() else { return };
    let notifications = worker.notifications.take().unwrap();
    let first = runtime();
    let (snapshot, fds) = first.block_on(async {
        let (mut calls, _) = interception(false);
        calls.answer(WORKER, notifications);
        worker.binds();
        let still = until_still(&calls, |launch| launch.call.is_some()).await;
        carried(&still.state)
    });
    // With all its tasks, and its copy of the descriptor.
    drop(first);
    let second = runtime();
    let (snapshot, fds) = second.block_on(async {
        let (mut calls, _) = interception(true);
        for launch in snapshot {
            calls.restore(launch, &fds).unwrap();
        }
        worker.comes_to().await.unwrap();
        worker.listens();
        worker.comes_to().await.unwrap();
        let still = until_still(&calls, |launch| launch.call.is_none()).await;
        carried(&still.state)
    });
    drop(second);
    // What comes while nobody listens waits in the kernel.
    worker.binds();
    runtime().block_on(async {
        let (mut calls, _) = interception(true);
        for launch in snapshot {
            calls.restore(launch, &fds).unwrap();
        }
        let again = worker.comes_to().await.unwrap_err();
        assert_eq!(again.raw_os_error(), Some(libc::EINVAL), "it is bound");
    });
    worker.ends();
}

#[tokio::test]
async fn what_is_being_done_for_a_call_is_done_before_it_stands_still() {
    let Some(mut worker) = Worker::start() else { return };
    let notifications = worker.notifications.take().unwrap();
    let (mut calls, busy) = interception(true);
    calls.answer(WORKER, notifications);
    let is_busy = busy.lock().await;
    worker.binds();
    let refused = async {
        loop {
            match calls.stand_still().await {
                Err(NotCarried(why)) => return why,
                Ok(_) => tokio::task::yield_now().await,
            }
        }
    };
    let why = timeout(DEADLINE, refused).await.expect("it takes too long");
    assert!(why.contains("bind"), "{why}");
    drop(is_busy);
    let still = until_still(&calls, |launch| launch.call.is_none()).await;
    worker.comes_to().await.unwrap();
    worker.listens();
    for _ in 0..1000 {
        tokio::task::yield_now().await;
    }
    assert!(worker.outcomes.try_recv().is_err(), "nothing is answered meanwhile");
    let launch = calls.launches[0].upgrade().unwrap();
    assert_eq!(launch.snapshot(), still.state[0], "nor received");
    drop(still);
    worker.comes_to().await.unwrap();
    worker.ends();
}

#[test]
fn what_a_launch_has_left_behind_binds_on_its_own_in_the_next_image_too() {
    let Some(mut worker) = Worker::start() else { return };
    let notifications = worker.notifications.take().unwrap();
    let first = runtime();
    let (snapshot, fds) = first.block_on(async {
        let (mut calls, _) = interception(true);
        calls.answer(WORKER, notifications);
        calls.gone(WORKER);
        let still = calls.stand_still().await.unwrap();
        carried(&still.state)
    });
    drop(first);
    assert!(snapshot[0].is_gone);
    worker
        .calls
        .send(|socket| socket.bind(&SockAddr::from(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))))
        .unwrap();
    runtime().block_on(async {
        let (mut calls, _) = interception(false);
        calls.restore(snapshot.into_iter().next().unwrap(), &fds).unwrap();
        worker.comes_to().await.unwrap();
    });
    worker.ends();
}

#[tokio::test]
async fn what_no_image_has_written_is_refused() {
    let (mut calls, _) = interception(true);
    let (reader, _writer) = std::io::pipe().unwrap();
    let call = CallSnapshot { id: 1, thread: 0, asks: Asks::Other, until: Instant::now().into() };
    let snapshot = CallsSnapshot {
        worker: WORKER,
        notifications: CarriedFd::of(&reader),
        is_gone: false,
        untold: vec![(7, Endpoint::V4 { address: [127, 0, 0, 1], port: PORT.0 })],
        told_of_access: true,
        call: None,
    };
    for thread in [0, -1] {
        let call = Some(CallSnapshot { thread, ..call.clone() });
        let (snapshot, fds) = carried(&CallsSnapshot { call, ..snapshot.clone() });
        assert!(calls.restore(snapshot, &fds).is_err(), "{thread}");
    }
    let (read, fds) = carried(&snapshot);
    assert_eq!(read, snapshot);
    calls.restore(read.clone(), &fds).unwrap();
    assert!(calls.restore(read, &fds).is_err(), "it has one owner");
    let still = calls.stand_still().await.unwrap();
    let [again] = &still.state[..] else { panic!() };
    assert_eq!(CallsSnapshot { notifications: snapshot.notifications, ..again.clone() }, snapshot);
}
