//! The folder in which clusterd was started, by the name that it was entered by.
//!
//! It only looks. In a folder that a link leads to (`current`), the kernel knows the folder and the shell also knows the
//! name, which may lead to another one later.

use std::env;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

/// `PWD` if that is a name of this folder (as pwd(1) has it), or else the one that getcwd(3) finds. `None` if no name leads
/// there: the folder was removed, or one above it is closed to this user.
pub(crate) fn of_this_process() -> Option<PathBuf> {
    let here = fs::metadata(".").ok()?;
    let shell = env::var_os("PWD").map(PathBuf::from).filter(|path| is_plain(path));
    shell.into_iter().chain(env::current_dir().ok()).find(|path| leads_to(path, &here))
}

/// Whether this folder was removed since this process, or the shell that has started it, went there.
pub(crate) fn is_gone() -> bool {
    // getcwd(3) finds no name, and unlike where a folder above is closed to this user, it says that there is none.
    env::current_dir().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// Absolute, and without a detour.
fn is_plain(path: &Path) -> bool {
    let mut names = path.as_os_str().as_encoded_bytes().split(|&byte| byte == b'/');
    path.is_absolute()
        && !path.components().any(|part| part == Component::ParentDir)
        && !names.any(|name| name == b".")
}

fn leads_to(path: &Path, here: &Metadata) -> bool {
    let is_same = |there: Metadata| (there.dev(), there.ino()) == (here.dev(), here.ino());
    fs::metadata(path).is_ok_and(is_same)
        && rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_without_detours_is_believed() {
        let cases = [
            ("/", true),
            ("/srv/current", true),
            ("/srv/..current", true),
            ("srv", false),
            ("", false),
            ("/srv/../srv", false),
            ("/srv/./app", false),
            ("/srv/.", false),
        ];
        for (path, expected) in cases {
            assert_eq!(is_plain(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn a_link_is_a_name_of_the_folder_that_it_leads_to() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("one")).unwrap();
        fs::create_dir(path("two")).unwrap();
        std::os::unix::fs::symlink("one", path("current")).unwrap();
        let here = fs::metadata(path("one")).unwrap();
        let found = ["one", "two", "current", "none"].map(|name| leads_to(&path(name), &here));
        assert_eq!(found, [true, false, true, false]);
    }
}
