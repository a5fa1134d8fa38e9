//! A membership log without consensus: one list in one process, which loses leaders and majorities when it is told to.
//!
//! The second real [`MembershipLog`]. It keeps the promises that a log must keep (one order, nothing agreed on is lost, a
//! refusal changes nothing) and breaks everything else: who leads changes under the leader's feet, answers get lost after
//! the fact, agreements take their time, and for as long as the majority is gone nothing is agreed on at all. Chance comes
//! from a seed, so on tokio's paused clock a run is repeatable.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use atoll_ring::{Command, Entry, Epoch, NodeId, View};
use atoll_transport::{Boxed, chance::Chance};
use bytes::Bytes;

use super::{LogStanding, MembershipLog, NotProposed};
use crate::Node;

/// How long an agreement takes at most.
const AGREEMENT_MAX: Duration = Duration::from_millis(30);

/// The log of one simulated cluster.
pub struct SeededLog {
    state: Mutex<State>,
}

struct State {
    head: Arc<View>,
    entries: Vec<Entry>,
    nodes: BTreeMap<NodeId, Weak<Node>>,
    leader: Option<NodeId>,
    has_majority: bool,
    /// Of 1000 agreements so many are never heard of by who proposed them.
    answers_lost: u64,
    chance: Chance,
}

impl SeededLog {
    /// A log that begins with this view. Nobody leads.
    pub fn new(first: View, seed: u64) -> Arc<Self> {
        let state = State {
            head: Arc::new(first),
            entries: Vec::new(),
            nodes: BTreeMap::new(),
            leader: None,
            has_majority: true,
            answers_lost: 0,
            chance: Chance::of_seed(seed),
        };
        Arc::new(SeededLog { state: Mutex::new(state) })
    }

    /// The log as one node sees it.
    pub fn port(self: &Arc<Self>, me: NodeId) -> Arc<dyn MembershipLog> {
        Arc::new(Port { log: self.clone(), me })
    }

    /// What has been agreed on so far.
    pub fn head(&self) -> View {
        View::clone(&self.state().head)
    }

    /// The same, not copied: for whoever asks often.
    pub fn shared_head(&self) -> Arc<View> {
        self.state().head.clone()
    }

    /// How it came to that.
    pub fn entries(&self) -> Vec<Entry> {
        self.state().entries.clone()
    }

    /// What came after that epoch.
    pub fn entries_since(&self, epoch: Epoch) -> Vec<Entry> {
        let state = self.state();
        let from = state.entries.partition_point(|entry| entry.epoch <= epoch);
        state.entries[from..].to_vec()
    }

    /// This node leads from now on, or nobody does.
    pub fn lead(&self, leader: Option<NodeId>) {
        self.state().leader = leader;
    }

    /// Who leads.
    pub fn leader(&self) -> Option<NodeId> {
        self.state().leader
    }

    /// The majority of the voters is there, or gone.
    pub fn set_majority(&self, is_there: bool) {
        self.state().has_majority = is_there;
    }

    /// Of 1000 agreements so many are never heard of by who proposed them.
    pub fn lose_answers(&self, of_1000: u64) {
        self.state().answers_lost = of_1000;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }
}

struct Port {
    log: Arc<SeededLog>,
    me: NodeId,
}

impl MembershipLog for Port {
    fn attach(&self, node: &Arc<Node>) {
        let mut state = self.log.state();
        state.nodes.insert(self.me, Arc::downgrade(node));
    }

    fn propose(&self, command: Command) -> Boxed<Result<Epoch, NotProposed>> {
        let (log, me) = (self.log.clone(), self.me);
        Box::pin(async move {
            let wait = {
                let mut state = log.state();
                if !state.has_majority {
                    return Err(frozen(&state.head));
                }
                match state.leader {
                    Some(leader) if leader != me => return Err(NotProposed::LedBy(leader)),
                    Some(_) => {}
                    None => state.leader = Some(me),
                }
                AGREEMENT_MAX * u32::try_from(state.chance.below(1000)).expect("small") / 1000
            };
            tokio::time::sleep(wait).await;
            // whoever leads has all that was agreed on, also what a leader before it did not live to tell
            let (head, node) = {
                let state = log.state();
                (state.head.clone(), state.nodes.get(&me).and_then(Weak::upgrade))
            };
            let unknown = |why: &str| NotProposed::Unknown(why.to_owned());
            let node = node.ok_or_else(|| unknown("the node is stopping"))?;
            let passed = log.entries_since(node.view().epoch());
            let adopted = node.adopt(View::clone(&head), &passed, Vec::new()).await;
            adopted.map_err(|error| unknown(&error.to_string()))?;
            let (entry, view, is_heard) = {
                let mut state = log.state();
                if !state.has_majority {
                    return Err(frozen(&state.head));
                }
                let epoch = Epoch(state.head.epoch().0 + 1);
                let entry = Entry { epoch, at_ms: epoch.0 * 1000, command };
                let view = state.head.apply(&entry)?;
                state.head = Arc::new(view.clone());
                state.entries.push(entry.clone());
                let lost = state.answers_lost;
                let is_heard = state.chance.below(1000) >= lost;
                (entry, view, is_heard)
            };
            let epoch = entry.epoch;
            // others may have been faster with what came in between
            let adopted = node.adopt(view, &[entry], Vec::new()).await;
            adopted.map_err(|error| unknown(&error.to_string()))?;
            if is_heard { Ok(epoch) } else { Err(unknown("the answer was lost")) }
        })
    }

    fn hear(&self, _: NodeId, _: Bytes) -> Boxed<Result<Bytes, String>> {
        Box::pin(async { Err("this log has no voters that speak".into()) })
    }

    fn standing(&self) -> LogStanding {
        let state = self.log.state();
        let frozen = match state.has_majority {
            true => String::new(),
            false => frozen(&state.head).to_string(),
        };
        LogStanding {
            leader: state.leader,
            leads: state.leader == Some(self.me) && state.has_majority,
            voters_reachable: u8::from(state.has_majority),
            frozen,
        }
    }

    fn set_voters(&self, voters: Vec<NodeId>) -> Boxed<Result<(), NotProposed>> {
        let proposed = self.propose(Command::Voters { voters });
        Box::pin(async move { proposed.await.map(drop) })
    }

    fn close(&self) -> Boxed<()> {
        Box::pin(async {})
    }
}

fn frozen(head: &View) -> NotProposed {
    NotProposed::Frozen(format!("at epoch {}, the majority of the voters is gone", head.epoch()))
}
