//! What would help where a process or the system has used up what there is.

use std::io;

/// How there are more descriptors, if this error is that there are none.
pub(crate) fn more_descriptors(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(libc::EMFILE) => {
            Some("raise the limit of open files (ulimit -n, LimitNOFILE=, docker run --ulimit)")
        }
        Some(libc::ENFILE) => Some("raise the system's limit of open files (sysctl fs.file-max)"),
        _ => None,
    }
}
