//! Finds the program that the workers run, as execvp(3) would there, so that an error is reported before anything is
//! started.
//!
//! It runs nothing.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use super::script;

/// Where programs are looked up when `PATH` is not set, as glibc's execvp does.
pub(crate) const DEFAULT_PATH: &str = "/bin:/usr/bin";

/// What shells exit with if a program is not found.
pub(crate) const NOT_FOUND: u8 = 127;

/// What they exit with if it cannot be executed.
pub(crate) const NOT_EXECUTABLE: u8 = 126;

/// Why a program cannot be run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// No file of that name in any folder of `PATH`.
    #[error("cannot start {}: not found in PATH\nhint: {}", .program.display(), advice(program, *is_here))]
    NotInPath {
        /// As the user wrote it.
        program: OsString,
        /// There is such a file in the workers' folder.
        is_here: bool,
    },
    /// The program has a slash in it, and there is no such file.
    #[error("cannot start {}: {error}\nhint: a relative path starts from the folder that workers run in (--cwd)", .program.display())]
    NotFound {
        /// As the user wrote it.
        program: OsString,
        /// What the system said.
        #[source]
        error: io::Error,
    },
    /// There is a file, which this user may not execute.
    #[error("cannot start {}: permission denied\nhint: {}", .file.display(), advice_on_file(file))]
    PermissionDenied {
        /// As the user wrote it, or as it was found.
        file: PathBuf,
    },
    /// There is something else than a file.
    #[error("cannot start {}: not a regular file", .file.display())]
    IrregularFile {
        /// What there is.
        file: PathBuf,
    },
}

impl CommandError {
    /// As a shell's.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CommandError::NotInPath { .. } | CommandError::NotFound { .. } => NOT_FOUND,
            CommandError::PermissionDenied { .. } | CommandError::IrregularFile { .. } => NOT_EXECUTABLE,
        }
    }
}

