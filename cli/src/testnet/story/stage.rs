//! Where a story plays: a testnet of its own, which is gone afterwards, or one that somebody lends it.
//!
//! A testnet of its own is ephemeral, called `story-NAME`, and for as long as the story goes the testnet started last: what the
//! story prints can be typed in another terminal. A lent one is given back as it came, all nodes running and all faults healed.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use atoll_testnet::{
    Condition, Home, Launcher, State, Testnet, Wish, faults, start, stop, story::Story,
};
use atoll_wire::FaultList;

use super::super::{
    fault::{failed_fault, heal_all},
    launcher,
    say::{failed_file, failed_home, failed_open, failed_start, failed_up},
    up::Interrupt,
};
use crate::exit::{Exit, Failed};

/// A testnet whose nodes are all ready.
pub struct Stage {
    home: Home,
    testnet: Testnet,
    launcher: Launcher,
    folder: PathBuf,
    is_own: bool,
    /// The testnet started last before we came.
    before: Option<String>,
}

/// What is left of a stage when the story is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// Nothing.
    Nothing,
    /// Its files, so that one can see what went wrong. Its nodes are stopped.
    Files,
    /// All of it, running.
    Everything,
}

impl Stage {
    /// A new testnet for this story, or the one that is lent.
    pub async fn set(
        home: &Home,
        story: &Story,
        on: Option<&str>,
        base_port: Option<u16>,
        interrupt: Interrupt,
    ) -> Result<Stage, Failed> {
        let launcher = launcher()?;
        let before = home.current().map_err(failed_home)?;
        let name = match on {
            Some(name) => name.to_owned(),
            None => format!("story-{}", story.name),
        };
        let lent = match on {
            Some(name) => Some(lent(home, name, story).await?),
            None => {
                check_free(home, &name)?;
                None
            }
        };
        let folder = home.folder().join("stories").join(&name);
        let made = clear(&folder).and_then(|()| fs::create_dir_all(&folder));
        made.map_err(|error| {
            Failed::new(Exit::Other, format!("cannot make {}: {error}", folder.display()))
        })?;
        let is_own = lent.is_none();
        let testnet = match lent {
            Some(testnet) => testnet,
            None => own(home, &launcher, story, name, base_port, interrupt).await?,
        };
        Ok(Stage { home: home.clone(), testnet, launcher, folder, is_own, before })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.testnet.name()
    }

    /// Where the story's commands work: what they write and what they printed.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether it was made for the story.
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    /// How many nodes it has.
    pub fn nodes(&self) -> usize {
        self.testnet.nodes().len()
    }

    /// The program that its commands are run with.
    pub fn program(&self) -> &Path {
        &self.launcher.program
    }

    /// What its commands must know.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("ATOLL_HOME", self.home.folder().display().to_string()),
            ("ATOLL_CLUSTER", self.name().to_owned()),
        ]
    }

    /// Takes it down as far as wished. A lent one is mended instead.
    pub async fn strike(self, leave: Leave) -> Result<(), Failed> {
        let testnet = Testnet::open(&self.home, Some(self.name())).map_err(failed_open)?;
        if !self.is_own {
            self.mend(&testnet).await?;
        } else {
            match leave {
                Leave::Everything => return Ok(()),
                Leave::Files => {
                    let _lock =
                        testnet.lock(self.launcher.lock_limit()).await.map_err(failed_open)?;
                    stop::stop(testnet.nodes(), self.launcher.stop_limit, &mut |_| {})
                        .await
                        .map_err(failed_file)?;
                }
                Leave::Nothing => {
                    atoll_testnet::down(&self.home, &self.launcher, &testnet, true, &mut |_| {})
                        .await
                        .map_err(failed_open)?;
                }
            }
            let before = self.before.as_deref();
            self.home.give_back_current(self.name(), before).map_err(failed_home)?;
        }
        if leave == Leave::Nothing {
            // what is left of it would only be in the way
            let _ = clear(&self.folder);
        }
        Ok(())
    }

    /// Takes away what is broken on purpose and lets every node run again.
    async fn mend(&self, testnet: &Testnet) -> Result<(), Failed> {
        let _lock = testnet.lock(self.launcher.lock_limit()).await.map_err(failed_open)?;
        if testnet.asked().allow_faults {
            heal_all(testnet).await?;
        }
        let never = std::future::pending();
        start::start(testnet, &self.launcher, testnet.nodes(), never, &mut |_| {})
            .await
            .map_err(|error| failed_start(&error))
    }
}

