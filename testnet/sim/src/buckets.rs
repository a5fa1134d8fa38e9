//! The buckets of a run: clients make them before anything goes wrong, as people do.

use std::{cell::RefCell, time::Duration};

use atoll_check::Event;
use atoll_ring::{Epoch, NodeId};
use atoll_wire::{
    BucketChange, BucketId, Change, Envelope, Lane, Reply, Request, Role,
    bucket::{Creation, Kind, Properties},
};
use bytes::Bytes;

use crate::{
    cluster::{KINDS, SECOND, SECOND_COPIES, SECOND_KEYS},
    world::World,
};

/// How long a node may take before another one is asked.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Makes that of registers with fewer copies.
pub async fn make_second(world: &RefCell<World>, me: NodeId) {
    let made = make(world, me, SECOND, Kind::Register, Some(SECOND_COPIES)).await;
    assert_eq!(made, world.borrow().cluster.bucket(SECOND_KEYS[0]));
}

/// Makes one for each of the other kinds, called after it.
pub async fn make_kinds(world: &RefCell<World>, me: NodeId) {
    for kind in KINDS {
        let made = make(world, me, kind.word(), kind, None).await;
        assert_eq!(made, world.borrow().cluster.bucket(&format!("{kind}/")), "of {kind}");
    }
    world.borrow_mut().recorder.event(Event::Format(2));
}

/// Makes one, through whoever answers first.
async fn make(
    world: &RefCell<World>,
    me: NodeId,
    name: &str,
    kind: Kind,
    n: Option<u8>,
) -> BucketId {
    let change =
        Change::Create(Creation { name: name.into(), kind, n, properties: Properties::default() });
    let request = Request::BucketChange(BucketChange { change, registry: Bytes::new() });
    let nodes = world.borrow().cluster.nodes();
    for via in nodes.into_iter().cycle() {
        let call = {
            let world = &mut world.borrow_mut();
            let envelope = Envelope {
                epoch: Epoch(0),
                left_ms: 1000,
                operation: world.next_op().into(),
                bucket: BucketId([0; 16]),
                trace: false,
                role: Role::Client,
            };
            let port = world.cluster.network.port(me);
            port.call(via, Lane::Control, envelope, request.clone())
        };
        if let Ok(Ok((_, Reply::BucketChanged(made)))) = tokio::time::timeout(PATIENCE, call).await
        {
            let recorder = &mut world.borrow_mut().recorder;
            recorder.say(format_args!("the bucket {name}, known on {:?}", made.known));
            return made.bucket;
        }
        tokio::time::sleep(Duration::from_millis(100)).await; // nobody serves yet
    }
    unreachable!("a cluster has nodes")
}
