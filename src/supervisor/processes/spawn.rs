//! Starts a worker's process: its program, environment, descriptors and limits.
//!
//! It neither waits for the process nor knows when one is wanted.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::Pid;
use rustix::rand::GetRandomFlags;

use super::exec_context::{ExecContext, ExecContextError};
use super::identity::Identity;
use super::inspector;
use super::notify_socket::{self, NotifySocket};
use crate::ids::{WorkerId, WorkerPort};
use crate::protocol::drain_page;
use crate::protocol::wire::{self, Token};
use crate::settings::command::{self, CommandError};
use crate::settings::{Stdin, WorkerCommand, script};
use crate::supervisor::lanes::Lane;
use crate::sys::mark::Mark;
use crate::sys::process::{ChildSetup, Step, endless_input, give_descriptor};

/// The hidden verb with which clusterd runs itself as the built-in demo worker.
pub(crate) const DEMO_VERB: &str = "demo-worker";

/// Where a worker finds its Node channel: the first number after the standard streams, as under Node's own primary.
const NODE_CHANNEL_FD: i32 = 3;

/// What tells Node that it has a channel. clusterd may itself be a child of Node, so that they can be inherited,
/// and a worker that finds them without their descriptor dies at its start.
const NODE_CHANNEL_VARIABLES: [&str; 3] =
    ["NODE_CHANNEL_FD", "NODE_UNIQUE_ID", "NODE_CHANNEL_SERIALIZATION_MODE"];

/// What a service manager tells the process that it has started, and no other: where to say that it is ready
/// (sd_notify(3)), that it is watched (sd_watchdog_enabled(3)), what it has inherited (sd_listen_fds(3)).
const SERVICE_VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Whether a variable is said to this clusterd and not to its workers: its own settings, which must not reach
/// another clusterd that a worker may run, and `WEB_CONCURRENCY`, which each worker of a pre-forking server would
/// multiply by.
fn is_for_clusterd_alone(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"CLUSTERD_") || name == "WEB_CONCURRENCY"
}

/// Keeps from a program what was said to this clusterd alone.
pub(crate) fn forget_own(command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| is_for_clusterd_alone(name)) {
        command.env_remove(name);
    }
    for name in NODE_CHANNEL_VARIABLES.into_iter().chain(SERVICE_VARIABLES) {
        command.env_remove(name);
    }
}

/// How a worker's processes get their connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttachEnv {
    /// The attach socket: a path, or `@name` for an abstract one.
    pub socket: OsString,
    /// The shim to preload, if there is one.
    pub shim: Option<PathBuf>,
    /// The page in which the shim reads that its launch drains, if clients are to hear of it.
    pub drain_page: Option<PathBuf>,
    /// Whether each worker has a Node channel: the socket on which Node's cluster module speaks with its primary.
    pub node_channel: bool,
}

/// What every worker is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommandSpec {
    /// What runs.
    pub command: WorkerCommand,
    /// The ports that they are served on; the first is `PORT`.
    pub ports: Vec<WorkerPort>,
    /// How they get their connections.
    pub attach: AttachEnv,
    /// Whether they are told where to say that they are ready (`NOTIFY_SOCKET`). If nobody waits for it they are
    /// not: some servers speak with a service manager all the time.
    pub notify: bool,
    /// What they read.
    pub stdin: Stdin,
    /// Whether what they write comes out on a terminal with colours.
    pub colours: bool,
    /// On what terms they run.
    pub context: ExecContext,
}

impl CommandSpec {
    /// Whether HTTP clients of a worker are asked to leave while it drains, where it loads the shim.
    pub(crate) fn asks_to_leave(&self) -> bool {
        self.attach.shim.is_some() && self.attach.drain_page.is_some()
    }
}

/// A process that was just started.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// The process, and its process group.
    pub pid: Pid,
    /// What it writes.
    pub pipes: Pipes,
    /// Its Node channel; `None` if the spec has none.
    pub channel: Option<NodeChannel>,
}

/// The socket pair on which a worker's Node and its cluster primary speak. A worker that is Node exits when both of
/// these are closed.
#[derive(Debug)]
pub(crate) struct NodeChannel {
    /// The primary's end, non-blocking and with SO_PASSCRED.
    pub primary_end: OwnedFd,
    /// A duplicate of the worker's end: what the worker has not read can be taken back from it.
    pub worker_end: OwnedFd,
}

/// Where what a worker says comes out.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// The reading end of its standard output.
    pub stdout: OwnedFd,
    /// The reading end of its standard error.
    pub stderr: OwnedFd,
    /// The socket that its `NOTIFY_SOCKET` names, if it has one.
    pub notify: Option<NotifySocket>,
}

