//! The signal mask and the dispositions of this process: what it inherited of them, and what it changes.
//!
//! Which signals it listens for, and what they mean, is not known here.

use std::io;
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::os::unix::thread::JoinHandleExt as _;
use std::process::Command;
use std::thread::JoinHandle;

use rustix::process::Signal;

/// What this process was told of signals by whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// SIGHUP was ignored, as nohup(1) does.
    pub ignores_hup: bool,
}

/// Has every signal that is ignored do what it does by default, here and in the programs that are started later: what
/// is ignored is inherited (execve(2)), and some shells, inits and supervisors leave it behind. Only SIGPIPE stays
/// ignored here, as std wants it; std gives children the default. Meant for the very start, before any is listened for.
///
/// Returns what was inherited.
pub(crate) fn reset_ignored() -> Inherited {
    let inherited = Inherited { ignores_hup: is_ignored(Signal::HUP) };
    let others = (1..=libc::SIGRTMAX()).filter(|&number| number != libc::SIGPIPE);
    for number in others.filter(|&number| has_ignored(number)) {
        // SAFETY: SIG_DFL installs no handler, so no code of this process runs on the signal.
        unsafe { libc::signal(number, libc::SIG_DFL) };
    }
    inherited
}

/// Whether this process ignores this signal.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    has_ignored(signal.as_raw())
}

/// The same by its number; not so of those that the C library keeps to itself.
fn has_ignored(number: i32) -> bool {
    let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: a null pointer changes nothing, and if the call succeeds it fills `now`.
    unsafe {
        libc::sigaction(number, std::ptr::null(), now.as_mut_ptr()) == 0
            && now.assume_init().sa_sigaction == libc::SIG_IGN
    }
}

/// Unblocks every signal for the calling thread, and so for the threads and programs that it starts later. Meant for
/// the very start, once they are listened for: what was pending arrives.
///
/// # Errors
/// Those of pthread_sigmask(3).
pub(crate) fn unblock() -> io::Result<()> {
    change_mask(libc::SIG_SETMASK, &set_of(&[]))
}

/// Has these signals wait in the kernel from now on until they are taken one by one, also for another program that this process
/// executes: none is ever in the hands of a handler, with which it would be lost. So do those that arrive at threads that the
/// calling one starts later; of others, what was pending arrives. What is returned is readable while one waits (signalfd(2)).
///
/// # Errors
/// Those of signalfd(2) and pthread_sigmask(3).
pub(crate) fn wait_for(numbers: &[i32]) -> io::Result<OwnedFd> {
    let set = set_of(numbers);
    // SAFETY: the set was filled, and is only read. It returns a new descriptor, or -1.
    let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it is new, and nobody else has it.
    let readable = unsafe { OwnedFd::from_raw_fd(fd) };
    change_mask(libc::SIG_SETMASK, &set).map(|()| readable)
}

/// Who has sent a signal, as far as this process can know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// The process that has started this one, or has adopted it.
    Parent,
    /// Another process, one that cannot be seen from here, or the kernel, as for a key of the terminal.
    Other,
}

/// Takes the one of this number, if it waits, and tells who has sent it: of several, the first (signal(7)).
pub(crate) fn take(number: i32) -> Option<Sender> {
    let (set, now) = (set_of(&[number]), libc::timespec { tv_sec: 0, tv_nsec: 0 });
    let mut known = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: the set and the time were filled, and are only read; `known` has room for what is known of the signal, and a
    // siginfo_t may be all zeros if nothing is written.
    let (taken, known) = unsafe {
        let taken = libc::sigtimedwait(&raw const set, known.as_mut_ptr(), &raw const now);
        (taken, known.assume_init())
    };
    (taken == number).then(|| {
        // Those of processes have a code that is not positive, and with it a sender (sigaction(2)). A parent in another
        // namespace has the number 0, as has everybody else there.
        // SAFETY: it was filled for a signal of a process.
        let sender = (known.si_code <= 0).then(|| unsafe { known.si_pid() });
        let parent = rustix::process::getppid().map(rustix::process::Pid::as_raw_pid);
        if sender.is_some() && sender == parent { Sender::Parent } else { Sender::Other }
    })
}

/// The same before anything listens for them.
///
/// # Errors
/// Those of pthread_sigmask(3).
pub(crate) fn keep_waiting(numbers: &[i32]) -> io::Result<()> {
    change_mask(libc::SIG_SETMASK, &set_of(numbers))
}

/// Has the child of this command start with no signal blocked: it would inherit those that wait here.
pub(crate) fn block_none_in(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `unblock` makes no others, and neither
    // allocates nor locks.
    unsafe { command.pre_exec(unblock) };
}

/// Has the child of this command start with these signals blocked, until it is ready to take them: none ends it before.
pub(crate) fn hold_back(command: &mut Command, signals: &'static [Signal]) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. `block` makes no others, and neither
    // allocates nor locks.
    unsafe { command.pre_exec(|| block(signals)) };
}

/// Blocks these signals, beside those that are, for the calling thread.
fn block(signals: &[Signal]) -> io::Result<()> {
    let mut set = set_of(&[]);
    for signal in signals {
        // SAFETY: the set was filled.
        unsafe { libc::sigaddset(&raw mut set, signal.as_raw()) };
    }
    change_mask(libc::SIG_BLOCK, &set)
}

/// The set of the signals with these numbers.
fn set_of(numbers: &[i32]) -> libc::sigset_t {
    let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset(3) fills the whole set, and cannot fail; sigaddset(3) then changes it.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for &number in numbers {
            libc::sigaddset(set.as_mut_ptr(), number);
        }
        set.assume_init()
    }
}

