//! Clients that are asked to leave: a server writes what it is told to, in every way there is, and the other end reads it.

use std::ffi::c_void;
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use super::{Exposed, next_line, server};
use crate::preload::DrainPage;
use crate::protocol::drain_page::ENV_DRAINING;

const LAUNCH: u64 = 7;

const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: keep-alive\r\n\r\n";
const CHANGED: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\n";

/// Each function, and whether it takes several buffers.
const WAYS: [(&str, bool); 5] =
    [("write", false), ("writev", true), ("send", false), ("sendto", false), ("sendmsg", true)];

/// Tries all of them with bytes that are not there.
const NOWHERE: &str = "nowhere";

/// Stands for more than the kernel takes at once.
const MUCH: &str = "*";

fn much() -> String {
    "0123456789".repeat(1_000_000)
}

/// Reads `WAY\nWHAT\0` and writes WHAT in that way, until the client leaves: a call for each part between `^`, a buffer
/// for each between `|`.
pub(super) fn serve() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    println!("@{}", listener.local_addr().unwrap().port());
    loop {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        let mut byte = [0];
        while client.read(&mut byte).is_ok_and(|read| read == 1) {
            if byte != [0] {
                request.push(byte[0]);
                continue;
            }
            let text = String::from_utf8(std::mem::take(&mut request)).unwrap();
            let (way, what) = text.split_once('\n').unwrap();
            if way == NOWHERE {
                writes_what_is_not_there(&client);
                client.write_all(what.as_bytes()).unwrap();
                continue;
            }
            let what = what.replace(MUCH, &much());
            client.set_nonblocking(true).unwrap();
            what.split('^').for_each(|call| write_all(&client, way, call));
            client.set_nonblocking(false).unwrap();
        }
    }
}

/// As an event loop does that goes on behind what was taken.
fn write_all(client: &TcpStream, way: &str, call: &str) {
    let buffers: Vec<_> = call.split('|').map(str::as_bytes).collect();
    let total: usize = buffers.iter().map(|buffer| buffer.len()).sum();
    let mut taken = 0;
    while taken < total {
        let mut skipped = taken;
        let rest = buffers.iter().filter_map(|buffer| {
            let here = skipped.min(buffer.len());
            skipped -= here;
            (here < buffer.len()).then(|| &buffer[here..])
        });
        let rest: Vec<_> = rest.collect();
        match usize::try_from(written(client.as_raw_fd(), way, &rest)) {
            Ok(more) => taken += more,
            Err(_) => {
                let error = std::io::Error::last_os_error();
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "{error}");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    assert_eq!(taken, total, "no more is taken than there is");
}

#[allow(unsafe_code)] // Otherwise not every function can be called.
fn written(fd: RawFd, way: &str, buffers: &[&[u8]]) -> isize {
    // The ways with one buffer are tried with one.
    let (start, len) = buffers.first().map(|first| (first.as_ptr().cast(), first.len())).unwrap();
    let slices: Vec<_> = buffers
        .iter()
        .map(|buffer| libc::iovec { iov_base: buffer.as_ptr().cast_mut().cast(), iov_len: buffer.len() })
        .collect();
    // SAFETY: what the pointers lead to lives until the call returns.
    unsafe { call(fd, way, (start, len), &slices) }
}

/// # Safety
/// As for the function that is called.
#[allow(unsafe_code)]
unsafe fn call(fd: RawFd, way: &str, (start, len): (*const c_void, usize), slices: &[libc::iovec]) -> isize {
    // SAFETY: the caller's promise.
    unsafe {
        match way {
            "write" => libc::write(fd, start, len),
            "writev" => libc::writev(fd, slices.as_ptr(), slices.len().try_into().unwrap()),
            "send" => libc::send(fd, start, len, libc::MSG_NOSIGNAL),
            "sendto" => libc::sendto(fd, start, len, 0, std::ptr::null(), 0),
            "sendmsg" => {
                let mut message: libc::msghdr = std::mem::zeroed();
                message.msg_iov = slices.as_ptr().cast_mut();
                message.msg_iovlen = slices.len() as _;
                libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL)
            }
            other => panic!("no way to write: {other}"),
        }
    }
}

/// The kernel refuses them, whether all of them are missing, all but a head or a part of one, or the list of them.
#[allow(unsafe_code)]
fn writes_what_is_not_there(client: &TcpStream) {
    let (_reader, pipe) = rustix::pipe::pipe().unwrap();
    let page = rustix::param::page_size();
    let access = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: new memory, of two pages, of which the second cannot be read.
    let memory: *mut u8 = unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), 2 * page, access.0, access.1, -1, 0);
        assert_eq!(libc::mprotect(memory.byte_add(page), page, libc::PROT_NONE), 0);
        memory.cast()
    };
    let end = memory.wrapping_add(page);
    let refused = |result| {
        assert_eq!((result, std::io::Error::last_os_error().raw_os_error()), (-1, Some(libc::EFAULT)));
    };
    for there in [HEAD.len(), "HTTP/1.1 2".len(), 1, 0] {
        let start = end.wrapping_sub(there);
        // SAFETY: a head fits into the page.
        unsafe { start.copy_from_nonoverlapping(HEAD.as_ptr(), there) };
        let slice = libc::iovec { iov_base: start.cast(), iov_len: HEAD.len() + 1 };
        for (way, _) in WAYS {
            // Sockets alone can be sent to.
            let is_for_all = way.starts_with("write");
            for fd in [client.as_raw_fd(), pipe.as_raw_fd()].into_iter().take(1 + usize::from(is_for_all)) {
                // SAFETY: the kernel looks before it reads.
                refused(unsafe { call(fd, way, (start.cast(), slice.iov_len), &[slice]) });
            }
        }
    }
    // SAFETY: the kernel looks before it reads.
    refused(unsafe { libc::writev(client.as_raw_fd(), end.cast(), 1) });
    // SAFETY: the kernel looks before it reads.
    refused(unsafe { libc::sendmsg(client.as_raw_fd(), end.cast(), 0) });
}

