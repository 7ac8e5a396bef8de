//! The signal that interrupts a close(2) that takes long.
//!
//! Which thread gets it, and when, is [`super`]'s.

use std::io;

/// Interrupts a thread. It does nothing by default, and with its handler it does not do more.
pub(super) const INTERRUPT: i32 = libc::SIGURG;

/// Gives it its handler. System calls that it interrupts and that can go on do so.
pub(super) fn handle() -> io::Result<()> {
    extern "C" fn nothing(_: i32) {}
    // SAFETY: all zero is a valid `sigaction`: no flag, and no signal blocked.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(i32) as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler does nothing, and so nothing that a handler may not do.
    let result = unsafe { libc::sigaction(INTERRUPT, &raw const action, std::ptr::null_mut()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets it reach the calling thread, whose mask is inherited.
pub(super) fn allow() {
    // SAFETY: all zero is a valid set; the calls write to it and then read it, and change this thread's mask alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, INTERRUPT);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
    }
}
