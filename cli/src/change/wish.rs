//! What can be wished of the ring, as it is typed. `atoll cluster` commits it, `atoll ring plan` only shows it.

use atoll_client::NodeId;
use atoll_ring::{Rejected, Wish};
use clap::{Args, Subcommand};

use super::{Commit, rejected};
use crate::exit::{Exit, Failed};

/// A wish that `atoll ring plan` shows.
#[derive(Subcommand)]
pub enum WishArg {
    /// A registered node gets its share
    Join(Join),
    /// A node gives away all it owns, then goes
    Leave(Leave),
    /// A node that does not come back
    Remove(Remove),
    /// A registered node takes the seats of another
    Replace(Replace),
    /// A node's share of the data
    Reweight(Reweight),
    /// A node stands elsewhere
    Zone(Zone),
    /// How many owners each partition has
    Replicas(Replicas),
    /// Whatever is not as the planner would have it
    Rebalance(Rebalance),
}

impl WishArg {
    /// As the ring takes it.
    pub fn wish(&self) -> Result<Wish, Failed> {
        match self {
            WishArg::Join(arg) => arg.wish(),
            WishArg::Leave(arg) => arg.wish(),
            WishArg::Remove(arg) => arg.wish(),
            WishArg::Replace(arg) => arg.wish(),
            WishArg::Reweight(arg) => arg.wish(),
            WishArg::Zone(arg) => arg.wish(),
            WishArg::Replicas(arg) => arg.wish(),
            WishArg::Rebalance(arg) => arg.wish(),
        }
    }
}

/// A wish, and how it is committed.
#[derive(Args)]
pub struct Change<W: Args> {
    /// What is wished.
    #[command(flatten)]
    pub what: W,

    /// How it is committed.
    #[command(flatten)]
    pub commit: Commit,
}

/// What can be typed and means a wish.
pub trait Wished {
    /// As the ring takes it.
    fn wish(&self) -> Result<Wish, Failed>;
}

/// A registered node gets its share.
#[derive(Args)]
pub struct Join {
    /// Which, such as n4
    #[arg(value_name = "NODE")]
    node: NodeId,
}

/// A node gives away all it owns, then goes.
#[derive(Args)]
pub struct Leave {
    /// Which, such as n2
    #[arg(value_name = "NODE")]
    node: NodeId,
}

/// A node that does not come back.
#[derive(Args)]
pub struct Remove {
    /// Which, such as n2
    #[arg(value_name = "NODE")]
    node: NodeId,

    /// It is gone for good, with all that it alone held
    #[arg(long)]
    dead: bool,
}

/// A registered node takes the seats of another.
#[derive(Args)]
pub struct Replace {
    /// Who goes, such as n2
    #[arg(value_name = "OLD")]
    old: NodeId,

    /// Who takes its place; it has registered with `atoll cluster join FILE --later`
    #[arg(long = "with", value_name = "NEW")]
    new: NodeId,

    /// The old one is gone for good, with all that it alone held
    #[arg(long)]
    dead: bool,
}

/// A node's share of the data.
#[derive(Args)]
pub struct Reweight {
    /// Which, such as n2
    #[arg(value_name = "NODE")]
    node: NodeId,

    /// Its share relative to the others, at least 1
    #[arg(value_name = "WEIGHT")]
    weight: u32,
}

/// A node stands elsewhere.
#[derive(Args)]
pub struct Zone {
    /// Which, such as n2
    #[arg(value_name = "NODE")]
    node: NodeId,

    /// What fails together with it
    #[arg(value_name = "ZONE")]
    zone: String,
}

/// How many owners each partition has.
#[derive(Args)]
pub struct Replicas {
    /// Not fewer than the cluster was made with, not more than nodes
    #[arg(value_name = "N")]
    replicas: u8,
}

/// Whatever is not as the planner would have it: after a cancelled change, say.
#[derive(Args)]
pub struct Rebalance {}

impl Wished for Join {
    fn wish(&self) -> Result<Wish, Failed> {
        Ok(Wish::Join { node: self.node })
    }
}

impl Wished for Leave {
    fn wish(&self) -> Result<Wish, Failed> {
        Ok(Wish::Leave { node: self.node })
    }
}

impl Wished for Remove {
    fn wish(&self) -> Result<Wish, Failed> {
        let node = self.node;
        if self.dead {
            return Ok(Wish::RemoveDead { node });
        }
        let what = "only a node that is gone for good is removed; nothing was changed";
        Err(Failed::new(Exit::Refused, what).mend(format!(
            "atoll cluster leave {node}; or, if it does not come back, atoll cluster remove --dead {node}"
        )))
    }
}

impl Wished for Replace {
    fn wish(&self) -> Result<Wish, Failed> {
        let &Replace { old, new, dead } = self;
        Ok(Wish::Replace { old, new, dead })
    }
}

impl Wished for Reweight {
    fn wish(&self) -> Result<Wish, Failed> {
        let &Reweight { node, weight } = self;
        if weight == 0 {
            return Err(rejected(&Rejected::WeightZero { node }));
        }
        Ok(Wish::Reweight { node, weight })
    }
}

impl Wished for Zone {
    fn wish(&self) -> Result<Wish, Failed> {
        let (node, zone) = (self.node, zone(&self.zone)?);
        Ok(Wish::Rezone { node, zone })
    }
}

impl Wished for Replicas {
    fn wish(&self) -> Result<Wish, Failed> {
        Ok(Wish::Replicas { replicas: self.replicas })
    }
}

impl Wished for Rebalance {
    fn wish(&self) -> Result<Wish, Failed> {
        Ok(Wish::Rebalance)
    }
}

/// A zone's name: it stands in tables and on command lines.
pub fn zone(name: &str) -> Result<String, Failed> {
    let is_good = (1..=64).contains(&name.len())
        && !name.contains(|letter: char| letter.is_whitespace() || letter.is_control());
    if is_good {
        Ok(name.to_owned())
    } else {
        let what = format!("{name:?} is no zone: 1 to 64 bytes without spaces");
        Err(Failed::new(Exit::Refused, what))
    }
}
