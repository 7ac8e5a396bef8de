//! Commands: their verbs and their bodies.
//!
//! What a command does is the supervisor's concern.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Serialize, de};

use super::number::{WorkerNumber, Workers};
use super::{Code, Problem};
use crate::ids::Slot;
use crate::supervisor::signal_name::NamedSignal;
use crate::supervisor::{Command, Environment};

/// The commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    /// Replace every worker by a new one that is ready first.
    Reload,
    /// End and start again.
    Restart,
    /// More or fewer workers.
    Scale,
    /// End every worker.
    Stop,
    /// Start them again.
    Start,
    /// Send them a signal.
    Signal,
    /// Count their restarts from 0.
    Reset,
    /// Replace clusterd itself.
    Upgrade,
}

impl Verb {
    /// Every verb.
    pub(crate) const ALL: [Verb; 8] = [
        Verb::Reload,
        Verb::Restart,
        Verb::Scale,
        Verb::Stop,
        Verb::Start,
        Verb::Signal,
        Verb::Reset,
        Verb::Upgrade,
    ];

    /// Its name in a path.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verb::Reload => "reload",
            Verb::Restart => "restart",
            Verb::Scale => "scale",
            Verb::Stop => "stop",
            Verb::Start => "start",
            Verb::Signal => "signal",
            Verb::Reset => "reset",
            Verb::Upgrade => "upgrade",
        }
    }

    /// The verb of a command.
    pub(crate) fn of(command: &Command) -> Self {
        match command {
            Command::Reload | Command::ReloadWith(_) => Verb::Reload,
            Command::Restart(_) | Command::RestartWith(_) => Verb::Restart,
            Command::Scale(_) => Verb::Scale,
            Command::Stop(_) | Command::Hold => Verb::Stop,
            Command::Start(_) | Command::StartWith(_) => Verb::Start,
            Command::Signal(..) => Verb::Signal,
            Command::Reset(_) => Verb::Reset,
            Command::Upgrade(_) => Verb::Upgrade,
        }
    }
}

/// The body of a reload command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ReloadBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<Vec<Entry>>,
}

/// The body of a restart or start command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "internal", schemars(extend("not" = serde_json::json!({ "properties": { "worker": { "type": "integer" }, "environment": { "type": "array" } }, "required": ["worker", "environment"] }))))]
pub(super) struct StartBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<WorkerNumber>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    environment: Option<Vec<Entry>>,
}

/// A variable, as environ(7) has it: `NAME=VALUE`. Bytes that are no UTF-8 are an array of numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(untagged, expecting = "a text such as \"NAME=VALUE\"")]
enum Entry {
    Text(String),
    Bytes(Vec<u8>),
}

#[cfg(feature = "internal")]
impl schemars::JsonSchema for Entry {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Variable".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let equals = u32::from('=');
        schemars::json_schema!({
            "description": "A variable, as environ(7) has it. Bytes that are no UTF-8 are an array of numbers.",
            "anyOf": [
                { "type": "string", "pattern": "^[^=\\x00]+=[^\\x00]*$" },
                {
                    "type": "array",
                    "prefixItems": [{ "type": "integer", "minimum": 1, "maximum": 255, "not": { "const": equals } }],
                    "items": { "type": "integer", "minimum": 1, "maximum": 255 },
                    "contains": { "const": equals },
                    "minItems": 2,
                },
            ],
        })
    }
}

impl Entry {
    fn of(name: &OsStr, value: &OsStr) -> Self {
        let bytes = [name.as_bytes(), b"=", value.as_bytes()].concat();
        String::from_utf8(bytes).map_or_else(|error| Entry::Bytes(error.into_bytes()), Entry::Text)
    }

