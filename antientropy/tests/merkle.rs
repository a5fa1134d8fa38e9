//! Trees: what they say is what the keys say, a difference is always found, and nothing else is.

use std::collections::{BTreeMap, BTreeSet};

use atoll_antientropy::{
    Digest, Secret,
    merkle::{
        DEPTH_MAX, Differing, Entries, FingerprintKey, Place, Places, Tree, Unmatched, Width,
        labelled, unmatched,
    },
};
use bytes::Bytes;
use proptest::prelude::*;

const BUCKET: [u8; 16] = [9; 16];

/// One side of a comparison: a partition that takes no bits, its tree, and what the tree was made from.
#[derive(Clone)]
struct Side {
    tree: Tree,
    keys: BTreeMap<u64, u64>,
}

impl Side {
    fn of(keys: BTreeMap<u64, u64>, room: u64) -> Side {
        let mut tree = Tree::with_room(0, room);
        keys.iter().for_each(|(token, hash)| tree.update(*token, None, Some(*hash)));
        Side { tree, keys }
    }

    fn below(&self, place: Place) -> Vec<(u64, u64)> {
        self.keys.range(place.tokens(0, 0)).map(|(token, hash)| (*token, *hash)).collect()
    }

    /// From the cells, or below them from the keys.
    fn children(&self, place: Place) -> [u64; 16] {
        self.tree.children(place).unwrap_or_else(|| {
            std::array::from_fn(|nibble| {
                let below = self.below(place.child(nibble as u32));
                below.iter().fold(0, |sum: u64, (_, hash)| sum.wrapping_add(*hash))
            })
        })
    }
}

/// What both sides find to be different, every message encoded and decoded on its way. The asker's tree need not be as
/// deep as the answerer's.
fn compare(asker: &Side, answerer: &Side, width: Width) -> (BTreeSet<u64>, usize) {
    let mut bytes = 0;
    let depth = asker.tree.depth().max(answerer.tree.depth());
    let mut paths = vec![0u32];
    for level in 0..depth {
        let mut next = Vec::new();
        for chunk in paths.chunks(200) {
            let asked =
                chunk.iter().map(|path| (*path, asker.children(Place { level, path: *path })));
            let mut question = Vec::new();
            Places::of(width, asked).encode_into(&mut question);
            let heard = Places::decode(&question.clone().into()).expect("just encoded");
            let children = heard.places.iter().map(|theirs| {
                let ours = answerer.children(Place { level, path: theirs.path });
                theirs.differing(heard.width, &ours)
            });
            let answer = Differing { children: children.collect(), depths: Vec::new() }.encode();
            let answer_bytes = answer.len();
            let answer = Differing::decode(&answer, chunk.len(), false).expect("just encoded");
            for (path, children) in chunk.iter().zip(answer.children) {
                next.extend(Differing::each(children).map(|nibble| path << 4 | nibble));
            }
            bytes += question.len() + answer_bytes;
        }
        paths = next;
    }
    let mut found = BTreeSet::new();
    for chunk in paths.chunks(64) {
        let mut question = Entries::new(width);
        let mut sent = Vec::new();
        for path in chunk {
            let below = asker.below(Place { level: depth, path: *path });
            question.add(*path, below.iter().map(|(_, hash)| *hash));
            sent.extend(below);
        }
        let question = question.encode();
        let heard = Entries::decode(&question).expect("just encoded");
        let mut answer = Unmatched::default();
        let mut at = 0;
        for (path, count) in heard.places {
            let ours = answerer.below(Place { level: depth, path });
            let hashes: Vec<u64> = ours.iter().map(|(_, hash)| *hash).collect();
            let (missing, left) =
                unmatched(heard.width, &heard.fingerprints[at..at + count], &hashes);
            answer.missing.extend(missing.iter().map(|index| (at + index) as u32));
            let name = |index: &usize| Bytes::copy_from_slice(&ours[*index].0.to_be_bytes());
            answer.keys.extend(left.iter().map(|index| (BUCKET, name(index))));
            at += count;
        }
        let reply = answer.encode(&BUCKET, 1 << 20);
        assert_eq!(Unmatched::decode(&reply, &BUCKET, sent.len()), Ok(answer.clone()));
        found.extend(answer.missing.iter().map(|index| sent[*index as usize].0));
        let token = |name: &Bytes| u64::from_be_bytes(name[..].try_into().expect("a token"));
        found.extend(answer.keys.iter().map(|(_, name)| token(name)));
        bytes += question.len() + reply.len();
    }
    (found, bytes)
}

