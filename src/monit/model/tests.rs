use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::*;
use crate::control::api::{Accept, Traffic};
use crate::supervisor::events::Time;

/// An app with so many workers that are online.
pub(crate) fn app(name: &str, workers: u32) -> App {
    let worker = |worker| Worker {
        worker,
        state: "online".to_owned(),
        pid: i32::try_from(5000 + worker).ok(),
        started: None,
        uptime_ms: Some(61_000),
        restarts: 0,
        cpu_percent: Some(12.0),
        memory_bytes: Some(45 << 20),
        connections_taken: 0,
        connections_open: Some(0),
        moved: None,
        listening: vec![3000],
        without_shim: Vec::new(),
        last_end: None,
        last_lines: Vec::new(),
        environment: None,
    };
    App {
        name: name.to_owned(),
        namespace: "default".to_owned(),
        command: vec!["node".to_owned(), "app.js".to_owned()],
        pid: 4711,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        outdated: false,
        upgrade: None,
        started: Time(SystemTime::UNIX_EPOCH),
        uptime_ms: 61_000,
        addresses: Vec::new(),
        wanted: workers,
        stopped: false,
        ready: true,
        accept: Accept::Primary,
        asks_to_leave: true,
        reload: None,
        traffic: Some(Traffic::default()),
        workers: (1..=workers).map(worker).collect(),
    }
}

pub(in crate::monit) fn running(name: &str, workers: u32) -> Running {
    let ids = (10..10 + workers).collect();
    Running { label: name.to_owned(), word: name.to_owned(), app: app(name, workers), ids }
}

pub(in crate::monit) fn look(at: Instant, running: Vec<Running>, resting: &[&str]) -> News {
    let resting = resting.iter().map(|name| Resting { name: (*name).to_owned(), state: "stopped" }).collect();
    News::Looked(Look { at, running, resting, errors: Vec::new() })
}

