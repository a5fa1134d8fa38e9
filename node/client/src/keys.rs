//! Listing the keys of a bucket, a page at a time.

use atoll_wire::{List, Reply, Request, limits::LIST_KEYS_MAX};
use bytes::Bytes;

use crate::{Client, Options, RequestError, request::nonsense};

/// A page of keys. It took a scan of some partitions; a whole listing scans all of them.
#[derive(Clone, Debug)]
pub struct KeysPage {
    /// Keys that have a value, in the order of the ring.
    pub keys: Vec<Bytes>,
    /// Where the next page begins; none = this was the last. Good as long as the bucket.
    pub next: Option<Bytes>,
    /// Rows that nodes have looked at for it.
    pub scanned: u32,
    /// Partitions that are done.
    pub partitions_done: u32,
    /// Partitions there are.
    pub partitions: u32,
}

impl Client {
    /// The next page of the keys that begin with `prefix`, at most [`LIST_KEYS_MAX`] of them; maybe none, because the work for
    /// one page is bounded. `page` is where the page before ended.
    ///
    /// # Errors
    /// See [`RequestError`]. A page of another bucket or prefix is refused.
    pub async fn keys(
        &self,
        prefix: &[u8],
        page: Option<&Bytes>,
        limit: usize,
        options: &Options,
    ) -> Result<KeysPage, RequestError> {
        let list = Request::List(List {
            prefix: Bytes::copy_from_slice(prefix),
            page: page.cloned().unwrap_or_default(),
            limit: u16::try_from(limit.clamp(1, LIST_KEYS_MAX)).expect("it fits"),
            quorum: options.quorum,
        });
        let bucket = self.bucket(options).await?;
        // any node may answer: the partitions are spread over all of them
        let (node, reply) = self.send_about(&bucket, &Bytes::new(), &list, options).await?;
        let Reply::Listed(listed) = reply else { return Err(nonsense(node, "no keys")) };
        Ok(KeysPage {
            keys: listed.read().ok_or_else(|| nonsense(node, "these are no keys"))?,
            next: (!listed.page.is_empty()).then_some(listed.page),
            scanned: listed.scanned,
            partitions_done: listed.partitions.0,
            partitions: listed.partitions.1,
        })
    }
}
