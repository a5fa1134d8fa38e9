//! Whole screens, as text. What changes on purpose is written anew with `ATOLL_BLESS=1`; then look at the pictures.

use std::{env, fs, path::Path, sync::Arc};

use atoll_client::NodeStatus;
use atoll_ring::{ClusterId, Member, MemberState, Partitions, View};
use atoll_testnet::{Look, Node, NodeReport, State};
use atoll_wire::{
    PeerStatus, Times,
    times::{TIMES_BUCKETS, bucket},
};
use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::testnet::watch::pace::Past;

/// A testnet of so many nodes, all well, after so many milliseconds under a steady load.
fn well(nodes: u32, uptime_ms: u64) -> Look {
    let member = |node: u32| Member {
        id: NodeId(node),
        incarnation: 0,
        address: format!("127.0.0.1:{}", 7400 + node).parse().unwrap(),
        zone: format!("z{}", (node - 1) % 3 + 1),
        weight: 1,
        state: MemberState::Active,
    };
    let members: Vec<Member> = (1..=nodes).map(member).collect();
    let partitions = Partitions::new(256).unwrap();
    let copies = u8::try_from(nodes.min(3)).unwrap();
    let (view, _) = View::create(ClusterId([7; 16]), partitions, copies, members.clone()).unwrap();
    let report = |member: &Member| {
        let others = members.iter().filter(|other| other.id != member.id);
        let peer = |other: &Member| PeerStatus {
            node: other.id.0,
            up: true,
            round_trip_micros: 200 + 10 * (other.id.0 + member.id.0),
            hints: 0,
            reason: String::new(),
        };
        let status = NodeStatus {
            node: member.id.0,
            epoch: 1,
            uptime_ms,
            resident_bytes: 12 << 20,
            keys: 6000,
            compared_ms_ago: 8_200,
            read_times: times(uptime_ms / 4, 900),
            write_times: times(uptime_ms / 10, 3_100),
            peers: others.map(peer).collect(),
            ..NodeStatus::default()
        };
        NodeReport {
            node: Node::new(Path::new("/"), member.clone()),
            state: State::Ready,
            pid: Some(4000 + member.id.0),
            status: Some(status),
        }
    };
    Look { reports: members.iter().map(report).collect(), view: Some(Arc::new(view)) }
}

fn times(count: u64, micros: u64) -> Times {
    let mut counts = [0; TIMES_BUCKETS];
    counts[bucket(Duration::from_micros(micros))] = count;
    Times::of(counts)
}

/// n2 is dead, n4 is paused, n1 and n3 do not hear each other, n5 hears n1 late; hints wait, owners are behind.
fn broken(mut look: Look) -> Look {
    for (node, state) in [(2, State::Dead), (4, State::Paused)] {
        look.reports[node - 1].state = state;
        look.reports[node - 1].status = None;
    }
    for (node, other) in [(1, 3), (3, 1)] {
        let peers = &mut look.reports[node - 1].status.as_mut().unwrap().peers;
        peers.iter_mut().find(|peer| peer.node == other).unwrap().up = false;
    }
    let late = look.reports[4].status.as_mut().unwrap();
    late.peers[0].round_trip_micros = 41_300;
    late.hints = 42;
    late.reads_behind = late.uptime_ms / 100;
    late.unmet = late.uptime_ms / 1000;
    late.partitions_in_doubt = 3;
    look
}

fn past(of: impl Fn(u64) -> Look) -> Past {
    let mut past = Past::default();
    for number in 0..20 {
        past.add(of(10_000 + number * 500));
    }
    past
}

fn picture(past: &Past, selected: u32, (width, height): (u16, u16)) -> String {
    let message = Some(("n2 killed".to_owned(), Tone::Good));
    let scene = Scene::of("dev", past, Some(NodeId(selected)), message);
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame.buffer_mut(), &scene, Ink::Letters)).unwrap();
    let buffer = terminal.backend().buffer();
    let line = |y| {
        let cells = (0..width).map(|x| buffer.cell((x, y)).unwrap().symbol());
        cells.collect::<String>().trim_end().to_owned() + "\n"
    };
    (0..height).map(line).collect()
}

