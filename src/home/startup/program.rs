//! By which path clusterd is found at boot.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::StartupError;

/// What a folder is called in which a version of a program has a place of its own.
const OF_VERSIONS: [&str; 9] =
    ["node_modules", ".nvm", ".fnm", ".volta", ".asdf", ".nodenv", "mise", "Cellar", "store"];

/// The path of the program that runs in this process: as it was called, since that may be a link that an upgrade moves, or
/// else its file.
///
/// # Errors
/// The file is gone.
pub(crate) fn path() -> Result<PathBuf, StartupError> {
    let file = std::env::current_exe().map_err(|error| StartupError::NoProgram(error.to_string()))?;
    let called = Path::new(OsStr::from_bytes(rustix::param::linux_execfn().to_bytes()));
    let called = std::path::absolute(called).ok().filter(|path| {
        path.file_name() == Some(OsStr::new("clusterd")) && path.canonicalize().is_ok_and(|path| path == file)
    });
    match called {
        Some(path) => Ok(path),
        None if file.is_file() => Ok(file),
        None => Err(StartupError::NoProgram(format!("{} is gone", file.display()))),
    }
}

/// Whether an upgrade would put the program elsewhere: its folder belongs to one version of something.
pub(crate) fn moves_with_an_upgrade(program: &Path) -> bool {
    let mut folders = program.parent().into_iter().flat_map(Path::iter).filter_map(OsStr::to_str);
    folders.any(|name| OF_VERSIONS.contains(&name) || is_version(name))
}

/// `v20.1.0`, `clusterd-1.2`, `1.2.3`.
fn is_version(name: &str) -> bool {
    let number = name.rsplit(['-', 'v', '@']).next().unwrap_or_default();
    let mut parts = number.split('.');
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    number.contains('.') && parts.all(is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_in_the_folder_of_one_version_moves() {
        let table = [
            ("/usr/local/bin/clusterd", false),
            ("/home/ann/.cargo/bin/clusterd", false),
            ("/opt/clusterd/bin/clusterd", false),
            ("/srv/v2/bin/clusterd", false),
            ("/srv/app.d/clusterd-1.2", false),
            ("/opt/clusterd-1.2.0/clusterd", true),
            ("/home/ann/.nvm/versions/node/v20.1.0/bin/clusterd", true),
            ("/usr/lib/node_modules/clusterd/bin/clusterd", true),
            ("/nix/store/0c1b-clusterd/bin/clusterd", true),
        ];
        for (path, expected) in table {
            assert_eq!(moves_with_an_upgrade(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn this_program_has_a_path() {
        let path = path().unwrap();
        assert!(path.is_absolute() && path.is_file(), "{path:?}");
    }
}
