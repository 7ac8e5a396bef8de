//! The argument that says which app is meant: by position, or by `--name`, as the app was given its name.

use super::VerbError;

/// Which app; not needed if only one is running.
#[derive(Debug, Default, clap::Args)]
pub(super) struct AppArgument {
    /// Name of the app, or the pid of its clusterd; not needed if only one app is running
    #[arg(value_name = "APP")]
    app: Option<String>,

    #[command(flatten)]
    flag: NameFlag,
}

impl AppArgument {
    pub(super) fn wanted(&self) -> Option<&str> {
        self.app.as_deref().or(self.flag.name.as_deref())
    }
}

/// The flag alone, where words follow APP.
#[derive(Debug, Default, clap::Args)]
pub(super) struct NameFlag {
    /// The same as APP
    #[arg(id = "name", long = "name", value_name = "APP", conflicts_with = "app")]
    pub(super) name: Option<String>,
}

/// The app of two places, if no more than one of them names it.
///
/// # Errors
/// Both do.
pub(super) fn one_app(word: Option<&String>, flag: Option<&String>) -> Result<Option<String>, VerbError> {
    match (word, flag) {
        (Some(_), Some(_)) => {
            Err(VerbError::Usage("the app is named twice, as APP and by --name".to_owned()))
        }
        (word, flag) => Ok(word.or(flag).cloned()),
    }
}
