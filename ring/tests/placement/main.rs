//! What an operator can rely on when the planner has spoken.
//!
//! Every shape of zones that 3 to 10 nodes can form is planned, and the plan compared with what is
//! best possible. The best is computed a second time in `ideal`, from the rules alone and by other
//! means. `scale` asks the same of 100 and of 1000 nodes.

mod ideal;
mod scale;

use std::collections::BTreeMap;

use atoll_ring::{Member, NodeId, Partitions, Placement, PlacementError, PlacementWarning};
use proptest::prelude::*;

use ideal::{Ideal, Table, check_change, check_valid, count, held, member, moved, plan};

/// Nodes of equal weight, `sizes[z]` of them in zone z.
fn cluster(sizes: &[usize]) -> Vec<Member> {
    let zones = sizes.iter().enumerate().flat_map(|(zone, size)| vec![zone; *size]);
    zones.zip(1..).map(|(zone, id)| member(id, zone, 1)).collect()
}

/// All ways to cut `nodes` into zones, largest first: 4, 3+1, 2+2, 2+1+1, 1+1+1+1.
fn shapes(nodes: usize) -> Vec<Vec<usize>> {
    fn cut(left: usize, largest: usize) -> Vec<Vec<usize>> {
        if left == 0 {
            return vec![vec![]];
        }
        let mut all = Vec::new();
        for first in (1..=largest.min(left)).rev() {
            for rest in cut(left - first, first) {
                all.push([vec![first], rest].concat());
            }
        }
        all
    }
    cut(nodes, nodes)
}

fn firsts(table: &Table, members: &[Member]) -> Vec<usize> {
    count(members, |id| table.iter().filter(|owners| owners[0] == id).count())
}

fn range(numbers: &[usize]) -> (usize, usize) {
    (*numbers.iter().min().unwrap(), *numbers.iter().max().unwrap())
}

/// As `check_valid`, and balanced to the last replica. For equal weights.
fn check_balanced(members: &[Member], partitions: usize, replicas: usize, table: &Table) -> Ideal {
    let ideal = check_valid(members, partitions, replicas, table);
    let total = partitions * replicas;
    let best = (ideal.highest_minimum(partitions, total), ideal.lowest_maximum(partitions, total));
    assert_eq!(range(&held(table, members)), best);
    ideal
}

/// Fresh placements of every shape: owners distinct and spread, nodes as even as the zones allow,
/// and every node first owner equally often.
#[test]
fn fresh_placements_are_as_even_as_zones_allow() {
    for nodes in 3..=10 {
        for sizes in shapes(nodes) {
            for replicas in 1..=nodes.min(5) {
                let members = cluster(&sizes);
                let table = plan(&members, 64, replicas as u8, None).table;
                check_balanced(&members, 64, replicas, &table);
                let (least, most) = range(&firsts(&table, &members));
                assert!(most - least <= 1, "{sizes:?} x {replicas}: first {least} to {most} times");
            }
        }
    }
}

/// The shapes people really run, at the real number of partitions.
#[test]
fn fresh_placements_at_full_size() {
    for (sizes, expected) in [
        (vec![3], (1024, 1024)),
        (vec![4], (768, 768)),
        (vec![10], (307, 308)),
        (vec![2, 2, 1], (512, 1024)), // the small zone's only node holds everything
        (vec![2, 2, 2], (512, 512)),
        (vec![4, 3], (438, 439)),
        (vec![3, 3, 2, 2], (307, 308)),
        (vec![4, 4, 1, 1], (256, 512)), // the zones of four are full at 1024
    ] {
        let members = cluster(&sizes);
        let table = plan(&members, 1024, 3, None).table;
        check_balanced(&members, 1024, 3, &table);
        assert_eq!(range(&held(&table, &members)), expected, "{sizes:?}");
        let (least, most) = range(&firsts(&table, &members));
        assert!(most - least <= 1, "{sizes:?}: first {least} to {most} times");
    }
}

/// A node joins each zone, or a zone of its own; a node leaves each zone; and it is balanced again
/// by the fewest moves.
#[test]
fn joins_and_leaves_move_the_least_possible() {
    for nodes in 3..=8 {
        for sizes in shapes(nodes) {
            for replicas in [1, 2, 3, 5].into_iter().filter(|replicas| *replicas <= nodes) {
                let members = cluster(&sizes);
                let before = plan(&members, 32, replicas as u8, None).table;
                let mut changes = Vec::new();
                for zone in 0..=sizes.len() {
                    changes.push([members.clone(), vec![member(77, zone, 1)]].concat());
                }
                if nodes > replicas {
                    for zone in 0..sizes.len() {
                        let mut fewer = members.clone();
                        fewer.remove(sizes[..zone].iter().sum());
                        changes.push(fewer);
                    }
                }
                for members in changes {
                    let after = plan(&members, 32, replicas as u8, Some(&before)).table;
                    let ideal = check_balanced(&members, 32, replicas, &after);
                    check_change(&ideal, &before, &after);
                }
            }
        }
    }
}

