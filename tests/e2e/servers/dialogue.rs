//! What a client says to a server, and what the server must answer.

use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;

use crate::harness::http;

/// An exchange on a connection of its own.
#[derive(Clone, Copy)]
pub(super) enum Dialogue {
    /// A GET of this path, whose answer of status 200 contains this text.
    Page { path: &'static str, says: &'static str },
    /// These bytes, perhaps none, after which the server says this, perhaps among other things.
    Words { say: &'static [u8], hear: &'static [u8] },
}

impl Dialogue {
    /// Holds it to its end; returns the number of the worker, where the answer says `worker N`.
    pub(super) fn hold(self, connection: TcpStream) -> io::Result<Option<String>> {
        let answer = match self {
            Self::Page { path, says } => page(connection, path, says)?,
            Self::Words { say, hear } => words(connection, say, hear)?,
        };
        Ok(worker(&answer))
    }

    /// Begins it, so that the server accepts the connection and waits for the rest.
    pub(super) fn begin(self, mut connection: TcpStream) -> io::Result<TcpStream> {
        connection.write_all(b"G")?;
        Ok(connection)
    }
}

fn page(connection: TcpStream, path: &str, says: &str) -> io::Result<String> {
    let response = http::send_on(connection, "GET", path)?.response()?;
    match response.status {
        200 if response.text().contains(says) => Ok(response.text()),
        status => Err(io::Error::other(format!("not {says:?}: {status}, {}", response.text()))),
    }
}

fn words(mut connection: TcpStream, say: &[u8], hear: &[u8]) -> io::Result<String> {
    connection.write_all(say)?;
    let (mut heard, mut part) = (Vec::new(), [0; 4096]);
    while !heard.windows(hear.len()).any(|words| words == hear) {
        match connection.read(&mut part)? {
            0 => return Err(io::Error::other(format!("not that: {}", String::from_utf8_lossy(&heard)))),
            length => heard.extend_from_slice(&part[..length]),
        }
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

fn worker(answer: &str) -> Option<String> {
    let (_, name) = answer.split_once("worker ")?;
    let number: String = name.chars().take_while(char::is_ascii_digit).collect();
    (!number.is_empty()).then_some(number)
}
