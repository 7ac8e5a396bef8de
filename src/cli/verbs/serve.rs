//! `clusterd serve`: starts an app that serves the files of a folder.
//!
//! The server is clusterd's own ([`crate::files`]); for all else it is an app like any other.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::VerbError;
use super::print::Shape;
use super::start::{Settings, start_new};
use crate::files;
use crate::settings::file_server;
use crate::settings::load::CommandLine;
use crate::settings::origin::{Origin, Value};
use crate::settings::table::keys;
use crate::supervisor::Environment;

/// Where PM2 serves files.
const PORT: &str = "8080";

/// Serve the files of a folder, as an app in the background [alias: expose]
///
/// Names that begin with a dot are not served, nor are links that lead out of the folder. The app is called
/// static-page-server-PORT, or by --name. Every setting of clusterd can be given here.
#[derive(Debug, clap::Args)]
#[command(override_usage = "clusterd serve [OPTIONS] [SETTINGS] [PATH] [PORT]", alias = "expose")]
pub(super) struct Serve {
    /// The folder
    #[arg(default_value = ".")]
    path: PathBuf,

    /// Where to listen; 8080 unless a setting among the options says otherwise
    #[arg(value_name = "PORT")]
    on: Option<String>,

    /// Answer with index.html where a browser asks for a page that is not there
    #[arg(long)]
    spa: bool,

    /// Serve only who knows this name and the password
    #[arg(long, value_name = "NAME")]
    basic_auth_username: Option<String>,

    /// The password; better given as PM2_SERVE_BASIC_AUTH_PASSWORD: arguments can be seen by other users
    #[arg(long, value_name = "PASSWORD")]
    basic_auth_password: Option<String>,

    #[command(flatten)]
    settings: Settings,

    #[command(flatten)]
    shape: Shape,
}

impl Serve {
    pub(super) async fn run(self) -> Result<ExitCode, VerbError> {
        let Self { path, on, spa, basic_auth_username, basic_auth_password, settings, shape } = self;
        let Settings(mut line) = settings;
        let folder = super::start_folder()?.join(path);
        if !folder.is_dir() {
            return Err(VerbError::Usage(format!("cannot serve {}: not a folder", folder.display())));
        }
        add_address(&mut line, on)?;
        let mut command = vec![file_server::PROGRAM.into(), file_server::VERB.into(), tidy(&folder).into()];
        command.extend(spa.then(|| OsString::from(file_server::SPA)));
        let mut environment = Environment::of_this_process();
        if let Some((name, password)) = credentials(basic_auth_username, basic_auth_password)? {
            command.push(file_server::BASIC_AUTH.into());
            environment =
                environment.with(files::USERNAME, name.as_ref()).with(files::PASSWORD, password.as_ref());
        }
        start_new(CommandLine { command, ..line }, environment, shape).await
    }
}

/// The name and the password, by flags or the environment; neither, or both.
fn credentials(
    name: Option<String>,
    password: Option<String>,
) -> Result<Option<(String, String)>, VerbError> {
    let name = name.or_else(|| std::env::var(files::USERNAME).ok());
    let password = password.or_else(|| std::env::var(files::PASSWORD).ok());
    match (name, password) {
        (None, None) => Ok(None),
        (Some(name), Some(_)) if name.contains(':') => {
            Err(VerbError::Usage("a name for basic authentication has no colon (RFC 7617)".to_owned()))
        }
        (Some(name), Some(password)) => Ok(Some((name, password))),
        _ => Err(VerbError::Usage(
            "basic authentication needs both --basic-auth-username and --basic-auth-password".to_owned(),
        )),
    }
}

/// The port and the name of an app for which none was given.
fn add_address(line: &mut CommandLine, on: Option<String>) -> Result<(), VerbError> {
    let ports = line.flags.of(&keys::port.key);
    let given = ports.first().map(|port| port.text.clone());
    let is_bound = !line.flags.of(&keys::bind.key).is_empty();
    if on.is_some() && (given.is_some() || is_bound) {
        return Err(VerbError::Usage("the port is given twice".to_owned()));
    }
    let port = given.clone().or(on).unwrap_or_else(|| PORT.to_owned());
    if given.is_none() && !is_bound {
        line.flags.add(Value::new(keys::port.key.name, port.clone(), Origin::CommandLine));
    }
    if line.flags.of(&keys::name.key).is_empty() {
        let port = port.split(':').next().unwrap_or_default();
        let name = format!("static-page-server-{port}");
        line.flags.add(Value::new(keys::name.key.name, name, Origin::CommandLine));
    }
    Ok(())
}

/// Without `.` in it; links stay, so that a reload serves what they then lead to.
fn tidy(folder: &Path) -> PathBuf {
    folder.components().collect()
}
