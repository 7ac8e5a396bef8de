//! One app of an ecosystem file as an [`App`].
//!
//! Pure: neither its script nor its folder is looked at.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;

use super::super::super::error::{Problem, Reason};
use super::super::super::kind::{Automatic, Kind as _};
use super::super::super::origin::{Layer, Origin, Value};
use super::super::super::parse::{AppName, Variables, assignment, name_of};
use super::super::super::table::keys as settings;
use super::super::own_keys;
use super::super::tree::{Data, Tree};
use super::super::{App, Run, Script, Warning, profile};
use super::keys::{self, Becomes, Key};
use super::serve;
use super::value::{self, Shape};

/// What comes of it.
#[derive(Debug, Default)]
pub(super) struct Converted {
    /// `None` if it cannot be read at all.
    pub app: Option<App>,
    /// What is not as it was.
    pub warnings: Vec<Warning>,
    /// What cannot be read.
    pub problems: Vec<Problem>,
}

/// A key that was given.
#[derive(Clone, Copy, Debug)]
struct Given<'a> {
    key: &'static Key,
    /// As it is spelled.
    spelled: &'a str,
    value: &'a Tree,
    /// Its place in the file.
    at: usize,
}

/// Reads the app at this place of the list.
pub(super) fn convert(path: &Path, tree: &Tree, index: usize) -> Converted {
    let Data::Map(entries) = &tree.data else {
        let line = tree.line.map(|line| format!(":{line}")).unwrap_or_default();
        let reason = Reason::new(format!("{} is no app", tree.what()));
        let hint = "use an object, such as { \"name\": \"web\", \"script\": \"app.js\" }";
        let problem = Problem::at(format!("{}{line}: apps[{index}]", path.display()), reason.hint(hint));
        return Converted { problems: vec![problem], ..Converted::default() };
    };
    let mut reading = Reading {
        path,
        label: format!("apps[{index}]"),
        given: BTreeMap::new(),
        profiles: Vec::new(),
        settings: Layer::default(),
        converted: Converted::default(),
    };
    reading.label = label(entries).unwrap_or(reading.label);
    reading.sort(entries);
    let app = reading.app(tree);
    let mut converted = Converted { app, ..reading.converted };
    if let Some(app) = &converted.app {
        for warning in &mut converted.warnings {
            warning.app = Some(app.name.text.clone());
        }
    }
    converted
}

/// What the app is called in messages, before it is known what it is called.
fn label(entries: &[(String, Tree)]) -> Option<String> {
    let text = |wanted: &str| {
        let named = |(key, value): &(String, Tree)| match (&value.data, keys::named(key)) {
            (Data::Text(text), Some(key)) if key.name == wanted => Some(text.clone()),
            _ => None,
        };
        entries.iter().find_map(named)
    };
    text("name").or_else(|| text("script"))
}

struct Reading<'a> {
    path: &'a Path,
    label: String,
    given: BTreeMap<&'static str, Given<'a>>,
    /// `env_production` and its like: name, key, value.
    profiles: Vec<(&'a str, Given<'a>)>,
    settings: Layer,
    converted: Converted,
}

impl<'a> Reading<'a> {
    /// Which keys are given. Of two names of one key, PM2 takes the documented one, or else the first alias that it knows.
    fn sort(&mut self, entries: &'a [(String, Tree)]) {
        for (at, (spelled, value)) in entries.iter().enumerate() {
            let Some(key) = keys::named(spelled) else {
                self.unknown(spelled, value);
                continue;
            };
            let given = Given { key, spelled, value, at };
            if value.data == Data::Null {
                continue;
            }
            if value.has_zero_byte() {
                self.refuse(given, Reason::new("a text with a zero byte is not accepted"));
                continue;
            }
            match self.given.get(key.name).copied() {
                None => drop(self.given.insert(key.name, given)),
                Some(other) => {
                    let rank = |given: &Given<'_>| keys::names(key).position(|name| name == given.spelled);
                    let (counts, vain) =
                        if rank(&given) < rank(&other) { (given, other) } else { (other, given) };
                    self.given.insert(key.name, counts);
                    self.warn(
                        vain,
                        format!("is the same as {}, which counts", counts.spelled),
                        "leave one of them out",
                    );
                }
            }
        }
    }

