//! `atoll testnet status`: one line per node, once or every second.
//!
//! What a look means is decided by `atoll_testnet`; here it gets words, colours and a document.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    time::Duration,
};

use atoll_client::NodeId;
use atoll_testnet::{ANSWER_LIMIT, Flaw, Home, Look, Lookout, Net, NodeReport, State, Testnet};
use clap::Args;
use comfy_table::Color;
use serde::Serialize;
use tokio::time::{MissedTickBehavior, interval};

use super::{Named, say::failed_open};
use crate::{
    exit::{Exit, Failed},
    output::{self, Format, Shown},
};

/// Which testnet, and how often.
#[derive(Args, Debug)]
#[command(after_help = "\
RING %      part of all copies that the node owns
KEYS        records it holds, deleted ones included
HINTS       writes it keeps for others
REPAIR LAG  how long ago the partition compared least lately was found equal with another owner
NET         ok, slow (a round trip of 20 ms or more) or cut, and from whom; between nodes that are ready

Exits 0 if all nodes are ready, none is cut off from another, in doubt or read-only; else 5.
`atoll testnet status` shows the processes on this machine, `atoll status` how each node is,
`atoll cluster status` who is a member and what moves, `atoll testnet watch` all of it as it changes.")]
pub struct StatusArgs {
    /// Look again every second until Ctrl-C
    #[arg(long)]
    watch: bool,

    #[command(flatten)]
    testnet: Named,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    name: String,
    directory: PathBuf,
    profile: PathBuf,
    /// All nodes serve.
    ready: bool,
    /// And nothing else is wrong: what the exit code says.
    healthy: bool,
    nodes: Vec<NodeDocument>,
}

/// A node in JSON. What only the node itself can tell is absent unless it answers.
#[derive(Serialize)]
pub struct NodeDocument {
    node: String,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    address: String,
    zone: String,
    log: PathBuf,
    /// Part of all copies that it owns, 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    ring_share: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    net: Option<NetDocument>,
    #[serde(flatten)]
    told: Option<Told>,
}

#[derive(Serialize)]
struct NetDocument {
    state: &'static str,
    cut_from: Vec<String>,
    slow: Vec<SlowDocument>,
}

#[derive(Serialize)]
struct SlowDocument {
    node: String,
    round_trip_ms: f64,
}

#[derive(Serialize)]
struct Told {
    epoch: u64,
    keys: u64,
    hints: u64,
    incarnation: u32,
    /// What it waits for before it serves.
    #[serde(skip_serializing_if = "String::is_empty")]
    rising: String,
    partitions_in_doubt: u32,
    keys_in_doubt: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    read_only: String,
    /// None = some partition was not compared since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    compared_ms_ago: Option<u64>,
    uptime_ms: u64,
    resident_bytes: u64,
}

/// Runs the command.
pub async fn run(args: StatusArgs, home: &Home, format: Format) -> Result<(), Failed> {
    let testnet = args.testnet.open(home)?;
    let mut lookout = Lookout::of(testnet);
    if args.watch {
        return watch(&mut lookout, format).await;
    }
    let look = lookout.look(ANSWER_LIMIT).await.map_err(failed_open)?;
    anstream::print!("{}", text(lookout.testnet(), &look, format));
    if look.is_healthy() { Ok(()) } else { Err(Failed::silent(Exit::Degraded)) }
}

/// Looks every second. On a terminal each table takes the place of the one before. Ends with Ctrl-C, with the testnet, or when
/// nobody reads any more.
async fn watch(lookout: &mut Lookout, format: Format) -> Result<(), Failed> {
    let redraws = format == Format::Table && io::stdout().is_terminal();
    let mut seconds = interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_first = true;
    loop {
        seconds.tick().await;
        let look = lookout.look(ANSWER_LIMIT).await.map_err(failed_open)?;
        let mut shown = text(lookout.testnet(), &look, format);
        if redraws {
            let mood = if look.is_healthy() { "healthy" } else { "degraded" };
            shown.push_str(&format!("\n{mood}; every second until Ctrl-C\n"));
        } else if format == Format::Table && !is_first {
            shown.insert(0, '\n');
        }
        if show(&shown, redraws).is_err() {
            return Ok(());
        }
        is_first = false;
    }
}

