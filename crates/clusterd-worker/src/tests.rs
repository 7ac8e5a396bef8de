//! The library against a stand-in for the primary, over a real attach socket.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::net::SocketAddrUnix;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UnixDatagram};

use crate::listener::Environment;
use crate::scarcity::{no_descriptor_left, run_alone};
use crate::wire::{ChannelName, Endpoint, FromWorker, MAX_MESSAGE, Refusal, ToWorker, Token};
use crate::{Address, BindError, Listener, PausedListener, channel, seqpacket};

const TOKEN: Token = Token([7; 16]);
const DEADLINE: Duration = Duration::from_secs(10);

/// Listens where the environment points to, and does what a test asks for.
struct Primary {
    attach: UnixDatagram,
    folder: TempDir,
}

/// One channel, seen from the primary.
struct Link {
    channel: UnixDatagram,
    worker_end: OwnedFd,
}

impl Primary {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(folder.path().join("attach")).unwrap();
        let listener = seqpacket::listen(&address, 8).unwrap();
        Self { attach: watched(listener), folder }
    }

    fn environment(&self) -> Environment {
        Environment {
            socket: Some(self.folder.path().join("attach").into()),
            token: Some(OsString::from(str::from_utf8(&TOKEN.to_hex()).unwrap())),
        }
    }

    /// Takes an attach for `port` and answers it.
    async fn answer(&self, port: u16, answer: ToWorker) -> Link {
        let channel = until_ready(&self.attach, |listener| seqpacket::accept(listener)).await;
        let channel = watched(channel);
        let mut link = None;
        let mut hear = async || {
            let message = until_ready(&channel, |channel| {
                let mut buffer = [0; MAX_MESSAGE];
                let record = seqpacket::receive(channel, &mut buffer)?;
                link = record.fd;
                Ok(FromWorker::decode(&buffer[..record.len]).unwrap())
            });
            message.await
        };
        let FromWorker::Attach { token, binding, wants_drain, brings_socket: false } = hear().await else {
            panic!("the first message attaches");
        };
        assert_eq!((token, binding.address.port(), wants_drain), (TOKEN, port, true));
        seqpacket::send(&channel, ToWorker::Admitted.encode(&mut [0; MAX_MESSAGE]), None).unwrap();
        assert_eq!(hear().await, FromWorker::End);
        let link = Link { channel, worker_end: link.expect("a duplicate of the worker's end") };
        link.send(answer, None);
        link
    }
}

impl Link {
    fn send(&self, message: ToWorker, fd: Option<&OwnedFd>) {
        let mut buffer = [0; MAX_MESSAGE];
        let record = message.encode(&mut buffer);
        seqpacket::send(&self.channel, record, fd.map(AsFd::as_fd)).unwrap();
    }

    async fn heard(&self) -> FromWorker {
        until_ready(&self.channel, |channel| {
            let mut buffer = [0; MAX_MESSAGE];
            let record = seqpacket::receive(channel, &mut buffer)?;
            Ok(FromWorker::decode(&buffer[..record.len]).unwrap())
        })
        .await
    }

    /// Hands over a new connection and returns the client's end of it.
    fn hand_over(&self) -> std::net::TcpStream {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (connection, peer) = listener.accept().unwrap();
        connection.set_nonblocking(true).unwrap();
        self.send(ToWorker::Connection { peer: peer.into(), linger: None }, Some(&connection.into()));
        client
    }
}

/// tokio watches any socket as one of these.
fn watched(fd: OwnedFd) -> UnixDatagram {
    UnixDatagram::from_std(fd.into()).unwrap()
}

async fn until_ready<T>(socket: &UnixDatagram, mut call: impl FnMut(&UnixDatagram) -> io::Result<T>) -> T {
    let ready = socket.async_io(Interest::READABLE, || call(socket));
    tokio::time::timeout(DEADLINE, ready).await.expect("within the deadline").unwrap()
}

async fn accept(listener: &mut Listener) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    tokio::time::timeout(DEADLINE, listener.accept()).await.expect("within the deadline")
}

