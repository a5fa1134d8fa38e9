//! Links that are broken on purpose: what becomes of each datagram that a node sends to another.
//!
//! [`LinkFaults`] is held by whoever commands ([`LinkFaults::command`]) and by the socket, which asks it about every
//! datagram. Rules name nodes; which addresses these are the node's view says, and goes on saying
//! ([`LinkFaults::follow`]): a rule for a node that joins later waits for it. Only what goes to the address of a member is
//! ever touched, so clients are not.
//!
//! `line` is the judge of one link, and pure: the rules, a seed, the number of the datagram and the time decide. The
//! socket (`faulty_socket`) only does what it says.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use atoll_ring::NodeId;
use atoll_wire::faults::LinkFault;
use tokio::time::Instant;

mod line;

pub(crate) use line::Fate;
use line::Line;

/// The faults of all links that begin at one node.
#[derive(Debug)]
pub struct LinkFaults {
    me: NodeId,
    began: Instant,
    /// Whether any member has a rule: without one nothing else is looked at.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    seed: u32,
    rules: BTreeMap<NodeId, Vec<LinkFault>>,
    members: Vec<(NodeId, SocketAddr)>,
    /// Those that have rules, by where they are.
    lines: BTreeMap<SocketAddr, (NodeId, Line)>,
}

impl LinkFaults {
    /// None yet. Must be made inside a runtime.
    pub fn new(me: NodeId) -> Self {
        LinkFaults {
            me,
            began: Instant::now(),
            any: AtomicBool::new(false),
            state: Mutex::default(),
        }
    }

    /// These faults from now on, and no others. A link whose faults stay what they were goes on as if nothing had been
    /// said; chance begins anew on the others.
    pub fn command(&self, seed: u32, faults: &[LinkFault]) {
        let mut rules: BTreeMap<NodeId, Vec<LinkFault>> = BTreeMap::new();
        for fault in faults {
            rules.entry(fault.peer).or_default().push(fault.clone());
        }
        let mut state = self.state();
        if (state.seed, &state.rules) == (seed, &rules) {
            return;
        }
        let before = std::mem::replace(&mut state.rules, rules);
        let same_seed = state.seed == seed;
        state.seed = seed;
        let State { rules, lines, .. } = &mut *state;
        lines.retain(|_, (node, _)| same_seed && rules.get(node) == before.get(node));
        self.draw_lines(&mut state);
    }

    /// These are the members, and where they are.
    pub fn follow(&self, members: &[(NodeId, SocketAddr)]) {
        let mut state = self.state();
        state.members =
            members.iter().map(|(node, address)| (*node, canonical(*address))).collect();
        let State { members, lines, .. } = &mut *state;
        lines.retain(|address, (node, _)| members.contains(&(*node, *address)));
        self.draw_lines(&mut state);
    }

    /// Each member with rules has a line.
    fn draw_lines(&self, state: &mut State) {
        let State { seed, rules, members, lines } = state;
        for (node, address) in members.iter().filter(|(node, _)| *node != self.me) {
            if let Some(rules) = rules.get(node) {
                lines.entry(*address).or_insert_with(|| {
                    let link = u64::from(self.me.0) << 32 | u64::from(node.0);
                    (*node, Line::new(*seed, link, rules.clone()))
                });
            }
        }
        self.any.store(!lines.is_empty(), Ordering::Release);
    }

    /// Whether anything may happen to datagrams to this address.
    pub(crate) fn touches(&self, to: SocketAddr) -> bool {
        self.any.load(Ordering::Acquire) && {
            let state = self.state();
            let line = state.lines.get(&canonical(to));
            line.is_some_and(|(_, line)| line.has_rules_at(wall_ms()))
        }
    }

    /// What becomes of a datagram of so many bytes.
    pub(crate) fn fate(&self, to: SocketAddr, bytes: usize) -> Fate {
        let now = self.micros(Instant::now());
        match self.state().lines.get_mut(&canonical(to)) {
            Some((_, line)) => line.fate(bytes, now, wall_ms()),
            None => Fate::Arrives { at_micros: now, twice: false },
        }
    }

    /// Whether nothing arrives there at present, not even what is on its way.
    pub(crate) fn is_cut(&self, to: SocketAddr) -> bool {
        self.state().lines.get(&canonical(to)).is_some_and(|(_, line)| line.is_cut_at(wall_ms()))
    }

    /// The time of fates.
    pub(crate) fn micros(&self, moment: Instant) -> u64 {
        u64::try_from(moment.duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }

    /// When that is.
    pub(crate) fn moment(&self, micros: u64) -> Instant {
        self.began + std::time::Duration::from_micros(micros)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }
}

/// An IPv4 address that came through an IPv6 socket is the same place.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The true clock, by which faults begin and end.
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn cut(peer: u32) -> LinkFault {
        LinkFault { cut: true, ..LinkFault::to(NodeId(peer), "partition") }
    }

    fn touched(faults: &LinkFaults) -> Vec<u16> {
        (1..6).filter(|port| faults.touches(at(*port)) && faults.is_cut(at(*port))).collect()
    }

    /// Rules follow their nodes: to those that are there, to those that come later, and to another address; they touch
    /// nobody else, and not the node itself.
    #[tokio::test]
    async fn rules_follow_their_nodes() {
        let faults = LinkFaults::new(NodeId(1));
        faults.command(0, &[cut(1), cut(2), cut(4)]);
        assert_eq!(touched(&faults), []);
        let members = |ports: &[(u32, u16)]| -> Vec<_> {
            ports.iter().map(|(node, port)| (NodeId(*node), at(*port))).collect()
        };
        faults.follow(&members(&[(1, 1), (2, 2), (3, 3)]));
        assert_eq!(touched(&faults), [2]);
        faults.follow(&members(&[(1, 1), (2, 2), (3, 3), (4, 4)]));
        assert_eq!(touched(&faults), [2, 4]);
        faults.follow(&members(&[(1, 1), (2, 5), (3, 2)]));
        assert_eq!(touched(&faults), [5]);
        faults.command(0, &[cut(3)]);
        assert_eq!(touched(&faults), [2]);
        faults.command(0, &[]);
        assert_eq!(touched(&faults), []);
        let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().expect("an address"), 2);
        faults.command(0, &[cut(3)]);
        assert!(faults.is_cut(mapped));
    }

    /// To say the same again, or something of other links, does not begin the fates of a link anew; another seed does.
    #[tokio::test]
    async fn fates_go_on_where_nothing_changes() {
        let flaky = LinkFault {
            drop: atoll_wire::faults::Chance::of_million(500_000),
            ..LinkFault::to(NodeId(2), "flaky")
        };
        let fates = |again: &dyn Fn(&LinkFaults, usize)| -> Vec<bool> {
            let faults = LinkFaults::new(NodeId(1));
            faults.follow(&[(NodeId(2), at(2))]);
            faults.command(7, std::slice::from_ref(&flaky));
            let lost = |number| {
                again(&faults, number);
                faults.fate(at(2), 100) == Fate::Lost
            };
            (0..200).map(lost).collect()
        };
        let once = fates(&|_, _| {});
        let repeated = fates(&|faults, _| faults.command(7, std::slice::from_ref(&flaky)));
        let beside = fates(&|faults, number| {
            faults.command(7, &[flaky.clone(), cut(3 + number as u32 % 2)]);
        });
        assert_eq!((&repeated, &beside), (&once, &once));
        let reseeded = fates(&|faults, number| {
            if number == 0 {
                faults.command(8, std::slice::from_ref(&flaky));
            }
        });
        assert_ne!(reseeded, once);
    }
}
