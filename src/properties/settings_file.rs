//! The file of an app, or of several: what is refused has a place, and what is accepted is written and shown such that it
//! reads as the same.
//!
//! The values of each setting have property tests of their own, in `settings::parse`.

use std::collections::BTreeSet;
use std::path::Path;

use super::told::{CPUS, FILE, facts, is_in_file, names_a_place};
use crate::home::definition;
use crate::settings::apps::{self, Apps, toml};
use crate::settings::kind::Arity;
use crate::settings::origin::{Origin, Value};
use crate::settings::resolve::{Resolved, Sources, resolve};
use crate::settings::{error::Invalid, file, show, table};

/// Reads `data` as a file.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if toml::has_apps(text) {
        match toml::read(Path::new(FILE), text) {
            Ok(apps) => are_written_again(&apps),
            Err(invalid) => are_placed(&invalid, text),
        }
    } else {
        match one(text) {
            Ok(resolved) => {
                is_kept(&resolved);
                is_shown(text, &resolved);
            }
            Err(invalid) => are_placed(&invalid, text),
        }
    }
}

fn one(text: &str) -> Result<Resolved, Invalid> {
    let file::Contents { layer, command, problems } = file::read(Path::new(FILE), text);
    resolve(Sources { file: layer, command, problems, ..Sources::default() }, CPUS)
}

fn are_placed(invalid: &Invalid, text: &str) {
    assert!(!invalid.problems().is_empty());
    for problem in invalid.problems() {
        names_a_place(problem, |said| is_in_file(said, FILE, text));
    }
}

/// What is kept of an app is the app.
pub(super) fn is_kept(resolved: &Resolved) {
    let text = definition::text_of(resolved).expect("it came from a text");
    let again = one(&text).unwrap_or_else(|invalid| panic!("{invalid}\n{text}"));
    let unnamed =
        crate::settings::Config { listen_is_default: resolved.config.listen_is_default, ..again.config };
    assert_eq!(unnamed, resolved.config, "{text}");
}

/// `--show-config` has a line for each, and says values as they can be given.
fn is_shown(text: &str, resolved: &Resolved) {
    let variables = resolved.config.env.len();
    let of_variables = if variables == 0 { 0 } else { variables - 1 };
    let rows = table::all().count() + of_variables + 2;
    let shown = show::table(resolved);
    assert_eq!(shown.matches('\n').count(), rows, "{shown}");

    let file::Contents { mut layer, command, .. } = file::read(Path::new(FILE), text);
    for key in table::all().filter(|key| matches!(key.values.arity(), Arity::One | Arity::Switch)) {
        if !layer.of(key).is_empty() {
            layer.add(Value::new(key.name, (key.show)(&resolved.config), Origin::CommandLine));
        }
    }
    let again = resolve(Sources { file: layer, command, ..Sources::default() }, CPUS);
    let again = again.unwrap_or_else(|invalid| panic!("{invalid}\n{shown}"));
    assert_eq!(again.config, resolved.config, "{shown}");
}

/// A file that is made of apps says the same of them, and is judged the same.
pub(super) fn are_written_again(apps: &Apps) {
    let names: BTreeSet<_> = apps.apps.iter().map(|app| &app.name.text).collect();
    if names.len() < apps.apps.len() {
        assert!(apps::file::check(apps, CPUS).is_err(), "such apps are refused before they are written");
        return;
    }
    let text = toml::write(apps);
    let again = toml::read(Path::new(FILE), &text).unwrap_or_else(|invalid| panic!("{invalid}\n{text}"));
    let all = |apps: &Apps| apps.apps.iter().map(facts).collect::<Vec<_>>();
    assert_eq!(all(&again), all(apps), "{text}");
    let again = Apps { warnings: apps.warnings.clone(), ..again };
    assert_eq!(toml::write(&again), text);
    assert_eq!(apps::file::check(&again, CPUS).is_ok(), apps::file::check(apps, CPUS).is_ok(), "{text}");
}
