//! One change of a key: who made it, under which number, and what is claimed along with it.
//!
//! An [`Actor`] is one incarnation of a node. It numbers its changes with counters that are never
//! used twice; an actor and a counter together are a [`Dot`], the name of one change for ever. An
//! [`Event`] is a dot together with the interval that its coordinator vouches for: "between my last
//! change of this key and this one I made no other".

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Context;

/// One incarnation of a node: the one who numbers changes.
///
/// A node that can no longer vouch for the counters it gave out (a lost or restored disk) goes on
/// as a new incarnation. Shown as `n1.2`: node 1, incarnation 2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Actor {
    /// The node's number, given once by the cluster and never reused.
    pub node: u32,
    /// Which life of that node, counted from 0.
    pub incarnation: u32,
}

impl Actor {
    /// The given life of the given node.
    pub const fn new(node: u32, incarnation: u32) -> Actor {
        Actor { node, incarnation }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}.{}", self.node, self.incarnation)
    }
}

/// As [`Display`](fmt::Display): `crdts` shows a dot by the `Debug` of its actor, and `n1.2.7` is
/// what people read.
impl fmt::Debug for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of one change: (actor, counter). Shown as `n1.2.7`.
///
/// This is the ordered form, because our stores are sorted by dot and `crdts::Dot` has no `Ord`
/// (dots of two actors do not compare). The two convert into each other:
///
/// ```
/// use atoll_antientropy::{Actor, Dot};
///
/// let dot = Dot { actor: Actor::new(1, 2), counter: 7 };
/// let plain: crdts::Dot<Actor> = dot.clone().into();
/// assert_eq!(Dot::from(plain), dot);
/// assert_eq!(dot.to_string(), "n1.2.7");
/// ```
pub type Dot = crdts::OrdDot<Actor>;

/// One change as its coordinator announces it: the dot (actor, counter), and the claim that of this
/// actor's events *on this key* the interval (after, counter] holds no other.
///
/// How far `after` may reach back is decided by [`Standing::event`](crate::Standing::event) and
/// nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// Who made the change.
    pub actor: Actor,
    /// Open lower end of what is claimed; less than `counter`.
    pub after: u64,
    /// The change's own number, from 1.
    pub counter: u64,
}

impl Event {
    /// An event that claims nothing but itself: (counter - 1, counter].
    pub fn alone(actor: Actor, counter: u64) -> Event {
        assert!(counter > 0, "counters start at 1");
        Event { actor, after: counter - 1, counter }
    }

    /// The name of this change.
    pub fn dot(&self) -> Dot {
        Dot { actor: self.actor, counter: self.counter }
    }

    /// The context that knows this event and nothing else.
    pub fn context(&self) -> Context {
        let mut context = Context::new();
        context.add(self);
        context
    }
}
