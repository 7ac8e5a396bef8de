//! Memory and descriptors of another process, which stands still in a call or may end at any time.
//!
//! All of it needs the access that ptrace(2) calls PTRACE_MODE_ATTACH: the same user, or CAP_SYS_PTRACE. Reading may take as
//! long as the other process likes, whose memory may be backed by itself (userfaultfd(2)): call it where that holds
//! up nobody. Seccomp profiles of containers may keep the calls for it from who has that access; what /proc tells does then.

use std::fs::{DirEntry, File};
use std::io::{self, BufRead, BufReader, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use procfs::ProcError;
use procfs::process::LimitValue;
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags};
use rustix::thread::UnshareFlags;
use socket2::{Domain, SockRef, Type};

use super::acting::with_rights_of;
use super::kin;
use super::proc_fd::Registration;
use super::process::has_proc;

/// pidfd_open(2) of a thread rather than of the process that it leads (Linux 6.9 and later).
const PIDFD_THREAD: PidfdFlags = PidfdFlags::from_bits_retain(libc::O_EXCL.cast_unsigned());

/// A process, by one of its threads.
#[derive(Debug)]
pub(crate) struct Remote {
    thread: Pid,
    /// Of the thread, where the kernel can do that: the first one may have ended, or have descriptors of its own.
    pidfd: OwnedFd,
    /// Its effective user, where /proc is mounted.
    pub(crate) uid: Option<u32>,
}

/// What is known of a TCP socket of another process.
#[derive(Debug)]
pub(crate) struct RemoteSocket {
    /// A duplicate of it, or a likeness; close-on-exec here.
    pub(crate) socket: OwnedFd,
    /// Where no duplicate can be had: `socket` is another one, of the same family and mode, on which nothing was set but
    /// SO_REUSEPORT.
    pub(crate) is_likeness: bool,
    /// Its inode.
    pub(crate) inode: u64,
}

/// That an epoll instance of another process watches one of its descriptors (epoll(7)).
#[derive(Debug)]
pub(crate) struct Watch {
    /// The instance.
    epoll: OwnedFd,
    /// The descriptor's number there.
    target: i32,
    events: EventFlags,
    data: u64,
}

impl Remote {
    /// The process of this thread.
    ///
    /// # Errors
    /// Those of pidfd_open(2), and of /proc: it is gone. Without /proc, EINVAL before Linux 6.9 of a thread that is not the first.
    pub(crate) fn of_thread(thread: Pid) -> io::Result<Self> {
        let status =
            || procfs::process::Process::new(thread.as_raw_pid()).and_then(|process| process.status());
        let status = has_proc().then(status).transpose().map_err(of_proc)?;
        let pidfd = match rustix::process::pidfd_open(thread, PIDFD_THREAD) {
            Err(Errno::INVAL) => {
                let leader = status.as_ref().map_or(Some(thread), |status| Pid::from_raw(status.tgid));
                rustix::process::pidfd_open(leader.ok_or(Errno::SRCH)?, PidfdFlags::empty())?
            }
            other => other?,
        };
        Ok(Self { thread, pidfd, uid: status.map(|status| status.euid) })
    }

