//! How things look, with colours and without.

use std::io;

use ratatui::style::{Color, Modifier, Style};

use crate::logs::look::Look;

/// The looks. Nothing is told by a colour alone: states have words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Palette {
    has_colours: bool,
}

/// Whether colours are welcome on standard output, as `NO_COLOR` and `TERM` have it.
pub(in crate::monit) fn has_colours() -> bool {
    Look::of(io::stdout()) == Look::Terminal { colour: true }
}

impl Palette {
    pub(super) fn new(has_colours: bool) -> Self {
        Self { has_colours }
    }

    fn coloured(self, colour: Color) -> Style {
        if self.has_colours { Style::new().fg(colour) } else { Style::new() }
    }

    /// Of a state: good ones green, bad ones red, those that pass yellow.
    pub(super) fn state(self, state: &str) -> Style {
        self.coloured(match state {
            "online" => Color::Green,
            "errored" | "stopped" => Color::Red,
            _ => Color::Yellow,
        })
    }

    /// Of what is wrong.
    pub(super) fn bad(self) -> Style {
        self.coloured(Color::Red).add_modifier(Modifier::BOLD)
    }

    /// Of what is asked.
    pub(super) fn question(self) -> Style {
        self.coloured(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// Of a chart.
    pub(super) fn chart(self) -> Style {
        self.coloured(Color::Cyan)
    }

    /// Of the title of the part that the keys are for.
    pub(super) fn focus(self) -> Style {
        self.coloured(Color::Cyan).add_modifier(Modifier::BOLD)
    }

    /// Of what stands back.
    pub(super) fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// Of the head of a table.
    pub(super) fn head(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// Of the chosen row; fainter if the keys are for another part.
    pub(super) fn chosen(self, has_focus: bool) -> Style {
        let modifier = if has_focus { Modifier::REVERSED } else { Modifier::UNDERLINED };
        Style::new().add_modifier(modifier)
    }
}
