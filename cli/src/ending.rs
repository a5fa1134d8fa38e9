//! The end of a certificate, as people hear of it while there is time.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use atoll_client::Profile;
use atoll_transport::{Identity, renewal::REMIND_IN_LAST};

/// When a certificate ends, seen from now.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    expires: SystemTime,
    now: SystemTime,
}

impl Ending {
    /// Of what expires then.
    pub fn at(expires: SystemTime) -> Self {
        Ending { expires, now: SystemTime::now() }
    }

    /// Of a node, as its status says; `None` if it does not say.
    pub fn of_node(expires_ms: u64) -> Option<Self> {
        let since_1970 = Duration::from_millis(expires_ms);
        (expires_ms != 0).then(|| Ending::at(SystemTime::UNIX_EPOCH + since_1970))
    }

    /// Of our own; `None` if there is no certificate to be read, which connecting will say.
    pub fn of_profile(profile: &Profile) -> Option<Self> {
        let identity = Identity::load(&profile.ca, &profile.certificate, &profile.key).ok()?;
        Some(Ending::at(identity.expires()))
    }

    /// Whether it is time to speak of it.
    pub fn is_near(&self) -> bool {
        self.now + REMIND_IN_LAST > self.expires
    }

    /// Whether it is over.
    pub fn is_over(&self) -> bool {
        self.now > self.expires
    }

    /// The moment, as RFC 3339 has it.
    pub fn date(&self) -> String {
        humantime::format_rfc3339_seconds(self.expires).to_string()
    }

    /// To whoever has this profile.
    pub fn for_caller(&self, profile: &Profile) -> String {
        let path = profile.certificate.display();
        format!("your certificate {path} {self}: atoll cluster renew DIR NAME")
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = |time: Duration| time.as_secs() / 86_400;
        match self.expires.duration_since(self.now) {
            Ok(left) => match days(left) {
                0 => write!(f, "expires within a day"),
                1 => write!(f, "expires in a day"),
                days => write!(f, "expires in {days} days"),
            },
            Err(over) => match days(over.duration()) {
                0 => write!(f, "has expired"),
                1 => write!(f, "has expired a day ago"),
                days => write!(f, "has expired {days} days ago"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    /// The words and the reminder, around each bound.
    #[test]
    fn words_and_reminders() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 * DAY);
        let cases = [
            (1031 * DAY, "expires in 31 days", false, false),
            (1030 * DAY, "expires in 30 days", false, false),
            (1030 * DAY - 1, "expires in 29 days", true, false),
            (1002 * DAY - 1, "expires in a day", true, false),
            (1001 * DAY - 1, "expires within a day", true, false),
            (1000 * DAY - 1, "has expired", true, true),
            (999 * DAY, "has expired a day ago", true, true),
            (995 * DAY, "has expired 5 days ago", true, true),
        ];
        for (expires, words, near, over) in cases {
            let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(expires);
            let ending = Ending { expires, now };
            assert_eq!(ending.to_string(), words);
            assert_eq!((ending.is_near(), ending.is_over()), (near, over), "{words}");
        }
        assert!(Ending::of_node(0).is_none(), "a node that does not know has no end");
        assert_eq!(Ending::of_node(1000).unwrap().date(), "1970-01-01T00:00:01Z");
    }
}
