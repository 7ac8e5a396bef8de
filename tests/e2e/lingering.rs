//! Connections whose closing takes half a minute (SO_LINGER, socket(7)), sent to clusterd or left to it: nobody waits for
//! that.

use std::fs::DirEntry;
use std::io::{self, IoSlice, Write as _};
use std::mem::MaybeUninit;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};
use rustix::process::{Pid, kill_process};
use socket2::{Domain, SockFilter, SockRef, Socket, Type};

use crate::harness::needs::{self, needs};
use crate::harness::process::Process;
use crate::harness::setup::Setup;
use crate::harness::{Cluster, Said, Signal, until};

/// Half a minute is longer, and a busy machine is not so slow.
const AT_ONCE: Duration = Duration::from_secs(8);

fn servers() -> Setup {
    Cluster::of("python3 {fixtures}/lingers.py {port}").workers(2)
}

/// Clients, probes and commands are answered, a few times.
fn all_answer(cluster: &Cluster, home: &Path) {
    let at_once = |what: &str, act: &dyn Fn()| {
        let start = Instant::now();
        act();
        let took = start.elapsed();
        assert!(took < AT_ONCE, "{what} took {took:?}");
    };
    for _ in 0..10 {
        at_once("a request", &|| assert!(cluster.get("/").starts_with("worker ")));
        at_once("a probe", &|| assert_eq!(cluster.probe("/livez").status, 200));
        at_once("a command", &|| assert!(Said::of(home, &[], "list").done().contains("online")));
    }
}

fn is_told_at_once(cluster: &Cluster, message: &str) {
    let start = Instant::now();
    until(message, || cluster.stderr.messages(message).pop());
    assert!(start.elapsed() < AT_ONCE, "it was told after {:?}", start.elapsed());
}

/// A connection that lingers, and the other end, which reads nothing.
fn lingering() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_nonblocking(true).unwrap();
    while server.write(&[0; 65536]).is_ok() {}
    SockRef::from(&server).set_linger(Some(Duration::from_secs(30))).unwrap();
    (server, client)
}

/// Somebody who knows no token sends connections there, and goes; whether the kernel let him.
fn send_to(address: &SocketAddrUnix, kind: SocketType) -> bool {
    let socket: OwnedFd = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    connect(&socket, address).unwrap();
    let (sent, _peer) = lingering();
    let fds = [sent.as_fd(), sent.as_fd()];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    let bytes = [IoSlice::new(b"GET / HTTP/1.1\r\n\r\n")];
    let outcome = sendmsg(&socket, &bytes, &mut ancillary, SendFlags::NOSIGNAL);
    match outcome {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error, rustix::io::Errno::PERM);
            // For this process is to close it.
            SockRef::from(&sent).set_linger(None).unwrap();
            false
        }
    }
}

/// Whether the kernel lets a socket refuse descriptors (SO_PASSRIGHTS).
fn can_refuse() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

#[test]
fn a_stranger_that_sends_one_to_the_attach_socket_holds_nobody_up() {
    needs!("python3");
    let cluster = servers().start();
    let attach = cluster.worker(1).environment("CLUSTERD_ATTACH_SOCKET").expect("it is set");
    let address = match attach.strip_prefix('@') {
        Some(name) => SocketAddrUnix::new_abstract_name(name.as_bytes()),
        None => SocketAddrUnix::new(attach.as_str()),
    };
    for _ in 0..3 {
        let was_sent = send_to(address.as_ref().unwrap(), SocketType::SEQPACKET);
        assert!(!(was_sent && can_refuse()), "it is refused");
    }
    all_answer(&cluster, &cluster.home());
}

#[test]
fn a_stranger_that_sends_one_to_an_abstract_control_socket_holds_nobody_up() {
    needs!("python3");
    let setup = servers();
    let no_folder = setup.folder.path().join("file/home");
    let setup = setup.file("file", "").env("CLUSTERD_HOME", &no_folder);
    let cluster = setup.start();
    let pid = cluster.primary().pid().to_string();
    let table = std::fs::read("/proc/net/unix").unwrap();
    let text = String::from_utf8_lossy(&table).into_owned();
    let name = text
        .lines()
        .filter_map(|line| line.split('@').nth(1))
        .find(|name| name.starts_with("clusterd-control-") && name.ends_with(&pid))
        .expect("it has an abstract name");
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    for _ in 0..3 {
        let was_sent = send_to(&address, SocketType::STREAM);
        assert!(!(was_sent && can_refuse()), "it is refused");
    }
    all_answer(&cluster, &no_folder);
}

