//! Our own file with a table for each app, `[app.NAME]`: read into apps, and written from them.
//!
//! What stands in a table is what stands in the file of a single app (see [`super::super::file`]), and the keys of
//! [`own_keys`]. What is written is read again as the same.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::error::{Invalid, Problem, Reason};
use super::super::file::{self, Name, Reading, entries, strings};
use super::super::kind::Arity;
use super::super::origin::Value;
use super::super::setting::Key;
use super::super::table::{self, keys};
use super::own_keys::{self, Form};
use super::{App, Apps, Run, Script, Warning, words};
use crate::controls;

/// The table that the apps' tables are in.
const APP: &str = "app";

/// Whether this is a file with tables of apps, and not one app's own.
pub(crate) fn has_apps(text: &str) -> bool {
    let (table, errors) = DeTable::parse_recoverable(text);
    errors.is_empty() && table.get_ref().iter().any(|(name, _)| name.get_ref() == APP)
}

/// Reads the text of the file at `path`.
///
/// # Errors
/// Everything that cannot be read.
pub(crate) fn read(path: &Path, text: &str) -> Result<Apps, Invalid> {
    let mut file = Reading::new(path, text);
    let mut apps = Apps::default();
    let mut problems = Vec::new();
    let table = file.parse();
    for (name, value) in table.iter().flat_map(|table| entries(table.get_ref())) {
        match (name.get_ref().as_ref(), value.get_ref()) {
            (APP, DeValue::Table(tables)) => {
                for (name, value) in entries(tables) {
                    let mut reading = ReadingApp::new(file.of_another_part());
                    let app = reading.app(name, value);
                    problems.append(&mut reading.file.contents.problems);
                    apps.warnings.append(&mut reading.warnings);
                    apps.apps.extend(app);
                }
            }
            (APP, _) => file.wrong(APP, value, Reason::new("not a table of apps").hint(EXAMPLE)),
            (key, _) if table::named(key).is_some() || key == table::COMMAND => {
                let place = format!("{}: {key}", file.origin(&name.span()));
                let reason = Reason::new("a setting of one app, in a file with tables of apps");
                problems
                    .push(Problem::at(place, reason.hint(format!("put {key} into the table of its app"))));
            }
            _ => file.unknown(name, &[APP]),
        }
    }
    let mut all = file.contents.problems;
    all.append(&mut problems);
    if apps.apps.is_empty() && all.is_empty() {
        all.push(Problem::at(path.display(), Reason::new("names no app").hint(EXAMPLE)));
    }
    if all.is_empty() { Ok(apps) } else { Err(Invalid::new(all)) }
}

const EXAMPLE: &str = "begin an app with its name, such as [app.web], and its command";

struct ReadingApp<'a> {
    file: Reading<'a>,
    warnings: Vec<Warning>,
    own: BTreeMap<&'static str, Vec<Value>>,
    profiles: BTreeMap<String, Vec<Value>>,
}

impl<'a> ReadingApp<'a> {
    fn new(file: Reading<'a>) -> Self {
        Self { file, warnings: Vec::new(), own: BTreeMap::new(), profiles: BTreeMap::new() }
    }

    /// `None` where something is wrong with it as a whole.
    fn app(&mut self, name: &Name<'_>, value: &Spanned<DeValue<'_>>) -> Option<App> {
        let called = Value::new(keys::name.key.name, name.get_ref().as_ref(), self.file.origin(&name.span()));
        let DeValue::Table(table) = value.get_ref() else {
            let reason = Reason::new("not a table").hint(EXAMPLE);
            self.file
                .contents
                .problems
                .push(Problem::at(format!("{}: {APP}.{}", called.origin, called.text), reason));
            return None;
        };
        for (name, value) in entries(table) {
            self.entry(&called, name, value);
        }
        let run = self.run(&called);
        let mut own = std::mem::take(&mut self.own);
        let mut take = |name| own.remove(name).unwrap_or_default();
        Some(App {
            run: run?,
            appends_profile: take(own_keys::APPEND_ENV_TO_NAME).iter().any(|value| value.text == "true"),
            autostart: take(own_keys::AUTOSTART).iter().all(|value| value.text == "true"),
            depends_on: take(own_keys::DEPENDS_ON),
            name: called,
            settings: std::mem::take(&mut self.file.contents.layer),
            profiles: std::mem::take(&mut self.profiles),
        })
    }

