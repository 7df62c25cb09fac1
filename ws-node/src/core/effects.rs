//! What a step does: actions in their order, what is counted, what goes on before the step ends.

use std::collections::{BTreeSet, HashMap, VecDeque};

use roost_proto::ids::{Epoch, NodeId, VnodeId};
use roost_proto::records::Record;

use crate::core::actions::Action;
use crate::core::counters::Counters;
use crate::core::keys::CallKey;

/// What a produced record was, to understand its report.
#[derive(Debug, Clone)]
pub(super) enum Token {
    Item {
        vnode: VnodeId,
        chan: u64,
        round: u32,
        n: u64,
    },
    Event {
        vnode: VnodeId,
        epoch: Epoch,
        seq: u64,
    },
    Told {
        call: CallKey,
    },
    /// Of the result with this number.
    Refused {
        result: u64,
    },
    Other,
    /// Several records for one node.
    Bundle {
        to: NodeId,
        of: Vec<Token>,
    },
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Effects {
    out: Vec<Action>,
    counters: Counters,
    tokens: HashMap<u64, Token>,
    last_token: u64,
    last_call: u64,
    /// Records for this very node: handled before the step ends.
    local: VecDeque<Record>,
    /// Homes whose confirms are to be sent when the step ends.
    touched: BTreeSet<VnodeId>,
}

impl Effects {
    pub(super) fn push(&mut self, action: Action) {
        self.out.push(action);
    }

    /// All actions of the step.
    pub(super) fn take(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.out)
    }

    pub(super) fn count(&mut self) -> &mut Counters {
        &mut self.counters
    }

    pub(super) fn counters(&self) -> Counters {
        self.counters
    }

    /// The number under which a record that is produced now is reported.
    pub(super) fn token(&mut self, what: Token) -> u64 {
        self.last_token += 1;
        self.tokens.insert(self.last_token, what);
        self.last_token
    }

    /// What a report is about.
    pub(super) fn reported(&mut self, token: u64) -> Option<Token> {
        self.tokens.remove(&token)
    }

    /// A number for a question whose answer must be told from others.
    pub(super) fn next_call(&mut self) -> u64 {
        self.last_call += 1;
        self.last_call
    }

    pub(super) fn deliver_here(&mut self, record: Record) {
        self.local.push_back(record);
    }

    pub(super) fn next_local(&mut self) -> Option<Record> {
        self.local.pop_front()
    }

    /// Something about a home changed: it is looked at before the step ends.
    pub(super) fn touch(&mut self, vnode: VnodeId) {
        self.touched.insert(vnode);
    }

    pub(super) fn take_touched(&mut self) -> BTreeSet<VnodeId> {
        std::mem::take(&mut self.touched)
    }

    /// Whether the step may end.
    pub(super) fn is_done(&self) -> bool {
        self.local.is_empty() && self.touched.is_empty()
    }
}
