//! The environment of a worker: what it inherits, what the configuration gives it, and what clusterd gives each launch.
//!
//! It starts nothing. Which wins is decided here: clusterd's own, then `--env`, then `--env-file`, then what `--user` brings,
//! then what is inherited.

use std::collections::BTreeMap;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::inspector;
use super::spawn::{CommandSpec, Launch, NODE_CHANNEL_FD};
use crate::protocol::{drain_page, wire};
use crate::settings::env_file::EnvFileError;
use crate::settings::parse::NODE_CHANNEL_VARIABLES;

/// What a service manager tells the process that it has started, and no other: where to say that it is ready
/// (sd_notify(3)), that it is watched (sd_watchdog_enabled(3)), what it has inherited (sd_listen_fds(3)).
const SERVICE_VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Variables by their names. Clones share them.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment(Arc<BTreeMap<OsString, OsString>>);

impl Environment {
    /// That of this process.
    pub(crate) fn of_this_process() -> Self {
        env::vars_os().collect()
    }

    /// Those that were not said to this very process, but to whatever it runs.
    pub(crate) fn passed_on(&self) -> Self {
        self.only(|name, _| !is_kept_back(name))
    }

    /// The same, with another value of this variable.
    pub(crate) fn with(&self, name: &str, value: &OsStr) -> Self {
        self.and(&Self::from_iter([(OsString::from(name), value.to_owned())]))
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(OsStr::new(name))
    }

    /// The variables that all of these have, with one value.
    pub(crate) fn common<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut all = all.into_iter();
        let Some(first) = all.next() else { return Self::default() };
        all.fold(first.clone(), |common, other| match Arc::ptr_eq(&common.0, &other.0) {
            true => common,
            false => common.only(|name, value| other.0.get(name) == Some(value)),
        })
    }

    /// Those that `other` does not have, or with another value.
    pub(crate) fn beside(&self, other: &Self) -> Self {
        self.only(|name, value| other.0.get(name) != Some(value))
    }

    fn only(&self, keeps: impl Fn(&OsString, &OsString) -> bool) -> Self {
        let kept = self.iter().filter(|(name, value)| keeps(name, value));
        kept.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// These, and those of `other`, which win.
    pub(crate) fn and(&self, other: &Self) -> Self {
        let all = self.iter().chain(other.iter());
        all.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// Every variable, sorted by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.0.iter()
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<T: IntoIterator<Item = (OsString, OsString)>>(variables: T) -> Self {
        Self(Arc::new(variables.into_iter().collect()))
    }
}

/// Values may be secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} variables", self.0.len())
    }
}

/// Whether a variable is said to this clusterd and not to its workers: its own settings, which must not reach
/// another clusterd that a worker may run.
fn is_clusterds(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"CLUSTERD_")
}

/// Whether a variable that clusterd has is not passed on: beside its own, `WEB_CONCURRENCY`, which each worker of a
/// pre-forking server would multiply by, and what is about this very process.
fn is_kept_back(name: &OsStr) -> bool {
    let mut others = NODE_CHANNEL_VARIABLES.into_iter().chain(SERVICE_VARIABLES).chain(["WEB_CONCURRENCY"]);
    is_clusterds(name) || others.any(|other| name == other)
}

/// Keeps from a program what was said to this clusterd alone.
pub(crate) fn forget_own(command: &mut Command) {
    for (name, _) in env::vars_os().filter(|(name, _)| is_kept_back(name)) {
        command.env_remove(name);
    }
}

/// All that a launch is given, but for what belongs to descriptors of its own.
///
/// # Errors
/// An environment file cannot be used.
pub(super) fn of(spec: &CommandSpec, launch: &Launch) -> Result<BTreeMap<OsString, OsString>, EnvFileError> {
    let mut all = BTreeMap::clone(&spec.inherited.passed_on().0);
    for name in &spec.workplace.filtered {
        all.remove(OsStr::new(name));
    }
    for (name, value) in spec.context.user().iter().flat_map(|user| user.environment()) {
        match value {
            Some(value) => drop(all.insert(name.into(), value)),
            None => drop(all.remove(OsStr::new(name))),
        }
    }
    let is_channel = |name: &str| NODE_CHANNEL_VARIABLES.contains(&name);
    let given = spec.workplace.variables()?.into_iter();
    let given = given.filter(|(name, _)| !is_clusterds(name.as_ref()) && !is_channel(name));
    all.extend(given.map(|(name, value)| (name.into(), value.into())));
    if spec.colours {
        let colours = colours(|name| all.get(OsStr::new(name)).cloned());
        all.extend(colours.into_iter().map(|(name, value)| (name.into(), value.into())));
    }
    let counted = counted(spec, launch, |name| all.get(OsStr::new(name)).cloned());
    let own = own(spec, launch, |name| all.get(OsStr::new(name)).cloned());
    all.extend(own.into_iter().map(|(name, value)| (name.into(), value)));
    all.extend(counted);
    Ok(all)
}

/// A worker's number, counted from 0.
fn number(launch: &Launch) -> u32 {
    launch.id.slot.0.saturating_sub(1)
}

