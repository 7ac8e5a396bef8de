//! What a process must be told before it runs another program, and what this one is told once at its start.
//!
//! Only the steps: which program is run, with which environment, is decided by the caller.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Access, Gid, Mode, OFlags, Uid};
use rustix::io::{Errno, FdFlags};
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open};
use rustix::thread::CpuSet;
use rustix::time::Timespec;

use super::mark::Mark;
use super::seccomp::Filter;
use super::signals;

/// What holds for a child from before its program starts.
#[derive(Clone, Debug)]
pub(crate) struct ChildSetup {
    /// The signal that the kernel sends the child when the *thread* that spawned it ends: spawn from the main
    /// thread (PR_SET_PDEATHSIG, prctl(2)). A child that changes its credentials later loses it.
    pub parent_death: Signal,
    /// Its limits of open descriptors.
    pub nofile: Rlimit,
    /// Its `oom_score_adj`, from -1000 to 1000 (proc_pid_oom_score_adj(5)); `None` for its parent's.
    pub oom_score_adj: Option<i16>,
    /// The one CPU that it may run on; `None` for its parent's.
    pub cpu: Option<usize>,
    /// Whether it is scheduled by SCHED_BATCH if its parent is by SCHED_OTHER (sched(7)).
    pub batch: bool,
    /// Whom it runs as; `None` for whom its parent does.
    pub credentials: Option<Credentials>,
    /// What it and all that descends from it is known by.
    pub mark: Option<Mark>,
    /// What has its calls of bind(2) and listen(2) told.
    pub filter: Option<Arc<Filter>>,
}

/// Whom a process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Credentials {
    /// Its user.
    pub uid: Uid,
    /// Its group.
    pub gid: Gid,
    /// Its supplementary groups; `None` for its parent's.
    pub groups: Option<Vec<Gid>>,
}

/// What a child does before its program starts, where that can fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Setting its limits of open descriptors.
    OpenFiles = 1,
    /// Setting its `oom_score_adj`.
    OomScore,
    /// Choosing its CPU.
    Cpu,
    /// Choosing its scheduling policy.
    Scheduling,
    /// Installing the filter that has its calls told.
    Filter,
    /// Setting its supplementary groups.
    Groups,
    /// Changing its group.
    Group,
    /// Changing its user.
    User,
}

impl Step {
    const ALL: [Step; 8] = [
        Step::OpenFiles,
        Step::OomScore,
        Step::Cpu,
        Step::Scheduling,
        Step::Filter,
        Step::Groups,
        Step::Group,
        Step::User,
    ];

    /// Where, in what the child tells of an error, the step begins; errors of the system take less.
    const SHIFT: u32 = 16;

    /// Gives an error of this step its name. All that a child can tell its parent is a number.
    fn of<T>(self, result: rustix::io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            io::Error::from_raw_os_error((self as i32) << Self::SHIFT | error.raw_os_error())
        })
    }

    /// The step in which a child has failed, and why; `None` if it failed in none of them.
    pub(crate) fn failed(error: &io::Error) -> Option<(Self, io::Error)> {
        let raw = error.raw_os_error()?;
        let step = Self::ALL.into_iter().find(|step| *step as i32 == raw >> Self::SHIFT)?;
        Some((step, io::Error::from_raw_os_error(raw & ((1 << Self::SHIFT) - 1))))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Step::OpenFiles => "set its limit of open files",
            Step::OomScore => "set its oom_score_adj",
            Step::Cpu => "choose its CPU",
            Step::Scheduling => "choose its scheduling policy",
            Step::Filter => "install its seccomp filter",
            Step::Groups => "set its supplementary groups",
            Step::Group => "change its group",
            Step::User => "change its user",
        })
    }
}

impl ChildSetup {
    /// With these limits, and otherwise as its parent is.
    pub(crate) fn new(parent_death: Signal, nofile: Rlimit) -> Self {
        Self {
            parent_death,
            nofile,
            oom_score_adj: None,
            cpu: None,
            batch: false,
            credentials: None,
            mark: None,
            filter: None,
        }
    }