    fn unknown(&mut self, spelled: &'a str, value: &'a Tree) {
        static PROFILE: Key = Key { name: keys::ENV, aliases: &[], becomes: Becomes::Part };
        let given = Given { key: &PROFILE, spelled, value, at: 0 };
        let profile = spelled
            .strip_prefix("env_")
            .filter(|name| !name.is_empty() && !name.contains(char::is_whitespace));
        if let Some(profile) = profile {
            match value.data {
                Data::Null => {}
                _ if value.has_zero_byte() => {
                    self.refuse(given, Reason::new("a text with a zero byte is not accepted"));
                }
                _ => self.profiles.push((profile, given)),
            }
            return;
        }
        match keys::nearest(spelled) {
            Some(nearest) => {
                self.refuse(given, Reason::new("no such key").hint(format!("did you mean {nearest}?")))
            }
            None => self.note(given, Reason::new("is no key of PM2, and has no effect")),
        }
    }

    fn app(&mut self, tree: &Tree) -> Option<App> {
        let mut given: Vec<_> = self.given.values().copied().collect();
        given.sort_by_key(|given| given.at);
        given.into_iter().for_each(|given| self.key(given));
        self.implied();
        let run = self.run(tree);
        let name = self.name(tree);
        let mut app = App {
            name,
            run: run?,
            settings: std::mem::take(&mut self.settings),
            profiles: BTreeMap::new(),
            autostart: !self.given.contains_key("autostart") || self.truth("autostart"),
            appends_profile: self.truth("append_env_to_name"),
            depends_on: self.depends_on(),
        };
        for (profile, given) in std::mem::take(&mut self.profiles) {
            let values = self.variables(given);
            app.profiles.insert(profile.to_owned(), values);
        }
        profile::take_port(&mut app);
        Some(app)
    }

    /// What the table says of the key.
    fn key(&mut self, given: Given<'a>) {
        match given.key.becomes {
            Becomes::Setting(name, shape) => self.setting(given, name, shape),
            Becomes::Nothing { harmless, instead } => {
                if !harmless.contains(&given.value.json().as_str()) {
                    self.warn(given, "has no effect", instead);
                }
            }
            Becomes::Part => match given.key.name {
                keys::ENV => {
                    for value in self.variables(given) {
                        self.settings.add(value);
                    }
                }
                "exec_mode" => self.exec_mode(given),
                "time" if self.truth("time") => {
                    self.put(given, "log-date-format", vec!["YYYY-MM-DDTHH:mm:ss".to_owned()]);
                }
                _ => {}
            },
        }
    }

    fn setting(&mut self, given: Given<'a>, name: &'static str, shape: Shape) {
        // `time` goes before it.
        if name == "log-date-format" && self.truth("time") {
            return;
        }
        let written = match value::write(given.value, shape) {
            Ok(written) => written,
            Err(reason) => return self.refuse(given, reason),
        };
        for (what, hint) in written.warnings {
            let reason = Reason::new(what);
            self.note(given, hint.into_iter().fold(reason, Reason::hint));
        }
        let is_default = |text: &String| {
            let default = [
                ("namespace", "default"),
                ("instance-var", "NODE_APP_INSTANCE"),
                ("log-type", "raw"),
                ("disable-logs", "false"),
            ];
            default.contains(&(name, text.as_str()))
        };
        let texts: Vec<_> = written.texts.into_iter().filter(|text| !is_default(text)).collect();
        if texts.is_empty() {
            return;
        }
        match name {
            "watch" => {
                let texts = texts.into_iter().map(|text| self.in_folder(&text)).collect();
                self.put(given, name, texts);
                self.reloads(given);
            }
            "cron" => {
                self.put(given, name, texts);
                self.reloads(given);
            }
            // Patterns of what is watched.
            "ignore" if !self.watches() => {}
            "ready-timeout" => {
                self.put(given, name, texts);
                let what = "in PM2 a worker that is not ready by then counts as ready; here its start has failed, and a reload keeps the old workers";
                self.warn(given, what, "make it as long as the slowest start takes");
            }
            _ => self.put(given, name, texts),
        }
    }

