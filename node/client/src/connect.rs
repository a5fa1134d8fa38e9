//! From a profile to a client: the first seed that answers gives the view, then all members are connected.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, RwLock},
    time::Duration,
};

use atoll_ring::{Epoch, NodeId, Update, View};
use atoll_transport::{Expect, Identity, Link, Peers, Quic, tls::IDLE_LIMIT};
use atoll_wire::{
    BucketId, BucketsQuery, Envelope, Lane, Reply, Request, Role, ViewQuery, bucket::Registry,
};
use tokio::{task::JoinSet, time::Instant};

use crate::{ConnectError, Profile, buckets::Buckets, in_flight::InFlight, retries::Retries};

/// A connection to a cluster. Cheap to share behind an `Arc`; all methods take `&self`.
pub struct Client {
    quic: Quic,
    pub(crate) peers: Arc<Peers>,
    view: RwLock<Arc<View>>,
    /// The node for which this client speaks, if its certificate is a node's.
    pub(crate) speaks_for: Option<NodeId>,
    /// Nodes that let us wait in vain or do not serve, and until when they are asked last.
    suspects: Mutex<BTreeMap<NodeId, Instant>>,
    pub(crate) in_flight: InFlight,
    pub(crate) retries: Retries,
    pub(crate) buckets: Buckets,
}

impl Client {
    /// Connects to whichever seed answers first and learns the cluster from it.
    ///
    /// # Errors
    /// See [`ConnectError`]. All seeds are dialled at once, so a cluster that is down is reported after
    /// [`atoll_transport::tls::DIAL_LIMIT`].
    pub async fn connect(profile: &Profile) -> Result<Self, ConnectError> {
        Self::connect_as(profile, None).await
    }

    /// The same with the certificate of a node. So a host that shall become a node speaks with the cluster before its node
    /// runs: it may register, join and ask how the others are, and reads and writes nothing.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub async fn connect_for_node(profile: &Profile, node: NodeId) -> Result<Self, ConnectError> {
        Self::connect_as(profile, Some(node)).await
    }

    async fn connect_as(
        profile: &Profile,
        speaks_for: Option<NodeId>,
    ) -> Result<Self, ConnectError> {
        let identity = Identity::load(&profile.ca, &profile.certificate, &profile.key)?;
        let target = *profile.seeds.first().ok_or(ConnectError::NoSeeds)?;
        let quic = Quic::for_dialling(target, &identity)?;
        let mut dials = JoinSet::new();
        for seed in profile.seeds.clone() {
            dials.spawn(learn(quic.clone(), profile.clone(), seed, speaks_for));
        }
        let mut tried = Vec::new();
        while let Some(dial) = dials.join_next().await {
            match dial.expect("dials do not panic") {
                (_, Ok((view, registry))) => {
                    let buckets = Buckets::of(registry);
                    let peers = Peers::new(quic.clone(), role_for(speaks_for), speaks_for);
                    let view = RwLock::new(Arc::new(view));
                    let client = Client {
                        quic,
                        peers,
                        view,
                        speaks_for,
                        suspects: Mutex::default(),
                        in_flight: InFlight::default(),
                        retries: Retries::default(),
                        buckets,
                    };
                    client.follow(&client.view());
                    return Ok(client);
                }
                (seed, Err(reason)) => tried.push((seed.to_string(), reason)),
            }
        }
        tried.sort();
        Err(ConnectError::Unreachable { tried })
    }

    /// The view this client works with.
    pub fn view(&self) -> Arc<View> {
        self.view.read().expect("no panic holds it").clone()
    }

    /// Says goodbye to all nodes.
    pub async fn close(&self) {
        self.peers.close();
        self.quic.close(GOODBYE).await;
    }

    /// A node did not answer in time, or says that it does not serve now. A process that was killed does not say goodbye, so its connection looks alive for
    /// [`atoll_transport::tls::IDLE_LIMIT`]; so long the others are asked first.
    pub(crate) fn suspect(&self, node: NodeId) {
        let until = Instant::now() + IDLE_LIMIT;
        self.suspects.lock().expect("no panic holds it").insert(node, until);
    }

    /// Whether a node let us wait in vain lately, or does not serve.
    pub(crate) fn is_suspect(&self, node: NodeId) -> bool {
        let suspects = self.suspects.lock().expect("no panic holds it");
        suspects.get(&node).is_some_and(|until| *until > Instant::now())
    }

    /// Somebody is ahead of us: take his view.
    pub(crate) async fn catch_up(&self, link: &Link, epoch: Epoch) {
        if epoch <= self.view().epoch() {
            return;
        }
        if let Ok(view) = fetch_view(link, role_for(self.speaks_for)).await {
            let mut held = self.view.write().expect("no panic holds it");
            if view.epoch() > held.epoch() {
                *held = Arc::new(view);
                self.follow(&held);
            }
        }
    }

    fn follow(&self, view: &View) {
        let members: Vec<(NodeId, SocketAddr)> =
            view.members().iter().map(|member| (member.id, member.address)).collect();
        self.peers.set(&members);
    }
}

