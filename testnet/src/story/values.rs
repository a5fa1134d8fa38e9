//! Values that a story knows by name: `$owner` stands for what was taken from an earlier answer, `$$` for a dollar.

use std::collections::BTreeMap;

/// What the names of a story stand for, so far.
#[derive(Clone, Debug, Default)]
pub struct Values {
    known: BTreeMap<String, String>,
}

/// A piece of a text.
enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

impl Values {
    /// A name stands for this from now on.
    pub fn set(&mut self, name: &str, value: String) {
        self.known.insert(name.to_owned(), value);
    }

    /// The text with values in the place of names.
    ///
    /// # Errors
    /// A name that stands for nothing.
    pub fn fill(&self, text: &str) -> Result<String, String> {
        let mut filled = String::new();
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Name(name) => match self.known.get(name) {
                    Some(value) => filled.push_str(value),
                    None => return Err(format!("nothing is called ${name}")),
                },
            }
        }
        Ok(filled)
    }

    /// The names in a text, in order.
    pub fn names(text: &str) -> impl Iterator<Item = &str> {
        pieces(text).into_iter().filter_map(|piece| match piece {
            Piece::Name(name) => Some(name),
            Piece::Text(_) => None,
        })
    }

    /// Whether this can be a name.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        text.starts_with(|letter: char| letter.is_ascii_lowercase()) && text.chars().all(in_name)
    }
}

fn in_name(letter: char) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_'
}

/// A dollar that no name follows is a dollar.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        let after = &rest[dollar + 1..];
        let end = after.find(|letter| !in_name(letter)).unwrap_or(after.len());
        let name = &after[..end];
        if Values::is_name(name) {
            pieces.extend([Piece::Text(&rest[..dollar]), Piece::Name(name)]);
            rest = &after[end..];
        } else {
            pieces.push(Piece::Text(&rest[..=dollar]));
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    pieces.push(Piece::Text(rest));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_values() {
        let mut values = Values::default();
        values.set("first", "n3".into());
        values.set("first_zone", "z1".into());
        let fill = |text: &str| values.fill(text);
        assert_eq!(fill("kill $first, in $first_zone.").unwrap(), "kill n3, in z1.");
        assert_eq!(fill("$$first costs 5$ or $5, $$").unwrap(), "$first costs 5$ or $5, $");
        assert_eq!(fill("ä$first$first").unwrap(), "än3n3");
        assert_eq!(fill("$second").unwrap_err(), "nothing is called $second");
        assert_eq!(Values::names("$a $$b $c_1x").collect::<Vec<_>>(), ["a", "c_1x"]);
    }

    #[test]
    fn what_can_be_a_name() {
        for name in ["a", "first_owner", "n1"] {
            assert!(Values::is_name(name), "{name}");
        }
        for other in ["", "1", "A", "a-b", "_a"] {
            assert!(!Values::is_name(other), "{other}");
        }
    }
}
