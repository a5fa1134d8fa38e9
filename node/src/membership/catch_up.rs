//! Views travel by themselves: every message carries its sender's epoch, and whoever is behind asks the sender for what it
//! misses. One question at a time, however many messages say the same.

use std::{sync::Mutex, time::Duration};

use atoll_ring::{Epoch, NodeId, Update};
use atoll_wire::{Lane, Reply, Request, ViewQuery};
use tokio::{sync::Notify, time::Instant};

use crate::{
    Node,
    storage::{Space, meta, rows},
};

/// How long a peer may take to send what we miss.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);

/// Who is known to be ahead.
#[derive(Default)]
pub(crate) struct CatchUp {
    ahead: Mutex<Option<(Epoch, NodeId)>>,
    heard: Notify,
    /// There is a new view.
    pub(crate) changed: Notify,
}

impl CatchUp {
    /// A peer speaks of this epoch, and it is newer than ours.
    pub(crate) fn behind(&self, peer: NodeId, epoch: Epoch) {
        let mut ahead = self.ahead.lock().expect("no panic holds it");
        if ahead.is_none_or(|(known, _)| known <= epoch) {
            *ahead = Some((epoch, peer)); // the one who spoke last is the most likely to answer
            self.heard.notify_one();
        }
    }
}

/// Asks whoever is ahead, for ever.
pub(crate) async fn follow(node: std::sync::Arc<Node>) {
    loop {
        let ahead = node.catch_up().ahead.lock().expect("no panic holds it").take();
        let Some((epoch, peer)) = ahead.filter(|(epoch, _)| *epoch > node.view().epoch()) else {
            node.catch_up().heard.notified().await;
            continue;
        };
        let envelope = node.envelope(node.clock().now() + ANSWER_LIMIT, 0);
        let asked = Request::View(ViewQuery { have: node.view().epoch().0 });
        let call = node.transport().call(peer, Lane::Control, envelope, asked);
        let Ok(Ok((_, Reply::View(reply)))) = tokio::time::timeout(ANSWER_LIMIT, call).await else {
            continue; // whoever is ahead says so again
        };
        let Ok(update) = postcard::from_bytes::<Update>(&reply.view) else {
            tracing::warn!(%peer, %epoch, "sent something that is no view");
            continue;
        };
        let view = match node.view().follow(&update) {
            Ok(view) => view,
            Err(why) => {
                tracing::warn!(%peer, %epoch, %why, "sent an update that does not fit");
                continue;
            }
        };
        let passed = match &update {
            Update::Entries(entries) => &entries[..],
            Update::View(_) => &[],
        };
        if node.adopt(view, passed, Vec::new()).await.is_err() {
            return; // the storage has failed, the node stops
        }
    }
}

/// What brings whoever has this epoch up to ours.
pub(crate) fn update(node: &Node, have: Epoch) -> Update {
    let passed = |epoch| {
        let row = rows::passed(epoch);
        let value = node.disk().get(Space::Meta, &row).ok().flatten()?;
        postcard::from_bytes(&meta::open(&row, &value).ok()?).ok()
    };
    Update::since(&node.view(), passed, have)
}

/// Waits until our view is at least of this epoch. False if time was over before.
pub(crate) async fn reached(node: &Node, epoch: Epoch, deadline: Instant) -> bool {
    loop {
        let changed = node.catch_up().changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable(); // before looking, or a change in between would be missed
        if node.view().epoch() >= epoch {
            return true;
        }
        if tokio::time::timeout_at(deadline, changed).await.is_err() {
            return false;
        }
    }
}
