//! A bucket of one kind, as its clients use it: created through a node, written with operations, read as readings.
//!
//! A [`Bucket`] borrows nothing, so nodes may come and go beside it. It knows where its keys lie and shows what disks hold
//! of them. A [`Session`] is one reader and writer that hands back what it has seen, as the client library does.

use std::{collections::BTreeMap, sync::Arc};

use atoll_antientropy::{Field, FieldChange, Increment, Kind, Operation, Reading, Sibling, State};
use atoll_node::storage::{Space, Store as _, record::Record, rows};
use atoll_ring::{NodeId, Token, View};
use atoll_wire::{
    BucketChange, BucketId, Change, Failure, Found, Get, Reply, Request, Stored, Write,
    bucket::{Creation, Properties},
};
use bytes::Bytes;

use crate::cluster::{Client, Cluster, DEFAULT, With, r};

#[derive(Clone)]
pub struct Bucket {
    pub kind: Kind,
    pub id: BucketId,
    view: Arc<View>,
    client: Client,
}

/// What goes with a write beside its operation.
#[derive(Clone, Default)]
pub struct Said {
    /// The token of what the writer has seen.
    pub context: Bytes,
    pub session: Option<Bytes>,
    pub ttl_ms: Option<u64>,
    /// The number of an operation that is repeated.
    pub operation: Option<u128>,
}

impl Said {
    /// Nothing.
    pub fn nothing() -> Said {
        Said::default()
    }

    pub fn context(context: &Bytes) -> Said {
        Said { context: context.clone(), ..Said::default() }
    }

    pub fn ttl_ms(ms: u64) -> Said {
        Said { ttl_ms: Some(ms), ..Said::default() }
    }
}

impl Bucket {
    /// A bucket of that kind, with nothing settled beforehand. Every node knows it.
    pub async fn create(cluster: &Cluster, kind: Kind) -> Bucket {
        Bucket::create_with(cluster, kind, Properties::default()).await
    }

    pub async fn create_with(cluster: &Cluster, kind: Kind, properties: Properties) -> Bucket {
        let name = format!("of {kind}");
        let change = Change::Create(Creation { name, kind, n: None, properties });
        let request = Request::BucketChange(BucketChange { change, registry: Bytes::new() });
        let via = cluster.up()[0];
        let made = match cluster.client().call(via, request, 1000).await {
            Ok(Reply::BucketChanged(made)) => made,
            other => panic!("a creation was answered with {other:?}"),
        };
        assert_eq!(made.missing, [0_u32; 0], "everybody is up");
        let client = cluster.client().in_bucket(made.bucket);
        Bucket { kind, id: made.bucket, view: cluster.view.clone(), client }
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// For clients who know that some answers will never come.
    pub fn among_losses(self) -> Bucket {
        Bucket { client: self.client.who_gives_up(), ..self }
    }

    fn token(&self, key: &str) -> Token {
        Token::of(&self.id.0, key.as_bytes())
    }

    pub fn owners(&self, key: &str) -> Vec<NodeId> {
        self.view.owners(self.view.partition(self.token(key))).all()
    }

    pub fn row(&self, key: &str) -> Bytes {
        let token = self.token(key);
        rows::data(self.view.partition(token), token, self.id, key.as_bytes())
    }

    /// Keys of this bucket in the partition of a row.
    pub fn keys_beside(&self, row: &Bytes, count: usize) -> Vec<String> {
        let all = (0..).map(|number| format!("beside {number}"));
        all.filter(|key| self.row(key)[..2] == row[..2]).take(count).collect()
    }

    /// What a node's disk holds of a key.
    pub fn state(&self, cluster: &Cluster, id: NodeId, key: &str) -> Option<State> {
        let row = self.row(key);
        let value = cluster.store(id).get(Space::Data, &row).expect("memory")?;
        let record = Record::decode(&row, &value);
        Some(record.expect("undamaged").state)
    }

    /// All owners hold the same state of a key, and it reads like this; nobody holds a hint.
    pub async fn assert_whole(&self, cluster: &Cluster, key: &str, expected: &Shown) {
        let owners = self.owners(key);
        let first = self.state(cluster, owners[0], key);
        for owner in owners {
            let state = self.state(cluster, owner, key);
            assert_eq!(state, first, "{} at {owner}", self.kind);
            let state = state.unwrap_or_else(|| State::unknown(self.kind));
            assert_eq!(&Shown::of(&state.read(0)), expected, "{} at {owner}", self.kind);
        }
        assert_eq!(cluster.hints().await, 0, "hints");
    }

    pub async fn change(
        &self,
        via: NodeId,
        key: &str,
        operation: &Operation,
        said: &Said,
        with: &With,
    ) -> Result<Stored, Failure> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let write = Write {
            context: said.context.clone(),
            session: said.session.clone(),
            ttl_ms: said.ttl_ms,
            ..Write::new(key, with.quorum(), operation)
        };
        let number = said.operation.unwrap_or_else(|| self.client.next_operation());
        match self.client.call_as(number, via, Request::Write(write), with.timeout_ms).await? {
            Reply::Written(stored) => Ok(stored),
            other => panic!("a write was answered with {other:?}"),
        }
    }

    /// A change by somebody who says nothing of what was seen, where nothing is in the way.
    pub async fn apply(&self, via: NodeId, key: &str, operation: &Operation) -> Stored {
        self.change(via, key, operation, &Said::nothing(), &DEFAULT).await.expect("enough are up")
    }

