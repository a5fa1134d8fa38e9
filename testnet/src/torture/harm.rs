//! What can be done to the nodes of a testnet, and its kinds.

use std::{fmt, str::FromStr};

use atoll_ring::NodeId;

/// What goes wrong, and with whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Harm {
    /// Ended with SIGKILL, and started when it is over.
    Kill(Vec<NodeId>),
    /// Stopped with SIGSTOP, and let go on when it is over.
    Pause(Vec<NodeId>),
    /// Ended with SIGTERM, and started when it is over.
    Stop(Vec<NodeId>),
    /// Killed, its disk taken away, and started when it is over.
    Wipe(NodeId),
    /// Nothing that one side sends arrives at the other; nor the other way, unless it is one way.
    Partition {
        /// The one side.
        from: Vec<NodeId>,
        /// The other.
        to: Vec<NodeId>,
        /// Only what the first side sends is lost.
        oneway: bool,
    },
    /// Whatever these nodes send to others arrives later.
    Slow {
        /// Who sends.
        nodes: Vec<NodeId>,
        /// By how much.
        delay_ms: u32,
        /// And by up to so much more or less.
        jitter_ms: u32,
    },
    /// Of what these nodes send to others, some is lost, comes twice or is overtaken: so much of a million, each.
    Flaky {
        /// Who sends.
        nodes: Vec<NodeId>,
        /// How much.
        millionths: u32,
    },
    /// The disk of a node is full: it takes no more writes.
    Full(NodeId),
    /// Each fsync of these nodes takes so much longer.
    SlowDisk {
        /// Whose.
        nodes: Vec<NodeId>,
        /// By how much.
        slow_ms: u32,
    },
    /// The wall clock of a node shows so much more, or less.
    Clock {
        /// Whose.
        node: NodeId,
        /// How far ahead of the others'; negative: behind.
        ahead_ms: i64,
    },
}

/// A kind of harm, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HarmKind {
    /// [`Harm::Kill`].
    Kill,
    /// [`Harm::Pause`].
    Pause,
    /// [`Harm::Stop`].
    Restart,
    /// [`Harm::Wipe`].
    Wipe,
    /// [`Harm::Partition`] of two groups.
    Partition,
    /// [`Harm::Partition`] of one node from all others.
    Isolate,
    /// [`Harm::Slow`].
    Slow,
    /// [`Harm::Flaky`].
    Flaky,
    /// [`Harm::Full`].
    Disk,
    /// [`Harm::SlowDisk`].
    SlowDisk,
    /// [`Harm::Clock`].
    Clock,
}

impl HarmKind {
    /// All of them.
    pub const ALL: [HarmKind; 11] = [
        HarmKind::Kill,
        HarmKind::Pause,
        HarmKind::Restart,
        HarmKind::Wipe,
        HarmKind::Partition,
        HarmKind::Isolate,
        HarmKind::Slow,
        HarmKind::Flaky,
        HarmKind::Disk,
        HarmKind::SlowDisk,
        HarmKind::Clock,
    ];

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            HarmKind::Kill => "kill",
            HarmKind::Pause => "pause",
            HarmKind::Restart => "restart",
            HarmKind::Wipe => "wipe",
            HarmKind::Partition => "partition",
            HarmKind::Isolate => "isolate",
            HarmKind::Slow => "slow",
            HarmKind::Flaky => "flaky",
            HarmKind::Disk => "disk",
            HarmKind::SlowDisk => "slow-disk",
            HarmKind::Clock => "clock",
        }
    }

    /// Whether it takes data away.
    #[must_use]
    pub fn takes_data(self) -> bool {
        match self {
            HarmKind::Wipe => true,
            HarmKind::Kill
            | HarmKind::Pause
            | HarmKind::Restart
            | HarmKind::Partition
            | HarmKind::Isolate
            | HarmKind::Slow
            | HarmKind::Flaky
            | HarmKind::Disk
            | HarmKind::SlowDisk
            | HarmKind::Clock => false,
        }
    }

    /// How it is done.
    #[must_use]
    pub fn means(self) -> Means {
        match self {
            HarmKind::Kill => Means::Kill,
            HarmKind::Pause => Means::Pause,
            HarmKind::Restart => Means::Stop,
            HarmKind::Wipe => Means::Wipe,
            HarmKind::Partition
            | HarmKind::Isolate
            | HarmKind::Slow
            | HarmKind::Flaky
            | HarmKind::Disk
            | HarmKind::SlowDisk
            | HarmKind::Clock => Means::Tell,
        }
    }

    /// Whether it is done to the processes of nodes, and not by telling them of faults.
    #[must_use]
    pub fn is_of_processes(self) -> bool {
        self.means() != Means::Tell
    }
}

