//! What was asked of a testnet: given once, written down, never changed.
//!
//! A [`Wish`] is what one command says; most of it is left open. The first `up` settles it into [`Asked`] and writes
//! `testnet.toml`. Every later `up` may repeat it but not contradict it: data was placed by it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use atoll_ring::{
    ClusterId, Member, MemberState, NodeId, Partitions, PartitionsError, PlacementWarning, View,
    ViewError,
};
use atoll_transport::small_file;
use serde::{Deserialize, Serialize};

use crate::{
    files::{self, FileError},
    ports,
};

/// What one command asks for; `None` is "whatever it is, or the default".
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// Name, default `dev`.
    pub name: Option<String>,
    /// Nodes, 1 to [`NODES_MAX`], default 5.
    pub nodes: Option<u32>,
    /// Zones, default 1; nodes are dealt out to them in turn.
    pub zones: Option<u32>,
    /// Copies of each key, default 3.
    pub replicas: Option<u8>,
    /// Partitions of the ring, default 1024.
    pub partitions: Option<u32>,
    /// Where the first free block of ports is searched from, default [`ports::BASE_PORT`].
    pub base_port: Option<u16>,
    /// Where it lives, default in the home.
    pub folder: Option<PathBuf>,
    /// Stays in the foreground and is removed at its end.
    pub ephemeral: bool,
    /// Its nodes may be broken on purpose, from now on.
    pub allow_faults: bool,
}

/// What a testnet is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Of this file and of the folder's layout.
    format: u32,
    /// Its name.
    pub name: String,
    /// The cluster's id.
    pub cluster: ClusterId,
    /// How many nodes: `n1` to this.
    pub nodes: u32,
    /// How many zones: `z1` to this.
    pub zones: u32,
    /// Copies of each key.
    pub replicas: u8,
    /// Partitions of the ring.
    pub partitions: Partitions,
    /// Where the search for ports began.
    pub base_port: u16,
    /// What it found: the port of `n1`. The others follow.
    pub first_port: u16,
    /// Whether it is removed at its end.
    pub ephemeral: bool,
    /// Whether its nodes may be broken on purpose. The one thing that a later `up` may change, from no to yes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub allow_faults: bool,
}

/// Why a wish cannot be met. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum AskedError {
    /// The number of nodes is out of range.
    #[error("{nodes} nodes: a testnet has 1 to {NODES_MAX}")]
    Nodes {
        /// What was asked for.
        nodes: u32,
    },
    /// Zones out of range.
    #[error("{zones} zones for {nodes} nodes: there are 1 to as many zones as nodes")]
    Zones {
        /// What was asked for.
        zones: u32,
        /// Nodes there are.
        nodes: u32,
    },
    /// Too few nodes for the replicas.
    #[error("{replicas} replicas of each key need as many nodes, and there are {nodes}")]
    Replicas {
        /// What was asked for, or the default.
        replicas: u8,
        /// Nodes there are.
        nodes: u32,
    },
    /// Not a number of partitions.
    #[error(transparent)]
    Partitions(#[from] PartitionsError),
    /// The planner refuses.
    #[error(transparent)]
    View(#[from] ViewError),
    /// A later command says something else than the first one.
    #[error(
        "--{option} {wished} contradicts what testnet {name} was made with: {option} = {written}"
    )]
    Contradiction {
        /// The testnet.
        name: String,
        /// Which option.
        option: &'static str,
        /// What the command says.
        wished: String,
        /// What is written down.
        written: String,
    },
    /// Written by another version of this program.
    #[error("{} has format {format}, and this program knows {FORMAT} only", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its number.
        format: u32,
    },
    /// The file is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

impl AskedError {
    /// What to do about it.
    #[must_use]
    pub fn mend(&self) -> Option<String> {
        match self {
            AskedError::Nodes { .. } | AskedError::View(_) | AskedError::File(_) => None,
            AskedError::Zones { nodes, .. } => Some(format!("--zones 1, up to --zones {nodes}")),
            AskedError::Replicas { replicas, nodes } => {
                Some(format!("--replicas {nodes}, or --nodes {replicas}"))
            }
            AskedError::Partitions(_) => Some("--partitions 1024".into()),
            AskedError::Contradiction { name, option, .. } => Some(format!(
                "leave out --{option}, choose another --name, or begin anew after: \
                 atoll testnet down {name} --remove"
            )),
            AskedError::Format { path, .. } | AskedError::Malformed { path, .. } => {
                let folder = path.parent().unwrap_or(path);
                Some(format!(
                    "start it with the version that made it, or remove {} and begin anew",
                    folder.display()
                ))
            }
        }
    }
}

