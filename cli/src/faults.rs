//! The options of a node that is to be broken on purpose. `atoll node run` obeys them, `atoll testnet start`,
//! `restart` and `add` pass them on.

use std::{num::NonZeroU64, sync::Arc};

use atoll_node::{Faults, storage::faulty::Deed};
use clap::Args;

use crate::exit::{Exit, Failed};

/// What shall go wrong.
#[derive(Args, Debug)]
#[command(next_help_heading = "Faults")]
pub struct FaultArgs {
    /// Let the node be broken on purpose: by the options below, and by DATA/faults.toml while it runs
    #[arg(long)]
    allow_faults: bool,

    /// Fail the N-th write to its storage, counted from this start, and all that follow
    ///
    /// A commit is one write and then one fsync, however many requests it carries. The first is the start's own.
    #[arg(long, value_name = "N")]
    fail_write: Option<NonZeroU64>,

    /// Fail the N-th fsync of its storage, counted from this start, and all that follow
    #[arg(long, value_name = "N")]
    fail_sync: Option<NonZeroU64>,
}

impl FaultArgs {
    /// The faults; `None` if they are not allowed.
    ///
    /// # Errors
    /// A fault is asked for and none is allowed.
    pub fn faults(&self) -> Result<Option<Arc<Faults>>, Failed> {
        let asked = self.deeds();
        if !self.allow_faults {
            return match asked.first() {
                None => Ok(None),
                Some((option, ..)) => {
                    let what =
                        format!("{option} breaks the node on purpose, and nobody allowed it");
                    Err(Failed::new(Exit::Refused, what).mend("add --allow-faults"))
                }
            };
        }
        let faults = Faults::new();
        for (_, deed, number) in asked {
            faults.fail(deed, number);
        }
        Ok(Some(faults))
    }

    /// The same options for a node that somebody else starts.
    pub fn to_arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = Vec::new();
        if self.allow_faults {
            arguments.push("--allow-faults".into());
        }
        for (option, _, number) in self.deeds() {
            arguments.extend([option.into(), number.to_string()]);
        }
        arguments
    }

    fn deeds(&self) -> Vec<(&'static str, Deed, NonZeroU64)> {
        let write = self.fail_write.map(|number| ("--fail-write", Deed::Write, number));
        let sync = self.fail_sync.map(|number| ("--fail-sync", Deed::Sync, number));
        write.into_iter().chain(sync).collect()
    }
}
