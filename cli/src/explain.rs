//! `atoll explain`: what would happen to a request, and why.
//!
//! One node answers from what it knows: the view, who is there, what it has measured. Nothing is sent to the data, so this
//! works while owners are away, and says so.

use std::time::Duration;

use atoll_client::{
    Expected, Explained, Explanation, Health, Loss, Measured, NodeId, Options, Replica,
};
use atoll_ring::Quorum;
use clap::Args as ClapArgs;
use serde::Serialize;

use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    receipt::{self, Asked},
    request::{QuorumFlags, connect},
};

/// What would happen to a request about a key, and why.
///
/// Shows where the key lies, its owners and how they are, who would stand in for them, whether the settings are strict or
/// eventual and why, how many nodes may fail, and how long a read and a write should take. Nothing is sent to the data.
#[derive(ClapArgs)]
#[command(after_help = "\
Examples:
  atoll explain cart:7
  atoll explain cart:7 -r 1 -w all        is that strict? what if a node fails?
  atoll explain cart:7 --strict --via n3  as n3 sees it

Times are upper edges (a quarter too long at most) of what the node that answers has seen lately, when it coordinated
itself: ask an owner that has had traffic. `fetch` is from the question for a copy to the answer, `fsync` from the sending
of a change to the acknowledgement that it is on stable storage; a node's own is its commit.")]
pub struct Args {
    /// The key; it need not exist
    key: String,

    #[command(flatten)]
    quorum: QuorumFlags,

    /// The bucket
    #[arg(long, value_name = "NAME", default_value = "default")]
    bucket: String,

    /// The node that shall answer, such as n3 [default: an owner of the key]
    #[arg(long, value_name = "NODE")]
    via: Option<NodeId>,

    /// For the answer
    #[arg(long, value_name = "DURATION", default_value = "1s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    key: String,
    node: String,
    epoch: u64,
    token: String,
    partition: u16,
    changed_in: u64,
    settings: Settings,
    consistency: &'static str,
    why: String,
    may_fail: MayFail,
    expected: ExpectedDocument,
    replicas: Vec<ReplicaDocument>,
    took_ms: f64,
}

#[derive(Serialize)]
struct Settings {
    n: u8,
    r: u8,
    w: u8,
    pr: u8,
    pw: u8,
    dw: u8,
    sloppy: bool,
}

/// Null: it cannot be met even now.
#[derive(Serialize)]
struct MayFail {
    read: Option<u8>,
    write: Option<u8>,
    without_loss: u8,
    without_loss_and_power: Option<u8>,
}

/// Null: not measured yet.
#[derive(Serialize)]
struct ExpectedDocument {
    read: Option<Time>,
    write: Option<Time>,
}

#[derive(Serialize)]
struct Time {
    p50_ms: f64,
    p99_ms: f64,
    samples: u32,
}

#[derive(Serialize)]
struct ReplicaDocument {
    node: String,
    zone: String,
    role: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ping_ms: Option<f64>,
    fetch: Option<Time>,
    written: Option<Time>,
    fsynced: Option<Time>,
}

/// Runs the command.
pub async fn run(args: Args, cluster: Option<&str>, format: Format) -> Result<(), Failed> {
    let quorum = args.quorum.request();
    Quorum::check(&quorum).map_err(|error| Failed::new(Exit::Refused, error.to_string()))?;
    let (bucket, timeout, via) = (args.bucket, args.timeout, args.via);
    let options =
        Options { bucket: Some(bucket), quorum, timeout: Some(timeout), via, ..Options::default() };
    let client = connect(cluster).await?;
    let explained = client.explain(args.key.as_bytes(), &options).await;
    client.close().await;
    let explained = explained.map_err(|error| receipt::failure(Asked::Read, &error))?;
    match format {
        Format::Json => output::json(&document(args.key, &explained)),
        Format::Table | Format::Plain => show(&args.key, &explained, format),
    }
    Ok(())
}

fn document(key: String, explanation: &Explanation) -> Document {
    let known = &explanation.known;
    let (quorum, tolerance, consistency) = (&known.quorum, known.tolerance(), known.consistency());
    let replica = |replica: &Replica| ReplicaDocument {
        node: NodeId(replica.node).to_string(),
        zone: replica.zone.clone(),
        role: role(known, replica.node),
        state: replica.health.word(),
        reason: match &replica.health {
            Health::Down(why) => Some(why.clone()),
            Health::Up | Health::Unknown | Health::Silent | Health::InDoubt => None,
        },
        ping_ms: (replica.round_trip_micros > 0).then(|| ms(replica.round_trip_micros)),
        fetch: replica.fetch.map(time),
        written: replica.written.map(time),
        fsynced: replica.durable.map(time),
    };
    Document {
        schema: "atoll.explain/v1",
        key,
        node: NodeId(known.node).to_string(),
        epoch: explanation.epoch.0,
        token: format!("{:016x}", known.token),
        partition: known.partition,
        changed_in: known.changed_in,
        settings: Settings {
            n: quorum.n(),
            r: quorum.r(),
            w: quorum.w(),
            pr: quorum.pr(),
            pw: quorum.pw(),
            dw: quorum.dw(),
            sloppy: quorum.sloppy(),
        },
        consistency: consistency.word(),
        why: consistency.to_string(),
        may_fail: MayFail {
            read: tolerance.read,
            write: tolerance.write,
            without_loss: tolerance.loss.running,
            without_loss_and_power: tolerance.loss.without_power,
        },
        expected: ExpectedDocument {
            read: known.expected_read().map(expected),
            write: known.expected_write().map(expected),
        },
        replicas: known.places.iter().map(replica).collect(),
        took_ms: explanation.took.as_secs_f64() * 1000.0,
    }
}