#[test]
fn a_worker_that_sends_one_on_its_channel_holds_nobody_up() {
    needs!("python3");
    let cluster = servers().start();
    cluster.get("/channel");
    is_told_at_once(&cluster, "closed a channel that does not speak the attach protocol");
    all_answer(&cluster, &cluster.home());
}

#[test]
fn a_worker_that_sends_one_on_nodes_channel_holds_nobody_up() {
    needs!("python3");
    let cluster = servers().start();
    cluster.get("/node");
    is_told_at_once(&cluster, "worker sent a handle, which clusterd cannot use; closing it");
    all_answer(&cluster, &cluster.home());
}

/// A client that is connected, and from then on acknowledges nothing.
fn vanished(address: SocketAddr) -> io::Result<TcpStream> {
    const FLAGS: u32 = 13;
    const SYN: u32 = 2;
    let instruction = |code: u32, if_true, if_false, value| {
        SockFilter::new(u16::try_from(code).expect("16 bits"), if_true, if_false, value)
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // It sees the header of TCP. What completes the handshake passes.
    socket.attach_filter(&[
        instruction(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, 0, FLAGS),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, SYN),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, u32::MAX),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, 0),
    ])?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

#[test]
fn a_listener_that_lingers_is_the_workers_alone_and_clients_that_wait_too_long_are_closed_at_once() {
    needs!("python3");
    let setup = servers().workers(1).env("SERIAL", "1");
    let cluster = setup.options("--handoff-timeout 200ms --queue-timeout 1s").start();
    assert_eq!(cluster.get("/linger"), "1 30", "what the server has set on its listener");
    let held = cluster.send("/hold");
    cluster.handed(2);
    let _clients: Vec<_> = (0..5).map(|_| vanished(cluster.address()).unwrap()).collect();
    until("they are closed", || {
        let rejected = [("reason", "queue_timeout")];
        (cluster.metrics().count("clusterd_connections_rejected_total", &rejected) == 5).then_some(())
    });
    cluster.open_gate("gate");
    assert!(held.response().is_ok());
    all_answer(&cluster, &cluster.home());
}

/// Each close(2) of a process begins this late, until this is dropped.
struct Late(Child);

impl Late {
    fn closing(process: &Process, time: &str) -> Self {
        let pid = process.pid().to_string();
        let inject = format!("inject=close:delay_enter={time}");
        let mut strace = Command::new("strace");
        strace.args(["-f", "-q", "-o", "/dev/null", "-e", "trace=close", "-e", &inject, "-p", &pid]);
        let strace = strace.stdin(Stdio::null()).spawn().expect("strace can be started");
        let late = Self(strace);
        until("every thread is traced", || {
            let mut threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
            let is_traced = |thread: io::Result<DirEntry>| {
                let status =
                    std::fs::read_to_string(thread.unwrap().path().join("status")).unwrap_or_default();
                !status.contains("TracerPid:\t0\n")
            };
            threads.all(is_traced).then_some(())
        });
        late
    }
}

impl Drop for Late {
    fn drop(&mut self) {
        let strace = Pid::from_child(&self.0);
        // It lets go of the process, which SIGKILL would have end with it.
        let _ = kill_process(strace, Signal::TERM);
        let _ = self.0.wait();
    }
}

/// The worker has answered and closed a connection before clusterd closes its own copy, which is the last then.
#[test]
fn the_last_copy_of_a_connection_that_lingers_holds_nobody_up() {
    needs!("python3", "strace");
    if !needs::root() {
        return;
    }
    let cluster = servers().start();
    let late = Late::closing(&cluster.primary(), "20ms");
    let mut clients = Vec::new();
    for _ in 0..10 {
        let mut client = vanished(cluster.address()).unwrap();
        client.write_all(b"GET /vanish HTTP/1.1\r\n\r\n").unwrap();
        clients.push(client);
    }
    cluster.handed(10);
    drop(late);
    all_answer(&cluster, &cluster.home());
}

#[test]
fn listeners_that_a_server_has_closed_take_no_place() {
    needs!("python3");
    let cluster = servers().start();
    let open = || cluster.metrics().count("process_open_fds", &[]);
    let before = open();
    cluster.get("/rebind/200");
    let after = open();
    assert!(after < before + 40, "{before} descriptors were open, and {after} are");
    all_answer(&cluster, &cluster.home());
}
