//! The stories that come with the program.

/// Each by its name, in the order in which a newcomer may like to hear them.
pub const SHIPPED: [(&str, &str); 10] = [
    ("stale-read", include_str!("../../stories/stale-read.toml")),
    ("sloppy-quorum", include_str!("../../stories/sloppy-quorum.toml")),
    ("shopping-cart", include_str!("../../stories/shopping-cart.toml")),
    ("kill-all", include_str!("../../stories/kill-all.toml")),
    ("rolling-restart", include_str!("../../stories/rolling-restart.toml")),
    ("split-and-heal", include_str!("../../stories/split-and-heal.toml")),
    ("lose-a-zone", include_str!("../../stories/lose-a-zone.toml")),
    ("wiped-node", include_str!("../../stories/wiped-node.toml")),
    ("clock-jump", include_str!("../../stories/clock-jump.toml")),
    ("grow-under-load", include_str!("../../stories/grow-under-load.toml")),
];

/// Those that `testnet tour` tells.
pub const TOUR: [&str; 4] = ["stale-read", "sloppy-quorum", "shopping-cart", "kill-all"];

/// The file of a story that comes with the program.
#[must_use]
pub fn shipped(name: &str) -> Option<&'static str> {
    SHIPPED.iter().find(|(shipped, _)| *shipped == name).map(|(_, file)| *file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::story::{Length, Story};

    /// Each makes sense in both lengths, proves something in both, and says what it is about; the tour tells stories that are
    /// there.
    #[test]
    fn all_make_sense() {
        for (name, file) in SHIPPED {
            let story =
                Story::parse(name, file).unwrap_or_else(|mistake| panic!("{name}: {mistake}"));
            assert!(!story.about.is_empty(), "{name}");
            for length in [Length::Long, Length::Short] {
                let proves = story.steps(length).filter(|step| step.shows.is_some()).count();
                assert!(proves >= 2, "{name} proves {proves}");
            }
        }
        assert!(TOUR.iter().all(|name| shipped(name).is_some()));
    }
}