    fn entry(&mut self, app: &Value, name: &Name<'_>, value: &Spanned<DeValue<'_>>) {
        let key = name.get_ref().as_ref();
        if key == keys::name.key.name {
            let hint = format!("leave it out: the app is called {} by its table", app.text);
            self.file.wrong(keys::name.key.name, value, Reason::new("a second name").hint(hint));
        } else if let (true, DeValue::Table(table)) = (key == keys::env.key.name, value.get_ref()) {
            self.env(table);
        } else if let Some(own) = own_keys::OWN.iter().find(|own| own.name == key) {
            self.own(own.name, own.form, value);
        } else if !self.file.known(key, value) {
            self.file.unknown(name, &own_keys::names().collect::<Vec<_>>());
        }
    }

    /// Variables, and tables of variables that are in force with `--env NAME`.
    fn env(&mut self, table: &DeTable<'_>) {
        for (name, value) in entries(table) {
            let mut of_one = self.file.of_another_part();
            match value.get_ref() {
                DeValue::Table(profile) => {
                    for (name, value) in entries(profile) {
                        of_one.variable(name, value);
                    }
                    let values = of_one.contents.layer.of(&keys::env.key).to_vec();
                    self.profiles.insert(name.get_ref().to_string(), values);
                }
                _ => {
                    of_one.variable(name, value);
                    for value in of_one.contents.layer.values() {
                        self.file.contents.layer.add(value.clone());
                    }
                }
            }
            self.file.contents.problems.append(&mut of_one.contents.problems);
        }
    }

    fn own(&mut self, name: &'static str, form: Form, value: &Spanned<DeValue<'_>>) {
        let texts = match (form, value.get_ref()) {
            (Form::Truth, DeValue::Boolean(_)) => self.file.text_of(value).map(|text| vec![text]),
            (Form::Text, DeValue::String(text)) => Some(vec![text.to_string()]),
            (Form::Texts, DeValue::String(line)) => Some(words::split(line)),
            (Form::Texts, DeValue::Array(list)) => strings(list),
            _ => None,
        };
        let Some(texts) = texts.filter(|texts| !texts.iter().any(|text| text.contains('\0'))) else {
            let accepts = match form {
                Form::Text => "a text",
                Form::Texts => "a list of texts",
                Form::Truth => "true or false",
            };
            return self.file.wrong(name, value, Reason::new(format!("not {accepts}")));
        };
        let values = texts.into_iter().map(|text| self.file.value(name, text, value)).collect();
        self.own.insert(name, values);
    }

    fn run(&mut self, app: &Value) -> Option<Run> {
        let command = self.file.contents.command.take();
        let mut take = |name| self.own.remove(name).unwrap_or_default();
        let texts = |values: Vec<Value>| values.into_iter().map(|value| value.text).collect::<Vec<_>>();
        let script = take(own_keys::SCRIPT).pop();
        let of_script = [own_keys::INTERPRETER, own_keys::INTERPRETER_ARGS, own_keys::ARGS].map(take);
        let vain = of_script.iter().flatten().next().cloned();
        let [interpreter, interpreter_args, args] = of_script.map(texts);
        let problem = match (command, script, vain) {
            (Some((words, origin)), None, None) => {
                let words = words.into_iter().map(|word| word.to_string_lossy().into_owned()).collect();
                return Some(Run::Command { words, origin });
            }
            (None, Some(script), _) if !script.text.is_empty() => {
                let interpreter = interpreter.into_iter().next();
                return Some(Run::Script(Script { script, interpreter, interpreter_args, args }));
            }
            (Some(_), Some(script), _) => {
                Problem::with(&script, Reason::new("cannot be used with command").hint("use one of them"))
            }
            (Some(_), None, Some(vain)) => {
                let hint = "put all words into command, or use script instead of it";
                Problem::with(&vain, Reason::new("has no effect without script").hint(hint))
            }
            // What is wrong with the command has been said.
            _ if !self.file.contents.problems.is_empty() => return None,
            _ => {
                let place = format!("{}: {APP}.{}", app.origin, app.text);
                let hint = format!("add {} = {}, or a script", table::COMMAND, table::COMMAND_EXAMPLE);
                Problem::at(place, Reason::new("neither a command nor a script").hint(hint))
            }
        };
        self.file.contents.problems.push(problem);
        None
    }
}

