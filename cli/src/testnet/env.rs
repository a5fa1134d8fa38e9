//! `atoll testnet env`: where a testnet is, as variables of a shell or as a document.
//!
//! Ports and folders of a testnet never move, so what a script has read once stays true. Who runs does not: that is what
//! `ATOLL_NODES_RUNNING` was at this moment.

use std::path::PathBuf;

use atoll_testnet::{Condition, Home, Testnet};
use clap::Args;
use serde::Serialize;

use super::{Named, say::failed_file};
use crate::{
    exit::Failed,
    output::{self, Format},
};

/// Which testnet.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  eval \"$(atoll testnet env)\"                this shell speaks to this testnet, whatever is started later
  for node in $ATOLL_NODES; do atoll testnet restart \"$node\"; done
  atoll testnet env -o json | jq -r '.nodes[].address'

ATOLL_CLUSTER, ATOLL_HOME and ATOLL_TESTNET are read by atoll itself. unset ATOLL_CLUSTER ATOLL_TESTNET ends it.")]
pub struct EnvArgs {
    #[command(flatten)]
    testnet: Named,
}

#[derive(Serialize)]
struct Document {
    schema: &'static str,
    name: String,
    home: PathBuf,
    directory: PathBuf,
    profile: PathBuf,
    nodes: Vec<NodeDocument>,
}

#[derive(Serialize)]
struct NodeDocument {
    node: String,
    address: String,
    zone: String,
    directory: PathBuf,
    log: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

/// Runs the command.
pub fn run(home: &Home, args: &EnvArgs, format: Format) -> Result<(), Failed> {
    let testnet = args.testnet.open(home)?;
    let document = Document::of(home, &testnet)?;
    match format {
        Format::Json => output::json(&document),
        Format::Table | Format::Plain => {
            for (name, value) in document.variables() {
                anstream::println!("export {name}={}", quoted(&value));
            }
        }
    }
    Ok(())
}

impl Document {
    fn of(home: &Home, testnet: &Testnet) -> Result<Document, Failed> {
        let mut nodes = Vec::new();
        for node in testnet.nodes() {
            let pid = match node.condition().map_err(failed_file)? {
                Condition::Running(process) | Condition::Paused(process) => Some(process.pid),
                Condition::Stopped | Condition::Dead => None,
            };
            nodes.push(NodeDocument {
                node: node.id.to_string(),
                address: node.address.to_string(),
                zone: node.zone.clone(),
                directory: node.folder().to_owned(),
                log: node.log(),
                pid,
            });
        }
        Ok(Document {
            schema: "atoll.testnet-env/v1",
            name: testnet.name().to_owned(),
            home: home.folder().to_owned(),
            directory: testnet.folder().to_owned(),
            profile: testnet.profile(),
            nodes,
        })
    }

    fn variables(&self) -> Vec<(String, String)> {
        let path = |path: &PathBuf| path.display().to_string();
        let list = |of: &dyn Fn(&NodeDocument) -> Option<String>| {
            self.nodes.iter().filter_map(of).collect::<Vec<_>>().join(" ")
        };
        let mut variables = vec![
            ("ATOLL_HOME".to_owned(), path(&self.home)),
            ("ATOLL_TESTNET".to_owned(), self.name.clone()),
            ("ATOLL_CLUSTER".to_owned(), path(&self.profile)),
            ("ATOLL_TESTNET_DIR".to_owned(), path(&self.directory)),
            ("ATOLL_NODES".to_owned(), list(&|node| Some(node.node.clone()))),
            ("ATOLL_NODES_RUNNING".to_owned(), list(&|node| node.pid.map(|_| node.node.clone()))),
            ("ATOLL_ADDRESSES".to_owned(), list(&|node| Some(node.address.clone()))),
        ];
        for node in &self.nodes {
            let name = node.node.to_uppercase();
            variables.push((format!("ATOLL_{name}_ADDRESS"), node.address.clone()));
            variables.push((format!("ATOLL_{name}_DIR"), path(&node.directory)));
        }
        variables
    }
}

/// As one word of any POSIX shell, whatever is in it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A real shell reads back what went in.
    #[test]
    fn a_shell_reads_what_was_meant() {
        for value in ["plain", "", "two words", "it's", "$(rm) `x` \"y\" \\", "a\nb", "'"] {
            let script = format!("value={}; printf %s \"$value\"", quoted(value));
            let output = Command::new("sh").args(["-c", &script]).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), value, "{script}");
        }
    }
}