/// Without zones, a join moves exactly what the new node then holds, and a leave exactly what the
/// old node held.
#[test]
fn without_zones_nothing_moves_between_old_nodes() {
    for nodes in 3..=10 {
        let (few, many) = (cluster(&[nodes]), cluster(&[nodes + 1]));
        let before = plan(&few, 1024, 3, None).table;
        let after = plan(&many, 1024, 3, Some(&before)).table;
        assert_eq!(moved(&before, &after), held(&after, &many)[nodes]);
        let back = plan(&few, 1024, 3, Some(&after)).table;
        assert_eq!(moved(&after, &back), held(&after, &many)[nodes]);
        check_balanced(&few, 1024, 3, &back);
    }
}

/// Planning again with the same members moves nothing, whatever the shape.
#[test]
fn no_change_moves_nothing() {
    for sizes in shapes(7) {
        let members = cluster(&sizes);
        let table = plan(&members, 64, 3, None).table;
        assert_eq!(plan(&members, 64, 3, Some(&table)).table, table, "{sizes:?}");
    }
}

/// Who is first stays roughly even over joins and leaves, although places are inherited: no one is
/// first more than 1.6 times as often as the average, as long as the zones stay about as large as
/// each other.
#[test]
fn first_owners_stay_roughly_even() {
    for sizes in [vec![3], vec![4], vec![6], vec![10], vec![2, 2, 2], vec![3, 3, 2, 2], vec![4, 3]]
    {
        let mut members = cluster(&sizes);
        let mut table = plan(&members, 1024, 3, None).table;
        for zone in 0..sizes.len() {
            members.push(member(100 + zone as u32, zone, 1));
            table = check_firsts(&members, &table);
            let oldest = members.iter().position(|member| member.zone == format!("z{zone}"));
            members.remove(oldest.unwrap());
            table = check_firsts(&members, &table);
        }
    }
}

fn check_firsts(members: &[Member], before: &Table) -> Table {
    let table = plan(members, 1024, 3, Some(before)).table;
    let (_, most) = range(&firsts(&table, members));
    let average = 1024 / members.len();
    assert!(most * 10 <= average * 16, "{most} of {average}");
    table
}

/// The second zone of a cluster that had one: half of every partition moves there, and the new node
/// does not become the first owner of half of them.
#[test]
fn a_second_zone_takes_its_share_of_first_places() {
    for nodes in 3..=10 {
        let members = cluster(&[nodes]);
        let before = plan(&members, 1024, 2, None).table;
        let members = cluster(&[nodes, 1]);
        let after = plan(&members, 1024, 2, Some(&before)).table;
        let (least, most) = range(&firsts(&after, &members));
        let average = 1024 / (nodes + 1);
        assert!(
            least * 10 >= average * 7 && most * 10 <= average * 14,
            "{nodes}: {least} to {most}"
        );
    }
}

/// The number of replicas can grow and shrink: the table follows and hardly anything else moves.
#[test]
fn replicas_can_change() {
    let members = cluster(&[2, 2, 2]);
    let three = plan(&members, 64, 3, None).table;
    let four = plan(&members, 64, 4, Some(&three)).table;
    check_change(&check_balanced(&members, 64, 4, &four), &three, &four);
    let two = plan(&members, 64, 2, Some(&three)).table;
    check_balanced(&members, 64, 2, &two);
    assert!(moved(&three, &two) <= 2);
}

/// Members in any order, and asked twice: the same plan.
#[test]
fn the_order_of_members_does_not_matter() {
    let members = cluster(&[3, 2, 2]);
    let fresh = plan(&members, 256, 3, None);
    let fewer = plan(&members[1..], 256, 3, Some(&fresh.table));
    for turn in 0..members.len() {
        let mut turned = members.clone();
        turned.rotate_left(turn);
        turned[1..].reverse();
        assert_eq!(plan(&turned, 256, 3, None), fresh);
        turned.retain(|member| member.id != members[0].id);
        assert_eq!(plan(&turned, 256, 3, Some(&fresh.table)), fewer);
    }
}

