//! What descends from a process, and which sockets it has: read from /proc of these processes alone, and with two descriptors.
//!
//! Where it cannot be told that is an error or said so; it is never taken for "none".

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::buffer::spare_capacity;
use rustix::fs::{Dir, Gid, Mode, OFlags, Uid, open, openat, readlinkat_raw};
use rustix::io::Errno;
use rustix::process::Pid;

use super::acting::with_rights_of;
use super::proc_fd::inode_of_socket;
use super::process::Credentials;

/// How many descriptors are kept for the time when there are no others: what is done here needs two, and a third is for the
/// library that reads a file.
const SPARE: usize = 3;

/// Descriptors that stand for those that reading /proc takes, so that it can be read when the process has no other left.
#[derive(Debug, Default)]
pub(crate) struct SpareDescriptors(Vec<OwnedFd>);

impl SpareDescriptors {
    /// As many as there are left, which is tried again with each [`SpareDescriptors::lend`].
    pub(crate) fn keep() -> Self {
        let mut spare = Self::default();
        spare.refill();
        spare
    }

    fn refill(&mut self) {
        while self.0.len() < SPARE
            && let Ok(fd) = open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        {
            self.0.push(fd);
        }
    }

    /// Does something again without them if it fails for want of descriptors.
    ///
    /// # Errors
    /// Those of `act`. Another thread may have been quicker.
    pub(crate) fn lend<T>(&mut self, mut act: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        let mut done = act();
        if matches!(&done, Err(error) if error.raw_os_error() == Some(libc::EMFILE)) {
            self.0.clear();
            done = act();
        }
        self.refill();
        done
    }
}

/// How often it is looked at most until two looks find the same.
const LOOKS: usize = 16;

/// Whose child a process is, and what group it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Relation {
    /// The process.
    pub pid: i32,
    /// Its parent.
    pub parent: i32,
    /// Its process group.
    pub group: i32,
}

/// Who descends from whom.
#[derive(Debug)]
pub(crate) enum Kinship {
    /// The kernel tells whose children there are (CONFIG_PROC_CHILDREN).
    Asked,
    /// It does not: these are all processes of the machine.
    Listed(Vec<Relation>),
}

impl Kinship {
    /// What is needed to tell it.
    ///
    /// # Errors
    /// Those of reading /proc.
    pub(crate) fn look() -> io::Result<Self> {
        if Path::new("/proc/thread-self/children").exists() {
            return Ok(Self::Asked);
        }
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) {
                all.extend(relation(pid)?);
            }
        }
        Ok(Self::Listed(all))
    }

    /// The children of a process, none if it is gone.
    ///
    /// # Errors
    /// Those of reading /proc.
    pub(crate) fn children(&self, parent: i32) -> io::Result<Vec<i32>> {
        match self {
            Kinship::Asked => asked_children(parent),
            Kinship::Listed(all) => {
                let children = all.iter().filter(|relation| relation.parent == parent);
                Ok(children.map(|relation| relation.pid).collect())
            }
        }
    }

    /// These processes, and what descends from them.
    ///
    /// # Errors
    /// Those of reading /proc.
    pub(crate) fn family(&self, heads: impl IntoIterator<Item = i32>) -> io::Result<BTreeSet<i32>> {
        let mut family = BTreeSet::new();
        let mut next: Vec<i32> = heads.into_iter().collect();
        while let Some(pid) = next.pop() {
            if family.insert(pid) {
                next.extend(self.children(pid)?);
            }
        }
        Ok(family)
    }
}

/// Those children of a process that are wanted, and what descends from them.
///
/// One whose parent ends meanwhile may be missed: it becomes a child of a process whose children were read before that. So
/// it is looked until nothing has changed.
///
/// # Errors
/// Those of reading /proc.
pub(crate) fn descendants(process: i32, is_wanted: impl Fn(i32) -> bool) -> io::Result<BTreeSet<i32>> {
    let look = || look_for_descendants(process, &is_wanted);
    let mut found = look()?;
    for _ in 0..LOOKS {
        let before = std::mem::replace(&mut found, look()?);
        if before == found {
            break;
        }
    }
    Ok(found)
}

