//! `--cron`: reloads at certain times.
//!
//! Times are local ones, as cron(8) has them: those of the variable `TZ` or of `/etc/localtime`. Which they are is the
//! [`Schedule`]'s to know; nothing is remembered over a restart of clusterd.

use std::time::Duration;

use chrono::{DateTime, Local, TimeZone};

use super::reload;
use crate::settings::schedule::Schedule;
use crate::supervisor::Handle;
use crate::supervisor::events::Asker;

/// The longest sleep: the clock may be set meanwhile, and a machine that sleeps does not count the time.
const LONGEST_NAP: Duration = Duration::from_secs(30);

/// Reloads whenever it is time, for as long as the program runs.
pub(crate) async fn follow(schedule: Schedule, supervisor: Handle) {
    let mut clock = Clock { schedule, seen: Local::now() };
    loop {
        match clock.look(Local::now()) {
            Turn::Now => reload::reload(&supervisor, Asker::Cron).await,
            Turn::Later(nap) => tokio::time::sleep(nap).await,
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

/// A schedule, and until when it was followed.
struct Clock<Tz: TimeZone> {
    schedule: Schedule,
    seen: DateTime<Tz>,
}

impl<Tz: TimeZone> Clock<Tz> {
    /// Looks at the clock. A time that was passed while nobody looked counts, and counts once.
    fn look(&mut self, now: DateTime<Tz>) -> Turn {
        // A clock that was set back: what was done then is done again when it is time again.
        let since = std::mem::replace(&mut self.seen, now.clone()).min(now.clone());
        let wait = self.schedule.next_after(&since).map(|next| (next - now).to_std().unwrap_or_default());
        match wait {
            Some(wait) if wait.is_zero() => Turn::Now,
            wait => Turn::Later(wait.map_or(LONGEST_NAP, |wait| wait.min(LONGEST_NAP))),
        }
    }
}

#[cfg(test)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    fn clock(expression: &str, seen: &str) -> Clock<Utc> {
        Clock { schedule: Schedule::of(expression).unwrap(), seen: at(seen) }
    }

    #[test]
    fn it_is_time_once_a_time() {
        let later = |seconds| Turn::Later(Duration::from_secs(seconds));
        let mut clock = clock("0 3 * * *", "2026-03-01T02:00:00Z");
        for (now, expected) in [
            ("2026-03-01T02:00:00Z", later(30)),
            ("2026-03-01T02:59:50Z", later(10)),
            ("2026-03-01T03:00:00Z", Turn::Now),
            ("2026-03-01T03:00:00Z", later(30)),
            ("2026-03-01T03:00:01Z", later(30)),
            ("2026-03-02T02:59:59.5Z", Turn::Later(Duration::from_millis(500))),
            ("2026-03-02T03:00:00.001Z", Turn::Now),
        ] {
            assert_eq!(clock.look(at(now)), expected, "{now}");
        }
    }

    #[test]
    fn times_that_were_slept_through_count_once() {
        let mut clock = clock("*/5 * * * *", "2026-03-01T02:01:00Z");
        assert_eq!(clock.look(at("2026-03-01T09:02:00Z")), Turn::Now);
        assert_eq!(clock.look(at("2026-03-01T09:02:00Z")), Turn::Later(LONGEST_NAP));
        assert_eq!(clock.look(at("2026-03-01T09:04:59Z")), Turn::Later(Duration::from_secs(1)));
    }

    #[test]
    fn a_clock_that_is_set_back_is_believed() {
        let mut clock = clock("0 3 * * *", "2030-01-01T00:00:00Z");
        assert_eq!(clock.look(at("2026-03-01T02:59:59Z")), Turn::Later(Duration::from_secs(1)));
        assert_eq!(clock.look(at("2026-03-01T03:00:00Z")), Turn::Now);
    }
}
