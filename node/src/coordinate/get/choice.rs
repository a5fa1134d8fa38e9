//! Whom a read asks: enough owners in each owner set, and no more. Pure.
//!
//! A partition that moves has two sets, and most owners are in both: one answer then counts twice.
//!
//! ```text
//!   r = 2    old  n1 n2 n3     n1 and n2 are enough; n3 and n4 wait in reserve
//!            new  n1 n2 n4     n1 does not answer: n3 is asked for old, n4 for new
//! ```

use std::collections::VecDeque;

use atoll_ring::NodeId;

/// The owners in the order in which to ask them, and how many at once. Given is the best order as far as one is as good as
/// another.
pub(super) fn enough(
    order: &[NodeId],
    sets: &[Vec<NodeId>],
    needed: u8,
) -> (VecDeque<NodeId>, usize) {
    let mut short = vec![needed; sets.len()];
    let (mut asked, mut reserve) = (VecDeque::new(), VecDeque::new());
    for owner in order {
        let of = |set: &Vec<NodeId>| set.contains(owner);
        if !sets.iter().zip(&short).any(|(set, short)| *short > 0 && of(set)) {
            reserve.push_back(*owner);
            continue;
        }
        asked.push_back(*owner);
        for (set, short) in sets.iter().zip(&mut short) {
            *short = short.saturating_sub(u8::from(of(set)));
        }
    }
    let at_once = asked.len();
    asked.append(&mut reserve);
    (asked, at_once)
}

/// Takes from the reserve whoever is asked when this owner gives no answer, or when one more answer is wanted in every set:
/// an owner for each set, and one for both if there is one. Says too whether every such set got somebody.
pub(super) fn instead_of(
    reserve: &mut VecDeque<NodeId>,
    sets: &[Vec<NodeId>],
    silent: Option<NodeId>,
) -> (Vec<NodeId>, bool) {
    let concerned = |set: &&Vec<NodeId>| silent.is_none_or(|silent| set.contains(&silent));
    let concerned: Vec<&Vec<NodeId>> = sets.iter().filter(concerned).collect();
    if let Some(index) =
        reserve.iter().position(|next| concerned.iter().all(|set| set.contains(next)))
    {
        return (reserve.remove(index).into_iter().collect(), true);
    }
    let mut next = Vec::new();
    for set in &concerned {
        if let Some(index) = reserve.iter().position(|next| set.contains(next)) {
            next.extend(reserve.remove(index));
        }
    }
    let all = next.len() == concerned.len();
    (next, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(ids: &[u32]) -> Vec<NodeId> {
        ids.iter().copied().map(NodeId).collect()
    }

    /// Always the first ones that are of use to a set that lacks answers; in both sets there are enough of them then.
    #[test]
    fn those_asked_first_are_enough_in_both_sets_and_none_is_too_many() {
        let check = |order: &[u32], sets: &[&[u32]], needed: u8, first: &[u32], rest: &[u32]| {
            let sets: Vec<Vec<NodeId>> = sets.iter().map(|set| nodes(set)).collect();
            let (mut asked, at_once) = enough(&nodes(order), &sets, needed);
            let reserve = asked.split_off(at_once);
            assert_eq!(Vec::from(asked), nodes(first), "{order:?} in {sets:?}, {needed}");
            assert_eq!(Vec::from(reserve), nodes(rest), "{order:?} in {sets:?}, {needed}");
        };
        check(&[2, 1, 3], &[&[1, 2, 3]], 2, &[2, 1], &[3]);
        check(&[1, 2, 3], &[&[1, 2, 3]], 3, &[1, 2, 3], &[]);
        check(&[1, 2, 3, 4], &[&[1, 2, 3], &[1, 2, 4]], 2, &[1, 2], &[3, 4]);
        check(&[4, 3, 1, 2], &[&[1, 2, 3], &[1, 2, 4]], 2, &[4, 3, 1], &[2]);
        check(&[1, 2, 3, 4], &[&[1, 2, 3], &[1, 2, 4]], 3, &[1, 2, 3, 4], &[]);
        check(&[3, 4, 1, 2], &[&[1, 2, 3], &[1, 2, 4]], 1, &[3, 4], &[1, 2]);
        check(&[1, 2, 3, 4, 5, 6], &[&[1, 2, 3], &[4, 5, 6]], 2, &[1, 2, 4, 5], &[3, 6]);
    }

    /// Whoever takes the place of a silent owner counts where that owner would have counted.
    #[test]
    fn each_set_of_a_silent_owner_gets_another() {
        let sets = [nodes(&[1, 2, 3]), nodes(&[1, 2, 4])];
        let check =
            |reserve: &[u32], silent: Option<u32>, next: &[u32], all: bool, left: &[u32]| {
                let mut queue = VecDeque::from(nodes(reserve));
                let outcome = instead_of(&mut queue, &sets, silent.map(NodeId));
                assert_eq!(outcome, (nodes(next), all), "{reserve:?} for {silent:?}");
                assert_eq!(Vec::from(queue), nodes(left), "{reserve:?} for {silent:?}");
            };
        check(&[3, 4], Some(1), &[3, 4], true, &[]);
        check(&[3, 4, 2], Some(1), &[2], true, &[3, 4]);
        check(&[3, 4], Some(4), &[4], true, &[3]);
        check(&[3], Some(1), &[3], false, &[]);
        check(&[], Some(1), &[], false, &[]);
        check(&[3, 4], None, &[3, 4], true, &[]);
        check(&[1], None, &[1], true, &[]);
    }
}
