//! Whether a command is accepted, and what it then comes to.
//!
//! Pure: from how the app stands to a refusal or to what is to be done. Nothing is begun here.

use super::command::{MOST_WORKERS, Refused, Scale};
use super::events::Asker;
use super::signal_name::NamedSignal;
use crate::ids::Slot;

/// What is wanted of the whole app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// That it runs.
    Running,
    /// That its workers are stopped until they are started again.
    Stopped,
    /// That it runs until connections that were accepted are taken, and nothing else changes.
    Closing,
    /// That it ends.
    Ending,
}

impl Mode {
    /// Whether workers that are missing are started.
    pub(super) fn fills_slots(self) -> bool {
        matches!(self, Mode::Running | Mode::Closing)
    }

    /// What it is once the stop of clusterd has begun.
    pub(super) fn closed(self) -> Self {
        match self {
            Mode::Running | Mode::Closing => Mode::Closing,
            Mode::Stopped | Mode::Ending => Mode::Ending,
        }
    }
}

/// How the app stands, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Situation {
    /// What is wanted of it.
    pub mode: Mode,
    /// How many workers are wanted.
    pub workers: u32,
    /// Who has asked for the reload that is under way.
    pub reload_by: Option<Asker>,
}

/// A command, with the configuration `C` that was read for it if it concerns all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order<C> {
    /// [`Command::Reload`](super::Command::Reload).
    Reload(C),
    /// [`Command::Restart`](super::Command::Restart) of all workers.
    Restart(C),
    /// [`Command::Restart`](super::Command::Restart) of this one.
    RestartOne(Slot),
    /// [`Command::Scale`](super::Command::Scale).
    Scale(Scale),
    /// [`Command::Stop`](super::Command::Stop).
    Stop,
    /// [`Command::Hold`](super::Command::Hold).
    Hold,
    /// [`Command::Stop`](super::Command::Stop) of this one.
    StopOne(Slot),
    /// [`Command::Start`](super::Command::Start).
    Start,
    /// [`Command::Start`](super::Command::Start) of this one.
    StartOne(Slot),
    /// [`Command::StartWith`](super::Command::StartWith).
    StartWith(C),
    /// [`Command::Signal`](super::Command::Signal).
    Signal(Option<Slot>, NamedSignal),
    /// [`Command::Reset`](super::Command::Reset).
    Reset(Option<Slot>),
}

/// What becomes of clients that come while the app is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clients {
    /// The ports refuse them.
    Refused,
    /// They wait until the app is started.
    Wait,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Accepted<C> {
    /// Replace every worker.
    Reload(C),
    /// Stop the worker in this slot, and start it again.
    RestartOne(Slot),
    /// Stop all workers, and start them again.
    RestartAll(C),
    /// Have so many workers.
    Scale(u32),
    /// Stop all workers.
    Stop(Clients),
    /// Stop the worker in this slot, and leave the slot empty.
    StopOne(Slot),
    /// Start all workers.
    Start,
    /// Start the worker in this slot.
    StartOne(Slot),
    /// Start all workers, with another environment.
    StartWith(C),
    /// Send a signal to all workers, or to the one in this slot.
    Signal(Option<Slot>, NamedSignal),
    /// Count restarts from 0, of all workers or of the one in this slot.
    Reset(Option<Slot>),
}

