//! What a cluster needs in writing before its nodes can start, and who writes it.
//!
//! ```text
//! for the cluster   ca.pem, ca.key        the authority; the key is needed only to sign
//!                   view.json             the first view: members, partitions, owners
//!                   cluster.secret        binds context tokens to the cluster; every node has it
//! for each node     node.toml             see `atoll_node::NodeConfig`
//!                   node.pem, node.key    who it is
//! for each user     profile.toml          see `atoll_client::Profile`
//!                   user.pem, user.key    who he is
//! ```
//!
//! [`Cluster`] is a folder with all of this for a cluster on several machines: made once, then used to give out and renew
//! certificates; [`join`] is the one file that a new node needs. [`papers`] writes the single papers; a testnet, which has its own folder and its own rules, uses the
//! same. [`files`] is how they are written: whole or not at all, and secrets never readable by others.
//!
//! What is absent: nothing here talks to a node. A node finds its new certificate by itself, see
//! [`atoll_transport::renewal`].

pub mod cluster;
mod error;
pub mod files;
pub mod join;
pub mod papers;

pub use cluster::{Cluster, Plan, Renewed, Valid};
pub use error::ClusterError;
pub use files::FileError;
pub use join::{JoinFile, JoinFileError, NewNode};
pub use papers::PapersError;
