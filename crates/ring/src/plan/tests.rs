//! Properties of the planner on random clusters: mixed weights, pins that overlap or do not exist, dead and
//! draining owners, moves in flight. What is balanced and how many moves that needs is worked out here anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;
use roost_proto::{NodeId, VnodeId};

use super::{Move, PlanInput, PlanNode, plan};

type Owners = Vec<Option<NodeId>>;

#[derive(Debug, Clone)]
struct Cluster {
    owners: Owners,
    nodes: Vec<PlanNode>,
    in_flight_max: usize,
}

impl Cluster {
    fn plan(&self) -> Vec<Move> {
        plan(&PlanInput { owners: &self.owners, nodes: &self.nodes, in_flight_max: self.in_flight_max })
    }

    fn apply(&mut self, moves: &[Move]) {
        for m in moves {
            let owner = &mut self.owners[m.vnode.index()];
            let living = owner.clone().filter(|id| self.nodes.iter().any(|n| n.id == *id));
            assert_eq!(m.from, living, "{m:?} comes from the living owner");
            assert_ne!(m.from.as_ref(), Some(&m.to), "{m:?} goes somewhere else");
            assert!(self.nodes.iter().any(|n| n.id == m.to && n.weight > 0), "{m:?} goes to a living node");
            *owner = Some(m.to.clone());
        }
    }

    /// Plans and applies, every move completed before the next plan, until nothing is left to do.
    fn settle(&mut self) -> Vec<Move> {
        self.nodes.iter_mut().for_each(|n| n.in_flight = 0);
        let mut all = Vec::new();
        loop {
            let moves = self.plan();
            if moves.is_empty() {
                return all;
            }
            self.apply(&moves);
            all.extend(moves);
            assert!(all.len() <= self.owners.len(), "no vnode needs to move twice");
        }
    }

    fn settled(mut self) -> Self {
        self.settle();
        self
    }

    fn node(&self, id: &NodeId) -> Option<&PlanNode> {
        self.nodes.iter().find(|n| n.id == *id)
    }

    /// The node that rule 1 gives each vnode to.
    fn homes(&self) -> Vec<Option<NodeId>> {
        let pins = |n: &&PlanNode, v: usize| n.weight > 0 && n.pins.iter().any(|pin| pin.index() == v);
        (0..self.owners.len())
            .map(|v| self.nodes.iter().filter(|n| pins(n, v)).map(|n| n.id.clone()).min())
            .collect()
    }

    /// The nodes that the vnodes without a home are lent to.
    fn sharing(&self) -> Vec<&PlanNode> {
        let takers: Vec<_> = self.nodes.iter().filter(|n| n.weight > 0).collect();
        let autos: Vec<_> = takers.iter().copied().filter(|n| n.pins.is_empty()).collect();
        if autos.is_empty() { takers } else { autos }
    }

    fn owned(&self) -> HashMap<NodeId, BTreeSet<VnodeId>> {
        let mut owned: HashMap<_, BTreeSet<_>> = HashMap::new();
        for (v, owner) in (0..).zip(&self.owners) {
            if let Some(owner) = owner {
                owned.entry(owner.clone()).or_default().insert(VnodeId(v));
            }
        }
        owned
    }

    /// How many vnodes without a home each node owns.
    fn lent(&self) -> HashMap<NodeId, u64> {
        let mut lent = HashMap::new();
        for (owner, _) in self.owners.iter().zip(self.homes()).filter(|(_, home)| home.is_none()) {
            if let Some(owner) = owner {
                *lent.entry(owner.clone()).or_default() += 1;
            }
        }
        lent
    }
}

fn id(name: &str) -> NodeId {
    NodeId::new(name).expect("test names are node ids")
}

fn node(name: &str, weight: u32, pins: impl IntoIterator<Item = u16>) -> PlanNode {
    PlanNode { id: id(name), weight, pins: pins.into_iter().map(VnodeId).collect(), in_flight: 0 }
}

