//! Ending nodes, politely and otherwise; pausing them and letting them go on; taking their disks away.

use std::time::Duration;

use rustix::process::Signal;
use tokio::{task::JoinSet, time::Instant};

use crate::{
    event::{Event, Hear},
    files::FileError,
    node::{Condition, Node},
    poll,
};

/// Asks these nodes to end and kills whoever takes longer than `limit`.
///
/// # Errors
/// A process cannot be signalled, or a pid file not be read.
pub async fn stop(nodes: Vec<Node>, limit: Duration, hear: Hear<'_>) -> Result<(), FileError> {
    let mut stops = JoinSet::new();
    for node in nodes {
        stops.spawn(stop_one(node, limit));
    }
    let mut first_error = Ok(());
    while let Some(stop) = stops.join_next().await {
        match stop.expect("stopping does not panic") {
            Ok(event) => hear(event),
            // the others shall end all the same
            Err(error) => first_error = first_error.and(Err(error)),
        }
    }
    first_error
}

/// Ends what a start that failed has started. Who has failed is gone already, and that is no news.
pub(crate) async fn undo(
    started: Vec<Node>,
    limit: Duration,
    hear: Hear<'_>,
) -> Result<(), FileError> {
    let mut hear_of_others = |event| match event {
        Event::NotRunning { .. } => {}
        event => hear(event),
    };
    stop(started, limit, &mut hear_of_others).await
}

async fn stop_one(node: Node, limit: Duration) -> Result<Event, FileError> {
    let since = Instant::now();
    let id = node.id;
    if !node.signal(Signal::TERM)? {
        node.forget()?;
        return Ok(Event::NotRunning { node: id });
    }
    // a paused process would hear of it only when it goes on
    node.signal(Signal::CONT)?;
    let event = if ended(&node, limit).await? {
        Event::Stopped { node: id, after: since.elapsed() }
    } else {
        node.signal(Signal::KILL)?;
        ended(&node, KILL_LIMIT).await?;
        Event::KilledAfterStop { node: id, after: limit }
    };
    node.forget()?;
    Ok(event)
}

/// Kills these nodes at once, as a power cut would (the system keeps what they have written).
///
/// # Errors
/// As [`stop`].
pub async fn kill(nodes: &[Node], hear: Hear<'_>) -> Result<(), FileError> {
    let mut killed = Vec::new();
    for node in nodes {
        if node.signal(Signal::KILL)? {
            killed.push(node);
        } else {
            hear(Event::NotRunning { node: node.id });
        }
    }
    // the pid file stays: it tells a killed node from one that was stopped
    for node in killed {
        ended(node, KILL_LIMIT).await?;
        hear(Event::Killed { node: node.id });
    }
    Ok(())
}

/// Kills those of these nodes that run or are paused; who does not run is no news.
///
/// # Errors
/// As [`stop`].
pub async fn kill_running(nodes: &[Node], hear: Hear<'_>) -> Result<(), FileError> {
    let mut running = Vec::new();
    for node in nodes {
        if let Condition::Running(_) | Condition::Paused(_) = node.condition()? {
            running.push(node.clone());
        }
    }
    kill(&running, hear).await
}

/// Takes the disks of these nodes away: kills those that run, and removes what they have stored. The testnet's lock must be
/// held, or one of them may be started meanwhile.
///
/// # Errors
/// As [`stop`], and files that cannot be removed.
pub async fn wipe(nodes: &[Node], hear: Hear<'_>) -> Result<(), FileError> {
    kill_running(nodes, hear).await?;
    for node in nodes {
        node.wipe()?;
        hear(Event::Wiped { node: node.id });
    }
    Ok(())
}

/// Stops the processes of these nodes where they are. They keep their sockets and say nothing.
///
/// # Errors
/// As [`stop`].
pub fn pause(nodes: &[Node], hear: Hear<'_>) -> Result<(), FileError> {
    for node in nodes {
        let node_id = node.id;
        hear(match node.signal(Signal::STOP)? {
            true => Event::Paused { node: node_id },
            false => Event::NotRunning { node: node_id },
        });
    }
    Ok(())
}

/// Lets paused nodes go on.
///
/// # Errors
/// As [`stop`].
pub fn resume(nodes: &[Node], hear: Hear<'_>) -> Result<(), FileError> {
    for node in nodes {
        let event = match node.condition()? {
            Condition::Paused(_) if node.signal(Signal::CONT)? => Event::Resumed { node: node.id },
            Condition::Running(_) => Event::NotPaused { node: node.id },
            Condition::Paused(_) | Condition::Stopped | Condition::Dead => {
                Event::NotRunning { node: node.id }
            }
        };
        hear(event);
    }
    Ok(())
}

pub(crate) async fn ended(node: &Node, limit: Duration) -> Result<bool, FileError> {
    let look = || match node.condition() {
        Ok(Condition::Stopped | Condition::Dead) => Some(Ok(())),
        Ok(Condition::Running(_) | Condition::Paused(_)) => None,
        Err(error) => Some(Err(error)),
    };
    match poll::until(limit, look).await {
        Some(seen) => seen.map(|()| true),
        None => Ok(false),
    }
}

/// A killed process is gone as soon as the system has cleaned up after it.
const KILL_LIMIT: Duration = Duration::from_secs(5);
