//! Circles: files of which each takes something from another, so that none can be read or moved without all of them.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::Graph;

/// The files of every circle, largest first.
pub(crate) fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let reach: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|file| (file.as_str(), reached(graph, file))).collect();
    let mut seen = BTreeSet::new();
    let mut circles = Vec::new();
    for (file, there) in &reach {
        // Two files are in one circle if each reaches the other.
        let together = |other: &&&str| reach.get(**other).is_some_and(|back| back.contains(file));
        let circle: BTreeSet<_> = there.iter().filter(together).map(|f| (*f).to_owned()).collect();
        if circle.len() > 1 && seen.insert(circle.clone()) {
            circles.push(circle);
        }
    }
    circles.sort_by_key(|circle| std::cmp::Reverse(circle.len()));
    circles
}

fn reached<'a>(graph: &'a Graph, from: &'a str) -> BTreeSet<&'a str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for next in graph.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(next.as_str()) {
                open.push(next);
            }
        }
    }
    reached
}

/// What ties a circle: who takes what from whom.
pub(crate) fn ties(graph: &Graph, circle: &BTreeSet<String>) -> Vec<String> {
    let arrows = circle.iter().flat_map(|from| graph[from].iter().map(move |(to, names)| (from, to, names)));
    let inside = arrows.filter(|(_, to, _)| circle.contains(*to));
    inside
        .map(|(from, to, names)| {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            format!("{from} takes {} from {to}", names.join(", "))
        })
        .collect()
}
