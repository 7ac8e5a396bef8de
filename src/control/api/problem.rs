//! How a request ends: the outcome of a command, and refusals.
//!
//! What is refused is decided by the handlers and by the supervisor.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::supervisor::{Failed, Refused};

/// The last line of the stream that a command is answered with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It was carried out; what was done, in one sentence.
    Done(String),
    /// It was not.
    Error(Problem),
}

/// The body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
pub(crate) struct Refusal {
    /// Why.
    pub error: Problem,
}

/// Why a request was refused, or a command failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[error("{message}")]
pub(crate) struct Problem {
    /// The kind.
    pub code: Code,
    /// What was wrong.
    pub message: String,
    /// What would help: the right value, or what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// The last lines that the failed worker wrote to standard error.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_lines: Vec<String>,
}

/// What kind of problem it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "internal", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Code {
    /// The request is invalid.
    BadRequest,
    /// The token is missing or wrong, where one is needed.
    Unauthorized,
    /// The client is not trusted.
    Forbidden,
    /// There is nothing of that name.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The body is not JSON.
    UnsupportedMediaType,
    /// Another command is under way.
    Busy,
    /// The app is stopped.
    Stopped,
    /// The configuration is wrong.
    Configuration,
    /// The worker cannot be reached.
    Unreachable,
    /// Too many clients or requests at once.
    Overloaded,
    /// clusterd stops.
    Stopping,
    /// It was begun, and failed.
    Failed,
}

impl Code {
    /// The status of an answer with this problem (RFC 9110).
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Code::BadRequest => StatusCode::BAD_REQUEST,
            Code::Unauthorized => StatusCode::UNAUTHORIZED,
            Code::Forbidden => StatusCode::FORBIDDEN,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Code::Busy | Code::Stopped => StatusCode::CONFLICT,
            Code::Configuration => StatusCode::UNPROCESSABLE_ENTITY,
            Code::Unreachable => StatusCode::BAD_GATEWAY,
            Code::Overloaded | Code::Stopping => StatusCode::SERVICE_UNAVAILABLE,
            Code::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl Problem {
    /// A problem without more words.
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), help: None, last_lines: Vec::new() }
    }

    /// The same, and what would help.
    #[must_use]
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        let code = match refused {
            Refused::Busy { .. } | Refused::Upgrading => Code::Busy,
            Refused::Stopping => Code::Stopping,
            Refused::Stopped => Code::Stopped,
            Refused::OutOfRange { .. } => Code::BadRequest,
            Refused::Configuration(_) => Code::Configuration,
            Refused::NoWorker(_) => Code::NotFound,
        };
        Self::new(code, refused.to_string())
    }
}

impl From<Failed> for Problem {
    fn from(failed: Failed) -> Self {
        Self { last_lines: failed.last_lines, ..Self::new(Code::Failed, failed.reason) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Slot;
    use crate::supervisor::events::Asker;

    #[test]
    fn a_refusal_keeps_its_words_and_has_a_status() {
        let by = Asker::Command { pid: 5, uid: 0 };
        let table = [
            (Refused::Busy { by }, 409, "busy"),
            (Refused::Stopping, 503, "stopping"),
            (Refused::Stopped, 409, "stopped"),
            (Refused::OutOfRange { asked: 0 }, 400, "bad-request"),
            (Refused::Configuration("a port is missing".to_owned()), 422, "configuration"),
            (Refused::NoWorker(Slot(9)), 404, "not-found"),
        ];
        for (refused, status, code) in table {
            let words = refused.to_string();
            let problem = Problem::from(refused);
            assert_eq!(problem.code.status(), status);
            assert_eq!(problem.to_string(), words);
            let json = serde_json::to_value(Refusal { error: problem.clone() }).unwrap();
            assert_eq!(json["error"]["code"], code);
            assert_eq!(serde_json::from_value::<Refusal>(json).unwrap().error, problem);
        }
    }

    #[test]
    fn the_last_line_of_a_command_is_told_from_an_event() {
        let done = Outcome::Done("reloaded 4 workers".to_owned());
        let text = serde_json::to_string(&done).unwrap();
        assert_eq!(text, r#"{"done":"reloaded 4 workers"}"#);
        assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), done);
        let failed = Failed { reason: "it crashed".to_owned(), last_lines: vec!["boom".to_owned()] };
        let text = serde_json::to_string(&Outcome::Error(failed.into())).unwrap();
        assert_eq!(text, r#"{"error":{"code":"failed","message":"it crashed","last_lines":["boom"]}}"#);
        let event =
            r#"{"time":"2026-11-20T13:14:40.118Z","app":"web","event":"scaled","workers":1,"by":"cron"}"#;
        assert!(serde_json::from_str::<Outcome>(event).is_err());
    }
}
