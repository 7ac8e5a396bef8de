//! What each launch of a worker looks up anew: its folder, its program, and the variables that the configuration gives it.
//!
//! It names everything from the root, so that it means the same later, and wherever clusterd itself is.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

use super::WorkerCommand;
use super::command::{self, CommandError};
use super::env_file::{self, EnvFileError};

/// Where a worker runs, and what it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Workplace {
    /// The folder, by its name; `None` for the one that clusterd is in, to which no name leads.
    pub folder: Option<PathBuf>,
    /// `--env-file`.
    pub env_files: Vec<PathBuf>,
    /// `--env`, which goes before the files.
    pub variables: BTreeMap<String, String>,
    /// Names of variables that are not inherited.
    pub filtered: Vec<String>,
    /// The variable for the worker's number, if it is not the usual one.
    pub instance_var: Option<String>,
    /// The variable that is one more for each worker.
    pub increment_var: Option<String>,
}

/// A worker cannot be started with what is there now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkplaceError {
    /// There is no such folder.
    #[error("cannot run workers in {}: {source}\nhint: --cwd names the folder that workers run in", .folder.display())]
    Folder {
        /// From the root.
        folder: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Not with these variables.
    #[error(transparent)]
    EnvFile(#[from] EnvFileError),
    /// Not this program.
    #[error(transparent)]
    Command(#[from] CommandError),
}

impl WorkplaceError {
    /// That of the command, 78 for an environment file, as for any configuration that cannot be read, and 1 for a folder.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            WorkplaceError::Command(error) => error.exit_code(),
            WorkplaceError::EnvFile(_) => 78,
            WorkplaceError::Folder { .. } => 1,
        }
    }
}

impl Workplace {
    /// The variables that the configuration gives, as the files are now.
    ///
    /// # Errors
    /// A file cannot be used.
    pub(crate) fn variables(&self) -> Result<BTreeMap<String, String>, EnvFileError> {
        let mut variables = BTreeMap::new();
        for file in &self.env_files {
            let read = env_file::read(file)?.into_iter().map(|read| (read.name, read.value));
            variables.extend(read);
        }
        variables.extend(self.variables.clone());
        Ok(variables)
    }

    /// Whether there is a folder of this name.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn check_folder(&self) -> Result<(), WorkplaceError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let found = folder.metadata().and_then(|found| match found.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        });
        found.map_err(|source| WorkplaceError::Folder { folder: folder.clone(), source })
    }

    /// Finds the program as a worker will: from its folder, and in its `PATH`, which is `inherited` unless the
    /// configuration names another. `None` for the demo and the file server, which need none.
    ///
    /// # Errors
    /// It cannot be run, or what leads to it is not there.
    pub(crate) fn find(
        &self,
        command: &WorkerCommand,
        inherited: Option<OsString>,
    ) -> Result<Option<PathBuf>, WorkplaceError> {
        self.check_folder()?;
        let mut variables = self.variables()?;
        let WorkerCommand::Program { program, .. } = command else { return Ok(None) };
        if command.is_file_server() {
            return Ok(None);
        }
        let path = variables.remove("PATH").map(OsString::from).or(inherited);
        let path = path.as_deref().unwrap_or(OsStr::new(command::DEFAULT_PATH));
        Ok(Some(command::find(program, path, self.folder.as_deref())?))
    }

    /// The file of the program that a word names as a command, if there is one: found as [`Workplace::find`] does.
    pub(crate) fn file_of(&self, word: &OsStr, inherited: Option<OsString>) -> Option<PathBuf> {
        let command = WorkerCommand::Program { program: word.to_owned(), arguments: Vec::new() };
        self.find(&command, inherited).ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn program(name: &str) -> WorkerCommand {
        WorkerCommand::Program { program: name.into(), arguments: Vec::new() }
    }

    #[test]
    fn a_link_is_followed_at_each_look() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for release in ["1", "2"] {
            fs::create_dir_all(path(release).join("bin")).unwrap();
            let server = path(release).join("bin/server");
            fs::write(&server, release).unwrap();
            fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
            fs::write(path(release).join(".env"), format!("RELEASE={release}\nPATH=bin\nA=file")).unwrap();
        }
        symlink("1", path("current")).unwrap();
        let workplace = Workplace {
            folder: Some(path("current")),
            env_files: vec![path("current/.env")],
            variables: BTreeMap::from([("A".to_owned(), "env".to_owned())]),
            ..Workplace::default()
        };
        let look = || -> Result<_, WorkplaceError> {
            let variables = workplace.variables()?;
            let found = [program("./bin/server"), program("server")].map(|program| {
                let found =
                    workplace.find(&program, None).map(|found| fs::read_to_string(found.unwrap()).unwrap());
                found.unwrap_or_else(|error| error.to_string())
            });
            assert_eq!(
                workplace.file_of(OsStr::new("server"), None),
                workplace.find(&program("server"), None).unwrap()
            );
            assert_eq!(workplace.file_of(OsStr::new("none"), None), None);
            Ok((variables["RELEASE"].clone(), variables["A"].clone(), found))
        };
        let of = |release: &str| {
            let release = || release.to_owned();
            (release(), "env".to_owned(), [release(), release()])
        };
        assert_eq!(look().unwrap(), of("1"));
        symlink("2", path("next")).unwrap();
        fs::rename(path("next"), path("current")).unwrap();
        fs::remove_dir_all(path("1")).unwrap();
        assert_eq!(look().unwrap(), of("2"));
        fs::remove_file(path("current")).unwrap();
        assert!(look().unwrap_err().to_string().starts_with("cannot read the environment file "));
        let error = workplace.find(&program("sh"), None).unwrap_err();
        assert!(error.to_string().starts_with("cannot run workers in "), "{error}");
        assert_eq!(error.exit_code(), 1);
    }
}
