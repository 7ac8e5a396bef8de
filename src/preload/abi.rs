//! Numbers of the kernel's interface: system calls, errors, flags and options, for each supported processor.
//!
//! Only constants; their tests compare those that the `libc` crate knows with it, which the shim itself cannot use.

/// Numbers of system calls.
#[cfg(target_arch = "x86_64")]
pub(crate) mod number {
    pub(crate) const READ: usize = 0;
    pub(crate) const WRITE: usize = 1;
    pub(crate) const CLOSE: usize = 3;
    pub(crate) const MMAP: usize = 9;
    pub(crate) const RT_SIGACTION: usize = 13;
    pub(crate) const RT_SIGPROCMASK: usize = 14;
    pub(crate) const IOCTL: usize = 16;
    pub(crate) const WRITEV: usize = 20;
    pub(crate) const NANOSLEEP: usize = 35;
    pub(crate) const GETPID: usize = 39;
    pub(crate) const SOCKET: usize = 41;
    pub(crate) const CONNECT: usize = 42;
    pub(crate) const ACCEPT: usize = 43;
    pub(crate) const SENDTO: usize = 44;
    pub(crate) const SENDMSG: usize = 46;
    pub(crate) const RECVMSG: usize = 47;
    pub(crate) const SHUTDOWN: usize = 48;
    pub(crate) const BIND: usize = 49;
    pub(crate) const LISTEN: usize = 50;
    pub(crate) const GETSOCKNAME: usize = 51;
    pub(crate) const GETPEERNAME: usize = 52;
    pub(crate) const SETSOCKOPT: usize = 54;
    pub(crate) const GETSOCKOPT: usize = 55;
    pub(crate) const KILL: usize = 62;
    pub(crate) const FCNTL: usize = 72;
    pub(crate) const GETPGID: usize = 121;
    pub(crate) const GETDENTS64: usize = 217;
    pub(crate) const CLOCK_GETTIME: usize = 228;
    pub(crate) const EPOLL_CTL: usize = 233;
    pub(crate) const OPENAT: usize = 257;
    pub(crate) const READLINKAT: usize = 267;
    pub(crate) const PPOLL: usize = 271;
    pub(crate) const ACCEPT4: usize = 288;
    pub(crate) const DUP3: usize = 292;
    pub(crate) const PRLIMIT64: usize = 302;
}

/// Numbers of system calls.
#[cfg(target_arch = "aarch64")]
pub(crate) mod number {
    pub(crate) const EPOLL_CTL: usize = 21;
    pub(crate) const DUP3: usize = 24;
    pub(crate) const FCNTL: usize = 25;
    pub(crate) const IOCTL: usize = 29;
    pub(crate) const OPENAT: usize = 56;
    pub(crate) const CLOSE: usize = 57;
    pub(crate) const GETDENTS64: usize = 61;
    pub(crate) const READ: usize = 63;
    pub(crate) const WRITE: usize = 64;
    pub(crate) const WRITEV: usize = 66;
    pub(crate) const PPOLL: usize = 73;
    pub(crate) const READLINKAT: usize = 78;
    pub(crate) const NANOSLEEP: usize = 101;
    pub(crate) const CLOCK_GETTIME: usize = 113;
    pub(crate) const KILL: usize = 129;
    pub(crate) const RT_SIGACTION: usize = 134;
    pub(crate) const RT_SIGPROCMASK: usize = 135;
    pub(crate) const GETPGID: usize = 155;
    pub(crate) const GETPID: usize = 172;
    pub(crate) const SOCKET: usize = 198;
    pub(crate) const BIND: usize = 200;
    pub(crate) const LISTEN: usize = 201;
    pub(crate) const ACCEPT: usize = 202;
    pub(crate) const CONNECT: usize = 203;
    pub(crate) const GETSOCKNAME: usize = 204;
    pub(crate) const GETPEERNAME: usize = 205;
    pub(crate) const SENDTO: usize = 206;
    pub(crate) const SETSOCKOPT: usize = 208;
    pub(crate) const GETSOCKOPT: usize = 209;
    pub(crate) const SHUTDOWN: usize = 210;
    pub(crate) const SENDMSG: usize = 211;
    pub(crate) const RECVMSG: usize = 212;
    pub(crate) const MMAP: usize = 222;
    pub(crate) const ACCEPT4: usize = 242;
    pub(crate) const PRLIMIT64: usize = 261;
}

