//! The program that is to take over: whether it can, and how it is begun in this process.
//!
//! What it is given is written down elsewhere; here it is a file.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::process::{Pid, Resource, Signal};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tracing::warn;

use super::super::primary_user::KeptPrivileges;
use crate::carry::CarriedFd;
use crate::sys::exec::{self, Program};
use crate::sys::process::{self, ChildSetup};
use crate::sys::signals::Blocked;

/// The hidden verb with which the next image is asked whether it could go on with what is on its standard input.
pub(crate) const CHECK_VERB: &str = "restore-check";

/// What it begins its answer with if it could; its version follows.
const CAN: &str = "can restore: ";

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of what it says is read, in bytes.
const MOST_SAID: u64 = 4096;

/// The variable by which the next image finds what it is given.
const VARIABLE: &str = "CLUSTERD_CARRIED";

/// The longest snapshot that is read, in bytes.
const LONGEST: u64 = 256 * 1024 * 1024;

/// How long the beginning of a program is that tells its word size, byte order and processor, in bytes (elf(5)).
const ELF_HEADER: usize = 20;

/// A program file, kept open: what is checked is what is executed, whatever gets its name meanwhile.
#[derive(Debug)]
pub(super) struct Image {
    file: OwnedFd,
    path: PathBuf,
}

/// Why it does not take over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unfit {
    /// There is no such file, or it may not be executed.
    #[error("cannot execute {}: {source}", .path.display())]
    NoProgram {
        /// What was asked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It did not answer as clusterd does.
    #[error("{} is not a clusterd that can take over{}", .path.display(), in_its_words(.said))]
    Mute {
        /// The program.
        path: PathBuf,
        /// What it said.
        said: String,
    },
    /// It did not answer in time.
    #[error("{} did not answer within {PATIENCE:?}", .0.display())]
    Silent(PathBuf),
    /// The kernel would take away what clusterd has kept.
    #[error(
        "{} cannot take over: it has capabilities or a set-user-ID bit of its own, and would lose those that clusterd has kept \
         (--primary-user)\nhint: take them from the file (`setcap -r`, `chmod u-s`)", .0.display()
    )]
    Privileged(PathBuf),
    /// It cannot go on with what there is.
    #[error("{said}")]
    Refuses {
        /// In its words.
        said: String,
    },
    /// The system has no room for it.
    #[error("cannot prepare the upgrade: {0}")]
    System(#[from] io::Error),
}

fn in_its_words(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("; it said: {text}") }
}

/// Where the next image finds all that it is given: the value of [`VARIABLE`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    snapshot: CarriedFd,
    /// The program that ran before, to which it goes back if it cannot go on; `None` if it has come from there.
    before: Option<CarriedFd>,
    /// Why whoever was to take over did not.
    failed: Option<String>,
}

/// What this image was given by the one before.
#[derive(Debug)]
pub(crate) struct Handed {
    snapshot: CarriedFd,
    before: Option<CarriedFd>,
    /// Why the image between has given up.
    pub(super) failed: Option<String>,
}

impl Image {
    /// The file with this name.
    ///
    /// # Errors
    /// It cannot be opened, or not be executed.
    pub(super) fn open(path: &Path) -> Result<Self, Unfit> {
        let opened = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let opened = opened.map_err(io::Error::from).and_then(|file| {
            let is_file =
                rustix::fs::fstat(&file).map(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFREG)?;
            let may = rustix::fs::access(path, rustix::fs::Access::EXEC_OK);
            if !is_file {
                return Err(io::Error::other("it is not a file"));
            }
            may.map(|()| file).map_err(Into::into)
        });
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        match opened {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(Unfit::NoProgram { path, source }),
        }
    }

    /// The file that runs here.
    pub(super) fn of_this_process() -> Result<Self, Unfit> {
        Self::open(&process::own_program())
    }

