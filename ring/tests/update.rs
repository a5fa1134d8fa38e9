//! A view in few bytes, and how a node that is behind catches up.

use atoll_ring::{
    ClusterId, Command, DecodeError, Entry, Epoch, FollowError, Member, MemberState, NodeId,
    Partitions, Plan, Rejected, Update, View, Wish,
};

fn member(id: u32) -> Member {
    Member {
        id: NodeId(id),
        incarnation: id % 3,
        address: format!("10.1.{}.{}:7400", id >> 8, id & 255).parse().unwrap(),
        zone: format!("zone-{}", id % 5),
        weight: 1 + id % 2,
        state: MemberState::Active,
    }
}

fn cluster(nodes: u32, partitions: u32) -> View {
    let members = (1..=nodes).map(member).collect();
    let partitions = Partitions::new(partitions).unwrap();
    View::create(ClusterId([7; 16]), partitions, 3, members).unwrap().0
}

/// A view and the entries that led to it.
struct Log {
    view: View,
    entries: Vec<Entry>,
    views: Vec<View>,
}

impl Log {
    fn new(view: View) -> Log {
        Log { views: vec![view.clone()], view, entries: Vec::new() }
    }

    fn push(&mut self, command: Command) {
        let entry = Entry { epoch: Epoch(self.view.epoch().0 + 1), at_ms: 5_000, command };
        self.view = self.view.apply(&entry).unwrap();
        self.views.push(self.view.clone());
        self.entries.push(entry);
    }

    fn register(&mut self, id: u32) {
        let (invitation, node) = ([id as u8; 16], NodeId(id));
        let Member { address, zone, weight, .. } = member(id);
        self.push(Command::Invite { invitation, node, expires_ms: 6_000 });
        self.push(Command::Register { invitation, node, address, zone, weight });
    }

    fn wish(&mut self, wish: &Wish) {
        self.push(Plan::of(&self.view, wish).unwrap().command());
    }

    fn begin(&mut self, most: usize) {
        let partitions = self.view.wanted().keys().take(most).copied().collect();
        self.push(Command::Begin { partitions });
    }

    fn finish(&mut self, most: usize) {
        let moves = self.view.moves().keys().take(most);
        let partitions = moves.map(|at| (*at, self.view.last_changed(*at))).collect();
        self.push(Command::Finish { partitions });
    }

    fn since(&self, have: u64) -> Update {
        let at = |epoch: Epoch| self.entries.iter().find(|entry| entry.epoch == epoch).cloned();
        Update::since(&self.view, at, Epoch(have))
    }
}

/// Everything a view can hold: members in all states, an IPv6 address, removed ones, invitations,
/// moves of both kinds, one behind the other, rows of other lengths.
fn full() -> Log {
    let mut log = Log::new(cluster(6, 32));
    for id in [9, 300, 301] {
        log.register(id);
    }
    let (invitation, node) = ([77; 16], NodeId(400));
    log.push(Command::Invite { invitation, node, expires_ms: 1 << 50 });
    let address = "[fd00::1%7]:7400".parse().unwrap();
    let zone = "überall".to_owned();
    log.push(Command::Register { invitation, node, address, zone, weight: u32::MAX });
    log.push(Command::Invite { invitation: [78; 16], node: NodeId(401), expires_ms: 7_000 });
    log.push(Command::Retire { node: NodeId(301) });
    log.wish(&Wish::Join { node: NodeId(9) });
    log.begin(9);
    log.finish(2);
    log.push(Command::Incarnation { node: NodeId(9), incarnation: 1 });
    log.wish(&Wish::RemoveDead { node: NodeId(3) });
    log.push(Command::Voters { voters: [1, 4, 9].map(NodeId).to_vec() });
    log
}