/// So many keys at even distances with different hashes.
fn keys(count: u64) -> BTreeMap<u64, u64> {
    (0..count).map(|number| (labelled(1, number), labelled(2, number).max(1))).collect()
}

/// Whichever single key is missing, surplus or changed, on either side, and however deep either tree: exactly that key is
/// found.
#[test]
fn any_single_difference_is_found_and_nothing_else() {
    let all = keys(700);
    for (room, other_room) in [(700, 700), (0, 700), (700, 0), (700, 100_000), (0, 0)] {
        let whole = Side::of(all.clone(), room);
        for number in (0..700).step_by(23) {
            let token = labelled(1, number);
            let mut missing = all.clone();
            missing.remove(&token);
            let mut changed = all.clone();
            changed.insert(token, 77);
            for other in [missing, changed] {
                let other = Side::of(other, other_room);
                for width in [Width::Short, Width::Full] {
                    assert_eq!(compare(&whole, &other, width).0, BTreeSet::from([token]));
                    assert_eq!(compare(&other, &whole, width).0, BTreeSet::from([token]));
                }
            }
        }
        assert_eq!(compare(&whole, &Side::of(all.clone(), other_room), Width::Full).0.len(), 0);
    }
}

/// Many differences of all kinds at once, and one side that has nothing at all.
#[test]
fn many_differences_are_all_found() {
    let all = keys(5000);
    let mut other = all.clone();
    let mut expected = BTreeSet::new();
    for (number, token) in all.keys().enumerate().step_by(7) {
        match number % 3 {
            0 => drop(other.remove(token)),
            1 => drop(other.insert(*token, number as u64 + 1)),
            _ => drop(other.insert(token ^ 1, 5)),
        }
        expected.insert(if number % 3 == 2 { token ^ 1 } else { *token });
    }
    let [whole, other] = [all, other].map(|keys| Side::of(keys, 5000));
    assert_eq!(compare(&whole, &other, Width::Short).0, expected);
    assert_eq!(compare(&other, &whole, Width::Short).0, expected);
    let nothing = Side::of(BTreeMap::new(), 0);
    assert_eq!(compare(&whole, &nothing, Width::Short).0.len(), 5000);
    assert_eq!(compare(&nothing, &whole, Width::Full).0.len(), 5000);
}

/// A difference whose short hashes happen to be equal hides from them and not from the full ones.
#[test]
fn the_full_width_finds_what_the_short_one_cannot_see() {
    let mut other = keys(700);
    let token = labelled(1, 5);
    *other.get_mut(&token).expect("it is there") ^= 1 << 40;
    let [whole, other] = [keys(700), other].map(|keys| Side::of(keys, 700));
    assert_ne!(whole.tree.root(), other.tree.root());
    assert!(compare(&whole, &other, Width::Short).0.is_empty());
    assert_eq!(compare(&whole, &other, Width::Full).0, BTreeSet::from([token]));
}

/// The memory that the design allows, 8 MiB per million keys, for any number of keys and of partitions; a tree that is made
/// anew when it asks for it keeps its leaves small.
#[test]
fn memory_per_million_keys() {
    let mut worst: f64 = 0.0;
    for keys in (1..=2_000_000u64).step_by(997) {
        let tree = Tree::with_room(0, keys);
        worst = worst.max(tree.bytes() as f64 / keys as f64 * f64::from(u8::from(keys > 32)));
        assert!(keys <= 32 << (4 * tree.depth()), "{keys} keys in {} levels", tree.depth());
    }
    let of = |partitions: u64| {
        (Tree::with_room(0, 1_000_000 / partitions).bytes() as u64 * partitions) as f64
            / f64::from(1 << 20)
    };
    println!(
        "a million keys: {:.2} MiB in 1 partition, {:.2} in 64, {:.2} in 1024",
        of(1),
        of(64),
        of(1024)
    );
    println!("at worst {:.2} MiB per million keys", worst * 1e6 / f64::from(1 << 20));
    assert!(worst * 1e6 < 8.0 * f64::from(1 << 20));
}

