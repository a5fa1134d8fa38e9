//! How a view becomes the next one: the state machine that the membership log drives.
//!
//! A [`Command`] is one line of the log, an [`Entry`] that line with its place in it. Every node
//! that applies the same entries to the same first view has the same view; nothing else may enter.
//!
//! ```text
//!   a member   invited ─▶ Joining ─▶ Active ─▶ Leaving ─▶ removed, for ever
//!                                       └────▶ Dead ─────▶ removed, for ever
//!   a partition   old owners ─▶ wanted ─▶ joint ─▶ new owners
//!                      ◀──────── cancel ───┘
//! ```
//!
//! A change of members says all its moves at once ([`Command::Change`]); they wait as *wanted* until
//! they begin. What a partition's stages promise is said at [`Move`].

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::placement::{MEMBERS_MAX, REPLICAS_MAX};
use crate::view::{Invitation, REMOVED_MAX, Removed};
use crate::{Epoch, Member, MemberState, Move, NodeId, Partition, Preference, View, bounded};

/// One line of the membership log, in its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The epoch that it makes: one above that of the view it is applied to.
    pub epoch: Epoch,
    /// When it was proposed, milliseconds since 1970 by the proposer's clock. For people, and for the
    /// end of invitations.
    pub at_ms: u64,
    /// What changes.
    pub command: Command,
}

/// What may change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// A node may register under this id, once, until then.
    Invite {
        /// Drawn at random by whoever invites; the node shows it.
        invitation: [u8; 16],
        /// The id kept for it.
        node: NodeId,
        /// Milliseconds since 1970 after which it is void.
        expires_ms: u64,
    },
    /// An invited node is a member from now on. It owns nothing.
    Register {
        /// Its invitation, which is void from now on.
        invitation: [u8; 16],
        /// The id that was kept for it.
        node: NodeId,
        /// Where the others reach it.
        address: SocketAddr,
        /// Its zone.
        zone: String,
        /// Its share of the data relative to the others.
        weight: u32,
    },
    /// A wish of the operator, with all that has to move for it.
    Change {
        /// The view it was planned with: a plan made for another one is refused.
        base: Epoch,
        /// What is wished.
        wish: Wish,
        /// The owners that partitions shall have instead of those they have.
        #[serde(deserialize_with = "bounded::wanted")]
        moves: BTreeMap<Partition, Vec<NodeId>>,
    },
    /// These partitions are joint from now on.
    Begin {
        /// Which; each is wanted elsewhere.
        partitions: Vec<Partition>,
    },
    /// The new owners of these hold everything; the old ones are released.
    Finish {
        /// Which, and the epoch in which each became joint: a copy made in another move does not count.
        partitions: Vec<(Partition, Epoch)>,
    },
    /// Nothing moves any more: joint partitions stay with their old owners, wanted moves are dropped,
    /// and members that were leaving stay.
    Cancel,
    /// A member that owns nothing is gone for ever.
    Retire {
        /// Who.
        node: NodeId,
    },
    /// A node has lost memory and begins a new life.
    Incarnation {
        /// Who.
        node: NodeId,
        /// The number of the new life: one above the last.
        incarnation: u32,
    },
    /// These members vote on the log from now on.
    Voters {
        /// Who, in ascending order.
        voters: Vec<NodeId>,
    },
    /// The majority of the voters was lost for good, and the log goes on from what this node had.
    Recovered {
        /// Whose copy of the log it was.
        by: NodeId,
    },
}

/// What an operator may wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wish {
    /// A registered member gets its share.
    Join {
        /// Who.
        node: NodeId,
    },
    /// A member gives away all it owns, then goes.
    Leave {
        /// Who.
        node: NodeId,
    },
    /// A member is gone and does not come back. What it alone held is lost.
    RemoveDead {
        /// Who.
        node: NodeId,
    },
    /// A registered member takes the seats of another.
    Replace {
        /// Who goes.
        old: NodeId,
        /// Who takes its place.
        new: NodeId,
        /// The old one does not come back.
        dead: bool,
    },
    /// A member's share of the data.
    Reweight {
        /// Who.
        node: NodeId,
        /// The new weight, at least 1.
        weight: u32,
    },
    /// A member stands elsewhere.
    Rezone {
        /// Who.
        node: NodeId,
        /// The new zone.
        zone: String,
    },
    /// How many owners each partition has.
    Replicas {
        /// The new number.
        replicas: u8,
    },
    /// Whatever is not as the planner would have it.
    Rebalance,
}

