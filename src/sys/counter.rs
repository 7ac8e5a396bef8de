//! Programs of extended BPF (bpf(2)) that choose among listening sockets, and count: unlike those of classic BPF, they keep a
//! number from one connection to the next.
//!
//! It decides nothing: what a program says is up to its caller.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::reuseport;

/// One instruction (`struct bpf_insn`, linux/bpf.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Instruction {
    /// What to do.
    pub code: u8,
    /// The registers, as [`registers`] writes them.
    pub registers: u8,
    /// How many instructions to skip, or where in memory.
    pub offset: i16,
    /// A number.
    pub immediate: i32,
}

/// Loads the address of the counter: a number of 64 bits (`BPF_LD | BPF_DW | BPF_IMM`), of which the second half is in the
/// instruction after it. The source is [`COUNTER`].
pub(crate) const LOAD_COUNTER: u8 = 0x18;

/// A value in a map, instead of a register (`BPF_PSEUDO_MAP_VALUE`, linux/bpf.h).
pub(crate) const COUNTER: u8 = 2;

/// A destination and a source, which are bit fields of four bits each.
pub(crate) const fn registers(to: u8, from: u8) -> u8 {
    if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from }
}

/// A number of 64 bits, kept by the kernel (`BPF_MAP_TYPE_ARRAY`, bpf(2)).
#[derive(Debug)]
pub(crate) struct Counter(OwnedFd);

const MAP_CREATE: libc::c_int = 0;
const PROG_LOAD: libc::c_int = 5;
const ARRAY: u32 = 2;
const SOCKET_FILTER: u32 = 1;

/// What bpf(2) takes to make a map. What is not given is 0.
#[repr(C)]
struct NewMap {
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

/// What bpf(2) takes to load a program; later kernels take more.
#[repr(C)]
struct NewProgram {
    kind: u32,
    len: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

impl Counter {
    /// A new one, at 0. It is not tried where a filter watches the system calls of this process: many kill who makes one that
    /// they do not know (systemd's `SystemCallFilter=`).
    ///
    /// # Errors
    /// Those of bpf(2): `EPERM` without CAP_BPF, as a rule; `Unsupported` under a filter.
    pub(crate) fn new() -> io::Result<Self> {
        if is_filtered()? {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let mut map = NewMap { kind: ARRAY, key_size: 4, value_size: 8, max_entries: 1 };
        // SAFETY: `map` begins as the kernel's `union bpf_attr` does for BPF_MAP_CREATE, and holds no pointer.
        unsafe { bpf(MAP_CREATE, &mut map) }.map(Self)
    }

    /// Has a program choose among the listening sockets of this one's group, as
    /// [`attach_program`](reuseport::attach_program) does, with this counter.
    ///
    /// # Errors
    /// Those of bpf(2) and setsockopt(2): `EINVAL` for a socket in no group, or a program that the kernel does not accept.
    pub(crate) fn attach(&self, listener: impl AsFd, program: &[Instruction]) -> io::Result<()> {
        reuseport::attach_loaded(listener, self.load(program)?.as_fd())
    }

    fn load(&self, program: &[Instruction]) -> io::Result<OwnedFd> {
        let program = naming(self.0.as_fd(), program);
        let mut new = NewProgram {
            kind: SOCKET_FILTER,
            len: u32::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            instructions: program.as_ptr() as u64,
            // It calls nothing of the kernel's that asks for one.
            license: c"".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log: 0,
            kernel_version: 0,
            flags: 0,
        };
        // SAFETY: `new` begins as the kernel's `union bpf_attr` does for BPF_PROG_LOAD. It points to a live slice of `len`
        // instructions and to a string that ends with 0, which the kernel reads; there is no log to write to.
        unsafe { bpf(PROG_LOAD, &mut new) }
    }
}

/// The same program, with the counter's descriptor where it names the counter.
fn naming(counter: BorrowedFd<'_>, program: &[Instruction]) -> Vec<Instruction> {
    let named = |&instruction: &Instruction| match instruction.code {
        LOAD_COUNTER => Instruction { immediate: counter.as_raw_fd(), ..instruction },
        _ => instruction,
    };
    program.iter().map(named).collect()
}

fn is_filtered() -> io::Result<bool> {
    let status = procfs::process::Process::myself().and_then(|own| own.status()).map_err(io::Error::other)?;
    Ok(status.seccomp != Some(0))
}

/// Makes what `attributes` say. The descriptor is closed by execve(2).
///
/// # Safety
/// `T` begins as `union bpf_attr` does for this command, and its pointers hold what the kernel reads and writes there.
unsafe fn bpf<T>(command: libc::c_int, attributes: &mut T) -> io::Result<OwnedFd> {
    let attributes: *mut T = attributes;
    // SAFETY: the kernel reads as many bytes as are there. What else it takes, the caller promises.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<T>()) };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_kernel_refuses_a_program_that_does_not_end() {
        let Ok(counter) = Counter::new() else { return eprintln!("skipped: bpf(2) is not for us") };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let set = Instruction { code: 0xb7, registers: registers(0, 0), offset: 0, immediate: 1 };
        assert_eq!(counter.attach(&listener, &[set]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn a_socket_in_no_group_takes_no_program_that_counts() {
        let Ok(counter) = Counter::new() else { return eprintln!("skipped: bpf(2) is not for us") };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let end = [(0xb7, 1), (0x95, 0)].map(|(code, immediate)| Instruction {
            code,
            registers: 0,
            offset: 0,
            immediate,
        });
        assert_eq!(counter.attach(&listener, &end).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    }
}
