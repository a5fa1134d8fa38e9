//! What a list of faults may say, and what is so when.

use super::*;

fn parsed(text: &str) -> FaultList {
    FaultList::parse(text).expect(text)
}

/// All that can be written, read, written again and read again.
#[test]
fn the_file_is_what_it_says() {
    let text = r#"
        seed = 7
        free_bytes = 1000000
        free_bytes_when = { from_ms = 5 }
        hold = ["copy", "page", "done", "clean"]

        [[links]]
        peer = 2
        name = "slow"
        drop = 0.05
        delay_ms = 40
        jitter_ms = 10
        duplicate = 1
        reorder = 0.000001
        bandwidth_bits = 1000000
        when = { from_ms = 10, until_ms = 20, every_ms = 50 }

        [[links]]
        peer = 3
        cut = true

        [disk]
        slow_ms = 20

        [clock]
        ahead_ms = -3600000
    "#;
    let list = parsed(text);
    let chance = Chance::of_million;
    assert_eq!(list.seed, 7);
    assert_eq!(list.hold, Step::ALL);
    let slow = LinkFault {
        drop: chance(50_000),
        delay_ms: Some(40),
        jitter_ms: Some(10),
        duplicate: chance(1_000_000),
        reorder: chance(1),
        bandwidth_bits: Some(1_000_000),
        when: Some(When { from_ms: 10, until_ms: Some(20), every_ms: Some(50) }),
        ..LinkFault::to(NodeId(2), "slow")
    };
    assert_eq!(list.links, [slow, LinkFault { cut: true, ..LinkFault::to(NodeId(3), "") }]);
    assert_eq!(list.clock, Some(ClockFault { ahead_ms: -3_600_000, when: None }));
    assert_eq!(parsed(&list.text()), list);
    assert_eq!(parsed(""), FaultList::default());
    assert_eq!(parsed(&FaultList::default().text()), FaultList::default());
}

/// What cannot be, each with the word that a person would look for.
#[test]
fn what_cannot_be_is_refused_by_name() {
    for (text, word) in [
        ("sead = 7", "sead"),
        ("free_bytes = -7", "free_bytes"),
        ("free_bytes_when = { from_ms = 5 }", "without free_bytes"),
        ("hold = [\"dine\"]", "dine"),
        ("[[links]]\ncut = true", "peer"),
        ("[[links]]\npeer = 2", "n2 has no fault"),
        ("[[links]]\npeer = 2\nwhen = { from_ms = 1 }", "n2 has no fault"),
        ("[[links]]\npeer = 2\ndorp = 0.1", "dorp"),
        ("[[links]]\npeer = 2\ndrop = 0", "chance"),
        ("[[links]]\npeer = 2\ndrop = 1.01", "chance"),
        ("[[links]]\npeer = 2\ndrop = nan", "chance"),
        ("[[links]]\npeer = 2\ndrop = -0.5", "chance"),
        ("[[links]]\npeer = 2\ndrop = \"5 %\"", "drop"),
        ("[[links]]\npeer = 2\ndelay_ms = 10001", "10001 ms: at most 10000"),
        ("[[links]]\npeer = 2\njitter_ms = 1", "a jitter of 1 ms"),
        ("[[links]]\npeer = 2\ndelay_ms = 4\njitter_ms = 5", "a jitter of 5 ms"),
        ("[[links]]\npeer = 2\nbandwidth_bits = 0", "use cut"),
        ("[[links]]\npeer = 2\nname = \"Two words\"\ncut = true", "Two words"),
        ("[[links]]\npeer = 2\nname = \"seventeen-letters\"\ncut = true", "at most 16"),
        ("[[links]]\npeer = 2\ncut = true\nwhen = { from_ms = 9, until_ms = 9 }", "end after"),
        ("[[links]]\npeer = 2\ncut = true\nwhen = { from_ms = 9, every_ms = 9 }", "end after"),
        (
            "[[links]]\npeer = 2\ncut = true\nwhen = { from_ms = 1, until_ms = 5, every_ms = 4 }",
            "end after",
        ),
        ("[disk]\nslow_ms = 0", "a disk slower by 0 ms"),
        ("[disk]\nwhen = { from_ms = 1 }", "slow_ms"),
        ("[clock]\nahead_ms = 0", "not 0"),
        ("[clock]\nahead_ms = -9223372036854775808", "either way"),
        ("[certificate]\nexpired = true", "certificate"),
    ] {
        let error = FaultList::parse(text).expect_err(text).to_string();
        assert!(error.contains(word), "{text:?}: {error:?} does not speak of {word:?}");
    }
    let too_many = "[[links]]\npeer = 2\ncut = true\n".repeat(FAULT_LINKS_MAX + 1);
    let error = FaultList::parse(&too_many).expect_err("too many").to_string();
    assert!(error.contains("at most 256"), "{error}");
    parsed(&"[[links]]\npeer = 2\ncut = true\n".repeat(FAULT_LINKS_MAX));
}