pub(in crate::monit) fn key(code: KeyCode) -> News {
    News::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

pub(in crate::monit) fn typed(model: &mut Model, text: &str) -> Vec<Effect> {
    text.chars().flat_map(|letter| model.hear(key(KeyCode::Char(letter)))).collect()
}

/// Of api (one worker), shop and web (two), and old, which is stopped.
fn model() -> Model {
    let mut model = Model::default();
    let apps = vec![running("web", 2), running("api", 1), running("shop", 2)];
    let effects = model.hear(look(Instant::now(), apps, &["old"]));
    assert_eq!(effects, [Effect::Follow("api".to_owned())]);
    model
}

fn labels(model: &Model) -> Vec<&str> {
    model.shown().iter().map(|entry| entry.label()).collect()
}

fn asked(model: &Model) -> Option<String> {
    match &model.mode {
        Mode::Asking(order) => Some(order.question()),
        _ => None,
    }
}

#[test]
fn the_chosen_app_stays_chosen_while_others_come_and_go() {
    let mut model = model();
    assert_eq!(labels(&model), ["api", "old", "shop", "web"]);
    assert_eq!(
        typed(&mut model, "jj"),
        [Effect::Follow("old".to_owned()), Effect::Follow("shop".to_owned())]
    );
    let more = vec![running("shop", 1), running("about", 1), running("zoo", 1)];
    assert_eq!(model.hear(look(Instant::now(), more, &[])), []);
    assert_eq!((labels(&model), model.chosen()), (vec!["about", "shop", "zoo"], Some(1)));
    let fewer = vec![running("zoo", 1)];
    assert_eq!(model.hear(look(Instant::now(), fewer, &[])), [Effect::Follow("zoo".to_owned())]);
    assert_eq!(model.hear(look(Instant::now(), vec![], &[])), []);
    assert_eq!((model.chosen(), model.chosen_worker().is_none()), (None, true));
    typed(&mut model, "jkgGrRs+-oOle\t");
    assert_eq!(
        model.hear(look(Instant::now(), vec![running("web", 1)], &[])),
        [Effect::Follow("web".to_owned())]
    );
}

#[test]
fn an_order_is_given_once_it_is_confirmed() {
    for (press, question) in
        [("r", "reload api?"), ("R", "restart api?"), ("s", "stop api?"), ("+", "one worker more for api?")]
    {
        let mut model = model();
        assert_eq!(typed(&mut model, press), []);
        assert_eq!(asked(&model).as_deref(), Some(question));
        assert_eq!(typed(&mut model, "x"), [], "that is no answer");
        assert!(asked(&model).is_some());
        assert_eq!(typed(&mut model, "n"), []);
        assert_eq!(model.mode, Mode::Looking);
        typed(&mut model, press);
        let [Effect::Order(order)] = &typed(&mut model, "y")[..] else { panic!("no order") };
        assert_eq!((order.question().as_str(), order.word.as_str(), order.worker), (question, "api", None));
        assert_eq!(typed(&mut model, "y"), [], "it is given once");
    }
}

#[test]
fn what_is_stopped_can_be_started() {
    let mut model = model();
    typed(&mut model, "js");
    assert_eq!(asked(&model).as_deref(), Some("start old?"));
    let mut stopped = running("api", 0);
    stopped.app.stopped = true;
    stopped.app.workers = app("api", 2).workers;
    for pane in ["", "\t"] {
        let mut model = Model::default();
        model.hear(look(Instant::now(), vec![stopped.clone()], &[]));
        pane.chars().for_each(|_| drop(model.hear(key(KeyCode::Tab))));
        typed(&mut model, "s");
        assert_eq!(asked(&model).as_deref(), Some("start api?"), "no worker is started alone");
    }
}

#[test]
fn one_worker_is_meant_by_its_number() {
    let mut model = model();
    typed(&mut model, "G");
    model.hear(key(KeyCode::Tab));
    typed(&mut model, "j");
    assert_eq!(model.chosen_worker().map(|(row, worker)| (row, worker.worker)), Some((1, 2)));
    typed(&mut model, "R");
    let [Effect::Order(order)] = &typed(&mut model, "y")[..] else { panic!("no order") };
    assert_eq!((order.question().as_str(), order.word.as_str()), ("restart worker 2 of web?", "11"));
    typed(&mut model, "r");
    assert_eq!(asked(&model).as_deref(), Some("reload web?"), "workers are reloaded together");
    let mut without = running("demo", 1);
    without.ids.clear();
    let mut model = Model::default();
    model.hear(look(Instant::now(), vec![without], &[]));
    model.hear(key(KeyCode::Tab));
    typed(&mut model, "R");
    assert!(
        model.said.as_deref().is_some_and(|said| said.starts_with("an app without a name has no numbers"))
    );
}

#[test]
fn apps_are_filtered_and_sorted() {
    let mut model = model();
    assert_eq!(typed(&mut model, "/W"), [Effect::Follow("web".to_owned())]);
    assert_eq!(labels(&model), ["web"]);
    typed(&mut model, "xyz");
    assert_eq!((labels(&model).len(), model.chosen()), (0, None));
    assert_eq!(model.hear(key(KeyCode::Esc)), [Effect::Follow("api".to_owned())]);
    assert_eq!((labels(&model).len(), &model.mode), (4, &Mode::Looking));
    typed(&mut model, "O");
    assert_eq!(labels(&model), ["web", "shop", "old", "api"]);
    typed(&mut model, "Ooooo");
    assert_eq!((model.sort, labels(&model)), (Sort::Cpu, vec!["shop", "web", "api", "old"]));
    typed(&mut model, "/q");
    assert_eq!(model.filter, "q", "letters are letters");
}

#[test]
fn the_log_is_that_of_the_chosen_app() {
    let mut model = model();
    let line = |text: &str| Written { is_error: false, text: text.to_owned() };
    model.hear(News::Wrote(vec![line("one"), line("two")]));
    let shown = |model: &Model| model.log.in_sight(10).map(|line| line.text.clone()).collect::<Vec<_>>();
    assert_eq!(shown(&model), ["one", "two"]);
    typed(&mut model, "j");
    assert!(shown(&model).is_empty(), "another app");
    model.hear(News::Wrote(vec![line("late, of the one before")]));
    model.hear(News::Follows("api".to_owned()));
    assert_eq!(shown(&model).len(), 1);
    model.hear(News::Follows("old".to_owned()));
    assert!(shown(&model).is_empty());
}

#[test]
fn what_is_scrolled_back_to_stays_in_sight() {
    let mut scroll = Scroll::default();
    (0..100).for_each(|number| scroll.push(number));
    let seen = |scroll: &Scroll<i32>| scroll.in_sight(3).copied().collect::<Vec<_>>();
    assert_eq!(seen(&scroll), [97, 98, 99]);
    scroll.scroll(-10);
    assert_eq!((seen(&scroll), scroll.is_scrolled()), (vec![87, 88, 89], true));
    scroll.push(100);
    assert_eq!(seen(&scroll), [87, 88, 89]);
    scroll.scroll(isize::MIN);
    assert_eq!(seen(&scroll), [0]);
    scroll.scroll(isize::MAX);
    assert_eq!((seen(&scroll), scroll.is_scrolled()), (vec![98, 99, 100], false));
    (0..3 * i32::try_from(LINES).unwrap()).for_each(|number| scroll.push(number));
    assert_eq!(scroll.items.len(), LINES);
}

proptest! {
    /// Whatever is pressed, and whoever comes and goes, what is chosen is one of those that are shown.
    #[test]
    fn the_choice_is_always_in_sight(
        steps in prop::collection::vec((0usize..24, prop::collection::vec(0u32..4, 0..5)), 1..60)
    ) {
        let (start, mut model) = (Instant::now(), Model::default());
        let keys = ["j", "k", "g", "G", "\t", "r", "y", "n", "s", "/", "a", "o", "O", "l", "?", "+", "-", "R", "h"];
        for (second, (press, workers)) in steps.into_iter().enumerate() {
            match keys.get(press) {
                Some(&"\t") => drop(model.hear(key(KeyCode::Tab))),
                Some(letters) => drop(typed(&mut model, letters)),
                None if press == 23 => drop(model.hear(key(KeyCode::Esc))),
                None => {
                    let apps = workers.iter().enumerate().map(|(at, &workers)| running(&format!("a{at}"), workers));
                    let at = start + Duration::from_secs(second as u64);
                    model.hear(look(at, apps.collect(), &["rest"]));
                }
            }
            prop_assert_eq!(model.chosen().is_some(), !model.shown().is_empty());
            if let Some((row, worker)) = model.chosen_worker() {
                prop_assert_eq!(row + 1, worker.worker as usize);
            }
        }
    }
}
