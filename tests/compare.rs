//! What `benches/compare` decides and works out by itself, without starting anybody.
//!
//! A bench has no unit tests of its own; what it measures needs a machine, and is not tested.

#[path = "../benches/compare/answer.rs"]
mod answer;
#[path = "../benches/compare/histogram.rs"]
mod histogram;
#[path = "../benches/compare/numbers.rs"]
mod numbers;
#[path = "../benches/compare/options.rs"]
mod options;
#[path = "../benches/compare/plan.rs"]
mod plan;

use std::collections::BTreeSet;
use std::time::Duration;

use answer::{Answer, Answered};
use histogram::Histogram;
use numbers::{median, ratio, times, written};
use options::Options;
use plan::{BUDGET, Plan, SHORT_BUDGET};
use proptest::prelude::*;

fn options(arguments: &[&str]) -> anyhow::Result<Options> {
    Options::parse(arguments.iter().map(|&argument| argument.to_owned()))
}

#[test]
fn only_cargo_bench_without_test_measures() {
    for (arguments, is_short) in [
        (&[][..], true),
        (&["--bench"], false),
        (&["--bench", "--test"], true),
        (&["--test", "--bench"], true),
        (&["--smoke", "--bench"], true),
    ] {
        assert_eq!(options(arguments).expect("known").is_short, is_short, "{arguments:?}");
    }
}

#[test]
fn options_have_values_and_unknown_ones_are_refused() {
    let options =
        self::options(&["--only", "a,b", "--rounds", "3", "--json", "x", "--markdown", "y", "--full"]);
    let options = options.expect("known");
    assert_eq!(options.only, Some(vec!["a".to_owned(), "b".to_owned()]));
    assert_eq!((options.rounds, options.is_full), (Some(3), true));
    for wrong in [&["--rounds", "0"][..], &["--rounds", "x"], &["--json"], &["--fast"], &["fast"]] {
        assert!(self::options(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn every_contender_has_each_place_in_a_round_once() {
    let plan = Plan { rounds: 4, ..Plan::new(&options(&["--bench"]).expect("known"), 4, 5.0) };
    let turns: Vec<_> = plan.turns().collect();
    assert_eq!(turns.len(), 16);
    let places: BTreeSet<_> =
        turns.iter().enumerate().map(|(at, (_, contender))| (at % 4, *contender)).collect();
    assert_eq!(places.len(), 16, "{turns:?}");
    for round in turns.chunks(4) {
        let contenders: BTreeSet<_> = round.iter().map(|(_, contender)| *contender).collect();
        assert_eq!(contenders.len(), 4, "{round:?}");
    }
}

#[test]
fn the_default_run_is_planned_into_its_budget_and_the_full_one_has_none() {
    let usual = options(&["--bench"]).expect("known");
    for contenders in 1..=30 {
        let plan = Plan::new(&usual, contenders, 7.0);
        let least = Plan { slice: Duration::from_millis(500), ..plan };
        // Parts are rounded to nanoseconds.
        let most = BUDGET.max(least.expected(7.0)) + Duration::from_millis(1);
        assert!(plan.expected(7.0) <= most, "{contenders}: {plan:?}");
        assert!(!plan.may_begin(BUDGET));
    }
    let full = Plan::new(&options(&["--bench", "--full"]).expect("known"), 22, 27.0);
    assert!(full.may_begin(BUDGET * 100));
    let short = Plan::new(&options(&["--test"]).expect("known"), 22, 7.0);
    assert_eq!((short.rounds, short.may_begin(SHORT_BUDGET)), (1, false));
}

#[test]
fn medians_and_ratios_leave_out_what_there_is_not() {
    assert_eq!(median(&[]), None);
    assert_eq!(median(&[3.0, 1.0, f64::NAN, 2.0]), Some(2.0));
    assert_eq!(median(&[4.0, 1.0]), Some(2.5));
    assert_eq!(median(&[f64::INFINITY, f64::INFINITY]), Some(f64::INFINITY));
    // The machine was twice as slow in the second round, for both.
    assert_eq!(ratio(&[Some(2.0), Some(4.0), None], &[Some(1.0), Some(2.0), Some(9.0)]), Some(2.0));
    assert_eq!(ratio(&[Some(2.0)], &[Some(0.0)]), None);
    assert_eq!(ratio(&[Some(0.0)], &[Some(2.0)]), None);
    assert_eq!(ratio(&[Some(f64::INFINITY)], &[Some(1.0)]), None);
}

#[test]
fn numbers_are_written_with_the_digits_that_count() {
    let cases = [
        (0.0, "0"),
        (0.1234, "0.123"),
        (1.0, "1.00"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234.0, "1,234"),
        (1_234_567.0, "1,234,567"),
        (f64::INFINITY, "never"),
        (f64::NAN, "–"),
    ];
    for (number, text) in cases {
        assert_eq!(written(number), text);
    }
    assert_eq!([0.5, 99.0, 6_110.05].map(times), ["0.50", "99.00", "6,110"]);
}

proptest! {
    #[test]
    fn a_quantile_is_no_less_than_what_was_added_and_hardly_more(nanoseconds in any::<u64>()) {
        let mut histogram = Histogram::default();
        histogram.add(Duration::from_nanos(nanoseconds));
        let found = histogram.quantile(0.5).expect("one").as_nanos();
        let added = u128::from(nanoseconds);
        prop_assert!(found >= added && found - added <= added / 64, "{found}");
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_numbers(mut all in prop::collection::vec(0_u64..10_000_000, 1..200)) {
        let mut histogram = Histogram::default();
        all.iter().for_each(|&one| histogram.add(Duration::from_nanos(one)));
        all.sort_unstable();
        for share in [0.0, 0.5, 0.99, 1.0] {
            let index = ((all.len() as f64 * share).ceil() as usize).clamp(1, all.len()) - 1;
            let found = histogram.quantile(share).expect("some").as_nanos();
            let exact = u128::from(all[index]);
            prop_assert!(found >= exact && found - exact <= exact / 64, "{share}: {found}, {exact}");
        }
    }

    #[test]
    fn an_answer_is_complete_at_its_last_byte_however_it_comes(cut in 0_usize..60) {
        let text = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: close\r\n\r\n1234\n";
        let cut = cut.min(text.len() - 1);
        let mut answer = Answer::default();
        prop_assert_eq!(answer.add(&text[..cut]), Answered::NotYet);
        prop_assert_eq!(answer.add(&text[cut..]), Answered::By { worker: 1234, closes: true });
    }
}

#[test]
fn a_kept_connection_has_one_answer_after_the_other() {
    let mut answer = Answer::default();
    for worker in [1, 22] {
        answer.clear();
        let text = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{worker:2}");
        assert_eq!(answer.add(text.as_bytes()), Answered::By { worker, closes: false });
    }
}

#[test]
fn only_what_an_application_says_is_an_answer() {
    for (text, answered) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7", Answered::By { worker: 7, closes: false }),
        ("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 1\r\n\r\n7", Answered::Badly),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", Answered::Badly),
        ("HTTP/1.1 200 OK\r\n\r\n7", Answered::Badly),
    ] {
        assert_eq!(Answer::default().add(text.as_bytes()), answered, "{text}");
    }
}

#[test]
fn an_empty_histogram_has_no_quantile_and_slow_ones_are_counted() {
    let mut histogram = Histogram::default();
    assert_eq!(histogram.quantile(0.5), None);
    for milliseconds in [1, 99, 150, 3_000] {
        histogram.add(Duration::from_millis(milliseconds));
    }
    assert_eq!((histogram.total(), histogram.longer_than(Duration::from_millis(100))), (4, 2));
}
