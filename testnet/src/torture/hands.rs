//! Whoever carries out a plan: does each step when its time has come, undoes it when it is over, and tells what was done.
//!
//! The plan's times count from the beginning. A wipe waits until the cluster is well, and all that comes after it is put off by
//! as long; what does not fit into the time any more is left out. A node that ends though nobody ended it is a finding: it is
//! told, with its last words, and started again.

use std::{collections::BTreeMap, time::Duration};

use atoll_ring::NodeId;
use atoll_wire::FaultList;
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use super::{
    harm::{Harm, HarmKind, Means},
    lists,
    plan::{Plan, Step},
    well,
};
use crate::{
    event::Event,
    faults::{self, FaultError},
    files::FileError,
    node::{Condition, Node},
    poll,
    start::{self, Launcher, StartError},
    stop,
    testnet::{Lock, OpenError, Testnet},
};

/// Something that happened, for whoever shows and records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Of which kind the fault is that has begun; none: something was healed, or put off.
    pub kind: Option<HarmKind>,
    /// In a few words.
    pub text: String,
}

/// A node that ended though nobody had ended it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which node.
    pub node: NodeId,
    /// Its last lines.
    pub last_lines: Vec<String>,
}

/// Why a plan cannot be carried out, or not undone.
#[derive(Debug, thiserror::Error)]
pub enum TortureError {
    /// A process or a file.
    #[error(transparent)]
    File(#[from] FileError),
    /// A node does not start, or did not become ready in the end.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Somebody else starts and stops nodes of this testnet, and does not stop doing it.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nobody can be asked how the cluster is.
    #[error(transparent)]
    Well(#[from] well::WellError),
    /// A node cannot be told of its faults.
    #[error(transparent)]
    Fault(#[from] FaultError),
}

/// What the process of a node should be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Should {
    Run,
    Stand,
    BeGone,
}

/// Carries out a plan on a testnet all of whose nodes run.
pub struct Hands<'a> {
    testnet: &'a Testnet,
    launcher: &'a Launcher,
    nodes: BTreeMap<NodeId, (Node, Should)>,
    /// What is going on that nodes must be told of.
    lasting: Vec<Harm>,
    began: Instant,
    /// By how much everything is put off.
    late: Duration,
    /// When the last thing was broken or healed.
    calm_since: Instant,
    ended: Vec<Ended>,
}

impl<'a> Hands<'a> {
    /// Begins now.
    #[must_use]
    pub fn new(testnet: &'a Testnet, launcher: &'a Launcher) -> Self {
        let nodes = testnet.nodes().into_iter().map(|node| (node.id, (node, Should::Run)));
        let (nodes, now) = (nodes.collect(), Instant::now());
        let (late, lasting, ended) = (Duration::ZERO, Vec::new(), Vec::new());
        Hands { testnet, launcher, nodes, lasting, began: now, late, calm_since: now, ended }
    }

    /// Does what the plan says, for so long or until dropped; then [`Hands::undo`] everything that lasts.
    ///
    /// # Errors
    /// See [`TortureError`].
    pub async fn carry_out(
        &mut self,
        plan: &Plan,
        length: Duration,
        say: &mut impl FnMut(Said),
    ) -> Result<(), TortureError> {
        let end = self.began + length;
        let mut coming = plan.steps.iter().peekable();
        let mut lasting: Vec<(Instant, &Step)> = Vec::new();
        loop {
            let over = lasting.iter().map(|(until, _)| *until).min();
            // whatever began late lasts longer than planned
            let next = coming.peek().filter(|step| step.may_begin_beside(&lasting));
            let next = next.map(|step| self.began + step.at + self.late);
            let moment = over.into_iter().chain(next).min().unwrap_or(end).min(end);
            let look = Instant::now() + LOOK_AFTER;
            sleep_until(moment.min(look)).await;
            self.look_after_all(say).await?;
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            for (_, step) in lasting.extract_if(.., |(until, _)| *until <= now) {
                self.heal(&step.harm, say).await?;
            }
            if next.is_some_and(|next| next <= now) {
                let step = coming.next().expect("it was looked at");
                if step.harm.kind().takes_data() && !self.wait_until_well(end, step, say).await? {
                    continue;
                }
                if Instant::now() + step.lasts >= end {
                    say(Said { kind: None, text: format!("{step}: no time is left for it") });
                    continue;
                }
                self.harm(step, say).await?;
                lasting.push((Instant::now() + step.lasts, step));
            }
        }
    }

