//! The part of the one who is asked: which of the cells or keys that a peer names are different here.
//!
//! Nothing is remembered between two questions. Roots are compared under the same view only, or the two would not speak of
//! the same trees; what lies in one tree can be compared whenever both keep it.
//!
//! A record that was damaged and set aside is in no tree. Whoever has lost it altogether has an equal tree then, and would
//! end its doubt without ever hearing of the key; so such keys are named as if they differed ([`hidden`]).

use std::collections::BTreeSet;

use atoll_antientropy::merkle::{
    Children, Differing, Entries as Fingerprints, Place, Places, Tree, Unmatched as Keys, Width,
    unmatched,
};
use atoll_ring::{NodeId, Partition};
use atoll_transport::Caller;
use atoll_wire::{
    Compare, CompareRoots, Differing as DifferingReply, Entries, Envelope, ErrorCode, Failure,
    Reply, Request, Unmatched, limits::COMPARE_TAIL_BYTES_MAX,
};
use bytes::Bytes;

use super::trees::{LEVEL_MAX, TreeName};
use crate::{Node, buckets, node::failed, replica::stopping, storage::rows};

/// Answers one question of a comparison.
pub(crate) fn answer(node: &Node, caller: Caller, envelope: &Envelope, asked: &Request) -> Reply {
    let Some(peer) = caller.node else {
        let detail = "only a node compares, and it says who it is";
        return failed(Failure::refused(ErrorCode::NotPermitted, detail));
    };
    let answer = match asked {
        Request::CompareRoots(asked) => answer_roots(node, peer, envelope, asked)
            .map(|which| Reply::Differing(DifferingReply { which: which.encode() })),
        Request::Compare(asked) => answer_places(node, peer, asked)
            .map(|which| Reply::Differing(DifferingReply { which: which.encode() })),
        Request::Entries(asked) => answer_entries(node, peer, asked).map(|keys| {
            let entries = keys.encode(&envelope.bucket.0, COMPARE_TAIL_BYTES_MAX);
            Reply::Unmatched(Unmatched { entries })
        }),
        _ => unreachable!("whoever routes gives us these three"),
    };
    answer.unwrap_or_else(failed)
}

/// Which of our shared trees differ.
fn answer_roots(
    node: &Node,
    peer: NodeId,
    envelope: &Envelope,
    asked: &CompareRoots,
) -> Result<Differing, Failure> {
    same_view(node, envelope)?;
    let trees = &node.repair().trees;
    let shared = trees.shared(peer);
    let ours = Tree::over(trees.roots(peer).into_iter());
    let (level, tail) = asked.roots.split_first().ok_or_else(malformed)?;
    let places = Places::decode(&asked.roots.slice_ref(tail)).map_err(|_| malformed())?;
    let hidden = trees_with_hidden(node, places.width)?;
    let mut answer = Differing::default();
    let mut equal = Vec::new();
    for theirs in &places.places {
        let place = Place { level: *level, path: theirs.path };
        let children = ours.children(place).ok_or_else(malformed)?;
        let below = |child: Place| {
            let span = 1usize << (4 * (ours.depth() - child.level));
            let first = child.path as usize * span;
            shared.get(first.min(shared.len())..(first + span).min(shared.len())).unwrap_or(&[])
        };
        let hides = |nibble: u32| below(place.child(nibble)).iter().any(|one| hidden.contains(one));
        let hiding =
            (0..16).filter(|nibble| hides(*nibble)).fold(0, |bits, nibble| bits | 1 << nibble);
        let differing = theirs.differing(places.width, &children) | hiding;
        answer.children.push(differing);
        equal.extend(Differing::each(!differing).flat_map(|nibble| below(place.child(nibble))));
        if place.level + 1 == ours.depth() {
            let differing =
                Differing::each(differing).map(|nibble| below(place.child(nibble)).first());
            answer.depths.extend(differing.map(|one| one.map_or(0, |one| trees.depth(*one))));
        }
    }
    node.repair().agree(node, peer, equal.into_iter().copied(), node.clock().now());
    Ok(answer)
}

/// Which places below these differ.
fn answer_places(node: &Node, peer: NodeId, asked: &Compare) -> Result<Differing, Failure> {
    let name = tree(node, peer, asked.partition, asked.n)?;
    let places = Places::decode(&asked.hashes).map_err(|_| malformed())?;
    if asked.level >= LEVEL_MAX {
        return Err(malformed());
    }
    let trees = &node.repair().trees;
    let hidden = hidden(node, name, places.width)?;
    let paths: Vec<u32> =
        hidden.iter().filter_map(|row| Some(trees.place_of(row, asked.level + 1)?.path)).collect();
    let differing = |theirs: &Children| {
        let place = place(asked.level, theirs.path)?;
        let ours = trees.children(name, place).map_err(|error| stopping(&error))?;
        let hiding = paths.iter().filter(|path| *path >> 4 == theirs.path);
        let hiding = hiding.fold(0, |bits, path| bits | 1 << (path % 16));
        Ok(theirs.differing(places.width, &ours) | hiding)
    };
    let children = places.places.iter().map(differing).collect::<Result<_, Failure>>()?;
    Ok(Differing { children, depths: Vec::new() })
}