    /// Copies its memory from this address on, as far as it may read that itself. Fewer bytes are an error.
    ///
    /// # Errors
    /// EPERM without the access, EFAULT where there is no memory.
    pub(crate) fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        let base = usize::try_from(address).map_err(|_| Errno::FAULT)?;
        let (there, len) = (RemoteIoVec { base, len: buffer.len() }, buffer.len());
        let thread = nix::unistd::Pid::from_raw(self.thread.as_raw_pid());
        match process_vm_readv(thread, &mut [IoSliceMut::new(buffer)], &[there]).map_err(io::Error::from) {
            Ok(read) if read == len => Ok(()),
            Ok(_) => Err(Errno::FAULT.into()),
            // Of containerd's profile, which permits it with CAP_SYS_PTRACE alone.
            Err(error) if is_forbidden(&error) => {
                let memory = File::open(self.path("mem")).map_err(|_| error)?;
                memory.read_exact_at(buffer, address).map_err(|_| Errno::FAULT.into())
            }
            Err(error) => Err(error),
        }
    }

    /// The TCP socket of this number; `None` if it is something else.
    ///
    /// # Errors
    /// EBADF; EPERM without the access.
    pub(crate) fn socket(&self, number: i32) -> io::Result<Option<RemoteSocket>> {
        let socket = match self.duplicate(number) {
            Ok(socket) => socket,
            // Of Docker's profile, which permits pidfd_getfd(2) with CAP_SYS_PTRACE alone.
            Err(error) if is_forbidden(&error) => {
                return self.likeness(number).map_err(|seen| match seen.kind() {
                    io::ErrorKind::NotFound => Errno::BADF.into(),
                    _ => error,
                });
            }
            Err(error) => return Err(error),
        };
        let inode = rustix::fs::fstat(&socket)?.st_ino;
        Ok(is_tcp(&socket).then_some(RemoteSocket { socket, is_likeness: false, inode }))
    }

    /// What /proc tells of a socket.
    fn likeness(&self, number: i32) -> io::Result<Option<RemoteSocket>> {
        let path = self.path(&format!("fd/{number}"));
        let link = self.look(|| std::fs::read_link(&path))?;
        let inode =
            link.to_str().and_then(|link| link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        let Some(inode) = inode else { return Ok(None) };
        let mut protocol = [0; 32];
        let len = rustix::fs::getxattr(&path, "system.sockprotoname", &mut protocol)?;
        let family = match protocol.get(..len) {
            Some(b"TCP\0") => AddressFamily::INET,
            Some(b"TCPv6\0") => AddressFamily::INET6,
            _ => return Ok(None),
        };
        let is_nonblocking = self.flags(number)? & libc::O_NONBLOCK != 0;
        let mode = if is_nonblocking { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
        let socket = rustix::net::socket_with(family, SocketType::STREAM, mode | SocketFlags::CLOEXEC, None)?;
        // Who binds a port twice more often wants it than not.
        rustix::net::sockopt::set_socket_reuseport(&socket, true)?;
        Ok(Some(RemoteSocket { socket, is_likeness: true, inode }))
    }

    /// Whether its descriptor of this number is close-on-exec: without /proc it is taken to be so, as listeners of nearly all
    /// servers are.
    ///
    /// # Errors
    /// Those of /proc: there is no such descriptor.
    pub(crate) fn closes_on_exec(&self, number: i32) -> io::Result<bool> {
        Ok(!has_proc() || self.flags(number)? & libc::O_CLOEXEC != 0)
    }

    /// The flags of an open file and of its descriptor (proc(5), fdinfo).
    fn flags(&self, number: i32) -> io::Result<i32> {
        let flags = self.lines(number)?.find_map(|line| {
            let flags = line.strip_prefix("flags:")?.trim().to_owned();
            i32::from_str_radix(&flags, 8).ok()
        });
        flags.ok_or_else(|| Errno::BADF.into())
    }

    /// The numbers of all its descriptors that are this socket, one of which is known. Without /proc no other is found.
    ///
    /// # Errors
    /// Those of /proc: the process is gone, or may not be looked into.
    pub(crate) fn numbers_of(&self, inode: u64, known: i32) -> io::Result<Vec<i32>> {
        if !has_proc() {
            return Ok(vec![known]);
        }
        self.numbers_with(&format!("socket:[{inode}]"))
    }

    /// What watches the descriptor of this number, which has this inode. Without /proc nothing is found.
    ///
    /// # Errors
    /// Those of /proc: the process is gone.
    pub(crate) fn watches(&self, number: i32, inode: u64) -> io::Result<Vec<Watch>> {
        let mut watches = Vec::new();
        if !has_proc() {
            return Ok(watches);
        }
        for epoll in self.numbers_with("anon_inode:[eventpoll]")? {
            // It may have been closed.
            let Ok(lines) = self.lines(epoll) else { continue };
            let of_it = lines
                .filter_map(|line| Registration::of_line(line.as_bytes()))
                .filter(|seen| seen.target == number && seen.inode.is_none_or(|watched| watched == inode));
            for Registration { events, data, .. } in of_it {
                let (epoll, events) = (self.duplicate(epoll)?, EventFlags::from_bits_retain(events));
                watches.push(Watch { epoll, target: number, events, data });
            }
        }
        Ok(watches)
    }

    fn numbers_with(&self, link: &str) -> io::Result<Vec<i32>> {
        self.look(|| self.numbers_seen(link))
    }

    fn numbers_seen(&self, link: &str) -> io::Result<Vec<i32>> {
        let is_it =
            |entry: &DirEntry| std::fs::read_link(entry.path()).is_ok_and(|seen| seen.as_os_str() == link);
        let entries = std::fs::read_dir(self.path("fd"))?.filter_map(Result::ok).filter(is_it);
        Ok(entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    fn duplicate(&self, number: i32) -> io::Result<OwnedFd> {
        // rustix takes what cannot be a descriptor for a mistake of its caller, and panics.
        let number: ForeignRawFd = u32::try_from(number).map_err(|_| Errno::BADF)?.cast_signed();
        Ok(rustix::process::pidfd_getfd(&self.pidfd, number, PidfdGetfdFlags::empty())?)
    }

    fn lines(&self, descriptor: i32) -> io::Result<impl Iterator<Item = String>> {
        let path = self.path(&format!("fdinfo/{descriptor}"));
        let file = self.look(|| File::open(&path))?;
        Ok(BufReader::new(file).lines().map_while(Result::ok))
    }

    /// Looks at what /proc has of it. CAP_SYS_PTRACE is not enough for folders that are its user's alone: where they are closed,
    /// that user's own rights open them, if this process may have those.
    fn look<T>(&self, look: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let error = match look() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
            seen => return seen,
        };
        match kin::user_of(self.thread.as_raw_pid())? {
            Some(user) => with_rights_of(&user, look).unwrap_or(Err(error)),
            None => Err(error),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.thread.as_raw_pid()))
    }
}

/// How many descriptors this process may have (RLIMIT_NOFILE, getrlimit(2)); `None` if it is gone, or there is no /proc.
pub(crate) fn open_files_limit(thread: Pid) -> Option<u64> {
    let limits =
        procfs::process::Process::new(thread.as_raw_pid()).and_then(|process| process.limits()).ok()?;
    match limits.max_open_files.soft_limit {
        LimitValue::Value(limit) => Some(limit),
        LimitValue::Unlimited => None,
    }
}

fn of_proc(error: ProcError) -> io::Error {
    match error {
        ProcError::Io(error, _) => error,
        other => io::Error::other(other),
    }
}

/// Whether a call is denied, or not known where it is told so instead.
fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS))
}

