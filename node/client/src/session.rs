//! What one reader and writer has seen, key by key.
//!
//! At R = 1 and W = 1 two reads may be answered by two owners of which one is behind. In a session they cannot go back: with
//! each request a session sends what it has seen of the key, and the coordinator asks further owners until the answer
//! knows all of that, or says `session not satisfied`. So, for each key and at any R and W (the four guarantees of Terry and
//! others, "Session guarantees for weakly consistent replicated data", 1994):
//!
//! | guarantee | because |
//! |---|---|
//! | read your writes | the event of each own write is part of what must be known |
//! | monotonic reads | so is all that a read was answered with |
//! | monotonic writes, writes follow reads | a write is coordinated by a copy that knows all of that, and brings it to the others |
//!
//! A session also gives counters their exactness. It keeps its own running total of each counter and sends that; the greater
//! sequence number wins everywhere, so the same increment counts once however often it is sent, and one that ended
//! `unknown` becomes certain with the next one of the session.
//!
//! ```no_run
//! # async fn example(client: &atoll_client::Client) -> Result<(), atoll_client::RequestError> {
//! use atoll_client::Options;
//!
//! let mut session = client.session();
//! session.put(b"cart:7", "two apples", &Options::default()).await?;
//! let read = session.get(b"cart:7", &Options::default()).await?; // sees it, whoever answers
//! session.increment(b"visits", 1, &Options::default()).await?; // in a bucket of counters
//! # Ok(())
//! # }
//! ```

pub(crate) mod file;

use std::{collections::BTreeMap, path::Path};

use atoll_antientropy::{ContextToken, Field, FieldChange, Increment, Operation};
use atoll_wire::Effect;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Client, GetReply, Options, ReadReply, RequestError, SessionFile, SessionFileError, WriteReply,
};

/// Keys a session remembers, and counters. It cannot forget one of them and keep its promise, so past that it refuses; a new
/// session is cheap.
pub const SESSION_KEYS_MAX: usize = 10_000;

/// One reader and writer. It does one thing after the other: that is what its promises are about.
pub struct Session<'a> {
    client: &'a Client,
    state: SessionState,
    file: Option<SessionFile>,
    /// Whether it remembers what it has seen, or counts only.
    remembers: bool,
}

/// What a session is made of; a [`SessionFile`] holds it between two runs of a program.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionState {
    /// The cluster it belongs to.
    pub(crate) cluster: [u8; 16],
    /// Its name in counters.
    number: u128,
    /// The token of what it has seen.
    seen: BTreeMap<Name, Bytes>,
    /// How far it has counted, at a place in a map or at the key itself.
    counted: BTreeMap<(Name, Vec<(Bytes, u8)>), Counted>,
}

/// A bucket's id and a key in it.
type Name = ([u8; 16], Bytes);

/// How far a session has counted on one counter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Counted {
    sequence: u64,
    total: i64,
}

impl SessionState {
    /// Has seen nothing and counted nothing.
    pub(crate) fn new(cluster: [u8; 16]) -> Self {
        let (seen, counted) = (BTreeMap::new(), BTreeMap::new());
        SessionState { cluster, number: rand::random(), seen, counted }
    }
}

impl Client {
    /// A new session, which lives as long as this value.
    pub fn session(&self) -> Session<'_> {
        let state = SessionState::new(self.view().cluster().0);
        Session { client: self, state, file: None, remembers: true }
    }

    /// The session in a file, or a new one that is kept there from now on. Nobody else uses the file meanwhile.
    ///
    /// # Errors
    /// See [`SessionFileError`]: the file of another cluster, or no session at all; it is in use.
    pub fn session_in(&self, path: &Path) -> Result<Session<'_>, SessionFileError> {
        let (file, state) = SessionFile::open(path, self.view().cluster().0)?;
        Ok(Session { client: self, state, file: Some(file), remembers: true })
    }
}