    /// Heals everything, starts everybody, and waits until all are ready.
    ///
    /// # Errors
    /// See [`TortureError`]; a node that does not become ready is a finding.
    pub async fn undo(&mut self, say: &mut impl FnMut(Said)) -> Result<(), TortureError> {
        let _lock = self.lock().await?;
        let nodes: Vec<Node> = self.nodes.values().map(|(node, _)| node.clone()).collect();
        let paused =
            nodes.iter().filter(|node| matches!(node.condition(), Ok(Condition::Paused(_))));
        for node in paused {
            node.signal(Signal::CONT)?;
        }
        if !self.lasting.is_empty() {
            self.lasting.clear();
            self.tell_all().await?; // before anybody is waited for: who is cut off may not become ready
        }
        let mut heard = Vec::new();
        let mut hear = |event| {
            if let Event::Ready { node, after: Some(_) } = event {
                heard.push(node.to_string());
            }
        };
        let forever = std::future::pending();
        start::start(self.testnet, self.launcher, nodes, forever, &mut hear).await?;
        for (_, should) in self.nodes.values_mut() {
            *should = Should::Run;
        }
        let started = match heard.is_empty() {
            true => String::new(),
            false => format!("; {} started", heard.join(" ")),
        };
        say(Said { kind: None, text: format!("all is healed{started}") });
        Ok(())
    }

    /// Tells everybody of the faults that last. A node that has just been started hears of them as soon as it listens.
    async fn tell_all(&self) -> Result<(), TortureError> {
        let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
        let nodes = self.of(&ids);
        let began = Instant::now();
        loop {
            let put = |node, list: &mut FaultList| lists::put(list, node, &ids, &self.lasting);
            match faults::change(self.testnet, &nodes, put).await {
                Ok(_) => return Ok(()),
                Err(FaultError::Unheard { .. } | FaultError::Untold { .. })
                    if began.elapsed() < self.launcher.ready_limit => {}
                Err(error) => return Err(error.into()),
            }
            poll::pause().await;
        }
    }

    /// Who ended by itself.
    #[must_use]
    pub fn ended(&self) -> &[Ended] {
        &self.ended
    }

    async fn harm(&mut self, step: &Step, say: &mut impl FnMut(Said)) -> Result<(), TortureError> {
        let _lock = self.lock().await?;
        say(Said { kind: Some(step.harm.kind()), text: step.to_string() });
        let nodes = self.of(step.harm.nodes());
        let should = match step.harm.kind().means() {
            Means::Kill => {
                stop::kill(&nodes, &mut |_| {}).await?;
                Should::BeGone
            }
            Means::Wipe => {
                stop::wipe(&nodes, &mut |_| {}).await?;
                Should::BeGone
            }
            Means::Stop => {
                stop::stop(nodes, self.launcher.stop_limit, &mut |_| {}).await?;
                Should::BeGone
            }
            Means::Pause => {
                stop::pause(&nodes, &mut |_| {})?;
                Should::Stand
            }
            Means::Tell => {
                self.lasting.push(step.harm.clone());
                self.tell_all().await?;
                Should::Run
            }
        };
        self.all_should(step.harm.nodes(), should);
        Ok(())
    }