/// Whether an order is carried out. While clusterd stops nothing is; a stop overtakes a reload, what starts or ends nothing
/// goes on beside it, and everything else waits for its end; an app that is stopped can only be started.
///
/// # Errors
/// Why it is not carried out.
pub(super) fn accept<C>(order: Order<C>, situation: &Situation) -> Result<Accepted<C>, Refused> {
    if matches!(situation.mode, Mode::Closing | Mode::Ending) {
        return Err(Refused::Stopping);
    }
    match (order, &situation.reload_by) {
        (Order::Stop, _) => Ok(Accepted::Stop(Clients::Refused)),
        (Order::Hold, _) => Ok(Accepted::Stop(Clients::Wait)),
        (Order::Signal(slot, signal), _) => {
            one_or_all(slot, situation.workers).map(|slot| Accepted::Signal(slot, signal))
        }
        (Order::Reset(slot), _) => one_or_all(slot, situation.workers).map(Accepted::Reset),
        (_, Some(by)) => Err(Refused::Busy { by: by.clone() }),
        (Order::Start, None) => Ok(Accepted::Start),
        (Order::StartWith(configuration), None) if situation.mode == Mode::Stopped => {
            Ok(Accepted::StartWith(configuration))
        }
        (_, None) if situation.mode == Mode::Stopped => Err(Refused::Stopped),
        (Order::Reload(configuration) | Order::StartWith(configuration), None) => {
            Ok(Accepted::Reload(configuration))
        }
        (Order::Restart(configuration), None) => Ok(Accepted::RestartAll(configuration)),
        (Order::RestartOne(slot), None) => existing(slot, situation.workers).map(Accepted::RestartOne),
        (Order::StopOne(slot), None) => existing(slot, situation.workers).map(Accepted::StopOne),
        (Order::StartOne(slot), None) => existing(slot, situation.workers).map(Accepted::StartOne),
        (Order::Scale(scale), None) => scaled(situation.workers, scale).map(Accepted::Scale),
    }
}

fn existing(slot: Slot, workers: u32) -> Result<Slot, Refused> {
    if (1..=workers).contains(&slot.0) { Ok(slot) } else { Err(Refused::NoWorker(slot)) }
}

fn one_or_all(slot: Option<Slot>, workers: u32) -> Result<Option<Slot>, Refused> {
    slot.map(|slot| existing(slot, workers)).transpose()
}

