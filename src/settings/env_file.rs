//! `--env-file`: reads an environment file, at the start and again for each launch of a worker.
//!
//! How its lines are written is [`super::dotenv`]'s to know.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::dotenv::{self, Assignment};

/// The longest file that is read, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// Why an environment file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EnvFileError {
    /// It cannot be opened or read.
    #[error("cannot read the environment file {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A pipe, for one, has its text only once.
    #[error("cannot read the environment file {}: not a regular file\nhint: each launch of a worker reads it again, which a pipe does not allow", .0.display())]
    Irregular(PathBuf),
    /// Longer than anybody's.
    #[error("cannot read the environment file {}: longer than {MAX_LEN} bytes", .0.display())]
    TooLong(PathBuf),
    /// In UTF-16, for one.
    #[error("cannot read the environment file {}: not valid UTF-8", .0.display())]
    NotUtf8(PathBuf),
    /// It is written in another dialect, or something is missing. The line itself may be part of a secret.
    #[error(
        "{}:{line}: not an assignment\nhint: use KEY=VALUE; a value of several lines needs quotes, and a comment a # in front",
        .path.display()
    )]
    NoAssignment {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// No environment can hold it.
    #[error("{}:{line}: {name} holds a zero byte", .path.display())]
    ZeroByte {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// The variable.
        name: String,
    },
}

/// Reads the file.
///
/// # Errors
/// [`EnvFileError`].
pub(crate) fn read(path: &Path) -> Result<Vec<Assignment>, EnvFileError> {
    let text = text_of(path)?;
    let parsed = dotenv::parse(&text);
    if let Some(&line) = parsed.unread.first() {
        return Err(EnvFileError::NoAssignment { path: path.to_owned(), line });
    }
    if let Some(bad) = parsed.assignments.iter().find(|read| read.value.contains('\0')) {
        let (path, line, name) = (path.to_owned(), bad.line, bad.name.clone());
        return Err(EnvFileError::ZeroByte { path, line, name });
    }
    Ok(parsed.assignments)
}

/// Waits for nobody who may never write.
fn text_of(path: &Path) -> Result<String, EnvFileError> {
    let unreadable = |source| EnvFileError::Unreadable { path: path.to_owned(), source };
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(EnvFileError::Irregular(path.to_owned()));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too long from one that just fits.
    let read = file.take(MAX_LEN + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if read as u64 > MAX_LEN {
        return Err(EnvFileError::TooLong(path.to_owned()));
    }
    String::from_utf8(bytes).map_err(|_| EnvFileError::NotUtf8(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn what_cannot_be_used_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(".env");
        let said = |path: &Path| {
            let error = read(path).expect_err("refused").to_string();
            error.replace(&folder.path().display().to_string(), "")
        };
        assert_snapshot!(said(&path), @"cannot read the environment file /.env: No such file or directory (os error 2)");
        std::fs::write(&path, "A=1\n\nB").expect("written");
        assert_snapshot!(said(&path), @"
        /.env:3: not an assignment
        hint: use KEY=VALUE; a value of several lines needs quotes, and a comment a # in front
        ");
        std::fs::write(&path, "A='x\0y'").expect("written");
        assert_snapshot!(said(&path), @"/.env:1: A holds a zero byte");
        std::fs::write(&path, b"A=\xff").expect("written");
        assert_snapshot!(said(&path), @"cannot read the environment file /.env: not valid UTF-8");
        // Also where the end of what is read lies within a character.
        for long in ["#".repeat((1 << 20) + 1), format!("#{}", "é".repeat(1 << 20))] {
            std::fs::write(&path, long).expect("written");
            assert_eq!(said(&path), "cannot read the environment file /.env: longer than 1048576 bytes");
        }
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0)
            .expect("a pipe");
        for irregular in [&pipe, folder.path()] {
            assert!(said(irregular).contains("not a regular file"), "{}", said(irregular));
        }
    }
}