    /// The name and the value; `None` if no environment can hold it.
    fn parts(self) -> Option<(OsString, OsString)> {
        let bytes = match self {
            Entry::Text(text) => text.into_bytes(),
            Entry::Bytes(bytes) => bytes,
        };
        let end = bytes.iter().position(|&byte| byte == b'=').filter(|&end| end > 0)?;
        let (name, value) = (bytes[..end].to_vec(), bytes[end + 1..].to_vec());
        (!bytes.contains(&0)).then(|| (OsString::from_vec(name), OsString::from_vec(value)))
    }
}

fn entries(environment: &Environment) -> Option<Vec<Entry>> {
    // What has no name, or a name with `=`, cannot be told apart again.
    let named = environment.iter().filter(|(name, _)| !name.is_empty() && !name.as_bytes().contains(&b'='));
    Some(named.map(|(name, value)| Entry::of(name, value)).collect())
}

fn environment_of(entries: Vec<Entry>) -> Result<Environment, serde_json::Error> {
    let parts = entries.into_iter().map(|entry| {
        entry.parts().ok_or_else(|| de::Error::custom("environment: a variable is written as NAME=VALUE"))
    });
    parts.collect()
}

/// The body of a scale command.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ScaleBody {
    workers: Workers,
}

/// The body of a stop command.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "internal", schemars(extend("not" = serde_json::json!({ "properties": { "worker": { "type": "integer" }, "hold": { "const": true } }, "required": ["worker", "hold"] }))))]
pub(super) struct StopBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<WorkerNumber>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    hold: bool,
}

/// The body of a signal command.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct SignalBody {
    #[cfg_attr(feature = "internal", schemars(schema_with = "signal_names"))]
    signal: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<WorkerNumber>,
}

/// They may also be written with SIG, in any case, and as numbers.
#[cfg(feature = "internal")]
fn signal_names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names: Vec<_> = NamedSignal::all().map(|signal| signal.to_string()).collect();
    schemars::json_schema!({ "type": "string", "enum": names })
}

/// The body of a reset command.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct ResetBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<WorkerNumber>,
}

/// The body of an upgrade command.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct UpgradeBody {
    /// The absolute path of the program; without it, what has the name of the one that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "internal", schemars(regex(pattern = "^/[^\\x00]*$")))]
    program: Option<String>,
}

/// The body to send with a command.
pub(crate) fn body_of(command: &Command) -> Vec<u8> {
    let body = match command {
        Command::ReloadWith(environment) => {
            serde_json::to_vec(&ReloadBody { environment: entries(environment) })
        }
        Command::Restart(worker) | Command::Start(worker) => {
            serde_json::to_vec(&StartBody { worker: worker.map(WorkerNumber), environment: None })
        }
        Command::RestartWith(environment) | Command::StartWith(environment) => {
            serde_json::to_vec(&StartBody { worker: None, environment: entries(environment) })
        }
        Command::Scale(scale) => serde_json::to_vec(&ScaleBody { workers: Workers(*scale) }),
        Command::Stop(worker) => {
            serde_json::to_vec(&StopBody { worker: worker.map(WorkerNumber), hold: false })
        }
        Command::Hold => serde_json::to_vec(&StopBody { worker: None, hold: true }),
        Command::Reload => serde_json::to_vec(&ReloadBody::default()),
        Command::Signal(worker, signal) => {
            serde_json::to_vec(&SignalBody { signal: signal.to_string(), worker: worker.map(WorkerNumber) })
        }
        Command::Reset(worker) => serde_json::to_vec(&ResetBody { worker: worker.map(WorkerNumber) }),
        Command::Upgrade(program) => serde_json::to_vec(&UpgradeBody {
            program: program.as_ref().map(|path| path.to_string_lossy().into_owned()),
        }),
    };
    body.expect("plain structures can be written")
}

