//! What a wish means for the links between nodes. Pure: who there is goes in, who bears what comes out.
//!
//! A fault of a link is borne by its sender. So a partition becomes rules on both sides of every cut, and a cut in one
//! direction rules on one side.

use std::collections::{BTreeMap, BTreeSet};

use atoll_ring::NodeId;
use atoll_wire::{
    FaultList,
    faults::{Chance, LinkFault, When},
};

/// A node as far as a wish is concerned: its name and its zone.
pub type Named = (NodeId, String);

/// What shall be broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkWish {
    /// Nodes of different groups do not hear each other; those that are not named are one group more.
    Partition(Vec<Vec<NodeId>>),
    /// A node hears nobody and is heard by nobody, or one of both.
    Isolate(NodeId, Option<Way>),
    /// A partition by its shape.
    Shape(Shape),
    /// Something happens to datagrams.
    Bad {
        /// What it is called; a later one of the same name takes its place.
        name: &'static str,
        /// What happens. Whom it is for is filled in.
        fault: Box<LinkFault>,
        /// On which links: all, all of one node, or the one between two.
        between: Vec<NodeId>,
    },
    /// The latencies of three regions.
    Wan3,
}

/// One direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// What is sent to the node is lost.
    In,
    /// What the node sends is lost.
    Out,
}

/// A partition by its shape, in Jepsen's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Each node hears a majority, and no two hear the same.
    Ring,
    /// The first half and the rest, which has one more where the number is odd.
    Half,
    /// Two halves, and one node between that hears both.
    Bridge,
    /// Fewer than a third, and at least one, are cut off.
    Minority,
}

/// Why a wish cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WishError {
    /// No such node.
    #[error("there is no node {0}")]
    Unknown(NodeId),
    /// A group without nodes.
    #[error("a group has no nodes")]
    EmptyGroup,
    /// A node in two groups.
    #[error("{0} is in two groups, and a node can be on one side only")]
    TwoGroups(NodeId),
    /// All nodes are in one group.
    #[error("all nodes are in one group: that cuts nothing")]
    OneGroup,
    /// A link from a node to itself.
    #[error("a link is between two nodes, and {0} is named twice")]
    Same(NodeId),
    /// More than two nodes for a link.
    #[error("{0} nodes are named: a link is between two")]
    TooManyNodes(usize),
    /// Too few nodes for the shape.
    #[error("{shape} needs at least {needed} nodes, and there are {there}")]
    TooFew {
        /// Which shape.
        shape: &'static str,
        /// How many it needs.
        needed: usize,
        /// How many there are.
        there: usize,
    },
}

/// What each node bears, and what it bore before that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The rules of each node that has some.
    pub rules: BTreeMap<NodeId, Vec<LinkFault>>,
    /// Rules of this name go from all nodes; without links named all of them, else those of these links.
    replaced: (&'static str, Option<BTreeSet<(NodeId, NodeId)>>),
}

impl LinkWish {
    /// What it means for these nodes.
    ///
    /// # Errors
    /// See [`WishError`].
    pub fn plan(&self, nodes: &[Named], when: Option<When>) -> Result<Plan, WishError> {
        let ids: Vec<NodeId> = nodes.iter().map(|(id, _)| *id).collect();
        let mut plan = match self {
            LinkWish::Partition(groups) => cuts(between_groups(groups, &ids)?),
            LinkWish::Isolate(node, way) => cuts(around(*node, *way, &ids)?),
            LinkWish::Shape(shape) => cuts(shape.cuts(&ids)?),
            LinkWish::Bad { name, fault, between } => bad(name, fault, between, &ids)?,
            LinkWish::Wan3 => wan3(nodes)?,
        };
        for rule in plan.rules.values_mut().flatten() {
            rule.when = when;
        }
        Ok(plan)
    }
}

