//! A view travels between nodes and into files. What comes back is the same view, and nothing that
//! cannot be one.

use atoll_ring::{
    ClusterId, Epoch, Member, MemberState, NodeId, Owners, Partition, Partitions, Token, View,
};
use serde_json::{Value, json};

fn members() -> Vec<Member> {
    let member = |id: u32| Member {
        id: NodeId(id),
        incarnation: 1,
        address: ([10, 0, 0, id as u8], 4000).into(),
        zone: format!("z{}", id % 3),
        weight: 1,
        state: MemberState::Active,
    };
    [4, 1, 3, 2].map(member).to_vec()
}

fn view() -> View {
    let partitions = Partitions::new(8).unwrap();
    View::create(ClusterId([7; 16]), partitions, 3, members()).unwrap().0
}

/// The view as a document, with one partition under way to other owners.
fn moving() -> Value {
    let mut document = serde_json::to_value(view()).unwrap();
    document["epoch"] = json!(5);
    document["last_changed"][2] = json!(5);
    let owners = document["owners"][2].as_array().unwrap().clone();
    let joining = (1..=4).map(|id| json!(id)).find(|id| !owners.contains(id)).unwrap();
    document["moves"] = json!({ "2": { "target": [owners[0], joining, owners[2]] } });
    document
}

/// A new view is epoch 1, lists its members by id, and every key has an owner list of the right
/// length.
#[test]
fn a_new_view() {
    let view = view();
    assert_eq!((view.cluster(), view.epoch(), view.replicas()), (ClusterId([7; 16]), Epoch(1), 3));
    assert_eq!(view.members().iter().map(|member| member.id.0).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(view.member(NodeId(3)).unwrap().address.to_string(), "10.0.0.3:4000");
    assert_eq!(view.member(NodeId(5)), None);
    assert!(view.moves().is_empty());
    let partition = view.partition(Token(u64::MAX));
    assert_eq!(partition, Partition(7));
    assert_eq!(view.last_changed(partition), Epoch(1));
    let Owners::One(owners) = view.owners(partition) else { panic!("nothing moves") };
    assert_eq!(owners.len(), 3);
    let mut everybody: Vec<NodeId> = view.preference(partition).collect();
    everybody.sort();
    assert_eq!(everybody, [1, 2, 3, 4].map(NodeId));
}

/// A view says of its members what was said when it was planned, also after it has travelled.
#[test]
fn a_view_repeats_its_warnings() {
    let partitions = Partitions::new(8).unwrap();
    let (view, warnings) = View::create(ClusterId([7; 16]), partitions, 3, members()).unwrap();
    assert_eq!(warnings.len(), 2, "a small zone and few partitions: {warnings:?}");
    let text = serde_json::to_string(&view).unwrap();
    assert_eq!(serde_json::from_str::<View>(&text).unwrap().warnings(), warnings);
}

/// Through JSON and through postcard, also while a partition moves.
#[test]
fn a_view_travels_unchanged() {
    let moving: View = serde_json::from_value(moving()).unwrap();
    for view in [view(), moving] {
        let text = serde_json::to_string(&view).unwrap();
        assert_eq!(serde_json::from_str::<View>(&text).unwrap(), view);
        let bytes = postcard::to_stdvec(&view).unwrap();
        assert_eq!(postcard::from_bytes::<View>(&bytes).unwrap(), view);
    }
}

/// The table of owners is what the document says, also where the planner would have said something
/// else.
#[test]
fn the_table_is_read_and_not_planned_again() {
    let mut document = moving();
    document["owners"][4] = json!([2, 3, 4]);
    let one: View = serde_json::from_value(document.clone()).unwrap();
    assert_eq!(one.owners(Partition(4)), Owners::One(&[2, 3, 4].map(NodeId)));
    document["owners"][4] = json!([4, 2, 3]);
    let other: View = serde_json::from_value(document).unwrap();
    assert_eq!(other.owners(Partition(4)), Owners::One(&[4, 2, 3].map(NodeId)));
}

/// While a partition moves it has two owner sets; a bucket with a smaller N uses the first of each.
#[test]
fn a_moving_partition_has_two_owner_sets() {
    let view: View = serde_json::from_value(moving()).unwrap();
    let owners = view.owners(Partition(2));
    let Owners::Joint { old, new } = owners else { panic!("partition 2 moves") };
    assert_eq!((old[0], old[2]), (new[0], new[2]));
    assert_eq!(owners.all(), [old[0], old[1], old[2], new[1]]);
    assert!(owners.contains(old[1]) && owners.contains(new[1]) && !owners.contains(NodeId(9)));
    assert_eq!(owners.first(2), Owners::Joint { old: &old[..2], new: &new[..2] });
    assert_eq!(owners.first(1).all(), [old[0]]);
    assert_eq!(owners.first(9), owners);
    assert_eq!(view.last_changed(Partition(2)), Epoch(5));
}

/// Documents that are no views, each with the sentence that says why.
#[test]
fn what_cannot_be_a_view_is_refused() {
    let check = |tamper: &dyn Fn(&mut Value), message: &str| {
        let mut document = moving();
        tamper(&mut document);
        let error = serde_json::from_value::<View>(document).unwrap_err().to_string();
        assert!(error.contains(message), "{error:?} instead of {message:?}");
    };
    check(&|view| view["epoch"] = json!(0), "epochs count from 1");
    check(&|view| view["partitions"] = json!(7), "power of two");
    check(&|view| view["partitions"] = json!(16), "owners has 8 entries for 16 partitions");
    check(&|view| view["last_changed"] = json!([1]), "last_changed has 1 entries for 8 partitions");
    check(&|view| view["replicas"] = json!(0), "0 replicas");
    check(&|view| view["replicas"] = json!(2), "2 replicas cannot hold the 3 copies of a bucket");
    check(&|view| view["bucket_n"] = json!(0), "3 replicas cannot hold the 0 copies of a bucket");
    check(&|view| view["replicas"] = json!(5), "5 replicas need as many members");
    check(&|view| view["members"][1]["id"] = json!(1), "n1 is a member twice");
    check(
        &|view| view["members"][1]["id"] = json!(9),
        "members are not in the order of their ids at n3",
    );
    check(&|view| view["members"][1]["weight"] = json!(0), "n2 has weight 0");
    check(&|view| view["members"][3]["id"] = json!(9), "n4 owns partition");
    check(&|view| view["owners"][3] = json!([1, 2]), "partition 3 has 2 owners instead of 3");
    check(&|view| view["owners"][3] = json!([1, 2, 8]), "n8 owns partition 3 and is no member");
    check(&|view| view["owners"][3] = json!([1, 2, 1]), "n1 owns partition 3 twice");
    check(
        &|view| view["last_changed"][3] = json!(6),
        "partition 3 last changed in epoch 6, after epoch 5",
    );
    check(
        &|view| view["moves"]["8"] = view["moves"]["2"].clone(),
        "partition 8 moves and does not exist",
    );
    check(&|view| view["moves"]["2"]["target"] = json!([1, 1, 2]), "n1 owns partition 2 twice");
    check(
        &|view| view["moves"]["2"]["target"] = view["owners"][2].clone(),
        "moves to the owners it has",
    );
    check(&|view| view["cluster"] = json!("coral"), "is no cluster id");
}

/// Bytes cut short or flipped never panic: they are refused, or they are another view that is valid
/// in itself.
#[test]
fn damaged_bytes_never_panic() {
    let bytes = postcard::to_stdvec(&serde_json::from_value::<View>(moving()).unwrap()).unwrap();
    for length in 0..bytes.len() {
        assert!(postcard::from_bytes::<View>(&bytes[..length]).is_err());
    }
    for index in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << bit;
            if let Ok(view) = postcard::from_bytes::<View>(&damaged) {
                for partition in view.partitions().all() {
                    assert!(!view.owners(partition).all().is_empty());
                }
            }
        }
    }
}

