use std::time::{Duration, Instant};

use crossterm::event::KeyCode;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::Modifier;

use super::*;
use crate::control::api::{Bucket, Histogram, Traffic};
use crate::monit::model::tests::{key, look, running, typed};
use crate::monit::model::{Happened, News, Running, Written};

/// After so many connections, of which each hundredth waited for up to ten milliseconds.
fn busy(name: &str, workers: u32, accepted: u64) -> Running {
    let mut running = running(name, workers);
    let buckets = vec![
        Bucket { seconds: 0.001, count: accepted - accepted / 50 },
        Bucket { seconds: 0.01, count: accepted },
    ];
    let queue_wait = Histogram { count: accepted, sum_seconds: 0.0, buckets };
    running.app.traffic = Some(Traffic { accepted, queue_wait, ..Traffic::default() });
    for worker in &mut running.app.workers {
        worker.connections_taken = accepted / u64::from(workers);
        worker.connections_open = Some(7);
    }
    running
}

/// A minute of three apps, of which one is being reloaded, and of one that is stopped.
fn model() -> Model {
    let (start, mut model, mut accepted) = (Instant::now(), Model::default(), 0);
    for second in 0..60 {
        accepted += 100 * (second % 10);
        let mut api = running("api", 1);
        api.app.reload = Some("a command (pid 7, user 0)".to_owned());
        api.app.workers[0].state = "waiting_restart".to_owned();
        let apps = vec![busy("web", 4, accepted), api, busy("shop-with-a-long-name", 2, second)];
        model.hear(look(start + Duration::from_secs(second), apps, &["old"]));
    }
    let event =
        |text: &str| Happened { time: "12:30:05".to_owned(), app: "web".to_owned(), text: text.to_owned() };
    model.hear(News::Happened(event("worker 2 online (pid 5002)")));
    model.hear(News::Happened(event("reload done, workers replaced: 4")));
    typed(&mut model, "G");
    let line = |is_error, text: &str| Written { is_error, text: text.to_owned() };
    model.hear(News::Wrote(vec![line(false, "GET / 200"), line(true, "\u{1b}[2Jcannot connect")]));
    model
}

fn terminal(model: &Model, width: u16, height: u16, has_colours: bool) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, model, has_colours)).unwrap();
    terminal
}

