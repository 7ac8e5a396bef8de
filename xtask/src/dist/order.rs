//! Whether the functions that are to stand next to each other are still there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// So many of a hundred may have got another name since the script was written.
const MISSING: usize = 10;

/// Whether the linker, whose map this is, has found what the script names.
///
/// # Errors
/// It has not found so many that the script is to be written anew.
pub(super) fn check(script: &Path, map: &Path) -> Result<()> {
    let [script, map] = [script, map]
        .map(|file| fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display())));
    let (script, map) = (script?, map?);
    let names = sections(&map);
    let patterns: Vec<_> = patterns(&script).collect();
    ensure!(!patterns.is_empty(), "xtask/dist/serving.ld names no function as `*(.text.NAME)`");
    let missing: Vec<_> =
        patterns.iter().filter(|pattern| !names.iter().any(|name| fits(pattern, name))).collect();
    ensure!(
        missing.len() * 100 <= patterns.len() * MISSING,
        "{} of {} functions in xtask/dist/serving.ld are not in the program, {} for one\nhint: write it anew with \
         benches/serving.py",
        missing.len(),
        patterns.len(),
        missing[0]
    );
    Ok(())
}

/// Those of functions of clusterd and its crates: `*(.text.NAME)`.
fn patterns(script: &str) -> impl Iterator<Item = &str> {
    let patterns = script.lines().filter_map(|line| line.strip_prefix("*(")?.strip_suffix(')'));
    patterns.filter(|pattern| !is_copied(pattern))
}

/// Whether it is of a crate whose functions are copied for each type. Many copies are the same: the linker keeps one, today this
/// and tomorrow that.
fn is_copied(pattern: &str) -> bool {
    let name = pattern.split_once("Cs*_").map_or("", |(_, name)| name);
    ["3std", "4core", "5alloc", "9hashbrown"].iter().any(|copied| name.starts_with(copied))
}

/// What the linker has put where: `VMA LMA Size Align FILE:(.text.NAME)`.
fn sections(map: &str) -> Vec<&str> {
    map.lines().filter_map(|line| line.rsplit_once(":(")?.1.strip_suffix(')')).collect()
}

/// Whether a name is as the pattern has it, where each `*` stands for anything.
fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = name.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, fitting, others) in [
            ("f", &["f"][..], &["", "ff", "g"][..]),
            ("f*", &["f", "f.12"], &["g", "af"]),
            (
                "C*_5front*_3std",
                &["Cs1a_5front_3std", "C_5front9_3std"],
                &["Cs1a_5front", "Cs_3std_5front", "C_5front3std"],
            ),
            ("a*b*c", &["abc", "axbxc", "abbc"], &["ab", "acb", "bc"]),
        ] {
            assert!(fitting.iter().all(|name| fits(pattern, name)), "{pattern}");
            assert!(!others.iter().any(|name| fits(pattern, name)), "{pattern}");
        }
    }

    #[test]
    fn copies_are_not_looked_for() {
        let script = "SECTIONS {\n*(.text._RNvCs*_8clusterd3run)\n*(.text._RNvMCs*_5alloc3vecCs*_8clusterd)\n*libc.a:x.o(.text)\n}";
        assert_eq!(patterns(script).collect::<Vec<_>>(), [".text._RNvCs*_8clusterd3run"]);
    }

    #[test]
    fn more_than_a_few_that_are_not_there_are_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let [script, map] = ["script", "map"].map(|name| folder.path().join(name));
        let names = |count| (0..count).map(|number| format!("*(.text.f{number})\n"));
        let placed = |count| (0..count).map(|number| format!(" 1 1 1 1         a.o:(.text.f{number})\n"));
        fs::write(&map, placed(90).collect::<String>()).unwrap();
        fs::write(&script, format!("SECTIONS {{\n{}}}", names(100).collect::<String>())).unwrap();
        check(&script, &map).unwrap();
        fs::write(&script, names(101).collect::<String>()).unwrap();
        let error = check(&script, &map).unwrap_err().to_string();
        assert!(error.starts_with("11 of 101 functions") && error.contains(".text.f90 for one"), "{error}");
    }
}