/// The file that execvp(3) would execute in this folder (`None`: in that of this process): `program` itself if it has a slash
/// in it, or else the first of that name in the folders of `path` that this user may execute. An empty folder stands for
/// the current one.
///
/// # Errors
/// If there is none. A file that cannot be executed counts only if no later folder has one that can.
pub(crate) fn find(program: &OsStr, path: &OsStr, folder: Option<&Path>) -> Result<PathBuf, CommandError> {
    let in_folder = |path: &Path| folder.map_or_else(|| path.to_owned(), |folder| folder.join(path));
    if program.as_encoded_bytes().contains(&b'/') {
        let written = Path::new(program);
        let file = in_folder(written);
        return look_at(&file, written).map(|()| file);
    }
    let mut refused = None;
    if !program.is_empty() {
        for folder in std::env::split_paths(path) {
            let is_current = folder.as_os_str().is_empty();
            let folder = if is_current { PathBuf::from(".") } else { folder };
            let file = in_folder(&folder.join(program));
            match look_at(&file, &file) {
                Ok(()) => return Ok(file),
                Err(CommandError::NotFound { .. } | CommandError::NotInPath { .. }) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
    }
    let is_here = !program.is_empty() && in_folder(Path::new(program)).is_file();
    Err(refused.unwrap_or_else(|| CommandError::NotInPath { program: program.to_owned(), is_here }))
}

/// May this user execute that file, which the user calls so? The effective user counts, as for execve(2).
fn look_at(file: &Path, written: &Path) -> Result<(), CommandError> {
    match file.metadata() {
        Ok(metadata) if !metadata.is_file() => Err(CommandError::IrregularFile { file: written.to_owned() }),
        Ok(_) if is_executable(file) => Ok(()),
        Ok(_) => Err(CommandError::PermissionDenied { file: written.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(CommandError::PermissionDenied { file: written.to_owned() })
        }
        Err(error) => Err(CommandError::NotFound { program: written.into(), error }),
    }
}

fn is_executable(file: &Path) -> bool {
    rustix::fs::accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

/// It may be a script, which is not executable, or no program by itself.
fn advice_on_file(file: &Path) -> String {
    let program = || format!("if it is a program, make it executable: chmod +x {}", file.display());
    script::advice(file.as_os_str()).unwrap_or_else(program)
}

/// It is easy to forget the interpreter, or the `./`.
fn advice(program: &OsStr, is_here: bool) -> String {
    if let Some(advice) = script::advice(program) {
        advice
    } else if is_here {
        format!("for the file in this folder, use ./{}", program.display())
    } else {
        "check the spelling, or give the full path".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// `first` and `second` are in PATH; each file has the mode that is given.
    fn folders(files: &[(&str, u32)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for folder in ["first", "second"] {
            fs::create_dir(root.path().join(folder)).expect("a folder");
        }
        for (name, mode) in files {
            let path = root.path().join(name);
            fs::write(&path, "#!/bin/sh\n").expect("written");
            fs::set_permissions(&path, Permissions::from_mode(*mode)).expect("changed");
        }
        root
    }

    fn outcome(root: &tempfile::TempDir, program: &str) -> Result<String, u8> {
        let place = |name: &str| root.path().join(name);
        let path = std::env::join_paths([place("first"), place("absent"), place("second")]).expect("a path");
        match find(OsStr::new(program), &path, None) {
            Ok(found) => Ok(found.strip_prefix(root.path()).expect("inside").display().to_string()),
            Err(error) => Err(error.exit_code()),
        }
    }

    #[test]
    fn the_first_executable_file_in_path_is_found() {
        let root = folders(&[
            ("first/both", 0o755),
            ("second/both", 0o755),
            ("second/only", 0o755),
            ("first/shadow", 0o644),
            ("second/shadow", 0o755),
            ("first/plain", 0o644),
        ]);
        fs::create_dir(root.path().join("first/folder")).expect("a folder");
        let cases = [
            ("both", Ok("first/both")),
            ("only", Ok("second/only")),
            ("shadow", Ok("second/shadow")),
            ("plain", Err(126)),
            ("folder", Err(126)),
            ("none", Err(127)),
            ("", Err(127)),
        ];
        for (program, expected) in cases {
            assert_eq!(outcome(&root, program), expected.map(str::to_owned), "{program}");
        }
    }

    #[test]
    fn a_program_with_a_slash_is_not_looked_up() {
        let root = folders(&[("server", 0o755), ("plain", 0o644), ("first/found", 0o755)]);
        let at = |name: &str| outcome(&root, &root.path().join(name).display().to_string());
        assert_eq!(at("server"), Ok("server".to_owned()));
        assert_eq!(at("plain"), Err(126));
        assert_eq!(at("first"), Err(126));
        assert_eq!(at("none"), Err(127));
        assert_eq!(at("server/none"), Err(127));
        assert_eq!(outcome(&root, "./found"), Err(127));
    }

    #[test]
    fn an_error_says_what_was_tried() {
        let said = |program: &str| {
            let error =
                find(OsStr::new(program), OsStr::new("/nowhere:/nor/here"), None).expect_err("refused");
            error.to_string()
        };
        insta::assert_snapshot!(said("node"), @"
        cannot start node: not found in PATH
        hint: check the spelling, or give the full path
        ");
        insta::assert_snapshot!(said("Cargo.toml"), @"
        cannot start Cargo.toml: not found in PATH
        hint: for the file in this folder, use ./Cargo.toml
        ");
        insta::assert_snapshot!(said("app.js"), @"
        cannot start app.js: not found in PATH
        hint: a script is run by its interpreter: clusterd -- node app.js
        ");
        insta::assert_snapshot!(said("./none"), @"
        cannot start ./none: No such file or directory (os error 2)
        hint: a relative path starts from the folder that workers run in (--cwd)
        ");
        insta::assert_snapshot!(said("./Cargo.toml"), @"
        cannot start ./Cargo.toml: permission denied
        hint: if it is a program, make it executable: chmod +x ./Cargo.toml
        ");
        insta::assert_snapshot!(said("./tests/e2e/fixtures/server.py"), @"
        cannot start ./tests/e2e/fixtures/server.py: permission denied
        hint: a script is run by its interpreter: clusterd -- python3 ./tests/e2e/fixtures/server.py
        ");
        insta::assert_snapshot!(said("./src"), @"cannot start ./src: not a regular file");
    }
}
