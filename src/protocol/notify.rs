//! What a program says of itself to whoever has started it: sd_notify(3), as clusterd hears it.
//!
//! Pure: where it comes from is the supervisor's to know, what follows from it the primary's.

/// The longest message that is read, in bytes. systemd itself takes as much (`NOTIFY_BUFFER_MAX`).
pub(crate) const MAX_MESSAGE: usize = 4096;

/// What one message says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notification {
    /// `READY=1`.
    pub ready: bool,
    /// `STATUS=`: a sentence for people.
    pub status: Option<String>,
    /// What else it assigns, by name: nothing follows from it here.
    pub others: Vec<String>,
}

impl Notification {
    /// Reads a message: assignments, one a line. What is not one is left out, as systemd does.
    pub(crate) fn read(message: &[u8]) -> Self {
        let mut said = Self::default();
        for line in String::from_utf8_lossy(message).lines() {
            match line.split_once('=') {
                Some(("READY", "1")) => said.ready = true,
                Some(("STATUS", status)) => said.status = Some(status.to_owned()),
                Some((name, _)) => said.others.push(name.to_owned()),
                None => {}
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn assignments_are_read_line_by_line() {
        let said = |ready, status: Option<&str>, others: &[&str]| Notification {
            ready,
            status: status.map(str::to_owned),
            others: others.iter().map(|&name| name.to_owned()).collect(),
        };
        let cases = [
            ("READY=1", said(true, None, &[])),
            ("READY=1\nSTATUS=all well = good\n", said(true, Some("all well = good"), &[])),
            ("READY=0", said(false, None, &["READY"])),
            ("ready=1\nNOT READY=1", said(false, None, &["ready", "NOT READY"])),
            ("STOPPING=1\nMAINPID=7\n\nnonsense", said(false, None, &["STOPPING", "MAINPID"])),
            ("", said(false, None, &[])),
        ];
        for (message, expected) in cases {
            assert_eq!(Notification::read(message.as_bytes()), expected, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn anything_can_be_read(message: Vec<u8>) {
            let said = Notification::read(&message);
            prop_assert!(!said.ready || message.windows(7).any(|part| part == b"READY=1"));
        }
    }
}
