//! Random histories, judged by an oracle: what was acknowledged is never lost, nothing comes back, and in the end all
//! owners agree.
//!
//! Five nodes, two keys, a few clients. Each step is one fault (power loss, orderly stop, start, isolation, split, slow
//! link, healing) or a few requests at once, some of which are caught by a power loss. Requests are sloppy or strict, with
//! any quorum. In the end everything heals, hints arrive, and the books are compared.
//!
//! What must and what must not be seen is decided by the books: `books.rs`.
//!
//! A failure names its seed: `ATOLL_SEED=7 cargo test -p atoll-node --test cluster one_history -- --nocapture`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    time::Duration,
};

use atoll_node::HintLimits;
use atoll_ring::NodeId;
use atoll_wire::{Effect, Failure, Found, Repair, Stored};
use futures_util::future::join_all;

use crate::{
    books::{Books, Demand, Fate, Told, untrue},
    cluster::{Client, Cluster, SLOPPY, With, texts, values},
};

/// How many histories, unless the environment variable `ATOLL_HISTORIES` says otherwise.
const HISTORIES: u64 = 300;

const NODES: u32 = 5;
const KEYS: [&str; 2] = ["a", "b"];
const CLIENTS: usize = 3;
const STEPS: usize = 30;

/// No history loses an acknowledged write, brings one back, or ends with owners that disagree.
#[test]
fn histories_lose_nothing() {
    let histories = from_environment("ATOLL_HISTORIES").unwrap_or(HISTORIES);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get() as u64);
    let seen = std::thread::scope(|scope| {
        let share = |thread| (thread..histories).step_by(threads as usize);
        let workers: Vec<_> = (0..threads)
            .map(|thread| {
                scope.spawn(move || share(thread).map(|seed| history(seed, false)).collect())
            })
            .collect();
        let mut seen = Figures::default();
        for worker in workers {
            let figures: Vec<Figures> = worker.join().expect("see the seed above");
            figures.iter().for_each(|figures| seen.add(figures));
        }
        seen
    });
    println!("{seen:?}");
    // tame histories would prove nothing
    assert!(seen.acknowledged > 5 * histories, "{seen:?}");
    assert!(seen.by_stand_ins > histories, "{seen:?}");
    assert!(seen.coordinated_by_fallbacks > histories / 2, "{seen:?}");
    assert!(seen.promised_reads > histories / 2, "{seen:?}");
}

/// A single history, told step by step: `ATOLL_SEED=7`.
#[test]
fn one_history() {
    history(from_environment("ATOLL_SEED").unwrap_or(0), true);
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("a number"))
}

/// What happened, over all histories.
#[derive(Debug, Default)]
struct Figures {
    acknowledged: u64,
    failed: u64,
    by_stand_ins: u64,
    coordinated_by_fallbacks: u64,
    reads: u64,
    promised_reads: u64,
    hints_refused: u64,
}

impl Figures {
    fn add(&mut self, other: &Figures) {
        self.acknowledged += other.acknowledged;
        self.failed += other.failed;
        self.by_stand_ins += other.by_stand_ins;
        self.coordinated_by_fallbacks += other.coordinated_by_fallbacks;
        self.reads += other.reads;
        self.promised_reads += other.promised_reads;
        self.hints_refused += other.hints_refused;
    }
}

/// One history. Panics with its seed if a promise was broken.
fn history(seed: u64, told: bool) -> Figures {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut history = History::start(seed, told).await;
        for _ in 0..STEPS {
            history.step().await;
        }
        history.end().await
    })
}

struct History {
    seed: u64,
    told: bool,
    chance: Chance,
    cluster: Cluster,
    books: BTreeMap<&'static str, Books>,
    /// What each client was last told of each key.
    clients: Vec<BTreeMap<&'static str, Told>>,
    figures: Figures,
}

/// One request of a step.
struct Ask {
    client: usize,
    key: &'static str,
    via: NodeId,
    with: With,
    what: What,
    /// Empty for writes.
    demanded: Demand,
}

enum What {
    /// Its number in the books.
    Put(u32, Told),
    Delete(u32, Told),
    Get,
}

enum Answer {
    Stored(Result<Stored, Failure>),
    Found(Result<Found, Failure>),
}

