//! Whether the receipt of an acknowledged write shows what the write asked for. Whoever judges histories asks this of every
//! receipt, and would not know a better place to find out than beside the receipt.

use std::collections::BTreeSet;

use crate::{Outcome, Receipt};

impl Receipt {
    /// What is wrong with it, if it came with an acknowledged write.
    pub fn untrue_of_write(&self) -> Option<&'static str> {
        let acks = || {
            let held = |outcome| matches!(outcome, Outcome::Durable | Outcome::Written);
            self.replicas.iter().filter(move |line| held(line.outcome))
        };
        let seats: BTreeSet<u32> =
            acks().map(|line| line.stands_in_for.unwrap_or(line.node)).collect();
        let owners = acks().filter(|line| line.stands_in_for.is_none()).count();
        let durable = acks().filter(|line| line.outcome == Outcome::Durable).count();
        let nodes: BTreeSet<u32> = self.replicas.iter().map(|line| line.node).collect();
        if seats.len() < usize::from(self.needed) {
            Some("shows too few seats")
        } else if owners < usize::from(self.owners_needed) {
            Some("shows too few owners")
        } else if durable < usize::from(self.durable_needed) {
            Some("shows too few that are fsynced")
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
    use atoll_ring::Epoch;

    use super::*;
    use crate::ReplicaReport;

    /// Two acknowledgements of owners were asked for, both fsynced.
    #[test]
    fn what_is_missing_is_named() {
        use Outcome::{Durable, Silent, Written};
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
            };
            assert_eq!(receipt.untrue_of_write(), expected, "{lines:?}");
        };
        check(&[(1, None, Durable), (2, None, Durable), (3, None, Silent)], None);
        check(&[(1, None, Durable), (2, None, Silent)], Some("shows too few seats"));
        check(&[(1, None, Durable), (4, Some(1), Durable)], Some("shows too few seats"));
        check(&[(1, None, Durable), (4, Some(2), Durable)], Some("shows too few owners"));
        check(&[(1, None, Durable), (2, None, Written)], Some("shows too few that are fsynced"));
        check(
            &[(1, None, Durable), (2, None, Durable), (2, None, Durable)],
            Some("names a node twice"),
        );
    }
}
