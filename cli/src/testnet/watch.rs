//! `atoll testnet watch`: the whole testnet on one screen, as it changes, and keys that break and mend it.
//!
//! ```text
//!   gathering: looks, twice a second ─┐
//!   keys ─▶ deeds: kill, pause, …  ───┼─▶ [`watch`] ─▶ [`scene`] ─▶ [`draw`] ─▶ [`screen`]
//!   signals ──────────────────────────┘    one loop     what         where       gives the terminal back
//! ```
//! [`pace`] turns counts into rates, [`ring`] partitions into pixels. Only this file, [`deeds`] and [`screen`] touch the world.

use std::{
    env,
    io::{self, IsTerminal as _},
    pin::pin,
    time::Duration,
};

use atoll_client::NodeId;
use atoll_testnet::{Home, Look, Lookout, OpenError, Testnet};
use clap::Args;
use crossterm::event::EventStream;
use futures_util::StreamExt as _;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{Named, say::failed_open, status::Tone, up::Interrupt};
use crate::{
    exit::{Exit, Failed},
    output::Format,
};

mod deeds;
mod draw;
mod keys;
mod pace;
mod ring;
mod scene;
mod screen;

use deeds::Deeds;
use draw::{Ink, draw};
use keys::{Deed, Step, Wish, wish};
use pace::Past;
use scene::Scene;
use screen::Screen;

/// Which testnet.
#[derive(Args, Debug)]
#[command(after_help = "\
Keys: arrows or 1 to 9 select a node; k kills it, p pauses it or lets it go on, c cuts it off from all others,
h heals it: starts it again, lets it go on, undoes the cut. q or Ctrl-C leaves; the testnet goes on.

The ring: the rim shows how partitions are (whole: all owners within reach; short: more than half; no majority;
lost: none), the bands inside whose they are, the first owner outermost. Owners out of reach are dark.
Each row of links says how long that node's pings to the others take; a cut in one direction shows in both.
Requests are those that nodes have coordinated and answered in the last two seconds; unmet are those that too few
owners answered, or not in time. A get meets an owner behind if one that was needed for the answer knew less than
another; with r = 1 that cannot be seen.

It needs a terminal; without one: atoll testnet status --watch. NO_COLOR draws it in letters.")]
pub struct WatchArgs {
    #[command(flatten)]
    testnet: Named,
}

/// Runs the command.
pub async fn run(args: WatchArgs, home: &Home, format: Format) -> Result<(), Failed> {
    let is_seen = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !is_seen || format != Format::Table {
        let what = "`watch` draws on a terminal and prints nothing";
        return Err(Failed::new(Exit::Refused, what).mend("atoll testnet status --watch"));
    }
    let testnet = args.testnet.open(home)?;
    let interrupt = Interrupt::expect()?;
    let mut screen = Screen::take().map_err(failed_terminal)?;
    let outcome = watch(&mut screen, testnet, interrupt.comes()).await;
    drop(screen); // before anything is said of the outcome
    outcome
}

/// Draws, and does what keys ask for, until somebody leaves.
async fn watch(
    screen: &mut Screen,
    testnet: Testnet,
    interrupted: impl Future<Output = ()>,
) -> Result<(), Failed> {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let ink = if no_color { Ink::Letters } else { Ink::Colours };
    let (sender, mut looks) = mpsc::channel(1);
    let mut gathering = JoinSet::new(); // ends with us
    gathering.spawn(gather(testnet.clone(), sender));
    let mut keys = EventStream::new();
    let mut interrupted = pin!(interrupted);
    let mut watching = Watching {
        testnet,
        past: Past::default(),
        selected: None,
        message: None,
        deeds: Deeds::default(),
    };
    loop {
        let scene = watching.scene();
        screen.draw(|frame| draw(frame.buffer_mut(), &scene, ink)).map_err(failed_terminal)?;
        tokio::select! { biased;
            () = &mut interrupted => return Err(Failed::silent(Exit::Interrupted)),
            event = keys.next() => {
                let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
                let event = event.ok_or_else(gone).flatten().map_err(failed_terminal)?;
                match wish(&event) {
                    Some(Wish::Leave) => return Ok(()),
                    Some(Wish::Interrupt) => return Err(Failed::silent(Exit::Interrupted)),
                    Some(Wish::Select(step)) => watching.select(step),
                    Some(Wish::Do(deed)) => watching.begin(deed),
                    Some(Wish::Redraw) | None => {}
                }
            }
            told = watching.deeds.next() => watching.message = Some(told),
            look = looks.recv() => {
                let seen = look.expect("it looks as long as we listen").map_err(failed_open)?;
                watching.see(seen);
            }
        }
    }
}

/// A look, and the testnet as it was then: nodes come and go.
type Seen = (Testnet, Look);

/// What has been seen, and what was done about it.
struct Watching {
    testnet: Testnet,
    past: Past,
    selected: Option<NodeId>,
    message: Option<(String, Tone)>,
    deeds: Deeds,
}

impl Watching {
    fn see(&mut self, (testnet, look): Seen) {
        self.testnet = testnet;
        self.past.add(look);
    }

    fn scene(&self) -> Scene {
        Scene::of(self.testnet.name(), &self.past, self.selected, self.message.clone())
    }

    fn nodes(&self) -> Vec<NodeId> {
        let look = self.past.latest();
        look.map_or(Vec::new(), |look| look.reports.iter().map(|one| one.node.id).collect())
    }

    fn select(&mut self, step: Step) {
        let nodes = self.nodes();
        self.selected = nodes.get(step.from(self.place(&nodes), nodes.len())).copied();
    }

    fn place(&self, nodes: &[NodeId]) -> usize {
        nodes.iter().position(|node| Some(*node) == self.selected).unwrap_or(0)
    }

    fn begin(&mut self, deed: Deed) {
        let nodes = self.nodes();
        if let Some(node) = nodes.get(self.place(&nodes)) {
            self.message = Some(self.deeds.begin(deed, &self.testnet, *node));
        }
    }
}

/// Looks twice a second, for as long as somebody listens and there is something to see.
async fn gather(testnet: Testnet, looks: mpsc::Sender<Result<Seen, OpenError>>) {
    let mut lookout = Lookout::of(testnet);
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let look = lookout.look(LOOK_LIMIT).await;
        let look = look.map(|look| (lookout.testnet().clone(), look));
        let is_over = look.is_err();
        if looks.send(look).await.is_err() || is_over {
            return;
        }
    }
}

fn failed_terminal(error: io::Error) -> Failed {
    Failed::new(Exit::Other, format!("the terminal cannot be used: {error}"))
        .mend("atoll testnet status --watch")
}

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How long a node may take to answer before it counts as silent; nobody wants to wait for it with the picture.
const LOOK_LIMIT: Duration = Duration::from_secs(1);