/// Owners written as text, one letter per vnode; `.` is none.
fn owners(letters: &str) -> Owners {
    letters.chars().map(|c| (c != '.').then(|| id(&c.to_string()))).collect()
}

fn letters(owners: &Owners) -> String {
    owners.iter().map(|o| o.as_ref().map_or(".", |id| id.as_str())).collect()
}

fn vnodes(moves: &[Move]) -> BTreeSet<VnodeId> {
    moves.iter().map(|m| m.vnode).collect()
}

fn any_weight() -> impl Strategy<Value = u32> {
    prop_oneof![1 => Just(0), 5 => Just(1), 4 => 2..8u32, 1 => 1..=u32::MAX]
}

/// None for most nodes; else some ranges, that may overlap those of others or lie outside the ring.
fn any_pins(vnodes: u16) -> impl Strategy<Value = Vec<u16>> {
    let range = (0..vnodes + vnodes / 4 + 1, 0..vnodes / 4 + 1).prop_map(|(start, len)| start..start + len);
    prop_oneof![
        2 => Just(vec![]),
        1 => prop::collection::vec(range, 1..4).prop_map(|ranges| ranges.into_iter().flatten().collect()),
    ]
}

fn any_cluster() -> impl Strategy<Value = Cluster> {
    (0..9u32, 0..10usize).prop_flat_map(|(bits, count)| {
        let ring = 1u16 << bits;
        let node = (any_weight(), any_pins(ring), prop_oneof![Just(0), 0..6usize]);
        let nodes = prop::collection::vec(node, count).prop_map(|nodes| {
            let build = |(i, (weight, pins, in_flight))| PlanNode {
                in_flight,
                ..self::node(&format!("n{i}"), weight, pins)
            };
            nodes.into_iter().enumerate().map(build).collect::<Vec<_>>()
        });
        // Names from n10 on are dead; n14 stands for nobody.
        let owner = (0..15).prop_map(|i| (i < 14).then(|| id(&format!("n{i}"))));
        let owners = prop_oneof![
            1 => Just(vec![None; ring.into()]),
            8 => prop::collection::vec(owner, usize::from(ring)),
        ];
        (owners, nodes, 1..8usize).prop_map(|(owners, nodes, in_flight_max)| Cluster {
            owners,
            nodes,
            in_flight_max,
        })
    })
}

/// A settled cluster in which no two nodes pin the same vnode, and a node of it that is not the only one with
/// some weight.
fn settled_cluster_and(member: fn(&PlanNode) -> bool) -> impl Strategy<Value = (Cluster, PlanNode)> {
    (any_cluster(), any::<prop::sample::Index>()).prop_filter_map(
        "no such node",
        move |(mut cluster, index)| {
            let mut taken = BTreeSet::new();
            let ring = cluster.owners.len();
            for node in &mut cluster.nodes {
                node.pins.retain(|pin| pin.index() < ring && taken.insert(*pin));
            }
            let takers: Vec<_> = cluster.nodes.iter().filter(|n| n.weight > 0).cloned().collect();
            let members: Vec<_> = takers.iter().filter(|n| member(n)).cloned().collect();
            (takers.len() > 1 && !members.is_empty())
                .then(|| (cluster.settled(), index.get(&members).clone()))
        },
    )
}

