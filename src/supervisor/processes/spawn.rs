//! Starts a worker's process: its program, folder, descriptors and limits.
//!
//! It neither waits for the process nor knows when one is wanted. What its environment is, [`environment`] knows.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, Signal};
use rustix::rand::GetRandomFlags;

use super::environment::{self, Environment};
use super::exec_context::ExecContext;
use super::inspector;
use super::notify_socket::{self, NotifySocket};
use crate::ids::{WorkerId, WorkerPort};
use crate::protocol::wire::{self, Token};
use crate::settings::workplace::{Workplace, WorkplaceError};
use crate::settings::{Stdin, WorkerCommand, script};
use crate::supervisor::lanes::Lane;
use crate::supervisor::snapshot::Wrong;
use crate::supervisor::turn::{Turn, Turned};
use crate::sys::mark::Mark;
use crate::sys::process::{ChildSetup, Step, ended_input, endless_input, give_descriptor, own_program};
use crate::sys::seccomp::notifications::Notifications;
use crate::sys::seccomp::{self, Privilege};

/// The hidden verb with which clusterd runs itself as the built-in demo worker.
pub(crate) const DEMO_VERB: &str = "demo-worker";

/// Where a worker finds its Node channel: the first number after the standard streams, as under Node's own primary.
pub(super) const NODE_CHANNEL_FD: i32 = 3;

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
    /// The hidden verb that gets the listeners of a server that takes them as from systemd, if workers are such.
    pub listen_fds: Option<&'static str>,
    /// What it takes to have a worker's calls of bind(2) and listen(2) told, if they are to be.
    pub filter: Option<Privilege>,
    /// Whether launches have turned to another way since.
    pub turn: Turn,
}

impl AttachEnv {
    /// What holds for a launch now.
    pub(crate) fn in_force(&self) -> Self {
        match self.turn.taken() {
            Some(Turned::BySeccomp(privilege)) => Self {
                shim: None,
                drain_page: None,
                node_channel: false,
                filter: Some(privilege),
                ..self.clone()
            },
            Some(Turned::ByShim) | None => self.clone(),
        }
    }
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
    /// What they inherit, unless something nearer gives them something else.
    pub inherited: Environment,
    /// What each launch looks up.
    pub workplace: Workplace,
}

impl CommandSpec {
    /// Finds the program as a launch will. It reads files.
    ///
    /// # Errors
    /// A launch would fail now.
    pub(crate) fn find_program(&self) -> Result<Option<PathBuf>, WorkplaceError> {
        self.workplace.find(&self.command, self.inherited.get("PATH").cloned())
    }

    /// Whether HTTP clients of a worker are asked to leave while it drains, where it loads the shim.
    pub(crate) fn asks_to_leave(&self) -> bool {
        let attach = self.attach.in_force();
        attach.shim.is_some() && attach.drain_page.is_some()
    }
}