/// Writes a table, in the place of what the screen shows. Moving the cursor is no colour: it is done under `NO_COLOR` too.
fn show(text: &str, redraws: bool) -> io::Result<()> {
    if redraws {
        io::stdout().write_all(b"\x1b[H\x1b[J")?;
    }
    let mut out = anstream::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn text(testnet: &Testnet, look: &Look, format: Format) -> String {
    match format {
        Format::Json => output::json_text(&Document {
            schema: "atoll.testnet-status/v1",
            name: testnet.name().to_owned(),
            directory: testnet.folder().to_owned(),
            profile: testnet.profile(),
            ready: look.reports.iter().all(|report| report.state == State::Ready),
            healthy: look.is_healthy(),
            nodes: documents(look),
        }),
        Format::Table | Format::Plain => table(look, format),
    }
}

/// The table of nodes.
pub fn table(look: &Look, format: Format) -> String {
    let rows: Vec<Vec<Shown>> = look.reports.iter().map(|report| row(look, report)).collect();
    let headings = [
        "NODE",
        "STATE",
        "ADDRESS",
        "ZONE",
        "RING %",
        "KEYS",
        "HINTS",
        "REPAIR LAG",
        "NET",
        "EPOCH",
        "UPTIME",
        "RSS",
    ];
    output::coloured(format, &headings, rows)
}

fn row(look: &Look, report: &NodeReport) -> Vec<Shown> {
    let node = &report.node;
    let (state, tone) = state(look, report);
    let mut row = vec![
        node.id.to_string().into(),
        tone.says(state),
        node.address.to_string().into(),
        node.zone.clone().into(),
        look.share(node.id).map_or("-".into(), |share| format!("{:.1}", share * 100.0)).into(),
    ];
    let Some(status) = &report.status else {
        row.extend((0..7).map(|_| "-".into()));
        return row;
    };
    row.extend([
        status.keys.to_string().into(),
        match status.hints {
            0 => "0".into(),
            hints => Tone::Fair.says(hints.to_string()),
        },
        lag(status.compared_ms_ago).into(),
        look.net(node.id).map_or("-".into(), |net| {
            let (words, tone) = connections(&net);
            tone.says(words)
        }),
        status.epoch.to_string().into(),
        humantime::format_duration(Duration::from_secs(status.uptime_ms / 1000)).to_string().into(),
        format!("{} MiB", status.resident_bytes.div_ceil(1 << 20)).into(),
    ]);
    row
}

/// How good it is what a word says; the same colours in the table and on the screen of `watch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Not quite.
    Fair,
    /// Broken.
    Bad,
    /// Not of interest now.
    Quiet,
}

impl Tone {
    fn colour(self) -> Color {
        match self {
            Tone::Good => Color::Green,
            Tone::Fair => Color::Yellow,
            Tone::Bad => Color::Red,
            Tone::Quiet => Color::DarkGrey,
        }
    }

    fn says(self, words: String) -> Shown {
        Shown::of(words, Some(self.colour()))
    }
}

/// The state of a node in words, behind a symbol for whoever sees no colour.
pub fn state(look: &Look, report: &NodeReport) -> (String, Tone) {
    let flaws = look.flaws(report);
    let mut words = format!("{} {}", symbol(report.state), report.state.word());
    for flaw in &flaws {
        match flaw {
            Flaw::InDoubt => words.push_str(", in doubt"),
            Flaw::ReadOnly => words.push_str(", read-only"),
            Flaw::NotReady | Flaw::Cut => {} // said by the state itself, and under NET
        }
    }
    let tone = match report.state {
        State::Ready if flaws.is_empty() || flaws == [Flaw::Cut] => Tone::Good,
        State::Ready | State::Starting | State::Paused => Tone::Fair,
        State::Stopped => Tone::Quiet,
        State::Dead => Tone::Bad,
    };
    (words, tone)
}

fn symbol(state: State) -> char {
    match state {
        State::Ready => '●',
        State::Starting => '◐',
        State::Paused => '‖',
        State::Stopped => '○',
        State::Dead => '✗',
    }
}

/// How long ago, in full seconds, rounded up: what is promised holds.
pub fn lag(compared_ms_ago: u64) -> String {
    match compared_ms_ago {
        u64::MAX => "not yet".into(),
        ms => format!("{} s", ms.div_ceil(1000)),
    }
}

