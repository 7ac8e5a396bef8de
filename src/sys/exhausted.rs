//! What would help where a process or the system has used up what there is.

use std::error::Error;
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

/// This error in words, and how there are more descriptors if that is behind it and it says nothing of what would help.
pub(crate) fn told(error: &(dyn Error + 'static)) -> String {
    let text = error.to_string();
    let mut causes = std::iter::successors(Some(error), |error| (*error).source());
    let hint = causes.find_map(|cause| more_descriptors(cause.downcast_ref()?));
    match hint.filter(|_| !text.contains("\nhint: ")) {
        Some(hint) => format!("{text}\nhint: {hint}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot begin: {0}{1}")]
    struct Failed(#[source] io::Error, &'static str);

    #[test]
    fn what_would_help_is_told_once_and_only_where_it_would() {
        let told = |number, more| told(&Failed(io::Error::from_raw_os_error(number), more));
        assert!(told(libc::EMFILE, "").ends_with("(os error 24)\nhint: raise the limit of open files (ulimit -n, LimitNOFILE=, docker run --ulimit)"));
        assert!(told(libc::ENFILE, "").ends_with("sysctl fs.file-max)"));
        assert!(told(libc::EMFILE, "\nhint: close some").ends_with("\nhint: close some"));
        assert!(!told(libc::EPERM, "").contains("hint"));
    }
}
