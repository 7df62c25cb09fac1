//! The control plane's calls: ring, nodes, rows, assignment, leader.

use redis::{Script, ScriptInvocation};
use roost_proto::ids::Sid;

use super::keys::Channels;
use super::link::{LIFE, Lane};
use super::reply::{Fields, flags, from_json};
use super::{RedisStore, keys};
use crate::store::*;

/// The hash that places users on the ring, kept beside its size for people who look.
const RING_HASH: &str = "xxh3_64";

pub(super) struct ControlScripts {
    open: Script,
    secret: Script,
    register: Script,
    deregister: Script,
    claim: Script,
    renew: Script,
    own_rows: Script,
    lead: Script,
    resign: Script,
    revoke: Script,
    forget: Script,
    assign: Script,
}

impl ControlScripts {
    pub(super) fn new(channels: &Channels) -> Self {
        let with_lib = |code| channels.script(&[LIFE, include_str!("lib.lua"), code]);
        Self {
            open: channels.script(&[LIFE, include_str!("open.lua")]),
            secret: Script::new(include_str!("secret.lua")),
            register: with_lib(include_str!("register.lua")),
            deregister: with_lib(include_str!("deregister.lua")),
            claim: with_lib(include_str!("claim.lua")),
            renew: with_lib(include_str!("renew.lua")),
            own_rows: with_lib(include_str!("own_rows.lua")),
            lead: with_lib(include_str!("lead.lua")),
            resign: with_lib(include_str!("resign.lua")),
            revoke: with_lib(include_str!("revoke.lua")),
            forget: with_lib(include_str!("forget.lua")),
            assign: with_lib(include_str!("assign.lua")),
        }
    }
}

/// What a control script said.
enum Answer {
    /// The caller knows another data set; this is the present one.
    NewData(DataSet),
    /// The word the script answered with, and what came after it.
    Said(String, Fields),
}

fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("plain data always encodes")
}

/// How the JSON of every [`Row`] of this sid begins; its epoch comes next. Scripts compose rows with it and know
/// a sid's rows by it.
fn row_prefix(sid: &Sid) -> String {
    format!("{{\"sid\":{},\"epoch\":", json(sid))
}

/// JSON has no infinity, and one row that does not parse would blind every reader of the table.
fn sound(load: Load) -> Load {
    let rate = load.messages_per_s;
    Load { messages_per_s: if rate.is_finite() { rate } else { 0.0 }, ..load }
}

fn not_understood(word: &str) -> StoreError {
    StoreError::Garbled(format!("a control script answered '{word}'"))
}

impl RedisStore {
    async fn control(&self, script: &ScriptInvocation<'_>) -> Result<Answer, StoreError> {
        let link = self.links.get(Lane::Control).await?;
        let mut fields = self.invoke(&link, script).await?;
        let word = fields.text()?;
        if word != "new" {
            return Ok(Answer::Said(word, fields));
        }
        // The script says which, but not what else this process has to know of another life.
        self.links.repair(&link).await.map(Answer::NewData)
    }

    pub(super) async fn do_link_secret(&self) -> Result<String, StoreError> {
        let link = self.links.get(Lane::Control).await?;
        let mut script = self.control.secret.key(keys::RING);
        script.arg(fresh_name());
        self.invoke(&link, &script).await?.text()
    }

    pub(super) async fn do_open_ring(&self, vnodes: u32) -> Result<DataSet, StoreError> {
        let link = self.links.get(Lane::Control).await?;
        if self.links.vnodes() == vnodes {
            // Opened before: if the ring is gone now, data was lost, and what comes has to settle.
            return Ok(self.table_over(&link).await?.data_set);
        }
        let mut script = self.control.open.key(keys::RING);
        script.arg(fresh_name()).arg(&link.run_id).arg(vnodes).arg(RING_HASH);
        let mut fields = self.invoke(&link, &script).await?;
        let (name, found) = (DataSet(fields.text()?), fields.number()?);
        if found != u64::from(vnodes) {
            let found = u32::try_from(found).unwrap_or(u32::MAX);
            return Err(StoreError::Vnodes { found, wanted: vnodes });
        }
        self.links.opened(vnodes);
        link.saw(&name);
        Ok(name)
    }

