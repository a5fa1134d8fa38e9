//! One client: it asks one thing after the other, and writes down what it asks and hears.
//!
//! It writes with the context of what it saw last, with one that another client was given, or with none; deletes, and writes
//! again what was deleted; counts as a session of counters, and repeats what nobody answered under the same number.

use std::{collections::BTreeMap, rc::Rc, time::Duration};

use atoll_check::{Op, What, Written, history::kinds::Asked, told};
use atoll_client::{
    Client, Context, ContextToken, Effect, GetReply, Increment, Kind, Operation, Options,
    QuorumRequest, ReadReply, Repair, RequestError, Session, WriteReply,
};
use atoll_ring::Quorum;
use bytes::Bytes;
use rand::{Rng as _, rngs::SmallRng};
use tokio::time::sleep;

use super::{
    Shared,
    draw::{self, Drawing, of},
    keys::{BUCKETS, Key},
};
use crate::{Snapshot, record};

/// Clients take each other's place until the load is over. Every second one works in a session.
pub(super) async fn live(shared: Rc<Shared>, index: u32, mut dice: SmallRng) {
    let client = shared.clients[index as usize % shared.clients.len()].clone();
    while !shared.is_over.get() {
        let mut one = One::new(&shared, &client, index % 2 == 1);
        for _ in 0..OPERATIONS_PER_LIFE {
            let pause = match dice.random_bool(0.2) {
                true => Duration::ZERO,
                false => shared.pause_max().mul_f64(dice.random()),
            };
            sleep(pause).await;
            if shared.is_over.get() {
                break;
            }
            one.ask(&mut dice).await;
        }
    }
}

/// One life.
struct One<'a> {
    shared: &'a Shared,
    client: &'a Client,
    number: u32,
    session: Option<Session<'a>>,
    /// By key: the newest token, and the operation whose answer brought it.
    seen: BTreeMap<String, (Op, ContextToken)>,
    /// By counter: the last number of a change, and what was counted with it.
    counted: BTreeMap<String, (u64, i64)>,
}

impl<'a> One<'a> {
    fn new(shared: &'a Shared, client: &'a Client, in_session: bool) -> Self {
        let number = shared.next_session();
        if in_session {
            shared.record.in_session(number);
        }
        let session = in_session.then(|| client.session());
        let (seen, counted) = (BTreeMap::new(), BTreeMap::new());
        One { shared, client, number, session, seen, counted }
    }

    async fn ask(&mut self, dice: &mut SmallRng) {
        let key = Key::draw(self.shared, dice);
        let asked = match (key.kind, dice.random_bool(0.45)) {
            (Kind::Register, true) => self.get(&key, dice).await,
            (Kind::Register, false) => self.put(&key, dice).await,
            (_, true) => self.read(&key, dice).await,
            (_, false) => self.change(&key, dice).await,
        };
        if let Err(error) = asked {
            let word = error.word();
            *self.shared.report.borrow_mut().errors.entry(word).or_default() += 1;
        }
    }

    async fn get(&mut self, key: &Key, dice: &mut SmallRng) -> Result<(), RequestError> {
        let repair = of(dice, &[Repair::Async, Repair::Async, Repair::Blocking, Repair::None]);
        let quorum = draw::reads(dice, self.copies(key), self.session.is_some());
        let options = Options { repair: Some(repair), ..self.options(key, quorum, dice) };
        let (mut with, _) = record::levels(&self.quorum(key, &options));
        with.blocking = repair == Repair::Blocking;
        let mut must_show = Snapshot::default();
        self.shared.acked(key, |acked, index| acked.snapshot(index, &mut must_show));
        let (record, name) = (&self.shared.record, key.name.as_bytes());
        let op = record.begin(self.number, name, What::Get, None, with);
        let answer = self.send_read(key, &options).await.and_then(ReadReply::into_values);
        record.read(op, &answer);
        let GetReply { context, values, .. } = answer?;
        let knows = match &context {
            Some(token) => token.peek().ok(),
            None => values.is_empty().then(Context::new),
        };
        if let Some(knows) = knows {
            self.shared.judged(must_show.judge(&knows));
        }
        if let Some(token) = context {
            self.remember(key, op, token);
        }
        Ok(())
    }