    /// Makes `command` apply this in the child, in a process group of its own, with no signal blocked.
    ///
    /// The spawn fails with ESRCH if the parent dies before the child is tied to it; [`Step::failed`] tells of other
    /// failures.
    pub(crate) fn apply_to(self, command: &mut Command) {
        let parent = rustix::process::getpid();
        let oom_score_adj = self.oom_score_adj.map(|score| score.to_string());
        command.process_group(0);
        signals::block_none_in(command);
        // SAFETY: between fork and exec only async-signal-safe calls are allowed. `in_child` makes plain system
        // calls on what was captured here, and neither allocates nor locks.
        unsafe { command.pre_exec(move || self.in_child(parent, oom_score_adj.as_deref())) };
    }

    fn in_child(&self, parent: Pid, oom_score_adj: Option<&str>) -> io::Result<()> {
        if rustix::process::getrlimit(Resource::Nofile) != self.nofile {
            Step::OpenFiles.of(rustix::process::setrlimit(Resource::Nofile, self.nofile))?;
        }
        if let Some(mark) = self.mark {
            mark.apply();
        }
        if let Some(score) = oom_score_adj {
            Step::OomScore.of(write_oom_score_adj(score))?;
        }
        if let Some(cpu) = self.cpu {
            let mut only = CpuSet::new();
            only.set(cpu);
            Step::Cpu.of(rustix::thread::sched_setaffinity(None, &only))?;
        }
        if self.batch {
            Step::Scheduling.of(be_batch())?;
        }
        if let Some(filter) = &self.filter {
            Step::Filter.of(filter.install())?;
        }
        // After everything that takes a privilege: it is gone then.
        if let Some(credentials) = &self.credentials {
            credentials.assume()?;
        }
        // After the change of credentials, which takes it away.
        rustix::process::set_parent_process_death_signal(Some(self.parent_death))?;
        if rustix::process::getppid() != Some(parent) {
            return Err(Errno::SRCH.into());
        }
        Ok(())
    }
}

/// Makes `command` give its child this descriptor under this number. The command holds the descriptor until it is
/// dropped.
///
/// The number must be in use in this process, by this descriptor if by nothing else: std opens a pipe of its own for the
/// child, on which that reports a failed exec, and it must not have this number.
pub(crate) fn give_descriptor(command: &mut Command, fd: OwnedFd, number: i32) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `place` makes one plain system call on what
    // was captured here, and neither allocates nor locks.
    unsafe { command.pre_exec(move || place(&fd, number)) };
}

