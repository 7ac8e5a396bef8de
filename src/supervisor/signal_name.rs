//! The signals that can be sent to workers, by name and by number (signal(7)).
//!
//! It sends none.

use std::fmt;

use nix::sys::signal;
use rustix::process::Signal;

/// A signal with a name; shown without SIG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedSignal(signal::Signal);

/// A word that means no signal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not a signal\nhint: use a name, with or without SIG, such as USR2, or its number")]
pub(crate) struct NoSignal(String);

impl NamedSignal {
    /// Every signal.
    #[cfg(feature = "internal")]
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        signal::Signal::iterator().map(Self)
    }

    /// To be sent.
    pub(crate) fn signal(self) -> Signal {
        Signal::from_named_raw(self.0 as i32).expect("both have the names of signal(7)")
    }
}

impl std::str::FromStr for NamedSignal {
    type Err = NoSignal;

    /// By its name, with or without SIG, in any case, or by its number.
    fn from_str(text: &str) -> Result<Self, NoSignal> {
        let name = text.to_ascii_uppercase();
        let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
        let by_number = || text.parse().ok().filter(|number: &i32| number.to_string() == text);
        let found = name.parse().ok().or_else(|| signal::Signal::try_from(by_number()?).ok());
        found.map(Self).ok_or_else(|| NoSignal(text.to_owned()))
    }
}

impl fmt::Display for NamedSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.as_str();
        f.write_str(name.strip_prefix("SIG").unwrap_or(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_with_and_without_sig_and_a_number() {
        let cases = [
            ("USR2", Some(Signal::USR2)),
            ("SIGUSR2", Some(Signal::USR2)),
            ("sigterm", Some(Signal::TERM)),
            ("kill", Some(Signal::KILL)),
            ("STOP", Some(Signal::STOP)),
            ("CHLD", Some(Signal::CHILD)),
            ("1", Some(Signal::HUP)),
            ("31", Some(Signal::SYS)),
            ("0", None),
            ("01", None),
            ("+1", None),
            ("-1", None),
            ("32", None),
            ("SIG", None),
            ("SIG15", None),
            ("nope", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = text.parse::<NamedSignal>().ok();
            assert_eq!(read.map(NamedSignal::signal), expected, "{text}");
        }
    }

    #[test]
    fn each_that_there_is_can_be_sent_and_said() {
        for signal in signal::Signal::iterator().map(NamedSignal) {
            assert_eq!(signal.signal().as_raw(), signal.0 as i32);
            assert_eq!(signal.to_string().parse(), Ok(signal));
        }
    }
}
