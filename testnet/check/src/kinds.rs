//! The books of values that are no registers: what was asked and heard, laid out by key and place.
//!
//! As [`crate::books`], these know no promise. They refuse what cannot be a history.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    books::{Fate, Moment, NEVER, Nonsense},
    history::{
        Dot, Effect, Levels, Op,
        kinds::{Answered, Asked, Deed, Keeps, Shown, Told, Touch},
    },
    spans::Spans,
    verdict::Figures,
};

/// One operation.
pub(crate) struct Ask {
    pub op: Op,
    pub session: u32,
    pub key: String,
    pub touches: Vec<Touch>,
    pub context: Option<Spans>,
    pub with: Levels,
    pub begun: Moment,
    /// [`NEVER`] if no answer was heard.
    pub ended: Moment,
    pub reply: Told,
}

impl Ask {
    pub fn is_write(&self) -> bool {
        !self.touches.is_empty()
    }

    pub fn fate(&self) -> Fate {
        match &self.reply {
            Told::Stored { .. } => Fate::Certain,
            Told::Failed { effect: Effect::NotApplied, .. } => Fate::Never,
            Told::Failed { effect: Effect::Applied(1..), .. } => Fate::Certain,
            Told::Failed { .. } | Told::Silence | Told::Found { .. } => Fate::Unknown,
        }
    }

    /// Whether it may have happened, or may yet.
    pub fn may_be(&self) -> bool {
        self.is_write() && self.fate() != Fate::Never
    }

    pub fn is_certain(&self) -> bool {
        self.is_write() && self.fate() == Fate::Certain
    }

    pub fn dot(&self) -> Option<Dot> {
        match self.reply {
            Told::Stored { dot } => Some(dot),
            Told::Found { .. } | Told::Failed { .. } | Told::Silence => None,
        }
    }

    /// Whether this removal certainly has seen that change.
    pub fn has_seen(&self, change: &Ask) -> bool {
        match (&self.context, change.dot()) {
            (Some(seen), Some(dot)) => seen.contains(dot),
            (None, Some(_)) => change.ended < self.begun && self.reads_enough_for(&change.with),
            (_, None) => false,
        }
    }

    /// Whether the strict read before a removal meets an owner that acknowledged a write with these levels.
    fn reads_enough_for(&self, wrote: &Levels) -> bool {
        let n = self.with.n.max(wrote.n);
        let sure = wrote.owners.saturating_sub(wrote.need.saturating_sub(wrote.durable));
        let reads = (self.with.n / 2 + 1).max(self.with.n + 1 - self.with.need);
        sure > 0 && sure + reads > n
    }
}

/// A deed in one place, and who did it.
pub(crate) type Act<'a> = (&'a Ask, &'a Deed);

/// Everything heard about such values.
#[derive(Default)]
pub(crate) struct KindBooks {
    pub asks: Vec<Ask>,
    /// By key, what disks hold in the end.
    pub kept: BTreeMap<String, Vec<Keeps>>,
    now: Moment,
}

impl KindBooks {
    pub fn ask(&mut self, asked: &Asked) -> Result<(), Nonsense> {
        if let Some(last) = self.asks.last().filter(|last| last.op >= asked.op) {
            return Err(Nonsense::NotRising { op: asked.op, last: last.op });
        }
        self.now += 1;
        self.asks.push(Ask {
            op: asked.op,
            session: asked.session,
            key: asked.key.clone(),
            touches: asked.touches.clone(),
            context: asked.context.as_deref().map(Spans::of),
            with: asked.with,
            begun: self.now,
            ended: NEVER,
            reply: Told::Silence,
        });
        Ok(())
    }

    pub fn answer(&mut self, answered: &Answered) -> Result<(), Nonsense> {
        let op = answered.op;
        let place = self.asks.binary_search_by_key(&op, |ask| ask.op);
        let ask = &mut self.asks[place.map_err(|_| Nonsense::NotBegun(op))?];
        if ask.ended != NEVER {
            return Err(Nonsense::AnsweredTwice(op));
        }
        match (&answered.reply, ask.is_write()) {
            (Told::Stored { .. }, false) | (Told::Found { .. }, true) => {
                return Err(Nonsense::WrongAnswer(op));
            }
            _ => {}
        }
        self.now += 1;
        ask.reply = answered.reply.clone();
        // what nobody knows of may happen at any time
        ask.ended = match ask.is_write() && ask.fate() == Fate::Unknown {
            true => NEVER,
            false => self.now,
        };
        Ok(())
    }