/// Out of every stage of a long history, through both forms, the same view.
#[test]
fn views_read_back() {
    let mut log = full();
    let waiting = log.view.moves().keys().filter(|at| log.view.wanted().contains_key(at)).count();
    assert!(waiting > 0 && log.view.removed().len() == 1 && log.view.invitations().len() == 1);
    log.push(Command::Cancel);
    log.wish(&Wish::Replicas { replicas: 5 });
    log.begin(7);
    log.finish(3);
    for view in &log.views {
        assert_eq!(View::decode(&view.encode()).as_ref(), Ok(view));
        let bytes = postcard::to_stdvec(view).unwrap();
        assert_eq!(&postcard::from_bytes::<View>(&bytes).unwrap(), view);
        let text = serde_json::to_string(view).unwrap();
        assert_eq!(&serde_json::from_str::<View>(&text).unwrap(), view);
    }
}

/// The bytes of a small view, for ever: change one and stored views are lost. A new form gets a new
/// first byte.
#[test]
fn golden_bytes() {
    let mut log = Log::new(cluster(3, 2));
    log.register(4);
    log.wish(&Wish::Join { node: NodeId(4) });
    let bytes = log.view.encode();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, GOLDEN);
    assert_eq!(View::decode(&bytes), Ok(log.view));
}

const GOLDEN: &str = concat!(
    "01",
    "07070707070707070707070707070707",
    "04020303", // epoch, partitions, replicas, bucket N
    "04",
    "0101040a010001e839067a6f6e652d310201",
    "0202040a010002e839067a6f6e652d320101",
    "0300040a010003e839067a6f6e652d330201",
    "0400040a010004e839067a6f6e652d340101",
    "00",   // removed
    "00",   // invitations
    "0301", // voters
    "0203",
    "03020001",
    "03000201",
    "0303", // ages
    "00",   // moves
    "0100030403",
);

/// Bytes cut short, made longer or flipped never panic. What still is a view has only one form.
#[test]
fn damaged_bytes() {
    let bytes = full().view.encode();
    for length in 0..bytes.len() {
        assert_eq!(View::decode(&bytes[..length]), Err(DecodeError::Damaged), "{length}");
    }
    assert_eq!(View::decode(&[&bytes[..], &[0]].concat()), Err(DecodeError::Damaged));
    let later = DecodeError::Format { format: 2 };
    assert_eq!(View::decode(&[&[2], &bytes[1..]].concat()), Err(later));
    for index in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << bit;
            if let Ok(view) = View::decode(&damaged) {
                assert_eq!(view.encode(), damaged);
            }
        }
    }
}

/// A number that claims a huge list allocates nothing.
#[test]
fn claims_of_length() {
    let small = cluster(3, 2).encode();
    let at = 1 + 16 + 4; // the number of members
    assert_eq!(small[at], 3);
    for claim in [&[0xff, 0x3f][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0xff; 9]] {
        let bytes = [&small[..at], claim, &small[at + 1..]].concat();
        assert_eq!(View::decode(&bytes), Err(DecodeError::Damaged));
    }
}

/// A node that is behind follows to the same view, from any epoch, also when the same update comes
/// again or late; one that has lost the thread gets the view.
#[test]
fn catching_up() {
    let log = full();
    let last = log.view.epoch().0;
    for view in &log.views {
        let update = log.since(view.epoch().0);
        assert!(matches!(update, Update::Entries(_)), "{update:?}");
        let there = view.follow(&update).unwrap();
        assert_eq!(there, log.view);
        assert_eq!(there.follow(&update).as_ref(), Ok(&there), "it comes again");
        let bytes = postcard::to_stdvec(&update).unwrap();
        let read: Update = postcard::from_bytes(&bytes).unwrap();
        assert_eq!(view.follow(&read).as_ref(), Ok(&log.view));
    }
    // One that knows more already skips what it knows.
    for view in &log.views {
        assert_eq!(view.follow(&log.since(1)).as_ref(), Ok(&log.view));
    }
    assert_eq!(log.since(last), Update::Entries(Vec::new()));
    assert_eq!(log.since(last + 9), Update::Entries(Vec::new()), "it is ahead of us");
    let whole = Update::View(Box::new(log.view.clone()));
    assert_eq!(Update::since(&log.view, |_| None, Epoch(last - 1)), whole, "all is forgotten");
    assert_eq!(log.since(0), whole, "it has nothing");
    assert_eq!(log.views[0].follow(&whole).as_ref(), Ok(&log.view));
    assert_eq!(log.view.follow(&Update::View(Box::new(log.views[0].clone()))), Ok(log.view));
}

