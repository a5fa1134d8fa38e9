//! Which cluster is meant, and what is chosen for one request.

use std::{path::PathBuf, time::Duration};

use atoll_client::{
    Client, ConnectError, ContextToken, Level, NodeId, Options, Profile, QuorumRequest, Ttl,
};
use atoll_ring::Quorum;
use bytes::Bytes;
use clap::Args;
use data_encoding::BASE64URL_NOPAD;

use crate::{
    ending::Ending,
    exit::{Exit, Failed},
    output::Format,
    receipt::Telling,
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

    /// A file that holds a session: what it has read and written is seen by whatever it reads next, whoever answers
    #[arg(long, value_name = "FILE")]
    pub session: Option<PathBuf>,

    /// The number of the operation, 32 hex digits: give a repetition the same, and what was stored twice is shown once
    #[arg(long, value_name = "HEX", value_parser = parse_operation)]
    operation: Option<u128>,

    /// Say what each replica did, in a line of its own, and why the answer stands for what it does
    #[arg(short, long)]
    verbose: bool,

    /// Show each step on each node, in microseconds
    #[arg(long)]
    trace: bool,
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
        Ok(Options {
            bucket: Some(self.bucket.clone()),
            quorum,
            timeout: self.timeout,
            via: self.via,
            operation: self.operation,
            trace: self.trace,
            ..Options::default()
        })
    }
}

impl Choices {
    /// How the answer is told.
    pub fn telling(&self, format: Format, client: &Client) -> Telling {
        Telling::new(format, self.verbose, &client.view())
    }

    /// Refuses --session where there is no order in which a session could see things.
    pub fn without_session(&self) -> Result<(), Failed> {
        match &self.session {
            None => Ok(()),
            Some(_) => {
                let what =
                    "a session does one thing after the other; several keys at once have no order";
                Err(Failed::new(Exit::Refused, what)
                    .mend("put and get one by one, or leave --session out"))
            }
        }
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

/// The number of an operation as it stands on the command line.
fn parse_operation(text: &str) -> Result<u128, String> {
    match u128::from_str_radix(text, 16) {
        Ok(number) if number != 0 => Ok(number),
        Ok(_) => Err("0 is no number of an operation; draw one at random".into()),
        Err(_) => {
            Err("up to 32 hexadecimal digits, such as those of `openssl rand -hex 16`".into())
        }
    }
}

/// A time to live as it stands on the command line: above 0, at most a hundred years.
pub fn parse_ttl(text: &str) -> Result<Ttl, String> {
    match text {
        "bucket" => return Ok(Ttl::AsTheBucketSays),
        "forever" => return Ok(Ttl::ForEver),
        _ => {}
    }
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match time {
        time if time.as_millis() == 0 => Err("a time to live is above 0".into()),
        time if time > TTL_MAX => {
            Err("a time to live is at most a hundred years; `forever` has no end".into())
        }
        time => Ok(Ttl::For(time)),
    }
}

/// A hundred years of 365 days.
const TTL_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A context as text.
pub fn context_text(context: &ContextToken) -> String {
    BASE64URL_NOPAD.encode(context.as_bytes())
}