fn scaled(workers: u32, scale: Scale) -> Result<u32, Refused> {
    let asked = match scale {
        Scale::To(workers) => i64::from(workers),
        Scale::By(difference) => i64::from(workers) + i64::from(difference),
    };
    let wanted = u32::try_from(asked).ok().filter(|wanted| (1..=MOST_WORKERS).contains(wanted));
    wanted.ok_or(Refused::OutOfRange { asked })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn running(workers: u32) -> Situation {
        Situation { mode: Mode::Running, workers, reload_by: None }
    }

    fn in_mode(mode: Mode) -> Situation {
        Situation { mode, ..running(4) }
    }

    fn reloading() -> Situation {
        Situation { reload_by: Some(Asker::Cron), ..running(4) }
    }

    /// One of each kind.
    fn orders() -> [Order<&'static str>; 9] {
        [
            Order::Reload("new"),
            Order::Restart("new"),
            Order::RestartOne(Slot(1)),
            Order::Scale(Scale::To(2)),
            Order::StopOne(Slot(2)),
            Order::StartOne(Slot(2)),
            Order::Stop,
            Order::Hold,
            Order::Start,
        ]
    }

    #[test]
    fn an_app_that_runs_does_what_it_is_asked_for() {
        let done = orders().map(|order| accept(order, &running(4)));
        let expected = [
            Accepted::Reload("new"),
            Accepted::RestartAll("new"),
            Accepted::RestartOne(Slot(1)),
            Accepted::Scale(2),
            Accepted::StopOne(Slot(2)),
            Accepted::StartOne(Slot(2)),
            Accepted::Stop(Clients::Refused),
            Accepted::Stop(Clients::Wait),
            Accepted::Start,
        ];
        assert_eq!(done, expected.map(Ok));
    }

    #[test]
    fn an_app_that_is_stopped_can_only_be_stopped_and_started() {
        let done = orders().map(|order| accept(order, &in_mode(Mode::Stopped)));
        let stopped = || Err(Refused::Stopped);
        assert_eq!(done[..6], [(); 6].map(|()| stopped()));
        let stops = [Ok(Accepted::Stop(Clients::Refused)), Ok(Accepted::Stop(Clients::Wait))];
        assert_eq!(done[6..8], stops);
        assert_eq!(done[8], Ok(Accepted::Start));
        let with = accept(Order::StartWith("new"), &in_mode(Mode::Stopped));
        assert_eq!(with, Ok(Accepted::StartWith("new")));
    }

    #[test]
    fn during_a_reload_it_can_only_be_stopped() {
        let done = orders().map(|order| accept(order, &reloading()));
        let busy = || Err(Refused::Busy { by: Asker::Cron });
        assert_eq!(done[..6], [(); 6].map(|()| busy()));
        let stops = [Ok(Accepted::Stop(Clients::Refused)), Ok(Accepted::Stop(Clients::Wait))];
        assert_eq!(done[6..8], stops);
        assert_eq!(done[8], busy());
        assert_eq!(accept(Order::StartWith("new"), &reloading()), busy());
    }

    #[test]
    fn what_starts_and_ends_nothing_is_done_at_any_time() {
        let signal = "USR2".parse::<NamedSignal>().unwrap();
        for situation in [running(4), in_mode(Mode::Stopped), reloading()] {
            for slot in [None, Some(Slot(4))] {
                let orders = [Order::<()>::Signal(slot, signal), Order::Reset(slot)];
                let done = orders.map(|order| accept(order, &situation));
                assert_eq!(done, [Ok(Accepted::Signal(slot, signal)), Ok(Accepted::Reset(slot))]);
            }
            let no = Some(Slot(5));
            assert_eq!(accept(Order::<()>::Reset(no), &situation), Err(Refused::NoWorker(Slot(5))));
            assert_eq!(accept(Order::<()>::Signal(no, signal), &situation), Err(Refused::NoWorker(Slot(5))));
        }
    }

    #[test]
    fn while_clusterd_stops_nothing_is_done() {
        for mode in [Mode::Closing, Mode::Ending] {
            for order in orders().into_iter().chain([Order::Reset(None)]) {
                assert_eq!(accept(order, &in_mode(mode)), Err(Refused::Stopping));
            }
        }
    }

    #[test]
    fn numbers_of_workers_have_bounds() {
        let table = [
            (4, Scale::To(1), Ok(1)),
            (4, Scale::To(MOST_WORKERS), Ok(MOST_WORKERS)),
            (4, Scale::To(0), Err(0)),
            (4, Scale::To(MOST_WORKERS + 1), Err(1025)),
            (4, Scale::To(u32::MAX), Err(4_294_967_295)),
            (4, Scale::By(3), Ok(7)),
            (4, Scale::By(-3), Ok(1)),
            (4, Scale::By(-4), Err(0)),
            (4, Scale::By(-5), Err(-1)),
            (4, Scale::By(i32::MIN), Err(-2_147_483_644)),
        ];
        for (workers, scale, expected) in table {
            let expected = expected.map_err(|asked| Refused::OutOfRange { asked });
            let done = accept(Order::<()>::Scale(scale), &running(workers));
            assert_eq!(done, expected.map(Accepted::Scale), "{scale:?} of {workers}");
        }
    }

    #[test]
    fn only_a_worker_that_there_is_can_be_restarted_stopped_or_started() {
        for (slot, exists) in [(0, false), (1, true), (4, true), (5, false)] {
            let slot = Slot(slot);
            let orders = [
                (Order::<()>::RestartOne(slot), Accepted::RestartOne(slot)),
                (Order::StopOne(slot), Accepted::StopOne(slot)),
                (Order::StartOne(slot), Accepted::StartOne(slot)),
            ];
            for (order, accepted) in orders {
                let expected = if exists { Ok(accepted) } else { Err(Refused::NoWorker(slot)) };
                assert_eq!(accept(order, &running(4)), expected);
            }
        }
    }

    #[test]
    fn once_the_stop_has_begun_only_what_runs_is_kept_running() {
        let table = [
            (Mode::Running, Mode::Closing),
            (Mode::Closing, Mode::Closing),
            (Mode::Stopped, Mode::Ending),
            (Mode::Ending, Mode::Ending),
        ];
        for (before, after) in table {
            assert_eq!(before.closed(), after);
            assert!(after.fills_slots() == before.fills_slots());
        }
    }

    fn any_order() -> impl Strategy<Value = Order<u8>> {
        prop_oneof![
            any::<u8>().prop_map(Order::Reload),
            any::<u8>().prop_map(Order::Restart),
            (0..2000u32).prop_map(|slot| Order::RestartOne(Slot(slot))),
            (0..2000u32).prop_map(|slot| Order::StopOne(Slot(slot))),
            (0..2000u32).prop_map(|slot| Order::StartOne(Slot(slot))),
            any::<u32>().prop_map(|workers| Order::Scale(Scale::To(workers))),
            any::<i32>().prop_map(|difference| Order::Scale(Scale::By(difference))),
            Just(Order::Stop),
            Just(Order::Hold),
            any::<u8>().prop_map(Order::StartWith),
            Just(Order::Start),
            prop::option::of((0..2000u32).prop_map(Slot)).prop_map(Order::Reset),
        ]
    }

    fn any_situation() -> impl Strategy<Value = Situation> {
        let modes = [Mode::Running, Mode::Stopped, Mode::Closing, Mode::Ending];
        let by = prop_oneof![
            Just(Asker::Cron),
            (1..9i32, 0..9u32).prop_map(|(pid, uid)| Asker::Command { pid, uid })
        ];
        (prop::sample::select(modes.to_vec()), 1..=MOST_WORKERS, prop::option::of(by))
            .prop_map(|(mode, workers, reload_by)| Situation { mode, workers, reload_by })
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_can_be_done(order in any_order(), situation in any_situation()) {
            match accept(order.clone(), &situation) {
                Ok(accepted) => {
                    prop_assert!(matches!(situation.mode, Mode::Running | Mode::Stopped));
                    let goes_beside = matches!(accepted, Accepted::Stop(_) | Accepted::Reset(_));
                    prop_assert!(situation.reload_by.is_none() || goes_beside);
                    match accepted {
                        Accepted::Stop(_) | Accepted::Start | Accepted::Signal(..) => {}
                        Accepted::Reset(slot) => {
                            prop_assert!(slot.is_none_or(|slot| (1..=situation.workers).contains(&slot.0)));
                        }
                        Accepted::StartWith(configuration) => {
                            prop_assert_eq!(situation.mode, Mode::Stopped);
                            prop_assert_eq!(order, Order::StartWith(configuration));
                        }
                        Accepted::RestartOne(slot) | Accepted::StopOne(slot) | Accepted::StartOne(slot) => {
                            prop_assert!((1..=situation.workers).contains(&slot.0));
                        }
                        Accepted::Scale(workers) => prop_assert!((1..=MOST_WORKERS).contains(&workers)),
                        Accepted::Reload(configuration) => {
                            let with = Order::StartWith(configuration);
                            prop_assert!(order == Order::Reload(configuration) || order == with);
                        }
                        Accepted::RestartAll(configuration) => prop_assert_eq!(order, Order::Restart(configuration)),
                    }
                }
                Err(Refused::Stopping) => prop_assert!(matches!(situation.mode, Mode::Closing | Mode::Ending)),
                Err(Refused::Busy { by }) => prop_assert_eq!(Some(by), situation.reload_by),
                Err(Refused::Stopped) => prop_assert_eq!(situation.mode, Mode::Stopped),
                Err(Refused::NoWorker(slot)) => {
                    let of_one = [
                        Order::RestartOne(slot),
                        Order::StopOne(slot),
                        Order::StartOne(slot),
                        Order::Reset(Some(slot)),
                    ];
                    prop_assert!(of_one.contains(&order));
                }
                Err(Refused::OutOfRange { asked }) => prop_assert!(!(1..=i64::from(MOST_WORKERS)).contains(&asked)),
                Err(Refused::Configuration(_) | Refused::Upgrading) => {
                    prop_assert!(false, "that is not decided here")
                }
            }
        }

        #[test]
        fn a_stop_is_accepted_unless_clusterd_stops(situation in any_situation()) {
            let is_stopping = matches!(situation.mode, Mode::Closing | Mode::Ending);
            prop_assert_eq!(accept(Order::<()>::Stop, &situation).is_err(), is_stopping);
        }
    }
}
