//! `clusterd web`: every app of this user as one page, live, in a browser.
//!
//! What is shown, and to whom, is [`crate::web`]'s.

use std::io;
use std::net::SocketAddr;
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
                        stays the same."
)]
pub(super) struct Web {
    /// Where to listen; a bare port means 127.0.0.1
    #[arg(short, long, value_name = "ADDR", default_value = "127.0.0.1:9615", value_parser = address)]
    listen: SocketAddr,

    /// Let the page reload, restart, scale, stop and start apps
    #[arg(long)]
    allow_actions: bool,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    parse::listen_address(text).map_err(|reason| reason.to_string())
}

impl Web {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let Self { listen, allow_actions } = self;
        let token = token()?;
        let server =
            WebServer::bind(listen).map_err(|source| VerbError::NotListening { address: listen, source })?;
        let address = server.address();
        if !address.ip().to_canonical().is_loopback() {
            complain(&format!(
                "warning: {address} can be reached from other machines, and what is sent is not encrypted\n\
                 hint: listen on 127.0.0.1 behind a proxy with TLS, or through ssh -L"
            ));
        }
        print::line(&format!("the page is at http://{}/#token={}", host(address), token.secret()))?;
        let served = server.serve(Home::of_this_process(), token, allow_actions);
        tokio::select! {
            served = served => served.map(|()| ExitCode::SUCCESS).map_err(VerbError::Runtime),
            told = told_to_stop() => told.map(|()| ExitCode::SUCCESS).map_err(VerbError::Runtime),
        }
    }
}

fn token() -> Result<Token, VerbError> {
    match std::env::var_os(VARIABLE) {
        Some(given) => {
            Token::given(&given.to_string_lossy()).map_err(|error| VerbError::Usage(error.to_string()))
        }
        None => Token::random().map_err(VerbError::Runtime),
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
