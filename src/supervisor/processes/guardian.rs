//! A small process that outlives the primary by moments: if the primary is killed, it ends what the primary
//! would have ended.
//!
//! The kernel tells a worker's own process when the primary dies (PR_SET_PDEATHSIG), but not that process's
//! descendants. The guardian knows every worker's process group, from a pipe whose other end only the primary
//! holds: when the pipe ends unannounced, the primary is dead. It watches nothing else. The primary of an app that was
//! started detached it starts again, beside the old workers, which have their grace; that of `clusterd up` does so itself.

use std::collections::{BTreeSet, HashSet};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};
use rustix::thread::CapabilitySet;

use crate::carry::{CarriedFd, CarriedFds};
use crate::supervisor::snapshot::{self, GuardianSnapshot};
use crate::sys::mark::Family;
use crate::sys::process::{self, own_program, unread_output};
use crate::sys::{self, privileges, processes};

/// The hidden verb with which clusterd runs itself as its guardian.
pub(crate) const VERB: &str = "guardian";

/// What stands for no family, no folder and no app.
const NONE: &str = "-";

/// What stands for ports that are to be free at once.
const FREES_PORTS: &str = "free";

/// How often it looks whether a process group is gone.
const POLL: Duration = Duration::from_millis(50);

/// What the guardian does when the primary is dead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Orders {
    /// How long process groups may take to end before they are killed.
    pub grace: Duration,
    /// What the primary's workers, and all that descends from them, are known by; `None` to end only their process
    /// groups.
    pub family: Option<Family>,
    /// The primary's runtime folder, which is removed with everything in it.
    pub folder: Option<PathBuf>,
    /// Another primary is started at once, and is to find the ports free.
    pub frees_ports: bool,
    /// The folder of the app whose primary the guardian is to start again.
    pub app: Option<PathBuf>,
}

impl Orders {
    /// How long they are, 4 bytes, little-endian; and each with a zero byte behind it.
    fn encode(&self) -> io::Result<Vec<u8>> {
        let folder = |path: &Option<PathBuf>| match path {
            Some(path) => std::path::absolute(path).map(OsString::from),
            None => Ok(NONE.into()),
        };
        let words: [OsString; 5] = [
            self.grace.as_millis().to_string().into(),
            self.family.map_or_else(|| NONE.to_owned(), |family| family.number().to_string()).into(),
            if self.frees_ports { FREES_PORTS } else { NONE }.into(),
            folder(&self.folder)?,
            folder(&self.app)?,
        ];
        let text: Vec<u8> = words.iter().flat_map(|word| [word.as_bytes(), b"\0"].concat()).collect();
        let len = u32::try_from(text.len()).map_err(io::Error::other)?;
        Ok([&len.to_le_bytes()[..], &text].concat())
    }

    /// `None` if the pipe ends before them.
    fn read(pipe: &mut impl Read) -> Option<Self> {
        let mut len = [0; 4];
        pipe.read_exact(&mut len).ok()?;
        let mut text = Vec::new();
        pipe.take(u32::from_le_bytes(len).into()).read_to_end(&mut text).ok()?;
        let mut words = text.split(|&byte| byte == 0).map(OsStr::from_bytes);
        let number = |word: Option<&OsStr>| word?.to_str()?.parse::<u64>().ok();
        let grace = Duration::from_millis(number(words.next())?);
        let family = number(words.next()).map(Family::of_number);
        let frees_ports = words.next()? == FREES_PORTS;
        let mut folder = || words.next().filter(|path| *path != NONE).map(PathBuf::from);
        Some(Self { grace, family, frees_ports, folder: folder(), app: folder() })
    }
}

/// The primary's end of a running guardian.
#[derive(Debug)]
pub(crate) struct Guardian {
    pid: Pid,
    since: Instant,
    pipe: OwnedFd,
}

/// One record of the pipe: 8 bytes, little-endian. A write of less than PIPE_BUF bytes is never split (pipe(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Message {
    /// The group came: its number.
    Watch(Pid),
    /// The group is gone: its number, negated.
    Release(Pid),
    /// The primary ends in good order: 0.
    Dismiss,
}

impl Message {
    fn encode(self) -> [u8; 8] {
        let number = match self {
            Message::Watch(group) => i64::from(group.as_raw_pid()),
            Message::Release(group) => -i64::from(group.as_raw_pid()),
            Message::Dismiss => 0,
        };
        number.to_le_bytes()
    }