struct Server {
    process: Child,
    _output: Lines<BufReader<ChildStdout>>,
    port: u16,
    page: DrainPage,
    _shim: Exposed,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    /// One that does not drain, on a port that is served.
    fn start() -> Self {
        let server = Self::unserved();
        server.page.serve(server.port).unwrap();
        server
    }

    fn unserved() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let shim = Exposed::new(None, false).unwrap();
        let page = DrainPage::new(Some(folder.path())).unwrap();
        let mut process = server("closing", 0)
            .env("LD_PRELOAD", shim.path())
            .env(ENV_DRAINING, format!("{LAUNCH}:{}", page.path().display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let port = next_line(&mut output).parse().unwrap();
        Self { process, _output: output, port, page, _shim: shim }
    }

    fn draining() -> Self {
        let server = Self::start();
        server.page.begin(LAUNCH).unwrap();
        server
    }

    fn client(&self) -> Client {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Client(stream)
    }
}

struct Client(TcpStream);

impl Client {
    fn ask(&mut self, way: &str, what: &str) {
        self.0.write_all(format!("{way}\n{what}\0").as_bytes()).unwrap();
    }

    /// What comes is exactly this.
    #[track_caller]
    fn hears(&mut self, expected: &str) {
        let mut heard = vec![0; expected.len()];
        self.0.read_exact(&mut heard).unwrap();
        // Long ones are no help in a message.
        let heard = String::from_utf8(heard).unwrap();
        assert!(heard == expected, "{:?} instead of {:?}", start(&heard), start(expected));
    }

