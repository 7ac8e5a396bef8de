//! Numbers in the bodies of commands: of a worker, and of workers.
//!
//! JSON has one kind of number, so `2.0` is 2.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::ids::Slot;
#[cfg(feature = "internal")]
use crate::settings::parse::MAX_WORKERS;
use crate::supervisor::Scale;

/// The number of a worker, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WorkerNumber(pub(super) Slot);

impl WorkerNumber {
    /// The worker.
    pub(super) fn slot(self) -> Slot {
        self.0
    }
}

impl Serialize for WorkerNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0.0)
    }
}

impl<'de> Deserialize<'de> for WorkerNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number =
            deserializer.deserialize_any(Number { expects: "the number of a worker", takes_text: false })?;
        match number {
            Written::Number(number @ 1..) => Ok(Self(Slot(number))),
            _ => Err(de::Error::custom("workers are numbered from 1")),
        }
    }
}

/// A number as somebody wrote it.
enum Written {
    Number(u32),
    Text(String),
}

/// Takes a whole number, and a text where there may be one.
struct Number {
    expects: &'static str,
    takes_text: bool,
}

impl de::Visitor<'_> for Number {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expects)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Written, E> {
        let whole = u32::try_from(number).map(Written::Number);
        whole.map_err(|_| E::invalid_value(de::Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Written, E> {
        match number {
            number if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) => {
                Ok(Written::Number(number as u32))
            }
            number => Err(E::invalid_value(de::Unexpected::Float(number), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Written, E> {
        match self.takes_text {
            true => Ok(Written::Text(text.to_owned())),
            false => Err(E::invalid_type(de::Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(feature = "internal")]
impl schemars::JsonSchema for WorkerNumber {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "WorkerNumber".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "The number of a worker.",
            "type": "integer",
            "minimum": 1,
            "maximum": u32::MAX,
        })
    }
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

#[cfg(feature = "internal")]
impl schemars::JsonSchema for Workers {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Workers".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "So many workers, or so many more or fewer.",
            "anyOf": [
                { "type": "integer", "minimum": 1, "maximum": MAX_WORKERS },
                { "type": "string", "pattern": "^[+-]?[0-9]{1,9}$" },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Workers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expects = "a number, or a text such as \"+1\"";
        match deserializer.deserialize_any(Number { expects, takes_text: true })? {
            Written::Number(number) => Ok(Self(Scale::To(number))),
            Written::Text(text) => text.parse().map_err(de::Error::custom),
        }
    }
}