/// What is so at each moment, and when it changes next, against a clock that goes through all of them.
#[test]
fn times_are_kept() {
    for (from_ms, until_ms, every_ms, drawn) in [
        (3, None, None, "...#########"),
        (0, None, None, "############"),
        (3, Some(6), None, "...###......"),
        (3, Some(5), Some(4), "...##..##..#"),
        (0, Some(1), Some(2), "#.#.#.#.#.#."),
    ] {
        let when = When { from_ms, until_ms, every_ms };
        let is_at = |now| when.is_at(now);
        let shown: String = (0..12).map(|now| if is_at(now) { '#' } else { '.' }).collect();
        assert_eq!(shown, drawn, "{when:?}");
        for now in 0..6 {
            let next = (now + 1..40).find(|later| is_at(*later) != is_at(now));
            assert_eq!(when.changes_after(now), next, "{when:?} after {now}");
        }
    }
    let end_of_time = When { from_ms: 1, until_ms: Some(u64::MAX), every_ms: Some(u64::MAX) };
    assert!(end_of_time.is_at(u64::MAX - 1));
    let hostile = When { from_ms: 5, until_ms: Some(1), every_ms: Some(0) };
    assert!(!hostile.is_at(7) && hostile.changes_after(7).is_none());
}

/// Each fault has a time of its own.
#[test]
fn what_is_so_at_a_moment() {
    let list = parsed(
        r#"
        free_bytes = 9
        free_bytes_when = { from_ms = 10, until_ms = 20 }
        hold = ["copy"]
        links = [
            { peer = 2, cut = true, when = { from_ms = 20, until_ms = 30 } },
            { peer = 3, cut = true },
        ]
        disk = { slow_ms = 5, when = { from_ms = 30, until_ms = 40 } }
        clock = { ahead_ms = 6, when = { from_ms = 40, until_ms = 50 } }
        "#,
    );
    let seen = [5, 15, 25, 35, 45, 55].map(|now| {
        let so = list.at(now);
        assert_eq!(so.hold, [Step::Copy]);
        let links = so.links.len();
        (so.free_bytes, links, so.slow_ms, so.clock_ahead_ms)
    });
    let expected = [
        (None, 1, None, None),
        (Some(9), 1, None, None),
        (None, 2, None, None),
        (None, 1, Some(5), None),
        (None, 1, None, Some(6)),
        (None, 1, None, None),
    ];
    assert_eq!(seen, expected);
}

/// The longest list that there may be fits into the header of a frame.
#[test]
fn the_longest_list_can_be_sent() {
    let ms = FAULT_TIME_MS_MAX;
    let when = Some(When { from_ms: ms / 2, until_ms: Some(ms), every_ms: Some(ms) });
    let link = LinkFault {
        peer: NodeId(u32::MAX),
        name: "x".repeat(FAULT_NAME_BYTES_MAX),
        cut: true,
        drop: Chance::of_million(1),
        delay_ms: Some(FAULT_DELAY_MS_MAX),
        jitter_ms: Some(FAULT_DELAY_MS_MAX),
        duplicate: Chance::of_million(1),
        reorder: Chance::of_million(1),
        bandwidth_bits: Some(BANDWIDTH_BITS_MAX),
        when,
    };
    let list = FaultList {
        seed: u32::MAX,
        free_bytes: Some(FREE_BYTES_MAX),
        free_bytes_when: when,
        hold: Step::ALL.repeat(4),
        links: vec![link; FAULT_LINKS_MAX],
        disk: Some(DiskFault { slow_ms: FAULT_DELAY_MS_MAX, when }),
        clock: Some(ClockFault { ahead_ms: -(FAULT_CLOCK_MS_MAX as i64), when }),
    };
    list.check().expect("good");
    let bytes = postcard::to_stdvec(&(list, u64::MAX)).expect("in memory");
    assert!(bytes.len() < crate::limits::HEADER_BYTES_MAX - 100, "{} bytes", bytes.len());
}
