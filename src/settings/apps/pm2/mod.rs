//! PM2's files: an ecosystem file in any of its shapes, and what `pm2 save` has written.
//!
//! It follows what their authors mean; what would be different here is said in warnings. In reading order: [`mod@keys`] (every
//! key, and what becomes of it), [`value`] (how its value is written here) with [`cron`], [`convert`] (an app), [`mod@dump`].

mod convert;
mod cron;
mod dump;
mod keys;
mod serve;
mod value;

use std::path::Path;

use super::super::error::{Invalid, Problem, Reason};
use super::super::file::nearest;
use super::tree::{Data, Tree};
use super::{Apps, Warning};
pub(super) use dump::dump;

/// Keys beside the apps, and what to use instead.
const BESIDE: [(&str, &str); 2] = [
    (
        "deploy",
        "releases are brought to the machine by other tools, such as rsync; `clusterd reload` puts one in force",
    ),
    ("static", "add an app that serves the files, such as `npx serve`"),
];

/// Reads an ecosystem file, or package.json.
///
/// # Errors
/// Everything that cannot be read.
pub(super) fn ecosystem(path: &Path, tree: &Tree) -> Result<Apps, Invalid> {
    let mut apps = Apps::default();
    let mut problems = Vec::new();
    let trees = match among(path, tree, &mut apps.warnings) {
        Ok(trees) => trees,
        Err(problem) => return Err(Invalid::new(vec![problem])),
    };
    for (index, tree) in trees.into_iter().enumerate() {
        let converted = convert::convert(path, tree, index);
        apps.apps.extend(converted.app);
        apps.warnings.extend(converted.warnings);
        problems.extend(converted.problems);
    }
    if apps.apps.is_empty() && problems.is_empty() {
        problems.push(Problem::at(path.display(), Reason::new("names no app").hint(SHAPE)));
    }
    if problems.is_empty() { Ok(apps) } else { Err(Invalid::new(problems)) }
}

const SHAPE: &str = "use a list of apps: { \"apps\": [{ \"name\": \"web\", \"script\": \"app.js\" }] }";

/// The apps in the file: `{ apps: [...] }`, `{ pm2: [...] }`, a list, or one app.
fn among<'a>(path: &Path, tree: &'a Tree, warnings: &mut Vec<Warning>) -> Result<Vec<&'a Tree>, Problem> {
    let entries = match &tree.data {
        Data::List(list) => return Ok(list.iter().collect()),
        Data::Map(entries) => entries,
        _ => {
            let reason = Reason::new(format!("{} is no list of apps", tree.what()));
            return Err(Problem::at(path.display(), reason.hint(SHAPE)));
        }
    };
    if let Some(apps) = tree.get("apps") {
        for (key, value) in entries.iter().filter(|(key, _)| key != "apps") {
            let instead = BESIDE.iter().find(|(name, _)| name == key);
            let reason = match instead {
                Some((_, instead)) => Reason::new("has no effect").hint(*instead),
                None => Reason::new("is no key of an ecosystem file, and has no effect"),
            };
            warnings.push(Warning { app: None, problem: Problem::at(place(path, value, key), reason) });
        }
        return Ok(list_or_one(apps));
    }
    if let Some(pm2) = tree.get("pm2") {
        return Ok(list_or_one(pm2.get("apps").unwrap_or(pm2)));
    }
    let is_app = entries.iter().any(|(key, _)| keys::named(key).is_some_and(|key| key.name == "script"));
    if is_app {
        return Ok(vec![tree]);
    }
    if path.file_name().is_some_and(|name| name == "package.json") {
        let hint = "add \"pm2\": { \"apps\": [...] }, or name the file that has the apps";
        return Err(Problem::at(path.display(), Reason::new("has no key pm2").hint(hint)));
    }
    let mistyped = entries
        .iter()
        .find_map(|(key, value)| Some((key, value, nearest(key, ["apps", "pm2"].into_iter())?)));
    Err(match mistyped {
        Some((key, value, meant)) => {
            let reason = Reason::new("no such key").hint(format!("did you mean {meant}?"));
            Problem::at(place(path, value, key), reason)
        }
        None => Problem::at(path.display(), Reason::new("names no app").hint(SHAPE)),
    })
}

fn list_or_one(tree: &Tree) -> Vec<&Tree> {
    match &tree.data {
        Data::List(list) => list.iter().collect(),
        _ => vec![tree],
    }
}

/// `ecosystem.json:3: deploy`.
fn place(path: &Path, value: &Tree, key: &str) -> String {
    let line = value.line.map(|line| format!(":{line}")).unwrap_or_default();
    format!("{}{line}: {key}", path.display())
}

#[cfg(test)]
mod tests;
