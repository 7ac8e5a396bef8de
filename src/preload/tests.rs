//! The shim at work: this test program runs itself behind the shim, with std's `TcpListener` as the server that
//! knows nothing, and plays the primary.

mod closing;
mod connecting;
mod options;
mod registered;

use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use object::elf::{self, FileHeader64};
use object::endian::LittleEndian;
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Resource, Rlimit};

use super::{Exposed, SHIM};
use crate::protocol::name_address;
use crate::protocol::wire::{
    Binding, ChannelName, ENV_PORTS, ENV_SOCKET, ENV_TOKEN, Endpoint, FromWorker, MAX_MESSAGE, NODE_CHANNEL,
    Refusal, ToWorker, Token,
};
use crate::sys::process::give_descriptor;
use crate::sys::seqpacket;

const TOKEN: Token = Token(*b"0123456789abcdef");
const PATIENCE: Timespec = Timespec { tv_sec: 20, tv_nsec: 0 };

/// Which server [`as_server`] shall be; without it, it is a test that has nothing to do.
const ENV_ROLE: &str = "SHIM_TEST_ROLE";

/// The server that knows nothing, when this test program is run again behind the shim.
#[test]
fn as_server() {
    let Ok(role) = std::env::var(ENV_ROLE) else {
        return;
    };
    let port = std::env::var(ENV_PORTS).unwrap();
    match role.as_str() {
        "registered" => return registered::serve(port.parse().unwrap()),
        "options" => return options::serve(port.parse().unwrap()),
        "asks" => return connecting::serve(port.parse().unwrap()),
        "closing" => return closing::serve(),
        _ => {}
    }
    let listener = match role.as_str() {
        "given" => Ok(given_listener()),
        "v6" => TcpListener::bind(format!("[::]:{port}")),
        // Free for as long as nobody else can have the port on every address.
        "elsewhere" => TcpListener::bind(format!("127.0.0.2:{port}")),
        _ => TcpListener::bind(format!("127.0.0.1:{port}")),
    };
    let listener = match listener {
        Ok(listener) => listener,
        Err(error) => return println!("@bind failed: {:?}", error.raw_os_error().unwrap()),
    };
    println!("@bound {}", listener.local_addr().unwrap());
    loop {
        match listener.accept() {
            Ok((mut connection, client)) => writeln!(connection, "hello {client}").unwrap(),
            Err(error) => println!("@accept failed: {:?}", error.raw_os_error().unwrap()),
        }
    }
}

/// A listener that the server was given as its standard input, as Node's primary gives a shared handle, and on
/// which it only has to listen.
fn given_listener() -> TcpListener {
    let listener = TcpListener::from(std::io::stdin().as_fd().try_clone_to_owned().unwrap());
    let socket = socket2::SockRef::from(&listener);
    let (domain, kind) = (socket.domain().unwrap(), socket.r#type().unwrap());
    let peer = socket.peer_addr().unwrap_err().raw_os_error().unwrap();
    println!("@given {domain:?} {kind:?} {peer} {}", socket.is_listener().unwrap());
    socket.listen(511).unwrap();
    println!("@listens {}", socket.is_listener().unwrap());
    listener
}

/// A primary, as far as the shim can tell, with one worker.
struct Primary {
    worker: Child,
    output: Lines<BufReader<ChildStdout>>,
    attach: OwnedFd,
    /// Holds the port: without the shim, the worker could not bind it.
    _public: TcpListener,
    port: u16,
    _folder: tempfile::TempDir,
    _exposed: Exposed,
}

impl Drop for Primary {
    fn drop(&mut self) {
        let _ = self.worker.kill();
        let _ = self.worker.wait();
    }
}

/// This test program as the server of this role.
fn server(role: &str, port: u16) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "preload::tests::as_server", "--nocapture"]);
    command.env(ENV_ROLE, role).env(ENV_PORTS, port.to_string());
    command
}

