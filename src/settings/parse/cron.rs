//! Expressions of `--cron`: five fields, as crontab(5) has them, with one for the second before them if there are six, as
//! PM2's `cron_restart` has it; or a nickname.
//!
//! croner takes names for numbers in any field and in any word, and passes over what is missing in a list. So what it is
//! given is read here first, and written in numbers. When a time comes is for [`Schedule`] to say.

use super::is_digits;
use crate::settings::error::Reason;
use crate::settings::kind::Parsed;
use crate::settings::schedule::{NoSchedule, Schedule};

/// A cron expression.
pub(crate) const CRON: Parsed<Schedule> = Parsed {
    placeholder: "EXPRESSION",
    accepts: "minute, hour, day of the month, month and day of the week, such as \"0 3 * * *\"",
    read: schedule,
    show: Schedule::to_string,
};

/// What a field may have in it.
struct Field {
    /// With its article.
    name: &'static str,
    min: u8,
    max: u8,
    /// Words for the numbers from `min`.
    words: &'static [&'static str],
}

const FIELDS: [Field; 6] = [
    Field { name: "a second", min: 0, max: 59, words: &[] },
    Field { name: "a minute", min: 0, max: 59, words: &[] },
    Field { name: "an hour", min: 0, max: 23, words: &[] },
    Field { name: DAY_OF_MONTH, min: 1, max: 31, words: &[] },
    Field { name: "a month", min: 1, max: 12, words: &MONTHS },
    // Sunday is 0 and 7.
    Field { name: DAY_OF_WEEK, min: 0, max: 7, words: &DAYS },
];

const DAY_OF_MONTH: &str = "a day of the month";
const DAY_OF_WEEK: &str = "a day of the week";
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

fn schedule(text: &str) -> Result<Schedule, Reason> {
    let text = text.trim();
    let text = if text.starts_with('@') { nickname(text)? } else { text };
    let words: Vec<&str> = text.split_whitespace().collect();
    let fields = match words.len() {
        5 => &FIELDS[1..],
        6 => &FIELDS[..],
        count => {
            return Err(Reason::new(format!("not a cron expression: it has {count} fields, not 5 or 6")));
        }
    };
    let plain = fields.iter().zip(words).map(|(field, word)| field.plain(word));
    let expression = plain.collect::<Result<Vec<_>, _>>()?.join(" ");
    Schedule::of(&expression).map_err(|reason| match reason {
        NoSchedule::Unreadable(_) => Reason::new("not a cron expression"),
        NoSchedule::Never => Reason::new(reason.to_string()),
    })
}

fn nickname(text: &str) -> Result<&'static str, Reason> {
    match text.to_ascii_lowercase().as_str() {
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        "@monthly" => Ok("0 0 1 * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@hourly" => Ok("0 * * * *"),
        "@reboot" => Err(Reason::new("not a time: clusterd starts the workers whenever it starts itself")),
        _ => Err(Reason::new("not a cron expression")),
    }
}

impl Field {
    /// The field in numbers.
    fn plain(&self, word: &str) -> Result<String, Reason> {
        if word == "?" && (self.name == DAY_OF_MONTH || self.name == DAY_OF_WEEK) {
            return Ok("*".to_owned());
        }
        let read = |item| self.item(item).ok_or_else(|| self.refuse(item));
        let items = word.split(',').map(read).collect::<Result<Vec<_>, _>>()?;
        // A list with any value in it is no longer a list.
        Ok(match items.iter().position(|item| item == "*") {
            None => items.join(","),
            Some(0) => "*".to_owned(),
            Some(_) => format!("{}-{}", self.min, self.max),
        })
    }

    fn refuse(&self, item: &str) -> Reason {
        let reason = Reason::new(format!("not a cron expression: {item:?} is not {}", self.name));
        match item {
            "L" | "l" if self.name == DAY_OF_WEEK => reason
                .hint("5L is the last Friday of the month, and L as the day of the month is its last day"),
            _ => reason,
        }
    }

    /// A value, a range, or one of these with a step.
    fn item(&self, item: &str) -> Option<String> {
        if let Some(special) = self.special(&item.to_ascii_uppercase()) {
            return Some(special);
        }
        let (values, step) = match item.split_once('/') {
            Some((values, step)) => (values, Some(number(step).filter(|&step| step > 0)?)),
            None => (item, None),
        };
        let values = match values.split_once('-') {
            Some((first, last)) => self.range(first, last)?,
            None if values == "*" => values.to_owned(),
            None if step.is_some() => return None,
            None => self.value(values)?.to_string(),
        };
        Some(step.map_or_else(|| values.clone(), |step| format!("{values}/{step}")))
    }

    fn range(&self, first: &str, last: &str) -> Option<String> {
        let (first, last) = (self.value(first)?, self.value(last)?);
        // Saturday to Sunday.
        let last = if last == 0 && first > 0 && self.name == DAY_OF_WEEK { self.max } else { last };
        (first <= last).then(|| format!("{first}-{last}"))
    }

    fn value(&self, text: &str) -> Option<u8> {
        let of_word = || {
            let at = self.words.iter().position(|word| word.eq_ignore_ascii_case(text))?;
            u8::try_from(at).ok().map(|at| self.min + at)
        };
        number(text).filter(|value| (self.min..=self.max).contains(value)).or_else(of_word)
    }

