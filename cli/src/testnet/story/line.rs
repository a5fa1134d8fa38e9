//! The command lines of a story, as this program understands them: are there such commands, and whom do they speak to.

use atoll_testnet::story::{Line, Mistake, Story};
use clap::{Command, CommandFactory as _};

/// Refuses a story with a command or option that does not exist, where it stands.
///
/// Values are looked at by the command itself: what they stand for is not known before the story is told.
pub fn check(story: &Story) -> Result<(), Mistake> {
    let mut program = crate::Cli::command();
    program.build();
    story.lines().try_for_each(|line| check_line(&program, line))
}

fn check_line(program: &Command, line: &Line) -> Result<(), Mistake> {
    let mut command = program;
    let mut takes_value = false;
    for word in &line.words[1..] {
        let text = word.text.as_str();
        if std::mem::take(&mut takes_value) {
            continue;
        }
        if text == "--" {
            break;
        }
        let mistake = |what: String| Err(Mistake { place: word.place, what });
        if let Some(option) = text.strip_prefix("--") {
            let (name, joined) = option.split_once('=').map_or((option, false), |(n, _)| (n, true));
            match command.get_arguments().find(|argument| argument.get_long() == Some(name)) {
                Some(argument) => takes_value = !joined && argument.get_action().takes_values(),
                None => return mistake(format!("`{}` has no option --{name}", called(command))),
            }
        } else if let Some(short) = text.strip_prefix('-').and_then(|rest| rest.chars().next()) {
            let known = command.get_arguments().find(|known| known.get_short() == Some(short));
            takes_value = text.len() == 2 && known.is_some_and(|k| k.get_action().takes_values());
        } else if command.has_subcommands() && command.get_positionals().next().is_none() {
            command = match command.find_subcommand(text) {
                Some(below) => below,
                None => {
                    let known = command.get_subcommands().map(Command::get_name);
                    let known: Vec<&str> = known.filter(|name| *name != "help").collect();
                    let of = called(command);
                    let what =
                        format!("`{of}` has no command {text}; it has: {}", known.join(", "));
                    return mistake(what);
                }
            };
            if STORIES.contains(&called(command).as_str()) {
                return mistake("a story does not tell another one".to_owned());
            }
        }
    }
    Ok(())
}

/// The words to run for those that are printed: with the name of the testnet, if it is a command for testnets.
pub fn addressed(words: &[String], testnet: &str) -> Vec<String> {
    let mut program = crate::Cli::command();
    program.build();
    let mut command = &program;
    for word in &words[1..] {
        if let Some(below) = command.find_subcommand(word) {
            command = below;
        }
    }
    let takes_name = called(command).starts_with("atoll testnet ")
        && command.get_arguments().any(|argument| argument.get_long() == Some("name"));
    let is_named = words.iter().any(|word| word == "--name" || word.starts_with("--name="));
    let mut words = words[1..].to_vec();
    if takes_name && !is_named {
        words.extend(["--name".to_owned(), testnet.to_owned()]);
    }
    words
}

fn called(command: &Command) -> String {
    command.get_bin_name().unwrap_or_else(|| command.get_name()).to_owned()
}

const STORIES: [&str; 2] = ["atoll testnet story", "atoll testnet tour"];

#[cfg(test)]
mod tests {
    use atoll_testnet::story::SHIPPED;

    use super::*;

    fn checked(line: &str) -> Result<(), String> {
        let source = format!("title = 't'\n[[step]]\nrun = \"{line}\"\n");
        let story = Story::parse("x", &source).map_err(|mistake| mistake.to_string())?;
        check(&story).map_err(|mistake| mistake.to_string())
    }

    /// What comes with the program uses nothing that it does not have.
    #[test]
    fn shipped_stories_can_be_told() {
        for (name, file) in SHIPPED {
            let story = Story::parse(name, file).expect(name);
            check(&story).unwrap_or_else(|mistake| panic!("{name}: {mistake}"));
        }
    }

    /// A word in the place of a command must be one, an option must be known there; values may be anything.
    #[test]
    fn unknown_commands_and_options() {
        for good in [
            "atoll put cart 'two apples' --via n1 -w 2 --strict",
            "atoll -o json get cart",
            "atoll testnet kill --all",
            "atoll bench run --for 10m -c 8 --history run.jsonl",
            "atoll put -- --odd value",
            "atoll put key -5",
        ] {
            assert_eq!(checked(good), Ok(()));
        }
        for (bad, place, words) in [
            (
                "atoll gett cart",
                "line 3, column 14",
                "`atoll` has no command gett; it has: put, get",
            ),
            ("atoll testnet brake n1", "line 3, column 22", "no command brake; it has: up, down"),
            ("atoll get cart --stict", "line 3, column 23", "`atoll get` has no option --stict"),
            ("atoll testnet tour", "line 3, column 22", "does not tell another"),
            ("atoll testnet story x", "line 3, column 22", "does not tell another"),
        ] {
            let refused = checked(bad).unwrap_err();
            assert!(refused.starts_with(place) && refused.contains(words), "{refused}");
        }
    }

    /// Commands for testnets are told which one; the others hear it by the environment.
    #[test]
    fn whom_they_speak_to() {
        let addressed = |line: &str| {
            let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
            super::addressed(&words, "s").join(" ")
        };
        assert_eq!(addressed("atoll testnet kill n1"), "testnet kill n1 --name s");
        assert_eq!(addressed("atoll testnet kill n1 --name t"), "testnet kill n1 --name t");
        assert_eq!(addressed("atoll testnet judge run.jsonl"), "testnet judge run.jsonl");
        assert_eq!(addressed("atoll put cart kill"), "put cart kill");
    }
}