    async fn put(&mut self, key: &Key, dice: &mut SmallRng) -> Result<(), RequestError> {
        let seen = self.context(key, dice);
        // what goes must have been seen: a delete without a context would read first, and nobody records what
        let what = match seen.is_some() && dice.random_bool(0.2) {
            true => What::Delete,
            false => What::Put,
        };
        let quorum = self.writes(key, dice);
        let options = self.options(key, quorum, dice);
        let quorum = self.quorum(key, &options);
        let (_, with) = record::levels(&quorum);
        let record = &self.shared.record;
        let op = record.begin(
            self.number,
            key.name.as_bytes(),
            what,
            seen.as_ref().map(|(op, _)| *op),
            with,
        );
        let operation = match what {
            What::Put => Operation::Put { value: self.value(dice, op), expires_ms: None },
            What::Delete | What::Get => Operation::Clear,
        };
        let context = seen.as_ref().map(|(_, token)| token);
        let answer = self.send_change(key, &operation, context, &options).await;
        record.wrote(op, &answer, &quorum);
        let WriteReply { context, dot, .. } = answer?;
        let now = self.shared.zero.elapsed();
        let covered = context.peek().unwrap_or_default();
        self.shared.acked(key, |acked, index| acked.ack(index, dot, &covered, now));
        self.remember(key, op, context);
        Ok(())
    }

    async fn read(&mut self, key: &Key, dice: &mut SmallRng) -> Result<(), RequestError> {
        let quorum = draw::reads(dice, self.copies(key), self.session.is_some());
        let options = self.options(key, quorum, dice);
        let op = self.shared.record.next_op();
        self.asks(op, key, None, None, &options);
        let answer = self.send_read(key, &options).await;
        self.shared.record.showed(op, &answer);
        if let Some(token) = answer?.context {
            self.remember(key, op, token);
        }
        Ok(())
    }

    async fn change(&mut self, key: &Key, dice: &mut SmallRng) -> Result<(), RequestError> {
        let before = self.counted.get(&key.name).copied().unwrap_or_default();
        let op = self.shared.record.next_op();
        let operation = self.draw(key, op, dice);
        let counts = matches!(operation, Operation::Increment(Increment::Session { .. }));
        let quorum = self.writes(key, dice);
        let options = self.options(key, quorum, dice);
        let context = self.context(key, dice).map(|(_, token)| token);
        let mut outcome = self.send_as(op, key, &operation, context.as_ref(), &options).await;
        if counts && dice.random_bool(0.6) && is_unknown(&outcome) {
            let op = self.shared.record.next_op();
            let again = self.send_as(op, key, &operation, context.as_ref(), &options).await;
            // whatever becomes of the second one, the first may be there
            outcome = if again.is_ok() { again } else { outcome };
        }
        let not_applied = outcome.as_ref().is_err_and(|error| error.effect() == Effect::NotApplied);
        if counts && not_applied {
            self.counted.entry(key.name.clone()).or_default().1 = before.1; // its number stays used
        }
        outcome
    }

    fn draw(&mut self, key: &Key, op: Op, dice: &mut SmallRng) -> Operation {
        let (shared, number) = (self.shared, self.number);
        let counted = &mut self.counted;
        let mut count = |dice: &mut SmallRng, by: i64| {
            if dice.random_bool(0.4) {
                return Increment::Once(by);
            }
            let counted = counted.entry(key.name.clone()).or_default();
            *counted = (counted.0 + 1, counted.1 + by);
            let (sequence, total) = *counted;
            Increment::Session { session: number.into(), sequence, total }
        };
        let value = |dice: &mut SmallRng, op| value(shared, dice, op);
        Drawing { dice, op, value: &value, count: &mut count }.change(key)
    }

    async fn send_as(
        &mut self,
        op: Op,
        key: &Key,
        operation: &Operation,
        context: Option<&ContextToken>,
        options: &Options,
    ) -> Result<(), RequestError> {
        self.asks(op, key, Some(operation), context, options);
        let answer = self.send_change(key, operation, context, options).await;
        self.shared.record.changed(op, &answer);
        self.remember(key, op, answer?.context);
        Ok(())
    }

