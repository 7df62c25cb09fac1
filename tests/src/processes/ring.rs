//! Who has what, as a coordinator shows it.

use std::collections::BTreeMap;

use serde_json::Value;

/// The table as `/ring` shows it.
#[derive(Debug, Clone, PartialEq)]
pub struct Ring {
    pub leader: Option<String>,
    /// vnode → node, epoch, ready.
    pub rows: BTreeMap<u16, (String, u64, bool)>,
    /// vnode → node, of those that are not where they should be.
    pub moving: BTreeMap<u16, String>,
}

impl Ring {
    pub(super) fn read(body: &Value) -> Option<Self> {
        let rows = body["rows"].as_array()?.iter().map(|row| {
            let vnode = u16::try_from(row[0].as_u64()?).ok()?;
            Some((vnode, (row[1].as_str()?.to_owned(), row[2].as_u64()?, row[3].as_bool()?)))
        });
        let moving = body["moving"]
            .as_array()?
            .iter()
            .map(|row| Some((u16::try_from(row[0].as_u64()?).ok()?, row[1].as_str()?.to_owned())));
        Some(Self {
            leader: body["leader"].as_str().map(ToOwned::to_owned),
            rows: rows.collect::<Option<_>>()?,
            moving: moving.collect::<Option<_>>()?,
        })
    }

    /// How many vnodes each node has, and what is unfinished.
    pub(super) fn summary(&self) -> String {
        let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
        self.rows.values().for_each(|row| *shares.entry(&row.0).or_default() += 1);
        let unready: Vec<_> = self.rows.iter().filter(|(_, row)| !row.2).collect();
        format!("shares {shares:?}, not ready {unready:?}, moving {:?}", self.moving)
    }

    /// The vnodes that a node has.
    pub fn of(&self, node: &str) -> Vec<u16> {
        self.rows.iter().filter(|(_, row)| row.0 == node).map(|(vnode, _)| *vnode).collect()
    }
}
