//! `atoll testnet up`: progress on stderr, then what a person wants to know and type next.

use std::{env, path::PathBuf, time::Duration};

use atoll_client::NodeId;
use atoll_testnet::{Greeting, Home, Testnet, Up, Wish};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    UpArgs, launcher,
    say::{failed_open, failed_up, line, ms},
    status,
};
use crate::{
    exit::{Exit, Failed},
    output::{self, Format},
    receipt,
};

/// Runs the command.
pub async fn run(home: &Home, args: UpArgs, format: Format) -> Result<(), Failed> {
    let wish = Wish {
        name: args.name.or_else(|| home.meant().map(str::to_owned)),
        nodes: args.nodes,
        zones: args.zones,
        replicas: args.replicas,
        partitions: args.partitions,
        base_port: args.base_port,
        folder: args.dir,
        ephemeral: args.ephemeral,
        allow_faults: args.allow_faults,
    };
    let launcher = launcher()?;
    // both from the beginning: between the start and the stay no Ctrl-C gets lost
    let (during_start, during_stay) = (Interrupt::expect()?, Interrupt::expect()?);
    let up = atoll_testnet::up(home, &launcher, &wish, during_start.comes(), &mut line)
        .await
        .map_err(failed_up)?;
    let look = atoll_testnet::look(&up.testnet).await.map_err(failed_open)?;
    match format {
        Format::Json => output::json(&Document {
            schema: "atoll.testnet-up/v1",
            name: up.testnet.name().to_owned(),
            directory: up.testnet.folder().to_owned(),
            profile: up.testnet.profile(),
            nodes: status::documents(&look),
            greeting: up.greeting.as_ref().map(GreetingDocument::of),
        }),
        Format::Plain => anstream::print!("{}", status::table(&look, format)),
        Format::Table => {
            headline(&up);
            anstream::print!("{}", status::table(&look, format));
            rest_of_banner(&up, wish.ephemeral);
        }
    }
    if wish.ephemeral { keep(home, &up.testnet, during_stay).await } else { Ok(()) }
}

/// Stays until Ctrl-C, or until somebody else has removed the testnet; then ends and removes it.
async fn keep(home: &Home, testnet: &Testnet, interrupt: Interrupt) -> Result<(), Failed> {
    let removed = async {
        while testnet.exists() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::select! { biased;
        () = interrupt.comes() => {}
        () = removed => return Ok(()),
    }
    anstream::eprintln!();
    atoll_testnet::down(home, &launcher()?, testnet, true, &mut line).await.map_err(failed_open)
}

fn headline(up: &Up) {
    let asked = up.testnet.asked();
    let nodes = u32::try_from(up.testnet.nodes().len()).unwrap_or(u32::MAX);
    let deed = if up.greeting.is_some() { "is up" } else { "was up already" };
    anstream::println!(
        "\n\x1b[1mtestnet {} {deed}\x1b[0m: {}, {} of each key, {}, {} partitions\n",
        up.testnet.name(),
        count(nodes, "node", "nodes"),
        count(asked.replicas.into(), "copy", "copies"),
        count(asked.zones, "zone", "zones"),
        asked.partitions.count(),
    );
}

fn rest_of_banner(up: &Up, ephemeral: bool) {
    let atoll = typed();
    let nodes = up.testnet.nodes();
    let node = nodes.get(1).or(nodes.first()).map_or(NodeId(1), |node| node.id);
    anstream::println!("\ndirectory  {}", up.testnet.folder().display());
    if let Some(greeting) = &up.greeting {
        let Greeting { key, value, quorum, .. } = greeting;
        anstream::println!("\nStored and read back just now:");
        anstream::println!("  put {key} -w {quorum}  in {}", ms(greeting.put_took));
        anstream::println!("      {}", receipt::line(&greeting.put));
        anstream::println!("  get {key} -r {quorum}  in {}: {value}", ms(greeting.get_took));
        anstream::println!("      {}", receipt::line(&greeting.get));
    }
    anstream::println!("\nTry:");
    anstream::println!("  {atoll} put greeting hello");
    anstream::println!("  {atoll} get greeting -o json");
    anstream::println!("  {atoll} testnet kill {node}   # back again: testnet start {node}");
    if ephemeral {
        anstream::println!("\nCtrl-C here ends all nodes and removes the testnet.");
    } else {
        anstream::println!("\nStop it (its data is kept):");
        anstream::println!("  {atoll} testnet down {}", up.testnet.name());
    }
}

fn count(number: u32, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// What to type to run this program: `atoll` if the shell finds it, else its path, the shorter way.
fn typed() -> String {
    let Ok(program) = env::current_exe().and_then(|program| program.canonicalize()) else {
        return "atoll".into();
    };
    let in_path = env::var_os("PATH").and_then(|path| {
        env::split_paths(&path).map(|folder| folder.join("atoll")).find(|file| file.is_file())
    });
    if in_path.and_then(|file| file.canonicalize().ok()).is_some_and(|found| found == program) {
        return "atoll".into();
    }
    let here = env::current_dir().and_then(|here| here.canonicalize()).ok();
    match here.and_then(|here| program.strip_prefix(here).map(PathBuf::from).ok()) {
        Some(inside) => format!("./{}", inside.display()),
        None => program.display().to_string(),
    }
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    name: String,
    directory: PathBuf,
    profile: PathBuf,
    nodes: Vec<status::NodeDocument>,
    #[serde(skip_serializing_if = "Option::is_none")]
    greeting: Option<GreetingDocument>,
}

#[derive(Serialize)]
struct GreetingDocument {
    key: String,
    value: String,
    put: receipt::Document,
    put_ms: f64,
    get: receipt::Document,
    get_ms: f64,
}

impl GreetingDocument {
    fn of(greeting: &Greeting) -> Self {
        GreetingDocument {
            key: greeting.key.clone(),
            value: greeting.value.clone(),
            put: receipt::of_write(&greeting.put),
            put_ms: greeting.put_took.as_secs_f64() * 1000.0,
            get: receipt::of_read(&greeting.get),
            get_ms: greeting.get_took.as_secs_f64() * 1000.0,
        }
    }
}

/// Ctrl-C, SIGTERM, or the end of the terminal. From the moment it is expected none of them ends us by itself.
pub struct Interrupt {
    signals: [Signal; 3],
}

impl Interrupt {
    /// Begins to listen.
    pub fn expect() -> Result<Interrupt, Failed> {
        let listen = |kind| {
            let failed =
                |error| Failed::new(Exit::Other, format!("cannot listen for Ctrl-C: {error}"));
            signal(kind).map_err(failed)
        };
        let signals = [
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        ];
        Ok(Interrupt { signals })
    }

    /// Waits for one of them.
    pub async fn comes(mut self) {
        self.next().await;
    }

    /// Waits for the next of them.
    pub async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! { biased;
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