/// Puts a duplicate of `fd` at this number, for programs to inherit. Where it has this number already, dup2(2) would leave
/// it close-on-exec.
fn place(fd: &OwnedFd, number: i32) -> io::Result<()> {
    if fd.as_raw_fd() == number {
        return Ok(rustix::io::fcntl_setfd(fd, FdFlags::empty())?);
    }
    // SAFETY: the call only changes which descriptor has the number. Between fork and exec nothing of this process's
    // code uses the one that it had.
    match unsafe { libc::dup2(fd.as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

impl Credentials {
    /// Of this thread, which is the only one. Ambient capabilities would outlive a change from one user to another.
    fn assume(&self) -> io::Result<()> {
        if let Some(groups) = &self.groups {
            Step::Groups.of(rustix::thread::set_thread_groups(groups))?;
        }
        Step::Group.of(rustix::thread::set_thread_res_gid(self.gid, self.gid, self.gid))?;
        if rustix::process::geteuid() != self.uid {
            Step::User.of(rustix::thread::clear_ambient_capability_set())?;
        }
        Step::User.of(rustix::thread::set_thread_res_uid(self.uid, self.uid, self.uid))
    }
}

/// Whether a thread of this process may be scheduled by SCHED_BATCH: some sandboxes do not let it choose. It is tried.
///
/// # Errors
/// Those of sched_setscheduler(2).
pub(crate) fn may_be_batch() -> io::Result<()> {
    let tried = std::thread::Builder::new().spawn(be_batch)?.join();
    Ok(tried.unwrap_or(Err(Errno::IO))?)
}

/// Schedules this thread by SCHED_BATCH, if it is by SCHED_OTHER: when it wakes up, it does not interrupt what runs. As system
/// calls: musl's functions of these names do nothing.
///
/// # Errors
/// Those of sched_setscheduler(2).
fn be_batch() -> rustix::io::Result<()> {
    // SAFETY: no pointers.
    let policy = done(unsafe { libc::syscall(libc::SYS_sched_getscheduler, THIS_THREAD) })?;
    if policy == libc::c_long::from(libc::SCHED_OTHER) { be_scheduled_by(libc::SCHED_BATCH) } else { Ok(()) }
}

/// Has this thread run only while no other wants to (SCHED_IDLE, which goes for the disk, too: ioprio_set(2)), or with the
/// least priority where that may not be chosen.
pub(crate) fn be_idle() {
    let _ = rustix::process::setpriority_process(None, 19);
    let _ = be_scheduled_by(libc::SCHED_IDLE);
}

const THIS_THREAD: libc::c_long = 0;

fn be_scheduled_by(policy: libc::c_int) -> rustix::io::Result<()> {
    // What the kernel knows of a `struct sched_param`.
    let priority: libc::c_int = 0;
    let policy = libc::c_long::from(policy);
    // SAFETY: the kernel reads one int from the pointer, which points to one.
    done(unsafe { libc::syscall(libc::SYS_sched_setscheduler, THIS_THREAD, policy, &raw const priority) })
        .map(drop)
}

fn done(result: libc::c_long) -> rustix::io::Result<libc::c_long> {
    match result {
        ..0 => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)),
        result => Ok(result),
    }
}

fn write_oom_score_adj(score: &str) -> rustix::io::Result<()> {
    let file =
        rustix::fs::open(c"/proc/self/oom_score_adj", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(file, score.as_bytes()).map(drop)
}

/// Whether children of this process may have this `oom_score_adj`: to lower it takes CAP_SYS_RESOURCE. It is tried.
///
/// # Errors
/// Those of /proc/self/oom_score_adj: EACCES without the privilege.
pub(crate) fn may_set_oom_score_adj(score: i16) -> io::Result<()> {
    let own = std::fs::read_to_string("/proc/self/oom_score_adj")?;
    let own = own.trim();
    if own.parse::<i16>().is_ok_and(|own| score >= own) {
        return Ok(());
    }
    write_oom_score_adj(&score.to_string())?;
    Ok(write_oom_score_adj(own)?)
}

/// Whether children of this process may have these limits of open descriptors: beyond the hard limit it takes
/// CAP_SYS_RESOURCE, and beyond fs.nr_open nothing helps. It is tried.
///
/// # Errors
/// Those of setrlimit(2): EPERM.
pub(crate) fn may_limit_open_files(limits: Rlimit) -> io::Result<()> {
    let own = rustix::process::getrlimit(Resource::Nofile);
    let is_within = |own| limits.maximum.is_some_and(|wanted| wanted <= own);
    if own.maximum.is_none_or(is_within) {
        return Ok(());
    }
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: own.current, maximum: limits.maximum })?;
    Ok(rustix::process::setrlimit(Resource::Nofile, own)?)
}

/// The CPUs that this process may run on, as their numbers (sched_getaffinity(2)).
///
/// # Errors
/// Those of sched_getaffinity(2): EINVAL on a machine of more than 1024 CPUs.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    let allowed = rustix::thread::sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect())
}

/// An input that has ended: /dev/null, or where there is no /dev, a pipe that nobody writes to.
///
/// # Errors
/// Those of pipe(2).
pub(crate) fn ended_input() -> io::Result<Stdio> {
    match has_null() {
        true => Ok(Stdio::null()),
        false => io::pipe().map(|(reader, _)| reader.into()),
    }
}

/// A copy of this process, which has one thread: its number, and `None` in the copy.
///
/// # Errors
/// Those of fork(2); there is another thread, or no /proc to tell.
pub(crate) fn fork_alone() -> io::Result<Option<Pid>> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("this process has several threads"));
    }
    // SAFETY: no other thread can hold a lock that the copy would wait for in vain: there is none, as was just seen, and the
    // only one is here.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// What a forked process does that is to have nothing of its parent: it has a process group of its own, `input` as its standard
/// input, no output that anybody reads, and the root folder. The parent has no other descriptors.
///
/// # Errors
/// Those of dup2(2), chdir(2) and opening /dev/null.
pub(crate) fn become_detached_child(input: OwnedFd) -> io::Result<()> {
    rustix::process::setpgid(None, None)?;
    rustix::stdio::dup2_stdin(&input)?;
    rustix::process::chdir("/")?;
    let null = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    Ok(rustix::stdio::dup2_stderr(&null)?)
}