/// What a server prints next, without what the test harness prints around it.
fn next_line(output: &mut Lines<BufReader<ChildStdout>>) -> String {
    let line = output.find_map(|line| Some(line.unwrap().split_once('@')?.1.to_owned()));
    line.expect("the server prints a line")
}

/// The server of this role without the shim, and what it prints, until its end.
struct Natively {
    server: Child,
    output: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl Natively {
    fn start(role: &str) -> Self {
        // Nobody else is given the port so soon.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let mut server = server(role, port).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(server.stdout.take().unwrap()).lines();
        Self { server, output, port }
    }

    fn line(&mut self) -> String {
        next_line(&mut self.output)
    }
}

impl Drop for Natively {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What the primary got from a worker that binds a served port.
struct Attached {
    channel: OwnedFd,
    worker_end: OwnedFd,
    binding: Binding,
    nonce: u64,
    socket: OwnedFd,
}

fn readable(fd: impl AsFd) {
    let ready = poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&PATIENCE)).unwrap();
    assert_eq!(ready, 1, "nothing came in time");
}

/// By what the worker asks whether it listens on this channel.
fn nonce_of(channel: &OwnedFd) -> u64 {
    let name = rustix::net::getpeername(channel).unwrap().unwrap();
    let name = SocketAddrUnix::try_from(name).unwrap();
    ChannelName::decode(&[b"\0", name.abstract_name().unwrap()].concat()).unwrap().nonce
}

impl Primary {
    fn start(role: &str) -> Self {
        Self::start_with(role, |_| Stdio::null())
    }

    /// A worker whose standard input is made for the served port.
    fn start_with(role: &str, stdin: impl FnOnce(u16) -> Stdio) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let exposed = Exposed::new(Some(folder.path()), false).unwrap();
        let socket = folder.path().join("attach");
        let attach = seqpacket::listen(&SocketAddrUnix::new(&socket).unwrap(), 16).unwrap();
        let public = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = public.local_addr().unwrap().port();
        let mut worker = server(role, port)
            .env(ENV_SOCKET, &socket)
            .env(ENV_TOKEN, str::from_utf8(&TOKEN.to_hex()).unwrap())
            .env("LD_PRELOAD", exposed.path())
            .stdin(stdin(port))
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        let output = BufReader::new(worker.stdout.take().unwrap()).lines();
        Self { worker, output, attach, _public: public, port, _folder: folder, _exposed: exposed }
    }

    /// What the server prints next, without what the test harness prints around it.
    fn line(&mut self) -> String {
        next_line(&mut self.output)
    }

    /// Waits for an attach, and checks it.
    fn attached(&self) -> Attached {
        let channel = self.connected();
        let (message, none) = hear_with(&channel);
        assert!(none.is_none(), "nothing is taken before it is admitted");
        let FromWorker::Attach { token, binding, wants_drain: false, brings_socket: true } = message else {
            panic!("not an attach: {message:?}");
        };
        assert_eq!(token, TOKEN);
        assert_eq!(binding.address.port(), self.port);
        say(&channel, &ToWorker::Admitted, None);
        let (message, worker_end) = hear_with(&channel);
        assert_eq!(message, FromWorker::End);
        let worker_end = worker_end.expect("a duplicate of the worker's end");
        let name = SocketAddrUnix::try_from(rustix::net::getsockname(&worker_end).unwrap()).unwrap();
        let path = [b"\0", name.abstract_name().unwrap()].concat();
        let name = ChannelName::decode(&path).unwrap();
        assert_eq!(name.address, binding.address);
        let (message, socket) = hear_with(&channel);
        assert_eq!(message, FromWorker::Socket);
        let socket = socket.expect("the server's own socket");
        Attached { channel, worker_end, binding, nonce: name.nonce, socket }
    }

    /// Nobody is there at the attach socket any more.
    fn stop_listening(&mut self) {
        self.attach = std::fs::File::open("/dev/null").unwrap().into();
    }

    /// The next connection to the attach socket.
    fn connected(&self) -> OwnedFd {
        readable(&self.attach);
        seqpacket::accept(&self.attach).unwrap()
    }

    /// The worker listens, and waits until the primary has noticed.
    fn hears_listening(&self, channel: &OwnedFd) {
        assert_eq!(hear(channel), FromWorker::Listening);
        for answer in [false, true] {
            self.told_whether_listened(nonce_of(channel), &ToWorker::HasListened(answer));
        }
    }

    /// The next question whether anybody has listened, be it on one channel, answered.
    fn told_whether_listened(&self, channel: u64, answer: &ToWorker) {
        let connection = self.connected();
        assert_eq!(hear(&connection), FromWorker::AskListened { token: TOKEN, port: self.port, channel });
        say(&connection, answer, None);
    }

    fn welcomed(&self) -> Attached {
        let attached = self.attached();
        say(&attached.channel, &ToWorker::Welcome, None);
        attached
    }

    fn refuse(role: &str, refusal: Refusal) -> String {
        let mut primary = Self::start(role);
        let Attached { channel, .. } = primary.attached();
        say(&channel, &ToWorker::Refuse(refusal), None);
        primary.line()
    }
}

