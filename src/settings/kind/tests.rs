//! What each kind reads, refuses and shows.

use std::num::NonZeroU32;

use super::super::parse::outcome;
use super::*;

const OUT_OF_RANGE: &str = "out of range";

#[test]
fn numbers_within_bounds() {
    const NOT: &str = "not a whole number";
    let cases = [
        (number(1, 64), "1", "1"),
        (number(1, 64), "64", "64"),
        (number(1, 64), "65", OUT_OF_RANGE),
        (number(1, 64), "0", OUT_OF_RANGE),
        (number(1, 64), "-1", OUT_OF_RANGE),
        (number(1, 64), "99999999999999999999", OUT_OF_RANGE),
        (number(1, 64), "+5", NOT),
        (number(1, 64), "1.5", NOT),
        (number(1, 64), "1k", NOT),
        (number(1, 64), "", NOT),
        (number(-1000, 1000), "-1000", "-1000"),
        (number(-1000, 1000), "-1001", OUT_OF_RANGE),
        (number(-1000, 1000), "--5", NOT),
    ];
    for (kind, text, expected) in cases {
        assert_eq!(outcome::<i16>(&kind, text), expected, "{text}");
    }
    assert_eq!(outcome::<NonZeroU32>(&number(1, u32::MAX.into()), "4294967295"), "4294967295");
}

#[test]
fn durations() {
    const NOT: &str = "not a duration";
    const UNITLESS: &str = "a duration needs a unit";
    let cases = [
        ("1ms", "1ms"),
        ("500ms", "500ms"),
        ("8s", "8s"),
        ("0.5s", "500ms"),
        ("1m 30s", "1m 30s"),
        ("24h", "1day"),
        ("24h 1ms", OUT_OF_RANGE),
        ("0s", OUT_OF_RANGE),
        ("999us", OUT_OF_RANGE),
        ("1year", OUT_OF_RANGE),
        ("99999999999999999999s", OUT_OF_RANGE),
        ("18446744073709551615s 1000000000ns", OUT_OF_RANGE),
        ("8", UNITLESS),
        ("0", OUT_OF_RANGE),
        ("86400001", OUT_OF_RANGE),
        ("", NOT),
        ("s", NOT),
        ("-8s", NOT),
        ("8 parsecs", NOT),
    ];
    for (text, expected) in cases {
        assert_eq!(outcome(&duration("1ms", "24h"), text), expected, "{text}");
    }
    let cases = [("30d", "30days"), ("31d", OUT_OF_RANGE), ("500ms", OUT_OF_RANGE)];
    for (text, expected) in cases {
        assert_eq!(outcome(&duration("1s", "30d"), text), expected, "{text}");
    }
}

#[test]
fn units_of_memory_are_of_1024() {
    const NOT: &str = "not a size";
    let cases = [
        ("512M", "512.0 MiB"),
        ("512m", "512.0 MiB"),
        ("512MB", "512.0 MiB"),
        ("512MiB", "512.0 MiB"),
        ("512Mi", "512.0 MiB"),
        ("512 M", "512.0 MiB"),
        ("512i", NOT),
        ("512B", NOT),
        ("1.5GiB", "1.5 GiB"),
        ("1.5G", "1.5 GiB"),
        ("2048K", "2.0 MiB"),
        ("1T", "1.0 TiB"),
        ("1024T", "1.0 PiB"),
        ("1025T", OUT_OF_RANGE),
        ("1K", OUT_OF_RANGE),
        ("0M", OUT_OF_RANGE),
        ("99999999999999999999T", OUT_OF_RANGE),
        ("512", NOT),
        ("M", NOT),
        ("-1M", NOT),
        ("1e3M", NOT),
        ("1.2.3M", NOT),
        ("", NOT),
    ];
    for (text, expected) in cases {
        assert_eq!(outcome(&Memory, text), expected, "{text}");
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Fruit {
    GreenApple,
    #[value(alias = "orange")]
    Tangerine,
}

#[test]
fn a_choice_has_the_words_of_its_enum() {
    let fruit = choice::<Fruit>();
    assert_eq!(
        (fruit.placeholder(), fruit.accepts()),
        ("green-apple|tangerine".into(), "green-apple or tangerine".into())
    );
    let cases = [
        ("green-apple", "green-apple"),
        ("orange", "tangerine"),
        ("Orange", "not a known word"),
        ("", "not a known word"),
    ];
    for (text, expected) in cases {
        assert_eq!(outcome(&fruit, text), expected, "{text}");
    }
}

#[test]
fn what_may_be_found_out_says_so() {
    let kind = OrAuto(number(1, 9));
    assert_eq!(kind.accepts(), "a number from 1 to 9, or \"auto\"");
    for (text, expected) in [("auto", "auto"), ("9", "9"), ("10", OUT_OF_RANGE)] {
        assert_eq!(outcome::<Option<u8>>(&kind, text), expected, "{text}");
    }
}

#[test]
fn what_may_be_off_says_so() {
    let kind = OrOff(number(1, 9));
    assert_eq!(kind.accepts(), "a number from 1 to 9, or \"off\"");
    for (text, expected) in [("off", "off"), ("9", "9"), ("10", OUT_OF_RANGE)] {
        assert_eq!(outcome::<Option<u8>>(&kind, text), expected, "{text}");
    }
}
