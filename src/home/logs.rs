//! Where the logs of an app are, whether it runs or not.
//!
//! It reads the app's settings and none of its logs.

use super::apps::AppFolder;
use super::definition;
use crate::logs::plan::LogPlan;

/// As its settings have it; where those cannot be read, in its folder.
pub(crate) fn plan(app: &AppFolder) -> LogPlan {
    match definition::settings(app) {
        Ok(resolved) => LogPlan::of(&resolved.config, Some(&app.logs())),
        Err(_) => LogPlan::in_folder(&app.logs()),
    }
}
