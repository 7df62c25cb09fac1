//! A user's devices: up to where each has acknowledged, for those used last.

use std::collections::BTreeMap;

use roost_proto::ids::{Cursor, DeviceId, UserId};
use serde::{Deserialize, Serialize};

use super::data::{Change, VnodeData, json};
use crate::store::*;

/// Files of earlier versions have no uses: the devices in them count as used before all others.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Acked {
    #[serde(flatten)]
    cursor: Cursor,
    #[serde(default)]
    used: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Devices {
    kept: BTreeMap<DeviceId, Acked>,
    /// Counts uses: an acknowledgement, or a session that is opened.
    uses: u64,
    /// Some were forgotten: who is unknown may be one of them.
    pub forgot: bool,
}

impl Devices {
    fn used(&mut self, device: &DeviceId, change: impl FnOnce(Cursor) -> Cursor) -> Acked {
        self.uses += 1;
        let cursor = self.kept.get(device).map(|acked| acked.cursor).unwrap_or_default();
        let acked = Acked { cursor: change(cursor), used: self.uses };
        self.kept.insert(device.clone(), acked);
        acked
    }

    /// The device that was used before all others, if there are too many.
    fn too_many(&self) -> Option<DeviceId> {
        let oldest = self.kept.iter().min_by_key(|(_, acked)| acked.used)?;
        (self.kept.len() > DEVICES_KEPT).then(|| oldest.0.clone())
    }

    pub(super) fn load(&mut self, device: DeviceId, acked: Acked) {
        self.uses = self.uses.max(acked.used);
        self.kept.insert(device, acked);
    }
}

impl VnodeData {
    pub(super) fn ack(&mut self, user: &UserId, device: &DeviceId, cursor: Cursor) -> OpResult {
        let devices = self.devices.entry(user.clone()).or_default();
        let acked = devices.used(device, |before| before.max(cursor));
        let mut gone = Vec::new();
        while let Some(oldest) = devices.too_many() {
            devices.kept.remove(&oldest);
            devices.forgot = true;
            gone.push(oldest);
        }
        self.put("acked", user.as_str(), device.as_str(), 0, || json(&acked));
        if !gone.is_empty() {
            self.put("forgot", user.as_str(), "", 0, || json(&true));
        }
        for device in gone {
            let (stream, key) = (user.to_string(), device.to_string());
            self.remove(Change::Remove { table: "acked", stream, key });
        }
        OpResult::Acked
    }

    /// What a device has acknowledged, and whether it may be one that was forgotten.
    pub(super) fn device_opened(&mut self, user: &UserId, device: &DeviceId) -> (Option<Cursor>, bool) {
        let Some(devices) = self.devices.get_mut(user) else { return (None, false) };
        if !devices.kept.contains_key(device) {
            return (None, devices.forgot);
        }
        let acked = devices.used(device, |cursor| cursor);
        self.put("acked", user.as_str(), device.as_str(), 0, || json(&acked));
        (Some(acked.cursor), false)
    }

    /// The most that any device of a user has acknowledged, for checks.
    pub fn acked_by_any(&self, user: &UserId) -> Option<Cursor> {
        self.devices.get(user)?.kept.values().map(|acked| acked.cursor).max()
    }
}
