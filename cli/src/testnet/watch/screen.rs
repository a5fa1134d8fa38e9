//! The terminal while it is ours, and its return: whatever ends us, it is given back as it was.
//!
//! | end | who gives it back |
//! |---|---|
//! | `q`, Ctrl-C (a key like any other, while the terminal is ours), an error | [`Screen`] when it is dropped |
//! | SIGINT, SIGTERM, SIGHUP | whoever waits for them returns, and the screen is dropped |
//! | panic | the hook, before the message is printed: a release build aborts right after it and drops nothing |
//! | SIGKILL | nobody can: type `reset` |

use std::{
    io::{self, Stdout, stdout},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    cursor::{Hide, Show},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use ratatui::{Frame, Terminal, backend::CrosstermBackend};

/// The terminal, as long as it is ours. There is one at a time.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// It cannot be had; then it is as it was.
    pub fn take() -> io::Result<Screen> {
        give_back_on_panic();
        enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        let terminal = execute!(stdout(), EnterAlternateScreen, Hide)
            .and_then(|()| Terminal::new(CrosstermBackend::new(stdout())));
        if terminal.is_err() {
            give_back();
        }
        Ok(Screen { terminal: terminal? })
    }

    /// Draws the screen anew.
    ///
    /// # Errors
    /// The terminal is gone.
    pub fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(picture).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Whether the terminal is ours.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Gives the terminal back, once, if it is ours. Errors are of no use here: the terminal is gone then.
fn give_back() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(stdout(), LeaveAlternateScreen, Show);
        let _ = disable_raw_mode();
    }
}

/// From now on a panic gives the terminal back before it says anything.
fn give_back_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            give_back();
            before(panic);
        }));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A panic anywhere gives the terminal back, and so does the end of a screen; what is not ours is left alone. Ends that
    /// need a terminal are tested on one, see `cli/tests/processes/watch.rs`.
    #[test]
    fn a_panic_gives_it_back() {
        give_back_on_panic();
        TAKEN.store(true, Ordering::SeqCst);
        assert!(panic::catch_unwind(|| panic!("as intended")).is_err());
        assert!(!TAKEN.load(Ordering::SeqCst));
        assert!(panic::catch_unwind(|| panic!("as intended, with nothing to give back")).is_err());
    }
}
