//! `--env NAME` of commands that take a file: the variables of that profile, and what follows from them.
//!
//! Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::super::error::{Problem, Reason};
use super::super::file::nearest;
use super::super::kind::or;
use super::super::origin::Value;
use super::super::table::keys;
use super::App;

/// The variable that tells a worker on which port to listen.
const PORT: &str = "PORT";

/// The apps with this profile. An app that has none of this name stays as it is.
///
/// A `PORT` among an app's variables is its port: clusterd listens there and tells workers by itself.
///
/// # Errors
/// No app has a profile of this name.
pub(crate) fn chosen(apps: Vec<App>, profile: Option<&str>) -> Result<Vec<App>, Problem> {
    if let Some(profile) = profile
        && !apps.iter().any(|app| app.profiles.contains_key(profile))
    {
        return Err(Problem::at(format!("--env {profile}"), unknown(&apps, profile)));
    }
    let names = appended(&apps, profile);
    let with = |mut app: App| {
        for needed in &mut app.depends_on {
            needed.text = names.get(&needed.text).unwrap_or(&needed.text).clone();
        }
        if let Some(values) = profile.and_then(|name| app.profiles.get(name)).cloned() {
            add_variables(&mut app, values);
        }
        app.name.text = names.get(&app.name.text).unwrap_or(&app.name.text).clone();
        app.appends_profile = false;
        app.profiles.clear();
        take_port(&mut app);
        app
    };
    Ok(apps.into_iter().map(with).collect())
}

/// The names of the apps to which the profile's is appended, and what those are called then.
fn appended(apps: &[App], profile: Option<&str>) -> BTreeMap<String, String> {
    let Some(profile) = profile else { return BTreeMap::new() };
    let appends = |app: &&App| app.appends_profile && app.profiles.contains_key(profile);
    let names = apps.iter().filter(appends).map(|app| &app.name.text);
    names.map(|name| (name.clone(), format!("{name}-{profile}"))).collect()
}

fn unknown(apps: &[App], profile: &str) -> Reason {
    let names: BTreeSet<_> = apps.iter().flat_map(|app| app.profiles.keys()).cloned().collect();
    let names = Vec::from_iter(names);
    let reason = Reason::new(format!("the file has no profile {profile}"));
    if let Some(nearest) = nearest(profile, names.iter().map(String::as_str)) {
        return reason.hint(format!("did you mean {nearest}?"));
    }
    match names.is_empty() {
        true => reason.hint(format!("add its variables to the file: [app.NAME.env.{profile}]")),
        false => reason.hint(format!("use {}", or(&names))),
    }
}

/// Of one name, the new value counts.
fn add_variables(app: &mut App, values: Vec<Value>) {
    let named: BTreeSet<_> = values.iter().map(|value| variable(value).to_owned()).collect();
    app.settings.retain(keys::env.key.name, |value| !named.contains(variable(value)));
    values.into_iter().for_each(|value| app.settings.add(value));
}

fn variable(value: &Value) -> &str {
    value.text.split_once('=').map_or(value.text.as_str(), |(name, _)| name)
}

