//! The settings that the file names: TOML into strings that know their line.
//!
//! It finds what is no TOML, no key and no value; what a value means, [`super::resolve`] knows.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::error::{Problem, Reason};
use super::kind::Arity;
use super::lines::Lines;
use super::origin::{Layer, Origin, Value};
use super::parse::assignment;
use super::setting::Key;
use super::table;

/// The longest file that is read, in bytes.
pub(crate) const MAX_LEN: u64 = 1 << 20;

/// What the file says.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The settings.
    pub layer: Layer,
    /// The command, at least a program, and where it stands.
    pub command: Option<(Vec<OsString>, Origin)>,
    /// What cannot be read.
    pub problems: Vec<Problem>,
}

/// Reads the file itself; a relative path starts from this folder.
///
/// # Errors
/// It cannot be read, or is longer than [`MAX_LEN`].
pub(crate) fn load(path: &Path, folder: Option<&Path>) -> Result<String, Problem> {
    let unreadable = |error: io::Error| {
        Problem::at(path.display(), Reason::new(format!("cannot read the configuration file: {error}")))
    };
    let mut text = String::new();
    // One byte more than allowed tells a file that is too long from one that just fits.
    let read = File::open(folder.map_or_else(|| path.to_owned(), |folder| folder.join(path)))
        .and_then(|file| file.take(MAX_LEN + 1).read_to_string(&mut text))
        .map_err(unreadable)?;
    if read as u64 > MAX_LEN {
        let too_long = Reason::new(format!("the configuration file is longer than {MAX_LEN} bytes"));
        return Err(Problem::at(path.display(), too_long));
    }
    Ok(text)
}

/// Reads the text of the file at `path`.
pub(crate) fn read(path: &Path, text: &str) -> Contents {
    let mut reading = Reading::new(path, text);
    let table = reading.parse();
    for (key, value) in table.iter().flat_map(|table| entries(table.get_ref())) {
        reading.entry(key, value);
    }
    reading.contents
}

/// What is in a table, in the order of the file.
pub(super) fn entries<'a, 'b>(table: &'b DeTable<'a>) -> Vec<(&'b Name<'a>, &'b Spanned<DeValue<'a>>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries
}

/// A key of the file, and where it stands.
pub(super) type Name<'a> = Spanned<std::borrow::Cow<'a, str>>;

/// What has been read of a table so far.
#[derive(Debug)]
pub(super) struct Reading<'a> {
    path: &'a Path,
    text: &'a str,
    lines: Rc<Lines>,
    pub(super) contents: Contents,
}

