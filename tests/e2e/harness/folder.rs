//! A temporary folder for one cluster, readable for every user, removed at the end of the test.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder; dropping it removes it.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("clusterd-test-").tempdir().expect("a temporary folder");
        allow(folder.path(), 0o755);
        Self(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Where the control sockets of clusterds that are started here are.
    pub(crate) fn home(&self) -> PathBuf {
        self.path().join("home")
    }

    /// Makes the folder of the control sockets for the user without privileges.
    pub(crate) fn give_home_to_nobody(&self) {
        const NOBODY: u32 = 65534;
        fs::create_dir(self.home()).expect("a folder in the temporary folder");
        std::os::unix::fs::chown(self.home(), Some(NOBODY), Some(NOBODY)).expect("root may give it away");
    }

    /// Writes a file, with the folders above it.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().expect("a file is in a folder"))
            .expect("a folder in the temporary folder");
        fs::write(&path, content).expect("a file in the temporary folder");
        path
    }

    /// Copies a program, for a user who may not see where it stands.
    pub(crate) fn copy_program(&self, program: &Path) -> PathBuf {
        self.copy_program_as(program, Path::new(program.file_name().expect("a program has a name")))
    }

    /// As [`Folder::copy_program`], to another name.
    pub(crate) fn copy_program_as(&self, program: &Path, name: &Path) -> PathBuf {
        let copy = self.path().join(name);
        // By another process: a child that another test starts meanwhile would inherit the file, open for writing, and
        // a program that somebody may write to cannot be executed.
        let copied = Command::new("cp").arg(program).arg(&copy).status().expect("cp can be started");
        assert!(copied.success(), "a copy in the temporary folder");
        allow(&copy, 0o755);
        copy
    }
}

fn allow(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("the owner may set permissions");
}

/// The servers that the tests run.
pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/fixtures")
}
