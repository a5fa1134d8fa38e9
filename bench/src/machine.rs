//! The machine we run on, and how much of it we use ourselves.
//!
//! Read from `/proc` where there is one. What is not known is `None`, and printed as "n/a".

use std::time::Duration;

use serde::Serialize;

/// What a figure must be read with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// Cores that this process may use.
    pub cores: Option<usize>,
    /// The processor's name.
    pub processor: Option<String>,
    /// Bytes of main memory.
    pub memory_bytes: Option<u64>,
    /// The operating system, with the kernel's version if known.
    pub os: String,
    /// The architecture.
    pub arch: String,
}

impl Machine {
    /// This one.
    pub fn this() -> Machine {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let os = format!("{} {}", std::env::consts::OS, kernel.trim());
        Machine {
            cores: std::thread::available_parallelism().ok().map(Into::into),
            processor: field("/proc/cpuinfo", "model name"),
            memory_bytes: field("/proc/meminfo", "MemTotal").and_then(|text| kibibytes(&text)),
            os: os.trim().into(),
            arch: std::env::consts::ARCH.into(),
        }
    }
}

/// CPU time of this process so far, user and system. To 10 ms.
pub(crate) fn cpu_time() -> Option<Duration> {
    ticks(&std::fs::read_to_string("/proc/self/stat").ok()?)
        .map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// The unit of `/proc/PID/stat`. Part of Linux' interface to programs, and 100 on everything we build for.
const TICKS_PER_SECOND: u64 = 100;

/// utime + stime: the 14th and 15th field. The second one is the program's name and may hold anything, so we count from
/// its closing parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let user: u64 = fields.nth(11)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// What stands behind `name` and a colon in one of the files of `/proc`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_the_name() {
        let stat = "7 (a (b) c) R 1 2 3 4 5 6 7 8 9 10 140 23 0 0 20 0 1 0 9 9 9";
        assert_eq!(ticks(stat), Some(163));
        assert_eq!(ticks("7 (short) R 1 2"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(kibibytes("25165824 kB"), Some(24 << 30));
        assert_eq!(kibibytes("lots"), None);
    }
}