/// An output that nobody reads: /dev/null, or where there is no /dev, a pipe without a reader, to which writing is an error.
///
/// # Errors
/// Those of pipe(2).
pub(crate) fn unread_output() -> io::Result<Stdio> {
    match has_null() {
        true => Ok(Stdio::null()),
        false => io::pipe().map(|(_, writer)| writer.into()),
    }
}

fn has_null() -> bool {
    rustix::fs::access(c"/dev/null", Access::READ_OK | Access::WRITE_OK).is_ok()
}

/// Whether /proc is mounted, which a folder that is made the root (chroot(2)) may lack.
pub(crate) fn has_proc() -> bool {
    std::fs::symlink_metadata(OWN_PROGRAM).is_ok()
}

/// The file of the program that runs in this process. With /proc it is that very file even after another one has taken its
/// name; without, it is what has the name now by which execve(2) was given it.
pub(crate) fn own_program() -> PathBuf {
    match has_proc() {
        true => OWN_PROGRAM.into(),
        false => {
            let name = Path::new(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
            std::path::absolute(name).unwrap_or_else(|_| name.to_owned())
        }
    }
}

/// Whether the process of this number has ended, of any user. Nobody needs to have waited for it.
pub(crate) fn has_ended(number: u32) -> bool {
    let process = i32::try_from(number).ok().and_then(Pid::from_raw);
    match process.map(|process| pidfd_open(process, PidfdFlags::empty())) {
        Some(Ok(process)) => is_over(&process),
        Some(Err(error)) => error == Errno::SRCH,
        None => false,
    }
}

/// Whether all threads of the process have ended (pidfd_open(2)).
pub(crate) fn is_over(process: &OwnedFd) -> bool {
    let mut exited = [PollFd::new(process, PollFlags::IN)];
    !matches!(poll(&mut exited, Some(&Timespec::default())), Ok(0))
}

/// The name of that file, without links; of one that was replaced, the name that it had.
pub(crate) fn path_of_program() -> PathBuf {
    match fs::read_link(OWN_PROGRAM) {
        Ok(path) => {
            let name = path.as_os_str().as_bytes();
            OsStr::from_bytes(name.strip_suffix(DELETED).unwrap_or(name)).into()
        }
        Err(_) => own_program(),
    }
}

/// A link to it (proc_pid_exe(5)).
const OWN_PROGRAM: &str = "/proc/self/exe";

/// What the kernel adds to the path of a file that has no name any more.
const DELETED: &[u8] = b" (deleted)";

/// Whether the file that this process runs is still the one at its path. Package managers put a new file in its place. Where
/// /proc is missing, nobody knows otherwise.
pub(crate) fn runs_what_is_on_disk() -> bool {
    if !has_proc() {
        return true;
    }
    let path = path_of_program();
    // A file's own number: through the link it is that of the file which runs, whatever has its name now.
    let file = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    match (file(Path::new(OWN_PROGRAM)), file(&path)) {
        (Ok(running), Ok(on_disk)) => running == on_disk,
        (Ok(_), Err(_)) => false,
        (Err(_), _) => true,
    }
}

/// Adopts every orphan among the descendants of this process, as PID 1 does (PR_SET_CHILD_SUBREAPER, prctl(2)).
/// They must then be waited for.
///
/// # Errors
/// Those of prctl(2).
pub(crate) fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// Keeps every open descriptor from `first` upwards out of the programs that this process starts. Meant for
/// the very start, for descriptors that were inherited by mistake.
///
/// # Errors
/// Those of close_range(2); on kernels older than 5.11, of reading /proc/self/fd.
pub(crate) fn close_on_exec_above(first: u32) -> io::Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC the call closes nothing and touches no memory; it only sets a flag.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::ENOSYS | libc::EINVAL | libc::EPERM) => close_on_exec_one_by_one(first),
        _ => Err(error),
    }
}

/// A close-on-exec duplicate of the descriptor that has this number: one that was inherited, or any other.
///
/// # Errors
/// Those of fcntl(2) with F_DUPFD_CLOEXEC: EBADF if there is none.
pub(crate) fn duplicate(number: u32) -> io::Result<OwnedFd> {
    let raw = i32::try_from(number).map_err(|_| Errno::BADF)?;
    // SAFETY: the borrow ends with this statement; a number that is not open makes the call fail with EBADF and
    // nothing else, and the duplicate is a new descriptor.
    let fd = unsafe { BorrowedFd::borrow_raw(raw) };
    Ok(rustix::io::fcntl_dupfd_cloexec(fd, 3)?)
}

