//! What only an operator may ask. Whoever asks needs a certificate with that role; a testnet's own profile has it.

use std::time::Duration;

use atoll_ring::NodeId;
use atoll_wire::{
    Dump, Dumped, DumpedRow, FaultList, FaultsReport, FaultsRequest, PartitionRepair, RepairQuery,
    RepairRun, Reply, Request,
};
use bytes::Bytes;

use crate::{Client, Options, RequestError, request::nonsense};

impl Client {
    /// How repair stands on a node: one line per partition that it owns.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn repair_status(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<Vec<PartitionRepair>, RequestError> {
        let options = Options { timeout: Some(timeout), via: Some(node), ..Options::default() };
        match self.send(&Bytes::new(), &Request::RepairStatus(RepairQuery {}), &options).await? {
            (_, Reply::RepairStatus(report)) => {
                report.read().ok_or_else(|| nonsense(node, "no report"))
            }
            (node, _) => Err(nonsense(node, "no report")),
        }
    }

    /// Makes a node compare what it holds with the other owners now: one partition, or all that it owns. Says how many these
    /// are, and does not wait for them; [`Client::repair_status`] tells when they are done. With `accept_loss` keys that are
    /// damaged or in doubt on every owner are taken for what is left of them; every owner must be told.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn repair_run(
        &self,
        node: NodeId,
        partition: Option<u16>,
        accept_loss: bool,
        timeout: Duration,
    ) -> Result<u32, RequestError> {
        let options = Options { timeout: Some(timeout), via: Some(node), ..Options::default() };
        let run = Request::RepairRun(RepairRun { partition, accept_loss });
        match self.send(&Bytes::new(), &run, &options).await? {
            (_, Reply::RepairRun(started)) => Ok(started.partitions),
            (node, _) => Err(nonsense(node, "no start")),
        }
    }

    /// What goes wrong on a node on purpose; with a list, from now on that and nothing else. When it is answered it is in
    /// force, and the node keeps it over restarts. Only a node that was started with `--allow-faults` takes it.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn faults(
        &self,
        node: NodeId,
        list: Option<FaultList>,
        timeout: Duration,
    ) -> Result<FaultsReport, RequestError> {
        let options = Options { timeout: Some(timeout), via: Some(node), ..Options::default() };
        let request = Request::Faults(FaultsRequest { list: list.map(Box::new) });
        match self.send(&Bytes::new(), &request, &options).await? {
            (_, Reply::Faults(report)) => Ok(*report),
            (node, _) => Err(nonsense(node, "no faults")),
        }
    }

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
        let options = Options { timeout: Some(timeout), via: Some(node), ..Options::default() };
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
