//! A process that somebody started earlier: is it still that one, and how to signal it.
//!
//! A process id alone says nothing: the process may have ended and its id may be another's by now. We write down when
//! the process started (as the system tells it, to the clock tick) and look for the path of the node's configuration
//! in its command line. Only if both agree it is ours. On Linux the signal goes through a handle that was opened before
//! we looked, so the id cannot change hands in between; elsewhere that gap is some microseconds wide.

use std::{fs, io, path::PathBuf, process::Command};

use rustix::process::{Pid, Signal};

/// A process as it was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// When it started, in the system's own words.
    started: String,
    /// The path in its command line that makes it ours.
    config: PathBuf,
}

/// What has become of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running,
    /// It is stopped by a signal and can go on.
    Paused,
    /// It has ended, or the id belongs to another process by now.
    Gone,
}

impl Process {
    /// Notes a child that nobody has waited for, so that its id is certainly its own.
    pub(crate) fn note(pid: u32, config: PathBuf) -> Option<Process> {
        let started = Seen::look(pid)?.started;
        Some(Process { pid, started, config })
    }

    /// Reads what [`Process::record`] wrote; `None` if it makes no sense.
    pub(crate) fn parse(text: &str, config: PathBuf) -> Option<Process> {
        let (pid, started) = text.trim_end().split_once(' ')?;
        Some(Process { pid: pid.parse().ok()?, started: started.to_owned(), config })
    }

    /// The line for the pid file: id, start.
    pub(crate) fn record(&self) -> String {
        format!("{} {}\n", self.pid, self.started)
    }

    /// What has become of it.
    #[must_use]
    pub fn life(&self) -> Life {
        match Seen::look(self.pid) {
            Some(seen) if self.is(&seen) => match seen.state {
                'Z' | 'X' => Life::Gone,
                'T' | 't' => Life::Paused,
                _ => Life::Running,
            },
            Some(_) | None => Life::Gone,
        }
    }

    /// Sends a signal if it is still the one we know. `false`: it has ended.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<bool> {
        let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) else {
            return Ok(false);
        };
        let handle = Handle::open(pid);
        if self.life() == Life::Gone {
            return Ok(false);
        }
        match handle.send(signal) {
            Ok(()) => Ok(true),
            Err(rustix::io::Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn is(&self, seen: &Seen) -> bool {
        let config = self.config.as_os_str().as_encoded_bytes();
        // Linux lets the parent go on a moment before the child's command line can be read: it is empty until then
        let ours = |command: &[u8]| {
            command.is_empty() || command.windows(config.len()).any(|window| window == config)
        };
        seen.started == self.started && ours(&seen.command)
    }
}

/// What a signal goes through.
enum Handle {
    /// This process and no other, ever.
    #[cfg(target_os = "linux")]
    Open(std::os::fd::OwnedFd),
    /// Whoever has this id.
    Id(Pid),
}

impl Handle {
    #[cfg(target_os = "linux")]
    fn open(pid: Pid) -> Handle {
        let opened = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        // old kernels and some containers have no such handles
        opened.map_or(Handle::Id(pid), Handle::Open)
    }

    #[cfg(not(target_os = "linux"))]
    fn open(pid: Pid) -> Handle {
        Handle::Id(pid)
    }

    fn send(&self, signal: Signal) -> rustix::io::Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Handle::Open(handle) => rustix::process::pidfd_send_signal(handle, signal),
            Handle::Id(pid) => rustix::process::kill_process(*pid, signal),
        }
    }
}

/// A process as the system shows it now.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    started: String,
    state: char,
    command: Vec<u8>,
}

impl Seen {
    fn look(pid: u32) -> Option<Seen> {
        if fs::exists("/proc/self/stat").unwrap_or(false) {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let mut seen = Seen::from_stat(&stat)?;
            seen.command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
            return Some(seen);
        }
        let output = Command::new("ps")
            .args(["-ww", "-o", "stat=", "-o", "lstart=", "-o", "command=", "-p", &pid.to_string()])
            .env("LC_ALL", "C")
            .output()
            .ok()?;
        Seen::from_ps(&String::from_utf8_lossy(&output.stdout))
    }

    /// `PID (NAME) STATE …`; the number of threads is the 20th field, the start the 22nd. The name may contain anything, also
    /// `)`.
    ///
    /// The state is that of the first thread. It may be over while another one is in the kernel still, for an fsync: until that
    /// is over, too, the process has its files and their locks.
    fn from_stat(stat: &str) -> Option<Seen> {
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let threads: u32 = fields.nth(20 - 4)?.parse().ok()?;
        let state = if state == 'Z' && threads > 1 { 'D' } else { state };
        let started = fields.nth(22 - 21)?.to_owned();
        Some(Seen { started, state, command: Vec::new() })
    }

