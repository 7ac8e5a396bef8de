//! How a worker is asked to end: by the stop signal, by a message, or by Node's `disconnect`; and when.
//!
//! Pure: what a worker's process catches is told by the shim or by /proc, and asking is done elsewhere.
//!
//! An app of Node ends as it was written to. One that catches the stop signal expects it; `disconnect` would end its
//! process first. One that does not is ended by the signal, whatever it was about to do, so it gets `disconnect`, after which
//! Node exits once its event loop is empty.

use rustix::process::Signal;

use super::Process;

/// What the settings say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StopRules {
    /// What asks a worker to end.
    pub signal: Signal,
    /// When.
    pub at: StopAt,
    /// Workers on Node's channel get the message `shutdown` in its place.
    pub message: bool,
}

/// When a worker that is to end is asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StopAt {
    /// Once it holds no client's connection any more, or the drain is over.
    Drained,
    /// When the drain begins.
    Drain,
}

/// Signals, by their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Signals(u64);

impl Signals {
    /// As `SigCgt` in proc_pid_status(5) has them: bit 0 is signal 1.
    pub(crate) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The same bits.
    pub(crate) const fn bits(self) -> u64 {
        self.0
    }

    fn has(self, signal: Signal) -> bool {
        u32::try_from(signal.as_raw() - 1).is_ok_and(|bit| self.0.checked_shr(bit).unwrap_or(0) & 1 == 1)
    }
}

/// Whether Node, or what speaks as Node's cluster workers do, is there on the worker's Node channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum OnChannel {
    /// Nobody, or nobody any more.
    #[default]
    Nobody,
    /// Which signals its app catches is told.
    Known,
    /// It is not.
    Unknown,
}

/// What is known of how a worker ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ending {
    /// Who is on its Node channel.
    pub on_channel: OnChannel,
    /// What the app catches.
    pub catches: Signals,
}

/// How a worker is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By this signal.
    Signal(Signal),
    /// By the message `shutdown`.
    Message,
    /// By `disconnect`, and by the stop signal later.
    Disconnect,
}

impl Process {
    /// How this worker is asked to end.
    pub(super) fn way_out(&self, rules: &StopRules) -> Way {
        let Ending { on_channel, catches } = self.ending;
        match on_channel {
            OnChannel::Nobody => Way::Signal(rules.signal),
            OnChannel::Known | OnChannel::Unknown if rules.message => Way::Message,
            OnChannel::Known | OnChannel::Unknown if catches.has(rules.signal) => Way::Signal(rules.signal),
            // An app that was written for PM2, or for Ctrl-C, catches this one alone.
            OnChannel::Known | OnChannel::Unknown
                if rules.signal == Signal::TERM && catches.has(Signal::INT) =>
            {
                Way::Signal(Signal::INT)
            }
            OnChannel::Known | OnChannel::Unknown => Way::Disconnect,
        }
    }

    /// How it is asked while it still has clients; `None` if all that is known is that it would end at once. If nothing is
    /// known of it, whoever wants it to be asked so early knows that it would not.
    pub(super) fn way_out_early(&self, rules: &StopRules) -> Option<Way> {
        match (self.way_out(rules), self.ending.on_channel) {
            (Way::Disconnect, OnChannel::Known) => None,
            _ => Some(self.way_out_at_once(rules)),
        }
    }

    /// How it is asked without any delay. What would wait for it to end by itself is left out.
    pub(super) fn way_out_at_once(&self, rules: &StopRules) -> Way {
        match self.way_out(rules) {
            Way::Disconnect => Way::Signal(rules.signal),
            way => way,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::Pid;

    use super::*;
    use crate::ids::{Slot, WorkerId};
    use crate::protocol::wire::Token;

    fn signals(all: &[Signal]) -> Signals {
        Signals::from_bits(all.iter().fold(0, |bits, signal| bits | 1 << (signal.as_raw() - 1)))
    }

    #[test]
    fn an_app_of_node_is_asked_in_the_way_that_it_was_written_for() {
        use OnChannel::{Known, Nobody, Unknown};
        let none: &[Signal] = &[];
        let table = [
            (Nobody, none, Signal::TERM, false, Way::Signal(Signal::TERM)),
            (Nobody, none, Signal::QUIT, true, Way::Signal(Signal::QUIT)),
            (Known, none, Signal::TERM, false, Way::Disconnect),
            (Unknown, none, Signal::TERM, false, Way::Disconnect),
            (Known, none, Signal::TERM, true, Way::Message),
            (Known, &[Signal::TERM], Signal::TERM, true, Way::Message),
            (Known, &[Signal::TERM], Signal::TERM, false, Way::Signal(Signal::TERM)),
            (Known, &[Signal::TERM, Signal::INT], Signal::TERM, false, Way::Signal(Signal::TERM)),
            (Known, &[Signal::INT], Signal::TERM, false, Way::Signal(Signal::INT)),
            (Known, &[Signal::TERM], Signal::INT, false, Way::Disconnect),
            (Known, &[Signal::HUP], Signal::TERM, false, Way::Disconnect),
        ];
        for (on_channel, caught, signal, message, way) in table {
            let process = Process {
                id: WorkerId { slot: Slot(1), launch: 1 },
                group: Pid::from_raw(100).expect("not 0"),
                token: Token([0; 16]),
                ending: Ending { on_channel, catches: signals(caught) },
            };
            let rules = StopRules { signal, at: StopAt::Drained, message };
            assert_eq!(process.way_out(&rules), way, "{on_channel:?} catches {caught:?}, asked by {rules:?}");
            let at_once = if way == Way::Disconnect { Way::Signal(signal) } else { way };
            assert_eq!(process.way_out_at_once(&rules), at_once);
            let early = (way != Way::Disconnect || on_channel == Unknown).then_some(at_once);
            assert_eq!(process.way_out_early(&rules), early);
        }
    }
}
