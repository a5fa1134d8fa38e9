//! What happens while a command works, for whoever shows it.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use atoll_ring::{NodeId, PlacementWarning};

/// Something worth a line.
#[derive(Clone, Debug)]
pub enum Event {
    /// The planner has something to say about what was asked.
    Warning(PlacementWarning),
    /// A new testnet has its folder and ports.
    Created {
        /// The folder.
        folder: PathBuf,
        /// The port of `n1`.
        first_port: u16,
        /// How many nodes.
        nodes: u32,
    },
    /// Somebody took a port between our look and the node's start; the next block is tried.
    PortTaken {
        /// Which one.
        port: u16,
    },
    /// The ring knows a new node.
    Registered {
        /// Which node.
        node: NodeId,
        /// Where it will listen.
        address: SocketAddr,
        /// Its zone.
        zone: String,
    },
    /// A node answers.
    Ready {
        /// Which node.
        node: NodeId,
        /// Since its process was started; `None` if it ran already.
        after: Option<Duration>,
    },
    /// A paused node goes on.
    Resumed {
        /// Which node.
        node: NodeId,
    },
    /// A node was not paused.
    NotPaused {
        /// Which node.
        node: NodeId,
    },
    /// A node was paused.
    Paused {
        /// Which node.
        node: NodeId,
    },
    /// A node has ended as it was told to.
    Stopped {
        /// Which node.
        node: NodeId,
        /// Since it was told.
        after: Duration,
    },
    /// A node did not end in time and was killed.
    KilledAfterStop {
        /// Which node.
        node: NodeId,
        /// How long it was waited for.
        after: Duration,
    },
    /// A node was killed, as asked.
    Killed {
        /// Which node.
        node: NodeId,
    },
    /// The data of a node is gone, as asked.
    Wiped {
        /// Which node.
        node: NodeId,
    },
    /// The certificate of a node has expired, as asked.
    CertificateExpired {
        /// Which node.
        node: NodeId,
    },
    /// The certificate of a node is good again.
    CertificateRenewed {
        /// Which node.
        node: NodeId,
    },
    /// There was nothing to stop, kill, pause or resume.
    NotRunning {
        /// Which node.
        node: NodeId,
    },
    /// The testnet was removed with its data.
    Removed {
        /// Where it was.
        folder: PathBuf,
    },
}

/// Who hears of events.
pub type Hear<'a> = &'a mut (dyn FnMut(Event) + Send);
