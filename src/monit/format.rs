//! Numbers as they stand in a column: short, with a unit.
//!
//! What is not known is `-`.

use bytesize::ByteSize;

/// What stands for what is not known.
pub(super) const UNKNOWN: &str = "-";

/// A figure, or what stands for one.
pub(super) fn or_unknown<T>(figure: Option<T>, shown: impl FnOnce(T) -> String) -> String {
    figure.map_or_else(|| UNKNOWN.to_owned(), shown)
}

/// A number of events a second: `0`, `0.4`, `12`, `1,203`.
pub(super) fn rate(rate: f64) -> String {
    match rate {
        0.0 => "0".to_owned(),
        rate if rate < 9.95 => format!("{rate:.1}"),
        rate => grouped(rate.round() as u64),
    }
}

/// A number with its thousands apart.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time in seconds, with two digits: `38 us`, `1.2 ms`, `250 ms`, `3.0 s`.
pub(super) fn seconds(seconds: f64) -> String {
    let (number, unit) = match seconds {
        seconds if seconds < 0.000_999_5 => (seconds * 1e6, "us"),
        seconds if seconds < 0.999_5 => (seconds * 1e3, "ms"),
        seconds => (seconds, "s"),
    };
    match number {
        number if number < 9.95 => format!("{number:.1} {unit}"),
        number => format!("{number:.0} {unit}"),
    }
}

/// How long ago something was, in its greatest unit: `5s`, `12m`, `3h`, `40d`.
pub(super) fn age(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A part of a CPU.
pub(super) fn percent(percent: f64) -> String {
    format!("{percent:.0}%")
}

/// Memory.
pub(super) fn bytes(bytes: u64) -> String {
    ByteSize(bytes).display().iec_short().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (number, shown) in
            [(0.0, "0"), (0.04, "0.0"), (9.94, "9.9"), (9.96, "10"), (1_234_567.4, "1,234,567")]
        {
            assert_eq!(rate(number), shown);
        }
        let times = [(0.0, "0.0 us"), (0.000_038, "38 us"), (0.000_999_9, "1.0 ms"), (0.0012, "1.2 ms")];
        for (number, shown) in times.into_iter().chain([(0.25, "250 ms"), (0.9996, "1.0 s"), (12.0, "12 s")])
        {
            assert_eq!(seconds(number), shown);
        }
        for (millis, shown) in
            [(999, "0s"), (59_999, "59s"), (60_000, "1m"), (7_200_000, "2h"), (864_000_000, "10d")]
        {
            assert_eq!(age(millis), shown);
        }
        assert_eq!((grouped(0), grouped(999), grouped(1000)), ("0".into(), "999".into(), "1,000".into()));
        assert_eq!((percent(99.6), bytes(45 << 20)), ("100%".into(), "45.0M".into()));
        assert_eq!(or_unknown(None, bytes), "-");
    }
}
