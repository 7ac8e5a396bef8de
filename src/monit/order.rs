//! What may be asked of an app from the screen: the question before it is done, and the verb that does it.
//!
//! It does nothing itself.

/// An order to an app, or to one of its workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// What is to be done.
    pub deed: Deed,
    /// As the app is called on the screen.
    pub label: String,
    /// The word that means it, or the worker, to every verb.
    pub word: String,
    /// The worker's number, if it alone is meant.
    pub worker: Option<u32>,
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// New workers in the place of the old ones.
    Reload,
    /// End and start again.
    Restart,
    /// End.
    Stop,
    /// Start what is stopped.
    Start,
    /// One worker more.
    More,
    /// One worker fewer.
    Fewer,
}

impl Deed {
    /// Whether it can be done to one worker alone.
    pub(super) fn is_for_one(self) -> bool {
        matches!(self, Self::Restart | Self::Stop | Self::Start)
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::More | Self::Fewer => "scale",
        }
    }
}

impl Order {
    /// What is asked before it is done.
    pub(super) fn question(&self) -> String {
        let Self { label, worker, .. } = self;
        match (self.deed, worker) {
            (Deed::More, _) => format!("one worker more for {label}?"),
            (Deed::Fewer, _) => format!("one worker fewer for {label}?"),
            (deed, None) => format!("{} {label}?", deed.verb()),
            (deed, Some(worker)) => format!("{} worker {worker} of {label}?", deed.verb()),
        }
    }

    /// The arguments of the `clusterd` that does it.
    pub(crate) fn arguments(&self) -> Vec<String> {
        // No name begins with a dash.
        let mut arguments = vec![self.deed.verb().to_owned(), self.word.clone()];
        match self.deed {
            Deed::More => arguments.push("+1".to_owned()),
            Deed::Fewer => arguments.push("-1".to_owned()),
            _ => {}
        }
        arguments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_question_and_a_verb() {
        let table = [
            (Deed::Reload, None, "reload web?", "reload web"),
            (Deed::Restart, None, "restart web?", "restart web"),
            (Deed::Restart, Some(3), "restart worker 3 of web?", "restart web"),
            (Deed::Stop, None, "stop web?", "stop web"),
            (Deed::Start, Some(1), "start worker 1 of web?", "start web"),
            (Deed::More, None, "one worker more for web?", "scale web +1"),
            (Deed::Fewer, None, "one worker fewer for web?", "scale web -1"),
        ];
        for (deed, worker, question, arguments) in table {
            let order = Order { deed, label: "web".to_owned(), word: "web".to_owned(), worker };
            assert_eq!(
                (order.question().as_str(), order.arguments().join(" ").as_str()),
                (question, arguments)
            );
        }
    }
}
