//! A node as a process: from its settings to its last words.
//!
//! The order matters. Settings, secrets and certificates are checked before anything is touched; the data directory is
//! locked and known to be ours before the engine opens it; the socket is bound before anything is written, so that a copy of
//! a running node ends without a trace; what was lost is in the store before the directory counts as whole; peers can reach
//! the node before it rises, and clients are served when it has.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use atoll_ring::{Epoch, NodeId, View};
use atoll_transport::{
    Identity, LinkFaults, Peers, Quic, Renewal,
    small_file::{self, VIEW_BYTES_MAX},
};
use atoll_wire::Role;

use crate::{
    ConfigError, Node, NodeConfig, Parts, Past, StandingFaults, SystemClock,
    membership::{MembershipLog as _, raft::RaftLog},
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
        source: io::Error,
    },
    /// The directory is a copy, and the address is taken: the original runs.
    #[error(
        "{copy} is a copy of {original}, and something listens on {address} already: {node} itself, if it still runs there. One \
         of the two may run, never both. To go on with the copy, stop the node in {original} for good; it then takes a new \
         incarnation. A further node needs a number, a certificate and an empty directory of its own"
    )]
    Copied {
        /// Whose directory it is.
        node: NodeId,
        /// The copy.
        copy: PathBuf,
        /// Where it comes from.
        original: PathBuf,
        /// The address.
        address: std::net::SocketAddr,
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
    /// The engine does not open what it finds.
    #[error(
        "the storage engine does not open {store}: {source}. Move {store} away, to somewhere it can be looked into, and start \
         the node again: it then comes back as a new incarnation and gets its data from the other owners"
    )]
    Engine {
        /// The engine's directory.
        store: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// The ring has let this node go.
    #[error(
        "{node} was removed from the ring in epoch {epoch} and can never come back under this id. The others have what it \
         owned. To use this host again, join as a new node, with an empty directory: atoll cluster token, then atoll cluster \
         join"
    )]
    Removed {
        /// The node.
        node: NodeId,
        /// Since when it is gone.
        epoch: Epoch,
    },
    /// Something is lost, and no other node can say what.
    #[error("{0}")]
    Alone(String),
}

/// Runs a node until `stop` resolves or its storage fails. `ready` is called when it accepts requests.
///
/// With `faults` it may be broken on purpose, by whoever holds them, by the file that [`Directory::faults`] names, and by
/// operators. It then stops with the same error, after the same steps, as if its disk had failed.
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
    let engine = FjallStore::open(&directory.store())
        .map_err(|source| RunError::Engine { store: directory.store(), source })?;
    let commanded = faults.clone();
    let links = faults.is_some().then(|| Arc::new(LinkFaults::new(config.node)));
    let (store, standing): (Arc<dyn Store>, _) = match (faults, &links) {
        (Some(faults), Some(links)) => {
            let standing = obey_file(directory.faults(), faults.clone(), links.clone())?;
            (Arc::new(FaultyStore::new(Arc::new(engine), faults)), Some(standing))
        }
        (None, _) | (_, None) => (Arc::new(engine), None),
    };
    let (disk, writer) = Disk::on_thread(store.clone(), Some(directory.mark()?))
        .map_err(|error| storage_failed(store.clone(), error))?;
    let view = match stored_view(&*store)? {
        Some(view) => {
            check_removed(&view, config.node)?;
            check_view(&view, &config, &config.data)?;
            view
        }
        None => first_view,
    };

    let bound = match links {
        None => Quic::bind(config.listen, &identity),
        Some(links) => Quic::bind_with_faults(config.listen, &identity, links),
    };
    let quic = bound.map_err(|source| cannot_listen(&config, &directory, source))?;
    let peers = Peers::new(quic.clone(), Role::Node, Some(config.node));
    let members: Vec<_> = view.members().iter().map(|member| (member.id, member.address)).collect();
    peers.set(&members);
    let disk = Arc::new(disk);
    let renewal = Renewal::new(quic.clone(), &identity, config.node);
    let log = Arc::new(RaftLog::new(disk.clone()));
    let node = Node::start(Parts {
        id: config.node,
        view: Arc::new(view),
        secret,
        transport: peers.clone(),
        log: log.clone(),
        disk: disk.clone(),
        clock: Arc::new(SystemClock),
        past: match directory.lost() {
            Some(why) => Past::Lost(why),
            None if directory.is_new() => Past::None,
            None => Past::Whole,
        },
        hint_limits: config.hint_limits,
        scrub_period: config.scrub_period,
        clock_bound: config.clock_bound,
        certificate: renewal.state(),
    })
    .await
    .map_err(|error| storage_failed(store.clone(), error))?;
    directory.settle()?;
    if let Some(faults) = commanded {
        node.obey(faults);
    }
    let following = standing.map(|standing| {
        node.allow_faults(standing.clone());
        tokio::spawn(async move { standing.follow().await })
    });
    let serving = tokio::spawn({
        let (quic, node) = (quic.clone(), node.clone());
        async move { quic.serve(node).await }
    });
    let renewing = tokio::spawn(renewal.run());
    let rising = async {
        if let Err(error) = node.rise().await {
            return error;
        }
        ready(config.node, config.listen);
        std::future::pending().await
    };

    let mut alone = None;
    let failure = tokio::select! { biased;
        error = disk.failed() => Some(error),
        () = stop => None,
        error = rising => {
            alone = Some(error.0);
            None
        }
    };
    tracing::info!("stopping");
    if failure.is_some() {
        tokio::time::sleep(LAST_ANSWERS).await;
    }
    // first, while there is a way to the others; nothing is lost if it is cut short
    let _ = tokio::time::timeout(GOODBYE, log.close()).await;
    quic.close(GOODBYE).await;
    peers.close();
    serving.abort();
    renewing.abort();
    let settled = node.stop().await;
    disk.close();
    if let Some(following) = following {
        following.abort();
    }
    if let Err(removed) = check_removed(&node.view(), config.node) {
        std::mem::forget(store); // the disk was given up, as after an error
        return Err(removed);
    }
    if let Some(error) = failure.or(settled.err()) {
        return Err(storage_failed(store, error));
    }
    tokio::task::spawn_blocking(move || writer.join()).await.ok();
    alone.map_or(Ok(()), |why| Err(RunError::Alone(why)))
}

