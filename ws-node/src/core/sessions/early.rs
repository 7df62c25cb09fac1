//! What sessions say before `welcome`, which is the first frame: kept until then, bounded in bytes by session, by user
//! and by node. What finds no room keeps its place without what it carried, and is refused in its turn: a refusal can
//! only be told after `welcome`, and what was said later to the same stream must find it there (rule 1).

use std::collections::{BTreeMap, VecDeque};

use roost_proto::ids::UserId;
use roost_service::permits::has_place;

use crate::core::command::Command;

/// Of one session: four of the largest frames.
const SESSION_BYTES_MAX: usize = 256 * 1024;

/// Of all sessions of a user: sixteen of the largest frames.
const USER_BYTES_MAX: usize = 1024 * 1024;

/// Of all sessions of a node, of which a user has at most as much as is free, and as much again for the first command
/// of who has none there.
const NODE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What is said of what found no room.
pub(crate) const TOO_MUCH_EARLY: &str = "too many bytes before welcome";

/// What one session said before `welcome`.
#[derive(Debug, Default)]
pub(crate) struct Early {
    /// With whether it is to be refused.
    commands: VecDeque<(Command, bool)>,
    bytes: usize,
}

impl Early {
    pub(crate) fn len(&self) -> usize {
        self.commands.len()
    }
}

/// What all of them keep.
#[derive(Debug, Default)]
pub(crate) struct EarlyBytes {
    users: BTreeMap<UserId, usize>,
    node: usize,
}

impl EarlyBytes {
    /// Keeps a command, or its place.
    pub(crate) fn keep(&mut self, user: &UserId, early: &mut Early, mut command: Command) {
        let bulk = command.bulk();
        let bytes = bulk.bytes();
        let mine = self.users.get(user).copied().unwrap_or_default();
        let has_room = early.bytes + bytes <= SESSION_BYTES_MAX
            && mine + bytes <= USER_BYTES_MAX
            && has_place(mine, self.node, NODE_BYTES_MAX);
        let refused = bytes > 0 && !has_room;
        if refused {
            bulk.shed();
        } else if bytes > 0 {
            *self.users.entry(user.clone()).or_default() += bytes;
            self.node += bytes;
            early.bytes += bytes;
        }
        early.commands.push_back((command, refused));
    }

    /// They are done, or their session is gone.
    pub(crate) fn take(&mut self, user: &UserId, early: &mut Early) -> VecDeque<(Command, bool)> {
        let Early { commands, bytes } = std::mem::take(early);
        self.node -= bytes;
        if let Some(mine) = self.users.get_mut(user) {
            *mine -= bytes;
            if *mine == 0 {
                self.users.remove(user);
            }
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::frames::AppEvent;
    use roost_proto::ids::MessageId;
    use serde_json::value::RawValue;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    fn large(n: usize) -> Command {
        let data = RawValue::from_string(format!("\"{}\"", "x".repeat(60_000))).unwrap();
        Command::Event(AppEvent { id: MessageId::new(format!("e{n}")).unwrap(), data })
    }

    /// How many of so many large ones are refused.
    fn refused(all: &mut EarlyBytes, of: &str, early: &mut Early, n: usize) -> usize {
        (0..n).for_each(|n| all.keep(&user(of), early, large(n)));
        early.commands.iter().filter(|(_, refused)| *refused).count()
    }

    #[test]
    fn what_finds_no_room_keeps_its_place_and_nothing_else() {
        let (mut all, mut early) = (EarlyBytes::default(), Early::default());
        assert_eq!(refused(&mut all, "eve", &mut early, 256), 252);
        let kept: usize = early.commands.iter_mut().map(|(command, _)| command.bulk().bytes()).sum();
        assert!(kept < SESSION_BYTES_MAX + 256 * 4 && early.len() == 256);
        let again = all.take(&user("eve"), &mut early);
        assert!(again.iter().map(|(_, refused)| *refused).is_sorted() && again.len() == 256);
        assert!(all.users.is_empty() && all.node == 0 && early.len() == 0);
    }

    #[test]
    fn sixteen_sessions_are_one_user_and_many_users_leave_room_for_one_more() {
        let mut all = EarlyBytes::default();
        let mut sessions = vec![];
        for n in 0..40 * 16 {
            let mut early = Early::default();
            refused(&mut all, &format!("eve{}", n / 16), &mut early, 4);
            sessions.push(early);
        }
        assert!(all.users.values().all(|bytes| *bytes <= USER_BYTES_MAX));
        assert!(all.node <= NODE_BYTES_MAX + 40 * 60_100);
        assert_eq!(refused(&mut all, "alice", &mut Early::default(), 1), 0);
    }
}