/// Tables as they came out when this was written. A new version that plans otherwise would move
/// data for nothing, so this may change only on purpose. Each table is hashed as the owners' ids,
/// u32 little endian, one after the other.
#[test]
fn golden_tables() {
    let check = |sizes: &[usize], partitions: u32, replicas: u8, fresh: &str, grown: &str| {
        let hash = |table: &Table| {
            let bytes = table.iter().flatten().flat_map(|owner| owner.0.to_le_bytes());
            blake3::hash(&bytes.collect::<Vec<u8>>()).to_hex()[..32].to_owned()
        };
        let members = cluster(sizes);
        let before = plan(&members, partitions, replicas, None).table;
        let members = [members, vec![member(42, 0, 1)]].concat();
        let after = plan(&members, partitions, replicas, Some(&before)).table;
        assert_eq!((hash(&before).as_str(), hash(&after).as_str()), (fresh, grown), "{sizes:?}");
    };
    check(&[3], 1024, 3, "51459e951d00182cb4a1e76a88f802e1", "9af149edd1a292a0b8c78299dfa5a3ba");
    check(&[5], 1024, 3, "466ac225457d77210af7d73e605e4fb9", "7ddb6442abc00d654cd2a22727f541fe");
    check(
        &[2, 2, 1],
        1024,
        3,
        "e7e803068507c3316d10c2431d3c8f7b",
        "3d18865f983d3db2f78a561209df4f2b",
    );
    check(&[4, 3], 256, 3, "7097285aecffa96d666e120354d21aa0", "a99c9e83ba96660c5fb56d093405e1ee");
    check(
        &[3, 3, 2, 2],
        1024,
        3,
        "072757cd10a37eb14001abb748a5c8c7",
        "406a3020ccd2728834ca17fe687c82e0",
    );
    check(
        &[1, 1, 1, 1, 1],
        64,
        5,
        "52c2fc380b2053363fa9ec3c1e3a0a23",
        "e97ed0ca9ab16ac5d9ac2bdf06775471",
    );
}

/// What the operator is told: the numbers, and what mends it.
#[test]
fn warnings() {
    let check = |members: &[Member], partitions, replicas, expected: &[&str]| {
        let Placement { table, warnings, .. } = plan(members, partitions, replicas, None);
        let messages: Vec<String> = warnings.iter().map(PlacementWarning::to_string).collect();
        assert_eq!(messages, expected);
        // Planned again, the same is said.
        assert_eq!(plan(members, partitions, replicas, Some(&table)).warnings, warnings);
    };
    check(&cluster(&[3]), 1024, 3, &[]);
    check(&cluster(&[2, 2, 2]), 1024, 3, &[]);
    check(&cluster(&[3, 3, 2, 2]), 1024, 3, &[]);

    // Five nodes in three zones: the fifth is alone in its zone and holds a replica of everything.
    let lone = "zone \"z2\" is small: n5 holds 1024 partition replicas, 66% above its share of 614, \
                because the owners of a partition are spread over zones; \
                more nodes in zone \"z2\" even it out";
    check(&cluster(&[2, 2, 1]), 1024, 3, &[lone]);
    // One zone of three has a node more, and its nodes less to hold. With 13 in the others that is
    // worth a word, with 33 it is not.
    let few = "zone \"z2\" is small: n33 holds 79 partition replicas, 3% above its share of 76, \
               because the owners of a partition are spread over zones; \
               more nodes in zone \"z2\" even it out";
    check(&cluster(&[14, 13, 13]), 1024, 3, &[few]);
    check(&cluster(&[34, 33, 33]), 4096, 3, &[]);

    let two = "2 zones for 3 replicas: some zones hold 2 of the 3 owners of a partition, \
               which can fail together; nodes in 1 more zones mend it";
    check(&cluster(&[4, 3]), 1024, 3, &[two]);
    let lone = lone.replace("z2", "z1");
    check(&cluster(&[4, 1]), 1024, 3, &[&lone, two]);

    // 1024 partitions serve 48 nodes with three replicas, not 49.
    check(&cluster(&[48]), 1024, 3, &[]);
    let few = "1024 partitions with 3 replicas are 62 for each of 49 nodes, fewer than 64: \
               load spreads unevenly; 49 nodes want 2048, \
               and the number is fixed when a cluster is created";
    check(&cluster(&[49]), 1024, 3, &[few]);
    let few = "32 partitions with 3 replicas are 32 for each of 3 nodes, fewer than 64: \
               load spreads unevenly; 3 nodes want 1024, \
               and the number is fixed when a cluster is created";
    check(&cluster(&[3]), 32, 3, &[few]);

    // n1 could hold one replica of each partition and no more, as with weight 3 of 6.
    let one_and_three = |weight| {
        let members = [member(1, 0, weight), member(2, 0, 1), member(3, 0, 1), member(4, 0, 1)];
        members.to_vec()
    };
    let heavy = "weight 7 of n1 asks for 1433 partition replicas, and a node can hold each of the \
                 1024 partitions once: the others hold the rest; \
                 beside their weights 3 is the most it can use";
    check(&one_and_three(7), 1024, 2, &[heavy]);
    check(&one_and_three(3), 1024, 2, &[]);
}

