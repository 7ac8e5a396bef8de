//! Which app comes when, and what it all ends with.

use proptest::prelude::*;

use super::*;

const KILLED: Ended = Ended::Signal { signal: libc::SIGKILL, core: false };

fn code(code: i32) -> Ended {
    Ended::Code(code)
}

/// What is done after each event, half a second apart.
fn done(needs: &[&[usize]], ends_on_failure: bool, events: &[Event]) -> Vec<Vec<Action>> {
    let mut group = Group::new(needs.iter().map(|needs| needs.to_vec()), ends_on_failure);
    let start = Instant::now();
    let times = (0..).map(|step| start + HEAD_START / 2 * step);
    events.iter().zip(times).map(|(&event, now)| group.step(event, now)).collect()
}

use Action::{AllReady, End, Say, Signal as Send, Start};
use Event::{Ended as Over, Late, NotStarted, Ready, Stop as Asked, Time};

#[test]
fn an_app_is_started_once_all_that_it_needs_is_ready() {
    let needs: [&[usize]; 4] = [&[], &[0], &[0, 1], &[]];
    let events = [Time, Ready(3), Ready(0), Ready(1), Ready(2)];
    let expected = [vec![Start(0), Start(3)], vec![], vec![Start(1)], vec![Start(2)], vec![AllReady]];
    assert_eq!(done(&needs, false, &events), expected);
}

#[test]
fn what_has_done_its_work_is_as_good_as_ready() {
    let events = [Time, Over(0, code(0)), Ready(1), Over(1, code(0))];
    let ended = News::Ended(code(0));
    let expected = [vec![Start(0)], vec![Say(0, ended), Start(1)], vec![AllReady], vec![End(0)]];
    assert_eq!(done(&[&[], &[0]], false, &events), expected);
}

#[test]
fn what_needs_an_app_that_fails_is_passed_over_with_all_that_needs_it() {
    let needs: [&[usize]; 4] = [&[], &[0], &[1], &[]];
    let passed = [Say(1, News::PassedOver(0)), Say(2, News::PassedOver(1))];
    let table = [
        (Over(0, code(3)), vec![Say(0, News::Ended(code(3)))], 3),
        (NotStarted(0), vec![], 1),
        (Late(0), vec![Say(0, News::Late)], 1),
    ];
    for (event, first, code_at_end) in table {
        let events = [Time, Ready(3), event, Over(0, code(0)), Over(3, code(0))];
        let done = done(&needs, false, &events);
        assert_eq!(done[2], [&first[..], &passed].concat(), "{event:?}");
        assert_eq!(done[4].last(), Some(&End(code_at_end)), "{event:?}");
    }
}

#[test]
fn it_ends_when_all_have_ended_with_the_code_of_the_first_that_failed() {
    let table: [(&[Ended], u8); 4] = [
        (&[code(0), code(0)], 0),
        (&[code(0), code(7)], 7),
        (&[code(5), code(7)], 5),
        (&[code(300), code(0)], 1),
    ];
    for (ends, expected) in table {
        let events = [Time, Over(0, ends[0]), Over(1, ends[1])];
        assert_eq!(done(&[&[], &[]], false, &events)[2].last(), Some(&End(expected)), "{ends:?}");
    }
}

#[test]
fn the_first_that_fails_ends_the_others_if_so_wished() {
    let needs: [&[usize]; 3] = [&[], &[], &[]];
    let events = [Time, Over(0, code(0)), Over(1, code(4)), Over(2, code(9))];
    let steps = done(&needs, true, &events);
    assert_eq!(steps[1], [Say(0, News::Ended(code(0)))], "it has not failed");
    assert_eq!(steps[2], [Say(1, News::Ended(code(4))), Send(2, Signal::TERM)]);
    assert_eq!(steps[3], [End(4)]);
    // One that is passed over has failed as well.
    let late = done(&[&[], &[0]], true, &[Time, Late(0)]).remove(1);
    assert_eq!(late, [Say(0, News::Late), Say(1, News::PassedOver(0)), Send(0, Signal::TERM)]);
}

#[test]
fn at_a_stop_what_is_needed_ends_last_and_does_not_wait_for_long() {
    let needs: [&[usize]; 3] = [&[], &[0], &[1]];
    let up = [Time, Ready(0), Ready(1), Ready(2)];
    let quit = Signal::QUIT;
    let stop = |rest: &[Event]| done(&needs, false, &[&up[..], &[Asked(quit)], rest].concat()).split_off(4);
    let ends = [Over(2, code(0)), Over(1, code(0)), Over(0, code(0))];
    assert_eq!(stop(&ends), [vec![Send(2, quit)], vec![Send(1, quit)], vec![Send(0, quit)], vec![End(0)]]);
    assert_eq!(stop(&[Time, Time])[1..], [vec![], vec![Send(0, quit), Send(1, quit)]]);
    let fast = |app| Send(app, Signal::INT);
    assert_eq!(stop(&[Asked(Signal::TERM)])[1], [fast(0), fast(1), fast(2)]);
    assert_eq!(stop(&[Asked(Signal::TERM), Asked(Signal::TERM)])[2], []);
    // Ten seconds later, after many more who ask.
    let many = stop(&[[Asked(Signal::TERM)].repeat(20), vec![Time]].concat());
    let kill = |app| Send(app, Signal::KILL);
    assert_eq!(many.concat()[4..], [kill(0), kill(1), kill(2)]);
}

