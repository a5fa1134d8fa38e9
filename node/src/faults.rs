//! What goes wrong on a node that may be broken on purpose.
//!
//! The node keeps one list, `DATA/faults.toml` ([`FaultList`] says what may stand in it), and obeys it as long as it runs.
//! The list comes by two ways: an operator sends another, which is written down, obeyed at once and only then answered; or
//! somebody changes the file, which is read again a few times a second. Times that a fault names are kept here, by the true
//! clock.
//!
//! Each fault has a **seam** that obeys it: free space, slow syncs and held steps in [`crate::storage::faulty`], links at the
//! socket ([`atoll_transport::link_faults`]), the wall clock in [`SkewedClock`]. What the list says and nobody knows is refused
//! as a whole: silence would look like a node that bore it. A certificate is no fault of the list: the testnet lets it expire.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use atoll_transport::{
    LinkFaults,
    small_file::{self, SETTINGS_BYTES_MAX},
};
use atoll_wire::{ErrorCode, Failure, FaultList, FaultsReport, FaultsRequest, Reply};

use crate::{Clock, Node, SkewedClock, node::failed, storage::faulty::Faults};

/// What a node was told to bear, and whoever obeys.
pub struct StandingFaults {
    file: PathBuf,
    clock: Arc<dyn Clock>,
    seams: Seams,
    list: Mutex<FaultList>,
}

/// Whoever obeys.
#[derive(Clone)]
pub struct Seams {
    /// The disk.
    pub store: Arc<Faults>,
    /// What is sent to other nodes.
    pub links: Arc<LinkFaults>,
    /// The clock that the node goes by.
    pub clock: Arc<SkewedClock>,
}

impl StandingFaults {
    /// Reads the file and begins to obey it. A file that is not there commands nothing. The clock is the true one, whatever
    /// the list says of the node's.
    ///
    /// # Errors
    /// The file cannot be read or obeyed.
    pub fn open(
        file: PathBuf,
        clock: Arc<dyn Clock>,
        seams: Seams,
    ) -> Result<Arc<StandingFaults>, String> {
        let standing = StandingFaults { file, clock, seams, list: Mutex::default() };
        standing.read()?;
        Ok(Arc::new(standing))
    }

    /// Goes on obeying: the file, which may change, and the times in it. Runs until it is dropped.
    pub async fn follow(&self) {
        let mut complaint = None;
        loop {
            tokio::time::sleep(FOLLOW_EVERY).await;
            let now = self.read().err();
            if let Some(reason) = &now
                && now != complaint
            {
                tracing::error!(reason, "the list of faults is not understood and not obeyed");
            }
            complaint = now;
        }
    }

    /// What goes wrong.
    pub fn report(&self) -> FaultsReport {
        let list = self.list.lock().expect("no panic holds it").clone();
        FaultsReport { list, wall_ms: self.clock.wall_ms() }
    }

    /// Writes the list down and obeys it from now on.
    ///
    /// # Errors
    /// It cannot be obeyed, or not be written. Then all is as it was.
    pub fn command(&self, list: FaultList) -> Result<(), Failure> {
        let bad = |reason: String| Failure::refused(ErrorCode::BadFaults, reason);
        list.check().map_err(|error| bad(error.to_string()))?;
        write(&self.file, &list).map_err(|error| {
            let detail = format!("cannot write {}: {error}", self.file.display());
            Failure::refused(ErrorCode::Internal, detail)
        })?;
        match list == FaultList::default() {
            true => tracing::warn!("no longer broken on purpose, as an operator commands"),
            false => tracing::warn!(links = list.links.len(), "broken on purpose, as commanded"),
        }
        self.obey(list);
        Ok(())
    }

    /// Reads the file and obeys it. If it says nothing that could be obeyed, all stays as it was.
    fn read(&self) -> Result<(), String> {
        let list = match small_file::read_text(&self.file, SETTINGS_BYTES_MAX) {
            Ok(text) => FaultList::parse(&text).map_err(|error| error.to_string())?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => FaultList::default(),
            Err(error) => return Err(error.to_string()),
        };
        self.obey(list);
        Ok(())
    }

