//! What is broken on purpose, as a table and as documents.

use std::time::{Duration, UNIX_EPOCH};

use atoll_client::NodeId;
use atoll_testnet::{
    Testnet,
    faults::{
        Place, Standing,
        links::{Plan, is_over},
    },
};
use atoll_wire::faults::{LinkFault, When};
use serde::Serialize;

use super::nodes::Broken;
use crate::output::{self, Format};

#[derive(Serialize)]
struct Listed {
    schema: &'static str,
    name: String,
    faults: Vec<Line>,
}

/// One fault of one node.
#[derive(Serialize)]
struct Line {
    from: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    fault: String,
    what: String,
    /// `now`, `later` (its time has not come, or comes again), or where the node does not run: when that takes effect.
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    since_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
}

/// `atoll testnet fault ls`.
pub fn ls(
    testnet: &Testnet,
    standing: &[Standing],
    expired: &[NodeId],
    now_ms: u64,
    format: Format,
) {
    let of_list = standing.iter().flat_map(|one| lines(one, now_ms));
    let faults: Vec<Line> = of_list.chain(expired.iter().copied().map(expired_line)).collect();
    match format {
        Format::Json => output::json(&Listed {
            schema: "atoll.testnet-faults/v1",
            name: testnet.name().to_owned(),
            faults,
        }),
        Format::Table if faults.is_empty() => anstream::eprintln!("nothing is broken on purpose"),
        Format::Table | Format::Plain => {
            let rows: Vec<Vec<String>> = faults.iter().map(|line| row(line, now_ms)).collect();
            let headings = ["FROM", "TO", "FAULT", "WHAT", "STATE", "SINCE", "UNTIL"];
            output::rows(format, &headings, &rows);
        }
    }
}

/// A certificate that has expired: for everybody, and until it is renewed.
fn expired_line(node: NodeId) -> Line {
    Line {
        from: node.to_string(),
        to: None,
        fault: "certificate".to_owned(),
        what: "expired".to_owned(),
        state: "now",
        since_ms: None,
        until_ms: None,
        every_ms: None,
    }
}

/// Everything on the list of one node that is not over.
fn lines(standing: &Standing, now_ms: u64) -> Vec<Line> {
    let Standing { node, list, place } = standing;
    let line = |to: Option<NodeId>, fault: &str, what: String, when: Option<When>| Line {
        from: node.to_string(),
        to: to.map(|to| to.to_string()),
        fault: fault.to_owned(),
        what,
        state: match place {
            Place::FileOfStopped => "when started",
            Place::FileOfPaused => "when resumed",
            // it reads its file: as good as told
            Place::InForce | Place::FileOfExpired if when.is_none_or(|when| when.is_at(now_ms)) => {
                "now"
            }
            Place::InForce | Place::FileOfExpired => "later",
        },
        since_ms: when.map(|when| when.from_ms),
        until_ms: when.and_then(|when| when.until_ms),
        every_ms: when.and_then(|when| when.every_ms),
    };
    let mut rules: Vec<&LinkFault> =
        list.links.iter().filter(|rule| !is_over(rule, now_ms)).collect();
    rules.sort_by_key(|rule| rule.peer);
    let links = rules.into_iter().map(|rule| {
        let name = if rule.name.is_empty() { "by hand" } else { &rule.name };
        line(Some(rule.peer), name, of_link(rule), rule.when)
    });
    let mut all: Vec<Line> = links.collect();
    if let Some(bytes) = list.free_bytes {
        all.push(line(None, "disk", format!("{bytes} bytes free"), list.free_bytes_when));
    }
    if let Some(disk) = &list.disk {
        all.push(line(None, "disk", format!("slower by {} ms", disk.slow_ms), disk.when));
    }
    if let Some(clock) = &list.clock {
        all.push(line(None, "clock", format!("ahead by {} ms", clock.ahead_ms), clock.when));
    }
    let step = |step: &atoll_wire::faults::Step| format!("{step:?}").to_lowercase();
    if !list.hold.is_empty() {
        let steps = list.hold.iter().map(step).collect::<Vec<_>>().join(", ");
        all.push(line(None, "hold", steps, None));
    }
    all
}

