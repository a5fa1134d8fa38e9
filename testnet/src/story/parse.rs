//! From the text of a file to a story, or to the first mistake with its line and column.
//!
//! The file is read as it is written ([`Written`], one struct per table). Then each step is checked against what came before
//! it: a value must be known before it is used, a load must have been started before it is ended.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use serde::Deserialize;
use toml::Spanned;

use super::{Deed, Expect, Length, Line, Mistake, Path, Place, Stage, Step, Story, Test, Values};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    title: String,
    #[serde(default)]
    about: String,
    #[serde(default)]
    testnet: Stage,
    #[serde(default)]
    values: BTreeMap<Spanned<String>, Spanned<toml::Value>>,
    #[serde(default)]
    step: Vec<Spanned<WrittenStep>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenStep {
    say: Option<Spanned<String>>,
    run: Option<Spanned<String>>,
    load: Option<Spanned<String>>,
    end: Option<Spanned<String>>,
    #[serde(rename = "await")]
    waits: Option<Spanned<String>>,
    #[serde(rename = "as")]
    name: Option<Spanned<String>>,
    show: Option<Vec<String>>,
    expect: Option<Spanned<WrittenExpect>>,
    shows: Option<Spanned<String>>,
    within: Option<Spanned<String>>,
    #[serde(default)]
    take: BTreeMap<Spanned<String>, Spanned<String>>,
    look: Option<Spanned<String>>,
    only: Option<Length>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenExpect {
    exit: Option<OneOrMore<i32>>,
    is: Option<String>,
    #[serde(default)]
    says: OneOrMore<String>,
    #[serde(default)]
    never: OneOrMore<String>,
    #[serde(default)]
    json: BTreeMap<String, Spanned<toml::Value>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl Story {
    /// Reads a story.
    ///
    /// # Errors
    /// The first [`Mistake`].
    pub fn parse(name: &str, source: &str) -> Result<Story, Mistake> {
        let written: Written = toml::from_str(source).map_err(|error| Mistake {
            place: Place::of(source, error.span().map_or(0, |span| span.start)),
            what: error.message().to_owned(),
        })?;
        let mut values = Vec::new();
        let mut steps = vec![None; written.step.len()];
        // each length must make sense without what only the other one tells
        for length in [Length::Long, Length::Short] {
            let mut reading = Reading { source, known: Vec::new(), running: Vec::new() };
            values.clear();
            for (name, value) in &written.values {
                reading.name(name)?;
                values.push((name.get_ref().clone(), reading.both_lengths(value)?));
            }
            for (step, written) in steps.iter_mut().zip(&written.step) {
                if written.get_ref().only.is_none_or(|only| only == length) {
                    *step = Some(reading.step(written)?);
                }
            }
            if steps.is_empty() {
                return Err(reading.mistake(0..0, "a story has steps: [[step]]"));
            }
        }
        let steps = steps.into_iter().flatten().collect();
        let Written { title, about, testnet: stage, .. } = written;
        Ok(Story { name: name.to_owned(), title, about, stage, values, steps })
    }
}

/// How far the file was understood.
struct Reading<'a> {
    source: &'a str,
    /// Names that stand for something, in the order in which they got known.
    known: Vec<String>,
    /// Loads that were started and not ended.
    running: Vec<String>,
}

impl Reading<'_> {
    fn mistake(&self, at: Range<usize>, what: impl Into<String>) -> Mistake {
        Mistake { place: Place::of(self.source, at.start), what: what.into() }
    }

    /// A new name: a good one, that nothing else has.
    fn name(&mut self, name: &Spanned<String>) -> Result<(), Mistake> {
        let text = name.get_ref();
        if !Values::is_name(text) {
            let what = format!("{text:?} is no name: small letters, digits and _, a letter first");
            return Err(self.mistake(name.span(), what));
        }
        if !self.known.contains(text) {
            self.known.push(text.clone());
        }
        Ok(())
    }

    /// A value that is the same in both lengths, or a table with one for each.
    fn both_lengths(&self, value: &Spanned<toml::Value>) -> Result<[String; 2], Mistake> {
        let word = |value: &toml::Value| match value {
            toml::Value::String(text) => Some(text.clone()),
            toml::Value::Integer(number) => Some(number.to_string()),
            _ => None,
        };
        let both = match value.get_ref() {
            toml::Value::Table(each) if each.len() == 2 => {
                each.get("long").and_then(word).zip(each.get("short").and_then(word))
            }
            one => word(one).map(|word| (word.clone(), word)),
        };
        match both {
            Some((long, short)) => Ok([long, short]),
            None => Err(self.mistake(
                value.span(),
                "a value is a text or number, or { long = …, short = … } with one of these each",
            )),
        }
    }

    fn step(&mut self, spanned: &Spanned<WrittenStep>) -> Result<Step, Mistake> {
        let (step, span) = (spanned.get_ref(), spanned.span());
        for text in [&step.say, &step.run, &step.load].into_iter().flatten() {
            self.names_known(text.get_ref(), text.span())?;
        }
        let deed = self.deed(step, span.clone())?;
        let expect = self.expect(step, &deed)?;
        let within = step.within.as_ref().map(|text| self.duration(text)).transpose()?;
        let speaks_json = match &deed {
            Some(Deed::Run(line)) => line.asks_for_json(),
            Some(Deed::End(_) | Deed::Await(_)) => true,
            Some(Deed::Load { .. }) | None => false,
        };
        let needs_json = !step.take.is_empty() || !expect.json.is_empty();
        if needs_json && !speaks_json {
            return Err(
                self.mistake(span, "values are taken from JSON: add -o json to its command")
            );
        }
        if within.is_some() && !matches!(deed, Some(Deed::Run(_))) {
            return Err(
                self.mistake(span, "only what is `run` can be repeated until it is as expected")
            );
        }
        let mut take = Vec::new();
        let mut taken: Vec<_> = step.take.iter().collect();
        taken.sort_by_key(|(name, _)| name.span().start); // as it was written
        for (name, path) in taken {
            self.names_known(path.get_ref(), path.span())?;
            self.name(name)?;
            take.push((name.get_ref().clone(), Path { text: path.get_ref().clone() }));
        }
        for text in [&step.shows, &step.look].into_iter().flatten() {
            self.names_known(text.get_ref(), text.span())?;
        }
        let owned =
            |text: &Option<Spanned<String>>| text.as_ref().map(|text| text.get_ref().clone());
        Ok(Step {
            place: Place::of(self.source, span.start),
            say: owned(&step.say),
            deed,
            show: step.show.clone(),
            expect,
            shows: owned(&step.shows),
            within,
            take,
            look: owned(&step.look),
            only: step.only,
        })
    }

    /// What is done: at most one thing.
    fn deed(&mut self, step: &WrittenStep, span: Range<usize>) -> Result<Option<Deed>, Mistake> {
        let WrittenStep { run, load, end, waits, name, .. } = step;
        let said = [run, load, end, waits].into_iter().flatten().collect::<Vec<_>>();
        if let [_, second, ..] = said.as_slice() {
            let what = "one step does one thing: `run`, `load`, `end` or `await`";
            return Err(self.mistake(second.span(), what));
        }
        if let (Some(name), None) = (name, load) {
            return Err(self.mistake(name.span(), "only a `load` has a name"));
        }
        let deed = match (run, load, end.as_ref().or(waits.as_ref())) {
            (Some(run), ..) => Deed::Run(self.line(run)?),
            (_, Some(load), _) => {
                let Some(name) = name else {
                    return Err(self.mistake(load.span(), "a load needs a name: as = \"clients\""));
                };
                if self.running.contains(name.get_ref()) {
                    let what = format!("{} runs already", name.get_ref());
                    return Err(self.mistake(name.span(), what));
                }
                self.running.push(name.get_ref().clone());
                Deed::Load { name: name.get_ref().clone(), line: self.line(load)? }
            }
            (.., Some(ends)) => {
                let before = self.running.len();
                self.running.retain(|running| running != ends.get_ref());
                if self.running.len() == before {
                    let what = format!("no load called {} runs here", ends.get_ref());
                    return Err(self.mistake(ends.span(), what));
                }
                match end {
                    Some(_) => Deed::End(ends.get_ref().clone()),
                    None => Deed::Await(ends.get_ref().clone()),
                }
            }
            (None, None, None) => {
                if step.expect.is_some() || step.within.is_some() || !step.take.is_empty() {
                    return Err(
                        self.mistake(span, "nothing is done here that could be as expected")
                    );
                }
                return Ok(None);
            }
        };
        Ok(Some(deed))
    }

    fn line(&self, text: &Spanned<String>) -> Result<Line, Mistake> {
        let span = text.span();
        Line::cut(text.get_ref(), self.source, (span.start, span.end))
    }

    fn expect(&self, step: &WrittenStep, deed: &Option<Deed>) -> Result<Expect, Mistake> {
        let usual = match deed {
            Some(Deed::End(_)) => 130,
            _ => 0,
        };
        let Some(spanned) = &step.expect else {
            return Ok(Expect { exit: vec![usual], ..Expect::default() });
        };
        if let Some(Deed::Load { .. }) = deed {
            return Err(self.mistake(spanned.span(), "what comes of a load is known when it ends"));
        }
        let written = spanned.get_ref();
        let mut json = Vec::new();
        for (path, test) in &written.json {
            json.push((Path { text: path.clone() }, self.test(test)?));
        }
        let expect = Expect {
            exit: written.exit.as_ref().map_or(vec![usual], OneOrMore::all),
            is: written.is.clone(),
            says: written.says.all(),
            never: written.never.all(),
            json,
        };
        expect.texts().try_for_each(|text| self.names_known(text, spanned.span()))?;
        Ok(expect)
    }

    fn test(&self, value: &Spanned<toml::Value>) -> Result<Test, Mistake> {
        let toml::Value::Table(table) = value.get_ref() else {
            let json = serde_json::to_value(value.get_ref());
            return json
                .map(Test::Is)
                .map_err(|error| self.mistake(value.span(), error.to_string()));
        };
        let number = |value: &toml::Value| {
            value.as_float().or_else(|| i32::try_from(value.as_integer()?).ok().map(f64::from))
        };
        let test = match table.iter().collect::<Vec<_>>().as_slice() {
            [(word, value)] => match word.as_str() {
                "at_least" => number(value).map(Test::AtLeast),
                "at_most" => number(value).map(Test::AtMost),
                "count" => value
                    .as_integer()
                    .and_then(|count| usize::try_from(count).ok())
                    .map(Test::Count),
                "has" => value.as_str().map(|text| Test::Has(text.to_owned())),
                _ => None,
            },
            _ => None,
        };
        let what = "a value, or { at_least = NUMBER }, { at_most = NUMBER }, { count = NUMBER } or { has = TEXT }";
        test.ok_or_else(|| self.mistake(value.span(), what))
    }

    fn duration(&self, text: &Spanned<String>) -> Result<Duration, Mistake> {
        humantime::parse_duration(text.get_ref())
            .map_err(|error| self.mistake(text.span(), format!("{error}, such as 20s")))
    }

    fn names_known(&self, text: &str, span: Range<usize>) -> Result<(), Mistake> {
        let unknown = |name: &&str| !self.known.iter().any(|known| known == name);
        match Values::names(text).find(unknown) {
            None => Ok(()),
            Some(name) => {
                // where it stands, if it stands there as it is
                let at = self.source[span.clone()].find(&format!("${name}")).unwrap_or(0);
                let known = match self.known.as_slice() {
                    [] => "nothing has a name yet".to_owned(),
                    names => format!("known are: ${}", names.join(", $")),
                };
                let what = format!("nothing is called ${name} here; {known}");
                Err(self.mistake(span.start + at..span.end, what))
            }
        }
    }
}

