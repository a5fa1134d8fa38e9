//! `atoll testnet fault`: links between nodes are broken on purpose, listed, and healed.
//!
//! This file is what can be typed and what is done; [`words`] reads delays, chances and rates, [`table`] prints. What a wish
//! means for each node, and how nodes are told, is `atoll_testnet::faults`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use atoll_client::NodeId;
use atoll_testnet::{
    FaultError, Home, LinkWish, Testnet,
    faults::{self, Shape, Standing, Way, WishError, links},
};
use atoll_transport::chance::Chance as Draws;
use atoll_wire::{
    FaultList,
    faults::{LinkFault, When},
};
use clap::{Args, Subcommand, ValueEnum};

use super::{
    Named, launcher,
    say::{failed_file, failed_open},
    which,
};
use crate::{
    exit::{Exit, Failed},
    output::Format,
};

mod nodes;
mod table;
mod words;

use words::{Bits, Delay, Group, Odds, Span};

/// Break links between nodes, disks, clocks and certificates, on purpose
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  atoll testnet up --allow-faults                    only such a testnet can be broken
  atoll testnet fault partition n1,n2 n3,n4,n5       two sides that do not hear each other
  atoll testnet fault isolate n1 --oneway out        n1 hears everybody and nobody hears n1
  atoll testnet fault minority --for 30s             heals by itself
  atoll testnet fault slow n1 n2 40ms±10ms           +- is as good as ±; one node: all its links
  atoll testnet fault flaky 5% --for 5s --every 20s  five bad seconds, each twenty
  atoll testnet fault disk slow n2 200ms             each fsync; or: disk full n2
  atoll testnet fault clock n1 +1h                   or -5m
  atoll testnet fault certs expire n1                and no new connection is accepted
  atoll testnet fault ls
  atoll testnet heal                                 links; heal --all: disks, clocks and certificates too

Only what nodes send to nodes is touched; clients reach every node as before. Each node keeps its faults and their
times by itself, over restarts too. A later cut replaces all earlier ones, a later slow, flaky and so on the one
of the same links; different faults of a link add up.")]
pub enum FaultCommand {
    /// Groups of nodes that do not hear each other; nodes that are not named are one group more
    Partition {
        /// Nodes of one side, such as n1,n2 or zone:z1 or minority
        #[arg(value_name = "NODES", required = true)]
        groups: Vec<Group>,
        #[command(flatten)]
        how: How,
    },
    /// A node that nobody hears and that hears nobody
    Isolate {
        /// The node
        node: NodeId,
        /// Only what is sent to it is lost (in), or only what it sends (out)
        #[arg(long, value_name = "WAY")]
        oneway: Option<OneWay>,
        #[command(flatten)]
        how: How,
    },
    /// Each node hears a majority, and no two hear the same; four nodes or more
    Ring(How),
    /// The first half of the nodes and the rest
    Half(How),
    /// Two halves, and one node between that hears both
    Bridge(How),
    /// Fewer than a third of the nodes, and at least one, are cut off
    Minority(How),
    /// What nodes send to each other arrives later
    Slow {
        /// One node (all its links) or two (the link between them), then the delay each way: n1 n2 40ms±10ms
        #[arg(value_name = "[NODE [NODE]] DELAY", required = true, num_args = 1..=3)]
        words: Vec<String>,
        #[command(flatten)]
        how: How,
    },
    /// Datagrams are lost, arrive twice, and are overtaken, each with this chance
    Flaky(Chancy),
    /// Datagrams are lost with this chance
    Drop(Chancy),
    /// Datagrams arrive twice with this chance
    Duplicate(Chancy),
    /// Datagrams are overtaken by those behind them with this chance
    Reorder(Chancy),
    /// So many bits pass each second, each way; what waits too long for its turn is lost
    Rate {
        /// Such as 1mbit, 200kbit
        #[arg(value_name = "RATE")]
        rate: Bits,
        /// One node: all its links; two: the link between them [default: all links]
        #[arg(value_name = "NODE", num_args = 0..=2)]
        between: Vec<NodeId>,
        #[command(flatten)]
        how: How,
    },
    /// The latencies of three regions: zones if there are three, else nodes in turn; all nodes must be ready
    Wan3(How),
    /// A disk is full or slow
    #[command(subcommand)]
    Disk(nodes::DiskCommand),
    /// The wall clock of a node is off
    Clock(nodes::ClockArgs),
    /// Certificates expire, and are renewed
    #[command(subcommand)]
    Certs(nodes::CertsCommand),
    /// What is broken on purpose
    Ls(Named),
    /// Take the faults of all links away
    Heal(HealArgs),
}

