//! Flags, verbs and variables: what the help has, and what the pages name.
//!
//! It asks the program itself; what only the code knows is in `code`.

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};

use super::{FILES, PAGES, REFERENCE, SETTINGS, code_spans, first_cells, lacking, section, text, words};

pub fn clusterd() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("clusterd"));
    command.env_clear().stdin(Stdio::null());
    command
}

pub fn output(arguments: &[&str]) -> Output {
    clusterd().args(arguments).output().expect("clusterd runs")
}

pub fn help() -> String {
    String::from_utf8(output(&["--help"]).stdout).expect("text")
}

/// The verbs in the help, with their aliases.
fn verbs(help: &str) -> BTreeSet<&str> {
    let (_, list) = help.split_once("clusterd list --help").expect("the list of them");
    let lines = list.lines().skip(1).take_while(|line| !line.is_empty());
    let mut verbs = BTreeSet::new();
    for line in lines {
        verbs.extend(line.split_whitespace().next());
        let aliases = line.split_once("[aliases: ").or_else(|| line.split_once("[alias: "));
        verbs.extend(aliases.into_iter().flat_map(|(_, aliases)| aliases.trim_end_matches(']').split(", ")));
    }
    verbs
}

fn help_of(verb: &str) -> String {
    let output = output(&[verb, "--help"]);
    assert!(output.status.success(), "{verb}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn flags(text: &str) -> BTreeSet<&str> {
    words(text, "--", |character| character.is_ascii_lowercase() || character == '-').collect()
}

pub fn variables(text: &str) -> BTreeSet<&str> {
    words(text, "CLUSTERD_", |character| character.is_ascii_uppercase() || character == '_').collect()
}

/// The parts of a text that are about clusterd's own flags: what follows its name up to the command, and what is
/// quoted by itself. Other programs have flags, too.
fn own_flags(text: &str) -> BTreeSet<&str> {
    let mut own = BTreeSet::new();
    for line in text.lines() {
        for (at, name) in line.match_indices("clusterd ") {
            let rest = line[at + name.len()..].split('`').next().unwrap_or_default();
            own.extend(flags(rest.split(" -- ").next().unwrap_or_default()));
        }
        for quote in ["`--", "\"--"] {
            let spans = line.match_indices(quote).map(|(at, _)| &line[at + 1..]);
            own.extend(spans.filter_map(|span| flags(span.split(['`', '"']).next()?).pop_first()));
        }
    }
    own
}

/// What follows clusterd's name in code and in what is typed, if it is a word.
fn named_verbs(page: &str) -> BTreeSet<&str> {
    let typed = page.lines().filter_map(|line| line.strip_prefix("$ "));
    let calls = code_spans(page).chain(typed).filter_map(|call| call.strip_prefix("clusterd "));
    let words = calls.filter_map(|arguments| arguments.split(' ').next());
    words.filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase())).collect()
}

#[test]
fn every_flag_that_is_named_exists() {
    let help = help();
    let helps: Vec<String> = verbs(&help).into_iter().map(help_of).collect();
    let mut existing = flags(&help);
    existing.extend(helps.iter().flat_map(|help| flags(help)));
    for name in PAGES.iter().chain(&FILES) {
        let text = text(name);
        let missing = lacking(&own_flags(&text), &existing);
        assert!(missing.is_empty(), "{name} names {missing:?}, which clusterd --help does not");
    }
}

#[test]
fn every_flag_is_a_documented_setting_or_in_the_reference() {
    let (help, settings, reference) = (help(), text(SETTINGS), text(REFERENCE));
    let others = flags(section(&reference, "## Command line"));
    let is_setting = |flag: &str| settings.contains(&format!("`{flag}"));
    let unnamed: Vec<_> =
        flags(&help).into_iter().filter(|flag| !others.contains(flag) && !is_setting(flag)).collect();
    assert!(unnamed.is_empty(), "neither {SETTINGS} nor {REFERENCE} has {unnamed:?}");
}

#[test]
fn the_reference_has_every_verb_and_its_flags() {
    let (help, reference) = (help(), text(REFERENCE));
    let verbs = verbs(&help);
    assert!(verbs.len() > 11, "{verbs:?}");
    let commands = section(&reference, "## Commands");
    let named = named_verbs(commands);
    assert_eq!(lacking(&verbs, &named), [""; 0], "{REFERENCE} lacks them");
    for verb in verbs {
        let help = help_of(verb);
        let mut unnamed = lacking(&flags(&help), &flags(commands));
        unnamed.retain(|flag| *flag != "--help");
        assert!(unnamed.is_empty(), "{REFERENCE} lacks {unnamed:?} of {verb}");
    }
}

#[test]
fn every_verb_that_is_named_exists() {
    let help = help();
    let verbs = verbs(&help);
    // It names what there is not.
    for name in PAGES.iter().filter(|name| **name != "docs/out-of-scope.md") {
        let page = text(name);
        let missing = lacking(&named_verbs(&page), &verbs);
        assert!(missing.is_empty(), "{name} names {missing:?}, which clusterd --help does not");
    }
}

#[test]
fn every_variable_of_a_setting_is_documented() {
    let (help, settings, reference) = (help(), text(SETTINGS), text(REFERENCE));
    let mut documented = variables(&settings);
    documented.extend(variables(&reference));
    let unnamed = lacking(&variables(&help), &documented);
    assert!(unnamed.is_empty(), "neither {SETTINGS} nor {REFERENCE} has {unnamed:?}");
}

#[test]
fn every_exit_code_that_clusterd_itself_ends_with_is_in_the_reference() {
    let reference = text(REFERENCE);
    let documented: BTreeSet<&str> = first_cells(section(&reference, "## Exit codes")).collect();
    let cases: [(&[&str], i32); 6] = [
        (&["--check"], 0),
        // An address of no machine (RFC 5737).
        (&["--bind", "192.0.2.1:3000"], 1),
        (&["--no-such-flag"], 2),
        (&["--config", "/dev/null/none", "--check"], 78),
        (&["--check", "--", "/dev/null"], 126),
        (&["--check", "--", "no-such-program"], 127),
    ];
    for (arguments, code) in cases {
        assert_eq!(output(arguments).status.code(), Some(code), "{arguments:?}");
        assert!(documented.contains(&*code.to_string()), "{REFERENCE} lacks {code}");
    }
    let others: Vec<_> = documented.iter().filter_map(|cell| cell.parse::<i32>().ok()).collect();
    assert_eq!(others.len(), cases.len(), "{others:?}");
}
