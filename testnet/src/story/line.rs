//! A command line as it stands in a story: words, as a shell would see them, each with its place.

use super::{Mistake, Place, Values};

/// A command line whose values are not filled in yet.
#[derive(Clone, Debug)]
pub struct Line {
    /// The words; the first is `atoll`.
    pub words: Vec<Word>,
}

/// A word of it.
#[derive(Clone, Debug)]
pub struct Word {
    /// Without quotes.
    pub text: String,
    /// Where it begins.
    pub place: Place,
}

impl Line {
    /// Cuts a text into words. Quotes, single or double, hold a word together; nothing else is special. `source` is the whole
    /// file, and the text is what its bytes from `begin` to `end` mean.
    pub(super) fn cut(
        text: &str,
        source: &str,
        (begin, end): (usize, usize),
    ) -> Result<Line, Mistake> {
        // where the text stands as it is; with escapes in it, only its beginning is known
        let shift = source.get(begin..end).and_then(|raw| raw.find(text)).map(|at| begin + at);
        let place = |byte: usize| match shift {
            Some(shift) => Place::of(source, shift + byte),
            None => Place::of(source, begin),
        };
        let mut words: Vec<Word> = Vec::new();
        let mut open: Option<(char, usize)> = None;
        let mut in_word = false;
        for (byte, letter) in text.char_indices() {
            match open {
                Some((quote, _)) if letter == quote => open = None,
                None if letter.is_whitespace() => in_word = false,
                _ => {
                    if !in_word {
                        words.push(Word { text: String::new(), place: place(byte) });
                        in_word = true;
                    }
                    if open.is_none() && matches!(letter, '\'' | '"') {
                        open = Some((letter, byte));
                    } else if let Some(word) = words.last_mut() {
                        word.text.push(letter);
                    }
                }
            }
        }
        if let Some((quote, byte)) = open {
            let what = format!("nothing closes this {quote}");
            return Err(Mistake { place: place(byte), what });
        }
        match words.first() {
            Some(first) if first.text == "atoll" => Ok(Line { words }),
            _ => Err(Mistake {
                place: place(0),
                what: "a command of a story begins with `atoll`".to_owned(),
            }),
        }
    }

    /// Its words with values in the place of names.
    ///
    /// # Errors
    /// A name without a value.
    pub fn fill(&self, values: &Values) -> Result<Vec<String>, String> {
        self.words.iter().map(|word| values.fill(&word.text)).collect()
    }

    /// Whether it asks for JSON.
    #[must_use]
    pub fn asks_for_json(&self) -> bool {
        let texts: Vec<&str> = self.words.iter().map(|word| word.text.as_str()).collect();
        texts.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]))
    }
}

/// Words as one would type them.
#[must_use]
pub(super) fn typed(words: &[String]) -> String {
    let plain = |letter: char| letter.is_alphanumeric() || "-_./:=,+@%~^".contains(letter);
    let quoted = words.iter().map(|word| match word.chars().all(plain) && !word.is_empty() {
        true => word.clone(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    });
    quoted.collect::<Vec<_>>().join(" ")
}

impl Line {
    /// Words as one would type them in a shell.
    #[must_use]
    pub fn typed(words: &[String]) -> String {
        typed(words)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Result<Vec<String>, Mistake> {
        let source = format!("run = '''{text}'''");
        let line = Line::cut(text, &source, (6, source.len()))?;
        Ok(line.words.into_iter().map(|word| word.text).collect())
    }

    /// Quotes hold words together, also in the middle of one; an empty word is one.
    #[test]
    fn words() {
        assert_eq!(
            cut("atoll put cart 'two apples'").unwrap(),
            ["atoll", "put", "cart", "two apples"]
        );
        assert_eq!(cut("atoll  a\"b c\"d ''").unwrap(), ["atoll", "ab cd", ""]);
        assert_eq!(cut("atoll it\"'\"s").unwrap(), ["atoll", "it's"]);
        let open = cut("atoll put 'x").unwrap_err();
        assert_eq!(open.to_string(), "line 1, column 20: nothing closes this '");
        assert!(cut("rm -rf x").unwrap_err().what.contains("begins with `atoll`"));
        assert!(cut("").unwrap_err().what.contains("begins with `atoll`"));
    }

    /// What is printed can be typed again.
    #[test]
    fn typed_again() {
        let words = ["atoll", "put", "it's", "two apples", "a=1", ""].map(str::to_owned);
        assert_eq!(typed(&words), "atoll put 'it'\\''s' 'two apples' a=1 ''");
    }

    /// A word knows its line and column, also where the text spans lines.
    #[test]
    fn places() {
        let source = "[[step]]\nrun = \"atoll gett cart\"\n";
        let line = Line::cut("atoll gett cart", source, (15, source.len())).unwrap();
        assert_eq!(line.words[1].place, Place { line: 2, column: 14 });
    }
}