/// The command of a verb and a body. An empty body is an empty object.
///
/// # Errors
/// What is wrong with the body.
pub(crate) fn command_of(verb: Verb, body: &[u8]) -> Result<Command, Problem> {
    let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
    let read = match verb {
        // serde takes an array for a structure: each value in its place, and none where there may be none.
        _ if !body.trim_ascii_start().starts_with(b"{") => {
            Err(de::Error::custom("the body is not an object"))
        }
        Verb::Reload => serde_json::from_slice(body).and_then(reload),
        Verb::Stop => serde_json::from_slice(body).and_then(stop),
        Verb::Start => serde_json::from_slice(body)
            .and_then(|body| of_one_or_all(body, Command::Start, Command::StartWith)),
        Verb::Restart => serde_json::from_slice(body)
            .and_then(|body| of_one_or_all(body, Command::Restart, Command::RestartWith)),
        Verb::Scale => {
            serde_json::from_slice(body).map(|ScaleBody { workers: Workers(scale) }| Command::Scale(scale))
        }
        Verb::Signal => serde_json::from_slice(body).and_then(signal),
        Verb::Reset => serde_json::from_slice(body)
            .map(|ResetBody { worker }| Command::Reset(worker.map(WorkerNumber::slot))),
        Verb::Upgrade => serde_json::from_slice(body).and_then(upgrade),
    };
    let wanted = match verb {
        Verb::Signal => r#"the body is {"signal":"USR2"} or {"signal":"USR2","worker":2}"#,
        Verb::Reset => r#"the body is {} or {"worker":2}"#,
        Verb::Upgrade => r#"the body is {} or {"program":"/usr/bin/clusterd"}"#,
        Verb::Reload => r#"the body is {} or {"environment":["NAME=VALUE"]}"#,
        Verb::Restart | Verb::Start => r#"the body is {}, {"worker":2} or {"environment":["NAME=VALUE"]}"#,
        Verb::Scale => r#"the body is {"workers":4} or {"workers":"+1"}"#,
        Verb::Stop => r#"the body is {}, {"worker":2} or {"hold":true}"#,
    };
    read.map_err(|error| Problem::new(Code::BadRequest, format!("{}: {error}", verb.name())).help(wanted))
}

fn stop(StopBody { worker, hold }: StopBody) -> Result<Command, serde_json::Error> {
    match (worker, hold) {
        (worker, false) => Ok(Command::Stop(worker.map(WorkerNumber::slot))),
        (None, true) => Ok(Command::Hold),
        (Some(_), true) => Err(de::Error::custom("clients wait for all workers, not for one alone")),
    }
}

fn signal(SignalBody { signal, worker }: SignalBody) -> Result<Command, serde_json::Error> {
    let named = signal.parse::<NamedSignal>();
    named.map(|signal| Command::Signal(worker.map(WorkerNumber::slot), signal)).map_err(|error| {
        let message = error.to_string();
        de::Error::custom(message.lines().next().unwrap_or_default())
    })
}

fn reload(ReloadBody { environment }: ReloadBody) -> Result<Command, serde_json::Error> {
    Ok(match environment {
        None => Command::Reload,
        Some(entries) => Command::ReloadWith(environment_of(entries)?),
    })
}

fn upgrade(UpgradeBody { program }: UpgradeBody) -> Result<Command, serde_json::Error> {
    match program {
        // clusterd runs in another folder than whoever asks.
        Some(path) if !path.starts_with('/') || path.contains('\0') => {
            Err(de::Error::custom("program: an absolute path is wanted"))
        }
        path => Ok(Command::Upgrade(path.map(Into::into))),
    }
}