    pub(super) async fn do_register(&self, request: &Register) -> Result<RegisterAnswer, StoreError> {
        let row = NodeRow { load: sound(request.row.load), ..request.row.clone() };
        let mut script = self.control.register.key(keys::RING);
        script.key(keys::NODES).arg(&request.data_set.0).arg(row.sid.as_str()).arg(json(&row));
        match self.control(&script).await? {
            Answer::NewData(found) => Ok(RegisterAnswer::NewData(found)),
            Answer::Said(word, _) => match word.as_str() {
                "done" => Ok(RegisterAnswer::Registered),
                "replaced" => Ok(RegisterAnswer::Replaced),
                "revoked" => Ok(RegisterAnswer::Revoked),
                other => Err(not_understood(other)),
            },
        }
    }

    pub(super) async fn do_deregister(&self, request: &Deregister) -> Result<(), StoreError> {
        let mut script = self.control.deregister.key(keys::RING);
        script.key(keys::NODES).arg(request.sid.as_str()).arg(u8::from(request.tombstone));
        self.control(&script).await.map(drop)
    }

    pub(super) async fn do_claim(&self, request: &Claim) -> Result<ClaimAnswer, StoreError> {
        let mut script = self.control.claim.key(keys::RING);
        script.key(keys::NODES).key(keys::row(request.vnode)).key(keys::ASSIGNMENT).key(keys::SETTLING);
        script
            .arg(&request.data_set.0)
            .arg(request.sid.as_str())
            .arg(request.vnode.0)
            .arg(request.held.map(|held| held.to_string()).unwrap_or_default())
            .arg(request.floor.0)
            .arg(u8::from(request.pinned))
            .arg(self.config.lease_ttl_ms)
            .arg(row_prefix(&request.sid));
        match self.control(&script).await? {
            Answer::NewData(found) => Ok(ClaimAnswer::NewData(found)),
            Answer::Said(word, mut fields) => match word.as_str() {
                "granted" => Ok(ClaimAnswer::Granted(roost_proto::Epoch(fields.number()?))),
                "held" => Ok(ClaimAnswer::Held(from_json(&fields.bytes()?)?)),
                "not_yours" => Ok(ClaimAnswer::NotYours),
                "settling" => Ok(ClaimAnswer::Settling),
                "unregistered" => Ok(ClaimAnswer::NotRegistered),
                other => Err(not_understood(other)),
            },
        }
    }

    pub(super) async fn do_renew(&self, request: &Renew) -> Result<RenewAnswer, StoreError> {
        let mut script = self.control.renew.key(keys::RING);
        let state = json(&request.state);
        script
            .key(keys::NODES)
            .arg(&request.data_set.0)
            .arg(request.sid.as_str())
            .arg(state.trim_matches('"'))
            .arg(json(&sound(request.load)))
            .arg(row_prefix(&request.sid))
            .arg(self.config.lease_ttl_ms);
        for (vnode, epoch) in &request.rows {
            script.key(keys::row(*vnode)).arg(epoch.0);
        }
        match self.control(&script).await? {
            Answer::NewData(found) => Ok(RenewAnswer::NewData(found)),
            Answer::Said(word, mut fields) => match word.as_str() {
                "done" => Ok(RenewAnswer::Renewed(flags(&fields.text()?))),
                "replaced" => Ok(RenewAnswer::Replaced),
                "revoked" => Ok(RenewAnswer::Revoked),
                "unregistered" => Ok(RenewAnswer::NotRegistered),
                other => Err(not_understood(other)),
            },
        }
    }

