//! Commands: their verbs and their bodies.
//!
//! What a command does is the supervisor's concern.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{Code, Problem};
use crate::ids::Slot;
use crate::supervisor::{Command, Scale};

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
}

impl Verb {
    /// Every verb.
    pub(crate) const ALL: [Verb; 5] = [Verb::Reload, Verb::Restart, Verb::Scale, Verb::Stop, Verb::Start];

    /// Its name in a path.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Verb::Reload => "reload",
            Verb::Restart => "restart",
            Verb::Scale => "scale",
            Verb::Stop => "stop",
            Verb::Start => "start",
        }
    }

    /// The verb of a command.
    pub(crate) fn of(command: Command) -> Self {
        match command {
            Command::Reload => Verb::Reload,
            Command::Restart(_) => Verb::Restart,
            Command::Scale(_) => Verb::Scale,
            Command::Stop => Verb::Stop,
            Command::Start => Verb::Start,
        }
    }
}

/// The body of a restart command.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RestartBody {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    worker: Option<u32>,
}

/// The body of a scale command.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleBody {
    workers: Workers,
}

/// The body of any other command.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EmptyBody {}

/// The body to send with a command.
pub(crate) fn body_of(command: Command) -> Vec<u8> {
    let body = match command {
        Command::Restart(worker) => serde_json::to_vec(&RestartBody { worker: worker.map(|slot| slot.0) }),
        Command::Scale(scale) => serde_json::to_vec(&ScaleBody { workers: Workers(scale) }),
        Command::Reload | Command::Stop | Command::Start => serde_json::to_vec(&EmptyBody {}),
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
        Verb::Reload => serde_json::from_slice(body).map(|EmptyBody {}| Command::Reload),
        Verb::Stop => serde_json::from_slice(body).map(|EmptyBody {}| Command::Stop),
        Verb::Start => serde_json::from_slice(body).map(|EmptyBody {}| Command::Start),
        Verb::Restart => {
            serde_json::from_slice(body).map(|RestartBody { worker }| Command::Restart(worker.map(Slot)))
        }
        Verb::Scale => {
            serde_json::from_slice(body).map(|ScaleBody { workers: Workers(scale) }| Command::Scale(scale))
        }
    };
    let wanted = match verb {
        Verb::Restart => r#"the body is {} or {"worker":2}"#,
        Verb::Scale => r#"the body is {"workers":4} or {"workers":"+1"}"#,
        Verb::Reload | Verb::Stop | Verb::Start => "the body is empty",
    };
    read.map_err(|error| Problem::new(Code::BadRequest, format!("{}: {error}", verb.name())).help(wanted))
}

/// A number of workers to scale to or by, as people write it: `4`, `+1`, `-2`; in JSON, `4` may be a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Workers(pub Scale);

/// A number of workers that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}: not a number of workers: use 4 for four, +1 for one more, -1 for one fewer")]
pub(crate) struct NotWorkers(String);

impl std::str::FromStr for Workers {
    type Err = NotWorkers;

    fn from_str(text: &str) -> Result<Self, NotWorkers> {
        let wrong = || NotWorkers(text.to_owned());
        let is_signed = text.starts_with(['+', '-']);
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(wrong());
        }
        let scale = match is_signed {
            true => Scale::By(text.parse().map_err(|_| wrong())?),
            false => Scale::To(text.parse().map_err(|_| wrong())?),
        };
        Ok(Self(scale))
    }
}

impl fmt::Display for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Scale::To(number) => number.fmt(f),
            Scale::By(difference) => write!(f, "{difference:+}"),
        }
    }
}

impl Serialize for Workers {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Scale::To(number) => serializer.serialize_u32(number),
            Scale::By(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a number, or a text such as \"+1\"")]
        enum Written {
            Number(u32),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Self(Scale::To(number))),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_comes_back_from_its_verb_and_body() {
        for command in [
            Command::Reload,
            Command::Restart(None),
            Command::Restart(Some(Slot(3))),
            Command::Scale(Scale::To(4)),
            Command::Scale(Scale::By(1)),
            Command::Scale(Scale::By(-2)),
            Command::Stop,
            Command::Start,
        ] {
            assert_eq!(command_of(Verb::of(command), &body_of(command)), Ok(command));
        }
    }

    #[test]
    fn a_body_is_read_strictly() {
        let good: [(Verb, &str, Command); 5] = [
            (Verb::Reload, "", Command::Reload),
            (Verb::Stop, " \n", Command::Stop),
            (Verb::Restart, "{}", Command::Restart(None)),
            (Verb::Restart, r#"{"worker":2}"#, Command::Restart(Some(Slot(2)))),
            (Verb::Scale, r#"{"workers":"4"}"#, Command::Scale(Scale::To(4))),
        ];
        for (verb, body, command) in good {
            assert_eq!(command_of(verb, body.as_bytes()), Ok(command), "{body}");
        }
        for (verb, body) in [
            (Verb::Reload, r#"{"worker":2}"#),
            (Verb::Start, "[1]"),
            (Verb::Restart, r#"{"worker":-1}"#),
            (Verb::Restart, r#"{"wroker":2}"#),
            (Verb::Scale, ""),
            (Verb::Scale, r#"{"workers":"many"}"#),
            (Verb::Scale, r#"{"workers":-1}"#),
            (Verb::Scale, r#"{"workers":"+99999999999"}"#),
            (Verb::Scale, "\u{0}"),
        ] {
            let problem = command_of(verb, body.as_bytes()).expect_err(body);
            assert_eq!(problem.code, Code::BadRequest);
            assert!(problem.help.is_some());
        }
    }
}