/// Most invitations at a time.
pub const INVITATIONS_MAX: usize = 64;

/// Most voters.
pub const VOTERS_MAX: usize = 5;

/// Why a command changes nothing. The view stays as it was; the text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum Rejected {
    /// Somebody was faster.
    #[error("made for epoch {made_for}, and the ring is at {now}: look at it again and repeat")]
    OtherEpoch {
        /// What it was made for.
        made_for: Epoch,
        /// What is.
        now: Epoch,
    },
    /// Moves are under way.
    #[error(
        "{moves} partitions are on their way: wait for them (`atoll ring moves --watch`), or stop \
         them (`atoll ring cancel`)"
    )]
    Busy {
        /// Partitions that move or shall.
        moves: usize,
    },
    /// No such member.
    #[error("{node} is no member; see `atoll cluster status`")]
    NoMember {
        /// Who.
        node: NodeId,
    },
    /// An id that somebody has or had.
    #[error(
        "{node} was given to a node before, and an id is never given twice: ask for another with `atoll cluster token`"
    )]
    IdTaken {
        /// Which.
        node: NodeId,
    },
    /// A member that was removed.
    #[error(
        "{node} was removed in epoch {epoch} and can never come back under this id: join as a new node (`atoll cluster token`)"
    )]
    WasRemoved {
        /// Who.
        node: NodeId,
        /// When.
        epoch: Epoch,
    },
    /// No such invitation.
    #[error(
        "this join file was used, or is not of this cluster: make another one with `atoll cluster token`"
    )]
    NoInvitation,
    /// An invitation that is over.
    #[error("this join file expired {ago_s} s ago: make another one with `atoll cluster token`")]
    InvitationExpired {
        /// Seconds since then.
        ago_s: u64,
    },
    /// Too many members, now or over all time.
    #[error(
        "no room for another member: a cluster has at most {MEMBERS_MAX} at a time, and {REMOVED_MAX} ids over all time"
    )]
    TooManyMembers,
    /// Too many invitations.
    #[error("{INVITATIONS_MAX} join files are open: use some, or wait until they expire")]
    TooManyInvitations,
    /// An address that a member has.
    #[error("{address} is the address of {node}: give the new node another one")]
    AddressTaken {
        /// Which.
        address: SocketAddr,
        /// Whose.
        node: NodeId,
    },
    /// Weight 0.
    #[error(
        "{node} with weight 0: give it at least 1, or let it leave (`atoll cluster leave {node}`)"
    )]
    WeightZero {
        /// Who.
        node: NodeId,
    },
    /// Fewer nodes than replicas.
    #[error(
        "{left} nodes would be left for {replicas} replicas: add a node first, or replace this one"
    )]
    TooFewLeft {
        /// Nodes that would be left.
        left: usize,
        /// Owners each partition has.
        replicas: u8,
    },
    /// Not in the right state.
    #[error("{node} is {state}; {needed}")]
    WrongState {
        /// Who.
        node: NodeId,
        /// What it is.
        state: MemberState,
        /// What to do.
        needed: String,
    },
    /// Not the number after the last.
    #[error("{node} is at incarnation {now}, so the next one is not {wanted}")]
    WrongIncarnation {
        /// Who.
        node: NodeId,
        /// What it has.
        now: u32,
        /// What it asked for.
        wanted: u32,
    },
    /// Too many or too few replicas.
    #[error("{replicas} replicas: from {least} (what buckets need) to {most} are possible")]
    Replicas {
        /// What was asked for.
        replicas: u8,
        /// The fewest.
        least: u8,
        /// The most.
        most: u8,
    },
    /// A move that cannot be.
    #[error("partition {partition}: {reason}")]
    BadMove {
        /// Which.
        partition: Partition,
        /// Why.
        reason: String,
    },
    /// A member that still owns something.
    #[error("{node} still owns {partitions} partitions: wait until they have moved")]
    StillOwns {
        /// Who.
        node: NodeId,
        /// How many.
        partitions: usize,
    },
    /// Too many, too few, or unfit voters.
    #[error("no such voters: {reason}")]
    BadVoters {
        /// Why.
        reason: String,
    },
    /// Nothing to cancel.
    #[error("nothing moves")]
    NothingMoves,
}

