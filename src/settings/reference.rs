//! Every setting for people to read: `config/clusterd.toml`, `docs/settings.md` and the long help of the man page.
//!
//! It writes no file: `cargo xtask generate` does, and a test fails where that was forgotten.

use clap::builder::PossibleValue;

use super::kind::Arity;
use super::setting::{Doc, InForce, Key, Section};
use super::table::{self, SECTIONS};

/// How wide the lines of the TOML file are, in characters.
const WIDTH: usize = 110;

const TOML_HEAD: &str = "\
# The configuration of clusterd: every key, with its default and its meaning.
# Written by `cargo xtask generate` from src/settings/table.rs.
#
#   clusterd --config clusterd.toml             reads it (or CLUSTERD_CONFIG=clusterd.toml)
#   clusterd --config clusterd.toml --check     looks for errors in it
#   clusterd --config clusterd.toml --show-config
#
# Each key has the name of its flag, and a variable: CLUSTERD_QUEUE_TIMEOUT for queue-timeout, with commas between the
# values of a list. A flag overrides a variable, a variable overrides this file.
# Remove the # to change a value. Durations have a unit: 500ms, 8s, 2m.
";

const MARKDOWN_HEAD: &str = "\
# Settings

<!-- Written by `cargo xtask generate` from src/settings/table.rs. -->

Each setting is a flag, an environment variable and a key of a TOML file
([config/clusterd.toml](../config/clusterd.toml) has them all), which `--config FILE` or `CLUSTERD_CONFIG` names.

- A flag overrides its variable, `CLUSTERD_*` overrides the variables of platforms, such as `PORT`, and both override the
  file. The file overrides the default.