impl Plan {
    /// Puts a node's part into its list: what is replaced goes, and what is over by now.
    pub fn apply(&self, node: NodeId, list: &mut FaultList, now_ms: u64) {
        let (name, links) = &self.replaced;
        let is_replaced = |rule: &LinkFault| {
            rule.name == *name
                && links.as_ref().is_none_or(|links| links.contains(&(node, rule.peer)))
        };
        list.links.retain(|rule| !is_replaced(rule) && !is_over(rule, now_ms));
        list.links.extend(self.rules.get(&node).cloned().unwrap_or_default());
    }
}

/// Whether a rule has ended for good.
#[must_use]
pub fn is_over(rule: &LinkFault, now_ms: u64) -> bool {
    rule.when.is_some_and(|when| !when.is_at(now_ms) && when.changes_after(now_ms).is_none())
}

/// Rules that cut these links. They take the place of every earlier cut.
fn cuts(links: BTreeSet<(NodeId, NodeId)>) -> Plan {
    let mut rules: BTreeMap<NodeId, Vec<LinkFault>> = BTreeMap::new();
    for (from, to) in links {
        let cut = LinkFault { cut: true, ..LinkFault::to(to, PARTITION) };
        rules.entry(from).or_default().push(cut);
    }
    Plan { rules, replaced: (PARTITION, None) }
}

fn between_groups(
    groups: &[Vec<NodeId>],
    nodes: &[NodeId],
) -> Result<BTreeSet<(NodeId, NodeId)>, WishError> {
    let mut side: BTreeMap<NodeId, usize> = BTreeMap::new();
    for (number, group) in groups.iter().enumerate() {
        if group.is_empty() {
            return Err(WishError::EmptyGroup);
        }
        for node in group {
            known(*node, nodes)?;
            if side.insert(*node, number).is_some() {
                return Err(WishError::TwoGroups(*node));
            }
        }
    }
    let side = |node: &NodeId| side.get(node).copied().unwrap_or(groups.len());
    let cuts: BTreeSet<_> = pairs(nodes).filter(|(a, b)| side(a) != side(b)).collect();
    if cuts.is_empty() { Err(WishError::OneGroup) } else { Ok(cuts) }
}

fn around(
    node: NodeId,
    way: Option<Way>,
    nodes: &[NodeId],
) -> Result<BTreeSet<(NodeId, NodeId)>, WishError> {
    known(node, nodes)?;
    if nodes.len() < 2 {
        return Err(WishError::TooFew { shape: "isolate", needed: 2, there: nodes.len() });
    }
    let cut = |(from, to): &(NodeId, NodeId)| match way {
        None => *from == node || *to == node,
        Some(Way::In) => *to == node,
        Some(Way::Out) => *from == node,
    };
    Ok(pairs(nodes).filter(cut).collect())
}

impl Shape {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Shape::Ring => "ring",
            Shape::Half => "half",
            Shape::Bridge => "bridge",
            Shape::Minority => "minority",
        }
    }

    /// Fewer nodes make another shape.
    fn needs(self) -> usize {
        match self {
            Shape::Half | Shape::Minority => 2,
            Shape::Bridge => 3,
            Shape::Ring => 4,
        }
    }

    /// Links that are cut, of these nodes in this order.
    fn cuts(self, nodes: &[NodeId]) -> Result<BTreeSet<(NodeId, NodeId)>, WishError> {
        let there = nodes.len();
        if there < self.needs() {
            return Err(WishError::TooFew { shape: self.word(), needed: self.needs(), there });
        }
        // of each two places in the row: do those who stand there hear each other?
        let hear = |one: usize, other: usize| -> bool {
            match self {
                Shape::Half => (one < there / 2) == (other < there / 2),
                Shape::Minority => {
                    let few = ((there - 1) / 3).max(1);
                    (one < few) == (other < few)
                }
                Shape::Bridge => {
                    let bridge = (there - 1) / 2;
                    one == bridge || other == bridge || (one < bridge) == (other < bridge)
                }
                Shape::Ring => {
                    let apart = one.abs_diff(other);
                    // a majority without oneself, half of it on either side
                    apart.min(there - apart) <= (there / 2).div_ceil(2)
                }
            }
        };
        let place = |node: &NodeId| nodes.iter().position(|other| other == node).unwrap_or(there);
        Ok(pairs(nodes).filter(|(a, b)| !hear(place(a), place(b))).collect())
    }
}

