//! The assignment planner: which living node should own which vnode, and the next moves towards that.
//!
//! A pure function of owners, nodes and pins, so every leader plans the same. It knows neither time nor
//! leases: the caller says who is alive, carries the moves out and asks again. Promise P7 (minimal moves) is
//! kept here.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashMap};

use roost_proto::{NodeId, VnodeId};

/// A living node, as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanNode {
    /// Its name; no two nodes of one plan share one.
    pub id: NodeId,
    /// Its share relative to the others; 0 = draining: it gets nothing and gives everything.
    pub weight: u32,
    /// The vnodes it asks for; empty = auto, it takes whatever balance gives it. Those the ring has not are
    /// ignored.
    pub pins: Vec<VnodeId>,
    /// Moves it takes part in already, as giver or as taker.
    pub in_flight: usize,
}

/// What [`plan`] decides from.
#[derive(Debug, Clone, Copy)]
pub struct PlanInput<'a> {
    /// The owner that each vnode is assigned to now (in flight or arrived), one entry per vnode of the ring.
    /// A name that is not in `nodes` is a dead node.
    pub owners: &'a [Option<NodeId>],
    /// The living nodes, in any order.
    pub nodes: &'a [PlanNode],
    /// Most moves between living nodes that one node may take part in at a time; at 0 only vnodes without a
    /// living owner move.
    pub in_flight_max: usize,
}

/// One vnode changes its owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub vnode: VnodeId,
    /// The living node that hands it over; `None` if nobody does: it had no owner, or a dead one.
    pub from: Option<NodeId>,
    /// A living node of weight > 0.
    pub to: NodeId,
}

/// The next moves towards the balanced assignment; none if it is reached, or if no node may take anything.
///
/// 1. A vnode belongs to the living node of weight > 0 that pins it; if several do, to the first by name.
/// 2. The others are lent to the *sharing* nodes: those without pins; if there are none, all of weight > 0.
///    Quotas follow weights (`set_quotas`): without pins a node is within one vnode per unit of weight of its
///    exact share, and within less than one vnode if weights are equal. A node that pins more than its share
///    keeps its pins; the others share the rest.
/// 3. Only what is away from its pin, above a quota or with a node that may not keep it moves, and once.
/// 4. Vnodes without a living owner are down, so all of them move now, to the emptiest. Moves from a living
///    giver wait until both sides take part in fewer than `in_flight_max`; drains go first.
///
/// Deterministic, whatever the order of `nodes`. If the caller applies the moves and asks again, every vnode
/// moves at most once and the plan becomes empty. Costs O((V + N) log N) for V vnodes and N nodes.
pub fn plan(input: &PlanInput<'_>) -> Vec<Move> {
    let mut accounts = open_accounts(input.nodes);
    let homes = claim_pins(&mut accounts, input.owners.len());
    let owners = living_owners(input.owners, &accounts);
    for (home, owner) in homes.iter().zip(&owners) {
        if let (None, Some(owner)) = (home, owner) {
            accounts[*owner].held += 1;
        }
    }
    set_quotas(&mut accounts, homes.iter().filter(|home| home.is_none()).count());
    let pending = misplaced(&homes, &owners, &accounts);
    Dispatch::new(accounts, input.in_flight_max).run(&pending)
}

/// What the planner keeps about one node. Nodes are addressed by their index in the list sorted by name.
struct Account<'a> {
    node: &'a PlanNode,
    /// Takes part in sharing the vnodes that are not pinned.
    shares: bool,
    /// Vnodes it pins and gets.
    pinned: u64,
    /// Vnodes it owns that are not pinned.
    held: u64,
    /// Vnodes it should own that are not pinned.
    quota: u64,
    /// Moves it takes part in, those of this plan included.
    in_flight: usize,
}

/// A vnode that is not where it should be.
struct Pending {
    vnode: VnodeId,
    from: Option<usize>,
    /// The node that pins it; without one the emptiest takes it.
    home: Option<usize>,
}

fn open_accounts(nodes: &[PlanNode]) -> Vec<Account<'_>> {
    let takes = |node: &PlanNode| node.weight > 0;
    let any_auto = nodes.iter().any(|node| takes(node) && node.pins.is_empty());
    let mut accounts: Vec<_> = nodes
        .iter()
        .map(|node| Account {
            node,
            shares: takes(node) && (node.pins.is_empty() || !any_auto),
            pinned: 0,
            held: 0,
            quota: 0,
            in_flight: node.in_flight,
        })
        .collect();
    accounts.sort_by(|a, b| a.node.id.cmp(&b.node.id));
    accounts
}