/// A chance and where it applies.
#[derive(Args, Debug)]
pub struct Chancy {
    /// Such as 5% or 0.05
    #[arg(value_name = "CHANCE")]
    chance: Odds,
    /// One node: all its links; two: the link between them [default: all links]
    #[arg(value_name = "NODE", num_args = 0..=2)]
    between: Vec<NodeId>,
    #[command(flatten)]
    how: How,
}

/// For how long, and which testnet.
#[derive(Args, Debug)]
pub struct How {
    /// Heal by itself after so long
    #[arg(long = "for", value_name = "TIME")]
    lasts: Option<Span>,
    /// Begin anew each time so much has passed
    #[arg(long, value_name = "TIME", requires = "lasts")]
    every: Option<Span>,
    /// Where chance comes from; ring, half, bridge and minority draw who stands where
    #[arg(long, value_name = "SEED")]
    seed: Option<u32>,
    #[command(flatten)]
    testnet: Named,
}

/// What to take away.
#[derive(Args, Debug)]
pub struct HealArgs {
    /// Everything that is broken on purpose: disks, clocks and certificates too
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    testnet: Named,
}

/// One direction.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum OneWay {
    /// What is sent to the node is lost.
    In,
    /// What the node sends is lost.
    Out,
}

/// Runs the command.
pub async fn run(home: &Home, command: FaultCommand, format: Format) -> Result<(), Failed> {
    match command {
        FaultCommand::Partition { groups, how } => {
            let testnet = how.testnet.open(home)?;
            let mut sides = Vec::new();
            for Group(words) in groups {
                let nodes = match words {
                    None => Vec::new(),
                    Some(words) => which::choose_words(&testnet, vec![words]).await?,
                };
                sides.push(nodes.iter().map(|node| node.id).collect());
            }
            break_links(home, LinkWish::Partition(sides), "partition", &how, format).await
        }
        FaultCommand::Isolate { node, oneway, how } => {
            let way = oneway.map(|way| match way {
                OneWay::In => Way::In,
                OneWay::Out => Way::Out,
            });
            break_links(home, LinkWish::Isolate(node, way), "isolate", &how, format).await
        }
        FaultCommand::Ring(how) => shape(home, Shape::Ring, &how, format).await,
        FaultCommand::Half(how) => shape(home, Shape::Half, &how, format).await,
        FaultCommand::Bridge(how) => shape(home, Shape::Bridge, &how, format).await,
        FaultCommand::Minority(how) => shape(home, Shape::Minority, &how, format).await,
        FaultCommand::Slow { words, how } => {
            let (delay, between) = slow_words(&words)?;
            let fault = LinkFault {
                delay_ms: Some(delay.delay_ms),
                jitter_ms: (delay.jitter_ms > 0).then_some(delay.jitter_ms),
                ..nothing()
            };
            bad(home, "slow", fault, between, &how, format).await
        }
        FaultCommand::Flaky(Chancy { chance, between, how }) => {
            bad(home, "flaky", links::flaky(chance.0), between, &how, format).await
        }
        FaultCommand::Drop(Chancy { chance, between, how }) => {
            let fault = LinkFault { drop: Some(chance.0), ..nothing() };
            bad(home, "drop", fault, between, &how, format).await
        }
        FaultCommand::Duplicate(Chancy { chance, between, how }) => {
            let fault = LinkFault { duplicate: Some(chance.0), ..nothing() };
            bad(home, "duplicate", fault, between, &how, format).await
        }
        FaultCommand::Reorder(Chancy { chance, between, how }) => {
            let fault = LinkFault { reorder: Some(chance.0), ..nothing() };
            bad(home, "reorder", fault, between, &how, format).await
        }
        FaultCommand::Rate { rate, between, how } => {
            let fault = LinkFault { bandwidth_bits: Some(rate.0), ..nothing() };
            bad(home, "rate", fault, between, &how, format).await
        }
        FaultCommand::Wan3(how) => {
            all_ready(&how.testnet.open(home)?).await?;
            break_links(home, LinkWish::Wan3, "wan3", &how, format).await
        }
        FaultCommand::Disk(command) => nodes::disk(home, command, format).await,
        FaultCommand::Clock(args) => nodes::clock(home, args, format).await,
        FaultCommand::Certs(command) => nodes::certs(home, command, format).await,
        FaultCommand::Ls(named) => ls(&named.open(home)?, format).await,
        FaultCommand::Heal(args) => heal(home, &args, format).await,
    }
}