    #[track_caller]
    fn gets(&mut self, way: &str, what: &str, expected: &str) {
        self.ask(way, what);
        self.hears(expected);
    }
}

fn start(text: &str) -> &str {
    text.get(..300).unwrap_or(text)
}

#[test]
fn while_it_drains_each_response_says_close_however_it_is_written() {
    let server = Server::start();
    for (way, several) in WAYS {
        let mut client = server.client();
        let what = format!("{HEAD}{}body", if several { "|" } else { "" });
        for _ in 0..2 {
            client.gets(way, &what, &format!("{HEAD}body"));
            server.page.begin(LAUNCH).unwrap();
            client.gets(way, &what, &format!("{CHANGED}body"));
            client.gets(way, &what, &format!("{CHANGED}body"));
            server.page.end(LAUNCH).unwrap();
        }
        client.gets(way, &what, &format!("{HEAD}body"));
    }
}

#[test]
fn a_head_in_many_buffers_is_one_head() {
    let server = Server::draining();
    let long = format!("HTTP/1.1 200 OK\r\nA: {}\r\nConnection: keep-alive\r\n\r\n", "b".repeat(60));
    let apart = long.chars().map(String::from).collect::<Vec<_>>();
    for way in ["writev", "sendmsg"] {
        let mut client = server.client();
        client.gets(
            way,
            "HTTP/1.1| 200 OK\r|\nConnection: kee|p-alive\r\n\r|\nbody",
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbody",
        );
        // Too many: it is sent as it is.
        client.gets(way, &format!("{}|body", apart.join("|")), &format!("{long}body"));
        // As many as a call may have, behind a head.
        let body = vec!["body"; 1023];
        client.gets(way, &format!("{HEAD}|{}", body.join("|")), &format!("{CHANGED}{}", body.concat()));
    }
}

#[test]
fn what_the_kernel_does_not_take_at_once_is_counted_as_the_server_counts() {
    let server = Server::draining();
    let body = much();
    for (way, several) in WAYS {
        let mut client = server.client();
        client.ask(way, &format!("{HEAD}{}{MUCH}", if several { "|" } else { "" }));
        client.hears(&format!("{CHANGED}{body}"));
        client.gets(way, HEAD, CHANGED);
    }
}

#[test]
fn a_body_that_begins_like_a_head_stays() {
    let server = Server::start();
    let mut client = server.client();
    for (way, _) in WAYS {
        client.gets(way, &format!("{HEAD}^{HEAD}^{HEAD}"), &[HEAD; 3].concat());
        server.page.begin(LAUNCH).unwrap();
        client.gets(way, &format!("{HEAD}^{HEAD}^{HEAD}"), &[CHANGED, HEAD, HEAD].concat());
        server.page.end(LAUNCH).unwrap();
    }
}

#[test]
fn bytes_that_are_not_there_are_the_kernels_to_refuse() {
    let server = Server::draining();
    let mut client = server.client();
    client.gets(NOWHERE, "refused", "refused");
    client.gets("write", HEAD, CHANGED);
}

#[test]
fn what_is_on_a_port_that_is_not_served_stays() {
    let server = Server::unserved();
    server.page.begin(LAUNCH).unwrap();
    server.client().gets("write", HEAD, HEAD);
}

#[test]
fn another_launch_that_drains_is_none_of_its_business() {
    let server = Server::start();
    for other in [LAUNCH + 1, LAUNCH + 4096] {
        server.page.begin(other).unwrap();
        server.client().gets("write", HEAD, HEAD);
    }
}

#[test]
fn a_client_that_asks_ahead_gets_every_answer() {
    let server = Server::draining();
    let mut client = server.client();
    let requests = format!("write\n{HEAD}\0").repeat(3);
    client.0.write_all(requests.as_bytes()).unwrap();
    client.hears(&[HEAD, HEAD, CHANGED].concat());
    // In one call, the last says it.
    let first = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    client.gets("write", &format!("{first}{HEAD}"), &format!("{first}{CHANGED}"));
}

#[test]
fn other_protocols_and_answers_in_between_stay() {
    let server = Server::draining();
    let upgrade = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut tunnel = server.client();
    for inside in [upgrade, HEAD, HEAD] {
        tunnel.gets("write", inside, inside);
    }
    // The server has one client at a time.
    drop(tunnel);
    let mut client = server.client();
    for interim in ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"] {
        client.gets("send", &format!("{interim}^{HEAD}"), &format!("{interim}{CHANGED}"));
        client.gets("send", &format!("{interim}{HEAD}"), &format!("{interim}{CHANGED}"));
    }
    for other in [
        "hello",
        "HTTP/2.0 200 OK\r\n\r\n",
        "220 ready\r\n",
        "HTTP/1.1 200 O^K\r\n\r\n^HTTP/1.1 200 OK\r\n\r\n",
    ] {
        client.gets("send", other, &other.replace('^', ""));
    }
}

#[test]
fn of_a_head_in_several_calls_the_first_says_it() {
    let server = Server::draining();
    let mut client = server.client();
    client.gets(
        "write",
        "HTTP/1.0 200 OK\r\n^Connection: keep-alive\r\n\r\nHTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\nConnection: close\r\nConnection: keep-alive\r\n\r\nHTTP/1.0 200 OK\r\n\r\n",
    );
}

#[test]
fn a_client_that_has_ended_its_side_leaves_as_it_is() {
    let server = Server::draining();
    let mut client = server.client();
    client.0.write_all(b"write\n").unwrap();
    client.0.write_all(HEAD.as_bytes()).unwrap();
    client.0.write_all(b"\0").unwrap();
    client.hears(CHANGED);
    // The end and the request come at once, so that the server writes after both.
    socket2::SockRef::from(&client.0).set_tcp_cork(true).unwrap();
    client.ask("write", HEAD);
    client.0.shutdown(std::net::Shutdown::Write).unwrap();
    client.hears(HEAD);
}

#[test]
fn without_the_page_nothing_is_said() {
    for told in ["", "7:", "7:/nowhere", "x:/dev/null", "0:/dev/null", "7:/dev/null"] {
        let shim = Exposed::new(None, false).unwrap();
        let mut process = server("closing", 0)
            .env("LD_PRELOAD", shim.path())
            .env(ENV_DRAINING, told)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap()).lines();
        let port: u16 = next_line(&mut output).parse().unwrap();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Client(stream).gets("write", HEAD, HEAD);
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