/// Enough for the goodbye to leave; nobody has to confirm it.
const GOODBYE: Duration = Duration::from_millis(5);

/// How long a node may take to send its view. Who does not answer this, too, must not hold up who asked for more.
const VIEW_LIMIT_MS: u32 = 2000;

async fn learn(
    quic: Quic,
    profile: Profile,
    seed: SocketAddr,
    speaks_for: Option<NodeId>,
) -> (SocketAddr, Result<(View, Registry), String>) {
    let learned = async {
        let link = quic
            .dial(seed, Expect::AnyNode, role_for(speaks_for), speaks_for)
            .await
            .map_err(|error| error.to_string())?;
        if link.cluster() != profile.cluster {
            return Err(format!("is of cluster {}, not {}", link.cluster(), profile.cluster));
        }
        let view = fetch_view(&link, role_for(speaks_for)).await?;
        // a node that cannot tell them now is asked again when a name leads nowhere
        let registry = fetch_buckets(&link, role_for(speaks_for), view.bucket_n()).await;
        let registry = registry.unwrap_or_else(|| Registry::new(view.bucket_n()));
        Ok((view, registry))
    };
    (seed, learned.await)
}

/// In which role requests are sent that a client may send too.
fn role_for(speaks_for: Option<NodeId>) -> Role {
    if speaks_for.is_some() { Role::Node } else { Role::Client }
}

/// An envelope of somebody who knows nothing of the cluster yet.
fn first_envelope(role: Role) -> Envelope {
    Envelope {
        epoch: Epoch(0),
        left_ms: VIEW_LIMIT_MS,
        operation: 0,
        bucket: BucketId([0; 16]),
        trace: false,
        role,
    }
}

async fn fetch_buckets(link: &Link, role: Role, replicas: u8) -> Option<Registry> {
    let request = Request::Buckets(BucketsQuery { have: 0 });
    let envelope = first_envelope(role);
    let call = link.call(Lane::Control, &envelope, &request);
    let limit = Duration::from_millis(u64::from(VIEW_LIMIT_MS));
    match tokio::time::timeout(limit, call).await {
        Ok(Ok((_, Reply::Buckets(known)))) => Registry::decode(&known.registry, replicas).ok(),
        Ok(Ok(_) | Err(_)) | Err(_) => None,
    }
}

pub(crate) async fn fetch_view(link: &Link, role: Role) -> Result<View, String> {
    let envelope = first_envelope(role);
    let request = Request::View(ViewQuery { have: 0 });
    let call = link.call(Lane::Control, &envelope, &request);
    let limit = Duration::from_millis(u64::from(VIEW_LIMIT_MS));
    match tokio::time::timeout(limit, call).await {
        Ok(Ok((_, Reply::View(reply)))) => match postcard::from_bytes(&reply.view) {
            Ok(Update::View(view)) => Ok(*view),
            Ok(Update::Entries(_)) => Err("sent entries to somebody who has no view".into()),
            Err(error) => Err(format!("sent no view: {error}")),
        },
        Ok(Ok((_, Reply::Failed(failure)))) => Err(failure.to_string()),
        Ok(Ok(_)) => Err("sent no view".into()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("sent no view within {VIEW_LIMIT_MS} ms")),
    }
}