async fn attached(primary: &Primary) -> (Listener, Link) {
    let (paused, link) = tokio::join!(
        PausedListener::bind(3000.into(), primary.environment()),
        primary.answer(3000, ToWorker::Welcome)
    );
    let listener = paused.unwrap().ready().unwrap();
    assert_eq!(link.heard().await, FromWorker::Listening);
    (listener, link)
}

async fn refused(refusal: Refusal) -> Result<PausedListener, BindError> {
    let primary = Primary::new();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (paused, _link) = tokio::join!(
        PausedListener::bind(address.into(), primary.environment()),
        primary.answer(0, ToWorker::Refuse(refusal))
    );
    paused
}

#[tokio::test]
async fn a_connection_arrives_with_its_client() {
    let primary = Primary::new();
    let (mut listener, link) = attached(&primary).await;
    let mut client = link.hand_over();
    let (mut stream, peer) = accept(&mut listener).await.unwrap().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    client.write_all(b"ping").unwrap();
    let mut ping = [0; 4];
    stream.read_exact(&mut ping).await.unwrap();
    stream.write_all(&ping).await.unwrap();
    drop(stream);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "ping");
}

#[tokio::test]
async fn nothing_is_said_before_the_server_is_ready() {
    let primary = Primary::new();
    let (paused, link) = tokio::join!(
        PausedListener::bind(3000.into(), primary.environment()),
        primary.answer(3000, ToWorker::Welcome)
    );
    let paused = paused.unwrap();
    let mut buffer = [0; MAX_MESSAGE];
    let silence = seqpacket::receive(&link.channel, &mut buffer).unwrap_err();
    assert_eq!(silence.kind(), io::ErrorKind::WouldBlock);
    paused.ready().unwrap();
    assert_eq!(link.heard().await, FromWorker::Listening);
}

#[tokio::test]
async fn the_channel_is_named_after_the_address() {
    let primary = Primary::new();
    let (_listener, link) = attached(&primary).await;
    let name = SocketAddrUnix::try_from(rustix::net::getsockname(&link.worker_end).unwrap()).unwrap();
    let mut bytes = vec![0];
    bytes.extend_from_slice(name.abstract_name().unwrap());
    assert_eq!(
        ChannelName::decode(&bytes).unwrap().address,
        Endpoint::V6 { address: [0; 16], port: 3000, scope: 0 }
    );
}

#[tokio::test]
async fn a_wake_is_skipped_and_a_drain_ends_the_connections() {
    let primary = Primary::new();
    let (mut listener, link) = attached(&primary).await;
    link.send(ToWorker::Wake, None);
    let _client = link.hand_over();
    link.send(ToWorker::Drain, None);
    assert!(accept(&mut listener).await.unwrap().is_some());
    assert!(accept(&mut listener).await.unwrap().is_none());
    assert!(accept(&mut listener).await.unwrap().is_none());
}

#[tokio::test]
async fn an_ipv4_client_of_a_dual_stack_port_has_an_ipv4_address() {
    let primary = Primary::new();
    let (mut listener, link) = attached(&primary).await;
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.set_nonblocking(true).unwrap();
    let peer = SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(), 4000)).into();
    link.send(ToWorker::Connection { peer, linger: None }, Some(&socket.into()));
    let (_, peer) = accept(&mut listener).await.unwrap().unwrap();
    assert_eq!(peer, "192.0.2.1:4000".parse().unwrap());
}