/// The recommended number of partitions is the least that serves so many nodes, and with it the
/// planner has nothing to say about their number.
#[test]
fn recommended_partitions() {
    let recommended = |nodes, replicas| {
        let partitions = Partitions::recommended(nodes, replicas);
        partitions.map(Partitions::count)
    };
    for (nodes, replicas, expected) in [
        (3, 3, Some(1024)),
        (48, 3, Some(1024)),
        (49, 3, Some(2048)),
        (100, 3, Some(4096)),
        (100, 5, Some(2048)),
        (1000, 3, Some(32_768)),
        (1000, 5, Some(16_384)),
        (1024, 1, Some(65_536)),
        (1025, 1, None),
        (3072, 3, Some(65_536)),
        (3073, 3, None),
        (u32::MAX, 16, None),
        (3, 0, None),
    ] {
        assert_eq!(recommended(nodes, replicas), expected, "{nodes} nodes x {replicas}");
    }
    for (nodes, replicas) in [(48, 3), (49, 3), (100, 5), (120, 2)] {
        let partitions = recommended(nodes as u32, replicas).unwrap();
        assert_eq!(plan(&cluster(&[nodes]), partitions, replicas, None).warnings, []);
        let fewer = Partitions::new(partitions / 2).unwrap();
        assert!(fewer.nodes_max(replicas) < nodes as u32);
    }
}

/// What cannot be planned, and that the message names the rule.
#[test]
fn refusals() {
    let check = |members: &[Member], replicas, previous: Option<&[Vec<NodeId>]>, message: &str| {
        let error: PlacementError =
            Placement::plan(members, Partitions::DEFAULT, replicas, previous).unwrap_err();
        assert_eq!(error.to_string(), message);
    };
    let three = cluster(&[3]);
    check(&three, 0, None, "0 replicas: the number must be from 1 to 16");
    check(&cluster(&[20]), 17, None, "17 replicas: the number must be from 1 to 16");
    check(&three, 4, None, "4 replicas need as many members, and there are 3");
    check(&[], 1, None, "1 replicas need as many members, and there are 0");
    let twice = [three.clone(), vec![member(2, 1, 1)]].concat();
    check(&twice, 3, None, "n2 is a member twice");
    let idle = [three.clone(), vec![member(9, 1, 0)]].concat();
    check(&idle, 3, None, "n9 has weight 0: a member that shall own nothing leaves");
    let short = vec![vec![]; 512];
    check(&three, 3, Some(&short), "the previous table has 512 entries for 1024 partitions");
}

/// Nodes with weights, in zones, by id.
fn weighted() -> impl Strategy<Value = BTreeMap<u32, (usize, u32)>> {
    prop::collection::btree_map(1..30_u32, (0..4_usize, 1..8_u32), 3..=10)
}

fn weighted_members(nodes: &BTreeMap<u32, (usize, u32)>) -> Vec<Member> {
    nodes.iter().map(|(id, (zone, weight))| member(*id, *zone, *weight)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Any weights in any zones, and any change to any other weights and zones.
    #[test]
    fn weights_are_respected(first in weighted(), then in weighted(), replicas in 1..=3_u8) {
        let members = weighted_members(&first);
        let before = plan(&members, 32, replicas, None).table;
        check_valid(&members, 32, replicas.into(), &before).check_shares(&before);
        let members = weighted_members(&then);
        let after = plan(&members, 32, replicas, Some(&before)).table;
        let ideal = check_valid(&members, 32, replicas.into(), &after);
        ideal.check_shares(&after);
        prop_assert!(!ideal.less_could_move(&before, &after));
    }

    /// A previous table from anywhere is taken as far as it makes sense and never leads to a wrong
    /// one.
    #[test]
    fn any_previous_table_is_survived(
        nodes in weighted(),
        replicas in 1..=3_u8,
        table in prop::collection::vec(prop::collection::vec((0..30_u32).prop_map(NodeId), 0..6), 16),
    ) {
        let members = weighted_members(&nodes);
        let after = plan(&members, 16, replicas, Some(&table)).table;
        check_valid(&members, 16, replicas.into(), &after).check_shares(&after);
    }
}