    pub async fn find(
        &self,
        via: NodeId,
        key: &str,
        session: Option<Bytes>,
        with: &With,
    ) -> Result<Found, Failure> {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let get = Get { key, session, quorum: with.quorum(), repair: with.repair };
        match self.client.call(via, Request::Get(get), with.timeout_ms).await? {
            Reply::Found(found) => Ok(found),
            other => panic!("a get was answered with {other:?}"),
        }
    }

    /// What all owners say of a key.
    pub async fn shown(&self, via: NodeId, key: &str) -> Shown {
        shown(&self.find(via, key, None, &r(3)).await.expect("all owners are up"))
    }
}

/// A reading as it can be compared: what a user sees of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The values of a register or lww.
    Values(Vec<String>),
    Number(i128),
    Elements(Vec<String>),
    IsOn(bool),
    Greatest(Option<i64>),
    /// Names of fields, ascending, and what is in them.
    Fields(Vec<(String, Shown)>),
}

impl Shown {
    pub fn of(reading: &Reading) -> Shown {
        let texts = |siblings: &mut dyn Iterator<Item = &Sibling>| {
            let mut texts: Vec<String> = siblings.map(|one| text(&one.value)).collect();
            texts.sort();
            texts
        };
        match reading {
            Reading::Register(siblings) => Shown::Values(texts(&mut siblings.iter())),
            Reading::Lww(latest) => Shown::Values(texts(&mut latest.iter())),
            Reading::Counter(number) => Shown::Number(*number),
            Reading::Set(elements) => Shown::Elements(elements.iter().map(text).collect()),
            Reading::Flag(is_on) => Shown::IsOn(*is_on),
            Reading::Max(greatest) => Shown::Greatest(*greatest),
            Reading::Map(fields) => {
                let shown =
                    |(field, reading): &(Field, Reading)| (text(&field.name), Shown::of(reading));
                Shown::Fields(fields.iter().map(shown).collect())
            }
        }
    }

    pub fn values(texts: &[&str]) -> Shown {
        Shown::Values(texts.iter().map(|text| (*text).to_owned()).collect())
    }

    pub fn elements(texts: &[&str]) -> Shown {
        Shown::Elements(texts.iter().map(|text| (*text).to_owned()).collect())
    }
}

/// What a read shows.
pub fn shown(found: &Found) -> Shown {
    Shown::of(&Reading::decode(&found.reading).expect("a reading"))
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub fn put(value: &str) -> Operation {
    Operation::Put { value: Bytes::copy_from_slice(value.as_bytes()), expires_ms: None }
}

pub fn add(elements: &[&str]) -> Operation {
    Operation::Add(elements.iter().map(|one| Bytes::copy_from_slice(one.as_bytes())).collect())
}

pub fn remove(elements: &[&str]) -> Operation {
    Operation::Remove(elements.iter().map(|one| Bytes::copy_from_slice(one.as_bytes())).collect())
}

/// An increment that counts again if it is repeated.
pub fn once(by: i64) -> Operation {
    Operation::Increment(Increment::Once(by))
}

/// So much has this session added in all.
pub fn counted(session: u128, sequence: u64, total: i64) -> Operation {
    Operation::Increment(Increment::Session { session, sequence, total })
}

pub fn update(fields: &[(&str, Kind, Operation)]) -> Operation {
    let change = |(name, kind, operation): &(&str, Kind, Operation)| {
        let name = Bytes::copy_from_slice(name.as_bytes());
        (Field { name, kind: *kind }, FieldChange::Change(operation.clone()))
    };
    Operation::Update(fields.iter().map(change).collect())
}

/// One reader and writer that remembers what it has seen, key by key.
#[derive(Default)]
pub struct Session {
    seen: BTreeMap<String, Bytes>,
}

impl Session {
    fn seen(&self, key: &str) -> Bytes {
        self.seen.get(key).cloned().unwrap_or_default()
    }

    /// Reads from whoever answers first, unless `with` says otherwise.
    pub async fn read(
        &mut self,
        bucket: &Bucket,
        via: NodeId,
        key: &str,
        with: &With,
    ) -> Result<Shown, Failure> {
        let found = bucket.find(via, key, Some(self.seen(key)), with).await?;
        self.seen.insert(key.to_owned(), found.context.clone());
        Ok(shown(&found))
    }

    /// Changes, without saying what shall be replaced.
    pub async fn change(
        &mut self,
        bucket: &Bucket,
        via: NodeId,
        key: &str,
        operation: &Operation,
        with: &With,
    ) -> Result<Stored, Failure> {
        self.change_seeing(bucket, via, key, operation, &Bytes::new(), with).await
    }

    /// Changes, in place of all that the session has seen.
    pub async fn replace(
        &mut self,
        bucket: &Bucket,
        via: NodeId,
        key: &str,
        operation: &Operation,
        with: &With,
    ) -> Result<Stored, Failure> {
        let context = self.seen(key);
        self.change_seeing(bucket, via, key, operation, &context, with).await
    }

    async fn change_seeing(
        &mut self,
        bucket: &Bucket,
        via: NodeId,
        key: &str,
        operation: &Operation,
        context: &Bytes,
        with: &With,
    ) -> Result<Stored, Failure> {
        let session = Some(self.seen(key));
        let said = Said { context: context.clone(), session, ..Said::default() };
        let stored = bucket.change(via, key, operation, &said, with).await?;
        self.seen.insert(key.to_owned(), stored.session.clone());
        Ok(stored)
    }
}
