//! What only an operator may ask. Whoever asks needs a certificate with that role; a testnet's own profile has it.

use std::time::Duration;

use atoll_ring::NodeId;
use atoll_wire::{Dump, Dumped, DumpedRow, Reply, Request};
use bytes::Bytes;

use crate::{Client, Options, RequestError, request::nonsense};

impl Client {
    /// A page of raw states as they lie on a node's disk.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn dump(
        &self,
        node: NodeId,
        dump: Dump,
        timeout: Duration,
    ) -> Result<Dumped, RequestError> {
        let options = Options { timeout, via: Some(node), ..Options::default() };
        match self.send(&Bytes::new(), &Request::Dump(dump), &options).await? {
            (_, Reply::Dumped(page)) => Ok(page),
            (node, _) => Err(nonsense(node, "no dump")),
        }
    }

    /// All raw states of a partition, or all that is kept of it for others, page by page. What is written meanwhile may be
    /// in it or not. The time is for each page.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn dump_all(
        &self,
        node: NodeId,
        partition: u16,
        hints: bool,
        timeout: Duration,
    ) -> Result<Vec<DumpedRow>, RequestError> {
        let mut all: Vec<DumpedRow> = Vec::new();
        loop {
            let after = all.last().map(|last| last.row.clone()).unwrap_or_default();
            let page = self.dump(node, Dump { partition, hints, after }, timeout).await?;
            let rows = page.read().ok_or_else(|| nonsense(node, "no page of rows"))?;
            let ends = rows.is_empty() || !page.more;
            all.extend(rows);
            if ends {
                return Ok(all);
            }
        }
    }
}