    async fn heal(&mut self, harm: &Harm, say: &mut impl FnMut(Said)) -> Result<(), TortureError> {
        let _lock = self.lock().await?;
        let nodes = self.of(harm.nodes());
        let names: Vec<String> = harm.nodes().iter().map(NodeId::to_string).collect();
        let names = names.join(" ");
        let text = match harm.kind().means() {
            Means::Kill | Means::Wipe | Means::Stop => {
                // nobody waits: what it means to come up among others that are down is part of the torture
                for node in &nodes {
                    self.launcher.spawn(self.testnet, node)?;
                }
                format!("{names} started")
            }
            Means::Pause => {
                stop::resume(&nodes, &mut |_| {})?;
                format!("{names} resumed")
            }
            Means::Tell => {
                self.lasting.retain(|other| other != harm);
                self.tell_all().await?;
                format!("{harm} is over")
            }
        };
        self.all_should(harm.nodes(), Should::Run);
        say(Said { kind: None, text });
        Ok(())
    }

    /// Waits until a disk may be lost. `false`: that did not come about in time.
    async fn wait_until_well(
        &mut self,
        end: Instant,
        step: &Step,
        say: &mut impl FnMut(Said),
    ) -> Result<bool, TortureError> {
        let began = Instant::now();
        let until = (began + WELL_LIMIT).min(end);
        let mut told = String::new();
        loop {
            let amiss = well::amiss(self.testnet, self.calm_since.elapsed()).await?;
            self.look_after_all(say).await?;
            let Some(amiss) = amiss else { break };
            if Instant::now() >= until {
                let text =
                    format!("{step}: left out, because after {:.0?} {amiss}", began.elapsed());
                say(Said { kind: None, text });
                self.late += began.elapsed();
                return Ok(false);
            }
            if told.is_empty() {
                say(Said { kind: None, text: format!("{step}: waits, because {amiss}") });
            }
            told = amiss;
            sleep_until((Instant::now() + WELL_PAUSE).min(until)).await;
        }
        self.late += began.elapsed();
        Ok(true)
    }

    /// Looks whether everybody does what it should.
    async fn look_after_all(&mut self, say: &mut impl FnMut(Said)) -> Result<(), TortureError> {
        let mut gone = Vec::new();
        for (node, should) in self.nodes.values() {
            if *should == Should::Run
                && let Condition::Stopped | Condition::Dead = node.condition()?
            {
                gone.push(node.clone());
            }
        }
        for node in gone {
            let mut last_lines = start::last_lines(&node.log(), 0);
            last_lines.drain(..last_lines.len().saturating_sub(LINES_SHOWN));
            say(Said { kind: None, text: format!("{} ENDED BY ITSELF; it is started", node.id) });
            self.ended.push(Ended { node: node.id, last_lines });
            let _lock = self.lock().await?;
            self.launcher.spawn(self.testnet, &node)?;
        }
        Ok(())
    }

    fn of(&self, ids: &[NodeId]) -> Vec<Node> {
        ids.iter().map(|id| self.nodes[id].0.clone()).collect()
    }

    fn all_should(&mut self, ids: &[NodeId], should: Should) {
        self.calm_since = Instant::now();
        for id in ids {
            self.nodes.get_mut(id).expect("plans name nodes of the testnet").1 = should;
        }
    }

    /// For one deed: somebody may want to look after the testnet meanwhile.
    async fn lock(&self) -> Result<Lock, OpenError> {
        self.testnet.lock(self.launcher.lock_limit()).await
    }
}

impl Step {
    /// Whether it disturbs nothing that lasts.
    fn may_begin_beside(&self, lasting: &[(Instant, &Step)]) -> bool {
        let meets = |(_, other): &(Instant, &Step)| {
            other.harm.nodes().iter().any(|node| self.harm.nodes().contains(node))
        };
        !lasting.iter().any(meets) && (!self.harm.kind().takes_data() || lasting.is_empty())
    }
}

/// How often it is seen whether nodes are as they should be.
const LOOK_AFTER: Duration = Duration::from_millis(500);

/// How long a cluster may take to become well before a disk is taken away: a doubt lasts a minute at least.
const WELL_LIMIT: Duration = Duration::from_secs(120);
const WELL_PAUSE: Duration = Duration::from_millis(500);

/// Of a node that ended by itself.
const LINES_SHOWN: usize = 10;
