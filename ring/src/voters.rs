//! Who should vote on the membership log.
//!
//! One, three or five members: more would make every change slower and survive no more that happens in practice. They stand
//! in as many zones as there are, and whoever votes stays as long as it is fit, because every change of voters is a risk.

use std::collections::BTreeMap;

use crate::{MemberState, NodeId, VOTERS_MAX, View};

/// The voters that this view should have, ascending. Those who vote and are fit stay, unless the zones could be covered
/// better.
///
/// Only active members vote; a member that is not fit (it is out of reach for long, or its copy of the log is lost) votes only
/// if there is nobody else.
#[must_use]
pub fn voters(view: &View, is_fit: impl Fn(NodeId) -> bool) -> Vec<NodeId> {
    let active = || view.members().iter().filter(|member| member.state == MemberState::Active);
    let most = seats(active().count());
    let mut chosen: Vec<NodeId> = Vec::new();
    let mut per_zone: BTreeMap<&str, usize> = BTreeMap::new();
    while chosen.len() < most {
        let next = active().filter(|member| !chosen.contains(&member.id)).min_by_key(|member| {
            let in_zone = per_zone.get(member.zone.as_str()).copied().unwrap_or(0);
            (!is_fit(member.id), in_zone, !view.voters().contains(&member.id), member.id)
        });
        let Some(next) = next else { break };
        *per_zone.entry(&next.zone).or_default() += 1;
        chosen.push(next.id);
    }
    chosen.sort_unstable();
    chosen
}

/// How many vote among so many members: an odd number, for an even one survives no more failures.
pub(crate) fn seats(members: usize) -> usize {
    match members {
        0..=2 => 1,
        3 | 4 => 3,
        _ => VOTERS_MAX,
    }
}