impl Session<'_> {
    /// Counts, and remembers nothing of what it has seen.
    #[must_use]
    pub fn for_counting(self) -> Self {
        Session { remembers: false, ..self }
    }

    /// Reads what there is under a key, of whatever kind it is.
    ///
    /// # Errors
    /// See [`RequestError`]; `session not satisfied` says what is missing.
    pub async fn read(&mut self, key: &[u8], options: &Options) -> Result<ReadReply, RequestError> {
        let name = self.name(key, options).await?;
        let seen = self.seen(&name)?;
        let reply = self.client.read_after(key, seen, options).await?;
        if let Some(context) = &reply.context {
            self.remember(name, context)?;
        }
        Ok(reply)
    }

    /// Reads all current values of a key whose values are plain bytes.
    ///
    /// # Errors
    /// As [`Session::read`].
    pub async fn get(&mut self, key: &[u8], options: &Options) -> Result<GetReply, RequestError> {
        self.read(key, options).await?.into_values()
    }

    /// Stores a value in place of everything that this session has seen of the key.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn put(
        &mut self,
        key: &[u8],
        value: impl Into<Bytes>,
        options: &Options,
    ) -> Result<WriteReply, RequestError> {
        let put = Operation::Put { value: value.into(), expires_ms: None };
        let context = self.context(key, options).await?;
        self.change(key, &put, context.as_ref(), options).await
    }

    /// Adds to a counter, exactly once.
    ///
    /// # Errors
    /// See [`RequestError`]. It has been asked twice then. If it ends `unknown`, do not repeat it: the next increment of this
    /// session makes it certain.
    pub async fn increment(
        &mut self,
        key: &[u8],
        by: i64,
        options: &Options,
    ) -> Result<WriteReply, RequestError> {
        let once = Operation::Increment(Increment::Once(by));
        self.change(key, &once, None, options).await
    }

    /// What this session has seen of a key, to be handed to a change that replaces it.
    ///
    /// # Errors
    /// There is no such bucket.
    pub async fn context(
        &self,
        key: &[u8],
        options: &Options,
    ) -> Result<Option<ContextToken>, RequestError> {
        let name = self.name(key, options).await?;
        let seen = self.state.seen.get(&name).filter(|seen| !seen.is_empty());
        Ok(seen.map(|seen| ContextToken::from(seen.clone())))
    }

    /// Does what an operation says, after all that this session has seen of the key. Increments become this session's.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn change(
        &mut self,
        key: &[u8],
        operation: &Operation,
        context: Option<&ContextToken>,
        options: &Options,
    ) -> Result<WriteReply, RequestError> {
        let name = self.name(key, options).await?;
        let seen = self.seen(&name)?;
        let before = self.state.counted.clone();
        let mut counting = Counting { state: &mut self.state, name: &name, path: Vec::new() };
        let operation = counting.operation(operation)?;
        let counts = self.state.counted != before;
        if counts {
            self.save()?; // before it is sent: a sequence number is never used for two totals
        }
        let outcome = self.client.change_after(key, &operation, context, seen, options).await;
        match &outcome {
            Ok(reply) if self.remembers => {
                let context = reply.session.as_ref().unwrap_or(&reply.context).clone();
                self.remember(name, &context)?;
            }
            Ok(_) => {}
            Err(error) if counts && error.effect() == Effect::NotApplied => {
                self.take_back(before);
                self.save()?;
            }
            Err(_) => {}
        }
        outcome
    }

    /// What was certainly not applied is not counted with the next one either. The sequence numbers stay used.
    fn take_back(&mut self, before: BTreeMap<(Name, Vec<(Bytes, u8)>), Counted>) {
        for (place, counted) in &mut self.state.counted {
            counted.total = before.get(place).map_or(0, |before| before.total);
        }
    }

    async fn name(&self, key: &[u8], options: &Options) -> Result<Name, RequestError> {
        let bucket = self.client.bucket(options).await?;
        Ok((bucket.id.0, Bytes::copy_from_slice(key)))
    }

    /// What it has seen of a key, as it travels; none, if it does not remember.
    fn seen(&self, name: &Name) -> Result<Option<Bytes>, RequestError> {
        if !self.remembers {
            return Ok(None);
        }
        if self.state.seen.len() >= SESSION_KEYS_MAX && !self.state.seen.contains_key(name) {
            return Err(RequestError::Session(format!(
                "the session has seen {SESSION_KEYS_MAX} keys, as many as it can remember; begin a new one"
            )));
        }
        Ok(Some(self.state.seen.get(name).cloned().unwrap_or_default()))
    }

    fn remember(&mut self, name: Name, context: &ContextToken) -> Result<(), RequestError> {
        if !self.remembers || context.as_bytes().is_empty() {
            return Ok(());
        }
        self.state.seen.insert(name, context.as_bytes().clone());
        self.save()
    }

    fn save(&self) -> Result<(), RequestError> {
        match &self.file {
            Some(file) => {
                file.save(&self.state).map_err(|error| RequestError::Session(error.to_string()))
            }
            None => Ok(()),
        }
    }
}

/// Makes the increments of an operation those of a session.
struct Counting<'a> {
    state: &'a mut SessionState,
    name: &'a Name,
    /// Where in a map we are.
    path: Vec<(Bytes, u8)>,
}

impl Counting<'_> {
    fn operation(&mut self, operation: &Operation) -> Result<Operation, RequestError> {
        Ok(match operation {
            Operation::Increment(Increment::Once(by)) => Operation::Increment(self.increment(*by)?),
            Operation::Update(changes) => {
                let mut counted = Vec::with_capacity(changes.len());
                for (field, change) in changes {
                    counted.push((field.clone(), self.field(field, change)?));
                }
                Operation::Update(counted)
            }
            other => other.clone(),
        })
    }

    fn field(&mut self, field: &Field, change: &FieldChange) -> Result<FieldChange, RequestError> {
        let FieldChange::Change(operation) = change else { return Ok(change.clone()) };
        self.path.push((field.name.clone(), field.kind.number()));
        let counted = self.operation(operation);
        self.path.pop();
        Ok(FieldChange::Change(counted?))
    }

    fn increment(&mut self, by: i64) -> Result<Increment, RequestError> {
        let place = (self.name.clone(), self.path.clone());
        if self.state.counted.len() >= SESSION_KEYS_MAX && !self.state.counted.contains_key(&place)
        {
            return Err(RequestError::Session(format!(
                "the session has counted on {SESSION_KEYS_MAX} counters, as many as it can remember; begin a new one"
            )));
        }
        let counted = self.state.counted.get(&place).copied().unwrap_or_default();
        let total = counted.total.checked_add(by).ok_or_else(|| {
            RequestError::Session(format!(
                "the session has counted to {} on this counter, and {by} more is beyond a number of 64 bits; begin a new one",
                counted.total
            ))
        })?;
        let counted = Counted { sequence: counted.sequence + 1, total };
        self.state.counted.insert(place, counted);
        let (session, sequence) = (self.state.number, counted.sequence);
        Ok(Increment::Session { session, sequence, total })
    }
}
