//! `atoll testnet fault disk`, `clock` and `certs`: what goes wrong within a node.
//!
//! Disks and clocks are on the node's own list, as links are, with the same times. A certificate is not: it really expires, see
//! `atoll_testnet::certificates`.

use std::str::FromStr;

use atoll_client::NodeId;
use atoll_testnet::{
    FaultError, Home, Selectors, Testnet,
    certificates::{self, CertificateError},
    faults,
};
use atoll_wire::{
    FaultList,
    faults::{ClockFault, DiskFault, When},
};
use clap::{Args, Subcommand};

use super::{
    super::{
        launcher,
        say::{failed_file, failed_open, line},
        which,
    },
    How, Named, failed_fault, now_ms, table,
    words::Delay,
};
use crate::{
    exit::{Exit, Failed},
    output::Format,
};

/// What a disk does.
#[derive(Debug, Subcommand)]
pub enum DiskCommand {
    /// There is no room: the node takes no more writes, and serves reads
    #[command(after_help = "\
Example:
  atoll testnet fault disk full n2 --for 30s

A node looks at its disk once a second or so, so it takes a moment until it says that it is read-only.")]
    Full {
        /// Nodes, such as n1,n2 or minority
        #[arg(value_name = "NODES")]
        nodes: Selectors,
        /// So many bytes are free
        #[arg(long, value_name = "BYTES", default_value_t = 0)]
        free: u64,
        #[command(flatten)]
        how: How,
    },
    /// Each fsync takes so much longer; reads are as fast as before
    #[command(after_help = "Example:\n  atoll testnet fault disk slow n2 200ms")]
    Slow {
        /// Nodes, such as n1,n2 or minority
        #[arg(value_name = "NODES")]
        nodes: Selectors,
        /// So much longer
        #[arg(value_name = "TIME")]
        by: Slower,
        #[command(flatten)]
        how: How,
    },
}

/// Whose clock, and how far off.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  atoll testnet fault clock n1 +1h
  atoll testnet fault clock n2 -5m --for 1m

It is the wall clock of the node alone, by which `lww` buckets order writes and values expire; waiting times are measured
as before, and certificates are judged by the machine's.")]
pub struct ClockArgs {
    /// Nodes, such as n1,n2 or minority
    #[arg(value_name = "NODES")]
    nodes: Selectors,
    /// +1h: it shows an hour more; -5m: five minutes less
    #[arg(value_name = "+TIME|-TIME", allow_hyphen_values = true)]
    off: Off,
    #[command(flatten)]
    how: How,
}

/// What becomes of certificates.
#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Let them expire: after some seconds nobody opens a connection with the nodes any more, until they are renewed
    #[command(after_help = "\
Example:
  atoll testnet fault certs expire n1 && atoll testnet fault certs renew n1

The certificate is signed anew for some seconds and then is over, as any would be: connections with the node are refused,
those of operators too. One that began with the certificate before it goes on to the end of that one; it ends when either
side restarts. `heal --all` renews as well.")]
    Expire(CertsArgs),
    /// Sign them again, good for a year; a node that runs takes its new one within seconds
    Renew(CertsArgs),
}

/// Whose certificates.
#[derive(Args, Debug)]
pub struct CertsArgs {
    /// Nodes, such as n1,n2 or minority
    #[arg(value_name = "NODES")]
    nodes: Selectors,
    #[command(flatten)]
    testnet: Named,
}

/// How far a clock is off, in milliseconds; not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Off(i64);

impl FromStr for Off {
    type Err = String;

    fn from_str(text: &str) -> Result<Off, String> {
        let bad = || format!("{text:?} is not how far a clock is off: such as +1h or -5m");
        let (sign, span) = match text.split_at_checked(1) {
            Some(("+", span)) => (1, span),
            Some(("-", span)) => (-1, span),
            Some(_) | None => return Err(bad()),
        };
        let span = humantime::parse_duration(span).map_err(|_| bad())?;
        match i64::try_from(span.as_millis()) {
            Ok(0) | Err(_) => Err(bad()),
            Ok(ms) => Ok(Off(sign * ms)),
        }
    }
}

/// How much longer an fsync takes, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slower(u32);

impl FromStr for Slower {
    type Err = String;

    fn from_str(text: &str) -> Result<Slower, String> {
        // of the same form as the delay of a link, and a disk has no jitter
        let Delay { delay_ms, jitter_ms } = text.parse()?;
        if jitter_ms == 0 { Ok(Slower(delay_ms)) } else { Err("a disk has no jitter".into()) }
    }
}

/// What is broken in nodes.
pub struct Broken {
    /// In one word.
    pub fault: &'static str,
    /// How.
    pub what: String,
    /// When; none = until it is healed.
    pub when: Option<When>,
}

/// `fault disk`.
pub async fn disk(home: &Home, command: DiskCommand, format: Format) -> Result<(), Failed> {
    let now_ms = now_ms();
    match command {
        DiskCommand::Full { nodes, free, how } => {
            let when = how.when(now_ms)?;
            let fault = |list: &mut FaultList| {
                list.free_bytes = Some(free);
                list.free_bytes_when = when;
            };
            let broken = Broken { fault: "disk", what: format!("{free} bytes free"), when };
            break_nodes(home, nodes, broken, &how, fault, format).await
        }
        DiskCommand::Slow { nodes, by, how } => {
            let when = how.when(now_ms)?;
            let Slower(slow_ms) = by;
            let fault = |list: &mut FaultList| list.disk = Some(DiskFault { slow_ms, when });
            let broken = Broken { fault: "disk", what: format!("slower by {slow_ms} ms"), when };
            break_nodes(home, nodes, broken, &how, fault, format).await
        }
    }
}

