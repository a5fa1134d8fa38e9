//! Whether the receipt of an acknowledged write shows what the write asked for. Whoever records a history asks this of every
//! receipt: the simulator and the load generator.

use std::collections::BTreeSet;

use atoll_ring::Quorum;

use crate::{Outcome, Receipt};

impl Receipt {
    /// What is wrong with it, if it came with an acknowledged write that asked for this.
    pub fn untrue_of_write(&self, quorum: &Quorum) -> Option<&'static str> {
        let acks = |durable: bool| {
            let counts = move |outcome| match outcome {
                Outcome::Durable => true,
                Outcome::Written => !durable,
                _ => false,
            };
            self.replicas.iter().filter(move |line| counts(line.outcome))
        };
        let seats = |durable| {
            let seats = acks(durable).map(|line| line.stands_in_for.unwrap_or(line.node));
            seats.collect::<BTreeSet<u32>>().len()
        };
        let owners = acks(false).filter(|line| line.stands_in_for.is_none()).count();
        let nodes: BTreeSet<u32> = self.replicas.iter().map(|line| line.node).collect();
        if seats(false) < usize::from(quorum.w()) {
            Some("shows too few seats")
        } else if seats(true) < usize::from(quorum.dw()) {
            Some("shows too few fsyncs")
        } else if owners < usize::from(quorum.pw()) {
            Some("shows too few owners")
        } else if nodes.len() < self.replicas.len() {
            Some("names a node twice")
        } else if self.hinted.iter().any(|owner| self.unhinted.contains(owner)) {
            Some("calls an owner hinted and unhinted")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use atoll_ring::{Epoch, QuorumRequest};

    use super::*;
    use crate::ReplicaReport;

    /// Two acknowledgements of owners were asked for, both fsynced.
    #[test]
    fn what_is_missing_is_named() {
        use Outcome::{Durable, Silent, Written};
        let strict = QuorumRequest { sloppy: Some(false), ..QuorumRequest::default() };
        let quorum = Quorum::new(&strict, 3).expect("as usual");
        let check = |lines: &[(u32, Option<u32>, Outcome)], expected: Option<&str>| {
            let line =
                |(node, stands_in_for, outcome): &(u32, Option<u32>, Outcome)| ReplicaReport {
                    node: *node,
                    outcome: *outcome,
                    micros: 1,
                    stands_in_for: *stands_in_for,
                };
            let receipt = Receipt {
                epoch: Epoch(1),
                coordinator: 1,
                n: 3,
                needed: 2,
                owners_needed: 2,
                durable_needed: 2,
                replicas: lines.iter().map(line).collect(),
                hinted: vec![],
                unhinted: vec![],
                repaired: vec![],
                trace: None,
            };
            assert_eq!(receipt.untrue_of_write(&quorum), expected, "{lines:?}");
        };
        check(&[(1, None, Durable), (2, None, Durable), (3, None, Silent)], None);
        check(&[(1, None, Durable), (2, None, Silent)], Some("shows too few seats"));
        check(&[(1, None, Durable), (4, Some(1), Durable)], Some("shows too few seats"));
        check(&[(1, None, Durable), (4, Some(2), Durable)], Some("shows too few owners"));
        check(&[(1, None, Durable), (2, None, Written)], Some("shows too few fsyncs"));
        let twice = [(1, None, Durable), (2, None, Durable), (2, None, Durable)];
        check(&twice, Some("names a node twice"));
    }
}
