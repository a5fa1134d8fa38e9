//! Telling a story: step by step, until it ends as it says or something else comes.

use std::{
    io::{self, BufRead as _},
    thread,
    time::{Duration, Instant},
};

use atoll_testnet::story::{Deed, Ending, Heard, Length, Line, Step, Story, Values};
use tokio::sync::mpsc;

use super::{children::Children, line::addressed, narrate::Narrator, stage::Stage};
use crate::exit::{Exit, Failed};

/// A story that is being told.
pub struct Telling<'a> {
    story: &'a Story,
    length: Length,
    testnet: String,
    /// Its processes; whoever stops the telling ends them.
    pub children: Children,
    values: Values,
    narrator: &'a mut Narrator,
    /// Says when the listener has pressed Enter; `None`: the story does not wait for that.
    enter: Option<mpsc::UnboundedReceiver<()>>,
}

/// What came of a step.
enum Came {
    /// What was expected.
    AsTold,
    /// Something else.
    Otherwise { heard: Heard, why: String },
}

impl<'a> Telling<'a> {
    /// Ready to begin.
    pub fn new(
        story: &'a Story,
        length: Length,
        stage: &Stage,
        by_enter: bool,
        narrator: &'a mut Narrator,
    ) -> Telling<'a> {
        let program = stage.program().to_owned();
        let children = Children::new(program, stage.folder().to_owned(), stage.environment());
        Telling {
            story,
            length,
            testnet: stage.name().to_owned(),
            children,
            values: story.values(length),
            narrator,
            enter: by_enter.then(listen_for_enter),
        }
    }

    /// Tells it. Dropped half-way, it leaves processes that [`Children::end_all`] ends.
    pub async fn tell(&mut self) -> Result<Ending, Failed> {
        let story = self.story;
        for (index, step) in story.steps(self.length).enumerate() {
            let number = index + 1;
            match self.step(step).await.map_err(|error| cannot_run(&error))? {
                Came::AsTold => {}
                Came::Otherwise { heard, why } => {
                    self.narrator.missed(step, &why, &heard, &self.values);
                    return Ok(Ending::otherwise(number, &heard, why));
                }
            }
        }
        Ok(Ending::AsTold)
    }

    async fn step(&mut self, step: &Step) -> io::Result<Came> {
        if let Some(say) = &step.say {
            self.wait_for_enter().await;
            self.narrator.say(&self.known(say));
        }
        let Some(deed) = &step.deed else {
            self.narrator.look(step, &self.values);
            return Ok(Came::AsTold);
        };
        let heard = match deed {
            Deed::Run(line) => match self.run(step, line).await? {
                Ok(heard) => heard,
                Err(otherwise) => return Ok(otherwise),
            },
            Deed::Load { name, line } => {
                let words = self.words(line);
                self.narrator.command(&words, Some(name));
                self.children.load(name, &addressed(&words, &self.testnet))?;
                Heard::default()
            }
            Deed::End(name) | Deed::Await(name) => {
                let press = matches!(deed, Deed::End(_));
                self.narrator.ends(name, press);
                let heard = self.children.end(name, press, COMMAND_LIMIT).await?;
                if let Err(why) = step.expect.check(&heard, &self.values) {
                    self.narrator.output(&heard, None);
                    return Ok(Came::Otherwise { heard, why });
                }
                self.narrator.output(&heard, step.show.as_deref());
                heard
            }
        };
        let mut taken = Vec::new();
        for (name, path) in &step.take {
            match heard.take(path, &self.values) {
                Ok(value) => taken.push((name.as_str(), value)),
                Err(why) => return Ok(Came::Otherwise { heard, why }),
            }
        }
        self.narrator.taken(&taken);
        for (name, value) in taken {
            self.values.set(name, value);
        }
        if let Some(otherwise) = self.ended_early()? {
            return Ok(otherwise);
        }
        self.narrator.held(step, &self.values);
        self.narrator.look(step, &self.values);
        Ok(Came::AsTold)
    }

    /// Runs a command; again and again, if it has time to become as expected.
    async fn run(&mut self, step: &Step, line: &Line) -> io::Result<Result<Heard, Came>> {
        let words = self.words(line);
        self.narrator.command(&words, None);
        let run = addressed(&words, &self.testnet);
        let began = Instant::now();
        let within = step.within.unwrap_or_default();
        let mut times = 1;
        loop {
            let heard = self.children.run(&run, COMMAND_LIMIT).await?;
            let checked = step.expect.check(&heard, &self.values);
            if checked.is_ok() || began.elapsed() >= within {
                self.narrator.repeated(times, began.elapsed());
            }
            match checked {
                Ok(()) => {
                    // JSON is for programs: what is taken from it is told
                    if !line.asks_for_json() || step.show.is_some() {
                        self.narrator.output(&heard, step.show.as_deref());
                    }
                    return Ok(Ok(heard));
                }
                Err(why) if began.elapsed() >= within => {
                    self.narrator.output(&heard, None);
                    return Ok(Err(Came::Otherwise { heard, why }));
                }
                Err(_) => times += 1,
            }
            if let Some(otherwise) = self.ended_early()? {
                return Ok(Err(otherwise));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// A load that has ended cannot be what the story goes on about.
    fn ended_early(&mut self) -> io::Result<Option<Came>> {
        Ok(self.children.ended_early()?.map(|(name, heard)| {
            self.narrator.output(&heard, None);
            let why = format!("{name} ended by itself in the middle of the story");
            Came::Otherwise { heard, why }
        }))
    }

    fn words(&self, line: &Line) -> Vec<String> {
        line.fill(&self.values).expect("the story was checked: all its names are known")
    }

    fn known(&self, text: &str) -> String {
        self.values.fill(text).expect("the story was checked: all its names are known")
    }

    async fn wait_for_enter(&mut self) {
        if let Some(enter) = &mut self.enter
            && self.narrator.has_said_something()
        {
            self.narrator.offer_enter();
            if enter.recv().await.is_none() {
                self.enter = None; // nobody is at the keyboard any more
            }
        }
    }
}

/// A thread, because a read from a terminal cannot be cut short: it ends with the program.
fn listen_for_enter() -> mpsc::UnboundedReceiver<()> {
    let (pressed, enter) = mpsc::unbounded_channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            if line.is_err() || pressed.send(()).is_err() {
                return;
            }
        }
    });
    enter
}

fn cannot_run(error: &io::Error) -> Failed {
    Failed::new(Exit::Other, format!("a command of the story could not be run: {error}"))
}

/// How long any command may take if nothing hangs; loads too, once they were told to end.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// Between two looks at something that is not yet as expected.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
