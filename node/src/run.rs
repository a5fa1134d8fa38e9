//! A node as a process: from its settings to its last words.
//!
//! The order matters. Settings, secrets and certificates are checked before anything is touched; the data directory is
//! locked and known to be ours before the engine opens it; the commit number is compared with the durable mark before
//! anybody is served; the socket is bound last, so a node that answers is a node that can.

use std::{path::Path, sync::Arc, time::Duration};

use atoll_ring::{NodeId, View};
use atoll_transport::{
    Identity, Peers, Quic,
    small_file::{self, VIEW_BYTES_MAX},
};
use atoll_wire::Role;
use bytes::Bytes;

use crate::{
    ConfigError, Node, NodeConfig, Parts, SystemClock,
    storage::{
        Space, Store, StoreError,
        commit::Disk,
        directory::{Directory, DirectoryError},
        fjall::FjallStore,
        rows,
    },
};

/// Why a node did not start, or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Settings, secrets or certificates.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The storage failed. Nothing is acknowledged any more.
    #[error(transparent)]
    Storage(#[from] StoreError),
    /// The engine's journal has lost its tail.
    #[error(
        "{path} has lost its newest commits: it holds {found}, but {marked} were fsynced. The node must not serve this data \
         under its present incarnation: the other owners would take its silence for knowledge. Stop, keep the directory for \
         examination, and replace the node"
    )]
    Behind {
        /// The data directory.
        path: std::path::PathBuf,
        /// Commit number found.
        found: u64,
        /// Commit number that was fsynced.
        marked: u64,
    },
}

/// Runs a node until `stop` resolves or its storage fails. `ready` is called when it accepts requests.
///
/// # Errors
/// See [`RunError`].
pub async fn run(
    config: NodeConfig,
    first_start: bool,
    ready: impl FnOnce(NodeId, std::net::SocketAddr),
    stop: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let secret = config.read_secret()?;
    let identity = Identity::load(&config.ca, &config.certificate, &config.key)
        .map_err(ConfigError::Identity)?;
    if !identity.names(config.node) {
        let path = config.certificate.clone();
        return Err(ConfigError::OtherNode { path, node: config.node }.into());
    }
    let first_view = read_view(&config.view)?;
    check_view(&first_view, &config, &config.view)?;

    let directory = Directory::open(&config.data, first_view.cluster(), config.node, first_start)?;
    let store = Arc::new(FjallStore::open(&directory.store())?);
    let mark = directory.mark()?;
    let marked = mark.read();
    let (disk, writer) = Disk::on_thread(store.clone(), Some(mark))?;
    if disk.sequence() < marked {
        return Err(RunError::Behind { path: config.data, found: disk.sequence(), marked });
    }
    let view = match stored_view(&*store)? {
        Some(view) => {
            check_view(&view, &config, &config.data)?;
            view
        }
        None => first_view,
    };

    let quic = Quic::bind(config.listen, &identity)
        .map_err(|source| RunError::Listen { address: config.listen, source })?;
    let peers = Peers::new(quic.clone(), Role::Node, Some(config.node));
    let members: Vec<_> = view.members().iter().map(|member| (member.id, member.address)).collect();
    peers.set(&members);
    let disk = Arc::new(disk);
    let node = Node::start(Parts {
        id: config.node,
        view: Arc::new(view),
        secret,
        transport: peers.clone(),
        disk: disk.clone(),
        clock: Arc::new(SystemClock),
    })
    .await?;
    directory.settle()?;
    let serving = tokio::spawn({
        let (quic, node) = (quic.clone(), node.clone());
        async move { quic.serve(node).await }
    });
    ready(config.node, config.listen);

    tokio::pin!(stop);
    let failure = tokio::select! { biased;
        error = disk.failed() => Some(error),
        () = &mut stop => None,
    };
    tracing::info!("stopping");
    quic.close(GOODBYE).await;
    peers.close();
    serving.abort();
    let settled = node.stop().await;
    disk.close();
    if let Some(error) = failure {
        // after an error the engine may wait for ever for its own threads when it is dropped; the process ends anyway
        std::mem::forget(store);
        return Err(error.into());
    }
    settled?;
    tokio::task::spawn_blocking(move || writer.join()).await.ok();
    Ok(())
}

/// How long a stopping node waits for its peers to hear that it goes.
const GOODBYE: Duration = Duration::from_millis(500);

fn read_view(path: &Path) -> Result<View, ConfigError> {
    let text = small_file::read_text(path, VIEW_BYTES_MAX)
        .map_err(|source| ConfigError::Read { path: path.into(), source })?;
    serde_json::from_str(&text).map_err(|error| ConfigError::View {
        path: path.into(),
        reason: small_file::in_short(error),
    })
}

fn stored_view(store: &dyn Store) -> Result<Option<View>, StoreError> {
    let row = Bytes::from_static(rows::VIEW);
    let Some(bytes) = store.get(Space::Meta, &row)? else { return Ok(None) };
    postcard::from_bytes(&bytes)
        .map(Some)
        .map_err(|error| StoreError(format!("the stored view is damaged: {error}")))
}

fn check_view(view: &View, config: &NodeConfig, path: &Path) -> Result<(), ConfigError> {
    let wrong = |reason: String| ConfigError::View { path: path.into(), reason };
    let member = view
        .member(config.node)
        .ok_or_else(|| wrong(format!("the view has no member {}", config.node)))?;
    if member.address != config.listen {
        return Err(wrong(format!(
            "the view has {} at {}, the configuration listens on {}",
            config.node, member.address, config.listen
        )));
    }
    Ok(())
}
