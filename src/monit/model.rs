//! What is shown, and what is chosen: it changes with news and keys, and says what is to be done then.
//!
//! Pure: it draws nothing, asks nobody, and gives no order itself.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::figures::Figures;
use super::keys::{self, Wish};
use super::order::{Deed, Order};
use crate::control::api::{App, Worker};
use crate::home::at_rest::Resting;

/// How many lines of logs, and how many events, can be scrolled back to.
const LINES: usize = 2_000;

/// How long a filter can be.
const FILTER: usize = 64;

/// What comes to the screen.
#[derive(Debug)]
pub(crate) enum News {
    /// All apps were looked at.
    Looked(Look),
    /// Something happened to an app.
    Happened(Happened),
    /// The log of the app with this label, from its last lines on.
    Follows(String),
    /// Lines came to that log.
    Wrote(Vec<Written>),
    /// An order was carried out, or not: what was said of it.
    Did(String),
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size, or has to be drawn anew.
    Redraw,
}

/// All apps, as they are now.
#[derive(Debug)]
pub(crate) struct Look {
    /// When the answers were there.
    pub at: Instant,
    /// Those that run.
    pub running: Vec<Running>,
    /// Those that do not.
    pub resting: Vec<Resting>,
    /// Why some may be missing.
    pub errors: Vec<String>,
}

/// An app that runs.
#[derive(Clone, Debug)]
pub(crate) struct Running {
    /// Its name; with the pid of its clusterd, where several have the same.
    pub label: String,
    /// The word that means it to every verb.
    pub word: String,
    /// The app.
    pub app: App,
    /// The numbers that its workers have in the home folder, in their order.
    pub ids: Vec<u32>,
}

/// An event, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Happened {
    /// The time of day.
    pub time: String,
    /// The app.
    pub app: String,
    /// What happened.
    pub text: String,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Whether a worker has written it to standard error.
    pub is_error: bool,
    /// The line.
    pub text: String,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Leave.
    Quit,
    /// Leave for the shell, until it continues this process.
    Suspend,
    /// Show the log of this app, if it is one of the home folder. The label comes back with it.
    Follow(String),
    /// Have it done.
    Order(Order),
}

/// Which part of the screen the keys are for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Apps,
    Workers,
    Lines,
}

/// Which lines are shown where there is no room for both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Lines {
    #[default]
    Log,
    Events,
}

/// What the keys are for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Looking,
    /// This is done if the answer is yes.
    Asking(Order),
    /// The filter is typed.
    Filtering,
    /// The help covers the screen.
    Help,
}

/// By what apps are sorted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    #[default]
    Name,
    Connections,
    Wait,
    Open,
    Cpu,
    Memory,
}

impl Sort {
    const ALL: [Sort; 6] = [Sort::Name, Sort::Connections, Sort::Wait, Sort::Open, Sort::Cpu, Sort::Memory];

    fn next(self) -> Self {
        let at = Self::ALL.iter().position(|&sort| sort == self).unwrap_or_default();
        Self::ALL[(at + 1) % Self::ALL.len()]
    }
}

/// An app, with what is known of it.
#[derive(Debug)]
pub(super) enum Entry {
    /// It runs.
    Running { running: Box<Running>, figures: Figures },
    /// It does not.
    Resting(Resting),
}

impl Entry {
    pub(super) fn label(&self) -> &str {
        match self {
            Entry::Running { running, .. } => &running.label,
            Entry::Resting(resting) => &resting.name,
        }
    }

    fn figure(&self, sort: Sort) -> f64 {
        let figures = match self {
            _ if sort == Sort::Name => return 0.0,
            Entry::Running { figures, .. } => figures,
            Entry::Resting(_) => return -1.0,
        };
        let now = figures.now();
        let figure = match sort {
            Sort::Name => None,
            Sort::Connections => now.connections,
            Sort::Wait => now.wait,
            Sort::Open => now.open.map(|open| open as f64),
            Sort::Cpu => Some(now.cpu),
            Sort::Memory => Some(now.memory as f64),
        };
        figure.unwrap_or(-0.5)
    }
}