proptest! {
    #[test]
    fn every_cluster_settles_balanced_with_its_pins_honoured(cluster in any_cluster()) {
        let end = cluster.settled();
        let sharing = end.sharing();
        if sharing.is_empty() {
            return Ok(());
        }
        let homes = end.homes();
        for (owner, home) in end.owners.iter().zip(&homes) {
            let owner = owner.as_ref().expect("every vnode has an owner");
            match home {
                Some(home) => prop_assert_eq!(owner, home),
                None => prop_assert!(sharing.iter().any(|n| n.id == *owner)),
            }
        }
        let lent = end.lent();
        let lent_to = |n: &PlanNode| lent.get(&n.id).copied().unwrap_or(0);
        let count = |n: &PlanNode| {
            lent_to(n) + homes.iter().flatten().filter(|home| **home == n.id).count() as u64
        };
        // No vnode could be lent to another node and make the two more even.
        for giver in sharing.iter().filter(|n| lent_to(n) > 0) {
            for taker in &sharing {
                let (given, taken) = (2 * count(giver) - 1, 2 * count(taker) + 1);
                prop_assert!(given * u64::from(taker.weight) <= taken * u64::from(giver.weight));
            }
        }
        // Among auto nodes: within one vnode per unit of weight of the share, less if weights are equal.
        if sharing.iter().all(|n| n.pins.is_empty()) {
            let weights: u128 = sharing.iter().map(|n| u128::from(n.weight)).sum();
            let free = homes.iter().filter(|home| home.is_none()).count() as u128;
            let equal = sharing.iter().all(|n| n.weight == sharing[0].weight);
            for n in &sharing {
                let weight = u128::from(n.weight);
                let off = (u128::from(lent_to(n)) * weights).abs_diff(free * weight);
                prop_assert!(off <= weight * weights);
                prop_assert!(!equal || off < weights);
            }
        }
    }

    #[test]
    fn no_more_moves_are_made_than_the_end_needs(cluster in any_cluster()) {
        let mut end = cluster.clone();
        let moves = end.settle();
        prop_assert_eq!(vnodes(&moves).len(), moves.len(), "a vnode moved twice");
        if end.sharing().is_empty() {
            prop_assert!(moves.is_empty());
            return Ok(());
        }
        let homes = cluster.homes();
        let away = |(owner, home): &(&Option<NodeId>, &Option<NodeId>)| home.is_some() && owner != home;
        let unowned = |(owner, home): &(&Option<NodeId>, &Option<NodeId>)| {
            home.is_none() && owner.as_ref().is_none_or(|id| cluster.node(id).is_none())
        };
        let pairs = || cluster.owners.iter().zip(&homes);
        let (before, after) = (cluster.lent(), end.lent());
        let surplus: u64 = cluster
            .nodes
            .iter()
            .map(|n| before.get(&n.id).unwrap_or(&0).saturating_sub(*after.get(&n.id).unwrap_or(&0)))
            .sum();
        let needed = pairs().filter(away).count() + pairs().filter(unowned).count() + surplus as usize;
        prop_assert_eq!(moves.len(), needed);
    }

    /// Under equal weights some nodes have one vnode more than others; the choice of those costs nothing.
    #[test]
    fn equal_nodes_make_the_fewest_moves_of_all_balanced_ends(cluster in any_cluster()) {
        let mut cluster = cluster;
        if cluster.nodes.is_empty() {
            return Ok(());
        }
        for n in &mut cluster.nodes {
            n.weight = 1;
            n.pins.clear();
        }
        let (ring, nodes) = (cluster.owners.len() as u64, cluster.nodes.len() as u64);
        let (floor, extras) = (ring / nodes, ring % nodes);
        let held = cluster.lent();
        let held: Vec<_> = cluster.nodes.iter().map(|n| held.get(&n.id).copied().unwrap_or(0)).collect();
        let above: u64 = held.iter().map(|h| h.saturating_sub(floor)).sum();
        let may_keep_one = held.iter().filter(|h| **h > floor).count() as u64;
        let unowned = ring - held.iter().sum::<u64>();
        let fewest = unowned + above - extras.min(may_keep_one);
        prop_assert_eq!(cluster.settle().len() as u64, fewest);
    }

    #[test]
    fn an_unchanged_cluster_moves_nothing(cluster in any_cluster(), in_flight_max in 0..100usize) {
        let mut cluster = cluster.settled();
        cluster.in_flight_max = in_flight_max;
        prop_assert_eq!(cluster.plan(), vec![]);
    }

    #[test]
    fn one_call_keeps_the_bounds_and_leaves_nothing_down(cluster in any_cluster()) {
        let moves = cluster.plan();
        let mut in_flight: BTreeMap<_, usize> = BTreeMap::new();
        for m in &moves {
            if let Some(from) = &m.from {
                *in_flight.entry(from.clone()).or_default() += 1;
                *in_flight.entry(m.to.clone()).or_default() += 1;
            }
        }
        for (id, added) in in_flight {
            let before = cluster.node(&id).expect("only living nodes hand over").in_flight;
            prop_assert!(before + added <= cluster.in_flight_max);
        }
        let takers = !cluster.sharing().is_empty();
        let mut after = cluster;
        after.apply(&moves);
        if takers {
            let lives = |owner: &Option<NodeId>| owner.as_ref().is_some_and(|id| after.node(id).is_some());
            prop_assert!(after.owners.iter().all(lives));
        }
    }

    #[test]
    fn the_order_of_nodes_does_not_matter(
        (cluster, shuffled) in any_cluster().prop_flat_map(|c| (Just(c.clone()), Just(c.nodes).prop_shuffle()))
    ) {
        let moves = cluster.plan();
        prop_assert_eq!(Cluster { nodes: shuffled, ..cluster }.plan(), moves);
    }

    #[test]
    fn a_joining_node_only_receives_and_the_others_only_give(
        (cluster, _) in settled_cluster_and(|_| true), weight in any_weight(), last in any::<bool>(),
    ) {
        let mut cluster = cluster;
        let joining = node(if last { "z" } else { "a" }, weight, []);
        cluster.nodes.push(joining.clone());
        for m in cluster.settle() {
            prop_assert_eq!(m.to, joining.id.clone());
        }
    }

    #[test]
    fn only_the_vnodes_of_a_node_that_dies_or_drains_move(
        (cluster, leaving) in settled_cluster_and(|_| true), drains in any::<bool>(),
    ) {
        let mut cluster = cluster;
        let lost = cluster.owned().remove(&leaving.id).unwrap_or_default();
        if drains {
            cluster.nodes.iter_mut().filter(|n| n.id == leaving.id).for_each(|n| n.weight = 0);
        } else {
            cluster.nodes.retain(|n| n.id != leaving.id);
        }
        let moves = cluster.settle();
        prop_assert_eq!(vnodes(&moves), lost);
        prop_assert!(moves.iter().all(|m| m.from.is_some() == drains));
    }

    #[test]
    fn pinned_vnodes_are_lent_while_their_node_is_dead_and_alone_return(
        (cluster, pinned) in settled_cluster_and(|n| !n.pins.is_empty())
    ) {
        let mut cluster = cluster;
        let autos = |n: &&PlanNode| n.weight > 0 && n.pins.is_empty();
        let with_autos = cluster.nodes.iter().any(|n| autos(&n));
        let before = cluster.owners.clone();
        let pins: BTreeSet<_> = pinned.pins.iter().copied().collect();

        cluster.nodes.retain(|n| n.id != pinned.id);
        let lent = cluster.settle();
        prop_assert!(pins.is_subset(&vnodes(&lent)));
        if with_autos {
            prop_assert_eq!(&vnodes(&lent), &pins);
            prop_assert!(lent.iter().all(|m| cluster.nodes.iter().filter(autos).any(|n| n.id == m.to)));
        }

        cluster.nodes.push(pinned.clone());
        let returned = cluster.settle();
        prop_assert!(returned.iter().all(|m| m.to == pinned.id));
        prop_assert!(pins.is_subset(&vnodes(&returned)));
        // Without auto nodes it shares what nobody pins, too: as many as before, or one less after a tie.
        prop_assert!(returned.len() <= lent.len() && lent.len() <= returned.len() + 1);
        if with_autos {
            prop_assert_eq!(&cluster.owners, &before);
        }
    }
}

