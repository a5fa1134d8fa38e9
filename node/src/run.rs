//! A node as a process: from its settings to its last words.
//!
//! The order matters. Settings, secrets and certificates are checked before anything is touched; the data directory is
//! locked and known to be ours before the engine opens it; the commit number is compared with the durable mark before
//! anybody is served; the socket is bound last, so a node that answers is a node that can.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use atoll_ring::{NodeId, View};
use atoll_transport::{
    Identity, Peers, Quic, Renewal,
    small_file::{self, VIEW_BYTES_MAX},
};
use atoll_wire::Role;

use crate::{
    ConfigError, Node, NodeConfig, Parts, Past, SystemClock,
    storage::{
        Space, Store, StoreError,
        commit::Disk,
        directory::{Directory, DirectoryError},
        faulty::{Faults, FaultyStore},
        fjall::FjallStore,
        meta, rows,
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
    /// The file that says what shall go wrong.
    #[error(
        "{path} is no list of faults: {reason}; correct it, remove it, or start without --allow-faults"
    )]
    Faults {
        /// The file.
        path: PathBuf,
        /// What, and where in the file.
        reason: String,
    },
    /// The storage failed. Nothing is acknowledged any more.
    #[error(
        "{0}. Nothing more was acknowledged, and the other nodes carry on. Find the cause (the disk, its space, the \
         system's log), then start the node again"
    )]
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
/// With `faults` it may be broken on purpose, by whoever holds them and by the file that [`Directory::faults`] names. It
/// then stops with the same error, after the same steps, as if its disk had failed.
///
/// # Errors
/// See [`RunError`].
pub async fn run(
    config: NodeConfig,
    first_start: bool,
    faults: Option<Arc<Faults>>,
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
    let engine = FjallStore::open(&directory.store())?;
    let (store, following): (Arc<dyn Store>, _) = match faults {
        None => (Arc::new(engine), None),
        Some(faults) => {
            let following = follow(faults.clone(), directory.faults())?;
            (Arc::new(FaultyStore::new(Arc::new(engine), faults)), Some(following))
        }
    };
    let mark = directory.mark()?;
    let marked = mark.read();
    let (disk, writer) = Disk::on_thread(store.clone(), Some(mark))
        .map_err(|error| storage_failed(store.clone(), error))?;
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
    let renewal = Renewal::new(quic.clone(), &identity, config.node);
    let node = Node::start(Parts {
        id: config.node,
        view: Arc::new(view),
        secret,
        transport: peers.clone(),
        disk: disk.clone(),
        clock: Arc::new(SystemClock),
        past: if first_start { Past::None } else { Past::Whole },
        hint_limits: config.hint_limits,
        scrub_period: config.scrub_period,
        certificate: renewal.state(),
    })
    .await
    .map_err(|error| storage_failed(store.clone(), error))?;
    directory.settle()?;
    let serving = tokio::spawn({
        let (quic, node) = (quic.clone(), node.clone());
        async move { quic.serve(node).await }
    });
    let renewing = tokio::spawn(renewal.run());
    node.rise().await.map_err(|error| storage_failed(store.clone(), error))?;
    ready(config.node, config.listen);

    tokio::pin!(stop);
    let failure = tokio::select! { biased;
        error = disk.failed() => Some(error),
        () = &mut stop => None,
    };
    tracing::info!("stopping");
    if failure.is_some() {
        tokio::time::sleep(LAST_ANSWERS).await;
    }
    quic.close(GOODBYE).await;
    peers.close();
    serving.abort();
    renewing.abort();
    let settled = node.stop().await;
    disk.close();
    if let Some(following) = following {
        following.abort();
    }
    if let Some(error) = failure.or(settled.err()) {
        return Err(storage_failed(store, error));
    }
    tokio::task::spawn_blocking(move || writer.join()).await.ok();
    Ok(())
}

/// How long a node whose storage has failed still answers. Whoever waits for its disk hears that it stops, and what is
/// asked now is refused, instead of a connection that breaks: answers are ready at once, so this is the time that they
/// need for their way. A little more than once around the earth.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// How often the file of faults is read. Sooner than the disk is looked at, which is what it speaks of.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

/// Obeys the file of faults from now on. The task runs until it is aborted.
fn follow(faults: Arc<Faults>, path: PathBuf) -> Result<tokio::task::JoinHandle<()>, RunError> {
    tracing::warn!(file = %path.display(), "may be broken on purpose");
    faults.read(&path).map_err(|reason| RunError::Faults { path: path.clone(), reason })?;
    Ok(tokio::spawn(async move {
        let mut complaint = None;
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            let now = faults.read(&path).err();
            if let Some(reason) = &now
                && now != complaint
            {
                tracing::error!(reason, "the list of faults is not understood and not obeyed");
            }
            complaint = now;
        }
    }))
}

/// The end of a store that failed. After an error the engine may wait for ever for its own threads when it is dropped; the
/// process ends anyway.
fn storage_failed(store: Arc<dyn Store>, error: StoreError) -> RunError {
    std::mem::forget(store);
    error.into()
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
    let Some(sealed) = store.get(Space::Meta, rows::VIEW)? else { return Ok(None) };
    let bytes = meta::open(rows::VIEW, &sealed)?;
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
