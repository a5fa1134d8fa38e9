//! What is to be done next: drawn from a session's own chance, so that the seed decides it and not the answers.

use atoll_client::NodeId;
use rand::{Rng as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    Through,
    worker::{Load, NOISE_BYTES},
};

/// A session's dice.
pub(crate) struct Chance {
    session: u32,
    dice: SmallRng,
}

/// An operation that is drawn and not yet done.
pub(crate) struct Operation {
    /// Whose.
    pub session: u32,
    pub key: u32,
    pub deed: Deed,
}

pub(crate) enum Deed {
    /// Through this node, or through an owner.
    Read(Option<NodeId>),
    /// The value is the noise from here on.
    Write(usize),
}

impl Chance {
    /// The session with this number, from 0. Its chance branches off from `dice`.
    pub fn new(session: u32, dice: &mut SmallRng) -> Chance {
        Chance { session, dice: SmallRng::from_rng(dice) }
    }

    /// The session's next operation.
    pub fn draw(&mut self, load: &Load) -> Operation {
        let run = &load.run;
        if self.dice.random_bool(run.read_ratio) {
            let key = load.keys.any(&mut self.dice);
            let via = match run.through {
                Through::Owners => None,
                Through::Any => Some(load.members[self.dice.random_range(0..load.members.len())]),
            };
            Operation { session: self.session, key, deed: Deed::Read(via) }
        } else {
            let key = match run.shared_keys {
                true => load.keys.any(&mut self.dice),
                false => load.keys.own(self.session, &mut self.dice),
            };
            self.write(key)
        }
    }

    /// A write of this key.
    pub fn write(&mut self, key: u32) -> Operation {
        let from = self.dice.random_range(0..=NOISE_BYTES);
        Operation { session: self.session, key, deed: Deed::Write(from) }
    }

    /// All keys that this session writes.
    pub fn own_keys(&self, load: &Load) -> impl Iterator<Item = u32> + use<> {
        load.keys.all_of(self.session)
    }
}