/// Answers that would be too long are cut short and say so; what is in them is whole.
#[test]
fn a_long_answer_is_cut_short() {
    let keys: Vec<_> =
        (0..1000u32).map(|n| ([(n % 3) as u8; 16], Bytes::from(vec![7; 50]))).collect();
    let answer = Unmatched { cut_short: false, missing: vec![0, 5, 6], keys };
    let bytes = answer.encode(&[0; 16], 4000);
    assert!(bytes.len() <= 4000, "{}", bytes.len());
    let heard = Unmatched::decode(&bytes, &[0; 16], 7).expect("just encoded");
    assert!(heard.cut_short && heard.missing == answer.missing);
    assert!(heard.keys.len() > 60 && answer.keys.starts_with(&heard.keys), "{}", heard.keys.len());
}

fn digest(seed: u8) -> Digest {
    Digest([seed; 16])
}

proptest! {
    /// After any sequence of writes, overwrites, removals and regrows the tree says what one made from the data says, at
    /// every depth.
    #[test]
    fn a_tree_is_what_its_data_say(
        steps in prop::collection::vec((0u64..300, 0u8..4), 0..900),
        bits in 0u32..=16,
    ) {
        let key = FingerprintKey::derive(&Secret([4; 32]));
        let start = labelled(7, 7) & !(u64::MAX >> bits).min(u64::MAX - 1);
        let start = if bits == 0 { 0 } else { start };
        let mut tree = Tree::new(bits);
        let mut data: BTreeMap<u64, u8> = BTreeMap::new();
        let hash = |token: u64, state: u8| key.of(&token.to_be_bytes(), &digest(state));
        let fill = |tree: &mut Tree, data: &BTreeMap<u64, u8>| {
            data.iter().for_each(|(token, state)| tree.update(*token, None, Some(hash(*token, *state))));
        };
        for (number, state) in steps {
            let token = start | (labelled(3, number) >> bits);
            let before = data.get(&token).map(|old| hash(token, *old));
            let after = (state > 0).then(|| hash(token, state));
            tree.update(token, before, after);
            match state {
                0 => drop(data.remove(&token)),
                _ => drop(data.insert(token, state)),
            }
            if tree.is_crowded() {
                let mut grown = Tree::with_room(bits, tree.keys());
                fill(&mut grown, &data);
                prop_assert_eq!(grown.root(), tree.root());
                tree = grown;
            }
        }
        let mut anew = Tree::with_room(bits, 32 << (4 * tree.depth()));
        fill(&mut anew, &data);
        prop_assert_eq!(&anew, &tree);
        prop_assert_eq!(tree.keys(), data.len() as u64);
        prop_assert!(!tree.is_crowded());
    }

    /// Bytes from outside: no decoder panics, and what it accepts is the one encoding of what it returns.
    #[test]
    fn decoders_are_total(bytes in prop::collection::vec(any::<u8>(), 0..200), width in 0u8..3) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = [*first, 4, 8][usize::from(width)];
        }
        let input = Bytes::from(bytes);
        if let Ok(places) = Places::decode(&input) {
            let mut again = Vec::new();
            places.encode_into(&mut again);
            prop_assert_eq!(&again[..], &input[..]);
            for place in &places.places {
                place.differing(places.width, &[0; 16]);
            }
        }
        if let Ok(entries) = Entries::decode(&input) {
            prop_assert_eq!(&entries.encode()[..], &input[..]);
        }
        if let Ok(unmatched) = Unmatched::decode(&input, &BUCKET, 10) {
            prop_assert!(unmatched.missing.iter().all(|index| *index < 10));
        }
        for (places, roots) in [(0, false), (3, false), (3, true)] {
            if let Ok(differing) = Differing::decode(&input, places, roots) {
                prop_assert_eq!(&differing.encode()[..], &input[..]);
                prop_assert!(differing.depths.iter().all(|depth| *depth <= DEPTH_MAX));
            }
        }
    }
}