fn say(channel: &OwnedFd, message: &ToWorker, fd: Option<BorrowedFd<'_>>) {
    let mut buffer = [0; MAX_MESSAGE];
    seqpacket::send(channel, message.encode(&mut buffer), fd).unwrap();
}

fn hear(channel: &OwnedFd) -> FromWorker {
    hear_with(channel).0
}

fn hear_with(channel: &OwnedFd) -> (FromWorker, Option<OwnedFd>) {
    readable(channel);
    let mut buffer = [0; MAX_MESSAGE];
    let record = seqpacket::receive(channel, &mut buffer).unwrap();
    (FromWorker::decode(&buffer[..record.len]).unwrap(), record.fd)
}

/// A connection, handed over on `channel` as one of `peer`: what the server says to it.
fn served(channel: &OwnedFd, peer: Endpoint) -> String {
    let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(front.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (accepted, _) = front.accept().unwrap();
    accepted.set_nonblocking(true).unwrap();
    say(channel, &ToWorker::Connection { peer, linger: None }, Some(accepted.as_fd()));
    drop(accepted);
    let mut reply = String::new();
    client.read_to_string(&mut reply).unwrap();
    reply
}

const CLIENT: Endpoint = Endpoint::V4 { address: [192, 0, 2, 7], port: 4321 };

#[test]
fn a_std_listener_is_served_through_its_channel() {
    let mut primary = Primary::start("v4");
    let Attached { channel, worker_end, binding: Binding { address, .. }, .. } = primary.welcomed();
    assert_eq!(address, Endpoint::V4 { address: [127, 0, 0, 1], port: primary.port });
    primary.hears_listening(&channel);
    assert_eq!(primary.line(), format!("bound 127.0.0.1:{}", primary.port));
    for _ in 0..10 {
        say(&channel, &ToWorker::Wake, None);
        assert_eq!(served(&channel, CLIENT), "hello 192.0.2.7:4321\n");
    }
    assert_eq!(seqpacket::waiting_bytes(&worker_end).unwrap(), 0);
}

#[test]
fn an_ipv6_listener_sees_ipv4_clients_as_mapped() {
    let primary = Primary::start("v6");
    let Attached { channel, binding: Binding { address, .. }, .. } = primary.welcomed();
    assert_eq!(address, Endpoint::V6 { address: [0; 16], port: primary.port, scope: 0 });
    primary.hears_listening(&channel);
    assert_eq!(served(&channel, CLIENT), "hello [::ffff:192.0.2.7]:4321\n");
}

/// A channel that the primary makes itself: its own end, and the worker's, which has a channel's name.
fn channel_for(address: Endpoint) -> (OwnedFd, OwnedFd) {
    let (ours, workers) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .unwrap();
    let name = ChannelName { address, given: true, nonce: fastrand::u64(..) };
    rustix::net::bind(&workers, &name_address(&name).unwrap()).unwrap();
    (ours, workers)
}

#[test]
fn a_channel_that_was_given_is_a_listener_on_which_nobody_listens_yet() {
    let mut channel = None;
    let mut primary = Primary::start_with("given", |port| {
        let (ours, workers) = channel_for(Endpoint::V6 { address: [0; 16], port, scope: 0 });
        channel = Some(ours);
        workers.into()
    });
    let channel = channel.unwrap();
    let (domain, kind) = (socket2::Domain::IPV6, socket2::Type::STREAM);
    assert_eq!(primary.line(), format!("given {domain:?} {kind:?} {} false", libc::ENOTCONN));
    primary.hears_listening(&channel);
    assert_eq!(primary.line(), "listens true");
    assert_eq!(primary.line(), format!("bound [::]:{}", primary.port));
    assert_eq!(served(&channel, CLIENT), "hello [::ffff:192.0.2.7]:4321\n");
}

#[test]
fn a_server_out_of_descriptors_leaves_the_connection_in_the_channel() {
    let mut primary = Primary::start("v4");
    let Attached { channel, worker_end, .. } = primary.welcomed();
    primary.hears_listening(&channel);
    primary.line();
    let pid = Some(rustix::process::Pid::from_child(&primary.worker));
    let usual = rustix::process::getrlimit(Resource::Nofile);
    let none = Rlimit { current: Some(0), ..usual };
    rustix::process::prlimit(pid, Resource::Nofile, none).unwrap();
    let front = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut client = TcpStream::connect(front.local_addr().unwrap()).unwrap();
    let (accepted, _) = front.accept().unwrap();
    say(&channel, &ToWorker::Connection { peer: CLIENT, linger: None }, Some(accepted.as_fd()));
    drop(accepted);
    let refused = format!("accept failed: {}", libc::EMFILE);
    for _ in 0..3 {
        assert_eq!(primary.line(), refused);
    }
    assert_ne!(seqpacket::waiting_bytes(&worker_end).unwrap(), 0);
    rustix::process::prlimit(pid, Resource::Nofile, usual).unwrap();
    let mut reply = String::new();
    client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    client.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "hello 192.0.2.7:4321\n");
}

