//! Where the logs of an app are, whether it runs or not.
//!
//! It reads the app's settings and none of its logs.

use super::apps::AppFolder;
use super::definition;
use crate::logs::plan::LogPlan;
use crate::settings::load::{CommandLine, load};

/// As its settings have it; where those cannot be read, in its folder.
pub(crate) fn plan(app: &AppFolder) -> LogPlan {
    let folder =
        definition::environment(app).ok().and_then(|environment| Some(environment.get("PWD")?.into()));
    let definition =
        CommandLine { config: Some(app.definition()), is_only_file: true, folder, ..CommandLine::default() };
    match load(definition) {
        Ok(resolved) => LogPlan::of(&resolved.config, Some(&app.logs())),
        Err(_) => LogPlan::in_folder(&app.logs()),
    }
}