- A file may have a table for each app, `[app.NAME]`, with the same keys in each ([guide](guide.md#several-apps-in-a-file)). Its JSON
  Schema is [clusterd.schema.json](clusterd.schema.json).
- `port` and `bind` come from the same source: the highest of these that has either.
- An empty variable counts as unset. A list has commas in a variable, brackets in the file, and is a repeated flag.
- `clusterd --show-config` prints every value in force and where it comes from; `clusterd --check` only looks for
  errors, in the command, too.
- `clusterd reload` reads the file again. If a setting has changed that takes effect only when clusterd is started again, a
  warning names it.
";

/// The text of `config/clusterd.toml`.
pub fn toml() -> String {
    let command = format!("#{} = {}", table::COMMAND, table::COMMAND_EXAMPLE);
    let mut blocks =
        vec![TOML_HEAD.to_owned(), format!("{}{command}\n", prose(&[toml_text(table::COMMAND_DOC)]))];
    for section in SECTIONS {
        let common = section.doc.paragraphs().join(" ");
        let title =
            if common.is_empty() { section.title.to_owned() } else { format!("{}: {common}", section.title) };
        blocks.push(prose(&[title]));
        blocks.extend(section.keys.iter().map(|key| toml_key(key)));
    }
    blocks.join("\n")
}

fn toml_key(key: &Key) -> String {
    let mut lines = vec![toml_text(key.doc)];
    lines.extend(words(key).map(|(word, meaning)| format!("  {word:?}: {meaning}.")));
    let platform = key.platform_variable.map(|variable| format!(" Also the variable {variable}."));
    lines.push(format!("{}{}", facts(key).join(" "), platform.unwrap_or_default()));
    format!("{}#{} = {}\n", prose(&lines), key.name, toml_default(key))
}

/// The default as the file has it.
fn toml_default(key: &Key) -> String {
    match key.default {
        None if matches!(key.values.arity(), Arity::Map { .. }) => "{}".to_owned(),
        None => "[]".to_owned(),
        Some(bare) if bare.parse::<i64>().is_ok() || bare.parse::<bool>().is_ok() => bare.to_owned(),
        Some(text) => format!("{text:?}"),
    }
}

fn toml_text(doc: Doc) -> String {
    plain(&doc.paragraphs().join(" "))
}

/// Comments of at most [`WIDTH`] characters; a paragraph that is indented stays so.
fn prose(paragraphs: &[String]) -> String {
    let mut text = String::new();
    for paragraph in paragraphs {
        let indent = paragraph.len() - paragraph.trim_start().len();
        let start = format!("# {}", " ".repeat(indent));
        let mut line = start.clone();
        for word in paragraph.split_whitespace() {
            if line.len() > start.len() {
                if line.chars().count() + 1 + word.chars().count() > WIDTH {
                    text += &format!("{line}\n");
                    line.clone_from(&start);
                } else {
                    line.push(' ');
                }
            }
            line += word;
        }
        text += &format!("{line}\n");
    }
    text
}

/// The text of `docs/settings.md`.
pub fn markdown() -> String {
    let mut blocks = vec![MARKDOWN_HEAD.to_owned(), overview()];
    for section in SECTIONS {
        blocks.push(format!("## {}\n", section.title));
        blocks.extend(section.doc.paragraphs().iter().map(|paragraph| format!("{paragraph}\n")));
        blocks.extend(section.keys.iter().map(|key| markdown_key(key)));
    }
    blocks.push(format!("## The command\n\n{}\n", table::COMMAND_DOC.paragraphs().join("\n\n")));
    blocks.push(format!("```toml\n{} = {}\n```\n", table::COMMAND, table::COMMAND_EXAMPLE));
    blocks.join("\n")
}

fn overview() -> String {
    let row = |section: &Section| {
        let link = |key: &&Key| format!("[`{0}`](#{0})", key.name);
        let keys: Vec<_> = section.keys.iter().map(link).collect();
        format!("| {} | {} |\n", section.title, keys.join(", "))
    };
    let rows: String = SECTIONS.iter().map(row).collect();
    format!("| Section | Settings |\n|---|---|\n{rows}")
}

fn markdown_key(key: &Key) -> String {
    let mut text = format!("### {}\n\n{}\n\n", key.name, key.doc.paragraphs().join("\n\n"));
    for (word, meaning) in words(key) {
        text += &format!("- `{word}`: {meaning}.\n");
    }
    if !text.ends_with("\n\n") {
        text.push('\n');
    }
    let variables: Vec<_> = key.variables().iter().map(|variable| format!("`{variable}`")).collect();
    text += &format!(
        "- {}; {}; default {}\n",
        flags(key).join(", "),
        variables.join(", "),
        markdown_default(key)
    );
    text + &format!("- {}\n", facts(key).join(" "))
}

fn markdown_default(key: &Key) -> String {
    key.default.map_or_else(|| "none".to_owned(), |default| format!("`{default}`"))
}

/// The flag and its other names, as the command line takes them.
fn flags(key: &Key) -> Vec<String> {
    let placeholder = key.placeholder();
    let value = match key.values.arity() {
        Arity::Switch => format!("[={placeholder}]"),
        Arity::One | Arity::List { .. } | Arity::Map { .. } => format!(" {placeholder}"),
    };
    let long = [Some(key.name), key.alias].into_iter().flatten().map(|name| format!("`--{name}{value}`"));
    let short = [key.short, key.short_alias].into_iter().flatten().map(|name| format!("`-{name}{value}`"));
    let negation = key.negation.map(|name| format!("`--{name}`"));
    long.chain(short).chain(negation).collect()
}

/// What can be derived: the values, and what they go together with. Sentences.
fn facts(key: &Key) -> Vec<String> {
    let accepts = key.values.accepts();
    let mut facts = vec![match key.values.arity() {
        Arity::List { example } => format!("Values: {accepts}; several: {example}."),
        Arity::Map { example } => format!("Values: {accepts}; in the file a table: {example}."),
        Arity::One | Arity::Switch => format!("Values: {accepts}."),
    }];
    facts.extend(key.needs.map(|needed| format!("Needs {needed}.")));
    facts.extend(key.not_with.map(|(other, value)| format!("Not with {other} = {value:?}.")));
    facts.push(match key.in_force {
        InForce::AtReload => "A change takes effect at a reload.".to_owned(),
        InForce::AtNextStart => "A change takes effect at the next start.".to_owned(),
    });
    facts
}

/// The short help: one sentence, its words, and what can be derived, each on a line of its own.
pub(crate) fn help(key: &Key) -> String {
    let mut lines = vec![plain(&key.doc.sentence())];
    lines.extend(words(key).map(|(word, meaning)| format!("- {word}: {meaning}")));
    lines.push(derived(key));
    lines.join("\n")
}

/// The words that are explained, each with what it means.
fn words(key: &Key) -> impl Iterator<Item = (String, String)> {
    let explained = |word: PossibleValue| Some((word.get_name().to_owned(), word.get_help()?.to_string()));
    key.values.words().into_iter().filter_map(explained)
}

/// The long help, for the man page.
pub(crate) fn long_help(key: &Key) -> String {
    let mut paragraphs: Vec<_> = key.doc.paragraphs().iter().map(|paragraph| plain(paragraph)).collect();
    paragraphs.push(facts(key).join(" "));
    paragraphs.push(derived(key));
    paragraphs.join("\n\n")
}

/// Default, bounds and variables, as clap would write them.
fn derived(key: &Key) -> String {
    let repeatable = if key.is_list() { " [repeatable]" } else { "" };
    let range = key.values.range().map(|range| format!(" [range: {range}]")).unwrap_or_default();
    let (default, variables) = (key.default.unwrap_or("none"), key.variables().join(", "));
    format!("[default: {default}]{range}{repeatable} [env: {variables}]")
}

fn plain(text: &str) -> String {
    text.replace('`', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_in_the_tree_are_those_of_the_table() {
        const STALE: &str = "stale: run cargo xtask generate";
        assert!(include_str!("../../config/clusterd.toml") == toml(), "config/clusterd.toml is {STALE}");
        assert!(include_str!("../../docs/settings.md") == markdown(), "docs/settings.md is {STALE}");
    }

    #[test]
    fn comments_are_wrapped_and_keep_their_indentation() {
        let long = format!("  a{}", " word".repeat(30));
        let text = prose(&["short".to_owned(), long]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "# short");
        assert!(lines.len() == 3 && lines.iter().all(|line| line.len() <= WIDTH), "{text}");
        assert!(lines[1..].iter().all(|line| line.starts_with("#   ")), "{text}");
    }
}
