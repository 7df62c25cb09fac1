//! How many sessions a user may have, and who gives way to a newcomer.

/// What happens to a newcomer for whom there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionPolicy {
    /// It is closed.
    #[default]
    Reject,
    /// It is taken, and the user's oldest session is closed.
    DropOldest,
    /// A device has one session, the newest, whether there is room or not; beyond the limit a newcomer is closed.
    OnePerDevice,
}

/// Whom a newcomer replaces: of `staying`, oldest first, each with whether it is of the newcomer's device. `None` if
/// the newcomer is the one to go.
///
/// At the limit an earlier session of the same device goes first, under every policy: a device that lost its network
/// comes back before its old socket is known to be dead, and must not be locked out, or throw out another, for that.
pub(super) fn leaving<T: Copy>(staying: &[(T, bool)], max: usize, policy: SessionPolicy) -> Option<Vec<T>> {
    let own = staying.iter().filter(|(_, own)| *own).map(|(key, _)| *key);
    if policy == SessionPolicy::OnePerDevice {
        let own: Vec<T> = own.collect();
        return (staying.len() - own.len() < max).then_some(own);
    }
    let others = staying.iter().filter(|(_, own)| !*own).map(|(key, _)| *key);
    let excess = (staying.len() + 1).saturating_sub(max);
    let candidates: Vec<T> = match policy {
        SessionPolicy::DropOldest => own.chain(others).collect(),
        SessionPolicy::Reject | SessionPolicy::OnePerDevice => own.collect(),
    };
    (candidates.len() >= excess).then(|| candidates[..excess].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use SessionPolicy::*;

    #[test]
    fn who_leaves_follows_from_the_policy_and_the_device_that_comes() {
        let other = |key: u32| (key, false);
        let own = |key: u32| (key, true);
        for (staying, policy, wanted) in [
            (vec![], Reject, Some(vec![])),
            (vec![other(1), own(2)], Reject, Some(vec![])),
            (vec![other(1), other(2), other(3)], Reject, None),
            (vec![other(1), own(2), own(3)], Reject, Some(vec![2])),
            (vec![other(1), own(2)], DropOldest, Some(vec![])),
            (vec![other(1), other(2), other(3)], DropOldest, Some(vec![1])),
            (vec![other(1), own(2), other(3)], DropOldest, Some(vec![2])),
            (vec![other(1), other(2), other(3), own(4), other(5)], DropOldest, Some(vec![4, 1, 2])),
            (vec![other(1), own(2)], OnePerDevice, Some(vec![2])),
            (vec![other(1), other(2), other(3)], OnePerDevice, None),
            (vec![other(1), other(2), own(3), own(4)], OnePerDevice, Some(vec![3, 4])),
        ] {
            assert_eq!(leaving(&staying, 3, policy), wanted, "{staying:?} {policy:?}");
        }
    }
}
