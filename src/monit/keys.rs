//! What a key means, in each mode.
//!
//! It does nothing, and knows nothing of what is shown.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::order::Deed;

/// What whoever sits before the screen wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// To leave.
    Quit,
    /// To leave for the shell, and come back.
    Suspend,
    /// The one above or below, or so many of them further.
    Move(isize),
    /// The first.
    First,
    /// The last.
    Last,
    /// The next part of the screen.
    NextPane,
    /// The part before.
    PreviousPane,
    /// Something done to what is chosen.
    Do(Deed),
    /// Stop what runs, and start what is stopped.
    StopOrStart,
    /// Another order.
    Sort,
    /// The other way round.
    Reverse,
    /// The log in the place of the events, or the other way.
    SwitchLines,
    /// To type a filter.
    Filter,
    /// To see what keys mean.
    Help,
    /// Out of here: the question is answered with no, the filter is gone, the help is closed.
    Cancel,
}

/// What a key means while somebody looks.
pub(super) fn while_looking(key: KeyEvent) -> Option<Wish> {
    if key.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT) {
        return always(key);
    }
    Some(match key.code {
        KeyCode::Char('q') => Wish::Quit,
        KeyCode::Up | KeyCode::Char('k') => Wish::Move(-1),
        KeyCode::Down | KeyCode::Char('j') => Wish::Move(1),
        KeyCode::PageUp => Wish::Move(-PAGE),
        KeyCode::PageDown => Wish::Move(PAGE),
        KeyCode::Home | KeyCode::Char('g') => Wish::First,
        KeyCode::End | KeyCode::Char('G') => Wish::Last,
        KeyCode::Tab => Wish::NextPane,
        KeyCode::BackTab => Wish::PreviousPane,
        KeyCode::Char('r') => Wish::Do(Deed::Reload),
        KeyCode::Char('R') => Wish::Do(Deed::Restart),
        KeyCode::Char('s') => Wish::StopOrStart,
        KeyCode::Char('+' | '=') => Wish::Do(Deed::More),
        KeyCode::Char('-') => Wish::Do(Deed::Fewer),
        KeyCode::Char('o') => Wish::Sort,
        KeyCode::Char('O') => Wish::Reverse,
        KeyCode::Char('e' | 'l') => Wish::SwitchLines,
        KeyCode::Char('/') => Wish::Filter,
        KeyCode::Char('?' | 'h') | KeyCode::F(1) => Wish::Help,
        KeyCode::Esc => Wish::Cancel,
        _ => return None,
    })
}

/// How far a page goes.
const PAGE: isize = 10;

/// What holds in every mode: a terminal that sends no signals has to leave these to us.
pub(super) fn always(key: KeyEvent) -> Option<Wish> {
    if !key.modifiers.contains(KeyModifiers::CONTROL) {
        return None;
    }
    match key.code {
        KeyCode::Char('c' | 'd') => Some(Wish::Quit),
        KeyCode::Char('z') => Some(Wish::Suspend),
        _ => None,
    }
}

/// Every key, as the help has it.
pub(super) const HELP: [(&str, &str); 14] = [
    ("up, down, j, k", "the one above, the one below"),
    ("page up, down", "ten further"),
    ("g, G", "the first, the last"),
    ("tab", "from apps to workers, to lines"),
    ("r", "reload the app"),
    ("R", "restart it, or the chosen worker"),
    ("s", "stop it; start it if it is stopped"),
    ("+, -", "one worker more, one fewer"),
    ("o, O", "sort by another column; reverse"),
    ("/", "show only names with a text"),
    ("l, e", "log or events"),
    ("esc", "no; close this; forget the filter"),
    ("ctrl-z", "suspend; fg comes back"),
    ("q, ctrl-c", "quit"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode) -> KeyEvent {
        KeyEvent::new(code, KeyModifiers::NONE)
    }

    #[test]
    fn keys_mean_what_the_help_says() {
        let table = [
            (KeyCode::Char('q'), Some(Wish::Quit)),
            (KeyCode::Char('r'), Some(Wish::Do(Deed::Reload))),
            (KeyCode::Char('R'), Some(Wish::Do(Deed::Restart))),
            (KeyCode::Char('s'), Some(Wish::StopOrStart)),
            (KeyCode::Char('-'), Some(Wish::Do(Deed::Fewer))),
            (KeyCode::Up, Some(Wish::Move(-1))),
            (KeyCode::Char('x'), None),
        ];
        for (code, wish) in table {
            assert_eq!(while_looking(key(code)), wish, "{code:?}");
        }
    }

    #[test]
    fn a_raw_terminal_sends_no_signals() {
        let held = |letter| KeyEvent::new(KeyCode::Char(letter), KeyModifiers::CONTROL);
        assert_eq!(while_looking(held('c')), Some(Wish::Quit));
        assert_eq!(always(held('z')), Some(Wish::Suspend));
        assert_eq!(always(held('r')), None);
        assert_eq!(while_looking(held('r')), None, "ctrl-r is not r");
    }
}