    /// `STATE WEEKDAY MONTH DAY TIME YEAR COMMAND …`
    fn from_ps(line: &str) -> Option<Seen> {
        let mut words = line.split_ascii_whitespace();
        let state = words.next()?.chars().next()?;
        let started: Vec<&str> = words.by_ref().take(5).collect();
        let command: Vec<&str> = words.collect();
        (started.len() == 5).then(|| Seen {
            started: started.join(" "),
            state,
            command: command.join(" ").into_bytes(),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Child, Stdio},
        time::Duration,
    };

    use super::*;

    /// A process with a word in its command line that stands for the configuration. It ends with the test.
    struct Sleeper(Child);

    impl Sleeper {
        async fn start(word: &str) -> (Sleeper, Process) {
            let child = Command::new("/bin/sh")
                .args(["-c", "while :; do sleep 1; done", word])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let process = Process::note(child.id(), word.into()).unwrap();
            let shown = || Seen::look(process.pid).filter(|seen| !seen.command.is_empty());
            crate::poll::until(Duration::from_secs(10), shown).await.unwrap();
            (Sleeper(child), process)
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A pid file outlives its process, and the id goes to somebody else: other start or other command line, no signal.
    #[tokio::test]
    async fn a_stale_pid_is_never_signalled() {
        let (mut child, process) = Sleeper::start("/testnets/dev/n1/node.toml").await;
        assert_eq!(process.life(), Life::Running);

        let mut stale = process.clone();
        stale.started.push('0');
        assert_eq!(stale.life(), Life::Gone);
        assert!(!stale.signal(Signal::KILL).unwrap());

        for other in ["/testnets/dev/n2/node.toml", "/testnets/two/n1/node.toml"] {
            let other = Process { config: other.into(), ..process.clone() };
            assert_eq!(other.life(), Life::Gone);
            assert!(!other.signal(Signal::KILL).unwrap());
        }
        assert!(child.0.try_wait().unwrap().is_none(), "it must have survived");

        assert!(process.signal(Signal::KILL).unwrap());
        child.0.wait().unwrap();
        assert_eq!(process.life(), Life::Gone);
        assert!(!process.signal(Signal::KILL).unwrap());
    }

    /// A paused process is not gone, and a killed one that nobody has waited for is.
    #[tokio::test]
    async fn paused_and_dead() {
        let (mut child, process) = Sleeper::start("node.toml").await;
        let becomes = async |life: Life| {
            let limit = Duration::from_secs(10);
            let seen = crate::poll::until(limit, || (process.life() == life).then_some(())).await;
            assert!(seen.is_some(), "{life:?} was expected");
        };
        assert_eq!(process.life(), Life::Running);
        process.signal(Signal::STOP).unwrap();
        becomes(Life::Paused).await;
        process.signal(Signal::CONT).unwrap();
        becomes(Life::Running).await;
        process.signal(Signal::KILL).unwrap();
        becomes(Life::Gone).await; // a zombie until the line below
        child.0.wait().unwrap();
    }

    /// What is written reads back as itself; what is no record is none.
    #[test]
    fn records() {
        let line = "4711 Fri Nov 21 02:01:00 2026\n";
        let process = Process::parse(line, "c".into()).unwrap();
        assert_eq!((process.pid, process.started.as_str()), (4711, "Fri Nov 21 02:01:00 2026"));
        assert_eq!(process.record(), line);
        for text in ["", "12", "x 12", "-1 12"] {
            assert!(Process::parse(text, "c".into()).is_none(), "{text:?}");
        }
    }

    /// Lines as Linux and macOS show them.
    #[test]
    fn what_the_system_shows() {
        let stat = "77 (a) b) S 1 77 77 0 -1 4194560 1 0 0 0 2 3 0 0 20 0 9 0 98127 1 2 3";
        let seen = Seen::from_stat(stat).unwrap();
        assert_eq!((seen.state, seen.started.as_str()), ('S', "98127"));
        assert_eq!(Seen::from_stat("77 (a) S 1 77"), None);
        // killed, and a thread of it has still something to do in the kernel: not gone yet
        for (threads, state) in [("9", 'D'), ("1", 'Z')] {
            let stat = stat.replace(") S ", ") Z ").replace(" 0 9 0 ", &format!(" 0 {threads} 0 "));
            assert_eq!(Seen::from_stat(&stat).unwrap().state, state);
        }

        let line = "Ss+  Fri Nov 21 02:01:00 2026 /bin/atoll node run --config /x/n1/node.toml\n";
        let seen = Seen::from_ps(line).unwrap();
        assert_eq!((seen.state, seen.started.as_str()), ('S', "Fri Nov 21 02:01:00 2026"));
        assert_eq!(seen.command, b"/bin/atoll node run --config /x/n1/node.toml");
        assert_eq!(Seen::from_ps(""), None);
    }
}
