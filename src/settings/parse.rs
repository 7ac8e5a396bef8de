//! The kinds of values that belong to one setting or two: ports, addresses, names, paths, times.
//!
//! A string in, a checked value or the reason against it out. What a name or a path stands for on this machine is not
//! looked up.

mod addresses;
mod automatic;
mod cron;
mod header;
mod variables;
mod words;

pub(crate) use addresses::{BIND, METRICS, PORT, metrics as listen_address};
#[cfg(any(test, feature = "internal"))]
pub(crate) use addresses::{bind, port};
pub(crate) use automatic::{AppName, MAX_WORKERS, NAMESPACE, Workers, is_name, is_plain_name, name_of};
pub(crate) use cron::CRON;
pub(crate) use header::{HEADER, ProbeHeader};
pub(crate) use variables::{NODE_CHANNEL_VARIABLES, VARIABLE, Variables, assignment};
pub(crate) use words::{
    ACCOUNT, FilePath, HTTP_PATH, PATTERN, PolicyWord, SHELL_LINE, USER_AND_GROUP, split_user,
};

/// The standard library's numbers may have a sign as well.
pub(super) fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The value's own spelling, or what is said against it.
#[cfg(test)]
pub(super) fn outcome<T>(kind: &impl super::kind::Kind<T>, text: &str) -> String {
    let automatic =
        super::kind::Automatic { workers: std::num::NonZeroU32::MIN, name: "the-program".to_owned() };
    match kind.read(text, &automatic) {
        Ok(value) => kind.show(&value),
        Err(reason) => reason.what().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::kind::{Memory, number};
    use super::super::stop_signal::SignalName;
    use super::*;

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*|[0-9a-fhmskMGiB:.%\\[\\] *,/@?LW#{}-]*") {
            outcome(&PORT, &text);
            outcome(&BIND, &text);
            outcome(&METRICS, &text);
            outcome(&Workers, &text);
            outcome::<u64>(&number(1, 65536), &text);
            outcome(&super::super::kind::duration("1ms", "24h"), &text);
            outcome(&Memory, &text);
            outcome(&CRON, &text);
            outcome(&HTTP_PATH, &text);
            outcome(&HEADER, &text);
            outcome(&PATTERN, &text);
            outcome(&FilePath, &text);
            outcome(&Variables, &text);
            outcome(&ACCOUNT, &text);
            outcome(&USER_AND_GROUP, &text);
            outcome(&SignalName, &text);
            outcome(&PolicyWord, &text);
            let name = name_of(text.as_ref());
            prop_assert_eq!(outcome(&AppName, &name), name);
        }
    }
}
