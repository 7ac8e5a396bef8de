//! A small process that outlives the primary by moments: if the primary is killed, it ends what the primary
//! would have ended.
//!
//! The kernel tells a worker's own process when the primary dies (PR_SET_PDEATHSIG), but not that process's
//! descendants. The guardian knows every worker's process group, from a pipe whose other end only the primary
//! holds: when the pipe ends unannounced, the primary is dead. It watches nothing else. The primary of an app that was
//! started detached it starts again, beside the old workers, which have their grace; that of `clusterd up` does so itself.

use std::collections::{BTreeSet, HashSet};
use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Signal};

use crate::sys::mark::Family;
use crate::sys::process::{own_program, unread_output};
use crate::sys::{self, processes};

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

impl Guardian {
    /// Starts this program's own file again as a guardian, in a process group of its own.
    ///
    /// # Errors
    /// There is no room for another process or pipe, or without /proc, the program's file is not where it was.
    pub(crate) fn start(orders: &Orders) -> io::Result<Self> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&write, OFlags::NONBLOCK)?;
        let mut command = Command::new(own_program());
        command.arg0("clusterd").arg(VERB);
        command.arg(orders.grace.as_millis().to_string());
        command.arg(orders.family.map_or_else(|| NONE.to_owned(), |family| family.number().to_string()));
        command.arg(if orders.frees_ports { FREES_PORTS } else { NONE });
        for folder in [&orders.folder, &orders.app] {
            command.arg(folder.as_ref().map_or_else(|| Ok(NONE.into()), std::path::absolute)?);
        }
        command.env_clear().current_dir("/").process_group(0);
        command.stdin(read).stdout(unread_output()?).stderr(unread_output()?);
        let child = command.spawn()?;
        Ok(Self { pid: Pid::from_child(&child), since: Instant::now(), pipe: write })
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

/// The guardian itself: `arguments` are those after the verb, the grace in milliseconds, the family, whether ports are freed,
/// the runtime folder and the app's. `start_again` starts the primary of the app in a folder.
pub(crate) fn guardian_main(
    arguments: impl IntoIterator<Item = OsString>,
    start_again: impl FnOnce(&Path),
) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let grace = arguments.next().and_then(|grace| grace.to_str()?.parse().ok()).map(Duration::from_millis);
    let Some(grace) = grace else {
        return ExitCode::from(2);
    };
    let family = arguments.next().and_then(|family| family.to_str()?.parse().ok()).map(Family::of_number);
    let frees_ports = arguments.next().is_some_and(|word| word == FREES_PORTS);
    let mut folder = || arguments.next().filter(|path| path != NONE).map(PathBuf::from);
    let orders = Orders { grace, family, frees_ports, folder: folder(), app: folder() };
    let signals = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];
    if sys::signals::ignore(&signals).is_err() {
        return ExitCode::FAILURE;
    }
    // The name is for people who look at a list of processes.
    let _ = rustix::thread::set_name(c"clusterd-guard");
    // It has nothing to do for as long as the primary lives.
    sys::memory::give_back();
    guard(io::stdin().lock(), &orders, start_again);
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