/// How a node is connected, in words.
pub fn connections(net: &Net) -> (String, Tone) {
    let cut = net.cut.iter().map(NodeId::to_string).collect::<Vec<_>>().join(", ");
    let slow = match net.slow.iter().map(|(_, micros)| micros / 1000).max() {
        Some(most) if net.slow.len() > 1 && net.slow.len() == net.connected => {
            format!("all, up to {most} ms")
        }
        _ => {
            let each = net.slow.iter().map(|(node, micros)| format!("{node} {} ms", micros / 1000));
            each.collect::<Vec<_>>().join(", ")
        }
    };
    match (cut.is_empty(), slow.is_empty()) {
        (true, true) => ("ok".into(), Tone::Good),
        (true, false) => (format!("slow to {slow}"), Tone::Fair),
        (false, _) if net.connected == 0 => ("cut from all".into(), Tone::Bad),
        (false, true) => (format!("cut from {cut}"), Tone::Bad),
        (false, false) => (format!("cut from {cut}; slow to {slow}"), Tone::Bad),
    }
}

/// The nodes in JSON.
pub fn documents(look: &Look) -> Vec<NodeDocument> {
    let document = |report: &NodeReport| NodeDocument {
        node: report.node.id.to_string(),
        state: report.state.word(),
        pid: report.pid,
        address: report.node.address.to_string(),
        zone: report.node.zone.clone(),
        log: report.node.log(),
        ring_share: look.share(report.node.id),
        net: look.net(report.node.id).as_ref().map(NetDocument::of),
        told: report.status.as_ref().map(|status| Told {
            epoch: status.epoch,
            keys: status.keys,
            hints: status.hints,
            incarnation: status.incarnation,
            rising: status.rising.clone(),
            partitions_in_doubt: status.partitions_in_doubt,
            keys_in_doubt: status.keys_in_doubt,
            read_only: status.read_only.clone(),
            compared_ms_ago: Some(status.compared_ms_ago).filter(|ms| *ms != u64::MAX),
            uptime_ms: status.uptime_ms,
            resident_bytes: status.resident_bytes,
        }),
    };
    look.reports.iter().map(document).collect()
}

impl NetDocument {
    fn of(net: &Net) -> Self {
        let slow = |(node, micros): &(NodeId, u32)| SlowDocument {
            node: node.to_string(),
            round_trip_ms: f64::from(*micros) / 1000.0,
        };
        NetDocument {
            state: match (net.cut.is_empty(), net.slow.is_empty()) {
                (false, _) => "cut",
                (true, false) => "slow",
                (true, true) => "ok",
            },
            cut_from: net.cut.iter().map(ToString::to_string).collect(),
            slow: net.slow.iter().map(slow).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each way to be connected in words, and how loud it is said.
    #[test]
    fn net_in_words() {
        let two = || vec![NodeId(2), NodeId(4)];
        let slow = || vec![(NodeId(3), 41_700)];
        let cases = [
            (Net { connected: 4, ..Net::default() }, "ok", Tone::Good),
            (Net { slow: slow(), connected: 4, ..Net::default() }, "slow to n3 41 ms", Tone::Fair),
            (
                Net {
                    slow: vec![(NodeId(2), 70_000), (NodeId(3), 99_900)],
                    cut: vec![],
                    connected: 2,
                },
                "slow to all, up to 99 ms",
                Tone::Fair,
            ),
            (Net { cut: two(), connected: 2, ..Net::default() }, "cut from n2, n4", Tone::Bad),
            (Net { cut: two(), ..Net::default() }, "cut from all", Tone::Bad),
            (
                Net { cut: two(), slow: slow(), connected: 2 },
                "cut from n2, n4; slow to n3 41 ms",
                Tone::Bad,
            ),
        ];
        for (net, words, tone) in cases {
            assert_eq!(connections(&net), (words.to_owned(), tone));
        }
    }

    /// A lag is never said to be shorter than it is, and one that was never measured is none.
    #[test]
    fn lags() {
        let said = [0, 1, 1000, 1001, u64::MAX].map(lag);
        assert_eq!(said, ["0 s", "1 s", "1 s", "2 s", "not yet"]);
    }
}
