//! Clients that keep their connections while workers are replaced: no request of theirs fails.
//!
//! An HTTP server that closes a kept connection may do so while a request is on its way (RFC 9112, 9.3.1). So a worker that
//! drains has its clients leave by `Connection: close`, and here nothing else ends a drain: `--drain-timeout` is far longer
//! than any test waits.
//!
//! By default each server has one kind of client and few of them. `CLUSTERD_TEST_RELOADS=20` gives it 64 of all kinds, that
//! many reloads and 10,000 requests for each of them.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use std::{env, io, thread};

use socket2::SockRef;

use crate::harness::kept::{CLIENTS, Clients, Counts, server};
use crate::harness::until;

/// How much is tested.
struct Extent {
    workers: u32,
    connections: usize,
    reloads: u64,
    /// For each reload.
    requests: u64,
    clients: Vec<&'static str>,
}

impl Extent {
    fn of(client: &'static str) -> Self {
        let whole = env::var("CLUSTERD_TEST_RELOADS").ok();
        match whole.map(|reloads| reloads.parse().expect("a number of reloads")) {
            None => Self { workers: 2, connections: 16, reloads: 3, requests: 100, clients: vec![client] },
            Some(reloads) => {
                Self { workers: 4, connections: 64, reloads, requests: 10_000, clients: CLIENTS.to_vec() }
            }
        }
    }
}

/// Makes a test of each server, with the kind of client that it has by default.
macro_rules! servers {
    ($($name:ident => $server:literal with $client:literal;)+) => {
        mod no_reload_fails_a_request_of {
            $(#[test] fn $name() { super::no_reload_fails_a_request($server, $client); })+
        }
    };
}

servers! {
    node => "node" with "undici";
    express => "express" with "node";
    uvicorn => "uvicorn" with "aiohttp";
    gunicorn => "gunicorn" with "curl";
    gunicorn_with_threads => "gunicorn-threads" with "urllib3";
    hypercorn => "hypercorn" with "go";
    puma => "puma" with "node";
    webrick => "webrick" with "curl";
    php => "php" with "undici";
    java => "java" with "java-http-client";
    nginx => "nginx" with "java-url-connection";
    hyper => "hyper" with "urllib3";
}

#[track_caller]
fn no_reload_fails_a_request(name: &str, client: &'static str) {
    let extent = Extent::of(client);
    let Some(setup) = server(name) else { return };
    let cluster = setup.workers(extent.workers).options("--drain-timeout 10m --min-uptime 300ms").start();
    let share = extent.connections / extent.clients.len();
    let start = |&kind| Clients::start(kind, cluster.address(), share);
    let mut clients: Vec<_> = extent.clients.iter().filter_map(start).collect();
    if clients.is_empty() {
        return;
    }
    have_asked(&mut clients, 2 * extent.connections as u64);
    for reload in 1..=extent.reloads {
        cluster.reload().unwrap_or_else(|reason| panic!("{reason}"));
        have_asked(&mut clients, reload * extent.requests);
    }
    // By the last reload too, there have to be some that no worker before it has answered.
    let so_far = clients.iter_mut().map(|clients| clients.counts().requests).sum::<u64>();
    have_asked(&mut clients, so_far + extent.requests);
    for clients in clients {
        let kind = clients.name();
        let Counts { requests, failures } = clients.end();
        println!("{name} with {kind}: {requests} requests, failed: {failures:?}");
        assert!(failures.is_empty(), "of {requests} requests of {kind} to {name} these failed: {failures:?}");
    }
}

/// Waits until they have had so many requests together.
#[track_caller]
fn have_asked(clients: &mut [Clients], total: u64) {
    until(&format!("clients have had {total} requests"), || {
        let requests: u64 = clients.iter_mut().map(|clients| clients.counts().requests).sum();
        (requests >= total).then_some(())
    });
}

/// Or else the tests above would show nothing: many clients ask again by themselves when a kept connection is cut.
#[test]
fn no_client_hides_a_request_that_was_cut() {
    let address = cuts_each_second_request();
    let clients: Vec<_> = CLIENTS.iter().filter_map(|&kind| Clients::start(kind, address, 2)).collect();
    for mut clients in clients {
        until("it counts what was cut", || (!clients.counts().failures.is_empty()).then_some(()));
        let Counts { requests, failures } = clients.end();
        let failed: u64 = failures.values().sum();
        assert!(failed < requests, "of {requests} requests these failed: {failures:?}");
    }
}

/// A server that answers the first request of each connection, and resets it at the second one.
fn cuts_each_second_request() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let address = listener.local_addr().expect("it listens");
    thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(connection) = connection else { return };
            thread::spawn(move || answer_and_cut(connection));
        }
    });
    address
}

fn answer_and_cut(mut connection: TcpStream) -> io::Result<()> {
    SockRef::from(&connection).set_linger(Some(Duration::ZERO))?;
    read_request(&mut connection)?;
    connection.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nworker")?;
    read_request(&mut connection)
}

/// Reads to the end of a request, whose body is an x.
fn read_request(connection: &mut TcpStream) -> io::Result<()> {
    let (mut read, mut part) = (Vec::new(), [0; 1024]);
    while !read.ends_with(b"\r\n\r\nx") && !read.ends_with(b"\r\nx\r\n0\r\n\r\n") {
        match connection.read(&mut part)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => read.extend_from_slice(&part[..length]),
        }
    }
    Ok(())
}