    pub(super) async fn do_own_rows(&self, what: &str, request: &OwnRows) -> Result<Vec<bool>, StoreError> {
        let mut script = self.control.own_rows.key(keys::RING);
        script.arg(&request.data_set.0).arg(what).arg(row_prefix(&request.sid));
        for (vnode, epoch) in &request.rows {
            script.key(keys::row(*vnode)).arg(epoch.0);
        }
        match self.control(&script).await? {
            Answer::NewData(_) => Ok(vec![false; request.rows.len()]),
            Answer::Said(_, mut fields) => Ok(flags(&fields.text()?)),
        }
    }

    pub(super) async fn do_lead(&self, request: &Lead) -> Result<LeadAnswer, StoreError> {
        let mut script = self.control.lead.key(keys::RING);
        script
            .key(keys::LEADER)
            .arg(&request.data_set.0)
            .arg(&request.token)
            .arg(format!("{{\"token\":{},\"beat\":", json(&request.token)));
        match &request.frozen {
            Some(frozen) => script.arg(&frozen.token).arg(frozen.beat),
            None => script.arg("").arg(""),
        };
        match self.control(&script).await? {
            Answer::NewData(found) => Ok(LeadAnswer::NewData(found)),
            Answer::Said(word, mut fields) => match word.as_str() {
                "leading" => Ok(LeadAnswer::Leading),
                "other" => Ok(LeadAnswer::Other(from_json(&fields.bytes()?)?)),
                other => Err(not_understood(other)),
            },
        }
    }

    pub(super) async fn do_resign(&self, request: &Resign) -> Result<bool, StoreError> {
        let mut script = self.control.resign.key(keys::RING);
        script.key(keys::LEADER).arg(&request.data_set.0).arg(&request.token);
        Ok(matches!(self.control(&script).await?, Answer::Said(word, _) if word == "done"))
    }

    pub(super) async fn do_revoke(&self, request: &Revoke) -> Result<bool, StoreError> {
        let mut script = self.control.revoke.key(keys::RING);
        script.key(keys::LEADER).key(keys::NODES);
        script.arg(&request.data_set.0).arg(&request.token).arg(request.sid.as_str()).arg(request.beat);
        Ok(matches!(self.control(&script).await?, Answer::Said(word, _) if word == "done"))
    }

    pub(super) async fn do_forget(&self, request: &Forget) -> Result<bool, StoreError> {
        let mut script = self.control.forget.key(keys::RING);
        let for_s = request.gone_for_s.map(|s| s.to_string()).unwrap_or_default();
        script.key(keys::LEADER).key(keys::NODES);
        script.arg(&request.data_set.0).arg(&request.token).arg(request.sid.as_str()).arg(for_s);
        Ok(matches!(self.control(&script).await?, Answer::Said(word, _) if word == "done"))
    }

    pub(super) async fn do_assign(&self, request: &Assign) -> Result<bool, StoreError> {
        let mut script = self.control.assign.key(keys::RING);
        script.key(keys::LEADER).key(keys::ASSIGNMENT);
        script.arg(&request.data_set.0).arg(&request.token).arg(request.from_version);
        for (vnode, node) in &request.targets {
            script.arg(vnode.0).arg(node.as_str());
        }
        Ok(matches!(self.control(&script).await?, Answer::Said(word, _) if word == "done"))
    }
}

#[cfg(test)]
mod tests {
    use roost_proto::ids::{Epoch, NodeId, Sid};

    use super::{json, row_prefix};
    use crate::store::Row;

    #[test]
    fn a_row_is_composed_as_it_is_encoded() {
        let sid = Sid::new(&NodeId::new("ws-1").unwrap(), 7, 9);
        let row = Row { sid: sid.clone(), epoch: Epoch(1 << 53), ready: false };
        assert_eq!(json(&row), format!("{}{},\"ready\":false}}", row_prefix(&sid), row.epoch));
    }
}
