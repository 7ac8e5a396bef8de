//! The signals that a server can be asked to stop by, and their names.
//!
//! It sends none.

use std::fmt;

use rustix::process::Signal;

use super::error::Reason;
use super::kind::{Automatic, Kind, Values, or};

/// Those that some server stops on: nginx and php-fpm take QUIT, Apache WINCH, others INT or USR1 (signal(7)). One
/// that only pauses a process, or that is ignored unless it is caught, would stop nothing.
const SIGNALS: [(&str, Signal); 11] = [
    ("HUP", Signal::HUP),
    ("INT", Signal::INT),
    ("QUIT", Signal::QUIT),
    ("ABRT", Signal::ABORT),
    ("KILL", Signal::KILL),
    ("USR1", Signal::USR1),
    ("USR2", Signal::USR2),
    ("ALRM", Signal::ALARM),
    ("TERM", Signal::TERM),
    ("WINCH", Signal::WINCH),
    ("PWR", Signal::POWER),
];

/// The signal that asks a worker to stop; shown as its name without SIG.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopSignal {
    name: &'static str,
    signal: Signal,
}

impl StopSignal {
    /// By its name, with or without SIG, in any case, or by its number.
    pub(crate) fn named(text: &str) -> Option<Self> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        SIGNALS
            .into_iter()
            .find(|(known, signal)| *known == name || signal.as_raw().to_string() == text)
            .map(|(name, signal)| Self { name, signal })
    }

    /// To be sent.
    pub(crate) fn signal(self) -> Signal {
        self.signal
    }
}

impl fmt::Display for StopSignal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The name of a signal, or its number.
#[derive(Debug)]
pub(crate) struct SignalName;

impl Values for SignalName {
    fn placeholder(&self) -> String {
        "SIGNAL".to_owned()
    }

    fn accepts(&self) -> String {
        format!("{}, with or without SIG, or its number", or(&SIGNALS.map(|(name, _)| name.to_owned())))
    }
}

impl Kind<StopSignal> for SignalName {
    fn read(&self, text: &str, _: &Automatic) -> Result<StopSignal, Reason> {
        StopSignal::named(text).ok_or_else(|| Reason::new("not a signal that stops a server"))
    }

    fn show(&self, value: &StopSignal) -> String {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_has_a_name_with_and_without_sig_and_a_number() {
        let cases = [
            ("TERM", Some(Signal::TERM)),
            ("SIGTERM", Some(Signal::TERM)),
            ("sigquit", Some(Signal::QUIT)),
            ("int", Some(Signal::INT)),
            ("15", Some(Signal::TERM)),
            ("3", Some(Signal::QUIT)),
            ("28", Some(Signal::WINCH)),
            ("SIG15", None),
            ("015", None),
            ("-15", None),
            ("19", None),
            ("STOP", None),
            ("CHLD", None),
            ("0", None),
            ("SIG", None),
            ("SIGSIGTERM", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(StopSignal::named(text).map(StopSignal::signal), expected, "{text}");
        }
    }

    #[test]
    fn it_is_shown_as_its_name() {
        for (name, signal) in SIGNALS {
            let by_number = StopSignal::named(&signal.as_raw().to_string()).expect("known");
            assert_eq!(by_number.to_string(), name);
        }
    }
}