fn show(key: &str, explanation: &Explanation, format: Format) {
    let known = &explanation.known;
    let row = |replica: &Replica| {
        let state = match &replica.health {
            Health::Down(why) => format!("down: {why}"),
            other => other.word().to_owned(),
        };
        let ping = match replica.round_trip_micros {
            0 => "-".to_owned(),
            micros => format!("{:.1} ms", ms(micros)),
        };
        vec![
            NodeId(replica.node).to_string(),
            replica.zone.clone(),
            role(known, replica.node),
            ping,
            both(replica.fetch),
            both(replica.durable),
            state,
        ]
    };
    let rows: Vec<Vec<String>> = known.places.iter().map(row).collect();
    let headings = ["NODE", "ZONE", "ROLE", "PING", "FETCH p50 / p99", "FSYNC p50 / p99", "STATE"];
    if format == Format::Plain {
        output::rows(format, &headings, &rows);
        sentences(known).iter().for_each(|[what, says]| anstream::println!("{what}\t{says}"));
        return;
    }
    anstream::println!(
        "`{key}` lies in partition {} (token {:016x}); epoch {}, as {} sees it\n",
        known.partition,
        known.token,
        explanation.epoch,
        NodeId(known.node)
    );
    output::rows(format, &headings, &rows);
    anstream::println!();
    for [what, says] in sentences(known) {
        anstream::println!("{what:<15} {says}");
    }
    let took = explanation.took.as_secs_f64() * 1000.0;
    anstream::eprintln!("\x1b[2manswered in {took:.1} ms\x1b[0m");
}

/// What follows from the facts, each with its name.
fn sentences(known: &Explained) -> Vec<[String; 2]> {
    let (quorum, tolerance, consistency) = (&known.quorum, known.tolerance(), known.consistency());
    let mode = match quorum.sloppy() {
        true => format!("sloppy, pr {}, pw {}", quorum.pr(), quorum.pw()),
        false => "strict, owners only".into(),
    };
    let settings = format!(
        "n {} of {}, r {}, w {}, dw {}, {mode}",
        quorum.n(),
        known.bucket_n,
        quorum.r(),
        quorum.w(),
        quorum.dw()
    );
    let moving = known.joining.as_ref().map(|_| {
        "the partition is moving: each quorum is needed among its old owners and among its new ones"
    });
    let reads = match (tolerance.read, quorum.sloppy()) {
        (Some(count), false) => format!("{} may fail", any(count)),
        (Some(count), true) => {
            format!("{} may fail; more, for keys of which fallbacks hold hints", any(count))
        }
        (None, false) => "too few owners are there now".into(),
        (None, true) => {
            "too few owners are there now; answered only for keys of which fallbacks hold hints"
                .into()
        }
    };
    let writes = match tolerance.write {
        Some(count) => format!("{} may fail", any(count)),
        None => "too few nodes are there now".into(),
    };
    let time = |expected: Option<Expected>, needed: u8| match expected {
        Some(Expected { p50_micros, p99_micros, samples }) => format!(
            "{:.1} ms, 1 of 100 takes {:.1} ms (as {} sees it, {samples} answers)",
            ms(p50_micros),
            ms(p99_micros),
            NodeId(known.node)
        ),
        None => format!(
            "not measured yet: {} needed, and {} has had answers of fewer that are up",
            if needed == 1 { "an owner is".into() } else { format!("{needed} owners are") },
            NodeId(known.node)
        ),
    };
    let mut all = vec![["settings".into(), settings]];
    all.extend(moving.map(|says| ["moving".into(), says.into()]));
    all.extend([
        [consistency.word().into(), consistency.to_string()],
        ["reads".into(), reads],
        ["writes".into(), writes],
        ["kept".into(), kept(tolerance.loss)],
        ["a read takes".into(), time(known.expected_read(), quorum.r())],
        ["a write takes".into(), time(known.expected_write(), quorum.w())],
    ]);
    all
}