/// What descends from a process, with one look: for those who may miss one whose parent ends meanwhile.
///
/// # Errors
/// Those of reading /proc.
pub(crate) fn seen_descendants(process: i32) -> io::Result<BTreeSet<i32>> {
    look_for_descendants(process, &|_| true)
}

fn look_for_descendants(process: i32, is_wanted: &impl Fn(i32) -> bool) -> io::Result<BTreeSet<i32>> {
    let kinship = Kinship::look()?;
    let children = kinship.children(process)?;
    kinship.family(children.into_iter().filter(|&child| is_wanted(child)))
}

/// Each thread has children of its own, and most have none: with as few calls as can be, for a process may have many threads.
fn asked_children(parent: i32) -> io::Result<Vec<i32>> {
    let mut children = Vec::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(format!("/proc/{parent}/task"), flags, Mode::empty()).map_err(io::Error::from);
    let Some(folder) = unless_gone(folder)? else { return Ok(children) };
    let mut tasks = Dir::new(folder)?;
    let mut list = Vec::with_capacity(4096);
    while let Some(task) = tasks.read() {
        let Some(task) = unless_gone(task.map_err(io::Error::from))? else { break };
        let name = task.file_name().to_bytes();
        if name.starts_with(b".") {
            continue;
        }
        list.clear();
        let path = [name, b"/children"].concat();
        // A thread may end meanwhile; its children have another parent then.
        if unless_gone(read_in(tasks.fd()?, &path, &mut list))?.is_some() {
            let pids = list.split(u8::is_ascii_whitespace).filter_map(|pid| str::from_utf8(pid).ok());
            children.extend(pids.filter_map(|pid| pid.parse::<i32>().ok()));
        }
    }
    Ok(children)
}

/// Reads a file of /proc, of which nobody knows the length beforehand.
fn read_in(folder: BorrowedFd<'_>, path: &[u8], into: &mut Vec<u8>) -> io::Result<()> {
    let file = openat(folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    while rustix::io::read(&file, spare_capacity(into))? > 0 {
        into.reserve(1024);
    }
    Ok(())
}

/// How a process is related; `None` if it has ended.
///
/// # Errors
/// Those of reading /proc.
pub(crate) fn relation(pid: i32) -> io::Result<Option<Relation>> {
    let Some(stat) = unless_gone(fs::read(format!("/proc/{pid}/stat")))? else { return Ok(None) };
    // The name, in parentheses, may have anything in it.
    let after_name = stat.iter().rposition(|&byte| byte == b')').and_then(|at| stat.get(at + 1..));
    let Some(fields) = after_name.and_then(|fields| str::from_utf8(fields).ok()) else { return Ok(None) };
    let mut fields = fields.split_ascii_whitespace();
    let (state, parent, group) = (fields.next(), fields.next(), fields.next());
    let number = |field: Option<&str>| field.and_then(|field| field.parse().ok());
    Ok(match (state, number(parent), number(group)) {
        (Some("Z" | "X"), ..) => None,
        (Some(_), Some(parent), Some(group)) => Some(Relation { pid, parent, group }),
        _ => None,
    })
}

/// What was seen of the sockets of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// It lets nobody look, or not to the end.
    pub is_closed: bool,
    /// It has an io_uring, which may hold sockets that have no descriptor.
    pub has_ring: bool,
}

/// Tells the inode of each socket of a process, until that was enough; none of one that has ended.
///
/// Another user's process may be closed even to root, if it lacks CAP_SYS_PTRACE; then it is looked at with that user's own
/// rights. That does not open one that has changed its user without execve(2): see PR_SET_DUMPABLE in prctl(2).
///
/// # Errors
/// Those of reading /proc.
pub(crate) fn each_socket(pid: i32, mut each: impl FnMut(u64) -> ControlFlow<()>) -> io::Result<Seen> {
    match look(pid, &mut each) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound && exists(pid) => {
            // Mounted with `hidepid`.
            return Ok(Seen { is_closed: true, has_ring: false });
        }
        seen => return seen.or_else(|error| if is_gone(&error) { Ok(Seen::default()) } else { Err(error) }),
    }
    let closed = Ok(Seen { is_closed: true, has_ring: false });
    let Some(user) = user_of(pid)? else { return closed };
    match with_rights_of(&user, || look(pid, &mut each)) {
        Ok(Err(error)) if is_gone(&error) => Ok(Seen::default()),
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => closed,
        Ok(seen) => seen,
        // Nor may it become that user.
        Err(_) => closed,
    }
}

