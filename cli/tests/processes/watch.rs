//! Watching a testnet: what `testnet status` shows and how it ends, and that `testnet watch` gives the terminal back.

use std::{
    io::{Read as _, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use crate::testnet::{Testnet, until};

/// Dead and paused nodes, their words, the exit code, and that nobody else is blamed for them.
#[test]
fn status_says_who_is_how() {
    let testnet = Testnet::up(3, 33_100);
    let cells = |text: &str| -> Vec<Vec<String>> {
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    };
    let all = cells(&testnet.ok(&["testnet", "status", "-o", "plain"]));
    for (number, row) in (1..).zip(&all) {
        let [node, state, address, zone, ring, _, hints, _, net, epoch, ..] = row.as_slice() else {
            panic!("{row:?}");
        };
        let expected =
            [&format!("n{number}"), "● ready", &format!("127.0.0.1:{}", 33_100 + number - 1), "z1"];
        assert_eq!([node, state, address, zone], expected);
        assert_eq!([ring, hints, epoch], ["33.3", "0", "1"], "three nodes own all alike");
        assert!(!net.contains("cut"), "{net}"); // slow it may be, where a machine is busy
    }

    testnet.ok(&["testnet", "kill", "n2"]);
    testnet.ok(&["testnet", "pause", "n3"]);
    let ran = testnet.run(&["testnet", "status", "-o", "plain"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    let rows = cells(&ran.stdout);
    let states: Vec<&str> = rows.iter().map(|row| row[1].as_str()).collect();
    assert_eq!(states, ["● ready", "✗ dead", "‖ paused"]);
    assert!(!rows[0][8].contains("cut"), "who is dead or paused is not cut off: {}", rows[0][8]);

    let ran = testnet.run(&["testnet", "status", "-o", "json"]);
    assert_eq!(ran.code, 5);
    for words in [
        "\"schema\": \"atoll.testnet-status/v1\"",
        "\"healthy\": false",
        "\"pid\": ",
        "\"ring_share\": 0.33",
    ] {
        assert!(ran.stdout.contains(words), "no {words} in {}", ran.stdout);
    }
}

/// Not on a terminal: one table after the other and no control characters, until nobody reads any more.
#[test]
fn status_goes_on_while_somebody_reads() {
    let testnet = Testnet::up(1, 33_200);
    let mut watching = testnet
        .command(&["testnet", "status", "--watch"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the program runs");
    let mut stdout = watching.stdout.take().expect("piped");
    let (mut said, mut bytes) = (String::new(), [0; 4096]);
    while said.matches("NODE").count() < 2 {
        let count = stdout.read(&mut bytes).expect("readable");
        assert!(count > 0, "it ended by itself: {said}");
        said.push_str(&String::from_utf8_lossy(&bytes[..count]));
    }
    assert!(!said.contains('\x1b'), "{said:?}");
    assert!(said.contains("\n\nNODE"), "{said:?}");
    drop(stdout);
    assert!(watching.wait().expect("our child").success());
}

/// Without a terminal there is nothing to draw on, and it says what to use instead.
#[test]
fn watch_needs_a_terminal() {
    let testnet = Testnet::up(1, 33_300);
    for arguments in [&["testnet", "watch"][..], &["testnet", "watch", "-o", "json"]] {
        let ran = testnet.run(arguments);
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(ran.stderr.contains("atoll testnet status --watch"), "{ran:?}");
    }
}

/// However `watch` ends, the terminal is as it was: its settings, its screen, its cursor. On the way a key kills the node
/// and another starts it again.
#[test]
fn watch_gives_the_terminal_back() {
    let testnet = Testnet::up(2, 33_400);

    let mut typed = Terminal::open(&testnet);
    typed.sees("healthy");
    typed.types("c");
    typed.sees("was started without --allow-faults");
    typed.types("k");
    typed.sees("n1 killed");
    typed.sees("dead");
    typed.types("h");
    typed.sees("n1 ready after");
    typed.types("q");
    typed.ends_with(0);

    let mut interrupted = Terminal::open(&testnet);
    interrupted.sees("q quit");
    interrupted.types("\x03");
    interrupted.ends_with(130);

    let told = Terminal::open(&testnet);
    told.sees("q quit");
    told.signal("-TERM");
    told.ends_with(130);

    let removed = Terminal::open(&testnet);
    removed.sees("healthy");
    testnet.ok(&["testnet", "down", "--remove"]);
    removed.sees("the testnet dev was removed");
    removed.ends_with(2);
}

/// A key cuts a node off from the others, the screen shows it when they notice, and another key heals it.
#[test]
fn keys_cut_and_heal() {
    let testnet = Testnet::up_with_faults(3, 33_500);
    let mut watching = Terminal::open(&testnet);
    watching.sees("healthy");
    watching.types("2c");
    watching.sees("n2 is cut off from all other nodes");
    watching.sees("cut from all");
    let ran = testnet.run(&["testnet", "status", "-o", "plain"]);
    assert_eq!(ran.code, 5, "{ran:?}");
    assert!(ran.stdout.lines().all(|line| line.contains("cut from ")), "{}", ran.stdout);
    watching.types("h");
    watching.sees("the links of n2 are whole again");
    watching.sees("healthy");
    watching.types("q");
    watching.ends_with(0);
}

/// A terminal of its own with `atoll testnet watch` in it, before and after which its settings are printed.
struct Terminal {
    script: Child,
    keys: Option<ChildStdin>,
    shown: Arc<Mutex<String>>,
    reading: Option<JoinHandle<()>>,
}

impl Terminal {
    fn open(testnet: &Testnet) -> Terminal {
        let atoll = env!("CARGO_BIN_EXE_atoll");
        let inside = format!(
            "stty rows 24 columns 80; echo before=$(stty -g); \
             sh -c 'echo pid=$$; exec {atoll} testnet watch'; echo code=$?; echo after=$(stty -g)"
        );
        let environment = testnet.command(&[]);
        let mut script = Command::new("script");
        script.args(["-qec", &inside, "/dev/null"]).env("NO_COLOR", "1").env("TERM", "xterm");
        for (name, value) in environment.get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        let mut script = script
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script is part of every Linux (util-linux)");
        let mut stdout = script.stdout.take().expect("piped");
        let shown = Arc::new(Mutex::new(String::new()));
        let into = shown.clone();
        let reading = std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                into.lock().unwrap().push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
        });
        let keys = script.stdin.take();
        Terminal { script, keys, shown, reading: Some(reading) }
    }

    /// Waits until these words stand on the screen.
    fn sees(&self, words: &str) {
        until(&format!("{words} is shown"), || screen(&self.shown.lock().unwrap()).contains(words));
    }

    fn types(&mut self, keys: &str) {
        let stdin = self.keys.as_mut().expect("not ended yet");
        stdin.write_all(keys.as_bytes()).and_then(|()| stdin.flush()).expect("it listens");
    }

    fn signal(&self, signal: &str) {
        let shown = self.shown.lock().unwrap().clone();
        let pid = after(&shown, "pid=");
        assert!(Command::new("kill").args([signal, pid]).status().expect("kill runs").success());
    }

    fn ends_with(mut self, code: i32) {
        until("the end", || self.shown.lock().unwrap().contains("after="));
        drop(self.keys.take());
        self.script.wait().expect("our child");
        self.reading.take().expect("once").join().expect("reading does not panic");
        let shown = self.shown.lock().unwrap();
        assert_eq!(after(&shown, "code="), code.to_string(), "{shown}");
        assert_eq!(after(&shown, "before="), after(&shown, "after="), "settings");
        let last = |sequence| shown.rfind(sequence).unwrap_or_else(|| panic!("never {sequence:?}"));
        assert!(last("\x1b[?1049h") < last("\x1b[?1049l"), "screen");
        assert!(last("\x1b[?25l") < last("\x1b[?25h"), "cursor");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill(); // nothing, if it has ended
        let _ = self.script.wait();
    }
}

/// The rest of the line behind a mark.
fn after<'t>(shown: &'t str, mark: &str) -> &'t str {
    let (_, rest) = shown.split_once(mark).unwrap_or_else(|| panic!("no {mark} in {shown}"));
    rest.lines().next().unwrap_or_default().trim_end()
}

/// What a terminal of 80 by 24 shows by now. It understands what `watch` says to one: places, an empty screen, and the end
/// of its own screen; colours are ignored.
fn screen(shown: &str) -> String {
    const EMPTY: [[char; 80]; 24] = [[' '; 80]; 24];
    let (mut cells, mut row, mut column) = (EMPTY, 0, 0);
    let mut letters = shown.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' => {
                let sequence: String =
                    letters.by_ref().take_while(|it| !it.is_alphabetic()).collect();
                let after = &shown[..shown.len() - letters.as_str().len()];
                let place = sequence.trim_start_matches('[').split_once(';');
                match (after.chars().last(), place) {
                    (Some('H'), Some((down, right))) => {
                        let number =
                            |text: &str| text.parse().map_or(0, |number: usize| number - 1);
                        (row, column) = (number(down), number(right));
                    }
                    (Some('l'), None) if sequence == "[?1049" => {
                        (cells, row, column) = (EMPTY, 0, 0)
                    }
                    (Some('J'), None) => cells = EMPTY,
                    _ => {}
                }
            }
            '\r' => column = 0,
            '\n' => row = (row + 1).min(23),
            letter => {
                if let Some(cell) = cells[row.min(23)].get_mut(column) {
                    *cell = letter;
                }
                column += 1;
            }
        }
    }
    cells.map(|line| line.into_iter().collect::<String>()).join("\n")
}
