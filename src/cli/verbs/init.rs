//! `clusterd init`: a file of apps to begin with.
//!
//! What is there already is never written over.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::VerbError;
use super::print::{self, Shape};
use crate::settings::apps::file;

/// What is in our own file.
const OWN: &str = include_str!("init.toml");

/// PM2's.
const PM2: &str = include_str!("init.config.js");

/// Write a clusterd.toml to begin with, unless there is one [alias: ecosystem]
#[derive(Debug, clap::Args)]
#[command(alias = "ecosystem")]
pub(super) struct Init {
    /// Write ecosystem.config.js, PM2's file, instead
    #[arg(long)]
    pm2: bool,

    #[command(flatten)]
    shape: Shape,
}

impl Init {
    pub(super) fn run(self) -> Result<ExitCode, VerbError> {
        super::check_start_folder()?;
        let (name, text) = if self.pm2 { (file::USUAL[0], PM2) } else { (file::OWN, OWN) };
        let path = Path::new(name);
        write_new(path, text).map_err(|error| VerbError::NotMade(path.to_owned(), error))?;
        print::done(name, &format!("written; `clusterd start {name}` starts its apps"), self.shape)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        for all in [false, true] {
            // What stands behind a `#` without a space is a setting that may be used.
            let used =
                |line: &'static str| line.strip_prefix('#').filter(|rest| all && !rest.starts_with(' '));
            let text: Vec<_> = OWN.lines().map(|line| used(line).unwrap_or(line)).collect();
            let apps = file::read(Path::new(file::OWN), &text.join("\n"), file::Format::Toml)
                .unwrap_or_else(|invalid| panic!("{invalid}"));
            file::check(&apps, NonZeroU32::new(2).unwrap()).unwrap_or_else(|invalid| panic!("{invalid}"));
            assert_eq!(apps.apps.len(), if all { 2 } else { 1 });
            assert!(apps.warnings.is_empty());
        }
    }
}
