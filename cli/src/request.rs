//! Which cluster is meant, and what is chosen for one request.

use std::time::Duration;

use atoll_client::{
    Client, ConnectError, ContextToken, Level, NodeId, Options, Profile, QuorumRequest,
};
use atoll_ring::Quorum;
use bytes::Bytes;
use clap::Args;
use data_encoding::BASE64URL_NOPAD;

use crate::{
    ending::Ending,
    exit::{Exit, Failed},
};

/// How many must answer. Every command that reads or writes takes these.
#[derive(Args, Clone, Copy, Debug)]
pub struct QuorumFlags {
    /// Owners taking part, 1 to the bucket's copies [default: all copies]
    #[arg(short, value_name = "N")]
    n: Option<u8>,

    /// Answers a read needs: a number, one, two, three, quorum or all [default: the bucket's, else quorum]
    #[arg(short, value_name = "LEVEL")]
    r: Option<Level>,

    /// Acknowledgements a write needs [default: the bucket's, else quorum]
    #[arg(short, value_name = "LEVEL")]
    w: Option<Level>,

    /// Of the answers, how many must come from owners, not from fallbacks [default: the bucket's, else 0]
    #[arg(long, value_name = "LEVEL")]
    pr: Option<Level>,

    /// Of the acknowledgements, how many must come from owners [default: the bucket's, else 0]
    #[arg(long, value_name = "LEVEL")]
    pw: Option<Level>,

    /// Of the acknowledgements, how many must be on stable storage [default: the bucket's, else as many as -w]
    #[arg(long, value_name = "LEVEL")]
    dw: Option<Level>,

    /// Fallbacks may stand in for owners that are out of reach: available, and eventual (the default, if the bucket does not say otherwise)
    #[arg(long, overrides_with = "strict")]
    sloppy: bool,

    /// Only owners count: if too few of them can be reached, the request fails
    #[arg(long)]
    strict: bool,
}

impl QuorumFlags {
    /// As it travels; whether it contradicts itself is not checked here.
    pub fn request(self) -> QuorumRequest {
        let QuorumFlags { n, r, w, pr, pw, dw, sloppy, strict } = self;
        let sloppy = (sloppy || strict).then_some(sloppy);
        QuorumRequest { n, r, w, pr, pw, dw, sloppy }
    }
}

/// The choices for one request.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Choices for this request")]
pub struct Choices {
    #[command(flatten)]
    quorum: QuorumFlags,

    /// For the whole request [default: the bucket's, else 1s]
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,

    /// The node that shall coordinate, such as n3 [default: an owner of the key]
    #[arg(long, value_name = "NODE")]
    via: Option<NodeId>,

    /// The bucket: its name, or NAME@ID for one of several with that name; what is not chosen here is as the bucket has it
    #[arg(long, value_name = "NAME", default_value = "default")]
    bucket: String,
}

impl Choices {
    /// As the client takes them.
    pub fn options(&self) -> Result<Options, Failed> {
        if self.timeout.is_some_and(|time| time.is_zero() || time > Duration::from_secs(60)) {
            let what = "--timeout must be above 0 and at most 60s";
            return Err(Failed::new(Exit::Refused, what));
        }
        let quorum = self.quorum.request();
        Quorum::check(&quorum).map_err(|error| Failed::new(Exit::Refused, error.to_string()))?;
        let (bucket, timeout, via) = (Some(self.bucket.clone()), self.timeout, self.via);
        Ok(Options { bucket, quorum, timeout, via, repair: None })
    }
}

/// The profile of the cluster that is meant.
pub fn profile(cluster: Option<&str>) -> Result<Profile, Failed> {
    let path = atoll_testnet::home::resolve(cluster)
        .map_err(|error| Failed::new(Exit::Refused, error.to_string()))?;
    Profile::load(&path).map_err(|error| Failed::new(Exit::Refused, error.to_string()))
}

/// A client of the cluster that is meant.
pub async fn connect(cluster: Option<&str>) -> Result<Client, Failed> {
    connect_as(&profile(cluster)?).await
}

/// A client with this profile.
pub async fn connect_as(profile: &Profile) -> Result<Client, Failed> {
    Client::connect(profile).await.map_err(|error| cannot_connect(&error, Some(profile)))
}

/// Why there is no client, and what to do.
pub fn cannot_connect(error: &ConnectError, profile: Option<&Profile>) -> Failed {
    match error {
        ConnectError::Profile(_)
        | ConnectError::Identity(_)
        | ConnectError::NoSeeds
        | ConnectError::Socket(_) => Failed::new(Exit::Refused, error.to_string()),
        ConnectError::Unreachable { .. } => {
            let failed = Failed::new(Exit::CannotConnect, error.to_string());
            match profile.and_then(|profile| Some((profile, Ending::of_profile(profile)?))) {
                Some((profile, ending)) if ending.is_over() => {
                    failed.mend(ending.for_caller(profile))
                }
                Some(_) | None => failed.mend("is it running? atoll testnet ls"),
            }
        }
    }
}

/// A context as it stands on the command line.
pub fn parse_context(text: &str) -> Result<ContextToken, String> {
    let bytes = BASE64URL_NOPAD
        .decode(text.trim().as_bytes())
        .map_err(|error| format!("not a context: {error}; copy it from `atoll get KEY -o json`"))?;
    let token = ContextToken::from(Bytes::from(bytes));
    token.peek().map_err(|error| error.to_string())?;
    Ok(token)
}

/// A context as text.
pub fn context_text(context: &ContextToken) -> String {
    BASE64URL_NOPAD.encode(context.as_bytes())
}
