//! What a cron expression means to PM2 and not to clusterd, which follows cron(8).
//!
//! PM2 7 has croner 4: a day of the month and a day of the week both have to match, `5/15` is every 15 from 5, and `?` is
//! whatever it was when PM2 was started.

use super::value::Said;

/// The same times as far as they can be written, and what is different.
pub(super) fn as_here(text: &str) -> (String, Vec<Said>) {
    let mut warnings = Vec::new();
    let mut warn = |what: String, hint: &str| warnings.push((what, Some(hint.to_owned())));
    let mut fields: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
    let greatest: &[u8] = match fields.len() {
        5 => &[59, 23, 31, 12, 6],
        6 => &[59, 59, 23, 31, 12, 6],
        // What it is, the setting says.
        _ => return (text.to_owned(), warnings),
    };
    for (field, greatest) in fields.iter_mut().zip(greatest) {
        let items: Vec<_> = field.split(',').map(|item| from_then_on(item, *greatest)).collect();
        let plain = items.join(",");
        if plain != *field {
            warn(
                format!("{field} is written {plain}"),
                "every so many from the first is a range with a step in crontab(5)",
            );
            *field = plain;
        }
    }
    if fields.iter().any(|field| field.split(',').any(|item| item == "?")) {
        warn("? was the time at which PM2 was started".to_owned(), "here it is the same as *");
    }
    let days = [fields.len() - 3, fields.len() - 1].map(|at| fields.get(at).map_or("*", String::as_str));
    if days.iter().all(|day| !day.starts_with('*') && *day != "?") {
        warn(
            "PM2 takes days that match both the day of the month and the day of the week; clusterd those that match either".to_owned(),
            "write * for one of them",
        );
    }
    (fields.join(" "), warnings)
}

/// `5/15` as `5-59/15`.
fn from_then_on(item: &str, greatest: u8) -> String {
    match item.split_once('/') {
        Some((first, step)) if !first.is_empty() && first.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{first}-{greatest}/{step}")
        }
        _ => item.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_written_or_said() {
        let cases = [
            ("0 3 * * *", "0 3 * * *", 0),
            ("*/15 8-18 * * MON-FRI", "*/15 8-18 * * MON-FRI", 0),
            ("5/15 * * * *", "5-59/15 * * * *", 1),
            ("0 0 2/7,1 * *", "0 0 2-31/7,1 * *", 1),
            ("0 0 1 * 1", "0 0 1 * 1", 1),
            ("0 0 */2 * 1", "0 0 */2 * 1", 0),
            ("0 0 ? * MON", "0 0 ? * MON", 1),
            ("*/10 * * * * *", "*/10 * * * * *", 0),
            ("@daily", "@daily", 0),
            ("nonsense", "nonsense", 0),
        ];
        for (text, expected, warned) in cases {
            let (written, warnings) = as_here(text);
            assert_eq!((written.as_str(), warnings.len()), (expected, warned), "{text}: {warnings:?}");
        }
    }
}
