//! PM2's files: what is imported can be written as our own file, and JSON means what it means to other readers.
//!
//! JavaScript is not run. What each key becomes, the tests of `settings::apps::pm2` have.

use std::path::Path;

use super::settings_file::are_written_again;
use super::told::{facts, is_in_file, names_a_place};
use crate::settings::apps::Apps;
use crate::settings::apps::file::{Format, read};
use crate::settings::error::Invalid;

/// Reads `data` as a digit, which says how the rest is written, and a file.
pub fn check(data: &[u8]) {
    let Some((&first, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let (format, file) = match first {
        b'0' => (Format::Json, "ecosystem.json"),
        b'1' => (Format::Yaml, "ecosystem.yaml"),
        b'2' => (Format::Dump, "dump.pm2"),
        _ => return,
    };
    match read(Path::new(file), text, format) {
        Ok(apps) => {
            are_written_again(&apps);
            for warning in &apps.warnings {
                names_a_place(&warning.problem, |said| is_in_file(said, file, text));
            }
            if format != Format::Yaml {
                is_spelled_otherwise(&apps, text, (format, file));
            }
        }
        Err(invalid) => {
            assert!(!invalid.problems().is_empty());
            for problem in invalid.problems() {
                names_a_place(problem, |said| is_in_file(said, file, text));
            }
        }
    }
}

/// If it is JSON without comments or the like: as another reader has understood it, and in YAML, which JSON is.
fn is_spelled_otherwise(apps: &Apps, text: &str, (format, file): (Format, &str)) {
    let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { return };
    let spelled = value.to_string();
    let again = read(Path::new(file), &spelled, format);
    assert_eq!(all(&again), all(&Ok(apps.clone())), "{spelled}");
    // In YAML, `<<` merges, and a few characters have to be escaped.
    if format == Format::Json && !spelled.contains("<<") {
        let yaml = read(Path::new(file), &spelled, Format::Yaml);
        if yaml.is_ok() {
            assert_eq!(all(&yaml), all(&again), "{spelled}");
        }
    }
}

fn all(read: &Result<Apps, Invalid>) -> Result<Vec<String>, String> {
    let apps = read.as_ref().map_err(ToString::to_string)?;
    Ok(apps.apps.iter().map(facts).collect())
}
