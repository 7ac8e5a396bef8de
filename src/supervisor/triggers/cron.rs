//! `--cron`: reloads at certain times.
//!
//! Times are local ones, as cron(8) has them: those of the variable `TZ` or of `/etc/localtime`. What an expression
//! means is croner's to know; nothing is remembered over a restart of clusterd.

use std::time::Duration;

use chrono::{DateTime, Local, TimeZone};
use croner::Cron;

use super::reload;
use crate::supervisor::Handle;
use crate::supervisor::events::Asker;

/// The longest sleep: the clock may be set meanwhile, and a machine that sleeps does not count the time.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// Reloads whenever it is time, for as long as the program runs.
pub(crate) async fn follow(cron: Cron, supervisor: Handle) {
    let mut clock = Clock { cron, seen: Local::now() };
    loop {
        match clock.look(Local::now()) {
            Some(Turn::Now) => reload::reload(&supervisor, Asker::Cron).await,
            Some(Turn::Later(nap)) => tokio::time::sleep(nap).await,
            None => {
                return tracing::warn!("--cron {}: no such time exists", clock.cron.pattern);
            }
        }
    }
}

/// What is to be done at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// The time has come since the last look.
    Now,
    /// It has not: look again after this.
    Later(Duration),
}

/// An expression, and until when it was followed.
struct Clock<Tz: TimeZone> {
    cron: Cron,
    seen: DateTime<Tz>,
}

impl<Tz: TimeZone> Clock<Tz> {
    /// Looks at the clock. A time that was passed while nobody looked counts, and counts once. `None` if there is no
    /// next time.
    fn look(&mut self, now: DateTime<Tz>) -> Option<Turn> {
        // A clock that was set back: what was done then is done again when it is time again.
        let since = std::mem::replace(&mut self.seen, now.clone()).min(now.clone());
        let next = self.cron.find_next_occurrence(&since, false).ok()?;
        Some(match (next - now).to_std() {
            Ok(wait) if !wait.is_zero() => Turn::Later(wait.min(LONGEST_NAP)),
            _ => Turn::Now,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use chrono::Utc;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn clock(expression: &str, seen: &str) -> Clock<Utc> {
        Clock { cron: Cron::from_str(expression).unwrap(), seen: at(seen) }
    }

    #[test]
    fn it_is_time_once_a_time() {
        let later = |seconds| Some(Turn::Later(Duration::from_secs(seconds)));
        let mut clock = clock("0 3 * * *", "2026-03-01T02:00:00Z");
        for (now, expected) in [
            ("2026-03-01T02:00:00Z", later(30)),
            ("2026-03-01T02:59:50Z", later(10)),
            ("2026-03-01T03:00:00Z", Some(Turn::Now)),
            ("2026-03-01T03:00:00Z", later(30)),
            ("2026-03-01T03:00:01Z", later(30)),
            ("2026-03-02T02:59:59.5Z", Some(Turn::Later(Duration::from_millis(500)))),
            ("2026-03-02T03:00:00.001Z", Some(Turn::Now)),
        ] {
            assert_eq!(clock.look(at(now)), expected, "{now}");
        }
    }

    #[test]
    fn times_that_were_slept_through_count_once() {
        let mut clock = clock("*/5 * * * *", "2026-03-01T02:01:00Z");
        assert_eq!(clock.look(at("2026-03-01T09:02:00Z")), Some(Turn::Now));
        assert_eq!(clock.look(at("2026-03-01T09:02:00Z")), Some(Turn::Later(LONGEST_NAP)));
        assert_eq!(clock.look(at("2026-03-01T09:04:59Z")), Some(Turn::Later(Duration::from_secs(1))));
    }

    #[test]
    fn a_clock_that_is_set_back_is_believed() {
        let mut clock = clock("0 3 * * *", "2030-01-01T00:00:00Z");
        assert_eq!(clock.look(at("2026-03-01T02:59:59Z")), Some(Turn::Later(Duration::from_secs(1))));
        assert_eq!(clock.look(at("2026-03-01T03:00:00Z")), Some(Turn::Now));
    }

    #[test]
    fn a_time_that_never_comes_is_no_time() {
        assert_eq!(clock("0 0 30 2 *", "2026-03-01T02:00:00Z").look(at("2026-03-01T02:00:00Z")), None);
    }
}
