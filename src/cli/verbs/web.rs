//! `clusterd web`: every app of this user as one page, live, in a browser.
//!
//! What is shown, and to whom, is [`crate::web`]'s.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use super::VerbError;
use super::print;
use crate::cli::complain;
use crate::control::home::Home;
use crate::settings::parse;
use crate::web::server::{WebServer, host_name};
use crate::web::token::{Token, VARIABLE};

/// Show every app on one page, live, in a browser; with orders if they are allowed
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The page is for who has the token in the address that is printed. CLUSTERD_WEB_TOKEN gives one that \
                        stays the same and is not printed."
)]
pub(super) struct Web {
    /// Where to listen: PORT (of 127.0.0.1), ADDR or ADDR:PORT
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:9615", value_parser = address)]
    listen: SocketAddr,

    /// Let the page reload, restart, scale, stop and start apps
    #[arg(long)]
    allow_actions: bool,
}

/// Where PM2's is, too.
const PORT: u16 = 9615;

/// `PORT`, `ADDR` or `ADDR:PORT`.
fn address(text: &str) -> Result<SocketAddr, String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') && !text.ends_with(']') => (host, format!(":{port}")),
        _ => (text, String::new()),
    };
    let text = if host == "localhost" { format!("127.0.0.1{port}") } else { text.to_owned() };
    if let Ok(ip) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok((ip, PORT).into());
    }
    let wrong = |_| "not an address\nhint: use PORT, ADDR or ADDR:PORT, such as 127.0.0.1:9615".to_owned();
    parse::listen_address(&text).map_err(wrong)
}

impl Web {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let Self { listen, allow_actions } = self;
        let (token, is_new) = token()?;
        let server =
            WebServer::bind(listen).map_err(|source| VerbError::NotListening { address: listen, source })?;
        let address = server.address();
        if !address.ip().to_canonical().is_loopback() {
            complain(&format!(
                "warning: {address} can be reached from other machines, and what is sent is not encrypted\n\
                 hint: listen on 127.0.0.1 behind a proxy with TLS, or through ssh -L"
            ));
        }
        print::line(&match is_new {
            true => format!("the page is at http://{}/#token={}", host(address), token.secret()),
            // It stays the same, and what is printed may be kept.
            false => format!("the page is at http://{}/ for who has the token of {VARIABLE}", host(address)),
        })?;
        let served = server.serve(Home::of_this_process(), token, allow_actions);
        tokio::select! {
            served = served => served.map(|()| ExitCode::SUCCESS).map_err(VerbError::Runtime),
            told = told_to_stop() => told.map(|()| ExitCode::SUCCESS).map_err(VerbError::Runtime),
        }
    }
}

/// The token, and whether nobody knows it yet.
fn token() -> Result<(Token, bool), VerbError> {
    match std::env::var_os(VARIABLE).filter(|given| !given.is_empty()) {
        Some(given) => Token::given(&given.to_string_lossy())
            .map(|token| (token, false))
            .map_err(|error| VerbError::Usage(error.to_string())),
        None => Token::random().map(|token| (token, true)).map_err(VerbError::Runtime),
    }
}

/// What a browser on another machine would ask for, too, as far as that can be known.
fn host(address: SocketAddr) -> String {
    match address.ip().is_unspecified() {
        true => format!("{}:{}", host_name(), address.port()),
        false => address.to_string(),
    }
}

/// Also as PID 1, whom signals do not end by themselves.
async fn told_to_stop() -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_lack_its_host_or_its_port() {
        for (text, expected) in [
            ("9000", Some("127.0.0.1:9000")),
            (":9000", Some("127.0.0.1:9000")),
            ("localhost", Some("127.0.0.1:9615")),
            ("localhost:0", Some("127.0.0.1:0")),
            ("10.0.0.1", Some("10.0.0.1:9615")),
            ("0.0.0.0:80", Some("0.0.0.0:80")),
            ("::1", Some("[::1]:9615")),
            ("[::1]", Some("[::1]:9615")),
            ("[::]:9000", Some("[::]:9000")),
            ("", None),
            ("example.org:80", None),
            ("127.0.0.1:http", None),
            ("127.0.0.1:70000", None),
        ] {
            assert_eq!(address(text).ok().map(|address| address.to_string()).as_deref(), expected, "{text}");
        }
    }
}