    /// Puts texts into the setting of this name.
    fn put(&mut self, given: Given<'a>, name: &'static str, texts: Vec<String>) {
        for text in texts {
            let value = self.value(given, name, text);
            self.settings.add(value);
        }
    }

    /// What goes over other keys, and what PM2 takes for granted and clusterd does not.
    fn implied(&mut self) {
        if let Some(given) = self.given.get("port").copied() {
            self.port(given);
        }
        if self.settings.of(&settings::workers.key).is_empty() {
            let origin = Origin::Ecosystem {
                path: self.path.to_owned(),
                line: None,
                app: self.label.clone(),
                key: "instances".to_owned(),
            };
            self.settings.add(Value::new(settings::workers.key.name, "1", origin));
        }
    }

    /// PM2 would restart, which ends the old worker first.
    fn reloads(&mut self, given: Given<'a>) {
        if self.is_fork() {
            let what = "clusterd reloads where PM2 restarts: for a moment the old worker and the new one run side by side";
            self.warn(given, what, "make sure that two of them do no harm");
        }
    }

    /// Whether PM2 would run it in fork mode: as its own process, and not as a worker of Node's cluster.
    fn is_fork(&self) -> bool {
        let mode = self.given.get("exec_mode").map(|given| given.value.json());
        match mode.as_deref() {
            Some(mode) => mode.contains("fork"),
            None => !self.given.contains_key("instances"),
        }
    }

    fn exec_mode(&mut self, given: Given<'a>) {
        match &given.value.data {
            Data::Text(mode) if matches!(mode.as_str(), "fork" | "fork_mode") => {
                if self.is_of_node() {
                    let what = "workers of Node are workers of its cluster module here in either mode";
                    self.warn(given, what, "for cluster.isWorker to be false, add attach = \"preload\"");
                }
            }
            Data::Text(mode) if matches!(mode.as_str(), "cluster" | "cluster_mode") => {}
            _ => {
                let reason = Reason::new(format!("{} is not accepted", given.value.what()));
                self.refuse(given, reason.hint("use \"fork\" or \"cluster\""));
            }
        }
    }

    fn is_of_node(&self) -> bool {
        let text = |name: &str| match self.given.get(name).map(|given| &given.value.data) {
            Some(Data::Text(text)) => text.as_str(),
            _ => "",
        };
        let (interpreter, script) = (text("interpreter"), text("script"));
        let is_script = [".js", ".cjs", ".mjs"].iter().any(|extension| script.ends_with(extension));
        interpreter.ends_with("node") || (interpreter.is_empty() && is_script)
    }

    /// `port` sets `PORT`.
    fn port(&mut self, given: Given<'a>) {
        match value::whole(given.value) {
            Some(port) => {
                self.settings.retain(settings::env.key.name, |value| !value.text.starts_with("PORT="));
                let value = self.value(given, settings::env.key.name, format!("PORT={port}"));
                self.settings.add(value);
            }
            None => {
                let reason = Reason::new(format!("{} is not accepted", given.value.what()));
                self.refuse(given, reason.hint("use a number, such as 3000"));
            }
        }
    }