impl History {
    async fn start(seed: u64, told: bool) -> Self {
        let mut chance = Chance(seed);
        let limits = HintLimits {
            // room for all, or for a state or two of one key
            bytes_per_owner_max: chance.of(&[u64::MAX, u64::MAX, 150, 90]),
            away_max: Duration::from_secs(chance.of(&[100_000, 100_000, 6])),
        };
        let mut cluster = Cluster::start_with(NODES, limits).await;
        cluster.release_exchange();
        History {
            seed,
            told,
            chance,
            cluster,
            books: KEYS.into_iter().map(|key| (key, Books::default())).collect(),
            clients: vec![BTreeMap::new(); CLIENTS],
            figures: Figures::default(),
        }
    }

    fn tell(&self, event: impl FnOnce() -> String) {
        if self.told {
            println!("{}", event());
        }
    }

    fn fail(&self, key: &str, why: &str) -> ! {
        let mut text = String::new();
        for (number, write) in self.books[key].writes.iter().enumerate() {
            let what = if write.is_delete { "delete" } else { "put" };
            let _ = writeln!(text, "  {number}: {what} {:?} shown {:?}", write.fate, write.shown);
        }
        panic!("seed {}, key {key}: {why}\n{text}", self.seed);
    }

    async fn step(&mut self) {
        match self.chance.below(10) {
            0..=2 => self.fault().await,
            _ if self.cluster.up().is_empty() => {
                let node = NodeId(self.chance.below(NODES.into()) as u32 + 1);
                self.begin_again(node).await;
            }
            _ => self.requests().await,
        }
        let pause = self.chance.of(&[0, 0, 3, 40, 300, 600, 2200]);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn fault(&mut self) {
        let node = NodeId(self.chance.below(NODES.into()) as u32 + 1);
        let other = NodeId(self.chance.below(NODES.into()) as u32 + 1);
        let is_up = self.cluster.up().contains(&node);
        match self.chance.below(16) {
            0 | 1 if is_up && self.cluster.up().len() > 1 => self.power_loss(node),
            2 | 3 if is_up && self.cluster.up().len() > 1 => {
                self.tell(|| format!("{node} stops in order"));
                self.cluster.stop(node).await;
                self.cluster.crash(node);
            }
            4 | 5 => {
                let key = self.chance.of(&KEYS);
                for owner in self.cluster.owners(key) {
                    self.power_loss(owner);
                }
            }
            0..=3 if !is_up => self.begin_again(node).await,
            6 | 7 => {
                for node in (1..=NODES).map(NodeId) {
                    if !self.cluster.up().contains(&node) {
                        self.begin_again(node).await;
                    }
                }
            }
            8 => {
                self.tell(|| format!("{node} is cut off"));
                self.cluster.isolate(node);
            }
            9 if node != other => {
                self.tell(|| format!("{node} and {other} are cut off from the others"));
                self.cluster.split(&[node, other]);
            }
            10 if node != other => {
                self.tell(|| format!("nothing reaches {other} from {node}"));
                self.cluster.network.cut(node, other);
            }
            11 if node != other => {
                let delay = self.chance.of(&[20, 120, 400]);
                self.tell(|| format!("{node} to {other} takes {delay} ms"));
                self.cluster.network.slow(node, other, Duration::from_millis(delay));
            }
            _ => {
                self.tell(|| "links heal".into());
                self.cluster.heal();
            }
        }
    }

    fn power_loss(&mut self, node: NodeId) {
        let spared = self.chance.below(3) as usize;
        self.tell(|| format!("{node} loses power, {spared} batches are spared"));
        self.cluster.crash_keeping(node, spared);
    }

    async fn begin_again(&mut self, node: NodeId) {
        let sync = self.chance.of(&[2, 2, 2, 60]);
        self.tell(|| format!("{node} starts, a sync takes {sync} ms"));
        self.cluster.boot_slow(node, Duration::from_millis(sync)).await;
    }

    /// A few requests at once. In one case of five some node loses power while they are under way.
    async fn requests(&mut self) {
        let count = self.chance.of(&[1, 1, 1, 2, 3]);
        let asks: Vec<Ask> = (0..count).filter_map(|_| self.ask()).collect();
        let running: Vec<_> =
            asks.iter().map(|ask| tokio::spawn(ask.send(&self.cluster))).collect();
        if self.chance.below(5) == 0 && self.cluster.up().len() > 1 {
            let after = self.chance.of(&[0, 1, 2, 3, 5, 80, 130]);
            tokio::time::sleep(Duration::from_millis(after)).await;
            let node = self.chance.of(&self.cluster.up());
            self.power_loss(node);
        }
        let answers = join_all(running).await;
        for (ask, answer) in asks.into_iter().zip(answers) {
            self.judge(ask, answer.expect("no request panics"));
        }
    }

    fn ask(&mut self) -> Option<Ask> {
        let (client, key) = (self.chance.below(CLIENTS as u64) as usize, self.chance.of(&KEYS));
        let via = self.chance.of(&self.cluster.up());
        let sloppy = self.chance.below(3) > 0;
        let n = self.chance.of(&[3, 3, 3, 2, 1]); // with few copies each one matters
        let (r, w) =
            (self.chance.of(&[1, 1, 2, 2, 3]).min(n), self.chance.of(&[1, 1, 2, 2, 3]).min(n));
        let (pr, pw) = (self.chance.of(&[0, 0, 1, 2]), self.chance.of(&[0, 0, 1, 2]));
        let with = With {
            n: Some(n),
            r: Some(r),
            w: Some(w),
            pr: Some(pr).filter(|pr| sloppy && *pr <= r),
            pw: Some(pw).filter(|pw| sloppy && *pw <= w),
            repair: self.chance.of(&[Repair::Async, Repair::Blocking, Repair::None]),
            sloppy,
            timeout_ms: self.chance.of(&[150, 400, 400, 1000]),
            ..SLOPPY
        };
        let mut told = self.clients[client].get(key).cloned().unwrap_or_default();
        if self.chance.below(4) == 0 {
            told = Told::default();
        }
        let books = self.books.get_mut(key).expect("a key");
        let what = match self.chance.below(8) {
            0..=3 => What::Put(books.begin(&told, false), told),
            4 if told.context.is_empty() => return None,
            4 => What::Delete(books.begin(&told, true), told),
            _ => What::Get,
        };
        let demanded = match &what {
            What::Get => self.books[key].demanded(&with),
            What::Put(..) | What::Delete(..) => Demand::default(),
        };
        Some(Ask { client, key, via, with, what, demanded })
    }

    fn judge(&mut self, ask: Ask, answer: Answer) {
        let key = ask.key;
        match (ask.what, answer) {
            (What::Put(number, told), Answer::Stored(stored))
            | (What::Delete(number, told), Answer::Stored(stored)) => {
                self.tell(|| match &stored {
                    Ok(stored) => format!(
                        "{key} {number} via {}: {:?} hinted {:?} unhinted {:?} {:?}",
                        ask.via,
                        stored.dot,
                        stored.receipt.hinted,
                        stored.receipt.unhinted,
                        crate::cluster::lines(&stored.receipt),
                    ),
                    Err(failure) => {
                        format!("{key} {number} via {}: {:?} {failure}", ask.via, failure.effect)
                    }
                });
                self.written(ask.client, key, number, told, stored);
            }
            (What::Get, Answer::Found(Ok(found))) => {
                self.tell(|| format!("{key} read via {}: {:?}", ask.via, values(&found)));
                self.read(ask.client, key, &ask.with, &ask.demanded, &found);
            }
            (What::Get, Answer::Found(Err(failure))) => {
                self.tell(|| format!("{key} read via {}: {failure}", ask.via));
                self.figures.failed += 1;
            }
            (What::Put(..) | What::Delete(..), Answer::Found(_))
            | (What::Get, Answer::Stored(_)) => {
                unreachable!("answers fit their questions")
            }
        }
    }

    fn written(
        &mut self,
        client: usize,
        key: &'static str,
        number: u32,
        mut told: Told,
        stored: Result<Stored, Failure>,
    ) {
        let fallbacks = self.cluster.fallbacks(key);
        let books = self.books.get_mut(key).expect("a key");
        let entry = &mut books.writes[number as usize];
        match stored {
            Ok(stored) => {
                self.figures.acknowledged += 1;
                let by_stand_in =
                    stored.receipt.replicas.iter().any(|line| line.stands_in_for.is_some());
                self.figures.by_stand_ins += u64::from(by_stand_in);
                let by_fallback = fallbacks.contains(&NodeId(stored.receipt.coordinator));
                self.figures.coordinated_by_fallbacks += u64::from(by_fallback);
                entry.fate = Fate::Certain;
                (entry.owners, entry.n) = (stored.receipt.owners_needed, stored.receipt.n);
                let told_false = untrue(&stored.receipt);
                if !books.dots.insert(stored.dot) {
                    self.fail(key, &format!("the dot of {number} was given twice"));
                }
                if let Some(what) = told_false {
                    self.fail(
                        key,
                        &format!("the receipt of {number} {what}: {:?}", stored.receipt),
                    );
                }
                if !stored.context.is_empty() {
                    told.context = stored.context;
                    told.shown.insert(number);
                    self.clients[client].insert(key, told);
                }
            }
            Err(failure) => {
                self.figures.failed += 1;
                entry.fate = match failure.effect {
                    Effect::NotApplied => Fate::Never,
                    Effect::Applied(0) | Effect::Unknown => Fate::Unknown,
                    Effect::Applied(_) => Fate::Certain,
                };
                if entry.fate == Fate::Never && books.seen.contains(&number) {
                    self.fail(key, &format!("{number} is called `not applied` and was seen"));
                }
            }
        }
    }

    fn read(
        &mut self,
        client: usize,
        key: &'static str,
        with: &With,
        demanded: &Demand,
        found: &Found,
    ) {
        self.figures.reads += 1;
        let shown = self.numbers(key, &values(found));
        self.books.get_mut(key).expect("a key").seen.extend(shown.iter().copied());
        let books = &self.books[key];
        if let Some(number) = shown.intersection(&demanded.gone).next() {
            self.fail(key, &format!("a read that had to see what replaced {number} saw {shown:?}"));
        }
        for number in &demanded.there {
            if !shown.contains(number) && !books.may_be_replaced(*number) {
                self.fail(key, &format!("a read that had to see {number} saw {shown:?}"));
            }
        }
        self.figures.promised_reads += u64::from(!demanded.there.is_empty());
        let owners_only = !with.sloppy || with.pr.unwrap_or(0) >= 2;
        if with.repair == Repair::Blocking && with.n == Some(3) && with.r >= Some(2) && owners_only
        {
            let sure = &mut self.books.get_mut(key).expect("a key").sure;
            sure.extend(shown.iter().copied());
        }
        if !found.context.is_empty() {
            self.clients[client].insert(key, Told { context: found.context.clone(), shown });
        }
    }

    /// The numbers of values, none of which may belong to a write that does not exist.
    fn numbers(&self, key: &str, values: &[String]) -> BTreeSet<u32> {
        let numbers: BTreeSet<u32> =
            values.iter().map(|value| value.parse().expect("a number")).collect();
        for number in &numbers {
            if self.books[key].writes[*number as usize].fate == Fate::Never {
                self.fail(key, &format!("{number} was called `not applied` and is seen"));
            }
        }
        numbers
    }

    /// Everything heals. The books must be true, at every owner.
    async fn end(mut self) -> Figures {
        self.tell(|| "everything heals".into());
        self.cluster.heal();
        for node in (1..=NODES).map(NodeId) {
            if !self.cluster.up().contains(&node) {
                self.cluster.boot(node).await;
            }
        }
        for _ in 0..40 {
            self.cluster.settle().await; // in all the longest pause between two tries of a hint, and a little
            if self.cluster.hints().await == 0 {
                break;
            }
        }
        for node in self.cluster.up() {
            self.figures.hints_refused += self.cluster.status(node).await.hints_refused;
        }
        let hints = self.cluster.hints().await;
        assert_eq!(hints, 0, "seed {}: hints are left", self.seed);
        let all = With { r: Some(3), sloppy: false, ..SLOPPY };
        for key in KEYS {
            let owners = self.cluster.owners(key);
            let found = self.cluster.get(owners[0], key, &all).await.expect("all are up");
            let found = self.numbers(key, &values(&found));
            self.tell(|| format!("{key} in the end: {found:?}"));
            if let Err(why) = self.books[key].in_the_end(&found) {
                self.fail(key, &why);
            }
            self.cluster.settle().await; // whoever crashed in the middle left no hint; the read has mended that
            let states: Vec<_> =
                owners.iter().map(|owner| self.cluster.state(*owner, key)).collect();
            if states.iter().any(|state| *state != states[0]) {
                let texts: Vec<_> = states.iter().flatten().map(texts).collect();
                self.fail(key, &format!("the owners disagree: {texts:?}"));
            }
        }
        self.figures
    }
}

impl Ask {
    fn send(&self, cluster: &Cluster) -> impl Future<Output = Answer> + 'static {
        let client: Client = cluster.client();
        let (via, key, with) = (self.via, self.key, self.with.clone());
        let (write, told) = match &self.what {
            What::Put(number, told) => (Some((*number, true)), told.clone()),
            What::Delete(number, told) => (Some((*number, false)), told.clone()),
            What::Get => (None, Told::default()),
        };
        async move {
            match write {
                Some((number, true)) => {
                    let value = number.to_string();
                    Answer::Stored(client.put(via, key, &value, &told.context, &with).await)
                }
                Some((_, false)) => {
                    Answer::Stored(client.delete(via, key, &told.context, &with).await)
                }
                None => Answer::Found(client.get(via, key, &with).await),
            }
        }
    }
}

/// Seeded chance: splitmix64 (Steele, Lea and Flood, 2014).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}
