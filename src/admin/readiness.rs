//! Whether clients may be sent here, and if not, why not.
//!
//! It only names the answer; who supervises the workers and the shutdown decides it.

use std::fmt;

use crate::ids::WorkerPort;

/// What `/readyz` answers. Its `Display` is one sentence, without a newline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// Not every port has had a worker yet.
    Starting {
        /// The ports that no worker listens on.
        waiting_for: Vec<WorkerPort>,
    },
    /// Every port has a worker.
    Ready,
    /// A shutdown has begun.
    Stopping,
}

impl Readiness {
    /// Whether clients may be sent here.
    pub(crate) fn is_ready(&self) -> bool {
        *self == Readiness::Ready
    }
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Readiness::Ready => f.write_str("ready"),
            Readiness::Stopping => f.write_str("not ready: clusterd is stopping"),
            Readiness::Starting { waiting_for } => match waiting_for.as_slice() {
                [] => f.write_str("not ready: clusterd is starting"),
                [port] => write!(f, "not ready: waiting for a worker to listen on port {port}"),
                [ports @ .., last] => {
                    f.write_str("not ready: waiting for workers to listen on ports ")?;
                    for (index, port) in ports.iter().enumerate() {
                        let comma = if index == 0 { "" } else { ", " };
                        write!(f, "{comma}{port}")?;
                    }
                    write!(f, " and {last}")
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sentence_names_what_is_waited_for() {
        let table: &[(&[u16], &str)] = &[
            (&[], "not ready: clusterd is starting"),
            (&[80], "not ready: waiting for a worker to listen on port 80"),
            (&[80, 81], "not ready: waiting for workers to listen on ports 80 and 81"),
            (&[1, 2, 3], "not ready: waiting for workers to listen on ports 1, 2 and 3"),
        ];
        for (ports, expected) in table {
            let waiting_for = ports.iter().copied().map(WorkerPort).collect();
            assert_eq!(Readiness::Starting { waiting_for }.to_string(), *expected);
        }
    }

    #[test]
    fn only_ready_is_ready() {
        assert!(Readiness::Ready.is_ready());
        assert!(!Readiness::Stopping.is_ready());
        assert!(!Readiness::Starting { waiting_for: Vec::new() }.is_ready());
    }
}