/// Takes the faults of links away, or all.
pub async fn heal(home: &Home, args: &HealArgs, format: Format) -> Result<(), Failed> {
    let testnet = args.testnet.open(home)?;
    let _lock = testnet.lock(launcher()?.lock_limit()).await.map_err(failed_open)?;
    let healed = match args.all {
        true => heal_all(&testnet).await?,
        false => {
            let links = |_, list: &mut FaultList| list.links.clear();
            faults::change(&testnet, &testnet.nodes(), links).await.map_err(failed_fault)?
        }
    };
    table::healed(&testnet, &healed, args.all, format);
    Ok(())
}

/// Takes away all that is broken on purpose. The testnet's lock must be held.
pub async fn heal_all(testnet: &Testnet) -> Result<Vec<Standing>, Failed> {
    nodes::renew_expired(testnet).await?;
    let all = |_, list: &mut FaultList| *list = FaultList::default();
    faults::change(testnet, &testnet.nodes(), all).await.map_err(failed_fault)
}

async fn ls(testnet: &Testnet, format: Format) -> Result<(), Failed> {
    let nodes = testnet.nodes();
    let standing = faults::read(testnet, &nodes).await.map_err(failed_fault)?;
    table::ls(testnet, &standing, &nodes::expired(testnet)?, now_ms(), format);
    Ok(())
}

async fn shape(home: &Home, shape: Shape, how: &How, format: Format) -> Result<(), Failed> {
    break_links(home, LinkWish::Shape(shape), shape.word(), how, format).await
}

async fn bad(
    home: &Home,
    name: &'static str,
    fault: LinkFault,
    between: Vec<NodeId>,
    how: &How,
    format: Format,
) -> Result<(), Failed> {
    let wish = LinkWish::Bad { name, fault: Box::new(fault), between };
    break_links(home, wish, name, how, format).await
}

/// Plans for all nodes, tells them, and shows what is so now.
async fn break_links(
    home: &Home,
    wish: LinkWish,
    word: &str,
    how: &How,
    format: Format,
) -> Result<(), Failed> {
    let testnet = how.testnet.open(home)?;
    let _lock = testnet.lock(launcher()?.lock_limit()).await.map_err(failed_open)?;
    let nodes = testnet.nodes();
    testnet.select(&named(&wish)).map_err(failed_open)?;
    let mut known: Vec<links::Named> =
        nodes.iter().map(|node| (node.id, node.zone.clone())).collect();
    if let (LinkWish::Shape(_), Some(seed)) = (&wish, how.seed) {
        shuffle(&mut known, seed);
    }
    let now_ms = now_ms();
    let when = how.when(now_ms)?;
    let plan = wish.plan(&known, when).map_err(|error| failed_fault(error.into()))?;
    let told = faults::change(&testnet, &nodes, |node, list| {
        plan.apply(node, list, now_ms);
        list.seed = how.seed.unwrap_or(list.seed);
    });
    let told: Vec<Standing> = told.await.map_err(failed_fault)?;
    table::broken(&testnet, word, &told, &plan, when, format);
    Ok(())
}

/// Who is named: unknown nodes are refused with those there are.
fn named(wish: &LinkWish) -> Vec<NodeId> {
    match wish {
        LinkWish::Partition(groups) => groups.iter().flatten().copied().collect(),
        LinkWish::Isolate(node, _) => vec![*node],
        LinkWish::Bad { between, .. } => between.clone(),
        LinkWish::Shape(_) | LinkWish::Wan3 => Vec::new(),
    }
}

