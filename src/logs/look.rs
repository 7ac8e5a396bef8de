//! How lines look at a destination: as they are, or prefixed and coloured for a terminal.
//!
//! It writes nothing itself.

use std::env;
use std::io::IsTerminal;
use std::os::fd::AsFd;

use crate::ids::Slot;

/// How lines look at one destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// Unchanged: a file, a pipe, a log collector.
    Plain,
    /// For a person who watches.
    Terminal {
        /// Whether escape sequences for colours are welcome.
        colour: bool,
    },
}

/// Cyan, yellow, green, magenta, blue: neighbours differ, and none means an error.
const COLOURS: [u8; 5] = [36, 33, 32, 35, 34];

impl Look {
    /// What suits `destination`, with `NO_COLOR` (no-color.org) and `TERM=dumb` heeded.
    pub(crate) fn of(destination: impl AsFd) -> Self {
        if !destination.as_fd().is_terminal() {
            return Look::Plain;
        }
        let unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        Look::Terminal { colour: !unwanted && !dumb }
    }

    /// What stands before each line of this worker.
    pub(super) fn prefix(self, slot: Slot) -> String {
        match self {
            Look::Plain => String::new(),
            Look::Terminal { colour: false } => format!("{slot} | "),
            Look::Terminal { colour: true } => {
                format!("{} ", coloured(&format!("{slot} |"), slot.0 as usize))
            }
        }
    }
}

/// The text in the colour of this number.
pub(crate) fn coloured(text: &str, number: usize) -> String {
    format!("\x1b[{}m{text}\x1b[0m", COLOURS[number % COLOURS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_terminal_gets_a_prefix() {
        assert_eq!(Look::Plain.prefix(Slot(1)), "");
        assert_eq!(Look::Terminal { colour: false }.prefix(Slot(12)), "12 | ");
        assert_eq!(Look::Terminal { colour: true }.prefix(Slot(1)), "\x1b[33m1 |\x1b[0m ");
    }

    #[test]
    fn neighbours_differ_in_colour() {
        let look = Look::Terminal { colour: true };
        for slot in 1..20 {
            let next = look.prefix(Slot(slot + 1));
            assert_ne!(look.prefix(Slot(slot))[..5], next[..5]);
        }
    }

    #[test]
    fn a_pipe_is_no_terminal() {
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(Look::of(reader), Look::Plain);
    }
}