fn is_tcp(socket: &OwnedFd) -> bool {
    let socket = SockRef::from(socket);
    let is_internet = socket.domain().is_ok_and(|domain| matches!(domain, Domain::IPV4 | Domain::IPV6));
    is_internet && socket.r#type().is_ok_and(|kind| kind == Type::STREAM)
}

/// Has these instances watch `file` as they watched what it takes the place of, under the number that it has there.
///
/// An instance knows what it watches by file and number, and the number counts in the table of descriptors of the
/// thread that asks: so one asks that has a table of its own. Until it ends, which is at once, it holds copies of
/// this process's descriptors.
///
/// # Errors
/// Those of unshare(2), dup(2) and epoll_ctl(2).
pub(crate) fn watch_again(watches: &[Watch], file: BorrowedFd<'_>) -> io::Result<()> {
    let Some(Watch { target, .. }) = watches.first() else { return Ok(()) };
    std::thread::scope(|scope| {
        let asked = std::thread::Builder::new().spawn_scoped(scope, || add_all(watches, file, *target))?;
        asked.join().unwrap_or(Err(Errno::IO)).map_err(Into::into)
    })
}

/// Runs on a thread that ends with it.
fn add_all(watches: &[Watch], file: BorrowedFd<'_>, number: i32) -> rustix::io::Result<()> {
    // SAFETY: this thread is the only one to use the new table, until it ends: it makes descriptors in it, uses and closes them.
    // What it was given stays borrowed, and is closed by its owner in the table of the process.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::FILES)? };
    // Out of the way of the number.
    let above = number.saturating_add(1);
    let epolls = watches.iter().map(|watch| rustix::io::fcntl_dupfd_cloexec(&watch.epoll, above));
    let epolls = epolls.collect::<rustix::io::Result<Vec<_>>>()?;
    let file = rustix::io::fcntl_dupfd_cloexec(file, above)?;
    // SAFETY: whatever has this number in this table is owned by nobody here, and is used by nobody here from now on.
    let there = unsafe { libc::dup2(file.as_raw_fd(), number) };
    if there != number {
        return Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    // SAFETY: it is open, for as long as this table is.
    let there = unsafe { BorrowedFd::borrow_raw(there) };
    for (watch, epoll) in watches.iter().zip(&epolls) {
        match epoll::add(epoll, there, EventData::new_u64(watch.data), watch.events) {
            // Its server was faster.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use super::*;

    fn me() -> Remote {
        Remote::of_thread(rustix::thread::gettid()).expect("it is this very thread")
    }

    #[test]
    fn memory_is_read_where_it_is_and_nowhere_else() {
        let there = *b"what stands here";
        let mut here = [0; 16];
        me().read(there.as_ptr() as u64, &mut here).expect("of this process");
        assert_eq!(here, there);
        assert_eq!(me().read(8, &mut here).expect_err("nothing is there").raw_os_error(), Some(libc::EFAULT));
        me().read(8, &mut []).expect("nothing was asked for");
    }

    #[test]
    fn a_descriptor_is_known_with_its_flag() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let closes = || me().closes_on_exec(socket.as_raw_fd()).expect("it is open");
        assert!(closes());
        rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::empty()).expect("it is open");
        assert!(!closes());
        for none in [i32::MAX, -1, i32::MIN, libc::AT_FDCWD] {
            assert_eq!(me().socket(none).expect_err("none").raw_os_error(), Some(libc::EBADF), "{none}");
        }
    }

    #[test]
    fn the_likeness_of_a_socket_is_of_its_family_and_mode() {
        for (address, domain) in [("127.0.0.1:0", Domain::IPV4), ("[::1]:0", Domain::IPV6)] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            for mode in [true, false] {
                listener.set_nonblocking(mode).expect("it is open");
                let own = me().socket(listener.as_raw_fd()).expect("/proc").expect("TCP");
                let like = me().likeness(listener.as_raw_fd()).expect("/proc").expect("TCP");
                assert_eq!((own.is_likeness, like.is_likeness), (false, true));
                assert_eq!(own.inode, like.inode);
                assert_eq!(SockRef::from(&like.socket).domain().expect("a socket"), domain);
                let flags = rustix::fs::fcntl_getfl(&like.socket).expect("it is open");
                assert_eq!(flags.contains(rustix::fs::OFlags::NONBLOCK), mode);
            }
        }
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        let file = File::open("/dev/null").expect("it is there");
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        for number in [one.as_raw_fd(), udp.as_raw_fd(), file.as_raw_fd()] {
            assert!(me().likeness(number).expect("/proc").is_none());
        }
        assert!(me().likeness(i32::MAX).is_err());
    }

    #[test]
    fn what_watched_a_socket_watches_what_takes_its_place() {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        let old =
            rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None)
                .expect("a socket");
        let number = old.as_raw_fd();
        epoll::add(&epoll, &old, EventData::new_u64(77), EventFlags::IN | EventFlags::ET).expect("added");
        let inode = rustix::fs::fstat(&old).expect("open").st_ino;
        let watches = me().watches(number, inode).expect("/proc");
        assert_eq!(watches.len(), 1);
        assert!(me().watches(number, inode + 1).expect("/proc").is_empty());

        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let mut place = old;
        rustix::io::dup3(&listener, &mut place, rustix::io::DupFlags::CLOEXEC)
            .expect("the number is its own");
        watch_again(&watches, listener.as_fd()).expect("as it was");
        let address = listener.local_addr().expect("bound");
        let _client = TcpStream::connect(address).expect("it listens");
        let mut events = Vec::with_capacity(4);
        let patience = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
        epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&patience)).expect("in time");
        let data: Vec<u64> = events.iter().map(|event| event.data.u64()).collect();
        assert_eq!(data, [77]);
        // It is known by the number that it has in this process: it can be taken away by that.
        epoll::delete(&epoll, &place).expect("it was added under this number");
    }
}