/// The last of something, and how far it is scrolled back.
#[derive(Debug)]
pub(super) struct Scroll<T> {
    items: VecDeque<T>,
    /// How many of the last ones are below the screen.
    back: usize,
}

impl<T> Default for Scroll<T> {
    fn default() -> Self {
        Self { items: VecDeque::new(), back: 0 }
    }
}

impl<T> Scroll<T> {
    /// What is looked at stays where it is.
    fn push(&mut self, item: T) {
        self.items.push_back(item);
        if self.back > 0 {
            self.back += 1;
        }
        if self.items.len() > LINES {
            self.items.pop_front();
        }
        self.back = self.back.min(self.items.len().saturating_sub(1));
    }

    fn scroll(&mut self, by: isize) {
        let most = self.items.len().saturating_sub(1);
        self.back = self.back.saturating_add_signed(by.saturating_neg()).min(most);
    }

    /// The last `rows` of them that are in sight, the oldest first.
    pub(super) fn in_sight(&self, rows: usize) -> impl Iterator<Item = &T> {
        let end = self.items.len() - self.back;
        self.items.range(end.saturating_sub(rows)..end)
    }

    pub(super) fn is_scrolled(&self) -> bool {
        self.back > 0
    }
}

/// What is shown and chosen.
#[derive(Debug, Default)]
pub(super) struct Model {
    entries: Vec<Entry>,
    /// The label of the chosen app.
    chosen: Option<String>,
    /// The row of the chosen worker.
    worker: usize,
    /// The app whose log is shown.
    followed: Option<String>,
    pub(super) pane: Pane,
    pub(super) lines: Lines,
    pub(super) mode: Mode,
    pub(super) sort: Sort,
    pub(super) is_reversed: bool,
    pub(super) filter: String,
    pub(super) events: Scroll<Happened>,
    pub(super) log: Scroll<Written>,
    /// What was said last.
    pub(super) said: Option<String>,
    /// Why some apps may be missing.
    pub(super) errors: Vec<String>,
    /// Whether there was a look.
    pub(super) has_looked: bool,
}

impl Model {
    /// Takes it in. What is to be done then.
    pub(super) fn hear(&mut self, news: News) -> Vec<Effect> {
        match news {
            News::Looked(look) => return self.look(look),
            News::Happened(happened) => self.events.push(happened),
            News::Follows(label) if self.followed.as_ref() == Some(&label) => self.log = Scroll::default(),
            News::Follows(_) | News::Redraw => {}
            News::Wrote(lines) => lines.into_iter().for_each(|line| self.log.push(line)),
            News::Did(what) => self.said = Some(what),
            News::Key(key) => return self.press(key),
        }
        Vec::new()
    }

    /// The apps that are shown, in their order.
    pub(super) fn shown(&self) -> Vec<&Entry> {
        self.entries.iter().filter(|entry| self.is_shown(entry)).collect()
    }

    fn is_shown(&self, entry: &Entry) -> bool {
        entry.label().to_lowercase().contains(&self.filter.to_lowercase())
    }

    /// Every app, shown or not.
    pub(super) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Which of those that are shown is chosen.
    pub(super) fn chosen(&self) -> Option<usize> {
        let chosen = self.chosen.as_deref()?;
        self.shown().iter().position(|entry| entry.label() == chosen)
    }

    /// The chosen app.
    pub(super) fn chosen_entry(&self) -> Option<&Entry> {
        self.chosen().map(|at| self.shown()[at])
    }

    /// The row of the chosen worker of the chosen app, and that worker.
    pub(super) fn chosen_worker(&self) -> Option<(usize, &Worker)> {
        let Entry::Running { running, .. } = self.chosen_entry()? else { return None };
        let row = self.worker.min(running.app.workers.len().checked_sub(1)?);
        Some((row, &running.app.workers[row]))
    }