#[test]
fn a_worker_ends_with_its_primary() {
    use std::os::unix::process::ExitStatusExt;
    let mut primary = Primary::start("v4");
    let Attached { channel, .. } = primary.welcomed();
    primary.hears_listening(&channel);
    primary.stop_listening();
    drop(channel);
    assert_eq!(primary.worker.wait().unwrap().signal(), Some(libc::SIGTERM));
}

#[test]
fn a_refused_server_hears_why() {
    assert!(Primary::refuse("elsewhere", Refusal::NotServed).starts_with("bound 127.0.0.2:"));
    assert_eq!(Primary::refuse("v4", Refusal::NotAdmitted), format!("bind failed: {}", libc::EACCES));
    assert_eq!(Primary::refuse("v4", Refusal::Full), format!("bind failed: {}", libc::EADDRINUSE));
    assert_eq!(Primary::refuse("v4", Refusal::Shared), format!("bind failed: {}", libc::EADDRINUSE));
}

/// Which of the variables that announce a channel a program sees, which was given all of them, `fd` as descriptor 3,
/// and the shim.
fn seen_with(channel: &str, fd: Option<OwnedFd>, leads_group: bool) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let exposed = Exposed::new(Some(folder.path()), false).unwrap();
    let mut command = Command::new("env");
    command.env_clear().env("LD_PRELOAD", exposed.path()).env("NODE_CHANNEL_FD", channel);
    command.env("NODE_UNIQUE_ID", "1").env("NODE_CHANNEL_SERIALIZATION_MODE", "json");
    if let Some(fd) = fd {
        give_descriptor(&mut command, fd, 3);
    }
    if leads_group {
        command.process_group(0);
    }
    let output = command.output().unwrap();
    assert!(output.status.success());
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().filter(|line| line.starts_with("NODE_")).map(str::to_owned).collect()
}