    /// Variables as values of `env`.
    fn variables(&mut self, given: Given<'a>) -> Vec<Value> {
        let Data::Map(entries) = &given.value.data else {
            let reason = Reason::new(format!("{} is not accepted", given.value.what()));
            self.refuse(given, reason.hint("use an object, such as { \"NODE_ENV\": \"production\" }"));
            return Vec::new();
        };
        let mut values = Vec::new();
        let automatic = Automatic { workers: std::num::NonZeroU32::MIN, name: String::new() };
        for (name, value) in entries {
            let spelled = format!("{}.{name}", given.spelled);
            let one = Given { spelled: &spelled, value, ..given };
            let text = match &value.data {
                Data::Text(text) | Data::Number(text) => text.clone(),
                Data::Code { what, .. } => {
                    self.refuse(one, Reason::new(format!("{what} is not accepted")).hint("use a text"));
                    continue;
                }
                _ => value.json(),
            };
            let read =
                assignment(name, &text).and_then(|text| Variables.read(&text, &automatic).map(|_| text));
            match read {
                Ok(text) => values.push(self.value(one, settings::env.key.name, text)),
                // PM2 gives it all the same; the app cannot have been meant to depend on it.
                Err(reason) => self.note(one, reason),
            }
        }
        values
    }

    fn name(&mut self, tree: &Tree) -> Value {
        let origin = Origin::Ecosystem {
            path: self.path.to_owned(),
            line: tree.line,
            app: self.label.clone(),
            key: "name".to_owned(),
        };
        let script = self.text("script").map(|value| value.text).unwrap_or_default();
        let named = match self.given.get("name").copied() {
            Some(given) => match &given.value.data {
                Data::Text(text) | Data::Number(text) if !text.is_empty() => Some((given, text.clone())),
                _ => {
                    let reason = Reason::new(format!("{} is not accepted", given.value.what()));
                    self.refuse(given, reason.hint("use a text"));
                    None
                }
            },
            None => None,
        };
        let automatic = Automatic { workers: std::num::NonZeroU32::MIN, name: String::new() };
        match named {
            Some((given, text)) if AppName.read(&text, &automatic).is_ok() && text != "auto" => {
                self.value(given, settings::name.key.name, text)
            }
            Some((given, text)) => {
                // A slash is a part of a name as any other.
                let name = name_of(OsStr::new(&text.replace('/', "-")));
                let hint = format!("names are {}", table_of_names());
                self.warn(given, format!("the app is called {name} here"), &hint);
                self.value(given, settings::name.key.name, name)
            }
            None => {
                let file = Path::new(script.split_whitespace().next().unwrap_or_default());
                let stem = file.file_stem().unwrap_or_default();
                Value::new(settings::name.key.name, name_of(stem), origin)
            }
        }
    }

    fn run(&mut self, tree: &Tree) -> Option<Run> {
        let Some(given) = self.given.get("script").copied() else {
            let line = tree.line.map(|line| format!(":{line}")).unwrap_or_default();
            let reason = Reason::new("no script").hint("add what the app runs, such as script: \"app.js\"");
            let place = format!("{}{line}: {}", self.path.display(), self.label);
            self.converted.problems.push(Problem::at(place, reason));
            return None;
        };
        let script = self.text("script")?;
        if script.text.trim().is_empty() {
            self.refuse(given, Reason::new("an empty text is not accepted").hint("name what the app runs"));
            return None;
        }
        let interpreter = self.text("interpreter").map(|value| value.text);
        if let (Some(text), Some(given)) = (&interpreter, self.given.get("interpreter").copied())
            && let Some((_, version)) = text.split_once("node@")
        {
            let hint =
                format!("use the path of that Node, which ends in .nvm/versions/node/v{version}/bin/node");
            self.refuse(given, Reason::new("clusterd does not ask nvm for a version").hint(hint));
        }
        let words = |reading: &mut Self, name: &str| match reading.given.get(name).copied() {
            Some(given) => match value::arguments(given.value) {
                Ok(words) => words,
                Err(reason) => {
                    reading.refuse(given, reason);
                    Vec::new()
                }
            },
            None => Vec::new(),
        };
        let interpreter_args = words(self, "node_args");
        let args = words(self, "args");
        if script.text == "serve" && interpreter.is_none() {
            return Some(self.serve(given, &args));
        }
        Some(Run::Script(Script { script, interpreter, interpreter_args, args }))
    }

