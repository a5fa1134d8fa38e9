//! Which part of the node a request goes to, and which requests are refused before anything is done.

use std::{sync::Arc, time::Duration};

use atoll_ring::{ClusterId, Epoch, NodeId, Partition, Token};
use atoll_transport::{Answer, Caller, Handler};
use atoll_wire::{
    BucketChange, BucketId, Change as ChangeOfBuckets, Deed, Envelope, ErrorCode, Failure, Pong,
    RaftReply, Replicate, Reply, Request, Role, Roots, ViewReply, limits::TIMEOUT_MS_MAX,
};
use tokio::time::Instant;

use super::Node;
use crate::{
    buckets,
    coordinate::{
        get::get,
        list::{list, scan},
        many::many,
        write::write,
    },
    dump,
    explain::explain,
    faults, fence,
    membership::{self, catch_up},
    moves, repair, replica,
    trace::{Traced, Tracing},
};

/// Until when an answer is of use, and what it belongs to.
#[derive(Clone, Copy)]
pub(crate) struct Due {
    pub(crate) deadline: Instant,
    pub(crate) operation: u128,
    pub(crate) bucket: BucketId,
    /// Whether its steps are noted.
    pub(crate) traced: Traced,
}

impl Handler for Node {
    fn node(&self) -> NodeId {
        self.id
    }

    fn cluster(&self) -> ClusterId {
        self.view().cluster()
    }

    fn epoch(&self) -> Epoch {
        self.view().epoch()
    }