fn bad(
    name: &'static str,
    fault: &LinkFault,
    between: &[NodeId],
    nodes: &[NodeId],
) -> Result<Plan, WishError> {
    between.iter().try_for_each(|node| known(*node, nodes))?;
    let meant = |(from, to): &(NodeId, NodeId)| match between {
        [] => true,
        [node] => from == node || to == node,
        [one, other, ..] => (from, to) == (one, other) || (from, to) == (other, one),
    };
    match between {
        [one, other] if one == other => return Err(WishError::Same(*one)),
        [_, _, _, ..] => return Err(WishError::TooManyNodes(between.len())),
        [] | [_] | [_, _] => {}
    }
    let links: BTreeSet<_> = pairs(nodes).filter(meant).collect();
    if links.is_empty() {
        return Err(WishError::TooFew { shape: name, needed: 2, there: nodes.len() });
    }
    let mut rules: BTreeMap<NodeId, Vec<LinkFault>> = BTreeMap::new();
    for (from, to) in &links {
        let fault = LinkFault { peer: *to, name: name.to_owned(), ..fault.clone() };
        rules.entry(*from).or_default().push(fault);
    }
    Ok(Plan { rules, replaced: (name, Some(links)) })
}

/// The latencies of three regions, as between Virginia, Ireland and Tokyo: half a round trip each way. Nodes stand in the
/// region of their zone if there are three zones, else they are dealt out in turn.
fn wan3(nodes: &[Named]) -> Result<Plan, WishError> {
    if nodes.len() < 2 {
        return Err(WishError::TooFew { shape: WAN3, needed: 2, there: nodes.len() });
    }
    let zones: BTreeSet<&str> = nodes.iter().map(|(_, zone)| zone.as_str()).collect();
    let region = |index: usize, zone: &str| match zones.len() {
        3 => zones.iter().position(|other| *other == zone).unwrap_or(0),
        _ => index % 3,
    };
    let placed: Vec<(NodeId, usize)> = nodes
        .iter()
        .enumerate()
        .map(|(index, (node, zone))| (*node, region(index, zone)))
        .collect();
    let mut rules: BTreeMap<NodeId, Vec<LinkFault>> = BTreeMap::new();
    for (from, here) in &placed {
        for (to, there) in placed.iter().filter(|(to, there)| to != from && there != here) {
            let (delay_ms, jitter_ms) = ONE_WAY_MS[here + there - 1];
            let (delay_ms, jitter_ms) = (Some(delay_ms), Some(jitter_ms));
            let rule = LinkFault { delay_ms, jitter_ms, ..LinkFault::to(*to, WAN3) };
            rules.entry(*from).or_default().push(rule);
        }
    }
    Ok(Plan { rules, replaced: (WAN3, None) })
}

/// Between the first and second region, the first and third, the second and third: delay and jitter.
const ONE_WAY_MS: [(u32, u32); 3] = [(35, 2), (75, 4), (105, 5)];

/// Every link: each ordered pair of different nodes.
fn pairs(nodes: &[NodeId]) -> impl Iterator<Item = (NodeId, NodeId)> + '_ {
    nodes.iter().flat_map(move |from| {
        nodes.iter().filter(move |to| *to != from).map(move |to| (*from, *to))
    })
}

fn known(node: NodeId, nodes: &[NodeId]) -> Result<(), WishError> {
    if nodes.contains(&node) { Ok(()) } else { Err(WishError::Unknown(node)) }
}