impl Wish {
    /// The name, or the default one.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("dev")
    }

    /// Fills in the defaults and checks that such a testnet can be, with the planner's warnings. Ports come later:
    /// the first one is still the base port.
    ///
    /// # Errors
    /// See [`AskedError`].
    pub(crate) fn settle(
        &self,
        cluster: ClusterId,
    ) -> Result<(Asked, Vec<PlacementWarning>), AskedError> {
        let base_port = self.base_port.unwrap_or(ports::BASE_PORT);
        let asked = Asked {
            format: FORMAT,
            name: self.name().to_owned(),
            cluster,
            nodes: self.nodes.unwrap_or(5),
            zones: self.zones.unwrap_or(1),
            replicas: self.replicas.unwrap_or(3),
            partitions: match self.partitions {
                None => Partitions::DEFAULT,
                Some(count) => Partitions::new(count)?,
            },
            base_port,
            first_port: base_port,
            ephemeral: self.ephemeral,
            allow_faults: self.allow_faults,
        };
        asked.check_numbers()?;
        let (_, warnings) = asked.view()?;
        Ok((asked, warnings))
    }
}

impl Asked {
    /// Reads what is written in a folder, `None` if nothing is.
    ///
    /// # Errors
    /// [`AskedError::Format`], [`AskedError::Malformed`], [`AskedError::File`].
    pub(crate) fn load(folder: &Path) -> Result<Option<Asked>, AskedError> {
        let path = folder.join(FILE);
        let Some(text) = files::read(&path)? else { return Ok(None) };
        let malformed = |reason: toml::de::Error| AskedError::Malformed {
            path: path.clone(),
            reason: small_file::in_short(reason),
        };
        let Numbered { format } = toml::from_str(&text).map_err(malformed)?;
        if format != FORMAT {
            return Err(AskedError::Format { path, format });
        }
        let asked: Asked = toml::from_str(&text).map_err(malformed)?;
        // somebody may have edited it
        if let Err(error) = asked.check_numbers() {
            return Err(AskedError::Malformed { path, reason: error.to_string() });
        }
        Ok(Some(asked))
    }

    fn check_numbers(&self) -> Result<(), AskedError> {
        let &Asked { nodes, zones, replicas, .. } = self;
        if nodes == 0 || nodes > NODES_MAX {
            return Err(AskedError::Nodes { nodes });
        }
        if zones == 0 || zones > nodes {
            return Err(AskedError::Zones { zones, nodes });
        }
        if u32::from(replicas) > nodes {
            return Err(AskedError::Replicas { replicas, nodes });
        }
        Ok(())
    }

    /// Writes it down.
    pub(crate) fn save(&self, folder: &Path) -> Result<(), FileError> {
        let text = toml::to_string(self).expect("plain data");
        files::write(&folder.join(FILE), &format!("{HEADING}{text}"), files::PUBLIC)
    }

    /// Refuses a wish that says something else.
    ///
    /// # Errors
    /// [`AskedError::Contradiction`].
    pub(crate) fn check(&self, wish: &Wish) -> Result<(), AskedError> {
        // the port that was found is as good an answer as the one the search began at
        let base_port = match wish.base_port {
            Some(port) if port == self.first_port => self.first_port,
            Some(_) | None => self.base_port,
        };
        let pairs = [
            ("nodes", wish.nodes, self.nodes),
            ("zones", wish.zones, self.zones),
            ("replicas", wish.replicas.map(u32::from), u32::from(self.replicas)),
            ("partitions", wish.partitions, self.partitions.count()),
            ("base-port", wish.base_port.map(u32::from), u32::from(base_port)),
        ];
        let contradiction = |option, wished: String, written: String| AskedError::Contradiction {
            name: self.name.clone(),
            option,
            wished,
            written,
        };
        for (option, wished, written) in pairs {
            match wished {
                Some(wished) if wished != written => {
                    return Err(contradiction(option, wished.to_string(), written.to_string()));
                }
                Some(_) | None => {}
            }
        }
        if wish.ephemeral && !self.ephemeral {
            return Err(contradiction(
                "ephemeral",
                "true".into(),
                "false (its data is kept)".into(),
            ));
        }
        Ok(())
    }

    /// The members: `n1` at the first port, nodes dealt out to the zones in turn.
    #[must_use]
    pub fn members(&self) -> Vec<Member> {
        (0..self.nodes)
            .map(|index| {
                let port = u32::from(self.first_port) + index;
                // only before a block was chosen; the search ends below the last port
                let port = u16::try_from(port).unwrap_or(u16::MAX);
                Member {
                    id: NodeId(index + 1),
                    incarnation: 0,
                    address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
                    zone: format!("z{}", index % self.zones + 1),
                    weight: 1,
                    state: MemberState::Active,
                }
            })
            .collect()
    }

    /// The first view of the cluster.
    ///
    /// # Errors
    /// The planner refuses.
    pub(crate) fn view(&self) -> Result<(View, Vec<PlacementWarning>), ViewError> {
        View::create(self.cluster, self.partitions, self.replicas, self.members())
    }
}

#[derive(Deserialize)]
struct Numbered {
    format: u32,
}

/// The name of the file.
pub(crate) const FILE: &str = "testnet.toml";

/// More nodes than that on one machine say nothing about a cluster any more.
pub const NODES_MAX: u32 = 64;

const FORMAT: u32 = 1;

const HEADING: &str =
    "# What this testnet was made with. Written once; a changed line does not move any data.\n";

#[cfg(test)]
mod tests {
    use super::*;

    const CLUSTER: ClusterId = ClusterId([7; 16]);

