//! `down`: ends all nodes of a testnet, and removes it if asked to.

use crate::{
    event::{Event, Hear},
    home::Home,
    start::Launcher,
    stop,
    testnet::{OpenError, Testnet},
};

/// Ends all nodes. An ephemeral testnet is removed too, any other one only if `remove` says so.
///
/// # Errors
/// See [`OpenError`].
pub async fn down(
    home: &Home,
    launcher: &Launcher,
    testnet: &Testnet,
    remove: bool,
    hear: Hear<'_>,
) -> Result<(), OpenError> {
    let lock = testnet.lock(launcher.lock_limit()).await?;
    stop::stop(testnet.nodes(), launcher.stop_limit, hear).await?;
    if remove || testnet.asked().ephemeral {
        testnet.remove(home, lock)?;
        hear(Event::Removed { folder: testnet.folder().to_owned() });
    }
    Ok(())
}