    /// Asks it whether it could go on with this snapshot. It runs beside this process, and changes nothing. Its version.
    ///
    /// # Errors
    /// Why it could not.
    pub(super) async fn check(&self, snapshot: &Sealed) -> Result<String, Unfit> {
        if self.is_for_another_machine() {
            let source = self.explained(io::Error::from_raw_os_error(libc::ENOEXEC));
            return Err(Unfit::NoProgram { path: self.path.clone(), source });
        }
        let mut command = Command::new(process::path_for_children(&self.file));
        command.arg0("clusterd").arg(CHECK_VERB);
        command.stdin(snapshot.file.try_clone()?).stdout(Stdio::piped()).stderr(Stdio::piped());
        ChildSetup::new(Signal::KILL, rustix::process::getrlimit(Resource::Nofile)).apply_to(&mut command);
        let failed = |source| Unfit::NoProgram { path: self.path.clone(), source: self.explained(source) };
        let mut child = command.spawn().map_err(failed)?;
        let group = Pid::from_child(&child);
        let (out, err) = (child.stdout.take(), child.stderr.take());
        // The reaper waits for it, as for any child that is no worker.
        drop(child);
        let said = async { tokio::try_join!(words(out), words(err)) };
        let answered = tokio::time::timeout(PATIENCE, said).await;
        // Whoever has answered has ended, or is of no use any more.
        let _ = rustix::process::kill_process_group(group, Signal::KILL);
        let (out, err) = answered.map_err(|_| Unfit::Silent(self.path.clone()))??;
        match version(&out, snapshot.word) {
            Some(version) => Ok(version.to_owned()),
            None if out.is_empty() && err.starts_with("clusterd ") => Err(Unfit::Refuses { said: err }),
            None => Err(Unfit::Mute { path: self.path.clone(), said: [out, err].concat() }),
        }
    }

    /// Whether execve(2) gives it privileges of its own, and none of those that are ambient (capabilities(7)).
    pub(super) fn check_privileges(&self) -> Result<(), Unfit> {
        let mode = rustix::fs::fstat(&self.file).map_err(io::Error::from)?.st_mode;
        let mut space = [0_u8; 64];
        let has_capabilities =
            rustix::fs::getxattr(process::path_of(&self.file), "security.capability", &mut space).is_ok();
        match has_capabilities || mode & (libc::S_ISUID | libc::S_ISGID) != 0 {
            true => Err(Unfit::Privileged(self.path.clone())),
            false => Ok(()),
        }
    }

    /// Whether it is a program as this one is, but not for this processor: a shell would try to read it (execvp(3)).
    fn is_for_another_machine(&self) -> bool {
        let begins = |path: PathBuf| {
            let mut header = [0; ELF_HEADER];
            File::open(path).and_then(|mut file| file.read_exact(&mut header)).map(|()| header)
        };
        match (begins(process::path_of(&self.file)), begins(process::own_program())) {
            (Ok(its), Ok(own)) => {
                its[..4] == own[..4] && (&its[4..6], &its[18..]) != (&own[4..6], &own[18..])
            }
            _ => false,
        }
    }

    /// What the system has said of a file that is there: it also says so of what that needs (execve(2)).
    pub(super) fn explained(&self, error: io::Error) -> io::Error {
        match error.raw_os_error() {
            Some(libc::ENOENT) => io::Error::other(
                "the program that runs it is not there: its interpreter if it is a script, otherwise its dynamic loader",
            ),
            Some(libc::ENOEXEC) => io::Error::other("it is no program for this machine"),
            Some(libc::ETXTBSY) => io::Error::other("it is being written (Text file busy)"),
            _ => error,
        }
    }

    /// What it is called.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn has_its_name(&self) -> bool {
        let same = rustix::fs::fstat(&self.file).map(|own| (own.st_dev, own.st_ino));
        std::fs::metadata(&self.path).is_ok_and(|found| same == Ok((found.dev(), found.ino())))
    }

    /// Begins it in this process, with this snapshot and everything that is written down in it. It returns only if that cannot
    /// be; all is as before then.
    pub(super) fn execute(
        &self,
        snapshot: &Sealed,
        carried: &[CarriedFd],
        (before, privileges): (Option<&Image>, Option<KeptPrivileges>),
    ) -> io::Error {
        let given = Given {
            snapshot: CarriedFd::of(&snapshot.file),
            before: before.map(|before| CarriedFd::of(&before.file)),
            failed: None,
        };
        let mut programs = vec![Program::File(CarriedFd::of(&self.file))];
        if self.has_its_name() {
            programs.push(Program::Path(&self.path));
        }
        execute(&programs, &given, carried, privileges)
    }
}