    /// Tells every seam what is so now.
    fn obey(&self, list: FaultList) {
        let so = list.at(self.clock.wall_ms());
        let Seams { store, links, clock } = &self.seams;
        store.pretend_free(so.free_bytes);
        store.slow(Duration::from_millis(so.slow_ms.unwrap_or(0).into()));
        store.hold(so.hold);
        clock.set_ahead(so.clock_ahead_ms.unwrap_or(0));
        links.command(list.seed, &list.links); // which keeps their times by itself
        *self.list.lock().expect("no panic holds it") = list;
    }
}

/// Puts the list in the place of the one before in one step: whoever reads finds one or the other. A list that commands
/// nothing leaves no file.
fn write(file: &Path, list: &FaultList) -> io::Result<()> {
    if *list == FaultList::default() {
        return match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        };
    }
    let unfinished = file.with_extension("toml.new");
    fs::write(&unfinished, list.text())?;
    fs::rename(&unfinished, file)
}

/// Answers an operator.
pub(crate) fn answer(node: &Node, asked: &FaultsRequest) -> Reply {
    let Some(standing) = node.standing_faults() else {
        let detail = format!("{} was started without --allow-faults", node.id());
        return failed(Failure::refused(ErrorCode::FaultsNotAllowed, detail));
    };
    if let Some(list) = &asked.list
        && let Err(failure) = standing.command((**list).clone())
    {
        return failed(failure);
    }
    Reply::Faults(Box::new(standing.report()))
}