impl<T: Clone> OneOrMore<T> {
    fn all(&self) -> Vec<T> {
        match self {
            OneOrMore::One(one) => vec![one.clone()],
            OneOrMore::More(all) => all.clone(),
        }
    }
}

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        OneOrMore::More(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str) -> String {
        Story::parse("x", source).expect_err(source).to_string()
    }

    fn step(step: &str) -> String {
        refused(&format!("title = 't'\n[[step]]\n{step}\n"))
    }

    /// A whole story: steps in order, values by length, defaults.
    #[test]
    fn a_story() {
        let source = r#"
            title = "t"
            about = "a"
            [testnet]
            nodes = 3
            [values]
            load = { long = "20s", short = "2s" }
            key = "cart"
            [[step]]
            say = "Who owns $key?"
            run = "atoll ring lookup $key -o json"
            take = { first = "owners.0" }
            [[step]]
            load = "atoll bench run --for $load"
            as = "clients"
            [[step]]
            only = "long"
            run = "atoll testnet kill $first"
            within = "20s"
            expect = { exit = [0, 5], says = "killed", json = {} }
            shows = "$first is dead"
            [[step]]
            end = "clients"
        "#;
        let story = Story::parse("x", source).unwrap();
        assert_eq!((story.stage.nodes, story.stage.replicas), (3, 3));
        assert_eq!(story.steps(Length::Long).count(), 4);
        assert_eq!(story.steps(Length::Short).count(), 3);
        assert_eq!(story.values(Length::Long).fill("$load $key"), Ok("20s cart".into()));
        assert_eq!(story.values(Length::Short).fill("$load"), Ok("2s".into()));
        let steps: Vec<&Step> = story.steps(Length::Long).collect();
        assert_eq!(steps[2].expect.exit, [0, 5]);
        assert_eq!(steps[2].within, Some(Duration::from_secs(20)));
        assert_eq!(steps[3].expect.exit, [130]);
        let Some(Deed::Run(line)) = &steps[0].deed else { panic!("{:?}", steps[0]) };
        assert!(line.asks_for_json());
        assert_eq!(line.words[1].place.line, 11);
    }

    /// What cannot be is refused where it stands, with what would be right.
    #[test]
    fn mistakes_have_a_place() {
        for (refused, place, words) in [
            (
                step("rnu = 'atoll get x'"),
                "line 3, column 1",
                "`rnu`, expected one of `say`, `run`",
            ),
            (step("run = 'atoll get $key'"), "line 3, column 18", "nothing is called $key"),
            (step("run = 'rm -rf'"), "line 3, column 8", "begins with `atoll`"),
            (step("run = 'atoll a'\nend = 'x'"), "line 4, column 7", "one step does one thing"),
            (step("end = 'x'"), "line 3, column 7", "no load called x"),
            (step("load = 'atoll bench run'"), "line 3, column 8", "as = "),
            (step("run = 'atoll a'\nas = 'b'"), "line 4, column 6", "only a `load` has a name"),
            (step("run = 'atoll a'\nwithin = 'soon'"), "line 4, column 10", "such as 20s"),
            (step("run = 'atoll a'\ntake = { b = 'c' }"), "line 2, column 1", "-o json"),
            (
                step("run = 'atoll a -o json'\ntake = { B = 'c' }"),
                "line 4, column 10",
                "is no name",
            ),
            (step("say = 'x'\nwithin = '1s'"), "line 2, column 1", "nothing is done here"),
            (
                step("run = 'atoll a -o json'\nexpect = { json = { a = { about = 2 } } }"),
                "line 4, column 25",
                "at_least",
            ),
            (step("run = 'atoll a'\nexpect = { exti = 0 }"), "line 4, column 12", "`exti`"),
            (step("run = 'atoll a'\nshows = '$b'"), "line 4, column 10", "nothing is called $b"),
            (step("run = "), "line 3, column 7", ""),
            (refused("title = 't'\nstep = []"), "line 1, column 1", "a story has steps"),
            (refused("[[step]]\nsay = 'x'"), "line 1, column 1", "`title`"),
            (
                refused("title = 't'\n[values]\na = [1]\n[[step]]\nsay = 'x'"),
                "line 3, column 5",
                "long = …, short = …",
            ),
        ] {
            assert!(refused.starts_with(place), "{refused}");
            assert!(refused.contains(words), "{refused}");
        }
    }

    /// A name is known from the step on in which it is taken, and to that step's last words.
    #[test]
    fn names_in_the_order_of_time() {
        let story = |last: &str| {
            let take = "run = 'atoll a -o json'\ntake = { b = 'c' }\nlook = '$b'";
            Story::parse("x", &format!("title = 't'\n[[step]]\n{take}\n[[step]]\nsay = '{last}'"))
        };
        assert!(story("$b").is_ok());
        assert!(story("$c").unwrap_err().what.ends_with("known are: $b"));

        let long = "[[step]]\nonly = 'long'\nrun = 'atoll a -o json'\ntake = { b = 'c' }\n";
        let both = format!("title = 't'\n{long}[[step]]\nsay = 'so $b'");
        let mistake = Story::parse("x", &both).unwrap_err();
        assert_eq!(mistake.place, Place { line: 7, column: 11 }, "{mistake}");
    }
}