/// Gives the child of this command the descriptor, under the number that it has here. That number. The command holds the
/// descriptor until it is dropped.
pub(crate) fn inherit(command: &mut Command, fd: OwnedFd) -> u32 {
    let number = fd.as_raw_fd();
    give_descriptor(command, fd, number);
    number.unsigned_abs()
}

/// The name of a file that this process has open, as others and itself can open it once more (proc_pid_fd(5)).
pub(crate) fn path_of(fd: &OwnedFd) -> PathBuf {
    path_of_number(fd.as_raw_fd().unsigned_abs())
}

/// The same for the descriptor that has this number.
pub(crate) fn path_of_number(number: u32) -> PathBuf {
    format!("/proc/self/fd/{number}").into()
}

/// The name of a file that this process has open, as a child can execute it, also after it has closed what is not its own; without
/// /proc there is none.
pub(crate) fn path_for_children(fd: &OwnedFd) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), fd.as_raw_fd()).into()
}

/// A standard input that says nothing and never ends: a pipe opened for both directions, whose reader is its own writer.
///
/// # Errors
/// Those of pipe(2), and of opening it again in /proc.
pub(crate) fn endless_input() -> io::Result<OwnedFd> {
    let (reader, _writer) = io::pipe()?;
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

fn close_on_exec_one_by_one(first: u32) -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let name = entry?.file_name();
        let Some(number) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(raw) = i32::try_from(number) else {
            continue;
        };
        if number >= first {
            // SAFETY: the number was just listed as open, and the borrow ends with this statement; a descriptor
            // closed meanwhile makes the call fail with EBADF and nothing else.
            let fd = unsafe { BorrowedFd::borrow_raw(raw) };
            match rustix::io::fcntl_setfd(fd, FdFlags::CLOEXEC) {
                Ok(()) | Err(Errno::BADF) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write, pipe};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_process_has_ended_before_anybody_has_waited_for_it() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        assert!(!has_ended(child.id()) && !has_ended(1) && !has_ended(0));
        child.kill().unwrap();
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while !has_ended(child.id()) && std::time::Instant::now() < until {
            std::thread::yield_now();
        }
        assert!(has_ended(child.id()));
        child.wait().unwrap();
        assert!(has_ended(child.id()));
    }

    /// What a child reads from the descriptor of this number, which it is given.
    fn read_by_child(number: impl FnOnce(BorrowedFd<'_>) -> i32) -> String {
        let (reader, mut writer) = pipe().expect("a pipe");
        writer.write_all(b"hello\n").expect("there is room");
        drop(writer);
        let number = number(reader.as_fd());
        let mut command = Command::new("cat");
        command.arg(format!("/proc/self/fd/{number}"));
        give_descriptor(&mut command, reader.into(), number);
        String::from_utf8(command.output().expect("it starts").stdout).expect("text")
    }

    #[test]
    fn a_child_finds_a_descriptor_under_the_number_that_it_was_given() {
        assert_eq!(read_by_child(|_| 9), "hello\n");
        assert_eq!(read_by_child(|fd| fd.as_raw_fd()), "hello\n", "it has that number already");
    }

    #[test]
    fn a_descriptor_is_given_only_to_the_child_of_its_command() {
        let (reader, _writer) = pipe().expect("a pipe");
        let mut command = Command::new("true");
        let given = reader.try_clone().expect("a duplicate");
        give_descriptor(&mut command, given.into(), 9);
        let list = Command::new("ls").args(["-l", "/proc/self/fd"]).output().expect("it starts");
        let mut inode = String::new();
        std::fs::File::open(format!("/proc/self/fdinfo/{}", reader.as_raw_fd()))
            .and_then(|mut file| file.read_to_string(&mut inode))
            .expect("/proc");
        let inode =
            inode.lines().find_map(|line| line.strip_prefix("ino:")).expect("an inode").trim().to_owned();
        assert!(!String::from_utf8_lossy(&list.stdout).contains(&format!("pipe:[{inode}]")));
        assert!(command.status().expect("it starts").success());
    }
}