/// The variable that is one more for each worker: from what it would be otherwise, or from 0.
fn counted(
    spec: &CommandSpec,
    launch: &Launch,
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Option<(OsString, OsString)> {
    let name = spec.workplace.increment_var.as_ref()?;
    let first = lookup(name).and_then(|text| text.to_str()?.trim().parse::<i64>().ok()).unwrap_or(0);
    let value = first.saturating_add(number(launch).into());
    Some((name.into(), value.to_string().into()))
}

/// What clusterd gives a launch beside the rest. `NODE_APP_INSTANCE` counts from 0, as PM2's does; `NODE_UNIQUE_ID`
/// (`cluster.worker.id`) is another for each launch, as that of Node's own primary is.
fn own<'a>(
    spec: &'a CommandSpec,
    launch: &Launch,
    lookup: impl Fn(&str) -> Option<OsString>,
) -> Vec<(&'a str, OsString)> {
    let Launch { id, lane, token, workers, .. } = launch;
    let ports: Vec<String> = spec.ports.iter().map(ToString::to_string).collect();
    let token = OsStr::from_bytes(&token.to_hex()).to_owned();
    let instance_var = spec.workplace.instance_var.as_deref().unwrap_or("NODE_APP_INSTANCE");
    let mut variables = vec![
        ("CLUSTERD_WORKER_ID", id.slot.to_string().into()),
        (instance_var, number(launch).to_string().into()),
        ("CLUSTERD_LANE", lane.0.to_string().into()),
        ("CLUSTERD_WORKERS", workers.to_string().into()),
        (wire::ENV_SOCKET, spec.attach.socket.clone()),
        (wire::ENV_TOKEN, token),
        (wire::ENV_PORTS, if ports.is_empty() { wire::ANY_PORT.into() } else { ports.join(",").into() }),
    ];
    if let Some(first) = ports.first() {
        variables.push(("PORT", first.into()));
    }
    if let Some(folder) = &spec.workplace.folder {
        variables.push(("PWD", folder.into()));
    }
    let inspected = lane.0.saturating_sub(1);
    let options = lookup("NODE_OPTIONS").and_then(|options| options.into_string().ok());
    let options = options.and_then(|options| inspector::node_options(&options, inspected));
    variables.extend(options.map(|options| ("NODE_OPTIONS", options.into())));
    if let Some(shim) = &spec.attach.shim {
        variables.push(("LD_PRELOAD", appended(lookup("LD_PRELOAD"), shim)));
    }
    if let (Some(_), Some(page)) = (&spec.attach.shim, &spec.attach.drain_page) {
        let mut value = OsString::from(format!("{}:", id.launch));
        value.push(page);
        variables.push((drain_page::ENV_DRAINING, value));
    }
    if spec.attach.node_channel {
        let values = [NODE_CHANNEL_FD.to_string(), id.launch.to_string(), "json".to_owned()];
        variables.extend(NODE_CHANNEL_VARIABLES.into_iter().zip(values.map(OsString::from)));
    }
    variables
}

/// A worker's output is a pipe, on which programs write no colours by themselves. These variables are for those that use
/// the conventions of force-color.org (Node, Python, Ruby) and bixense.com/clicolors (Rust, Go). Whoever has said anything
/// of colours is obeyed.
fn colours(lookup: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, &'static str)> {
    const SAID: [&str; 4] = ["NO_COLOR", "NODE_DISABLE_COLORS", "CLICOLOR_FORCE", "FORCE_COLOR"];
    let is_refused = lookup("CLICOLOR").is_some_and(|value| value == "0");
    if is_refused || SAID.into_iter().any(|name| lookup(name).is_some()) {
        return Vec::new();
    }
    // For Node, 1 is 16 colours, which every terminal has that has any.
    vec![("FORCE_COLOR", "1"), ("CLICOLOR_FORCE", "1")]
}