fn unix_socket(kind: SocketType, name: Option<&[u8]>) -> OwnedFd {
    let (_, end) = rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    if let Some(name) = name {
        let unique = [name, &fastrand::u64(..).to_le_bytes()].concat();
        rustix::net::bind(&end, &SocketAddrUnix::new_abstract_name(&unique).unwrap()).unwrap();
    }
    end
}

#[test]
fn what_is_no_channel_is_not_announced_to_node() {
    let file = || std::fs::File::open("/dev/null").unwrap().into();
    let tcp = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().into();
    for leads_group in [true, false] {
        assert!(seen_with("99", None, leads_group).is_empty(), "a closed descriptor");
        for text in ["", "x", "-1", "3x", "99999999999"] {
            assert!(seen_with(text, None, leads_group).is_empty(), "{text:?} is no descriptor");
        }
        for other in [file(), tcp(), unix_socket(SocketType::SEQPACKET, None)] {
            assert!(seen_with("3", Some(other), leads_group).is_empty());
        }
    }
}

#[test]
fn clusterds_node_channel_is_for_the_process_that_clusterd_started() {
    let named = || Some(unix_socket(SocketType::STREAM, Some(NODE_CHANNEL)));
    assert_eq!(seen_with("3", named(), true).len(), 3);
    assert!(seen_with("3", named(), false).is_empty());
}

#[test]
fn nodes_own_channel_to_a_child_is_left_alone() {
    let unnamed = || Some(unix_socket(SocketType::STREAM, None));
    let other = Some(unix_socket(SocketType::STREAM, Some(b"another")));
    for (fd, leads_group) in [(unnamed(), true), (unnamed(), false), (other, false)] {
        assert_eq!(seen_with("3", fd, leads_group).len(), 3);
    }
}

#[test]
fn the_shim_needs_no_library() {
    let shim = SHIM.unwrap();
    let header = FileHeader64::<LittleEndian>::parse(shim).unwrap();
    assert_eq!(header.e_type(LittleEndian), elf::ET_DYN);
    let entries = header.program_headers(LittleEndian, shim).unwrap();
    let dynamic = entries.iter().find_map(|entry| entry.dynamic(LittleEndian, shim).unwrap());
    for entry in dynamic.expect("a shared object") {
        assert_ne!(entry.tag(LittleEndian), elf::DT_NEEDED);
    }
}

#[test]
fn the_shim_asks_libc_for_little_and_replaces_only_what_it_means_to() {
    use object::{Object, ObjectSymbol};
    let shim = object::File::parse(SHIM.unwrap()).unwrap();
    let names = |defined: bool| {
        let mut names: Vec<_> = shim
            .dynamic_symbols()
            .filter(|symbol| symbol.is_undefined() != defined)
            .map(|symbol| symbol.name().unwrap())
            .collect();
        names.sort_unstable();
        names
    };
    let offered = [
        "accept",
        "accept4",
        "bind",
        "connect",
        "getpeername",
        "getsockname",
        "getsockopt",
        "listen",
        "pthread_sigmask",
        "recv",
        "send",
        "sendmsg",
        "sendto",
        "setsockopt",
        "shutdown",
        "write",
        "writev",
    ];
    assert_eq!(names(true), offered);
    // The processor's features, by which aarch64 chooses its atomic instructions, come from getauxval.
    let in_every_libc = [
        "__errno_location",
        "bcmp",
        "getauxval",
        "getenv",
        "memcmp",
        "memcpy",
        "memmove",
        "memset",
        "recvfrom",
        "sigprocmask",
        "strlen",
        "unsetenv",
    ];
    for symbol in shim.dynamic_symbols().filter(ObjectSymbol::is_undefined) {
        let name = symbol.name().unwrap();
        // Only weakly: without it a program starts as well.
        assert!(in_every_libc.contains(&name) || (name == "dlsym" && symbol.is_weak()), "{name}");
    }
}