    /// A day that depends on the month, as croner has it: `L`, `LW` and `15W` of the month, `5L` and `5#2` of the week.
    fn special(&self, item: &str) -> Option<String> {
        match self.name {
            DAY_OF_MONTH if matches!(item, "L" | "LW") => Some(item.to_owned()),
            DAY_OF_MONTH => Some(format!("{}W", self.value(item.strip_suffix('W')?)?)),
            DAY_OF_WEEK => match item.split_once('#') {
                Some((day, nth)) => {
                    let nth = number(nth).filter(|nth| (1..=5).contains(nth))?;
                    Some(format!("{}#{nth}", self.value(day)?))
                }
                None => Some(format!("{}L", self.value(item.strip_suffix('L')?)?)),
            },
            _ => None,
        }
    }
}

fn number(text: &str) -> Option<u8> {
    text.parse().ok().filter(|_| is_digits(text))
}

#[cfg(test)]
mod tests {
    use super::super::outcome;
    use super::*;

    #[test]
    fn what_is_read_is_shown_in_numbers() {
        let cases = [
            ("0 3 * * *", "0 3 * * *"),
            (" 0\t03  * * * ", "0 3 * * *"),
            ("*/15 8-18 * * MON-FRI", "*/15 8-18 * * 1-5"),
            ("0 0 * jan,Mar-MAY sat-SUN", "0 0 * 1,3-5 6-7"),
            ("0 0 * * sun-tue", "0 0 * * 0-2"),
            ("*,5 * 1,* * 3,*", "* * 1-31 * 0-7"),
            ("*/20 0 3 * * *", "*/20 0 3 * * *"),
            ("0 0 ? * MON", "0 0 * * 1"),
            ("0 0 l,15w * *", "0 0 L,15W * *"),
            ("0 0 LW * friL,1#2", "0 0 LW * 5L,1#2"),
            ("0 */100 * * *", "0 */100 * * *"),
            ("@yearly", "0 0 1 1 *"),
            ("@annually", "0 0 1 1 *"),
            ("@monthly", "0 0 1 * *"),
            ("@weekly", "0 0 * * 0"),
            ("@daily", "0 0 * * *"),
            ("@Midnight", "0 0 * * *"),
            ("@hourly", "0 * * * *"),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&CRON, text), expected, "{text}");
            assert_eq!(outcome(&CRON, expected), expected, "what is shown can be read");
        }
    }

    #[test]
    fn what_is_none_is_refused_with_the_field() {
        let in_field = |item, field| format!("not a cron expression: {item:?} is not {field}");
        let counted = |count| format!("not a cron expression: it has {count} fields, not 5 or 6");
        let cases = [
            ("", counted(0)),
            ("daily", counted(1)),
            ("0 0 3 * * * 2030", counted(7)),
            ("60 * * * *", in_field("60", "a minute")),
            ("60 0 3 * * *", in_field("60", "a second")),
            ("0 25 * * *", in_field("25", "an hour")),
            ("0 0 0 * *", in_field("0", "a day of the month")),
            ("0 0 32 * *", in_field("32", "a day of the month")),
            ("0 0 * 13 *", in_field("13", "a month")),
            ("0 0 * 0 *", in_field("0", "a month")),
            ("0 0 * * 8", in_field("8", "a day of the week")),
            ("0 0 * mon *", in_field("mon", "a month")),
            ("0 0 jan * *", in_field("jan", "a day of the month")),
            ("mon * * * *", in_field("mon", "a minute")),
            ("0 0 * * 1mon", in_field("1mon", "a day of the week")),
            ("0 0 * * monday", in_field("monday", "a day of the week")),
            ("5/15 * * * *", in_field("5/15", "a minute")),
            ("*/0 * * * *", in_field("*/0", "a minute")),
            ("*/-5 * * * *", in_field("*/-5", "a minute")),
            ("/5 * * * *", in_field("/5", "a minute")),
            ("*/2/2 * * * *", in_field("*/2/2", "a minute")),
            ("30-10 * * * *", in_field("30-10", "a minute")),
            ("1-2-3 * * * *", in_field("1-2-3", "a minute")),
            ("1,,2 * * * *", in_field("", "a minute")),
            ("1, * * * *", in_field("", "a minute")),
            ("-1 * * * *", in_field("-1", "a minute")),
            ("+1 * * * *", in_field("+1", "a minute")),
            ("0 0 * * +1", in_field("+1", "a day of the week")),
            ("0 0 * * L", in_field("L", "a day of the week")),
            ("0 0 * * 1#6", in_field("1#6", "a day of the week")),
            ("0 0 32W * *", in_field("32W", "a day of the month")),
            ("0 L * * *", in_field("L", "an hour")),
            ("? 0 * * *", in_field("?", "a minute")),
            ("@reboot", "not a time: clusterd starts the workers whenever it starts itself".to_owned()),
            ("@fortnightly", "not a cron expression".to_owned()),
        ];
        for (text, expected) in cases {
            assert_eq!(outcome(&CRON, text), expected, "{text}");
        }
    }

    #[test]
    fn a_time_that_never_comes_is_refused() {
        for text in ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 30-31 feb ?", "0 0 30 2 */2"] {
            assert_eq!(outcome(&CRON, text), "no such time exists", "{text}");
        }
        assert_eq!(outcome(&CRON, "0 0 29 2 *"), "0 0 29 2 *", "every four years");
        // Every 28 years, for both have to match.
        assert_eq!(outcome(&CRON, "0 0 29 2 */7"), "0 0 29 2 */7");
        assert_eq!(outcome(&CRON, "0 0 30 2 1"), "0 0 30 2 1", "on Mondays, for one is enough");
    }
}
