//! Which of two nodes has less to do for this client.
//!
//! A request goes to the better of two nodes drawn at random, the one with fewer of our requests in flight ("the power of
//! two choices", Mitzenmacher 1996). A node that has died without a word keeps what it was sent: soon it has the most in
//! flight, and what comes then goes to the others, long before its silence is noticed. Drawn blindly, it would within
//! milliseconds hold every worker of a closed loop.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use atoll_ring::NodeId;
use rand::{Rng, seq::SliceRandom as _};

/// Requests that are not answered yet, by node.
#[derive(Clone, Default)]
pub(crate) struct InFlight(Arc<Mutex<BTreeMap<NodeId, u32>>>);

/// One of them; it counts until this is dropped.
pub(crate) struct OneMore {
    all: InFlight,
    node: NodeId,
}

impl InFlight {
    /// A request is sent.
    pub(crate) fn send(&self, node: NodeId) -> OneMore {
        *self.0.lock().expect("no panic holds it").entry(node).or_default() += 1;
        OneMore { all: self.clone(), node }
    }

    /// Puts nodes in the order in which they are to be asked: at random, but the better of the first two first.
    pub(crate) fn draw(&self, nodes: &mut [NodeId], dice: &mut impl Rng) {
        nodes.shuffle(dice);
        if let [first, second, ..] = nodes {
            let all = self.0.lock().expect("no panic holds it");
            let of = |node: &NodeId| all.get(node).copied().unwrap_or(0);
            if of(second) < of(first) {
                std::mem::swap(first, second);
            }
        }
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().expect("no panic holds it");
        match all.get_mut(&self.node) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) | None => drop(all.remove(&self.node)),
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::{SeedableRng as _, rngs::SmallRng};

    use super::*;

    /// Sixty-four workers, three nodes, one of which dies with its share: of a thousand requests drawn from then on it gets
    /// a few, while the others answer. Drawn blindly it would get them all to itself.
    #[test]
    fn who_does_not_answer_gets_little_more() {
        let (in_flight, mut dice) = (InFlight::default(), SmallRng::seed_from_u64(1));
        let mut nodes = [1, 2, 3].map(NodeId);
        let dead = NodeId(2);
        let mut held: Vec<OneMore> = (0..21).map(|_| in_flight.send(dead)).collect();
        let mut answering: Vec<OneMore> =
            (0..43).map(|index| in_flight.send(NodeId(1 + 2 * (index % 2)))).collect();
        for index in 0..1000 {
            let place = index % answering.len();
            drop(answering.swap_remove(place));
            in_flight.draw(&mut nodes, &mut dice);
            let sent = in_flight.send(nodes[0]);
            if nodes[0] == dead { held.push(sent) } else { answering.push(sent) }
        }
        assert!((21..=26).contains(&held.len()), "{}", held.len());
        drop((held, answering));
        assert!(in_flight.0.lock().unwrap().is_empty(), "whoever is answered is forgotten");
    }

    /// Among equals all orders come.
    #[test]
    fn equals_come_in_any_order() {
        let (in_flight, mut dice) = (InFlight::default(), SmallRng::seed_from_u64(1));
        let mut seen = std::collections::BTreeSet::new();
        let mut nodes = [1, 2, 3].map(NodeId);
        for _ in 0..200 {
            in_flight.draw(&mut nodes, &mut dice);
            seen.insert(nodes);
        }
        assert_eq!(seen.len(), 6);
        in_flight.draw(&mut [], &mut dice);
    }
}
