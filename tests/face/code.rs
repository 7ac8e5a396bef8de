//! What only the code knows: events, refusals, variables.
//!
//! It reads the sources as text, and finds an enum wherever it stands.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::commands::{help, variables};
use super::{API, FILES, PAGES, REFERENCE, code_spans, first_cells, lacking, path, section, text};

/// Every Rust file below a folder, with its name.
pub fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut sources = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources.extend(self::sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            sources.push((path.display().to_string(), text));
        }
    }
    sources
}

/// The variants of the enum of this name, in kebab case, as serde writes them.
fn variants(sources: &[(String, String)], name: &str) -> BTreeSet<String> {
    let head = format!("enum {name} {{\n");
    let body = sources.iter().find_map(|(_, text)| text.split_once(&head)).expect(name).1;
    let body = body.split("\n}").next().expect("an end");
    let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
    let names = lines.filter_map(|line| line.split([' ', ',', '(', '{']).next());
    names.filter(|name| name.starts_with(|first: char| first.is_ascii_uppercase())).map(kebab).collect()
}

fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for (at, character) in name.char_indices() {
        if at > 0 && character.is_ascii_uppercase() {
            kebab.push('-');
        }
        kebab.push(character.to_ascii_lowercase());
    }
    kebab
}

/// What the rows of a table are about: the code in the first cells.
fn rows(section: &str) -> BTreeSet<&str> {
    first_cells(section).flat_map(code_spans).collect()
}

#[test]
fn the_api_page_has_every_event_and_no_other() {
    let (sources, reference) = (sources(&path("src")), text(API));
    let events = variants(&sources, "EventKind");
    assert!(events.len() > 15, "{events:?}");
    let events: BTreeSet<&str> = events.iter().map(String::as_str).collect();
    let mut documented = rows(section(&reference, "## Events"));
    documented.remove("event");
    assert_eq!(documented, events);
}

/// The names of tests in a page: a module, and a sentence.
fn named_tests(page: &str) -> Vec<(&str, &str)> {
    let names = super::code_spans(page).filter_map(|span| span.split_once("::"));
    names
        .filter(|(_, name)| name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        .collect()
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let page = text("docs/security.md");
    let sources = sources(&path("tests/e2e"));
    let named = named_tests(&page);
    assert!(named.len() > 20, "{named:?}");
    for (module, name) in named {
        let is_there = |(file, source): &(String, String)| {
            (file.ends_with(&format!("/{module}.rs")) || file.contains(&format!("/{module}/")))
                && source.contains(&format!("fn {name}()"))
        };
        assert!(sources.iter().any(is_there), "{module}::{name}");
    }
}

#[test]
fn the_api_page_has_every_code_of_a_refusal_and_no_other() {
    let (sources, reference) = (sources(&path("src/control")), text(API));
    let codes = variants(&sources, "Code");
    assert!(codes.len() > 8, "{codes:?}");
    let codes: BTreeSet<&str> = codes.iter().map(String::as_str).collect();
    let api = section(&reference, "## HTTP API");
    let named: BTreeSet<&str> = code_spans(api).collect();
    assert_eq!(lacking(&codes, &named), [""; 0], "{API} lacks them");
    let (_, refusals) = api.split_once("**A refusal**").expect("refusals");
    let second_cells = refusals.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").nth(1));
    let mut documented: BTreeSet<&str> = second_cells.flat_map(code_spans).collect();
    documented.remove("code");
    assert_eq!(lacking(&documented, &codes), [""; 0], "there are no such codes");
}

/// A variable is read or given if a string of the program is its name, or if the help has it.
#[test]
fn every_variable_that_is_named_exists_and_the_reference_has_those_that_are_no_settings() {
    let (sources, help, reference) = (sources(&path("src")), help(), text(REFERENCE));
    let strings = sources.iter().flat_map(|(_, text)| text.split('"'));
    let own: BTreeSet<&str> = strings.filter(|string| variables(string).contains(string)).collect();
    let mut existing = variables(&help);
    let others = lacking(&own, &existing).into_iter().collect();
    assert_eq!(lacking(&others, &variables(&reference)), [""; 0], "{REFERENCE} lacks them");
    existing.extend(own);
    for name in PAGES.iter().chain(&FILES) {
        let text = text(name);
        let mut missing = lacking(&variables(&text), &existing);
        // Those are read by the tests.
        missing.retain(|name| !name.starts_with("CLUSTERD_TEST_"));
        assert!(missing.is_empty(), "{name} names {missing:?}, which the program does not");
    }
}
