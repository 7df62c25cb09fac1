//! Publish and subscribe of a simulated cluster: in order for each process, and lost at times without a word.

use bytes::Bytes;
use roost_backend::store::LiveChannel;
use roost_ws_node::core::Input;

use super::{Happening, World};

/// How often a publication is lost on the way to one process, in per cent.
const LOST: f64 = 3.0;

impl World {
    pub(crate) fn follow(&mut self, pid: usize, channel: LiveChannel, ask: u64) {
        let cut = self.now < self.store_down_until.max(self.processes[pid].no_store_until);
        let refused = cut || self.faulty() && self.chance(3.0);
        let done = !refused;
        if done {
            self.followers.entry(channel.clone()).or_default().insert(pid);
        }
        let at = self.now + self.between(1, 6);
        self.at(at, Happening::ToCore { pid, event: Box::new(Input::Followed { channel, ask, done }) });
    }

    pub(crate) fn unfollow(&mut self, pid: usize, channel: &LiveChannel) {
        if let Some(followers) = self.followers.get_mut(channel) {
            followers.remove(&pid);
        }
    }

    pub(crate) fn publish(&mut self, channel: &LiveChannel, payload: &Bytes) {
        for pid in self.followers.get(channel).cloned().unwrap_or_default() {
            let cut = self.now < self.store_down_until.max(self.processes[pid].no_store_until);
            if cut || (self.faulty() && self.chance(LOST)) {
                continue;
            }
            // One connection: nothing overtakes.
            let heard = self.processes[pid].heard_at.max(self.now + self.between(1, 8));
            self.processes[pid].heard_at = heard;
            let event = Box::new(Input::Live { channel: channel.clone(), payload: payload.clone() });
            self.at(heard, Happening::ToCore { pid, event });
        }
    }
}