fn look(pid: i32, each: &mut impl FnMut(u64) -> ControlFlow<()>) -> io::Result<Seen> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(format!("/proc/{pid}/fd"), flags, Mode::empty())?;
    let mut seen = Seen::default();
    let mut buffer = [std::mem::MaybeUninit::uninit(); 64];
    // Its own descriptor would be read from the start again.
    let mut entries = Dir::new(folder)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes().first() == Some(&b'.') {
            continue;
        }
        let target = match readlinkat_raw(entries.fd()?.as_fd(), name, &mut buffer) {
            Ok((target, _)) => &*target,
            // Closed meanwhile.
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        if target.starts_with(b"anon_inode:[io_uring]") {
            seen.has_ring = true;
        }
        if let Some(inode) = inode_of_socket(target)
            && each(inode).is_break()
        {
            break;
        }
    }
    Ok(seen)
}

/// The user that a process is in every respect; `None` if it is several, or gone.
pub(super) fn user_of(pid: i32) -> io::Result<Option<Credentials>> {
    let Some(status) = unless_gone(fs::read(format!("/proc/{pid}/status")))? else { return Ok(None) };
    let status = String::from_utf8_lossy(&status);
    let one = |key: &str| -> Option<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(key))?;
        let mut numbers = line.split_ascii_whitespace().map(|number| number.parse::<u32>().ok());
        let (real, effective, saved) = (numbers.next()??, numbers.next()??, numbers.next()??);
        (real == effective && effective == saved).then_some(real)
    };
    Ok(one("Uid:").zip(one("Gid:")).map(|(uid, gid)| Credentials {
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(gid),
        groups: None,
    }))
}

fn exists(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| match rustix::process::test_kill_process(pid) {
        Ok(()) | Err(Errno::PERM) => true,
        Err(_) => false,
    })
}