/// Without the blanks at the ends of lines.
fn drawn(model: &Model, width: u16, height: u16) -> String {
    let text = terminal(model, width, height, true).backend().to_string();
    let lines = text.lines().map(|line| line.trim_matches('"').trim_end());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_small_screen_has_what_matters_most() {
    insta::assert_snapshot!(drawn(&model(), 60, 20), @"
     clusterd apps 4, workers 7, conn/s 901
     apps: 4 ───────────────────────────────────────────────────
    name                state     workers  conn/s wait p99   cpu
    shop-with-a-long-na online        2/2     1.0   990 us   24%
    web                 online        4/4     900   5.5 ms   48%
     conn/s 900 ───────  wait p99 5.5 ms ───  cpu 48% ──────────
          ▂▅█       ▂▅█  █████████ █████████ ███████████████████
       ▂▅████    ▂▅████  █████████ █████████ ███████████████████
    ▂▅███████ ▂▅███████  █████████ █████████ ███████████████████
     workers of web: 4 ─────────────────────────────────────────
      id worker state           uptime   cpu  memory  conn/s
      10      1 online              1m   12%   45.0M     225
      11      2 online              1m   12%   45.0M     225
      12      3 online              1m   12%   45.0M     225
     log of web ────────────────────────────────────────────────
    GET / 200
     [2Jcannot connect


     ? help  q quit  tab next part  r reload  R restart  s stop
    ");
}

#[test]
fn a_usual_screen_has_charts_workers_and_the_log() {
    insta::assert_snapshot!(drawn(&model(), 80, 24), @"
     clusterd apps 4, workers 7, conn/s 901
     apps: 4 ───────────────────────────────────────────────────────────────────────
    name              state     workers  conn/s wait p99 queued   open   cpu  memory
    api               reloading     0/1       0        -      0      0   12%   45.0M
    old               stopped
    shop-with-a-long- online        2/2     1.0   990 us      0     14   24%   90.0M
    web               online        4/4     900   5.5 ms      0     28   48%  180.0M
     conn/s 900 ───────  wait p99 5.5 ms ───  cpu 48% ──────────  memory 180.0M ────
          ▂▅█       ▂▅█  █████████ █████████ ███████████████████ ███████████████████
       ▂▅████    ▂▅████  █████████ █████████ ███████████████████ ███████████████████
    ▂▅███████ ▂▅███████  █████████ █████████ ███████████████████ ███████████████████
     workers of web: 4 ─────────────────────────────────────────────────────────────
      id worker state               pid uptime restarts   cpu  memory  conn/s   open
      10      1 online             5001     1m        0   12%   45.0M     225      7
      11      2 online             5002     1m        0   12%   45.0M     225      7
      12      3 online             5003     1m        0   12%   45.0M     225      7
      13      4 online             5004     1m        0   12%   45.0M     225      7
     log of web ────────────────────────────────────────────────────────────────────
    GET / 200
     [2Jcannot connect



     ? help  q quit  tab next part  r reload  R restart  s stop  + - scale  / filter
    ");
}

#[test]
fn a_large_screen_has_all() {
    insta::assert_snapshot!(drawn(&model(), 200, 30), @"
     clusterd apps 4, workers 7, conn/s 901
     apps: 4 ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
    name                  state     workers  conn/s wait p99 queued   open   cpu  memory restarts namespace
    api                   reloading     0/1       0        -      0      0   12%   45.0M        0 default
    old                   stopped
    shop-with-a-long-name online        2/2     1.0   990 us      0     14   24%   90.0M        0 default
    web                   online        4/4     900   5.5 ms      0     28   48%  180.0M        0 default
     conn/s 900 ───────────────────────────  wait p99 5.5 ms ──────────────────────  cpu 48% ───────────────────────────────  memory 180.0M ────────────────────────  open 28 ──────────────────────────────
          ▂▅█       ▂▅█       ▂▅█       ▂▅█ █████████ █████████ █████████ █████████ ████████████████████████████████████████ ███████████████████████████████████████ ███████████████████████████████████████
       ▂▅████    ▂▅████    ▂▅████    ▂▅████ █████████ █████████ █████████ █████████ ████████████████████████████████████████ ███████████████████████████████████████ ███████████████████████████████████████
    ▂▅███████ ▂▅███████ ▂▅███████ ▂▅███████ █████████ █████████ █████████ █████████ ████████████████████████████████████████ ███████████████████████████████████████ ███████████████████████████████████████
     workers of web: 4 ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
      id worker state               pid uptime restarts   cpu  memory  conn/s   open last end
      10      1 online             5001     1m        0   12%   45.0M     225      7 -
      11      2 online             5002     1m        0   12%   45.0M     225      7 -
      12      3 online             5003     1m        0   12%   45.0M     225      7 -
      13      4 online             5004     1m        0   12%   45.0M     225      7 -
     log of web ───────────────────────────────────────────────────────────────────────────────────────────────────────────  events ────────────────────────────────────────────────────────────────────────
    GET / 200                                                                                                               12:30:05 web: worker 2 online (pid 5002)
     [2Jcannot connect                                                                                                      12:30:05 web: reload done, workers replaced: 4









     ? help  q quit  tab next part  r reload  R restart  s stop  + - scale  / filter  o sort
    ");
}

#[test]
fn the_help_covers_the_rest_and_a_question_stands_below() {
    let mut model = model();
    typed(&mut model, "?");
    insta::assert_snapshot!(drawn(&model, 60, 20), @"
     clusterd apps 4, workers 7, conn/s 901
     apps: 4 ───────────────────────────────────────────────────
    nam┌ keys ──────────────────────────────────────────────┐cpu
    sho│ up, down, j, k  the one above, the one below       │24%
    web│ page up, down   ten further                        │48%
     co│ g, G            the first, the last                │───
       │ tab             from apps to workers, to lines     │███
       │ r               reload the app                     │███
    ▂▅█│ R               restart it, or the chosen worker   │███
     wo│ s               stop it; start it if it is stopped │───
      i│ +, -            one worker more, one fewer         │
      1│ o, O            sort by another column; reverse    │
      1│ /               show only names with a text        │
      1│ l, e            log or events                      │
     lo│ esc             no; close this; forget the filter  │───
    GET│ ctrl-z          suspend; fg comes back             │
     [2│ q, ctrl-c       quit                               │
       └────────────────────────────────────────────────────┘

     ? help  q quit  tab next part  r reload  R restart  s stop
    ");
    typed(&mut model, "xr");
    assert!(drawn(&model, 60, 20).ends_with(" reload web? (y, n)"));
    typed(&mut model, "n/sh");
    assert!(drawn(&model, 60, 20).ends_with(" name has: sh_"));
    model.hear(key(KeyCode::Enter));
    model.hear(News::Did("shop: 2 workers".to_owned()));
    assert!(drawn(&model, 60, 20).ends_with(" shop: 2 workers"));
}

#[test]
fn nothing_to_show_is_said() {
    let mut model = Model::default();
    assert!(drawn(&model, 60, 20).starts_with(" clusterd looking for apps"));
    model.hear(look(Instant::now(), vec![], &[]));
    assert!(drawn(&model, 60, 20).starts_with(" clusterd no running clusterd found for this user"));
    assert!(drawn(&model, 30, 5).starts_with("at least 40 columns and 10 ro"));
}

#[test]
fn without_colours_there_are_none() {
    let colours = |has_colours| {
        let terminal = terminal(&model(), 120, 40, has_colours);
        let cells = terminal.backend().buffer().content.clone();
        let coloured = cells.iter().filter(|cell| cell.fg != ratatui::style::Color::Reset).count();
        let reversed = cells.iter().filter(|cell| cell.modifier.contains(Modifier::REVERSED)).count();
        (coloured > 0, reversed > 0)
    };
    assert_eq!(colours(true), (true, true));
    assert_eq!(colours(false), (false, true), "the chosen row is seen all the same");
}

#[test]
fn nothing_that_somebody_wrote_steers_the_terminal() {
    let mut model = model();
    model.hear(News::Happened(Happened {
        time: "\u{9b}2J".to_owned(),
        app: "\u{202e}".to_owned(),
        text: "\u{1b}c".to_owned(),
    }));
    let mut evil = running("e\u{1b}vil", 1);
    evil.app.workers[0].state = "\u{7}".to_owned();
    evil.app.workers[0].last_end = Some("\u{1b}]0;title\u{7}".to_owned());
    model.hear(look(Instant::now(), vec![evil], &[]));
    model.hear(News::Did("\u{1b}[2J".to_owned()));
    let cells = terminal(&model, 200, 60, true).backend().buffer().content.clone();
    let hidden =
        cells.iter().flat_map(|cell| cell.symbol().chars()).find(|&one| crate::controls::is_control(one));
    assert_eq!(hidden, None);
}

#[test]
fn any_size_can_be_drawn() {
    let (mut large, empty) = (model(), Model::default());
    let apps = (0..30).map(|number| running(&format!("app-{number}"), 64)).collect();
    large.hear(look(Instant::now(), apps, &[]));
    typed(&mut large, "?");
    for (width, height) in
        [(1, 1), (40, 10), (41, 19), (60, 20), (79, 21), (109, 40), (110, 12), (200, 60), (500, 200)]
    {
        for model in [&empty, &model(), &large] {
            drawn(model, width, height);
        }
    }
}