/// Makes `PORT` among the variables the port, where it is one, and not counted up from worker to worker.
pub(super) fn take_port(app: &mut App) {
    let counts_up = app.settings.of(&keys::increment_var.key);
    if counts_up.iter().any(|value| value.text == PORT) {
        return;
    }
    let is_port = |value: &&Value| variable(value) == PORT;
    let Some(value) = app.settings.of(&keys::env.key).iter().rfind(is_port).cloned() else { return };
    let number = value.text.split_once('=').map(|(_, number)| number.to_owned()).unwrap_or_default();
    if !number.parse::<u16>().is_ok_and(|port| port > 0) {
        return;
    }
    // An address has its port by itself: what is no other stays as it is, and whatever is another one is refused later.
    let binds = app.settings.of(&keys::bind.key);
    if binds.iter().any(|bind| bind.text.rsplit(':').next() != Some(&*number)) {
        return;
    }
    let is_bound = !binds.is_empty();
    app.settings.retain(keys::env.key.name, |value| variable(value) != PORT);
    // A port that clients use, with another one for workers, stays what it is for clients.
    let public = app.settings.of(&keys::port.key).last().map(|value| value.text.clone());
    let text = match public.as_deref().and_then(|text| text.split_once(':')) {
        Some((public, _)) => format!("{public}:{number}"),
        None if is_bound => return,
        None => number,
    };
    app.settings.retain(keys::port.key.name, |_| false);
    app.settings.add(Value { name: keys::port.key.name, text, literal: None, origin: value.origin });
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::toml;
    use super::*;

    const FILE: &str = "
        [app.web]
        command = ['node', 'app.js']
        append-env-to-name = true
        [app.web.env]
        NODE_ENV = 'development'
        PORT = 3000
        ONLY = 'base'
        [app.web.env.production]
        NODE_ENV = 'production'
        PORT = 8080
        [app.mail]
        command = ['mail']
        depends-on = ['web']
        [app.mail.env.staging]
        A = 1
    ";

    fn read(text: &str) -> Vec<App> {
        toml::read(Path::new("clusterd.toml"), text).expect("valid").apps
    }

    fn shown(app: &App) -> String {
        let texts =
            |values: &[Value]| values.iter().map(|value| value.text.clone()).collect::<Vec<_>>().join(" ");
        let (port, env) = (texts(app.settings.of(&keys::port.key)), texts(app.settings.of(&keys::env.key)));
        format!("{} {port} {env}", app.name.text)
    }

    #[test]
    fn a_profile_goes_over_the_base() {
        let with =
            |profile| chosen(read(FILE), profile).expect("known").iter().map(shown).collect::<Vec<_>>();
        assert_eq!(with(None), ["web 3000 NODE_ENV=development ONLY=base", "mail  "]);
        assert_eq!(with(Some("production")), ["web-production 8080 ONLY=base NODE_ENV=production", "mail  "]);
        let needs = |profile| chosen(read(FILE), profile).expect("known")[1].depends_on[0].text.clone();
        assert_eq!((needs(Some("production")), needs(None)), ("web-production".to_owned(), "web".to_owned()));
        assert_eq!(with(Some("staging")), ["web 3000 NODE_ENV=development ONLY=base", "mail  A=1"]);
    }

    #[test]
    fn an_unknown_profile_is_an_error_that_names_those_there_are() {
        let said = |text: &str, profile| chosen(read(text), Some(profile)).expect_err("unknown").to_string();
        assert_eq!(
            said(FILE, "prodution"),
            "--env prodution: the file has no profile prodution\nhint: did you mean production?"
        );
        assert_eq!(said(FILE, "qa"), "--env qa: the file has no profile qa\nhint: use production or staging");
        let none = said("[app.a]\ncommand = ['x']", "qa");
        assert_eq!(
            none,
            "--env qa: the file has no profile qa\nhint: add its variables to the file: [app.NAME.env.qa]"
        );
    }

    #[test]
    fn a_variable_port_is_the_port_of_the_app() {
        let cases = [
            ("env = { PORT = 80 }", "a 80 "),
            ("port = 3000\nenv = { PORT = 80 }", "a 80 "),
            ("port = '443:3000'\nenv = { PORT = 80 }", "a 443:80 "),
            ("bind = '127.0.0.1:80'\nenv = { PORT = 80 }", "a  "),
            ("bind = '127.0.0.1:8080:80'\nenv = { PORT = 80 }", "a  "),
            ("bind = '127.0.0.1:80'\nenv = { PORT = 8080 }", "a  PORT=8080"),
            ("port = 3000\nbind = '127.0.0.1:80:3000'\nenv = { PORT = 8080 }", "a 3000 PORT=8080"),
            ("env = { PORT = '/run/a.sock' }", "a  PORT=/run/a.sock"),
            ("increment-var = 'PORT'\nenv = { PORT = 80 }", "a  PORT=80"),
        ];
        for (text, expected) in cases {
            let app =
                chosen(read(&format!("[app.a]\ncommand = ['x']\n{text}")), None).expect("fine").remove(0);
            assert_eq!(shown(&app), expected, "{text}");
        }
    }
}