#[cfg(test)]
impl CommandSpec {
    /// The demo on port 3000, which inherits nothing.
    pub(crate) fn of_demo() -> Self {
        let attach = AttachEnv {
            socket: "@test".into(),
            shim: None,
            drain_page: None,
            node_channel: false,
            listen_fds: None,
            filter: None,
            turn: Turn::default(),
        };
        Self {
            command: WorkerCommand::Demo,
            ports: vec![WorkerPort(3000)],
            attach,
            notify: false,
            stdin: Stdin::Null,
            colours: false,
            context: ExecContext::inherited(rustix::process::getrlimit(rustix::process::Resource::Nofile)),
            inherited: Environment::default(),
            workplace: Workplace::default(),
        }
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
    /// Its calls of bind(2) and listen(2), if they are told.
    pub calls: Option<Notifications>,
    /// What it was given.
    pub environment: Environment,
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
    /// There is no such program, folder or environment file, or it may not be used.
    #[error(transparent)]
    Workplace(#[from] WorkplaceError),
    /// What the image of clusterd before has left cannot have been.
    #[error(transparent)]
    Carried(#[from] Wrong),
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
    /// It is not known what the worker binds.
    #[error("cannot start a worker: cannot receive its seccomp notifications: {0}")]
    Notifications(#[source] io::Error),
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
            StartError::Workplace(error) => error.exit_code(),
            StartError::NoInterpreter { .. } => 127,
            StartError::NoProgram { .. } | StartError::NotForUser { .. } => 126,
            StartError::System { .. }
            | StartError::Step { .. }
            | StartError::Carried(_)
            | StartError::Token(_)
            | StartError::Notify(_)
            | StartError::Notifications(_)
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
    let spec = &CommandSpec { attach: spec.attach.in_force(), ..spec.clone() };
    let mut variables = environment::of(spec, &launch).map_err(WorkplaceError::from)?;
    let mut command = command(spec, launch.lane);
    let failed = |error| explain(spec, error);
    let setup = spec.context.setup_of(id.slot).map_err(failed)?;
    let filter = spec.attach.filter.map(seccomp::for_child).transpose().map_err(StartError::Notifications)?;
    let (filter, calls) = filter.unzip();
    let setup = ChildSetup { mark: Some(launch.mark), filter: filter.map(Arc::new), ..setup };
    setup.apply_to(&mut command);
    let mut pipes = give_streams(&mut command, spec).map_err(failed)?;
    if spec.notify {
        let (socket, name) =
            notify_socket::bind(&spec.attach.socket, id.launch).map_err(StartError::Notify)?;
        pipes.notify = Some(socket);
        variables.insert("NOTIFY_SOCKET".into(), name);
    }
    let channel = spec.attach.node_channel.then(|| give_node_channel(&mut command)).transpose();
    let channel = channel.map_err(StartError::Channel)?;
    command.env_clear().envs(&variables);
    let child = command.spawn().map_err(failed)?;
    let pid = Pid::from_child(&child);
    let calls = calls.map(|calls| calls.receive()).transpose().map_err(|error| {
        // Nobody would ever answer it.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        StartError::Notifications(error)
    })?;
    let environment = variables.into_iter().collect();
    Ok(Spawned { pid, pipes, channel, calls, environment })
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
    command.stdin(input.map_or_else(ended_input, |input| Ok(input.into()))?).stdout(out).stderr(err);
    Ok(Pipes { stdout: stdout.into(), stderr: stderr.into(), notify: None })
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

/// A relative program is the one in the worker's folder, and is called as the user called it.
fn command(spec: &CommandSpec, lane: Lane) -> Command {
    let folder = spec.workplace.folder.as_ref();
    let mut command = match &spec.command {
        WorkerCommand::Demo => {
            let mut command = Command::new(own_program());
            command.arg0("clusterd").arg(DEMO_VERB);
            command
        }
        WorkerCommand::Program { arguments, .. } if spec.command.is_file_server() => {
            let mut command = Command::new(own_program());
            command.arg0("clusterd").args(arguments);
            command
        }
        WorkerCommand::Program { program, arguments } => {
            let in_folder = folder.filter(|_| program.as_bytes().contains(&b'/'));
            let file = in_folder.map(|folder| folder.join(program).components().collect::<PathBuf>());
            let file = file.as_deref().unwrap_or(Path::new(program));
            let mut command = match spec.attach.listen_fds {
                Some(verb) => {
                    let mut command = Command::new(own_program());
                    command.arg0("clusterd").arg(verb).arg(file).arg(program);
                    command
                }
                None => {
                    let mut command = Command::new(file);
                    command.arg0(program);
                    command
                }
            };
            command.args(inspector::arguments(program, arguments, lane.0.saturating_sub(1)));
            command
        }
    };
    if let Some(folder) = folder {
        command.current_dir(folder);
    }
    command
}

fn explain(spec: &CommandSpec, error: io::Error) -> StartError {
    let program = match &spec.command {
        WorkerCommand::Demo => format!("the demo worker ({})", own_program().display()),
        WorkerCommand::Program { program, .. } => program.display().to_string(),
    };
    if let Some((step, source)) = Step::failed(&error) {
        return StartError::Step { program, step, source };
    }
    // All was there when the configuration was checked, and execve(2) says the same of whatever is not.
    let found = match spec.find_program() {
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
