//! SHA256SUMS, which `sha256sum --check` reads.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::release::output;

const FILE: &str = "SHA256SUMS";

/// Writes the sums of all files of the folder, in the order of their names.
///
/// # Errors
/// sha256sum fails, or the file cannot be written.
pub(super) fn write(out: &Path) -> Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(out)? {
        let entry = entry?;
        if entry.file_type()?.is_file() && entry.file_name() != FILE {
            names.push(entry.file_name());
        }
    }
    names.sort();
    let sums = output(Command::new("sha256sum").current_dir(out).arg("--").args(&names))?;
    fs::write(out.join(FILE), sums).context("cannot write SHA256SUMS")
}