impl<'a> Reading<'a> {
    /// Nothing yet of this file.
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, lines: Rc::new(Lines::of(text)), contents: Contents::default() }
    }

    /// Nothing yet of another part of the same file.
    pub(super) fn of_another_part(&self) -> Self {
        Self { lines: Rc::clone(&self.lines), contents: Contents::default(), ..*self }
    }

    /// The file's table; `None` if it is no TOML, which is a problem.
    pub(super) fn parse(&mut self) -> Option<Spanned<DeTable<'a>>> {
        let (table, errors) = DeTable::parse_recoverable(self.text);
        for error in &errors {
            let line = self.line(&error.span().unwrap_or(0..0));
            let named =
                self.text.get(error.span().unwrap_or(0..0)).filter(|_| error.message() == "duplicate key");
            let named = named.map(|name| format!(": {}", super::origin::legible(name))).unwrap_or_default();
            let what = format!("not valid TOML: {}{named}", error.message().replace('\n', ", "));
            self.problem(line, Reason::new(what));
        }
        errors.is_empty().then_some(table)
    }

    fn entry(&mut self, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        if !self.known(name.get_ref(), value) {
            self.unknown(name, &["app"]);
        }
    }

    /// Reads the command or a setting; whether it is either.
    pub(super) fn known(&mut self, name: &str, value: &Spanned<DeValue<'_>>) -> bool {
        if name == table::COMMAND {
            self.command(value);
        } else if let Some(key) = table::named(name) {
            self.setting(key, value);
        } else {
            return false;
        }
        true
    }

    /// A key that means nothing here; `others` are those that do, beside the settings.
    pub(super) fn unknown(&mut self, name: &Name<'_>, others: &[&'static str]) {
        let name_read = name.get_ref().as_ref();
        let place = format!("{}: {}", self.origin(&name.span()), super::origin::legible(name_read));
        let hint = match nearest_key(name_read, others) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "`clusterd --show-config` lists every key".to_owned(),
        };
        self.contents.problems.push(Problem::at(place, Reason::new("no such key").hint(hint)));
    }

    fn setting(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>) {
        let otherwise = || match key.values.arity() {
            Arity::List { example } => Reason::new("neither a value nor a list of values")
                .hint(format!("use a value or a list, such as {example}")),
            Arity::Map { example } => Reason::new("not a table of texts")
                .hint(format!("use a table, such as {} = {example}", key.name)),
            Arity::One | Arity::Switch => Reason::new("not a single value")
                .hint(format!("use one value, such as {:?}", key.default.unwrap_or_default())),
        };
        match value.get_ref() {
            DeValue::Table(entries) if matches!(key.values.arity(), Arity::Map { .. }) => {
                for (name, value) in self::entries(entries) {
                    self.named_value(key, name, value, otherwise());
                }
            }
            DeValue::Array(values) if key.is_list() => {
                for value in values {
                    self.scalar(key, value, otherwise());
                }
            }
            _ => self.scalar(key, value, otherwise()),
        }
    }

    /// Every scalar becomes its text: whether a number or a word is right there, the setting's parser decides, unless it
    /// has to be a text.
    fn scalar(&mut self, key: &'static Key, value: &Spanned<DeValue<'_>>, otherwise: Reason) {
        let Some(text) = self.text_of(value) else { return self.wrong(key.name, value, otherwise) };
        if key.values.is_text() && !matches!(value.get_ref(), DeValue::String(_)) {
            let hint = format!("use quotes: {} = {text:?}", key.name);
            return self.wrong(key.name, value, Reason::new("not a text").hint(hint));
        }
        let value = self.value(key.name, text, value);
        self.contents.layer.add(value);
    }

    /// A variable for workers.
    pub(super) fn variable(&mut self, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        let otherwise = Reason::new("neither a text nor a table of texts");
        self.named_value(&table::keys::env.key, name, value, otherwise);
    }

    /// One entry of a table, as the flag has it: `NAME=VALUE`.
    fn named_value(
        &mut self,
        key: &'static Key,
        name: &Name<'_>,
        value: &Spanned<DeValue<'_>>,
        otherwise: Reason,
    ) {
        let is_quoted = self.text.get(name.span()).is_some_and(|name| name.starts_with(['"', '\'']));
        let name = name.get_ref();
        let told = self.value(key.name, String::new(), value);
        let literal = told.literal.as_ref().map(|literal| format!("{{ {name} = {literal} }}"));
        let told = Value { literal, ..told };
        // In TOML everything behind the head of a table is in it.
        if !is_quoted && is_setting(name) {
            let hint = format!(
                "put {name} above [{}]: all that follows that line is in the table; if a variable is meant, use quotes: \"{name}\"",
                key.name
            );
            let reason = Reason::new("a setting of clusterd, and no variable").hint(hint);
            return self.contents.problems.push(Problem::with(&told, reason));
        }
        let named = self.text_of(value).ok_or(otherwise).and_then(|text| assignment(name, &text));
        match named {
            Ok(text) => self.contents.layer.add(Value { text, ..told }),
            Err(reason) => self.contents.problems.push(Problem::with(&told, reason)),
        }
    }

    /// A scalar as text.
    pub(super) fn text_of(&self, value: &Spanned<DeValue<'_>>) -> Option<String> {
        Some(match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(integer) => integer.to_string(),
                Err(_) => integer.as_str().to_owned(),
            },
            DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => self.spelled(value).to_owned(),
            DeValue::Array(_) | DeValue::Table(_) => return None,
        })
    }

    fn command(&mut self, value: &Spanned<DeValue<'_>>) {
        let words = match value.get_ref() {
            DeValue::Array(words) => strings(words),
            _ => None,
        };
        match words {
            Some(words) if words.iter().any(|word| word.contains('\0')) => {
                let zero =
                    Reason::new("not a command: neither a program nor an argument can hold a zero byte");
                self.wrong(table::COMMAND, value, zero);
            }
            Some(words) if words.first().is_some_and(|program| !program.is_empty()) => {
                let command = words.into_iter().map(OsString::from).collect();
                self.contents.command = Some((command, self.origin(&value.span())));
            }
            _ => {
                let hint = format!(
                    "use a list of the program and its arguments, such as {}",
                    table::COMMAND_EXAMPLE
                );
                self.wrong(table::COMMAND, value, Reason::new("not a command").hint(hint));
            }
        }
    }

    pub(super) fn wrong(&mut self, name: &'static str, value: &Spanned<DeValue<'_>>, reason: Reason) {
        let value = self.value(name, String::new(), value);
        self.contents.problems.push(Problem::with(&value, reason));
    }

    fn problem(&mut self, line: usize, reason: Reason) {
        let path = self.path.to_owned();
        let place = Origin::File { path, line };
        self.contents.problems.push(Problem::at(place, reason));
    }

    pub(super) fn value(&self, name: &'static str, text: String, value: &Spanned<DeValue<'_>>) -> Value {
        let spelled = self.spelled(value);
        let literal = match spelled.split_once('\n') {
            Some((first_line, _)) => format!("{first_line} ..."),
            None => spelled.to_owned(),
        };
        Value { name, text, literal: Some(literal), origin: self.origin(&value.span()) }
    }

    fn spelled(&self, value: &Spanned<DeValue<'_>>) -> &str {
        self.text.get(value.span()).unwrap_or_default()
    }

    pub(super) fn origin(&self, span: &Range<usize>) -> Origin {
        Origin::File { path: self.path.to_owned(), line: self.line(span) }
    }

    fn line(&self, span: &Range<usize>) -> usize {
        self.lines.at(span.start)
    }
}