/// What happens on a link: `40 ms ± 10 ms, lost 5 %`.
fn of_link(rule: &LinkFault) -> String {
    let delay = rule.delay_ms.map(|delay| match rule.jitter_ms {
        Some(jitter) => format!("{delay} ms ± {jitter} ms"),
        None => format!("{delay} ms"),
    });
    let rate = |bits: u64| format!("{} kbit/s", bits / 1000);
    let all = [
        rule.cut.then(|| "cut".to_owned()),
        delay,
        rule.drop.map(|chance| format!("lost {chance}")),
        rule.duplicate.map(|chance| format!("twice {chance}")),
        rule.reorder.map(|chance| format!("overtaken {chance}")),
        rule.bandwidth_bits.map(rate),
    ];
    all.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn row(line: &Line, now_ms: u64) -> Vec<String> {
    let until = match (line.until_ms, line.every_ms) {
        (None, _) => "healed".to_owned(),
        (Some(until), None) => in_time(until, now_ms),
        (Some(_), Some(every)) => format!("again every {}", span(every)),
    };
    vec![
        line.from.clone(),
        line.to.clone().unwrap_or_else(|| "-".into()),
        line.fault.clone(),
        line.what.clone(),
        line.state.to_owned(),
        line.since_ms.map_or_else(|| "-".into(), clock_time),
        until,
    ]
}

fn in_time(until_ms: u64, now_ms: u64) -> String {
    format!("{} (in {})", clock_time(until_ms), span(until_ms.saturating_sub(now_ms)))
}

fn span(ms: u64) -> String {
    humantime::format_duration(Duration::from_millis(ms)).to_string()
}

/// A moment, in the one time zone that every machine knows: `2026-10-01T11:20:30Z`.
fn clock_time(ms: u64) -> String {
    UNIX_EPOCH
        .checked_add(Duration::from_millis(ms))
        .map_or_else(|| ms.to_string(), |at| humantime::format_rfc3339_seconds(at).to_string())
}

#[derive(Serialize)]
struct Changed {
    schema: &'static str,
    name: String,
    fault: String,
    /// Links that it is about, as many as there are rules.
    links: Vec<Link>,
    #[serde(skip_serializing_if = "Option::is_none")]
    until_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    every_ms: Option<u64>,
    nodes: Vec<Node>,
    next: String,
}

#[derive(Serialize)]
struct Link {
    from: String,
    to: String,
    what: String,
}

#[derive(Serialize)]
struct Node {
    node: String,
    takes_effect: &'static str,
}

/// What was just broken.
pub fn broken(
    testnet: &Testnet,
    fault: &str,
    told: &[Standing],
    plan: &Plan,
    when: Option<When>,
    format: Format,
) {
    let link = |(from, rule): (&NodeId, &LinkFault)| Link {
        from: from.to_string(),
        to: rule.peer.to_string(),
        what: of_link(rule),
    };
    let rules =
        plan.rules.iter().flat_map(|(from, rules)| rules.iter().map(move |rule| (from, rule)));
    let next = format!("atoll testnet heal --name {}", testnet.name());
    match format {
        Format::Json => output::json(&Changed {
            schema: "atoll.testnet-fault/v1",
            name: testnet.name().to_owned(),
            fault: fault.to_owned(),
            links: rules.map(link).collect(),
            until_ms: when.and_then(|when| when.until_ms),
            every_ms: when.and_then(|when| when.every_ms),
            nodes: nodes(told),
            next,
        }),
        Format::Table | Format::Plain => {
            anstream::eprintln!("  {fault}: {} links{}", rules.count(), lasting(when));
            say_nodes(told);
            anstream::eprintln!("next: atoll testnet fault ls; {next}");
        }
    }
}

/// What was just broken in nodes.
pub fn broken_nodes(testnet: &Testnet, broken: &Broken, told: &[Standing], format: Format) {
    let Broken { fault, what, when } = broken;
    let next = format!("atoll testnet heal --all --name {}", testnet.name());
    match format {
        Format::Json => output::json(&Changed {
            schema: "atoll.testnet-fault/v1",
            name: testnet.name().to_owned(),
            fault: format!("{fault}: {what}"),
            links: Vec::new(),
            until_ms: when.and_then(|when| when.until_ms),
            every_ms: when.and_then(|when| when.every_ms),
            nodes: nodes(told),
            next,
        }),
        Format::Table | Format::Plain => {
            anstream::eprintln!("  {fault}: {what}{}", lasting(*when));
            say_nodes(told);
            anstream::eprintln!("next: atoll testnet fault ls; {next}");
        }
    }
}

fn lasting(when: Option<When>) -> String {
    let Some(When { from_ms, until_ms: Some(until), every_ms }) = when else {
        return String::new();
    };
    let lasts = span(until - from_ms);
    match every_ms {
        None => format!(", for {lasts}"),
        Some(every) => format!(", for {lasts} each {}", span(every)),
    }
}

/// What was just healed.
pub fn healed(testnet: &Testnet, told: &[Standing], all: bool, format: Format) {
    match format {
        Format::Json => output::json(&Changed {
            schema: "atoll.testnet-fault/v1",
            name: testnet.name().to_owned(),
            fault: if all { "heal --all" } else { "heal" }.to_owned(),
            links: Vec::new(),
            until_ms: None,
            every_ms: None,
            nodes: nodes(told),
            next: "atoll testnet fault ls".into(),
        }),
        Format::Table | Format::Plain if told.is_empty() => {
            anstream::eprintln!("  nothing was broken");
        }
        Format::Table | Format::Plain => {
            anstream::eprintln!("  healed");
            say_nodes(told);
        }
    }
}

fn nodes(told: &[Standing]) -> Vec<Node> {
    let node = |standing: &Standing| Node {
        node: standing.node.to_string(),
        takes_effect: takes_effect(standing.place),
    };
    told.iter().map(node).collect()
}

fn takes_effect(place: Place) -> &'static str {
    match place {
        Place::InForce => "now",
        Place::FileOfStopped => "when started",
        Place::FileOfPaused => "when resumed",
        Place::FileOfExpired => "within a second",
    }
}

/// Where it is in force, and where it will be.
fn say_nodes(told: &[Standing]) {
    for place in [Place::InForce, Place::FileOfExpired, Place::FileOfStopped, Place::FileOfPaused] {
        let there = told.iter().filter(|standing| standing.place == place);
        let names: Vec<String> = there.map(|standing| standing.node.to_string()).collect();
        if names.is_empty() {
            continue;
        }
        let says = match place {
            Place::InForce => "in force on",
            Place::FileOfStopped => "not running, takes effect when started:",
            Place::FileOfPaused => "paused, takes effect when resumed:",
            Place::FileOfExpired => {
                "its certificate has expired, it reads its file within a second:"
            }
        };
        anstream::eprintln!("  {says} {}", names.join(", "));
    }
}