/// What an acknowledged write survives.
fn kept(loss: Loss) -> String {
    let lost = |count| match count {
        0 => "no node".to_owned(),
        1 => "any 1 node".to_owned(),
        count => format!("any {count} nodes"),
    };
    let running = lost(loss.running);
    if (loss.running, loss.without_power) == (0, Some(0)) {
        return "an acknowledged write may be on one disk only: if that is lost, so is the write; a power failure does no harm"
            .into();
    }
    match loss.without_power {
        Some(same) if same == loss.running => format!(
            "{running} may be lost for good, disk and all, without the loss of an acknowledged write, even if all others lose power"
        ),
        Some(fewer) => format!(
            "{running} may be lost for good, disk and all, without the loss of an acknowledged write; {} if all others lose power",
            lost(fewer)
        ),
        None => format!(
            "{running} may be lost for good while the others run; a power failure everywhere loses what was just acknowledged (dw 0)"
        ),
    }
}

fn any(count: u8) -> String {
    match count {
        0 => "no further node".into(),
        1 => "any 1 node".into(),
        count => format!("any {count} nodes"),
    }
}

/// What a node is for the key: `owner 2`, `owner 3, leaves`, `joins as owner 3`, `fallback 1`.
fn role(known: &Explained, node: u32) -> String {
    let at = |nodes: &[u32]| nodes.iter().position(|other| *other == node).map(|index| index + 1);
    let joins = known.joining.as_deref().map(at);
    match (at(&known.owners), joins, at(&known.fallbacks)) {
        (Some(number), Some(None), _) => format!("owner {number}, leaves"),
        (Some(number), _, _) => format!("owner {number}"),
        (None, Some(Some(number)), _) => format!("joins as owner {number}"),
        (None, _, Some(number)) => format!("fallback {number}"),
        (None, _, None) => "none".into(),
    }
}

fn both(measured: Option<Measured>) -> String {
    match measured {
        Some(it) => format!("{:.1} / {:.1} ms", ms(it.p50_micros), ms(it.p99_micros)),
        None => "-".into(),
    }
}

fn time(measured: Measured) -> Time {
    let Measured { p50_micros, p99_micros, samples } = measured;
    Time { p50_ms: ms(p50_micros), p99_ms: ms(p99_micros), samples }
}

fn expected(expected: Expected) -> Time {
    let Expected { p50_micros, p99_micros, samples } = expected;
    Time { p50_ms: ms(p50_micros), p99_ms: ms(p99_micros), samples }
}

fn ms(micros: u32) -> f64 {
    f64::from(micros) / 1000.0
}

#[cfg(test)]
mod tests {
    use atoll_client::QuorumRequest;

    use super::*;

    fn known(settings: &QuorumRequest, joining: Option<Vec<u32>>) -> Explained {
        let place = |node| Replica {
            node,
            zone: "z".into(),
            health: if node == 3 { Health::Down("killed".into()) } else { Health::Up },
            round_trip_micros: 300,
            fetch: (node < 3).then_some(Measured { p50_micros: 400, p99_micros: 1600, samples: 9 }),
            written: None,
            durable: None,
        };
        Explained {
            node: 1,
            token: 1,
            partition: 2,
            changed_in: 3,
            quorum: Quorum::new(settings, 3).expect("a quorum"),
            bucket_n: 3,
            owners: vec![1, 2, 3],
            joining,
            fallbacks: vec![5],
            places: [1, 2, 3, 4, 5].map(place).to_vec(),
        }
    }

    fn says(known: &Explained) -> Vec<(String, String)> {
        sentences(known).into_iter().map(|[what, says]| (what, says)).collect()
    }

    /// Each sentence with a node down and the defaults: sloppy, so eventual, and the reads may miss one node less.
    #[test]
    fn sentences_of_the_defaults() {
        let said = says(&known(&QuorumRequest::default(), None));
        let said: Vec<(&str, &str)> =
            said.iter().map(|(what, says)| (what.as_str(), says.as_str())).collect();
        assert_eq!(said[0], ("settings", "n 3 of 3, r 2, w 2, dw 2, sloppy, pr 0, pw 0"));
        assert!(said[1].0 == "eventual" && said[1].1.contains("--strict"));
        let reads = "no further node may fail; more, for keys of which fallbacks hold hints";
        assert_eq!(said[2], ("reads", reads));
        assert_eq!(said[3], ("writes", "any 1 node may fail"));
        assert!(said[4].1.starts_with("any 1 node may be lost for good"));
        assert_eq!(
            said[5],
            ("a read takes", "0.4 ms, 1 of 100 takes 1.6 ms (as n1 sees it, 18 answers)")
        );
        assert!(said[6].1.starts_with("not measured yet"));
    }

    /// While a partition moves that is said first, and each node's part in it.
    #[test]
    fn sentences_of_a_move() {
        let strict = QuorumRequest { sloppy: Some(false), ..QuorumRequest::default() };
        let known = known(&strict, Some(vec![1, 2, 4]));
        let said = says(&known);
        assert_eq!(said[1].0, "moving");
        assert_eq!(said[2].0, "strict");
        let roles: Vec<String> = [1, 2, 3, 4, 5].map(|node| role(&known, node)).to_vec();
        assert_eq!(
            roles,
            ["owner 1", "owner 2", "owner 3, leaves", "joins as owner 3", "fallback 1"]
        );
    }
}