#[test]
fn a_stop_starts_nothing_more_and_a_signal_is_then_no_failure() {
    let events = [Time, Asked(Signal::TERM), Ready(0), Over(0, KILLED)];
    let expected = [vec![Start(0)], vec![Send(0, Signal::TERM)], vec![], vec![End(0)]];
    assert_eq!(done(&[&[], &[0]], false, &events), expected);
    let failed = [Time, Asked(Signal::TERM), Over(0, code(2))];
    assert_eq!(done(&[&[]], false, &failed)[2], [End(2)]);
}

#[test]
fn a_primary_that_crashes_is_started_again_five_times_a_minute() {
    let mut events = vec![Time];
    for _ in 0..6 {
        events.extend([Over(0, KILLED), Time]);
    }
    let done = done(&[&[], &[]], true, &events);
    for crash in 0..5 {
        assert_eq!(done[1 + 2 * crash], [Say(0, News::Crashed(KILLED))]);
        assert_eq!(done[2 + 2 * crash], [Start(0)]);
    }
    assert_eq!(done[11], [Say(0, News::GivenUp(KILLED)), Send(1, Signal::TERM)]);
}

#[test]
fn a_failure_right_after_a_crash_is_part_of_it() {
    let again = [Time, Ready(0), Over(0, KILLED), Time, Over(0, code(1)), Time, Ready(0), Over(0, code(1))];
    let done = done(&[&[]], false, &again);
    assert_eq!(done[4], [Say(0, News::Crashed(code(1)))]);
    assert_eq!(done[7], [End(1)]);
}

#[test]
fn it_wakes_up_for_what_is_due() {
    let mut group = Group::new([vec![], vec![0]], false);
    let now = Instant::now();
    group.step(Time, now);
    assert_eq!(group.wakes_at(), None);
    group.step(Over(0, KILLED), now);
    assert_eq!(group.wakes_at(), Some(now + PAUSE));
    group.step(Time, now + PAUSE);
    group.step(Ready(0), now);
    group.step(Asked(Signal::TERM), now);
    assert_eq!(group.wakes_at(), Some(now + HEAD_START));
    group.step(Time, now + HEAD_START);
    assert_eq!(group.wakes_at(), None);
    group.step(Asked(Signal::TERM), now);
    assert_eq!(group.wakes_at(), Some(now + FAST));
    group.step(Time, now + FAST);
    assert_eq!(group.wakes_at(), None);
}

fn event(apps: usize) -> impl Strategy<Value = Event> {
    let app = 0..apps;
    prop_oneof![
        Just(Time),
        app.clone().prop_map(Ready),
        app.clone().prop_map(Late),
        (app.clone(), 0..3i32).prop_map(|(app, number)| Over(app, code(number))),
        app.prop_map(|app| Over(app, KILLED)),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_all_that_runs_is_ended_by_a_stop(
        needs in prop::collection::vec(prop::collection::vec(any::<prop::sample::Index>(), 0..3), 1..6),
        events in prop::collection::vec(event(5), 0..40),
        ends_on_failure: bool,
    ) {
        let needs: Vec<Vec<usize>> = needs.iter().enumerate().map(|(place, needs)| {
            needs.iter().filter(|_| place > 0).map(|index| index.index(place.max(1))).collect()
        }).collect();
        let count = needs.len();
        let mut group = Group::new(needs.clone(), ends_on_failure);
        let mut now = Instant::now();
        let (mut running, mut ended) = (vec![false; count], false);
        for event in [Time].into_iter().chain(events) {
            now += Duration::from_millis(100);
            // Only what runs gets ready, late and ends.
            match event {
                Ready(app) | Late(app) | Over(app, _) if !running.get(app).is_some_and(|runs| *runs) => continue,
                Over(app, _) => running[app] = false,
                _ => {}
            }
            for action in group.step(event, now) {
                match action {
                    Start(app) => {
                        prop_assert!(!std::mem::replace(&mut running[app], true));
                        let is_met = |&need: &usize| group.apps[need].state.is_good();
                        prop_assert!(!group.apps[app].crashes.is_empty() || needs[app].iter().all(is_met));
                    }
                    Send(app, _) => prop_assert!(running[app]),
                    End(_) => ended = true,
                    Say(..) | AllReady => {}
                }
            }
        }
        prop_assert_eq!(ended, group.apps.iter().all(|app| app.state.is_over()));
        group.step(Asked(Signal::TERM), now);
        group.step(Time, now + HEAD_START);
        for app in (0..count).filter(|&app| running[app]) {
            prop_assert!(group.apps[app].asked.is_some());
            group.step(Over(app, code(0)), now + HEAD_START);
        }
        prop_assert!(group.apps.iter().all(|app| app.state.is_over()));
    }
}
