//! `atoll node`: run a node of a cluster.

use std::path::PathBuf;

use atoll_node::{NodeConfig, RunError};
use clap::Subcommand;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    exit::{Exit, Failed},
    faults::FaultArgs,
};

/// Run a node.
#[derive(Subcommand)]
pub enum NodeCommand {
    /// Run a node in the foreground until it is told to stop
    ///
    /// Logs go to the standard error; ATOLL_LOG sets how much (error, warn, info, debug). SIGTERM and Ctrl-C stop it in
    /// order: what is acknowledged is on disk either way.
    #[command(after_help = "\
Example:
  atoll node run --config /etc/atoll/n1/node.toml

`atoll testnet up` writes such files; read one to see every setting.")]
    Run {
        /// The node's settings
        #[arg(long, value_name = "FILE")]
        config: PathBuf,

        /// This node has never run: its data directory may be empty, and nothing is missing
        #[arg(long)]
        first_start: bool,

        #[command(flatten)]
        faults: FaultArgs,
    },
}

/// Runs the command.
pub async fn run(command: NodeCommand) -> Result<(), Failed> {
    let NodeCommand::Run { config, first_start, faults } = command;
    let faults = faults.faults()?;
    log();
    let config =
        NodeConfig::load(&config).map_err(|error| Failed::new(Exit::Refused, error.to_string()))?;
    let ready = |node, address| tracing::info!(%node, %address, "ready");
    let result = atoll_node::run(config, first_start, faults, ready, stop_signal()).await;
    result.map_err(|error| {
        let exit = match &error {
            RunError::Config(_)
            | RunError::Directory(_)
            | RunError::Faults { .. }
            | RunError::Listen { .. }
            | RunError::Copied { .. } => Exit::Refused,
            RunError::Removed { .. } => Exit::Removed,
            RunError::Storage(_) | RunError::Engine { .. } | RunError::Alone(_) => {
                Exit::StorageFailed
            }
        };
        Failed::new(exit, error.to_string())
    })
}

fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ATOLL_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(QUIET));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .init();
}

async fn stop_signal() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! { biased;
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// What is logged unless `ATOLL_LOG` says otherwise. The library of the membership log tells of each vote, and complains of
/// each message to a voter that is away, twice a second; what comes of it the node says itself, once.
const QUIET: &str = "info,fjall=warn,lsm_tree=warn,openraft=warn,openraft::replication=off";