    fn handle(self: Arc<Self>, caller: Caller, envelope: Envelope, request: Request) -> Answer {
        if let Some(peer) = caller.node
            && !self.liveness.is_up(peer)
        {
            self.transport.heard_from(peer);
        }
        if let Some(peer) = caller.node {
            self.heard_epoch(peer, envelope.epoch);
        }
        if let Some(peer) = caller.node
            && let Some(since) = self.view().removed_since(peer)
            && !matches!(request, Request::Hello(_) | Request::View(_))
        {
            let detail = format!("{peer} was removed from the ring in epoch {since}");
            return Answer::Now(failed(Failure::refused(ErrorCode::Removed, detail)));
        }
        let left = Duration::from_millis(u64::from(envelope.left_ms.min(TIMEOUT_MS_MAX)));
        let now = self.clock.now();
        let due = Due {
            deadline: now + left,
            operation: envelope.operation,
            bucket: envelope.bucket,
            traced: Traced::No,
        };
        // what a node answers before it knows what it may say; the rest waits
        let at_any_time = matches!(
            request,
            Request::Hello(_)
                | Request::Ping(_)
                | Request::View(_)
                | Request::Status(_)
                | Request::Recall(_)
                | Request::Raft(_)
                | Request::Faults(_)
                | Request::Propose(_)
                | Request::Moves(_)
                | Request::Buckets(_)
                | Request::BucketChange(BucketChange { change: ChangeOfBuckets::Join, .. })
        );
        if !at_any_time && self.life.get().is_none() {
            return Answer::Now(failed(self.not_yet()));
        }
        // what nodes ask for themselves has no number, and whoever watches the ring or asks how we are wants nothing served
        if envelope.operation != 0 && !at_any_time {
            self.repair.served(now);
        }
        let key = match &request {
            Request::Write(write) => &write.key,
            Request::Get(get) => &get.key,
            Request::Many(_) if envelope.left_ms == 0 => return Answer::Now(failed(too_late())),
            Request::List(_) if envelope.left_ms == 0 => return Answer::Now(failed(too_late())),
            Request::List(page) => return Answer::Later(Box::pin(list(self, page.clone(), due))),
            Request::Scan(asked) => return Answer::Now(scan(&self, &envelope, asked)),
            Request::Many(requests) => {
                return Answer::Later(Box::pin(many(self, requests.clone(), due, envelope.trace)));
            }
            Request::Replicate(replicate) => &replicate.key,
            Request::Fetch(fetch) => &fetch.key,
            Request::Explain(asked) => &asked.key,
            Request::Ping(ping) => {
                if caller.node == Some(NodeId(ping.node)) {
                    self.memory.heard(NodeId(ping.node), ping.incarnation, ping.commit);
                    buckets::gossip::heard(&self, NodeId(ping.node), ping.buckets);
                }
                let Some(actor) = self.actor() else {
                    return Answer::Now(failed(self.not_yet())); // so that nobody counts on us
                };
                let mut roots = Roots::default();
                if let Some(peer) = caller.node {
                    self.repair.heard(&self, peer, ping.roots, envelope.epoch);
                    roots = self.repair.roots(&self, peer);
                }
                return Answer::Now(Reply::Pong(Pong {
                    node: self.id.0,
                    incarnation: actor.incarnation,
                    commit: self.memory.to_tell(NodeId(ping.node)),
                    roots,
                    wall_ms: self.clock.wall_ms(),
                    buckets: self.buckets.digest(),
                }));
            }
            Request::Recall(recall) if self.is_about(&caller, recall.node) => {
                let recalled = self.memory.recall(NodeId(recall.node), self.actor().is_some());
                return Answer::Now(Reply::Recalled(recalled));
            }
            Request::Recall(_) => {
                let detail = "members ask for themselves only";
                return Answer::Now(failed(Failure::refused(ErrorCode::NotPermitted, detail)));
            }
            Request::View(query) => {
                let update = catch_up::update(&self, Epoch(query.have));
                let view = postcard::to_stdvec(&update).expect("a view is plain data");
                return Answer::Now(Reply::View(ViewReply { view: view.into() }));
            }
            Request::Status(_) => {
                // nobody shall take a node for ready whose process is about to end
                return Answer::Now(match self.disk.takes_writes() {
                    Ok(()) => Reply::Status(Box::new(self.status())),
                    Err(error) => failed(replica::stopping(&error)),
                });
            }
            Request::Propose(proposal) => {
                return Answer::Later(Box::pin(membership::propose(
                    self,
                    caller,
                    proposal.clone(),
                )));
            }
            Request::Raft(raft) => {
                let Some(peer) = caller.node else {
                    let detail = "only voters speak of the log, and they say who they are";
                    return Answer::Now(failed(Failure::refused(ErrorCode::NotPermitted, detail)));
                };
                let heard = self.log.hear(peer, raft.message.clone());
                return Answer::Later(Box::pin(async move {
                    match heard.await {
                        Ok(message) => Reply::Raft(RaftReply { message }),
                        Err(why) => failed(Failure::refused(ErrorCode::Stopping, why)),
                    }
                }));
            }
            Request::Buckets(query) => return Answer::Now(buckets::answer::all(&self, query)),
            Request::BucketChange(asked) => {
                let asked = asked.clone();
                return Answer::Later(Box::pin(buckets::answer::change(self, asked, due.deadline)));
            }
            Request::Moves(_) => return Answer::Now(Reply::Moves(moves::report(&self))),
            Request::Copy(copy) => return moves::send_page(&self, caller, copy),
            Request::Covered(asked) => return moves::covers(&self, caller, asked),
            Request::Faults(asked) => return Answer::Now(faults::answer(&self, asked)),
            Request::Dump(request) => return Answer::Now(dump::dump(&self, request)),
            Request::RepairStatus(_) => {
                return Answer::Now(Reply::RepairStatus(self.repair.report(&self)));
            }
            Request::RepairRun(run) => {
                if let (Some(partition), true) = (run.partition, run.accept_loss) {
                    tracing::warn!(partition, "what is left of damaged keys is accepted");
                    self.doubt.accept(Partition(partition));
                }
                return Answer::Now(Reply::RepairRun(
                    self.repair.run(run.partition.map(Partition)),
                ));
            }
            Request::CompareRoots(_) | Request::Compare(_) | Request::Entries(_) => {
                return Answer::Now(repair::answer::answer(&self, caller, &envelope, &request));
            }
            Request::Hello(_) => {
                let detail = "a hello begins a lane, nothing else";
                return Answer::Now(failed(Failure::refused(ErrorCode::Malformed, detail)));
            }
        };
        if envelope.left_ms == 0 {
            return Answer::Now(failed(too_late()));
        }
        let is_unheard_of = self.buckets.known(envelope.bucket).is_none();
        let is_behind = envelope.role == Role::Node && self.is_behind(&envelope, &request, key);
        if !is_unheard_of && !is_behind && !envelope.trace {
            return self.serve(envelope, request, due);
        }
        Answer::Later(Box::pin(async move {
            let tracing = envelope.trace.then(|| Tracing::begin(&self, now));
            let traced = tracing.as_ref().map_or(Traced::No, Tracing::traced);
            let due = Due { traced, ..due };
            if is_unheard_of {
                buckets::gossip::learn(&self, envelope.bucket, due.deadline).await;
            }
            if is_behind {
                fence::wait_for(&self, envelope.epoch, due.deadline).await;
            }
            if is_unheard_of || is_behind {
                self.note(due, Deed::CaughtUp);
            }
            let reply = match self.serve(envelope, request, due) {
                Answer::Now(reply) => reply,
                Answer::Later(reply) => reply.await,
            };
            match tracing {
                Some(tracing) => tracing.end(reply),
                None => reply,
            }
        }))
    }
}

