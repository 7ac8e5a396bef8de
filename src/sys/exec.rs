//! Another program in the place of the one that runs, in the same process (execve(2)).
//!
//! Unlike std's `exec`, it leaves the signal mask as it is, and can execute a file that has no name any more.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use super::carried::CarriedFd;

/// The program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Program<'a> {
    /// What has this name now.
    Path(&'a Path),
    /// The file of this descriptor, whatever its name, with which /proc is not needed.
    File(CarriedFd),
}

/// Begins it in this process, with these words, the first of which is what it is called, and these variables. Every other
/// thread ends at once. It returns only if that cannot be, and why; all is as before then.
pub(crate) fn execute(
    program: Program<'_>,
    words: &[OsString],
    environment: &[(OsString, OsString)],
) -> io::Error {
    let variables =
        environment.iter().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let variables: Result<Vec<_>, _> = variables.map(CString::new).collect();
    let words: Result<Vec<_>, _> = words.iter().map(|word| CString::new(word.as_bytes())).collect();
    let (Ok(words), Ok(variables)) = (words, variables) else {
        return io::ErrorKind::InvalidInput.into();
    };
    let (words_ptr, variables_ptr) = (pointers(&words), pointers(&variables));
    match program {
        Program::Path(path) => {
            let Ok(path) = CString::new(OsStr::as_bytes(path.as_os_str())) else {
                return io::ErrorKind::InvalidInput.into();
            };
            // SAFETY: each pointer is to a string that ends in zero, each list ends in a null pointer, and all of them live until
            // the call returns, which it does only if it has failed.
            unsafe { libc::execve(path.as_ptr(), words_ptr.as_ptr(), variables_ptr.as_ptr()) };
        }
        Program::File(file) => {
            // SAFETY: as above; with AT_EMPTY_PATH the empty string stands for the descriptor itself, and a number that is not
            // open makes the call fail with EBADF and nothing else.
            unsafe {
                libc::syscall(
                    libc::SYS_execveat,
                    file.number(),
                    c"".as_ptr(),
                    words_ptr.as_ptr(),
                    variables_ptr.as_ptr(),
                    libc::AT_EMPTY_PATH,
                )
            };
        }
    }
    io::Error::last_os_error()
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

/// Takes a variable out of this process's environment.
///
/// To be called at the very start, while there is one thread.
pub(crate) fn take_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    // SAFETY: no other thread can read the environment meanwhile: the caller is at the start of the program, and has not
    // started any.
    unsafe { std::env::remove_var(name) };
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_executed_leaves_all_as_it_was() {
        let words = [OsString::from("x")];
        let gone = execute(Program::Path(Path::new("/nowhere/at/all")), &words, &[]);
        assert_eq!(gone.raw_os_error(), Some(libc::ENOENT));
        let folder = std::fs::File::open("/").unwrap();
        let folder = execute(Program::File(CarriedFd::of(&folder)), &words, &[]);
        assert_eq!(folder.raw_os_error(), Some(libc::EACCES));
        let zero = execute(Program::Path(Path::new("a\0b")), &words, &[]);
        assert_eq!(zero.kind(), io::ErrorKind::InvalidInput);
    }
}
