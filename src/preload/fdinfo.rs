//! The texts of `/proc/PID/fd` and `/proc/PID/fdinfo` (proc(5)), piece by piece: entries of a folder, and lines.
//!
//! Pure: it makes no system call.

use core::ffi::CStr;

use super::proc_fd::Registration;

/// The longest line of interest, with room to spare.
const LINE_LEN: usize = 160;

/// Puts the lines of a file together that is read in pieces.
pub(crate) struct Lines {
    line: [u8; LINE_LEN],
    len: usize,
}

impl Default for Lines {
    fn default() -> Self {
        Self { line: [0; LINE_LEN], len: 0 }
    }
}

impl Lines {
    /// Shows the registrations whose lines end in these bytes.
    pub(crate) fn read(&mut self, bytes: &[u8], mut show: impl FnMut(Registration)) {
        for &byte in bytes {
            if byte == b'\n' {
                if let Some(registration) = self.line.get(..self.len).and_then(Registration::of_line) {
                    show(registration);
                }
                self.len = 0;
            } else {
                // Of a line that is too long nothing is of interest.
                if let Some(to) = self.line.get_mut(self.len) {
                    *to = byte;
                }
                self.len = self.len.saturating_add(1);
            }
        }
    }
}

fn decimal<T: core::str::FromStr>(text: &[u8]) -> Option<T> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// The number that is an entry of `/proc/PID/fd`.
pub(crate) fn descriptor(name: &CStr) -> Option<i32> {
    decimal(name.to_bytes())
}

/// Where a `struct linux_dirent64` has its length, and its name.
const ENTRY_LEN_AT: usize = 16;
const ENTRY_NAME_AT: usize = 19;

/// Shows the names of the entries that getdents64(2) gave.
pub(crate) fn names(mut entries: &[u8], mut show: impl FnMut(&CStr)) {
    while let Some(&[low, high]) =
        entries.get(ENTRY_LEN_AT..ENTRY_LEN_AT + 2).and_then(|len| len.first_chunk())
    {
        let len = usize::from(u16::from_ne_bytes([low, high]));
        let Some(name) = entries.get(ENTRY_NAME_AT..len) else {
            return;
        };
        if let Ok(name) = CStr::from_bytes_until_nul(name) {
            show(name);
        }
        entries = entries.get(len..).unwrap_or_default();
    }
}

/// A descriptor's number as a name.
pub(crate) struct Decimal {
    digits: [u8; Decimal::LEN],
    start: usize,
}

impl Decimal {
    /// Ten digits, and the zero byte that ends them.
    const LEN: usize = 11;

    pub(crate) fn new(number: i32) -> Self {
        let mut decimal = Self { digits: [0; Self::LEN], start: Self::LEN - 1 };
        let mut rest = number.unsigned_abs();
        for (at, digit) in decimal.digits.iter_mut().enumerate().rev().skip(1) {
            *digit = b'0' + (rest % 10) as u8;
            decimal.start = at;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        decimal
    }

    pub(crate) fn text(&self) -> &CStr {
        let digits = self.digits.get(self.start..).unwrap_or_default();
        CStr::from_bytes_until_nul(digits).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8], piece: usize) -> Vec<Registration> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for bytes in text.chunks(piece) {
            lines.read(bytes, |registration| found.push(registration));
        }
        found
    }

    const FDINFO: &[u8] = b"pos:\t0\nflags:\t02000002\nmnt_id:\t15\nino:\t1057\n\
        tfd:        5 events:       19 data: 7ffd00000005  pos:0 ino:2a6f sdev:9\n\
        tfd:       11 events: 80000019 data: ffffffffffffffff  pos:0 ino:1 sdev:9\n\
        tfd:        7 events: 40000000 data:                0\n";

    #[test]
    fn what_an_epoll_instance_watches_is_read_in_pieces_of_any_size() {
        let expected = [
            Registration { target: 5, events: 0x19, data: 0x7ffd_0000_0005, inode: Some(0x2a6f) },
            Registration { target: 11, events: 0x8000_0019, data: u64::MAX, inode: Some(1) },
            Registration { target: 7, events: 0x4000_0000, data: 0, inode: None },
        ];
        for piece in 1..FDINFO.len() {
            assert_eq!(all(FDINFO, piece), expected, "in pieces of {piece} bytes");
        }
    }

    #[test]
    fn other_lines_are_passed_over() {
        let long = [b"tfd: 5 events: 1 data: 1 ".as_slice(), &[b'x'; 2 * LINE_LEN], b"\n"].concat();
        for text in [b"tfd: x events: 1 data: 1\n".as_slice(), b"tfd: 1 data: 1\n", b"\n", b"tfd:\n", &long] {
            assert_eq!(all(text, 64), []);
        }
        let then = [long.as_slice(), b"tfd: 5 events: 1 data: 1\n"].concat();
        assert_eq!(all(&then, 64).len(), 1);
    }

    #[test]
    fn the_names_of_a_folder_are_those_of_its_entries() {
        let entry = |name: &str| {
            let mut entry = vec![0; ENTRY_NAME_AT];
            entry.extend(name.as_bytes());
            entry.resize((entry.len() + 1).next_multiple_of(8), 0);
            let len = u16::try_from(entry.len()).unwrap();
            entry[ENTRY_LEN_AT..ENTRY_LEN_AT + 2].copy_from_slice(&len.to_ne_bytes());
            entry
        };
        let entries = [entry("."), entry(".."), entry("0"), entry("1048575")].concat();
        let mut found = Vec::new();
        names(&entries, |name| found.push(descriptor(name)));
        assert_eq!(found, [None, None, Some(0), Some(1_048_575)]);
    }

    proptest! {
        #[test]
        fn a_number_is_written_as_it_is_read(number in 0..=i32::MAX) {
            let text = Decimal::new(number);
            prop_assert_eq!(text.text().to_str().unwrap(), number.to_string());
            prop_assert_eq!(descriptor(text.text()), Some(number));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>, piece in 1_usize..64) {
            names(&bytes, |_| {});
            all(&bytes, piece);
        }
    }
}