/// Changes the mask of the calling thread. It neither allocates nor locks.
fn change_mask(how: i32, set: &libc::sigset_t) -> io::Result<()> {
    // SAFETY: the set is only read; a null pointer is no place for the old mask.
    match unsafe { libc::pthread_sigmask(how, set, std::ptr::null_mut()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

/// All signals, blocked for the calling thread until this is dropped. Those that come meanwhile wait, also for another program
/// that this process executes.
#[derive(Debug)]
pub(crate) struct Blocked(libc::sigset_t);

impl Blocked {
    /// Blocks them.
    ///
    /// # Errors
    /// Those of pthread_sigmask(3).
    pub(crate) fn all() -> io::Result<Self> {
        let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset(3) fills the set that pthread_sigmask(3) then reads, and if that succeeds it fills the other.
        unsafe {
            libc::sigfillset(all.as_mut_ptr());
            match libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) {
                0 => Ok(Self(before.assume_init())),
                error => Err(io::Error::from_raw_os_error(error)),
            }
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set was filled, and is only read; a null pointer is no place for the old one.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Ignores these signals from now on, also in programs that are started later.
///
/// # Errors
/// Those of sigaction(2): SIGKILL and SIGSTOP cannot be ignored.
pub(crate) fn ignore(signals: &[Signal]) -> io::Result<()> {
    for signal in signals {
        // SAFETY: SIG_IGN installs no handler, so no code of this process runs on the signal.
        if unsafe { libc::signal(signal.as_raw(), libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Lets the calling thread write to a terminal whatever process group that belongs to, even where others are stopped
/// for it (`stty tostop`): where SIGTTOU is blocked the kernel does not send it (termios(3)).
///
/// # Errors
/// Those of pthread_sigmask(3).
pub(crate) fn write_to_any_terminal() -> io::Result<()> {
    block(&[Signal::TTOU])
}

/// The first that is nobody's. With SIGURG, [`closer`](super::closer) interrupts what is to go on by itself.
fn interruption() -> libc::c_int {
    libc::SIGRTMIN()
}

/// Has [`interrupt`] work for the calling thread from now on, whatever its mask was.
///
/// # Errors
/// Those of sigaction(2) and pthread_sigmask(3).
pub(crate) fn allow_interrupts() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    // SAFETY: zeroes are a valid sigaction: no flags, so that what is interrupted is not begun again, and an empty mask. The
    // handler does nothing, and a null pointer is no place for the old one.
    let outcome = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as libc::sighandler_t;
        libc::sigaction(interruption(), &raw const action, std::ptr::null_mut())
    };
    if outcome != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroes are a valid set, which sigemptyset(3) and sigaddset(3) fill; a null pointer is no place for the old mask.
    // Only the calling thread's mask changes, and the signal has its handler.
    let error = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, interruption());
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut())
    };
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// Has a system call in which this thread waits return, if it allows that ([`allow_interrupts`]): with what it has done until then or with EINTR. If the thread is about
/// to make it, it is not known; and in one that waits for a disk nothing changes.
pub(crate) fn interrupt<T>(thread: &JoinHandle<T>) {
    // SAFETY: the handle is neither joined nor dropped, so the thread's name is valid, even if it has ended.
    let _ = unsafe { libc::pthread_kill(thread.as_pthread_t() as libc::pthread_t, interruption()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_waits_is_interrupted() {
        use std::io::Write as _;
        let (_reader, mut writer) = io::pipe().unwrap();
        let (ready, is_ready) = std::sync::mpsc::channel();
        let writing = std::thread::spawn(move || {
            // The mask is inherited.
            // SAFETY: the set is filled before it is read, and only the mask of this thread changes.
            unsafe {
                let mut all = std::mem::zeroed();
                libc::sigfillset(&raw mut all);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, std::ptr::null_mut());
            }
            allow_interrupts().unwrap();
            ready.send(()).unwrap();
            let first = writer.write(&vec![0; 1 << 20]);
            (first.ok(), writer.write(&[0]).unwrap_err().kind())
        });
        is_ready.recv().unwrap();
        while !writing.is_finished() {
            interrupt(&writing);
            std::thread::yield_now();
        }
        interrupt(&writing);
        let (first, second) = writing.join().unwrap();
        assert_eq!(second, io::ErrorKind::Interrupted);
        assert!(first.is_none_or(|written| written < 1 << 20));
    }

    #[test]
    fn what_is_ignored_is_seen() {
        // Nobody else in the tests has to do with it.
        ignore(&[Signal::POWER]).unwrap_or_else(|error| panic!("{error}"));
        assert!(is_ignored(Signal::POWER));
        assert!(!is_ignored(Signal::SEGV));
        assert!(!has_ignored(0) && !has_ignored(1 << 20), "no signal at all");
    }
    #[test]
    fn signals_wait_until_they_are_taken_and_one_by_one() {
        let tried = std::thread::spawn(|| {
            let [first, second] = [libc::SIGRTMIN() + 5, libc::SIGRTMIN() + 6];
            let readable = wait_for(&[first, second]).unwrap();
            assert_eq!(take(first), None);
            // SAFETY: it is sent to this thread alone, which has blocked it.
            unsafe { libc::pthread_kill(libc::pthread_self(), second) };
            let mut polled = [rustix::event::PollFd::new(&readable, rustix::event::PollFlags::IN)];
            assert_eq!(rustix::event::poll(&mut polled, None).unwrap(), 1);
            assert_eq!([first, second, second].map(take), [None, Some(Sender::Other), None]);
            unblock()
        });
        tried.join().unwrap().unwrap();
    }
}