impl View {
    /// The next view.
    ///
    /// # Errors
    /// The command does not fit this view; nothing changes.
    pub fn apply(&self, entry: &Entry) -> Result<View, Rejected> {
        let Entry { epoch, at_ms, command } = entry;
        if *epoch != Epoch(self.epoch.0 + 1) {
            return Err(Rejected::OtherEpoch { made_for: Epoch(epoch.0 - 1), now: self.epoch });
        }
        let mut next = self.clone();
        next.epoch = *epoch;
        match command {
            Command::Invite { invitation, node, expires_ms } => {
                next.invite(*invitation, *node, *at_ms, *expires_ms)?;
            }
            Command::Register { invitation, node, address, zone, weight } => {
                next.invited(*invitation, *node, *at_ms)?;
                next.register(*node, *address, zone, *weight)?;
            }
            Command::Change { base, wish, moves } => {
                if *base != self.epoch {
                    return Err(Rejected::OtherEpoch { made_for: *base, now: self.epoch });
                }
                next.grant(wish)?;
                next.want(moves)?;
            }
            Command::Begin { partitions } => next.begin(partitions)?,
            Command::Finish { partitions } => next.finish(partitions)?,
            Command::Cancel => next.cancel()?,
            Command::Retire { node } => next.retire(*node)?,
            Command::Incarnation { node, incarnation } => {
                let member = next.member_mut(*node)?;
                if *incarnation != member.incarnation + 1 {
                    let (now, wanted) = (member.incarnation, *incarnation);
                    return Err(Rejected::WrongIncarnation { node: *node, now, wanted });
                }
                member.incarnation = *incarnation;
            }
            Command::Voters { voters } => next.set_voters(voters)?,
            Command::Recovered { by } => drop(next.member_mut(*by)?),
        }
        next.check().expect("a command leaves a view as it must be");
        Ok(next)
    }

