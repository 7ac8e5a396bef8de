//! What is sent in place of the beginning of a call's bytes: pieces of them, and others between.
//!
//! It does not know what they mean.

use core::ops::Range;

/// How many pieces a changed head may have.
pub(super) const MOST_PIECES: usize = 24;

/// A part of what is sent in place of the beginning of a call's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// These of its bytes.
    Theirs(Range<usize>),
    /// Something else.
    Ours(&'static [u8]),
}

impl Piece {
    pub(crate) fn len(&self) -> usize {
        match self {
            Piece::Theirs(range) => range.len(),
            Piece::Ours(bytes) => bytes.len(),
        }
    }

    /// Without its first bytes.
    fn after(&self, skipped: usize) -> Piece {
        match self {
            Piece::Theirs(range) => Piece::Theirs((range.start + skipped).min(range.end)..range.end),
            Piece::Ours(bytes) => Piece::Ours(bytes.get(skipped..).unwrap_or_default()),
        }
    }
}

/// What is sent in place of the beginning of a call's bytes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pieces: [Piece; MOST_PIECES],
    count: usize,
    /// How many of the call's bytes the pieces stand for: what comes after is sent as it is.
    pub(crate) end: usize,
}

impl Changed {
    pub(super) fn new() -> Self {
        Self { pieces: [const { Piece::Ours(b"") }; MOST_PIECES], count: 0, end: 0 }
    }

    pub(super) fn push(&mut self, piece: Piece) -> Option<()> {
        if piece.len() > 0 {
            *self.pieces.get_mut(self.count)? = piece;
            self.count += 1;
        }
        Some(())
    }

    /// How many bytes the pieces have.
    pub(crate) fn len(&self) -> usize {
        self.pieces.iter().take(self.count).map(Piece::len).sum()
    }

    /// The pieces, without the first bytes of them.
    pub(crate) fn after(&self, mut skipped: usize) -> impl Iterator<Item = Piece> {
        self.pieces.iter().take(self.count).filter_map(move |piece| {
            let here = skipped.min(piece.len());
            skipped -= here;
            Some(piece.after(here)).filter(|rest| rest.len() > 0)
        })
    }
}
