//! The terminal: taken, drawn on, and left as it was, however the program ends.
//!
//! What is drawn is the view's, and what a key means the model's.

use std::io::{self, stdout};
use std::mem::ManuallyDrop;
use std::panic;
use std::sync::Once;
use std::thread;

use crossterm::cursor::Show;
use crossterm::event::{self, Event, KeyEventKind};
use crossterm::execute;
use crossterm::terminal::EnterAlternateScreen;
use ratatui::layout::Rect;
use ratatui::{DefaultTerminal, TerminalOptions, Viewport};
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::model::{Effect, Model, News};
use super::view;

/// Why it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Somebody has quit.
    ByKey,
    /// This signal came; SIGHUP, if the terminal is gone.
    BySignal(u8),
}

/// A terminal that is ours for as long as this lives.
struct Screen {
    /// Never dropped: it would print to a terminal that is gone, and panic.
    terminal: ManuallyDrop<DefaultTerminal>,
    has_colours: bool,
}

impl Screen {
    fn open() -> io::Result<Self> {
        show_cursor_at_panic();
        let has_colours = view::has_colours();
        Ok(Self { terminal: ManuallyDrop::new(take()?), has_colours })
    }

    /// Gives the terminal back to the shell until that continues this process.
    fn suspend(&mut self) -> io::Result<()> {
        leave();
        kill_process(getpid(), Signal::TSTP)?;
        self.take_again()
    }

    /// Whoever has stopped this process, the shell has had the terminal meanwhile.
    fn take_again(&mut self) -> io::Result<()> {
        leave();
        self.terminal = ManuallyDrop::new(take()?);
        Ok(())
    }

    fn draw(&mut self, model: &Model) -> io::Result<()> {
        self.terminal.draw(|frame| view::draw(frame, model, self.has_colours))?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

/// A serial line does not know its size, nor does a terminal that was given none: it is taken for the usual one then.
fn take() -> io::Result<DefaultTerminal> {
    if crossterm::terminal::size().is_ok_and(|(columns, rows)| columns > 0 && rows > 0) {
        return ratatui::try_init();
    }
    execute!(stdout(), EnterAlternateScreen)?;
    ratatui::try_init_with_options(TerminalOptions { viewport: Viewport::Fixed(Rect::new(0, 0, 80, 24)) })
}

/// A terminal that is gone needs nothing.
fn leave() {
    let _ = ratatui::try_restore();
    let _ = execute!(stdout(), Show);
}

/// ratatui's own hook leaves the screen; the cursor it shows only when the terminal is dropped, which never comes where a
/// panic aborts.
fn show_cursor_at_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let _ = execute!(stdout(), Show);
            hook(panic);
        }));
    });
}

/// Shows what comes until somebody quits or a signal comes. Orders and the choice of a log go to `act`.
///
/// # Errors
/// The terminal cannot be used.
pub(crate) async fn run(mut news: mpsc::Receiver<News>, mut act: impl FnMut(Effect)) -> io::Result<Ended> {
    let mut screen = Screen::open()?;
    let (mut model, mut keys) = (Model::default(), read_keys()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    let mut goes_on = signal(SignalKind::from_raw(Signal::CONT.as_raw()))?;
    loop {
        // Nobody looks any more: the terminal is gone.
        if screen.draw(&model).is_err() {
            return Ok(Ended::BySignal(1));
        }
        let first = tokio::select! {
            _ = terminate.recv() => return Ok(Ended::BySignal(15)),
            _ = interrupt.recv() => return Ok(Ended::BySignal(2)),
            _ = hang_up.recv() => return Ok(Ended::BySignal(1)),
            _ = quit.recv() => return Ok(Ended::BySignal(3)),
            _ = goes_on.recv() => {
                screen.take_again()?;
                None
            }
            key = keys.recv() => match key {
                Some(event) => of_terminal(event),
                None => return Ok(Ended::BySignal(1)),
            },
            Some(news) = news.recv() => Some(news),
        };
        // All that has come by now is drawn at once: a worker may write faster than a terminal shows.
        let all = first.into_iter().chain(std::iter::from_fn(|| news.try_recv().ok()).take(AT_ONCE));
        for effect in all.flat_map(|news| model.hear(news)).collect::<Vec<_>>() {
            match effect {
                Effect::Quit => return Ok(Ended::ByKey),
                Effect::Suspend => screen.suspend()?,
                other => act(other),
            }
        }
    }
}

/// What comes from the terminal, read by a thread of its own: the end of a terminal that is gone is read again and again there,
/// and nothing else would be heard.
///
/// # Errors
/// No thread can be started.
fn read_keys() -> io::Result<mpsc::Receiver<Event>> {
    let (keys, read) = mpsc::channel(KEYS);
    thread::Builder::new().spawn(move || {
        while let Ok(event) = event::read() {
            if keys.blocking_send(event).is_err() {
                return;
            }
        }
    })?;
    Ok(read)
}

/// How many keys wait to be understood.
const KEYS: usize = 64;

/// How much is taken in before it is drawn.
const AT_ONCE: usize = 256;

fn of_terminal(event: Event) -> Option<News> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => Some(News::Key(key)),
        Event::Resize(..) => Some(News::Redraw),
        _ => None,
    }
}