fn cluster(letters: &str, nodes: Vec<PlanNode>, in_flight_max: usize) -> Cluster {
    Cluster { owners: owners(letters), nodes, in_flight_max }
}

#[test]
fn quotas_follow_weights() {
    let mut c = cluster("................", vec![node("a", 1, []), node("b", 2, []), node("c", 1, [])], 1);
    assert_eq!(c.settle().len(), 16);
    let counts: BTreeMap<_, _> = c.owned().into_iter().map(|(id, owned)| (id, owned.len())).collect();
    assert_eq!(counts, BTreeMap::from([(id("a"), 4), (id("b"), 8), (id("c"), 4)]));
}

#[test]
fn vnodes_that_are_down_go_to_the_emptiest_at_once() {
    // d drains; x is dead. Quotas are 6, 5 and 5: a has 4, b has 2, c has none.
    let nodes = || vec![node("a", 1, []), node("b", 1, []), node("c", 1, []), node("d", 0, [])];
    let mut c = cluster("aaaabbddddddddx.", nodes(), 0);
    let moves = c.plan();
    c.apply(&moves);
    assert_eq!(letters(&c.owners), "aaaabbddddddddcc");
    // Relative to the quota, not by what they have (4 of 12 is emptier than 2 of 4) or lack (1 of 4 is
    // emptier than 8 of 12).
    for (before, after) in
        [("aaaabbdddddddddx", "aaaabbddddddddda"), ("aaaaaaaabddddddx", "aaaaaaaabddddddb")]
    {
        let mut c = cluster(before, vec![node("a", 3, []), node("b", 1, []), node("d", 0, [])], 0);
        let moves = c.plan();
        c.apply(&moves);
        assert_eq!(letters(&c.owners), after);
    }
}

