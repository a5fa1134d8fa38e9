//! What must come of a step, and whether it did.

use serde_json::Value;

use super::{Path, Values, path::plain};

/// What a command printed and how it ended.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it printed as its result.
    pub stdout: String,
    /// What it said beside.
    pub stderr: String,
}

/// All that must be so of what was heard.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    /// One of these exit codes.
    pub exit: Vec<i32>,
    /// Its result is exactly this, but for space around it.
    pub is: Option<String>,
    /// Each of these was printed, as result or beside.
    pub says: Vec<String>,
    /// None of these was.
    pub never: Vec<String>,
    /// What stands in its JSON.
    pub json: Vec<(Path, Test)>,
}

/// What must be so of each value at a place in JSON; there must be one.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    /// It is this.
    Is(Value),
    /// It is a number, and not below this one.
    AtLeast(f64),
    /// It is a number, and not above this one.
    AtMost(f64),
    /// It is a list with so many elements.
    Count(usize),
    /// It is a text or list with this in it.
    Has(String),
}

impl Expect {
    /// Whether all of it is so.
    ///
    /// # Errors
    /// What is not.
    pub fn check(&self, heard: &Heard, values: &Values) -> Result<(), String> {
        match heard.code {
            Some(code) if self.exit.contains(&code) => {}
            Some(code) => {
                return Err(format!("it ended with exit code {code}, not {}", either(&self.exit)));
            }
            None => return Err("it did not end by itself".to_owned()),
        }
        if let Some(is) = &self.is {
            let (is, got) = (values.fill(is)?, heard.stdout.trim());
            if got != is.trim() {
                return Err(format!("it printed `{got}`, not `{}`", is.trim()));
            }
        }
        let printed = |text: &str| heard.stdout.contains(text) || heard.stderr.contains(text);
        for text in &self.says {
            let text = values.fill(text)?;
            if !printed(&text) {
                return Err(format!("it does not say `{text}`"));
            }
        }
        for text in &self.never {
            let text = values.fill(text)?;
            if printed(&text) {
                return Err(format!("it says `{text}`"));
            }
        }
        if self.json.is_empty() {
            return Ok(());
        }
        let document = document(heard)?;
        self.json.iter().try_for_each(|(path, test)| {
            let way = values.fill(&path.text)?;
            let found = Path::find(&way, &document);
            if found.is_empty() {
                return Err(format!("its JSON has no {way}"));
            }
            found.into_iter().try_for_each(|value| {
                test.check(value, values).map_err(|why| format!("{way} is {value}, not {why}"))
            })
        })
    }

    /// All texts in it that may name values.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        let json = self.json.iter().flat_map(|(path, test)| {
            let expected = match test {
                Test::Is(Value::String(text)) | Test::Has(text) => Some(text),
                _ => None,
            };
            [Some(&path.text), expected].into_iter().flatten()
        });
        self.is.iter().chain(&self.says).chain(&self.never).chain(json).map(String::as_str)
    }
}

impl Heard {
    /// The one value at a place in the JSON that it printed, as a word.
    ///
    /// # Errors
    /// It is no JSON, or there is not exactly one.
    pub fn take(&self, path: &Path, values: &Values) -> Result<String, String> {
        let (way, document) = (values.fill(&path.text)?, document(self)?);
        match Path::find(&way, &document).as_slice() {
            [value] => Ok(plain(value)),
            [] => Err(format!("its JSON has no {way}")),
            several => Err(format!("its JSON has {} values at {way}, not one", several.len())),
        }
    }
}

impl Test {
    /// Whether a value passes; else what it should be.
    fn check(&self, value: &Value, values: &Values) -> Result<(), String> {
        let number = value.as_f64();
        let (passes, else_what) = match self {
            Test::Is(Value::String(text)) => {
                let text = values.fill(text)?;
                (plain(value) == text, format!("{text:?}"))
            }
            Test::Is(expected) => (value == expected, expected.to_string()),
            Test::AtLeast(least) => {
                (number.is_some_and(|n| n >= *least), format!("{least} or more"))
            }
            Test::AtMost(most) => (number.is_some_and(|n| n <= *most), format!("{most} or less")),
            Test::Count(count) => (
                value.as_array().is_some_and(|all| all.len() == *count),
                format!("{count} of them"),
            ),
            Test::Has(text) => {
                let text = values.fill(text)?;
                let has = match value {
                    Value::Array(all) => all.iter().any(|one| plain(one) == text),
                    other => plain(other).contains(&text),
                };
                (has, format!("one with {text:?} in it"))
            }
        };
        if passes { Ok(()) } else { Err(else_what) }
    }
}