fn of_one_or_all(
    StartBody { worker, environment }: StartBody,
    plain: impl FnOnce(Option<Slot>) -> Command,
    with: impl FnOnce(Environment) -> Command,
) -> Result<Command, serde_json::Error> {
    match (worker, environment) {
        (worker, None) => Ok(plain(worker.map(WorkerNumber::slot))),
        (None, Some(entries)) => Ok(with(environment_of(entries)?)),
        (Some(_), Some(_)) => {
            Err(de::Error::custom("all workers inherit the same environment, not one alone"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::Scale;

    #[test]
    fn a_command_comes_back_from_its_verb_and_body() {
        let environment: Environment = [
            ("A".into(), "b=c\n\u{1f980}".into()),
            ("B".into(), OsString::from_vec(vec![0xff, b'='])),
            (OsString::from_vec(vec![0xfe]), "".into()),
        ]
        .into_iter()
        .collect();
        for command in [
            Command::Reload,
            Command::ReloadWith(environment.clone()),
            Command::ReloadWith(Environment::default()),
            Command::RestartWith(environment),
            Command::Restart(None),
            Command::Restart(Some(Slot(3))),
            Command::Scale(Scale::To(4)),
            Command::Scale(Scale::By(1)),
            Command::Scale(Scale::By(-2)),
            Command::Stop(None),
            Command::Stop(Some(Slot(2))),
            Command::Hold,
            Command::Start(None),
            Command::Start(Some(Slot(1))),
            Command::Signal(None, "USR2".parse().unwrap()),
            Command::Signal(Some(Slot(2)), "KILL".parse().unwrap()),
            Command::Reset(None),
            Command::Reset(Some(Slot(2))),
            Command::Upgrade(None),
            Command::Upgrade(Some("/usr/bin/clusterd".into())),
            Command::StartWith(Environment::default()),
        ] {
            assert_eq!(command_of(Verb::of(&command), &body_of(&command)), Ok(command));
        }
    }

    #[test]
    fn a_body_is_read_strictly() {
        let good: [(Verb, &str, Command); 7] = [
            // JSON has one kind of number.
            (Verb::Restart, r#" {"worker":2.0}"#, Command::Restart(Some(Slot(2)))),
            (Verb::Scale, r#"{"workers":4.0}"#, Command::Scale(Scale::To(4))),
            (Verb::Reload, "", Command::Reload),
            (Verb::Stop, " \n", Command::Stop(None)),
            (Verb::Restart, "{}", Command::Restart(None)),
            (Verb::Restart, r#"{"worker":2}"#, Command::Restart(Some(Slot(2)))),
            (Verb::Scale, r#"{"workers":"4"}"#, Command::Scale(Scale::To(4))),
        ];
        for (verb, body, command) in good {
            assert_eq!(command_of(verb, body.as_bytes()), Ok(command), "{body}");
        }
        for (verb, body) in [
            (Verb::Reload, r#"{"worker":2}"#),
            (Verb::Reload, r#"{"environment":{"A":"b"}}"#),
            (Verb::Reload, r#"{"environment":["A"]}"#),
            (Verb::Reload, r#"{"environment":["=A"]}"#),
            (Verb::Reload, r#"{"environment":["A=\u0000"]}"#),
            (Verb::Reload, r#"{"environment":[[256]]}"#),
            (Verb::Restart, r#"{"environment":["A=b"],"worker":1}"#),
            (Verb::Start, r#"{"slot":1}"#),
            (Verb::Stop, r#"{"worker":"2"}"#),
            (Verb::Restart, r#"{"worker":-1}"#),
            (Verb::Signal, "{}"),
            (Verb::Signal, r#"{"signal":"nope"}"#),
            (Verb::Signal, r#"{"signal":15}"#),
            (Verb::Reset, r#"{"workers":1}"#),
            (Verb::Restart, r#"{"wroker":2}"#),
            (Verb::Scale, ""),
            (Verb::Scale, r#"{"workers":"many"}"#),
            (Verb::Scale, r#"{"workers":-1}"#),
            (Verb::Scale, r#"{"workers":"+99999999999"}"#),
            (Verb::Scale, "\u{0}"),
            (Verb::Restart, "[null,null]"),
            (Verb::Stop, "[]"),
            (Verb::Reset, " [2]"),
            (Verb::Stop, r#"{"worker":0}"#),
            (Verb::Stop, r#"{"worker":1.5}"#),
        ] {
            let problem = command_of(verb, body.as_bytes()).expect_err(body);
            assert_eq!(problem.code, Code::BadRequest);
            assert!(problem.help.is_some());
        }
    }
}
