//! The commands of a story as processes: one in the foreground, loads in the background, all ended on the way out.
//!
//! Each is in a process group of its own, so that a Ctrl-C at the terminal reaches only us, and we decide what it means. What
//! they print goes to files in the story's folder: no pipe can fill up, and of a story that went wrong the evidence stays.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use atoll_testnet::story::Heard;
use rustix::process::{Pid, Signal, kill_process};
use tokio::{process::Command, time::timeout};

/// All processes of a story.
pub struct Children {
    program: PathBuf,
    /// Where they work and where their output lies.
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
    foreground: Option<Child>,
    loads: Vec<(String, Child)>,
    count: u32,
}

struct Child {
    process: tokio::process::Child,
    output: PathBuf,
    error: PathBuf,
}

impl Children {
    /// None yet. They run this program, in this folder, with these variables set.
    pub fn new(
        program: PathBuf,
        folder: PathBuf,
        environment: Vec<(&'static str, String)>,
    ) -> Children {
        Children { program, folder, environment, foreground: None, loads: Vec::new(), count: 0 }
    }

    /// Runs a command to its end. One that does not end within a limit is ended, and has no exit code then.
    pub async fn run(&mut self, words: &[String], limit: Duration) -> io::Result<Heard> {
        let child = self.spawn(words)?;
        let heard = self.foreground.insert(child).heard(limit).await;
        self.foreground = None;
        heard
    }

    /// Starts a command that goes on under this name.
    pub fn load(&mut self, name: &str, words: &[String]) -> io::Result<()> {
        let child = self.spawn(words)?;
        self.loads.push((name.to_owned(), child));
        Ok(())
    }

    /// Waits for the end of a load; with `press` after a Ctrl-C.
    pub async fn end(&mut self, name: &str, press: bool, limit: Duration) -> io::Result<Heard> {
        let at = self.loads.iter().position(|(load, _)| load == name);
        let at = at.expect("the story was checked: this load was started");
        let child = &mut self.loads[at].1;
        if press {
            child.interrupt();
        }
        let heard = child.heard(limit).await;
        self.loads.remove(at);
        heard
    }

    /// A load that has ended though nobody was waiting for it.
    pub fn ended_early(&mut self) -> io::Result<Option<(String, Heard)>> {
        for (name, child) in &mut self.loads {
            if let Some(status) = child.process.try_wait()? {
                return Ok(Some((name.clone(), child.printed(status)?)));
            }
        }
        Ok(None)
    }

    /// Ends all of them as Ctrl-C would, and those that do not listen as SIGKILL does.
    pub async fn end_all(&mut self) {
        let foreground = self.foreground.take().into_iter();
        let mut all: Vec<Child> =
            foreground.chain(self.loads.drain(..).map(|(_, child)| child)).collect();
        all.iter_mut().for_each(Child::interrupt);
        for child in &mut all {
            if timeout(END_LIMIT, child.process.wait()).await.is_err() {
                let _ = child.process.kill().await;
            }
        }
    }

    fn spawn(&mut self, words: &[String]) -> io::Result<Child> {
        self.count += 1;
        let output = self.folder.join(format!("{}.out", self.count));
        let error = self.folder.join(format!("{}.err", self.count));
        let process = Command::new(&self.program)
            .args(words)
            .current_dir(&self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(File::create(&output)?)
            .stderr(File::create(&error)?)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Child { process, output, error })
    }
}

impl Child {
    async fn heard(&mut self, limit: Duration) -> io::Result<Heard> {
        match timeout(limit, self.process.wait()).await {
            Ok(status) => self.printed(status?),
            Err(_) => {
                self.interrupt();
                if timeout(END_LIMIT, self.process.wait()).await.is_err() {
                    self.process.kill().await?;
                }
                Ok(Heard { code: None, ..self.texts()? })
            }
        }
    }

    fn printed(&self, status: ExitStatus) -> io::Result<Heard> {
        Ok(Heard { code: status.code(), ..self.texts()? })
    }

    fn texts(&self) -> io::Result<Heard> {
        Ok(Heard { code: None, stdout: text(&self.output)?, stderr: text(&self.error)? })
    }

    fn interrupt(&mut self) {
        // until we have waited for it, its id is its own
        let pid = self.process.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::INT); // one that has ended needs no signal
        }
    }
}

fn text(file: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    fs::File::open(file)?.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// How long a command may take to end after Ctrl-C: as long as a node that it has started may.
const END_LIMIT: Duration = Duration::from_secs(15);

/// More than any command of ours prints in a story; what is beyond is in the file.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;
