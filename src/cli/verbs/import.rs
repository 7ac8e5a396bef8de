//! `clusterd import`: the apps of a PM2 file, in the words of clusterd's own.
//!
//! It needs no running clusterd and changes nothing: it prints.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::VerbError;
use super::print::{self, Output, Shape};
use crate::cli::complain;
use crate::settings::apps::file::{self, Format};
use crate::settings::apps::{Apps, Warning, profile, toml};
use crate::settings::error::{Invalid, Problem, Reason};
use crate::settings::load;
use crate::settings::origin::Value;
use crate::settings::table::keys;

/// Print the apps of a PM2 file as clusterd.toml
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// The file; default: the ecosystem file of this folder
    file: Option<PathBuf>,

    /// Put the variables of this profile in force, and leave out the others
    #[arg(long, value_name = "PROFILE")]
    env: Option<String>,

    #[command(flatten)]
    shape: Shape,
}

impl Import {
    pub(super) fn run(self) -> Result<ExitCode, VerbError> {
        super::check_start_folder()?;
        let folder = std::env::current_dir().unwrap_or_default();
        let path = match self.file {
            Some(path) => path,
            None => usual(&folder)?,
        };
        let mut apps = read(&path, &folder)?;
        if file::format(&path) == Some(Format::Dump) {
            leave_out_inherited(&mut apps);
        }
        if let Some(profile) = &self.env {
            apps.apps =
                profile::chosen(apps.apps, Some(profile)).map_err(|problem| Invalid::new(vec![problem]))?;
        }
        apps.warnings.extend(file::shared_ports(&apps));
        file::check(&apps, load::cpus())?;
        for Warning { problem, .. } in &apps.warnings {
            complain(&format!("warning: {problem}"));
        }
        let text = toml::write(&apps);
        match self.shape.output {
            Output::Text => print::line(format!("{}{text}", head(&path)).trim_end())?,
            Output::Json => {
                let warning =
                    |warning: &Warning| json!({ "app": warning.app, "message": warning.problem.to_string() });
                let warnings: Vec<_> = apps.warnings.iter().map(warning).collect();
                let names: Vec<_> = apps.apps.iter().map(|app| &app.name.text).collect();
                print::json(&json!({ "apps": names, "warnings": warnings, "toml": text }))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn usual(folder: &Path) -> Result<PathBuf, VerbError> {
    file::usual_ecosystem(folder).ok_or_else(|| {
        VerbError::Usage(
            "no ecosystem file in this folder\nhint: name the file, such as clusterd import apps/ecosystem.config.js"
                .to_owned(),
        )
    })
}

fn read(path: &Path, folder: &Path) -> Result<Apps, Invalid> {
    // Here a program can only be a file with apps.
    let is_program =
        || path.extension().is_some_and(|name| ["js", "cjs", "mjs"].iter().any(|known| name == *known));
    let format = file::format(path).or_else(|| is_program().then_some(Format::JavaScript));
    match format {
        Some(format) => file::load(path, folder, format),
        None => {
            let reason = Reason::new("no file with apps, by its name");
            let hint = "use a file that ends in .js, .cjs, .mjs, .json, .yaml or .yml, or dump.pm2";
            Err(Invalid::new(vec![Problem::at(path.display(), reason.hint(hint))]))
        }
    }
}

/// A dump has the whole environment of a shell: what this one has, too, workers inherit.
fn leave_out_inherited(apps: &mut Apps) {
    let is_own = |value: &Value| match value.text.split_once('=') {
        Some((name, text)) => std::env::var_os(name).is_none_or(|inherited| inherited != *text),
        None => true,
    };
    for app in &mut apps.apps {
        app.settings.retain(keys::env.key.name, is_own);
    }
}

fn head(path: &Path) -> String {
    let file = crate::controls::blanked(&path.display().to_string());
    format!("# Made of {file} by `clusterd import`. Relative paths start from the folder of this file.\n\n")
}
