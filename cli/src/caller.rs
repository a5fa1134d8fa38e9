//! Who asks: a client with the choices of one command, alone or as a session that lies in a file.

use std::path::{Path, PathBuf};

use atoll_client::{
    Client, ContextToken, Field, FieldChange, Increment, Operation, Options, ReadReply,
    RequestError, Session, SessionFileError, WriteReply,
};
use atoll_testnet::home::Home;

use crate::{
    exit::{Exit, Failed},
    output::Format,
    receipt::{self, Asked, Telling},
    request::{Choices, connect},
};

/// A client with the choices of one command.
pub struct Caller {
    pub client: Client,
    pub options: Options,
    session: Option<PathBuf>,
    choices: Choices,
}

impl Caller {
    /// Connects to the cluster that is meant.
    pub async fn connect(choices: &Choices, cluster: Option<&str>) -> Result<Self, Failed> {
        let options = choices.options()?;
        let (session, choices) = (choices.session.clone(), choices.clone());
        Ok(Caller { client: connect(cluster).await?, options, session, choices })
    }

    /// How the answers are told.
    pub fn telling(&self, format: Format) -> Telling {
        self.choices.telling(format, &self.client)
    }

    /// Reads with these options instead of the command's.
    pub async fn try_read_with(
        &self,
        key: &[u8],
        options: &Options,
    ) -> Result<ReadReply, RequestError> {
        match &self.session {
            Some(path) => self.session_in(path)?.read(key, options).await,
            None => self.client.read(key, options).await,
        }
    }

    /// Reads what there is under a key.
    pub async fn read(&self, key: &str) -> Result<ReadReply, Failed> {
        let read = self.try_read_with(key.as_bytes(), &self.options).await;
        read.map_err(|error| receipt::failure(Asked::Read, &error))
    }

    /// Changes a key. An increment is counted once, however often it is sent: without a session of the user's own, in one that
    /// this program keeps for counting.
    pub async fn change(
        &self,
        key: &str,
        operation: &Operation,
        context: Option<&ContextToken>,
    ) -> Result<WriteReply, Failed> {
        let key = key.as_bytes();
        let changed = match &self.session {
            Some(path) => match self.session_in(path) {
                Ok(mut session) => session.change(key, operation, context, &self.options).await,
                Err(error) => Err(error),
            },
            None if counts(operation) => {
                let mut session = self.counting()?;
                session.change(key, operation, context, &self.options).await
            }
            None => self.client.change(key, operation, context, &self.options).await,
        };
        changed.map_err(|error| receipt::failure(Asked::of(operation), &error))
    }

    /// Says goodbye.
    pub async fn close(&self) {
        self.client.close().await;
    }

    fn session_in(&self, path: &Path) -> Result<Session<'_>, RequestError> {
        self.client.session_in(path).map_err(|error| RequestError::Session(error.to_string()))
    }

    /// A session for counting that no other program uses right now.
    fn counting(&self) -> Result<Session<'_>, Failed> {
        let refused = |what: String| Failed::new(Exit::Refused, what);
        let folder = Home::find().map_err(|error| refused(error.to_string()))?;
        let cluster = self.client.view().cluster();
        let folder = folder.folder().join("counting").join(cluster.to_string());
        std::fs::create_dir_all(&folder)
            .map_err(|error| refused(format!("cannot make {}: {error}", folder.display())))?;
        for number in 1..=COUNTING_SESSIONS_MAX {
            match self.client.session_in(&folder.join(number.to_string())) {
                Ok(session) => return Ok(session.for_counting()),
                Err(SessionFileError::InUse { .. }) => {}
                Err(error) => return Err(refused(error.to_string())),
            }
        }
        let what = format!(
            "{COUNTING_SESSIONS_MAX} other programs are counting right now, as many as there are sessions for; wait, or give \
             --session FILE"
        );
        Err(refused(what))
    }
}

/// Programs that may count at the same time without a session of their own. Each session stays in every counter that it has
/// counted on, so there must not be many.
const COUNTING_SESSIONS_MAX: u32 = 64;

/// Whether there is an increment in it.
pub fn counts(operation: &Operation) -> bool {
    match operation {
        Operation::Increment(Increment::Once(_)) => true,
        Operation::Update(changes) => changes.iter().any(|(_, change): &(Field, FieldChange)| {
            matches!(change, FieldChange::Change(operation) if counts(operation))
        }),
        _ => false,
    }
}
