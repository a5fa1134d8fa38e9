//! A running testnet gets another node, or lets one go.
//!
//! What moves is the cluster's business and the operator's ([`atoll_ring::Plan`]); here it is files, ports and processes.
//! [`add`] ends with a node that is registered, runs, and owns nothing yet; [`retire`] begins when the ring has let the
//! node go.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use atoll_client::{Client, ProposeError, View};
use atoll_ring::{Command, MemberState, NodeId};
use tokio::time::Instant;

use crate::{
    NODES_MAX, NoPorts,
    event::{Event, Hear},
    files::FileError,
    grown::Added,
    home::Home,
    node::Node,
    papers::{self, PapersError},
    ports,
    start::{self, Launcher, StartError},
    stop,
    testnet::{OpenError, Testnet},
    up::{UpError, taken_by_others},
};

/// Why there is no further node. Unless it says that the node is registered, nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AddError {
    /// The testnet.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The ring does not take it.
    #[error("{0}")]
    Propose(#[from] ProposeError),
    /// It was started by an earlier version, which threw the authority's key away.
    #[error("this testnet was started without keeping the key that signs for new nodes")]
    NoAuthority,
    /// Enough.
    #[error("a testnet has at most {NODES_MAX} nodes, those that are gone included")]
    TooMany,
    /// No port.
    #[error(transparent)]
    NoPorts(#[from] NoPorts),
    /// Looking for ports.
    #[error(transparent)]
    Up(#[from] UpError),
    /// Certificates, configurations.
    #[error(transparent)]
    Papers(#[from] PapersError),
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The members do not show the view of the registration.
    #[error("{node} is registered, and no member shows it yet")]
    NotShown {
        /// Which node.
        node: NodeId,
    },
    /// It is registered, and its process is not ready.
    #[error("{node} is registered, but: {source}")]
    Start {
        /// Which node.
        node: NodeId,
        /// Why.
        source: Box<StartError>,
    },
}

/// Registers another node, writes what it needs, starts it, and waits until it is ready. It owns nothing yet. If it was cut
/// short before, with a node registered and not ready, it goes on with that one.
///
/// # Errors
/// See [`AddError`].
pub async fn add(
    home: &Home,
    testnet: &mut Testnet,
    launcher: &Launcher,
    client: &Arc<Client>,
    zone: Option<String>,
    interrupted: impl Future<Output = ()>,
    hear: Hear<'_>,
) -> Result<Node, AddError> {
    let _lock = testnet.lock(launcher.lock_limit()).await?;
    testnet.reload()?;
    if !papers::can_sign(testnet) {
        return Err(AddError::NoAuthority);
    }
    let view = client.refresh(ANSWER_LIMIT).await;
    let cut_short = testnet.grown().adding.clone();
    let added = match cut_short.filter(|added| is_registered(&view, added, zone.as_deref())) {
        Some(added) => added,
        None => {
            let added = place(home, testnet, &view, zone)?;
            testnet.begin_adding(added.clone())?;
            added
        }
    };
    let node = added.node;
    let view = match is_registered(&view, &added, None) {
        true => view,
        false => register(client, &added).await?,
    };
    testnet.grow(added)?;
    let new = testnet.select(&[node])?.remove(0);
    papers::issue_added(testnet, &new, &view)?;
    papers::seeds(testnet)?;
    hear(Event::Registered { node, address: new.address, zone: new.zone.clone() });
    start::start(testnet, launcher, vec![new.clone()], interrupted, hear)
        .await
        .map_err(|source| AddError::Start { node, source: Box::new(source) })?;
    testnet.end_adding()?;
    Ok(new)
}

/// Whether a node is registered and no more: an `add` was cut short behind that. With a zone, only if it is that one.
fn is_registered(view: &View, added: &Added, zone: Option<&str>) -> bool {
    view.member(added.node).is_some_and(|member| {
        member.state == MemberState::Joining
            && member.address == address(added)
            && zone.is_none_or(|zone| zone == member.zone)
    })
}

fn address(added: &Added) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, added.port).into()
}

/// Ends a node that the ring has let go, and forgets it. Its folder stays.
///
/// # Errors
/// See [`OpenError`].
pub async fn retire(
    testnet: &mut Testnet,
    launcher: &Launcher,
    node: NodeId,
    hear: Hear<'_>,
) -> Result<(), OpenError> {
    let _lock = testnet.lock(launcher.lock_limit()).await?;
    testnet.reload()?;
    let nodes = testnet.select(&[node])?;
    // whoever is stopped before it has heard that it was let go would take itself for a member when it is started again
    for node in &nodes {
        stop::ended(node, TOLD_LIMIT).await?;
    }
    let mut hear_of_others = |event| match event {
        Event::NotRunning { .. } => {} // it was told by the others, and has ended by itself
        event => hear(event),
    };
    stop::stop(nodes, launcher.stop_limit, &mut hear_of_others).await?;
    testnet.shrink(node)?;
    Ok(papers::seeds(testnet)?)
}

/// An id that nobody has or had, a port that nobody uses, and the zone with the fewest nodes if none was named.
fn place(
    home: &Home,
    testnet: &Testnet,
    view: &View,
    zone: Option<String>,
) -> Result<Added, AddError> {
    let members = view.members().iter().map(|member| member.id);
    let removed = view.removed().iter().map(|gone| gone.id);
    let invited = view.invitations().iter().map(|open| open.node);
    let ours = testnet.everybody().into_iter().map(|node| node.id);
    let highest = members.chain(removed).chain(invited).chain(ours).max();
    let node = NodeId(highest.map_or(0, |node| node.0) + 1);
    if node.0 > NODES_MAX {
        return Err(AddError::TooMany);
    }
    let taken = taken_by_others(home, testnet.name())?;
    let ours: Vec<u16> = testnet.everybody().iter().map(|node| node.address.port()).collect();
    let first = testnet.asked().first_port;
    let own = u32::from(first) + node.0 - 1;
    let is_good = |port: &u16| {
        !ours.contains(port)
            && !taken.iter().any(|block| block.contains(&u32::from(*port)))
            && ports::is_free(*port)
    };
    let from = u16::try_from(own).unwrap_or(u16::MAX);
    let port = (from..=u16::MAX).find(is_good).ok_or(NoPorts { base_port: from, nodes: 1 })?;
    let zone = zone.unwrap_or_else(|| emptiest_zone(view));
    Ok(Added { node, port, zone })
}

fn emptiest_zone(view: &View) -> String {
    let mut zones: Vec<(usize, &str)> = Vec::new();
    for member in view.members() {
        match zones.iter_mut().find(|(_, zone)| *zone == member.zone) {
            Some((nodes, _)) => *nodes += 1,
            None => zones.push((1, &member.zone)),
        }
    }
    zones.into_iter().min().map_or_else(|| "z1".into(), |(_, zone)| zone.to_owned())
}

/// Invites the node and registers it at once: the operator may speak for it.
async fn register(client: &Arc<Client>, added: &Added) -> Result<Arc<View>, AddError> {
    let Added { node, zone, .. } = added.clone();
    let invitation = rand::random();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let expires = now.unwrap_or_default() + INVITED_FOR;
    let expires_ms = u64::try_from(expires.as_millis()).unwrap_or(u64::MAX);
    client.propose(&Command::Invite { invitation, node, expires_ms }, PROPOSE_LIMIT).await?;
    let address = address(added);
    let register = Command::Register { invitation, node, address, zone, weight: 1 };
    let epoch = client.propose(&register, PROPOSE_LIMIT).await?;
    let deadline = Instant::now() + SHOWN_LIMIT;
    loop {
        let shown = client.view_of(epoch, SHOWN_LIMIT).await;
        if let Some(view) = shown.filter(|view| view.member(node).is_some()) {
            return Ok(view);
        }
        if Instant::now() >= deadline {
            return Err(AddError::NotShown { node });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// How long the node may take to hear from the others that it was let go, upon which it ends by itself.
const TOLD_LIMIT: Duration = Duration::from_secs(5);

/// Long enough to register at once.
const INVITED_FOR: Duration = Duration::from_secs(60);

const PROPOSE_LIMIT: Duration = Duration::from_secs(12);

const SHOWN_LIMIT: Duration = Duration::from_secs(5);

const ANSWER_LIMIT: Duration = Duration::from_secs(1);
