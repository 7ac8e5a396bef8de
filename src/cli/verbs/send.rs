//! `clusterd send`: a line to the standard input of workers.
//!
//! It is put into the worker's pipe from outside, by way of /proc: no clusterd stands between.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::process::ExitCode;

use super::print::{self, Shape};
use super::{VerbError, rest};
use crate::control::client;
use crate::control::home::Home;

/// Send a line to the standard input of a worker, or of each worker of an app
///
/// Workers have an input that can be written to if the app was started with --stdin open; otherwise there is nothing to read.
#[derive(Debug, clap::Args)]
pub(super) struct Send {
    /// Id of a worker, or name of an app
    #[arg(value_name = "APP")]
    app: String,

    /// The words of the line
    #[arg(value_name = "LINE", required = true)]
    line: Vec<String>,

    #[command(flatten)]
    shape: Shape,
}

/// Why a line was not sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSent {
    /// It would be mixed with others.
    #[error("the line has {0} bytes; one line is at most {LONGEST} bytes long (PIPE_BUF, pipe(7))")]
    TooLong(usize),
    /// Workers read nothing.
    #[error(
        "worker {worker} of {app} has no standard input to write to\nhint: start the app with --stdin open"
    )]
    NoInput {
        /// Whose it is.
        app: String,
        /// Which.
        worker: u32,
    },
    /// It reads too slowly, or is not to be reached.
    #[error("cannot write to the standard input of worker {worker} of {app}: {source}")]
    Failed {
        /// Whose it is.
        app: String,
        /// Which.
        worker: u32,
        /// What the system said.
        source: io::Error,
    },
    /// There is nobody to send it to.
    #[error("no worker is running")]
    Nobody,
}

/// A pipe takes as much in one piece (PIPE_BUF, pipe(7)).
const LONGEST: usize = 4096;

impl Send {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let line = self.line.join(" ") + "\n";
        if line.len() > LONGEST {
            return Err(NotSent::TooLong(line.len()).into());
        }
        let found = client::find_for(&Home::of_this_process(), &[&self.app]).await;
        let (running, _) = rest::targets(&found, &rest::ids(), std::slice::from_ref(&self.app))?;
        let mut is_sent = false;
        for target in running {
            for worker in target.app.workers.iter().filter(|worker| target.is_meant(worker.worker)) {
                let Some(pid) = worker.pid else { continue };
                let (app, number) = (target.app.name.clone(), worker.worker);
                match write(pid, line.as_bytes()) {
                    Ok(true) => print::done(&app, &format!("sent to worker {number}"), self.shape)?,
                    Ok(false) => return Err(NotSent::NoInput { app, worker: number }.into()),
                    Err(source) => return Err(NotSent::Failed { app, worker: number, source }.into()),
                }
                is_sent = true;
            }
        }
        if is_sent { Ok(ExitCode::SUCCESS) } else { Err(NotSent::Nobody.into()) }
    }
}

/// Whether the process has a pipe as its standard input; then all of it is written, or nothing. It never waits for the reader.
fn write(pid: i32, line: &[u8]) -> io::Result<bool> {
    let input = format!("/proc/{pid}/fd/0");
    if !fs::metadata(&input)?.file_type().is_fifo() {
        return Ok(false);
    }
    let mut pipe = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(input)?;
    pipe.write_all(line).map(|()| true)
}
