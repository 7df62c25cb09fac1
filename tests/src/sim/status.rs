//! What users choose to show: what is acknowledged is kept (P6).

use roost_client::bare::OrderingKey;
use roost_proto::frames::{ChosenStatus, ClientFrame, SetStatus};
use roost_proto::ids::{MessageId, UserId};
use roost_ws_node::core::{Command, Input, SessionKey};

use super::World;
use super::client::name;

/// One client's choices.
#[derive(Default)]
pub(crate) struct Choice {
    said: u64,
    waits: Option<(String, ChosenStatus)>,
    /// The last one that was acknowledged, unless another was said since whose answer is not known.
    pub kept: Option<ChosenStatus>,
}

impl Choice {
    /// An answer came, or none will.
    pub(super) fn answered(&mut self, ok: bool) {
        self.kept = self.waits.take().map(|(_, status)| status).filter(|_| ok);
    }

    /// The socket or the application is gone.
    pub(super) fn cut(&mut self) {
        if self.waits.is_some() {
            self.answered(false);
        }
    }

    pub(super) fn is_about(&self, id: &str) -> bool {
        self.waits.as_ref().is_some_and(|(waits, _)| waits == id)
    }
}

impl World {
    /// One at a time, over a connection that is welcomed.
    pub(super) fn choose(&mut self, i: usize) {
        let status = [ChosenStatus::Online, ChosenStatus::Away, ChosenStatus::Invisible];
        let status = status[self.between(0, 3) as usize];
        let client = &mut self.clients[i];
        if !client.is_online() || client.choice.waits.is_some() {
            return;
        }
        client.choice.said += 1;
        let id = format!("{}-status-{}", client.label, client.choice.said);
        client.choice.waits = Some((id.clone(), status));
        if status == ChosenStatus::Invisible {
            // From when a home hears it, kept or not.
            self.watch.hidden.insert(UserId::new(name(client.user)).expect("a plain name"));
        }
        let client = &mut self.clients[i];
        let message_id = MessageId::new(&id).expect("a plain id");
        if client.sdk.is_some() {
            let frame = ClientFrame::Status(SetStatus { id: message_id.clone(), status });
            self.command_sdk(i, message_id, OrderingKey::Status, &frame);
        } else if let Some(c) = client.current() {
            let command = Command::Status(SetStatus { id: message_id, status });
            let event = Input::Command { session: SessionKey(c.key), command };
            self.tell_core(i, c.pid, self.now + 2, event);
        }
    }
}
