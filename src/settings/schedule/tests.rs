//! What times expressions come to, beside those at which Debian's cron 3.0pl1-162 was seen to run them, under
//! libfaketime 0.9.10 with the time zone Europe/Berlin.

use chrono::{Datelike as _, FixedOffset, MappedLocalTime, NaiveDate};

use super::*;
use crate::settings::parse::CRON;

/// Central European (Summer) Time in 2026: 02:00 is followed by 03:00 on 29 March, and 02:59 by 02:00 on 25 October.
#[derive(Clone, Copy, Debug)]
struct Berlin;

fn offset(hours: i32) -> FixedOffset {
    FixedOffset::east_opt(hours * 3600).unwrap()
}

fn at(month: u32, day: u32, hour: u32, minute: u32) -> NaiveDateTime {
    NaiveDate::from_ymd_opt(2026, month, day).unwrap().and_hms_opt(hour, minute, 0).unwrap()
}

impl TimeZone for Berlin {
    type Offset = FixedOffset;

    fn from_offset(_: &FixedOffset) -> Self {
        Self
    }

    fn offset_from_local_date(&self, date: &NaiveDate) -> MappedLocalTime<FixedOffset> {
        self.offset_from_local_datetime(&date.and_time(NaiveTime::MIN))
    }

    fn offset_from_local_datetime(&self, shown: &NaiveDateTime) -> MappedLocalTime<FixedOffset> {
        match shown {
            _ if (at(3, 29, 2, 0)..at(3, 29, 3, 0)).contains(shown) => MappedLocalTime::None,
            _ if (at(10, 25, 2, 0)..at(10, 25, 3, 0)).contains(shown) => {
                MappedLocalTime::Ambiguous(offset(2), offset(1))
            }
            _ if (at(3, 29, 3, 0)..at(10, 25, 2, 0)).contains(shown) => MappedLocalTime::Single(offset(2)),
            _ => MappedLocalTime::Single(offset(1)),
        }
    }

    fn offset_from_utc_date(&self, date: &NaiveDate) -> FixedOffset {
        self.offset_from_utc_datetime(&date.and_time(NaiveTime::MIN))
    }

    fn offset_from_utc_datetime(&self, utc: &NaiveDateTime) -> FixedOffset {
        let is_summer = (at(3, 29, 1, 0)..at(10, 25, 1, 0)).contains(utc);
        offset(if is_summer { 2 } else { 1 })
    }
}

fn schedule(text: &str) -> Schedule {
    (CRON.read)(text).unwrap_or_else(|reason| panic!("{text}: {reason}"))
}

/// The times after the first of these, up to the last.
fn times<Tz: TimeZone>(text: &str, after: DateTime<Tz>, until: &DateTime<Tz>) -> Vec<DateTime<Tz>> {
    let schedule = schedule(text);
    let next = |time: &DateTime<Tz>| schedule.next_after(time).filter(|time| time <= until);
    std::iter::successors(next(&after), next).collect()
}

#[test]
fn days_are_those_of_debians_cron() {
    const ALL: [u32; 30] = {
        let mut all = [0; 30];
        let mut day = 0;
        while day < 30 {
            all[day as usize] = day + 1;
            day += 1;
        }
        all
    };
    // In September 2026, which begins with a Tuesday.
    let cases: [(&str, &[u32]); 26] = [
        ("0 0 */2 * 1", &[7, 21]),
        ("0 0 1,15 * 5", &[1, 4, 11, 15, 18, 25]),
        ("0 0 * * 0", &[6, 13, 20, 27]),
        ("0 0 * * 7", &[6, 13, 20, 27]),
        ("0 0 1 * *", &[1]),
        ("0 0 1-7 * */7", &[6]),
        ("0 0 */10 * */2", &[1]),
        ("0 0 13 * fri", &[4, 11, 13, 18, 25]),
        ("0 0 1-31 * mon", &ALL),
        ("0 0 * * 1-5", &[1, 2, 3, 4, 7, 8, 9, 10, 11, 14, 15, 16, 17, 18, 21, 22, 23, 24, 25, 28, 29, 30]),
        ("0 0 * sep *", &ALL),
        ("0 0 31 * *", &[]),
        ("0 0 *,5 * 1", &[7, 14, 21, 28]),
        ("0 0 5,* * 1", &ALL),
        ("0 0 * 9 mon,wed", &[2, 7, 9, 14, 16, 21, 23, 28, 30]),
        ("0 0 28-31 * 6-7", &[5, 6, 12, 13, 19, 20, 26, 27, 28, 29, 30]),
        ("0 0 */31 * *", &[1]),
        ("0 0 * */4 2", &[1, 8, 15, 22, 29]),
        ("0 0 1 9 *", &[1]),
        ("0 0 * * mon-wed", &[1, 2, 7, 8, 9, 14, 15, 16, 21, 22, 23, 28, 29, 30]),
        ("0 0 * * 5-7", &[4, 5, 6, 11, 12, 13, 18, 19, 20, 25, 26, 27]),
        ("0 0 29 2 *", &[]),
        ("@midnight", &ALL),
        ("@weekly", &[6, 13, 20, 27]),
        ("@monthly", &[1]),
        ("@yearly", &[]),
    ];
    let august = at(8, 31, 23, 59).and_utc();
    for (text, expected) in cases {
        let days: Vec<_> =
            times(text, august, &at(9, 30, 23, 59).and_utc()).iter().map(DateTime::day).collect();
        assert_eq!(days, expected, "{text}");
    }
}

