//! Which file is read how, and what it says.
//!
//! The edge: files are opened here, and JavaScript is evaluated.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::super::error::{Invalid, Problem, Reason};
use super::super::file;
use super::super::origin::Value;
use super::super::table::keys;
use super::tree::{self, NotATree, Tree};
use super::{App, Apps, Warning, evaluate, order, pm2, toml};

/// How a file with apps is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Ours.
    Toml,
    /// An ecosystem file, with comments; or package.json.
    Json,
    /// An ecosystem file.
    Yaml,
    /// An ecosystem file that is a program.
    JavaScript,
    /// What `pm2 save` has written.
    Dump,
}

/// How the file of this name is written, by its ending; `None` for what is an app's script and no file with apps.
pub(crate) fn format(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_str()?.to_ascii_lowercase();
    let ends = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    match () {
        () if ends(&[".toml"]) => Some(Format::Toml),
        () if ends(&[".config.js", ".config.cjs", ".config.mjs"]) => Some(Format::JavaScript),
        () if ends(&[".json", ".json5", ".jsonc"]) => Some(Format::Json),
        () if ends(&[".yml", ".yaml"]) => Some(Format::Yaml),
        () if name == "dump.pm2" || name == "dump.pm2.bak" => Some(Format::Dump),
        () => None,
    }
}

/// Reads the file, which `folder` is where a relative path starts. What it says is read, and not yet judged.
///
/// # Errors
/// Everything that cannot be read.
pub(crate) fn load(path: &Path, folder: &Path, format: Format) -> Result<Apps, Invalid> {
    if format == Format::JavaScript {
        let file = std::path::absolute(folder.join(path)).unwrap_or_else(|_| folder.join(path));
        let file = file.canonicalize().map_err(|error| {
            let reason = Reason::new(format!("cannot read the configuration file: {error}"));
            Invalid::new(vec![Problem::at(path.display(), reason)])
        })?;
        let tree = evaluate::evaluate(&file, path, evaluate::TIME_LIMIT);
        return pm2::ecosystem(path, &tree.map_err(|problem| Invalid::new(vec![problem]))?);
    }
    let text = file::load(path, Some(folder)).map_err(|problem| Invalid::new(vec![problem]))?;
    read(path, &text, format)
}

/// Reads the text of the file at `path`, which is no program.
///
/// # Errors
/// Everything that cannot be read.
pub(crate) fn read(path: &Path, text: &str, format: Format) -> Result<Apps, Invalid> {
    let tree = |read: Result<Tree, NotATree>, language: &str| {
        read.map_err(|wrong| {
            let line = wrong.line.map(|line| format!(":{line}")).unwrap_or_default();
            let reason = Reason::new(format!("not valid {language}: {}", wrong.what));
            Invalid::new(vec![Problem::at(format!("{}{line}", path.display()), reason)])
        })
    };
    match format {
        Format::Toml => toml::read(path, text),
        Format::Json => pm2::ecosystem(path, &tree(tree::json(text), "JSON")?),
        Format::Yaml => pm2::ecosystem(path, &tree(tree::yaml(text), "YAML")?),
        Format::Dump => pm2::dump(path, &tree(tree::json(text), "JSON")?),
        Format::JavaScript => {
            let reason = Reason::new("a program, which only a file can be");
            Err(Invalid::new(vec![Problem::at(path.display(), reason)]))
        }
    }
}

/// Everything that is wrong with these apps: with the values of each, with names, and with what they depend on.
///
/// # Errors
/// If anything is.
pub(crate) fn check(apps: &Apps, cpus: NonZeroU32) -> Result<(), Invalid> {
    let mut problems: Vec<Problem> = apps.apps.iter().flat_map(|app| app.check(cpus)).collect();
    for (place, app) in apps.apps.iter().enumerate() {
        let earlier = apps.apps.iter().take(place).find(|other| other.name.text == app.name.text);
        if let Some(other) = earlier {
            let reason = Reason::new(format!("the same name as the app of {}", other.name.origin));
            problems.push(Problem::together(&app.name, reason.hint("give each app a name of its own")));
        }
    }
    problems.extend(order::order(&apps.apps).err().unwrap_or_default());
    if problems.is_empty() { Ok(()) } else { Err(Invalid::new(problems)) }
}

/// Apps that listen on one port: only the first that is started can.
pub(crate) fn shared_ports(apps: &Apps) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let public = |value: &Value| value.text.split(':').next().unwrap_or_default().to_owned();
    for (place, app) in apps.apps.iter().enumerate() {
        for port in app.settings.of(&keys::port.key).iter().filter(|port| public(port) != "0") {
            let has_it =
                |other: &&App| other.settings.of(&keys::port.key).iter().any(|of| public(of) == public(port));
            if let Some(other) = apps.apps.iter().take(place).find(has_it) {
                let reason = Reason::new(format!("{} has the same port", other.name.text));
                let problem = Problem::together(port, reason.hint("give each app a port of its own"));
                warnings.push(Warning { app: Some(app.name.text.clone()), problem });
            }
        }
    }
    warnings
}

/// What ecosystem files are called where none is named.
pub(crate) const USUAL: [&str; 6] = [
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.json",
    "ecosystem.yaml",
    "ecosystem.yml",
];

/// What our own file of apps is called where none is named.
pub(crate) const OWN: &str = "clusterd.toml";

/// The ecosystem file that is meant where none is named: the first that is there.
pub(crate) fn usual_ecosystem(folder: &Path) -> Option<PathBuf> {
    USUAL.into_iter().map(PathBuf::from).find(|name| folder.join(name).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_its_ending() {
        let cases = [
            ("clusterd.toml", Some(Format::Toml)),
            ("a/ecosystem.config.js", Some(Format::JavaScript)),
            ("x.config.CJS", Some(Format::JavaScript)),
            ("x.config.mjs", Some(Format::JavaScript)),
            ("package.json", Some(Format::Json)),
            ("eco.yml", Some(Format::Yaml)),
            ("eco.yaml", Some(Format::Yaml)),
            ("/root/.pm2/dump.pm2", Some(Format::Dump)),
            // PM2 takes what has `.json` or `.config.js` anywhere in its name.
            ("x.config.js.bak", None),
            ("my.json.sh", None),
            ("app.js", None),
            ("ecosystem.js", None),
            ("server", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(format(Path::new(name)), expected, "{name}");
        }
    }
}