/// `fault clock`.
pub async fn clock(home: &Home, args: ClockArgs, format: Format) -> Result<(), Failed> {
    let ClockArgs { nodes, off: Off(ahead_ms), how } = args;
    let now_ms = now_ms();
    let when = how.when(now_ms)?;
    let fault = |list: &mut FaultList| list.clock = Some(ClockFault { ahead_ms, when });
    let what = format!("ahead by {ahead_ms} ms");
    let broken = Broken { fault: "clock", what, when };
    break_nodes(home, nodes, broken, &how, fault, format).await
}

/// Changes the lists of these nodes and says what is so now.
async fn break_nodes(
    home: &Home,
    words: Selectors,
    broken: Broken,
    how: &How,
    edit: impl Fn(&mut FaultList),
    format: Format,
) -> Result<(), Failed> {
    if let Some(seed) = how.seed {
        let what = format!("--seed {seed} decides nothing: a disk or a clock has no chance in it");
        return Err(Failed::new(Exit::Refused, what).mend("leave it out"));
    }
    let testnet = how.testnet.open(home)?;
    let nodes = which::choose_words(&testnet, vec![words]).await?;
    let _lock = testnet.lock(launcher()?.lock_limit()).await.map_err(failed_open)?;
    let told = faults::change(&testnet, &nodes, |_, list| edit(list)).await;
    let told = told.map_err(failed_fault)?;
    table::broken_nodes(&testnet, &broken, &told, format);
    Ok(())
}

/// `fault certs`.
pub async fn certs(home: &Home, command: CertsCommand, format: Format) -> Result<(), Failed> {
    let (CertsCommand::Expire(args) | CertsCommand::Renew(args)) = &command;
    let testnet = args.testnet.open(home)?;
    let nodes = which::choose_words(&testnet, vec![args.nodes.clone()]).await?;
    let _lock = testnet.lock(launcher()?.lock_limit()).await.map_err(failed_open)?;
    let (deed, done) = match command {
        CertsCommand::Expire(_) if !testnet.asked().allow_faults => {
            let (testnet, node) = (testnet.name().to_owned(), nodes[0].id);
            return Err(failed_fault(FaultError::NotAllowed { testnet, node }));
        }
        CertsCommand::Expire(_) => {
            anstream::eprintln!("  signed for some seconds; waiting until they are over");
            ("expire", certificates::expire(&testnet, &nodes, &mut line).await)
        }
        CertsCommand::Renew(_) => ("renew", certificates::renew(&testnet, &nodes, &mut line).await),
    };
    done.map_err(failed_certificate)?;
    which::Chosen { testnet, nodes, seed: None }.done(deed, format);
    Ok(())
}

/// Renews what has expired, for `heal --all`.
///
/// # Errors
/// Somebody cannot be renewed.
pub async fn renew_expired(testnet: &Testnet) -> Result<(), Failed> {
    let expired = certificates::expired(testnet).map_err(failed_certificate)?;
    let mut nodes = testnet.nodes();
    nodes.retain(|node| expired.contains(&node.id));
    if nodes.is_empty() {
        return Ok(());
    }
    certificates::renew(testnet, &nodes, &mut line).await.map_err(failed_certificate)
}

/// Nodes whose certificates have expired.
///
/// # Errors
/// A certificate cannot be read.
pub fn expired(testnet: &Testnet) -> Result<Vec<NodeId>, Failed> {
    certificates::expired(testnet).map_err(failed_certificate)
}

fn failed_certificate(error: CertificateError) -> Failed {
    let what = error.to_string();
    match error {
        CertificateError::NoAuthority { .. } => {
            Failed::new(Exit::Refused, what).mend("atoll testnet down && atoll testnet up")
        }
        CertificateError::Paused { node } => {
            Failed::new(Exit::Refused, what).mend(format!("atoll testnet resume {node}"))
        }
        CertificateError::NotTaken { node, .. } | CertificateError::StillAnswers { node } => {
            Failed::new(Exit::Other, what).mend(format!("atoll testnet logs {node}"))
        }
        CertificateError::File(error) => failed_file(error),
        CertificateError::Authority(_)
        | CertificateError::Identity(_)
        | CertificateError::Probe(_) => Failed::new(Exit::Other, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sign and a time, both of them.
    #[test]
    fn how_far_a_clock_is_off() {
        for (text, expected) in [
            ("+1h", Some(3_600_000)),
            ("-5m", Some(-300_000)),
            ("+1h30m", Some(5_400_000)),
            ("1h", None),
            ("+", None),
            ("", None),
            ("+0s", None),
            ("--5m", None),
            ("±5m", None),
            ("+5", None),
        ] {
            assert_eq!(text.parse::<Off>().ok().map(|off| off.0), expected, "{text}");
        }
    }
}