/// What is seen at the two sizes most terminals have, all well and much broken.
#[test]
fn pictures() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testnet/watch/draw/pictures");
    let (well, broken) = (past(|ms| well(5, ms)), past(|ms| broken(well(5, ms))));
    for (past, name, size) in [
        (&well, "well-80x24", (80, 24)),
        (&broken, "broken-80x24", (80, 24)),
        (&well, "well-140x45", (140, 45)),
        (&broken, "broken-140x45", (140, 45)),
    ] {
        let drawn = picture(past, 2, size);
        let path = folder.join(name).with_extension("txt");
        if env::var_os("ATOLL_BLESS").is_some_and(|bless| bless == "1") {
            fs::write(&path, &drawn).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(drawn, expected, "{name}: if this is right, write it anew with ATOLL_BLESS=1");
    }
}

/// Colours: each part of the ring that is out of reach is dark, and its rim says how bad that is.
#[test]
fn the_ring_in_colours() {
    let colours = |past: &Past| {
        let scene = Scene::of("dev", past, None, None);
        let mut buffer = Buffer::empty(Rect::new(0, 0, 80, 24));
        draw(&mut buffer, &scene, Ink::Colours);
        let cells = buffer.content().iter().filter(|cell| "▀▄".contains(cell.symbol()));
        cells.flat_map(|cell| [cell.fg, cell.bg]).collect::<Vec<Color>>()
    };
    let (well, broken) =
        (colours(&past(|ms| well(5, ms))), colours(&past(|ms| broken(well(5, ms)))));
    let dark = Color::Indexed(237);
    for node in (1..=5).map(NodeId) {
        assert!(well.contains(&node_colour(node)), "{node} owns something");
    }
    assert!(well.contains(&Color::Green) && !well.contains(&dark));
    for away in [NodeId(2), NodeId(4)] {
        assert!(!broken.contains(&node_colour(away)), "{away} is out of reach");
    }
    for seen in [dark, Color::Yellow, Color::Red, node_colour(NodeId(1))] {
        assert!(broken.contains(&seen), "{seen:?}");
    }
}

/// Any number of nodes on a screen of any size: nothing panics, the selected node is shown, and so are the keys.
#[test]
fn any_size() {
    for nodes in [1, 2, 12, 64] {
        let past = past(|ms| well(nodes, ms));
        for width in (1..200).step_by(13) {
            for height in (1..70).step_by(7) {
                let drawn = picture(&past, nodes, (width, height));
                if width >= WIDTH_MIN && height >= HEIGHT_MIN {
                    assert!(drawn.contains(&format!("▸▌n{nodes}")), "{nodes} {width}x{height}");
                    assert!(drawn.contains("q quit"), "{nodes} {width}x{height}");
                }
            }
        }
    }
    let nothing = picture(&Past::default(), 1, (80, 24));
    assert!(nothing.contains("looking") && nothing.contains("no node has told of the ring yet"));
}

/// The window moves with the selection and never leaves the list.
#[test]
fn windows() {
    let windows = [0, 3, 9].map(|selected| window(10, 4, selected));
    assert_eq!(windows, [0..4, 1..5, 6..10]);
    assert_eq!([window(3, 4, 2), window(0, 4, 0), window(4, 0, 3)], [0..3, 0..0, 3..3]);
}

/// Three characters for any round trip, and rates as long as they need to be.
#[test]
fn short_words() {
    let micros = [0, 40, 412, 9_949, 9_950, 41_300, 999_499, 999_500, 4_000_000_000];
    let words = micros.map(short_ms);
    assert_eq!(words, ["ok", "0.0", "0.4", "9.9", "10", "41", "999", "1s", "99s"]);
    assert_eq!([0.0, 0.04, 3.51, 9.96, 1234.5].map(rate), ["0", "0.0", "3.5", "10", "1234"]);
    let times = [90, 4_200, 41_000, 1_250_000].map(|micros| time(Duration::from_micros(micros)));
    assert_eq!(times, ["0.1 ms", "4.2 ms", "41 ms", "1.2 s"]);
    assert_eq!(spark(&[0.0, 5.0, 10.0], 2), "▅█");
    assert_eq!(spark(&[0.0, 0.0], 9), "▁▁");
}
