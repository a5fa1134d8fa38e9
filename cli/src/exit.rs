//! How the program ends: the numbers are part of the interface and mean the same everywhere.

use std::process::ExitCode;

/// What went wrong, as scripts see it. Ending well is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Corrupt, overloaded, read-only, or anything without a number of its own.
    Other = 1,
    /// Refused, and nothing was changed: usage, settings, files, a change of the ring that cannot be.
    Refused = 2,
    /// The key has no value.
    NotFound = 3,
    /// Nobody to talk to.
    CannotConnect = 4,
    /// `status`: some of it does not work.
    Degraded = 5,
    /// Too few owners answered.
    QuorumNotMet = 6,
    /// Time was over.
    Timeout = 7,
    /// Refused because of what is stored.
    Conflict = 8,
    /// A node stopped because its storage failed.
    StorageFailed = 10,
    /// `testnet judge`: a promise was broken.
    Violated = 11,
    /// A node was removed from the ring and cannot come back under its id.
    Removed = 12,
    /// Interrupted from the keyboard.
    Interrupted = 130,
}

/// An error on its way to the user: the number, what happened, and what to do about it.
#[derive(Debug)]
pub struct Failed {
    /// The number the program ends with.
    pub exit: Exit,
    /// What happened, in one sentence without a full stop. Empty: already said on stdout, only the number is left.
    pub what: String,
    /// What to do, if there is something.
    pub mend: Option<String>,
}

impl Failed {
    /// An error without a mend.
    pub fn new(exit: Exit, what: impl Into<String>) -> Self {
        Failed { exit, what: what.into(), mend: None }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }

    /// Everything has been said on stdout; only the number is left.
    pub fn silent(exit: Exit) -> Self {
        Failed::new(exit, "")
    }

    /// Prints the error and gives the number to end with.
    pub fn report(&self) -> ExitCode {
        if !self.what.is_empty() {
            anstream::eprintln!("\x1b[1;31merror\x1b[0m: {}", self.what);
            if let Some(mend) = &self.mend {
                anstream::eprintln!("  \x1b[1mtry\x1b[0m: {mend}");
            }
        }
        ExitCode::from(self.exit as u8)
    }
}