fn document(heard: &Heard) -> Result<Value, String> {
    serde_json::from_str(&heard.stdout).map_err(|_| "it printed no JSON".to_owned())
}

fn either(codes: &[i32]) -> String {
    codes.iter().map(i32::to_string).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn heard(code: i32, stdout: &str, stderr: &str) -> Heard {
        Heard { code: Some(code), stdout: stdout.into(), stderr: stderr.into() }
    }

    /// Each expectation alone: met by what it means, and missed with a reason that says both sides.
    #[test]
    fn met_and_missed() {
        let mut values = Values::default();
        values.set("first", "n3".into());
        let base = Expect { exit: vec![0], ..Expect::default() };
        let good = heard(0, "two apples\n", "n1 coordinated: n4 for n3 durable 1.0 ms\n");
        let says = |text: &str| Expect { says: vec![text.into()], ..base.clone() };
        let never = |text: &str| Expect { never: vec![text.into()], ..base.clone() };
        let is = |text: &str| Expect { is: Some(text.into()), ..base.clone() };
        for (expect, missed) in [
            (base.clone(), None),
            (Expect { exit: vec![6, 7], ..base.clone() }, Some("exit code 0, not 6 or 7")),
            (is("two apples"), None),
            (is("apples"), Some("`two apples`, not `apples`")),
            (says("for $first durable"), None),
            (says("for $first written"), Some("does not say `for n3 written`")),
            (never("for n5"), None),
            (never("for $first"), Some("says `for n3`")),
            (says("$second"), Some("nothing is called $second")),
        ] {
            match (expect.check(&good, &values), missed) {
                (Ok(()), None) => {}
                (Err(why), Some(words)) => assert!(why.contains(words), "{why}"),
                (other, _) => panic!("{expect:?}: {other:?}"),
            }
        }
        let killed = Heard { code: None, ..good };
        assert!(base.check(&killed, &values).is_err());
    }

    /// In JSON a place must be there, and each value at it must pass.
    #[test]
    fn in_json() {
        let mut values = Values::default();
        values.set("first", "n3".into());
        let text = json!({
            "receipt": {"hinted": ["n3"], "needed": 2},
            "nodes": [{"hints": 0, "node": "n3"}, {"hints": 2, "node": "n4"}],
        });
        let heard = heard(0, &text.to_string(), "");
        let check = |way: &str, test: Test| {
            let json = vec![(Path { text: way.into() }, test)];
            Expect { exit: vec![0], json, ..Expect::default() }.check(&heard, &values)
        };
        let hinted = "receipt.hinted";
        assert_eq!(check("receipt.hinted.0", Test::Is(json!("$first"))), Ok(()));
        assert_eq!(check(hinted, Test::Is(json!(["n3"]))), Ok(()));
        assert_eq!(check(hinted, Test::Has("$first".into())), Ok(()));
        assert_eq!(check(hinted, Test::Count(1)), Ok(()));
        assert_eq!(check("nodes.*.hints", Test::AtMost(2.0)), Ok(()));
        assert_eq!(check("nodes.node=$first.hints", Test::Is(json!(0))), Ok(()));
        for (way, test, why) in [
            ("nodes.*.hints", Test::Is(json!(0)), "nodes.*.hints is 2, not 0"),
            ("nodes.*.hints", Test::AtLeast(1.0), "nodes.*.hints is 0, not 1 or more"),
            ("receipt.lost", Test::Is(json!(0)), "its JSON has no receipt.lost"),
            ("receipt.needed", Test::Count(1), "receipt.needed is 2, not 1 of them"),
            (
                hinted,
                Test::Has("n4".into()),
                "receipt.hinted is [\"n3\"], not one with \"n4\" in it",
            ),
        ] {
            assert_eq!(check(way, test), Err(why.to_owned()));
        }
    }

    /// A value is taken if it is one; a text comes without its quotes.
    #[test]
    fn taken() {
        let heard = heard(0, r#"{"owners": ["n3", "n2"], "epoch": 7}"#, "");
        let take = |way: &str| heard.take(&Path { text: way.into() }, &Values::default());
        assert_eq!(take("owners.0").unwrap(), "n3");
        assert_eq!(take("epoch").unwrap(), "7");
        assert!(take("owners.*").unwrap_err().contains("2 values"));
        assert!(take("owners.2").is_err());
        let none = Heard::default().take(&Path { text: "x".into() }, &Values::default());
        assert!(none.unwrap_err().contains("no JSON"));
    }
}