    pub fn keep(&mut self, keeps: &Keeps) {
        self.kept.entry(keeps.key.clone()).or_default().push(keeps.clone());
    }

    /// The keys it has heard of, in order.
    pub fn keys(&self) -> BTreeSet<&str> {
        self.asks.iter().map(|ask| ask.key.as_str()).collect()
    }

    /// Adds what was heard to the figures.
    pub fn count(&self, figures: &mut Figures) {
        figures.operations += self.asks.len() as u64;
        figures.keys += self.keys().len() as u64;
        figures.held += self.kept.values().map(|kept| kept.len() as u64).sum::<u64>();
        for ask in &self.asks {
            *match ask.is_write() {
                true => &mut figures.changes,
                false => &mut figures.gets,
            } += 1;
            *match &ask.reply {
                Told::Stored { .. } => &mut figures.acknowledged,
                Told::Found { .. } => &mut figures.reads,
                Told::Failed { effect: Effect::NotApplied, .. } => &mut figures.not_applied,
                Told::Failed { effect: Effect::Applied(1..), .. } => &mut figures.applied,
                Told::Failed { .. } => &mut figures.unknown,
                Told::Silence => &mut figures.silent,
            } += 1;
        }
    }

    /// Everything, key by key and place by place.
    pub fn laid_out<'a>(&'a self, in_session: &'a BTreeSet<u32>) -> BTreeMap<&'a str, Key<'a>> {
        let mut keys: BTreeMap<&str, Key<'a>> = BTreeMap::new();
        for ask in &self.asks {
            let key = keys.entry(&ask.key).or_default();
            key.asks.push(ask);
            for touch in &ask.touches {
                key.places.entry(&touch.place).or_default();
            }
        }
        for (name, kept) in &self.kept {
            keys.entry(name).or_default().kept = kept;
        }
        for key in keys.values_mut() {
            key.in_session = Some(in_session);
            for ask in &key.asks {
                for touch in &ask.touches {
                    for (place, acts) in &mut key.places {
                        let cleared = touch.deed == Deed::Clear && is_below(place, &touch.place);
                        if *place == touch.place || cleared {
                            acts.push((*ask, &touch.deed));
                        }
                    }
                }
            }
        }
        keys
    }
}

/// All that was heard of one key.
#[derive(Default)]
pub(crate) struct Key<'a> {
    /// In order.
    pub asks: Vec<&'a Ask>,
    /// What was done to each place, in order. What clears a whole is done to each place in it.
    pub places: BTreeMap<&'a str, Vec<Act<'a>>>,
    /// What disks hold in the end.
    pub kept: &'a [Keeps],
    /// Who works in a session.
    pub in_session: Option<&'a BTreeSet<u32>>,
}

impl<'a> Key<'a> {
    /// All answers, and what they show of a place; nothing: they leave it out.
    pub fn reads(&self, place: &'a str) -> impl Iterator<Item = (&'a Ask, Option<&'a Shown>)> {
        self.asks.iter().filter_map(move |ask| match &ask.reply {
            Told::Found { shown, .. } => Some((*ask, at(shown, place))),
            Told::Stored { .. } | Told::Failed { .. } | Told::Silence => None,
        })
    }

    /// Whether whoever asks works in a session.
    pub fn is_in_session(&self, ask: &Ask) -> bool {
        self.in_session.is_some_and(|all| all.contains(&ask.session))
    }

    /// What owners hold of a place in the end.
    pub fn finals(&self, place: &'a str) -> impl Iterator<Item = (u32, Option<&'a Shown>)> {
        let readable = self.kept.iter().filter(|keeps| keeps.owner && keeps.readable);
        readable.map(move |keeps| (keeps.node, at(&keeps.shown, place)))
    }
}

/// What stands at a place.
pub(crate) fn at<'a>(shown: &'a [(String, Shown)], place: &str) -> Option<&'a Shown> {
    shown.iter().find(|(name, _)| name == place).map(|(_, shown)| shown)
}

fn is_below(place: &str, above: &str) -> bool {
    place != above
        && match above {
            "" => true,
            above => place.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')),
        }
}