/// ld.so(8) separates the list by spaces or colons. A command that a worker has given (`reload --update-env`) brings the
/// shim along, and in a worker of another clusterd that one's, which goes when that clusterd ends.
fn appended(preload: Option<OsString>, shim: &Path) -> OsString {
    let list = preload.unwrap_or_default();
    let others = list.as_bytes().split(|byte| matches!(byte, b':' | b' '));
    let is_shim = |path: &[u8]| Path::new(OsStr::from_bytes(path)).file_name() == shim.file_name();
    let others = others.filter(|other| !other.is_empty() && !is_shim(other));
    let all: Vec<_> = others.chain([shim.as_os_str().as_bytes()]).collect();
    OsStr::from_bytes(&all.join(&b':')).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Slot, WorkerId};
    use crate::protocol::wire::Token;
    use crate::settings::workplace::Workplace;
    use crate::supervisor::lanes::Lane;
    use crate::sys::mark::Family;

    fn spec(inherited: &[(&str, &str)], workplace: Workplace) -> CommandSpec {
        let inherited = inherited.iter().map(|(name, value)| (name.into(), value.into())).collect();
        let mut spec = CommandSpec { inherited, workplace, ..CommandSpec::of_demo() };
        spec.attach.shim = Some("/shim.so".into());
        spec
    }

    fn given(spec: &CommandSpec) -> BTreeMap<String, String> {
        let launch = Launch {
            id: WorkerId { slot: Slot(2), launch: 7 },
            lane: Lane(3),
            token: Token([0; 16]),
            workers: 4,
            mark: Family::random().member(7),
        };
        let text = |text: OsString| text.into_string().unwrap();
        of(spec, &launch).unwrap().into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn what_is_nearer_to_the_worker_wins() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(".env");
        std::fs::write(
            &file,
            "A=file\nB=file\nPORT=1\nCLUSTERD_CONFIG=1\nNODE_CHANNEL_FD=9\nWEB_CONCURRENCY=2\n",
        )
        .unwrap();
        let inherited = [
            ("A", "inherited"),
            ("B", "inherited"),
            ("C", "inherited"),
            ("PORT", "80"),
            ("PWD", "/elsewhere"),
            ("CLUSTERD_WORKERS", "9"),
            ("CLUSTERD_HOME", "/home"),
            ("WEB_CONCURRENCY", "9"),
            ("NODE_UNIQUE_ID", "9"),
            ("LISTEN_FDS", "1"),
            ("LD_PRELOAD", "/other.so:/shim.so /another/shim.so"),
        ];
        let workplace = Workplace {
            folder: Some("/srv/current".into()),
            env_files: vec![file],
            variables: BTreeMap::from([("A".to_owned(), "own".to_owned())]),
            ..Workplace::default()
        };
        let given = given(&spec(&inherited, workplace));
        let expected = [
            ("A", Some("own")),
            ("B", Some("file")),
            ("C", Some("inherited")),
            ("PORT", Some("3000")),
            ("PWD", Some("/srv/current")),
            ("CLUSTERD_WORKERS", Some("4")),
            ("CLUSTERD_HOME", None),
            ("CLUSTERD_CONFIG", None),
            ("WEB_CONCURRENCY", Some("2")),
            ("NODE_UNIQUE_ID", None),
            ("NODE_CHANNEL_FD", None),
            ("LISTEN_FDS", None),
            ("LD_PRELOAD", Some("/other.so:/shim.so")),
            ("NODE_APP_INSTANCE", Some("1")),
            ("CLUSTERD_LANE", Some("3")),
        ];
        for (name, value) in expected {
            assert_eq!(given.get(name).map(String::as_str), value, "{name}");
        }
    }

    #[test]
    fn variables_are_kept_back_named_and_counted_as_was_asked() {
        let variables = [("PORT", "7000"), ("SECRET", "own")];
        let workplace = |increment_var: &str| Workplace {
            variables: variables
                .iter()
                .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
                .collect(),
            filtered: vec!["TOKEN".to_owned(), "SECRET".to_owned()],
            instance_var: Some("INSTANCE".to_owned()),
            increment_var: Some(increment_var.to_owned()),
            ..Workplace::default()
        };
        let inherited = [("TOKEN", "1"), ("TOKENS", "2"), ("SECRET", "3"), ("N", "x"), ("M", " 4 ")];
        let with = |increment_var: &str| given(&spec(&inherited, workplace(increment_var)));
        let all = with("PORT");
        assert_eq!((all.get("TOKEN"), all["TOKENS"].as_str(), all["SECRET"].as_str()), (None, "2", "own"));
        assert_eq!((all.get("NODE_APP_INSTANCE"), all["INSTANCE"].as_str()), (None, "1"));
        assert_eq!(all["PORT"], "7001", "it is the worker's own affair");
        assert_eq!(with("N")["N"], "1", "no number counts from 0");
        assert_eq!(with("M")["M"], "5");
        assert_eq!((with("OTHER")["OTHER"].as_str(), with("OTHER")["PORT"].as_str()), ("1", "3000"));
    }

    #[test]
    fn what_is_inherited_is_passed_on_as_it_is() {
        let inherited = [("A", "1"), ("PATH", "/bin"), ("NODE_OPTIONS", "--inspect")];
        let given = given(&spec(&inherited, Workplace::default()));
        assert_eq!((given["A"].as_str(), given["PATH"].as_str()), ("1", "/bin"));
        assert_eq!(given["NODE_OPTIONS"], "--inspect --inspect-port=9231");
        assert_eq!(given["LD_PRELOAD"], "/shim.so");
        assert!(!given.contains_key("PWD"), "no name leads to the folder");
    }

    #[test]
    fn colours_are_asked_for_unless_anything_was_said_of_them() {
        let cases: [(&[(&str, &str)], bool); 8] = [
            (&[], true),
            (&[("CLICOLOR", "1")], true),
            (&[("CLICOLOR", "0")], false),
            (&[("NO_COLOR", "1")], false),
            (&[("FORCE_COLOR", "0")], false),
            (&[("FORCE_COLOR", "3")], false),
            (&[("CLICOLOR_FORCE", "0")], false),
            (&[("NODE_DISABLE_COLORS", "1")], false),
        ];
        for (environment, expected) in cases {
            let given = colours(|wanted| {
                environment.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.into())
            });
            assert_eq!(!given.is_empty(), expected, "{environment:?}");
        }
    }
}