/// The times that clocks in Berlin show, with `+` if that is summer time.
fn shown<Tz: TimeZone>(zone: &Tz, text: &str, (month, day): (u32, u32), minutes: i64) -> Vec<String> {
    let after = zone.from_local_datetime(&at(month, day, 1, 20)).unwrap();
    let until = after.clone() + TimeDelta::minutes(minutes);
    let times = times(text, after, &until);
    times
        .iter()
        .map(|time| {
            let shown = time.naive_local().format("%H:%M");
            format!("{shown}{}", if time.offset().fix() == offset(2) { "+" } else { "" })
        })
        .collect()
}

#[test]
fn times_of_day_are_those_of_debians_cron_also_where_clocks_are_set() {
    times_of_day_are_those_of_debians_cron(&Berlin);
}

/// The zone of this machine is chrono's affair, and read once.
#[test]
fn they_are_with_the_clock_of_this_machine() {
    let alone = "settings::schedule::tests::alone_with_the_clock_of_berlin";
    let mut program = std::process::Command::new(std::env::current_exe().expect("the path of this program"));
    program.args(["--exact", "--ignored", alone]).env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3");
    let output = program.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("1 passed"), "{text}");
}

#[test]
#[ignore = "run with another time zone by the test above"]
fn alone_with_the_clock_of_berlin() {
    times_of_day_are_those_of_debians_cron(&chrono::Local);
}

fn times_of_day_are_those_of_debians_cron(zone: &impl TimeZone) {
    let (spring, autumn) = ((3, 29), (10, 25));
    let cases: [(&str, &[&str], &[&str]); 12] = [
        // In spring until 04:15, in autumn until 04:15.
        ("30 2 * * *", &["03:00+"], &["02:30+"]),
        ("0 2 * * *", &["03:00+"], &["02:00+"]),
        // cron runs it twice in spring, in the same second.
        ("15,45 2 * * *", &["03:00+"], &["02:15+", "02:45+"]),
        ("*/30 2 * * *", &[], &["02:00+", "02:30+", "02:00", "02:30"]),
        ("30 * * * *", &["01:30", "03:30+"], &["01:30+", "02:30+", "02:30", "03:30"]),
        ("0 3 * * *", &["03:00+"], &["03:00"]),
        ("30 1 * * *", &["01:30"], &["01:30+"]),
        ("@hourly", &["03:00+", "04:00+"], &["02:00+", "02:00", "03:00", "04:00"]),
        ("45 1-3 * * *", &["01:45", "03:00+", "03:45+"], &["01:45+", "02:45+", "03:45"]),
        ("30 2 29 3 *", &["03:00+"], &[]),
        ("30 2 25 10 *", &[], &["02:30+"]),
        ("0 */2 * * *", &["04:00+"], &["02:00+", "02:00", "04:00"]),
    ];
    for (text, in_spring, in_autumn) in cases {
        assert_eq!(shown(zone, text, spring, 115), in_spring, "{text}");
        assert_eq!(shown(zone, text, autumn, 235), in_autumn, "{text}");
    }
}

#[test]
fn hours_minutes_and_seconds_are_counted_from_the_first_that_there_is() {
    let cases: [(&str, &[&str]); 11] = [
        // All but the last as Debian's cron has it.
        ("*/15 11 * * *", &["11:00:00", "11:15:00", "11:30:00", "11:45:00"]),
        ("5 */2 * * *", &["12:05:00"]),
        ("0 11 * * *", &["11:00:00"]),
        ("7-20/6 11 * * *", &["11:07:00", "11:13:00", "11:19:00"]),
        ("*/70 * * * *", &["11:00:00", "12:00:00", "13:00:00"]),
        ("0 */100 * * *", &[]),
        ("59 * * * *", &["10:59:00", "11:59:00", "12:59:00"]),
        ("30 10-12/2 * * *", &["12:30:00"]),
        ("1,1,1 12 * * *", &["12:01:00"]),
        ("10-10 12 * * *", &["12:10:00"]),
        ("*/30 59 10-11 * * *", &["10:59:00", "10:59:30", "11:59:00", "11:59:30"]),
    ];
    for (text, expected) in cases {
        let times = times(text, at(9, 1, 10, 58).and_utc(), &at(9, 1, 13, 2).and_utc());
        let times: Vec<_> = times.iter().map(|time| time.format("%H:%M:%S").to_string()).collect();
        assert_eq!(times, expected, "{text}");
    }
}

#[test]
fn one_that_is_asked_again_goes_on() {
    for text in ["0 3 * * *", "15,45 1-3 * * *", "*/20 * * * *", "0 0 3 * * *", "*/7 */3 * * * *"] {
        let schedule = schedule(text);
        for (month, day) in [(3, 28), (10, 24)] {
            let mut time = Berlin.from_local_datetime(&at(month, day, 20, 0)).unwrap();
            for _ in 0..500 {
                let next = schedule.next_after(&time).unwrap();
                assert!(next > time, "{text}: {next} after {time}");
                time = next;
            }
        }
    }
}