pub(crate) const EPERM: i32 = 1;
pub(crate) const ENOENT: i32 = 2;
pub(crate) const EINTR: i32 = 4;
pub(crate) const EAGAIN: i32 = 11;
pub(crate) const EACCES: i32 = 13;
pub(crate) const EFAULT: i32 = 14;
pub(crate) const EINVAL: i32 = 22;
pub(crate) const EMFILE: i32 = 24;
pub(crate) const EPIPE: i32 = 32;
pub(crate) const EPROTO: i32 = 71;
pub(crate) const ENOPROTOOPT: i32 = 92;
pub(crate) const EOPNOTSUPP: i32 = 95;
pub(crate) const EADDRINUSE: i32 = 98;
pub(crate) const EADDRNOTAVAIL: i32 = 99;
pub(crate) const ECONNABORTED: i32 = 103;
pub(crate) const ECONNRESET: i32 = 104;
pub(crate) const ENOTCONN: i32 = 107;
pub(crate) const ECONNREFUSED: i32 = 111;

pub(crate) const AF_UNIX: u16 = 1;
pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;

pub(crate) const SOCK_STREAM: i32 = 1;
pub(crate) const SOCK_SEQPACKET: i32 = 5;
pub(crate) const SOCK_NONBLOCK: i32 = 0o4000;
pub(crate) const SOCK_CLOEXEC: i32 = 0o2_000_000;

pub(crate) const F_GETFD: i32 = 1;
pub(crate) const F_GETFL: i32 = 3;
pub(crate) const F_SETFL: i32 = 4;
pub(crate) const F_SETSIG: i32 = 10;
pub(crate) const F_GETSIG: i32 = 11;
pub(crate) const F_SETOWN_EX: i32 = 15;
pub(crate) const F_GETOWN_EX: i32 = 16;
pub(crate) const F_DUPFD_CLOEXEC: i32 = 1030;
pub(crate) const FD_CLOEXEC: i32 = 1;
pub(crate) const O_NONBLOCK: i32 = 0o4000;
pub(crate) const O_ASYNC: i32 = 0o20_000;
pub(crate) const O_CLOEXEC: i32 = 0o2_000_000;
#[cfg(target_arch = "x86_64")]
pub(crate) const O_DIRECTORY: i32 = 0o200_000;
#[cfg(target_arch = "aarch64")]
pub(crate) const O_DIRECTORY: i32 = 0o40_000;
pub(crate) const AT_FDCWD: i32 = -100;

pub(crate) const EPOLL_CTL_ADD: i32 = 1;
pub(crate) const EPOLL_CTL_DEL: i32 = 2;
pub(crate) const EPOLLOUT: u32 = 0x4;
pub(crate) const EPOLLWRNORM: u32 = 0x100;
pub(crate) const EPOLLWRBAND: u32 = 0x200;

pub(crate) const RLIMIT_NOFILE: i32 = 7;

pub(crate) const MSG_PEEK: i32 = 0x2;
pub(crate) const MSG_DONTWAIT: i32 = 0x40;
pub(crate) const MSG_EOR: i32 = 0x80;
pub(crate) const MSG_NOSIGNAL: i32 = 0x4000;
pub(crate) const MSG_MORE: i32 = 0x8000;
pub(crate) const MSG_CMSG_CLOEXEC: i32 = 0x4000_0000;
pub(crate) const SCM_RIGHTS: i32 = 1;
pub(crate) const POLLOUT: i16 = 4;
pub(crate) const SHUT_RDWR: i32 = 2;

/// How many bytes were received and are not read: FIONREAD.
pub(crate) const SIOCINQ: usize = 0x541b;
/// How many bytes were written and are not acknowledged: TIOCOUTQ (tcp(7)).
pub(crate) const SIOCOUTQ: usize = 0x5411;

pub(crate) const PROT_READ: i32 = 1;
pub(crate) const MAP_SHARED: i32 = 1;

pub(crate) const SOL_SOCKET: i32 = 1;
pub(crate) const SO_REUSEADDR: i32 = 2;
pub(crate) const SO_TYPE: i32 = 3;
pub(crate) const SO_ERROR: i32 = 4;
pub(crate) const SO_BROADCAST: i32 = 6;
pub(crate) const SO_REUSEPORT: i32 = 15;
pub(crate) const SO_RCVTIMEO: i32 = 20;
pub(crate) const SO_SNDTIMEO: i32 = 21;
pub(crate) const SO_ACCEPTCONN: i32 = 30;
pub(crate) const SO_PROTOCOL: i32 = 38;
pub(crate) const SO_DOMAIN: i32 = 39;
pub(crate) const SO_ATTACH_REUSEPORT_CBPF: i32 = 51;
pub(crate) const SO_ATTACH_REUSEPORT_EBPF: i32 = 52;
pub(crate) const SO_DETACH_REUSEPORT_BPF: i32 = 68;
pub(crate) const SO_COOKIE: i32 = 57;
pub(crate) const SO_RCVTIMEO_NEW: i32 = 66;

