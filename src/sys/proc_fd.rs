//! What `/proc/PID/fd` and `/proc/PID/fdinfo` tell of descriptors (proc(5)): which socket one is, and what an epoll instance
//! watches.
//!
//! Pure: it only reads their texts. It needs nothing but `core`, since the shim includes this very file.

/// A descriptor that an epoll instance watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    /// The number under which it was added.
    pub(crate) target: i32,
    /// As in `struct epoll_event`.
    pub(crate) events: u32,
    /// As in `struct epoll_event`.
    pub(crate) data: u64,
    /// The inode of what is watched; kernels before 4.13 do not tell.
    pub(crate) inode: Option<u64>,
}

impl Registration {
    /// Reads `tfd: 5 events: 19 data: 7f00 pos:0 ino:2a sdev:9`, where all numbers but the first and `pos` are
    /// hexadecimal; `None` for any other line.
    pub(crate) fn of_line(line: &[u8]) -> Option<Self> {
        let is_between = |byte: &u8| *byte == b':' || byte.is_ascii_whitespace();
        let words = line.split(is_between).filter(|word| !word.is_empty());
        let mut words = words.map(|word| core::str::from_utf8(word).ok());
        let mut value = |name| (words.next()? == Some(name)).then(|| words.next().flatten())?;
        let target = value("tfd")?.parse().ok()?;
        let events = u32::from_str_radix(value("events")?, 16).ok()?;
        let data = hexadecimal(value("data")?)?;
        let inode = value("pos").and_then(|_| value("ino")).and_then(hexadecimal);
        Some(Self { target, events, data, inode })
    }
}

/// The number in `socket:[N]`, to which a socket's descriptor links.
pub(crate) fn inode_of_socket(link: &[u8]) -> Option<u64> {
    let number = link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?;
    core::str::from_utf8(number).ok()?.parse().ok()
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_known_by_its_inode() {
        assert_eq!(inode_of_socket(b"socket:[12345]"), Some(12345));
        for other in [b"pipe:[12345]".as_slice(), b"socket:[]", b"socket:[1", b"/tmp/socket:[1]", b""] {
            assert_eq!(inode_of_socket(other), None);
        }
    }

    #[test]
    fn lines_about_other_things_are_passed_over() {
        let read = |line: &str| Registration::of_line(line.as_bytes());
        let line = "tfd:       11 events: 80000019 data: ffffffffffffffff  pos:0 ino:2a6f sdev:9";
        let registration =
            Registration { target: 11, events: 0x8000_0019, data: u64::MAX, inode: Some(0x2a6f) };
        assert_eq!(read(line), Some(registration));
        let old = "tfd:        7 events: 40000000 data:                0";
        assert_eq!(read(old), Some(Registration { target: 7, events: 0x4000_0000, data: 0, inode: None }));
        for other in ["pos:\t0", "flags:\t02000002", "tfd: x events: 1 data: 1", "tfd: 1", "tfd:", ""] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(Registration::of_line(b"tfd: 5 events: 1 data: \xff"), None);
    }
}
