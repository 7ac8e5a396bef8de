//! Every message that the runbook quotes is one of the program's, and it quotes every warning and error of the log.
//!
//! A quotation has `<...>` where the program has a value. The pieces between them have to stand, in this order and with
//! a value between each two, in one string of the sources. Whether the string is ever printed is not looked at.

use super::code::sources;
use super::{path, section, text};

/// What stands for a value, in quotations as in the program's strings.
const VALUE: char = '\0';

#[test]
fn every_message_in_the_runbook_is_one_of_the_programs() {
    let strings: Vec<String> = sources(&path("src"))
        .iter()
        .flat_map(|(_, source)| strings(source))
        .map(|s| without_values(&s))
        .collect();
    let runbook = text("docs/runbook.md");
    let quoted = quotations(section(&runbook, "## By message"));
    assert!(quoted.len() > 50, "{quoted:?}");
    let invented: Vec<_> = quoted.iter().filter(|quoted| !is_said(quoted, &strings)).collect();
    assert!(invented.is_empty(), "docs/runbook.md quotes what is not in src: {invented:#?}");
}

#[test]
fn every_warning_and_error_of_the_log_is_in_the_runbook() {
    let runbook = text("docs/runbook.md");
    let quoted = quotations(section(&runbook, "## By message"));
    let sources = sources(&path("src"));
    let own = sources.iter().filter(|(name, _)| !name.contains("tests"));
    let logged: Vec<String> = own.flat_map(|(_, source)| warnings(source)).collect();
    assert!(logged.len() > 40, "{logged:?}");
    let is_explained =
        |message: &String| quoted.iter().any(|quoted| is_said(quoted, std::slice::from_ref(message)));
    let unexplained: Vec<_> = logged.iter().filter(|message| !is_explained(message)).collect();
    assert!(unexplained.is_empty(), "docs/runbook.md does not explain {unexplained:#?}");
}

/// The messages that a source logs as warnings and errors, but for those that only pass on what others say.
pub fn warnings(source: &str) -> Vec<String> {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let calls = ["warn!(", "error!("].into_iter().flat_map(|call| code.split(call).skip(1));
    let messages = calls.filter_map(|call| strings(call).into_iter().next()).map(|s| without_values(&s));
    messages.filter(|message| message.split(VALUE).any(|words| words.trim().contains(' '))).collect()
}

/// The messages that a text quotes: what is bold and code.
pub fn quotations(text: &str) -> Vec<String> {
    let bold = text.split("**").skip(1).step_by(2);
    let code = bold.filter_map(|bold| bold.strip_prefix('`')?.strip_suffix('`'));
    code.map(|code| {
        // A span that has a backquote in it has more of them around it, and a space.
        let code = code.trim_matches('`');
        code.split_whitespace().collect::<Vec<_>>().join(" ")
    })
    .collect()
}

/// Whether one of the strings, whose values are taken out, has this quotation in it.
pub fn is_said(quotation: &str, strings: &[String]) -> bool {
    let mut pieces = String::new();
    let mut rest = quotation;
    while let Some((before, after)) = rest.split_once('<') {
        pieces.push_str(before);
        pieces.push(VALUE);
        rest = after.split_once('>').map_or("", |(_, after)| after);
    }
    pieces.push_str(rest);
    let wanted = pieces.trim_matches(VALUE);
    !wanted.is_empty() && strings.iter().any(|string| string.contains(wanted))
}

/// A format string with one mark for each of its values.
pub fn without_values(string: &str) -> String {
    let mut text = String::new();
    let mut characters = string.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '{' | '}' if characters.peek() == Some(&character) => {
                characters.next();
                text.push(character);
            }
            '{' => {
                characters.by_ref().take_while(|character| *character != '}').for_each(drop);
                text.push(VALUE);
            }
            _ => text.push(character),
        }
    }
    text
}

/// Every string in a Rust source: comments, characters and lifetimes left out, escapes resolved, lines joined where
/// they are continued.
pub fn strings(source: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '\'', '/', 'r']) {
        let (before, here) = rest.split_at(at);
        let in_word = before.ends_with(|character: char| character.is_alphanumeric() || character == '_');
        rest = if here.starts_with("//") {
            here.split_once('\n').map_or("", |(_, after)| after)
        } else if let Some(after) = here.strip_prefix('"') {
            let (string, after) = quoted(after);
            strings.push(string);
            after
        } else if let Some((string, after)) = raw(here).filter(|_| !in_word) {
            strings.push(string.to_owned());
            after
        } else if let Some(after) = here.strip_prefix('\'') {
            after_character(after)
        } else {
            &here[1..]
        };
    }
    strings
}

/// A string after its opening quote, and what follows the closing one.
fn quoted(text: &str) -> (String, &str) {
    let mut string = String::new();
    let mut rest = text.chars();
    while let Some(character) = rest.next() {
        match character {
            '"' => break,
            '\\' => match rest.next() {
                // The line goes on where the next one has its first word.
                Some('\n') => rest = rest.as_str().trim_start().chars(),
                Some('n') => string.push('\n'),
                Some('t') => string.push('\t'),
                Some(escaped) => string.push(escaped),
                None => break,
            },
            character => string.push(character),
        }
    }
    (string, rest.as_str())
}

/// A raw string, such as r#"..."#, and what follows it.
fn raw(text: &str) -> Option<(&str, &str)> {
    let after = text.strip_prefix('r')?;
    let inner = after.trim_start_matches('#');
    let hashes = after.len() - inner.len();
    let inner = inner.strip_prefix('"')?;
    inner.split_once(&format!("\"{}", "#".repeat(hashes)))
}

/// What follows a character, or the quote of a lifetime, after its opening quote.
fn after_character(text: &str) -> &str {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some('\\'), Some(_)) => characters.as_str().split_once('\'').map_or("", |(_, after)| after),
        (Some(_), Some('\'')) => characters.as_str(),
        _ => text,
    }
}
