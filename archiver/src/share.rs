//! Who of the living archivers reads which partition.
//!
//! A matter of efficiency alone: when two believe the same partition to be theirs, the archive fences one of them.

use xxhash_rust::xxh3::xxh3_64;

/// The partitions of `topic` that fall to `id`: each goes to whom it has the highest score with (rendezvous hashing, D.
/// Thaler and C. Ravishankar 1996), so that one who comes or goes moves only the partitions it gets or had.
pub(crate) fn share(living: &[String], id: &str, topic: &str, partitions: u32) -> Vec<u32> {
    let score = |who: &str, partition: u32| {
        (xxh3_64(format!("{who}\n{topic}\n{partition}").as_bytes()), who.to_owned())
    };
    let winner = |partition: u32| living.iter().max_by_key(|who| score(who, partition));
    (0..partitions).filter(|partition| winner(*partition).is_some_and(|who| who == id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_one_reader_and_few_move() {
        let names: Vec<String> = (0..5).map(|n| format!("archiver-{n}")).collect();
        let reader = |living: &[String], partition| {
            let has = |who: &&String| share(living, who, "chat_events", 64).contains(&partition);
            let readers: Vec<_> = living.iter().filter(has).collect();
            assert_eq!(readers.len(), 1, "of partition {partition}");
            readers[0].clone()
        };
        for partition in 0..64 {
            let (before, after) = (reader(&names, partition), reader(&names[1..], partition));
            assert!(before == after || before == names[0], "only those of the one who left move");
        }
        assert!(share(&names, "somebody else", "chat_events", 64).is_empty());
        assert!(share(&[], "archiver-0", "chat_events", 64).is_empty());
    }
}
