//! A client that speaks just enough HTTP/1.1: the answer whole, and one request a connection unless it is [`Kept`].

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::wait::PATIENCE;

/// An answer, its body read to the end.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A request that was sent and whose answer was not read yet.
pub(crate) struct Pending(TcpStream);

impl Pending {
    /// The answer that comes on this connection.
    pub(crate) fn of(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// Tells the server that no more will be sent, as `nc -N` does.
    pub(crate) fn ends(&self) -> io::Result<()> {
        self.0.shutdown(Shutdown::Write)
    }

    /// Reads the answer.
    pub(crate) fn response(self) -> io::Result<Response> {
        read_response(&mut BufReader::new(self.0), false)
    }
}

/// A client that keeps its connection and asks on it again, as browsers and proxies do. One that the server has closed
/// between two requests is opened anew (RFC 9112, 9.3.1).
pub(crate) struct Kept {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
    opened: u64,
}

impl Kept {
    /// A client without a connection.
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self { address, connection: None, opened: 0 }
    }

    /// How many connections it has opened.
    pub(crate) fn opened(&self) -> u64 {
        self.opened
    }

    /// One exchange, on the connection that it has if that still stands.
    pub(crate) fn get(&mut self, path: &str) -> io::Result<Response> {
        if let Some(mut kept) = self.connection.take()
            && self.ask(&mut kept, path).is_ok()
            && kept.fill_buf().is_ok_and(|begin| !begin.is_empty())
        {
            return self.answer(kept);
        }
        let mut fresh = BufReader::new(connect(self.address)?);
        self.opened += 1;
        self.ask(&mut fresh, path)?;
        self.answer(fresh)
    }

    fn ask(&self, connection: &mut BufReader<TcpStream>, path: &str) -> io::Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        connection.get_mut().write_all(request.as_bytes())
    }

    fn answer(&mut self, mut connection: BufReader<TcpStream>) -> io::Result<Response> {
        let response = read_response(&mut connection, false)?;
        let is_last = response.header("connection").is_some_and(|word| word.eq_ignore_ascii_case("close"));
        self.connection = (!is_last).then_some(connection);
        Ok(response)
    }
}

/// Connects; reads and writes fail when they take longer than [`PATIENCE`].
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Connects and sends a request.
pub(crate) fn send(address: SocketAddr, method: &str, path: &str) -> io::Result<Pending> {
    send_on(connect(address)?, method, path)
}

/// Sends a request on a connection that stands.
pub(crate) fn send_on(mut stream: TcpStream, method: &str, path: &str) -> io::Result<Pending> {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    Ok(Pending(stream))
}

/// One whole exchange.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str) -> io::Result<Response> {
    read_response(&mut BufReader::new(send(address, method, path)?.0), method == "HEAD")
}

/// One whole exchange, with something for the server to read.
pub(crate) fn post(address: SocketAddr, path: &str, body: &str) -> io::Result<Response> {
    let length = body.len();
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}");
    let mut stream = connect(address)?;
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes())?;
    Pending(stream).response()
}

fn read_response(input: &mut BufReader<TcpStream>, is_head: bool) -> io::Result<Response> {
    let status = status_of(&line(input)?)?;
    let mut headers = Vec::new();
    loop {
        let line = line(input)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').ok_or_else(|| malformed(&line))?;
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut response = Response { status, headers, body: Vec::new() };
    if !is_head {
        response.body = read_body(input, &response)?;
    }
    Ok(response)
}

fn status_of(line: &str) -> io::Result<u16> {
    let status = line.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    status.and_then(|status| status.parse().ok()).ok_or_else(|| malformed(line))
}

fn read_body(input: &mut BufReader<TcpStream>, head: &Response) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = head.header("content-length") {
        let length = length.parse().map_err(|_| malformed(length))?;
        body.resize(length, 0);
        input.read_exact(&mut body)?;
    } else if head.header("transfer-encoding") == Some("chunked") {
        while let Some(chunk) = read_chunk(input)? {
            body.extend(chunk);
        }
    } else {
        input.read_to_end(&mut body)?;
    }
    Ok(body)
}

fn read_chunk(input: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<u8>>> {
    let size = line(input)?;
    let size = usize::from_str_radix(&size, 16).map_err(|_| malformed(&size))?;
    let mut chunk = vec![0; size];
    input.read_exact(&mut chunk)?;
    line(input)?;
    Ok((size > 0).then_some(chunk))
}

fn line(input: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "closed before the answer was whole"));
    }
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP: {what:?}"))
}
