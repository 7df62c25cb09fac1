//! A page of a stream's hot window, newest first.

use bytes::Bytes;
use roost_proto::ids::{Cursor, Epoch, Offset};

/// What [`Store::page`](super::Store::page) answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The vnode's present one.
    pub generation: Epoch,
    /// Newest first.
    pub entries: Vec<(Offset, Bytes)>,
    /// What follows is in the hot window too.
    pub more: bool,
    /// The hot window ends with this page, and the stream did not begin there.
    pub older: bool,
}

impl Page {
    /// Of a stream whose window begins with `first` (if there is one) and which was last written at `tail`.
    pub(crate) fn of(
        generation: Epoch,
        tail: Option<Cursor>,
        first: Option<Offset>,
        before: Option<Cursor>,
        entries: Vec<(Offset, Bytes)>,
    ) -> Self {
        let elsewhere = |place: Option<Cursor>| place.is_some_and(|p| p.generation != generation);
        if elsewhere(tail) || elsewhere(before) {
            return Self { generation, older: true, ..Self::default() };
        }
        let more = entries.last().is_some_and(|(last, _)| Some(*last) > first);
        let began_here = first.map_or(tail.is_none(), |first| first == Offset(1));
        Self { generation, entries, more, older: !more && !began_here }
    }

    /// What asks for the next page, if there is one in the window.
    pub fn before(&self) -> Option<Cursor> {
        let last = self.entries.last().filter(|_| self.more)?;
        Some(Cursor::new(self.generation, last.0))
    }
}