    /// PM2's own file server is clusterd's.
    fn serve(&mut self, given: Given<'a>, arguments: &[String]) -> Run {
        let env = &settings::env.key;
        let variable = |name: &str| {
            let named = |value: &Value| value.text.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
            self.settings.of(env).iter().find_map(named)
        };
        let (served, has_port) = (serve::served(variable, arguments), variable("PORT").is_some());
        for (name, instead) in served.in_vain {
            self.warn(given, format!("{name} has no effect"), instead);
        }
        if !has_port {
            let port = self.value(given, env.name, format!("PORT={}", served.port));
            self.settings.add(port);
        }
        let origin = self.value(given, "script", String::new()).origin;
        Run::Command { words: served.words, origin }
    }

    fn depends_on(&mut self) -> Vec<Value> {
        let Some(given) = self.given.get("depends_on").copied() else { return Vec::new() };
        match value::write(given.value, Shape::Texts) {
            Ok(written) => {
                written.texts.into_iter().map(|text| self.value(given, own_keys::DEPENDS_ON, text)).collect()
            }
            Err(reason) => {
                self.refuse(given, reason);
                Vec::new()
            }
        }
    }

    /// A part of the app that is a text.
    fn text(&mut self, name: &'static str) -> Option<Value> {
        let given = self.given.get(name).copied()?;
        match &given.value.data {
            Data::Text(text) => Some(self.value(given, name, text.clone())),
            _ => {
                let reason = Reason::new(format!("{} is not accepted", given.value.what()));
                self.refuse(given, reason.hint("use a text"));
                None
            }
        }
    }

    fn truth(&mut self, name: &str) -> bool {
        let Some(given) = self.given.get(name).copied() else { return false };
        match given.value.data {
            Data::Truth(truth) => truth,
            _ => {
                let reason = value::write(given.value, Shape::Truth).err();
                reason.into_iter().for_each(|reason| self.refuse(given, reason));
                false
            }
        }
    }

    fn watches(&self) -> bool {
        self.given.get("watch").is_some_and(|given| given.value.data != Data::Truth(false))
    }

    /// PM2 takes paths from the app's folder, clusterd from its own.
    fn in_folder(&self, path: &str) -> String {
        let cwd = match self.given.get("cwd").map(|given| &given.value.data) {
            Some(Data::Text(cwd)) => Path::new(cwd),
            _ => return path.to_owned(),
        };
        let joined = if path == "." { cwd.to_owned() } else { cwd.join(path) };
        joined.to_string_lossy().into_owned()
    }

    fn origin(&self, given: Given<'_>) -> Origin {
        Origin::Ecosystem {
            path: self.path.to_owned(),
            line: given.value.line,
            app: self.label.clone(),
            key: given.spelled.to_owned(),
        }
    }

    fn value(&self, given: Given<'_>, name: &'static str, text: String) -> Value {
        Value { name, text, literal: Some(given.value.shown()), origin: self.origin(given) }
    }

    fn refuse(&mut self, given: Given<'_>, reason: Reason) {
        let value = self.value(given, given.key.name, String::new());
        let problem = Problem::with(&value, reason);
        // What several parts ask for is refused once.
        if !self.converted.problems.contains(&problem) {
            self.converted.problems.push(problem);
        }
    }

    fn warn(&mut self, given: Given<'_>, what: impl Into<String>, hint: &str) {
        self.note(given, Reason::new(what).hint(hint));
    }

    fn note(&mut self, given: Given<'_>, reason: Reason) {
        let value = self.value(given, given.key.name, String::new());
        self.converted
            .warnings
            .push(Warning { app: Some(self.label.clone()), problem: Problem::with(&value, reason) });
    }
}

fn table_of_names() -> String {
    use super::super::super::kind::Values as _;
    AppName.accepts()
}