pub(crate) const IPPROTO_IP: i32 = 0;
/// Answered with the number of the port (`inet_num`); no header names it yet.
pub(crate) const IP_PROTOCOL: i32 = 52;
pub(crate) const IPPROTO_TCP: i32 = 6;
pub(crate) const TCP_INFO: i32 = 11;
pub(crate) const TCP_REPAIR: i32 = 19;
pub(crate) const TCP_QUEUE_SEQ: i32 = 21;
pub(crate) const TCP_FASTOPEN_CONNECT: i32 = 30;
/// The first byte of a `struct tcp_info`.
pub(crate) const TCP_LISTEN: u8 = 10;
pub(crate) const TCP_ESTABLISHED: u8 = 1;
/// Where fields lie in a `struct tcp_info` (linux/tcp.h): milliseconds since data was sent, and received.
pub(crate) const TCPI_LAST_DATA_SENT: usize = 44;
pub(crate) const TCPI_LAST_DATA_RECV: usize = 52;
/// A `u64`.
pub(crate) const TCPI_BYTES_RECEIVED: usize = 128;
/// How much of it is asked for, in bytes.
pub(crate) const TCP_INFO_LEN: usize = 136;
pub(crate) const IPPROTO_IPV6: i32 = 41;
pub(crate) const IPV6_V6ONLY: i32 = 26;
pub(crate) const IPPROTO_MPTCP: i32 = 262;