/// A bad line: the same chance for a datagram to be lost, doubled, and let overtake.
#[must_use]
pub fn flaky(chance: Chance) -> LinkFault {
    LinkFault {
        drop: Some(chance),
        duplicate: Some(chance),
        reorder: Some(chance),
        ..LinkFault::to(NodeId(0), "flaky")
    }
}

const PARTITION: &str = "partition";
const WAN3: &str = "wan3";

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(count: u32) -> Vec<Named> {
        (1..=count).map(|id| (NodeId(id), format!("z{}", (id - 1) % 3 + 1))).collect()
    }

    /// The links as a matrix: row by sender, `#` where it is cut.
    fn matrix(wish: &LinkWish, count: u32) -> Result<String, String> {
        let plan = wish.plan(&nodes(count), None).map_err(|error| error.to_string())?;
        let is_cut = |from: u32, to: u32| {
            let rules = plan.rules.get(&NodeId(from)).into_iter().flatten();
            rules.filter(|rule| rule.cut).any(|rule| rule.peer == NodeId(to))
        };
        let row = |from| -> String {
            (1..=count).map(|to| if is_cut(from, to) { '#' } else { '.' }).collect()
        };
        Ok((1..=count).map(row).collect::<Vec<_>>().join(" "))
    }

    fn groups(groups: &[&[u32]]) -> LinkWish {
        let ids = |group: &&[u32]| group.iter().map(|id| NodeId(*id)).collect();
        LinkWish::Partition(groups.iter().map(ids).collect())
    }

    /// Every wish that cuts, drawn.
    #[test]
    fn who_hears_whom() {
        let check = |wish: LinkWish, count, drawn: &str| {
            let seen = matrix(&wish, count).unwrap_or_else(|error| error);
            assert_eq!(seen, drawn, "{wish:?}");
        };
        check(groups(&[&[1, 2], &[3, 4, 5]]), 5, "..### ..### ##... ##... ##...");
        check(groups(&[&[2]]), 3, ".#. #.# .#.");
        check(groups(&[&[1], &[2]]), 3, ".## #.# ##.");
        check(groups(&[&[1], &[]]), 3, "a group has no nodes");
        check(
            groups(&[&[1, 2], &[2, 3]]),
            3,
            "n2 is in two groups, and a node can be on one side only",
        );
        check(groups(&[&[1, 1]]), 3, "n1 is in two groups, and a node can be on one side only");
        check(groups(&[&[1, 9]]), 3, "there is no node n9");
        check(groups(&[&[1, 2, 3]]), 3, "all nodes are in one group: that cuts nothing");
        let isolate = |way| LinkWish::Isolate(NodeId(2), way);
        check(isolate(None), 3, ".#. #.# .#.");
        check(isolate(Some(Way::In)), 3, ".#. ... .#.");
        check(isolate(Some(Way::Out)), 3, "... #.# ...");
        check(isolate(None), 1, "there is no node n2");
        let shape = LinkWish::Shape;
        check(shape(Shape::Half), 5, "..### ..### ##... ##... ##...");
        check(shape(Shape::Half), 4, "..## ..## ##.. ##..");
        check(shape(Shape::Minority), 5, ".#### #.... #.... #.... #....");
        check(shape(Shape::Minority), 2, ".# #.");
        check(shape(Shape::Bridge), 5, "...## ...## ..... ##... ##...");
        check(shape(Shape::Bridge), 3, "..# ... #..");
        check(shape(Shape::Ring), 5, "..##. ...## #...# ##... .##..");
        check(shape(Shape::Ring), 3, "ring needs at least 4 nodes, and there are 3");
        check(shape(Shape::Half), 1, "half needs at least 2 nodes, and there are 1");
    }

    /// A ring is one: everybody hears a majority, nobody the same as another.
    #[test]
    fn a_ring_is_made_of_majorities() {
        for count in 4..=16 {
            let drawn = matrix(&LinkWish::Shape(Shape::Ring), count).expect("enough nodes");
            let heard: BTreeSet<&str> = drawn.split(' ').collect();
            let is_whole = heard.len() == 1;
            assert!(is_whole || heard.len() == count as usize, "{count}: {drawn}");
            assert!(!is_whole || count < 5, "{count}: nothing is cut");
            for row in heard {
                let majority = count as usize / 2 + 1;
                assert!(row.matches('.').count() >= majority, "{count}: {row}");
            }
        }
    }

    /// Which links a fault is for, and what takes whose place in a node's list.
    #[test]
    fn later_wishes_replace_earlier_ones() {
        let slow = |delay_ms, between: &[u32]| LinkWish::Bad {
            name: "slow",
            fault: Box::new(LinkFault {
                delay_ms: Some(delay_ms),
                ..LinkFault::to(NodeId(0), "slow")
            }),
            between: between.iter().map(|id| NodeId(*id)).collect(),
        };
        let over = When { from_ms: 1, until_ms: Some(2), every_ms: None };
        let mut list = FaultList::default();
        list.links.push(LinkFault {
            cut: true,
            when: Some(over),
            ..LinkFault::to(NodeId(3), "by-hand")
        });
        let mut seen = |wish: LinkWish| -> String {
            let plan = wish.plan(&nodes(3), None).expect("can be");
            plan.apply(NodeId(1), &mut list, 5);
            let rule = |rule: &LinkFault| match rule.delay_ms {
                Some(ms) => format!("{} {ms}", rule.peer),
                None => format!("{} {}", rule.peer, rule.name),
            };
            list.links.iter().map(rule).collect::<Vec<_>>().join(", ")
        };
        assert_eq!(seen(slow(40, &[1, 2])), "n2 40");
        assert_eq!(seen(slow(50, &[3])), "n2 40, n3 50");
        assert_eq!(seen(groups(&[&[1]])), "n2 40, n3 50, n2 partition, n3 partition");
        assert_eq!(seen(groups(&[&[2]])), "n2 40, n3 50, n2 partition");
        assert_eq!(seen(slow(60, &[2, 3])), "n2 40, n3 50, n2 partition");
        assert_eq!(seen(slow(70, &[])), "n2 partition, n2 70, n3 70");
        let refused = |wish: LinkWish| wish.plan(&nodes(3), None).unwrap_err();
        assert_eq!(refused(slow(1, &[2, 2])), WishError::Same(NodeId(2)));
        assert_eq!(refused(slow(1, &[1, 2, 3])), WishError::TooManyNodes(3));
        assert_eq!(refused(slow(1, &[7])), WishError::Unknown(NodeId(7)));
    }

    /// Three regions: the same latency both ways, none at home; by zone where there are three, else in turn.
    #[test]
    fn three_regions() {
        let delays = |nodes: &[Named]| -> Vec<String> {
            let plan = LinkWish::Wan3.plan(nodes, None).expect("can be");
            let from = |(id, _): &Named| {
                let rules = plan.rules.get(id).into_iter().flatten();
                rules
                    .map(|rule| format!("{}:{}", rule.peer, rule.delay_ms.unwrap_or(0)))
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            nodes.iter().map(from).collect()
        };
        let expected = ["n2:35 n3:75", "n1:35 n3:105 n4:35", "n1:75 n2:105 n4:75", "n2:35 n3:75"];
        assert_eq!(delays(&nodes(4)), expected);
        let one_zone: Vec<Named> = nodes(4).into_iter().map(|(id, _)| (id, "z1".into())).collect();
        assert_eq!(delays(&one_zone), expected);
        let mut swapped = nodes(3);
        swapped[0].1 = "z3".into();
        swapped[2].1 = "z1".into();
        assert_eq!(delays(&swapped), ["n2:105 n3:75", "n1:105 n3:35", "n1:75 n2:35"]);
    }
}
