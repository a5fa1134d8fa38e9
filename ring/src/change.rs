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

use crate::document::REMOVED_MAX;
use crate::placement::{MEMBERS_MAX, REPLICAS_MAX};
use crate::{
    Epoch, Invitation, Member, MemberState, Move, NodeId, Partition, Preference, Rejected, Removed,
    View, seats, targets,
};

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
    /// A node may register under this id, once, until then. Ids of invitations that are over count as
    /// given: whoever has the join file has a certificate for that id.
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
        #[serde(with = "targets")]
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
    /// The majority of the voters was lost for good, and the log goes on from what this node had. It
    /// votes alone until others are chosen.
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

/// The longest name of a zone that a command may give. Every view repeats it for every member.
pub const ZONE_BYTES_MAX: usize = 64;

impl View {
    /// The next view.
    ///
    /// # Errors
    /// The command does not fit this view; nothing changes.
    pub fn apply(&self, entry: &Entry) -> Result<View, Rejected> {
        let mut next = self.clone();
        next.advance(entry)?;
        next.check().expect("a command leaves a view as it must be");
        Ok(next)
    }

    /// Makes this the next view. If that is refused, something between the two is left.
    pub(crate) fn advance(&mut self, entry: &Entry) -> Result<(), Rejected> {
        let Entry { epoch, at_ms, command } = entry;
        let base = self.epoch;
        if epoch.0.checked_sub(1) != Some(base.0) {
            let made_for = Epoch(epoch.0.saturating_sub(1));
            return Err(Rejected::OtherEpoch { made_for, now: base });
        }
        self.epoch = *epoch;
        match command {
            Command::Invite { invitation, node, expires_ms } => {
                self.invite(*invitation, *node, *at_ms, *expires_ms)?;
            }
            Command::Register { invitation, node, address, zone, weight } => {
                self.invited(*invitation, *node, *at_ms)?;
                self.register(*node, *address, zone, *weight)?;
            }
            Command::Change { base: made_for, wish, moves } => {
                if *made_for != base {
                    return Err(Rejected::OtherEpoch { made_for: *made_for, now: base });
                }
                self.grant(wish)?;
                self.want(moves)?;
            }
            Command::Begin { partitions } => self.begin(partitions)?,
            Command::Finish { partitions } => self.finish(partitions)?,
            Command::Cancel => self.cancel()?,
            Command::Retire { node } => self.retire(*node)?,
            Command::Incarnation { node, incarnation } => self.reborn(*node, *incarnation)?,
            Command::Voters { voters } => self.set_voters(voters)?,
            Command::Recovered { by } => self.set_voters(&[*by])?,
        }
        Ok(())
    }