pub(crate) const SIGHUP: i32 = 1;
pub(crate) const SIGINT: i32 = 2;
pub(crate) const SIGQUIT: i32 = 3;
pub(crate) const SIGABRT: i32 = 6;
pub(crate) const SIGUSR2: i32 = 12;
pub(crate) const SIGALRM: i32 = 14;
pub(crate) const SIGTERM: i32 = 15;
pub(crate) const SIGWINCH: i32 = 28;
pub(crate) const SIGPWR: i32 = 30;
pub(crate) const SIG_DFL: usize = 0;
pub(crate) const SIG_IGN: usize = 1;
pub(crate) const SIG_SETMASK: i32 = 2;
pub(crate) const SA_RESETHAND: u64 = 0x8000_0000;
pub(crate) const CLOCK_MONOTONIC: i32 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! same_as_libc {
        ($($name:ident),* $(,)?) => {
            $(assert_eq!(i64::from($name), i64::from(libc::$name), stringify!($name));)*
        };
    }

    #[test]
    fn system_call_numbers_are_those_of_this_processor() {
        let pairs = [
            (number::CLOSE, libc::SYS_close),
            (number::WRITE, libc::SYS_write),
            (number::WRITEV, libc::SYS_writev),
            (number::SENDTO, libc::SYS_sendto),
            (number::MMAP, libc::SYS_mmap),
            (number::IOCTL, libc::SYS_ioctl),
            (number::RT_SIGACTION, libc::SYS_rt_sigaction),
            (number::RT_SIGPROCMASK, libc::SYS_rt_sigprocmask),
            (number::NANOSLEEP, libc::SYS_nanosleep),
            (number::GETPID, libc::SYS_getpid),
            (number::SOCKET, libc::SYS_socket),
            (number::CONNECT, libc::SYS_connect),
            (number::ACCEPT, libc::SYS_accept),
            (number::SENDMSG, libc::SYS_sendmsg),
            (number::RECVMSG, libc::SYS_recvmsg),
            (number::SHUTDOWN, libc::SYS_shutdown),
            (number::BIND, libc::SYS_bind),
            (number::LISTEN, libc::SYS_listen),
            (number::GETSOCKNAME, libc::SYS_getsockname),
            (number::GETPEERNAME, libc::SYS_getpeername),
            (number::SETSOCKOPT, libc::SYS_setsockopt),
            (number::GETSOCKOPT, libc::SYS_getsockopt),
            (number::KILL, libc::SYS_kill),
            (number::FCNTL, libc::SYS_fcntl),
            (number::GETPGID, libc::SYS_getpgid),
            (number::CLOCK_GETTIME, libc::SYS_clock_gettime),
            (number::PPOLL, libc::SYS_ppoll),
            (number::ACCEPT4, libc::SYS_accept4),
            (number::DUP3, libc::SYS_dup3),
            (number::READ, libc::SYS_read),
            (number::GETDENTS64, libc::SYS_getdents64),
            (number::EPOLL_CTL, libc::SYS_epoll_ctl),
            (number::OPENAT, libc::SYS_openat),
            (number::READLINKAT, libc::SYS_readlinkat),
            (number::PRLIMIT64, libc::SYS_prlimit64),
        ];
        for (ours, theirs) in pairs {
            assert_eq!(i64::try_from(ours), Ok(theirs));
        }
    }

    #[test]
    fn errors_families_and_flags_are_those_of_libc() {
        same_as_libc!(
            EPERM,
            ENOENT,
            EINTR,
            EAGAIN,
            EACCES,
            EFAULT,
            EINVAL,
            EMFILE,
            EPIPE,
            EPROTO,
            ENOPROTOOPT,
            EOPNOTSUPP,
            EADDRINUSE,
            EADDRNOTAVAIL,
            ECONNABORTED,
            ECONNRESET,
            ENOTCONN,
            ECONNREFUSED,
            AF_UNIX,
            AF_INET,
            AF_INET6,
            SOCK_STREAM,
            SOCK_SEQPACKET,
            SOCK_NONBLOCK,
            SOCK_CLOEXEC,
            F_GETFD,
            F_GETFL,
            F_SETFL,
            F_DUPFD_CLOEXEC,
            FD_CLOEXEC,
            O_NONBLOCK,
            O_ASYNC,
            O_CLOEXEC,
            O_DIRECTORY,
            AT_FDCWD,
            EPOLL_CTL_ADD,
            EPOLL_CTL_DEL,
            EPOLLOUT,
            EPOLLWRNORM,
            EPOLLWRBAND,
            RLIMIT_NOFILE,
            MSG_PEEK,
            MSG_DONTWAIT,
            MSG_EOR,
            MSG_NOSIGNAL,
            MSG_MORE,
            SHUT_RDWR,
            PROT_READ,
            MAP_SHARED,
            MSG_CMSG_CLOEXEC,
            SCM_RIGHTS,
            POLLOUT,
            SIGHUP,
            SIGINT,
            SIGQUIT,
            SIGABRT,
            SIGUSR2,
            SIGALRM,
            SIGTERM,
            SIGWINCH,
            SIGPWR,
            SIG_SETMASK,
            CLOCK_MONOTONIC,
        );
    }

    #[test]
    fn what_tcp_tells_of_a_connection_lies_where_libc_has_it() {
        use core::mem::offset_of;
        assert_eq!(TCPI_LAST_DATA_SENT, offset_of!(libc::tcp_info, tcpi_last_data_sent));
        assert_eq!(TCPI_LAST_DATA_RECV, offset_of!(libc::tcp_info, tcpi_last_data_recv));
        assert_eq!(SIOCINQ as u64, libc::FIONREAD);
        assert_eq!(SIOCOUTQ as u64, libc::TIOCOUTQ);
    }

    #[test]
    fn handlers_are_told_as_in_libc() {
        assert_eq!((SIG_DFL, SIG_IGN), (libc::SIG_DFL, libc::SIG_IGN));
        assert_eq!(SA_RESETHAND, u64::from(libc::SA_RESETHAND.cast_unsigned()));
    }

    #[test]
    fn socket_options_are_those_of_libc() {
        same_as_libc!(
            SOL_SOCKET,
            SO_REUSEADDR,
            SO_TYPE,
            SO_ERROR,
            SO_BROADCAST,
            SO_REUSEPORT,
            SO_RCVTIMEO,
            SO_SNDTIMEO,
            SO_ACCEPTCONN,
            SO_PROTOCOL,
            SO_ATTACH_REUSEPORT_CBPF,
            SO_ATTACH_REUSEPORT_EBPF,
            SO_COOKIE,
            SO_DOMAIN,
            IPPROTO_IP,
            IPPROTO_TCP,
            TCP_INFO,
            TCP_REPAIR,
            TCP_QUEUE_SEQ,
            TCP_FASTOPEN_CONNECT,
            IPPROTO_IPV6,
            IPV6_V6ONLY,
            IPPROTO_MPTCP,
        );
    }
}
