//! What an app is told, without where it stands, so that two readings can be compared; and what every refusal has.
//!
//! It reads and writes nothing.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use crate::settings::apps::{App, Run};
use crate::settings::error::Problem;
use crate::settings::origin::Value;
use crate::settings::table::{self, keys};

/// How many workers `max` stands for.
pub(super) const CPUS: NonZeroU32 = NonZeroU32::new(3).expect("not zero");

/// What its file is called.
pub(super) const FILE: &str = "clusterd.toml";

/// All of it, one fact a line.
pub(super) fn facts(app: &App) -> String {
    let run = match &app.run {
        Run::Command { words, .. } => format!("{words:?}"),
        Run::Script(script) => format!(
            "{:?} {:?} {:?} {:?}",
            script.script.text, script.interpreter, script.interpreter_args, script.args
        ),
    };
    let texts = |values: &[Value]| values.iter().map(|value| value.text.clone()).collect::<Vec<_>>();
    let settings = table::all().filter(|key| key.name != keys::env.key.name).map(|key| {
        let texts = texts(app.settings.of(key));
        // Of one that is no list, the last counts.
        let first = if key.is_list() { 0 } else { texts.len().saturating_sub(1) };
        format!("{}: {:?}\n", key.name, &texts[first..])
    });
    let profiles = app.profiles.iter().map(|(name, values)| format!("{name}: {:?}\n", variables(values)));
    format!(
        "{:?}\n{run}\n{:?}\n{}{}{} {} {:?}",
        app.name.text,
        variables(app.settings.of(&keys::env.key)),
        settings.collect::<String>(),
        profiles.collect::<String>(),
        app.autostart,
        app.appends_profile,
        texts(&app.depends_on),
    )
}

/// Of one name, the last counts.
fn variables(values: &[Value]) -> BTreeMap<&str, &str> {
    values.iter().filter_map(|value| value.text.split_once('=')).collect()
}

/// A refusal is a line that begins with one of these places, and a hint.
pub(super) fn names_a_place(problem: &Problem, is_place: impl Fn(&str) -> bool) {
    let said = problem.to_string();
    let (line, hint) = said.split_once('\n').map_or((said.as_str(), None), |(line, hint)| (line, Some(hint)));
    assert!(is_place(line), "{said}");
    assert!(hint.is_none_or(|hint| hint.starts_with("hint: ") && !hint.contains('\n')), "{said}");
}

/// Whether it begins with `FILE:LINE: `, of a line that `text` has; or with `FILE: `, where it is about all of it.
pub(super) fn is_in_file(said: &str, file: &str, text: &str) -> bool {
    // In YAML, a carriage return alone ends a line, too.
    let lines = 1..=text.matches(['\n', '\r']).count() + 1;
    let Some(place) = said.strip_prefix(file) else { return false };
    let number = place.strip_prefix(':').and_then(|rest| rest.split_once(": ")?.0.parse().ok());
    place.starts_with(": ") || number.is_some_and(|number| lines.contains(&number))
}
