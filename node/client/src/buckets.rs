//! Buckets, as whoever uses them sees them: what a name stands for, and making, altering and dropping them.
//!
//! A client remembers all definitions from the moment it connects. It asks again when a name leads nowhere, when a node no
//! longer knows what it speaks of, after a change of its own, and every minute.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use atoll_ring::{NodeId, Quorum};
use atoll_wire::{
    BucketChange, BucketChanged, BucketId, BucketsQuery, Change, Reply, Request,
    bucket::{Alteration, Creation, DEFAULT_BUCKET, Definition, Entry, Registry},
};
use bytes::Bytes;
use tokio::time::Instant;

use crate::{Client, Options, RequestError, request::nonsense};

/// How long definitions are believed without asking again: what a bucket's defaults are may have been altered elsewhere.
const BELIEVED_FOR: Duration = Duration::from_secs(60);

/// How long a node may take to tell its buckets.
const ANSWER: Duration = Duration::from_secs(2);

/// What a client knows of buckets.
pub(crate) struct Buckets {
    known: Mutex<(Arc<Registry>, Instant)>,
}

/// A bucket that was found by its name.
#[derive(Clone)]
pub(crate) struct Bucket {
    pub(crate) id: BucketId,
    entry: Arc<Entry>,
}

impl Bucket {
    /// The one that every cluster has, as it is at first.
    pub(crate) fn default_bucket(replicas: u8) -> Self {
        let registry = Registry::new(replicas);
        let (id, entry) = registry.resolve(DEFAULT_BUCKET).expect("it is always there");
        Bucket { id, entry: entry.clone() }
    }

    pub(crate) fn definition(&self) -> &Definition {
        &self.entry.definition
    }
}

impl Buckets {
    pub(crate) fn of(registry: Registry) -> Self {
        Buckets { known: Mutex::new((Arc::new(registry), Instant::now())) }
    }

    fn known(&self) -> (Arc<Registry>, Instant) {
        self.known.lock().expect("no panic holds it").clone()
    }

    fn learn(&self, registry: &Registry) {
        let mut known = self.known.lock().expect("no panic holds it");
        let mut joined = Registry::clone(&known.0);
        joined.join(registry);
        *known = (Arc::new(joined), Instant::now());
    }
}

impl Client {
    /// The bucket that these options name.
    ///
    /// # Errors
    /// The name leads to none, nor did a node know one that was asked.
    pub(crate) async fn bucket(&self, options: &Options) -> Result<Bucket, RequestError> {
        let name = options.bucket.as_deref().unwrap_or(DEFAULT_BUCKET);
        let (registry, since) = self.buckets.known();
        if since.elapsed() < BELIEVED_FOR
            && let Ok((id, entry)) = registry.resolve(name)
        {
            return Ok(Bucket { id, entry: entry.clone() });
        }
        self.bucket_anew(options).await
    }

    /// What a name stands for.
    ///
    /// # Errors
    /// As for every request that names a bucket.
    pub async fn bucket_named(&self, name: &str) -> Result<(BucketId, Definition), RequestError> {
        let options = Options { bucket: Some(name.to_owned()), ..Options::default() };
        let bucket = self.bucket(&options).await?;
        Ok((bucket.id, bucket.definition().clone()))
    }

    /// The bucket that these options name, after asking the cluster.
    pub(crate) async fn bucket_anew(&self, options: &Options) -> Result<Bucket, RequestError> {
        let name = options.bucket.as_deref().unwrap_or(DEFAULT_BUCKET);
        let asked = self.ask_buckets(None, ANSWER).await;
        let (registry, _) = self.buckets.known();
        match (registry.resolve(name), asked) {
            // what was known before is believed as long as nobody says otherwise
            (Ok((id, entry)), _) => Ok(Bucket { id, entry: entry.clone() }),
            (Err(_), Err(error)) => Err(error),
            (Err(unresolved), Ok(_)) => Err(unresolved.into()),
        }
    }

    /// All definitions that a node knows, the dropped ones too; of any node, if none is named. What this client knew before
    /// is among them.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn buckets(
        &self,
        via: Option<NodeId>,
        timeout: Duration,
    ) -> Result<Arc<Registry>, RequestError> {
        self.ask_buckets(via, timeout).await?;
        Ok(self.buckets.known().0)
    }

    /// All definitions that this node knows, and no others: to see who has heard of what.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn buckets_of(
        &self,
        node: NodeId,
        timeout: Duration,
    ) -> Result<Registry, RequestError> {
        self.ask_buckets(Some(node), timeout).await
    }

    async fn ask_buckets(
        &self,
        via: Option<NodeId>,
        timeout: Duration,
    ) -> Result<Registry, RequestError> {
        let options = Options { timeout: Some(timeout), via, ..Options::default() };
        let query = Request::Buckets(BucketsQuery { have: 0 });
        match self.send(&Bytes::new(), &query, &options).await? {
            (node, Reply::Buckets(known)) => {
                let registry = Registry::decode(&known.registry, self.view().bucket_n())
                    .map_err(|error| nonsense(node, &error.to_string()))?;
                self.buckets.learn(&registry);
                Ok(registry)
            }
            (node, _) => Err(nonsense(node, "no buckets")),
        }
    }

    /// Creates a bucket, and says which nodes know it by now. One that is there just as wanted is no mistake.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn create_bucket(
        &self,
        creation: Creation,
        options: &Options,
    ) -> Result<BucketChanged, RequestError> {
        self.change_buckets(Change::Create(creation), options).await
    }

    /// Alters the properties of a bucket. Kind and N are fixed.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn alter_bucket(
        &self,
        bucket: BucketId,
        alteration: Alteration,
        options: &Options,
    ) -> Result<BucketChanged, RequestError> {
        self.change_buckets(Change::Alter(bucket, alteration), options).await
    }

    /// Drops a bucket with all its data, for ever.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn drop_bucket(
        &self,
        bucket: BucketId,
        options: &Options,
    ) -> Result<BucketChanged, RequestError> {
        self.change_buckets(Change::Drop(bucket), options).await
    }

    async fn change_buckets(
        &self,
        change: Change,
        options: &Options,
    ) -> Result<BucketChanged, RequestError> {
        let request = Request::BucketChange(BucketChange { change, registry: Bytes::new() });
        match self.send(&Bytes::new(), &request, options).await? {
            (node, Reply::BucketChanged(changed)) => {
                // whoever made it knows it; if it does not answer now, the next request asks
                let _ = self.ask_buckets(Some(node), ANSWER).await;
                Ok(changed)
            }
            (node, _) => Err(nonsense(node, "no change of buckets")),
        }
    }

    /// What a request with these options needs, the bucket's defaults included.
    ///
    /// # Errors
    /// The settings contradict each other, or the bucket is not there.
    pub async fn quorum(&self, options: &Options) -> Result<Quorum, RequestError> {
        let bucket = self.bucket(options).await?;
        let Definition { n, properties, .. } = bucket.definition();
        Ok(Quorum::new(&properties.fill(&options.quorum, *n), *n)?)
    }
}
