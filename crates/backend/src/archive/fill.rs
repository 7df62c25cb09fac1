//! How full a page is while it is read: one rule for every back end, so that none reads much more than it shows.

use super::PAGE_BYTES_MAX;

/// Rows that a database hands over first, while nothing is known of their size: the largest, 64 KiB each, are a
/// megabyte together, a page.
const FIRST_PIECE: usize = 16;
/// Rows of a later piece, of which so many would fit if they were like those before: should they be the largest after
/// all, two megabytes are read in vain. A page of 500 small ones comes in seventeen pieces.
const PIECE_MAX: usize = 32;

/// What is in a page so far.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fill {
    entries: usize,
    bytes: usize,
}

impl Fill {
    /// Full is what has passed [`PAGE_BYTES_MAX`] and has two entries: the last says that there is more.
    pub(crate) fn is_full(self) -> bool {
        self.entries >= 2 && self.bytes > PAGE_BYTES_MAX
    }

    pub(crate) fn add(&mut self, bytes: usize) {
        self.entries += 1;
        self.bytes += bytes;
    }

    /// How many rows to ask for next, of no more than `left`.
    pub(crate) fn piece(self, left: usize) -> usize {
        let Some(mean) = self.bytes.checked_div(self.entries) else { return FIRST_PIECE.min(left) };
        let fit = PAGE_BYTES_MAX.saturating_sub(self.bytes) / mean.max(1);
        // One more than fits ends the page.
        (fit + 1).min(PIECE_MAX).min(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fills a page from rows of these sizes, as a back end does: the entries of the page, and the bytes read for it.
    fn fill(sizes: &[usize]) -> (usize, usize) {
        let (mut fill, mut rest, mut read) = (Fill::default(), sizes, 0);
        while !fill.is_full() && !rest.is_empty() {
            let (piece, after) = rest.split_at(fill.piece(rest.len()));
            read += piece.iter().sum::<usize>();
            rest = after;
            for size in piece {
                if fill.is_full() {
                    break;
                }
                fill.add(*size);
            }
        }
        (fill.entries, read)
    }

    #[test]
    fn a_page_ends_with_the_entry_that_passes_the_bound() {
        let half = PAGE_BYTES_MAX / 2;
        assert_eq!(fill(&[half, half, 1, 1]).0, 3, "two fill it to the byte");
        assert_eq!(fill(&[half, half + 1, 1, 1]).0, 2);
        assert_eq!(fill(&[3 * half, 1, 1]).0, 2, "there is one, however large, and the next");
        assert_eq!(fill(&[1, 3 * half, 1]).0, 2);
        assert_eq!(fill(&[half]).0, 1);
        assert_eq!(fill(&[]).0, 0);
    }

    #[test]
    fn what_is_read_in_vain_is_bounded() {
        const LARGEST: usize = 64 * 1024;
        let bound = PAGE_BYTES_MAX + (PIECE_MAX + 1) * LARGEST;
        assert!(fill(&[LARGEST; 501]).1 <= PAGE_BYTES_MAX + 2 * LARGEST, "a page and what ends it");
        assert_eq!(fill(&[100; 501]), (501, 50_100));
        for small in 0..501 {
            let mut sizes = vec![1; small];
            sizes.resize(501, LARGEST);
            assert!(fill(&sizes).1 <= bound, "{small} small ones first");
        }
    }
}
