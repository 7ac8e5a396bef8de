//! Reads one value of each kind of setting: a string in, a checked value or the reason against it out.
//!
//! It knows neither where the string comes from nor what other settings say.

mod addresses;
mod amounts;
mod words;

pub use addresses::{bind, metrics, port};
pub use amounts::{
    MAX_WORKERS, Workers, backlog, duration, duration_or_off, exit_code, health_failures, max_age,
    max_connections, max_memory, max_restarts, nofile, oom_score_adj, queue, reload_parallel, window,
    workers,
};
pub use words::{
    account, attach, cpu_scheduling, cron, http_path, log_format, log_level, name, name_of, path, pattern,
    policy, shell_line, stop_signal, truth,
};

use super::error::Reason;

/// A value that can be switched off by that word.
fn or_off<T>(text: &str, read: impl FnOnce(&str) -> Result<T, Reason>) -> Result<Option<T>, Reason> {
    if text == "off" {
        return Ok(None);
    }
    read(text).map(Some).map_err(|reason| Reason::OrOff(Box::new(reason)))
}

/// The standard library's numbers may have a sign as well.
fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The value's own spelling, or the first words of what is said against it.
#[cfg(test)]
fn outcome<T: ToString>(result: Result<T, Reason>) -> String {
    match result {
        Ok(value) => value.to_string(),
        Err(reason) => reason.to_string().split(':').next().unwrap_or_default().to_owned(),
    }
}

/// The same for one that may be off.
#[cfg(test)]
fn outcome_or_off<T: ToString>(result: Result<Option<T>, Reason>) -> String {
    outcome(result.map(|value| value.map_or("off".to_owned(), |value| value.to_string())))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_may_be_off_says_so() {
        let said = nofile("many").expect_err("refused").to_string();
        assert_eq!(said, "not a number that will do: use one from 1 to 1073741816, or \"off\"");
    }

    proptest! {
        #[test]
        fn no_text_makes_a_parser_panic(text in "\\PC*|[0-9a-fhmskMGiB:.%\\[\\] *,/@?LW#{}-]*") {
            let _ = (port(&text), bind(&text), metrics(&text), workers(&text), queue(&text), nofile(&text));
            let _ = (duration(&text), max_age(&text), max_memory(&text), oom_score_adj(&text), cron(&text));
            let _ = (http_path(&text), pattern(&text), name(&text), account(&text), stop_signal(&text));
            prop_assert!(name(&name_of(text.as_ref())).is_ok_and(|name| name.is_some()));
        }
    }
}