/// Which keys in these places differ.
fn answer_entries(node: &Node, peer: NodeId, asked: &Entries) -> Result<Keys, Failure> {
    let name = tree(node, peer, asked.partition, asked.n)?;
    let theirs = Fingerprints::decode(&asked.fingerprints).map_err(|_| malformed())?;
    let hidden = hidden(node, name, theirs.width)?;
    let mut answer = Keys::default();
    let mut at = 0;
    for (path, count) in theirs.places {
        let place = place(asked.level, path)?;
        let ours = node.repair().trees.entries(name, place);
        let ours = ours.map_err(|error| stopping(&error))?;
        let fingerprints: Vec<u64> = ours.iter().map(|entry| entry.fingerprint).collect();
        let (missing, left) =
            unmatched(theirs.width, &theirs.fingerprints[at..at + count], &fingerprints);
        let index = |index: &usize| u32::try_from(at + index).expect("a message is not so long");
        answer.missing.extend(missing.iter().map(index));
        let named = left.iter().filter_map(|index| rows::bucket_and_key(&ours[*index].row));
        answer.keys.extend(named.map(|(bucket, key)| (bucket.0, key)));
        let is_here = |row: &&Bytes| node.repair().trees.place_of(row, asked.level) == Some(place);
        let hiding = hidden.iter().filter(is_here).filter_map(rows::bucket_and_key);
        answer.keys.extend(hiding.map(|(bucket, key)| (bucket.0, key)));
        at += count;
    }
    Ok(answer)
}

/// Keys of a tree that are in doubt here and of which nothing is held, so that no tree has them. They are named to
/// whoever asks with the full width only, as those do who may have forgotten something: others have what they have.
fn hidden(node: &Node, name: TreeName, width: Width) -> Result<Vec<Bytes>, Failure> {
    if width == Width::Short || node.doubt().key_count() == 0 {
        return Ok(Vec::new());
    }
    let mut hidden = Vec::new();
    for row in node.doubt().keys_of(name.partition, &Bytes::new(), usize::MAX) {
        if node.buckets().copies(buckets::of_row(&row)) != name.n {
            continue;
        }
        let said = node.repair().trees.summary(&row).map_err(|error| stopping(&error))?;
        hidden.extend(said.is_none().then_some(row));
    }
    Ok(hidden)
}

/// Trees with such keys.
fn trees_with_hidden(node: &Node, width: Width) -> Result<BTreeSet<TreeName>, Failure> {
    if width == Width::Short {
        return Ok(BTreeSet::new());
    }
    let name = |row: &Bytes| {
        let n = node.buckets().copies(buckets::of_row(row));
        Some(TreeName { partition: rows::partition_of_data(row)?, n })
    };
    let in_doubt: BTreeSet<TreeName> =
        node.doubt().keys().iter().filter_map(|(row, _)| name(row)).collect();
    let mut found = BTreeSet::new();
    for name in in_doubt {
        if !hidden(node, name, width)?.is_empty() {
            found.insert(name);
        }
    }
    Ok(found)
}

/// The tree that is spoken about.
fn tree(node: &Node, peer: NodeId, partition: u16, n: u8) -> Result<TreeName, Failure> {
    let name = TreeName { partition: Partition(partition), n };
    if node.repair().trees.shared(peer).binary_search(&name).is_err() {
        let detail =
            format!("{peer} and {} share no tree of partition {partition} with N={n}", node.id());
        return Err(Failure::refused(ErrorCode::StaleView, detail));
    }
    Ok(name)
}

fn place(level: u8, path: u32) -> Result<Place, Failure> {
    if level > LEVEL_MAX || u64::from(path) >= 1 << (4 * u32::from(level)) {
        return Err(malformed());
    }
    Ok(Place { level, path })
}

fn same_view(node: &Node, envelope: &Envelope) -> Result<(), Failure> {
    let epoch = node.view().epoch();
    if envelope.epoch != epoch {
        let detail = format!("compared at epoch {}, here it is {epoch}", envelope.epoch);
        return Err(Failure::refused(ErrorCode::StaleView, detail));
    }
    Ok(())
}

fn malformed() -> Failure {
    Failure::refused(ErrorCode::Malformed, "no such places")
}
