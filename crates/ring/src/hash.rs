//! From ids to vnodes.
//!
//! The ring is the 64-bit hash space cut into `V` equal arcs. The rule is fixed for the life of a cluster and
//! shared with other languages: `golden.json` beside this crate holds examples, computed by an independent
//! implementation (python-xxhash 4.1.0, which is the C library 0.8.4).

use roost_proto::{StreamId, UserId, VnodeId};
use xxhash_rust::xxh3::xxh3_64;

/// Most vnodes a ring may have: the largest power of two for which counts as well as ids fit 16 bits.
pub const VNODES_MAX: u32 = 32_768;

/// Why a ring cannot be built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the text of the error says it")]
pub enum RingError {
    #[error("{vnodes} vnodes: the number must be a power of two from 1 to {VNODES_MAX}")]
    Vnodes { vnodes: u32 },
}

/// Returns `vnodes` if a ring can have that many.
///
/// # Errors
/// [`RingError::Vnodes`] unless it is a power of two in `1..=32768`.
pub fn check_vnodes(vnodes: u32) -> Result<u32, RingError> {
    if vnodes.is_power_of_two() && vnodes <= VNODES_MAX {
        Ok(vnodes)
    } else {
        Err(RingError::Vnodes { vnodes })
    }
}

/// The vnode of `id` in a ring of `vnodes` arcs (see [`check_vnodes`]): the high 64 bits of
/// `xxh3_64(id) × vnodes`, a number in `0..vnodes`. Rooms carry their `#` here.
pub fn vnode(id: &str, vnodes: u32) -> VnodeId {
    debug_assert!(check_vnodes(vnodes).is_ok(), "a ring of {vnodes} vnodes");
    let arc = (u128::from(xxh3_64(id.as_bytes())) * u128::from(vnodes)) >> 64;
    // No truncation: arc < vnodes <= VNODES_MAX.
    VnodeId(arc as u16)
}

/// The vnode where `user` is at home.
pub fn vnode_of_user(user: &UserId, vnodes: u32) -> VnodeId {
    vnode(user.as_str(), vnodes)
}

/// The vnode where `room` (written without `#`) is at home. The `#` keeps it apart from a user of that name.
pub fn vnode_of_room(room: &str, vnodes: u32) -> VnodeId {
    vnode(&format!("#{room}"), vnodes)
}

/// The vnode that owns `stream`: that of its user or of its room.
pub fn vnode_of_stream(stream: &StreamId, vnodes: u32) -> VnodeId {
    let stream = stream.as_str();
    match stream.strip_prefix("room:") {
        Some(room) => vnode_of_room(room, vnodes),
        None => vnode(stream.strip_prefix("user:").unwrap_or(stream), vnodes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `golden.json` was made in Python as `h = xxhash.xxh3_64_intdigest(id)` and `h * V >> 64`, where `id`
    /// is the user or `#` + the room. The lengths reach every branch of XXH3 that an id of at most 128 bytes
    /// can.
    #[test]
    fn vnodes_are_those_of_the_c_library() {
        let golden: Vec<serde_json::Value> = serde_json::from_str(include_str!("../golden.json")).unwrap();
        assert!(golden.len() >= 25);
        for example in &golden {
            let stream = StreamId::new(example["stream"].as_str().unwrap()).unwrap();
            let (kind, id) = stream.as_str().split_once(':').unwrap();
            let hashed = if kind == "room" { format!("#{id}") } else { id.to_owned() };
            assert_eq!(xxh3_64(hashed.as_bytes()).to_string(), example["hash"].as_str().unwrap(), "{stream}");
            for (vnodes, key) in [(1024, "v1024"), (16_384, "v16384")] {
                let expected = VnodeId(example[key].as_u64().unwrap() as u16);
                assert_eq!(vnode_of_stream(&stream, vnodes), expected, "{stream}");
                match stream.user() {
                    Some(user) => assert_eq!(vnode_of_user(&user, vnodes), expected, "{stream}"),
                    None => assert_eq!(vnode_of_room(id, vnodes), expected, "{stream}"),
                }
            }
        }
    }

    #[test]
    fn doubling_the_ring_splits_every_arc_in_two() {
        for i in 0..1000 {
            let id = format!("user-{i}");
            assert_eq!(vnode(&id, 1), VnodeId(0));
            for bits in 0..15 {
                assert_eq!(vnode(&id, 2 << bits).0 / 2, vnode(&id, 1 << bits).0);
            }
        }
    }

    #[test]
    fn only_powers_of_two_up_to_the_maximum_make_a_ring() {
        for vnodes in [1, 2, 1024, 16_384, 32_768] {
            assert_eq!(check_vnodes(vnodes), Ok(vnodes));
        }
        for vnodes in [0, 3, 1000, 32_767, 65_536, u32::MAX] {
            assert_eq!(check_vnodes(vnodes), Err(RingError::Vnodes { vnodes }));
        }
    }
}
