//! The whole control plane as of one moment.
//!
//! Every process reads it every second, so it costs Redis one transaction of six commands, and this side as little
//! as can be: the assignment is read only when its version changed, rows are decoded without copies.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use redis::{Pipeline, Value, cmd, pipe};
use roost_proto::ids::{Epoch, NodeId, Sid, VnodeId};
use serde::Deserialize;

use super::link::Link;
use super::reply::{Fields, from_json, parse};
use super::{RedisStore, keys};
use crate::store::*;

/// The assignment last read, and the data set it was read under: within one, each change raises its version.
#[derive(Default)]
pub(super) struct LastAssignment(Mutex<Option<(DataSet, Assignment)>>);

impl LastAssignment {
    fn is_known(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn at(&self, data_set: &DataSet, version: u64) -> Option<Assignment> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, assignment) = last.as_ref()?;
        (of == data_set && assignment.version == version).then(|| assignment.clone())
    }

    fn keep(&self, data_set: &DataSet, assignment: &Assignment) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some((data_set.clone(), assignment.clone()));
    }
}

/// A [`Row`] as kept.
#[derive(Deserialize)]
struct RawRow<'a> {
    #[serde(borrow)]
    sid: Cow<'a, str>,
    epoch: Epoch,
    ready: bool,
}

/// A few nodes are named a thousand times: each name is checked and kept once.
struct Names<T>(HashMap<String, T>);

impl<T: Clone> Names<T> {
    fn new() -> Self {
        Self(HashMap::new())
    }

    fn get<E: std::fmt::Display>(
        &mut self,
        text: &str,
        make: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, StoreError> {
        if let Some(known) = self.0.get(text) {
            return Ok(known.clone());
        }
        let made = make(text).map_err(|e| StoreError::Garbled(format!("'{text}': {e}")))?;
        self.0.insert(text.to_owned(), made.clone());
        Ok(made)
    }
}

impl RedisStore {
    pub(super) async fn table_over(&self, link: &Arc<Link>) -> Result<Table, StoreError> {
        let vnodes = match self.links.vnodes() {
            0 => self.size_of_ring(link).await?,
            opened => opened,
        };
        if vnodes == 0 {
            return Ok(Table::default());
        }
        let table = match self.read_table(link, vnodes).await? {
            Some(table) => table,
            None => {
                self.links.repair(link).await?;
                self.read_table(link, vnodes).await?.unwrap_or_default()
            }
        };
        if table.vnodes != vnodes {
            return Err(StoreError::Vnodes { found: table.vnodes, wanted: vnodes });
        }
        link.saw(&table.data_set);
        Ok(table)
    }

    /// For a process that only looks. 0 if there is no ring.
    async fn size_of_ring(&self, link: &Arc<Link>) -> Result<u32, StoreError> {
        let mut ask = cmd("HMGET");
        ask.arg(keys::RING).arg("vnodes");
        let answer = ask.query_async::<Value>(&mut link.connection()).await;
        let found = Fields::new(self.noted(link, answer)?)?.bytes_if_any()?;
        let found = found.map_or(Ok(0), |text| parse(&text))?;
        u32::try_from(found).map_err(|_| StoreError::Garbled(format!("a ring of {found} vnodes")))
    }

    /// Nothing if the ring is missing.
    async fn read_table(&self, link: &Arc<Link>, vnodes: u32) -> Result<Option<Table>, StoreError> {
        if self.assignment.is_known()
            && let Some((mut table, version)) = self.read_all_but_targets(link, vnodes).await?
            && let Some(assignment) = self.assignment.at(&table.data_set, version)
        {
            table.assignment = assignment;
            return Ok(Some(table));
        }
        let mut pipe = all_but_targets(vnodes)?;
        pipe.cmd("HGETALL").arg(keys::ASSIGNMENT);
        let mut answers = self.together(link, &pipe).await?;
        let Some((mut table, _)) = table(&mut answers)? else { return Ok(None) };
        table.assignment = assignment(answers.array()?)?;
        self.assignment.keep(&table.data_set, &table.assignment);
        Ok(Some(table))
    }

    /// With the assignment's version.
    async fn read_all_but_targets(
        &self,
        link: &Arc<Link>,
        vnodes: u32,
    ) -> Result<Option<(Table, u64)>, StoreError> {
        table(&mut self.together(link, &all_but_targets(vnodes)?).await?)
    }
}

/// What [`table`] reads, as one transaction.
fn all_but_targets(vnodes: u32) -> Result<Pipeline, StoreError> {
    let last = u16::try_from(vnodes - 1).map_err(|_| StoreError::Garbled(format!("{vnodes} vnodes")))?;
    let mut pipe = pipe();
    pipe.atomic().cmd("HMGET").arg(keys::RING).arg("gen").arg("vnodes");
    pipe.cmd("EXISTS").arg(keys::SETTLING);
    pipe.cmd("GET").arg(keys::LEADER);
    pipe.cmd("HGETALL").arg(keys::NODES);
    pipe.cmd("HMGET").arg(keys::ASSIGNMENT).arg("version");
    pipe.cmd("MGET");
    for vnode in 0..=last {
        pipe.arg(keys::row(VnodeId(vnode)));
    }
    Ok(pipe)
}

/// Nothing if the ring is missing; else all but the targets, and the assignment's version.
fn table(answers: &mut Fields) -> Result<Option<(Table, u64)>, StoreError> {
    let mut ring = answers.array()?;
    let Some(name) = ring.text_if_any()? else { return Ok(None) };
    let mut table = Table {
        vnodes: u32::try_from(ring.number()?).unwrap_or(u32::MAX),
        data_set: DataSet(name),
        settling: answers.number()? != 0,
        leader: answers.json_if_any()?,
        nodes: nodes(answers.array()?)?,
        ..Table::default()
    };
    let version = answers.array()?.bytes_if_any()?.map_or(Ok(0), |text| parse(&text))?;
    table.rows = rows(answers.array()?)?;
    Ok(Some((table, version)))
}

fn nodes(mut fields: Fields) -> Result<BTreeMap<NodeId, NodeRow>, StoreError> {
    let (mut nodes, mut names) = (BTreeMap::new(), Names::new());
    while !fields.done() {
        nodes.insert(names.get(&fields.text()?, |name| NodeId::new(name))?, from_json(&fields.bytes()?)?);
    }
    Ok(nodes)
}

fn rows(mut fields: Fields) -> Result<BTreeMap<VnodeId, Row>, StoreError> {
    let (mut rows, mut sids) = (Vec::new(), Names::new());
    for vnode in 0..=u16::MAX {
        if fields.done() {
            break;
        }
        if let Some(json) = fields.bytes_if_any()? {
            let raw: RawRow<'_> = from_json(&json)?;
            let sid = sids.get(&raw.sid, Sid::parse)?;
            rows.push((VnodeId(vnode), Row { sid, epoch: raw.epoch, ready: raw.ready }));
        }
    }
    // From what is sorted a map is made at once.
    Ok(rows.into_iter().collect())
}

fn assignment(mut fields: Fields) -> Result<Assignment, StoreError> {
    let (mut assignment, mut names) = (Assignment::default(), Names::new());
    while !fields.done() {
        let (field, value) = (fields.text()?, fields.text()?);
        if field == "version" {
            assignment.version = parse(value.as_bytes())?;
            continue;
        }
        let vnode = field.parse().map_err(|_| StoreError::Garbled(format!("vnode '{field}'")))?;
        assignment.targets.insert(VnodeId(vnode), names.get(&value, |name| NodeId::new(name))?);
    }
    Ok(assignment)
}
