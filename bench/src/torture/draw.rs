//! What is asked of a value that is no register, and with which levels: drawn, so that the seed decides it.

use atoll_check::Op;
use atoll_client::{Field, FieldChange, Increment, Kind, Level, Operation, QuorumRequest};
use bytes::Bytes;
use rand::{Rng as _, rngs::SmallRng};

use super::keys::Key;

/// One of these.
pub(super) fn of<T: Clone>(dice: &mut SmallRng, choices: &[T]) -> T {
    choices[dice.random_range(0..choices.len())].clone()
}

/// Levels of a read.
pub(super) fn reads(dice: &mut SmallRng, copies: u8, in_session: bool) -> QuorumRequest {
    let need = match in_session {
        true => of(dice, &[1, 1, 1, 1, 1, 2]),
        false => of(dice, &[1, 2, 2, 2, 3]),
    };
    let n = of(dice, &[3, 3, 3, 3, 2]).min(copies);
    let need = need.min(n);
    let sloppy = dice.random_bool(0.5);
    let owners = of(dice, &[0, 0, 1, 2]).min(need);
    QuorumRequest {
        n: Some(n),
        r: level(need),
        pr: level(owners).filter(|_| sloppy),
        sloppy: Some(sloppy),
        ..QuorumRequest::default()
    }
}

/// Levels of a write of which so many replicas must have fsynced it.
pub(super) fn writes(
    dice: &mut SmallRng,
    copies: u8,
    in_session: bool,
    durable_min: u8,
) -> QuorumRequest {
    let need: u8 = match in_session {
        true => of(dice, &[1, 1, 1, 1, 1, 2]),
        false => of(dice, &[1, 2, 2, 2, 3]),
    };
    let n = of(dice, &[3, 3, 3, 3, 2]).min(copies);
    let need = need.max(durable_min).min(n);
    let sloppy = dice.random_bool(0.5);
    let owners = of(dice, &[0, 0, 1, 2]).min(need);
    let durable = of(dice, &[need, need, 1]).max(durable_min).min(need);
    QuorumRequest {
        n: Some(n),
        w: level(need),
        pw: level(owners).filter(|_| sloppy),
        dw: level(durable),
        sloppy: Some(sloppy),
        ..QuorumRequest::default()
    }
}

fn level(count: u8) -> Option<Level> {
    Some(Level::Count(count))
}

/// Draws changes of one client. Values say which operation wrote them.
pub(super) struct Drawing<'a> {
    pub dice: &'a mut SmallRng,
    pub op: Op,
    pub value: &'a dyn Fn(&mut SmallRng, Op) -> Bytes,
    /// An increment of this session, or one that counts whenever it is carried out.
    pub count: &'a mut dyn FnMut(&mut SmallRng, i64) -> Increment,
}

impl Drawing<'_> {
    /// A change that suits the key.
    pub fn change(&mut self, key: &Key) -> Operation {
        match key.kind {
            Kind::Counter if key.only_rises() => Operation::Increment((self.count)(self.dice, 1)),
            Kind::Counter if self.dice.random_bool(0.06) => Operation::Clear,
            Kind::Counter => {
                let by = of(self.dice, &[1, 1, 2, 5, -1, -3]);
                Operation::Increment((self.count)(self.dice, by))
            }
            Kind::Map if key.can_be_cleared() && self.dice.random_bool(0.03) => Operation::Clear,
            Kind::Map => self.update(key.can_be_cleared(), 1),
            kind => self.of_kind(kind),
        }
    }

    fn of_kind(&mut self, kind: Kind) -> Operation {
        match kind {
            Kind::Counter if self.dice.random_bool(0.06) => Operation::Clear,
            Kind::Counter => {
                let by = of(self.dice, &[1, 1, 2, 5, -1, -3]);
                Operation::Increment(Increment::Once(by))
            }
            Kind::Set => match self.dice.random_range(0..100) {
                0..=2 => Operation::Clear,
                3..=54 => Operation::Add(self.elements()),
                _ => Operation::Remove(self.elements()),
            },
            Kind::Flag => of(
                self.dice,
                &[Operation::Enable, Operation::Enable, Operation::Disable, Operation::Clear],
            ),
            Kind::Max => {
                let op = i64::try_from(self.op).expect("small");
                Operation::Raise(op - self.dice.random_range(0..200))
            }
            Kind::Lww if self.dice.random_bool(0.1) => Operation::Clear,
            Kind::Lww | Kind::Register => {
                Operation::Put { value: (self.value)(self.dice, self.op), expires_ms: None }
            }
            Kind::Map => self.update(true, 2),
        }
    }

    /// A few elements of a time: each is fought over for a while and then left as it is.
    fn elements(&mut self) -> Vec<Bytes> {
        let time = self.op / 100 + self.dice.random_range(0..2);
        let count = self.dice.random_range(1..=2);
        let mut all: Vec<Bytes> =
            (0..count).map(|_| format!("{time}{}", of(self.dice, &["x", "y"])).into()).collect();
        all.dedup();
        all
    }

    fn update(&mut self, can_be_cleared: bool, depth: u32) -> Operation {
        let mut fields = vec![
            ("count", Kind::Counter),
            ("tags", Kind::Set),
            ("on", Kind::Flag),
            ("name", Kind::Register),
            ("last", Kind::Lww),
        ];
        if depth == 1 {
            fields.push(("in", Kind::Map));
        }
        if !can_be_cleared {
            fields.push(("top", Kind::Max));
        }
        let mut changes: Vec<(Field, FieldChange)> = Vec::new();
        for _ in 0..self.dice.random_range(1..=2) {
            let (name, kind) = of(self.dice, &fields);
            let field = Field { name: Bytes::from_static(name.as_bytes()), kind };
            if changes.iter().any(|(other, _)| *other == field) {
                continue;
            }
            let may_go = !(kind == Kind::Max || kind == Kind::Map && !can_be_cleared);
            let change = match may_go && self.dice.random_bool(0.08) {
                true => FieldChange::Remove,
                false => FieldChange::Change(match kind {
                    Kind::Map => self.update(can_be_cleared, depth + 1),
                    kind => self.of_kind(kind),
                }),
            };
            changes.push((field, change));
        }
        Operation::Update(changes)
    }
}