impl Node {
    /// What is asked about a key. Clients leave the planning to us, whatever view they have; what nodes have planned meets
    /// the fence where it is done.
    fn serve(self: Arc<Self>, envelope: Envelope, request: Request, due: Due) -> Answer {
        match request {
            Request::Write(change) => Answer::Later(Box::pin(write(self, change, due))),
            Request::Get(request) => Answer::Later(Box::pin(get(self, request, due))),
            Request::Explain(asked) => Answer::Now(explain(&self, &asked, due)),
            Request::Fetch(fetch) => replica::fetch(&self, &envelope, &fetch, due),
            Request::Replicate(request) => {
                Answer::Later(Box::pin(replica::replicate(self, envelope, request, due)))
            }
            Request::Hello(_)
            | Request::Ping(_)
            | Request::View(_)
            | Request::Status(_)
            | Request::Many(_)
            | Request::List(_)
            | Request::Scan(_)
            | Request::RepairStatus(_)
            | Request::RepairRun(_)
            | Request::Dump(_)
            | Request::Faults(_)
            | Request::Propose(_)
            | Request::Raft(_)
            | Request::Moves(_)
            | Request::BucketChange(_)
            | Request::Buckets(_)
            | Request::Copy(_)
            | Request::Covered(_)
            | Request::Recall(_)
            | Request::CompareRoots(_)
            | Request::Compare(_)
            | Request::Entries(_) => unreachable!("answered above"),
        }
    }
}

impl Node {
    /// The refusal of a node that does not serve yet.
    fn not_yet(&self) -> Failure {
        let detail = format!("{} is starting: {}", self.id, self.rising());
        Failure { retry_after_ms: 1000, ..Failure::refused(ErrorCode::Rising, detail) }
    }

    /// Whether a member speaks of itself.
    fn is_about(&self, caller: &Caller, node: u32) -> bool {
        let node = NodeId(node);
        caller.node == Some(node) && node != self.id && self.view().member(node).is_some()
    }

    /// Whether another node has planned with a view that may know more of this key: one that is newer than ours, when as far
    /// as we know we do not own the key, or whoever we shall stand in for does not. An owner need not know the newest view to
    /// give or take a state.
    fn is_behind(&self, envelope: &Envelope, request: &Request, key: &[u8]) -> bool {
        let (view, bucket) = (self.view(), envelope.bucket);
        let partition = view.partition(Token::of(&bucket.0, key));
        let owner = match request {
            Request::Replicate(Replicate { hint_for: Some(owner), .. }) => NodeId(*owner),
            _ => self.id,
        };
        let fits = fence::keeps_as(self, owner, partition, bucket);
        envelope.epoch > view.epoch() && !fits
    }
}

fn too_late() -> Failure {
    let detail = "the time of the request was over when it arrived";
    Failure::refused(ErrorCode::DeadlinePassed, detail)
}

/// A failure as a reply.
pub(crate) fn failed(failure: Failure) -> Reply {
    Reply::Failed(Box::new(failure))
}