#[test]
fn a_node_keeps_more_pins_than_its_share_and_the_others_share_the_rest() {
    let mut c =
        cluster("................", vec![node("a", 1, 0..10), node("b", 1, [15]), node("c", 1, [])], 1);
    c.settle();
    assert_eq!(letters(&c.owners), "aaaaaaaaaacccccb");
    // Without an auto node the pinned ones share, and pins count.
    c.nodes.pop();
    c.settle();
    assert_eq!(letters(&c.owners), "aaaaaaaaaabbbbbb");
}

#[test]
fn the_first_name_wins_an_overlap_while_it_lives() {
    let mut c = cluster("....", vec![node("b", 1, [1, 2]), node("a", 1, [1]), node("c", 1, [])], 1);
    c.settle();
    assert_eq!(letters(&c.owners), "cabc");
    c.nodes.remove(1);
    c.settle();
    assert_eq!(letters(&c.owners), "cbbc");
}

#[test]
fn drains_go_before_mere_balance() {
    // n joins with room for two moves; z must leave, a only has too many.
    let nodes = vec![node("a", 1, []), node("n", 1, []), node("z", 0, [])];
    let moves = cluster("aaaaaazz", nodes, 2).plan();
    let zs = |m: &Move| m.from == Some(id("z")) && m.to == id("n");
    assert!(moves.len() == 2 && moves.iter().all(zs), "{moves:?}");
}

#[test]
fn moves_under_way_count_on_both_sides() {
    let nodes = |giver, taker| {
        vec![
            PlanNode { in_flight: giver, ..node("a", 1, []) },
            PlanNode { in_flight: taker, ..node("b", 1, []) },
        ]
    };
    for (giver, taker, moves) in [(0, 0, 3), (2, 0, 1), (0, 1, 2), (3, 0, 0), (0, 5, 0)] {
        assert_eq!(cluster("aaaaaaaa", nodes(giver, taker), 3).plan().len(), moves, "{giver} {taker}");
    }
}

#[test]
fn nobody_who_may_take_means_no_moves() {
    assert_eq!(cluster("ab.x", vec![], 4).plan(), vec![]);
    assert_eq!(cluster("ab.x", vec![node("a", 0, []), node("b", 0, [0, 1])], 4).plan(), vec![]);
}
