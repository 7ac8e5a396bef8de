//! The names that PM2 gives to the files of apps, below the home folder, for scripts that look for them.
//!
//! It makes none of them.

use std::path::{Path, PathBuf};

/// The file with the pid of the worker of this number.
pub(crate) fn pid_file(home: &Path, app: &str, id: u32) -> PathBuf {
    home.join("pids").join(format!("{}-{id}.pid", in_file_names(app)))
}

/// The log of this stream, `out` or `error`: of all workers, or of the one of this number.
pub(crate) fn log(home: &Path, app: &str, stream: &str, id: Option<u32>) -> PathBuf {
    let id = id.map(|id| format!("-{id}")).unwrap_or_default();
    home.join("logs").join(format!("{}-{stream}{id}.log", in_file_names(app)))
}

/// The file that was asked for, for the worker of this number: `my.pid` is `my-0.pid`.
pub(crate) fn numbered(file: &Path, id: u32) -> PathBuf {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let extension = file.extension().map(|end| format!(".{}", end.to_string_lossy())).unwrap_or_default();
    file.with_file_name(format!("{stem}-{id}{extension}"))
}

fn in_file_names(app: &str) -> String {
    let kept = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '-');
    app.chars().map(|character| if kept(character) { character } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_pm2() {
        let home = Path::new("/h");
        assert_eq!(pid_file(home, "my_app.1", 3), Path::new("/h/pids/my-app.1-3.pid"));
        assert_eq!(log(home, "web", "out", None), Path::new("/h/logs/web-out.log"));
        assert_eq!(log(home, "web", "error", Some(2)), Path::new("/h/logs/web-error-2.log"));
        assert_eq!(numbered(Path::new("/run/my.pid"), 0), Path::new("/run/my-0.pid"));
        assert_eq!(numbered(Path::new("pid"), 1), Path::new("pid-1"));
    }
}
