//! The process that some checks start, as clusterd starts workers: clusterd itself, called by a verb of its own.
//!
//! It answers, or makes one call; who started it judges.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketType};
use rustix::process::{Pid, Resource, Signal, getrlimit};

use crate::sys::process::ChildSetup;
use crate::sys::seccomp::Filter;

/// The verb.
pub(crate) const VERB: &str = "doctor-child";

/// Writes what it reads, until there is no more.
pub(super) const ECHOES: &str = "echoes";

/// Asks once to bind a port, of the loopback's and as the kernel chooses. Whoever intercepts that has it fail.
pub(super) const BINDS: &str = "binds";

/// Does what the first argument says, and returns the exit code.
pub(crate) fn child_main(mut arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let done = match arguments.next().as_ref().and_then(|task| task.to_str()) {
        Some(ECHOES) => io::copy(&mut io::stdin().lock(), &mut io::stdout().lock()).map(drop),
        Some(BINDS) => bind(),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bind() -> io::Result<()> {
    let of_family = |family| rustix::net::socket(family, SocketType::STREAM, None);
    match of_family(AddressFamily::INET) {
        Ok(socket) => rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?,
        Err(_) => {
            let socket = of_family(AddressFamily::INET6)?;
            rustix::net::bind(&socket, &SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0))?;
        }
    }
    Ok(())
}

/// A child, which is killed when this is dropped, or when the thread that has started it ends.
#[derive(Debug)]
pub(super) struct Started(Child);

/// What is different about it.
#[derive(Debug, Default)]
pub(super) struct Different<'a> {
    /// What is preloaded into it.
    pub preloaded: Option<&'a Path>,
    /// What has its calls told.
    pub filter: Option<Arc<Filter>>,
}

/// Starts a program with these arguments, pipes for standard streams, and an environment of its own.
///
/// # Errors
/// Those of starting a process.
pub(super) fn start(program: &Path, arguments: &[&str], different: Different<'_>) -> io::Result<Started> {
    let mut command = Command::new(program);
    // What this process has been given as a worker would speak to clusterd.
    command.args(arguments).env_clear();
    command.envs(std::env::var_os("LD_LIBRARY_PATH").map(|path| ("LD_LIBRARY_PATH", path)));
    command.envs(different.preloaded.map(|library| ("LD_PRELOAD", library)));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut setup = ChildSetup::new(Signal::KILL, getrlimit(Resource::Nofile));
    setup.filter = different.filter;
    setup.apply_to(&mut command);
    command.spawn().map(Started)
}

impl Started {
    /// Its process.
    pub(super) fn pid(&self) -> Option<Pid> {
        i32::try_from(self.0.id()).ok().and_then(Pid::from_raw)
    }

    /// Waits until it has written what it was given to read: it runs then, and all that it needs is loaded.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn echo(&mut self) -> io::Result<()> {
        let (Some(input), Some(output)) = (&mut self.0.stdin, &mut self.0.stdout) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        input.write_all(b"x")?;
        output.read_exact(&mut [0])
    }

    /// Ends its input, and returns what it has written to standard error until it has ended.
    pub(super) fn last_words(mut self) -> String {
        drop(self.0.stdin.take());
        let mut words = Vec::new();
        if let Some(errors) = self.0.stderr.take() {
            // More than this no dynamic linker writes.
            let _ = errors.take(16 * 1024).read_to_end(&mut words);
        }
        String::from_utf8_lossy(&words).into_owned()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