    /// Writes down what is about to be asked.
    fn asks(
        &self,
        op: Op,
        key: &Key,
        operation: Option<&Operation>,
        context: Option<&ContextToken>,
        options: &Options,
    ) {
        let (reads, writes) = record::levels(&self.quorum(key, options));
        let context = context.and_then(|token| token.peek().ok());
        self.shared.record.asks(Asked {
            op,
            at_us: 0,
            session: self.number,
            key: key.name.clone(),
            touches: operation.map(|one| told::touches(one, key.kind)).unwrap_or_default(),
            context: context.as_ref().map(told::known),
            with: if operation.is_some() { writes } else { reads },
        });
    }

    async fn send_read(&mut self, key: &Key, options: &Options) -> Result<ReadReply, RequestError> {
        match &mut self.session {
            Some(session) => session.read(key.bytes.as_bytes(), options).await,
            None => self.client.read(key.bytes.as_bytes(), options).await,
        }
    }

    async fn send_change(
        &mut self,
        key: &Key,
        operation: &Operation,
        context: Option<&ContextToken>,
        options: &Options,
    ) -> Result<WriteReply, RequestError> {
        let bytes = key.bytes.as_bytes();
        match &mut self.session {
            Some(session) => session.change(bytes, operation, context, options).await,
            None => self.client.change(bytes, operation, context, options).await,
        }
    }

    /// What the writer says that it has seen: mostly its own newest, sometimes what another one was given, or nothing.
    fn context(&self, key: &Key, dice: &mut SmallRng) -> Option<(Op, ContextToken)> {
        match dice.random_range(0..10) {
            0..=5 => self.seen.get(&key.name).cloned(),
            6 => {
                let told = self.shared.told.borrow();
                let tokens = told.get(&key.name).filter(|tokens| !tokens.is_empty())?;
                Some(tokens[dice.random_range(0..tokens.len())].clone())
            }
            _ => None,
        }
    }

    fn remember(&mut self, key: &Key, op: Op, token: ContextToken) {
        if token.as_bytes().is_empty() {
            return;
        }
        self.shared.tell(&key.name, op, &token);
        self.seen.insert(key.name.clone(), (op, token));
    }

    fn options(&self, key: &Key, quorum: QuorumRequest, dice: &mut SmallRng) -> Options {
        Options {
            bucket: key.bucket.map(str::to_owned),
            quorum,
            timeout: Some(Duration::from_millis(of(dice, &[150, 400, 1000, 2000]))),
            // some ask a node of their choice, whoever that is
            via: dice.random_bool(0.3).then(|| of(dice, &self.shared.members)),
            ..Options::default()
        }
    }

    fn writes(&self, key: &Key, dice: &mut SmallRng) -> QuorumRequest {
        let durable_min = self.shared.run.durable_min;
        draw::writes(dice, self.copies(key), self.session.is_some(), durable_min)
    }

    fn quorum(&self, key: &Key, options: &Options) -> Quorum {
        Quorum::new(&options.quorum, self.copies(key)).expect("drawn within the rules")
    }

    fn copies(&self, key: &Key) -> u8 {
        let usual = self.client.view().bucket_n();
        let of_bucket = BUCKETS.iter().find(|(name, ..)| Some(*name) == key.bucket);
        of_bucket.and_then(|(_, _, n)| *n).unwrap_or(usual).min(usual)
    }

    fn value(&self, dice: &mut SmallRng, op: Op) -> Bytes {
        value(self.shared, dice, op)
    }
}

/// Bytes that say which operation wrote them.
fn value(shared: &Shared, dice: &mut SmallRng, op: Op) -> Bytes {
    let bytes = of(dice, &[8, 32, 200, 200, 1000, 8000]);
    let from = dice.random_range(0..shared.noise.len() - bytes);
    Written::by(op, &shared.noise[from..from + bytes]).into()
}

fn is_unknown(outcome: &Result<(), RequestError>) -> bool {
    outcome.as_ref().is_err_and(|error| error.effect() != Effect::NotApplied)
}

/// Then another client takes its place.
const OPERATIONS_PER_LIFE: u32 = 400;