#[tokio::test]
async fn an_accept_that_is_dropped_takes_nothing() {
    let primary = Primary::new();
    let (mut listener, link) = attached(&primary).await;
    tokio::select! {
        biased;
        _ = listener.accept() => panic!("nothing was handed over"),
        () = std::future::ready(()) => {}
    }
    let client = link.hand_over();
    let (_, peer) = accept(&mut listener).await.unwrap().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[tokio::test]
async fn a_primary_that_is_gone_ends_the_server() {
    let primary = Primary::new();
    let (mut listener, link) = attached(&primary).await;
    drop(link);
    let error = accept(&mut listener).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_primary_that_is_gone_before_it_read_everything_ends_the_server() {
    let primary = Primary::new();
    let (paused, link) = tokio::join!(
        PausedListener::bind(3000.into(), primary.environment()),
        primary.answer(3000, ToWorker::Welcome)
    );
    let mut listener = paused.unwrap().ready().unwrap();
    drop(link);
    let error = accept(&mut listener).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn a_connection_outlives_the_primary_that_handed_it_over() {
    let primary = Primary::new();
    let (paused, link) = tokio::join!(
        PausedListener::bind(3000.into(), primary.environment()),
        primary.answer(3000, ToWorker::Welcome)
    );
    // The primary never reads that the worker listens.
    let mut listener = paused.unwrap().ready().unwrap();
    let client = link.hand_over();
    drop(link);
    let (_, peer) = accept(&mut listener).await.unwrap().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    let error = accept(&mut listener).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn bytes_that_are_no_message_are_an_error() {
    let primary = Primary::new();
    let (mut listener, link) = attached(&primary).await;
    seqpacket::send(&link.channel, b"garbage", None).unwrap();
    let error = accept(&mut listener).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[tokio::test]
async fn a_port_that_is_not_served_is_listened_on_directly() {
    let mut listener = refused(Refusal::NotServed).await.unwrap().ready().unwrap();
    let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_, peer) = accept(&mut listener).await.unwrap().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[tokio::test]
async fn without_clusterd_a_port_is_listened_on_directly() {
    let mut listener = PausedListener::bind(0.into(), Environment::default()).await.unwrap().ready().unwrap();
    let port = listener.local_addr().unwrap().port();
    let client = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let (_, peer) = accept(&mut listener).await.unwrap().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let not_admitted = refused(Refusal::NotAdmitted).await.unwrap_err();
    assert!(matches!(not_admitted, BindError::NotAdmitted { .. }));
    let full = refused(Refusal::Full).await.unwrap_err();
    assert!(matches!(full, BindError::Full { .. }));
    let shared = refused(Refusal::Shared).await.unwrap_err();
    assert!(matches!(shared, BindError::Shared { .. }));
}

#[tokio::test]
async fn an_attach_socket_that_is_gone_is_an_error() {
    let mut environment = Primary::new().environment();
    environment.socket = Some("/nonexistent/attach".into());
    let error = PausedListener::bind(3000.into(), environment).await.unwrap_err();
    assert!(matches!(error, BindError::Unreachable { .. }));
    assert!(error.to_string().contains("/nonexistent/attach"));
}

#[tokio::test]
async fn a_damaged_token_is_an_error() {
    for token in [None, Some("short".into())] {
        let mut environment = Primary::new().environment();
        environment.token = token;
        let error = PausedListener::bind(3000.into(), environment).await.unwrap_err();
        assert!(matches!(error, BindError::Environment { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_silent_primary_is_given_up() {
    let primary = Primary::new();
    let socket = primary.environment().socket.unwrap();
    let asked = Address::Port(3000).asked();
    let answer = channel::attach(socket, TOKEN, asked, Duration::from_millis(1)).await;
    assert!(matches!(answer.unwrap_err(), BindError::Timeout { .. }));
}

#[test]
fn without_a_free_descriptor_a_connection_waits() {
    run_alone("tests::alone_without_a_free_descriptor");
}

#[tokio::test]
#[ignore = "lowers the limits of its process; run by without_a_free_descriptor_a_connection_waits"]
async fn alone_without_a_free_descriptor() {
    let primary = Primary::new();
    let (mut listener, link) = attached(&primary).await;
    let client = link.hand_over();
    let filling = no_descriptor_left();
    for _ in 0..3 {
        let error = accept(&mut listener).await.unwrap_err();
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()));
    }
    drop(filling);
    let (_, peer) = accept(&mut listener).await.unwrap().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
}