/// From which N on a node holds keys, said a second time by looking: the least n whose first owners it is among, in either
/// set. All further ones contain it, too.
#[test]
fn a_place_among_owners_says_from_which_n_on() {
    let nodes: Vec<NodeId> = (1..=5).map(NodeId).collect();
    let sets: Vec<&[NodeId]> = (0..4)
        .flat_map(|from| (from + 1..=5).map(move |to| (from, to)))
        .map(|(from, to)| &nodes[from..to])
        .collect();
    let check = |owners: Owners<'_>| {
        for node in (1..=6).map(NodeId) {
            let holds = |n: &u8| owners.first(*n).contains(node);
            assert_eq!(owners.from_n(node), (1..=owners.most()).find(holds), "{owners:?} {node}");
            assert!((owners.from_n(node).unwrap_or(9)..9).all(|n| holds(&n)), "{owners:?} {node}");
        }
        assert_eq!(owners.first(owners.most()), owners);
        assert_ne!(owners.first(owners.most() - 1), owners);
    };
    for old in &sets {
        check(Owners::One(old));
        for new in &sets {
            check(Owners::Joint { old, new });
        }
    }
}

/// Tokens of a few keys, for ever: change one and every stored key lies in the wrong place.
#[test]
fn golden_tokens() {
    let check = |bucket: &str, key: &str, token: u64| {
        let (bucket, key) = (bucket.as_bytes(), key.as_bytes());
        let lengths = [bucket, key].map(|name| (name.len() as u32).to_le_bytes());
        let hash = blake3::hash(&[&lengths[0][..], bucket, &lengths[1], key].concat());
        let actual = Token::of(bucket, key);
        assert_eq!(actual.0.to_be_bytes(), hash.as_bytes()[..8]);
        assert_eq!(actual, Token(token), "{:#018x}", actual.0);
    };
    check("", "", 0x71e0_a991_7356_4931);
    check("default", "k", 0x92de_3d98_023e_d76d);
    check("ab", "c", 0xd2e6_3ade_f783_19fb);
    check("a", "bc", 0xb379_faa8_6a52_cdb0);
    check("users", "ümläut \u{1f3dd}", 0x4c90_9ebd_93f3_1be1);
}