    fn look(&mut self, look: Look) -> Vec<Effect> {
        let mut before: BTreeMap<String, Figures> = std::mem::take(&mut self.entries)
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Running { running, figures } => Some((running.label, figures)),
                Entry::Resting(_) => None,
            })
            .collect();
        let running = look.running.into_iter().map(|running| {
            let mut figures = before.remove(&running.label).unwrap_or_default();
            figures.add(&running.app, look.at);
            Entry::Running { running: Box::new(running), figures }
        });
        self.entries = running.chain(look.resting.into_iter().map(Entry::Resting)).collect();
        (self.errors, self.has_looked) = (look.errors, true);
        self.put_in_order();
        self.choose_something()
    }

    fn put_in_order(&mut self) {
        let (sort, is_reversed) = (self.sort, self.is_reversed);
        // Names from the first on, figures from the greatest on.
        self.entries.sort_by(|one, other| {
            let by_figure = other.figure(sort).total_cmp(&one.figure(sort));
            let order = by_figure.then_with(|| one.label().cmp(other.label()));
            if is_reversed { order.reverse() } else { order }
        });
    }

    /// Whoever is chosen has to be in sight. The log is that of who is chosen.
    fn choose_something(&mut self) -> Vec<Effect> {
        if self.chosen().is_none() {
            let first = self.shown().first().map(|entry| entry.label().to_owned());
            (self.chosen, self.worker) = (first, 0);
        }
        if self.followed == self.chosen {
            return Vec::new();
        }
        self.followed.clone_from(&self.chosen);
        self.log = Scroll::default();
        self.chosen.iter().cloned().map(Effect::Follow).collect()
    }

    fn press(&mut self, key: KeyEvent) -> Vec<Effect> {
        self.said = None;
        match keys::always(key) {
            Some(Wish::Suspend) => return vec![Effect::Suspend],
            Some(_) => return vec![Effect::Quit],
            None => {}
        }
        match std::mem::take(&mut self.mode) {
            Mode::Looking => keys::while_looking(key).map(|wish| self.fulfil(wish)).unwrap_or_default(),
            Mode::Asking(order) => self.answer(order, key),
            Mode::Filtering => self.type_filter(key),
            // Any key closes it.
            Mode::Help => Vec::new(),
        }
    }

    fn answer(&mut self, order: Order, key: KeyEvent) -> Vec<Effect> {
        match key.code {
            KeyCode::Char('y' | 'Y') | KeyCode::Enter => {
                self.said = Some(format!("{} ...", order.question().trim_end_matches('?')));
                return vec![Effect::Order(order)];
            }
            KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc => {}
            _ => self.mode = Mode::Asking(order),
        }
        Vec::new()
    }

    fn type_filter(&mut self, key: KeyEvent) -> Vec<Effect> {
        self.mode = Mode::Filtering;
        match key.code {
            KeyCode::Enter => self.mode = Mode::Looking,
            KeyCode::Esc => {
                self.filter.clear();
                self.mode = Mode::Looking;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter)
                if self.filter.chars().count() < FILTER
                    && !key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) =>
            {
                self.filter.push(letter);
            }
            _ => {}
        }
        self.choose_something()
    }

    fn fulfil(&mut self, wish: Wish) -> Vec<Effect> {
        match wish {
            Wish::Quit => return vec![Effect::Quit],
            Wish::Suspend => return vec![Effect::Suspend],
            Wish::Move(by) => return self.go(by),
            Wish::First => return self.go(isize::MIN),
            Wish::Last => return self.go(isize::MAX),
            Wish::NextPane | Wish::PreviousPane => self.pane = self.pane_beside(wish == Wish::NextPane),
            Wish::Do(deed) => self.ask(deed),
            Wish::StopOrStart => self.ask(if self.is_stopped() { Deed::Start } else { Deed::Stop }),
            Wish::Sort => {
                self.sort = self.sort.next();
                self.put_in_order();
            }
            Wish::Reverse => {
                self.is_reversed = !self.is_reversed;
                self.put_in_order();
            }
            Wish::SwitchLines => {
                self.lines = if self.lines == Lines::Log { Lines::Events } else { Lines::Log };
            }
            Wish::Filter => self.mode = Mode::Filtering,
            Wish::Help => self.mode = Mode::Help,
            Wish::Cancel => {
                self.filter.clear();
                return self.choose_something();
            }
        }
        Vec::new()
    }

    fn pane_beside(&self, is_next: bool) -> Pane {
        match (self.pane, is_next) {
            (Pane::Apps, true) | (Pane::Lines, false) => Pane::Workers,
            (Pane::Workers, true) | (Pane::Apps, false) => Pane::Lines,
            (Pane::Lines, true) | (Pane::Workers, false) => Pane::Apps,
        }
    }

    fn go(&mut self, by: isize) -> Vec<Effect> {
        match self.pane {
            Pane::Apps => {
                let labels: Vec<_> = self.shown().iter().map(|entry| entry.label().to_owned()).collect();
                let to = moved(self.chosen().unwrap_or_default(), by, labels.len());
                if let Some(label) =
                    labels.into_iter().nth(to).filter(|label| Some(label) != self.chosen.as_ref())
                {
                    (self.chosen, self.worker) = (Some(label), 0);
                }
                return self.choose_something();
            }
            Pane::Workers => {
                if let Some((row, _)) = self.chosen_worker()
                    && let Some(Entry::Running { running, .. }) = self.chosen_entry()
                {
                    self.worker = moved(row, by, running.app.workers.len());
                }
            }
            Pane::Lines => match self.lines {
                Lines::Log => self.log.scroll(by),
                Lines::Events => self.events.scroll(by),
            },
        }
        Vec::new()
    }

    /// Whether what an order would be for, an app or a worker, is stopped.
    fn is_stopped(&self) -> bool {
        match (self.chosen_entry(), self.chosen_worker()) {
            (Some(Entry::Running { running, .. }), _) if running.app.stopped => true,
            (Some(Entry::Running { .. }), Some((_, worker))) if self.pane == Pane::Workers => {
                worker.state == "stopped"
            }
            (Some(Entry::Running { .. }), _) => false,
            _ => true,
        }
    }

    fn ask(&mut self, deed: Deed) {
        match self.order(deed) {
            Ok(order) => self.mode = Mode::Asking(order),
            Err(why) => self.said = Some(why),
        }
    }

    fn order(&self, deed: Deed) -> Result<Order, String> {
        let entry = self.chosen_entry().ok_or("there is no app")?;
        let label = entry.label().to_owned();
        let running = match entry {
            Entry::Running { running, .. } => running,
            Entry::Resting(_) => return Ok(Order { deed, word: label.clone(), label, worker: None }),
        };
        // A worker of an app that is stopped cannot be started alone.
        if self.pane != Pane::Workers || !deed.is_for_one() || running.app.stopped {
            return Ok(Order { deed, label, word: running.word.clone(), worker: None });
        }
        let (_, worker) = self.chosen_worker().ok_or("there is no worker")?;
        let id = worker.worker.checked_sub(1).and_then(|at| running.ids.get(at as usize));
        let id = id.ok_or("an app without a name has no numbers by which one worker could be meant")?;
        Ok(Order { deed, label, word: id.to_string(), worker: Some(worker.worker) })
    }
}

/// So far from here, and no further than there are any.
fn moved(from: usize, by: isize, of: usize) -> usize {
    from.saturating_add_signed(by).min(of.saturating_sub(1))
}

#[cfg(test)]
pub(crate) mod tests;