fn clear(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Whether nobody else tells this story now.
fn check_free(home: &Home, name: &str) -> Result<(), Failed> {
    let known = home.names().map_err(failed_home)?.iter().any(|known| known == name);
    if !known || !runs(&Testnet::open(home, Some(name)).map_err(failed_open)?)? {
        return Ok(());
    }
    let what = format!("testnet {name} runs: this story is being told elsewhere, or was kept");
    Err(Failed::new(Exit::Refused, what).mend(format!("atoll testnet down {name}")))
}

async fn own(
    home: &Home,
    launcher: &Launcher,
    story: &Story,
    name: String,
    base_port: Option<u16>,
    interrupt: Interrupt,
) -> Result<Testnet, Failed> {
    let wish = Wish {
        name: Some(name),
        nodes: Some(story.stage.nodes),
        zones: Some(story.stage.zones),
        replicas: Some(story.stage.replicas),
        partitions: Some(story.stage.partitions),
        base_port,
        folder: None,
        ephemeral: true,
        allow_faults: story.stage.faults,
    };
    let up = atoll_testnet::up(home, launcher, &wish, interrupt.comes(), &mut |_| {}).await;
    Ok(up.map_err(failed_up)?.testnet)
}

/// A testnet that is as the story needs it, and in order.
async fn lent(home: &Home, name: &str, story: &Story) -> Result<Testnet, Failed> {
    let testnet = Testnet::open(home, Some(name)).map_err(failed_open)?;
    let alone = "leave out --on: it gets a testnet of its own";
    let refused = |what: String| Err(Failed::new(Exit::Refused, what).mend(alone));
    let (wanted, asked) = (story.stage, testnet.asked());
    if wanted.alone {
        return refused(format!(
            "{} changes who is a node and plays on no other stage",
            story.name
        ));
    }
    let nodes = testnet.nodes().len();
    if nodes < wanted.nodes as usize
        || asked.zones < wanted.zones
        || asked.replicas != wanted.replicas
    {
        return refused(format!(
            "{} needs {} nodes, {} of each key and {}; {name} has {nodes}, {} and {}",
            story.name,
            wanted.nodes,
            plural(wanted.replicas.into(), "copy", "copies"),
            plural(wanted.zones, "zone", "zones"),
            plural(asked.replicas.into(), "copy", "copies"),
            plural(asked.zones, "zone", "zones"),
        ));
    }
    let reports = atoll_testnet::status(&testnet).await.map_err(failed_file)?;
    if let Some(report) = reports.iter().find(|report| report.state != State::Ready) {
        let what = format!("{} of {name} is not ready", report.node.id);
        return Err(
            Failed::new(Exit::Refused, what).mend(format!("atoll testnet up --name {name}"))
        );
    }
    if wanted.faults && !asked.allow_faults {
        let what =
            format!("{} breaks nodes on purpose, and {name} does not allow that", story.name);
        let mend = format!(
            "atoll testnet down {name}, then atoll testnet up --name {name} --allow-faults"
        );
        return Err(Failed::new(Exit::Refused, what).mend(mend));
    }
    if asked.allow_faults {
        let standing = faults::read(&testnet, &testnet.nodes()).await.map_err(failed_fault)?;
        if let Some(broken) = standing.iter().find(|one| one.list != FaultList::default()) {
            let what = format!("{} of {name} is broken on purpose already", broken.node);
            let mend = format!("atoll testnet heal --all --name {name}");
            return Err(Failed::new(Exit::Refused, what).mend(mend));
        }
    }
    Ok(testnet)
}

fn runs(testnet: &Testnet) -> Result<bool, Failed> {
    for node in testnet.nodes() {
        match node.condition().map_err(failed_file)? {
            Condition::Running(_) | Condition::Paused(_) => return Ok(true),
            Condition::Stopped | Condition::Dead => {}
        }
    }
    Ok(false)
}

fn plural(number: u32, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}