/// A worker's program could not be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// There is no such program, or it may not be executed.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The folder that it is to run in is gone.
    #[error(transparent)]
    Folder(ExecContextError),
    /// The program is there, but what it needs to be loaded is not.
    #[error("cannot start {program}: {why}")]
    NoInterpreter {
        /// The program, as it was asked for.
        program: String,
        /// What is missing, and what would help.
        why: String,
    },
    /// The program is there and may be executed, but is no program.
    #[error(
        "cannot start {program}: it is neither a program for this machine nor a script with a #! line{}",
        script_hint(program)
    )]
    NoProgram {
        /// The program, as it was asked for.
        program: String,
    },
    /// Its user may not execute it, and clusterd's could.
    #[error(
        "cannot start {program}: {user} may not execute it\nhint: make the file executable for that user, and grant search permission (x) on every folder above it"
    )]
    NotForUser {
        /// The program, as it was asked for.
        program: String,
        /// Whom workers run as.
        user: String,
    },
    /// The new process could not become what it should be.
    #[error("cannot start {program}: its process cannot {step}: {source}")]
    Step {
        /// The program, as it was asked for.
        program: String,
        /// In which step.
        step: Step,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused something else.
    #[error("cannot start {program}: {source}")]
    System {
        /// The program, as it was asked for.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// The kernel gave no random numbers for a worker's token.
    #[error("cannot start a worker: cannot get random numbers from the kernel: {0}")]
    Token(#[source] io::Error),
    /// There is no socket on which a worker could say that it is ready.
    #[error("cannot start a worker: cannot create its notification socket: {0}")]
    Notify(#[source] io::Error),
    /// There is no socket for a worker's Node channel.
    #[error("cannot start a worker: cannot create a socket pair for its Node channel: {0}")]
    Channel(#[source] io::Error),
    /// Ends of children would not be noticed.
    #[error("cannot watch workers: SIGCHLD cannot be handled: {0}")]
    Signals(#[source] io::Error),
}

impl StartError {
    /// The exit code that a shell has for it: 127 not found, 126 not executable; 1 for anything else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            StartError::Command(error) => error.exit_code(),
            StartError::NoInterpreter { .. } => 127,
            StartError::NoProgram { .. } | StartError::NotForUser { .. } => 126,
            StartError::Folder(_)
            | StartError::System { .. }
            | StartError::Step { .. }
            | StartError::Token(_)
            | StartError::Notify(_)
            | StartError::Channel(_)
            | StartError::Signals(_) => 1,
        }
    }
}

/// A token that nobody has had before and nobody can guess.
///
/// # Errors
/// Those of getrandom(2).
pub(crate) fn fresh_token() -> io::Result<Token> {
    let mut bytes = [0; 16];
    let filled = rustix::rand::getrandom(&mut bytes, GetRandomFlags::empty())?;
    // getrandom(2): up to 256 bytes are never cut short.
    debug_assert_eq!(filled, bytes.len());
    Ok(Token(bytes))
}

/// What one launch has for itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    /// Which launch of which worker.
    pub id: WorkerId,
    /// The number that no other living launch has.
    pub lane: Lane,
    /// What its processes attach with.
    pub token: Token,
    /// How many workers there are to be.
    pub workers: u32,
    /// What it and all that descends from it is known by.
    pub mark: Mark,
}

/// Starts a worker, tied to the calling thread (see [`ChildSetup`]).
///
/// # Errors
/// The program cannot be found or executed, or the system has no room for another process.
pub(crate) fn spawn(spec: &CommandSpec, launch: Launch) -> Result<Spawned, StartError> {
    let id = launch.id;
    let mut command = command(spec, launch.lane).map_err(|error| explain(spec, error))?;
    forget_own(&mut command);
    for (name, value) in spec.context.identity.iter().flat_map(Identity::environment) {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if spec.colours {
        command.envs(colours(|name| env::var_os(name)));
    }
    command.envs(environment(spec, launch, env::var_os("LD_PRELOAD")));
    let failed = |error| explain(spec, error);
    let setup = spec.context.setup_of(id.slot).map_err(failed)?;
    ChildSetup { mark: Some(launch.mark), ..setup }.apply_to(&mut command);
    let mut pipes = give_streams(&mut command, spec).map_err(failed)?;
    let notify = spec.notify.then(|| give_notify_socket(&mut command, &spec.attach.socket, id));
    pipes.notify = notify.transpose().map_err(StartError::Notify)?;
    let channel = spec.attach.node_channel.then(|| give_node_channel(&mut command)).transpose();
    let channel = channel.map_err(StartError::Channel)?;
    let child = command.spawn().map_err(failed)?;
    Ok(Spawned { pid: Pid::from_child(&child), pipes, channel })
}

/// Gives the process an input without a word and two pipes to write, which `command` holds until it is dropped. They belong to
/// its user: `/dev/stderr` and `/dev/stdout` are these pipes, opened again, which takes permission.
fn give_streams(command: &mut Command, spec: &CommandSpec) -> io::Result<Pipes> {
    let ((stdout, out), (stderr, err)) = (io::pipe()?, io::pipe()?);
    let input = match spec.stdin {
        Stdin::Null => None,
        Stdin::Open => Some(endless_input()?),
    };
    if let Some(identity) = &spec.context.identity {
        let (uid, gid) = (identity.credentials.uid, identity.credentials.gid);
        let outputs = [out.as_fd(), err.as_fd()];
        for pipe in outputs.into_iter().chain(input.as_ref().map(AsFd::as_fd)) {
            // Without it nearly every program does as well.
            if let Err(error) = rustix::fs::fchown(pipe, Some(uid), Some(gid)) {
                tracing::debug!(%error, "cannot give a worker's pipe to its user");
            }
        }
    }
    command.stdin(input.map_or_else(Stdio::null, Stdio::from)).stdout(out).stderr(err);
    Ok(Pipes { stdout: stdout.into(), stderr: stderr.into(), notify: None })
}

/// Tells the process where to say that it is ready, and gives the caller the socket.
fn give_notify_socket(command: &mut Command, attach: &OsStr, id: WorkerId) -> io::Result<NotifySocket> {
    let (socket, name) = notify_socket::bind(attach, id.launch)?;
    command.env("NOTIFY_SOCKET", name);
    Ok(socket)
}

/// Gives the process one end of a new socket pair as [`NODE_CHANNEL_FD`], and the caller the other. The worker sets
/// its own end non-blocking. With SO_PASSCRED (unix(7)) the kernel tells who sent what: which process of the worker
/// it is that speaks.
///
/// `command` holds the worker's end until it is dropped. While it does, the number is taken in this process too, by
/// this pair if by nothing else: the pipe on which the child reports that its program cannot be executed has another.
fn give_node_channel(command: &mut Command) -> io::Result<NodeChannel> {
    let (ours, theirs) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    rustix::io::ioctl_fionbio(ours.as_fd(), true)?;
    rustix::net::sockopt::set_socket_passcred(&ours, true)?;
    let name = [wire::NODE_CHANNEL, &fastrand::u64(..).to_le_bytes()].concat();
    rustix::net::bind(&theirs, &SocketAddrUnix::new_abstract_name(&name)?)?;
    let channel = NodeChannel { primary_end: ours, worker_end: theirs.try_clone()? };
    give_descriptor(command, theirs, NODE_CHANNEL_FD);
    Ok(channel)
}

/// A program with a slash is the one that was looked up, wherever the worker runs.
fn command(spec: &CommandSpec, lane: Lane) -> io::Result<Command> {
    let mut command = match &spec.command {
        WorkerCommand::Demo => {
            let mut command = Command::new("/proc/self/exe");
            command.arg0("clusterd").arg(DEMO_VERB);
            command
        }
        WorkerCommand::Program { program, arguments } => {
            let is_path = spec.context.cwd.is_some() && program.as_bytes().contains(&b'/');
            let mut command = match is_path {
                true => Command::new(std::path::absolute(program)?),
                false => Command::new(program),
            };
            command.args(inspector::arguments(program, arguments, lane.0.saturating_sub(1)));
            command
        }
    };
    if let Some(folder) = &spec.context.cwd {
        command.current_dir(folder);
    }
    Ok(command)
}

/// What a worker's environment has beside what it inherits. `NODE_APP_INSTANCE` counts from 0, as PM2's does;
/// `NODE_UNIQUE_ID` (`cluster.worker.id`) is another for each launch, as that of Node's own primary is.
fn environment(
    spec: &CommandSpec,
    Launch { id, lane, token, workers, .. }: Launch,
    preload: Option<OsString>,
) -> Vec<(&'static str, OsString)> {
    let ports: Vec<String> = spec.ports.iter().map(ToString::to_string).collect();
    let token = OsStr::from_bytes(&token.to_hex()).to_owned();
    let number = id.slot.0.saturating_sub(1);
    let mut variables = vec![
        ("CLUSTERD_WORKER_ID", id.slot.to_string().into()),
        ("NODE_APP_INSTANCE", number.to_string().into()),
        ("CLUSTERD_LANE", lane.0.to_string().into()),
        ("CLUSTERD_WORKERS", workers.to_string().into()),
        (wire::ENV_SOCKET, spec.attach.socket.clone()),
        (wire::ENV_TOKEN, token),
        (wire::ENV_PORTS, ports.join(",").into()),
    ];
    if let Some(first) = ports.first() {
        variables.push(("PORT", first.into()));
    }
    let inspected = lane.0.saturating_sub(1);
    let options = env::var("NODE_OPTIONS").ok();
    let options = options.and_then(|options| inspector::node_options(&options, inspected));
    variables.extend(options.map(|options| ("NODE_OPTIONS", options.into())));
    if let Some(shim) = &spec.attach.shim {
        variables.push(("LD_PRELOAD", appended(preload, shim)));
    }
    if let (Some(_), Some(page)) = (&spec.attach.shim, &spec.attach.drain_page) {
        let mut value = OsString::from(format!("{}:", id.launch));
        value.push(page);
        variables.push((drain_page::ENV_DRAINING, value));
    }
    if spec.attach.node_channel {
        let values = [NODE_CHANNEL_FD.to_string(), id.launch.to_string(), "json".to_owned()];
        variables.extend(NODE_CHANNEL_VARIABLES.into_iter().zip(values.map(OsString::from)));
    }
    variables
}

/// A worker's output is a pipe, on which programs write no colours by themselves. These variables are for those that use
/// the conventions of force-color.org (Node, Python, Ruby) and bixense.com/clicolors (Rust, Go). Whoever has said anything
/// of colours is obeyed.
fn colours(lookup: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, &'static str)> {
    const SAID: [&str; 4] = ["NO_COLOR", "NODE_DISABLE_COLORS", "CLICOLOR_FORCE", "FORCE_COLOR"];
    let is_refused = lookup("CLICOLOR").is_some_and(|value| value == "0");
    if is_refused || SAID.into_iter().any(|name| lookup(name).is_some()) {
        return Vec::new();
    }
    // For Node, 1 is 16 colours, which every terminal has that has any.
    vec![("FORCE_COLOR", "1"), ("CLICOLOR_FORCE", "1")]
}

/// ld.so(8) separates the list by spaces or colons.
fn appended(preload: Option<OsString>, shim: &Path) -> OsString {
    let mut list = preload.unwrap_or_default();
    if !list.is_empty() {
        list.push(":");
    }
    list.push(shim);
    list
}

fn explain(spec: &CommandSpec, error: io::Error) -> StartError {
    let program = match &spec.command {
        WorkerCommand::Demo => "the demo worker (/proc/self/exe)".to_owned(),
        WorkerCommand::Program { program, .. } => program.display().to_string(),
    };
    if let Some((step, source)) = Step::failed(&error) {
        return StartError::Step { program, step, source };
    }
    // It was there when the configuration was checked, and execve(2) says the same of a program that is not.
    if let Some(folder) = &spec.context.cwd
        && let Err(source) = fs::metadata(folder)
    {
        return StartError::Folder(ExecContextError::Cwd { folder: folder.clone(), source });
    }
    let found = match command::find_for(&spec.command) {
        Ok(Some(found)) => found,
        Ok(None) => return StartError::System { program, source: error },
        Err(error) => return error.into(),
    };
    match (error.raw_os_error(), &spec.context.identity) {
        (Some(libc::EACCES), Some(identity)) => {
            StartError::NotForUser { program, user: identity.to_string() }
        }
        (Some(libc::ENOENT), _) => StartError::NoInterpreter { why: why_not_loaded(&found), program },
        (Some(libc::ENOEXEC), _) => StartError::NoProgram { program },
        _ => StartError::System { program, source: error },
    }
}

fn script_hint(program: &str) -> String {
    script::advice(program.as_ref()).map(|advice| format!("\nhint: {advice}")).unwrap_or_default()
}

fn why_not_loaded(file: &Path) -> String {
    match interpreter(file) {
        Some(interpreter) => {
            format!(
                "its first line names {interpreter}, which does not exist\nhint: install it, or correct the line"
            )
        }
        None => format!(
            "{} exists, but the program that loads it does not: it was built for another system or C library",
            file.display()
        ),
    }
}

/// The interpreter that a script's first line names.
fn interpreter(file: &Path) -> Option<String> {
    let mut start = [0; 256];
    let len = io::Read::read(&mut std::fs::File::open(file).ok()?, &mut start).ok()?;
    let line = start[..len].strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line);
    Some(line.split_whitespace().next()?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_are_asked_for_unless_anything_was_said_of_them() {
        let cases: [(&[(&str, &str)], bool); 8] = [
            (&[], true),
            (&[("CLICOLOR", "1")], true),
            (&[("CLICOLOR", "0")], false),
            (&[("NO_COLOR", "1")], false),
            (&[("FORCE_COLOR", "0")], false),
            (&[("FORCE_COLOR", "3")], false),
            (&[("CLICOLOR_FORCE", "0")], false),
            (&[("NODE_DISABLE_COLORS", "1")], false),
        ];
        for (environment, expected) in cases {
            let given = colours(|wanted| {
                environment.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.into())
            });
            assert_eq!(!given.is_empty(), expected, "{environment:?}");
        }
    }
}