    fn decode(record: [u8; 8]) -> Option<Self> {
        let number = i64::from_le_bytes(record);
        let group = i32::try_from(number.unsigned_abs()).ok()?;
        match (Pid::from_raw(group), number) {
            (None, _) => Some(Message::Dismiss),
            // kill(2) takes -1 for every process there is.
            (Some(Pid::INIT), _) => None,
            (Some(group), 1..) => Some(Message::Watch(group)),
            (Some(group), _) => Some(Message::Release(group)),
        }
    }
}

/// A guardian that waits for its orders. Without any it ends with the process that has it.
#[derive(Debug)]
pub(crate) struct Waiting(Guardian);

/// What a fork returns, twice.
#[derive(Debug)]
pub(crate) enum Forked {
    /// In the process that goes on: its guardian.
    Here(Waiting),
    /// In the guardian, once it has done its work: what to exit with.
    There(ExitCode),
}

impl Waiting {
    /// Forks it from this process, which has one thread yet. It shares its memory with it as long as neither writes to it, and
    /// so costs a fraction of one that is executed. What it does in the end, [`guardian_main`] says.
    ///
    /// # Errors
    /// Those of pipe2(2) and fork(2); and there is more than one thread.
    pub(crate) fn fork(start_again: impl FnOnce(&Path)) -> io::Result<Forked> {
        let (read, write) = orders_pipe()?;
        let Some(pid) = process::fork_alone()? else {
            drop(write);
            let code = process::become_detached_child(read).map(|()| guardian_main(start_again));
            return Ok(Forked::There(code.unwrap_or(ExitCode::FAILURE)));
        };
        // As it does itself: whoever is first.
        let _ = rustix::process::setpgid(Some(pid), Some(pid));
        Ok(Forked::Here(Self(Guardian { pid, since: Instant::now(), pipe: write })))
    }
}

fn orders_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    rustix::fs::fcntl_setfl(&write, OFlags::NONBLOCK)?;
    Ok((read, write))
}

impl Guardian {
    /// Gives one that waits its orders; or starts this program's own file again as one, in a process group of its own.
    ///
    /// # Errors
    /// There is no room for another process or pipe, or without /proc, the program's file is not where it was.
    pub(crate) fn start(orders: &Orders, waiting: Option<Waiting>) -> io::Result<Self> {
        let orders = orders.encode()?;
        if let Some(Waiting(guardian)) = waiting
            && guardian.receives(&orders).is_ok()
        {
            return Ok(guardian);
        }
        let guardian = Self::execute()?;
        guardian.receives(&orders)?;
        Ok(guardian)
    }

    fn execute() -> io::Result<Self> {
        let (read, write) = orders_pipe()?;
        let mut command = Command::new(own_program());
        command.arg0("clusterd").arg(VERB);
        command.env_clear().current_dir("/").process_group(0);
        command.stdin(read).stdout(unread_output()?).stderr(unread_output()?);
        // Workers may have another user than this process has given itself.
        privileges::share(&mut command, CapabilitySet::KILL);
        sys::signals::block_none_in(&mut command);
        let child = command.spawn()?;
        Ok(Self { pid: Pid::from_child(&child), since: Instant::now(), pipe: write })
    }

    /// As it is written down for the next image of this process, whose child it stays.
    pub(super) fn snapshot(&self) -> GuardianSnapshot {
        GuardianSnapshot {
            pid: self.pid.as_raw_pid(),
            since: self.since.into(),
            pipe: CarriedFd::of(&self.pipe),
        }
    }

    /// The one that was written down.
    ///
    /// # Errors
    /// Its pipe is gone, or it cannot be a child.
    pub(crate) fn restore(written: &GuardianSnapshot, fds: &CarriedFds) -> io::Result<Self> {
        let pid = snapshot::pid(written.pid).map_err(io::Error::other)?;
        Ok(Self { pid, since: written.since.into(), pipe: fds.take(written.pipe)? })
    }

    /// Two paths fit into an empty pipe.
    fn receives(&self, orders: &[u8]) -> io::Result<()> {
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.pipe, orders))? {
            written if written == orders.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    /// The guardian's process: a child of this one.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// When it was started.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// Puts a process group under its guard.
    pub(crate) fn watch(&self, group: Pid) {
        self.tell(Message::Watch(group));
    }

    /// Takes away a process group that has ended.
    pub(crate) fn release(&self, group: Pid) {
        self.tell(Message::Release(group));
    }

    /// Lets it go, without doing anything.
    pub(crate) fn dismiss(self) -> Pid {
        self.tell(Message::Dismiss);
        self.pid
    }

    /// Never blocks. A guardian that has left thousands of messages unread is of no use: it is killed, and
    /// whoever waits for it starts a new one and tells it everything.
    fn tell(&self, message: Message) {
        match rustix::io::retry_on_intr(|| rustix::io::write(&self.pipe, &message.encode())) {
            // EPIPE: it is dead, which is about to be noticed.
            Ok(_) | Err(Errno::PIPE) => {}
            Err(error) => {
                tracing::warn!("the guardian does not read its pipe ({error}); replacing it");
                let _ = rustix::process::kill_process(self.pid, Signal::KILL);
            }
        }
    }
}