/// The text of a file with these apps. Each warning becomes a comment, above the app that it is about.
pub(crate) fn write(apps: &Apps) -> String {
    let mut blocks = Vec::new();
    let comments = |of: Option<&str>| -> String {
        let of_app = apps.warnings.iter().filter(|warning| warning.app.as_deref() == of);
        of_app.map(|warning| comment(&warning.problem.to_string())).collect()
    };
    let about_all = comments(None);
    blocks.extend((!about_all.is_empty()).then_some(about_all));
    for app in &apps.apps {
        blocks.push(format!("{}{}", comments(Some(&app.name.text)), app_text(app)));
    }
    blocks.join("\n")
}

fn comment(text: &str) -> String {
    controls::blanked_lines(text).lines().map(|line| format!("# {line}\n")).collect()
}

fn app_text(app: &App) -> String {
    let head = format!("{APP}.{}", key(&app.name.text));
    let mut lines = format!("[{head}]\n");
    let mut put =
        |name: &str, text: String| writeln!(lines, "{name} = {text}").expect("a string takes everything");
    match &app.run {
        Run::Command { words, .. } => put(table::COMMAND, list(words)),
        Run::Script(script) => {
            put(own_keys::SCRIPT, string(&script.script.text));
            script.interpreter.iter().for_each(|text| put(own_keys::INTERPRETER, string(text)));
            for (name, texts) in
                [(own_keys::INTERPRETER_ARGS, &script.interpreter_args), (own_keys::ARGS, &script.args)]
            {
                if !texts.is_empty() {
                    put(name, list(texts));
                }
            }
        }
    }
    if !app.depends_on.is_empty() {
        let names: Vec<_> = app.depends_on.iter().map(|value| value.text.clone()).collect();
        put(own_keys::DEPENDS_ON, list(&names));
    }
    if app.appends_profile {
        put(own_keys::APPEND_ENV_TO_NAME, "true".to_owned());
    }
    if !app.autostart {
        put(own_keys::AUTOSTART, "false".to_owned());
    }
    for setting in table::all().filter(|setting| !is_written_elsewhere(setting)) {
        let values = app.settings.of(setting);
        if !values.is_empty() {
            put(setting.name, scalars(values, setting.is_list(), setting.values.is_text()));
        }
    }
    lines += &variables(&format!("{head}.{}", keys::env.key.name), app.settings.of(&keys::env.key));
    for (profile, values) in &app.profiles {
        let head = format!("{head}.{}.{}", keys::env.key.name, key(profile));
        let table = variables(&head, values);
        lines += &if table.is_empty() { format!("\n[{head}]\n") } else { table };
    }
    lines
}

fn is_written_elsewhere(key: &Key) -> bool {
    key.name == keys::name.key.name || matches!(key.values.arity(), Arity::Map { .. })
}

fn variables(head: &str, values: &[Value]) -> String {
    if values.is_empty() {
        return String::new();
    }
    // Of one name, the last counts; a table may have it once.
    let last: BTreeMap<_, _> = values.iter().filter_map(|value| value.text.split_once('=')).collect();
    let name = |name: &str| if file::is_setting(name) { string(name) } else { key(name) };
    let lines = last.iter().map(|(called, text)| format!("{} = {}\n", name(called), string(text)));
    format!("\n[{head}]\n{}", lines.collect::<String>())
}

fn scalars(values: &[Value], is_list: bool, is_text: bool) -> String {
    let mut each = values.iter().map(|value| scalar(&value.text, is_text));
    match is_list {
        true => format!("[{}]", each.collect::<Vec<_>>().join(", ")),
        false => each.next_back().unwrap_or_default(),
    }
}

/// A number or a truth as such where that is read as the same text.
fn scalar(text: &str, is_text: bool) -> String {
    let is_number = text.parse::<i64>().is_ok_and(|number| number.to_string() == text);
    let is_bare = !is_text && (is_number || text == "true" || text == "false");
    if is_bare { text.to_owned() } else { string(text) }
}

fn list(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|text| string(text)).collect::<Vec<_>>().join(", "))
}

fn string(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn key(name: &str) -> String {
    let is_bare =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { name.to_owned() } else { string(name) }
}

#[cfg(test)]
mod tests;
