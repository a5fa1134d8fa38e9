//! The first put and get of a testnet that was started: real ones, through the client that others embed.

use std::time::{Duration, Instant};

use atoll_client::{Client, Level, Options, Profile, QuorumRequest, Receipt, RequestError};

use crate::testnet::Testnet;

/// A put and the get after it.
#[derive(Clone, Debug)]
pub struct Greeting {
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
    /// Acknowledgements that the put waited for, answers that the get waited for.
    pub quorum: u8,
    /// Who has it.
    pub put: Receipt,
    /// How long it took here.
    pub put_took: Duration,
    /// Who answered.
    pub get: Receipt,
    /// How long it took here.
    pub get_took: Duration,
}

/// Puts and gets a key of its own, with w=2 and r=2 if there are two copies.
///
/// # Errors
/// In words: it is the end of the start.
pub(crate) async fn greet(testnet: &Testnet) -> Result<Greeting, String> {
    let profile = Profile::load(&testnet.profile()).map_err(|error| error.to_string())?;
    let client = Client::connect(&profile).await.map_err(|error| error.to_string())?;
    // two of three see each other, two of more need not
    let owners = testnet.asked().replicas.min(3);
    let quorum = owners.min(2);
    let level = Some(Level::Count(quorum));
    let options = Options {
        quorum: QuorumRequest { n: Some(owners), r: level, w: level, ..QuorumRequest::default() },
        timeout: Some(Duration::from_secs(5)),
        ..Options::default()
    };
    let greeting = exchange(&client, quorum, &options).await;
    client.close().await;
    greeting.map_err(|error| error.to_string())
}

async fn exchange(
    client: &Client,
    quorum: u8,
    options: &Options,
) -> Result<Greeting, RequestError> {
    // the greeting of the last start is replaced
    let before = client.get(KEY.as_bytes(), options).await?;
    let start = Instant::now();
    let put = client.put(KEY.as_bytes(), VALUE, before.context.as_ref(), options).await?;
    let put_took = start.elapsed();
    let start = Instant::now();
    let get = client.get(KEY.as_bytes(), options).await?;
    let get_took = start.elapsed();
    let seen = get.values.iter().find(|value| value.dot == put.dot);
    let value = match seen {
        Some(value) => String::from_utf8_lossy(&value.bytes).into_owned(),
        None => {
            return Err(RequestError::Nonsense {
                node: format!("n{}", get.receipt.coordinator),
                reason: format!("the value just put under {KEY} is not there"),
            });
        }
    };
    Ok(Greeting {
        key: KEY.to_owned(),
        value,
        quorum,
        put: put.receipt,
        put_took,
        get: get.receipt,
        get_took,
    })
}

/// Of the testnet itself, so that nobody's data is in its way.
const KEY: &str = "testnet/hello";

const VALUE: &str = "hello, reef";
