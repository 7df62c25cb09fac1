//! One page of what was found, and where the pages beside it are.

use roost_backend::archive::{ArchivePosition, PAGE_BYTES_MAX};

/// A page as it is shown, newest first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page<K, T> {
    pub entries: Vec<(K, T)>,
    /// Asks for what is older; nothing if there is nothing.
    pub before: Option<K>,
    /// Asks for what is newer, now or later.
    pub after: Option<K>,
}

impl<K: Copy, T> Page<K, T> {
    /// Of what was `found` at `place`, newest first: `limit` entries and, if there are more, one more; or fewer, of which
    /// the last passes [`PAGE_BYTES_MAX`]. `bytes` is the size of an entry, as the archive takes it.
    pub(super) fn of(
        mut found: Vec<(K, T)>,
        place: ArchivePosition<K>,
        limit: usize,
        bytes: impl Fn(&T) -> usize,
    ) -> Self {
        let forth = matches!(place, ArchivePosition::After(_));
        // The entries nearest to the place stay.
        if forth {
            found.reverse();
        }
        let mut total = 0;
        let fits = found.iter().take(limit).take_while(|(_, entry)| {
            total += bytes(entry);
            total <= PAGE_BYTES_MAX
        });
        let keep = fits.count().max(1);
        let more = found.len() > keep;
        found.truncate(keep);
        if forth {
            found.reverse();
        }
        let (newest, oldest) = (found.first().map(|(key, _)| *key), found.last().map(|(key, _)| *key));
        let (before, after) = match place {
            // What is asked for was seen before, so it is older than this page.
            ArchivePosition::After(key) => (oldest, newest.or(Some(key))),
            ArchivePosition::Newest | ArchivePosition::Before(_) => (oldest.filter(|_| more), newest),
        };
        Self { entries: found, before, after }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(
        keys: &[u64],
        place: ArchivePosition<u64>,
        limit: usize,
        bytes: usize,
    ) -> (Vec<u64>, Option<u64>, Option<u64>) {
        let found = keys.iter().map(|key| (*key, ())).collect();
        let page = Page::of(found, place, limit, |()| bytes);
        (page.entries.iter().map(|(key, ())| *key).collect(), page.before, page.after)
    }

    #[test]
    fn a_page_names_those_beside_it() {
        assert_eq!(page(&[9, 8, 7], ArchivePosition::Newest, 2, 1), (vec![9, 8], Some(8), Some(9)));
        assert_eq!(page(&[9, 8], ArchivePosition::Newest, 2, 1), (vec![9, 8], None, Some(9)));
        assert_eq!(page(&[], ArchivePosition::Newest, 2, 1), (vec![], None, None));
        assert_eq!(page(&[7, 6], ArchivePosition::Before(8), 2, 1), (vec![7, 6], None, Some(7)));
        assert_eq!(page(&[7, 6, 5], ArchivePosition::After(4), 2, 1), (vec![6, 5], Some(5), Some(6)));
        assert_eq!(page(&[], ArchivePosition::After(9), 2, 1), (vec![], None, Some(9)));
    }

    #[test]
    fn a_page_ends_where_it_would_be_too_large_but_has_one_entry() {
        let half = PAGE_BYTES_MAX / 2;
        assert_eq!(page(&[9, 8, 7, 6], ArchivePosition::Newest, 9, half), (vec![9, 8], Some(8), Some(9)));
        assert_eq!(page(&[9, 8, 7, 6], ArchivePosition::After(5), 9, half), (vec![7, 6], Some(6), Some(7)));
        assert_eq!(page(&[9, 8], ArchivePosition::Newest, 9, 3 * half), (vec![9], Some(9), Some(9)));
        assert_eq!(
            page(&[9, 8], ArchivePosition::Newest, 9, half),
            (vec![9, 8], None, Some(9)),
            "full, and nothing more"
        );
        assert_eq!(page(&[9], ArchivePosition::Newest, 9, 3 * half), (vec![9], None, Some(9)));
    }
}