/// Why the address is not to be had. A copied directory is the one case in which we know who has it.
fn cannot_listen(config: &NodeConfig, directory: &Directory, source: io::Error) -> RunError {
    let address = config.listen;
    match directory.copied_from() {
        Some(original) if source.kind() == io::ErrorKind::AddrInUse => RunError::Copied {
            node: config.node,
            copy: config.data.clone(),
            original: original.into(),
            address,
        },
        _ => RunError::Listen { address, source },
    }
}

/// How long a node whose storage has failed still answers. Whoever waits for its disk hears that it stops, and what is
/// asked now is refused, instead of a connection that breaks: answers are ready at once, so this is the time that they
/// need for their way. A little more than once around the earth.
const LAST_ANSWERS: Duration = Duration::from_millis(250);

/// Obeys the file of faults from now on.
fn obey_file(
    path: PathBuf,
    store: Arc<Faults>,
    links: Arc<LinkFaults>,
) -> Result<Arc<StandingFaults>, RunError> {
    tracing::warn!(file = %path.display(), "may be broken on purpose");
    StandingFaults::open(path.clone(), Arc::new(SystemClock), store, links)
        .map_err(|reason| RunError::Faults { path, reason })
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

pub(crate) fn stored_view(store: &dyn Store) -> Result<Option<View>, StoreError> {
    let Some(sealed) = store.get(Space::Meta, rows::VIEW)? else { return Ok(None) };
    let bytes = meta::open(rows::VIEW, &sealed)?;
    postcard::from_bytes(&bytes)
        .map(Some)
        .map_err(|error| StoreError(format!("the stored view is damaged: {error}")))
}

fn check_removed(view: &View, node: NodeId) -> Result<(), RunError> {
    match view.removed_since(node) {
        Some(epoch) => Err(RunError::Removed { node, epoch }),
        None => Ok(()),
    }
}

fn check_view(view: &View, config: &NodeConfig, path: &Path) -> Result<(), ConfigError> {
    let wrong = |reason: String| ConfigError::View { path: path.into(), reason };
    let member = view
        .member(config.node)
        .ok_or_else(|| wrong(format!("the view has no member {}", config.node)))?;
    if member.address != config.listen {
        return Err(wrong(format!(
            "the view has {} at {}, and the configuration listens on {}. The others look for it at the first address: \
             correct `listen`. If this is a copy of a node that runs there: a node has one directory and one address; a \
             further one needs a number, a certificate and an empty directory of its own",
            config.node, member.address, config.listen
        )));
    }
    Ok(())
}