fn shuffle(nodes: &mut [links::Named], seed: u32) {
    let mut draws = Draws::of_seed(seed.into());
    for index in (1..nodes.len()).rev() {
        let other = draws.below(index as u64 + 1);
        nodes.swap(index, usize::try_from(other).unwrap_or(0));
    }
}

/// The latencies of a wide network make the start of a cluster slow, so they come after it.
async fn all_ready(testnet: &Testnet) -> Result<(), Failed> {
    let reports = atoll_testnet::status(testnet).await.map_err(failed_file)?;
    match reports.iter().find(|report| report.state != atoll_testnet::State::Ready) {
        None => Ok(()),
        Some(report) => {
            let what = format!("{} is {}", report.node.id, report.state.word());
            let mend = "atoll testnet up, then again: latencies come after all nodes are ready";
            Err(Failed::new(Exit::Refused, what).mend(mend))
        }
    }
}

impl How {
    /// The times of the fault, from now.
    fn when(&self, now_ms: u64) -> Result<Option<When>, Failed> {
        let Some(lasts) = self.lasts else { return Ok(None) };
        if let Some(every) = self.every.filter(|every| every.0 <= lasts.0) {
            let what = format!(
                "it would begin anew each {} and last {}",
                humantime::format_duration(every.0),
                humantime::format_duration(lasts.0)
            );
            return Err(
                Failed::new(Exit::Refused, what).mend("a longer --every, or a shorter --for")
            );
        }
        Ok(Some(When {
            from_ms: now_ms,
            until_ms: Some(now_ms + ms(lasts.0)),
            every_ms: self.every.map(|every| ms(every.0)),
        }))
    }
}

fn slow_words(words: &[String]) -> Result<(Delay, Vec<NodeId>), Failed> {
    let refused = |what: String| {
        Failed::new(Exit::Refused, what).mend("atoll testnet fault slow n1 n2 40ms±10ms")
    };
    let (delay, nodes) = words.split_last().expect("one word at least");
    let delay = delay.parse().map_err(|error| refused(format!("{delay:?}: {error}")))?;
    let node = |word: &String| word.parse().map_err(|error| refused(format!("{word:?}: {error}")));
    Ok((delay, nodes.iter().map(node).collect::<Result<_, _>>()?))
}

fn nothing() -> LinkFault {
    LinkFault::to(NodeId(0), "")
}

fn ms(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

fn now_ms() -> u64 {
    ms(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Why nothing is broken, and what to do about it.
pub fn failed_fault(error: FaultError) -> Failed {
    let what = error.to_string();
    match error {
        FaultError::NotAllowed { testnet, .. } => Failed::new(Exit::Refused, what).mend(format!(
            "atoll testnet down {testnet}, then atoll testnet up --name {testnet} --allow-faults: its data is kept"
        )),
        FaultError::Wish(wish) => {
            let failed = Failed::new(Exit::Refused, what);
            match wish {
                WishError::EmptyGroup | WishError::TwoGroups(_) | WishError::OneGroup => {
                    failed.mend("groups such as n1,n2 n3; nodes that are not named are one group more")
                }
                WishError::TooFew { .. } => failed.mend("atoll testnet add"),
                WishError::Unknown(_) | WishError::Same(_) | WishError::TooManyNodes(_) => failed,
            }
        }
        FaultError::List { .. } => Failed::new(Exit::Refused, what),
        FaultError::Malformed { .. } => {
            Failed::new(Exit::Refused, what).mend("correct or remove the file")
        }
        FaultError::Unheard { node, .. } => Failed::new(Exit::Other, what)
            .mend(format!("atoll testnet logs {node}; atoll testnet kill {node} if it hangs")),
        FaultError::Untold { .. } => {
            Failed::new(Exit::Other, what).mend("atoll testnet fault ls shows what is so; then again")
        }
        FaultError::Probe(_) | FaultError::File(_) => Failed::new(Exit::Other, what),
    }
}