/// The node that each vnode is pinned to, if any.
fn claim_pins(accounts: &mut [Account<'_>], vnodes: usize) -> Vec<Option<usize>> {
    let mut homes = vec![None; vnodes];
    for (i, account) in accounts.iter_mut().enumerate().filter(|(_, account)| account.node.weight > 0) {
        for pin in &account.node.pins {
            if let Some(home @ None) = homes.get_mut(pin.index()) {
                *home = Some(i);
                account.pinned += 1;
            }
        }
    }
    homes
}

fn living_owners(owners: &[Option<NodeId>], accounts: &[Account<'_>]) -> Vec<Option<usize>> {
    let index: HashMap<&NodeId, usize> =
        accounts.iter().enumerate().map(|(i, account)| (&account.node.id, i)).collect();
    owners.iter().map(|owner| owner.as_ref().and_then(|id| index.get(id).copied())).collect()
}

/// Divides the `free` vnodes, which nobody pins, among the sharing nodes.
///
/// Webster's (Sainte-Laguë's) method: each goes where `(2 n + 1) / weight` is smallest, `n` being what the
/// node has so far, pins included. Unlike largest remainders it is monotone, also under weights and with pins as
/// lower bounds: a joining node raises nobody else's quota and a leaving one lowers nobody's (Balinski and
/// Young, *Fair Representation*, 1982). Between equals the node that already holds the vnode keeps it, so an
/// unchanged cluster moves nothing.
fn set_quotas(accounts: &mut [Account<'_>], free: usize) {
    let bid = |i: usize, account: &Account<'_>| {
        let next = Ratio(2 * (account.pinned + account.quota) + 1, account.node.weight.into());
        Reverse((next, account.held <= account.quota, i))
    };
    let sharing = accounts.iter().enumerate().filter(|(_, account)| account.shares);
    let mut bids: BinaryHeap<_> = sharing.map(|(i, account)| bid(i, account)).collect();
    for _ in 0..free {
        let Some(mut best) = bids.peek_mut() else { return };
        let Reverse((_, _, i)) = *best;
        accounts[i].quota += 1;
        *best = bid(i, &accounts[i]);
    }
}

/// The vnodes that have to move, the most urgent first: those that are down, then those of draining nodes
/// (whose time is limited), then the rest; each by number.
fn misplaced(homes: &[Option<usize>], owners: &[Option<usize>], accounts: &[Account<'_>]) -> Vec<Pending> {
    let mut kept = vec![0; accounts.len()];
    let mut pending = Vec::new();
    for (number, (&home, &from)) in (0..=u16::MAX).zip(homes.iter().zip(owners)) {
        let stays = match (home, from) {
            (_, None) => false,
            (Some(home), Some(owner)) => home == owner,
            (None, Some(owner)) => {
                kept[owner] += 1;
                kept[owner] <= accounts[owner].quota
            }
        };
        if !stays {
            pending.push(Pending { vnode: VnodeId(number), from, home });
        }
    }
    pending.sort_by_key(|p| p.from.map(|from| accounts[from].node.weight > 0));
    pending
}

/// Turns pending vnodes into moves, as far as the bounds allow.
struct Dispatch<'a> {
    accounts: Vec<Account<'a>>,
    /// The nodes below their quota, the emptiest on top.
    below: BinaryHeap<Reverse<(Ratio, usize)>>,
    in_flight_max: usize,
}

impl<'a> Dispatch<'a> {
    fn new(accounts: Vec<Account<'a>>, in_flight_max: usize) -> Self {
        let mut dispatch = Self { accounts, below: BinaryHeap::new(), in_flight_max };
        for i in 0..dispatch.accounts.len() {
            dispatch.offer(i);
        }
        dispatch
    }

    /// `pending` has those without a giver first: for the others, nodes without room leave the heap for good.
    fn run(mut self, pending: &[Pending]) -> Vec<Move> {
        pending.iter().filter_map(|p| self.dispatch(p)).collect()
    }

    fn dispatch(&mut self, pending: &Pending) -> Option<Move> {
        let bounded = pending.from.is_some();
        if pending.from.is_some_and(|from| !self.has_room(from)) {
            return None;
        }
        let to = match pending.home {
            Some(home) if bounded && !self.has_room(home) => return None,
            Some(home) => home,
            None => self.take_emptiest(bounded)?,
        };
        if let Some(from) = pending.from {
            self.accounts[from].in_flight += 1;
            self.accounts[to].in_flight += 1;
        }
        let id = |i: usize| self.accounts[i].node.id.clone();
        Some(Move { vnode: pending.vnode, from: pending.from.map(id), to: id(to) })
    }

    /// Gives one more vnode to the emptiest node, which is returned.
    fn take_emptiest(&mut self, bounded: bool) -> Option<usize> {
        while let Some(Reverse((_, i))) = self.below.pop() {
            if !bounded || self.has_room(i) {
                self.accounts[i].held += 1;
                self.offer(i);
                return Some(i);
            }
        }
        None
    }

    fn offer(&mut self, i: usize) {
        let Account { held, quota, .. } = self.accounts[i];
        if held < quota {
            self.below.push(Reverse((Ratio(held, quota), i)));
        }
    }

    fn has_room(&self, i: usize) -> bool {
        self.accounts[i].in_flight < self.in_flight_max
    }
}

/// A fraction with a positive denominator, compared exactly. Numerators stay below 2^18 and denominators are
/// weights (below 2^32) or counts, so the products fit.
#[derive(Clone, Copy)]
struct Ratio(u64, u64);

impl Ord for Ratio {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0 * other.1).cmp(&(other.0 * self.1))
    }
}
impl PartialOrd for Ratio {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Ratio {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Ratio {}

#[cfg(test)]
mod tests;