/// An address with a scope means something on one machine only, and postcard forgets the scope. So
/// a view never has it: otherwise the node that proposed the entry would have another view than
/// those that read it from the log.
#[test]
fn addresses_lose_their_scope() {
    let mut log = full();
    assert_eq!(log.view.member(NodeId(400)).unwrap().address.to_string(), "[fd00::1]:7400");
    log.push(Command::Invite { invitation: [9; 16], node: NodeId(500), expires_ms: 9_000 });
    let entry = |scope: &str| Entry {
        epoch: Epoch(log.view.epoch().0 + 1),
        at_ms: 5_000,
        command: Command::Register {
            invitation: [9; 16],
            node: NodeId(500),
            address: format!("[fd00::2{scope}]:7400").parse().unwrap(),
            zone: "a".into(),
            weight: 1,
        },
    };
    assert_eq!(log.view.apply(&entry("%3")), log.view.apply(&entry("")));
}

/// Updates that do not fit say how.
#[test]
fn updates_that_do_not_fit() {
    let log = full();
    let gap = Update::Entries(log.entries[3..].to_vec());
    let error = FollowError::Gap { have: Epoch(1), next: Epoch(5) };
    assert_eq!(log.views[0].follow(&gap), Err(error));
    let strange = Update::Entries(vec![Entry {
        epoch: Epoch(2),
        at_ms: 0,
        command: Command::Retire { node: NodeId(70) },
    }]);
    let rejected = Rejected::NoMember { node: NodeId(70) };
    let error = FollowError::Diverged { epoch: Epoch(2), rejected };
    assert_eq!(log.views[0].follow(&strange), Err(error));
    let members = (1..=3).map(member).collect();
    let partitions = Partitions::new(8).unwrap();
    let other = View::create(ClusterId([8; 16]), partitions, 3, members).unwrap().0;
    let foreign = Update::View(Box::new(other));
    assert_eq!(log.view.follow(&foreign), Err(FollowError::OtherCluster));
}

/// Issue: "1,000 simulated nodes, Q = 32,768: snapshot under 400 KB, a node one epoch behind pulls
/// under 1 KB". Late in the life of a cluster, when numbers have grown.
#[test]
fn a_thousand_nodes_are_small() {
    let old = cluster(1000, 32_768);
    let mut document = serde_json::to_value(&old).unwrap();
    let epoch = 3_000_000_000_u64;
    document["epoch"] = epoch.into();
    // Every partition has changed at another time, some of them long ago.
    for (index, changed) in document["last_changed"].as_array_mut().unwrap().iter_mut().enumerate()
    {
        *changed = (epoch - (index as u64 * 77) % 2_000_000).into();
    }
    let view: View = serde_json::from_value(document).unwrap();
    let mut log = Log::new(view);
    let at_rest = log.view.encode().len();
    log.register(1001);
    log.wish(&Wish::Join { node: NodeId(1001) });
    let change = postcard::to_stdvec(&log.since(log.view.epoch().0 - 1)).unwrap().len();
    let mut steps = Vec::new();
    while !log.view.wanted().is_empty() {
        for step in [Log::begin, Log::finish] {
            step(&mut log, 64);
            let update = log.since(log.view.epoch().0 - 1);
            assert!(matches!(update, Update::Entries(_)));
            steps.push(postcard::to_stdvec(&update).unwrap().len());
        }
    }
    let leaving = log.view.encode().len();
    println!("view {at_rest} B, after a join {leaving} B; change {change} B, steps {steps:?} B");
    assert!(at_rest < 400_000 && leaving < 400_000 && change < 1_000);
    assert!(steps.iter().all(|bytes| *bytes < 1_000));
    assert_eq!(View::decode(&log.view.encode()), Ok(log.view));
}
