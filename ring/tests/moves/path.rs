//! The rows of views that a partition can pass through, made by the state machine itself.

use std::collections::BTreeMap;

use atoll_ring::{
    ClusterId, Command, Entry, Epoch, Member, MemberState, Needs, NodeId, Outcome, Owners,
    Partition, Partitions, Tally, View, Vote, Wish, seats,
};

const P: Partition = Partition(0);

/// A set of nodes: bit i is node i of the path.
pub type Nodes = u8;

/// One partition's way from view to view.
#[derive(Clone)]
pub struct Path {
    /// Nodes 0, 1 and so on of the model. The first ones are the owners at the beginning.
    names: Vec<NodeId>,
    pub views: Vec<View>,
    /// What led to each view but the first.
    pub causes: Vec<Cause>,
}

/// What led from one view to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    Begin,
    Finish,
    Cancel,
    /// This node has died, its disk with it, and everybody may know.
    Death(usize),
}

impl Path {
    /// A partition with owners 0, 1, ... and as many nodes beside them.
    pub fn new(replicas: usize) -> Path {
        let member = |id: u32| Member {
            id: NodeId(id),
            incarnation: 1,
            address: ([10, 0, 0, id as u8], 7400).into(),
            zone: "a".to_owned(),
            weight: 1,
            state: MemberState::Active,
        };
        let members: Vec<Member> = (1..=2 * replicas as u32).map(member).collect();
        let one = Partitions::new(1).unwrap();
        let (view, _) = View::create(ClusterId([7; 16]), one, replicas as u8, members).unwrap();
        let mut names = view.settled(P).to_vec();
        let others = view.members().iter().map(|member| member.id);
        let others: Vec<NodeId> = others.filter(|id| !names.contains(id)).collect();
        names.extend(others);
        Path { names, views: vec![view], causes: Vec::new() }
    }

    fn last(&self) -> &View {
        self.views.last().expect("a path begins with a view")
    }

    fn apply(&self, view: &View, command: Command) -> View {
        let entry = Entry { epoch: Epoch(view.epoch().0 + 1), at_ms: 0, command };
        view.apply(&entry).unwrap_or_else(|rejected| panic!("{entry:?}: {rejected}"))
    }

    /// The row the partition has at last.
    pub fn row(&self) -> Vec<usize> {
        self.settled(self.views.len() - 1)
    }

    /// The owners after the move of this view.
    pub fn settled(&self, view: usize) -> Vec<usize> {
        self.views[view].settled(P).iter().map(|node| self.index(*node)).collect()
    }

    fn index(&self, node: NodeId) -> usize {
        self.names.iter().position(|name| *name == node).expect("a node of this path")
    }

    fn named(&self, row: &[usize]) -> Vec<NodeId> {
        row.iter().map(|index| self.names[*index]).collect()
    }

    fn moves(&self, row: Option<&[usize]>) -> BTreeMap<Partition, Vec<NodeId>> {
        row.map(|row| (P, self.named(row))).into_iter().collect()
    }

    fn then(mut self, cause: Cause, view: View) -> Path {
        self.views.push(view);
        self.causes.push(cause);
        self
    }

    /// The partition becomes joint, on its way to this row.
    pub fn begin(self, row: &[usize]) -> Path {
        let base = self.last().epoch();
        let wish = if row.len() == usize::from(self.last().replicas()) {
            Wish::Rebalance
        } else {
            Wish::Replicas { replicas: row.len() as u8 }
        };
        let change = Command::Change { base, wish, moves: self.moves(Some(row)) };
        let wanted = self.apply(self.last(), change);
        self.go_on(&wanted)
    }

    /// What waits becomes joint.
    fn go_on(self, wanted: &View) -> Path {
        let view = self.apply(wanted, Command::Begin { partitions: vec![P] });
        self.then(Cause::Begin, view)
    }

    /// As [`Path::begin`], for what a death made wait.
    pub fn begin_waiting(self) -> Path {
        let wanted = self.last().clone();
        self.go_on(&wanted)
    }