    /// Members that may own partitions.
    pub fn eligible(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.state == MemberState::Active)
    }

    fn is_eligible(&self, node: NodeId) -> bool {
        self.member(node).is_some_and(|member| member.state == MemberState::Active)
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
        let epoch = self.epoch;
        for over in self.invitations.extract_if(.., |open| open.expires_ms < at_ms) {
            self.removed.push(Removed { id: over.node, incarnation: 0, epoch });
        }
        let is_kept = self.invitations.iter().any(|open| open.node == node);
        if is_kept || self.was_seen(node) {
            return Err(Rejected::IdTaken { node });
        }
        if self.invitations.len() >= INVITATIONS_MAX {
            return Err(Rejected::TooManyInvitations);
        }
        let ids = self.removed.len() + self.members.len() + self.invitations.len();
        if self.members.len() >= MEMBERS_MAX || ids >= REMOVED_MAX {
            return Err(Rejected::TooManyMembers);
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
        if self.members.len() >= MEMBERS_MAX {
            return Err(Rejected::TooManyMembers);
        }
        check_zone(zone)?;
        // An entry loses the scope on its way: whoever proposed it would have another view.
        let address = SocketAddr::new(address.ip(), address.port());
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
                let Member { state, .. } = *self.member_mut(*old)?;
                if old == new {
                    let needed = "it cannot take its own place: name the new node".into();
                    return Err(Rejected::WrongState { node: *old, state, needed });
                }
                self.join(*new)?;
                self.go(*old, if *dead { MemberState::Dead } else { MemberState::Leaving })?;
            }
            Wish::Reweight { node, weight: 0 } => {
                return Err(Rejected::WeightZero { node: *node });
            }
            Wish::Reweight { node, weight } => self.staying(*node)?.weight = *weight,
            Wish::Rezone { node, zone } => {
                check_zone(zone)?;
                zone.clone_into(&mut self.staying(*node)?.zone);
            }
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

    /// A member that means to stay.
    fn staying(&mut self, node: NodeId) -> Result<&mut Member, Rejected> {
        let member = self.member_mut(node)?;
        match member.state {
            MemberState::Joining | MemberState::Active => Ok(member),
            state @ (MemberState::Leaving | MemberState::Dead) => {
                let needed = "it owns nothing much longer, so this changes nothing".into();
                Err(Rejected::WrongState { node, state, needed })
            }
        }
    }

    /// Sets out to go: by leaving, which it does once, or as a dead node. The dead stay dead; they
    /// may be named again when the moves away from them were cancelled.
    fn go(&mut self, node: NodeId, how: MemberState) -> Result<(), Rejected> {
        let is_still = self.moves.is_empty() && self.wanted.is_empty();
        let member = self.member_mut(node)?;
        let (state, is_dead) = (member.state, how == MemberState::Dead);
        let needed = match (state, is_dead) {
            (MemberState::Joining | MemberState::Active, _) | (MemberState::Leaving, true) => None,
            (MemberState::Dead, true) if is_still => None,
            (MemberState::Leaving, false) | (MemberState::Dead, true) => {
                Some("wait until its partitions have moved (`atoll ring moves`)".to_owned())
            }
            (MemberState::Dead, false) => {
                Some(format!("a dead node is removed (`atoll cluster remove --dead {node}`)"))
            }
        };
        if let Some(needed) = needed {
            return Err(Rejected::WrongState { node, state, needed });
        }
        member.state = how;
        let (left, replicas) = (self.eligible().count(), self.replicas);
        if left < usize::from(replicas) {
            return Err(Rejected::TooFewLeft { left, replicas });
        }
        if is_dead {
            self.end_moves_to(node);
        }
        Ok(())
    }

    /// Partitions in which a dead node was to take a seat stay where they are: it never would have
    /// what the seat needs. Where it leaves a seat, or keeps its own, the move goes on.
    fn end_moves_to(&mut self, dead: NodeId) {
        let (epoch, owners) = (self.epoch, &self.owners);
        let last_changed = &mut self.last_changed;
        self.moves.retain(|partition, Move { target }| {
            let index = partition.index();
            let joins = seats(&owners[index], target).into_iter().any(|(_, joins)| joins == dead);
            if joins {
                last_changed[index] = epoch;
            }
            !joins
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
                if !self.is_eligible(*owner) {
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
        self.check_completeness()
    }

    /// Whether all moves together lead where a view should be: as many owners as replicas, all of
    /// them members that stay. Without this a plan file that lost some lines would leave a node
    /// leaving for ever.
    fn check_completeness(&self) -> Result<(), Rejected> {
        for partition in self.partitions.all() {
            let bad = |reason: String| Rejected::BadMove { partition, reason };
            let last = self.wanted.get(&partition);
            let last = last.map_or_else(|| self.settled(partition), Vec::as_slice);
            if last.len() != usize::from(self.replicas) {
                let (owners, replicas) = (last.len(), self.replicas);
                return Err(bad(format!("the plan leaves it {owners} owners for {replicas}")));
            }
            if let Some(owner) = last.iter().find(|owner| !self.is_eligible(**owner)) {
                return Err(bad(format!("the plan leaves it to {owner}, which does not stay")));
            }
        }
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
        let shall_own = |at: &Partition| self.wanted.get(at).is_some_and(|row| row.contains(&node));
        let owns = |at: &Partition| self.owners(*at).contains(node) || shall_own(at);
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

    /// A new life. The dead have none: who is removed comes back as a new node.
    fn reborn(&mut self, node: NodeId, wanted: u32) -> Result<(), Rejected> {
        let member = self.member_mut(node)?;
        if member.state == MemberState::Dead {
            let needed = "it comes back as a new node only (`atoll cluster token`)".into();
            return Err(Rejected::WrongState { node, state: member.state, needed });
        }
        let now = member.incarnation;
        if now.checked_add(1) != Some(wanted) {
            return Err(Rejected::WrongIncarnation { node, now, wanted });
        }
        member.incarnation = wanted;
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

fn check_zone(zone: &str) -> Result<(), Rejected> {
    let bytes = zone.len();
    if (1..=ZONE_BYTES_MAX).contains(&bytes) { Ok(()) } else { Err(Rejected::BadZone { bytes }) }
}
