//! `clusterd flush`: empties log files.
//!
//! Whoever writes them goes on at the new end.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::ExitCode;

use bytesize::ByteSize;

use super::VerbError;
use super::kept_apps::kept;
use super::print::{self, Shape};
use crate::home::logs::plan;
use crate::logs::rotation;

/// Empty the logs of all apps in the background, or of some; rotated files go, too
#[derive(Debug, clap::Args)]
pub(super) struct Flush {
    /// Names of apps or namespaces, patterns such as `/^web/`, ids of workers, or `all`; without any, every app
    #[arg(value_name = "APP")]
    apps: Vec<String>,

    #[command(flatten)]
    shape: Shape,
}

impl Flush {
    pub(super) fn run(self) -> Result<ExitCode, VerbError> {
        for app in kept(&self.apps)? {
            let mut freed = 0;
            for file in plan(&app).files() {
                freed += emptied(&file).map_err(|error| VerbError::NotFlushed(file, error))?;
            }
            let freed = ByteSize(freed).display().iec_short();
            print::done(app.name(), &format!("logs emptied, {freed} freed"), self.shape)?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// How many bytes were in it and in what was set aside for it. What is no file is left alone.
fn emptied(path: &Path) -> io::Result<u64> {
    let mut freed = 0;
    if let Ok(found) = path.metadata()
        && found.is_file()
    {
        File::options().write(true).open(path)?.set_len(0)?;
        freed += found.len();
    }
    for aside in rotation::kept(path) {
        freed += aside.metadata().map_or(0, |found| found.len());
        match fs::remove_file(aside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(freed)
}
