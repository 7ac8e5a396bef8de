//! When `--cron` is due: what an expression comes to, as cron(8) of Debian has it.
//!
//! It has no clock and no time zone but those of the time that it is given. croner knows the calendar; two rules of cron(8)
//! are added here: when both fields for the day have to match, and what a change of the clock does. How an expression is
//! written is [`parse`](super::parse)'s affair.

use std::fmt;

use chrono::{
    DateTime, NaiveDate, NaiveDateTime, NaiveTime, Offset as _, TimeDelta, TimeZone, Timelike as _,
};
use croner::Cron;
use croner::errors::CronError;
use croner::parser::{CronParser, Seconds, Year};

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
        let zone = since.timezone();
        let mut shown = since.naive_local();
        if self.follows_the_clock {
            let mut from = as_of_second(since);
            loop {
                let offset = from.offset().fix();
                let next = zone.from_utc_datetime(&(self.next_shown(shown)? - offset));
                if next.offset().fix() == offset {
                    return Some(next);
                }
                // The clock is set in between, and goes on from there.
                from = first_change(from, next);
                shown = from.naive_local() - TimeDelta::seconds(1);
            }
        }
        loop {
            shown = self.next_shown(shown)?;
            let next = first_at(shown, &zone);
            // What the clock shows a second time was there before.
            if next > *since {
                return Some(next);
            }
        }
    }

    fn next_shown(&self, shown: NaiveDateTime) -> Option<NaiveDateTime> {
        self.cron.find_next_occurrence(&shown, false).ok()
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cron.fmt(f)
    }
}

/// When clocks of this zone first show this time, or go past it.
///
/// What chrono's `Local` (0.4.45) says of a time that comes twice is in the wrong order, and it takes the first moment of a gap
/// for one that comes. So it is only asked what clocks show at a moment.
fn first_at<Tz: TimeZone>(shown: NaiveDateTime, zone: &Tz) -> DateTime<Tz> {
    let offset_at = |days| zone.offset_from_utc_datetime(&(shown + TimeDelta::days(days))).fix();
    let [before, after] = [-1, 1].map(|days| zone.from_utc_datetime(&(shown - offset_at(days))));
    match [&before, &after].map(|time| time.naive_local() == shown) {
        [true, true] => before.min(after),
        [true, false] => before,
        [false, true] => after,
        [false, false] => first_change(after, before),
    }
}

/// The first second between these at which clocks are no longer set as at the first.
fn first_change<Tz: TimeZone>(mut before: DateTime<Tz>, mut after: DateTime<Tz>) -> DateTime<Tz> {
    let offset = before.offset().fix();
    loop {
        let half = (after.clone() - before.clone()).num_seconds() / 2;
        if half == 0 {
            return after;
        }
        let middle = before.clone() + TimeDelta::seconds(half);
        if middle.offset().fix() == offset { before = middle } else { after = middle }
    }
}

fn as_of_second<Tz: TimeZone>(time: &DateTime<Tz>) -> DateTime<Tz> {
    time.with_nanosecond(0).unwrap_or_else(|| time.clone())
}

#[cfg(test)]
mod tests;
