//! Where this process looks users and groups up.
//!
//! It looks nobody up.

/// Keeps a statically linked program to /etc/passwd and /etc/group. For anything else that /etc/nsswitch.conf names, glibc would
/// load a library, and that library the C library a second time, which may be another one (nss(5)): with systemd's, for users without
/// an entry (`DynamicUser=`), the process dies of a segmentation fault. To be called at the start: the standard library looks up who
/// has no `HOME`. Elsewhere nothing happens.
pub(crate) fn keep_to_files() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    static_glibc::keep_to_files();
}

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
mod static_glibc {
    use std::ffi::{CStr, c_char, c_int};

    unsafe extern "C" {
        /// Declared in nss.h.
        fn __nss_configure_lookup(database: *const c_char, line: *const c_char) -> c_int;
    }

    pub(super) fn keep_to_files() {
        let databases: [&CStr; 3] = [c"passwd", c"group", c"initgroups"];
        for database in databases {
            // SAFETY: both are strings that end with a zero, of which glibc keeps no pointer. No other thread looks anybody up
            // meanwhile: it is called at the start. A failure leaves everything as it was.
            unsafe { __nss_configure_lookup(database.as_ptr(), c"files".as_ptr()) };
        }
    }
}