/// Executes the first of these programs that can be. Between the first descriptor that survives execve(2) and that call nothing
/// is forked: this is one step of the main thread. What was kept of root's capabilities is ambient in it, for the next image alone.
fn execute(
    programs: &[Program<'_>],
    given: &Given,
    carried: &[CarriedFd],
    privileges: Option<KeptPrivileges>,
) -> io::Error {
    let Ok(value) = serde_json::to_string(given) else { return io::ErrorKind::InvalidData.into() };
    let variables = std::env::vars_os().chain([(OsString::from(VARIABLE), value.into())]).collect::<Vec<_>>();
    let words: Vec<_> = std::env::args_os().collect();
    let blocked = match Blocked::all() {
        Ok(blocked) => blocked,
        Err(error) => return error,
    };
    let all = || carried.iter().chain([&given.snapshot]).chain(&given.before);
    let survives = |fd: &CarriedFd| {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("descriptor {}: {error}", fd.number()));
        fd.survives_exec(true).map_err(named)
    };
    let ready = all().try_for_each(survives);
    let ready = ready.and_then(|()| privileges.map_or(Ok(()), KeptPrivileges::hand_on));
    let error = match ready {
        Ok(()) => execute_first(programs, &words, &variables),
        Err(error) => error,
    };
    all().for_each(|fd| drop(fd.survives_exec(false)));
    if let Some(Err(error)) = privileges.map(KeptPrivileges::keep) {
        warn!(%error, "cannot take back what was to be handed on to the next image");
    }
    drop(blocked);
    error
}

fn execute_first(
    programs: &[Program<'_>],
    words: &[OsString],
    variables: &[(OsString, OsString)],
) -> io::Error {
    let mut error = io::ErrorKind::NotFound.into();
    for program in programs {
        error = exec::execute(*program, words, variables);
        // The interpreter of a script cannot open it by a descriptor that is closed for it; and there are systems without
        // execveat(2).
        if !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOSYS)) {
            return error;
        }
    }
    error
}

async fn words(pipe: Option<impl Into<OwnedFd>>) -> io::Result<String> {
    let Some(pipe) = pipe else { return Ok(String::new()) };
    let mut text = Vec::new();
    pipe::Receiver::from_owned_fd(pipe.into())?.take(MOST_SAID).read_to_end(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// A snapshot in memory, which nobody can change any more.
#[derive(Debug)]
pub(super) struct Sealed {
    file: OwnedFd,
    /// Whoever has read it knows this.
    word: u64,
}

impl Sealed {
    /// This one, in which this word is written.
    ///
    /// # Errors
    /// Those of memfd_create(2), write(2) and fcntl(2).
    pub(super) fn new(snapshot: &[u8], word: u64) -> io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let mut file = File::from(rustix::fs::memfd_create(c"clusterd-snapshot", flags)?);
        file.write_all(snapshot)?;
        // For whoever reads it as any other input.
        file.rewind()?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals)?;
        Ok(Self { file: file.into(), word })
    }
}

/// What is in the snapshot on this process's standard input, from its beginning.
///
/// # Errors
/// It is longer than any can be, or cannot be read.
pub(super) fn read_input() -> io::Result<Vec<u8>> {
    CarriedFd::numbered(0).read(LONGEST)
}

/// Says to whoever has asked that this version could go on. The word is from the snapshot: who has not read it does not know it.
pub(super) fn can_restore(word: u64) -> String {
    format!("{CAN}{} {word}", env!("CARGO_PKG_VERSION"))
}

/// The version that has said so, if it knows the word.
fn version(said: &str, word: u64) -> Option<&str> {
    let (version, known) = said.strip_prefix(CAN)?.split_once(' ')?;
    (known.parse() == Ok(word)).then_some(version)
}

impl Handed {
    /// What this process was given, if it was begun by another image of clusterd. To be called at the very start.
    pub(crate) fn to_this_process() -> Option<Self> {
        let value = exec::take_variable(VARIABLE)?;
        let Given { snapshot, before, failed } = serde_json::from_str(value.to_str()?).ok()?;
        Some(Self { snapshot, before, failed })
    }

    /// What was written down.
    ///
    /// # Errors
    /// It cannot be read.
    pub(super) fn read(&self) -> io::Result<Vec<u8>> {
        self.snapshot.read(LONGEST)
    }

    /// The descriptors of the snapshot and of the program before, beside those that are written down.
    pub(super) fn own(&self) -> impl Iterator<Item = CarriedFd> {
        [Some(self.snapshot), self.before].into_iter().flatten()
    }

    /// Gives everything back to the program that ran before: it goes on as if nothing had been, and tells why. It returns only if
    /// there is none, or that cannot be. It takes no further descriptor, of which there may be none.
    pub(super) fn give_back(
        &self,
        carried: &[CarriedFd],
        (why, privileges): (&str, Option<KeptPrivileges>),
    ) -> io::Error {
        let Some(before) = self.before else {
            return io::Error::other("there is no clusterd before this one");
        };
        let given = Given { snapshot: self.snapshot, before: None, failed: Some(why.to_owned()) };
        execute(&[Program::File(before)], &given, carried, privileges)
    }
}
