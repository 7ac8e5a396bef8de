//! When `--cron` is due: what an expression comes to, as cron(8) of Debian has it.
//!
//! It has no clock and no time zone but those of the time that it is given. croner knows the calendar; two rules of cron(8)
//! are added here: when both fields for the day have to match, and what a change of the clock does. How an expression is
//! written is [`parse`](super::parse)'s affair.

use std::fmt;

use chrono::{
    DateTime, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Timelike as _,
};
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};

/// No clock is set forward by more.
const LONGEST_GAP_MINUTES: i64 = 24 * 60;

/// The times of a cron expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    cron: Cron,
    /// One of the fields for the time of day begins with `*`: the times are as many as the clock shows.
    follows_the_clock: bool,
}

/// Why there is no schedule.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSchedule {
    /// It is not an expression.
    #[error(transparent)]
    Unreadable(#[from] CronError),
    /// It names a date that no year has.
    #[error("no such time exists")]
    Never,
}

impl Schedule {
    /// The times of an expression of five fields, or of six of which the first is the second.
    ///
    /// # Errors
    /// [`NoSchedule`].
    pub(crate) fn of(expression: &str) -> Result<Self, NoSchedule> {
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let (time, date) = fields.split_at(fields.len().saturating_sub(3));
        let begins_with_star = |field: &&str| field.starts_with('*');
        // The day of the month and that of the week both have to match if one of them is said to be any, and be it only
        // every other one; else one of them is enough.
        let both_days = [date.first(), date.last()].into_iter().flatten().any(begins_with_star);
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed);
        let cron = parser.dom_and_dow(both_days).build().parse(expression)?;
        let schedule = Self { cron, follows_the_clock: time.iter().any(begins_with_star) };
        let any = NaiveDateTime::new(NaiveDate::default(), NaiveTime::MIN);
        match schedule.cron.find_next_occurrence(&any, true) {
            Ok(_) => Ok(schedule),
            Err(_) => Err(NoSchedule::Never),
        }
    }

    /// The first time after this one; `None` if it is too far away for a calendar.
    ///
    /// Where the clock is set forward, a time of day that is skipped comes right after the change. Where it is set back, a
    /// time of day comes once, at its first. Neither is so if the time has a field that begins with `*`: such times come
    /// whenever the clock shows them.
    pub(crate) fn next_after<Tz: TimeZone>(&self, since: &DateTime<Tz>) -> Option<DateTime<Tz>> {
        if self.follows_the_clock {
            let mut time = since.clone();
            loop {
                time = as_shown(&self.cron.find_next_occurrence(&time, false).ok()?);
                if self.cron.is_time_matching(&time).ok()? {
                    return Some(time);
                }
            }
        }
        let mut shown = since.naive_local();
        loop {
            shown = self.cron.find_next_occurrence(&shown, false).ok()?;
            let next = first_at(shown, &since.timezone())?;
            // What the clock shows a second time was there before.
            if next > *since {
                return Some(next);
            }
        }
    }
}

/// The same moment as clocks show it. chrono's `Local` (0.4.45) takes the first moment of a gap for one that there is, and that
/// after a repeated hour for one of it.
fn as_shown<Tz: TimeZone>(time: &DateTime<Tz>) -> DateTime<Tz> {
    time.timezone().from_utc_datetime(&time.naive_utc())
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cron.fmt(f)
    }
}

/// When clocks of this zone first show this time, or first go past it.
fn first_at<Tz: TimeZone>(shown: NaiveDateTime, zone: &Tz) -> Option<DateTime<Tz>> {
    match zone.from_local_datetime(&shown) {
        MappedLocalTime::Single(time) => Some(as_shown(&time)),
        MappedLocalTime::Ambiguous(first, second) => {
            let is_shown = as_shown(&first).naive_local() == shown;
            Some(if is_shown { first } else { second })
        }
        MappedLocalTime::None => {
            let minute = shown.with_second(0)?;
            let later = (1..=LONGEST_GAP_MINUTES).map(|minutes| minute + TimeDelta::minutes(minutes));
            later.map(|shown| zone.from_local_datetime(&shown)).find_map(MappedLocalTime::earliest)
        }
    }
}

#[cfg(test)]
mod tests;
