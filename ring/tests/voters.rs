//! Who votes: an odd number, over the zones, as steady as possible.

use atoll_ring::{
    ClusterId, Entry, Epoch, Member, MemberState, NodeId, Partitions, Plan, View, Wish, voters,
};

fn view(zones: &[&str]) -> View {
    let member = |(index, zone): (usize, &&str)| Member {
        id: NodeId(u32::try_from(index).unwrap() + 1),
        incarnation: 0,
        address: format!("127.0.0.1:{}", 7000 + index).parse().unwrap(),
        zone: (*zone).to_owned(),
        weight: 1,
        state: MemberState::Active,
    };
    let members = zones.iter().enumerate().map(member).collect();
    View::create(ClusterId([1; 16]), Partitions::new(64).unwrap(), 1, members).unwrap().0
}

fn ids(numbers: &[u32]) -> Vec<NodeId> {
    numbers.iter().copied().map(NodeId).collect()
}

/// Nobody is exchanged as long as all are fit, and a new cluster already has the voters it should have.
#[test]
fn the_first_voters_stay() {
    for count in 1..12 {
        let view = view(&vec!["a"; count]);
        assert_eq!(voters(&view, |_| true), view.voters(), "{count} members");
        assert_eq!(view.voters().len() % 2, 1);
    }
    let zones = ["a", "a", "a", "b", "b", "c"];
    let spread = view(&zones);
    assert_eq!(voters(&spread, |_| true), spread.voters());
    assert_eq!(spread.voters(), ids(&[1, 2, 4, 5, 6]), "two of a, two of b, one of c");
}

/// Whoever is not fit is replaced by somebody of the same zone if there is one; everybody else stays.
#[test]
fn only_the_unfit_are_replaced() {
    let view = view(&["a", "a", "b", "b", "c", "c", "c"]);
    assert_eq!(view.voters(), ids(&[1, 2, 3, 4, 5]));
    assert_eq!(voters(&view, |node| node != NodeId(5)), ids(&[1, 2, 3, 4, 6]));
    assert_eq!(voters(&view, |node| node != NodeId(1)), ids(&[2, 3, 4, 5, 6]));
}

/// The unfit vote if there is nobody else: fewer voters would be a smaller majority of fewer disks.
#[test]
fn the_unfit_are_better_than_nobody() {
    let view = view(&["a", "a", "a"]);
    assert_eq!(voters(&view, |node| node == NodeId(2)), ids(&[1, 2, 3]));
}

/// Whoever leaves does not vote.
#[test]
fn the_leaving_do_not_vote() {
    let view = view(&["a", "a", "a", "a"]);
    let wish = Wish::Leave { node: NodeId(2) };
    let command = Plan::of(&view, &wish).unwrap().command();
    let next = view.apply(&Entry { epoch: Epoch(2), at_ms: 0, command }).unwrap();
    assert_eq!(voters(&next, |_| true), ids(&[1, 3, 4]));
}
