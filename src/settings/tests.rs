//! What holds for every setting that the table declares, whichever it is.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::path::Path;

use super::origin::{Layer, Origin, Value};
use super::resolve::{Resolved, Sources, resolve};
use super::setting::Key;
use super::{environment, file, reference, table};

fn resolved(sources: Sources) -> Resolved {
    resolve(sources, NonZeroU32::new(3).expect("not zero")).expect("valid")
}

fn shown(key: &Key, resolved: &Resolved) -> String {
    (key.show)(&resolved.config)
}

fn with_flag(key: &'static Key, text: &str) -> Resolved {
    let mut flags = Layer::default();
    flags.add(Value::new(key.name, text, Origin::Flag(key.name)));
    resolved(Sources { flags, ..Sources::default() })
}

#[test]
fn a_default_is_accepted_and_what_is_shown_is_read_again() {
    let defaults = resolved(Sources::default());
    for key in table::all() {
        assert!(key.default.is_some() || key.is_list(), "{}", key.name);
        let Some(default) = key.default else { continue };
        let by_flag = with_flag(key, default);
        assert_eq!(shown(key, &by_flag), shown(key, &defaults), "{}", key.name);
        let again = with_flag(key, &shown(key, &defaults));
        assert_eq!(shown(key, &again), shown(key, &defaults), "{}", key.name);
    }
}

#[test]
fn every_setting_has_a_variable_and_a_key() {
    let by_file = file::read(Path::new("clusterd.toml"), &uncommented());
    assert!(by_file.problems.is_empty(), "{:?}", by_file.problems);
    assert!(by_file.command.is_some());
    for key in table::all() {
        let texts = |layer: &Layer| layer.of(key).iter().map(|value| value.text.clone()).collect::<Vec<_>>();
        assert_eq!(texts(&by_file.layer), Vec::from_iter(key.default.map(str::to_owned)), "{}", key.name);
        for variable in key.variables() {
            let by_variable = environment::read(&|name| (name == variable).then(|| "x".into()));
            assert_eq!([texts(&by_variable.own), texts(&by_variable.platform)].concat(), ["x"], "{variable}");
        }
    }
}

/// The reference file with its settings in force: prose has a space behind its `#`, a setting has none.
fn uncommented() -> String {
    let is_setting = |line: &str| line.starts_with('#') && !line.starts_with("# ") && line.len() > 1;
    let text = reference::toml();
    let lines = text.lines().map(|line| if is_setting(line) { &line[1..] } else { line });
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[test]
fn names_are_used_once_and_variables_have_no_other_meaning() {
    use crate::protocol::drain_page::ENV_DRAINING;
    use crate::protocol::wire::{ENV_PORTS, ENV_SOCKET, ENV_TOKEN};
    let taken = [ENV_DRAINING, ENV_PORTS, ENV_SOCKET, ENV_TOKEN, table::CONFIG_VARIABLE];
    let mut names = BTreeSet::from(["config", "check", "show-config", "help", "version", table::COMMAND]);
    for key in table::all() {
        assert!(!taken.contains(&key.variable().as_str()), "{}", key.name);
        for name in [Some(key.name), key.alias, key.negation].into_iter().flatten() {
            assert!(names.insert(name), "{name}");
        }
    }
}

#[test]
fn a_variable_is_called_as_its_key() {
    let variable = |name| table::named(name).expect("a setting").variable();
    assert_eq!(variable("queue-timeout"), "CLUSTERD_QUEUE_TIMEOUT");
    assert_eq!(variable("port"), "CLUSTERD_PORT");
}

#[test]
fn everything_is_documented_in_sentences() {
    for key in table::all() {
        let paragraphs = key.doc.paragraphs();
        assert!(!paragraphs.is_empty(), "{}", key.name);
        assert!(paragraphs.iter().all(|text| text.ends_with('.')), "{}: {paragraphs:?}", key.name);
        assert!(key.doc.sentence().len() <= 110, "{}: one line of help", key.name);
        for word in key.values.words().iter().filter(|_| !key.values.placeholder().contains("true")) {
            assert!(word.get_help().is_some(), "{} {}", key.name, word.get_name());
        }
        for other in [key.needs, key.decided_with, key.not_with.map(|(name, _)| name)].into_iter().flatten() {
            assert!(table::named(other).is_some(), "{} names {other}", key.name);
        }
    }
}

#[test]
fn a_setting_that_needs_another_or_excludes_it_says_so() {
    for key in table::all() {
        let facts = reference::markdown();
        let (_, entry) = facts.split_once(&format!("### {}\n", key.name)).expect("an entry");
        let entry = entry.split("\n### ").next().unwrap_or_default();
        assert!(key.needs.is_none_or(|needed| entry.contains(&format!("Needs {needed}."))), "{entry}");
        assert!(
            key.not_with.is_none_or(|(other, _)| entry.contains(&format!("Not with {other} = "))),
            "{entry}"
        );
    }
}