/// Whether a file may have this name where a variable was not meant.
pub(crate) fn is_setting(name: &str) -> bool {
    name == table::COMMAND || table::named(name).is_some()
}

pub(super) fn strings(values: &DeArray<'_>) -> Option<Vec<String>> {
    values.iter().map(|value| value.get_ref().as_str().map(str::to_owned)).collect()
}

/// The key that was probably meant, if one is near enough to be worth naming.
fn nearest_key(name: &str, others: &[&'static str]) -> Option<&'static str> {
    let names = table::all().map(|key| key.name).chain([table::COMMAND]);
    nearest(name, names.chain(others.iter().copied()))
}

/// The word that was probably meant, if one is near enough to be worth naming.
pub(super) fn nearest<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    words
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::super::table::keys;
    use super::*;

    fn read_text(text: &str) -> Contents {
        read(Path::new("clusterd.toml"), text)
    }

    fn problems(text: &str) -> String {
        let lines: Vec<_> = read_text(text).problems.iter().map(Problem::to_string).collect();
        lines.join("\n")
    }

    #[test]
    fn scalars_and_lists_become_texts_with_lines() {
        let contents = read_text(
            "# first\nworkers = 0x10\nport = [\n  3_000,\n  \"80:8080\",\n]\nkill-timeout = '9s'\n",
        );
        let shown = |key| -> Vec<_> {
            let values = contents.layer.of(key).iter();
            values.map(|value| format!("{} {}", value.origin, value.text)).collect()
        };
        assert_eq!(shown(&keys::workers.key), ["clusterd.toml:2 16"]);
        assert_eq!(shown(&keys::port.key), ["clusterd.toml:4 3000", "clusterd.toml:5 80:8080"]);
        assert_eq!(shown(&keys::kill_timeout.key), ["clusterd.toml:7 9s"]);
        assert!(contents.problems.is_empty());
    }

    #[test]
    fn a_table_of_variables_becomes_flags() {
        let texts = |text: &str| -> Vec<_> {
            let contents = read_text(text);
            assert!(contents.problems.is_empty(), "{:?}", contents.problems);
            let values = contents.layer.of(&keys::env.key).iter();
            values.map(|value| format!("{} {}", value.origin, value.text)).collect()
        };
        let expected = [
            "clusterd.toml:2 B=x y",
            "clusterd.toml:3 A=5",
            "clusterd.toml:4 C=true",
            "clusterd.toml:5 D=1.50",
        ];
        assert_eq!(texts("[env]\nB = 'x y'\nA = 5\nC = true\nD = 1.50\n"), expected);
        assert_eq!(texts("env = { A = '' }\nworkers = 2"), ["clusterd.toml:1 A="]);
        assert_eq!(texts("env.A = 'b=c'"), ["clusterd.toml:1 A=b=c"]);
        assert_eq!(
            texts("[env]\n'user' = 'joe'\n\"port\" = 5"),
            ["clusterd.toml:2 user=joe", "clusterd.toml:3 port=5"]
        );
        assert_eq!(texts("env = ['A=1', 'B=2']"), ["clusterd.toml:1 A=1", "clusterd.toml:1 B=2"]);
        assert_snapshot!(problems("[env]\nA = [1]\nworkers = 4\n[env.b]\nc = 1"), @r#"
        clusterd.toml:2: env = { A = [1] }: not a table of texts
        hint: use a table, such as env = { NODE_ENV = "production" }
        clusterd.toml:3: env = { workers = 4 }: a setting of clusterd, and no variable
        hint: put workers above [env]: all that follows that line is in the table; if a variable is meant, use quotes: "workers"
        clusterd.toml:4: env = { b = [env.b] }: not a table of texts
        hint: use a table, such as env = { NODE_ENV = "production" }
        "#);
    }

    #[test]
    fn a_path_is_no_number() {
        assert_snapshot!(problems("cwd = 5\nwatch = ['src', true]"), @r#"
        clusterd.toml:1: cwd = 5: not a text
        hint: use quotes: cwd = "5"
        clusterd.toml:2: watch = true: not a text
        hint: use quotes: watch = "true"
        "#);
    }

    #[test]
    fn an_empty_list_names_nothing() {
        assert_eq!(read_text("bind = []").layer, Layer::default());
    }

    #[test]
    fn the_command_is_a_list_of_strings() {
        let contents = read_text("\ncommand = [\"./my-server\", \"--x\", \"\"]");
        let (words, origin) = contents.command.expect("a command");
        assert_eq!(words, ["./my-server", "--x", ""]);
        assert_eq!(origin.to_string(), "clusterd.toml:2");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        assert_snapshot!(problems("wrokers = 4\n\nqueue_timeout = \"8s\"\nlisten = 3\n\"a b\" = 1\n[log]\nlevel = 1\n"), @r#"
        clusterd.toml:1: wrokers: no such key
        hint: did you mean workers?
        clusterd.toml:3: queue_timeout: no such key
        hint: did you mean queue-timeout?
        clusterd.toml:4: listen: no such key
        hint: `clusterd --show-config` lists every key
        clusterd.toml:5: "a b": no such key
        hint: `clusterd --show-config` lists every key
        clusterd.toml:6: log: no such key
        hint: `clusterd --show-config` lists every key
        "#);
        assert_snapshot!(problems("workers = [1, 2]\nport = [[1]]\nbind = { a = 1 }\nkill-timeout = [\n\"8s\"]"), @r#"
        clusterd.toml:1: workers = [1, 2]: not a single value
        hint: use one value, such as "max"
        clusterd.toml:2: port = [1]: neither a value nor a list of values
        hint: use a value or a list, such as [3000, "80:8080"]
        clusterd.toml:3: bind = { a = 1 }: neither a value nor a list of values
        hint: use a value or a list, such as ["127.0.0.1:3000", "[::1]:80:8080"]
        clusterd.toml:4: kill-timeout = [ ...: not a single value
        hint: use one value, such as "1600ms"
        "#);
        assert_snapshot!(problems("command = \"./my-server --x\""), @r#"
        clusterd.toml:1: command = "./my-server --x": not a command
        hint: use a list of the program and its arguments, such as ["node", "app.js"]
        "#);
        assert_snapshot!(problems("command = []"), @r#"
        clusterd.toml:1: command = []: not a command
        hint: use a list of the program and its arguments, such as ["node", "app.js"]
        "#);
        assert_snapshot!(problems("command = [\"a\\u0000\"]"), @r#"clusterd.toml:1: command = ["a\u0000"]: not a command: neither a program nor an argument can hold a zero byte"#);
        assert_snapshot!(problems("workers = 4\nport = = 3\nkill-timeout = \"8s\nworkers = 5\n"), @r#"
        clusterd.toml:2: not valid TOML: extra `=`, expected nothing
        clusterd.toml:2: not valid TOML: unexpected key or value, expected newline, `#`
        clusterd.toml:3: not valid TOML: invalid basic string, expected `"`
        clusterd.toml:4: not valid TOML: duplicate key: workers
        "#);
        assert_snapshot!(problems("workers = 4\nworkers = 5\n"), @"clusterd.toml:2: not valid TOML: duplicate key: workers");
        let twice = "port = 1\n[env]\nA = \"1\"\n[env]\nB = \"1\"\n";
        assert_snapshot!(problems(twice), @"clusterd.toml:4: not valid TOML: duplicate key: env");
        assert_snapshot!(problems("[env]\n\"A=B\" = \"1\"\n"), @r#"
        clusterd.toml:2: env = { A=B = "1" }: not the name of a variable
        hint: use letters, digits, _, . and -, and no digit at the beginning
        "#);
        assert_snapshot!(problems("[apps.a]\nport = 1\n"), @r"
        clusterd.toml:1: apps: no such key
        hint: did you mean app?
        ");
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("clusterd.toml");
        let said = |path: &Path| {
            let problem = load(path, None).expect_err("refused").to_string();
            problem.replace(&folder.path().display().to_string(), "")
        };
        assert_snapshot!(said(&path), @"/clusterd.toml: cannot read the configuration file: No such file or directory (os error 2)");
        std::fs::write(&path, b"\xff").expect("written");
        assert_snapshot!(said(&path), @"/clusterd.toml: cannot read the configuration file: stream did not contain valid UTF-8");
        assert_snapshot!(said(folder.path()), @": cannot read the configuration file: Is a directory (os error 21)");
        std::fs::write(&path, vec![b'#'; 1 << 20]).expect("written");
        assert!(load(&path, None).is_ok());
        assert!(load(Path::new("clusterd.toml"), Some(folder.path())).is_ok());
        std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).expect("written");
        assert_snapshot!(said(&path), @"/clusterd.toml: the configuration file is longer than 1048576 bytes");
    }
}
