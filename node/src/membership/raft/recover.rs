//! The way out when most voters are lost for good: `atoll cluster recover --from HIGHEST`.
//!
//! The operator stops all nodes that are left, looks for the one with the highest epoch, and lets its log go on from there
//! with this node as its only voter. That is a decision, not a repair: a change that only the lost voters had agreed on is
//! gone. And former voters that come back with their disks, and are a majority of the old group among themselves, go on as
//! that group, beside the new one: they must be emptied first. Both belong into the confirmation that the command asks for.
//! The change is a line of the log ([`Command::Recovered`]), so that `ring history` shows it for ever.
//!
//! The node's log is put above all that it ever knew: a higher term, and the entry after its last one. What it had voted
//! for and what it had not yet applied is dropped.

use std::sync::Arc;

use atoll_antientropy::Actor;
use atoll_ring::{ClusterId, Command, Entry, Epoch, NodeId, View};
use atoll_wire::Ack;
use bytes::Bytes;
use openraft::{CommittedLeaderId, EmptyNode, Membership};

use super::{
    LogId, Member, StoredMembership,
    storage::{Applied, begin_alone, highest},
};
use crate::storage::{Space, StoreError, commit::Disk, meta, rows};

/// Why a log cannot go on from here. Nothing is changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotRecover {
    /// Another cluster's data.
    #[error("this is data of cluster {found}, and not of {wanted}")]
    OtherCluster {
        /// What lies here.
        found: ClusterId,
        /// What was meant.
        wanted: ClusterId,
    },
    /// There is no view.
    #[error("no view is stored here: the node has never run")]
    NoView,
    /// The node is not in its own view.
    #[error("{0} is no member of the ring any more")]
    NoMember(NodeId),
    /// The node must come back as somebody new, and nobody could tell it as whom.
    #[error("{0} has lost memory itself ({1}): take another node")]
    Lost(NodeId, String),
    /// The storage failed.
    #[error(transparent)]
    Storage(#[from] StoreError),
}

/// Lets the log go on from this node's view, with this node as its only voter. The node does not run; its next start leads
/// at once. Returns the epoch that says so.
///
/// # Errors
/// See [`CannotRecover`].
pub async fn recover(
    disk: &Disk,
    cluster: ClusterId,
    me: NodeId,
    at_ms: u64,
) -> Result<Epoch, CannotRecover> {
    let read = |row: &'static [u8]| match disk.get(Space::Meta, &Bytes::from_static(row))? {
        Some(sealed) => meta::open(row, &sealed).map(Some),
        None => Ok::<_, StoreError>(None),
    };
    let bytes = read(rows::VIEW)?.ok_or(CannotRecover::NoView)?;
    let view: View = postcard::from_bytes(&bytes)
        .map_err(|error| StoreError(format!("the stored view is damaged: {error}")))?;
    if view.cluster() != cluster {
        return Err(CannotRecover::OtherCluster { found: view.cluster(), wanted: cluster });
    }
    let member = view.member(me).ok_or(CannotRecover::NoMember(me))?;
    if let Some(why) = read(rows::LOST)? {
        return Err(CannotRecover::Lost(me, String::from_utf8_lossy(&why).into_owned()));
    }
    let member = Member::of(Actor { node: me.0, incarnation: member.incarnation });

    let mut passed = Vec::new();
    let mut next = view;
    for command in [Command::Recovered { by: me }, Command::Voters { voters: vec![me] }] {
        let entry = Entry { epoch: Epoch(next.epoch().0 + 1), at_ms, command };
        next = next.apply(&entry).map_err(|_| CannotRecover::NoMember(me))?;
        passed.push(entry);
    }
    let epoch = next.epoch();

    let (term, index) = highest(disk)?;
    let last = LogId::new(CommittedLeaderId::new(term + 1, member.0), index + 1);
    let voters = Membership::new(
        vec![[member.0].into()],
        [(member.0, EmptyNode {})].into_iter().collect::<std::collections::BTreeMap<_, _>>(),
    );
    let applied = Applied {
        last: Some(last),
        voters: StoredMembership::new(Some(last), voters),
        view: Some(Arc::new(next.clone())),
    };
    let mut writes = begin_alone(disk, member, &applied)?;
    let bytes = postcard::to_stdvec(&next).expect("a view is plain data");
    writes.push(meta::write(Bytes::from_static(rows::VIEW), &bytes));
    for entry in &passed {
        let bytes = postcard::to_stdvec(entry).expect("an entry is plain data");
        writes.push(meta::write(rows::passed(entry.epoch), &bytes));
    }
    disk.write(writes, Ack::Durable).done().await?;
    Ok(epoch)
}
