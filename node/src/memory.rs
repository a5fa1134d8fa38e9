//! What this node remembers of the others: the highest incarnation it has heard of, and the last commit it was told of
//! under it.
//!
//! A node cannot know by itself that it was restored from an old copy, or that its disk was exchanged for an empty one:
//! it asks the others (see `rise`). They know from its pings, which speak of fsynced commits only. What is told here may
//! be lost again in a crash. What makes an incarnation unique is the membership log alone.
//!
//! ```text
//!   meta   peer/<node>    incarnation u32 | sequence u64 | chain u64     of the last commit told under the incarnation
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
};

use atoll_ring::{NodeId, View};
use atoll_wire::{Commit, Recalled};
use bytes::{BufMut as _, Bytes, BytesMut};

use crate::storage::{Space, StoreError, Write, commit::Disk, meta, rows};

/// What this node remembers of the members of its view.
pub(crate) struct Memory {
    me: NodeId,
    disk: Arc<Disk>,
    state: Mutex<State>,
}

struct State {
    /// One entry per member, this node included.
    members: BTreeMap<NodeId, Remembered>,
    /// Those who have said what they remember of us since we started. Until then they hear of no commit that could take
    /// the place of what they remember.
    have_said: BTreeSet<NodeId>,
}

/// What is remembered of one node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) incarnation: u32,
    pub(crate) commit: Commit,
}

impl Memory {
    /// What was remembered when the node stopped, and what the view says.
    pub(crate) fn open(me: NodeId, view: &View, disk: Arc<Disk>) -> Result<Self, StoreError> {
        let of_view = |incarnation| Remembered { incarnation, commit: Commit::default() };
        let mut members: BTreeMap<NodeId, Remembered> =
            view.members().iter().map(|member| (member.id, of_view(member.incarnation))).collect();
        for (row, value) in disk.scan(Space::Meta, rows::PEER, None, usize::MAX)? {
            let value = meta::open(&row, &value)?;
            let (Some(node), Some(kept)) = (rows::node_of_peer(&row), Remembered::decode(&value))
            else {
                return Err(StoreError("a row about another node cannot be read".into()));
            };
            if let Some(known) = members.get_mut(&node) {
                known.learn(kept);
            }
        }
        let state = State { members, have_said: BTreeSet::new() };
        Ok(Memory { me, disk, state: Mutex::new(state) })
    }

    /// These are the members from now on; who is gone is forgotten.
    pub(crate) fn follow(&self, view: &View) {
        let mut state = self.state();
        state.members.retain(|node, _| view.member(*node).is_some());
        for member in view.members() {
            let of_view = Remembered { incarnation: member.incarnation, commit: Commit::default() };
            state.members.entry(member.id).or_default().learn(of_view);
        }
    }

    /// A node has told of its last fsynced commit. Remembered on disk with the next commit of ours.
    pub(crate) fn heard(&self, node: NodeId, incarnation: u32, commit: Commit) {
        let mut state = self.state();
        if let Some(known) = state.members.get_mut(&node)
            && known.learn(Remembered { incarnation, commit })
        {
            self.disk.along(known.write(node));
        }
    }

    /// The answer to a node that asks what is remembered of it.
    pub(crate) fn recall(&self, node: NodeId, vouches: bool) -> Recalled {
        let Remembered { incarnation, commit } =
            self.state().members.get(&node).copied().unwrap_or_default();
        Recalled { vouches, incarnation, commit }
    }

    /// A node has said what it remembers of us, and it is nothing that we have not.
    pub(crate) fn has_said(&self, node: NodeId) {
        self.state().have_said.insert(node);
    }

    /// Whether a node must still be asked what it remembers of us.
    pub(crate) fn must_ask(&self, node: NodeId) -> bool {
        node != self.me && !self.state().have_said.contains(&node)
    }

    /// What a node may be told to be our last commit. As long as it has not said what it remembers, no more than what was
    /// on the disk when we started: a later number would wipe out that we had lost something.
    pub(crate) fn to_tell(&self, node: NodeId) -> Commit {
        if self.must_ask(node) { self.disk.found() } else { self.disk.commit() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }
}

impl Remembered {
    /// Keeps what is later. Returns whether that was new.
    fn learn(&mut self, told: Remembered) -> bool {
        let later = (told.incarnation, told.commit.sequence);
        if later <= (self.incarnation, self.commit.sequence) {
            return false; // late, or of an earlier life; of two chains under one number the first one stays
        }
        *self = told;
        true
    }

    fn write(&self, node: NodeId) -> Write {
        let mut bytes = BytesMut::with_capacity(20);
        bytes.put_u32(self.incarnation);
        bytes.put_u64(self.commit.sequence);
        bytes.put_u64(self.commit.chain);
        meta::write(rows::peer(node), &bytes)
    }

    fn decode(bytes: &Bytes) -> Option<Remembered> {
        let (incarnation, rest) = bytes.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let chain = rest.try_into().ok()?;
        Some(Remembered {
            incarnation: u32::from_be_bytes(*incarnation),
            commit: Commit {
                sequence: u64::from_be_bytes(*sequence),
                chain: u64::from_be_bytes(chain),
            },
        })
    }
}