    pub fn finish(self) -> Path {
        let session = self.last().last_changed(P);
        let view = self.apply(self.last(), Command::Finish { partitions: vec![(P, session)] });
        self.then(Cause::Finish, view)
    }

    pub fn cancel(self) -> Path {
        let view = self.apply(self.last(), Command::Cancel);
        self.then(Cause::Cancel, view)
    }

    /// The node dies; the partition shall go to this row, if it must.
    pub fn death(self, node: usize, row: Option<&[usize]>) -> Path {
        let (base, wish) = (self.last().epoch(), Wish::RemoveDead { node: self.names[node] });
        let change = Command::Change { base, wish, moves: self.moves(row) };
        let view = self.apply(self.last(), change);
        self.then(Cause::Death(node), view)
    }

    pub fn nodes(&self) -> usize {
        self.names.len()
    }

    /// The seats that change hands at this view: who leaves each, and who takes it. Every seat, also
    /// those beyond the n of a request, but not those that nobody held.
    pub fn seats(&self, view: usize) -> Vec<(usize, usize)> {
        let index = |node: NodeId| self.index(node);
        match self.views[view].owners(P) {
            Owners::One(_) => Vec::new(),
            Owners::Joint { old, new } => seats(old, new)
                .into_iter()
                .filter_map(|(held, joins)| Some((index(held?), index(joins))))
                .collect(),
        }
    }

    /// The owners before the move of this view.
    pub fn old(&self, view: usize) -> Vec<usize> {
        match self.views[view].owners(P) {
            Owners::One(old) | Owners::Joint { old, .. } => {
                old.iter().map(|node| self.index(*node)).collect()
            }
        }
    }

    /// Since which view of the path the partition is as it is at this one: the fence.
    pub fn last_changed(&self, view: usize) -> usize {
        let changed = self.views[view].last_changed(P);
        self.views.iter().position(|view| view.epoch() >= changed).unwrap()
    }

    pub fn is_joint(&self, view: usize) -> bool {
        matches!(self.views[view].owners(P), Owners::Joint { .. })
    }

    /// Whom a request to the first n owners asks at this view, and for each set of nodes whether
    /// their answers win.
    pub fn wins(&self, view: usize, n: u8, needed: u8, count: Count) -> (Nodes, Vec<bool>) {
        let owners = self.views[view].owners(P).first(n);
        let all = owners.all();
        let counted = match (owners, count) {
            (Owners::One(_), _) | (Owners::Joint { .. }, Count::Both) => owners,
            (Owners::Joint { old, .. }, Count::OldOnly) => Owners::One(old),
            (Owners::Joint { .. }, Count::Anybody) => Owners::One(&all),
        };
        let needs = Needs { acks: needed, owners: needed, durable: 0 };
        let asked = all.iter().fold(0, |bits, node| bits | 1 << self.index(*node));
        let wins = |answers: usize| {
            let mut tally = Tally::new(counted, needs, false);
            for (index, name) in self.names.iter().enumerate() {
                if answers >> index & 1 == 1 {
                    tally.add(*name, Vote::Durable);
                }
            }
            tally.outcome() == Outcome::Won
        };
        (asked, (0..1 << self.names.len()).map(wins).collect())
    }
}

/// How answers are counted while a partition is joint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// As `Tally` does: won in the old and in the new set.
    Both,
    /// Wrong: only the old owners.
    OldOnly,
    /// Wrong: whoever joins is an owner like any other.
    Anybody,
}

/// For messages: `[0 1] -Begin-> [0 1]+[0 2] -Finish-> [0 2]`.
impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for view in 0..self.views.len() {
            if let Some(before) = view.checked_sub(1) {
                write!(f, " -{:?}-> ", self.causes[before])?;
            }
            if self.is_joint(view) {
                write!(f, "{:?}+", self.old(view))?;
            }
            write!(f, "{:?}", self.settled(view))?;
        }
        Ok(())
    }
}