/// How harm is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// By SIGKILL.
    Kill,
    /// By SIGSTOP.
    Pause,
    /// By SIGTERM.
    Stop,
    /// By SIGKILL, and the disk goes.
    Wipe,
    /// By telling nodes of faults.
    Tell,
}

impl FromStr for HarmKind {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        let known = HarmKind::ALL.into_iter().find(|kind| kind.word() == word);
        known.ok_or_else(|| {
            let all: Vec<&str> = HarmKind::ALL.iter().map(|kind| kind.word()).collect();
            format!("no such fault; there are {}", all.join(", "))
        })
    }
}

impl Harm {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> HarmKind {
        match self {
            Harm::Kill(_) => HarmKind::Kill,
            Harm::Pause(_) => HarmKind::Pause,
            Harm::Stop(_) => HarmKind::Restart,
            Harm::Wipe(_) => HarmKind::Wipe,
            Harm::Partition { from, .. } if from.len() == 1 => HarmKind::Isolate,
            Harm::Partition { .. } => HarmKind::Partition,
            Harm::Slow { .. } => HarmKind::Slow,
            Harm::Flaky { .. } => HarmKind::Flaky,
            Harm::Full(_) => HarmKind::Disk,
            Harm::SlowDisk { .. } => HarmKind::SlowDisk,
            Harm::Clock { .. } => HarmKind::Clock,
        }
    }

    /// The nodes that something is done to. Two steps that last at the same time share none: so what heals one leaves the
    /// other as it is.
    #[must_use]
    pub fn nodes(&self) -> &[NodeId] {
        match self {
            Harm::Kill(nodes)
            | Harm::Pause(nodes)
            | Harm::Stop(nodes)
            | Harm::Slow { nodes, .. }
            | Harm::Flaky { nodes, .. }
            | Harm::SlowDisk { nodes, .. } => nodes,
            Harm::Partition { from, .. } => from,
            Harm::Wipe(node) | Harm::Full(node) | Harm::Clock { node, .. } => {
                std::slice::from_ref(node)
            }
        }
    }
}

impl fmt::Display for Harm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind().word(), names(self.nodes()))?;
        match self {
            Harm::Kill(_) | Harm::Pause(_) | Harm::Stop(_) | Harm::Wipe(_) => Ok(()),
            Harm::Partition { to, oneway, .. } => {
                let way = if *oneway { "to" } else { "from" };
                write!(f, " {way} {}", names(to))
            }
            Harm::Slow { delay_ms, jitter_ms, .. } => write!(f, " by {delay_ms}±{jitter_ms} ms"),
            Harm::Flaky { millionths, .. } => write!(f, " {} %", f64::from(*millionths) / 10_000.0),
            Harm::Full(_) => f.write_str(" full"),
            Harm::SlowDisk { slow_ms, .. } => write!(f, " by {slow_ms} ms"),
            Harm::Clock { ahead_ms, .. } => write!(f, " by {ahead_ms:+} ms"),
        }
    }
}

fn names(nodes: &[NodeId]) -> String {
    nodes.iter().map(NodeId::to_string).collect::<Vec<_>>().join(" ")
}