    fn settled(wish: &Wish) -> Asked {
        wish.settle(CLUSTER).unwrap().0
    }

    /// The file as it is written, and that it reads back as itself.
    #[test]
    fn the_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Asked::load(folder.path()).unwrap().is_none());
        let asked = settled(&Wish::default());
        asked.save(folder.path()).unwrap();
        assert_eq!(Asked::load(folder.path()).unwrap(), Some(asked.clone()));
        let faulty = settled(&Wish { allow_faults: true, ..Wish::default() });
        faulty.save(folder.path()).unwrap();
        assert_eq!(Asked::load(folder.path()).unwrap(), Some(faulty));
        asked.save(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        let expected = "\
# What this testnet was made with. Written once; a changed line does not move any data.
format = 1
name = \"dev\"
cluster = \"07070707070707070707070707070707\"
nodes = 5
zones = 1
replicas = 3
partitions = 1024
base_port = 7401
first_port = 7401
ephemeral = false
";
        assert_eq!(text, expected);
    }

    /// Another format number is refused, also if the rest of the file means nothing to us; so is damage.
    #[test]
    fn other_formats() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE);
        std::fs::write(&path, "format = 2\nislands = 3\n").unwrap();
        let error = Asked::load(folder.path()).unwrap_err();
        assert!(matches!(error, AskedError::Format { format: 2, .. }));
        assert!(error.mend().unwrap().contains("begin anew"));
        for text in ["", "format = 1\n", "format = 1\nislands = 3\n", "nonsense"] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(Asked::load(folder.path()), Err(AskedError::Malformed { .. })));
        }
        settled(&Wish::default()).save(folder.path()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("zones = 1", "zones = 0")).unwrap();
        assert!(matches!(Asked::load(folder.path()), Err(AskedError::Malformed { .. })));
    }

    /// Repeating what was asked is fine, and so is saying nothing; anything else names both values.
    #[test]
    fn contradictions() {
        let mut asked = settled(&Wish { nodes: Some(4), ..Wish::default() });
        asked.first_port = 7411;
        let check = |wish: Wish, expected: Option<&str>| {
            let error = asked.check(&wish).err().map(|error| error.to_string());
            let expected = expected
                .map(|text| text.replacen("vs", "contradicts what testnet dev was made with:", 1));
            assert_eq!(error, expected);
        };
        let wish = Wish::default;
        check(wish(), None);
        check(Wish { nodes: Some(4), zones: Some(1), replicas: Some(3), ..wish() }, None);
        check(Wish { base_port: Some(7401), ..wish() }, None);
        check(Wish { base_port: Some(7411), ..wish() }, None);
        check(Wish { nodes: Some(5), ..wish() }, Some("--nodes 5 vs nodes = 4"));
        check(Wish { zones: Some(2), ..wish() }, Some("--zones 2 vs zones = 1"));
        check(Wish { replicas: Some(1), ..wish() }, Some("--replicas 1 vs replicas = 3"));
        check(
            Wish { partitions: Some(64), ..wish() },
            Some("--partitions 64 vs partitions = 1024"),
        );
        check(
            Wish { base_port: Some(8000), ..wish() },
            Some("--base-port 8000 vs base-port = 7401"),
        );
        check(
            Wish { ephemeral: true, ..wish() },
            Some("--ephemeral true vs ephemeral = false (its data is kept)"),
        );
    }

    /// What cannot be is refused with what could be instead.
    #[test]
    fn impossible_wishes() {
        let check = |wish: Wish, what: &str, mend: Option<&str>| {
            let error = wish.settle(CLUSTER).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
            assert_eq!(error.mend().as_deref(), mend, "{error}");
        };
        let wish = |nodes, zones, replicas| Wish {
            nodes: Some(nodes),
            zones: Some(zones),
            replicas: Some(replicas),
            ..Wish::default()
        };
        check(wish(0, 1, 1), "0 nodes", None);
        check(wish(65, 1, 1), "65 nodes", None);
        check(wish(3, 0, 1), "0 zones", Some("--zones 1, up to --zones 3"));
        check(wish(3, 4, 1), "4 zones", Some("--zones 1, up to --zones 3"));
        check(wish(2, 1, 3), "3 replicas", Some("--replicas 2, or --nodes 3"));
        check(wish(3, 1, 0), "0 replicas", None);
        let odd = Wish { partitions: Some(1000), ..Wish::default() };
        check(odd, "1000", Some("--partitions 1024"));
    }

    /// Nodes are dealt out to the zones in turn and stand at one port after the other.
    #[test]
    fn members_by_zone_and_port() {
        let asked = settled(&Wish { zones: Some(3), base_port: Some(9001), ..Wish::default() });
        let members: Vec<String> = asked
            .members()
            .iter()
            .map(|member| format!("{} {} {}", member.id, member.address, member.zone))
            .collect();
        assert_eq!(
            members,
            [
                "n1 127.0.0.1:9001 z1",
                "n2 127.0.0.1:9002 z2",
                "n3 127.0.0.1:9003 z3",
                "n4 127.0.0.1:9004 z1",
                "n5 127.0.0.1:9005 z2",
            ]
        );
    }
}