/// What there is to read, and `None` if the process has ended.
fn unless_gone<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::process::CommandExt;
    use std::process::{Child, Command};
    use std::time::{Duration, Instant};

    use super::*;
    use crate::sys::scarcity;

    struct Process(Child);

    impl Process {
        fn start(command: &mut Command) -> Self {
            Self(command.process_group(0).spawn().unwrap())
        }

        fn pid(&self) -> i32 {
            i32::try_from(self.0.id()).unwrap()
        }
    }

    impl Drop for Process {
        fn drop(&mut self) {
            if let Some(group) = Pid::from_raw(self.pid()) {
                let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            }
            let _ = self.0.wait();
        }
    }

    fn until(what: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !what() {
            assert!(Instant::now() < deadline, "not in time");
            std::thread::yield_now();
        }
    }

    fn inodes(pid: i32) -> (Seen, BTreeSet<u64>) {
        let mut found = BTreeSet::new();
        let seen = each_socket(pid, |inode| {
            found.insert(inode);
            ControlFlow::Continue(())
        });
        (seen.unwrap(), found)
    }

    fn connection() -> (TcpStream, OwnedFd, u64) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = OwnedFd::from(listener.accept().unwrap().0);
        let inode = rustix::fs::fstat(&server).unwrap().st_ino;
        (client, server, inode)
    }

    #[test]
    fn the_sockets_of_a_process_are_told_until_that_is_enough() {
        let (_client, server, inode) = connection();
        let sleeper = Process::start(Command::new("sleep").arg("60").stdin(server));
        until(|| inodes(sleeper.pid()).1.contains(&inode));
        let mut count = 0;
        let stop = |_| {
            count += 1;
            ControlFlow::Break(())
        };
        assert_eq!(each_socket(sleeper.pid(), stop).unwrap(), Seen::default());
        assert_eq!(count, 1);
    }

    #[test]
    fn a_process_that_has_ended_has_no_sockets_and_no_children() {
        let mut child = Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        child.wait().unwrap();
        assert_eq!(inodes(pid), (Seen::default(), BTreeSet::new()));
        assert_eq!(relation(pid).unwrap(), None);
        assert!(Kinship::Asked.children(pid).unwrap().is_empty());
    }

    #[test]
    fn a_family_is_all_that_descends_however_the_kernel_tells_it() {
        let shell = Process::start(Command::new("sh").args(["-c", "(sleep 60; true) & sleep 60; true"]));
        let me = rustix::process::getpid().as_raw_pid();
        let asked = || Kinship::Asked.family([shell.pid()]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while asked().len() != 4 {
            let names =
                || asked().into_iter().map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")));
            assert!(Instant::now() < deadline, "{:?}", names().collect::<Vec<_>>());
            std::thread::yield_now();
        }
        let related = asked().into_iter().filter_map(|pid| relation(pid).unwrap());
        let listed = Kinship::Listed(related.collect());
        assert_eq!(listed.family([shell.pid()]).unwrap(), asked());
        let head = relation(shell.pid()).unwrap().unwrap();
        assert_eq!(head, Relation { pid: shell.pid(), parent: me, group: shell.pid() });
        assert!(Kinship::Asked.children(me).unwrap().contains(&shell.pid()));
    }

    /// Whether this thread may look into every process.
    fn without_ptrace(act: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(|| {
            let mut own = rustix::thread::capabilities(None).unwrap();
            own.effective.remove(rustix::thread::CapabilitySet::SYS_PTRACE);
            rustix::thread::set_capabilities(None, own).unwrap();
            act();
        });
        thread.join().unwrap();
    }

    #[test]
    fn another_users_process_is_looked_into_with_its_own_rights() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (_client, server, inode) = connection();
        let mut command = Command::new("sleep");
        command.arg("60").stdin(server).uid(12_345).gid(54_321);
        let sleeper = Process::start(&mut command);
        until(|| inodes(sleeper.pid()).1.contains(&inode));
        let pid = sleeper.pid();
        without_ptrace(move || {
            let (seen, found) = inodes(pid);
            assert_eq!(seen, Seen::default());
            assert!(found.contains(&inode));
        });
    }

    #[test]
    fn a_process_that_has_changed_its_user_by_itself_is_closed() {
        if !rustix::process::geteuid().is_root() || Command::new("perl").arg("-v").output().is_err() {
            return;
        }
        let script = "use POSIX; POSIX::setgid(54321); POSIX::setuid(12345); sleep 60";
        let process = Process::start(Command::new("perl").args(["-e", script]));
        let has_changed = move |pid: i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
            status.contains("Uid:\t12345\t12345\t12345")
        };
        until(|| has_changed(process.pid()));
        let pid = process.pid();
        without_ptrace(move || assert!(inodes(pid).0.is_closed));
    }

    #[test]
    fn what_is_kept_is_enough_where_no_descriptor_is_left() {
        scarcity::run_alone("sys::kin::tests::no_descriptor_is_left");
    }

    #[test]
    #[ignore = "run alone by the test above"]
    fn no_descriptor_is_left() {
        let (_client, server, inode) = connection();
        let sleeper = Process::start(Command::new("sleep").arg("60").stdin(server.try_clone().unwrap()));
        until(|| inodes(sleeper.pid()).1.contains(&inode));
        let mut spare = SpareDescriptors::keep();
        let taken = scarcity::no_descriptor_left();
        assert!(each_socket(sleeper.pid(), |_| ControlFlow::Continue(())).is_err(), "not taken for none");
        assert!(Kinship::Asked.children(sleeper.pid()).is_err(), "not taken for none");
        for _ in 0..2 {
            let read = spare.lend(|| {
                let family = Kinship::look()?.family([sleeper.pid()])?;
                family
                    .into_iter()
                    .try_for_each(|pid| each_socket(pid, |_| ControlFlow::Continue(())).map(drop))
            });
            read.unwrap();
        }
        drop(taken);
    }
}