/// The guardian itself: on its standard input is the pipe, with its orders first. `start_again` starts the primary of the app
/// in a folder.
pub(crate) fn guardian_main(start_again: impl FnOnce(&Path)) -> ExitCode {
    let signals = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
    if sys::signals::ignore(&signals).is_err() {
        return ExitCode::FAILURE;
    }
    // The name is for people who look at a list of processes.
    let _ = rustix::thread::set_name(c"clusterd-guard");
    let mut pipe = io::stdin().lock();
    // A primary that does not come so far has started one worker at most, moments ago, which the kernel ends with it.
    if let Some(orders) = Orders::read(&mut pipe) {
        // It has nothing more to do for as long as the primary lives.
        sys::memory::give_back();
        guard(pipe, &orders, start_again);
    }
    ExitCode::SUCCESS
}

fn guard(pipe: impl Read, orders: &Orders, start_again: impl FnOnce(&Path)) {
    let Some(groups) = orphaned_groups(pipe) else {
        return;
    };
    if orders.frees_ports {
        free_ports(&groups, orders.family);
    }
    if let Some(app) = &orders.app {
        start_again(app);
    }
    end(groups, orders);
    if let Some(folder) = &orders.folder {
        remove(folder);
    }
}

/// Reads until the primary says goodbye (`None`) or dies: the groups that it left.
fn orphaned_groups(mut pipe: impl Read) -> Option<BTreeSet<i32>> {
    let mut groups = BTreeSet::new();
    let mut record = [0; 8];
    while pipe.read_exact(&mut record).is_ok() {
        match Message::decode(record) {
            Some(Message::Watch(group)) => {
                groups.insert(group.as_raw_pid());
            }
            Some(Message::Release(group)) => {
                groups.remove(&group.as_raw_pid());
            }
            Some(Message::Dismiss) => return None,
            None => {}
        }
    }
    Some(groups)
}

/// Kills the groups in which somebody listens: they would keep the ports from the new primary.
fn free_ports(groups: &BTreeSet<i32>, family: Option<Family>) {
    let detached = family.map(Family::living).unwrap_or_default();
    let all: BTreeSet<_> = groups.iter().copied().chain(detached.iter().map(|member| member.group)).collect();
    for group in all {
        let listens = |group| !processes::listening_ports(group).is_empty();
        if Pid::from_raw(group).is_some_and(listens) {
            send(group, Signal::KILL);
        }
    }
}

/// Asks the groups to end, and what has left them, and kills what is there after the grace.
fn end(groups: BTreeSet<i32>, orders: &Orders) {
    let deadline = Instant::now() + orders.grace;
    let mut left = Left { groups, family: orders.family, asked: HashSet::new() };
    left.groups.retain(|&group| send(group, Signal::TERM));
    while left.is_asked() && Instant::now() < deadline {
        std::thread::sleep(POLL);
    }
    left.kill();
}

/// Whether there was anybody to send it to.
fn send(group: i32, signal: Signal) -> bool {
    Pid::from_raw(group)
        .is_some_and(|group| rustix::process::kill_process_group(group, signal) != Err(Errno::SRCH))
}

/// What a dead primary has left.
struct Left {
    groups: BTreeSet<i32>,
    family: Option<Family>,
    /// The processes outside of the groups that were asked to end.
    asked: HashSet<Pid>,
}

impl Left {
    /// Asks whoever was not asked yet, and tells whether somebody is left.
    fn is_asked(&mut self) -> bool {
        // A zombie that its new parent does not wait for is signalled as if it lived, and needs nothing.
        let has_members =
            |group: &i32| Pid::from_raw(*group).is_some_and(|group| !processes::members(group).is_empty());
        self.groups.retain(has_members);
        let detached = self.detached();
        for &pid in &detached {
            if self.asked.insert(pid) {
                self.signal(pid, Signal::TERM);
            }
        }
        !(self.groups.is_empty() && detached.is_empty())
    }

    fn kill(&self) {
        for &group in &self.groups {
            send(group, Signal::KILL);
        }
        for pid in self.detached() {
            self.signal(pid, Signal::KILL);
        }
    }

    fn detached(&self) -> Vec<Pid> {
        let all = self.family.map(Family::living).unwrap_or_default();
        all.into_iter()
            .filter(|member| !self.groups.contains(&member.group))
            .map(|member| member.pid)
            .collect()
    }

