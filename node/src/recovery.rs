//! The directory of a node that does not run, opened so that its membership log can go on alone.
//!
//! What is decided here is said at [`recover`]; this file opens and closes what it works on. The directory is locked, so a
//! node that runs is not touched.

use std::{path::PathBuf, sync::Arc, thread::JoinHandle};

use atoll_ring::{ClusterId, Epoch, View};

use crate::{
    NodeConfig, RunError,
    membership::raft::{CannotRecover, recover},
    run::stored_view,
    storage::{
        Store,
        commit::Disk,
        directory::{Directory, DirectoryError},
        fjall::FjallStore,
    },
};

/// Why nothing was recovered. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The directory cannot be opened: it is another node's, or the node runs.
    #[error(transparent)]
    Open(#[from] RunError),
    /// The log cannot go on from here.
    #[error(transparent)]
    Cannot(#[from] CannotRecover),
    /// There is nothing.
    #[error("{} holds no data of a node", .0.display())]
    Nothing(PathBuf),
}

/// A node's log, before it goes on alone.
pub struct Recovery {
    config: NodeConfig,
    cluster: ClusterId,
    view: View,
    disk: Disk,
    writer: JoinHandle<()>,
    _directory: Directory,
}

impl Recovery {
    /// Opens the data of a node of this cluster.
    ///
    /// # Errors
    /// See [`RecoveryError`].
    pub fn open(config: NodeConfig, cluster: ClusterId) -> Result<Recovery, RecoveryError> {
        if !config.data.join("identity").is_file() {
            return Err(RecoveryError::Nothing(config.data)); // opening would make a new one
        }
        let directory = Directory::open(&config.data, cluster, config.node, false)
            .map_err(|error: DirectoryError| RunError::from(error))?;
        if let Some(why) = directory.lost() {
            return Err(CannotRecover::Lost(config.node, why).into());
        }
        let engine = FjallStore::open(&directory.store())
            .map_err(|source| RunError::Engine { store: directory.store(), source })?;
        let store: Arc<dyn Store> = Arc::new(engine);
        let view = stored_view(&*store).map_err(RunError::from)?.ok_or(CannotRecover::NoView)?;
        let mark = directory.mark().map_err(RunError::from)?;
        let (disk, writer) = Disk::on_thread(store, Some(mark)).map_err(RunError::from)?;
        Ok(Recovery { config, cluster, view, disk, writer, _directory: directory })
    }

    /// The view that the log would go on from.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Lets the log go on alone. Gives the epoch that says so; the node's next start leads at once.
    ///
    /// # Errors
    /// [`RecoveryError::Cannot`].
    pub async fn commit(self, at_ms: u64) -> Result<Epoch, RecoveryError> {
        let Recovery { config, cluster, disk, writer, .. } = self;
        let epoch = recover(&disk, cluster, config.node, at_ms).await;
        disk.close();
        tokio::task::spawn_blocking(move || writer.join()).await.ok();
        Ok(epoch?)
    }
}