    /// Members that may own partitions.
    pub fn eligible(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state == MemberState::Active)
    }

    /// The owners a partition has when its present move is over.
    #[must_use]
    pub fn settled(&self, partition: Partition) -> &[NodeId] {
        match self.moves.get(&partition) {
            Some(Move { target }) => target,
            None => &self.owners[partition.index()],
        }
    }

    fn member_mut(&mut self, node: NodeId) -> Result<&mut Member, Rejected> {
        if let Some(gone) = self.removed.iter().find(|gone| gone.id == node) {
            return Err(Rejected::WasRemoved { node, epoch: gone.epoch });
        }
        let index = self.members.binary_search_by_key(&node, |member| member.id);
        index.map(|index| &mut self.members[index]).map_err(|_| Rejected::NoMember { node })
    }

    fn invite(
        &mut self,
        invitation: [u8; 16],
        node: NodeId,
        at_ms: u64,
        expires_ms: u64,
    ) -> Result<(), Rejected> {
        self.invitations.retain(|open| open.expires_ms >= at_ms);
        let is_kept = self.invitations.iter().any(|open| open.node == node);
        if is_kept || self.was_seen(node) {
            return Err(Rejected::IdTaken { node });
        }
        if self.invitations.len() >= INVITATIONS_MAX {
            return Err(Rejected::TooManyInvitations);
        }
        self.invitations.push(Invitation { id: invitation, node, expires_ms });
        Ok(())
    }

    fn was_seen(&self, node: NodeId) -> bool {
        self.member(node).is_some() || self.removed.iter().any(|gone| gone.id == node)
    }

    /// Takes back an invitation, if it is good.
    fn invited(&mut self, invitation: [u8; 16], node: NodeId, at_ms: u64) -> Result<(), Rejected> {
        let of = |open: &Invitation| open.id == invitation && open.node == node;
        let index = self.invitations.iter().position(of).ok_or(Rejected::NoInvitation)?;
        let Invitation { expires_ms, .. } = self.invitations.remove(index);
        if expires_ms < at_ms {
            return Err(Rejected::InvitationExpired { ago_s: (at_ms - expires_ms) / 1000 });
        }
        Ok(())
    }

    fn register(
        &mut self,
        id: NodeId,
        address: SocketAddr,
        zone: &str,
        weight: u32,
    ) -> Result<(), Rejected> {
        if self.was_seen(id) {
            return Err(Rejected::IdTaken { node: id });
        }
        if weight == 0 {
            return Err(Rejected::WeightZero { node: id });
        }
        if let Some(other) = self.members.iter().find(|member| member.address == address) {
            return Err(Rejected::AddressTaken { address, node: other.id });
        }
        let (zone, state) = (zone.to_owned(), MemberState::Joining);
        let member = Member { id, incarnation: 0, address, zone, weight, state };
        let index = self.members.partition_point(|member| member.id < id);
        self.members.insert(index, member);
        Ok(())
    }

    /// The next view as far as the members go: with this wish granted, and nothing wanted for it yet.
    pub(crate) fn granted(&self, wish: &Wish) -> Result<View, Rejected> {
        let mut next = self.clone();
        next.epoch = Epoch(self.epoch.0.saturating_add(1));
        next.grant(wish)?;
        Ok(next)
    }

    /// What a wish does to the members, before anything moves.
    fn grant(&mut self, wish: &Wish) -> Result<(), Rejected> {
        let moving = self.moves.len() + self.wanted.len();
        let somebody_died =
            matches!(wish, Wish::RemoveDead { .. } | Wish::Replace { dead: true, .. });
        if moving > 0 && !somebody_died {
            return Err(Rejected::Busy { moves: moving });
        }
        match wish {
            Wish::Join { node } => self.join(*node)?,
            Wish::Leave { node } => self.go(*node, MemberState::Leaving)?,
            Wish::RemoveDead { node } => self.go(*node, MemberState::Dead)?,
            Wish::Replace { old, new, dead } => {
                self.join(*new)?;
                self.go(*old, if *dead { MemberState::Dead } else { MemberState::Leaving })?;
            }
            Wish::Reweight { node, weight: 0 } => {
                return Err(Rejected::WeightZero { node: *node });
            }
            Wish::Reweight { node, weight } => self.member_mut(*node)?.weight = *weight,
            Wish::Rezone { node, zone } => zone.clone_into(&mut self.member_mut(*node)?.zone),
            Wish::Replicas { replicas } => {
                let eligible = u8::try_from(self.eligible().count()).unwrap_or(u8::MAX);
                let (least, most) = (self.bucket_n, eligible.min(REPLICAS_MAX));
                if !(least..=most).contains(replicas) {
                    return Err(Rejected::Replicas { replicas: *replicas, least, most });
                }
                self.replicas = *replicas;
            }
            Wish::Rebalance => {}
        }
        self.preference = Preference::new(self.partitions, self.eligible().map(|member| member.id));
        Ok(())
    }

    fn join(&mut self, node: NodeId) -> Result<(), Rejected> {
        let member = self.member_mut(node)?;
        if member.state != MemberState::Joining {
            let needed = "only a node that has just registered joins".into();
            return Err(Rejected::WrongState { node, state: member.state, needed });
        }
        member.state = MemberState::Active;
        Ok(())
    }

    fn go(&mut self, node: NodeId, how: MemberState) -> Result<(), Rejected> {
        let member = self.member_mut(node)?;
        if member.state == how {
            let needed = "wait until its partitions have moved (`atoll ring moves`)".into();
            return Err(Rejected::WrongState { node, state: member.state, needed });
        }
        member.state = how;
        let (left, replicas) = (self.eligible().count(), self.replicas);
        if left < usize::from(replicas) {
            return Err(Rejected::TooFewLeft { left, replicas });
        }
        if how == MemberState::Dead {
            self.end_moves_to(node);
        }
        Ok(())
    }

    /// Partitions that were on their way to a dead node stay where they are.
    fn end_moves_to(&mut self, dead: NodeId) {
        let (epoch, owners) = (self.epoch, &self.owners);
        let last_changed = &mut self.last_changed;
        self.moves.retain(|partition, Move { target }| {
            let index = partition.index();
            let goes_on = !target.contains(&dead) || owners[index].contains(&dead);
            if !goes_on {
                last_changed[index] = epoch;
            }
            goes_on
        });
    }

    /// These moves, and no others, wait from now on.
    fn want(&mut self, moves: &BTreeMap<Partition, Vec<NodeId>>) -> Result<(), Rejected> {
        for (partition, target) in moves {
            let bad = |reason: String| Rejected::BadMove { partition: *partition, reason };
            if !self.partitions.contains(*partition) {
                return Err(bad("there is no such partition".into()));
            }
            if target.len() != usize::from(self.replicas) {
                return Err(bad(format!("{} owners for {}", target.len(), self.replicas)));
            }
            for (index, owner) in target.iter().enumerate() {
                let state = self.member(*owner).map(|member| member.state);
                if state != Some(MemberState::Active) {
                    return Err(bad(format!("{owner} cannot own it")));
                }
                if target[..index].contains(owner) {
                    return Err(bad(format!("{owner} twice")));
                }
            }
            if self.settled(*partition) == target {
                return Err(bad("it is there, or on its way there".into()));
            }
        }
        self.wanted.clone_from(moves);
        Ok(())
    }

    fn begin(&mut self, partitions: &[Partition]) -> Result<(), Rejected> {
        for partition in partitions {
            let bad = |reason: &str| Rejected::BadMove {
                partition: *partition,
                reason: reason.to_owned(),
            };
            if self.moves.contains_key(partition) {
                return Err(bad("it is on its way already"));
            }
            let target =
                self.wanted.remove(partition).ok_or_else(|| bad("nobody wants it moved"))?;
            self.moves.insert(*partition, Move { target });
            self.last_changed[partition.index()] = self.epoch;
        }
        Ok(())
    }

    fn finish(&mut self, partitions: &[(Partition, Epoch)]) -> Result<(), Rejected> {
        for (partition, session) in partitions {
            let bad = |reason: &str| Rejected::BadMove {
                partition: *partition,
                reason: reason.to_owned(),
            };
            let index = partition.index();
            if !self.moves.contains_key(partition) || self.last_changed[index] != *session {
                return Err(bad("this move is over"));
            }
            let Move { target } = self.moves.remove(partition).expect("it was looked at");
            self.owners[index] = target;
            self.last_changed[index] = self.epoch;
        }
        Ok(())
    }

    fn cancel(&mut self) -> Result<(), Rejected> {
        if self.moves.is_empty() && self.wanted.is_empty() {
            return Err(Rejected::NothingMoves);
        }
        self.wanted.clear();
        for partition in std::mem::take(&mut self.moves).into_keys() {
            self.last_changed[partition.index()] = self.epoch;
        }
        for member in &mut self.members {
            if member.state == MemberState::Leaving {
                member.state = MemberState::Active;
            }
        }
        self.preference = Preference::new(self.partitions, self.eligible().map(|member| member.id));
        Ok(())
    }

    fn retire(&mut self, node: NodeId) -> Result<(), Rejected> {
        let state = self.member_mut(node)?.state;
        if state == MemberState::Active {
            let needed = format!("let it leave first (`atoll cluster leave {node}`)");
            return Err(Rejected::WrongState { node, state, needed });
        }
        let owns = |partition: &Partition| self.owners(*partition).contains(node);
        let partitions = self.partitions.all().filter(owns).count();
        if partitions > 0 {
            return Err(Rejected::StillOwns { node, partitions });
        }
        if self.voters.contains(&node) {
            return Err(Rejected::BadVoters { reason: format!("{node} still votes") });
        }
        let index = self.members.partition_point(|member| member.id < node);
        let Member { id, incarnation, .. } = self.members.remove(index);
        self.removed.push(Removed { id, incarnation, epoch: self.epoch });
        Ok(())
    }

    fn set_voters(&mut self, voters: &[NodeId]) -> Result<(), Rejected> {
        let bad = |reason: String| Err(Rejected::BadVoters { reason });
        if voters.is_empty() || voters.len() > VOTERS_MAX {
            return bad(format!("{} of them; 1 to {VOTERS_MAX} vote", voters.len()));
        }
        if !voters.is_sorted_by(|a, b| a < b) {
            return bad("they are not in order".into());
        }
        for voter in voters {
            match self.member(*voter).map(|member| member.state) {
                None | Some(MemberState::Dead) => return bad(format!("{voter} cannot vote")),
                Some(_) => {}
            }
        }
        self.voters = voters.to_vec();
        Ok(())
    }
}