    fn signal(&self, pid: Pid, signal: Signal) {
        if let Some(family) = self.family {
            processes::signal_if(pid, signal, || family.knows(pid));
        }
    }
}

fn remove(folder: &Path) {
    // Nobody is left who could be told of a failure, and a later clusterd makes a folder of its own.
    let _ = std::fs::remove_dir_all(folder);
}

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::io::BufReader;
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Stdio};

    use proptest::prelude::*;

    use super::*;

    fn group(number: i32) -> Pid {
        Pid::from_raw(number).expect("not 0")
    }

    fn orders(folder: &Path, grace: Duration) -> Orders {
        Orders { grace, family: None, frees_ports: false, folder: Some(folder.to_owned()), app: None }
    }

    fn bytes(messages: &[Message]) -> Vec<u8> {
        messages.iter().flat_map(|message| message.encode()).collect()
    }

    /// A shell in a group of its own that has run `script` up to its `echo`.
    fn shell(script: &str) -> Child {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .process_group(0)
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        child
    }

    #[test]
    fn orders_survive_the_pipe() {
        let all = Orders {
            grace: Duration::from_millis(1500),
            family: Some(Family::of_number(7)),
            frees_ports: true,
            folder: Some("/run/a folder".into()),
            app: Some("/home/\u{e4}/apps/web".into()),
        };
        let none = Orders { family: None, frees_ports: false, folder: None, app: None, ..all.clone() };
        for orders in [all, none] {
            let told = [orders.encode().unwrap(), bytes(&[Message::Dismiss])].concat();
            let mut pipe = told.as_slice();
            assert_eq!(Orders::read(&mut pipe), Some(orders));
            assert_eq!(pipe, bytes(&[Message::Dismiss]), "what follows is left");
        }
        assert_eq!(Orders::read(&mut &b"\x09\x00\x00\x00150"[..]), None);
        assert_eq!(Orders::read(&mut &b""[..]), None);
    }

    proptest! {
        #[test]
        fn messages_survive_the_pipe(number in 2..i32::MAX) {
            for message in [Message::Watch(group(number)), Message::Release(group(number)), Message::Dismiss] {
                prop_assert_eq!(Message::decode(message.encode()), Some(message));
            }
        }

        #[test]
        fn no_record_names_every_process(record: [u8; 8]) {
            let named = match Message::decode(record) {
                Some(Message::Watch(group) | Message::Release(group)) => group.as_raw_pid(),
                Some(Message::Dismiss) | None => return Ok(()),
            };
            prop_assert!(named > 1);
        }
    }

    #[test]
    fn process_one_is_no_group() {
        assert_eq!(Message::decode(1i64.to_le_bytes()), None);
        assert_eq!(Message::decode((-1i64).to_le_bytes()), None);
    }

    #[test]
    fn released_groups_are_not_orphans() {
        let told =
            bytes(&[Message::Watch(group(10)), Message::Watch(group(11)), Message::Release(group(10))]);
        assert_eq!(orphaned_groups(told.as_slice()), Some(BTreeSet::from([11])));
    }

    #[test]
    fn a_dismissed_guardian_does_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let told = bytes(&[Message::Watch(group(i32::MAX)), Message::Dismiss]);
        guard(told.as_slice(), &orders(folder.path(), Duration::ZERO), |_| {});
        assert!(folder.path().exists());
    }

    fn ended_by(mut child: Child) -> Option<i32> {
        child.wait().expect("a child").signal()
    }

    #[test]
    fn a_dead_primarys_groups_are_asked_to_end_and_its_folder_is_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let inner = folder.path().join("run");
        std::fs::create_dir(&inner).expect("a folder");
        std::fs::write(inner.join("shim.so"), "x").expect("a file");
        let polite = shell("echo; sleep 60");
        let told = bytes(&[Message::Watch(Pid::from_child(&polite))]);
        // The grace is not waited out: the test would take an hour.
        guard(told.as_slice(), &orders(&inner, Duration::from_secs(3600)), |_| {});
        assert_eq!(ended_by(polite), Some(libc::SIGTERM));
        assert!(!inner.exists());
    }

    #[test]
    fn a_dead_primarys_group_that_does_not_end_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let stubborn = shell("trap '' TERM; echo; while :; do sleep 1; done");
        let told = bytes(&[Message::Watch(Pid::from_child(&stubborn))]);
        guard(told.as_slice(), &orders(folder.path(), Duration::from_millis(100)), |_| {});
        assert_eq!(ended_by(stubborn), Some(libc::SIGKILL));
    }
}
