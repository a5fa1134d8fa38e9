//! Events as lines, errors as words with what to do about them.

use std::time::Duration;

use atoll_testnet::{
    AskedError, ClaimError, Event, FileError, HomeError, OpenError, PapersError, StartError,
    UpError,
};

use crate::exit::{Exit, Failed};

/// One line per event, on stderr: what a command prints on stdout is its result.
pub fn line(event: Event) {
    anstream::eprintln!("{}", words(&event));
}

/// An event as a line.
pub fn words(event: &Event) -> String {
    match event {
        Event::Warning(warning) => format!("\x1b[33mwarning\x1b[0m: {warning}"),
        Event::Created { folder, first_port, nodes } => {
            let ports = match u32::from(*first_port) + nodes - 1 {
                last_port if *nodes > 1 => format!("UDP ports {first_port} to {last_port}"),
                _ => format!("UDP port {first_port}"),
            };
            format!("made {} with {ports}", folder.display())
        }
        Event::PortTaken { port } => {
            format!("  port {port} was taken meanwhile; trying the next ones")
        }
        Event::Registered { node, address, zone } => {
            format!("  {node:<3} registered at {address}, zone {zone}")
        }
        Event::Ready { node, after: Some(after) } => {
            format!("  {node:<3} \x1b[32mready\x1b[0m after {}", ms(*after))
        }
        Event::Ready { node, after: None } => {
            format!("  {node:<3} \x1b[32mready\x1b[0m, ran already")
        }
        Event::Resumed { node } => format!("  {node:<3} goes on"),
        Event::NotPaused { node } => format!("  {node:<3} was not paused"),
        Event::Paused { node } => format!("  {node:<3} paused"),
        Event::Stopped { node, after } => {
            format!("  {node:<3} stopped after {}", ms(*after))
        }
        Event::KilledAfterStop { node, after } => {
            format!("  {node:<3} killed: it did not end within {}", ms(*after))
        }
        Event::Killed { node } => format!("  {node:<3} killed"),
        Event::Wiped { node } => format!("  {node:<3} wiped: its data is gone"),
        Event::CertificateExpired { node } => {
            format!("  {node:<3} is shown to others with a certificate that has expired")
        }
        Event::CertificateRenewed { node } => {
            format!("  {node:<3} has a certificate that is good")
        }
        Event::NotRunning { node } => format!("  {node:<3} was not running"),
        Event::Removed { folder } => format!("  removed {}", folder.display()),
    }
}

/// A time as people compare it.
pub fn ms(time: Duration) -> String {
    if time < Duration::from_millis(10) {
        format!("{:.1} ms", time.as_secs_f64() * 1000.0)
    } else {
        format!("{} ms", time.as_millis())
    }
}

/// Why there is no testnet now.
pub fn failed_up(error: UpError) -> Failed {
    let what = error.to_string();
    match error {
        UpError::Home(error) => failed_home(error),
        UpError::Asked(error) => failed_asked(&error),
        UpError::Open(error) => failed_open(error),
        UpError::Start(error) => failed_start(&error),
        UpError::File(error) => failed_file(error),
        UpError::Claim(error) => {
            let failed = Failed::new(Exit::Refused, what);
            match error {
                ClaimError::LivesElsewhere { .. } => {
                    failed.mend("leave out --dir, or choose another --name")
                }
                ClaimError::NotEmpty { .. } => {
                    failed.mend("a folder that is empty or does not exist")
                }
                ClaimError::Home(error) => failed_home(error),
                ClaimError::File(error) => failed_file(error),
            }
        }
        UpError::NoPorts(_) => Failed::new(Exit::Refused, what).mend("a lower --base-port"),
        UpError::PortTaken { port, .. } => Failed::new(Exit::Other, what).mend(format!(
            "find out who has it and end it (ss -ulnp 'sport = :{port}'), or take another --name"
        )),
        UpError::RunsWithoutFaults { name } => Failed::new(Exit::Refused, what).mend(format!(
            "atoll testnet down {name}, then up with --allow-faults: its data is kept"
        )),
        UpError::Greeting { .. } => {
            Failed::new(Exit::Other, what).mend(
                "what the nodes say: atoll testnet logs; what is broken on purpose: atoll testnet fault ls",
            )
        }
        UpError::Papers(error) => failed_papers(&error),
        UpError::Interrupted => interrupted(),
    }
}

/// Why nodes did not become ready: which one, how it ended, what it said last, where the rest is.
pub fn failed_start(error: &StartError) -> Failed {
    let exit = match error {
        StartError::Interrupted => return interrupted(),
        // the node's own exit codes say the same as ours
        StartError::Exited { status, .. } => match status.code() {
            Some(2) => Exit::Refused,
            Some(10) => Exit::StorageFailed,
            Some(12) => Exit::Removed,
            Some(_) | None => Exit::Other,
        },
        StartError::Spawn { .. }
        | StartError::Silent { .. }
        | StartError::Probe(_)
        | StartError::File(_) => Exit::Other,
    };
    let mut what = error.to_string();
    if let Some((last_lines, log)) = error.log() {
        if last_lines.is_empty() {
            what.push_str("\n  it has written nothing");
        }
        for line in last_lines {
            what.push_str(&format!("\n  | {line}"));
        }
        what.push_str(&format!("\n  its log: {}", log.display()));
        what.push_str("\n  nothing that was started with it is left running");
    }
    Failed::new(exit, what)
}

/// What a node needs could not be written.
pub fn failed_papers(error: &PapersError) -> Failed {
    Failed::new(Exit::Other, error.to_string())
}

/// A testnet that cannot be used.
pub fn failed_open(error: OpenError) -> Failed {
    let what = error.to_string();
    match error {
        OpenError::Home(error) => failed_home(error),
        OpenError::Asked(error) => failed_asked(&error),
        OpenError::File(error) => failed_file(error),
        OpenError::NoNode { .. } => Failed::new(Exit::Refused, what),
        OpenError::Busy { .. } => Failed::new(Exit::Other, what).mend("again when that is done"),
    }
}

/// A name that leads nowhere.
pub fn failed_home(error: HomeError) -> Failed {
    match error {
        HomeError::File(error) => failed_file(error),
        HomeError::Nowhere
        | HomeError::NoneKnown
        | HomeError::NoneCurrent { .. }
        | HomeError::Unknown { .. }
        | HomeError::Removed { .. }
        | HomeError::BadName { .. }
        | HomeError::NoFile { .. } => Failed::new(Exit::Refused, error.to_string()),
    }
}

/// A file or process that cannot be handled.
pub fn failed_file(error: FileError) -> Failed {
    Failed::new(Exit::Other, error.to_string())
}

fn failed_asked(error: &AskedError) -> Failed {
    let failed = Failed::new(Exit::Refused, error.to_string());
    match error.mend() {
        Some(mend) => failed.mend(mend),
        None => failed,
    }
}

fn interrupted() -> Failed {
    Failed::new(Exit::Interrupted, "interrupted; nothing that was started is left running")
}