/// How often the file is read and times are looked at. Sooner than the disk is looked at, which is what most of it speaks
/// of; faults of links keep their times by themselves.
const FOLLOW_EVERY: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use atoll_ring::NodeId;
    use atoll_wire::faults::{ClockFault, Step, When};

    use super::*;
    use crate::{
        SimulatedClock, SystemClock,
        storage::{Room, Store as _, faulty::FaultyStore, memory::MemoryStore},
    };

    /// A list on a clock that we move.
    struct House {
        folder: tempfile::TempDir,
        clock: Arc<SimulatedClock>,
        skewed: Arc<SkewedClock>,
        store: FaultyStore,
        faults: Arc<Faults>,
        standing: Arc<StandingFaults>,
    }

    impl House {
        fn new() -> House {
            let folder = tempfile::tempdir().expect("a directory");
            let memory = MemoryStore::new();
            memory.set_room(Some(Room { free_bytes: 100, total_bytes: 1000 }));
            let faults = Faults::new();
            let store = FaultyStore::new(Arc::new(memory), faults.clone());
            let clock = Arc::new(SimulatedClock::starting_at(1000));
            let file = folder.path().join("faults.toml");
            let seams = seams(faults.clone());
            let skewed = seams.clock.clone();
            let standing = StandingFaults::open(file, clock.clone(), seams);
            let standing = standing.expect("nothing is there");
            House { folder, clock, skewed, store, faults, standing }
        }

        fn file(&self) -> PathBuf {
            self.folder.path().join("faults.toml")
        }

        /// Writes the file by hand, and says whether it is obeyed.
        fn read(&self, text: &str) -> bool {
            fs::write(self.file(), text).expect("writable");
            self.standing.read().is_ok()
        }

        fn free_bytes(&self) -> u64 {
            self.store.room().expect("told").free_bytes
        }

        fn held(&self) -> [bool; 4] {
            Step::ALL.map(|step| self.faults.holds(step))
        }
    }

    fn seams(store: Arc<Faults>) -> Seams {
        Seams { store, links: Arc::new(LinkFaults::new(NodeId(1))), clock: Arc::default() }
    }

    fn list(text: &str) -> FaultList {
        FaultList::parse(text).expect("good")
    }

    /// The file says which steps wait, as long as it does; a step that nobody knows changes nothing and is reported.
    #[tokio::test]
    async fn steps_wait_while_the_file_says_so() {
        let house = House::new();
        assert!(house.read("hold = [\"copy\", \"done\"]"));
        assert_eq!(house.held(), [true, false, true, false]);
        assert!(!house.read("hold = [\"copy\", \"dine\"]"));
        assert_eq!(house.held(), [true, false, true, false]);
        assert!(house.read("hold = [\"page\", \"clean\"]"));
        assert_eq!(house.held(), [false, true, false, true]);
        assert!(house.read(""));
        assert_eq!(house.held(), [false; 4]);
    }

    /// The file says how much is free, as long as it is there; nonsense changes nothing and is reported.
    #[tokio::test]
    async fn free_space_is_what_the_file_says() {
        let house = House::new();
        for (text, free_bytes, is_obeyed) in [
            ("free_bytes = 7", 7, true),
            ("free_bytes = -7", 7, false),
            ("fre_bytes = 8", 7, false),
            ("", 100, true),
            ("free_bytes = 0", 0, true),
        ] {
            assert_eq!(house.read(text), is_obeyed, "{text}");
            assert_eq!(house.free_bytes(), free_bytes, "{text}");
        }
        fs::remove_file(house.file()).expect("there");
        house.standing.read().expect("nothing is commanded");
        assert_eq!(house.free_bytes(), 100);
        assert_eq!(house.store.room().expect("told").total_bytes, 1000);
    }

    /// What is commanded is in force when the command returns, stands in the file, and is found there by the next start; the
    /// command of nothing leaves no file.
    #[tokio::test]
    async fn a_command_is_in_force_and_is_kept() {
        let house = House::new();
        let commanded = list("free_bytes = 7");
        house.standing.command(commanded.clone()).expect("can be borne");
        assert_eq!(house.free_bytes(), 7);
        assert_eq!(house.standing.report(), FaultsReport { list: commanded, wall_ms: 1000 });
        let seams = seams(Faults::new());
        let again = StandingFaults::open(house.file(), house.clock.clone(), seams);
        let again = again.expect("written");
        assert_eq!(again.report(), house.standing.report());
        house.standing.command(FaultList::default()).expect("can be borne");
        assert_eq!(house.free_bytes(), 100);
        assert_eq!(fs::read_dir(house.folder.path()).expect("there").count(), 0);
    }

    /// The clock is off as long as the list says so, and faults keep their times by the true one all the same.
    #[tokio::test]
    async fn a_clock_is_off_while_the_list_says_so() {
        let house = House::new();
        let off = || {
            let (shown, right) = (house.skewed.wall_ms(), SystemClock.wall_ms());
            shown.abs_diff(right) > 3_000_000 // less than an hour, for a machine that is set meanwhile
        };
        assert!(!off());
        for ahead in ["3600000", "-3600000"] {
            house.standing.command(list(&format!("[clock]\nahead_ms = {ahead}"))).expect("borne");
            assert!(off(), "{ahead}");
            assert_eq!(house.standing.report().wall_ms, 1000);
        }
        house.standing.command(FaultList::default()).expect("borne");
        assert!(!off());
    }

    /// A fault with times begins and ends by the clock, though nobody commands anything.
    #[tokio::test(start_paused = true)]
    async fn times_are_kept_by_the_node() {
        let house = House::new();
        let when = Some(When { from_ms: 2000, until_ms: Some(3000), every_ms: None });
        let commanded = FaultList { free_bytes_when: when, ..list("free_bytes = 7") };
        house.standing.command(commanded).expect("can be borne");
        let following = tokio::spawn({
            let standing = house.standing.clone();
            async move { standing.follow().await }
        });
        let mut seen = Vec::new();
        for _ in 0..5 {
            seen.push(house.free_bytes());
            tokio::time::sleep(Duration::from_millis(600)).await;
        }
        following.abort();
        assert_eq!(seen, [100, 100, 7, 7, 100]);
    }

    /// What cannot be borne is refused with its reason and changes nothing, whichever way it comes.
    #[tokio::test]
    async fn what_cannot_be_borne_is_refused() {
        let house = House::new();
        house.standing.command(list("free_bytes = 7")).expect("can be borne");
        let nonsense = FaultList {
            clock: Some(ClockFault { ahead_ms: 0, when: None }),
            ..FaultList::default()
        };
        let failure = house.standing.command(nonsense).expect_err("refused");
        assert_eq!(failure.code, ErrorCode::BadFaults);
        assert!(failure.detail.contains("not 0"), "{}", failure.detail);
        assert!(!house.read("[certificate]\nexpired = true"));
        assert_eq!(house.standing.report().list, list("free_bytes = 7"));
        assert_eq!(house.free_bytes(), 7);
    }
}
