//! In little, what a static binary would have of glibc for hardly a line of glibc's own.

use std::ffi::{CStr, c_char, c_int};

/// sscanf(3) for the one who calls it: pthread_getattr_np(3), which looks for the first thread's stack in /proc/self/maps and reads the
/// two addresses that a line begins with. glibc's own, with all that it needs to read numbers of every kind, has 90 kB.
///
/// It reads nothing else: for another format it says that the text has ended before.
///
/// # Safety
/// `text` and `format` end with a zero, and for that format `from` and `to` are valid for writes.
#[cfg_attr(not(test), unsafe(no_mangle))]
unsafe extern "C" fn __isoc99_sscanf(
    text: *const c_char,
    format: *const c_char,
    from: *mut usize,
    to: *mut usize,
) -> c_int {
    // SAFETY: both are strings, as the caller promises.
    let (text, format) = unsafe { (CStr::from_ptr(text), CStr::from_ptr(format)) };
    if format != c"%lx-%lx" {
        return libc::EOF;
    }
    let Some((first, last)) = range(text.to_bytes()) else { return 0 };
    // SAFETY: for this format they are two pointers, as the caller promises. What is passed for `...` of a C function is passed
    // as that of named parameters here.
    unsafe {
        from.write(first);
        to.write(last);
    }
    2
}

/// dcgettext(3), by its name inside of glibc. Nothing is translated without setlocale(3), which nobody here calls; glibc's own brings along
/// catalogues of messages and conversions between character sets.
#[cfg_attr(not(test), unsafe(no_mangle))]
extern "C" fn __dcgettext(_domain: *const c_char, message: *const c_char, _category: c_int) -> *const c_char {
    message
}

/// `7ffd775e3000-7ffd77613000 rw-p ...`
fn range(line: &[u8]) -> Option<(usize, usize)> {
    let addresses = line.split(|&byte| byte == b' ').next()?;
    let (first, last) = std::str::from_utf8(addresses).ok()?.split_once('-')?;
    let address = |digits| usize::from_str_radix(digits, 16).ok();
    Some((address(first)?, address(last)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &CStr, format: &CStr) -> (c_int, usize, usize) {
        let (mut from, mut to) = (7, 7);
        // SAFETY: strings, and places that are valid for writes.
        let count = unsafe { __isoc99_sscanf(text.as_ptr(), format.as_ptr(), &raw mut from, &raw mut to) };
        (count, from, to)
    }

    #[test]
    fn a_line_of_maps_begins_with_two_addresses() {
        let line = c"7ffd775e3000-7ffd77613000 rw-p 00000000 00:00 0                          [stack]\n";
        assert_eq!(read(line, c"%lx-%lx"), (2, 0x7ffd_775e_3000, 0x7ffd_7761_3000));
        assert_eq!(read(c"ffffffffff600000-ffffffffff601000", c"%lx-%lx").0, 2);
        for line in
            [c"", c"-", c"1000", c"1000-", c"-1000 rw-p", c"1000-2000-3000", c"x-y", c"10000000000000000-1"]
        {
            assert_eq!(read(line, c"%lx-%lx"), (0, 7, 7), "{line:?}");
        }
    }

    #[test]
    fn a_message_is_its_own_translation() {
        let message = c"out of memory".as_ptr();
        assert_eq!(__dcgettext(std::ptr::null(), message, 5), message);
    }

    #[test]
    fn nothing_is_read_in_another_format() {
        assert_eq!(read(c"1-2", c"%d-%d"), (libc::EOF, 7, 7));
    }
}
