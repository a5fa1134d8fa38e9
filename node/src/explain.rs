//! What would happen to a request: answered from the view, from who is there and from what was measured. Nothing is sent.

use atoll_ring::{NodeId, Owners};
use atoll_wire::{Explain, Explained, Failure, Health, Replica, Reply};

use crate::{
    Node,
    coordinate::{Place, quorum, stand_ins::StandIns},
    measured::Leg,
    node::{Due, failed},
};

/// What this node knows of a key's place.
pub(crate) fn explain(node: &Node, asked: &Explain, due: Due) -> Reply {
    match explained(node, asked, due) {
        Ok(explained) => Reply::Explained(Box::new(explained)),
        Err(failure) => failed(failure),
    }
}

fn explained(node: &Node, asked: &Explain, due: Due) -> Result<Explained, Failure> {
    let place = Place::of(node, due.bucket, asked.key.clone())?;
    let quorum = quorum(&asked.quorum, &place)?;
    let owners = place.owners(quorum.n());
    let fallbacks = StandIns::of(&place).all();
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<u32>>();
    let (old, joining) = match owners {
        Owners::One(set) => (ids(set), None),
        Owners::Joint { old, new } => (ids(old), Some(ids(new))),
    };
    let all = owners.all().into_iter().chain(fallbacks.iter().copied());
    Ok(Explained {
        node: node.id().0,
        token: place.token().0,
        partition: place.partition.0,
        changed_in: place.view.last_changed(place.partition).0,
        quorum,
        bucket_n: place.bucket_n(),
        owners: old,
        joining,
        places: all.map(|replica| of(node, &place, replica)).collect(),
        fallbacks: ids(&fallbacks),
    })
}

/// One of the nodes, as it is seen from here.
fn of(node: &Node, place: &Place, replica: NodeId) -> Replica {
    let measured = |leg| node.measured().of(replica, leg);
    let member = place.view.member(replica);
    let (health, round_trip_micros) = match replica == node.id() {
        true if node.doubt().covers(&place.row) => (Health::InDoubt, 0),
        true => (Health::Up, 0),
        false => match node.liveness().health(replica) {
            (Health::Up, time) if node.repair().is_in_doubt(replica) => (Health::InDoubt, time),
            seen => seen,
        },
    };
    Replica {
        node: replica.0,
        zone: member.map(|member| member.zone.clone()).unwrap_or_default(),
        health,
        round_trip_micros,
        fetch: measured(Leg::Fetch),
        written: measured(Leg::Written),
        durable: measured(Leg::Durable),
    }
}
