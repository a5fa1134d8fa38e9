//! What keys mean.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

/// What whoever types wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Another node: so many further down.
    Select(Step),
    /// Something with the selected node.
    Do(Deed),
    /// To leave, content.
    Leave,
    /// To leave at once.
    Interrupt,
    /// To see it again: the terminal has another size.
    Redraw,
}

/// To which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Up,
    Down,
    First,
    Last,
    /// The one with this place, counted from 1.
    Number(usize),
}

/// What can be done with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// End it, as a power cut would.
    Kill,
    /// Freeze it, or let it go on.
    Pause,
    /// Cut it off from all others.
    Cut,
    /// Undo all of that.
    Heal,
}

/// What the last line says of it.
pub const HELP: &str = "↑↓ 1-9 node   k kill   p pause   c cut off   h heal   q quit";

/// What an event of the terminal means, if anything.
pub fn wish(event: &Event) -> Option<Wish> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => of_key(*key),
        Event::Resize(..) => Some(Wish::Redraw),
        Event::Key(_)
        | Event::Mouse(_)
        | Event::FocusGained
        | Event::FocusLost
        | Event::Paste(_) => None,
    }
}

fn of_key(key: KeyEvent) -> Option<Wish> {
    let held = key.modifiers - KeyModifiers::SHIFT;
    if held == KeyModifiers::CONTROL && key.code == KeyCode::Char('c') {
        return Some(Wish::Interrupt);
    }
    if !held.is_empty() {
        return None;
    }
    let wish = match key.code {
        KeyCode::Up | KeyCode::BackTab => Wish::Select(Step::Up),
        KeyCode::Down | KeyCode::Tab => Wish::Select(Step::Down),
        KeyCode::Home => Wish::Select(Step::First),
        KeyCode::End => Wish::Select(Step::Last),
        KeyCode::Char(digit @ '1'..='9') => {
            Wish::Select(Step::Number(digit.to_digit(10).map_or(1, |digit| digit as usize)))
        }
        KeyCode::Char('k') => Wish::Do(Deed::Kill),
        KeyCode::Char('p') => Wish::Do(Deed::Pause),
        KeyCode::Char('c') => Wish::Do(Deed::Cut),
        KeyCode::Char('h') => Wish::Do(Deed::Heal),
        KeyCode::Char('q') | KeyCode::Esc => Wish::Leave,
        _ => return None,
    };
    Some(wish)
}

impl Step {
    /// The place it leads to from another, among so many; both from 0. At the ends it stays.
    pub fn from(self, index: usize, count: usize) -> usize {
        let last = count.saturating_sub(1);
        match self {
            Step::Up => index.saturating_sub(1),
            Step::Down => (index + 1).min(last),
            Step::First => 0,
            Step::Last => last,
            Step::Number(number) if number <= count => number - 1,
            Step::Number(_) => index,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode, modifiers: KeyModifiers) -> Option<Wish> {
        wish(&Event::Key(KeyEvent::new(code, modifiers)))
    }

    /// Ctrl-C leaves and `c` cuts; a letter held with Ctrl or Alt kills nobody, and neither does letting go of one.
    #[test]
    fn letters_and_modifiers() {
        let c = KeyCode::Char('c');
        assert_eq!(press(c, KeyModifiers::CONTROL), Some(Wish::Interrupt));
        assert_eq!(press(c, KeyModifiers::NONE), Some(Wish::Do(Deed::Cut)));
        assert_eq!(press(KeyCode::Char('k'), KeyModifiers::NONE), Some(Wish::Do(Deed::Kill)));
        for modifiers in [KeyModifiers::CONTROL, KeyModifiers::ALT] {
            assert_eq!(press(KeyCode::Char('k'), modifiers), None);
        }
        let mut released = KeyEvent::new(KeyCode::Char('k'), KeyModifiers::NONE);
        released.kind = KeyEventKind::Release;
        assert_eq!(wish(&Event::Key(released)), None);
        assert_eq!(press(KeyCode::Char('x'), KeyModifiers::NONE), None);
        assert_eq!(wish(&Event::Resize(80, 24)), Some(Wish::Redraw));
    }

    /// The selection stays among the nodes there are.
    #[test]
    fn selection_stays_inside() {
        let steps =
            [Step::Up, Step::Down, Step::First, Step::Last, Step::Number(2), Step::Number(9)];
        assert_eq!(steps.map(|step| step.from(0, 5)), [0, 1, 0, 4, 1, 0]);
        assert_eq!(steps.map(|step| step.from(4, 5)), [3, 4, 0, 4, 1, 4]);
        assert_eq!(steps.map(|step| step.from(0, 1)), [0; 6]);
        assert_eq!(steps.map(|step| step.from(0, 0)), [0; 6]);
    }
}
